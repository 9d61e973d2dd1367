# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 08 · Sampling: from probabilities to text
#
# > Sampling: temperature, top-k, top-p, min-p, stop strings, streaming, and the KV cache.
#
# You will build: `generate`, with all the usual sampling parameters, and a cache of keys and values, which saves most of the work for each character and leaves the text as it is.
# You need lesson 06. On two CPU cores the page takes about half a minute.
#
# A model does not write. At each place it gives every character a probability. Somebody has to choose one, and the choice makes the play dull, lively or mad.

# %%
import math
import re
import sys
import time

import matplotlib.pyplot as plt
import torch
from torch import nn
from tqdm import tqdm

from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import pick_device, pick_scale
from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.gpt import GPT, PLAYHOUSE, GPTConfig, load_pretrained
from chargpt_lib.playhouse import GrammarWriter, scene, weighted_options
from chargpt_lib.plots import heatmap, show, visible
from chargpt_lib.training import evaluate, load_or_fit

# %%
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
# True: your own model of lesson 06 writes; its training takes two minutes, once
TRAIN = False
CACHE_DIR = None  # or a folder that outlives the session: "/content/drive/MyDrive/chargpt", "/kaggle/working" (see RUNNING_ELSEWHERE.md)
corpus = load_corpus(CORPUS)
device = pick_device()
scale = pick_scale(device)  # 1 on a CPU: see lesson 00
RECORDED = CORPUS == "playhouse" and not TRAIN

# %% [markdown]
# The model is the one that comes with the course (lesson 06), the same on every machine. With `TRAIN = True` the page uses a model of yours, and the text's remarks on the numbers need not hold.

# %%
if RECORDED:
    model, tokenizer, result = load_pretrained("playhouse")
    model.to(device)
    print(f"recorded on {result['date']}, after {result['steps']:,} steps of training")
else:
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    torch.manual_seed(1337)
    model = GPT(GPTConfig.cpu(tokenizer.vocab_size, **PLAYHOUSE)).to(device)
    result = load_or_fit(
        "GPT", model, corpus, steps=2800, batch_size=6 * scale, lr=5e-3, cache_dir=CACHE_DIR
    )
print(f"exact loss {result['loss']:.3f} nats per character")

# %%
assert result["loss"] < 2.5 and not model.training
OPENING = "A barn. Enter Meg and Hal with a damp goose.\n"
OPENING = OPENING if corpus.name == "playhouse" else corpus.val[: len(OPENING)]

# %% [markdown]
# ## A draw
#
# The scene is set, and Hal begins to speak. Which character comes next? Here are the model's logits $z$, turned into probabilities, $p_i = e^{z_i} / \sum_j e^{z_j}$, the largest first.

# %%
with torch.no_grad():
    logits, _ = model(tokenizer.encode(OPENING + "Hal: ").to(device)[None])
logits = logits[:, -1].cpu().double()  # (1, V)
probabilities = logits.softmax(-1)[0]  # (V,)
ordered, ids = probabilities.sort(descending=True)

fig, ax = plt.subplots(figsize=(8, 1.6), layout="constrained")
for i, (p, start) in enumerate(zip(ordered[:8], ordered.cumsum(0) - ordered)):
    ax.barh(0, p, left=start, color=("#E69F00", "#56B4E9")[i % 2], edgecolor="white")
    label = visible(tokenizer.decode(ids[i : i + 1]))[0] if p > 0.02 else ""
    ax.text(start + p / 2, 0, label, ha="center", va="center", family="DejaVu Sans Mono")
ax.axvline(0.7, color="black", linewidth=2.5, label="a draw: 0.7")
ax.set(xlabel="probability, laid end to end", yticks=[], xlim=(0, 1), title="After 'Hal: '")
fig.legend(loc="outside right upper", frameon=False)
show(
    fig,
    "Intervals of different width, one for each character, laid end to end from 0 to 1; a line at 0.7 falls into "
    "one of them.",
)

# %% [markdown]
# Lay the probabilities end to end. They fill the interval from 0 to 1. Draw a number between 0 and 1, and write the character in whose interval it falls.
#
# In code, the cumulative sum says where each interval ends. The number of ends at or below the number drawn is the id of the character (lesson 06's exercise drew in the same way). Rounding is a trap: the sum may come out slightly above or below 1. So the code multiplies the number drawn by the last end, and never counts an end that equals the last one; then even a draw of 1 hits the last possible character.

# %%
#| export
from copy import deepcopy
from inspect import signature
from math import ceil, inf

import torch
from torch.nn import functional as F


def sample_from(probabilities, u):
    """Draws an id from each row: probabilities (B, V), u (B,) uniform from 0 to 1 -> ids (B,).

    Never an id of probability 0, even where u is 1 or the sum is a little off 1.
    """
    ends = probabilities.cumsum(-1)  # (B, V): where the interval of each id ends
    total = ends[:, -1:]  # about 1
    return ((ends <= u[:, None] * total) & (ends < total)).sum(-1)

# %% [markdown]
# Make ten thousand draws, evenly spread. Does each character get its share?

# %%
three = torch.tensor([[0.5, 0.0, 0.2, 0.3, 0.0]], dtype=torch.float64)
even = (torch.arange(10_000) + 0.5) / 10_000
counts = torch.bincount(sample_from(three.expand(10_000, -1), even.double()), minlength=5)
print("share of the draws:", [count / 10_000 for count in counts.tolist()])
edges = [sample_from(three, torch.tensor([u]).double()).item() for u in (0.0, 0.5, 1.0)]
print("ids drawn by 0, 0.5 and 1:", edges)

# %% [markdown]
# ## Temperature
#
# Divide the logits by a number $\tau$ before the softmax: $p_i \propto e^{z_i / \tau}$. Small $\tau$ stretches the differences, large $\tau$ flattens them. **Predict:** what is left of the differences as $\tau \to \infty$? And as $\tau \to 0$?

# %%
fig, axes = plt.subplots(1, 4, figsize=(10, 2.4), layout="constrained", sharey=True)
for ax, temperature in zip(axes, (0.5, 1.0, 1.5, 5.0)):
    p = (logits / temperature).softmax(-1)[0]
    ax.bar(range(12), p[ids[:12]], color="#0072B2")
    ax.set_xticks(range(12), visible(tokenizer.decode(ids[:12])), family="DejaVu Sans Mono")
    entropy = torch.special.entr(p).sum()
    ax.set_title(f"τ = {temperature}: H = {entropy:.2f} nats", fontsize=10)
axes[0].set(ylabel="probability", yscale="log", ylim=(1e-7, 1))
show(
    fig,
    "Four bar charts of the twelve likeliest characters on a logarithmic scale: five tall bars and a tail, which "
    "is tiny at temperature 0.5 and rises until it nearly reaches the five; above each chart its entropy.",
)

# %% [markdown]
# As $\tau \to 0$ the likeliest character takes all: *greedy* decoding. As $\tau \to \infty$ all are equal, and the model might as well not have been trained. The number above each chart is the entropy of the distribution (lesson 00),
#
# $$H(\tau) = -\sum_i p_i(\tau) \ln p_i(\tau), \qquad p_i(\tau) = \frac{e^{z_i/\tau}}{\sum_j e^{z_j/\tau}}.$$
#
# It never falls as $\tau$ rises: its derivative is $\mathrm{Var}(z)/\tau^3$, with the variance of the logits under $p(\tau)$. Its limit is $\ln V$, the entropy of a uniform choice. Now take the mean over all positions of a text. **Predict:** at $\tau = 1$, which is larger, this mean entropy or the loss on the same text? And at which $\tau$ is the loss smallest?

# %%
V = tokenizer.vocab_size
text_ids = tokenizer.encode(corpus.val[:4000]).to(device)
with torch.no_grad():
    pieces = [model(piece[None])[0][0] for piece in text_ids[:-1].split(model.block_size)]
all_logits = torch.cat(pieces).cpu().double()  # (3999, V)
targets = text_ids[1:].cpu()  # (3999,)


def mean_entropy(temperature):
    """The mean over all positions of the next character's entropy, in nats."""
    p = (all_logits / temperature).softmax(-1)
    return torch.special.entr(p).sum(-1).mean().item()


def mean_loss(temperature):
    return F.cross_entropy(all_logits / temperature, targets).item()


best = min(torch.arange(0.5, 2, 0.01).tolist(), key=mean_loss)
print(f"temperature 1: entropy ≈ {mean_entropy(1):.3f}, loss ≈ {mean_loss(1):.3f} nats")
print(f"the loss is smallest at temperature ≈ {best:.2f}; ln V = {math.log(V):.3f}")

# %%
temperatures = [2 ** (step / 4) for step in range(-8, 17)]
entropies = [mean_entropy(temperature) for temperature in temperatures]
losses = [mean_loss(temperature) for temperature in temperatures]
fig, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
ax.plot(temperatures, entropies, color="#0072B2", label="mean entropy")
ax.plot(temperatures, losses, "--", color="#D55E00", label="loss")
ax.axhline(math.log(V), color="#009E73", linestyle=":", label="ln V: a uniform choice")
ax.set(xscale="log", yscale="log", xlabel="temperature", ylabel="nats per character")
ax.set_xticks([0.25, 0.5, 1, 2, 4, 8, 16], ["0.25", "0.5", "1", "2", "4", "8", "16"])
ax.set_yticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
ax.minorticks_off()
ax.set_title("What the model expects to lose, and what it loses")
ax.legend(frameon=False)
show(
    fig,
    "Two curves over temperature from 0.25 to 16: the entropy rises all the way to ln V; the loss falls, meets the "
    "entropy at its own minimum near temperature 1, and rises to the same limit.",
)

