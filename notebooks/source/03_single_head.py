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
# > One head of causal self-attention, and the language model that uses it.
#
# You will build: one head of attention, from an average to the formula of the paper, and a model that uses it.
# You need lessons 00 to 02, and matrix products. On one core of a CPU the page takes about a quarter of a minute.
#
# After `Meg: Who hid the goose, Hal?` and the end of the line comes `Hal:`. To predict that, a model has to look back, to the right place in the line before. The bigram model sees the end of the line and nothing else. This lesson gives the model eyes.
#
# A **vector** is a row of numbers. The model of this lesson holds a table with one row for each character of the alphabet, the character's **embedding**. The rows start at random, and training adjusts them, as it adjusted the rows of lesson 02's table. So a text becomes a list of vectors, one for each of its characters. For now the vectors are made up: four characters, two numbers for each. The loop prints the mean of the vectors so far.

# %%
import matplotlib.pyplot as plt
import torch

from chargpt_lib.exercises import NotAttempted, check, passed, progress

# (T, C): T = 4 characters, a vector of C = 2 numbers for each
x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [3.0, 0.0]])
T, C = x.shape
for t in range(T):
    print(t, x[: t + 1].mean(0))  # the mean of rows 0 to t

# %% [markdown]
# ## The average of the past
#
# The loop above gives each position the mean of the rows of `x` up to its own: the plainest way of looking at everything so far.
#
# **Predict:** a matrix product takes weighted sums of rows. With which matrix $A$ is $A x$ the same as the loop? Row $t$ of $A$ has to hold the weights of the rows $0 \dots t$.

# %%
A = torch.tril(torch.ones(T, T))  # ones on and below the diagonal
A = A / A.sum(1, keepdim=True)
print(A)
print(A @ x)

# %% [markdown]
# The zeros above the diagonal are the important part: a position takes nothing from later ones. A model that could see the next character would not need to predict it.
#
# There is a second way to write the same matrix. Start from scores, all 0; put $-\infty$ where a position may not look; take the softmax of each row.

# %%
scores = torch.zeros(T, T)
hidden = torch.ones(T, T).triu(1).bool()  # True above the diagonal
masked = scores.masked_fill(hidden, float("-inf"))
print(masked.softmax(dim=-1))

# %% [markdown]
# $e^{-\infty} = 0$: exactly zero, not nearly. The advantage of this form is that the scores need not be 0. Where the score is higher, the weight is larger.

# %%
from chargpt_lib.plots import heatmap, show, visible

choosy = torch.tensor([[0.0, 0, 0, 0], [2, 0, 0, 0], [0, 3, 0, 0], [2, 0, 2, 0]])
fig, axes = plt.subplots(1, 2, figsize=(7.5, 3), layout="constrained")
for ax, s, title in zip(
    axes, (scores, choosy), ("equal scores: the average", "scores with preferences")
):
    weights = s.masked_fill(hidden, float("-inf")).softmax(-1)
    image = heatmap(ax, weights, cells=[[f"{weight:.2f}" for weight in row] for row in weights])
    ax.set(title=title, xlabel="looks at", ylabel="position", xticks=range(T), yticks=range(T))
fig.colorbar(image, ax=axes, label="weight")
show(
    fig,
    "Two triangular matrices of weights. Left, each row spreads its weight equally over the past. Right, "
    "single places stand out.",
)

# %% [markdown]
# ## Queries, keys and values
#
# Where do the scores come from? Each position makes three vectors out of its own vector:
#
# - a **query** $q$: what am I looking for?
# - a **key** $k$: what have I got?
# - a **value** $v$: what do I hand over to a position that looks at me?
#
# The score that position $t$ gives to position $s$ is the dot product $q_t \cdot k_s$: large where the key fits the query. Then row $t$ of the result is the average of the values, weighted by the softmax of the scores. With all rows stacked into matrices $Q$, $K$ and $V$ (Vaswani et al., 2017),
#
# $$\operatorname{Attention}(Q, K, V) = \operatorname{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}\right) V ,$$
#
# where $d$ is the length of a query, the **head size**. (Here $V$ is the matrix of the values, as in the paper; elsewhere V is the size of the vocabulary.)
#
# Let us compute one head by hand, for three characters, with queries, keys and values of two numbers each. The numbers are made up; a model learns its own. **Predict** before you look: in the last row of the scores, which of the three is the largest?

