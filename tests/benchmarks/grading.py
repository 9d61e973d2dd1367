"""How long does a class take? Sixty submissions of lesson 03, graded one after the other.

    python -m tests.benchmarks.grading        prints a table and writes data/results/grading.json

A third of the class has everything right (in three ways of writing), a third makes two mistakes each, a sixth hands in
blank notebooks, and a sixth cheats or breaks things, endless loops among it. Answers of the first three kinds take next
to no time themselves, so what their submissions take is what grading costs.
"""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import nbformat

from chargpt_lib.files import atomic_write_text
from chargpt_lib.grading.batch import grade_batch
from tests.benchmarks.machine import measured_on
from tests.hostile.answers import CHEATS
from tests.mistakes import RIGHT, WRONG, as_cell, single_head  # noqa: F401

OUT = Path(__file__).parents[2] / "data" / "results" / "grading.json"
NAMES = list(dict.fromkeys(answer.exercise for answer in RIGHT))
BREAKS = [
    "endless_when_called",
    "endless_and_stubborn",
    "sleeps",
    "eats_memory",
    "forks",
    "floods_the_output",
    "exits_hard",
    "reads_the_key",
    "returns_a_flood",
    "speaks_for_the_worker",
]


def pick(answers, name, n):
    found = [answer for answer in answers if answer.exercise == name]
    return as_cell(found[n % len(found)])


def the_class():
    """[(kind, {exercise: text of its cell})]"""
    for n in range(20):
        yield "right", {name: pick(RIGHT, name, n) for name in NAMES}
    for n in range(20):
        yield (
            "two mistakes",
            {
                name: pick(WRONG if i in (n % 5, (n + 2) % 5) else RIGHT, name, n)
                for i, name in enumerate(NAMES)
            },
        )
    for n in range(10):
        yield "blank", {name: f"def {name}(*args):\n    raise NotAttempted" for name in NAMES}
    for name in BREAKS:
        yield (
            "hostile",
            {**{name: pick(RIGHT, name, 0) for name in NAMES}, "window_mask": CHEATS[name]},
        )


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        kinds = {}
        for number, (kind, answers) in enumerate(the_class()):
            path = folder / "class" / f"{number:02}.ipynb"
            path.parent.mkdir(exist_ok=True)
            cells = [
                nbformat.v4.new_code_cell(text, metadata={"exercise": name})
                for name, text in answers.items()
            ]
            nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
            kinds[path.as_posix()] = kind
        began = time.perf_counter()
        batch = grade_batch([folder / "class"], folder / "marks", "single_head", seed=1, jobs=1)
        alone = time.perf_counter() - began
    deserved = {"right": 100.0, "two mistakes": 60.0, "blank": 0.0, "hostile": 80.0}
    rows = {}
    for name, record in batch["submissions"].items():
        rows.setdefault(kinds[name], []).append(record["seconds"])
        assert record["ran"] and record["score"] == deserved[kinds[name]], record
    report = {
        "what": "seconds to grade a submission of lesson 03 (five exercises), one after the other",
        **measured_on("cpu"),
        "cores": os.cpu_count(),
        "isolation": record["isolation"],
        "submissions": len(batch["submissions"]),
        "minutes": round(alone / 60, 2),
        "seconds": {
            kind: {
                "submissions": len(seconds),
                "median": round(statistics.median(seconds), 2),
                "most": round(max(seconds), 2),
            }
            for kind, seconds in rows.items()
        },
    }
    for kind, row in report["seconds"].items():
        print(
            f"{kind:14}{row['submissions']:>4} submissions   median {row['median']:6.2f} s   most {row['most']:6.2f} s"
        )
    print(f"{report['submissions']} submissions in {alone / 60:.1f} minutes")
    atomic_write_text(OUT, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
