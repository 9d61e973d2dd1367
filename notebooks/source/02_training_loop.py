# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · The training loop: nobody counts
#
# > Training: the loop, the exact loss, the loss above the entropy by cause, and models trained once.
#
# You will build: the loss and its gradient by hand, then the loop that trains every model of this course.
# You need lessons 00 and 01, and to remember what a derivative is. On one core of a CPU the page takes about a quarter of a minute.
#
# In lesson 01 we counted, and counting gave the best table there is. But a model with a hundred thousand parameters has no counts to look up.
# Such a model starts with random numbers, and improves them a little, again and again. If that method is any good, it has to find the counted table too. So we know the right answer before we begin.

# %% [markdown]
# ## Softmax
#
# A model gives **logits** $z_1, \dots, z_V$, any numbers at all. Softmax makes probabilities of them: positive, with sum 1.
#
# $$p_c = \frac{e^{z_c}}{\sum_{c'} e^{z_{c'}}}$$

# %%
import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.plots import show

z = torch.tensor([2.0, 1.0, -1.0, 0.0])  # logits: one number for each of four characters
p = z.exp() / z.exp().sum()
print(p, p.sum())

# %% [markdown]
# **Predict:** what happens to the probabilities if we add 5 to all four logits?

# %%
print(F.softmax(z + 5, dim=0))

# %% [markdown]
# Nothing: $e^{z+5} = e^5 e^z$, and $e^5$ cancels. Only differences of logits count. (PyTorch uses that: it subtracts the largest logit first, so that no exponential overflows.)
#
# ### Exercise: sharper, or flatter
# ★ · 5 minutes · People change this setting more than any other when a model writes: $1/a$ is called the temperature.
#
# A model gave the probabilities $p$, and its logits are lost. Which probabilities would it have given if each logit had been $a$ times as large? To find out, start from any logits that give $p$. For $p = (0.8, 0.2)$ and $a = 2$ you should get about $(0.94, 0.06)$. (In a shape like `(..., V)`, the last axis has the length V, and any number of other axes, or none, may come before it.)

# %% tags=["exercise"] exercise="sharpened_probabilities"
def sharpened_probabilities(p, a):
    """p (..., V), the last axis sums to 1, and a > 0 -> (..., V): the probabilities if all logits are multiplied by a."""
    ### BEGIN SOLUTION
    return (a * p.log()).softmax(-1)
    ### END SOLUTION

# %%
check("sharpened_probabilities", sharpened_probabilities)

# %%
print(p)
print(F.softmax(2 * z, dim=0))  # twice the logits

# %% [markdown]
# The differences have doubled: the likeliest character is likelier still.
#
# ## The loss
#
# Suppose the character that really came is number $y = 1$. The model gave it the probability $p_y$, so it pays
#
# $$L = -\ln p_y = -z_y + \ln \sum_{c} e^{z_c} .$$

# %%
y = 1
by_definition = -p[y].log()
by_logits = -z[y] + z.exp().sum().log()
by_pytorch = F.cross_entropy(z[None], torch.tensor([y]))  # z[None]: a batch of one row
print(f"{by_definition:.4f} {by_logits:.4f} {by_pytorch:.4f}")

# %% [markdown]
# ### Exercise: any of these would do
# ★★★ · 15 minutes · This loss trains models on questions that have several right answers (Clark and Gardner, 2018), and the logarithm of 0 has ended many training runs in the middle of the night.
#
# After `O damp goose` a `!` would be right, and a `.` too. So let the model pay for the probability that it gave to all the right characters together. With $R$ the set of right characters,
#
# $$L = -\ln \sum_{c \in R} p_c .$$
#
# Logits may be 1000 or more, and $e^{1000}$ is too large for a float; a probability of $e^{-1000}$ is too small for one, and becomes 0. The loss is an ordinary number all the same. Start from the logits: write the loss as a difference of two logarithms of sums, as in the second form above. From each of the two sums, take out its own largest logit. The wrong characters have to stay out of the second sum altogether. Give them the logit $-\infty$: since $e^{-\infty} = 0$, they then add nothing to the sum. (`z.masked_fill(m, number)` is `z` with the number where `m` is True, and `~m` is the opposite of `m`.) For the logits $(0, 0, 0, 1000)$ and $R = \{0, 1\}$ the loss is $1000 - \ln 2 \approx 999.31$.

# %% tags=["exercise"] exercise="loss_of_any"
def loss_of_any(z, right):
    """z (N, V) logits, right (N, V) bool, in each row at least one True -> (N,): what each row pays, in nats."""
    ### BEGIN SOLUTION
    return z.logsumexp(-1) - z.masked_fill(~right, float("-inf")).logsumexp(-1)
    ### END SOLUTION

# %%
check("loss_of_any", loss_of_any)

# %% [markdown]
# ## The gradient, by hand
#
# The **gradient** of the loss is a list of slopes, one for each logit: how fast does the loss rise when that logit rises? The slopes say in which direction each logit should move. To find them, differentiate the second form. The first term gives $-1$ for the logit $z_y$ and $0$ for the others. The second gives
#
# $$\frac{\partial}{\partial z_c} \ln \sum_{c'} e^{z_{c'}} = \frac{e^{z_c}}{\sum_{c'} e^{z_{c'}}} = p_c .$$
#
# Together, with a vector $\mathbf{y}$ that is 1 at the right character and 0 elsewhere,
#
# $$\frac{\partial L}{\partial z} = p - \mathbf{y} .$$
#
# What the model believed, minus what came.

# %%
one_hot = F.one_hot(torch.tensor(y), 4)
gradient = p - one_hot
print(gradient)

# %% [markdown]
# Do not take this on trust: raise each logit by a millionth, and see how the loss changes.

