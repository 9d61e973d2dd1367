# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Sample quality: how good is a sample?
#
# > How good is a sample? Seven numbers, and what each of them misses.
#
# You will build: a score of seven numbers for any text that a model wrote, beside the scores of real text and of noise.
# You need lesson 08. On two CPU cores the page takes about twenty seconds.
#
# "Coherence: high." From that you learn that somebody liked a sample. Which of how many samples? Compared with what? This page counts what is in a sample, and anybody who counts again gets the same numbers.

# %%
import random
import re

import matplotlib.pyplot as plt
import torch

from chargpt_lib.bigram import BigramLanguageModel
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import pick_device, pick_scale
from chargpt_lib.gpt import GPT, PLAYHOUSE, GPTConfig, load_pretrained
from chargpt_lib.plots import show
from chargpt_lib.sampling import generate
from chargpt_lib.training import load_or_fit

# %%
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
TRAIN = False  # True: your own model of lesson 06 writes; training takes two minutes, if that has not been done yet
CACHE_DIR = None  # or a folder that outlives the session: "/content/drive/MyDrive/chargpt", "/kaggle/working" (see RUNNING_ELSEWHERE.md)
corpus, device = load_corpus(CORPUS), pick_device()
scale = pick_scale(device)  # 1 on a CPU: see lesson 00

# %% [markdown]
# ## Between noise and the real thing
#
# Suppose 93% of a sample's words are real. Is that good? The number means something only beside two other texts of the same length, counted in the same way:
#
# - the **ceiling**: the validation text, real and never trained on. A model that scores higher is not better than the author. It is doing something else.
# - the **bottom**: characters drawn by their frequency alone, as by a model that knows nothing of order.

# %%
#| export
import random
import re
from functools import lru_cache
from typing import NamedTuple

from chargpt_lib.data import Corpus


def _scrambled(text, length, seed=1337):
    """A text of characters that are drawn by their frequency in the given text, and by nothing else."""
    rng = random.Random(seed)
    return "".join(text[int(rng.random() * len(text))] for _ in range(length))

# %%
N = 10_000
ceiling, bottom = corpus.val[:N], _scrambled(corpus.train, N)
print(ceiling[:120])
print("...\n", repr(bottom[:120]), sep="")

# %% [markdown]
# ## Words
#
# A word is a run of letters; an apostrophe between letters belongs to it. A word is **real** if the training text has it, in capital or small letters.

# %%
#| export
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

# %%
print(words_of("Know't thou, 2 damp GEESE?"))
print(f"{share(word in {'a', 'damp', 'goose'} for word in words_of('A damp gloose!')):.2f}")

# %% [markdown]
# **Predict:** of the words in the noise, how many are real? None? A tenth?

# %%
known = set(words_of(corpus.train))
for name, text in (("validation text", ceiling), ("by frequency", bottom)):
    found = [word for word in words_of(text) if word in known]
    print(
        f"{name:16}{len(found) / len(words_of(text)):7.1%} real, for instance {', '.join(sorted(set(found))[:9])}"
    )

# %% [markdown]
# Noise has real words, because it easily hits short ones. A share of this size is worth nothing.
#
# Two texts may have the same words and arrange them differently. A model that is stuck says one sentence again and again. So count the runs of four words: how large a share of them is different?

# %%
for text in ("the hen sings and the newt sings", "the hen sings the hen sings the hen sings"):
    print(f"{distinct(text.split()):.2f}  {text}")

# %% [markdown]
# Real text repeats itself, too: a play of our grammar more than a novel, and a long text more than a short one. Only the ceiling, at the same length, shows which number is right.

# %% [markdown]
# ## Who speaks, and in what form
#
# A play has a form. In Playhouse a name stands before each speech, in Shakespeare on a line above it; a novel has no such names. Nobody has to tell the program which form a text has; the training text shows it. Cut that text into **blocks** at the empty lines (or at each line end, if there are none), and look for names with a colon. If at least half of the blocks have a name in one of the two places, that is where this text has its names.

# %%
#| export
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

# %%
for text in (
    "Meg: O damp goose!\nHal: Who, I?",
    "HAMLET:\nTo be: or\nnot to be",
    "It was late.\nMeg said: no.",
):
    speech = _find_speech([text])
    print(speech, _speakers(text, speech))

# %% [markdown]
# What belongs in a block? Write one letter for each of its lines: `N` for a name by itself, `S` for a name and a speech, `E` for an entrance, `X` for an exit, `T` for other text. Shorten each run of the same letter to one. A scene of Playhouse becomes `ESX`, a speech of Shakespeare `NT`. These letters are the block's **shape**. A shape is usual if at least one in twenty blocks of the training text has it.

