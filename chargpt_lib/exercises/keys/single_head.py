"""How the exercises of lesson 03 are judged: cases, mistakes, symptoms."""

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


@WINDOW_MASK.mistake(
    "the first rows are empty: t - w + 1 is negative there, and a negative start of a slice "
    "counts from the end"
)
def window_mask_negative_start(T, w):
    rows = torch.arange(T)[:, None]
    return torch.ones(T, T).tril().triu(1 - w).bool() & (rows >= w - 1)


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
    return [d**0.5 * draw.normal(*shape, dtype=dtype), 2 * draw.normal(*shape, dtype=dtype) + 1, d]


### BEGIN SOLUTION
def score_gradient_p(r, d):
    return (r / d**0.5).softmax(-1)


### END SOLUTION


exercise(
    score_gradient,
    stars=3,
    minutes=12,
    cases=lambda draw: [
        score_gradient_case(draw, 1),
        score_gradient_case(draw, draw.integer(3, 7)),
        score_gradient_case(draw, 2, 4, dtype=torch.float64),
        score_gradient_case(draw, 3, 2, draw.integer(3, 5)),
        [torch.tensor([[0.0, -math.inf, -math.inf], [2.0, 1.0, -math.inf]]), draw.normal(2, 3), 4],
    ],
    wrong={
        ### BEGIN SOLUTION
        "the chain rule ends at r / √d; one more factor leads to r": lambda r, g, d: (
            score_gradient(r, g, d) * d**0.5
        ),
        "the factor √d is on the wrong side: r / √d changes more slowly than r, not faster": lambda r, g, d: (
            score_gradient(r, g, d) * d
        ),
        "it divides by d, where the root of d is meant": lambda r, g, d: (
            score_gradient(r, g, d) / d**0.5
        ),
        "√d is missing, inside and outside: the weights are the softmax of r / √d": lambda r, g, d: (
            score_gradient(r, g, 1)
        ),
        "each score was let move its own weight only, p (1 - p); it moves the others too": lambda r, g, d: (
            score_gradient_p(r, d) * (1 - score_gradient_p(r, d)) * g / d**0.5
        ),
        "that is p g: the sum over the other weights is missing": lambda r, g, d: (
            score_gradient_p(r, d) * g / d**0.5
        ),
        "the plain mean of g is subtracted; it is the mean with the weights p": lambda r, g, d: (
            score_gradient_p(r, d) * (g - g.mean(-1, keepdim=True)) / d**0.5
        ),
        "the sum of all g is subtracted; each g counts by its weight p": lambda r, g, d: (
            score_gradient_p(r, d) * (g - g.sum(-1, keepdim=True)) / d**0.5
        ),
        "the sum runs over all queries; each query has its own": lambda r, g, d: (
            score_gradient_p(r, d) * (g - (score_gradient_p(r, d) * g).sum()) / d**0.5
        ),
        "p minus g is the rule for cross-entropy (lesson 02); here g says how the loss hangs on p": lambda r, g, d: (
            (score_gradient_p(r, d) - g) / d**0.5
        ),
        "p - g is the rule for cross-entropy (lesson 02); here g says how the loss hangs on p": lambda r, g, d: (
            score_gradient_p(r, d) - g
        ),
        "√d is missing inside: the weights are the softmax of r / √d, not of r": lambda r, g, d: (
            score_gradient(r, g, 1) / d**0.5
        ),
        "the sum has p_j in it, the same for all i; each g_i counts by its own p_i": lambda r, g, d: (
            score_gradient_p(r, d) * (g - score_gradient_p(r, d) * g.sum(-1, keepdim=True)) / d**0.5
        ),
        "the weight's own part, i = j, is missing: its derivative is p_j (1 - p_j)": lambda r, g, d: (
            -score_gradient_p(r, d)
            / d**0.5
            * ((score_gradient_p(r, d) * g).sum(-1, keepdim=True) - score_gradient_p(r, d) * g)
        ),
        "for i = j it has p_j, and not p_j (1 - p_j)": lambda r, g, d: (
            score_gradient_p(r, d)
            / d**0.5
            * (g + score_gradient_p(r, d) * g - (score_gradient_p(r, d) * g).sum(-1, keepdim=True))
        ),
        ### END SOLUTION
    },
    signs={
        "the sign is reversed": lambda got, want, r, g, d: torch.allclose(got, -want, atol=1e-5),
        "number {0} is nan: a score of -∞ has the weight 0, and the derivative 0": lambda got, want, r, g, d: (
            got.isnan()
        ),
    },
)


