# Made from the exercises of notebooks/source/04_multi_head.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 04 · Many heads: the same numbers, three ways."""

import math

import torch


def merge_heads(x):
    """x (B, H, T, D) -> (B, T, H * D): for each character the numbers of head 0, then those of head 1, ..."""
    B, H, T, D = x.shape
    return x.transpose(1, 2).reshape(B, T, H * D)


def multi_head_weights(q, k, n_head):
    """q, k (B, T, C) -> (B, n_head, T, T): what flat_weights should have returned."""
    B, T, C = q.shape
    q, k = (part.view(B, T, n_head, C // n_head).transpose(1, 2) for part in (q, k))
    scores = q @ k.transpose(-2, -1) / (C // n_head) ** 0.5
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    return scores.masked_fill(~seen, float("-inf")).softmax(-1)


def longest_text(memory, batch_size, n_head, number_bytes):
    """All whole numbers -> int: the largest T whose weights need at most `memory` bytes; 0 if not even T = 1 fits."""
    return math.isqrt(memory // (batch_size * n_head * number_bytes))


def head_contributions(heads, W_o):
    """heads (B, H, T, D), W_o (C, C) with C = H * D -> (B, H, T, C): their sum over H is the projected result."""
    parts = W_o.view(len(W_o), heads.shape[1], -1).permute(1, 2, 0)  # (H, D, C)
    return heads @ parts


def grouped_query_attention(x, W_q, W_k, W_v, W_o, n_head):
    """x (B, T, C), W_q, W_o (C, C), W_k, W_v (G * D, C) with D = C / n_head -> (B, T, C)."""
    B, T, C = x.shape
    D = C // n_head
    q, k, v = ((x @ W.T).view(B, T, -1, D).transpose(1, 2) for W in (W_q, W_k, W_v))
    k, v = (part.repeat_interleave(n_head // k.shape[1], dim=1) for part in (k, v))  # (B, H, T, D)
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    weights = (q @ k.transpose(-2, -1) / D**0.5).masked_fill(~seen, float("-inf")).softmax(-1)
    return (weights @ v).transpose(1, 2).reshape(B, T, C) @ W_o.T
