# Made from the exercises of notebooks/source/01_bigram.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 01 · Bigram: a table that writes."""

import math

import torch


def count_skip_pairs(ids, vocab_size, gap):
    """ids (N,) int64, gap >= 1 -> (V, V) int64: row a, column b: how often b stands gap places after a."""
    pairs = ids[:-gap] * vocab_size + ids[gap:]
    return torch.bincount(pairs, minlength=vocab_size**2).view(vocab_size, vocab_size)


def additive_smoothing(counts, amount):
    """counts (V, V) int64, amount > 0 -> (V, V) float32: P(b | a) in row a, column b; each row sums to 1."""
    counts = counts + amount
    return counts / counts.sum(1, keepdim=True)


def unseen_pair_nats(seen, vocab_size, amount):
    """seen: a whole number, 0 or more; amount > 0 -> a float: nats for a character that never came after this one."""
    return math.log((seen + amount * vocab_size) / amount)


def sample_chain(probabilities, start, uniforms):
    """probabilities (V, V), rows sum to 1; start: an id; uniforms (T,), from 0 to 1 -> the ids written, (T,) int64.

    `start` is not among them. No number points exactly at the border of two stretches.
    """
    written = [start]
    for u in uniforms:
        written.append(int((probabilities[written[-1]].cumsum(0) < u).sum()))
    return torch.tensor(written[1:])


def kneser_ney(ids, vocab_size, discount):
    """ids (N,) int64, N >= 2 -> (V, V) float64: P(b | a) in row a, column b; each row sums to 1."""
    counts = torch.bincount(ids[:-1] * vocab_size + ids[1:], minlength=vocab_size**2).double()
    counts = counts.view(vocab_size, vocab_size)
    seen = (counts > 0).double()
    shorter = seen.sum(0) / seen.sum()  # (V,)
    total = counts.sum(1, keepdim=True)  # (V, 1)
    longer = (counts - discount).clamp_min(0) + discount * seen.sum(1, keepdim=True) * shorter
    return torch.where(total > 0, longer / total, shorter)
