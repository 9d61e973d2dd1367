"""What was handed in: from folders and files to submissions, and nothing is lost on the way.

Every file is one of two things. A submission gets a row: a notebook is graded, and what somebody
handed in instead of a notebook gets the reason and no marks. What is plainly nobody's submission is
set aside, and listed. A zip is looked into, and then its files count; it counts itself where it
holds no notebook, or cannot be read.

Of a learner whom the names tell (see learners.py), what lies beside a notebook of hers is set
aside, too. Of all others only what lies beside a notebook in the same zip: in a folder a second
file may be a second learner's.
"""

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from chargpt_lib.exercises.judge import EXERCISES
from chargpt_lib.grading.archives import (
    MAX_ZIP_DEPTH,
    ZipMember,
    list_zip,
    read_source,
)
from chargpt_lib.grading.learners import (
    MAX_NOTE_BYTES,
    Learner,
    find_learner,
    is_blackboard_note,
    read_blackboard_note,
)
from chargpt_lib.grading.submission import read_code_cells

# A browser that takes a notebook for text adds .json or .txt, a second download adds (1), Canvas -1.
NOTEBOOK_NAME = re.compile(r"\.ipynb(?: ?\(\d+\)|-\d+)?(?:\.(?:json|txt))?$", re.I)
# What may hold a notebook under another name: its first bytes decide.
PERHAPS_NOTEBOOK = ("", ".json", ".txt")

NOT_SUBMITTED = (
    "__pycache__",
    "__macosx",
    "node_modules",
    "$recycle.bin",
    "system volume information",
    "thumbs.db",
    "desktop.ini",
)
OUR_FILES = ("grades.json", "grades.csv", "feedback", "canvas.csv", "moodle.csv", "gradescope.csv")

NO_EXERCISE = "a notebook without any exercise of this course"
WHAT_IT_IS = {
    ".html": "a web page, which Jupyter cannot turn back into a notebook",
    ".htm": "a web page, which Jupyter cannot turn back into a notebook",
    ".py": "a Python script",
    ".pdf": "a PDF",
    ".docx": "a text document",
    ".doc": "a text document",
    ".odt": "a text document",
    ".7z": "an archive that is no zip",
    ".rar": "an archive that is no zip",
    ".gz": "an archive that is no zip",
    ".tar": "an archive that is no zip",
    ".tgz": "an archive that is no zip",
    ".png": "a picture",
    ".jpg": "a picture",
    ".jpeg": "a picture",
}


class HandedIn(NamedTuple):
    """A submission: a notebook, or what somebody handed in instead."""

    source: Path | ZipMember
    name: str  # what it is called in the tables; no two have the same
    learner: Learner | None
    problem: str | None  # why it cannot be graded; None for a notebook


class SetAside(NamedTuple):
    """A file that is nobody's submission."""

    source: Path | ZipMember
    name: str
    group: str  # the file's name, or that of the folder that is listed in its place
    reason: str


class Intake(NamedTuple):
    """All that was found, in order."""

    submissions: list
    set_aside: list


# ---------------------------------------------------------------- names


def _printable(text):
    """A text as it can stand on one line of a table: what is not printable is escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def submission_name(source):
    """The path as a submission is called: on one line, whatever the file's name, and no formula for
    a spreadsheet.
    """
    if isinstance(source, ZipMember):
        return f"{submission_name(source.path)}/{_printable(source.member)}"
    # A file's name is bytes, maybe no UTF-8.
    name = _printable(os.fsencode(source.as_posix()).decode("utf-8", "backslashreplace"))
    if name.startswith(("=", "+", "-", "@")):
        return f"./{name}"
    return name


def absolute_name(source):
    """The same for the absolute path, by which a file is known again from another folder."""
    if isinstance(source, ZipMember):
        return submission_name(source._replace(path=source.path.absolute()))
    return submission_name(source.absolute())


def _own_name(source):
    """The last part of a source's path."""
    if isinstance(source, ZipMember):
        return PurePosixPath(source.member).name
    return source.name


def _is_notebook_name(name):
    return NOTEBOOK_NAME.search(name) is not None


def _suffix(name):
    """The suffix of a file's name in small letters; .ipynb for whatever a browser has made of it."""
    if _is_notebook_name(name):
        return ".ipynb"
    return PurePosixPath(name).suffix.lower()


def _will_be_read(name):
    """Whether the file of this name in a zip is one that may be read."""
    name = name.rpartition("/")[2]
    return _suffix(name) in (".ipynb", ".zip", *PERHAPS_NOTEBOOK)


# ---------------------------------------------------------------- all files