# %%
from chargpt_lib.drawings import draw_head

queries = [[1.0, 0.0], [0.5, 1.0], [2.0, 1.0]]
keys = [[1.0, 0.5], [0.0, 2.0], [1.0, 1.0]]
values = [[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]]
show(*draw_head("goo", queries, keys, values))

# %% [markdown]
# Follow the orange frame from left to right. The last character compares its query with all three keys; the softmax makes weights of its three scores; and its result is the mean of the three values with these weights. The first character has only itself to look at, so its result is its own value.
#
# ## Why the square root?
#
# The *variance* is the mean square of the distance from the mean; its root, the *standard deviation*, is the typical distance. Numbers are *independent* if none of them says anything about the others; then the variance of their sum is the sum of their variances. So if the numbers in $q$ and $k$ are independent, with mean 0 and variance 1, their dot product is a sum of $d$ terms and has variance $d$: its typical size is $\sqrt{d}$, 16 for a head of size 256.
#
# **Predict:** there are 32 places to look at. How large is the largest weight if the scores have size 16? And if they have size 1? (The cell also measures the gradient that reaches the scores. For that it gives each place a random value. The result is the weighted mean of the values, as in a head; `backward` then finds how it depends on each score.)

# %%
torch.manual_seed(1337)
sizes = (4, 16, 64, 256, 1024)
spread, most, flow = {}, {}, {}
for d in sizes:
    for scale in (1.0, d**-0.5):
        dots = torch.randn(2000, 1, d) @ torch.randn(2000, d, 32)  # 2000 queries, 32 keys for each
        a = (dots.squeeze(1) * scale).requires_grad_()  # (2000, 32): the scores
        p = a.softmax(-1)
        result = (p * torch.randn_like(p)).sum(-1)  # (2000,): each mean of 32 random values
        result.sum().backward()  # the gradient of each result, because no two share a score
        spread[d, scale] = a.std().item()
        most[d, scale] = p.max(-1).values.mean().item()
        flow[d, scale] = a.grad.norm(dim=-1).mean().item()

# %%
fig, axes = plt.subplots(1, 3, figsize=(9.5, 2.7), layout="constrained")
titles = (
    "standard deviation of a score",
    "mean largest weight of 32",
    "gradient that reaches the scores",
)
for ax, measured, title in zip(axes, (spread, most, flow), titles):
    ax.plot(sizes, [measured[d, 1.0] for d in sizes], "o--", color="#D55E00", label="q·k")
    ax.plot(sizes, [measured[d, d**-0.5] for d in sizes], "s-", color="#0072B2", label="q·k / √d")
    ax.set(xscale="log", xlabel="head size d")
    ax.set_title(title, fontsize=9)
axes[1].legend(frameon=False)
show(
    fig,
    "Without the square root the scores grow with the head size, the largest weight goes to 1, and the gradient "
    "falls to a fraction. With it, all three lines are nearly level.",
)

# %%
for d in sizes:
    for scale, name in (1.0, "q·k"), (d**-0.5, "q·k / √d"):
        print(
            f"d = {d:4}, {name:8}: spread ≈ {spread[d, scale]:5.2f}, largest weight ≈ {most[d, scale]:.2f}, "
            f"gradient ≈ {flow[d, scale]:.2f}"
        )

