# Made from notebooks/source/appendix/sample_quality.py by notebooks/tools/build.py. Edit that text, not this file.
"""How good is a sample? Seven numbers, and what each of them misses."""

import random
import re
from functools import lru_cache
from typing import NamedTuple

from chargpt_lib.data import Corpus

__all__ = [
    "WORD",
    "words_of",
    "share",
    "distinct",
    "NAME",
    "ENDED",
    "PAIRS",
    "longest_copy",
    "Quality",
    "quality",
    "REFERENCE_ROW",
    "NOISE_ROW",
    "HEADINGS",
    "compare",
    "quality_table",
]


def _scrambled(text, length, seed=1337):
    """A text of characters that are drawn by their frequency in the given text, and by nothing else."""
    rng = random.Random(seed)
    return "".join(text[int(rng.random() * len(text))] for _ in range(length))


WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def words_of(text):
    """All words of a text, in small letters."""
    return WORD.findall(text.lower())


def share(flags):
    """The share of True among the flags; None if there are no flags."""
    flags = list(flags)
    return sum(flags) / len(flags) if flags else None


def distinct(words, n=4):
    """The share of all runs of n words that are different (Li et al., 2016); None for fewer than n words."""
    runs = list(zip(*(words[i:] for i in range(n))))
    return len(set(runs)) / len(runs) if runs else None


NAME = {
    "above": re.compile(r"([^\s:][^:\n]{0,40}):(?:\n|$)"),  # matches the first line of a block
    "before": re.compile(r"([^\s:][^:\n]{0,40}): *\S"),  # matches any line
}


def _blocks_of(text, gap):
    """The blocks between gaps (a regular expression). The last of several blocks is left out if it has no line end."""
    blocks = [block.strip("\n") for block in re.split(gap, text) if block.strip()]
    return blocks[:-1] if len(blocks) > 1 and not text.endswith("\n") else blocks


def _speakers(block, speech):
    """The names of those who speak in a block. speech: where names stand, "above", "before" or None."""
    lines = {"above": [block], "before": block.split("\n"), None: []}[speech]
    return [found[1] for line in lines if (found := NAME[speech].match(line))]


def _find_speech(blocks):
    """Where names stand, "above" speeches or "before" them; None if fewer than half of the blocks have any."""
    counts = {way: sum(bool(_speakers(block, way)) for block in blocks) for way in NAME}
    best = max(counts, key=counts.get)
    return best if 2 * counts[best] >= max(len(blocks), 1) else None


def _shape(block, speech):
    """A letter for each line of a block: N name above, S name and speech, E entrance, X exit, T other text.

    Runs of the same letter are shortened to one.
    """
    kinds = ""
    for number, line in enumerate(block.split("\n")):
        if speech == "above":
            kinds += "N" if number == 0 and _speakers(block, speech) else "T"
        elif _speakers(line, speech):
            kinds += "S"
        elif re.search(r"\bEnter\b", line):
            kinds += "E"
        elif re.match(r"Exit\b|Exeunt\b", line):
            kinds += "X"
        else:
            kinds += "T"
    return re.sub(r"(.)\1+", r"\1", kinds)


def _usual_shapes(blocks, speech):
    """The shapes that at least one in twenty blocks has."""
    shapes = [_shape(block, speech) for block in blocks]
    return frozenset(kind for kind in set(shapes) if 20 * shapes.count(kind) >= len(shapes))


ENDED = re.compile(r"[.!?][\"'”’»)\]]*\s*$")
PAIRS = ("()", "[]", "{}", "“”", "‘’", "«»", '""', "''")


def _passages_of(block, speech):
    """The passages of a block: its lines, if names stand before speeches; otherwise all of it except the name above."""
    if speech == "before":
        return block.split("\n")
    said = block.split("\n", 1)[1:] if _speakers(block, speech) else [block]
    return [text for text in said if text.strip()]


def _partners(passage, pair):
    """How many marks of a pair have a partner in a passage, and how many marks of the pair it has: two ints."""
    first, last = pair
    marks = re.sub(r"(?<=\w)['’](?=\w)", "", passage)  # an apostrophe inside a word is not a mark
    if first == last:
        # A mark that opens gets a sign of its own.
        first = "\0"
        marks = re.sub(rf"(?<![\w.,;:!?]){last}(?=\S)", first, marks)
    waiting = 0  # marks that opened and have not met their partner yet
    met = 0
    for char in marks:
        if char == last and waiting > 0:
            waiting -= 1
            met += 2
        if char == first:
            waiting += 1
    return met, marks.count(first) + marks.count(last)


def _closed(passages, pairs):
    """The share of marks that have a partner; None if there is no mark."""
    counts = [_partners(passage, pair) for passage in passages for pair in pairs]
    total = sum(marks for _, marks in counts)
    return sum(met for met, _ in counts) / total if total else None


def _suffix_automaton(text):
    """The suffix automaton of a text (Blumer et al., 1985) -> three lists with an entry for each state.

    Its steps {character: next state}, its link to another state, and the length of the longest passage that leads to it.
    """
    steps, links, lengths = [{}], [None], [0]
    last = 0
    for char in text:
        new, state = len(steps), last
        steps.append({})
        links.append(0)
        lengths.append(lengths[last] + 1)
        while state is not None and char not in steps[state]:
            steps[state][char] = new
            state = links[state]
        if state is not None:
            target = links[new] = steps[state][char]
            if lengths[target] > lengths[state] + 1:
                # The target also stands for longer passages. The short one gets a state of its own.
                short = links[new] = len(steps)
                steps.append(dict(steps[target]))
                links.append(links[target])
                lengths.append(lengths[state] + 1)
                links[target] = short
                while state is not None and steps[state].get(char) == target:
                    steps[state][char] = short
                    state = links[state]
        last = new
    return steps, links, lengths