# %%
before = F.cross_entropy(z.double()[None], torch.tensor([y]))
nudged = []
for c in range(4):
    moved = z.double().clone()
    moved[c] += 1e-6
    after = F.cross_entropy(moved[None], torch.tensor([y]))
    nudged.append((after - before).item() / 1e-6)
print([round(n, 4) for n in nudged])

# %%
assert torch.allclose(torch.tensor(nudged), gradient, atol=1e-4)

# %%
pictures = (
    (p, "p: believed", "#0072B2"),
    (one_hot, "y: what came", "#009E73"),
    (gradient, "gradient: p - y", "#D55E00"),
)
fig, axes = plt.subplots(1, 3, figsize=(9, 2.2), sharey=True, layout="constrained")
for ax, (values, title, colour) in zip(axes, pictures):
    ax.bar(range(4), values, color=colour)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(title=title, xticks=range(4), xlabel="character")
show(
    fig,
    "Three bar charts: what was believed, positive everywhere; what came, 1 at character 1; "
    "their difference, negative only at character 1.",
)

# %% [markdown]
# Descent goes *against* the gradient. The logit of the character that came goes up, in proportion to $1 - p_y$, its distance from certainty. The others go down, each in proportion to its own probability. Where the model was right and sure, nothing moves.
#
# ### Exercise: never quite sure
# ★★ · 10 minutes · The first Transformer was trained this way, with $\varepsilon = 0.1$ (Szegedy et al., 2016; Vaswani et al., 2017).
#
# $p_y$ never reaches 1, so the gradient pushes the right logit up for ever. **Label smoothing** wants less: its target is not $\mathbf{y}$ but $\mathbf{t} = (1 - \varepsilon)\,\mathbf{y} + \varepsilon / V$, with a small part for every character, the right one included. For $V = 4$, $\varepsilon = 0.2$ and $y = 1$ that is $(0.05, 0.85, 0.05, 0.05)$.
#
# One position pays $-\sum_c t_c \ln p_c$, and the loss $L$ is the mean over all positions of a batch. Derive $\partial L / \partial z$ on paper, then write it down.

# %% tags=["exercise"] exercise="smoothed_gradient"
def smoothed_gradient(z, y, epsilon):
    """z (B, T, V) logits, y (B, T) ids -> (B, T, V): the gradient of the mean label-smoothed loss with respect to z."""
    ### BEGIN SOLUTION
    t = (1 - epsilon) * F.one_hot(y, z.shape[-1]) + epsilon / z.shape[-1]
    return (z.softmax(-1) - t) / y.numel()
    ### END SOLUTION

# %%
check("smoothed_gradient", smoothed_gradient)

# %% [markdown]
# ## The gradient, by machine
#
# PyTorch remembers every operation on a tensor that has `requires_grad`, and `backward()` walks back through them with the chain rule. That is **autograd**. It finds the same gradient:

# %%
z.requires_grad_()
loss = F.cross_entropy(z[None], torch.tensor([y]))
loss.backward()
print(z.grad)
difference = (z.grad - gradient).abs().max()
small = bool(difference < 1e-6)
print(f"by hand and by machine, largest difference ≈ {difference:.1g} (below 1e-6: {small})")
assert torch.allclose(z.grad, gradient)

# %% [markdown]
# ## Gradient descent
#
# Here is the task of lesson 01 in miniature. In ten cases, some character was followed by `a` five times, by `b` three times, by `c` twice and by `d` never. The mean of $p - \mathbf{y}$ over the ten cases is $p$ minus these shares, so this gradient is zero where $p$ *equals* the shares, and nowhere else. We start from logits of zero and walk against the gradient. Each step is 0.5 times the gradient; this factor is the **learning rate**.

# %%
shares = torch.tensor([0.5, 0.3, 0.2, 0.0])
z = torch.zeros(4)
path = []
for step in range(200):
    p = z.softmax(0)
    path.append(p)
    z = z - 0.5 * (p - shares)  # the mean of p - y over the ten cases
print(path[0], path[20], path[199], sep="\n")

# %%
fig, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
for c, (char, colour) in enumerate(zip("abcd", ("#0072B2", "#E69F00", "#009E73", "#CC79A7"))):
    ax.plot([p[c] for p in path], color=colour, label=char)
    ax.axhline(shares[c], color=colour, linestyle=":", linewidth=1)
ax.set(
    xlabel="step",
    ylabel="probability",
    title="Descent finds the counted shares (dotted)",
    xlim=(0, 199),
)
ax.legend(ncols=4, frameon=False)
show(
    fig,
    "Four lines that start from 0.25 and approach 0.5, 0.3, 0.2 and 0; the last one is the slowest.",
)

# %% [markdown]
# Descent arrives without counting. `d` takes longest: no finite logit gives it the probability 0, and its gradient shrinks with its probability.
#
# ## The loop
#
# Here is the whole model and its loss. A box is something that computes, and the shape of what flows stands on each arrow: B texts of T characters, and V symbols in the alphabet. Only the orange box has parameters, the numbers that are learnt.

# %%
from chargpt_lib.drawings import draw_model

show(*draw_model("bigram"))

# %% [markdown]
# Now we do the same with the whole table, and each step uses a batch of random pairs instead of the whole text. Five lines are the heart of all training, from here to the largest models. An **optimizer** is the object that changes the parameters, given their gradients. Ours, `SGD`, does what we did above: it subtracts from each parameter its gradient, times the learning rate. (The learning rate is 10 now. A batch has 4,096 pairs, and only a few of them begin with any one character. So each row of the table has only a small part in the mean over the batch, and its gradient is small.)

# %%
from chargpt_lib.bigram import BigramLanguageModel
from chargpt_lib.data import CharTokenizer, get_batch, load_corpus
from chargpt_lib.plots import heatmap

CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus = load_corpus(CORPUS)
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
train_ids, val_ids = tokenizer.encode(corpus.train), tokenizer.encode(corpus.val)
V = tokenizer.vocab_size