# %%
#| export
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

# %%
blocks = _blocks_of(corpus.train, r"\n\s*\n")
speech = _find_speech(blocks)
print(f"{len(blocks):,} blocks, names {speech} the speech:", sorted(_usual_shapes(blocks, speech)))
for block in _blocks_of(bottom, r"\n\s*\n")[:3]:
    print(_shape(block, speech), repr(block[:60]))

# %% [markdown]
# ## Punctuation
#
# A **passage** is what somebody says, or a paragraph; in Playhouse, each line of a scene. Does it end with `.`, `!` or `?` (perhaps followed by a quote or a bracket)? And do its quotes and brackets close?
#
# There are two traps. First, `"` and `'` look the same at both ends. Such a mark opens a quote if text follows directly and neither a word nor punctuation stands directly before it; otherwise it closes. Second, the marks in `o' th' forest` are not quotes, but those in `As eels say, 'The moon sings.'` are. Again the training text decides: a pair of marks counts if 95 of 100 such marks find their partner there.

# %%
#| export
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

# %%
for text, pair in (("a (b (c) d", "()"), (")(", "()"), ("'Tis Meg's 'goose'.", "''")):
    met, marks = _partners(text, pair)
    print(f"{text:20} {met} of {marks} marks have a partner")
print("\nIn the training text:")
passages = [passage for block in blocks for passage in _passages_of(block, speech)]
for pair in PAIRS:
    if (kept := _closed(passages, [pair])) is not None:
        print(pair, f"{kept:.1%} of the marks")

# %% [markdown]
# ## Copied
#
# The last number is the length of the longest passage that a sample has in common with the training text, character by character. A slow way takes three lines: at each place, try whether one more character can be found.

# %%
def longest_copy_slowly(sample, text):
    best = 0
    for i in range(len(sample)):
        while i + best < len(sample) and sample[i : i + best + 1] in text:
            best, at = best + 1, i
    return sample[at : at + best] if best else ""


print(repr(longest_copy_slowly("the damp gloose", "a damp goose")))

# %% [markdown]
# The slow way may search a million characters twenty thousand times. The fast way reads the sample once and the training text once. From the sample it builds a **suffix automaton** (Blumer et al., 1985): states, and steps from one state to the next, one for each character. Every path from the start spells a passage of the sample, and every passage of the sample has a path. Then we walk these paths with the characters of the training text. As long as there is a step, the match grows by one. Where there is none, `links` leads to the longest ending of the match that also occurs elsewhere, and the walk continues from there.

# %%
#| export
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

# %%
print(repr(longest_copy("the damp gloose", "a damp goose")))
short = corpus.val[:1500], corpus.train[:60_000]
print("the fast way finds", len(longest_copy(*short)), "characters in a row")
print("the slow way finds", len(longest_copy_slowly(*short)))

# %% [markdown]
# **Predict:** the validation text copied nothing. How many characters in a row does it nevertheless have in common with the training text?

# %%
for name, text in (("validation text", ceiling), ("by frequency", bottom)):
    passage = longest_copy(text, corpus.train)
    print(f"{name}: {len(passage)} characters, {passage!r}")

# %% [markdown]
# So a shared passage alone does not show that the model copied. It is suspicious if it is several times as long as the ceiling's.
#
# ## The score
#
# The program learns from the training text once; then it can score samples. `None` means that there was nothing to measure: no speech in a novel, no words in a text that has hardly any spaces.

# %%
#| export
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

# %%
#| export
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

# %%
plays = load_corpus("playhouse")
lines = "Meg: O damp goose!\nHal: You soggy gloose, Meg\nZorg: As hens say, 'The moon sings.\n\n"
for field, value in quality(lines, plays)._asdict().items():
    print(f"{field:10}{value:6.2f}")

# %% [markdown]
# Check it by hand: two words are not real (`gloose` and `Zorg`), one of the speakers is invented, there is no whole scene, the second line does not end, and a quote stays open.
#
# A score alone says nothing. So the finished function, `compare`, always puts the ceiling above the samples and the bottom below them, all cut to the same length. `quality_table` makes a table of them.

# %%
#| export
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

# %%
print(quality_table(compare({"these lines, again and again": lines * 20}, plays)))

# %% [markdown]
# ## Two models between real text and noise
#
# Between the ceiling and the bottom we put two models: lesson 01's bigram, and lesson 06's GPT, the one that comes with the course. Both write many texts at once, from the beginning of a block. From each text we keep the blocks that were finished.

