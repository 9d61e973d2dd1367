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
# You will build: `train_distributed`, lesson 11's loop in several processes at once, one for each graphics card, with the losses that one process with the larger batch would have (without dropout, and but for rounding). First the mathematics of it by hand, in one process, where everything can be looked at.
# You need lessons 10 and 11, and Hugging Face Accelerate (`pip install accelerate`). On two CPU cores the page takes a minute and a half; its processes run on the CPU, two at a time. (Times and memory on graphics cards: not measured yet.)

# %%
import json
import os
import signal
import socket
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
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.plots import heatmap, show
from chargpt_lib.recipe import Windows
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
# ## Half a batch each
#
# Two devices, and a batch of 16 windows. Each device has a copy of the model, and reads 8. Each gets a gradient, of its own half. What is the gradient of the whole batch?
#
# The loss is a mean over windows, $L = \frac{1}{16} \sum_{i=1}^{16} \ell_i$, and so is its gradient. A mean of 16 is the mean of two means of 8:
#
# $$\nabla L = \tfrac{1}{2} \Big( \underbrace{\tfrac{1}{8} \sum_{i=1}^{8} \nabla \ell_i}_{\text{device 0}} + \underbrace{\tfrac{1}{8} \sum_{i=9}^{16} \nabla \ell_i}_{\text{device 1}} \Big)$$

# %%
def gradient(model, x, y):
    """The gradient of the mean loss, all parameters in one row: (P,)."""
    model.zero_grad()
    model(x, y)[1].backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


x, y = Windows(ids, 32, seed=1337).batch(0, 16)
copies = [new_model(), new_model()]  # the same seed, the same weights
halves = [gradient(copies[0], x[:8], y[:8]), gradient(copies[1], x[8:], y[8:])]
whole = gradient(new_model(), x, y)
apart = [(g - whole).norm().item() / whole.norm().item() for g in (*halves, sum(halves) / 2)]
print(f"off by: first half {apart[0]:.0%}, second half {apart[1]:.0%}")
print(
    f"the mean of the two is off by ≈ {apart[2]:.0e} of the length (below 1e-12: {apart[2] < 1e-12})"
)
assert apart[2] < 1e-12  # float64 (.double() above): what is left is rounding

# %% [markdown]
# So the two exchange their gradients, and both continue with the mean. That is all of **data parallelism**; what follows on this page is about doing it fast, in little memory, and without getting stuck.
#
# After the start the weights are never exchanged. **Predict:** after ten steps of AdamW in each copy, how far are their weights apart?

# %%
def ten_steps(copies):
    """Ten steps; each copy reads its half, and moves by the mean gradient."""
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-3) for model in copies]
    windows = Windows(ids, 32, seed=1337)
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
    return max(
        (a - b).abs().max().item() for a, b in zip(*(model.parameters() for model in copies))
    )


strangers = [new_model(seed=1), new_model(seed=2)]
before = distance(strangers)
ten_steps(copies)
ten_steps(strangers)
print("copies: distance", distance(copies))
print(
    f"two models that began differently: {distance(strangers) / before:.5f} of the distance they had"
)
assert distance(copies) == 0

# %% [markdown]
# The same start and the same steps lead to the same place, to the last bit. So nobody has to send weights, but for the first time: PyTorch's DDP (*distributed data parallel*, further below) then sends those of process 0. But it also means that a difference is hardly ever mended (only weight decay shrinks it, by a hundred-thousandth a step): the two strangers walk side by side, and the gradient of each is meant for somewhere else. Nothing crashes.
#
# | must be the same everywhere | must differ |
# |---|---|
# | the first weights | the windows that are read |
# | the mean gradient, and so the clipping | the dice of dropout: lesson 11's `begin` seeds them with `seed + rank` |
# | the rate, so also the number of the step, and the time that is gone | |
# | the decisions: a new best? enough? stop? | |
# | how often, and in which order, they speak to each other | who writes to the disk: one |
#
# The last line on the left is the nasty one. Who waits for a word that nobody says, waits until somebody loses patience.
#
# And if the halves are not halves? Twelve windows here and four there, say, because the text came to its end.

# %%
parts = [gradient(new_model(), x[:12], y[:12]), gradient(new_model(), x[12:], y[12:])]
means = {
    "mean of the means": (parts[0] + parts[1]) / 2,
    "weighted, 12 to 4": (12 * parts[0] + 4 * parts[1]) / 16,
}
for name, mean in means.items():
    print(f"{name}: off by {((mean - whole).norm() / whole.norm()).item():.0%}")

# %% [markdown]
# A mean of means is the mean only if all count alike: lesson 10's bug with unequal texts, in another dress. The trainer's windows are all of one length, each process takes `batch_size` of them, and an epoch's end is in the middle of a batch (`Windows` simply goes on with the next one). So all parts count alike.
#
# ### Exercise: each part its due
# ★★ · 6 minutes · DDP takes a plain mean over the devices, whatever they have read. With texts of unequal length the loop has to make up for that beforehand (Hugging Face's trainer has such a factor, too).
#
# Each device reads its texts in several parts, one after the other. `targets[r, a]` says how many targets part a of device r has. The loss of a part is the mean over its own targets; it is multiplied by a factor; `backward` *adds* its gradient to what the device has already. After the last part DDP adds up the gradients of all devices, and divides by the number of devices.
#
# By which factor must each loss be multiplied, so that the gradient of the mean over all targets comes out, each target with the same weight? With two devices, one part each, of 12 and 4 targets, the factors are 1.5 and 0.5.

