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


def dead_units_cases(draw):
    some = draw.integer(2, 4), draw.integer(2, 5), draw.integer(12, 15), draw.integer(2, 5)
    for i, (B, T, units, dead) in enumerate(
        [(1, 1, 7, 3), (1, 4, 9, 2), (2, 3, 11, draw.integer(2, 4)), some]
    ):
        z = draw.normal(B, T, units, dtype=(torch.float32, torch.float64)[i % 2])
        z[0, 0] = z[0, 0].abs() + 0.1
        z[..., :dead] = -z[..., :dead].abs() - 0.1
        z[-1, -1, 0] = 0  # dead all the same
        if T > 1:
            z[0, :, dead], z[0, -1, -1] = (
                -1,
                -1,
            )  # one is silent in the first text, one at one character
        if B > 1:
            z[-1, :, dead + 1 : dead + 3], z[-1, 0, dead] = -1, 1  # two others in the last text
        yield [z[..., draw.ids(10**6, units).argsort()]]
    z = draw.normal(2, 3, draw.integer(5, 7)).abs() + 0.1
    z[1], z[0, 2], z[..., 0] = (
        -z[1],
        -z[0, 2],
        -z[..., 0].abs(),
    )  # a text is silent, and a character of the other one
    yield [z]


exercise(
    dead_units,
    stars=1,
    minutes=5,
    cases=lambda draw: list(dead_units_cases(draw)),
    wrong={
        ### BEGIN SOLUTION
        "this is the share of zeros; a unit is dead only if it is 0 for all characters": lambda z: (
            (z <= 0).double().mean().item()
        ),
        "units that are 0 for some character are counted; dead are those that are 0 for all": lambda z: (
            (z <= 0).flatten(0, 1).any(0).double().mean().item()
        ),
        "this is the share of the characters for which all units are 0": lambda z: (
            (z <= 0).all(-1).double().mean().item()
        ),
        "this is the share of the texts in which all is 0: after the first `all`, axis 1 is the units": lambda z: (
            (z <= 0).all(1).all(1).double().mean().item()
        ),
        "this is the number of dead units, not their share": lambda z: (
            (z <= 0).flatten(0, 1).all(0).sum().item()
        ),
        "this is the share of the units that live": lambda z: (
            (z > 0).flatten(0, 1).any(0).double().mean().item()
        ),
        "counted text by text: a unit that is 0 in one text may live in another": lambda z: (
            (z <= 0).all(1).double().mean().item()
        ),
        "counted place by place: a unit that is 0 at one place may live at another": lambda z: (
            (z <= 0).all(0).double().mean().item()
        ),
        "only the first text is looked at": lambda z: (z[0] <= 0).all(0).double().mean().item(),
        "a number that is just 0 is 0 after the ReLU, too": lambda z: (
            (z < 0).flatten(0, 1).all(0).double().mean().item()
        ),
        "z is what comes before the ReLU: most units that it makes 0 are negative there": lambda z: (
            (z == 0).flatten(0, 1).all(0).double().mean().item()
        ),
        "a unit whose mean is negative may still be positive somewhere": lambda z: (
            (z.mean((0, 1)) <= 0).double().mean().item()
        ),
        "the number of dead units is divided by something other than the number of units": lambda z: (
            (z <= 0).flatten(0, 1).all(0).sum().item() / z.numel()
        ),
        ### END SOLUTION
    },
    signs={"a share lies between 0 and 1": lambda got, want, z: not 0 <= got <= 1},
)


### BEGIN SOLUTION
def stream_deviation_with(
    n_layer, start, added, scaled, steps=2, shrink=lambda steps: steps**-0.5, power=2
):
    layer = added * (shrink(steps * n_layer) if scaled else 1)
    return (start**power + steps * n_layer * layer**power) ** (1 / power)


### END SOLUTION

