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
# > The GPT: its configuration, its model, and the recorded model that comes with the course.
#
# You will build: a GPT that can be the lecture's, nanoGPT's or GPT-2 itself. You train it and look inside it.
# You need lesson 05. On two CPU cores the page takes a little over two minutes, nearly all of it training.
#
# You have all the parts already. This page puts them together, trains the result, and measures which of the changes since lesson 05 was worth most.

# %%
import json
import math
import re
from math import log
from statistics import fmean

import matplotlib.pyplot as plt
import torch

from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import pick_device, pick_scale
from chargpt_lib.exercises import NotAttempted, check, passed, progress
from chargpt_lib.files import bundled_dir
from chargpt_lib.playhouse import score_plays
from chargpt_lib.plots import heatmap, plot_excess, price_table, show, visible
from chargpt_lib.training import (
    MODEL_NAMES,
    evaluate,
    ladder,
    load_or_fit,
    per_token_loss,
    plot_ladder,
)

# %%
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
show(
    plot_ladder("playhouse", up_to="blocks"),
    "Stacked bars: the ladder so far, from the bigram model to the blocks.",
)

# %% [markdown]
# ## GPTConfig
#
# `GPTConfig` describes a whole family. All GPTs have the same architecture; only the numbers differ: the width, the depth, the number of heads, the length of the window. They also differ in four small choices:
#
# | | lecture | nanoGPT | GPT-2 |
# |---|---|---|---|
# | activation | ReLU | GELU | GELU, by an approximation with tanh |
# | biases | everywhere but in q, k, v | nowhere | everywhere |
# | last matrix | its own, with bias | the token table again | the token table again |
# | first weights | Normal(0, 0.02) | the same, scaled by depth | the same, scaled by depth |
#
# The *lecture* is Andrej Karpathy's "Let's build GPT" (2023), and *nanoGPT* is his repository for training GPTs. *Tying* the last matrix to the token table (Press and Wolf, 2017) saves parameters: the same vector says what a character means, as an input, and how likely it is to come next, as an output.
#
# A config holds the numbers and the choices. A wrong number should be reported at once, not after an hour of training, so the config is checked when it is made. (A *subword* is a piece of a word; GPT-2 has 50,257 of them where we have characters.)

# %%
#| export
import hashlib
import json
from dataclasses import dataclass
from typing import ClassVar

from safetensors.torch import load_model
from torch import nn
from torch.nn import functional as F

from chargpt_lib.bigram import LanguageModel
from chargpt_lib.blocks import ACTIVATIONS, Block, scale_residual_init
from chargpt_lib.data import load_tokenizer
from chargpt_lib.files import bundled_dir
from chargpt_lib.multi_head import head_size
from chargpt_lib.single_head import init_weights

# %%
#| export
def _check_config(config):
    """Checks the sizes of a GPT. Raises: ValueError for sizes that no GPT can have."""
    for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
        size = getattr(config, name)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} is {size!r}; it must be an integer >= 1")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout must be >= 0 and < 1, got {config.dropout}")
    if config.activation not in ACTIVATIONS:
        raise ValueError(
            f"activation {config.activation!r} is not known: take one of {sorted(ACTIVATIONS)}"
        )
    head_size(config.n_embd, config.n_head)

# %%
#| export
@dataclass
class GPTConfig:
    """The sizes of a GPT and the choices of its family. Raises: ValueError for sizes that no GPT can have."""

    vocab_size: int
    block_size: int = 256  # the longest window, in characters
    n_layer: int = 6  # blocks
    n_head: int = 6  # attention heads in a block
    n_embd: int = 384  # embedding width, a multiple of n_head
    dropout: float = 0.0  # the probability that training switches an activation off
    bias: bool = False  # use biases in projections, feed-forward layers and norms
    qkv_bias: bool = False  # use biases for queries, keys and values
    activation: str = "gelu"  # relu, gelu, gelu_tanh or relu2
    tied: bool = True  # tie lm_head to the token embedding; an untied lm_head has a bias
    scaled_init: bool = True  # scale initial residual projections by 1/sqrt(2 n_layer), as in GPT-2

    model_type: ClassVar[str] = "gpt"  # written into a saved model's config (lesson 09)

    def __post_init__(self):
        _check_config(self)

    def min_parameters(self):
        """The parameters in the large matrices and tables, without building the model, which has a few more."""
        blocks = 12 * self.n_layer * self.n_embd**2
        return blocks + (self.vocab_size + self.block_size) * self.n_embd

    @classmethod
    def lecture(cls, vocab_size, block_size=256, n_embd=384, n_head=6, n_layer=6, dropout=0.2):
        """The GPT of "Let's build GPT" (Karpathy, 2023): ReLU, q, k, v without bias, the last matrix not tied."""
        return cls(
            vocab_size=vocab_size,
            block_size=block_size,
            n_embd=n_embd,
            n_head=n_head,
            n_layer=n_layer,
            dropout=dropout,
            bias=True,
            activation="relu",
            tied=False,
            scaled_init=False,
        )

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
        return cls(
            vocab_size=50257,
            block_size=1024,
            n_layer=12,
            n_head=12,
            n_embd=768,
            dropout=0.1,
            bias=True,
            qkv_bias=True,
            activation="gelu_tanh",
        )

# %%
print(GPTConfig.baby(vocab_size=65))
try:
    GPTConfig(vocab_size=65, n_embd=100, n_head=6)
except ValueError as error:
    print(error)

# %% [markdown]
# Here is the model, a screen of code. (`cache` is for lesson 08, as in lesson 04; here it is `None`.)

