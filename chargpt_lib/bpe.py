# Made from notebooks/source/14_tokenizers.py by notebooks/tools/build.py. Edit that text, not this file.
"""Byte-pair encoding: a vocabulary of bytes and of frequent sequences of bytes."""

import heapq
import json
import math
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import regex
import torch

from chargpt_lib.checkpoints import POINTER_FILE, find_checkpoint
from chargpt_lib.data import CharTokenizer, load_tokenizer
from chargpt_lib.files import (
    atomic_write_text,
    fetch,
    read_gpt2_vocabulary,
    read_pieces,
    token_bytes,
    write_json,
)

__all__ = [
    "PATTERNS",
    "learn_merges",
    "CACHE_SIZE",
    "CHUNK_SIZE",
    "BPETokenizer",
    "bits_of_text",
    "byte_characters",
    "GPT2_FILES",
    "load_gpt2_tokenizer",
    "make_tokenizer",
]


# How a text is cut into words, before anything is merged: no token crosses the border of two words.
PATTERNS = {
    # GPT-2 (Radford et al., 2019): endings such as 's; letters, digits or signs, with one space before them; spaces.
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # GPT-4 (tiktoken's cl100k_base): endings in capitals, too; at most three digits; line ends apart.
    "gpt4": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+"
    ),
}


class _LargerFirst(tuple):
    """A tuple that a heap returns before smaller ones."""

    def __lt__(self, other):
        return tuple.__gt__(self, other)


def learn_merges(word_counts, num_merges):
    """Learns the merges of byte-pair encoding (Sennrich et al., 2016) -> pairs of ids; merge k makes the id 256 + k.

    word_counts: {word as bytes: how often it occurs}. The most frequent pair is merged first; among equally frequent
    pairs, the one with the larger bytes. There are fewer merges if the words run out of pairs.
    """
    tokens = [bytes([byte]) for byte in range(256)]
    # All words in one list of ids; after and before hold the places of each token's neighbours, -1 at the ends of words.
    ids = []
    after = []
    before = []
    weight = []  # how often the word of this place occurs
    counts = defaultdict(int)  # of each pair
    places = defaultdict(list)  # where each pair is, or was
    for word, count in word_counts.items():
        start = len(ids)
        end = start + len(word)
        ids.extend(word)
        after.extend([*range(start + 1, end), -1])
        before.extend([-1, *range(start, end - 1)])
        weight.extend([count] * len(word))
        for i in range(start, end - 1):
            pair = (ids[i], ids[i + 1])
            counts[pair] += count
            places[pair].append(i)

    def entry(pair):
        left, right = pair
        return (-counts[pair], _LargerFirst((tokens[left], tokens[right])), pair)

    heap = [entry(pair) for pair in counts]
    heapq.heapify(heap)
    merges = []
    while len(merges) < num_merges and heap:
        known, _, pair = heapq.heappop(heap)
        if counts[pair] != -known:
            # It has become rarer since it was pushed.
            if counts[pair] > 0:
                heapq.heappush(heap, entry(pair))
            continue
        left, right = pair
        new = len(tokens)
        tokens.append(tokens[left] + tokens[right])
        merges.append(pair)
        appeared = set()
        # From left to right, so that of three equal tokens the first two are merged.
        for place in sorted(places.pop(pair)):
            following = after[place]
            # The pair may be gone: one of its tokens was merged with its other neighbour.
            if ids[place] != left or following == -1 or ids[following] != right:
                continue
            count = weight[place]
            ids[place] = new
            ids[following] = -1
            next_place = after[following]
            after[place] = next_place
            if next_place != -1:
                before[next_place] = place
                counts[right, ids[next_place]] -= count
                counts[new, ids[next_place]] += count
                places[new, ids[next_place]].append(place)
                appeared.add((new, ids[next_place]))
            previous = before[place]
            if previous != -1:
                counts[ids[previous], left] -= count
                counts[ids[previous], new] += count
                places[ids[previous], new].append(previous)
                appeared.add((ids[previous], new))
        counts[pair] = 0
        for pair in appeared:
            if counts[pair] > 0:
                heapq.heappush(heap, entry(pair))
    return merges


