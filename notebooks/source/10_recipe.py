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
# You will build: every part of a serious training step, each alone. The order of the windows, the rate as a curve, batches larger than the memory, half the bits, half the memory, and a stop that waits for the end of a step.
# You need lessons 02 and 06. On two CPU cores the page takes a quarter of a minute. [Lesson 11](11_training_in_earnest.ipynb) puts the parts together, runs with and without them, and opens a clinic.
#
# Lesson 02's `fit` trained all our models in one function. It has served well, for minutes. A run of two days has other troubles: the memory is too small, the night is too short, and at four in the morning a loss is `nan`.

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
# ## All knobs in one place
#
# A training has two dozen numbers that somebody chose. Two things should hold for them: one can read them off in one place, and nonsense is refused at once, by name, not after the first hour. So first what may be, as a table of rules.

# %%
#| export
import signal
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from math import cos, inf, pi
from numbers import Integral, Real
from pathlib import Path
from threading import current_thread, main_thread
from typing import Literal

import torch
from torch.utils.checkpoint import checkpoint

from chargpt_lib.checkpoints import load_checkpoint
from chargpt_lib.data import CharTokenizer, Corpus
from chargpt_lib.training import evaluate

# %%
#| export
def check_train_config(config):
    """ValueError for what no training can use: the field, its value, the way out."""

    def number(low, kind=Real, most=inf):
        return lambda x: (
            isinstance(x, kind) and not isinstance(x, bool) and low <= x <= most and x != inf
        )

    for names, right, meaning in (
        (
            "batch_size grad_accum eval_interval checkpoint_interval",
            number(1, Integral),
            "a whole number from 1 on",
        ),
        (
            "steps patience",
            lambda x: x is None or number(1, Integral)(x),
            "a whole number from 1 on, or None",
        ),
        ("eval_batches", number(0, Integral), "a whole number; 0 for the exact loss"),
        ("seed", number(0, Integral, 2**32 - 1), "a whole number from 0 to 2^32 - 1"),
        ("epochs time_budget", lambda x: x is None or number(1e-9)(x), "a number above 0, or None"),
        ("learning_rate", number(1e-12), "a number above 0"),
        (
            "min_lr",
            lambda x: number(0, Real, config.learning_rate)(x),
            f"from 0 to the rate, {config.learning_rate}",
        ),
        ("weight_decay grad_clip", number(0), "a number, 0 for none"),
        ("warmup", number(0, Real, 0.99), "a share of the run, from 0 to 0.99"),
        (
            "betas",
            lambda x: (
                isinstance(x, (tuple, list))
                and len(x) == 2
                and all(map(number(0, Real, 0.999999), x))
            ),
            "two numbers from 0 to 0.999999",
        ),
        ("schedule", ("cosine", "wsd").__contains__, "'cosine' or 'wsd'"),
        (
            "decay",
            lambda x: number(
                0, Real, 1 if config.schedule == "cosine" else 1.000001 - config.warmup
            )(x),
            f"a share of the run, and not more than the warmup, {config.warmup}, leaves of it",
        ),
        (
            "precision",
            ("auto", "fp32", "fp16", "bf16").__contains__,
            "'auto', 'fp32', 'fp16' or 'bf16'",
        ),
        ("compile gradient_checkpointing", lambda x: isinstance(x, bool), "True or False"),
        ("out", lambda x: x is None or isinstance(x, (str, Path)) and str(x), "a folder, or None"),
        (
            "tensorboard",
            lambda x: x is False or x is True and config.out,
            "False, or True with a folder, out",
        ),
    ):
        for name in names.split():
            if not right(getattr(config, name)):
                raise ValueError(f"{name} is {getattr(config, name)!r}; it has to be {meaning}")

# %% [markdown]
# Then the knobs; many have nanoGPT's names. The two pages explain them one after the other. (`betas` are AdamW's two memories: of the mean gradient it keeps 0.9 at each step, of the mean square 0.99.)

