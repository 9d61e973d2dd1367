# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10 · The recipe: what goes into a step
#
# > What goes into a training step: schedule, clipping, precision, accumulation, compile.
#
# You will build: every part of a serious training step, one at a time. The parts are the order of the windows, the learning-rate schedule, batches larger than the memory, mixed precision, gradient checkpointing, and an interrupt that waits for the end of a step.
# You need lessons 02 and 06. On two CPU cores the page takes less than half a minute. [Lesson 11](11_training_in_earnest.ipynb) puts the parts together, runs with and without them, and opens a clinic.
#
# Lesson 02's `fit` trained all our models in one function. It served well for runs of minutes. A run of two days has other troubles: the memory is too small, the night is too short, and at four in the morning a loss is `nan`.

# %%
import signal
import warnings
from unittest import mock

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from chargpt_lib.data import CharTokenizer, get_batch, load_corpus
from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.plots import show

# %%
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus = load_corpus(CORPUS)
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
ids, V = tokenizer.encode(corpus.train), tokenizer.vocab_size

# %% [markdown]
# ## All settings in one place
#
# A training run has two dozen settings that somebody chose. We want to read them all in one place, and to hear of a wrong one at once, by its name, and not after the first hour. So `TrainConfig` is one dataclass, and checks itself when it is made. (`check_train_config` in `chargpt_lib/checks.py` is one `if` after the other.)

# %%
#| export
import signal
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from math import cos, inf, pi
from threading import current_thread, main_thread
from typing import Literal

import torch
from torch.utils.checkpoint import checkpoint

from chargpt_lib.checks import (
    check_data_tokenizer,
    check_ids,
    check_needs,
    check_train_config,
    check_trainable,
)
from chargpt_lib.data import CharTokenizer, Corpus
from chargpt_lib.training import param_groups

# %%
#| export
SCHEDULES = ("cosine", "wsd")  # each with its formula in get_lr

# %% [markdown]
# Many of the settings have nanoGPT's names. You need not understand them all yet: each comment names the section that explains its group. Two words in advance. `betas` set how long AdamW's two running means last: at each step it keeps 0.9 of the mean gradient, and 0.99 of the mean square. **Activations** are the intermediate results of the forward pass, which `backward` needs.

# %%
#| export
@dataclass
class TrainConfig:
    """The settings of a training run; `chargpt train --help` explains each field.

    The first limit that is reached ends the run: steps, epochs, time_budget (seconds) or patience. Without any of the
    first three the limit is 2000 steps. A resumed run counts from its beginning.
    """

    # The length of the run: "Epochs" and "Learning-rate schedules" here, lesson 11 for the time budget and patience.
    steps: int | None = None  # optimizer steps
    epochs: float | None = None  # passes over the training text
    time_budget: float | None = None  # seconds, evaluations included; the schedule is fitted to it
    patience: int | None = None  # evaluations in a row without a new best loss that end the run

    # The batch of a step, batch_size * grad_accum windows: "Gradient accumulation".
    batch_size: int = 32  # windows per micro-batch
    grad_accum: int = 1  # micro-batches per optimizer step

    # The learning rate, and what wsd is: "Learning-rate schedules".
    learning_rate: float = 1e-3  # the peak
    min_lr: float = 0.0  # where the schedule ends
    warmup: float = 0.05  # fraction of the run with rising learning rate
    schedule: Literal[*SCHEDULES] = "cosine"  # wsd: warmup, stable, decay
    decay: float = 0.2  # fraction of the run in which wsd decays, at the end; 0: no decay

    # The optimizer: "Gradient clipping" and "Weight decay". Muon is lesson 16's.
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: AdamW, but for the matrices of the blocks
    weight_decay: float = 0.1  # for parameters with >= 2 dimensions, embeddings included
    betas: tuple[float, float] = (0.9, 0.99)  # AdamW betas
    grad_clip: float = 1.0  # largest norm of the gradient; 0: no clipping
    seed: int = 1337  # random seed for window order and dropout

    # The device: "Mixed precision" (fp16, bf16), "torch.compile" and "Gradient checkpointing".
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"  # auto: the device's fastest
    compile: bool = False  # use torch.compile, where it works
    gradient_checkpointing: bool = False  # recompute activations in backward, to save memory

    # Measuring and saving: lesson 11.
    eval_interval: int = 250  # steps between two evaluations, and rows of the log
    eval_batches: int = 0  # random batches per evaluation; 0: exact loss on the whole text
    out: str | None = None  # folder for checkpoints and log.jsonl
    checkpoint_interval: int = 1000  # steps between two checkpoints
    tensorboard: bool = False  # write a log for TensorBoard, too, into out

    def __post_init__(self):
        check_train_config(self, SCHEDULES)
        if self.out is not None:
            self.out = str(self.out)
        if self.steps is None and self.epochs is None and self.time_budget is None:
            self.steps = 2000

# %%
print(TrainConfig(epochs=3, schedule="wsd"))
for nonsense in (
    {"learning_rate": 0},
    {"warmup": 100},
    {"epochs": float("inf")},
    {"schedule": "linear"},
):
    try:
        TrainConfig(**nonsense)
    except ValueError as error:
        print(error)

# %% [markdown]
# ## Epochs: sampling without replacement
#
# So far each batch drew its windows at random. Suppose you draw just as many windows as the text has, $n$ of them. **Predict:** what share of the text's windows have you never seen?

