"""How a learner grades a notebook of hers with pytest alone: blank it fails, solved it passes."""

import os
import re
import subprocess
import sys

import build

ROOT = build.HERE.root


def strict(notebook):
    """pytest's summary of a strict run."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-cell-timeout=600",
        "-q",
        "-p",
        "no:cacheprovider",
        str(notebook),
    ]
    environment = {
        **os.environ,
        "CHARGPT_STRICT": "1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return run.returncode, run.stdout


def test_a_blank_notebook_fails_at_each_check_and_only_there():
    code, said = strict(ROOT / "notebooks" / "01_bigram.ipynb")
    assert code == 1 and re.search(r"^5 failed", said.splitlines()[-1]), said[-500:]
    assert said.count("○") >= 5


def test_the_solution_passes():
    code, said = strict(ROOT / "notebooks" / "solutions" / "01_bigram.ipynb")
    assert code == 0, said[-3000:]
