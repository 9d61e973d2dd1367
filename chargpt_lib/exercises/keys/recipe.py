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


def share_read_twice_case(draw, n):
    batch_size = draw.integer(n // 5, n // 3)
    return [n, batch_size, draw.integer(4, 9)]


exercise(
    share_read_twice,
    stars=2,
    minutes=7,
    cases=lambda draw: [
        share_read_twice_case(draw, draw.integer(20, 40)),
        share_read_twice_case(draw, draw.integer(200, 400)),
        [n := draw.integer(3000, 5000), draw.integer(20, 40), n // 32],
        [draw.integer(5, 50), draw.integer(1, 5), 1],
        [n := draw.integer(5, 50), n, draw.integer(2, 5)],
        [draw.integer(6, 60), 1, 2],
        [1, 1, 1],
    ],
    wrong={
        ### BEGIN SOLUTION
        "that is the share read at least once: those read exactly once are still among them": lambda n, size, steps: (
            1 - (1 - size / n) ** steps
        ),
        "that is the share read exactly once": lambda n, size, steps: (
            steps * size / n * (1 - size / n) ** (steps - 1)
        ),
        "that is the share read exactly twice: three times and more is wanted, too": lambda n, size, steps: (
            math.comb(steps, 2) * (size / n) ** 2 * (1 - size / n) ** max(steps - 2, 0)
        ),
        "that is the share never read": lambda n, size, steps: (1 - size / n) ** steps,
        "those read once or never are the rest: take them from 1": lambda n, size, steps: (
            (1 - size / n) ** steps + steps * size / n * (1 - size / n) ** (steps - 1)
        ),
        "that would be single draws: the windows of one batch are all different, so p is batch_size / n": lambda n, size, steps: (
            1 - (1 - 1 / n) ** (steps * size) - steps * size / n * (1 - 1 / n) ** (steps * size - 1)
        ),
        "each window has p = 1 / n here: a batch takes batch_size of them": lambda n, size, steps: (
            1 - (1 - 1 / n) ** steps - steps / n * (1 - 1 / n) ** (steps - 1)
        ),
        "that is the limit for many windows and small batches, with its powers of e: the exact share is wanted": lambda n, size, steps: (
            1 - math.exp(-steps * size / n) * (1 + steps * size / n)
        ),
        "the one step in which a window is read may be any of them: that makes `steps` ways": lambda n, size, steps: (
            1 - (1 - size / n) ** steps - size / n * (1 - size / n) ** (steps - 1)
        ),
        "read once means: read in one step, and missed in the steps - 1 others": lambda n, size, steps: (
            1 - (1 - size / n) ** steps - steps * size / n * (1 - size / n) ** steps
        ),
        "a window read once was missed in all other steps: that factor is lacking": lambda n, size, steps: (
            1 - (1 - size / n) ** steps - steps * size / n
        ),
        "p squared holds for two steps alone: there are more": lambda n, size, steps: (
            (size / n) ** 2
        ),
        'the square of "at least once" is no "at least twice": both would be the same step': lambda n, size, steps: (
            (1 - (1 - size / n) ** steps) ** 2
        ),
        "so it would be with a shuffled pile, in which no window comes twice before all have come once: here are dice": lambda n, size, steps: (
            min(max(steps * size / n - 1, 0.0), 1.0)
        ),
        ### END SOLUTION
    },
    signs={
        "that is a number of windows; a share is asked for": lambda got, want, n, *_: (
            n > 1 and (math.isclose(got, n * want, rel_tol=1e-4) and want > 0)
        ),
        "that is in percent; a share lies from 0 to 1": lambda got, want, *_: (
            math.isclose(got, 100 * want, rel_tol=1e-4) and want > 0
        ),
    },
)


exercise(
    inverse_root_rate,
    stars=1,
    minutes=5,
    atol=1e-9,
    cases=lambda draw: [
        [0, draw.number(1e-3, 1e-2), draw.integer(10, 50)],
        [draw.integer(4, 7), draw.number(1e-3, 1e-2), 12],
        [(w := draw.integer(10, 50)) - 1, draw.number(1e-3, 1e-2), w],
        [w, draw.number(1e-3, 1e-2), w],
        [draw.integer(3, 9) * w + 2, draw.number(1e-3, 1e-2), w],
        [0, draw.number(1e-3, 1e-2), 1],
        [draw.integer(5, 900), draw.number(1e-3, 1e-2), 1],
    ],
    wrong={
        ### BEGIN SOLUTION
        "everything comes one step late: `step` counts from 0, so the first step is number 1": lambda step, peak, w: (
            peak * min(step / w, (w / max(step, 1)) ** 0.5)
        ),
        "step 0 divides by zero: `step` counts from 0, so the first step is number 1": lambda step, peak, w: (
            peak * min(step / w, (w / step) ** 0.5)
        ),
        "there is a jump after the warmup: the root of k alone is not 1 there": lambda step, peak, w: (
            peak * (step + 1) / w if step < w else peak / (step + 1) ** 0.5
        ),
        "it falls as 1 / k; the root is missing": lambda step, peak, w: (
            peak * min((step + 1) / w, w / (step + 1))
        ),
        "the root counts from the end of the warmup: k counts from the start of the run": lambda step, peak, w: (
            peak * (step + 1) / w if step < w else peak / (step + 2 - w) ** 0.5
        ),
        "k counts the steps of the whole run, not those since the warmup": lambda step, peak, w: (
            peak * (step + 1) / w
            if step < w
            else peak * min((w / max(step + 1 - w, 1)) ** 0.5, 1.0)
        ),
        "the larger one of rise and fall is taken; the smaller is right": lambda step, peak, w: (
            peak * max((step + 1) / w, (w / (step + 1)) ** 0.5)
        ),
        "the rise is missing: it falls from the first step on": lambda step, peak, w: (
            peak * (w / (step + 1)) ** 0.5
        ),
        "the fall is missing: after the warmup the rate stays": lambda step, peak, w: (
            peak * min((step + 1) / w, 1.0)
        ),
        "the rise is one step too long: the last step of the warmup has the peak": lambda step, peak, w: (
            peak * min((step + 1) / (w + 1), (w / (step + 1)) ** 0.5)
        ),
        "that is the share of the peak: the peak is not multiplied in": lambda step, peak, w: min(
            (step + 1) / w, (w / (step + 1)) ** 0.5
        ),
        "the paper's formula as it stands has its own peak, 1 / sqrt(warmup): here it is `peak`": lambda step, peak, w: (
            peak * min((step + 1) ** -0.5, (step + 1) * w**-1.5)
        ),
        "in the warmup it rises as a root: a line is wanted": lambda step, peak, w: (
            peak * min(((step + 1) / w) ** 0.5, (w / (step + 1)) ** 0.5)
        ),
        "after the warmup it goes on rising: the fraction under the root is upside down": lambda step, peak, w: (
            peak * (step + 1) / w if step < w else peak * ((step + 1) / w) ** 0.5
        ),
        ### END SOLUTION
    },
)


def accumulated_gradient_case(draw, lengths, size, V=5, dtype=torch.float32):
    x, y = draw.ids(V, len(lengths), max(lengths)), draw.ids(V, len(lengths), max(lengths))
    y[torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]] = -100
    return [draw.normal(V, V, dtype=dtype), x, y, size]


### BEGIN SOLUTION
def accumulated_gradient_as(weight, last=False, whole=False, pads=False):
    """weight(lines, targets, lines of all, targets of all, T, size): what the mean loss of a piece is multiplied by."""

    def accumulate(table, x, y, size):
        table, (B, T), targets = table.clone().requires_grad_(), y.shape, (y != -100).sum().item()
        y = y.clamp(min=0) if pads else y
        for i in range(0, B - size + 1 if whole and B >= size else B, size):
            a, b = x[i : i + size], y[i : i + size]
            if last:
                table.grad = None
            loss = F.cross_entropy(table[a].flatten(0, 1), b.flatten())
            (loss * weight(len(b), (b != -100).sum().item(), B, targets, T, size)).backward()
        return table.grad

    return accumulate


### END SOLUTION


exercise(
    accumulated_gradient,
    stars=2,
    minutes=8,
    atol=1e-6,
    cases=lambda draw: [
        accumulated_gradient_case(draw, [8, draw.integer(6, 7), draw.integer(4, 5), 2, 1], 2),
        accumulated_gradient_case(
            draw, [5, draw.integer(3, 4), draw.integer(1, 2), 1], 2, 6, torch.float64
        ),
        accumulated_gradient_case(draw, [6] * 7, draw.choice([2, 3]), 4, torch.float64),
        accumulated_gradient_case(draw, [draw.integer(1, 6)], 1),
        accumulated_gradient_case(draw, [4, 2, 3], 5),
        accumulated_gradient_case(draw, [1] * 3, 2),
    ],
    wrong={
        ### BEGIN SOLUTION
        "nothing is mended yet: each piece counts the same, however many targets it has": accumulated_gradient_as(
            lambda lines, n, B, N, T, size: 1 / -(-B // size)
        ),
        "the pieces are weighted by their lines (or places): the lines have different numbers of targets": accumulated_gradient_as(
            lambda lines, n, B, N, T, size: lines / B
        ),
        "`size` / B is no weight for a piece: lines have different numbers of targets, and the last piece is smaller": accumulated_gradient_as(
            lambda lines, n, B, N, T, size: min(size / B, 1)
        ),
        "the means of the pieces are added up as they are": accumulated_gradient_as(lambda *_: 1),
        "the sum of all losses is not divided by the number of targets": accumulated_gradient_as(
            lambda lines, n, B, N, T, size: n
        ),
        "it divides by all places, B·T: those with -100 are no targets": accumulated_gradient_as(
            lambda lines, n, B, N, T, size: n / (B * T)
        ),
        "the number of pieces is rounded down": accumulated_gradient_as(
            lambda lines, n, B, N, T, size: 1 / max(B // size, 1)
        ),
        "the sum of the losses is divided by the lines: the mean goes over the targets": accumulated_gradient_as(
            lambda lines, n, B, N, T, size: n / B
        ),
        "divided by the targets and by the pieces: one of the two is too much": accumulated_gradient_as(
            lambda lines, n, B, N, T, size: n / N / -(-B // size)
        ),
        "a mean is divided by the number of all targets: only a mean times its own targets is a sum": accumulated_gradient_as(
            lambda lines, n, B, N, T, size: 1 / N
        ),
        "that is the last piece's gradient alone: between pieces nothing is set to zero": accumulated_gradient_as(
            lambda lines, n, B, N, T, size: n / N, last=True
        ),
        "the last, smaller piece is left out": accumulated_gradient_as(
            lambda lines, n, B, N, T, size: n / N, whole=True
        ),
        "each line counts the same: a line with more targets has more to say": lambda table, x, y, size: (
            accumulated_gradient_as(lambda lines, n, B, N, T, size: 1 / B)(table, x, y, 1)
        ),
        "the places with -100 are counted as targets (as the character 0)": accumulated_gradient_as(
            lambda lines, n, B, N, T, size: lines / B, pads=True
        ),
        ### END SOLUTION
    },
    signs={
        "the sign is turned: that way the loss would rise": lambda got, want, *_: torch.allclose(
            got, -want, atol=1e-6
        ),
    },
)


def unscale_and_clip_case(draw, size, scale, most, bad=()):
    """Gradients of about this size, scaled; bad: what one number each of the first tensors is replaced by."""
    shapes = [(draw.integer(2, 4), 3), (draw.integer(2, 5),), (2, draw.integer(2, 3))]
    gradients = [
        ((0.5 + draw.uniform(*shape)) * draw.normal(*shape).sign() * size * scale).half()
        for shape in shapes
    ]
    for gradient, number in zip(gradients, bad):
        gradient.view(-1)[draw.integer(0, gradient.numel() - 1)] = number
    return [gradients, scale, most]


### BEGIN SOLUTION
def unscale_and_clip_as(
    bad=lambda g: not g.isfinite().all(),
    drop=False,
    to=lambda g, scale: g.float() / scale,
    length=lambda gs: sum(g.square().sum() for g in gs).sqrt(),
    factor=None,
    each=False,
    before=lambda g, scale: g,
    after=lambda g, scale: g,
):
    def clip(gradients, scale, most):
        if any(bad(g) for g in gradients) and not drop:
            return []
        gradients = [to(g, scale) for g in gradients if not (drop and bad(g))]
        of = (
            [length([before(g, scale)]) for g in gradients]
            if each
            else [length([before(g, scale) for g in gradients])] * len(gradients)
        )
        cut = factor or (lambda most, length: (most / length).clamp(max=1))
        return [after(g * cut(most, l), scale) for g, l in zip(gradients, of)]

    return clip


### END SOLUTION


exercise(
    unscale_and_clip,
    stars=2,
    minutes=8,
    atol=1e-12,
    cases=lambda draw: [
        unscale_and_clip_case(draw, draw.number(1, 2), 1024.0, draw.number(0.5, 1)),
        unscale_and_clip_case(draw, draw.number(0.08, 0.12), 4096.0, draw.number(1.5, 2)),
        unscale_and_clip_case(draw, draw.number(1e-8, 2e-8), 65536.0, 1.0),
        unscale_and_clip_case(draw, 1.0, 512.0, 1.0, [draw.choice([math.inf, -math.inf])]),
        unscale_and_clip_case(draw, 0.01, 512.0, 1.0, [0.0, math.nan]),
        [[torch.zeros(2, 2).half(), torch.zeros(3).half()], 128.0, 1.0],
        [[(1 + draw.uniform(1)).mul(2048).half()], 1024.0, draw.number(0.5, 0.9)],
    ],
    wrong={
        ### BEGIN SOLUTION
        "the scaled gradients are clipped: their length is `scale` times the true one; undo the scaling first": unscale_and_clip_as(
            before=lambda g, scale: g * scale
        ),
        "each tensor is clipped by its own length: the direction changes; the length goes over all together": unscale_and_clip_as(
            each=True
        ),
        "each number is cut off at `most`: that is clipping by value, and changes the direction": (
            lambda gradients, scale, most: [
                g.clamp(-most, most)
                for g in unscale_and_clip_as(factor=lambda most, length: 1.0)(
                    gradients, scale, most
                )
            ]
        ),
        "the division is done in float16, where small gradients become 0 again": unscale_and_clip_as(
            to=lambda g, scale: (g / scale).float()
        ),
        "the scaling is not undone": unscale_and_clip_as(to=lambda g, scale: g.float()),
        "it multiplies by the scale once more": unscale_and_clip_as(
            to=lambda g, scale: g.float() * scale
        ),
        "nothing is clipped": unscale_and_clip_as(factor=lambda most, length: 1.0),
        "a short gradient is made longer: the factor is at most 1": unscale_and_clip_as(
            factor=lambda most, length: most / length
        ),
        "a short gradient is made longer (and zeros are spared): the factor is at most 1": unscale_and_clip_as(
            factor=lambda most, length: most / (length + 1e-6)
        ),
        "infinite numbers and nan are not looked for: no step can be made with them": unscale_and_clip_as(
            bad=lambda g: False
        ),
        "infinite numbers are found, and nan is not": unscale_and_clip_as(
            bad=lambda g: g.isinf().any()
        ),
        "nan is found, and infinite numbers are not": unscale_and_clip_as(
            bad=lambda g: g.isnan().any()
        ),
        "only the tensor with the bad number is left out: the whole step is, so return []": unscale_and_clip_as(
            drop=True
        ),
        "the lengths of the tensors are added up: add the squares, then take the root": unscale_and_clip_as(
            length=lambda gs: sum(g.norm() for g in gs)
        ),
        "the longest tensor sets the factor: the length goes over all of them together": unscale_and_clip_as(
            length=lambda gs: max(g.norm() for g in gs)
        ),
        "the root is missing: that is the square of the length": unscale_and_clip_as(
            length=lambda gs: sum(g.square().sum() for g in gs)
        ),
        "the largest number is taken for the length": unscale_and_clip_as(
            length=lambda gs: max(g.abs().max() for g in gs)
        ),
        "what is returned is float16 again: the optimizer works in float32": unscale_and_clip_as(
            after=lambda g, scale: g.half()
        ),
        ### END SOLUTION
    },
)
