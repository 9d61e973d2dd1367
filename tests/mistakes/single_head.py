"""Lesson 03."""

import torch

from tests.mistakes import right, wrong


@right("window_mask")
def loops(T, w):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for t in range(T):
        for s in range(max(0, t - w + 1), t + 1):
            mask[t, s] = True
    return mask


@right("window_mask")
def difference_of_triangles(T, w):
    ones = torch.ones(T, T, dtype=torch.bool)
    return ones.tril() & ~ones.tril(-w)


@wrong("window_mask", "one position too wide")
def off_by_one(T, w):
    t, s = torch.arange(T)[:, None], torch.arange(T)
    return (s <= t) & (s >= t - w)


@wrong("window_mask", "whole past")
def plain_causal(T, w):
    return torch.ones(T, T, dtype=torch.bool).tril()


@wrong("window_mask", "lets the future in")
def window_on_both_sides(T, w):
    t, s = torch.arange(T)[:, None], torch.arange(T)
    return (t - s).abs() < w


@wrong("window_mask", "does not look at itself")
def strictly_before(T, w):
    t, s = torch.arange(T)[:, None], torch.arange(T)
    return (s < t) & (s >= t - w)


@wrong("window_mask", "float32")
def floats(T, w):
    return torch.ones(T, T).tril().triu(1 - w)


@wrong("window_mask", "rows and columns")
def transposed(T, w):
    t, s = torch.arange(T)[:, None], torch.arange(T)
    return ((s <= t) & (s > t - w)).T


@wrong("window_mask")
def forgets_to_return(T, w):
    torch.ones(T, T).tril().triu(1 - w).bool()
