"""The numbers that other projects publish, reproduced with ours: one recorded run each.

    python -m tests.benchmarks.headline                    every run that this machine can do, half an hour on two cores
    python -m tests.benchmarks.headline --rows cpu oz      these rows only
    python -m tests.benchmarks.headline --table            nothing is run; prints the table of data/results/README.md

Each run is one JSON in data/results/headline/, with settings, versions, device, seeds, the log and what came out: the
loss over the whole validation text, nanoGPT's estimate (the mean of 200 random batches), that of the training text, a
sample, and for 10,000 sampled characters the numbers of `quality` beside those of real text and of noise. A run that
wants a graphics card is left out where there is none, and its row says so. Nothing is estimated.
"""

import argparse
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy
import torch

from chargpt_lib.bigram import BigramLanguageModel, NGramModel
from chargpt_lib.cli.options import PRESETS
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import pick_device
from chargpt_lib.files import read_json, write_json
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.quality import compare
from chargpt_lib.recipe import TrainConfig
from chargpt_lib.sampling import generate
from chargpt_lib.trainer import train
from chargpt_lib.training import estimate_loss, evaluate
from tests.benchmarks.machine import measured_on

OUT = Path(__file__).parents[2] / "data" / "results" / "headline"
BABY_README = 1.4697  # nanoGPT's README, its baby GPT


@dataclass
class Case:
    """One run: a row of the table has one or several."""

    row: str
    model: callable  # vocab_size -> the model
    settings: dict  # of TrainConfig
    corpus: str = "shakespeare"
    prompt: str = "\n"
    seed: int = 1337
    on: tuple = ("cuda",)  # the devices it is for
    within: float | None = None  # seconds of wall clock, all of `train`
    more: dict = field(
        default_factory=dict
    )  # what else is measured: {name: a function of corpus and tokenizer}


def counted_optimum(corpus, tokenizer):
    """The exact validation loss of the counted table of pairs."""
    pairs = NGramModel(tokenizer.encode(corpus.train), 2, tokenizer.vocab_size)
    return pairs.nats(tokenizer.encode(corpus.val)).mean().item()


def of_preset(preset, sizes=None, **changes):
    """A preset of the command, with what this row has otherwise."""
    own, settings = PRESETS[preset]
    return {
        "row": preset,
        "model": lambda V: GPT((sizes or own)(V)),
        "settings": settings | changes,
    }


CASES = {
    **{
        f"lecture-{steps}": Case(**of_preset("lecture", steps=steps, compile=True))
        for steps in (5000, 6000)
    },
    **{
        f"baby-{seed}": Case(**of_preset("baby", compile=True), seed=seed)
        for seed in (1337, 1338, 1339)
    },
    "local": Case(
        "local",
        lambda V: GPT(GPTConfig(V, block_size=128, n_layer=4, n_head=4, n_embd=256)),
        {"steps": 2000, "batch_size": 12, "learning_rate": 2e-3, "schedule": "wsd", "decay": 0.6},
        on=("cpu", "cuda"),
    ),
    "oz": Case(**of_preset("oz"), corpus="oz", prompt="The Great Wizard said ", on=("cpu",)),
    **{
        f"oz-lecture's weights, seed {seed}": Case(
            **of_preset("oz", sizes=GPTConfig.oz),
            corpus="oz",
            seed=seed,
            prompt="The Great Wizard said ",
            on=("cpu",),
        )
        for seed in (1337, 1338)
    },
    "bigram": Case(
        "bigram",
        lambda V: BigramLanguageModel(V, block_size=8),
        {"steps": 3000, "batch_size": 32, "learning_rate": 1e-2, "weight_decay": 0.0},
        on=("cpu",),
        more={"the counted optimum": counted_optimum},
    ),
    "cpu": Case(**of_preset("cpu", time_budget=195, eval_interval=10**6), on=("cpu",), within=200),
}
ROWS = {  # what is published: in words, and ours has to show that
    "lecture": ("10.79M, 5,000 and 6,000 steps", "1.47; 1.40 to 1.42"),
    "baby": ("nanoGPT's baby GPT, three seeds", "1.4655, mean of 3 seeds"),
    "local": ("3.2M, 2,000 steps", 'about 45 minutes, "low coherence"'),
    "oz": ("0.6M, 500 steps, The Wizard of Oz", "2.191 (training 2.175)"),
    "bigram": ("pairs, 3,000 steps", "about 2.5"),
    "cpu": ("200 seconds on two cores", "1.886; 1.644 with a better rate and schedule"),
}


def first_below(log, loss):
    """Seconds until an evaluation showed at most this loss; None if none did."""
    return next(
        (row["seconds"] for row in log if row["val_loss"] is not None and row["val_loss"] <= loss),
        None,
    )


