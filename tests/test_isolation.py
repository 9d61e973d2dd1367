"""Lesson B: what a locked process can still do; each layer by itself, since one could hide that another is broken."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chargpt_lib.grading.isolation import around, landlock_version, library_dir, secrets_home

ROOT = Path(__file__).resolve().parents[1]
linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="Linux has these, other systems do not"
)
landlocked = pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")
root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root has something to give up"
)

TRIAL = """
import contextlib, ctypes, json, os, shutil, signal, socket, subprocess, sys, torch
from pathlib import Path
import chargpt_lib.grading.isolation as lock_module
from chargpt_lib.grading.isolation import *
home, hidden, decoy, without = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
if "guard" in without:
    lock_module.guard = lambda *a: None
if "landlock" in without:
    lock_module.landlock_version = lambda: 0
libc, parent = ctypes.CDLL(None), os.getppid()
apart = unshare() if "namespaces" not in without else False
if apart and os.fork():
    os.wait()
    os._exit(0)
lock_module.seccomp = (lambda: False) if "seccomp" in without else lock_module.seccomp
report = {"said": lock_module.lock(home / "room", home, hidden, 61_000, apart)}
tries = {
    "read a key": lambda: (hidden / "chargpt_lib" / "checks.py").read_text(),
    "read by fd": lambda: os.read(os.open(hidden / "chargpt_lib" / "checks.py", os.O_RDONLY), 9),
    "read with torch": lambda: torch.from_file(str(hidden / "chargpt_lib" / "checks.py"), size=9, dtype=torch.uint8),
    "read a decoy": lambda: (decoy / "note.txt").read_text(),
    "read passwords": lambda: Path("/etc/passwd").read_text(),
    "write a decoy": lambda: (decoy / "note.txt").write_text("goose"),
    "delete a decoy": lambda: (decoy / "note.txt").unlink(),
    "rename a decoy": lambda: (decoy / "note.txt").rename(decoy / "goose.txt"),
    "add to a decoy": lambda: (decoy / "new.txt").write_text("goose"),
    "connect": lambda: socket.create_connection(("127.0.0.1", int(sys.argv[5])), timeout=1),
    "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    "signal the parent": lambda: os.kill(parent, 0),
    "be root again": lambda: os.setuid(0) or (os.geteuid() == 0 or 1 / 0),
    "take memory": lambda: len(bytearray(2**31)),
    "write a large file": lambda: Path("large").write_bytes(bytes(2**25)),
    "write at home": lambda: Path("note.txt").write_text("O damp goose!"),
    "read at home": lambda: Path("note.txt").read_text(),
    "import a module": lambda: __import__("fractions"),
    "import torch's": lambda: __import__("torch.fft"),
    "compute": lambda: (torch.randn(50, 50) @ torch.randn(50, 50)).softmax(-1).sum().item(),
}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN) if "guard" in without else None
for name, act in tries.items():
    try:
        report[name] = act() is not False
    except (Exception, SystemExit) as error:
        report[name] = False
print(json.dumps(report), flush=True)
"""
ALLOWED = {"write at home", "read at home", "import a module", "import torch's", "compute"}


@pytest.fixture
def attempt(tmp_path, site):
    """attempt(without) -> what a locked process managed, one layer switched off."""

    def run(without, *before):
        home, decoy = tmp_path / "home", tmp_path / "decoy"
        for folder in (home, decoy):
            folder.mkdir()
            folder.chmod(0o777)
        (decoy / "note.txt").write_text("note")
        for folder in tmp_path.parents:
            if os.geteuid() == 0 and "pytest" in folder.name:
                folder.chmod(0o755)
        tmp_path.chmod(0o755)
        command = [
            *before,
            sys.executable,
            "-c",
            TRIAL,
            home,
            ROOT,
            decoy,
            without,
            site.address.rsplit(":", 1)[1],
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.stdout, done.stderr
        assert (
            (decoy / "note.txt").read_text() == "note"
            and len(list(decoy.iterdir())) == 1
            or "landlock" in without
        )
        return json.loads(done.stdout.splitlines()[-1])

    return run


def managed(report):
    return {name for name, done in report.items() if done is True}


@landlocked
def test_locked(attempt):
    report = attempt("nothing")
    assert managed(report) == ALLOWED and report["said"]["files"] and report["said"]["user"]


@landlocked
def test_the_kernel_alone_keeps_everything(attempt):
    assert managed(attempt("guard")) == ALLOWED


@landlocked
def test_landlock_and_namespaces_alone_keep_files_network_and_signals(attempt):
    report = attempt("guard, seccomp")
    assert (
        managed(report) - {"start a program"} == ALLOWED
    )  # a program it starts is as locked as itself


@landlocked
def test_landlock_and_seccomp_alone_keep_them_too(attempt):
    report = attempt("guard, namespaces")
    assert managed(report) == ALLOWED and report["said"]["network"]


@landlocked
def test_what_could_not_be_had_is_said(attempt):
    report = attempt("seccomp, namespaces")
    assert (
        managed(report) == ALLOWED
        and not report["said"]["processes"]
        and not report["said"]["network"]
    )


@linux
def test_the_guard_alone_stops_what_python_does(attempt):
    """Without Landlock root keeps no right to read, so that a Python in root's home imports nothing more."""
    report = attempt("landlock, seccomp, namespaces")
    assert (
        managed(report) - {"import a module", "import torch's", "read with torch", "read a decoy"}
        <= ALLOWED
    )
    assert {"write at home", "compute"} <= managed(report) and not any(
        report["said"][what] for what in ("files", "network")
    )


@landlocked
@root
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv starts the unprivileged grader")
def test_an_unprivileged_grader_locks_as_well(attempt):
    nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
    ]
    report = attempt(
        "namespaces", *nobody
    )  # in a new user's namespace it could not read a Python in root's home
    assert managed(report) == ALLOWED and report["said"]["user"]


def test_around_leaves_out_what_is_hidden(tmp_path):
    for name in ("a/b/secret/deep", "a/b/other", "a/c", "d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "b" / "file.py").write_text("")
    shown = around(tmp_path, tmp_path / "a" / "b" / "secret")
    assert [path.relative_to(tmp_path).as_posix() for path in shown] == [
        "a/b/file.py",
        "a/b/other",
        "a/c",
        "d",
    ]
    assert (
        around(tmp_path / "d", tmp_path / "a") == [tmp_path / "d"]
        and around(tmp_path, tmp_path) == []
    )


def test_the_checkout_is_hidden_whole():
    assert library_dir() == ROOT / "chargpt_lib" and secrets_home() == ROOT
