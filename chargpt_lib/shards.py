# Made from notebooks/source/12_data_on_disk.py by notebooks/tools/build.py. Edit that text, not this file.
"""Token shards: a data set on disk that is larger than memory."""

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

__all__ = [
    "INDEX_FILE",
    "INDEX_VERSION",
    "CHUNK_SIZE",
    "id_dtype",
    "iter_encoded",
    "write_shards",
    "read_index",
    "MAX_OPEN_MEMMAPS",
    "Shards",
    "plan_epoch",
]


INDEX_FILE = "index.json"
INDEX_VERSION = 2  # of the index; version 1 had an alphabet in place of the tokenizer
CHUNK_SIZE = 2**20  # characters, or ids, that are processed at a time


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