# %%
n = 10_000
drawn = torch.randint(n, (n,), generator=torch.Generator().manual_seed(1337))
print(f"never drawn: {1 - len(drawn.unique()) / n:.0%}")

# %% [markdown]
# One draw misses a window with probability $1 - 1/n$; all $n$ draws miss it with $(1 - 1/n)^n \to e^{-1} = 0.37$. Other windows came twice or three times instead. So shuffle the windows, and go through the pile: one pass over the text is an **epoch**. There is one more trap. If every epoch cut the text at the same places, the model would never predict the characters just after a cut from those just before it. So every epoch begins at another place. Each epoch uses one window less than fits into the text, so that its first window can begin at different places; in a long text, one window is nothing.

# %%
#| export
def count_windows(size, block_size):
    """The number of windows of block_size + 1 ids that an epoch takes from a text of `size` ids.

    Raises: ValueError where the text is too short for one window.
    """
    if size <= block_size:
        raise ValueError(
            f"the text has {size} ids, but a window needs block_size + 1 = {block_size + 1}: use a "
            f"longer text, or block_size <= {max(size - 1, 0)}"
        )
    # One window fewer than there is room for: the epochs begin at different places.
    return max(size // block_size - 1, 1)

# %% [markdown]
# Each epoch gets its order from its own generator, and the generator's seed is mixed from two numbers: the seed of the run, and the number of the epoch. Torch's generator uses the lowest 32 bits of a seed. The odd factor in the code spreads the runs' seeds over all 32-bit numbers, so that two neighbouring seeds do not get the same orders.

# %%
#| export
def epoch_generator(seed, epoch):
    """The random generator of an epoch; the same seed and epoch give the same generator on any machine."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**32)

# %%
#| export
class ShuffledWindows:
    """The windows of a text in shuffled order, each once per epoch; every epoch cuts the text at other places."""

    def __init__(self, ids, block_size, seed):
        self.count = count_windows(len(ids), block_size)
        self.ids = ids
        self.block_size = block_size
        self.seed = seed
        # All windows of the text, each with the target of its last character: a view that copies nothing.
        self.all = ids.unfold(0, block_size + 1, 1)  # (N - T, T + 1)
        self.epoch = None  # the epoch whose order `starts` is
        self.starts = None

    def order(self, epoch):
        """The starts of an epoch's windows, in the order in which the run reads them: (count,)."""
        if epoch != self.epoch:
            generator = epoch_generator(self.seed, epoch)
            room = len(self.ids) - self.count * self.block_size
            first = torch.randint(room, (), generator=generator)
            shuffled = torch.randperm(self.count, generator=generator)
            self.starts = first + self.block_size * shuffled
            self.epoch = epoch
        return self.starts

    def batch(self, seen, size):
        """The windows that follow the first `seen` ones -> x, y, both (size, T), on the device of the ids."""
        epoch, at = divmod(seen, self.count)
        starts = self.order(epoch)[at : at + size]
        # A batch at the end of an epoch takes the windows that it lacks from the next epoch.
        while len(starts) < size:
            epoch += 1
            starts = torch.cat([starts, self.order(epoch)[: size - len(starts)]])
        windows = self.all[starts.to(self.ids.device, non_blocking=True)]  # (size, T + 1)
        return windows[:, :-1], windows[:, 1:]

# %%
windows = ShuffledWindows(torch.arange(103), block_size=16, seed=1337)
fig, ax = plt.subplots(figsize=(8, 1.9), layout="constrained")
for epoch in range(3):
    for place, start in enumerate(windows.order(epoch).tolist()):
        ax.barh(
            epoch, 16, left=start, color=("#56B4E9", "#E69F00", "#009E73")[epoch], edgecolor="black"
        )
        ax.text(start + 8, epoch, place + 1, ha="center", va="center")
ax.set(
    xlabel="character of the text",
    ylabel="epoch",
    yticks=range(3),
    yticklabels=[1, 2, 3],
    xlim=(0, 103),
)
ax.set_title("Windows of 16 characters in a text of 103, numbered in reading order", fontsize=10)
show(
    fig,
    "Three rows, one per epoch, of five bars laid end to end. The numbers of the bars have a different order in each "
    "row, and each row begins at a different character.",
)

# %%
seen = torch.cat([windows.batch(k, 1)[0] for k in range(windows.count)]).flatten()
print(
    f"{windows.count} windows hold {len(seen)} characters, {len(seen.unique())} of them different"
)
x, y = windows.batch(seen=4, size=3)  # the last window of the first epoch, and two of the second
print("the windows begin with", x[:, 0].tolist(), "and their targets with", y[:, 0].tolist())
assert torch.equal(y, x + 1)

# %% [markdown]
# `batch` needs to know only how many windows were read before; seed and epoch settle the rest. So a checkpoint needs only one number to find the place again, and a run that resumes after a crash still reads each window once.
#
# ### Exercise: some twice
# ★★ · 7 minutes · What is never read is one half of the waste. The other half is what is read again and again.
#
# A text has n windows. Each of `steps` steps draws `batch_size` of them at random: all windows of one batch are different, but the next step draws from all n again. So a given window is in a given batch with probability $p$ = batch_size / n, whatever the other batches hold.
#
# Which share of the windows do you expect to be read at least twice? With 4 windows, batches of 2 and 2 steps it is ¼: a window has to be in both.

# %% tags=["exercise"] exercise="share_read_twice"
def share_read_twice(n, batch_size, steps):
    """Three whole numbers >= 1, batch_size <= n -> float: the expected share, 0 to 1, of windows read twice or more."""
    ### BEGIN SOLUTION
    p = batch_size / n
    return 1 - (1 - p) ** steps - steps * p * (1 - p) ** (steps - 1)
    ### END SOLUTION

# %%
check("share_read_twice", share_read_twice)

# %% [markdown]
# Now draw: 10,000 windows and 312 batches of 32, which is one epoch's worth. **Predict** the share with your formula first.

# %%
counts = torch.zeros(n)
for step in range(n // 32):
    counts[torch.randperm(n, generator=torch.Generator().manual_seed(step))[:32]] += 1
print(f"read twice or more: {(counts >= 2).float().mean():.0%}")

# %% [markdown]
# The data of a training run may be a corpus, ids alone, or an object that cuts its own windows (lesson 12 needs one for data larger than the memory). From each of these `prepare_data` makes the same three things, the windows, the validation ids and the tokenizer, and refuses data that does not fit the model.

# %%
#| export
def prepare_data(model, corpus_or_ids, config, tokenizer):
    """Prepares the data of a run -> windows, validation ids (N,) or None, tokenizer or None.

    corpus_or_ids: a Corpus, ids (N,) int64, or an object with windows(block_size, seed), val_ids and tokenizer.

    Raises: ValueError where model, text and config do not fit together.
    """
    if not isinstance(config, TrainConfig):
        raise ValueError(
            f"config is a {type(config).__name__}, expected a TrainConfig: "
            f"train(model, corpus, config, tokenizer)"
        )
    check_trainable(model)
    if hasattr(corpus_or_ids, "windows"):
        shards = corpus_or_ids
        windows = shards.windows(model.block_size, config.seed)
        val_ids = shards.val_ids
        if tokenizer is None:
            tokenizer = shards.tokenizer
        check_data_tokenizer(tokenizer, model)
    else:
        ids = corpus_or_ids
        val_ids = None
        if isinstance(corpus_or_ids, Corpus):
            corpus = corpus_or_ids
            if tokenizer is None:
                tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
            ids = tokenizer.encode(corpus.train)
            val_ids = tokenizer.encode(corpus.val)
        check_ids(ids)
        model.check(ids[:, None])
        device = next(model.parameters()).device
        windows = ShuffledWindows(ids.to(device), model.block_size, config.seed)
    check_needs(config, val_ids, tokenizer)
    return windows, val_ids, tokenizer

# %% [markdown]
# ## Learning-rate schedules
#
# Lesson 02's learning rate went up, stayed, and came down. Two such **schedules** are common today. With the warmup $w$ and the last step $T$, the peak $\eta_{\max}$ and the final rate $\eta_{\min}$, a **cosine** (Loshchilov and Hutter, 2017) is
#
# $$\eta_t = \eta_{\min} + \tfrac{1}{2} (\eta_{\max} - \eta_{\min}) \left( 1 + \cos \pi \frac{t - w}{T - w} \right) \qquad t \ge w .$$
#
# **WSD** (warmup, stable, decay; Hu et al., 2024) stays at the peak and comes down at the end. During the warmup both schedules rise in a straight line. (In the code $w$ and the decay are shares of $T$.) A cosine has to know $T$ from the beginning. WSD has to know $T$ only when the decay begins; until then you can make the run longer.

# %%
#| export
def get_lr(step, config, elapsed=0.0):
    """The learning rate of a step; steps count from 0. elapsed: the share of the time budget that is used up.

    A linear warmup; then half a cosine down to min_lr (Loshchilov and Hutter, 2017), or the peak and a linear decay
    (Hu et al., 2024).
    """
    # The schedule follows the steps or the time, whichever is further; without a number of steps, the time.
    steps = inf if config.steps is None else config.steps
    progress = min(max(step / steps, elapsed), 1.0)
    if config.schedule == "cosine":
        angle = pi * max(progress - config.warmup, 0) / (1 - config.warmup)  # from 0 to pi
        height = (1 + cos(angle)) / 2  # from 1 to 0
    elif config.schedule == "wsd":
        height = 1.0
        if config.decay > 0:
            height = min((1 - progress) / config.decay, 1.0)
    else:
        raise ValueError(f"the schedule {config.schedule!r} has no formula in get_lr")
    rate = config.min_lr + (config.learning_rate - config.min_lr) * height
    if config.warmup > 0:
        # step + 1, so that the first step already moves
        warmed_up = max((step + 1) / steps, elapsed) / config.warmup
        rate = min(rate, config.learning_rate * warmed_up)
    return rate

# %%
fig, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
for name, colour, style, changes in (
    ("cosine", "#0072B2", "-", {}),
    ("wsd, decay 0.2", "#D55E00", "--", {"schedule": "wsd"}),
    ("wsd, decay 0: constant", "#009E73", ":", {"schedule": "wsd", "decay": 0.0}),
):
    config = TrainConfig(steps=1000, **changes)
    ax.plot(
        [get_lr(step, config) for step in range(1000)],
        style,
        color=colour,
        linewidth=2,
        label=name,
    )
ax.set(xlabel="step", ylabel="learning rate")
ax.legend(frameon=False)
show(
    fig,
    "Three lines rise together in 50 steps. The cosine then falls in a smooth curve to 0; wsd stays at the peak until "
    "step 800 and falls in a straight line to 0; the third line stays at the peak.",
)

# %% [markdown]
# If you pay by the hour, you know how much time you have, but not how many steps fit into it. So the clock may drive the schedule, too: `elapsed` is the share of the time budget that is used up, and the schedule follows steps or time, whichever is further. Is our cosine the same as PyTorch's?

# %%
config = TrainConfig(steps=100, warmup=0.0)
optimizer = torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate)
schedule, theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100), []
for step in range(100):
    theirs.append(schedule.get_last_lr()[0])
    optimizer.step()
    schedule.step()
