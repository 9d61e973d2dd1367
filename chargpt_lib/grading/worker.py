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

from chargpt_lib.course import course_path, import_order, read_course
from chargpt_lib.exercises.compare import Outcome, call, decode, define, encode, wall_clock
from chargpt_lib.files import library_dir
from chargpt_lib.grading.isolation import end_with_parent, lock, secrets_home, unshare

DEFINING = 3  # times the seconds of a call for its cell, which may import something large


def work(reader, writer, promises):
    """Serves one answer: says what is locked, takes the answer's text, then one call a line."""

    def say(value):
        writer.write(json.dumps(value) + "\n")
        writer.flush()

    say(promises)
    request = json.loads(reader.readline())
    seconds = DEFINING * request["seconds"]
    answer = call(lambda: define(request["source"], request["name"]), [], seconds, file="the cell")
    say("defined")
    failed = Outcome("unusable", detail=f"run alone, its cell fails: {answer.detail}")
    for line in reader:
        outcome = failed
        if answer.status == "value":
            outcome = call(answer.value, decode(json.loads(line)), request["seconds"])
        try:
            say([outcome.status, encode(outcome.value), outcome.detail])
        except Exception as error:
            say(
                [
                    "error",
                    type(error).__name__,
                    f"what it returns cannot be written down: {type(error).__name__}",
                ]
            )


def serve(home, hidden, fds, uid):
    """The process that the grader starts: loads torch, splits itself into rooms, and waits for them."""
    import torch

    end_with_parent()
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    home, hidden, apart = Path(home).resolve(), Path(hidden), unshare()
    if (
        apart and os.fork()
    ):  # the first child is the new list's process number 1; all others end with it
        os.closerange(3, max(fds) + 1)
        os.wait()
        os._exit(0)
    end_with_parent()
    for number, fd in enumerate(fds):
        if os.fork() == 0:
            for other in fds[:number] + fds[number + 1 :]:
                os.close(other)
            stream = socket.socket(fileno=fd)
            reader, writer = (
                stream.makefile("r", encoding="utf-8"),
                stream.makefile("w", encoding="utf-8"),
            )
            work(reader, writer, lock(home / f"room{number}", home, hidden, uid + number, apart))
            os._exit(0)
    for fd in fds:
        os.close(fd)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            os._exit(0)


OPENING = 300  # seconds on the wall for loading torch
VISIT = 240  # and for one answer with all its calls
LINE = 2**25  # no answer needs more than 32 MB to say what it has to say


def processor_time(pid):
    """The seconds of processor time that a process has had, with all its threads; None where nobody tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def ask_for_senders(stream):
    """Asks Linux to write the number of the sending process on what arrives."""
    if hasattr(socket, "SO_PASSCRED"):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def receive(stream):
    """What has arrived -> (bytes, none of them where the other side is closed; the number of the sending process)."""
    if not hasattr(socket, "SCM_CREDENTIALS"):
        return stream.recv(2**16), None
    data, notes, *_ = stream.recvmsg(
        2**16, socket.CMSG_SPACE(12)
    )  # no room for anything but three numbers
    for level, kind, note in notes:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return data, struct.unpack("iii", note)[0]
    return data, None


class Line:
    """The grader's end of the line to a room."""

    def __init__(self, stream):
        self.stream, self.read = stream, b""
        self.pid = None  # of the process in the room
        self.end = float("inf")  # of all talk, on the clock
        self.late = False

    def ask(self, message, seconds, wall):
        """One line there (none for None), one line back; None where nothing sensible, or nothing in time, comes back.

        seconds: of the room's processor time; wall: by the clock.
        """
        self.late, pieces = False, [self.read]
        end, had = min(time.monotonic() + wall, self.end), processor_time(self.pid)
        try:
            self.stream.settimeout(wall)
            self.stream.sendall(b"" if message is None else (json.dumps(message) + "\n").encode())
            while b"\n" not in pieces[-1] and sum(map(len, pieces)) < LINE:
                left = end - time.monotonic()
                if had is not None:
                    left = min(left, had + seconds - (processor_time(self.pid) or 0))
                if left <= 0:
                    raise TimeoutError
                self.stream.settimeout(
                    max(left, 0.01)
                )  # one thread cannot have had so much any earlier
                with suppress(TimeoutError):
                    data, sender = receive(self.stream)
                    self.pid = (
                        self.pid or sender
                    )  # of the first line, which comes before the answer is let in
                    pieces.append(data or b"\n")
            line, _, self.read = b"".join(pieces).partition(b"\n")
            return json.loads(line)
        except TimeoutError:
            self.late = True
            self.cut()
        except (OSError, ValueError, RecursionError):
            pass

    def cut(self):
        """Ends the talk, and the process in the room, which would take its time from the others."""
        self.stream.close()
        if self.pid:
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)


