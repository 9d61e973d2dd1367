"""How the exercises of lesson 06 are judged: cases, mistakes, symptoms."""

import math

import torch
from torch.nn import functional as F

from chargpt_lib.exercises.answers.gpt import (
    bits_per_byte,
    gpt_parameters,
    logit_contributions,
    sample_continuation,
    tied_gradient,
)
from chargpt_lib.exercises.judge import exercise


def gpt_parameters_cases(draw):
    """Sizes of which no two mistakes make the same difference."""
    cases = []
    for family in ("nanoGPT", "lecture", "GPT-2", draw.choice(["nanoGPT", "GPT-2", "lecture"])):
        V, T = (
            draw.choice([53, 59, 61, 71, 79, 83]),
            draw.choice([101, 103, 107, 109, 113, 127, 131]),
        )
        H, N = (1, 1) if len(cases) == 3 else (draw.integer(2, 8), draw.integer(3, 12))
        cases.append([V, T, H * draw.integer(4, 20), H, N, family])
    return cases


exercise(
    gpt_parameters,
    stars=3,
    minutes=13,
    cases=gpt_parameters_cases,
    wrong={
        ### BEGIN SOLUTION
        "one block is counted, not N": lambda V, T, C, H, N, family: gpt_parameters(
            V, T, C, H, 1, family
        ),
        "the blocks alone are counted: what of the tables, and of what comes after the blocks?": lambda V, T, C, H, N, family: (
            gpt_parameters(V, T, C, H, N, family) - gpt_parameters(V, T, C, H, 0, family)
        ),
        "these are the large matrices of the blocks: norms, biases and tables count, too": lambda V, T, C, H, N, family: (
            12 * N * C * C
        ),
        "the family is not looked at: this is always the lecture's count": lambda V, T, C, H, N, family: (
            gpt_parameters(V, T, C, H, N, "lecture")
        ),
        "the family is not looked at: this is always nanoGPT's count": lambda V, T, C, H, N, family: (
            gpt_parameters(V, T, C, H, N, "nanoGPT")
        ),
        "the family is not looked at: this is always GPT-2's count": lambda V, T, C, H, N, family: (
            gpt_parameters(V, T, C, H, N, "GPT-2")
        ),
        "queries, keys and values have biases in GPT-2: three times C in each block": lambda V, T, C, H, N, family: (
            gpt_parameters(V, T, C, H, N, family) - 3 * C * N * (family == "GPT-2")
        ),
        ### END SOLUTION
    },
    signs={
        "the position table is missing": lambda got, want, V, T, C, H, N, family: (
            want - got == T * C
        ),
        "a tied matrix is counted twice: the token table is the last matrix": lambda got, want, V, T, C, H, N, family: (
            family != "lecture" and got - want in (V * C, V * C + V)
        ),
        "a tied last matrix has no bias": lambda got, want, V, T, C, H, N, family: (
            family != "lecture" and got - want == V
        ),
        "the lecture's last matrix is not tied: it counts, with its bias": lambda got, want, V, T, C, H, N, family: (
            family == "lecture" and want - got in (V, V * C, V * C + V)
        ),
        "the last norm, after all blocks, is missing": lambda got, want, V, T, C, H, N, family: (
            want - got == C + C * (family != "nanoGPT")
        ),
        "a block has two norms, not one": lambda got, want, V, T, C, H, N, family: (
            want - got == N * (C + C * (family != "nanoGPT"))
        ),
        "a norm has its gamma in every family": lambda got, want, V, T, C, H, N, family: (
            family == "nanoGPT" and want - got in ((2 * N + 1) * C, 2 * N * C)
        ),
        "each norm of this family has a beta, beside its gamma": lambda got, want, V, T, C, H, N, family: (
            want - got == (2 * N + 1) * C
        ),
        "the norms are missing: each has a gamma and, in this family, a beta": lambda got, want, V, T, C, H, N, family: (
            want - got == 2 * (2 * N + 1) * C
        ),
        "without biases a norm has only its gamma": lambda got, want, V, T, C, H, N, family: (
            got - want == (2 * N + 1) * C
        ),
        "nanoGPT has no biases anywhere": lambda got, want, V, T, C, H, N, family: (
            family == "nanoGPT"
            and got - want
            in (6 * N * C, 9 * N * C, N * (6 * C + 2 * C) + C, N * (9 * C + 2 * C) + C)
        ),
        "queries, keys and values have biases in GPT-2, and only there": lambda got, want, V, T, C, H, N, family: (
            family != "GPT-2" and got - want == 3 * C * N
        ),
        "the first feed-forward matrix ends 4C wide, and so its bias has 4C numbers": lambda got, want, V, T, C, H, N, family: (
            family == "lecture" and want - got == 3 * C * N
        ),
        "the heads share the width C: their number does not change the size": lambda got, want, V, T, C, H, N, family: (
            got - want
            in (3 * N * (H - 1) * C * C, 4 * N * (H - 1) * C * C, N * (H - 1) * (3 * C * C + 3 * C))
        ),
        "a feed-forward layer has two matrices, C x 4C and 4C x C": lambda got, want, V, T, C, H, N, family: (
            0 <= want - got - 4 * N * C * C <= 5 * N * C
        ),
        "the projection after the heads, C x C, is missing": lambda got, want, V, T, C, H, N, family: (
            want - got in (N * C * C, N * (C * C + C))
        ),
        "a bias is missing, or one too many: of the projection C, of the feed-forward layer 4C and C": lambda got, want, V, T, C, H, N, family: (
            abs(got - want) in [k * N * C for k in (1, 4, 5, 6)]
        ),
    },
)


