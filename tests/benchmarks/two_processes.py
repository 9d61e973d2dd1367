"""When are two processes faster than one? A training step on the CPU, with more and more windows.

    python -m tests.benchmarks.two_processes      a minute, on a quiet machine with two cores

It writes data/results/two_processes.json. One launch of two processes makes all measurements, in turns: a step of one
process with one thread (the other process sleeps), the same step shared between both with DDP, one thread each, and
the same step of one process with two threads. So what else the machine does slows all of them. A step is forward,
backward, clipping and AdamW. Two processes have the time of the slower one.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import quantiles

import torch
from torch.nn.utils import clip_grad_norm_

from chargpt_lib.distributed import DDPStrategy, init_distributed
from chargpt_lib.files import write_json
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.recipe import TrainConfig, make_optimizer
from tests.benchmarks.machine import measured_on, processor_name

OUT = Path(__file__).parents[2] / "data" / "results" / "two_processes.json"
MODEL = GPTConfig(65, block_size=32, n_layer=4, n_head=4, n_embd=256)
WINDOWS = (2, 8, 32, 128)  # of a step, all processes together
ROUNDS = {2: 40, 8: 30, 32: 15, 128: 7}
WARMUP = 2  # rounds that are not counted
WAYS = ("one process", "two processes", "one process, two threads")


def new_model():
    torch.manual_seed(1337)
    return GPT(MODEL)


def step_time(model, optimizer, windows):
    """The seconds of a training step with so many windows."""
    x = torch.randint(MODEL.vocab_size, (windows, MODEL.block_size))
    start = time.perf_counter()
    optimizer.zero_grad()
    model(x, x)[1].backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return time.perf_counter() - start


def wait_for_all(strategy):
    """Until both processes are here. The one that waits sleeps: it leaves its core to the other one."""
    strategy.all_reduce_max(0)


def measure(strategy):
    """Both processes call it -> yields (windows, {way: [seconds, ...]}); it counts in process 0."""
    alone = new_model()
    alone_optimizer = make_optimizer(alone, TrainConfig())
    shared = strategy.wrap(new_model())
    shared_optimizer = make_optimizer(shared, TrainConfig())
    for windows in WINDOWS:
        times = {way: [] for way in WAYS}
        for _ in range(WARMUP + ROUNDS[windows]):
            for way, threads in ((WAYS[0], 1), (WAYS[2], 2)):
                wait_for_all(strategy)
                if strategy.rank == 0:
                    torch.set_num_threads(threads)
                    times[way].append(step_time(alone, alone_optimizer, windows))
                    torch.set_num_threads(1)
            wait_for_all(strategy)
            seconds = step_time(shared, shared_optimizer, windows // strategy.world_size)
            times[WAYS[1]].append(strategy.all_reduce_max(seconds)[0])
        yield windows, {way: seconds[WARMUP:] for way, seconds in times.items()}


def record():
    """Measures in this process and another one; process 0 writes the record."""
    torch.set_num_threads(1)
    strategy = DDPStrategy(init_distributed("cpu"))
    rows = []
    for windows, times in measure(strategy):
        if strategy.rank != 0:
            continue
        row = {"windows": windows, "rounds": ROUNDS[windows], "milliseconds": {}}
        for way, seconds in times.items():
            row["milliseconds"][way] = [1000 * quartile for quartile in quantiles(seconds, n=4)]
        rows.append(row)
        print(windows, {way: f"{ms[1]:.1f}" for way, ms in row["milliseconds"].items()}, flush=True)
    if strategy.rank == 0:
        result = {
            "model": {
                "block_size": MODEL.block_size,
                "n_layer": MODEL.n_layer,
                "n_head": MODEL.n_head,
                "n_embd": MODEL.n_embd,
                "parameters": sum(p.numel() for p in new_model().parameters()),
            },
            "rows": rows,
            "processor_name": processor_name(),
            **measured_on("cpu"),
        }
        write_json(OUT, result)


def readme_table(record):
    """The table in data/results/README.md: medians in milliseconds, and how many times as fast as one process."""
    lines = [f"| windows | {' | '.join(WAYS)} |", "|---:|---:|---:|---:|"]
    for row in record["rows"]:
        medians = [row["milliseconds"][way][1] for way in WAYS]
        cells = [f"{medians[0]:.0f} ms"]
        cells += [f"{ms:.0f} ms ({medians[0] / ms:.2f} times as fast)" for ms in medians[1:]]
        lines.append(f"| {row['windows']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    if "RANK" in os.environ:
        return record()
    network = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    if network is not None:
        environment["GLOO_SOCKET_IFNAME"] = network
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    subprocess.run([*launcher, "-m", "tests.benchmarks.two_processes"], env=environment, check=True)


if __name__ == "__main__":
    main()
