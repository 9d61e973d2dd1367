"""Drawing cases, judging, and what a learner sees."""

import gzip
import json
import subprocess
import sys

import pytest
import torch

from chargpt_lib.exercises import check, passed, progress
from chargpt_lib.exercises import judge as judge_module
from chargpt_lib.exercises.compare import NotAttempted, Outcome, call, encode
from chargpt_lib.exercises.judge import (
    CheckFailed,
    Exercise,
    RandomInputs,
    draw_cases,
    exercises_of,
    find,
    judge,
)


def running_mean(x):
    return x.cumsum(0) / torch.arange(1, len(x) + 1)


@pytest.fixture
def exercise(monkeypatch):
    """A running mean, declared for this test alone."""
    monkeypatch.setattr(judge_module, "MARKS", {})
    own = Exercise(
        running_mean,
        stars=2,
        minutes=7,
        seconds=0.5,
        cases=lambda draw: [[draw.normal(T)] for T in (1, 2, draw.integer(3, 9))],
    )

    @own.mistake("divided by the whole")
    def divided_by_the_whole(x):
        return x.cumsum(0) / len(x)

    @own.mistake("fails for one")
    def fails_for_one(x):
        return x[1:] / x[1]

    @own.symptom("at {0} it is negative")
    def is_negative(got, want, x):
        return got < -100

    @own.symptom("raises an error")
    def raises_an_error(got, want, x):
        return got.goose

    monkeypatch.setitem(judge_module.EXERCISES, "running_mean", own)
    return own


def verdict(exercise, answer, seed=1):
    return judge(exercise, lambda args: call(answer, args, exercise.seconds), seed)


