"""How the exercises of lesson 00 are judged: cases, mistakes, symptoms."""

import math
from collections import Counter

import torch

from chargpt_lib.exercises.answers.data import (
    batch_windows,
    character_entropy,
    merge_pairs,
    train_val_split,
    uniform_loss,
)
from chargpt_lib.exercises.judge import exercise


def train_val_split_case(draw):
    """A length and a percentage that do not come out even, so that rounding shows."""
    return [
        draw.text(20 * draw.integer(3, 9) + draw.choice([1, 3, 7, 9, 11, 13, 17, 19])),
        5 * draw.integer(1, 6),
    ]


### BEGIN SOLUTION
def train_val_split_at(text, cut):
    return [text[:cut], text[cut:]]


### END SOLUTION


exercise(
    train_val_split,
    stars=1,
    minutes=5,
    cases=lambda draw: [
        [draw.text(37), 10],
        train_val_split_case(draw),
        train_val_split_case(draw),
        [draw.text(5), 10],
        [draw.text(10 * draw.integer(2, 9) + 1), 10],
        [draw.text(draw.integer(1, 3)), draw.integer(70, 99)],
        *(
            [draw.text(length), percent]
            for length, percent in (  # fractions of a hundred are not exact in binary
                draw.choice([(20, 80), (25, 68), (30, 90)]),
                draw.choice([(25, 28), (50, 14), (75, 56)]),
                draw.choice([(50, 42), (90, 30), (100, 43), (100, 71)]),
            )
        ),
    ],
    wrong={
        ### BEGIN SOLUTION
        "the first part is kept for validation, and the last is wanted": lambda text, percent: (
            train_val_split_at(text, len(text) - len(text) * (100 - percent) // 100)[::-1]
        ),
        "the first part is kept for validation: the last is wanted, and the training text is rounded down": lambda text, percent: (
            train_val_split_at(text, len(text) * percent // 100)[::-1]
        ),
        "the order is wrong: first the training text, then the validation text": lambda text, percent: (
            train_val_split_at(text, len(text) * (100 - percent) // 100)[::-1]
        ),
        "the validation text is rounded down, so the training text is rounded up, and it should be the other way": lambda text, percent: (
            train_val_split_at(text, len(text) - len(text) * percent // 100)
        ),
        "the training text is rounded up, not down": lambda text, percent: train_val_split_at(
            text, math.ceil(len(text) * (1 - percent / 100))
        ),
        "rounded to the nearest whole number: the training text is rounded down": lambda text, percent: (
            train_val_split_at(text, round(len(text) * (100 - percent) / 100))
        ),
        "rounded to the nearest whole number: the training text is rounded down, the other gets the rest": lambda text, percent: (
            train_val_split_at(text, len(text) - round(len(text) * percent / 100))
        ),
        "the validation text is rounded down, and where nothing is left of it, text[-0:] is the whole text": lambda text, percent: [
            text[: -(len(text) * percent // 100)],
            text[-(len(text) * percent // 100) :],
        ],
        "one character stands in both texts": lambda text, percent: [
            text[: len(text) * (100 - percent) // 100],
            text[max(len(text) * (100 - percent) // 100 - 1, 0) :],
        ],
        "one character, at the cut, is in neither text": lambda text, percent: [
            text[: len(text) * (100 - percent) // 100],
            text[len(text) * (100 - percent) // 100 + 1 :],
        ],
        "the last character, before the cut, is in neither text": lambda text, percent: [
            text[: max(len(text) * (100 - percent) // 100 - 1, 0)],
            text[len(text) * (100 - percent) // 100 :],
        ],
        "the validation text has `percent` characters, not `percent` per cent of them": lambda text, percent: [
            text[:-percent],
            text[-percent:],
        ],
        "`percent` per cent are for training there; they are for validation": lambda text, percent: (
            train_val_split_at(text, len(text) * percent // 100)
        ),
        "`percent` is used as a share: 10 per cent are 10 / 100 of the text": lambda text, percent: (
            train_val_split_at(text, int(len(text) * (1 - percent)))
        ),
        "`percent` is used as a share, and for training: 10 per cent are 10 / 100 of the text, for validation": lambda text, percent: (
            train_val_split_at(text, len(text) * percent)
        ),
        "1 - percent / 100 is not exact in a computer: compute with whole numbers, and divide last": lambda text, percent: (
            train_val_split_at(text, int(len(text) * (1 - percent / 100)))
        ),
        "(100 - percent) / 100 is not exact in a computer: multiply first, and divide last": lambda text, percent: (
            train_val_split_at(text, int(len(text) * ((100 - percent) / 100)))
        ),
        "percent / 100 is not exact in a computer: multiply first, and divide last": lambda text, percent: (
            train_val_split_at(text, len(text) - math.ceil(len(text) * (percent / 100)))
        ),
        ### END SOLUTION
    },
)


def batch_windows_case(draw, T, B):
    ids = draw.ids(90, 2 * T + draw.integer(2, 20))
    starts = draw.ids(len(ids) - T - 1, B)  # not the last one
    return [ids, starts, T]


exercise(
    batch_windows,
    stars=2,
    minutes=5,
    cases=lambda draw: [
        batch_windows_case(draw, draw.integer(4, 9), draw.integer(3, 6)),
        batch_windows_case(draw, 1, 3),
        batch_windows_case(draw, draw.integer(2, 5), 1),
        [draw.ids(90, 6), torch.tensor([0, 0]), 5],
        [draw.ids(90, 12), torch.tensor([7, 0, 3]), 4],
    ],
    wrong={
        ### BEGIN SOLUTION
        "the targets are the inputs themselves: move them by one": lambda ids, starts, T: (
            [ids[starts[:, None] + torch.arange(T)]] * 2
        ),
        "the bug is still there: the last target of a window is its own first character": lambda ids, starts, T: [
            ids[starts[:, None] + torch.arange(T)],
            ids[starts[:, None] + torch.arange(T)].roll(-1, dims=1),
        ],
        "the last target of a window is the first character of the next window in the batch": lambda ids, starts, T: [
            ids[starts[:, None] + torch.arange(T)],
            ids[starts[:, None] + torch.arange(T)].roll(-1),
        ],
        "x and y have T - 1 columns: a window with its last target is T + 1 ids long": lambda ids, starts, T: [
            ids[starts[:, None] + torch.arange(T)][:, :-1],
            ids[starts[:, None] + torch.arange(T)][:, 1:],
        ],
        "starts is a row, (B,), and a row plus a row is no table: starts[:, None] makes it a column": lambda ids, starts, T: [
            ids[starts + torch.arange(T)],
            ids[starts + torch.arange(T) + 1],
        ],
        "starts is a row, (B,), and has to be a column before T + 1 places are added: starts[:, None]": lambda ids, starts, T: [
            ids[starts + torch.arange(T + 1)][:, :-1],
            ids[starts + torch.arange(T + 1)][:, 1:],
        ],
        "y has T - 1 columns: a slice ends before its end, so y needs one id more than [start + 1 : start + T]": lambda ids, starts, T: [
            ids[starts[:, None] + torch.arange(T)],
            ids[starts[:, None] + torch.arange(1, T)],
        ],
        "x and y are exchanged": lambda ids, starts, T: [
            ids[starts[:, None] + torch.arange(T) + 1],
            ids[starts[:, None] + torch.arange(T)],
        ],
        ### END SOLUTION
    },
    signs={
        "the targets are moved by two, not by one": lambda got, want, ids, starts, T: torch.equal(
            got[1], ids[starts[:, None] + torch.arange(T) + 2]
        ),
        "the targets are moved the wrong way: they stand before x, not after it": lambda got, want, ids, starts, T: (
            T > 2 and torch.equal(got[1][:, 1:], want[0][:, :-1])
        ),
        "the windows do not begin at their starts, but at 0, T, 2T ...": lambda got, want, ids, starts, T: (
            torch.equal(got[0].flatten(), ids[: len(starts) * T])
        ),
        "only the last target of each window is wrong: it must come from the text, not from the window": lambda got, want, ids, starts, T: (
            T > 1 and torch.equal(got[0], want[0]) and torch.equal(got[1][:, :-1], want[1][:, :-1])
        ),
    },
)


exercise(
    uniform_loss,
    stars=1,
    minutes=2,
    cases=lambda draw: (
        [
            [V, ruled_out]
            for V in [draw.integer(12, 40), draw.integer(41, 300), draw.integer(1000, 5000)]
            for ruled_out in (draw.integer(2, V - 3), 0)
        ]
        + [[7, 6]]
    ),
    wrong={
        ### BEGIN SOLUTION
        "`ruled_out` is not used: only V - ruled_out symbols can still come": lambda V, ruled_out: (
            math.log(V)
        ),
        "that is the probability of each symbol; its price is minus its logarithm": lambda V, ruled_out: (
            1 / (V - ruled_out)
        ),
        "that is how many symbols are left; the price is minus the logarithm of the probability of one": lambda V, ruled_out: (
            V - ruled_out
        ),
        "that is the price of not being ruled out; asked is the price of one symbol among those left": lambda V, ruled_out: (
            -math.log((V - ruled_out) / V)
        ),
        "these are bits: nats use the natural logarithm": lambda V, ruled_out: math.log2(
            V - ruled_out
        ),
        "that is the logarithm to the base 10: nats use the natural one": lambda V, ruled_out: (
            math.log10(V - ruled_out)
        ),
        ### END SOLUTION
    },
    signs={
        "the sign is wrong: a probability is below 1, its logarithm below 0, and a price above": lambda got, want, *args: (
            math.isclose(got, -want, rel_tol=1e-4)
        ),
        "ln V - ln(ruled_out) is the logarithm of a quotient: subtract before the logarithm": lambda got, want, V, ruled_out: (
            math.isclose(got, math.log(V / ruled_out), rel_tol=1e-4)
        ),
    },
)


exercise(
    character_entropy,
    stars=2,
    minutes=6,
    cases=lambda draw: [
        *(
            [
                " aA"
                + draw.text(draw.integer(20, 90), "aaaaaAbbbcd\n é")
                + "o" * draw.integer(15, 30)
                + "\n "
            ]
            for _ in range(3)
        ),
        ["\n" + draw.text(draw.integer(6, 12)) + draw.text(draw.integer(5, 9), "xyzzz") + "XyY "],
        [draw.text(1)],
        [draw.text(1) * draw.integer(2, 9)],
    ],
    wrong={
        ### BEGIN SOLUTION
        "all symbols count alike: each price has to be weighted with the share of its character": lambda text: (
            -sum(math.log(text.count(c) / len(text)) for c in set(text)) / len(set(text))
        ),
        "the prices are added without weights: each one times the share of its character": lambda text: (
            -sum(math.log(text.count(c) / len(text)) for c in set(text))
        ),
        "these are counts, not shares: divide by the length of the text first": lambda text: (
            -sum(text.count(c) * math.log(text.count(c)) for c in set(text))
        ),
        "the counts are divided by the number of different characters, not by the length of the text": lambda text: (
            -sum(
                text.count(c) / len(set(text)) * math.log(text.count(c) / len(set(text)))
                for c in set(text)
            )
        ),
        "that is the price of the whole text: divide by its length": lambda text: (
            -sum(text.count(c) * math.log(text.count(c) / len(text)) for c in set(text))
        ),
        "the sum runs over the text, so a character counts once for each time it occurs": lambda text: (
            -sum(text.count(c) / len(text) * math.log(text.count(c) / len(text)) for c in text)
        ),
        "that is ln of the number of different characters: it would be right if all were equally frequent": lambda text: (
            math.log(len(set(text)))
        ),
        "capital letters are made small, and `A` is another character than `a`": lambda text: (
            character_entropy(text.lower())
        ),
        "spaces and line ends at the ends of the text are cut off; they are characters too": lambda text: (
            character_entropy(text.strip() or " ")
        ),
        "spaces are left out, and they are characters too": lambda text: character_entropy(
            text.replace(" ", "") or " "
        ),
        ### END SOLUTION
    },
    signs={
        "it is not a number: 0 · ln 0 is nan, so only characters that occur may give a term": lambda got, want, text: (
            got != got
        ),
        "the sign is wrong: an entropy is never below 0": lambda got, want, text: math.isclose(
            got, -want, rel_tol=1e-3
        ),
        "these are bits: nats use the natural logarithm": lambda got, want, text: math.isclose(
            got * math.log(2), want, rel_tol=1e-3
        ),
        "that is the logarithm to the base 10: nats use the natural one": lambda got, want, text: (
            math.isclose(got * math.log(10), want, rel_tol=1e-3)
        ),
    },
)


### BEGIN SOLUTION
def merge_pairs_variant(
    ids,
    V,
    merges,
    count=lambda ids: Counter(zip(ids, ids[1:])),
    most=max,
    choose=min,
    first=None,
    step=1,
    once=False,
    fits=tuple.__eq__,
    way=1,
    uses=2,
    hits=math.inf,
    last=True,
    needs=1,
    empty=None,
):
    """The same with one thing changed: a mistake for each."""
    new, counts = first(ids, V) if first else V, count(ids)
    for _ in range(merges):
        counts = counts if once else count(ids)
        if empty and not counts:
            raise empty
        frequent = most(counts.values(), default=0)
        if frequent < needs:
            break
        best = choose(pair for pair in counts if counts[pair] == frequent)
        counts = {pair: n for pair, n in counts.items() if pair != best}
        source, merged, done = ids[::way], [], 0
        while source and (last or len(source) > 1):
            hit = done < hits and fits(tuple(source[:2]), best[::way])
            merged.append(new if hit else source[0])
            source, done = source[uses if hit else 1 :], done + hit
        ids, new = merged[::way], new + step
    return ids


def merge_pairs_apart(ids):
    """The pairs as str.count counts: of `a a a` only one is `aa`."""
    return {
        pair: merge_pairs_variant(ids, -1, 1, count=lambda ids: {pair: 1}).count(-1)
        for pair in zip(ids, ids[1:])
    }


### END SOLUTION


def merge_pairs_ties(draw):
    """Different ids: all pairs are equally frequent; the first, the smallest, the largest and the one with the smallest
    second id are four pairs."""
    ids = sorted(draw.random.sample(range(20), 6))
    return [[ids[place] for place in (3, 5, 4, 0, 2, 1)], draw.integer(30, 40), draw.integer(2, 3)]


def merge_pairs_run(draw):
    """Five ids a in a row, which are four pairs, or two that do not overlap; b c three times; and b at the end."""
    a, b, c, d, e = draw.random.sample(range(20), 5)
    return [[a] * 5 + [b, c, d, b, c, e, b, c, b], draw.integer(30, 40), 2]


exercise(
    merge_pairs,
    stars=3,
    minutes=25,
    cases=lambda draw: [
        [[draw.integer(0, 8)] * 7, 10, 2],
        merge_pairs_ties(draw),
        merge_pairs_run(draw),
        [draw.ids(4, draw.integer(25, 40)).tolist(), draw.integer(6, 20), draw.integer(3, 5)],
        [draw.ids(3, draw.integer(15, 25)).tolist(), draw.integer(6, 20), draw.integer(3, 5)],
        [[draw.integer(0, 5)], 6, 2],
        [draw.ids(4, 12).tolist(), 5, 0],
        [draw.ids(3, 4).tolist(), 7, 6],
    ],
    wrong={
        ### BEGIN SOLUTION
        "the second id of a merged pair is still there: it is used up": lambda *args: (
            merge_pairs_variant(*args, uses=1)
        ),
        "the pairs are counted only once: after each merge count anew": lambda *args: (
            merge_pairs_variant(*args, once=True)
        ),
        "among equally frequent pairs the first in the list is taken, not the smallest": lambda *args: (
            merge_pairs_variant(*args, choose=lambda pairs: next(iter(pairs)))
        ),
        "among equally frequent pairs the largest is taken, not the smallest": lambda *args: (
            merge_pairs_variant(*args, choose=max)
        ),
        "among equally frequent pairs the second id decides; the first id decides, the second only after it": lambda *args: (
            merge_pairs_variant(*args, choose=lambda pairs: min(pairs, key=lambda pair: pair[::-1]))
        ),
        "every merge makes the same new id: the second makes vocab_size + 1": lambda *args: (
            merge_pairs_variant(*args, step=0)
        ),
        "the first new id is vocab_size + 1, and ids below vocab_size are taken: vocab_size is free": lambda *args: (
            merge_pairs_variant(*args, first=lambda ids, V: V + 1)
        ),
        "the new ids begin after the largest id in the list; they begin at vocab_size": lambda *args: (
            merge_pairs_variant(*args, first=lambda ids, V: max(ids) + 1)
        ),
        "the merging goes from right to left: of `a a a` the first two are merged": lambda *args: (
            merge_pairs_variant(*args, way=-1)
        ),
        "one merge is done, whatever `merges` says": lambda ids, V, merges: merge_pairs_variant(
            ids, V, 1
        ),
        "a pair that occurs once is not merged, and should be": lambda *args: merge_pairs_variant(
            *args, needs=2
        ),
        "pairs that overlap are not all counted: in `a a a` the pair `aa` occurs twice": lambda *args: (
            merge_pairs_variant(*args, count=merge_pairs_apart)
        ),
        "the list is counted in blocks of two; each id but the last begins a pair": lambda *args: (
            merge_pairs_variant(*args, count=lambda ids: Counter(zip(ids[::2], ids[1::2])))
        ),
        "the least frequent pair is merged, not the most frequent": lambda *args: (
            merge_pairs_variant(*args, most=min)
        ),
        "the last id of the list is lost when it belongs to no merged pair": lambda *args: (
            merge_pairs_variant(*args, last=False)
        ),
        "a merge puts the new symbol in one place only: it belongs wherever the pair stands": lambda *args: (
            merge_pairs_variant(*args, hits=1)
        ),
        "`a b` and `b a` are taken for the same pair, and they are two": lambda *args: (
            merge_pairs_variant(
                *args,
                count=lambda ids: Counter(tuple(sorted(pair)) for pair in zip(ids, ids[1:])),
                fits=lambda two, best: tuple(sorted(two)) == best,
            )
        ),
        "the last id of the list is half of the pair, and is replaced: nothing follows it, so it stays": lambda *args: (
            merge_pairs_variant(*args, fits=lambda two, best: two == best[: len(two)])
        ),
        "a list of fewer than two ids has no pair, and the largest or smallest of nothing is a ValueError": lambda *args: (
            merge_pairs_variant(*args, empty=ValueError)
        ),
        "a list of fewer than two ids has no pair, so there is no first one: an IndexError": lambda *args: (
            merge_pairs_variant(*args, empty=IndexError)
        ),
        ### END SOLUTION
    },
)