# %% tags=["exercise"] exercise="loss_factors"
def loss_factors(targets):
    """targets (R, A) int64, from 1 on, R devices with A parts each -> (R, A) float32: the factor for each loss."""
    ### BEGIN SOLUTION
    return len(targets) * targets / targets.sum()
    ### END SOLUTION

# %%
check("loss_factors", loss_factors)

# %% [markdown]
# ## Everybody's sum
#
# Each of $n$ devices has a vector of $N$ numbers; afterwards each shall have the sum. This is called **all-reduce**. The simple way: all send theirs to one, who adds them up and sends the sum back. That one sends and receives $(n - 1) N$ numbers, while the others wait.
#
# The better way is a **ring** (Patarasuk and Yuan, 2009, [doi:10.1016/j.jpdc.2008.09.002](https://doi.org/10.1016/j.jpdc.2008.09.002)). Cut each vector into $n$ pieces. In each round everybody sends one piece to the right neighbour. In the first $n - 1$ rounds the receiver adds it to its own (*reduce-scatter*): a piece collects summands on its way, until each device has one finished piece. In the next $n - 1$ rounds finished pieces go round, and replace (*all-gather*).

# %%
def ring_all_reduce(vectors):
    """Vectors (N,), one for each device -> what the devices hold after each round, and numbers sent by each."""
    n = len(vectors)
    held, sent, history = [list(v.clone().tensor_split(n)) for v in vectors], [0] * n, []
    history.append([torch.cat(pieces) for pieces in held])
    for k in range(2 * (n - 1)):
        messages = [
            ((r - k) % n, held[r][(r - k) % n].clone()) for r in range(n)
        ]  # all at the same time
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
print("largest distance from the sum, on each device:", off)
print("numbers sent by each:", sent, "  of 12 each")
assert max(off) == 0

# %% [markdown]
# Watch it with vectors of ones. Then a number says how many summands it has.

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
# Each device sends $2(n-1)$ pieces of $N / n$ numbers: $2 \frac{n-1}{n} N$. **Predict** how many that is, of $N$, for 2 devices, and for a thousand.

# %%
counts = {n: ring_all_reduce([torch.ones(840)] * n)[1] for n in range(1, 9)}
assert all(sent == [2 * (n - 1) * 840 // n] * n for n, sent in counts.items())
fig, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
ax.plot(range(1, 9), range(8), "s--", color="#D55E00", label="all to one: what that one sends")
ring = [sent[0] / 840 for sent in counts.values()]
ax.plot(range(1, 9), ring, "o-", color="#0072B2", label="ring: what each one sends")
ax.axhline(2, color="#999999", linewidth=1, label="two vectors")
ax.set(xlabel="devices", ylabel="vectors sent")
ax.legend(frameon=False)
show(
    fig,
    "From one device to eight: the one in the middle sends up to 7 vectors; in the ring each sends less than 2.",
)
print([f"{vectors:.2f}" for vectors in ring])

# %% [markdown]
# Less than two vectors, however many devices there are. Can it be done with less? A number needs $n - 1$ messages before the summands of all have come together, and $n - 1$ more before all know the sum. So $2 (n - 1) N$ numbers are sent in all, by whatever way of adding, and the busiest of $n$ devices sends at least $2 \frac{n-1}{n} N$. For a thousand devices that is 1.998 vectors. How much is that for the smallest GPT-2, in float32? And for nanoGPT's baby?

# %%
for name, parameters in (("GPT-2", 124_439_808), ("baby", 10_745_088)):
    for n in (2, 8):
        print(
            f"{name:6} {n} devices: {2 * (n - 1) / n * parameters * 4 / 1e6:5.0f} megabytes sent by each, every step"
        )

# %% [markdown]
# ### Exercise: fewer rounds
# ★★ · 8 minutes · Each round has its delay, however little is sent. For a single number a ring of 1,024 devices waits 2,046 times; here they wait ten times, and send ten vectors instead of two.
#
# Another all-reduce, *recursive doubling* (Thakur et al., 2005), does without ring and pieces. In each round the devices form pairs. In round 0 these are 0 and 1, 2 and 3, 4 and 5, and so on. In round 1 they are twice as far apart: 0 and 2, 1 and 3, 4 and 6, 5 and 7, ... In round 2 it is 0 and 4, 1 and 5, 2 and 6, 3 and 7, ..., and in round $k$ the two of a pair are $2^k$ apart. (Written in binary, their numbers differ in one digit.) Both send each other all that they hold, at the same time, and add what they get to what they had. With $2^m$ devices all have the sum after $m$ rounds.
#
# What do the devices hold after the first `rounds` rounds? (After none, what they had.) Four devices with one number each, 1, 2, 3 and 4, hold 3, 3, 7 and 7 after one round, and 10 each after two.

# %% tags=["exercise"] exercise="recursive_doubling"
def recursive_doubling(held, rounds):
    """held (n, N) floats, row r: device r's vector; n = 2^m, 0 <= rounds <= m -> (n, N): held after them."""
    ### BEGIN SOLUTION
    for k in range(rounds):
        partners = [
            device ^ 2**k for device in range(len(held))
        ]  # the k-th binary digit is turned over
        held = held + held[partners]
    return held
    ### END SOLUTION

# %%
check("recursive_doubling", recursive_doubling)

# %%
for m in (1, 3, 10):
    n = 2**m
    print(
        f"{n:4} devices: ring {2 * (n - 1):4} rounds, {2 * (n - 1) / n:.2f} vectors sent by each;"
        f" doubling {m:2} rounds, {m} vectors"
    )

# %% [markdown]
# What is small goes by doubling, then, and what is large in a ring. (There are ways between the two. If the pairs exchange halves, then quarters, and so on, and put them together again in the same way, 1,024 devices need 20 rounds and 1.998 vectors; the same paper has that, too. NCCL, which adds up between graphics cards, chooses between rings and trees.)

# %% [markdown]
# ## While it computes
#
# `backward` begins at the end of the model. The gradients of the last block are finished while those of the first are not yet begun, and so they can travel already. PyTorch's DDP (*distributed data parallel*, Li et al., 2020, [arXiv:2006.15704](https://arxiv.org/abs/2006.15704)) deals the gradients into buckets beforehand, the first of one megabyte, the others of 25, and sends a bucket off as soon as all its gradients are there. **Predict:** the token embedding serves at both ends: it makes vectors of the characters and, tied, logits of the last vectors. When is its gradient finished?

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
# With the beginning of the model, so at the very end of `backward`: nothing is left to hide it behind. In a GPT-2 that is 154 of 498 megabytes. If several batches make one step (`grad_accum`), the exchange can wait for the last of them: the sum of the means is the mean of the sums.
#
# ## Processes
#
# A device gets a *process* of its own: a whole Python, with its own memory. (Threads in one Python would wait for each other.) A **launcher** starts them, tells each through environment variables who it is (`RANK`), how many they are (`WORLD_SIZE`; on this computer `LOCAL_WORLD_SIZE`), and where they can find each other. If one dies, it ends the others. PyTorch's is called `torchrun`. This is how the page calls it; on the CPU, and with one thread for each process:

# %%
folder = Path(tempfile.mkdtemp())
network = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)  # this computer's line to itself
os.environ["CHARGPT_DEVICE"] = "cpu"  # for this notebook, too
environment = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(sys.path),
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "",
    **({"GLOO_SOCKET_IFNAME": network} if network else {}),
}
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",  # or just: torchrun ...
    "--rdzv-backend",
    "c10d",
    "--rdzv-endpoint",
    "127.0.0.1:0",
]  # they meet here, at any port that is free


