"""A class: names, weights, the files that are written, going on, repeating, and the command."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from chargpt_lib.cli.main import main
from chargpt_lib.exercises.compare import wall_seconds
from chargpt_lib.exercises.judge import exercises_of
from chargpt_lib.grading import batch as batch_module
from chargpt_lib.grading.batch import (
    _feedback_page,
    _load_weights,
    grade_batch,
    guess_lesson,
    resolve_lesson,
    score,
)
from chargpt_lib.grading.intake import collect_submissions, submission_name
from tests.tiny import wait_for

NAMES = [exercise.name for exercise in exercises_of("single_head")]
LIBRARY_PARENT = str(Path(batch_module.__file__).parents[2])  # for processes that import it


def notebook(path, *names):
    """A notebook with empty cells for these exercises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [
        nbformat.v4.new_code_cell(f"def {name}():\n    pass", metadata={"exercise": name})
        for name in names
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture
def graded(monkeypatch):
    """Grading without running anything: every first exercise is right. -> the paths asked for, in order."""
    asked = []

    def grade_submission(path, lesson, seed):
        if path.stem == "interrupt":
            wait_for(
                lambda: len(rows(path.parents[1] / "out")) == 2
            )  # the two before it are on record
            raise KeyboardInterrupt
        asked.append((path.as_posix(), seed))
        marks = {name: "✓" if i == 0 else "✗" for i, name in enumerate(NAMES)}
        return {
            "marks": marks,
            "hints": dict.fromkeys(NAMES, "a <b>hint</b>"),
            "problems": [],
            "seconds": 1.0,
            "answers": {NAMES[0]: "</pre><script>"},
            "isolation": {"files": False, "user": True},
            "ran": path.stem != "broken",
        }

    monkeypatch.setattr(batch_module, "grade_submission", grade_submission)
    monkeypatch.setattr(batch_module, "DEFAULT_JOBS", 1)
    return asked


def rows(out):
    return list(csv.DictReader((out / "grades.csv").open(encoding="utf-8-sig", newline="")))


def test_submissions_are_found_once_and_in_order(tmp_path):
    for name in ("b/03.ipynb", "a/03.ipynb", "a/.ipynb_checkpoints/03.ipynb"):
        notebook(tmp_path / name, *NAMES)
    found = collect_submissions([tmp_path, tmp_path / "b" / "03.ipynb"]).submissions
    names = [submission.source.relative_to(tmp_path).as_posix() for submission in found]
    assert names == ["a/03.ipynb", "b/03.ipynb"]
    for wrong in (["nowhere"], [tmp_path / "a" / ".ipynb_checkpoints" / "x"]):
        with pytest.raises(FileNotFoundError, match="is not there"):
            collect_submissions(wrong)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no notebook"):
        collect_submissions([tmp_path / "empty"])


def test_the_lesson_is_what_most_handed_in(tmp_path):
    other = [exercise.name for exercise in exercises_of("multi_head")]
    paths = [
        notebook(tmp_path / f"{i}.ipynb", *names)
        for i, names in enumerate((NAMES, NAMES, other, []))
    ]
    (tmp_path / "bad.ipynb").write_text("{")
    assert guess_lesson([*paths, tmp_path / "bad.ipynb"]) == "single_head"
    with pytest.raises(ValueError, match="--lesson"):
        guess_lesson([paths[3]])
    assert (
        resolve_lesson("03")
        == resolve_lesson("single_head")
        == resolve_lesson("03_single_head")
        == "single_head"
    )
    with pytest.raises(ValueError, match="no lesson"):
        resolve_lesson("99")


def test_weights(tmp_path):
    file = tmp_path / "weights.toml"
    file.write_text(f"{NAMES[0]} = 3\n{NAMES[1]} = 0\n")
    weights = _load_weights(file, "single_head")
    assert weights[NAMES[0]] == 3 and weights[NAMES[1]] == 0 and weights[NAMES[2]] == 1
    marks = {name: "✓" if name == NAMES[0] else "○" for name in NAMES}
    assert score(marks, weights) == pytest.approx(100 * 3 / (3 + len(NAMES) - 2))
    for text, message in (
        ("goose = 1", "no exercise 'goose'"),
        (f"{NAMES[0]} = -1", ">= 0"),
        (f"{NAMES[0]} = 'x'", "number"),
        (f"{NAMES[0]} = inf", "number"),
        ("\n".join(f"{name} = 0" for name in NAMES), "all weights"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            _load_weights(file, "single_head")


def test_the_files_of_a_batch(tmp_path, graded, capsys):
    for name in ("a/03.ipynb", "b/03.ipynb"):
        notebook(tmp_path / name, *NAMES)
    assert (
        main(
            [
                "grade",
                str(tmp_path / "a"),
                str(tmp_path / "b"),
                "--out",
                str(tmp_path / "out"),
                "--seed",
                "5",
            ]
        )
        == 0
    )
    assert (
        "not isolated by the system on this machine, only by Python's audit hook: files\n"
        in capsys.readouterr().out
    )
    table = rows(tmp_path / "out")
    assert [row["submission"] for row in table] == [
        str(tmp_path / "a/03.ipynb"),
        str(tmp_path / "b/03.ipynb"),
    ]
    assert list(table[0]) == ["submission", "score", *NAMES, "learner", "problem"]
    assert (
        float(table[0]["score"])
        == pytest.approx(100 / len(NAMES), abs=0.005)  # two decimals in the table
        and table[0][NAMES[0]] == "1"
        and table[0][NAMES[1]] == "0"
    )
    batch = json.loads((tmp_path / "out" / "grades.json").read_text(encoding="utf-8"))
    assert (
        batch["seed"] == 5 and batch["lesson"] == "single_head" and len(batch["submissions"]) == 2
    )
    pages = [tmp_path / "out" / record["feedback"] for record in batch["submissions"].values()]
    assert len(set(pages)) == 2
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert (
            "<script" not in text
            and "<b>" not in text
            and "&lt;b&gt;hint" in text
            and all(name in text for name in NAMES)
        )
    assert not list((tmp_path / "out").rglob("*.part"))


def test_an_interrupted_batch_goes_on(tmp_path, graded, capsys):
    folder, out = tmp_path / "class", tmp_path / "out"
    for name in ("a", "b", "interrupt", "z"):
        notebook(folder / f"{name}.ipynb", *NAMES)
    assert (
        main(["grade", str(folder), "--out", str(out)]) == 130
        and "goes on" in capsys.readouterr().err
    )
    assert len(rows(out)) == 2
    seed = json.loads((out / "grades.json").read_text(encoding="utf-8"))["seed"]
    (folder / "interrupt.ipynb").rename(folder / "c.ipynb")
    assert main(["grade", str(folder), "--out", str(out)]) == 0
    stems = [Path(path).stem for path, _ in graded]
    assert stems.count("a") == stems.count("b") == stems.count("c") == 1 and "z" in stems
    assert (
        len(rows(out)) == 4
        and json.loads((out / "grades.json").read_text(encoding="utf-8"))["seed"] == seed
    )


def test_only_what_changed_is_graded_again(tmp_path, graded):
    folder, out = tmp_path / "class", tmp_path / "out"
    first, second = notebook(folder / "a.ipynb", *NAMES), notebook(folder / "broken.ipynb", *NAMES)
    assert (
        main(["grade", str(folder), "--out", str(out), "--seed", "1"]) == 1
    )  # one of them did not run
    assert main(["grade", str(folder), "--out", str(out)]) == 1
    assert [Path(path).stem for path, _ in graded] == ["a", "broken", "broken"]
    notebook(first, *NAMES[:2])
    grade_batch([folder], out)
    assert [Path(path).stem for path, _ in graded][3:] == ["a", "broken"]
    for seed, message in ((2, "seed 1"), (-1, ">= 0")):
        with pytest.raises(ValueError, match=message):
            grade_batch([folder], out, seed=seed)
    second.unlink()
    grade_batch([folder], out)
    assert len(rows(out)) == 2 and len(graded) == 5  # no record is lost because a file is gone


def test_a_folder_of_marks_belongs_to_one_lesson_and_loses_nothing(tmp_path, graded, capsys):
    first, second = notebook(tmp_path / "a.ipynb", *NAMES), notebook(tmp_path / "b.ipynb", *NAMES)
    out = tmp_path / "out"
    assert set(grade_batch([first], out)["submissions"]) == {str(first)}
    assert set(grade_batch([second], out)["submissions"]) == {str(second)} and len(rows(out)) == 2
    assert main(["grade", str(first), "--out", str(out), "--lesson", "04"]) == 2
    assert "single_head" in capsys.readouterr().err and len(rows(out)) == 2
    (out / "grades.json").write_text('{"lesson": ')
    assert (
        main(["grade", str(first), "--out", str(out)]) == 2 and "damaged" in capsys.readouterr().err
    )
    assert len(graded) == 2


def test_the_inputs_depend_on_seed_and_file(tmp_path, graded):
    path = notebook(tmp_path / "a.ipynb", *NAMES)
    for seed in (1, 1, 2):
        grade_batch([path], tmp_path / f"out{len(graded)}", seed=seed)
    notebook(path, *NAMES[:3])
    grade_batch([path], tmp_path / "again", lesson="single_head", seed=1)
    seeds = [seed for _, seed in graded]
    assert seeds[0] == seeds[1] and len(set(seeds)) == 3


def test_odd_files_stop_nothing(tmp_path, graded):
    folder = tmp_path / "class"
    notebook(folder / "good.ipynb", *NAMES)
    (folder / "folder.ipynb").mkdir()
    (folder / "link.ipynb").symlink_to(folder / "nowhere.ipynb")
    os.mkfifo(folder / "pipe.ipynb")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._good.ipynb").write_text("{}")
    with open(folder / "huge.ipynb", "wb") as file:
        file.truncate(2**40)
    for name in (
        b"Andr\xe9.ipynb",
        "\U00020000".encode() * 60 + b".ipynb",
        b"two\nlines\x1b[31m.ipynb",
    ):
        with open(os.fsencode(folder) + b"/" + name, "w") as file:
            file.write((folder / "good.ipynb").read_text())
    batch = grade_batch([folder], tmp_path / "out", lesson="single_head")
    names = [row["submission"] for row in rows(tmp_path / "out")]
    assert (
        len(names) == 8
        and all(name.isprintable() for name in names)
        and any("Andr\\xe9" in name for name in names)
    )
    assert len({record["feedback"] for record in batch["submissions"].values()}) == 8


@pytest.mark.parametrize("name", ["=1+cmd|'x'.ipynb", "+1.ipynb", "-1.ipynb", "@x.ipynb"])
def test_no_name_is_a_formula(name):
    assert submission_name(Path(name)) == f"./{name}"


def test_new_weights_change_scores_without_grading(tmp_path, graded):
    path, weights = notebook(tmp_path / "a.ipynb", *NAMES), tmp_path / "weights.toml"
    grade_batch([path], tmp_path / "out")
    weights.write_text(f"{NAMES[0]} = {len(NAMES) - 1}")
    grade_batch([path], tmp_path / "out", weights=weights)
    grade_batch([path], tmp_path / "out")  # the folder remembers them
    assert len(graded) == 1 and float(rows(tmp_path / "out")[0]["score"]) == 50


def test_one_file_under_two_names_is_one_submission(tmp_path, graded, monkeypatch):
    path = notebook(tmp_path / "class" / "a.ipynb", *NAMES)
    grade_batch([path], tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    grade_batch(["class"], tmp_path / "out")
    assert [row["submission"] for row in rows(tmp_path / "out")] == ["class/a.ipynb"] and len(
        graded
    ) == 1


def test_an_interrupt_stops_what_runs(tmp_path, monkeypatch):
    """The real thing: two submissions that sleep, stopped long before their minute is over, the seed kept."""
    for name in "ab":
        cells = [
            nbformat.v4.new_code_cell(
                "def window_mask(T, w):\n    import time\n    time.sleep(600)",
                metadata={"exercise": "window_mask"},
            )
        ]
        (tmp_path / "class").mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "class" / f"{name}.ipynb")
    command = [
        sys.executable,
        "-c",
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from chargpt_lib.cli.main import main; raise SystemExit(main())",
        "grade",
        str(tmp_path / "class"),
        "--out",
        str(tmp_path / "out"),
        "--lesson",
        "3",
    ]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": LIBRARY_PARENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for((tmp_path / "out" / "grades.json").exists)
    time.sleep(3)  # in the midst of the first two
    process.send_signal(signal.SIGINT)
    began = time.perf_counter()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130 and time.perf_counter() - began < wall_seconds(5) - 10, said
    assert "seed" in json.loads((tmp_path / "out" / "grades.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["3", "03", "single_head", "03_single_head"])
def test_a_lesson_has_many_names(name):
    assert resolve_lesson(name) == "single_head"


MODULES = {
    "00": "data",
    "01": "bigram",
    "02": "training",
    "03": "single_head",
    "04": "multi_head",
    "05": "blocks",
    "06": "gpt",
    "07": "attention_maps",
    "08": "sampling",
    "09": "checkpoints",
    "10": "recipe",
    "11": "trainer",
    "12": "shards",
    "13": "distributed",
    "14": "bpe",
    "15": "scaling_laws",
    "16": "modern",
    "17": "gpt2",
}


@pytest.mark.parametrize("hash_seed", ["0", "1", "2", "3"])
def test_a_number_is_one_lesson_whatever_the_order_of_sets(hash_seed):
    """Two lessons once shared a number, and the order of a set, which Python draws, chose between them."""
    code = f"""
from chargpt_lib.grading.batch import resolve_lesson
for number in {list(MODULES)}:
    print(number, resolve_lesson(number), resolve_lesson(str(int(number))))
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": LIBRARY_PARENT},
    )
    found = [line.split() for line in run.stdout.splitlines()]
    assert found == [[number, module, module] for number, module in MODULES.items()], run.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["grade", "nowhere", "--out", "out"], "is not there"),
        (["check", "nowhere.ipynb"], "is not there"),
        (["grade", "{path}", "--out", "{out}", "--lesson", "99"], "no lesson"),
        (["grade", "{path}", "--out", "{out}", "--weights", "nowhere.toml"], "nowhere.toml"),
        (["grade", "{path}", "--out", "{path}"], "--out"),
        (["grade", "{path}", "--out", "{out}", "--jobs", "0"], "--jobs"),
        (["grade", "{path}", "--out", "{out}", "--weights", "{path}"], "--weights"),
        (["check", "{folder}"], "holds 2"),
        (["grade", "{broken}", "--out", "{out}"], "damaged"),
        (["check", "{broken}"], "damaged"),
    ],
)
def test_what_cannot_be_done_is_told_before_any_grading(
    tmp_path, graded, capsys, arguments, message
):
    path = notebook(tmp_path / "a.ipynb", *NAMES)
    notebook(tmp_path / "folder" / "a.ipynb", *NAMES)
    notebook(tmp_path / "folder" / "b.ipynb", *NAMES)
    (tmp_path / "broken.ipynb").write_text('{"cells": [')
    places = {
        "path": path,
        "out": tmp_path / "out",
        "folder": tmp_path / "folder",
        "broken": tmp_path / "broken.ipynb",
    }
    arguments = [argument.format(**places) for argument in arguments]
    assert main(arguments) == 2 and message in capsys.readouterr().err and not graded


def test_feedback_says_what_counts():
    record = {
        "marks": {name: "○" for name in NAMES} | {NAMES[0]: "✗"},
        "hints": dict.fromkeys(NAMES, "too wide"),
        "problems": ["no cell for x"],
        "answers": {NAMES[0]: "a < b"},
    }
    page = _feedback_page("anna/03.ipynb", record, "single_head", dict.fromkeys(NAMES, 2))
    assert (
        "too wide" in page
        and "not attempted" in page
        and "0 of 2" in page
        and "no cell for x" in page
        and "a &lt; b" in page
    )


def test_what_utf8_cannot_write_is_escaped(tmp_path):
    """Half of a surrogate pair, in whatever text of a stranger, must not stop a class."""
    batch_module._write_text(tmp_path / "grades.json", json.dumps("\ud800 é", ensure_ascii=False))
    assert (tmp_path / "grades.json").read_bytes() == '"\\ud800 é"'.encode()
    assert json.loads((tmp_path / "grades.json").read_text(encoding="utf-8")) == "\ud800 é"
    assert [path.name for path in tmp_path.iterdir()] == ["grades.json"]


def test_a_feedback_page_is_written_once_for_each_grading(tmp_path, graded, monkeypatch):
    """Each writing waits for the disk: all pages after each submission would be thousands for a class."""
    written = []
    write_text = batch_module._write_text
    monkeypatch.setattr(
        batch_module,
        "_write_text",
        lambda path, text: (written.append(path.name), write_text(path, text)),
    )
    for i in range(6):
        notebook(tmp_path / "class" / f"{i}.ipynb", *NAMES)
    grade_batch([tmp_path / "class"], tmp_path / "out")
    pages = [name for name in written if name.endswith(".html")]
    assert len(pages) == len(set(pages)) == 6
    assert written.count("grades.json") == 7  # before the first submission, and after each