def _merge_all(ids, ranks):
    """Merges the ids of one word, the earliest merge first. ranks: {pair of ids: (number of the merge, its id)}.

    With a heap, a word of n bytes takes n log n steps. Looking at all pairs for each merge would take n².
    """
    ids = list(ids)
    after = [*range(1, len(ids)), -1]
    before = [*range(-1, len(ids) - 1)]
    heap = []
    for i in range(len(ids) - 1):
        merge = ranks.get((ids[i], ids[i + 1]))
        if merge is not None:
            heap.append((*merge, i, ids[i], ids[i + 1]))
    heapq.heapify(heap)
    while heap:
        _, new, i, left, right = heapq.heappop(heap)
        following = after[i]
        # The pair may be gone: one of its tokens was merged with its other neighbour.
        if ids[i] != left or following == -1 or ids[following] != right:
            continue
        ids[i] = new
        ids[following] = -1
        next_place = after[following]
        after[i] = next_place
        if next_place != -1:
            before[next_place] = i
            merge = ranks.get((new, ids[next_place]))
            if merge is not None:
                heapq.heappush(heap, (*merge, i, new, ids[next_place]))
        previous = before[i]
        if previous != -1:
            merge = ranks.get((ids[previous], new))
            if merge is not None:
                heapq.heappush(heap, (*merge, previous, ids[previous], new))
    return tuple(i for i in ids if i != -1)


CACHE_SIZE = 2048  # words whose tokens are remembered
CHUNK_SIZE = 2**12  # characters that `encode_iterable` processes at a time

# A cut here does not change the tokens of a text: before a space that follows a letter or a digit. (?r) searches from
# the end.
_CUT = regex.compile(r"(?r)(?<=[\p{L}\p{N}])\s")


