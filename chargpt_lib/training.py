# Made from notebooks/source/02_training_loop.py by notebooks/tools/build.py. Edit that text, not this file.
"""Training: the loop, the exact loss, the loss above the entropy by cause, and models trained once."""

import hashlib
import inspect
import json
import sys
import time
from dataclasses import asdict
from itertools import groupby
from math import isfinite
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch.nn import functional as F
from tqdm import tqdm

import chargpt_lib
from chargpt_lib.data import CharTokenizer, get_batch
from chargpt_lib.files import atomic_write, bundled_results, read_json, write_json
from chargpt_lib.files import cache_dir as default_cache_dir
from chargpt_lib.playhouse import choice_weights, excess_by_kind
from chargpt_lib.plots import plot_excess, prepare_texts

__all__ = [
    "lr_multiplier",
    "param_groups",
    "SAVE_EVERY_SECONDS",
    "fit",
    "estimate_loss",
    "per_token_loss",
    "evaluate",
    "cache_key",
    "cache_file_name",
    "nats_by_character",
    "load_or_fit",
    "MODEL_NAMES",
    "ladder",
    "plot_ladder",
]


def lr_multiplier(step, steps, warmup=0.05, decay=0.6):
    """The learning rate at a step, as a share of the peak: a linear warmup, a plateau, a linear decay to nothing.

    warmup and decay are shares of all steps.
    """
    # At least one step, so that a share of 0 divides by 1.
    rising = (step + 1) / max(warmup * steps, 1)
    falling = (steps - step) / max(decay * steps, 1)
    return min(rising, falling, 1.0)


def param_groups(model, weight_decay):
    """The parameters in two groups for AdamW: matrices and tables with weight decay, all others without."""
    # A matrix can spare small weights; a gain or a bias pulled to zero could not do its work.
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


SAVE_EVERY_SECONDS = 30