# %% [markdown]
# The entropy is the loss that the model *expects*. Left of the crossing the model is overconfident: the text surprises it more than it expects. The curves cross exactly where the loss is smallest. Write $\beta$ for $1/\tau$, and $Z = \sum_j e^{\beta z_j}$ for the sum that softmax divides by, so that $p_i = e^{\beta z_i} / Z$. Then the loss is the mean of $\ln Z - \beta z_y$, where $y$ is the character that came, and its derivative in $\beta$ is the mean of $\sum_i p_i z_i - z_y$. Where this is 0, the loss equals the mean of $\ln Z - \beta \sum_i p_i z_i$, the entropy. If that happens at $\tau = 1$, the model is *calibrated* in this sense.

# %% [markdown]
# ### Exercise: the temperature for a ratio
# ★ · 5 minutes · "Temperature 0.8" says little; its effect on the two likeliest characters says more.
#
# A model gave the probabilities $p$ at temperature 1. At which temperature $\tau$ has the likeliest character exactly `r` times the probability of the second likeliest? **Predict** first: if the likeliest is twice as likely as the second, and should be four times as likely, is $\tau$ above 1 or below? The other characters do not matter, though their probabilities change too. For $p = (0.3, 0.6, 0.1)$ and `r` = 4 the answer is 0.5.

# %% tags=["exercise"] exercise="odds_temperature"
def odds_temperature(p, r):
    """p (V,) sums to 1, all above 0, V >= 2, in any order, one is the largest; r > 1 -> float: the temperature."""
    ### BEGIN SOLUTION
    first, second = p.topk(2).values.tolist()
    return math.log(first / second) / math.log(r)
    ### END SOLUTION

# %%
check("odds_temperature", odds_temperature)

# %% [markdown]
# Dividing logits by $\tau$ raises a ratio of probabilities to the power $1/\tau$. The third character is at 0.1, a sixth of the likeliest. **Predict** the ratio of these two at $\tau = 0.5$, and at $\tau = 2$.

# %%
p = torch.tensor([0.3, 0.6, 0.1])
for temperature in (0.5, 1.0, 2.0):
    _, first, third = (p.log() / temperature).softmax(-1).tolist()
    print(f"temperature {temperature}: {first / third:.1f}")

# %% [markdown]
# ## Top-k, top-p, min-p
#
# The four charts are logarithmic, to show the tail: the characters that are wrong here. At temperature 1 a draw rarely falls there; at high temperatures it often does, and one wrong letter spoils the rest. So cut off the tail. There are three ways to say where:
#
# - **top-k** (Fan et al., 2018): keep the $k$ likeliest. This is simple, and blind: sometimes one character is right, sometimes sixteen are.
# - **top-p** or *nucleus* (Holtzman et al., 2020): keep the fewest of the likeliest that together hold the share `top_p` of the probability.
# - **min-p** (Nguyen et al., 2024): keep those that have at least `min_p` times the probability of the likeliest.

