# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 16 · The modern GPT: what has changed since GPT-2
#
# > The modern GPT: RMSNorm, rotary positions, SwiGLU, grouped heads, QK-norm, n-gram embeddings, Muon.
#
# You will build: a GPT of the parts that Llama, Qwen and Gemma are made of, and the optimizer Muon.
# You need lessons 06, 08 and 11. On two CPU cores the page takes a minute.

# %%
import json
import time
from statistics import fmean

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.attention_maps import plot_heads, record_attention
from chargpt_lib.blocks import ACTIVATIONS
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.files import bundled_dir
from chargpt_lib.gpt import GPT, GPTConfig, load_pretrained
from chargpt_lib.plots import show
from chargpt_lib.recipe import TrainConfig
from chargpt_lib.sampling import generate
from chargpt_lib.trainer import train
from chargpt_lib.training import per_token_loss

# %%
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus = load_corpus(CORPUS)
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)

# %% [markdown]
# GPT-2 is from 2019. A model of today has the same outline: ids go in, blocks read from a residual stream and write into it, logits come out. Inside, nearly every part has been replaced.
#
# | part | GPT-2 | since then | who has it |
# |---|---|---|---|
# | norm | LayerNorm | RMSNorm | Llama, Qwen, Gemma |
# | positions | a learned table | rotations (RoPE) | Llama, Qwen, Gemma |
# | feed-forward | GELU | a gate (SwiGLU) | Llama, Qwen |
# | heads of keys and values | one for each head of queries | one for a group of them | Llama 3, Qwen, Gemma |
# | queries and keys | as they come | normed (QK-norm) | Qwen 3, Gemma 3 |
# | biases | nearly everywhere | none | Llama, Gemma |
# | the KV cache | refilled when the window moves | slides along | Mistral |
# | embeddings | of one token | of the last few tokens, too | BLT, a model of bytes |
# | logits | as they come | kept within bounds (soft-capping) | Gemma 2 |
# | optimizer | Adam | AdamW, or Muon for matrices | Kimi K2 has Muon |
#
# This page takes these changes one by one and asks what each is for. Near the end, recorded runs with and without each part show what it is worth. (Biases need no section: lesson 06's GPT has none, either, unless its config asks for them.)
#
# ## RMSNorm
#
# Layer norm (lesson 05) does two things to a vector of $C$ numbers: it subtracts their mean, and it divides by their standard deviation. **RMSNorm** ([Zhang and Sennrich, 2019](https://arxiv.org/abs/1910.07467)) drops the subtraction. It divides by the root of the mean square:
#
# $$\mathrm{RMSNorm}(x)_i = \frac{x_i}{\sqrt{\frac{1}{C} \sum_{j=1}^{C} x_j^2 + \varepsilon}} \cdot g_i$$
#
# The gains $g_1 \dots g_C$ are learned. $\varepsilon$ is small, here $10^{-5}$, and keeps us from dividing by 0.

# %%
x = torch.tensor([3.0, -1.0, 1.0, 1.0])
print("mean", x.mean().item(), " root mean square", round(x.square().mean().sqrt().item(), 3))
print("layer norm:", [round(number, 3) for number in F.layer_norm(x, (4,)).tolist()])
print("RMSNorm:   ", [round(number, 3) for number in F.rms_norm(x, (4,)).tolist()])

# %% [markdown]
# After layer norm the numbers sum to 0. After RMSNorm they keep their signs and proportions; only the length of the vector is set. Subtracting the mean turned out to be unnecessary. A block only needs inputs of a known size, however large the residual stream has grown.
#
# ### Exercise: RMSNorm
# ★ · 4 minutes · Every block of Llama calls it twice.
#
# Write it from the formula, for a tensor with any number of dimensions. Take the mean over the last one.

# %% tags=["exercise"] exercise="divide_by_rms"
def divide_by_rms(x, gain, eps=1e-5):
    """x (..., C), gain (C,) -> (..., C), RMSNorm of x over its last dimension."""
    ### BEGIN SOLUTION
    mean_square = x.square().mean(-1, keepdim=True)  # (..., 1)
    return x / (mean_square + eps).sqrt() * gain
    ### END SOLUTION

# %%
check("divide_by_rms", divide_by_rms)

# %% [markdown]
# ## Positions as rotations
#
# Lesson 06 adds a learned vector for each position. This has two flaws. The table ends: with a `block_size` of 192 there is no vector for position 192. And each position is learned by itself: nothing tells the model that positions 20 and 19 are as far apart as 120 and 119.
#
# **RoPE**, rotary position embedding ([Su et al., 2021](https://arxiv.org/abs/2104.09864)), adds nothing. It groups the numbers of a query into pairs and reads each pair as an arrow in the plane. Look at one pair. In the query at position $t$ its arrow is turned by the angle $t\theta$, and in the key at position $s$ by $s\theta$:
#
# $$R_t = \begin{pmatrix} \cos t\theta & -\sin t\theta \\ \sin t\theta & \cos t\theta \end{pmatrix}, \qquad (R_t\, q) \cdot (R_s\, k) = q \cdot (R_{s-t}\, k)$$
#
# The second formula is the point. A score is the dot product of a query and a key. If both arrows turn by the same angle, their dot product stays as it is. So only the difference of the two angles counts: $\theta$ times the *distance* $t - s$ of the two positions. **Predict:** what happens to the score if both positions grow by 10, or by 100? And if the key alone moves?

# %%
def turn(arrow, angle):
    """An arrow (2,) turned by an angle in radians."""
    angle = torch.tensor(angle)
    x, y = arrow
    return torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()])


theta = 0.5
q = torch.tensor([1.0, 0.2])
k = torch.tensor([0.6, 0.9])
for t, s in ((3, 1), (13, 11), (103, 101), (3, 2)):
    score = turn(q, t * theta) @ turn(k, s * theta)
    print(f"query at {t:3}, key at {s:3}, distance {t - s}: {score:.4f}")

# %% [markdown]
# The first three lines have the same distance and the same score, wherever the two positions are.
#
# A single speed would confuse distances: after $2\pi / \theta \approx 12.6$ positions the arrow points the same way again. So a head of size $d$ has $d / 2$ pairs, and each pair turns at its own speed. Pair $i$ turns by
#
# $$\theta_i = 10000^{-2i/d}$$
#
# radians a position. The first pair turns fast and tells neighbours apart. Slower pairs tell larger distances apart. The slowest hardly turn within a window: they carry content, almost regardless of position.

