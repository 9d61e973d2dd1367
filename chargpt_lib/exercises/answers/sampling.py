# Made from the exercises of notebooks/source/08_sampling.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 08 · Sampling: from probabilities to text."""

import math

import torch
from torch.nn import functional as F


def odds_temperature(p, r):
    """p (V,) sums to 1, all above 0, V >= 2, in any order, one is the largest; r > 1 -> float: the temperature."""
    first, second = p.topk(2).values.tolist()
    return math.log(first / second) / math.log(r)


def typical_probabilities(p, share):
    """p (V,) sums to 1, 0 < share < 1 -> (V,), in the dtype of p: the kept divided by their sum, else 0.

    No sum of probabilities from the beginning is exactly `share`.
    """
    surprise = -p.log()
    order = (surprise - torch.special.entr(p).sum()).abs().argsort(stable=True)
    before = p[order].cumsum(0) - p[order]
    kept = torch.zeros_like(p)
    kept[order[before < share]] = 1
    return kept * p / (kept * p).sum()


def cache_outgrows_weights(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    """All whole numbers -> int: the smallest T >= 1 at which the cache takes more bytes than the weights."""
    one_character = 2 * B * N * G * (C // H) * cache_bytes
    return parameters * weight_bytes // one_character + 1


def mended_pads(E, P, prompts):
    """E (V, C), P (block_size, C), prompts: B int64 tensors (T,), 1 <= T <= block_size -> (B, C), as last_vectors."""
    N = max(len(prompt) for prompt in prompts)
    pads = torch.tensor([N - len(prompt) for prompt in prompts])[:, None]  # (B, 1)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    places = torch.arange(N) - pads  # (B, N): each prompt counts from its own start
    x = E[idx] + P[places.clamp(min=0)]
    scores = x[:, -1:] @ x.mT / E.shape[1] ** 0.5
    # The mask goes by the place, not by the character.
    scores = scores.masked_fill((places < 0)[:, None], float("-inf"))
    return (scores.softmax(-1) @ x)[:, 0]


def speculative_write(p, q, draft, u, w):
    """p (K + 1, V), q (K, V), draft (K,) int64, u (K,), w a number from 0 to 1, K >= 0 -> [ids, last].

    ids (n,) int64, 1 <= n <= K + 1: the characters written; last (V,): the distribution of the last of them.
    """
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft.tolist()):
        if u[k] * q[k, d] >= p[k, d]:
            n, last = k, (p[k] - q[k]).clamp(min=0)
            last = last / last.sum()
            break
    new = (last.cumsum(0) <= w).sum()
    return [torch.cat([draft[:n], new[None]]), last]