# %%
#| export
class GPT(LanguageModel):
    """A GPT of the family that the config describes (Radford et al., 2019)."""

    def __init__(self, config):
        super().__init__(config.vocab_size, config.block_size)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList()
        for _ in range(config.n_layer):
            block = Block(
                config.n_embd,
                config.n_head,
                config.bias,
                config.qkv_bias,
                config.activation,
                config.dropout,
            )
            self.blocks.append(block)
        # With pre-norm, no block normalises the stream after its last addition; this layer norm does.
        self.norm = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=not config.tied)
        if config.tied:
            # Both are (V, C): one parameter with two names; its gradient is the sum over both uses.
            self.lm_head.weight = self.token_embedding.weight
        self.apply(init_weights)
        if config.scaled_init:
            scale_residual_init(self, config.n_layer)

    def embed(self, idx, cache=None):
        """idx (B, T) -> the embedding of each character plus that of its position, (B, T, C)."""
        T = idx.shape[1]
        x = self.token_embedding(idx)  # (B, T, C)
        if cache is None:
            positions = self.position_embedding.weight[:T]  # (T, C)
        else:
            # idx continues where the cache ends: (T, C), or (B, T, C) where each row has its own positions.
            positions = self.position_embedding(cache.extend(T, idx.device))
        x = x + positions
        return F.dropout(x, self.config.dropout, self.training)

    def compute_logits(self, idx, cache=None):
        """idx (B, T) -> logits (B, T, V). cache: keys and values of the text before idx (lesson 08)."""
        x = self.embed(idx, cache)
        for block in self.blocks:
            x = block(x, cache)
        return self.lm_head(self.norm(x))

    def num_params(self):
        """The number of parameters; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())

# %% [markdown]
# ## Counting parameters
#
# How many parameters does a GPT have? Count them for the lecture's: vocabulary $V = 65$, block $T = 256$, width $C = 384$, $N = 6$ blocks.

# %%
V, T, C, N = 65, 256, 384, 6
tables = V * C + T * C
attention = 3 * C * C + C * C + C  # q, k, v without bias; the projection with
feed_forward = (C * 4 * C + 4 * C) + (4 * C * C + C)
norms = 2 * 2 * C  # two of them, gamma and beta
head = 2 * C + C * V + V  # the last norm, the last matrix and its bias
by_hand = tables + N * (attention + feed_forward + norms) + head
print(f"{by_hand:,}")

# %% [markdown]
# ### Exercise: how large is a GPT?
# ★★★ · 13 minutes · The number that people ask for first, and often miscount.
#
# Count the same for all three families. `V`, `T`, `C` and `N` are as above, `H` is the number of heads. `family` is `"lecture"`, `"nanoGPT"` or `"GPT-2"`; the table at the top says what has a bias and whether the last matrix is tied. The $\beta$ of a norm is a bias, its $\gamma$ is not. A tied matrix counts once, and the position table counts.
#
# For `V, T, C, H, N = 5, 3, 4, 2, 1` there are 297 parameters in the lecture's GPT, 236 in nanoGPT's and 284 in GPT-2's.

# %% tags=["exercise"] exercise="gpt_parameters"
def gpt_parameters(V, T, C, H, N, family):
    """-> int: how many parameters a GPT of this family has, with N blocks of width C."""
    ### BEGIN SOLUTION
    bias, qkv_bias, tied = family != "nanoGPT", family == "GPT-2", family != "lecture"
    attention = 3 * C * C + 3 * C * qkv_bias + C * C + C * bias
    feed_forward = C * 4 * C + 4 * C * bias + 4 * C * C + C * bias
    norm = C + C * bias
    last = 0 if tied else C * V + V
    return V * C + T * C + N * (attention + feed_forward + 2 * norm) + norm + last
    ### END SOLUTION

# %%
check("gpt_parameters", gpt_parameters)

# %% [markdown]
# Now build the models and count. (Your function should give the same numbers: for the baby, `gpt_parameters(65, 256, 384, 6, 6, "nanoGPT")` is 10,745,088.)

# %%
for name, config in {
    "lecture": GPTConfig.lecture(65),
    "baby": GPTConfig.baby(65),
    "cpu": GPTConfig.cpu(65),
    "oz": GPTConfig.oz(73),
    "gpt2": GPTConfig.gpt2(),
}.items():
    with torch.device("meta"):  # shapes only: takes no memory
        print(f"{name:8} {GPT(config).num_params():>12,}")

# %%
assert GPT(GPTConfig.lecture(65)).num_params() == by_hand == 10_788_929

# %% [markdown]
# What does tying save? A last matrix of its own would have as many parameters as the token table, $V \cdot C$. **Predict:** what share of all parameters is that, for 65 characters, and for GPT-2's 50,257 subwords?

# %%
for name, config in {"baby": GPTConfig.baby(65), "gpt2": GPTConfig.gpt2()}.items():
    with torch.device("meta"):
        total = GPT(config).num_params()
    table = config.vocab_size * config.n_embd  # V * C
    print(
        f"{name}: {config.vocab_size:,} * {config.n_embd} = {table:,} of {total:,} parameters, {table / total:.1%}"
    )

# %% [markdown]
# For characters, tying saves next to nothing. GPT-2 would be almost a third larger without it.

# %%
shares = {
    "both tables": tables,
    "attention": N * attention,
    "feed-forward": N * feed_forward,
    "norms": N * norms,
    "last norm, last matrix": head,
}
fig, ax = plt.subplots(figsize=(7, 2.2), layout="constrained")
ax.bar_label(
    ax.barh(list(shares), [n / 1e6 for n in shares.values()], color="#0072B2"), fmt=" %.2f"
)
ax.set(
    xlabel="million parameters", title="The lecture GPT: where the parameters are", xlim=(0, 8.5)
)
ax.invert_yaxis()
show(
    fig,
    "Bars: feed-forward layers hold 7.1 million parameters, attention 3.5, everything else together less than "
    "0.2.",
)

# %% [markdown]
# ## From ids to logits
#
# Follow our line through a new model, and watch the shapes. The model is nanoGPT's for a CPU, a little narrower, with a window of 192 characters: most scenes fit.
#
# The drawing shows the whole model. Two things are new: a dropout after the embedding, and one table in two places.

# %%
from chargpt_lib.drawings import draw_model

show(*draw_model("gpt"))

# %%
#| export
# The sizes of the course's model of Playhouse, for GPTConfig.cpu: 0.5 million parameters.
PLAYHOUSE = {"block_size": 192, "n_embd": 96, "n_head": 6}

# %%
corpus, device = load_corpus(CORPUS), pick_device()
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
V = tokenizer.vocab_size
torch.manual_seed(1337)
model = GPT(GPTConfig.cpu(V, **PLAYHOUSE)).to(device)
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
difference = (logits - model(idx)[0]).abs().max()
print(f"largest difference from model(idx): ≈ {difference:.0e}")
assert difference < 1e-4

# %%
_, loss = model(idx[:, :-1], idx[:, 1:])
print(f"loss of the untrained model ≈ {loss:.2f}, ln V = {log(V):.2f}")
assert abs(loss - log(V)) < 0.2

# %% [markdown]
# The initial projections are scaled by $1/\sqrt{2N}$, which made the gradients more even in lesson 05. Does it lower the *loss*, too? `python -m tests.benchmarks.single_changes` trained lesson 05's model with twelve blocks for 300 steps, with the scale and without, with three seeds each. **Predict** the losses at init, and those at the end.

# %%
path = bundled_dir() / "results" / "single_changes.json"
changes = json.loads(path.read_text(encoding="utf-8"))
print("training loss, three seeds      first step              mean of steps 281 to 300")
for name, runs in changes["init"].items():
    starts = ", ".join(f"{losses[0]:.2f}" for losses in runs.values())
    ends = ", ".join(f"{fmean(losses[-20:]):.2f}" for losses in runs.values())
    print(f"{name:30}  {starts:22}  {ends}")

# %% [markdown]
# Both begin near $\ln V$: the last layer norm removes the size of the stream, so the logits do not show it. After 300 steps the three seeds differ more than the two initialisations. In a model of this size the scale makes no difference that the loss would show; GPT-2's largest model has four times as many blocks and 25 times the width.

# %% [markdown]
# ## Training
#
# The loop is lesson 02's. Because this model sees 192 characters, it sees most scenes together with their cast list. **Predict:** which stripes of the picture at the top will shrink most?
#
# If the session ends before the training does, run the page again: the training goes on from what it saved half a minute before, if that file is still there. On your own computer it is. On Colab and Kaggle the disk is lost with the session, so set `CACHE_DIR` to a folder that stays: one in your Drive (first run `from google.colab import drive; drive.mount("/content/drive")`), or `/kaggle/working` (first choose Persistence: Files, among the notebook's settings). A saved training goes on only with the settings it began with, and `scale` is one of them. If you began with a graphics card and have none today, write the old number after `scale =`.

# %%
CACHE_DIR = None  # or a folder that outlasts the session: "/content/drive/MyDrive/chargpt", "/kaggle/working" (see RUNNING_ELSEWHERE.md)
scale = pick_scale(device)  # 1 on a CPU: see lesson 00

# %% tags=["nbval-ignore-output"]
result = load_or_fit(
    "GPT", model, corpus, steps=2800, batch_size=6 * scale, lr=5e-3, cache_dir=CACHE_DIR
)
print(f"exact loss ≈ {result['loss']:.3f} after ≈ {result['seconds']:.0f} s of training")

# %%
better = ladder(corpus.name)["blocks"]["loss"] - result["loss"]
print(f"≈ {better:.2f} nats better than the blocks (more than 0.05: {better > 0.05})")
if corpus.name == "playhouse":
    above = result["loss"] - corpus.val_entropy
    print(
        f"≈ {above:.2f} nats above the floor, {corpus.val_entropy:.3f} (less than 0.15: {above < 0.15})"
    )
    assert better > 0.05 and above < 0.15

# %%
losses = torch.tensor(result["losses"])
smooth = losses.unfold(0, 50, 10).mean(1)
orange = {"color": "#D55E00", "linewidth": 0.8}
green = {"color": "#009E73"}

# %%
fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.plot(losses, color="#56B4E9", linewidth=0.4, alpha=0.6, label="each batch")
ax.plot(range(25, 25 + 10 * len(smooth), 10), smooth, color="#0072B2", label="mean of 50")
for rung, style in zip(MODEL_NAMES[:4], ("-", "--", "-.", ":")):
    ax.axhline(ladder(corpus.name)[rung]["loss"], linestyle=style, label=rung, **orange)
if corpus.val_entropy:
    ax.axhline(corpus.val_entropy, label="the floor", **green)
ax.set(xlabel="step", ylabel="nats per character", yscale="log")
ax.set_title("Down the whole ladder in one run")
ax.set_yticks([0.3, 0.5, 1, 2, 4], ["0.3", "0.5", "1", "2", "4"], minor=False)
ax.minorticks_off()
ax.legend(frameon=False, ncols=2, fontsize=8)
show(
    fig,
    "The loss passes the losses of all earlier models one after the other and comes close to the floor.",
)

# %% [markdown]
# What does each character of our line cost now? Compare with lessons 01 to 05.

# %%
with torch.no_grad():
    logits, _ = model(idx[:, :-1])  # (1, T, V)
probabilities = logits.softmax(-1)[0].gather(1, idx[0, 1:, None])[:, 0].cpu()  # (T,)
print(price_table("O damp goose!", probabilities))

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
# `score_plays` of [Playhouse](appendix/playhouse.ipynb) checks two things in all eight plays: that each word occurs in the corpus, and that each speaker is on the cast list of the scene.

# %% tags=["nbval-ignore-output"]
known = set(re.findall("[A-Za-z]+", corpus.train))
verdicts = [score_plays(play, known) for play in plays]
verdict = {key: sum(v[key] for v in verdicts) / len(verdicts) for key in ("words", "speakers")}
print(f"{verdict['words']:.1%} of the words occur in the corpus")
print(f"{verdict['speakers']:.0%} of the speakers are on the cast list of their scene")

# %%
assert (verdict["words"] > 0.95 and verdict["speakers"] > 0.6) or corpus.name != "playhouse"

# %% [markdown]
# ## The logit lens
#
# The last norm and the last matrix turn the vector after the last block into a prediction. Nothing forbids using them earlier: after each block, what *would* the model say? Here is a scene with the last word missing. The first line gives the right answer.

# %%
SCENE = (
    "A barn. Enter Meg and Toby with a damp goose.\nToby: The owl sings.\n"
    "Meg: You odd nun!\nExit Toby, licking the "
)
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
image = heatmap(
    ax, sure, rows=[stage for stage, _ in guesses], columns=visible(SCENE[-last:]), cells=chars
)
ax.set(xlabel="after reading", title="The best guess for the next character, after each block")
fig.colorbar(image, label="its probability")
show(
    fig,
    "A grid of guessed characters: after the embedding they are poor, after the last block most of them "
    "are right, with high probability.",
)

# %% [markdown]
# From top to bottom the guess is revised. The first row only repeats what was read: the last matrix is the token table, so each vector that has just been looked up points back at itself. In the last column the next letter should be the `g` of the goose. How likely does the model find it?

# %% tags=["nbval-ignore-output"]
p = guesses[-1][1][-1]
print(f"g: {p[tokenizer.stoi['g']]:.2f}")
print(
    {tokenizer.alphabet[i]: round(p[i].item(), 2) for i in p.argsort(descending=True)[:4].tolist()}
)

# %%
assert (p.sum() - 1).abs() < 1e-4

# %% [markdown]
# ### Exercise: who wrote the g?
# ★★★ · 22 minutes · It finds the layers that a prediction comes from (Elhage et al., 2021).
#
# The picture above is called a *logit lens* (nostalgebraist, 2020). The lens looks at a sum: all that the layers have added so far. Take this sum apart. What reaches the last norm is $x = r_1 + \dots + r_L$: the embedding and what each layer added (the rows of `parts`; attention and feed-forward count separately, so here $L = 9$). The logit of one character is $w \cdot \operatorname{LN}(x)$, where $w$ is its row of the last matrix and $\operatorname{LN}$ the norm of lesson 05 without $\beta$, with $\varepsilon = 10^{-5}$.
#
# How much of this logit is due to each $r_l$? These shares are logits, too: they add up to the logit, not to 1. The difficulty is $\operatorname{LN}$: the norm of a sum is not the sum of the norms. But only one of its steps is not linear, the division by the standard deviation. Divide every part by the standard deviation of the whole $x$, and apply the linear steps to each part.
#
# With the parts (3, 1) and (0, −4), $\gamma$ = (1, 1) and $w$ = (3, 0): $x$ = (3, −3) has the mean 0 and the standard deviation 3, the logit is 3, and the shares are 1 and 2.

# %% tags=["exercise"] exercise="logit_contributions"
def logit_contributions(parts, gamma, w):
    """parts (L, C), gamma (C,), w (C,) -> (L,), in the dtype of parts: each part's share in w · LN(parts.sum(0))."""
    ### BEGIN SOLUTION
    spread = (parts.sum(0).var(unbiased=False) + 1e-5).sqrt()
    centred = parts - parts.mean(-1, keepdim=True)
    return (centred / spread * gamma) @ w
    ### END SOLUTION

