"""How the exercises of lesson 00 are judged: cases, symptoms, mistakes."""

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

# ---------------------------------------------------------------- train_val_split


def train_val_split_case(draw):
    """A length and a percentage that do not come out even, so that rounding shows."""
    length = 20 * draw.integer(3, 9) + draw.choice([1, 3, 7, 9, 11, 13, 17, 19])
    return [draw.text(length), 5 * draw.integer(1, 6)]


def train_val_split_cases(draw):
    cases = [
        [draw.text(37), 10],
        train_val_split_case(draw),
        train_val_split_case(draw),
        [draw.text(5), 10],
        [draw.text(10 * draw.integer(2, 9) + 1), 10],
        [draw.text(draw.integer(1, 3)), draw.integer(70, 99)],
    ]
    # with these, (a fraction of 1) * (the length) falls just below a whole number, or just above it
    for inexact in (
        [(20, 80), (25, 68), (30, 90)],
        [(25, 28), (50, 14), (75, 56)],
        [(50, 42), (90, 30), (100, 43), (100, 71)],
    ):
        length, percent = draw.choice(inexact)
        cases.append([draw.text(length), percent])
    return cases


TRAIN_VAL_SPLIT = exercise(train_val_split, stars=1, minutes=5, cases=train_val_split_cases)


### BEGIN SOLUTION
@TRAIN_VAL_SPLIT.mistake("the first part is kept for validation: it should be the last part")
def train_val_split_first_part(text, percent):
    cut = math.ceil(len(text) * percent / 100)
    return [text[cut:], text[:cut]]


@TRAIN_VAL_SPLIT.mistake("the order is wrong: first the training text, then the validation text")
def train_val_split_exchanged(text, percent):
    cut = len(text) * (100 - percent) // 100
    return [text[cut:], text[:cut]]


@TRAIN_VAL_SPLIT.mistake(
    "the training text is rounded up: round it down, and the validation text gets the rest"
)
def train_val_split_rounded_up(text, percent):
    cut = len(text) - len(text) * percent // 100
    return [text[:cut], text[cut:]]


@TRAIN_VAL_SPLIT.mistake(
    "a validation text that is rounded down may be empty, and then text[-0:] is the whole text"
)
def train_val_split_negative_slice(text, percent):
    n = len(text) * percent // 100
    return [text[:-n], text[-n:]]


@TRAIN_VAL_SPLIT.mistake("`percent` per cent are used for training: they are for validation")
def train_val_split_percent_for_training(text, percent):
    cut = len(text) * percent // 100
    return [text[:cut], text[cut:]]


@TRAIN_VAL_SPLIT.mistake(
    "1 - percent / 100 is not exact in floating point: use whole numbers, and divide last"
)
def train_val_split_inexact(text, percent):
    cut = int(len(text) * (1 - percent / 100))
    return [text[:cut], text[cut:]]


### END SOLUTION


# ---------------------------------------------------------------- batch_windows


def batch_windows_case(draw, T, B):
    ids = draw.ids(90, 2 * T + draw.integer(2, 20))
    starts = draw.ids(len(ids) - T - 1, B)  # not the last possible one
    return [ids, starts, T]


def batch_windows_cases(draw):
    return [
        batch_windows_case(draw, draw.integer(4, 9), draw.integer(3, 6)),
        batch_windows_case(draw, 1, 3),
        batch_windows_case(draw, draw.integer(2, 5), 1),
        [draw.ids(90, 6), torch.tensor([0, 0]), 5],
        [draw.ids(90, 12), torch.tensor([7, 0, 3]), 4],
    ]


BATCH_WINDOWS = exercise(batch_windows, stars=2, minutes=5, cases=batch_windows_cases)


@BATCH_WINDOWS.symptom("the targets are shifted the wrong way: a target is the id after its input")
def batch_windows_shifted_back(got, want, ids, starts, T):
    inputs_right = torch.equal(got[0], want[0])
    return T > 2 and inputs_right and torch.equal(got[1][:, 1:], want[0][:, :-1])


@BATCH_WINDOWS.symptom(
    "only the last target of each window is wrong: take it from the text, after the window"
)
def batch_windows_last_target(got, want, ids, starts, T):
    inputs_right = torch.equal(got[0], want[0])
    return T > 2 and inputs_right and torch.equal(got[1][:, :-1], want[1][:, :-1])


### BEGIN SOLUTION
@BATCH_WINDOWS.mistake("the targets are the inputs themselves: shift them by one")
def batch_windows_not_shifted(ids, starts, T):
    x = ids[starts[:, None] + torch.arange(T)]
    return [x, x]


@BATCH_WINDOWS.mistake(
    "the bug is still there: the last target of a window is the window's own first character"
)
def batch_windows_rolled(ids, starts, T):
    x = ids[starts[:, None] + torch.arange(T)]
    return [x, x.roll(-1, dims=1)]