exercise(
    stream_deviation,
    stars=1,
    minutes=5,
    cases=lambda draw: [
        [n, draw.number(0.5, 3), draw.number(1, 3), scaled]
        for n, scaled in (
            (1, False),
            (1, True),
            (draw.integer(2, 12), False),
            (draw.integer(3, 9), True),
            (draw.integer(10, 96), True),
        )
    ],
    wrong={
        ### BEGIN SOLUTION
        "the standard deviations are added; of independent numbers the variances add": lambda *args: (
            stream_deviation_with(*args, power=1)
        ),
        "each block adds twice: that is 2 N times, not N": lambda *args: stream_deviation_with(
            *args, steps=1
        ),
        "the scale is that for 2N additions, but only N are added up: each block adds twice": lambda *args: (
            stream_deviation_with(*args, steps=1, shrink=lambda n: (2 * n) ** -0.5)
        ),
        "each block adds two independent numbers: their variance is 2 added², not (2 added)²": lambda n, start, added, scaled: (
            stream_deviation_with(n, start, 2**0.5 * added, scaled)
        ),
        "all 2N numbers are added before they are squared: that is right if they are all the same, not independent": lambda n, start, added, scaled: (
            stream_deviation_with(n, start, (2 * n) ** 0.5 * added, scaled)
        ),
        "the start is not squared: a variance is the square of a deviation": lambda n, start, added, scaled: (
            stream_deviation_with(n, start**0.5, added, scaled)
        ),
        "the start stands outside the root: its variance is one of those that add up": lambda n, start, added, scaled: (
            start + stream_deviation_with(n, 0, added, scaled)
        ),
        "this is the variance: take its root": lambda *args: stream_deviation_with(*args) ** 2,
        "the standard deviations are not squared": lambda n, start, added, scaled: (
            (start + (added if scaled else 2 * n * added)) ** 0.5
        ),
        "a factor 1/√(2N) divides the variance by 2N, not by √(2N)": lambda *args: (
            stream_deviation_with(*args, shrink=lambda steps: steps**-0.25)
        ),
        "the factor is 1/√(2N), not 1/(2N)": lambda *args: stream_deviation_with(
            *args, shrink=lambda steps: 1 / steps
        ),
        "the factor is 1/√(2N), not 1/√N: each block adds twice": lambda *args: (
            stream_deviation_with(*args, shrink=lambda steps: (steps / 2) ** -0.5)
        ),
        "`scaled` changes nothing here": lambda n, start, added, scaled: stream_deviation_with(
            n, start, added, False
        ),
        "it scales where `scaled` is False, and not where it is True": lambda n, start, added, scaled: (
            stream_deviation_with(n, start, added, not scaled)
        ),
        "what was in the stream at the start is missing": lambda n, start, added, scaled: (
            stream_deviation_with(n, 0, added, scaled)
        ),
        "the start is scaled, too; only what is added gets smaller": lambda n, start, added, scaled: (
            stream_deviation_with(n, start * ((2 * n) ** -0.5 if scaled else 1), added, scaled)
        ),
        ### END SOLUTION
    },
    signs={
        "it is smaller than the start; variances only add up": lambda got, want, n, start, *args: (
            got < start
        )
    },
)


def mended_dropout_cases(draw):
    low, high = draw.number(0.15, 0.3), draw.number(0.6, 0.8)
    for i, (shape, p, training) in enumerate(
        [
            ((7,), 0.0, True),
            ((8, 5), low, True),
            ((4, 5), 0.3, False),
            ((1, 1), high, False),
            ((2, 3, 6), high, True),
        ]
    ):
        dtype = (torch.float32, torch.float64)[i % 2]
        u = draw.uniform(*shape, dtype=dtype)
        u.view(-1)[:1], u.view(-1)[-1:] = 0.05 if p else 0.5, 0.95  # one falls, one stays
        yield [draw.normal(*shape, dtype=dtype) + 3, u, p, training]


