# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · Bigram: a table that writes
#
# > The bigram model: counted, and as a table of logits; n-gram tables with backoff.
#
# You will build: a table of letter pairs, the same table as a PyTorch model, and longer tables, until counting dies.
# You need lesson 00. A CPU is enough; the page runs in about ten seconds.
#
# After `q` comes `u`. That is all a bigram model knows: for each character, which ones follow it, and how often. It sees one character of the past and nothing else.

# %%
import math

import matplotlib.pyplot as plt
import torch

from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.files import bundled_results
from chargpt_lib.playhouse import excess_by_kind
from chargpt_lib.plots import heatmap, plot_excess, price_table, show, visible

CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus = load_corpus(CORPUS)
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
train_ids, val_ids = tokenizer.encode(corpus.train), tokenizer.encode(corpus.val)
V = tokenizer.vocab_size

# %% [markdown]
# ## Count
#
# We first count by hand, on a text short enough to check: our line.

# %%
EXAMPLE = "O damp goose!"
for first, second in zip(EXAMPLE, EXAMPLE[1:]):
    print(repr(first + second), end=" ")

# %% [markdown]
# The whole text has a million pairs. A trick counts them in one go: number the pairs. The pair of ids $(a, b)$ gets the number $aV + b$, and `bincount` counts how often each number occurs, from 0 on. (It stops at the largest number that occurs. `minlength` makes it go on, with zeros, up to $V^2$ counts.) `view` then breaks the row of $V^2$ counts into $V$ rows of $V$.

# %%
def count_pairs(ids, vocab_size):
    """ids (N,) -> counts (V, V): how often b follows a stands in row a, column b."""
    pairs = ids[:-1] * vocab_size + ids[1:]  # (N - 1,)
    return torch.bincount(pairs, minlength=vocab_size**2).view(vocab_size, vocab_size)

# %%
counts = count_pairs(train_ids, V)
print(counts.shape, int(counts.sum()), "pairs")
for pair in ("go", "oo", "os", "oe"):
    a, b = tokenizer.encode(pair)
    print(f"{pair!r}: {counts[a, b]}")

# %%
fig, ax = plt.subplots(figsize=(9, 8.2), layout="constrained")
labels = visible(tokenizer.decode(range(V)))
image = heatmap(ax, (counts + 1).log10(), rows=labels, columns=labels, vmax=None)
ax.tick_params(labelsize=8)
ax.set(xlabel="second character", ylabel="first character", title="How often each pair occurs")
fig.colorbar(image, label="log10 (count + 1)", shrink=0.8)
show(
    fig,
    "A square table of pairs. Most of it is dark: most pairs never occur. Vowels have bright rows, the "
    "comma is followed by the space.",
)

# %% [markdown]
# Look along the row of the comma: one bright spot. Most of the table is empty:

# %%
print(f"{(counts == 0).double().mean():.0%} of the pairs never occur")

# %% [markdown]
# ### Exercise: further apart
# ★ · 4 minutes · The characters two, three, ten places back tell something about the next one, too. A table for each distance is the cheapest memory there is.
#
# Count pairs as `count_pairs` does, but of characters that stand `gap` places apart: $a$ at position $t$ and $b$ at position $t + \text{gap}$. A gap of 1 gives the table above. With a gap of 2, `goose` has the pairs `go`, `os` and `oe`. A text that is too short for the gap has no pairs, and its table holds zeros.

# %% tags=["exercise"] exercise="count_skip_pairs"
def count_skip_pairs(ids, vocab_size, gap):
    """ids (N,) int64, gap >= 1 -> (V, V) int64: row a, column b: how often b stands gap places after a."""
    ### BEGIN SOLUTION
    pairs = ids[:-gap] * vocab_size + ids[gap:]
    return torch.bincount(pairs, minlength=vocab_size**2).view(vocab_size, vocab_size)
    ### END SOLUTION

# %%
check("count_skip_pairs", count_skip_pairs)

# %% [markdown]
# ## From counts to probabilities
#
# Let $n_{ab}$ be the count of the pair $(a, b)$. Divide each row by its sum, and it becomes the probabilities of the next character, $P(b \mid a) = \dfrac{n_{ab}}{\sum_{b'} n_{ab'}}$.
#
# The division has a trap. **Predict:** what does a model pay, in nats, for a pair that it has never seen?

# %%
print(-torch.tensor(0.0).log())

