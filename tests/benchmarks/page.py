"""The live page in Chromium: its size, how soon it is there, how fast it scores and writes, and what 8 bits cost.

    python -m tests.benchmarks.page            a minute; writes data/results/page.json

Playhouse is the recorded model of lesson 06's size; baby has GPTConfig.baby's sizes and random weights. All times are
those that a reader waits: from the input event to the new loss on the page, or as the page itself says them.
"""

import tempfile
from pathlib import Path
from statistics import median

import torch
from playwright.sync_api import sync_playwright

from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.files import write_json
from chargpt_lib.gpt import GPT, GPTConfig, load_pretrained
from chargpt_lib.playground import as_packed, playground
from chargpt_lib.plots import read_asset
from chargpt_lib.training import evaluate
from tests.benchmarks.machine import measured_on, processor_name
from tests.browser.conftest import QUIET, find_chromium

OUT = Path(__file__).parents[2] / "data" / "results" / "page.json"
REPEATS = 7

# The page is there when its own picture has taken the place of the still one, and scored when it says a loss.
FIRST = """() => new Promise((resolve) => {
    let alive = null;
    const look = () => {
        const host = document.querySelector(".chargpt-playground");
        alive = alive ?? (host?.shadowRoot ? performance.now() : null);
        if (host?.shadowRoot?.querySelector(".loss").textContent.includes("predicted")) {
            resolve([alive, performance.now()]);
        } else {
            setTimeout(look, 2);
        }
    };
    look();
})"""

SCORE = """(text) => new Promise((resolve) => {
    const root = document.querySelector(".chargpt-playground").shadowRoot;
    const editor = root.querySelector("textarea");
    const loss = root.querySelector(".loss");
    const begin = performance.now();
    const observer = new MutationObserver(() => {
        if (loss.textContent.startsWith(`${text.length - 1} characters predicted`)) {
            observer.disconnect();
            resolve(performance.now() - begin);
        }
    });
    observer.observe(loss, { childList: true, characterData: true, subtree: true });
    editor.value = text;
    editor.dispatchEvent(new Event("input"));
})"""


def open_page(browser, html, folder):
    """Opens the page of a playground as a file -> playwright's page; its bytes; seconds until it is there; until it is scored."""
    path = Path(folder) / "page.html"
    html.save(path)
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.goto(path.as_uri(), wait_until="commit")
    alive, scored = page.evaluate(FIRST)
    return page, path.stat().st_size, alive / 1000, scored / 1000


def measure_page(browser, model, tokenizer, texts, floor=None):
    """{what: number} of one model's page. texts: of 128 characters each, with nothing in common at their beginnings."""
    with tempfile.TemporaryDirectory() as folder:
        page, size, alive, scored = open_page(
            browser, playground(model, tokenizer, texts[0], floor), folder
        )
        times = [page.evaluate(SCORE, text) for text in texts[1:]]
        speeds = []
        for seed in (1, 2, 3):
            # Another one each time: what was read before is remembered.
            page.get_by_label("seed").fill(str(seed))
            page.get_by_role("button", name="Write", exact=True).click()
            said = page.locator(".writer [role=status]:not(:empty)")
            said.wait_for()
            speeds.append(float(said.inner_text().split(", ")[1].split()[0].replace(",", "")))
            page.get_by_role("button", name="Back to the prompt").click()
        page.close()
    return {
        "parameters": model.num_params(),
        "bytes": size,
        "seconds until the picture": round(alive, 3),
        "seconds until the first loss": round(scored, 3),
        "milliseconds for 128 characters": [round(time, 1) for time in times],
        "characters written a second": speeds,
    }


def eight_bits(model, tokenizer):
    """What rounding the weights costs in nats per character, on the whole validation text."""
    ids = tokenizer.encode(load_corpus("playhouse").val)
    return {
        "loss": evaluate(model, ids),
        "loss in 8 bits": evaluate(as_packed(model), ids),
    }


