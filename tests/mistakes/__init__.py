"""Answers as people write them: right ones, and wrong ones with a piece of the hint they must get.

A file for each lesson. `@right("name")`; `@wrong("name", "a piece of the hint")`, or `@wrong("name")` where the check
rejects the answer but need not know the mistake.
"""

import inspect
import re
from typing import Callable, NamedTuple


class Answer(NamedTuple):
    exercise: str
    function: Callable
    hint: str | None


RIGHT, WRONG = [], []


def right(exercise):
    return lambda function: RIGHT.append(Answer(exercise, function, None)) or function


def wrong(exercise, hint=None):
    return lambda function: WRONG.append(Answer(exercise, function, hint)) or function


def as_cell(answer):
    """The text that a learner's cell with this answer would have."""
    source = inspect.getsource(answer.function)
    return re.sub(r"^def \w+", f"def {answer.exercise}", source[source.index("def ") :], count=1)
