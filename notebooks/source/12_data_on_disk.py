# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12 · Data on disk
#
# > Token shards: a data set on disk that is larger than memory.
#
# You will build: a folder of numbers that holds a text larger than memory, and that a training run reads page by page. The text is written once, shuffled anew in every epoch, and shared among processes.
# You need lessons 00, 09 and 10. On two CPU cores the page takes a quarter of a minute, and a hundred megabytes of disk for that time.
#
# So far the whole text lay in memory, twice: as characters and as ids. That works for a million characters, and on a good computer for a billion. What people call "a text" these days has a hundred times more. It lies on a disk, and it has to stay there.

# %%
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

# %%
import matplotlib.pyplot as plt
import numpy
import torch

from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.files import bundled_dir
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.plots import show
from chargpt_lib.recipe import ShuffledWindows, TrainConfig
from chargpt_lib.trainer import train
from chargpt_lib.training import evaluate

# %%
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus = load_corpus(CORPUS)
text = corpus.train + corpus.val
tokenizer = CharTokenizer.from_text(text)
scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # deleted at the end
folder = Path(scratch.name)

# %% [markdown]
# ## Text size on disk and in memory
#
# **Predict:** the file has one byte for each character (of English, in UTF-8). How many does Python's `str` need? And the ids?

# %%
ids, n = tokenizer.encode(text), len(text)
for what, size in (
    ("the file", len(text.encode())),
    ("the str", sys.getsizeof(text)),
    ("the str, with one goose 🪿 at its end", sys.getsizeof(text + "🪿")),
    ("the list that encode makes on its way", sys.getsizeof(ids.tolist())),
    ("the ids, int64", ids.nbytes),
    ("the ids, uint16", ids.numpy().astype("uint16").nbytes),
    (
        "lesson 10's order of the windows, of 256",
        ShuffledWindows(ids, 256, seed=1337).order(0).nbytes,
    ),
):
    print(f"{what:41} {size / n:5.2f} bytes per character")

# %% [markdown]
# A `str` spends the same number of bytes on each of its characters: one, or two if it contains a curly quote, or four if it contains a goose. And an id of type int64 has eight bytes, seven of which are zero. The loss wants its targets in int64, but only for the few windows of a batch; the rest may wait in a smaller type. (The list's eight bytes are only pointers to its numbers.)
#
# Ten gigabytes of English become ten to forty gigabytes as a `str`, eighty as a list, eighty as ids. As uint16 (whole numbers from 0 to 65,535) the ids take twenty, and they need not be in memory.
#
# ### Exercise: how many bytes?
# ★ · 3 minutes · The first question to any data set: will it fit?
#
# A text of `n` symbols, with a vocabulary of `vocab_size` different ones, ids from 0 to `vocab_size` - 1, is written to disk. numpy has unsigned whole numbers of 1, 2, 4 and 8 bytes; $k$ bytes hold the numbers from 0 to $256^k - 1$. Take the smallest type that holds all ids: one byte for a vocabulary of 256, two for one of 257. (Compute in whole numbers: a logarithm rounds.) How many bytes does the file have? With 1000 symbols and a vocabulary of 300 it has 2000.

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

# %% [markdown]
# ## Memory-mapped files
#
# Every program believes that it has one long memory. Behind it the system keeps a table of **pages**, each 4,096 bytes long (16,384 on a newer Mac). The table says where in the chips a page lies, or that it lies nowhere yet. To **map** a file means to enter it into this table. Nothing is read. Only when the program touches a place does the system notice that the page is missing, fetch it from the disk, and let the program go on. Pages that nobody has touched for a while make room for others.
#
# Here is a tiny file, mapped.

# %%
toy = folder / "toy.bin"
# u2: unsigned, 2 bytes; <: the low one first.
goose = tokenizer.encode("O damp goose!").numpy().astype("<u2")
_ = toy.write_bytes(goose.tobytes())
mapped = numpy.memmap(toy, dtype="<u2", mode="r")
print(toy.stat().st_size, "bytes;", mapped[7:12], tokenizer.decode(mapped[7:12].astype("int64")))

# %% [markdown]
# It looks like an array. It is not a copy of the file, it *is* the file. So let us change the file while the array looks at it.

# %%
with open(toy, "r+b") as file:
    file.seek(2 * 7)
    file.write(tokenizer.encode("m").numpy().astype("<u2").tobytes())
print(tokenizer.decode(mapped.astype("int64")))

# %% [markdown]
# Now a larger file, of 67 megabytes. On Linux a process can ask how many megabytes of files are in its own part of memory. (The file was just written, so its pages are still somewhere in the computer's memory; we count only the pages that this *process* has. On other systems the cell prints `nan`.)

# %%
import mmap


def resident_files():
    """Megabytes of mapped files that are in memory now, on Linux; elsewhere nan."""
    numbers = Path("/proc/self/statm")
    if not numbers.exists():
        return float("nan")
    return int(numbers.read_text().split()[2]) * mmap.PAGESIZE / 1e6

# %% tags=["nbval-ignore-output"]
large = folder / "large.bin"
with open(large, "wb") as file:
    for _ in range(64):
        file.write(bytes(2**20))
before = resident_files()
sizes = {}
mapped = numpy.memmap(large, dtype="<u2", mode="r")
sizes["mapped"] = resident_files() - before
mapped[20_000_000:20_000_100].sum()
sizes["a hundred ids read"] = resident_files() - before
mapped.sum()
sizes["all read"] = resident_files() - before
if sys.platform == "linux":
    mapped.base.madvise(mmap.MADV_DONTNEED)  # "we do not need these pages"
    sizes["given back"] = resident_files() - before
print(*(f"{name}: ≈ {abs(size):.1f} MB" for name, size in sizes.items()), sep="\n")

# %%
mapped = None  # closes the file
large.unlink(missing_ok=True)
if sizes["all read"] > 1:  # on Linux; elsewhere it is nan
    assert sizes["mapped"] < 5
    assert sizes["a hundred ids read"] < 20
    assert sizes["all read"] > 40
    assert sizes["given back"] < 5

# %% [markdown]
# A hundred ids lie on one page or two. The system has entered the neighbouring pages as well, because a program that reads one page usually reads the next ones soon. "All read" looks as if the file took up memory after all. But the system can take this memory back at any time: what a page holds is on the disk, too. We gave the pages back ourselves, and could read them again; when another program needs the room, the system takes them without asking. That is why you can map a file that is larger than memory.
#
# ## Writing
#
# The text has to become numbers without ever being in memory as a whole. So everything that follows works on pieces. They come from a file, from a folder of `.txt` files, or from anything that gives one text after the other: a list, or a data set with rows like `{"text": "O damp goose!"}`. As in lesson 00, files are UTF-8, and line ends from Windows become `\n`.