# %%
#| export
def next_token_probs(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """logits (B, V) -> the probabilities (B, V) to draw from, after temperature, top_k, top_p and min_p, in this order.

    temperature: 0 puts all on the largest logit, the first of equals. top_k: keeps the k likeliest, and all that equal
    the k-th. top_p: keeps the fewest that hold this share; among equals, smaller ids come first (Holtzman et al., 2020).
    min_p: keeps those with at least this share of the largest probability (Nguyen et al., 2024).
    """
    if temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    # Subtract the largest logit before the division: then nothing overflows, however small the temperature.
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if top_k is not None:
        smallest = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    p = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        ordered, ids = p.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered  # the sum of all that are likelier
        dropped = before >= top_p  # in sorted order
        back = ids.argsort(-1)  # the place of each id in the sorted order
        p = p.masked_fill(dropped.gather(-1, back), 0)
    if min_p is not None:
        p = p.masked_fill(p < min_p * p.amax(-1, keepdim=True), 0)
    return p / p.sum(-1, keepdim=True)

# %% [markdown]
# The lines of top-p deserve a slow look. Here they are on five symbols, with `top_p = 0.7`. **Predict:** which symbols stay?

# %%
def top_p_steps(p, top_p):
    """The lines of top-p: p (V,) -> {code: its value}."""
    ordered, ids = p.sort(descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    dropped = before >= top_p
    back = ids.argsort()
    steps = {"p": p, "ordered": ordered, "ids": ids, "before": before, "dropped": dropped}
    return {**steps, "back": back, "dropped.gather(-1, back)": dropped.gather(-1, back)}


for code, values in top_p_steps(torch.tensor([0.05, 0.40, 0.10, 0.25, 0.20]), 0.7).items():
    print(f"{code:26}", *[f"{round(value, 2):<5}" for value in values.tolist()])

# %% [markdown]
# - `sort` orders the probabilities; `ids` says whose they are. Symbol 1 is the likeliest.
# - `before` is the sum of all that are likelier. Symbols 1 and 3 hold 0.65, less than 0.7, so symbol 4 is still needed. Symbol 2 is not: the three hold 0.85.
# - `dropped` stands in sorted order. To return to the order of the alphabet, `ids.argsort()` inverts the sorting: `back[i]` is the place of symbol `i` in the sorted order. Symbol 0 stands at place 4.
# - `gather` reads at these places: its entry `i` is `dropped[back[i]]`, the decision about symbol `i`.
#
# Now see what each rule keeps at a sure place and at an open one. **Predict:** which rule keeps the same number at both?

# %%
sure = torch.tensor([[0.90, 0.06, 0.02, 0.01, 0.01]])
open_ = torch.tensor([[0.25, 0.22, 0.20, 0.18, 0.15]])
for name, value in (("top_k", 2), ("top_p", 0.8), ("min_p", 0.5)):
    left = [(next_token_probs(p.log(), **{name: value}) > 0).sum().item() for p in (sure, open_)]
    print(f"{name} = {value}: keeps {left[0]} at the sure place, {left[1]} at the open one")

# %%
fig, axes = plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained", sharey=True)
for ax, rule in zip(axes, ({"top_k": 3}, {"top_p": 0.8}, {"min_p": 0.3})):
    left = next_token_probs(logits, 1.5, **rule)[0, ids[:16]]
    ax.bar(range(16), (logits / 1.5).softmax(-1)[0, ids[:16]], color="#BBBBBB", label="before")
    ax.bar(range(16), left, width=0.4, color="#0072B2", label="after")
    ax.set_xticks(
        range(16), visible(tokenizer.decode(ids[:16])), family="DejaVu Sans Mono", fontsize=8
    )
    ax.set_title(", ".join(f"{name} = {value}" for name, value in rule.items()), fontsize=10)
axes[0].set(ylabel="probability at temperature 1.5", yscale="log", ylim=(1e-4, 1))
axes[0].legend(frameon=False)
show(
    fig,
    "Three bar charts at temperature 1.5, on a logarithmic scale: each rule keeps some characters on the left, "
    "whose bars grow a little, and drops the rest, including the tail.",
)

# %% [markdown]
# All three rules drop the tail. What else they drop depends on the place: a number or a share that fits one place cuts off correct characters at another.
#
# OpenAI's samples of GPT-2 used `top_k=40`, and nanoGPT's default is 200, both for a vocabulary of 50,257 tokens. For 65 characters `top_k=200` does nothing. And 40? The probability outside the 40 likeliest is the share of draws that `top_k=40` changes. **Predict** its mean at temperature 1.

# %%
for temperature in (1.0, 2.0):
    ordered_p = (all_logits / temperature).softmax(-1).sort(descending=True).values
    outside = ordered_p[:, 40:].sum(-1)  # (3999,)
    share = outside.mean().item()
    effect = "next to nothing" if share < 0.001 else "something"
    print(
        f"temperature {temperature}: all but the likeliest 40 of {V} hold ≈ {share:.3%},", end=" "
    )
    print(f"at most ≈ {outside.max():.1%}; top_k=40 changes {effect}")

# %% [markdown]
# ### Exercise: typical, not likely
# ★★ · 8 minutes · People do not always write the likeliest word; a text of likeliest words soon runs in circles (Meister et al., 2023).
#
# The expected surprise of a character is the entropy $H$. A *typical* character surprises about as much as expected. So sort the characters by $|-\ln p_c - H|$, the smallest first; equals stay in the order of the alphabet. Keep the fewest from the beginning that together hold at least `share`, give all others 0, and divide the kept probabilities by their sum.
#
# For $p = (0.6, 0.2, 0.1, 0.1)$ the entropy is 1.089, and the surprises are 0.511, 1.609, 2.303 and 2.303. Their distances from the entropy are 0.578, 0.521, 1.214 and 1.214. So character 1 comes first, before the likeliest, then 0, 2 and 3. With `share` = 0.15 only character 1 is kept: $(0, 1, 0, 0)$. With 0.5 it is $(0.75, 0.25, 0, 0)$, with 0.85 it is $(0.667, 0.222, 0.111, 0)$. A character of probability 0 adds nothing to the entropy, and is never kept.

# %% tags=["exercise"] exercise="typical_probabilities"
def typical_probabilities(p, share):
    """p (V,) sums to 1, 0 < share < 1 -> (V,), in the dtype of p: the kept divided by their sum, else 0.

    No sum of probabilities from the beginning is exactly `share`.
    """
    ### BEGIN SOLUTION
    surprise = -p.log()
    order = (surprise - torch.special.entr(p).sum()).abs().argsort(stable=True)
    before = p[order].cumsum(0) - p[order]
    kept = torch.zeros_like(p)
    kept[order[before < share]] = 1
    return kept * p / (kept * p).sum()
    ### END SOLUTION

# %%
check("typical_probabilities", typical_probabilities)

# %% [markdown]
# For which values of `share` is the likeliest character dropped? Here is one model that is sure, and one that is not.

# %%
for p in (torch.tensor([0.9, 0.05, 0.03, 0.02]), torch.tensor([0.4, 0.3, 0.2, 0.1])):
    distances = (-p.log() - torch.special.entr(p).sum()).abs()
    print(
        [f"{distance:.2f}" for distance in distances.tolist()],
        "in order:",
        distances.argsort().tolist(),
    )

# %% [markdown]
# For the sure model, the likeliest character is the most typical. The other drops it up to a share of 0.5.

# %% [markdown]
# ## Repetition penalty
#
# The *repetition penalty* (Keskar et al., 2019) makes every symbol rarer that has occurred: it divides a positive logit by the penalty, and multiplies a negative one by it. It was made for *subwords*, pieces of words, of which a vocabulary has tens of thousands. **Predict:** what will it do to a model of characters?

# %%
#| export
def apply_repetition_penalty(logits, seen, penalty):
    """Makes seen ids rarer (Keskar et al., 2019): logits (B, V), seen (B, V) bool -> logits (B, V).

    Positive logits are divided by the penalty, negative ones multiplied.
    """
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)

# %%
used = torch.tensor([[2.0, -2.0, 0.5]])
seen = torch.tensor([[True, True, False]])
print(apply_repetition_penalty(used, seen, 2.0))

# %% [markdown]
# Add 3 to all logits, and the softmax gives the same probabilities. **Predict:** does the penalty give the same ones, too?

# %%
for shift in (0, 3):
    moved = used + shift
    before, after = moved.softmax(-1), apply_repetition_penalty(moved, seen, 2.0).softmax(-1)
    print(
        [round(p, 3) for p in before[0].tolist()],
        "becomes",
        [round(p, 3) for p in after[0].tolist()],
    )

# %% [markdown]
# The probabilities are the same, and the results differ: the result depends on where the zero of the logits happens to be, and nothing in training ever fixed that. Besides, after a few lines nearly every letter has occurred. Then the penalty no longer depends on the symbol: it divides the positive logits of all likely characters by the same number, just as a higher temperature does.
#
# ## The KV cache
#
# The loop of lesson 01 gives the model the whole text for each new character. The model computes everything anew, embeddings, queries, keys and values at all places, and the loop uses only the last row of the result.
#
# Count the multiplications. Let $P$ be the number of weights in all matrices: each of the $t$ rows of a text is multiplied with all of them. A query and a key cost $a = 2 N C$ more in $N$ blocks of width $C$: $C$ for the score, $C$ for the value. (A kernel that skips the future needs half of them.) Without a cache, a text of $T$ characters costs
#
# $$\sum_{t=1}^{T} (t P + t^2 a) \approx \frac{T^2}{2} P + \frac{T^3}{3} a.$$

# %%
torch.manual_seed(1337)
config = GPTConfig(V, block_size=256, n_layer=4, n_embd=256, n_head=4)
large = GPT(config).to(device).eval()
noise = torch.randint(V, (1, 256), device=device)
P = sum(layer.weight.numel() for layer in large.modules() if isinstance(layer, nn.Linear))
a = 2 * config.n_layer * config.n_embd
print(f"P = {P:,} weights, a = {a:,}; a pass over 256 characters: {256 * P + 256**2 * a:,}")

# %% [markdown]
# How much of this work is new? Write one more character, and compare the old places' keys in the last block before and after.

# %%
def keys_of(model, ids, layer):
    """The keys that a block makes of a text: (T, C)."""
    got = []
    hook = model.blocks[layer].attention.qkv.register_forward_hook(
        lambda part, inputs, out: got.append(out)
    )
    with torch.no_grad():
        model(ids)
    hook.remove()
    return got[0][0].chunk(3, -1)[1]


shorter, longer = keys_of(model, noise[:, :20], 3), keys_of(model, noise[:, :21], 3)
change = (shorter - longer[:20]).abs().max()
print(f"the 20 old keys have changed by ≈ {change:.0e}; new keys: {len(longer) - 20}")
assert torch.allclose(shorter, longer[:20], atol=1e-5)

# %% [markdown]
# No place sees the future (lesson 03). So place 20 cannot change a vector at place 19, in any layer: not its key, not its value. Keys and values can be stored, in a **KV cache**. The query of place 19 was needed once, when place 19 was the newest, and is never needed again.
#
# In the picture each field is a score, query times key, for a text of 8 characters. The dark fields have to be computed for the last character; the pale ones were computed for the earlier characters.

# %%
fig, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
for ax, title, first in zip(axes, ("without a cache", "with it"), (0, 7)):
    work = (
        torch.ones(8, 8).tril() * (torch.arange(8)[:, None] >= first)
        + 0.4 * torch.ones(8, 8).tril()
    )
    ax.imshow(work.clamp(max=1).numpy(), cmap="Blues", vmin=0, vmax=1.2)
    ax.set(
        title=title,
        xlabel="key and value of place",
        ylabel="query of place",
        xticks=range(8),
        yticks=range(8),
    )
    ax.text(
        5, 1, f"new keys:\n{'only 7' if first else '0 to 7'}", ha="center", va="center", fontsize=9
    )
show(
    fig,
    "Two triangles of 8 by 8 fields: without a cache all are dark, and all keys are new; with it only the lowest "
    "row is dark, and one key is new.",
)

# %% [markdown]
# So for a new character each block computes one query, one key and one value, and the query looks at all keys in the cache. Instead of $t$ rows, a single row goes through every matrix. With the cache, a text of $T$ characters costs
#
# $$\sum_{t=1}^{T} (P + t a) \approx T P + \frac{T^2}{2} a.$$
#
# **Predict:** while $T a$ is small beside $P$, what is the ratio of the two costs? A text twice as long costs how many times as much without the cache, and with it?
#
# ## Batched prompts: left padding
#
# Rows of different length do not make a tensor. So short rows get empty places in front, *pads*; all rows end at the same column, and the next character of each row goes into the next column.

# %%
prompts = ("Hal: O", "O", "Exit")
N = max(map(len, prompts))
pads = [N - len(text) for text in prompts]
cells = [
    pad * [""] + [f"{char}\nplace {place}" for place, char in enumerate(visible(text))]
    for pad, text in zip(pads, prompts)
]
fig, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
heatmap(ax, torch.tensor([pad * [0.0] + (N - pad) * [0.9] for pad in pads]), pads, range(N), cells)
ax.set(
    xlabel="column",
    ylabel="pads",
    title="Three prompts; the next character of each goes into column 6",
)
show(
    fig,
    "Three rows of six fields, filled from the right with six characters, one, and four; below each character "
    "stands its place, counted from 0 at the first character of the row.",
)

# %% [markdown]
# A row must not look at its pads (the mask forbids it) or count them as places (its positions begin after them). Then each row is written as if it were alone. Here is the cache:

# %%
#| export
class KVCache:
    """The keys and values of what a model has read so far.

    max_length: how many columns fit, the model's block_size. pads (B,) int64: how many empty columns each row begins
    with; None where no row has any. A forward pass calls `extend` once, then `update` in each attention layer.
    """

    slides = False  # True for a cache that stays right when the window moves (lesson 16 has one)

    def __init__(self, max_length, pads=None):
        self.max_length = max_length
        self.pads = pads
        self.length = 0  # columns so far, including those of the current pass
        self.start = 0  # the first column of the current pass
        self.mask = None  # the columns that each new position may see; None: all up to itself
        self.layers = {}  # {attention layer: (keys, values)}, each (B, H, max_length, head_size)
        self.last_ids = None  # the ids read last, for a model that needs them (lesson 16)

    def extend(self, T, device=None):
        """Makes room for T more columns -> their positions, (T,), or (B, T) where rows have pads.

        Raises: ValueError where they do not fit.
        """
        if self.length + T > self.max_length:
            raise ValueError(
                f"the KV cache has no room: {self.length} of {self.max_length} positions used, "
                f"{T} more requested; start a new KVCache with the last part of the text"
            )
        self.start = self.length
        self.length += T
        rows = torch.arange(self.start, self.length, device=device)  # the new columns, as queries
        columns = torch.arange(self.length, device=device)  # all columns, as keys
        causal = columns <= rows[:, None]  # (T, length)
        if self.pads is None:
            # The kernel's own causal mask fits a text that begins here, and one query needs no mask.
            on_top = self.start > 0 and T > 1
            self.mask = causal if on_top else None
            return rows
        pads = self.pads[:, None]  # (B, 1)
        # A pad sees only itself: a softmax over no column at all would be nan.
        first = torch.minimum(pads, rows)  # (B, T): the first column that each query may see
        # (B, 1, T, length), for all heads
        self.mask = (causal & (columns >= first[..., None]))[:, None]
        return (rows - pads).clamp(min=0)

    def update(self, layer, k, v):
        """Adds a layer's new k and v, (B, H, T, head_size) -> all its keys, all its values, and the mask.

        Keys and values are (B, H, length, head_size); the mask is as the attribute.

        Raises: ValueError where `extend` has not made room for them.
        """
        B, H, T, head_size = k.shape
        if T != self.length - self.start:
            raise ValueError(
                f"got {T} new keys, but extend() made room for {self.length - self.start}: call "
                f"cache.extend once per forward pass, before the first layer"
            )
        if layer not in self.layers:
            # Allocated once, at full length: a tensor that grows is copied whole at every character.
            shape = (B, H, self.max_length, head_size)
            self.layers[layer] = k.new_empty(shape), v.new_empty(shape)
        keys, values = self.layers[layer]
        keys[:, :, self.start : self.length] = k
        values[:, :, self.start : self.length] = v
        return keys[:, :, : self.length], values[:, :, : self.length], self.mask

# %% [markdown]
# This is the purpose of the argument `cache` in earlier lessons. `GPT.embed` (lesson 06) calls `extend`: the new positions begin where the last pass ended. `CausalSelfAttention` (lesson 04) calls `update`: its new keys and values go in, and the queries look at all of them. The rest is the same forward pass, `model(idx, cache=cache)`.
#
# Which columns may a query see? A single new character may see all, so it needs no mask. A text that begins here needs the causal mask, which the kernel makes itself. Several characters on top of a cache need the mask that `extend` makes. In a row with pads, positions are counted from the first real character, and the mask forbids the columns before it.
#
# Read the opening at once, then three characters together, then eight one by one. Are the logits the same as in one pass over everything?

# %%
text = tokenizer.encode(OPENING + "Hal: The ow").to(device)[None]
N = len(OPENING)
sizes = [N, 3, *[1] * (text.shape[1] - N - 3)]
cache = KVCache(model.block_size)
with torch.no_grad():
    at_once, _ = model(text)
    pieces = [model(piece, cache=cache)[0] for piece in text.split(sizes, dim=1)]
difference = (torch.cat(pieces, 1) - at_once).abs().max()
print(f"largest difference of the logits, at all places: ≈ {difference:.0e}")
assert difference < 1e-4

# %%
keys, values = cache.layers[model.blocks[0].attention]
print("in the cache:", cache.length, "of", cache.max_length, "places")
print("keys of one block:", tuple(keys.shape), "and its values:", tuple(values.shape))

# %% [markdown]
# Now measure the time of each character, with the cache and without (only every eighth, because it takes long):

# %% tags=["nbval-ignore-output"]
cache = KVCache(large.block_size)
times = {"without": [], "with the cache": []}
with torch.no_grad():
    for t in tqdm(range(256), unit="character", mininterval=0.5, file=sys.stdout):
        if t % 8 == 0:
            start = time.perf_counter()
            large(noise[:, : t + 1])
            times["without"].append(1000 * (time.perf_counter() - start))
        start = time.perf_counter()
        large(noise[:, t : t + 1], cache=cache)
        times["with the cache"].append(1000 * (time.perf_counter() - start))

# %%
fig, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
ax.plot(range(0, 256, 8), times["without"], "o-", markersize=3, color="#D55E00", label="without")
ax.plot(range(256), times["with the cache"], color="#0072B2", label="with the cache")
ax.set(xlabel="characters before it", ylabel="milliseconds", ylim=(0, 1.2 * max(times["without"])))
ax.set_title("How long one character takes")
ax.legend(frameon=False)
show(
    fig,
    "Two curves: without the cache the time of a character rises with the length; with the cache it stays flat "
    "and low.",
)
late = sum(times["without"][-8:]) / 8 / (sum(times["with the cache"][-64:]) / 64)
assert late > 1.5 or device.type != "cpu"

# %% [markdown]
# The blue line's small teeth come from the measurement: every eighth character follows a pass over the whole text, which has pushed the weights out of the processor's fast memory. The sum under a curve is the time of the whole text. Set it beside the formulas:

# %%
def text_cost(T):
    """T characters -> multiplications without and with the cache, milliseconds without and with it."""
    without = sum(t * P + t**2 * a for t in range(1, T + 1))
    cached = sum(P + t * a for t in range(1, T + 1))
    return without, cached, 8 * sum(times["without"][: T // 8]), sum(times["with the cache"][:T])


for T in (32, 64, 128, 256):
    without, cached, slow, fast = text_cost(T)
    print(f"T = {T:3}: without the cache {without / cached:5.1f} times", end=" ")
    print(f"the multiplications, ≈ {slow / fast:.1f} times the time")
growth = [cost / half for cost, half in zip(text_cost(256), text_cost(128))]
print("from T = 128 to T = 256, without and with the cache:")
print(f"multiplications: {growth[0]:.1f} and {growth[1]:.1f} times as many")
print(f"time: ≈ {growth[2]:.1f} and ≈ {growth[3]:.1f} times as long")

# %% [markdown]
# The formula's ratio is about $T/2$. The clock counts more than multiplications: a single row has to fetch all $P$ weights from memory, just as 256 rows do (measured below, under *Faster on a CPU*).

# %% [markdown]
# ### Exercise: when the memory outgrows the model
# ★★ · 7 minutes · Serving a model to many readers at once is mostly a matter of where their caches go (Kwon et al., 2023).
#
# A model has `parameters` numbers of `weight_bytes` bytes each. It reads B texts at once, all of the same length, and stores keys and values of every character, in numbers of `cache_bytes` bytes. There are N blocks of width C. Each has H heads of queries, but only G heads of keys and values, of the same size; G divides H, and H divides C (lesson 04). What is the smallest length T at which the cache is *larger* than the weights?
#
# With 100 parameters of 4 bytes, B = 1, N = 1, C = 8, H = 4, G = 2 and 2 bytes in the cache, a character takes 16 bytes. At T = 25 the cache is as large as the weights, 400 bytes. So the answer is 26.

# %% tags=["exercise"] exercise="cache_outgrows_weights"
def cache_outgrows_weights(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    """All whole numbers -> int: the smallest T >= 1 at which the cache takes more bytes than the weights."""
    ### BEGIN SOLUTION
    one_character = 2 * B * N * G * (C // H) * cache_bytes
    return parameters * weight_bytes // one_character + 1
    ### END SOLUTION

# %%
check("cache_outgrows_weights", cache_outgrows_weights)

# %% [markdown]
# The small GPT-2 has 124,439,808 parameters, 12 blocks of width 768, 12 heads, and G = H. With numbers of 2 bytes, a symbol costs $2 \cdot 12 \cdot 768 \cdot 2 = 36{,}864$ bytes. A single text would have to be 6,752 symbols long, and GPT-2 sees only 1,024. But for seven texts at once, 965 symbols each are enough.

# %%
one_symbol = 2 * 12 * 768 * 2
for B in (1, 7):
    length = 124_439_808 * 2 // (B * one_symbol) + 1
    print(f"texts at once: {B}; the cache outgrows the weights at {length} symbols each")

# %% [markdown]
# ## Beyond `block_size`
#
# The block is full. The text goes on, and the model sees the last `block_size` characters: the oldest one drops out. **Predict:** how many of the keys in the cache are still right?

# %%
block = model.block_size
long = tokenizer.encode((corpus.val * 2)[: block + 1]).to(device)[None]
before, after = (keys_of(model, long[:, start : start + block], 0) for start in (0, 1))
same = torch.isclose(before[1:], after[:-1], atol=1e-5).all(-1)
print(f"all characters one place to the left: {same.sum()} of {block - 1} keys are the same")

# %% [markdown]
# None is. In this model a character's vector holds *where* it stands (lesson 03's position table), counted from the window's start. When the window moves, every place gets another number, and everything has to be computed anew. Relative positions, which say how far apart two places are, avoid this; it is one reason why newer models use them.
#
# Our model has two ways to go on. Move the window by one, and read it anew for each character: exact, and as slow as without a cache. Or let the window jump: drop `window_stride` characters at once, read the rest anew, and use the cache until the block is full again. After a jump the model sees less of the past, only `block_size - window_stride + 1` characters. Lesson 02's `evaluate` can measure the cost: its `stride` makes the same jumps.

# %% tags=["nbval-ignore-output"]
val_ids = tokenizer.encode(corpus.val[:20_000])
stride_losses = {}
for stride in tqdm((16, 48, 96, 192), unit="stride", mininterval=0.5, file=sys.stdout):
    stride_losses[stride] = evaluate(model, val_ids, stride=stride)
print("nats:", {stride: round(loss, 3) for stride, loss in stride_losses.items()})

# %%
half, whole = (stride_losses[stride] - stride_losses[16] for stride in (96, 192))
print(f"against jumps of 16: half a block costs {half:+.3f} nats, a whole block {whole:+.3f}")
assert stride_losses[96] < stride_losses[192] and stride_losses[16] < stride_losses[192]

# %% [markdown]
# Jumps of up to half a block cost next to nothing here, probably because half a block holds all the past that a scene needs. (Jumps of a whole block are disjoint windows: lesson 06's exact loss.) The default will be `window_stride=1`, the exact way: the same text as without a cache.
#
# Where does the window begin in a text of a given length? Take a block of 8 and `window_stride=3`:

# %%
print({length: ceil(max(0, length - 8) / 3) * 3 for length in range(6, 17)})

# %% [markdown]
# For 6 to 8 characters the window begins at 0, for the next three lengths at 3, and so on. While its beginning stays the same, only the new character has to be read; when the window moves, the cache is filled anew. That is all a decoder has to know.
#
# (A model may bring its own cache, by a method `make_cache`. Lesson 16 has a cache that `slides`: it stays right when the window moves, so its model reads each character once, however long the text becomes.)
#
# Not every model takes a cache: a bigram table has no keys. The rule is that a model takes a cache if its `compute_logits` has an argument `cache`. `generate` uses a cache for models that take one, reads the whole window anew for the others, and refuses `use_cache=True` where no cache is possible.

# %%
#| export
def _new_cache(model, pads=None):
    """An empty cache; of the model's own kind where its class has a `make_cache`."""
    if hasattr(model, "make_cache"):
        return model.make_cache(pads)
    return KVCache(model.block_size, pads)


def _takes_cache(model):
    """Whether a model takes a cache: whether its `compute_logits` has an argument `cache`."""
    forward = getattr(model, "compute_logits", model.forward)
    return "cache" in signature(forward).parameters


class IncrementalDecoder:
    """The logits of the next token, for rows of ids that grow.

    Where a row is longer than the model's block_size, the model's window moves by `window_stride` at a time.
    """

    def __init__(self, model, window_stride=1, use_cache=True):
        self.model = model
        self.window_stride = window_stride
        self.use_cache = use_cache
        self.slides = use_cache and _new_cache(model).slides
        self.starts = None  # the columns at which the windows in the cache begin
        self.cache = None

    @torch.no_grad()
    def __call__(self, ids, pads):
        """ids (B, N), pads (a list of B): how many empty columns each row begins with -> logits (B, V)."""
        N = ids.shape[1]
        starts = self.window_starts(N, pads)
        if not self.use_cache:
            return self.recompute(ids, starts)
        first = min(starts)
        if starts != self.starts:
            # A window has moved: its characters have new positions, and so all keys change.
            self.starts = starts
            self.cache = _new_cache(self.model, self.left_pads(starts, ids.device))
        new = ids[:, first + self.cache.length :]
        # One character is little work; autograd's notes on each tensor, which no_grad keeps, would cost visible time.
        with torch.inference_mode():
            # A sliding cache takes a prompt of any length, but the model reads at most one block at a time.
            for piece in new.split(self.model.block_size, dim=1):
                logits, _ = self.model(piece, cache=self.cache)
        if self.cache.length != N - first:
            raise ValueError(
                f"{type(self.model).__name__} accepts cache= but does not use it: pass it on "
                f"to `embed` and to the blocks, or call generate(use_cache=False)"
            )
        return logits[:, -1]

    def window_starts(self, N, pads):
        """The columns at which the windows begin when the rows end at column N: a list of B."""
        if self.slides:
            return list(pads)
        starts = []
        for pad in pads:
            too_many = max(0, N - pad - self.model.block_size)
            starts.append(pad + ceil(too_many / self.window_stride) * self.window_stride)
        return starts

    def left_pads(self, starts, device):
        """How many empty columns stand before each window, (B,); None where all begin at the same column."""
        first = min(starts)
        if max(starts) == first:
            return None
        return torch.tensor(starts, device=device) - first

    def recompute(self, ids, starts):
        """The logits without a cache: in one pass if all windows begin at the same column, else one by one."""
        if len(set(starts)) == 1:
            logits, _ = self.model(ids[:, starts[0] :])
            return logits[:, -1]
        rows = []
        for i, start in enumerate(starts):
            logits, _ = self.model(ids[i : i + 1, start:])
            rows.append(logits[:, -1])
        return torch.cat(rows)

# %% [markdown]
# ## The sampling loop
#
# Read, turn logits into probabilities, draw, append: that is the loop. It draws all random numbers before the first character, a separate list for each text, from the seed `seed + row`. So a text does not depend on its neighbours. (But 40 rows with `seed=1` and 40 with `seed=2` have 39 seeds in common: for more samples take a seed that is at least 40 away.)
#
# A model in training mode would write with dropout. To switch it to evaluation mode for a while is not safe: in a notebook, another thread may be training it, and would go on without dropout. So `generate` leaves such a model alone, and lets a copy write.

# %%
#| export
def _in_eval_mode(model):
    """The model itself if it is in evaluation mode, else a copy in evaluation mode: training must not be disturbed."""
    if any(part.training for part in model.modules()):
        return deepcopy(model).eval()
    return model


def _generate_ids(
    model, rows, steps, seed, sampling, repetition_penalty=None, window_stride=1, use_cache=True
):
    """Yields the next id of each row, (B,), on the CPU, `steps` times.

    rows: B tensors (T,) of ids, whose lengths may differ. Row i draws with the seed `seed + i`. sampling: the arguments
    of `next_token_probs`, a dict. Raises: FloatingPointError for logits that are not finite.
    """
    device = next(model.parameters()).device
    N = max(len(row) for row in rows)
    pads = [N - len(row) for row in rows]
    padded = [F.pad(row, (pad, steps)) for row, pad in zip(rows, pads)]
    ids = torch.stack(padded).to(device)  # (B, N + steps)
    seen = [torch.bincount(row, minlength=model.vocab_size) > 0 for row in rows]
    seen = torch.stack(seen)  # (B, V)
    draws = []
    for row in range(len(rows)):
        generator = torch.Generator().manual_seed(seed + row)
        draws.append(torch.rand(steps, generator=generator, dtype=torch.float64))
    draws = torch.stack(draws, dim=1)  # (steps, B)
    decoder = IncrementalDecoder(_in_eval_mode(model), window_stride, use_cache)
    for step in range(steps):
        # On the CPU and in float64, so that the same draws give the same text on every device.
        logits = decoder(ids[:, : N + step], pads).cpu().double()
        if not logits.max() < inf:  # true for nan as well
            raise FloatingPointError(
                f"the model produced {logits.max()} as a logit after {step} generated token(s): "
                f"do its weights contain nan or inf?"
            )
        if repetition_penalty is not None:
            logits = apply_repetition_penalty(logits, seen, repetition_penalty)
        new = sample_from(next_token_probs(logits, **sampling), draws[step])
        seen.scatter_(1, new[:, None], True)
        ids[:, N + step] = new
        yield new

# %% [markdown]
# Batches of prompts are where bugs live: wrong positions, wrong masks. Here is one head, reduced to the minimum: a position's vector is a row of the table `E` plus a row of the position table `P`, and this vector is query, key and value at once. The prompts get empty places in front, so that all end at the same place, and only the last position of each has a query. Does a prompt get the same vector alone and in company?

# %%
def last_vectors(E, P, prompts):
    """E (V, C), P (block_size, C), prompts: B tensors (T,) -> (B, C): the output at the last position of each."""
    N = max(len(prompt) for prompt in prompts)
    # (B, N), zeros in front
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    x = E[idx] + P[:N]  # (B, N, C)
    scores = x[:, -1:] @ x.mT / E.shape[1] ** 0.5  # (B, 1, N)
    scores = scores.masked_fill((idx == 0)[:, None], float("-inf"))
    return (scores.softmax(-1) @ x)[:, 0]


torch.manual_seed(1337)
E, places = torch.randn(5, 4), torch.randn(8, 4)
short, long = torch.tensor([2, 1]), torch.tensor([4, 1, 3, 3, 2])
company = last_vectors(E, places, [short, long])[0]
alone = last_vectors(E, places, [short])[0]
for name, vector in {"in company": company, "alone": alone}.items():
    print(f"{name:12}", [round(x, 2) for x in vector.tolist()])
print("the same" if torch.allclose(company, alone) else "not the same")

# %% [markdown]
# ### Exercise: two bugs in front
# ★★ · 8 minutes · The text that comes out is nearly right; that is why such bugs live for years.
#
# There are two bugs, one in the positions and one in the mask. If you fix only the positions, the cell above says "the same", for these prompts and for most others. Some prompts still get a wrong vector, the same wrong vector alone and in company, so this comparison cannot see it. Compare with the vector that you would compute for one prompt without any empty places. Every character of the alphabet may occur in a prompt, at any place.

# %% tags=["exercise"] exercise="mended_pads"
def mended_pads(E, P, prompts):
    """E (V, C), P (block_size, C), prompts: B int64 tensors (T,), 1 <= T <= block_size -> (B, C), as last_vectors."""
    ### BEGIN SOLUTION
    N = max(len(prompt) for prompt in prompts)
    pads = torch.tensor([N - len(prompt) for prompt in prompts])[:, None]  # (B, 1)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    places = torch.arange(N) - pads  # (B, N): each prompt counts from its own start
    x = E[idx] + P[places.clamp(min=0)]
    scores = x[:, -1:] @ x.mT / E.shape[1] ** 0.5
    # The mask goes by the place, not by the character.
    scores = scores.masked_fill((places < 0)[:, None], float("-inf"))
    return (scores.softmax(-1) @ x)[:, 0]
    ### END SOLUTION

# %%
check("mended_pads", mended_pads)

# %% [markdown]
# ## `generate`
#
# Ids in, ids out. Text in, text out, and then a row can end before the others, with one of the `stop` strings. With `stream=True` the pieces come one by one, as in a chat window.
#
# A stream decodes each id alone. A tokenizer for pieces of words (lesson 14) may cut a character in two: `é` has two bytes. `TextStream` (`chargpt_lib/text_stream.py`) then waits for the other half; it also finds a stop string that two pieces share.

# %%
#| export
from chargpt_lib.text_stream import TextStream


def _stream_texts(columns, texts, tokenizer, stop):
    """Yields the texts, then the list of new pieces for each column of ids (B,), until all texts have ended."""
    yield list(texts)
    streams = [TextStream(tokenizer, stop) for _ in texts]
    for column in columns:
        yield [stream.add(i) for stream, i in zip(streams, column.tolist())]
        if all(stream.ended for stream in streams):
            return
    rest = [stream.flush() for stream in streams]
    if any(rest):
        yield rest


def _stream_ids(columns, prompt):
    """Yields the prompt (B, T), then each column of ids as (B, 1), on the prompt's device."""
    yield prompt
    for column in columns:
        yield column[:, None].to(prompt.device)

# %% [markdown]
# If you press Ctrl-C (in a notebook: the square), the text written so far should not be lost. And `generate` checks all arguments before it spends any time (`chargpt_lib/sampling_checks.py`).

# %%
#| export
def _until_interrupted(pieces):
    """Yields all pieces, or those that came before Ctrl-C."""
    try:
        yield from pieces
    except KeyboardInterrupt:
        print("interrupted: this is what was written so far")

# %%
#| export
from chargpt_lib.sampling_checks import check_ids, check_sampling, encode_texts


def generate(
    model,
    prompt,
    max_new_tokens,
    temperature=1.0,
    top_k=None,
    top_p=None,
    min_p=None,
    repetition_penalty=None,
    stop=None,
    seed=None,
    stream=False,
    tokenizer=None,
    window_stride=1,
    use_cache=None,
):
    """Continues a prompt -> prompt and continuation: ids (B, T + max_new_tokens) for ids (B, T), texts for texts.

    temperature, top_k, top_p, min_p: see `next_token_probs`; repetition_penalty: see `apply_repetition_penalty`.
    stop: a text or several; a row ends with the first of them that it writes.
    seed: row i draws from a generator of its own, with seed + i; without a seed, torch's own generator chooses one.
    stream: returns an iterator over the prompt and each new piece, as it comes.
    tokenizer: for prompts of text; an empty prompt starts from a line end.
    window_stride: how far the window moves at a time when the text is longer than block_size. 1 is exact; more is
    faster, because the cache lives longer. On a CPU with several threads, so is a copy from `prepare_for_sampling`.
    use_cache: True or False; None: True if the model's `compute_logits` has an argument `cache`.

    The model is not changed: one in training mode is copied first. Ctrl-C returns the text so far.
    Raises: ValueError for a prompt or a number with which nothing can be written, before any time is spent.
    """
    check_sampling(
        model,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        window_stride=window_stride,
        seed=seed,
    )
    if use_cache and not _takes_cache(model):
        raise ValueError(
            f"{type(model).__name__} does not support a cache: add cache=None to compute_logits "
            f"and pass it on to the attention, or call generate(use_cache=False)"
        )
    if use_cache is None:
        use_cache = _takes_cache(model)
    if stop is None:
        stop = ()
    elif not isinstance(stop, (list, tuple)):
        stop = (stop,)
    as_ids = isinstance(prompt, torch.Tensor)
    if as_ids:
        check_ids(model, prompt, stop)
        rows = list(prompt.cpu())
    else:
        texts = [prompt] if isinstance(prompt, str) else prompt
        rows = encode_texts(model, texts, tokenizer, stop, stream)
    if seed is None:
        seed = torch.randint(2**31, ()).item()
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    columns = _generate_ids(
        model, rows, max_new_tokens, seed, sampling, repetition_penalty, window_stride, use_cache
    )
    if as_ids:
        pieces = _stream_ids(columns, prompt)
        return pieces if stream else torch.cat(list(_until_interrupted(pieces)), dim=1)
    pieces = _stream_texts(columns, texts, tokenizer, stop)
    if stream:
        return (piece for (piece,) in pieces)
    written = ["".join(parts) for parts in zip(*_until_interrupted(pieces))]
    return written[0] if isinstance(prompt, str) else written

# %% [markdown]
# Arguments with which nothing can be written:

# %%
for wrong in ({"top_p": 90}, {"temperature": -1}, {"window_stride": 0}):
    try:
        generate(model, OPENING, 5, tokenizer=tokenizer, **wrong)
    except ValueError as error:
        print(error)

# %% [markdown]
# The first promise is that the cache changes nothing. Test it with greedy and with random draws, inside the block and far beyond it:

# %%
for temperature in (0, 1):
    how = {"temperature": temperature, "seed": 3, "tokenizer": tokenizer}
    with_cache = generate(model, OPENING, 250, use_cache=True, **how)
    without = generate(model, OPENING, 250, use_cache=False, **how)
    same = sum(one == other for one, other in zip(with_cache, without))
    print(f"temperature {temperature}: {same} of {len(without)} characters are the same")

# %% [markdown]
# The second promise is that each row of a list is written as if it were alone, and that its window moves when its own text is long enough.

# %%
prompts = [OPENING, "\n", "O "]
together = generate(model, prompts, 200, seed=7, tokenizer=tokenizer)
alone = [
    generate(model, text, 200, seed=7 + row, tokenizer=tokenizer)
    for row, text in enumerate(prompts)
]
for text, one in zip(together, alone):
    same = sum(a == b for a, b in zip(text, one))
    print(f"{same} of {len(one)} characters are the same")

# %% [markdown]
# Here is a scene, piece by piece, to its end:

# %% tags=["nbval-ignore-output"]
streamed = ""
for piece in generate(model, OPENING, 400, seed=5, stop="\n\n", stream=True, tokenizer=tokenizer):
    print(piece, end="", flush=True)
    streamed += piece

# %%
assert streamed.startswith(OPENING)
assert streamed.count("\n\n") <= OPENING.count("\n\n") + 1

# %% [markdown]
# How much time does the cache save? Measure it inside the block, and far beyond it, where with `window_stride=1` the window moves at every character:

# %% tags=["nbval-ignore-output"]
def seconds(steps, **how):
    """The shortest of three tries."""
    tries = []
    for _ in range(3):
        start = time.perf_counter()
        generate(model, OPENING, steps, seed=1, tokenizer=tokenizer, **how)
        tries.append(time.perf_counter() - start)
    return min(tries)


took = {}
for steps in (140, 400):
    took[steps] = seconds(steps, use_cache=False), seconds(steps), seconds(steps, window_stride=96)
    without, cached, jumping = took[steps]
    print(f"{steps} characters: {without:.2f} s without, {cached:.2f} s with the cache,", end=" ")
    print(f"{jumping:.2f} s with window_stride=96")

# %%
print(f"inside the block: ≈ {took[140][0] / took[140][1]:.1f} times as fast with the cache")
assert took[140][1] < took[140][0] or device.type != "cpu"

# %% [markdown]
# Beyond the block, `window_stride=1` loses most of the gain, because for nearly every character the whole window is read anew. `window_stride=96` keeps the gain, but after a jump the model knows less of the past: it writes another text, slightly worse (above).

# %% [markdown]
# ## Scoring samples with the grammar
#
# Three scenes from the same opening, at three temperatures, for a taste; then we count.

# %% tags=["nbval-ignore-output"]
moods = {
    temperature: generate(
        model, OPENING, 140, temperature, seed=5, stop="\n\n", tokenizer=tokenizer
    )
    for temperature in (0, 0.7, 1.6)
}
for temperature, text in moods.items():
    print(f"--- temperature {temperature}\n{text[len(OPENING) :].strip()}")

# %%
assert len(set(moods.values())) == 3

# %% [markdown]
# For most texts nobody can say how good a sample is. For ours the grammar that wrote the corpus can ([Playhouse](appendix/playhouse.ipynb)). Its rules call `writer.choose(...)` for every choice and `writer.emit(...)` for what follows from it; `weighted_options` makes a table of the options of a choice: the word, how many of its letters are needed to tell it from the others, and what it costs in nats. Here are three options, the first of them twice as likely as each other one:

# %%
print(
    [
        (word, letters, round(nats, 2))
        for word, letters, nats in weighted_options(("goose", 2), "goblet", "egg")[0]
    ]
)

# %% [markdown]
# So give the rules a writer that *reads*: it finds out which option the text has taken, and what this option costs. If no option fits, the text is not *grammatical*: the grammar could not have written it.

# %%
class Proofreader(GrammarWriter):  # follows a text; ValueError at the first broken rule
    def __init__(self, text):
        self.text, self.parts, self.spans, self.length = text, [], [], 0

    def emit(self, text, kind="spelling", nats=0.0):
        if not self.text.startswith(text, self.length):
            raise ValueError(f"not {self.text[self.length : self.length + 8]!r}, but {text!r}")
        super().emit(text, kind, nats)

    def choose(self, kind, *options):
        for word, _, nats in weighted_options(*options)[0]:
            if self.text.startswith(word, self.length):
                self.emit(word, kind, nats)
                return word
        raise ValueError(
            f"{self.text[self.length :][:8]!r} is none of {len(options)} options, such as {word!r}"
        )

# %%
def price(play):
    """A scene -> (its cost in nats under the grammar, None), or (None, its first error)."""
    writer = Proofreader(play)
    try:
        scene(writer)
        if writer.length < len(play):
            raise ValueError(f"it goes on after the end: {play[writer.length :][:8]!r}")
    except ValueError as error:
        return None, str(error)
    return sum(span.nats for span in writer.spans), None

# %%
right = "A barn. Enter Meg and Hal with a damp goose.\nHal: O brave goose!\nExeunt, blaming the goose.\n\n"
for play in (
    right,
    right.replace("O brave goose", "O brave egg"),
    right.replace("Hal: O", "Zed: O"),
):
    nats, wrong = price(play)
    print(f"{nats / len(play):.3f} nats a character" if nats else f"against the rules: {wrong}")
if corpus.name == "playhouse":  # a test of the judge itself
    right_ones = [price(play + "\n\n")[1] is None for play in corpus.val.split("\n\n")[:60]]
    print(f"scenes of the corpus: {sum(right_ones)} of 60 are grammatical")

# %% [markdown]
# Now write sixty scenes with each setting. How many come to an end? How many of those could the grammar have written? And how varied are the sixty: how many different words of the language do they use, compared with sixty scenes of the corpus? (**Predict** the variety at temperature 0. All sixty begin alike.)

# %%
def words_of(plays):
    return [word for play in plays for word in re.findall("[A-Za-z]+", play)]


known = set(words_of([corpus.train]))
usual = len(set(words_of(corpus.val.split("\n\n")[:60])))

# %%
def judge(**sampling):
    """Writes sixty scenes -> how many end, how many of these are grammatical, errors, variety, share of real words."""
    sampling = {"window_stride": 96, "tokenizer": tokenizer, **sampling}
    plays = generate(model, ["\n\n"] * 60, 250, seed=1, stop="\n\n", **sampling)
    ended = [play[2:] for play in plays if play.endswith("\n\n", 2)]
    errors = [error for _, error in map(price, ended) if error]
    words = words_of(plays)
    return {
        "ended": len(ended),
        "grammatical": len(ended) - len(errors),
        "wrong": errors,
        "variety": len(set(words) & known) / usual,
        "words": sum(word in known for word in words) / len(words),
    }

# %% tags=["nbval-ignore-output"]
settings = [{"temperature": t} for t in (0, 0.4, 0.7, 1.0, 1.3, 1.6)]
settings += [{"temperature": 1.3, **cut} for cut in ({"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1})]
settings += [{"temperature": 1.0, "repetition_penalty": 1.2}]
verdicts = []
for setting in tqdm(settings, unit="setting", mininterval=0.5, file=sys.stdout):
    verdicts.append(judge(**setting))
for setting, row in zip(settings, verdicts):
    name = " ".join(f"{key} {value}" for key, value in setting.items()).replace("temperature", "T")
    print(f"{name:28} ended {row['ended']:2}  grammatical {row['grammatical']:2}", end="  ")
    print(f"variety {row['variety']:.2f}  words {row['words']:.2f}")
print("wrong at 0.4:", *verdicts[1]["wrong"][:4], sep="\n    ")

# %%
greedy, cool, mild, plain, hot, mad, _, _, min_p, _ = verdicts
print(f"variety: ≈ {greedy['variety']:.2f} at temperature 0, ≈ {plain['variety']:.2f} at 1")
print(f"real words: ≈ {mild['words']:.2f} at temperature 0.7, ≈ {mad['words']:.2f} at 1.6")
print(f"grammatical at 1.3: ≈ {hot['grammatical']} of ≈ {hot['ended']};", end=" ")
print(f"with min_p ≈ {min_p['grammatical']} of ≈ {min_p['ended']}")
assert mad["words"] < mild["words"] and greedy["variety"] < plain["variety"]
more = min_p["grammatical"] - hot["grammatical"]
assert (more > 5 and min_p["variety"] > cool["variety"]) or not RECORDED

# %%
fig, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
for setting, row in zip(settings, verdicts):
    n = row["ended"]
    if n == 0:
        continue
    x, y = row["variety"], row["grammatical"] / n
    error = (y * (1 - y) / n) ** 0.5
    look = (
        {"fmt": "o", "color": "#0072B2"} if len(setting) == 1 else {"fmt": "s", "color": "#D55E00"}
    )
    ax.errorbar(x, y, error, **look)
    name = ", ".join(f"{key} {value}" for key, value in setting.items()).replace("temperature", "T")
    side, align = (6, "left") if x > 0.88 else (-6, "right")  # keeps most labels apart
    ax.annotate(name, (x, y), (side, 5), textcoords="offset points", fontsize=8, ha=align)
ax.set(xlabel="different words, compared with the corpus", ylabel="share of grammatical scenes")
ax.set_ylim(0, 1.1)
ax.margins(x=0.2)
title = "Dots: temperature alone. Squares: with another parameter. Bars: one standard error"
ax.set_title(title, fontsize=10)
show(
    fig,
    "Grammatical scenes against variety: temperature 0 has only one scene; above 0, a higher temperature "
    "makes fewer scenes grammatical; cutting the tail at 1.3 restores most of them.",
)

# %% [markdown]
# Greedy writes one scene sixty times. In the recorded model this scene is grammatical; in another model it may never end. Low temperatures are right more often than high ones. No sampling parameter repairs the mistakes that remain at a low temperature: there the model itself prefers a wrong word, mostly a prop of another scene, and one wrong word is enough. The surprise is `min_p`: where the model is sure, a tenth of the largest probability is a high threshold, and where many characters are likely, the threshold is low; so a temperature of 1.3 keeps its variety and loses most of its mistakes. But look at the error bars before you rank neighbours: sixty scenes are few. The repetition penalty, meant for subwords, only harms here.

# %% [markdown]
# ## Faster on a CPU
#
# With the cache, a single row goes through every matrix. **Predict:** multiply one row with 18 matrices, then 64 rows with the same matrices; how many times as long do the 64 take?

# %%
layers = []
for _ in range(18):  # 10.6 million numbers, as in a GPT of this size: 42 MB
    layers.append(nn.Linear(384, 1536, bias=False))
x64 = torch.randn(64, 384)


@torch.no_grad()
def milliseconds_for(layers, x):
    """The median time in milliseconds of multiplying x with each of the matrices."""
    times = []
    for _ in range(30):
        start = time.perf_counter()
        for layer in layers:
            layer(x)
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times)[15]

# %% tags=["nbval-ignore-output"]
by_rows = {rows: milliseconds_for(layers, x64[:rows]) for rows in (1, 8, 64)}
print({rows: f"{ms:.1f} ms" for rows, ms in by_rows.items()})

# %%
ratio = by_rows[64] / by_rows[1]
print(f"64 rows take ≈ {ratio:.0f} times as long as one (less than 32: {ratio < 32})")
assert ratio < 32

# %% [markdown]
# They take far less than 64 times as long. Each row costs a multiplication for every weight; but the weights come from memory once, for one row or for 64, and a single row mostly waits for them. For a product of one row, PyTorch mostly uses one core, and that core waits. But the sum over $k$ can be divided:
#
# $$y_n = \sum_{k=1}^{K} W_{nk} x_k = \sum_{k \le K/4} W_{nk} x_k + \dots + \sum_{k > 3K/4} W_{nk} x_k.$$
#
# This is *split-K*: cut the matrix, once, into four pieces that lie apart in memory. `torch.bmm` multiplies all four in one call and gives each core some of them.

# %%
W = layers[0].weight.detach()  # (N, K) = (1536, 384)
x = x64[:1]  # (1, K)
four = W.T.reshape(4, 96, 1536).contiguous()  # (4, K / 4, N)
y = torch.bmm(x.reshape(4, 1, 96), four).sum(0)  # (4, 1, K / 4) times (4, K / 4, N) -> (1, N)
print(f"largest difference from W x: ≈ {(y - x @ W.T).abs().max():.0e}")
assert torch.allclose(y, x @ W.T, atol=1e-5)

# %% [markdown]
# `SplitKLinear` (`chargpt_lib/cpu_kernels.py`) is an `nn.Linear` that computes this way. **Predict:** how much does it gain with one thread?

# %% tags=["nbval-ignore-output"]
from chargpt_lib.cpu_kernels import SplitKLinear

split = [SplitKLinear(layer) for layer in layers]
whole = milliseconds_for(layers, x64[:1])
fast = milliseconds_for(split, x64[:1])
print(f"threads: {torch.get_num_threads()}; plain {whole:.1f} ms, split {fast:.1f} ms", end=": ")
gain = whole / fast
if 0.9 < gain < 1.1:
    print("no difference to speak of")
else:
    print(f"split-K is {max(gain, 1 / gain):.1f} times as {'fast' if gain > 1 else 'slow'}")

# %%
assert fast < 4 * whole  # a wide bound: on a busy machine the cores start late

# %% [markdown]
# With one thread, no two pieces are computed at the same time: whether split-K gains or loses then depends on how the processor fetches memory.
#
# The other way to fetch less is to make the weights smaller. Half a million weights stay in the processor's fast memory; ten million do not fit, and each character fetches all of them, four bytes each. *int8* has one byte a weight: $W_{nk} \approx s_n q_{nk}$, with a whole number $q_{nk}$ from -127 to 127 and a scale for each row, $s_n = \max_k |W_{nk}| / 127$. The input of the matrix is rounded, too, with a scale found at each call. `Int8Linear` does this with PyTorch's arithmetic for int8.
#
# A copy of the model gets these layers in the place of its matrices and keeps its forward pass, so `generate` takes the copy like any model. Some layers stay as they are: those that are not a plain `nn.Linear` in 32 bits on the CPU, and those with hooks.

# %%
#| export
from chargpt_lib.cpu_kernels import Int8Linear, SplitKLinear, is_plain_linear

LINEAR_LAYERS = {"fp32": SplitKLinear, "int8": Int8Linear}


def prepare_for_sampling(model, precision="fp32"):
    """A copy of the model for sampling on a CPU, in evaluation mode; it cannot be trained.

    precision: "fp32" for the same weights in a `SplitKLinear`, faster with several threads; "int8" for rounded weights
    in an `Int8Linear`, a quarter of the bytes.
    Raises: ValueError for another precision, and for int8 on another device.
    """
    if precision not in LINEAR_LAYERS:
        raise ValueError(f"precision is {precision!r}; take one of {sorted(LINEAR_LAYERS)}")
    if precision == "int8" and next(model.parameters()).device.type != "cpu":
        raise ValueError("int8 is for the CPU alone: prepare_for_sampling(model.cpu(), 'int8')")
    prepared = deepcopy(model)
    for parent in list(prepared.modules()):
        for name, layer in list(parent.named_children()):
            if is_plain_linear(layer):
                setattr(parent, name, LINEAR_LAYERS[precision](layer))
    return prepared.eval().requires_grad_(False)

# %% tags=["nbval-ignore-output"]
big = GPT(GPTConfig.baby(tokenizer.vocab_size)).eval()  # 10.7 million weights, to take the time
writers = {
    "as it is": big,
    "split-K, four bytes a weight": prepare_for_sampling(big),
    "int8, one byte a weight": prepare_for_sampling(big, "int8"),
}
print("threads:", torch.get_num_threads())
speeds = {}
for name, writer in writers.items():
    start = time.perf_counter()
    generate(writer, "O", 60, seed=1, tokenizer=tokenizer)
    speeds[name] = 60 / (time.perf_counter() - start)
    ratio = speeds[name] / speeds["as it is"]
    print(f"{name}: {speeds[name]:.0f} characters a second, {ratio:.1f} times the speed")

# %% [markdown]
# **Predict:** a weight now has 255 possible values instead of billions; how much worse does the model become, in nats?

# %%
eight = prepare_for_sampling(model.cpu(), "int8")
worse = evaluate(eight, val_ids) - evaluate(model.to(device), val_ids)
print(f"≈ {worse:+.4f} nats a character (less than a hundredth: {abs(worse) < 0.01})")
assert abs(worse) < 0.01

# %% [markdown]
# ## Mistakes people make
#
# - **Judging a model by its best setting, or by one sample.** Report the temperature, the other sampling parameters and the seed, and count.
# - **A top-p set without the character that crosses the threshold.** The character with which the sum reaches `top_p` has to stay, or a sure place may keep nothing.
# - **Temperature after the softmax.** Temperature divides logits. Divided probabilities that are made to sum to 1 again are unchanged.
# - **A cache with the wrong positions.** The text looks fine for a while. Compare the logits with the uncached ones, at every place, for rows of different length.
# - **Reading on after the block is full.** The table of positions has no row for the next character, and a window that has moved has new positions everywhere.
#
# ## Exercises

# %% [markdown]
# ### Exercise: a small model writes, a large one signs
# ★★★ · 18 minutes · On a graphics card a large model reads K characters in one pass nearly as fast as one. So a small model may write ahead; the text still has exactly the large model's distribution (Leviathan et al., 2023; Chen et al., 2023).
#
# The small model has drafted K characters $d_0, \dots, d_{K-1}$, each drawn from its distribution $q_k$ at that place. The large model has read them in one pass, and gives its own distributions, $p_0, \dots, p_K$, one more than drafts, because it also predicts what follows the last draft. Go from left to right:
#
# - Draft $k$ is accepted with the probability $\min(1, p_k(d_k) / q_k(d_k))$, that is, if the random number $u_k$, from 0 to 1 and never 1, is smaller than this.
# - The first draft that is not accepted is dropped, with all that follow it. In its place a character is drawn from a distribution $m_k$, and the round ends.
# - If all K drafts are accepted, one more character is drawn from $p_K$.
#
# **Work out $m_k$**: whatever $p_k$ and $q_k$ are, the character that stands at place $k$ in the end must have exactly the distribution $p_k$. How often does acceptance put $c$ there, and how much is missing? Take $p = (0.5, 0.5)$, $q = (0.8, 0.2)$: character 0 is drafted with 0.8 and accepted with 0.5/0.8, and 0.8 · 0.5/0.8 is its 0.5; character 1 is drafted with 0.2 and always accepted. Three tenths are missing, all of character 1. So $m = (0, 1)$.
#
# The number $w$ chooses a character as in this lesson: the first whose interval ends above $w$. For K = 1, $p = ((0.5, 0.5), (0.9, 0.1))$, $q = ((0.8, 0.2))$, $d = (0)$, $w = 0.4$: with $u = (0.6)$ it returns `[[0, 0], [0.9, 0.1]]`, with $u = (0.7)$ `[[1], [0, 1]]`.

# %% tags=["exercise"] exercise="speculative_write"
def speculative_write(p, q, draft, u, w):
    """p (K + 1, V), q (K, V), draft (K,) int64, u (K,), w a number from 0 to 1, K >= 0 -> [ids, last].

    ids (n,) int64, 1 <= n <= K + 1: the characters written; last (V,): the distribution of the last of them.
    """
    ### BEGIN SOLUTION
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft.tolist()):
        if u[k] * q[k, d] >= p[k, d]:
            n, last = k, (p[k] - q[k]).clamp(min=0)
            last = last / last.sum()
            break
    new = (last.cumsum(0) <= w).sum()
    return [torch.cat([draft[:n], new[None]]), last]
    ### END SOLUTION

# %%
check("speculative_write", speculative_write)

# %% [markdown]
# Character $c$ is drafted and accepted with $q(c) \min(1, p(c)/q(c)) = \min(q(c), p(c))$. What is missing is $p(c) - \min(q(c), p(c)) = \max(0, p(c) - q(c))$, and the sum over all $c$ is the share of drafts that are not accepted. The formula shows it without a single draw:

# %%
p, q = torch.randn(
    2, 50, generator=torch.Generator().manual_seed(1337), dtype=torch.float64
).softmax(-1)
accepted = torch.minimum(p, q)  # drafted and accepted, for each character
rest = (p - q).clamp(min=0)
written = accepted + (1 - accepted.sum()) * rest / rest.sum()
print(f"largest difference between what is written and p: ≈ {(written - p).abs().max():.0e}")
print(f"accepted: {accepted.sum():.2f}; 1 - sum of |p - q| / 2: {1 - (p - q).abs().sum() / 2:.2f}")
assert torch.allclose(written, p, rtol=0, atol=1e-12)

# %% [markdown]
# The small model decides the speed, never the text. If the large model accepts a share $\alpha$ of the drafts, the same at every place, one pass of it gives $1 + \alpha + \alpha^2 + \dots + \alpha^K$ characters: 3.4 for $\alpha = 0.8$ and K = 4.

# %% [markdown]
# Your progress:

# %%
progress()

# %% [markdown]
# ## Summary
#
# You now have `generate`, `next_token_probs`, `sample_from`, `KVCache`, `IncrementalDecoder` and `prepare_for_sampling`, in `chargpt_lib/sampling.py`. From here on the course writes with them.
#
# Next: [09 · Checkpoints](09_checkpoints.ipynb).
