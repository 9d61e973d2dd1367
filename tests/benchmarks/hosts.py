"""Do the lessons run on a host's Python? Recorded, not part of the tests: it takes half an hour, and another Python.

    python -m tests.benchmarks.hosts PYTHON [LIST] [LESSON ...]      -> data/results/hosts.json

PYTHON: an interpreter that has what the host has (torch, numpy, matplotlib, ipykernel, pooch, tqdm, safetensors), and no
chargpt. LIST: tests/hosts/colab-2026-08.txt or kaggle-2026-08.txt, then pip is asked first whether the wheel, with all that
it requires, could be installed without a change to what is on the list. Then the lessons are run: in a folder that is no
checkout, from a wheel that lies beside them, with the marks of that host (without a list Colab's), and each with a fresh
kernel.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from build import HERE
from chargpt_lib.course import read_course
from chargpt_lib.files import read_json, write_json
from release import build_wheel

OUT = HERE.root / "data" / "results" / "hosts.json"
LESSONS = [page.name for page in read_course()]
KAGGLE = {"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "COLAB_RELEASE_TAG": "simulated"}
COLAB = {"COLAB_RELEASE_TAG": "simulated"}
AS_ON_COLAB = (
    "type(get_ipython()).__module__ = 'google.colab._shell'"  # where libraries look for Colab
)
VERSIONS = """
import json, platform, torch
from importlib.metadata import version
names = "torch", "numpy", "matplotlib", "ipython", "ipykernel"
print(json.dumps({"python": platform.python_version(), **{name: version(name) for name in names},
                  "threads": torch.get_num_threads()}))
"""


def changes(python, wheel, pins):
    """What an installation of the wheel with all it requires would install, and what of that is on the list."""
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--dry-run",
        "--report",
        "-",
        "--constraint",
        pins,
        wheel,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    new = {
        item["metadata"]["name"].lower(): item["metadata"]["version"]
        for item in json.loads(done.stdout)["install"]
    }
    listed = re.findall(r"^([\w-]+)==", Path(pins).read_text(encoding="utf-8"), re.M)
    return {
        "would be new": new,
        "would change what is on the list": sorted(new.keys() & set(listed)),
    }


def run_lesson(name, folder, first):
    """-> seconds, and the error where there is one. first: what is run before the setup cell."""
    notebook = nbformat.read(HERE.notebook(name), as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    client = NotebookClient(
        notebook, timeout=1800, kernel_name="host", resources={"metadata": {"path": str(folder)}}
    )
    began = time.perf_counter()
    try:
        client.execute()
        return {"seconds": round(time.perf_counter() - began, 1)}
    except CellExecutionError as error:
        return {
            "seconds": round(time.perf_counter() - began, 1),
            "error": f"{error.ename}: {error.evalue}"[:300],
        }


def main():
    python, *rest = sys.argv[1:]
    pins = [Path(word) for word in rest if word.endswith(".txt")]
    versions = json.loads(
        subprocess.run([python, "-c", VERSIONS], check=True, capture_output=True, text=True).stdout
    )
    name = pins[0].stem if pins else f"python {versions['python']}"
    on_kaggle = name.startswith("kaggle")
    old = read_json(OUT).get(name, {})
    record = {
        "versions": versions,
        "lessons": old["lessons"] if old.get("versions") == versions else {},
    }
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "content")
        folder.mkdir()
        wheel, forget = (
            build_wheel(HERE.root, folder),
            [python, "-m", "pip", "uninstall", "--quiet", "--yes", "chargpt"],
        )
        subprocess.run(forget)
        if pins:
            record |= {"list": pins[0].name, **changes(python, wheel, pins[0])}
        spec = Path(home, "jupyter", "kernels", "host", "kernel.json")
        spec.parent.mkdir(parents=True)
        argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec.write_text(json.dumps({"argv": argv, "display_name": "host", "language": "python"}))
        os.environ |= {
            "JUPYTER_PATH": str(Path(home, "jupyter")),
            **(KAGGLE if on_kaggle else COLAB),
            "CHARGPT_CACHE": str(Path(home, "cache")),
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        os.environ.pop("PYTHONPATH", None)
        for lesson in [word for word in rest if not word.endswith(".txt")] or LESSONS:
            record["lessons"][lesson] = run_lesson(lesson, folder, "" if on_kaggle else AS_ON_COLAB)
            print(f"{lesson:28}{record['lessons'][lesson]}", flush=True)
        subprocess.run(forget)
    write_json(OUT, {**read_json(OUT), name: record})


if __name__ == "__main__":
    main()