def launch(script, *words, launcher=TORCHRUN):
    """Runs a script in two processes -> the lines that they print, sorted, for they come as they come."""
    done = subprocess.run(
        [*launcher, str(folder / script), *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ours = [line for line in done.stdout.splitlines() if len(line) > 2 and "peer ranks" not in line]
    return sorted(
        ours
    )  # the others are Gloo's, which torch 2.10 lets speak, both processes at once

# %%
_ = (folder / "hello.py").write_text(
    """
import torch
import torch.distributed as dist

dist.init_process_group("gloo")  # the words are sent by gloo, on the CPU; between graphics cards NCCL does it
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
# Both ran the same script. Both had their own numbers, and both have the sum.
#
# ## The loop, in several processes
#
# Lesson 11's loop asks an `Alone` for all that several processes do otherwise. So only that has to be written again: the same names, and behind them the others are asked.
#
# | name | when the loop asks | one process | several |
# |---|---|---|---|
# | `most` | after each step: how late is it, was Ctrl-C pressed? | its own answer | the largest |
# | `mean` | when losses are fetched | as they are | their mean |
# | `gather` | when the dice are saved | a list of one | everybody's |
# | `once` | folder, log, checkpoint | does it | the first one does it, all hear how it went |
# | `share` | before the first step: what computes the loss? | the model | the model, wrapped in DDP |
# | `apart` | around all but the last part of a step | nothing | no exchange inside |
# | `evaluate` | for an exact validation loss | plainly | each its share of the windows |
| `clip`, `gathered`, `load` | at a step's end, when saving, when loading | plainly | plainly with DDP; with FSDP parts are joined, or cut |
#
# Which part of the batch is whose, the loop knows itself: of `batch_size` × `size` windows, process `rank` takes the `rank`-th `batch_size`.

# %%
#| export
import atexit
import os
from contextlib import contextmanager
from copy import deepcopy

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from chargpt_lib.checkpoints import load_checkpoint
from chargpt_lib.devices import pick_device
from chargpt_lib.recipe import Alone
from chargpt_lib.trainer import Run, follow, train
from chargpt_lib.training import nats_per_character

# %% [markdown]
# `once` is worth a second look. One process creates the folder, or writes the checkpoint. If the disk is full, only that one notices. If it raised its error and the others went on, they would wait at the next exchange for somebody who never comes. So what came out, result or error, is told to all, and all raise it. In the same way `most` makes one decision out of many: if Ctrl-C was pressed in any process, all stop after this step; and the time that counts is the slowest clock's.
#
# What Python has to say goes over a line of its own, `line`: a graphics card does not have to finish anything for it. At the end somebody has to hang up: gloo's threads, if they still run when Python ends, can turn the end into an abort.

# %%
#| export
def hang_up(group):
    if dist.is_initialized():
        dist.destroy_process_group(group)

# %%
#| export
class Together(Alone):
    """Several processes with a whole model each; in `backward` gradients become means (DDP, Li et al., 2020)."""

    def __init__(self, accelerator):
        self.accelerator = accelerator
        self.rank, self.size = accelerator.process_index, accelerator.num_processes
        self.line = dist.new_group(
            backend="gloo"
        )  # for Python's own words: no graphics card has to wait for them
        atexit.register(hang_up, None if accelerator.device.type == "cpu" else self.line)

    def most(self, *numbers):
        numbers = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self.line)
        return numbers.tolist()

    def mean(self, numbers):
        dist.all_reduce(numbers)
        return numbers / self.size

    def gather(self, value):
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self.line)
        return values

    def once(self, do):
        said = [None, None]  # what came out, and what went wrong
        if self.rank == 0:
            try:
                said[0] = do()
            except Exception as error:
                said[1] = error
        dist.broadcast_object_list(said, src=0, group=self.line)
        if said[1] is not None:
            raise said[1]
        return said[0]

    def share(self, model):
        return self.accelerator.prepare_model(model)

    def apart(self, model):
        return self.accelerator.no_sync(model)

    def evaluate(self, model, ids):
        return evaluate_in_shares(model, ids, self)

# %%
_ = (folder / "once.py").write_text(
    """
from accelerate import Accelerator
from chargpt_lib.distributed import Together

team = Together(Accelerator(cpu=True))
try:
    team.once(lambda: 1 / 0)
except ZeroDivisionError as error:
    print(f"process {team.rank} has heard: {error}\\n", end="")
""".lstrip(),
    encoding="utf-8",
)
print(*launch("once.py"), sep="\n")

# %% [markdown]
# Only process 0 has divided.
#
# The exact validation loss is a sum over windows, so each process takes its share of them, and the sums are added. All make as many calls of the model, even if some windows are then computed twice and counted once: with FSDP, below, a call is something in which all must take part. With 31 windows and 3 processes, each takes 11, from window 0, 11 and 20 on; the last one leaves out its first two.

# %%
#| export
def evaluate_in_shares(model, ids, team):
    """`evaluate`, each process its share of the windows. All make as many calls of the model: shards need that."""
    T, targets = model.block_size, len(ids) - 1
    windows = targets // T
    most = -(-windows // team.size)
    first = min(
        team.rank * most, windows - most
    )  # the last ones begin early, and skip what others count
    skipped, total = team.rank * most - first, torch.zeros(1, dtype=torch.float64)
    if windows:
        nats = nats_per_character(model, ids[first * T : (first + most) * T + 1])
        total += nats[skipped * T :].double().sum()
    if targets % T or not windows:
        rest = nats_per_character(model, ids[windows * T :]).double().sum()
        total += rest if team.rank == 0 else 0
    dist.all_reduce(total, group=team.line)
    return total.item() / targets

# %% [markdown]
# Do the shares make the whole? Here the processes are played one after the other, with what each one adds written down instead of sent.

# %%
model, text, told = new_model().eval(), ids[:1000], []
with mock.patch.object(dist, "all_reduce", lambda total, group: told.append(total.item())):
    for rank in range(3):
        evaluate_in_shares(model, text, mock.Mock(rank=rank, size=3, line=None))
loss = evaluate(model, text)
far = abs(sum(told) / 999 - loss)
print(
    "nats:",
    *(f"{share:.0f}" for share in told),
    f"  together, for each of 999 targets: {sum(told) / 999:.3f}",
)
print(f"`evaluate`: {loss:.3f}   the difference ≈ {far:.0e} (below 1e-9: {far < 1e-9})")
assert far < 1e-9

# %% [markdown]
# ## What does not fit
#
# With DDP each device has everything. How much is everything? For each parameter 4 bytes for the weight, 4 for its gradient, 8 for AdamW's two moments (activations come on top; lesson 10 has a remedy for them). A T4 has 16 gigabytes, so a billion parameters, at most. (PyTorch's DDP takes 4 more, unless it is told otherwise: its buckets hold the gradients once more.)
#
# But why should eight devices keep the same moments eight times? ZeRO (Rajbhandari et al., 2020, [arXiv:1910.02054](https://arxiv.org/abs/1910.02054)) gives each device the care of one $n$-th of the parameters: first of the moments only (stage 1), then of the gradients, too (stage 2), then of the weights themselves (stage 3).

# %%
def bytes_per_parameter(n, stage):
    """What each of n devices keeps of a parameter: weight, gradient and two moments, in float32."""
    return (
        4 / (n if stage >= 3 else 1) + 4 / (n if stage >= 2 else 1) + 8 / (n if stage >= 1 else 1)
    )


print("devices    " + "".join(f"{n:6}" for n in (1, 2, 4, 8)))
for stage, name in enumerate(("DDP", "stage 1", "stage 2", "stage 3")):
    print(f"{name:11}" + "".join(f"{bytes_per_parameter(n, stage):6.1f}" for n in (1, 2, 4, 8)))

# %%
fig, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
for stage, (name, colour, style) in enumerate(
    (
        ("DDP", "#D55E00", "s--"),
        ("stage 1: moments in parts", "#E69F00", "v:"),
        ("stage 2: gradients, too", "#009E73", "^-."),
        ("stage 3: weights, too (FSDP)", "#0072B2", "o-"),
    )
):
    most = [16e9 / bytes_per_parameter(n, stage) / 1e9 for n in range(1, 9)]
    ax.plot(range(1, 9), most, style, color=colour, label=name)
for name, parameters in (("GPT-2, 124 million", 0.124), ("GPT-2 XL, 1.56 billion", 1.558)):
    ax.axhline(parameters, color="#999999", linewidth=1)
    ax.text(8.15, parameters + 0.08, name, fontsize=8)
ax.set(
    xlabel="devices",
    ylabel="billions of parameters",
    xlim=(0.8, 9.6),
    title="16 gigabytes each, activations not counted",
)
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
# Another recipe for mixed precision than lesson 10's keeps the weights themselves in 16 bits; large models are trained that way. A parameter then has 2 bytes for its weight, in 16 bits, 2 for its gradient, and 12 that the optimizer keeps: the weight once more, in float32, and two moments. Stage 1 cuts the 12 into as many parts as there are cards, stage 2 the gradient, too, stage 3 the weight of 2 bytes, too. Stage 0 is DDP and cuts nothing: one card, or none is enough. A part need not be a whole number of bytes. Each card has `memory` bytes, and may be exactly full. (Stay with whole numbers: floats round.)
#
# How many cards are needed at least? If no number of cards is enough, return 0. A billion parameters, cards of six billion bytes, stage 1: four bytes a parameter are on every card, and two are left for its part of the twelve. So 6 cards are needed. With stage 0 the answer is 0.

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
# Stage 3 is what PyTorch calls FSDP, *fully sharded data parallel* (Zhao et al., 2023, [arXiv:2304.11277](https://arxiv.org/abs/2304.11277)). How can a device compute with weights that it does not have? It borrows them. Before a block is computed, its parts are gathered from everybody; after it, what is not one's own is thrown away. The same on the way back. Then the gradients: everybody has them whole, for its own windows; added up and cut, each keeps the part it cares for. An all-gather is half an all-reduce, and so is this reduce-scatter (the two halves of the ring, above). So three halves are sent instead of two: half as much again as with DDP, against an $n$-th of the memory.
#
# What stands around the blocks, the embeddings and the last norm, is gathered once, and stays whole until the way back is over. Here is what one of four devices has of each weight, while the blocks named below the picture are computed.

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
    xlabel="the block at work, forward (>) and on the way back (<)",
)
ax.set_yticklabels([*(f"block {block}" for block in range(4)), "around them"])
ax.set_xticklabels([f"{'>' if t < 4 else '<'} {block}" for t, block in enumerate(way)])
show(
    fig,
    "Five rows by eight moments. Each block is whole at two moments, when it is computed and on the way back; "
    "the last row, what stands around the blocks, is whole all the time.",
)

# %% [markdown]## Every process must take part in every gathering. If one calls the model once more than the others, for an evaluation say, it waits for the others. (Now you know why the shares above were padded.)
#
# The tool is `fully_shard`, of PyTorch. It cuts each parameter along its first dimension, and what is left is a `DTensor`: it knows the whole's shape, and holds a part. We cut each block by itself, so that one at a time is whole, or two, where a card fetches the next one early. (Accelerate calls the same function if you ask it for `fsdp_version=2`, but only on graphics cards, so it could not be tried out here.)

# %%
#| export
def shard(whole, like):
    """A tensor that the first process has whole, cut as the other one is."""
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)


def joined(value, keep):
    """What the processes have parts of, whole; only those keep it that will write it."""
    value = value.full_tensor() if isinstance(value, DTensor) else value
    return value.cpu() if keep else None

# %% [markdown]
# What is saved must be whole: a checkpoint should be readable by `load_model`, by another program, on one card. The weights come and go through `whole`, a copy of the model that each process has in the computer's own memory, and the moments one after the other; only the first process keeps those, because it writes. (That memory is the price: 4 bytes a parameter for each process, and 12 while a run is loaded.)

# %%
#| export
class Sharded(Together):
    """Several processes with a part of each parameter, gradient and moment (FSDP, Zhao et al., 2023)."""

    def __init__(self, accelerator, model):
        super().__init__(accelerator)
        self.whole = deepcopy(model).cpu()  # whole weights come and go through this one
        mesh = init_device_mesh(accelerator.device.type, (self.size,))
        for part in [*getattr(model, "blocks", ()), model]:
            fully_shard(part, mesh=mesh)
        self.fill(model)

    @torch.no_grad()
    def fill(self, model):
        model.reshard()  # after an evaluation the outermost part is still whole
        for own, whole in zip(model.parameters(), self.whole.parameters()):
            own.copy_(shard(whole, own))

    def share(self, model):
        return model

    @contextmanager
    def apart(self, model):
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)

    def clip(self, parameters, most):
        return super().clip(parameters, most).full_tensor()

    @torch.no_grad()
    def gathered(self, run):
        run.model.reshard()
        for own, whole in zip(run.model.parameters(), self.whole.parameters()):
            whole.copy_(own.full_tensor())
        state, first = run.optimizer.state_dict(), self.rank == 0
        moments = {
            i: {name: joined(x, first) for name, x in kept.items()}
            for i, kept in state["state"].items()
        }
        return self.whole, {**state, "state": moments}

    def load(self, run, which="last"):
        state = load_checkpoint(run.config.out, self.whole, run.tokenizer, which)
        self.fill(run.model)
        parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
        for i, kept in state["optimizer"]["state"].items():
            kept.update(
                {name: shard(value, parameters[i]) for name, value in kept.items() if value.dim()}
            )
        return state

# %% [markdown]
# Is anything cut?

# %%
_ = (folder / "parts.py").write_text(
    """
import torch
from accelerate import Accelerator
from chargpt_lib.distributed import Sharded
from chargpt_lib.gpt import GPT, GPTConfig

model = GPT(GPTConfig(64, block_size=64, n_layer=4, n_head=4, n_embd=128))
team, whole = Sharded(Accelerator(cpu=True), model), sum(p.numel() for p in model.parameters())
own = sum(p.to_local().numel() for p in model.parameters())
print(f"process {team.rank} keeps {own:,} of {whole:,} weights\\n", end="")
""".lstrip(),
    encoding="utf-8",
)
print(*launch("parts.py"), sep="\n")

# %% [markdown]
# Now the function itself. Accelerate finds out what was started and how, chooses the device of this process, opens the lines between them, and wraps the model in DDP.

# %%
#| export
def train_distributed(model, corpus_or_ids, config, tokenizer=None, resume=False, fsdp=False):
    """`train` in all processes that a launcher has started, one for each device; started plainly, it is `train`.

    Every process calls it with the same arguments, and gets the same dict. config.batch_size is what one process reads
    at a time. fsdp: cut weights, gradients and moments into as many parts as there are processes (FSDP); the model is
    then left in parts, and whole only in the checkpoints in out. ImportError without Accelerate.
    """
    try:
        from accelerate import Accelerator
    except ImportError:
        raise ImportError(
            "several devices need Hugging Face Accelerate: pip install accelerate"
        ) from None
    device, size = pick_device(), int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return train(model.to(device), corpus_or_ids, config, tokenizer, resume)
    if fsdp and not config.out:
        raise ValueError(
            "with fsdp the model is left in parts, and only a checkpoint has it whole: give a folder, out"
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if device.type == "cuda" and here > torch.cuda.device_count():
        raise ValueError(
            f"{here} processes, and {torch.cuda.device_count()} graphics card(s): start one for each card"
        )
    accelerator = Accelerator(
        cpu=device.type != "cuda", mixed_precision="no"
    )  # the run has a precision of its own
    team = Sharded(accelerator, model) if fsdp else Together(accelerator)
    run = Run(
        model if fsdp else model.to(accelerator.device), corpus_or_ids, config, tokenizer, team
    )
    return follow(run, resume) | {"floor": getattr(corpus_or_ids, "val_floor", None)}

# %% [markdown]
# ## Two are one with twice the batch
#
# Here is a script such as you would write yourself. (There is no validation in it, to save time; each step gets a row of the log.) It can be started by a launcher, or plainly, or be imported. Each process runs all of it, and nothing in it says how many there are.

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
    for words in sys.argv[1:]:
        job(**json.loads(words))
""")

# %% [markdown]
# One process with batches of 32, here in the notebook. Then two processes with 16 each, as copies and in parts. (And a run with dropout, for later. All three in one launch, because starting Python and PyTorch takes longer than they do.)

# %% tags=["nbval-ignore-output"]
def words(name, **changes):
    return json.dumps({"out": str(folder / name), **changes})


sys.path.insert(0, str(folder))
from job import job

job(str(folder / "one"), batch_size=32)
accident = {"dropout": 0.1, "steps": 120}
lines = launch("job.py", words("copies"), words("parts", fsdp=True), words("whole", **accident))
losses = {
    name: torch.tensor([row["train_loss"] for row in read_log(folder / name)])
    for name in ("one", "copies", "parts")
}

# %%
far = {name: (losses[name] - losses["one"]).abs().max().item() for name in ("copies", "parts")}
for name in ("copies", "parts"):
    print(
        f"{name}: {len(losses[name])} losses, at most ≈ {far[name]:.0e} off (below 1e-5: {far[name] < 1e-5})"
    )
first, last = losses["one"][0].item(), losses["one"][-1].item()
print(f"one process: from ≈ {first:.2f} to ≈ {last:.2f} nats per character")
assert far["copies"] < 1e-5
assert far["parts"] < 1e-5
assert first - last > 0.5

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained")
axes[0].plot(losses["one"], color="#BBBBBB", linewidth=5, label="one process, batches of 32")
for name, colour, style in (("copies", "#D55E00", "-"), ("parts", "#0072B2", "--")):
    label = f"two processes, 16 each, {'DDP' if name == 'copies' else 'FSDP'}"
    axes[0].plot(losses[name], style, color=colour, label=label)
    axes[1].plot(
        1e6 * (losses[name] - losses["one"]).abs(),
        "s" if name == "copies" else "o",
        markersize=6 if name == "copies" else 3,
        markerfacecolor="none" if name == "copies" else colour,
        color=colour,
    )
axes[0].set(xlabel="step", ylabel="nats per character", title="training loss")
axes[1].set(
    xlabel="step",
    ylabel="millionths of a nat",
    ylim=(-0.03, None),
    title="distance from one process",
)
axes[0].legend(frameon=False, fontsize=8)
show(
    fig,
    "Left: three loss curves that lie on each other. Right: their distances, below ten millionths of a nat "
    "everywhere.",
)

# %% [markdown]
# The same, but for rounding: 16 + 16 numbers are added in another order than 32. In sixty steps that stays in the last digits. (The distances on the right lie on lines, mostly 0.24 millionths from each other: between 2 and 4 that is how far a float32 is from the next.) In longer runs, and at higher rates, it grows, because AdamW divides small numbers by small ones; so do not ask for these digits after a thousand steps.
#
# So `batch_size` is what one process reads. Two processes with 16 are one with 32: the steps become fewer for the same epochs, and the best learning rate is that of the larger batch.
#
# ### Exercise: the same step on other cards
# ★★ · 8 minutes · Who takes more cards and changes nothing else has a larger batch, at a rate that was meant for the old one.
#
# A run did well with `windows` windows a step. Now it shall be trained anew with `ranks` cards, each of which has memory for at most `fits` windows at a time. Find a `batch_size` (what one process reads at a time) and a `grad_accum` (so many batches of each process make one step) with which a step has exactly `windows` windows again, as many on each card. Of all that fit, take the pair with the largest batches. If the windows cannot be dealt out evenly to the cards, return an empty list.
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
# And what they saved? One process loads all three.

# %%
models = [load_model(folder / name)[0].state_dict() for name in ("one", "copies", "parts")]
far = max((a[name] - b[name]).abs().max().item() for a in models for b in models for name in a)
print(f"no weight is further than ≈ {far:.0e} from that of another run (below 1e-4: {far < 1e-4})")
assert far < 1e-4

# %% [markdown]
# ## What the exchange costs
#
# What is sent depends on the parameters only. What is computed depends on parameters times characters. So take a model and ever larger batches, and measure forward and `backward`, with the exchange and without it (that is what `apart` is for).

# %%
_ = (folder / "cost.py").write_text(
    """
import time, torch
from contextlib import nullcontext
from statistics import median
from accelerate import Accelerator
from chargpt_lib.distributed import Together
from chargpt_lib.gpt import GPT, GPTConfig

team = Together(Accelerator(cpu=True))
model = team.share(GPT(GPTConfig(64, block_size=64, n_layer=4, n_head=4, n_embd=128)))
""".lstrip(),
    encoding="utf-8",
)

# %%
with (folder / "cost.py").open("a", encoding="utf-8") as file:
    _ = file.write("""
def seconds(size, context):
    began, x = time.perf_counter(), torch.zeros(size, 64, dtype=torch.int64)
    with context(model):
        model(x, x)[1].backward()
    return team.most(time.perf_counter() - began)[0]  # the slower one's

for size in (1, 4, 16, 64):
    pairs = [(seconds(size, team.apart), seconds(size, lambda model: nullcontext())) for _ in range(8)]
    if team.rank == 0:
        print(size, *map(median, zip(*pairs)))
del model  # before Python ends, as it holds the line
""")

# %%
cost = sorted([float(number) for number in line.split()] for line in launch("cost.py"))
for size, without, with_it in cost:
    print(
        f"{size:3.0f} windows each: ≈ {1000 * without:.0f} ms without, ≈ {1000 * with_it:.0f} ms with the exchange"
    )

# %%
assert [row[0] for row in cost] == [1, 4, 16, 64]
P = GPT(GPTConfig(64, block_size=64, n_layer=4, n_head=4, n_embd=128)).num_params()
half = (2 - 1) / 2 * 4 * P / 1e6  # megabytes of half an all-reduce between two
print(
    f"{P:,} parameters; sent by each, in megabytes: {2 * half:.1f} by DDP, {3 * half:.1f} by FSDP"
)

# %% [markdown]
# In each line the same 3.2 megabytes are sent; in the last, 64 times as much is computed as in the first. So the exchange weighs less and less. (Where the second time is the shorter one, the clock's own scatter was larger than the exchange.) (The exchange cannot hide well, either: after its first step DDP makes two buckets of these gradients, a small one, and one that is complete at the very end.) Here messages go through the computer's memory, and computing is slow; with graphics cards both are other numbers. The rule stays: whoever waits for messages should compute more between them, with a larger batch or with more parts of one.
#
# ## One exchange a step
#
# Count them: DDP allows a function of ours to send its buckets. Four batches make one step, with `apart` around the first three, and without.

# %%
_ = (folder / "count.py").write_text(
    """
import torch, torch.distributed as dist
from accelerate import Accelerator
from chargpt_lib.distributed import Together
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

torch.manual_seed(1337)
team, sent = Together(Accelerator(cpu=True)), []
model = team.share(torch.nn.Linear(3, 3))
model.register_comm_hook(None, lambda state, bucket: (sent.append(1), allreduce_hook(state, bucket))[1])
""".lstrip(),
    encoding="utf-8",
)

# %%
with (folder / "count.py").open("a", encoding="utf-8") as file:
    _ = file.write("""
from contextlib import nullcontext

for apart in (team.apart, lambda model: nullcontext()):
    model.zero_grad()
    torch.manual_seed(team.rank)
    for left in (3, 2, 1, 0):
        with apart(model) if left else nullcontext():
            model(torch.randn(5, 3)).square().mean().div(4).backward()
    number = model.module.bias.grad[0].item()
    print(f"{len(sent)} exchange(s); process {team.rank} has the gradient {number:.9f}\\n", end="")
    sent.clear()
del model
""")

# %%
lines = launch("count.py")
print(*(line.replace("gradient ", "gradient ≈ ") for line in lines), sep="\n")
numbers = [float(line.split()[-1]) for line in lines]
far = max(numbers) - min(numbers)
print(f"largest difference ≈ {far:.0e} (below 1e-6: {far < 1e-6})")
assert far < 1e-6

# %% [markdown]
# The same gradient, but for rounding, for a quarter of the exchanges. (With FSDP less is saved, for the weights are gathered for each part; and there is a price: gradients that are not exchanged yet stay whole, 4 bytes for each parameter on each device.)
#
# ## Ctrl-C, and on
#
# With dropout this time, so that the dice of each process matter. The run of 120 steps without an accident, `whole`, was made above. Now another one, to whose launcher we send what Ctrl-C sends, as soon as its log has a line. The launcher passes it on, and kills after 30 seconds who has not ended by then; each process only makes a note; after the step they agree; the first one saves.

# %%
process = subprocess.Popen(
    [*TORCHRUN, str(folder / "job.py"), words("accident", **accident)],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
)
log = folder / "accident" / "log.jsonl"
while not (log.exists() and log.read_text()) and process.poll() is None:
    time.sleep(0.01)
process.send_signal(signal.SIGINT)
said = process.communicate()[0].replace(str(folder), "...").replace("after step ", "after step ≈ ")
print(*[line for line in said.splitlines() if "interrupted" in line], sep="\n")

# %%
assert said.count("interrupted after step") == 1, "one process speaks for all"
made = read_log(folder / "accident")[-1]["step"]
print(f"≈ {made} of 120 steps are made (1 at least, and not all: {1 <= made < 120})")

# %% tags=["nbval-ignore-output"]
lines = launch("job.py", words("accident", resume=True, **accident))

# %%
losses = [[row["train_loss"] for row in read_log(folder / name)] for name in ("whole", "accident")]
models = [load_model(folder / name)[0].state_dict() for name in ("whole", "accident")]
print("losses that differ:", sum(a != b for a, b in zip(*losses)), "of", len(losses[1]))
other = sum((models[0][name] != models[1][name]).sum().item() for name in models[0])
print("weights that differ, in the last bit or more:", other)
assert losses[0] == losses[1] and other == 0

# %% [markdown]
# And with another number of processes? Each has dice of its own, and the windows of a step are others. So the run would be another one, and it says so, before it begins:

# %%
try:
    job(str(folder / "accident"), resume=True, **accident)
except ValueError as error:
    print(str(error).replace(str(folder), "..."))

# %% [markdown]
# (Its weights can be the beginning of a new run all the same: `load_model`.)
#
# ## How to start it
#
# **`torchrun`** comes with PyTorch. On a computer with two cards: `torchrun --nproc-per-node 2 job.py '{"out": "run"}'`.
#
# **`accelerate launch`** does the same and keeps your answers to `accelerate config`: `accelerate launch --multi_gpu --num_processes 2 job.py '{"out": "run"}'`. The `--multi_gpu` is right on the CPU, too: what you would expect there, `--cpu --num_processes 2`, starts *one* process, and says nothing.

# %% tags=["nbval-ignore-output"]
ACCELERATE = [
    sys.executable,
    "-m",
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_processes",
    "2",
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
    "--main_process_port",
    "0",
]
lines = launch("job.py", words("by accelerate"), launcher=ACCELERATE)

# %%
losses = [
    [row["train_loss"] for row in read_log(folder / name)] for name in ("copies", "by accelerate")
]
print(
    "losses that differ from those under torchrun:",
    sum(a != b for a, b in zip(*losses)),
    "of",
    len(losses[1]),
)
assert losses[0] == losses[1]

# %% [markdown]
# **`notebook_launcher`** starts the processes from a notebook, out of the running Python: it *forks*, and each process begins as a copy of this one. So it works on Linux (and so on Kaggle and Colab). A copy of a Python that has used a graphics card is of no use, the card does not know it. On Kaggle with two T4s, then, in a notebook that was just restarted:
#
#     from accelerate import notebook_launcher
#     from job import job                          # or a function in the notebook, that makes model and corpus inside
#     notebook_launcher(job, ("run",), num_processes=2)
#
# What must not have happened before in that notebook: anything on the card (`.to("cuda")`, and our `pick_device()`, so the setup cell, too: run that once, restart, and begin with these lines), any `backward`, on the CPU too (where there is a card, it starts threads that a copy does not have), any `Accelerator()`. If one of these did, restart the kernel. Nothing comes back but what is written: so give `out`, and load the model from there. The T4's 16 bits are float16, which `precision="auto"` finds out. (All that about the T4s follows from the documentation and the source; not measured yet.)
#
# Without a card it is less strict. (Accelerate speaks of CUDA all the same.) But on Colab with fewer than two cards accelerate starts no second process, whatever we ask for; so there the next cell does nothing.

# %% tags=["nbval-ignore-output"]
on_colab = "google.colab" in str(get_ipython())  # accelerate asks so, too
forked = sys.platform == "linux" and not torch.cuda.is_available() and not on_colab
if forked:
    from accelerate import notebook_launcher

    os.environ.update(GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    notebook_launcher(job, (str(folder / "by notebook"),), num_processes=2, use_port=str(port))

# %%
name = "by notebook" if forked else "copies"
losses = [[row["train_loss"] for row in read_log(folder / name)] for name in ("copies", name)]
print(
    "losses that differ from those under torchrun:",
    sum(a != b for a, b in zip(*losses)),
    "of",
    len(losses[1]),
)
assert losses[0] == losses[1]

# %% [markdown]
# With a text that is larger than the memory, give the shards of [the page before](12_data_on_disk.ipynb) for the corpus: each process reads only its own windows, and the pages of the disk on which they lie.
#
# ## Mistakes people make
#
# - **The same windows everywhere.** Then two cards compute one gradient twice. The loss is that of a single process with the small batch, and nobody notices, except by comparing.
# - **The same dice of dropout everywhere,** or other first weights.
# - **`batch_size` taken for the whole.** With eight cards it is eight times as large. The rate was meant for the other.
# - **`if rank == 0:` around something in which all must take part**: an evaluation with FSDP, gathering the weights, a barrier. One waits, until a timeout ends it: half an hour later with gloo, ten minutes with NCCL.
# - **An error in one process, caught there.** The others wait.
# - **All processes write.** To the same file, at the same time.
# - **A mean of unequal parts**, above all with texts of different lengths.
# - **Saving DDP's own `state_dict`.** All names then begin with `module.`
# - **Comparing speeds with the same `batch_size`.** Characters a second can be compared, steps a second cannot.
# - **FSDP for a model that fits.** It talks half as much again, and more often.
#
# How far you are:

# %%
progress()

# %% [markdown]
# ## What you have
#
# `train_distributed`, in `chargpt_lib/distributed.py`: the same call and the same checkpoints as `train`, on as many devices as the launcher has processes for.
