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


def induction_targets_cases(draw):
    letter = draw.integer(0, 50)
    return [
        [draw.ids(3, draw.integer(16, 24)), 1],
        [draw.ids(2, draw.integer(18, 26)), 2],
        [draw.ids(2, draw.integer(20, 28)), 3],
        [draw.ids(30, 1), 1],
        [draw.ids(2, 3), draw.integer(4, 6)],
        [torch.full((draw.integer(6, 9),), letter), 2],
        [torch.cat([draw.ids(60, 5), draw.ids(2, 4)]).repeat(2), draw.integer(3, 4)],
    ]


### BEGIN SOLUTION
def induction_targets_as(ids, n, same=torch.equal, first=0, last=0, shift=1, none=-1, pick=max):
    """first, last: how much later the search begins and ends."""
    targets = []
    for t in range(len(ids)):
        found = [
            j
            for j in range(n - 1 + first, t + last)
            if t >= n - 1 and same(ids[j - n + 1 : j + 1], ids[t - n + 1 : t + 1])
        ]
        targets.append(pick(found) + shift if found else none)
    return torch.tensor(targets)


def induction_targets_whole(ids, n):
    """As if empty windows at the beginning were equal."""
    windows = [ids[max(t - n + 1, 0) : t + 1].tolist() for t in range(len(ids))]
    return torch.tensor(
        [
            max((j + 1 for j in range(t) if windows[j] == windows[t]), default=-1)
            for t in range(len(ids))
        ]
    )


### END SOLUTION


exercise(
    induction_targets,
    stars=2,
    minutes=8,
    cases=induction_targets_cases,
    wrong={
        ### BEGIN SOLUTION
        "that is the earlier place itself, j; induction looks at what came next there, j + 1": lambda ids, n: (
            induction_targets_as(ids, n, shift=0)
        ),
        "it is the first earlier place; the last one before t is wanted": lambda ids, n: (
            induction_targets_as(ids, n, pick=min)
        ),
        "every position finds itself: j has to be earlier than t": lambda ids, n: (
            induction_targets_as(ids, n, last=1)
        ),
        "the target may be t itself: j = t - 1 is an earlier place, too": lambda ids, n: (
            induction_targets_as(ids, n, last=-1)
        ),
        "the two may overlap: only places at least n before t were searched": lambda ids, n: (
            induction_targets_as(ids, n, last=1 - n)
        ),
        "a position without a target has -1, not 0": lambda ids, n: induction_targets_as(
            ids, n, none=0
        ),
        "a position without a target has -1, not t": lambda ids, n: torch.where(
            induction_targets(ids, n) < 0, torch.arange(len(ids)), induction_targets(ids, n)
        ),
        "one character is compared; n of them have to be the same": lambda ids, n: (
            induction_targets_as(ids, 1)
        ),
        "n + 1 characters are compared; the one at t is the last of the n": lambda ids, n: (
            induction_targets_as(ids, n + 1)
        ),
        "that is where the earlier n characters begin; the target comes after their end": lambda ids, n: (
            induction_targets_as(ids, n, shift=1 - n)
        ),
        "that is the second of the earlier n characters; the target comes after the last of them": lambda ids, n: (
            induction_targets_as(ids, n, shift=2 - n)
        ),
        "the place at the very beginning of the text, j = n - 1, is not searched": lambda ids, n: (
            induction_targets_as(ids, n, first=1)
        ),
        "how far back the target is, t - (j + 1); wanted is the position j + 1": lambda ids, n: (
            torch.where(
                induction_targets(ids, n) < 0,
                -1,
                torch.arange(len(ids)) - induction_targets(ids, n),
            )
        ),
        "that is the character at the target, ids[j + 1]; wanted is its position": lambda ids, n: (
            torch.where(induction_targets(ids, n) < 0, -1, ids[induction_targets(ids, n)])
        ),
        "the same characters in another order are not the same text": lambda ids, n: (
            induction_targets_as(
                ids, n, same=lambda a, b: torch.equal(a.sort().values, b.sort().values)
            )
        ),
        "the first n - 1 positions have fewer than n characters so far, and yet find a target": induction_targets_whole,
        ### END SOLUTION
    },
    signs={
        "position {0} has fewer than n characters so far: -1 (a negative start of a slice counts from the end)": lambda got, want, ids, n: (
            (got >= 0) & (torch.arange(len(ids)) < n - 1)
        ),
        "position {0} looks at a later one: the earlier place has to end before it": lambda got, want, ids, n: (
            got > torch.arange(len(ids))
        ),
        "position {0} has -1, but its n characters came before": lambda got, want, ids, n: (
            (got == -1) & (want >= 0)
        ),
        "position {0} has a target, but its n characters never came before": lambda got, want, ids, n: (
            (got >= 0) & (want == -1)
        ),
    },
)


