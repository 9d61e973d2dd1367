"""Whose file it is, from the names that a learning platform gives to what its learners handed in.

Canvas: the user's number, the attachment's, and the number of the submission where there are more:
    lastfirst_LATE_12345_67890_03_single_head-1.ipynb
Moodle: the participant's number, in a folder or, without one, before the file's name:
    First Last_12345_assignsubmission_file_/03_single_head.ipynb
Blackboard: the user name and the time; a note beside it, ..-10-00-00.txt, has the learner's name:
    Lesson 3_username_attempt_2026-01-01-10-00-00_03_single_head.ipynb
"""

import re
from typing import NamedTuple

MAX_NOTE_BYTES = 2**20
MAX_NOTE_LINE = 300

CANVAS = re.compile(r"(?P<name>[^_]+)_(?:LATE_)?(?P<id>[1-9]\d*)_[1-9]\d*_(?P<file>.+)")
CANVAS_NUMBER = re.compile(r"-(\d+)(?:\.\w+)*$")
MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)(?:_.*)?")
BLACKBOARD = re.compile(
    r"(?P<start>.+)_attempt_(?P<attempt>\d{4}(?:-\d\d){5})(?P<note>\.txt)?(?:_.+|$)", re.S
)
BLACKBOARD_NAME = re.compile(r"Name: (?P<name>.+) \((?P<id>[^()]+)\)")


class Learner(NamedTuple):
    """Who handed a file in, as far as its name says."""

    platform: str  # canvas, moodle or blackboard
    id: str  # Canvas: the user's number; Moodle: the participant's; Blackboard: the user name
    name: str
    attempt: int | str = 0  # the larger, the later; of one platform alone


def _canvas_learner(name):
    match = CANVAS.fullmatch(name)
    if match is None:
        return None
    number = CANVAS_NUMBER.search(match["file"])
    attempt = int(number[1]) if number else 0
    return Learner("canvas", match["id"], match["name"], attempt)


def _moodle_learner(name):
    match = MOODLE.fullmatch(name)
    if match is None:
        return None
    return Learner("moodle", match["id"], match["name"])


def _blackboard_learner(name, notes):
    match = BLACKBOARD.match(name)
    if match is None:
        return None
    # Both the assignment and the user name may have a _ in them; the note knows.
    user = match["start"].rpartition("_")[2]
    full_name = user
    if f"{match['start']}_{match['attempt']}" in notes:
        full_name, user = notes[f"{match['start']}_{match['attempt']}"]
    return Learner("blackboard", user, full_name, match["attempt"])


def is_blackboard_note(name):
    """Whether a file's name is that of the note which Blackboard writes for each learner."""
    match = BLACKBOARD.fullmatch(name)
    return match is not None and match["note"] is not None


def read_blackboard_note(name, data):
    """What a note says: {what the learner's files begin with: (name, user name)}, or {}."""
    match = BLACKBOARD.fullmatch(name)
    for line in data.decode("utf-8-sig", "replace").splitlines():
        # What follows the first lines is the learner's own text.
        if line.startswith("Name:"):
            found = BLACKBOARD_NAME.match(line[:MAX_NOTE_LINE])
            if match is None or found is None:
                return {}
            return {f"{match['start']}_{match['attempt']}": (found["name"], found["id"])}
    return {}


def find_learner(names, notes):
    """(the Learner that a path names, the place of the name that says so), or (None, None).

    names: [(name, is it a file's?)] from the outermost folder to the file; a zip is a file with
    more names after it. notes: what Blackboard's notes say, from read_blackboard_note.
    """
    for place in reversed(range(len(names))):
        name, is_file = names[place]
        learner = _moodle_learner(name)
        # A folder may be called cs_101_2026_spring and is no learner: these two name files alone.
        if learner is None and is_file:
            learner = _blackboard_learner(name, notes)
        if learner is None and is_file:
            learner = _canvas_learner(name)
        if learner is not None:
            return learner, place
    return None, None