# %%
d = 8
speeds = 10_000.0 ** (-2 * torch.arange(d // 2) / d)
print("radians a position:", [round(speed, 4) for speed in speeds.tolist()])
fig, axes = plt.subplots(1, 4, figsize=(10, 2.6), layout="constrained")
for i, ax in enumerate(axes):
    circle = torch.linspace(0, 2 * torch.pi, 100)
    ax.plot(circle.cos(), circle.sin(), color="#BBBBBB", linewidth=0.8)
    for t, colour in ((0, "#000000"), (1, "#0072B2"), (8, "#E69F00"), (64, "#D55E00")):
        tip = turn(torch.tensor([1.0, 0.0]), t * speeds[i].item())
        arrow = {"arrowstyle": "->", "color": colour, "linewidth": 1.8}
        ax.annotate("", tip.tolist(), (0, 0), arrowprops=arrow)
        ax.plot([], [], color=colour, label=f"t = {t}")
    ax.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal", xticks=[], yticks=[])
    ax.set_title(f"pair {i}: {speeds[i]:g} a position", fontsize=10)
fig.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside right center")
show(
    fig,
    "Four circles, one for each pair, with arrows for positions 0, 1, 8 and 64. In the first circle the arrows point in "
    "different directions; in the last one they nearly coincide.",
)

# %% [markdown]
# In circle 0 the arrow for position 64 has gone round ten times and points nearly where position 1 points; circle 2 tells the two apart. In circle 3 even position 64 has turned by only 0.064 radians.
#
# Which numbers make a pair? The paper pairs neighbours: numbers 0 and 1, 2 and 3, and so on. Llama's code pairs number $i$ of the first half of the vector with number $i$ of the second half. Our library will do as Llama does.
#
# ### Exercise: the paper's way
# ★★ · 8 minutes · A model that was trained with one pairing computes wrong scores with the other, until somebody reorders the rows of its query and key matrices.
#
# Here, for once, take the paper's pairs: neighbours. In each row `x[..., t, :]`, with t = 0, 1, 2, ..., the pair $(a, b)$ of the numbers $2i$ and $2i + 1$ turns by the angle $\alpha = t\,\theta_i$, where $\theta_i$ is `speeds[i]`:
#
# $$(a, b) \;\to\; (a \cos\alpha - b \sin\alpha, \;\; a \sin\alpha + b \cos\alpha)$$

# %% tags=["exercise"] exercise="rotate_neighbours"
def rotate_neighbours(x, speeds):
    """x (..., T, d), speeds (d / 2,) in radians a position -> x with pairs 2i, 2i + 1 turned, (..., T, d)."""
    ### BEGIN SOLUTION
    T = x.shape[-2]
    angles = torch.arange(T, device=x.device)[:, None] * speeds  # (T, d / 2)
    even = x[..., 0::2]
    odd = x[..., 1::2]
    turned_even = even * angles.cos() - odd * angles.sin()
    turned_odd = even * angles.sin() + odd * angles.cos()
    return torch.stack([turned_even, turned_odd], dim=-1).flatten(-2)  # interleaved again
    ### END SOLUTION

# %%
check("rotate_neighbours", rotate_neighbours)

# %% [markdown]
# Now the version for the library, with halves. Pair $(a, b)$ becomes $(a \cos\alpha - b \sin\alpha,\; b \cos\alpha + a \sin\alpha)$. To compute this for a whole vector at once, multiply the vector by the cosines. Then swap its two halves, and multiply the result by the sines, with a minus in the first half. Add the two.

# %%
#| export
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.bigram import LanguageModel
from chargpt_lib.blocks import ACTIVATIONS, FeedForward, scale_residual_init
from chargpt_lib.multi_head import head_size
from chargpt_lib.sampling import KVCache
from chargpt_lib.single_head import init_weights
from chargpt_lib.training import param_groups


def rope_angles(positions, head_size, base=10_000.0):
    """How far RoPE turns each pair (Su et al., 2021): positions (...) -> angles (..., head_size / 2) in radians.

    Pair i turns by base ** (-2 i / head_size) radians a position: the first by one, the last hardly at all.
    """
    pairs = torch.arange(head_size // 2, device=positions.device)
    speeds = base ** (-2 * pairs / head_size)  # radians a position, (head_size / 2,)
    return positions[..., None] * speeds


def apply_rope(x, cos, sin):
    """Turns each pair of numbers of x (..., head_size) by its angle; cos and sin (..., head_size) from `rope_cos_sin`.

    A pair is number i of the first half and number i of the second half, as in Llama.
    """
    # With the halves of x swapped, each number meets the other number of its pair.
    other = x.roll(x.shape[-1] // 2, dims=-1)
    return (x * cos + other * sin).to(x.dtype)  # the angles have 32 bits; x may have 16


def rope_cos_sin(positions, head_size):
    """What `apply_rope` needs: positions (...) -> cos and sin (..., head_size), a number for each member of a pair.

    Pair (a, b) becomes (a cos - b sin, b cos + a sin), so the sines of the first half have a minus.
    """
    angles = rope_angles(positions, head_size)
    cos = angles.cos()
    sin = angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)

# %% [markdown]
# Does a score depend on the distance alone? Let the same character stand at all positions from 0 to 47, so that only positions make a difference. On the left are the scores in the first head of lesson 06's recorded GPT, which has a learned table. On the right, RoPE turns the same head's query and key of that character, computed without the table. The two colour scales differ; look at the pattern. (Only keys up to the query's own position are shown: the others are masked.)

# %%
recorded, _, _ = load_pretrained("playhouse")
size = recorded.config.n_embd // recorded.config.n_head
block = recorded.blocks[0]
with torch.no_grad():
    stream = recorded.token_embedding.weight[5] + recorded.position_embedding.weight[:48]
    q, k, _ = block.attention.qkv(block.norm_1(stream)).chunk(3, dim=-1)  # (48, C) each
    learned = q[:, :size] @ k[:, :size].T / size**0.5  # of head 0
    character = block.norm_1(recorded.token_embedding.weight[5])
    q, k, _ = block.attention.qkv(character).chunk(3)  # (C,) each
    cos, sin = rope_cos_sin(torch.arange(48), size)
    rotated = apply_rope(q[:size], cos, sin) @ apply_rope(k[:size], cos, sin).T / size**0.5
future = torch.ones(48, 48, dtype=torch.bool).triu(1)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for ax, scores, title in ((axes[0], learned, "a learned table"), (axes[1], rotated, "RoPE")):
    image = ax.imshow(scores.masked_fill(future, float("nan")), cmap="cividis")
    ax.set(title=title, xlabel="position of the key", ylabel="position of the query")
    fig.colorbar(image, ax=ax, label="score", shrink=0.85)
show(
    fig,
    "Two triangular maps of scores. With a learned table each row looks different. With RoPE the map consists of "
    "diagonal stripes: along a diagonal the distance is the same, and so is the score.",
)

# %%
print("scores along a diagonal:  learned table        RoPE")
for distance in (0, 1, 5):
    before = learned.diagonal(-distance)
    scores = rotated.diagonal(-distance)
    print(
        f"distance {distance}:        {before.min():7.2f} to {before.max():5.2f}   "
        f"{scores.min():6.2f} to {scores.max():5.2f}"
    )
    assert scores.max() - scores.min() < 1e-3

# %% [markdown]
# ## Feed-forward layers with a gate
#
# Lesson 05's feed-forward layer has two matrices and an activation between them. **SwiGLU** ([Shazeer, 2020](https://arxiv.org/abs/2002.05202)) has three. Two of them read the input. One result goes through an activation and becomes a *gate*: multiplied by the other result, it decides number by number how much passes.
#
# $$\mathrm{SwiGLU}(x) = \big( \mathrm{SiLU}(x W_{\text{gate}}) \odot x W_{\text{up}} \big) W_{\text{down}}, \qquad \mathrm{SiLU}(z) = \frac{z}{1 + e^{-z}}$$
#
# ($\odot$ multiplies number by number.) With an inner width of $4C$, three matrices would hold $12C^2$ numbers, where the old layer has $8C^2$. So the layer is made narrower: with an inner width of $\frac{8}{3} C$, three matrices hold $8C^2$ numbers, too. Squared ReLU ([So et al., 2021](https://arxiv.org/abs/2109.08668)) is simpler: two matrices as before, and $\max(0, z)^2$ between them. It is one of lesson 05's activations, `"relu2"`.

# %%
z = torch.linspace(-3, 2, 200)
curves = {"ReLU": F.relu(z), "GELU": F.gelu(z), "SiLU": F.silu(z), "ReLU²": ACTIVATIONS["relu2"](z)}
fig, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
for (name, curve), colour in zip(curves.items(), ("#000000", "#56B4E9", "#D55E00", "#009E73")):
    ax.plot(z, curve, color=colour, label=name)
ax.set(xlabel="z", ylabel="activation", ylim=(-0.5, 3))
ax.legend(frameon=False)
show(
    fig,
    "Four activations. ReLU is 0 on the left and a straight line on the right; GELU and SiLU are smooth and dip below 0; "
    "squared ReLU starts flat and grows faster and faster.",
)

# %%
#| export
def make_norm(kind, size):
    """A norm over the last dimension, without biases: RMSNorm (Zhang and Sennrich, 2019) or layer norm."""
    if kind == "rms":
        return nn.RMSNorm(size, eps=1e-5)
    return nn.LayerNorm(size, bias=False)


def swiglu_width(n_embd):
    """The width inside SwiGLU: about 8/3 of the model's, and a multiple of 8."""
    return max(8 * round(n_embd / 3), 8)


class SwiGLU(nn.Module):
    """A gated feed-forward layer (Shazeer, 2020): (B, T, C) -> (B, T, C).

    It has three matrices in place of two. At an inner width of 8/3 C in place of 4 C they have as many parameters.
    """

    def __init__(self, n_embd, dropout=0.0):
        super().__init__()
        width = swiglu_width(n_embd)
        self.gate = nn.Linear(n_embd, width, bias=False)
        self.up = nn.Linear(n_embd, width, bias=False)
        self.proj = nn.Linear(width, n_embd, bias=False)
        self.dropout = dropout

    def forward(self, x):
        x = self.proj(F.silu(self.gate(x)) * self.up(x))
        return F.dropout(x, self.dropout, self.training)

# %%
C = 96
two = 2 * C * 4 * C
three = sum(p.numel() for p in SwiGLU(C).parameters())
print(f"C = {C}: two matrices of {C} x {4 * C} hold {two:,} numbers, SwiGLU's three {three:,}")

# %% [markdown]
# ## Heads that share keys and values
#
# While a model writes, its KV cache (lesson 08) holds the keys and values of everything it has read. For a large model and a long text, that can take more memory than the weights. In **grouped-query attention** ([Ainslie et al., 2023](https://arxiv.org/abs/2305.13245)) several heads of queries share one head of keys and values.

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 1.9), layout="constrained")
for ax, n_kv in zip(axes, (4, 2, 1)):
    for head in range(4):
        shared = (head * n_kv // 4 + 0.5) * 4 / n_kv - 0.5  # below the middle of its group
        ax.plot([head, shared], [1, 0], color="#888888", linewidth=1)
        ax.text(head, 1, f"q{head}", ha="center", va="center", backgroundcolor="#56B4E9")
    for head in range(n_kv):
        place = (head + 0.5) * 4 / n_kv - 0.5
        ax.text(place, 0, f"k{head}, v{head}", ha="center", va="center", backgroundcolor="#E69F00")
    ax.set(xlim=(-0.6, 3.6), ylim=(-0.4, 1.4))
    kind = {4: "multi-head", 2: "grouped-query", 1: "multi-query"}[n_kv]
    ax.set_title(f"{kind}, n_kv_head = {n_kv}", fontsize=10)
    ax.axis("off")
show(
    fig,
    "Four heads of queries above, heads of keys and values below. On the left each has its own, in the middle two share "
    "one, on the right all four share one.",
)

# %% [markdown]
# ### Exercise: how large is the cache?
# ★ · 4 minutes · This number decides how many users one graphics card can serve at a time.
#
# For one text, the cache keeps a key and a value for each layer, each head of keys and values, and each position. A key is as wide as a head of queries (lesson 04). How many bytes are in the cache?

# %% tags=["exercise"] exercise="kv_cache_bytes"
def kv_cache_bytes(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    """All arguments ints -> int: the bytes that the keys and values of `length` positions take."""
    ### BEGIN SOLUTION
    head_size = n_embd // n_head
    numbers = 2 * n_layer * n_kv_head * head_size * length  # 2: keys and values
    return numbers * bytes_per_number
    ### END SOLUTION

# %%
check("kv_cache_bytes", kv_cache_bytes)

# %% [markdown]
# Llama 3 with 70 billion parameters has 80 layers, 64 heads of queries, 8 heads of keys and values, and a width of 8,192. For 128,000 positions and 2 bytes a number, your function should give 42 GB. The weights take 140 GB. With 64 heads of keys and values the cache would be 336 GB.
#
# ### Exercise: whose keys?
# ★★ · 5 minutes · The wrong order gives no error, only a worse model.
#
# `F.scaled_dot_product_attention` expects as many key heads as query heads. `n_head` is a multiple of the number of key heads. Repeat the key heads so that *neighbouring* query heads share one: with 4 query heads and 2 key heads, query heads 0 and 1 use key head 0, and query heads 2 and 3 use key head 1. (In lesson 04's exercise on grouped heads this was one of the steps. Newer PyTorch can do it inside the kernel: `enable_gqa=True`.)

# %% tags=["exercise"] exercise="share_heads"
def share_heads(k, n_head):
    """k (B, n_kv_head, T, d) -> (B, n_head, T, d): for each head of queries its head of keys."""
    ### BEGIN SOLUTION
    group = n_head // k.shape[1]
    return k.repeat_interleave(group, dim=1)
    ### END SOLUTION

# %%
check("share_heads", share_heads)

# %% [markdown]
# ## QK-norm
#
# Scores can grow without limit while a model trains. One score that is far above the others makes the softmax put all its weight on one position. The gradient through the softmax is then nearly 0, and the head stops learning. **QK-norm** ([Henry et al., 2020](https://arxiv.org/abs/2010.04245)) puts an RMSNorm, here without gains, on each query and each key. A vector of $d$ numbers then has the length $\sqrt{d}$, and a score $q \cdot k / \sqrt{d}$ lies between $-\sqrt{d}$ and $\sqrt{d}$, however large the weights are.

# %%
torch.manual_seed(0)
d = 24
for scale in (1, 10, 100):
    q = scale * torch.randn(1000, d)
    k = scale * torch.randn(1000, d)
    plain = q @ k.T / d**0.5
    normed = F.rms_norm(q, (d,)) @ F.rms_norm(k, (d,)).T / d**0.5
    print(
        f"q and k x {scale:3}: largest score {plain.max():9,.1f}, with QK-norm {normed.max():.1f}; "
        f"the bound is {d**0.5:.1f}"
    )

# %% [markdown]
# (Scores grow by a factor of about 100, not 10, because both vectors in the dot product are ten times as large.) Norm and rotation do not disturb each other: turning an arrow does not change its length. Here is the attention layer with everything so far. It has three matrices for queries, keys and values, because with groups they have different shapes. The code norms and turns before `transpose`: at that point the numbers of a head lie side by side in memory, which is faster.

# %%
#| export
class GroupedAttention(nn.Module):
    """Causal attention whose heads share keys and values (Ainslie et al., 2023): (B, T, C) -> (B, T, C)."""

    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.n_kv_head = config.kv_heads
        self.head_size = head_size(config.n_embd, config.n_head)
        self.dropout = config.dropout
        self.q = nn.Linear(config.n_embd, config.n_head * self.head_size, bias=False)
        self.k = nn.Linear(config.n_embd, self.n_kv_head * self.head_size, bias=False)
        self.v = nn.Linear(config.n_embd, self.n_kv_head * self.head_size, bias=False)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.qk_norm = config.qk_norm

    def forward(self, x, rotation=None, cache=None):
        """x (B, T, C) -> (B, T, C). rotation: RoPE's cos and sin; None where positions are learned."""
        B, T, C = x.shape
        # Queries and keys are normed and turned in the same way, so both go through as one tensor.
        qk = torch.cat([self.q(x), self.k(x)], dim=-1).view(B, T, -1, self.head_size)
        if self.qk_norm:
            qk = F.rms_norm(qk, (self.head_size,))
        if rotation is not None:
            cos, sin = rotation
            qk = apply_rope(qk, cos, sin)
        q, k = qk.split([self.n_head, self.n_kv_head], dim=2)
        v = self.v(x).view(B, T, self.n_kv_head, self.head_size)
        q = q.transpose(1, 2)  # (B, H, T, head_size)
        k = k.transpose(1, 2)
        v = v.transpose(1, 2)
        mask = None
        if cache is not None:
            k, v, mask = cache.update(self, k, v)
        # Repeat each head of keys and values for all query heads of its group.
        group = self.n_head // self.n_kv_head
        if group > 1:
            k = k.repeat_interleave(group, dim=1)
            v = v.repeat_interleave(group, dim=1)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None and k.shape[2] == T,
            dropout_p=self.dropout if self.training else 0.0,
        )
        out = out.transpose(1, 2).reshape(B, T, C)
        return F.dropout(self.proj(out), self.dropout, self.training)

# %% [markdown]
# ## A cache that slides
#
# In lesson 08, when the window moved on by one character, the cache had to be refilled: each character had a new position, and so a new key. Count the keys of the first layer that are still right, first with the learned table, then with RoPE. The window holds 192 characters and moves by one, so 191 of them stay.

# %%
ids = torch.randint(recorded.vocab_size, (193,))  # any characters will do
with torch.no_grad():
    table = recorded.position_embedding.weight  # (192, C)
    keys = []
    for window in (ids[:192], ids[1:]):
        stream = recorded.token_embedding(window) + table
        keys.append(block.attention.qkv(block.norm_1(stream)).chunk(3, dim=-1)[1])
    rope_keys = []
    for start in (0, 1):
        stream = block.norm_1(recorded.token_embedding(ids[start : start + 192]))
        k = block.attention.qkv(stream).chunk(3, dim=-1)[1][:, :size]  # head 0, no table
        rope_keys.append(apply_rope(k, *rope_cos_sin(torch.arange(start, start + 192), size)))
for name, (before, after) in (("a learned table", keys), ("RoPE", rope_keys)):
    same = (before[1:] - after[:-1]).abs().amax(-1) < 1e-4
    print(f"{name}: {same.sum()} of {len(same)} keys are still right")

# %% [markdown]
# With RoPE a key is turned once, by its position in the *text*, and stays as it is. The next query is turned by its own position, one step further, and all distances are right. So the cache keeps the last `window` keys and drops the oldest.
#
# Its buffers have room for twice as many columns. When they are full, the cache copies the last columns to the front. (`pads` are lesson 08's: empty columns in front of shorter texts in a batch.)

# %%
#| export
class SlidingKVCache(KVCache):
    """A KV cache that never fills: it keeps the last `window` columns, including those of the current pass.

    For models whose scores depend only on distances (RoPE): there an old key stays right while the window moves.
    """

    slides = True

    def __init__(self, window, pads=None):
        super().__init__(max_length=2 * window, pads=pads)
        self.window = window
        self.end = 0  # how many columns of the buffers are filled
        self.new = 0  # how many of them are of the current pass
        self.kept = 0  # how many earlier columns the current pass may see

    def extend(self, T, device=None):
        """Makes room for T more columns, at most `window` -> their positions, (T,), or (B, T) where rows have pads."""
        if T > self.window:
            raise ValueError(f"{T} columns at once, but the window has {self.window}")
        if self.end + T > self.max_length:
            # The last columns move to the front. With one token a step, that happens once in `window` steps.
            kept = min(self.end, self.window - 1)
            for keys, values in self.layers.values():
                keys[:, :, :kept] = keys[:, :, self.end - kept : self.end].clone()
                values[:, :, :kept] = values[:, :, self.end - kept : self.end].clone()
            self.end = kept
        self.kept = min(self.end, self.window - 1)
        self.new = T
        self.end += T
        self.start = self.length
        self.length += T
        rows = torch.arange(self.start, self.length, device=device)
        if T == 1 and self.pads is None:
            self.mask = None  # a single query may see every column that is kept
            return rows
        columns = torch.arange(self.start - self.kept, self.length, device=device)
        distance = rows[:, None] - columns  # (T, kept + T)
        seen = (distance >= 0) & (distance < self.window)
        if self.pads is None:
            self.mask = seen
            return rows
        pads = self.pads[:, None]  # (B, 1)
        first = torch.minimum(pads, rows)  # (B, T)
        self.mask = (seen & (columns >= first[..., None]))[:, None]
        return (rows - pads).clamp(min=0)

    def update(self, layer, k, v):
        """Adds a layer's new k and v, (B, H, T, head_size) -> the keys and values that may be seen, and the mask."""
        B, H, T, size = k.shape
        if T != self.new:
            raise ValueError(
                f"got {T} new keys, but extend() made room for {self.new}: call cache.extend once per forward pass, "
                f"before the first layer"
            )
        if layer not in self.layers:
            shape = (B, H, self.max_length, size)
            self.layers[layer] = (k.new_empty(shape), v.new_empty(shape))
        keys, values = self.layers[layer]
        begin = self.end - T
        keys[:, :, begin : self.end] = k
        values[:, :, begin : self.end] = v
        seen = slice(begin - self.kept, self.end)
        return keys[:, :, seen], values[:, :, seen], self.mask

# %% [markdown]
# Here is a toy with a window of 4, in which each key is just the number of its character:

# %%
toy = SlidingKVCache(window=4)
for t in range(10):
    toy.extend(1)
    key = torch.full((1, 1, 1, 2), float(t))  # (B, H, T, head_size)
    seen, _, _ = toy.update("a layer", key, key)
    print(
        f"character {t} sees {seen[0, 0, :, 0].int().tolist()}; {toy.end} of 8 columns are filled"
    )

# %% [markdown]
# One thing differs from before. The key of an old character in the second layer contains what that character read in the first layer, and some of that is outside the window by now. So with several layers, information can arrive from further back than `window` positions, and the logits differ a little from those of a window that is read anew. A cell below measures how much.
#
# (RoPE alone does not make a model good at long distances. Distances above `block_size` never occurred in training, which is why the cache does not keep more.)
#
# ## Embeddings of n-grams
#
# A character says little by itself. Before a model can predict anything, its first layers have to find the last few characters. Why not look them up? For each position, add a vector for the last two characters, one for the last three, and so on. With the 54 characters of Playhouse, a table with a row for all triples would need $54^3 = 157{,}464$ rows, and one for all groups of four $8.5$ million; with GPT-2's vocabulary the pairs alone would need 2.5 billion. So the table gets a fixed number of rows, and a **hash** chooses one of them: a formula that turns the characters into a row number. The same characters always give the same row, and different ones are scattered as if by chance ([Pagnoni et al., 2024](https://arxiv.org/abs/2412.09871)).

# %%
#| export
class NGramEmbedding(nn.Module):
    """A vector for the last n tokens, for each n from 2 on: idx (B, T) -> their sum (B, T, C) (Pagnoni et al., 2024).

    There are more n-grams than rows, so a hash chooses the row, and some n-grams share one.
    """

    def __init__(self, n_gram, rows, n_embd):
        super().__init__()
        self.n_gram = n_gram
        self.rows = rows
        self.tables = nn.ModuleList(nn.Embedding(rows, n_embd) for _ in range(n_gram - 1))

    def hashes(self, idx, positions, before=None):
        """The rows of the n-grams that end at each token: idx (B, T) -> a list of (B, T), for n = 2, 3, ...

        positions (T,) or (B, T): how many tokens stand before each. before (B, S): the last tokens before idx.
        """
        T = idx.shape[1]
        text = idx if before is None else torch.cat([before, idx], dim=1)
        code = idx
        rows = []
        for distance in range(1, self.n_gram):
            earlier = F.pad(text, (distance, 0))[:, -T - distance : -distance]
            # Before the beginning of the text there is no token; -1 stands for that.
            earlier = torch.where(positions >= distance, earlier, -1)
            # The product may exceed 2 ** 63 and wrap around, which does no harm in a hash.
            code = code * 1_000_003 + earlier + 1
            # The remainder by a power of two depends on the low bits alone, so the high bits are mixed into them.
            rows.append((code ^ (code >> 17)) % self.rows)
        return rows

    def forward(self, idx, positions, before=None):
        out = 0
        for table, rows in zip(self.tables, self.hashes(idx, positions, before)):
            out = out + table(rows)
        return out

# %%
text = "the goose, the "
idx = tokenizer.encode(text)[None]
embedding = NGramEmbedding(n_gram=3, rows=4096, n_embd=8)
pairs, triples = embedding.hashes(idx, torch.arange(len(text)))
for t in (2, 13, 14):
    print(
        f"position {t:2}, after {text[: t + 1]!r:18} pair -> row {pairs[0, t]}, triple -> row {triples[0, t]}"
    )

# %% [markdown]
# Both times, *he* and *the* have the same rows. Which groups share a row by accident?

# %%
ids = tokenizer.encode(corpus.train)
rows = embedding.hashes(ids[None], torch.arange(len(ids)))
for n, found in zip((2, 3), rows):
    groups = ids.unfold(0, n, 1).unique(dim=0)
    print(f"{len(groups):,} different groups of {n} are in {len(found.unique()):,} of 4,096 rows")
_, triples = embedding.hashes(groups, torch.arange(3))
at = {}
for row, group in zip(triples[:, -1].tolist(), groups):
    at.setdefault(row, []).append(tokenizer.decode(group))
shared = [groups for groups in at.values() if len(groups) > 1]
print("some that share a row:", shared[:3])

# %% [markdown]
# The table cannot tell such groups apart. More rows make this rarer, and the layers after the table still see the characters themselves.
#
# ## The whole
#
# One part is left. A logit that is far above all others makes a model too sure of itself, and when the model is wrong, its loss is huge. **Soft-capping** keeps logits between $-\mathrm{cap}$ and $\mathrm{cap}$: $\mathrm{cap} \cdot \tanh(z / \mathrm{cap})$ is nearly $z$ for small $z$ and never leaves these bounds. Our cap is 15.

# %%
for z in (0.5, 5.0, 15.0, 50.0):
    print(f"logit {z:4} -> {15 * torch.tanh(torch.tensor(z / 15)):.2f}")

# %% [markdown]
# A config names the parts, so that we can measure the model with and without each of them.

# %%
#| export
CHOICES = {
    "norm": ("rms", "layer"),
    "positions": ("rope", "learned"),
    "activation": ("swiglu", *ACTIVATIONS),
}


@dataclass
class ModernConfig:
    """The sizes of a modern GPT, and which of its parts it has. Raises: ValueError for sizes that no GPT can have.

    With `norm="layer"`, `positions="learned"`, `activation="gelu"`, `qk_norm=False` and `softcap=0.0` it is lesson 06's
    GPT.
    """

    vocab_size: int
    block_size: int = 256  # how many tokens it can see
    n_layer: int = 6  # blocks
    n_head: int = 6  # attention heads in a block
    n_kv_head: int = 0  # heads of keys and values, a divisor of n_head; 0: n_head
    n_embd: int = 384  # embedding width, a multiple of n_head
    dropout: float = 0.0  # the probability that training sets an activation to 0
    norm: str = "rms"  # rms or layer
    positions: str = "rope"  # rope or learned
    activation: str = "swiglu"  # swiglu, or one of ACTIVATIONS (lesson 05)
    qk_norm: bool = True  # norm queries and keys
    softcap: float = 15.0  # the logits stay within plus and minus this; 0: off
    n_gram: int = 0  # embeddings of the last 2 to n_gram tokens; 0: off
    n_gram_rows: int = 8192  # rows in each of their tables
    tied: bool = True  # tie lm_head to the token embedding

    model_type: ClassVar[str] = "modern"  # by which a saved model says what it is (lesson 09)

    def __post_init__(self):
        _check_modern_config(self)

    @property
    def kv_heads(self):
        """How many heads of keys and values there are."""
        return self.n_head if self.n_kv_head == 0 else self.n_kv_head

    def min_parameters(self):
        """The parameters in the large matrices and tables, counted without building them: the model has a few more."""
        C = self.n_embd
        attention = 2 * C * C + 2 * C * self.kv_heads * (C // self.n_head)
        feed_forward = 8 * C * C
        if self.activation == "swiglu":
            feed_forward = 3 * C * swiglu_width(C)
        tables = self.vocab_size * C
        if not self.tied:
            tables += self.vocab_size * C
        if self.positions == "learned":
            tables += self.block_size * C
        if self.n_gram > 0:
            tables += (self.n_gram - 1) * self.n_gram_rows * C
        return self.n_layer * (attention + feed_forward) + tables

# %% [markdown]
# The next cell only refuses sizes that no GPT can have. Skip it.

# %%
#| export
def _check_modern_config(config):
    """Raises: ValueError for sizes that no GPT can have."""
    for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "n_gram_rows"):
        size = getattr(config, name)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} is {size!r}; it must be an integer >= 1")
    for name in ("n_kv_head", "n_gram"):
        size = getattr(config, name)
        if not isinstance(size, int) or size < 0:
            raise ValueError(f"{name} is {size!r}; it must be an integer >= 0")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout must be >= 0 and < 1, got {config.dropout}")
    for name, choices in CHOICES.items():
        value = getattr(config, name)
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(choices)}")
    if config.n_head % config.kv_heads:
        raise ValueError(
            f"n_head ({config.n_head}) must be divisible by n_kv_head ({config.n_kv_head}): each head of keys and "
            f"values serves equally many heads of queries"
        )
    size = head_size(config.n_embd, config.n_head)
    if config.positions == "rope" and size % 2:
        raise ValueError(
            f"n_embd / n_head is {size}, but RoPE turns pairs of numbers: take an even one"
        )
    if config.n_gram == 1 or config.n_gram > config.block_size:
        raise ValueError(
            f"n_gram is {config.n_gram}; it must be from 2 to the block_size, {config.block_size}, or 0 (off)"
        )
    if not 0 <= config.softcap < inf:
        raise ValueError(f"softcap is {config.softcap}; it must be a finite number >= 0 (0: off)")

