"""Lesson B: rooms, what an answer finds in them, and what the grader makes of what comes out."""

import json
import socket
import threading
import time

import pytest
import torch

from chargpt_lib.sandbox import Room, Sandbox, copy_library, lesson_names

DOUBLE = "def double(x):\n    return 2 * x\n"


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
    assert there == {"__init__", "playhouse", "answers", "lock", "sandbox", "data", "bigram", "training"}
    assert lesson_names()["single_head"] == "03_single_head" and "__init__" not in lesson_names()


def test_its_environment_is_scrubbed(monkeypatch):
    monkeypatch.setenv("CHARGPT_SECRET", "goose")
    looks = "def look():\n    import os, sys\n    return [sorted(os.environ), sys.argv, os.getcwd(), os.listdir('.')]"
    with Sandbox("single_head", 1) as rooms:
        rooms[0].enter("look", looks)
        names, arguments, folder, inside = rooms[0]([]).value
    assert not {"CHARGPT_SECRET", "PYTHONPATH", "USER", "CHARGPT_DATA"} & set(names)
    assert arguments == ["-c"] and inside == [] and "chargpt-" in folder


def test_what_is_over_is_over():
    with Sandbox("single_head", 2) as rooms:
        rooms[0].enter("f", "def f():\n    import os\n    os._exit(0)")
        assert rooms[0]([]).value == "dead" and rooms[0]([]).value == "dead"
        rooms[1].enter("f", "def f():\n    while True:\n        try:\n            while True:\n                pass\n"
                       "        except BaseException:\n            pass", seconds=0.5)
        began = time.perf_counter()
        assert rooms[1]([]).sort == "late" and rooms[1]([]).sort == "error" and time.perf_counter() - began < 7


def test_a_sandbox_leaves_nothing_behind():
    with Sandbox("single_head", 1) as rooms:
        rooms[0].enter("f", DOUBLE.replace("double", "f"))
        sandbox = rooms[0]
    assert sandbox([1]).sort == "error"
    box = Sandbox("single_head", 1)
    box.__exit__()
    assert not box.home.exists() and box.process.returncode is not None


@pytest.mark.parametrize("line", [
    b"O damp goose!\n", b"\n", b"[]\n", b'["value"]\n', b'["value", {"tensor": "float32"}, ""]\n', b'[1, 2, 3, 4]\n',
    b'["value", {"tensor": "eval", "shape": [1], "data": "AAAA"}, ""]\n', b'{"sort": "value"}\n', b'["won", 1, ""]\n',
    b'["value", 1', b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'["value", {"tensor": "float32", "shape": [99999999999], "data": ""}, ""]\n',
    b'[["value"], 1, ""]\n', b'["value", {"type": ["x"]}, ""]\n', b"null\n", b"7\n"])
def test_a_room_that_lies_is_an_error(line):
    ours, theirs = socket.socketpair()

    def lie():
        theirs.makefile("r").readline()
        theirs.sendall(b'{"files": true}\n')
        theirs.makefile("r").readline()
        theirs.sendall(line)
        theirs.close()

    threading.Thread(target=lie).start()
    room = Room(ours)
    assert room.enter("f", "x") == {"files": True}
    outcome = room([1])
    assert outcome.sort in ("error", "value") and "\n" not in outcome.detail
    assert outcome.sort == "error" or type(outcome.value).__module__ == "chargpt_lib.answers"


def test_details_are_short_and_plain():
    ours, theirs = socket.socketpair()
    room = Room(ours)
    room.seconds, room.patience = 1.0, 0
    theirs.sendall((json.dumps(["error", "X", "a\nb" * 10_000]) + "\n").encode())
    detail = room([1]).detail
    assert len(detail) == 300 and "\n" not in detail