# %%
#| export
@dataclass
class TrainConfig:
    """How to train. Whichever comes first ends it: steps, epochs, time_budget or patience."""

    steps: int | None = (
        None  # of the optimizer; 2000, where neither epochs nor a time budget is given
    )
    epochs: float | None = None  # passes over the training text
    time_budget: float | None = None  # seconds, evaluations included; the schedule ends with them
    batch_size: int = 32  # windows at a time
    grad_accum: int = 1  # so many batches, one after the other, make one step
    learning_rate: float = 1e-3  # the peak
    min_lr: float = 0.0  # where the schedule ends
    warmup: float = 0.05  # share of the run in which the rate rises
    schedule: Literal["cosine", "wsd"] = "cosine"  # wsd: warmup, stable, decay
    decay: float = 0.2  # share of the run, at its end, in which wsd decays; 0: the rate stays
    weight_decay: float = 0.1  # of matrices and tables; the other parameters have none
    betas: tuple[float, float] = (0.9, 0.99)  # of AdamW
    grad_clip: float = 1.0  # a longer gradient is cut to this length; 0: none is
    seed: int = 1337  # of the order of the windows, and of dropout
    precision: Literal["auto", "fp32", "fp16", "bf16"] = (
        "auto"  # auto: the best that the device computes in
    )
    compile: bool = False  # try torch.compile
    gradient_checkpointing: bool = False  # compute each block twice, and keep less of it
    eval_interval: int = 250  # steps from one evaluation, and row of the log, to the next
    eval_batches: int = (
        0  # estimate the validation loss from so many batches; 0: exactly, from the whole text
    )
    patience: int | None = None  # so many evaluations without a new best end the run
    out: str | None = None  # folder for checkpoints and log.jsonl
    checkpoint_interval: int = 1000  # steps
    tensorboard: bool = False  # a log for TensorBoard, too, in out

    def __post_init__(self):
        check_train_config(self)
        self.out = self.out and str(self.out)
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
# ## No window twice
#
# So far each batch took its windows wherever the dice fell. Suppose you draw just as many windows as the text has, $n$ of them. **Predict:** which share of the text have you never seen?

# %%
n = 10_000
drawn = torch.randint(n, (n,), generator=torch.Generator().manual_seed(1337))
print(f"never drawn: {1 - len(drawn.unique()) / n:.0%}")

# %% [markdown]
# A window is missed by one draw with probability $1 - 1/n$, by all with $(1 - 1/n)^n \to e^{-1} = 0.37$. Other windows came twice or three times instead. So shuffle them, and go through the pile: an **epoch** is once through the text. If it were always cut at the same places, the character before a cut would never be seen by the one after it. So every epoch begins at another place; one window is left out, to give the beginning room to move. In a long text that is nothing.

