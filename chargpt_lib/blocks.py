# Made from notebooks/source/05_blocks.py by notebooks/tools/build.py. Edit that text, not this file.
"""The transformer block: attention, feed-forward, residual connections, layer norm, dropout."""

import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.bigram import LanguageModel
from chargpt_lib.multi_head import CausalSelfAttention
from chargpt_lib.single_head import init_weights

__all__ = [
    "ACTIVATIONS",
    "FeedForward",
    "Block",
    "scale_residual_init",
    "BlockLanguageModel",
]


ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),  # as GPT-2 computes it
    "relu2": lambda x: F.relu(x).square(),  # lesson 16
}


class FeedForward(nn.Module):
    """Two matrices with an activation between them, at each position by itself: (B, T, C) -> (B, T, C)."""

    def __init__(self, n_embd, bias=True, activation="gelu", dropout=0.0):
        super().__init__()
        # Four times as wide inside, as in Vaswani et al. (2017) and most models since.
        self.fc = nn.Linear(n_embd, 4 * n_embd, bias=bias)
        self.activation = activation
        self.dropout = dropout
        self.proj = nn.Linear(4 * n_embd, n_embd, bias=bias)

    def forward(self, x):
        activation = ACTIVATIONS[self.activation]
        x = self.proj(activation(self.fc(x)))
        return F.dropout(x, self.dropout, self.training)


class Block(nn.Module):
    """A transformer block: attention, then feed-forward, each with pre-norm and residual: (B, T, C) -> (B, T, C)."""

    def __init__(self, n_embd, n_head, bias=True, qkv_bias=False, activation="gelu", dropout=0.0):
        super().__init__()
        self.norm_1 = nn.LayerNorm(n_embd, bias=bias)
        self.attention = CausalSelfAttention(n_embd, n_head, bias, qkv_bias, dropout)
        self.norm_2 = nn.LayerNorm(n_embd, bias=bias)
        self.feed_forward = FeedForward(n_embd, bias, activation, dropout)

    def forward(self, x, cache=None):
        """x (B, T, C) -> (B, T, C). cache: for the attention (lesson 08)."""
        x = x + self.attention(self.norm_1(x), cache)  # the only way between positions
        return x + self.feed_forward(self.norm_2(x))


def scale_residual_init(model, n_layer):
    """Shrinks the matrices that write into the residual stream by 1 / sqrt(2 n_layer) (Radford et al., 2019).

    Each of n_layer blocks adds to the stream twice; with this scale, its variance does not grow with the depth.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("proj.weight"):
                weight.mul_((2 * n_layer) ** -0.5)


class BlockLanguageModel(LanguageModel):
    """Embeddings of characters and positions, blocks, a layer norm, logits."""

    def __init__(self, vocab_size, block_size, n_embd, n_head, n_layer, dropout=0.0):
        super().__init__(vocab_size, block_size)
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.blocks = nn.Sequential(
            *[Block(n_embd, n_head, dropout=dropout) for _ in range(n_layer)]
        )
        self.norm = nn.LayerNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size)
        self.apply(init_weights)
        scale_residual_init(self, n_layer)  # after init_weights, which would overwrite it

    def compute_logits(self, idx):
        x = self.token_embedding(idx) + self.position_embedding.weight[: idx.shape[1]]  # (B, T, C)
        return self.lm_head(self.norm(self.blocks(x)))  # (B, T, V)