# %% [markdown]
# Now the block and the model. Each part is chosen in `__init__`, or by one `if` in the forward pass:

# %%
#| export
class ModernBlock(nn.Module):
    """A transformer block whose parts the config chooses: (B, T, C) -> (B, T, C)."""

    def __init__(self, config):
        super().__init__()
        self.norm_1 = make_norm(config.norm, config.n_embd)
        self.attention = GroupedAttention(config)
        self.norm_2 = make_norm(config.norm, config.n_embd)
        if config.activation == "swiglu":
            self.feed_forward = SwiGLU(config.n_embd, config.dropout)
        else:
            self.feed_forward = FeedForward(
                config.n_embd, bias=False, activation=config.activation, dropout=config.dropout
            )

    def forward(self, x, rotation=None, cache=None):
        """x (B, T, C) -> (B, T, C). rotation: RoPE's cos and sin; cache: for the attention."""
        x = x + self.attention(self.norm_1(x), rotation, cache)
        return x + self.feed_forward(self.norm_2(x))


class ModernGPT(LanguageModel):
    """A GPT made of the parts that its config names."""

    def __init__(self, config):
        super().__init__(config.vocab_size, config.block_size)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = None
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.n_gram_embedding = None
        if config.n_gram > 0:
            self.n_gram_embedding = NGramEmbedding(config.n_gram, config.n_gram_rows, config.n_embd)
        self.blocks = nn.ModuleList(ModernBlock(config) for _ in range(config.n_layer))
        self.norm = make_norm(config.norm, config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.token_embedding.weight
        self.apply(init_weights)
        scale_residual_init(self, config.n_layer)

    def make_cache(self, pads=None):
        """The cache for generation: one that slides, unless the model has a learned table of positions."""
        if self.position_embedding is None:
            return SlidingKVCache(self.block_size, pads)
        return KVCache(self.block_size, pads)

    def compute_logits(self, idx, cache=None):
        """idx (B, T) -> logits (B, T, V). cache: what was read before idx (lesson 08)."""
        T = idx.shape[1]
        if cache is None:
            positions = torch.arange(T, device=idx.device)
        else:
            positions = cache.extend(T, idx.device)
        x = self.token_embedding(idx)  # (B, T, C)
        if self.n_gram_embedding is not None:
            before = None
            if cache is not None:
                before = cache.last_ids
                read = idx if before is None else torch.cat([before, idx], dim=1)
                cache.last_ids = read[:, 1 - self.config.n_gram :]
            x = x + self.n_gram_embedding(idx, positions, before)
        rotation = None
        if self.position_embedding is None:
            # Computed once for all layers and heads: cos and sin (T, 1, head_size), or (B, T, 1, head_size).
            head_size = self.config.n_embd // self.config.n_head
            rotation = rope_cos_sin(positions[..., None], head_size)
        else:
            x = x + self.position_embedding(positions)
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x, rotation, cache)
        logits = self.lm_head(self.norm(x))
        if self.config.softcap > 0:
            # Small logits hardly change; large ones never leave the range.
            logits = self.config.softcap * torch.tanh(logits / self.config.softcap)
        return logits

    def num_params(self):
        """The number of parameters; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())

# %%
torch.manual_seed(1337)
V = tokenizer.vocab_size
config = ModernConfig(
    V, block_size=96, n_layer=3, n_head=4, n_kv_head=2, n_embd=96, n_gram=3, n_gram_rows=2048
)
model = ModernGPT(config)
of_tables = sum(p.numel() for p in model.n_gram_embedding.parameters())
print(f"{model.num_params():,} parameters, {of_tables:,} of them in the tables of n-grams")

# %% [markdown]
# With everything switched off, `ModernGPT` should be lesson 06's GPT. Is it? Copy the weights of one into the other; `qkv` has to be cut into three.

# %%
torch.manual_seed(0)
old = GPT(GPTConfig(V, block_size=96, n_layer=3, n_head=4, n_embd=96)).eval()
off = {
    "norm": "layer",
    "positions": "learned",
    "activation": "gelu",
    "qk_norm": False,
    "softcap": 0.0,
}
new = ModernGPT(ModernConfig(V, block_size=96, n_layer=3, n_head=4, n_embd=96, **off)).eval()
weights = {}
for name, weight in old.state_dict().items():
    if name.endswith("qkv.weight"):
        for part, piece in zip("qkv", weight.chunk(3)):
            weights[name.replace("qkv", part)] = piece
    else:
        weights[name] = weight
new.load_state_dict(weights)
with torch.no_grad():
    difference = (old(ids[None, :96])[0] - new(ids[None, :96])[0]).abs().max()
print(f"largest difference of the logits: ≈ {difference:.0e}")
assert difference < 1e-4

# %% [markdown]
# The tests of the course do the same with `transformers`: with copied weights a `ModernGPT` gives the logits of its `LlamaForCausalLM`.
#
# ## Muon
#
# AdamW (lesson 02) treats a matrix as a heap of numbers: each has its own step. **Muon** ([Jordan et al., 2024](https://kellerjordan.github.io/posts/muon/)) treats it as a matrix. What does a matrix do to vectors? It turns them, stretches them along some directions, and turns them again. The singular value decomposition writes this as $G = U S V^\top$: $V^\top$ and $U$ turn, and $S$ is diagonal and holds the factors of the stretching, the **singular values**. Look at the singular values of a gradient:

# %%
x = ids[: 8 * 97].view(8, 97)
model(x[:, :-1], x[:, 1:])[1].backward()
gradient = model.blocks[1].feed_forward.up.weight.grad
values = torch.linalg.svdvals(gradient)
share = (values.square().cumsum(0) / values.square().sum())[[0, 4, 19]]
print(
    f"{len(values)} singular values; the largest is {values[0] / values[len(values) // 2]:.0f} times the middle one"
)
print(
    "share of the gradient's square in the first 1, 5, 20:",
    [f"{one:.0%}" for one in share.tolist()],
)

# %% [markdown]
# The first 5 of the 96 directions hold two fifths of the sum of squares, and the first 20 hold three quarters. A step along the gradient moves the weights mainly in these directions. The others hardly move, and what is rare in the text may lie there. Muon's step keeps the directions and makes all factors equal: $U V^\top$ in place of $U S V^\top$.
#
# ### Exercise: equal factors
# ★★ · 6 minutes · Of all matrices that stretch nothing, $U V^\top$ is the nearest to $G$.
#
# Compute $U V^\top$ with `torch.linalg.svd`, which returns $U$, $S$ and $V^\top$.

# %% tags=["exercise"] exercise="equal_stretch"
def equal_stretch(matrix):
    """matrix (M, N), M and N may differ -> (M, N), with the same U and V, and all singular values 1."""
    ### BEGIN SOLUTION
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vt
    ### END SOLUTION

# %%
check("equal_stretch", equal_stretch)

# %% [markdown]
# A decomposition in each step would be slow, above all on a graphics card. There is a way that needs only products of matrices. Take $p(X) = aX + b\,(XX^\top)X + c\,(XX^\top)^2X$ and put in $X = USV^\top$. The products $U^\top U$ and $V^\top V$ inside are the identity and drop out. What is left is $U\,p(S)\,V^\top$, with
#
# $$p(s) = as + bs^3 + cs^5$$
#
# for each singular value $s$. So $p$ acts on each singular value by itself and leaves the directions alone. If $p$ is applied several times, small values grow until they are near 1. This is a **Newton-Schulz** iteration. Muon applies $p$ five times, with $a = 3.4445$, $b = -4.7750$, $c = 2.0315$.

# %%
s = torch.logspace(-4, 0, 400)
fig, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
for steps, colour in ((1, "#56B4E9"), (2, "#0072B2"), (5, "#D55E00")):
    value = s
    for _ in range(steps):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    ax.plot(s, value, color=colour, label=f"{steps} times" if steps > 1 else "once")
ax.axhline(1, color="#888888", linewidth=0.8)
ax.set(xlabel="a singular value", ylabel="what becomes of it", xscale="log", ylim=0)
ax.legend(frameon=False)
show(
    fig,
    "What the polynomial makes of numbers from 0.0001 to 1, on a logarithmic axis. Applied once, it lifts only large "
    "numbers near 1; applied five times, all numbers above 0.002 lie between 0.7 and 1.2.",
)

# %% [markdown]
# The curve does not settle at 1. The coefficients were chosen for speed: small values grow by a factor of 3.4 each time, and after five times everything that was above 0.002 lies between 0.7 and 1.2. For the direction of a step that is good enough.

# %%
#| export
def orthogonalize(matrices, steps=5):
    """Matrices with the same singular vectors and singular values near 1: Newton-Schulz (Jordan et al., 2024).

    (..., M, N) -> (..., M, N). Each step applies a polynomial to the singular values: small ones grow by a factor of 3.4,
    and those near 1 stay between 0.7 and 1.2.
    """
    a = 3.4445
    b = -4.7750
    c = 2.0315
    # Divided by the root of the sum of all squares, no singular value is above 1.
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:
        x = x.mT  # makes the product below the smaller of the two
    for _ in range(steps):
        product = x @ x.mT
        x = a * x + (b * product + c * product @ product) @ x
    if is_tall:
        x = x.mT
    return x

# %%
fig, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
for steps, colour in ((0, "#000000"), (1, "#56B4E9"), (3, "#0072B2"), (5, "#D55E00")):
    values = torch.linalg.svdvals(orthogonalize(gradient, steps))
    ax.plot(values, color=colour, label=f"{steps} steps")
ax.set(xlabel="singular values, from the largest to the smallest", ylabel="size", ylim=0)
ax.legend(frameon=False)
show(
    fig,
    "The singular values of the gradient, divided by its norm and sorted, after 0, 1, 3 and 5 steps. At first nearly all "
    "are below 0.2; after five steps all lie between about 0.7 and 1.2.",
)

# %% [markdown]
# Now the optimizer. Like Adam it first smooths the gradient over time: the momentum $B \leftarrow 0.95\,B + 0.05\,G$, a matrix as large as $G$. Then
#
# $$W \leftarrow (1 - \eta\lambda)\,W - 0.2\,\eta\,\sqrt{\max(M, N)}\;\mathrm{NewtonSchulz}\big(0.95\,B + 0.05\,G\big)$$
#
# for a matrix of size $M \times N$, with learning rate $\eta$ and weight decay $\lambda$. (Adding $0.05\,G$ once more looks one step ahead: the sum is the momentum as it would be if the next gradient were the same. This is Nesterov's trick.)
#
# Why $0.2 \sqrt{\max(M, N)}$ ([Liu et al., 2025](https://arxiv.org/abs/2502.16982))? The squares of the numbers in $UV^\top$ sum to the number of its singular values, $\min(M, N)$. The matrix has $MN$ numbers, so their root mean square is $1 / \sqrt{\max(M, N)}$. With the factor it is 0.2, about that of AdamW's steps, so both optimizers can share a learning rate.
#
# That is convenient, because Muon takes only the matrices in the blocks. The other parameters stay with AdamW. A step looks up some rows of an embedding table, each as a vector by itself, so the singular values of the table mean nothing. The last matrix is tied to that table. And gains are not matrices.

# %%
#| export
class Muon(torch.optim.AdamW):
    """Muon (Jordan et al., 2024) for the parameter groups with muon=True, whose parameters are matrices; AdamW for the rest.

    A matrix (M, N) moves by 0.2 sqrt(max(M, N)) times the learning rate in each of its directions, about as far as AdamW
    would move it (Liu et al., 2025). So both share a learning rate and a weight decay.
    """

    def __init__(self, groups, lr, betas, momentum=0.95, fused=False):
        # The momentum is stored in the groups, so it is saved with the optimizer's state.
        groups = [{"momentum": momentum, **group} for group in groups]
        super().__init__(groups, lr=lr, betas=betas, fused=fused)
        # In fp16 a step whose gradients overflowed must be skipped. AdamW's fused kernel offers to skip it, but only for
        # its own parameters. So the GradScaler skips it instead, for all parameters.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure=None):
        """One step. closure, if given, is called first and computes the loss again."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = {}
        for group in self.param_groups:
            if not group["muon"]:
                continue
            shapes = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes.setdefault(matrix.shape, []).append(matrix)
                    gradients[matrix] = matrix.grad
            for matrices in shapes.values():
                self._step_matrices(matrices, group["lr"], group["weight_decay"], group["momentum"])
        # AdamW skips parameters without a gradient, so Muon's matrices hide theirs from it.
        for matrix in gradients:
            matrix.grad = None
        super().step()
        for matrix, gradient in gradients.items():
            matrix.grad = gradient
        return loss

    def _step_matrices(self, matrices, lr, weight_decay, momentum):
        """Muon's step for K matrices of one shape, (M, N), in one product: many small products would take longer."""
        for matrix in matrices:
            state = self.state[matrix]
            if not state:
                # AdamW counts its steps, and expects their number when a state is loaded.
                state["step"] = torch.tensor(0.0)
                state["momentum_buffer"] = torch.zeros_like(matrix)
            state["step"] += 1
        gradients = torch.stack([matrix.grad for matrix in matrices])  # (K, M, N)
        buffers = torch.stack([self.state[matrix]["momentum_buffer"] for matrix in matrices])
        buffers = buffers.lerp(gradients, 1 - momentum)  # the running mean of the gradients
        # Nesterov: the momentum as it would be if the next gradient were the same.
        ahead = gradients.lerp(buffers, momentum)
        M, N = matrices[0].shape
        directions = orthogonalize(ahead) * (0.2 * max(M, N) ** 0.5)
        for matrix, buffer, direction in zip(matrices, buffers, directions):
            self.state[matrix]["momentum_buffer"].copy_(buffer)
            matrix.mul_(1 - lr * weight_decay)
            matrix.add_(direction, alpha=-lr)

