"""From what was handed in to submissions: renamed files, zips, platforms' names; and that nothing
is lost.
"""

import io
import json
import os
import random
import re
import stat
import zipfile

import nbformat
import pytest

from chargpt_lib.cli.main import main
from chargpt_lib.exercises.judge import exercises_of, load_answer_keys
from chargpt_lib.grading import archives
from chargpt_lib.grading import batch as batch_module
from chargpt_lib.grading.archives import ZipMember, list_zip, read_source
from chargpt_lib.grading.intake import collect_submissions, passed_over
from chargpt_lib.grading.submission import read_code_cells
from tests.stub_grader import grade_submission

NAMES = [exercise.name for exercise in exercises_of("single_head")]


def notebook_bytes(*names):
    cells = [
        nbformat.v4.new_code_cell(f"def {name}():\n    pass", metadata={"exercise": name})
        for name in names
    ]
    return json.dumps(nbformat.v4.new_notebook(cells=cells)).encode()


NOTEBOOK = notebook_bytes(*NAMES)
WITHOUT = notebook_bytes()
NOTE = b"""Name: L\xc3\xa9a Example (learner_a)
Assignment: Lesson 3
Date Submitted: Thursday, January 1, 2026 10:00:00 AM CET
Current Grade: Needs Grading

Submission Field:
Name: Somebody Else (learner_b)
"""


