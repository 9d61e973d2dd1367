# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · Blocks: gather, think, repeat
#
# > The transformer block: attention, feed-forward, residual connections, layer norm, dropout.
#
# You will build: the transformer block, and find out what each of its parts is good for by leaving it out.
# You need lesson 04. On a CPU the page takes about three quarters of a minute.
#
# Attention gathers: it brings vectors from the past to where they are needed. Then the model has to conclude something from them. A block does both. One conclusion leads to the next, so blocks are stacked. With the stack, the trouble begins.

# %% [markdown]
# ## The feed-forward layer
#
# The layer works at each position by itself. One matrix maps the $C$ numbers to $4C$ numbers, an activation is applied to each of them, and a second matrix maps them back to $C$.
#
# $$\operatorname{FFN}(x) = W_2\, \sigma(W_1 x + b_1) + b_2$$
#
# The **activation** $\sigma$, a function that is not linear, is the point of the layer. Vaswani et al. (2017) took $\operatorname{ReLU}(z) = \max(0, z)$, and GPT-2 took the smoother $\operatorname{GELU}(z) = z\, \Phi(z)$ (Hendrycks and Gimpel, 2016), where $\Phi(z)$ is the probability that a standard normal number (mean 0, variance 1) is below $z$: it goes from 0 on the far left to 1 on the far right. (Here $x$ is a column, with the matrices to its left; in lesson 04 a row stood to the left of $W^O$. In code both are `x @ W.T`, as `nn.Linear` computes it.)

# %%
import json
import math
from math import log, log10
from statistics import fmean

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.plots import heatmap, price_table, show, visible

# %%
z = torch.linspace(-4, 4, 200)
fig, ax = plt.subplots(figsize=(5, 2.6), layout="constrained")
ax.plot(z, F.relu(z), "--", color="#D55E00", label="ReLU: max(0, z)")
ax.plot(z, F.gelu(z), color="#0072B2", label="GELU: z · Φ(z)")
ax.set(xlabel="z", title="Two activations")
ax.legend(frameon=False)
show(
    fig,
    "ReLU is zero on the left and the identity on the right, with a corner at zero. GELU is smooth, with a "
    "shallow dip below zero.",
)

# %% [markdown]
# Without an activation between them, two matrices in a row are one matrix, and so are a hundred.

# %%
torch.manual_seed(1337)
W1, W2, x = torch.randn(8, 4), torch.randn(4, 8), torch.randn(4)
two = W2 @ (W1 @ x)  # two products, no activation between them
one = (W2 @ W1) @ x  # one product with one (4, 4) matrix
difference = (two - one).abs().max()
print(
    f"two products or one, largest difference ≈ {difference:.1g} (below 1e-5: {bool(difference < 1e-5)})"
)
assert torch.allclose(two, one, atol=1e-5)

# %%
#| export
import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.bigram import LanguageModel
from chargpt_lib.multi_head import CausalSelfAttention
from chargpt_lib.single_head import init_weights

# %%
#| export
ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),  # as GPT-2 computes it
    "relu2": lambda x: F.relu(x).square(),  # lesson 16
}


class FeedForward(nn.Module):
    """Two matrices with an activation between them, at each position by itself: (B, T, C) -> (B, T, C)."""

    def __init__(self, n_embd, bias=True, activation="gelu", dropout=0.0):
        super().__init__()
        # Four times as wide inside, as in Vaswani et al. (2017) and most models since.
        self.fc = nn.Linear(n_embd, 4 * n_embd, bias=bias)
        self.activation = activation
        self.dropout = dropout
        self.proj = nn.Linear(4 * n_embd, n_embd, bias=bias)

    def forward(self, x):
        activation = ACTIVATIONS[self.activation]
        x = self.proj(activation(self.fc(x)))
        return F.dropout(x, self.dropout, self.training)

# %%
feed_forward = FeedForward(64)
x = torch.randn(2, 5, 64)
print(tuple(feed_forward(x).shape))
changed = x.clone()
changed[:, 3] += 1  # another vector at position 3
difference = (feed_forward(changed) - feed_forward(x)).abs().sum(-1)[0]  # (T,)
print("positions whose output changes:", (difference > 0).nonzero().flatten().tolist())