# %%
per_root = [spread[d, 1.0] / d**0.5 for d in sizes]
print(f"the spread of q·k, divided by √d: from ≈ {min(per_root):.3f} to ≈ {max(per_root):.3f}")
assert min(per_root) > 0.9 and max(per_root) < 1.1
assert most[256, 1.0] > 0.85 and most[256, 256**-0.5] < 0.25 and most[1024, 1.0] > 0.9
assert flow[1024, 1.0] / flow[1024, 1024**-0.5] < 0.4

# %% [markdown]
# So scores of size 16 (d = 256) give about nine tenths of the weight to one of the 32 places, and scores of size 1 give it about a sixth. Without the root, a head of size 1024 gives nearly all to one place. And where the head is large, so that the softmax is nearly sure of one place, little gradient passes through it: for $p = \operatorname{softmax}(a)$ the derivative is $\partial p_i / \partial a_j = p_i (\delta_{ij} - p_j)$, with $\delta_{ij} = 1$ for $i = j$ and 0 otherwise, and this derivative is near 0 where every $p$ is near 0 or 1. A head that is sure of one place learns slowly. (For small heads the root makes the gradient a little smaller.) If the scores are divided by $\sqrt d$, all head sizes behave alike.

# %% [markdown]
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
    """q, k (..., T, d), v (..., T, e), mask (T, T) bool -> the weighted means (..., T, e) and the weights (..., T, T).

    Scores that the mask forbids become minus infinity, so their weights are exactly 0. Vaswani et al., 2017.
    """
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (..., T, T)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(-1)  # over the keys: the weights of one query sum to 1
    return weights @ v, weights

# %% [markdown]
# PyTorch has the same function. Ours should give the same numbers. (Note that this mask is True where one *may* look; above, `hidden` was True where one may not.)

# %%
q, k, v = torch.randn(3, 2, 5, 8)  # three tensors (B, T, d)
ours, weights = scaled_dot_product_attention(q, k, v, causal_mask(5))
theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
difference = (ours - theirs).abs().max()
print(ours.shape)
print(
    f"ours and PyTorch's, largest difference ≈ {difference:.1g} (below 1e-6: {bool(difference < 1e-6)})"
)
assert torch.allclose(ours, theirs, atol=1e-6)

# %% [markdown]
# ### Exercise: a window on the past
# ★ · 5 minutes · Models read long texts through such windows, because what lies further back then costs nothing (Beltagy et al., 2020).
#
# Write a mask like `causal_mask`, but let each position see only the last `w` positions, including itself.

# %% tags=["exercise"] exercise="window_mask"
def window_mask(T, w):
    """(T, T) bool: True where position t (row) may look at position s (column), that is t - w < s <= t."""
    ### BEGIN SOLUTION
    t, s = torch.arange(T)[:, None], torch.arange(T)
    return (s <= t) & (s > t - w)
    ### END SOLUTION

# %%
check("window_mask", window_mask)

# %% [markdown]
# ### Exercise: what the weights tell the scores
# ★★★ · 12 minutes · Each training step computes this derivative for every head; fast libraries have it written by hand (Dao et al., 2022).
#
# A query has the dot products $r_1, \dots, r_n$ with $n$ keys, not yet divided by $\sqrt d$; its weights are $p = \operatorname{softmax}(r / \sqrt d)$. The layers after this one have already told us $g_i = \partial L / \partial p_i$, how the loss depends on each weight. Derive $\partial L / \partial r_j$. The derivative of a softmax stands above; its input is $a$ there and $r / \sqrt d$ here. Each score moves *all* weights, so the chain rule gives a sum over $i$. Most of it cancels.
#
# For $d = 1$, two equal scores and $g = (1, 0)$ the derivative is $(0.25, -0.25)$.

# %% tags=["exercise"] exercise="score_gradient"
def score_gradient(r, g, d):
    """r, g (..., n): dot products, and ∂L / ∂p for p = softmax(r / √d) -> (..., n): ∂L / ∂r.

    d: a whole number, the head size.
    """
    ### BEGIN SOLUTION
    p = (r / d**0.5).softmax(-1)
    return p * (g - (p * g).sum(-1, keepdim=True)) / d**0.5
    ### END SOLUTION

