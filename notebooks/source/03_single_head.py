# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 · A single head: looking at the past
#
# You will build: one head of attention, from an average to the formula of the paper, and a model that uses it.
# You need lessons 00 to 02, and matrix products. On a CPU the page takes about a quarter of a minute.
#
# After `Meg: Who hid the goose, Hal?` and the end of the line comes `Hal:`. To know that, one has to look back, to the right place in the line before. The bigram model sees the end of the line and nothing else. This lesson gives the model eyes.

# %%
#| default_exp single_head

# %%
#| key
import math

import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.checks import NotAttempted, exercise

# %%
import matplotlib.pyplot as plt
import torch

from chargpt_lib.checks import NotAttempted, check, progress

x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [3.0, 0.0]])  # (T, C): 4 characters, 2 numbers for each
T, C = x.shape
for t in range(T):
    print(t, x[: t + 1].mean(0))  # the mean of what came so far

# %% [markdown]
# ## The average of the past
#
# Let each character be a vector (a row of `x`), and let each position take the mean of the rows up to itself: the plainest way of looking at everything so far. Above, with a loop.
#
# **Predict:** a matrix product takes weighted sums of rows. With which matrix $A$ is $A x$ the same as the loop? Its row $t$ has to hold the weights of the rows $0 \dots t$.

# %%
A = torch.tril(torch.ones(T, T))  # ones on and below the diagonal
A = A / A.sum(1, keepdim=True)
print(A)
print(A @ x)

# %% [markdown]
# The zeros above the diagonal are the important part: a position takes nothing from later ones. A model that could see the next character would not need to predict it.
#
# There is a second way to write the same matrix. Start from scores, all 0; put $-\infty$ where nothing may be seen; take the softmax of each row.

# %%
scores = torch.zeros(T, T)
hidden = torch.ones(T, T).triu(1).bool()  # True above the diagonal
masked = scores.masked_fill(hidden, float("-inf"))
print(masked.softmax(dim=-1))

# %% [markdown]
# $e^{-\infty} = 0$: exactly zero, not nearly. The advantage of this form: the scores need not be 0. Where the score is higher, the weight is larger.

# %%
from chargpt_lib.data import heatmap, show, visible

choosy = torch.tensor([[0.0, 0, 0, 0], [2, 0, 0, 0], [0, 3, 0, 0], [2, 0, 2, 0]])
fig, axes = plt.subplots(1, 2, figsize=(7.5, 3), layout="constrained")
for ax, s, title in zip(axes, (scores, choosy), ("equal scores: the average", "scores with preferences")):
    weights = s.masked_fill(hidden, float("-inf")).softmax(-1)
    image = heatmap(ax, weights, cells=[[f"{weight:.2f}" for weight in row] for row in weights])
    ax.set(title=title, xlabel="looks at", ylabel="position", xticks=range(T), yticks=range(T))
fig.colorbar(image, ax=axes, label="weight")
show(fig, "Two triangular matrices of weights. Left, each row is an equal average of the past. Right, single "
     "places stand out.")

# %% [markdown]
# ## Who asks, who answers
#
# Where do the scores come from? Each position makes three vectors out of its own:
#
# - a **query** $q$: what am I looking for?
# - a **key** $k$: what have I got?
# - a **value** $v$: what do I hand over if somebody looks at me?
#
# The score of position $t$ for position $s$ is the dot product $q_t \cdot k_s$: large where the key fits the query. Then row $t$ of the result is the average of the values, weighted by the softmax of the scores. With all rows on top of each other (Vaswani et al., 2017),
#
# $$\operatorname{Attention}(Q, K, V) = \operatorname{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}\right) V ,$$
#
# where $d$ is the length of a query, the **head size**.
#
# ## Why the square root?
#
# If the numbers in $q$ and $k$ are independent, with mean 0 and variance 1, their dot product is a sum of $d$ terms, and has variance $d$. Its typical size is $\sqrt{d}$. **Predict:** with 32 places to look at, what does a softmax make of scores of size 16 (a head of size 256), and what of scores of size 1?

# %%
torch.manual_seed(1337)
sizes = (4, 16, 64, 256, 1024)
spread, most, flow = {}, {}, {}
for d in sizes:
    for scale in (1.0, d**-0.5):
        s = (torch.randn(2000, 1, d) @ torch.randn(2000, d, 32)).squeeze(1) * scale  # scores of 32 places
        s.requires_grad_()
        p = s.softmax(-1)
        (p * torch.randn_like(p)).sum(-1).mean().backward()  # some use of the weights
        spread[d, scale], most[d, scale] = s.std().item(), p.max(-1).values.mean().item()
        flow[d, scale] = s.grad.norm(dim=-1).mean().item() * len(s)

