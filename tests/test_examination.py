"""Lesson C: from a file to the texts of its answers, and through the trusted notebook to marks."""

import json

import nbformat
import pytest

from chargpt_lib.checks import exercises_of
from chargpt_lib.examination import collect, grade, trusted_notebook

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
        assert collect(handed_in((RIGHT, metadata)), "single_head").answers == {"window_mask": RIGHT}
    assert collect(handed_in(("x = 1", {})), "single_head").answers == {}


def test_a_split_or_repeated_cell(handed_in):
    tried = "print(window_mask(3, 2))"
    for cells in ([(RIGHT, NAMED), (tried, NAMED)], [(tried, NAMED), (RIGHT, NAMED)], [(BLANK, NAMED), (RIGHT, NAMED)],
                  [(RIGHT, NAMED), (BLANK, NAMED)]):
        found = collect(handed_in(*cells), "single_head")
        assert found.answers["window_mask"] == RIGHT and any("2 cells" in problem for problem in found.problems)
    assert collect(handed_in((BLANK, NAMED)), "single_head").answers["window_mask"] == BLANK


def test_what_is_missing_is_named(handed_in):
    problems = collect(handed_in((RIGHT, NAMED)), "single_head").problems
    others = [exercise.name for exercise in exercises_of("single_head")[1:] if exercise.name != "window_mask"]
    assert all(any(name in problem for problem in problems) for name in others)


def test_the_trusted_notebook_runs_no_text_of_the_student(handed_in):
    evil = "%%bash\nrm -rf goose\n" + RIGHT
    notebook = trusted_notebook(collect(handed_in((evil, NAMED)), "single_head"), "single_head", 5)
    for cell in notebook.cells:
        if "goose" in cell.source:
            assert cell.source.startswith("%%answer window_mask\n")
    nbformat.validate(notebook)
    assert [output.text for cell in notebook.cells for output in cell.outputs] == ["✓ window_mask\n"]


def test_marks_and_hints(handed_in):
    record = grade(handed_in((RIGHT, NAMED)), "single_head", seed=3)
    assert record["ran"] and record["marks"].pop("window_mask") == "✓" and set(record["marks"].values()) == {"○"}
    wrong = grade(handed_in((RIGHT.replace("s > t", "s >= t"), NAMED)), "single_head", seed=3)
    assert wrong["marks"]["window_mask"] == "✗" and "too wide" in wrong["hints"]["window_mask"]
    assert wrong["locked"]["files"] in (True, False)


def test_a_file_that_is_no_notebook_is_not_run(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text('{"cells": [')
    record = grade(path, "single_head", seed=3)
    assert not record["ran"] and "not a notebook" in record["problems"][0]


def test_a_huge_file_is_refused(tmp_path):
    path = tmp_path / "x.ipynb"
    with open(path, "wb") as file:
        file.truncate(2**27)
    assert "128 MB" in collect(path, "single_head").problems[0]