# %% [markdown]
# Which parameters go to which of the two? The matrices of the blocks go to Muon, all others to AdamW:

# %%
#| export
def muon_param_groups(model, weight_decay):
    """Parameter groups: one for Muon, with the matrices of the model's blocks, and two for AdamW, with the rest.

    Raises: ValueError for a model without blocks.
    """
    if not hasattr(model, "blocks"):
        raise ValueError(
            f"Muon is for the matrices in a model's .blocks, and {type(model).__name__} has none: take optimizer='adamw'"
        )
    matrices = [parameter for parameter in model.blocks.parameters() if parameter.dim() == 2]
    chosen = set(matrices)
    groups = [{"params": matrices, "weight_decay": weight_decay, "muon": True}]
    for group in param_groups(model, weight_decay):
        others = [parameter for parameter in group["params"] if parameter not in chosen]
        groups.append({"params": others, "weight_decay": group["weight_decay"], "muon": False})
    return groups


def make_muon(model, config):
    """The optimizer for `TrainConfig(optimizer="muon")`."""
    device = next(model.parameters()).device
    return Muon(
        muon_param_groups(model, config.weight_decay),
        lr=config.learning_rate,
        betas=tuple(config.betas),
        fused=device.type in ("cpu", "cuda"),
    )

# %% [markdown]
# (PyTorch has had the same optimizer since version 2.9, as `torch.optim.Muon`. Ours takes all matrices of one shape in one product and computes in 32 bits, which is faster on a CPU; the tests of the course compare the steps of both.)
#
# ## Train it
#
# Two runs from the same weights, 250 steps each: AdamW, and Muon for the matrices. **Predict** which is ahead after 50 steps, and which takes longer per step.

