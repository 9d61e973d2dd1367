"""How many characters a second does a whole training read? Our trainer, a plain loop, transformers' Trainer.

    python -m tests.benchmarks.throughput             some minutes
    python -m tests.benchmarks.throughput --sizes     some minutes: every preset of the command

Both write into data/results/throughput.json.

--sizes: parameters by part, FLOPs per token, tokens per second, the share of the machine's peak that they are, and the
memory that a training takes. The peak is what a product of two large matrices reaches, in the same process. Each preset
has a fresh process, its own optimizer and block_size, and as many windows as make TOKENS tokens, or the preset's own
batch where that is smaller.

Without --sizes: ours is `chargpt_lib.trainer.train` as anybody calls it, with its bar, its log and its checks. The plain loop is what
nanoGPT does, and nothing besides. transformers' is GPT2LMHeadModel under `Trainer`, with what it brings by default but
for what would be unfair to it: no dropout, no checkpoints, no evaluation, no report to anybody. Ours with torch.compile
stands beside them; how long the compiling takes is recorded apart. Everybody starts from the same weights (checked: the
same loss), with AdamW in one kernel, clipping and batches of the same size. They alternate step by step, so what slows
the computer slows them all: each trains in a greenlet of its own, and whoever begins a step lets the others go first.
What is timed is everything from the beginning of a step to that of the next. Ratios are within a round.
"""

import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from functools import partial
from io import StringIO
from pathlib import Path
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"  # the models are made here, not fetched

import torch
import transformers
from greenlet import getcurrent, greenlet
from torch.nn import functional as F

from chargpt_lib import trainer
from chargpt_lib.bpe import make_tokenizer
from chargpt_lib.checkpoints import build_model
from chargpt_lib.cli.commands import parameters_by_part
from chargpt_lib.cli.options import PRESETS
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.files import read_json, write_json
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.recipe import TrainConfig, make_optimizer
from chargpt_lib.scaling_laws import flops_per_token
from tests.benchmarks.machine import measured_on, processor_name
from tests.benchmarks.memory import peak_bytes, resident_bytes
from tests.benchmarks.step import HuggingFaceGPT2, PlainGPT, copy_weights, draw, spread, take_steps

OUT = Path(__file__).parents[2] / "data" / "results" / "throughput.json"
WARMUP = 8  # steps that are not counted
TOKENS = 4096  # of a batch, with --sizes
SECONDS = 10  # about so long the steps of a preset are measured
MATRIX = 2048  # rows and columns of the matrices whose product is the machine's peak
CASES = {  # name: (config, batch size, steps counted); GPT-2 has biases, and its own formula for the gelu
    "cpu, as GPT-2": (
        replace(GPTConfig.cpu(65), bias=True, qkv_bias=True, activation="gelu_tanh"),
        12,
        200,
    ),
    "cpu": (GPTConfig.cpu(65), 12, 200),
    "local, 3.2M, as GPT-2": (
        GPTConfig(
            65,
            block_size=128,
            n_layer=4,
            n_head=4,
            n_embd=256,
            bias=True,
            qkv_bias=True,
            activation="gelu_tanh",
        ),
        8,
        120,
    ),
}


def pause():
    """Lets the others go first."""
    getcurrent().parent.switch()


class Windows(torch.utils.data.Dataset):
    """Every window of a text, as transformers wants them: its model moves the labels by itself."""

    def __init__(self, ids, block_size):
        self.windows = ids.unfold(0, block_size, 1)

    def __len__(self):
        return len(self.windows)

    def __getitem__(self, i):
        return {"input_ids": self.windows[i], "labels": self.windows[i]}


class Pause(transformers.TrainerCallback):
    def on_step_begin(self, args, state, control, **rest):
        pause()


def of_weights(weights, config, Rival=None):
    """Ours with these weights, or a rival with the same ones."""
    model = GPT(config)
    model.load_state_dict(weights)
    if Rival is None:
        return model
    rival = Rival(config)
    copy_weights(model, rival)
    return rival


