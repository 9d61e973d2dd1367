# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 00 · A text, and numbers for it
#
# > Text as numbers: corpora, a character tokenizer, random batches.
#
# You will build: an alphabet, a tokenizer, a training and a validation text, and the batches that every later lesson uses.
# You need some Python. A CPU is enough; the page runs in about ten seconds.
#
# A language model guesses the next character. Guess it often enough, and you are writing. Here is what our model will have to learn to write.

# %%
import math

from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.playhouse import excess_by_kind, write

script = write(min_chars=1000)
print(script.text[:420])

# %% [markdown]
# These plays are made by a grammar that draws at random ([Playhouse](appendix/playhouse.ipynb) builds it). They come in any length, without a download, and they have a property that no book has: we know exactly how unpredictable they are.
# Further down, you can change one line to read Shakespeare or the Wizard of Oz instead.
#
# Cells that begin with `#| export` go, word for word, into the library that later lessons import.

# %%
#| export
import json
import unicodedata
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from chargpt_lib.files import atomic_write_text, fetch
from chargpt_lib.playhouse import write

# %% [markdown]
# ## The alphabet
#
# Which characters occur, and how often? (Three helpers for pictures come from the library, `chargpt_lib/plots.py`: `show` adds a description for readers who cannot see the picture, `visible` makes spaces and line ends visible, `heatmap` draws a matrix.)

# %%
from collections import Counter

import matplotlib.pyplot as plt

from chargpt_lib.plots import heatmap, show, visible

text = write(min_chars=100_000).text
counts = Counter(text).most_common()
print(len(text), "characters,", len(counts), "different ones")

# %%
fig, ax = plt.subplots(figsize=(9, 2.6), layout="constrained")
ax.bar(range(len(counts)), [100 * n / len(text) for _, n in counts], color="#0072B2")
ax.set_xticks(range(len(counts)), visible(char for char, _ in counts), family="DejaVu Sans Mono")
ax.set(ylabel="% of the text", title="How often each character occurs")
show(
    fig,
    "Bar chart: the space is the most frequent character, then e, t, a and o; "
    "capital letters are rare.",
)

# %% [markdown]
# A model computes with numbers. So we sort the alphabet, and each character's position becomes its number, its *id*. Python needs two small tables for this, one for each direction.
#
# **Predict:** sorted, which comes first: `A`, `a`, the space or the end of the line?

# %%
alphabet = sorted(set(text))
stoi = {char: i for i, char in enumerate(alphabet)}  # string to integer
print(repr("".join(alphabet)))
print(stoi["\n"], stoi[" "], stoi["A"], stoi["a"])

# %% [markdown]
# One example goes through all the lessons: the line `O damp goose!`. Here are its ids. Lessons 01 to 06 each print a table for this line: for each character, the probability that the lesson's model gives to the next character, and the price of that next character. (The last part of this page says what a price is.) So you can watch the line become cheaper.

# %%
EXAMPLE = "O damp goose!"
ids = [stoi[char] for char in EXAMPLE]
print(ids)
print("".join(alphabet[i] for i in ids))

# %% [markdown]
# The two `o` in `goose` have the same id, and the capital `O` has another. To the model, `O` and `o` differ as much as `o` and `!`; it has to find out that they are related.
#
# PyTorch keeps numbers in **tensors**: tables of one type of number and any shape. A list of N ids is a tensor of shape (N,) and of type int64: whole numbers.
#
# What if a character is not in the alphabet? `stoi["é"]` would raise `KeyError: 'é'`, and you would wonder where in your million characters that `é` is. So the error message of the finished tokenizer says where. Most such characters come from a word processor, which likes curly quotes and long dashes; for these, the alphabet often has a similar character, and the message suggests it.

# %%
#| export
LOOKALIKE_CHARS = dict(zip("’‘“”„–—…´`", "''\"\"\"--.''"))


def _lookalike(char, alphabet):
    """The character of the alphabet that looks like one outside it; None where no character does."""
    if char.isspace():
        plain = " "
    elif char in LOOKALIKE_CHARS:
        plain = LOOKALIKE_CHARS[char]
    else:
        plain = unicodedata.normalize("NFKD", char)[0]  # "é" becomes "e" and an accent of its own
    for guess in (plain, plain.swapcase()):
        if guess in alphabet:
            return guess
    return None