# %% [markdown]
# Only position 3. Attention alone moves information between positions; in the feed-forward layer each position thinks for itself.
#
# ### Exercise: dead units
# ★ · 5 minutes · A unit that is 0 for every character gets no gradient, and may stay 0 for ever (Lu et al., 2019).
#
# The numbers between the two matrices are called **units**; here they go through a ReLU. A unit is dead if after the ReLU it is 0 for every character of every text. Measure the share of dead units. With two units, one text and three characters, `[[[-1, 2], [-3, -1], [0, 4]]]`: unit 0 is dead, unit 1 is not; the share is 0.5.

# %% tags=["exercise"] exercise="dead_units"
def dead_units(z):
    """z (B, T, U), the inputs of the ReLU -> float: the share of the U units that are dead."""
    ### BEGIN SOLUTION
    return (z <= 0).all(dim=1).all(dim=0).double().mean().item()
    ### END SOLUTION

# %%
check("dead_units", dead_units)

# %% [markdown]
# ## Residual connections and layer norm
#
# Now stack them: attention, feed-forward, attention, feed-forward, twelve times. To learn, the first layer needs a gradient, and the gradient has to pass backwards through all the other layers. Each layer multiplies the gradient by its derivative. **Predict:** if each of the 24 layers makes the gradient a third as large, what fraction of it reaches the input?

# %%
print(f"a fraction of {(1 / 3) ** 24:.0e}")

# %% [markdown]
# Three cures have been found.
#
# 1. **Residual connections** (He et al., 2016): a layer does not replace the vector, it adds to it, $x + f(x)$. Then the derivative is $1 + f'(x)$. Where $f'$ is small, the 1 carries the gradient back unchanged. The vector to which all layers add is called the **residual stream**.
# 2. **Layer norm** (Ba et al., 2016): the input of a layer is first brought to mean 0 and variance 1. Of the $C$ numbers of one position, $\mu$ is the mean and $s^2$ the variance, the mean of $(x_i - \mu)^2$; $\gamma$ and $\beta$ are learnt, one for each of the $C$; $\odot$ multiplies number by number; the small $\varepsilon$ avoids a division by 0.
#    $$\operatorname{LN}(x) = \gamma \odot \frac{x - \mu}{\sqrt{s^2 + \varepsilon}} + \beta$$
# 3. **Scaled initialisation** (Radford et al., 2019): $N$ blocks add $2N$ times to the residual stream, and its variance grows with $2N$; so the last matrix of each layer starts smaller, by the factor $1/\sqrt{2N}$.
#
# The first two cures can be combined in two orders. The original transformer (Vaswani et al., 2017) normalises after each addition (**post-norm**); GPT-2 normalises the input of each layer (**pre-norm**):
#
# $$\text{post-norm:}\quad x \leftarrow \operatorname{LN}(x + f(x)) \qquad\qquad \text{pre-norm:}\quad x \leftarrow x + f(\operatorname{LN}(x))$$
#
# First, here is layer norm by hand. (`unbiased=False`: the variance is divided by $C$, not by $C - 1$.)

# %%
x = torch.tensor([[1.0, 2.0, 3.0, 10.0]])
by_hand = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
print(by_hand)
difference = (by_hand - nn.LayerNorm(4)(x)).abs().max()
print(
    f"largest difference from PyTorch's ≈ {difference:.1g} (below 1e-6: {bool(difference < 1e-6)})"
)
assert torch.allclose(by_hand, nn.LayerNorm(4)(x), atol=1e-6)

# %% [markdown]
# Now we measure the gradient at the input of each layer, in a stack of 24 layers, with each cure on or off. Its length is the L2 length, the root of the sum of the squares. (`retain_grad` keeps the gradient of a tensor that is not a parameter.) We also measure how alike the vectors at the end are: the mean cosine between the vector at position 0 and the others (their dot product, divided by both lengths). 1 means that all vectors point the same way. **Predict:** post-norm has a residual, too. Will its curve be level, like that of pre-norm?

# %%
def make_stack(std, scaled, depth, C):
    """2 * depth layers, attention and feed-forward in turn, with Normal(0, std) weights; scaled: the third cure."""
    torch.manual_seed(1337)
    layers = nn.ModuleList()
    for _ in range(depth):
        layers += [CausalSelfAttention(C, 4), FeedForward(C)]
    for name, weight in layers.named_parameters():
        shrink = (2 * depth) ** -0.5 if scaled and name.endswith("proj.weight") else 1
        if weight.dim() > 1:
            nn.init.normal_(weight, std=std * shrink)
        else:
            nn.init.zeros_(weight)
    return layers