exercise(
    chance_share,
    stars=1,
    minutes=4,
    cases=lambda draw: [
        [draw.integer(3, 9), 1],
        [1, 0],
        [draw.integer(5, 90), 0],
        *([T, draw.integer(2, T - 2)] for T in (draw.integer(8, 20), draw.integer(21, 200))),
        *([T, T - 1] for T in (draw.integer(3, 40),)),
    ],
    wrong={
        ### BEGIN SOLUTION
        "every position is given T places; position t sees only t + 1": lambda T, back: 1 / T,
        "position t sees t + 1 places, itself among them, not t": lambda T, back: (
            sum(1 / t for t in range(back, T)) / (T - back)
        ),
        "position t sees t + 1 places, itself among them, not t; position 0 was left out": lambda T, back: (
            sum(1 / t for t in range(max(back, 1), T)) / max(T - max(back, 1), 1)
        ),
        "the first positions have no such target: they count neither as 0 nor in the divisor": lambda T, back: (
            sum(1 / (t + 1) for t in range(back, T)) / T
        ),
        "the first positions have no such target; their weights 1/(t + 1) are in the mean": lambda T, back: (
            sum(1 / (t + 1) for t in range(T)) / T
        ),
        "the first positions have no such target; their weights 1/(t + 1) are in the sum": lambda T, back: (
            sum(1 / (t + 1) for t in range(T)) / (T - back)
        ),
        "it is a sum: a share is the mean over the positions": lambda T, back: sum(
            1 / (t + 1) for t in range(back, T)
        ),
        "that is 1 over the mean number of places; wanted is the mean of 1 over it": lambda T, back: (
            2 / (back + 1 + T)
        ),
        "that is the weight on all of the last `back` characters; the target is one of them": lambda T, back: (
            sum(back / (t + 1) for t in range(back, T)) / (T - back)
        ),
        "that is the weight at the first position with a target; the later ones see more places, and weigh less": lambda T, back: (
            1 / (back + 1)
        ),
        "the first position with a target, t = `back`, is left out": lambda T, back: (
            sum(1 / (t + 1) for t in range(back + 1, T)) / (T - back - 1)
        ),
        "the first position with a target, t = `back`, is left out of the sum": lambda T, back: (
            sum(1 / (t + 1) for t in range(back + 1, T)) / (T - back)
        ),
        "the last position, t = T - 1, is left out": lambda T, back: (
            sum(1 / (t + 1) for t in range(back, T - 1)) / (T - 1 - back)
        ),
        "the last position, t = T - 1, is left out of the sum": lambda T, back: (
            sum(1 / (t + 1) for t in range(back, T - 1)) / (T - back)
        ),
        "`//` leaves whole numbers, and 1 // 2 is 0: divide with `/`": lambda T, back: (
            sum(1 // (t + 1) for t in range(back, T)) / (T - back)
        ),
        "an integral stands for the sum: ln is near, but not the same": lambda T, back: (
            math.log((T + 1) / (back + 1)) / (T - back)
        ),
        ### END SOLUTION
    },
)


def text_dependence_case(draw, N, T, sharpness=2.0, dtype=torch.float32):
    scores = sharpness * draw.normal(N, T, T, dtype=dtype)
    return [scores.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf).softmax(-1)]


def text_dependence_sharp(draw, N, T):
    """All weight on one place."""
    places = torch.stack([draw.ids(t + 1, N) for t in range(T)], 1)
    return [F.one_hot(places, T).double()]


### BEGIN SOLUTION
def text_dependence_entropy(rows, dim=-1):
    return torch.special.entr(rows).sum(dim)


def text_dependence_parts(weights):
    return text_dependence_entropy(weights.mean(0)), text_dependence_entropy(weights)


### END SOLUTION