def left_padded_weights_case(draw, T, starts, dtype=torch.float32):
    return [draw.normal(len(starts), T, T, dtype=dtype), torch.tensor(starts)]


def left_padded_weights_far(draw):
    """The scores of one text are very large, those of the other very low."""
    scores, starts = left_padded_weights_case(draw, 4, [draw.integer(1, 2), 0])
    return [
        scores + torch.tensor([draw.number(200, 390), -draw.number(200, 390)])[:, None, None],
        starts,
    ]


def left_padded_weights_rows(want):
    """(B, T) bool: the queries that are fillers."""
    return want.sum(-1) == 0


exercise(
    left_padded_weights,
    stars=2,
    minutes=8,
    cases=lambda draw: [
        left_padded_weights_case(draw, 1, [0]),
        left_padded_weights_case(draw, 5, [draw.integer(1, 3)]),
        left_padded_weights_case(
            draw, draw.integer(4, 7), [draw.integer(1, 2), 0, 3], torch.float64
        ),
        left_padded_weights_case(draw, draw.integer(3, 6), [draw.integer(0, 2) for _ in range(4)]),
        left_padded_weights_far(draw),
    ],
    wrong={
        ### BEGIN SOLUTION
        "the softmax runs over the queries; the weights of one query sum to 1 over the places": lambda scores, starts: (
            scores.masked_fill(left_padded_weights(scores, starts) == 0, -math.inf)
            .softmax(-2)
            .nan_to_num(0.0)
        ),
        "only the fillers' keys are hidden, and the future is seen": lambda scores, starts: (
            scores.masked_fill(
                torch.arange(scores.shape[-1]) < starts[:, None, None], -math.inf
            ).softmax(-1)
            * (torch.arange(scores.shape[-1]) >= starts[:, None])[..., None]
        ),
        "`starts` is counted from the wrong end: fillers stand before a text, not after it": lambda scores, starts: (
            scores.masked_fill(
                torch.ones_like(scores).triu(1).bool()
                | (torch.arange(scores.shape[-1]) >= scores.shape[-1] - starts[:, None, None]),
                -math.inf,
            ).softmax(-1)
        ),
        ### END SOLUTION
    },
    signs={
        "text {0}: row {1} is nan: e^200 is too large for a float. softmax takes the largest score out first": lambda got, want, scores, starts: (
            got.isnan().any(-1) & (scores.amax(-1) > 150) & ~left_padded_weights_rows(want)
        ),
        "text {0}: row {1}: its exponentials are 0. Take the largest score of each row out of it, not one of all": lambda got, want, scores, starts: (
            ~((got.sum(-1) - 1).abs() < 0.1)
            & (scores.amax(-1) < -150)
            & ~((got[:, -1:].sum(-1) - 1).abs() < 0.1)
        ),
        "text {0}: row {1}: its scores are far below 0, below the number that hides the others. −∞ is below them all": lambda got, want, scores, starts: (
            (got.sum(-1) < 0.9) & (scores.amax(-1) < -150) & ~left_padded_weights_rows(want)
        ),
        "text {0}: row {1} is nan. Nothing may be looked at there, and softmax divides 0 by 0": lambda got, want, scores, starts: (
            got.isnan().any(-1)
        ),
        "text {0}: row {1} is a filler's: it has to be 0. (Scores that all are one large negative number are equal.)": lambda got, want, scores, starts: (
            left_padded_weights_rows(want) & (got.triu(1).sum(-1) > 0.01)
        ),
        "text {0}: row {1} is a filler, and looks at a filler; its row should be 0": lambda got, want, scores, starts: (
            left_padded_weights_rows(want) & (got.abs().sum(-1) > 1e-3)
        ),
        "text {0}: row {1} does not look at itself": lambda got, want, scores, starts: (
            (got.diagonal(0, 1, 2) == 0) & ~left_padded_weights_rows(want)
        ),
        "text {0}: row {1} sums no more to 1: hide the scores before the softmax, not the weights after it": lambda got, want, scores, starts: (
            ((got.sum(-1) - 1).abs() > 1e-3) & ~left_padded_weights_rows(want)
        ),
        "text {0}: row {1} looks at a filler": lambda got, want, scores, starts: (
            ((want == 0) & (got > 1e-3)).tril().any(-1) & ~left_padded_weights_rows(want)
        ),
    },
)


