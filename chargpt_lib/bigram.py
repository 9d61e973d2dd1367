# Made from notebooks/source/01_bigram.py by notebooks/tools/build.py. Edit that text, not this file.
"""The bigram model: counted, and as a table of logits; n-gram tables with backoff."""

from math import log2

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "LanguageModel",
    "BigramLanguageModel",
    "ngram_codes",
    "CountTable",
    "NGramModel",
]


class LanguageModel(nn.Module):
    """What the models share. A subclass defines `compute_logits(idx)`: (B, T) -> (B, T, V)."""

    def __init__(self, vocab_size, block_size):
        super().__init__()
        self.vocab_size = vocab_size
        self.block_size = block_size

    def forward(self, idx, targets=None, cache=None):
        """idx (B, T) int64 -> logits (B, T, V), and the mean loss in nats, None without targets (B, T).

        cache: what the model has read before idx, for models that can continue from it (lesson 08).
        """
        # A compiled model cannot look at the values of its input.
        if not torch.compiler.is_compiling():
            self.check(idx)
        if cache is None:
            logits = self.compute_logits(idx)
        else:
            logits = self.compute_logits(idx, cache)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def check(self, idx):
        """Raises: ValueError for ids that this model cannot read."""
        if isinstance(idx, str):
            raise ValueError("idx is a text, expected ids (B, T): tokenizer.encode(text)[None]")
        if idx.dim() != 2:
            raise ValueError(
                f"idx has the shape {tuple(idx.shape)}, expected (B, T); add a batch "
                f"dimension with idx[None]"
            )
        if idx.shape[1] > self.block_size:
            raise ValueError(
                f"idx is {idx.shape[1]} characters long, and the model sees at most block_size = "
                f"{self.block_size}: give it the last ones, idx[:, -{self.block_size}:]"
            )
        # Only on the CPU: on an accelerator, reading a value would wait for all work queued before it.
        if idx.device.type == "cpu" and idx.numel():
            low, high = idx.aminmax()
            if low < 0 or high >= self.vocab_size:
                raise ValueError(
                    f"token ids range from {low} to {high}, but vocab_size is {self.vocab_size}: "
                    f"encode the text with the model's own tokenizer"
                )

    @torch.no_grad()
    def generate(self, idx, max_new_tokens, generator=None):
        """Continues a text: idx (B, T) -> (B, T + max_new_tokens). The model sees the last block_size characters.

        Raises: ValueError for a prompt that is empty or not (B, T).
        """
        if idx.dim() != 2 or not idx.shape[1]:
            raise ValueError(
                f"the prompt has the shape {tuple(idx.shape)}, expected (B, T) and not empty; "
                f"for one text, add a batch dimension with idx[None]"
            )
        was_training = self.training
        self.eval()
        try:
            for _ in range(max_new_tokens):
                logits, _ = self(idx[:, -self.block_size :])
                probabilities = logits[:, -1].softmax(-1)  # (B, V)
                new = torch.multinomial(probabilities, 1, generator=generator)  # (B, 1)
                idx = torch.cat([idx, new], dim=1)
        finally:  # after Ctrl-C, too
            self.train(was_training)
        return idx


class BigramLanguageModel(LanguageModel):
    """A table: the row of a character holds the logits of the next one."""

    def __init__(self, vocab_size, block_size=1):
        super().__init__(vocab_size, block_size)
        self.table = nn.Embedding(vocab_size, vocab_size)
        # PyTorch's own std is 1: a new model would be sure of things that it cannot know.
        nn.init.normal_(self.table.weight, std=0.02)

    def compute_logits(self, idx):
        return self.table(idx)  # (B, T) -> (B, T, V)


def ngram_codes(ids, n, vocab_size):
    """ids (..., L) -> the numbers of all groups of n neighbours in base V, (..., L - n + 1)."""
    if n == 0:
        return torch.zeros_like(ids[..., :1])  # the one empty group
    powers = vocab_size ** torch.arange(n - 1, -1, -1)
    return (ids.unfold(-1, n, 1) * powers).sum(-1)


class CountTable:
    """Numbers and how often each was seen."""

    def __init__(self, numbers):
        self.codes, self.counts = numbers.unique(return_counts=True)

    def __getitem__(self, wanted):
        """The counts of the wanted numbers, 0 for those never seen."""
        # searchsorted gives the place where a number would be inserted; past the end there is nothing to compare.
        place = torch.searchsorted(self.codes, wanted).clamp_max(len(self.codes) - 1)
        return torch.where(self.codes[place] == wanted, self.counts[place], 0)


class NGramModel:
    """Counts of groups of 1 to n characters, backing off to shorter ones by degrees (Witten and Bell, 1991).

    ids (N,) int64. Raises: ValueError where the text is shorter than n, or a group's number needs more than 63 bits.
    """

    def __init__(self, ids, n, vocab_size):
        if len(ids) < n or vocab_size**n > 2**63:
            most = min(len(ids), int(63 / max(log2(vocab_size), 1)))
            raise ValueError(
                f"n = {n} is too large for {len(ids)} ids and vocab_size {vocab_size}: "
                f"use at most {most}"
            )
        self.n = n
        self.vocab_size = vocab_size
        self.groups = []  # how often each context came with each character
        self.contexts = []  # how often each context came
        self.kinds = []  # how many different characters came after it
        for k in range(1, n + 1):
            groups = CountTable(ngram_codes(ids, k, vocab_size))
            # Without the last id, which nothing follows. expand repeats the one empty context for every position.
            contexts = ngram_codes(ids[:-1], k - 1, vocab_size).expand(len(ids) - k + 1)
            self.groups.append(groups)
            self.contexts.append(CountTable(contexts))
            # Each different group counts once for the context that it begins with.
            self.kinds.append(CountTable(groups.codes // vocab_size))

    def probability(self, groups):
        """groups (..., L) of ids -> the probability (...) of each group's last id after the ids before it."""
        p = torch.full(groups.shape[:-1], 1 / self.vocab_size, dtype=torch.float64)
        for k in range(1, min(self.n, groups.shape[-1]) + 1):
            number = ngram_codes(groups[..., -k:], k, self.vocab_size)[..., 0]
            context = number // self.vocab_size
            seen = self.contexts[k - 1][context]
            kinds = self.kinds[k - 1][context]
            mixed = (self.groups[k - 1][number] + kinds * p) / (seen + kinds).clamp_min(1)
            # For a context never seen, the probability of the shorter one stays.
            p = torch.where(seen > 0, mixed, p)
        return p

    def nats(self, ids):
        """What the model pays for each character of a text from its n-th on: ids (N,) -> (N - n + 1,)."""
        return -self.probability(ids.unfold(0, self.n, 1)).log()
