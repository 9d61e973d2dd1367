# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # B · Lock: a process that gives up what it does not need
#
# You will build: a lock that a process turns on itself, from the inside, and cannot turn back.
# You need Python, and some curiosity about operating systems. The page runs in a few seconds.
#
# Whoever grades runs code that somebody else wrote, on the machine where the keys and the marks lie. Most of it is harmless. Some of it deletes a folder by accident, and some of it reads the key. So no answer ever runs in the process that judges it ([B · Sandbox](B_sandbox.ipynb)), and the process it runs in has given up everything but the right to compute.

# %%
#| default_exp lock

# %%
#| export
import ctypes
import os
import re
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

# %% [markdown]
# ## What there is to give up
#
# | what | Linux | macOS |
# |---|---|---|
# | files: left are its own folder, Python, and the modules of earlier lessons | Landlock (kernel 5.13 and newer) | the guard |
# | network | an empty network namespace, or Landlock (6.7) | the guard |
# | other processes | not seen, not signalled, all ended with their room | the guard |
# | memory, processor time, size and number of files | limits | limits, but not on memory |
# | user | an unprivileged one, if the grader is root | the grader's own: do not grade as root |
#
# The **guard** is Python's audit hook, below. Somebody who knows Python's insides can get around it. Nobody gets around Landlock or a limit from inside.
# Windows has none of these for a plain program. There the grader refuses to start; inside WSL, Windows' own Linux, it has all of them. (A learner's `check` needs no lock, and runs everywhere.)
#
# ## Landlock
#
# A process names the folders it will need, and the kernel forgets all others for it, for ever. There is no wrapper for it in Python, but it is only three system calls.

# %%
#| export
READ, WRITE = 0b1101, 0xFFFF  # execute, read a file, list a folder; or everything
LIST = 0b1000


