# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 13 · Many devices: one run, several processes
#
# > Training on several devices: DDP and FSDP.
#
# You will build: `train_distributed`, lesson 11's loop in several processes at once, one for each graphics card. Without dropout, and up to rounding, its losses are those of one process with the larger batch. First we do the mathematics by hand, in one process, where everything can be seen.
# You need lessons 10 and 11. On two CPU cores the page takes a minute and a half; its processes run on the CPU, two at a time.

# %%
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

# %%
import matplotlib.pyplot as plt
import torch

from chargpt_lib.checkpoints import load_model
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.files import bundled_dir
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.plots import heatmap, show
from chargpt_lib.recipe import ShuffledWindows
from chargpt_lib.trainer import read_log
from chargpt_lib.training import evaluate

# %%
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus = load_corpus(CORPUS)
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
ids, V = tokenizer.encode(corpus.train[:200_000]), tokenizer.vocab_size


def new_model(seed=1337):
    torch.manual_seed(seed)
    return GPT(GPTConfig(V, block_size=32, n_layer=2, n_head=4, n_embd=64)).double()

# %% [markdown]
# ## Data parallelism
#
# Take two devices, and a batch of 16 windows. Each device has a copy of the model, and reads 8 of the windows. Each computes the gradient of its own half. What is the gradient of the whole batch?
#
# The loss is a mean over windows, $L = \frac{1}{16} \sum_{i=1}^{16} \ell_i$, and so is its gradient. A mean of 16 is the mean of two means of 8:
#
# $$\nabla L = \tfrac{1}{2} \Big( \underbrace{\tfrac{1}{8} \sum_{i=1}^{8} \nabla \ell_i}_{\text{device 0}} + \underbrace{\tfrac{1}{8} \sum_{i=9}^{16} \nabla \ell_i}_{\text{device 1}} \Big)$$

# %%
def gradient(model, x, y):
    """The gradient of the mean loss, for all parameters in one vector: (P,)."""
    model.zero_grad()
    model(x, y)[1].backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


x, y = ShuffledWindows(ids, 32, seed=1337).batch(0, 16)
copies = [new_model(), new_model()]  # the same seed, the same weights
halves = [gradient(copies[0], x[:8], y[:8]), gradient(copies[1], x[8:], y[8:])]
whole = gradient(new_model(), x, y)
apart = [(g - whole).norm().item() / whole.norm().item() for g in (*halves, sum(halves) / 2)]
print(f"off by: first half {apart[0]:.0%}, second half {apart[1]:.0%}")
print(f"the mean of the two is off by ≈ {apart[2]:.0e} of the length (limit 1e-12)")
assert apart[2] < 1e-12  # float64 (.double() above): what is left is rounding

# %% [markdown]
# So the two devices exchange their gradients, and both continue with the mean. That is all of **data parallelism**; what follows on this page is about doing it fast, in little memory, and without getting stuck.
#
# In each step the two exchange gradients, never weights. **Predict:** after ten steps of AdamW in each copy, how far apart are the two copies' weights?

# %%
def ten_steps(copies):
    """Takes ten steps. Each copy reads its half of the batch, and all take the mean gradient."""
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-3) for model in copies]
    windows = ShuffledWindows(ids, 32, seed=1337)
    for step in range(10):
        x, y = windows.batch(16 * step, 16)
        for rank, model in enumerate(copies):
            gradient(model, x[8 * rank :][:8], y[8 * rank :][:8])
        for pair in zip(*(model.parameters() for model in copies)):
            mean = sum(p.grad for p in pair) / 2
            for p in pair:
                p.grad.copy_(mean)
        for optimizer in optimizers:
            optimizer.step()

# %%
def distance(copies):
    """The largest difference between a weight of one copy and the same weight of the other."""
    return max(
        (a - b).abs().max().item() for a, b in zip(*(model.parameters() for model in copies))
    )


strangers = [new_model(seed=1), new_model(seed=2)]
before = distance(strangers)
ten_steps(copies)
ten_steps(strangers)
print("copies: distance", distance(copies))
print(
    f"two models with different first weights: {distance(strangers) / before:.5f} of their first distance"
)
assert distance(copies) == 0

# %% [markdown]
# The same start and the same steps lead to the same place, to the last bit. So the weights are sent at most once, *before* the first step: DDP, PyTorch's tool (a section of its own follows), then gives every process the weights of process 0. But for the same reason a difference between the copies stays. (Only weight decay shrinks it, by a hundred-thousandth a step.) The two strangers in the cell walk side by side, and half of each one's mean gradient was computed where the other one stands. Nothing crashes.
#
# | must be the same everywhere | must differ |
# |---|---|
# | the first weights | the windows that are read |
# | the mean gradient, and so the clipping | the random numbers of dropout: lesson 11's `Trainer.start` seeds them with `seed + rank` |
# | the learning rate, so also the number of the step, and the time that has passed | |
# | the decisions: a new best loss? patience used up? stop? | |
# | how often, and in which order, the processes exchange something | who writes to the disk: one process |
#
# The last entry on the left is the dangerous one. A process that waits for a message which no other process sends waits until a timeout ends the run.
#
# And what if the two parts are unequal? Say, twelve windows here and four there, because the text came to its end.

# %%
parts = [gradient(new_model(), x[:12], y[:12]), gradient(new_model(), x[12:], y[12:])]
means = {
    "mean of the means": (parts[0] + parts[1]) / 2,
    "weighted, 12 to 4": (12 * parts[0] + 4 * parts[1]) / 16,
}
for name, mean in means.items():
    print(f"{name}: off by {((mean - whole).norm() / whole.norm()).item():.0%}")

# %% [markdown]
# A mean of means is the right mean only if all parts have the same size: this is lesson 10's bug with unequal texts, in another form. The trainer's windows all have the same length, and each process takes `batch_size` of them. Where an epoch ends in the middle of a batch, `ShuffledWindows` fills the batch up from the next epoch. So all parts have the same size.
#
# ### Exercise: unequal parts
# ★★ · 6 minutes · PyTorch takes a plain mean over the devices, whatever they have read. With texts of unequal length the loop has to correct for that beforehand (Hugging Face's trainer has such a factor, too).
#
# Each device reads its texts in several parts, one after the other. `targets[r, a]` says how many targets part a of device r has. The loss of a part is the mean over its own targets, multiplied by a factor; `backward` *adds* its gradient to the gradient that the device has already. After the last part the gradients of all devices are added up, and divided by the number of devices.
#
# Which factor must each loss have, so that the result is the gradient of the mean over all targets, each with the same weight? With two devices, one part each, of 12 and 4 targets, the factors are 1.5 and 0.5.

# %% tags=["exercise"] exercise="loss_factors"
def loss_factors(targets):
    """targets (R, A) int64, from 1 on, R devices with A parts each -> (R, A) float32: the factor for each loss."""
    ### BEGIN SOLUTION
    return len(targets) * targets / targets.sum()
    ### END SOLUTION

# %%
check("loss_factors", loss_factors)

