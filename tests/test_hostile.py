"""A class of hostile and careless submissions, graded in one batch by the command itself."""

import csv
import importlib
import json
import os
import re
import subprocess
import sys

import nbformat
import pytest

import build
from chargpt_lib.exercises.compare import call, define
from chargpt_lib.grading import isolation
from tests.hostile.answers import CHEATS, RIGHT_AFTER_ALL, SOLUTION, THEFTS
from tests.hostile.files import variants
from tests.mistakes import RIGHT, WRONG, as_cell, single_head  # noqa: F401

ROOT = build.HERE.root
(LESSON,) = [lesson for lesson in build.read_lessons(build.HERE) if lesson.module == "single_head"]
ANSWERS = {
    cell.metadata["exercise"]: build.answered(cell.source, solved=True)
    for cell in LESSON.cells
    if "exercise" in cell.metadata
}
LEARNERS = nbformat.read(ROOT / "notebooks" / "03_single_head.ipynb", as_version=4)
OTHERS = (ROOT / "notebooks" / "solutions" / "04_multi_head.ipynb").read_bytes()
FILES = variants(json.loads(nbformat.writes(LEARNERS)), ANSWERS, OTHERS)
OTHER_ANSWERS = len(ANSWERS) - 2
# The first two are half of all.
WEIGHTS = dict(zip(ANSWERS, [OTHER_ANSWERS] * 2 + [2] * OTHER_ANSWERS, strict=True))


def nth(answers, name, n):
    """A cell with the n-th of these answers to an exercise."""
    return as_cell([answer for answer in answers if answer.exercise == name][n])


def honest():
    """Three learners who write differently: {name: (their answers, the score they deserve)}."""
    half = list(ANSWERS)[:2]
    for number, answer in enumerate(
        (ANSWERS.get, lambda name: nth(RIGHT, name, 0), lambda name: nth(RIGHT, name, 1))
    ):
        wrong = {name: nth(WRONG, name, number) for name in ANSWERS}
        right = {name: answer(name) for name in ANSWERS}
        yield f"honest{number}", (right, 100)
        yield (
            f"half{number}",
            ({name: (right if name in half else wrong)[name] for name in ANSWERS}, 50),
        )
        yield (
            f"other_half{number}",
            ({name: (wrong if name in half else right)[name] for name in ANSWERS}, 50),
        )
        yield f"mistaken{number}", (wrong, 0)


HONEST = dict(honest())


def few(window_mask):
    """A small notebook: the hostile answer, and one honest one after it."""
    honest = next(name for name in ANSWERS if name != "window_mask")
    return small({"window_mask": window_mask, honest: ANSWERS[honest]}), honest


