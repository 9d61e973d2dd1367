# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Playhouse: a corpus that knows its own entropy
#
# > Playhouse: short plays from a seeded grammar, of known entropy.
#
# How good can a language model get? On Shakespeare nobody can say: no one knows the probability that Shakespeare would have written `e` next.
# So this course begins with plays that a small program of ours writes. A random number generator makes every decision, and the program adds up what each decision costs.
# We therefore know, to the last decimal, how surprising the text is, and how close a model has come to the best possible one.
#
# You need no other lesson for this page. It runs in seconds, on anything.

# %%
#| export
import random
import re
from bisect import bisect
from functools import lru_cache
from itertools import accumulate
from math import fsum, log
from os.path import commonprefix
from typing import NamedTuple

# %% [markdown]
# ## Surprise in nats
#
# A fair choice among 8 words has probability $p = 1/8$. Its **surprise** is $-\ln p = \ln 8$, measured in *nats*. (With logarithms to base 2 the surprise would be 3 bits: three coin flips.)

# %%
print(f"1 of 8:     {log(8):.3f} nats")
print(f"1 of 2:     {log(2):.3f} nats")
print(f"1 of 1:     {log(1):.3f} nats: no choice, no surprise")

# %% [markdown]
# Independent choices multiply their probabilities, so their surprises add up. That is the whole accounting.
# A sentence made of a choice among 8 and a choice among 2 costs $\ln 8 + \ln 2 = \ln 16$ nats, however many letters it takes to write.

# %% [markdown]
# ## The deciding prefix
#
# Suppose the next word is one of `goat`, `ghost` and `duke`. If you see a `d`, the word must be `duke`, and the letters `uke` can surprise nobody.
# If you see a `g`, the choice is still open, and the second letter decides. So each word has a **deciding prefix**, and what comes after it is mere spelling.

# %%
words = ["goat", "ghost", "duke"]
for word in words:
    shared = max(len(commonprefix([word, other])) for other in words if other != word)
    print(f"{word}: {word[: shared + 1]!r} decides, {word[shared + 1 :]!r} is spelling")

# %% [markdown]
# If one word were the beginning of another (`king` and `kingfisher`), no letter would decide. So no option may be the beginning of another.
# Then a reader of the text can tell every decision that was made. The grammar is **unambiguous**: one text, one chain of choices, one probability.
#
# `weighted_options` makes a table of the options, with the deciding prefix and the price in nats of each. An option with weight 2 is drawn twice as often.

# %%
#| export
@lru_cache(maxsize=None)
def weighted_options(*options):
    """Options, each a string or (string, weight) -> [(word, letters that decide, nats)], cumulative weights."""
    weights = dict(option if isinstance(option, tuple) else (option, 1) for option in options)
    total = sum(weights.values())
    table = []
    for word, weight in weights.items():
        shared = max(
            (len(commonprefix([word, other])) for other in weights if other != word), default=0
        )
        if shared == len(word):
            raise ValueError(
                f"option {word!r} is a prefix of another option: no letter tells them apart"
            )
        table.append((word, shared + 1, log(total / weight)))
    return table, list(accumulate(weights.values()))

# %%
for word, letters, nats in weighted_options(("goat", 2), "ghost", "duke")[0]:
    print(f"{word:6} decided after letter {letters}, {nats:.3f} nats")

# %% [markdown]
# ## The grammar writer
#
# A `GrammarWriter` writes the text of a grammar. `emit` writes text that is not a choice; `choose` draws one of several options and writes it. Both record **spans**: where a stretch of text begins and ends, what kind it is, and how many nats it cost.
# The spans follow each other without gaps, so their nats add up to the surprise of the whole text. (`bisect` draws: the weights lie end to end on a line, and `bisect` finds the one at a random point.)
#
# Only `random.random()` is called: Python promises the same numbers from it in every version, but not from `choice` or `shuffle`.

# %%
#| export
class Span(NamedTuple):
    """text[start:end] is of this kind and costs this many nats."""

    start: int
    end: int
    kind: str
    nats: float


