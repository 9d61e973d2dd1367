# Made from the exercises of notebooks/source/05_blocks.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 05 · Blocks: gather, think, repeat."""

import math

from torch.nn import functional as F


def dead_units(z):
    """z (B, T, U), the inputs of the ReLU -> float: the share of the U units that are dead."""
    return (z <= 0).all(dim=1).all(dim=0).double().mean().item()


def stream_deviation(n_layer, start, added, scaled):
    """n_layer: N, int; start, added: standard deviations, float; scaled: bool -> float, a standard deviation."""
    steps = 2 * n_layer
    variance = added**2 / steps if scaled else added**2
    return math.sqrt(start**2 + steps * variance)


def mended_dropout(x, u, p, training):
    """x, u of the same shape, 0 <= p < 1, training a bool -> what shaky_dropout should have returned."""
    if not training:
        return x
    return x * (u >= p) / (1 - p)


def layer_norm_gradient(x, g, eps):
    """x, g (B, T, C): the input and dL/dy; eps > 0: the epsilon under the root -> dL/dx (B, T, C)."""
    r = (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    y = (x - x.mean(-1, keepdim=True)) / r
    return (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True)) / r


def parallel_block(x, W_qkv, W_o, W_1, W_2, n_head):
    """x (B, T, C), W_qkv (3C, C), W_o (C, C), W_1 (4C, C), W_2 (C, 4C) -> (B, T, C)."""
    B, T, C = x.shape
    y = F.layer_norm(x, (C,))
    q, k, v = (y @ W_qkv.T).view(B, T, 3, n_head, C // n_head).permute(2, 0, 3, 1, 4)
    gathered = (
        F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)
    )
    return x + gathered @ W_o.T + F.gelu(y @ W_1.T) @ W_2.T
