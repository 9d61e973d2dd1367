"""What each part of the modern GPT brings: with and without, and how fast the whole is.

    python -m tests.benchmarks.modern rates       half an hour, two runs at a time: the learning rates
    python -m tests.benchmarks.modern parts       an hour, two runs at a time; goes on where it was interrupted
    python -m tests.benchmarks.modern speed       4 minutes, on a quiet machine

All three write into data/results/modern.json.

rates: lesson 06's GPT and the whole modern GPT, each with AdamW and with Muon, are trained with five learning rates on
Tiny Shakespeare, and validated on the last tenth of the training text, so that no rate is chosen by the text that the
parts are measured on. Every other row has two rates to choose from: the best one of the row that it differs from by a
part, and half of it.
parts: lesson 06's GPT with one part added, and the whole with one part taken away, each with three seeds: after equally
many steps, and after as many steps as fit into the time of lesson 06's GPT. How long a step of each takes is measured
first, step by step in turns and in time of the processor, so that what else the machine does changes nothing. All
losses are exact, over the whole validation text.
speed: a training step, and sampling with the cache, of the modern GPT beside lesson 06's of the same sizes.
"""

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import replace
from statistics import median

import torch
from torch.nn.utils import clip_grad_norm_

from build import HERE
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.files import read_json, write_json
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.modern import ModernConfig, ModernGPT
from chargpt_lib.recipe import TrainConfig, make_optimizer
from chargpt_lib.sampling import generate, prepare_for_sampling
from chargpt_lib.trainer import train
from chargpt_lib.training import evaluate
from tests.benchmarks.machine import measured_on

OUT = HERE.root / "data" / "results" / "modern.json"
SIZES = {"block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 96}
STEPS = 600
BATCH_SIZE = 16
SEEDS = (1337, 1338, 1339)
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)

# Lesson 06's GPT, in the words of a ModernConfig.
GPT_2019 = {
    "norm": "layer",
    "positions": "learned",
    "activation": "gelu",
    "n_kv_head": 0,
    "qk_norm": False,
    "softcap": 0.0,
    "n_gram": 0,
    "optimizer": "adamw",
}
WHOLE = {
    "norm": "rms",
    "positions": "rope",
    "activation": "swiglu",
    "n_kv_head": 2,
    "qk_norm": True,
    "softcap": 15.0,
    "n_gram": 4,
    "optimizer": "muon",
}
PARTS = {  # the name of a part: the setting that it is
    "RMSNorm": "norm",
    "RoPE": "positions",
    "SwiGLU": "activation",
    "grouped heads": "n_kv_head",
    "QK-norm": "qk_norm",
    "soft-capping": "softcap",
    "n-gram embeddings": "n_gram",
    "Muon": "optimizer",
}


def all_settings():
    """{row: settings} of all that is trained."""
    rows = {"GPT": GPT_2019, "whole": WHOLE}
    for part, setting in PARTS.items():
        rows[f"GPT + {part}"] = {**GPT_2019, setting: WHOLE[setting]}
        rows[f"whole - {part}"] = {**WHOLE, setting: GPT_2019[setting]}
    # Squared ReLU is the other activation that took GELU's place.
    rows["GPT + ReLU²"] = {**GPT_2019, "activation": "relu2"}
    rows["whole, ReLU² for SwiGLU"] = {**WHOLE, "activation": "relu2"}
    return rows


def build(settings, vocab_size, seed):
    """The model of a row."""
    torch.manual_seed(seed)
    chosen = {name: value for name, value in settings.items() if name != "optimizer"}
    return ModernGPT(ModernConfig(vocab_size, n_gram_rows=4096, **SIZES, **chosen))


def train_config(settings, steps, rate, seed):
    """How a row is trained."""
    return TrainConfig(
        steps=steps,
        batch_size=BATCH_SIZE,
        learning_rate=rate,
        optimizer=settings["optimizer"],
        # Long for so short a run. With 30 steps of warmup some rows stayed where a bigram model is, some of the time.
        warmup=0.2,
        schedule="wsd",
        decay=0.5,
        eval_interval=steps,
        eval_batches=1,
        seed=seed,
    )