# %%
fig, axes = plt.subplots(1, 3, figsize=(9.5, 2.7), layout="constrained")
titles = "standard deviation of a score", "mean largest weight of 32", "gradient that reaches the scores"
for ax, measured, title in zip(axes, (spread, most, flow), titles):
    ax.plot(sizes, [measured[d, 1.0] for d in sizes], "o--", color="#D55E00", label="q·k")
    ax.plot(sizes, [measured[d, d**-0.5] for d in sizes], "s-", color="#0072B2", label="q·k / √d")
    ax.set(xscale="log", xlabel="head size d")
    ax.set_title(title, fontsize=9)
axes[1].legend(frameon=False)
show(fig, "Without the square root the scores grow with the head size, the largest weight goes to 1, and the gradient "
     "falls to a fifth.")

# %%
for d in sizes:
    assert 0.9 < spread[d, 1.0] / d**0.5 < 1.1 and 0.9 < spread[d, d**-0.5] < 1.1
print("the spread of q·k is the square root of d, within 10%, for all five head sizes")

# %% [markdown]
# Without the root, a head of size 1024 gives nearly all its weight to one place. And a softmax that is sure passes little gradient on: its derivative is $\partial p_i / \partial s_j = p_i (\delta_{ij} - p_j)$, with $\delta_{ij} = 1$ for $i = j$ and 0 otherwise, and that is near 0 where every $p$ is near 0 or 1. A sure head is slow to change its mind. Divided by $\sqrt d$, all head sizes behave alike.
#
# ## In code

# %%
#| export
import torch
from torch import nn

from chargpt_lib.bigram import LanguageModel

# %%
#| export
def causal_mask(T, device=None):
    """(T, T) bool: True where position t (row) may look at position s (column), that is s <= t."""
    return torch.ones(T, T, dtype=torch.bool, device=device).tril()


def scaled_dot_product_attention(q, k, v, mask=None):
    """q, k (..., T, d), v (..., T, e), mask (T, T) bool -> the attended values (..., T, e) and the weights (..., T, T).

    Scores that the mask forbids become minus infinity, so their weights are exactly 0. Vaswani et al., 2017.
    """
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (..., T, T)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(-1)
    return weights @ v, weights

# %% [markdown]
# PyTorch has the same function. Ours should give the same numbers. (Note that this mask is True where one *may* look; above, `hidden` was True where one may not.)

# %%
q, k, v = torch.randn(3, 2, 5, 8)  # three tensors (B, T, d)
ours, weights = scaled_dot_product_attention(q, k, v, causal_mask(5))
theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
print(ours.shape, torch.allclose(ours, theirs, atol=1e-6))

# %% [markdown]
# ### Exercise: a window on the past
# ★ · 4 minutes · Long texts are read through such windows: what is far back costs nothing (Beltagy et al., 2020).
#
# Write a mask like `causal_mask`, but let each position see only the last `w` positions, itself among them.

# %% tags=["exercise"] exercise="window_mask"
def window_mask(T, w):
    """(T, T) bool: True where position t (row) may look at position s (column), that is t - w < s <= t."""
    ### BEGIN SOLUTION
    t, s = torch.arange(T)[:, None], torch.arange(T)
    return (s <= t) & (s > t - w)
    ### END SOLUTION

# %%
check("window_mask", window_mask)

# %%
#| key
exercise(
    window_mask, stars=1, minutes=4,
    cases=lambda draw: [[T, draw.integer(1, T)] for T in (1, 2, draw.integer(3, 9), draw.integer(10, 40))],
    wrong={
        ### BEGIN SOLUTION
        "the window is one position too wide: with itself, it sees w + 1":
            lambda T, w: torch.ones(T, T).tril().triu(-w).bool(),
        "no window: the whole past is seen": lambda T, w: torch.ones(T, T).tril().bool(),
        "rows and columns are exchanged: rows are the positions that look":
            lambda T, w: torch.ones(T, T).tril().triu(1 - w).bool().T,
        "True stands where one may not look": lambda T, w: ~torch.ones(T, T).tril().triu(1 - w).bool(),
        ### END SOLUTION
    },
    signs={
        "row {0} looks at position {1}: the mask lets the future in": lambda got, want, T, w: got.triu(1),
        "row {0} does not look at itself": lambda got, want, T, w: ~got & torch.eye(T).bool(),
    },
)

