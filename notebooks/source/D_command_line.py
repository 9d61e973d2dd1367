# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # D · The command line
#
# You will build: the command `chargpt`, with two words, `grade` and `check`.
# You need [C · Grading](C_grading.ipynb). The page runs in a few seconds.

# %%
#| default_exp command_line

# %%
#| export
import argparse
import secrets
import sys
from pathlib import Path

from chargpt_lib.checks import load_keys
from chargpt_lib.examination import grade
from chargpt_lib.grading import chosen_lesson, find_submissions, grade_batch, likely_lesson
from chargpt_lib.sandbox import lesson_names

# %% [markdown]
# `chargpt grade` is for teachers. `chargpt check` is for a learner who wants to know what a grader would say to her notebook: the same examination, of one file. (On Windows both need WSL. The function `check` in a notebook needs nothing.)
#
# The exit code is for scripts. 0: all went well (for `check`: all right). 1: some submissions could not be graded (for `check`: not all right). 2: what was asked for cannot be done. 130: interrupted.

# %%
#| export
def read_arguments(arguments):
    parser = argparse.ArgumentParser(prog="chargpt", description="The command of the chargpt course.")
    commands = parser.add_subparsers(dest="command", required=True)
    grading = commands.add_parser("grade", help="grade a class")
    grading.add_argument("submissions", nargs="+", type=Path, help="notebooks, or folders of them")
    grading.add_argument("--out", type=Path, required=True, help="folder for grades.csv, grades.json and the feedback")
    grading.add_argument("--lesson", help="03, single_head or 03_single_head; without, what most of the notebooks are")
    grading.add_argument("--weights", type=Path, help="a TOML file with lines like `window_mask = 2`")
    grading.add_argument("--seed", type=int, help="repeat the grading that had this seed (see grades.json)")
    grading.add_argument("--jobs", type=int, help="so many at a time; without, one for each core, at most 8")
    checking = commands.add_parser("check", help="grade your own notebook")
    checking.add_argument("notebook", type=Path)
    checking.add_argument("--lesson", help="as for grade")
    return parser.parse_args(arguments)

# %%
#| export
def grade_command(options):
    """Grades, prints the class at a glance -> the exit code."""
    lesson = chosen_lesson(options.lesson) if options.lesson else None
    if options.jobs is not None and options.jobs < 1:
        raise ValueError(f"--jobs is {options.jobs}: it is a whole number from 1 on")
    batch = grade_batch(options.submissions, options.out, lesson, options.weights, options.seed, options.jobs)
    for name, record in batch["submissions"].items():
        print(f"{record['score']:>5.0f}%  {' '.join(record['marks'].values())}  {name}")
        for problem in record["problems"]:
            print(f"        {problem}")
    if batch["older"]:
        print(f"\n{options.out} keeps {batch['older']} older record(s) besides; a table without them needs a new --out")
    locks = [record["locked"] for record in batch["submissions"].values() if record["locked"]]
    if open_doors := sorted({what for lock in locks for what, shut in lock.items() if not shut}):
        print(f"\nnot locked by the system on this machine, only guarded by Python: {', '.join(open_doors)}")
    called = f"lesson {lesson_names()[batch['lesson']]}, seed {batch['seed']}"
    print(f"\n{options.out / 'grades.csv'}, grades.json, feedback/   ({called})")
    return 0 if all(record["ran"] for record in batch["submissions"].values()) else 1

# %%
#| export
def check_command(options):
    """Grades one notebook, prints its verdicts -> the exit code."""
    path, *others = find_submissions([options.notebook])
    if others:
        raise ValueError(f"check takes one notebook, and {options.notebook} holds {1 + len(others)}")
    lesson = chosen_lesson(options.lesson) if options.lesson else likely_lesson([path])
    record = grade(path, lesson, secrets.randbits(31))
    for name, mark in record["marks"].items():
        print(f"{mark} {name}" + f": {record['hints'][name]}" * (mark != "✓"))
    for problem in record["problems"]:
        print(problem)
    return 0 if set(record["marks"].values()) == {"✓"} else 1


def main(arguments=None):
    """The command `chargpt`."""
    options = read_arguments(arguments)
    try:
        load_keys()
        return {"grade": grade_command, "check": check_command}[options.command](options)
    except (OSError, ValueError) as error:
        print(f"chargpt {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; what was graded is kept, and the same command goes on from there", file=sys.stderr)
        return 130

# %%
print("exit code", main(["grade", "nowhere", "--out", "marks"]))

# %% [markdown]
# (The complaint itself goes to the error output, as complaints should.)
#
# ## What you have
#
# `main`, in `chargpt_lib/command_line.py`; installed with the library it is called `chargpt`.