def logit_contributions_cases(draw):
    """Before the last one the numbers are small: there epsilon counts."""
    cases = []
    for L, C, dtype, scale in (
        (1, 4, torch.float64, 1),
        (2, 8, torch.float32, 1),
        (draw.integer(3, 9), 16, torch.float32, 1),
        (4, 8, torch.float64, 0.01),
        (draw.integer(3, 9), draw.integer(5, 30), torch.float64, 1),
    ):
        parts = draw.normal(L, C, dtype=dtype) + draw.normal(L, 1, dtype=dtype) + 1
        cases.append(
            [scale * parts, draw.uniform(C, dtype=dtype) + 0.5, draw.normal(C, dtype=dtype) + 0.5]
        )
    return cases


### BEGIN SOLUTION
def logit_contributions_lens(parts, gamma, w):
    return F.layer_norm(parts, parts.shape[-1:], gamma) @ w


def logit_contributions_as(
    centre=lambda parts: parts.mean(-1, keepdim=True),
    spread=lambda x: (x.var(unbiased=False) + 1e-5).sqrt(),
):
    return lambda parts, gamma, w: (parts - centre(parts)) / spread(parts.sum(0)) * gamma @ w


def logit_contributions_rescaled(shares):
    def rescale(parts, gamma, w):
        rows = shares(parts, gamma, w)
        return rows * logit_contributions_lens(parts.sum(0), gamma, w) / rows.sum()

    return rescale


def logit_contributions_gradient(parts, gamma, w):
    x, v = parts.sum(0), gamma * w
    spread = (x.var(unbiased=False) + 1e-5).sqrt()
    normed = (x - x.mean()) / spread
    return parts @ (v - v.mean() - normed * (v * normed).mean()) / spread


### END SOLUTION