# %%
check("score_gradient", score_gradient)

# %% [markdown]
# A **head** consists of this function and of three matrices, which make the queries, keys and values.

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
        q = self.query(x)  # (B, T, head_size)
        k = self.key(x)
        v = self.value(x)
        mask = causal_mask(x.shape[1], x.device)
        out, weights = scaled_dot_product_attention(q, k, v, mask)
        # Kept so that we can look at them later; detached, because the whole graph would be kept, too.
        self.weights = weights.detach()
        return out

# %%
torch.manual_seed(1337)
head = Head(n_embd=16, head_size=8)
print(head(torch.randn(2, 5, 16)).shape)

# %% [markdown]
# ## Testing causality
#
# The mask looks right. But is the head really blind to the future? Test it. If the output at position $t$ used the input at position $s$, some derivative of that output with respect to that input would not be zero. Autograd can compute all these derivatives.

# %%
noise = torch.randn(1, 8, 16)
# (1, 8, 8, 1, 8, 16): the derivative of every output with respect to every input
jacobian = torch.autograd.functional.jacobian(head, noise)
depends = jacobian.abs().sum(dim=(0, 2, 3, 5))  # (8, 8): output position, input position
fig, ax = plt.subplots(figsize=(4.2, 3.4), layout="constrained")
image = heatmap(ax, depends, vmax=None)
ax.set(
    xlabel="input position s", ylabel="output position t", title="Does output t depend on input s?"
)
fig.colorbar(image, label="sum of the |derivatives|")
show(
    fig,
    "A triangle: outputs depend on inputs at and before their own position, and on none after it.",
)

# %%
print("largest derivative with respect to the future:", depends.triu(1).max().item())
print(
    "pairs of an output and an input at or before it:", int(torch.ones(8, 8).tril().sum()), end=", "
)
print("with a derivative that is not 0:", int((depends.tril() != 0).sum()))
assert depends.triu(1).max() == 0 and (depends.tril() != 0).sum() == 36

# %% [markdown]
# Exactly 0.
#
# ## Four ways to mask
#
# We put $-\infty$ into the scores before the softmax. Other code sets the weights to 0 after the softmax, or puts in a large negative number $-c$. How much weight does each way let through? Let a query have the scores $a_1, a_2$ on the past and two hidden places:
#
# $$\underbrace{\frac{e^{a_1} + e^{a_2}}{e^{a_1} + e^{a_2} + e^{a_3} + e^{a_4}}}_{\text{0 after the softmax: weight on the past}} \qquad \underbrace{\frac{2\, e^{-c}}{e^{a_1} + e^{a_2} + 2\, e^{-c}}}_{-c \text{ before it: weight on the hidden places}}$$
#
# The first ought to be 1, and the second 0. In half precision (float16) the largest number is 65,504, so $c$ is often 10,000 there. **Predict:** which ways are wrong if the scores of the past are near 0? And if they are near −12? And for a query that may look at nothing at all, such as a filler in a batch?

# %%
ways = {
    "0 after the softmax": lambda a, hide: a.softmax(-1).masked_fill(hide, 0.0),
    "-10 before it": lambda a, hide: a.masked_fill(hide, -10.0).softmax(-1),
    "-10,000 in float16": lambda a, hide: a.half().masked_fill(hide, -1e4).softmax(-1),
    "-inf before it": lambda a, hide: a.masked_fill(hide, float("-inf")).softmax(-1),
}
last_two = torch.tensor([False, False, True, True])  # the hidden places
near_0, near_minus_12 = torch.tensor([[0.0, 1.0, 2.0, 3.0], [-12.0, -11.0, 2.0, 3.0]])
print("                     past near 0        past near -12      nothing to see")
print("                     past     hidden    past     hidden    hidden")
for way, weigh in ways.items():
    row = []
    for scores in (near_0, near_minus_12):
        p = weigh(scores, last_two)  # (4,)
        row += [p[:2].sum(), p[2:].sum()]
    row.append(weigh(near_0, torch.ones(4, dtype=torch.bool)).sum())
    print("{:19}  {:.5f}  {:.5f}   {:.5f}  {:.5f}   {:.5f}".format(way, *row))