# %%
check("logit_contributions", logit_contributions)

# %% [markdown]
# If yours passes, the next cell draws the shares for the `g` of the goose. A logit alone says little, because softmax sees only differences (lesson 02). So the cell takes $w_g$ minus the mean of all rows of the last matrix. By how much is the `g` above the mean logit, and which layers raise it?

# %%
if passed("logit_contributions"):
    x = model.embed(idx)
    with torch.no_grad():
        parts = {"embedding": x[0, -1]}
        for n, block in enumerate(model.blocks):
            parts[f"attention {n}"] = block.attention(block.norm_1(x))[0, -1]
            parts[f"feed-forward {n}"] = block(x)[0, -1] - x[0, -1] - parts[f"attention {n}"]
            x = block(x)
        w = model.lm_head.weight[tokenizer.stoi["g"]] - model.lm_head.weight.mean(0)
        shares = logit_contributions(torch.stack(list(parts.values())), model.norm.weight, w).cpu()
    fig, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
    ax.barh(list(parts), shares, color="#0072B2")
    ax.set(
        xlabel="share of the logit",
        title=f"g: {shares.sum():.1f} above the mean logit, most from {list(parts)[shares.argmax()]}",
    )
    ax.invert_yaxis()
    show(
        fig,
        "Bars, one for the embedding and one for each layer: how far each lifts the g above the mean logit.",
    )

