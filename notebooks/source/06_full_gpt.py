# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 06 · The full GPT: it writes plays
#
# You will build: a GPT that can be the lecture's, nanoGPT's or GPT-2 itself, train it, and look inside it.
# You need lesson 05. On two CPU cores the page takes a little over two minutes, nearly all of it training. (On a graphics card: not measured yet.)
#
# There is hardly anything new to build. All parts are there. What is left is to put them together once and for all, and to see what comes out.

# %%
#| default_exp gpt

# %%
import re
from math import log

import matplotlib.pyplot as plt
import torch

from chargpt_lib.data import CharTokenizer, heatmap, load_corpus, pick_device, show, visible
from chargpt_lib.playhouse import critic
from chargpt_lib.training import RUNGS, evaluate, ladder, load_or_fit, nats_per_character, plot_ladder

CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
show(plot_ladder("playhouse", upto="blocks"), "Stacked bars: the ladder so far, from the bigram model to the blocks.")

# %% [markdown]
# ## One description for a family
#
# All GPTs are the same drawing with other numbers: how wide, how deep, how many heads, how far back. And they differ in four small habits:
#
# | | lecture | nanoGPT | GPT-2 |
# |---|---|---|---|
# | bend | ReLU | GELU | GELU (tanh form) |
# | biases | everywhere but in q, k, v | nowhere | everywhere |
# | last matrix | its own, with bias | the token table, transposed | the token table, transposed |
# | first weights | Normal(0, 0.02) | the same, scaled by depth | the same, scaled by depth |
#
# The *lecture* is Andrej Karpathy's "Let's build GPT" (2023), *nanoGPT* his repository for training. *Tying* the last matrix to the token table (Press and Wolf, 2017) saves parameters: the same vector says what a character means and whether it should come next.
#
# A config holds the numbers and the habits. Before that, a look at the numbers: a mistake should be told at once, not after the first hour.

# %%
#| export
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.bigram import LanguageModel
from chargpt_lib.blocks import ACTIVATIONS, Block, scaled_weights
from chargpt_lib.multi_head import head_size
from chargpt_lib.single_head import small_weights

# %%
#| export
def check_config(config):
    """ValueError for sizes that no GPT can have."""
    for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be at least 1")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout is {config.dropout}; it is a probability below 1")
    if config.activation not in ACTIVATIONS:
        raise ValueError(f"activation {config.activation!r} is not known: take one of {sorted(ACTIVATIONS)}")
    head_size(config.n_embd, config.n_head)

# %%
#| export
@dataclass
class GPTConfig:
    """Which GPT: sizes, and the habits of its family."""

    vocab_size: int
    block_size: int = 256
    n_layer: int = 6
    n_head: int = 6
    n_embd: int = 384
    dropout: float = 0.0
    bias: bool = False  # of projections, feed-forward layers and norms
    qkv_bias: bool = False
    activation: str = "gelu"
    tied: bool = True  # the last matrix is the token table; if not, it has a bias
    scaled_init: bool = True

    def __post_init__(self):
        check_config(self)

    @classmethod
    def lecture(cls, vocab_size, block_size=256, n_embd=384, n_head=6, n_layer=6, dropout=0.2):
        """What one builds by hand: ReLU, q, k, v without bias, a last matrix of its own."""
        return cls(vocab_size=vocab_size, block_size=block_size, n_embd=n_embd, n_head=n_head, n_layer=n_layer,
                   dropout=dropout, bias=True, activation="relu", tied=False, scaled_init=False)

    @classmethod
    def oz(cls, vocab_size):
        """A small lecture GPT, for The Wizard of Oz."""
        return cls.lecture(vocab_size, block_size=64, n_embd=128, n_head=4, n_layer=3)

    @classmethod
    def baby(cls, vocab_size):
        """nanoGPT's baby GPT: 10.7 million parameters."""
        return cls(vocab_size, dropout=0.2)

    @classmethod
    def cpu(cls, vocab_size, block_size=64, n_embd=128, n_head=4, n_layer=4):
        """nanoGPT's sizes for a CPU: 0.8 million parameters."""
        return cls(vocab_size, block_size=block_size, n_embd=n_embd, n_head=n_head, n_layer=n_layer)

    @classmethod
    def gpt2(cls):
        """The smallest GPT-2: 124 million parameters, for 50,257 subwords."""
        return cls(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768, dropout=0.1, bias=True,
                   qkv_bias=True, activation="gelu_tanh")

