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
# You will build: the transformer block, and find out what each of its parts is good for by leaving it out.
# You need lesson 04. On a CPU the page takes about half a minute.
#
# Attention gathers: it brings vectors from the past to where they are needed. Then something has to be concluded from them. A block does both. And since one conclusion leads to the next, blocks are stacked. The trouble begins with the stacking.

# %%
#| default_exp blocks

# %% [markdown]
# ## Think: the feed-forward layer
#
# At each position by itself: four times as many numbers, a bend, and back.
#
# $$\operatorname{FFN}(x) = W_2\, \sigma(W_1 x + b_1) + b_2$$
#
# The bend $\sigma$ is what it is all about. Vaswani et al. (2017) took $\operatorname{ReLU}(z) = \max(0, z)$, GPT-2 the smoother $\operatorname{GELU}(z) = z\, \Phi(z)$ (Hendrycks and Gimpel, 2016), where $\Phi$ is the normal distribution function.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.data import heatmap, show, visible

z = torch.linspace(-4, 4, 200)
fig, ax = plt.subplots(figsize=(5, 2.6), layout="constrained")
ax.plot(z, F.relu(z), "--", color="#D55E00", label="ReLU: max(0, z)")
ax.plot(z, F.gelu(z), color="#0072B2", label="GELU: z · Φ(z)")
ax.set(xlabel="z", title="Two ways to bend a line")
ax.legend(frameon=False)
show(fig, "ReLU is zero on the left and the identity on the right, with a corner at zero. GELU is smooth, with a "
     "shallow dip below zero.")

# %% [markdown]
# Without a bend, two matrices in a row are one matrix, and a hundred are one too.

# %%
W1, W2, x = torch.randn(8, 4), torch.randn(4, 8), torch.randn(4)
print(torch.allclose(W2 @ (W1 @ x), (W2 @ W1) @ x, atol=1e-5))  # no bend: one matrix would do

# %%
#| export
import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.bigram import LanguageModel
from chargpt_lib.multi_head import CausalSelfAttention
from chargpt_lib.single_head import small_weights

# %%
#| export
ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),  # how GPT-2 computed it
}


class FeedForward(nn.Module):
    """Four times as wide, a bend, and back, at each position by itself: (B, T, C) -> (B, T, C)."""

    def __init__(self, n_embd, bias=True, activation="gelu", dropout=0.0):
        super().__init__()
        self.fc = nn.Linear(n_embd, 4 * n_embd, bias=bias)
        self.activation, self.dropout = activation, dropout
        self.proj = nn.Linear(4 * n_embd, n_embd, bias=bias)

    def forward(self, x):
        x = self.proj(ACTIVATIONS[self.activation](self.fc(x)))
        return F.dropout(x, self.dropout, self.training)

# %%
feed_forward = FeedForward(64)
x = torch.randn(2, 5, 64)
print(feed_forward(x).shape)
changed = x.clone()
changed[:, 3] += 1  # another character at position 3
difference = (feed_forward(changed) - feed_forward(x)).abs().sum(-1)[0]
print("positions that notice:", (difference > 0).nonzero().flatten().tolist())

# %% [markdown]
# Only position 3. Attention is the only way between positions; feed-forward is where each thinks for itself.
#
# ## Twelve blocks deep
#
# Now stack them: attention, feed-forward, attention, feed-forward, twelve times. To learn, the first layer needs a gradient, and the gradient has to come back through all the others. Each multiplies it by something. **Predict:** if each of the 24 layers makes it a third as large, how much arrives?

# %%
print(f"{(1 / 3) ** 24:.0e}")

# %% [markdown]
# Three cures have been found.
#
# 1. **Residual connections** (He et al., 2016): a layer does not replace the vector, it adds to it, $x + f(x)$. Then the derivative is $1 + f'(x)$. Where $f'$ is small, the 1 carries the gradient home. The vector to which all layers add is called the **residual stream**.
# 2. **Layer norm** (Ba et al., 2016): what goes into a layer is first brought to mean 0 and variance 1. Of the $C$ numbers of one position, $\mu$ is the mean and $s^2$ the variance; $\gamma$ and $\beta$ are learnt, one for each of the $C$; $\odot$ multiplies number by number; the small $\varepsilon$ avoids a division by 0.
#    $$\operatorname{LN}(x) = \gamma \odot \frac{x - \mu}{\sqrt{s^2 + \varepsilon}} + \beta$$
# 3. **Scaled initialisation** (Radford et al., 2019): $N$ blocks add $2N$ times to the residual stream, and its variance grows with $2N$; so the last matrix of each layer starts smaller by $1/\sqrt{2N}$.
#
# Layer norm by hand, first:

