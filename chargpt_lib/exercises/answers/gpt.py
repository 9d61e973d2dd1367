# Made from the exercises of notebooks/source/06_full_gpt.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 06 · The full GPT: it writes plays."""

import math

import torch
from torch.nn import functional as F


def gpt_parameters(V, T, C, H, N, family):
    """-> int: how many parameters a GPT of this family has, with N blocks of width C."""
    bias, qkv_bias, tied = family != "nanoGPT", family == "GPT-2", family != "lecture"
    attention = 3 * C * C + 3 * C * qkv_bias + C * C + C * bias
    feed_forward = C * 4 * C + 4 * C * bias + 4 * C * C + C * bias
    norm = C + C * bias
    last = 0 if tied else C * V + V
    return V * C + T * C + N * (attention + feed_forward + 2 * norm) + norm + last


def logit_contributions(parts, gamma, w):
    """parts (L, C), gamma (C,), w (C,) -> (L,), in the dtype of parts: each part's share in w · LN(parts.sum(0))."""
    spread = (parts.sum(0).var(unbiased=False) + 1e-5).sqrt()
    centred = parts - parts.mean(-1, keepdim=True)
    return (centred / spread * gamma) @ w


def bits_per_byte(loss, text):
    """loss: nats per character of the text, a float -> the same cost in bits per byte of its UTF-8, a float."""
    return loss / math.log(2) * len(text) / len(text.encode("utf-8"))


def sample_continuation(table, positions, idx, u):
    """table (V, V), positions (block_size, V), idx (B, T) int64, u (B, n) -> (B, T + n) int64: idx, then n new ids."""
    for n in range(u.shape[1]):
        window = idx[:, -len(positions) :]
        logits = table[window] + positions[: window.shape[1]]
        ends = logits[:, -1].softmax(-1).cumsum(-1)
        new = (ends[:, :-1] < u[:, n : n + 1]).sum(-1, keepdim=True)
        idx = torch.cat([idx, new], dim=1)
    return idx


def tied_gradient(E, idx, targets):
    """E (V, C), idx (M,) int64, targets (M,) int64 -> (V, C), in E's dtype: the gradient of the mean loss."""
    x = E[idx]  # (M, C)
    error = (x @ E.T).softmax(-1) - F.one_hot(targets, len(E)).to(E.dtype)  # (M, V)
    as_last_matrix = error.T @ x
    as_table = torch.zeros_like(E).index_add_(0, idx, error @ E)  # repeated ids add up
    return (as_last_matrix + as_table) / len(idx)