# %%
#| export
def count_windows(size, block_size):
    """How many windows an epoch has, in a text of so many ids. ValueError where there is none."""
    if size <= block_size:
        raise ValueError(
            f"a text of {size} ids has no window of block_size {block_size} and one target more: "
            f"take a longer text, or a model with a block_size of at most {max(size - 1, 0)}"
        )
    return max(size // block_size - 1, 1)

# %% [markdown]
# The dice of an epoch come from two numbers, the run's seed and the number of the epoch. Of a seed, torch's generator takes the lowest 32 bits. The odd factor spreads the seeds over all of them, so that neighbours do not share an order.

# %%
#| export
def epoch_dice(seed, epoch):
    """A generator that seed and epoch settle."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**32)

# %%
#| export
class Windows:
    """The windows of a text, shuffled, each once an epoch; every epoch cuts the text at other places."""

    def __init__(self, ids, block_size, seed):
        self.count = count_windows(len(ids), block_size)
        self.ids, self.block_size, self.seed, self.starts = ids, block_size, seed, {}
        self.all = ids.unfold(0, block_size + 1, 1)  # a view: nothing is copied

    def order(self, epoch):
        """Where the windows of an epoch start: (count,). Seed and epoch alone settle it."""
        if epoch not in self.starts:
            dice = epoch_dice(self.seed, epoch)
            first = torch.randint(len(self.ids) - self.count * self.block_size, (), generator=dice)
            self.starts = {
                epoch: first + self.block_size * torch.randperm(self.count, generator=dice)
            }
        return self.starts[epoch]

    def batch(self, seen, size):
        """The windows that follow the first `seen` ones -> x, y, both (size, T), where the ids are."""
        epoch, at = divmod(seen, self.count)
        starts = self.order(epoch)[at : at + size]
        while len(starts) < size:
            epoch += 1
            starts = torch.cat([starts, self.order(epoch)[: size - len(starts)]])
        windows = self.all[starts.to(self.ids.device, non_blocking=True)]  # (size, T + 1)
        return windows[:, :-1], windows[:, 1:]

# %%
windows = Windows(torch.arange(103), block_size=16, seed=1337)
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
ax.set_title("Windows of 16 in a text of 103, numbered in the order they come", fontsize=10)
show(
    fig,
    "Three rows of five bars laid end to end, numbered in another order in each row; each row begins at another "
    "place.",
)

# %%
seen = torch.cat([windows.batch(k, 1)[0] for k in range(windows.count)]).flatten()
print(windows.count, "windows,", len(seen.unique()), "different characters of", len(seen))
x, y = windows.batch(seen=4, size=3)  # the last of the first epoch, and two of the second
print("windows begin with", x[:, 0].tolist(), "and their targets with", y[:, 0].tolist())
assert torch.equal(y, x + 1)

# %% [markdown]
# `batch` needs to know only how many windows were seen before. Seed and epoch settle the rest. So a checkpoint needs one number to find the place again, and a run that goes on after an accident sees each window once, too.
#
# ### Exercise: some twice
# ★★ · 7 minutes · What is never read is one half of the waste; the other half is read again and again.
#
# A text has n windows. Each of `steps` steps draws `batch_size` of them by dice: all windows of one batch are different, but the next step draws from all n again. So a given window is in a given batch with probability $p$ = batch_size / n, whatever the other batches hold.
#
# Which share of the windows do you expect to be read at least twice? With 4 windows, batches of 2 and 2 steps it is ¼: a window has to be in both.

# %% tags=["exercise"] exercise="share_read_twice"
def share_read_twice(n, batch_size, steps):
    """Whole numbers from 1 on, batch_size <= n -> float: the expected share, 0 to 1, of windows read twice or more."""
    ### BEGIN SOLUTION
    p = batch_size / n
    return 1 - (1 - p) ** steps - steps * p * (1 - p) ** (steps - 1)
    ### END SOLUTION

# %%
check("share_read_twice", share_read_twice)

# %% [markdown]
# Now with dice: 10,000 windows and 312 batches of 32, which is one epoch's worth. **Predict** the number with your formula first.

# %%
counts = torch.zeros(n)
for step in range(n // 32):
    counts[torch.randperm(n, generator=torch.Generator().manual_seed(step))[:32]] += 1
print(f"read twice or more: {(counts >= 2).float().mean():.0%}")

# %% [markdown]
# Who trains gives a corpus, or ids alone. Or anything that cuts its own windows: the next lesson has data that is larger than the memory. What does not fit is refused here.

# %%
#| export
def read_data(model, corpus_or_ids, config, tokenizer):
    """-> windows, validation ids or None, tokenizer or None. ValueError where model and text do not match.

    corpus_or_ids: a Corpus, ids (N,), or what has windows(block_size, seed), val_ids and tokenizer.
    """
    data = ids = corpus_or_ids
    val_ids, tokenizer = (
        getattr(data, "val_ids", None),
        tokenizer or getattr(data, "tokenizer", None),
    )
    if isinstance(data, Corpus):
        tokenizer = tokenizer or CharTokenizer.from_text(data.train + data.val)
        ids, val_ids = tokenizer.encode(data.train), tokenizer.encode(data.val)
    if hasattr(data, "windows"):
        windows = data.windows(model.block_size, config.seed)
        if tokenizer.vocab_size != model.vocab_size:
            raise ValueError(
                f"the data has {tokenizer.vocab_size} symbols, and the model knows {model.vocab_size}"
            )
    elif ids.dim() != 1 or ids.dtype != torch.int64:
        raise ValueError(
            f"ids are {ids.dtype} of the shape {tuple(ids.shape)}; a text is int64, (N,)"
        )
    else:
        model.check(ids[:, None])
        windows = Windows(ids.to(next(model.parameters()).device), model.block_size, config.seed)
    if config.patience and val_ids is None:
        raise ValueError(
            f"patience is {config.patience}, and ids have no validation text: give a Corpus, or None"
        )
    if config.out and tokenizer is None:
        raise ValueError("a checkpoint holds the tokenizer, too: with ids and out, give tokenizer=")
    return windows, val_ids, tokenizer

# %% [markdown]
# ## The rate is a curve
#
# Lesson 02's pace was a share of the peak: up, along, down. Two shapes are common today. With the warmup $w$ and the end $T$, both in steps, the peak $\eta_{\max}$ and the end $\eta_{\min}$, a **cosine** (Loshchilov and Hutter, 2017) goes
#
# $$\eta_t = \eta_{\min} + \tfrac{1}{2} (\eta_{\max} - \eta_{\min}) \left( 1 + \cos \pi \frac{t - w}{T - w} \right) \qquad t \ge w .$$
#
# **WSD**, warmup, stable, decay (Hu et al., 2024), stays at the peak and comes down at the end. (In the code $w$ and the decay are shares of $T$.) A cosine has to know $T$ from the beginning. WSD has to know it only when the decay begins; until then a run can be made longer. Before $w$ both rise in a line.

# %%
#| export
def learning_rate(step, config, elapsed=0.0):
    """The rate of a step, counted from 0; elapsed: the share of the time budget that is used up.

    A warmup, then half a cosine to min_lr (Loshchilov and Hutter, 2017), or the peak and a decay (Hu et al., 2024).
    """
    steps = config.steps or inf
    rise = max((step + 1) / steps, elapsed) / config.warmup if config.warmup else 1.0
    done = min(max(step / steps, elapsed), 1.0)
    if config.schedule == "cosine":
        left = (1 + cos(pi * max(done - config.warmup, 0) / (1 - config.warmup))) / 2
    else:
        left = min((1 - done) / config.decay, 1.0) if config.decay else 1.0
    return min(
        config.learning_rate * rise, config.min_lr + (config.learning_rate - config.min_lr) * left
    )

# %%
fig, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
for name, colour, style, changes in (
    ("cosine", "#0072B2", "-", {}),
    ("wsd, decay 0.2", "#D55E00", "--", {"schedule": "wsd"}),
    ("wsd, decay 0: constant", "#009E73", ":", {"schedule": "wsd", "decay": 0.0}),
):
    config = TrainConfig(steps=1000, **changes)
    ax.plot(
        [learning_rate(step, config) for step in range(1000)],
        style,
        color=colour,
        linewidth=2,
        label=name,
    )
ax.set(xlabel="step", ylabel="learning rate")
ax.legend(frameon=False)
show(
    fig,
    "Three lines rise together in 50 steps. One falls in half a cosine, one stays until step 800 and falls in a "
    "line, one stays.",
)

# %% [markdown]
# Who pays by the hour does not know the number of steps. So the clock may turn the curve: `elapsed` is the share of the time budget that is gone, and whichever is further, steps or time, counts. Is PyTorch's own cosine the same?

# %%
config = TrainConfig(steps=100, warmup=0.0)
optimizer = torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate)
schedule, theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100), []
for step in range(100):
    theirs.append(schedule.get_last_lr()[0])
    optimizer.step()
    schedule.step()
far = max(abs(learning_rate(step, config) - rate) for step, rate in enumerate(theirs))
print(f"largest difference from PyTorch's ≈ {far:.0e} (below 1e-9: {far < 1e-9})")
by_time = TrainConfig(time_budget=60, warmup=0.0)  # seconds; nobody knows how many steps
print(
    f"the peak is {by_time.learning_rate}; after half the time the rate is {learning_rate(7, by_time, 0.5):.4f}"
)
assert far < 1e-9

# %% [markdown]
# ### Exercise: a curve without an end
# ★ · 5 minutes · The first transformer was trained with this shape (Vaswani et al., 2017). It has to know no last step.
#
# The steps are numbered from 0, so `step` is the step number $k$ = step + 1 of the run. In the first `warmup` steps the rate rises in a line: the first has peak / warmup, the last of them the peak. From there it falls as one over the root of $k$, with no jump: after four times as many steps it is half as high. With peak 1 and warmup 100, the rate is 0.01 at step 0, 1 at step 99, ½ at step 399.

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
# ## A batch that does not fit
#
# A large batch makes a quieter gradient, and may not fit into memory. But `backward` *adds* to the gradients (lesson 02 calls it a mistake to forget). So four small batches, one after the other, and then one step. **Predict:** what has to be done to the four losses?

# %%
torch.manual_seed(1337)
model = GPT(GPTConfig(V, block_size=32, n_layer=2, n_head=4, n_embd=64)).double()
x, y = get_batch(ids, 32, 16, torch.Generator().manual_seed(1337))


def gradient(losses):
    model.zero_grad()
    for loss in losses:
        loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])

# %%
whole = gradient([model(x, y)[1]])
quarters = gradient(model(x[i : i + 4], y[i : i + 4])[1] / 4 for i in range(0, 16, 4))
forgotten = gradient(model(x[i : i + 4], y[i : i + 4])[1] for i in range(0, 16, 4))
far = (whole - quarters).abs().max().item()
print(f"largest difference ≈ {far:.0e} (below 1e-12: {far < 1e-12})")
print(f"without the division: {forgotten.norm() / whole.norm():.1f} times as long")
assert far < 1e-12

# %% [markdown]
# Each loss is a mean over its own quarter, and the mean of four means is the mean of all, because the quarters are equally large. So: divide by their number. (AdamW hardly notices the forgotten division, for it divides by the gradient's own size. Clipping does notice, and so does the log.) Only one quarter's activations are in memory at a time.
#
# ### Exercise: lines of unequal length
# ★★ · 8 minutes · Hugging Face's trainer had this bug for years (the repairs began in October 2024). Nothing crashes; some texts just count more than others.
#
# Our windows are equally long. Lines of a play are not. Let row b of `x` and `y`, both (B, T), be a line and its targets; where a line is over, `y` holds −100, and `F.cross_entropy` leaves those places out of its mean. The model is lesson 01's, a table (V, V) with a row of logits for each character. It gets the lines in pieces, `size` at a time; the last piece is smaller if they do not come out even:

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
print(
    f"derivative by the logit of 0 after 2: {at_once[2, 0]:.2f} at once, {in_pieces[2, 0]:.2f} two lines at a time"
)

# %% [markdown]
# Not even the sign is the same. The third line, with one target, is a piece of its own, and gets half the say. Mend it: the sum of all pieces has to be the gradient of the mean loss over *all* targets of the batch, whatever `size` is. Still run the model on at most `size` lines at a time. Each line has at least one target.

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
# ## Not too far at once
#
# One strange batch can have a gradient a hundred times as long as the others. **Clipping** (Pascanu et al., 2013) cuts it to a greatest length $c$ and leaves its direction: $g \leftarrow g \cdot \min(1, c / \lVert g \rVert)$, with the length over *all* parameters together.

# %%
weights = [torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)]
weights[0].grad, weights[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
length = torch.nn.utils.clip_grad_norm_(weights, max_norm=1.0)
print(
    f"length before: {length:.1f}; now the gradient is",
    [f"{weight.grad.item():.1f}" for weight in weights],
)

# %% [markdown]
# ## Decay for matrices
#
# Weight decay (Loshchilov and Hutter, 2019) multiplies a weight by $1 - \eta \lambda$ at each step. That seems little. **Predict:** what is left, after 10,000 steps at $\eta = 10^{-3}$ and $\lambda = 0.1$, of a weight that gets no gradient?

# %%
print(f"{(1 - 1e-3 * 0.1) ** 10_000:.2f}")

# %% [markdown]
# $e^{-1}$ again. For a matrix that is the purpose: what the text does not ask for fades. A norm's gain starts at 1, and means "leave it as it is"; pulled towards 0 it says something else. So decay goes to what has two dimensions or more.

# %%
#| export
def make_optimizer(model, config):
    """AdamW in one kernel, where there is one; weight decay for what has two dimensions or more."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = parameters[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=tuple(config.betas), fused=fused
    )