exercise(
    text_dependence,
    stars=2,
    minutes=7,
    atol=1e-4,
    cases=lambda draw: [
        text_dependence_case(draw, draw.integer(3, 5), draw.integer(3, 6)),
        text_dependence_case(draw, 1, draw.integer(2, 5), dtype=torch.float64),
        text_dependence_case(draw, 3, 1),
        text_dependence_sharp(draw, 4, draw.integer(4, 6)),
        text_dependence_case(draw, 2, draw.integer(3, 6), 0.5, torch.float64),
        text_dependence_case(draw, 4, 4, 3.0),
    ],
    wrong={
        ### BEGIN SOLUTION
        "that is the entropy of the mean alone: it is also large for a head that spreads in every text": lambda weights: (
            text_dependence_parts(weights)[0]
        ),
        "that is the mean of the entropies alone: it says how far the head spreads within a text": lambda weights: (
            text_dependence_parts(weights)[1].mean(0)
        ),
        "the sign is reversed: the entropy of the mean is the larger of the two": lambda weights: (
            -text_dependence(weights)
        ),
        "the entropies are added up over the texts: their mean is wanted": lambda weights: (
            text_dependence_parts(weights)[0] - text_dependence_parts(weights)[1].sum(0)
        ),
        "the rows are added up over the texts: the entropy of their mean is wanted": lambda weights: (
            text_dependence_entropy(weights.sum(0)) - text_dependence_parts(weights)[1].mean(0)
        ),
        "these are bits: take the natural logarithm": lambda weights: (
            text_dependence(weights) / math.log(2)
        ),
        "these are places, e^H: the entropies themselves are wanted, in nats": lambda weights: (
            text_dependence_parts(weights)[0].exp()
            - text_dependence_parts(weights)[1].exp().mean(0)
        ),
        "e is raised to J: J itself is wanted, in nats": lambda weights: text_dependence(
            weights
        ).exp(),
        "the entropies are those of the columns; a position's weights stand in a row": lambda weights: (
            text_dependence_entropy(weights.mean(0), -2)
            - text_dependence_entropy(weights, -2).mean(0)
        ),
        "the texts' differences are not yet averaged: there is one J for each position": lambda weights: (
            text_dependence_parts(weights)[0] - text_dependence_parts(weights)[1]
        ),
        "the entropies are averaged over the positions too; each position has a J of its own": lambda weights: (
            text_dependence_parts(weights)[0] - text_dependence_parts(weights)[1].mean()
        ),
        "J is averaged over the positions; each has one of its own": lambda weights: (
            text_dependence(weights).mean()
        ),
        "an entropy is the sum over the places, not their mean": lambda weights: (
            text_dependence(weights) / weights.shape[-1]
        ),
        "the weights are averaged over the positions, and not over the texts": lambda weights: (
            text_dependence_entropy(weights.mean(1)) - text_dependence_parts(weights)[1].mean(1)
        ),
        "both entropies are of the mean: first each row's entropy, then their mean": lambda weights: (
            torch.zeros_like(weights[0, 0])
        ),
        ### END SOLUTION
    },
    signs={
        "position {0} is nan: 0 · ln 0. A weight of 0 has to add 0": lambda got, want, weights: (
            got.isnan()
        ),
    },
)


def mean_ablation_cases(draw):
    """The numbers are not centred: head h has a mean worth having."""
    some = draw.integer(2, 3), draw.integer(2, 4), draw.integer(2, 5), draw.integer(2, 4)
    sizes = [(2, 3, 4, 2), (1, 2, 3, 3), (3, 4, 1, 2), (1, 2, 1, 3), (2, 1, 3, 4), some]
    for i, (B, H, T, D) in enumerate(sizes):
        dtype = (torch.float32, torch.float64)[i % 2]
        heads = draw.normal(B, H, T, D, dtype=dtype) + 1 + draw.normal(H, 1, D, dtype=dtype)
        yield [
            heads,
            draw.normal(H * D, H * D, dtype=dtype),
            1 + draw.uniform(H * D, dtype=dtype),
            draw.integer(0, H - 1),
        ]


### BEGIN SOLUTION
def mean_ablation_projected(heads, W_o, bias):
    return F.linear(heads.transpose(1, 2).flatten(2), W_o, bias)


