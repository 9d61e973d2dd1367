"""How the exercises of lesson 11 are judged: cases, mistakes, symptoms."""

import math

import torch
from torch.nn import functional as F

from chargpt_lib.exercises.answers.trainer import (
    accumulated_loss,
    birth_loss,
    early_stopping,
    targets_ahead,
)
from chargpt_lib.exercises.judge import exercise


def accumulated_loss_case(draw, V, *shapes, dtype=torch.float32):
    """shapes: (B, T, characters) of each part."""
    logits, targets = [], []
    for B, T, characters in shapes:
        wanted = draw.ids(V, B * T)
        wanted[torch.randperm(B * T, generator=draw.generator)[characters:]] = -100
        logits.append(2 * draw.normal(B, T, V, dtype=dtype))
        targets.append(wanted.view(B, T))
    return [logits, targets]


### BEGIN SOLUTION
def accumulated_loss_each(logits, targets, reduction="mean"):
    return torch.stack(
        [
            F.cross_entropy(part.flatten(0, 1), wanted.flatten(), reduction=reduction)
            for part, wanted in zip(logits, targets)
        ]
    )


def accumulated_loss_counts(logits, targets):
    return torch.stack([(wanted != -100).sum() for wanted in targets]).to(logits[0].dtype)


def accumulated_loss_rows(part, wanted):
    """The mean of each text, 0 where it has no character."""
    nats = F.cross_entropy(part.transpose(1, 2), wanted, reduction="none")
    return nats.sum(1) / (wanted != -100).sum(1).clamp(min=1)


### END SOLUTION


exercise(
    accumulated_loss,
    stars=2,
    minutes=7,
    cases=lambda draw: [
        accumulated_loss_case(draw, 5, (2, 4, 7), (1, 3, 1)),
        accumulated_loss_case(
            draw, 7, (1, 6, 5), (2, 5, draw.integer(2, 3)), (3, 2, 1), dtype=torch.float64
        ),
        accumulated_loss_case(draw, draw.integer(3, 9), (2, 4, 8), (2, 4, 2)),
        accumulated_loss_case(draw, 6, (1, 3, 2), (2, 2, 0), (3, 3, 7)),
        accumulated_loss_case(draw, 4, (1, 1, 1)),
        accumulated_loss_case(draw, 5, (1, 4, 2), (1, 4, 2)),
    ],
    wrong={
        ### BEGIN SOLUTION
        "nothing is mended yet: each part still weighs the same, however few characters it has": lambda logits, targets: (
            accumulated_loss_each(logits, targets).mean()
        ),
        "empty parts are left out, but each of the others still weighs the same, however few characters it has": lambda logits, targets: (
            accumulated_loss_each(logits, targets).nanmean()
        ),
        "it divides by all positions: where the target is -100, there is no character to count": lambda logits, targets: (
            accumulated_loss_each(logits, targets, "sum").sum()
            / sum(wanted.numel() for wanted in targets)
        ),
        "a part weighs as much as it has positions: those with the target -100 do not count": lambda logits, targets: (
            sum(
                loss * wanted.numel()
                for loss, wanted in zip(accumulated_loss_each(logits, targets), targets)
            )
            / sum(wanted.numel() for wanted in targets)
        ),
        "the weights are right, but the mean over no characters is nan, and 0 times nan is nan": lambda logits, targets: (
            (
                accumulated_loss_each(logits, targets) * accumulated_loss_counts(logits, targets)
            ).sum()
            / accumulated_loss_counts(logits, targets).sum()
        ),
        "this is a sum over the characters: the mean is asked for": lambda logits, targets: (
            accumulated_loss_each(logits, targets, "sum").sum()
        ),
        "the sum of all characters is divided by the number of parts, not of characters": lambda logits, targets: (
            accumulated_loss_each(logits, targets, "sum").mean()
        ),
        "where the target is -100 there is nothing to predict, and 0 was taken for the target there": lambda logits, targets: (
            accumulated_loss(logits, [wanted.clamp(min=0) for wanted in targets])
        ),
        "a part weighs as much as it has texts; what counts is its characters": lambda logits, targets: (
            sum(
                loss * len(wanted)
                for loss, wanted in zip(
                    accumulated_loss_each(logits, targets).nan_to_num(), targets
                )
            )
            / sum(map(len, targets))
        ),
        "each text weighs the same here; a mean over characters gives a long one more weight": lambda logits, targets: (
            torch.cat([accumulated_loss_rows(*pair) for pair in zip(logits, targets)]).mean()
        ),
        ### END SOLUTION
    },
)


def early_stopping_case(draw, patience, *tenths):
    start = draw.integer(30, 50)
    return [[(start + loss) / 10 for loss in tenths], patience]


### BEGIN SOLUTION
def early_stopping_as(losses, patience, equal=False, before=False, in_all=False, more=0):
    best, waited = 0, 0
    for i, loss in enumerate(losses):
        new = i == 0 or loss < losses[i - 1 if before else best] or equal and loss == losses[best]
        waited = 0 if new and not in_all else waited + (not new)
        best = i if loss < losses[best] or equal and loss == losses[best] else best
        if not new and waited >= patience + more:
            break
    return [i + 1, best + 1]


