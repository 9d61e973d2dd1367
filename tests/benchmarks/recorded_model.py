"""Trains the models that come with the course, and writes them down: data/models/playhouse/ and data/models/shakespeare/.

    python -m tests.benchmarks.recorded_model              about six minutes on two cores
    python -m tests.benchmarks.recorded_model growth       only growth.safetensors, from the copies of the last training
    python -m tests.benchmarks.recorded_model shakespeare  about an hour on one core

playhouse is lesson 06's GPT, trained for longer. `load_pretrained("playhouse")` opens it, and lessons 07, 08 and 09 look
into it. shakespeare is lesson 16's GPT with the parts that won the race, for the first page of the site; its weights are
those of the evaluation with the least loss. `load_model` opens it.

    model.safetensors   the weights, 16 bits each
    config.json         as lesson 09's `save_model` writes it
    tokenizer.json      likewise; alphabet.json, where it is still there, is the form before that
    record.json         how it was trained, where, its exact loss, the sha256 of the weights
    growth.safetensors  what the heads looked at while it was trained: measured by the cells of lesson 07 on copies of the
                        model that were kept on the way, and not the copies themselves
"""

import datetime
import hashlib
import re
import shutil
import sys
import time

import matplotlib
import torch
from safetensors.torch import save_file, save_model

from build import HERE, read_lessons
from chargpt_lib.checkpoints import save_model as save_for_sampling
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.files import cache_dir, write_json
from chargpt_lib.gpt import GPT, PLAYHOUSE, GPTConfig
from chargpt_lib.modern import ModernConfig, ModernGPT
from chargpt_lib.playhouse import excess_by_kind
from chargpt_lib.recipe import TrainConfig
from chargpt_lib.trainer import train as train_model
from chargpt_lib.training import fit, per_token_loss
from tests.benchmarks.machine import processor_name

MODELS = HERE.root / "data" / "models"
OUT = MODELS / "playhouse"
SETTINGS = {"steps": 6000, "batch_size": 8, "lr": 4e-3, "seed": 1337}
SNAPSHOTS = (0, 100, 200, 300, 400, 500, 600, 800, 1000, 1400, 2000, 3000, 4200)

SHAKESPEARE = {
    "block_size": 256,
    "n_layer": 6,
    "n_head": 5,
    "n_embd": 160,
    "dropout": 0.1,
    "activation": "relu2",
    "softcap": 0.0,
    "tied": False,
}
SHAKESPEARE_TRAINING = {
    "steps": 5000,
    "batch_size": 8,
    "optimizer": "muon",
    "learning_rate": 4e-3,
    "schedule": "wsd",
    "warmup": 0.02,
    "decay": 0.5,
    "eval_interval": 500,
}


def train(corpus, tokenizer, album):
    """-> the model, with weights that 16 bits can hold, and the seconds of training; copies of it in the folder album."""
    torch.manual_seed(SETTINGS["seed"])
    model = GPT(GPTConfig.cpu(tokenizer.vocab_size, **PLAYHOUSE))

    def keep_copy(step, model):
        if step in SNAPSHOTS:
            save_model(model, str(album / f"{step}.safetensors"))

    start = time.perf_counter()
    fit(model, tokenizer.encode(corpus.train), callback=keep_copy, **SETTINGS)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    return model, seconds


def train_shakespeare(corpus, tokenizer):
    """-> lesson 16's GPT, and the seconds of training."""
    torch.manual_seed(SETTINGS["seed"])
    model = ModernGPT(ModernConfig(tokenizer.vocab_size, **SHAKESPEARE))
    config = TrainConfig(**SHAKESPEARE_TRAINING, out=cache_dir() / "recorded-shakespeare")
    result = train_model(model, corpus, config, tokenizer)
    return model, result["seconds"]


def write_model(model, tokenizer, corpus, settings, seconds, command, out):
    """The model's files and its record; the loss is that of the 16-bit weights."""
    save_for_sampling(model.half(), tokenizer, out)
    model.float()
    nats = per_token_loss(model, tokenizer.encode(corpus.val)).double()
    record = {
        "corpus": corpus.name,
        **settings,
        "parameters": model.num_params(),
        "loss": nats.mean().item(),
    }
    if corpus.val_entropy is not None:
        record["floor"] = corpus.val_entropy
        record["excess"] = excess_by_kind([None, *nats.tolist()], corpus.val_spans)
    record |= {
        "seconds": round(seconds, 1),
        "date": datetime.date.today().isoformat(),
        "made by": f"python -m tests.benchmarks.recorded_model {command}".strip(),
        "machine": {
            "processor": processor_name(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "sha256": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
    }
    write_json(out / "record.json", record)
    return record


def measure_growth(album):
    """Runs lesson 07 as far as its function `measure_growth`, and calls that on the copies of the model."""
    lesson = next(lesson for lesson in read_lessons(HERE) if lesson.module == "attention_maps")
    names = {"__name__": "__main__"}
    for cell in lesson.cells:
        if cell.cell_type == "code" and "check(" not in cell.source:
            exec(compile(cell.source, lesson.source, "exec"), names)
        if re.search(r"^def measure_growth", cell.source, re.M):
            return names["measure_growth"](album)
    raise LookupError(f"{lesson.source} has no function measure_growth")


def record_playhouse(only_growth):
    """Trains and writes down the model of the plays, or only measures again how its heads grew."""
    album = cache_dir() / "recorded-model"
    if not only_growth:
        shutil.rmtree(
            album, ignore_errors=True
        )  # no copy of an earlier training may stay among them
        album.mkdir()
        OUT.mkdir(parents=True, exist_ok=True)
        corpus = load_corpus("playhouse")
        tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
        model, seconds = train(corpus, tokenizer, album)
        save_model(model, str(album / f"{SETTINGS['steps']}.safetensors"))
        print(write_model(model, tokenizer, corpus, SETTINGS, seconds, "", OUT))
    save_file(measure_growth(album), OUT / "growth.safetensors")
    return OUT


def record_shakespeare():
    """Trains and writes down the model of Shakespeare's lines."""
    out = MODELS / "shakespeare"
    out.mkdir(parents=True, exist_ok=True)
    corpus = load_corpus("shakespeare")
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    model, seconds = train_shakespeare(corpus, tokenizer)
    settings = {**SHAKESPEARE_TRAINING, "seed": SETTINGS["seed"]}
    print(write_model(model, tokenizer, corpus, settings, seconds, "shakespeare", out))
    return out


def main():
    matplotlib.use("Agg")
    what = sys.argv[1:]
    if what == ["shakespeare"]:
        folder = record_shakespeare()
    elif what in ([], ["growth"]):
        folder = record_playhouse(only_growth=what == ["growth"])
    else:
        sys.exit(f"unknown: {' '.join(what)}; give nothing, growth or shakespeare")
    for path in sorted(folder.iterdir()):
        path.chmod(0o644)  # safetensors writes files that only their owner can read
        print(f"{path.name:20} {path.stat().st_size:9,} bytes")


if __name__ == "__main__":
    main()
