"""The checks, checked: every wrong answer is rejected, most with the right hint; every right one always passes."""

import importlib
from pathlib import Path

import pytest

from chargpt_lib.exercises.compare import call
from chargpt_lib.exercises.judge import EXERCISES, find, judge
from tests.mistakes import RIGHT, WRONG

for path in sorted((Path(__file__).parent / "mistakes").glob("[!_]*.py")):
    importlib.import_module(f"tests.mistakes.{path.stem}")
with pytest.raises(KeyError):
    find("loads all keys")

SEEDS = range(1000, 1200)
WRONG_SEEDS = range(5)
names = dict(ids=lambda answer: f"{answer.exercise}-{answer.function.__name__}")


def verdict(answer, seed):
    exercise = find(answer.exercise)
    return judge(exercise, lambda args: call(answer.function, args, exercise.seconds), seed)


@pytest.mark.parametrize("answer", WRONG, **names)
def test_every_wrong_answer_is_rejected(answer):
    for seed in WRONG_SEEDS:
        found = verdict(answer, seed)
        assert found.mark == "✗" and "\n" not in str(found)
        assert not answer.hint or answer.hint in found.hint, str(found)


MISTAKES = [
    pytest.param(exercise, hint, id=f"{exercise.name}-{mistake.__name__}")
    for exercise in EXERCISES.values()
    for hint, mistake in exercise.mistakes.items()
]


@pytest.mark.parametrize("exercise, hint", MISTAKES)
def test_every_named_mistake_gets_its_own_hint(exercise, hint):
    mistake = exercise.mistakes[hint]
    for seed in WRONG_SEEDS:
        found = judge(exercise, lambda args: call(mistake, args, exercise.seconds), seed)
        assert (found.mark, found.hint) == ("✗", hint)


@pytest.mark.parametrize("answer", RIGHT, **names)
def test_every_right_answer_always_passes(answer):
    for seed in SEEDS:
        assert verdict(answer, seed).mark == "✓", f"seed {seed}: {verdict(answer, seed)}"


@pytest.mark.parametrize("name", EXERCISES)
def test_every_exercise_has_enough_answers(name):
    assert len([answer for answer in WRONG if answer.exercise == name]) >= 5
    assert len([answer for answer in RIGHT if answer.exercise == name]) >= 2
    assert verdict(RIGHT[0]._replace(exercise=name, function=EXERCISES[name].answer), 7).mark == "✓"


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=lambda exercise: exercise.name)
def test_every_hint_is_earned_by_an_answer_written_differently(exercise):
    """A mistake that nobody makes in these files needs no hint."""
    pieces = [answer.hint for answer in WRONG if answer.exercise == exercise.name and answer.hint]
    for hint in (*exercise.mistakes, *exercise.symptoms):
        assert any(piece in hint for piece in pieces), hint


def test_half_of_the_wrong_answers_are_recognised():
    """About six hints an exercise name the mistakes that people really make; the others get the first difference."""
    named = [answer for answer in WRONG if answer.hint]
    print(
        f"{len(EXERCISES)} exercises, {len(WRONG)} wrong answers, {len(named) / len(WRONG):.0%} named; {len(RIGHT)} right"
    )
    assert len(named) >= 0.5 * len(WRONG)