# %% [markdown]
# Infinitely much. With one unseen pair in the validation text, the average is infinite. (Playhouse's validation text happens to have no such pair; the first line that you type yourself may have one.) So nothing may get probability zero: we add a little to every count, a hundredth of an observation.
#
# Here is a first try, on a small table of three symbols. Each row of the result should sum to 1.

# %%
def buggy_smoothing(counts, amount):
    counts = counts + amount
    return counts / counts.sum(1)


small_counts = torch.tensor([[0, 6, 2], [1, 0, 1], [3, 0, 0]])
print(buggy_smoothing(small_counts, 0.01).sum(1))

# %% [markdown]
# ### Exercise: find the bug in the smoothing
# ★★ · 6 minutes · Adding the same amount everywhere is the oldest cure for zeros (Laplace added 1). Dividing by a sum of the wrong shape is PyTorch's quietest mistake.
#
# Write the function again, without the bug. A hint: `counts.sum(1)` is a row of shape (V,). When PyTorch divides a table by a row, it divides each column $b$ by the row's number $b$. `counts.sum(1, keepdim=True)` is a column, (V, 1); with a column, PyTorch divides each row $a$ by the column's number $a$. The first row of the result has to become $(0.01, 6.01, 2.01) / 8.03$.

# %% tags=["exercise"] exercise="additive_smoothing"
def additive_smoothing(counts, amount):
    """counts (V, V) int64, amount > 0 -> (V, V) float32: P(b | a) in row a, column b; each row sums to 1."""
    ### BEGIN SOLUTION
    counts = counts + amount
    return counts / counts.sum(1, keepdim=True)
    ### END SOLUTION

# %%
check("additive_smoothing", additive_smoothing)

# %% [markdown]
# The same, for the whole text:

# %%
probabilities = counts + 0.01
probabilities = probabilities / probabilities.sum(1, keepdim=True)  # (V, V), each row sums to 1
print(probabilities.sum(1)[:3])
g = tokenizer.encode("g").item()
best = probabilities[g].topk(4)
for p, i in zip(best.values.tolist(), best.indices.tolist()):
    print(f"{tokenizer.decode([i])!r}: {p:.2f}", end="  ")

# %% [markdown]
# These are the characters that most often follow a `g`. What does the table pay for our line? **Predict:** which costs more, the `o` after `g` or the `g` after the space?

# %%
ids = tokenizer.encode(EXAMPLE)
print(price_table(EXAMPLE, probabilities[ids[:-1], ids[1:]]))

# %% [markdown]
# Each row is one step: the character that the table sees, the next one, the probability that the table gave to it, and the price, $-\ln p$. The models of lessons 02 to 06 will pay for the same line.
#
# In all lessons, the sign ≈ stands before a number that may come out a little different on another machine or in another run: a random draw, a rounding error, a time, a loss after training. (`price_table` always writes it; the numbers of this counted table are the same everywhere.) Numbers without the sign are the same everywhere.
#
# ### Exercise: the price of what never came
# ★★ · 5 minutes · The amount looks like a detail, but it sets the price of every pair that was never seen.
#
# Predict: the character $a$ was followed by something `seen` times, and never by $b$. With `amount` added to each of the $V$ counts of its row, how many nats does $b$ after $a$ cost? First think of the two extremes: what if $a$ was never seen at all, and what if it was seen a million times?

# %% tags=["exercise"] exercise="unseen_pair_nats"
def unseen_pair_nats(seen, vocab_size, amount):
    """seen: a whole number, 0 or more; amount > 0 -> a float: nats for a character that never came after this one."""
    ### BEGIN SOLUTION
    return math.log((seen + amount * vocab_size) / amount)
    ### END SOLUTION

# %%
check("unseen_pair_nats", unseen_pair_nats)

# %% [markdown]
# Does the table agree? Give your function the numbers below.

# %%
a, b = tokenizer.encode("!O")
print(
    f"'!O' occurs {counts[a, b]} times, '!' {counts[a].sum()} times, V = {V}; "
    f"the table charges {-probabilities[a, b].log():.2f} nats"
)