class Room(Line):
    """One answer in its room: room(args) -> Outcome."""

    seconds, defined = 5.0, False

    def enter(self, name, source, seconds=5.0):
        """Sends the answer in -> {what: could it be locked?}, None where the room does not open."""
        self.seconds = seconds
        self.promises = self.ask(
            {"name": name, "source": source, "seconds": seconds}, OPENING, OPENING
        )
        self.end = time.monotonic() + VISIT
        return self.promises

    def __call__(self, args):
        self.late, said = False, None
        if not self.defined:
            self.defined = True
            self.ask(None, DEFINING * self.seconds + 3, wall_clock(DEFINING * self.seconds))
        if not self.late:
            said = self.ask(encode(args), self.seconds + 3, wall_clock(self.seconds))
        if self.late:
            return Outcome(
                "late", detail=f"it takes longer than {self.seconds:g} s, and nothing stops it"
            )
        try:
            status, value, detail = said
            value, detail = (
                decode(value),
                " ".join(str(detail).split())[:300].encode("utf-8", "replace").decode(),
            )
            if status in ("value", "blank", "error", "late", "changed", "unusable"):
                return Outcome(status, value, detail)
        except Exception:  # whatever it is that came out, it is no outcome
            pass
        return Outcome(
            "error",
            "dead",
            "its process ended, or said too much: exit, too much memory, too much output?",
        )


# What an answer may import besides the modules of earlier lessons: plumbing, and what the worker itself runs.
PLUMBING = ("course", "devices", "files", "plots")
WORKER_FILES = ("exercises/compare", "grading/isolation", "grading/worker")


def copy_library(lesson, home):
    """Copies what an answer may import into home/chargpt_lib: modules of earlier lessons, without keys and answers."""
    pages = import_order(
        [page for page in read_course() if page.module and page.layer != "appendix"]
    )
    modules = [page.module for page in pages]
    earlier = modules[: modules.index(lesson)]
    for name in ("__init__", *PLUMBING, *earlier, *WORKER_FILES):
        copy = home / "chargpt_lib" / f"{name}.py"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library_dir() / f"{name}.py", copy)
    (home / "chargpt_lib" / "assets").mkdir()
    shutil.copy(course_path(), home / "chargpt_lib" / "assets")
    # The packages' own __init__.py would import the judge, which answers must not see.
    for package in ("exercises", "grading"):
        (home / "chargpt_lib" / package / "__init__.py").touch()


class Sandbox:
    """Rooms for the answers to exercises of one lesson: with Sandbox("single_head", 5) as rooms."""

    def __init__(self, lesson, rooms):
        if not hasattr(os, "fork"):
            raise OSError("Windows cannot lock answers in: grade inside WSL, Windows' own Linux")
        self.home = Path(tempfile.mkdtemp(prefix="chargpt-")).resolve()
        self.home.chmod(0o711)
        copy_library(lesson, self.home)
        pairs = [socket.socketpair() for _ in range(rooms)]
        for ours, _ in pairs:
            ask_for_senders(ours)
        fds, torch_home = (
            [theirs.fileno() for _, theirs in pairs],
            Path(find_spec("torch").origin).parents[1],
        )
        uid = 100_000 + 1000 * secrets.randbelow(10**6)  # nobody has it
        call = f"serve({str(self.home)!r}, {str(secrets_home())!r}, {fds}, {uid})"
        code = (
            f"import sys; sys.path[:0] = [{str(self.home)!r}, {str(torch_home)!r}]; "
            f"from chargpt_lib.sandbox import serve; {call}"
        )
        environment = {
            "PATH": os.defpath,
            "HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
            "LANG": "C.UTF-8",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", code],
            pass_fds=fds,
            env=environment,
            cwd=self.home,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _, theirs in pairs:
            theirs.close()
        self.rooms = [Room(ours) for ours, _ in pairs]

    def __enter__(self):
        return self.rooms

    def __exit__(self, *error):
        for room in self.rooms:
            room.stream.close()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with suppress(RecursionError):
            shutil.rmtree(self.home, ignore_errors=True)