def mean_ablation_instead(heads, h, instead):
    heads = heads.clone()
    heads[:, h] = instead
    return heads


def mean_ablation_by(instead):
    """instead(heads, h): what is put in the place of head h."""
    return lambda heads, W_o, bias, h: mean_ablation_projected(
        mean_ablation_instead(heads, h, instead(heads, h)), W_o, bias
    )


def mean_ablation_right(heads, h):
    return mean_ablation_instead(heads, h, heads[:, h].mean((0, 1)))


### END SOLUTION


exercise(
    mean_ablation,
    stars=2,
    minutes=8,
    cases=lambda draw: list(mean_ablation_cases(draw)),
    atol=5e-5,
    wrong={
        ### BEGIN SOLUTION
        "zeros stand in the head's place; its mean was wanted": mean_ablation_by(
            lambda heads, h: 0.0
        ),
        "the mean runs over the texts only: each position has one of its own": mean_ablation_by(
            lambda heads, h: heads[:, h].mean(0)
        ),
        "the mean runs over the positions only: each text has one of its own": mean_ablation_by(
            lambda heads, h: heads[:, h].mean(1, keepdim=True)
        ),
        "the mean is a single number: each of the D numbers has a mean of its own": mean_ablation_by(
            lambda heads, h: heads[:, h].mean()
        ),
        "each place has the mean of its own D numbers: take it over texts and positions": mean_ablation_by(
            lambda heads, h: heads[:, h].mean(-1, keepdim=True)
        ),
        "the mean of all heads stands there; that of head h was wanted": mean_ablation_by(
            lambda heads, h: heads.mean((0, 1, 2))
        ),
        "the mean over the heads stands there; that of head h, over texts and positions, was wanted": mean_ablation_by(
            lambda heads, h: heads.mean(1)
        ),
        "all heads are replaced by their means: only head h": lambda heads, W_o, bias, h: (
            mean_ablation_projected(heads.mean((0, 2), keepdim=True).expand_as(heads), W_o, bias)
        ),
        "the other heads are replaced, and head h stays; it is the other way round": lambda heads, W_o, bias, h: (
            mean_ablation_projected(
                mean_ablation_instead(
                    heads.mean((0, 2), keepdim=True).expand_as(heads), h, heads[:, h]
                ),
                W_o,
                bias,
            )
        ),
        "another head is replaced: they are counted from 0": lambda heads, W_o, bias, h: (
            mean_ablation(heads, W_o, bias, h - 1)
        ),
        "the mean is subtracted from the head; it should stand in the head's place": mean_ablation_by(
            lambda heads, h: heads[:, h] - heads[:, h].mean((0, 1))
        ),
        "the mean is added to the head; it should stand in the head's place": mean_ablation_by(
            lambda heads, h: heads[:, h] + heads[:, h].mean((0, 1))
        ),
        "nothing is replaced: this is the layer's plain result": lambda heads, W_o, bias, h: (
            mean_ablation_projected(heads, W_o, bias)
        ),
        "the bias is missing": lambda heads, W_o, bias, h: mean_ablation(heads, W_o, 0 * bias, h),
        "the bias is in it twice": lambda heads, W_o, bias, h: mean_ablation(
            heads, W_o, 2 * bias, h
        ),
        "W_o is not transposed: `nn.Linear` multiplies by W_o.T": lambda heads, W_o, bias, h: (
            mean_ablation(heads, W_o.T, bias, h)
        ),
        "W_o is not transposed, and zeros stand in the head's place": lambda heads, W_o, bias, h: (
            mean_ablation_projected(mean_ablation_instead(heads, h, 0.0), W_o.T, bias)
        ),
        "the axes of heads and positions are not exchanged before they are joined (lesson 04)": lambda heads, W_o, bias, h: (
            F.linear(
                mean_ablation_right(heads, h).reshape(len(heads), heads.shape[2], -1), W_o, bias
            )
        ),
        "the heads lie number by number among each other: side by side, head 0 first (lesson 04)": lambda heads, W_o, bias, h: (
            F.linear(mean_ablation_right(heads, h).permute(0, 2, 3, 1).flatten(2), W_o, bias)
        ),
        "that is only what head h adds: the other heads write, too": lambda heads, W_o, bias, h: (
            mean_ablation_projected(
                mean_ablation_instead(0 * heads, h, heads[:, h].mean((0, 1))), W_o, bias
            )
        ),
        "the median stands in the head's place; its mean was wanted": mean_ablation_by(
            lambda heads, h: heads[:, h].flatten(0, 1).median(0).values
        ),
        ### END SOLUTION
    },
)


