# Made from notebooks/source/08_sampling.py by notebooks/tools/build.py. Edit that text, not this file.
"""Sampling: temperature, top-k, top-p, min-p, stop strings, streaming, and the KV cache."""

import warnings
from copy import deepcopy
from inspect import signature
from math import ceil, gcd, inf
from numbers import Integral, Real

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "sample_from",
    "next_token_probs",
    "apply_repetition_penalty",
    "KVCache",
    "IncrementalDecoder",
    "check_sampling",
    "generate",
    "SplitKLinear",
    "Int8Linear",
    "LINEAR_LAYERS",
    "prepare_for_sampling",
]


def sample_from(probabilities, u):
    """Draws an id from each row: probabilities (B, V), u (B,) uniform from 0 to 1 -> ids (B,).

    Never an id of probability 0, even where u is 1 or the sum is a little off 1.
    """
    ends = probabilities.cumsum(-1)  # (B, V): where the stretch of each id ends
    total = ends[:, -1:]  # about 1
    return ((ends <= u[:, None] * total) & (ends < total)).sum(-1)


def next_token_probs(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """logits (B, V) -> the probabilities (B, V) to draw from, after temperature, top_k, top_p and min_p, in this order.

    temperature: 0 puts all on the largest logit, the first of equals. top_k: keeps the k likeliest, and what equals the
    k-th. top_p: keeps the fewest that hold this share, of equals those with the smaller id (Holtzman et al., 2020).
    min_p: keeps what has at least this share of the largest probability (Nguyen et al., 2024).
    """
    if temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    # The largest becomes 0 before the division: nothing overflows, however small the temperature.
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if top_k is not None:
        smallest = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    p = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        ordered, ids = p.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered  # what the likelier ones hold together
        dropped = before >= top_p  # in sorted order
        back = ids.argsort(-1)  # the place of each id in the sorted order
        p = p.masked_fill(dropped.gather(-1, back), 0)
    if min_p is not None:
        p = p.masked_fill(p < min_p * p.amax(-1, keepdim=True), 0)
    return p / p.sum(-1, keepdim=True)


def apply_repetition_penalty(logits, seen, penalty):
    """Makes what was seen rarer (Keskar et al., 2019): logits (B, V), seen (B, V) bool -> logits (B, V).

    Positive logits are divided by the penalty, negative ones multiplied.
    """
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


class KVCache:
    """The keys and values of what a model has read so far.

    max_length: how many columns fit, the model's block_size. pads (B,) int64: how many empty columns each row has in
    front; None where no row has any. A forward pass calls `extend` once, then `update` in each attention layer.
    """

    slides = False  # whether it stays right when the window moves (lesson 16 has one that does)

    def __init__(self, max_length, pads=None):
        self.max_length = max_length
        self.pads = pads
        self.length = 0  # columns so far, those of the running pass included
        self.start = 0  # the first column of the running pass
        self.mask = (
            None  # which columns its positions may see; None where they may see all before them
        )
        self.layers = {}  # {attention layer: (keys, values)}, each (B, H, max_length, head_size)
        self.last_ids = None  # of what was read, for a model that wants to know (lesson 16)

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
            # The kernel's own causal mask is for a text that begins here, and one query needs none.
            on_top = self.start > 0 and T > 1
            self.mask = causal if on_top else None
            return rows
        pads = self.pads[:, None]  # (B, 1)
        # A pad sees itself and nothing else: over no column at all, its softmax would be nan.
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
            # The whole room at once: to copy all keys at every character would take longer and longer.
            shape = (B, H, self.max_length, head_size)
            self.layers[layer] = k.new_empty(shape), v.new_empty(shape)
        keys, values = self.layers[layer]
        keys[:, :, self.start : self.length] = k
        values[:, :, self.start : self.length] = v
        return keys[:, :, : self.length], values[:, :, : self.length], self.mask


def _new_cache(model, pads=None):
    """An empty cache: of the model's own kind, where its class has a `make_cache`."""
    if hasattr(model, "make_cache"):
        return model.make_cache(pads)
    return KVCache(model.block_size, pads)


def _takes_cache(model):
    """Whether a model can go on from a cache: whether its `compute_logits` has an argument `cache`."""
    forward = getattr(model, "compute_logits", model.forward)
    return "cache" in signature(forward).parameters


class IncrementalDecoder:
    """The logits of the next token, for rows of ids that grow.

    Where a row is longer than the model's block_size, the window that the model sees moves by `window_stride` at a time.
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
        """ids (B, N), pads (a list of B): how many columns at the front of each row are empty -> logits (B, V)."""
        N = ids.shape[1]
        starts = self.window_starts(N, pads)
        if not self.use_cache:
            return self.recompute(ids, starts)
        first = min(starts)
        if starts != self.starts:
            # A window has moved. Its characters have other positions now, so all keys are others, too.
            self.starts = starts
            self.cache = _new_cache(self.model, self.left_pads(starts, ids.device))
        new = ids[:, first + self.cache.length :]
        # A pass over one character is short: what autograd notes for each tensor, even without gradients, would show.
        with torch.inference_mode():
            # In pieces, because a cache that slides takes a prompt of any length, and the model a block at a time.
            for piece in new.split(self.model.block_size, dim=1):
                logits, _ = self.model(piece, cache=self.cache)
        if self.cache.length != N - first:
            raise ValueError(
                f"{type(self.model).__name__} accepts cache= but does not use it: pass it on "
                f"to `embed` and to the blocks, or call generate(use_cache=False)"
            )
        return logits[:, -1]

    def window_starts(self, N, pads):
        """The columns at which the windows begin, when the rows end at column N: a list of B."""
        if self.slides:
            return list(pads)
        starts = []
        for pad in pads:
            too_many = max(0, N - pad - self.model.block_size)
            starts.append(pad + ceil(too_many / self.window_stride) * self.window_stride)
        return starts

    def left_pads(self, starts, device):
        """How many columns are empty before each window, (B,); None where all begin at the same column."""
        first = min(starts)
        if max(starts) == first:
            return None
        return torch.tensor(starts, device=device) - first

    def recompute(self, ids, starts):
        """The logits without a cache: the windows together if they begin at the same column, else one by one."""
        if len(set(starts)) == 1:
            logits, _ = self.model(ids[:, starts[0] :])
            return logits[:, -1]
        rows = []
        for i, start in enumerate(starts):
            logits, _ = self.model(ids[i : i + 1, start:])
            rows.append(logits[:, -1])
        return torch.cat(rows)


def _in_eval_mode(model):
    """The model itself if it is in evaluation mode, else a copy that is: whoever trains it must not notice."""
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
        if not logits.max() < inf:  # nan is not smaller, either
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


def check_sampling(model, **parameters):
    """Checks the numbers that `generate` is given. Raises: ValueError for one with which nothing can be drawn."""
    rules = {  # name: (its type, what has to hold, the same in words)
        "max_new_tokens": (Integral, lambda x: x >= 0, "an integer >= 0"),
        "temperature": (Real, lambda x: 0 <= x < inf, "a finite number >= 0 (0: greedy)"),
        "top_k": (Integral, lambda x: x >= 1, "an integer >= 1, or None"),
        "top_p": (Real, lambda x: 0 < x <= 1, "above 0 and at most 1, or None"),
        "min_p": (Real, lambda x: 0 <= x <= 1, "from 0 to 1, or None"),
        "repetition_penalty": (
            Real,
            lambda x: 0 < x < inf,
            "above 0 (above 1 makes repetitions rarer), or None",
        ),
        "window_stride": (
            Integral,
            lambda x: 1 <= x <= model.block_size,
            f"an integer from 1 to the block_size, {model.block_size}",
        ),
        "seed": (Integral, lambda x: abs(x) < 2**62, "an integer below 2**62, or None"),
    }
    optional = ("top_k", "top_p", "min_p", "repetition_penalty", "seed")
    for name, value in parameters.items():
        if value is None and name in optional:
            continue
        kind, holds, meaning = rules[name]
        if not isinstance(value, kind) or not holds(value):
            raise ValueError(f"{name} is {value!r}; it has to be {meaning}")


def _check_ids(model, ids, stop):
    """Checks a prompt of ids. Raises: ValueError for one that cannot be continued."""
    if stop or ids.dim() != 2 or ids.numel() == 0 or ids.dtype != torch.int64:
        raise ValueError(
            f"a tensor prompt must be non-empty int64 (B, T) without stop=; got {ids.dtype}, "
            f"{tuple(ids.shape)}, stop={stop}"
        )
    model.check(ids.reshape(-1, 1))  # in columns: the prompt may be longer than a block


def _encode_texts(model, texts, tokenizer, stop, stream):
    """Checks prompts of text -> their ids, a tensor (T,) each. Raises: ValueError for what cannot be continued."""
    is_list = isinstance(texts, (list, tuple)) and len(texts) > 0
    if not is_list or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"the prompt is {texts!r}; give a text, a list of texts, or ids (B, T)")
    if tokenizer is None or tokenizer.vocab_size != model.vocab_size:
        raise ValueError(
            f"a text prompt needs tokenizer= with the model's vocab_size {model.vocab_size}"
        )
    if stream and len(texts) > 1:
        raise ValueError(f"stream=True streams one text; the prompt has {len(texts)}")
    for end in stop:
        if not isinstance(end, str) or end == "":
            raise ValueError(
                f"stop has {end!r}; it has to be a text of one character or more, or a list of them"
            )
        tokenizer.encode(end)
    rows = [tokenizer.encode(text) for text in texts]
    if "" in texts:
        try:
            line_end = tokenizer.encode("\n")
        except ValueError as error:
            raise ValueError(
                "an empty prompt starts from a newline, which this tokenizer lacks: pass at "
                "least one character"
            ) from error
        # The model has to read something: what stands before the first line of a text.
        rows = [row if len(row) else line_end for row in rows]
    return rows


class _TextStream:
    """One row's text as its ids come, up to the first stop string."""

    def __init__(self, tokenizer, stop):
        self.tokenizer = tokenizer
        self.stop = stop
        self.text = ""
        self.pending = []  # ids whose last character is not whole yet
        self.shown = 0  # characters of theirs that are written
        self.ended = False

    def add(self, i):
        """The next id -> the new characters, "" where there are none."""
        if self.ended:
            return ""
        self.pending.append(i)
        text = self.tokenizer.decode(self.pending)
        whole = text.removesuffix("\ufffd")
        piece = whole[self.shown :]
        self.shown = len(whole)
        if whole == text:
            self.pending = []
            self.shown = 0
        return self.write(piece)

    def flush(self):
        """What is still pending when no more ids come."""
        if self.ended or not self.pending:
            return ""
        return self.write(self.tokenizer.decode(self.pending)[self.shown :])

    def write(self, piece):
        """Appends a piece, cut after the first stop string -> what was appended."""
        old = len(self.text)
        text = self.text + piece
        cuts = []
        for stop in self.stop:
            # It may begin in the text before, but it ends in the new piece.
            place = text.find(stop, max(0, old - len(stop) + 1))
            if place >= 0:
                cuts.append(place + len(stop))
        if cuts:
            text = text[: min(cuts)]
            self.ended = True
        self.text = text
        return text[old:]


def _stream_texts(columns, texts, tokenizer, stop):
    """Yields the texts, then, for each column of ids (B,), the list of their new pieces, until all have ended."""
    yield list(texts)
    streams = [_TextStream(tokenizer, stop) for _ in texts]
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
    """Continues a prompt -> prompt and continuation: for ids (B, T) ids (B, T + max_new_tokens), for texts texts.

    temperature, top_k, top_p, min_p: see `next_token_probs`; repetition_penalty: see `apply_repetition_penalty`.
    stop: a text or several; a row ends after the first of them that it writes, which stays at its end.
    seed: row i draws from a generator of its own, with seed + i; without a seed, torch's own generator chooses one.
    stream: an iterator over the prompt and each new piece, as it comes.
    tokenizer: for prompts of text; an empty prompt is the end of a line.
    window_stride: how far the window moves at a time when the text is longer than block_size. 1 is exact; more is
    faster, because the cache lives longer. On a CPU, a copy from `prepare_for_sampling` writes faster, too.
    use_cache: True or False; None: True if the model's `compute_logits` has an argument `cache`.

    The model stays as it is: one in training mode is copied first. Ctrl-C returns what is written.
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
        _check_ids(model, prompt, stop)
        rows = list(prompt.cpu())
    else:
        texts = [prompt] if isinstance(prompt, str) else prompt
        rows = _encode_texts(model, texts, tokenizer, stop, stream)
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


class SplitKLinear(nn.Module):
    """An `nn.Linear` for few rows on a CPU, its matrix in pieces that all cores fetch: (..., K) -> (..., N).

    The pieces are a copy: a layer that is trained on must not be replaced by this one.
    """

    MAX_ROWS = 32  # more rows give the cores enough to do: the plain product is as fast, or faster

    def __init__(self, layer):
        super().__init__()
        self.weight = layer.weight  # (N, K)
        self.bias = layer.bias
        n_pieces = gcd(4, layer.in_features)
        pieces = layer.weight.detach().T.reshape(n_pieces, -1, layer.out_features)
        self.register_buffer("pieces", pieces.contiguous(), persistent=False)  # (4, K / 4, N)

    def forward(self, x):
        rows = x.numel() // x.shape[-1]
        if rows > self.MAX_ROWS:
            return F.linear(x, self.weight, self.bias)
        parts = x.reshape(rows, len(self.pieces), -1).transpose(0, 1)  # (4, rows, K / 4)
        out = torch.bmm(parts, self.pieces).sum(0)  # (rows, N)
        out = out.view(*x.shape[:-1], -1)
        return out if self.bias is None else out + self.bias


class Int8Linear(nn.Module):
    """An `nn.Linear` on a CPU with one byte a weight: (..., K) -> (..., N). It cannot be trained."""

    def __init__(self, layer):
        super().__init__()
        weight = layer.weight.detach()
        largest = weight.abs().amax(1).clamp(min=1e-30)  # a row of zeros has a scale, too
        scales = largest.double() / 127  # one for each row
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():
            # PyTorch moves the making of such tensors into another package; what multiplies with them stays.
            warnings.filterwarnings("ignore", message=".*quantize_per_channel.*")
            rounded = torch.quantize_per_channel(weight, scales, zeros, axis=0, dtype=torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, layer.bias)

    def forward(self, x):
        # reduce_range: 7 bits for x, or sums of two products could overflow on CPUs without VNNI.
        return torch.ops.quantized.linear_dynamic(x, self.packed, reduce_range=True)


LINEAR_LAYERS = {"fp32": SplitKLinear, "int8": Int8Linear}


def _is_plain_linear(layer):
    """Whether a layer is an `nn.Linear` in 32 bits on the CPU, without hooks, which a replacement would not call."""
    return (
        type(layer) is nn.Linear
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
    )


def prepare_for_sampling(model, precision="fp32"):
    """A copy of the model that writes faster on a CPU, in evaluation mode; it cannot be trained.

    precision: "fp32" for the same numbers with `SplitKLinear`, "int8" for rounded ones with `Int8Linear`.
    Raises: ValueError for another precision, and for int8 on another device.
    """
    if precision not in LINEAR_LAYERS:
        raise ValueError(f"precision is {precision!r}; take one of {sorted(LINEAR_LAYERS)}")
    if precision == "int8" and next(model.parameters()).device.type != "cpu":
        raise ValueError("int8 is for the CPU alone: prepare_for_sampling(model.cpu(), 'int8')")
    prepared = deepcopy(model)
    for parent in list(prepared.modules()):
        for name, layer in list(parent.named_children()):
            if _is_plain_linear(layer):
                setattr(parent, name, LINEAR_LAYERS[precision](layer))
    return prepared.eval().requires_grad_(False)
