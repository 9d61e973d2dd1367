"""What does lesson 12's shuffle on two levels cost against a full shuffle, and what does it save against none?

    python -m tests.benchmarks.shuffling      five minutes of one core; goes on where it was interrupted

It writes data/results/shuffling.json. The text is half Playhouse, half Tiny Shakespeare, and is written twice: mixed
(scenes and speeches in a random order) and sorted (all of Playhouse, then all of Shakespeare). A small GPT reads it for
one epoch: all windows shuffled, on two levels with 64 shards, the same with 8 shards, or in the order of the text. Each
row has several seeds, of the model and of the order. Losses are exact, in nats per character, on held-out text of which
half is of each kind.
"""

import os
import random
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from statistics import fmean
from unittest import mock

import torch

from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.files import read_json, write_json
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.recipe import ShuffledWindows, TrainConfig, count_windows
from chargpt_lib.shards import Shards, write_shards
from chargpt_lib.trainer import Trainer, train
from chargpt_lib.training import evaluate
from tests.benchmarks.machine import measured_on

OUT = Path(__file__).parents[2] / "data" / "results" / "shuffling.json"
KINDS = ("playhouse", "shakespeare")
CHARACTERS = 240_000  # of each kind, to train on
HELD_OUT = 20_000  # of each kind
SIZES = {"block_size": 64, "n_layer": 2, "n_head": 4, "n_embd": 64}
BATCH_SIZE = 16
RATE = 3e-3
SEEDS = (1337, 1338, 1339, 1340)
LAYOUTS = ("mixed", "sorted")
ORDERS = ("all shuffled", "64 shards", "8 shards", "in order")
POINTS = 16  # of the curves


class InOrder:
    """Windows in the order of the text, one epoch; batch as in recipe.ShuffledWindows."""

    def __init__(self, ids, block_size):
        self.count = count_windows(len(ids), block_size)
        self.all = ids.unfold(0, block_size + 1, 1)
        self.block_size = block_size

    def batch(self, seen, size):
        numbers = torch.arange(seen, seen + size) % self.count
        windows = self.all[self.block_size * numbers]
        return windows[:, :-1], windows[:, 1:]


class Ordered:
    """A text for the trainer, in one of the orders."""

    val_ids = None

    def __init__(self, order, text, tokenizer, folder):
        self.order = order
        self.tokenizer = tokenizer
        self.ids = tokenizer.encode(text)
        if "shards" in order:
            shards = int(order.split()[0])
            shard_size = -(-len(text) // shards)
            write_shards([text], folder, tokenizer, shard_size, val_size=0)
            self.shards = Shards(folder)

    def windows(self, block_size, seed):
        if self.order == "all shuffled":
            return ShuffledWindows(self.ids, block_size, seed)
        if self.order == "in order":
            return InOrder(self.ids, block_size)
        return self.shards.windows(block_size, seed)


def texts():
    """-> {layout: text to train on}, {kind: held-out text}."""
    pieces = {}
    held_out = {}
    for kind in KINDS:
        corpus = load_corpus(kind)
        pieces[kind] = [piece + "\n\n" for piece in corpus.train[:CHARACTERS].split("\n\n")]
        held_out[kind] = corpus.val[:HELD_OUT]
    in_order = [piece for kind in KINDS for piece in pieces[kind]]
    mixed = random.Random(1337).sample(in_order, len(in_order))
    return {"sorted": "".join(in_order), "mixed": "".join(mixed)}, held_out


def one_run(order, text, held_out, tokenizer, seed):
    """-> {kind: loss after the epoch}, and the curve: [step, loss of each kind]."""
    torch.manual_seed(seed)
    model = GPT(GPTConfig(tokenizer.vocab_size, **SIZES))
    val_ids = {kind: tokenizer.encode(part) for kind, part in held_out.items()}
    config = TrainConfig(
        epochs=1, batch_size=BATCH_SIZE, learning_rate=RATE, seed=seed, precision="fp32"
    )
    with tempfile.TemporaryDirectory() as folder:
        data = Ordered(order, text, tokenizer, Path(folder) / "shards")
        steps = Trainer(model, data, config).config.steps
        every = steps // POINTS
        curve = []
        forward_backward = Trainer.forward_backward

        def measured(trainer):
            if trainer.step % every == 0:
                losses = [evaluate(model, ids[: HELD_OUT // 4]) for ids in val_ids.values()]
                curve.append([trainer.step, *losses])
                model.train()
            return forward_backward(trainer)

        with (
            open(os.devnull, "w") as nowhere,
            redirect_stdout(nowhere),
            mock.patch.object(Trainer, "forward_backward", measured),
        ):
            train(model, data, config)
        curve.append([steps, *(evaluate(model, ids[: HELD_OUT // 4]) for ids in val_ids.values())])
    return {kind: evaluate(model, ids) for kind, ids in val_ids.items()}, curve


def run_losses(record, layout, order):
    """The loss of each seed, in nats per character: the mean of both kinds of text."""
    return [fmean(run["losses"].values()) for run in record["runs"][layout][order].values()]


def readme_table(record):
    """The table in data/results/README.md."""
    lines = ["| order | mixed text | sorted text |", "|---|---|---|"]
    for order in ORDERS:
        cells = []
        for layout in LAYOUTS:
            losses = run_losses(record, layout, order)
            spread = max(losses) - min(losses)
            cells.append(f"{fmean(losses):.3f} (seeds {spread:.3f} apart)")
        lines.append(f"| {order} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    torch.set_num_threads(1)
    layouts, held_out = texts()
    tokenizer = CharTokenizer.from_text(layouts["sorted"] + "".join(held_out.values()))
    record = read_json(OUT) if OUT.exists() else {}
    record["settings"] = {
        **SIZES,
        "batch_size": BATCH_SIZE,
        "learning_rate": RATE,
        "epochs": 1,
        "characters": len(layouts["sorted"]),
        **measured_on("cpu"),
    }
    runs = record.setdefault("runs", {})
    for seed in SEEDS:
        for layout in LAYOUTS:
            for order in ORDERS:
                done = runs.setdefault(layout, {}).setdefault(order, {})
                if str(seed) in done:
                    continue
                losses, curve = one_run(order, layouts[layout], held_out, tokenizer, seed)
                curve = [[step, *(round(loss, 4) for loss in rest)] for step, *rest in curve]
                done[str(seed)] = {"losses": losses, "curve": curve}
                write_json(OUT, record)
                said = ", ".join(f"{kind} {loss:.3f}" for kind, loss in losses.items())
                print(f"{seed} {layout:7} {order:13} {said}", flush=True)


if __name__ == "__main__":
    main()
