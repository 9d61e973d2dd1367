"""Workers: isolated processes, each of which serves one answer. Code goes in, plain values come out.

The grader makes a WorkerPool. It starts one Python, which loads torch (a second or two) and forks once for each answer
(a millisecond). Each copy isolates itself, receives the text of one answer, and serves calls: what one answer breaks,
the next one does not notice.

Grader and worker talk over a socket pair in lines of JSON:

    worker -> grader   what isolates it, as `isolate` returns it; no answer has run before that
    grader -> worker   {"name", "source", "seconds"} of the answer
    worker -> grader   "defined", after the cell has run
    grader -> worker   the encoded arguments of a call
    worker -> grader   [status, encoded value, detail]; and so on, a line for each call

What a worker says about an answer is not believed: it is text, decoded into plain values, which the judge compares.
What it says about its isolation is believed, because it says that before it receives the answer.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from chargpt_lib.course import import_order, read_course
from chargpt_lib.exercises.compare import (
    DEFINE_FACTOR,
    STATUSES,
    Outcome,
    call,
    decode,
    define_answer,
    encode,
    one_line,
    wall_seconds,
)
from chargpt_lib.files import library_dir
from chargpt_lib.grading.isolation import (
    default_hidden_dir,
    die_with_parent,
    isolate,
    unshare_namespaces,
)

STARTUP_SECONDS = 300  # by the wall clock, for loading torch
ANSWER_SECONDS = 240  # by the wall clock, for one answer with all its calls
EXTRA_SECONDS = 3  # a worker interrupts its own answer; the grader ends the worker so much later
MAX_REPLY_BYTES = 2**25
MAX_DETAIL_CHARACTERS = 400
RECEIVE_BYTES = 2**16


# ---------------------------------------------------------------- in the worker


def _serve_answer(reader, writer, isolation):
    """Serves one answer, in the isolated process: sends `isolation`, defines the answer, then calls it once a line."""

    def send(value):
        writer.write(json.dumps(value) + "\n")
        writer.flush()

    send(isolation)
    request = json.loads(reader.readline())
    defined = define_answer(request["source"], request["name"], request["seconds"])
    send("defined")
    for line in reader:
        if defined.status == "value":
            outcome = call(defined.value, decode(json.loads(line)), request["seconds"])
        else:
            outcome = defined
        try:
            send([outcome.status, encode(outcome.value), outcome.detail])
        except Exception as error:  # a list that contains itself, for one
            name = type(error).__name__
            send(["error", name, f"what it returns cannot be written as JSON: {name}"])


def serve_workers(pool_dir, hidden_dir, fds, uid):
    """The process that a WorkerPool starts: loads torch, forks a worker for each socket, and waits for them."""
    import torch

    die_with_parent()
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    pool_dir = Path(pool_dir).resolve()
    hidden_dir = Path(hidden_dir)
    namespaces = unshare_namespaces()
    # The first process forked into the new process namespace is its number 1, with which all others end. This one stays
    # outside, holds no socket, and only waits for it.
    if namespaces and os.fork() != 0:
        os.closerange(3, max(fds) + 1)
        os.wait()
        os._exit(0)
    die_with_parent()
    for number, fd in enumerate(fds):
        if os.fork() == 0:
            for other in fds:
                if other != fd:
                    os.close(other)
            stream = socket.socket(fileno=fd)
            reader = stream.makefile("r", encoding="utf-8")
            writer = stream.makefile("w", encoding="utf-8")
            scratch_dir = pool_dir / f"worker{number}"
            isolation = isolate(scratch_dir, pool_dir, hidden_dir, uid + number, namespaces)
            _serve_answer(reader, writer, isolation)
            os._exit(0)
    for fd in fds:
        os.close(fd)
    while True:
        try:
            os.wait()
        except ChildProcessError:  # none is left
            os._exit(0)


# ---------------------------------------------------------------- the grader's end


def _process_cpu_seconds(pid):
    """The processor time of a process with all its threads, in seconds; None where the system does not say."""
    try:
        # The second field is the program's name in brackets, which may itself contain brackets and spaces.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        user_ticks, system_ticks = int(fields[11]), int(fields[12])
    except (OSError, ValueError, IndexError):
        return None
    return (user_ticks + system_ticks) / os.sysconf("SC_CLK_TCK")


def _enable_sender_pids(stream):
    """Asks Linux to attach the sender's process id to what arrives; other systems have no such option."""
    if hasattr(socket, "SO_PASSCRED"):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def _receive(stream):
    """(bytes, the sender's process id): no bytes where the other side is closed, no id where the system has none.

    The kernel itself writes the id, so that a worker cannot give a false one.
    """
    if not hasattr(socket, "SCM_CREDENTIALS"):
        return stream.recv(RECEIVE_BYTES), None
    # Room for one struct ucred (pid, uid, gid) and for nothing else, such as descriptors that a worker might send.
    data, messages, *_ = stream.recvmsg(RECEIVE_BYTES, socket.CMSG_SPACE(12))
    for level, message_type, content in messages:
        if level == socket.SOL_SOCKET and message_type == socket.SCM_CREDENTIALS:
            pid, _uid, _gid = struct.unpack("iii", content)
            return data, pid
    return data, None