# %% [markdown]
# A **head** is three matrices that make queries, keys and values, and this function.

# %%
#| export
class Head(nn.Module):
    """One head of causal attention: (B, T, n_embd) -> (B, T, head_size)."""

    def __init__(self, n_embd, head_size):
        super().__init__()
        self.query = nn.Linear(n_embd, head_size, bias=False)
        self.key = nn.Linear(n_embd, head_size, bias=False)
        self.value = nn.Linear(n_embd, head_size, bias=False)

    def forward(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)  # (B, T, head_size) each
        out, weights = scaled_dot_product_attention(q, k, v, causal_mask(x.shape[1], x.device))
        self.weights = weights.detach()  # to look at
        return out

# %%
torch.manual_seed(1337)
head = Head(n_embd=16, head_size=8)
print(head(torch.randn(2, 5, 16)).shape)

# %% [markdown]
# ## Can it really not see the future?
#
# The mask looks right. Test it. If the output at position $t$ used the input at position $s$, some derivative of the one by the other would not be zero. Autograd can work out all of them.

# %%
x = torch.randn(1, 8, 16)
jacobian = torch.autograd.functional.jacobian(head, x)  # (1, 8, 8, 1, 8, 16): every output by every input
depends = jacobian.abs().sum(dim=(0, 2, 3, 5))  # (8, 8): output position, input position
fig, ax = plt.subplots(figsize=(4.2, 3.4), layout="constrained")
image = heatmap(ax, depends, vmax=None)
ax.set(xlabel="input position s", ylabel="output position t", title="Does output t depend on input s?")
fig.colorbar(image, label="sum of the |derivatives|")
show(fig, "A triangle: outputs depend on inputs at and before their own position, and on none after it.")

# %%
print("largest derivative with respect to the future:", depends.triu(1).max().item())
assert depends.triu(1).max() == 0 and (depends.tril() > 0).sum() == 36

# %% [markdown]
# Exactly 0. That is why we mask with $-\infty$. Some code uses a large negative number; let us see what a number that is not large enough does. Take 8 positions with equal scores, and $-5$ instead of $-\infty$. **Predict:** how much of its weight does the first position give to the 7 later ones? ($e^{-5} \approx 0.0067$)

# %%
leaky = torch.zeros(8, 8).masked_fill(~causal_mask(8), -5.0).softmax(-1)
print(f"row 0 gives {leaky[0, 1:].sum():.1%} of its attention to the future")

# %% [markdown]
# A few percent, and no error message. That is enough to learn to peek. When a training loss seems too good, check the mask.
#
# ## Where am I?
#
# One thing is missing. Shuffle the past: the same keys and values come in another order, and the weighted average is the same. **Attention does not know the order.** To it, `dog bites man` and `man bites dog` are the same.

# %%
past, now = torch.randn(1, 6, 16), torch.randn(1, 1, 16)
shuffled = past[:, torch.tensor([3, 0, 5, 1, 4, 2])]
in_order = head(torch.cat([past, now], dim=1))[:, -1]
out_of_order = head(torch.cat([shuffled, now], dim=1))[:, -1]
print(torch.allclose(in_order, out_of_order, atol=1e-6))

# %% [markdown]
# So we tell it: a second table holds one vector for each position, and what goes into the head is the sum of both, "what am I" plus "where am I".
#
# The model: look up, add, attend, and turn the result into logits. New weights are small (standard deviation 0.02), so that a new model is unsure: its loss should be about $\ln V$.

# %%
#| export
def small_weights(layer):
    """Normal(0, 0.02) for matrices and tables, zero for biases (Radford et al., 2018): model.apply(small_weights)"""
    if isinstance(layer, (nn.Linear, nn.Embedding)):
        nn.init.normal_(layer.weight, std=0.02)
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)


class SingleHeadLanguageModel(LanguageModel):
    """Characters and positions, one head, logits."""

    def __init__(self, vocab_size, block_size, n_embd):
        super().__init__(vocab_size, block_size)
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.attention = Head(n_embd, n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size)
        self.apply(small_weights)

    def compute_logits(self, idx):
        positions = self.position_embedding.weight[: idx.shape[1]]  # (T, C)
        x = self.token_embedding(idx) + positions  # (B, T, C)
        return self.lm_head(self.attention(x))  # (B, T, V)

