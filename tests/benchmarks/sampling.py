"""How many characters a second? Ours, a plain loop without a cache, transformers' cached one, and the bare products.

    python -m tests.benchmarks.sampling                         a few minutes; writes data/results/sampling.json
    python -m tests.benchmarks.sampling baby.safetensors        also the exact loss of these weights, fp32 and int8

(The recorded run's weights: `torch.manual_seed(1337)`, `GPT(replace(GPTConfig.baby(65), dropout=0.0))`, 700 steps of `fit`
with batch_size=8 and lr=1e-3 on Tiny Shakespeare, twelve minutes on two cores; its settings in earnest want a GPU.)

GPTConfig.baby's sizes, fp32, one text of one character and 255 more: all inside the block. In each round everybody
writes the whole text, in turns, so what slows the computer slows them all; ratios are within a round. Plain and
transformers' have the same weights as ours (checked: they give the same logits). Ours is `prepare_for_sampling`'s copy;
"not prepared" is the model as it is. The bare products are every matrix once a character, times a vector, and nothing
else: as `F.linear` does it, which asks one core to fetch the matrix, and split, as a prepared copy does it.
"""

import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # the models are made here, not fetched

import torch
import transformers
from safetensors.torch import load_model
from torch import nn

from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.files import read_json, write_json
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.sampling import SplitKLinear, generate, prepare_for_sampling
from chargpt_lib.training import evaluate
from tests.benchmarks.machine import measured_on
from tests.benchmarks.step import HuggingFaceGPT2, PlainGPT, copy_weights, spread

OUT = Path(__file__).parents[2] / "data" / "results" / "sampling.json"
ROUNDS, BATCH, EDGE = 7, 32, 50  # EDGE: how many characters count as the first and as the last
SETTINGS = {
    "do_sample": True,
    "top_k": 0,
    "use_cache": True,
    "pad_token_id": 0,
    "eos_token_id": None,
}


class PlainWriter(PlainGPT):
    """nanoGPT's: logits of the last place alone, and a loop that reads everything anew."""

    def forward(self, x):
        h = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        for layer in self.layers:
            h = layer(h)
        return self.head(self.ln(h[:, -1:]))

    @torch.no_grad()
    def write(self, idx, steps):
        for _ in range(steps):
            logits = self(idx[:, -self.positions.num_embeddings :])[:, -1]
            idx = torch.cat([idx, torch.multinomial(logits.softmax(-1), 1)], 1)
            yield idx[:, -1:]


@torch.no_grad()
def bare_products(model, steps):
    """Every matrix that a character is multiplied with, times a vector."""
    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Linear, SplitKLinear))]
    vectors = [torch.randn(1, layer.weight.shape[1]) for layer in layers]
    for _ in range(steps):
        for layer, vector in zip(layers, vectors):
            layer(vector)
        yield


@torch.no_grad()
def contenders(config, steps):
    """{name: (how many texts, a function that starts writing)}; all of the same weights."""
    torch.manual_seed(1337)
    ours, plain, theirs = (
        GPT(config).eval(),
        PlainWriter(config).eval(),
        HuggingFaceGPT2(config).eval(),
    )
    for weights in ours.parameters():
        weights.mul_(
            2 if weights.dim() > 1 else 1
        )  # so that some characters are likelier than others
    copy_weights(ours, plain)
    copy_weights(ours, theirs)
    idx = torch.randint(config.vocab_size, (2, config.block_size))
    for name, logits in (
        ("plain", plain(idx)[:, -1]),
        ("transformers", theirs.gpt2(input_ids=idx).logits[:, -1]),
    ):
        assert torch.allclose(ours(idx)[0][:, -1], logits, rtol=0, atol=1e-4), (
            f"{name} is another model"
        )
    start = torch.zeros(1, 1, dtype=torch.int64)

    def hugging_face():
        out = theirs.gpt2.generate(
            start, max_new_tokens=steps, attention_mask=torch.ones_like(start), **SETTINGS
        )
        assert out.shape == (1, 1 + steps)
        return [out]

    def of_ours(model, texts):
        def begin():
            pieces = generate(model, start.repeat(texts, 1), steps, seed=0, stream=True)
            next(pieces)  # the prompt
            return pieces

        return texts, begin

    prepared = prepare_for_sampling(ours)
    int8 = prepare_for_sampling(ours, "int8")
    return {
        "ours": of_ours(prepared, 1),
        "ours, not prepared": of_ours(ours, 1),
        "plain": (1, lambda: plain.write(start, steps)),
        "transformers": (1, hugging_face),
        "bare products": (1, lambda: bare_products(ours, steps)),
        "bare products, split": (1, lambda: bare_products(prepared, steps)),
        f"ours, batch of {BATCH}": of_ours(prepared, BATCH),
        "ours, int8": of_ours(int8, 1),
        f"ours, int8, batch of {BATCH}": of_ours(int8, BATCH),
    }