# %%
small = GPT(GPTConfig(V, block_size=32, n_layer=2, n_head=4, n_embd=64))
for group in make_optimizer(small, TrainConfig()).param_groups:
    numbers = sum(p.numel() for p in group["params"])
    print(
        f"decay {group['weight_decay']}: {len(group['params'])} tensors, {numbers:,} numbers, all of them "
        f"{'matrices' if group['params'][0].dim() > 1 else 'gains'}"
    )

# %% [markdown]
# `fused` does the whole step in one kernel instead of one for each operation; it is the same arithmetic.
#
# ## Half the bits
#
# Graphics cards multiply numbers of 16 bits several times as fast as those of 32. There are two kinds. **float16** has 5 bits for the exponent and 10 for the digits, **bfloat16** 8 and 7: the range of float32, with fewer digits.

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
# Three troubles. The first: a product can be too large for float16. The second: a small gradient becomes 0 in float16. The third holds for both: a step that is small beside its weight changes nothing. So in **mixed precision** (Micikevicius et al., 2018) the weights and the optimizer stay in float32, and only the large products are computed in 16 bits; `torch.autocast` knows which.
#
# For the second trouble, how small *are* gradients? Here are those of our small GPT. float16 makes 0 of what is below half its smallest number; and between that and the smallest normal one digits are missing, more and more of them.