def small(answers):
    """A notebook that holds only these answers."""
    cells = [
        nbformat.v4.new_code_cell(text, metadata={"exercise": name})
        for name, text in answers.items()
    ]
    return json.dumps(nbformat.v4.new_notebook(cells=cells)).encode()


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The batch, graded once: {name: record}, the rows of grades.csv, the folder, the decoy and the exit code."""
    folder, decoy = tmp_path_factory.mktemp("class"), tmp_path_factory.mktemp("decoy")
    decoy.chmod(0o777)
    (decoy / "note.txt").write_text("note")
    (decoy / "note.txt").chmod(0o666)
    for name, text in {**CHEATS, **RIGHT_AFTER_ALL}.items():
        text = text.replace("DECOY", str(decoy)).replace("REPOSITORY", str(ROOT))
        (folder / f"{name}.ipynb").write_bytes(few(text)[0])
    for name, (data, _) in FILES.items():
        (folder / f"{name}.ipynb").write_bytes(data)
    for name, (answers, _) in HONEST.items():
        (folder / f"{name}.ipynb").write_bytes(small(answers))
    (folder / "weights.toml").write_text(
        "\n".join(f"{name} = {weight}" for name, weight in WEIGHTS.items())
    )
    (folder / "same").mkdir()
    (folder / "same" / "all_right.ipynb").write_bytes(FILES["all_blank"][0])
    command = [
        sys.executable,
        "-c",
        "from chargpt_lib.cli.main import main; raise SystemExit(main())",
        "grade",
        str(folder),
        "--out",
        str(folder / "marks"),
        "--lesson",
        "03",
        "--weights",
        str(folder / "weights.toml"),
    ]
    temporary = tmp_path_factory.mktemp("temporary")
    temporary.chmod(0o711)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    records = json.loads((folder / "marks" / "grades.json").read_text(encoding="utf-8"))[
        "submissions"
    ]
    rows = {
        row["submission"]: row
        for row in csv.DictReader((folder / "marks" / "grades.csv").open(encoding="utf-8-sig"))
    }
    print(run.stdout[-3000:], run.stderr[-3000:])
    return {
        "records": {
            name.removeprefix(f"{folder}/").removesuffix(".ipynb"): record
            for name, record in records.items()
        },
        "rows": {
            name.removeprefix(f"{folder}/").removesuffix(".ipynb"): row
            for name, row in rows.items()
        },
        "folder": folder,
        "decoy": decoy,
        "temporary": temporary,
        "code": run.returncode,
    }


@pytest.mark.parametrize("name", THEFTS)
def test_a_theft_would_succeed_where_nothing_stops_it(name, tmp_path, monkeypatch):
    """Else the test below would not show that something does."""
    monkeypatch.chdir(tmp_path)
    for module, patched in (
        (os, "fsdecode"),
        (os.path, "realpath"),
        (isolation, "REFUSED_EVENTS"),
        (isolation, "PATH_CHANGING_EVENTS"),
    ):
        monkeypatch.setattr(module, patched, getattr(module, patched))  # so that it is put back
    cheat = define(CHEATS[name].replace("REPOSITORY", str(ROOT)), "window_mask")
    right = define(SOLUTION, "window_mask")
    outcome = call(cheat, [7, 3], seconds=60)
    assert outcome.status == "value", outcome.detail
    assert outcome.value.equal(right(7, 3))


def test_what_cheats_patch_exists():
    """A cheat that patches a name which is no longer there would prove nothing."""
    texts = "\n".join(CHEATS.values())
    patched = re.findall(r"^(chargpt_lib[.\w]*)\.(\w+) = ", texts, flags=re.M)
    assert len(patched) >= 5
    for module, name in patched:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_earns_nothing_and_hurts_no_other_answer(graded, name):
    record, (_, honest) = graded["records"][name], few("")
    assert record["marks"]["window_mask"] == "✗", record
    assert record["marks"][honest] == "✓", record
    assert record["hints"]["window_mask"] and "Traceback" not in record["hints"]["window_mask"]
    assert graded["rows"][name]["window_mask"] == "0"


@pytest.mark.parametrize("name", RIGHT_AFTER_ALL)
def test_what_is_right_after_all_counts(graded, name):
    assert graded["records"][name]["marks"]["window_mask"] == "✓", graded["records"][name]


@pytest.mark.parametrize("name", FILES)
def test_a_file_as_tools_write_it(graded, name):
    record, share = graded["records"][name], FILES[name][1]
    share = 0.75 if name == "missing_cell" else share  # the first exercise weighs a quarter
    assert record["score"] == pytest.approx(100 * (share or 0), abs=0.01), record
    if share is None:
        assert record["problems"] and set(record["marks"].values()) == {"○"}


@pytest.mark.parametrize("name", HONEST)
def test_honest_work_gets_just_what_it_deserves(graded, name):
    record = graded["records"][name]
    assert (
        record["score"] == HONEST[name][1] and record["ran"] and "○" not in record["marks"].values()
    ), record


def test_nothing_outside_was_touched(graded):
    decoy = graded["decoy"]
    assert [path.name for path in decoy.iterdir()] == ["note.txt"] and (
        decoy / "note.txt"
    ).read_text() == "note"
    assert (ROOT / "tests" / "hostile" / "answers.py").exists()


def test_the_batch_finished_and_says_that_not_all_could_be_run(graded):
    assert len(graded["rows"]) == len(CHEATS) + len(RIGHT_AFTER_ALL) + len(FILES) + len(HONEST) + 1
    assert graded["code"] == 1


def test_files_of_one_name_are_kept_apart(graded):
    assert (
        graded["records"]["all_right"]["score"] == 100
        and graded["records"]["same/all_right"]["score"] == 0
    )
    pages = [record["feedback"] for record in graded["records"].values()]
    assert len(set(pages)) == len(pages)


def test_feedback_is_harmless(graded):
    page = graded["folder"] / "marks" / graded["records"]["html_in_its_error"]["feedback"]
    text = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;" in text and not re.search("<script", text)


def test_no_answer_outlives_the_batch(graded):
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    temporary = graded["temporary"]
    assert str(temporary) not in running and not list(temporary.iterdir())