def characters_looked_at_case(draw, *shape, dtype=torch.float32):
    scores = 1.5 * draw.normal(*shape, shape[-1], dtype=dtype)
    return [scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf).softmax(-1)]


exercise(
    characters_looked_at,
    stars=2,
    minutes=7,
    atol=1e-4,
    cases=lambda draw: [
        characters_looked_at_case(draw, 1),
        characters_looked_at_case(draw, draw.integer(3, 8)),
        characters_looked_at_case(draw, 2, draw.integer(3, 6), dtype=torch.float64),
        characters_looked_at_case(draw, 3, 2, 4),
        [torch.eye(draw.integer(2, 5))],
    ],
    wrong={
        ### BEGIN SOLUTION
        "that is the entropy, in nats; e^H counts places": lambda w: torch.special.entr(w).sum(-1),
        "it measures the columns; a query's weights stand in a row": lambda w: (
            torch.special.entr(w).sum(-2).exp()
        ),
        "it counts the places with any weight at all; a weight of 0.01 is hardly a look": lambda w: (
            (w > 0).sum(-1)
        ),
        "it sums over axis 1; the places are the last axis, -1, however many stand before it": lambda w: (
            torch.special.entr(w).sum(1).exp()
        ),
        "that is 1 / Σ p², another measure of the same; e^H is wanted": lambda w: (
            1 / w.square().sum(-1)
        ),
        "e is raised to each term before the sum; first the sum, then e^H": lambda w: (
            torch.special.entr(w).exp().sum(-1)
        ),
        "it is the mean of the rows; each row's own number is wanted": lambda w: (
            torch.special.entr(w).sum(-1).exp().mean()
        ),
        "the rows are mixed: the entropy of the mean, or the sum over everything": lambda w: (
            torch.special.entr(w).sum().exp()
        ),
        "the mean over the places was taken; the entropy is their sum": lambda w: (
            torch.special.entr(w).mean(-1).exp()
        ),
        "e^H of a logarithm to base 2: take the same base twice": lambda w: (
            torch.special.entr(w).sum(-1) / math.log(2)
        ).exp(),
        ### END SOLUTION
    },
    signs={
        "it counts the places with any weight at all, and a weight of 0.01 is hardly a look": lambda got, want, w: (
            torch.equal(got.long(), (w > 0).sum(-1)) and torch.equal(got, got.round())
        ),
        "row {1} is nan: 0 · ln 0. A weight of 0 has to add 0": lambda got, want, w: (
            got.isnan().view(-1, w.shape[-1])
        ),
        "the minus of the entropy is missing: it is less than one place": lambda got, want, w: (
            torch.allclose(got * want, torch.ones_like(want), atol=1e-3)
        ),
    },
)


def merged_attention_case(draw, P, T, offset=0.0, scale=1.0, dtype=torch.float32):
    outs, logs = (
        draw.normal(P, T, draw.integer(2, 4), dtype=dtype),
        scale * draw.normal(P, T, dtype=dtype) + offset,
    )
    unseen = draw.uniform(P, T) < 0.25
    unseen[draw.integer(0, P - 1)] = False
    return [outs.masked_fill(unseen[..., None], 0.0), logs.masked_fill(unseen, -math.inf)]


def merged_attention_causal(draw):
    """The first two pieces hold nothing for the first queries."""
    outs, logs = draw.normal(3, 4, 2), draw.normal(3, 4)
    outs[:2, :2], logs[:2, :2] = 0.0, -math.inf
    return [outs, logs]


def merged_attention_uneven(draw):
    """One query's numbers are near 1000, the next one's near 0, the last one's near -1000."""
    outs, logs = draw.normal(3, 3, 2, dtype=torch.float64), draw.normal(3, 3, dtype=torch.float64)
    return [outs, logs + torch.tensor([draw.number(900, 1100), 0.0, -draw.number(900, 1100)])]


def merged_attention_one_shift(got, want, logs):
    """(T,) bool: the wrong queries, where the query with the largest ℓ of all is right, and they are far below it."""
    bad = ~torch.isclose(got[0], want[0], 1e-3, 1e-3).all(-1) | ~torch.isclose(
        got[1], want[1], 1e-3, 1e-3
    )
    top = logs.amax(0)
    return bad & (top < top.max() - 500) & ~bad[top.argmax()]


def merged_attention_close(got, other, want):
    """(T,) bool: where a mistake's number stands in the place of the right one."""
    like, right = [torch.isclose(got, value, rtol=1e-3, atol=1e-3) for value in (other, want)]
    return (like & ~right) if got.dim() == 1 else like.all(-1) & ~right.all(-1)


