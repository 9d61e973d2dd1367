"""Answers to the exercises of lesson 11: right ones, and wrong ones with a piece of their hint."""

import math

import torch
from torch.nn import functional as F

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- accumulated_loss


@right("accumulated_loss")
def all_characters_in_one_piece(logits, targets):
    V = logits[0].shape[-1]
    return F.cross_entropy(
        torch.cat([part.reshape(-1, V) for part in logits]),
        torch.cat([wanted.reshape(-1) for wanted in targets]),
    )


@right("accumulated_loss")
def character_by_character(logits, targets):
    nats = []
    for part, wanted in zip(logits, targets):
        for b in range(wanted.shape[0]):
            for t in range(wanted.shape[1]):
                if wanted[b, t] >= 0:
                    nats.append(part[b, t].logsumexp(0) - part[b, t, wanted[b, t]])
    return sum(nats) / len(nats)


@right("accumulated_loss")
def weighted_means(logits, targets):
    counts = [int((wanted != -100).sum()) for wanted in targets]
    means = [F.cross_entropy(part.transpose(1, 2), wanted) for part, wanted in zip(logits, targets)]
    return sum(mean * n for mean, n in zip(means, counts) if n) / sum(counts)


@wrong("accumulated_loss", "nothing is mended yet")
def divided_by_the_parts(logits, targets):
    loss = 0.0
    for part, wanted in zip(logits, targets):
        loss = loss + F.cross_entropy(part.flatten(0, 1), wanted.flatten()) / len(targets)
    return loss


@wrong("accumulated_loss")
def skips_empty_parts(logits, targets):
    losses = [
        F.cross_entropy(part.flatten(0, 1), wanted.flatten())
        for part, wanted in zip(logits, targets)
        if (wanted >= 0).any()
    ]
    return torch.stack(losses).mean()


@wrong("accumulated_loss", "divided by all positions")
def padding_below_the_line(logits, targets):
    total = sum(
        F.cross_entropy(part.flatten(0, 1), wanted.flatten(), reduction="sum")
        for part, wanted in zip(logits, targets)
    )
    return total / sum(wanted.numel() for wanted in targets)


@wrong("accumulated_loss", "as much as it has positions")
def weighted_by_positions(logits, targets):
    total, n = 0.0, 0
    for part, wanted in zip(logits, targets):
        total = total + F.cross_entropy(part.flatten(0, 1), wanted.flatten()) * wanted.numel()
        n += wanted.numel()
    return total / n


@wrong("accumulated_loss", "0 times nan is nan")
def nan_of_the_empty_part(logits, targets):
    total, n = 0.0, 0
    for part, wanted in zip(logits, targets):
        characters = (wanted != -100).sum()
        total = total + F.cross_entropy(part.flatten(0, 1), wanted.flatten()) * characters
        n += characters
    return total / n


@wrong("accumulated_loss", "the sum over the characters")
def undivided(logits, targets):
    return sum(
        F.cross_entropy(part.flatten(0, 1), wanted.flatten(), reduction="sum")
        for part, wanted in zip(logits, targets)
    )


@wrong("accumulated_loss", "by the number of parts")
def sum_over_parts(logits, targets):
    return sum(
        F.cross_entropy(part.flatten(0, 1), wanted.flatten(), reduction="sum")
        for part, wanted in zip(logits, targets)
    ) / len(targets)


@wrong("accumulated_loss")
def padding_is_character_0(logits, targets):
    rows = torch.cat([part.flatten(0, 1) for part in logits]).log_softmax(-1)
    wanted = torch.cat([wanted.flatten() for wanted in targets]).clamp(min=0)
    return -rows[torch.arange(len(rows)), wanted].mean()


@wrong("accumulated_loss")
def mean_of_each_text(logits, targets):
    means = []
    for part, wanted in zip(logits, targets):
        nats = F.cross_entropy(part.transpose(1, 2), wanted, reduction="none")
        means += [row.sum() / max((ids >= 0).sum(), 1) for row, ids in zip(nats, wanted)]
    return torch.stack(means).mean()