def mended_rollout_case(draw, L, T, dtype=torch.float32):
    scores = 1.5 * draw.normal(L, T, T, dtype=dtype)
    weights = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf).softmax(-1)
    return [weights, 0.1 + 0.8 * draw.uniform(L, dtype=dtype)]


def mended_rollout_extremes(draw):
    """The first layer keeps all, the last one nothing."""
    weights, keeps = mended_rollout_case(draw, 3, 4)
    return [weights, keeps * torch.tensor([0, 1, 0]) + torch.tensor([1, 0, 0])]


### BEGIN SOLUTION
def mended_rollout_as(
    weights,
    keeps,
    mix=lambda A, keep: keep * torch.eye(len(A), dtype=A.dtype) + (1 - keep) * A,
    down=True,
    keeps_down=None,
    norm=False,
    start=-1,
    step=lambda share, A: share @ A,
):
    share = torch.zeros_like(weights[0, -1])
    share[start] = 1
    for A, keep in zip(
        weights.flip(0) if down else weights,
        keeps.flip(0) if (down if keeps_down is None else keeps_down) else keeps,
    ):
        share = step(share, mix(A, keep))
    return share / share.sum() if norm else share


def mended_rollout_eye(A):
    return torch.eye(len(A), dtype=A.dtype)


def mended_rollout_kept_out(A, keep):
    return (1 - keep) * A


### END SOLUTION


exercise(
    mended_rollout,
    stars=2,
    minutes=8,
    cases=lambda draw: [
        mended_rollout_case(draw, 2, draw.integer(3, 6)),
        mended_rollout_case(draw, draw.integer(1, 3), 1),
        mended_rollout_case(draw, 1, draw.integer(2, 5), torch.float64),
        mended_rollout_extremes(draw),
        mended_rollout_case(draw, draw.integer(3, 5), draw.integer(4, 7), torch.float64),
    ],
    wrong={
        ### BEGIN SOLUTION
        "the order is still wrong: the last layer mixes what the one below has already mixed, so it comes first here": lambda weights, keeps: (
            mended_rollout_as(weights, keeps, down=False)
        ),
        "the order is right now, but what a position keeps of its own vector is still missing": lambda weights, keeps: (
            mended_rollout_as(weights, keeps, mended_rollout_kept_out, norm=True)
        ),
        "what a position keeps of its own vector is missing, and the sums are below 1": lambda weights, keeps: (
            mended_rollout_as(weights, keeps, mended_rollout_kept_out)
        ),
        "nothing is mended yet: what does a position keep, and which layer is the last?": lambda weights, keeps: (
            mended_rollout_as(weights, keeps, mended_rollout_kept_out, down=False, norm=True)
        ),
        "only the last line is gone: what does a position keep, and which layer is the last?": lambda weights, keeps: (
            mended_rollout_as(weights, keeps, mended_rollout_kept_out, down=False)
        ),
        "keep and 1 - keep are exchanged": lambda weights, keeps: mended_rollout_as(
            weights, 1 - keeps
        ),
        "keep and 1 - keep are exchanged, and the layers still run upwards": lambda weights, keeps: (
            mended_rollout_as(weights, 1 - keeps, down=False)
        ),
        "the layers are turned round, but not their keeps: each layer has its own": lambda weights, keeps: (
            mended_rollout_as(weights, keeps, keeps_down=False)
        ),
        "the keeps are turned round, but not the layers": lambda weights, keeps: mended_rollout_as(
            weights, keeps, down=False, keeps_down=True
        ),
        "half and half: each layer has a keep of its own": lambda weights, keeps: mended_rollout(
            weights, torch.full_like(keeps, 0.5)
        ),
        "the weights are taken whole, not times 1 - keep, and all is stretched afterwards": lambda weights, keeps: (
            mended_rollout_as(
                weights, keeps, lambda A, keep: keep * mended_rollout_eye(A) + A, norm=True
            )
        ),
        "the weights are taken whole: they count 1 - keep": lambda weights, keeps: (
            mended_rollout_as(weights, keeps, lambda A, keep: keep * mended_rollout_eye(A) + A)
        ),
        "the own vector is added whole: it counts `keep`": lambda weights, keeps: mended_rollout_as(
            weights, keeps, lambda A, keep: mended_rollout_eye(A) + (1 - keep) * A
        ),
        "the own vector is added whole, and all is stretched afterwards: it counts `keep`": lambda weights, keeps: (
            mended_rollout_as(
                weights, keeps, lambda A, keep: mended_rollout_eye(A) + (1 - keep) * A, norm=True
            )
        ),
        "`keep` is added to every weight, not to the diagonal alone": lambda weights, keeps: (
            mended_rollout_as(weights, keeps, lambda A, keep: keep + (1 - keep) * A)
        ),
        "`keep` is added to every weight, not to the diagonal alone; the sum 1 hides it": lambda weights, keeps: (
            mended_rollout_as(weights, keeps, lambda A, keep: keep + (1 - keep) * A, norm=True)
        ),
        "it reads a column, what others take from a position; a row says what it takes": lambda weights, keeps: (
            mended_rollout_as(weights, keeps, step=lambda share, A: A @ share)
        ),
        "it follows the first position; the last was wanted": lambda weights, keeps: (
            mended_rollout_as(weights, keeps, start=0)
        ),
        "that is only the last layer: those below have mixed before it": lambda weights, keeps: (
            mended_rollout(weights[-1:], keeps[-1:])
        ),
        "that is only the lowest layer: those above mix what it has mixed": lambda weights, keeps: (
            mended_rollout(weights[:1], keeps[:1])
        ),
        "that is the mean of the layers: each mixes what the one below has mixed": lambda weights, keeps: (
            torch.stack(
                [mended_rollout(A[None], keep[None]) for A, keep in zip(weights, keeps)]
            ).mean(0)
        ),
        "that is the rollout of every position: wanted is the row of the last": lambda weights, keeps: (
            torch.stack(
                [mended_rollout_as(weights, keeps, start=t) for t in range(weights.shape[-1])]
            )
        ),
        ### END SOLUTION
    },
    signs={
        "number {0} is nan: where a layer keeps everything, keep = 1, nothing is left to stretch to 1": lambda got, want, weights, keeps: (
            got.isnan()
        ),
        "the shares do not sum to 1: what is kept and what is taken have to sum to 1 in each layer": lambda got, want, weights, keeps: (
            abs(got.sum() - 1) > 1e-3
        ),
    },
)


