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
# > Multi-head attention: a loop over heads, one matrix for all, and the fused kernel.
#
# You will build: attention with many heads, first as a loop, then with one matrix, then with PyTorch's **fused kernel**, one routine that does the whole attention in a single step. All three give the same numbers, but not in the same time.
# You need lesson 03. On one core of a CPU the page takes about half a minute.
#
# A head makes one average of the past. If it looks at two places, it gets their mixture, like a double exposure of two photographs. Two heads are two photographs.

# %%
import math

import matplotlib.pyplot as plt
import torch

from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.plots import heatmap, price_table, show, visible
from chargpt_lib.single_head import Head, causal_mask, scaled_dot_product_attention

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
# Because each head is narrower, all heads together have no more parameters than one wide head.

# %%
#| export
import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.bigram import LanguageModel
from chargpt_lib.single_head import Head, init_weights

# %%
#| export
def head_size(n_embd, n_head):
    """The width of each head. Raises: ValueError where n_head does not divide n_embd."""
    if n_head < 1 or n_embd % n_head:
        sizes = [n for n in range(1, n_embd + 1) if n_embd % n == 0]
        raise ValueError(
            f"n_embd ({n_embd}) must be divisible by n_head ({n_head}); valid n_head: {sizes}"
        )
    return n_embd // n_head


class MultiHeadAttention(nn.Module):
    """Multi-head attention as a loop over heads: (B, T, C) -> (B, T, C). Read this class, and use `CausalSelfAttention`."""

    def __init__(self, n_embd, n_head, bias=True):
        super().__init__()
        size = head_size(n_embd, n_head)
        self.heads = nn.ModuleList(Head(n_embd, size) for _ in range(n_head))
        self.proj = nn.Linear(n_embd, n_embd, bias=bias)

    def forward(self, x):
        outs = [head(x) for head in self.heads]  # (B, T, head_size) each
        return self.proj(torch.cat(outs, dim=-1))  # side by side, (B, T, C), then mixed

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
# Four heads with three matrices each are twelve matrix products, one after the other, and each is small. One large product is often faster than twelve small ones. Whether the whole layer is faster is another question: the section “Which is fastest?” measures it. So we stack the twelve matrices on top of each other. One product gives, for each character, $3C$ numbers: all queries, all keys, all values.
#
# Then these numbers have to be sorted: first by query, key and value, then by head. That takes a `view` and a `transpose`, and most people lose their way here. Follow both on numbers that you can recognise: 2 characters, 2 heads of size 3. The value `12` is number 2 of character 1 (both counted from 0).

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
# All of character 0, and nothing of character 1! `view` never moves a number; it only cuts the row of numbers at other places. To exchange two axes, use `transpose`. The wrong version runs without an error.

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 2), layout="constrained")
owner = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)  # which head each number belongs to
right = owner.view(2, 2, 3).transpose(0, 1)
pictures = (
    (q, owner, "(T, C): colour = head"),
    (by_head, right, "view, transpose"),
    (wrong, owner, "view only: mixed"),
)
for ax, (numbers, colours, title) in zip(axes, pictures):
    numbers, width = numbers.reshape(-1, numbers.shape[-1]), numbers.shape[-1]
    heatmap(ax, colours.reshape(-1, width), cells=numbers.tolist(), vmin=-0.3, vmax=1.3)
    ax.set(title=title, xticks=[], yticks=[])
    if len(numbers) == 4:
        ax.axhline(1.5, color="#D55E00", linewidth=3)
        ax.set_yticks([0.5, 2.5], ["head 0", "head 1"])
show(
    fig,
    "After view and transpose each head holds its own colour. With view alone each head gets a whole "
    "character, half of which belongs to the other head.",
)