exercise(
    logit_contributions,
    stars=3,
    minutes=22,
    cases=logit_contributions_cases,
    wrong={
        ### BEGIN SOLUTION
        "each part is normed by itself: they share one divisor, that of the whole x": logit_contributions_lens,
        "these are the steps of the lens: each sum has another divisor there; keep that of the whole x": lambda parts, gamma, w: (
            logit_contributions_lens(parts.cumsum(0), gamma, w).diff(prepend=parts.new_zeros(1))
        ),
        "this is the lens, at each sum; a share belongs to one part alone": lambda parts, gamma, w: (
            logit_contributions_lens(parts.cumsum(0), gamma, w)
        ),
        "this is what the logit loses without the part: the divisor changes, too; keep that of the whole x": lambda parts, gamma, w: (
            logit_contributions_lens(parts.sum(0), gamma, w)
            - logit_contributions_lens(parts.sum(0) - parts, gamma, w)
        ),
        "this is the gradient times each part: the norm's divisor is not differentiated, it is kept as a number": logit_contributions_gradient,
        "the shares are stretched until their sum is right: centre each part and divide, then it is so by itself": logit_contributions_rescaled(
            lambda parts, gamma, w: parts @ w
        ),
        "w · gamma · r is stretched until the sum is right: centre each part and divide, then it is so by itself": logit_contributions_rescaled(
            lambda parts, gamma, w: parts @ (gamma * w)
        ),
        "each part normed by itself, then stretched: centre each, and divide all by one number": logit_contributions_rescaled(
            logit_contributions_lens
        ),
        "the means are missing: the norm takes the mean away first": logit_contributions_as(
            centre=lambda parts: 0
        ),
        "the mean of x is taken from every part: from each only its own": logit_contributions_as(
            centre=lambda parts: parts.sum(0).mean()
        ),
        "the mean of x is split evenly: each part has a mean of its own": logit_contributions_as(
            centre=lambda parts: parts.sum(0).mean() / len(parts)
        ),
        "gamma is missing": lambda parts, gamma, w: logit_contributions(
            parts, torch.ones_like(gamma), w
        ),
        "no divisor: the norm divides by the standard deviation of x": logit_contributions_as(
            spread=lambda x: 1
        ),
        "divided by the variance: take its root": logit_contributions_as(
            spread=lambda x: x.var(unbiased=False) + 1e-5
        ),
        "the variance divides by C - 1: the norm's divides by C (unbiased=False)": logit_contributions_as(
            spread=lambda x: (x.var() + 1e-5).sqrt()
        ),
        "epsilon is missing: where x is small it counts": logit_contributions_as(
            spread=lambda x: x.std(unbiased=False)
        ),
        "epsilon stands outside the root: it is added to the variance": logit_contributions_as(
            spread=lambda x: x.std(unbiased=False) + 1e-5
        ),
        "epsilon is missing, and the variance divides by C - 1: the norm's divides by C (unbiased=False)": logit_contributions_as(
            spread=lambda x: x.std()
        ),
        "it is divided by the spread of all parts' numbers: by that of their sum x": lambda parts, gamma, w: (
            (parts - parts.mean(-1, keepdim=True))
            / (parts.var(unbiased=False) + 1e-5).sqrt()
            * gamma
            @ w
        ),
        "a number for each coordinate: the product with w also sums over C": lambda parts, gamma, w: (
            (parts - parts.mean(-1, keepdim=True))
            / (parts.sum(0).var(unbiased=False) + 1e-5).sqrt()
            * gamma
            * w
        ),
        ### END SOLUTION
    },
    signs={
        "these are fractions: they must add up to the logit, not to 1": lambda got, want, parts, gamma, w: (
            abs(got.sum() - 1) < 1e-4 < abs(want.sum() - 1)
        ),
        "they add up to the logit, but are dealt out wrongly: which steps of the norm work on each part alone?": lambda got, want, parts, gamma, w: (
            abs(got.sum() - want.sum()) < 1e-4 * (1 + abs(want.sum()))
        ),
    },
)


exercise(
    bits_per_byte,
    stars=1,
    minutes=4,
    cases=lambda draw: [
        [draw.number(0.3, 4.5), text]
        for text in (
            draw.text(draw.integer(3, 30), "aboe \nßéö") + "é",
            draw.text(draw.integer(3, 30), "oaé鵞鳥\U0001fabf") + "鵞",
            "\U0001fabf",
            draw.text(draw.integer(2, 40)),
            draw.choice("oag"),
        )
    ],
    wrong={
        ### BEGIN SOLUTION
        "these are nats per byte: divide by ln 2": lambda loss, text: (
            loss * len(text) / len(text.encode())
        ),
        "these are bits per character: spread them over the bytes": lambda loss, text: (
            loss / math.log(2)
        ),
        "the loss is multiplied by ln 2; a nat is more than a bit: divide": lambda loss, text: (
            loss * math.log(2) * len(text) / len(text.encode())
        ),
        "bytes over characters is upside down: more bytes make each byte cheaper": lambda loss, text: (
            loss / math.log(2) * len(text.encode()) / len(text)
        ),
        "the loss is divided by the bytes, but not multiplied by the characters: it is a mean, not a sum": lambda loss, text: (
            loss / math.log(2) / len(text.encode())
        ),
        "these are the bits of the whole text: divide by its bytes": lambda loss, text: (
            loss / math.log(2) * len(text)
        ),
        "it is divided by 8; a byte is a piece of text here, not 8 bits of cost": lambda loss, text: (
            loss / math.log(2) * len(text) / len(text.encode()) / 8
        ),
        "two bytes are counted for every character: UTF-8 takes one to four": lambda loss, text: (
            loss / math.log(2) / 2
        ),
        "these are UTF-16's bytes: encode with utf-8": lambda loss, text: (
            loss / math.log(2) * len(text) / len(text.encode("utf-16-le"))
        ),
        "the logarithm of the loss is taken; a nat is a fixed number of bits: divide by ln 2": lambda loss, text: (
            math.log2(loss) * len(text) / len(text.encode())
        ),
        "the logarithm of the loss is taken; divide by ln 2, then spread it over the bytes": lambda loss, text: (
            math.log2(loss)
        ),
        "log10 was taken for the natural logarithm": lambda loss, text: (
            loss / math.log10(2) * len(text) / len(text.encode())
        ),
        ### END SOLUTION
    },
)


