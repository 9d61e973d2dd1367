"""How the exercises of lesson 04 are judged: cases, mistakes, symptoms."""

import math

import torch
from torch.nn import functional as F

from chargpt_lib.exercises.answers.multi_head import (
    grouped_query_attention,
    head_contributions,
    longest_text,
    merge_heads,
    multi_head_weights,
)
from chargpt_lib.exercises.judge import exercise

exercise(
    merge_heads,
    stars=1,
    minutes=5,
    cases=lambda draw: [
        [draw.normal(*shape, dtype=dtype)]
        for *shape, dtype in (
            (2, 3, 4, 5, torch.float32),
            (1, 2, 3, 2, torch.float64),
            (2, 1, 3, 2, torch.float32),
            (1, 2, 1, 3, torch.float32),
            (
                draw.integer(2, 4),
                draw.integer(2, 4),
                draw.integer(2, 6),
                draw.integer(2, 4),
                torch.float64,
            ),
        )
    ],
    wrong={
        ### BEGIN SOLUTION
        "no axis is exchanged: the numbers stay where they are, and a row holds several characters": lambda x: (
            x.reshape(x.shape[0], x.shape[2], -1)
        ),
        "axes 0 and 1 are exchanged, as above without a batch; here axis 0 is the text": lambda x: (
            x.transpose(0, 1).reshape(x.shape[0], x.shape[2], -1)
        ),
        "T and D are exchanged, as for keys; it is the heads that have to move": lambda x: (
            x.transpose(2, 3).reshape(x.shape[0], x.shape[2], -1)
        ),
        "the heads are shuffled into each other number by number, not laid side by side": lambda x: (
            x.permute(0, 2, 3, 1).reshape(x.shape[0], x.shape[2], -1)
        ),
        "the heads are added up: laid side by side, they are H * D numbers": lambda x: x.sum(1),
        "the heads are averaged: laid side by side, they are H * D numbers": lambda x: x.mean(1),
        "the heads stand in their own axis still, (B, T, H, D)": lambda x: x.transpose(1, 2),
        ### END SOLUTION
    },
    signs={
        "character {1} of text {0} is right up to the order of its numbers: which head comes first?": lambda got, want, x: (
            (got != want).any(-1) & (got.sort(-1).values == want.sort(-1).values).all(-1)
        ),
        "character {1} of text {0} has numbers of other characters": lambda got, want, x: (
            ~(got[..., None] == want[..., None, :]).any(-1).all(-1) & (got != 0).any(-1)
        ),
    },
)