class _File(NamedTuple):
    """A file on its way."""

    source: Path | ZipMember
    names: tuple  # ((name, is it a file's?), ...) from the outermost folder to the file
    named: bool = False  # the command names it, so it is a submission in any case
    aside: str | None = None  # why it is nobody's submission
    group: str | None = None  # the folder that is listed in its place
    problem: str | None = None


def _why_not_submitted(name):
    """Why the file or folder of this name is nobody's submission, or None."""
    if name.startswith(".") and name not in (".", ".."):
        return "hidden"
    if name.startswith("~$"):
        return "a lock of an open document"
    if name.lower() in NOT_SUBMITTED:
        return "made by a program"
    return None


def _is_virtual_environment(names):
    """Whether a folder with files of these names is a Python environment."""
    return "pyvenv.cfg" in names


def _names_of(path):
    """The names of a path's folders and of the file, as `find_learner` takes them."""
    folders = tuple((part, False) for part in path.parts[:-1])
    return (*folders, (path.name, True))


def _is_folder(path):
    """Whether a path is a folder, and no link to one."""
    try:
        return path.is_dir() and not path.is_symlink()
    except OSError:  # no permission to ask
        return False


def _is_plain_file(path):
    """Whether a path is a file, and no link, pipe or the like."""
    try:
        return path.is_file() and not path.is_symlink()
    except OSError:
        return False


def _walk_aside(path, reason, group):
    """Each file in a folder that is nobody's submission."""
    if not _is_folder(path):
        yield _File(path, _names_of(path), aside=reason, group=group)
        return
    for folder, folders, files in os.walk(path):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in sorted(files + links):
            file = Path(folder, name)
            yield _File(file, _names_of(file), aside=reason, group=group)


def _walk(folder, ours, is_root=True):
    """Each file below a folder, in order of the names."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        yield _File(
            folder, _names_of(folder), problem=f"a folder that cannot be opened: {error.strerror}"
        )
        return
    names = {path.name for path in paths}
    has_marks = "grades.json" in names and "feedback" in names
    if not paths and _is_notebook_name(folder.name):
        yield _File(folder, _names_of(folder))
    if not is_root and (has_marks or _is_virtual_environment(names)):
        reason = "marks of an earlier grading" if has_marks else "a Python environment"
        yield from _walk_aside(folder, reason, f"{submission_name(folder)}/")
        return
    for path in paths:
        is_folder = _is_folder(path)
        reason = _why_not_submitted(path.name)
        if path.absolute() in ours or (has_marks and path.name in OUR_FILES):
            reason = "the command's own"
        if reason is not None:
            group = f"{submission_name(path)}/" if is_folder else None
            yield from _walk_aside(path, reason, group)
        elif is_folder:
            yield from _walk(path, ours, is_root=False)
        else:
            yield _File(path, _names_of(path))


def _all_files(paths, ours):
    """Each file in files and folders once, in order.

    Raises: FileNotFoundError for a path that does not exist.
    """
    found = {}
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there: give notebooks, or folders of notebooks")
        if path.is_dir():
            files = _walk(path, ours)
        else:
            files = [_File(path, _names_of(path), named=True)]
        for file in files:
            key = file.source.absolute()
            # What one of the paths sets aside may be what another one names.
            if key not in found or (found[key].aside is not None and file.aside is None):
                found[key] = file
            elif file.named:
                found[key] = found[key]._replace(named=True)
    return list(found.values())


# ---------------------------------------------------------------- into the zips


def _is_zip(file):
    return _suffix(_own_name(file.source)) == ".zip" and file.aside is None and file.problem is None


def _zip_file(zip_file, entry, environments):
    """The _File of an entry of a zip."""
    outer = zip_file.source
    if isinstance(outer, ZipMember):
        source = ZipMember(
            outer.path, (*outer.indexes, entry.index), f"{outer.member}/{entry.name}"
        )
    else:
        source = ZipMember(outer, (entry.index,), entry.name)
    parts = [part for part in entry.name.split("/") if part]
    names = zip_file.names + tuple((part, False) for part in parts[:-1])
    names = (*names, (parts[-1] if parts else "", True))
    file = _File(source, names, problem=entry.problem)
    for depth, part in enumerate(parts, start=1):
        reason = _why_not_submitted(part)
        if "/".join(parts[:depth]) in environments:
            reason = "a Python environment"
        if reason is not None:
            group = None
            if depth < len(parts):
                folder = _printable("/".join(parts[:depth]))
                group = f"{submission_name(outer)}/{folder}/"
            return file._replace(aside=reason, group=group)
    return file


def _describe_contents(names):
    """The first names of a list, in words."""
    shown = ", ".join(_printable(name.rpartition("/")[2])[:60] for name in names[:3])
    if len(names) > 3:
        shown += f" and {len(names) - 3:,} more"
    return shown


def _look_into(zip_file, depth=1):
    """The files of a zip; or the zip itself, with the problem, where it cannot be read, or nothing
    in it is a notebook.
    """
    try:
        if isinstance(zip_file.source, Path) and not _is_plain_file(zip_file.source):
            raise ValueError("not a file: links and folders are not followed")
        if depth > MAX_ZIP_DEPTH:
            raise ValueError("a zip in a zip in a zip: ask for the notebook itself")
        entries = list_zip(zip_file.source, _will_be_read)
    except (OSError, ValueError) as error:
        return [zip_file._replace(problem=str(error))]
    environments = {
        entry.name.rpartition("/")[0]
        for entry in entries
        if entry.name.rpartition("/")[2] == "pyvenv.cfg"
    }
    files = []
    holds_submission = False
    for entry in entries:
        file = _zip_file(zip_file, entry, environments)
        if _is_zip(file):
            inner = _look_into(file, depth + 1)
        else:
            inner = [file]
        files.extend(inner)
        for each in inner:
            _, place = find_learner(each.names, {})
            # The platform's name for a learner's file, within this zip: it is the zip of a class.
            is_learners = place is not None and place >= len(zip_file.names)
            if each.aside is None and (_may_be_notebook(each) or is_learners):
                holds_submission = True
    if holds_submission:
        return files
    if not entries:
        return [zip_file._replace(problem="an empty zip: ask for the notebook")]
    contents = _describe_contents([entry.name for entry in entries])
    return [zip_file._replace(problem=f"a zip without a notebook of this course: {contents}")]


# ---------------------------------------------------------------- which of them are notebooks


def holds_exercise(cells):
    """Whether one of the code cells, from `read_code_cells`, belongs to an exercise of any lesson."""
    for names, text in cells:
        if any(name in EXERCISES for name in names):
            return True
        # Some tools lose the names.
        if any(name in EXERCISES for name in re.findall(r"^def (\w+)", text, re.M)):
            return True
    return False


def _looks_like_notebook(source):
    """Whether a file without a notebook's name holds one."""
    try:
        text = read_source(source).decode("utf-8-sig")
        if not text.lstrip().startswith("{"):
            return False
        content = json.loads(text)
        return "cells" in content or "worksheets" in content
    except (OSError, ValueError, RecursionError):
        return False


