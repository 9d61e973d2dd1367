"""The setup cell on simulated hosts: Kaggle, Colab, a laptop; with a wheel, with a network, with neither."""

import json
import os
import re
import resource
import shutil
import subprocess
import tomllib
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest
import torch
from packaging.requirements import Requirement

import build
import release
from chargpt_lib.devices import print_environment

ROOT = build.HERE.root
PACKAGES = Path(torch.__file__).parents[1]
KAGGLE = {
    "KAGGLE_KERNEL_RUN_TYPE": "Interactive",
    "COLAB_RELEASE_TAG": "release-colab",
}  # Kaggle has both
COLAB = {"COLAB_RELEASE_TAG": "release-colab"}
SHELL = """
import json, sys, time
began = time.perf_counter()
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

shell, said = InteractiveShell.instance(), {"ok": []}
shell.display_pub = CapturingDisplayPublisher(parent=shell)
for source in json.load(open(sys.argv[1], encoding="utf-8")):
    said["ok"].append(shell.run_cell(source, store_history=True).success)
    if any("image/png" in output["data"] for output in shell.display_pub.outputs):
        said["first picture"] = time.perf_counter() - began
        break
said["library"] = getattr(sys.modules.get("chargpt_lib"), "__file__", None)
json.dump(said, open(sys.argv[2], "w", encoding="utf-8"))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return release.build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


class Host:
    """A Python that has all that the lessons import, but not chargpt; and a folder where the notebook lies."""

    def __init__(self, home):
        self.home, self.work, self.input = home, home / "work" / "here", home / "input"
        self.work.mkdir(parents=True)
        self.input.mkdir()
        venv.create(home / "python", with_pip=False, symlinks=True)
        [self.packages] = (home / "python").glob("lib/python*/site-packages")
        for path in PACKAGES.iterdir():
            if not re.match("_?chargpt|__pycache__|__editable__", path.name):
                (self.packages / path.name).symlink_to(path)
        self.python = home / "python" / "bin" / "python"

    def run(self, *sources, folder=None, **environment):
        """Runs cells -> what became of them, and what was printed."""
        (self.home / "cells.json").write_text(json.dumps(sources), encoding="utf-8")
        (self.home / "shell.py").write_text(SHELL, encoding="utf-8")
        kept = {name: os.environ[name] for name in ("PATH", "CHARGPT_DATA") if name in os.environ}
        usual = {
            "HOME": str(self.home),
            "MPLBACKEND": "Agg",
            "OMP_NUM_THREADS": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INDEX": "1",
            "no_proxy": "127.0.0.1",
            "CHARGPT_CACHE": str(self.home / "cache"),
            "PIP_RETRIES": "0",
        }
        command = [
            self.python,
            self.home / "shell.py",
            self.home / "cells.json",
            self.home / "said.json",
        ]
        done = subprocess.run(
            command,
            cwd=folder or self.work,
            env={**kept, **usual, **environment},
            capture_output=True,
            text=True,
            timeout=1800,
        )
        assert done.returncode == 0, done.stderr
        return {**json.loads((self.home / "said.json").read_text()), "printed": done.stdout}

    def installed(self):
        return {path.name for path in self.packages.iterdir()} - {"__pycache__"}


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def setup(host, address=None):
    """The setup cell, as published at an address; Kaggle's folder of data sets is the host's."""
    course = host.home / "published"
    course.mkdir(exist_ok=True)
    (course / "notebooks").mkdir(exist_ok=True)
    shutil.copytree(
        ROOT / "notebooks" / "source", course / "notebooks" / "source", dirs_exist_ok=True
    )
    urls = f'[project.urls]\nRepository = "{address}"\n' if address else ""
    (course / "pyproject.toml").write_text(f'[project]\nname = "chargpt"\n{urls}')
    source = build.setup_cell(build.Project(course)).source
    assert "/kaggle/input" in source
    return source.replace("/kaggle/input", str(host.input))


@pytest.mark.parametrize("marks, name", [(KAGGLE, "Kaggle"), (COLAB, "Colab")])
def test_a_wheel_without_a_network(marks, name, host, wheel):
    folder = host.input / "datasets" / "someone" / "my wheels" if name == "Kaggle" else host.work
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(wheel, folder)
    (folder / "chargpt-0.0.9-py3-none-any.whl").write_bytes(b"the first try, broken off")
    os.utime(folder / "chargpt-0.0.9-py3-none-any.whl", (0, 0))
    (folder / wheel.name.replace("any", "any (1)")).write_bytes(
        b"what a browser makes of a second one"
    )
    before, cell = host.installed(), setup(host, "http://127.0.0.1:9/owner/name")
    said = host.run(cell, cell, **marks)
    assert said["ok"] == [True, True] and Path(said["library"]).is_relative_to(host.packages), said
    *_, first, second = said[
        "printed"
    ].splitlines()  # before them, IPython's note about updated packages
    assert first == second and re.fullmatch(
        rf"{name}: Python \S+, torch \S+, chargpt \S+; device .*, precision \w+", first
    )
    new = host.installed() - before
    assert {item.split("-")[0] for item in new} == {
        "chargpt_lib",
        "chargpt",
    } and before <= host.installed()


@pytest.mark.parametrize("marks", [KAGGLE, COLAB], ids=["Kaggle", "Colab"])
def test_the_published_course(marks, host, site):
    """From GitHub's zip of a branch: one folder, owner and name in the address."""
    archive = host.home / "main.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in [
            ROOT / "pyproject.toml",
            ROOT / "README.md",
            ROOT / "LICENSE",
            *(ROOT / "chargpt_lib").rglob("*.*"),
            *(ROOT / "data").glob("*.txt"),
            ROOT / "data" / "results" / "ladder.json",
            ROOT / "notebooks" / "source" / "course.toml",
        ]:
            if "__pycache__" not in path.parts:
                file.write(path, "name-main/" + path.relative_to(ROOT).as_posix())
    site.pages = {"/owner/name/archive/main.zip": archive.read_bytes()}
    cell = setup(host, f"{site.address}/owner/name")
    said = host.run(cell, cell, **marks, PIP_NO_BUILD_ISOLATION="0")
    assert said["ok"] == [True, True] and Path(said["library"]).is_relative_to(host.packages), said
    assert site.asked == ["/owner/name/archive/main.zip"], "asked once, and for nothing else"