# %% [markdown]
# ## The best a bigram can do
#
# Let $P(b \mid a)$ be the true probabilities of a text, and $p_a$ the share of the character $a$. A model that sees only $a$ has one row $q(\cdot \mid a)$ for it, and pays $H(P, q) = H(P) + \mathrm{KL}(P \,\|\, q)$ on average: lesson 00's equation, row by row. The KL is never negative, so no model that sees one character can pay less than the mean of the rows' entropies, the **conditional entropy**
#
# $$H(x_{t+1} \mid x_t) = -\sum_a p_a \sum_b P(b \mid a) \ln P(b \mid a) .$$
#
# Row by row, the counted table *is* $P$ of the training text, so there its KL is 0. **Predict:** we added 0.01 to each count; does that make the loss on the training text larger?

# %%
seen = counts > 0  # the other pairs add nothing: their share is 0
pairs = counts[seen].double()  # how often each pair occurs
row_sums = counts.sum(1, keepdim=True).expand(V, V)[seen]
best_possible = -(pairs / pairs.sum() * (pairs / row_sums).log()).sum()  # p_a P(b | a) ln P(b | a)


def table_loss(table, ids):
    """What a table of probabilities (V, V) pays for these ids on average, in nats per character."""
    return -table.double()[ids[:-1], ids[1:]].log().mean()


counted = counts / counts.sum(1, keepdim=True)
print(f"conditional entropy of the training text:  {best_possible:.5f} nats per character")
print(f"the counted table pays on this text:       {table_loss(counted, train_ids):.5f}")
print(f"with 0.01 added to each count:             {table_loss(probabilities, train_ids):.5f}")
print(f"on the validation text:                    {table_loss(probabilities, val_ids):.5f}")
assert round((table_loss(counted, train_ids) - best_possible).item(), 5) == 0

# %% [markdown]
# (Our line cost more than the average: it is one text, and a short one.) The distance from here to the floor is the price of seeing only one character. No training, and no cleverer table of pairs, makes it smaller.

# %% [markdown]
# ## Sampling
#
# Take a character, draw the next one at random with the probabilities of its row, write it down, and go on from there.

# %% tags=["nbval-ignore-output"]
generator = torch.Generator().manual_seed(1337)
i = tokenizer.encode("\n").item()
written = []
for _ in range(200):
    i = torch.multinomial(probabilities[i], 1, generator=generator).item()
    written.append(i)
print(tokenizer.decode(written))

# %%
def pairs_never_seen(written):
    """How many pairs of neighbours in these ids never occur in the training text."""
    return sum(counts[a, b].item() == 0 for a, b in zip(written, written[1:]))


def known_words(text):
    """The share of a text's words that occur in the training text, with the same punctuation."""
    known = set(corpus.train.split())
    words = text.split()[1:-1]  # the first and the last may be cut in two
    return sum(word in known for word in words) / len(words)


by_pairs = known_words(tokenizer.decode(written))
print(f"pairs that never occur in the text: ≈ {pairs_never_seen(written)}")
print(f"words that occur in the text: ≈ {by_pairs:.0%}")
assert pairs_never_seen(written) < 4 or corpus.name != "playhouse"

# %% [markdown]
# The pairs of letters are right, and little else is. The table has forgotten what it wrote two letters ago.
#
# ### Exercise: drawing by hand
# ★★ · 10 minutes · How does one throw a die with 50 unequal sides? With one random number between 0 and 1, and a ruler. `multinomial` hides it; every model that writes does it.
#
# Lay the probabilities of the row end to end, in the order of the ids: they fill the ruler from 0 to 1. Id 0 owns the first stretch, id 1 the next, and so on. The number $u$ points at a place on the ruler, and the id that owns the place is drawn. With the row $(0.5, 0, 0.25, 0.25)$, $u = 0.3$ draws id 0, $u = 0.6$ draws id 2, and no number draws id 1.
#
# Now write a text with given numbers instead of random ones. The first number decides what follows `start`, by the row of `start`. The second decides what follows that, and so on.

# %% tags=["exercise"] exercise="sample_chain"
def sample_chain(probabilities, start, uniforms):
    """probabilities (V, V), rows sum to 1; start: an id; uniforms (T,), from 0 to 1 -> the ids written, (T,) int64.

    `start` is not among them. No number points exactly at the border of two stretches.
    """
    ### BEGIN SOLUTION
    written = [start]
    for u in uniforms:
        written.append(int((probabilities[written[-1]].cumsum(0) < u).sum()))
    return torch.tensor(written[1:])
    ### END SOLUTION

# %%
check("sample_chain", sample_chain)

