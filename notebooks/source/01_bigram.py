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
# You will build: a table of letter pairs, the same table as a PyTorch model, and longer tables, until counting dies.
# You need lesson 00. A CPU is enough; the page runs in about ten seconds.
#
# After `q` comes `u`. That is all a bigram model knows: for each character, which ones follow it, and how often. It sees one character of the past and nothing else.

# %%
#| default_exp bigram

# %%
import matplotlib.pyplot as plt
import torch

from chargpt_lib.data import CharTokenizer, heatmap, load_corpus, plot_excess, recorded, show, visible
from chargpt_lib.playhouse import excess_by_kind

CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus = load_corpus(CORPUS)
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
train_ids, val_ids = tokenizer.encode(corpus.train), tokenizer.encode(corpus.val)
V = tokenizer.vocab_size

# %% [markdown]
# ## Count
#
# First by hand, on a text that one can check: our line.

# %%
EXAMPLE = "O damp goose!"
for first, second in zip(EXAMPLE, EXAMPLE[1:]):
    print(repr(first + second), end=" ")

# %% [markdown]
# The whole text has a million pairs. For counting them in one go there is a trick: number the pairs. The pair of ids $(a, b)$ gets the number $aV + b$, and `bincount` counts numbers.

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
labels = visible(tokenizer.alphabet)
image = heatmap(ax, (counts + 1).log10(), rows=labels, columns=labels, vmax=None)
ax.tick_params(labelsize=8)
ax.set(xlabel="second character", ylabel="first character", title="How often each pair occurs")
fig.colorbar(image, label="log10 (count + 1)", shrink=0.8)
show(fig, "A square table of pairs. Most of it is dark: most pairs never occur. Vowels have bright rows, the "
     "comma is followed by the space.")

# %% [markdown]
# Look along the row of the comma: one bright spot. Most of the table is empty:

# %%
print(f"{(counts == 0).double().mean():.0%} of the pairs never occur")

# %% [markdown]
# ## From counts to probabilities
#
# Divide each row by its sum, and it becomes the probabilities of the next character, $P(b \mid a) = \dfrac{n_{ab}}{\sum_{b'} n_{ab'}}$.
#
# There is a trap in it. **Predict:** what does a model pay, in nats, for a pair that it has never seen?

# %%
print(-torch.tensor(0.0).log())

# %% [markdown]
# Infinitely much. One unseen pair in the validation text, and the average is infinite. So nothing may get probability zero: we add a little to every count, a hundredth of an observation.

# %%
probabilities = counts + 0.01
probabilities = probabilities / probabilities.sum(1, keepdim=True)  # (V, V), each row sums to 1
print(probabilities.sum(1)[:3])
g = tokenizer.stoi["g"]
best = probabilities[g].topk(4)
print({tokenizer.alphabet[i]: round(p, 2) for p, i in zip(best.values.tolist(), best.indices.tolist())})

# %% [markdown]
# That is what follows a `g`. What does the table pay for our line?

# %%
ids = tokenizer.encode(EXAMPLE)
nats = -probabilities[ids[:-1], ids[1:]].log()
fig, ax = plt.subplots(figsize=(7, 2.2), layout="constrained")
ax.bar(range(len(nats)), nats, color="#D55E00")
pairs = zip(visible(EXAMPLE), visible(EXAMPLE[1:]))
ax.set_xticks(range(len(nats)), [f"{a}→{b}" for a, b in pairs], family="DejaVu Sans Mono")
ax.set(ylabel="nats", title=f"What the table pays for {EXAMPLE!r}: {nats.mean():.2f} on average")
show(fig, "Bars, one for each pair of the line: a capital O before a space is cheap, letters after a space "
     "and the end of goose are dear.")

# %% [markdown]
# ## Let it write
#
# Take a character, throw dice according to its row, write down what comes, and take that as the next character.

# %%
generator = torch.Generator().manual_seed(1337)
i, written = tokenizer.stoi["\n"], []
for _ in range(200):
    i = torch.multinomial(probabilities[i], 1, generator=generator).item()
    written.append(i)
print(tokenizer.decode(written))

# %% [markdown]
# Every pair of letters is a pair that occurs. Nothing else is right. It has forgotten what it wrote two letters ago.
#
# ## The same table as a model
#
# From now on every model keeps to one contract: it takes ids and gives **logits**, one number for each possible next character. Softmax turns logits $z$ into probabilities,
#
# $$p_c = \frac{e^{z_c}}{\sum_{c'} e^{z_{c'}}} ,$$
#
# and the loss is what the model pays on average, the **cross-entropy**. Lesson 02 takes both apart. Here it is enough that logits equal to $\ln P$ give back $P$:

# %%
row = probabilities[g]
print(torch.allclose(row.log().softmax(0), row))

# %% [markdown]
# What all models of this course share stands in one base class: the loss, a simple `generate`, and a look at the ids before they are used. A subclass only says how ids become logits.
#
# `nn.Module` keeps a model's numbers, its **parameters**. `model(x, y)` calls `forward`. `no_grad` switches off the bookkeeping that only training needs, and `eval` those parts of a model that act only in training. Cross-entropy wants a list of rows, so `flatten` makes (B·T, V) of (B, T, V).

# %%
#| export
import torch
from torch import nn
from torch.nn import functional as F

# %%
#| export
class LanguageModel(nn.Module):
    """What the models share. A subclass defines `compute_logits(idx)`: (B, T) -> (B, T, V)."""

    def __init__(self, vocab_size, block_size):
        super().__init__()
        self.vocab_size, self.block_size = vocab_size, block_size

    def forward(self, idx, targets=None):
        """idx (B, T) int64 -> logits (B, T, V), and the mean loss in nats, None without targets (B, T)."""
        if not torch.compiler.is_compiling():  # a compiled model cannot look at the values of its input
            self.check(idx)
        logits = self.compute_logits(idx)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def check(self, idx):
        """ValueError for ids that this model cannot read."""
        if idx.dim() != 2:
            raise ValueError(f"idx has the shape {tuple(idx.shape)}; it must be (B, T): for one text, text[None]")
        if idx.shape[1] > self.block_size:
            raise ValueError(f"idx is {idx.shape[1]} characters long, and the model sees at most block_size = "
                             f"{self.block_size}: give it the last ones, idx[:, -{self.block_size}:]")
        low, high = idx.aminmax() if idx.device.type == "cpu" and idx.numel() else (0, 0)
        if low < 0 or high >= self.vocab_size:
            raise ValueError(f"ids go from {low} to {high}, and the model knows 0 to {self.vocab_size - 1}: "
                             f"was the text encoded with another alphabet?")

    @torch.no_grad()
    def generate(self, idx, max_new_tokens, generator=None):
        """Goes on writing: idx (B, T) -> (B, T + max_new_tokens). The model sees the last block_size characters."""
        if idx.dim() != 2 or not idx.shape[1]:
            raise ValueError(f"the prompt has the shape {tuple(idx.shape)}; it must be (B, T) and not empty: for one "
                             f"text, text[None]")
        was_training = self.training
        self.eval()
        for _ in range(max_new_tokens):
            logits, _ = self(idx[:, -self.block_size:])
            probabilities = logits[:, -1].softmax(-1)  # (B, V)
            idx = torch.cat([idx, torch.multinomial(probabilities, 1, generator=generator)], dim=1)
        self.train(was_training)
        return idx

# %% [markdown]
# And the bigram model: a table of logits, one row for each character. `nn.Embedding` is such a table: it takes ids and gives rows.

# %%
#| export
class BigramLanguageModel(LanguageModel):
    """A table: the row of a character holds the logits of the next one."""

    def __init__(self, vocab_size, block_size=1):
        super().__init__(vocab_size, block_size)
        self.table = nn.Embedding(vocab_size, vocab_size)
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
# Now we write the counted table into it.

# %%
with torch.no_grad():
    model.table.weight.copy_(probabilities.log())
_, counted_loss = model(x, y)
print(f"loss {counted_loss:.2f}")

# %%
assert counted_loss < 0.75 * loss
start = torch.tensor([[tokenizer.stoi["\n"]]])
print(tokenizer.decode(model.generate(start, 150, torch.Generator().manual_seed(1))[0]))

# %% [markdown]
# ## Longer tables
#
# One character of the past is little. Why not count groups of three, four, six characters? An **n-gram** model looks up the last $n - 1$ characters, the **context**.
#
# For a context that was never seen we need an answer all the same: **back off**, drop the oldest character and ask the shorter table. Witten and Bell (1991) do that by degrees. Let $N_h$ be how often the context $h$ was seen, $N_{hc}$ how often $c$ came after it, and $d_h$ how many different characters came after it. Then
#
# $$P(c \mid h) = \frac{N_{hc} + d_h \, P(c \mid h')}{N_h + d_h} ,$$
#
# where $h'$ is $h$ without its oldest character, and at the end of the chain stands $1/V$. The share of the shorter table is $d_h / (N_h + d_h)$: small for a context that was seen often and is always followed by the same, everything for one that was never seen.
#
# A group of $n$ ids is again one number, to the base $V$. A sorted list of the numbers that occur, with counts, is the table; `searchsorted` finds a number in it.

