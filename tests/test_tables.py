"""grades.csv, and the files that learning platforms import."""

import csv
import io
import json

import nbformat
import pytest

from chargpt_lib.cli.main import main
from chargpt_lib.exercises.judge import exercises_of
from chargpt_lib.grading import batch as batch_module
from chargpt_lib.grading.tables import export_csv, grades_csv, harmless
from tests.stub_grader import grade_submission

NAMES = [exercise.name for exercise in exercises_of("single_head")]


def record(score=50.0, learner=None, ran=True, problems=()):
    """A record as grade_batch leaves it; learner: (platform, id, name, attempt)."""
    if learner is not None:
        learner = dict(zip(("platform", "id", "name", "attempt"), learner))
    return {
        "marks": {name: "✓" if index == 0 else "✗" for index, name in enumerate(NAMES)},
        "score": score,
        "answers": {NAMES[0]: "x"} if ran else {},
        "problems": list(problems),
        "learner": learner,
        "ran": ran,
    }


def batch_of(**records):
    weights = dict.fromkeys(NAMES, 1)
    return {"lesson": "single_head", "weights": weights, "submissions": records}


def rows_of(text):
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))


def test_grades_csv_has_a_row_for_each_and_no_marks_where_there_are_none():
    broken = record(0.0, ran=False, problems=["a web page: ask for the notebook"])
    learner = ("canvas", "12", "Müller", 0)
    text = grades_csv(batch_of(a=record(33.33, learner), b=broken))
    assert text.startswith("\ufeff")
    header, first, second = rows_of(text)
    assert header == ["submission", "score", *NAMES, "learner", "problem"]
    assert first == ["a", "33.33", "1", *["0"] * (len(NAMES) - 1), "Müller", ""]
    blank = [""] * len(NAMES)
    assert second == ["b", "", *blank, "", "a web page: ask for the notebook"]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "＝"])
def test_no_cell_is_a_formula(sign):
    assert harmless(f"{sign}1+1") == f"'{sign}1+1"
    assert harmless(f"a{sign}") == f"a{sign}"
    learner = ("moodle", "7", f"{sign}cmd|'x'", 0)
    batch = batch_of(a=record(learner=learner, problems=[f"{sign}1"]))
    texts = [grades_csv(batch)]
    for platform in ("canvas", "moodle", "gradescope"):
        texts.append(export_csv(batch, platform)[0])
    for text in texts:
        for row in rows_of(text):
            assert not any(cell.startswith(sign) for cell in row)


def test_a_spreadsheet_that_separates_by_semicolons_finds_no_formula_either():
    text = grades_csv(batch_of(**{"a;=1+1.ipynb": record()}))
    assert '"a;=1+1.ipynb"' in text


def test_canvas():
    learner = ("canvas", "12345", "lastfirst", 0)
    text, left_out = export_csv(batch_of(a=record(80.0, learner), b=record(60.5)), "canvas")
    header, points, first, second = rows_of(text)
    # Canvas looks for these names in these places, and for its row of points.
    assert header == [
        "Student",
        "ID",
        "SIS User ID",
        "SIS Login ID",
        "Section",
        "03_single_head",
    ]
    assert points[0].strip() == "Points Possible" and points[5] == "100"
    assert first == ["lastfirst", "12345", "", "", "", "80"]
    assert second == ["b", "", "", "", "", "60.5"]
    assert left_out == 0 and not text.startswith("\ufeff")


def test_moodle():
    learner = ("moodle", "77", "First Last", 0)
    text, _ = export_csv(batch_of(a=record(80.0, learner)), "moodle")
    header, row = rows_of(text)
    assert {"Identifier", "Grade", "Last modified (grade)"} <= set(header)
    cells = dict(zip(header, row))
    assert cells["Identifier"] == "Participant 77" and cells["Full name"] == "First Last"
    assert cells["Grade"] == "80.00" and cells["Maximum Grade"] == "100"
    assert cells["Feedback comments"].startswith(f"right: {NAMES[0]}; not right yet: {NAMES[1]}")


def test_gradescope():
    learner = ("blackboard", "learner_a", "First Middle Last", "2026-01-01-10-00-00")
    text, _ = export_csv(batch_of(a=record(80.0, learner)), "gradescope")
    header, row = rows_of(text)
    assert header[:4] == ["First Name", "Last Name", "SID", "Email"]
    assert row == ["First Middle", "Last", "learner_a", "", "80", "100"]


def test_the_last_submission_counts_and_no_zero_is_made_up():
    first = record(90.0, ("canvas", "1", "x", 0))
    second = record(40.0, ("canvas", "1", "x", 2))
    as_late = record(30.0, ("canvas", "1", "x", 2))
    broken = record(0.0, ("canvas", "2", "y", 0), ran=False)
    text, left_out = export_csv(batch_of(a=first, b=second, c=as_late, d=broken), "canvas")
    assert [row[1:] for row in rows_of(text)[2:]] == [["1", "", "", "", "40"]] and left_out == 3


def test_the_command_writes_what_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(batch_module, "grade_submission", grade_submission)
    cells = [
        nbformat.v4.new_code_cell(f"def {name}():\n    pass", metadata={"exercise": name})
        for name in NAMES
    ]
    path = tmp_path / "class" / "mülleranna_12_34_03.ipynb"
    path.parent.mkdir()
    path.write_text(json.dumps(nbformat.v4.new_notebook(cells=cells)), encoding="utf-8")
    (path.parent / "x.html").write_text("x")
    out = tmp_path / "out"
    assert main(["grade", str(path.parent), "--out", str(out)]) == 1
    assert (out / "grades.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert "mülleranna" in (out / "grades.csv").read_text(encoding="utf-8-sig")
    assert sorted(file.name for file in out.glob("*.csv")) == ["grades.csv"]
    capsys.readouterr()
    for platform in ("canvas", "moodle", "gradescope"):
        arguments = ["grade", str(path.parent), "--out", str(out), "--format", platform]
        assert main(arguments) == 1
        assert len(rows_of((out / f"{platform}.csv").read_text(encoding="utf-8"))) in (2, 3)
        assert f"{platform}.csv   (without 1 that" in capsys.readouterr().out
    assert main(["grade", str(path.parent), "--out", str(out), "--format", "excel"]) == 2