# %%
torch.manual_seed(1337)
model = BigramLanguageModel(V)
optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
for step in range(101):
    x, y = get_batch(train_ids, block_size=1, batch_size=4096)  # 1. a batch of pairs
    logits, loss = model(x, y)  # 2. what does the model pay?
    optimizer.zero_grad()  # 3. forget the last gradient: backward adds to it
    loss.backward()  # 4. which way is up?
    optimizer.step()  # 5. a step down
    if step % 25 == 0:
        print(f"step {step:3}  loss ≈ {loss:.2f}")

# %% [markdown]
# ### Exercise: find two bugs
# ★★ · 10 minutes · Code with such a bug seldom raises an error. It draws a loss curve that looks almost right.
#
# The function below does the descent on plain tensors, without an `nn.Module` and without an optimizer. Its task is the one from above: five times `a`, three times `b`, twice `c`. It should find the shares 0.5, 0.3, 0.2 and 0. (`torch.no_grad()` keeps autograd from remembering the step itself. A plain tensor `t` has no `zero_grad`: `t.grad` is `None` before the first `backward()`, and `t.grad = None` forgets the gradient.)

# %%
def descend_with_bugs(table, x, y, steps, lr):
    table = table.clone().requires_grad_()
    for step in range(steps):
        p = table[x].softmax(-1)  # (N, V): one row for each pair
        loss = F.cross_entropy(p, y)
        loss.backward()
        with torch.no_grad():
            table -= lr * table.grad
    return table.detach()


came = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)  # after character 0
for steps in (5, 20, 80):
    table = descend_with_bugs(torch.zeros(4, 4), torch.zeros_like(came), came, steps, lr=0.5)
    found = table[0].softmax(0)
    print(steps, [round(share, 2) for share in found.tolist()])

# %% [markdown]
# After 5 steps the table is on its way. Then it goes too far: in the end it is sure of `a`, although `a` came only half the time. The function has two bugs. Write it without them.

# %% tags=["exercise"] exercise="descend_on_table"
def descend_on_table(table, x, y, steps, lr):
    """table (V, V) logits, pairs x, y (N,) ids -> (V, V): the table after `steps` steps of SGD; steps may be 0.

    Each step uses all N pairs: the loss is their mean cross-entropy, where row x[n] of the table predicts y[n].
    """
    ### BEGIN SOLUTION
    table = table.clone().requires_grad_()
    for step in range(steps):
        table.grad = None
        F.cross_entropy(table[x], y).backward()
        with torch.no_grad():
            table -= lr * table.grad
    return table.detach()
    ### END SOLUTION

# %%
check("descend_on_table", descend_on_table)

# %% [markdown]
# Descent on random batches is called stochastic gradient descent, SGD. SGD is slow here: rare characters hardly ever get a gradient. **Adam** (Kingma and Ba, 2015) gives each parameter a step size of its own: it keeps running means $m$ of the gradient and $v$ of its square, and steps by about $m / \sqrt{v}$ times the learning rate. Its `betas` $\beta_1, \beta_2$ are the shares of the old means that each step keeps: with 0.9 a mean remembers about $1 / (1 - 0.9) = 10$ steps, with 0.99 about 100. **AdamW** (Loshchilov and Hutter, 2019) adds weight decay: at each step it pulls the parameters a little towards zero. We use AdamW from here on.
#
# ## The learning rate, step by step
#
# How large should the steps be? At the start the running means are rough, so the rate begins small and **warms up**. In the middle it stays at its peak. At the end the noise of the batches keeps the parameters from settling, so the rate **decays** to nothing. The three parts together are called warmup-stable-decay. `lr_multiplier` gives the share of the peak for each step.

# %%
#| export
import sys
import time
from itertools import groupby
from math import isfinite

import torch
from torch.nn import functional as F
from tqdm import tqdm

from chargpt_lib.caching import (
    TrainedFiles,
    cache_file_name,
    cache_key,
    digest,
    load_state,
    own_rungs,
    record_rung,
    save_state,
)
from chargpt_lib.data import CharTokenizer, get_batch
from chargpt_lib.files import bundled_results
from chargpt_lib.playhouse import choice_weights, excess_by_kind
from chargpt_lib.plots import plot_excess, prepare_texts

# %%
#| export
def lr_multiplier(step, steps, warmup=0.05, decay=0.6):
    """The learning rate at a step, as a share of the peak: a linear warmup, a plateau, a linear decay to nothing.

    warmup and decay are shares of all steps.
    """
    # At least one step, so that a share of 0 divides by 1.
    rising = (step + 1) / max(warmup * steps, 1)
    falling = (steps - step) / max(decay * steps, 1)
    return min(rising, falling, 1.0)

# %%
fig, ax = plt.subplots(figsize=(7, 1.8), layout="constrained")
ax.plot([lr_multiplier(step, 1000) for step in range(1000)], color="#0072B2")
ax.set(xlabel="step", ylabel="share of the peak", title="warmup, plateau, decay")
show(
    fig,
    "A line that rises steeply to 1 within 50 steps, stays there until step 400, "
    "and falls linearly to 0 at step 1000.",
)

# %% [markdown]
# ## fit
#
# `fit` is the five lines with the usual equipment around them: AdamW, the schedule, a progress bar. It also has two safety belts: the gradient is **clipped** to a length of at most 1, so that one wild batch cannot throw the model far away; and a loss that is not a finite number stops the training at once, instead of an hour later. A training of minutes may be interrupted. So every half minute `fit` saves what it needs to continue; [lesson 09](09_checkpoints.ipynb) builds that.
#
# Weight decay is for matrices and tables. Parameters with only one dimension, which we shall meet later, are left alone. An optimizer takes its parameters in **groups**, each with settings of its own, so we make two groups.

