# Made from notebooks/source/02_training_loop.py by notebooks/tools/build.py. Edit that text, not this file.
"""Training: the loop, the exact loss, the loss above the entropy by cause, and models trained once."""

import hashlib
import inspect
import json
import os
import sys
import time
from itertools import groupby
from math import isfinite
from pathlib import Path
from types import CodeType, FunctionType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch.nn import functional as F
from tqdm import tqdm

from chargpt_lib.data import CharTokenizer, get_batch
from chargpt_lib.files import cache_dir, recorded
from chargpt_lib.playhouse import excess_by_kind
from chargpt_lib.plots import plot_excess

__all__ = [
    "pace",
    "PAUSE",
    "put_aside",
    "take_up",
    "fit",
    "estimate_loss",
    "nats_per_character",
    "evaluate",
    "names_in",
    "source_of",
    "fingerprint",
    "write_json",
    "read_json",
    "load_or_fit",
    "RUNGS",
    "ladder",
    "plot_ladder",
]


def pace(step, steps, warmup=0.05, decay=0.6):
    """The learning rate at a step, as a share of the peak: a linear warmup, a plateau, a linear decay to nothing.

    warmup and decay are shares of all steps.
    """
    return min((step + 1) / max(warmup * steps, 1), (steps - step) / max(decay * steps, 1), 1.0)


PAUSE = 30  # seconds