def zip_bytes(files, **changes):
    """A zip of {name: bytes}; changes: attributes of each entry."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in changes.items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return data.getvalue()


@pytest.fixture
def folder(tmp_path):
    """folder({name: bytes}) -> the folder of a class with these files."""
    load_answer_keys()

    def write(files):
        for name, content in files.items():
            path = tmp_path / "class" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "class"

    return write


def found_in(folder, *more, **options):
    """({name without the folder: problem}, {the same: why it is set aside})"""
    intake = collect_submissions([folder, *more], **options)
    prefix = f"{folder.as_posix()}/"
    rows = {each.name.removeprefix(prefix): each.problem for each in intake.submissions}
    aside = {each.name.removeprefix(prefix): each.reason for each in intake.set_aside}
    return rows, aside


def learners_in(folder):
    """{name: (platform, id, name)}"""
    found = collect_submissions([folder]).submissions
    prefix = f"{folder.as_posix()}/"
    return {
        each.name.removeprefix(prefix): each.learner[:3] if each.learner else None for each in found
    }


# ---------------------------------------------------------------- files on the disk


@pytest.mark.parametrize(
    "name",
    [
        "03_single_head.ipynb",
        "03_single_head.ipynb.json",
        "03_single_head.ipynb.txt",
        "03_SINGLE_HEAD.IPYNB",
        "03_single_head (1).ipynb",
        "03_single_head.ipynb (2).txt",
        "03_single_head.json",
        "03_single_head.txt",
        "03_single_head",
    ],
)
def test_what_a_browser_renames_is_read(folder, name):
    rows, aside = found_in(folder({name: NOTEBOOK}))
    assert rows == {name: None} and aside == {}


@pytest.mark.parametrize(
    "name, reason",
    [
        ("03.html", "web page"),
        ("03.py", "Python script"),
        ("03.pdf", "a PDF"),
        ("03.docx", "text document"),
        ("03.7z", "no zip"),
        ("03.png", "picture"),
        ("03.txt", "not a notebook"),
        ("03.ipynb.txt", "damaged"),
        ("03.xyz", "not a notebook"),
        ("03.zip", "broken zip"),
    ],
)
def test_what_cannot_be_read_gets_a_row_with_the_reason(folder, name, reason):
    rows, aside = found_in(folder({name: b"O damp goose!", "a.ipynb": NOTEBOOK}))
    assert set(rows) == {name, "a.ipynb"} and aside == {}
    assert reason in rows[name] and rows["a.ipynb"] is None


def test_what_is_plainly_no_submission_is_set_aside(folder):
    files = {
        ".venv/a.ipynb": NOTEBOOK,
        ".venv/b/c.ipynb": NOTEBOOK,
        ".ipynb_checkpoints/03-checkpoint.ipynb": NOTEBOOK,
        ".Trash-1000/files/03.ipynb": NOTEBOOK,
        "learner_a/__pycache__/x.pyc": b"",
        "__MACOSX/._03.ipynb": b"",
        ".DS_Store": b"",
        "learner_a/.hidden.ipynb": NOTEBOOK,
        "env/pyvenv.cfg": b"",
        "env/lib/x.py": b"",
        "marks/grades.json": b"{}",
        "marks/feedback/x.html": b"",
        "notes.ipynb": WITHOUT,
    }
    rows, aside = found_in(folder({**files, "learner_a/03.ipynb": NOTEBOOK}))
    assert rows == {"learner_a/03.ipynb": None}
    assert set(aside) == set(files)
    assert "without any exercise" in aside["notes.ipynb"] and aside[".DS_Store"] == "hidden"


def test_a_folder_is_listed_in_one_line(folder):
    place = folder({f".venv/{i}.py": b"" for i in range(7)} | {"03.ipynb": NOTEBOOK})
    lines = passed_over(collect_submissions([place]).set_aside)
    assert lines == [f"{place.as_posix()}/.venv/ (7 files): hidden"]


def test_what_the_command_names_is_a_submission_in_any_case(folder):
    place = folder({".hidden.ipynb": NOTEBOOK, "without.ipynb": WITHOUT, "03.ipynb": NOTEBOOK})
    rows, aside = found_in(place, place / ".hidden.ipynb", place / "without.ipynb")
    assert rows[".hidden.ipynb"] is None and "without any exercise" in rows["without.ipynb"]
    assert len(rows) == 3 and aside == {}


def test_the_commands_own_files_are_no_submissions(folder):
    place = folder({"03.ipynb": NOTEBOOK, "weights.toml": b"", "out/x.csv": b""})
    rows, aside = found_in(place, ours=[place / "weights.toml", place / "out"])
    assert rows == {"03.ipynb": None} and set(aside) == {"weights.toml", "out/x.csv"}


def test_links_and_pipes_are_named_and_not_followed(folder):
    place = folder({"03.ipynb": NOTEBOOK})
    (place / "link.txt").symlink_to(place / "03.ipynb")
    (place / "link.zip").symlink_to(place / "03.ipynb")
    (place / "folder").symlink_to(place)
    os.mkfifo(place / "pipe.zip")
    rows, aside = found_in(place)
    assert set(rows) == {"03.ipynb", "link.txt", "link.zip", "folder", "pipe.zip"} and aside == {}
    assert all("not a file" in rows[name] for name in rows if name != "03.ipynb")


def test_a_folder_without_any_submission_says_what_it_has(folder):
    with pytest.raises(FileNotFoundError, match="no notebook.*passed over.*without any exercise"):
        collect_submissions([folder({"notes.ipynb": WITHOUT})])


# ---------------------------------------------------------------- zips


def test_a_zip_is_looked_into(folder):
    inner = zip_bytes({"03.IPYNB": NOTEBOOK, "img/a.png": b"x", "__MACOSX/._03.ipynb": b"x"})
    place = folder({"work.zip": inner, "class.ZIP": zip_bytes({"learner_a/work.zip": inner})})
    rows, aside = found_in(place)
    assert rows == {"work.zip/03.IPYNB": None, "class.ZIP/learner_a/work.zip/03.IPYNB": None}
    assert aside["work.zip/img/a.png"] == "beside a notebook in the same zip" and len(aside) == 4
    for submission in collect_submissions([place]).submissions:
        assert isinstance(submission.source, ZipMember)
        assert read_source(submission.source) == NOTEBOOK
        assert len(read_code_cells(submission.source)) == len(NAMES)
    assert sorted(path.name for path in place.iterdir()) == ["class.ZIP", "work.zip"]


def test_a_second_learner_in_a_zip_is_not_lost_beside_the_first(folder):
    files = {"learner_a/03.ipynb": NOTEBOOK, "learner_b/03.html": b"x", "learner_a/x.png": b""}
    rows, aside = found_in(folder({"class.zip": zip_bytes(files)}))
    assert rows["class.zip/learner_a/03.ipynb"] is None
    assert "web page" in rows["class.zip/learner_b/03.html"] and len(rows) == 2
    assert set(aside) == {"class.zip/learner_a/x.png"}


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "broken zip"),
        (zip_bytes({}), "empty zip"),
        (zip_bytes({"a.html": b"", "b.py": b""}), "without a notebook.*a.html, b.py"),
        (zip_bytes({"notes.ipynb": WITHOUT}), "without a notebook"),
        (zip_bytes({"03.ipynb": NOTEBOOK})[:-30], "broken zip"),
    ],
)
def test_a_zip_without_a_notebook_is_one_row(folder, content, reason):
    rows, aside = found_in(folder({"x.zip": content}))
    assert set(rows) == {"x.zip"} and aside == {}
    assert re.search(reason, rows["x.zip"])


def damaged(data, at, byte):
    return data[:at] + bytes([byte]) + data[at + 1 :]


def test_what_a_zip_may_not_hold_is_named(folder):
    link = zip_bytes({"03.ipynb": b"/etc/passwd"}, external_attr=(stat.S_IFLNK | 0o777) << 16)
    encrypted = zip_bytes({"03.ipynb": NOTEBOOK})
    place = encrypted.rindex(b"PK\x01\x02")
    encrypted = damaged(encrypted, place + 8, 1)
    broken = bytearray(zip_bytes({"03.ipynb": NOTEBOOK}))
    broken[60] ^= 255
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("03.ipynb", NOTEBOOK)
    files = {
        "up.zip": zip_bytes({"../03.ipynb": NOTEBOOK}),
        "root.zip": zip_bytes({"/03.ipynb": NOTEBOOK}),
        "drive.zip": zip_bytes({"C:\\03.ipynb": NOTEBOOK}),
        "link.zip": link,
        "encrypted.zip": encrypted,
        "broken.zip": bytes(broken),
        "lzma.zip": packed.getvalue(),
    }
    rows, aside = found_in(folder(files))
    reasons = {name.partition("/")[0]: problem for name, problem in rows.items()}
    assert set(reasons) == set(files) and len(rows) == len(files) and aside == {}
    for name in ("up.zip", "root.zip", "drive.zip"):
        assert "leads out of the zip" in reasons[name]
    assert "links" in reasons["link.zip"] and "encrypted" in reasons["encrypted.zip"]
    assert "broken" in reasons["broken.zip"] and "method" in reasons["lzma.zip"]


def test_a_zip_has_limits(folder, monkeypatch):
    bomb = zip_bytes({"03.ipynb": bytes(2**20)})
    many = zip_bytes({f"{i}.ipynb": NOTEBOOK for i in range(30)})
    deep = zip_bytes({"b.zip": zip_bytes({"c.zip": zip_bytes({"03.ipynb": NOTEBOOK})})})
    place = folder({"bomb.zip": bomb, "many.zip": many, "deep.zip": deep, "03.ipynb": NOTEBOOK})
    monkeypatch.setattr(archives, "MAX_NOTEBOOK_BYTES", 2**19)
    monkeypatch.setattr(archives, "MAX_ZIP_ENTRIES", 20)
    rows, _ = found_in(place)
    assert "a notebook of this course has less" in rows["bomb.zip/03.ipynb"]
    assert "30 files; the limit is 20" in rows["many.zip"]
    assert "deep.zip" in rows and rows["03.ipynb"] is None and len(rows) == 4
    monkeypatch.setattr(archives, "MAX_ZIP_ENTRIES", 100)
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 10 * len(NOTEBOOK))
    archives.LAST_ZIP.key = None
    rows, _ = found_in(place)
    assert "the limit is" in rows["many.zip"] and rows["03.ipynb"] is None
    monkeypatch.setattr(archives, "MAX_DIRECTORY_BYTES", 1000)
    archives.LAST_ZIP.key = None
    rows, _ = found_in(place)
    assert "list of files" in rows["many.zip"]


def test_a_zip_that_lies_about_a_size_is_not_believed(folder):
    """The list says 10 bytes; there are a million."""
    data = bytearray(zip_bytes({"03.ipynb": bytes(10**6)}))
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (10).to_bytes(4, "little")
    rows, _ = found_in(folder({"x.zip": bytes(data)}))
    assert "broken" in rows["x.zip/03.ipynb"]


def test_names_in_a_zip_are_read_as_they_were_meant(folder):
    data = zip_bytes({"Müller\\03.ipynb": NOTEBOOK})
    # The flag that says UTF-8 is missing, as in many programs' zips.
    data = data.replace(b"PK\x03\x04\x14\x00\x00\x08", b"PK\x03\x04\x14\x00\x00\x00")
    data = data.replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00\x08", b"PK\x01\x02\x14\x03\x14\x00\x00\x00"
    )
    place = folder({"x.zip": data})
    assert [entry.name for entry in list_zip(place / "x.zip", bool)] == ["Müller/03.ipynb"]


def test_a_name_that_a_zip_lists_twice_is_two_files(folder):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive, pytest.warns(UserWarning):
        archive.writestr("03.ipynb", NOTEBOOK)
        archive.writestr("03.ipynb", notebook_bytes(NAMES[0]))
    place = folder({"x.zip": data.getvalue()})
    found = collect_submissions([place]).submissions
    assert [each.name.rpartition("/")[2] for each in found] == ["03.ipynb", "03.ipynb (2)"]
    assert [len(read_code_cells(each.source)) for each in found] == [len(NAMES), 1]


# ---------------------------------------------------------------- platforms

CANVAS = {
    "lastfirst_12345_67890_03_single_head.ipynb": NOTEBOOK,
    "lastfirst_12345_67891_picture.png": b"x",
    "otherlearner_LATE_222_333_03_single_head-2.ipynb": NOTEBOOK,
    "thirdlearner_44_55_03_single_head.html": b"x",
    "fourthlearner_66_77_work.zip": zip_bytes({"a/03.ipynb": NOTEBOOK, "a/x.py": b""}),
}
MOODLE = {
    "First Last_12345_assignsubmission_file_/03_single_head.ipynb": NOTEBOOK,
    "First Last_12345_assignsubmission_onlinetext_/onlinetext.html": b"x",
    "Another One_77_assignsubmission_file_/03_single_head.pdf": b"x",
    "No Folder_88_assignsubmission_file_03_single_head.ipynb": NOTEBOOK,
}
BEGINNING = "Lesson 3_learner_a_attempt_2026-01-01-10-00-00"
BLACKBOARD = {
    f"{BEGINNING}_03_single_head.ipynb": NOTEBOOK,
    f"{BEGINNING}.txt": NOTE,
    "Lesson 3_learnerb_attempt_2026-01-02-10-00-00.txt": b"no such line",
    "Lesson 3_learnerc_attempt_2026-01-02-10-00-00_03.ipynb": NOTEBOOK,
}


@pytest.mark.parametrize("zipped", [False, True])
def test_what_canvas_hands_out(folder, zipped):
    place = folder({"submissions.zip": zip_bytes(CANVAS)} if zipped else CANVAS)
    prefix = "submissions.zip/" if zipped else ""
    learners = {name.removeprefix(prefix): who for name, who in learners_in(place).items()}
    assert learners == {
        "lastfirst_12345_67890_03_single_head.ipynb": ("canvas", "12345", "lastfirst"),
        "otherlearner_LATE_222_333_03_single_head-2.ipynb": ("canvas", "222", "otherlearner"),
        "thirdlearner_44_55_03_single_head.html": ("canvas", "44", "thirdlearner"),
        "fourthlearner_66_77_work.zip/a/03.ipynb": ("canvas", "66", "fourthlearner"),
    }
    rows, aside = found_in(place)
    assert [name for name, problem in rows.items() if problem] == [
        f"{prefix}thirdlearner_44_55_03_single_head.html"
    ]
    assert set(aside) == {
        f"{prefix}lastfirst_12345_67891_picture.png",
        f"{prefix}fourthlearner_66_77_work.zip/a/x.py",
    }
    attempts = [each.learner.attempt for each in collect_submissions([place]).submissions]
    assert sorted(attempts) == [0, 0, 0, 2]


@pytest.mark.parametrize("zipped", [False, True])
def test_what_moodle_hands_out(folder, zipped):
    place = folder({"submissions.zip": zip_bytes(MOODLE)} if zipped else MOODLE)
    assert set(learners_in(place).values()) == {
        ("moodle", "12345", "First Last"),
        ("moodle", "77", "Another One"),
        ("moodle", "88", "No Folder"),
    }
    rows, aside = found_in(place)
    assert len(rows) == 3 and list(aside.values()) == ["beside a notebook of the same learner"]
    assert sum(problem is not None for problem in rows.values()) == 1


@pytest.mark.parametrize("zipped", [False, True])
def test_what_blackboard_hands_out(folder, zipped):
    place = folder({"submissions.zip": zip_bytes(BLACKBOARD)} if zipped else BLACKBOARD)
    assert sorted(learners_in(place).values()) == [
        ("blackboard", "learner_a", "Léa Example"),
        ("blackboard", "learnerb", "learnerb"),
        ("blackboard", "learnerc", "learnerc"),
    ]
    rows, aside = found_in(place)
    assert len(rows) == 3 and len(aside) == 1
    assert [problem for problem in rows.values() if problem] == [
        "nothing but Blackboard's note: no file was handed in"
    ]


def test_a_learner_with_a_notebook_of_something_else_is_not_nobody(folder):
    rows, _ = found_in(folder({"lastfirst_12_34_notes.ipynb": WITHOUT, "03.ipynb": NOTEBOOK}))
    assert "without any exercise" in rows["lastfirst_12_34_notes.ipynb"]


def test_a_folder_of_a_course_is_no_learner(folder):
    assert learners_in(folder({"cs_101_2026_spring/03.ipynb": NOTEBOOK})) == {
        "cs_101_2026_spring/03.ipynb": None
    }


# ---------------------------------------------------------------- the command


@pytest.fixture
def graded(monkeypatch):
    """Grading that reads each file and runs nothing: every exercise is right."""

    monkeypatch.setattr(batch_module, "grade_submission", grade_submission)


def test_nothing_is_filtered_out_without_a_word(folder, tmp_path, graded, capsys):
    files = {
        "03_single_head.ipynb": NOTEBOOK,
        "b.ipynb.json": NOTEBOOK,
        "c.ipynb.txt": NOTEBOOK,
        "d.html": b"x",
        "e.zip": zip_bytes({"03.ipynb": NOTEBOOK}),
        "X.IPYNB": NOTEBOOK,
        "f.py": b"x",
        ".venv/x.ipynb": NOTEBOOK,
    }
    out = tmp_path / "out"
    assert main(["grade", str(folder(files)), "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    for name in (
        "03_single_head.ipynb",
        "b.ipynb.json",
        "c.ipynb.txt",
        "e.zip/03.ipynb",
        "X.IPYNB",
    ):
        assert any("100%" in line and name in line for line in printed.splitlines())
    assert printed.count("none  ") == 2 and "web page" in printed and "Python script" in printed
    assert "nobody's submission" in printed and ".venv/x.ipynb: hidden" in printed
    records = json.loads((out / "grades.json").read_text(encoding="utf-8"))["submissions"]
    assert len(records) == 7
    # Again: what was graded is known again, also within the zip.
    assert main(["grade", str(folder({})), "--out", str(out)]) == 1
    again = json.loads((out / "grades.json").read_text(encoding="utf-8"))["submissions"]
    assert again == records


def test_nothing_readable_says_which_and_what_to_do(folder, tmp_path, graded, capsys):
    place = folder({"a.html": b"x"})
    assert main(["grade", str(place), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "a.html: a web page" in said and "--lesson" in said
    assert main(["grade", str(place), "--out", str(tmp_path / "out"), "--lesson", "3"]) == 1


def test_a_notebook_in_a_zip_is_really_graded(folder, tmp_path, capsys):
    """Through the trusted notebook and the worker."""
    text = (
        "def window_mask(T, w):\n    t, s = torch.arange(T)[:, None], torch.arange(T)\n"
        "    return (s <= t) & (s > t - w)\n"
    )
    cell = nbformat.v4.new_code_cell(text, metadata={"exercise": "window_mask"})
    data = json.dumps(nbformat.v4.new_notebook(cells=[cell])).encode()
    place = folder({"x.zip": zip_bytes({"lastfirst_12_34_03.ipynb": data})})
    assert main(["grade", str(place), "--out", str(tmp_path / "out"), "--lesson", "3"]) == 0
    records = json.loads((tmp_path / "out" / "grades.json").read_text(encoding="utf-8"))
    record = next(iter(records["submissions"].values()))
    assert record["marks"]["window_mask"] == "✓" and record["learner"]["name"] == "lastfirst"


# ---------------------------------------------------------------- nothing is lost

FOLDERS = (
    "",
    "learner_a",
    "learner_b/work",
    ".venv/lib",
    ".ipynb_checkpoints",
    "__MACOSX",
    "First Last_12_assignsubmission_file_",
    "env",
    "x.ipynb",
    "marks/feedback",
    "lastfirst_1_2_work",
)
FILE_NAMES = (
    "03.ipynb",
    "03.IPYNB",
    "03.ipynb.json",
    "03.ipynb.txt",
    "03-1.ipynb",
    "a.html",
    "a.py",
    "a.txt",
    "a.json",
    "README",
    "pyvenv.cfg",
    "grades.json",
    ".hidden.ipynb",
    "._03.ipynb",
    "Thumbs.db",
    "=1+1.ipynb",
    "two\nlines.ipynb",
    "x.zip",
    "y.ZIP",
    "lastfirst_1_2_03.ipynb",
    "lastfirst_1_3_a.zip",
    "lastfirst_LATE_1_4_x.html",
    f"{BEGINNING}.txt",
    f"{BEGINNING}_03.ipynb",
    "L_u_attempt_2026-01-02-10-00-00.txt",
)


def random_content(rng, name, depth):
    """The bytes of a file: sometimes what its name says, sometimes not."""
    kinds = [NOTEBOOK, WITHOUT, NOTE, b"", b"{", b"[1, 2]", b"O damp goose!", NOTEBOOK[:50]]
    if rng.random() < 0.7 and name.lower().endswith("zip"):
        data = zip_bytes(random_files(rng, depth + 1))
        if rng.random() < 0.15:
            data = damaged(data, rng.randrange(len(data)), rng.randrange(256))
        return data
    if rng.random() < 0.5:
        return NOTEBOOK
    return rng.choice(kinds)


def random_files(rng, depth=0):
    files = {}
    for _ in range(rng.randrange(8)):
        path = rng.choice(FOLDERS)
        name = rng.choice(FILE_NAMES)
        files[f"{path}/{name}" if path else name] = random_content(rng, name, depth)
    return files


def leaves_of_zip(path, indexes=()):
    """{indexes: name} of each file in a zip, by Python's own zipfile."""
    archive = zipfile.ZipFile(path)
    return {
        (*indexes, index): info.filename
        for index, info in enumerate(archive.infolist())
        if not info.filename.endswith("/")
    }