@BATCH_WINDOWS.mistake(
    "x and y have T - 1 columns: a window with its last target is T + 1 ids long"
)
def batch_windows_too_short(ids, starts, T):
    windows = ids[starts[:, None] + torch.arange(T)]
    return [windows[:, :-1], windows[:, 1:]]


@BATCH_WINDOWS.mistake(
    "starts has the shape (B,): starts[:, None] is a column, and a column plus a row is a table"
)
def batch_windows_no_column(ids, starts, T):
    positions = starts + torch.arange(T)
    return [ids[positions], ids[positions + 1]]


### END SOLUTION


# ---------------------------------------------------------------- uniform_loss


def uniform_loss_cases(draw):
    cases = []
    for V in (draw.integer(12, 40), draw.integer(41, 300), draw.integer(1000, 5000)):
        cases.append([V, draw.integer(2, V - 3)])
        cases.append([V, 0])
    cases.append([7, 6])
    return cases


UNIFORM_LOSS = exercise(uniform_loss, stars=1, minutes=2, cases=uniform_loss_cases)


@UNIFORM_LOSS.symptom("the sign is wrong: the logarithm of a probability is below 0, a loss above")
def uniform_loss_sign(got, want, V, ruled_out):
    return math.isclose(got, -want, rel_tol=1e-4)


@UNIFORM_LOSS.symptom(
    "ln V - ln(ruled_out) is the logarithm of a quotient: subtract first, then take the logarithm"
)
def uniform_loss_quotient(got, want, V, ruled_out):
    return math.isclose(got, math.log(V / ruled_out), rel_tol=1e-4)


### BEGIN SOLUTION
@UNIFORM_LOSS.mistake("`ruled_out` is not used: only V - ruled_out symbols can still come")
def uniform_loss_of_all(V, ruled_out):
    return math.log(V)


@UNIFORM_LOSS.mistake("that is the probability of each symbol: the loss is minus its logarithm")
def uniform_loss_probability(V, ruled_out):
    return 1 / (V - ruled_out)


@UNIFORM_LOSS.mistake(
    "that is the number of symbols left: the loss is minus the logarithm of the probability of one"
)
def uniform_loss_count(V, ruled_out):
    return V - ruled_out


@UNIFORM_LOSS.mistake("that is in bits: nats use the natural logarithm")
def uniform_loss_bits(V, ruled_out):
    return math.log2(V - ruled_out)


### END SOLUTION


# ---------------------------------------------------------------- character_entropy


def character_entropy_case(draw):
    """Small and capital letters, unevenly frequent, with spaces and line ends at both ends."""
    middle = draw.text(draw.integer(20, 90), "aaaaaAbbbcd\n é")
    return [" aA" + middle + "o" * draw.integer(15, 30) + "\n "]


def character_entropy_cases(draw):
    cases = [character_entropy_case(draw) for _ in range(3)]
    few = draw.text(draw.integer(6, 12))
    more = draw.text(draw.integer(5, 9), "xyzzz")
    cases.append(["\n" + few + more + "XyY "])
    cases.append([draw.text(1)])
    cases.append([draw.text(1) * draw.integer(2, 9)])
    return cases


CHARACTER_ENTROPY = exercise(character_entropy, stars=2, minutes=6, cases=character_entropy_cases)


@CHARACTER_ENTROPY.symptom("nan: 0 · ln 0 is not a number, so sum only over characters that occur")
def character_entropy_nan(got, want, text):
    return math.isnan(got)


@CHARACTER_ENTROPY.symptom("the sign is wrong: an entropy is never below 0")
def character_entropy_sign(got, want, text):
    return math.isclose(got, -want, rel_tol=1e-4)


@CHARACTER_ENTROPY.symptom("that is in bits: nats use the natural logarithm")
def character_entropy_bits(got, want, text):
    return math.isclose(got * math.log(2), want, rel_tol=1e-4)


### BEGIN SOLUTION
@CHARACTER_ENTROPY.mistake(
    "the logarithms are summed without weights: multiply each by the share of its character"
)
def character_entropy_unweighted(text):
    total = 0.0
    for char in set(text):
        total -= math.log(text.count(char) / len(text))
    return total


@CHARACTER_ENTROPY.mistake("these are counts, not shares: divide them by the length of the text")
def character_entropy_of_counts(text):
    total = 0.0
    for char in set(text):
        count = text.count(char)
        total -= count * math.log(count)
    return total


@CHARACTER_ENTROPY.mistake(
    "the sum runs over the text, so a character counts once for each time it occurs"
)
def character_entropy_over_the_text(text):
    total = 0.0
    for char in text:
        share = text.count(char) / len(text)
        total -= share * math.log(share)
    return total