# %%
#| export
def param_groups(model, weight_decay):
    """The parameters in two groups for AdamW: matrices and tables with weight decay, all others without."""
    # A matrix works without its small weights; a gain or a bias that is pulled to zero does not.
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]

# %% [markdown]
# And here is the loop. Look for the five lines in it.

# %%
#| export
SAVE_EVERY_SECONDS = 30


def fit(
    model,
    ids,
    steps,
    batch_size=32,
    lr=1e-3,
    weight_decay=0.1,
    seed=1337,
    checkpoint_path=None,
    callback=None,
):
    """Trains the model on random windows of a text -> the losses (steps,), in nats per character.

    ids (N,) int64; lr is the peak learning rate. checkpoint_path: a file in which the state of the training is saved
    every half minute, and from which an interrupted training continues. callback(step, model) is called before each step.

    Raises: FloatingPointError where the loss is no longer a finite number.
    """
    torch.manual_seed(seed)  # for models that use random numbers in training, as lesson 05's will
    # The batches have a generator of their own, so that such a model does not change them.
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(
        param_groups(model, weight_decay),
        lr=lr,
        betas=(0.9, 0.99),  # a shorter memory than PyTorch's 0.999, for trainings as short as ours
        fused=device.type in ("cpu", "cuda"),  # one kernel for all parameters, where there is one
    )
    losses = []
    if checkpoint_path:
        losses = load_state(checkpoint_path, model, optimizer, generator)
    saved = time.perf_counter()
    model.train()
    progress_bar = tqdm(
        range(len(losses), steps),
        initial=len(losses),
        total=steps,
        unit="step",
        mininterval=0.5,
        file=sys.stdout,  # on stderr, notebooks show it in red
    )
    with progress_bar:
        for step in progress_bar:
            if checkpoint_path and time.perf_counter() - saved > SAVE_EVERY_SECONDS:
                save_state(checkpoint_path, model, optimizer, generator, losses)
                saved = time.perf_counter()
            if callback:
                callback(step, model)
            # The rate depends on the step alone, so that a resumed training continues the same schedule.
            for group in optimizer.param_groups:
                group["lr"] = lr * lr_multiplier(step, steps)

            x, y = get_batch(ids, model.block_size, batch_size, generator, device)
            _, loss = model(x, y)
            optimizer.zero_grad()  # backward adds to what is there
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

            losses.append(loss.item())
            if not isfinite(losses[-1]):
                raise FloatingPointError(
                    f"the loss is {losses[-1]} at step {step}, after {losses[-4:-1]}; the peak "
                    f"learning rate is {lr}: try a tenth of it, from a new model"
                )
            if step % 20 == 0:
                progress_bar.set_postfix(loss=f"{losses[-1]:.3f}")
    model.eval()
    return torch.tensor(losses)

# %% tags=["nbval-ignore-output"]
torch.manual_seed(1337)
model = BigramLanguageModel(V)
losses = fit(model, train_ids, steps=600, batch_size=4096, lr=0.3, weight_decay=0.0)

# %%
pairs = train_ids[:-1] * V + train_ids[1:]
counts = torch.bincount(pairs, minlength=V * V).view(V, V) + 0.01  # lesson 01
counted = counts / counts.sum(1, keepdim=True)
optimum = -counted[val_ids[:-1], val_ids[1:]].log().mean().item()
fig, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
ax.plot(losses, color="#56B4E9", label="the loss of each batch")
ax.axhline(optimum, color="#D55E00", linestyle="--", label="the counted table")
ax.set(xlabel="step", ylabel="nats per character", title="Descent against counting")
ax.legend(frameon=False)
show(
    fig,
    "The loss falls steeply from 4 to the line of the counted table within 100 steps, and stays there.",
)

# %%
before, early, last = losses[0].item(), losses[100:200].mean().item(), losses[-100:].mean().item()
print(f"step 0: ≈ {before:.2f}; steps 100 to 199: ≈ {early:.2f}; the last 100: ≈ {last:.2f}")
off = last - optimum
print(
    f"the last 100 are ≈ {off:.3f} nats off the counted table (less than 0.05: {abs(off) < 0.05})"
)
assert before - last > 1 or corpus.name != "playhouse"
assert abs(early - optimum) < 0.1 or corpus.name != "playhouse"
assert abs(off) < 0.05 or corpus.name != "playhouse"

# %% [markdown]
# The model seems to arrive. But each point is the loss of one batch, on the training text. Has the model *really* arrived, on the validation text?
#
# ## How to measure
#
# There are two ways. **Sampled:** the mean over some random windows; quick, and never the same twice. **Exact:** cut the text into windows one after the other, so that the model predicts each character once. Published figures for small models are mostly sampled. We give the exact one.

# %%
#| export
@torch.no_grad()
def estimate_loss(model, ids, batches=50, batch_size=32, generator=None):
    """The mean loss over random windows, in nats per character: quick and rough."""
    model.eval()
    device = next(model.parameters()).device
    total = 0.0
    for _ in range(batches):
        x, y = get_batch(ids, model.block_size, batch_size, generator, device)
        _, loss = model(x, y)
        total += loss.item()
    return total / batches  # all batches are equally large, so the mean of their means is right


