"""Do the lessons' claims about the models that they train hold for every seed and processor? Eight runs, recorded.

    python -m tests.benchmarks.robustness [PAGE ...]     about an hour and a half on two cores; goes on where it was interrupted
                                                         -> data/results/robustness.json

Each run executes the pages with a seed of its own in the place of 1337, in one of two settings: with the widest instructions
that the processor has, and with ATEN_CPU_CAPABILITY=default, which stands for another processor. A claim is an `assert` of an
inequality with a number on its right. It is not asserted here, but its left side is written down. What counts is the worst
value of all runs, and its distance from the number, compared with the spread of the runs.
"""

import ast
import hashlib
import json
import math
import operator
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import nbformat
import torch

from build import HERE, is_exported, make_notebook, read_lessons, run_notebook
from chargpt_lib.files import cache_dir, read_json, write_json
from tests.benchmarks.machine import AS_ON_ANOTHER, processor_name

OUT = HERE.root / "data" / "results" / "robustness.json"
PAGES = (
    "start_here",
    "02_training_loop",
    "03_single_head",
    "04_multi_head",
    "05_blocks",
    "06_full_gpt",
    "09_checkpoints",
    "10_recipe",
    "11_training_in_earnest",
    "12_data_on_disk",
    "13_many_devices",
    "15_scaling_laws",
    "16_modern_gpt",
    "17_gpt2",
)
SEEDS = (1337, 1, 2, 3)
SETTINGS = {  # a thread each, because two runs are on their way at a time
    "one thread": {"OMP_NUM_THREADS": "1"},
    "one thread, default": AS_ON_ANOTHER,
}
SIGNS = {ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<="}
HOLDS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
FIRST_CELL = """
import chargpt_lib.recipe, chargpt_lib.training
for function in (chargpt_lib.training.fit, chargpt_lib.recipe.TrainConfig.__init__):
    function.__defaults__ = tuple({seed} if value == 1337 else value for value in function.__defaults__)
claimed = {{}}
"""
LAST_CELL = """
import json, pathlib
pathlib.Path({path!r}).write_text(json.dumps(claimed))
"""


# ---------------------------------------------------------------- claims, read from a page


@dataclass(frozen=True)
class Claim:
    """expression SIGN bound, asserted in a cell of a page."""

    page: str
    cell: str
    expression: str
    sign: str
    bound: float

    @property
    def text(self):
        return f"{self.expression} {self.sign} {self.bound:g}"


def number(node):
    """The value of a number literal, with its sign; None for anything else."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def is_ordering(node):
    return isinstance(node, ast.Compare) and any(type(operator) in SIGNS for operator in node.ops)


def asserted(node):
    """What a condition asserts, one by one: the parts of its `and` and `or`."""
    if not isinstance(node, ast.BoolOp):
        return [node]
    return [part for value in node.values for part in asserted(value)]


def orderings(statement):
    """The comparisons by <, <=, > or >= that an `assert` consists of; those inside all(...) and any(...), too."""
    for part in asserted(statement.test):
        if is_ordering(part):
            yield part
        elif isinstance(part, ast.Call) and ast.unparse(part.func) in ("all", "any"):
            yield from filter(is_ordering, ast.walk(part))


def assertions(cell):
    tree = ast.parse(without_magics(cell.source))
    return [statement for statement in ast.walk(tree) if isinstance(statement, ast.Assert)]


def without_magics(source):
    return re.sub(r"^( *)[%!].*", r"\1pass", source, flags=re.M)


def asserting_cells(lesson):
    """The code cells of a page in which a reader meets assertions."""
    return [
        cell
        for cell in lesson.cells
        if cell.cell_type == "code" and not is_exported(cell) and "exercise" not in cell.metadata
    ]


def claim(node, lesson, cell):
    """The claim in a comparison. ValueError where it is not `expression < number`."""
    bound = number(node.comparators[0])
    if len(node.ops) != 1 or bound is None:
        raise ValueError(
            f"{lesson.source}: `{ast.unparse(node)}` is not one expression, a sign and a number"
        )
    return Claim(lesson.name, cell.id, ast.unparse(node.left), SIGNS[type(node.ops[0])], bound)


def claims(lesson):
    """The claims of a page. ValueError for an ordering that is no claim."""
    found = []
    for cell in asserting_cells(lesson):
        for statement in assertions(cell):
            found += [claim(node, lesson, cell) for node in orderings(statement)]
    return found


# ---------------------------------------------------------------- one run of a page


class WritesDown(ast.NodeTransformer):
    """Puts into the place of each assertion of an ordering in a cell a line that writes its left side down."""

    def __init__(self, cell):
        self.cell = cell

    def visit_Assert(self, statement):
        lines = []
        for node in orderings(statement):
            left = ast.unparse(node.left)
            lines += ast.parse(
                f"claimed.setdefault({self.cell + ' ' + left!r}, []).append(float({left}))"
            ).body
        return lines or statement


def trial(lesson, seed, path):
    """The solved notebook of a page with another seed, which writes {"cell expression": [values]} to the path."""
    notebook = make_notebook(HERE, lesson, solved=True, digests={})
    asserting = {
        cell.id
        for cell in asserting_cells(lesson)
        if any(map(any, map(orderings, assertions(cell))))
    }
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if cell.id in asserting:
                cell.source = ast.unparse(WritesDown(cell.id).visit(ast.parse(cell.source)))
            cell.source = re.sub(r"\b1337\b", str(seed), cell.source)
    notebook.cells.insert(2, nbformat.v4.new_code_cell(FIRST_CELL.format(seed=seed)))
    notebook.cells.append(nbformat.v4.new_code_cell(LAST_CELL.format(path=str(path))))
    return notebook


def digest(lesson, seed):
    return hashlib.sha256(json.dumps([lesson.text, seed]).encode()).hexdigest()[:16]


def folder(seed, setting):
    """What a run keeps: trained models, so that it can go on, and the values of its claims."""
    path = cache_dir() / "robustness" / f"{seed} {setting}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def values_path(lesson, seed, setting):
    """Where the values of a page's claims lie, as it stands now, of one run."""
    return folder(seed, setting) / f"{lesson.name}-{digest(lesson, seed)}.json"


def run_pages(names, seed, setting):
    """One run after the other of these pages, in a process of its own, which has the setting's environment."""
    lessons = [lesson for lesson in read_lessons(HERE) if lesson.name in names]
    paths = [
        values_path(lesson, seed, setting) for lesson in lessons
    ]  # below today's cache, which the pages do not use
    os.environ["CHARGPT_CACHE"] = str(folder(seed, setting))
    for lesson, values in zip(lessons, paths):
        if not values.exists():
            part = values.with_suffix(".part")
            run_notebook(
                trial(lesson, seed, part),
                f"{lesson.name}, {seed}, {setting}",
                HERE.root / "notebooks",
                HERE.root,
            )
            part.rename(values)


def start(names, seed, setting):
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.robustness",
        "--run",
        str(seed),
        setting,
        *names,
    ]
    subprocess.run(command, cwd=HERE.root, env={**os.environ, **SETTINGS[setting]}, check=True)


