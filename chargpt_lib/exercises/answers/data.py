# Made from the exercises of notebooks/source/00_data.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 00 · A text, and numbers for it."""

import math

import torch


def train_val_split(text, percent):
    """A text and a whole number from 1 to 99 -> [training text, validation text]; together they are the text."""
    cut = len(text) * (100 - percent) // 100
    return [text[:cut], text[cut:]]


def batch_windows(ids, starts, block_size):
    """ids (N,), starts (B,), both int64, each start + T < N -> [x, y], both (B, T) int64.

    Row b of x is the window that begins at starts[b]; y[b, t] is the id that follows x[b, t] in the text.
    """
    windows = ids[starts[:, None] + torch.arange(block_size + 1)]  # (B, T + 1)
    return [windows[:, :-1], windows[:, 1:]]


def uniform_loss(vocab_size, ruled_out):
    """Two whole numbers, 0 <= ruled_out < vocab_size -> a float: nats for a character that is not ruled out."""
    return math.log(vocab_size - ruled_out)


def character_entropy(text):
    """A text of at least one character -> a float: the entropy of its characters, in nats per character."""
    shares = [text.count(char) / len(text) for char in set(text)]
    return -sum(share * math.log(share) for share in shares)


def merge_pairs(ids, vocab_size, merges):
    """ids: a list of whole numbers from 0 to vocab_size - 1 -> a new list, the ids after that many merges."""
    for new in range(vocab_size, vocab_size + merges):
        pairs, merged = list(zip(ids, ids[1:])), []
        best = max(sorted(set(pairs)), key=pairs.count, default=None)
        for i in ids:
            if merged and (merged[-1], i) == best:
                merged[-1] = new
            else:
                merged.append(i)
        ids = merged
    return ids
