# Made from notebooks/source/08_sampling.py by notebooks/tools/build.py. Edit that text, not this file.
"""Sampling: temperature, top-k, top-p, min-p, stop strings, streaming, and the KV cache."""

import warnings
from copy import deepcopy
from itertools import chain
from math import ceil, gcd, inf
from numbers import Integral, Real
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.blocks import ACTIVATIONS, Block

__all__ = [
    "roll",
    "distribution",
    "penalize",
    "deal_out",
    "product",
    "Cache",
    "read_on",
    "Reader",
    "characters",
    "check_knobs",
    "check_prompt",
    "spell",
    "until_interrupted",
    "generate",
    "in_int8",
]


def roll(probabilities, dice):
    """Where throws fall: probabilities (B, V), dice (B,) from 0 to 1 -> ids (B,); never one of probability 0."""
    ends = probabilities.cumsum(-1)  # (B, V): where each one's stretch ends
    return ((ends <= dice[:, None] * ends[:, -1:]) & (ends < ends[:, -1:])).sum(-1)


def distribution(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """logits (B, V) -> the probabilities (B, V) to draw from, after temperature, top_k, top_p and min_p, in this order.

    temperature 0: all on the largest logit, the first of equals. top_k: what equals the k-th stays, too. top_p: the
    fewest that hold this share, of equals the first in the alphabet. min_p: a share of the largest probability.
    """
    if temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    logits = (
        logits - logits.amax(-1, keepdim=True)
    ) / temperature  # the largest is 0: nothing grows too large
    if top_k is not None:
        edge = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < edge, float("-inf"))
    p = logits.softmax(-1)
    if top_p is not None:
        ordered, ids = p.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered  # what those ahead of it hold
        p = p.masked_fill((before >= top_p).gather(-1, ids.argsort(-1)) & (top_p < 1), 0)
    if min_p is not None:
        p = p.masked_fill(p < min_p * p.amax(-1, keepdim=True), 0)
    return p / p.sum(-1, keepdim=True)


def penalize(logits, seen, penalty):
    """Makes what was seen rarer, logits (B, V), seen (B, V) bool: positive logits divided, negative ones multiplied."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def deal_out(model):
    """The matrices of a model on the CPU, each (N, K) in four shares: {linear layer: a copy (4, K / 4, N)}."""
    layers = [
        layer
        for layer in model.modules()
        if type(layer) is nn.Linear
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
    ]
    return {
        layer: layer.weight.detach()
        .T.reshape(gcd(4, layer.in_features), -1, layer.out_features)
        .contiguous()
        for layer in layers
    }


def product(layer, x, shares):
    """layer(x), x (..., K) -> (..., N); for up to 32 rows by the shares of its matrix, if it has been dealt out."""
    rows, matrix = x.numel() // x.shape[-1], shares.get(layer)
    if matrix is None or rows > 32:
        return layer(x)
    out = (
        torch.bmm(x.reshape(rows, len(matrix), -1).transpose(0, 1), matrix)
        .sum(0)
        .view(*x.shape[:-1], -1)
    )
    return out if layer.bias is None else out + layer.bias


class Cache:
    """Keys and values of what a model has read, (2, B, H, block_size, head_size) a block; pads (B,): empty places."""

    def __init__(self, model, B, pads=None):
        weight = model.token_embedding.weight
        self.kept = [
            weight.new_zeros(
                2, B, block.attention.n_head, model.block_size, block.attention.head_size
            )
            for block in model.blocks
        ]
        self.length, self.pads = 0, pads


@torch.inference_mode()
def read_on(model, idx, cache, shares={}):
    """The next characters, idx (B, T) -> logits (B, T, V); the cache keeps keys and values. shares: `deal_out`."""
    (B, T), old = idx.shape, cache.length
    cache.length = new = old + T
    rows, columns, mask = (
        torch.arange(old, new, device=idx.device),
        torch.arange(new, device=idx.device),
        None,
    )
    if cache.pads is not None:
        pads = cache.pads[:, None]
        mask = (columns <= rows[:, None]) & (
            columns >= torch.minimum(pads, rows)[..., None]
        )  # (B, T, new)
        mask, rows = mask[:, None], (rows - pads).clamp(min=0)  # each row counts from its own start
    elif old and T > 1:
        mask = columns <= rows[:, None]
    x = model.token_embedding(idx) + model.position_embedding(rows)  # (B, T, C)
    for block, kept in zip(model.blocks, cache.kept):
        attention, mlp = block.attention, block.feed_forward
        qkv = (
            product(attention.qkv, block.norm_1(x), shares)
            .view(B, T, 3, attention.n_head, -1)
            .permute(2, 0, 3, 1, 4)
        )
        kept[:, :, :, old:new] = qkv[1:]  # (2, B, H, T, head_size)
        keys, values = kept[:, :, :, :new]
        out = F.scaled_dot_product_attention(
            qkv[0], keys, values, mask, is_causal=mask is None and T > 1
        )
        x = x + product(attention.proj, out.transpose(1, 2).flatten(2), shares)
        x = x + product(
            mlp.proj, ACTIVATIONS[mlp.activation](product(mlp.fc, block.norm_2(x), shares)), shares
        )
    return product(model.lm_head, model.norm(x), shares)


class Reader:
    """Reads rows of text that grow; beyond the block the window drops `slide` characters at a time."""

    trusted = WeakKeyDictionary()  # {model: whether `read_on` computes what it computes}

    def __init__(self, model, slide=1, cached=True):
        self.model, self.slide, self.starts, self.cached = (
            model,
            slide,
            None,
            cached and self.can_cache(model),
        )
        self.shares = deal_out(model) if self.cached else {}

    @torch.no_grad()
    def can_cache(self, model):
        """Whether `read_on` says what the model says: tried once, on a full block."""
        parts = ("token_embedding", "position_embedding", "blocks", "norm", "lm_head")
        if not all(hasattr(model, part) for part in parts) or not all(
            isinstance(b, Block) for b in model.blocks
        ):
            return False
        if model not in self.trusted:
            idx = (
                torch.arange(0, 7 * model.block_size, 7, device=model.norm.weight.device)[None]
                % model.vocab_size
            )
            pair = read_on(model, idx, Cache(model, 1)), model(idx)[0]
            self.trusted[model] = torch.allclose(*pair, rtol=1e-3, atol=1e-3, equal_nan=True)
        return self.trusted[model]

    def __call__(self, ids, pads):
        """ids (B, N), of which each row's first places, pads (a list of B), are empty -> logits (B, V)."""
        over = [max(0, ids.shape[1] - pad - self.model.block_size) for pad in pads]
        starts = [pad + ceil(more / self.slide) * self.slide for pad, more in zip(pads, over)]
        if not self.cached:
            return self.read_anew(ids, starts)
        if starts == self.starts:
            return read_on(self.model, ids[:, -1:], self.cache, self.shares)[:, -1]
        self.starts, first = starts, min(starts)
        empty = torch.tensor(starts, device=ids.device) - first if max(starts) > first else None
        self.cache = Cache(self.model, len(ids), empty)
        return read_on(self.model, ids[:, first:], self.cache, self.shares)[:, -1]

    @torch.no_grad()
    def read_anew(self, ids, starts):
        """Without a cache: the rows' windows, together if they begin at the same column."""
        if len(set(starts)) == 1:
            return self.model(ids[:, starts[0] :])[0][:, -1]
        return torch.cat(
            [self.model(ids[i : i + 1, start:])[0][:, -1] for i, start in enumerate(starts)]
        )