# %%
if corpus.name == "playhouse" and not TRAIN:
    model, tokenizer, result = load_pretrained("playhouse")
    model.to(device)
else:
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    torch.manual_seed(1337)
    model = GPT(GPTConfig.cpu(tokenizer.vocab_size, **PLAYHOUSE)).to(device)
    result = load_or_fit(
        "GPT", model, corpus, steps=2800, batch_size=6 * scale, lr=5e-3, cache_dir=CACHE_DIR
    )
print(f"the GPT: exact loss {result['loss']:.3f} nats per character")

# %%
assert result["loss"] < 2.5
V, ids = tokenizer.vocab_size, tokenizer.encode(corpus.train)
counts = torch.bincount(ids[:-1] * V + ids[1:], minlength=V * V).view(V, V)
bigram = BigramLanguageModel(V)
with torch.no_grad():
    bigram.table.weight.copy_(
        (counts + 1e-9).log()
    )  # a symbol that only ends the text has a row of zeros

known = _learn(corpus.train)
gap = "\n\n" if known.gap == r"\n\s*\n" else "\n"  # what separates blocks

# %% tags=["nbval-ignore-output"]
def sample(model):
    """24 texts by the model, each from the beginning of a block to the end of its last finished block."""
    stride = min(96, model.block_size)
    rows = generate(model, [gap] * 24, 500, seed=1, window_stride=stride, tokenizer=tokenizer)
    pieces = []
    for row in rows:
        finished = row[len(gap) : row.rindex(gap) + len(gap)]
        pieces.append(finished or row[len(gap) :] + gap)
    return "".join(pieces)


written = {"GPT": sample(model), "bigram": sample(bigram)}
for name, text in written.items():
    print(f"{name}, {len(text):,} characters:\n{text[:160]}\n")

# %%
least = min(map(len, written.values()))
print(f"the shorter one has ≈ {least:,} characters (more than 2,000: {least > 2000})")
assert least > 2000

# %% [markdown]
# **Predict:** a bigram knows pairs of neighbours and nothing else. In which column will it nearly reach the ceiling, and in which is it hardly better than noise?

# %% tags=["nbval-ignore-output"]
rows = compare(written, corpus)
print(quality_table(rows))

# %%
noise, pairs, gpt = (rows[name] for name in (NOISE_ROW, "bigram", "GPT"))
print(f"real words: noise ≈ {noise.words:.0%}, bigram ≈ {pairs.words:.0%}, GPT ≈ {gpt.words:.0%}")
print(f"passages that the bigram ends ≈ {pairs.ended:.0%}")
copied = gpt.copied / rows[REFERENCE_ROW].copied
print(
    f"the GPT's longest copy is ≈ {copied:.1f} times as long as what real text shares (less than 2: {copied < 2})"
)
assert pairs.words - noise.words > 0.01 or corpus.name != "playhouse"
assert gpt.words - pairs.words > 0.4 or corpus.name != "playhouse"
assert pairs.ended > 0.8 or corpus.name != "playhouse"
assert (pairs.structure or 0) < 0.1 or corpus.name != "playhouse"
assert copied < 2 or corpus.name != "playhouse"

# %% [markdown]
# In Playhouse a line ends only after `.`, `!`, `?` or a quote, and the bigram knows such pairs of neighbours. To form a scene or close a quote, a model has to look back further than one character.
#
# How certain are these numbers? The ceiling itself moves from one piece of real text to the next. Each grey bar goes from the lowest to the highest of six pieces; if two models differ by less than such a bar, the numbers do not show which is better. (The bars can be very long. The last pages of Tiny Shakespeare come from a play whose people never speak in the training text, so real text has not one valid speaker there.)

