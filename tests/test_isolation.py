"""What an isolated process can still do; each layer by itself, since one could hide that another is broken."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chargpt_lib.files import library_dir
from chargpt_lib.grading import isolation
from chargpt_lib.grading.isolation import _landlock_abi, _paths_except, default_hidden_dir

ROOT = Path(__file__).resolve().parents[1]
ANSWERS = "chargpt_lib/exercises/answers/single_head.py"  # the file that no answer may read
HEADERS = Path("/usr/include")
linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="Linux has these, other systems do not"
)
landlocked = pytest.mark.skipif(not _landlock_abi(), reason="this kernel has no Landlock")
root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root has something to give up"
)

# The trial tells on standard output what it managed. Its arguments: the pool's folder, the hidden folder, a decoy, the
# layers to switch off, the port of a web site, the answers' file.
TRIAL = """
import ctypes, json, os, signal, socket, subprocess, sys, torch
from pathlib import Path
from chargpt_lib.grading import isolation

pool_dir, hidden_dir, decoy = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
without, port, answers = sys.argv[4], int(sys.argv[5]), hidden_dir / sys.argv[6]
answers.read_text()  # before the isolation it can be read
libc, parent = ctypes.CDLL(None), os.getppid()
namespaces = False
if "namespaces" not in without:
    namespaces = isolation.unshare_namespaces()
if namespaces and os.fork():
    os.wait()
    os._exit(0)
if "audit hook" in without:
    isolation._install_audit_hook = lambda *args: None
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if "landlock" in without:
    isolation._landlock_abi = lambda: 0
if "seccomp" in without:
    isolation._apply_seccomp = lambda: False
