"""Remedies for overfitting, each with its price: a small GPT on 3,000 characters of Playhouse.

    python -m tests.benchmarks.remedies       6 minutes of one core; writes data/results/remedies.json

One model is trained on too little text until it knows the text by heart, and again with one remedy at a time, each with
three seeds. Every run gets as many steps as fit into the same time of the processor, evaluations left out: how long a
step of each takes is measured first, in turns, with one thread. Early stopping is no run of its own: it is the first
run, cut where the validation loss had found no new best for PATIENCE evaluations. Because that choice looks at the
validation text, all losses are also measured on another text, the test text, that no choice has seen.
"""

import os
import time
from contextlib import redirect_stdout
from statistics import fmean, median

import torch
from torch.nn.utils import clip_grad_norm_

from build import HERE
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.files import write_json
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.recipe import TrainConfig, make_optimizer
from chargpt_lib.trainer import Trainer
from chargpt_lib.training import evaluate
from tests.benchmarks.machine import measured_on, processor_name

OUT = HERE.root / "data" / "results" / "remedies.json"
SECONDS = 12  # of the processor, for the steps of a run
SEEDS = (1337, 1338, 1339)
EVALUATIONS = 40  # in a run
PATIENCE = 4
TRAIN_CHARACTERS = 3_000
HELD_OUT_CHARACTERS = 8_000  # of the validation text, and of the test text
MODEL = {"block_size": 32, "n_layer": 2, "n_head": 4, "n_embd": 64, "dropout": 0.0}
TRAINING = {"batch_size": 8, "learning_rate": 3e-3, "weight_decay": 0.0}

# What differs from MODEL and TRAINING, and how much text there is to train on.
RUNS = {
    "none": {},
    "dropout": {"dropout": 0.2},
    "weight decay": {"weight_decay": 1.0},
    "a smaller model": {"n_layer": 2, "n_embd": 24},
    "more text": {"train_characters": 10 * TRAIN_CHARACTERS},
}


def settings_of(run):
    """The settings of the model, those of the training, and the characters to train on."""
    changes = RUNS[run]
    model = {name: changes.get(name, value) for name, value in MODEL.items()}
    training = {name: changes.get(name, value) for name, value in TRAINING.items()}
    return model, training, changes.get("train_characters", TRAIN_CHARACTERS)


def load():
    """Ids to train on, ids to validate on, ids to test on, and the tokenizer."""
    corpus = load_corpus("playhouse")
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    held_out = tokenizer.encode(corpus.val[: 2 * HELD_OUT_CHARACTERS])
    val_ids = held_out[:HELD_OUT_CHARACTERS]
    test_ids = held_out[HELD_OUT_CHARACTERS:]
    return tokenizer.encode(corpus.train), val_ids, test_ids, tokenizer


def build(run, vocab_size, seed):
    """The model of a run."""
    torch.manual_seed(seed)
    return GPT(GPTConfig(vocab_size, **settings_of(run)[0]))


class MeasuringTrainer(Trainer):
    """A trainer that measures three texts at each evaluation, and keeps the last weights instead of the best."""

    def __init__(self, model, ids, config, tokenizer, held_out):
        super().__init__(model, ids, config, tokenizer)
        self.texts = {"train": ids[:TRAIN_CHARACTERS], **held_out}
        self.losses = {"step": [], **{name: [] for name in self.texts}}

    def update_best(self, val_loss):
        self.losses["step"].append(self.step)
        for name, ids in self.texts.items():
            self.losses[name].append(evaluate(self.model, ids))
        self.model.train()


def step_seconds(ids, vocab_size, rounds=60):
    """The seconds of a training step of each run, in time of the processor: {run: seconds}."""
    trained = {}
    for run in RUNS:
        model = build(run, vocab_size, 0)
        trained[run] = model, make_optimizer(model, TrainConfig(**settings_of(run)[1]))
    size = TRAINING["batch_size"] * MODEL["block_size"]
    x = ids[:size].view(TRAINING["batch_size"], -1)
    y = ids[1 : size + 1].view(TRAINING["batch_size"], -1)
    times = {run: [] for run in RUNS}
    for _ in range(rounds):
        for run, (model, optimizer) in trained.items():
            start = time.process_time()
            optimizer.zero_grad()
            model(x, y)[1].backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            times[run].append(time.process_time() - start)
    return {run: median(seconds[5:]) for run, seconds in times.items()}