exercise(
    mended_dropout,
    stars=1,
    minutes=3,
    cases=lambda draw: list(mended_dropout_cases(draw)),
    wrong={
        ### BEGIN SOLUTION
        "both bugs are still there": lambda x, u, p, training: (
            x * (u >= p) * (torch.tensor(1 / p if p else math.inf) if training else 1)
        ),
        "it still divides by p; what share of the numbers stays?": lambda x, u, p, training: (
            x * (u >= p) * torch.tensor(1 / p if p else math.inf) if training else x
        ),
        "it still drops numbers in evaluation": lambda x, u, p, training: (
            x * (u >= p) / (1 - p if training else 1)
        ),
        "training makes no difference: numbers fall in evaluation, too": lambda x, u, p, training: (
            x * (u >= p) / (1 - p)
        ),
        "the numbers that stay are not divided: the mean gets smaller": lambda x, u, p, training: (
            x * (u >= p) if training else x
        ),
        "the numbers that stay are multiplied by 1 - p, not divided": lambda x, u, p, training: (
            x * (u >= p) * (1 - p) if training else x
        ),
        "in evaluation it multiplies by 1 - p; the division in training has seen to that": lambda x, u, p, training: (
            x * (u >= p) / (1 - p) if training else x * (1 - p)
        ),
        "nothing is divided in training, and evaluation is multiplied by 1 - p: the mean has to stay in both": lambda x, u, p, training: (
            x * (u >= p) if training else x * (1 - p)
        ),
        "in evaluation it divides by 1 - p: there nothing falls, and nothing has to be made up for": lambda x, u, p, training: (
            x * (u >= p) / (1 - p) if training else x / (1 - p)
        ),
        "it divides by the share that happened to stay; the mean has to stay on average: what share is expected?": lambda x, u, p, training: (
            x * (u >= p) / (u >= p).to(x.dtype).mean() if training else x
        ),
        "the wrong ones fall: those with u < p are kept": lambda x, u, p, training: (
            x * (u < p) / (1 - p) if training else x
        ),
        "training and evaluation are exchanged": lambda x, u, p, training: (
            x if training else x * (u >= p) / (1 - p)
        ),
        ### END SOLUTION
    },
    signs={
        "in evaluation every number has to stay as it is": lambda got, want, x, u, p, training: (
            (got != x) & (not training)
        ),
        "which numbers fall is for u to say: F.dropout and torch.rand throw dice of their own": lambda got, want, x, u, p, training: (
            training
            and (got == 0).flatten()[u.flatten().argsort()].int().diff().count_nonzero() > 1
        ),
        "numbers with u < p have to become 0": lambda got, want, x, u, p, training: (
            (got != 0) & (u < p)
        ),
        "numbers with u >= p must not become 0": lambda got, want, x, u, p, training: (
            (got == 0) & (u >= p)
        ),
    },
)


### BEGIN SOLUTION
def layer_norm_gradient_with(
    x, g, eps, mean=1, spread=1, divide=True, unbiased=False, outside=False, dim=-1, power=1
):
    var = x.var(dim, keepdim=True, unbiased=unbiased)
    r = var.sqrt() + eps if outside else (var + eps).sqrt()
    y = (x - x.mean(dim, keepdim=True)) / r
    sums = (
        g - mean * g.mean(dim, keepdim=True) - spread * y**power * (g * y).mean(dim, keepdim=True)
    )
    return sums / r if divide else sums


def layer_norm_gradient_apart(x, g, eps, power, spread=1):  # with power = -3 it is right
    d = x - x.mean(-1, keepdim=True)
    r = (d.square().mean(-1, keepdim=True) + eps).sqrt()
    return (g - g.mean(-1, keepdim=True)) / r - spread * d * (g * d).mean(
        -1, keepdim=True
    ) * r**power


def layer_norm_gradient_own(x, g, eps):
    d = x - x.mean(-1, keepdim=True)
    r = (d.square().mean(-1, keepdim=True) + eps).sqrt()
    return g * (1 - (1 + (d / r) ** 2) / x.shape[-1]) / r


### END SOLUTION


def layer_norm_gradient_cases(draw):
    some = draw.integer(1, 3), draw.integer(2, 5), draw.integer(5, 9)
    for i, (B, T, C) in enumerate([(1, 1, 5), (2, 3, 4), (1, 2, 8), (2, 2, 1), some]):
        dtype = (torch.float32, torch.float64)[i % 2]
        yield [
            2 * draw.normal(B, T, C, dtype=dtype) + 1,
            draw.normal(B, T, C, dtype=dtype) + 1,
            draw.number(0.1, 0.9),
        ]