far = max(abs(get_lr(step, config) - rate) for step, rate in enumerate(theirs))
print(f"largest difference from PyTorch's rate ≈ {far:.0e}, of a peak of {config.learning_rate}")
by_time = TrainConfig(time_budget=60, warmup=0.0)  # 60 seconds, and an unknown number of steps
half_time = get_lr(7, by_time, elapsed=0.5)
print(f"peak {by_time.learning_rate}; rate after half of the time {half_time:.4f}")
assert far < 1e-9

# %% [markdown]
# ### Exercise: a curve without an end
# ★ · 5 minutes · The first transformer was trained with this schedule (Vaswani et al., 2017). It does not have to know the last step.
#
# The steps are numbered from 0, so `step` is the step number $k$ = step + 1 of the run. In the first `warmup` steps the rate rises in a straight line: the first step has peak / warmup, the last of them has the peak. From there the rate falls as one over the root of $k$, with no jump: after four times as many steps it is half as high. With peak 1 and warmup 100, the rate is 0.01 at step 0, 1 at step 99, ½ at step 399.

# %% tags=["exercise"] exercise="inverse_root_rate"
def inverse_root_rate(step, peak, warmup):
    """step from 0 on, peak a float, warmup a number of steps from 1 on -> float: the learning rate of this step."""
    ### BEGIN SOLUTION
    k = step + 1
    return peak * min(k / warmup, (warmup / k) ** 0.5)
    ### END SOLUTION