def train_once(run, steps, seed, texts):
    """Trains one run -> its losses: {"step": [...], "train": [...], "val": [...], "test": [...]}."""
    train_ids, val_ids, test_ids, tokenizer = texts
    _, training, characters = settings_of(run)
    config = TrainConfig(
        steps=steps, eval_interval=steps // EVALUATIONS, eval_batches=1, seed=seed, **training
    )
    model = build(run, tokenizer.vocab_size, seed)
    held_out = {"val": val_ids, "test": test_ids}
    trainer = MeasuringTrainer(model, train_ids[:characters], config, tokenizer, held_out)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        trainer.train()
    return trainer.losses


def stop_early(losses, patience=PATIENCE):
    """Where early stopping ends a run -> the number of its best evaluation, and of its last: from 0."""
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        elif i - best >= patience:
            return best, i
    return best, len(losses) - 1


def mean_losses(record):
    """{remedy: {"val": mean of the seeds, "test": ...}}, with early stopping second."""
    found = {}
    for run, trial in record["runs"].items():
        curves = trial["curves"].values()
        found[run] = {kind: fmean(c[kind][-1] for c in curves) for kind in ("val", "test")}
        if run == "none":
            curves = trial["curves"]
            found["early stopping"] = {
                kind: fmean(
                    curves[seed][kind][stop["best"]]
                    for seed, stop in record["early stopping"].items()
                )
                for kind in ("val", "test")
            }
    return found


def readme_table(record):
    """The losses and the times of all remedies, as a table in Markdown."""
    lines = [
        "| remedy | validation loss | test loss | a step takes | steps |",
        "|---|---|---|---|---|",
    ]
    for remedy, losses in mean_losses(record).items():
        trial = record["runs"]["none" if remedy == "early stopping" else remedy]
        steps = f"{trial['steps']:,}"
        if remedy == "early stopping":
            ends = [stop["last"] + 1 for stop in record["early stopping"].values()]
            steps = f"{round(fmean(ends) * trial['steps'] / EVALUATIONS):,}"
        cells = (
            remedy,
            f"{losses['val']:.2f}",
            f"{losses['test']:.2f}",
            f"{1000 * trial['seconds_per_step']:.1f} ms",
            steps,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    torch.set_num_threads(1)
    texts = load()
    tokenizer = texts[-1]
    times = step_seconds(texts[0], tokenizer.vocab_size)
    record = {
        "settings": {
            "corpus": "playhouse",
            "train_characters": TRAIN_CHARACTERS,
            "held_out_characters": HELD_OUT_CHARACTERS,
            "seconds": SECONDS,
            "patience": PATIENCE,
            **MODEL,
            **TRAINING,
        },
        "machine": {**measured_on("cpu"), "processor": processor_name()},
        "runs": {},
    }
    for run, changes in RUNS.items():
        steps = round(SECONDS / times[run] / EVALUATIONS) * EVALUATIONS
        curves = {}
        for seed in SEEDS:
            curves[str(seed)] = train_once(run, steps, seed, texts)
            ends = {name: losses[-1] for name, losses in curves[str(seed)].items()}
            print(run, seed, ends, "least", min(curves[str(seed)]["val"]), flush=True)
        record["runs"][run] = {
            "changes": changes,
            "parameters": build(run, tokenizer.vocab_size, 0).num_params(),
            "seconds_per_step": times[run],
            "steps": steps,
            "curves": curves,
        }
    stops = {}
    for seed, losses in record["runs"]["none"]["curves"].items():
        best, last = stop_early(losses["val"])
        stops[seed] = {
            "best": best,
            "last": last,
            "seconds": SECONDS * (last + 1) / len(losses["val"]),
        }
    record["early stopping"] = stops
    write_json(OUT, record)


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    main()