# %%
def gradients(std, residual, norm, scaled, depth=12, C=64):
    """The length of the gradient at the input of each layer, and how alike the positions end. norm: "pre", "post", None."""
    layers = make_stack(std, scaled, depth, C)
    x = torch.randn(4, 32, C, requires_grad=True)  # (B, T, C)
    inputs = []
    for layer in layers:
        inputs.append(x)
        x.retain_grad()
        y = layer(F.layer_norm(x, (C,)) if norm == "pre" else x)
        x = x + y if residual else y
        if norm == "post":
            x = F.layer_norm(x, (C,))
    loss = (F.layer_norm(x, (C,)) * torch.randn(4, 32, C)).sum()
    loss.backward()
    lengths = [a.grad.norm().item() for a in inputs]
    alike = F.cosine_similarity(x[:, :1], x[:, 1:], dim=-1).mean().item()
    return lengths, alike

# %%
variants = {
    "nothing": (False, None, False),
    "residual": (True, None, False),
    "norm": (False, "pre", False),
    "residual, norm": (True, "pre", False),
    "residual, norm, scaled": (True, "pre", True),
    "residual, post-norm": (True, "post", False),
}
flow = {}
for std in (0.02, 0.125):
    for name, cures in variants.items():
        flow[std, name] = gradients(std, *cures)

# %%
colours = ("#999999", "#D55E00", "#E69F00", "#56B4E9", "#0072B2", "#CC79A7")
fig, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for ax, std, title in zip(axes, (0.02, 0.125), ("small weights (0.02)", "large weights (0.125)")):
    for name, marker, colour in zip(variants, "ovs^DP", colours):
        values = torch.tensor(flow[std, name][0]).clamp_min(1e-12)
        ax.plot(range(24), values, marker + "-", color=colour, label=name, markersize=4)
    ax.set(yscale="log", xlabel="layer (0 is the first)", title=title)
axes[0].set_ylabel("length of the gradient (L2)")
axes[1].legend(frameon=False, fontsize=8, title="norm: a layer norm before each layer")
show(
    fig,
    "Left: with none of the cures the gradient falls by many orders of magnitude towards the first layer, with "
    "the layer norm alone by far fewer; the variants with a residual stay level. Right: residuals without layer norm "
    "make it explode, no other variant does; with all three cures it is nearly level, with post-norm not far from it.",
)

# %%
reach = {key: lengths[0] / lengths[-1] for key, (lengths, _) in flow.items()}
print("length of the gradient at the first layer / at the last layer")
for name in variants:
    small, large = reach[0.02, name], reach[0.125, name]
    print(f"{name:22}  small weights ≈ {small:.2g}, large weights ≈ {large:.2g}")
tens = {key: log10(max(factor, 1e-20)) for key, factor in reach.items()}  # in powers of ten
assert tens[0.02, "nothing"] < -12
# With small weights, residuals keep the length.
assert abs(tens[0.02, "residual"]) < 0.3 and abs(tens[0.02, "residual, norm, scaled"]) < 0.3
# With large weights it explodes, unless there is a layer norm.
assert tens[0.125, "residual"] > 4
assert tens[0.125, "residual, norm"] < 1.5
# Scaling makes it more even.
assert tens[0.125, "residual, norm"] - tens[0.125, "residual, norm, scaled"] > 0.3
assert abs(tens[0.125, "residual, norm, scaled"]) < 0.5

# %% [markdown]
# Left: with none of the cures the gradient dies on the way to the first layer. (The plot ends at $10^{-12}$; the numbers go on falling until a float cannot hold them.) The variants with a residual lie on one line: with small weights a residual needs no layer norm.
# Right, with weights of $0.125 = 1/\sqrt{64}$: residuals alone make the gradient grow by many powers of ten. The output of each layer is as large as its input, so each layer adds more than the one before. A layer norm stops that, in either order.
# Residual, layer norm and scaling together are nearly level for both sizes of the weights. Post-norm is not far from level either.
#
# But the layer norm alone (yellow) keeps the gradient alive on both sides, and on the right even the variant with none of the cures (grey, "nothing") does. So what is the residual for? A gradient can only teach a model to tell apart vectors that still differ. **Predict:** how alike are the vectors of different positions after 24 layers? And does it matter where the layer norm stands?

# %%
print("how alike the positions are at the end, large weights")
for name in ("norm", "residual, norm", "residual, norm, scaled", "residual, post-norm"):
    print(f"{name:22}  ≈ {flow[0.125, name][1]:.2f}")
