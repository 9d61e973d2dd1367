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
# > Token shards: data on disk that are larger than memory.
#
# You will build: a text that is larger than the memory, as a folder of numbers that a training reads page by page: written once, shuffled anew in every epoch, shared among processes.
# You need lessons 00, 09 and 10. On two CPU cores it takes a quarter of a minute, and a hundred megabytes of disk for that time.
#
# So far the whole text lay in memory, twice: as characters and as ids. A million characters allow that, and a billion does on a good computer. What people call "a text" these days has a hundred times more. It lies on a disk, and there it has to stay.

# %%
import json
import sys
import tempfile
import time
from pathlib import Path

# %%
import matplotlib.pyplot as plt
import numpy
import torch

from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.plots import show
from chargpt_lib.recipe import TrainConfig, Windows
from chargpt_lib.trainer import train
from chargpt_lib.training import evaluate

# %%
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus = load_corpus(CORPUS)
text = corpus.train + corpus.val
tokenizer = CharTokenizer.from_text(text)
scratch = tempfile.TemporaryDirectory(
    ignore_cleanup_errors=True
)  # for all that is written here; it goes at the end
folder = Path(scratch.name)

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
# A `str` spends the same number of bytes on each of its characters: one, two if there is a curly quote, four if there is a goose. And an id of type int64 has eight bytes, seven of which are zero. The loss wants its targets in int64, but only for the few windows of a batch; the rest may wait in a smaller type. (The list's eight bytes are only pointers to its numbers.)
#
# Ten gigabytes of English are ten to forty gigabytes of `str`, eighty of list, eighty of ids. As uint16, whole numbers from 0 to 65,535, they are twenty, and they need not be in memory.
#
# ### Exercise: how many bytes?
# ★ · 3 minutes · The first question to any data set: will it fit?
#
# A text of `n` symbols, with a vocabulary of `vocab_size` different ones, ids from 0 to `vocab_size` - 1, is written to disk. numpy has unsigned whole numbers of 1, 2, 4 and 8 bytes; $k$ bytes hold the numbers from 0 to $256^k - 1$. Take the smallest that holds all ids: one byte for a vocabulary of 256, two for one of 257. (Compute in whole numbers: a logarithm rounds.) How many bytes has the file? With 1000 symbols and a vocabulary of 300 it has 2000.

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
# ## A file that pretends to be memory
#
# Every program believes that it has one long memory. The system keeps a table behind it: this **page** of 4,096 bytes (16,384 on a newer Mac) lies there in the chips, that one nowhere yet. To **map** a file means to enter it into this table. Nothing is read. Only when the program touches a place does the system notice that the page is missing, fetch it from the disk, and let the program go on. Pages that nobody has touched for a while make room for others.
#
# Here is the smallest file, mapped.

# %%
toy = folder / "toy.bin"
goose = (
    tokenizer.encode("O damp goose!").numpy().astype("<u2")
)  # u2: unsigned, 2 bytes; <: the low one first
_ = toy.write_bytes(goose.tobytes())
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
# Now a larger one, 67 megabytes. (It was just written, so its pages are still in the computer's memory; what is counted is what this *process* has of them.) On Linux a process can ask how many megabytes of files are in its own part of the memory. (Elsewhere we do not ask, and the cell says `nan`.)

# %%
import mmap


def resident_files():
    """Megabytes of mapped files that are in memory now, on Linux; elsewhere nan."""
    numbers = Path("/proc/self/statm")
    return (
        int(numbers.read_text().split()[2]) * mmap.PAGESIZE / 1e6
        if numbers.exists()
        else float("nan")
    )

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
if sys.platform == "linux":
    mapped.base.madvise(mmap.MADV_DONTNEED)  # "we do not need these pages"
    sizes["given back"] = resident_files() - before
print(*(f"{name}: ≈ {abs(size):.1f} MB" for name, size in sizes.items()), sep="\n")

# %%
mapped = None  # lets go of the file
large.unlink(missing_ok=True)
if sizes["all read"] > 1:  # the system has told us
    assert sizes["mapped"] < 5
    assert sizes["a hundred ids read"] < 20
    assert sizes["all read"] > 40
    assert sizes["given back"] < 5

