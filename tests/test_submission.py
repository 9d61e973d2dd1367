"""From a file to the texts of its answers, and through the grading notebook to marks."""

import ast
import json
import sys

import nbformat
import pytest

from chargpt_lib.exercises.judge import exercises_of
from chargpt_lib.grading import submission as submission_module
from chargpt_lib.grading.submission import (
    STOP_REQUESTED,
    Grader,
    _collect_answers,
    _grading_notebook,
    grade_submission,
)
from chargpt_lib.grading.worker import Worker

RIGHT = "def window_mask(T, w):\n    t, s = torch.arange(T)[:, None], torch.arange(T)\n    return (s <= t) & (s > t - w)\n"
BLANK = "def window_mask(T, w):\n    raise NotAttempted\n"


@pytest.fixture
def handed_in(tmp_path):
    """handed_in((text, metadata), ...) -> the path of a notebook with these code cells."""

    def write(*cells, **changes):
        made = [nbformat.v4.new_code_cell(text, metadata=metadata) for text, metadata in cells]
        path = tmp_path / "03.ipynb"
        path.write_text(json.dumps({**nbformat.v4.new_notebook(cells=made), **changes}))
        return path

    return write


NAMED = {"exercise": "window_mask"}


def test_by_name_by_id_by_function(handed_in):
    for metadata in (NAMED, {"id": "window_mask"}, {}):
        assert _collect_answers(handed_in((RIGHT, metadata)), "single_head").answers == {
            "window_mask": RIGHT
        }
    assert _collect_answers(handed_in(("x = 1", {})), "single_head").answers == {}


def test_a_split_or_repeated_cell(handed_in):
    tried = "print(window_mask(3, 2))"
    for cells in (
        [(RIGHT, NAMED), (tried, NAMED)],
        [(tried, NAMED), (RIGHT, NAMED)],
        [(BLANK, NAMED), (RIGHT, NAMED)],
        [(RIGHT, NAMED), (BLANK, NAMED)],
    ):
        found = _collect_answers(handed_in(*cells), "single_head")
        assert found.answers["window_mask"] == RIGHT and any(
            "2 cells" in problem for problem in found.problems
        )
    assert (
        _collect_answers(handed_in((BLANK, NAMED)), "single_head").answers["window_mask"] == BLANK
    )


def test_an_answer_in_a_new_cell_counts_if_the_own_one_is_blank(handed_in):
    assert (
        _collect_answers(handed_in((BLANK, NAMED), (RIGHT, {})), "single_head").answers[
            "window_mask"
        ]
        == RIGHT
    )
    assert (
        _collect_answers(handed_in((RIGHT, NAMED), (RIGHT + "# later", {})), "single_head").answers[
            "window_mask"
        ]
        == RIGHT
    )
    assert _collect_answers(handed_in(("", NAMED)), "single_head").answers["window_mask"] == ""


def test_the_choice_of_a_cell_is_told(handed_in):
    cells = [("x = 1", {}), (BLANK, NAMED), (RIGHT, {}), (RIGHT, NAMED), ("print(1)", NAMED)]
    problems = _collect_answers(handed_in(*cells), "single_head").problems
    assert (
        "4 cells for window_mask (cells 2, 3, 4 and 5): cell 4 was judged, the last attempt with "
        "the exercise's name" in problems
    )
    problems = _collect_answers(handed_in((BLANK, NAMED), (RIGHT, {})), "single_head").problems
    assert (
        "2 cells for window_mask (cells 1 and 2): cell 2 was judged, the last attempt" in problems
    )


def test_a_helper_in_the_half_above_is_taken_along(handed_in):
    helper = "%%time\ndef band(T):\n    return torch.arange(T)[:, None], torch.arange(T)\n"
    answer = "def window_mask(T, w):\n    t, s = band(T)\n    return (s <= t) & (s > t - w)\n"
    for metadata in (NAMED, {}):
        path = handed_in(("q = 1\nprint(q)", {}), (helper, metadata), (answer, NAMED))
        submission = _collect_answers(path, "single_head")
        assert submission.answers["window_mask"] == f"{helper[7:]}\n\n{answer}"
        assert any(
            "window_mask: cell 3 uses what is defined above it, in cell 2" in problem
            for problem in submission.problems
        )
    assert grade_submission(path, "single_head", seed=3)["marks"]["window_mask"] == "✓"
    far = handed_in((helper, {}), ("print(1)", {}), (answer, NAMED))
    assert _collect_answers(far, "single_head").answers["window_mask"] == answer


