"""What a teacher hands out: complete, without answers, and able to check."""

import gzip
import importlib
import json
import os
import re
import subprocess
import sys
import zipfile

import pytest

import build
import release
from chargpt_lib.exercises.judge import EXERCISES, load_answer_keys
from tests.mistakes import WRONG, as_cell

load_answer_keys()
importlib.import_module("tests.mistakes.single_head")  # registers its answers in WRONG
CELLS = {
    cell.metadata["exercise"]: cell.source
    for lesson in build.read_lessons(build.HERE)
    for cell in lesson.cells
    if "exercise" in cell.metadata
}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The release, unpacked."""
    folder = tmp_path_factory.mktemp("release")
    release.write_release(folder / "course.zip")
    with zipfile.ZipFile(folder / "course.zip") as archive:
        archive.extractall(folder)
    print(f"{(folder / 'course.zip').stat().st_size / 1e6:.1f} MB")
    return folder / "chargpt-course"


def unpacked(name, data):
    return (gzip.decompress(data) if name.endswith(".gz") else data).decode(
        "utf-8", "replace"
    )  # a model is no text


def texts(course):
    for path in course.rglob("*"):
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                yield from (
                    (f"{path.name}/{name}", unpacked(name, wheel.read(name)))
                    for name in wheel.namelist()
                )
        elif path.is_file():
            yield path.relative_to(course).as_posix(), unpacked(path.name, path.read_bytes())


def test_it_holds_what_a_learner_needs_and_nothing_else(course):
    names = {name for name, _ in texts(course)}
    pages = {f"notebooks/{lesson.name}.ipynb" for lesson in build.read_lessons(build.HERE)}
    needed = {
        "README.md",
        "LICENSE",
        "pyproject.toml",
        "constraints.txt",
        "environment.yml",
        "notebooks/conftest.py",
        "notebooks/sanitize.cfg",
        "notebooks/RUNNING_ELSEWHERE.md",
        "notebooks/source/course.toml",
        "data/models/playhouse/model.safetensors",
    }
    assert pages | needed <= names
    kept_back = r"notebooks/source/.*\.py|solution|mistake|hostile|tests|tools|TEACHING"
    assert not [name for name in names if re.search(kept_back, name)]


def test_it_holds_the_records_that_the_lessons_read(course):
    read = set()
    for path in build.HERE.source.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        read.update(re.findall(r'"results" / "(\w+\.json)"', text))
    assert {"scaling.json", "modern.json"} <= read
    names = {name for name, _ in texts(course)}
    assert {f"data/results/{name}" for name in read} <= names


def test_its_links_lead_somewhere(course):
    for path in (course / "notebooks").rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = [cell["source"] for cell in cells if cell["cell_type"] == "markdown"]
        text = "\n".join("".join(source) for source in prose)
        for link in re.findall(r"\]\(([^):#]+)\)", text):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"


def test_no_answer_is_in_it(course):
    """The whole answer nowhere; no line that only the answer has in any key."""
    for name, text in texts(course):
        if name.endswith(".ipynb"):
            text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        for exercise, source in CELLS.items():
            body = "\n".join(
                re.search(r"### BEGIN SOLUTION\n(.*?)\n    ### END", source, re.S)[1].splitlines()
            )
            assert body not in text, f"{name} holds the answer to {exercise}"
    python = [
        (name, text) for name, text in texts(course) if name.endswith(".py")
    ]  # folder and wheel
    answers = "".join(text for name, text in python if "/exercises/answers/" in name)
    assert answers.count("raise NotAttempted") == 2 * len(CELLS)
    for name, text in python:
        if "/exercises/" in name:
            assert "BEGIN SOLUTION" not in text and '.mistake("' not in text, name


def test_its_checks_know_right_from_wrong(course, tmp_path):
    """In a process that finds only the release: every exercise, blank; one right, one wrong."""
    wrong = next(
        answer
        for answer in WRONG
        if answer.exercise == "window_mask" and answer.hint == "one position too wide"
    )
    right = build.answered(CELLS["window_mask"], solved=True)
    code = f"""
import sys, torch
sys.path = [path for path in sys.path if not path.startswith({str(build.HERE.root)!r}) or "site-packages" in path]
sys.path.insert(0, {str(course)!r})
import chargpt_lib
from chargpt_lib.exercises.judge import EXERCISES, load_answer_keys, judge
from chargpt_lib.exercises import NotAttempted, check
from chargpt_lib.exercises.compare import call
assert chargpt_lib.__file__.startswith({str(course)!r})
load_answer_keys()
for name, exercise in EXERCISES.items():
    print(judge(exercise, lambda args: call(exercise.answer, args), 3))
for source in ({right!r}, {as_cell(wrong)!r}):
    exec(source)
    check("window_mask", window_mask)
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    lines = run.stdout.splitlines()
    assert lines[:-2] == [f"○ {name}: not attempted" for name in EXERCISES], run.stdout + run.stderr
    assert lines[-2] == "✓ window_mask" and "one position too wide" in lines[-1]


def test_it_is_of_a_size_to_send(course):
    assert (course.parent / "course.zip").stat().st_size < 25e6