def landlock_version():
    """How new the kernel's Landlock is; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1), 0)


def landlock(rights):
    """Gives up all files but those below these paths, {path: READ, WRITE or LIST}, and TCP and foreign signals."""
    libc, version = ctypes.CDLL(None, use_errno=True), landlock_version()
    files = (1 << (13, 14, 15, 15, 16)[min(version, 5) - 1]) - 1  # what this version can handle
    attributes = (ctypes.c_uint64 * 3)(files, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = ctypes.c_size_t(24 if version >= 6 else 16 if version >= 4 else 8)
    rules = libc.syscall(444, attributes, size, 0)
    for path, right in rights.items():
        if os.path.exists(path):
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
            right &= files if os.path.isdir(path) else files & 0b1100_0000_0000_0111
            rule = bytes(ctypes.c_uint64(right)) + bytes(ctypes.c_int32(folder))
            libc.syscall(445, rules, 1, rule, 0)
            os.close(folder)
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges
    if libc.syscall(446, rules, 0):
        raise OSError(ctypes.get_errno(), "landlock refused")
    os.close(rules)

# %% [markdown]
# Which folders? Python's own, and torch's. If the library is installed among them, it must be left out, and Landlock knows no "all but": so its neighbours are named one by one.

# %%
#| export
def around(root, hidden):
    """The folders and files below root that neither contain the hidden folder nor lie in it."""
    if root == hidden or root not in hidden.parents:
        return [root] if root != hidden else []
    return [path for child in sorted(root.iterdir()) for path in around(child, hidden)]


def library_home():
    """The folder of the library."""
    return Path(find_spec("chargpt_lib").origin).resolve().parent


def secrets_home():
    """The folder that no answer may read: the checkout, or where the library is installed."""
    library = library_home()
    return library.parent if (library.parent / "pyproject.toml").exists() else library


def readable(home, hidden):
    """{path: rights}: Python, torch, and the copied modules in the folder home; nothing of the hidden folder."""
    roots = [sys.base_prefix, sys.prefix, Path(sys.modules["torch"].__file__).parents[1], "/usr", "/lib", "/lib64"]
    roots = {Path(root).resolve() for root in roots if Path(root).is_dir()}
    shown = {path: READ for root in roots for path in around(root, hidden)}
    return {**dict.fromkeys(roots, LIST), **shown, home: READ, Path("/dev/urandom"): READ, Path(os.devnull): WRITE}

# %%
course = Path(tempfile.mkdtemp())
for name in ("python/torch", "python/chargpt_lib/keys", "other"):
    (course / name).mkdir(parents=True)
shown = around(course, hidden=course / "python" / "chargpt_lib")
print([path.relative_to(course).as_posix() for path in shown])

# %% [markdown]
# ## Root, network, limits
#
# Root may do everything, so a grader that runs as root gives that up: it becomes a user whom nobody knows, and keeps only the right to read files (of those that Landlock leaves), since Python itself may lie in root's home. Namespaces give a process an empty network and a list of processes that holds only itself. Limits stop what grows.

# %%
#| export
def unshare():
    """An empty network, and an own list of processes from the next fork on -> were they to be had?"""
    if not sys.platform.startswith("linux"):
        return False
    new_user = 0 if os.geteuid() == 0 else 0x10000000
    return ctypes.CDLL(None).unshare(new_user | 0x40000000 | 0x20000000) == 0


def leave_root(uid):
    """Root becomes a nameless user, who may read what is left -> did it?"""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return False
    libc = ctypes.CDLL(None)
    libc.prctl(8, 1, 0, 0, 0)  # keep the capabilities over the change of user
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    header, read = (ctypes.c_uint32 * 2)(0x20080522, 0), 1 << 2
    return libc.capset(header, (ctypes.c_uint32 * 6)(read, read, 0, 0, 0, 0)) == 0


def limit(memory=2**30, seconds=120, processes=64):
    """Sets limits on memory beyond what is used now, processor time, and the number and size of files."""
    import resource

    statm = Path("/proc/self/statm")
    used = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 2**33
    limits = {"AS": used + memory, "CPU": seconds, "FSIZE": 2**24, "NOFILE": 128, "CORE": 0}
    for name, value in {**limits, **({"NPROC": processes} if processes else {})}.items():
        with suppress(ValueError, OSError):  # macOS has no limit on memory
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))

# %% [markdown]
# ## The guard
#
# Python tells audit hooks of everything that reaches out of it, before it happens; once set, a hook cannot be taken away (PEP 578).

# %%
#| export
REFUSED = re.compile(r"(subprocess|socket|ctypes|pty|winreg|_winapi|mmap|signal)\.|"
                     r"os\.(system|exec|posix_spawn|spawn|fork|kill|startfile|putenv)")
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink",
           "os.truncate", "os.utime", "os.chflags", "os.setxattr")


def guard(own, shown):
    """Refuses, from now on, whatever an answer has no business with: PermissionError. own: its folder."""
    own, shown = str(own), tuple(str(path) for path in (*shown, own))

    def inside(path, folders):
        path = os.path.realpath(os.fsdecode(path))
        return any(path == folder or path.startswith(folder + os.sep) for folder in folders)

    def hook(event, args):
        refused = REFUSED.match(event)
        if event == "open" and not isinstance(args[0], int):
            writes = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            refused = not inside(args[0], (own,) if writes else shown)
        elif event in ("os.listdir", "os.scandir"):
            refused = isinstance(args[0], (str, bytes, os.PathLike)) and not inside(args[0], shown)
        elif event in CHANGES:
            paths = [path for path in args[:2] if isinstance(path, (str, bytes, os.PathLike))]
            refused = not all(inside(path, (own,)) for path in paths)
        if refused:
            raise PermissionError(f"an answer may not do that ({event})")

    sys.addaudithook(hook)

# %% [markdown]
# ## All of it
#
# The order matters: a process that has given up files cannot look up which ones it needs. What could be had is returned, so that nobody has to believe the table above.

# %%
#| export
def lock(number, home, hidden, apart):
    """Gives up everything that an answer does not need -> {what: was it to be had?}."""
    own = home / f"room{number}"
    own.mkdir()
    uid, rights = 61_000 + os.getpid() % 1000 * 4 + number % 4, readable(home, hidden)
    nobody = os.geteuid() == 0
    if nobody:
        os.chown(own, uid, uid)
    os.chdir(own)
    os.environ.update(HOME=str(own), TMPDIR=str(own))
    tempfile.tempdir = str(own)
    limit(processes=64 if nobody or apart else 0)
    kernel = landlock_version()
    unprivileged = leave_root(uid) if nobody and kernel else False
    if kernel:
        landlock({**rights, own: WRITE})
    guard(own, [path for path, right in rights.items() if right == READ])
    return {"files": kernel > 0, "network": apart or kernel >= 4, "processes": apart,
            "user": unprivileged or not nobody}

# %% [markdown]
# ## Try the door
#
# A lock cannot be tried on oneself: this notebook would never get out. So it splits off a copy, which locks itself in and tries what an answer might try.

# %%
TRIAL = """
import json, os, socket, sys, torch
from pathlib import Path
from chargpt_lib.lock import lock
home, key = Path(sys.argv[1]), Path(sys.argv[2])
result = lock(0, home, key.parents[1], apart=False)
for name, act in {"read a key": key.read_text, "connect": socket.socket, "start a program": lambda: os.system("true"),
                  "write at home": lambda: Path("note.txt").write_text("O damp goose!")}.items():
    try:
        result[name] = bool(act())
    except OSError:
        result[name] = False
print(json.dumps(result))
"""

# %% tags=["nbval-ignore-output"]
import json
import subprocess

import chargpt_lib

library = Path(chargpt_lib.__file__).parent
command = [sys.executable, "-c", TRIAL, tempfile.mkdtemp(), library / "checks.py"]
python = subprocess.run(command, cwd=library.parent, capture_output=True, text=True)
print(python.stdout or python.stderr)

# %%
if not sys.platform.startswith("win"):
    trial = json.loads(python.stdout)
    assert trial["write at home"] and not (trial["read a key"] or trial["connect"] or trial["start a program"])

# %% [markdown]
# It may write in its room, and read no key.
#
# ## What you have
#
# `lock`, in `chargpt_lib/lock.py`. Next: [B · Sandbox](B_sandbox.ipynb), which puts answers behind it.