@pytest.mark.parametrize("kind, word", [("markdown", "Markdown"), ("raw", "raw")])
@pytest.mark.parametrize("metadata", [NAMED, {}])
def test_an_answer_that_is_no_code_cell_is_named(tmp_path, kind, word, metadata):
    path = tmp_path / "03.ipynb"
    cell = {"cell_type": kind, "source": RIGHT, "metadata": metadata}
    for others in ([], [{"cell_type": "code", "source": BLANK, "metadata": NAMED}]):
        path.write_text(json.dumps({"cells": [*others, cell]}))
        submission = _collect_answers(path, "single_head")
        (problem,) = [text for text in submission.problems if "window_mask" in text]
        assert f"cell {len(others) + 1} names it: the cell is {word}: turn it back" in problem
        assert bool(others) == ("window_mask" in submission.answers)
    right = {"cell_type": "code", "source": RIGHT, "metadata": NAMED}
    path.write_text(json.dumps({"cells": [right, cell]}))
    assert not any(
        "turn it back" in text for text in _collect_answers(path, "single_head").problems
    )


@pytest.mark.parametrize(
    "cell",
    [
        {"metadata": None, "source": RIGHT},
        {"metadata": [], "source": RIGHT},
        {"source": RIGHT},
        {"id": "window_mask", "metadata": None, "source": [RIGHT[:30], RIGHT[30:]]},
        {"id": None, "metadata": {"exercise": None}, "source": [RIGHT, None]},
        {"metadata": {}, "source": RIGHT, "outputs": None, "execution_count": "x"},
    ],
)
def test_what_nbformat_tolerates_is_read(tmp_path, cell):
    path = tmp_path / "03.ipynb"
    others = [
        {"cell_type": "code", "source": None, "metadata": None},
        {"cell_type": "code"},
        {"cell_type": "markdown", "metadata": None, "source": None},
    ]
    cells = [*others, {"cell_type": "code", **cell}]
    for top in ({}, {"nbformat": 4, "nbformat_minor": 0, "metadata": None}):
        path.write_text(json.dumps({**top, "cells": cells}))
        assert _collect_answers(path, "single_head").answers == {"window_mask": RIGHT}


def test_links_and_long_cells_are_refused(handed_in, tmp_path):
    link = tmp_path / "link.ipynb"
    link.symlink_to(handed_in((RIGHT, NAMED)))
    assert "links" in _collect_answers(link, "single_head").problems[0]
    found = _collect_answers(handed_in((RIGHT + "#" * 100_000, NAMED)), "single_head")
    assert not found.answers and any("characters" in problem for problem in found.problems)


def test_what_is_missing_is_named(handed_in):
    problems = _collect_answers(handed_in((RIGHT, NAMED)), "single_head").problems
    others = [
        exercise.name
        for exercise in exercises_of("single_head")[1:]
        if exercise.name != "window_mask"
    ]
    assert all(any(name in problem for problem in problems) for name in others)


def test_the_grading_notebook_runs_no_text_of_the_student(handed_in):
    evil = "%%bash\nrm -rf goose\n" + RIGHT
    notebook = _grading_notebook(
        _collect_answers(handed_in((evil, NAMED)), "single_head"), "single_head", 5
    )
    for cell in notebook.cells:
        if "goose" in cell.source:
            assert cell.cell_type == "raw" or len(cell.source.splitlines()) == 1
            called = cell.cell_type == "raw" or ast.parse(cell.source).body[0].value
            assert cell.cell_type == "raw" or [
                ast.literal_eval(argument) for argument in called.args
            ] == ["window_mask", evil]
    nbformat.validate(notebook)
    assert [output.text for cell in notebook.cells for output in cell.get("outputs", [])] == [
        "✓ window_mask\n"
    ]


def test_odd_texts_arrive_unchanged(handed_in):
    for text in (
        "",
        "# NBVAL_SKIP\n",
        ">>> x\n",
        "\r\f\x0b\u2028",
        "🦆 'x' \"y\" \\n",
        "In [1]: x",
        "%%answer x",
    ):
        answers = {"window_mask": text}
        notebook = _grading_notebook(
            _collect_answers(handed_in((RIGHT, NAMED)), "single_head")._replace(answers=answers),
            "single_head",
            5,
        )
        called = ast.parse(notebook.cells[2].source).body[0].value
        assert (
            ast.literal_eval(called.args[1]) == text
            and len(notebook.cells[2].source.splitlines()) == 1
        )


