# Made from the exercises of notebooks/source/16_modern_gpt.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 16 · The modern GPT: what has changed since GPT-2."""

import torch


def divide_by_rms(x, gain, eps=1e-5):
    """x (..., C), gain (C,) -> (..., C), RMSNorm of x over its last dimension."""
    mean_square = x.square().mean(-1, keepdim=True)  # (..., 1)
    return x / (mean_square + eps).sqrt() * gain


def rotate_neighbours(x, speeds):
    """x (..., T, d), speeds (d / 2,) in radians a position -> x with pairs 2i, 2i + 1 turned, (..., T, d)."""
    T = x.shape[-2]
    angles = torch.arange(T, device=x.device)[:, None] * speeds  # (T, d / 2)
    even = x[..., 0::2]
    odd = x[..., 1::2]
    turned_even = even * angles.cos() - odd * angles.sin()
    turned_odd = even * angles.sin() + odd * angles.cos()
    return torch.stack([turned_even, turned_odd], dim=-1).flatten(-2)  # interleaved again


def kv_cache_bytes(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    """All arguments ints -> int: the bytes that the keys and values of `length` positions take."""
    head_size = n_embd // n_head
    numbers = 2 * n_layer * n_kv_head * head_size * length  # 2: keys and values
    return numbers * bytes_per_number


def share_heads(k, n_head):
    """k (B, n_kv_head, T, d) -> (B, n_head, T, d): for each head of queries its head of keys."""
    group = n_head // k.shape[1]
    return k.repeat_interleave(group, dim=1)


def equal_stretch(matrix):
    """matrix (M, N), M and N may differ -> (M, N), with the same U and V, and all singular values 1."""
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vt
