"""GPT-2 small in and out: seconds and memory to open it, tokens a second, and how long an export and an import take.

    python -m tests.benchmarks.gpt2            two minutes; writes data/results/gpt2.json

The model has GPT-2's smallest sizes and random weights: `transformers` makes it and saves it, and both open the same files.
In each round both write the same number of tokens, in turns, so what slows the computer slows both; ratios are within a
round. Ours is `prepare_for_sampling`'s copy; "not prepared" is the model as it is. Memory is that of a process of its own:
its peak while the model is opened, less what it had before.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # the model is made here, not fetched

import torch
import transformers

from chargpt_lib.bpe import load_gpt2_tokenizer
from chargpt_lib.checkpoints import load_model, save_model
from chargpt_lib.data import CharTokenizer
from chargpt_lib.files import write_json
from chargpt_lib.formats.nanogpt import load_nanogpt, save_nanogpt
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.gpt2 import export_transformers, from_pretrained
from chargpt_lib.sampling import generate, prepare_for_sampling
from tests.benchmarks.machine import measured_on, processor_name

OUT = Path(__file__).parents[2] / "data" / "results" / "gpt2.json"
ROUNDS = 5
TOKENS = 60  # that each writes in a round
PROMPT = 20  # tokens

# What a process of its own runs: everything is imported, and the tokenizer read, before the clock starts.
OPEN = """
import json, sys, time
from chargpt_lib import gpt2
from chargpt_lib.formats.hf_tokenizers import read_hf_tokenizer

def memory(line):
    for row in open("/proc/self/status"):
        if row.startswith(line):
            return int(row.split()[1]) * 1024

tokenizer = read_hf_tokenizer(sys.argv[1])
if sys.argv[2] == "weights":
    gpt2.read_hf_tokenizer = lambda folder: tokenizer
before = memory("VmRSS")
began = time.perf_counter()
gpt2.from_pretrained(sys.argv[1])
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "bytes": memory("VmHWM") - before}))
"""


def make_gpt2(folder):
    """GPT-2 small as `transformers` makes and saves it, with GPT-2's tokenizer beside it."""
    torch.manual_seed(1337)
    end = {"bos_token_id": 50256, "eos_token_id": 50256}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**end))
    model.save_pretrained(folder)
    load_gpt2_tokenizer().save_gpt2(folder)


def open_in_a_process(folder, what):
    """Seconds and peak memory of `from_pretrained` in a process of its own. what: "weights", or "all" with the tokenizer."""
    command = [sys.executable, "-c", OPEN, str(folder), what]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def measure_opening(folder):
    size = 4 * 124_439_808  # bytes of the parameters
    rows = [open_in_a_process(folder, "weights") for _ in range(ROUNDS)]
    whole = [open_in_a_process(folder, "all")["seconds"] for _ in range(ROUNDS)]
    return {
        "seconds": [round(row["seconds"], 2) for row in rows],
        "seconds, with the tokenizer": [round(seconds, 2) for seconds in whole],
        "peak memory, in sizes of the model": [round(row["bytes"] / size, 3) for row in rows],
    }


@torch.no_grad()
def measure_sampling(folder):
    """Tokens a second of ours and of transformers with its cache, and their ratio, in rounds."""
    model, _ = from_pretrained(folder)
    prepared = prepare_for_sampling(model)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    start = torch.randint(50257, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(model(start)[0], theirs(start).logits, rtol=0, atol=1e-4)
    settings = {"do_sample": True, "top_k": 0, "use_cache": True, "pad_token_id": 0}

    def of_theirs():
        out = theirs.generate(
            start,
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            attention_mask=torch.ones_like(start),
            **settings,
        )
        assert out.shape == (1, PROMPT + TOKENS)

    writers = {
        "ours": lambda: generate(prepared, start, TOKENS, seed=0),
        "ours, not prepared": lambda: generate(model, start, TOKENS, seed=0),
        "transformers": of_theirs,
    }
    rates = {name: [] for name in writers}
    for turn in range(ROUNDS + 1):
        order = list(writers)
        if turn % 2:
            order.reverse()
        for name in order:
            began = time.perf_counter()
            writers[name]()
            seconds = time.perf_counter() - began
            if turn > 0:  # the first round warms up
                rates[name].append(round(TOKENS / seconds, 1))
        print(f"round {turn}", {name: rows[-1:] for name, rows in rates.items()}, flush=True)
    ratios = {}
    for name in ("ours", "ours, not prepared"):
        pairs = zip(rates[name], rates["transformers"])
        ratios[name] = [round(one / other, 2) for one, other in pairs]
    return {"tokens a second": rates, "ratio to transformers": ratios}


@torch.no_grad()
def measure_files(folder):
    """Seconds to write and to read GPTConfig.baby's 10.7 million parameters in each format."""
    characters = CharTokenizer.from_text("".join(chr(33 + i) for i in range(65)))
    torch.manual_seed(1337)
    model = GPT(GPTConfig.baby(65)).eval()
    idx = torch.randint(65, (1, 64), generator=torch.Generator().manual_seed(1))
    logits, _ = model(idx)
    rows = {}
    formats = {
        "chargpt": (lambda path: save_model(model, characters, path), load_model),
        "transformers": (
            lambda path: export_transformers(model, characters, path),
            from_pretrained,
        ),
        "nanogpt": (lambda path: save_nanogpt(model, characters, path), load_nanogpt),
    }
    for name, (write, read) in formats.items():
        writing = []
        reading = []
        for turn in range(ROUNDS):
            path = folder / f"{name}-{turn}"
            began = time.perf_counter()
            write(path)
            writing.append(round(time.perf_counter() - began, 2))
            began = time.perf_counter()
            opened, _ = read(path)
            reading.append(round(time.perf_counter() - began, 2))
            assert torch.allclose(opened(idx)[0], logits, rtol=0, atol=1e-5)
        rows[name] = {"export, seconds": writing, "import, seconds": reading}
    return rows


def main():
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_gpt2(folder / "gpt2")
        results = {
            "made by": "python -m tests.benchmarks.gpt2",
            "opening GPT-2 small": measure_opening(folder / "gpt2"),
            "sampling from GPT-2 small": measure_sampling(folder / "gpt2"),
            "the 10.7 million parameters of baby": measure_files(folder),
            "machine": {**measured_on("cpu", transformers), "processor": processor_name()},
        }
    write_json(OUT, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
