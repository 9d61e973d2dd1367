"""How the exercises of lesson 04 are judged: cases, symptoms, mistakes."""

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

# ---------------------------------------------------------------- merge_heads


def merge_heads_cases(draw):
    B = draw.integer(2, 4)
    H = draw.integer(2, 4)
    T = draw.integer(2, 6)
    D = draw.integer(2, 4)
    return [
        [draw.normal(2, 3, 4, 5)],
        [draw.normal(1, 2, 3, 2, dtype=torch.float64)],
        [draw.normal(2, 1, 3, 2)],
        [draw.normal(1, 2, 1, 3)],
        [draw.normal(B, H, T, D, dtype=torch.float64)],
    ]


MERGE_HEADS = exercise(merge_heads, stars=1, minutes=5, cases=merge_heads_cases)


@MERGE_HEADS.symptom(
    "character {1} of text {0} has the right numbers in another order: which head comes first?"
)
def merge_heads_other_order(got, want, x):
    wrong = (got != want).any(-1)
    same_numbers = (got.sort(-1).values == want.sort(-1).values).all(-1)
    return wrong & same_numbers


### BEGIN SOLUTION
@MERGE_HEADS.mistake("no axes are exchanged: a row holds numbers of several characters")
def merge_heads_only_reshaped(x):
    B, H, T, D = x.shape
    return x.reshape(B, T, H * D)


@MERGE_HEADS.mistake("axes 0 and 1 are exchanged, as without a batch: here axis 0 is the text")
def merge_heads_batch_exchanged(x):
    B, H, T, D = x.shape
    return x.transpose(0, 1).reshape(B, T, H * D)


@MERGE_HEADS.mistake("T and D are exchanged, as for keys: exchange H and T")
def merge_heads_as_for_keys(x):
    B, H, T, D = x.shape
    return x.transpose(2, 3).reshape(B, T, H * D)


@MERGE_HEADS.mistake(
    "the heads are interleaved number by number: all numbers of head 0 come first, then head 1"
)
def merge_heads_interleaved(x):
    B, H, T, D = x.shape
    return x.permute(0, 2, 3, 1).reshape(B, T, H * D)


### END SOLUTION


# ---------------------------------------------------------------- multi_head_weights


def multi_head_weights_case(draw, B, T, n_head, size, dtype=torch.float32):
    q = draw.normal(B, T, n_head * size, dtype=dtype)
    k = draw.normal(B, T, n_head * size, dtype=dtype)
    return [q, k, n_head]


def multi_head_weights_cases(draw):
    B = draw.integer(1, 3)
    T = draw.integer(3, 6)
    n_head = draw.integer(2, 3)
    size = draw.integer(4, 6)
    return [
        multi_head_weights_case(draw, 1, 4, 2, 5),
        multi_head_weights_case(draw, 2, 3, 4, 3, torch.float64),
        multi_head_weights_case(draw, 1, 5, 1, 3),
        multi_head_weights_case(draw, 2, 1, 3, 2, torch.float64),
        multi_head_weights_case(draw, B, T, n_head, size),
    ]


MULTI_HEAD_WEIGHTS = exercise(
    multi_head_weights, stars=1, minutes=4, cases=multi_head_weights_cases
)


@MULTI_HEAD_WEIGHTS.symptom(
    "head {1}, row {2} gives weight to position {3}, in the future: the mask was right before"
)
def multi_head_weights_future(got, want, q, k, n_head):
    return got.triu(1) > 0


@MULTI_HEAD_WEIGHTS.symptom("head {1}, row {2}: the weights do not sum to 1")
def multi_head_weights_sum(got, want, q, k, n_head):
    return (got.sum(-1) - 1).abs() > 1e-3


### BEGIN SOLUTION
def multi_head_weights_from(q, k, divisor):
    """q, k (B, H, T, D) -> (B, H, T, T): the causal weights of their scores, divided by divisor."""
    T = q.shape[2]
    future = torch.ones(T, T).triu(1).bool()
    scores = q @ k.transpose(-2, -1) / divisor
    return scores.masked_fill(future, -math.inf).softmax(-1)


def multi_head_weights_cut(x, n_head):
    """(B, T, C) -> (B, H, T, D)"""
    return x.unflatten(2, (n_head, -1)).transpose(1, 2)


@MULTI_HEAD_WEIGHTS.mistake(
    "the scores are still divided by √C: how many terms has the dot product in one head?"
)
def multi_head_weights_root_of_the_width(q, k, n_head):
    C = q.shape[-1]
    q = multi_head_weights_cut(q, n_head)
    k = multi_head_weights_cut(k, n_head)
    return multi_head_weights_from(q, k, C**0.5)


@MULTI_HEAD_WEIGHTS.mistake("the scores are not scaled: the weights of large heads get too sharp")
def multi_head_weights_not_scaled(q, k, n_head):
    q = multi_head_weights_cut(q, n_head)
    k = multi_head_weights_cut(k, n_head)
    return multi_head_weights_from(q, k, 1.0)


