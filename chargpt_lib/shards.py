# Made from notebooks/source/12_data_on_disk.py by notebooks/tools/build.py. Edit that text, not this file.
"""Token shards: data on disk that are larger than memory."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from tqdm import tqdm

from chargpt_lib.data import CharTokenizer, tokenizer_from_dict
from chargpt_lib.files import write_json
from chargpt_lib.recipe import count_windows, epoch_generator

__all__ = [
    "INDEX",
    "VERSION",
    "ID",
    "NO_ID",
    "PIECE",
    "encoded",
    "write_shards",
    "read_index",
    "MAX_MAPS",
    "Shards",
    "plan_epoch",
]


INDEX = "index.json"
VERSION = 2  # of the index; version 1 had an alphabet in place of the tokenizer
ID = "<u2"  # uint16, the low byte first on every computer
NO_ID = 2**16 - 1  # what a character gets that has no id
PIECE = 2**20  # characters, or ids, that are taken in hand at a time


def _file_pieces(path):
    """The text of a file, piece by piece. Raises: ValueError where it is not UTF-8."""
    try:
        # Python makes "\n" of all line ends here; -sig leaves out the mark that Windows puts first.
        with open(path, encoding="utf-8-sig") as file:
            while text := file.read(PIECE):
                yield text
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 (it has a byte {error.object[error.start]:#04x}): save it so"
        ) from None


def _row_pieces(row, name):
    """The text of a row, or a text, piece by piece. Raises: ValueError where it is none; name says which row it is."""
    text = row
    what = f"a {type(row).__name__}"
    if isinstance(row, Mapping):
        text = row.get("text")
        what = f"a row with the columns {[*row]}"
    if not isinstance(text, str):
        raise ValueError(
            f"{name} is {what}, and no text: give texts, or rows with a text in the column 'text'"
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE]


def _documents(texts):
    """A file, a folder of .txt files, or an iterable of texts or rows -> (its name, its pieces) of each text."""
    if isinstance(texts, (str, Path)):
        files = [Path(texts)]
        if files[0].is_dir():
            files = sorted(files[0].glob("*.txt"))
        if not files or not files[0].is_file():
            raise FileNotFoundError(
                f"{texts} is no file, and no folder of .txt files; a text goes into a list, [text]"
            )
        for path in files:
            yield str(path), _file_pieces(path)
    else:
        for n, row in enumerate(texts):
            yield f"text {n}", _row_pieces(row, f"text {n}")


def _pieces(texts, separator):
    """The texts piece by piece, with the separator between them -> (where it comes from, a piece of text), ..."""
    # A bar after three seconds, without a total: of a stream nobody knows how long it is.
    progress_bar = tqdm(
        unit=" characters", unit_scale=True, delay=3, mininterval=0.5, file=sys.stdout
    )
    with progress_bar:
        for n, (name, parts) in enumerate(_documents(texts)):
            if n > 0:
                yield "the separator", separator
            start = 0
            for part in parts:
                yield f"{name}, from character {start} on" if start else name, part
                start += len(part)
                progress_bar.update(len(part))


def _id_table(tokenizer):
    """The id of each character, at the place of its Unicode number; NO_ID for those without one."""
    numbers = [ord(char) for char in tokenizer.decode(range(tokenizer.vocab_size))]
    table = numpy.full(max(numbers) + 2, NO_ID, ID)  # one place more than the last letter's
    table[numbers] = range(len(numbers))
    return table


def encoded(texts, tokenizer, separator):
    """The ids of the texts, uint16, piece by piece. Raises: ValueError that names a text with an unknown character."""
    table = _id_table(tokenizer) if type(tokenizer) is CharTokenizer else None
    for name, text in _pieces(texts, separator):
        ids = None
        if table is not None:
            numbers = numpy.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
            ids = table[numbers.clip(max=len(table) - 1)]
        if ids is None or (ids == NO_ID).any():
            try:
                ids = tokenizer.encode(text).numpy().astype(ID)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        yield ids


def _write_shard(path, ids):
    """Writes a shard, and waits for the disk -> its entry in the index. Raises: OSError."""
    # Not under a temporary name: until the index is there, none of the shards counts.
    try:
        with open(path, "wb") as file:
            file.write(ids)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(f"{path} could not be written ({error}): is the disk full?") from error
    return {"file": path.name, "ids": len(ids), "sha256": hashlib.sha256(ids).hexdigest()}


def _is_whole(number, least):
    """Whether this is a whole number from `least` on."""
    return isinstance(number, int) and number >= least


def _check_request(texts, folder, tokenizer, shard_size, val_size):
    """Raises: ValueError or FileExistsError for what cannot be written, before anything is read."""
    if not _is_whole(shard_size, 1) or not _is_whole(val_size, 0):
        raise ValueError(
            f"shard_size is {shard_size!r}, val_size {val_size!r}: give whole numbers, from 1 and 0 on"
        )
    old = [*folder.glob(INDEX), *folder.glob("*-[0-9]*.bin")]
    if old:
        raise FileExistsError(
            f"{folder} holds {old[0].name} of another writing: choose another folder, or delete it"
        )
    if isinstance(texts, Mapping):
        raise ValueError(
            f"the texts are a dict with {[*texts]}, several data sets perhaps: give one of them"
        )
    # An iterator is its own iterator: what was read of it once is gone.
    if tokenizer is None and not isinstance(texts, (str, Path)) and iter(texts) is texts:
        raise ValueError(
            "the texts can be read only once, and their alphabet takes a reading: give a tokenizer, too"
        )


class _ShardWriter:
    """Takes ids as they come, and writes them as shards; the last ones are held back for validation."""

    def __init__(self, folder, shard_size, val_size):
        self.folder = folder
        self.shard_size = shard_size
        self.val_size = val_size
        self.buffer = numpy.empty(shard_size + val_size + PIECE, ID)
        self.filled = 0  # how many ids are in the buffer
        self.total = 0  # how many have come in
        self.index = {"train": [], "val": []}

    def add(self, ids):
        for start in range(0, len(ids), PIECE):  # a tokenizer may make more ids than characters
            part = ids[start : start + PIECE]
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
        """Writes what is left in the buffer. Raises: ValueError where too little has come in."""
        if self.total < 20:
            raise ValueError(
                f"the texts have {self.total} symbols: too few to train on one part and test on another"
            )
        last_tenth = self.total - 9 * self.total // 10
        val_size = min(self.val_size, last_tenth)
        while self.filled > val_size:
            self.write("train", min(self.filled - val_size, self.shard_size))
        if self.filled:
            self.write("val", self.filled)


def write_shards(texts, folder, tokenizer=None, shard_size=2**24, val_size=2**17, separator="\n\n"):
    """Writes texts larger than the memory as ids: shards of uint16, and index.json.

    texts: the path of a file or of a folder of .txt files (in the order of their names), or an iterable of texts or of
    rows with a column "text", such as a Hugging Face dataset, streamed or not. separator stands between two texts.
    tokenizer: any; without one the texts are read twice, the first time to find their alphabet.
    The last tenth is for validation, at most val_size ids; the rest is for training, shard_size ids a file.

    Raises: ValueError that names the text that is none, or has a character without an id; FileExistsError where the
    folder holds shards; OSError where it cannot be written. After an error no shard is left.
    """
    folder = Path(folder)
    _check_request(texts, folder, tokenizer, shard_size, val_size)
    if tokenizer is None:
        alphabet = set()  # all that the first reading keeps
        for _, text in _pieces(texts, separator):
            alphabet.update(text)
        tokenizer = CharTokenizer(alphabet)
    if tokenizer.vocab_size > NO_ID:
        raise ValueError(
            f"a vocabulary of {tokenizer.vocab_size} symbols is too large: shards hold {NO_ID}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    writer = _ShardWriter(folder, shard_size, val_size)
    try:
        for ids in encoded(texts, tokenizer, separator):
            writer.add(ids)
        writer.finish()
        index = {"version": VERSION, "tokenizer": tokenizer.to_dict(), **writer.index}
        write_json(folder / INDEX, index)
    except BaseException:  # Ctrl-C, too
        for path in folder.glob("*-[0-9]*.bin"):
            path.unlink()
        raise


def _corrupt_shards(path, why):
    """The ValueError for a file of a folder of shards that is not what it should be."""
    return ValueError(
        f"{path}: {why}. Copy it again from where it came from, or write the shards anew (write_shards)"
    )


def _check_index(index):
    """The tokenizer in an index. Raises: an error of some kind where the index is not what write_shards writes."""
    version = index["version"]
    if version not in (1, VERSION):
        raise ValueError(f"its version is {version!r}, and this library reads 1 and {VERSION}")
    tokenizer = tokenizer_from_dict(index["alphabet"] if version == 1 else index["tokenizer"])
    if not index["train"]:
        raise ValueError("it has no shards to train on")
    for kind in ("train", "val"):
        for n, shard in enumerate(index[kind]):
            # The names become paths: no other name than ours, so that none leads out of the folder.
            if shard["file"] != f"{kind}-{n:05d}.bin" or type(shard["ids"]) is not int:
                raise ValueError("its shards have other names, or no length")
    return tokenizer


def read_index(folder):
    """What index.json says, and the tokenizer in it; each file was found and has the right length.

    Raises: FileNotFoundError where there is no index, ValueError for a file that is missing or damaged.
    """
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {INDEX}: it was unfinished, or no folder of shards. Write it "
            f"with write_shards, into a new folder"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        tokenizer = _check_index(index)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt_shards(path, f"this is no index of shards ({error})") from None
    for shard in index["train"] + index["val"]:
        file = folder / shard["file"]
        # Two bytes an id. A mapped file that is shorter than it says would stop the process without a message.
        size = file.stat().st_size if file.is_file() else "no"
        if size != 2 * shard["ids"] or not size:
            raise _corrupt_shards(
                file, f"the file has {size} bytes, and {INDEX} says {2 * shard['ids']}"
            )
    return index, tokenizer


MAX_MAPS = 4  # open at a time: a process may open only so many files


class Shards:
    """A folder that write_shards wrote: a text on disk, mapped.

    tokenizer: the one it was written with; val_ids: the held-out ids (N,) int64, None where there are none; len(): how
    many ids there are to train on.

    Raises: ValueError or FileNotFoundError that names a file that is missing, damaged, or of another version.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.index, self.tokenizer = read_index(self.folder)
        lengths = [shard["ids"] for shard in self.index["train"]]
        self.edges = torch.tensor([0, *lengths]).cumsum(0)  # (shards + 1,)
        self.maps = {}  # file: its map, those opened last
        self.val_ids = None
        if self.index["val"]:  # one file, small enough for the memory
            self.val_ids = self.read("val-00000.bin", slice(None))

    def __len__(self):
        return int(self.edges[-1])

    def read(self, file, places):
        """places: an array of offsets in one file -> its ids there, int64."""
        if file not in self.maps:
            if len(self.maps) == MAX_MAPS:
                oldest = next(iter(self.maps))
                del self.maps[oldest]
            self.maps[file] = numpy.memmap(self.folder / file, ID, "r")
        # Cut first, then convert: the other way round the whole file would be in memory.
        ids = torch.from_numpy(self.maps[file][places].astype("int64"))
        if ids.numel() and ids.max() >= self.tokenizer.vocab_size:
            raise _corrupt_shards(
                self.folder / file, f"it has the id {ids.max()}, and no character has that"
            )
        return ids

    def at(self, places):
        """places: int64, any shape, from 0 to len() - 1 -> the ids that stand there, int64, of the same shape."""
        shards = torch.searchsorted(self.edges, places, right=True) - 1
        ids = torch.empty_like(places)
        for shard in shards.unique().tolist():  # one look into each file, not one for each place
            here = shards == shard
            offsets = places[here] - self.edges[shard]
            ids[here] = self.read(self.index["train"][shard]["file"], offsets.numpy())
        return ids

    def windows(self, block_size, seed):
        """Its windows, as the trainer asks for them."""
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
    """The order in which an epoch reads the shards; the tensors are (shards,), in that order."""

    start: torch.Tensor  # where the first window of the epoch starts: ()
    first: torch.Tensor  # the number of the first window that begins in each shard
    many: torch.Tensor  # how many windows begin in it
    after: torch.Tensor  # how many windows of the epoch have been read after it
    seeds: torch.Tensor  # for the order of its windows