# %% [markdown]
# So which layer wrote the `g`? The one with the longest bar to the right; a bar to the left makes the `g` less likely. But the layer that writes the `g` need not be the one that found the goose. A feed-forward layer sees one position, and the goose stands seventy characters back: a head must have fetched it before, in the same block or an earlier one.
#
# ## Which head fetched the goose?
#
# When the `g` is due, which heads look at the prop in the first line? The picture shows how much of the last position's weight each head puts on the word that has to be copied. The space before the word counts, too: a head that copies may look there, because the character after it is the `g`.

# %%
from chargpt_lib.single_head import causal_mask, scaled_dot_product_attention


def attention_weights(model, idx):
    """idx (1, T) -> the weights of every head: a list of (H, T, T), one for each block."""
    x, weights, T = model.embed(idx), [], idx.shape[1]
    for block in model.blocks:
        attention = block.attention
        qkv = attention.qkv(block.norm_1(x)).view(1, T, 3, attention.n_head, attention.head_size)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights.append(
            scaled_dot_product_attention(q, k, v, causal_mask(T, idx.device))[1][0].cpu()
        )
        x = block(x)
    return weights

# %%
with torch.no_grad():
    weights = attention_weights(model, idx)
print("largest weight on the future, in any head:", max(w.triu(1).max().item() for w in weights))
for w in weights:
    assert torch.allclose(w.sum(-1), torch.ones(w.shape[:2]), atol=1e-4) and w.triu(1).max() == 0

