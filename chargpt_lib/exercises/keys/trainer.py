"""How the exercises of lesson 11 are judged: cases, mistakes, symptoms."""

import math

import torch
from torch.nn import functional as F

from chargpt_lib.exercises.answers.trainer import (
    accumulated_loss,
    early_stopping,
    loss_at_init,
    targets_ahead,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- accumulated_loss


def accumulated_loss_case(draw, V, *parts, dtype=torch.float32):
    """parts: (B, T, characters) of each part; a part's other targets are -100."""
    logits = []
    targets = []
    for B, T, characters in parts:
        wanted = draw.ids(V, B * T)
        places = torch.randperm(B * T, generator=draw.generator)
        wanted[places[characters:]] = -100
        logits.append(2 * draw.normal(B, T, V, dtype=dtype))
        targets.append(wanted.view(B, T))
    return [logits, targets]


def accumulated_loss_cases(draw):
    three_parts = [(1, 6, 5), (2, 5, draw.integer(2, 3)), (3, 2, 1)]
    return [
        accumulated_loss_case(draw, 5, (2, 4, 7), (1, 3, 1)),
        accumulated_loss_case(draw, 7, *three_parts, dtype=torch.float64),
        # Parts of one shape, with different numbers of characters.
        accumulated_loss_case(draw, draw.integer(3, 9), (2, 4, 8), (2, 4, 2)),
        # A part without any character.
        accumulated_loss_case(draw, 6, (1, 3, 2), (2, 2, 0), (3, 3, 7)),
        accumulated_loss_case(draw, 4, (1, 1, 1)),
        accumulated_loss_case(draw, 5, (1, 4, 2), (1, 4, 2)),
    ]


ACCUMULATED_LOSS = exercise(accumulated_loss, stars=2, minutes=7, cases=accumulated_loss_cases)


### BEGIN SOLUTION
def accumulated_loss_of(part, wanted, reduction="mean"):
    """The loss of one part."""
    return F.cross_entropy(part.flatten(0, 1), wanted.flatten(), reduction=reduction)


@ACCUMULATED_LOSS.mistake(
    "nothing is mended yet: each part still weighs the same, however few characters it has"
)
def accumulated_loss_parts_alike(logits, targets):
    total = 0.0
    for part, wanted in zip(logits, targets):
        total = total + accumulated_loss_of(part, wanted)
    return total / len(targets)


@ACCUMULATED_LOSS.mistake(
    "the sum is divided by all positions; where the target is -100, there is no character to count"
)
def accumulated_loss_by_positions(logits, targets):
    total = 0.0
    positions = 0
    for part, wanted in zip(logits, targets):
        total = total + accumulated_loss_of(part, wanted, reduction="sum")
        positions += wanted.numel()
    return total / positions


@ACCUMULATED_LOSS.mistake(
    "a part weighs as much as it has positions; those with the target -100 do not count"
)
def accumulated_loss_weighted_by_positions(logits, targets):
    total = 0.0
    positions = 0
    for part, wanted in zip(logits, targets):
        total = total + accumulated_loss_of(part, wanted) * wanted.numel()
        positions += wanted.numel()
    return total / positions


@ACCUMULATED_LOSS.mistake(
    "the weights are right, but the mean over no characters is nan, and 0 times nan is nan"
)
def accumulated_loss_nan_of_an_empty_part(logits, targets):
    total = 0.0
    characters = 0
    for part, wanted in zip(logits, targets):
        count = (wanted != -100).sum()
        total = total + accumulated_loss_of(part, wanted) * count
        characters += count
    return total / characters


@ACCUMULATED_LOSS.mistake("that is the sum over the characters; their mean is asked for")
def accumulated_loss_not_divided(logits, targets):
    total = 0.0
    for part, wanted in zip(logits, targets):
        total = total + accumulated_loss_of(part, wanted, reduction="sum")
    return total


@ACCUMULATED_LOSS.mistake(
    "the sum over all characters is divided by the number of parts, not of characters"
)
def accumulated_loss_divided_by_parts(logits, targets):
    total = 0.0
    for part, wanted in zip(logits, targets):
        total = total + accumulated_loss_of(part, wanted, reduction="sum")
    return total / len(targets)


### END SOLUTION


# ---------------------------------------------------------------- early_stopping


def early_stopping_case(draw, patience, *tenths):
    """tenths: the losses, in tenths, above or below a first loss of 3 to 5."""
    start = draw.integer(30, 50)
    return [[(start + change) / 10 for change in tenths], patience]


def early_stopping_cases(draw):
    never_seen = draw.integer(-9, -6)
    late_losses = [-draw.integer(6, 9) for _ in range(3)]
    random_losses = [-draw.integer(0, 9) for _ in range(12)]
    return [
        early_stopping_case(draw, 2, 0, -4, -3, -5, -4, -3, never_seen),
        # It falls again, but not below its best.
        early_stopping_case(draw, 3, 0, -6, -2, -3, -5, -4, -1, -8),
        # Every second evaluation brings a new least loss.
        early_stopping_case(draw, 2, 0, 2, -3, -1, -4, 1, -5, *late_losses),
        # Equal losses.
        early_stopping_case(draw, 2, 0, -5, -5, -5, -9),
        early_stopping_case(draw, 1, 0, draw.integer(1, 4), -7),
        # The list ends before the patience does.
        early_stopping_case(draw, 5, 0, -2, draw.integer(-1, 3)),
        early_stopping_case(draw, 1, 0),
        early_stopping_case(draw, draw.integer(2, 4), *random_losses),
    ]


EARLY_STOPPING = exercise(early_stopping, stars=1, minutes=5, cases=early_stopping_cases)


### BEGIN SOLUTION
@EARLY_STOPPING.mistake("a loss is compared with the one before it, not with the least so far")
def early_stopping_compares_with_the_last(losses, patience):
    best = 0
    waited = 0
    for i in range(1, len(losses)):
        if losses[i] < losses[best]:
            best = i
        if losses[i] < losses[i - 1]:
            waited = 0
        else:
            waited += 1
        if waited == patience:
            return [i + 1, best + 1]
    return [len(losses), best + 1]


@EARLY_STOPPING.mistake("an equal loss is taken for a new least one; only a smaller one is new")
def early_stopping_equal_is_new(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss <= losses[best]:
            best = i
        elif i - best >= patience:
            return [i + 1, best + 1]
    return [len(losses), best + 1]


@EARLY_STOPPING.mistake(
    "one evaluation too many: the run ends after the `patience`-th without a new least loss"
)
def early_stopping_one_too_many(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        elif i - best > patience:
            return [i + 1, best + 1]
    return [len(losses), best + 1]


@EARLY_STOPPING.mistake(
    "evaluations without a new least loss are counted in all; a new least loss sets the count back "
    "to 0"
)
def early_stopping_counts_in_all(losses, patience):
    best = 0
    waited = 0
    for i in range(1, len(losses)):
        if losses[i] < losses[best]:
            best = i
        else:
            waited += 1
        if waited == patience:
            return [i + 1, best + 1]
    return [len(losses), best + 1]


@EARLY_STOPPING.mistake(
    "the best is taken from the whole list; what comes after the end of the run is never measured"
)
def early_stopping_looks_ahead(losses, patience):
    made = early_stopping(losses, patience)[0]
    best = losses.index(min(losses))
    return [made, best + 1]


@EARLY_STOPPING.mistake("both numbers are counted from 0 here; count them from 1")
def early_stopping_from_0(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        elif i - best >= patience:
            return [i, best]
    return [len(losses) - 1, best]


### END SOLUTION


# ---------------------------------------------------------------- loss_at_init


### BEGIN SOLUTION
def loss_at_init_case(draw, V, C):
    """A standard deviation with which s is from 0.7 to 1."""
    return [V, C, draw.number(0.7, 1.0) / math.sqrt(C)]


### END SOLUTION


def loss_at_init_cases(draw):
    return [
        loss_at_init_case(draw, draw.integer(30, 90), draw.choice([16, 48, 64])),
        loss_at_init_case(draw, draw.integer(100, 300), draw.integer(100, 500)),
        [draw.integer(1000, 9000), 4, draw.number(0.3, 0.5)],
        [draw.integer(50, 90), 1, draw.number(0.5, 1.0)],
        # All logits are 0.
        [draw.integer(30, 90), draw.integer(16, 64), 0.0],
        [draw.integer(20, 90), 9, draw.number(0.2, 0.3)],
    ]


LOSS_AT_INIT = exercise(loss_at_init, stars=2, minutes=8, cases=loss_at_init_cases)


### BEGIN SOLUTION
@LOSS_AT_INIT.mistake("that is the loss where all logits are 0; here they differ, and that costs")
def loss_at_init_without_noise(V, C, std):
    return math.log(V)


@LOSS_AT_INIT.mistake("the exponent is half the square of s: the half is missing")
def loss_at_init_without_half(V, C, std):
    variance = C * std**2
    return math.log(V) + variance


@LOSS_AT_INIT.mistake("variances add up, standard deviations do not: s is not C times std")
def loss_at_init_adds_deviations(V, C, std):
    s = C * std
    return math.log(V) + s**2 / 2


@LOSS_AT_INIT.mistake("a logit is a sum of C products: its standard deviation is larger than std")
def loss_at_init_of_one_product(V, C, std):
    s = std
    return math.log(V) + s**2 / 2


@LOSS_AT_INIT.mistake("the noise makes the loss larger, not smaller")
def loss_at_init_subtracts(V, C, std):
    s = math.sqrt(C) * std
    return math.log(V) - s**2 / 2


@LOSS_AT_INIT.mistake("s / 2 is added here: the square is missing")
def loss_at_init_without_square(V, C, std):
    s = math.sqrt(C) * std
    return math.log(V) + s / 2


### END SOLUTION


# ---------------------------------------------------------------- targets_ahead


def targets_ahead_case(draw, V, B, T, *ks):
    """Windows whose targets are ahead by the first k; those of the last window by the last k."""
    windows = draw.ids(V, B, T + max(ks))
    # No window repeats itself from its beginning on.
    windows[:, 0] = V
    windows[:, 1] = V + 1
    targets = [window[ks[0] : ks[0] + T] for window in windows]
    targets[-1] = windows[-1, ks[-1] : ks[-1] + T]
    return [windows[:, :T].clone(), torch.stack(targets)]


def targets_ahead_rolled(draw):
    """The first character of each window is its last target."""
    first = torch.arange(9, 12)[:, None]
    x = torch.cat([first, draw.ids(9, 3, 5)], 1)
    return [x, x.roll(-1, 1)]


def targets_ahead_broken_off(draw):
    """One ahead in the first half of each window; then nothing agrees."""
    x = draw.ids(9, 2, 6)
    strangers = 20 + draw.ids(9, 2, 3)
    return [x, torch.cat([x[:, 1:4], strangers], 1)]


def targets_ahead_cases(draw):
    x, y = targets_ahead_case(draw, 9, 2, 6, 1)
    single = draw.ids(9, 3, 1)
    constant = draw.ids(9, 2, 1).expand(2, 6).clone()
    return [
        targets_ahead_case(draw, 3, 4, draw.integer(8, 12), 1),
        targets_ahead_case(draw, 9, 1, 6, draw.integer(3, 5)),
        # The last window differs from the others.
        targets_ahead_case(draw, 9, draw.integer(3, 5), 8, 1, 2),
        targets_ahead_case(draw, 9, 2, 7, 2, 1),
        # x is ahead of y.
        [y, x],
        targets_ahead_rolled(draw),
        targets_ahead_broken_off(draw),
        # y is x: windows of one character, and windows in which every k fits.
        [single, single.clone()],
        [constant, constant.clone()],
    ]


TARGETS_AHEAD = exercise(targets_ahead, stars=1, minutes=5, cases=targets_ahead_cases)


### BEGIN SOLUTION
@TARGETS_AHEAD.mistake("only the first window is looked at")
def targets_ahead_first_window(x, y):
    T = x.shape[1]
    for k in range(T):
        if torch.equal(y[0, : T - k], x[0, k:]):
            return k
    return -1


@TARGETS_AHEAD.mistake("one window that agrees is not enough: all of them must")
def targets_ahead_any_window(x, y):
    T = x.shape[1]
    for k in range(T):
        agrees = y[:, : T - k] == x[:, k:]
        if agrees.all(1).any():
            return k
    return -1


@TARGETS_AHEAD.mistake(
    "this finds how far x is ahead of y; the question is how far y is ahead of x"
)
def targets_ahead_exchanged(x, y):
    T = x.shape[1]
    for k in range(T):
        if torch.equal(x[:, : T - k], y[:, k:]):
            return k
    return -1


@TARGETS_AHEAD.mistake(
    "after a roll the first characters follow the last ones, and are compared, too"
)
def targets_ahead_rolls(x, y):
    T = x.shape[1]
    for k in range(T):
        if torch.equal(y, x.roll(-k, 1)):
            return k
    return -1


@TARGETS_AHEAD.mistake(
    "k = 0 never fits, so a y that is x is not found (for k = 0 the slice `y[:, :-k]` is empty)"
)
def targets_ahead_empty_slice(x, y):
    T = x.shape[1]
    for k in range(T):
        if torch.equal(y[:, :-k], x[:, k:]):
            return k
    return -1


@TARGETS_AHEAD.mistake("the loop ends too early: T - 1 is a k, too")
def targets_ahead_ends_too_early(x, y):
    T = x.shape[1]
    for k in range(T - 1):
        if torch.equal(y[:, : T - k], x[:, k:]):
            return k
    return -1


### END SOLUTION