@pytest.mark.parametrize(
    "marks, address, beside",
    [
        (COLAB, None, False),
        (KAGGLE, None, False),
        (COLAB, "http://127.0.0.1:9/owner/name", False),
        ({}, "http://127.0.0.1:9/owner/name", False),
        ({}, None, True),
    ],
)
def test_where_nothing_helps_it_says_what_to_do(marks, address, beside, host, wheel):
    if beside:  # on somebody's own computer nothing is installed unasked
        shutil.copy(wheel, host.work)
    before = host.installed()
    said = host.run(setup(host, address), **marks)
    assert said["ok"] == [False] and said["library"] is None and host.installed() == before
    assert all(
        word in said["printed"]
        for word in ("ImportError", "make wheel", "make publish-links REPO=owner/name")
    )


@pytest.mark.parametrize("folder", ["notebooks", "notebooks/appendix", "notebooks/solutions"])
def test_in_a_checkout_nothing_is_installed(folder, host):
    before, cell = host.installed(), setup(host)
    said = host.run(cell, cell, folder=ROOT / folder, CHARGPT_DEVICE="cpu", **COLAB)
    assert said["ok"] == [True, True] and said["library"] == str(
        ROOT / "chargpt_lib" / "__init__.py"
    )
    assert (
        host.installed() == before
        and "device cpu (CHARGPT_DEVICE says so), precision fp32" in said["printed"]
    )


@pytest.mark.parametrize(
    "major, minor, said",
    [
        (7, 5, "device cuda (a card), precision fp32 (fp16 in chargpt train)"),
        (9, 0, "device cuda (a card), precision fp32 (bf16 in chargpt train)"),
        (
            6,
            0,
            "device cpu (a card has compute capability 6.0; PyTorch is built for 7.5 or more), precision fp32",
        ),
    ],
)
def test_it_says_what_the_lessons_compute_with(major, minor, said, monkeypatch, capsys):
    monkeypatch.delenv("CHARGPT_DEVICE", raising=False)
    for name, answer in (
        ("is_available", True),
        ("get_device_name", "a card"),
        ("get_device_capability", (major, minor)),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda device=None, answer=answer: answer)
    print_environment()
    assert capsys.readouterr().out.rstrip().endswith(said)


def test_from_a_badge_to_the_first_picture_in_half_a_minute(host, wheel):
    """A fresh kernel, torch there, the wheel built: the setup cell, then lesson 00 up to its first picture."""
    shutil.copy(wheel, host.work)
    lesson = nbformat.read(ROOT / "notebooks" / "00_data.ipynb", as_version=4)
    sources = [cell.source for cell in lesson.cells if cell.cell_type == "code"]
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = host.run(setup(host), *sources[1:], **COLAB)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all(said["ok"]) and said["first picture"]
    assert ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime < 30


@pytest.mark.parametrize(
    "pins", sorted((ROOT / "tests" / "hosts").glob("*.txt")), ids=lambda path: path.stem
)
def test_what_a_host_has_is_good_enough(pins):
    """Nothing that we ask for contradicts what is there: pip has no reason to change it."""
    text = pins.read_text(encoding="utf-8")
    have = {
        **dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.M)),
        "python": re.search(r"Python ([\d.]+)", text)[1],
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *sum(project["optional-dependencies"].values(), []),
        f"python{project['requires-python']}",
    ]
    asked = [requirement for requirement in map(Requirement, wanted) if requirement.name in have]
    assert {"torch", "numpy", "matplotlib", "python"} <= {requirement.name for requirement in asked}
    assert all(requirement.specifier.contains(have[requirement.name]) for requirement in asked)


def test_the_wheel_is_small_and_has_what_a_lesson_needs(wheel):
    assert wheel.stat().st_size <= 2_000_000
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    modules = {
        f"chargpt_lib/{path.relative_to(ROOT / 'chargpt_lib').as_posix()}"
        for path in (ROOT / "chargpt_lib").rglob("*.py")
    }
    assert (
        modules <= names
        and {
            "chargpt_lib/assets/playhouse.txt",
            "chargpt_lib/assets/results/ladder.json",
            "chargpt_lib/assets/course.toml",
        }
        <= names
    )
    models = {
        f"chargpt_lib/assets/models/{path.parent.name}/{path.name}"
        for path in ROOT.glob("data/models/playhouse/*")
    }
    assert models <= names and any(name.endswith("/model.safetensors") for name in models)
    assert not any(re.search("notebooks|tests|solutions", name) for name in names)