def sample_continuation_cases(draw):
    """float64, so that no throw lies within rounding of an edge."""
    cases = []
    sizes = (
        (6, 3, 4, 2, 12),
        (5, 4, 1, 1, 20),
        (draw.integer(4, 8), 4, 3, 7, 10),
        (3, 1, 2, 1, 9),
        (4, 5, 1, 1, 1),
    )
    for V, block_size, B, T, n in sizes:
        table, positions = (
            draw.normal(V, V, dtype=torch.float64),
            draw.normal(block_size, V, dtype=torch.float64),
        )
        cases.append(
            [
                1.5 * table,
                1.5 * positions,
                draw.ids(V, B, T),
                draw.uniform(B, n, dtype=torch.float64),
            ]
        )
    table, positions = (
        draw.uniform(8, 8, dtype=torch.float64),
        draw.uniform(4, 8, dtype=torch.float64),
    )
    idx, u = draw.ids(8, 1, 2), draw.uniform(1, 10, dtype=torch.float64)
    return [
        *cases,
        [table, positions, idx.repeat(6, 1), u.repeat(6, 1)],
    ]  # the same text and dice, six times


### BEGIN SOLUTION
def sample_continuation_as(
    cut=lambda idx, size: idx[:, -size:],
    soft=lambda logits: logits[:, -1].softmax(-1),
    dice=lambda u, n: u[:, n : n + 1],
    throw=lambda p, u: (p.cumsum(-1)[:, :-1] < u).sum(-1),
    places=lambda positions, t: positions[:t],
):
    def write(table, positions, idx, u):
        for n in range(u.shape[1]):
            window = cut(idx, len(positions))
            p = soft(table[window] + places(positions, window.shape[1]))
            idx = torch.cat([idx, throw(p, dice(u, n))[:, None]], dim=1)
        return idx

    return write


### END SOLUTION


exercise(
    sample_continuation,
    stars=2,
    minutes=8,
    cases=sample_continuation_cases,
    wrong={
        ### BEGIN SOLUTION
        "the window is cut from the beginning: it no longer sees what it has just written": sample_continuation_as(
            cut=lambda idx, size: idx[:, :size]
        ),
        "the softmax runs over the batch: the probabilities of one text's next character sum to 1": sample_continuation_as(
            soft=lambda logits: logits[:, -1].softmax(0)
        ),
        "nothing is mended yet: look at the axis of the softmax, and at the end from which the window is cut": sample_continuation_as(
            cut=lambda idx, size: idx[:, :size], soft=lambda logits: logits[:, -1].softmax(0)
        ),
        "the window is longer than `positions`: a long text has to be cut to its last block_size characters": sample_continuation_as(
            cut=lambda idx, size: idx
        ),
        "only the last character is looked at: the window still matters, because of the positions": sample_continuation_as(
            cut=lambda idx, size: idx[:, -1:]
        ),
        "the positions are counted from the end: the window's first character has the first position": sample_continuation_as(
            places=lambda positions, t: positions[-t:]
        ),
        "the window is one character too short": sample_continuation_as(
            cut=lambda idx, size: idx[:, -max(size - 1, 1) :]
        ),
        "the softmax runs over the places of the window: over the alphabet, the last axis": sample_continuation_as(
            soft=lambda logits: logits.softmax(1)[:, -1]
        ),
        "no dice: the likeliest character is always taken": sample_continuation_as(
            throw=lambda p, u: p.argmax(-1)
        ),
        "the first place is asked, not the last": sample_continuation_as(
            soft=lambda logits: logits[:, 0].softmax(-1)
        ),
        "the same throw is used for every character": sample_continuation_as(
            dice=lambda u, n: u[:, :1]
        ),
        "one throw, of the first text, is used for the whole batch": sample_continuation_as(
            dice=lambda u, n: u[:1, n : n + 1]
        ),
        "u is compared with the probabilities, not with the ends of their pieces": sample_continuation_as(
            throw=lambda p, u: (p[:, :-1] < u).sum(-1)
        ),
        "it counts the pieces that end after u: those before it": sample_continuation_as(
            throw=lambda p, u: (p.cumsum(-1)[:, :-1] > u).sum(-1)
        ),
        "only the new characters are returned: idx belongs before them": lambda table, positions, idx, u: (
            sample_continuation_as()(table, positions, idx, u)[:, idx.shape[1] :]
        ),
        "the text itself is cut, not only the window that the model sees": lambda table, positions, idx, u: (
            sample_continuation_as()(table, positions, idx, u)[:, -len(positions) - 1 :]
        ),
        ### END SOLUTION
    },
    signs={
        "the dice are given: two texts with the same u are written on alike; do not draw numbers of your own": lambda got, want, table, positions, idx, u: (
            bool((idx == idx[0]).all() and (u == u[0]).all()) and (got != got[0]).any().item()
        ),
    },
)


