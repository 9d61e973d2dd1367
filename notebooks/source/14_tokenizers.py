# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 14 · Tokenizers: pieces of words
#
# > Byte-pair encoding: a vocabulary of bytes and of frequent sequences of bytes.
#
# You will build: a tokenizer that can read any text, learns its vocabulary from yours, and opens GPT-2's. GPT-2, GPT-4 and Llama 3 read with tokenizers of this kind.
# You need lessons 00 and 06. On two CPU cores the page takes a quarter of a minute.

# %%
import json
import math
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from statistics import fmean

# %%
import matplotlib.pyplot as plt
import regex
import torch

from chargpt_lib.data import load_corpus
from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.files import bundled_dir, bundled_results
from chargpt_lib.plots import plot_excess, show, visible

# %%
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus = load_corpus(CORPUS)
scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # deleted at the end
folder = Path(scratch.name)

# %% [markdown]
# ## One character, one step
#
# So far a token was a character. That costs steps: to write a word, a model takes as many steps as the word has letters. The stretch that it can look back at, its `block_size`, is counted in letters, too. Why not give each *word* an id? Let us count.

# %%
words = corpus.train.split()
known = set(words)
new = [word for word in corpus.val.split() if word not in known]
print(f"{len(corpus.train):,} characters, {len(set(corpus.train))} different ones")
print(
    f"{len(words):,} words with their punctuation, such as {words[4]!r}; {len(known):,} different ones"
)
print(f"characters for each word: {len(corpus.train) / len(words):.1f}")
print(f"words of the validation text that are not in the training text: {len(new)}", new[:5])

# %% [markdown]
# So a text of words would have several times fewer tokens. But most texts have far too many different words: each costs a row of the token table, and a word that nobody has seen has no row at all. (Playhouse has few words, because a small grammar writes it. Try `CORPUS = "shakespeare"`.)
#
# Something between characters and words would be good: a token for each frequent word, and pieces for the other words. **Byte-pair encoding** finds such a vocabulary ([Sennrich et al., 2016](https://arxiv.org/abs/1508.07909)).
#
# ## Bytes
#
# Byte-pair encoding begins with an alphabet in which every text can be written. `CharTokenizer` knows only the characters of its text; Unicode has about 150,000, too many for a table. But in a file each character is one to four **bytes**, in the encoding UTF-8, and there are only 256 different bytes.

# %%
for char in "gé鵞🪿":
    print(char, "is character number", ord(char), "and the bytes", list(char.encode("utf-8")))

# %% [markdown]
# A character with a number below 128 is one byte, with the same number. Every other character is several bytes, none of them below 128, so the two cannot be confused. A tokenizer of bytes has 256 ids and reads English, Chinese and geese.
#
# ### Exercise: how many bytes?
# ★ · 4 minutes · A Chinese text has fewer characters than its translation, and more bytes. What a model pays is counted in tokens, so this decides what a language costs.
#
# A character whose number has at most 7 binary digits takes one byte. With two bytes UTF-8 has room for 11 binary digits, with three for 16, with four for 21. Each character takes the fewest bytes that it fits into. How many bytes does a text have?

# %% tags=["exercise"] exercise="utf8_length"
def utf8_length(numbers):
    """numbers: the Unicode numbers of a text's characters, a list of ints -> int: the bytes of the text in UTF-8."""
    ### BEGIN SOLUTION
    length = 0
    for number in numbers:
        if number < 2**7:
            length += 1
        elif number < 2**11:
            length += 2
        elif number < 2**16:
            length += 3
        else:
            length += 4
    return length
    ### END SOLUTION

# %%
check("utf8_length", utf8_length)

# %% [markdown]
# ## Six words
#
# Now the idea, on six words, with letters in place of bytes so that we can read them. Find the pair of neighbours that is most frequent. Make it one token. Repeat.
#
# A word that occurs five times counts five times. (Lesson 00's exercise *fewer, longer symbols* was this: merges, one after the other, of ids. There the whole text was one list, here no merge crosses the border of a word.)

# %%
toy = {"goose": 5, "geese": 2, "moose": 2, "loose": 3, "nose": 4, "horse": 3}
counts = {tuple(word): count for word, count in toy.items()}  # {("g", "o", "o", "s", "e"): 5, ...}


def count_pairs(counts):
    """{a word as a tuple of tokens: how often it occurs} -> {a pair of neighbours: how often it occurs}."""
    pairs = Counter()
    for word, count in counts.items():
        for pair in zip(word, word[1:]):
            pairs[pair] += count
    return pairs


count_pairs(counts).most_common(4)

# %% [markdown]
# **Predict** before you go on: `s` and `e` will become one token. Which pair is the most frequent one after that?

