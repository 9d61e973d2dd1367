# Made from notebooks/source/00_data.py by notebooks/tools/build.py. Edit that text, not this file.
"""Text as numbers: corpora, a character tokenizer, random batches."""

import json
import unicodedata
from pathlib import Path
from typing import NamedTuple

import torch

from chargpt_lib.files import fetch
from chargpt_lib.playhouse import write

__all__ = [
    "LOOKALIKES",
    "lookalike",
    "CharTokenizer",
    "Corpus",
    "BOOKS",
    "load_corpus",
    "get_batch",
]


LOOKALIKES = dict(zip("’‘“”„–—…´`", "''\"\"\"--.''"))


def lookalike(char, alphabet):
    """What could be meant by a character that is not in the alphabet, None if nothing in it looks alike."""
    plain = " " if char.isspace() else LOOKALIKES.get(char, unicodedata.normalize("NFKD", char)[0])
    return next((guess for guess in (plain, plain.swapcase()) if guess in alphabet), None)


class CharTokenizer:
    """Characters to ids and back. An id is the character's position in the sorted alphabet."""

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
        """text -> ids (T,) int64. ValueError for a character outside the alphabet."""
        try:
            return torch.tensor([self.stoi[char] for char in text], dtype=torch.int64)
        except KeyError as missing:
            char = missing.args[0]
            known = lookalike(char, self.stoi)
            way_out = (
                f"did you mean {known!r}?"
                if known
                else "leave it out, or take a tokenizer of a text that has it"
            )
            raise ValueError(
                f"character {char!r} at position {text.index(char)} is not in the alphabet of "
                f"{self.vocab_size} symbols, {self.alphabet!r}: {way_out}"
            ) from None

    def decode(self, ids):
        """ids, a tensor (T,) or a list of integers -> text. ValueError for an id that no character has."""
        if (ids := torch.as_tensor(ids)).dim() != 1:
            raise ValueError(
                f"ids have the shape {tuple(ids.shape)}; one text is (T,): take one row, ids[0]"
            )
        if bad := [i for i in ids.tolist() if not 0 <= i < self.vocab_size]:
            raise ValueError(
                f"id {bad[0]} is outside the alphabet: ids go from 0 to {self.vocab_size - 1}"
            )
        return "".join(self.alphabet[i] for i in ids.tolist())

    def save(self, path):
        """Writes the alphabet as JSON."""
        Path(path).write_text(json.dumps({"alphabet": self.alphabet}), encoding="utf-8")

    @classmethod
    def load(cls, path):
        """The tokenizer that `save` wrote."""
        return cls(json.loads(Path(path).read_text(encoding="utf-8"))["alphabet"])


class Corpus(NamedTuple):
    """Two texts, and what is known of the second: its floor in nats per character and its spans (Playhouse only)."""

    name: str
    train: str
    val: str
    val_floor: float | None = None
    val_spans: tuple = ()


BOOKS = {  # name: (file, sha256, share of the text for training, address)
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


def load_corpus(name_or_path_or_url="playhouse"):
    """'playhouse', 'shakespeare', 'oz', the path of a text file or its address -> Corpus.

    UTF-8 only. The last tenth of a text is for validation (of Oz the last fifth).
    """
    name = str(name_or_path_or_url)
    if name == "playhouse":
        train, val = write(min_chars=1_003_854, seed=1337), write(min_chars=111_540, seed=2024)
        return Corpus(name, train.text, val.text, val.entropy, tuple(val.spans))
    share = 0.9
    if name in BOOKS:
        file, sha256, share, url = BOOKS[name]
        path = fetch(file, url, sha256)
    elif name.startswith(("http://", "https://")):
        path = fetch(name.rstrip("/").rsplit("/", 1)[1], name)
    elif not (path := Path(name)).is_file():
        raise FileNotFoundError(
            f"no corpus and no file is called {name!r}: give 'playhouse', 'shakespeare', 'oz', "
            f"the path of a text file, or an address that begins with http"
        )
    try:
        text = Path(path).read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}. Save it as "
            f"UTF-8 (most editors: Save as, Encoding) and try again"
        ) from None
    if len(text) < 20:
        raise ValueError(
            f"{path} has {len(text)} characters: too few to train on one part and test on another"
        )
    cut = int(share * len(text))
    return Corpus(name, text[:cut], text[cut:])


def get_batch(ids, block_size, batch_size, generator=None, device="cpu"):
    """Random windows of a text.

    ids (N,) int64 -> x, y, both (B, T) int64 with B = batch_size and T = block_size; y is x moved by one.
    ValueError where the text is shorter than a window and its last target.
    """
    if len(ids) <= block_size:
        raise ValueError(
            f"a text of {len(ids)} ids has no window of block_size {block_size} and one target more: "
            f"take a longer text, or a block_size of at most {max(len(ids) - 1, 0)}"
        )
    starts = torch.randint(len(ids) - block_size, (batch_size, 1), generator=generator)
    windows = ids[starts + torch.arange(block_size + 1)].to(device)  # (B, T + 1)
    return windows[:, :-1], windows[:, 1:]
