"""What a teacher's `chargpt grade` runs.

From the bottom up: `isolation` gives up rights, `worker` serves one answer in an isolated process, `submission` grades one
notebook, `batch` grades a class.
"""
