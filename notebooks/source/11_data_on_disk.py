# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 11 · Data on disk
#
# You will build: a text that is larger than the memory, as a folder of numbers that a training reads page by page: written once, shuffled anew in every epoch, shared among processes.
# You need lessons 00, 09 and [10's first page](10_recipe.ipynb). On two CPU cores the page takes a quarter of a minute, and a hundred megabytes of disk for that time.
#
# So far the whole text lay in memory, twice: as characters and as ids. A million characters allow that, and a billion does on a good computer. What people call "a text" these days has a hundred times more. It lies on a disk, and there it has to stay.

# %%
#| default_exp shards

# %%
#| key
import torch

from chargpt_lib.checks import NotAttempted, exercise

# %%
import json
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy
import torch

from chargpt_lib.checks import NotAttempted, check, progress
from chargpt_lib.data import CharTokenizer, load_corpus, show
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.recipe import Windows
from chargpt_lib.training import evaluate

# %%
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus = load_corpus(CORPUS)
text = corpus.train + corpus.val
tokenizer = CharTokenizer.from_text(text)
place = tempfile.TemporaryDirectory()  # all that this page writes; it goes when the page ends
folder = Path(place.name)

# %% [markdown]
# ## What a text weighs
#
# **Predict:** the file has one byte for each character (of English, in UTF-8). How many has Python's `str`? How many have the ids?

# %%
ids, n = tokenizer.encode(text), len(text)
for what, size in (
    ("the file", len(text.encode())),
    ("the str", sys.getsizeof(text)),
    ("the str, with one goose 🪿 at its end", sys.getsizeof(text + "🪿")),
    ("the list that encode makes on its way", sys.getsizeof(ids.tolist())),
    ("the ids, int64", ids.nbytes),
    ("the ids, uint16", ids.numpy().astype("uint16").nbytes),
    ("lesson 10's order of the windows, of 256", Windows(ids, 256, seed=1337).order(0).nbytes),
):
    print(f"{what:41} {size / n:5.2f} bytes per character")

# %% [markdown]
# A `str` spends the same number of bytes on each of its characters. One goose needs four, so all have four. And an id of type int64 has eight bytes, seven of which are zero. Embeddings want int64, but only for the few windows of a batch; the rest may wait in a smaller type. (The list's eight bytes are only pointers to its numbers.)
#
# Ten gigabytes of text are ten gigabytes of `str`, eighty of list, eighty of ids. As uint16, whole numbers from 0 to 65,535, they are twenty, and they need not be in memory.
#
# ### Exercise: how many bytes?
# ★ · 3 minutes · The first question to any data set: will it fit?
#
# A text of `n` symbols, with a vocabulary of `vocab_size` different ones, ids from 0 to `vocab_size` - 1, is written to disk. numpy has unsigned whole numbers of 1, 2, 4 and 8 bytes; $k$ bytes hold the numbers from 0 to $256^k - 1$. Take the smallest that holds all ids. How many bytes has the file? With 1000 symbols and a vocabulary of 300 it has 2000.

# %% tags=["exercise"] exercise="bytes_on_disk"
def bytes_on_disk(n, vocab_size):
    """Two whole numbers, n from 0 on, vocab_size from 1 to 2**64 -> int: the bytes of the file."""
    ### BEGIN SOLUTION
    for width in (1, 2, 4, 8):
        if vocab_size <= 256**width:
            return n * width
    ### END SOLUTION

# %%
check("bytes_on_disk", bytes_on_disk)

# %%
#| key
### BEGIN SOLUTION
def bytes_on_disk_as(n, vocab_size, fits=lambda V, width: V <= 256**width, widths=(1, 2, 4, 8)):
    return n * next((width for width in widths if fits(vocab_size, width)), widths[-1])
### END SOLUTION