def times(begin):
    """Seconds from the start to each character (for transformers: to the whole text)."""
    start = time.perf_counter()
    return [time.perf_counter() - start for _ in begin()]


def speed(config, rounds=ROUNDS):
    """Everybody in turns, forwards and backwards, after one round that does not count."""
    steps = config.block_size - 1
    rivals = contenders(config, steps)
    seconds, edges = {name: [] for name in rivals}, {name: [] for name in rivals}
    for turn in range(rounds + 1):
        for name in list(rivals)[:: -1 if turn % 2 else 1]:
            passed = times(rivals[name][1])
            if turn:
                seconds[name].append(passed[-1])
                if len(passed) >= 2 * EDGE:
                    edges[name].append(
                        (passed[EDGE - 1] / EDGE, (passed[-1] - passed[-EDGE - 1]) / EDGE)
                    )
        last = {name: round(rows[-1], 2) for name, rows in seconds.items() if rows}
        print(f"round {turn} of {rounds}", last, flush=True)
    rates = {
        name: rivals[name][0] * steps / torch.tensor(rows, dtype=torch.float64)
        for name, rows in seconds.items()
    }
    edges = {
        name: 1000 * torch.tensor(rows, dtype=torch.float64) for name, rows in edges.items() if rows
    }
    return {
        "characters a second": {name: spread(rate, 1) for name, rate in rates.items()},
        "ratio, ours to": {
            name: spread(rates["ours"] / rates[name], 3)
            for name in ("plain", "transformers", "bare products", "bare products, split")
        },
        "ratio, ours in int8 to": {
            name: spread(rates["ours, int8"] / rates[name], 3)
            for name in ("plain", "transformers", "bare products")
        },
        "ratio to ours, one text in fp32": {
            name: spread(rates[name] / rates["ours"], 3)
            for name in rates
            if name.startswith("ours, ")
        },
        f"ms, first {EDGE} steps and last {EDGE}": {
            name: {
                "first": spread(rows[:, 0], 3),
                "last": spread(rows[:, 1], 3),
                "last to first": spread(rows[:, 1] / rows[:, 0], 3),
            }
            for name, rows in edges.items()
        },
    }


def exact_losses(weights, config=None, corpus="shakespeare"):
    """The exact validation loss in fp32 and in int8 of a model that was trained on the corpus.

    weights: a file of safetensors, as `save_model` wrote it; config: of the model, GPTConfig.baby without one.
    """
    corpus = load_corpus(corpus)
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    model, ids = GPT(config or GPTConfig.baby(tokenizer.vocab_size)), tokenizer.encode(corpus.val)
    load_model(model, weights)
    losses = {
        "characters": len(ids),
        "fp32": evaluate(model.eval(), ids),
        "int8": evaluate(prepare_for_sampling(model, "int8"), ids),
    }
    return {**losses, "int8 - fp32": losses["int8"] - losses["fp32"]}


def main(weights=None):
    config = GPTConfig.baby(65)
    losses = exact_losses(weights) if weights else read_json(OUT).get("exact validation loss")
    report = {
        "measured with": measured_on("cpu", transformers),
        "config": asdict(config),
        "rounds": ROUNDS,
        "new characters": config.block_size - 1,
        **speed(config),
    }
    if losses:
        report["exact validation loss"] = losses
    for title, rows in report.items():
        if isinstance(rows, dict) and title not in ("measured with", "config"):
            print(f"\n{title}")
            for name, row in rows.items():
                print(f"    {name:26}{row}")
    write_json(OUT, report)
    print(f"\nwritten to {OUT.relative_to(OUT.parents[2])}")


if __name__ == "__main__":
    main(*sys.argv[1:])