# %%
def merge(word, pair):
    """Makes each occurrence of the pair in the word one token, from left to right."""
    merged = []
    for token in word:
        if merged and (merged[-1], token) == pair:
            merged[-1] += token
        else:
            merged.append(token)
    return tuple(merged)


for _ in range(5):
    pair, count = count_pairs(counts).most_common(1)[0]
    counts = {merge(word, pair): n for word, n in counts.items()}
    print(f"{pair[0]} + {pair[1]}, {count} times:", *("·".join(word) for word in counts))

# %% [markdown]
# The list of merges, in this order, *is* the tokenizer. Nothing else belongs to it but the alphabet.
#
# ## From a word to its tokens
#
# A new word is tokenised by the same merges, in the order in which they were learned. *Noose* is not among the six words: after `s + e` it is `n·o·o·se`, after `o + se` it is `n·o·ose`, and after `o + ose` it is `n·oose`.
#
# ### Exercise: encode a word
# ★★ · 8 minutes · Each encoder of this kind does this. Those that take the longest piece that is in the vocabulary, instead of the earliest merge, give other ids, and a model trained with the ids of one cannot read those of the other.
#
# `merges` is a list of pairs of tokens, the first learned first. Begin with single characters. As long as some pair of neighbours is in the list, take the pair that stands earliest in it, and merge that pair wherever it occurs in the word, from left to right. Return the tokens.
#
# With the merges `[("b", "c"), ("a", "b"), ("ab", "c")]`, the word `abc` is `["a", "bc"]`: `b + c` stands before `a + b` in the list, and after that merge no `b` is left.

# %% tags=["exercise"] exercise="encode_word"
def encode_word(word, merges):
    """word: str, merges: a list of pairs of str -> a list of str, the tokens of the word."""
    ### BEGIN SOLUTION
    tokens = list(word)
    for left, right in merges:
        merged = []
        for token in tokens:
            if merged and merged[-1] == left and token == right:
                merged[-1] = left + right
            else:
                merged.append(token)
        tokens = merged
    return tokens
    ### END SOLUTION

# %%
check("encode_word", encode_word)

# %% [markdown]
# (One pass through the list is enough, because a merge can only make pairs whose own merges were learned after it.)
#
# ## Words first
#
# The six words were already cut apart. In a text, spaces and full stops are characters too, and frequent ones. Without a rule, `goose.`, `goose!` and `goose,` would each become a token, and so would pieces of two words, such as `e w`. So the text is cut before anything is counted, and no token ever crosses a cut. This is called **pre-tokenisation**, and a regular expression does it. We call its matches words, although they may contain a space or a sign. Here is GPT-2's expression, piece by piece:
#
# | piece | takes |
# |---|---|
# | `'(?:[sdmt]\|ll\|ve\|re)` | the end of *goose's*, *I'd*, *I'm*, *don't*, *we'll*, *we've*, *we're* |
# | ` ?\p{L}+` | letters of any script, with one space before them |
# | ` ?\p{N}+` | digits, with one space before them |
# | ` ?[^\s\p{L}\p{N}]+` | other signs, with one space before them |
# | `\s+(?!\S)` | a run of spaces and line ends without its last one, which is left for the next word |
# | `\s+` | any other spaces and line ends |
#
# A word includes the space *before* it. That is why `goose` and ` goose` are different tokens. (`\p{L}` means "a letter" in Unicode. Python's `re` does not know it; the package `regex` does.)

# %%
#| export
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

# %%
#| export
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

# %%
for name, pattern in PATTERNS.items():
    print(name, regex.findall(pattern, "O damp goose!  We've 1234 geese.\n\n    I'M LATE"))

# %% [markdown]
# GPT-4's pattern differs in four places. It knows `'M` in capitals. It takes at most three digits at a time, without the space before them, so that all long numbers are cut in the same way. Letters may have any sign before them, and not only a space. And line ends go with the sign before them, not with the spaces after them, which helps with code. (`?+` and `++` are `?` and `+` that never give back a character; `(?i:...)` takes capitals, too.)
#
# ## Learning merges, fast
#
# What we did with six words works for a book, too, but slowly: each merge looks at the whole text twice, to count and to merge. Here is this plain way once more, for ids of bytes, with each word as often as it occurs:

# %%
def learn_plainly(words, num_merges):
    """words: lists of ids, one for each word of the text -> the merges, as pairs of ids."""
    merges = []
    tokens = [bytes([byte]) for byte in range(256)]
    for new in range(256, 256 + num_merges):
        pairs = Counter(pair for word in words for pair in zip(word, word[1:]))
        # Among equally frequent pairs, the one with the larger bytes is taken.
        best = max(pairs, key=lambda pair: (pairs[pair], tokens[pair[0]], tokens[pair[1]]))
        merges.append(best)
        tokens.append(tokens[best[0]] + tokens[best[1]])
        for n, word in enumerate(words):
            merged = []
            for token in word:
                if merged and (merged[-1], token) == best:
                    merged[-1] = new
                else:
                    merged.append(token)
            words[n] = merged
    return merges

# %% [markdown]
# Which pair is taken when several are equally frequent? Any rule works if everybody uses the same one, because later merges depend on the choice. Ours is a common one: the pair whose bytes are larger, as Python compares them. (The library `tokenizers` takes the smaller pair of ids, so its vocabularies differ from ours where counts are equal, and only there.)
#
# Four ideas make learning fast:
#
# 1. Equal words are merged in the same way, so each *different* word is kept once, with its count. Tiny Shakespeare has 300,000 words, and 15,000 different ones.
# 2. The counts of pairs are corrected after each merge, not counted anew.
# 3. For each pair there is a list of the places where it occurs. A merge visits these places only. After some merges a token's neighbour no longer stands at the next place in the array, so each token knows the places of the tokens before and after it: a **linked list**.
# 4. The most frequent pair comes from a **heap**, which gives the largest of n entries in log n steps. Counts in the heap become out of date. When an outdated entry reaches the top, it is pushed back with its present count.
#
# Here is what changes where `o + se` is merged in `g·o·o·se`:
#
#     place     0     1     2     3                   0     1     2
#     before    g <-> o <-> o <-> se        after     g <-> o <-> ose
#     pairs     (g, o)  (o, o)  (o, se)     pairs     (g, o)  (o, ose)
#
# The pairs (`o`, `o`) and (`o`, `se`) lose five occurrences, because *goose* occurs five times, and (`o`, `ose`) gains five. No other pair is touched.

# %%
#| export
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

# %% [markdown]
# Here are both ways on the same 20,000 characters, with 150 merges:

# %%
short = [
    list(word.encode("utf-8")) for word in regex.findall(PATTERNS["gpt2"], corpus.train[:20_000])
]
word_counts = Counter(map(bytes, short))

start = time.perf_counter()
fast = learn_merges(word_counts, 150)
middle = time.perf_counter()
plain = learn_plainly(short, 150)
end = time.perf_counter()
print("equal merges:", sum(a == b for a, b in zip(fast, plain)), "of", len(plain))
print(f"fast: ≈ {1000 * (middle - start):.0f} ms; plainly: ≈ {1000 * (end - middle):.0f} ms")
print(f"≈ {(end - middle) / (middle - start):.0f} times as fast")
assert fast == plain

# %% [markdown]
# ## From a word to its ids, fast
#
# To encode a word, make the earliest merge that fits, again and again. Looking at all pairs each time is fine for a short word. But nobody promises short words: a line of a million `=` is one "word", and would take 10¹² steps, about a day. A heap helps here, too: it holds the pairs of the word, with the earliest merge on top.

# %%
#| export
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

# %%
ranks = {}
for rank, pair in enumerate(learn_merges({b"=" * 64: 1}, 6)):
    ranks[pair] = (rank, 256 + rank)
times = {}
for length in (10_000, 100_000):
    start = time.perf_counter()
    merged = _merge_all(b"=" * length, ranks)
    times[length] = time.perf_counter() - start
    print(f"{length:,} bytes: {len(merged):,} tokens in ≈ {1000 * times[length]:.0f} ms")
print(f"10 times the bytes take ≈ {times[100_000] / times[10_000]:.0f} times as long")
print(f"n log n would be {10 * math.log(100_000) / math.log(10_000):.1f} times, n² 100 times")

# %% [markdown]
# (A large heap no longer fits into the processor's fast memory, so the measured factor may be somewhat larger than that of $n \log n$.)
#
# ## The tokenizer
#
# A vocabulary consists of an id for each of the 256 bytes, the merges with their ids, and **special tokens**. A special token stands for something that is not text, such as the end of a document, `<|endoftext|>`. It is cut out before the text is cut into words, and nothing is ever merged with it.

# %%
#| export
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

# %% [markdown]
# `token_bytes` (plumbing, in `chargpt_lib/files.py`) joins the bytes of the two parts of each merge, as `learn_merges` did. It refuses files that hold no vocabulary: an id twice, a merge before its parts are tokens, a number without a token.
#
# Training cuts the text into words, counts them, and learns merges from the counts. The special tokens get the last ids. (`class BPETokenizer(BPETokenizer)` continues the class of the cell above. In the library it is one class.)

# %%
#| export
class BPETokenizer(BPETokenizer):  # continued
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