# %% [markdown]
# Zeros after the softmax leave nothing on the hidden places, and still the future leaks: the weights of the past do not sum to 1, because their denominator contains the hidden scores. A weight on the past then tells what comes. With $-10$ the hidden places get most of the weight as soon as the scores of the past are low enough. With $-10{,}000$ the exponential is exactly 0 in float16, unless *everything* is hidden: then all scores are equal, and the query spreads its weight over what it must not see. Only $-\infty$ never leaks; where nothing is visible it gives `nan`, the honest answer to 0 / 0, and the next exercise deals with it.
#
# Here is the leak through the denominator. We change a hidden score, and nothing else. **Predict:** which of the two weights on the past changes?

# %%
for way in ("0 after the softmax", "-inf before it"):
    before = ways[way](near_0, last_two)[0]
    after = ways[way](torch.tensor([0.0, 1.0, 2.0, 6.0]), last_two)[0]
    print(f"{way}: the first weight is {before:.4f}, then {after:.4f}")
assert before == after  # with -inf

# %% [markdown]
# Neither leak raises an error, and a model learns to use both. When a training loss seems too good, check the mask.
#
# ### Exercise: find the bug in the batch
# ★★ · 8 minutes · A server that answers several people at once has to get this right.
#
# Texts of different lengths stand in one batch, and all end at the right edge. The shorter ones have fillers before them, and no position may look at a filler. Text `b` begins at position `starts[b]`. Here are the weights of the second of two texts, with 2 fillers and 2 characters, and with equal scores.

# %%
def weights_with_a_bug(scores, starts):
    t = torch.arange(scores.shape[-1])
    # (B, T, T): not the future, not the fillers
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    return scores.masked_fill(~may_look, float("-inf")).softmax(-1)


print(weights_with_a_bug(torch.zeros(2, 4, 4), torch.tensor([0, 2]))[1])

# %% [markdown]
# The last two rows are right. The first two are the queries of the fillers. Nobody needs their output, but a single `nan` makes the mean loss `nan`, and the training stops. What did the softmax divide there? Write the function so that fillers look at nothing (a row of zeros), not even at each other, and all else stays as it is. Scores may be as large as 400, or as low as −400.

# %% tags=["exercise"] exercise="left_padded_weights"
def left_padded_weights(scores, starts):
    """scores (B, T, T), starts (B,) int64, from 0 to T - 1 -> (B, T, T): the weights, a row for each query.

    Query t of text b spreads its weight over the positions starts[b] to t; if t < starts[b], its row is 0.
    """
    ### BEGIN SOLUTION
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    return scores.masked_fill(~may_look, float("-inf")).softmax(-1).masked_fill(~may_look, 0.0)
    ### END SOLUTION

# %%
check("left_padded_weights", left_padded_weights)

# %% [markdown]
# ## Position embeddings
#
# One thing is missing. Shuffle the past: the same keys and values come in another order, and their weighted average stays the same. **Attention does not know the order.** The full stop at the end of `dog bites man.` would get the same result after `man bites dog.`

# %%
past, now = torch.randn(1, 6, 16), torch.randn(1, 1, 16)
shuffled = past[:, torch.tensor([3, 0, 5, 1, 4, 2])]
in_order = head(torch.cat([past, now], dim=1))[:, -1]
out_of_order = head(torch.cat([shuffled, now], dim=1))[:, -1]
difference = (in_order - out_of_order).abs().max()
print(
    f"in order and shuffled, largest difference ≈ {difference:.1g} (below 1e-6: {bool(difference < 1e-6)})"
)
assert torch.allclose(in_order, out_of_order, atol=1e-6)