def test_a_seed_gives_the_same_inputs_again():
    first, again, other = RandomInputs(3), RandomInputs(3), RandomInputs(4)
    drawn = [
        [
            draw.integer(0, 10**9),
            draw.number(),
            draw.text(20),
            draw.choice("abcdef"),
            draw.normal(3).tolist(),
            draw.uniform(2).tolist(),
            draw.ids(1000, 4).tolist(),
        ]
        for draw in (first, again, other)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {RandomInputs(seed).integer(1, 2) for seed in range(50)} == {1, 2}
    assert RandomInputs(0).normal(2, dtype=torch.float64).dtype == torch.float64
    assert RandomInputs(0).ids(5, 100).max() < 5 and set(RandomInputs(0).text(50, "ab")) == {
        "a",
        "b",
    }


def test_right_wrong_and_unknown(exercise):
    assert str(verdict(exercise, running_mean)) == "✓ running_mean"
    assert "divided by the whole" in verdict(exercise, lambda x: x.cumsum(0) / len(x)).hint
    unknown = verdict(exercise, lambda x: x * 7)
    assert (
        unknown.mark == "✗"
        and "x = a tensor (1,) of float32" in unknown.hint
        and "was expected" in unknown.hint
    )


def test_a_mistake_that_raises_is_known_by_its_error(exercise):
    assert verdict(exercise, lambda x: [][1]).hint.startswith(
        "for x"
    )  # raises for all cases, not like the mistake
    assert verdict(exercise, lambda x: x[1:] / x[1]).hint == "fails for one"


def test_symptoms_name_the_place_and_never_fall(exercise):
    def low(x):
        x = running_mean(x)
        x[-1] = -1000
        return x

    assert verdict(exercise, low).hint == "at 0 it is negative"


def test_no_answer(exercise):
    def blank(x):
        raise NotAttempted

    def endless(x):
        while True:
            pass

    assert verdict(exercise, blank).mark == "○"
    assert "is there a `return`?" in verdict(exercise, lambda x: None).hint
    assert "0.5 s" in verdict(exercise, endless).hint
    assert (
        "in place" in verdict(exercise, lambda x: x.cumsum_(0) / torch.arange(1, len(x) + 1)).hint
    )
    assert judge(exercise, lambda args: Outcome("unusable", detail="broken"), 1).hint == "broken"


def test_right_now_and_then_is_wrong(exercise):
    assert verdict(exercise, lambda x: running_mean(x) if len(x) < 3 else x).mark == "✗"


def test_check_prints_one_line_and_remembers(exercise, capsys, monkeypatch):
    check("running_mean", lambda x: x)
    check("running_mean", running_mean)
    assert passed("running_mean") and not passed("other")
    lines = capsys.readouterr().out.splitlines()
    assert (
        len(lines) == 2 and lines[0].startswith("✗ running_mean: ") and lines[1] == "✓ running_mean"
    )
    monkeypatch.setenv("CHARGPT_STRICT", "1")
    check("running_mean", running_mean)
    with pytest.raises(CheckFailed, match="running_mean"):
        check("running_mean", lambda x: x)


@pytest.mark.parametrize(
    "answer, hint",
    [
        (3, "write a function"),
        (None, "write a function"),
        (lambda: 1, "but must be"),
        (lambda x, y: 1, "but must be"),
        (find, "function of the library"),
        (torch.relu, "write a function"),
    ],
)
def test_no_function_of_hers(exercise, capsys, answer, hint):
    check("running_mean", answer)
    assert hint in capsys.readouterr().out


def test_an_unknown_name_is_told():
    with pytest.raises(KeyError, match="no exercise is called 'goose'.*window_mask"):
        find("goose")


def test_inputs_are_new_each_time(exercise):
    seen = []
    for _ in range(5):
        check("running_mean", lambda x: seen.append(tuple(x.tolist())) or running_mean(x))
    assert len(set(seen)) == len(seen) == 15


def test_progress(exercise, capsys):
    check("running_mean", running_mean)
    progress()
    assert (
        "✓  running_mean" in (text := capsys.readouterr().out) and "1 of 1, 7 of 7 minutes" in text
    )
    judge_module.MARKS.clear()
    progress()
    assert "0 of 0" in capsys.readouterr().out


def test_sealed_cases_need_no_answer(tmp_path, exercise, monkeypatch):
    packed = [
        [
            [case.args, case.want, [[hint, *mistake()] for hint, mistake in case.mistakes.items()]]
            for case in draw_cases(exercise, seed)
        ]
        for seed in range(3)
    ]
    (tmp_path / "key.json.gz").write_bytes(
        gzip.compress(json.dumps({"running_mean": encode(packed)}).encode())
    )
    monkeypatch.setattr(judge_module.inspect, "getfile", lambda function: str(tmp_path / "key.py"))

    def running_mean_blank(x):
        raise NotAttempted

    blank = Exercise(running_mean_blank, exercise.cases, 1, 1, seconds=0.5)
    blank.answer.__name__ = "running_mean"
    assert verdict(blank, running_mean).mark == "✓"
    assert verdict(blank, lambda x: x.cumsum(0) / len(x)).hint == "divided by the whole"


def test_an_answer_that_borrows_from_another_cell_is_told(tmp_path):
    """As in a notebook: the function's cell is run once more, alone."""
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in ("from chargpt_lib.exercises.judge import check; import torch",
             "def mask(T):\\n    return torch.ones(T, T).bool()", "x = mask(3)",
             "def window_mask(T, w):\\n    return mask(T).tril() & mask(T).triu(1 - w)", "check('window_mask', window_mask)",
             "def window_mask(T, w):\\n    mask = torch.ones(T, T).bool()\\n    return mask.tril() & mask.triu(1 - w)",
             "check('window_mask', window_mask)"):
    shell.run_cell(cell, store_history=True)
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**__import__("os").environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": "."},
    )
    lines = run.stdout.strip().splitlines()
    assert "name 'mask' is not defined" in lines[0] and lines[1] == "✓ window_mask", (
        run.stdout + run.stderr
    )


def test_the_exercises_of_a_lesson():
    names = [exercise.name for exercise in exercises_of("single_head")]
    assert "window_mask" in names and find("window_mask").lesson == "single_head"