# %% [markdown]
# ## The same table as a model
#
# From now on all models share one contract: a model takes ids and gives **logits**, one number for each possible next character. Softmax turns logits $z$ into probabilities,
#
# $$p_c = \frac{e^{z_c}}{\sum_{c'} e^{z_{c'}}} ,$$
#
# and the loss is what the model pays on average, the **cross-entropy**. Lesson 02 takes both apart. Here it is enough that logits equal to $\ln P$ give back $P$:

# %%
row = probabilities[g]
again = row.log().softmax(0)
print({tokenizer.decode([i]): round(again[i].item(), 2) for i in best.indices.tolist()})
difference = (again - row).abs().max()
print(f"largest difference ≈ {difference:.1g} (below 1e-6: {bool(difference < 1e-6)})")
assert torch.allclose(again, row)

# %% [markdown]
# One base class holds what all models of this course share: the loss, a simple `generate`, and a check of the ids before they are used. A subclass only says how ids become logits.
#
# `nn.Module` keeps a model's numbers, its **parameters**. `model(x, y)` calls `forward`. `no_grad` switches off the bookkeeping that only training needs, and `eval` switches off those parts of a model that act only in training. `F.cross_entropy` takes a list of rows, so `flatten` turns (B, T, V) into (B·T, V).

# %%
#| export
from math import log2

import torch
from torch import nn
from torch.nn import functional as F

# %%
#| export
class LanguageModel(nn.Module):
    """What the models share. A subclass defines `compute_logits(idx)`: (B, T) -> (B, T, V)."""

    def __init__(self, vocab_size, block_size):
        super().__init__()
        self.vocab_size = vocab_size
        self.block_size = block_size

    def forward(self, idx, targets=None, cache=None):
        """idx (B, T) int64 -> logits (B, T, V), and the mean loss in nats, None without targets (B, T).

        cache: what the model has read before idx, for models that can continue from it (lesson 08).
        """
        # A compiled model cannot look at the values of its input.
        if not torch.compiler.is_compiling():
            self.check(idx)
        if cache is None:
            logits = self.compute_logits(idx)
        else:
            logits = self.compute_logits(idx, cache)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def check(self, idx):
        """Raises: ValueError for ids that this model cannot read."""
        if isinstance(idx, str):
            raise ValueError("idx is a text, expected ids (B, T): tokenizer.encode(text)[None]")
        if idx.dim() != 2:
            raise ValueError(
                f"idx has the shape {tuple(idx.shape)}, expected (B, T); add a batch "
                f"dimension with idx[None]"
            )
        if idx.shape[1] > self.block_size:
            raise ValueError(
                f"idx is {idx.shape[1]} characters long, and the model sees at most block_size = "
                f"{self.block_size}: give it the last ones, idx[:, -{self.block_size}:]"
            )
        # Only on the CPU: on an accelerator, reading a value would wait for all work queued before it.
        if idx.device.type == "cpu" and idx.numel():
            low, high = idx.aminmax()
            if low < 0 or high >= self.vocab_size:
                raise ValueError(
                    f"token ids range from {low} to {high}, but vocab_size is {self.vocab_size}: "
                    f"encode the text with the model's own tokenizer"
                )

    @torch.no_grad()
    def generate(self, idx, max_new_tokens, generator=None):
        """Continues a text: idx (B, T) -> (B, T + max_new_tokens). The model sees the last block_size characters.

        Raises: ValueError for a prompt that is empty or not (B, T).
        """
        if idx.dim() != 2 or not idx.shape[1]:
            raise ValueError(
                f"the prompt has the shape {tuple(idx.shape)}, expected (B, T) and not empty; "
                f"for one text, add a batch dimension with idx[None]"
            )
        was_training = self.training
        self.eval()
        try:
            for _ in range(max_new_tokens):
                logits, _ = self(idx[:, -self.block_size :])
                probabilities = logits[:, -1].softmax(-1)  # (B, V)
                new = torch.multinomial(probabilities, 1, generator=generator)  # (B, 1)
                idx = torch.cat([idx, new], dim=1)
        finally:  # after Ctrl-C, too
            self.train(was_training)
        return idx

# %% [markdown]
# The bigram model is a table of logits, one row for each character. `nn.Embedding` is such a table: it takes ids and gives rows.