assert flow[0.02, "norm"][1] > 0.99 and flow[0.125, "norm"][1] > 0.99
assert flow[0.02, "residual, norm"][1] < 0.3
assert flow[0.125, "norm"][1] - flow[0.125, "residual, norm"][1] > 0.1
assert flow[0.125, "residual, norm, scaled"][1] < 0.5
assert flow[0.125, "residual, post-norm"][1] - flow[0.125, "residual, norm"][1] > 0

# %% [markdown]
# With the layer norm alone, all positions end with the same vector: each attention replaces the vectors by averages of them, and averages of averages are all alike (Dong et al., 2021). Such a stack cannot know which character came last. With a residual, each vector keeps what it was, and the averages are only added.
#
# Post-norm weakens that: each of its 24 layer norms shrinks the old vector together with what was added to it, so the old vector fades. Xiong et al. (2020) found another difference, which we have not measured: in a post-norm transformer, the gradients of the parameters near the output are large at the start, so the learning rate requires a careful warmup; pre-norm models train without one.
#
# ### Exercise: how wide is the stream?
# ★ · 5 minutes · This is the whole reason for the third cure.
#
# At the start, the numbers of the residual stream have standard deviation `start`. Each of the N blocks adds twice to it, once from its attention and once from its feed-forward layer. Let the numbers added be independent, of mean 0 and standard deviation `added`; if `scaled`, the added numbers (not the start) are first multiplied by $1/\sqrt{2N}$. Variances of independent numbers add (lesson 03). (In a trained model the added numbers are not quite independent.)
#
# **Predict** the standard deviation after N blocks. With N = 2, `start` 2 and `added` 1.5, unscaled, it is $\sqrt{13} \approx 3.61$.

# %% tags=["exercise"] exercise="stream_deviation"
def stream_deviation(n_layer, start, added, scaled):
    """n_layer: N, int; start, added: standard deviations, float; scaled: bool -> float, a standard deviation."""
    ### BEGIN SOLUTION
    steps = 2 * n_layer
    variance = added**2 / steps if scaled else added**2
    return math.sqrt(start**2 + steps * variance)
    ### END SOLUTION

# %%
check("stream_deviation", stream_deviation)

# %% [markdown]
# Random numbers test the formula: 12 blocks make 24 additions of deviation 1 to a stream of deviation 1. What does your formula say?

# %%
generator = torch.Generator().manual_seed(1337)
for scale in (1, 24**-0.5):
    stream = torch.randn(20_000, generator=generator)
    for step in range(24):
        stream = stream + scale * torch.randn(20_000, generator=generator)
    print(f"additions multiplied by {scale:.2f}: standard deviation {stream.std():.1f}")

# %% [markdown]
# ## Dropout
#
# Large models have another problem, a good memory: they learn the training text by heart. **Dropout** (Srivastava et al., 2014) makes each number zero with probability $p$ while training, so that no layer can rely on a single number; the others are divided by $1 - p$, so that the mean stays the same.

# %%
torch.manual_seed(1337)
ones = torch.ones(10_000)
dropped = F.dropout(ones, 0.2, training=True)
print("values:", dropped.unique().tolist())
print(f"zeros: ≈ {(dropped == 0).double().mean():.1%}, mean: ≈ {dropped.mean():.3f}")
print("in evaluation:", F.dropout(ones, 0.2, training=False).unique().tolist())

# %% [markdown]
# In evaluation dropout must be off. `model.eval()` switches it off in layers that look at `self.training`. The fused attention kernel does not look at it: the kernel drops numbers with the probability that it is given, so we have to give it 0 (see `CausalSelfAttention`). If you forget that, every loss you measure is a little too high, and a little different each time. nanoGPT, Andrej Karpathy's well-known program for training GPTs (lesson 06 describes it), had this bug for a month, until April 2023.
#
# Here is dropout by hand. For each number of `x`, `u` holds a random number, uniform between 0 and 1. The author tested the function only in training, and only with p = 0.5.

# %%
def shaky_dropout(x, u, p, training):
    """x, u of the same shape, 0 <= p < 1 -> x with dropout: number i becomes 0 where u_i < p."""
    kept = (u >= p).to(x.dtype)
    if training:
        kept = kept / p
    return x * kept


u = torch.rand(10_000, generator=torch.Generator().manual_seed(1337))
for p in (0.5, 0.2):
    means = [shaky_dropout(ones, u, p, training).mean() for training in (True, False)]
    print(
        "p = {}: the mean of 1 becomes {:.1f} in training, {:.1f} in evaluation".format(p, *means)
    )

