# Made from notebooks/source/00_data.py by notebooks/tools/build.py. Edit that text, not this file.
"""Text as numbers: corpora, a character tokenizer, random batches."""

import json
import unicodedata
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from chargpt_lib.files import atomic_write_text, fetch
from chargpt_lib.playhouse import write

__all__ = [
    "LOOKALIKE_CHARS",
    "CharTokenizer",
    "Tokenizer",
    "TOKENIZERS",
    "tokenizer_from_dict",
    "load_tokenizer",
    "Corpus",
    "DOWNLOADABLE_CORPORA",
    "load_corpus",
    "get_batch",
]


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