@wrong("accumulated_loss", "Error")
def texts_before_classes(logits, targets):
    return F.cross_entropy(torch.cat(logits), torch.cat(targets))


@wrong("accumulated_loss", "in place")
def overwrites_the_padding(logits, targets):
    total, n = 0.0, 0
    for part, wanted in zip(logits, targets):
        real = wanted >= 0
        wanted[~real] = 0
        total = (
            total + (F.cross_entropy(part.transpose(1, 2), wanted, reduction="none") * real).sum()
        )
        n += real.sum()
    return total / n


@wrong("accumulated_loss", "is there a `return`?")
def loss_without_return(logits, targets):
    total = sum(
        F.cross_entropy(part.flatten(0, 1), wanted.flatten(), reduction="sum")
        for part, wanted in zip(logits, targets)
    )
    total / sum((wanted != -100).sum() for wanted in targets)


# ---------------------------------------------------------------- early_stopping


@right("early_stopping")
def as_the_trainer_does(losses, patience):
    best, best_step, waited, step = None, None, 0, 0
    while step < len(losses) and waited < patience:
        step += 1
        if best is None or losses[step - 1] < best:
            best, best_step, waited = losses[step - 1], step, 0
        else:
            waited += 1
    return [step, best_step]


@right("early_stopping")
def first_end_that_fits(losses, patience):
    """For each possible end: was the best of all so far found `patience` evaluations ago?"""
    for n in range(1, len(losses) + 1):
        best = 1 + losses[:n].index(min(losses[:n]))
        if n - best == patience or n == len(losses):
            return [n, best]


@wrong("early_stopping", "with the one before it")
def compares_with_the_last(losses, patience):
    best, waited = 0, 0
    for i in range(1, len(losses)):
        waited = 0 if losses[i] < losses[i - 1] else waited + 1
        best = i if losses[i] < losses[best] else best
        if waited == patience:
            return [i + 1, best + 1]
    return [len(losses), best + 1]