# %% [markdown]
# ### Exercise: the way back
# ★ · 5 minutes · Every attention layer takes this step, and the wrong version runs without an error.
#
# Each head has done its work, and the numbers lie in a tensor (B, H, T, D): B texts, H heads, T characters, D numbers for each. Now go back: lay the heads of each character side by side, head 0 first. For one text, two heads, two characters and D = 1:
#
# `[[[[1], [2]], [[3], [4]]]]` becomes `[[[1, 3], [2, 4]]]`. (After a `transpose`, `view` refuses to join axes that no longer lie side by side in memory; `reshape` copies them.)

# %% tags=["exercise"] exercise="merge_heads"
def merge_heads(x):
    """x (B, H, T, D) -> (B, T, H * D): for each character the numbers of head 0, then those of head 1, ..."""
    ### BEGIN SOLUTION
    B, H, T, D = x.shape
    return x.transpose(1, 2).reshape(B, T, H * D)
    ### END SOLUTION

# %%
check("merge_heads", merge_heads)

# %% [markdown]
# ## CausalSelfAttention
#
# This is the class that we shall use: one matrix for all heads, and PyTorch's own `scaled_dot_product_attention`, which never writes the (T, T) weights to memory (Dao et al., 2022). `is_causal=True` is our mask; `unbind(2)` takes a tensor apart along axis 2, here into queries, keys and values.
#
# Two things are for later. Dropout, which makes random numbers zero in training, is for lesson 05; here it is off. The argument `cache` is for lesson 08, where a model writes one character at a time and keeps the keys and values of the characters before; until then `cache` is `None`, and the line below `if cache is not None` never runs.

# %%
#| export
class CausalSelfAttention(nn.Module):
    """All heads at once: (B, T, C) -> (B, T, C), with one qkv matrix and the fused kernel.

    bias: of the projection; qkv_bias: of queries, keys and values; dropout: on the weights and on the result.
    """

    def __init__(self, n_embd, n_head, bias=True, qkv_bias=False, dropout=0.0):
        super().__init__()
        self.n_head = n_head
        self.head_size = head_size(n_embd, n_head)
        self.dropout = dropout
        self.qkv = nn.Linear(n_embd, 3 * n_embd, bias=qkv_bias)
        self.proj = nn.Linear(n_embd, n_embd, bias=bias)

    def forward(self, x, cache=None):
        """x (B, T, C) -> (B, T, C). cache: the keys and values of the positions before x (lesson 08)."""
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, self.head_size)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # (B, H, T, head_size) each
        mask = None
        if cache is not None:
            # Now the keys and values of all positions so far: (B, H, length, head_size) each
            k, v, mask = cache.update(self, k, v)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            # A single new position after a cache may see everything in it, and needs no mask.
            is_causal=mask is None and k.shape[2] == T,
            # The kernel knows nothing of eval mode: there, dropout has to be 0.
            dropout_p=self.dropout if self.training else 0.0,
        )
        out = out.transpose(1, 2).reshape(B, T, C)  # heads side by side again
        return F.dropout(self.proj(out), self.dropout, self.training)

# %% [markdown]
# Copy the weights of the loop into this class, and compare.

# %%
fused = CausalSelfAttention(64, 4)
with torch.no_grad():
    parts = [
        getattr(head, part).weight for part in ("query", "key", "value") for head in loop.heads
    ]
    fused.qkv.weight.copy_(torch.cat(parts))
fused.proj.load_state_dict(loop.proj.state_dict())

x = torch.randn(3, 20, 64)
difference = (loop(x) - fused(x)).abs().max()
print(
    f"loop and fused kernel, largest difference ≈ {difference:.1g} (below 1e-6: {bool(difference < 1e-6)})"
)
assert torch.allclose(loop(x), fused(x), atol=1e-6)

# %% [markdown]
# A third way lies between these two: one matrix for all heads, as here, but our own attention from lesson 03, with the heads as one more axis. `permute(2, 0, 3, 1, 4)` gives the new order of all axes at once: axis 2 comes first, then axis 0, and so on.