# %%
#| export
class BigramLanguageModel(LanguageModel):
    """A table: the row of a character holds the logits of the next one."""

    def __init__(self, vocab_size, block_size=1):
        super().__init__(vocab_size, block_size)
        self.table = nn.Embedding(vocab_size, vocab_size)
        # PyTorch's own std is 1: a new model would be sure of things that it cannot know.
        nn.init.normal_(self.table.weight, std=0.02)

    def compute_logits(self, idx):
        return self.table(idx)  # (B, T) -> (B, T, V)

# %% [markdown]
# A new model knows nothing: its logits are all nearly zero, so every character gets about $1/V$. **Predict** its loss before you run the cell.

# %%
torch.manual_seed(1337)
model = BigramLanguageModel(V)
x, y = val_ids[:-1, None], val_ids[1:, None]  # (N, 1): windows of one character
logits, loss = model(x, y)
print(logits.shape)
print(f"loss {loss:.2f}, ln V = {torch.tensor(float(V)).log():.2f}")

# %% [markdown]
# Now we write the counted table into the model.

# %%
with torch.no_grad():
    model.table.weight.copy_(probabilities.log())
_, counted_loss = model(x, y)
saved = (loss - counted_loss).item()
print(f"loss {counted_loss:.2f}, {saved:.2f} less")
assert saved > 1 or corpus.name != "playhouse"

# %% tags=["nbval-ignore-output"]
start = torch.tensor([[tokenizer.encode("\n").item()]])
written = model.generate(start, 150, torch.Generator().manual_seed(1))[0]
print(tokenizer.decode(written))

# %%
print(f"pairs that never occur in the text: ≈ {pairs_never_seen(written)}")
assert pairs_never_seen(written) < 4 or corpus.name != "playhouse"

# %% [markdown]
# ## n-grams and backoff
#
# One character of the past is little. Why not count groups of three, four, six characters? An **n-gram** model looks up the last $n - 1$ characters, the **context**.
#
# The table must also give probabilities after a context that was never seen. So we **back off**: we drop the oldest character and ask the shorter table. Witten and Bell (1991) do that by degrees: they mix the two tables. Let $N_h$ be how often the context $h$ was seen, $N_{hc}$ how often $c$ came after it, and $d_h$ how many different characters came after it. Then
#
# $$P(c \mid h) = \frac{N_{hc} + d_h \, P(c \mid h')}{N_h + d_h} ,$$
#
# where $h'$ is $h$ without its oldest character, and the chain ends with $1/V$. The share of the shorter table is $d_h / (N_h + d_h)$. It is small for a context that was seen often and always had the same character after it; a context that was never seen leaves everything to the shorter table.
#
# An example: the context `go` was seen $N_h = 8$ times, 6 times before `o` and 2 times before `a`, so $d_h = 2$. The shorter context is `o`; its table gives 0.1 to `o`, 0.3 to `a` and 0.2 to `t`. **Predict:** what does `t` get, which was never seen after `go`?

# %%
N_h, d_h = 8, 2
for char, N_hc, shorter in (("o", 6, 0.1), ("a", 2, 0.3), ("t", 0, 0.2)):
    mixed = (N_hc + d_h * shorter) / (N_h + d_h)
    print(f"P({char} | go) = ({N_hc} + {d_h} * {shorter}) / ({N_h} + {d_h}) = {mixed:.2f}")

# %% [markdown]
# Counting alone would give 0.75, 0.25 and 0. The context hands $d_h / (N_h + d_h)$, here a fifth, to the shorter table, and `t` gets a fifth of 0.2.
#
# A group of $n$ ids is again one number, written in base $V$. The table is a sorted list of the numbers that occur, with their counts; `searchsorted` finds a number in it. (`ids.unfold(-1, n, 1)` gives all runs of $n$ neighbours: of the ids 4 7 2, with $n = 2$, the rows 4 7 and 7 2.)

# %%
#| export
def ngram_codes(ids, n, vocab_size):
    """ids (..., L) -> the numbers of all groups of n neighbours in base V, (..., L - n + 1)."""
    if n == 0:
        return torch.zeros_like(ids[..., :1])  # the one empty group
    powers = vocab_size ** torch.arange(n - 1, -1, -1)
    return (ids.unfold(-1, n, 1) * powers).sum(-1)


class CountTable:
    """Numbers and how often each was seen."""

    def __init__(self, numbers):
        self.codes, self.counts = numbers.unique(return_counts=True)

    def __getitem__(self, wanted):
        """The counts of the wanted numbers, 0 for those never seen."""
        # searchsorted gives the place where a number would be inserted; past the end there is nothing to compare.
        place = torch.searchsorted(self.codes, wanted).clamp_max(len(self.codes) - 1)
        return torch.where(self.codes[place] == wanted, self.counts[place], 0)

