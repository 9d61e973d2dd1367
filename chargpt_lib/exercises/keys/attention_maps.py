"""How the exercises of lesson 07 are judged: cases, mistakes, symptoms."""

import math

import torch
from torch.nn import functional as F

from chargpt_lib.exercises.answers.attention_maps import (
    chance_share,
    induction_targets,
    mean_ablation,
    mended_rollout,
    ov_circuit,
    text_dependence,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- induction_targets


def induction_targets_cases(draw):
    letter = draw.integer(0, 50)
    unique_then_repeated = torch.cat([draw.ids(60, 5), draw.ids(2, 4)])
    return [
        [draw.ids(3, draw.integer(16, 24)), 1],
        [draw.ids(2, draw.integer(18, 26)), 2],
        [draw.ids(2, draw.integer(20, 28)), 3],
        [draw.ids(30, 1), 1],
        [draw.ids(2, 3), draw.integer(4, 6)],
        [torch.full((draw.integer(6, 9),), letter), 2],
        [unique_then_repeated.repeat(2), draw.integer(3, 4)],
    ]


INDUCTION_TARGETS = exercise(induction_targets, stars=2, minutes=8, cases=induction_targets_cases)


@INDUCTION_TARGETS.symptom(
    "position {0} has fewer than n characters so far: -1 (a slice with a negative start counts "
    "from the end)"
)
def induction_targets_too_early(got, want, ids, n):
    return (got >= 0) & (torch.arange(len(ids)) < n - 1)


@INDUCTION_TARGETS.symptom(
    "position {0} has a later position as its target: the earlier place has to end before it"
)
def induction_targets_in_the_future(got, want, ids, n):
    return got > torch.arange(len(ids))


### BEGIN SOLUTION
def induction_targets_same(ids, n, j, t):
    """Do the same n characters end at j and at t?"""
    return torch.equal(ids[j - n + 1 : j + 1], ids[t - n + 1 : t + 1])


@INDUCTION_TARGETS.mistake(
    "that is the earlier place itself, j; induction looks at what came next there, j + 1"
)
def induction_targets_earlier_place(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(n, len(ids)):
        for j in range(n - 1, t):
            if induction_targets_same(ids, n, j, t):
                targets[t] = j
    return targets


@INDUCTION_TARGETS.mistake("it is the first earlier place; the last one before t is wanted")
def induction_targets_first_place(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(n, len(ids)):
        for j in range(n - 1, t):
            if induction_targets_same(ids, n, j, t):
                targets[t] = j + 1
                break
    return targets


@INDUCTION_TARGETS.mistake("every position finds itself: j has to be earlier than t")
def induction_targets_itself(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(n - 1, len(ids)):
        for j in range(n - 1, t + 1):
            if induction_targets_same(ids, n, j, t):
                targets[t] = j + 1
    return targets


@INDUCTION_TARGETS.mistake("a position without a target has -1, not 0")
def induction_targets_zero_for_none(ids, n):
    targets = torch.zeros_like(ids)
    for t in range(n, len(ids)):
        for j in range(n - 1, t):
            if induction_targets_same(ids, n, j, t):
                targets[t] = j + 1
    return targets


@INDUCTION_TARGETS.mistake("one character is compared; n of them have to be the same")
def induction_targets_one_character(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(len(ids)):
        for j in range(t):
            if ids[j] == ids[t]:
                targets[t] = j + 1
    return targets


### END SOLUTION

# ---------------------------------------------------------------- chance_share


def chance_share_cases(draw):
    short = draw.integer(8, 20)
    long = draw.integer(21, 200)
    last_only = draw.integer(3, 40)
    return [
        [draw.integer(3, 9), 1],
        [1, 0],
        [draw.integer(5, 90), 0],
        [short, draw.integer(2, short - 2)],
        [long, draw.integer(2, long - 2)],
        [last_only, last_only - 1],
    ]


CHANCE_SHARE = exercise(chance_share, stars=1, minutes=4, cases=chance_share_cases)


### BEGIN SOLUTION
@CHANCE_SHARE.mistake("every position is given T places; position t sees only t + 1")
def chance_share_of_all_positions(T, back):
    return 1 / T


@CHANCE_SHARE.mistake("position t sees t + 1 places, itself among them, not t")
def chance_share_without_itself(T, back):
    shares = [1 / t for t in range(back, T)]
    return sum(shares) / len(shares)


@CHANCE_SHARE.mistake(
    "the first positions have no such target: they count neither as 0 nor in the divisor"
)
def chance_share_divided_by_all(T, back):
    shares = [1 / (t + 1) for t in range(back, T)]
    return sum(shares) / T


@CHANCE_SHARE.mistake(
    "the first positions have no such target; their weights 1/(t + 1) are in the mean"
)
def chance_share_from_zero(T, back):
    shares = [1 / (t + 1) for t in range(T)]
    return sum(shares) / T


@CHANCE_SHARE.mistake("it is a sum: a share is the mean over the positions")
def chance_share_sum(T, back):
    shares = [1 / (t + 1) for t in range(back, T)]
    return sum(shares)


@CHANCE_SHARE.mistake(
    "that is 1 over the mean number of places; wanted is the mean of 1 over that number"
)
def chance_share_inverse_mean(T, back):
    places = [t + 1 for t in range(back, T)]
    return len(places) / sum(places)


### END SOLUTION

# ---------------------------------------------------------------- text_dependence


def text_dependence_case(draw, N, T, sharpness=2.0, dtype=torch.float32):
    scores = sharpness * draw.normal(N, T, T, dtype=dtype)
    future = torch.ones(T, T).triu(1).bool()
    return [scores.masked_fill(future, -math.inf).softmax(-1)]


def text_dependence_one_hot(draw, N, T):
    """All weight on one place."""
    places = torch.stack([draw.ids(t + 1, N) for t in range(T)], dim=1)
    return [F.one_hot(places, T).double()]


def text_dependence_cases(draw):
    return [
        text_dependence_case(draw, draw.integer(3, 5), draw.integer(3, 6)),
        text_dependence_case(draw, 1, draw.integer(2, 5), dtype=torch.float64),
        text_dependence_case(draw, 3, 1),
        text_dependence_one_hot(draw, 4, draw.integer(4, 6)),
        text_dependence_case(draw, 2, draw.integer(3, 6), sharpness=0.5, dtype=torch.float64),
        text_dependence_case(draw, 4, 4, sharpness=3.0),
    ]


TEXT_DEPENDENCE = exercise(
    text_dependence, stars=2, minutes=7, cases=text_dependence_cases, atol=1e-4
)


@TEXT_DEPENDENCE.symptom("position {0} is nan: 0 · ln 0. A weight of 0 has to add 0")
def text_dependence_nan(got, want, weights):
    return got.isnan()


### BEGIN SOLUTION
@TEXT_DEPENDENCE.mistake(
    "that is the entropy of the mean alone: a head that spreads in every text has a large one, too"
)
def text_dependence_of_mean(weights):
    return torch.special.entr(weights.mean(0)).sum(-1)


@TEXT_DEPENDENCE.mistake(
    "that is the mean of the entropies alone: it says how far the head spreads within a text"
)
def text_dependence_mean_entropy(weights):
    return torch.special.entr(weights).sum(-1).mean(0)


@TEXT_DEPENDENCE.mistake("the sign is reversed: the entropy of the mean is the larger of the two")
def text_dependence_reversed(weights):
    entropy_of_mean = torch.special.entr(weights.mean(0)).sum(-1)
    mean_entropy = torch.special.entr(weights).sum(-1).mean(0)
    return mean_entropy - entropy_of_mean


@TEXT_DEPENDENCE.mistake("these are bits: take the natural logarithm")
def text_dependence_bits(weights):
    entropy_of_mean = torch.special.entr(weights.mean(0)).sum(-1)
    mean_entropy = torch.special.entr(weights).sum(-1).mean(0)
    return (entropy_of_mean - mean_entropy) / math.log(2)


@TEXT_DEPENDENCE.mistake(
    "these are the entropies of the columns; the weights of a position are a row"
)
def text_dependence_columns(weights):
    entropy_of_mean = torch.special.entr(weights.mean(0)).sum(-2)
    mean_entropy = torch.special.entr(weights).sum(-2).mean(0)
    return entropy_of_mean - mean_entropy


### END SOLUTION

# ---------------------------------------------------------------- mean_ablation


def mean_ablation_case(draw, B, H, T, D, dtype):
    """The results of a head are not centred: the mean of head h matters."""
    heads = draw.normal(B, H, T, D, dtype=dtype) + 1 + draw.normal(H, 1, D, dtype=dtype)
    W_o = draw.normal(H * D, H * D, dtype=dtype)
    bias = 1 + draw.uniform(H * D, dtype=dtype)
    return [heads, W_o, bias, draw.integer(0, H - 1)]


def mean_ablation_cases(draw):
    B = draw.integer(2, 3)
    H = draw.integer(2, 4)
    T = draw.integer(2, 5)
    D = draw.integer(2, 4)
    return [
        mean_ablation_case(draw, 2, 3, 4, 2, torch.float32),
        mean_ablation_case(draw, 1, 2, 3, 3, torch.float64),
        mean_ablation_case(draw, 3, 4, 1, 2, torch.float32),
        mean_ablation_case(draw, 1, 2, 1, 3, torch.float64),
        mean_ablation_case(draw, 2, 1, 3, 4, torch.float32),
        mean_ablation_case(draw, B, H, T, D, torch.float64),
    ]


MEAN_ABLATION = exercise(mean_ablation, stars=2, minutes=8, cases=mean_ablation_cases, atol=5e-5)


### BEGIN SOLUTION
def mean_ablation_projection(heads, W_o, bias):
    side_by_side = heads.transpose(1, 2).flatten(2)
    return side_by_side @ W_o.T + bias


@MEAN_ABLATION.mistake("zeros replace the head; its mean is wanted")
def mean_ablation_zeros(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = 0
    return mean_ablation_projection(heads, W_o, bias)


@MEAN_ABLATION.mistake("the mean runs over the texts only: each position has one of its own")
def mean_ablation_over_texts(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean(0)
    return mean_ablation_projection(heads, W_o, bias)


@MEAN_ABLATION.mistake("the mean runs over the positions only: each text has one of its own")
def mean_ablation_over_positions(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean(1, keepdim=True)
    return mean_ablation_projection(heads, W_o, bias)


@MEAN_ABLATION.mistake("the mean is a single number: each of the D numbers has a mean of its own")
def mean_ablation_one_number(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean()
    return mean_ablation_projection(heads, W_o, bias)


@MEAN_ABLATION.mistake(
    "the axes of heads and positions are not exchanged before the heads are joined (lesson 04)"
)
def mean_ablation_without_transpose(heads, W_o, bias, h):
    B, H, T, D = heads.shape
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean((0, 1))
    return heads.reshape(B, T, H * D) @ W_o.T + bias


@MEAN_ABLATION.mistake("W_o is not transposed: `nn.Linear` multiplies by W_o.T")
def mean_ablation_untransposed_weight(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean((0, 1))
    return mean_ablation_projection(heads, W_o.T, bias)


### END SOLUTION

# ---------------------------------------------------------------- mended_rollout


def mended_rollout_case(draw, L, T, dtype=torch.float32):
    scores = 1.5 * draw.normal(L, T, T, dtype=dtype)
    future = torch.ones(T, T).triu(1).bool()
    weights = scores.masked_fill(future, -math.inf).softmax(-1)
    keeps = 0.1 + 0.8 * draw.uniform(L, dtype=dtype)
    return [weights, keeps]


def mended_rollout_extremes(draw):
    """The first layer keeps everything, the last one nothing."""
    weights, keeps = mended_rollout_case(draw, 3, 4)
    keeps[0] = 1
    keeps[2] = 0
    return [weights, keeps]


def mended_rollout_cases(draw):
    return [
        mended_rollout_case(draw, 2, draw.integer(3, 6)),
        mended_rollout_case(draw, draw.integer(1, 3), 1),
        mended_rollout_case(draw, 1, draw.integer(2, 5), torch.float64),
        mended_rollout_extremes(draw),
        mended_rollout_case(draw, draw.integer(3, 5), draw.integer(4, 7), torch.float64),
    ]


MENDED_ROLLOUT = exercise(mended_rollout, stars=2, minutes=8, cases=mended_rollout_cases)


@MENDED_ROLLOUT.symptom(
    "the shares do not sum to 1: in each layer, what is kept and what is taken have to sum to 1"
)
def mended_rollout_sum(got, want, weights, keeps):
    return abs(got.sum() - 1) > 1e-3


### BEGIN SOLUTION
def mended_rollout_start(weights):
    """All of the last position's vector is its own."""
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    return share


@MENDED_ROLLOUT.mistake(
    "both bugs are still there: what does a position keep, and which layer is the last?"
)
def mended_rollout_as_it_was(weights, keeps):
    share = mended_rollout_start(weights)
    for A, keep in zip(weights, keeps):
        share = share @ ((1 - keep) * A)
    return share / share.sum()


@MENDED_ROLLOUT.mistake(
    "the order is still wrong: the last layer mixes what the one below has already mixed, so it "
    "comes first here"
)
def mended_rollout_wrong_order(weights, keeps):
    share = mended_rollout_start(weights)
    for A, keep in zip(weights, keeps):
        share = keep * share + (1 - keep) * share @ A
    return share


@MENDED_ROLLOUT.mistake(
    "the order is right now, but what a position keeps of its own vector is still missing"
)
def mended_rollout_without_residual(weights, keeps):
    share = mended_rollout_start(weights)
    for A, keep in zip(weights.flip(0), keeps.flip(0)):
        share = share @ ((1 - keep) * A)
    return share / share.sum()


@MENDED_ROLLOUT.mistake("the layers are reversed, but not `keeps`: each layer has its own")
def mended_rollout_keeps_in_old_order(weights, keeps):
    share = mended_rollout_start(weights)
    for A, keep in zip(weights.flip(0), keeps):
        share = keep * share + (1 - keep) * share @ A
    return share


@MENDED_ROLLOUT.mistake("keep and 1 - keep are exchanged")
def mended_rollout_exchanged(weights, keeps):
    share = mended_rollout_start(weights)
    for A, keep in zip(weights.flip(0), keeps.flip(0)):
        share = (1 - keep) * share + keep * share @ A
    return share


### END SOLUTION

# ---------------------------------------------------------------- ov_circuit


def ov_circuit_case(draw, V, C, D, dtype):
    E = 0.7 * draw.normal(V, C, dtype=dtype)
    W_v = 0.7 * draw.normal(D, C, dtype=dtype)
    W_o = 0.7 * draw.normal(C, D, dtype=dtype)
    W_u = 0.7 * draw.normal(V, C, dtype=dtype)
    return [E, W_v, W_o, W_u]


def ov_circuit_copying(draw):
    """A head that copies: the table is symmetric, and its diagonal is positive."""
    E, W_v, _, _ = ov_circuit_case(draw, 4, 3, 2, torch.float64)
    return [E, W_v, W_v.T.contiguous(), E]


def ov_circuit_lowering(draw):
    """A head that lowers all logits."""
    E, W_v, W_o, W_u = ov_circuit_case(draw, 4, 3, 2, torch.float64)
    return [E.abs(), W_v.abs(), W_o.abs(), -W_u.abs()]


def ov_circuit_cases(draw):
    size = draw.integer(2, 4)
    V = draw.integer(6, 10)
    C = draw.integer(4, 6)
    D = draw.integer(2, 3)
    return [
        ov_circuit_case(draw, 5, 4, 2, torch.float64),
        ov_circuit_case(draw, 4, 4, 4, torch.float32),  # all matrices are square
        ov_circuit_case(draw, 2, 3, 1, torch.float64),
        ov_circuit_case(draw, size + 3, size, size, torch.float64),
        ov_circuit_case(draw, V, C, D, torch.float32),
        ov_circuit_case(draw, 4, 3, 2, torch.float64),
        ov_circuit_copying(draw),
        ov_circuit_lowering(draw),
    ]


OV_CIRCUIT = exercise(ov_circuit, stars=3, minutes=15, cases=ov_circuit_cases, atol=1e-4)


@OV_CIRCUIT.symptom(
    "rows and columns of `table` are exchanged: row c is the character that the head looks at"
)
def ov_circuit_transposed(got, want, E, W_v, W_o, W_u):
    is_right = torch.allclose(got[0], want[0], atol=1e-4)
    is_transposed = torch.allclose(got[0].T, want[0], atol=1e-4)
    return is_transposed and not is_right


@OV_CIRCUIT.symptom("`table` itself lost its diagonal, at c = {0}: hide it in a copy")
def ov_circuit_lost_diagonal(got, want, E, W_v, W_o, W_u):
    diagonal = got[0].diagonal()
    return diagonal.isinf() | (diagonal == 0)


### BEGIN SOLUTION
def ov_circuit_margin(table):
    itself = torch.eye(len(table), dtype=torch.bool)
    best_other = table.masked_fill(itself, -math.inf).amax(-1)
    return table.diagonal() - best_other


@OV_CIRCUIT.mistake(
    "the characters' table E is used as the last matrix, too; here W_u is another matrix"
)
def ov_circuit_tied(E, W_v, W_o, W_u):
    table = E @ W_v.T @ W_o.T @ E.T
    return [table, ov_circuit_margin(table)]


@OV_CIRCUIT.mistake(
    "the character's own vector is in `table`: the residual bypasses the head, which writes only "
    "its part"
)
def ov_circuit_with_residual(E, W_v, W_o, W_u):
    table = (E + E @ W_v.T @ W_o.T) @ W_u.T
    return [table, ov_circuit_margin(table)]


@OV_CIRCUIT.mistake(
    "`table` is right; the own change alone says little: another logit may be raised more"
)
def ov_circuit_own_change(E, W_v, W_o, W_u):
    table = E @ W_v.T @ W_o.T @ W_u.T
    return [table, table.diagonal()]


@OV_CIRCUIT.mistake(
    "`table` is right; c itself is among those that it is compared with: the best *other* is wanted"
)
def ov_circuit_best_of_all(E, W_v, W_o, W_u):
    table = E @ W_v.T @ W_o.T @ W_u.T
    return [table, table.diagonal() - table.amax(-1)]


@OV_CIRCUIT.mistake(
    "`table` is right; c counts as 0 among the others, and 0 is more than a negative change"
)
def ov_circuit_zero_diagonal(E, W_v, W_o, W_u):
    table = E @ W_v.T @ W_o.T @ W_u.T
    others = table.clone().fill_diagonal_(0)
    return [table, table.diagonal() - others.amax(-1)]


### END SOLUTION