def _may_be_notebook(file):
    """Whether a file is a notebook of this course, or might be one if it could be read."""
    name = _own_name(file.source)
    if not _is_notebook_name(name):
        if file.problem is not None or _suffix(name) not in PERHAPS_NOTEBOOK:
            return False
        if not _looks_like_notebook(file.source):
            return False
    return file.problem is not None or _why_not_graded(file) != NO_EXERCISE


def _why_not_graded(file):
    """Why a notebook cannot be graded, or None."""
    try:
        cells = read_code_cells(file.source)
    except (OSError, ValueError) as error:
        return str(error)
    return None if holds_exercise(cells) else NO_EXERCISE


def _find_problem(file):
    """The file with its problem, if it has one."""
    if file.aside is not None or file.problem is not None:
        return file
    name = _own_name(file.source)
    suffix = _suffix(name)
    if suffix == ".ipynb":
        return file._replace(problem=_why_not_graded(file))
    if isinstance(file.source, Path) and not _is_plain_file(file.source):
        return file._replace(problem="not a file: links and folders are not followed")
    if suffix in PERHAPS_NOTEBOOK and _looks_like_notebook(file.source):
        return file._replace(problem=_why_not_graded(file))
    what = WHAT_IT_IS.get(suffix, "not a notebook")
    return file._replace(problem=f"{what}: ask for the notebook, the .ipynb file")


# ---------------------------------------------------------------- whose they are


def _read_notes(files):
    """What Blackboard's notes say, from all of them."""
    notes = {}
    for file in files:
        name = _own_name(file.source)
        if file.aside is None and is_blackboard_note(name):
            try:
                notes.update(read_blackboard_note(name, read_source(file.source, MAX_NOTE_BYTES)))
            except (OSError, ValueError):
                pass  # then the file's name has to do
    return notes


def _zip_and_folder(source):
    """(what is the same for all files of a zip, the folders within it) of a ZipMember."""
    return (source.path, source.indexes[:-1]), PurePosixPath(source.member).parent.parts


