# Made from notebooks/source/appendix/playhouse.py by notebooks/tools/build.py. Edit that text, not this file.
"""Playhouse: short plays from a seeded grammar, of known entropy."""

import random
import re
from bisect import bisect
from functools import lru_cache
from itertools import accumulate
from math import fsum, log
from os.path import commonprefix
from typing import NamedTuple

__all__ = [
    "weighted_options",
    "Span",
    "GrammarWriter",
    "LORDS",
    "LADIES",
    "PLACES",
    "PROPS",
    "NOUNS",
    "ADJECTIVES",
    "VERBS",
    "ADVERBS",
    "DEEDS",
    "FATES",
    "scene",
    "KINDS",
    "Script",
    "write",
    "excess_by_kind",
    "choice_weights",
    "score_plays",
]


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