def _save_state(path, model, optimizer, generator, losses):
    """Writes all that `fit` needs to go on, whole or not at all. Raises: OSError."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "losses": losses,
        "generator": generator.get_state(),  # for the batches
        "torch": torch.get_rng_state(),  # for dropout
    }
    atomic_write(path, lambda temporary: torch.save(state, temporary))


def _load_state(path, model, optimizer, generator):
    """Makes everything as it was when it was saved -> the losses so far; none, and no change, without such a file."""
    try:
        # weights_only: numbers and texts, and nothing that would run. To the CPU: load_state_dict moves it on.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # not there, or damaged, for which torch has many names
        return []
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    generator.set_state(state["generator"])
    torch.set_rng_state(state["torch"])
    return state["losses"]


def fit(
    model,
    ids,
    steps,
    batch_size=32,
    lr=1e-3,
    weight_decay=0.1,
    seed=1337,
    checkpoint_path=None,
    callback=None,
):
    """Trains the model on random windows of a text -> the losses (steps,), in nats per character.

    ids (N,) int64; lr is the peak learning rate. checkpoint_path: a file to save the state of the training in, now and
    then, and to resume from where it is there. callback(step, model) is called before each step.

    Raises: FloatingPointError where the loss is no longer a finite number.
    """
    torch.manual_seed(seed)  # for models that draw at random while they train, as lesson 05's will
    # Of its own, so that such a model leaves the batches alone.
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(
        param_groups(model, weight_decay),
        lr=lr,
        betas=(0.9, 0.99),  # a shorter memory than PyTorch's 0.999, for trainings as short as ours
        fused=device.type in ("cpu", "cuda"),  # one kernel for all parameters, where there is one
    )
    losses = []
    if checkpoint_path:
        losses = _load_state(checkpoint_path, model, optimizer, generator)
    saved = time.perf_counter()
    model.train()
    progress_bar = tqdm(
        range(len(losses), steps),
        initial=len(losses),
        total=steps,
        unit="step",
        mininterval=0.5,
        file=sys.stdout,  # on stderr, notebooks show it in red
    )
    with progress_bar:
        for step in progress_bar:
            if checkpoint_path and time.perf_counter() - saved > SAVE_EVERY_SECONDS:
                _save_state(checkpoint_path, model, optimizer, generator, losses)
                saved = time.perf_counter()
            if callback:
                callback(step, model)
            # From the step alone, so that a resumed training needs no schedule of its own.
            for group in optimizer.param_groups:
                group["lr"] = lr * lr_multiplier(step, steps)

            x, y = get_batch(ids, model.block_size, batch_size, generator, device)
            _, loss = model(x, y)
            optimizer.zero_grad()  # backward adds to what is there
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

            losses.append(loss.item())
            if not isfinite(losses[-1]):
                raise FloatingPointError(
                    f"the loss is {losses[-1]} at step {step}, after {losses[-4:-1]}; the peak "
                    f"learning rate is {lr}: try a tenth of it, from a new model"
                )
            if step % 20 == 0:
                progress_bar.set_postfix(loss=f"{losses[-1]:.3f}")
    model.eval()
    return torch.tensor(losses)


@torch.no_grad()
def estimate_loss(model, ids, batches=50, batch_size=32, generator=None):
    """The mean loss over random windows, in nats per character: quick and rough."""
    model.eval()
    device = next(model.parameters()).device
    total = 0.0
    for _ in range(batches):
        x, y = get_batch(ids, model.block_size, batch_size, generator, device)
        _, loss = model(x, y)
        total += loss.item()
    return total / batches  # all batches are equally large, so the mean of their means is right


@torch.no_grad()
def per_token_loss(model, ids, stride=None, batch_size=64):
    """What the model pays for each character of a text but the first: ids (N,) -> (N - 1,), on the CPU.

    Windows of block_size, one after the other, the shorter last one included. The first character of a window is
    asked for with no more than one character of past; with stride < block_size the windows overlap, and each
    character (but the very first ones) has at least block_size - stride characters of past.

    Raises: ValueError for ids that are no tensor (N,) or fewer than 2, and for a stride that would leave some out.
    """
    if not isinstance(ids, torch.Tensor) or ids.dim() != 1:
        raise ValueError(
            f"ids is a {type(ids).__name__}, expected a tensor (N,): tokenizer.encode(corpus.val)"
        )
    if len(ids) < 2:
        raise ValueError("a text of fewer than 2 characters has nothing to predict")
    if stride is None:
        stride = model.block_size
    if not 1 <= stride <= model.block_size:
        raise ValueError(
            f"stride is {stride}; it must be from 1 to the block_size, {model.block_size}"
        )
    model.eval()
    device = next(model.parameters()).device
    # A window reads ids[start:end]. What it predicts for positions before `first` was counted in the window before it.
    windows = []
    for first in range(0, len(ids) - 1, stride):
        start = max(0, first + stride - model.block_size)
        end = min(first + stride, len(ids) - 1)
        windows.append((start, first, end))

    def shape(window):
        start, first, end = window
        return end - start, first - start

    pieces = []
    # A batch takes windows of one shape: those at both ends of the text may be shorter than the others.
    for (_, skipped), group in groupby(windows, key=shape):
        group = list(group)
        for i in range(0, len(group), batch_size):
            batch = group[i : i + batch_size]
            x = torch.stack([ids[start:end] for start, _, end in batch]).to(device)
            y = torch.stack([ids[start + 1 : end + 1] for start, _, end in batch]).to(device)
            logits, _ = model(x)  # (B, T, V)
            # cross_entropy wants the classes as the second axis: (B, V, T).
            nats = F.cross_entropy(logits.transpose(1, 2), y, reduction="none")  # (B, T)
            pieces.append(nats[:, skipped:].flatten().cpu())
    return torch.cat(pieces)


def evaluate(model, ids, stride=None):
    """The exact loss over a whole text: ids (N,) -> nats per id. Raises: ValueError.

    stride: from 1 to block_size, its default; a smaller one gives each character more past (see `per_token_loss`).
    """
    # In 64 bits: a sum of a hundred thousand numbers of 32 bits loses the last digits.
    return per_token_loss(model, ids, stride).double().mean().item()


def _digest(text):
    """16 letters and digits that stand for a text (or bytes): another one has others."""
    data = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:16]


def _source_of(cls):
    """The source of a class's methods, whether a notebook defines it or the library."""
    # Method by method: inspect.getsource does not find a whole class that a notebook defines.
    sources = []
    for member in vars(cls).values():
        function = getattr(member, "fget", getattr(member, "__func__", member))  # a property's
        if inspect.isfunction(function):
            sources.append(inspect.getsource(function))
    return "".join(sources)