def tied_gradient_cases(draw):
    """In most of them an id occurs twice."""
    cases = []
    for V, C, M, dtype in (
        (2, 1, 1, torch.float64),
        (5, 3, 8, torch.float32),
        (draw.integer(4, 9), 4, 12, torch.float64),
        (draw.integer(10, 20), draw.integer(2, 6), 6, torch.float32),
    ):
        idx, targets = draw.ids(V, M), draw.ids(V, M)
        idx[-1] = idx[0]
        targets[-1] = (targets[0] + 1) % V
        cases.append([draw.normal(V, C, dtype=dtype), idx, targets])
    return cases


### BEGIN SOLUTION
def tied_gradient_as(E, idx, targets, last=1.0, table=1.0, axis=-1, right=1.0, rows=None, add=True):
    x = E[idx]
    error = (x @ E.T).softmax(axis) - right * F.one_hot(targets, len(E)).to(E.dtype)
    looked_up = torch.zeros_like(E).index_put_(
        (idx if rows is None else rows,), error @ E, accumulate=add
    )
    return (last * error.T @ x + table * looked_up) / len(idx)


### END SOLUTION


exercise(
    tied_gradient,
    stars=3,
    minutes=20,
    cases=tied_gradient_cases,
    wrong={
        ### BEGIN SOLUTION
        "this is the gradient of the last matrix alone: the table is also looked up": lambda E, idx, targets: (
            tied_gradient_as(E, idx, targets, table=0.0)
        ),
        "this is the gradient of the looked-up rows alone: the table is also the last matrix": lambda E, idx, targets: (
            tied_gradient_as(E, idx, targets, last=0.0)
        ),
        "this is the last matrix's gradient, twice: the rows that are looked up have another one": lambda E, idx, targets: (
            tied_gradient_as(E, idx, targets, last=2.0, table=0.0)
        ),
        "this is the looked-up rows' gradient, twice: the last matrix has another one": lambda E, idx, targets: (
            tied_gradient_as(E, idx, targets, last=0.0, table=2.0)
        ),
        "an id that occurs twice in idx keeps only one of its gradients: add them up (`+=` with an index does not)": lambda E, idx, targets: (
            tied_gradient_as(E, idx, targets, add=False)
        ),
        "this is the gradient of the sum: the loss is the mean over the M characters": lambda E, idx, targets: (
            len(idx) * tied_gradient_as(E, idx, targets)
        ),
        "half of it: the two gradients add up, they are not averaged": lambda E, idx, targets: (
            tied_gradient_as(E, idx, targets) / 2
        ),
        "the sign is turned round: p - y, not y - p": lambda E, idx, targets: (
            -tied_gradient_as(E, idx, targets)
        ),
        "the targets are missing: p - y, not p alone": lambda E, idx, targets: tied_gradient_as(
            E, idx, targets, right=0.0
        ),
        "the looked-up gradient went to the rows of the targets: the rows of idx were looked up": lambda E, idx, targets: (
            tied_gradient_as(E, idx, targets, rows=targets)
        ),
        "the softmax runs over the characters of the text: over the alphabet, the last axis": lambda E, idx, targets: (
            tied_gradient_as(E, idx, targets, axis=0)
        ),
        "it is divided by the numbers in the logits, M times V: by M alone": lambda E, idx, targets: (
            tied_gradient_as(E, idx, targets) / len(E)
        ),
        ### END SOLUTION
    },
)