# %%
gradients = whole[whole != 0].float()
for scale in (1, 65536):
    lost, cut = ((gradients * scale).abs() < low for low in (2.0**-25, 2.0**-14))
    print(
        f"times {scale:5}: ≈ {lost.float().mean():.2%} become 0, ≈ {cut.float().mean():.2%} have fewer digits"
    )
assert (gradients.half() == 0).any() and not ((gradients * 65536).half() == 0).any()
assert (gradients * 65536).half().isfinite().all()

# %%
fig, ax = plt.subplots(figsize=(8, 2.4), layout="constrained")
bins = torch.linspace(-14, 6, 101)
for scale, colour, name in ((1.0, "#D55E00", "gradients"), (65536.0, "#0072B2", "times 65,536")):
    ax.hist(
        (gradients.abs() * scale).log10().numpy(),
        bins=bins.numpy(),
        color=colour,
        alpha=0.6,
        label=name,
    )
ax.axvspan(-14, torch.tensor(2.0**-25).log10(), color="#BBBBBB", alpha=0.5, label="0 in float16")
ax.axvspan(
    torch.tensor(65504.0).log10(),
    6,
    hatch="//",
    facecolor="none",
    edgecolor="#BBBBBB",
    label="infinite",
)
ax.set(xlabel="size of a gradient, power of 10", ylabel="how many", yscale="log", xlim=(-14, 6))
ax.legend(frameon=False, fontsize=8)
show(
    fig,
    "Two histograms of the same shape. The gradients reach into the grey zone where float16 has only 0; "
    "multiplied by 65,536 they lie between the zones.",
)