# ---------------------------------------------------------------- JavaScript against WebAssembly

# In turns, so that what slows the computer slows both.
KERNELS = """([T, I, O, repeats]) => {
    const kernel = new Kernel([[O, I]], 64);
    const { at, numbers } = kernel.place([O, I]);
    const x = new Float32Array(T * I).map((_, i) => Math.sin(i));
    const data = new Float32Array(O * I).map((_, i) => Math.cos(i));
    numbers.set(data);
    const compute = {
        JavaScript: () => linear(x, T, { shape: [O, I], data }),
        WebAssembly: () => linear(x, T, { shape: [O, I], kernel, at }),
    };
    const times = { JavaScript: [], WebAssembly: [] };
    const rounds = Math.max(1, Math.round(2e7 / (T * I * O)));
    for (let repeat = 0; repeat < repeats; repeat++) {
        for (const [name, product] of Object.entries(compute)) {
            const begin = performance.now();
            for (let n = 0; n < rounds; n++) {
                product();
            }
            times[name].push((performance.now() - begin) / rounds);
        }
    }
    return times;
}"""


def measure_kernels(browser):
    """Milliseconds of one linear layer in JavaScript and in WebAssembly -> {sizes: {program: median}}."""
    page = browser.new_page()
    page.set_content(f"<script>{read_asset('kernel.js')}\n{read_asset('model.js')}</script>")
    rows = {}
    for T, inputs, outputs in ((1, 96, 384), (128, 96, 384), (1, 384, 1536), (128, 384, 1536)):
        found = page.evaluate(KERNELS, [T, inputs, outputs, 2 * REPEATS])
        # The first half warms up.
        rows[f"{T} positions, {inputs} to {outputs}"] = {
            name: round(median(times[REPEATS:]), 4) for name, times in found.items()
        }
    page.close()
    return rows


def page_table(results):
    """The recorded pages as a Markdown table."""
    lines = [
        "| page | parameters | MB | seconds until the first loss | ms for 128 characters | written a second |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in ("playhouse", "baby"):
        row = results[name]
        lines.append(
            f"| {name} | {row['parameters']:,} | {row['bytes'] / 1e6:.2f} | {row['seconds until the first loss']:.2f} "
            f"| {median(row['milliseconds for 128 characters']):.0f} "
            f"| {median(row['characters written a second']):,.0f} |"
        )
    return "\n".join(lines)


def kernels_table(results):
    """The recorded times of a linear layer as a Markdown table."""
    lines = ["| milliseconds of a linear layer | JavaScript | WebAssembly |", "|---|---:|---:|"]
    for name, times in results["milliseconds of a linear layer"].items():
        lines.append(f"| {name} | {times['JavaScript']:.3f} | {times['WebAssembly']:.3f} |")
    return "\n".join(lines)


def main():
    model, tokenizer, record = load_pretrained("playhouse")
    val = load_corpus("playhouse").val
    texts = [val[1000 * n : 1000 * n + 128] for n in range(REPEATS + 1)]
    torch.manual_seed(1337)
    alphabet = CharTokenizer("".join(chr(code) for code in (10, *range(32, 96))))
    baby = GPT(GPTConfig.baby(alphabet.vocab_size)).eval()
    shouted = [text.upper() for text in texts]
    results = {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(), args=QUIET)
        version = browser.version
        results["playhouse"] = measure_page(browser, model, tokenizer, texts, record["floor"])
        results["playhouse"] |= eight_bits(model, tokenizer)
        results["baby"] = measure_page(browser, baby, alphabet, shouted)
        results["milliseconds of a linear layer"] = measure_kernels(browser)
        browser.close()
    results["measured on"] = measured_on("cpu") | {
        "processor": processor_name(),
        "chromium": version,
    }
    write_json(OUT, results)
    for name, rows in results.items():
        print(name, rows)


if __name__ == "__main__":
    main()
