"""Judging an answer: cases are drawn, the answer runs on them, known mistakes are recognised, a mark is given."""

import gzip
import importlib
import inspect
import json
import os
import random
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

import torch

from chargpt_lib.exercises.compare import (
    Outcome,
    call,
    copy_args,
    decode,
    define_answer,
    describe,
    first_difference,
)
from chargpt_lib.exercises.session import answer_text, no_trace
from chargpt_lib.files import library_dir


class RandomInputs:
    """Random inputs from a seed. Shapes are given as in torch.randn."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def integer(self, low, high):
        """A whole number, both ends included."""
        return self.random.randint(low, high)

    def number(self, low=0.0, high=1.0):
        """A float from low to high."""
        return self.random.uniform(low, high)

    def choice(self, things):
        """One of them."""
        return self.random.choice(things)

    def text(self, length, alphabet="abcdefgh \n"):
        """So many characters of an alphabet."""
        return "".join(self.random.choices(alphabet, k=length))

    def ids(self, vocab_size, *shape):
        """int64, from 0 to vocab_size - 1."""
        return torch.randint(vocab_size, shape, generator=self.generator)

    def normal(self, *shape, dtype=torch.float32):
        """Mean 0, standard deviation 1."""
        return torch.randn(shape, generator=self.generator, dtype=dtype)

    def uniform(self, *shape, dtype=torch.float32):
        """From 0 to 1."""
        return torch.rand(shape, generator=self.generator, dtype=dtype)


@dataclass
class Exercise:
    """How answers to an exercise are judged.

    answer: the right one, whose name is the exercise's. cases: a function (draw) -> a list of argument lists.
    stars, minutes: as on the page. atol, rtol: how far a float may be off. seconds: of processor time, for one call.

    `mistakes` {hint: function} make one mistake each: an answer that gives the same results gets the hint.
    `symptoms` {hint: function (got, want, *args) -> bool, or a tensor of bools} look at a wrong value; {0}, {1} in
    the hint become the indices of the first True. Both are filled by decorators.
    """

    answer: Callable
    cases: Callable
    stars: int
    minutes: int
    atol: float = 1e-5
    rtol: float = 1e-4
    seconds: float = 5.0
    mistakes: dict = field(default_factory=dict)
    symptoms: dict = field(default_factory=dict)

    @property
    def name(self):
        return self.answer.__name__

    @property
    def lesson(self):
        """The module of its lesson."""
        return self.answer.__module__.rsplit(".", 1)[-1]

    def mistake(self, hint):
        """Decorator for a function that makes a known mistake, with the hint that it deserves."""

        def register(function):
            self.mistakes[hint] = function
            return function

        return register

    def symptom(self, hint):
        """Decorator for a function that recognises a mistake by the value: (got, want, *args) -> bool or tensor."""

        def register(function):
            self.symptoms[hint] = function
            return function

        return register


EXERCISES = {}  # name: Exercise, in the order of the lessons


def exercise(answer, stars, minutes, cases, **tolerances):
    """Declares an exercise: in a lesson's key, once for each. Returns the Exercise."""
    declared = Exercise(answer, cases, stars, minutes, **tolerances)
    EXERCISES[answer.__name__] = declared
    return declared


class _Case(NamedTuple):
    args: list
    want: object
    mistakes: dict  # {hint: a function that gives the Outcome of this mistake}


def draw_cases(exercise, seed):
    """The cases of one check -> [Case]."""
    sealed = Path(inspect.getfile(exercise.answer)).with_suffix(".json.gz")
    if sealed.is_file():
        packed = json.loads(gzip.decompress(sealed.read_bytes()))[exercise.name]
        return [
            _Case(args, want, {hint: partial(Outcome, *outcome) for hint, *outcome in wrong})
            for args, want, wrong in decode(random.Random(seed).choice(packed))
        ]
    return [
        _Case(
            args,
            exercise.answer(*copy_args(args)),
            {hint: partial(call, wrong, args) for hint, wrong in exercise.mistakes.items()},
        )
        for args in exercise.cases(RandomInputs(seed))
    ]


class Verdict(NamedTuple):
    name: str
    mark: str  # ✓ ✗ ○
    hint: str = ""

    def __str__(self):
        if self.hint:
            return f"{self.mark} {self.name}: {self.hint}"
        return f"{self.mark} {self.name}"


def _same_outcome(a, b, exercise):
    if a.status != b.status or a.status == "error":
        return a[:2] == b[:2]
    return first_difference(a.value, b.value, exercise.atol, exercise.rtol) is None


def _shown(args, function):
    """The arguments of a call, in words."""
    names = inspect.signature(function).parameters
    return ", ".join(f"{name} = {describe(value)}" for name, value in zip(names, args))


def _mistake_hint(exercise, cases, outcomes, differences):
    """The hint for the mistake that gives the same outcomes in all cases; None where the key knows none."""
    place = ()
    for difference in differences:
        if difference:
            place = difference.place
            break
    for hint in cases[0].mistakes:
        if all(
            _same_outcome(outcome, case.mistakes[hint](), exercise)
            for case, outcome in zip(cases, outcomes)
        ):
            return hint.format(*place)
    return None


