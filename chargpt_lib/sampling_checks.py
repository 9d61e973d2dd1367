"""The arguments of lesson 08's `generate`: checked before any time is spent, with a message that names the culprit."""

from math import inf
from numbers import Integral, Real

import torch


def check_sampling(model, **parameters):
    """Checks the sampling parameters. Raises: ValueError for a value with which nothing can be drawn."""
    rules = {  # name: (its type, the condition, the condition in words)
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


def check_ids(model, ids, stop):
    """Checks a prompt of ids. Raises: ValueError for one that cannot be continued."""
    if stop or ids.dim() != 2 or ids.numel() == 0 or ids.dtype != torch.int64:
        raise ValueError(
            f"a tensor prompt must be non-empty int64 (B, T) without stop=; got {ids.dtype}, "
            f"{tuple(ids.shape)}, stop={stop}"
        )
    model.check(ids.reshape(-1, 1))  # in columns: the prompt may be longer than a block


def encode_texts(model, texts, tokenizer, stop, stream):
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
        tokenizer.encode(end)  # a stop string that cannot be encoded would never come
    rows = [tokenizer.encode(text) for text in texts]
    if "" in texts:
        try:
            line_end = tokenizer.encode("\n")
        except ValueError as error:
            raise ValueError(
                "an empty prompt starts from a newline, which this tokenizer lacks: pass at "
                "least one character"
            ) from error
        # The model has to read something: a line end, after which a line begins.
        rows = [row if len(row) else line_end for row in rows]
    return rows