### END SOLUTION


exercise(
    early_stopping,
    stars=1,
    minutes=5,
    cases=lambda draw: [
        early_stopping_case(draw, 2, 0, -4, -3, -5, -4, -3, draw.integer(-9, -6)),
        early_stopping_case(
            draw, 3, 0, -6, -2, -3, -5, -4, -1, -8
        ),  # falls again, but not below its best
        early_stopping_case(
            draw, 2, 0, 2, -3, -1, -4, 1, -5, *(-draw.integer(6, 9) for _ in range(3))
        ),
        early_stopping_case(draw, 2, 0, -5, -5, -5, -9),
        early_stopping_case(draw, 1, 0, draw.integer(1, 4), -7),
        early_stopping_case(draw, 5, 0, -2, draw.integer(-1, 3)),
        early_stopping_case(draw, 1, 0),
        early_stopping_case(draw, draw.integer(2, 4), *(-draw.integer(0, 9) for _ in range(12))),
    ],
    wrong={
        ### BEGIN SOLUTION
        "a loss is compared with the one before it, not with the least so far": lambda losses, patience: (
            early_stopping_as(losses, patience, before=True)
        ),
        "an equal loss is taken for a new least one": lambda losses, patience: early_stopping_as(
            losses, patience, equal=True
        ),
        "it waits for one evaluation too many: the run ends after the `patience`-th without a new least loss": lambda losses, patience: (
            early_stopping_as(losses, patience, more=1)
        ),
        "it stops at the first loss that is not a new least one, whatever `patience` says": lambda losses, patience: (
            early_stopping_as(losses, 1)
        ),
        "evaluations without a new least loss are counted in all: each new least one sets the count back to 0": lambda losses, patience: (
            early_stopping_as(losses, patience, in_all=True)
        ),
        "the run never ends before its list: `patience` is not used": lambda losses, patience: (
            early_stopping_as(losses, len(losses))
        ),
        "the best is looked for in the whole list: what comes after the end of the run is never measured": lambda losses, patience: [
            early_stopping(losses, patience)[0],
            losses.index(min(losses)) + 1,
        ],
        "these are the weights that the run ended with: those of its least loss are kept": lambda losses, patience: (
            [early_stopping(losses, patience)[0]] * 2
        ),
        "evaluations count from 1, these from 0": lambda losses, patience: [
            number - 1 for number in early_stopping(losses, patience)
        ],
        "the number of the best counts from 1, too": lambda losses, patience: [
            early_stopping(losses, patience)[0],
            early_stopping(losses, patience)[1] - 1,
        ],
        "the two numbers are exchanged": lambda losses, patience: early_stopping(losses, patience)[
            ::-1
        ],
        "the second is the loss of the best evaluation; its number is wanted": lambda losses, patience: [
            (ended := early_stopping(losses, patience))[0],
            losses[ended[1] - 1],
        ],
        "the run cannot make more evaluations than its list has: it may end before its patience does": lambda losses, patience: [
            (best := early_stopping(losses, patience)[1]) + patience,
            best,
        ],
        ### END SOLUTION
    },
)


exercise(
    birth_loss,
    stars=2,
    minutes=8,
    cases=lambda draw: [
        [
            draw.integer(30, 90),
            C := draw.choice([16, 48, 64]),
            draw.number(0.7, 1.0) / math.sqrt(C),
        ],
        [draw.integer(100, 300), C := draw.integer(100, 500), draw.number(0.7, 1.0) / math.sqrt(C)],
        [draw.integer(1000, 9000), 4, draw.number(0.3, 0.5)],
        [draw.integer(50, 90), 1, draw.number(0.5, 1.0)],
        [draw.integer(30, 90), draw.integer(16, 64), 0.0],
        [draw.integer(20, 90), 9, 0.2 + draw.number(0, 0.1)],
    ],
    wrong={
        ### BEGIN SOLUTION
        "that is the loss where all logits are 0: here they differ, and that costs": lambda V, C, std: (
            math.log(V)
        ),
        "the exponent is half the square of s: the half is missing": lambda V, C, std: (
            math.log(V) + C * std**2
        ),
        "variances add up, not deviations: s is not C times std": lambda V, C, std: (
            math.log(V) + (C * std) ** 2 / 2
        ),
        "a logit is a sum of C products: its deviation is larger than std": lambda V, C, std: (
            math.log(V) + std**2 / 2
        ),
        "noise makes the loss larger, not smaller": lambda V, C, std: math.log(V) - C * std**2 / 2,
        "this adds s / 2: the square is missing": lambda V, C, std: (
            math.log(V) + math.sqrt(C) * std / 2
        ),
        "this adds s itself: what is added is half its square": lambda V, C, std: (
            math.log(V) + math.sqrt(C) * std
        ),
        "h is not shorter with more numbers: a sum of C products is larger than one, not smaller": lambda V, C, std: (
            math.log(V) + std**2 / C / 2
        ),
        "the variance of a sum is C times that of one product, not the root of C times": lambda V, C, std: (
            math.log(V) + math.sqrt(C) * std**2 / 2
        ),
        "the logarithm of a product is a sum: ln V is not multiplied": lambda V, C, std: (
            math.log(V) * math.exp(C * std**2 / 2)
        ),
        "this is the sum itself: its logarithm is missing": lambda V, C, std: (
            V * math.exp(C * std**2 / 2)
        ),
        "this is what the noise adds; the loss without it is missing": lambda V, C, std: (
            C * std**2 / 2
        ),
        "exp(s² / 2) is the factor: its logarithm is what is added to ln V": lambda V, C, std: (
            math.log(V) + math.exp(C * std**2 / 2)
        ),
        "a factor inside of the logarithm: V is multiplied, and nothing is added to it": lambda V, C, std: (
            math.log(V + C * std**2 / 2)
        ),
        "these are bits: nats are asked for": lambda V, C, std: (
            (math.log(V) + C * std**2 / 2) / math.log(2)
        ),
        ### END SOLUTION
    },
)