def _lies_beside(folder, notebook_folders):
    """Whether a file in this folder of a zip belongs to a notebook in one of the others.

    That is one in the same folder or in one around it; or, where there is but one notebook, in one
    within it.
    """
    for other in notebook_folders:
        if folder[: len(other)] == other:
            return True
    return len(notebook_folders) == 1 and notebook_folders[0][: len(folder)] == folder


class _Owners:
    """Who has handed in which notebooks: decides what lies beside one of them."""

    def __init__(self, files, notes):
        self.learners = {}
        self.notebook_of_learner = {}
        self.notebook_folders = {}  # of a zip without learners' names
        self.rows_of_learner = {}
        for file in files:
            learner, _ = find_learner(file.names, notes)
            self.learners[file.source] = learner
            if file.aside is not None:
                continue
            key = None
            if learner is not None:
                key = learner[:2]
            is_note = is_blackboard_note(_own_name(file.source))
            if key is not None and not is_note:
                self.rows_of_learner[key] = file
            if file.problem is None and key is not None:
                self.notebook_of_learner[key] = file
            elif file.problem is None and isinstance(file.source, ZipMember):
                zip_key, folder = _zip_and_folder(file.source)
                self.notebook_folders.setdefault(zip_key, []).append(folder)

    def why_aside(self, file):
        """Why a file that is no notebook of this course is nobody's submission, or None where
        somebody meant it to be.
        """
        learner = self.learners[file.source]
        if learner is not None:
            key = learner[:2]
            if key in self.notebook_of_learner:
                return "beside a notebook of the same learner"
            if is_blackboard_note(_own_name(file.source)) and key in self.rows_of_learner:
                return "Blackboard's note"
            return None
        if isinstance(file.source, ZipMember):
            zip_key, folder = _zip_and_folder(file.source)
            folders = self.notebook_folders.get(zip_key, [])
            if _lies_beside(folder, folders):
                return "beside a notebook in the same zip"
            if folders and file.problem == NO_EXERCISE:
                return NO_EXERCISE
            return None
        if file.problem == NO_EXERCISE:
            return NO_EXERCISE
        return None


def _unique(name, taken):
    """The name, with a number where it is taken.

    A zip may list a name twice, and bytes may be escaped to the same.
    """
    number = 2
    candidate = name
    while candidate in taken:
        candidate = f"{name} ({number})"
        number += 1
    taken.add(candidate)
    return candidate


def collect_submissions(paths, ours=()):
    """The Intake of files and folders, in order.

    ours: paths that the command uses for something else: they are no submissions.

    Raises: FileNotFoundError for a path that does not exist, or where there is no submission.
    """
    found = []
    for file in _all_files(paths, {Path(path).absolute() for path in ours}):
        if _is_zip(file):
            found.extend(each._replace(named=file.named) for each in _look_into(file))
        else:
            found.append(file)
    files = [_find_problem(file) for file in found]
    owners = _Owners(files, _read_notes(files))
    intake = Intake([], [])
    taken = set()
    for file in files:
        name = _unique(submission_name(file.source), taken)
        aside = file.aside
        group = file.group
        # In a zip that the command names, too, not every file is meant.
        is_meant = file.named and isinstance(file.source, Path)
        if aside is None and file.problem is not None and not is_meant:
            aside = owners.why_aside(file)
            if aside is not None and isinstance(file.source, ZipMember):
                group = f"{name.rpartition('/')[0]}/"
        if aside is not None:
            if group is None:
                group = name
            intake.set_aside.append(SetAside(file.source, name, group, aside))
            continue
        learner = owners.learners[file.source]
        if learner is not None:
            learner = learner._replace(id=_printable(learner.id), name=_printable(learner.name))
        problem = file.problem
        if problem is not None and is_blackboard_note(_own_name(file.source)):
            problem = "nothing but Blackboard's note: no file was handed in"
        intake.submissions.append(HandedIn(file.source, name, learner, problem))
    if not intake.submissions:
        where = ", ".join(map(str, paths))
        problem = f"there is no notebook (.ipynb) of this course in {where}"
        if intake.set_aside:
            problem += "; passed over: " + ", ".join(passed_over(intake.set_aside)[:3])
        raise FileNotFoundError(problem)
    return intake


def passed_over(set_aside):
    """The files that were set aside, a line for each, or for all in one folder that have the same
    reason.
    """
    names_of_group = {}
    for file in set_aside:
        names_of_group.setdefault((file.group, file.reason), []).append(file.name)
    lines = []
    for (group, reason), names in names_of_group.items():
        if len(names) == 1:
            lines.append(f"{names[0]}: {reason}")
        else:
            lines.append(f"{group} ({len(names):,} files): {reason}")
    return lines