exercise(
    merged_attention,
    stars=3,
    minutes=20,
    atol=1e-3,
    rtol=1e-3,
    cases=lambda draw: [
        [draw.normal(2, 3, 4), draw.normal(2, 3)],
        merged_attention_case(draw, 1, draw.integer(1, 4)),
        merged_attention_case(draw, draw.integer(3, 5), 1, dtype=torch.float64),
        merged_attention_causal(draw),
        merged_attention_case(draw, 3, 4, 1000.0, 2.0, torch.float64),
        merged_attention_case(draw, 4, draw.integer(2, 4), -1000.0, 2.0, torch.float64),
        merged_attention_uneven(draw),
    ],
    wrong={
        ### BEGIN SOLUTION
        "the softmax runs over the queries; each query shares its weight out among the pieces": lambda outs, logs: [
            (logs.softmax(1)[..., None] * outs).sum(0),
            logs.logsumexp(0),
        ],
        "o is right, but the weights e^ℓ of the pieces add up, not their logarithms ℓ": lambda outs, logs: [
            merged_attention(outs, logs)[0],
            logs.sum(0),
        ],
        "o is right, but ℓ is only that of the heaviest piece": lambda outs, logs: [
            merged_attention(outs, logs)[0],
            logs.max(0).values,
        ],
        "o is right, but ℓ is a mean: the weights e^ℓ of the pieces add up": lambda outs, logs: [
            merged_attention(outs, logs)[0],
            logs.logsumexp(0) - math.log(len(logs)),
        ],
        "o is right, but the largest ℓ, taken out before e^ℓ, is not added after the logarithm": lambda outs, logs: [
            merged_attention(outs, logs)[0],
            (logs - logs.amax(0)).logsumexp(0),
        ],
        "an empty piece (ℓ = −∞) has the weight e^−∞ = 0; here it counts as if its ℓ were 0, and e⁰ = 1": lambda outs, logs: (
            merged_attention(outs, logs.masked_fill(logs.isinf(), 0.0))
        ),
        "ℓ is right, but in o an empty piece (ℓ = −∞) counts as if its ℓ were 0, and e⁰ = 1": lambda outs, logs: [
            merged_attention(outs, logs.masked_fill(logs.isinf(), 0.0))[0],
            merged_attention(outs, logs)[1],
        ],
        "the two are exchanged: first o, then ℓ": lambda outs, logs: merged_attention(outs, logs)[
            ::-1
        ],
        ### END SOLUTION
    },
    signs={
        "query {0}: one largest ℓ was taken out for all queries, and is far above its own; each query has its own": lambda got, want, outs, logs: (
            merged_attention_one_shift(got, want, logs)
        ),
        "query {0}: nan. e^ℓ is infinite for ℓ = 1000, and 0 for −1000: only the differences of a query's ℓ count": lambda got, want, outs, logs: (
            got[0].isnan().any(-1) & (want[1].abs() > 500)
        ),
        "query {0}: nan. The first pieces hold nothing for it, and −∞ minus −∞ is no number": lambda got, want, outs, logs: (
            got[0].isnan().any(-1)
        ),
        "query {0}: all pieces count alike; a piece counts by its share of the whole weight": lambda got, want, outs, logs: (
            merged_attention_close(got[0], outs.mean(0), want[0])
        ),
        "query {0}: the results are just added; a piece counts by its share of the whole weight": lambda got, want, outs, logs: (
            merged_attention_close(got[0], outs.sum(0), want[0])
        ),
        "query {0}: pieces count by ℓ; it is a logarithm, and the weight in a piece is e^ℓ": lambda got, want, outs, logs: (
            merged_attention_close(got[0], (outs * (logs / logs.sum(0))[..., None]).sum(0), want[0])
        ),
        "query {0}: the sum of e^ℓ o is not yet divided by the whole weight": lambda got, want, outs, logs: (
            merged_attention_close(got[0], (outs * logs.exp()[..., None]).sum(0), want[0])
            & (want[1].abs() < 500)
        ),
        "query {0}: ℓ is infinite; take the largest ℓ out before e^ℓ, and add it after the logarithm": lambda got, want, outs, logs: (
            got[1].isinf()
        ),
        "query {0}: o is right, but ℓ is the whole weight and not its logarithm": lambda got, want, outs, logs: (
            merged_attention_close(got[1], want[1].exp(), want[1])
        ),
    },
)