def cache_key(name, model, corpus, settings):
    """All that a trained model depends on, as a dict to read; call it before the training, for the initial weights.

    Functions that a method calls are not looked into: after a change in one, give `load_or_fit` another name.
    """
    # They depend on the seed, and on how the model is initialised.
    weights = [weight.cpu().numpy().tobytes() for weight in model.state_dict().values()]
    config = asdict(model.config) if hasattr(model, "config") else {}
    classes = {}
    for path, layer in model.named_modules():
        for attribute, value in vars(layer).items():
            if isinstance(value, (int, float, str)) and attribute != "training":
                config[f"{path}.{attribute}".strip(".")] = value
        for cls in type(layer).__mro__:
            if cls.__module__.split(".")[0] in ("__main__", "chargpt_lib"):
                classes[cls.__name__] = _digest(_source_of(cls))
    return {
        "name": name,
        "library": chargpt_lib.__version__,
        "corpus": f"{corpus.name} {_digest(corpus.train + chr(0) + corpus.val)}",
        "settings": settings,
        "config": config,
        "classes": classes,
        "initial weights": _digest(b"".join(weights)),
    }


def cache_file_name(key):
    """The name of the files that belong to a cache key."""
    return _digest(json.dumps(key, sort_keys=True))


def _load_trained(model, weights, report):
    """Loads the weights into the model -> the report; {}, where one of the two is missing or damaged."""
    result = read_json(report)
    if result:
        try:
            load_model(model, weights)
        except (OSError, SafetensorError):
            return {}
        model.eval()
    return result


def nats_by_character(nats, ids, tokenizer, weights=None):
    """What each character of a text costs: nats (N - 1,) of all ids (N,) but the first -> a list.

    It has None for the characters of the first id, which nothing comes before. A token of several characters (lesson
    14) shares its nats among them: by the characters' weights, a list, or equally where it has none.
    """
    paid = [None, *nats.tolist()]
    if isinstance(tokenizer, CharTokenizer):
        return paid
    shares = []
    pending = []  # ids that make no whole character yet
    total = 0.0  # what they cost
    for i, price in zip(ids.tolist(), paid):
        pending.append(i)
        total = None if price is None or total is None else total + price
        text = tokenizer.decode(pending)
        if text.endswith("\ufffd"):
            continue
        own = [0.0] * len(text)
        if weights is not None:
            own = weights[len(shares) : len(shares) + len(text)]
        if sum(own) == 0:
            own = [1.0] * len(text)
        for weight in own:
            shares.append(None if total is None else total * weight / sum(own))
        pending = []
        total = 0.0
    return shares


def _measure(model, corpus, tokenizer, sample_chars):
    """What the ladder says of a model: its exact loss, its excess by kind, and a sample."""
    val_ids = tokenizer.encode(corpus.val)
    nats = per_token_loss(model, val_ids).double()
    weights = choice_weights(corpus.val_spans) if corpus.val_spans else None
    paid = nats_by_character(nats, val_ids, tokenizer, weights)
    excess = {}
    if corpus.val_spans:
        excess = excess_by_kind(paid, corpus.val_spans)
    predicted = sum(price is not None for price in paid)
    prompt = val_ids[:1][None].to(next(model.parameters()).device)  # (1, 1)
    sample = tokenizer.decode(model.generate(prompt, sample_chars)[0].cpu()).strip()
    return {"loss": nats.sum().item() / predicted, "excess": excess, "sample": sample}