### END SOLUTION


# ---------------------------------------------------------------- merge_pairs


def merge_pairs_ties(draw):
    """Different ids, so all pairs are equally frequent.

    The first, the smallest, the largest and the one with the smallest second id are four pairs.
    """
    ids = sorted(draw.random.sample(range(20), 6))
    shuffled = [ids[place] for place in (3, 5, 4, 0, 2, 1)]
    return [shuffled, draw.integer(30, 40), draw.integer(2, 3)]


def merge_pairs_run(draw):
    """Five times a (four pairs, or two that do not overlap), three times b c, and b at the end."""
    a, b, c, d, e = draw.random.sample(range(20), 5)
    return [[a] * 5 + [b, c, d, b, c, e, b, c, b], draw.integer(30, 40), 2]


def merge_pairs_cases(draw):
    return [
        [[draw.integer(0, 8)] * 7, 10, 2],
        merge_pairs_ties(draw),
        merge_pairs_run(draw),
        [draw.ids(4, draw.integer(25, 40)).tolist(), draw.integer(6, 20), draw.integer(3, 5)],
        [draw.ids(3, draw.integer(15, 25)).tolist(), draw.integer(6, 20), draw.integer(3, 5)],
        [[draw.integer(0, 5)], 6, 2],
        [draw.ids(4, 12).tolist(), 5, 0],
        [draw.ids(3, 4).tolist(), 7, 6],
    ]


MERGE_PAIRS = exercise(merge_pairs, stars=3, minutes=25, cases=merge_pairs_cases)


### BEGIN SOLUTION
def merge_pairs_best(counts):
    """The most frequent pair, the smallest where several are; None where there is no pair."""
    if not counts:
        return None
    highest = max(counts.values())
    return min(pair for pair in counts if counts[pair] == highest)


def merge_pairs_replaced(ids, pair, new):
    """The ids with `new` wherever the pair stands, from left to right."""
    merged = []
    i = 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@MERGE_PAIRS.mistake("the second id of a merged pair is still there: the new id replaces both")
def merge_pairs_second_id_stays(ids, vocab_size, merges):
    for new in range(vocab_size, vocab_size + merges):
        pairs = list(zip(ids, ids[1:]))
        best = merge_pairs_best(Counter(pairs))
        merged = [new if pair == best else pair[0] for pair in pairs]
        ids = merged + ids[-1:]
    return ids


@MERGE_PAIRS.mistake("the pairs are counted only once: count them again after each merge")
def merge_pairs_counted_once(ids, vocab_size, merges):
    counts = Counter(zip(ids, ids[1:]))
    for new in range(vocab_size, vocab_size + merges):
        best = merge_pairs_best(counts)
        counts.pop(best, None)
        ids = merge_pairs_replaced(ids, best, new)
    return ids


@MERGE_PAIRS.mistake(
    "among equally frequent pairs the first in the list is taken: take the smallest pair"
)
def merge_pairs_first_of_equals(ids, vocab_size, merges):
    for new in range(vocab_size, vocab_size + merges):
        counts = Counter(zip(ids, ids[1:]))
        best = max(counts, key=counts.get, default=None)
        ids = merge_pairs_replaced(ids, best, new)
    return ids


@MERGE_PAIRS.mistake(
    "the first new id is vocab_size + 1: ids end at vocab_size - 1, so vocab_size is free"
)
def merge_pairs_new_ids_too_high(ids, vocab_size, merges):
    for new in range(vocab_size + 1, vocab_size + merges + 1):
        best = merge_pairs_best(Counter(zip(ids, ids[1:])))
        ids = merge_pairs_replaced(ids, best, new)
    return ids


@MERGE_PAIRS.mistake(
    "pairs that overlap are not all counted: in `a a a` the pair `a a` occurs twice"
)
def merge_pairs_without_overlap(ids, vocab_size, merges):
    for new in range(vocab_size, vocab_size + merges):
        counts = Counter()
        last_counted = {}
        for i, pair in enumerate(zip(ids, ids[1:])):
            if last_counted.get(pair) != i - 1:
                counts[pair] += 1
                last_counted[pair] = i
        ids = merge_pairs_replaced(ids, merge_pairs_best(counts), new)
    return ids


@MERGE_PAIRS.mistake(
    "a list of fewer than two ids has no pair: max and min of nothing raise a ValueError"
)
def merge_pairs_no_pair_left(ids, vocab_size, merges):
    for new in range(vocab_size, vocab_size + merges):
        counts = Counter(zip(ids, ids[1:]))
        highest = max(counts.values())
        best = min(pair for pair in counts if counts[pair] == highest)
        ids = merge_pairs_replaced(ids, best, new)
    return ids


### END SOLUTION