# %% [markdown]
# ### Exercise: find the bugs
# ★ · 3 minutes · There are two, and at p = 0.5 in training neither shows.
#
# In training the mean has to stay the same, whatever p is. In evaluation every number has to stay the same. Write the function without the two bugs.

# %% tags=["exercise"] exercise="mended_dropout"
def mended_dropout(x, u, p, training):
    """x, u of the same shape, 0 <= p < 1, training a bool -> what shaky_dropout should have returned."""
    ### BEGIN SOLUTION
    if not training:
        return x
    return x * (u >= p) / (1 - p)
    ### END SOLUTION

# %%
check("mended_dropout", mended_dropout)

# %% [markdown]
# ## The block
#
# Norm, attention, add; norm, feed-forward, add.
#
# $$x \leftarrow x + \operatorname{Attention}(\operatorname{LN}(x)), \qquad x \leftarrow x + \operatorname{FFN}(\operatorname{LN}(x))$$
#
# This is pre-norm, as in GPT-2: the residual path has only additions on it, from end to end. In the drawing this path is the grey road at the bottom: a layer reads from it, and adds to it.

# %%
from chargpt_lib.drawings import draw_model

show(*draw_model("blocks"))

# %%
#| export
class Block(nn.Module):
    """A transformer block: attention, then feed-forward, each with pre-norm and residual: (B, T, C) -> (B, T, C)."""

    def __init__(self, n_embd, n_head, bias=True, qkv_bias=False, activation="gelu", dropout=0.0):
        super().__init__()
        self.norm_1 = nn.LayerNorm(n_embd, bias=bias)
        self.attention = CausalSelfAttention(n_embd, n_head, bias, qkv_bias, dropout)
        self.norm_2 = nn.LayerNorm(n_embd, bias=bias)
        self.feed_forward = FeedForward(n_embd, bias, activation, dropout)

    def forward(self, x, cache=None):
        """x (B, T, C) -> (B, T, C). cache: for the attention (lesson 08)."""
        x = x + self.attention(self.norm_1(x), cache)  # the only way between positions
        return x + self.feed_forward(self.norm_2(x))

# %% [markdown]
# **Predict:** which part of a block has the most parameters, and what share of all? (Attention has four matrices of $C \times C$, the feed-forward layer two of $C \times 4C$.)

# %%
block = Block(n_embd=64, n_head=4)
parts = {name: sum(p.numel() for p in part.parameters()) for name, part in block.named_children()}
print(parts, "sum", sum(parts.values()))

# %%
fig, ax = plt.subplots(figsize=(7, 1.7), layout="constrained")
ax.bar_label(ax.barh(list(parts), list(parts.values()), color="#0072B2"), fmt=" {:,.0f}")
ax.set(
    xlabel="parameters",
    title="Parameters of a block: two thirds are feed-forward",
    xlim=(0, 1.2 * max(parts.values())),
)
ax.invert_yaxis()
show(
    fig,
    "Bars: the feed-forward layer has twice as many parameters as the attention; the norms have next to "
    "none.",
)

# %%
thinking = parts["feed_forward"] / sum(parts.values())
print(f"the feed-forward layer has {thinking:.1%} of the block's parameters")
assert thinking > 0.6 and thinking < 0.7

# %% [markdown]
# ## A small stack
#
# This is the model of lesson 04, with three blocks in place of its attention, and a last layer norm. Width, block size and number of steps are the same. Two things of the training differ: a deeper model requires a lower learning rate, and a step takes 16 windows instead of 32, because three blocks take longer. So this model reads half as much text as that of lesson 04. **Predict:** by how much will it be better nevertheless? (Four heads gained about half a nat.)