# %% [markdown]
# So we tell the head the order. The table of embeddings holds a vector for each character; a second table holds one for each position, its **position embedding**. The head reads the sum of both, "what am I" plus "where am I".
#
# The model looks up both vectors, adds them, attends, and turns the result into logits. (The drawing writes D for the head size $d$.) New weights are small (standard deviation 0.02), so that a new model is unsure: its loss should be about $\ln V$.

# %%
from chargpt_lib.drawings import draw_model

show(*draw_model("single_head"))

# %%
#| export
def init_weights(layer):
    """Draws matrices and tables from Normal(0, 0.02), sets biases to zero (Radford et al., 2018).

    It treats one layer: `model.apply(init_weights)` calls it for each layer of a model.
    """
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
        self.apply(init_weights)  # small weights: the first guesses are nearly even

    def compute_logits(self, idx):
        positions = self.position_embedding.weight[: idx.shape[1]]  # (T, C)
        x = self.token_embedding(idx) + positions  # (B, T, C)
        return self.lm_head(self.attention(x))  # (B, T, V)

# %%
from math import log

from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import pick_device, pick_scale
from chargpt_lib.files import bundled_results

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
off = loss.item() - log(V)
print(f"loss at init ≈ {loss.item():.2f}, ln V = {log(V):.2f} (closer than 0.1: {abs(off) < 0.1})")
assert abs(off) < 0.1

# %%
from chargpt_lib.training import ladder, load_or_fit, plot_ladder

# %% tags=["nbval-ignore-output"]
scale = pick_scale(device)  # 1 on a CPU: see lesson 00
result = load_or_fit("single head", model, corpus, steps=1500, batch_size=32 * scale, lr=1e-2)
print(
    f"exact loss ≈ {result['loss']:.3f} after ≈ {result['seconds']:.0f} s of training\n\n{result['sample']}"
)

# %%
better = ladder(corpus.name)["bigram"]["loss"] - result["loss"]
print(f"better than the bigram model by ≈ {better:.2f} nats (more than 0.4: {better > 0.4})")
assert better > 0.4 or corpus.name != "playhouse"

# %%
losses = torch.tensor(result["losses"])
fig, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
ax.plot(losses, color="#56B4E9", linewidth=0.8)
ax.axhline(ladder(corpus.name)["bigram"]["loss"], color="#D55E00", linestyle="--", label="bigram")
if corpus.val_entropy:
    ax.axhline(corpus.val_entropy, color="#009E73", linestyle=":", label="the floor")
ax.set(xlabel="step", ylabel="nats per character", title="One head learns", ylim=0)
ax.legend(frameon=False)
show(
    fig,
    "The loss of each batch falls to the level of the bigram model, then below it, and stays far above "
    "the floor.",
)

# %% [markdown]
# About half a nat better than the bigram, with eyes alone. Here is lesson 02's line again. **Predict:** at which characters will the price have fallen most?

# %%
from chargpt_lib.plots import price_table


def next_probabilities(text):
    """The probability that the model gives to each next character of a text: (T - 1,)."""
    ids = tokenizer.encode(text).to(device)
    with torch.no_grad():
        logits, _ = model(ids[None, :-1])  # (1, T - 1, V)
    return logits[0].softmax(-1).gather(1, ids[1:, None])[:, 0].cpu()


line = "O damp goose!"
print(price_table(line, next_probabilities(line)))
if corpus.name == "playhouse":
    after_a_name = next_probabilities("Hal: " + line)[-12:]
    print(f"mean after 'Hal: '  ≈ {-after_a_name.log().mean():.2f} nats")