def test_marks_and_hints(handed_in):
    record = grade_submission(handed_in((RIGHT, NAMED)), "single_head", seed=3)
    assert (
        record["ran"]
        and record["marks"].pop("window_mask") == "✓"
        and set(record["marks"].values()) == {"○"}
    )
    wrong = grade_submission(
        handed_in((RIGHT.replace("s > t", "s >= t"), NAMED)), "single_head", seed=3
    )
    assert wrong["marks"]["window_mask"] == "✗" and "too wide" in wrong["hints"]["window_mask"]
    assert wrong["isolation"]["files"] in (True, False)


def test_a_file_that_is_no_notebook_is_not_run(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text('{"cells": [')
    record = grade_submission(path, "single_head", seed=3)
    assert not record["ran"] and "not a notebook" in record["problems"][0]


def test_a_huge_file_is_refused(tmp_path):
    path = tmp_path / "x.ipynb"
    with open(path, "wb") as file:
        file.truncate(2**27)
    assert "128 MB" in _collect_answers(path, "single_head").problems[0]


def test_what_starts_after_an_interrupt_is_stopped_too(handed_in):
    """A thread of the pool may be between its file and its pytest when Ctrl-C comes."""
    sleeps = "def window_mask(T, w):\n    import time\n    time.sleep(600)"
    STOP_REQUESTED.set()
    try:
        record = grade_submission(handed_in((sleeps, NAMED)), "single_head", seed=3)
    finally:
        STOP_REQUESTED.clear()
    assert (
        not record["ran"] and record["marks"]["window_mask"] == "○"
    )  # not ✗: nobody has judged it
    assert (
        "not judged" in record["hints"]["window_mask"]
        and record["hints"]["score_gradient"] == "not attempted"
    )


def test_a_worker_that_does_not_start_judges_nobody(monkeypatch):
    grader = Grader("single_head", 3)
    try:
        monkeypatch.setattr(Worker, "start", lambda *args: None)
        with pytest.raises(OSError, match="did not start"):
            grader.judge("window_mask", RIGHT)
    finally:
        grader.close()


def test_a_mark_that_nbval_does_not_confirm_says_so(handed_in, monkeypatch):
    report = {"verdicts": {"window_mask": {"mark": "✓", "hint": ""}}}
    monkeypatch.setattr(submission_module, "run_notebook", lambda *args: True)
    monkeypatch.setattr(submission_module, "_last_log_line", lambda folder: "1 failed")
    monkeypatch.setattr(submission_module, "_read_report", lambda *args: (report, []))
    record = grade_submission(handed_in((RIGHT, NAMED)), "single_head", seed=3)
    assert record["marks"]["window_mask"] == "✗"
    assert "grade this file again" in record["hints"]["window_mask"]
    assert not record["ran"]  # otherwise a class's next grading would keep this record
    passed = ["window_mask"]
    monkeypatch.setattr(submission_module, "_read_report", lambda *args: (report, passed))
    record = grade_submission(handed_in((RIGHT, NAMED)), "single_head", seed=3)
    assert record["marks"]["window_mask"] == "✓" and record["hints"]["window_mask"] == ""
    assert record["ran"]


@pytest.mark.parametrize("package", ["nbval", "pytest"])
def test_what_grading_needs_is_named_before_it_starts(handed_in, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match="pip install nbval pytest"):
        grade_submission(handed_in((RIGHT, NAMED)), "single_head", seed=3)


@pytest.mark.parametrize(
    "log, told",
    [("collecting\nno space left on device\n \n", " (no space left on device):"), ("\n", "long:")],
)
def test_a_failed_grading_tells_the_last_line_of_its_log(handed_in, monkeypatch, log, told):
    def fail(notebook, folder):
        (folder / "log.txt").write_text(log)
        return True

    monkeypatch.setattr(submission_module, "run_notebook", fail)
    record = grade_submission(handed_in((RIGHT, NAMED)), "single_head", seed=3)
    problem = record["problems"][-1]
    assert "grading itself failed or took too long" in problem and told in problem