# %% tags=["nbval-ignore-output"]
runs = {}
for optimizer in ("adamw", "muon"):
    torch.manual_seed(1337)
    model = ModernGPT(config)
    settings = TrainConfig(
        steps=250,
        batch_size=16,
        learning_rate=4e-3,
        optimizer=optimizer,
        schedule="wsd",
        decay=0.5,
        eval_interval=25,
        eval_batches=8,
    )
    start = time.perf_counter()
    runs[optimizer] = train(model, corpus, settings, tokenizer)
    milliseconds = 1000 * (time.perf_counter() - start) / settings.steps
    [after_50] = [row["val_loss"] for row in runs[optimizer]["log"] if row["step"] == 50]
    print(f"{optimizer}: ≈ {after_50:.2f} nats after 50 steps, ≈ {milliseconds:.0f} ms per step")

# %%
fig, ax = plt.subplots(figsize=(6.5, 3), layout="constrained")
for optimizer, colour in (("adamw", "#0072B2"), ("muon", "#D55E00")):
    log = runs[optimizer]["log"]
    steps = [row["step"] for row in log]
    ax.plot(
        steps, [row["val_loss"] for row in log], "o-", markersize=3, color=colour, label=optimizer
    )
if corpus.val_entropy is not None:
    ax.axhline(corpus.val_entropy, color="#009E73", linestyle="--", label="the floor")