# %%
print(GPTConfig.baby(vocab_size=65))
try:
    GPTConfig(vocab_size=65, n_embd=100, n_head=6)
except ValueError as error:
    print(error)

# %% [markdown]
# And the model: a screen of code.

# %%
#| export
class GPT(LanguageModel):
    """A GPT of the family that the config describes (Radford et al., 2019)."""

    def __init__(self, config):
        super().__init__(config.vocab_size, config.block_size)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.Sequential(*[
            Block(config.n_embd, config.n_head, config.bias, config.qkv_bias, config.activation, config.dropout)
            for _ in range(config.n_layer)])
        self.norm = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=not config.tied)
        if config.tied:
            self.lm_head.weight = self.token_embedding.weight
        self.apply(small_weights)
        if config.scaled_init:
            scaled_weights(self, config.n_layer)

    def embed(self, idx):
        """idx (B, T) -> what each character is plus where it stands, (B, T, C)."""
        x = self.token_embedding(idx) + self.position_embedding.weight[: idx.shape[1]]
        return F.dropout(x, self.config.dropout, self.training)

    def compute_logits(self, idx):
        x = self.embed(idx)
        x = self.blocks(x)
        return self.lm_head(self.norm(x))  # (B, T, V)

    def num_params(self):
        """How many parameters; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())

# %% [markdown]
# ## Counting parameters
#
# How many are there? Count for the lecture GPT: vocabulary $V = 65$, block $T = 256$, width $C = 384$, $N = 6$ blocks.

# %%
V, T, C, N = 65, 256, 384, 6
tables = V * C + T * C
attention = 3 * C * C + C * C + C  # q, k, v without bias; the projection with
feed_forward = (C * 4 * C + 4 * C) + (4 * C * C + C)
norms = 2 * 2 * C  # two of them, gamma and beta
head = 2 * C + C * V + V  # the last norm, the last matrix and its bias
by_hand = tables + N * (attention + feed_forward + norms) + head
print(f"{by_hand:,}")

# %%
for name, config in {"lecture": GPTConfig.lecture(65), "baby": GPTConfig.baby(65), "cpu": GPTConfig.cpu(65),
                     "oz": GPTConfig.oz(73), "gpt2": GPTConfig.gpt2()}.items():
    with torch.device("meta"):  # counts without taking memory
        print(f"{name:8} {GPT(config).num_params():>12,}")

# %%
assert GPT(GPTConfig.lecture(65)).num_params() == by_hand == 10_788_929

# %%
shares = {"tables": tables, "attention": N * attention, "feed-forward": N * feed_forward, "norms": N * norms,
          "last matrix": head}
fig, ax = plt.subplots(figsize=(7, 2.2), layout="constrained")
ax.bar_label(ax.barh(list(shares), [n / 1e6 for n in shares.values()], color="#0072B2"), fmt=" %.2f")
ax.set(xlabel="million parameters", title="The lecture GPT: where the parameters are", xlim=(0, 8.5))
ax.invert_yaxis()
show(fig, "Bars: feed-forward layers hold 7.1 million parameters, attention 3.5, everything else together less than "
     "0.2.")

# %% [markdown]
# ## From ids to logits
#
# Our line, for the last time, step by step through a new model, with the shape of everything.

# %%
corpus, device = load_corpus(CORPUS), pick_device()
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
V = tokenizer.vocab_size
torch.manual_seed(1337)
model = GPT(GPTConfig.cpu(V, block_size=192, n_embd=96, n_head=6)).to(device)
print(f"{model.num_params():,} parameters")

# %%
idx = tokenizer.encode("O damp goose!").to(device)[None]
x = model.embed(idx)
print("ids      ", tuple(idx.shape), "(B, T)")
print("embedded ", tuple(x.shape), "(B, T, C)")
for n, block in enumerate(model.blocks):
    x = block(x)
    print(f"block {n}  ", tuple(x.shape))
logits = model.lm_head(model.norm(x))
print("logits   ", tuple(logits.shape), "(B, T, V)")
print("the same as model(idx):", torch.allclose(logits, model(idx)[0], atol=1e-5))

# %%
_, loss = model(idx[:, :-1], idx[:, 1:])
print("loss of the untrained model within 0.1 of ln V:", abs(loss.item() - log(V)) < 0.1)

# %% [markdown]
# ## Training
#
# The same loop as ever. This model sees 192 characters, so most scenes fit into its sight together with their cast list. **Predict:** which stripes of the picture at the top will shrink most?

# %% tags=["nbval-ignore-output"]
result = load_or_fit("GPT", model, corpus, steps=2800, batch_size=6, lr=5e-3)
print(f"exact loss {result['loss']:.3f} after {result['seconds']:.0f} s of training")

# %%
better = ladder(corpus.name)["blocks"]["loss"] - result["loss"]
print("better than the blocks by more than 0.05 nats:", better > 0.05)
if corpus.name == "playhouse":
    print("less than 0.15 nats above the floor:", result["loss"] < corpus.val_floor + 0.15)
    assert better > 0.05 and result["loss"] < corpus.val_floor + 0.15

# %%
losses = torch.tensor(result["losses"])
smooth = losses.unfold(0, 50, 10).mean(1)
fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.plot(losses, color="#56B4E9", linewidth=0.4, alpha=0.6, label="each batch")
ax.plot(range(25, 25 + 10 * len(smooth), 10), smooth, color="#0072B2", label="mean of 50")
for rung, style in zip(RUNGS[:4], ("-", "--", "-.", ":")):
    ax.axhline(ladder(corpus.name)[rung]["loss"], color="#D55E00", linestyle=style, linewidth=0.8, label=rung)
if corpus.val_floor:
    ax.axhline(corpus.val_floor, color="#009E73", label="the floor")
ax.set(xlabel="step", ylabel="nats per character", yscale="log", title="Down the whole ladder in one run")
ax.set_yticks([0.3, 0.5, 1, 2, 4], ["0.3", "0.5", "1", "2", "4"], minor=False)
ax.minorticks_off()
ax.legend(frameon=False, ncols=2, fontsize=8)
show(fig, "The loss passes the losses of all earlier models one after the other and comes close to the floor.")

# %% [markdown]
# ## Plays
#
# The curtain rises. Nobody has written this before.

# %% tags=["nbval-ignore-output"]
generator = torch.Generator(device).manual_seed(1337)
start = torch.full((8, 1), tokenizer.stoi["\n"], device=device)
plays = [tokenizer.decode(row.cpu()) for row in model.generate(start, 700, generator)]
print(plays[0].strip())

# %% [markdown]
# The critic of [A · Playhouse](A_playhouse.ipynb) reads all eight.

# %% tags=["nbval-ignore-output"]
known = set(re.findall("[A-Za-z]+", corpus.train))
verdicts = [critic(play, known) for play in plays]
verdict = {key: sum(v[key] for v in verdicts) / len(verdicts) for key in ("words", "speakers")}
print(f"{verdict['words']:.1%} of the words are words of the corpus")
print(f"{verdict['speakers']:.0%} of the speakers are on the cast list of their scene")

# %%
good = verdict["words"] > 0.97 and verdict["speakers"] > 0.75
print("97% of the words and 75% of the speakers are right:", good)
assert good or corpus.name != "playhouse"

# %% [markdown]
# ## What it thinks on the way
#
# The last norm and the last matrix turn the vector after the last block into a prediction. Nothing forbids using them earlier: after each block, what *would* the model say?
# Here is a scene with the last word missing. The right answer stands in its first line.

# %%
SCENE = ("A barn. Enter Meg and Toby with a damp goose.\nToby: The owl sings.\n"
         "Meg: You odd nun!\nExit Toby, licking the ")
SCENE = SCENE if corpus.name == "playhouse" else corpus.val[:110]
idx = tokenizer.encode(SCENE).to(device)[None]
x, guesses = model.embed(idx), []
with torch.no_grad():
    for stage in ("embedding", *(f"block {n}" for n in range(4))):
        x = x if stage == "embedding" else model.blocks[int(stage[-1])](x)
        guesses.append((stage, model.lm_head(model.norm(x))[0].softmax(-1).cpu()))

# %%
last = 14
sure = torch.stack([p[-last:].max(-1).values for _, p in guesses])  # (stages, last)
chars = [visible(tokenizer.decode(p[-last:].argmax(-1))) for _, p in guesses]
fig, ax = plt.subplots(figsize=(9, 2.8), layout="constrained")
image = heatmap(ax, sure, rows=[stage for stage, _ in guesses], columns=visible(SCENE[-last:]), cells=chars)
ax.set(xlabel="after reading", title="The best guess for the next character, after each block")
fig.colorbar(image, label="its probability")
show(fig, "A grid of guessed characters: after the embedding they are poor, after the last block most of them "
     "are right and sure.")

# %% [markdown]
# From top to bottom the guess is revised. The first row only repeats what was read: the last matrix is the token table, so each vector that has just been looked up points back at itself. In the last column the next letter should be the `g` of the goose. How likely does the model find it?

# %% tags=["nbval-ignore-output"]
p = guesses[-1][1][-1]
print(f"g: {p[tokenizer.stoi['g']]:.2f}")
print({tokenizer.alphabet[i]: round(p[i].item(), 2) for i in p.argsort(descending=True)[:4].tolist()})

# %%
assert (p.sum() - 1).abs() < 1e-4

# %% [markdown]
# ## Every head
#
# Where did it look? For each head of each block, the weights of all positions of the scene. (The square root makes small weights visible.)

# %%
from chargpt_lib.single_head import causal_mask, scaled_dot_product_attention

def attention_weights(model, idx):
    """The weights of every head: a list of (H, T, T), one for each block."""
    x, weights, T = model.embed(idx), [], idx.shape[1]
    for block in model.blocks:
        attention = block.attention
        qkv = attention.qkv(block.norm_1(x)).view(1, T, 3, attention.n_head, attention.head_size)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights.append(scaled_dot_product_attention(q, k, v, causal_mask(T, idx.device))[1][0].cpu())
        x = block(x)
    return weights

# %%
with torch.no_grad():
    weights = attention_weights(model, idx)
heads = weights[0].shape[0]
fig, axes = plt.subplots(4, heads, figsize=(11, 7.6), layout="constrained", sharex=True, sharey=True)
for n, block_weights in enumerate(weights):
    for h, ax in enumerate(axes[n]):
        image = heatmap(ax, block_weights[h] ** 0.5)
        ax.set_title(f"block {n}, head {h}", fontsize=8)
        ax.tick_params(labelsize=6)
fig.supxlabel("looks at position")
fig.supylabel("position")
fig.colorbar(image, ax=axes, label="square root of the weight", shrink=0.6)
show(fig, "A wall of triangular heat maps, one for each head: the first block looks at the "
     "neighbourhood, the later ones have single bright points far from the diagonal.")

# %%
print("weight on the future, in any head:", max(w.triu(1).max().item() for w in weights))
for w in weights:
    assert torch.allclose(w.sum(-1), torch.ones(w.shape[:2]), atol=1e-4) and w.triu(1).max() == 0

# %% [markdown]
# Near the diagonal a head looks at its neighbourhood. Short vertical stripes are places at which many positions look one after the other. Bright points far from the diagonal are the interesting ones: something was looked up. When the last letter is due, which head looks at the prop in the first line? For each head, how much of the last position's weight lies on the word that it has to copy (and the space before it):

# %%
start = SCENE.find("goose") if "goose" in SCENE else 0
on_prop = torch.stack([w[:, -1, start - 1:start + 5].sum(-1) for w in weights])  # (blocks, heads)
fig, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
image = heatmap(ax, on_prop, cells=[[f"{value:.2f}" for value in row] for row in on_prop])
ax.set(xlabel="head", ylabel="block", title="Weight on the word “goose” of the cast list", yticks=range(4))
fig.colorbar(image, label="weight")
show(fig, "A table of blocks and heads with the weight that each puts on the prop: most put none, a few "
     "of the later ones a lot.")

# %% [markdown]
# ## How far back it sees
#
# The exact loss cuts the validation text into windows of 192. At the start of a window the model knows nothing of what came before, and that costs. With windows that overlap by half, each character has at least 96 characters of past.

# %%
val_ids = tokenizer.encode(corpus.val)
nats = nats_per_character(model, val_ids)
disjoint, overlapping = nats.mean().item(), evaluate(model, val_ids, stride=96)
whole = nats[: len(nats) // 192 * 192].view(-1, 192).mean(0)  # the mean loss at each place of a window

# %%
fig, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
ax.plot(range(1, 193), whole, color="#0072B2", linewidth=1)
if corpus.val_floor:
    ax.axhline(corpus.val_floor, color="#009E73", linestyle=":", label="the floor")
    ax.legend(frameon=False)
ax.set(xlabel="characters of past that the model can see", ylabel="nats per character", ylim=0, xlim=(0, 192),
       title=f"Disjoint windows: {disjoint:.3f}   with half a window of past: {overlapping:.3f}")
show(fig, "The loss is above 2 for the first character of a window, falls steeply within ten, and then stays a little "
     "above the floor.")

# %%
print("with more past, less loss:", overlapping < disjoint)
assert overlapping < disjoint and whole[:3].mean() > whole[96:].mean() + 0.2

# %% [markdown]
# Both figures are honest; they answer different questions. We compare models by the first.
#
# ## Where the nats go now

# %%
show(plot_ladder(corpus.name), "Stacked bars: the full GPT is close to the floor. Small stripes of every kind remain.")

# %% tags=["nbval-ignore-output"]
for rung, row in ladder(corpus.name).items():
    above = f", {row['loss'] - row['floor']:.3f} above the floor" if row["floor"] else ""
    print(f"{rung:12} {row['loss']:.3f} nats per character{above}{' (recorded)' if row['recorded'] else ''}")

# %%
rungs = [row["loss"] for row in ladder(corpus.name).values()]
print("each rung lies below the one before:", rungs == sorted(rungs, reverse=True))
assert rungs == sorted(rungs, reverse=True) or corpus.name != "playhouse"

# %% [markdown]
# Spelling, grammar and most of the copying were learnt, by the five lines of lesson 02. A good part of what remains is the start of the windows, where there is nothing to go by: compare the two losses in the title above.
#
# On Shakespeare (recorded):

# %% tags=["nbval-ignore-output"]
for rung, row in ladder("shakespeare").items():
    print(f"{rung:12} {row['loss']:.3f} nats per character")
print("\n" + ladder("shakespeare")["GPT"]["sample"][:400])

# %%
assert ladder("shakespeare")["GPT"]["loss"] < ladder("shakespeare")["blocks"]["loss"]

# %% [markdown]
# Nobody knows Shakespeare's floor. But you have seen a model of this kind come within a tenth of a nat of a floor that *is* known.
#
# ## Mistakes people make
#
# - **Comparing with other block sizes.** A longer window alone lowers the loss. Say which one you used.
# - **Sampling in training mode.** With dropout on, the model stammers. `generate` switches to evaluation, and back.
# - **Counting tied weights twice**, or leaving out the positions, as some published figures do.
# - **A learning rate from another model.** 5e-3 is right for a model this small; nanoGPT takes 1e-3 for its 10 million parameters, and 6e-4 for its copy of GPT-2.
#
# ## What you have
#
# `GPTConfig` and `GPT`, in `chargpt_lib/gpt.py`: all of a GPT in a hundred lines, each of which you have seen alone.
