"""How much memory does a training step of GPT-2 take? Measured, and what the formulas of `chargpt info` say.

    python -m tests.benchmarks.memory          a quarter of an hour on two cores; writes data/results/memory.json

GPT-2 small (124M parameters, GPT-2's own vocabulary), one window, forward and backward, in a fresh process for each row,
in fp32, on a card in bf16, too: with the fused attention kernel, with attention written out (the T x T scores of every head are tensors), and
with gradient checkpointing. What is measured on a CPU is how far the process has grown at its peak (ru_maxrss) beyond
what it was before the step; on a card, torch.cuda.max_memory_allocated beyond what was allocated before. Beside it:
what autograd saves (torch's saved_tensors_hooks), and what `chargpt_lib.cli.cost` computes without running the model.

At the end GPT-2 is really trained, for three steps, on shards of Tiny Shakespeare. Rows of a device that is not there
stay as they were recorded, or are "not measured yet".
"""

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from unittest import mock

import torch
from torch.nn import functional as F

from chargpt_lib.bpe import load_gpt2_tokenizer
from chargpt_lib.cli.cost import MemoryNeed, saved_bytes
from chargpt_lib.data import load_corpus
from chargpt_lib.files import read_json, write_json
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.recipe import TrainConfig, gradient_checkpointing
from chargpt_lib.shards import Shards, write_shards
from chargpt_lib.trainer import train
from tests.benchmarks.machine import measured_on, processor_name

OUT = Path(__file__).parents[2] / "data" / "results" / "memory.json"
NOT_MEASURED = "not measured yet"
BLOCK_SIZES = (1024, 2048)
# Parts of the memory that are there before a step.
LASTING = ("weights", "gradients", "moments (adamw)", "buckets of gradients")
PRECISIONS = {"cpu": ["fp32"], "cuda": ["fp32", "bf16"]}
# name: (attention written out, gradient checkpointing)
WAYS = {
    "fused kernel": (False, False),
    "attention written out": (True, False),
    "fused kernel, gradient checkpointing": (False, True),
}


def gpt2(block_size):
    """GPT-2 small, for windows of block_size; without dropout, which the CPU's fused kernel lacks."""
    return replace(GPTConfig.gpt2(), block_size=block_size, dropout=0.0)


def written_out(q, k, v, attn_mask=None, is_causal=True, dropout_p=0.0):
    """F.scaled_dot_product_attention in separate steps, each of which makes a tensor (B, H, T, T)."""
    T = q.shape[-2]
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    future = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(future, float("-inf")).softmax(-1) @ v