# %%
start = SCENE.find("goose") if "goose" in SCENE else 0
on_prop = torch.stack([w[:, -1, start - 1 : start + 5].sum(-1) for w in weights])  # (blocks, heads)
fig, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
image = heatmap(ax, on_prop, cells=[[f"{value:.2f}" for value in row] for row in on_prop])
ax.set(
    xlabel="head",
    ylabel="block",
    title="Weight of the last position on “goose” in the first line",
    yticks=range(4),
)
fig.colorbar(image, label="weight")
show(
    fig,
    "A table of blocks and heads with the weight that each head puts on the prop: most heads put hardly any there.",
)

# %%
few = (on_prop > 0.5).sum().item()
print(f"largest weight ≈ {on_prop.max():.2f}; more than a half: ≈ {few} of {on_prop.numel()} heads")

# %% [markdown]
# Usually several heads look there. A model learns copying late and rather suddenly (lesson 07 shows when), and some have not learnt it yet when this training ends. If no head of yours reaches a half, look at the guess for the `g` above: is the model as sure as it should be?
#
# Here are the last 18 rows of two heads: the one that puts most weight on the goose, and the one that looks nearest, with the most weight on the last four characters. **Find** the last row, in which the `g` is due. Which other rows of the upper head look far back, and at which words?

# %%
stacked = torch.stack(weights)  # (blocks, heads, T, T)
nearest = stacked.tril().triu(-3).sum(-1).mean(-1)  # (blocks, heads): weight on the last four
words = list(re.finditer(r"\S+", SCENE))
fig, axes = plt.subplots(2, 1, figsize=(9, 6.6), layout="constrained", sharex=True)
for ax, scores, title in zip(axes, (on_prop, nearest), ("most on the goose", "looks nearest")):
    n, h = divmod(scores.argmax().item(), scores.shape[1])
    image = heatmap(ax, stacked[n, h, -18:] ** 0.5, rows=visible(SCENE[-18:]))
    ax.set_title(f"{title}: block {n}, head {h}")
    ax.set_ylabel("after reading")
axes[1].set_xticks(
    [word.start() for word in words], [word.group() for word in words], rotation=90, fontsize=8
)
fig.colorbar(image, ax=axes, label="square root of the weight", shrink=0.6)
show(
    fig,
    "Two heat maps, 18 rows each, with the words of the scene below. The upper head has single bright points far "
    "back, in the last row on the goose of the first line. The lower head's bright points lie near the diagonal.",
)

# %% [markdown]
# ## How much context it uses
#
# The exact loss cuts the validation text into windows of 192. At the start of a window the model knows nothing of the text before it, and that ignorance costs nats. With windows that overlap by half, each character but the first 96 of the text has at least 96 characters of past.

