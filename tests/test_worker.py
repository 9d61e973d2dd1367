"""Workers: what an answer finds in one, and what the grader makes of what comes out."""

import json
import socket
import sys
import threading
from pathlib import Path

import pytest
import torch

from chargpt_lib.course import page_of_module, read_course
from chargpt_lib.grading import worker as worker_module
from chargpt_lib.grading.worker import Worker, WorkerPool, _copy_library, _process_cpu_seconds
from tests.tiny import wait_for

DOUBLE = "def double(x):\n    return 2 * x\n"
IGNORES_INTERRUPTS = """def f():
    import signal
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pass
"""


def test_workers_are_separate():
    spoils = "import torch\ntorch.ones = None\nMARK = 1\n" + DOUBLE
    looks = (
        "import torch\n"
        "def double(x):\n    return [torch.ones is None, 'MARK' in globals(), 2 * x]\n"
    )
    with WorkerPool("single_head", 3) as workers:
        for worker, source in zip(workers, (spoils, looks, DOUBLE)):
            assert worker.start("double", source)
        assert workers[0]([torch.ones(2)]).value.tolist() == [2, 2]
        assert workers[1]([3]).value == [False, False, 6]
        assert [workers[2]([i]).value for i in range(5)] == [0, 2, 4, 6, 8]


def test_pairs_reach_an_answer_as_pairs():
    """As lists they would be no keys of a dictionary, and an answer that is right in a notebook would fail here."""
    source = (
        "def ranks(pairs):\n    return {pair: rank for rank, pair in enumerate(pairs)}['b', 'c']\n"
    )
    with WorkerPool("bpe", 1) as workers:
        assert workers[0].start("ranks", source)
        assert workers[0]([[("a", "b"), ("b", "c")]]).value == 1


def test_an_answer_finds_only_earlier_lessons(tmp_path):
    _copy_library("single_head", tmp_path)
    library = tmp_path / "chargpt_lib"
    found = {path.relative_to(library).as_posix() for path in library.rglob("*") if path.is_file()}
    assert found == {
        "__init__.py",
        # plumbing
        "caching.py",
        "course.py",
        "devices.py",
        "files.py",
        "plots.py",
        # below all lessons, and the earlier lessons
        "playhouse.py",
        "data.py",
        "bigram.py",
        "training.py",
        # what the worker runs
        "exercises/__init__.py",
        "exercises/cells.py",
        "exercises/compare.py",
        "grading/__init__.py",
        "grading/isolation.py",
        "grading/worker.py",
    }
    # The packages' own __init__.py would import the judge.
    assert (library / "exercises" / "__init__.py").read_text() == ""
    assert page_of_module("single_head").name == "03_single_head"
    assert "__init__" not in {page.module for page in read_course()}


def test_its_environment_is_scrubbed(monkeypatch):
    monkeypatch.setenv("CHARGPT_SECRET", "goose")
    looks = (
        "def look():\n    import os, sys\n"
        "    return [sorted(os.environ), sys.argv, os.getcwd(), os.listdir('.')]"
    )
    with WorkerPool("single_head", 1) as workers:
        workers[0].start("look", looks)
        names, arguments, folder, inside = workers[0]([]).value
    assert not {"CHARGPT_SECRET", "PYTHONPATH", "USER", "CHARGPT_DATA"} & set(names)
    assert arguments == ["-c"] and inside == [] and "chargpt-" in folder


def test_a_worker_that_ended_or_was_late_stays_so(monkeypatch):
    linux = sys.platform.startswith("linux")
    if linux:  # where processor time is known, it alone is enough
        monkeypatch.setattr(worker_module, "wall_seconds", lambda seconds: 3600)
    with WorkerPool("single_head", 2) as workers:
        workers[0].start("f", "def f():\n    import os\n    os._exit(0)")
        assert workers[0]([]).value == "dead" and workers[0]([]).value == "dead"
        workers[1].start("f", IGNORES_INTERRUPTS, seconds=0.5)
        assert workers[1]([]).status == "late"
        assert workers[1]([]).status == "error"
        if linux:  # it takes no time from the others
            wait_for(lambda: process_state(workers[1].pid) in ("Z", "gone"))


def process_state(pid):
    """The letter that Linux gives to the state of a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    except OSError:
        return "gone"


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="other systems do not say who has sent a message"
)
def test_a_worker_is_known_by_its_process():
    burns = (
        "def f():\n    import time\n"
        "    while time.process_time() < 1.5:\n        pass\n    return time.process_time()"
    )
    with WorkerPool("single_head", 2) as workers:
        for worker in workers:
            worker.start("f", burns)
        assert workers[0].pid != workers[1].pid
        before = _process_cpu_seconds(workers[1].pid)
        value = workers[0]([]).value
        assert value - 0.1 < _process_cpu_seconds(workers[0].pid) < value + 1
        assert _process_cpu_seconds(workers[1].pid) < before + 0.5
    assert _process_cpu_seconds(2**30) is None


def test_a_cell_has_time_to_import_and_no_more():
    slow = (
        "import time\nend = time.thread_time() + 0.8\nwhile time.thread_time() < end:\n    pass\n"
        + DOUBLE
    )
    with WorkerPool("single_head", 2) as workers:
        workers[0].start("double", slow, seconds=0.4)
        assert workers[0]([4]).value == 8
        workers[1].start("double", slow, seconds=0.2)
        outcome = workers[1]([4])
        assert outcome.status == "unusable" and "0.6 s" in outcome.detail


def test_a_pool_leaves_nothing_behind():
    with WorkerPool("single_head", 1) as workers:
        workers[0].start("f", DOUBLE.replace("double", "f"))
        worker = workers[0]
    assert worker([1]).status == "error"
    pool = WorkerPool("single_head", 1)
    pool.close()
    assert not pool.pool_dir.exists() and pool.process.returncode is not None


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
        b'{"status": "value"}\n',
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
def test_a_worker_that_lies_is_an_error(line):
    grader_end, worker_end = socket.socketpair()

    def lie():
        worker_end.makefile("r").readline()
        worker_end.sendall(b'{"files": true}\n')
        worker_end.sendall(b'"defined"\n')
        worker_end.makefile("r").readline()
        worker_end.sendall(line)
        worker_end.close()

    threading.Thread(target=lie).start()
    worker = Worker(grader_end)
    assert worker.start("f", "x") == {"files": True}
    outcome = worker([1])
    assert outcome.status in ("error", "value") and "\n" not in outcome.detail
    assert (
        outcome.status == "error"
        or type(outcome.value).__module__ == "chargpt_lib.exercises.compare"
    )


def test_details_are_short_and_plain():
    grader_end, worker_end = socket.socketpair()
    worker = Worker(grader_end)
    worker.is_defined = True
    worker_end.sendall((json.dumps(["error", "X", "a\nb" * 10_000]) + "\n").encode())
    detail = worker([1]).detail
    assert len(detail) == 400 and "\n" not in detail
