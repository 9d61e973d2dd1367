"""The sweeps of lesson 15: models of several sizes, trained on several lengths of text, on Playhouse and on Shakespeare.

    python -m tests.benchmarks.scaling rates     a quarter of an hour, two runs at a time
    python -m tests.benchmarks.scaling sweep     two hours, two runs at a time
    python -m tests.benchmarks.scaling repeat    ten minutes: texts that are read many times
    python -m tests.benchmarks.scaling backtest  two minutes: each run predicted from cheaper ones, when all are there

The first three write into data/results/scaling.json after each run, and go on where they were interrupted; the cheapest runs
come first. Each run has one thread, so that its numbers do not depend on how many cores there are.

rates: the loss with five learning rates, for each width. It is measured on a text that the sweep does not see: on
other plays, and on the last tenth of Shakespeare's training text.
sweep: every size with every length. On Playhouse no character is read twice: as many plays are written as are needed.
Long runs are evaluated on their way, too: a law that is fitted to unfinished runs takes those losses for the losses of
shorter runs.
repeat: a part of the text, again and again, beside the sweep's runs that read as many different characters.
"""

import os
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from functools import lru_cache, partial
from math import log

import torch

from build import HERE
from chargpt_lib.data import CharTokenizer, Corpus, load_corpus
from chargpt_lib.files import read_json, write_json
from chargpt_lib.gpt import GPT
from chargpt_lib.playhouse import excess_by_kind, write
from chargpt_lib.recipe import ShuffledWindows
from chargpt_lib.scaling_laws import (
    SweepPoint,
    cheaper_runs,
    columns,
    fit_law,
    peak_lr,
    point_config,
    point_row,
    point_training,
    predict_loss,
)
from chargpt_lib.trainer import Trainer
from chargpt_lib.training import evaluate, per_token_loss
from tests.benchmarks.machine import measured_on, processor_name, two_at_a_time

OUT = HERE.root / "data" / "results" / "scaling.json"
CORPORA = ("playhouse", "shakespeare")
SHAPES = ((2, 12), (2, 24), (2, 48), (3, 72), (4, 96), (4, 144))  # layers, width
MORE_SHAPES = {"playhouse": (), "shakespeare": ((2, 36), (2, 60))}
STEPS = (625, 1250, 2500, 5000, 10_000, 20_000, 40_000)
# 2,500 steps read Shakespeare's training text nearly once. Lengths in between, because longer ones repeat it.
MORE_STEPS = {"playhouse": (), "shakespeare": (900, 1800)}
SEEDS = (1337, 1338, 1339)
RATES = (0.0025, 0.005, 0.01, 0.02, 0.04)
RATE_STEPS = 1250
# One width is tried for longer, too: does the best rate depend on the length?
LONGER_RATE_POINT = SweepPoint(2, 24, 10_000)
BLOCK_SIZES = {"playhouse": 128, "shakespeare": 64}
# Runs of so many steps are evaluated on their way, too, so often, on the first characters of the validation text.
CURVE_FROM = 10_000
CURVE_POINTS = 16
CURVE_CHARS = 30_000


def sweep_points(corpus):
    """The runs of the sweep on a corpus."""
    # The most steps of each shape, of the first seed and of the two others.
    if corpus == "playhouse":
        longest = {12: 40_000, 24: 40_000, 48: 40_000, 72: 40_000, 96: 40_000, 144: 20_000}
        others = {12: 10_000, 144: 2500}
    else:
        # 10,000 steps read the training text nearly four times.
        longest = {12: 20_000, 24: 20_000, 48: 20_000, 72: 20_000, 96: 10_000, 144: 10_000}
        longest |= {36: 2500, 60: 2500}
        others = {12: 10_000, 144: 2500}
    points = []
    for n_layer, n_embd in (*SHAPES, *MORE_SHAPES[corpus]):
        for steps in (*STEPS, *MORE_STEPS[corpus]):
            for seed in SEEDS:
                limits = longest if seed == SEEDS[0] else others
                if steps <= limits.get(n_embd, 0):
                    point = SweepPoint(n_layer, n_embd, steps, BLOCK_SIZES[corpus], seed)
                    points.append(point)
    return points


def rate_points(corpus):
    """The models that are trained with each of the RATES on a corpus."""
    points = []
    for n_layer, n_embd in SHAPES:
        points.append(SweepPoint(n_layer, n_embd, RATE_STEPS, BLOCK_SIZES[corpus]))
    if corpus == "playhouse":
        points.append(LONGER_RATE_POINT)
    return points


