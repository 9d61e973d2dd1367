"""Run as `python -m tests.benchmarks.NAME` in the root; they use the build, which lies in notebooks/tools/."""

import sys
from pathlib import Path

TOOLS = str(Path(__file__).resolve().parents[2] / "notebooks" / "tools")
if TOOLS not in sys.path:
    sys.path.insert(0, TOOLS)