# %% [markdown]
# ## All-reduce: the sum, for everybody
#
# Each of $n$ devices has a vector of $N$ numbers; afterwards each must have the sum of all vectors. This is called an **all-reduce**. The simple way: the devices send their vectors to one of them, which adds them up and sends the sum back. That device sends and receives $(n - 1) N$ numbers, while the others wait.
#
# The better way is a **ring** (Patarasuk and Yuan, 2009, [doi:10.1016/j.jpdc.2008.09.002](https://doi.org/10.1016/j.jpdc.2008.09.002)). Cut each vector into $n$ pieces. In each round every device sends one piece to its right neighbour. In the first $n - 1$ rounds the receiver adds it to its own piece (*reduce-scatter*): a piece collects summands on its way, until each device has one finished piece. In the next $n - 1$ rounds the finished pieces go round, and replace the unfinished ones (*all-gather*).

# %%
def ring_all_reduce(vectors):
    """Vectors (N,), one for each device -> all vectors after each round, and how many numbers each device sent."""
    n = len(vectors)
    held, sent, history = [list(v.clone().tensor_split(n)) for v in vectors], [0] * n, []
    history.append([torch.cat(pieces) for pieces in held])
    for k in range(2 * (n - 1)):
        # All devices send at the same time, so the messages are copied first.
        messages = [((r - k) % n, held[r][(r - k) % n].clone()) for r in range(n)]
        for r, (i, message) in enumerate(messages):
            right = held[(r + 1) % n]
            right[i] = right[i] + message if k < n - 1 else message
            sent[r] += len(message)
        history.append([torch.cat(pieces) for pieces in held])
    return history, sent

# %%
vectors = [torch.randint(100, (12,), generator=torch.Generator().manual_seed(r)) for r in range(4)]
history, sent = ring_all_reduce(vectors)
print("device 0 had", vectors[0].tolist())
print("and now has ", history[-1][0].tolist())
off = [(held - sum(vectors)).abs().max().item() for held in history[-1]]
print("largest error of the sum, on each device:", off)
print("numbers sent by each device:", sent, "  (a vector has 12)")
assert max(off) == 0

# %% [markdown]
# Watch the ring with vectors of ones. Then each number says how many summands it has.

# %%
rounds, _ = ring_all_reduce([torch.ones(4)] * 4)
fig, axes = plt.subplots(1, 7, figsize=(10, 1.9), layout="constrained")
for k, (ax, held) in enumerate(zip(axes, rounds)):
    heatmap(
        ax,
        torch.stack(held),
        cells=[[f"{x:.0f}" for x in row.tolist()] for row in held],
        vmin=0,
        vmax=4,
    )
    ax.set(xticks=[], yticks=range(4))
    ax.set_title("start" if k == 0 else f"{'add' if k < 4 else 'replace'}, {k}", fontsize=9)
    ax.set_yticklabels([f"device {r}" for r in range(4)] if k == 0 else [])
fig.supxlabel("pieces of the vector")
show(
    fig,
    "Seven squares of 4 devices by 4 pieces. All ones at the start; after three rounds of adding, each device "
    "has one piece with 4; after three rounds of replacing, all are 4.",
)

# %% [markdown]
# Each device sends $2(n-1)$ pieces of $N / n$ numbers: $2 \frac{n-1}{n} N$. **Predict:** how many times $N$ is that for 2 devices, and for a thousand?

# %%
counts = {n: ring_all_reduce([torch.ones(840)] * n)[1] for n in range(1, 9)}
assert all(sent == [2 * (n - 1) * 840 // n] * n for n, sent in counts.items())
fig, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
ax.plot(range(1, 9), range(8), "s--", color="#D55E00", label="all to one: sent by that one")
ring = [sent[0] / 840 for sent in counts.values()]
ax.plot(range(1, 9), ring, "o-", color="#0072B2", label="ring: sent by each device")
ax.axhline(2, color="#999999", linewidth=1, label="two vectors")
ax.set(xlabel="devices", ylabel="vectors sent")
ax.legend(frameon=False)
show(
    fig,
    "From one device to eight: the one in the middle sends up to 7 vectors; in the ring each sends less than 2.",
)
print([f"{vectors:.2f}" for vectors in ring])

# %% [markdown]
# Each device sends less than two vectors, however many devices there are. Can it be done with less? Each number needs $n - 1$ messages until the summands of all devices have come together, and $n - 1$ more until all devices know the sum. So any way of adding sends at least $2 (n - 1) N$ numbers in all, and the busiest of $n$ devices sends at least $2 \frac{n-1}{n} N$. For a thousand devices that is 1.998 vectors. How many megabytes is that for the smallest GPT-2, in float32? And for nanoGPT's baby, its small character model?

# %%
for name, parameters in (("GPT-2", 124_439_808), ("baby", 10_745_088)):
    for n in (2, 8):
        print(
            f"{name:6} {n} devices: each sends {2 * (n - 1) / n * parameters * 4 / 1e6:5.0f} megabytes a step"
        )

# %% [markdown]
# ### Exercise: fewer rounds
# ★★ · 8 minutes · Each round has its delay, however little is sent. A ring of 1,024 devices waits 2,046 times, even for a single number. With the all-reduce of this exercise they wait ten times, and send ten vectors instead of two.
#
# This all-reduce is called *recursive doubling* (Thakur et al., 2005), and needs neither a ring nor pieces. In each round the devices form pairs. In round 0 these are 0 and 1, 2 and 3, 4 and 5, and so on. In round 1 the partners are twice as far apart: 0 and 2, 1 and 3, 4 and 6, 5 and 7, ... In round 2 the pairs are 0 and 4, 1 and 5, 2 and 6, 3 and 7, ..., and in round $k$ the two of a pair are $2^k$ apart. (Written in binary, their numbers differ in one digit.) At the same time, both partners send each other their whole vector, and add the vector that arrives to their own. With $2^m$ devices all have the sum after $m$ rounds.
#
# What do the devices hold after the first `rounds` rounds? (After 0 rounds, what they had.) Four devices with one number each, 1, 2, 3 and 4, hold 3, 3, 7 and 7 after one round, and 10 each after two.

# %% tags=["exercise"] exercise="recursive_doubling"
def recursive_doubling(held, rounds):
    """held (n, N) floats, row r: device r's vector; n = 2^m, 0 <= rounds <= m -> (n, N): held after them."""
    ### BEGIN SOLUTION
    for k in range(rounds):
        # The k-th binary digit is turned over.
        partners = [device ^ 2**k for device in range(len(held))]
        held = held + held[partners]
    return held
    ### END SOLUTION

# %%
check("recursive_doubling", recursive_doubling)

# %%
for m in (1, 3, 10):
    n = 2**m
    print(
        f"{n:4} devices: ring {2 * (n - 1):4} rounds, each device sends {2 * (n - 1) / n:.2f} vectors;"
        f" doubling {m:2} rounds, {m} vectors"
    )

# %% [markdown]
# So doubling is better for a small vector, and the ring for a large one. (There are ways between the two. If the pairs exchange halves, then quarters, and so on, and put the parts together again in the same way, 1,024 devices need 20 rounds and 1.998 vectors; the same paper has that way, too. NCCL, NVIDIA's library for graphics cards, chooses between rings and trees.)

# %% [markdown]
# ## DDP: overlapping communication with backward
#
# `backward` begins at the end of the model. The gradients of the last block are finished before those of the first block are even begun, so they can already travel. PyTorch's **DDP** (*distributed data parallel*, Li et al., 2020, [arXiv:2006.15704](https://arxiv.org/abs/2006.15704)) collects the gradients in buckets, the first of one megabyte, the others of 25, and sends a bucket off as soon as all its gradients are there. **Predict:** the token embedding serves at both ends: it turns characters into vectors and, tied, the last vectors into logits. When is its gradient finished?

# %%
model, order = new_model(), []
for name, p in model.named_parameters():
    p.register_post_accumulate_grad_hook(lambda p, name=name: order.append(name))
gradient(model, x, y)
print(
    *dict.fromkeys(".".join(name.split(".")[:2]).removesuffix(".weight") for name in order),
    sep=", ",
)
assert order[-1] == "token_embedding.weight"

# %% [markdown]
# Its gradient is finished at the very end of `backward`, because the embedding also stands at the beginning of the model. No computing is left during which this gradient could travel. In the smallest GPT-2 it is 154 of 498 megabytes. If several batches make one step (`grad_accum`), the exchange can wait for the last of them: the sum of the means is the mean of the sums.
#
# ## Processes
#
# Each device gets a *process* of its own: a whole Python, with its own memory. (Threads in one Python would wait for each other.) A **launcher** starts the processes. Through environment variables it tells each process its number (`RANK`; among those of this computer `LOCAL_RANK`), how many processes there are (`WORLD_SIZE`; on this computer `LOCAL_WORLD_SIZE`), and where they can find each other. If one process dies, the launcher ends the others. PyTorch's launcher is called `torchrun`. This page calls it as follows, on the CPU and with one thread for each process:

# %%
folder = Path(tempfile.mkdtemp())
network = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)  # the loopback interface
# The notebook and the processes that it starts stay on the CPU.
os.environ["CHARGPT_DEVICE"] = "cpu"
environment = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(sys.path),
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "",
    **({"GLOO_SOCKET_IFNAME": network} if network else {}),
}
# The same as `torchrun --nproc-per-node 2 ...`, except that the processes meet at any free port.
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
TORCHRUN += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]

