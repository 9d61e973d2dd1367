"""A grader for tests of what lies around grading: it reads each file, runs nothing, and finds all right."""

from chargpt_lib.exercises.judge import exercises_of
from chargpt_lib.grading.submission import read_code_cells


def grade_submission(source, lesson, seed):
    """The record of a submission in which every exercise of the lesson is right."""
    names = [exercise.name for exercise in exercises_of(lesson)]
    return {
        "marks": dict.fromkeys(names, "✓"),
        "hints": dict.fromkeys(names, ""),
        "problems": [],
        "seconds": 1.0,
        "answers": {name: text for known_by, text in read_code_cells(source) for name in known_by},
        "isolation": None,
        "ran": True,
    }
