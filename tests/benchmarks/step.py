"""How long is a training step? Ours, a plain nanoGPT-style GPT and transformers' GPT-2, side by side in one run.

    python -m tests.benchmarks.step        prints a table and writes data/results/step.json

Ours is `chargpt_lib.training.fit` itself, untouched: it draws one batch a step, and in that draw the others take their
turn while its clock stands still. So the three alternate step by step, and what slows the computer slows them all. All
start from the same weights (checked: they give the same loss), read the same text and use the same optimizer; what is
timed is everything: the rate, the batch, zero_grad, forward, loss, backward, clipping, the step, the loss as a number.
"""

import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"  # the models are made here, not fetched

import torch
import transformers
from torch import nn
from torch.nn import functional as F

from chargpt_lib import training
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import pick_device
from chargpt_lib.files import write_json
from chargpt_lib.gpt import GPT, GPTConfig
from tests.benchmarks.machine import measured_on

OUT = Path(__file__).parents[2] / "data" / "results" / "step.json"
WARMUP = 5  # steps of each that are not counted
CASES = {  # name: (config, batch size, steps counted)
    "cpu": (GPTConfig.cpu(65), 12, 240),
    "lesson 06": (GPTConfig.cpu(54, block_size=192, n_embd=96, n_head=6), 6, 150),
    "cpu, biases as in GPT-2": (replace(GPTConfig.cpu(65), bias=True, qkv_bias=True), 12, 120),
    "baby, without dropout": (replace(GPTConfig.baby(65), dropout=0.0), 4, 21),
}


class PlainBlock(nn.Module):
    """One layer, as plain PyTorch says it."""

    def __init__(self, config):
        super().__init__()
        C = config.n_embd
        self.heads, self.width = config.n_head, C
        self.ln1 = nn.LayerNorm(C, bias=config.bias)
        self.to_qkv = nn.Linear(C, 3 * C, bias=config.qkv_bias)
        self.out = nn.Linear(C, C, bias=config.bias)
        self.ln2 = nn.LayerNorm(C, bias=config.bias)
        self.up = nn.Linear(C, 4 * C, bias=config.bias)
        self.gelu = nn.GELU("tanh" if config.activation == "gelu_tanh" else "none")
        self.down = nn.Linear(4 * C, C, bias=config.bias)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.heads, C // self.heads).transpose(1, 2)
            for part in self.to_qkv(self.ln1(x)).split(self.width, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.down(self.gelu(self.up(self.ln2(x))))


class PlainGPT(nn.Module):
    """The model as one would write it for speed alone: no checks, no options, no dropout. Returns the loss."""

    def __init__(self, config):
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.n_embd)
        self.positions = nn.Embedding(config.block_size, config.n_embd)
        self.layers = nn.ModuleList(PlainBlock(config) for _ in range(config.n_layer))
        self.ln = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x, y):
        h = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        for layer in self.layers:
            h = layer(h)
        logits = self.head(self.ln(h))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.reshape(-1))


class HuggingFaceGPT2(nn.Module):
    """transformers' GPT2LMHeadModel without dropout and without a cache, fused attention. Returns the loss."""

    def __init__(self, config):
        super().__init__()
        self.gpt2 = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=config.vocab_size,
                n_positions=config.block_size,
                n_embd=config.n_embd,
                n_layer=config.n_layer,
                n_head=config.n_head,
                activation_function={"gelu_tanh": "gelu_new"}.get(
                    config.activation, config.activation
                ),
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                use_cache=False,
                attn_implementation="sdpa",
                bos_token_id=None,
                eos_token_id=None,
            )
        )

    def forward(self, x, y):
        logits = self.gpt2(input_ids=x).logits
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.reshape(-1))


RIVALS = {"plain": PlainGPT, "transformers": HuggingFaceGPT2}


@torch.no_grad()
def copy_weights(ours, other):
    """All three list their weights in the same order; biases that ours has not (GPT-2's) become zero."""
    weights = dict(ours.named_parameters())
    has_biases = any(name.endswith("bias") for name in weights)
    values = iter(weights.values())
    for name, weight in other.named_parameters():
        if name.endswith("bias") and not has_biases:
            weight.zero_()
        else:
            value = next(values)
            weight.copy_(
                value.T if ".c_" in name and value.dim() == 2 else value
            )  # GPT-2 keeps matrices transposed
    assert next(values, None) is None, "the models have different weights"


