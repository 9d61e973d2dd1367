# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # B · Sandbox: code goes in, plain values come out
#
# You will build: rooms for strangers' answers, behind the lock.
# You need [B · Answers](B_answers.ipynb) and [B · Lock](B_lock.ipynb). The page runs in about ten seconds.
#
# The grader starts one Python, which loads torch (that takes a second or two) and then splits itself, once for each exercise: `fork` copies a process in a millisecond. Each copy locks itself in, receives the text of one answer, and serves calls. What one answer breaks, the next one does not notice.

# %%
#| default_exp sandbox

# %%
#| export
import json
import os
import re
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

from chargpt_lib.answers import Outcome, call, decode, define, encode, wall_clock
from chargpt_lib.lock import end_with_parent, library_home, lock, secrets_home, unshare

# %% [markdown]
# ## In the room
#
# Room and grader talk over a socket that only those two hold, in lines of JSON. First the room says what it could lock; then it takes the text of the answer, and says when it has run it; then it takes the arguments of one call after the other.

# %%
#| export
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
        if answer.sort == "value":
            outcome = call(answer.value, decode(json.loads(line)), request["seconds"])
        try:
            say([outcome.sort, encode(outcome.value), outcome.detail])
        except Exception as error:
            say(["error", type(error).__name__, f"what it returns cannot be written down: {type(error).__name__}"])

# %%
#| export
def serve(home, hidden, fds, uid):
    """The process that the grader starts: loads torch, splits itself into rooms, and waits for them."""
    import torch

    end_with_parent()
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    home, hidden, apart = Path(home).resolve(), Path(hidden), unshare()
    if apart and os.fork():  # the first child is the new list's process number 1; all others end with it
        os.closerange(3, max(fds) + 1)
        os.wait()
        os._exit(0)
    end_with_parent()
    for number, fd in enumerate(fds):
        if os.fork() == 0:
            for other in fds[:number] + fds[number + 1:]:
                os.close(other)
            stream = socket.socket(fileno=fd)
            reader, writer = stream.makefile("r", encoding="utf-8"), stream.makefile("w", encoding="utf-8")
            work(reader, writer, lock(home / f"room{number}", home, hidden, uid + number, apart))
            os._exit(0)
    for fd in fds:
        os.close(fd)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            os._exit(0)

# %% [markdown]
# ## At the door
#
# The grader's side. A room is called like a function, and gives an `Outcome`, whatever happens in there.
#
# It is also the grader's clock that counts, and again it is not the one on the wall. A machine that grades has other things to do, sixty rooms for instance, and a room that waits for its turn is not to blame. Linux tells how much **processor time** any process has had. (Which process? The kernel itself writes the sender's number on each message of the socket, if it is asked to: a room cannot give a false one.) A room that has had too much is ended, and its answer is late. Where the system does not tell, and for an answer that sleeps, there are limits on the wall, ten times as large. The lock's own 120 seconds of processor time are the last resort, for a process that the grader has lost sight of. And until a room opens, no answer is in it: that may take minutes.

# %%
#| export
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
    data, notes, *_ = stream.recvmsg(2**16, socket.CMSG_SPACE(12))  # no room for anything but three numbers
    for level, kind, note in notes:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return data, struct.unpack("iii", note)[0]
    return data, None

# %%
#| export
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
                self.stream.settimeout(max(left, 0.01))  # one thread cannot have had so much any earlier
                with suppress(TimeoutError):
                    data, sender = receive(self.stream)
                    self.pid = self.pid or sender  # of the first line, which comes before the answer is let in
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

# %%
#| export
class Room(Line):
    """One answer in its room: room(args) -> Outcome."""

    seconds, defined = 5.0, False

    def enter(self, name, source, seconds=5.0):
        """Sends the answer in -> {what: could it be locked?}, None where the room does not open."""
        self.seconds = seconds
        self.promises = self.ask({"name": name, "source": source, "seconds": seconds}, OPENING, OPENING)
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
            return Outcome("late", detail=f"it takes longer than {self.seconds:g} s, and nothing stops it")
        try:
            sort, value, detail = said
            value, detail = decode(value), " ".join(str(detail).split())[:300].encode("utf-8", "replace").decode()
            if sort in ("value", "blank", "error", "late", "changed", "unusable"):
                return Outcome(sort, value, detail)
        except Exception:  # whatever it is that came out, it is no outcome
            pass
        return Outcome("error", "dead", "its process ended, or said too much: exit, too much memory, too much output?")

# %%
#| export
def lesson_names():
    """{module: the name of its lesson}, as in {"single_head": "03_single_head"}."""
    heads = {path.stem: path.read_text(encoding="utf-8").split("\n")[0] for path in library_home().glob("*.py")}
    return {module: found[1] for module, head in heads.items() if (found := re.search(r"source/(\w+)\.py", head))}


def copy_library(lesson, home):
    """What an answer may import: the library's modules of earlier lessons, without keys."""
    names, ground = lesson_names(), ("A_playhouse", "B_answers", "B_lock", "B_sandbox")
    earlier = [module for module, name in names.items() if name[0].isdigit() and name < names[lesson]]
    (home / "chargpt_lib").mkdir()
    for module in ("__init__", *earlier, *(module for module, name in names.items() if name in ground)):
        shutil.copy(library_home() / f"{module}.py", home / "chargpt_lib")

# %%
#| export
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
        fds, torch_home = [theirs.fileno() for _, theirs in pairs], Path(find_spec("torch").origin).parents[1]
        uid = 100_000 + 1000 * secrets.randbelow(10**6)  # nobody has it
        call = f"serve({str(self.home)!r}, {str(secrets_home())!r}, {fds}, {uid})"
        code = (f"import sys; sys.path[:0] = [{str(self.home)!r}, {str(torch_home)!r}]; "
                f"from chargpt_lib.sandbox import serve; {call}")
        environment = {"PATH": os.defpath, "HOME": str(self.home), "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"}
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", code], pass_fds=fds, env=environment, cwd=self.home, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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

# %% [markdown]
# Three answers to "double it": an honest one, one that ends its process, and one that reads a key from the disk.

# %%
import torch

ANSWERS = """def double(x):
    return 2 * x
""", """def double(x):
    import os
    os._exit(0)
""", f"""def double(x):
    open({str(library_home() / "keys" / "single_head.py")!r}).read()
    return 2 * x
"""

# %% tags=["nbval-ignore-output"]
outcomes = []
if not sys.platform.startswith("win"):
    with Sandbox("single_head", 3) as rooms:
        for room, answer in zip(rooms, ANSWERS):
            promises = room.enter("double", answer)
            outcomes.append(room([torch.tensor([1.0, 2.0])]))
            print(outcomes[-1].value, outcomes[-1].detail)
    print("locked:", promises)

# %%
if outcomes:
    assert [outcome.sort for outcome in outcomes] == ["value", "error", "error"]

# %% [markdown]
# What a room says about an answer is not believed: it is text, decoded into plain values, which the judge outside compares with the key. (What it says about its locks is believed, because it says that before the answer is let in.)
#
# ## What you have
#
# `Sandbox`, in `chargpt_lib/sandbox.py`. Next: [C · Examination](C_examination.ipynb).
