"""How the exercises of lesson 05 are judged: cases, mistakes, symptoms."""

import math

import torch
from torch.nn import functional as F

from chargpt_lib.exercises.answers.blocks import (
    dead_units,
    layer_norm_gradient,
    mended_dropout,
    parallel_block,
    stream_deviation,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- dead_units


def dead_units_case(draw, B, T, units, dead, dtype):
    """`dead` units are dead, and others are silent in one text or at one character only."""
    z = draw.normal(B, T, units, dtype=dtype)
    z[0, 0] = z[0, 0].abs() + 0.1
    z[..., :dead] = -z[..., :dead].abs() - 0.1
    z[-1, -1, 0] = 0  # a unit is dead at exactly 0, too
    if T > 1:
        z[0, :, dead] = -1  # silent in the first text
        z[0, -1, -1] = -1  # silent at one character
    if B > 1:
        z[-1, :, dead + 1 : dead + 3] = -1  # silent in the last text
        z[-1, 0, dead] = 1
    order = draw.ids(10**6, units).argsort()
    return [z[..., order]]


def dead_units_silent_text(draw):
    """One unit is dead; one text is silent, and one character of the other text."""
    z = draw.normal(2, 3, draw.integer(5, 7)).abs() + 0.1
    z[1] = -z[1]
    z[0, 2] = -z[0, 2]
    z[..., 0] = -z[..., 0].abs()
    return [z]


def dead_units_cases(draw):
    B = draw.integer(2, 4)
    T = draw.integer(2, 5)
    units = draw.integer(12, 15)
    return [
        dead_units_case(draw, 1, 1, 7, 3, torch.float32),
        dead_units_case(draw, 1, 4, 9, 2, torch.float64),
        dead_units_case(draw, 2, 3, 11, draw.integer(2, 4), torch.float32),
        dead_units_case(draw, B, T, units, draw.integer(2, 5), torch.float64),
        dead_units_silent_text(draw),
    ]


DEAD_UNITS = exercise(dead_units, stars=1, minutes=5, cases=dead_units_cases)


### BEGIN SOLUTION
@DEAD_UNITS.mistake("this is the share of zeros; a unit is dead only if it is 0 for all characters")
def dead_units_share_of_zeros(z):
    return (z <= 0).double().mean().item()


@DEAD_UNITS.mistake("units that are 0 for some character are counted; dead units are 0 for all")
def dead_units_silent_somewhere(z):
    silent = (z <= 0).flatten(0, 1)
    return silent.any(0).double().mean().item()


@DEAD_UNITS.mistake("this is the share of the characters for which all units are 0")
def dead_units_wrong_axis(z):
    return (z <= 0).all(-1).double().mean().item()


@DEAD_UNITS.mistake(
    "units are counted text by text; a unit that is 0 in one text may live in another"
)
def dead_units_text_by_text(z):
    silent_in_text = (z <= 0).all(1)
    return silent_in_text.double().mean().item()


@DEAD_UNITS.mistake("this is the number of dead units, not their share")
def dead_units_number(z):
    silent = (z <= 0).flatten(0, 1)
    return silent.all(0).sum().item()


@DEAD_UNITS.mistake("a number that is exactly 0 stays 0 after the ReLU: it counts, too")
def dead_units_strictly_negative(z):
    negative = (z < 0).flatten(0, 1)
    return negative.all(0).double().mean().item()


### END SOLUTION

# ---------------------------------------------------------------- stream_deviation


def stream_deviation_case(draw, n_layer, scaled):
    start = draw.number(0.5, 3)
    added = draw.number(1, 3)
    return [n_layer, start, added, scaled]


def stream_deviation_cases(draw):
    return [
        stream_deviation_case(draw, 1, False),
        stream_deviation_case(draw, 1, True),
        stream_deviation_case(draw, draw.integer(2, 12), False),
        stream_deviation_case(draw, draw.integer(3, 9), True),
        # the start is larger than what is added: without its square the result is below it
        [draw.integer(10, 96), draw.number(2.5, 3), draw.number(1, 1.5), True],
    ]


STREAM_DEVIATION = exercise(stream_deviation, stars=1, minutes=5, cases=stream_deviation_cases)


@STREAM_DEVIATION.symptom("the result is smaller than the start; variances only add up")
def stream_deviation_below_start(got, want, n_layer, start, added, scaled):
    return got < start


### BEGIN SOLUTION
@STREAM_DEVIATION.mistake(
    "the standard deviations are added; for independent numbers it is the variances that add"
)
def stream_deviation_adds_deviations(n_layer, start, added, scaled):
    steps = 2 * n_layer
    if scaled:
        added = added / math.sqrt(steps)
    return start + steps * added


@STREAM_DEVIATION.mistake("each block adds twice: that makes 2N additions, not N")
def stream_deviation_once_per_block(n_layer, start, added, scaled):
    steps = n_layer
    if scaled:
        added = added / math.sqrt(steps)
    return math.sqrt(start**2 + steps * added**2)


@STREAM_DEVIATION.mistake("this is the variance: take its root")
def stream_deviation_variance(n_layer, start, added, scaled):
    steps = 2 * n_layer
    if scaled:
        added = added / math.sqrt(steps)
    return start**2 + steps * added**2


@STREAM_DEVIATION.mistake("the factor is 1/√(2N), not 1/(2N)")
def stream_deviation_factor_without_root(n_layer, start, added, scaled):
    steps = 2 * n_layer
    if scaled:
        added = added / steps
    return math.sqrt(start**2 + steps * added**2)


@STREAM_DEVIATION.mistake("the start is scaled, too; only what is added is multiplied by 1/√(2N)")
def stream_deviation_scaled_start(n_layer, start, added, scaled):
    steps = 2 * n_layer
    if scaled:
        start = start / math.sqrt(steps)
        added = added / math.sqrt(steps)
    return math.sqrt(start**2 + steps * added**2)


### END SOLUTION

# ---------------------------------------------------------------- mended_dropout


def mended_dropout_case(draw, shape, p, training, dtype):
    """Where p > 0 and there are two numbers or more, one is dropped and one is kept."""
    u = draw.uniform(*shape, dtype=dtype)
    u.view(-1)[0] = 0.05 if p else 0.5
    u.view(-1)[-1] = 0.95
    x = draw.normal(*shape, dtype=dtype) + 3
    return [x, u, p, training]


def mended_dropout_cases(draw):
    low = draw.number(0.15, 0.3)
    high = draw.number(0.6, 0.8)
    return [
        mended_dropout_case(draw, (7,), 0.0, True, torch.float32),
        mended_dropout_case(draw, (8, 5), low, True, torch.float64),
        mended_dropout_case(draw, (4, 5), 0.3, False, torch.float32),
        mended_dropout_case(draw, (1, 1), high, False, torch.float64),
        mended_dropout_case(draw, (2, 3, 6), high, True, torch.float32),
    ]


MENDED_DROPOUT = exercise(mended_dropout, stars=1, minutes=3, cases=mended_dropout_cases)


@MENDED_DROPOUT.symptom("in evaluation every number has to stay as it is")
def mended_dropout_changes_in_evaluation(got, want, x, u, p, training):
    return (got != x) & (not training)


@MENDED_DROPOUT.symptom(
    "u decides which numbers are dropped; F.dropout and torch.rand draw random numbers of their own"
)
def mended_dropout_ignores_u(got, want, x, u, p, training):
    if not training:
        return False
    order = u.flatten().argsort()
    dropped = (got == 0).flatten()[order]  # if u decides, first all dropped ones, then all kept
    changes = dropped.int().diff().count_nonzero()
    return changes > 1


### BEGIN SOLUTION
@MENDED_DROPOUT.mistake("both bugs are still there")
def mended_dropout_as_it_was(x, u, p, training):
    kept = (u >= p).to(x.dtype)
    if training:
        kept = kept / p
    return x * kept


@MENDED_DROPOUT.mistake("it still divides by p; what share of the numbers stays?")
def mended_dropout_divides_by_p(x, u, p, training):
    if not training:
        return x
    kept = (u >= p).to(x.dtype)
    return x * kept / p


@MENDED_DROPOUT.mistake("it still drops numbers in evaluation")
def mended_dropout_drops_in_evaluation(x, u, p, training):
    kept = (u >= p).to(x.dtype)
    if training:
        kept = kept / (1 - p)
    return x * kept


@MENDED_DROPOUT.mistake("the numbers that stay are not divided: the mean becomes smaller")
def mended_dropout_without_division(x, u, p, training):
    if not training:
        return x
    return x * (u >= p)


### END SOLUTION

# ---------------------------------------------------------------- layer_norm_gradient


def layer_norm_gradient_case(draw, B, T, C, dtype):
    x = 2 * draw.normal(B, T, C, dtype=dtype) + 1
    g = draw.normal(B, T, C, dtype=dtype) + 1
    eps = draw.number(0.1, 0.9)
    return [x, g, eps]


def layer_norm_gradient_cases(draw):
    B = draw.integer(1, 3)
    T = draw.integer(2, 5)
    C = draw.integer(5, 9)
    return [
        layer_norm_gradient_case(draw, 1, 1, 5, torch.float32),
        layer_norm_gradient_case(draw, 2, 3, 4, torch.float64),
        layer_norm_gradient_case(draw, 1, 2, 8, torch.float32),
        layer_norm_gradient_case(draw, 2, 2, 1, torch.float64),
        layer_norm_gradient_case(draw, B, T, C, torch.float32),
    ]


LAYER_NORM_GRADIENT = exercise(
    layer_norm_gradient, stars=3, minutes=30, cases=layer_norm_gradient_cases, atol=2e-5
)


@LAYER_NORM_GRADIENT.symptom(
    "text {0}, character {1}: the result does not sum to 0 over the C numbers"
)
def layer_norm_gradient_sum(got, want, x, g, eps):
    return got.sum(-1).abs() > 1e-3


### BEGIN SOLUTION
@LAYER_NORM_GRADIENT.mistake("μ and s are treated as constants, but they depend on x, too")
def layer_norm_gradient_constants(x, g, eps):
    r = (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    return g / r


@LAYER_NORM_GRADIENT.mistake(
    "this is only what x_i does to its own y_i; through μ and s² it moves all y_j: a sum over j is "
    "missing"
)
def layer_norm_gradient_own_y(x, g, eps):
    C = x.shape[-1]
    r = (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    y = (x - x.mean(-1, keepdim=True)) / r
    return g * (1 - 1 / C - y**2 / C) / r


@LAYER_NORM_GRADIENT.mistake(
    "the path through s² is missing, or 0: the mean of y alone is 0; take the mean of g·y"
)
def layer_norm_gradient_without_variance(x, g, eps):
    r = (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    return (g - g.mean(-1, keepdim=True)) / r


@LAYER_NORM_GRADIENT.mistake("the path through μ is missing")
def layer_norm_gradient_without_mean(x, g, eps):
    r = (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    y = (x - x.mean(-1, keepdim=True)) / r
    return (g - y * (g * y).mean(-1, keepdim=True)) / r


@LAYER_NORM_GRADIENT.mistake("the path through s² has the wrong sign: a larger s makes y smaller")
def layer_norm_gradient_wrong_sign(x, g, eps):
    r = (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    y = (x - x.mean(-1, keepdim=True)) / r
    return (g - g.mean(-1, keepdim=True) + y * (g * y).mean(-1, keepdim=True)) / r


@LAYER_NORM_GRADIENT.mistake("the variance is divided by C - 1; a layer norm divides by C")
def layer_norm_gradient_unbiased(x, g, eps):
    r = (x.var(-1, keepdim=True) + eps).sqrt()
    y = (x - x.mean(-1, keepdim=True)) / r
    return (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True)) / r


### END SOLUTION

# ---------------------------------------------------------------- parallel_block


def parallel_block_case(draw, B, T, H, D, dtype):
    """D: the size of a head."""
    C = H * D
    W_qkv = draw.normal(3 * C, C, dtype=dtype) * 1.5 / math.sqrt(C)
    W_o = draw.normal(C, C, dtype=dtype) * 1.5 / math.sqrt(C)
    W_1 = draw.normal(4 * C, C, dtype=dtype) * 1.5 / math.sqrt(C)
    W_2 = draw.normal(C, 4 * C, dtype=dtype) * 1.5 / math.sqrt(4 * C)
    x = 2 * draw.normal(B, T, C, dtype=dtype) + 1
    return [x, W_qkv, W_o, W_1, W_2, H]


def parallel_block_cases(draw):
    B = draw.integer(1, 2)
    T = draw.integer(2, 5)
    return [
        parallel_block_case(draw, 1, 4, 2, 3, torch.float32),
        parallel_block_case(draw, 2, 3, 3, 2, torch.float64),
        parallel_block_case(draw, 1, 5, 1, 4, torch.float32),
        parallel_block_case(draw, 2, 1, 2, 2, torch.float64),
        parallel_block_case(draw, B, T, 2, 4, torch.float32),
    ]


PARALLEL_BLOCK = exercise(
    parallel_block, stars=3, minutes=15, cases=parallel_block_cases, atol=5e-5
)


@PARALLEL_BLOCK.symptom(
    "position 0 is wrong, where attention returns its own value: check norm, values, projection, "
    "FFN and sum"
)
def parallel_block_first_position(got, want, *args):
    return ~torch.isclose(got[:, 0], want[:, 0], 1e-3, 1e-3)


@PARALLEL_BLOCK.symptom("position 0 is right and a later one is wrong: is the attention right?")
def parallel_block_later_position(got, want, *args):
    return ~torch.isclose(got, want, 1e-3, 1e-3)


### BEGIN SOLUTION
def parallel_block_attention(y, W_qkv, W_o, n_head):
    B, T, C = y.shape
    q, k, v = (y @ W_qkv.T).view(B, T, 3, n_head, C // n_head).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.transpose(1, 2).reshape(B, T, C) @ W_o.T


def parallel_block_feed_forward(y, W_1, W_2):
    return F.gelu(y @ W_1.T) @ W_2.T


@PARALLEL_BLOCK.mistake(
    "the feed-forward layer waits for the attention: that is the sequential block of this lesson"
)
def parallel_block_sequential(x, W_qkv, W_o, W_1, W_2, n_head):
    C = x.shape[-1]
    x = x + parallel_block_attention(F.layer_norm(x, (C,)), W_qkv, W_o, n_head)
    return x + parallel_block_feed_forward(F.layer_norm(x, (C,)), W_1, W_2)


@PARALLEL_BLOCK.mistake("x itself is not added: the residual connection is missing")
def parallel_block_without_residual(x, W_qkv, W_o, W_1, W_2, n_head):
    y = F.layer_norm(x, x.shape[-1:])
    attended = parallel_block_attention(y, W_qkv, W_o, n_head)
    return attended + parallel_block_feed_forward(y, W_1, W_2)


@PARALLEL_BLOCK.mistake("the norm is missing: both layers read LN(x), not x")
def parallel_block_without_norm(x, W_qkv, W_o, W_1, W_2, n_head):
    attended = parallel_block_attention(x, W_qkv, W_o, n_head)
    return x + attended + parallel_block_feed_forward(x, W_1, W_2)


@PARALLEL_BLOCK.mistake("the attention sees the future")
def parallel_block_not_causal(x, W_qkv, W_o, W_1, W_2, n_head):
    B, T, C = x.shape
    y = F.layer_norm(x, (C,))
    q, k, v = (y @ W_qkv.T).view(B, T, 3, n_head, C // n_head).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(q, k, v)
    attended = out.transpose(1, 2).reshape(B, T, C) @ W_o.T
    return x + attended + parallel_block_feed_forward(y, W_1, W_2)


@PARALLEL_BLOCK.mistake(
    "the heads are joined again without exchanging the axes of heads and positions"
)
def parallel_block_joins_without_transpose(x, W_qkv, W_o, W_1, W_2, n_head):
    B, T, C = x.shape
    y = F.layer_norm(x, (C,))
    q, k, v = (y @ W_qkv.T).view(B, T, 3, n_head, C // n_head).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    attended = out.reshape(B, T, C) @ W_o.T
    return x + attended + parallel_block_feed_forward(y, W_1, W_2)


### END SOLUTION