def ours(weights, ids, config, batch_size, steps, compile=False):
    model = of_weights(weights, config)
    settings = TrainConfig(
        steps=steps, batch_size=batch_size, schedule="wsd", decay=0.6, compile=compile
    )
    assert trainer.train(model, ids, settings)["compiled"] == compile, "torch.compile failed"


def plain(weights, ids, config, batch_size, steps):
    model = of_weights(weights, config, PlainGPT)
    for _ in take_steps(model, ids, config.block_size, batch_size, steps):
        pause()


def hugging_face(weights, ids, config, batch_size, steps):
    model = of_weights(weights, config, HuggingFaceGPT2)
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=1e-3,
            weight_decay=0.1,
            adam_beta2=0.99,
            warmup_steps=steps // 20,
            optim="adamw_torch_fused",
            save_strategy="no",
            report_to="none",
            use_cpu=True,
        )
        transformers.Trainer(
            model.gpt2, settings, train_dataset=Windows(ids, config.block_size), callbacks=[Pause()]
        ).train()


CONTENDERS = {
    "ours": ours,
    "plain": plain,
    "transformers": hugging_face,
    "ours, compiled": partial(ours, compile=True),
}


@torch.no_grad()
def same_model(weights, ids, config):
    """The three give the same loss for the same text."""
    model = of_weights(weights, config)
    x, y = draw(ids, config.block_size, 4, torch.Generator().manual_seed(0), "cpu")
    for Rival in (PlainGPT, HuggingFaceGPT2):
        rival = of_weights(weights, config, Rival)
        assert torch.allclose(model(x, y)[1], rival(x, y), rtol=0, atol=1e-5), (
            f"{Rival.__name__} is another model"
        )
    logits = rival.gpt2(input_ids=x, labels=x)
    assert torch.allclose(
        logits.loss, F.cross_entropy(logits.logits[:, :-1].flatten(0, 1), x[:, 1:].flatten())
    )


def seconds_per_step(config, batch_size, steps, ids):
    """-> {name: seconds of each step, as (steps,)}, and {name: seconds before the first one}."""
    torch.manual_seed(1337)
    weights = GPT(config).state_dict()
    same_model(weights, ids, config)
    turns = {
        name: greenlet(partial(begin, weights, ids, config, batch_size, steps + WARMUP + 2))
        for name, begin in CONTENDERS.items()
    }
    seconds, rng = {name: [] for name in turns}, random.Random(1337)
    # Our trainer begins a step by asking for its learning rate.
    get_lr = trainer.get_lr

    def get_lr_after_the_others(*args):
        pause()
        return get_lr(*args)

    with (
        mock.patch.object(trainer, "get_lr", get_lr_after_the_others),
        redirect_stdout(StringIO()),
    ):
        for _ in range(steps + WARMUP + 1):
            for name in rng.sample(
                list(turns), len(turns)
            ):  # who comes after whom matters: caches, freed memory
                start = time.perf_counter()
                turns[name].switch()
                seconds[name].append(time.perf_counter() - start)
    before = {name: round(passed[0], 1) for name, passed in seconds.items()}
    return {
        name: torch.tensor(passed[WARMUP + 1 :], dtype=torch.float64)
        for name, passed in seconds.items()
    }, before


# ---------------------------------------------------------------- every preset


def matrix_flops():
    """FLOP/s of a product of two large matrices in fp32: the best of some."""
    left = torch.rand(MATRIX, MATRIX)
    right = torch.rand(MATRIX, MATRIX)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return 2 * MATRIX**3 / min(seconds)