exercise(
    layer_norm_gradient,
    stars=3,
    minutes=30,
    cases=lambda draw: list(layer_norm_gradient_cases(draw)),
    atol=2e-5,
    wrong={
        ### BEGIN SOLUTION
        "μ and s are taken for constants, but they depend on x too": lambda x, g, eps: (
            layer_norm_gradient_with(x, g, eps, mean=0, spread=0)
        ),
        "only what x_i does to its own y_i is there; through μ and s² it moves all y_j: a sum over j is missing": lambda x, g, eps: (
            layer_norm_gradient_own(x, g, eps)
        ),
        "the way through s² is missing, or 0: the mean of y alone is 0; take that of g·y": lambda x, g, eps: (
            layer_norm_gradient_with(x, g, eps, spread=0)
        ),
        "the way through μ is missing": lambda x, g, eps: layer_norm_gradient_with(
            x, g, eps, mean=0
        ),
        "in the way through s² the last factor is missing: x_i moves s² by as much as x_i is from μ": lambda x, g, eps: (
            layer_norm_gradient_with(x, g, eps, power=0)
        ),
        "the way through s² counts twice: the derivative of a root is a half over the root": lambda x, g, eps: (
            layer_norm_gradient_with(x, g, eps, spread=2)
        ),
        "the way through s² counts half: s² is a sum of squares, and a square's derivative has a 2": lambda x, g, eps: (
            layer_norm_gradient_with(x, g, eps, spread=0.5)
        ),
        "the way through s² has the wrong sign: a larger s makes y smaller": lambda x, g, eps: (
            layer_norm_gradient_with(x, g, eps, spread=-1)
        ),
        "the ways through μ and s² are sums over C, and the 1/C of both is missing": lambda x, g, eps: (
            layer_norm_gradient_with(x, g, eps, mean=x.shape[-1], spread=x.shape[-1])
        ),
        "the way through s² has x - μ where y should stand: one r is missing": lambda x, g, eps: (
            layer_norm_gradient_apart(x, g, eps, -2)
        ),
        "the way through s² has x - μ twice where y should stand: two r are missing": lambda x, g, eps: (
            layer_norm_gradient_apart(x, g, eps, -1)
        ),
        "in the way through s² the derivative of 1/r is missing: it is that of s², times -1/(2 r³)": lambda x, g, eps: (
            layer_norm_gradient_apart(x, g, eps, 0, -2)
        ),
        "in the way through s² stands the derivative of r; that of 1/r has another sign, and r² below": lambda x, g, eps: (
            layer_norm_gradient_apart(x, g, eps, -1, -1)
        ),
        "it is divided by r twice: in the first two ways y_i moves by 1/r, no more": lambda x, g, eps: (
            layer_norm_gradient_with(x, g, eps, divide=False)
            / (x.var(-1, keepdim=True, unbiased=False) + eps)
        ),
        "y is divided by s: it is (x - μ) / r, with epsilon under the root": lambda x, g, eps: (
            layer_norm_gradient_apart(x, g, eps, -1, 1 / x.var(-1, keepdim=True, unbiased=False))
        ),
        "nothing is divided by r": lambda x, g, eps: layer_norm_gradient_with(
            x, g, eps, divide=False
        ),
        "the variance is divided by C - 1; a layer norm divides by C": lambda x, g, eps: (
            layer_norm_gradient_with(x, g, eps, unbiased=True)
        ),
        "epsilon stands outside the root": lambda x, g, eps: layer_norm_gradient_with(
            x, g, eps, outside=True
        ),
        "epsilon stands outside the root; it belongs to the variance, before the root is taken": lambda x, g, eps: (
            torch.autograd.functional.vjp(
                lambda x: (
                    (x - x.mean(-1, keepdim=True))
                    / (x.var(-1, keepdim=True, unbiased=False).sqrt() + eps)
                ),
                x,
                g,
            )[1]
        ),
        "epsilon is missing": lambda x, g, eps: layer_norm_gradient_with(x, g, 0),
        "a constant 1e-5 is used for epsilon": lambda x, g, eps: layer_norm_gradient_with(
            x, g, 1e-5
        ),
        "mean and variance are taken over the characters, not over the C numbers of one": lambda x, g, eps: (
            layer_norm_gradient_with(x, g, eps, dim=1)
        ),
        "this is y: the norm itself, not its gradient": lambda x, g, eps: F.layer_norm(
            x, x.shape[-1:], eps=eps
        ),
        ### END SOLUTION
    },
    signs={
        "text {0}, character {1}: the result does not sum to 0 over the C numbers": lambda got, want, *args: (
            got.sum(-1).abs() > 1e-3
        ),
    },
)