# %% [markdown]
# **Loss scaling:** multiply the *loss* by a large number; by the chain rule all gradients are multiplied with it. Divide them again in float32, before clipping. If one of them has become infinite, leave the step out and halve the factor; if none has for 2,000 steps, double it. `torch.amp.GradScaler` does just that. In one line:

# %%
gradient_in_16_bits = (torch.tensor(1e-8) * 65536).half()
print(
    f"without: {torch.tensor(1e-8).half().item():.1e}, with: {gradient_in_16_bits.float().item() / 65536:.1e}"
)

# %% [markdown]
# ### Exercise: between backward and step
# ★★ · 8 minutes · Four lines that everybody writes once, in an order that matters (Micikevicius et al., 2018).
#
# `gradients` holds the gradients of all parameters as `backward` left them, in float16, of a loss that was multiplied by `scale`. Make ready what the optimizer gets:
#
# 1. If a single number anywhere is infinite or nan, there is no step: return the empty list.
# 2. Undo the scaling, in float32.
# 3. Clip: if the length over all tensors together is above `most`, shorten them all by one factor, so that it is `most`. A shorter gradient stays as it is, one of nothing but zeros too.
#
# Two gradients, [3·1024] and [4·1024], with scale 1024 and most 1: they were [3] and [4], together of length 5, and become [0.6] and [0.8].

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
# bfloat16 needs none of this. Cards have it from the generation of the A100 on; the T4 of the free notebooks has only float16 (PyTorch can imitate bfloat16 there, slowly, and says that it is "supported"; so we ask for the generation). A CPU is mostly no faster with either.