def plan_epoch(edges, block_size, count, seed, epoch):
    """edges (shards + 1,): where each shard begins, and the end -> the EpochPlan of `count` windows."""
    generator = epoch_generator(seed, epoch)
    start = torch.randint(edges[-1] - count * block_size, (), generator=generator)
    order = torch.randperm(len(edges) - 1, generator=generator)
    # How many windows begin before each border, rounded up: a border may cut a window.
    before = ((edges - start + block_size - 1) // block_size).clamp(0, count)
    many = before.diff()[order]
    seeds = torch.randint(2**32, order.shape, generator=generator)
    return _EpochPlan(start, before[order], many, many.cumsum(0), seeds)


class _ShardWindows:
    """The windows of shards, each once an epoch: shards in a shuffled order, and shuffled windows in each of them.

    As in recipe.Windows, seed and epoch determine the order, and every epoch cuts at other places.
    """

    def __init__(self, shards, block_size, seed):
        self.count = count_windows(len(shards), block_size)
        self.shards = shards
        self.block_size = block_size
        self.seed = seed
        # Of one epoch and one shard alone, so that the memory does not grow with the text.
        self.plan = {}  # epoch: its EpochPlan
        self.shuffled = {}  # (epoch, turn): where the windows of the shard that is read then start

    def plan_of(self, epoch):
        if epoch not in self.plan:
            edges = self.shards.edges
            self.plan = {epoch: plan_epoch(edges, self.block_size, self.count, self.seed, epoch)}
        return self.plan[epoch]

    def shuffled_starts(self, epoch, turn):
        """Where the windows of the shard that is read as number `turn` of its epoch start, in the order of reading."""
        if (epoch, turn) not in self.shuffled:
            plan = self.plan_of(epoch)
            generator = torch.Generator().manual_seed(plan.seeds[turn].item())
            order = torch.randperm(plan.many[turn].item(), generator=generator)
            starts = plan.start + self.block_size * (plan.first[turn] + order)
            self.shuffled = {(epoch, turn): starts}
        return self.shuffled[epoch, turn]

    def starts(self, seen, size):
        """Where the windows that follow the first `seen` ones start: (size,)."""
        parts = []
        while size > 0:
            epoch, at = divmod(seen, self.count)
            plan = self.plan_of(epoch)
            turn = torch.searchsorted(plan.after, at, right=True).item()  # which shard is read now
            before = (plan.after - plan.many)[turn].item()  # windows of the shards before it
            # A slice ends with its shard; what is missing comes from the next one, or the next epoch.
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