# %% [markdown]
# Compare this table with lesson 02's, row by row. The first rows may even cost more: in Playhouse an `O` with a space after it always follows a speaker's name, and here the line stands alone. The bigram model does not notice, because it never sees further back; the head does. The last number is measured with a speaker's name, `Hal: `, in front of the line. What does the head look at? Here are its weights on the line.

# %%
model(ids[None])
labels = visible("O damp goose!")
fig, ax = plt.subplots(figsize=(5, 4.2), layout="constrained")
image = heatmap(ax, model.attention.weights[0], rows=labels, columns=labels)
ax.set(xlabel="looks at", ylabel="position", title="Where the trained head looks")
fig.colorbar(image, label="weight")
show(
    fig,
    "A triangular heat map of attention weights over the characters of the line, brightest on the "
    "diagonal and just before it.",
)

# %%
weights = model.attention.weights[0].cpu()
difference = (weights.sum(-1) - 1).abs().max()
print(
    f"the rows sum to 1, with a largest error of ≈ {difference:.1g} (below 1e-5: {bool(difference < 1e-5)})"
)
print("largest weight on the future:", weights.triu(1).max().item())
assert weights.triu(1).max() == 0 and difference < 1e-5
near = torch.stack([weights.diagonal(-back).sum() for back in range(4)]) / len(ids)
print(
    f"of all weight, ≈ {near[0]:.0%} lies on the character itself, ≈ {near[1:].sum():.0%} on the three before it"
)
assert near.sum() > 0.6 or corpus.name != "playhouse"

# %% [markdown]
# ### Exercise: how many places?
# ★★ · 7 minutes · This number is large for a head that reads widely, and near 1 for a head that looks at a single place (Clark et al., 2019).
#
# A row of weights may be spread over many places, or all lie on one. Its entropy $H = -\sum_s p_s \ln p_s$ (lesson 00) says so in nats, and $e^H$ says it in places: four equal weights give 4, a single weight of 1 gives 1, and $(0.5, 0.5, 0)$ gives 2. A place with the weight 0 adds nothing. (In PyTorch 0 · ln 0 is `nan`: take care of that case.) Measure every row.

# %% tags=["exercise"] exercise="characters_looked_at"
def characters_looked_at(weights):
    """weights (..., T, T): rows that sum to 1 and may contain zeros -> (..., T): e to the entropy of each row."""
    ### BEGIN SOLUTION
    return torch.special.entr(weights).sum(-1).exp()
    ### END SOLUTION

# %%
check("characters_looked_at", characters_looked_at)

# %%
def nine_tenths(weights):
    """(..., T, T) -> (..., T): how few places hold nine tenths of the weight of each row. A rougher measure."""
    return (weights.sort(descending=True).values.cumsum(-1) < 0.9).sum(-1) + 1


# (T,)
looked = characters_looked_at(weights) if passed("characters_looked_at") else nine_tenths(weights)
for places, (char, number) in enumerate(zip(labels, looked), 1):
    print(f"{char}  looks at ≈ {number:4.1f} of {places:2} characters")
assert looked.min() > 0.99  # at least one place, and no more than there are
assert (looked / torch.arange(1, len(looked) + 1)).max() < 1.01

# %% [markdown]
# A character looks at itself and at the few characters before it. (It has to look at itself: in this model the current character reaches the logits only through the head.) One head is one average: it mixes all that it looks at into one vector, and blurs where each piece came from. To look at several places *separately*, a model needs several heads.
#
# ## Loss by kind of text

# %%
show(
    plot_ladder(corpus.name, up_to="single head"),
    "Stacked bars: the single head pays less than the bigram model, mostly in spelling.",
)

# %%
excess, before = result["excess"], ladder(corpus.name)["bigram"]["excess"]
saved = {kind: before[kind] - excess[kind] for kind in excess}
spelling = saved["spelling"] / sum(saved.values()) if saved else float("nan")
names = excess["copied name"] / before["copied name"] if saved else float("nan")
print(f"of what it saves, ≈ {spelling:.0%} is spelling")
print(f"of what copied names cost the bigram model above the floor, it still pays ≈ {names:.0%}")
assert (spelling > 0.6 and names > 0.6) or corpus.name != "playhouse"