# %%
x = torch.tensor([[1.0, 2.0, 3.0, 10.0]])
by_hand = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
print(by_hand)
print(torch.allclose(by_hand, nn.LayerNorm(4)(x), atol=1e-6))

# %% [markdown]
# Now measure. A stack of 24 layers, with each cure on or off; the size of the gradient at the input of each layer. (`retain_grad` keeps the gradient of a tensor that is not a parameter.)

# %%
def gradients(std, residual, norm, scaled, depth=12, C=64):
    """The norm of the gradient at the input of each of the 2 * depth layers."""
    torch.manual_seed(1337)
    layers = [make() for _ in range(depth) for make in (lambda: CausalSelfAttention(C, 4), lambda: FeedForward(C))]
    for name, weight in nn.ModuleList(layers).named_parameters():
        shrink = (2 * depth) ** -0.5 if scaled and name.endswith("proj.weight") else 1
        nn.init.normal_(weight, std=std * shrink) if weight.dim() > 1 else nn.init.zeros_(weight)
    x, inputs = torch.randn(4, 32, C, requires_grad=True), []
    for layer in layers:
        inputs.append(x)
        x.retain_grad()
        y = layer(F.layer_norm(x, (C,)) if norm else x)
        x = x + y if residual else y
    (F.layer_norm(x, (C,)) * torch.randn(4, 32, C)).sum().backward()
    return [x.grad.norm().item() for x in inputs]

# %%
variants = {"nothing": (False, False, False), "residual": (True, False, False), "norm": (False, True, False),
            "residual, norm": (True, True, False), "residual, norm, scaled": (True, True, True)}
flow = {(std, name): gradients(std, *cures) for std in (0.02, 0.125) for name, cures in variants.items()}

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for ax, std, title in zip(axes, (0.02, 0.125), ("small weights (0.02)", "large weights (0.125)")):
    for name, mark, colour in zip(variants, "ovs^D", ("#999999", "#D55E00", "#E69F00", "#56B4E9", "#0072B2")):
        values = torch.tensor(flow[std, name]).clamp_min(1e-12)
        ax.plot(range(24), values, mark + "-", color=colour, label=name, markersize=4)
    ax.set(yscale="log", xlabel="layer (0 is the first)", title=title)
axes[0].set_ylabel("norm of the gradient")
axes[1].legend(frameon=False, fontsize=8)
show(fig, "Left: with none of the cures the gradient falls by many orders of magnitude towards the first layer. "
     "Right: residuals without norm make it explode; with both it stays level, most evenly when scaled.")

# %%
reach = {key: values[0] / values[-1] for key, values in flow.items()}  # what of it reaches the first layer?
print("small weights, nothing:                     less than a trillionth:", reach[0.02, "nothing"] < 1e-12)
print("large weights, residual:                    more than 10,000 times:", reach[0.125, "residual"] > 1e4)
print("large weights, residual, norm and scaling:  between a half and 3:  ",
      0.5 < reach[0.125, "residual, norm, scaled"] < 3)
assert reach[0.02, "nothing"] < 1e-12 and 0.5 < reach[0.02, "residual"] < 2  # the residual carries it home
assert reach[0.125, "residual"] > 1e4 and reach[0.125, "residual, norm"] < 50  # the norm tames it
assert max(reach[0.125, "residual, norm, scaled"], 1) < reach[0.125, "residual, norm"]  # the scale evens it out