# %%
from chargpt_lib.devices import pick_precision

print(pick_precision("cpu"))

# %% [markdown]
# ## Compute it twice
#
# What fills the memory? Not the weights. `backward` needs what every operation saw on the way forward, so all that is kept until then. PyTorch lets us look at each tensor as it is put away:

# %%
def bytes_kept(model, x, y):
    """What the way forward keeps for the way back, without the weights themselves."""
    weights, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def put_away(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(put_away, lambda tensor: tensor):
        model(x, y)[1].backward()
    return sum(kept.values())

# %%
torch.manual_seed(1337)
deep = GPT(GPTConfig(V, block_size=32, n_layer=8, n_head=4, n_embd=64))
plain = bytes_kept(deep, x, y)
weights = 4 * deep.num_params()
print(
    f"weights: {weights / 1e6:.1f} MB; kept for the way back, with 16 windows of 32: ≈ {plain / 1e6:.1f} MB"
)
print(f"that is ≈ {plain / weights:.1f} times as much (more than 5 times: {plain / weights > 5})")
assert plain / weights > 5

# %% [markdown]
# **Checkpointing** (Chen et al., 2016; no relation of lesson 09's): let a block keep only what goes into it. When the way back arrives there, the block computes forward once more, keeps everything, and forgets it again. What stays in memory is the input of each block, and on the way back the inside of one block. It costs one more way forward: by count about a third more work.
#
# Our blocks know nothing of that, and need not. For the time of a `with`, each block's `forward` is hidden behind one that does it.

# %%
#| export
@contextmanager
def checkpointed(model):
    """Inside, each block keeps only what goes into it, and computes the rest again (Chen et al., 2016)."""
    if not (blocks := list(getattr(model, "blocks", ()))):
        raise ValueError(
            f"gradient_checkpointing is True, and a {type(model).__name__} has no blocks: leave it False"
        )
    for block in blocks:
        block.forward = partial(
            checkpoint, block.forward, use_reentrant=False
        )  # hides the method of its class
    try:
        yield
    finally:
        for block in blocks:
            del block.forward

# %%
before = torch.cat([p.grad.flatten() for p in deep.parameters()])
deep.zero_grad()
with checkpointed(deep):
    sparing = bytes_kept(deep, x, y)
after = torch.cat([p.grad.flatten() for p in deep.parameters()])
share = sparing / plain
print(
    f"kept on the way forward: ≈ {sparing / 1e6:.1f} MB, ≈ {share:.0%} of that (less than a third: {share < 0.33})"
)
print(
    f"gradients that differ, in the last bit or more: {(before != after).sum()} of {len(before):,}"
)
assert share < 0.33

# %%
fig, ax = plt.subplots(figsize=(7, 1.6), layout="constrained")
ax.barh(["checkpointed", "as usual"], [sparing / 1e6, plain / 1e6], color=["#0072B2", "#D55E00"])
ax.set(xlabel="megabytes kept on the way forward, 8 blocks")
show(fig, "Two bars: with checkpointing a small part of what is kept otherwise.")

# %% [markdown]
# ## Compiled, where that works
#
# `torch.compile` reads the model's code and writes kernels for it that do several operations at once. It needs a compiler, some patience at the first step, and luck with the operations. On a CPU it also needs an environment without a space in its path, because PyTorch passes that path unquoted to the linker; a graphics card does not need that linker. Where any of these is missing it fails, at the first call and with a page of messages. So we try one step; where it fails, the run goes on without it, and says so.

# %%
#| export
def compiled(model, x):
    """torch.compile's model; or the model, with a warning, where a trial step on x (B, T) fails."""
    try:
        with torch.random.fork_rng():
            (fast := torch.compile(model))(x, x)[1].backward()
        return fast
    except Exception as error:  # of many kinds: no compiler, an unknown operation, an old card
        lines = str(error).strip().splitlines() or [""]
        reason = next((line for line in lines if "error: " in line), lines[0])
        if "C++ compile error" in lines[0] and " " in torch.__file__:
            reason += (
                f"; PyTorch passes its own path, {torch.__file__}, unquoted to the linker: make the environment "
                "in a folder without a space (on a graphics card it does not matter)"
            )
        warnings.warn(
            f"torch.compile fails, so the training goes on without it: {type(error).__name__}: {reason}"
        )
        return model
    finally:
        model.zero_grad()

# %%
with mock.patch(
    "torch.compile", side_effect=RuntimeError("no C++ compiler on this computer")
):  # let us pretend
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        print("what comes back is the model itself:", compiled(small, x) is small)
print(said[0].message)

# %% [markdown]
# ## A stop that waits
#
# Ctrl-C strikes wherever Python happens to be; say, after half of the weights have taken their step. What would be saved then is no state that any step has led to. So the first Ctrl-C only leaves a note, and the loop looks at the note between two steps. (Who is impatient presses it again.)

# %%
#| export
@contextmanager
def interruptible():
    """Ctrl-C waits for the end of a step: it goes into the list that this yields. A second Ctrl-C does not wait."""
    pressed, before = [], signal.getsignal(signal.SIGINT)

    def note(number, frame):
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    if current_thread() is not main_thread():  # only that one gets signals
        yield pressed
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)

