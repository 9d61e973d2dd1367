# Made from notebooks/source/08_sampling.py by notebooks/tools/build.py. Edit that text, not this file.
"""Sampling: temperature, top-k, top-p, min-p, stop strings, streaming, and the KV cache."""

from copy import deepcopy
from inspect import signature
from math import ceil, inf

import torch
from torch.nn import functional as F

from chargpt_lib.cpu_kernels import Int8Linear, SplitKLinear, is_plain_linear
from chargpt_lib.sampling_checks import check_ids, check_sampling, encode_texts
from chargpt_lib.text_stream import TextStream

__all__ = [
    "sample_from",
    "next_token_probs",
    "apply_repetition_penalty",
    "KVCache",
    "IncrementalDecoder",
    "generate",
    "LINEAR_LAYERS",
    "prepare_for_sampling",
]


def sample_from(probabilities, u):
    """Draws an id from each row: probabilities (B, V), u (B,) uniform from 0 to 1 -> ids (B,).

    Never an id of probability 0, even where u is 1 or the sum is a little off 1.
    """
    ends = probabilities.cumsum(-1)  # (B, V): where the interval of each id ends
    total = ends[:, -1:]  # about 1
    return ((ends <= u[:, None] * total) & (ends < total)).sum(-1)


def next_token_probs(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """logits (B, V) -> the probabilities (B, V) to draw from, after temperature, top_k, top_p and min_p, in this order.

    temperature: 0 puts all on the largest logit, the first of equals. top_k: keeps the k likeliest, and all that equal
    the k-th. top_p: keeps the fewest that hold this share; among equals, smaller ids come first (Holtzman et al., 2020).
    min_p: keeps those with at least this share of the largest probability (Nguyen et al., 2024).
    """
    if temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    # Subtract the largest logit before the division: then nothing overflows, however small the temperature.
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if top_k is not None:
        smallest = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    p = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        ordered, ids = p.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered  # the sum of all that are likelier
        dropped = before >= top_p  # in sorted order
        back = ids.argsort(-1)  # the place of each id in the sorted order
        p = p.masked_fill(dropped.gather(-1, back), 0)
    if min_p is not None:
        p = p.masked_fill(p < min_p * p.amax(-1, keepdim=True), 0)
    return p / p.sum(-1, keepdim=True)


def apply_repetition_penalty(logits, seen, penalty):
    """Makes seen ids rarer (Keskar et al., 2019): logits (B, V), seen (B, V) bool -> logits (B, V).

    Positive logits are divided by the penalty, negative ones multiplied.
    """
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


class KVCache:
    """The keys and values of what a model has read so far.

    max_length: how many columns fit, the model's block_size. pads (B,) int64: how many empty columns each row begins
    with; None where no row has any. A forward pass calls `extend` once, then `update` in each attention layer.
    """

    slides = False  # True for a cache that stays right when the window moves (lesson 16 has one)

    def __init__(self, max_length, pads=None):
        self.max_length = max_length
        self.pads = pads
        self.length = 0  # columns so far, including those of the current pass
        self.start = 0  # the first column of the current pass
        self.mask = None  # the columns that each new position may see; None: all up to itself
        self.layers = {}  # {attention layer: (keys, values)}, each (B, H, max_length, head_size)
        self.last_ids = None  # the ids read last, for a model that needs them (lesson 16)

    def extend(self, T, device=None):
        """Makes room for T more columns -> their positions, (T,), or (B, T) where rows have pads.

        Raises: ValueError where they do not fit.
        """
        if self.length + T > self.max_length:
            raise ValueError(
                f"the KV cache has no room: {self.length} of {self.max_length} positions used, "
                f"{T} more requested; start a new KVCache with the last part of the text"
            )
        self.start = self.length
        self.length += T
        rows = torch.arange(self.start, self.length, device=device)  # the new columns, as queries
        columns = torch.arange(self.length, device=device)  # all columns, as keys
        causal = columns <= rows[:, None]  # (T, length)
        if self.pads is None:
            # The kernel's own causal mask fits a text that begins here, and one query needs no mask.
            on_top = self.start > 0 and T > 1
            self.mask = causal if on_top else None
            return rows
        pads = self.pads[:, None]  # (B, 1)
        # A pad sees only itself: a softmax over no column at all would be nan.
        first = torch.minimum(pads, rows)  # (B, T): the first column that each query may see
        # (B, 1, T, length), for all heads
        self.mask = (causal & (columns >= first[..., None]))[:, None]
        return (rows - pads).clamp(min=0)

    def update(self, layer, k, v):
        """Adds a layer's new k and v, (B, H, T, head_size) -> all its keys, all its values, and the mask.

        Keys and values are (B, H, length, head_size); the mask is as the attribute.

        Raises: ValueError where `extend` has not made room for them.
        """
        B, H, T, head_size = k.shape
        if T != self.length - self.start:
            raise ValueError(
                f"got {T} new keys, but extend() made room for {self.length - self.start}: call "
                f"cache.extend once per forward pass, before the first layer"
            )
        if layer not in self.layers:
            # Allocated once, at full length: a tensor that grows is copied whole at every character.
            shape = (B, H, self.max_length, head_size)
            self.layers[layer] = k.new_empty(shape), v.new_empty(shape)
        keys, values = self.layers[layer]
        keys[:, :, self.start : self.length] = k
        values[:, :, self.start : self.length] = v
        return keys[:, :, : self.length], values[:, :, : self.length], self.mask


def _new_cache(model, pads=None):
    """An empty cache; of the model's own kind where its class has a `make_cache`."""
    if hasattr(model, "make_cache"):
        return model.make_cache(pads)
    return KVCache(model.block_size, pads)


def _takes_cache(model):
    """Whether a model takes a cache: whether its `compute_logits` has an argument `cache`."""
    forward = getattr(model, "compute_logits", model.forward)
    return "cache" in signature(forward).parameters


class IncrementalDecoder:
    """The logits of the next token, for rows of ids that grow.

    Where a row is longer than the model's block_size, the model's window moves by `window_stride` at a time.
    """

    def __init__(self, model, window_stride=1, use_cache=True):
        self.model = model
        self.window_stride = window_stride
        self.use_cache = use_cache
        self.slides = use_cache and _new_cache(model).slides
        self.starts = None  # the columns at which the windows in the cache begin
        self.cache = None

    @torch.no_grad()
    def __call__(self, ids, pads):
        """ids (B, N), pads (a list of B): how many empty columns each row begins with -> logits (B, V)."""
        N = ids.shape[1]
        starts = self.window_starts(N, pads)
        if not self.use_cache:
            return self.recompute(ids, starts)
        first = min(starts)
        if starts != self.starts:
            # A window has moved: its characters have new positions, and so all keys change.
            self.starts = starts
            self.cache = _new_cache(self.model, self.left_pads(starts, ids.device))
        new = ids[:, first + self.cache.length :]
        # One character is little work; autograd's notes on each tensor, which no_grad keeps, would cost visible time.
        with torch.inference_mode():
            # A sliding cache takes a prompt of any length, but the model reads at most one block at a time.
            for piece in new.split(self.model.block_size, dim=1):
                logits, _ = self.model(piece, cache=self.cache)
        if self.cache.length != N - first:
            raise ValueError(
                f"{type(self.model).__name__} accepts cache= but does not use it: pass it on "
                f"to `embed` and to the blocks, or call generate(use_cache=False)"
            )
        return logits[:, -1]

    def window_starts(self, N, pads):
        """The columns at which the windows begin when the rows end at column N: a list of B."""
        if self.slides:
            return list(pads)
        starts = []
        for pad in pads:
            too_many = max(0, N - pad - self.model.block_size)
            starts.append(pad + ceil(too_many / self.window_stride) * self.window_stride)
        return starts

    def left_pads(self, starts, device):
        """How many empty columns stand before each window, (B,); None where all begin at the same column."""
        first = min(starts)
        if max(starts) == first:
            return None
        return torch.tensor(starts, device=device) - first

    def recompute(self, ids, starts):
        """The logits without a cache: in one pass if all windows begin at the same column, else one by one."""
        if len(set(starts)) == 1:
            logits, _ = self.model(ids[:, starts[0] :])
            return logits[:, -1]
        rows = []
        for i, start in enumerate(starts):
            logits, _ = self.model(ids[i : i + 1, start:])
            rows.append(logits[:, -1])
        return torch.cat(rows)


def _in_eval_mode(model):
    """The model itself if it is in evaluation mode, else a copy in evaluation mode: training must not be disturbed."""
    if any(part.training for part in model.modules()):
        return deepcopy(model).eval()
    return model


def _generate_ids(
    model, rows, steps, seed, sampling, repetition_penalty=None, window_stride=1, use_cache=True
):
    """Yields the next id of each row, (B,), on the CPU, `steps` times.

    rows: B tensors (T,) of ids, whose lengths may differ. Row i draws with the seed `seed + i`. sampling: the arguments
    of `next_token_probs`, a dict. Raises: FloatingPointError for logits that are not finite.
    """
    device = next(model.parameters()).device
    N = max(len(row) for row in rows)
    pads = [N - len(row) for row in rows]
    padded = [F.pad(row, (pad, steps)) for row, pad in zip(rows, pads)]
    ids = torch.stack(padded).to(device)  # (B, N + steps)
    seen = [torch.bincount(row, minlength=model.vocab_size) > 0 for row in rows]
    seen = torch.stack(seen)  # (B, V)
    draws = []
    for row in range(len(rows)):
        generator = torch.Generator().manual_seed(seed + row)
        draws.append(torch.rand(steps, generator=generator, dtype=torch.float64))
    draws = torch.stack(draws, dim=1)  # (steps, B)
    decoder = IncrementalDecoder(_in_eval_mode(model), window_stride, use_cache)
    for step in range(steps):
        # On the CPU and in float64, so that the same draws give the same text on every device.
        logits = decoder(ids[:, : N + step], pads).cpu().double()
        if not logits.max() < inf:  # true for nan as well
            raise FloatingPointError(
                f"the model produced {logits.max()} as a logit after {step} generated token(s): "
                f"do its weights contain nan or inf?"
            )
        if repetition_penalty is not None:
            logits = apply_repetition_penalty(logits, seen, repetition_penalty)
        new = sample_from(next_token_probs(logits, **sampling), draws[step])
        seen.scatter_(1, new[:, None], True)
        ids[:, N + step] = new
        yield new


def _stream_texts(columns, texts, tokenizer, stop):
    """Yields the texts, then the list of new pieces for each column of ids (B,), until all texts have ended."""
    yield list(texts)
    streams = [TextStream(tokenizer, stop) for _ in texts]
    for column in columns:
        yield [stream.add(i) for stream, i in zip(streams, column.tolist())]
        if all(stream.ended for stream in streams):
            return
    rest = [stream.flush() for stream in streams]
    if any(rest):
        yield rest


def _stream_ids(columns, prompt):
    """Yields the prompt (B, T), then each column of ids as (B, 1), on the prompt's device."""
    yield prompt
    for column in columns:
        yield column[:, None].to(prompt.device)


def _until_interrupted(pieces):
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
    window_stride=1,
    use_cache=None,
):
    """Continues a prompt -> prompt and continuation: ids (B, T + max_new_tokens) for ids (B, T), texts for texts.

    temperature, top_k, top_p, min_p: see `next_token_probs`; repetition_penalty: see `apply_repetition_penalty`.
    stop: a text or several; a row ends with the first of them that it writes.
    seed: row i draws from a generator of its own, with seed + i; without a seed, torch's own generator chooses one.
    stream: returns an iterator over the prompt and each new piece, as it comes.
    tokenizer: for prompts of text; an empty prompt starts from a line end.
    window_stride: how far the window moves at a time when the text is longer than block_size. 1 is exact; more is
    faster, because the cache lives longer. On a CPU with several threads, so is a copy from `prepare_for_sampling`.
    use_cache: True or False; None: True if the model's `compute_logits` has an argument `cache`.

    The model is not changed: one in training mode is copied first. Ctrl-C returns the text so far.
    Raises: ValueError for a prompt or a number with which nothing can be written, before any time is spent.
    """
    check_sampling(
        model,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        window_stride=window_stride,
        seed=seed,
    )
    if use_cache and not _takes_cache(model):
        raise ValueError(
            f"{type(model).__name__} does not support a cache: add cache=None to compute_logits "
            f"and pass it on to the attention, or call generate(use_cache=False)"
        )
    if use_cache is None:
        use_cache = _takes_cache(model)
    if stop is None:
        stop = ()
    elif not isinstance(stop, (list, tuple)):
        stop = (stop,)
    as_ids = isinstance(prompt, torch.Tensor)
    if as_ids:
        check_ids(model, prompt, stop)
        rows = list(prompt.cpu())
    else:
        texts = [prompt] if isinstance(prompt, str) else prompt
        rows = encode_texts(model, texts, tokenizer, stop, stream)
    if seed is None:
        seed = torch.randint(2**31, ()).item()
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    columns = _generate_ids(
        model, rows, max_new_tokens, seed, sampling, repetition_penalty, window_stride, use_cache
    )
    if as_ids:
        pieces = _stream_ids(columns, prompt)
        return pieces if stream else torch.cat(list(_until_interrupted(pieces)), dim=1)
    pieces = _stream_texts(columns, texts, tokenizer, stop)
    if stream:
        return (piece for (piece,) in pieces)
    written = ["".join(parts) for parts in zip(*_until_interrupted(pieces))]
    return written[0] if isinstance(prompt, str) else written


LINEAR_LAYERS = {"fp32": SplitKLinear, "int8": Int8Linear}


def prepare_for_sampling(model, precision="fp32"):
    """A copy of the model for sampling on a CPU, in evaluation mode; it cannot be trained.

    precision: "fp32" for the same weights in a `SplitKLinear`, faster with several threads; "int8" for rounded weights
    in an `Int8Linear`, a quarter of the bytes.
    Raises: ValueError for another precision, and for int8 on another device.
    """
    if precision not in LINEAR_LAYERS:
        raise ValueError(f"precision is {precision!r}; take one of {sorted(LINEAR_LAYERS)}")
    if precision == "int8" and next(model.parameters()).device.type != "cpu":
        raise ValueError("int8 is for the CPU alone: prepare_for_sampling(model.cpu(), 'int8')")
    prepared = deepcopy(model)
    for parent in list(prepared.modules()):
        for name, layer in list(parent.named_children()):
            if is_plain_linear(layer):
                setattr(parent, name, LINEAR_LAYERS[precision](layer))
    return prepared.eval().requires_grad_(False)