def load_or_fit(
    name,
    model,
    corpus,
    sample_chars=400,
    cache_dir=None,
    callback=None,
    tokenizer=None,
    **settings,
):
    """Trains the model on the corpus, or loads what an earlier run trained; records the result as a rung.

    cache_dir: a folder for the files, finished or not; without one, the cache. tokenizer: by default the corpus'
    characters. callback, settings: as for `fit`.
    Returns {"loss": exact validation loss, "floor": the text's entropy, "seconds": of training, without those before
    an interruption, "excess": {kind: nats}, "losses": of each step, "sample": a text it wrote, "key": the cache key}.
    All losses are in nats per character, whatever the tokenizer is.

    Raises: ValueError where the model has another vocab_size than the tokenizer, FileNotFoundError where the folder
    above cache_dir is not there.
    """
    if tokenizer is None:
        tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    if model.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            f"the model has vocab_size {model.vocab_size}, but corpus {corpus.name} needs "
            f"{tokenizer.vocab_size}: build it with vocab_size={tokenizer.vocab_size}"
        )
    folder = Path(cache_dir or default_cache_dir())
    # A drive that is not mounted: a folder made in its place would vanish with the session.
    if not folder.parent.is_dir():
        raise FileNotFoundError(
            f"{folder} cannot be made, because there is no {folder.parent}: create it first "
            f"(on Colab: mount Google Drive)"
        )
    folder.mkdir(exist_ok=True)
    key_settings = {**settings, "sample_chars": sample_chars}
    if not isinstance(tokenizer, CharTokenizer):
        key_settings["tokenizer"] = _digest(repr(tokenizer.to_dict()))
    key = cache_key(name, model, corpus, key_settings)
    weights = folder / f"{cache_file_name(key)}.safetensors"
    report = folder / f"{cache_file_name(key)}.json"
    unfinished = folder / f"{cache_file_name(key)}.pt"

    result = _load_trained(model, weights, report)
    if not result:
        start = time.perf_counter()
        ids = tokenizer.encode(corpus.train)
        losses = fit(model, ids, checkpoint_path=unfinished, callback=callback, **settings)
        losses = losses * (len(ids) / len(corpus.train))
        result = {
            "key": key,
            "floor": corpus.val_entropy,
            "seconds": time.perf_counter() - start,
            "losses": losses.tolist(),
            **_measure(model, corpus, tokenizer, sample_chars),
        }
        # The report last: where there is one, there are the weights, too.
        atomic_write(weights, lambda path: save_model(model, str(path)))
        write_json(report, result)
    # Here, because the run that trained may have been stopped just before it came to this line.
    unfinished.unlink(missing_ok=True)

    # After loading, too: another model may have stood on this rung in the meantime.
    rungs = read_json(default_cache_dir() / "ladder.json")
    rung = {part: value for part, value in result.items() if part not in ("losses", "key")}
    rungs.setdefault(corpus.name, {})[name] = rung
    write_json(default_cache_dir() / "ladder.json", rungs)
    return result


MODEL_NAMES = ("bigram", "single head", "multi-head", "blocks", "GPT")


def ladder(corpus="playhouse"):
    """{rung: its result}, in the order of the lessons; "recorded" is False where you trained it yourself."""
    own = read_json(default_cache_dir() / "ladder.json").get(corpus, {})
    shipped = bundled_results().get(corpus, {})
    rows = {}
    for rung in MODEL_NAMES:
        # Your own result counts before the one that comes with the course.
        if rung in own:
            rows[rung] = {**own[rung], "recorded": False}
        elif rung in shipped:
            rows[rung] = {**shipped[rung], "recorded": True}
    return rows


def plot_ladder(corpus="playhouse", up_to=MODEL_NAMES[-1]):
    """The ladder down to a rung as bars, stacked by kind where the corpus has spans -> matplotlib figure.

    Raises: ValueError for a rung there is not, and for a corpus without results.
    """
    if up_to not in MODEL_NAMES:
        raise ValueError(f"unknown model {up_to!r} (known: {', '.join(MODEL_NAMES)})")
    rows = {}
    for rung, row in ladder(corpus).items():
        if MODEL_NAMES.index(rung) <= MODEL_NAMES.index(up_to):
            label = f"{rung} (recorded)" if row["recorded"] else rung
            rows[label] = row
    if not rows:
        raise ValueError(
            f"there is no result for the corpus {corpus!r}: train one of the lessons' models "
            f"on it with load_or_fit"
        )
    # Only Playhouse has spans, so only there the loss can be split by kind.
    if all(row["excess"] for row in rows.values()):
        excesses = {label: row["excess"] for label, row in rows.items()}
        floors = [row["floor"] for row in rows.values()]
        return plot_excess(excesses, floors[0])
    from matplotlib.pyplot import subplots  # here: a training without pictures does not need it

    fig, ax = subplots(figsize=(9, 1.3 + 0.4 * len(rows)), layout="constrained")
    bars = ax.barh(list(rows), [row["loss"] for row in rows.values()], color="#0072B2")
    ax.bar_label(bars, fmt=" %.2f")
    ax.set(xlabel="nats per character", title=f"The ladder on {corpus}")
    ax.invert_yaxis()
    prepare_texts(fig)  # a corpus may have any name
    return fig
