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
    """Characters drawn by their frequency in the text alone."""
    rng = random.Random(seed)
    return "".join(text[int(rng.random() * len(text))] for _ in range(length))


WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def words_of(text):
    """All words of a text, in small letters."""
    return WORD.findall(text.lower())


def share(flags):
    """The share of True among the flags; None where there are none."""
    flags = list(flags)
    return sum(flags) / len(flags) if flags else None


def distinct(words, n=4):
    """Different runs of n words, as a share of all runs (Li et al., 2016); None for fewer than n words."""
    runs = list(zip(*(words[i:] for i in range(n))))
    return len(set(runs)) / len(runs) if runs else None


# Any line.
NAME = {
    "above": re.compile(r"([^\s:][^:\n]{0,40}):(?:\n|$)"),  # the first line of a block
    "before": re.compile(r"([^\s:][^:\n]{0,40}): *\S"),
}


def _blocks_of(text, gap):
    """The blocks between gaps (a regular expression). The last of several needs a line end, or is left out."""
    blocks = [block.strip("\n") for block in re.split(gap, text) if block.strip()]
    return blocks[:-1] if len(blocks) > 1 and not text.endswith("\n") else blocks


def _speakers(block, speech):
    """The names that speak in a block; speech is "above", "before" or None."""
    lines = {"above": [block], "before": block.split("\n"), None: []}[speech]
    return [found[1] for line in lines if (found := NAME[speech].match(line))]


def _find_speech(blocks):
    """Where names stand, "above" speeches or "before" them; None where fewer than half of the blocks have any."""
    counts = {way: sum(bool(_speakers(block, way)) for block in blocks) for way in NAME}
    best = max(counts, key=counts.get)
    return best if 2 * counts[best] >= max(len(blocks), 1) else None


def _shape(block, speech):
    """What the lines of a block are, runs as one: N name above, S name and speech, E entrance, X exit, T other text."""
    kinds = ""
    for number, line in enumerate(block.split("\n")):
        if speech == "above":
            kinds += "N" if number == 0 and _speakers(block, speech) else "T"
        elif _speakers(line, speech):
            kinds += "S"
        else:
            kinds += (
                "E"
                if re.search(r"\bEnter\b", line)
                else "X"
                if re.match(r"Exit\b|Exeunt\b", line)
                else "T"
            )
    return re.sub(r"(.)\1+", r"\1", kinds)


def _usual_shapes(blocks, speech):
    """The shapes that at least one in twenty blocks has."""
    shapes = [_shape(block, speech) for block in blocks]
    return frozenset(kind for kind in set(shapes) if 20 * shapes.count(kind) >= len(shapes))


ENDED = re.compile(r"[.!?][\"'”’»)\]]*\s*$")
PAIRS = ("()", "[]", "{}", "“”", "‘’", "«»", '""', "''")


def _passages_of(block, speech):
    """What is said in a block: its lines, where names stand before, or all of it but the name above."""
    if speech == "before":
        return block.split("\n")
    said = block.split("\n", 1)[1:] if _speakers(block, speech) else [block]
    return [text for text in said if text.strip()]


def _partners(passage, pair):
    """(the marks of a pair that have a partner, all of them) in a passage; an apostrophe inside a word is none."""
    first, last = pair
    marks, waiting, met = re.sub(r"(?<=\w)['’](?=\w)", "", passage), 0, 0
    if first == last:
        first = "\0"
        marks = re.sub(rf"(?<![\w.,;:!?]){last}(?=\S)", first, marks)
    for char in marks:
        if char == last and waiting:
            waiting, met = waiting - 1, met + 2
        waiting += char == first
    return met, marks.count(first) + marks.count(last)


def _closed(passages, pairs):
    """The share of marks that have a partner; None where there is no mark."""
    counts = [_partners(passage, pair) for passage in passages for pair in pairs]
    total = sum(marks for _, marks in counts)
    return sum(met for met, _ in counts) / total if total else None


def _suffix_automaton(text):
    """Everything that stands in a text, as paths: steps [{character: state}], links, and the longest match, of each
    state (Blumer et al., 1985)."""
    steps, links, lengths, last = [{}], [None], [0], 0
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
            if (
                lengths[target] > lengths[state] + 1
            ):  # the target also stands for longer ones: part the short from them
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
    """The longest passage of the sample that stands word for word in the text (the first of equals in the text)."""
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
    """What a training text says of how such texts look. words: None in a text that spaces do not part into words."""

    words: frozenset | None
    gap: str
    speech: str | None
    names: frozenset
    shapes: frozenset
    pairs: tuple


@lru_cache(maxsize=4)
def _learn(text):
    """training text -> Reference."""
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
    """Shares from 0 to 1, None where there is nothing to measure; copied in characters."""

    words: float | None  # words that the training text has
    speakers: float | None  # speeches by a name that speaks in the training text
    structure: float | None  # blocks of a usual shape, where the training text has speech
    ended: float | None  # passages that end with . ! or ?
    closed: float | None  # quotes and brackets that have a partner
    distinct: float | None  # different runs of four words among all
    copied: int  # the longest passage that stands in the training text


def quality(sample, corpus):
    """What can be counted of a sample, a text, against the training text of a Corpus -> Quality.

    ValueError for an empty sample. Scores of samples of different length do not compare: see `compare`.
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

    All are cut to the length of the shortest. The noise is drawn with the seed from the training text.
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
    """rows {name: Quality} -> an aligned Markdown table, as text; – stands where there was nothing to measure."""
    table = [HEADINGS]
    for name, (*shares, copied) in rows.items():
        # A name may be anything, and a table's cell ends at a bar or a line end.
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
