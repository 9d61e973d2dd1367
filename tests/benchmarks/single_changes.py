"""From lesson 05's model to lesson 06's, one change at a time, on Playhouse -> data/results/single_changes.json.

changes: lesson 05's model, the same with one change towards lesson 06's, and with all of them. Each row trains for
equal time on one core, with three seeds: for 20 seconds, about the time of lesson 05's training. Some rows also train,
with one seed, for 150 seconds, about the time of lesson 06's. A row's number of steps comes from the time of its training step, which
is measured step by step in turns and in time of the processor, so that what else the machine does changes nothing. The
time that a run took is recorded, too.
hidden: lesson 05's model with feed-forward layers of 1, 2 and 8 times the width instead of 4, and another width, so
that the number of parameters is about the same. For 20 seconds, too.
init: twelve blocks with and without scaled initialisation: the loss at init and during the first steps.

Losses of changes and hidden are exact, over the whole validation text. `python -m tests.benchmarks.single_changes`
measures what the record lacks; seeds as arguments restrict it to these.
"""

import os
import sys
import time
from contextlib import redirect_stdout
from itertools import product
from statistics import fmean, median

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from build import HERE
from chargpt_lib.blocks import scale_residual_init
from chargpt_lib.data import CharTokenizer, get_batch, load_corpus
from chargpt_lib.files import read_json, write_json
from chargpt_lib.gpt import GPT, PLAYHOUSE, GPTConfig
from chargpt_lib.playhouse import excess_by_kind
from chargpt_lib.single_head import init_weights
from chargpt_lib.training import fit, param_groups, per_token_loss
from tests.benchmarks.machine import measured_on, processor_name

OUT = HERE.root / "data" / "results" / "single_changes.json"
SEEDS = (1337, 1338, 1339)
SECONDS = {"short": 20, "long": 150}  # of one core
LONG_SEED = 1339  # one, because these runs take as long as all others together
LONG_ROWS = (
    "lesson 05",
    "window",
    "width",
    "depth",
    "lesson 06",
)  # those that also train for the long time

LESSON_05 = {
    "block_size": 64,
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 3,
    "bias": True,
    "tied": False,
    "batch_size": 16,
    "lr": 4e-3,
    "hidden": 4,  # the width of the feed-forward layer, in n_embd
}
CHANGES = {
    "window": {"block_size": PLAYHOUSE["block_size"], "batch_size": 6},
    "width": {"n_embd": PLAYHOUSE["n_embd"], "n_head": PLAYHOUSE["n_head"]},
    "depth": {"n_layer": 4},
    "tied": {"tied": True},
    "no biases": {"bias": False},
    "batch and rate": {"batch_size": 18, "lr": 5e-3},  # 18 * 64 = 6 * 192
}
# About as many parameters as lesson 05's blocks have: (4 + 2 hidden) n_embd^2.
HIDDEN = {
    "hidden 1": {"hidden": 1, "n_embd": 88},
    "hidden 2": {"hidden": 2, "n_embd": 80},
    "hidden 8": {"hidden": 8, "n_embd": 48},
}
INIT_LAYERS = 12
INIT_STEPS = 300


def all_settings():
    """{row: settings} of all that is trained for equal time."""
    rows = {"lesson 05": LESSON_05}
    every_change = dict(LESSON_05)
    for name, change in CHANGES.items():
        rows[name] = {**LESSON_05, **change}
        every_change.update(change)
    every_change["batch_size"] = 6
    rows["lesson 06"] = every_change
    for name, change in HIDDEN.items():
        rows[name] = {**LESSON_05, **change}
    return rows


def build(settings, vocab_size, seed, scaled_init=True):
    """The model of a row."""
    torch.manual_seed(seed)
    names = ("block_size", "n_embd", "n_head", "n_layer", "bias", "tied")
    chosen = {name: settings[name] for name in names}
    model = GPT(GPTConfig(vocab_size, **chosen, scaled_init=scaled_init))
    if settings["hidden"] != 4:
        for block in model.blocks:
            width = settings["n_embd"]
            layer = block.feed_forward
            layer.fc = nn.Linear(width, settings["hidden"] * width, bias=settings["bias"])
            layer.proj = nn.Linear(settings["hidden"] * width, width, bias=settings["bias"])
        model.apply(init_weights)
        scale_residual_init(model, settings["n_layer"])
    return model


def load():
    """The corpus, the ids to train on, the tokenizer."""
    corpus = load_corpus("playhouse")
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    return corpus, tokenizer.encode(corpus.train), tokenizer


def step_times(rows, ids, vocab_size, rounds=60):
    """The seconds of a training step of each row, in time of the processor: {row: seconds}."""
    models = {}
    for row, settings in rows.items():
        model = build(settings, vocab_size, 0)
        optimizer = torch.optim.AdamW(param_groups(model, 0.1), lr=1e-3, fused=True)
        models[row] = model, optimizer
    generator = torch.Generator().manual_seed(0)
    times = {row: [] for row in rows}
    for _ in range(rounds):
        for row, (model, optimizer) in models.items():
            start = time.process_time()
            x, y = get_batch(
                ids, rows[row]["block_size"], rows[row]["batch_size"], generator, "cpu"
            )
            optimizer.zero_grad()
            model(x, y)[1].backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            times[row].append(time.process_time() - start)
    return {row: median(seconds) for row, seconds in times.items()}