# %%
val_ids = tokenizer.encode(corpus.val)
nats = per_token_loss(model, val_ids)
disjoint, overlapping = nats.mean().item(), evaluate(model, val_ids, stride=96)
# The mean loss at each place of a window.
whole = nats[: len(nats) // 192 * 192].view(-1, 192).mean(0)

# %%
fig, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
ax.plot(range(1, 193), whole, color="#0072B2", linewidth=1)
if corpus.val_entropy:
    ax.axhline(corpus.val_entropy, color="#009E73", linestyle=":", label="the floor")
    ax.legend(frameon=False)
ax.set(
    xlabel="characters of past that the model can see",
    ylabel="nats per character",
    ylim=0,
    xlim=(0, 192),
    title=f"Disjoint windows: {disjoint:.3f}   with half a window of past: {overlapping:.3f}",
)
show(
    fig,
    "The loss is above 2 for the first character of a window, falls steeply within ten, and then stays a little "
    "above the floor.",
)

# %%
saved = disjoint - overlapping
first, later = whole[:3].mean(), whole[96:].mean()
print(f"half a window of past saves ≈ {saved:.3f} nats (more than 0.01: {saved > 0.01})")
print(
    f"the first three characters of a window cost ≈ {first:.2f} nats each, those from the 97th on ≈ {later:.2f}"
)
assert saved > 0.01 and first - later > 0.5

# %% [markdown]
# Both losses are honest; they answer different questions. We compare models by the first, with disjoint windows.
#
# In some places the line dips below the floor. Each point is the mean over one character of each window, and a few hundred characters can be cheaper than the entropy. The average over all texts of the grammar, however, can never be below the entropy (lesson 00).
#
# ## Loss by kind of text

# %%
show(
    plot_ladder(corpus.name),
    "Stacked bars: the full GPT is close to the floor. Small stripes of every kind remain.",
)

# %% [markdown]
# The last stripes are thin. Here are those of the blocks and of the GPT again, enlarged and without the floor. Which stripes shrank most?

# %%
if corpus.name == "playhouse":
    last_two = {rung: ladder(corpus.name)[rung]["excess"] for rung in ("blocks", "GPT")}
    fig = plot_excess(last_two, 0)
    fig.axes[0].set(xlabel="nats per character above the floor", title="What is left, enlarged")
    show(
        fig,
        "Two stacked bars, blocks and GPT, on an axis from 0: the GPT's is much the shorter.",
    )

# %%
if corpus.name == "playhouse":
    before, after = (ladder(corpus.name)[rung]["excess"] for rung in ("blocks", "GPT"))
    shrank = {kind: before[kind] - after[kind] for kind in after}
    for kind in sorted(after, key=shrank.get, reverse=True):
        print(f"{kind:12} ≈ {before[kind]:.3f} becomes ≈ {after[kind]:.3f} nats per character")
    second = max(shrank[kind] for kind in shrank if kind != "spelling")
    print(f"spelling shrank by ≈ {shrank['spelling']:.3f}, the next one by ≈ {second:.3f} nats")
    assert shrank["spelling"] - second > 0.005

# %% tags=["nbval-ignore-output"]
for rung, row in ladder(corpus.name).items():
    above = f", {row['loss'] - row['floor']:.3f} above the floor" if row["floor"] else ""
    print(
        f"{rung:12} {row['loss']:.3f} nats per character{above}{' (recorded)' if row['recorded'] else ''}"
    )

# %%
rungs = [row["loss"] for row in ladder(corpus.name).values()]
steps_down = [upper - lower for upper, lower in zip(rungs, rungs[1:])]
print("nats from each rung to the next:", ", ".join(f"≈ {step:.2f}" for step in steps_down))
assert min(steps_down) > 0.05 or corpus.name != "playhouse"

# %% [markdown]
# In nats, spelling shrank most: its stripe was the longest, so it could lose most. Names and closings have to be copied, often from further back than the 64 characters that the blocks saw.
#
# With the five lines of lesson 02, the model has learnt spelling, grammar and a part of the copying. A good part of the loss that remains comes from the start of the windows, where the model has nothing to go by: compare the two losses in the title above.
#
# ## One change at a time
#
# Between lesson 05's model and this one, everything changed at once: the window, the width (with heads of the same size), the depth, tying, biases, batch and learning rate. The training takes several times as long, too. Which change was worth most? `python -m tests.benchmarks.single_changes` trained lesson 05's model with one change at a time, for equal *time* on one core, so that a slower model gets fewer steps: for 20 seconds, less than lesson 05 needs, and the three larger changes also for 150 seconds, about what this page needs. (Three seeds for 20 seconds, one for 150.) **Predict:** which single change gains most in 20 seconds? And in 150?

# %%
rows = {name: row for name, row in changes["rows"].items() if "hidden" not in name}
by_budget = {budget: {} for budget in ("short", "long")}  # {budget: {row: the losses of its seeds}}
for budget, found in by_budget.items():
    print(f"{changes['seconds'][budget]:3} seconds       steps    loss   minus lesson 05's")
    for name, row in rows.items():
        if budget in row["runs"]:
            found[name] = [run["loss"] for run in row["runs"][budget].values()]
            loss = fmean(found[name])
            gap = loss - fmean(found["lesson 05"])
            print(f"{name:14} {row['steps'][budget]:8,}   {loss:.3f}   {gap:+.3f}")

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
for ax, (budget, found) in zip(axes, by_budget.items()):
    excess = [fmean(seeds) - changes["floor"] for seeds in found.values()]
    ax.barh(list(found), excess, left=changes["floor"], color="#56B4E9")
    for name, seeds in found.items():
        ax.plot(seeds, [name] * len(seeds), "o", color="#0072B2", markersize=4)
    ax.axvline(fmean(found["lesson 05"]), color="#D55E00", linestyle="--", linewidth=1)
    title = f"{changes['seconds'][budget]} seconds of one core"
    ax.set(xlabel="nats per character, from the floor on", title=title)
    ax.set_xlim(left=changes["floor"])
    ax.invert_yaxis()
show(
    fig,
    "Bars from the floor to the loss of each row, with a dot for each seed, and lesson 05's loss as a dashed line. After 20 seconds the window, the width, the depth and lesson 06 are above the line. After 150 the window and lesson 06 are below it, the width and the depth are on it.",
)

# %% [markdown]
# In 20 seconds, the three larger changes do harm, and all changes together do most. One reason: their steps take longer, so there are fewer. The cheap changes gain a little; two of them also make a step faster.
#
# In 150 seconds the longer window gains most: by itself it gains even more than all changes together. It halves the excess of copied names and closings, because the word to copy stands far back. It also halves the excess of spelling: three times as long a window means a third as many windows, so fewer windows start in the middle of a word. (The record has the excess of each kind.) Width and depth have gained nothing yet. Which model is best depends on the time for which you train it: lesson 15 makes a law of that.
#
# On Shakespeare (recorded):

# %% tags=["nbval-ignore-output"]
for rung, row in ladder("shakespeare").items():
    print(f"{rung:12} {row['loss']:.3f} nats per character")
print("\n" + ladder("shakespeare")["GPT"]["sample"][:400])

# %%
assert ladder("shakespeare")["blocks"]["loss"] - ladder("shakespeare")["GPT"]["loss"] > 0

# %% [markdown]
# Nobody knows Shakespeare's floor. But you have seen how near a model of this kind comes to a floor that *is* known.
#
# ## A model that comes with the course
#
# Train this page's model on another computer, and it becomes another model. The other computer adds its sums in another order, so the last digits differ, and after a thousand steps everything differs, except how good the model is. What this page says of its model is true of all such models. But the next lessons look into single heads, and which head does what differs from model to model. So the course comes with one model of the same size, trained for longer, and with the record of its training.

# %%
#| export
def load_pretrained(name):
    """A model that comes with the course -> the GPT, on the CPU; its tokenizer; the record of its training, a dict.

    Raises: FileNotFoundError where there is no such model, ValueError where its weights are not the recorded ones.
    """
    folder = bundled_dir() / "models" / name
    config = folder / "config.json"
    record = folder / "record.json"
    if not record.is_file():
        raise FileNotFoundError(f"unknown pretrained model {name!r}: {record} does not exist")
    record = json.loads(record.read_text(encoding="utf-8"))
    weights = folder / "model.safetensors"
    # What the lessons say about single heads holds for these weights only.
    if hashlib.sha256(weights.read_bytes()).hexdigest() != record["sha256"]:
        raise ValueError(
            f"the SHA-256 of {weights} differs from record.json: reinstall or "
            f"re-download the course"
        )
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings.pop("model_type", None)
    model = GPT(GPTConfig(**settings))
    load_model(model, weights)  # 16 bits a number in the file, 32 in the model
    return model.eval(), load_tokenizer(folder), record

# %%
recorded_model, recorded_tokenizer, record = load_pretrained("playhouse")
print(
    f"{recorded_model.num_params():,} parameters; {record['steps']:,} steps of {record['batch_size']} windows"
)
print(
    f"trained on {record['date']}, on {record['machine']['processor']}, with PyTorch {record['machine']['torch']}"
)
playhouse = corpus if corpus.name == "playhouse" else load_corpus("playhouse")
measured = evaluate(recorded_model, recorded_tokenizer.encode(playhouse.val))
print(
    f"exact loss {record['loss']:.3f} as recorded, {measured:.3f} as measured here; the floor {record['floor']:.3f}"
)
assert abs(measured - record["loss"]) < 1e-4

# %% [markdown]
# How much nearer to the floor is the course's model than yours? Its file stores each number in 16 bits, which halves the file. On another machine the measured loss differs at most in a digit that is not printed, because nothing is trained.
#
# ### Exercise: bits per byte
# ★ · 4 minutes · Losses per token cannot be compared between models with different tokens, such as characters and GPT-2's subwords; bits per byte can (Gao et al., 2020).
#
# A bit is $\ln 2$ nats. UTF-8 writes a character in bytes: one for `o`, two for `é`, more for other scripts. `loss` is the mean over all characters of `text`, in nats. The whole text costs the same, however you count it: spread this cost over its bytes.
#
# `café` has 4 characters and 5 bytes. At a loss of $\ln 2$ it costs 4 bits, that is 0.8 bits per byte.

# %% tags=["exercise"] exercise="bits_per_byte"
def bits_per_byte(loss, text):
    """loss: nats per character of the text, a float -> the same cost in bits per byte of its UTF-8, a float."""
    ### BEGIN SOLUTION
    return loss / math.log(2) * len(text) / len(text.encode("utf-8"))
    ### END SOLUTION

# %%
check("bits_per_byte", bits_per_byte)

# %% [markdown]
# ## Your GPT in the browser
#
# `playground` packs a model into a page: its config, its weights, and a program in JavaScript that computes what `forward` computes. The page needs no Python. To keep the page small, each weight is rounded to 8 bits. A row of a matrix has one scale, $s = \max_i |w_i| / 127$, and each weight $w$ of the row becomes $s \cdot \mathrm{round}(w / s)$: a whole number from −127 to 127, times $s$.
#
# Below is the scene of the logit lens, with its last word written out.
#
# - Put the caret before the `g` of the last `goose`. In the table *Its guess after each block*, the first guesses are the last column of the picture above.
# - **Predict:** you change the `goose` of the *first* line into a `crown`. How does the colour of the `g` in the last line change? And the colours of the letters after it?
# - Press *Measure each*. In layer 0, what costs more to lose: the feed-forward, or all heads together? Is it the same part in every layer?

# %% tags=["nbval-ignore-output"]
from chargpt_lib.playground import as_packed, playground

ending = "goose.\n" if corpus.name == "playhouse" else ""
playground(model, tokenizer, SCENE + ending, corpus.val_entropy)

# %%
stretch = tokenizer.encode(corpus.val[:20_000])
exact, rounded = evaluate(model, stretch), evaluate(as_packed(model), stretch)
print(f"loss on 20,000 characters: ≈ {exact:.3f}, and with weights in 8 bits ≈ {rounded:.3f}")
assert round(rounded - exact, 2) == 0

# %% [markdown]
# `playground(model, tokenizer).save("gpt.html")` writes the page to a file, and `chargpt page FOLDER` does the same for a model that you trained with the `chargpt` command.
#
# ## Mistakes people make
#
# - **Comparing with other block sizes.** A longer window alone lowers the loss. Say which block size you used.
# - **Sampling in training mode.** With dropout on, each character is guessed with a random part of the model missing. `generate` switches to evaluation mode, and back.
# - **Counting tied weights twice**, or leaving out the position table.
# - **A learning rate from another model.** 5e-3 is right for a model this small; nanoGPT takes 1e-3 for its 10 million parameters, and 6e-4 for its copy of GPT-2.
#
# ## Exercises
#
# ### Exercise: the alphabet that stays at a
# ★★ · 8 minutes · Sampling code is copied from project to project, with its bugs.
#
# The function below continues a text, as `generate` does. Its model is a bigram table plus a row of numbers for each position of the window; the `block_size` is `len(positions)`. Nothing random happens inside: `u` holds random numbers that were drawn before, one from 0 to 1 for each new character. Lay the characters' probabilities end to end on a line from 0 to 1; the new character is the one on whose piece `u` falls.

# %%
def write_on(table, positions, idx, u):
    for n in range(u.shape[1]):
        window = idx[:, : len(positions)]
        logits = table[window] + positions[: window.shape[1]]  # (B, T, V)
        ends = logits[:, -1].softmax(0).cumsum(-1)  # (B, V): the end of each character's piece
        # (B, 1): the number of pieces that end before u
        new = (ends[:, :-1] < u[:, n : n + 1]).sum(-1, keepdim=True)
        idx = torch.cat([idx, new], dim=1)
    return idx


# Nearly certain: after a comes b, after b comes c, ...
next_letter = 20 * torch.eye(26).roll(1, dims=1)
written = write_on(next_letter, torch.zeros(4, 26), torch.tensor([[3]]), torch.full((1, 9), 0.5))
print("".join("abcdefghijklmnopqrstuvwxyz"[i] for i in written[0].tolist()))

# %% [markdown]
# It should recite `defghijklm`. There are two bugs, and one of them hides the other: once you fix the one that hides, the function recites `defghhhhhh`. Fix both.

# %% tags=["exercise"] exercise="sample_continuation"
def sample_continuation(table, positions, idx, u):
    """table (V, V), positions (block_size, V), idx (B, T) int64, u (B, n) -> (B, T + n) int64: idx, then n new ids."""
    ### BEGIN SOLUTION
    for n in range(u.shape[1]):
        window = idx[:, -len(positions) :]
        logits = table[window] + positions[: window.shape[1]]
        ends = logits[:, -1].softmax(-1).cumsum(-1)
        new = (ends[:, :-1] < u[:, n : n + 1]).sum(-1, keepdim=True)
        idx = torch.cat([idx, new], dim=1)
    return idx
    ### END SOLUTION

# %%
check("sample_continuation", sample_continuation)

# %% [markdown]
# ### Exercise: one table, two gradients
# ★★★ · 20 minutes · What a tied table learns from (Press and Wolf, 2017).
#
# The smallest tied model looks up the row of the table $E$ for each character, and multiplies it by the same table. For $M$ characters $i_1, \dots, i_M$ (`idx`) with targets $y_1, \dots, y_M$, the logit of the character $v$ after character $m$ is $z_{mv} = E_{i_m} \cdot E_v$. The loss is the mean of the $M$ cross-entropies.
#
# Work out $\partial L / \partial E$ by hand. (`check` accepts autograd's gradient, too: use autograd to see whether yours is right.) Begin with $\partial L / \partial z_m = (p_m - \mathbf{y}_m) / M$ (lesson 02). A logit contains $E$ twice. Differentiate as if there were two tables, one that is looked up and one that multiplies; then add.
#
# With $E$ = [[1], [0]], `idx` = [0] and `targets` = [1], the logits are (1, 0), $p - \mathbf{y}$ = (0.731, −0.731), and the gradient is [[1.462], [−0.731]].

# %% tags=["exercise"] exercise="tied_gradient"
def tied_gradient(E, idx, targets):
    """E (V, C), idx (M,) int64, targets (M,) int64 -> (V, C), in E's dtype: the gradient of the mean loss."""
    ### BEGIN SOLUTION
    x = E[idx]  # (M, C)
    error = (x @ E.T).softmax(-1) - F.one_hot(targets, len(E)).to(E.dtype)  # (M, V)
    as_last_matrix = error.T @ x
    as_table = torch.zeros_like(E).index_add_(0, idx, error @ E)  # repeated ids add up
    return (as_last_matrix + as_table) / len(idx)
    ### END SOLUTION

# %%
check("tied_gradient", tied_gradient)

# %% [markdown]
# How far you are:

# %%
progress()

# %% [markdown]
# ## Summary
#
# `GPTConfig` and `GPT`, in `chargpt_lib/gpt.py`: a whole GPT in little more than a hundred lines, each of which you have met before.
#
# Next: [07 · Attention maps](07_attention_maps.ipynb), what each head looks at. Or take a text of yours first. Put its path behind `CORPUS = ` in lessons 01 to 06, run them again, and see where its ladder ends. Then change one thing, write down what you expect, and measure. (For a class, `notebooks/TEACHING.md` in the repository makes a project of it.)