def targets_ahead_case(draw, V, B, T, *ks):
    """Windows of their own, whose targets are ahead by the first k; those of the last window by the last k."""
    windows = draw.ids(V, B, T + max(ks))
    windows[:, 0], windows[:, 1] = V, V + 1  # no window repeats itself from its beginning on
    targets = [row[(ks[-1] if b == B - 1 else ks[0]) :][:T] for b, row in enumerate(windows)]
    return [windows[:, :T].clone(), torch.stack(targets)]


### BEGIN SOLUTION
def targets_ahead_by(fits):
    return lambda x, y: next((k for k in range(x.shape[1]) if fits(x, y, k, x.shape[1] - k)), -1)


### END SOLUTION


exercise(
    targets_ahead,
    stars=1,
    minutes=5,
    cases=lambda draw: [
        targets_ahead_case(draw, 3, 4, draw.integer(8, 12), 1),
        targets_ahead_case(draw, 9, 1, 6, draw.integer(3, 5)),
        targets_ahead_case(draw, 9, draw.integer(3, 5), 8, 1, 2),
        targets_ahead_case(draw, 9, 2, 7, 2, 1),
        targets_ahead_case(draw, 9, 2, 6, 1)[::-1],
        [x := torch.cat([torch.arange(9, 12)[:, None], draw.ids(9, 3, 5)], 1), x.roll(-1, 1)],
        [x := draw.ids(9, 2, 6), torch.cat([x[:, 1:4], 20 + draw.ids(9, 2, 3)], 1)],
        [x := draw.ids(9, 3, 1), x.clone()],
        [x := draw.ids(9, 2, 1).expand(2, 6).clone(), x.clone()],
    ],
    wrong={
        ### BEGIN SOLUTION
        "only the first window is looked at": lambda x, y: targets_ahead(x[:1], y[:1]),
        "one pair that agrees is not enough: all of them must": targets_ahead_by(
            lambda x, y, k, n: (y[:, :n] == x[:, k:]).any()
        ),
        "one window that agrees is not enough: all of them must": targets_ahead_by(
            lambda x, y, k, n: (y[:, :n] == x[:, k:]).all(1).any()
        ),
        "only the first character of each window is compared": targets_ahead_by(
            lambda x, y, k, n: torch.equal(y[:, 0], x[:, k])
        ),
        "it finds how far x is ahead of y; the question is how far y is ahead of x": lambda x, y: (
            targets_ahead(y, x)
        ),
        "rolled round, the first characters come after the last ones, and are compared, too": targets_ahead_by(
            lambda x, y, k, n: torch.equal(y, x.roll(-k, 1))
        ),
        "the windows are strung together: the end of one meets the beginning of the next": targets_ahead_by(
            lambda x, y, k, n: torch.equal(y.flatten()[: y.numel() - k], x.flatten()[k:])
        ),
        "k = 0 never fits, so nobody notices a y that is x (and `y[:, :-k]` is empty for k = 0)": lambda x, y: (
            next((k for k in range(1, x.shape[1]) if torch.equal(y[:, :-k], x[:, k:])), -1)
        ),
        "it ends too early: T - 1 is a k, too": lambda x, y: next(
            (k for k in range(x.shape[1] - 1) if torch.equal(y[:, : x.shape[1] - k], x[:, k:])), -1
        ),
        "it tries 0, 1 and 2 only": lambda x, y: next(
            (k for k in range(min(3, x.shape[1])) if torch.equal(y[:, : x.shape[1] - k], x[:, k:])),
            -1,
        ),
        "where several fit, the least one is asked for": lambda x, y: next(
            (
                k
                for k in range(x.shape[1] - 1, -1, -1)
                if torch.equal(y[:, : x.shape[1] - k], x[:, k:])
            ),
            -1,
        ),
        "this is the k that agrees best; where it does not agree everywhere, -1 is asked for": lambda x, y: (
            max(
                range(x.shape[1]),
                key=lambda k: (y[:, : x.shape[1] - k] == x[:, k:]).double().mean().item(),
            )
        ),
        ### END SOLUTION
    },
)