def put_aside(keep, model, optimizer, dice, losses):
    """Writes all that `fit` needs to go on, under a temporary name first."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "losses": losses,
        "dice": [dice.get_state(), torch.get_rng_state()],
    }
    torch.save(state, f"{keep}.part")
    os.replace(f"{keep}.part", keep)


def take_up(keep, model, optimizer, dice):
    """Makes everything as it was when it was put aside -> the losses so far."""
    try:
        state = torch.load(keep, map_location="cpu", weights_only=True)
    except Exception:  # not there, or damaged, for which torch has many names
        return []
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    dice.set_state(state["dice"][0])
    torch.set_rng_state(state["dice"][1])
    return state["losses"]


def fit(
    model, ids, steps, batch_size=32, lr=1e-3, weight_decay=0.1, seed=1337, keep=None, watch=None
):
    """Trains the model on random windows of a text -> the losses (steps,), in nats per character.

    ids (N,) int64; lr is the peak learning rate. keep: a file to put things aside, and to go on from if it is there.
    watch(step, model) is called before each step. FloatingPointError where the loss is no longer a finite number.
    """
    torch.manual_seed(seed)  # for dropout
    device = next(model.parameters()).device
    parameters = list(model.parameters())
    matrices = [p for p in parameters if p.dim() > 1]
    others = [p for p in parameters if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=lr, betas=(0.9, 0.99), fused=device.type in ("cpu", "cuda")
    )
    generator, saved = torch.Generator().manual_seed(seed), time.perf_counter()
    losses = take_up(keep, model, optimizer, generator) if keep else []
    model.train()
    with tqdm(
        range(len(losses), steps),
        initial=len(losses),
        total=steps,
        unit="step",
        mininterval=0.5,
        file=sys.stdout,
    ) as bar:
        for step in bar:
            if keep and time.perf_counter() - saved > PAUSE:
                put_aside(keep, model, optimizer, generator, losses)
                saved = time.perf_counter()
            if watch:
                watch(step, model)
            for group in optimizer.param_groups:
                group["lr"] = lr * pace(step, steps)
            x, y = get_batch(ids, model.block_size, batch_size, generator, device)
            optimizer.zero_grad()
            _, loss = model(x, y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            losses.append(loss.item())
            if not isfinite(losses[-1]):
                raise FloatingPointError(
                    f"the loss is {losses[-1]} at step {step}, after {losses[-4:-1]}; the peak "
                    f"learning rate is {lr}: try a tenth of it, from a new model"
                )
            if step % 20 == 0:
                bar.set_postfix(loss=f"{losses[-1]:.3f}")
    model.eval()
    return torch.tensor(losses)


@torch.no_grad()
def estimate_loss(model, ids, batches=50, batch_size=32, generator=None):
    """The mean loss over random windows, in nats per character: quick and rough."""
    model.eval()
    device = next(model.parameters()).device
    draws = (
        get_batch(ids, model.block_size, batch_size, generator, device) for _ in range(batches)
    )
    return sum(model(x, y)[1].item() for x, y in draws) / batches


@torch.no_grad()
def nats_per_character(model, ids, stride=None, batch_size=64):
    """What the model pays for each character of a text but the first: ids (N,) -> (N - 1,), on the CPU.

    Windows of block_size, one after the other, the shorter last one included. The first character of a window is
    asked for with no more than one character of past; with stride < block_size the windows overlap, and each
    character (but the very first ones) has at least block_size - stride characters of past.
    """
    if len(ids) < 2:
        raise ValueError("a text of fewer than 2 characters has nothing to predict")
    stride = model.block_size if stride is None else stride
    if not 1 <= stride <= model.block_size:
        raise ValueError(
            f"stride is {stride}; it must be from 1 to the block_size, {model.block_size}"
        )
    model.eval()
    device = next(model.parameters()).device
    windows = []  # (from, to, the first character counted)
    for start in range(0, len(ids) - 1, stride):
        windows.append(
            (max(0, start + stride - model.block_size), min(start + stride, len(ids) - 1), start)
        )
    pieces = []
    for _, group in groupby(
        windows, key=lambda window: (window[1] - window[0], window[2] - window[0])
    ):
        group = list(group)
        for i in range(0, len(group), batch_size):
            x = torch.stack([ids[a:b] for a, b, _ in group[i : i + batch_size]]).to(device)
            y = torch.stack([ids[a + 1 : b + 1] for a, b, _ in group[i : i + batch_size]]).to(
                device
            )
            nats = F.cross_entropy(model(x)[0].transpose(1, 2), y, reduction="none")  # (B, T)
            pieces.append(nats[:, group[0][2] - group[0][0] :].flatten().cpu())
    return torch.cat(pieces)


def evaluate(model, ids, stride=None):
    """The exact loss over a whole text, in nats per character."""
    return nats_per_character(model, ids, stride).double().mean().item()


def names_in(code):
    """The names that a piece of code uses, with those in its inner functions."""
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from names_in(part)


def source_of(thing, found):
    """Adds to the set `found` the source of a function of ours, and of all functions of ours that it names."""
    if isinstance(thing, (dict, list, tuple)):
        for part in thing.values() if isinstance(thing, dict) else thing:
            source_of(part, found)
    thing = (
        thing.fget
        if isinstance(thing, property)
        else inspect.unwrap(getattr(thing, "__func__", thing))
    )
    if isinstance(thing, FunctionType) and thing.__module__.split(".")[0] in (
        "__main__",
        "chargpt_lib",
    ):
        source = inspect.getsource(thing)
        if source not in found:
            found.add(source)
            for name in names_in(thing.__code__):
                source_of(thing.__globals__.get(name), found)


def fingerprint(model, corpus, settings):
    """A short text that changes whenever the model, its start, the corpus, the settings or the code do."""
    found, plain = set(), []
    source_of([fit, nats_per_character, excess_by_kind], found)
    for layer in model.modules():
        for ancestor in type(layer).__mro__:
            if ancestor.__module__.split(".")[0] in ("__main__", "chargpt_lib"):
                source_of(dict(vars(ancestor)), found)
        plain.append(
            {
                k: v
                for k, v in vars(layer).items()
                if isinstance(v, (int, float, str)) and k != "training"
            }
        )
    digest = hashlib.sha256(json.dumps([plain, settings, sorted(found)], sort_keys=True).encode())
    digest.update("\0".join((corpus.train, corpus.val)).encode())
    for weights in model.state_dict().values():
        digest.update(weights.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def write_json(path, value):
    """Writes JSON under a temporary name first, so that there is never half a file."""
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(temporary, path)


def read_json(path):
    """What `write_json` wrote; {} where there is nothing, or something damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def load_or_fit(rung, model, corpus, sample_chars=400, keep=None, watch=None, **settings):
    """Trains the model on the corpus, or loads what an earlier run trained; records the result as a rung.

    keep: a folder for what is trained, wholly or half; without one, the cache. watch, settings: as for `fit`.
    Returns {"loss": exact validation loss, "floor", "seconds": of training, without those before an interruption,
    "excess": {kind: nats}, "losses": of each step, "sample": a text it wrote}.
    """
    key, folder = (
        fingerprint(model, corpus, {**settings, "sample": sample_chars}),
        Path(keep or cache_dir()),
    )
    if not folder.parent.is_dir():
        raise FileNotFoundError(
            f"{folder.parent} is not there, so {folder} cannot be made: mount the Drive first?"
        )
    folder.mkdir(exist_ok=True)
    weights, report, half = (folder / f"{key}.{kind}" for kind in ("safetensors", "json", "half"))
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    if model.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            f"the model knows {model.vocab_size} symbols and the corpus {corpus.name} has "
            f"{tokenizer.vocab_size}: make the model with the vocab_size of this corpus' tokenizer"
        )
    result = read_json(report)
    try:
        if result:
            load_model(model, weights)
            model.eval()
    except (OSError, SafetensorError):  # not there, or damaged
        result = {}
    if not result:
        began, val_ids = time.perf_counter(), tokenizer.encode(corpus.val)
        losses = fit(model, tokenizer.encode(corpus.train), keep=half, watch=watch, **settings)
        result = {
            "floor": corpus.val_floor,
            "seconds": time.perf_counter() - began,
            "losses": losses.tolist(),
        }
        nats = nats_per_character(model, val_ids).double()
        result["loss"] = nats.mean().item()
        result["excess"] = (
            excess_by_kind([None, *nats.tolist()], corpus.val_spans) if corpus.val_spans else {}
        )
        written = model.generate(
            val_ids[:1][None].to(next(model.parameters()).device), sample_chars
        )
        result["sample"] = tokenizer.decode(written[0].cpu()).strip()
        save_model(model, str(weights) + ".part")
        os.replace(str(weights) + ".part", weights)
        write_json(report, result)
        half.unlink(missing_ok=True)
    own = read_json(cache_dir() / "ladder.json")
    own.setdefault(corpus.name, {})[rung] = {k: v for k, v in result.items() if k != "losses"}
    write_json(cache_dir() / "ladder.json", own)
    return result