class _Connection:
    """The grader's end of the socket to a worker."""

    def __init__(self, stream):
        self.stream = stream
        self.unread = b""  # what came after the last line
        self.pid = None  # of the worker, where the system says it
        self.deadline = float("inf")  # of all requests, by the monotonic clock
        self.timed_out = False  # did the last request take too long?

    def request(self, message, cpu_limit, wall_limit):
        """Sends a message (none for None) and returns the reply, or None where no sensible one comes in time.

        cpu_limit: how many seconds of processor time the worker may take for it. They are what counts, because a machine
        that grades has other things to do, and a worker that waits for its turn is not to blame. wall_limit: seconds by
        the clock, for an answer that sleeps, and for systems that do not say how much processor time a process has had.
        """
        self.timed_out = False
        deadline = min(time.monotonic() + wall_limit, self.deadline)
        cpu_before = _process_cpu_seconds(self.pid)
        try:
            self.stream.settimeout(wall_limit)
            if message is not None:
                self.stream.sendall((json.dumps(message) + "\n").encode())
            line = self.read_line(deadline, cpu_before, cpu_limit)
            return json.loads(line)
        except TimeoutError:
            self.timed_out = True
            self.close_and_kill()
        except (OSError, ValueError, RecursionError):
            pass  # the worker has ended, or sent no JSON
        return None

    def read_line(self, deadline, cpu_before, cpu_limit):
        """Raises: TimeoutError at the deadline, or when the worker has taken so much processor time."""
        chunks = [self.unread]
        size = len(self.unread)
        while b"\n" not in chunks[-1] and size < MAX_REPLY_BYTES:
            seconds_left = deadline - time.monotonic()
            if cpu_before is not None:
                # None for a process that has just ended: then the socket closes, too.
                cpu_now = _process_cpu_seconds(self.pid) or 0
                seconds_left = min(seconds_left, cpu_before + cpu_limit - cpu_now)
            if seconds_left <= 0:
                raise TimeoutError
            # One thread cannot have had so much processor time any earlier; then the clocks are asked again.
            self.stream.settimeout(max(seconds_left, 0.01))
            with suppress(TimeoutError):
                data, sender_pid = _receive(self.stream)
                if self.pid is None:  # the first line comes before the answer is let in
                    self.pid = sender_pid
                if not data:  # closed: what has come is all that comes
                    data = b"\n"
                chunks.append(data)
                size += len(data)
        line, _, self.unread = b"".join(chunks).partition(b"\n")
        return line

    def close_and_kill(self):
        """Closes the socket and kills the worker, which would take its processor time from the others."""
        self.stream.close()
        if self.pid is not None:
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)