### BEGIN SOLUTION
def parallel_block_attention(
    y, W_qkv, W_o, n_head, causal=True, layout="3hd", scale=None, back=True
):
    B, T, C = y.shape
    qkv = y @ W_qkv.T
    if layout == "3hd":
        q, k, v = qkv.view(B, T, 3, n_head, -1).permute(2, 0, 3, 1, 4)
    elif layout == "h3d":
        q, k, v = qkv.view(B, T, n_head, 3, -1).permute(3, 0, 2, 1, 4)
    elif layout == "kqv":
        k, q, v = qkv.view(B, T, 3, n_head, -1).permute(2, 0, 3, 1, 4)
    else:
        q, k, v = (part.reshape(B, n_head, T, -1) for part in qkv.chunk(3, -1))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    return (out.transpose(1, 2) if back else out).reshape(B, T, C) @ W_o.T


def parallel_block_norm(x):
    return F.layer_norm(x, x.shape[-1:])


def parallel_block_without_x(y, W_qkv, W_o, W_1, W_2, n_head, bend=F.gelu, **how):
    return parallel_block_attention(y, W_qkv, W_o, n_head, **how) + bend(y @ W_1.T) @ W_2.T


def parallel_block_with(x, *args, **how):
    return x + parallel_block_without_x(parallel_block_norm(x), *args, **how)


def parallel_block_sequential(x, W_qkv, W_o, W_1, W_2, n_head, norm=parallel_block_norm):
    x = x + parallel_block_attention(parallel_block_norm(x), W_qkv, W_o, n_head)
    return x + F.gelu(norm(x) @ W_1.T) @ W_2.T


### END SOLUTION


def parallel_block_cases(draw):
    some = draw.integer(1, 2), draw.integer(2, 5), 2, 4
    for i, (B, T, H, D) in enumerate(
        [(1, 4, 2, 3), (2, 3, 3, 2), (1, 5, 1, 4), (2, 1, 2, 2), some]
    ):
        dtype, C = (torch.float32, torch.float64)[i % 2], H * D
        shapes = (3 * C, C), (C, C), (4 * C, C), (C, 4 * C)
        matrices = [draw.normal(*shape, dtype=dtype) * 1.5 * shape[1] ** -0.5 for shape in shapes]
        yield [2 * draw.normal(B, T, C, dtype=dtype) + 1, *matrices, H]


