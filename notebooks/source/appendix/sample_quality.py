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
# You will build: a score of seven numbers for whatever a model wrote, beside the score of real text and of noise.
# You need lesson 08. On two CPU cores the page takes about twenty seconds.
#
# "Coherence: high." From that you learn that somebody liked a sample. Which of how many? Compared with what? On this page a sample is counted, and anybody who counts again gets the same numbers.

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
TRAIN = False  # True: let lesson 06's model of yours write; two minutes, if it has not been trained here yet
CACHE_DIR = None  # or a folder that outlives the session: "/content/drive/MyDrive/chargpt", "/kaggle/working" (see RUNNING_ELSEWHERE.md)
corpus, device = load_corpus(CORPUS), pick_device()
scale = pick_scale(device)  # 1 on a CPU: see lesson 00

# %% [markdown]
# ## Between noise and the real thing
#
# 93% of the words are real. Is that good? The number means something only beside two other texts of the same length, counted in the same way:
#
# - the **ceiling**: the validation text, real and never trained on. A model that scores higher is not better than the author. It is doing something else.
# - the **bottom**: characters drawn by their frequency alone, a model that knows nothing of order.

# %%
#| export
import random
import re
from functools import lru_cache
from typing import NamedTuple

from chargpt_lib.data import Corpus


def _scrambled(text, length, seed=1337):
    """Characters drawn by their frequency in the text alone."""
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
# A word is a run of letters; an apostrophe between letters belongs to it. It is **real** if the training text has it, in capital or small letters.

# %%
#| export
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
# Noise has real words, because short words are easily hit. That share is worth nothing, and now we know its size.
#
# Two texts may have the same words and differ in what they do with them. A model that is stuck says one sentence again and again. So count the runs of four words, and how many of them are different.

# %%
for text in ("the hen sings and the newt sings", "the hen sings the hen sings the hen sings"):
    print(f"{distinct(text.split()):.2f}  {text}")

# %% [markdown]
# Real text repeats itself, too, a play of our grammar more than a novel, and the longer it is the more. Which number is right only the ceiling says, at the same length.

# %% [markdown]
# ## Who speaks, and in what form
#
# A play has a form. Three corpora, three forms: in Playhouse a name stands before each speech, in Shakespeare on a line above it, and in a novel there is no such thing. Nobody has to tell the program which one it is; the training text shows it. Cut it into **blocks** at the empty lines (at the lines, if it has no empty ones), and look for names with a colon. If at least half of the blocks have one in one of the two places, this is how the text speaks.

# %%
#| export
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

# %%
for text in (
    "Meg: O damp goose!\nHal: Who, I?",
    "HAMLET:\nTo be: or\nnot to be",
    "It was late.\nMeg said: no.",
):
    speech = _find_speech([text])
    print(speech, _speakers(text, speech))

# %% [markdown]
# What belongs into a block? Write down what each of its lines is: a name of its own `N`, a name and a speech `S`, an entrance `E`, an exit `X`, other text `T`, and write runs as one. A scene of Playhouse becomes `ESX`, a speech of Shakespeare `NT`. These are the block's **shape**. Usual is a shape that at least one in twenty blocks of the training text has.

# %%
#| export
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

# %%
blocks = _blocks_of(corpus.train, r"\n\s*\n")
speech = _find_speech(blocks)
print(f"{len(blocks):,} blocks, names {speech} the speech:", sorted(_usual_shapes(blocks, speech)))
for block in _blocks_of(bottom, r"\n\s*\n")[:3]:
    print(_shape(block, speech), repr(block[:60]))

# %% [markdown]
# ## Punctuation
#
# A **passage** is what somebody says, or a paragraph; in Playhouse, each line of a scene. Does it end, with `.`, `!` or `?` (and perhaps a quote or a bracket behind)? And do its quotes and brackets close?
#
# Two traps. `"` and `'` look the same at both ends: such a mark opens if something follows it at once and neither a word nor its full stop or comma stands before it, and else it closes. And in `o' th' forest` the marks are no quotes, in `As eels say, 'The moon sings.'` they are. The training text decides again: a pair of marks counts if in it 95 of 100 find their partner.

# %%
#| export
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

# %%
print(_partners("a (b (c) d", "()"), _partners(")(", "()"), _partners("'Tis Meg's 'goose'.", "''"))
passages = [passage for block in blocks for passage in _passages_of(block, speech)]
for pair in PAIRS:
    if (kept := _closed(passages, [pair])) is not None:
        print(pair, f"{kept:.1%}")

# %% [markdown]
# ## Copied
#
# The longest passage that a sample has in common with the training text, character by character. A slow way, three lines: try at each place whether one character more can be found.

# %%
def longest_copy_slowly(sample, text):
    best = 0
    for i in range(len(sample)):
        while i + best < len(sample) and sample[i : i + best + 1] in text:
            best, at = best + 1, i
    return sample[at : at + best] if best else ""


print(repr(longest_copy_slowly("the damp gloose", "a damp goose")))

# %% [markdown]
# That may search a million characters twenty thousand times. The fast way reads the sample once and the training text once. From the sample it builds a **suffix automaton** (Blumer et al., 1985): states, and steps from one to the next, a character each. A path from the start spells something that stands in the sample, and everything that stands in the sample has a path. Then the training text walks. As long as there is a step, the match grows by one. Where there is none, `link` leads to the longest ending of the match that has been seen elsewhere, too, and the walk goes on from there.

# %%
#| export
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