def one_run(row, steps, rate, seed, on_tenth):
    """Trains a row -> its exact loss: on the validation text, or on the last tenth of the training text."""
    torch.set_num_threads(1)
    ids, val_ids, tokenizer = load()
    if on_tenth:
        cut = len(ids) * 9 // 10
        val_ids = ids[cut:]
        ids = ids[:cut]
    settings = all_settings()[row]
    model = build(settings, tokenizer.vocab_size, seed)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        train(model, ids, train_config(settings, steps, rate, seed), tokenizer)
    return evaluate(model, val_ids)


def run_all(runs):
    """Makes the runs, each the arguments of `one_run`, two at a time -> (the run, its loss), as they end."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        started = {pool.submit(one_run, *arguments): arguments for arguments in runs}
        for ended in as_completed(started):
            yield started[ended], ended.result()


def step_times(rows, ids, tokenizer, rounds=40):
    """The seconds of a training step of each row, in time of the processor: {row: seconds}."""
    models = {}
    for row, settings in rows.items():
        model = build(settings, tokenizer.vocab_size, 0)
        models[row] = model, make_optimizer(model, train_config(settings, 100, 1e-3, 0))
    x = ids[: BATCH_SIZE * SIZES["block_size"]].view(BATCH_SIZE, -1)
    y = ids[1 : BATCH_SIZE * SIZES["block_size"] + 1].view(BATCH_SIZE, -1)
    times = {row: [] for row in rows}
    for _ in range(rounds):
        for row, (model, optimizer) in models.items():
            start = time.process_time()
            optimizer.zero_grad()
            model(x, y)[1].backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            times[row].append(time.process_time() - start)
    return {row: median(seconds) for row, seconds in times.items()}


def load():
    """The texts of the runs: ids to train on, ids to validate on, the tokenizer."""
    corpus = load_corpus("shakespeare")
    tokenizer = CharTokenizer.from_text(corpus.train)
    return tokenizer.encode(corpus.train), tokenizer.encode(corpus.val), tokenizer


REFERENCES = ("GPT", "GPT + Muon", "whole", "whole - Muon")


def reference_of(row, settings):
    """The row that this one differs from by a part, with the same optimizer."""
    if row.startswith("GPT"):
        return "GPT" if settings["optimizer"] == "adamw" else "GPT + Muon"
    return "whole" if settings["optimizer"] == "muon" else "whole - Muon"


def best_rate(record, row):
    """The rate that was best for a row."""
    losses = record["rates"][row]
    return float(min(losses, key=losses.get))


def try_rates(rates):
    """Adds to the record the losses that it lacks: {row: rates}."""
    record = read_json(OUT)
    found = record.setdefault("rates", {})
    runs = []
    for row, tried in rates.items():
        for rate in tried:
            if f"{rate:g}" not in found.setdefault(row, {}):
                runs.append((row, STEPS, rate, SEEDS[0], True))
    for (row, _, rate, _, _), loss in run_all(runs):
        found[row][f"{rate:g}"] = loss
        write_json(OUT, record)
        print(f"{row:28} {rate:g} {loss:.4f}", flush=True)


def measure_rates():
    """The loss of each row with its learning rates, on a tenth of the training text."""
    try_rates({row: RATES for row in REFERENCES})
    record = read_json(OUT)
    rates = {}
    for row, settings in all_settings().items():
        if row not in REFERENCES:
            # The reference's best may be too large for a row whose training is less stable.
            best = best_rate(record, reference_of(row, settings))
            rates[row] = (best / 2, best)
    try_rates(rates)


def describe_parts(record):
    """What the rows are, without their losses: {row: dict}."""
    torch.set_num_threads(1)
    ids, _, tokenizer = load()
    rows = all_settings()
    times = step_times(rows, ids, tokenizer)
    parts = {}
    for row, settings in rows.items():
        parts[row] = {
            "settings": settings,
            "parameters": build(settings, tokenizer.vocab_size, 0).num_params(),
            "seconds_per_step": times[row],
            "chars_per_second": BATCH_SIZE * SIZES["block_size"] / times[row],
            "rate": best_rate(record, row),
            "steps": {
                "equal steps": STEPS,
                "equal time": round(STEPS * times["GPT"] / times[row]),
            },
            "losses": {"equal steps": {}, "equal time": {}},
        }
    return parts


def measure_parts():
    """Trains every row, each seed, for equal steps and for equal time."""
    record = read_json(OUT)
    if "parts" not in record:
        record["parts"] = describe_parts(record)
        record["parts_settings"] = {
            **SIZES,
            "batch_size": BATCH_SIZE,
            "corpus": "shakespeare",
            "schedule": "wsd",
            "warmup": 0.2,
            "decay": 0.5,
            **measured_on("cpu"),
        }
        write_json(OUT, record)
    parts = record["parts"]
    runs = []
    for seed in SEEDS:
        for row, part in parts.items():
            for steps in sorted(set(part["steps"].values())):
                done = all(
                    str(seed) in part["losses"][budget]
                    for budget in part["steps"]
                    if part["steps"][budget] == steps
                )
                if not done:
                    runs.append((row, steps, part["rate"], seed, False))
    for (row, steps, _, seed, _), loss in run_all(runs):
        for budget in parts[row]["steps"]:
            if parts[row]["steps"][budget] == steps:
                parts[row]["losses"][budget][str(seed)] = loss
        write_json(OUT, record)
        print(f"{seed} {row:28} {steps} steps {loss:.4f}", flush=True)


SPEED_SIZES = {  # the sizes of lesson 06's presets, and a batch
    "cpu": (GPTConfig.cpu(65), 12),
    "playhouse": (GPTConfig.cpu(54, block_size=192, n_embd=96, n_head=6), 6),
    "baby": (replace(GPTConfig.baby(65), dropout=0.0), 4),
}


def modern_of(config):
    """The modern GPT with the sizes of a GPTConfig, two heads of queries for each head of keys."""
    return ModernConfig(
        config.vocab_size,
        config.block_size,
        config.n_layer,
        config.n_head,
        config.n_head // 2,
        config.n_embd,
    )


def step_ratios(config, batch_size, rounds):
    """How much longer a training step of the modern GPT takes, with AdamW and with Muon: quartiles of the ratios."""
    models = {"GPT": GPT(config), "modern": ModernGPT(modern_of(config))}
    models["modern, Muon"] = ModernGPT(modern_of(config))
    trained = {}
    for name, model in models.items():
        optimizer = "muon" if "Muon" in name else "adamw"
        trained[name] = model, make_optimizer(model, TrainConfig(optimizer=optimizer))
    shape = (batch_size, config.block_size)
    x = torch.randint(config.vocab_size, shape)
    y = torch.randint(config.vocab_size, shape)
    times = {name: [] for name in trained}
    for _ in range(rounds):
        for name, (model, optimizer) in trained.items():
            start = time.perf_counter()
            optimizer.zero_grad()
            model(x, y)[1].backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            times[name].append(time.perf_counter() - start)
    result = {"milliseconds": 1000 * median(times["GPT"][2:])}
    for name in ("modern", "modern, Muon"):
        ratios = [a / b for a, b in zip(times[name][2:], times["GPT"][2:])]
        result[name] = torch.tensor(ratios).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return result


def sampling_speeds(config, rounds):
    """Characters a second with the cache, one sequence: within a block, and three blocks long."""
    models = {
        "GPT": prepare_for_sampling(GPT(config)),
        "modern": prepare_for_sampling(ModernGPT(modern_of(config))),
    }
    prompt = torch.zeros(1, 1, dtype=torch.int64)
    result = {}
    for name, length in (
        ("one block", config.block_size - 1),
        ("two blocks", 2 * config.block_size),
    ):
        speeds = {model: [] for model in models}
        for _ in range(rounds):
            for model in models:
                start = time.perf_counter()
                generate(models[model], prompt, length, seed=1)
                speeds[model].append(length / (time.perf_counter() - start))
        ratios = [a / b for a, b in zip(speeds["modern"], speeds["GPT"])]
        result[name] = {
            **{model: median(found) for model, found in speeds.items()},
            "ratio": median(ratios),
        }
    return result


def measure_speed():
    """Training steps and sampling, side by side."""
    record = read_json(OUT)
    record["speed"] = {"machine": measured_on("cpu")}
    for name, (config, batch_size) in SPEED_SIZES.items():
        record["speed"][name] = {
            "step": step_ratios(config, batch_size, 12 if name == "baby" else 60),
            "sampling": sampling_speeds(config, 3 if name == "baby" else 5),
        }
        print(name, record["speed"][name], flush=True)
    write_json(OUT, record)


COMMANDS = {"rates": measure_rates, "parts": measure_parts, "speed": measure_speed}

if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    for name in sys.argv[1:]:
        COMMANDS[name]()