# %%
length = min(map(len, written.values()))
spare = max(len(corpus.val) - length, 0)
starts = [corpus.val.rfind(gap, 0, spare * i // 5) + len(gap) if i else 0 for i in range(6)]
real = [quality(corpus.val[start : start + length], corpus) for start in starts]


def band(ax, x, values):
    """A grey bar from the lowest to the highest value that is not None."""
    if values := [value for value in values if value is not None]:
        ax.bar(
            x,
            max(values) - min(values),
            0.7,
            min(values),
            color="#BBBBBB",
            edgecolor="#888888",
            linewidth=2,
            label="six pieces of real text" if x == 0 else None,
        )


print(len(real), "pieces")

# %%
fig, (left, right) = plt.subplots(
    1, 2, figsize=(10, 3.4), width_ratios=(6, 1), layout="constrained"
)
for x, field in enumerate(Quality._fields):
    ax = right if field == "copied" else left
    band(ax, x, [getattr(score, field) for score in real])
    for (name, color), mark in zip(
        {"GPT": "#0072B2", "bigram": "#E69F00", NOISE_ROW: "#D55E00"}.items(), "os^"
    ):
        if (value := getattr(rows[name], field)) is not None:
            ax.plot(x, value, mark, color=color, label=name if x == 0 else None, markersize=8)
left.set_xticks(range(6), HEADINGS[1:-1])
left.set(ylabel="share", ylim=(-0.03, 1.03))
right.set_xticks([6], ["copied"])
right.set(ylabel="characters", ylim=(0, None), xlim=(5.4, 6.6))
fig.legend(loc="outside upper center", ncols=4, frameon=False)
show(
    fig,
    "Seven columns with a grey bar for real text and a mark for each writer. The GPT's marks are near the bars. Those of the "
    "bigram and of the noise are far below in most columns, and above the bar in distinct runs of words.",
)

# %% [markdown]
# Noise repeats nothing, so it leads in the column of distinct runs. In that column a score above the ceiling is as wrong as one below it.
#
# ## How the scores can be gamed
#
# Each number can be reached without any skill. Four cheats:
#
# - copy the training text;
# - say one block of real text again and again;
# - draw real words by their frequency;
# - take real text, and put its speeches (or paragraphs) into a random order.
#
# **Predict** for each of them which column shows it.

# %%
rng = random.Random(1)
start, words = corpus.train.index(gap) + len(gap), WORD.findall(corpus.train)
between = "\n" if known.speech == "before" else gap
parts = corpus.val[:N].split(between)
places = [i for i, part in enumerate(parts) if _speakers(part, known.speech) or not known.speech]
dealt = dict(zip(places, sorted((parts[i] for i in places), key=lambda part: rng.random())))
cheats = {
    "copied": corpus.train[start : start + N],
    "one block": ((corpus.val.split(gap)[1] + gap) * N)[:N],
    "words": " ".join(words[int(rng.random() * len(words))] for _ in range(N // 3)),
    "dealt anew": between.join(dealt.get(i, part) for i, part in enumerate(parts)),
}
caught = compare(cheats, corpus)
print(quality_table(caught))

# %%
whole = min(len(corpus.val), *map(len, cheats.values()))
print("copied from the training text:", caught["copied"].copied, "of", whole, "characters")
distinct_share = caught["one block"].distinct / caught[REFERENCE_ROW].distinct
print(
    f"one block has ≈ {distinct_share:.1%} of the ceiling's distinct runs (less than half: {distinct_share < 0.5})"
)
assert caught["copied"].copied == whole
assert distinct_share < 0.5

# %% [markdown]
# A copied text has shares like those of real text, but the copied passage is as long as the sample. The block said again and again has hardly any different runs. The words have no form, and no passage of them ends.
#
# And the cards? Questions get answers to other questions, people who are not there speak, and no column notices. What the numbers miss:
#
# - **Real words** does not know whether a word is the right one here. It counts a rare word of the author as wrong if the training text lacks it; the ceiling shows how often that happens.
# - **Speakers** knows who speaks in the training text. It does not know who is on the stage. (In Playhouse `score_plays` checks that, and `price` of lesson 08 knows all the rules.)
# - **Structure** sees the kinds of lines, but nothing of what they say. In prose it is silent.
# - **Ended** is content with a full stop anywhere. **Closed** does not care what stands between the quotes.
# - **Distinct** is right only at the ceiling's value, and only at the same length.
# - **Copied** sees only exact copies. Change one character in the middle, and the passage is half as long.
#
# The loss on validation text sees a little of all of these, in one number. It does not say which is wrong, and says nothing about what a temperature does to a sample. So report the loss, too.
#
# ## Mistakes people make
#
# - **One number without its two neighbours.** Without ceiling and bottom nobody knows whether 93% is much.
# - **Samples of different length.** The longer one repeats more and shares longer passages. `compare` cuts them.
# - **The best sample of ten.** Score everything that was written, and report seed and temperature.
# - **Counting the prompt.** If it comes from the training text, it is real, valid, closed and copied.
# - **More is better.** What scores above the ceiling is a copy, noise (in distinct runs), or text that is too tame.
#
# ## Summary
#
# You now have `quality`, `compare`, `quality_table` and `longest_copy`, in `chargpt_lib/quality.py`.
#
# Next: a sample of your own. Write one with a temperature of lesson 08, and give it to `compare`. In the course, lesson 09 follows: [09 · Checkpoints](09_checkpoints.ipynb).
