# Made from notebooks/source/06_full_gpt.py by notebooks/tools/build.py. Edit that text, not this file.
"""The GPT: its configuration, its model, and the recorded model that comes with the course."""

import hashlib
import json
from dataclasses import dataclass
from typing import ClassVar

from safetensors.torch import load_model
from torch import nn
from torch.nn import functional as F

from chargpt_lib.bigram import LanguageModel
from chargpt_lib.blocks import ACTIVATIONS, Block, scale_residual_init
from chargpt_lib.data import load_tokenizer
from chargpt_lib.files import bundled_dir
from chargpt_lib.multi_head import head_size
from chargpt_lib.single_head import init_weights

__all__ = [
    "GPTConfig",
    "GPT",
    "PLAYHOUSE",
    "load_pretrained",
]


def _check_config(config):
    """Checks the sizes of a GPT. Raises: ValueError for sizes that no GPT can have."""
    for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
        size = getattr(config, name)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} is {size!r}; it must be an integer >= 1")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout must be >= 0 and < 1, got {config.dropout}")
    if config.activation not in ACTIVATIONS:
        raise ValueError(
            f"activation {config.activation!r} is not known: take one of {sorted(ACTIVATIONS)}"
        )
    head_size(config.n_embd, config.n_head)


@dataclass
class GPTConfig:
    """The sizes of a GPT and the choices of its family. Raises: ValueError for sizes that no GPT can have."""

    vocab_size: int
    block_size: int = 256  # the longest window, in characters
    n_layer: int = 6  # blocks
    n_head: int = 6  # attention heads in a block
    n_embd: int = 384  # embedding width, a multiple of n_head
    dropout: float = 0.0  # the probability that training switches an activation off
    bias: bool = False  # use biases in projections, feed-forward layers and norms
    qkv_bias: bool = False  # use biases for queries, keys and values
    activation: str = "gelu"  # relu, gelu, gelu_tanh or relu2
    tied: bool = True  # tie lm_head to the token embedding; an untied lm_head has a bias
    scaled_init: bool = True  # scale initial residual projections by 1/sqrt(2 n_layer), as in GPT-2

    model_type: ClassVar[str] = "gpt"  # written into a saved model's config (lesson 09)

    def __post_init__(self):
        _check_config(self)

    def min_parameters(self):
        """The parameters in the large matrices and tables, without building the model, which has a few more."""
        blocks = 12 * self.n_layer * self.n_embd**2
        return blocks + (self.vocab_size + self.block_size) * self.n_embd

    @classmethod
    def lecture(cls, vocab_size, block_size=256, n_embd=384, n_head=6, n_layer=6, dropout=0.2):
        """The GPT of "Let's build GPT" (Karpathy, 2023): ReLU, q, k, v without bias, the last matrix not tied."""
        return cls(
            vocab_size=vocab_size,
            block_size=block_size,
            n_embd=n_embd,
            n_head=n_head,
            n_layer=n_layer,
            dropout=dropout,
            bias=True,
            activation="relu",
            tied=False,
            scaled_init=False,
        )

    @classmethod
    def oz(cls, vocab_size):
        """A small lecture GPT, for The Wizard of Oz."""
        return cls.lecture(vocab_size, block_size=64, n_embd=128, n_head=4, n_layer=3)

    @classmethod
    def baby(cls, vocab_size):
        """nanoGPT's baby GPT: 10.7 million parameters."""
        return cls(vocab_size, dropout=0.2)

    @classmethod
    def cpu(cls, vocab_size, block_size=64, n_embd=128, n_head=4, n_layer=4):
        """nanoGPT's sizes for a CPU: 0.8 million parameters."""
        return cls(vocab_size, block_size=block_size, n_embd=n_embd, n_head=n_head, n_layer=n_layer)

    @classmethod
    def gpt2(cls):
        """The smallest GPT-2: 124 million parameters, for 50,257 subwords."""
        return cls(
            vocab_size=50257,
            block_size=1024,
            n_layer=12,
            n_head=12,
            n_embd=768,
            dropout=0.1,
            bias=True,
            qkv_bias=True,
            activation="gelu_tanh",
        )


class GPT(LanguageModel):
    """A GPT of the family that the config describes (Radford et al., 2019)."""

    def __init__(self, config):
        super().__init__(config.vocab_size, config.block_size)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList()
        for _ in range(config.n_layer):
            block = Block(
                config.n_embd,
                config.n_head,
                config.bias,
                config.qkv_bias,
                config.activation,
                config.dropout,
            )
            self.blocks.append(block)
        # With pre-norm, no block normalises the stream after its last addition; this layer norm does.
        self.norm = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=not config.tied)
        if config.tied:
            # Both are (V, C): one parameter with two names; its gradient is the sum over both uses.
            self.lm_head.weight = self.token_embedding.weight
        self.apply(init_weights)
        if config.scaled_init:
            scale_residual_init(self, config.n_layer)

    def embed(self, idx, cache=None):
        """idx (B, T) -> the embedding of each character plus that of its position, (B, T, C)."""
        T = idx.shape[1]
        x = self.token_embedding(idx)  # (B, T, C)
        if cache is None:
            positions = self.position_embedding.weight[:T]  # (T, C)
        else:
            # idx continues where the cache ends: (T, C), or (B, T, C) where each row has its own positions.
            positions = self.position_embedding(cache.extend(T, idx.device))
        x = x + positions
        return F.dropout(x, self.config.dropout, self.training)

    def compute_logits(self, idx, cache=None):
        """idx (B, T) -> logits (B, T, V). cache: keys and values of the text before idx (lesson 08)."""
        x = self.embed(idx, cache)
        for block in self.blocks:
            x = block(x, cache)
        return self.lm_head(self.norm(x))

    def num_params(self):
        """The number of parameters; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())


# The sizes of the course's model of Playhouse, for GPTConfig.cpu: 0.5 million parameters.
PLAYHOUSE = {"block_size": 192, "n_embd": 96, "n_head": 6}


def load_pretrained(name):
    """A model that comes with the course -> the GPT, on the CPU; its tokenizer; the record of its training, a dict.

    Raises: FileNotFoundError where there is no such model, ValueError where its weights are not the recorded ones.
    """
    folder = bundled_dir() / "models" / name
    config = folder / "config.json"
    record = folder / "record.json"
    if not record.is_file():
        raise FileNotFoundError(f"unknown pretrained model {name!r}: {record} does not exist")
    record = json.loads(record.read_text(encoding="utf-8"))
    weights = folder / "model.safetensors"
    # What the lessons say about single heads holds for these weights only.
    if hashlib.sha256(weights.read_bytes()).hexdigest() != record["sha256"]:
        raise ValueError(
            f"the SHA-256 of {weights} differs from record.json: reinstall or "
            f"re-download the course"
        )
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings.pop("model_type", None)
    model = GPT(GPTConfig(**settings))
    load_model(model, weights)  # 16 bits a number in the file, 32 in the model
    return model.eval(), load_tokenizer(folder), record