@wrong("early_stopping", "an equal loss")
def equal_is_new(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss <= losses[best]:
            best = i
        elif i - best >= patience:
            break
    return [i + 1, best + 1]


@wrong("early_stopping", "one evaluation too many")
def more_than_patience(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        elif i - best > patience:
            break
    return [i + 1, best + 1]


@wrong("early_stopping", "item 0: it returns")
def without_patience(losses, patience):
    n = next((i for i in range(1, len(losses)) if losses[i] >= losses[i - 1]), len(losses) - 1)
    return [n + 1, losses.index(min(losses[: n + 1])) + 1]


@wrong("early_stopping", "sets the count back")
def counts_in_all(losses, patience):
    best, waited = 0, 0
    for i, loss in enumerate(losses[1:], 1):
        if loss < losses[best]:
            best = i
        else:
            waited += 1
            if waited == patience:
                return [i + 1, best + 1]
    return [len(losses), best + 1]


@wrong("early_stopping", "item 0: it returns")
def never_stops(losses, patience):
    return [len(losses), losses.index(min(losses)) + 1]


def evaluations(losses, patience):
    """How many are made."""
    least, waited = math.inf, 0
    for n, loss in enumerate(losses, 1):
        waited = 0 if loss < least else waited + 1
        least = min(least, loss)
        if waited == patience:
            break
    return n


@wrong("early_stopping", "never measured")
def looks_ahead(losses, patience):
    return [evaluations(losses, patience), losses.index(min(losses)) + 1]


@wrong("early_stopping", "item 1: it returns")
def last_weights(losses, patience):
    n = evaluations(losses, patience)
    return [n, n]


@wrong("early_stopping", "count them from 1")
def counts_from_0(losses, patience):
    n = evaluations(losses, patience)
    return [n - 1, losses.index(min(losses[:n]))]


@wrong("early_stopping", "item 1: it returns")
def best_from_0(losses, patience):
    n = evaluations(losses, patience)
    return [n, losses.index(min(losses[:n]))]


@wrong("early_stopping", "item 0: it returns")
def best_first(losses, patience):
    n = evaluations(losses, patience)
    return [losses.index(min(losses[:n])) + 1, n]


@wrong("early_stopping", "item 1: it returns")
def the_loss_itself(losses, patience):
    n = evaluations(losses, patience)
    return [n, min(losses[:n])]


@wrong("early_stopping", "item 0: it returns")
def beyond_the_list(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best] and i - best <= patience:
            best = i
        if i - best == patience:
            break
    return [best + 1 + patience, best + 1]


@wrong("early_stopping", "IndexError")
def runs_off_the_list(losses, patience):
    i, best = 0, 0
    while i - best < patience:
        i += 1
        best = i if losses[i] < losses[best] else best
    return [i + 1, best + 1]


@wrong("early_stopping", "in place")
def eats_the_losses(losses, patience):
    least, best, n = math.inf, 0, 0
    while losses and n - best < patience:
        n, loss = n + 1, losses.pop(0)
        if loss < least:
            least, best = loss, n
    return [n, best]


@wrong("early_stopping", "is there a `return`?")
def returns_only_when_stopped(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        elif i - best >= patience:
            return [i + 1, best + 1]


# ---------------------------------------------------------------- loss_at_init


@right("loss_at_init")
def logarithm_of_the_sum(V, C, std):
    s = std * math.sqrt(C)
    return math.log(V * math.exp(s**2 / 2))


@right("loss_at_init")
def integrated(V, C, std):
    """Adds up the variances one by one, and e^z over the bell curve."""
    variance = sum(std**2 for _ in range(C))
    u = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    weights = torch.exp(-(u**2) / 2)
    mean = (weights * torch.exp(math.sqrt(variance) * u)).sum() / weights.sum()
    return math.log(V) + math.log(mean.item())


@right("loss_at_init")
def each_product_alone(V, C, std):
    """e^z is a product of C independent factors; h is all ones."""
    return math.log(V) + sum(math.log(math.exp(std * std / 2)) for _ in range(C))


@wrong("loss_at_init", "where all logits are 0")
def only_ln_v(V, C, std):
    return math.log(V)


@wrong("loss_at_init", "the half is missing")
def whole_square(V, C, std):
    return math.log(V) + (math.sqrt(C) * std) ** 2


@wrong("loss_at_init", "s is not C times std")
def deviations_add_up(V, C, std):
    s = C * std
    return math.log(V) + s**2 / 2


@wrong("loss_at_init", "a sum of C products")
def one_number(V, C, std):
    return math.log(V) + std**2 / 2


@wrong("loss_at_init", "not smaller")
def noise_helps(V, C, std):
    s = std * C**0.5
    return math.log(V) - s**2 / 2


@wrong("loss_at_init", "the square is missing")
def half_a_deviation(V, C, std):
    s = std * C**0.5
    return math.log(V) + s / 2


@wrong("loss_at_init")
def adds_the_deviation(V, C, std):
    return math.log(V) + std * C**0.5


@wrong("loss_at_init")
def divides_by_the_root(V, C, std):
    s = std / math.sqrt(C)
    return math.log(V) + s**2 / 2


@wrong("loss_at_init")
def product_of_logarithms(V, C, std):
    return math.log(V) * math.exp(C * std**2 / 2)


@wrong("loss_at_init")
def sum_without_logarithm(V, C, std):
    return V * math.exp(C * std**2 / 2)


@wrong("loss_at_init")
def the_excess(V, C, std):
    return C * std**2 / 2


@wrong("loss_at_init")
def factor_added(V, C, std):
    return math.log(V) + math.exp(C * std**2 / 2)


@wrong("loss_at_init")
def in_bits(V, C, std):
    return math.log2(V * math.exp(C * std**2 / 2))


@wrong("loss_at_init", "is there a `return`?")
def loss_at_init_without_return(V, C, std):
    math.log(V) + C * std**2 / 2


# ---------------------------------------------------------------- targets_ahead


@right("targets_ahead")
def loops_over_all(x, y):
    B, T = x.shape
    fitting = [
        k for k in range(T) if all(y[b, i] == x[b, i + k] for b in range(B) for i in range(T - k))
    ]
    return min(fitting, default=-1)


@right("targets_ahead")
def lists_of_lists(x, y):
    pairs, T = list(zip(x.tolist(), y.tolist())), x.shape[1]
    for k in range(T):
        if all(seen[k:] == wanted[: T - k] for seen, wanted in pairs):
            return k
    return -1


@right("targets_ahead")
def all_distances_at_once(x, y):
    """(B, T, T): does y at i agree with x at j? Then the diagonals."""
    agree = (y[:, :, None] == x[:, None, :]).all(0)
    fits = [bool(agree.diagonal(k).all()) for k in range(x.shape[1])]
    return fits.index(True) if True in fits else -1


@wrong("targets_ahead", "only the first window")
def one_window(x, y):
    T = x.shape[1]
    for k in range(T):
        if torch.equal(y[0, : T - k], x[0, k:]):
            return k
    return -1


@wrong("targets_ahead")
def any_pair(x, y):
    T = x.shape[1]
    for k in range(T):
        if (y[:, : T - k] == x[:, k:]).any():
            return k
    return -1


@wrong("targets_ahead", "one window that agrees")
def any_window(x, y):
    T = x.shape[1]
    for k in range(T):
        if any(torch.equal(b[: T - k], a[k:]) for a, b in zip(x, y)):
            return k
    return -1


@wrong("targets_ahead")
def first_characters(x, y):
    for k in range(x.shape[1]):
        if (y[:, 0] == x[:, k]).all():
            return k
    return -1


@wrong("targets_ahead", "how far x is ahead of y")
def the_other_way(x, y):
    T = x.shape[1]
    for k in range(T):
        if torch.equal(x[:, : T - k], y[:, k:]):
            return k
    return -1


@wrong("targets_ahead", "after a roll")
def rolls(x, y):
    for k in range(x.shape[1]):
        if torch.equal(torch.roll(x, -k, dims=1), y):
            return k
    return -1


@wrong("targets_ahead", "it returns -1")
def one_long_window(x, y):
    a, b = x.flatten(), y.flatten()
    for k in range(x.shape[1]):
        if torch.equal(b[: len(b) - k], a[k:]):
            return k
    return -1


@wrong("targets_ahead", "k = 0 never fits")
def empty_slice(x, y):
    for k in range(x.shape[1]):
        if torch.equal(y[:, :-k], x[:, k:]):
            return k
    return -1


@wrong("targets_ahead", "the loop ends too early")
def last_k_left_out(x, y):
    T = x.shape[1]
    for k in range(T - 1):
        if torch.equal(y[:, : T - k], x[:, k:]):
            return k
    return -1


@wrong("targets_ahead", "it returns -1")
def three_tries(x, y):
    T = x.shape[1]
    for k in range(min(3, T)):
        if torch.equal(y[:, : T - k], x[:, k:]):
            return k
    return -1


@wrong("targets_ahead")
def keeps_the_last(x, y):
    T, found = x.shape[1], -1
    for k in range(T):
        if torch.equal(y[:, : T - k], x[:, k:]):
            found = k
    return found


@wrong("targets_ahead", "but -1 was expected")
def best_share(x, y):
    T = x.shape[1]
    shares = [(y[:, : T - k] == x[:, k:]).float().mean().item() for k in range(T)]
    return shares.index(max(shares))


@wrong("targets_ahead", "in place")
def marks_what_agrees(x, y):
    T = x.shape[1]
    for k in range(T):
        if torch.equal(y[:, : T - k], x[:, k:]):
            y[:, : T - k] = -1
            return k
    return -1


@wrong("targets_ahead", "is there a `return`?")
def nothing_for_none(x, y):
    T = x.shape[1]
    for k in range(T):
        if torch.equal(y[:, : T - k], x[:, k:]):
            return k
