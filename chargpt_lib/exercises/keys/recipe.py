"""How the exercises of lesson 10 are judged: cases, mistakes, symptoms."""

import math

import torch
import torch.nn.functional as F

from chargpt_lib.exercises.answers.recipe import (
    accumulated_gradient,
    inverse_root_rate,
    share_read_twice,
    unscale_and_clip,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- share_read_twice


def share_read_twice_case(draw, n):
    batch_size = draw.integer(n // 5, n // 3)
    return [n, batch_size, draw.integer(4, 9)]


def share_read_twice_cases(draw):
    many = draw.integer(3000, 5000)
    whole_text = draw.integer(5, 50)
    return [
        share_read_twice_case(draw, draw.integer(20, 40)),
        share_read_twice_case(draw, draw.integer(200, 400)),
        # Small batches, and about as many draws as there are windows.
        [many, draw.integer(20, 40), many // 32],
        # One step: no window is read twice.
        [draw.integer(5, 50), draw.integer(1, 5), 1],
        # Each batch is the whole text: every window is read in every step.
        [whole_text, whole_text, draw.integer(2, 5)],
        [draw.integer(6, 60), 1, 2],
        [1, 1, 1],
    ]


SHARE_READ_TWICE = exercise(share_read_twice, stars=2, minutes=7, cases=share_read_twice_cases)


### BEGIN SOLUTION
@SHARE_READ_TWICE.mistake(
    "that is the share read at least once: windows read exactly once are still among them"
)
def share_read_twice_at_least_once(n, batch_size, steps):
    p = batch_size / n
    return 1 - (1 - p) ** steps


@SHARE_READ_TWICE.mistake(
    "that is the share read exactly twice; windows read three times or more count, too"
)
def share_read_twice_exactly_twice(n, batch_size, steps):
    if steps < 2:
        return 0.0
    p = batch_size / n
    return math.comb(steps, 2) * p**2 * (1 - p) ** (steps - 2)


@SHARE_READ_TWICE.mistake(
    "windows are drawn one by one here; those of a batch are all different, so p is batch_size / n"
)
def share_read_twice_single_draws(n, batch_size, steps):
    p = 1 / n
    draws = steps * batch_size
    return 1 - (1 - p) ** draws - draws * p * (1 - p) ** (draws - 1)


@SHARE_READ_TWICE.mistake(
    "the powers of e are the limit for many windows and small batches; the exact share is wanted"
)
def share_read_twice_poisson(n, batch_size, steps):
    rate = steps * batch_size / n
    return 1 - math.exp(-rate) - rate * math.exp(-rate)


@SHARE_READ_TWICE.mistake(
    "a window read once may be read in any of the steps: that makes `steps` ways, not one"
)
def share_read_twice_one_way(n, batch_size, steps):
    p = batch_size / n
    never = (1 - p) ** steps
    once = p * (1 - p) ** (steps - 1)
    return 1 - never - once


@SHARE_READ_TWICE.mistake(
    "a window read once is read in one step and missed in the steps - 1 others, not in all of them"
)
def share_read_twice_missed_in_all_steps(n, batch_size, steps):
    p = batch_size / n
    never = (1 - p) ** steps
    once = steps * p * (1 - p) ** steps
    return 1 - never - once


### END SOLUTION


# ---------------------------------------------------------------- inverse_root_rate


def inverse_root_rate_cases(draw):
    warmup = draw.integer(10, 50)
    return [
        [0, draw.number(1e-3, 1e-2), draw.integer(10, 50)],
        [draw.integer(4, 7), draw.number(1e-3, 1e-2), 12],
        # The last step of the warmup, the first one after it, and one long after it.
        [warmup - 1, draw.number(1e-3, 1e-2), warmup],
        [warmup, draw.number(1e-3, 1e-2), warmup],
        [draw.integer(3, 9) * warmup + 2, draw.number(1e-3, 1e-2), warmup],
        # A warmup of one step.
        [0, draw.number(1e-3, 1e-2), 1],
        [draw.integer(5, 900), draw.number(1e-3, 1e-2), 1],
    ]


INVERSE_ROOT_RATE = exercise(
    inverse_root_rate, stars=1, minutes=5, atol=1e-9, cases=inverse_root_rate_cases
)


### BEGIN SOLUTION
@INVERSE_ROOT_RATE.mistake(
    "everything comes one step late: `step` counts from 0, so step 0 is the first, with k = 1"
)
def inverse_root_rate_one_step_late(step, peak, warmup):
    if step <= warmup:
        return peak * step / warmup
    return peak * (warmup / step) ** 0.5


@INVERSE_ROOT_RATE.mistake(
    "there is a jump after the warmup: 1 / sqrt(k) alone is not 1 at k = warmup"
)
def inverse_root_rate_jumps(step, peak, warmup):
    k = step + 1
    if k <= warmup:
        return peak * k / warmup
    return peak / k**0.5


@INVERSE_ROOT_RATE.mistake("the rate falls as 1 / k here: the root is missing")
def inverse_root_rate_without_root(step, peak, warmup):
    k = step + 1
    if k <= warmup:
        return peak * k / warmup
    return peak * warmup / k


@INVERSE_ROOT_RATE.mistake(
    "under the root, k is counted from the end of the warmup; it counts from the start of the run"
)
def inverse_root_rate_counts_from_the_warmup(step, peak, warmup):
    k = step + 1
    if k <= warmup:
        return peak * k / warmup
    return peak / (k - warmup + 1) ** 0.5


@INVERSE_ROOT_RATE.mistake(
    "the paper's formula has a peak of its own, 1 / sqrt(warmup): scale it so that it has `peak`"
)
def inverse_root_rate_as_in_the_paper(step, peak, warmup):
    k = step + 1
    return peak * min(k**-0.5, k * warmup**-1.5)


@INVERSE_ROOT_RATE.mistake(
    "the rise is one step too long: the last step of the warmup, step = warmup - 1, has the peak"
)
def inverse_root_rate_warmup_too_long(step, peak, warmup):
    k = step + 1
    if k <= warmup:
        return peak * k / (warmup + 1)
    return peak * (warmup / k) ** 0.5


### END SOLUTION


# ---------------------------------------------------------------- accumulated_gradient


def accumulated_gradient_case(draw, lengths, size, V=5, dtype=torch.float32):
    """lengths: how many targets each line has."""
    B = len(lengths)
    T = max(lengths)
    x = draw.ids(V, B, T)
    y = draw.ids(V, B, T)
    over = torch.arange(T) >= torch.tensor(lengths)[:, None]
    return [draw.normal(V, V, dtype=dtype), x, y.masked_fill(over, -100), size]


def accumulated_gradient_cases(draw):
    five_lines = [8, draw.integer(6, 7), draw.integer(4, 5), 2, 1]
    four_lines = [5, draw.integer(3, 4), draw.integer(1, 2), 1]
    equal_lines = [6] * 7
    one_line = [draw.integer(1, 6)]
    return [
        accumulated_gradient_case(draw, five_lines, 2),
        accumulated_gradient_case(draw, four_lines, 2, V=6, dtype=torch.float64),
        accumulated_gradient_case(draw, equal_lines, draw.choice([2, 3]), V=4, dtype=torch.float64),
        accumulated_gradient_case(draw, one_line, 1),
        # One piece has room for more lines than there are.
        accumulated_gradient_case(draw, [4, 2, 3], 5),
        accumulated_gradient_case(draw, [1, 1, 1], 2),
    ]


ACCUMULATED_GRADIENT = exercise(
    accumulated_gradient, stars=2, minutes=8, atol=1e-6, cases=accumulated_gradient_cases
)


### BEGIN SOLUTION
def accumulated_gradient_loss(table, a, b, reduction="mean"):
    """The loss of one piece."""
    return F.cross_entropy(table[a].flatten(0, 1), b.flatten(), reduction=reduction)


@ACCUMULATED_GRADIENT.mistake(
    "nothing is mended yet: each piece counts the same, however many targets it has"
)
def accumulated_gradient_pieces_alike(table, x, y, size):
    table = table.clone().requires_grad_()
    pieces = list(zip(x.split(size), y.split(size)))
    for a, b in pieces:
        loss = accumulated_gradient_loss(table, a, b)
        (loss / len(pieces)).backward()
    return table.grad


@ACCUMULATED_GRADIENT.mistake(
    "the pieces are weighted by their lines (or places); lines have different numbers of targets"
)
def accumulated_gradient_by_lines(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        loss = accumulated_gradient_loss(table, a, b)
        (loss * len(a) / len(x)).backward()
    return table.grad


@ACCUMULATED_GRADIENT.mistake(
    "the means of the pieces are added up as they are: none is weighted by its number of targets"
)
def accumulated_gradient_sum_of_means(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        loss = accumulated_gradient_loss(table, a, b)
        loss.backward()
    return table.grad


@ACCUMULATED_GRADIENT.mistake("the sum of all losses is not divided by the number of targets")
def accumulated_gradient_not_divided(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        loss = accumulated_gradient_loss(table, a, b, reduction="sum")
        loss.backward()
    return table.grad


@ACCUMULATED_GRADIENT.mistake(
    "the sum is divided by all places, B·T; those where y is -100 are no targets"
)
def accumulated_gradient_by_places(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        loss = accumulated_gradient_loss(table, a, b, reduction="sum")
        (loss / y.numel()).backward()
    return table.grad


@ACCUMULATED_GRADIENT.mistake(
    "a mean is divided by the number of all targets; only a mean times its own targets is a sum"
)
def accumulated_gradient_mean_by_targets(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        loss = accumulated_gradient_loss(table, a, b)
        (loss / (y != -100).sum()).backward()
    return table.grad


### END SOLUTION


# ---------------------------------------------------------------- unscale_and_clip


def unscale_and_clip_case(draw, size, scale, most, bad=()):
    """Gradients of about this size, scaled; bad: for the first tensors, what replaces a number."""
    shapes = [(draw.integer(2, 4), 3), (draw.integer(2, 5),), (2, draw.integer(2, 3))]
    gradients = []
    for shape in shapes:
        sizes = (0.5 + draw.uniform(*shape)) * size
        signs = draw.normal(*shape).sign()
        gradients.append((sizes * signs * scale).half())
    for gradient, number in zip(gradients, bad):
        place = draw.integer(0, gradient.numel() - 1)
        gradient.view(-1)[place] = number
    return [gradients, scale, most]


def unscale_and_clip_cases(draw):
    zeros = [torch.zeros(2, 2).half(), torch.zeros(3).half()]
    one_number = (2048 * (1 + draw.uniform(1))).half()
    infinity = draw.choice([math.inf, -math.inf])
    return [
        # Too long.
        unscale_and_clip_case(draw, draw.number(1, 2), 1024.0, draw.number(0.5, 1)),
        # Short enough.
        unscale_and_clip_case(draw, draw.number(0.08, 0.12), 4096.0, draw.number(1.5, 2)),
        # So small that float16 would make 0 of them.
        unscale_and_clip_case(draw, draw.number(1e-8, 2e-8), 65536.0, 1.0),
        unscale_and_clip_case(draw, 1.0, 512.0, 1.0, bad=[infinity]),
        unscale_and_clip_case(draw, 0.01, 512.0, 1.0, bad=[0.0, math.nan]),
        [zeros, 128.0, 1.0],
        [[one_number], 1024.0, draw.number(0.5, 0.9)],
    ]


UNSCALE_AND_CLIP = exercise(
    unscale_and_clip, stars=2, minutes=8, atol=1e-12, cases=unscale_and_clip_cases
)


### BEGIN SOLUTION
def all_finite(gradients):
    """Is no number infinite or nan?"""
    return all(g.isfinite().all() for g in gradients)


def total_length(gradients):
    """The length over all tensors together."""
    return torch.cat([g.flatten() for g in gradients]).norm()


def clip_factor(most, length):
    """What a gradient of this length is multiplied by."""
    return (most / length).clamp(max=1)


@UNSCALE_AND_CLIP.mistake(
    "the scaled gradients are clipped, whose length is `scale` times the true one; unscale first"
)
def unscale_and_clip_clips_first(gradients, scale, most):
    if not all_finite(gradients):
        return []
    gradients = [g.float() for g in gradients]
    factor = clip_factor(most, total_length(gradients))
    return [g * factor / scale for g in gradients]


@UNSCALE_AND_CLIP.mistake(
    "each tensor is clipped by its own length, which changes the direction; take the length of all "
    "together"
)
def unscale_and_clip_each_alone(gradients, scale, most):
    if not all_finite(gradients):
        return []
    gradients = [g.float() / scale for g in gradients]
    return [g * clip_factor(most, g.norm()) for g in gradients]


@UNSCALE_AND_CLIP.mistake(
    "each number is clipped by itself: clipping by value changes the direction"
)
def unscale_and_clip_by_value(gradients, scale, most):
    if not all_finite(gradients):
        return []
    return [(g.float() / scale).clamp(-most, most) for g in gradients]


@UNSCALE_AND_CLIP.mistake("the division is done in float16, where small gradients become 0 again")
def unscale_and_clip_in_float16(gradients, scale, most):
    if not all_finite(gradients):
        return []
    gradients = [(g / scale).float() for g in gradients]
    factor = clip_factor(most, total_length(gradients))
    return [g * factor for g in gradients]


@UNSCALE_AND_CLIP.mistake("a short gradient is made longer: the factor is at most 1")
def unscale_and_clip_lengthens(gradients, scale, most):
    if not all_finite(gradients):
        return []
    gradients = [g.float() / scale for g in gradients]
    factor = most / total_length(gradients)
    return [g * factor for g in gradients]


@UNSCALE_AND_CLIP.mistake(
    "infinite numbers and nan are not looked for; with one of them there is no step: return []"
)
def unscale_and_clip_without_looking(gradients, scale, most):
    gradients = [g.float() / scale for g in gradients]
    factor = clip_factor(most, total_length(gradients))
    return [g * factor for g in gradients]


### END SOLUTION