# %%
table = CountTable(torch.tensor([7, 7, 3, 9, 7]))
print(table[torch.tensor([3, 7, 8])])
print(ngram_codes(torch.tensor([1, 2, 3, 4]), n=2, vocab_size=10))

# %%
#| export
class NGramModel:
    """Counts of groups of 1 to n characters, backing off to shorter ones by degrees (Witten and Bell, 1991).

    ids (N,) int64. Raises: ValueError where the text is shorter than n, or a group's number needs more than 63 bits.
    """

    def __init__(self, ids, n, vocab_size):
        if len(ids) < n or vocab_size**n > 2**63:
            most = min(len(ids), int(63 / max(log2(vocab_size), 1)))
            raise ValueError(
                f"n = {n} is too large for {len(ids)} ids and vocab_size {vocab_size}: "
                f"use at most {most}"
            )
        self.n = n
        self.vocab_size = vocab_size
        self.groups = []  # how often each context came with each character
        self.contexts = []  # how often each context came
        self.kinds = []  # how many different characters came after it
        for k in range(1, n + 1):
            groups = CountTable(ngram_codes(ids, k, vocab_size))
            # Without the last id, which nothing follows. expand repeats the one empty context for every position.
            contexts = ngram_codes(ids[:-1], k - 1, vocab_size).expand(len(ids) - k + 1)
            self.groups.append(groups)
            self.contexts.append(CountTable(contexts))
            # Each different group counts once for the context that it begins with.
            self.kinds.append(CountTable(groups.codes // vocab_size))

    def probability(self, groups):
        """groups (..., L) of ids -> the probability (...) of each group's last id after the ids before it."""
        p = torch.full(groups.shape[:-1], 1 / self.vocab_size, dtype=torch.float64)
        for k in range(1, min(self.n, groups.shape[-1]) + 1):
            number = ngram_codes(groups[..., -k:], k, self.vocab_size)[..., 0]
            context = number // self.vocab_size
            seen = self.contexts[k - 1][context]
            kinds = self.kinds[k - 1][context]
            mixed = (self.groups[k - 1][number] + kinds * p) / (seen + kinds).clamp_min(1)
            # For a context never seen, the probability of the shorter one stays.
            p = torch.where(seen > 0, mixed, p)
        return p

    def nats(self, ids):
        """What the model pays for each character of a text from its n-th on: ids (N,) -> (N - n + 1,)."""
        return -self.probability(ids.unfold(0, self.n, 1)).log()

# %%
small = NGramModel(train_ids, n=3, vocab_size=V)
everything = torch.arange(V)[:, None]  # (V, 1): each character
after_go = torch.cat([tokenizer.encode("go").expand(V, -1), everything], dim=1)  # (V, 3)
p = small.probability(after_go)
print(f"the probabilities after 'go' sum to {p.sum():.6f}")
for i in p.argsort(descending=True)[:5].tolist():
    print(f"{tokenizer.decode([i])!r}: {p[i]:.2f}", end="  ")

# %% [markdown]
# Now we measure all of them, from $n = 1$ to $n = 6$, on the text that they counted (its first hundred thousand characters are enough) and on the text that they have not seen. There are $V^5$, about half a billion, possible contexts of 5 characters, and a million characters to count. **Predict:** how many of the contexts in the validation text will be new?

# %%
def measure(n, ids):
    """An n-gram model of these ids -> its losses on the first 100,000 of them and on the validation text, the
    share of unseen contexts."""
    ngram = NGramModel(ids, n, V)
    unseen = (ngram.contexts[-1][ngram_codes(val_ids[:-1], n - 1, V)] == 0).double().mean()
    return ngram.nats(ids[:100_000]).mean().item(), ngram.nats(val_ids).mean().item(), unseen.item()

# %%
lengths = (10_000, 100_000, len(train_ids))
results = {(length, n): measure(n, train_ids[:length]) for length in lengths for n in range(1, 7)}
for n in range(1, 7):
    on_train, on_val, unseen = results[lengths[-1], n]
    print(
        f"n = {n}: training {on_train:.2f}, validation {on_val:.2f}, {unseen:.2%} of the contexts new"
    )

# %% [markdown]
# Hardly any: of the half a billion contexts, our grammar uses few. Each further character helps. So why not go on to $n = 100$? Look at what happens with less text to count on.

# %%
n_axis = range(1, 7)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for length, colour, mark in zip(lengths, ("#D55E00", "#0072B2", "#009E73"), "osD"):
    on_train, on_val, unseen = zip(*(results[length, n] for n in n_axis))
    left.plot(n_axis, on_train, mark + "--", color=colour, alpha=0.5)
    left.plot(n_axis, on_val, mark + "-", color=colour)
    percent = [100 * share for share in unseen]
    right.plot(n_axis, percent, mark + "-", color=colour, label=f"{length:,} characters")
if corpus.val_entropy:
    left.axhline(corpus.val_entropy, color="black", linestyle=":")
    left.annotate("the floor", (1, corpus.val_entropy), va="bottom")
left.set(
    xlabel="n", ylabel="nats per character", ylim=0, title="dashed: counted text, full: new text"
)
right.set(xlabel="n", ylabel="%", title="contexts never seen")
right.legend(title="counted on", frameon=False)
show(
    fig,
    "Left: with little text the training loss falls far below the validation loss as n grows. "
    "Right: unseen contexts multiply.",
)

# %%
little, much = lengths[0], lengths[-1]
for n in (4, 5, 6):
    on_train, on_val, unseen = results[little, n]
    print(f"{little:,} characters, n = {n}: training {on_train:.2f}, ", end="")
    print(f"validation {on_val:.2f}, {unseen:.0%} unseen")
by_heart = on_val - on_train  # what a new text costs more than the counted one
print(f"n = 6 costs {by_heart:.2f} nats more on a new text")
assert (by_heart > 0.1 and unseen - results[much, 6][2] > 0.1) or corpus.name != "playhouse"

# %% [markdown]
# Here counting begins to fail. With 10,000 characters, the loss on the counted text goes on falling, almost to the entropy of the text, the floor of lesson 00; on a new text it stops. Each further character multiplies the number of contexts, so each context is seen less often, and the table learns its own text by heart.
# On Playhouse a million characters are enough for a good table, because the sentences of Playhouse are simple. Shakespeare has more words and freer sentences. With the same million characters, his 6-gram table is already worse than the 5-gram table, and longer tables are worse still:

# %%
for name in ("playhouse", "shakespeare"):
    losses = bundled_results()[name]["n-grams"]
    print(f"{name:12}", "  ".join(f"n={n}: {loss:.2f}" for n, loss in losses.items()))
assert (
    losses["4"] - losses["5"] > 0.05
    and losses["6"] - losses["5"] > 0.02
    and losses["8"] - losses["6"] > 0.1
)

# %% [markdown]
# And this is what the bigram model writes on Shakespeare.

# %% tags=["nbval-ignore-output"]
print(bundled_results()["shakespeare"]["bigram"]["sample"][:150])

# %% [markdown]
# What does the longest table write?

# %% tags=["nbval-ignore-output"]
six = NGramModel(train_ids, 6, V)
generator = torch.Generator().manual_seed(1337)
written = tokenizer.encode("\n\nA ")
for _ in range(350):
    candidates = torch.cat([written[-5:].expand(V, -1), everything], dim=1)  # (V, 6): each in turn
    new = torch.multinomial(six.probability(candidates), 1, generator=generator)
    written = torch.cat([written, new])
print(tokenizer.decode(written).strip())

# %%
by_sixes = known_words(tokenizer.decode(written))
print(f"words that occur in the text: ≈ {by_sixes:.0%}, where pairs wrote ≈ {by_pairs:.0%}")
assert by_sixes - by_pairs > 0.3 or corpus.name != "playhouse"

# %% [markdown]
# Words, even sentences. Now read for sense: who is on stage? Who speaks, and does anybody answer the person who asked? Five characters of memory do not reach back to the cast list.
#
# ## Loss by kind of text
#
# The spans of Playhouse split the excess of each table by kind.

# %%
excesses = {}
for n in (1, 2, 4, 6) if corpus.val_spans else ():
    nats = NGramModel(train_ids, n, V).nats(val_ids).tolist()
    excesses[f"n = {n}"] = excess_by_kind([None] * (n - 1) + nats, corpus.val_spans)
if excesses:
    show(
        plot_excess(excesses, corpus.val_entropy),
        "Stacked bars: from n = 1 to n = 6 nearly all of the spelling "
        "is saved, of the copied names two thirds, of the closings one third.",
    )
    for kind in ("spelling", "copied name", "closing"):
        print(
            f"{kind:12}",
            "  ".join(f"{name}: {excess[kind]:.3f}" for name, excess in excesses.items()),
        )

# %%
if excesses:
    left_over = {
        kind: excesses["n = 6"][kind] / excesses["n = 1"][kind] for kind in excesses["n = 1"]
    }
    print(
        "share of the excess of n = 1 that n = 6 still has:",
        {kind: f"{left_over[kind]:.0%}" for kind in ("spelling", "copied name", "closing")},
    )
    assert left_over["spelling"] < 0.1
    assert left_over["copied name"] > 0.2 and left_over["closing"] > 0.4  # memory is missing

# %% [markdown]
# The longer tables have removed nearly all of the excess of spelling. Copied names and closings keep much of theirs, because the words that decide them stand further back than five characters. A table long enough for those would need more text than anybody will ever write.
# We need a model that does not look up the past, but looks *at* it, and finds what matters. Before we can build one we have to know how models learn.
#
# ## Mistakes people make
#
# - **Zero counts.** One unseen pair makes the loss infinite. Add a little, or back off.
# - **Dividing columns instead of rows.** `counts / counts.sum(0)` answers another question: what came *before*. It runs, and it is wrong. Check that a row sums to 1.
# - **Judging by the training loss.** The longest table always wins there.
#
# ## Exercises
#
# ### Exercise: in how many places?
# ★★★ · 25 minutes · Of all ways to smooth $n$-gram counts, this one won (Kneser and Ney, 1995; Chen and Goodman, 1999).
#
# In many English texts `Francisco` is a frequent word. But it follows one word only, `San`. After a word that you have not seen before, `Francisco` is a bad guess, however frequent it is. So the shorter table should count after how many *different* symbols a symbol occurs, not how often it occurs.
#
# Let $n_{ab}$ be how often $b$ follows $a$, and $N_a$ the sum of row $a$ (the last id of the text begins no pair). Let $d_a$ be how many different symbols follow $a$, and $e_b$ how many different symbols come before $b$. Let $E$ be the number of different pairs, the sum of all $e_b$. Take a **discount** $D$, between 0 and 1, from each count that is not 0, and give the sum of these discounts to the shorter table:
#
# $$P(b \mid a) = \frac{\max(n_{ab} - D, 0)}{N_a} + \frac{D \, d_a}{N_a} \cdot \frac{e_b}{E} .$$
#
# Where nothing ever follows $a$, the shorter table decides alone: $P(b \mid a) = e_b / E$.
#
# An example: the ids `0 1 0 1 2`, $V = 4$, $D = 0.75$. The pairs are `01`, `10`, `01`, `12`; three are different, and each of 0, 1 and 2 comes after one symbol, so $e / E = (\frac13, \frac13, \frac13, 0)$. Row 0 has $N_0 = 2$ and $d_0 = 1$: it is $(0.125, 0.75, 0.125, 0)$. Rows 2 and 3 are $(\frac13, \frac13, \frac13, 0)$.

# %% tags=["exercise"] exercise="kneser_ney"
def kneser_ney(ids, vocab_size, discount):
    """ids (N,) int64, N >= 2 -> (V, V) float64: P(b | a) in row a, column b; each row sums to 1."""
    ### BEGIN SOLUTION
    counts = torch.bincount(ids[:-1] * vocab_size + ids[1:], minlength=vocab_size**2).double()
    counts = counts.view(vocab_size, vocab_size)
    seen = (counts > 0).double()
    shorter = seen.sum(0) / seen.sum()  # (V,)
    total = counts.sum(1, keepdim=True)  # (V, 1)
    longer = (counts - discount).clamp_min(0) + discount * seen.sum(1, keepdim=True) * shorter
    return torch.where(total > 0, longer / total, shorter)
    ### END SOLUTION

# %%
check("kneser_ney", kneser_ney)

# %% [markdown]
# How far you have come:

# %%
progress()

# %% [markdown]
# ## Summary
#
# `LanguageModel` (the contract of all models), `BigramLanguageModel` and `NGramModel`, in `chargpt_lib/bigram.py`.
#
# Next: [02 · The training loop](02_training_loop.ipynb). The table again, but this time nobody counts.