def ov_circuit_cases(draw):
    """In the second all matrices are square; at the end, a head that copies, and one that lowers all logits."""
    size = draw.integer(2, 4)
    some = draw.integer(6, 10), draw.integer(4, 6), draw.integer(2, 3)
    for V, C, D, dtype in (
        (5, 4, 2, torch.float64),
        (4, 4, 4, torch.float32),
        (2, 3, 1, torch.float64),
        (size + 3, size, size, torch.float64),
        (*some, torch.float32),
        (4, 3, 2, torch.float64),
    ):
        E, W_v, W_o, W_u = (
            0.7 * draw.normal(*shape, dtype=dtype) for shape in ((V, C), (D, C), (C, D), (V, C))
        )
        yield [E, W_v, W_o, W_u]
    yield [W_u, W_v, W_v.T.contiguous(), W_u]
    yield [E.abs(), W_v.abs(), W_o.abs(), -W_u.abs()]


### BEGIN SOLUTION
def ov_circuit_best(table, of=lambda table: table, dim=-1):
    return of(table).masked_fill(torch.eye(len(table)).bool(), -math.inf).amax(dim)


def ov_circuit_with(margin=None, table=None):
    """margin(table), table(table): what stands in the place of the right ones."""

    def answer(E, W_v, W_o, W_u):
        right, own = ov_circuit(E, W_v, W_o, W_u)
        shown = table(right) if table else right
        return [shown, margin(shown) if margin else own]

    return answer


def ov_circuit_of(table):
    return [table, table.diagonal() - ov_circuit_best(table)]


### END SOLUTION


