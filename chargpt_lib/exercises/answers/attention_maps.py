# Made from the exercises of notebooks/source/07_attention_maps.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 07 · Attention maps: what each head looks at."""

import torch
from torch.nn import functional as F


def induction_targets(ids, n):
    """ids (T,) int64, n >= 1 -> (T,) int64: for each position the target of induction by n characters, or -1."""
    targets = torch.full_like(ids, -1)
    for t in range(n, len(ids)):
        for j in range(n - 1, t):
            if torch.equal(ids[j - n + 1 : j + 1], ids[t - n + 1 : t + 1]):
                targets[t] = j + 1
    return targets


def chance_share(T, back):
    """T positions, 0 <= back < T, whole numbers -> float: mean weight of an even head, `back` before."""
    shares = [1 / (t + 1) for t in range(back, T)]
    return sum(shares) / len(shares)


def text_dependence(weights):
    """weights (N, T, T) of one head, N texts, rows sum to 1 -> (T,), in its dtype: J of each position, in nats."""
    entropy = lambda rows: torch.special.entr(rows).sum(-1)
    return entropy(weights.mean(0)) - entropy(weights).mean(0)


def mean_ablation(heads, W_o, bias, h):
    """heads (B, H, T, D), W_o (C, C), bias (C,), C = H * D, h from 0 to H - 1 -> (B, T, C)."""
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean((0, 1))  # (D,)
    return F.linear(heads.transpose(1, 2).flatten(2), W_o, bias)


def mended_rollout(weights, keeps):
    """weights (L, T, T), rows sum to 1, keeps (L,) from 0 to 1 -> (T,): what rollout_of_last should return."""
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights.flip(0), keeps.flip(0)):  # from the highest layer down
        share = keep * share + (1 - keep) * share @ A
    return share


def ov_circuit(E, W_v, W_o, W_u):
    """E, W_u (V, C), W_v (D, C), W_o (C, D), V >= 2 -> [table (V, V), margin (V,)], in the dtype of E."""
    table = E @ W_v.T @ W_o.T @ W_u.T
    itself = torch.eye(len(E), dtype=torch.bool)
    best_other = table.masked_fill(itself, float("-inf")).amax(-1)
    return [table, table.diagonal() - best_other]