# %% [markdown]
# To encode a text, cut out the special tokens, cut the rest into words, look each word up among the earlier ones, and merge only the new ones. Texts repeat themselves, so most words cost only one look-up in a dictionary.
#
# `encode_iterable` takes a text in pieces, such as the lines of a file, and keeps only a little of it in memory. It must give the ids of the whole text, although a piece may end inside a word. So it joins the pieces and cuts them at a safe place: before a space that follows a letter or a digit. A word always ends there, because in both patterns a space begins a word or belongs to a run of spaces; it never follows a letter inside a word.
#
# %%
#| export
class BPETokenizer(BPETokenizer):  # continued
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

# %%
tokenizer = BPETokenizer.train(corpus.train, vocab_size=512)
example = "O damp goose! Drop the trumpet."
ids = tokenizer.encode(example)
print(len(example), "characters,", len(ids), "tokens:", ids.tolist())
print("|".join(tokenizer.decode([i]) for i in ids))
assert tokenizer.decode(ids) == example

# %%
pieces = ["O damp go", "ose! Drop the trum", "pet."]
in_pieces = list(tokenizer.encode_iterable(pieces))
apart = [i for piece in pieces for i in tokenizer.encode(piece).tolist()]
print(len(in_pieces), "tokens by encode_iterable,", len(apart), "if each piece is encoded alone")
assert in_pieces == ids.tolist()

# %% [markdown]
# Can the tokenizer read what it has never seen? **Predict** how many tokens the goose 🪿 has.

# %%
for strange in ("Gänse", "鵞鳥", "🪿", "zzz"):
    ids = tokenizer.encode(strange)
    print(strange, "is", [tokenizer.tokens[i] for i in ids])
    assert tokenizer.decode(ids) == strange

# %% [markdown]
# Every text comes back as it was. What did not occur in the training text is cut into single bytes. That takes many tokens, but nothing is lost: there is no `<unk>` (a token for the unknown), and no error.
#
# ## Half a character
#
# A token may be half a character. While a model writes, its tokens come one by one; what is printed after the first of the four bytes of 🪿?

# %%
goose = tokenizer.encode("🪿")
for n in range(1, len(goose) + 1):
    print(n, tokenizer.decode(goose[:n]))

# %% [markdown]
# Bytes that make no character become `�`, U+FFFD, the replacement character. `generate(..., stream=True)` of lesson 08 holds back a `�` at the end until the other bytes have come. (A model can also write bytes that never become a character. Then the `�` stays.)
#
# ### Exercise: whole characters
# ★★ · 8 minutes · Everybody who streams text meets this: programs that print each token at once show � in the middle of every emoji.
#
# The first byte of a character says how many bytes it has: below 128 one, from 192 on two, from 224 on three, from 240 on four. The character's other bytes are from 128 to 191. `data` is the beginning of a correct text in UTF-8, cut off anywhere. How many of its bytes belong to whole characters?

# %% tags=["exercise"] exercise="whole_characters"
def whole_characters(data):
    """data: a list of ints from 0 to 255 -> int, the number of bytes up to the end of the last whole character."""
    ### BEGIN SOLUTION
    place = 0
    while place < len(data):
        first = data[place]
        if first >= 240:
            length = 4
        elif first >= 224:
            length = 3
        elif first >= 192:
            length = 2
        else:
            length = 1
        if place + length > len(data):
            break
        place += length
    return place
    ### END SOLUTION

# %%
check("whole_characters", whole_characters)

# %% [markdown]
# ## Special tokens
#
# A shop's chat model reads `<|user|>` where the customer begins to speak. What if the customer types `<|user|>`? If that becomes the special token, the customer can write in anybody's name. So `encode` lets you say which special tokens may be in a text. With `allowed_special=()` there may be none.

# %%
chatty = BPETokenizer.train(corpus.train, 300, special_tokens=["<|end|>", "<|end|><|end|>"])
print(chatty.special_tokens)
for text in ("goose<|end|>goose", "<|end|><|end|><|end|>"):
    print(text, "is", [chatty.decode([i]) for i in chatty.encode(text)])
try:
    chatty.encode("goose<|end|>goose", allowed_special=())
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# Where two special tokens begin at the same place, the longer one wins: `<|end|><|end|>` is one token, although `<|end|>` fits, too.
#
# ### Exercise: cut out the special tokens
# ★★ · 8 minutes · `"|".join(special_tokens)` as a regular expression is wrong twice: `|` has a meaning there, and of two alternatives the first one that fits is taken, not the longest.
#
# Cut a text before and after each special token, without empty parts. Read from left to right: at each place take the longest special token that begins there. There may be no special tokens at all.
#
# With the special tokens `["ab", "abc"]`, the text `xabcabx` is `["x", "abc", "ab", "x"]`.