ax.set(xlabel="step", ylabel="validation loss, nats per character")
ax.legend(frameon=False)
show(
    fig,
    "The validation loss of both runs, in nats per character, every 25 steps. Both fall steeply, then slowly.",
)
model.eval()
assert runs["muon"]["best_val_loss"] < 2

# %% [markdown]
# Compare with your prediction: the curves and the printed losses show which optimizer is ahead at equal steps, and the milliseconds show what a step costs. Is the better one still better at equal time? The recorded runs below answer that.
#
# ## Write, and look inside

# %% tags=["nbval-ignore-output"]
print(generate(model, "Enter ", 400, seed=1, temperature=0.8, tokenizer=tokenizer))

# %%
assert model.make_cache().slides
text = corpus.val[:48]
with torch.no_grad(), record_attention(model) as maps:
    model(tokenizer.encode(text)[None])
show(
    plot_heads(maps, text),
    "The attention of four heads in three layers. After so short a training the weights are spread over many earlier "
    "characters, in some columns more than in others.",
)

# %% [markdown]
# `generate` used the sliding cache without being told to: it calls the model's `make_cache`. How many characters did the model have to read? We count them for lesson 06's model and for this one, with a text that goes 100 characters beyond the block.

# %%
prompt = torch.zeros(1, 1, dtype=torch.int64)
for name, writer in (("lesson 06's GPT", recorded), ("the modern GPT", model)):
    read = []
    handle = writer.register_forward_pre_hook(lambda part, inputs: read.append(inputs[0].shape[1]))
    generate(writer, prompt, writer.block_size + 100, seed=1)
    handle.remove()
    print(
        f"{name}, block {writer.block_size}: wrote {len(read)} characters and read {sum(read):,}, "
        f"{sum(read) / len(read):.0f} for each one written"
    )