exercise(
    ov_circuit,
    stars=3,
    minutes=15,
    cases=lambda draw: list(ov_circuit_cases(draw)),
    atol=1e-4,
    wrong={
        ### BEGIN SOLUTION
        "rows and columns of `table` are exchanged: row c is the character that is looked at": lambda *args: [
            ov_circuit(*args)[0].T,
            ov_circuit(*args)[1],
        ],
        "rows and columns of `table` are exchanged, and the margins are taken from that": lambda *args: (
            ov_circuit_of(ov_circuit(*args)[0].T)
        ),
        "the table of the characters is used as the last matrix, too; here W_u is another one": lambda E, W_v, W_o, W_u: (
            ov_circuit(E, W_v, W_o, E)
        ),
        "the last matrix is looked up, too; the characters come from E": lambda E, W_v, W_o, W_u: (
            ov_circuit(W_u, W_v, W_o, W_u)
        ),
        "E and W_u are exchanged: E is looked up, W_u reads": lambda E, W_v, W_o, W_u: ov_circuit(
            W_u, W_v, W_o, E
        ),
        "W_v and W_o are left out: that is the way past the head": lambda E, W_v, W_o, W_u: (
            ov_circuit_of(E @ W_u.T)
        ),
        "the character's own vector is in it: the residual goes past the head, the head writes only its part": lambda E, W_v, W_o, W_u: (
            ov_circuit_of(E @ W_u.T + ov_circuit(E, W_v, W_o, W_u)[0])
        ),
        "it is divided by the root of the head size: that belongs to the scores, and they are not in it": lambda E, W_v, W_o, W_u: (
            ov_circuit_of(ov_circuit(E, W_v, W_o, W_u)[0] / len(W_v) ** 0.5)
        ),
        "probabilities stand in `table`: changes of logits are wanted": ov_circuit_with(
            lambda p: p.diagonal() - ov_circuit_best(p), lambda table: table.softmax(-1)
        ),
        "probabilities stand in `table`: changes of logits are wanted (the margins are right)": ov_circuit_with(
            table=lambda table: table.softmax(-1)
        ),
        "the mean of each row is subtracted from `table`: its margins stay, but the changes themselves are wanted": ov_circuit_with(
            table=lambda table: table - table.mean(-1, keepdim=True)
        ),
        "`table` is right; the largest other change is sought in c's column: in c's row": ov_circuit_with(
            lambda table: table.diagonal() - ov_circuit_best(table, dim=0)
        ),
        "`table` is right; the margin is taken from the largest absolute value: from the largest change": ov_circuit_with(
            lambda table: table.diagonal() - ov_circuit_best(table, torch.abs)
        ),
        "`table` is right; the margin is the largest change minus the second, whosever they are; c's own comes first": ov_circuit_with(
            lambda table: table.topk(2).values @ torch.tensor([1.0, -1.0], dtype=table.dtype)
        ),
        "`table` is right; the sign of the margin is reversed: own minus best other": ov_circuit_with(
            lambda table: ov_circuit_best(table) - table.diagonal()
        ),
        "`table` is right; the own change alone says little: another logit may be raised more": ov_circuit_with(
            lambda table: table.diagonal()
        ),
        "`table` is right; c itself is among those that it is compared with: the best *other* is wanted": ov_circuit_with(
            lambda table: table.diagonal() - table.amax(-1)
        ),
        "`table` is right; the margin is taken from the mean of the row; c has to beat the best other": ov_circuit_with(
            lambda table: table.diagonal() - table.mean(-1)
        ),
        "`table` is right; the margin is taken from the mean of the others; c has to beat the best of them": ov_circuit_with(
            lambda table: table.diagonal() - (table.sum(-1) - table.diagonal()) / (len(table) - 1)
        ),
        "`table` is right; c counts as 0 among the others, and 0 is more than a negative change": ov_circuit_with(
            lambda table: table.diagonal() - table.clone().fill_diagonal_(0).amax(-1)
        ),
        "the two are exchanged: first `table`, then `margin`": lambda *args: ov_circuit(*args)[
            ::-1
        ],
        "`table` is right; the margin is wanted as a number for each c, not as True or False": ov_circuit_with(
            lambda table: table.diagonal() > ov_circuit_best(table)
        ),
        ### END SOLUTION
    },
    signs={
        "`table` itself lost its diagonal, at c = {0}: hide it in a copy": lambda got, want, *args: (
            got[0].diagonal().isinf() | (got[0].diagonal() == 0)
        ),
    },
)
