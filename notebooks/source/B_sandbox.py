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
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from chargpt_lib.answers import Outcome, call, decode, define, encode
from chargpt_lib.lock import end_with_parent, library_home, lock, secrets_home, unshare

# %% [markdown]
# ## In the room
#
# Room and grader talk over a socket that only those two hold, in lines of JSON. First the room says what it could lock; then it takes the text of the answer; then the arguments of one call after the other.

# %%
#| export
def work(reader, writer, promises):
    """Serves one answer: says what is locked, takes the answer's text, then one call a line."""

    def say(value):
        writer.write(json.dumps(value) + "\n")
        writer.flush()

    say(promises)
    request = json.loads(reader.readline())
    patience = 3 * request["seconds"]  # a cell may import something large
    answer = call(lambda: define(request["source"], request["name"]), [], patience, file="the cell")
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
# The grader's side. A room is called like a function, and gives an `Outcome`, whatever happens in there. It is also the grader's clock that counts: if a room does not answer in time, the line is cut.

# %%
#| export
LINE = 2**25  # no answer needs more than 32 MB to say what it has to say


class Room:
    """One answer in its room: room(args) -> Outcome."""

    def __init__(self, stream):
        self.stream, self.read = stream, b""

    def enter(self, name, source, seconds=5.0):
        """Sends the answer in -> {what: could it be locked?}, None where the room does not open."""
        self.seconds, self.patience = seconds, 3 * seconds
        self.promises = self.ask({"name": name, "source": source, "seconds": seconds}, seconds + 30)
        return self.promises

    def ask(self, message, seconds):
        """One line there, one line back; None where nothing sensible, or nothing in time, comes back."""
        self.late, end, pieces = False, time.monotonic() + seconds, [self.read]
        try:
            self.stream.settimeout(seconds)
            self.stream.sendall((json.dumps(message) + "\n").encode())
            while b"\n" not in pieces[-1] and sum(map(len, pieces)) < LINE:
                self.stream.settimeout(max(end - time.monotonic(), 0.001))
                pieces.append(self.stream.recv(2**16) or b"\n")  # nothing: the room is closed
            line, _, self.read = b"".join(pieces).partition(b"\n")
            return json.loads(line)
        except TimeoutError:
            self.late = True
            self.stream.close()
        except (OSError, ValueError, RecursionError):
            pass

    def __call__(self, args):
        said, self.patience = self.ask(encode(args), self.patience + self.seconds + 3), 0
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