def draw(ids, block_size, batch_size, generator, device):
    """A batch as nanoGPT draws it: slices, stacked."""
    starts = torch.randint(len(ids) - block_size, (batch_size,), generator=generator)
    x = torch.stack([ids[i : i + block_size] for i in starts])
    y = torch.stack([ids[i + 1 : i + 1 + block_size] for i in starts])
    return x.to(device), y.to(device)


def take_steps(model, ids, block_size, batch_size, steps, lr=1e-3):
    """What `fit` does, written plainly; a generator: each `next` is one training step."""
    device = next(model.parameters()).device
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=lr, betas=(0.9, 0.99), fused=device.type in ("cpu", "cuda")
    )
    generator = torch.Generator().manual_seed(1337)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * training.lr_multiplier(step, steps)
        x, y = draw(ids, block_size, batch_size, generator, device)
        optimizer.zero_grad(set_to_none=True)
        loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss.item()


def seconds_per_step(config, batch_size, repeats, ids, device):
    """{name: seconds of each counted step}. Our own `fit` runs, and lets the others in whenever it draws a batch."""
    steps = repeats + WARMUP
    torch.manual_seed(1337)
    ours = GPT(config).to(device)
    rivals = {name: Rival(config).to(device) for name, Rival in RIVALS.items()}
    for rival in rivals.values():
        copy_weights(ours, rival)
    x, y = draw(ids, config.block_size, batch_size, torch.Generator().manual_seed(0), device)
    for name, rival in rivals.items():
        assert torch.allclose(ours(x, y)[1], rival(x, y), rtol=0, atol=1e-5), (
            f"{name} is another model"
        )
    turns = {
        name: take_steps(rival, ids, config.block_size, batch_size, steps)
        for name, rival in rivals.items()
    }
    seconds = {"ours": [], **{name: [] for name in turns}}
    get_batch, clock = training.get_batch, None

    def get_batch_after_the_others(*args):
        nonlocal clock
        if clock is not None:
            seconds["ours"].append(time.perf_counter() - clock)
        order = (
            list(turns) if len(seconds["ours"]) % 2 else list(turns)[::-1]
        )  # each comes first in its turn
        for name in order:
            start = time.perf_counter()
            next(turns[name])
            seconds[name].append(time.perf_counter() - start)
        clock = time.perf_counter()
        return get_batch(*args)

    with mock.patch.object(training, "get_batch", get_batch_after_the_others):
        training.fit(ours, ids, steps, batch_size)
    # the last step of ours ends with fit's own end: it is not counted, nor are its rivals'
    return {
        name: torch.tensor(s[WARMUP : steps - 1], dtype=torch.float64)
        for name, s in seconds.items()
    }


def spread(values, digits):
    """The median and the quartiles."""
    low, middle, high = values.quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype)
    ).tolist()
    return {"median": round(middle, digits), "quartiles": [round(low, digits), round(high, digits)]}


def main():
    corpus, device = load_corpus("playhouse"), pick_device()
    ids = CharTokenizer.from_text(corpus.train + corpus.val).encode(corpus.train)
    report = {
        **measured_on(device, transformers),
        "what": "milliseconds per training step; ratio: ours to the other's in the same round, below 1 is faster",
        "cases": {},
    }
    for case, (config, batch_size, repeats) in CASES.items():
        print(f"{case}: {repeats} rounds, {WARMUP} before them that do not count")
        seconds = seconds_per_step(config, batch_size, repeats, ids, device)
        report["cases"][case] = {
            "config": asdict(config),
            "batch_size": batch_size,
            "repeats": len(seconds["ours"]),
            "ms": {name: spread(1000 * values, 2) for name, values in seconds.items()},
            "ratio": {name: spread(seconds["ours"] / seconds[name], 3) for name in RIVALS},
        }
    print(
        f"\n{'ms per training step':26}{'ours':>10}"
        + "".join(f"{name:>14}{'ratio':>8}{'quartiles':>16}" for name in RIVALS)
    )
    for case, row in report["cases"].items():
        line = f"{case:26}{row['ms']['ours']['median']:10.2f}"
        for name in RIVALS:
            ratio = row["ratio"][name]
            quartiles = "{:.3f} to {:.3f}".format(*ratio["quartiles"])
            line += f"{row['ms'][name]['median']:14.2f}{ratio['median']:8.3f}{quartiles:>16}"
        print(line)
    write_json(OUT, report)
    print(f"\n{report['what']}\nwritten to {OUT.relative_to(OUT.parents[2])}")


if __name__ == "__main__":
    main()