@MULTI_HEAD_WEIGHTS.mistake("the scores are divided by the head size: divide them by its root")
def multi_head_weights_without_root(q, k, n_head):
    q = multi_head_weights_cut(q, n_head)
    k = multi_head_weights_cut(k, n_head)
    return multi_head_weights_from(q, k, q.shape[-1])


@MULTI_HEAD_WEIGHTS.mistake(
    "q and k are cut into heads without an exchange of axes: that part was right before"
)
def multi_head_weights_only_reshaped(q, k, n_head):
    B, T, C = q.shape
    q = q.reshape(B, n_head, T, C // n_head)
    k = k.reshape(B, n_head, T, C // n_head)
    return multi_head_weights_from(q, k, (C // n_head) ** 0.5)


### END SOLUTION


# ---------------------------------------------------------------- longest_text


def longest_text_cases(draw):
    cases = [[draw.integer(0, 63), 2, 8, 4]]  # not even T = 1 fits
    for T, number_bytes in (
        (1, 1),
        (draw.integer(20, 60), 2),
        (draw.integer(4200, 4900), 8),
    ):
        sizes = [draw.integer(3, 8), draw.choice([12, 16, 20]), number_bytes]
        cases.append([math.prod(sizes) * T**2, *sizes])  # just fits
        cases.append([math.prod(sizes) * T**2 + 1, *sizes])
        cases.append([math.prod(sizes) * (T + 1) ** 2 - 1, *sizes])  # T + 1 just does not fit
    return cases


LONGEST_TEXT = exercise(longest_text, stars=1, minutes=4, cases=longest_text_cases)


@LONGEST_TEXT.symptom(
    "T is one too large: its weights need more than `memory` bytes, so round down"
)
def longest_text_one_too_large(got, want, memory, batch_size, n_head, number_bytes):
    return got == want + 1


### BEGIN SOLUTION
@LONGEST_TEXT.mistake("the memory grows with T², not with T")
def longest_text_linear(memory, batch_size, n_head, number_bytes):
    return memory // (batch_size * n_head * number_bytes)


@LONGEST_TEXT.mistake("the heads are missing: each has its own weights")
def longest_text_without_heads(memory, batch_size, n_head, number_bytes):
    return math.isqrt(memory // (batch_size * number_bytes))


@LONGEST_TEXT.mistake("the batch is missing: each text has its own weights")
def longest_text_without_batch(memory, batch_size, n_head, number_bytes):
    return math.isqrt(memory // (n_head * number_bytes))


@LONGEST_TEXT.mistake("numbers are counted, not bytes: a number has `number_bytes`")
def longest_text_without_bytes(memory, batch_size, n_head, number_bytes):
    return math.isqrt(memory // (batch_size * n_head))


@LONGEST_TEXT.mistake("weights that need exactly `memory` bytes fit too")
def longest_text_strictly_less(memory, batch_size, n_head, number_bytes):
    less = max(memory - 1, 0)
    return math.isqrt(less // (batch_size * n_head * number_bytes))


### END SOLUTION


# ---------------------------------------------------------------- head_contributions


def head_contributions_case(draw, B, H, T, D, dtype=torch.float32):
    heads = draw.normal(B, H, T, D, dtype=dtype)
    return [heads, draw.normal(H * D, H * D, dtype=dtype)]


def head_contributions_cases(draw):
    B = draw.integer(1, 3)
    H = draw.integer(2, 4)
    T = draw.integer(2, 5)
    return [
        head_contributions_case(draw, 2, 2, 3, 3),
        head_contributions_case(draw, 1, 3, 2, 2, torch.float64),
        head_contributions_case(draw, 2, 4, 1, 3),
        head_contributions_case(draw, 1, 1, 2, 4, torch.float64),
        head_contributions_case(draw, B, H, T, 5),
    ]


HEAD_CONTRIBUTIONS = exercise(
    head_contributions, stars=2, minutes=10, atol=2e-5, cases=head_contributions_cases
)


@HEAD_CONTRIBUTIONS.symptom(
    "the heads of text {0}, character {1} do not add up to `concat @ W_o.T`"
)
def head_contributions_sum(got, want, heads, W_o):
    same = torch.isclose(got.sum(1), want.sum(1), 1e-3, 1e-4)
    return ~same.all(-1)


### BEGIN SOLUTION
@HEAD_CONTRIBUTIONS.mistake(
    "W_o is cut by rows: in `concat @ W_o.T` the numbers of a head meet columns of W_o"
)
def head_contributions_rows(heads, W_o):
    B, H, T, D = heads.shape
    return heads @ W_o.view(H, D, H * D)


@HEAD_CONTRIBUTIONS.mistake(
    "every H-th column of W_o is taken for a head: a head has D columns next to each other"
)
def head_contributions_strided(heads, W_o):
    H = heads.shape[1]
    parts = [heads[:, h] @ W_o[:, h::H].T for h in range(H)]
    return torch.stack(parts, dim=1)


@HEAD_CONTRIBUTIONS.mistake("the first D columns of W_o are taken for every head")
def head_contributions_first_columns(heads, W_o):
    D = heads.shape[3]
    return heads @ W_o[:, :D].T


@HEAD_CONTRIBUTIONS.mistake(
    "all heads get an equal share of the result: work out what each of them adds"
)
def head_contributions_equal_shares(heads, W_o):
    H = heads.shape[1]
    concat = heads.transpose(1, 2).flatten(2)
    share = concat @ W_o.T / H
    return torch.stack([share] * H, dim=1)


### END SOLUTION


# ---------------------------------------------------------------- grouped_query_attention


def grouped_query_attention_case(draw, B, T, H, G, D, dtype=torch.float32):
    C = H * D
    W_q, W_k, W_v, W_o = (
        draw.normal(rows, C, dtype=dtype) * C**-0.5 for rows in (C, G * D, G * D, C)
    )
    return [2 * draw.normal(B, T, C, dtype=dtype), W_q, W_k, W_v, W_o, H]


def grouped_query_attention_cases(draw):
    B = draw.integer(1, 2)
    T = draw.integer(2, 6)
    D = draw.integer(2, 3)
    return [
        grouped_query_attention_case(draw, 1, 4, 4, 2, 3),
        grouped_query_attention_case(draw, 2, 3, 6, 3, 2, torch.float64),
        grouped_query_attention_case(draw, 1, 5, 3, 1, 4),
        grouped_query_attention_case(draw, 2, 3, 2, 2, 3, torch.float64),
        grouped_query_attention_case(draw, 2, 1, 4, 2, 2),
        grouped_query_attention_case(draw, B, T, 6, 2, D, torch.float64),
    ]


GROUPED_QUERY_ATTENTION = exercise(
    grouped_query_attention, stars=3, minutes=20, cases=grouped_query_attention_cases
)


@GROUPED_QUERY_ATTENTION.symptom(
    "position 0 is wrong, and it attends only to itself: "
    "are values, groups, axes, projection and mask right?"
)
def grouped_query_attention_first_position(got, want, x, W_q, W_k, W_v, W_o, n_head):
    return ~torch.isclose(got[:, 0], want[:, 0], 1e-3, 1e-4)


@GROUPED_QUERY_ATTENTION.symptom(
    "position 0 is right and position {1} is not: are scores, scale and mask right?"
)
def grouped_query_attention_later_position(got, want, x, W_q, W_k, W_v, W_o, n_head):
    return ~torch.isclose(got, want, 1e-3, 1e-4)


### BEGIN SOLUTION
def grouped_query_attention_heads(x, W, D):
    """x (B, T, C), W (heads * D, C) -> (B, heads, T, D)"""
    return (x @ W.T).unflatten(2, (-1, D)).transpose(1, 2)


@GROUPED_QUERY_ATTENTION.mistake(
    "head h uses keys and values h % G: neighbouring heads should share them, 0 with 1"
)
def grouped_query_attention_in_turns(x, W_q, W_k, W_v, W_o, n_head):
    D = x.shape[2] // n_head
    q = grouped_query_attention_heads(x, W_q, D)
    k = grouped_query_attention_heads(x, W_k, D)
    v = grouped_query_attention_heads(x, W_v, D)
    times = n_head // k.shape[1]
    k = k.repeat(1, times, 1, 1)
    v = v.repeat(1, times, 1, 1)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.transpose(1, 2).flatten(2) @ W_o.T


@GROUPED_QUERY_ATTENTION.mistake(
    "head h uses keys and values h // G: H / G heads share one set, not G heads"
)
def grouped_query_attention_divided_by_groups(x, W_q, W_k, W_v, W_o, n_head):
    D = x.shape[2] // n_head
    q = grouped_query_attention_heads(x, W_q, D)
    k = grouped_query_attention_heads(x, W_k, D)
    v = grouped_query_attention_heads(x, W_v, D)
    group = torch.arange(n_head) // k.shape[1]
    out = F.scaled_dot_product_attention(q, k[:, group], v[:, group], is_causal=True)
    return out.transpose(1, 2).flatten(2) @ W_o.T


@GROUPED_QUERY_ATTENTION.mistake(
    "the scores are divided by √C: divide them by the root of the head size"
)
def grouped_query_attention_root_of_the_width(x, W_q, W_k, W_v, W_o, n_head):
    C = x.shape[2]
    q = grouped_query_attention_heads(x, W_q, C // n_head)
    k = grouped_query_attention_heads(x, W_k, C // n_head)
    v = grouped_query_attention_heads(x, W_v, C // n_head)
    times = n_head // k.shape[1]
    k = k.repeat_interleave(times, 1)
    v = v.repeat_interleave(times, 1)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=C**-0.5)
    return out.transpose(1, 2).flatten(2) @ W_o.T


@GROUPED_QUERY_ATTENTION.mistake("nothing is masked: each position attends to the future")
def grouped_query_attention_not_masked(x, W_q, W_k, W_v, W_o, n_head):
    D = x.shape[2] // n_head
    q = grouped_query_attention_heads(x, W_q, D)
    k = grouped_query_attention_heads(x, W_k, D)
    v = grouped_query_attention_heads(x, W_v, D)
    times = n_head // k.shape[1]
    k = k.repeat_interleave(times, 1)
    v = v.repeat_interleave(times, 1)
    out = F.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).flatten(2) @ W_o.T


### END SOLUTION