def longest_copy(sample, text):
    """The longest passage that sample and text have in common; of equally long ones, the first in the text."""
    steps, links, lengths = _suffix_automaton(sample)
    state = length = best = end = 0
    for place, char in enumerate(text, 1):
        while state and char not in steps[state]:
            state = links[state]
            length = lengths[state]
        if char in steps[state]:
            state, length = steps[state][char], length + 1
        if length > best:
            best, end = length, place
    return text[end - best : end]


class _Reference(NamedTuple):
    """What a training text shows about texts of its kind. words: None if spaces do not divide the text into words."""

    words: frozenset | None
    gap: str
    speech: str | None
    names: frozenset
    shapes: frozenset
    pairs: tuple


@lru_cache(maxsize=4)
def _learn(text):
    """A training text -> its _Reference."""
    gap = r"\n\s*\n" if re.search(r"\n\s*\n", text.strip()) else r"\n"
    blocks = _blocks_of(text, gap)
    speech = _find_speech(blocks)
    passages = [passage for block in blocks for passage in _passages_of(block, speech)]
    spaced = 20 * len(re.findall(r"\s", text)) >= len(text)
    return _Reference(
        frozenset(words_of(text)) if spaced else None,
        gap,
        speech,
        frozenset(name for block in blocks for name in _speakers(block, speech)),
        _usual_shapes(blocks, speech),
        tuple(pair for pair in PAIRS if (_closed(passages, [pair]) or 0) >= 0.95),
    )


class Quality(NamedTuple):
    """Six shares from 0 to 1, None if there is nothing to measure; copied is in characters."""

    words: float | None  # of words that the training text has
    speakers: float | None  # of speeches whose speaker also speaks in the training text
    structure: (
        float | None
    )  # of blocks with a usual shape; None if the training text has no speakers
    ended: float | None  # of passages that end with . ! or ?
    closed: float | None  # of quotes and brackets that have a partner
    distinct: float | None  # of runs of four words that are different
    copied: int  # the length of the longest passage that the training text has, too


def quality(sample, corpus):
    """The seven numbers of a sample, a text, measured against the training text of a Corpus -> Quality.

    Scores of samples of different lengths cannot be compared: see `compare`. Raises: ValueError for an empty sample.
    """
    if not isinstance(sample, str) or not sample:
        raise ValueError(
            f"the sample is {sample!r}; it must be a text of one character or more: decode ids first"
        )
    if not isinstance(corpus, Corpus) or not corpus.train:
        raise ValueError(
            f"the corpus is {str(corpus)[:60]!r}; it must be a Corpus with a training text: load_corpus()"
        )
    known = _learn(corpus.train)
    words = words_of(sample) if known.words is not None else []
    blocks = _blocks_of(sample, known.gap)
    passages = [passage for block in blocks for passage in _passages_of(block, known.speech)]
    return Quality(
        share(word in known.words for word in words),
        share(name in known.names for block in blocks for name in _speakers(block, known.speech)),
        share(_shape(block, known.speech) in known.shapes for block in blocks)
        if known.speech
        else None,
        share(bool(ENDED.search(passage)) for passage in passages),
        _closed(passages, known.pairs),
        distinct(words),
        len(longest_copy(sample, corpus.train)),
    )


REFERENCE_ROW, NOISE_ROW = "validation text", "by frequency alone"
HEADINGS = ("text", "real words", "speakers", "structure", "ended", "closed", "distinct", "copied")


def compare(samples, corpus, seed=1337):
    """samples {name: text}, a Corpus -> {name: Quality}, with the validation text first and noise last.

    All are cut to the length of the shortest. The noise is drawn from the training text, with the seed.
    """
    for name, sample in samples.items():
        if not isinstance(sample, str) or not sample:
            raise ValueError(
                f"the sample {name!r} is {sample!r}; it must be a text of one character or more"
            )
        if name in (REFERENCE_ROW, NOISE_ROW):
            raise ValueError(
                f"{name!r} is the name of a row that is always there: give the sample another"
            )
    length = min([len(corpus.val), *map(len, samples.values())])
    texts = {
        REFERENCE_ROW: corpus.val,
        **samples,
        NOISE_ROW: _scrambled(corpus.train, length, seed),
    }
    return {name: quality(text[:length], corpus) for name, text in texts.items()}


def quality_table(rows):
    """rows {name: Quality} -> an aligned Markdown table, as text. – means that there was nothing to measure."""
    table = [HEADINGS]
    for name, (*shares, copied) in rows.items():
        # A name may be any text, but a bar or a line end would end the table's cell.
        name = " ".join(name.split()).replace("|", "\\|")
        table.append(
            [name, *("–" if value is None else f"{value:.1%}" for value in shares), str(copied)]
        )
    widths = [max(map(len, column)) for column in zip(*table)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
        for row in (table[0], rule, *table[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
