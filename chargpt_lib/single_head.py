# Made from notebooks/source/03_single_head.py by notebooks/tools/build.py. Edit that text, not this file.
"""One head of causal self-attention, and the language model that uses it."""

import torch
from torch import nn

from chargpt_lib.bigram import LanguageModel

__all__ = [
    "causal_mask",
    "scaled_dot_product_attention",
    "Head",
    "init_weights",
    "SingleHeadLanguageModel",
]


def causal_mask(T, device=None):
    """(T, T) bool: True where position t (row) may look at position s (column), that is s <= t."""
    return torch.ones(T, T, dtype=torch.bool, device=device).tril()


def scaled_dot_product_attention(q, k, v, mask=None):
    """q, k (..., T, d), v (..., T, e), mask (T, T) bool -> the weighted means (..., T, e) and the weights (..., T, T).

    Scores that the mask forbids become minus infinity, so their weights are exactly 0. Vaswani et al., 2017.
    """
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (..., T, T)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(-1)  # over the keys: the weights of one query sum to 1
    return weights @ v, weights


class Head(nn.Module):
    """One head of causal attention: (B, T, n_embd) -> (B, T, head_size)."""

    def __init__(self, n_embd, head_size):
        super().__init__()
        self.query = nn.Linear(n_embd, head_size, bias=False)
        self.key = nn.Linear(n_embd, head_size, bias=False)
        self.value = nn.Linear(n_embd, head_size, bias=False)

    def forward(self, x):
        q = self.query(x)  # (B, T, head_size)
        k = self.key(x)
        v = self.value(x)
        mask = causal_mask(x.shape[1], x.device)
        out, weights = scaled_dot_product_attention(q, k, v, mask)
        # Kept so that we can look at them later; detached, because the whole graph would be kept, too.
        self.weights = weights.detach()
        return out


def init_weights(layer):
    """Draws matrices and tables from Normal(0, 0.02), sets biases to zero (Radford et al., 2018).

    It treats one layer: `model.apply(init_weights)` calls it for each layer of a model.
    """
    if isinstance(layer, (nn.Linear, nn.Embedding)):
        nn.init.normal_(layer.weight, std=0.02)
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)


class SingleHeadLanguageModel(LanguageModel):
    """Characters and positions, one head, logits."""

    def __init__(self, vocab_size, block_size, n_embd):
        super().__init__(vocab_size, block_size)
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.attention = Head(n_embd, n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size)
        self.apply(init_weights)  # small weights: the first guesses are nearly even

    def compute_logits(self, idx):
        positions = self.position_embedding.weight[: idx.shape[1]]  # (T, C)
        x = self.token_embedding(idx) + positions  # (B, T, C)
        return self.lm_head(self.attention(x))  # (B, T, V)