# %% tags=["exercise"] exercise="split_at_specials"
def split_at_specials(text, specials):
    """text: str, specials: a list of str, none of them empty -> a list of str that make the text when joined."""
    ### BEGIN SOLUTION
    parts = []
    plain = ""
    place = 0
    while place < len(text):
        fitting = [special for special in specials if text.startswith(special, place)]
        if not fitting:
            plain += text[place]
            place += 1
            continue
        if plain:
            parts.append(plain)
            plain = ""
        longest = max(fitting, key=len)
        parts.append(longest)
        place += len(longest)
    if plain:
        parts.append(plain)
    return parts
    ### END SOLUTION

# %%
check("split_at_specials", split_at_specials)

# %% [markdown]
# ## Files
#
# A tokenizer belongs to its model: with another tokenizer, every id means something else. So the tokenizer is saved beside the weights, as JSON.

# %%
#| export
class BPETokenizer(BPETokenizer):  # continued
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

# %%
tokenizer = BPETokenizer.train(corpus.train, vocab_size=512)  # with the new methods
tokenizer.save(folder / "tokenizer.json")
again = BPETokenizer.load(folder / "tokenizer.json")
assert again.encode(example).tolist() == tokenizer.encode(example).tolist()
print((folder / "tokenizer.json").stat().st_size, "bytes for", tokenizer.vocab_size, "tokens")

# %% [markdown]
# ## What the merges learn
#
# Here is one line of the corpus, in four vocabularies. With 256 tokens there are only bytes. The colours only show where a token ends.

# %%
def draw_tokens(ax, tokenizer, text):
    """Draws a text with a box around each token."""
    place = 0
    ids = tokenizer.encode(text).tolist()
    for n, i in enumerate(ids):
        piece = tokenizer.decode([i])
        colour = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7")[n % 4]
        ax.add_patch(
            plt.Rectangle((place, 0), len(piece), 1, color=colour, alpha=0.55, linewidth=0)
        )
        place += len(piece)
    for n, char in enumerate(visible(text)):
        ax.text(n + 0.5, 0.45, char, ha="center", va="center", family="DejaVu Sans Mono")
    ax.set(xlim=(0, len(text)), ylim=(0, 1), xticks=[], yticks=[])
    ax.set_title(
        f"{tokenizer.vocab_size} tokens: {len(ids)} for {len(text)} characters", fontsize=9
    )

# %%
line = max(corpus.val[:2000].splitlines(), key=len)[:66]
tokenizers = {}
for size in (256, 300, 512, 1024):
    tokenizers[size] = BPETokenizer.train(corpus.train, size)
fig, axes = plt.subplots(4, 1, figsize=(10, 3.2), layout="constrained")
for ax, trained in zip(axes, tokenizers.values()):
    draw_tokens(ax, trained, line)
show(
    fig,
    "One line of text four times, neighbouring tokens in boxes of different colours: with 256 tokens each letter has a "
    "box; with 1024 most boxes hold a whole word and the space before it.",
)

# %% [markdown]
# The first merges, in order, and the longest tokens of the largest vocabulary:

# %%
first = [tokenizers[1024].decode([i]) for i in range(256, 286)]
longest = sorted(tokenizers[1024].tokens, key=len, reverse=True)[:12]
print("first:", first)
print("longest:", [token.decode("utf-8", "replace") for token in longest])

# %% [markdown]
# Nobody told the tokenizer what a word is, only where one may begin. Playhouse is written by a grammar with a list of 426 words. **Predict:** how many merges does it take until each of these words is one token? The next cell requests more merges than there can be: the training ends when the words have no pairs left. (It warns, and we silence the warning.)
#
# (The first merges of a long list are what a shorter training would have learned. So one training gives all smaller vocabularies, too.)

# %%
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the warning says that there are fewer merges than requested
    full = BPETokenizer.train(corpus.train, 4096)
sizes = sorted({*tokenizers, 384, 768, full.vocab_size})
in_text = sorted(set(regex.findall("[A-Za-z]+", corpus.train)))
lengths = []
for size in sizes:
    shorter = BPETokenizer(full.merges[: size - 256])
    lengths.append(len(corpus.val) / len(shorter.encode(corpus.val)))
    # In the middle of a line, or at its beginning.
    whole = [word for word in in_text if any(len(shorter.encode(s + word)) == 1 for s in (" ", ""))]
    print(
        f"{size - 256:5} merges: {len(whole):5,} of the {len(in_text):,} words are one token; "
        f"{lengths[-1]:.2f} characters a token"
    )