# %%
with interruptible() as pressed:
    for step in range(100):
        if step == 3:
            signal.raise_signal(
                signal.SIGINT
            )  # as if you had pressed Ctrl-C in the middle of step 3
        end_of_step = step
        if pressed:
            break
print("ended after step", end_of_step)

# %% [markdown]
# ## Alone
#
# In lesson 13 several processes share one run, each with a device of its own. Nobody should have to write the loop a second time for them. So what is done otherwise there stands in one place, and the loop asks it. For one process these are trifles:

# %%
#| export
class Alone:
    """What a run asks of the processes that share it. Here there is one; lesson 13 has several."""

    rank, size = 0, 1  # which process this is, of how many
    apart = nullcontext  # in this context gradients stay as they are; outside they become means over the processes
    clip, evaluate = staticmethod(torch.nn.utils.clip_grad_norm_), staticmethod(evaluate)

    def most(self, *numbers):  # of each one, the largest that any process has
        return numbers

    def mean(self, numbers):  # of a tensor, over the processes
        return numbers

    def gather(self, value):  # everybody's, in the order of the ranks
        return [value]

    def once(self, do):  # one process calls it; all have what it returns, or raises
        return do()

    def share(self, model):  # what computes the loss
        return model

    def gathered(self, run):  # what is saved
        return run.model, run.optimizer.state_dict()

    def load(self, run, which="last"):
        return load_checkpoint(run.config.out, run.model, run.tokenizer, which)

# %%
team = Alone()
print(
    f"process {team.rank} of {team.size}:",
    team.most(0.3, True),
    team.gather("my dice"),
    team.once(lambda: "done"),
)

# %% [markdown]
# ## Mistakes people make
#
# - **Sums for means.** Four batches without the division by four have a gradient four times as long, and everything is clipped.
# - **Clipping scaled gradients.** With float16, first `unscale_`, then clip; else the length is 65,536 times what you think.
# - **Weights in 16 bits.** `model.half()` is not mixed precision. The small steps at the end of the run change nothing.
# - **A cosine that is cut off.** Stopped at half its way it never came down; its loss is no measure of what the run could do.
# - **"bf16 is supported".** On a T4 it is an imitation. Ask `is_bf16_supported(including_emulation=False)`, or for the compute capability, as we do.
#
# How far you are:

# %%
progress()

# %% [markdown]
# ## What you have
#
# `TrainConfig`, `learning_rate`, `Windows`, `make_optimizer`, `pick_precision`, `checkpointed`, `compiled`, `interruptible`, `read_data` and `Alone`, in `chargpt_lib/recipe.py`.
#
# Next: [11 · Training in earnest](11_training_in_earnest.ipynb), which puts them into one loop.