def describe(ids, vocab_size):
    """What the rows are, without their losses: {row: dict}."""
    rows = all_settings()
    times = step_times(rows, ids, vocab_size)
    described = {}
    for row, settings in rows.items():
        steps = {"short": round(SECONDS["short"] / times[row])}
        if row in LONG_ROWS:
            steps["long"] = round(SECONDS["long"] / times[row])
        described[row] = {
            "settings": settings,
            "parameters": build(settings, vocab_size, 0).num_params(),
            "seconds_per_step": times[row],
            "steps": steps,
            "runs": {budget: {} for budget in steps},
        }
    return described


def one_run(settings, steps, seed, corpus, ids, tokenizer):
    """Trains a model -> its exact loss, its excess by kind, and the seconds of its training."""
    model = build(settings, tokenizer.vocab_size, seed)
    start = time.process_time()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        fit(model, ids, steps, settings["batch_size"], settings["lr"], seed=seed)
    seconds = time.process_time() - start
    nats = per_token_loss(model, tokenizer.encode(corpus.val)).double()
    excess = excess_by_kind([None, *nats.tolist()], corpus.val_spans)
    return {"loss": nats.mean().item(), "seconds": seconds, "excess": excess}


def start_record(corpus, ids, tokenizer):
    """Writes what the rows are, unless that is recorded."""
    if "rows" in read_json(OUT):
        return
    record = {
        "corpus": "playhouse",
        "seconds": SECONDS,
        "floor": corpus.val_entropy,
        "machine": {**measured_on("cpu"), "processor": processor_name()},
        "rows": describe(ids, tokenizer.vocab_size),
        "init": {},
    }
    write_json(OUT, record)


def measure_changes(seeds, corpus, ids, tokenizer):
    """Trains every row with these seeds; a run that is recorded is not repeated."""
    rows = read_json(OUT)["rows"]
    for budget, seed, (row, described) in product(SECONDS, seeds, rows.items()):
        steps = described["steps"].get(budget)
        if steps is None or (budget == "long" and seed != LONG_SEED):
            continue
        if str(seed) in read_json(OUT)["rows"][row]["runs"][budget]:
            continue
        run = one_run(described["settings"], steps, seed, corpus, ids, tokenizer)
        record = read_json(OUT)  # again: another process may have written meanwhile
        record["rows"][row]["runs"][budget][str(seed)] = run
        write_json(OUT, record)
        print(
            f"{seed} {row:16} {budget:6} {steps} steps {run['seconds']:.1f} s {run['loss']:.4f}",
            flush=True,
        )


def measure_init(seeds, ids, tokenizer):
    """The loss of twelve blocks at init and during the first steps, with scaled initialisation and without."""
    settings = {**LESSON_05, "n_layer": INIT_LAYERS}
    for seed in seeds:
        for name, scaled in (("scaled", True), ("not scaled", False)):
            if str(seed) in read_json(OUT)["init"].get(name, {}):
                continue
            model = build(settings, tokenizer.vocab_size, seed, scaled_init=scaled)
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                losses = fit(
                    model, ids, INIT_STEPS, settings["batch_size"], settings["lr"], seed=seed
                ).tolist()
            record = read_json(OUT)
            record["init"].setdefault(name, {})[str(seed)] = losses
            write_json(OUT, record)
            print(f"{seed} {name:12} {losses[0]:.3f} ... {fmean(losses[-20:]):.3f}", flush=True)


def readme_table(record):
    """The changes as a table for data/results/README.md."""
    lines = [
        "| row | steps in 20 s | loss, three seeds | loss after 150 s, one seed |",
        "|---|---:|---|---:|",
    ]
    for row, described in record["rows"].items():
        losses = [run["loss"] for run in described["runs"]["short"].values()]
        long_runs = described["runs"].get("long", {})
        after = ", ".join(f"{run['loss']:.3f}" for run in long_runs.values())
        name = row.replace("hidden", "feed-forward layer, width over C:")
        lines.append(
            f"| {name} | {described['steps']['short']:,} | {fmean(losses):.3f} "
            f"({min(losses):.3f} to {max(losses):.3f}) | {after} |"
        )
    return "\n".join(lines)


def main():
    """Measures everything, or what belongs to the seeds that are named."""
    torch.set_num_threads(1)
    os.environ.setdefault("TQDM_DISABLE", "1")
    seeds = [int(seed) for seed in sys.argv[1:]] or SEEDS
    corpus, ids, tokenizer = load()
    start_record(corpus, ids, tokenizer)
    measure_init(seeds, ids, tokenizer)
    measure_changes(seeds, corpus, ids, tokenizer)


if __name__ == "__main__":
    main()