# %%
record = json.loads(
    (bundled_dir() / "results" / "tokenizers.json").read_text(encoding="utf-8")
)  # measured on Playhouse and on Shakespeare
fig, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
ax.plot(sizes, lengths, "o-", color="#0072B2", label=f"{corpus.name}, here")
points = [(256, 1.0)]  # each of its characters is one byte
for rows in record["compare"]["shakespeare"].values():
    if rows[0]["vocab_size"] > 256:
        points.append((rows[0]["vocab_size"], rows[0]["characters_per_id"]))
ax.plot(*zip(*points), "s--", color="#D55E00", label="Shakespeare, recorded")
ax.set(
    xscale="log",
    xlabel="tokens in the vocabulary, 256 of them bytes",
    ylabel="characters a token",
    ylim=0,
)
ax.set_xticks([256, 512, 1024, 2048], ["256", "512", "1,024", "2,048"], minor=False)
ax.minorticks_off()
ax.legend(frameon=False)
show(
    fig,
    "Two rising curves over the size of the vocabulary, on a logarithmic axis. Each doubling adds less than the one "
    "before; the plays of the grammar, with their few words, lie above Shakespeare's.",
)

# %% [markdown]
# On Playhouse the merges find every word of the grammar, and then there is nothing left to merge.
#
# Each further token is rarer than those before it, so it shortens the text by less. But the token table still grows by a row for each.

# %% [markdown]
# ## Bits per character
#
# A model of tokens has a loss per *token*. The larger the vocabulary, the more text a token holds, and the more it costs to predict one. So losses per token cannot be compared between tokenizers. Compare instead what the *text* costs: all nats together, divided by the number of its characters. File compressors are compared by the same number, in bits (1 bit is $\ln 2$ nats). For texts in different scripts, take bits per **byte**.
#
# ### Exercise: bits per character
# ★ · 4 minutes · Papers that compare a loss per token with another vocabulary's compare nothing.
#
# A model pays `nats_per_token` on average, on a text of `tokens` tokens that has `characters` characters. How many bits does it pay per character?

# %% tags=["exercise"] exercise="bits_per_character"
def bits_per_character(nats_per_token, tokens, characters):
    """nats_per_token: float, tokens, characters: ints -> float, the bits that each character costs."""
    ### BEGIN SOLUTION
    nats = nats_per_token * tokens
    return nats / math.log(2) / characters
    ### END SOLUTION

# %%
check("bits_per_character", bits_per_character)

# %% [markdown]
# The library's function takes the ids. The first id is not predicted, so its characters do not count.

# %%
#| export
def bits_of_text(loss, ids, tokenizer):
    """The cost of a text -> (bits per character, bits per byte). loss: nats per id, the mean over ids (N,) but the first."""
    text = tokenizer.decode(ids)
    first = tokenizer.decode(ids[:1])
    bits = loss * (len(ids) - 1) / math.log(2)
    characters = len(text) - len(first)
    n_bytes = len(text.encode("utf-8")) - len(first.encode("utf-8"))
    return bits / characters, bits / n_bytes

# %%
ids = tokenizer.encode(corpus.val)
knows_nothing = math.log(tokenizer.vocab_size)  # nats per token, lesson 00
print(f"nats per token: {knows_nothing:.3f}")
per_character, per_byte = bits_of_text(knows_nothing, ids, tokenizer)
print(f"bits per character: {per_character:.3f}, per byte: {per_byte:.3f}")
alphabet = len(set(corpus.train))
print(f"a model of characters that knows nothing: {math.log2(alphabet):.3f} bits per character")

# %% [markdown]
# A model of tokens that knows nothing pays less than a model of characters that knows nothing. The former knows something after all: its merges were learned from the text, so frequent groups of letters are already one token.

# %% [markdown]
# ## Characters against tokens
#
# Which model is better, a reader of characters or a reader of tokens? Both predict the same text, so their bits per character can be compared. To be fair, everything else should be equal as well:
#
# - **The same number of parameters.** A large vocabulary needs a large table, so the model behind it has to be narrower: `n_embd` shrinks until the sums agree.
# - **The same time.** 115 seconds of training on one core. All read windows of 64 ids, 12 at a time.
# - **The same text**, and the merges learned from its training part.
# - **Its own learning rate.** Five rates were tried for each reader, on a tenth split off Shakespeare's training text; each reader has the best rate, or one that is within 0.02 bits of it.
#
# Training 24 models takes most of an hour, so this was done once, with three seeds each (`python -m tests.benchmarks.tokenizers rates compare`). **Predict** the order of the four readers on each text.

# %%
def reader_name(row):
    """Names a reader: characters, or the number of merges. (Playhouse has fewer than the 2,048 requested.)"""
    if row["characters_per_id"] == 1:
        return "characters"
    return f"{row['vocab_size'] - 256:,} merges"