def count_saved(step):
    """Calls step() -> what it returns, and the bytes of all storages that autograd saves in it."""
    sizes = {}

    def save(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        result = step()
    return result, sizes


def peak_bytes(device):
    """The most memory that this process has had: on a card, of tensors since the last reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes(device):
    """The memory that this process has now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def forward_backward(model, idx, half):
    """One step -> the loss, and {storage: bytes} of what autograd saved up to the logits."""
    with torch.autocast(idx.device.type, torch.bfloat16, enabled=half):
        logits, sizes = count_saved(lambda: model.compute_logits(idx))
        loss = F.cross_entropy(logits.flatten(0, 1), idx.flatten())
    loss.backward()
    return loss.item(), sizes


def measure(block_size, way, precision, device):
    """One step in this process -> its row."""
    is_written_out, checkpointed = WAYS[way]
    half = precision == "bf16"
    torch.manual_seed(1337)
    config = gpt2(block_size)
    model = GPT(config).to(device)
    idx = torch.randint(config.vocab_size, (1, block_size), device=device)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    attention = F.scaled_dot_product_attention
    if is_written_out:
        attention = written_out
    with (
        mock.patch.object(F, "scaled_dot_product_attention", attention),
        gradient_checkpointing(model) if checkpointed else nullcontext(),
    ):
        # A short window first. It makes the gradients, which are there in every micro-batch but the first; and libraries
        # load their code when they are first used.
        forward_backward(model, idx[:, :64], half)
        before = resident_bytes(device)
        start = time.perf_counter()
        loss, sizes = forward_backward(model, idx, half)
        seconds = time.perf_counter() - start
    saved = sum(size for storage, size in sizes.items() if storage not in own)
    row = {
        "peak, bytes": peak_bytes(device) - before,
        "saved for backward up to the logits, bytes": saved,
        "loss": round(loss, 4),
        "seconds": round(seconds, 1),
    }
    if not is_written_out:
        saved = saved_bytes(config, half, checkpointed)
        need = MemoryNeed(config, "adamw", 1, checkpointed, half)
        lasting = sum(need.fixed[part] for part in LASTING)
        row["computed"] = {
            "peak, bytes": need.total(1) - lasting,
            "saved for backward up to the logits, bytes": saved.fixed + saved.per_window,
        }
    return row


def in_fresh_process(block_size, way, precision, device):
    """`measure` in a process of its own: ru_maxrss never falls."""
    options = [str(block_size), way, precision, device]
    command = [sys.executable, "-m", "tests.benchmarks.memory", *options]
    # glibc keeps small blocks for later when they are freed. So it gives them back to the system at once, and the process
    # is as large as what is in use; it is slower for it.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        return {"failed": f"exit code {done.returncode}"}
    return json.loads(done.stdout)


def measure_steps(device):
    """Three real steps of GPT-2 on shards of Tiny Shakespeare -> their losses and seconds."""
    corpus = load_corpus("shakespeare")
    tokenizer = load_gpt2_tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        shards_folder = Path(folder) / "shards"
        write_shards([corpus.train + corpus.val], shards_folder, tokenizer, val_size=4096)
        shards = Shards(shards_folder)
        torch.manual_seed(1337)
        model = GPT(gpt2(1024)).to(device)
        config = TrainConfig(
            steps=3,
            batch_size=1,
            grad_accum=2,
            learning_rate=6e-4,
            warmup=0.0,
            schedule="wsd",
            decay=0.0,
            eval_interval=1,
            gradient_checkpointing=True,
            out=str(Path(folder) / "run"),
            checkpoint_interval=100,
        )
        result = train(model, shards, config)
    rows = result["log"]
    ends = [row["seconds"] for row in rows]
    return {
        "train_loss": [round(row["train_loss"], 4) for row in rows],
        "val_loss": [round(row["val_loss"], 4) for row in rows],
        # The clock goes on while a row is evaluated and saved; tokens a second are of training alone.
        "seconds per step": [round(2 * 1024 / row["tokens_per_second"], 1) for row in rows],
        "seconds, evaluations included": round(ends[-1], 1),
        "precision": result["precision"],
        "batch_size": 1,
        "grad_accum": 2,
        "gradient_checkpointing": True,
        "tokens in the shards": len(shards),
    }


def recorded(device):
    """What was recorded on a device before; where nothing was, its rows are not measured yet."""
    return read_json(OUT).get("devices", {}).get(device, NOT_MEASURED)


def measure_device(device):
    """All rows of a device."""
    steps = {}
    for precision, block_size in product(PRECISIONS[device], BLOCK_SIZES):
        rows = {}
        for way in WAYS:
            rows[way] = in_fresh_process(block_size, way, precision, device)
            print(f"{device}, {precision}, T = {block_size}, {way}: {rows[way]}", flush=True)
        steps[f"{precision}, T = {block_size}"] = rows
    training = measure_steps(device)
    print(training, flush=True)
    processor = torch.cuda.get_device_name() if device == "cuda" else processor_name()
    measured = measured_on(device)
    return {**measured, "processor": processor, "one step": steps, "training": training}


def main():
    if len(sys.argv) > 1:
        block_size, way, precision, device = sys.argv[1:]
        print(json.dumps(measure(int(block_size), way, precision, torch.device(device))))
        return
    devices = {}
    for device in ("cpu", "cuda"):
        there = device == "cpu" or torch.cuda.is_available()
        devices[device] = measure_device(device) if there else recorded(device)
    report = {
        "what": "bytes that a training step of GPT-2 small adds at its peak: one window of T tokens, forward and "
        "backward; weights, gradients and moments are there before. computed: by chargpt_lib.cli.cost, without a run",
        "devices": devices,
    }
    write_json(OUT, report)
    print(f"written to {OUT.relative_to(OUT.parents[2])}")


if __name__ == "__main__":
    main()
