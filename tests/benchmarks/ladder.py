"""Measures the ladder: runs all lessons with an empty cache, on Playhouse and on Tiny Shakespeare.

    python -m tests.benchmarks.ladder [CORPUS...] [LESSON...]    about twenty minutes on two cores; writes
                 data/results/ladder.json and ladder.png, and prints the tables of README.md; with lessons, only their times

Nothing is configured here: the models and their training are those of the lessons, with their line `CORPUS = ...` changed.
"""

import copy
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import nbformat
import numpy
import torch

from build import HERE, make_notebook, read_lessons, run_notebook
from chargpt_lib.bigram import NGramModel
from chargpt_lib.course import read_course
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import pick_device
from chargpt_lib.files import write_json
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.training import MODEL_NAMES, evaluate, fit, plot_excess
from tests.benchmarks.machine import measured_on
from website import ladder_table

RESULTS = HERE.root / "data" / "results" / "ladder.json"
KEEP = """
import json, pathlib
pathlib.Path({path!r}).write_text(json.dumps({{"critic": verdict, "loss with half a block of past": overlapping}}))
"""


def run(notebook, label):
    start = time.perf_counter()
    run_notebook(notebook, label, HERE.root / "notebooks", HERE.root)
    return time.perf_counter() - start


LESSONS = read_lessons(HERE)


def run_lessons(corpus, cache, chosen):
    """Lessons with this corpus and a cache of its own: seconds for each, and until its first picture."""
    seconds = {}
    for lesson in chosen:
        notebook = make_notebook(HERE, lesson, solved=True, digests={})
        for cell in notebook.cells:
            cell.source = cell.source.replace('CORPUS = "playhouse"', f'CORPUS = "{corpus}"')
        draws = [
            cell.cell_type == "code"
            and re.search(r"^\s*(plt\.)?(show|display)\(", cell.source, re.M)
            for cell in notebook.cells
        ]
        start = copy.deepcopy(notebook)
        start.cells = start.cells[: 1 + next(number for number, found in enumerate(draws) if found)]
        if lesson.module == "gpt":
            notebook.cells.append(
                nbformat.v4.new_code_cell(KEEP.format(path=str(cache / "kept.json")))
            )
        seconds[lesson.name] = {
            "all": run(notebook, f"{corpus} {lesson.name}"),
            "first picture": run(start, "  first picture"),
        }
    return seconds


def tables(corpus):
    """What one reaches without a model: by the frequencies of the characters, and by longer tables."""
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    train_ids, val_ids = tokenizer.encode(corpus.train), tokenizer.encode(corpus.val)
    losses = {
        n: NGramModel(train_ids, n, tokenizer.vocab_size).nats(val_ids).mean().item()
        for n in range(1, 9)
    }
    return {"frequencies": {"loss": losses[1]}, "n-grams": losses}


def cpu_preset(corpus):
    """nanoGPT's CPU sizes under the lessons' own loop: at most 200 s on two cores."""
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    torch.manual_seed(1337)
    model, settings = (
        GPT(GPTConfig.cpu(tokenizer.vocab_size)),
        {"steps": 4000, "batch_size": 12, "lr": 3e-3},
    )
    start = time.perf_counter()
    fit(model, tokenizer.encode(corpus.train), **settings)
    seconds = time.perf_counter() - start
    return {
        "loss": evaluate(model, tokenizer.encode(corpus.val)),
        "seconds": seconds,
        "parameters": model.num_params(),
        **settings,
    }


def readme_tables(results):
    """The README's two tables: what each lesson builds and its minutes, and the ladder."""
    seconds = results["playhouse"]["lessons"]
    lines = []
    for page in read_course():
        link = f"[{page.name.removeprefix('appendix/')}](notebooks/{page.name}.ipynb)"
        minutes = f"{seconds[page.name]['all'] / 60:.1f}"
        lines.append(f"| {link} | {page.builds} | {minutes} |")
    return "\n".join(lines), ladder_table(results)


def main():
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    chosen = [lesson for lesson in LESSONS if lesson.name in sys.argv[1:]]
    corpora = [name for name in sys.argv[1:] if name not in [lesson.name for lesson in chosen]]
    for name in corpora or ("playhouse", "shakespeare"):
        corpus = load_corpus(name)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["CHARGPT_CACHE"] = folder
            seconds = run_lessons(name, Path(folder), chosen or LESSONS)
            del os.environ["CHARGPT_CACHE"]
            if chosen:
                results[name]["lessons"].update(seconds)
                write_json(RESULTS, results)
                continue
            own = json.loads((Path(folder) / "ladder.json").read_text())[name]
            kept = json.loads((Path(folder) / "kept.json").read_text())
        results[name] = {**tables(corpus), **own, "lessons": seconds, **kept}
        if name == "shakespeare":
            results[name]["cpu preset"] = cpu_preset(corpus)
        results[name]["measured with"] = {
            **measured_on(pick_device(), numpy, matplotlib),
            "repeats": 1,
        }
        RESULTS.parent.mkdir(exist_ok=True)
        write_json(RESULTS, results)
    rows = {rung: results["playhouse"][rung] for rung in MODEL_NAMES}
    picture = plot_excess({rung: row["excess"] for rung, row in rows.items()}, rows["GPT"]["floor"])
    picture.savefig(RESULTS.with_suffix(".png"), dpi=120)
    print(f"written: {RESULTS}\n", *readme_tables(results), sep="\n")


if __name__ == "__main__":
    main()