# %%
check("inverse_root_rate", inverse_root_rate)

# %% [markdown]
# ## Gradient accumulation
#
# A large batch gives a gradient with less noise. How much less? Take the gradient of 512 windows for the true one. **Predict:** by what factor does the distance from it shrink if the batch becomes four times as large?

# %%
torch.manual_seed(1337)
model = GPT(GPTConfig(V, block_size=32, n_layer=2, n_head=4, n_embd=64)).double()


def gradient(losses):
    """The sum of the gradients of some losses, all parameters in one vector: (P,)."""
    model.zero_grad()
    for loss in losses:
        loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])

# %%
x, y = get_batch(ids, 32, 512, torch.Generator().manual_seed(1337))
true = gradient([model(x, y)[1]])
for size in (4, 16, 64):
    noise = 0.0
    for i in range(4):  # the mean of four batches
        part = slice(i * size, (i + 1) * size)
        noise += (gradient([model(x[part], y[part])[1]]) - true).norm().item() / 4
    print(
        f"batch of {size:2}: distance ≈ {noise / true.norm().item():.2f} of the gradient's length"
    )

# %% [markdown]
# The noise of a mean of $B$ independent windows falls like $1/\sqrt{B}$: with four times as many windows, the noise is half as large.
#
# But a large batch may not fit into memory. Luckily `backward` *adds* to the gradients (lesson 02 warned of it). So run `backward` on four small **micro-batches**, one after the other, and then take one step: this is **gradient accumulation**. **Predict:** what has to be done to the four losses?

# %%
x, y = get_batch(ids, 32, 16, torch.Generator().manual_seed(1337))
whole = gradient([model(x, y)[1]])
quarters = gradient(model(x[i : i + 4], y[i : i + 4])[1] / 4 for i in range(0, 16, 4))
forgotten = gradient(model(x[i : i + 4], y[i : i + 4])[1] for i in range(0, 16, 4))
far = (whole - quarters).abs().max().item()
print(f"largest difference ≈ {far:.0e}, in a gradient of length ≈ {whole.norm():.2f}")
print(f"without the division: {forgotten.norm() / whole.norm():.1f} times as long")
assert far < 1e-12

# %% [markdown]
# Each loss is a mean over its own quarter, and the mean of four means is the mean of all, because the quarters are equally large. So divide each loss by the number of losses. Only one quarter's activations are in memory at a time. What if you forget the division? AdamW divides each gradient by its own size:

# %%
for factor in (1, 4):
    weight = torch.zeros(3, requires_grad=True)
    weight.grad = factor * torch.tensor([0.2, -1.0, 3.0])
    torch.optim.AdamW([weight], lr=0.1).step()
    print(f"gradient times {factor}: AdamW's first step is", [round(w, 4) for w in weight.tolist()])

