# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · Many heads: the same numbers, three ways
#
# You will build: attention with many heads, first as a loop, then with one matrix, then with PyTorch's fused kernel. All three give the same numbers; they do not take the same time.
# You need lesson 03. On a CPU the page takes about twenty seconds.
#
# A head makes one average of the past. If it looks at two places, it gets their mixture, as if one mixed two photographs. Two heads are two photographs.

# %%
#| default_exp multi_head

# %%
import matplotlib.pyplot as plt
import torch

from chargpt_lib.data import heatmap, show, visible
from chargpt_lib.single_head import Head, causal_mask, scaled_dot_product_attention, small_weights

a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])  # the values at two places
print("one head: ", 0.5 * a + 0.5 * b, "with the places exchanged:", 0.5 * b + 0.5 * a)
print("two heads:", torch.cat([a, b]), "with the places exchanged:", torch.cat([b, a]))

# %% [markdown]
# ## A loop over heads
#
# Take $H$ heads, each of size $C / H$; lay their results side by side, which makes $C$ numbers again; and mix them with one more matrix, the projection $W^O$ (Vaswani et al., 2017):
#
# $$\operatorname{MultiHead}(x) = \operatorname{concat}(\text{head}_1, \dots, \text{head}_H)\, W^O .$$
#
# Each head being narrower, all heads together have no more parameters than one wide head.

# %%
#| export
import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.bigram import LanguageModel
from chargpt_lib.single_head import Head, small_weights

# %%
#| export
def head_size(n_embd, n_head):
    """The width of each head. ValueError where the heads do not divide the width."""
    if n_head < 1 or n_embd % n_head:
        sizes = [n for n in range(1, n_embd + 1) if n_embd % n == 0]
        raise ValueError(f"{n_head} heads do not divide a width of n_embd = {n_embd}: take n_head from {sizes}")
    return n_embd // n_head


class MultiHeadAttention(nn.Module):
    """Heads one after the other, side by side, mixed: (B, T, C) -> (B, T, C). To read; the next class is to use."""

    def __init__(self, n_embd, n_head, bias=True):
        super().__init__()
        size = head_size(n_embd, n_head)
        self.heads = nn.ModuleList(Head(n_embd, size) for _ in range(n_head))
        self.proj = nn.Linear(n_embd, n_embd, bias=bias)

    def forward(self, x):
        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))

# %%
torch.manual_seed(1337)
loop = MultiHeadAttention(n_embd=64, n_head=4)
wide = Head(64, 64)
count = lambda module: sum(p.numel() for p in module.parameters())
print("one wide head:", count(wide), "parameters; four narrow heads:", sum(map(count, loop.heads)))
print("with the projection:", count(loop))
print(loop(torch.randn(2, 5, 64)).shape)
try:
    MultiHeadAttention(n_embd=64, n_head=5)
except ValueError as error:
    print(error)

# %% [markdown]
# ## One matrix
#
# Four heads with three matrices each are twelve matrix products, one after the other, and each is small. One large product is often faster; we shall measure it. So stack the twelve matrices on top of each other. One product gives, for each character, $3C$ numbers: all queries, all keys, all values.
#
# Then they have to be sorted: first by query, key and value, then by head. That takes a `view` and a `transpose`, and here most people lose their way. Follow it on numbers that one can recognise: 2 characters, 2 heads of size 3. The value `12` belongs to character 1, place 2.

# %%
T, H, D = 2, 2, 3
q = torch.arange(6) + 10 * torch.arange(T)[:, None]  # (T, C) with C = 6
print(q)
by_head = q.view(T, H, D).transpose(0, 1)  # (H, T, D)
print("head 0:", by_head[0].tolist(), " head 1:", by_head[1].tolist())

# %% [markdown]
# Head 0 has the first three numbers of both characters, head 1 the last three. Right. **Predict:** what does `q.view(H, T, D)`, which has the same shape, put into head 0?

# %%
wrong = q.view(H, T, D)
print("head 0:", wrong[0].tolist(), " head 1:", wrong[1].tolist())

# %% [markdown]
# All of character 0, and nothing of character 1! `view` never moves a number, it only cuts the row of numbers elsewhere. To exchange two axes one needs `transpose`. The wrong version runs without an error.

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 2), layout="constrained")
owner = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)  # which head each number belongs to
right = owner.view(2, 2, 3).transpose(0, 1)
pictures = (q, owner, "(T, C): colour = head"), (by_head, right, "view, transpose"), (wrong, owner, "view only: mixed")
for ax, (numbers, colours, title) in zip(axes, pictures):
    numbers, width = numbers.reshape(-1, numbers.shape[-1]), numbers.shape[-1]
    heatmap(ax, colours.reshape(-1, width), cells=numbers.tolist(), vmin=-0.3, vmax=1.3)
    ax.set(title=title, xticks=[], yticks=[])
    if len(numbers) == 4:
        ax.axhline(1.5, color="#D55E00", linewidth=3)
        ax.set_yticks([0.5, 2.5], ["head 0", "head 1"])
show(fig, "After view and transpose each head holds its own colour. With view alone each head gets one whole "
     "character, half of it the other head's.")