# %%
#| export
def ngram_numbers(ids, n, vocab_size):
    """ids (..., L) -> the numbers of all groups of n neighbours, (..., L - n + 1), to the base V."""
    powers = vocab_size ** torch.arange(n - 1, -1, -1)
    return (ids.unfold(-1, n, 1) * powers).sum(-1) if n else torch.zeros_like(ids[..., :1])


class Table:
    """Numbers and how often each was seen."""

    def __init__(self, numbers):
        self.numbers, self.counts = numbers.unique(return_counts=True)

    def __getitem__(self, wanted):
        """The counts of the wanted numbers, 0 for those never seen."""
        place = torch.searchsorted(self.numbers, wanted).clamp_max(len(self.numbers) - 1)
        return torch.where(self.numbers[place] == wanted, self.counts[place], 0)

# %%
table = Table(torch.tensor([7, 7, 3, 9, 7]))
print(table[torch.tensor([3, 7, 8])])
print(ngram_numbers(torch.tensor([1, 2, 3, 4]), n=2, vocab_size=10))

# %%
#| export
class NGramModel:
    """Counts of groups of 1 to n characters, backing off to shorter ones by degrees (Witten and Bell, 1991)."""

    def __init__(self, ids, n, vocab_size):
        self.n, self.vocab_size = n, vocab_size
        self.groups, self.contexts, self.kinds = [], [], []
        for k in range(1, n + 1):
            groups = Table(ngram_numbers(ids, k, vocab_size))
            self.groups.append(groups)  # how often: context and character
            self.contexts.append(Table(ngram_numbers(ids[:-1], k - 1, vocab_size).expand(len(ids) - k + 1)))
            self.kinds.append(Table(groups.numbers // vocab_size))  # how many different characters after a context

    def probability(self, groups):
        """groups (..., L) of ids, the last one asked for and the others its past -> its probability (...)."""
        p = torch.full(groups.shape[:-1], 1 / self.vocab_size, dtype=torch.float64)
        for k in range(1, min(self.n, groups.shape[-1]) + 1):
            number = ngram_numbers(groups[..., -k:], k, self.vocab_size)[..., 0]
            context = number // self.vocab_size
            seen, kinds = self.contexts[k - 1][context], self.kinds[k - 1][context]
            mixed = (self.groups[k - 1][number] + kinds * p) / (seen + kinds).clamp_min(1)
            p = torch.where(seen > 0, mixed, p)
        return p

    def nats(self, ids):
        """What the model pays for each character of a text from its n-th on: ids (N,) -> (N - n + 1,)."""
        return -self.probability(ids.unfold(0, self.n, 1)).log()

# %%
small = NGramModel(train_ids, n=3, vocab_size=V)
after_go = torch.stack([torch.cat([tokenizer.encode("go"), torch.tensor([c])]) for c in range(V)])  # (V, 3)
p = small.probability(after_go)
print(f"the probabilities after 'go' sum to {p.sum():.6f}")
print({tokenizer.alphabet[i]: round(p[i].item(), 2) for i in p.argsort(descending=True)[:5].tolist()})

# %% [markdown]
# Now all of them, from 1 to 6 characters, on the text they were counted on and on the one they have not seen. There are $V^5$, about half a billion, possible contexts of 5 characters, and a million characters to count on. **Predict:** how many of the contexts in the validation text will be new?

# %%
def measure(n, ids):
    """An n-gram model of these ids -> its loss on them, on the validation text, the share of unseen contexts."""
    ngram = NGramModel(ids, n, V)
    unseen = (ngram.contexts[-1][ngram_numbers(val_ids[:-1], n - 1, V)] == 0).double().mean()
    return ngram.nats(ids[:100_000]).mean().item(), ngram.nats(val_ids).mean().item(), unseen.item()

# %%
lengths = (10_000, 100_000, len(train_ids))
results = {(length, n): measure(n, train_ids[:length]) for length in lengths for n in range(1, 7)}
for n in range(1, 7):
    on_train, on_val, unseen = results[lengths[-1], n]
    print(f"n = {n}: training {on_train:.2f}, validation {on_val:.2f}, {unseen:.2%} of the contexts new")

# %% [markdown]
# Hardly any: of the half a billion contexts, English and our grammar use few. Each character more helps. So why not go on to $n = 100$? Look at what happens with less text to count on.

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for length, colour, mark in zip(lengths, ("#D55E00", "#0072B2", "#009E73"), "osD"):
    rows = [results[length, n] for n in range(1, 7)]
    left.plot(range(1, 7), [row[0] for row in rows], mark + "--", color=colour, alpha=0.5)
    left.plot(range(1, 7), [row[1] for row in rows], mark + "-", color=colour)
    right.plot(range(1, 7), [100 * row[2] for row in rows], mark + "-", color=colour, label=f"{length:,} characters")
if corpus.val_floor:
    left.axhline(corpus.val_floor, color="black", linestyle=":")
    left.annotate("the floor", (1, corpus.val_floor), va="bottom")
left.set(xlabel="n", ylabel="nats per character", ylim=0, title="dashed: the counted text, full: a new text")
right.set(xlabel="n", ylabel="%", title="contexts never seen")
right.legend(title="counted on", frameon=False)
show(fig, "Left: with little text the training loss falls far below the validation loss as n grows. Right: "
     "unseen contexts multiply.")

# %%
little, much = lengths[0], lengths[-1]
by_heart = results[little, 6][1] - results[little, 6][0]  # what a new text costs more than the counted one
print("with 10,000 characters, n = 6 costs more than 0.1 nats more on a new text:", by_heart > 0.1)
if corpus.name == "playhouse":
    assert by_heart > 0.1 and results[little, 6][2] > 10 * results[much, 6][2]

# %% [markdown]
# Here counting begins to die. With 10,000 characters, the loss on the counted text goes on falling, almost to the floor; on a new text it stops. Each character more multiplies the contexts, so each is seen more seldom, and the table learns its own text by heart.
# On Playhouse a million characters carry the table a long way, since its sentences are simple. Shakespeare has more words and freer sentences. With the same million characters, his 6-gram table is already worse than the 5-gram table, and it gets worse from there:

# %% tags=["nbval-ignore-output"]
for name in ("playhouse", "shakespeare"):
    losses = recorded()[name]["n-grams"]
    print(f"{name:12}", "  ".join(f"n={n}: {loss:.2f}" for n, loss in losses.items()))
print("\nThe bigram model on Shakespeare (recorded):\n\n" + recorded()["shakespeare"]["bigram"]["sample"][:150])

# %%
losses = recorded()["shakespeare"]["n-grams"]
assert losses["5"] < losses["4"] and losses["5"] < losses["6"] < losses["8"]

# %% [markdown]
# What does the longest table write?

# %%
six = NGramModel(train_ids, 6, V)
generator = torch.Generator().manual_seed(1337)
written, everything = tokenizer.encode("\n\nA "), torch.arange(V)[:, None]
for _ in range(350):
    candidates = torch.cat([written[-5:].expand(V, -1), everything], dim=1)  # (V, 6): each character in turn
    written = torch.cat([written, torch.multinomial(six.probability(candidates), 1, generator=generator)])
print(tokenizer.decode(written).strip())

# %% [markdown]
# Words, even sentences. Now read for sense: who is on stage? Who speaks, and does anybody answer the one who asked? Five characters of memory do not reach back to the cast list.
#
# ## Where the nats go now
#
# The spans of Playhouse split the excess of each table by kind.

# %%
excesses = {}
for n in (1, 2, 4, 6) if corpus.val_spans else ():
    nats = NGramModel(train_ids, n, V).nats(val_ids).tolist()
    excesses[f"n = {n}"] = excess_by_kind([None] * (n - 1) + nats, corpus.val_spans)
if excesses:
    show(plot_excess(excesses, corpus.val_floor), "Stacked bars: from n = 1 to n = 6 nearly all of the spelling "
         "is saved, of the copied names two thirds, of the closings one third.")
    for kind in ("spelling", "copied name", "closing"):
        print(f"{kind:12}", "  ".join(f"{name}: {excess[kind]:.3f}" for name, excess in excesses.items()))

# %%
if excesses:
    assert excesses["n = 6"]["spelling"] < 0.1 * excesses["n = 1"]["spelling"]
    assert excesses["n = 6"]["copied name"] > 0.2 * excesses["n = 1"]["copied name"]  # memory is missing
    assert excesses["n = 6"]["closing"] > 0.4 * excesses["n = 1"]["closing"]

# %% [markdown]
# Spelling has lost nearly all of its excess, by brute force. Copied names have kept nearly a third of theirs, closings nearly two thirds: what decides them stands further back than five characters. A table long enough for those would need more text than anybody will ever write.
# We need a model that does not look up the past, but looks *at* it, and finds what matters. Before we can build one we have to know how models learn.
#
# ## Mistakes people make
#
# - **Zero counts.** One unseen pair makes the loss infinite. Add a little, or back off.
# - **Dividing columns instead of rows.** `counts / counts.sum(0)` answers another question: what came *before*. It runs, and it is wrong. Check that a row sums to 1.
# - **Judging by the training loss.** The longest table always wins there.
#
# ## What you have
#
# `LanguageModel` (the contract of all models), `BigramLanguageModel` and `NGramModel`, in `chargpt_lib/bigram.py`.
#
# Next: [02 · The training loop](02_training_loop.ipynb). The table again, but this time nobody counts.
