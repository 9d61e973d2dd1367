"""Trains the model that comes with the course, and writes it down: data/models/playhouse/.

    python -m tests.benchmarks.recorded_model           about six minutes on two cores
    python -m tests.benchmarks.recorded_model growth    only growth.safetensors, from the copies of the last training

Lesson 06's GPT, trained for longer. `load_pretrained("playhouse")` opens it, and lessons 07, 08 and 09 look into it.

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
from chargpt_lib.playhouse import excess_by_kind
from chargpt_lib.training import fit, per_token_loss
from tests.benchmarks.machine import processor_name

OUT = HERE.root / "data" / "models" / "playhouse"
SETTINGS = {"steps": 6000, "batch_size": 8, "lr": 4e-3, "seed": 1337}
SNAPSHOTS = (0, 100, 200, 300, 400, 500, 600, 800, 1000, 1400, 2000, 3000, 4200)


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


def write_model(model, tokenizer, corpus, seconds):
    """The model's files and its record; the loss is that of the 16-bit weights."""
    save_for_sampling(model.half(), tokenizer, OUT)
    model.float()
    nats = per_token_loss(model, tokenizer.encode(corpus.val)).double()
    record = {
        "corpus": corpus.name,
        **SETTINGS,
        "parameters": model.num_params(),
        "loss": nats.mean().item(),
        "floor": corpus.val_entropy,
        "excess": excess_by_kind([None, *nats.tolist()], corpus.val_spans),
        "seconds": round(seconds, 1),
        "date": datetime.date.today().isoformat(),
        "made by": "python -m tests.benchmarks.recorded_model",
        "machine": {
            "processor": processor_name(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "sha256": hashlib.sha256((OUT / "model.safetensors").read_bytes()).hexdigest(),
    }
    write_json(OUT / "record.json", record)
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


def main():
    matplotlib.use("Agg")
    album = cache_dir() / "recorded-model"
    if sys.argv[1:] != ["growth"]:
        shutil.rmtree(
            album, ignore_errors=True
        )  # no copy of an earlier training may stay among them
        album.mkdir()
        OUT.mkdir(parents=True, exist_ok=True)
        corpus = load_corpus("playhouse")
        tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
        model, seconds = train(corpus, tokenizer, album)
        save_model(model, str(album / f"{SETTINGS['steps']}.safetensors"))
        print(write_model(model, tokenizer, corpus, seconds))
    save_file(measure_growth(album), OUT / "growth.safetensors")
    for path in sorted(OUT.iterdir()):
        path.chmod(0o644)  # safetensors writes files that only their owner can read
        print(f"{path.name:20} {path.stat().st_size:9,} bytes")


if __name__ == "__main__":
    main()