# %%
print(repr(longest_copy("the damp gloose", "a damp goose")))
short = corpus.val[:1500], corpus.train[:60_000]
print(
    "characters in a row:",
    len(longest_copy(*short)),
    "  found slowly:",
    len(longest_copy_slowly(*short)),
)

# %% [markdown]
# **Predict:** the validation text copied nothing. How many characters in a row does it have in common with the training text, all the same?

# %%
for name, text in (("validation text", ceiling), ("by frequency", bottom)):
    passage = longest_copy(text, corpus.train)
    print(f"{name}: {len(passage)} characters, {passage!r}")

# %% [markdown]
# So a shared passage is no theft yet. It is suspicious if it is several times as long as the ceiling's.
#
# ## The score
#
# What the training text tells is learnt once; then samples can be scored. `None` means that there was nothing to measure: no speech in a novel, no words in a text that has hardly any spaces.

# %%
#| export
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

# %%
#| export
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

# %%
plays = load_corpus("playhouse")
lines = "Meg: O damp goose!\nHal: You soggy gloose, Meg\nZorg: As hens say, 'The moon sings.\n\n"
for field, value in quality(lines, plays)._asdict().items():
    print(f"{field:10}{value:6.2f}")

# %% [markdown]
# Check it by hand: two words are not real (`gloose` and `Zorg`), one of the speakers is invented, there is no whole scene, the second line does not end, and a quote stays open.
#
# A score alone says nothing. So the finished function always puts the ceiling above the samples and the bottom below them, all cut to the same length, and a table shows them.

# %%
#| export
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

# %%
print(quality_table(compare({"these lines, again and again": lines * 20}, plays)))

# %% [markdown]
# ## Two models between real text and noise
#
# The ceiling, the bottom, and two models between them: lesson 01's bigram, and lesson 06's GPT, the one that comes with the course. Both write many texts at once, from the beginning of a block, and of each text we keep the blocks that were finished.

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
    bigram.table.weight.copy_((counts + 1e-9).log())  # a symbol that ends the text has no pair

known = _learn(corpus.train)
gap = "\n\n" if known.gap == r"\n\s*\n" else "\n"  # stands between blocks

# %% tags=["nbval-ignore-output"]
def sample(model):
    rows = generate(
        model, [gap] * 24, 500, seed=1, window_stride=min(96, model.block_size), tokenizer=tokenizer
    )
    return "".join(
        row[len(gap) : row.rindex(gap) + len(gap)] or row[len(gap) :] + gap for row in rows
    )


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
# In Playhouse a line ends only after `.`, `!`, `?` or a quote, and that is a pair of neighbours: the bigram knows it. A scene, or a quote to be closed, is further away than one character.
#
# How sure are these numbers? The ceiling itself moves from one piece of real text to the next. The grey bars go from the lowest to the highest of six pieces; two models that differ by less than such a bar have not been told apart. (The bars can be very long. The last pages of Tiny Shakespeare come from a play whose people never speak in the training text, and real text has not one valid speaker there.)

# %%
length = min(map(len, written.values()))
spare = max(len(corpus.val) - length, 0)
starts = [corpus.val.rfind(gap, 0, spare * i // 5) + len(gap) if i else 0 for i in range(6)]
real = [quality(corpus.val[start : start + length], corpus) for start in starts]


def band(ax, x, values):
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
    "Seven columns with a grey bar for real text and a mark for each writer: the GPT near the bar, the bigram "
    "and the noise far below it in most columns, and both at the top in distinct runs of words.",
)

# %% [markdown]
# Noise repeats nothing, so it leads in that column: there, above the ceiling is as wrong as below it.
#
# ## How the scores can be gamed
#
# Each number can be had without any skill. Four cheats:
#
# - copy the training text;
# - say one block of real text again and again;
# - draw real words by their frequency;
# - take real text, and deal its speeches (or paragraphs) anew, like cards.
#
# **Predict** for each of them which column gives it away.

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
# A copied text is perfect in every share, and the passage is as long as the sample. The block said again and again has hardly any different runs. The words have no form and no end.
#
# And the cards? Questions get answers to other questions, people speak who are not there, and no column notices. What the numbers miss:
#
# - **Real words** does not know whether a word is the right one here. It counts a rare word of the author as wrong if the training text lacks it; the ceiling shows how often that happens.
# - **Speakers** knows who speaks in the training text. It does not know who is on the stage. (In Playhouse `score_plays` asks that, and `price` of lesson 08 knows all the rules.)
# - **Structure** sees the kinds of lines, nothing of what they say. In prose it is silent.
# - **Ended** is content with a full stop anywhere. **Closed** does not care what stands between the quotes.
# - **Distinct** is right only at the ceiling's value, and only at the same length.
# - **Copied** sees word for word. One character changed in the middle, and the passage is half as long.
#
# The loss on validation text sees all of these, a little, in one number. It does not say which; and it says nothing about what a temperature does to a sample. So give both.
#
# ## Mistakes people make
#
# - **One number without its two neighbours.** Without ceiling and bottom nobody knows whether 93% is much.
# - **Samples of different length.** The longer one repeats more and shares longer passages. `compare` cuts them.
# - **The best sample of ten.** Score all that was written, and say seed and temperature.
# - **Counting the prompt.** If it comes from the training text, it is real, valid, closed and copied.
# - **More is better.** Above the ceiling stand the copy, the noise (in distinct runs), and the text that is too tame.
#
# ## Summary
#
# `quality`, `compare`, `quality_table` and `longest_copy`, in `chargpt_lib/quality.py`.