# %%
from math import log

from chargpt_lib.data import CharTokenizer, load_corpus, pick_device, recorded

CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus, device = load_corpus(CORPUS), pick_device()
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
V = tokenizer.vocab_size

# %%
torch.manual_seed(1337)
model = SingleHeadLanguageModel(V, block_size=64, n_embd=64).to(device)
ids = tokenizer.encode("O damp goose!").to(device)
_, loss = model(ids[None, :-1], ids[None, 1:])
print(sum(p.numel() for p in model.parameters()), "parameters")
print("loss of the untrained model within 0.1 of ln V:", abs(loss.item() - log(V)) < 0.1)

# %%
from chargpt_lib.training import ladder, load_or_fit, plot_ladder

# %% tags=["nbval-ignore-output"]
result = load_or_fit("single head", model, corpus, steps=1500, batch_size=32, lr=1e-2)
print(f"exact loss {result['loss']:.3f} after {result['seconds']:.0f} s of training\n\n{result['sample']}")

# %%
better = ladder(corpus.name)["bigram"]["loss"] - result["loss"]
print("better than the bigram model by more than 0.05 nats:", better > 0.05)
assert better > 0.05 or corpus.name != "playhouse"

# %%
losses = torch.tensor(result["losses"])
fig, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
ax.plot(losses, color="#56B4E9", linewidth=0.8)
ax.axhline(ladder(corpus.name)["bigram"]["loss"], color="#D55E00", linestyle="--", label="bigram")
if corpus.val_floor:
    ax.axhline(corpus.val_floor, color="#009E73", linestyle=":", label="the floor")
ax.set(xlabel="step", ylabel="nats per character", title="One head learns", ylim=0)
ax.legend(frameon=False)
show(fig, "The loss of each batch: first down to the level of the bigram model, then below it, still far above "
     "the floor.")

# %% [markdown]
# Half a nat better than the bigram, with eyes alone. What does the head look at? Here are its weights on our line.

# %%
model(ids[None])
labels = visible("O damp goose!")
fig, ax = plt.subplots(figsize=(5, 4.2), layout="constrained")
image = heatmap(ax, model.attention.weights[0], rows=labels, columns=labels)
ax.set(xlabel="looks at", ylabel="position", title="Where the trained head looks")
fig.colorbar(image, label="weight")
show(fig, "A triangular heat map of attention weights over the characters of the line, brightest on the "
     "diagonal and just before it.")

# %%
weights = model.attention.weights[0].cpu()
print("each row sums to 1:", torch.allclose(weights.sum(-1), torch.ones(len(ids)), atol=1e-5))
print("weight on the future:", weights.triu(1).max().item())
assert weights.triu(1).max() == 0

# %% [markdown]
# It looks at itself and at the few characters before, now nearer, now further. (At itself it has to look: in this model the current character reaches the logits only through the head.) One head is one average, and it mixes all that it looks at into one vector; where each piece came from gets lost. To look at several places *separately* one needs several heads.
#
# ## Where the nats go now

# %%
show(plot_ladder(corpus.name, upto="single head"), "Stacked bars: the single head pays less than the bigram model, "
     "mostly in spelling.")

# %% tags=["nbval-ignore-output"]
row = recorded()["shakespeare"]["single head"]
print(f"On Shakespeare (recorded): {row['loss']:.3f} nats per character\n\n{row['sample'][:250]}")

# %%
assert row["loss"] < recorded()["shakespeare"]["bigram"]["loss"]

# %% [markdown]
# ## Mistakes people make
#
# - **Softmax over the wrong axis.** The weights of one *query* sum to 1: `softmax(-1)`, over the keys. With `softmax(-2)` it runs, and the future leaks in through the sums.
# - **Dividing by the root of the width of the model** instead of the head size. With one head they are the same; with many heads the weights come out too flat.
# - **A mask for `block_size` instead of T.** It works until somebody gives a shorter text.
# - **A transposed mask.** `triu` instead of `tril`: each position sees itself and the future. The loss is wonderful, what it writes is not.
#
# ## What you have
#
# `causal_mask`, `scaled_dot_product_attention`, `Head`, `SingleHeadLanguageModel`, in `chargpt_lib/single_head.py`.
#
# Next: [04 · Many heads](04_multi_head.ipynb).