@torch.no_grad()
def per_token_loss(model, ids, stride=None, batch_size=64):
    """What the model pays for each character of a text but the first: ids (N,) -> (N - 1,), on the CPU.

    The text is cut into windows of block_size, the last one shorter. The first prediction in a window has only one
    character to go by; with stride < block_size the windows overlap, and each character (except the first ones of the
    text) has at least block_size - stride characters of past.

    Raises: ValueError where ids is no tensor (N,) or shorter than 2, and for a stride that would leave characters out.
    """
    if not isinstance(ids, torch.Tensor) or ids.dim() != 1:
        raise ValueError(
            f"ids is a {type(ids).__name__}, expected a tensor (N,): tokenizer.encode(corpus.val)"
        )
    if len(ids) < 2:
        raise ValueError("a text of fewer than 2 characters has nothing to predict")
    if stride is None:
        stride = model.block_size
    if not 1 <= stride <= model.block_size:
        raise ValueError(
            f"stride is {stride}; it must be from 1 to the block_size, {model.block_size}"
        )
    model.eval()
    device = next(model.parameters()).device
    # A window reads ids[start:end]. The window before it has already counted the predictions before `first`.
    windows = []
    for first in range(0, len(ids) - 1, stride):
        start = max(0, first + stride - model.block_size)
        end = min(first + stride, len(ids) - 1)
        windows.append((start, first, end))

    def shape(window):
        start, first, end = window
        return end - start, first - start

    pieces = []
    # A batch holds windows of one shape: those at both ends of the text may be shorter than the others.
    for (_, skipped), group in groupby(windows, key=shape):
        group = list(group)
        for i in range(0, len(group), batch_size):
            batch = group[i : i + batch_size]
            x = torch.stack([ids[start:end] for start, _, end in batch]).to(device)
            y = torch.stack([ids[start + 1 : end + 1] for start, _, end in batch]).to(device)
            logits, _ = model(x)  # (B, T, V)
            # cross_entropy expects the classes on the second axis: (B, V, T).
            nats = F.cross_entropy(logits.transpose(1, 2), y, reduction="none")  # (B, T)
            pieces.append(nats[:, skipped:].flatten().cpu())
    return torch.cat(pieces)

# %%
#| export
def evaluate(model, ids, stride=None):
    """The exact loss over a whole text: ids (N,) -> nats per id. Raises: ValueError.

    stride: from 1 to block_size, its default; a smaller one gives each character more past (see `per_token_loss`).
    """
    # In float64: a sum of a hundred thousand numbers in float32 loses the last digits.
    return per_token_loss(model, ids, stride).double().mean().item()

# %%
exact = evaluate(model, val_ids)
generator = torch.Generator().manual_seed(0)
estimates = [estimate_loss(model, val_ids, batches=20, generator=generator) for _ in range(30)]
fig, ax = plt.subplots(figsize=(7, 1.5), layout="constrained")
ax.plot(estimates, [0] * 30, "|", markersize=18, color="#0072B2", label="30 estimates")
ax.plot(exact, 0, "D", color="#D55E00", label="exact")
ax.set(xlabel="nats per character", yticks=[], title="Sampled and exact loss of the same model")
ax.legend(loc="center left", frameon=False, bbox_to_anchor=(1, 0.5))
show(
    fig,
    "Thirty ticks scattered around one diamond: the sampled losses vary, the exact loss does not.",
)

# %%
print(f"estimates from ≈ {min(estimates):.2f} to ≈ {max(estimates):.2f}; exact ≈ {exact:.4f}")
away = exact - optimum
near = abs(away) < 0.01
print(f"counted {optimum:.4f}: descent is ≈ {away:.4f} away from it (less than 0.01: {near})")
assert abs(away) < 0.01 or corpus.name != "playhouse"
assert (
    exact - min(estimates) > 0.01 and max(estimates) - exact > 0.01
) or corpus.name != "playhouse"

# %% [markdown]
# Are the tables alike, too?

# %%
descended = model.table.weight.detach().softmax(1)
fig, axes = plt.subplots(1, 2, figsize=(8, 3.9), layout="constrained", sharey=True)
for ax, table, title in zip(axes, (counted, descended), ("counted", "found by descent")):
    image = heatmap(ax, table.clamp_min(1e-4).log10(), vmin=-4, vmax=0)
    ax.set(title=title, xlabel="id of the second character")
axes[0].set_ylabel("id of the first character")
fig.colorbar(image, ax=axes, label="log10 of the probability", shrink=0.8)
show(fig, "Two square tables of probabilities, counted and learnt, that look the same.")

# %%
per_row = (counted - descended).abs().sum(1) / 2  # (V,): the part of each row that lies elsewhere
elsewhere = (per_row @ counts.sum(1) / counts.sum()).item()  # the mean over the text's characters
print(f"≈ {elsewhere:.1%} of the probability after a character lies on other characters", end=" ")
print(f"than in the counted table (less than 5%: {elsewhere < 0.05})")
assert elsewhere < 0.05 or corpus.name != "playhouse"

# %% [markdown]
# ## A single valley
#
# Why does descent find the counted table, and not some other place where the gradient is zero? The loss is **convex**: along each straight line through the space of tables it bends upwards, so it has one valley and no second one. To see this, move the logits $z$ of one row in the direction $u$. In $L = -z_y + \ln \sum_c e^{z_c}$ the first term is linear in $z$. The second derivative of the second term is a variance, and a variance is never negative:
#
# $$\frac{d^2}{ds^2} \ln \sum_c e^{z_c + s u_c} = \sum_c p_c \, (u_c - \bar u)^2 \ge 0, \qquad \bar u = \sum_c p_c u_c .$$
#
# The loss over the whole text is a mean of such terms. So a table with gradient zero lies on the floor of the valley. For row $b$ the gradient is the share of the pairs that begin with $b$, times ($p$ minus the counted shares of row $b$). It is zero at the counted table, whose loss on the training text is the conditional entropy $H(x_{t+1} \mid x_t)$ of lesson 01 (apart from the 0.01 that we added to each count). No bigram model can pay less.
#
# **Predict:** two tables of random logits pay about the same loss. Does the table halfway between them pay as much, more, or less?

# %%
def text_loss(table):
    """table (V, V) logits -> the mean loss over all pairs of the training text, from their counts."""
    return -(counts * table.log_softmax(1)).sum() / counts.sum()