def everything(zip_path, indexes, data, sources):
    """The sources that must be there for a zip: itself, or each of its files."""
    own = ZipMember(zip_path, indexes, "") if indexes else zip_path
    if own in sources:
        return {own}
    found = set()
    for place, name in leaves_of_zip(io.BytesIO(data), indexes).items():
        member = ZipMember(zip_path, place, "")
        if member not in sources and name.lower().endswith(".zip"):
            inner = zipfile.ZipFile(io.BytesIO(data)).read(name)
            found |= everything(zip_path, place, inner, sources)
        else:
            found.add(member)
    return found


@pytest.mark.parametrize("seed", range(150))
def test_rows_and_what_is_set_aside_are_all_files(seed, tmp_path):
    load_answer_keys()
    rng = random.Random(seed)
    place = tmp_path / "class"
    files = {"lastfirst_9_9_03.ipynb": NOTEBOOK, **random_files(rng), **random_files(rng)}
    for name, content in files.items():
        path = place / name
        if not any(parent.is_file() for parent in path.parents) and not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    intake = collect_submissions([place])
    listed = [*intake.submissions, *intake.set_aside]
    sources = [
        each.source._replace(member="") if isinstance(each.source, ZipMember) else each.source
        for each in listed
    ]
    assert len(set(sources)) == len(sources)
    assert len({each.name for each in listed}) == len(listed)
    expected = set()
    for path in place.rglob("*"):
        if path.is_file() and path in sources:
            expected.add(path)
        elif path.is_file():
            expected |= everything(path, (), path.read_bytes(), set(sources))
    assert set(sources) == expected
    for submission in intake.submissions:
        if submission.problem is None:
            assert read_code_cells(submission.source)


def test_the_fuzzer_meets_every_case(tmp_path):
    """Else it would show nothing: over all seeds there are rows, reasons, zips within zips and
    files set aside.
    """
    load_answer_keys()
    reasons = set()
    depths = set()
    for seed in range(150):
        place = tmp_path / str(seed)
        test_rows_and_what_is_set_aside_are_all_files(seed, place)
        intake = collect_submissions([place / "class"])
        reasons.update(each.reason for each in intake.set_aside)
        depths.update(
            len(each.source.indexes) if isinstance(each.source, ZipMember) else 0
            for each in intake.submissions
        )
    assert depths == {0, 1, 2} and len(reasons) >= 6