exercise(
    parallel_block,
    stars=3,
    minutes=15,
    cases=lambda draw: list(parallel_block_cases(draw)),
    atol=5e-5,
    wrong={
        ### BEGIN SOLUTION
        "the feed-forward layer waits for the attention: that is the block of this lesson": parallel_block_sequential,
        "the feed-forward layer reads what the attention gave, and not LN(x)": lambda x, *args: (
            parallel_block_sequential(x, *args, norm=lambda z: parallel_block_norm(z - x))
        ),
        "x itself is not added: the residual connection is missing": lambda x, *args: (
            parallel_block_with(x, *args) - x
        ),
        "x is added twice": lambda x, *args: parallel_block_with(x, *args) + x,
        "LN(x) is added in the place of x: the stream itself is never normed": lambda x, *args: (
            parallel_block_with(x, *args) - x + parallel_block_norm(x)
        ),
        "nothing is normed": lambda x, W_qkv, W_o, W_1, W_2, n_head: (
            x + parallel_block_attention(x, W_qkv, W_o, n_head) + F.gelu(x @ W_1.T) @ W_2.T
        ),
        "the feed-forward layer reads x, which is not normed": lambda x, W_qkv, W_o, W_1, W_2, n_head: (
            x
            + parallel_block_attention(parallel_block_norm(x), W_qkv, W_o, n_head)
            + F.gelu(x @ W_1.T) @ W_2.T
        ),
        "the attention reads x, which is not normed": lambda x, W_qkv, W_o, W_1, W_2, n_head: (
            x
            + parallel_block_attention(x, W_qkv, W_o, n_head)
            + F.gelu(parallel_block_norm(x) @ W_1.T) @ W_2.T
        ),
        "the sum is normed at the end: the norm comes before the layers, and only there": lambda x, *args: (
            parallel_block_norm(parallel_block_with(x, *args))
        ),
        "post-norm: the sum is normed, and not what goes into the layers": lambda x, W_qkv, W_o, W_1, W_2, n_head: (
            parallel_block_norm(
                x + parallel_block_attention(x, W_qkv, W_o, n_head) + F.gelu(x @ W_1.T) @ W_2.T
            )
        ),
        "the norm divides by the variance over C - 1; a layer norm divides it by C": lambda x, *args: (
            x
            + parallel_block_without_x(
                (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-5).sqrt(), *args
            )
        ),
        "queries and keys are exchanged": lambda *args: parallel_block_with(*args, layout="kqv"),
        "the attention is missing": lambda x, W_qkv, W_o, W_1, W_2, n_head: (
            x + F.gelu(parallel_block_norm(x) @ W_1.T) @ W_2.T
        ),
        "the feed-forward layer is missing": lambda x, W_qkv, W_o, W_1, W_2, n_head: (
            x + parallel_block_attention(parallel_block_norm(x), W_qkv, W_o, n_head)
        ),
        "the attention sees the future": lambda *args: parallel_block_with(*args, causal=False),
        "qkv is cut by head first; its rows are all queries, all keys, all values": lambda *args: (
            parallel_block_with(*args, layout="h3d")
        ),
        "q, k and v are cut into heads without an exchange of axes": lambda *args: (
            parallel_block_with(*args, layout="view")
        ),
        "on the way back the heads are put together without an exchange of axes": lambda *args: (
            parallel_block_with(*args, back=False)
        ),
        "W_o is not transposed: nn.Linear computes `x @ W.T`": lambda x, W_qkv, W_o, *args: (
            parallel_block_with(x, W_qkv, W_o.T, *args)
        ),
        "the projection W_o is missing": lambda x, W_qkv, W_o, *args: parallel_block_with(
            x, W_qkv, torch.eye(len(W_o), dtype=x.dtype), *args
        ),
        "the scores are divided by the root of C, not of the head size": lambda x, *args: (
            parallel_block_with(x, *args, scale=x.shape[-1] ** -0.5)
        ),
        "it bends with ReLU, not with GELU": lambda *args: parallel_block_with(*args, bend=F.relu),
        "it bends with GPT-2's approximation, gelu_tanh; here the exact F.gelu is wanted": lambda *args: (
            parallel_block_with(*args, bend=lambda z: F.gelu(z, approximate="tanh"))
        ),
        "nothing bends between W_1 and W_2": lambda *args: parallel_block_with(
            *args, bend=lambda z: z
        ),
        ### END SOLUTION
    },
    signs={
        "position 0 is wrong, where attention hands on its own value: norm, values, projection, feed-forward, sum?": lambda got, want, *args: (
            ~torch.isclose(got[:, 0], want[:, 0], 1e-3, 1e-3)
        ),
        "position 0 is right and a later one is not: is the attention right?": lambda got, want, *args: (
            ~torch.isclose(got, want, 1e-3, 1e-3)
        ),
    },
)