# %%
def launch(script, *arguments):
    """Runs a script in two processes -> the lines that they print, sorted, because their order varies."""
    done = subprocess.run(
        [*TORCHRUN, str(folder / script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # With torch 2.10, gloo prints lines about peer ranks, and both processes' lines get mixed.
    lines = [line for line in done.stdout.splitlines() if "peer ranks" not in line]
    return sorted(line for line in lines if len(line) > 2)

# %%
_ = (folder / "hello.py").write_text(
    """
import torch
import torch.distributed as dist

dist.init_process_group("gloo")  # gloo sends the messages, on the CPU; between graphics cards NCCL does
rank = dist.get_rank()
numbers = torch.tensor([1.0, 10.0, 100.0]) * (rank + 1)
dist.all_reduce(numbers)
print(f"process {rank} of {dist.get_world_size()} has {numbers.tolist()}\\n", end="")  # in one piece
dist.destroy_process_group()
""".lstrip(),
    encoding="utf-8",
)
print(*launch("hello.py"), sep="\n")

# %% [markdown]
# Both processes ran the same script. Each had its own numbers, and both have the sum.
#
# ## The loop, in several processes
#
# Lesson 11's `Trainer` leaves everything that several processes do differently to its strategy. With one process that was `SingleProcessStrategy`. So we only have to write another strategy, whose methods have the same names and send messages to the other processes.
#
# | method | when the loop calls it | one process | several |
# |---|---|---|---|
# | `all_reduce_max` | after each step: how late is it, was Ctrl-C pressed? | its own answer | the largest |
# | `all_reduce_mean` | when losses are fetched | as they are | their mean |
# | `all_gather` | when the random states are saved | a list of one | those of all processes |
# | `on_rank_zero` | folder, log, checkpoint | does it | process 0 does it, and all get the result or the error |
# | `wrap` | before the first step: what computes the loss? | the model | the model, wrapped in DDP (above) |
# | `no_sync` | around all but the last micro-batch of a step | nothing | no exchange inside |
# | `evaluate` | for an exact validation loss | all windows | each process some of the windows |
# | `clip_grad_norm`, `full_state`, `load_model`, `load_optimizer` | at a step's end, when saving, when loading | nothing special | nothing special with DDP; with FSDP (a later section explains it), parts are joined or cut |
#
# The loop itself knows which part of a batch belongs to which process: of `batch_size` × `world_size` windows, process `rank` takes the `rank`-th `batch_size`.

# %%
#| export
import atexit
import gc
import os
from contextlib import contextmanager
from copy import deepcopy

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from chargpt_lib.checkpoints import load_checkpoint
from chargpt_lib.devices import pick_device, world_size
from chargpt_lib.trainer import SingleProcessStrategy, Trainer, train
from chargpt_lib.training import per_token_loss

# %% [markdown]
# First each process joins the others, and finds out which device is its own. Tensors on a graphics card travel by NCCL. Python's numbers, such as the time, travel by gloo, PyTorch's library for messages between CPUs, so that they need not wait for a card.

# %%
#| export
def init_distributed(device=None):
    """Connects this process with the others that torchrun has started -> the device of this process.

    Raises: ValueError if this computer has fewer graphics cards than processes.
    """
    kind = pick_device().type if device is None else torch.device(device).type
    if kind == "cuda":
        processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
        if processes_here > torch.cuda.device_count():
            raise ValueError(
                f"{processes_here} processes on this machine, but {torch.cuda.device_count()} "
                f"GPU(s): start at most one per GPU, or pass device='cpu'"
            )
        # LOCAL_RANK numbers the processes of this computer from 0, as CUDA numbers its cards.
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
        # CPU tensors travel by gloo, tensors on a card by NCCL.
        backend = "cpu:gloo,cuda:nccl"
    else:
        device = torch.device("cpu")
        backend = "gloo"
    if not dist.is_initialized():
        dist.init_process_group(backend)
        # So that no script has to leave the group itself.
        atexit.register(_leave_distributed)
    return device


def _leave_distributed():
    """Takes this process out of the group of processes."""
    # Models wrapped by DDP or FSDP keep the group alive by reference cycles. A group that is alive when Python ends
    # can abort the process.
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()

# %% [markdown]
# Then comes the strategy. The first part of the class is short, because PyTorch has a function for each exchange: the wrapper DDP for gradients, `all_reduce` for tensors, `all_gather_object` for any Python value. `all_reduce_max` makes one decision out of many: if Ctrl-C was pressed in any process, all stop after this step; and the time that counts is the longest that any process measured.

# %%
#| export
class DDPStrategy(SingleProcessStrategy):
    """Several processes with the whole model each; backward averages their gradients (DDP, Li et al., 2020)."""

    def __init__(self, device):
        self.device = device
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def wrap(self, model):
        # DDP also sends the weights of process 0 to the others, so that all start from the same ones.
        device_ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=device_ids)

    def no_sync(self, model):
        return model.no_sync()

    def all_reduce_mean(self, tensor):
        dist.all_reduce(tensor)  # in place: now it is the sum
        return tensor / self.world_size

    def all_reduce_max(self, *numbers):
        # On the CPU, even if the model is on a card. float64, because a float32 would round the times.
        numbers = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return numbers.tolist()

    def all_gather(self, value):
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

# %% [markdown]
# `on_rank_zero` is harder. One process creates the folder, or writes the checkpoint. If the disk is full, only that process notices. If it raised its error and the others went on, they would wait at the next exchange for a process that is gone. So process 0 sends its result or its error to all, and all raise the error. (`class DDPStrategy(DDPStrategy)` continues the class of the cell above. In the module it is one class.)

# %%
#| export
class DDPStrategy(DDPStrategy):  # continued
    def on_rank_zero(self, function):
        result = None
        error = None
        if self.rank == 0:
            try:
                result = function()
            # Of any kind: the others must learn of it, or they wait for ever.
            except Exception as raised:
                error = raised
        message = [result, error]
        dist.broadcast_object_list(message, src=0)
        result, error = message
        if error is not None:
            raise error
        return result

    def evaluate(self, model, ids):
        return evaluate_distributed(model, ids, self.rank, self.world_size)

# %%
_ = (folder / "once.py").write_text(
    """
from chargpt_lib.distributed import DDPStrategy, init_distributed

strategy = DDPStrategy(init_distributed("cpu"))
try:
    strategy.on_rank_zero(lambda: 1 / 0)
except ZeroDivisionError as error:
    print(f"process {strategy.rank} raises: {error}\\n", end="")
""".lstrip(),
    encoding="utf-8",
)
print(*launch("once.py"), sep="\n")

# %% [markdown]
# Only process 0 divided, but both have the error.
#
# The exact validation loss is a sum over windows, so each process takes a part of them, and the sums are added. All processes call the model equally often, even if some windows are then computed twice but counted once: with FSDP, below, every process must take part in every call. With 31 windows and 3 processes, each takes 11, starting at window 0, 11 and 20; the last process leaves out its first two.

# %%
#| export
def evaluate_distributed(model, ids, rank, world_size):
    """The exact loss over a text; each process evaluates a part of the windows.

    All processes call the model equally often, because with FSDP every one must take part in every call.
    """
    T = model.block_size
    targets = len(ids) - 1
    windows = targets // T
    per_process = -(-windows // world_size)  # rounded up
    # The last parts would run over the end. They begin earlier, and skip the windows that others count.
    first = min(rank * per_process, windows - per_process)
    skipped = rank * per_process - first
    total = torch.zeros(1, dtype=torch.float64)
    if windows > 0:
        nats = per_token_loss(model, ids[first * T : (first + per_process) * T + 1])
        total += nats[skipped * T :].double().sum()
    # All processes compute the rest after the last whole window, and process 0 counts it.
    if targets % T > 0 or windows == 0:
        rest = per_token_loss(model, ids[windows * T :]).double().sum()
        if rank == 0:
            total += rest
    dist.all_reduce(total)
    return total.item() / targets

# %% [markdown]
# Do the parts make the whole? Here one process plays all three, one after the other. The mock replaces `all_reduce`, and notes what each process would send.

# %%
model, text, sums = new_model().eval(), ids[:1000], []
with mock.patch.object(dist, "all_reduce", lambda total: sums.append(total.item())):
    for rank in range(3):
        evaluate_distributed(model, text, rank, world_size=3)
loss = evaluate(model, text)
far = abs(sum(sums) / 999 - loss)
print(
    "nats:",
    *(f"{part:.0f}" for part in sums),
    f"  together, for each of 999 targets: {sum(sums) / 999:.3f}",
)
print(f"`evaluate`: {loss:.3f}   the difference ≈ {far:.0e} (limit 1e-9)")
assert far < 1e-9

# %% [markdown]
# ## FSDP: sharding what does not fit
#
# With DDP each device has everything. How much is that? Each parameter needs 4 bytes for the weight, 4 for its gradient, and 8 for AdamW's two moments. (Activations come on top; lesson 10 has gradient checkpointing for them.) A T4 has 16 gigabytes, so it holds a billion parameters at most. (By default PyTorch's DDP takes 4 bytes more: its buckets hold the gradients a second time.)
#
# But why should eight devices keep the same moments eight times? In ZeRO (Rajbhandari et al., 2020, [arXiv:1910.02054](https://arxiv.org/abs/1910.02054)) each device keeps only one $n$-th of the moments (stage 1), of the gradients, too (stage 2), or even of the weights themselves (stage 3).

# %%
def bytes_per_parameter(n, stage):
    """Bytes that each of n devices holds for a parameter: weight, gradient and two moments, in float32."""
    return (
        4 / (n if stage >= 3 else 1) + 4 / (n if stage >= 2 else 1) + 8 / (n if stage >= 1 else 1)
    )


print("devices    " + "".join(f"{n:6}" for n in (1, 2, 4, 8)))
for stage, name in enumerate(("DDP", "stage 1", "stage 2", "stage 3")):
    print(f"{name:11}" + "".join(f"{bytes_per_parameter(n, stage):6.1f}" for n in (1, 2, 4, 8)))

# %%
styles = (
    ("DDP", "#D55E00", "s--"),
    ("stage 1: moments cut", "#E69F00", "v:"),
    ("stage 2: gradients, too", "#009E73", "^-."),
    ("stage 3: weights, too (FSDP)", "#0072B2", "o-"),
)
fig, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
for stage, (name, colour, style) in enumerate(styles):
    most = [16e9 / bytes_per_parameter(n, stage) / 1e9 for n in range(1, 9)]
    ax.plot(range(1, 9), most, style, color=colour, label=name)
for name, parameters in (("GPT-2, 124 million", 0.124), ("GPT-2 XL, 1.56 billion", 1.558)):
    ax.axhline(parameters, color="#999999", linewidth=1)
    ax.text(8.15, parameters + 0.08, name, fontsize=8)
ax.set(xlabel="devices", ylabel="billions of parameters", xlim=(0.8, 9.6))
ax.set_title("the largest model for devices of 16 gigabytes, without activations")
ax.legend(frameon=False, fontsize=8, loc="upper left")
show(
    fig,
    "Four lines from one device, all at one billion, to eight: DDP stays, stage 1 reaches 1.8, stage 2 2.9, and "
    "stage 3 rises in a line to 8. GPT-2 XL fits on two devices with stage 2 or 3, on four with stage 1, never with "
    "DDP.",
)

# %% [markdown]
# ### Exercise: how many cards?
# ★★ · 8 minutes · The first question before a large run, and the first one that ZeRO's paper answers.
#
# Large models are trained with another kind of mixed precision than lesson 10's: the weights themselves are in 16 bits. A parameter then has 2 bytes for its weight, 2 for its gradient, and 12 that the optimizer keeps: the weight once more, in float32, and two moments. Stage 1 cuts the 12 into as many parts as there are cards. Stage 2 cuts the gradient, too, and stage 3 also the weight of 2 bytes. Stage 0 is DDP and cuts nothing, so more cards do not help: either one card is enough, or no number is. A part need not be a whole number of bytes. Each card has `memory` bytes, and may be exactly full. (Stay with whole numbers: floats round.)
#
# How many cards are needed at least? If no number of cards is enough, return 0. For example, take a billion parameters, cards of six billion bytes, and stage 1: every card holds four bytes for each parameter, and has two left for its part of the twelve. So 6 cards are needed. With stage 0 the answer is 0.

# %% tags=["exercise"] exercise="cards_needed"
def cards_needed(parameters, memory, stage):
    """Whole numbers: parameters and memory (bytes a card) from 1 on, stage 0 to 3 -> int: cards, or 0 for never."""
    ### BEGIN SOLUTION
    whole = (16, 4, 2, 0)[stage] * parameters  # bytes that are on every card
    cut, left = 16 * parameters - whole, memory - whole
    if stage == 0:
        return 1 if left >= 0 else 0
    return -(-cut // left) if left > 0 else 0
    ### END SOLUTION

# %%
check("cards_needed", cards_needed)

# %% [markdown]
# Stage 3 is what PyTorch calls FSDP, *fully sharded data parallel* (Zhao et al., 2023, [arXiv:2304.11277](https://arxiv.org/abs/2304.11277)). How can a device compute with weights that it does not have? It borrows them. Before a block is computed, each device gathers the block's parts from the others; afterwards, each device drops the parts that are not its own. `backward` does the same. Then come the gradients. Each device has the gradients of the whole block, for its own windows; these are averaged over the devices, and each device keeps the part that belongs to its weights. An all-gather is half an all-reduce, and so is this reduce-scatter: they are the two halves of the ring above. So FSDP sends three halves where DDP sends two: 1.5 times as much, for an $n$-th of the memory.
#
# The embeddings and the last norm stand around the blocks. They are gathered once, and stay whole until `backward` is over. The picture shows how much of each weight one of four devices holds while the block named below the column is computed.

# %%
had = torch.full((5, 8), 1 / 4)
had[4], way = 1, [0, 1, 2, 3, 3, 2, 1, 0]
had[way, range(8)] = 1
fig, ax = plt.subplots(figsize=(7, 2.5), layout="constrained")
heatmap(
    ax, had, cells=[["all" if x == 1 else "¼" for x in row] for row in had.tolist()], vmin=0, vmax=1
)
ax.set(
    yticks=range(5),
    xticks=range(8),
    xlabel="block being computed, in forward (>) and in backward (<)",
)
ax.set_yticklabels([*(f"weights of block {block}" for block in range(4)), "embeddings, last norm"])
ax.set_xticklabels([f"{'>' if t < 4 else '<'} {block}" for t, block in enumerate(way)])
show(
    fig,
    "Five rows of weights by eight moments. A block's weights are whole at two moments: when the block is computed in "
    "forward and in backward. The last row, embeddings and last norm, is whole all the time.",
)

# %% [markdown]
# Every process must take part in every all-gather. If one process calls the model once more than the others, for an evaluation say, it waits for the others. (That is why all parts of the evaluation above are equally long.)
#
# PyTorch's tool for this is `fully_shard`. It cuts each parameter along its first dimension, and puts a `DTensor` in its place, which knows the shape of the whole and holds one part. We call it on each block separately, so that only one block at a time is whole, or two, because a card fetches the next block early.

# %%
#| export
# Collected on the CPU in process 0; the others get an empty dict.
GATHER_OPTIONS = StateDictOptions(full_state_dict=True, cpu_offload=True)
# Process 0 has the whole, and sends each process its parts.
BROADCAST_OPTIONS = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


class FSDPStrategy(DDPStrategy):
    """Several processes with a part of each parameter, gradient and moment (FSDP, Zhao et al., 2023)."""

    def __init__(self, model, device):
        super().__init__(device)
        # Checkpoints are read into this copy, and written from it.
        self.full_model = deepcopy(model).cpu()
        mesh = init_device_mesh(device.type, (self.world_size,))
        # Each block is gathered and dropped by itself. The other parameters go with the model.
        for block in getattr(model, "blocks", ()):
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        # All processes start from the weights of process 0.
        set_model_state_dict(model, self.full_model.state_dict(), options=BROADCAST_OPTIONS)

    def wrap(self, model):
        return model  # fully_shard has changed the model itself

    @contextmanager
    def no_sync(self, model):
        # FSDP has a switch where DDP has a context manager.
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)

    def clip_grad_norm(self, parameters, max_norm):
        # The norm is a DTensor: each process holds a part of it.
        return super().clip_grad_norm(parameters, max_norm).full_tensor()

# %% [markdown]
# A checkpoint must hold the whole model: `load_model` must be able to read it, and so must another program, with one card. PyTorch has functions for that, too, in `torch.distributed.checkpoint.state_dict`. `get_model_state_dict` and `get_optimizer_state_dict` collect the parts in the memory of process 0, which writes them. `set_model_state_dict` and `set_optimizer_state_dict` cut what process 0 has read, and send each process its parts. These functions name the moments after their parameters. A plain optimizer numbers its parameters instead, and so do our checkpoints. So a run's files look the same, however many processes it had.

# %%
#| export
class FSDPStrategy(FSDPStrategy):  # continued
    def full_state(self, model, optimizer):
        # All processes take part in collecting; only process 0 gets the result.
        weights = get_model_state_dict(model, options=GATHER_OPTIONS)
        if self.rank == 0:
            self.full_model.load_state_dict(weights)
        numbered = optimizer.state_dict()
        # Before the first step there are no moments; PyTorch would take a step with the optimizer to create some.
        if optimizer.state:
            moments = get_optimizer_state_dict(model, optimizer, options=GATHER_OPTIONS)
            names = _parameter_names(model, optimizer) if self.rank == 0 else []
            numbered["state"] = {
                number: moments["state"][name] for number, name in enumerate(names)
            }
        return self.full_model, numbered

    def load_model(self, out, model, tokenizer, which="last"):
        # Every process reads the file, because each needs the state that is saved with the weights.
        state = load_checkpoint(out, self.full_model, tokenizer, which)
        set_model_state_dict(model, self.full_model.state_dict(), options=BROADCAST_OPTIONS)
        return state

    def load_optimizer(self, model, optimizer, saved):
        if not saved["state"]:
            return
        names = _parameter_names(model, optimizer)
        groups = optimizer.state_dict()["param_groups"]
        named = {
            "state": {names[number]: moments for number, moments in saved["state"].items()},
            "param_groups": [
                {**group, "params": [names[number] for number in group["params"]]}
                for group in groups
            ],
        }
        set_optimizer_state_dict(model, optimizer, named, options=BROADCAST_OPTIONS)
        # PyTorch has turned tuples into lists; the settings go back to those of the config.
        for group, before in zip(optimizer.param_groups, groups):
            group["betas"] = before["betas"]


def _parameter_names(model, optimizer):
    """The names of the parameters, in the order in which the optimizer numbers them."""
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    return [name_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]

# %% [markdown]
# Is the model really cut?

# %%
_ = (folder / "parts.py").write_text(
    """
from chargpt_lib.distributed import FSDPStrategy, init_distributed
from chargpt_lib.gpt import GPT, GPTConfig

model = GPT(GPTConfig(64, block_size=64, n_layer=4, n_head=4, n_embd=128))
whole = sum(p.numel() for p in model.parameters())
strategy = FSDPStrategy(model, init_distributed("cpu"))
own = sum(p.to_local().numel() for p in model.parameters())
print(f"process {strategy.rank} holds {own:,} of {whole:,} weights\\n", end="")
""".lstrip(),
    encoding="utf-8",
)
print(*launch("parts.py"), sep="\n")

# %% [markdown]
# Now the function itself: it joins the processes, chooses the strategy, and calls lesson 11's `Trainer`.

# %%
#| export
def train_distributed(
    model,
    corpus_or_ids,
    config,
    tokenizer=None,
    resume=False,
    fsdp=False,
    device=None,
    corpus_changed="refuse",
):
    """`train` in all processes that a launcher has started, one for each device; without a launcher, it is `train`.

    Every process calls it with the same arguments, and gets the same dict. config.batch_size is what one process reads
    at a time. fsdp: cut weights, gradients and moments into as many parts as there are processes (FSDP); the model
    then stays cut, and only the checkpoints in out hold all of it. device: "cpu", "cuda"; None: the best one.

    Raises: what `train` raises; ValueError if there are fewer graphics cards than processes, and for fsdp=True without
    out or with Muon.
    """
    if world_size() == 1:
        device = pick_device() if device is None else device
        return train(model.to(device), corpus_or_ids, config, tokenizer, resume, corpus_changed)
    if fsdp and config.out is None:
        raise ValueError(
            "fsdp=True leaves the model sharded, and only a checkpoint holds all of it: set "
            "TrainConfig(out=...)"
        )
    if fsdp and config.optimizer == "muon":
        raise ValueError(
            "optimizer='muon' needs whole matrices, and fsdp=True leaves each process a part of them: take fsdp=False "
            "(DDP), or optimizer='adamw'"
        )
    device = init_distributed(device)
    if fsdp:
        strategy = FSDPStrategy(model, device)
    else:
        model = model.to(device)
        strategy = DDPStrategy(device)
    trainer = Trainer(model, corpus_or_ids, config, tokenizer, strategy)
    return trainer.train(resume, corpus_changed)

# %% [markdown]
# ## Two processes equal one with twice the batch
#
# Here is a script such as you would write yourself. (To save time it has no validation; each step gets a row of the log.) You can start it with a launcher, run it as an ordinary script, or import it. Each process runs the whole script, and nothing in it says how many processes there are.

# %%
_ = (folder / "text.txt").write_text(corpus.train[:200_000], encoding="utf-8")
_ = (folder / "job.py").write_text(
    """
import json, pathlib, sys, torch
from chargpt_lib.data import CharTokenizer
from chargpt_lib.distributed import train_distributed
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.recipe import TrainConfig

text = pathlib.Path(__file__).with_name("text.txt").read_text(encoding="utf-8")
tokenizer = CharTokenizer.from_text(text)
""".lstrip(),
    encoding="utf-8",
)

# %%
with (folder / "job.py").open("a", encoding="utf-8") as file:
    _ = file.write("""
def job(out, dropout=0.0, steps=60, batch_size=16, resume=False, fsdp=False):
    torch.set_num_threads(1)
    torch.manual_seed(1337)
    model = GPT(GPTConfig(tokenizer.vocab_size, block_size=32, n_layer=2, n_head=4, n_embd=64, dropout=dropout))
    config = TrainConfig(steps=steps, batch_size=batch_size, eval_interval=1, seed=1337, out=out)
    return train_distributed(model, tokenizer.encode(text), config, tokenizer, resume, fsdp)

if __name__ == "__main__":
    for arguments in sys.argv[1:]:
        job(**json.loads(arguments))
""")

# %% [markdown]
# First comes one process with batches of 32, here in the notebook. Then come two processes with 16 each, as copies (DDP) and in parts (FSDP). They also make a run with dropout, for later. These three runs share one launch, because starting Python and PyTorch takes longer than the runs.

# %% tags=["nbval-ignore-output"]
def arguments(name, **changes):
    return json.dumps({"out": str(folder / name), **changes})


sys.path.insert(0, str(folder))
from job import job

job(str(folder / "one"), batch_size=32)
accident = {"dropout": 0.1, "steps": 120}
lines = launch(
    "job.py", arguments("copies"), arguments("parts", fsdp=True), arguments("whole", **accident)
)
losses = {
    name: torch.tensor([row["train_loss"] for row in read_log(folder / name)])
    for name in ("one", "copies", "parts")
}

# %%
far = {name: (losses[name] - losses["one"]).abs().max().item() for name in ("copies", "parts")}
for name in ("copies", "parts"):
    print(f"{name}: {len(losses[name])} losses, at most ≈ {far[name]:.0e} nats off (limit 1e-5)")
first, last = losses["one"][0].item(), losses["one"][-1].item()
print(f"one process: from ≈ {first:.2f} to ≈ {last:.2f} nats per character")
assert far["copies"] < 1e-5
assert far["parts"] < 1e-5
assert first - last > 0.5

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained")
axes[0].plot(losses["one"], color="#BBBBBB", linewidth=5, label="one process, batches of 32")
copies = {"color": "#D55E00"}
parts = {"color": "#0072B2"}
axes[0].plot(losses["copies"], "-", **copies, label="two processes, 16 each, DDP")
axes[0].plot(losses["parts"], "--", **parts, label="two processes, 16 each, FSDP")
distances = {name: 1e6 * (losses[name] - losses["one"]).abs() for name in ("copies", "parts")}
axes[1].plot(distances["copies"], "s", **copies, markersize=6, markerfacecolor="none")
axes[1].plot(distances["parts"], "o", **parts, markersize=3)
axes[0].set(xlabel="step", ylabel="nats per character", title="training loss")
axes[1].set(xlabel="step", ylabel="millionths of a nat", ylim=(-0.03, None))
axes[1].set_title("difference from one process")
axes[0].legend(frameon=False, fontsize=8)
show(
    fig,
    "Left: three loss curves, one on top of the other. Right: their differences, all below ten millionths of a nat.",
)

# %% [markdown]
# The losses are the same, up to rounding: 16 + 16 numbers are added in another order than 32. For sixty steps the difference stays in the last digits. (The distances on the right lie on lines, mostly 0.24 millionths apart: between 2 and 4 that is the distance from one float32 to the next.) In longer runs, and at higher learning rates, the difference grows, because AdamW divides small numbers by small ones. So do not expect these digits after a thousand steps.
#
# So `batch_size` is what one process reads. Two processes with 16 equal one process with 32: the same epochs take fewer steps, and the best learning rate is that of the larger batch.
#
# ### Exercise: the same step on other cards
# ★★ · 8 minutes · If you take more cards and change nothing else, the batch grows, and the learning rate was meant for the old one.
#
# A run did well with `windows` windows a step. Now it is to be repeated with `ranks` cards, each of which has memory for at most `fits` windows at a time. Find a `batch_size` (what one process reads at a time) and a `grad_accum` (micro-batches of each process in a step) with which a step has exactly `windows` windows again, the same number on each card. Of all pairs that fit, take the one with the largest batches. If the windows cannot be split evenly between the cards, return an empty list.
#
# With 96 windows, 4 cards and room for 10, each card reads 24 windows a step: 8 at a time, three times. The answer is `[8, 3]`.

# %% tags=["exercise"] exercise="split_step"
def split_step(windows, ranks, fits):
    """Three whole numbers from 1 on -> [batch_size, grad_accum], two ints; or [] where no split is even."""
    ### BEGIN SOLUTION
    own, rest = divmod(windows, ranks)
    if rest:
        return []
    batch_size = max(size for size in range(1, fits + 1) if own % size == 0)
    return [batch_size, own // batch_size]
    ### END SOLUTION

# %%
check("split_step", split_step)

# %% [markdown]
# And are the saved models the same? One process loads all three.

# %%
models = [load_model(folder / name)[0].state_dict() for name in ("one", "copies", "parts")]
far = max((a[name] - b[name]).abs().max().item() for a in models for b in models for name in a)
print(f"largest difference between two runs, of any weight: ≈ {far:.0e} (limit 1e-4)")
assert far < 1e-4

# %% [markdown]
# ## Communication cost
#
# The amount sent depends on the parameters only. The amount computed depends on parameters times characters. So take a model and ever larger batches, and measure the time of forward and `backward`, with the exchange and without it (inside `no_sync`).

# %%
_ = (folder / "cost.py").write_text(
    """
import time, torch
from contextlib import nullcontext
from statistics import median
from chargpt_lib.distributed import DDPStrategy, init_distributed
from chargpt_lib.gpt import GPT, GPTConfig

strategy = DDPStrategy(init_distributed("cpu"))
model = strategy.wrap(GPT(GPTConfig(64, block_size=64, n_layer=4, n_head=4, n_embd=128)))
""".lstrip(),
    encoding="utf-8",
)

# %%
with (folder / "cost.py").open("a", encoding="utf-8") as file:
    _ = file.write("""
def seconds(size, context):
    x = torch.zeros(size, 64, dtype=torch.int64)
    began = time.perf_counter()
    with context:
        model(x, x)[1].backward()
    return strategy.all_reduce_max(time.perf_counter() - began)[0]  # of the slower process

for size in (1, 4, 16, 64):
    pairs = [(seconds(size, strategy.no_sync(model)), seconds(size, nullcontext())) for _ in range(8)]
    if strategy.rank == 0:
        print(size, *map(median, zip(*pairs)))
del model  # before this process leaves the group
""")

# %%
cost = sorted([float(number) for number in line.split()] for line in launch("cost.py"))
for size, without, with_it in cost:
    print(
        f"{size:3.0f} windows each: ≈ {1000 * without:.0f} ms without exchange, ≈ {1000 * with_it:.0f} ms with it"
    )

# %%
assert [row[0] for row in cost] == [1, 4, 16, 64]
P = GPT(GPTConfig(64, block_size=64, n_layer=4, n_head=4, n_embd=128)).num_params()
half = (2 - 1) / 2 * 4 * P / 1e6  # megabytes: half an all-reduce, between two processes
print(
    f"{P:,} parameters; each process sends {2 * half:.1f} megabytes with DDP, {3 * half:.1f} with FSDP"
)

# %% [markdown]
# In each line the same 3.2 megabytes are sent; the last line computes 64 times as much as the first. So the exchange weighs less and less. (Where the second time is the shorter one, the times scatter by more than the exchange costs.) The exchange cannot hide well here, either: after its first step DDP makes two buckets of these gradients, a small one, and one that is complete only at the very end. Here messages go through the computer's memory, and computing is slow; with graphics cards both speeds are different. The rule stays: if messages take too long, compute more between them, with a larger batch or with more micro-batches.
#
# ## When are two processes faster than one?
#
# A step of $n$ processes shares its computing, and adds communication:
#
# $$t(n) = \frac{\text{computing}}{n} + \text{communication}(n), \qquad \text{communication}(1) = 0$$
#
# So $t(2) < t(1)$ where the communication takes less time than half of the computing. The computing grows with the number of windows in a step, the communication does not. (AdamW's update is not shared either: each process updates all weights.)
#
# This was measured once, on a quiet machine with two cores (`python -m tests.benchmarks.two_processes`, a minute). A GPT with 3.2 million parameters made whole training steps, in turns: in one process with one thread; in two processes with one thread and half of the windows each; and in one process with two threads, because one computer offers that, too. **Predict:** from how many windows on are two processes faster, and how many times as fast can they become?

# %%
record = json.loads((bundled_dir() / "results" / "two_processes.json").read_text(encoding="utf-8"))
steps = {}  # windows: the median time of each way, in milliseconds
for row in record["rows"]:
    steps[row["windows"]] = {way: ms[1] for way, ms in row["milliseconds"].items()}
print("windows   one process   two processes   t(1) / t(2)   t(2) - t(1) / 2")
for windows, ms in steps.items():
    one = ms["one process"]
    two = ms["two processes"]
    print(f"{windows:7} {one:10.0f} ms {two:12.0f} ms {one / two:13.2f} {two - one / 2:14.0f} ms")

# %%
fig, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
ways = (
    ("two processes", "#0072B2", "o-"),
    ("one process, two threads", "#D55E00", "s--"),
)
for way, colour, style in ways:
    speedups = [ms["one process"] / ms[way] for ms in steps.values()]
    ax.plot(list(steps), speedups, style, color=colour, label=way)
for height, name in ((1, "as fast as one process"), (2, "twice as fast")):
    ax.axhline(height, color="#999999", linewidth=1)
    ax.text(max(steps), height + 0.04, name, fontsize=8, ha="right")
ax.set(xscale="log", ylim=(0, 2.3), ylabel="speed, one process = 1")
ax.set_xlabel("windows of 32 characters in a step")
ax.set_xticks(list(steps), list(steps))
ax.minorticks_off()
ax.legend(frameon=False, loc="lower right")
show(
    fig,
    "Speed against the number of windows in a step. Two processes begin below one process, pass it between 8 and 32 "
    "windows, and approach twice the speed; two threads are faster than one thread everywhere.",
)

# %% [markdown]
# With 2 windows in a step two processes are slower than one; with 128 they are nearly twice as fast. The last column is what two processes do not share, the communication and half of an update: about the same number of milliseconds in every row, as the formula says. So the ratio comes as close to 2 as you like, if the batch is large enough. (A larger batch also means fewer steps for the same text, and another learning rate.)
#
# Two threads of one process are at least as fast here: they work on the same weights and gradients in one memory, and send nothing. Processes are for what threads cannot reach: several graphics cards, or several computers.
#
# ## `no_sync`: one all-reduce per step
#
# Let us count the exchanges: DDP lets a function of ours send its buckets. Four micro-batches make one step, first with `no_sync` around three of them, then without.

# %%
_ = (folder / "count.py").write_text(
    """
import torch
from contextlib import nullcontext
from chargpt_lib.distributed import DDPStrategy, init_distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

torch.manual_seed(1337)
strategy, sent = DDPStrategy(init_distributed("cpu")), []
model = strategy.wrap(torch.nn.Linear(3, 3))
""".lstrip(),
    encoding="utf-8",
)

# %%
with (folder / "count.py").open("a", encoding="utf-8") as file:
    _ = file.write("""
def counted(state, bucket):
    sent.append(1)
    return allreduce_hook(state, bucket)

model.register_comm_hook(None, counted)
for context in (strategy.no_sync, lambda model: nullcontext()):
    model.zero_grad()
    torch.manual_seed(strategy.rank)
    for left in (3, 2, 1, 0):
        with context(model) if left else nullcontext():
            model(torch.randn(5, 3)).square().mean().div(4).backward()
    number = model.module.bias.grad[0].item()
    print(f"exchanges: {len(sent)}; the gradient in process {strategy.rank}: {number:.9f}\\n", end="")
    sent.clear()
del model  # before this process leaves the group
""")

# %%
lines = launch("count.py")
print(*(": ≈ ".join(line.rsplit(": ", 1)) for line in lines), sep="\n")
numbers = [float(line.split()[-1]) for line in lines]
far = max(numbers) - min(numbers)
print(f"largest difference: ≈ {far:.0e} (limit 1e-6)")
assert far < 1e-6

# %% [markdown]
# The gradient is the same, up to rounding, with a quarter of the exchanges. (With FSDP `no_sync` saves less, because the weights are gathered for each micro-batch. And it has a price: gradients that are not exchanged yet are kept whole, 4 bytes for each parameter on each device.)
#
# ## Interrupting and resuming
#
# This time there is dropout, so that the random state of each process matters. The run of 120 steps without an accident, `whole`, was made above. Now we start another one, and as soon as its log has a line we send its launcher the signal that Ctrl-C sends. The launcher passes the signal on, and kills every process that has not ended 30 seconds later. Each process only makes a note of the signal. After the step they agree to stop, and process 0 saves.

# %%
process = subprocess.Popen(
    [*TORCHRUN, str(folder / "job.py"), arguments("accident", **accident)],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
)
log = folder / "accident" / "log.jsonl"
while not (log.exists() and log.read_text()) and process.poll() is None:
    time.sleep(0.01)
process.send_signal(signal.SIGINT)
printed = process.communicate()[0].replace(str(folder), "...")
printed = printed.replace("after step ", "after step ≈ ")
print(*[line for line in printed.splitlines() if "interrupted" in line], sep="\n")

# %%
assert printed.count("interrupted after step") == 1, "one process prints for all"
made = read_log(folder / "accident")[-1]["step"]
print(f"steps made: ≈ {made} of 120 (at least 1, and fewer than 120: {1 <= made < 120})")

# %% tags=["nbval-ignore-output"]
lines = launch("job.py", arguments("accident", resume=True, **accident))

# %%
losses = [[row["train_loss"] for row in read_log(folder / name)] for name in ("whole", "accident")]
models = [load_model(folder / name)[0].state_dict() for name in ("whole", "accident")]
print("losses that differ:", sum(a != b for a, b in zip(*losses)), "of", len(losses[1]))
other = sum((models[0][name] != models[1][name]).sum().item() for name in models[0])
print("weights that differ, in the last bit or more:", other)
assert losses[0] == losses[1] and other == 0

# %% [markdown]
# And could the run resume with another number of processes? Each process has a random state of its own, and a step would read other windows. So that would be another run, and an error says so before it begins:

# %%
try:
    job(str(folder / "accident"), resume=True, **accident)
except ValueError as error:
    print(str(error).replace(str(folder), "..."))

# %% [markdown]
# (A new run can still begin with its weights: `load_model`.)
#
# ## How to start it
#
# **`torchrun`** comes with PyTorch. On a computer with two cards:
#
#     torchrun --nproc-per-node 2 job.py '{"out": "run"}'
#
# **On Kaggle** choose the accelerator *GPU T4 x2*. A notebook is one process, and so it can start the script, but not be the training itself. Write the script from a cell with `%%writefile job.py` in its first line, and in the next cell:
#
#     !torchrun --nproc-per-node 2 job.py '{"out": "run"}'
#
# Only what the script prints or saves comes back. So give `out`, and load the model from there: `load_model("run")`. The T4's 16-bit type is float16; `precision="auto"` finds that out. With a single card, as on Colab, there is nothing to launch: call `train`.
#
# If the notebook itself has used a card, it still holds memory there that the training then lacks: restart the kernel first.

# %% [markdown]
# For a text larger than memory, pass the shards of [the page before](12_data_on_disk.ipynb) as the corpus: each process reads only its own windows, and the pages of the disk on which they lie.
#
# ## Mistakes people make
#
# - **The same windows everywhere.** Then two cards compute one gradient twice. The loss is that of a single process with the small batch, and only a comparison shows the mistake.
# - **The same random numbers for dropout everywhere,** or different first weights.
# - **`batch_size` taken for the whole batch.** With eight cards the batch is eight times as large, and the learning rate was meant for a single card's batch.
# - **`if rank == 0:` around something in which all must take part**: an evaluation with FSDP, gathering the weights, a barrier. Process 0 waits, until a timeout ends it: half an hour later with gloo, ten minutes with NCCL.
# - **An error in one process, caught there.** The others wait.
# - **All processes write** to the same file, at the same time.
# - **A mean of unequal parts**, above all with texts of different lengths.
# - **Saving DDP's own `state_dict`.** All names then begin with `module.`
# - **Comparing speeds with the same `batch_size`.** Characters a second can be compared, steps a second cannot.
# - **FSDP for a model that fits.** It sends 1.5 times as much as DDP, and more often.
#
# How far you are:

# %%
progress()

# %% [markdown]
# ## Summary
#
# You now have `train_distributed`, in `chargpt_lib/distributed.py`: the same call and the same checkpoints as `train`, on as many devices as the launcher has processes for.
#
# Next: [14 · Tokenizers](14_tokenizers.ipynb), where the model reads pieces of words.