# %% [markdown]
# Lesson 06's GPT reads its whole block for each of the last 100 characters. The modern one reads each character once, however long the text becomes.
#
# Is the sliding cache as good as reading the window anew? Measure both on 2,000 characters of the validation text, from the 200th on.

# %% tags=["nbval-ignore-output"]
stream = tokenizer.encode(corpus.val[:2000])
cache = model.make_cache()
with torch.no_grad():
    pieces = [model(piece, cache=cache)[0] for piece in stream[None, :-1].split(48, dim=1)]
sliding = F.cross_entropy(torch.cat(pieces, dim=1)[0, 200:], stream[201:]).item()
anew = per_token_loss(model, stream, stride=1)[200:].mean().item()
print(f"each character read once: {sliding:.3f} nats; the window read anew each time: {anew:.3f}")

# %%
gap = abs(sliding - anew)
print(f"apart by ≈ {gap:.4f} nats per character (less than 0.05: {gap < 0.05})")
assert abs(sliding - anew) < 0.05

# %% [markdown]
# ## With and without
#
# What is each part worth? At this small scale we can measure it. `python -m tests.benchmarks.modern rates parts` trained small models on Tiny Shakespeare: 4 layers, 96 wide, 64 characters of context, 16 windows a step. The row *GPT* is lesson 06's model: layer norm, a learned table, GELU, AdamW. The row *whole* has eight parts of this page: RMSNorm, RoPE, SwiGLU, 2 heads of keys and values for 4 of queries, QK-norm, soft-capping, embeddings of up to 4 characters, and Muon. The other rows have one part added to *GPT*, or one part taken from *whole*. (Squared ReLU takes SwiGLU's place; it is not a ninth part.)
#
# Each row was trained with three seeds and two budgets: for 600 steps, and for as many steps as fit into the *time* that *GPT* needs for 600. Its learning rate was chosen beforehand, by the loss on the last tenth of the training text, which the model did not train on for this purpose. The losses below are taken over the whole validation text and averaged over three seeds. They are higher than those above, because Shakespeare is harder to predict than Playhouse. **Predict:** which three parts are worth most? And which ones gain nothing at equal time?

# %%
record = json.loads((bundled_dir() / "results" / "modern.json").read_text(encoding="utf-8"))
parts = record["parts"]


def mean_loss(row, budget):
    """The mean loss of three seeds."""
    return fmean(parts[row]["losses"][budget].values())


def gains(without, with_part, budget):
    """How much lower the loss is with a part, for each seed."""
    losses = parts[without]["losses"][budget]
    return [losses[seed] - loss for seed, loss in parts[with_part]["losses"][budget].items()]


print(f"{'':28}parameters  characters  loss, equal  equal")
print(f"{'':28}             a second        steps   time")
for row, part in parts.items():
    print(
        f"{row:28}{part['parameters']:10,}  {part['chars_per_second']:10,.0f}  "
        f"{mean_loss(row, 'equal steps'):11.3f}  {mean_loss(row, 'equal time'):.3f}"
    )

# %%
names = [row.removeprefix("GPT + ") for row in parts if row.startswith("GPT + ")]
names.sort(key=lambda name: mean_loss(f"GPT + {name}", "equal steps"))
fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for ax, budget in zip(axes, ("equal steps", "equal time")):
    for place, name in enumerate(names):
        added = gains("GPT", f"GPT + {name}", budget)
        ax.plot(added, [place - 0.13] * 3, "o", color="#0072B2", alpha=0.8)
        if f"whole - {name}" in parts:
            missing = gains(f"whole - {name}", "whole", budget)
            ax.plot(missing, [place + 0.13] * 3, "s", color="#D55E00", alpha=0.8)
    ax.axvline(0, color="#888888", linewidth=0.8)
    ax.set(title=f"at {budget}", xlabel="nats that the part is worth")