def measure_preset(name):
    """Some training steps of a preset in this process -> its row."""
    preset = PRESETS[name]
    corpus = load_corpus("playhouse")
    tokenizer = make_tokenizer("gpt2" if name == "gpt2" else "char", corpus)
    config = preset.model(tokenizer.vocab_size)
    training = TrainConfig(**preset.training)
    windows = min(training.batch_size, max(TOKENS // config.block_size, 1))

    peak = matrix_flops()
    before = resident_bytes(torch.device("cpu"))
    torch.manual_seed(1337)
    model = build_model(config)
    optimizer = make_optimizer(model, training)
    idx = torch.randint(config.vocab_size, (windows, config.block_size + 1))

    def step():
        _, loss = model(idx[:, :-1], idx[:, 1:])
        loss.backward()
        if training.grad_clip > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.grad_clip)
        optimizer.step()
        optimizer.zero_grad()

    step()
    seconds = []
    while len(seconds) < 3 or sum(seconds) < SECONDS:
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    memory = peak_bytes(torch.device("cpu")) - before
    # The machine may be slower or faster by now.
    peak = max(peak, matrix_flops())
    per_second = windows * config.block_size / torch.tensor(seconds, dtype=torch.float64)
    return {
        "parameters": model.num_params(),
        "parts": parameters_by_part(model),
        "FLOPs per token": flops_per_token(model),
        "unit": tokenizer.unit,
        "windows": windows,
        "block_size": config.block_size,
        "tokens a second": spread(per_second, 0),
        "peak, GFLOP/s": round(peak / 1e9, 1),
        "share of the peak": spread(per_second * flops_per_token(model) / peak, 3),
        "memory, bytes": memory,
    }


def measure_sizes():
    """A row for each preset, each from a fresh process: the peak of a process's memory never falls."""
    rows = {}
    for name in PRESETS:
        command = [sys.executable, "-m", "tests.benchmarks.throughput", "--preset", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows[name] = json.loads(done.stdout)
        print(name, rows[name], flush=True)
    return rows


def sizes_table(rows):
    """The rows as a Markdown table."""
    lines = [
        "| preset | parameters | tables, head | attention | feed-forward | FLOPs a token | tokens a second | of the peak | memory |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        parts = row["parts"]
        tables = sum(
            parts[part] for part in parts if part.endswith("embedding") or part == "lm_head"
        )
        lines.append(
            f"| {name} | {row['parameters']:,} | {tables:,} | {parts['attention']:,} "
            f"| {parts['feed-forward']:,} | {row['FLOPs per token'] / 1e6:,.1f} M "
            f"| {row['tokens a second']['median']:,.0f} | {row['share of the peak']['median']:.0%} "
            f"| {row['memory, bytes'] / 1e9:.2f} GB |"
        )
    return "\n".join(lines)


def main():
    if "--preset" in sys.argv:
        print(json.dumps(measure_preset(sys.argv[-1])))
        return
    report = read_json(OUT)
    if "--sizes" in sys.argv:
        sizes = {**measured_on("cpu"), "processor": processor_name(), "presets": measure_sizes()}
        write_json(OUT, {**report, "sizes": sizes})
        print(sizes_table(sizes["presets"]))
        return
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    corpus = load_corpus("playhouse")
    ids = CharTokenizer.from_text(corpus.train + corpus.val).encode(corpus.train)
    inductor = tempfile.TemporaryDirectory()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = inductor.name  # an empty one
    report = {
        **report,
        **measured_on("cpu", transformers),
        "what": "characters a second of a whole training; ratio: the other's seconds for a step to ours in the same round; above 1, ours is faster",
        "cases": {},
    }
    for case, (config, batch_size, steps) in CASES.items():
        print(f"{case}: {steps} rounds")
        seconds, before = seconds_per_step(config, batch_size, steps, ids)
        characters = batch_size * config.block_size
        report["cases"][case] = {
            "config": asdict(config),
            "batch_size": batch_size,
            "steps": steps,
            "characters a second": {
                name: spread(characters / values, 0) for name, values in seconds.items()
            },
            "seconds before the first step": before,
            "ratio": {
                name: spread(seconds[name] / seconds["ours"], 3)
                for name in CONTENDERS
                if name != "ours"
            },
        }
        print(report["cases"][case]["ratio"], before)
    write_json(OUT, report)
    print(f"\n{report['what']}\nwritten to {OUT.relative_to(OUT.parents[2])}")


if __name__ == "__main__":
    main()