# %%
#| export
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from tqdm import tqdm

from chargpt_lib.data import CharTokenizer, tokenizer_from_dict
from chargpt_lib.files import read_pieces, write_json
from chargpt_lib.recipe import count_windows, epoch_generator

INDEX_FILE = "index.json"
INDEX_VERSION = 2  # of the index; version 1 had an alphabet in place of the tokenizer
CHUNK_SIZE = 2**20  # characters, or ids, that are processed at a time

# %%
#| export
def _row_pieces(row, name):
    """Yields the text of a row, or a text, in pieces. Raises: ValueError that names the row, where there is no text."""
    text = row
    what = f"of type {type(row).__name__}"
    if isinstance(row, Mapping):
        text = row.get("text")
        what = f"a row with the columns {[*row]}"
    if not isinstance(text, str):
        raise ValueError(
            f"{name} is {what}, not a string: pass strings, or rows with a string in 'text'"
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for start in range(0, len(text), CHUNK_SIZE):
        yield text[start : start + CHUNK_SIZE]

# %% [markdown]
# An empty line separates two texts, as it separates the scenes of our plays. (For a data set whose rows are single lines, give `separator="\n"`.) Each piece comes with its origin, for error messages: the name of the text, and the character at which the piece begins.

# %%
#| export
def _documents(texts):
    """Yields (name, pieces) for each text of a file, a folder of .txt files, or an iterable of texts or rows."""
    if isinstance(texts, (str, Path)):
        files = [Path(texts)]
        if files[0].is_dir():
            files = sorted(files[0].glob("*.txt"))
        if not files or not files[0].is_file():
            raise FileNotFoundError(
                f"{texts} is neither a file nor a folder of .txt files; to shard a string, "
                f"pass [text]"
            )
        for path in files:
            yield str(path), read_pieces(path)
    else:
        for n, row in enumerate(texts):
            yield f"text {n}", _row_pieces(row, f"text {n}")


def _pieces(texts, separator):
    """Yields (name, number of the first character, piece) for all texts, with the separator between two texts."""
    # The bar appears after three seconds. It has no total, because a stream does not tell its length.
    progress_bar = tqdm(
        unit=" characters", unit_scale=True, delay=3, mininterval=0.5, file=sys.stdout
    )
    with progress_bar:
        for n, (name, parts) in enumerate(_documents(texts)):
            if n > 0:
                yield "the separator", 0, separator
            start = 0
            for part in parts:
                yield name, start, part
                start += len(part)
                progress_bar.update(len(part))

# %%
print(list(_pieces(["O damp goose!", {"text": "O goose,\r\nO!"}], separator="\n\n")))

# %% [markdown]
# Lesson 00's `encode` looks up each character in a dict, and makes a list. numpy can look up a whole array at once. It takes the characters' Unicode numbers as places in a table, and finds the ids there.

# %%
numbers = numpy.frombuffer("goose".encode("utf-32-le"), "<u4")
symbols = tokenizer.decode(range(tokenizer.vocab_size))  # the character of each id
table = numpy.zeros(128, "<u2")
table[[ord(char) for char in symbols]] = range(tokenizer.vocab_size)
print(numbers, "->", table[numbers], "and encode:", tokenizer.encode("goose").tolist())

# %% [markdown]
# A character without an id gets the largest number of the type, which is no character's id. The table has this number once more at its end, for all characters whose Unicode number is larger than any in the alphabet: their numbers are clipped to that place. If a character without an id turns up, we call the tokenizer's own `encode`. Its error names the character and what could be meant, and we add the text in which it occurs.
#
# The table works only where each character has one id. Any other tokenizer, such as lesson 14's, encodes by itself. The end of a piece may cut a word, so its `encode_iterable` gets all pieces of a text, one after the other.
#
# Which type should the ids have? Two bytes are enough for an alphabet, and for most vocabularies of pieces of words (GPT-2's has 50,257). A larger vocabulary gets four.

# %%
#| export
def id_dtype(vocab_size):
    """The type of the ids in shards, little-endian on every computer; its largest number is never an id."""
    return numpy.dtype("<u2" if vocab_size < 2**16 else "<u4")


def _id_table(tokenizer, dtype):
    """An array with each character's id at the place of its Unicode number, and the type's largest number elsewhere."""
    numbers = [ord(char) for char in tokenizer.decode(range(tokenizer.vocab_size))]
    # The last place is for all characters with larger numbers.
    table = numpy.full(max(numbers) + 2, numpy.iinfo(dtype).max, dtype)
    table[numbers] = range(len(numbers))
    return table


def _encode_characters(pieces, tokenizer, dtype):
    """Yields the ids of each piece by looking its characters up in a table."""
    table = _id_table(tokenizer, dtype)
    for name, start, text in pieces:
        numbers = numpy.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        ids = table[numbers.clip(max=len(table) - 1)]
        if (ids == numpy.iinfo(dtype).max).any():
            where = name
            if start > 0:
                where = f"{name}, from character {start} on"
            try:
                tokenizer.encode(text)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        yield ids


def _encode_texts(pieces, tokenizer, dtype):
    """Yields the ids of each text, a chunk at a time, by the tokenizer's own `encode_iterable`."""
    for name, parts in groupby(pieces, key=itemgetter(0)):
        ids = tokenizer.encode_iterable(text for _, _, text in parts)
        try:
            while len(chunk := numpy.fromiter(islice(ids, CHUNK_SIZE), dtype)) > 0:
                yield chunk
        except ValueError as error:
            # A file that is not UTF-8 names itself.
            if str(error).startswith(name):
                raise
            raise ValueError(f"{name}: {error}") from None


def iter_encoded(texts, tokenizer, separator):
    """Yields the ids of the texts, in arrays of `id_dtype`. Raises: ValueError that names a text with an unknown character."""
    pieces = _pieces(texts, separator)
    dtype = id_dtype(tokenizer.vocab_size)
    if type(tokenizer) is CharTokenizer:
        return _encode_characters(pieces, tokenizer, dtype)
    return _encode_texts(pieces, tokenizer, dtype)

# %% [markdown]
# (Some broken texts contain half characters. `"surrogatepass"` lets them through, so that they get a proper error, too.) **Predict:** how much faster is the table?

# %%
seconds = {"encode": [], "table": []}
for _ in range(3):  # the fastest of three, because other programs run as well
    for name, work in (
        ("encode", tokenizer.encode),
        ("table", lambda text: list(iter_encoded([text], tokenizer, ""))),
    ):
        start = time.perf_counter()
        work(text)
        seconds[name].append(time.perf_counter() - start)
least = {name: min(times) for name, times in seconds.items()}
for name, took in least.items():
    print(f"{name:6} ≈ {len(text) / took / 1e6:.0f} million characters a second")
part = least["table"] / least["encode"]
print(f"the table takes ≈ {part:.0%} of the time (less than half: {part < 0.5})")
assert part < 0.5

# %% [markdown]
# ## Shards
#
# One file of a terabyte is hard to copy, and if it breaks, all is broken. So the ids go into **shards**, files of equal length (16.8 million ids, 34 megabytes; the last one is shorter). A shard is raw: ids and nothing else, not even a header. Another file, the index, holds the rest: the tokenizer, and each shard's length and sha256 (a hash of its bytes).
#
# Why two bytes, where one would do for our alphabet? Because two are enough for nearly every vocabulary, and with one size fewer, there is one mistake fewer to make. The index need not say whether it is two or four: it holds the tokenizer, and `id_dtype` has the rule.

# %%
#| export
def _write_shard(path, ids):
    """Writes a shard, and waits until it is on the disk -> its entry in the index. Raises: OSError."""
    # No temporary name is needed: without an index, a shard does not count.
    try:
        with open(path, "wb") as file:
            file.write(ids)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(f"{path} could not be written ({error}): is the disk full?") from error
    return {"file": path.name, "ids": len(ids), "sha256": hashlib.sha256(ids).hexdigest()}


def _is_whole(number, least):
    """Whether `number` is an integer >= `least`."""
    return isinstance(number, int) and number >= least


def _check_request(texts, folder, tokenizer, shard_size, val_size):
    """Raises: ValueError or FileExistsError if the shards cannot be written; checked before anything is read."""
    for name, size, least in (("shard_size", shard_size, 1), ("val_size", val_size, 0)):
        if not _is_whole(size, least):
            raise ValueError(f"{name} is {size!r}; it has to be an integer >= {least}")
    old = [*folder.glob(INDEX_FILE), *folder.glob("*-[0-9]*.bin")]
    if old:
        raise FileExistsError(
            f"{folder} already contains {old[0].name}: choose another folder, or delete this one"
        )
    if isinstance(texts, Mapping):
        raise ValueError(f"texts is a dict with keys {[*texts]} (a DatasetDict?): pass one split")
    # An iterator is its own iterator. It can be read only once.
    if tokenizer is None and not isinstance(texts, (str, Path)) and iter(texts) is texts:
        raise ValueError(
            "texts is a one-shot iterator, but finding the alphabet needs a first pass: pass "
            "tokenizer="
        )

# %% [markdown]
# Which part is for validation? The last tenth, as always, but at most `val_size` ids, because a tenth of ten gigabytes is far more than anybody evaluates on. While a stream is read, nobody knows where its last tenth begins. So all ids first go into a **buffer**. When the buffer holds `shard_size` + `val_size` ids, its first `shard_size` ids cannot belong to the last `val_size` ids of the stream. They become a shard, and the others move to the front of the buffer.

# %%
#| export
class _ShardWriter:
    """Writes the ids that are added to it as shards, and holds back the last ones for validation."""

    def __init__(self, folder, shard_size, val_size, dtype):
        self.folder = folder
        self.shard_size = shard_size
        self.val_size = val_size
        self.buffer = numpy.empty(shard_size + val_size + CHUNK_SIZE, dtype)
        self.filled = 0  # how many ids are in the buffer
        self.total = 0  # how many have been added
        self.index = {"train": [], "val": []}

    def add(self, ids):
        for start in range(0, len(ids), CHUNK_SIZE):
            part = ids[start : start + CHUNK_SIZE]
            self.buffer[self.filled : self.filled + len(part)] = part
            self.filled += len(part)
            self.total += len(part)
            while self.filled >= self.shard_size + self.val_size:
                self.write("train", self.shard_size)

    def write(self, kind, size):
        """Writes the first `size` ids of the buffer, and moves the others to its front."""
        path = self.folder / f"{kind}-{len(self.index[kind]):05d}.bin"
        self.index[kind].append(_write_shard(path, self.buffer[:size]))
        self.buffer[: self.filled - size] = self.buffer[size : self.filled]
        self.filled -= size

    def finish(self):
        """Writes what is left in the buffer. Raises: ValueError if fewer than 20 ids were added."""
        if self.total < 20:
            raise ValueError(
                f"the texts have {self.total} ids; at least 20 are needed, to train on one part "
                f"and test on another"
            )
        last_tenth = self.total - 9 * self.total // 10
        val_size = min(self.val_size, last_tenth)
        while self.filled > val_size:
            self.write("train", min(self.filled - val_size, self.shard_size))
        if self.filled:
            self.write("val", self.filled)

# %% [markdown]
# Here is a stream of 24 ids, 0 to 23, of which six come in at a time. Shards have 8 ids, and up to 5 are held back. **Predict:** after how many ids is the first shard written?

# %%
(folder / "buffer").mkdir()
writer = _ShardWriter(folder / "buffer", shard_size=8, val_size=5, dtype="<u2")
for start in range(0, 24, 6):
    writer.add(numpy.arange(start, start + 6))
    waiting = writer.buffer[: writer.filled].tolist()
    print(f"{start + 6:2} ids read, shards: {len(writer.index['train'])}, in the buffer: {waiting}")
writer.finish()
print({kind: [shard["ids"] for shard in shards] for kind, shards in writer.index.items()})

# %% [markdown]
# With 12 ids the buffer was one short of 8 + 5. At the end, a tenth of 24 ids, rounded up, is 3; that is less than 5, so 3 ids are for validation, and the others make one more shard, a shorter one.
#
# The index is written last, whole or not at all (lesson 09). A folder with shards but no index was never finished. If something goes wrong on the way, the shards are removed.

# %%
#| export
def write_shards(texts, folder, tokenizer=None, shard_size=2**24, val_size=2**17, separator="\n\n"):
    """Writes texts larger than memory as ids: shards of uint16 or uint32 (see `id_dtype`), and index.json.

    texts: the path of a file or of a folder of .txt files (in the order of their names), or an iterable of texts or of
    rows with a column "text", such as a Hugging Face dataset, streamed or not. separator stands between two texts.
    tokenizer: any; without one the texts are read twice, the first time to find their alphabet.
    The last tenth is for validation, at most val_size ids; the rest is for training, shard_size ids a file.

    Raises: ValueError that names a text that is not a string, or has a character without an id; FileExistsError if the
    folder holds shards; OSError if it cannot be written. After an error no shard is left.
    """
    folder = Path(folder)
    _check_request(texts, folder, tokenizer, shard_size, val_size)
    if tokenizer is None:
        alphabet = set()  # the first pass keeps nothing else
        for _, _, text in _pieces(texts, separator):
            alphabet.update(text)
        tokenizer = CharTokenizer(alphabet)
    folder.mkdir(parents=True, exist_ok=True)
    writer = _ShardWriter(folder, shard_size, val_size, id_dtype(tokenizer.vocab_size))
    try:
        for ids in iter_encoded(texts, tokenizer, separator):
            writer.add(ids)
        writer.finish()
        index = {"version": INDEX_VERSION, "tokenizer": tokenizer.to_dict(), **writer.index}
        write_json(folder / INDEX_FILE, index)
    except BaseException:  # Ctrl-C, too
        for path in folder.glob("*-[0-9]*.bin"):
            path.unlink()
        raise

# %% [markdown]
# Our corpus is small, so here a shard has only 100,000 ids; that makes several shards.

# %%
_ = (folder / "plays.txt").write_text(text, encoding="utf-8", newline="\n")
write_shards(folder / "plays.txt", folder / "plays", shard_size=100_000, val_size=8000)
index = json.loads((folder / "plays" / "index.json").read_text(encoding="utf-8"))
print(len(index["train"]), "shards; the first and the last:")
for shard in (index["train"][0], index["train"][-1]):
    size = (folder / "plays" / shard["file"]).stat().st_size
    print(shard["file"], shard["ids"], "ids,", size, "bytes")
print("for validation:", index["val"][0]["ids"])

# %%
def print_error(use):
    try:
        use()
    except (ValueError, OSError) as error:
        message = str(error).replace(scratch.name, "...")
        print(message.replace("...\\", ".../").replace("plays\\", "plays/"))  # on Windows


print_error(lambda: write_shards((line for line in ["O damp goose!"]), folder / "once"))
print_error(lambda: write_shards(folder / "plays.txt", folder / "plays"))

# %% [markdown]
# The third text in the next cell has a letter that our alphabet lacks. What is on the disk when it turns up?

# %%
def lines():
    for line in ("O damp goose!", "You tiny friar, Anne!", "O damp café!"):
        print("shards so far:", len(list((folder / "lines").glob("*.bin"))))
        yield line


print_error(lambda: write_shards(lines(), folder / "lines", tokenizer, shard_size=10, val_size=5))
print("and now:", [path.name for path in (folder / "lines").iterdir()])

# %% [markdown]
# ## Reading
#
# The text is cut into shards only for the disk's sake. To a reader, the shards should be one long text again. So where is place 250,000 of that text?
#
# ### Exercise: which shard?
# ★★ · 6 minutes · Such functions go wrong at the borders.
#
# The shards have lengths `lengths`, and stand one after the other; places count from 0. In which shard is the place `n`, and how far is it from the shard's beginning? A shard may be empty; then no place is in it. With lengths 4, 4, 3 the place 3 is the last of the first shard: `[0, 3]`. The place 4 is the first of the second: `[1, 0]`. The place 10 is the last of all: `[2, 2]`. With lengths 2, 0, 3 the place 2 is `[2, 0]`.

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

# %% [markdown]
# The shards' borders are the running sums of the lengths. For many places at once, `searchsorted` finds the borders between which each place lies.

# %%
edges = torch.tensor([0, 4, 8, 11])
places = torch.tensor([3, 4, 10])
shard = torch.searchsorted(edges, places, right=True) - 1
print(shard.tolist(), (places - edges[shard]).tolist())

# %% [markdown]
# Before a training run trusts a folder, `read_index` checks it. Is there an index, of a version that we know, and is its content valid? Is each file there, with the right length? No id is read for that. (Nothing like `eval` or `pickle` is used: a file from the net can be wrong, but it cannot make us run anything.)

# %%
#| export
def _corrupt_shards(path, why):
    """The ValueError for a damaged file in a folder of shards."""
    return ValueError(
        f"{path}: {why}. Copy it again from where it came from, or rewrite the shards with "
        f"write_shards"
    )


def _check_index(index):
    """The tokenizer in an index. Raises: some error if the index is not one that write_shards writes."""
    version = index["version"]
    if version not in (1, INDEX_VERSION):
        raise ValueError(
            f"its version is {version!r}, and this library reads 1 and {INDEX_VERSION}"
        )
    tokenizer = tokenizer_from_dict(index["alphabet"] if version == 1 else index["tokenizer"])
    if not index["train"]:
        raise ValueError("it has no shards to train on")
    for kind in ("train", "val"):
        for n, shard in enumerate(index[kind]):
            # The names become paths. Only our own names are allowed, so none leads out of the folder.
            if shard["file"] != f"{kind}-{n:05d}.bin" or type(shard["ids"]) is not int:
                raise ValueError(f"unexpected shard file name or id count in {kind!r}, shard {n}")
    return tokenizer


def read_index(folder):
    """Reads index.json, and checks that each file is there with the right length -> (index, tokenizer).

    Raises: FileNotFoundError if there is no index, ValueError for a file that is missing or damaged.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {INDEX_FILE}: write_shards did not finish, or this is not a shard "
            f"folder. Write the shards with write_shards, into a new folder"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        tokenizer = _check_index(index)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt_shards(path, f"this is not a valid shard index ({error})") from None
    for shard in index["train"] + index["val"]:
        file = folder / shard["file"]
        # A mapped file that is shorter than the index says would stop the process without a message.
        expected = id_dtype(tokenizer.vocab_size).itemsize * shard["ids"]
        if not file.is_file():
            raise _corrupt_shards(
                file, f"the file is missing; {INDEX_FILE} lists it with {expected} bytes"
            )
        size = file.stat().st_size
        if size != expected or size == 0:
            raise _corrupt_shards(
                file, f"the file has {size} bytes, but {INDEX_FILE} says {expected}"
            )
    return index, tokenizer

# %% [markdown]
# `Shards` is the folder, opened. `at` gives the ids at any tensor of places; a window that crosses a border is nothing special. `Shards` keeps at most four maps open at a time, because systems limit the number of open files.
#
# The length of a file cannot show that a number inside it is wrong. An id that no character has would make a graphics card stop with a message about an assertion on the device. So `at` checks the ids, and its error names the file. Any other damage shows only in the sha256. `verify` compares it, and reads every byte for that: call it once, after copying.

# %%
#| export
MAX_OPEN_MEMMAPS = 4  # open at a time: a process may open only so many files


class Shards:
    """A folder that write_shards wrote: a text on disk, mapped.

    tokenizer: the one it was written with; val_ids: the held-out ids (N,) int64, or None if there are none; len(): the
    number of ids to train on.

    Raises: ValueError or FileNotFoundError that names a file that is missing, damaged, or of another version.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.index, self.tokenizer = read_index(self.folder)
        lengths = [shard["ids"] for shard in self.index["train"]]
        self.offsets = torch.tensor([0, *lengths]).cumsum(0)  # (shards + 1,)
        self.memmaps = {}  # file: its map, the one opened first at the front
        self.val_ids = None
        if self.index["val"]:  # one file, small enough for the memory
            self.val_ids = self.read("val-00000.bin", slice(None))

    @property
    def fingerprint(self):
        """Identifies this text, for the trainer."""
        shards = self.index["train"] + self.index["val"]
        return {
            "size": sum(shard["ids"] for shard in shards),
            "train_size": len(self),
            "hashes": [shard.get("sha256") for shard in shards],
        }

    def __len__(self):
        return int(self.offsets[-1])

    def read(self, file, places):
        """places: an array of offsets in one file -> its ids there, int64."""
        if file not in self.memmaps:
            if len(self.memmaps) == MAX_OPEN_MEMMAPS:
                oldest = next(iter(self.memmaps))
                del self.memmaps[oldest]
            dtype = id_dtype(self.tokenizer.vocab_size)
            self.memmaps[file] = numpy.memmap(self.folder / file, dtype, "r")
        # Cut first, then convert: the other way round the whole file would be in memory.
        ids = torch.from_numpy(self.memmaps[file][places].astype("int64"))
        if ids.numel() and ids.max() >= self.tokenizer.vocab_size:
            raise _corrupt_shards(
                self.folder / file,
                f"it contains id {ids.max()}, but vocab_size is {self.tokenizer.vocab_size}",
            )
        return ids

    def at(self, places):
        """places: int64, any shape, from 0 to len() - 1 -> the ids that stand there, int64, of the same shape."""
        shards = torch.searchsorted(self.offsets, places, right=True) - 1
        ids = torch.empty_like(places)
        for shard in shards.unique().tolist():  # each file is read once, not once for each place
            here = shards == shard
            offsets = places[here] - self.offsets[shard]
            ids[here] = self.read(self.index["train"][shard]["file"], offsets.numpy())
        return ids

    def windows(self, block_size, seed):
        """The windows, in the form that the trainer reads."""
        return _ShardWindows(self, block_size, seed)

    def verify(self):
        """Reads every byte. Raises: ValueError for the first file that is not what was written."""
        for shard in self.index["train"] + self.index["val"]:
            with open(self.folder / shard["file"], "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard.get("sha256"):
                    raise _corrupt_shards(
                        file.name, "its content is not what was written: the sha256 differs"
                    )

# %%
shards = Shards(folder / "plays")
print(len(shards), "ids to train on;", len(shards.val_ids), "to test on")
across = shards.at(torch.arange(99_980, 100_020))
print("across a border:", repr(shards.tokenizer.decode(across)))
same = torch.cat([shards.at(torch.arange(len(shards))), shards.val_ids]) == ids
print(f"equal to the text's ids: {same.sum():,} of {len(ids):,} ids")

# %% [markdown]
# Now let us damage the folder, in three ways.

# %%
file = folder / "plays" / "train-00003.bin"
good = file.read_bytes()
shards = None  # its maps go, too: a mapped file must not shrink under its reader
_ = file.write_bytes(good[:-1])
print_error(lambda: Shards(folder / "plays"))
_ = file.write_bytes(b"\xff\xff" + good[2:])
print_error(lambda: Shards(folder / "plays").at(torch.tensor([300_000])))
_ = file.write_bytes(good[2:] + good[:2])
print_error(lambda: Shards(folder / "plays").verify())
_ = file.write_bytes(good)

# %% [markdown]
# ## Two-level shuffling
#
# Lesson 10's `ShuffledWindows` shuffles all windows of an epoch at once, in one pile. For our shards that has two disadvantages.
#
# The order is a list of all windows, with 8 bytes each. That is nothing for a million characters; for a trillion, in windows of 256, it is 31 gigabytes. And each batch reads from everywhere: 32 windows lie on 32 pages at 32 ends of the disk, and none of these pages is in memory yet.
#
# So shuffle on two levels: first the order of the shards; then, when a shard's turn has come, the order of its windows. At any time one shard is being read, or two, where a window or a batch reaches into the next; they fit into memory with ease. The order of a shard's windows takes half a megabyte (for windows of 256), instead of 31 gigabytes. It is forgotten when the next shard's turn comes, and can be drawn again, because it depends only on seed, epoch and shard.
#
# As in lesson 10, each epoch cuts the text at different places, and the windows are laid over the whole text, across the shards. A window belongs to the shard in which it begins.
#
# Take four shards of 100 ids, windows of 16 ids, and let window 0 start at place 10. Windows 0 to 5 begin in the first shard, at 10, 26, 42, 58, 74 and 90; window 5 reaches into the second shard. How many windows begin before the border at 100? Their starts are $10 + 16k < 100$, so it is $(100 - 10) / 16$, rounded up: 6. In the same way, 12 begin before 200, and 19 before 300; so the second shard has windows 6 to 11, the third 12 to 18, the fourth 19 to 23.
#
# An epoch's **plan** lists the shards in the order in which they are read. For each shard it holds four numbers: its first window, how many windows begin in it, how many windows of the epoch are read when it is finished, and a seed for the order of its windows.

# %%
#| export
class _EpochPlan(NamedTuple):
    """How an epoch reads the shards. All tensors but `start` are (shards,), in the order of reading."""

    start: torch.Tensor  # where window 0 starts: ()
    first: torch.Tensor  # the first window that begins in the shard
    counts: torch.Tensor  # how many windows begin in it
    ends: torch.Tensor  # how many windows of the epoch are read when it is finished
    seeds: torch.Tensor  # for the order of its windows


def plan_epoch(edges, block_size, count, seed, epoch):
    """edges (shards + 1,): where each shard begins, and the end -> the _EpochPlan of `count` windows."""
    generator = epoch_generator(seed, epoch)
    start = torch.randint(edges[-1] - count * block_size, (), generator=generator)
    order = torch.randperm(len(edges) - 1, generator=generator)
    # How many windows begin before each edge: (edge - start) / block_size, rounded up.
    before = ((edges - start + block_size - 1) // block_size).clamp(0, count)
    counts = before.diff()[order]
    seeds = torch.randint(2**32, order.shape, generator=generator)
    return _EpochPlan(start, before[order], counts, counts.cumsum(0), seeds)

# %%
edges = 100 * torch.arange(5)
plan = plan_epoch(edges, block_size=16, count=24, seed=1337, epoch=0)
print("window 0 starts at", plan.start.item())
for first, count, end in zip(plan.first.tolist(), plan.counts.tolist(), plan.ends.tolist()):
    print(f"windows {first:2} to {first + count - 1:2}; then {end:2} of 24 are read")

# %% [markdown]
# So the second shard is read first, then the fourth, the third, the first. Where is the window that comes after 14 others? `searchsorted` finds 14 between the ends 11 and 18: the third shard is being read, and 14 - 11 = 3 of its windows have been read. `starts` looks up any number of windows in this way. Where a batch reaches from one shard into the next, or from one epoch into the next, `starts` does so, too.

# %%
#| export
class _ShardWindows:
    """Each window once an epoch: the shards in a shuffled order, and the windows of each shard shuffled.

    As in recipe.ShuffledWindows, seed and epoch determine the order, and every epoch cuts at other places.
    """

    def __init__(self, shards, block_size, seed):
        self.count = count_windows(len(shards), block_size)
        self.shards = shards
        self.block_size = block_size
        self.seed = seed
        # Only one epoch and one shard are remembered, so the memory does not grow with the text.
        self.plan = {}  # epoch: its EpochPlan
        self.shuffled = {}  # (epoch, turn): the starts of its shard's windows, shuffled

    def plan_of(self, epoch):
        if epoch not in self.plan:
            edges = self.shards.offsets
            self.plan = {epoch: plan_epoch(edges, self.block_size, self.count, self.seed, epoch)}
        return self.plan[epoch]

    def shuffled_starts(self, epoch, turn):
        """The starts of the windows of an epoch's shard number `turn`, both in the order of reading."""
        if (epoch, turn) not in self.shuffled:
            plan = self.plan_of(epoch)
            generator = torch.Generator().manual_seed(plan.seeds[turn].item())
            order = torch.randperm(plan.counts[turn].item(), generator=generator)
            starts = plan.start + self.block_size * (plan.first[turn] + order)
            self.shuffled = {(epoch, turn): starts}
        return self.shuffled[epoch, turn]

    def starts(self, seen, size):
        """Where the windows that follow the first `seen` ones start: (size,)."""
        parts = []
        while size > 0:
            epoch, at = divmod(seen, self.count)
            plan = self.plan_of(epoch)
            turn = torch.searchsorted(plan.ends, at, right=True).item()  # which shard is being read
            before = (plan.ends - plan.counts)[turn].item()  # windows of the shards before it
            # A slice ends with its shard. The rest comes from the next shard, or the next epoch.
            part = self.shuffled_starts(epoch, turn)[at - before : at - before + size]
            parts.append(part)
            seen += len(part)
            size -= len(part)
        return torch.cat(parts)

    def batch(self, seen, size):
        """The windows that follow the first `seen` ones -> x, y, both (size, T) int64, on the CPU."""
        starts = self.starts(seen, size)
        windows = self.shards.at(starts[:, None] + torch.arange(self.block_size + 1))
        return windows[:, :-1], windows[:, 1:]

# %% [markdown]
# Here are two epochs. Each point is a window: when it is read, and where it stands in the text. On the left all windows are in one pile, on the right they are in eight shards.

# %%
write_shards([text[:8600]], folder / "few", tokenizer, shard_size=1000, val_size=600)
few = Shards(folder / "few").windows(block_size=16, seed=1337)
pile = ShuffledWindows(ids[:8000], block_size=16, seed=1337)
fig, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained", sharey=True)
for ax, title in zip(axes, ("One pile", "Shuffled twice")):
    for epoch, colour in ((0, "#0072B2"), (1, "#D55E00")):
        read = range(epoch * few.count, (epoch + 1) * few.count)
        start = pile.order(epoch) if ax is axes[0] else few.starts(read.start, few.count)
        ax.plot(read, start, ".", color=colour, markersize=3, label=f"epoch {epoch + 1}")
    ax.set(title=title, xlabel="windows read before", yticks=range(0, 9000, 2000))
axes[0].set_ylabel("place in the text")
fig.legend(
    *axes[1].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8
)
show(
    fig,
    "Left: points everywhere. Right: sixteen clouds, eight for each of two epochs, each as high as one shard and "
    "as wide as its share of the epoch; their order differs from epoch to epoch.",
)

# %% [markdown]
# **Predict:** how many of the 8,000 ids are in no window of the first epoch? One pile reads no id twice, and leaves out at most two windows' worth, at the two ends; the same has to hold here.

# %%
every = (few.starts(0, few.count)[:, None] + torch.arange(16)).flatten()
print(
    few.count, "windows;", len(every.unique()), "different places of", len(every), "that were read"
)
left = 8000 - len(every)
print("left out:", left, f"ids (two windows have {2 * 16})")
again = Shards(folder / "few").windows(block_size=16, seed=1337)  # as after an accident
same = again.batch(777, 5)[0] == few.batch(777, 5)[0]
print(f"windows 777 to 781, read again after an accident: {same.sum()} of {same.numel()} ids equal")
assert len(every) == len(every.unique())
assert left < 32

# %%
x, y = few.batch(seen=0, size=2)
print(repr(tokenizer.decode(x[0])), repr(tokenizer.decode(y[0])))
ahead = x[:, 1:] == y[:, :-1]
print(f"{tuple(x.shape)} {x.dtype}; targets one ahead: {ahead.sum()} of {ahead.numel()}")

# %% [markdown]
# ## What do the two levels cost?
#
# All windows of a batch, and of the batches after it, come from one shard, that is, from one stretch of text. Does the model learn less from them than from one pile?
#
# This was measured once, in five minutes of one core (`python -m tests.benchmarks.shuffling`). The text is half Playhouse, half Shakespeare. It was written twice: *mixed*, with scenes and speeches in a random order, and *sorted*, all of Playhouse before all of Shakespeare. From each text a small GPT read one epoch in four orders: all windows shuffled in one pile; on two levels, in 64 shards or in 8; and in the order of the text. The loss is that of held-out text, of which half is of each kind.
#
# **Predict:** which of the four orders is the best on the mixed text, and by how much? And on the sorted text?

# %%
record = json.loads((bundled_dir() / "results" / "shuffling.json").read_text(encoding="utf-8"))
for layout, orders in record["runs"].items():
    print(f"{layout + ' text':12}  nats, mean of 4 seeds   seeds apart   above shuffled")
    losses = {}  # of each order: the loss of each seed, a mean of both kinds of text
    for order, runs in orders.items():
        losses[order] = [fmean(run["losses"].values()) for run in runs.values()]
        loss = fmean(losses[order])
        spread = max(losses[order]) - min(losses[order])
        above = loss - fmean(losses["all shuffled"])
        print(f"{order:12}  {loss:21.3f}   {spread:11.3f}   {above:+14.3f}")

# %%
curves = {}  # of the first seed: [step, loss on Playhouse, loss on Shakespeare], ...
for order, runs in record["runs"]["sorted"].items():
    curves[order] = next(iter(runs.values()))["curve"]
fig, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained", sharey=True)
for ax, order in zip(axes, ("all shuffled", "8 shards", "in order")):
    steps, plays, shakespeare = zip(*curves[order])
    ax.plot(steps, plays, "o-", color="#0072B2", markersize=3, label="Playhouse")
    ax.plot(steps, shakespeare, "s--", color="#D55E00", markersize=3, label="Shakespeare")
    ax.set(title=f"sorted text, {order}", xlabel="step", ylim=(1.4, 4.3))
axes[0].set_ylabel("held-out loss, nats")
axes[0].legend(frameon=False)
show(
    fig,
    "Held-out losses against steps, three panels. All shuffled: both fall smoothly. 8 shards: while one falls, the "
    "other rises, in turns. In order: Playhouse falls for half of the epoch and jumps up as Shakespeare begins.",
)

# %%
steps, plays, _ = zip(*curves["in order"])
low = plays.index(min(plays))
for n in (low, low + 1):
    print(f"in order, at step {steps[n]}: {plays[n]:.2f} nats on Playhouse")

# %% [markdown]
# On the mixed text, what the two levels cost is about as small as the differences between seeds. On the sorted text, two-level shuffling is nearly as bad as no shuffling, with 64 shards as with 8. The pictures show why: a shard holds only one kind of text, and while the model reads one kind, it forgets the other.
#
# So mix texts *before* they are written; then two levels are enough. (On the mixed text even reading in order costs little: its scenes and speeches are in no order already.)
#
# ### Exercise: a shuffle with a small memory
# ★★ · 8 minutes · How do you mix a stream that does not fit into memory? A thorough shuffle takes two passes: put each item into one of many small files, at random, then shuffle each of these. A buffer shuffles a little, in one pass (tf.data and Hugging Face's `datasets` both have it).
#
# A buffer has `size` places. The first `size` items fill it, in their order. Each further item goes into one of the places, and the item that was there comes out. When the stream has ended, the items left in the buffer come out, in the order of the places. If the stream is shorter than the buffer, all of it comes out at the end.
#
# `draws` holds the random numbers: for each item after the first `size`, the number of its place, counted from 0. With `size` 2 and `draws` 1 0 1, the stream `10 20 30 40 50` fills the buffer with `10 20`. Then 30 pushes 20 out, 40 pushes 10 out, 50 pushes 30 out; at the end 40 and 50 follow: `20 10 30 40 50`.

# %% tags=["exercise"] exercise="shuffle_buffer"
def shuffle_buffer(items, size, draws):
    """items: a list; size: int from 1 on; draws: a list of ints below size -> a list, the items as they come out."""
    ### BEGIN SOLUTION
    buffer, out = items[:size], []
    for item, place in zip(items[size:], draws):
        out.append(buffer[place])
        buffer[place] = item
    return out + buffer
    ### END SOLUTION

# %%
check("shuffle_buffer", shuffle_buffer)

# %% [markdown]
# Compared with its place in the stream, an item can come out much later, but hardly earlier: by at most `size` - 1 places. A sorted stream stays nearly sorted, unless the buffer is large. Mixing it well takes the two passes.
#
# ## Several processes
#
# On several graphics cards, several copies of one program train one model ([the next page](13_many_devices.ipynb)). Each copy is a process with a number, its **rank**. At each step every rank takes `size` windows and computes a gradient from them; then the gradients are averaged. So together the ranks must read the windows that one process would have read, each once.
#
# ### Exercise: the part of a rank
# ★ · 5 minutes · A rank that reads its neighbour's windows costs half the computers and shows in no loss curve.
#
# The `count` windows of an epoch are numbered in the order in which they come. Of the first `ranks` · `size`, rank 0 takes the first `size`, rank 1 the next `size`, and so on; after them it is rank 0's turn again. At the end there may be too few for all ranks: the windows that are left are read, and nobody's part is filled up. Which windows does rank `rank` read in this epoch? With 9 windows, `size` 2 and 2 ranks, rank 0 reads 0, 1, 4, 5 and 8, and rank 1 reads 2, 3, 6 and 7. With 11 windows rank 0 reads 9 as well, and rank 1 ends with 10.

# %% tags=["exercise"] exercise="rank_windows"
def rank_windows(count, size, ranks, rank):
    """Whole numbers; 0 <= rank < ranks -> the numbers of the rank's windows, a list of ints in their order."""
    ### BEGIN SOLUTION
    return [window for window in range(count) if window // size % ranks == rank]
    ### END SOLUTION

# %%
check("rank_windows", rank_windows)

# %% [markdown]
# `batch` knows nothing of ranks. Rank $r$ asks for the `size` windows that follow the first `seen + r * size`. (One difference: where the exercise leaves a part short, `batch` goes on into the next epoch.) Here are two ranks, played by one process; each opens the folder for itself.

# %%
size, ranks, steps = 8, 2, 40
own = [Shards(folder / "plays").windows(block_size=64, seed=1337) for rank in range(ranks)]
alone = Shards(folder / "plays").windows(block_size=64, seed=1337)
equal = 0
read = [set(), set()]
for step in range(steps):
    seen = step * ranks * size
    parts = [own[rank].batch(seen + rank * size, size)[0] for rank in range(ranks)]
    equal += torch.equal(torch.cat(parts), alone.batch(seen, ranks * size)[0])
    for rank in range(ranks):
        read[rank] |= set(own[rank].starts(seen + rank * size, size).tolist())
print(
    f"the ranks' windows, one after the other, are one process's batch in {equal} of {steps} steps"
)
print("windows read:", [len(starts) for starts in read], "  by both:", len(read[0] & read[1]))

# %% [markdown]
# And which part of the disk did the two ranks touch? A page of 4,096 bytes holds 2,048 ids. **Predict:** 640 windows have been read. On how many pages do they lie? And if they came from one pile of all windows?

# %%
def pages_of(starts):
    """The pages on which windows of 64 lie, as (shard, page)."""
    return {
        (place // 100_000, place % 100_000 // 2048)
        for start in starts
        for place in (start, start + 64)
    }


pile = (
    ShuffledWindows(ids[: len(alone.shards)], 64, seed=1337)
    .order(0)[: len(read[0] | read[1])]
    .tolist()
)
in_all = sum(-(-shard["ids"] // 2048) for shard in alone.shards.index["train"])
print("pages of rank 0:", len(pages_of(read[0])), " of rank 1:", len(pages_of(read[1])))
both = len(pages_of(read[0] | read[1]))
print("of both:", both, " from one pile:", len(pages_of(pile)), " in all:", in_all)

# %% [markdown]
# 640 windows of 64 ids would fit on 20 pages. Each rank touches only pages on which its own windows lie, all in one shard; in so small a shard these are soon all the pages. Both ranks read from the same shard at the same time, and on one computer they share its pages: a page is in memory once, however many processes have mapped it. (When a system fetches a page it likes to fetch its neighbours as well. Those are not counted here.)
#
# ## How fast?
#
# **Predict:** how much slower is a batch from the map than one from memory, when the pages are in memory already? And how much does that matter to a step that takes fifty milliseconds?

# %%
def fastest(source, batches=50):
    """Milliseconds for a batch of 32: the fastest of many, because other programs run as well."""
    times = []
    for k in range(batches):
        start = time.perf_counter()
        source.batch(32 * k, 32)
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)

# %%
memory, mapped = (
    ShuffledWindows(ids, 64, seed=1337),
    Shards(folder / "plays").windows(64, seed=1337),
)
times = {"from memory": fastest(memory), "from the map": fastest(mapped)}
print(
    *(f"{name}: ≈ {ms:.2f} ms, ≈ {ms / 50:.2%} of such a step" for name, ms in times.items()),
    sep="\n",
)
print(f"the map takes ≈ {times['from the map'] / times['from memory']:.1f} times as long")
assert times["from the map"] < 5

# %% [markdown]
# Whatever the factor, a batch from the map takes next to no time beside such a step. The first touch of a page costs more: it waits for the disk. Here the two levels pay: the more batches of a shard have been read, the more of its pages are in memory already.
#
# ## Training from it
#
# Lesson 11's `train` does not mind where its windows come from. It asks its text for `windows`, `val_ids` and a `tokenizer`; a `Shards` has all three.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(1337)
shards = Shards(folder / "plays")
model = GPT(GPTConfig(shards.tokenizer.vocab_size, block_size=32, n_layer=2, n_head=4, n_embd=64))
before = evaluate(model, shards.val_ids)
result = train(
    model, shards, TrainConfig(steps=200, batch_size=16, learning_rate=3e-3, eval_interval=100)
)

# %%
gain = before - result["best_val_loss"]
print(
    f"≈ {before:.2f} -> ≈ {result['best_val_loss']:.2f} nats per character, after {result['steps']} steps"
)
assert gain > 1.2

# %% [markdown]
# ## Hugging Face datasets
#
# The large collections of text are on Hugging Face's hub, and `datasets` (`pip install datasets`) streams them: a row at a time comes over the net, and none is kept. Such a stream goes straight into `write_shards`:
#
# ```python
# from datasets import load_dataset
#
# rows = load_dataset("roneneldan/TinyStories", split="train", streaming=True)
# write_shards(rows.shuffle(seed=1337, buffer_size=10_000), "stories", val_size=100_000)
# ```
#
# (For files of your own, `load_dataset("text", data_files="*.txt", ...)` gives lines: for these, pass `separator="\n"`.) `shuffle` is the exercise from above (it also shuffles the files that the rows lie in, and what is left in the buffer at the end). Without `streaming=True` the rows are kept on the disk, and `write_shards` takes them as well. A stream is read twice if there is no tokenizer; if you know the alphabet, pass a tokenizer, and the stream comes over the net once.
#
# `write_shards` asks for nothing but rows with a `"text"`, so ours may come from anywhere:

# %%
class Rows:
    def __iter__(self):
        for scene in text[:20_000].split("\n\n"):
            yield {"text": scene, "author": "grammar"}


write_shards(Rows(), folder / "rows")
rows = Shards(folder / "rows")
same = rows.at(torch.arange(len(rows))) == rows.tokenizer.encode(text[: len(rows)])
print(f"the text again: {same.sum():,} of {len(rows):,} ids")
try:
    write_shards(({"story": scene} for scene in ["O damp goose!"]), folder / "stories", tokenizer)
except ValueError as error:
    print(error)

# %% [markdown]
# ## Mistakes people make
#
# - **`mapped.astype("int64")`.** That brings the whole file into memory, four times as large. Cut first, then convert.
# - **A sorted data set, written as it came.** Shuffling on two levels does not mix it. Shuffle the texts first.
# - **uint16 for too large a vocabulary.** `astype` turns 70,000 into 4,464 without a word. Count the vocabulary before you choose the type.
# - **Every rank with a seed of its own.** Each rank then has a different order, so some windows come twice, others never.
# - **Writing into a folder that a run is reading.** A mapped file that shrinks stops its reader with a bus error, without a Python message. Write into a new folder.
# - **Shards on a network drive.** Then each page has to come over the network. Copy them to the computer's own disk first, and `verify()`.
#
# How far you are:

# %%
progress()

# %% [markdown]
# ## Summary
#
# You now have `write_shards`, `Shards` and its `windows`, in `chargpt_lib/shards.py`: a text of any size, read as if it were in memory.
#
# Next: [13 · Many devices](13_many_devices.ipynb), where each rank gets a graphics card.