RUNGS = ("bigram", "single head", "multi-head", "blocks", "GPT")


def ladder(corpus="playhouse"):
    """{rung: its result}, in the order of the lessons; "recorded" is False where you trained it yourself."""
    own = read_json(cache_dir() / "ladder.json").get(corpus, {})
    rows = {rung: own.get(rung) or recorded().get(corpus, {}).get(rung) for rung in RUNGS}
    return {rung: {**row, "recorded": rung not in own} for rung, row in rows.items() if row}


def plot_ladder(corpus="playhouse", upto=RUNGS[-1]):
    """The ladder down to a rung as bars, stacked by kind where the corpus has spans -> matplotlib figure."""
    if upto not in RUNGS:
        raise ValueError(f"no rung is called {upto!r}: there are {', '.join(RUNGS)}")
    shown, rows = RUNGS[: RUNGS.index(upto) + 1], ladder(corpus)
    rows = {
        f"{rung} (recorded)" if rows[rung]["recorded"] else rung: rows[rung]
        for rung in shown
        if rung in rows
    }
    if not rows:
        raise ValueError(
            f"there is no result for the corpus {corpus!r}: train a rung on it first, with load_or_fit"
        )
    if all(row["excess"] for row in rows.values()):
        return plot_excess(
            {name: row["excess"] for name, row in rows.items()}, next(iter(rows.values()))["floor"]
        )
    from matplotlib.pyplot import subplots

    fig, ax = subplots(figsize=(9, 1.3 + 0.4 * len(rows)), layout="constrained")
    ax.bar_label(
        ax.barh(list(rows), [row["loss"] for row in rows.values()], color="#0072B2"), fmt=" %.2f"
    )
    ax.set(xlabel="nats per character", title=f"The ladder on {corpus}")
    ax.invert_yaxis()
    return fig
