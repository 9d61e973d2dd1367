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
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import pick_device
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.training import RUNGS, evaluate, fit, plot_excess, write_json
from tests.benchmarks.machine import measured_on

RESULTS = HERE.root / "data" / "results" / "ladder.json"
KEEP = """
import json, pathlib
pathlib.Path({path!r}).write_text(json.dumps({{"critic": verdict, "loss with half a block of past": overlapping}}))
"""


def run(notebook, label):
    start = time.perf_counter()
    run_notebook(notebook, label, HERE.root / "notebooks", HERE.root)
    return time.perf_counter() - start


LESSONS = [
    lesson
    for lesson in read_lessons(HERE)
    if lesson.name[0].isdigit() or lesson.name == "start_here"
]


def run_lessons(corpus, cache, chosen):
    """Lessons with this corpus and a cache of its own: seconds for each, and until its first picture."""
    seconds = {}
    for lesson in chosen:
        notebook = make_notebook(HERE, lesson, solved=True, digest="")
        for cell in notebook.cells:
            cell.source = cell.source.replace('CORPUS = "playhouse"', f'CORPUS = "{corpus}"')
        draws = [
            cell.cell_type == "code" and re.search(r"^\s*(plt\.)?show\(", cell.source, re.M)
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
    built = {
        "start_here": "nothing yet: a minute of training, a play, a look inside, the ladder",
        "00_data": "alphabet, tokenizer, batches; what a loss is, and the floor",
        "01_bigram": "a table of pairs that writes; longer tables, until counting dies",
        "02_training_loop": "softmax, cross-entropy and its gradient by hand; the loop that trains everything",
        "03_single_head": "one head of attention: why the square root, and proof that it cannot see the future",
        "04_multi_head": "many heads: a loop, one matrix, a fused kernel, the same numbers",
        "05_blocks": "residuals, norms, feed-forward layers, dropout, and what happens without each",
        "06_full_gpt": "the full GPT: trained, sampled, and looked into, head by head",
        "07_attention_maps": "a recorder and pictures of attention; what each head does, proved by switching it off",
        "08_sampling": "every way to draw the next character; a cache that makes it fast and changes nothing",
        "09_checkpoints": "checkpoints that survive a pulled plug, and a resumed run that is the same to the last bit",
        "10_recipe": "what a training in earnest consists of, each part with and without",
        "10_training_in_earnest": "the trainer, and a clinic for losses that look wrong",
        "11_data_on_disk": "token shards: texts larger than the memory, mapped and shuffled",
        "11_many_devices": "one run in several processes: DDP, FSDP, and the same losses as in one",
    }
    seconds = results["playhouse"]["lessons"]
    minutes = {name: f"{row['all'] / 60:.1f}" for name, row in seconds.items()}
    lines = [
        f"| [{name}](notebooks/{name}.ipynb) | {what} | {minutes.get(name, 'not measured yet')} |"
        for name, what in built.items()
    ]
    lines.append(
        "| [A_playhouse](notebooks/A_playhouse.ipynb) | the grammar that writes the plays, and knows their entropy | 0.1 |"
    )
    lines.append(
        "| [A_pages](notebooks/A_pages.ipynb) | how a living picture travels in one piece of HTML | 0.1 |"
    )
    rungs = [
        "| rung | Playhouse | above the floor | seconds of training | Tiny Shakespeare |",
        "|---|---|---|---|---|",
    ]
    for rung in RUNGS:
        row, book = results["playhouse"][rung], results["shakespeare"][rung]
        rungs.append(
            f"| {rung} | {row['loss']:.3f} | {row['loss'] - row['floor']:.3f} | {row['seconds']:.0f} | {book['loss']:.3f} |"
        )
    rungs.append(f"| the floor | {row['floor']:.3f} | 0 | | nobody knows |")
    return "\n".join(lines), "\n".join(rungs)


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
    rows = {rung: results["playhouse"][rung] for rung in RUNGS}
    picture = plot_excess({rung: row["excess"] for rung, row in rows.items()}, rows["GPT"]["floor"])
    picture.savefig(RESULTS.with_suffix(".png"), dpi=120)
    print(f"written: {RESULTS}\n", *readme_tables(results), sep="\n")


if __name__ == "__main__":
    main()
