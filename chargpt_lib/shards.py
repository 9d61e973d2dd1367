# Made from notebooks/source/12_data_on_disk.py by notebooks/tools/build.py. Edit that text, not this file.
"""Token shards: data on disk that are larger than memory."""

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

__all__ = [
    "INDEX",
    "VERSION",
    "ID",
    "NO_ID",
    "PIECE",
    "file_pieces",
    "row_pieces",
    "pieces",
    "encoded",
    "put_shard",
    "refuse",
    "write_shards",
    "broken",
    "read_index",
    "Shards",
    "plan_epoch",
    "ShardWindows",
]


INDEX, VERSION = "index.json", 1
ID, NO_ID = "<u2", 2**16 - 1  # uint16, the low byte first; what a character gets that has no id
PIECE = 2**20  # characters that are taken in hand at a time


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
