# Made from notebooks/source/04_multi_head.py by notebooks/tools/build.py. Edit that text, not this file.
"""Multi-head attention: a loop over heads, one matrix for all, and the fused kernel."""

import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.bigram import LanguageModel
from chargpt_lib.single_head import Head, init_weights

__all__ = [
    "head_size",
    "MultiHeadAttention",
    "CausalSelfAttention",
    "MultiHeadLanguageModel",
]


def head_size(n_embd, n_head):
    """The width of each head. Raises: ValueError where n_head does not divide n_embd."""
    if n_head < 1 or n_embd % n_head:
        sizes = [n for n in range(1, n_embd + 1) if n_embd % n == 0]
        raise ValueError(
            f"n_embd ({n_embd}) must be divisible by n_head ({n_head}); valid n_head: {sizes}"
        )
    return n_embd // n_head


class MultiHeadAttention(nn.Module):
    """Multi-head attention as a loop over heads: (B, T, C) -> (B, T, C). Read this class, and use `CausalSelfAttention`."""

    def __init__(self, n_embd, n_head, bias=True):
        super().__init__()
        size = head_size(n_embd, n_head)
        self.heads = nn.ModuleList(Head(n_embd, size) for _ in range(n_head))
        self.proj = nn.Linear(n_embd, n_embd, bias=bias)

    def forward(self, x):
        outs = [head(x) for head in self.heads]  # (B, T, head_size) each
        return self.proj(torch.cat(outs, dim=-1))  # side by side, (B, T, C), then mixed


class CausalSelfAttention(nn.Module):
    """All heads at once: (B, T, C) -> (B, T, C), with one qkv matrix and the fused kernel.

    bias: of the projection; qkv_bias: of queries, keys and values; dropout: on the weights and on the result.
    """

    def __init__(self, n_embd, n_head, bias=True, qkv_bias=False, dropout=0.0):
        super().__init__()
        self.n_head = n_head
        self.head_size = head_size(n_embd, n_head)
        self.dropout = dropout
        self.qkv = nn.Linear(n_embd, 3 * n_embd, bias=qkv_bias)
        self.proj = nn.Linear(n_embd, n_embd, bias=bias)

    def forward(self, x, cache=None):
        """x (B, T, C) -> (B, T, C). cache: the keys and values of the positions before x (lesson 08)."""
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, self.head_size)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # (B, H, T, head_size) each
        mask = None
        if cache is not None:
            # Now the keys and values of all positions so far: (B, H, length, head_size) each
            k, v, mask = cache.update(self, k, v)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            # A single new position after a cache may see everything in it, and needs no mask.
            is_causal=mask is None and k.shape[2] == T,
            # The kernel knows nothing of eval mode: there, dropout has to be 0.
            dropout_p=self.dropout if self.training else 0.0,
        )
        out = out.transpose(1, 2).reshape(B, T, C)  # heads side by side again
        return F.dropout(self.proj(out), self.dropout, self.training)


class MultiHeadLanguageModel(LanguageModel):
    """Characters and positions, many heads, logits."""

    def __init__(self, vocab_size, block_size, n_embd, n_head):
        super().__init__(vocab_size, block_size)
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.attention = CausalSelfAttention(n_embd, n_head)
        self.lm_head = nn.Linear(n_embd, vocab_size)
        self.apply(init_weights)

    def compute_logits(self, idx):
        x = self.token_embedding(idx) + self.position_embedding.weight[: idx.shape[1]]  # (B, T, C)
        return self.lm_head(self.attention(x))  # (B, T, V)
