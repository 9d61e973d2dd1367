# Made from notebooks/source/02_training_loop.py by notebooks/tools/build.py. Edit that text, not this file.
"""Training: the loop, the exact loss, the loss above the entropy by cause, and models trained once."""

import sys
import time
from itertools import groupby
from math import isfinite

import torch
from torch.nn import functional as F
from tqdm import tqdm

from chargpt_lib.caching import (
    TrainedFiles,
    cache_file_name,
    cache_key,
    digest,
    load_state,
    own_rungs,
    record_rung,
    save_state,
)
from chargpt_lib.data import CharTokenizer, get_batch
from chargpt_lib.files import bundled_results
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
    "load_or_fit",
    "MODEL_NAMES",
    "ladder",
    "plot_ladder",
    "nats_by_character",
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
    # A matrix works without its small weights; a gain or a bias that is pulled to zero does not.
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


SAVE_EVERY_SECONDS = 30


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

    ids (N,) int64; lr is the peak learning rate. checkpoint_path: a file in which the state of the training is saved
    every half minute, and from which an interrupted training continues. callback(step, model) is called before each step.

    Raises: FloatingPointError where the loss is no longer a finite number.
    """
    torch.manual_seed(seed)  # for models that use random numbers in training, as lesson 05's will
    # The batches have a generator of their own, so that such a model does not change them.
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
        losses = load_state(checkpoint_path, model, optimizer, generator)
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
                save_state(checkpoint_path, model, optimizer, generator, losses)
                saved = time.perf_counter()
            if callback:
                callback(step, model)
            # The rate depends on the step alone, so that a resumed training continues the same schedule.
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

    The text is cut into windows of block_size, the last one shorter. The first prediction in a window has only one
    character to go by; with stride < block_size the windows overlap, and each character (except the first ones of the
    text) has at least block_size - stride characters of past.

    Raises: ValueError where ids is no tensor (N,) or shorter than 2, and for a stride that would leave characters out.
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
    # A window reads ids[start:end]. The window before it has already counted the predictions before `first`.
    windows = []
    for first in range(0, len(ids) - 1, stride):
        start = max(0, first + stride - model.block_size)
        end = min(first + stride, len(ids) - 1)
        windows.append((start, first, end))

    def shape(window):
        start, first, end = window
        return end - start, first - start

    pieces = []
    # A batch holds windows of one shape: those at both ends of the text may be shorter than the others.
    for (_, skipped), group in groupby(windows, key=shape):
        group = list(group)
        for i in range(0, len(group), batch_size):
            batch = group[i : i + batch_size]
            x = torch.stack([ids[start:end] for start, _, end in batch]).to(device)
            y = torch.stack([ids[start + 1 : end + 1] for start, _, end in batch]).to(device)
            logits, _ = model(x)  # (B, T, V)
            # cross_entropy expects the classes on the second axis: (B, V, T).
            nats = F.cross_entropy(logits.transpose(1, 2), y, reduction="none")  # (B, T)
            pieces.append(nats[:, skipped:].flatten().cpu())
    return torch.cat(pieces)


def evaluate(model, ids, stride=None):
    """The exact loss over a whole text: ids (N,) -> nats per id. Raises: ValueError.

    stride: from 1 to block_size, its default; a smaller one gives each character more past (see `per_token_loss`).
    """
    # In float64: a sum of a hundred thousand numbers in float32 loses the last digits.
    return per_token_loss(model, ids, stride).double().mean().item()


def _measure(model, corpus, tokenizer, sample_chars):
    """What the ladder shows of a model: its exact loss, its loss above the entropy by kind, and a sample."""
    val_ids = tokenizer.encode(corpus.val)
    nats = per_token_loss(model, val_ids).double()
    weights = choice_weights(corpus.val_spans) if corpus.val_spans else None
    if isinstance(tokenizer, CharTokenizer):
        paid = [None, *nats.tolist()]  # no model predicts the first character
    else:
        paid = nats_by_character(nats, val_ids, tokenizer, weights)
    excess = excess_by_kind(paid, corpus.val_spans) if corpus.val_spans else {}
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
    """Trains the model on the corpus, or loads what an earlier run trained; enters the result into the ladder.

    cache_dir: a folder for the files, finished or not; by default, the cache. tokenizer: by default the characters of
    the corpus. callback, settings: as for `fit`.
    Returns {"loss": exact validation loss, "floor": the text's entropy, "seconds": of training, without those before
    an interruption, "excess": {kind: nats}, "losses": of each step, "sample": a text it wrote, "key": the cache key}.
    All losses are in nats per character, whatever the tokenizer is.

    Raises: ValueError where the model has another vocab_size than the tokenizer, FileNotFoundError where the folder
    above cache_dir does not exist.
    """
    if tokenizer is None:
        tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    if model.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            f"the model has vocab_size {model.vocab_size}, but corpus {corpus.name} needs "
            f"{tokenizer.vocab_size}: build it with vocab_size={tokenizer.vocab_size}"
        )
    key_settings = {**settings, "sample_chars": sample_chars}
    if not isinstance(tokenizer, CharTokenizer):
        key_settings["tokenizer"] = digest(repr(tokenizer.to_dict()))
    key = cache_key(name, model, corpus, key_settings)
    files = TrainedFiles(cache_file_name(key), cache_dir)

    result = files.load(model)
    if not result:
        start = time.perf_counter()
        ids = tokenizer.encode(corpus.train)
        losses = fit(model, ids, checkpoint_path=files.unfinished, callback=callback, **settings)
        losses = losses * (len(ids) / len(corpus.train))  # nats per id -> per character
        result = {
            "key": key,
            "floor": corpus.val_entropy,
            "seconds": time.perf_counter() - start,
            "losses": losses.tolist(),
            **_measure(model, corpus, tokenizer, sample_chars),
        }
        files.save(model, result)
    # After loading, too: the run that trained may have been stopped just before these lines,
    # and another model may have taken this rung in the meantime.
    files.remove_unfinished()
    record_rung(corpus.name, name, result)
    return result


MODEL_NAMES = ("bigram", "single head", "multi-head", "blocks", "GPT")


def ladder(corpus="playhouse"):
    """{rung: its result}, in the order of the lessons; "recorded" is False where you trained it yourself."""
    own = own_rungs().get(corpus, {})
    shipped = bundled_results().get(corpus, {})
    rows = {}
    for rung in MODEL_NAMES:
        # Your own result takes precedence over the one that comes with the course.
        if rung in own:
            rows[rung] = {**own[rung], "recorded": False}
        elif rung in shipped:
            rows[rung] = {**shipped[rung], "recorded": True}
    return rows


def plot_ladder(corpus="playhouse", up_to=MODEL_NAMES[-1]):
    """The ladder down to a rung as bars, stacked by kind where the corpus has spans -> matplotlib figure.

    Raises: ValueError for an unknown rung, and for a corpus without results.
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
    # Only Playhouse has spans, so only its loss can be split by kind.
    if all(row["excess"] for row in rows.values()):
        excesses = {label: row["excess"] for label, row in rows.items()}
        floors = [row["floor"] for row in rows.values()]
        return plot_excess(excesses, floors[0])
    from matplotlib.pyplot import subplots  # imported here: training needs no pictures

    fig, ax = subplots(figsize=(9, 1.3 + 0.4 * len(rows)), layout="constrained")
    bars = ax.barh(list(rows), [row["loss"] for row in rows.values()], color="#0072B2")
    ax.bar_label(bars, fmt=" %.2f")
    ax.set(xlabel="nats per character", title=f"The ladder on {corpus}")
    ax.invert_yaxis()
    prepare_texts(fig)  # a corpus may have any name
    return fig


def nats_by_character(nats, ids, tokenizer, weights=None):
    """The price of each character of a text: nats (N - 1,) of all ids (N,) but the first -> a list.

    The characters of the first id have no price, None: no model predicts them. A token of several characters (lesson
    14) shares its nats among them: in proportion to the characters' weights, a list, or equally without weights.
    """
    paid = [None, *nats.tolist()]
    if isinstance(tokenizer, CharTokenizer):
        return paid
    shares = []
    pending = []  # ids that do not make whole characters yet
    total = 0.0  # their price
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
