"""What tests/test_distributed.py starts in two processes: all that can be tried in one launch. Each writes what it saw."""

import json
import os
import signal
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)

from chargpt_lib import trainer
from chargpt_lib.data import CharTokenizer
from chargpt_lib.distributed import train_distributed
from chargpt_lib.recipe import ShuffledWindows
from chargpt_lib.training import evaluate
from tests.tiny import CORPUS, IDS, TEXT, TOKENIZER, VAL, settings, tiny_gpt, tiny_modern_gpt

RANK = int(os.environ.get("RANK", 0))
CASES = {  # what both the one process and the two are told; all but the first compute in float64
    "plain": {},
    "exact": {},
    "accumulated": {"grad_accum": 3},
    "clipped": {"grad_clip": 0.1},
    "estimated": {"eval_batches": 3},
    "epochs": {"steps": None, "epochs": 1.5},
    "checkpointed": {"gradient_checkpointing": True},
    "muon": {"optimizer": "muon"},
    "modern": {"optimizer": "muon"},
    "short": {},
}


def case(name, seed=0):
    model = tiny_modern_gpt(seed) if name == "modern" else tiny_gpt(seed)
    return model.to(torch.float32 if name == "plain" else torch.float64)


def corpus(name):
    return (
        CORPUS._replace(val=CORPUS.val[:13]) if name == "short" else CORPUS
    )  # not even one window for each


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


class Cut:
    """Data that cuts its own windows, as shards do."""

    tokenizer, val_ids = TOKENIZER, VAL

    def windows(self, block_size, seed):
        return ShuffledWindows(IDS, block_size, seed)


def at_step(model, step, act):
    """Calls act() in the forward pass of a training step, counted from 1."""
    count = 0

    def hook(module, inputs):
        nonlocal count
        count += module.training
        if module.training and count == step:
            act()

    model.register_forward_pre_hook(hook)
    return model


def press():
    signal.raise_signal(signal.SIGINT)


def said(name, do):
    """The error that do() raises."""
    try:
        do()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def everything(folder):
    seen = {}
    for name, changes in CASES.items():
        model = case(name, seed=RANK)  # the first one's weights count
        result = train_distributed(model, corpus(name), settings(**changes))
        seen[name] = result, weights(model)
    seen["cut"] = train_distributed(tiny_gpt(), Cut(), settings())
    seen["fp16"] = train_distributed(tiny_gpt(), CORPUS, settings(precision="fp16"))
    few = CORPUS._replace(train=TEXT[:120])
    wide = CharTokenizer.from_text(TEXT + "€")
    seen["patience"] = train_distributed(
        tiny_gpt(vocab_size=wide.vocab_size, n_embd=32),
        few,
        settings(steps=600, eval_interval=10, patience=3, out=str(folder / "patience")),
        wide,
    )
    seen["budget"] = train_distributed(tiny_gpt(), CORPUS, settings(steps=None, time_budget=0.5))
    for fsdp in (False, True):
        kind = "fsdp" if fsdp else "ddp"
        for name, changes in {
            "whole": {},
            "parts": {},
            "accumulated": CASES["accumulated"],
        }.items():
            config = settings(out=str(folder / f"{kind} {name}"), **changes)
            model = tiny_gpt(seed=RANK, dropout=0.0 if name == "accumulated" else 0.1)
            if name == "parts":
                if RANK == 1:
                    at_step(model, 7, press)
                seen[kind, "stopped"] = train_distributed(model, CORPUS, config, fsdp=fsdp)
                model = tiny_gpt(seed=9, dropout=0.1)
                torch.manual_seed(99)
            seen[kind, name] = train_distributed(
                model, CORPUS, config, resume=name == "parts", fsdp=fsdp
            )
            seen[kind, name, "weights"] = {} if fsdp else weights(model)
    seen["fsdp", "fp16"] = train_distributed(
        tiny_gpt(), CORPUS, settings(precision="fp16", out=str(folder / "fsdp fp16")), fsdp=True
    )
    seen["fsdp", "from step 0"] = resumed_from_step_0(folder)
    seen["fsdp", "best"] = best_weights_in_parts(folder, few, wide)
    seen["errors"] = errors(folder)
    torch.save(seen, folder / f"seen {RANK}.pt")