# %%
#| export
class CharTokenizer:
    """Characters to ids and back. An id is the character's position in the sorted alphabet."""

    unit = "character"

    def __init__(self, alphabet):
        self.alphabet = "".join(sorted(set(alphabet)))
        if not self.alphabet:
            raise ValueError(
                "the text is empty, so it has no alphabet: give at least one character"
            )
        self.stoi = {char: i for i, char in enumerate(self.alphabet)}

    @classmethod
    def from_text(cls, text):
        """The tokenizer of all characters that occur in the text."""
        return cls(text)

    @property
    def vocab_size(self):
        return len(self.alphabet)

    def encode(self, text):
        """text -> ids (T,) int64. Raises: ValueError for a character outside the alphabet."""
        try:
            return torch.tensor([self.stoi[char] for char in text], dtype=torch.int64)
        except KeyError as missing:
            # To look for it before the lookup would slow down every text.
            char = missing.args[0]
        known = _lookalike(char, self.stoi)
        if known:
            way_out = f"did you mean {known!r}?"
        else:
            way_out = (
                "remove it, or build the tokenizer from a text that contains it "
                "(CharTokenizer.from_text)"
            )
        alphabet = self.alphabet if self.vocab_size <= 100 else f"{self.alphabet[:60]}..."
        raise ValueError(
            f"character {char!r} at position {text.index(char)} is not in the alphabet of "
            f"{self.vocab_size} symbols, {alphabet!r}: {way_out}"
        )

    def encode_iterable(self, texts):
        """Yields the ids of one text that comes in pieces, such as the lines of a file."""
        for text in texts:
            yield from self.encode(text).tolist()

    def decode(self, ids):
        """ids, a tensor (T,) or a list of integers -> text. Raises: ValueError for an id that no character has."""
        ids = torch.as_tensor(ids)
        if ids.dim() != 1:
            raise ValueError(
                f"ids have the shape {tuple(ids.shape)}; one text is (T,): take one row, ids[0]"
            )
        characters = []
        for i in ids.tolist():
            # Python would silently take -1 for the last character.
            if not 0 <= i < self.vocab_size:
                raise ValueError(
                    f"id {i} is out of range: valid ids are 0 to {self.vocab_size - 1}"
                )
            characters.append(self.alphabet[i])
        return "".join(characters)

    def to_dict(self):
        """The tokenizer in plain values, for JSON."""
        return {"type": "char", "alphabet": self.alphabet}

    @classmethod
    def from_dict(cls, saved):
        """The tokenizer that `to_dict` described. Raises: ValueError for an invalid alphabet."""
        alphabet = saved.get("alphabet")
        if not isinstance(alphabet, str) or not alphabet:
            raise ValueError("the tokenizer has no alphabet")
        if alphabet != "".join(sorted(set(alphabet))):
            # An id is a position: in another order, every id would mean another character.
            raise ValueError("the alphabet must be a string of distinct characters in sorted order")
        return cls(alphabet)

    def save(self, path):
        """Writes the tokenizer as JSON. Raises: OSError."""
        atomic_write_text(path, json.dumps(self.to_dict()))

    @classmethod
    def load(cls, path):
        """The tokenizer that `save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

# %%
tokenizer = CharTokenizer.from_text(text)
print(tokenizer.encode("goose"))
print("there and back:", repr(tokenizer.decode(tokenizer.encode(EXAMPLE))))
assert tokenizer.decode(tokenizer.encode(EXAMPLE)) == EXAMPLE
try:
    tokenizer.encode("O damp café!")
except ValueError as error:
    print(error)

# %% [markdown]
# Characters are not the only way to cut a text into symbols: lesson 14 cuts it into pieces of words. The rest of the library works with any tokenizer that has the following:

# %%
#| export
class Tokenizer(Protocol):
    """What the library requires of a tokenizer, such as `CharTokenizer`. Only the tokenizer knows what its ids mean.

    A tokenizer whose unit is not "character" also has `tokens`, a list: the bytes of each id.
    """

    vocab_size: int  # ids go from 0 to vocab_size - 1
    unit: str  # what an id stands for, in words: "character", "token"

    def encode(self, text):
        """text -> ids (T,) int64. Raises: ValueError for what has no id."""

    def encode_iterable(self, texts):
        """Yields the ids of one text that comes in pieces; memory need not hold them all."""

    def decode(self, ids):
        """ids (T,) -> text."""

    def to_dict(self):
        """Plain values for JSON, one of them the `type`; equal values mean equal tokenizers."""

    def from_dict(cls, saved):
        """The tokenizer that `to_dict` described."""

    def save(self, path):
        """Writes to_dict() as JSON."""

    def load(cls, path):
        """The tokenizer that `save` wrote."""

# %% [markdown]
# A saved model needs its tokenizer, or nobody can read what the model writes. `save` writes a small file, `tokenizer.json`, which names the type of the tokenizer. `load_tokenizer` finds the class by that type. (It also reads `alphabet.json`, the form in which earlier versions of this course saved an alphabet.)

# %%
#| export
# The class of each type, as module:name. A file names only a type, so no file can make us import other code.
TOKENIZERS = {"char": "chargpt_lib.data:CharTokenizer", "bpe": "chargpt_lib.bpe:BPETokenizer"}


def tokenizer_from_dict(saved):
    """The tokenizer, of any known class, that `to_dict` described. Raises: ValueError."""
    if isinstance(saved, str):  # alphabet.json of earlier versions
        saved = {"type": "char", "alphabet": saved}
    if not isinstance(saved, dict):
        raise ValueError("expected a tokenizer as a JSON object")
    if isinstance(saved.get("model"), dict):
        raise ValueError(
            "this is a tokenizer of Hugging Face's library: read_hf_tokenizer in chargpt_lib.formats.hf_tokenizers "
            "reads it, and chargpt import the whole model"
        )
    kind = saved.get("type", "char")  # the first versions of `save` wrote no type
    if not isinstance(kind, str) or kind not in TOKENIZERS:
        raise ValueError(f"unknown tokenizer type {kind!r} (known: {', '.join(TOKENIZERS)})")
    module, name = TOKENIZERS[kind].split(":")
    return getattr(import_module(module), name).from_dict(saved)


def load_tokenizer(path):
    """The tokenizer in a file that `save` wrote, or in the folder of a saved model.

    Raises: OSError for a missing file, ValueError for a file without a tokenizer.
    """
    path = Path(path)
    if path.is_dir():
        older = path / "alphabet.json"
        path = path / "tokenizer.json"
        if older.exists() and not path.exists():
            path = older
    try:
        return tokenizer_from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:  # RecursionError: JSON of a thousand brackets
        raise ValueError(f"{path}: {error}") from None

# %%
from tempfile import TemporaryDirectory

with TemporaryDirectory() as folder:
    tokenizer.save(Path(folder, "tokenizer.json"))
    print(Path(folder, "tokenizer.json").read_text())
    again = load_tokenizer(folder)
print("read again:", repr(again.decode(tokenizer.encode(EXAMPLE))))

# %% [markdown]
# ## Training and validation text
#
# A model with enough parameters can learn a text by heart. To see whether it has understood something, we test it on a text that it has never seen: the **validation** text.
# With a book, we keep the last part for this. Playhouse simply writes a second text from another seed, that is, with other random draws.
#
# Here is the first exercise. In an exercise's cell, replace the line `raise NotAttempted` by your answer and run the cell; then run the `check` below it. `check` tries your answer on many inputs and says ✓, or which input it fails on and what may be wrong; call it as often as you like. One to three stars say how hard an exercise is. No later cell needs your answers, so you may skip any exercise. The right answers stand in the solved notebooks, in the folder `notebooks/solutions` of the repository.
#
# ### Exercise: the last part of a book
# ★ · 5 minutes · No result of the course is worth anything without this cut.
#
# Cut a text in two. The last `percent` per cent of its characters are for validation, and all before them for training. If the cut does not fall between two characters, round the length of the training text down; the validation text gets the rest. For example, 90% of 37 characters are 33.3, so 33 are for training and 4 for validation. Compute with whole numbers (`//` divides and rounds down): to a computer, `90 * (1 - 30 / 100)` is 62.99999999999999.

# %% tags=["exercise"] exercise="train_val_split"
def train_val_split(text, percent):
    """A text and a whole number from 1 to 99 -> [training text, validation text]; together they are the text."""
    ### BEGIN SOLUTION
    cut = len(text) * (100 - percent) // 100
    return [text[:cut], text[cut:]]
    ### END SOLUTION

# %%
check("train_val_split", train_val_split)

# %% [markdown]
# A corpus is both texts. For Playhouse it also holds two things that only the grammar knows. Both use the **nat**, a unit of surprise that the last part of this page explains. The first is the **entropy** of the second text: how much each character surprises, on average, a reader who knows the whole grammar. No model can be less surprised on average, so the field calls the entropy the irreducible loss; we call it **the floor**. The second is the **spans**: for every stretch of the text, they say whether it is spelling, grammar, a name, and so on.

# %%
#| export
class Corpus(NamedTuple):
    """Two texts, and what is known about the second (Playhouse only)."""

    name: str
    train: str
    val: str
    val_entropy: float | None = None  # entropy of val, the irreducible loss, in nats per character
    val_spans: tuple = ()  # (start, end, kind, nats) of each stretch of val


DOWNLOADABLE_CORPORA = {  # name: (file, sha256, share of the text for training, address)
    "shakespeare": (
        "tinyshakespeare.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        0.9,
        "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/"
        "data/tinyshakespeare/input.txt",
    ),
    "oz": (
        "wizard_of_oz.txt",
        "29839f158eb174acb97433006bf2b19d9d2446b9589fec9d39c794fab155f1ec",
        0.8,
        "https://raw.githubusercontent.com/ddycai/random-sentence-generator/"
        "44951393888c203ffd4053215e6499c69ff87324/wizard_of_oz.txt",
    ),
}

# %% [markdown]
# `fetch` (`chargpt_lib/files.py`) downloads the books. Three things can go wrong: there is no network, only half the file arrives, or it is the wrong file. So the library `pooch` downloads under a temporary name and compares the file's sha256, its fingerprint, before it gives the file its real name.
# If you have the files already, set `CHARGPT_DATA` to their folder.

# %% [markdown]
# A text file from Windows ends its lines with two characters, `\r\n`. The `\r` would become a symbol of the alphabet that is trivial to predict, and the loss would look better than it is. So `load_corpus` turns all line ends into `\n` first.

# %%
#| export
def load_corpus(source="playhouse"):
    """'playhouse', 'shakespeare', 'oz', the path of a text file or its address -> Corpus.

    UTF-8 only. The last tenth of a text is for validation (of Oz the last fifth).

    Raises: FileNotFoundError for any other name, OSError where a download fails, ValueError for an
    address without a file, and for a file that is not UTF-8 or has fewer than 20 characters.
    """
    name = str(source)
    if name == "playhouse":
        # As long as Tiny Shakespeare's two parts: on both corpora a model reads equally much.
        train = write(min_chars=1_003_854, seed=1337)
        val = write(min_chars=111_540, seed=2024)
        return Corpus(name, train.text, val.text, val.entropy, tuple(val.spans))
    share = 0.9
    if name in DOWNLOADABLE_CORPORA:
        file, sha256, share, url = DOWNLOADABLE_CORPORA[name]
        path = fetch(file, url, sha256)
    elif name.startswith(("http://", "https://")):
        host, _, file = name.partition("://")[2].rstrip("/").rpartition("/")
        if not host:
            raise ValueError(f"{name} is not a whole address: https://HOST/FILE is one")
        path = fetch(file, name)
    else:
        path = Path(name)
        if not path.is_file():
            problem = f"no corpus and no file is called {name!r}"
            if name != "" and path.is_dir():
                problem = f"{name!r} is a folder"
            raise FileNotFoundError(
                f"{problem}: give 'playhouse', 'shakespeare', 'oz', "
                f"the path of a text file, or an address that begins with http"
            )
    try:
        # "utf-8-sig" drops the byte-order mark that Windows programs write first. All line ends become "\n".
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}. Save it as "
            f"UTF-8 (most editors: Save as, Encoding) and try again"
        ) from None
    if len(text) < 20:
        raise ValueError(
            f"{path} has {len(text)} characters, but at least 20 are needed: to train on one part "
            f"and test on another"
        )
    # The end of the text, not random pieces: a neighbour of a training window is nearly the window itself.
    cut = int(share * len(text))
    return Corpus(name, text[:cut], text[cut:])

# %% [markdown]
# Every lesson has the next line. Put `"shakespeare"`, `"oz"`, or the path of a text of your own between the quotes, and run the page again. (Your own text should have a hundred thousand characters or more, and the letters of `O damp goose!` among them.)

# %%
CORPUS = "playhouse"

# %%
corpus = load_corpus(CORPUS)
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
train_ids, val_ids = tokenizer.encode(corpus.train), tokenizer.encode(corpus.val)
print(f"{corpus.name}: {len(train_ids):,} ids to train on, {len(val_ids):,} to validate on")
print(tokenizer.vocab_size, "symbols")

# %% [markdown]
# ## Batches
#
# We cut short windows out of the million ids, at random places. The **block size** says how many characters a model sees at once.
# A window of 8 characters is 8 exercises at once: after the first comes the second, after the first two comes the third, and so on.

# %%
window = train_ids[:9]
x, y = window[:-1], window[1:]
for t in range(8):
    print(f"after {tokenizer.decode(x[: t + 1])!r:10} comes {tokenizer.decode(y[t : t + 1])!r}")

# %% [markdown]
# The targets `y` are the inputs `x`, moved by one. Several windows on top of each other are a **batch**. From here on, `B` is the number of windows and `T` the number of characters in each.
#
# To cut many windows at once, we need many positions at once. A column plus a row gives a table: each start, plus 0, 1, 2, 3. And a tensor takes a table of positions as an index.

# %%
starts = torch.tensor([[10], [50]])  # (2, 1)
positions = starts + torch.arange(4)  # (2, 1) + (4,) -> (2, 4)
print(positions)
print(train_ids[positions])

# %% [markdown]
# Here is a first try: a function that cuts windows at given starts. It runs, and its shapes are right. Most of its numbers are right, too, but not all.

# %%
def buggy_windows(ids, starts, block_size):
    x = torch.stack([ids[start : start + block_size] for start in starts.tolist()])
    y = x.roll(-1, dims=1)
    return [x, y]


x, y = buggy_windows(tokenizer.encode(EXAMPLE), torch.tensor([2]), block_size=6)
print(repr(tokenizer.decode(x[0])), repr(tokenizer.decode(y[0])))

# %% [markdown]
# ### Exercise: find the bug in the windows
# ★★ · 5 minutes · The longer the window, the better the bug hides: the loss still falls, and nobody notices.
#
# What comes after `damp g`? Write the function again, without the bug. $N$ is the length of the text, $B$ the number of windows, $T$ the block size. With the ids `10 11 12 13 14`, the start 1 and $T = 3$, the window is `11 12 13` and its targets are `12 13 14`. (Here `starts` is a row, (B,). To get a table by adding a row to it, turn it into a column, (B, 1), with `starts[:, None]`.)

# %% tags=["exercise"] exercise="batch_windows"
def batch_windows(ids, starts, block_size):
    """ids (N,), starts (B,), both int64, each start + T < N -> [x, y], both (B, T) int64.

    Row b of x is the window that begins at starts[b]; y[b, t] is the id that follows x[b, t] in the text.
    """
    ### BEGIN SOLUTION
    windows = ids[starts[:, None] + torch.arange(block_size + 1)]  # (B, T + 1)
    return [windows[:, :-1], windows[:, 1:]]
    ### END SOLUTION

# %%
check("batch_windows", batch_windows)

# %%
#| export
def get_batch(ids, block_size, batch_size, generator=None, device="cpu"):
    """Random windows of a text.

    ids (N,) int64 -> x, y, both (B, T) int64 with B = batch_size and T = block_size; y is x moved by one.

    Raises: ValueError where the text is shorter than a window and its last target.
    """
    if len(ids) <= block_size:
        raise ValueError(
            f"the text has {len(ids)} ids, but a window needs block_size + 1 = {block_size + 1}: "
            f"use a longer text, or block_size <= {max(len(ids) - 1, 0)}"
        )
    # The last start is N - T - 1, because the last window has a target after it.
    starts = torch.randint(len(ids) - block_size, (batch_size, 1), generator=generator)
    windows = ids[starts + torch.arange(block_size + 1)].to(device)  # (B, T + 1)
    return windows[:, :-1], windows[:, 1:]  # the targets are the inputs, moved by one

# %% [markdown]
# A **generator** is PyTorch's source of random numbers. With a fixed seed it draws the same numbers each time.

# %%
x, y = get_batch(
    train_ids, block_size=16, batch_size=4, generator=torch.Generator().manual_seed(1337)
)
print(x.shape, y.shape)
print(x[0])
print(y[0])

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 1.9), layout="constrained")
for ax, batch, title in zip(axes, (x, y), ("x: what the model sees", "y: what comes next")):
    chars = [visible(tokenizer.decode(row)) for row in batch]
    heatmap(ax, batch, cells=chars, vmax=tokenizer.vocab_size)
    ax.set(title=title + ", (B, T)", xlabel="position t", ylabel="window b", yticks=range(4))
show(
    fig,
    "Two grids of 4 rows and 16 columns of characters, coloured by id. "
    "The right grid is the left one, moved by one to the left.",
)

# %% [markdown]
# ## Cross-entropy and entropy
#
# A model gives a probability to every character that might come next. If the model gave $q$ to the one that came, it pays $-\ln q$ **nats**: this is the **price** of the character, or its *surprise*. ($\ln$ is the natural logarithm, `math.log` in Python; `math.log2` would count in bits.)
#
# **Predict:** what does a probability of 1 cost? And how much more does a probability cost that is ten times smaller?

# %%
print("probability     price")
for q in (1, 0.5, 0.1, 0.01, 0.001):
    print(f"{q:<11} {math.log(1 / q):5.2f} nats")  # ln(1 / q) = -ln q

# %% [markdown]
# Certainty is free, and each factor of ten costs $\ln 10 \approx 2.30$ nats more. The model's **loss**, the *cross-entropy*, is its mean price, in nats per character.
#
# ### Exercise: what does knowing next to nothing cost?
# ★ · 2 minutes · A new model knows nothing. If you can say what its first loss must be, you see before the training starts whether something is broken.
#
# An alphabet has $V$ symbols. Somebody knows that some of them, `ruled_out` in number, cannot come next, and gives the others equal chances. What does the next character cost, in nats? Write the formula down before you run anything.

# %% tags=["exercise"] exercise="uniform_loss"
def uniform_loss(vocab_size, ruled_out):
    """Two whole numbers, 0 <= ruled_out < vocab_size -> a float: nats for a character that is not ruled out."""
    ### BEGIN SOLUTION
    return math.log(vocab_size - ruled_out)
    ### END SOLUTION

# %%
check("uniform_loss", uniform_loss)

# %% [markdown]
# Now the same with our text. In the training text, some symbols never come after a `g`. The next cell prints what a model pays on the validation text, for each character after a `g`, if it gives equal chances to all the other symbols (try your function on the first two numbers).
#
# `ids[:-1] == g` is True or False for each position; as an index, such a **mask** keeps the places that are True. `~` turns True into False. (In a text of your own, the validation part may have a pair of characters that the training part lacks; then the cell prints `inf`, and lesson 01 says why.)

# %%
g = tokenizer.encode("g").item()
came = train_ids[1:][train_ids[:-1] == g]  # what came after each g
possible = torch.bincount(came, minlength=tokenizer.vocab_size) > 0
chances = possible / possible.sum()
after_g = val_ids[1:][val_ids[:-1] == g]
print(tokenizer.vocab_size, "symbols,", (~possible).sum().item(), "ruled out:", end=" ")
print(f"{-chances[after_g].log().mean():.2f} nats per character")

# %% [markdown]
# Somebody who knows nothing gives each of the $V$ symbols the same chance, $1/V$, and pays $\ln V$ each time.
# Somebody who knows how frequent the characters are pays less. If $p_c$ is the share of the character $c$ in the text, the average is
#
# $$H(p) = -\sum_c p_c \ln p_c ,$$
#
# the **entropy** of the characters.
#
# ### Exercise: the entropy of a text
# ★★ · 6 minutes · Shannon (1951) measured English like this, from tables of letters that others had counted by hand.
#
# Write the function that measures $H(p)$ of any text: each character that occurs in it gives one term, and its share $p_c$ is how often it occurs, divided by the length of the text. In `goose!` two of six characters are `o`, and four others occur once: $H(p) = -\frac{2}{6} \ln \frac{2}{6} - 4 \cdot \frac{1}{6} \ln \frac{1}{6} \approx 1.561$ nats.

# %% tags=["exercise"] exercise="character_entropy"
def character_entropy(text):
    """A text of at least one character -> a float: the entropy of its characters, in nats per character."""
    ### BEGIN SOLUTION
    shares = [text.count(char) / len(text) for char in set(text)]
    return -sum(share * math.log(share) for share in shares)
    ### END SOLUTION

# %%
check("character_entropy", character_entropy)

# %% [markdown]
# ### The floor, and the price of errors
#
# Symbols come with the probabilities $p_c$, and a model believes in others, $q_c$. On average it pays the cross-entropy $H(p, q) = -\sum_c p_c \ln q_c$, and this is a sum of two terms:
#
# $$H(p, q) = H(p) + \mathrm{KL}(p \,\|\, q), \qquad \mathrm{KL}(p \,\|\, q) = \sum_c p_c \ln \frac{p_c}{q_c} .$$
#
# The first term, the entropy, does not depend on the model: it is the floor. The second, the *Kullback-Leibler divergence*, is what the model's errors cost. It is 0 for $q = p$ and never negative: since $\ln x \le x - 1$, $-\mathrm{KL} = \sum_c p_c \ln \frac{q_c}{p_c} \le \sum_c (q_c - p_c) = 0$.
#
# The grammar opens a speech (unless it is an answer) with one of six words, and we know their weights. One model gives all six the same probability; another is almost sure of `You`. **Predict:** which of the two has the larger KL, and is either KL larger than the floor?

# %%
p = torch.tensor([3, 2, 2, 4, 5, 2]) / 18  # The, All, As, Who, You, O
models = {
    "equal chances": torch.full((6,), 1 / 6),
    "sure of `You`": torch.tensor([0.005, 0.005, 0.005, 0.005, 0.975, 0.005]),
}
for name, q in models.items():
    cross_entropy = -(p * q.log()).sum()
    entropy = -(p * p.log()).sum()
    kl = (p * (p / q).log()).sum()
    print(f"{name}: H(p, q) = {cross_entropy:.3f} nats, ", end="")
    print(f"H(p) + KL(p || q) = {entropy:.3f} + {kl:.3f} = {entropy + kl:.3f}")
    assert round((cross_entropy - entropy - kl).item(), 4) == 0

# %% [markdown]
# Equal chances are nearly right, although this model knows no weights. False certainty costs more than the whole floor: the price of a symbol has no upper limit.
#
# All this holds for averages over everything that $p$ may write. One text is one draw: even the grammar itself, with $q = p$, pays a different price for each page, because each page has its own random choices. **Predict:** of 60 pages of about 1,000 characters, how many cost less per character than $H$, the average? And of texts of 30,000 characters?

# %%
def price_per_character(length, texts):
    """The prices under the grammar itself of so many texts, in nats per character, and their average."""
    scripts = [write(min_chars=length, seed=seed) for seed in range(texts)]
    average = sum(script.entropy * len(script.text) for script in scripts)
    return [script.entropy for script in scripts], average / sum(len(s.text) for s in scripts)


pages, _ = price_per_character(1000, texts=60)
long_texts, H = price_per_character(30_000, texts=30)
for name, prices in (("pages", pages), ("long texts", long_texts)):
    below = sum(price < H for price in prices)
    print(
        f"{name}: {min(prices):.3f} to {max(prices):.3f}, {below} of {len(prices)} below H = {H:.3f}"
    )

# %%
fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.plot(range(60), pages, "o", color="#0072B2", label="pages of 1,000 characters")
ax.plot(range(60, 90), long_texts, "D", color="#D55E00", label="texts of 30,000 characters")
ax.axhline(H, color="black", linestyle=":", label="H, the average")
ax.set(
    xlabel="text", ylabel="nats per character", title="What texts cost the grammar that wrote them"
)
fig.legend(frameon=False, loc="outside lower center", ncols=3)
show(
    fig,
    "Points scattered around the line of the average: pages of 1,000 characters widely, many of them below; "
    "texts of 30,000 characters closely.",
)

# %% [markdown]
# So a loss below the floor on a short text is luck: its random choices happened to be the likely ones. Lesson 06 has a plot that dips below the floor for this reason. The floor of our pictures is the price, under the grammar, of the validation text itself, which is so long that luck hardly matters.
#
# **Predict:** is somebody who knows the frequencies closer to knowing nothing or to knowing everything? (We take the shares from the training text as $q_c$, and measure on the validation text. `clamp_min` keeps a character that is not in the training text from costing infinitely much.)

# %%
q = torch.bincount(train_ids, minlength=tokenizer.vocab_size) / len(train_ids)  # (V,)
uniform = torch.tensor(float(tokenizer.vocab_size)).log()
by_frequency = -(q.clamp_min(1e-9)[val_ids].log()).mean()
print(f"knows nothing:            {uniform:.2f} nats per character")
print(f"knows the frequencies:    {by_frequency:.2f}")
print(f"knows the whole grammar:  {corpus.val_entropy or float('nan'):.2f}")  # nan: nobody knows it

# %% [markdown]
# Between the second number and the third lies all the structure: words, sentences, scenes. What a model pays above the floor is its **excess**, an estimate of KL. The spans split the excess by kind of text. Here is a scene with its spans:

# %%
from chargpt_lib.plots import plot_excess, plot_spans

one_scene = write(min_chars=1, seed=1262)
show(
    plot_spans(one_scene.text, one_scene.spans),
    "A scene of five lines. The letters that decide a choice stand on the colour of their kind; the rest, "
    "most of the text, is underlined: spelling.",
)
print("what the first line costs somebody who knows the grammar:")
for start, end, kind, nats in one_scene.spans[:14]:
    if nats > 0:
        print(f"{one_scene.text[start:end]!r:7} {kind:8} {nats:.2f} nats")

# %% [markdown]
# Only the letters that decide cost anything: after `A di` only `tch` can follow. Four of the kinds need an explanation. **Cast**: who enters, and with what, drawn anew for each scene. **Addressee**: who is spoken to. **Copied name**: a person or thing that the scene has named before, such as the next speaker (`Zed:`) or the one who leaves (`Exit Zed`). **Closing**: the end of something that was begun: the `'` after a quotation, or the prop in the last line.

# %%
from chargpt_lib.playhouse import KINDS

paid = {
    "knows nothing": uniform.expand(len(val_ids)),
    "knows the frequencies": -q.clamp_min(1e-9)[val_ids].log(),
}
if corpus.val_spans:
    excesses = {
        name: excess_by_kind(nats.tolist(), corpus.val_spans) for name, nats in paid.items()
    }
    show(
        plot_excess(excesses, corpus.val_entropy),
        "Stacked bars: knowing nothing costs 4 nats a character, most of "
        "it for spelling; knowing the frequencies 3.3; the floor, in grey, is 0.3.",
    )
    for name, excess in excesses.items():
        last_four = sum(excess[kind] for kind in KINDS[3:])  # cast, addressee, copied name, closing
        print(
            f"{name:21}  spelling {excess['spelling']:.2f}, the last four kinds together {last_four:.2f}"
        )

# %% [markdown]
# The floor is grey: no model can avoid paying it. Most of the rest is spelling, which will go first. The stripes at the right end, from the cast to the closings, are a quarter of a nat at most. Two of them, copied names and closings, will go last, because a model must remember in order to predict them.
# The last four kinds cost more here with the frequencies than without: many of them are decided by a capital letter, and each capital is rarer than equal chances would make it.
#
# The next six lessons go down from here as on a ladder. Each model is a **rung**, and each lesson ends with a picture like this one.
#
# For other texts nobody knows the floor. But their losses have been measured, and come with the course:

# %%
from chargpt_lib.files import bundled_results

for name in ("playhouse", "shakespeare"):
    print(
        f"{name:12} by frequencies {bundled_results()[name]['frequencies']['loss']:.2f} nats per character"
    )
assert uniform - by_frequency > 0.3 or corpus.name != "playhouse"
assert bundled_results()["shakespeare"]["frequencies"]["loss"] > 3

# %% [markdown]
# ## Choosing a device
#
# The lessons run on a CPU. A graphics card is faster, if PyTorch can really use it: PyTorch lists some old cards as usable, and then their first operation fails. So `pick_device` tries one operation before it chooses a card. (The setup cell on top of each page prints the chosen device. A card's *compute capability* counts NVIDIA's generations of cards.)
#
# The work that fills a CPU hardly keeps a card busy, so on a card the lessons train on eight times as many windows in each step. The line `scale = pick_scale(device)` does this in every lesson that trains. You can put a number of your own there.

# %% tags=["nbval-ignore-output"]
from chargpt_lib.devices import pick_device, pick_device_and_reason, pick_scale

device, why = pick_device_and_reason()
print(f"{device} ({why}), scale {pick_scale(device)}")

# %%
assert device.type in ("cpu", "cuda", "mps") and device == pick_device()

# %% [markdown]
# ## Mistakes people make
#
# - **An alphabet from the training text only.** The first unknown character in the validation text stops everything. Build it from both.
# - **Targets off by one.** `y = x` makes a model that copies, with a loss near zero; `y` moved by two makes one that cannot spell. Print one window, as above.
# - **Random characters as validation.** Neighbours of a training window are nearly the window itself. Keep one whole stretch apart, or, as Playhouse does, write a second text.
# - **`\r\n`.** One symbol more that is always easy to guess: the loss falls, and nothing was learnt.
#
# ## Exercises
#
# ### Exercise: fewer, longer symbols
# ★★★ · 25 minutes · The large models do not read characters. They read pieces of words, which **byte-pair encoding** (BPE) makes (Sennrich et al., 2016).
#
# Begin with ids below `vocab_size`. One **merge**, one step of BPE, does the following. (Lesson 14 builds all of BPE.)
#
# 1. Count the pairs of neighbours, overlapping ones too: `a a a b` has the pairs `aa`, `aa`, `ab`.
# 2. Take the most frequent pair. If several are equally frequent, take the smallest: the one with the smaller first id; if that is the same, the one with the smaller second id.
# 3. Go through the list from left to right and put a new symbol wherever that pair stands. Each id is used only once: of `a a a`, only the first two become the new symbol.
#
# The first merge makes the id `vocab_size`, the second `vocab_size + 1`, and so on; each merge counts again, in the list that the merge before it left. A pair that occurs once is merged too. A list of fewer than two ids has no pair: it stays as it is.
#
# Two merges, with `vocab_size` 10: from `1 2 1 2 3 1 2` the first makes `10 10 3 10` (the pair `1 2` occurs three times). Now each pair occurs once; the smallest is `3 10`, and the second merge gives `10 10 11`.

# %% tags=["exercise"] exercise="merge_pairs"
def merge_pairs(ids, vocab_size, merges):
    """ids: a list of whole numbers from 0 to vocab_size - 1 -> a new list, the ids after that many merges."""
    ### BEGIN SOLUTION
    for new in range(vocab_size, vocab_size + merges):
        pairs, merged = list(zip(ids, ids[1:])), []
        best = max(sorted(set(pairs)), key=pairs.count, default=None)
        for i in ids:
            if merged and (merged[-1], i) == best:
                merged[-1] = new
            else:
                merged.append(i)
        ids = merged
    return ids
    ### END SOLUTION

# %%
check("merge_pairs", merge_pairs)

# %% [markdown]
# One such symbol stands for several characters, so nats per symbol cannot be compared with nats per character. Always divide by the number of characters, whatever the model reads.
#
# How far you have come:

# %%
progress()

# %% [markdown]
# ## Summary
#
# `load_corpus`, `CharTokenizer`, `load_tokenizer` and `get_batch`, in `chargpt_lib/data.py`.
#
# Next: [01 · Bigram](01_bigram.ipynb), the simplest model that writes.
