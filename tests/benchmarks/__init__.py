"""Run as `python -m tests.benchmarks.NAME` in the root; they use the build, which lies in notebooks/."""

import sys
from pathlib import Path

NOTEBOOKS = str(Path(__file__).resolve().parents[2] / "notebooks")
if NOTEBOOKS not in sys.path:
    sys.path.insert(0, NOTEBOOKS)
