"""What recording costs, how quick the page is, and what the heads that copy names are good for.

    python -m tests.benchmarks.attention      about five minutes on two cores; writes data/results/attention.json

The model is lesson 07's, trained anew. Chromium and playwright are needed for the page.
"""

import re
import tempfile
import time
from itertools import combinations
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright

from chargpt_lib.attention_maps import (
    ablate_heads,
    attention_html,
    compute_attention_maps,
    record_attention,
)
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import pick_device
from chargpt_lib.files import write_json
from chargpt_lib.gpt import GPT, PLAYHOUSE, GPTConfig
from chargpt_lib.playhouse import excess_by_kind, score_plays
from chargpt_lib.training import fit, per_token_loss
from tests.benchmarks.machine import measured_on
from tests.benchmarks.step import spread
from tests.browser.conftest import QUIET, find_chromium

OUT = Path(__file__).parents[2] / "data" / "results" / "attention.json"
SETTINGS = {"steps": 3600, "batch_size": 6, "lr": 5e-3}  # lesson 07's
WHEN = (0, 200, 400, 600, 800, 1000, 1400, 2000, 3000)
ROUNDS = 40


def cost(config, device):
    """A pass with recording against one without, in turns."""
    torch.manual_seed(1337)
    model, idx = (
        GPT(config).to(device).eval(),
        torch.randint(config.vocab_size, (1, 256), device=device),
    )
    everything = {"every head": {}, "one head": {"layers": [1], "heads": [1]}}
    seconds = {name: [] for name in ("plain", *everything)}

    def timed(name):
        start = time.perf_counter()
        model(idx)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds[name].append(time.perf_counter() - start)

    with torch.no_grad():
        for _ in range(ROUNDS + 5):
            timed("plain")
            for name, chosen in everything.items():
                with record_attention(model, **chosen):
                    timed(name)
    plain = torch.tensor(seconds.pop("plain")[5:], dtype=torch.float64)
    return {
        "plain, ms": spread(1000 * plain, 2),
        **{
            f"ratio, {name}": spread(torch.tensor(rows[5:], dtype=torch.float64) / plain, 2)
            for name, rows in seconds.items()
        },
    }


CLOCK = "<script>requestAnimationFrame(() => setTimeout(() => { window.painted = performance.now(); }))</script>"
HOVER = """async () => {
    const letters = document.querySelector('.chargpt-attention').shadowRoot.querySelectorAll('.text [role=gridcell]'), times = [];
    for (let t = 127; t > 27; t--) {
        const start = performance.now();
        letters[t].dispatchEvent(new PointerEvent('pointerover', { bubbles: true }));
        await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        times.push(performance.now() - start);
    }
    return times;
}"""


def page(corpus, tokenizer):
    """6 x 6 heads at T = 128: bytes, milliseconds until the first paint, and until a hover is painted."""
    torch.manual_seed(1337)
    model, text = GPT(GPTConfig(tokenizer.vocab_size, block_size=128)), corpus.val[:128]
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(3)  # so that the maps are not even
    html = attention_html(compute_attention_maps(model, tokenizer, text), text).html
    firsts, hovers = [], []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "page.html"
        path.write_text(
            f'<!DOCTYPE html><meta charset="utf-8"><body>{html}{CLOCK}', encoding="utf-8"
        )
        browser = driver.chromium.launch(executable_path=find_chromium(), args=QUIET)
        for _ in range(7):
            tab = browser.new_page()
            tab.goto(path.as_uri())
            tab.wait_for_function("window.painted")
            firsts.append(tab.evaluate("painted"))
            hovers += tab.evaluate(HOVER)
            tab.close()
        version = browser.version
        browser.close()
    return {
        "bytes": len(html.encode()),
        "first paint, ms": spread(torch.tensor(firsts), 0),
        "hover, ms": {**spread(torch.tensor(hovers), 1), "slowest": round(max(hovers), 1)},
        "chromium": version,
    }