exercise(
    bytes_on_disk, stars=1, minutes=3,
    cases=lambda draw: [
        [draw.integer(100, 900), draw.integer(40, 128)], [draw.integer(100, 900), draw.integer(129, 255)],
        [draw.integer(100, 900), 256], [draw.integer(100, 900), 257],
        [draw.integer(100, 900), draw.integer(40_000, 60_000)], [draw.integer(100, 900), 65_536],
        [draw.integer(100, 900), draw.integer(65_537, 300_000)], [draw.integer(1, 9), draw.integer(2**33, 2**34)],
        [0, draw.integer(1, 9)], [draw.integer(10, 99), 1], [1, 2**32]],
    wrong={
        ### BEGIN SOLUTION
        "256 ids go from 0 to 255, and that fits into one byte: `<=`, not `<`":
            lambda n, V: bytes_on_disk_as(n, V, lambda V, width: V < 256**width),
        "the ids end at vocab_size - 1: one more than 256^k does not fit into k bytes":
            lambda n, V: bytes_on_disk_as(n, V, lambda V, width: V - 1 <= 256**width),
        "the types are unsigned: no bit is lost to a sign":
            lambda n, V: bytes_on_disk_as(n, V, lambda V, width: V <= 256**width // 2),
        "these are bits: a byte has 8 of them": lambda n, V: 8 * bytes_on_disk_as(n, V),
        "there is no type of 3 bytes, nor of 5, 6 or 7": lambda n, V: bytes_on_disk_as(n, V, widths=range(1, 9)),
        "that packs bits: each id has a type of whole bytes": lambda n, V: (n * max((V - 1).bit_length(), 1) + 7) // 8,
        "that is int64, eight bytes for each id: take the smallest type that holds them": lambda n, V: 8 * n,
        "always two bytes: some vocabularies need only one, others more": lambda n, V: 2 * n,
        "two bytes at least: 256 different ids fit into one": lambda n, V: bytes_on_disk_as(n, V, widths=(2, 4, 8)),
        "it goes no further than four bytes": lambda n, V: bytes_on_disk_as(n, V, widths=(1, 2, 4)),
        "it goes no further than two bytes": lambda n, V: bytes_on_disk_as(n, V, widths=(1, 2)),
        "that is the width of one id: the file has n of them": lambda n, V: bytes_on_disk_as(1, V),
        ### END SOLUTION
    },
)

# %% [markdown]
# ## A file that pretends to be memory
#
# Every program believes that it has one long memory. The system keeps a table behind it: this **page** of 4,096 bytes (or 16,384) lies there in the chips, that one nowhere yet. To **map** a file means to enter it into this table. Nothing is read. Only when the program touches a place does the system notice that the page is missing, fetch it from the disk, and let the program go on. Pages that nobody has touched for a while make room for others.
#
# Here is the smallest file, mapped.

# %%
toy = folder / "toy.bin"
toy.write_bytes(tokenizer.encode("O damp goose!").numpy().astype("<u2").tobytes())  # <: the low byte first
mapped = numpy.memmap(toy, dtype="<u2", mode="r")
print(toy.stat().st_size, "bytes;", mapped[7:12], tokenizer.decode(mapped[7:12].astype("int64")))

# %% [markdown]
# It looks like an array. It is not a copy of the file, it *is* the file. So let us change the file behind its back.

# %%
with open(toy, "r+b") as file:
    file.seek(2 * 7)
    file.write(bytes([tokenizer.stoi["m"], 0]))
print(tokenizer.decode(mapped.astype("int64")))

# %% [markdown]
# Now a larger one, 64 megabytes. On Linux a process can ask how many megabytes of files are in its own part of the memory. (Elsewhere we do not ask, and the cell says `nan`.)

# %%
def resident_files():
    """Megabytes of mapped files that are in memory now, on Linux; elsewhere nan."""
    numbers = Path("/proc/self/statm")
    return int(numbers.read_text().split()[2]) * 4096 / 1e6 if numbers.exists() else float("nan")

# %% tags=["nbval-ignore-output"]
large = folder / "large.bin"
with open(large, "wb") as file:
    for _ in range(64):
        file.write(bytes(2**20))
before, sizes = resident_files(), {}
mapped = numpy.memmap(large, dtype="<u2", mode="r")
sizes["mapped"] = resident_files() - before
mapped[20_000_000:20_000_100].sum()
sizes["a hundred ids read"] = resident_files() - before
mapped.sum()
sizes["all read"] = resident_files() - before
print(*(f"{name}: {size:.1f} MB" for name, size in sizes.items()), sep="\n")

# %%
del mapped
large.unlink()
if sizes["all read"] > 1:  # the system has told us
    assert sizes["mapped"] < 5 and sizes["a hundred ids read"] < 20 < sizes["all read"]

# %% [markdown]
# "All read" looks as if the memory were full again. It is only lent: what a page holds is on the disk, too, so the system may take the page back whenever somebody needs the room. That is why one can map a file that is larger than the memory.
#
# ## Writing
#
# The text has to become numbers without ever being in memory as a whole. So everything that follows works on pieces. First, where pieces come from: a file, a folder of `.txt` files, or anything that gives one text after the other: a list, or a data set with rows like `{"text": "O damp goose!"}`. As in lesson 00, files are UTF-8, and line ends from Windows become `\n`.

# %%
#| export
import codecs
import hashlib
import io
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy
import torch

from chargpt_lib.checkpoints import flush, put_json
from chargpt_lib.data import CharTokenizer

INDEX, VERSION, ID = "index.json", 1, "<u2"  # ids are uint16, the low byte first
PIECE = 2**20  # characters, or bytes, that are taken in hand at a time


def read_file(path):
    """A text file, piece by piece. ValueError where it is not UTF-8."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    with open(path, "rb") as file:
        while True:
            data = file.read(PIECE)
            try:
                yield decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                byte = file.tell() - len(error.object) + error.start
                raise ValueError(f"{path} is not UTF-8: byte {byte} is {error.object[error.start]:#04x}. Save it as "
                                 f"UTF-8 (most editors: Save as, Encoding) and try again") from None
            if not data:
                return


def row_text(row, name):
    """The text of a row, itself a text or a dict with one under "text", piece by piece."""
    text = row.get("text") if isinstance(row, Mapping) else row
    if not isinstance(text, str):
        what = f"a row with the columns {[*row]}" if isinstance(row, Mapping) else f"a {type(row).__name__}"
        raise ValueError(f"{name} is {what}, and no text: give texts, or rows with a text in the column 'text'")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return (text[start:start + PIECE] for start in range(0, len(text), PIECE))

# %% [markdown]
# Between two texts stands an empty line, as between the scenes of our plays. (A data set whose rows are single lines wants `separator="\n"`.) Each piece carries along where it comes from: an error message will need that.
#
# Rows may be short. A million calls for a million lines would take long, so pieces are tied into bundles of about a million characters.

# %%
#| export
def pieces(texts, separator):
    """A file, a folder of .txt files, or an iterable of texts or rows -> (where it comes from, a piece of text), ..."""
    if isinstance(texts, (str, Path)):
        files = sorted(Path(texts).glob("*.txt")) if Path(texts).is_dir() else [Path(texts)]
        if not files or not files[0].is_file():
            raise FileNotFoundError(f"{texts} is no file, and no folder with .txt files in it: give the path of one, "
                                    f"or put a text itself into a list, [text]")
        documents = ((str(path), read_file(path)) for path in files)
    else:
        documents = ((f"text {n}", row_text(row, f"text {n}")) for n, row in enumerate(texts))
    for n, (name, parts) in enumerate(documents):
        start = 0
        if n:
            yield "the separator", separator
        for part in parts:
            yield f"{name}, from character {start} on" if start else name, part
            start += len(part)


def bundles(pieces):
    """Pieces in lists of about a million characters, the last one shorter."""
    bundle, size = [], 0
    for piece in pieces:
        bundle.append(piece)
        size += len(piece[1]) + 32  # the shortest text takes room, too
        if size >= PIECE:
            yield bundle
            bundle, size = [], 0
    yield bundle

# %%
print(list(pieces(["O damp goose!", {"text": "O goose,\r\nO!"}], separator="\n\n")))

# %% [markdown]
# Lesson 00's `encode` asks a dict for each character, and makes a list. For a billion characters that is a coffee break. numpy can look up a whole array at once: the numbers that Unicode gives to the characters, and a table that has the id at that place.

# %%
numbers = numpy.frombuffer("goose".encode("utf-32-le"), "<u4")
table = numpy.zeros(128, "<u2")
table[[ord(char) for char in tokenizer.alphabet]] = range(tokenizer.vocab_size)
print(numbers, "->", table[numbers], "and encode:", tokenizer.encode("goose").tolist())

# %% [markdown]
# Characters without an id get a number of their own, `NO_ID`. If one turns up, the tokenizer itself is asked, piece by piece: its error names the character and what could be meant, and we add in which text it stands.

# %%
#| export
NO_ID = 2**16 - 1


def unicode_numbers(bundle):
    text = "".join(text for _, text in bundle)
    return numpy.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def alphabet_of(texts, separator):
    """All characters that occur, in their order."""
    occurs = numpy.zeros(sys.maxunicode + 1, bool)
    for bundle in bundles(pieces(texts, separator)):
        occurs[unicode_numbers(bundle)] = True
    return "".join(map(chr, occurs.nonzero()[0]))


def encoded(texts, tokenizer, separator):
    """The ids of the texts, uint16, about a million at a time. ValueError for a character that has none."""
    letters = [ord(char) for char in tokenizer.alphabet]
    table = numpy.full(max(letters) + 2, NO_ID, ID)
    table[letters] = range(len(letters))
    for bundle in bundles(pieces(texts, separator)):
        ids = table[unicode_numbers(bundle).clip(max=len(table) - 1)]
        for name, text in bundle if (ids == NO_ID).any() else ():
            try:
                tokenizer.encode(text)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        yield ids

# %% [markdown]
# ## Shards
#
# One file of a terabyte is hard to copy, and if it breaks, all is broken. So the ids go into **shards**, files of equal length (16 million ids, 32 megabytes; the last one is shorter). A raw file: ids and nothing else, not even a header. What one has to know about them is in a second file, the index: the alphabet, and of each shard its length and its sha256.

# %%
#| export
class Writer:
    """Ids come in pieces of any length; shards of `size` ids come out."""

    def __init__(self, folder, kind, size):
        self.folder, self.kind, self.size, self.shards, self.file = folder, kind, size, [], None

    def add(self, ids):
        try:
            while len(ids):
                if not self.file:
                    self.shards.append({"file": f"{self.kind}-{len(self.shards):05d}.bin", "ids": 0})
                    self.file, self.sha256 = open(self.folder / self.shards[-1]["file"], "wb"), hashlib.sha256()
                shard = self.shards[-1]
                part, ids = numpy.split(ids, [self.size - shard["ids"]])
                shard["ids"] += len(part)
                self.file.write(part.tobytes())
                self.sha256.update(part.tobytes())
                if shard["ids"] == self.size:
                    self.close()
        except OSError as error:
            path = self.folder / self.shards[-1]["file"]
            raise OSError(f"{path} could not be written ({error}): is the disk full?") from error

    def close(self):
        """Waits until the last shard is on the disk."""
        if self.file:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            self.shards[-1]["sha256"], self.file = self.sha256.hexdigest(), None

    def remove(self):
        if self.file:
            self.file.close()
        for shard in self.shards:
            (self.folder / shard["file"]).unlink(missing_ok=True)

# %% [markdown]
# Which part is for validation? The last tenth, as always; but of ten gigabytes a tenth is far more than anybody evaluates on, so at most `val_size` ids. Of a stream nobody knows where its last tenth begins. So the last `val_size` ids are always held back, and what is not the end after all goes on to the shards.
#
# The index is written last, with lesson 09's `put_json`. A folder without one is a writing that was never finished. If something goes wrong on the way, the shards are removed.

# %%
#| export
def write_shards(texts, folder, tokenizer=None, shard_size=2**24, val_size=2**17, separator="\n\n"):
    """Writes texts larger than the memory as ids: shards of uint16, and index.json.

    texts: the path of a file or of a folder of .txt files (in the order of their names), or an iterable of texts or of
    rows with a column "text", such as a Hugging Face dataset, streamed or not. separator stands between two texts.
    tokenizer: a CharTokenizer; without one the texts are read twice, the first time to find their alphabet.
    The last tenth is for validation, at most val_size ids; the rest is for training, shard_size ids a file.
    ValueError, naming the text, for a character without an id, and for what is no text; FileExistsError where the
    folder holds shards; OSError where it cannot be written. After an error nothing is left of the shards.
    """
    folder = Path(folder)
    for name, size, least in (("shard_size", shard_size, 1), ("val_size", val_size, 0)):
        if not isinstance(size, int) or size < least:
            raise ValueError(f"{name} is {size!r}; it has to be a whole number from {least} on")
    if old := [*folder.glob(INDEX), *folder.glob("*-[0-9]*.bin")]:
        raise FileExistsError(f"{folder} holds {old[0].name} of another writing: choose another folder, or delete it")
    if isinstance(texts, Mapping):
        raise ValueError(f"the texts are a dict with {[*texts]}, several data sets perhaps: give one of them")
    if tokenizer is None and not isinstance(texts, (str, Path)) and iter(texts) is texts:
        raise ValueError(f"the texts, a {type(texts).__name__}, can be read only once, and their alphabet has to be "
                         f"found first: give a tokenizer, or something that can be read twice, like a list")
    tokenizer = tokenizer or CharTokenizer(alphabet_of(texts, separator))
    if tokenizer.vocab_size > NO_ID:
        raise ValueError(f"an alphabet of {tokenizer.vocab_size} symbols is too large: shards hold at most {NO_ID}")
    folder.mkdir(parents=True, exist_ok=True)
    train, val, held, n = Writer(folder, "train", shard_size), Writer(folder, "val", val_size), numpy.empty(0, ID), 0
    try:
        for ids in encoded(texts, tokenizer, separator):
            held, n = numpy.concatenate([held, ids]), n + len(ids)
            early, held = numpy.split(held, [max(len(held) - val_size, 0)])
            train.add(early)
        if n < 20:
            raise ValueError(f"the texts have {n} characters: too few to train on one part and test on another")
        early, last = numpy.split(held, [len(held) - min(val_size, n - 9 * n // 10)])
        for part, writer in ((early, train), (last, val)):
            writer.add(part)
            writer.close()
        flush(folder)
        put_json(folder / INDEX, {"version": VERSION, "alphabet": tokenizer.alphabet, "train": train.shards,
                                  "val": val.shards})
    except BaseException:
        train.remove()
        val.remove()
        raise

# %% [markdown]
# Our corpus is small. For this page a shard has 100,000 ids, so that there are several.

# %%
(folder / "plays.txt").write_text(text, encoding="utf-8", newline="\n")
write_shards(folder / "plays.txt", folder / "plays", shard_size=100_000, val_size=8000)
index = json.loads((folder / "plays" / "index.json").read_text(encoding="utf-8"))
print(len(index["train"]), "shards; the first and the last:")
for shard in (index["train"][0], index["train"][-1]):
    print(shard["file"], shard["ids"], "ids,", (folder / "plays" / shard["file"]).stat().st_size, "bytes")
print("for validation:", index["val"][0]["ids"])

# %%
lines = ["O damp goose!", "You tiny friar, Anne!", "O damp café!"]
for texts, where in ((lines, "lines"), ((line for line in lines), "once"), (folder / "plays.txt", "plays")):
    try:
        write_shards(texts, folder / where, tokenizer if where == "lines" else None)
    except (ValueError, FileExistsError) as error:
        print(str(error).replace(place.name, "..."))
print("left of it:", [path.name for path in (folder / "lines").iterdir()])

# %% [markdown]
# ## Reading
#
# Cutting text into shards is for the disk's sake; a reader shall not notice. To her the shards are one long ribbon again, and place 250,000 of it is ... where?
#
# ### Exercise: which shard?
# ★★ · 6 minutes · The borders are where such functions are wrong.
#
# The shards have lengths `lengths`, and stand one after the other; places count from 0. In which shard is the place `n`, and how far from its beginning? A shard may be empty; no place is in it. With lengths 4, 4, 3 the place 3 is the last of the first shard: `[0, 3]`. The place 4 is the first of the second: `[1, 0]`. The place 10 is the last of all: `[2, 2]`.

# %% tags=["exercise"] exercise="locate_id"
def locate_id(lengths, n):
    """lengths: a list of whole numbers from 0 on, 0 <= n < sum(lengths) -> [shard, offset in it]: ints from 0 on."""
    ### BEGIN SOLUTION
    for shard, length in enumerate(lengths):
        if n < length:
            return [shard, n]
        n -= length
    ### END SOLUTION

# %%
check("locate_id", locate_id)

# %%
#| key
def locate_id_case(draw, at, *lengths):
    """The place is `at` of shard k: (k, "first"), (k, "last") or (k, "inside")."""
    shard, where = at
    offset = {"first": 0, "last": lengths[shard] - 1, "inside": draw.integer(1, max(lengths[shard] - 2, 1))}[where]
    return [list(lengths), sum(lengths[:shard]) + offset]


### BEGIN SOLUTION
def locate_id_as(lengths, n, before=lambda n, length: n < length, less=0, strict=False):
    for shard, length in enumerate(lengths):
        if before(n, length) or shard == len(lengths) - 1:
            return [shard, n]
        n -= length - less
### END SOLUTION


exercise(
    locate_id, stars=2, minutes=6,
    cases=lambda draw: [
        locate_id_case(draw, (0, "inside"), draw.integer(5, 9), draw.integer(5, 9)),
        locate_id_case(draw, (1, "first"), draw.integer(5, 9), draw.integer(5, 9), 4),
        locate_id_case(draw, (2, "last"), draw.integer(3, 4), draw.integer(5, 7), draw.integer(8, 9)),
        locate_id_case(draw, (3, "first"), size := draw.integer(5, 9), size, size, draw.integer(3, 4)),
        locate_id_case(draw, (2, "inside"), draw.integer(12, 20), draw.integer(3, 6), draw.integer(7, 9), 5),
        locate_id_case(draw, (3, "first"), draw.integer(3, 6), 0, 0, draw.integer(3, 6), 2),
        locate_id_case(draw, (1, "last"), 0, draw.integer(3, 6), 0), [[1], 0]],
    wrong={
        ### BEGIN SOLUTION
        "at a border: the place `length` is already the first of the next shard": lambda lengths, n: locate_id_as(
            lengths, n, lambda n, length: n <= length),
        "all shards are taken to be as long as the first: each has its own length": lambda lengths, n: [
            n // lengths[0], n % lengths[0]],
        "the place in the whole text is returned; the offset counts from the beginning of its shard":
            lambda lengths, n: [locate_id(lengths, n)[0], n],
        "the offset counts from the end of the shard; it counts from its beginning": lambda lengths, n: [
            locate_id(lengths, n)[0], lengths[locate_id(lengths, n)[0]] - 1 - locate_id(lengths, n)[1]],
        "shards count from 0": lambda lengths, n: [locate_id(lengths, n)[0] + 1, locate_id(lengths, n)[1]],
        "offsets count from 0": lambda lengths, n: [locate_id(lengths, n)[0], locate_id(lengths, n)[1] + 1],
        "first the shard, then the offset": lambda lengths, n: locate_id(lengths, n)[::-1],
        "an empty shard is not counted, but the shards after it keep their numbers": lambda lengths, n: locate_id(
            [length for length in lengths if length], n),
        "the place is in no empty shard: go on to the next one": lambda lengths, n: (
            lambda starts: [starts.index(max(s for s in starts if s <= n)), n - max(s for s in starts if s <= n)])(
                [sum(lengths[:k]) for k in range(len(lengths))]),
        "each shard takes one place too few away": lambda lengths, n: locate_id_as(lengths, n, less=1),
        "only the length of the shard just before is taken away: all shards before it count": lambda lengths, n: [
            shard := locate_id(lengths, n)[0], n - (lengths[shard - 1] if shard else 0)],
        ### END SOLUTION
    },
)

# %% [markdown]
# For many places at once: the borders are the sums of the lengths, and `searchsorted` finds between which of them a place lies.

# %%
edges = torch.tensor([0, 4, 8, 11])
places = torch.tensor([3, 4, 10])
shard = torch.searchsorted(edges, places, right=True) - 1
print(shard.tolist(), (places - edges[shard]).tolist())

# %% [markdown]
# Before a training trusts a folder, the folder is looked at: is there an index, of this version, which says what an index can say? Is each file there, with the length it should have? That takes no time. (`eval`, `pickle` and their like are not used: a file from the net can be wrong, but it cannot make us run anything.)

# %%
#| export
def broken(path, why):
    return ValueError(f"{path}: {why}. Copy it again from where it came from, or write the shards anew with "
                      f"write_shards")


def is_shard(shard, name):
    """Is this what an index says of the file `name`?"""
    return isinstance(shard, dict) and shard.get("file") == name and type(shard.get("ids")) is int and (
        shard["ids"] > 0 and isinstance(shard.get("sha256"), str))


def read_index(folder):
    """What is written in a folder of shards: {"alphabet": ..., "train": [...], "val": [...]}, each file found and of
    the right length. FileNotFoundError where no index is, ValueError for anything that does not fit."""
    path = folder / INDEX
    if not path.is_file():
        why = "the writing was never finished; delete it" if any(folder.glob("*.bin")) else "it is no folder of shards"
        raise FileNotFoundError(f"{folder} has no {INDEX}: {why}, and write shards with write_shards")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise broken(path, f"it cannot be read ({error})") from None
    if not isinstance(index, dict) or index.get("version") != VERSION:
        version = index.get("version") if isinstance(index, dict) else None
        raise broken(path, f"its version is {version!r}, and this library reads version {VERSION}")
    alphabet = index.get("alphabet")
    if not isinstance(alphabet, str) or not alphabet or list(alphabet) != sorted(set(alphabet)):
        raise broken(path, "its alphabet is no text of different characters in their order")
    for kind in ("train", "val"):
        shards = index.get(kind)
        if not isinstance(shards, list) or not all(
                is_shard(shard, f"{kind}-{n:05d}.bin") for n, shard in enumerate(shards)):
            raise broken(path, f"its list {kind!r} is no list of shards")
        for shard in shards:
            file = folder / shard["file"]
            size = file.stat().st_size if file.is_file() else "no"
            if size != 2 * shard["ids"]:
                raise broken(file, f"the file has {size} bytes, and {INDEX} says {2 * shard['ids']}")
    if not index["train"]:
        raise broken(path, "it has no shard to train on")
    return index

# %% [markdown]
# `Shards` is the folder, opened. `at` answers for any table of places; a window that lies across a border is nothing special. Of the maps it keeps four open at a time, because systems count open files.
#
# What lengths cannot show is a wrong number inside of a file. An id that no character has would make a graphics card stop with a message about an assertion on the device. So `at` looks, and names the file. What else may have happened to the bytes only the sha256 tells: `verify_shards` reads them all: do that once, after a copy.

# %%
#| export
class Shards:
    """A folder that write_shards wrote: a text on disk, mapped.

    tokenizer: of its alphabet; val_ids: the held-out ids (N,) int64, None where there are none; len(): ids to train on.
    ValueError or FileNotFoundError, naming the file, where the folder is damaged, unfinished, or of another version.
    """

    def __init__(self, folder):
        self.folder, self.maps = Path(folder), {}
        self.index = read_index(self.folder)
        self.tokenizer = CharTokenizer(self.index["alphabet"])
        lengths = torch.tensor([0] + [shard["ids"] for shard in self.index["train"]])
        self.edges = lengths.cumsum(0)  # where the shards begin, and the end of the last one
        val = self.index["val"]
        self.val_ids = self.read(val[0]["file"], numpy.arange(val[0]["ids"])) if val else None

    def __len__(self):
        return self.edges[-1].item()

    def __reduce__(self):  # into another process goes the folder's name, not what it holds
        return Shards, (self.folder,)

    def read(self, file, places):
        """places: an array of offsets in one file -> its ids there, int64."""
        if file not in self.maps:
            self.maps = {**dict(list(self.maps.items())[-3:]), file: numpy.memmap(self.folder / file, ID, "r")}
        ids = torch.from_numpy(self.maps[file][places].astype("int64"))
        if ids.numel() and ids.max() >= self.tokenizer.vocab_size:
            raise broken(self.folder / file, f"an id in it is {ids.max()}, and the alphabet has "
                         f"{self.tokenizer.vocab_size} symbols")
        return ids

    def at(self, places):
        """places: int64, any shape, from 0 to len() - 1 -> the ids that stand there, int64, of the same shape."""
        shards, ids = torch.searchsorted(self.edges, places, right=True) - 1, torch.empty_like(places)
        for shard in shards.unique().tolist():
            here, file = shards == shard, self.index["train"][shard]["file"]
            ids[here] = self.read(file, (places[here] - self.edges[shard]).numpy())
        return ids

    def windows(self, block_size, seed):
        return ShardWindows(self, block_size, seed)

# %%
#| export
def verify_shards(folder):
    """Reads every byte of a folder of shards. ValueError for the first file that is not what was written."""
    folder, index = Path(folder), read_index(Path(folder))
    for shard in index["train"] + index["val"]:
        with open(folder / shard["file"], "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
                raise broken(folder / shard["file"], "its content is not what was written: the sha256 differs")

# %%
shards = Shards(folder / "plays")
print(len(shards), "ids to train on;", len(shards.val_ids), "to test on")
across = shards.at(torch.arange(99_980, 100_020))
print("across a border:", repr(shards.tokenizer.decode(across)))
print("as in the text: ", torch.equal(across, ids[99_980:100_020]), "to its end:",
      torch.equal(shards.val_ids, ids[-8000:]))

# %% [markdown]
# Now let us spoil it, in three ways.

# %%
def complain(use):
    try:
        use()
    except (ValueError, FileNotFoundError) as error:
        print(str(error).replace(place.name, "...").replace("\\", "/"))

file, good = folder / "plays" / "train-00003.bin", (folder / "plays" / "train-00003.bin").read_bytes()
del shards  # its maps, too: a mapped file must not shrink under its reader
file.write_bytes(good[:-1])
complain(lambda: Shards(folder / "plays"))
file.write_bytes(b"\xff\xff" + good[2:])
complain(lambda: Shards(folder / "plays").at(torch.tensor([300_000])))
file.write_bytes(good[2:] + good[:2])
complain(lambda: verify_shards(folder / "plays"))
file.write_bytes(good)

# %% [markdown]
# ## Shuffled twice
#
# Lesson 10's `Windows` shuffles all windows of an epoch in one pile. For our shards that has two faults.
#
# The order is a list of all of them, with 8 bytes each. That is nothing for a million characters; for a trillion, in windows of 256, it is 31 gigabytes. And each batch reads from everywhere: 32 windows, 32 pages from 32 ends of the disk, none of them in memory from before.
#
# So shuffle on two levels. First the shards: which one is read first, which second. Then, when a shard's turn has come, its windows. At any time only one shard is being read, and it fits into memory with ease. The order of one shard's windows is forgotten when the next one begins, and can be thrown again: seed, epoch and shard settle it.
#
# As in lesson 10, each epoch cuts the ribbon at other places, and the windows are laid over the whole ribbon. A window belongs to the shard in which it begins.

# %%
#| export
def plan_epoch(edges, block_size, count, seed, epoch):
    """How an epoch goes through shards with these borders, settled by seed and epoch alone.

    -> where its first window starts; how many of its `count` windows begin before each border; the order of the shards;
    how many windows have been read after each of them; and a seed for each shard.
    """
    dice = torch.Generator().manual_seed(seed * 2**31 + epoch)
    first = torch.randint(edges[-1] - count * block_size, (), generator=dice)
    begin = ((edges - first + block_size - 1) // block_size).clamp(0, count)
    order = torch.randperm(len(edges) - 1, generator=dice)
    return first, begin, order, begin.diff()[order].cumsum(0), torch.randint(2**62, order.shape, generator=dice)

# %% [markdown]
# Four shards of 100 ids, in windows of 16:

# %%
first, begin, order, ends, _ = plan_epoch(100 * torch.arange(5), block_size=16, count=24, seed=1337, epoch=0)
print("windows that begin in each shard:", begin.diff().tolist())
print("order of the shards:", order.tolist(), "  windows read after each:", ends.tolist())

# %% [markdown]
# With this plan, `starts` finds the windows that follow any number of windows seen. It goes from shard to shard, and from epoch to epoch, where a batch does.

# %%
#| export
class ShardWindows:
    """The windows of shards, each once an epoch: shards in a shuffled order, and shuffled windows in each of them.

    As in recipe.Windows, seed and epoch settle the order, and every epoch cuts at other places. In memory are the order
    of one shard's windows, and what the system keeps of its pages.
    """

    def __init__(self, shards, block_size, seed):
        if len(shards) <= block_size:
            raise ValueError(f"shards of {len(shards)} ids have no window of block_size {block_size} and one target "
                             f"more: take more text, or a model with a block_size of at most {len(shards) - 1}")
        self.shards, self.block_size, self.seed, self.plans, self.orders = shards, block_size, seed, {}, {}
        self.count = max(len(shards) // block_size - 1, 1)  # windows in an epoch

    def plan(self, epoch):
        if epoch not in self.plans:
            self.plans = {epoch: plan_epoch(self.shards.edges, self.block_size, self.count, self.seed, epoch)}
        return self.plans[epoch]

    def order(self, epoch, shard):
        """The numbers of the windows that begin in a shard, shuffled."""
        if (epoch, shard) not in self.orders:
            _, begin, _, _, seeds = self.plan(epoch)
            dice = torch.Generator().manual_seed(seeds[shard].item())
            low, high = begin[shard:shard + 2].tolist()
            self.orders = {(epoch, shard): low + torch.randperm(high - low, generator=dice)}
        return self.orders[epoch, shard]

    def starts(self, seen, size):
        """Where the windows that follow the first `seen` ones start: (size,)."""
        starts = []
        while size:
            epoch, at = divmod(seen, self.count)
            first, _, order, ends, _ = self.plan(epoch)
            turn = torch.searchsorted(ends, at, right=True)
            numbers = self.order(epoch, order[turn].item())
            at += len(numbers) - ends[turn].item()  # how many of this shard's were seen
            starts.append(first + self.block_size * numbers[at:at + size])
            seen, size = seen + len(starts[-1]), size - len(starts[-1])
        return torch.cat(starts)

    def batch(self, seen, size):
        """The windows that follow the first `seen` ones -> x, y, both (size, T) int64, on the CPU."""
        windows = self.shards.at(self.starts(seen, size)[:, None] + torch.arange(self.block_size + 1))
        return windows[:, :-1], windows[:, 1:]