class GrammarWriter:
    """Writes what a random number generator decides, and records what each stretch of text is and costs."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.parts = []  # of the text
        self.spans = []
        self.length = 0  # characters so far

    def emit(self, text, kind="spelling", nats=0.0):
        """Writes text that is not a choice."""
        if text:
            start = self.length
            self.length += len(text)
            self.parts.append(text)
            self.spans.append(Span(start, self.length, kind, nats))

    def choose(self, kind, *options):
        """Draws one of the options, writes it and returns it. The letters that decide become a span of this kind."""
        table, cumulative = weighted_options(*options)
        # Only random() is called: Python promises that it is the same in every version.
        place = bisect(cumulative, self.rng.random() * cumulative[-1])
        word, letters, nats = table[place]
        self.emit(word[:letters], kind, nats)
        self.emit(word[letters:])
        return word

# %%
writer = GrammarWriter(seed=1)
writer.emit("All ")
writer.choose("word", "goat", "ghost", "duke")
writer.emit("s ")
writer.choose("word", "sing", "lie")
print("".join(writer.parts))
for span in writer.spans:
    print(f"{span.start:2} to {span.end:2}  {span.kind:8} {span.nats:.3f} nats")

# %% [markdown]
# ## The word lists
#
# There are sixteen players and seventeen props. No two players share an initial, and no two props do. Then come nouns, adjectives, verbs.

# %%
#| export
LORDS = "Toby Puck Kit Hal Gil Wat Otto Zed".split()
LADIES = "Meg Anne Bess Nell Dora Rosa Viola Juno".split()
PLACES = [
    "A bakery",
    "A barn",
    "A cave",
    "A ditch",
    "A duel",
    "A forest",
    "A kennel",
    "A market",
    "A prison",
    "A rooftop",
    "A swamp",
    "A tower",
    "A wedding",
    "The bath",
    "The cellar",
    "The moon",
    "The pantry",
    "The stable",
    "The wrong house",
]
PROPS = (
    "anvil barrel crown donkey egg fiddle goose harp kettle ladder mop oyster pie spoon trumpet umbrella "
    "wig"
).split()
NOUNS = (
    "admiral aunt badger baker barber bard beggar bishop burglar butler cabbage clerk cook corpse cousin crab "
    "dentist dragon duke dumpling earl eel elk ferret friar ghost giant gnome goat haddock hen hermit herring "
    "hound imp jester judge king knave lawyer lobster mayor mermaid miller monk moth mule newt nun nurse ogre "
    "onion otter owl parrot parson pickle pigeon pilgrim pirate poet prince pudding quail robber sailor shepherd "
    "snail squire tailor toad troll turnip uncle viking vole wasp widow wizard wombat yak"
).split()
ADJECTIVES = (
    "ancient bald bashful bold brave cheerful chilly clumsy crooked damp drunk dusty edible elderly frozen "
    "gilded gloomy greasy hairy haunted holy humble invisible itchy jealous lazy lonely lukewarm moist noble "
    "odd overdue perfumed pious purple rude smug soggy sticky sulky suspicious tiny unwed "
    "vain wicked"
).split()
VERBS = (
    "argue bark bite boil bow bray chew cough dance drool elope explode faint float giggle glow gossip growl hum "
    "juggle jump kneel lie limp melt moan nap ooze pray resign rhyme rot scream sing sleep snore stammer sulk "
    "sweat tiptoe vote weep whimper wink yawn yodel"
).split()
ADVERBS = [
    "again",
    "alone",
    "at dawn",
    "at sea",
    "badly",
    "by post",
    "by proxy",
    "for free",
    "in Dutch",
    "in Latin",
    "in bed",
    "in public",
    "in secret",
    "indoors",
    "on toast",
    "sideways",
    "too much",
    "twice",
]
DEEDS = "ate boiled cursed dyed hid insulted kissed married painted sued tickled wooed".split()
FATES = [
    "accused by",
    "blaming",
    "blessing",
    "dressed as",
    "eating",
    "engaged to",
    "hiding in",
    "licking",
    "mistaken for",
    "outwitted by",
    "pursued by",
    "riding",
    "upstaged by",
    "worshipping",
]

# %% [markdown]
# ## Sentences
#
# To predict the text, a reader has to look somewhere else for each rule:
#
# | to predict | one has to look | kind of span |
# |---|---|---|
# | `shop` after `bi` | to the start of the word | spelling |
# | `The bishop sings`, but `All bishops sing` | to the start of the sentence | grammar |
# | the `'` that ends a quotation | past the sentence, to where it was opened | closing |
# | `my lady Meg`, `my lord Toby` | at the cast, and know which are ladies | addressee |
# | the one who is spoken to speaks next; an answer repeats the deed asked about | to the line before | copied name, grammar |
# | who is on stage at all, and what they carry on and off | to the first line of the scene | copied name, closing |

# %%
#| export
def _thing(writer):
    """ "bishop", "damp bishop" """
    if writer.choose("word", *NOUNS, *[(word, 2) for word in ADJECTIVES]) in ADJECTIVES:
        writer.emit(" ")
        writer.choose("word", *NOUNS)


def _clause(writer, start):
    """ "bishop sings twice." after "The ", "bishops sing twice." after "All " """
    plural = start == "All "
    _thing(writer)
    writer.emit("s " if plural else " ", "grammar")
    writer.choose("word", *VERBS)
    writer.emit("" if plural else "s", "grammar")
    if writer.choose("grammar", ".", " ") == " ":
        writer.choose("word", *ADVERBS)
        writer.emit(".")


def _address(writer, others):
    """ "Meg" or "my lady Meg"; returns the name"""
    titles = [(f"my {'lord' if name in LORDS else 'lady'} {name}", 1) for name in others]
    return writer.choose("addressee", *[(name, 3) for name in others], *titles).split()[-1]

# %%
writer = GrammarWriter(seed=5)
for start in ("The ", "All ", "The ", "All "):
    writer.emit(start)
    _clause(writer, start)
    writer.emit("\n")
print("".join(writer.parts))

# %% [markdown]
# A **speech** is a statement, a quotation, an address to the prop, an insult or a question. A question names somebody, and an insult may; the person who is named speaks next.
# A question ("Who kissed the eel, Meg?") has to be answered, with the same verb.

# %%
#| export
def _speech(writer, speaker, others, prop):
    """One speech -> (the next speaker, the deed asked about), with None for what is open."""
    start = writer.choose(
        "grammar", ("The ", 3), ("All ", 2), ("As ", 2), ("Who ", 4), ("You ", 5), ("O ", 2)
    )
    if start in ("The ", "All "):
        _clause(writer, start)
    elif start == "As ":
        writer.choose("word", *NOUNS)
        writer.emit("s say, '")
        _clause(writer, writer.choose("grammar", "The ", "All "))
        writer.emit("'", "closing")
    elif start == "O ":
        writer.choose("word", *ADJECTIVES)
        writer.emit(" ")
        writer.choose("copied name", prop)
        writer.emit("!")
    elif start == "Who ":
        deed = writer.choose("word", *DEEDS)
        writer.emit(" the ")
        _thing(writer)
        writer.emit(", ")
        who = _address(writer, others)
        writer.emit("?", "grammar")
        return who, deed
    else:
        writer.choose("word", *ADJECTIVES)
        writer.emit(" ")
        writer.choose("word", *NOUNS)
        if writer.choose("grammar", "!", ", ") == ", ":
            who = _address(writer, others)
            writer.emit("!", "grammar")
            return who, None
    return None, None

# %% [markdown]
# Next come the answers. "Not I, Toby" makes Toby speak again.

# %%
#| export
def _answer(writer, asker, deed):
    """ "Not I, Toby." (and Toby speaks next), "I kissed it." or "The onion kissed it." """
    start = writer.choose("grammar", "Not I, ", "I ", "The ")
    if start == "Not I, ":
        writer.choose("addressee", asker)
        writer.emit(".")
        return asker, None
    if start == "The ":
        _thing(writer)
        writer.emit(" ")
    writer.choose("grammar", deed)
    writer.emit(" it.")
    return None, None

# %% [markdown]
# ## A scene
#
# A scene begins with a place, a cast and a prop. Then people talk until a random choice sends somebody off. The last words name the prop again: somebody carried it onto the stage, so it has to leave the stage.

# %%
#| export
def scene(writer):
    """A place, a cast list, what they say, and how they leave."""
    writer.choose("word", *PLACES)
    writer.emit(". Enter ")
    company = LORDS + LADIES
    cast = [writer.choose("cast", *company)]
    if writer.choose("grammar", (", ", 1), (" and ", 2)) == ", ":
        cast.append(writer.choose("cast", *[name for name in company if name not in cast]))
        writer.emit(" and ")
    cast.append(writer.choose("cast", *[name for name in company if name not in cast]))
    writer.emit(" with ")
    writer.choose("word", *[("an " if word[0] in "aeiou" else "a ") + word for word in ADJECTIVES])
    writer.emit(" ")
    prop = writer.choose("cast", *PROPS)
    writer.emit(".\n")
    speaker = writer.choose("copied name", *cast)
    asker = None
    deed = None  # the deed asked about, if the last speech was a question
    while speaker != "Ex":
        writer.emit(": ")
        others = [name for name in cast if name != speaker]
        if deed:
            who, deed = _answer(writer, asker, deed)
        else:
            who, deed = _speech(writer, speaker, others, prop)
        writer.emit("\n")
        asker = speaker
        # The person who was named speaks next. If nobody was named, anybody else speaks, or somebody leaves.
        candidates = [who] if who else [("Ex", 3 * len(others)), *others]
        speaker = writer.choose("copied name", *candidates)
    if writer.choose("grammar", ("it ", 2), ("eunt, ", 1)) == "it ":
        writer.choose("copied name", *cast)
        writer.emit(", ")
    writer.choose("word", *FATES)
    writer.emit(" the ")
    writer.choose("closing", prop)
    writer.emit(".\n\n")

# %%
writer = GrammarWriter(seed=14)
scene(writer)
scene(writer)
print("".join(writer.parts))

# %% [markdown]
# Read the scenes again as somebody who has to guess each letter. After `Exit`, only the initials of the cast can come. To know them, you have to remember the first line.
#
# ## The whole corpus
#
# `write` adds scenes until the text has as many characters as Tiny Shakespeare, the million letters of plays on which many courses train. It stops at the end of a scene.

# %%
#| export
KINDS = ("spelling", "grammar", "word", "cast", "addressee", "copied name", "closing")


class Script(NamedTuple):
    """A text, and what each stretch of it is and costs."""

    text: str
    spans: list

    @property
    def entropy(self):
        """Nats per character: minus the log-probability of the text under the grammar, divided by its length."""
        return fsum(span.nats for span in self.spans) / len(self.text)

    @property
    def words(self):
        """All different words of the text."""
        return frozenset(re.findall("[A-Za-z]+", self.text))


def write(min_chars=1_115_394, seed=1337):
    """Writes scenes until they have min_chars characters -> Script. The same seed gives the same plays everywhere."""
    writer = GrammarWriter(seed)
    while writer.length < min_chars:
        scene(writer)
    return Script("".join(writer.parts), writer.spans)

# %%
script = write()
print(
    f"{len(script.text):,} characters, {len(set(script.text))} different ones, {len(script.words)} words"
)
print(f"entropy: {script.entropy:.4f} nats per character")

# %% [markdown]
# This entropy is **the floor**. A model that had found out the whole grammar, and kept everything in mind, would be surprised by exactly this much on average over a long text.
# No model can do better on plays that it has not seen, except by luck.
#
# Which decisions make up the floor? And how much of the text do they take?

# %%
import matplotlib.pyplot as plt

nats = {
    kind: sum(s.nats for s in script.spans if s.kind == kind) / len(script.text) for kind in KINDS
}
letters = {kind: sum(s.end - s.start for s in script.spans if s.kind == kind) for kind in KINDS}
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
left.barh(KINDS, [100 * letters[kind] / len(script.text) for kind in KINDS], color="#56B4E9")
right.barh(KINDS, [nats[kind] for kind in KINDS], color="#E69F00")
left.set(title="share of the characters", xlabel="%")
right.set(title=f"surprise (sum: {script.entropy:.3f})", xlabel="nats per character")
left.invert_yaxis()
alt = "Bars for each kind. Left: most characters are spelling. Right: most of the surprise is in the words."
display(fig, metadata={"image/png": {"alt": alt}})
plt.close(fig)

# %% [markdown]
# Three of four characters are mere spelling and cost nothing, if you can spell. Most of the surprise is in the words. Copied names cost little, if you remember who is on stage.
# A model starts out knowing none of this. What it still pays beyond the floor, kind by kind, is its **excess**. The lessons up to 06 end by looking at it.

# %%
#| export
def excess_by_kind(nats, spans):
    """What a model paid beyond the grammar's price, for each kind of span.

    nats: for each character of the text, what the model paid for it (None or NaN where it predicted nothing).
    Returns {kind: nats per character of the text}; the values add up to the model's loss minus the floor.
    """
    excess = dict.fromkeys(KINDS, 0.0)
    predicted = 0  # characters
    for start, end, kind, price in spans:
        paid = nats[start:end]
        # A span counts as a whole or not at all, because its price is that of the whole. (nan is not equal to itself.)
        if len(paid) == end - start and not any(p is None or p != p for p in paid):
            excess[kind] += sum(paid) - price
            predicted += end - start
    return {kind: value / max(predicted, 1) for kind, value in excess.items()}


def choice_weights(spans):
    """For each character of the text, its part in the price of the grammar's choices; 0 for spelling.

    A token of several characters (lesson 14) pays for all of them at once. These weights divide its nats among them.
    """
    weights = []
    for start, end, kind, price in spans:
        weight = 0.0
        if kind != "spelling":
            # Some choices are free, such as the only possible speaker. They still weigh more than spelling.
            weight = price / (end - start) + 1e-9
        weights += [weight] * (end - start)
    return weights

# %% [markdown]
# Take a model that knows nothing and gives each of the symbols the same probability. It pays $\ln V$ for every letter, where $V$ is the number of symbols.

# %%
pays = log(len(set(script.text)))
excess = excess_by_kind([pays] * len(script.text), script.spans)
for kind in KINDS:
    print(f"{kind:12} {excess[kind]:.3f}")
print(f"{'sum':12} {sum(excess.values()):.3f} = {pays:.3f} - {script.entropy:.3f}")

# %% [markdown]
# ## Training text and validation text
#
# We train on one text and measure on another, from another seed. Some parts of the second occur in the first by chance. How many?

# %%
validation = write(min_chars=111_540, seed=2024)
print(f"floor of the validation text: {validation.entropy:.4f} nats per character")
for name, end in (("lines", "\n"), ("scenes", "\n\n")):
    seen, pieces = (
        set(script.text.split(end)),
        [piece for piece in validation.text.split(end) if piece],
    )
    both = sum(piece in seen for piece in pieces)
    print(
        f"{name} that also occur in the training text: {both:,} of {len(pieces):,} ({both / len(pieces):.1%})"
    )

# %% [markdown]
# Short lines ("Kit: Not I, Meg.") must come again. Whole scenes hardly do, so no model can know them by heart.
#
# How long is a scene? The length matters, because a model looks back only so far.

# %%
lengths = [len(text) + 2 for text in script.text.split("\n\n")[:-1]]
fig, ax = plt.subplots(figsize=(7, 2.5), layout="constrained")
ax.hist(lengths, bins=range(60, 500, 10), color="#009E73")
for block, style in ((128, "--"), (192, "-")):
    share = sum(n <= block for n in lengths) / len(lengths)
    ax.axvline(
        block,
        color="#D55E00",
        linestyle=style,
        label=f"{share:.0%} have at most {block} characters",
    )
ax.set(xlabel="characters in a scene", ylabel="scenes")
ax.legend(frameon=False)
display(
    fig,
    metadata={"image/png": {"alt": "A histogram of the scenes' lengths; lines at 128 and 192."}},
)
plt.close(fig)

# %% [markdown]
# ## Scoring plays
#
# A program can judge what a model writes. Two questions: what share of the words are words of the corpus, and what share of the speakers are on the cast list of their scene? The first question tests spelling, the second tests memory.

# %%
#| export
def score_plays(text, vocabulary):
    """Scores a text -> {"words": the share that is in the vocabulary, "speakers": the share on their cast list}.

    Words at the ends, which may be cut off, do not count; nor do speakers before the first cast list.
    """
    words = re.findall("[A-Za-z]+", text)[1:-1]
    known = [word in vocabulary for word in words]
    cast = None
    on_stage = []  # for each speech, whether its speaker is on the cast list
    for line in text.split("\n"):
        entrance = re.search(r"\. Enter (.*) with ", line)
        speaker = re.match(r"(\w+): ", line)
        if entrance:
            cast = set(re.split(", | and ", entrance[1]))
        elif cast is not None and speaker:
            on_stage.append(speaker[1] in cast)
    return {
        "words": sum(known) / max(len(known), 1),
        "speakers": sum(on_stage) / max(len(on_stage), 1),
    }

# %%
for text in (validation.text, validation.text.replace("Meg:", "Falstaff:")):
    print(
        {question: round(share, 3) for question, share in score_plays(text, script.words).items()}
    )

# %% [markdown]
# ## Mistakes people make
#
# - **Comparing losses on different texts.** 1.4 on Shakespeare and 0.4 on Playhouse say nothing about the two models. The excess over the floor says something, where a floor is known.
# - **Taking the training loss for success.** It can go below the floor: then the model has learnt some of the random choices by heart.
# - **Confusing nats and bits.** 1 nat is $1/\ln 2 \approx 1.44$ bits.
#
# `data/playhouse.txt` holds the validation text, for you to read.