def characters(model, rows, steps, seed, slide, cached, repetition_penalty, knobs):
    """Yields the next character of each row, ids (B,), on the CPU. rows: B tensors (T,), T may differ."""
    device, N = next(model.parameters()).device, max(map(len, rows))
    pads = [N - len(row) for row in rows]
    ids = torch.stack([F.pad(row, (pad, steps)) for row, pad in zip(rows, pads)]).to(
        device
    )  # (B, N + steps)
    seen = torch.stack(
        [torch.bincount(row, minlength=model.vocab_size) > 0 for row in rows]
    )  # (B, V)
    dice = torch.stack(
        [
            torch.rand(
                steps, generator=torch.Generator().manual_seed(seed + row), dtype=torch.float64
            )
            for row in range(len(rows))
        ],
        1,
    )  # (steps, B)
    was_training = model.training
    model.eval()
    try:
        reader = Reader(model, slide, cached)
        for step in range(steps):
            logits = reader(ids[:, : N + step], pads).cpu().double()
            if not logits.max() < inf:
                raise FloatingPointError(
                    f"{logits.max()} as a logit, {step} characters on: are the weights finite?"
                )
            if repetition_penalty is not None:
                logits = penalize(logits, seen, repetition_penalty)
            new = roll(distribution(logits, **knobs), dice[step])
            seen.scatter_(1, new[:, None], True)
            ids[:, N + step] = new
            yield new
    finally:
        model.train(was_training)


def check_knobs(model, **knobs):
    """ValueError for a setting by which nothing can be drawn."""
    rules = {
        "max_new_tokens": (Integral, lambda x: x >= 0, "a whole number from 0"),
        "temperature": (Real, lambda x: 0 <= x < inf, "0, for the likeliest, or more, and finite"),
        "top_k": (Integral, lambda x: x >= 1, "a whole number from 1, or None"),
        "top_p": (Real, lambda x: 0 < x <= 1, "above 0 and at most 1, or None"),
        "min_p": (Real, lambda x: 0 <= x <= 1, "from 0 to 1, or None"),
        "repetition_penalty": (
            Real,
            lambda x: 0 < x < inf,
            "above 0 (above 1 makes repetitions rarer), or None",
        ),
        "slide": (
            Integral,
            lambda x: 1 <= x <= model.block_size,
            f"from 1 to the block_size, {model.block_size}",
        ),
        "seed": (Integral, lambda x: abs(x) < 2**62, "a whole number below 2**62, or None"),
    }
    for name, value in knobs.items():
        kind, right, meaning = rules[name]
        if not (
            value is None and meaning.endswith("None") or isinstance(value, kind) and right(value)
        ):
            raise ValueError(f"{name} is {value!r}; it has to be {meaning}")