axes[0].set_yticks(range(len(names)), names)
axes[0].invert_yaxis()
axes[0].plot([], [], "o", color="#0072B2", label="added to lesson 06's GPT")
axes[0].plot([], [], "s", color="#D55E00", label="missing from the whole")
axes[0].legend(frameon=False, fontsize=8, loc="lower right")
show(
    fig,
    "For each part the nats it is worth, with three seeds, added to lesson 06's GPT and missing from the whole. N-gram "
    "embeddings are farthest to the right, then Muon, RoPE and SwiGLU. The other parts lie around 0.",
)

# %% [markdown]
# Each point is the difference of two runs with the same seed, so the width of a group shows how much chance decides. The same in numbers: the nats that a part is worth, as the mean of three seeds.

# %%
together = 0
print("                    added to GPT          missing from the whole")
print("                    steps   time          steps   time")
for name in names:
    line = f"{name:18}"
    for without, with_part in (("GPT", f"GPT + {name}"), (f"whole - {name}", "whole")):
        if without in parts:
            at_steps = fmean(gains(without, with_part, "equal steps"))
            at_time = fmean(gains(without, with_part, "equal time"))
            line += f" {at_steps:+6.3f} {at_time:+6.3f}        "
            if without == "GPT" and name != "ReLU²":
                together += at_steps
    print(line.rstrip())
all_at_once = fmean(gains("GPT", "whole", "equal steps"))
print(f"eight parts, each added alone: {together:.2f} together; all at once: {all_at_once:.2f}")
alone = gains("GPT", "GPT + QK-norm", "equal steps")
print("QK-norm added, each seed:", ", ".join(f"{gain:+.3f}" for gain in alone))

# %% [markdown]
# - **N-gram embeddings** gain most. Their tables hold 1.2 million numbers, more than twice as many as the rest of the model. They cost hardly any time, because looking up a row needs no matrix product.
# - **Muon** comes second at equal steps. But its products slow training down by a fifth, so at equal time it gains less, and the whole does as well without it. (Muon's work is the same for every size of batch. Here a step has only 16 · 64 = 1,024 characters, so Muon's share of the time is large.)
# - **RoPE** and **SwiGLU** gain in every row, though little in the whole. Squared ReLU gains less than SwiGLU when it is added; in the whole it is as good.
# - **QK-norm** helps in one case and not in the other. Added alone, its gain changes sign from seed to seed. But the whole is worse without it, with every seed.
# - **RMSNorm, grouped heads and soft-capping** change the loss by at most 0.02, about as much as the seeds differ.
#
# So half of the parts hardly help here. They were not invented for the loss of a small model. Grouped heads make the cache smaller. QK-norm and soft-capping bound numbers that can grow too large when large models are trained for long. RMSNorm does less arithmetic than layer norm, but on this processor the row with it is no faster.
#
# And the gains do not add up: all parts at once gain much less than the sum of the gains of each.
#
# ## The race
#
# How far do such parts carry? `python -m tests.benchmarks.race` trains five models from scratch, on Tiny Shakespeare and two CPU cores. Each has 180 seconds. The clock starts before Python does, so imports and reading the text use up some of that time.
#
# - *nanoGPT*: a GPT like lesson 06's, with the settings that nanoGPT's README gives for a CPU: 4 layers, 128 wide, 64 characters of context, 2,000 steps. It is done after a minute.
# - *nanoGPT, longer*: the same, with a schedule that fills the 180 seconds.
# - *nanoGPT, tuned*: ReLU in place of GELU, three times the learning rate, and a linear decay over the last 60% of the time.
# - *transformer*: as deep and as wide, with some of this page's parts: RMSNorm, RoPE, QK-norm, squared ReLU and Muon, but no n-gram embeddings. It has windows of 512 characters. To make them cheap, a window is cut into chunks of 64. A character attends to its own chunk, up to itself, and to the chunk before. Information from further back arrives through the lower layers.
# - *everything*: such a transformer, with windows of 1,024 characters, on top of counts like those of lesson 01. The counts say how often each character came after the last 0 to 8 characters in the training text, and after the last 3 and 5 in the window itself. At each position the transformer computes a weight for each of these counts. The counts give probabilities; their logs are multiplied by these weights and added to the transformer's own logits.
#
# Each character of the validation text is predicted once. Long windows help, so the cell also gives the loss in windows of at most 256 characters. (For nanoGPT's windows of 64 that changes nothing.) Where a processor is fast at 16 bits, as this one was, the blocks of *transformer* and *everything* compute in bf16 (lesson 10). nanoGPT's models compute in 32 bits, as nanoGPT does on a CPU. **Predict:** how long does each of the five take to get below 2 nats, the grey line in the figure?

# %%
race = json.loads((bundled_dir() / "results" / "race.json").read_text(encoding="utf-8"))["runs"]
entrants = ("nanoGPT", "nanoGPT, longer", "nanoGPT, tuned", "transformer", "everything")
for name in entrants:
    losses = [run["loss"] for run in race[name]]
    short = fmean(run["loss in windows of at most 256"] for run in race[name])
    below = []  # for each seed, the seconds at the first point below 2 nats
    for run in race[name]:
        seconds = [point["seconds"] for point in run["curve"] if point["loss"] < 2]
        below.append(f"{min(seconds):.0f}")
    print(f"{name:15} below 2 nats after {', '.join(below)} s, measured every 15 s")
    print(
        f"{'':15} at the end {fmean(losses):.3f} (seeds from {min(losses):.3f} to {max(losses):.3f}); "
        f"in windows of at most 256 characters {short:.3f}"
    )

# %%
fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for name, colour in zip(entrants, ("#D55E00", "#CC79A7", "#E69F00", "#009E73", "#0072B2")):
    for run in race[name]:
        seconds = [point["seconds"] for point in run["curve"]]
        losses = [point["loss"] for point in run["curve"]]
        ax.plot(seconds, losses, "o-", markersize=2.5, linewidth=1, color=colour)
        ax.plot(seconds[-1], losses[-1], "D", markersize=5, color=colour, zorder=3)
    ax.plot([], [], "o-", color=colour, label=name)
ax.axhline(2, color="#888888", linewidth=0.8)
ax.set(xlabel="seconds since the start", ylabel="validation loss, nats per character")
ax.set_xlim(0, None)
ax.set_ylim(None, 2.7)  # room for the legend
ax.legend(frameon=False)
show(
    fig,
    "The validation loss against time, a curve for each seed. The curves of nanoGPT's three models run close together, and "
    "one of the three ends after a minute. The transformer is below them from the first point on, and everything is far "
    "below the transformer.",
)

# %% [markdown]
# The diamonds mark the ends of the runs; *nanoGPT* ends after a minute. The transformer is just below 2 nats at its first point. *everything* is already far below 2 there, because counts need no training: its tables are full before its first step. Then it improves slowly.
#
# nanoGPT's README gives 1.4697, an estimate from some batches, for a model of 10.7 million parameters after three minutes on an A100, a graphics card for data centres. That model has windows of 256 characters, so compare 1.4697 with the losses in windows of at most 256 characters above. But all counts of a million characters fit into a small memory. This race does not show what they would add on a text a thousand times as long.
#
# ## Mistakes people make
#
# - **Turning the values, too.** RoPE is for queries and keys. Values are the content that is carried. They must not depend on position.
# - **Pairs from halves in one program, from neighbours in the other.** The logits are wrong, and no error is raised. Copy the weights and compare the logits before you train on.
# - **Turning keys again when they come from the cache.** They were turned when they were written.
# - **A gate without a narrower layer.** SwiGLU with $4C$ inside has 1.5 times as many parameters, and then is better only by its size.
# - **Muon for embeddings or the last matrix.** Each of their rows is a vector by itself.
# - **Using AdamW's learning rate with a Muon that lacks the factor.** Without $0.2\sqrt{\max(M, N)}$ the steps have another size. Check which convention a published rate belongs to.
#
# How far you are:

# %%
progress()

# %% [markdown]
# ## Summary
#
# You now have `ModernConfig`, `ModernGPT`, `SlidingKVCache` and `Muon`, in `chargpt_lib/modern.py`. A `ModernGPT` goes wherever a `GPT` goes: into `train`, checkpoints, `generate`, attention maps and the command:
#
#     chargpt train --preset modern --corpus diary.txt
#     chargpt train --preset cpu --optimizer muon
#
# Next: [17 · GPT-2](17_gpt2.ipynb), whose weights your model can take.