def excess(model, ids, spans, off=()):
    """{kind: nats per character above the floor}, each character with half a block of past or more."""
    with ablate_heads(model, off):
        nats = per_token_loss(model, ids, stride=model.block_size // 2).double().tolist()
    return excess_by_kind([None, *nats], [span for span in spans if span.end <= len(ids)])


def stage(model, tokenizer, known, off):
    """The share of speakers on the cast list, and of words that are words, in 32 plays."""
    curtain = tokenizer.encode("\n").repeat(32, 1).to(next(model.parameters()).device)
    with ablate_heads(model, off):
        written = model.generate(curtain, 240, torch.Generator(curtain.device).manual_seed(1337))
    verdicts = [score_plays(tokenizer.decode(row.cpu()), known) for row in written]
    return {
        key: sum(verdict[key] for verdict in verdicts) / len(verdicts)
        for key in ("speakers", "words")
    }


def copying(corpus, tokenizer, device):
    """Trains the model, watches the copying come, and switches off the heads that do it."""
    torch.manual_seed(1337)
    model, val_ids = (
        GPT(GPTConfig.cpu(tokenizer.vocab_size, **PLAYHOUSE)).to(device),
        tokenizer.encode(corpus.val),
    )
    coming, looking, began, step = {}, 0.0, time.perf_counter(), 0

    def watch(module, inputs):
        nonlocal looking, step
        if module.training:
            if step in WHEN:
                start = time.perf_counter()
                nats = excess(module, val_ids[:10_000], corpus.val_spans)["copied name"]
                module.train()
                looking += time.perf_counter() - start
                coming[step] = {"seconds": start - began - looking, "copied name": nats}
            step += 1

    hook = model.register_forward_pre_hook(watch)
    fit(model, tokenizer.encode(corpus.train), **SETTINGS)
    hook.remove()
    seconds = time.perf_counter() - began - looking
    ids = val_ids[:20_000]
    whole = excess(model, ids, corpus.val_spans)
    heads = [(layer, head) for layer in range(4) for head in range(6)]
    alone = {head: excess(model, ids, corpus.val_spans, [head]) for head in heads}
    lost = {head: {kind: row[kind] - whole[kind] for kind in whole} for head, row in alone.items()}
    best = sorted(heads, key=lambda head: 5 * lost[head]["spelling"] - lost[head]["copied name"])[
        :3
    ]  # lesson 07's choice
    known = set(re.findall("[A-Za-z]+", corpus.train))
    whole = excess(model, val_ids, corpus.val_spans)
    rows = [{"off": [], "excess": whole, **stage(model, tokenizer, known, [])}]
    for count in (1, 2):
        for off in map(list, combinations(best, count)):
            row = excess(model, val_ids, corpus.val_spans, off)
            more = {kind: row[kind] - whole[kind] for kind in ("copied name", "spelling")}
            rows.append(
                {
                    "off": off,
                    "excess": row,
                    "copied name, times": row["copied name"] / whole["copied name"],
                    "spelling's growth to that of copied names": more["spelling"]
                    / more["copied name"],
                    **stage(model, tokenizer, known, off),
                }
            )
    return {
        "training": {
            **SETTINGS,
            "seconds": seconds,
            "loss": per_token_loss(model, val_ids).double().mean().item(),
            "floor": corpus.val_entropy,
        },
        "how copying comes": coming,
        "every head off, alone": {f"{l}.{h}": row for (l, h), row in lost.items()},
        "copying heads off": rows,
    }


def main():
    corpus, device = load_corpus("playhouse"), pick_device()
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    report = {"measured with": measured_on(device)}
    report["cost at T = 256"] = {
        "baby": cost(GPTConfig.baby(65), device),
        "cpu": cost(GPTConfig.cpu(65, block_size=256), device),
        "playhouse": cost(GPTConfig.cpu(65, **{**PLAYHOUSE, "block_size": 256}), device),
    }
    print(report["cost at T = 256"])
    report["page"] = page(corpus, tokenizer)
    print(report["page"])
    report["copying"] = copying(corpus, tokenizer, device)
    for row in report["copying"]["copying heads off"]:
        print(row)
    write_json(OUT, report)
    print(f"written to {OUT.relative_to(OUT.parents[2])}")


if __name__ == "__main__":
    main()