torch.manual_seed(1337)
first, second, direction = torch.randn(3, V, V)
places = torch.linspace(-1, 2, 61)  # 0 is the first table, 1 the second, 0.5 is halfway
between = torch.stack([text_loss((1 - s) * first + s * second) for s in places])
best = counted.log()  # logits of the counted table
through = torch.stack([text_loss(best + s * direction) for s in places])
for name, table in (("first", first), ("halfway", (first + second) / 2), ("second", second)):
    print(f"{name:8} ≈ {text_loss(table):.2f} nats")
print(f"counted    {text_loss(best):.2f} nats")

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
axes[0].plot(places, between, color="#0072B2")
axes[0].plot([0, 1], [text_loss(first), text_loss(second)], "o--", color="#D55E00")
axes[0].set(title="Between two random tables", xlabel="0: the first table, 1: the second")
axes[1].plot(places, through, color="#0072B2")
axes[1].plot(0, text_loss(best), "o", color="#009E73")
axes[1].set(title="From the counted table (green)", xlabel="steps in a random direction")
axes[0].set_ylabel("nats per character")
show(
    fig,
    "Two curves that bend upwards. Left, the curve lies below the dashed line between the two random "
    "tables. Right, the lowest point is the counted table.",
)

# %% [markdown]
# The table halfway is better than both. Now measure the gradient at both kinds of tables, and how 100 random lines bend: the loss at three places of a line shows it, because a curve that bends upwards lies below its chord.

# %%
for name, table in (("a random table", first), ("the counted table", best)):
    table = table.clone().requires_grad_()
    [slopes] = torch.autograd.grad(text_loss(table), table)
    print(f"largest slope at {name}: ≈ {slopes.abs().max():.1g}")

upwards = 0
for _ in range(100):
    left, right = 3 * torch.randn(2, V, V)
    below_chord = (text_loss(left) + text_loss(right)) / 2 - text_loss((left + right) / 2)
    upwards += int(below_chord > 0)
print(f"{upwards} of 100 lines bend upwards")
assert upwards == 100

# %% [markdown]
# Enjoy this convex loss while it lasts: from lesson 03 on, parameters are multiplied by each other, and the loss is no longer convex.
#
# ## One line and its price
#
# Lesson 01 priced our line with the counted table. Now the trained one pays for it. **Predict:** how far will its mean price be from that of lesson 01?

# %%
from chargpt_lib.plots import price_table

line = "O damp goose!"
line_ids = tokenizer.encode(line)
with torch.no_grad():
    logits, _ = model(line_ids[:-1, None])  # (12, 1, V): a bigram model reads one character
probabilities = logits[:, 0].softmax(-1)  # (12, V)
print(price_table(line, probabilities[range(12), line_ids[1:]]))

# %% [markdown]
# ## When it goes wrong
#
# The learning rate is the first number to check. Here is the five-line loop once more, with three learning rates. **Predict** the three curves: with which rate does the loss crawl, with which does it arrive, and with which does it never settle?

# %%
curves = {}
for lr in (1.0, 100.0, 1000.0):
    torch.manual_seed(1337)
    tried = BigramLanguageModel(V)
    optimizer = torch.optim.SGD(tried.parameters(), lr=lr)
    curves[lr] = []
    for step in range(200):
        x, y = get_batch(train_ids, block_size=1, batch_size=4096)
        _, loss = tried(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curves[lr].append(loss.item())
    last = sum(curves[lr][-50:]) / 50
    print(
        f"rate {lr:6.0f}: the last 50 batches pay ≈ {last:.2f} nats, the counted table {optimum:.2f}"
    )

# %%
fig, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
names = ("too low", "right", "too high")
for (lr, curve), name, colour in zip(curves.items(), names, ("#E69F00", "#009E73", "#D55E00")):
    ax.plot(curve, color=colour, label=f"{lr:.0f}: {name}")
ax.axhline(optimum, color="black", linestyle="--", linewidth=1, label="the counted table")
ax.set(xlabel="step", ylabel="nats per character", yscale="log", title="Three learning rates")
ax.set_yticks([2, 4, 8, 16], ["2", "4", "8", "16"])
ax.minorticks_off()
ax.legend(frameon=False, title="learning rate")
show(
    fig,
    "Three loss curves. The lowest rate sinks slowly and is far above the counted table after 200 steps. "
    "The middle one arrives. The highest one jumps up at once and stays there.",
)

# %% [markdown]
# With the lowest rate the direction is right and the steps are too short. With the highest, each step jumps across the valley and lands further up on the other side. Both look like a bad model. The right rate differs from model to model and from optimizer to optimizer (AdamW takes 0.3 here), so try a few, each ten times the one before.
#
# A loss can also become larger than a float can hold. Here we plant an infinity in the table, to see how `fit` reacts.

# %% tags=["nbval-ignore-output"]
broken = BigramLanguageModel(V)
with torch.no_grad():
    broken.table.weight[0] = float("inf")
try:
    fit(broken, train_ids, steps=10)
except FloatingPointError as error:
    message = str(error)
    print(message)

# %%
assert "nan at step" in message

# %% [markdown]
# ## Caching trained models
#
# The next models train for minutes, and nobody wants to train them again because a notebook was restarted. So `load_or_fit(name, model, corpus, ...)` trains a model the first time and saves it; the next time it loads what it saved. It finds the right file by a **cache key**, the list of all that the result depends on: corpus, settings, classes, initial weights. It also measures the model and writes the result into the **ladder**, a list with one entry, a *rung*, for each lesson's model. (Keys and files are the business of `chargpt_lib/caching.py`, which you need not read.)

# %%
#| export
def _measure(model, corpus, tokenizer, sample_chars):
    """What the ladder shows of a model: its exact loss, its loss above the entropy by kind, and a sample."""
    val_ids = tokenizer.encode(corpus.val)
    nats = per_token_loss(model, val_ids).double()
    weights = choice_weights(corpus.val_spans) if corpus.val_spans else None
    if isinstance(tokenizer, CharTokenizer):
        paid = [None, *nats.tolist()]  # no model predicts the first character
    else:
        paid = nats_by_character(nats, val_ids, tokenizer, weights)
    excess = excess_by_kind(paid, corpus.val_spans) if corpus.val_spans else {}
    predicted = sum(price is not None for price in paid)
    prompt = val_ids[:1][None].to(next(model.parameters()).device)  # (1, 1)
    sample = tokenizer.decode(model.generate(prompt, sample_chars)[0].cpu()).strip()
    return {"loss": nats.sum().item() / predicted, "excess": excess, "sample": sample}

# %%
#| export
def load_or_fit(
    name,
    model,
    corpus,
    sample_chars=400,
    cache_dir=None,
    callback=None,
    tokenizer=None,
    **settings,
):
    """Trains the model on the corpus, or loads what an earlier run trained; enters the result into the ladder.

    cache_dir: a folder for the files, finished or not; by default, the cache. tokenizer: by default the characters of
    the corpus. callback, settings: as for `fit`.
    Returns {"loss": exact validation loss, "floor": the text's entropy, "seconds": of training, without those before
    an interruption, "excess": {kind: nats}, "losses": of each step, "sample": a text it wrote, "key": the cache key}.
    All losses are in nats per character, whatever the tokenizer is.

    Raises: ValueError where the model has another vocab_size than the tokenizer, FileNotFoundError where the folder
    above cache_dir does not exist.
    """
    if tokenizer is None:
        tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    if model.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            f"the model has vocab_size {model.vocab_size}, but corpus {corpus.name} needs "
            f"{tokenizer.vocab_size}: build it with vocab_size={tokenizer.vocab_size}"
        )
    key_settings = {**settings, "sample_chars": sample_chars}
    if not isinstance(tokenizer, CharTokenizer):
        key_settings["tokenizer"] = digest(repr(tokenizer.to_dict()))
    key = cache_key(name, model, corpus, key_settings)
    files = TrainedFiles(cache_file_name(key), cache_dir)

    result = files.load(model)
    if not result:
        start = time.perf_counter()
        ids = tokenizer.encode(corpus.train)
        losses = fit(model, ids, checkpoint_path=files.unfinished, callback=callback, **settings)
        losses = losses * (len(ids) / len(corpus.train))  # nats per id -> per character
        result = {
            "key": key,
            "floor": corpus.val_entropy,
            "seconds": time.perf_counter() - start,
            "losses": losses.tolist(),
            **_measure(model, corpus, tokenizer, sample_chars),
        }
        files.save(model, result)
    # After loading, too: the run that trained may have been stopped just before these lines,
    # and another model may have taken this rung in the meantime.
    files.remove_unfinished()
    record_rung(corpus.name, name, result)
    return result