# %% [markdown]
# Left: with none of the cures the gradient dies on the way to the first layer. (The plot ends at $10^{-12}$; the grey line goes on.) The three variants with a residual lie on one line.
# Right, with weights of $0.125 = 1/\sqrt{64}$: residuals alone make the gradient grow by many powers of ten, since what is added grows with what was added before. The norm stops that.
# Residual, norm and scaling together are level on both sides, whatever the size of the weights.
#
# ## Dropout
#
# The other trouble of large models is a good memory: they learn the training text by heart. **Dropout** (Srivastava et al., 2014) makes each number zero with probability $p$ while training, so that no one can rely on a single number; the others are divided by $1 - p$, so that the mean stays.

# %%
torch.manual_seed(1337)
ones = torch.ones(10_000)
dropped = F.dropout(ones, 0.2, training=True)
print("values:", dropped.unique().tolist())
print(f"zeros: {(dropped == 0).double().mean():.0%}, mean: {dropped.mean():.1f}")
print("in evaluation:", F.dropout(ones, 0.2, training=False).unique().tolist())

# %% [markdown]
# In evaluation it must be off. `model.eval()` does that for layers that look at `self.training`. The fused attention kernel does not look: it takes a number, and it is for us to make it 0 (see `CausalSelfAttention`). Forget it, and every loss you measure is a little too high, and a little different each time. nanoGPT had this bug for a month, until April 2023.
#
# ## The block
#
# Norm, attention, add; norm, feed-forward, add.
#
# $$x \leftarrow x + \operatorname{Attention}(\operatorname{LN}(x)), \qquad x \leftarrow x + \operatorname{FFN}(\operatorname{LN}(x))$$
#
# Vaswani et al. and the first GPT normed after the addition; GPT-2 norms before it (**pre-norm**), which leaves the residual path free from end to end.

# %%
#| export
class Block(nn.Module):
    """Gather, then think: (B, T, C) -> (B, T, C). Pre-norm, with residuals."""

    def __init__(self, n_embd, n_head, bias=True, qkv_bias=False, activation="gelu", dropout=0.0):
        super().__init__()
        self.norm_1 = nn.LayerNorm(n_embd, bias=bias)
        self.attention = CausalSelfAttention(n_embd, n_head, bias, qkv_bias, dropout)
        self.norm_2 = nn.LayerNorm(n_embd, bias=bias)
        self.feed_forward = FeedForward(n_embd, bias, activation, dropout)

    def forward(self, x):
        x = x + self.attention(self.norm_1(x))
        return x + self.feed_forward(self.norm_2(x))

# %% [markdown]
# **Predict:** which part of a block has the most parameters, and what share of all? (Four matrices of $C \times C$ here, two of $C \times 4C$ there.)

# %%
block = Block(n_embd=64, n_head=4)
parts = {name: sum(p.numel() for p in part.parameters()) for name, part in block.named_children()}
print(parts, "sum", sum(parts.values()))

# %%
fig, ax = plt.subplots(figsize=(7, 1.7), layout="constrained")
ax.bar_label(ax.barh(list(parts), list(parts.values()), color="#0072B2"), fmt=" {:,.0f}")
ax.set(xlabel="parameters", title="Two thirds of a block are for thinking", xlim=(0, 1.2 * max(parts.values())))
ax.invert_yaxis()
show(fig, "Bars: the feed-forward layer has twice as many parameters as the attention; the norms have next to "
     "none.")

# %%
assert 0.6 < parts["feed_forward"] / sum(parts.values()) < 0.7

# %% [markdown]
# ## A small stack
#
# The model of lesson 04, with three blocks in the place of its attention, and a last norm. Width and block size are the same. A deeper model wants a lower learning rate.

