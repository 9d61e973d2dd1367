"""A corpus, two kinds of GPT and a training that take a second; and how to wait for what another process does."""

import time

import torch

from chargpt_lib.data import CharTokenizer, Corpus
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.modern import ModernConfig, ModernGPT
from chargpt_lib.playhouse import write
from chargpt_lib.recipe import TrainConfig

TEXT = write(min_chars=4000).text
CORPUS = Corpus(
    "toy", TEXT[:3000], TEXT[3000:3700] + "€", 0.3
)  # an odd alphabet: no two halves of it are the same
TOKENIZER = CharTokenizer.from_text(CORPUS.train + CORPUS.val)
IDS, VAL = TOKENIZER.encode(CORPUS.train), TOKENIZER.encode(CORPUS.val)


def tiny_gpt(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": TOKENIZER.vocab_size,
        "block_size": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 16,
    }
    return GPT(GPTConfig(**sizes | changes))


def tiny_modern_gpt(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": TOKENIZER.vocab_size,
        "block_size": 16,
        "n_layer": 2,
        "n_head": 4,
        "n_kv_head": 2,
        "n_embd": 16,
        "n_gram": 3,
        "n_gram_rows": 64,
    }
    return ModernGPT(ModernConfig(**sizes | changes))


def settings(**changes):
    usual = {"steps": 12, "batch_size": 4, "learning_rate": 1e-2, "warmup": 0.2, "eval_interval": 5}
    return TrainConfig(**usual | changes)


def wait_for(condition, seconds=300):
    """Returns as soon as the condition holds. AssertionError where it does not within these seconds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"it did not come to pass in {seconds} s"
        time.sleep(0.02)