# %% [markdown]
# AdamW does not notice. Clipping does, and so does the log of the gradient's length.
#
# ### Exercise: lines of unequal length
# ★★ · 8 minutes · Hugging Face's trainer had this bug for years (the repairs began in October 2024). Nothing crashes; some texts just count more than others.
#
# Our windows are equally long, but the lines of a play are not. Let row b of `x` and `y`, both (B, T), be a line and its targets; after the end of a line, `y` holds −100, and `F.cross_entropy` leaves those places out of its mean. The model is lesson 01's, a table (V, V) with a row of logits for each character. It gets the lines in pieces, `size` lines at a time; the last piece may be smaller:

# %%
def accumulated(table, x, y, size):
    table = table.clone().requires_grad_()
    pieces = list(zip(x.split(size), y.split(size)))
    for a, b in pieces:
        loss = F.cross_entropy(table[a].flatten(0, 1), b.flatten())
        (loss / len(pieces)).backward()
    return table.grad


table = torch.zeros(3, 3, dtype=torch.float64)
lines = torch.tensor([[0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 0, 0]])
targets = torch.tensor([[1, 2, 0, 1], [2, 0, 1, 2], [1, -100, -100, -100]])
at_once = accumulated(table, lines, targets, size=3)
in_pieces = accumulated(table, lines, targets, size=2)
print(f"derivative by the logit of 0 after 2, all lines at once:   {at_once[2, 0]:.2f}")
print(f"derivative by the logit of 0 after 2, two lines at a time: {in_pieces[2, 0]:.2f}")

# %% [markdown]
# Not even the sign is the same. The third line, with only one target, is a whole piece, and so gets half the weight. Fix the function: the sum of all pieces has to be the gradient of the mean loss over *all* targets of the batch, whatever `size` is. Still run the model on at most `size` lines at a time. Each line has at least one target.

# %% tags=["exercise"] exercise="accumulated_gradient"
def accumulated_gradient(table, x, y, size):
    """table (V, V) floats, x and y (B, T) int64, -100 in y: no target -> (V, V): the gradient of the mean loss."""
    ### BEGIN SOLUTION
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        loss = F.cross_entropy(table[a].flatten(0, 1), b.flatten())
        (loss * (b != -100).sum() / (y != -100).sum()).backward()
    return table.grad
    ### END SOLUTION

# %%
check("accumulated_gradient", accumulated_gradient)

# %% [markdown]
# ## Gradient clipping
#
# One strange batch can have a gradient a hundred times as long as the others. **Gradient clipping** (Pascanu et al., 2013) shortens a gradient to a length of at most $c$ and leaves its direction: $g \leftarrow g \cdot \min(1, c / \lVert g \rVert)$, where the length, the norm, is that of *all* parameters' gradients together.