# %%
#| export
def scaled_weights(model, n_layer):
    """Shrinks the matrices that write into the residual stream by 1 / sqrt(2 n_layer) (Radford et al., 2019)."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("proj.weight"):
                weight.mul_((2 * n_layer) ** -0.5)


class BlockLanguageModel(LanguageModel):
    """Characters and positions, blocks, a norm, logits."""

    def __init__(self, vocab_size, block_size, n_embd, n_head, n_layer, dropout=0.0):
        super().__init__(vocab_size, block_size)
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.blocks = nn.Sequential(*[Block(n_embd, n_head, dropout=dropout) for _ in range(n_layer)])
        self.norm = nn.LayerNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size)
        self.apply(small_weights)
        scaled_weights(self, n_layer)

    def compute_logits(self, idx):
        x = self.token_embedding(idx) + self.position_embedding.weight[: idx.shape[1]]  # (B, T, C)
        return self.lm_head(self.norm(self.blocks(x)))  # (B, T, V)

# %%
from math import log

from chargpt_lib.data import CharTokenizer, load_corpus, pick_device, recorded
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
print(sum(p.numel() for p in model.parameters()), "parameters")
print("loss of the untrained model within 0.1 of ln V:", abs(loss.item() - log(V)) < 0.1)

# %% tags=["nbval-ignore-output"]
result = load_or_fit("blocks", model, corpus, steps=1500, batch_size=16, lr=4e-3)
print(f"exact loss {result['loss']:.3f} after {result['seconds']:.0f} s of training\n\n{result['sample']}")

# %%
better = ladder(corpus.name)["multi-head"]["loss"] - result["loss"]
print("better than many heads alone by more than 0.05 nats:", better > 0.05)
assert better > 0.05 or corpus.name != "playhouse"

# %% [markdown]
# A leap: whole lines, whole scenes. What does the trained stack do with our line? Each layer adds something to each vector; here is how much, compared with what was there before.

# %%
x, added = model.token_embedding(ids)[None] + model.position_embedding.weight[: len(ids)], []
with torch.no_grad():
    for block in model.blocks:
        for step in (lambda x: block.attention(block.norm_1(x)), lambda x: block.feed_forward(block.norm_2(x))):
            y = step(x)
            added.append((y.norm(dim=-1) / x.norm(dim=-1))[0].cpu())
            x = x + y

# %%
layers = [f"{part} {n}" for n in range(3) for part in ("attention", "feed-forward")]
fig, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
image = heatmap(ax, torch.stack(added), rows=layers, columns=visible("O damp goose!"), vmax=None)
ax.set(title="How much each layer adds, relative to what is there")
fig.colorbar(image, label="|added| / |x|")
show(fig, "A grid of six layers by thirteen characters: the first feed-forward layer adds "
     "several times what was there, the later layers much less.")

# %% [markdown]
# The first feed-forward layer makes most of each vector; the later ones correct it. Which parts matter? Take the trained model, leave one layer out, and measure the loss again on a part of the validation text. **Predict:** which layer will be missed most?

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
ax.set(xlabel="nats per character", title="What the loss rises by without one layer", xlim=(0, 1.2 * max(rises)))
ax.invert_yaxis()
show(fig, "Bars, one for each layer that was left out: the loss rises for every one of them, most for those "
     "of the first block.")

# %%
print("with all layers back, the old loss:", evaluate(model, some_ids) == whole)
assert max(without.values()) > whole + 0.1

# %% [markdown]
# Each is missed, those of the first block most. Without one of them, the later layers get vectors of a kind that they never saw in training.
#
# ## Where the nats go now

# %%
show(plot_ladder(corpus.name, upto="blocks"), "Stacked bars: with blocks, spelling and grammar shrink to "
     "a tenth. Spelling is still the largest stripe, then copied names.")

# %% tags=["nbval-ignore-output"]
row = recorded()["shakespeare"]["blocks"]
print(f"On Shakespeare (recorded): {row['loss']:.3f} nats per character\n\n{row['sample'][:250]}")

# %%
assert row["loss"] < recorded()["shakespeare"]["multi-head"]["loss"]

# %% [markdown]
# Most words are spelt, most sentences are right. Copied names are the next stripe, and the prop of a scene is often more than 64 characters back, out of its sight. The next model sees three times as far.
#
# ## Mistakes people make
#
# - **Replacing instead of adding**: `x = self.attention(self.norm_1(x))`. It trains, badly, and the deeper the worse.
# - **Norm after the block by accident**: `self.norm(x + f(x))` is another model, one that needs a slow warmup.
# - **Dropout left on in evaluation.** Losses look noisy and too high; `model.eval()` and the kernel's own number.
# - **One block object, repeated**: `[Block()] * 6` is six times the *same* block. Count the parameters.
#
# ## What you have
#
# `FeedForward`, `Block`, `BlockLanguageModel`, `scaled_weights`, in `chargpt_lib/blocks.py`.
#
# Next: [06 · The full GPT](06_full_gpt.ipynb).