def _to_bytes(text):
    """Encodes a text in UTF-8. Raises: ValueError if the text contains half a character."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        # UTF-16 writes some characters as pairs. Python uses single halves for the bytes of broken file names.
        raise ValueError(
            f"{text[error.start]!r} is no character, so UTF-8 has no bytes for it: take it out of the "
            f"text"
        ) from None


def _texts_of(text_or_files):
    """Yields a text, or the contents of files piece by piece."""
    if isinstance(text_or_files, str):
        yield text_or_files
        return
    paths = [text_or_files] if isinstance(text_or_files, Path) else text_or_files
    for path in paths:
        yield from read_pieces(path)


class BPETokenizer:
    """Text to ids and back by byte-level byte-pair encoding (Sennrich et al., 2016; Radford et al., 2019).

    merges: (left id, right id, new id), in the order in which they are made. byte_ids: the id of each of the 256
    bytes. special_tokens: {text: id}; such a text is never cut or merged. pattern: "gpt2" or "gpt4".

    Raises: ValueError if the ids and merges make no vocabulary.
    """

    unit = "token"

    def __init__(self, merges, special_tokens=None, pattern="gpt2", byte_ids=range(256)):
        if pattern not in PATTERNS:
            raise ValueError(f"pattern is {pattern!r}; it is one of {', '.join(PATTERNS)}")
        self.merges = [tuple(merge) for merge in merges]
        self.special_tokens = {} if special_tokens is None else dict(special_tokens)
        self.pattern = pattern
        self.byte_ids = list(byte_ids)
        # The bytes of each id.
        self.tokens = token_bytes(self.byte_ids, self.merges, self.special_tokens)
        self._ranks = {}
        for rank, (left, right, new) in enumerate(self.merges):
            self._ranks[left, right] = (rank, new)
        self._words = regex.compile(PATTERNS[pattern])
        # The longest first: it wins where two special tokens begin at the same place.
        by_length = sorted(self.special_tokens, key=len, reverse=True)
        self._specials = None
        if by_length:
            self._specials = regex.compile("(" + "|".join(map(regex.escape, by_length)) + ")")
        self._cache = {}

    @classmethod
    def train(cls, text_or_files, vocab_size, special_tokens=(), pattern="gpt2"):
        """Learns a tokenizer from a text: 256 bytes, then merges, then the special tokens.

        text_or_files: a text, or a Path or a list of paths of UTF-8 files. If the text runs out of pairs, the
        vocabulary is smaller than vocab_size, with a warning.

        Raises: ValueError for an empty text, and for a vocab_size without room for the bytes and special tokens.
        """
        special_tokens = list(special_tokens)
        least = 256 + len(special_tokens)
        if vocab_size < least:
            raise ValueError(
                f"vocab_size is {vocab_size}; the 256 bytes and {len(special_tokens)} special tokens "
                f"need at least {least}"
            )
        special_ids = {
            token: vocab_size - len(special_tokens) + k for k, token in enumerate(special_tokens)
        }
        # A tokenizer without merges can already cut a text into words.
        cutter = cls([], {token: 256 + k for k, token in enumerate(special_tokens)}, pattern)
        counts = Counter()
        for text in _texts_of(text_or_files):
            for part in cutter._split_at_specials(text):
                if part not in cutter.special_tokens:
                    counts.update(cutter._words.findall(part))
        if not counts:
            raise ValueError(
                "the text is empty, so there is nothing to learn: give a text of some length"
            )
        word_counts = {_to_bytes(word): count for word, count in counts.items()}
        pairs = learn_merges(word_counts, vocab_size - least)
        if len(pairs) < vocab_size - least:
            warnings.warn(
                f"the text has no more pairs after {len(pairs)} merges: the vocab_size is {least + len(pairs)}, "
                f"not {vocab_size}"
            )
            special_ids = {token: 256 + len(pairs) + k for k, token in enumerate(special_tokens)}
        merges = [(left, right, 256 + k) for k, (left, right) in enumerate(pairs)]
        return cls(merges, special_ids, pattern)

    @property
    def vocab_size(self):
        return len(self.tokens)

    def encode(self, text, allowed_special="all"):
        """text -> ids (T,) int64. allowed_special: "all", or the special tokens that may occur in the text.

        Raises: ValueError for a special token that is not allowed, and if text is not a str.
        """
        if not isinstance(text, str):
            raise ValueError(f"{text!r} is a {type(text).__name__}, expected a text")
        return torch.tensor(self._encode(text, allowed_special), dtype=torch.int64)

    def encode_iterable(self, texts):
        """Yields the ids of one text that comes in pieces, such as the lines of a file.

        The ids are those of the whole text, of which only a part is in memory at a time.
        """
        for piece in self._pieces(texts):
            yield from self._encode(piece)

    def decode(self, ids):
        """ids, a tensor (T,) or a list of integers -> text, with U+FFFD where bytes make no character.

        Raises: ValueError for an id outside the vocabulary.
        """
        ids = torch.as_tensor(ids)
        if ids.dim() != 1:
            raise ValueError(
                f"ids have the shape {tuple(ids.shape)}; one text is (T,): take one row, ids[0]"
            )
        tokens = []
        for i in ids.tolist():
            if not 0 <= i < self.vocab_size:
                raise ValueError(
                    f"id {i} is out of range: valid ids are 0 to {self.vocab_size - 1}"
                )
            tokens.append(self.tokens[i])
        return b"".join(tokens).decode("utf-8", errors="replace")

    def _encode(self, text, allowed_special="all"):
        """text -> a list of ids."""
        ids = []
        for part in self._split_at_specials(text):
            if part in self.special_tokens:
                if allowed_special != "all" and part not in allowed_special:
                    raise ValueError(
                        f"the text has the special token {part!r} at position {text.index(part)}: add it to "
                        f"allowed_special, or take it out of the text"
                    )
                ids.append(self.special_tokens[part])
                continue
            for word in self._words.findall(part):
                if word not in self._cache:
                    if len(self._cache) == CACHE_SIZE:
                        self._cache.clear()
                    self._cache[word] = self._encode_word(word)
                ids.extend(self._cache[word])
        return ids

    def _encode_word(self, word):
        """One word -> its ids, a tuple."""
        return _merge_all([self.byte_ids[byte] for byte in _to_bytes(word)], self._ranks)

    def _split_at_specials(self, text):
        """A text cut before and after each special token, without empty parts."""
        if self._specials is None:
            parts = [text]
        else:
            parts = self._specials.split(text)
        return [part for part in parts if part != ""]

    def _pieces(self, texts):
        """Yields the same text in other pieces, cut between tokens, each at most a little longer than CHUNK_SIZE."""
        buffer = ""
        for text in texts:
            for start in range(0, len(text), CHUNK_SIZE):
                buffer += text[start : start + CHUNK_SIZE]
                if len(buffer) >= CHUNK_SIZE:
                    cut = self._last_cut(buffer)
                    if cut > 0:
                        yield buffer[:cut]
                    buffer = buffer[cut:]
        yield buffer

    def _last_cut(self, text):
        """The last place where a text can be cut without cutting a token; 0 if there is none."""
        longest = max(map(len, self.special_tokens), default=0)
        cut = len(text) - longest
        while cut > 0:
            space = _CUT.search(text, endpos=cut)
            if space is None:
                return 0
            cut = space.start()
            around = text[max(cut - longest + 1, 0) : cut + longest - 1]
            if not any(special in around for special in self.special_tokens):
                return cut
        return 0

    def to_dict(self):
        """The tokenizer as plain values, for JSON."""
        return {
            "type": "bpe",
            "pattern": self.pattern,
            "byte_ids": self.byte_ids,
            "merges": [list(merge) for merge in self.merges],
            "special_tokens": self.special_tokens,
        }

    @classmethod
    def from_dict(cls, saved):
        """The tokenizer that `to_dict` described. Raises: ValueError if `saved` describes none."""
        try:
            return cls(
                saved["merges"], saved["special_tokens"], saved["pattern"], saved["byte_ids"]
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no byte-pair encoding ({error!r})") from None

    def save(self, path):
        """Writes the tokenizer as JSON. Raises: OSError."""
        atomic_write_text(path, json.dumps(self.to_dict()))

    @classmethod
    def load(cls, path):
        """The tokenizer that `save` wrote. Raises: OSError; ValueError if the file holds no tokenizer."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def save_gpt2(self, folder):
        """Writes vocab.json and merges.txt, the files of GPT-2's tokenizer, into a folder. Raises: OSError."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        characters = byte_characters()
        written = ["".join(characters[byte] for byte in token) for token in self.tokens]
        vocab = {name: i for i, name in enumerate(written)}
        for text, i in self.special_tokens.items():
            del vocab[written[i]]
            vocab[text] = i
        lines = ["#version: 0.2"]
        for left, right, _ in self.merges:
            lines.append(f"{written[left]} {written[right]}")
        write_json(folder / "vocab.json", vocab)
        atomic_write_text(folder / "merges.txt", "\n".join(lines) + "\n")

    @classmethod
    def load_gpt2(cls, vocab, merges):
        """The tokenizer in GPT-2's files: vocab.json (or encoder.json) and merges.txt (or vocab.bpe).

        A token of the vocabulary that no merge makes is a special token. Raises: OSError; ValueError if the two files
        do not fit each other.
        """
        triples, special_tokens, byte_ids = read_gpt2_vocabulary(vocab, merges, byte_characters())
        return cls(triples, special_tokens, "gpt2", byte_ids)


def bits_of_text(loss, ids, tokenizer):
    """The cost of a text -> (bits per character, bits per byte). loss: nats per id, the mean over ids (N,) but the first."""
    text = tokenizer.decode(ids)
    first = tokenizer.decode(ids[:1])
    bits = loss * (len(ids) - 1) / math.log(2)
    characters = len(text) - len(first)
    n_bytes = len(text.encode("utf-8")) - len(first.encode("utf-8"))
    return bits / characters, bits / n_bytes


def byte_characters():
    """The character that stands for each byte in GPT-2's files, as a list.

    Printable bytes stand for themselves, and the others for the characters from number 256 on, in their order.
    """
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    characters = []
    others = 0
    for byte in range(256):
        if byte in printable:
            characters.append(chr(byte))
        else:
            characters.append(chr(256 + others))
            others += 1
    return characters


# The files of GPT-2's tokenizer: (name, sha256, address).
GPT2_FILES = (
    (
        "gpt2/encoder.json",
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/encoder.json",
    ),
    (
        "gpt2/vocab.bpe",
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe",
    ),
)


def load_gpt2_tokenizer():
    """GPT-2's own tokenizer, 50,257 tokens. Its files are downloaded once. Raises: OSError if they cannot be downloaded."""
    paths = [fetch(file, address, sha256) for file, sha256, address in GPT2_FILES]
    return BPETokenizer.load_gpt2(*paths)


