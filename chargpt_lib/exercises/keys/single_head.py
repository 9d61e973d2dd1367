"""How the exercises of lesson 03 are judged: cases, symptoms, mistakes."""

import math

import torch

from chargpt_lib.exercises.answers.single_head import (
    characters_looked_at,
    left_padded_weights,
    merged_attention,
    score_gradient,
    window_mask,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- window_mask


def window_mask_cases(draw):
    return [
        [1, 1],
        [2, draw.integer(1, 2)],
        [draw.integer(7, 40), draw.integer(2, 5)],
        *([T, draw.integer(1, T)] for T in (draw.integer(3, 9), draw.integer(10, 40))),
    ]


WINDOW_MASK = exercise(window_mask, stars=1, minutes=5, cases=window_mask_cases)


@WINDOW_MASK.symptom("row {0} looks at position {1}: the mask lets the future in")
def window_mask_sees_the_future(got, want, T, w):
    return got.triu(1)


@WINDOW_MASK.symptom("row {0} does not look at itself")
def window_mask_misses_itself(got, want, T, w):
    return ~got & torch.eye(T).bool()


### BEGIN SOLUTION
@WINDOW_MASK.mistake("the window is one position too wide: with itself, it sees w + 1")
def window_mask_too_wide(T, w):
    return torch.ones(T, T).tril().triu(-w).bool()


@WINDOW_MASK.mistake("the window is one position too narrow: with itself, it sees w - 1")
def window_mask_too_narrow(T, w):
    return torch.ones(T, T).tril().triu(2 - w).bool()


@WINDOW_MASK.mistake("no window: the whole past is seen")
def window_mask_without_window(T, w):
    return torch.ones(T, T).tril().bool()


@WINDOW_MASK.mistake("rows and columns are exchanged: rows are the positions that look")
def window_mask_transposed(T, w):
    return torch.ones(T, T).tril().triu(1 - w).bool().T


@WINDOW_MASK.mistake("True stands where one may not look")
def window_mask_inverted(T, w):
    return ~torch.ones(T, T).tril().triu(1 - w).bool()


### END SOLUTION


# ---------------------------------------------------------------- score_gradient


def score_gradient_case(draw, *shape, dtype=torch.float32):
    d = draw.choice([4, 9, 16])
    r = d**0.5 * draw.normal(*shape, dtype=dtype)
    g = 2 * draw.normal(*shape, dtype=dtype) + 1
    return [r, g, d]


def score_gradient_cases(draw):
    masked = torch.tensor([[0.0, -math.inf, -math.inf], [2.0, 1.0, -math.inf]])
    return [
        score_gradient_case(draw, 1),
        score_gradient_case(draw, draw.integer(3, 7)),
        score_gradient_case(draw, 2, 4, dtype=torch.float64),
        score_gradient_case(draw, 3, 2, draw.integer(3, 5)),
        [masked, draw.normal(2, 3), 4],
    ]


SCORE_GRADIENT = exercise(score_gradient, stars=3, minutes=12, cases=score_gradient_cases)


@SCORE_GRADIENT.symptom("the sign is reversed")
def score_gradient_sign(got, want, r, g, d):
    return torch.allclose(got, -want, atol=1e-5)


### BEGIN SOLUTION
@SCORE_GRADIENT.mistake("the chain rule ends at r / √d: one more factor leads to r")
def score_gradient_of_the_scaled(r, g, d):
    p = (r / d**0.5).softmax(-1)
    return p * (g - (p * g).sum(-1, keepdim=True))


@SCORE_GRADIENT.mistake("√d is missing, inside and outside: p is the softmax of r / √d")
def score_gradient_without_scale(r, g, d):
    p = r.softmax(-1)
    return p * (g - (p * g).sum(-1, keepdim=True))


@SCORE_GRADIENT.mistake(
    "only the effect on its own weight is there, p (1 - p): a score changes the other weights too"
)
def score_gradient_diagonal(r, g, d):
    p = (r / d**0.5).softmax(-1)
    return p * (1 - p) * g / d**0.5


@SCORE_GRADIENT.mistake("that is p g: the sum over all weights is missing")
def score_gradient_without_the_sum(r, g, d):
    p = (r / d**0.5).softmax(-1)
    return p * g / d**0.5


@SCORE_GRADIENT.mistake(
    "p - g is the rule for cross-entropy (lesson 02): here g is the derivative of the loss by p"
)
def score_gradient_cross_entropy(r, g, d):
    p = (r / d**0.5).softmax(-1)
    return (p - g) / d**0.5


### END SOLUTION


# ---------------------------------------------------------------- left_padded_weights


def left_padded_weights_case(draw, T, starts, dtype=torch.float32):
    return [draw.normal(len(starts), T, T, dtype=dtype), torch.tensor(starts)]


def left_padded_weights_far(draw):
    """The scores of one text are very large, those of the other very low."""
    scores, starts = left_padded_weights_case(draw, 4, [draw.integer(1, 2), 0])
    scores[0] += draw.number(200, 390)
    scores[1] -= draw.number(200, 390)
    return [scores, starts]


def left_padded_weights_cases(draw):
    T = draw.integer(4, 7)
    return [
        left_padded_weights_case(draw, 1, [0]),
        left_padded_weights_case(draw, 5, [draw.integer(1, 3)]),
        left_padded_weights_case(draw, T, [draw.integer(1, 2), 0, 3], torch.float64),
        left_padded_weights_case(draw, draw.integer(3, 6), [draw.integer(0, 2) for _ in range(4)]),
        left_padded_weights_far(draw),
    ]


LEFT_PADDED_WEIGHTS = exercise(
    left_padded_weights, stars=2, minutes=8, cases=left_padded_weights_cases
)


@LEFT_PADDED_WEIGHTS.symptom(
    "text {0}: row {1} is nan: e^200 overflows float32; softmax subtracts the row's maximum first"
)
def left_padded_weights_overflow(got, want, scores, starts):
    large = scores.amax(-1) > 150
    padding_rows = want.sum(-1) == 0
    return got.isnan().any(-1) & large & ~padding_rows


@LEFT_PADDED_WEIGHTS.symptom(
    "text {0}: row {1} is nan: this query may attend to nothing, and softmax divides 0 by 0"
)
def left_padded_weights_nan(got, want, scores, starts):
    return got.isnan().any(-1)


@LEFT_PADDED_WEIGHTS.symptom("text {0}: row {1} is the query of a filler: it has to be 0")
def left_padded_weights_padding_row(got, want, scores, starts):
    padding_rows = want.sum(-1) == 0
    return padding_rows & (got.abs().sum(-1) > 1e-3)


@LEFT_PADDED_WEIGHTS.symptom("text {0}: row {1} attends to position {2}, in the future")
def left_padded_weights_future(got, want, scores, starts):
    return got.triu(1) > 1e-3


@LEFT_PADDED_WEIGHTS.symptom(
    "text {0}: row {1} does not sum to 1: hide scores with -∞, then softmax over the last axis"
)
def left_padded_weights_sum(got, want, scores, starts):
    padding_rows = want.sum(-1) == 0
    return ((got.sum(-1) - 1).abs() > 1e-3) & ~padding_rows


@LEFT_PADDED_WEIGHTS.symptom("text {0}: row {1} attends to position {2}, a filler")
def left_padded_weights_filler(got, want, scores, starts):
    return (want == 0) & (got > 1e-3)


# ---------------------------------------------------------------- characters_looked_at


def characters_looked_at_case(draw, *shape, dtype=torch.float32):
    T = shape[-1]
    scores = 1.5 * draw.normal(*shape, T, dtype=dtype)
    future = torch.ones(T, T).triu(1).bool()
    return [scores.masked_fill(future, -math.inf).softmax(-1)]


def characters_looked_at_cases(draw):
    return [
        characters_looked_at_case(draw, 1),
        characters_looked_at_case(draw, draw.integer(3, 8)),
        characters_looked_at_case(draw, 2, draw.integer(3, 6), dtype=torch.float64),
        characters_looked_at_case(draw, 3, 2, 4),
        [torch.eye(draw.integer(2, 5))],
    ]


CHARACTERS_LOOKED_AT = exercise(
    characters_looked_at, stars=2, minutes=7, atol=1e-4, cases=characters_looked_at_cases
)


@CHARACTERS_LOOKED_AT.symptom("row {1} is nan: 0 · ln 0 is not a number; a weight of 0 adds 0")
def characters_looked_at_nan(got, want, weights):
    return got.isnan().view(-1, weights.shape[-1])


@CHARACTERS_LOOKED_AT.symptom(
    "the minus of the entropy is missing: no row can look at less than one character"
)
def characters_looked_at_minus(got, want, weights):
    return torch.allclose(got * want, torch.ones_like(want), atol=1e-3)


### BEGIN SOLUTION
@CHARACTERS_LOOKED_AT.mistake("that is the entropy, in nats: raise e to it")
def characters_looked_at_entropy(weights):
    return torch.special.entr(weights).sum(-1)


@CHARACTERS_LOOKED_AT.mistake("the columns are measured: the weights of a query are a row")
def characters_looked_at_columns(weights):
    return torch.special.entr(weights).sum(-2).exp()


@CHARACTERS_LOOKED_AT.mistake(
    "all positions with any weight are counted: a weight of 0.01 counts for much less than one"
)
def characters_looked_at_count(weights):
    return (weights > 0).sum(-1).to(weights.dtype)


@CHARACTERS_LOOKED_AT.mistake(
    "e is raised to an entropy with logarithms to base 2: use the same base for both"
)
def characters_looked_at_two_bases(weights):
    bits = torch.special.entr(weights).sum(-1) / math.log(2)
    return bits.exp()


### END SOLUTION


# ---------------------------------------------------------------- merged_attention


def merged_attention_case(draw, P, T, offset=0.0, scale=1.0, dtype=torch.float32):
    """Random pieces; a quarter of them hold nothing for a query, but never all of them."""
    outs = draw.normal(P, T, draw.integer(2, 4), dtype=dtype)
    logs = scale * draw.normal(P, T, dtype=dtype) + offset
    empty = draw.uniform(P, T) < 0.25
    empty[draw.integer(0, P - 1)] = False
    return [outs.masked_fill(empty[..., None], 0.0), logs.masked_fill(empty, -math.inf)]


def merged_attention_causal(draw):
    """The first two pieces hold nothing for the first queries."""
    outs = draw.normal(3, 4, 2)
    logs = draw.normal(3, 4)
    outs[:2, :2] = 0.0
    logs[:2, :2] = -math.inf
    return [outs, logs]


def merged_attention_uneven(draw):
    """The ℓ are near 1000 for one query, near 0 for the next, near -1000 for the last."""
    outs = draw.normal(3, 3, 2, dtype=torch.float64)
    logs = draw.normal(3, 3, dtype=torch.float64)
    offsets = torch.tensor([draw.number(900, 1100), 0.0, -draw.number(900, 1100)])
    return [outs, logs + offsets]


def merged_attention_cases(draw):
    return [
        [draw.normal(2, 3, 4), draw.normal(2, 3)],
        merged_attention_case(draw, 1, draw.integer(1, 4)),
        merged_attention_case(draw, draw.integer(3, 5), 1, dtype=torch.float64),
        merged_attention_causal(draw),
        merged_attention_case(draw, 3, 4, 1000.0, 2.0, torch.float64),
        merged_attention_case(draw, 4, draw.integer(2, 4), -1000.0, 2.0, torch.float64),
        merged_attention_uneven(draw),
    ]


MERGED_ATTENTION = exercise(
    merged_attention, stars=3, minutes=20, atol=1e-3, rtol=1e-3, cases=merged_attention_cases
)


@MERGED_ATTENTION.symptom(
    "query {0} is nan: e^ℓ is ∞ for ℓ = 1000, and 0 for -1000; subtract each query's largest ℓ"
)
def merged_attention_overflow(got, want, outs, logs):
    return got[0].isnan().any(-1) & (want[1].abs() > 500)


@MERGED_ATTENTION.symptom(
    "query {0} is nan: the first pieces hold nothing for it, and -∞ minus -∞ is not a number"
)
def merged_attention_empty(got, want, outs, logs):
    first_are_empty = logs[:2].isinf().all(0)
    return got[0].isnan().any(-1) & first_are_empty


@MERGED_ATTENTION.symptom(
    "query {0}: ℓ is infinite; subtract the largest ℓ before exp, and add it after the logarithm"
)
def merged_attention_infinite(got, want, outs, logs):
    return got[1].isinf()


### BEGIN SOLUTION
@MERGED_ATTENTION.mistake(
    "o is the plain mean of the pieces: a piece counts by its share of the whole weight"
)
def merged_attention_mean(outs, logs):
    return [outs.mean(0), logs.logsumexp(0)]


@MERGED_ATTENTION.mistake("o is right, but the ℓ are added: add the weights e^ℓ of the pieces")
def merged_attention_sum_of_logarithms(outs, logs):
    shares = logs.softmax(0)
    return [(shares[..., None] * outs).sum(0), logs.sum(0)]


@MERGED_ATTENTION.mistake("o is right, but ℓ is the whole weight: its logarithm is wanted")
def merged_attention_whole_weight(outs, logs):
    shares = logs.softmax(0)
    return [(shares[..., None] * outs).sum(0), logs.exp().sum(0)]


### END SOLUTION
