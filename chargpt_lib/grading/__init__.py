"""What a teacher's `chargpt grade` runs.

From the bottom up: `isolation` gives up rights, `worker` serves one answer in an isolated process, `submission` grades one
notebook, `batch` grades a class. What comes in: `archives` reads files and zips, `learners` the
names that platforms give them, `intake` says which are submissions. What goes out: `tables`.

What is guaranteed, and what is not:

- A ✓ means: the text of this cell, alone, gave the right values on inputs that nobody knew. It does not say who wrote it.
- On Linux with Landlock no answer reads the keys, the seed, another submission or the network, writes outside its own
  folder, outlives its time, or takes more than a gigabyte of memory more than it found, as far as the tests know.
- On macOS, and on a Linux without Landlock, Python's audit hook stops the usual ways out of Python; somebody who knows
  Python's insides could get around it. On macOS memory is not limited.
- grades.json says for each submission what the system isolated on the machine that graded it, and the command says what
  it did not.
- On Windows the grader does not start. Inside WSL it does.
"""
