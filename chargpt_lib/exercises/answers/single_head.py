# Made from the exercises of notebooks/source/03_single_head.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 03 · A single head: looking at the past."""

import torch


def window_mask(T, w):
    """(T, T) bool: True where position t (row) may look at position s (column), that is t - w < s <= t."""
    t, s = torch.arange(T)[:, None], torch.arange(T)
    return (s <= t) & (s > t - w)


def score_gradient(r, g, d):
    """r, g (..., n): dot products, and ∂L / ∂p for p = softmax(r / √d) -> (..., n): ∂L / ∂r.

    d: a whole number, the head size.
    """
    p = (r / d**0.5).softmax(-1)
    return p * (g - (p * g).sum(-1, keepdim=True)) / d**0.5


def left_padded_weights(scores, starts):
    """scores (B, T, T), starts (B,) int64, from 0 to T - 1 -> (B, T, T): the weights, a row for each query.

    Query t of text b spreads its weight over the positions starts[b] to t; if t < starts[b], its row is 0.
    """
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    return scores.masked_fill(~may_look, float("-inf")).softmax(-1).masked_fill(~may_look, 0.0)


def characters_looked_at(weights):
    """weights (..., T, T): rows that sum to 1 and may contain zeros -> (..., T): e to the entropy of each row."""
    return torch.special.entr(weights).sum(-1).exp()


def merged_attention(outs, logs):
    """outs (P, T, d): the o of each piece and query, logs (P, T): the ℓ -> [o (T, d), ℓ (T,)] of the whole past."""
    shares = logs.softmax(0)  # (P, T): the part of the whole weight that lies in each piece
    return [(shares[..., None] * outs).sum(0), logs.logsumexp(0)]