# %% tags=["nbval-ignore-output"]
torch.manual_seed(1337)
model = BigramLanguageModel(V)
result = load_or_fit("bigram", model, corpus, steps=600, batch_size=4096, lr=0.3, weight_decay=0.0)
print(f"exact loss ≈ {result['loss']:.3f}, ≈ {result['seconds']:.0f} s of training\n")
print(result["sample"][:200])

# %% [markdown]
# If a model is trained again and you wonder why, compare the two keys: `result["key"]`. **Predict:** which of these three trainings would be loaded now?

# %%
def key_of(seed, steps):
    torch.manual_seed(seed)
    settings = {**result["key"]["settings"], "steps": steps}
    return cache_key("bigram", BigramLanguageModel(V), corpus, settings)


for seed, steps in ((1337, 600), (1338, 600), (1337, 601)):
    same = key_of(seed, steps) == result["key"]
    print(f"seed {seed}, {steps} steps: {'loaded' if same else 'trained anew'}")
    assert same == (seed == 1337 and steps == 600)

# %%
above = result["loss"] - optimum
print(f"≈ {above:.4f} nats above the counted table (less than 0.01: {above < 0.01})")
assert abs(above) < 0.01 or corpus.name != "playhouse"

# %% [markdown]
# ## Results so far: the ladder
#
# The first rung stands. Where you have not trained a rung yourself, the ladder takes the result that came with the course, and marks it "(recorded)".

# %%
#| export
MODEL_NAMES = ("bigram", "single head", "multi-head", "blocks", "GPT")


def ladder(corpus="playhouse"):
    """{rung: its result}, in the order of the lessons; "recorded" is False where you trained it yourself."""
    own = own_rungs().get(corpus, {})
    shipped = bundled_results().get(corpus, {})
    rows = {}
    for rung in MODEL_NAMES:
        # Your own result takes precedence over the one that comes with the course.
        if rung in own:
            rows[rung] = {**own[rung], "recorded": False}
        elif rung in shipped:
            rows[rung] = {**shipped[rung], "recorded": True}
    return rows

# %%
#| export
def plot_ladder(corpus="playhouse", up_to=MODEL_NAMES[-1]):
    """The ladder down to a rung as bars, stacked by kind where the corpus has spans -> matplotlib figure.

    Raises: ValueError for an unknown rung, and for a corpus without results.
    """
    if up_to not in MODEL_NAMES:
        raise ValueError(f"unknown model {up_to!r} (known: {', '.join(MODEL_NAMES)})")
    rows = {}
    for rung, row in ladder(corpus).items():
        if MODEL_NAMES.index(rung) <= MODEL_NAMES.index(up_to):
            label = f"{rung} (recorded)" if row["recorded"] else rung
            rows[label] = row
    if not rows:
        raise ValueError(
            f"there is no result for the corpus {corpus!r}: train one of the lessons' models "
            f"on it with load_or_fit"
        )
    # Only Playhouse has spans, so only its loss can be split by kind.
    if all(row["excess"] for row in rows.values()):
        excesses = {label: row["excess"] for label, row in rows.items()}
        floors = [row["floor"] for row in rows.values()]
        return plot_excess(excesses, floors[0])
    from matplotlib.pyplot import subplots  # imported here: training needs no pictures

    fig, ax = subplots(figsize=(9, 1.3 + 0.4 * len(rows)), layout="constrained")
    bars = ax.barh(list(rows), [row["loss"] for row in rows.values()], color="#0072B2")
    ax.bar_label(bars, fmt=" %.2f")
    ax.set(xlabel="nats per character", title=f"The ladder on {corpus}")
    ax.invert_yaxis()
    prepare_texts(fig)  # a corpus may have any name
    return fig