for name, readers in record["compare"].items():
    print(
        f"\n{name:13} n_embd  parameters   rate   steps  characters: a token  of context  a second"
    )
    for rows in readers.values():
        row = rows[0]
        steps = fmean(row["steps"] for row in rows)
        speed = fmean(row["characters_per_second"] for row in rows)
        print(
            f"{reader_name(row):13} {row['n_embd']:6}  {row['parameters']:10,}  {row['learning_rate']:.4f}"
            f"  {steps:5,.0f}  {row['characters_per_id']:19.2f}  {row['context_in_characters']:10.0f}"
            f"  {speed:8,.0f}"
        )

# %%
for name, readers in record["compare"].items():
    print(f"\n{name}: bits per character, mean of three seeds, and largest difference of two seeds")
    for rows in readers.values():
        bits = [row["bits"] for row in rows]
        print(f"{reader_name(rows[0]):13} {fmean(bits):.3f}   {max(bits) - min(bits):.3f}")
print(f"\nthe floor of Playhouse: {record['floor']['playhouse']:.3f}")

# %% [markdown]
# And here is the way there. (The curves were measured on the first 10,000 characters of the validation text, so their ends differ a little from the table. The axes do not begin at 0.)

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
colours = ("#000000", "#56B4E9", "#0072B2", "#D55E00")
for ax, (name, readers) in zip(axes, record["compare"].items()):
    for rows, colour in zip(readers.values(), colours):
        for row, label in zip(rows, (reader_name(rows[0]), None, None)):
            ax.plot(*zip(*row["curve"]), color=colour, linewidth=1.2, label=label)
    ax.set(title=name, xlabel="seconds of training", ylabel="bits per character", xlim=(20, 118))
axes[0].axhline(record["floor"]["playhouse"], color="#009E73", linestyle="--", label="the floor")
axes[0].set_ylim(0.4, 1.4)
axes[1].set_ylim(2.0, 3.4)
for ax in axes:
    ax.legend(frameon=False, fontsize=8)
show(
    fig,
    "Bits per character against seconds of training, for four readers with three seeds each, on Playhouse and on "
    "Shakespeare. The readers of tokens begin lower and stay below the readers of characters.",
)

# %% [markdown]
# All readers of tokens beat the reader of characters, on both texts, by far more than the seeds differ. The columns of the first table say why. A step takes about the same time for every reader, because 64 ids are 64 ids. But 64 tokens are more text than 64 characters. So in 115 seconds a reader of tokens reads more of the text, and in each window it sees further back. (This comparison does not tell how much each of the two is worth.)
#
# More merges are not always better. On Shakespeare, with its many words, 2,048 merges beat 512 with each of the three seeds, but by less than the seeds differ. On Playhouse 512 merges do as well as all 942: the last 430 make rare words, each seen seldom, and their rows in the table take parameters from the model behind it.
#
# Does the reader of characters only lack context? A longer window helps it, but costs time. Lesson 06's GPT sees 192 characters. It trains for 115 seconds, too, but on two cores:

# %%
gpt = bundled_results()["playhouse"]["GPT"]
print(f"lesson 06's GPT on Playhouse: {gpt['loss'] / math.log(2):.3f} bits a character (recorded)")

# %% [markdown]
# So a longer window is worth a lot: with it, and with two cores, characters come close to what tokens reach on one core. The choice of a tokenizer is also a choice of how far back the model sees.
#
# Where do the nats go? A token may hold a choice of the grammar and the spelling that follows from it. If it holds a choice, all its nats count for the choice; otherwise they count for spelling. **Predict:** which kind of text gains most from a larger vocabulary: spelling, words, or names that are copied?

# %%
excesses = {}
for rows in record["compare"]["playhouse"].values():
    excesses[reader_name(rows[0])] = {
        kind: fmean(row["excess"][kind] for row in rows) for kind in rows[0]["excess"]
    }
show(
    plot_excess(excesses, record["floor"]["playhouse"] * math.log(2)),
    "Stacked bars: the losses of four readers on Playhouse above the floor, by kind of text.",
)