# %% [markdown]
# ## The class that we shall use
#
# One matrix for all heads, and PyTorch's own `scaled_dot_product_attention`, which never writes the (T, T) weights to memory (Dao et al., 2022). `is_causal=True` is our mask. Dropout is for lesson 05; here it is off.

# %%
#| export
class CausalSelfAttention(nn.Module):
    """All heads at once: (B, T, C) -> (B, T, C), with one qkv matrix and the fused kernel.

    bias: of the projection; qkv_bias: of queries, keys and values; dropout: of the weights and of the result.
    """

    def __init__(self, n_embd, n_head, bias=True, qkv_bias=False, dropout=0.0):
        super().__init__()
        self.n_head, self.head_size, self.dropout = n_head, head_size(n_embd, n_head), dropout
        self.qkv = nn.Linear(n_embd, 3 * n_embd, bias=qkv_bias)
        self.proj = nn.Linear(n_embd, n_embd, bias=bias)

    def forward(self, x):
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, self.head_size)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # (B, H, T, head_size) each
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        out = out.transpose(1, 2).reshape(B, T, C)  # heads side by side again
        return F.dropout(self.proj(out), self.dropout, self.training)

# %% [markdown]
# Is it the same thing? Copy the weights of the loop into it, and compare.

# %%
fused = CausalSelfAttention(64, 4)
with torch.no_grad():
    parts = [getattr(head, part).weight for part in ("query", "key", "value") for head in loop.heads]
    fused.qkv.weight.copy_(torch.cat(parts))
fused.proj.load_state_dict(loop.proj.state_dict())

x = torch.randn(3, 20, 64)
print(torch.allclose(loop(x), fused(x), atol=1e-6))

# %% [markdown]
# And the way in between: the one matrix, with our own attention from lesson 03, heads as one more axis.

# %%
def one_matrix(x, module):
    B, T, C = x.shape
    q, k, v = module.qkv(x).view(B, T, 3, module.n_head, module.head_size).permute(2, 0, 3, 1, 4)
    out, weights = scaled_dot_product_attention(q, k, v, causal_mask(T))  # (B, H, T, D), (B, H, T, T)
    return module.proj(out.transpose(1, 2).reshape(B, T, C)), weights

# %%
ours, weights = one_matrix(x, fused)
print(weights.shape, torch.allclose(ours, fused(x), atol=1e-6))

# %% [markdown]
# And the gradients, here of the input?

# %%
x.requires_grad_()
ways = loop, fused, lambda x: one_matrix(x, fused)[0]
gradients = [torch.autograd.grad(way(x).square().sum(), x)[0] for way in ways]
print([torch.allclose(gradient, gradients[0], atol=1e-5) for gradient in gradients])

# %% [markdown]
# ## Which is fastest?
#
# **Predict** the order before you run it. Forward and back, 8 texts of 256 characters, 8 heads, the ways in turn so that a busy machine hurts all alike.

# %%
from time import perf_counter

torch.manual_seed(0)
x = torch.randn(8, 256, 128, requires_grad=True)
loop_128, fused_128 = MultiHeadAttention(128, 8), CausalSelfAttention(128, 8)
ways = {"loop over heads": loop_128,
        "one matrix": lambda x: one_matrix(x, fused_128)[0],
        "fused kernel": fused_128}
seconds = {name: [] for name in ways}
for repeat in range(23):
    for name, way in ways.items():
        start = perf_counter()
        way(x).sum().backward()
        seconds[name].append(perf_counter() - start)
times = {name: 1000 * sorted(row[3:])[10] for name, row in seconds.items()}  # the median after three warm-ups

# %%
fig, ax = plt.subplots(figsize=(7, 1.8), layout="constrained")
bars = ax.barh(list(times), list(times.values()), color=["#D55E00", "#E69F00", "#0072B2"])
ax.bar_label(bars, fmt=" %.1f ms")
ax.set(xlabel="milliseconds", title="The same numbers, three ways", xlim=(0, 1.2 * max(times.values())))
ax.invert_yaxis()
show(fig, "Bars of the measured times of the three ways; the fused kernel is the fastest.")

# %%
assert times["fused kernel"] < 1.2 * min(times.values())  # the fastest, or as good as

# %% [markdown]
# Which of the first two wins depends on the machine; with one matrix, all the (T, T) weights of all heads lie in memory at once, and may not fit where memory is fast. The fused kernel never writes them. From here on, `CausalSelfAttention`.
#
# ## A model with four heads
#
# As in lesson 03, with the same width of 64 and the same training. Only the attention differs. (The projection makes the model a little larger.)

# %%
#| export
class MultiHeadLanguageModel(LanguageModel):
    """Characters and positions, many heads, logits."""

    def __init__(self, vocab_size, block_size, n_embd, n_head):
        super().__init__(vocab_size, block_size)
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.attention = CausalSelfAttention(n_embd, n_head)
        self.lm_head = nn.Linear(n_embd, vocab_size)
        self.apply(small_weights)

    def compute_logits(self, idx):
        x = self.token_embedding(idx) + self.position_embedding.weight[: idx.shape[1]]  # (B, T, C)
        return self.lm_head(self.attention(x))  # (B, T, V)