# %%
#| export
def scale_residual_init(model, n_layer):
    """Shrinks the matrices that write into the residual stream by 1 / sqrt(2 n_layer) (Radford et al., 2019).

    Each of n_layer blocks adds to the stream twice; with this scale, its variance does not grow with the depth.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("proj.weight"):
                weight.mul_((2 * n_layer) ** -0.5)


class BlockLanguageModel(LanguageModel):
    """Embeddings of characters and positions, blocks, a layer norm, logits."""

    def __init__(self, vocab_size, block_size, n_embd, n_head, n_layer, dropout=0.0):
        super().__init__(vocab_size, block_size)
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.blocks = nn.Sequential(
            *[Block(n_embd, n_head, dropout=dropout) for _ in range(n_layer)]
        )
        self.norm = nn.LayerNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size)
        self.apply(init_weights)
        scale_residual_init(self, n_layer)  # after init_weights, which would overwrite it

    def compute_logits(self, idx):
        x = self.token_embedding(idx) + self.position_embedding.weight[: idx.shape[1]]  # (B, T, C)
        return self.lm_head(self.norm(self.blocks(x)))  # (B, T, V)

# %%
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import pick_device, pick_scale
from chargpt_lib.files import bundled_dir, bundled_results
from chargpt_lib.training import evaluate, ladder, load_or_fit, plot_ladder

CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus, device = load_corpus(CORPUS), pick_device()
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
V = tokenizer.vocab_size

# %%
torch.manual_seed(1337)
model = BlockLanguageModel(V, block_size=64, n_embd=64, n_head=4, n_layer=3).to(device)
ids = tokenizer.encode("O damp goose!").to(device)
_, loss = model(ids[None, :-1], ids[None, 1:])
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
off = loss.item() - log(V)
print(f"loss at init ≈ {loss.item():.2f}, ln V = {log(V):.2f} (closer than 0.3: {abs(off) < 0.3})")
assert abs(off) < 0.3

# %% tags=["nbval-ignore-output"]
scale = pick_scale(device)  # 1 on a CPU: see lesson 00
result = load_or_fit("blocks", model, corpus, steps=1500, batch_size=16 * scale, lr=4e-3)
print(
    f"exact loss ≈ {result['loss']:.3f} after ≈ {result['seconds']:.0f} s of training\n\n{result['sample']}"
)

# %%
better = ladder(corpus.name)["multi-head"]["loss"] - result["loss"]
print(f"better than many heads alone by ≈ {better:.2f} nats (more than 0.4: {better > 0.4})")
assert better > 0.4 or corpus.name != "playhouse"
known = set(corpus.train.split())
words = result["sample"].split()[1:-1]  # without the first and the last, which may be cut off
spelt = sum(word in known for word in words) / len(words)
print(f"≈ {spelt:.0%} of the words in its sample occur in the training text")
assert spelt > 0.6 or corpus.name != "playhouse"

# %% [markdown]
# A leap: whole lines, whole scenes. What does the trained stack give to each next character of our line?

# %%
with torch.no_grad():
    logits, _ = model(ids[None, :-1])  # (1, T, V)
probabilities = logits.softmax(-1)[0].gather(1, ids[1:, None])[:, 0].cpu()  # (T,)
print(price_table("O damp goose!", probabilities))

# %% [markdown]
# Compare the prices with those of lesson 04: which characters have become cheaper? (The line stands alone here, with no scene before it, so the first characters have to be guessed.)
#
# Each layer adds something to each vector. Here is how much, compared with what was there before.

# %%
added = []
with torch.no_grad():
    x = model.token_embedding(ids)[None] + model.position_embedding.weight[: len(ids)]  # (1, T, C)
    for block in model.blocks:
        for norm, layer in (
            (block.norm_1, block.attention),
            (block.norm_2, block.feed_forward),
        ):
            y = layer(norm(x))
            added.append((y.norm(dim=-1) / x.norm(dim=-1))[0].cpu())  # (T,): L2 lengths
            x = x + y

# %%
layers = [f"{part} {n}" for n in range(3) for part in ("attention", "feed-forward")]
fig, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
image = heatmap(ax, torch.stack(added), rows=layers, columns=visible("O damp goose!"), vmax=None)
ax.set(title="Length of what each layer adds, relative to the stream")
fig.colorbar(image, label="|f(LN(x))| / |x|")
show(
    fig,
    "A grid of six layers by thirteen characters: the first feed-forward layer adds "
    "several times what was there, the later layers much less.",
)

# %%
sizes = [step.mean().item() for step in added]  # on average over the line
for layer, size in zip(layers, sizes):
    print(f"{layer:14}  adds ≈ {size:.1f} times the length of what was there")
assert sizes[1] > 1.5 or corpus.name != "playhouse"
assert sizes[1] - max(sizes[2:]) > 1 or corpus.name != "playhouse"

# %% [markdown]
# The first feed-forward layer makes most of each vector; the later layers correct it. Which layers matter? Take the trained model, leave one layer out, and measure the loss again on a part of the validation text. (`register_forward_hook` makes PyTorch call a function of ours after the layer; the function's result, here zeros, replaces the layer's output.) **Predict:** without which layer does the loss rise most?

# %%
some_ids = tokenizer.encode(corpus.val[:20_000])
whole, without = evaluate(model, some_ids), {}
for n, block in enumerate(model.blocks):
    for name, layer in (("attention", block.attention), ("feed-forward", block.feed_forward)):
        hook = layer.register_forward_hook(lambda layer, inputs, output: torch.zeros_like(output))
        without[f"{name} {n}"] = evaluate(model, some_ids)
        hook.remove()

# %%
fig, ax = plt.subplots(figsize=(7, 2.3), layout="constrained")
rises = [loss - whole for loss in without.values()]
ax.bar_label(ax.barh(list(without), rises, color="#D55E00"), fmt=" +%.2f")
ax.set(
    xlabel="nats per character",
    title="Rise of the loss without one layer",
    xlim=(0, 1.2 * max(rises)),
)
ax.invert_yaxis()
show(
    fig,
    "Bars, one for each layer that was left out: the loss rises for all six, most for the two layers of the "
    "first block.",
)

# %%
print(f"without a layer of the first block, the loss rises by ≈ {min(rises[:2]):.1f} nats or more")
print(f"without one of the others, by ≈ {min(rises[2:]):.2f} to ≈ {max(rises[2:]):.2f} nats")
print("with all layers back, the loss differs by", evaluate(model, some_ids) - whole)
assert evaluate(model, some_ids) == whole
assert min(rises[2:]) > 0 or corpus.name != "playhouse"
assert min(rises[:2]) - max(rises[2:]) > 1 or corpus.name != "playhouse"

# %% [markdown]
# Every layer is needed, those of the first block most. Without one of these, the later layers get vectors of a kind that they never saw in training.
#
# ## Why four times?
#
# Why is the feed-forward layer $4C$ wide, and not $2C$ or $8C$? A wider layer costs parameters and time, so a fair comparison makes the model narrower in exchange. `python -m tests.benchmarks.single_changes` trained this page's model with four ratios, with $C$ chosen so that the blocks have about the same number of parameters, for 20 seconds of one core each, with three seeds and one learning rate. **Predict:** which ratio is best, and by how much?

# %%
results = bundled_dir() / "results" / "single_changes.json"
rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
means = {}
print("hidden    C   parameters   exact loss, three seeds")
for ratio, row in {1: "hidden 1", 2: "hidden 2", 4: "lesson 05", 8: "hidden 8"}.items():
    losses = [run["loss"] for run in rows[row]["runs"]["short"].values()]
    means[ratio] = fmean(losses)
    print(
        f"{ratio} * C    {rows[row]['settings']['n_embd']:2}   {rows[row]['parameters']:10,}   "
        f"{means[ratio]:.3f} ({min(losses):.3f} to {max(losses):.3f})"
    )
best = min(means, key=means.get)
print(f"best: {best} * C; 4 * C is worse by {means[4] - means[best]:.3f} nats")

# %% [markdown]
# The differences from $C$ to $4C$ are small, and four is not the best of them; only $8C$ is clearly worse here. (The models are not of exactly equal size: the one with $2C$ has the most parameters.) Kaplan et al. (2020) saw the same in larger models: with a fixed number of parameters, the loss changes little over a wide range of this ratio. Four is a habit, not an optimum.
#
#
# ## Loss by kind of text

# %%
show(
    plot_ladder(corpus.name, up_to="blocks"),
    "Stacked bars: with blocks, spelling and grammar shrink to a fraction. "
    "Spelling is still the largest stripe.",
)

# %%
excess, before = result["excess"], ladder(corpus.name)["multi-head"]["excess"]
for kind in excess:
    share = excess[kind] / before[kind]
    print(f"{kind:12}  ≈ {excess[kind]:.3f} nats, ≈ {share:.0%} of the excess of many heads alone")
spelling = excess["spelling"] / before["spelling"] if excess else float("nan")
names = excess["copied name"] / before["copied name"] if excess else float("nan")
assert (spelling < 0.3 and names > 0.4) or corpus.name != "playhouse"
largest = max((excess[kind] for kind in excess if kind != "spelling"), default=0.0)
assert excess.get("spelling", 0.0) - largest > 0.01 or corpus.name != "playhouse"

# %% tags=["nbval-ignore-output"]
row = bundled_results()["shakespeare"]["blocks"]
print(f"On Shakespeare (recorded):\n\n{row['sample'][:250]}")

# %%
on_shakespeare = bundled_results()["shakespeare"]["multi-head"]["loss"] - row["loss"]
print(f"On Shakespeare (recorded): ≈ {row['loss']:.2f} nats per character,")
print(f"better than many heads alone by ≈ {on_shakespeare:.2f}")
assert on_shakespeare > 0.05

# %% [markdown]
# On Playhouse, most of the excess for spelling is gone. Copied names have lost much less, and the prop of a scene may be more than 64 characters back, out of the model's sight. The next model sees three times as far.
#
# ## Mistakes people make
#
# - **Replacing instead of adding**: `x = self.attention(self.norm_1(x))`. It trains badly, and the deeper the model, the worse.
# - **Post-norm by accident**: `self.norm(x + f(x))` is another model (Xiong et al., 2020: it needs a warmup).
# - **Dropout left on in evaluation.** Losses are noisy and too high. Call `model.eval()`, and give the kernel 0.
# - **One block object, repeated**: `[Block()] * 6` is six times the *same* block. Count the parameters.
#
# ## Exercises
#
# ### Exercise: back through the norm
# ★★★ · 30 minutes · A layer norm changes the gradient that passes through it, and every framework has this formula written out by hand.
#
# Let $y_i = (x_i - \mu) / r$ with $r = \sqrt{s^2 + \varepsilon}$, over the C numbers of one position ($\gamma = 1$, $\beta = 0$). Some loss $L$ depends on $y$, and $g_i = \partial L / \partial y_i$ is known. Find $\partial L / \partial x_i$ with pencil and paper, then write it as code. (Autograd would pass the check, and teach you nothing.)
#
# An $x_i$ acts in three ways: by itself, through $\mu$ (with $\partial \mu / \partial x_i = 1/C$), and through $s^2$ (with $\partial s^2 / \partial x_i = 2 (x_i - \mu) / C$). By itself it moves only $y_i$; through $\mu$ and $s^2$ it moves *all* $y_j$, so those two ways are sums over $j$ of $g_j$ times the derivative of $y_j$. ($s^2$ does not change through $\mu$: the deviations sum to 0.)
#
# A test: if you add the same number to all of $x$, $y$ does not change; so the result has to sum to 0. For C = 2 and $\varepsilon = 0$ every number of the result is 0, because layer norm always maps two different numbers to −1 and 1.

# %% tags=["exercise"] exercise="layer_norm_gradient"
def layer_norm_gradient(x, g, eps):
    """x, g (B, T, C): the input and dL/dy; eps > 0: the epsilon under the root -> dL/dx (B, T, C)."""
    ### BEGIN SOLUTION
    r = (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    y = (x - x.mean(-1, keepdim=True)) / r
    return (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True)) / r
    ### END SOLUTION

# %%
check("layer_norm_gradient", layer_norm_gradient)

# %% [markdown]
# ### Exercise: gather and think at once
# ★★★ · 15 minutes · GPT-J and PaLM use it to save time: the two large products can run together (Wang and Komatsuzaki, 2021; Chowdhery et al., 2022).
#
# In a **parallel block** the feed-forward layer does not wait for the attention. Both read the same normed vectors, and both results are added to the stream:
#
# $$x \leftarrow x + \operatorname{Attention}(\operatorname{LN}(x)) + \operatorname{FFN}(\operatorname{LN}(x))$$
#
# Write it with tensors alone. The attention is causal, with `n_head` heads; the rows of `W_qkv` are those for all queries, then all keys, then all values, as in `CausalSelfAttention`. The activation of the feed-forward layer is `F.gelu`. Nothing has a bias, the norm has no $\gamma$ and $\beta$ (`F.layer_norm(x, (C,))`), and each matrix is used as in `nn.Linear`, `x @ W.T`. `F.scaled_dot_product_attention` may be used.

# %% tags=["exercise"] exercise="parallel_block"
def parallel_block(x, W_qkv, W_o, W_1, W_2, n_head):
    """x (B, T, C), W_qkv (3C, C), W_o (C, C), W_1 (4C, C), W_2 (C, 4C) -> (B, T, C)."""
    ### BEGIN SOLUTION
    B, T, C = x.shape
    y = F.layer_norm(x, (C,))
    q, k, v = (y @ W_qkv.T).view(B, T, 3, n_head, C // n_head).permute(2, 0, 3, 1, 4)
    gathered = (
        F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)
    )
    return x + gathered @ W_o.T + F.gelu(y @ W_1.T) @ W_2.T
    ### END SOLUTION

# %%
check("parallel_block", parallel_block)

# %% [markdown]
# How far did you get?

# %%
progress()

# %% [markdown]
# ## Summary
#
# `FeedForward`, `Block`, `BlockLanguageModel`, `scale_residual_init`, in `chargpt_lib/blocks.py`.
#
# Next: [06 · The full GPT](06_full_gpt.ipynb).