def resumed_from_step_0(folder):
    """A run that fails in its first step, and goes on from the untrained model that was saved before it."""
    config = settings(out=str(folder / "fsdp from step 0"))
    failing = at_step(tiny_gpt(seed=0, dropout=0.1), 1, lambda: 1 / 0)
    assert said(
        "failing", lambda: train_distributed(failing, CORPUS, config, fsdp=True)
    ).startswith("ZeroDivision")
    torch.manual_seed(99)
    model = tiny_gpt(seed=9, dropout=0.1)
    return train_distributed(model, CORPUS, config, resume=True, fsdp=True)


def best_weights_in_parts(folder, few, tokenizer):
    """A run whose best weights are not its last ones -> its result, and the loss of the model that is left."""
    model = tiny_gpt(vocab_size=tokenizer.vocab_size, n_embd=32)
    config = settings(steps=600, eval_interval=10, patience=3, out=str(folder / "fsdp best"))
    result = train_distributed(model, few, config, tokenizer, fsdp=True)
    return result, evaluate(model, tokenizer.encode(few.val))


def errors(folder):
    """What goes wrong in one process only, or in both."""

    def sick(fsdp=False):
        model = tiny_gpt()
        spoil = lambda: model.norm.weight.data.fill_(float("nan"))
        return train_distributed(
            at_step(model, 8, spoil) if RANK == 1 else model,
            CORPUS,
            settings(out=str(folder / f"sick {fsdp}"), checkpoint_interval=2, eval_interval=100),
        )

    def full():
        real, trainer.save_checkpoint = (
            trainer.save_checkpoint,
            lambda *more: 1 / 0 if more[4] == 10 else real(*more),
        )
        try:
            train_distributed(
                tiny_gpt(), CORPUS, settings(out=str(folder / "full"), checkpoint_interval=5)
            )
        finally:
            trainer.save_checkpoint = real

    occupied = settings(out=str(folder / "ddp whole"))
    return {
        "occupied": said("occupied", lambda: train_distributed(tiny_gpt(), CORPUS, occupied)),
        "sick": said("sick", sick),
        "full": said("full", full),
        "alone": said(
            "alone",
            lambda: train_distributed(
                tiny_gpt(), CORPUS, settings(out=str(folder / "alone")), resume=True
            ),
        ),
        "nowhere": said(
            "nowhere", lambda: train_distributed(tiny_gpt(), CORPUS, settings(), fsdp=True)
        ),
        "muon in parts": said(
            "muon in parts",
            lambda: train_distributed(
                tiny_gpt(),
                CORPUS,
                settings(out=str(folder / "muon in parts"), optimizer="muon"),
                fsdp=True,
            ),
        ),
    }


def interrupted(folder):
    """Says when it is on its way, so that somebody can interrupt it."""
    model = at_step(tiny_gpt(), 5, lambda: (folder / f"on its way {RANK}").touch())
    result = train_distributed(model, CORPUS, settings(steps=100_000, out=str(folder / "run")))
    (folder / f"result {RANK}").write_text(json.dumps(result))


def broken(folder):
    def fail():
        raise MemoryError("only here")

    train_distributed(
        at_step(tiny_gpt(), 5, fail) if RANK == 1 else tiny_gpt(),
        CORPUS,
        settings(steps=100_000, out=str(folder / "run")),
    )


def short(folder):
    model = tiny_gpt(seed=RANK)
    result = train_distributed(model, CORPUS, settings(), device="cpu")
    torch.save((result, weights(model)), folder / f"short {RANK}.pt")


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