report = {"isolation": isolation.isolate(pool_dir / "scratch", pool_dir, hidden_dir, 61_000, namespaces)}
tries = {
    "read the answers": lambda: answers.read_text(),
    "read by fd": lambda: os.read(os.open(answers, os.O_RDONLY), 9),
    "read with torch": lambda: torch.from_file(str(answers), size=9, dtype=torch.uint8),
    "read a decoy": lambda: (decoy / "note.txt").read_text(),
    "read passwords": lambda: Path("/etc/passwd").read_text(),
    "write a decoy": lambda: (decoy / "note.txt").write_text("goose"),
    "delete a decoy": lambda: (decoy / "note.txt").unlink(),
    "rename a decoy": lambda: (decoy / "note.txt").rename(decoy / "goose.txt"),
    "add to a decoy": lambda: (decoy / "new.txt").write_text("goose"),
    "connect": lambda: socket.create_connection(("127.0.0.1", port), timeout=1),
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
    """attempt(without) -> what an isolated process managed, some layers switched off."""

    def run(without, *before):
        pool_dir, decoy = tmp_path / "pool", tmp_path / "decoy"
        for folder in (pool_dir, decoy):
            folder.mkdir()
            folder.chmod(0o777)
        (decoy / "note.txt").write_text("note")
        for folder in tmp_path.parents:
            if os.geteuid() == 0 and "pytest" in folder.name:
                folder.chmod(0o755)
        tmp_path.chmod(0o755)
        port = site.address.rsplit(":", 1)[1]
        arguments = [pool_dir, ROOT, decoy, without, port, ANSWERS]
        done = subprocess.run(
            [*before, sys.executable, "-c", TRIAL, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.stdout, done.stderr
        if "landlock" not in without:
            assert (decoy / "note.txt").read_text() == "note"
            assert len(list(decoy.iterdir())) == 1
        return json.loads(done.stdout.splitlines()[-1])

    return run


def managed(report):
    return {name for name, done in report.items() if done is True}


@landlocked
def test_all_layers(attempt):
    report = attempt("nothing")
    assert managed(report) == ALLOWED
    assert report["isolation"]["files"] and report["isolation"]["user"]


@landlocked
def test_the_kernel_alone_stops_everything(attempt):
    assert managed(attempt("audit hook")) == ALLOWED


@landlocked
def test_landlock_and_namespaces_alone_stop_files_network_and_signals(attempt):
    report = attempt("audit hook, seccomp")
    # A program that it starts is as isolated as itself.
    assert managed(report) - {"start a program"} == ALLOWED


@landlocked
def test_landlock_and_seccomp_alone_stop_them_too(attempt):
    report = attempt("audit hook, namespaces")
    assert managed(report) == ALLOWED and report["isolation"]["network"]


@landlocked
def test_what_the_system_does_not_stop_is_reported(attempt):
    report = attempt("seccomp, namespaces")
    assert managed(report) == ALLOWED
    assert not report["isolation"]["processes"] and not report["isolation"]["network"]


@linux
def test_the_audit_hook_alone_stops_what_python_does(attempt):
    """Without Landlock root keeps no right to read, so that a Python in root's home imports nothing more."""
    report = attempt("landlock, seccomp, namespaces")
    only_c_or_permissions = {"import a module", "import torch's", "read with torch", "read a decoy"}
    assert managed(report) - only_c_or_permissions <= ALLOWED
    assert {"write at home", "compute"} <= managed(report)
    assert not any(report["isolation"][what] for what in ("files", "network"))


@landlocked
@root
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv starts the unprivileged grader")
def test_an_unprivileged_grader_isolates_as_well(attempt):
    unprivileged = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
    ]
    # In a user namespace of its own it could not read a Python in root's home.
    report = attempt("namespaces", *unprivileged)
    assert managed(report) == ALLOWED and report["isolation"]["user"]


def test_paths_leave_out_what_is_hidden(tmp_path):
    for name in ("a/b/secret/deep", "a/b/other", "a/c", "d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "b" / "file.py").write_text("")
    paths = _paths_except(tmp_path, tmp_path / "a" / "b" / "secret")
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert names == ["a/b/file.py", "a/b/other", "a/c", "d"]
    assert _paths_except(tmp_path / "d", tmp_path / "a") == [tmp_path / "d"]
    assert _paths_except(tmp_path, tmp_path) == []


def test_the_checkout_is_hidden_whole():
    assert library_dir() == ROOT / "chargpt_lib" and default_hidden_dir() == ROOT


# ---------------------------------------------------------------- the kernel's numbers


def value_of(expression, defines):
    """The value of a constant expression of C: whole numbers, | and <<, and names of other constants."""
    text = re.sub(r"\b(0x[0-9A-Fa-f]+|\d+)[UL]+\b", r"\1", expression)
    for name in re.findall(r"\b[A-Za-z_]\w*", text):
        if not re.fullmatch(r"0x[0-9A-Fa-f]+", name):
            text = re.sub(rf"\b{name}\b", f"({value_of(defines[name], defines)})", text)
    parsed = ast.parse(text, mode="eval")
    operations = (ast.Expression, ast.Constant, ast.BinOp, ast.BitOr, ast.LShift)
    assert all(isinstance(node, operations) for node in ast.walk(parsed)), expression
    return eval(compile(parsed, expression, "eval"))


def read_defines(*names):
    """{name: text} of all #define lines in these headers."""
    defines = {}
    for name in names:
        text = (HEADERS / name).read_text(encoding="utf-8")
        text = re.sub(r"/\*.*?(\*/|$)", "", text, flags=re.M)
        defines.update(re.findall(r"^\s*#define\s+(\w+)\s+(\S.*?)\s*$", text, flags=re.M))
    return defines


KERNEL_HEADERS = [
    f"linux/{name}.h"
    for name in (
        "landlock seccomp audit elf-em bpf_common filter prctl sched mount capability".split()
    )
]


@pytest.mark.skipif(
    not all((HEADERS / name).exists() for name in KERNEL_HEADERS),
    reason="the kernel's headers are not installed (on Debian: linux-libc-dev)",
)
def test_the_constants_are_the_kernels():
    defines = read_defines(*KERNEL_HEADERS)
    compared = []
    for name, value in vars(isolation).items():
        if isinstance(value, int) and name in defines:
            assert value == value_of(defines[name], defines), name
            compared.append(name)
    # Headers older than the newest rights of Landlock lack a few of them.
    assert len(compared) >= 40, compared


@pytest.mark.parametrize(
    "column, header",
    [(0, "x86_64-linux-gnu/asm/unistd_64.h"), (1, "asm-generic/unistd.h")],
    ids=["x86_64", "aarch64"],  # aarch64 has the generic numbers
)
def test_the_numbers_of_calls_are_the_kernels(column, header):
    if not (HEADERS / header).exists():
        pytest.skip(f"{header} is not installed")
    defines = read_defines(header)
    numbers = {name: both[column] for name, both in isolation.REFUSED_SYSCALLS.items()}
    numbers["clone"] = isolation.SYS_clone[column]
    numbers["clone3"] = isolation.SYS_clone3
    for name in ("create_ruleset", "add_rule", "restrict_self"):
        numbers[f"landlock_{name}"] = getattr(isolation, f"SYS_landlock_{name}")
    for name, number in numbers.items():
        if number is None:
            assert f"__NR_{name}" not in defines
        else:
            assert number == int(defines[f"__NR_{name}"]), name