# %%
def one_matrix(x, module):
    B, T, C = x.shape
    q, k, v = module.qkv(x).view(B, T, 3, module.n_head, module.head_size).permute(2, 0, 3, 1, 4)
    # (B, H, T, D), (B, H, T, T)
    out, weights = scaled_dot_product_attention(q, k, v, causal_mask(T))
    return module.proj(out.transpose(1, 2).reshape(B, T, C)), weights

# %%
ours, weights = one_matrix(x, fused)
difference = (ours - fused(x)).abs().max()
print(weights.shape)
print(
    f"one matrix and fused kernel, largest difference ≈ {difference:.1g} (below 1e-6: {bool(difference < 1e-6)})"
)
assert torch.allclose(ours, fused(x), atol=1e-6)

# %% [markdown]
# Are the gradients the same, too? We compare those of the input.

# %%
x.requires_grad_()
ways = loop, fused, lambda x: one_matrix(x, fused)[0]
gradients = [torch.autograd.grad(way(x).square().sum(), x)[0] for way in ways]
print(f"the largest derivative is ≈ {gradients[0].abs().max():.1f}")
for name, gradient in zip(("fused kernel", "one matrix"), gradients[1:]):
    difference = (gradient - gradients[0]).abs().max()
    print(
        f"loop and {name}, largest difference ≈ {difference:.1g} (below 1e-5: {bool(difference < 1e-5)})"
    )
    assert torch.allclose(gradient, gradients[0], atol=1e-5)

# %% [markdown]
# Here is a fourth version, which nobody tested. It splits queries and keys by head and computes the weights. Its shapes are right, its rows sum to 1, and no position looks ahead.