def tokens_per_second(log):
    """Characters a second, the median over the log; its first row may hold the compiling."""
    return numpy.median([row["tokens_per_second"] for row in log[1:] or log]).item()


def write_sample(model, tokenizer, prompt, length, seed):
    if isinstance(model, GPT):
        return generate(
            model,
            prompt,
            length,
            seed=seed,
            tokenizer=tokenizer,
            window_stride=model.block_size // 2,
        )
    idx = model.generate(
        tokenizer.encode(prompt)[None], length, torch.Generator().manual_seed(seed)
    )
    return tokenizer.decode(idx[0].tolist())


def run(case, device):
    """Trains, measures -> the record."""
    corpus = load_corpus(case.corpus)
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    train_ids, val_ids = tokenizer.encode(corpus.train), tokenizer.encode(corpus.val)
    torch.manual_seed(case.seed)
    model = case.model(tokenizer.vocab_size).to(device)
    config = TrainConfig(**case.settings, seed=case.seed)
    start = time.perf_counter()
    result = train(model, corpus, config, tokenizer)
    seconds = time.perf_counter() - start
    with torch.random.fork_rng():
        estimates = {
            part: estimate_loss(
                model, ids, 200, config.batch_size, torch.Generator().manual_seed(case.seed)
            )
            for part, ids in (("training", train_ids), ("validation", val_ids))
        }
    sample = write_sample(model, tokenizer, case.prompt, 10_000, case.seed)
    qualities = {
        text: scores._asdict() for text, scores in compare({"sample": sample}, corpus).items()
    }
    return {
        "row": case.row,
        "corpus": case.corpus,
        "parameters": sum(p.numel() for p in model.parameters()),
        "model": asdict(model.config)
        if isinstance(model, GPT)
        else {"block_size": model.block_size},
        "settings": asdict(config),
        **measured_on(device, numpy),
        "steps": result["steps"],
        "best step": result["best_step"],
        "stopped by": result["stop_reason"],
        "precision": result["precision"],
        "compiled": result["compiled"],
        "seconds": {
            "wall clock": seconds,
            "steps and evaluations": result["seconds"],
            "before the first step, compiling included": seconds - result["seconds"],
        },
        "characters a second": tokens_per_second(result["log"]),
        f"seconds to {BABY_README}": first_below(result["log"], BABY_README),
        "loss": {
            "exact": {
                "training": evaluate(model, train_ids),
                "validation": evaluate(model, val_ids),
            },
            "200 random batches": estimates,
        },
        **{what: measure(corpus, tokenizer) for what, measure in case.more.items()},
        "quality": qualities,
        "sample": sample[:600],
        "log": result["log"],
    }


def path_of(name, case, device):
    file = re.sub(r"\W+", "-", name)
    return OUT / (f"{file}-{device}.json" if len(case.on) > 1 else f"{file}.json")


def table():
    """The table of data/results/README.md, from the recorded runs."""
    lines = [
        "| run | published | ours, exact | 200 random batches | real words | time, device |",
        "|---|---|---|---|---|---|",
    ]
    for row, (what, published) in ROWS.items():
        for name, case in CASES.items():
            for device in case.on if case.row == row else ():
                found = read_json(path_of(name, case, device))
                said = what if name == row else f"{what} ({name.removeprefix(row + '-')})"
                if not found:
                    continue  # the page says in a sentence which rows wait for a graphics card
                words, loss = found["quality"]["sample"]["words"], found["loss"]
                besides = {"oz": f" (training {loss['exact']['training']:.3f})"}.get(
                    row, ""
                ) + "".join(f" ({what}: {found[what]:.3f})" for what in case.more)
                lines.append(
                    f"| `{row}`: {said} | {published} | {loss['exact']['validation']:.3f}{besides} | "
                    f"{loss['200 random batches']['validation']:.3f} | {words:.0%} | "
                    f"{found['seconds']['wall clock']:.0f} s, {found['device']} |"
                )
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args(arguments)
    device = pick_device()
    OUT.mkdir(exist_ok=True)
    for name, case in CASES.items():
        if options.table or case.row not in options.rows:
            continue
        if device.type not in case.on:
            print(f"{name}: not run, it is for {' and '.join(case.on)}, and this is {device.type}")
            continue
        print(name)
        record = run(case, device)
        write_json(path_of(name, case, device.type), record)
        print(
            {part: round(loss, 4) for part, loss in record["loss"]["exact"].items()},
            f"{record['seconds']['wall clock']:.0f} s",
        )
        if case.within and record["seconds"]["wall clock"] > case.within:
            sys.exit(f"{name} took more than {case.within} s")
    print(table())


if __name__ == "__main__":
    main()