def repeat_runs():
    """(corpus, point, characters of the text that are read again and again)."""
    runs = []
    for unique in (60_000, 240_000):
        for n_layer, n_embd in ((2, 48), (3, 72)):
            for steps in (1250, 2500, 5000, 10_000, 20_000):
                runs.append(("playhouse", SweepPoint(n_layer, n_embd, steps), unique))
    return runs


@lru_cache
def load_texts(name, held_out):
    """A Corpus whose training text is as long as the longest run needs, where it can be, its tokenizer, and its ids.

    held_out: its validation text is one that the sweep does not see.
    """
    corpus = load_corpus(name)
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    if name == "playhouse":
        longest = SweepPoint(0, 0, STEPS[-1]).characters
        # It begins with the corpus's own training text. The room is for the last, shorter window.
        train = write(min_chars=longest + 2 * BLOCK_SIZES[name], seed=1337).text
        corpus = corpus._replace(train=train)
        if held_out:
            script = write(min_chars=len(corpus.val), seed=7)
            corpus = Corpus(name, train, script.text, script.entropy, tuple(script.spans))
    elif held_out:
        cut = 9 * len(corpus.train) // 10
        corpus = Corpus(name, corpus.train[:cut], corpus.train[cut:])
    return corpus, tokenizer, tokenizer.encode(corpus.train)


def share_of_props(nats, spans, text):
    """The share of scenes at whose end the prop's first letter got more than half of the probability.

    The closing quotation marks, which are of the same kind, do not count.
    """
    flags = []
    for start, end, kind, _ in spans:
        if kind == "closing" and text[start:end] != "'":
            flags.append(nats[start] < log(2))
    return sum(flags) / len(flags)


class CurveData:
    """Ids to train on, and others to evaluate on, as the trainer wants them."""

    def __init__(self, ids, val_ids, tokenizer):
        self.ids = ids
        self.val_ids = val_ids
        self.tokenizer = tokenizer

    def windows(self, block_size, seed):
        return ShuffledWindows(self.ids, block_size, seed)