# %%
weights = [torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)]
weights[0].grad, weights[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
length = torch.nn.utils.clip_grad_norm_(weights, max_norm=1.0)
print(
    f"length before: {length:.1f}; now the gradient is",
    [f"{weight.grad.item():.1f}" for weight in weights],
)

# %% [markdown]
# ## Weight decay
#
# Weight decay (Loshchilov and Hutter, 2019) multiplies a weight by $1 - \eta \lambda$ at each step. That seems little. **Predict:** how much of a weight that gets no gradient is left after 10,000 steps at $\eta = 10^{-3}$ and $\lambda = 0.1$?

# %%
print(f"{(1 - 1e-3 * 0.1) ** 10_000:.2f}")

# %% [markdown]
# This is $e^{-1}$ again. For a matrix that is the purpose: a weight that the text does not need fades.
#
# A bias is another matter. AdamW's step for one number $b$, decay included, is
#
# $$b \leftarrow b - \eta \left( \frac{\hat m}{\sqrt{\hat v} + \epsilon} + \lambda b \right) .$$
#
# The quotient is about 1 in size at most, however large the gradient is. So where $\lambda |b|$ reaches 1, the decay takes back all that the gradient gives: no number grows beyond $1 / \lambda$ (Xie and Li, 2024). Take the smallest language model, a bias alone: the logits are $b$ (V,) at every position. The best $b$ is the logarithm of each character's frequency. **Predict:** how large do its numbers become with $\lambda = 1$, and what does that do to the loss? And with $\lambda = 0.1$?

# %%
shares = torch.bincount(ids, minlength=V) / len(ids)  # (V,): how frequent each character is


def fit_bias(decay):
    """Trains a bias as the only parameter, 500 steps -> the bias (V,), its loss in nats per character."""
    bias = torch.zeros(V, requires_grad=True)
    optimizer = torch.optim.AdamW([bias], lr=0.05, betas=(0.9, 0.99), weight_decay=decay)
    for _ in range(500):
        loss = -(shares * bias.log_softmax(0)).sum()  # the mean loss over the whole text
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return bias.detach(), loss.item()


for decay in (0.0, 0.1, 1.0):
    bias, loss = fit_bias(decay)
    print(f"decay {decay}: bias from ≈ {bias.min():.1f} to ≈ {bias.max():.1f}, loss ≈ {loss:.4f}")

# %% [markdown]
# With $\lambda = 1$ the bias cannot say how rare the rarest characters are. With $\lambda = 0.1$ the bound is 10, far away, and the loss hardly differs.
#
# The gain of a LayerNorm starts at 1, which means "leave the channel as it is". A gain of 0 would mute its channel. Here are 300 steps of our small GPT, with decay on the matrices alone, and on the gains, too. **Predict:** does the loss suffer?

# %%
def train_gains(decay):
    """300 steps with weight decay on the gains -> their mean, and the mean loss of the last 50 steps."""
    torch.manual_seed(1337)
    model = GPT(GPTConfig(V, block_size=32, n_layer=2, n_head=4, n_embd=64))
    matrices, gains = param_groups(model, 0.1)
    gains["weight_decay"] = decay
    optimizer = torch.optim.AdamW([matrices, gains], lr=5e-3, betas=(0.9, 0.99))
    windows = ShuffledWindows(ids, 32, seed=1337)
    losses = []
    for step in range(300):
        _, loss = model(*windows.batch(16 * step, 16))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.cat(gains["params"]).mean().item(), sum(losses[-50:]) / 50

# %%
for decay in (0.0, 0.1, 1.0):
    mean_gain, loss = train_gains(decay)
    print(f"decay {decay} on the gains: mean gain ≈ {mean_gain:.2f}, loss ≈ {loss:.2f}")

# %% [markdown]
# The gains shrink, and yet the loss need not suffer: a matrix stands behind each gain, and can grow where the gain shrinks. (In so short a run the strongest decay may even have the lowest loss.) So the bias is a reason against decay; for gains, leaving decay out is only a habit. As in nanoGPT, only parameters with two dimensions or more get weight decay; lesson 02's `param_groups` sorts them.

# %%
#| export
# The functions that make the optimizers; a later lesson's module is imported when its optimizer is used.
OPTIMIZERS = {"adamw": "chargpt_lib.recipe:make_adamw", "muon": "chargpt_lib.modern:make_muon"}


def make_adamw(model, config):
    """AdamW (Loshchilov and Hutter, 2019), with weight decay for parameters of two dimensions or more."""
    device = next(model.parameters()).device
    return torch.optim.AdamW(
        param_groups(model, config.weight_decay),
        lr=config.learning_rate,
        betas=tuple(config.betas),
        fused=device.type in ("cpu", "cuda"),
    )


def make_optimizer(model, config):
    """The optimizer that a TrainConfig names, for all parameters of the model."""
    module, name = OPTIMIZERS[config.optimizer].split(":")
    return getattr(import_module(module), name)(model, config)

# %%
small = GPT(GPTConfig(V, block_size=32, n_layer=2, n_head=4, n_embd=64))
for group in make_optimizer(small, TrainConfig()).param_groups:
    numbers = sum(p.numel() for p in group["params"])
    kind = "matrices" if group["params"][0].dim() > 1 else "gains"
    print(f"decay {group['weight_decay']}: {len(group['params'])} {kind}, {numbers:,} numbers")

# %% [markdown]
# With `fused`, one kernel does the whole step, instead of one for each operation.
#
# ## Mixed precision
#
# Graphics cards multiply numbers of 16 bits several times as fast as numbers of 32. There are two kinds. **float16** has 5 bits for the exponent and 10 for the digits; **bfloat16** has 8 and 7, so it has the range of float32, but fewer digits.

# %%
print("           largest   smallest normal   smallest at all   1 + this is still 1")
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    kind, name = torch.finfo(dtype), str(dtype).removeprefix("torch.")
    tiniest = kind.smallest_normal * kind.eps
    print(
        f"{name:9} {kind.max:9.1e} {kind.smallest_normal:17.1e} {tiniest:17.1e} {kind.eps / 2:21.1e}"
    )

# %% [markdown]
# **Predict** the three results, in float16 and in bfloat16: $300 \cdot 300$; $10^{-8}$; $1 + 0.0004$, a weight and its step.

# %%
for dtype in (torch.float16, torch.bfloat16):
    number = lambda x: torch.tensor(x, dtype=dtype)
    print(
        f"{str(dtype):15}",
        (number(300.0) * number(300.0)).item(),
        f"{number(1e-8).item():.1e}",
        (number(1.0) + number(4e-4)).item(),
    )

# %% [markdown]
# (90,000 lies between two numbers of bfloat16, and is rounded to the nearer one.) These are three troubles. First, a product can be too large for float16. Second, a small gradient becomes 0 in float16. Third, in both kinds, a step that is small beside its weight changes nothing. So in **mixed precision** (Micikevicius et al., 2018) the weights and the optimizer stay in float32, and only the large matrix products are computed in 16 bits; `torch.autocast` knows which.
#
# About the second trouble: how small *are* gradients? Here are those of our small GPT. A number below half of float16's smallest one becomes 0. From there up to the smallest normal number, it keeps only some of its digits; the smaller the number, the fewer.

# %%
gradients = whole[whole != 0].float()
for scale in (1, 65536):
    lost, cut = ((gradients * scale).abs() < low for low in (2.0**-25, 2.0**-14))
    print(
        f"gradients times {scale:5}: ≈ {lost.float().mean():.2%} become 0, "
        f"≈ {cut.float().mean():.2%} lose digits"
    )
assert (gradients.half() == 0).any() and not ((gradients * 65536).half() == 0).any()
assert (gradients * 65536).half().isfinite().all()

# %%
fig, ax = plt.subplots(figsize=(8, 2.4), layout="constrained")
bins = torch.linspace(-14, 6, 101)
for scale, colour, name in ((1.0, "#D55E00", "gradients"), (65536.0, "#0072B2", "times 65,536")):
    sizes = (gradients.abs() * scale).log10().numpy()
    ax.hist(sizes, bins=bins.numpy(), color=colour, alpha=0.6, label=name)
zero, infinite = torch.tensor([2.0**-25, 65504.0]).log10().tolist()
ax.axvspan(-14, zero, color="#BBBBBB", alpha=0.5, label="0 in float16")
ax.axvspan(infinite, 6, hatch="//", facecolor="none", edgecolor="#BBBBBB", label="infinite")
ax.set(xlabel="log10 of a gradient's size", ylabel="numbers", yscale="log", xlim=(-14, 6))
ax.legend(frameon=False, fontsize=8)
show(
    fig,
    "Two histograms of the same shape. The gradients reach into the grey zone where float16 has only 0; "
    "multiplied by 65,536 they lie between the zones.",
)

# %% [markdown]
# The remedy is **loss scaling**. Multiply the *loss* by a large factor; by the chain rule this multiplies all gradients. Divide them again in float32, before clipping. If one of them has become infinite, skip the step and halve the factor. If no gradient was infinite for 2,000 steps, double the factor. `torch.amp.GradScaler` does just that. Here is loss scaling for one number:

# %%
gradient_in_16_bits = (torch.tensor(1e-8) * 65536).half()
print(f"1e-8 without scaling: {torch.tensor(1e-8).half().item():.1e}")
print(f"1e-8 with scaling:    {gradient_in_16_bits.float().item() / 65536:.1e}")

# %% [markdown]
# ### Exercise: between backward and step
# ★★ · 8 minutes · Four lines that everybody writes once, in an order that matters (Micikevicius et al., 2018).
#
# `gradients` holds the gradients of all parameters as `backward` left them, in float16; the loss had been multiplied by `scale`. Prepare the gradients for the optimizer:
#
# 1. If any number is infinite or nan, there is no step: return the empty list.
# 2. Undo the scaling, in float32.
# 3. Clip: if the length over all tensors together is above `most`, shorten them all by one factor, so that this length becomes `most`. A shorter gradient stays as it is; so does one that is all zeros.
#
# Take two gradients, [3·1024] and [4·1024], with scale 1024 and most 1. Unscaled they are [3] and [4], together of length 5, and become [0.6] and [0.8].

# %% tags=["exercise"] exercise="unscale_and_clip"
def unscale_and_clip(gradients, scale, most):
    """gradients: a list of float16 tensors of any shapes; scale, most: floats above 0 -> list of float32 tensors."""
    ### BEGIN SOLUTION
    if not all(g.isfinite().all() for g in gradients):
        return []
    gradients = [g.float() / scale for g in gradients]
    length = sum(g.square().sum() for g in gradients).sqrt()
    return [g * (most / length).clamp(max=1) for g in gradients]
    ### END SOLUTION

# %%
check("unscale_and_clip", unscale_and_clip)

# %% [markdown]
# bfloat16 needs no loss scaling. Graphics cards have it from the generation of the A100 on. The T4 of the free notebooks has only float16. (PyTorch can imitate bfloat16 there, slowly, and calls it "supported"; so `pick_precision` asks for the generation of the card.)

# %%
from chargpt_lib.devices import pick_precision

print(pick_precision("cpu"))

# %% [markdown]
# ## Gradient checkpointing
#
# What fills the memory? It is not the weights. `backward` needs the inputs of every operation of the forward pass, so PyTorch keeps these activations until then. Look at each tensor as it is saved:

# %%
def bytes_kept(model, x, y):
    """The bytes of the activations that the forward pass saves for backward."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved = {}

    def on_save(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(on_save, lambda tensor: tensor):
        model(x, y)[1].backward()
    return sum(saved.values())

# %%
torch.manual_seed(1337)
deep = GPT(GPTConfig(V, block_size=32, n_layer=8, n_head=4, n_embd=64))
plain = bytes_kept(deep, x, y)
weights = 4 * deep.num_params()
print(f"weights: {weights / 1e6:.1f} MB; activations of 16 windows of 32: ≈ {plain / 1e6:.1f} MB")
print(f"the activations are ≈ {plain / weights:.1f} times as large as the weights")
assert plain / weights > 5

# %% [markdown]
# **Gradient checkpointing** (Chen et al., 2016) saves most of this memory. (It has nothing to do with lesson 09's checkpoints.) Each block keeps only its input. When `backward` arrives at a block, the block runs forward once more, keeps its activations this time, and drops them afterwards. So the memory holds the input of each block, and, in the backward pass, the activations of one block at a time. (The cell below counts what the forward pass keeps, so it counts only the inputs.) The price is one more forward pass. A backward pass costs about two forward passes (lesson 15 counts them), so a step costs 4 instead of 3: a third more work.
#
# The code of our blocks does not have to change. Inside a `with`, each block gets a new `forward` that works in this way and hides the usual one.

# %%
#| export
@contextmanager
def gradient_checkpointing(model):
    """Within it, each block of the model keeps only its input, and runs again in backward (Chen et al., 2016).

    Raises: ValueError where the model has no blocks.
    """
    blocks = list(getattr(model, "blocks", ()))
    if not blocks:
        raise ValueError(
            f"{type(model).__name__} has no .blocks to checkpoint: set gradient_checkpointing=False"
        )
    for block in blocks:
        # An attribute of the block hides the method of its class until the attribute is deleted.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward

# %%
before = torch.cat([p.grad.flatten() for p in deep.parameters()])
deep.zero_grad()
with gradient_checkpointing(deep):
    sparing = bytes_kept(deep, x, y)
after = torch.cat([p.grad.flatten() for p in deep.parameters()])
share = sparing / plain
print(
    f"activations with checkpointing: ≈ {sparing / 1e6:.1f} MB, ≈ {share:.0%} of ≈ {plain / 1e6:.1f} MB"
)
print(f"gradients that differ in any bit: {(before != after).sum()} of {len(before):,}")
assert share < 0.33

# %%
fig, ax = plt.subplots(figsize=(7, 1.6), layout="constrained")
bars = ax.barh(
    ["checkpointing", "as usual"], [sparing / 1e6, plain / 1e6], color=["#0072B2", "#D55E00"]
)
ax.bar_label(bars, fmt=" %.1f")
ax.margins(x=0.1)
ax.set(xlabel="megabytes that the forward pass keeps, 8 blocks")
show(
    fig,
    "Two bars of kept activations: the bar with checkpointing is a small part of the bar without it.",
)

# %% [markdown]
# ## `torch.compile`
#
# `torch.compile` reads the model's code and writes kernels for it that do several operations at once. It needs a compiler, some patience at the first step, and luck with the operations. On a CPU it also needs an environment without a space in its path, because PyTorch passes that path unquoted to the linker; a graphics card does not need that linker. If any of these is missing, it fails at the first call, with a page of messages. So `compile_model` tries one step; if the trial fails, the run goes on without compilation and says so.

# %%
#| export
def compile_model(model, x):
    """Compiles the model by torch.compile; where a trial step on x (B, T) fails, warns and returns the model itself."""
    try:
        # The trial draws numbers for dropout; the run's generators must not change by it.
        with torch.random.fork_rng():
            compiled = torch.compile(model)
            compiled(x, x)[1].backward()
        return compiled
    except Exception as error:  # of many kinds: no compiler, an unknown operation, an old card
        reason = _compile_failure(str(error))
        warnings.warn(
            f"torch.compile fails, so the training goes on without it: {type(error).__name__}: {reason}"
        )
        return model
    finally:
        model.zero_grad()


def _compile_failure(message):
    """The line of torch.compile's long message that names the error, and the way out where one is known."""
    lines = message.strip().splitlines()
    if not lines:
        return ""
    reason = next((line for line in lines if "error: " in line), lines[0])
    if "C++ compile error" in lines[0] and " " in torch.__file__:
        reason += (
            f"; PyTorch passes its own path, {torch.__file__}, unquoted to the linker: make the environment "
            "in a folder without a space (on a GPU it does not matter)"
        )
    return reason

# %%
# As if this computer had no compiler:
no_compiler = RuntimeError("no C++ compiler on this computer")
with mock.patch("torch.compile", side_effect=no_compiler):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled = compile_model(small, x)
assert compiled is small
print("compile_model returned the model itself, and warned:")
print(caught[0].message)

# %% [markdown]
# ## Handling Ctrl-C
#
# Ctrl-C sends the signal SIGINT, and Python stops wherever it happens to be, for example when half of the weights have taken their step. A checkpoint saved then would hold a state in the middle of a step. So the first Ctrl-C is only noted, and the loop looks at the note between two steps. (If you do not want to wait, press Ctrl-C again.)

# %%
#| export
@contextmanager
def catch_sigint():
    """Within it, the first Ctrl-C only adds its signal to the yielded list; the second Ctrl-C interrupts as usual."""
    received = []
    # Python delivers signals to the main thread only.
    if current_thread() is not main_thread():
        yield received
        return
    usual_handler = signal.getsignal(signal.SIGINT)

    def handler(signal_number, frame):
        received.append(signal_number)
        signal.signal(signal.SIGINT, usual_handler)

    signal.signal(signal.SIGINT, handler)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, usual_handler)