def check_prompt(model, prompt, tokenizer, stop, stream):
    """The prompts as a list. ValueError for what cannot be gone on with."""
    if isinstance(prompt, torch.Tensor):
        if stop or prompt.dim() != 2 or not prompt.numel() or prompt.dtype != torch.int64:
            raise ValueError(
                f"a prompt of ids has to be int64, (B, T) and not empty, without stop strings; this is "
                f"{prompt.dtype}, {tuple(prompt.shape)}, with stop={stop}"
            )
        return model.check(prompt.reshape(-1, 1)) or [prompt]
    texts = [prompt] if isinstance(prompt, str) else prompt
    if (
        not isinstance(texts, (list, tuple))
        or not texts
        or not all(isinstance(text, str) for text in texts)
    ):
        raise ValueError(f"the prompt is {prompt!r}; give a text, a list of texts, or ids (B, T)")
    if tokenizer is None or tokenizer.vocab_size != model.vocab_size:
        raise ValueError(
            f"a prompt of text needs tokenizer=, that of the model's {model.vocab_size} symbols"
        )
    if stream and len(texts) > 1:
        raise ValueError(f"stream=True tells one text as it comes; these are {len(texts)}")
    if "" in texts and "\n" not in tokenizer.stoi:
        raise ValueError(
            "an empty prompt is the end of a line, which this alphabet does not have: give a character"
        )
    for end in stop:
        if not (isinstance(end, str) and end):
            raise ValueError(
                f"stop has {end!r}; it has to be a text of one character or more, or a list of them"
            )
        tokenizer.encode(end)
    return list(texts)


def spell(columns, B, alphabet, stop):
    """Yields for each of B rows its next character, and "" after it has ended with one of the stop strings."""
    written = [""] * B
    for column in columns:
        pieces = [
            "" if text.endswith(stop) else alphabet[i] for text, i in zip(written, column.tolist())
        ]
        written = [text + piece for text, piece in zip(written, pieces)]
        yield pieces
        if all(text.endswith(stop) for text in written):
            return


def until_interrupted(pieces):
    """Yields all pieces, or those that came before Ctrl-C."""
    try:
        yield from pieces
    except KeyboardInterrupt:
        print("interrupted: this is what was written so far")


def generate(
    model,
    prompt,
    max_new_tokens,
    temperature=1.0,
    top_k=None,
    top_p=None,
    min_p=None,
    repetition_penalty=None,
    stop=None,
    seed=None,
    stream=False,
    tokenizer=None,
    slide=1,
    cached=True,
):
    """Goes on writing -> prompt and continuation: for ids (B, T) ids (B, T + max_new_tokens), for texts texts.

    temperature, top_k, top_p, min_p: see `distribution`; repetition_penalty: `penalize`; slide: `Reader`. stop: texts;
    a row ends with the first that it writes. seed: row i throws dice of its own, seed + i. stream: an iterator over
    prompt and each new piece. tokenizer: for text; an empty prompt is a line end. Ctrl-C returns what is written.
    """
    check_knobs(
        model,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        slide=slide,
        seed=seed,
    )
    stop = tuple(stop) if isinstance(stop, (list, tuple)) else () if stop is None else (stop,)
    texts, as_ids = (
        check_prompt(model, prompt, tokenizer, stop, stream),
        isinstance(prompt, torch.Tensor),
    )
    rows = list(prompt.cpu()) if as_ids else [tokenizer.encode(text or "\n") for text in texts]
    seed = torch.randint(2**31, ()).item() if seed is None else seed
    knobs = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    columns = characters(
        model, rows, max_new_tokens, seed, slide, cached, repetition_penalty, knobs
    )
    if as_ids:
        pieces = chain([prompt], (column[:, None].to(prompt.device) for column in columns))
        return pieces if stream else torch.cat(list(until_interrupted(pieces)), 1)
    pieces = spell(columns, len(rows), tokenizer.alphabet, stop)
    if stream:
        return chain(texts, (piece for (piece,) in pieces))
    texts = ["".join(parts) for parts in zip(texts, *until_interrupted(pieces))]
    return texts[0] if isinstance(prompt, str) else texts


def in_int8(model):
    """A copy with one byte a weight in its matrices: writes faster, on a CPU alone, and cannot learn any more."""
    if next(model.parameters()).device.type != "cpu":
        raise ValueError("int8 is for the CPU alone: in_int8(model.cpu())")
    copy = deepcopy(model).eval()
    Reader(copy)  # compares `read_on` with the model before rounding blurs both
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch wants to move this into another package
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

        return quantize_dynamic(copy, {nn.Linear: per_channel_dynamic_qconfig}, inplace=True)
