"""Lesson B: rooms, what an answer finds in them, and what the grader makes of what comes out."""

import json
import socket
import sys
import threading
from pathlib import Path

import pytest
import torch

from chargpt_lib.grading import worker as sandbox
from chargpt_lib.grading.worker import Room, Sandbox, copy_library, lesson_names, processor_time
from tests.tiny import wait_for

DOUBLE = "def double(x):\n    return 2 * x\n"
DEAF = """def f():
    import signal
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pass
"""  # hears no interrupt at all


def test_rooms_are_separate():
    spoils = "import torch\ntorch.ones = None\nMARK = 1\n" + DOUBLE
    looks = "import torch\ndef double(x):\n    return [torch.ones is None, 'MARK' in globals(), 2 * x]\n"
    with Sandbox("single_head", 3) as rooms:
        for room, source in zip(rooms, (spoils, looks, DOUBLE)):
            assert room.enter("double", source)
        assert rooms[0]([torch.ones(2)]).value.tolist() == [2, 2]
        assert rooms[1]([3]).value == [False, False, 6]
        assert [rooms[2]([i]).value for i in range(5)] == [0, 2, 4, 6, 8]


def test_an_answer_finds_only_earlier_lessons(tmp_path):
    copy_library("single_head", tmp_path)
    there = {path.stem for path in (tmp_path / "chargpt_lib").rglob("*.py")}
    assert there == {
        "__init__",
        "playhouse",
        "answers",
        "lock",
        "sandbox",
        "data",
        "bigram",
        "training",
    }
    assert lesson_names()["single_head"] == "03_single_head" and "__init__" not in lesson_names()


def test_its_environment_is_scrubbed(monkeypatch):
    monkeypatch.setenv("CHARGPT_SECRET", "goose")
    looks = "def look():\n    import os, sys\n    return [sorted(os.environ), sys.argv, os.getcwd(), os.listdir('.')]"
    with Sandbox("single_head", 1) as rooms:
        rooms[0].enter("look", looks)
        names, arguments, folder, inside = rooms[0]([]).value
    assert not {"CHARGPT_SECRET", "PYTHONPATH", "USER", "CHARGPT_DATA"} & set(names)
    assert arguments == ["-c"] and inside == [] and "chargpt-" in folder


def test_what_is_over_is_over(monkeypatch):
    linux = sys.platform.startswith("linux")
    if linux:  # where processor time is known, it alone is enough
        monkeypatch.setattr(sandbox, "wall_clock", lambda seconds: 3600)
    with Sandbox("single_head", 2) as rooms:
        rooms[0].enter("f", "def f():\n    import os\n    os._exit(0)")
        assert rooms[0]([]).value == "dead" and rooms[0]([]).value == "dead"
        rooms[1].enter("f", DEAF, seconds=0.5)
        assert rooms[1]([]).status == "late"
        assert rooms[1]([]).status == "error"
        if linux:
            wait_for(
                lambda: state(rooms[1].pid) in ("Z", "gone")
            )  # it takes no time from the others


def state(pid):
    """The letter that Linux gives to the state of a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    except OSError:
        return "gone"


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="other systems do not say who has sent a message"
)
def test_a_room_is_known_by_its_process():
    burns = "def f():\n    import time\n    while time.process_time() < 1.5:\n        pass\n    return time.process_time()"
    with Sandbox("single_head", 2) as rooms:
        for room in rooms:
            room.enter("f", burns)
        assert rooms[0].pid != rooms[1].pid
        before = processor_time(rooms[1].pid)
        value = rooms[0]([]).value
        assert value - 0.1 < processor_time(rooms[0].pid) < value + 1
        assert processor_time(rooms[1].pid) < before + 0.5
    assert processor_time(2**30) is None


def test_a_cell_has_time_to_import_and_no_more():
    slow = (
        "import time\nend = time.thread_time() + 0.8\nwhile time.thread_time() < end:\n    pass\n"
        + DOUBLE
    )
    with Sandbox("single_head", 2) as rooms:
        rooms[0].enter("double", slow, seconds=0.4)
        assert rooms[0]([4]).value == 8
        rooms[1].enter("double", slow, seconds=0.2)
        outcome = rooms[1]([4])
        assert outcome.status == "unusable" and "0.6 s" in outcome.detail


def test_a_sandbox_leaves_nothing_behind():
    with Sandbox("single_head", 1) as rooms:
        rooms[0].enter("f", DOUBLE.replace("double", "f"))
        room = rooms[0]
    assert room([1]).status == "error"
    box = Sandbox("single_head", 1)
    box.__exit__()
    assert not box.home.exists() and box.process.returncode is not None


@pytest.mark.parametrize(
    "line",
    [
        b"O damp goose!\n",
        b"\n",
        b"[]\n",
        b'["value"]\n',
        b'["value", {"tensor": "float32"}, ""]\n',
        b"[1, 2, 3, 4]\n",
        b'["value", {"tensor": "eval", "shape": [1], "data": "AAAA"}, ""]\n',
        b'{"sort": "value"}\n',
        b'["won", 1, ""]\n',
        b'["value", 1',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'["value", {"tensor": "float32", "shape": [99999999999], "data": ""}, ""]\n',
        b'[["value"], 1, ""]\n',
        b'["value", {"type": ["x"]}, ""]\n',
        b"null\n",
        b"7\n",
    ],
)
def test_a_room_that_lies_is_an_error(line):
    ours, theirs = socket.socketpair()

    def lie():
        theirs.makefile("r").readline()
        theirs.sendall(b'{"files": true}\n')
        theirs.sendall(b'"defined"\n')
        theirs.makefile("r").readline()
        theirs.sendall(line)
        theirs.close()

    threading.Thread(target=lie).start()
    room = Room(ours)
    assert room.enter("f", "x") == {"files": True}
    outcome = room([1])
    assert outcome.status in ("error", "value") and "\n" not in outcome.detail
    assert (
        outcome.status == "error"
        or type(outcome.value).__module__ == "chargpt_lib.exercises.compare"
    )


def test_details_are_short_and_plain():
    ours, theirs = socket.socketpair()
    room = Room(ours)
    room.defined = True
    theirs.sendall((json.dumps(["error", "X", "a\nb" * 10_000]) + "\n").encode())
    detail = room([1]).detail
    assert len(detail) == 300 and "\n" not in detail