# %% [markdown]
# A hundred ids lie on one page or two. The system has entered their neighbours as well, because who reads here will soon read there. "All read" looks as if the memory were full again. It is only lent: what a page holds is on the disk, too. We gave the pages back ourselves, and could read them again; when somebody needs the room, the system takes them without asking. That is why one can map a file that is larger than the memory.
#
# ## Writing
#
# The text has to become numbers without ever being in memory as a whole. So everything that follows works on pieces. First, where pieces come from: a file, a folder of `.txt` files, or anything that gives one text after the other: a list, or a data set with rows like `{"text": "O damp goose!"}`. As in lesson 00, files are UTF-8, and line ends from Windows become `\n`.

# %%
#| export
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy
import torch
from tqdm import tqdm

from chargpt_lib.checkpoints import put_json
from chargpt_lib.data import CharTokenizer
from chargpt_lib.recipe import count_windows, epoch_dice

INDEX, VERSION = "index.json", 1
ID, NO_ID = "<u2", 2**16 - 1  # uint16, the low byte first; what a character gets that has no id
PIECE = 2**20  # characters that are taken in hand at a time

# %%
#| export
def file_pieces(path):
    try:
        with open(path, encoding="utf-8-sig") as file:
            while text := file.read(PIECE):
                yield text
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 (it has a byte {error.object[error.start]:#04x}): save it so"
        ) from None


def row_pieces(row, name):
    text = row.get("text") if isinstance(row, Mapping) else row
    if not isinstance(text, str):
        what = (
            f"a row with the columns {[*row]}"
            if isinstance(row, Mapping)
            else f"a {type(row).__name__}"
        )
        raise ValueError(
            f"{name} is {what}, and no text: give texts, or rows with a text in the column 'text'"
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return (text[start : start + PIECE] for start in range(0, len(text), PIECE))

# %% [markdown]
# Between two texts stands an empty line, as between the scenes of our plays. (A data set whose rows are single lines wants `separator="\n"`.) Each piece carries along where it comes from: an error message will need that.

# %%
#| export
def pieces(texts, separator):
    """A file, a folder of .txt files, or an iterable of texts or rows -> (where it comes from, a piece of text), ..."""
    if isinstance(texts, (str, Path)):
        files = sorted(Path(texts).glob("*.txt")) if Path(texts).is_dir() else [Path(texts)]
        if not files or not files[0].is_file():
            raise FileNotFoundError(
                f"{texts} is no file, and no folder of .txt files; a text goes into a list, [text]"
            )
        documents = ((str(path), file_pieces(path)) for path in files)
    else:
        documents = ((f"text {n}", row_pieces(row, f"text {n}")) for n, row in enumerate(texts))
    with tqdm(
        unit=" characters", unit_scale=True, delay=3, mininterval=0.5, file=sys.stdout
    ) as bar:
        for n, (name, parts) in enumerate(documents):
            start = 0
            if n:
                yield "the separator", separator
            for part in parts:
                yield f"{name}, from character {start} on" if start else name, part
                start += len(part)
                bar.update(len(part))

# %%
print(list(pieces(["O damp goose!", {"text": "O goose,\r\nO!"}], separator="\n\n")))

# %% [markdown]
# Lesson 00's `encode` asks a dict for each character, and makes a list. numpy can look up a whole array at once: the numbers that Unicode gives to the characters, and a table that has the id at that place.

# %%
numbers = numpy.frombuffer("goose".encode("utf-32-le"), "<u4")
table = numpy.zeros(128, "<u2")
table[[ord(char) for char in tokenizer.alphabet]] = range(tokenizer.vocab_size)
print(numbers, "->", table[numbers], "and encode:", tokenizer.encode("goose").tolist())

# %% [markdown]
# Characters without an id get a number of their own, `NO_ID`. The table has it once more at its end, for all that come after the last letter of the alphabet: their numbers are clipped to that place. If one turns up, the tokenizer itself is asked: its error names the character and what could be meant, and we add in which text it stands.

# %%
#| export
def encoded(texts, tokenizer, separator):
    """The ids of the texts, uint16, piece by piece. ValueError for a character that has none."""
    letters = [ord(char) for char in tokenizer.alphabet]
    table = numpy.full(max(letters) + 2, NO_ID, ID)  # one place more than the last letter's
    table[letters] = range(len(letters))
    for name, text in pieces(texts, separator):
        numbers = numpy.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        ids = table[numbers.clip(max=len(table) - 1)]
        if (ids == NO_ID).any():
            try:
                tokenizer.encode(text)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        yield ids

# %% [markdown]
# (`"surrogatepass"` lets half characters through, which some broken texts have, so that they get a proper error, too.) **Predict:** how much faster is it?

# %%
seconds = {"encode": [], "table": []}
for _ in range(3):  # the least of three, because other programs run, too
    for name, work in (
        ("encode", tokenizer.encode),
        ("table", lambda text: list(encoded([text], tokenizer, ""))),
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
# One file of a terabyte is hard to copy, and if it breaks, all is broken. So the ids go into **shards**, files of equal length (16.8 million ids, 34 megabytes; the last one is shorter). A shard is raw: ids and nothing else, not even a header. What one has to know about the shards is in a second file, the index: the alphabet, and of each shard its length and its sha256.
#
# Why two bytes, where one would do for our alphabet? Because two are enough for vocabularies of pieces of words, too (GPT-2's has 50,257), and one size for all is one thing less to get wrong.

# %%
#| export
def put_shard(path, ids):
    """Writes a shard, and waits for the disk -> what the index says of it."""
    try:
        with open(path, "wb") as file:
            file.write(ids)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(f"{path} could not be written ({error}): is the disk full?") from error
    return {"file": path.name, "ids": len(ids), "sha256": hashlib.sha256(ids).hexdigest()}


def refuse(texts, folder, tokenizer, shard_size, val_size):
    if not (
        isinstance(shard_size, int)
        and shard_size > 0
        and isinstance(val_size, int)
        and val_size >= 0
    ):
        raise ValueError(
            f"shard_size is {shard_size!r}, val_size {val_size!r}: give whole numbers, from 1 and 0 on"
        )
    if old := [*folder.glob(INDEX), *folder.glob("*-[0-9]*.bin")]:
        raise FileExistsError(
            f"{folder} holds {old[0].name} of another writing: choose another folder, or delete it"
        )
    if isinstance(texts, Mapping):
        raise ValueError(
            f"the texts are a dict with {[*texts]}, several data sets perhaps: give one of them"
        )
    if tokenizer is None and not isinstance(texts, (str, Path)) and iter(texts) is texts:
        raise ValueError(
            "the texts can be read only once, and their alphabet takes a reading: give a tokenizer, too"
        )

# %% [markdown]
# Which part is for validation? The last tenth, as always; but of ten gigabytes a tenth is far more than anybody evaluates on, so at most `val_size` ids. Of a stream nobody knows where its last tenth begins. So the last `val_size` ids are always held back in a buffer, and what turns out not to be the end goes on to the shards.
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
    ValueError names the text that is none, or has a character without an id; FileExistsError where the folder holds
    shards; OSError where it cannot be written. After an error no shard is left.
    """
    folder = Path(folder)
    refuse(texts, folder, tokenizer, shard_size, val_size)
    tokenizer = tokenizer or CharTokenizer(
        {char for _, text in pieces(texts, separator) for char in set(text)}
    )
    if tokenizer.vocab_size > NO_ID:
        raise ValueError(
            f"an alphabet of {tokenizer.vocab_size} symbols is too large: shards hold {NO_ID}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    index = {"version": VERSION, "alphabet": tokenizer.alphabet, "train": [], "val": []}
    buffer, filled, n = numpy.empty(shard_size + val_size + 2 * PIECE, ID), 0, 0

    def empty(kind, size):
        nonlocal filled
        index[kind].append(put_shard(folder / f"{kind}-{len(index[kind]):05d}.bin", buffer[:size]))
        buffer[: filled - size], filled = buffer[size:filled], filled - size

    try:
        for ids in encoded(texts, tokenizer, separator):
            buffer[filled : filled + len(ids)] = ids
            filled, n = filled + len(ids), n + len(ids)
            while filled >= shard_size + val_size:
                empty("train", shard_size)
        if n < 20:
            raise ValueError(
                f"the texts have {n} characters: too few to train on one part and test on another"
            )
        last = min(val_size, n - 9 * n // 10)
        while filled > last:
            empty("train", min(filled - last, shard_size))
        if filled:
            empty("val", filled)
        put_json(folder / INDEX, index)
    except BaseException:
        for path in folder.glob("*-[0-9]*.bin"):
            path.unlink()
        raise

# %% [markdown]
# Our corpus is small. Here a shard has 100,000 ids, so that there are several.

# %%
_ = (folder / "plays.txt").write_text(text, encoding="utf-8", newline="\n")
write_shards(folder / "plays.txt", folder / "plays", shard_size=100_000, val_size=8000)
index = json.loads((folder / "plays" / "index.json").read_text(encoding="utf-8"))
print(len(index["train"]), "shards; the first and the last:")
for shard in (index["train"][0], index["train"][-1]):
    print(
        shard["file"],
        shard["ids"],
        "ids,",
        (folder / "plays" / shard["file"]).stat().st_size,
        "bytes",
    )
print("for validation:", index["val"][0]["ids"])

# %%
def complain(use):
    try:
        use()
    except (ValueError, OSError) as error:
        print(
            str(error)
            .replace(scratch.name, "...")
            .replace("...\\", ".../")
            .replace("plays\\", "plays/")
        )


complain(lambda: write_shards((line for line in ["O damp goose!"]), folder / "once"))
complain(lambda: write_shards(folder / "plays.txt", folder / "plays"))

# %% [markdown]
# The third text of these has a letter that our alphabet lacks. What is on the disk by then?

# %%
def lines():
    for line in ("O damp goose!", "You tiny friar, Anne!", "O damp café!"):
        print("shards so far:", len(list((folder / "lines").glob("*.bin"))))
        yield line


complain(lambda: write_shards(lines(), folder / "lines", tokenizer, shard_size=10, val_size=5))
print("and now:", [path.name for path in (folder / "lines").iterdir()])

# %% [markdown]
# ## Reading
#
# Cutting text into shards is for the disk's sake; a reader shall not notice. To her the shards are one long ribbon again, and place 250,000 of it is ... where?
#
# ### Exercise: which shard?
# ★★ · 6 minutes · The borders are where such functions are wrong.
#
# The shards have lengths `lengths`, and stand one after the other; places count from 0. In which shard is the place `n`, and how far from its beginning? A shard may be empty; no place is in it. With lengths 4, 4, 3 the place 3 is the last of the first shard: `[0, 3]`. The place 4 is the first of the second: `[1, 0]`. The place 10 is the last of all: `[2, 2]`. With lengths 2, 0, 3 the place 2 is `[2, 0]`.

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
# For many places at once: the borders are the sums of the lengths, and `searchsorted` finds between which of them a place lies.

# %%
edges = torch.tensor([0, 4, 8, 11])
places = torch.tensor([3, 4, 10])
shard = torch.searchsorted(edges, places, right=True) - 1
print(shard.tolist(), (places - edges[shard]).tolist())

# %% [markdown]
# Before a training trusts a folder, the folder is looked at: is there an index, of this version, which says what an index can say? Is each file there, with the length it should have? No id is read for that. (`eval`, `pickle` and their like are not used: a file from the net can be wrong, but it cannot make us run anything.)

# %%
#| export
def broken(path, why):
    return ValueError(
        f"{path}: {why}. Copy it again from where it came from, or write the shards anew (write_shards)"
    )


def read_index(folder):
    """What index.json says, each file found and of the right length. FileNotFoundError where there is no index."""
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {INDEX}: it was unfinished, or no folder of shards. Write it "
            f"with write_shards, into a new folder"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["version"] != VERSION:
            raise ValueError(
                f"its version is {index['version']!r}, and this library reads {VERSION}"
            )
        if not index["alphabet"] or index["alphabet"] != "".join(sorted(set(index["alphabet"]))):
            raise ValueError("its alphabet is no text of different characters in their order")
        shards = [
            (f"{kind}-{n:05d}.bin", shard)
            for kind in ("train", "val")
            for n, shard in enumerate(index[kind])
        ]
        if not index["train"] or any(
            (shard["file"], type(shard["ids"])) != (name, int) for name, shard in shards
        ):
            raise ValueError("its shards have other names, or no length")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise broken(path, f"this is no index of shards ({error})") from None
    for name, shard in shards:
        size = (folder / name).stat().st_size if (folder / name).is_file() else "no"
        if size != 2 * shard["ids"] or not size:
            raise broken(
                folder / name, f"the file has {size} bytes, and {INDEX} says {2 * shard['ids']}"
            )
    return index

# %% [markdown]
# `Shards` is the folder, opened. `at` answers for any table of places; a window that lies across a border is nothing special. Of the maps it keeps four open at a time, because systems count open files.
#
# What lengths cannot show is a wrong number inside of a file. An id that no character has would make a graphics card stop with a message about an assertion on the device. So `at` looks, and names the file. What else may have happened to the bytes only the sha256 tells: `verify` reads them all: do that once, after a copy.

# %%
#| export
class Shards:
    """A folder that write_shards wrote: a text on disk, mapped.

    tokenizer: of its alphabet; val_ids: the held-out ids (N,) int64, None where there are none; len(): ids to train on.
    ValueError or FileNotFoundError names a file that is missing, damaged, or of another version."""

    def __init__(self, folder):
        self.folder, self.index, self.maps = Path(folder), read_index(Path(folder)), {}
        self.tokenizer = CharTokenizer(self.index["alphabet"])
        self.edges = torch.tensor([0] + [shard["ids"] for shard in self.index["train"]]).cumsum(
            0
        )  # (shards + 1,)
        self.val_ids = self.read("val-00000.bin", slice(None)) if self.index["val"] else None

    def __len__(self):
        return int(self.edges[-1])

    def read(self, file, places):
        """places: an array of offsets in one file -> its ids there, int64."""
        if file not in self.maps:
            self.maps = {
                **dict(list(self.maps.items())[-3:]),
                file: numpy.memmap(self.folder / file, ID, "r"),
            }
        ids = torch.from_numpy(self.maps[file][places].astype("int64"))
        if ids.numel() and ids.max() >= self.tokenizer.vocab_size:
            raise broken(
                self.folder / file, f"it has the id {ids.max()}, and no character has that"
            )
        return ids

    def at(self, places):
        """places: int64, any shape, from 0 to len() - 1 -> the ids that stand there, int64, of the same shape."""
        shards, ids = (
            torch.searchsorted(self.edges, places, right=True) - 1,
            torch.empty_like(places),
        )
        for shard in shards.unique().tolist():
            here, file = shards == shard, self.index["train"][shard]["file"]
            ids[here] = self.read(file, (places[here] - self.edges[shard]).numpy())
        return ids

    def windows(self, block_size, seed):
        return ShardWindows(self, block_size, seed)

    def verify(self):
        """Reads every byte. ValueError for the first file that is not what was written."""
        for shard in self.index["train"] + self.index["val"]:
            with open(self.folder / shard["file"], "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard.get("sha256"):
                    raise broken(
                        file.name, "its content is not what was written: the sha256 differs"
                    )

# %%
shards = Shards(folder / "plays")
print(len(shards), "ids to train on;", len(shards.val_ids), "to test on")
across = shards.at(torch.arange(99_980, 100_020))
print("across a border:", repr(shards.tokenizer.decode(across)))
same = torch.cat([shards.at(torch.arange(len(shards))), shards.val_ids]) == ids
print(f"as in the text: {same.sum():,} of {len(ids):,} ids")

# %% [markdown]
# Now let us spoil it, in three ways.

# %%
file, good = (
    folder / "plays" / "train-00003.bin",
    (folder / "plays" / "train-00003.bin").read_bytes(),
)
shards = None  # its maps go, too: a mapped file must not shrink under its reader
_ = file.write_bytes(good[:-1])
complain(lambda: Shards(folder / "plays"))
_ = file.write_bytes(b"\xff\xff" + good[2:])
complain(lambda: Shards(folder / "plays").at(torch.tensor([300_000])))
_ = file.write_bytes(good[2:] + good[:2])
complain(lambda: Shards(folder / "plays").verify())
_ = file.write_bytes(good)

# %% [markdown]
# ## Shuffled twice
#
# Lesson 10's `Windows` shuffles all windows of an epoch in one pile. For our shards that has two faults.
#
# The order is a list of all of them, with 8 bytes each. That is nothing for a million characters; for a trillion, in windows of 256, it is 31 gigabytes. And each batch reads from everywhere: 32 windows, 32 pages from 32 ends of the disk, none of them in memory from before.
#
# So shuffle on two levels. First the shards: which one is read first, which second. Then, when a shard's turn has come, its windows. At any time one shard is being read, or two, where a window or a batch reaches into the next, and it fits into memory with ease. Its order is half a megabyte (for windows of 256), instead of 31 gigabytes; it is forgotten when the next shard's turn comes, and can be thrown again: seed, epoch and shard settle it.
#
# As in lesson 10, each epoch cuts the ribbon at other places, and the windows are laid over the whole ribbon. A window belongs to the shard in which it begins.

# %%
#| export
def plan_epoch(edges, block_size, count, seed, epoch):
    """-> where an epoch's first window starts; and of the shards, in the order in which they are read: the number of
    the first window that begins in each, how many do, how many have been read after it, a seed."""
    dice = epoch_dice(seed, epoch)
    start = torch.randint(edges[-1] - count * block_size, (), generator=dice)
    order = torch.randperm(len(edges) - 1, generator=dice)
    before = ((edges - start + block_size - 1) // block_size).clamp(
        0, count
    )  # windows that begin before each border
    many = before.diff()[order]
    return (
        start,
        before[order],
        many,
        many.cumsum(0),
        torch.randint(2**32, order.shape, generator=dice),
    )

# %% [markdown]
# Four shards of 100 ids, in windows of 16:

# %%
start, first, many, after, _ = plan_epoch(
    100 * torch.arange(5), block_size=16, count=24, seed=1337, epoch=0
)
print("the first window starts at", start.item())
print(
    "windows:",
    *(f"{low} to {low + n - 1}," for low, n in zip(first.tolist(), many.tolist())),
    "read in this order",
)
print("so many are read after each shard:", after.tolist())

# %% [markdown]
# The windows are numbered from the left, so the second shard is read first, then the fourth, the third, the first. With this plan, `starts` finds the windows that follow any number of windows seen. It goes from shard to shard, and from epoch to epoch, where a batch does.

# %%
#| export
class ShardWindows:
    """The windows of shards, each once an epoch: shards in a shuffled order, and shuffled windows in each of them.

    As in recipe.Windows, seed and epoch settle the order, and every epoch cuts at other places."""

    def __init__(self, shards, block_size, seed):
        self.count = count_windows(len(shards), block_size)
        self.shards, self.block_size, self.seed, self.plan, self.shuffled = (
            shards,
            block_size,
            seed,
            {},
            {},
        )

    def starts(self, seen, size):
        """Where the windows that follow the first `seen` ones start: (size,)."""
        starts = []
        while size:
            epoch, at = divmod(seen, self.count)
            if epoch not in self.plan:
                self.plan = {
                    epoch: plan_epoch(
                        self.shards.edges, self.block_size, self.count, self.seed, epoch
                    )
                }
            start, first, many, after, dice = self.plan[epoch]
            turn = torch.searchsorted(after, at, right=True).item()  # which shard's it is
            if (epoch, turn) not in self.shuffled:
                generator = torch.Generator().manual_seed(dice[turn].item())
                numbers = first[turn] + torch.randperm(many[turn].item(), generator=generator)
                self.shuffled = {(epoch, turn): start + self.block_size * numbers}
            at -= (after - many)[turn].item()  # how many of this shard's were seen
            starts.append(self.shuffled[epoch, turn][at : at + size])
            seen, size = seen + len(starts[-1]), size - len(starts[-1])
        return torch.cat(starts)

    def batch(self, seen, size):
        """The windows that follow the first `seen` ones -> x, y, both (size, T) int64, on the CPU."""
        windows = self.shards.at(
            self.starts(seen, size)[:, None] + torch.arange(self.block_size + 1)
        )
        return windows[:, :-1], windows[:, 1:]

# %% [markdown]
# Here are two epochs, as points: when a window is read, and where it stands. On the left one pile of all windows, on the right eight shards.

# %%
write_shards([text[:8600]], folder / "few", tokenizer, shard_size=1000, val_size=600)
few = Shards(folder / "few").windows(block_size=16, seed=1337)
pile = Windows(ids[:8000], block_size=16, seed=1337)
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
# **Predict:** how many of the 8,000 ids are in no window of the first epoch? What one pile promises has to hold here, too: no id twice, and at most two windows' worth left out, at the two ends.

# %%
every = (few.starts(0, few.count)[:, None] + torch.arange(16)).flatten()
print(
    few.count, "windows;", len(every.unique()), "different places of", len(every), "that were read"
)
left = 8000 - len(every)
print("left out:", left, f"ids (two windows have {2 * 16})")
again = Shards(folder / "few").windows(block_size=16, seed=1337)  # as after an accident
print(
    "windows 777 to 781 are the same after an accident:",
    torch.equal(again.batch(777, 5)[0], few.batch(777, 5)[0]),
)
assert len(every) == len(every.unique())
assert left < 32

# %%
x, y = few.batch(seen=0, size=2)
print(repr(tokenizer.decode(x[0])), repr(tokenizer.decode(y[0])))
print(x.shape, x.dtype, "one ahead:", torch.equal(x[:, 1:], y[:, :-1]))

# %% [markdown]
# What does it cost? All windows of a batch, and of some thousands of batches after it, come from one stretch of text. If the texts were sorted, by author or by language, the model would read authors one after the other, and forget the first over the last. So mix texts *before* they are written.
#
# ### Exercise: a shuffle with a small memory
# ★★ · 8 minutes · How do you mix a stream that does not fit into memory? Thoroughly only in two passes: throw each item into one of many small files, then shuffle each of these. A little, in one pass, with this (tf.data and Hugging Face's `datasets` both have it).
#
# A buffer has `size` places. The first `size` items fill it, in their order. Each further item is put into one of the places, and the item that was in it comes out. When the stream has ended, what is in the buffer comes out, in the order of the places. If the stream is shorter than the buffer, all of it comes out at the end.
#
# `draws` holds the dice: for each item after the first `size` ones the number of its place, from 0. With `size` 2 and `draws` 1 0 1, the stream `10 20 30 40 50` fills the buffer with `10 20`. Then 30 pushes 20 out, 40 pushes 10 out, 50 pushes 30 out; at the end 40 and 50 follow: `20 10 30 40 50`.

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
# An item can come out much later than it went in, and hardly earlier: at most `size` - 1 places. A sorted stream stays nearly sorted, unless the buffer is large; then it takes the two passes.
#
# ## Several processes
#
# On several graphics cards, several copies of one program train one model ([the next page](13_many_devices.ipynb)). Each of them is a process with a number, its **rank**. At each step every rank takes `size` windows, computes a gradient from them, and the gradients are averaged. So together they must read what one process would have read, each window once.
#
# ### Exercise: the part of a rank
# ★ · 5 minutes · A rank that reads its neighbour's windows costs half the computers and shows in no loss curve.
#
# The `count` windows of an epoch are numbered in the order in which they come. Of the first `ranks` · `size`, rank 0 takes the first `size`, rank 1 the next `size`, and so on; of the following ones again rank 0 the first `size`. At the end there may be too few for all: then nobody's part is filled up, but what is there is read. Which windows does rank `rank` read in this epoch? With 9 windows, `size` 2 and 2 ranks, rank 0 reads 0, 1, 4, 5 and 8, and rank 1 reads 2, 3, 6 and 7. With 11 windows rank 0 reads 9 as well, and rank 1 ends with 10.

# %% tags=["exercise"] exercise="rank_windows"
def rank_windows(count, size, ranks, rank):
    """Whole numbers; 0 <= rank < ranks -> the numbers of the rank's windows, a list of ints in their order."""
    ### BEGIN SOLUTION
    return [window for window in range(count) if window // size % ranks == rank]
    ### END SOLUTION

# %%
check("rank_windows", rank_windows)

# %% [markdown]
# `batch` needs no word about ranks. Rank $r$ asks for the `size` windows that follow the first `seen + r * size`. (One difference: where the exercise leaves a part short, `batch` goes on into the next epoch.) Here are two ranks, played by one process; each opens the folder for itself.

# %%
size, ranks, steps = 8, 2, 40
own = [Shards(folder / "plays").windows(block_size=64, seed=1337) for rank in range(ranks)]
alone = Shards(folder / "plays").windows(block_size=64, seed=1337)
equal, read = 0, [set(), set()]
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
# And what of the disk did they touch? A page of 4,096 bytes holds 2,048 ids. **Predict:** 640 windows have been read. On how many pages do they lie? And from one pile of all windows?

# %%
def pages_of(starts):
    """The pages on which windows of 64 lie, as (shard, page)."""
    return {
        (place // 100_000, place % 100_000 // 2048)
        for start in starts
        for place in (start, start + 64)
    }


pile = Windows(ids[: len(alone.shards)], 64, seed=1337).order(0)[: len(read[0] | read[1])].tolist()
in_all = sum(-(-shard["ids"] // 2048) for shard in alone.shards.index["train"])
print("pages of rank 0:", len(pages_of(read[0])), " of rank 1:", len(pages_of(read[1])))
print(
    "of both:",
    len(pages_of(read[0] | read[1])),
    " from one pile:",
    len(pages_of(pile)),
    " in all:",
    in_all,
)

# %% [markdown]
# 640 windows of 64 ids would fit on 20 pages. Each rank touches only pages on which windows of its own lie, all in one shard; in so small a one these are soon all its pages. Both read from the same shard at the same time, and on one computer they share its pages: a page is in memory once, however many processes have mapped it. (When a system fetches a page it likes to fetch its neighbours as well. Those are not counted here.)
#
# ## How fast?
#
# **Predict:** how much slower is a batch from the map than one from memory, when the pages are in memory already? And what does that matter to a step that takes fifty milliseconds?

# %%
def fastest(source, batches=50):
    """Milliseconds for a batch of 32; the least of many, because other programs run, too."""
    times = []
    for k in range(batches):
        start = time.perf_counter()
        source.batch(32 * k, 32)
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)

# %%
memory, mapped = Windows(ids, 64, seed=1337), Shards(folder / "plays").windows(64, seed=1337)
times = {"from memory": fastest(memory), "from the map": fastest(mapped)}
print(
    *(f"{name}: ≈ {ms:.2f} ms, ≈ {ms / 50:.2%} of such a step" for name, ms in times.items()),
    sep="\n",
)
assert times["from the map"] < 5

# %% [markdown]
# Several times as long, perhaps, and still next to nothing beside such a step. The first touch of a page costs more, as much as the disk takes. And here the two levels pay: the more batches of a shard have been read, the more of its pages are there already.
#
# ## Training from it
#
# Lesson 11's `train` does not mind where its windows come from. It asks its text for `windows`, `val_ids` and a `tokenizer`; a `Shards` has all three.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(1337)
shards = Shards(folder / "plays")
model = GPT(GPTConfig(shards.tokenizer.vocab_size, block_size=32, n_layer=2, n_head=4, n_embd=64))
birth = evaluate(model, shards.val_ids)
result = train(
    model, shards, TrainConfig(steps=200, batch_size=16, learning_rate=3e-3, eval_interval=100)
)

# %%
gain = birth - result["loss"]
print(f"≈ {birth:.2f} -> ≈ {result['loss']:.2f} nats per character, after {result['steps']} steps")
assert gain > 1.2

# %% [markdown]
# ## Other people's data
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
# (For files of your own, `load_dataset("text", data_files="*.txt", ...)` gives lines: then with `separator="\n"`.) `shuffle` is the exercise from above (it also shuffles the files that the rows lie in, and what is left in the buffer at the end). Without `streaming=True` the rows are kept on the disk, and `write_shards` takes them as well. A stream is read twice if there is no tokenizer; if you know the alphabet, say so, and it comes over the net once.
#
# All that `write_shards` asks for is rows with a `"text"`, so ours may come from anywhere:

# %%
class Rows:
    def __iter__(self):
        for scene in text[:20_000].split("\n\n"):
            yield {"text": scene, "author": "dice"}


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
# - **`mapped.astype("int64")`.** The whole file is in memory, four times as large. Cut first, then convert.
# - **A sorted data set, written as it came.** The order of the shards is shuffled, their contents are not mixed. Shuffle the texts first.
# - **uint16 for too large a vocabulary.** `astype` makes 70,000 into 4,464 without a word. Count the vocabulary before you choose the type.
# - **Every rank with a seed of its own.** Each shuffles another pile; some windows come twice, others never.
# - **Writing into a folder that a run is reading.** A mapped file that shrinks stops its reader with a bus error, without a Python message. Write into a new folder.
# - **Shards on a network drive.** Each page is then a journey. Copy them to the computer's own disk first, and `verify()`.
#
# How far you are:

# %%
progress()

# %% [markdown]
# ## What you have
#
# `write_shards`, `Shards` and its `windows`, in `chargpt_lib/shards.py`: a text of any size, read as if it were in memory.
#
# Next: [13 · Many devices](13_many_devices.ipynb), where each rank gets a graphics card.