# %%
def flat_weights(q, k, n_head):
    """q, k (B, T, C) -> (B, n_head, T, T): the causal weights of each head."""
    B, T, C = q.shape
    q, k = (part.view(B, T, n_head, C // n_head).transpose(1, 2) for part in (q, k))
    scores = q @ k.transpose(-2, -1) / C**0.5
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    return scores.masked_fill(~seen, float("-inf")).softmax(-1)


some_q, some_k = torch.randn(2, 200, 32, 64, generator=torch.Generator().manual_seed(1337))
for n_head in (1, 4, 16):
    largest = flat_weights(some_q, some_k, n_head)[:, :, -1].max(-1).values.mean()
    print(f"heads: {n_head:2}, mean of the largest of the 32 weights: {largest:.2f}")

# %% [markdown]
# ### Exercise: find the bug
# ★ · 4 minutes · Nothing fails. The model trains, a little worse, and nobody knows why.
#
# Queries and keys are independent numbers of variance 1. Lesson 03 found that with such numbers all head sizes behave alike. In the output above they do not: the more heads, the flatter the weights (32 equal weights would be 1/32 = 0.03 each). Write the function without the bug.

# %% tags=["exercise"] exercise="multi_head_weights"
def multi_head_weights(q, k, n_head):
    """q, k (B, T, C) -> (B, n_head, T, T): what flat_weights should have returned."""
    ### BEGIN SOLUTION
    B, T, C = q.shape
    q, k = (part.view(B, T, n_head, C // n_head).transpose(1, 2) for part in (q, k))
    scores = q @ k.transpose(-2, -1) / (C // n_head) ** 0.5
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    return scores.masked_fill(~seen, float("-inf")).softmax(-1)
    ### END SOLUTION

# %%
check("multi_head_weights", multi_head_weights)

# %% [markdown]
# ## Which is fastest?
#
# **Predict** the order before you run the cell. Each way runs forward and backward, with 8 texts of 256 characters and 8 heads. The three ways run in turn, again and again, so that a busy machine slows down all three equally.

# %%
from time import perf_counter

torch.manual_seed(0)
texts = torch.randn(8, 256, 128, requires_grad=True)
loop_128, fused_128 = MultiHeadAttention(128, 8), CausalSelfAttention(128, 8)
ways = {
    "loop over heads": loop_128,
    "one matrix": lambda x: one_matrix(x, fused_128)[0],
    "fused kernel": fused_128,
}
seconds = {name: [] for name in ways}
for repeat in range(23):
    for name, way in ways.items():
        start = perf_counter()
        way(texts).sum().backward()
        seconds[name].append(perf_counter() - start)
# The median after three warm-ups.
times = {name: 1000 * sorted(row[3:])[10] for name, row in seconds.items()}

# %%
fig, ax = plt.subplots(figsize=(7, 1.8), layout="constrained")
bars = ax.barh(list(times), list(times.values()), color=["#D55E00", "#E69F00", "#0072B2"])
ax.bar_label(bars, fmt=" %.1f ms")
ax.set(
    xlabel="milliseconds", title="The same numbers, three ways", xlim=(0, 1.2 * max(times.values()))
)
ax.invert_yaxis()
show(
    fig,
    "Three bars: "
    + "; ".join(f"{name} ≈ {milliseconds:.1f} ms" for name, milliseconds in times.items()),
)

# %%
for name, milliseconds in times.items():
    ratio = milliseconds / times["fused kernel"]
    print(f"{name:15}  ≈ {milliseconds:6.1f} ms, ≈ {ratio:.1f} times as long as the fused kernel")

# %% [markdown]
# How much the times differ depends on the machine, and so does the order of the first two ways. Each step of the loop works on an eighth of the (T, T) weights, which may fit into fast memory; the second way works on all of them at once. The fused kernel never writes them. The memory does not depend on the machine: we measure what each way keeps until the gradient comes back. (PyTorch hands each tensor that it keeps to `count_it` first.)

# %%
def megabytes_kept(way):
    """What a way keeps for `backward`, in MiB."""
    kept = {}

    def count_it(tensor):
        memory = tensor.untyped_storage()
        kept[memory.data_ptr()] = memory.nbytes()  # each piece of memory once
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count_it, lambda tensor: tensor):
        way(texts).sum()
    return sum(kept.values()) / 2**20

# %%
memory_kept = {name: megabytes_kept(way) for name, way in ways.items()}
print({name: f"≈ {megabytes:.0f} MiB" for name, megabytes in memory_kept.items()})
assert memory_kept["loop over heads"] - memory_kept["fused kernel"] > 10
assert memory_kept["one matrix"] - memory_kept["fused kernel"] > 10

# %% [markdown]
# In the first two ways, the weights alone are 16 MiB, as you will see in a moment. From here on, we use `CausalSelfAttention`.
#
# ## What a longer text costs
#
# For one text of T characters, the projections (three for queries, keys and values, and $W^O$) take $4\, T C^2$ multiply-adds. Each of the $T^2$ scores is a dot product over $C / H$ numbers, in $H$ heads, and the weighted mean of the values costs as much again: $2\, T^2 C$ together. The weights are $H\, T^2$ numbers in each layer. **Predict:** by which factor does each of these three numbers grow when T doubles? And the time: nearer to 2 or to 4, for short texts and for long ones?

# %%
def milliseconds_for(way, x):
    """The median of five forward passes, after a warm-up."""
    measured = []
    with torch.no_grad():
        for repeat in range(6):
            start = perf_counter()
            way(x)
            measured.append(1000 * (perf_counter() - start))
    return sorted(measured[1:])[2]


C, H = 128, 8
lengths = [64, 128, 256, 512, 1024]
written, never_written = [], []
print("   T  projections  attention  weights     written out   fused kernel")
for n in lengths:
    one_text = torch.randn(1, n, C)
    written.append(milliseconds_for(ways["one matrix"], one_text))
    never_written.append(milliseconds_for(fused_128, one_text))
    print(
        f"{n:4}  {4 * n * C**2 / 1e6:7.1f} M  {2 * n**2 * C / 1e6:8.1f} M  {H * n**2 * 4 / 2**20:6.2f} MiB"
        f"  ≈ {written[-1]:7.2f} ms  ≈ {never_written[-1]:7.2f} ms"
    )

# %%
for name, row in (("written out", written), ("fused kernel", never_written)):
    factors = [f"≈ {later / earlier:.1f}" for earlier, later in zip(row, row[1:])]
    print(f"{name:12}  time when T doubles: times", ", ".join(factors))

# %% [markdown]
# The projections double and the square terms quadruple; from T = 2C on, the square is the larger part. A factor well below 4 says that fixed costs and the projections still count; a factor above 4 says that the weights no longer fit into the fast memory next to the processor. The fused kernel computes the scores too, or half of them if it skips the masked blocks. But it never writes the weights, so its *memory* grows only with T.
#
# ### Exercise: how long may the text be?
# ★ · 4 minutes · Because of this limit the first transformers read a few hundred words at a time; the fused kernel lifted it (Dao et al., 2022).
#
# One layer makes weights (B, H, T, T), all in memory at once: B texts, H heads, T characters. A number takes `number_bytes` bytes. The weights that the mask makes zero are written, too. Compute the longest text whose weights still fit into `memory` bytes. With 100 bytes, one text, one head and 4 bytes a number, that text has 5 characters, since 5 · 5 · 4 = 100.

# %% tags=["exercise"] exercise="longest_text"
def longest_text(memory, batch_size, n_head, number_bytes):
    """All whole numbers -> int: the largest T whose weights need at most `memory` bytes; 0 if not even T = 1 fits."""
    ### BEGIN SOLUTION
    return math.isqrt(memory // (batch_size * n_head * number_bytes))
    ### END SOLUTION

# %%
check("longest_text", longest_text)

# %% [markdown]
# Does the formula hold? With 8 texts, 8 heads and float32, as in the measurement above, 256 characters should just fill 16 MiB, and 512 characters four times as much.

# %%
for memory, lengths in ((16 * 2**20, (256, 257)), (64 * 2**20, (512, 513))):
    for n in lengths:
        needed = torch.empty(8, 8, n, n).nbytes
        print(
            f"{n} characters need {needed / 2**20:.2f} MiB: {memory // 2**20} MiB are "
            f"{'enough' if needed <= memory else 'not enough'}"
        )

# %% [markdown]
# ## A model with four heads
#
# Width (64) and training are those of lesson 03; only the attention differs. (The projection makes the model a little larger.) Compare the drawing with lesson 03's: what is grey has not changed.

# %%
from chargpt_lib.drawings import draw_model

show(*draw_model("multi_head"))

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
        self.apply(init_weights)

    def compute_logits(self, idx):
        x = self.token_embedding(idx) + self.position_embedding.weight[: idx.shape[1]]  # (B, T, C)
        return self.lm_head(self.attention(x))  # (B, T, V)

# %%
import copy
from math import log

from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import pick_device, pick_scale
from chargpt_lib.files import bundled_results
from chargpt_lib.training import evaluate, ladder, load_or_fit, plot_ladder

CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus, device = load_corpus(CORPUS), pick_device()
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
V = tokenizer.vocab_size

# %%
torch.manual_seed(1337)
model = MultiHeadLanguageModel(V, block_size=64, n_embd=64, n_head=4).to(device)
fresh = copy.deepcopy(model).cpu()  # for a comparison below
ids = tokenizer.encode("O damp goose!").to(device)
_, loss = model(ids[None, :-1], ids[None, 1:])
print(count(model), "parameters")
off = loss.item() - log(V)
print(f"loss at init ≈ {loss.item():.2f}, ln V = {log(V):.2f} (closer than 0.1: {abs(off) < 0.1})")
assert abs(off) < 0.1

# %% [markdown]
# **Predict:** by how many nats will four heads beat one head? One head beat the bigram by about half a nat: will this gain be larger or smaller?

# %% tags=["nbval-ignore-output"]
scale = pick_scale(device)  # 1 on a CPU: see lesson 00
result = load_or_fit("multi-head", model, corpus, steps=1500, batch_size=32 * scale, lr=1e-2)
print(
    f"exact loss ≈ {result['loss']:.3f} after ≈ {result['seconds']:.0f} s of training\n\n{result['sample']}"
)

# %%
rungs = {rung: row["loss"] for rung, row in ladder(corpus.name).items()}
one, four = rungs["bigram"] - rungs["single head"], rungs["single head"] - rungs["multi-head"]
print(f"one head beat the bigram by ≈ {one:.2f} nats (more than 0.4: {one > 0.4})")
print(f"four heads beat one by      ≈ {four:.2f} nats (more than 0.4: {four > 0.4})")
assert (one > 0.4 and four > 0.4) or corpus.name != "playhouse"

# %% [markdown]
# About as much again, with the same width and the same training. But is it the *number* of heads? The new model also has a projection. A **control** differs from it in nothing but the number of heads: one head of size 64, with the projection, so it has exactly as many parameters. **Predict:** is its loss nearer to that of lesson 03's head, or to that of the four heads?

# %% tags=["nbval-ignore-output"]
torch.manual_seed(1337)
control = MultiHeadLanguageModel(V, block_size=64, n_embd=64, n_head=1).to(device)
settings = {"steps": 1500, "batch_size": 32 * scale, "lr": 1e-2}  # as above
control_loss = load_or_fit("one head, projected", control, corpus, sample_chars=1, **settings)[
    "loss"
]

# %%
print(f"lesson 03's head         ≈ {rungs['single head']:.2f} nats")
print(f"one head, projected      ≈ {control_loss:.2f} nats, {count(control)} parameters")
print(f"four heads               ≈ {rungs['multi-head']:.2f} nats, {count(model)} parameters")
gap = control_loss - rungs["multi-head"]
print(f"four heads beat their control by ≈ {gap:.2f} nats (more than 0.3: {gap > 0.3})")
assert count(control) == count(model)
assert gap > 0.3 or corpus.name != "playhouse"

# %% [markdown]
# So the gain comes from the heads, not from the projection. After a single head, the matrix of the values, the projection and the last matrix follow each other directly. The product of these matrices is one matrix, so lesson 03's head can compute the same. With four heads, each of them weighs the past in its own way *before* the matrices mix the results.
#
# The price of the line, now with four heads:

# %%
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
# What does each head look at? The fused kernel keeps no weights, but `one_matrix` computes the same ones.

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
show(
    fig,
    "Four triangular heat maps. Each head spreads its weight over the last characters in its own pattern.",
)

# %% [markdown]
# Most rows spread their weight over the last few characters, and each head does so in its own way. How different are they? Lay the weights of two heads on top of each other, and add up the overlap: 1 if they are equal, 0 if they never look at the same place.

# %%
def in_common(w):
    """(H, T, T) -> (H, H): the overlap of the weights of two heads, its mean over the positions from the fifth on."""
    return torch.minimum(w[:, None], w[None, :]).sum(-1)[..., 4:].mean(-1)

# %%
shared, others = in_common(weights), ~torch.eye(4, dtype=torch.bool)
fig, ax = plt.subplots(figsize=(4, 3.2), layout="constrained")
image = heatmap(ax, shared, cells=[[f"{value:.2f}" for value in row] for row in shared])
ax.set(
    title="Overlap of the weights of two heads",
    xlabel="head",
    ylabel="head",
    xticks=range(4),
    yticks=range(4),
)
fig.colorbar(image, label="overlap")
show(fig, "A table of four by four heads: 1 on the diagonal, clearly less elsewhere.")

# %%
before = in_common(head_weights(fresh))[others].mean()
print(f"mean overlap before training: ≈ {before:.2f}")
print(
    f"after it: from ≈ {shared[others].min():.2f} to ≈ {shared[others].max():.2f} (less than 0.9: "
    f"{bool(shared[others].max() < 0.9)})"
)
assert before > 0.95
assert shared[others].max() < 0.9

# %% [markdown]
# Before training, all heads were alike. Nobody told them to divide the work. Chance made them a tiny bit different, and training widened the difference. (A likely reason: two heads that see the same places are of little more use than one.)
#
# ### Exercise: what each head adds
# ★★ · 10 minutes · To ask which head a model can spare, separate the heads in its result first (Elhage et al., 2021).
#
# The projection seems to mix all heads into one. But a matrix product is a sum, and each number of `concat` is multiplied by its own row of $W^O$:
#
# $$\operatorname{concat}(\text{head}_1, \dots, \text{head}_H)\, W^O = \sum_h \text{head}_h\, W^O_h .$$
#
# $W^O_h$ holds the D of the C rows of $W^O$ that multiply the numbers of head $h$. Return the terms of the sum, one for each head.
#
# `W_o` is stored as `nn.Linear` stores it, transposed: $W^O$ = `W_o.T`. So first transpose, then take the D rows of head $h$. (In the model the projection has a bias, too; it belongs to no head.) With two heads of size 1 that hold 3 and 5, and `W_o = [[1, 2], [10, 20]]`, head 0 adds `[3, 30]` and head 1 adds `[10, 100]`; the result is `[13, 130]`.

# %% tags=["exercise"] exercise="head_contributions"
def head_contributions(heads, W_o):
    """heads (B, H, T, D), W_o (C, C) with C = H * D -> (B, H, T, C): their sum over H is the projected result."""
    ### BEGIN SOLUTION
    parts = W_o.view(len(W_o), heads.shape[1], -1).permute(1, 2, 0)  # (H, D, C)
    return heads @ parts
    ### END SOLUTION

# %%
check("head_contributions", head_contributions)

# %% [markdown]
# Which head can be removed without harm, then? Remove one head at a time from the trained model, and measure the loss again on a part of the validation text. A head is removed when its part of $W^O$ is 0. `nn.Linear` stores $W^O$ transposed, so this part is 16 columns of the stored matrix. `split` cuts the matrix into *views*, which share its memory: `part.zero_()` writes zeros into the model itself, and `part.copy_(kept)` puts the old numbers back. **Predict:** how many of the four heads, left out alone, make the loss rise by more than half a nat?

# %%
some_ids = tokenizer.encode(corpus.val[:20_000])
whole, without = evaluate(model, some_ids), []
stored = model.attention.proj.weight.detach()  # (C, C), without autograd
for part in stored.split(16, dim=1):  # (C, 16): the columns of one head
    kept = part.clone()
    part.zero_()
    without.append(evaluate(model, some_ids))
    part.copy_(kept)
rises = [loss - whole for loss in without]
for h, rise in enumerate(rises):
    print(
        f"without head {h} the loss rises by ≈ {rise:.2f} nats (more than half a nat: {rise > 0.5})"
    )
print("with all heads back, the loss differs by", evaluate(model, some_ids) - whole)
assert evaluate(model, some_ids) == whole
assert min(rises) > 0.5 or corpus.name != "playhouse"

# %% [markdown]
# On Playhouse, none can. (In large models many can; Michel et al., 2019.)
#
# ## Loss by kind of text

# %%
show(
    plot_ladder(corpus.name, up_to="multi-head"),
    "Stacked bars: the multi-head model pays much less for spelling than the single head. "
    "Names and closings shrink less.",
)

# %%
excess, before = result["excess"], ladder(corpus.name)["single head"]["excess"]
# The excess over the entropy, as a share of the single head's
left_over = {kind: excess[kind] / before[kind] for kind in excess}
print(
    {
        kind: f"≈ {left_over[kind]:.0%} left"
        for kind in ("spelling", "copied name", "closing")
        if excess
    }
)
four_gram = bundled_results().get(corpus.name, {}).get("n-grams", {}).get("4", float("nan"))
print(f"loss ≈ {result['loss']:.2f}, that of the 4-gram table: {four_gram:.2f}")
assert result["loss"] - four_gram > 0.2 or corpus.name != "playhouse"
spelling, names = left_over.get("spelling", 0.0), left_over.get("copied name", 0.0)
assert (spelling < 0.65 and names - spelling > 0) or corpus.name != "playhouse"

# %% tags=["nbval-ignore-output"]
row = bundled_results()["shakespeare"]["multi-head"]
print(f"On Shakespeare (recorded):\n\n{row['sample'][:250]}")

# %%
on_shakespeare = bundled_results()["shakespeare"]["single head"]["loss"] - row["loss"]
print(f"On Shakespeare (recorded): ≈ {row['loss']:.2f} nats per character,")
print(f"better than a single head by ≈ {on_shakespeare:.2f}")
assert on_shakespeare > 0.05

# %% [markdown]
# Spelling is much better. But the 4-gram table of lesson 01 was better still! The model gathers the last characters, and then has only matrices to conclude something from them. The model can gather information from the past, but it has no layer that computes something new from what it gathered. The next lesson adds one.
#
# ## Mistakes people make
#
# - **`view` without `transpose`.** As above. Test with `arange`, not with `randn`.
# - **`.view` after `.transpose`** on the way back raises an error; `.reshape` or `.contiguous().view` copies.
# - **Dividing by √C** instead of √(C / H).
# - **`is_causal=True` and a mask.** Give only one of them.
#
# ## Exercises
#
# ### Exercise: heads that share
# ★★★ · 20 minutes · A model that writes has to keep all keys and values. In large models several heads share them: one set for all heads (Shazeer, 2019), or one for each group (Ainslie et al., 2023).
#
# There are H = `n_head` heads of queries, of size D = C / H, but only G heads of keys and values, of the same size; G divides H. Neighbours share: with 6 heads and G = 2, heads 0, 1 and 2 use keys and values 0; heads 3, 4 and 5 use keys and values 1. G is not given, but it follows from the G · D rows of `W_k`.
#
# Write the whole layer: queries, keys and values, each by head; causal weights; heads side by side; projection. No matrix has a bias, and each is used as in `nn.Linear`, `x @ W.T`. Test it on G = H: there the layer is `CausalSelfAttention(C, n_head, bias=False)`, whose `qkv.weight.chunk(3)` are `W_q`, `W_k`, `W_v`, and whose `proj.weight` is `W_o`.

# %% tags=["exercise"] exercise="grouped_query_attention"
def grouped_query_attention(x, W_q, W_k, W_v, W_o, n_head):
    """x (B, T, C), W_q, W_o (C, C), W_k, W_v (G * D, C) with D = C / n_head -> (B, T, C)."""
    ### BEGIN SOLUTION
    B, T, C = x.shape
    D = C // n_head
    q, k, v = ((x @ W.T).view(B, T, -1, D).transpose(1, 2) for W in (W_q, W_k, W_v))
    k, v = (part.repeat_interleave(n_head // k.shape[1], dim=1) for part in (k, v))  # (B, H, T, D)
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    weights = (q @ k.transpose(-2, -1) / D**0.5).masked_fill(~seen, float("-inf")).softmax(-1)
    return (weights @ v).transpose(1, 2).reshape(B, T, C) @ W_o.T
    ### END SOLUTION

# %%
check("grouped_query_attention", grouped_query_attention)

# %% [markdown]
# How far did you get?

# %%
progress()

# %% [markdown]
# ## Summary
#
# `MultiHeadAttention` (easy to read), `CausalSelfAttention` (fast) and `MultiHeadLanguageModel`, in `chargpt_lib/multi_head.py`.
#
# Next: [05 · Blocks](05_blocks.ipynb).