class Worker(_Connection):
    """One answer in its isolated process: `start` it, then worker(args) -> Outcome, whatever happens in there."""

    seconds = 5.0  # of processor time for one call
    is_defined = False  # has the worker said that the cell has run?

    def start(self, name, source, seconds=5.0):
        """Sends the answer's text, and returns what isolates the worker; None where the worker did not start."""
        self.seconds = seconds
        message = {"name": name, "source": source, "seconds": seconds}
        isolation = self.request(message, STARTUP_SECONDS, STARTUP_SECONDS)
        self.deadline = time.monotonic() + ANSWER_SECONDS
        return isolation

    def __call__(self, args):
        self.timed_out = False
        reply = None
        if not self.is_defined:
            self.is_defined = True
            define_seconds = DEFINE_FACTOR * self.seconds
            self.request(None, define_seconds + EXTRA_SECONDS, wall_seconds(define_seconds))
        if not self.timed_out:
            reply = self.request(
                encode(args), self.seconds + EXTRA_SECONDS, wall_seconds(self.seconds)
            )
        if self.timed_out:
            detail = (
                f"it takes longer than {self.seconds:g} s and could not be interrupted: "
                "is there an infinite loop?"
            )
            return Outcome("late", detail=detail)
        try:
            status, encoded_value, detail = reply
            outcome = Outcome(
                status, decode(encoded_value), one_line(detail, MAX_DETAIL_CHARACTERS)
            )
            if status in STATUSES:
                return outcome
        except Exception:  # whatever it is that came, it is no outcome
            pass
        detail = (
            "its process ended or sent too much data: did it call exit(), "
            "exceed the memory limit, or return a huge value?"
        )
        return Outcome("error", "dead", detail)


# ---------------------------------------------------------------- many workers

# What an answer may import besides the modules of earlier lessons: plumbing, and what the worker itself runs.
PLUMBING = ("caching", "course", "devices", "files", "plots")
WORKER_FILES = ("exercises/cells", "exercises/compare", "grading/isolation", "grading/worker")


def _copy_library(lesson, pool_dir):
    """Copies what an answer may import into pool_dir/chargpt_lib: the modules of earlier lessons, and no answers."""
    pages = []
    for page in import_order(read_course()):
        if page.module is not None and page.layer != "appendix":
            pages.append(page)
    modules = [page.module for page in pages]
    earlier = modules[: modules.index(lesson)]
    for name in ("__init__", *PLUMBING, *earlier, *WORKER_FILES):
        copy = pool_dir / "chargpt_lib" / f"{name}.py"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library_dir() / f"{name}.py", copy)
    # The packages' own __init__.py would import the judge, which answers must not see.
    for package in ("exercises", "grading"):
        (pool_dir / "chargpt_lib" / package / "__init__.py").touch()


def _start_process(pool_dir, fds):
    """Starts the Python that runs `serve_workers` with these sockets, in an environment without anything of ours."""
    torch_dir = Path(find_spec("torch").origin).parents[1]
    uid = 100_000 + 1000 * secrets.randbelow(10**6)  # for workers of root: numbers that no user has
    arguments = f"{str(pool_dir)!r}, {str(default_hidden_dir())!r}, {fds}, {uid}"
    # -I ignores environment, user packages and the current folder; so the path is set here.
    code = (
        f"import sys; sys.path[:0] = [{str(pool_dir)!r}, {str(torch_dir)!r}]; "
        f"from chargpt_lib.grading.worker import serve_workers; serve_workers({arguments})"
    )
    environment = {
        "PATH": os.defpath,
        "HOME": str(pool_dir),
        "OMP_NUM_THREADS": "1",
        "LANG": "C.UTF-8",
    }
    return subprocess.Popen(
        [sys.executable, "-I", "-c", code],
        pass_fds=fds,
        env=environment,
        cwd=pool_dir,
        start_new_session=True,  # so that the whole group can be killed
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


class WorkerPool:
    """Workers for answers to exercises of one lesson: with WorkerPool("single_head", 5) as workers.

    Raises: OSError on Windows, where nothing isolates a process.
    """

    def __init__(self, lesson, size):
        if not hasattr(os, "fork"):
            raise OSError("grading needs process isolation, which Windows lacks: run it in WSL")
        self.pool_dir = Path(tempfile.mkdtemp(prefix="chargpt-")).resolve()
        self.pool_dir.chmod(0o711)  # the workers' users may go through it, and not list it
        _copy_library(lesson, self.pool_dir)
        pairs = [socket.socketpair() for _ in range(size)]
        for grader_end, _ in pairs:
            _enable_sender_pids(grader_end)
        fds = [worker_end.fileno() for _, worker_end in pairs]
        self.process = _start_process(self.pool_dir, fds)
        for _, worker_end in pairs:
            worker_end.close()
        self.workers = [Worker(grader_end) for grader_end, _ in pairs]

    def __enter__(self):
        return self.workers

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Kills all workers and removes their folder."""
        for worker in self.workers:
            worker.stream.close()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        # An answer may have made folders so deep that rmtree, which recurses, gives up.
        with suppress(RecursionError):
            shutil.rmtree(self.pool_dir, ignore_errors=True)