# %% [markdown]
# Spelling nearly vanishes: a word that is one token cannot be misspelt. The choice of words then costs hardly more than it must. The loss that stays is in names, which have to be copied from earlier lines, and in closings, which depend on what was said at the beginning of a scene. Copying and remembering are work for attention, and no vocabulary does it.
#
# ## Which one?
#
# From what was measured here:
#
# - **A small text with few words** (plays of a grammar, logs, forms): byte-pair encoding, with enough merges to make the frequent words one token each. Here 512 merges did as well as all 942.
# - **A book**: 2,048 merges or so. The curve of compression flattens, and each further token is rarer; try the next doubling, with three seeds, and look at bits per character.
# - **Much text, a large model**: tens of thousands of tokens. The table's share of the parameters shrinks as the model grows: GPT-2's 50,257 rows are 31% of its smallest model and 5% of its largest. Use an existing vocabulary, such as GPT-2's.
# - **Characters**: for looking inside the model, because each letter has its probability and its row in the attention map; for tasks about letters, such as rhymes and spelling; and for quick experiments, because the alphabet is so small that everything fits into a minute.

# %% [markdown]
# ## GPT-2's files
#
# GPT-2 came with two files: `vocab.json`, the id of each token, and `merges.txt`, one merge a line. Both are text files, but bytes such as the space are not printable. So each byte has a printable character that stands for it: the byte's own character if that is printable, otherwise one from number 256 on. The space became `Ġ`.

# %%
#| export
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

# %% [markdown]
# With these characters the tokenizer writes and reads both files.

# %%
#| export
class BPETokenizer(BPETokenizer):  # continued
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

# %%
#| export
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

# %%
tokenizer = BPETokenizer.load(folder / "tokenizer.json")
tokenizer.save_gpt2(folder)
print("".join((folder / "merges.txt").read_text(encoding="utf-8").splitlines(keepends=True)[:6]))
again = BPETokenizer.load_gpt2(folder / "vocab.json", folder / "merges.txt")
assert again.encode(example).tolist() == tokenizer.encode(example).tolist()

# %% [markdown]
# GPT-2's own two files are on the net, with 50,000 merges learned from eight million web pages. Where there is a network, the next cell encodes the example with them. (They are downloaded once, and kept on disk.)

# %% tags=["nbval-ignore-output"]
gpt2 = None
try:
    gpt2 = load_gpt2_tokenizer()
    ids = gpt2.encode(example)
    print(gpt2.vocab_size, "tokens:", "|".join(gpt2.decode([i]) for i in ids), ids.tolist())
except OSError as error:
    print("GPT-2's files could not be fetched:", str(error).splitlines()[0])

# %%
assert gpt2 is None or gpt2.decode(ids) == example

# %% [markdown]
# ## By name
#
# `start_here` and the command `chargpt train` take a tokenizer by its name. The merges are learned from the training text alone: a tokenizer must not see the validation text, just as a model must not.

# %%
#| export
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

# %%
for name in ("char", "bpe:300", str(folder)):
    made = make_tokenizer(name, corpus)
    print(name.replace(scratch.name, "a folder with merges.txt"), "·", made.vocab_size, made.unit)
try:
    make_tokenizer("bpe:100", corpus)
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# ## Mistakes people make
#
# The next cell shows two of them:

# %%
for text in ("O damp goose!", "O damp ", "O damp"):
    print(repr(text), "is", [tokenizer.decode([i]) for i in tokenizer.encode(text)])
joined = [*tokenizer.encode("O goo").tolist(), *tokenizer.encode("se!").tolist()]
print("encoded apart:", [tokenizer.decode([i]) for i in joined])
print("together:     ", [tokenizer.decode([i]) for i in tokenizer.encode("O goose!")])

# %% [markdown]
# - **Comparing losses per token.** 2.9 nats per token may be better than 1.5 nats per character. Divide by the characters, or by the bytes.
# - **A space at the end of the prompt.** `"O damp "` ends with a token for the space alone. In the training text the space belongs to ` goose`, so the model has hardly ever seen a word after that token. End the prompt with the last word.
# - **Encoding pieces and joining the ids.** The joined ids are not the ids of the whole text. Join the texts, or use `encode_iterable`.
# - **Another tokenizer than the model's.** The ids are all valid, but mean something else. Load the one that was saved with the weights.
# - **Merges learned from the validation text, too.** Then the tokenizer has seen that text. Train it on the training text alone.
# - **Special tokens from strangers.** A user's `<|user|>` must not become the token. Encode what users type with `allowed_special=()`.
#
# How far you are:

# %%
progress()

# %% [markdown]
# ## Summary
#
# You now have `BPETokenizer`, `load_gpt2_tokenizer`, `make_tokenizer` and `bits_of_text`, in `chargpt_lib/bpe.py`. The command takes the same names:
#
#     chargpt train --corpus diary.txt --tokenizer bpe:512
#     chargpt train --corpus diary.txt --tokenizer gpt2
#
# `chargpt eval` then reports the loss per token, the bits per character and the bits per byte.
#
# Next: [15 · Scaling laws](15_scaling_laws.ipynb), how large a model should be, and how long to train it.