class CurveTrainer(Trainer):
    """A trainer whose evaluations are made as those of the sweep; the model is left with its last weights."""

    def evaluate(self):
        if self.val_ids is None:
            return None
        loss = evaluate(self.model, self.val_ids, self.model.block_size // 2)
        self.model.train()
        return loss

    def update_best(self, val_loss):
        """Keeps nothing: no run of a sweep is stopped early."""


def one_run(name, point, learning_rate, unique=None, held_out=False):
    """Trains the model of a point -> its row. unique: so many characters of the text are read again and again."""
    torch.set_num_threads(1)
    corpus, tokenizer, ids = load_texts(name, held_out)
    if unique is not None:
        ids = ids[:unique]
    config = point_training(point, learning_rate)
    data = ids
    if point.steps >= CURVE_FROM:
        config = replace(config, eval_interval=point.steps // CURVE_POINTS)
        data = CurveData(ids, tokenizer.encode(corpus.val[:CURVE_CHARS]), tokenizer)
    torch.manual_seed(point.seed)
    model = GPT(point_config(point, tokenizer.vocab_size))
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # the bars
        result = CurveTrainer(model, data, config).train()
    if result["stop_reason"] != "steps":
        raise KeyboardInterrupt
    paid = per_token_loss(model, tokenizer.encode(corpus.val), point.block_size // 2).double()
    row = {
        **point_row(point, model, paid.mean().item()),
        "unique": unique,
        "learning_rate": learning_rate,
        "seconds": round(result["seconds"], 1),
    }
    if point.steps >= CURVE_FROM:
        row["curve"] = [(line["step"], line["val_loss"]) for line in result["log"]]
    if corpus.val_spans:
        nats = [None, *paid.tolist()]
        row["excess"] = excess_by_kind(nats, corpus.val_spans)
        row["props"] = share_of_props(nats, corpus.val_spans, corpus.val)
    return row


def cost(point):
    """About how long a run takes, in any unit."""
    parameters = 12 * point.n_layer * point.n_embd**2 + 255 * point.n_embd
    return point.steps * (parameters + 100_000)


def is_row_of(row, point, **others):
    """Whether a row is of this point, and of other settings."""
    settings = {**point._asdict(), **others}
    return all(row.get(name) == value for name, value in settings.items())


def run_missing(runs, record):
    """Makes the runs whose rows are missing, two at a time, and writes the record after each.

    runs: (the list that the row goes into, the point, other settings of the row, the function that makes it).
    """
    missing = []
    for rows, point, others, function in runs:
        if not any(is_row_of(row, point, **others) for row in rows):
            missing.append((rows, point, function))
    missing.sort(key=lambda run: cost(run[1]))
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are there", flush=True)
    if missing:
        record["machine"] = {**measured_on("cpu"), "processor": processor_name(), "threads": 1}
    for n, row in two_at_a_time([function for _, _, function in missing]):
        rows, _, _ = missing[n]
        rows.append(row)
        write_json(OUT, record)
        shown = {name: row[name] for name in ("n_embd", "steps", "seed", "loss", "seconds")}
        print(shown, flush=True)


# ---------------------------------------------------------------- what comes of it


def fitted_rows(record, corpus):
    """The runs of a sweep that laws are fitted to.

    After 240,000 characters models have hardly begun to learn words. On Shakespeare text that was read more than four
    times is left out.
    """
    rows = [row for row in record["sweep"][corpus] if row["D"] > 240_000]
    if corpus == "shakespeare":
        rows = [row for row in rows if row["D"] <= 4_000_000]
    return rows


def predict_from(rows, target, E=None):
    """What these runs say of another one -> its loss, lower and upper end."""
    return predict_loss(*columns(rows), target["N"], target["D"], E, form="kaplan")


def prediction(rows, E=None):
    """What the runs that cost at most an eighth of the most expensive say of it -> that run, loss, lower and upper end."""
    target = max(rows, key=lambda row: row["flops"])
    return target, *predict_from(cheaper_runs(rows, target), target, E)


def backtest(rows, E=None):
    """Predicts each run for which there are at least 12 runs, of 3 sizes, that cost at most an eighth of it -> rows."""
    tested = []
    for target in rows:
        small = cheaper_runs(rows, target)
        sizes = {row["N"] for row in small}
        if len(small) >= 12 and len(sizes) >= 3:
            guess, low, high = predict_from(small, target, E)
            tested.append(
                {
                    "N": target["N"],
                    "D": target["D"],
                    "seed": target["seed"],
                    "fitted": len(small),
                    "loss": target["loss"],
                    "predicted": guess,
                    "low": low,
                    "high": high,
                }
            )
    return tested


def readme_table(record):
    """The table in data/results/README.md."""
    lines = [
        "| corpus | runs | E | alpha | beta | predicted for the most expensive | recorded |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    for corpus in CORPORA:
        rows = fitted_rows(record, corpus)
        law = fit_law(*columns(rows), form="kaplan")
        target, guess, low, high = prediction(rows)
        lines.append(
            f"| {corpus} | {len(rows)} | {law.E:.3f} | {law.alpha:.2f} | {law.beta:.2f} "
            f"| {guess:.3f} ({low:.3f} to {high:.3f}) | {target['loss']:.3f} |"
        )
    return "\n".join(lines)


def main():
    parts = sys.argv[1:]
    record = read_json(OUT)
    runs = []
    if "rates" in parts:
        for name in CORPORA:
            rows = record.setdefault("rates", {}).setdefault(name, [])
            for point in rate_points(name):
                for rate in RATES:
                    function = partial(one_run, name, point, rate, held_out=True)
                    runs.append((rows, point, {"learning_rate": rate}, function))
    if "sweep" in parts:
        for name in CORPORA:
            rows = record.setdefault("sweep", {}).setdefault(name, [])
            for point in sweep_points(name):
                rate = peak_lr(point.n_embd)
                function = partial(one_run, name, point, rate)
                runs.append((rows, point, {"learning_rate": rate}, function))
    if "repeat" in parts:
        rows = record.setdefault("repeat", {}).setdefault("playhouse", [])
        for name, point, unique in repeat_runs():
            function = partial(one_run, name, point, peak_lr(point.n_embd), unique)
            runs.append((rows, point, {"unique": unique}, function))
    run_missing(runs, record)
    if "backtest" in parts:
        record["backtest"] = {
            "playhouse": backtest(
                fitted_rows(record, "playhouse"), load_corpus("playhouse").val_entropy
            ),
            "shakespeare": backtest(fitted_rows(record, "shakespeare")),
        }
        write_json(OUT, record)
    print(readme_table(record))


if __name__ == "__main__":
    main()