def _symptom_hint(exercise, cases, outcomes, differences):
    """The hint for the first symptom that a wrong value shows; None where it shows none."""
    for case, outcome, difference in zip(cases, outcomes, differences):
        if not difference or not difference.numbers:
            continue
        for hint, symptom in exercise.symptoms.items():
            with suppress(Exception):  # a symptom may stumble over a value that nobody foresaw
                found = symptom(outcome.value, case.want, *case.args)
                if not torch.as_tensor(found).any():
                    continue
                place = difference.place
                if torch.is_tensor(found):
                    place = found.nonzero()[0].tolist()
                hint = hint.format(*place)
                # Numbers are short enough to be repeated; a tensor among the arguments is not.
                if all(isinstance(value, (int, float)) for value in case.args):
                    return f"for {_shown(case.args, exercise.answer)}: {hint}"
                return hint
    return None


def judge(exercise, run, seed):
    """run(args) -> Outcome, for each case of the seed -> Verdict."""
    cases = draw_cases(exercise, seed)
    outcomes = []
    for case in cases:
        outcomes.append(run(case.args))
        if outcomes[-1].status in ("blank", "late", "unusable"):
            break
    last = outcomes[-1]
    if last.status == "blank":
        return Verdict(exercise.name, "○", last.detail)
    if last.status == "unusable":
        return Verdict(exercise.name, "✗", last.detail)
    differences = [
        first_difference(outcome.value, case.want, exercise.atol, exercise.rtol)
        for case, outcome in zip(cases, outcomes)
    ]
    bad = [i for i, outcome in enumerate(outcomes) if outcome.status != "value" or differences[i]]
    if not bad:
        return Verdict(exercise.name, "✓")
    hint = None
    if len(outcomes) == len(cases):  # a mistake is known by its outcomes in all cases
        hint = _mistake_hint(exercise, cases, outcomes, differences)
        if hint is None:
            hint = _symptom_hint(exercise, cases, outcomes, differences)
    if hint is None:
        outcome = outcomes[bad[0]]
        if outcome.detail:
            problem = outcome.detail
        elif outcome.value is None:
            problem = "it returns nothing: is there a `return`?"
        else:
            problem = differences[bad[0]].text
        hint = f"for {_shown(cases[bad[0]].args, exercise.answer)}: {problem}"
    return Verdict(exercise.name, "✗", hint)


MARKS = {}  # {exercise: the mark of its last check}


class CheckFailed(Exception):
    """Raised by `check` where CHARGPT_STRICT=1 is set and the mark is not ✓."""

    def _render_traceback_(self):
        return [str(self)]


def load_answer_keys():
    """Reads the keys of all lessons into EXERCISES."""
    for path in sorted((library_dir() / "exercises" / "keys").glob("[!_]*.py")):
        importlib.import_module(f"chargpt_lib.exercises.keys.{path.stem}")


def find(name):
    """The exercise of this name. KeyError where no lesson has it."""
    load_answer_keys()
    if name not in EXERCISES:
        raise KeyError(f"no exercise is called {name!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[name]


def exercises_of(lesson):
    """The exercises of a lesson's module, in their order."""
    load_answer_keys()
    return [exercise for exercise in EXERCISES.values() if exercise.lesson == lesson]


def _unfit(answer, name, parameters):
    """What is wrong with an answer that cannot even be called, else None."""
    if not inspect.isfunction(answer):
        signature = f"def {name}({', '.join(parameters)})"
        return f"{describe(answer)} is not a Python function: write a function, `{signature}`"
    if (answer.__module__ or "").startswith("chargpt_lib."):
        return "that is a function of the library: write your own"
    try:
        inspect.signature(answer).bind(*parameters)
    except TypeError:
        own = list(inspect.signature(answer).parameters)
        return f"its parameters are {own}, but must be {parameters}"


def _judge_function(exercise, answer):
    """The Verdict on an answer: on what its cell alone defines; on the function itself if it comes from no cell."""
    text = answer_text(answer, exercise.name)
    if text is None:
        defined = Outcome("value", answer)
    else:
        file = answer.__code__.co_filename
        defined = define_answer(text, exercise.name, exercise.seconds, file)

    def run(args):
        if defined.status != "value":
            return defined
        return call(defined.value, args, exercise.seconds)

    return judge(exercise, run, secrets.randbits(32))


def check(name, answer):
    """Checks an answer on inputs drawn now, and prints a line: ✓, ✗ with a hint, or ○ where nothing was attempted."""
    exercise = find(name)
    parameters = list(inspect.signature(exercise.answer).parameters)
    problem = _unfit(answer, name, parameters)
    if problem:
        verdict = Verdict(name, "✗", problem)
    else:
        with no_trace():
            verdict = _judge_function(exercise, answer)
    MARKS.pop(name, None)  # the last one checked stands last
    MARKS[name] = verdict.mark
    print(verdict)
    if verdict.mark != "✓" and os.environ.get("CHARGPT_STRICT") == "1":
        raise CheckFailed(str(verdict))


def passed(name):
    """Did the last check of this exercise say ✓?"""
    return MARKS.get(name) == "✓"


def progress():
    """Prints the learner's table for the lesson of the exercise that was checked last."""
    rows = exercises_of(EXERCISES[list(MARKS)[-1]].lesson) if MARKS else []
    for row in rows:
        print(
            f"{MARKS.get(row.name, '○')}  {row.name:<24} {'★' * row.stars:<4} {row.minutes:>3} min"
        )
    done = [row for row in rows if passed(row.name)]
    minutes = f"{sum(row.minutes for row in done)} of {sum(row.minutes for row in rows)} minutes"
    print(
        f"{'█' * round(20 * len(done) / max(len(rows), 1)):░<20} {len(done)} of {len(rows)}, {minutes}"
    )