# %% [markdown]
# Most of what the head saves is spelling, because it sees the letters before. Can it copy the `Hal:` with which this lesson began? No: most of what copied names cost the bigram model is still there. To copy a name, a model has to know that a name comes next, where the name stood, and how much of it is written already. A single average of the past cannot say all that. The eyes are there; lessons 04 to 06 put them to use.

# %% tags=["nbval-ignore-output"]
row = bundled_results()["shakespeare"]["single head"]
print(f"On Shakespeare (recorded):\n\n{row['sample'][:250]}")

# %%
on_shakespeare = bundled_results()["shakespeare"]["bigram"]["loss"] - row["loss"]
print(f"On Shakespeare (recorded): ≈ {row['loss']:.2f} nats per character,")
print(f"better than the bigram model by ≈ {on_shakespeare:.2f}")
assert on_shakespeare > 0.05

# %% [markdown]
# ## Mistakes people make
#
# - **Softmax over the wrong axis.** The weights of one *query* sum to 1: `softmax(-1)`, over the keys. With `softmax(-2)` the code runs, but the future leaks in: the denominator is then a sum over all queries, the later ones included.
# - **Dividing by the root of the width of the model** instead of the head size. With one head the two are the same; with many heads the weights come out too flat.
# - **A mask for `block_size` instead of T.** It works until a text is shorter.
# - **A transposed mask.** `triu` instead of `tril`: each position sees itself and the future. The loss is wonderful, but what the model writes is not.
#
# ## Exercises
#
# ### Exercise: a past in pieces
# ★★★ · 20 minutes · The scores of a long past do not fit into the fast memory of a chip. So the chip reads the past in pieces (Dao et al., 2022); in a ring of machines, each machine holds one piece (Liu et al., 2023).
#
# The past is cut into $P$ pieces. For a query, place $s$ has the score $a_s$ (already divided by $\sqrt d$) and the value $v_s$. Piece $i$ takes the softmax over its own places and reports two things: its result $o_i$, the average of its values with those weights, and the number $\ell_i = \ln \sum_{s \text{ in piece } i} e^{a_s}$. The piece keeps its scores and values to itself.
#
# From the reports alone, work out what attention over the whole past would have given: its result $o$ and its number $\ell$, for each of $T$ queries. For example, one piece reports $o_1 = 0$ and $\ell_1 = \ln 1$, and the other $o_2 = 4$ and $\ell_2 = \ln 3$; then $o = 3$ and $\ell = \ln 4$.
#
# $\ell_i$ may be 1000 for one query and −1000 for the next; $e^{1000}$ is too large for a float, and $e^{-1000}$ too small. Where a piece holds nothing that the query may see, it reports $o_i = 0$ and $\ell_i = -\infty$. At least one piece holds something.

# %% tags=["exercise"] exercise="merged_attention"
def merged_attention(outs, logs):
    """outs (P, T, d): the o of each piece and query, logs (P, T): the ℓ -> [o (T, d), ℓ (T,)] of the whole past."""
    ### BEGIN SOLUTION
    shares = logs.softmax(0)  # (P, T): the part of the whole weight that lies in each piece
    return [(shares[..., None] * outs).sum(0), logs.logsumexp(0)]
    ### END SOLUTION

# %%
check("merged_attention", merged_attention)

# %% [markdown]
# What you have answered so far, and what is left:

# %%
progress()

# %% [markdown]
# ## Summary
#
# `causal_mask`, `scaled_dot_product_attention`, `Head`, `SingleHeadLanguageModel`, in `chargpt_lib/single_head.py`.
#
# Next: [04 · Many heads](04_multi_head.ipynb).