# %%
import copy
from math import log

from chargpt_lib.data import CharTokenizer, load_corpus, pick_device, recorded
from chargpt_lib.training import ladder, load_or_fit, plot_ladder

CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus, device = load_corpus(CORPUS), pick_device()
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
V = tokenizer.vocab_size

# %%
torch.manual_seed(1337)
model = MultiHeadLanguageModel(V, block_size=64, n_embd=64, n_head=4).to(device)
fresh = copy.deepcopy(model).cpu()  # to compare with, later
ids = tokenizer.encode("O damp goose!").to(device)
_, loss = model(ids[None, :-1], ids[None, 1:])
print(count(model), "parameters")
print("loss of the untrained model within 0.1 of ln V:", abs(loss.item() - log(V)) < 0.1)

# %% [markdown]
# **Predict:** by how much will four heads beat one? More or less than one head beat the bigram?

# %% tags=["nbval-ignore-output"]
result = load_or_fit("multi-head", model, corpus, steps=1500, batch_size=32, lr=1e-2)
print(f"exact loss {result['loss']:.3f} after {result['seconds']:.0f} s of training\n\n{result['sample']}")

# %%
better = ladder(corpus.name)["single head"]["loss"] - result["loss"]
print("better than the single head by more than 0.05 nats:", better > 0.05)
assert better > 0.05 or corpus.name != "playhouse"

# %% [markdown]
# What does each head look at? The fused kernel keeps no weights, but the way in between has the same ones.

# %%
def head_weights(model):
    """The weights of each head on our line, (H, T, T)."""
    with torch.no_grad():
        x = model.token_embedding(ids.cpu())[None] + model.position_embedding.weight[: len(ids)]
        return one_matrix(x, model.attention)[1][0]

# %%
weights = head_weights(model.cpu())
labels = visible("O damp goose!")
fig, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained", sharey=True)
for h, ax in enumerate(axes):
    image = heatmap(ax, weights[h], rows=labels, columns=labels)
    ax.set(title=f"head {h}", xlabel="looks at")
axes[0].set_ylabel("position")
fig.colorbar(image, ax=axes, label="weight", shrink=0.8)
show(fig, "Four triangular heat maps. Each head spreads its weight over the last characters in a pattern of "
     "its own.")

# %% [markdown]
# Most rows spread their weight over the last few characters, and each head does it in a way of its own. How different are they? Lay the weights of two heads on top of each other, and add up what they share: 1 if they are equal, 0 if they never look at the same place.

# %%
def in_common(w):
    """(H, T, T) -> (H, H): the weight that two heads share, on average over the positions from the fifth on."""
    return torch.minimum(w[:, None], w[None, :]).sum(-1)[..., 4:].mean(-1)

# %%
shared, others = in_common(weights), ~torch.eye(4, dtype=torch.bool)
fig, ax = plt.subplots(figsize=(4, 3.2), layout="constrained")
image = heatmap(ax, shared, cells=[[f"{value:.2f}" for value in row] for row in shared])
ax.set(title="What two heads have in common", xlabel="head", ylabel="head", xticks=range(4), yticks=range(4))
fig.colorbar(image, label="shared weight")
show(fig, "A table of four by four heads: 1 on the diagonal, about a half elsewhere.")

# %%
before = in_common(head_weights(fresh))[others].mean()
print(f"in common before training: {before:.2f}")
print("any two heads now have less than 0.9 in common:", bool(shared[others].max() < 0.9))
assert shared[others].max() < 0.9

# %% [markdown]
# Before training, all heads looked alike: at everything, equally. Nobody told them to divide the work. Chance made them a tiny bit different, and training widened the difference, because two heads that see the same are of no more use than one.
#
# ## Where the nats go now

# %%
show(plot_ladder(corpus.name, upto="multi-head"), "Stacked bars: the multi-head model pays much less for spelling "
     "than the single head. Names and closings are hardly better.")

# %% tags=["nbval-ignore-output"]
row = recorded()["shakespeare"]["multi-head"]
print(f"On Shakespeare (recorded): {row['loss']:.3f} nats per character\n\n{row['sample'][:250]}")

# %%
assert row["loss"] < recorded()["shakespeare"]["single head"]["loss"]

# %% [markdown]
# Spelling is much better. But the 4-gram table of lesson 01 was better still! The model sees the last characters, each in a vector of its own, and then has only one matrix to conclude from them. It can gather; it cannot think. That is the next lesson.
#
# ## Mistakes people make
#
# - **`view` without `transpose`.** As above. Test with `arange`, not with `randn`.
# - **`.view` after `.transpose`** on the way back is an error, and rightly so; `.reshape` or `.contiguous().view` copies.
# - **Dividing by the square root of C** instead of C / H.
# - **`is_causal=True` and a mask.** One of them.
#
# ## What you have
#
# `MultiHeadAttention` (to read), `CausalSelfAttention` (to use) and `MultiHeadLanguageModel`, in `chargpt_lib/multi_head.py`.
#
# Next: [05 · Blocks](05_blocks.ipynb).