# %%
with catch_sigint() as interrupts:
    for step in range(100):
        if step == 3:
            signal.raise_signal(signal.SIGINT)  # as if you had pressed Ctrl-C during step 3
        end_of_step = step
        if interrupts:
            break
print("ended after step", end_of_step)

# %% [markdown]
# ## Mistakes people make
#
# - **Sums instead of means.** Without the division by four, four micro-batches give a gradient four times as long, and everything is clipped.
# - **Clipping scaled gradients.** With float16, first call `unscale_`, then clip; otherwise the length is 65,536 times what you think.
# - **Weights in 16 bits.** `model.half()` is not mixed precision. The small steps at the end of the run change nothing.
# - **A cosine that is cut off.** A run stopped half-way never had the small rates at the end; its loss does not tell what a whole run could do.
# - **"bf16 is supported".** On a T4 PyTorch only imitates bf16. Call `is_bf16_supported(including_emulation=False)`, or ask for the compute capability, as we do.
#
# How far you are:

# %%
progress()

# %% [markdown]
# ## Summary
#
# You now have `TrainConfig`, `get_lr`, `ShuffledWindows`, `make_optimizer`, `gradient_checkpointing`, `compile_model`, `catch_sigint` and `prepare_data`, in `chargpt_lib/recipe.py`.
#
# Next: [11 · Training in earnest](11_training_in_earnest.ipynb), which puts these parts into one loop.