def make_tokenizer(name, corpus):
    """The tokenizer with a name, "char", "bpe:512" (or another size) or "gpt2", or the one at a path.

    A path leads to a file that some `save` wrote, to the folder of a model or a run, or to a folder with vocab.json
    and merges.txt. Raises: ValueError or FileNotFoundError for a name or a path without a tokenizer.
    """
    if name == "char":
        return CharTokenizer.from_text(corpus.train + corpus.val)
    if name == "gpt2":
        return load_gpt2_tokenizer()
    if name.startswith("bpe:"):
        size = name.removeprefix("bpe:")
        if not size.isdecimal() or int(size) < 256:
            raise ValueError(
                f"the tokenizer {name!r} has no size of 256 or more, one id for each byte: bpe:512 is one"
            )
        return BPETokenizer.train(corpus.train, int(size))
    path = Path(name)
    if path.name in ("vocab.json", "merges.txt"):
        path = path.parent
    if name == "" or not path.exists():
        raise FileNotFoundError(
            f"no tokenizer and no file is called {name!r}: give char, bpe:512 (or another size), gpt2, the path of a "
            f"tokenizer.json, or a folder with vocab.json and merges.txt"
        )
    if (path / "merges.txt").is_file():
        return BPETokenizer.load_gpt2(path / "vocab.json", path / "merges.txt")
    if (path / POINTER_FILE).is_file():
        path = find_checkpoint(path)
    return load_tokenizer(path)
