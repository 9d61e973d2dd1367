"""Do all notebooks pass as if on other machines? Every cell, in several settings, each with a cache of its own.

    make test-machines        an hour or more on two cores; goes on where it was interrupted
    python -m tests.benchmarks.machines [PYTHON]            -> data/results/machines.json

PyTorch computes with the widest instructions that a processor has, and with as many threads as there are cores. Both change
the order in which sums are added up, and so the last digits, and so every trained model. ATEN_CPU_CAPABILITY and
OMP_NUM_THREADS take that back, which is as good as another processor. PYTHON: the interpreter of another environment in
which the course is installed (`pip install -e '.[lab,dev]'`), a newer Python for instance; the second setting then runs there.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from build import HERE
from chargpt_lib.files import cache_dir, read_json, write_json
from tests.benchmarks.machine import AS_ON_ANOTHER, processor_name

OUT = HERE.root / "data" / "results" / "machines.json"
NOTEBOOKS = HERE.saved_notebooks()
SETTINGS = {
    "all threads": {},
    "avx2, one thread": {"ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"},
    "default, one thread": AS_ON_ANOTHER,
}
ASK = """
import json, platform, torch
print(json.dumps({"capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
                  "python": platform.python_version(), "torch": torch.__version__}))
"""


def asked(python, setting):
    """What PyTorch says of itself in a setting."""
    command = [python, "-c", ASK]
    return json.loads(
        subprocess.run(
            command, env={**os.environ, **setting}, check=True, capture_output=True, text=True
        ).stdout
    )


def run_notebook(path, python, setting, home):
    """One notebook under nbval -> {"cells", "failed": [the first line of each failure], "seconds", "digest"}."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    result_path = home / f"{HERE.name(path).replace('/', ' ')}.json"
    result = read_json(result_path)
    if result.get("digest") == digest:
        return result
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [
            python,
            "-m",
            "pytest",
            "-q",
            "--nbval",
            "--nbval-current-env",
            "--nbval-cell-timeout=3600",
            "--color=no",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            str(path),
        ]
        environment = {**os.environ, **setting, "CHARGPT_CACHE": str(home / "cache")}
        done = subprocess.run(
            command, cwd=HERE.root, env=environment, capture_output=True, text=True
        )
        if not report.exists():
            raise RuntimeError(
                f"pytest did not run {HERE.name(path)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [
        f"{case.get('name')}: {fault.get('message', '')[:200]}"
        for case in cases
        for fault in (*case.findall("failure"), *case.findall("error"))
    ]
    seconds = round(time.perf_counter() - start, 1)
    result = {"cells": len(cases), "failed": failed, "seconds": seconds, "digest": digest}
    write_json(result_path, result)
    print(
        f"{home.name:24} {HERE.name(path):46} {len(cases):4} cells, {len(failed)} failed, {seconds:6.1f} s",
        flush=True,
    )
    return result


def run_setting(name, python, setting):
    """All notebooks in one setting -> its record."""
    home = cache_dir() / "machines" / name
    home.mkdir(parents=True, exist_ok=True)
    at_once = (os.cpu_count() or 1) if "OMP_NUM_THREADS" in setting else 1
    with ThreadPoolExecutor(at_once) as pool:
        results = list(pool.map(lambda path: run_notebook(path, python, setting, home), NOTEBOOKS))
    return {
        "processor": processor_name(),
        **asked(python, setting),
        "cells": sum(result["cells"] for result in results),
        "failed": [fault for result in results for fault in result["failed"]],
        "minutes": round(sum(result["seconds"] for result in results) / at_once / 60, 1),
    }


def main():
    other = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    for name, setting in SETTINGS.items():
        python = other if name == "avx2, one thread" else sys.executable
        wanted, has = setting.get("ATEN_CPU_CAPABILITY"), asked(python, setting)["capability"]
        if wanted and wanted.lower() != has.lower():
            print(
                f"{name}: skipped, for this processor has no {wanted}; PyTorch computes with {has}"
            )
            continue
        record = run_setting(name, python, setting)
        write_json(OUT, {**read_json(OUT), name: record})
        print(
            f"{name}: {record['cells']} cells, {len(record['failed'])} failed, {record['minutes']} minutes",
            flush=True,
        )
        for fault in record["failed"]:
            print("   ", fault)
    sys.exit(any(record["failed"] for record in read_json(OUT).values()))


if __name__ == "__main__":
    main()