# %%
show(
    plot_ladder(corpus.name, up_to="bigram"),
    "One stacked bar: the bigram model overpays about one and a half nats for spelling, "
    "and less than half a nat for everything else.",
)

# %%
spelling = result["excess"].get("spelling", 0.0)
others = sum(result["excess"].values()) - spelling
print(f"overpaid for spelling: ≈ {spelling:.2f} nats, for everything else: ≈ {others:.2f}")
assert (spelling > 1.4 and others < 0.5) or corpus.name != "playhouse"

# %% [markdown]
# The next two rungs will not reach the 6-gram table of lesson 01. Their models are much smaller than that table; they are steps on the way to a model that beats it.
#
# On Shakespeare a bigram model writes like this:

# %% tags=["nbval-ignore-output"]
print(ladder("shakespeare")["bigram"]["sample"][:200])

# %% [markdown]
# And this is the whole ladder on Shakespeare, as it was measured when the course was made:

# %%
for rung, row in ladder("shakespeare").items():
    print(f"{rung:12} ≈ {row['loss']:.3f} nats per character")
assert list(ladder("shakespeare")) == list(MODEL_NAMES)

# %% [markdown]
# ## Loss by kind of text
#
# The bigram model still spells badly, and does everything else badly, too. It has one number for each pair and no way to see further. What is missing is not training: the model *is* at its optimum. What is missing is the past.
#
# ## Mistakes people make
#
# - **No `zero_grad`.** Gradients add up from step to step, so the steps grow with them.
# - **Softmax twice.** `F.cross_entropy` takes logits. Give it probabilities, and the model trains slowly, to a bad loss.
# - **Loss of the batch = loss of the model.** The loss of a batch jumps with the batch, and it is measured on the training text. Use `evaluate`.
# - **One learning rate for all models.** A new model or a new optimizer needs a new one.
#
# ## Exercises
#
# ### Exercise: AdamW, step by step
# ★★★ · 18 minutes · AdamW trains nearly every model that you will read about (Kingma and Ba, 2015; Loshchilov and Hutter, 2019).
#
# Step $t = 1, 2, \dots$ has a gradient $g$ and a learning rate $\eta_t$ of its own. Two running means, which start from 0, follow the gradient and its square, number by number:
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2$$
#
# Because the means start from 0, they are too small at first. If all gradients were 1, then $m$ should be 1 at every step, but with $\beta_1 = 0.9$ it is 0.1, then 0.19, then 0.271. So $\hat m$ is $m$, divided by what $m$ would be by now if all gradients had been 1; and $\hat v$ likewise with $\beta_2$. Then the parameters $w$ take their step (the $w$ on the right is the one from before the step):
#
# $$w \leftarrow w - \eta_t \left( \frac{\hat m}{\sqrt{\hat v} + \varepsilon} + \lambda w \right)$$
#
# $\varepsilon$ keeps the quotient finite where $\hat v$ is near 0, and $\lambda$ is the weight decay. With $\varepsilon = \lambda = 0$ the first step is $\pm \eta_1$, whatever the gradient.

# %% tags=["exercise"] exercise="adamw_steps"
def adamw_steps(w, gradients, rates, beta1, beta2, eps, decay):
    """w (C,), gradients (n, C) with a row for each step, rates a list of n numbers -> (C,): w after the n steps."""
    ### BEGIN SOLUTION
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        w = w - rate * (m_hat / (v_hat.sqrt() + eps) + decay * w)
    return w
    ### END SOLUTION

# %%
check("adamw_steps", adamw_steps)

# %% [markdown]
# What you have answered so far, and what is left:

# %%
progress()

# %% [markdown]
# ## How it is built: tokens of several characters
#
# In lesson 14 a token may stand for several characters. To compare losses per character, the ladder then shares the price of a token among its characters. Nothing on this page needs this function.

# %%
#| export
def nats_by_character(nats, ids, tokenizer, weights=None):
    """The price of each character of a text: nats (N - 1,) of all ids (N,) but the first -> a list.

    The characters of the first id have no price, None: no model predicts them. A token of several characters (lesson
    14) shares its nats among them: in proportion to the characters' weights, a list, or equally without weights.
    """
    paid = [None, *nats.tolist()]
    if isinstance(tokenizer, CharTokenizer):
        return paid
    shares = []
    pending = []  # ids that do not make whole characters yet
    total = 0.0  # their price
    for i, price in zip(ids.tolist(), paid):
        pending.append(i)
        total = None if price is None or total is None else total + price
        text = tokenizer.decode(pending)
        if text.endswith("\ufffd"):
            continue
        own = [0.0] * len(text)
        if weights is not None:
            own = weights[len(shares) : len(shares) + len(text)]
        if sum(own) == 0:
            own = [1.0] * len(text)
        for weight in own:
            shares.append(None if total is None else total * weight / sum(own))
        pending = []
        total = 0.0
    return shares

# %% [markdown]
# ## Summary
#
# `fit`, `estimate_loss`, `evaluate`, `load_or_fit` and the ladder, in `chargpt_lib/training.py`. They train everything up to the full GPT.
#
# Next: [03 · A single head](03_single_head.ipynb), which looks at the past.