# ---------------------------------------------------------------- all runs


def worst(values, sign):
    return min(values) if sign in (">", ">=") else max(values)


def rows(names):
    """A row for each claim: its worst value in all runs, the values, the bound."""
    found = []
    for lesson in read_lessons(HERE):
        if lesson.name not in names:
            continue
        runs = [
            read_json(values_path(lesson, seed, setting)) for setting in SETTINGS for seed in SEEDS
        ]
        for claim in claims(lesson):
            values = [worst(run[f"{claim.cell} {claim.expression}"], claim.sign) for run in runs]
            found.append(
                {
                    "page": claim.page,
                    "cell": claim.cell,
                    "claim": claim.text,
                    "sign": claim.sign,
                    "bound": claim.bound,
                    "worst": worst(values, claim.sign),
                    "values": [float(f"{value:.6g}") for value in values],
                }
            )
    return found


def margin(row):
    """How far from the bound the worst value is, in spreads of the runs: inf where all are equal, negative where it fails."""
    distance = abs(row["worst"] - row["bound"])
    if not HOLDS[row["sign"]](row["worst"], row["bound"]):
        distance = -distance
    spread = max(row["values"]) - min(row["values"])
    return distance / spread if spread else math.copysign(math.inf, distance)


def main():
    if sys.argv[1:2] == ["--run"]:
        return run_pages(sys.argv[4:], int(sys.argv[2]), sys.argv[3])
    names = sys.argv[1:] or PAGES
    runs = [(seed, setting) for seed in SEEDS for setting in SETTINGS]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(lambda run: start(names, *run), runs))
    other_pages = [row for row in read_json(OUT).get("claims", []) if row["page"] not in names]
    found = sorted(other_pages + rows(names), key=lambda row: PAGES.index(row["page"]))
    write_json(
        OUT,
        {
            "runs": [f"seed {seed}, {setting}" for setting in SETTINGS for seed in SEEDS],
            "machine": {"processor": processor_name(), "torch": torch.__version__},
            "claims": found,
        },
    )
    for row in sorted(found, key=margin):
        print(
            f"{margin(row):8.1f} spreads  {row['page']:24} {row['claim']}: worst {row['worst']:.4g}"
        )


if __name__ == "__main__":
    main()