### BEGIN SOLUTION
def multi_head_weights_with(q, k, n_head, divisor=None, dim=-1, swap=True):
    B, T, C = q.shape
    shape = (B, T, n_head, C // n_head) if swap else (B, n_head, T, C // n_head)
    q, k = (part.reshape(shape).transpose(1, 2) if swap else part.reshape(shape) for part in (q, k))
    scores = q @ k.transpose(-2, -1) / ((C // n_head) ** 0.5 if divisor is None else divisor)
    return scores.masked_fill(~torch.ones(T, T).tril().bool(), float("-inf")).softmax(dim)


### END SOLUTION


def multi_head_weights_cases(draw):
    some = draw.integer(1, 3), draw.integer(3, 6), draw.integer(2, 3), draw.integer(4, 6)
    for i, (B, T, n_head, size) in enumerate(
        [(1, 4, 2, 5), (2, 3, 4, 3), (1, 5, 1, 3), (2, 1, 3, 2), some]
    ):
        dtype = (torch.float32, torch.float64)[i % 2]
        yield [
            draw.normal(B, T, n_head * size, dtype=dtype),
            draw.normal(B, T, n_head * size, dtype=dtype),
            n_head,
        ]


exercise(
    multi_head_weights,
    stars=1,
    minutes=4,
    cases=lambda draw: list(multi_head_weights_cases(draw)),
    wrong={
        ### BEGIN SOLUTION
        "it still divides by the root of the width C; how many terms has the dot product in one head?": lambda q, k, n_head: (
            multi_head_weights_with(q, k, n_head, q.shape[-1] ** 0.5)
        ),
        "the scores are not scaled at all: large heads become too sure": lambda q, k, n_head: (
            multi_head_weights_with(q, k, n_head, 1)
        ),
        "the scores are divided by the head size, not by its root": lambda q, k, n_head: (
            multi_head_weights_with(q, k, n_head, q.shape[-1] // n_head)
        ),
        "the scores are divided by the root of the number of heads, not of their size": lambda q, k, n_head: (
            multi_head_weights_with(q, k, n_head, n_head**0.5)
        ),
        "the root has to cover C / n_head as a whole: here only C stands under it": lambda q, k, n_head: (
            multi_head_weights_with(q, k, n_head, q.shape[-1] ** 0.5 / n_head)
        ),
        "the root has to cover C / n_head as a whole: here only n_head stands under it": lambda q, k, n_head: (
            multi_head_weights_with(q, k, n_head, q.shape[-1] / n_head**0.5)
        ),
        "the scores are multiplied by the root of the head size": lambda q, k, n_head: (
            multi_head_weights_with(q, k, n_head, (q.shape[-1] // n_head) ** -0.5)
        ),
        "the scores are divided by the root of T: the length of the text has nothing to do with it": lambda q, k, n_head: (
            multi_head_weights_with(q, k, n_head, q.shape[1] ** 0.5)
        ),
        "the softmax runs over the positions that look, not over those that are seen": lambda q, k, n_head: (
            multi_head_weights_with(q, k, n_head, dim=-2)
        ),
        "cut into heads without an exchange of axes: that part was right": lambda q, k, n_head: (
            multi_head_weights_with(q, k, n_head, swap=False)
        ),
        ### END SOLUTION
    },
    signs={
        "head {1}, row {2} gives weight to position {3}: the mask was right, it lets the future in now": lambda got, want, *args: (
            got.triu(1) > 0
        ),
        "head {1}, row {2}: the weights do not sum to 1": lambda got, want, *args: (
            (got.sum(-1) - 1).abs() > 1e-3
        ),
        "the weights are still too flat": lambda got, want, *args: (
            got[:, :, -1].amax(-1).lt(want[:, :, -1].amax(-1)).all()
        ),
    },
)


def longest_text_cases(draw):
    yield [draw.integer(0, 63), 2, 8, 4]
    for T, size in (
        (1, 1),
        (draw.integer(20, 60), 2),
        (draw.integer(4200, 4900), 8),
    ):  # just fits, or not
        sizes = [draw.integer(3, 8), draw.choice([12, 16, 20]), size]
        yield [math.prod(sizes) * T * T, *sizes]
        yield [math.prod(sizes) * T * T + 1, *sizes]
        yield [math.prod(sizes) * (T + 1) ** 2 - 1, *sizes]


exercise(
    longest_text,
    stars=1,
    minutes=4,
    cases=lambda draw: list(longest_text_cases(draw)),
    wrong={
        ### BEGIN SOLUTION
        "the memory grows with T times T, not with T": lambda memory, B, H, size: (
            memory // (B * H * size)
        ),
        "the heads are missing: each has weights of its own": lambda memory, B, H, size: math.isqrt(
            memory // (B * size)
        ),
        "the texts of the batch are missing: each has weights of its own": lambda memory, B, H, size: (
            math.isqrt(memory // (H * size))
        ),
        "it counts numbers, not bytes": lambda memory, B, H, size: math.isqrt(memory // (B * H)),
        "not every number takes 4 bytes: use number_bytes": lambda memory, B, H, size: math.isqrt(
            memory // (B * H * 4)
        ),
        "it counts bits: number_bytes are bytes already": lambda memory, B, H, size: math.isqrt(
            memory // (B * H * size * 8)
        ),
        "it leaves out what the mask makes zero, but those zeros are written, too": lambda memory, B, H, size: (
            (math.isqrt(8 * (memory // (B * H * size)) + 1) - 1) // 2
        ),
        "one too large everywhere: T is the last that fits, not the first that does not": lambda memory, B, H, size: (
            math.isqrt(memory // (B * H * size)) + 1
        ),
        "the root has to cover the whole quotient: divide first, then take the root": lambda memory, B, H, size: (
            int(math.sqrt(memory) / (B * H * size))
        ),
        "it rounds up: that text does not fit any more": lambda memory, B, H, size: math.ceil(
            math.sqrt(memory / (B * H * size))
        ),
        "it rounds to the nearest number: cut off instead, or the text may not fit": lambda memory, B, H, size: (
            round(math.sqrt(memory / (B * H * size)))
        ),
        "at most `memory` bytes: if the weights need just as much, they fit": lambda memory, B, H, size: (
            math.isqrt(max(memory - 1, 0) // (B * H * size))
        ),
        ### END SOLUTION
    },
    signs={
        "T counts characters: a whole number": lambda got, want, *args: got != int(got),
        "0 if not even one character fits": lambda got, want, memory, *args: want == 0 and got == 1,
        "one byte is missing for that T: is the root taken in float32, which rounds? Python's own numbers are finer": lambda got, want, memory, B, H, size: (
            got == want + 1 and got * got * B * H * size == memory + 1
        ),
    },
)


def head_contributions_cases(draw):
    some = draw.integer(1, 3), draw.integer(2, 4), draw.integer(2, 5), 5
    for i, (B, H, T, D) in enumerate(
        [(2, 2, 3, 3), (1, 3, 2, 2), (2, 4, 1, 3), (1, 1, 2, 4), some]
    ):
        dtype = (torch.float32, torch.float64)[i % 2]
        yield [draw.normal(B, H, T, D, dtype=dtype), draw.normal(H * D, H * D, dtype=dtype)]


### BEGIN SOLUTION
def head_contributions_side_by_side(heads):
    return heads.transpose(1, 2).flatten(2)


def head_contributions_by_parts(heads, parts):
    return torch.stack([heads[:, h] @ part for h, part in enumerate(parts)], 1)


def head_contributions_apart(heads):
    return torch.stack(
        [
            F.pad(heads[:, h], (h * heads.shape[3], (heads.shape[1] - 1 - h) * heads.shape[3]))
            for h in range(heads.shape[1])
        ],
        1,
    )  # (B, H, T, C), zero but for each one's own numbers


### END SOLUTION

exercise(
    head_contributions,
    stars=2,
    minutes=10,
    cases=lambda draw: list(head_contributions_cases(draw)),
    atol=2e-5,
    wrong={
        ### BEGIN SOLUTION
        "W_o is cut by rows and then transposed: first transpose, then take the D rows of head h": lambda heads, W_o: (
            head_contributions_by_parts(heads, [part.T for part in W_o.split(heads.shape[3])])
        ),
        "the columns of head h are the right ones, but they are (C, D) still: transpose them, too": lambda heads, W_o: (
            head_contributions_by_parts(heads, W_o.split(heads.shape[3], 1))
        ),
        "W_o is cut by rows: in `concat @ W_o.T` it is the columns of W_o that meet the numbers of a head": lambda heads, W_o: (
            heads @ W_o.view(heads.shape[1], heads.shape[3], -1)
        ),
        "every H-th column of W_o is taken for a head: a head has D columns next to each other": lambda heads, W_o: (
            heads @ W_o.view(len(W_o), heads.shape[3], -1).permute(2, 1, 0)
        ),
        "the terms are added up already: keep the heads apart, (B, H, T, C)": lambda heads, W_o: (
            head_contributions_side_by_side(heads) @ W_o.T
        ),
        "all heads get an equal share of the result: work out what each one adds": lambda heads, W_o: (
            (head_contributions_side_by_side(heads) @ W_o.T / heads.shape[1])[:, None].repeat(
                1, heads.shape[1], 1, 1
            )
        ),
        "the first D columns of W_o are taken for every head": lambda heads, W_o: (
            heads @ W_o[:, : heads.shape[3]].T
        ),
        "these are the numbers of the heads before the projection, with zeros around them": lambda heads, W_o: (
            head_contributions_apart(heads)
        ),
        "this is what the result is without each head, not what the head adds": lambda heads, W_o: (
            (head_contributions_side_by_side(heads)[:, None] - head_contributions_apart(heads))
            @ W_o.T
        ),
        "the axes are (B, T, H, C): heads come before characters": lambda heads, W_o: (
            head_contributions_apart(heads) @ W_o.T
        ).transpose(1, 2),
        ### END SOLUTION
    },
    signs={
        "the heads of text {0}, character {1} do not add up to `concat @ W_o.T`": lambda got, want, *args: (
            (~torch.isclose(got.sum(1), want.sum(1), 1e-3, 1e-4)).any(-1)
        ),
    },
)


### BEGIN SOLUTION
def grouped_query_attention_with(
    x,
    W_q,
    W_k,
    W_v,
    W_o,
    n_head,
    shared=None,
    divisor=None,
    mask=torch.tril,
    dim=-1,
    cut_in=(),
    cut_back=False,
):
    B, T, C = x.shape
    D, G = C // n_head, len(W_k) * n_head // C
    q, k, v = (
        (x @ W.T).reshape(B, -1, T, D)
        if i in cut_in
        else (x @ W.T).view(B, T, -1, D).transpose(1, 2)
        for i, W in enumerate((W_q, W_k, W_v))
    )
    k, v = (
        part[:, shared(n_head, G) if shared else torch.arange(n_head) // (n_head // G)]
        for part in (k, v)
    )
    scores = q @ k.transpose(-2, -1) / (divisor or D**0.5)
    weights = scores.masked_fill(mask(torch.ones(T, T)) == 0, float("-inf")).softmax(dim)
    out = weights @ v
    return (out if cut_back else out.transpose(1, 2)).reshape(B, T, C) @ W_o.T


def grouped_query_attention_sliced(H, G):
    if (H - 1) // G >= G:
        raise RuntimeError("beyond the last row a slice is empty")
    return torch.arange(H) // G


### END SOLUTION


def grouped_query_attention_cases(draw):
    sizes = [(1, 4, 4, 2, 3), (2, 3, 6, 3, 2), (1, 5, 3, 1, 4), (2, 3, 2, 2, 3), (2, 1, 4, 2, 2)]
    sizes += [(draw.integer(1, 2), draw.integer(2, 6), 6, 2, draw.integer(2, 3))]
    for i, (B, T, H, G, D) in enumerate(sizes):
        dtype, C = (torch.float32, torch.float64)[i % 2], H * D
        matrices = [draw.normal(rows, C, dtype=dtype) * C**-0.5 for rows in (C, G * D, G * D, C)]
        yield [2 * draw.normal(B, T, C, dtype=dtype), *matrices, H]


exercise(
    grouped_query_attention,
    stars=3,
    minutes=20,
    cases=lambda draw: list(grouped_query_attention_cases(draw)),
    wrong={
        ### BEGIN SOLUTION
        "head h uses keys and values h % G; neighbours are to share, so that heads 0, 1, ... have the same": lambda *args: (
            grouped_query_attention_with(*args, lambda H, G: torch.arange(H) % G)
        ),
        "head h uses keys and values h // G; it is H / G heads that share one set, not G": lambda *args: (
            grouped_query_attention_with(*args, lambda H, G: torch.arange(H) // G)
        ),
        "head h uses keys and values h // G; it is H / G heads, not G, that share one set": lambda *args: (
            grouped_query_attention_with(*args, grouped_query_attention_sliced)
        ),
        "keys and values are repeated G times; it is H / G heads that share one set": lambda *args: (
            grouped_query_attention_with(*args, lambda H, G: torch.arange(G).repeat_interleave(G))
        ),
        "single rows of W_k and W_v are repeated: the D rows of a head belong together": lambda x, W_q, W_k, W_v, *args: (
            grouped_query_attention_with(
                x, W_q, *(W.repeat_interleave(len(W_q) // len(W), 0) for W in (W_k, W_v)), *args
            )
        ),
        "all heads use keys and values 0": lambda *args: grouped_query_attention_with(
            *args, lambda H, G: torch.zeros(H, dtype=torch.long)
        ),
        "the scores are divided by the root of the width C, not of the head size": lambda x, *args: (
            grouped_query_attention_with(x, *args, divisor=x.shape[-1] ** 0.5)
        ),
        "the scores are not divided by the root of the head size": lambda *args: (
            grouped_query_attention_with(*args, divisor=1)
        ),
        "nothing is masked: each position sees the future": lambda *args: (
            grouped_query_attention_with(*args, mask=torch.ones_like)
        ),
        "the mask is transposed: each position sees itself and the future, and not the past": lambda *args: (
            grouped_query_attention_with(*args, mask=torch.triu)
        ),
        "the softmax runs over the positions that look, not over those that are seen": lambda *args: (
            grouped_query_attention_with(*args, dim=-2)
        ),
        "on the way in, the heads are cut without an exchange of axes": lambda *args: (
            grouped_query_attention_with(*args, cut_in=(0, 1, 2))
        ),
        "keys and values are cut into heads without an exchange of axes": lambda *args: (
            grouped_query_attention_with(*args, cut_in=(1, 2))
        ),
        "on the way back, the heads are put together without an exchange of axes": lambda *args: (
            grouped_query_attention_with(*args, cut_back=True)
        ),
        "the projection is missing": lambda x, W_q, W_k, W_v, W_o, n_head: (
            grouped_query_attention_with(
                x, W_q, W_k, W_v, torch.eye(x.shape[-1], dtype=x.dtype), n_head
            )
        ),
        "W_o is not transposed: nn.Linear computes `x @ W.T`": lambda x, W_q, W_k, W_v, W_o, n_head: (
            grouped_query_attention_with(x, W_q, W_k, W_v, W_o.T, n_head)
        ),
        "W_q is not transposed: nn.Linear computes `x @ W.T`": lambda x, W_q, W_k, W_v, W_o, n_head: (
            grouped_query_attention_with(x, W_q.T, W_k, W_v, W_o, n_head)
        ),
        ### END SOLUTION
    },
    signs={
        "position 0 is wrong, where all see only themselves: are the values, the sharing and the projection right?": lambda got, want, *args: (
            ~torch.isclose(got[:, 0], want[:, 0], 1e-3, 1e-4)
        ),
        "position 0 is right and position {1} is not: are scores, scale and mask right?": lambda got, want, *args: (
            ~torch.isclose(got, want, 1e-3, 1e-4)
        ),
    },
)
