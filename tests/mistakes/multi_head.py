"""Lesson 04."""

import math

import torch
from torch.nn import functional as F

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- merge_heads


@right("merge_heads")
def concatenate_heads(x):
    return torch.cat([x[:, h] for h in range(x.shape[1])], dim=-1)


@right("merge_heads")
def number_by_number(x):
    B, H, T, D = x.shape
    out = x.new_empty(B, T, H * D)
    for h in range(H):
        for d in range(D):
            out[:, :, h * D + d] = x[:, h, :, d]
    return out


@wrong("merge_heads", "a row holds numbers of several characters")
def only_reshape(x):
    B, H, T, D = x.shape
    return x.reshape(B, T, H * D)


@wrong("merge_heads", "axes 0 and 1 are exchanged")
def transpose_as_without_a_batch(x):
    B, H, T, D = x.shape
    return x.transpose(0, 1).reshape(B, T, H * D)


@wrong("merge_heads", "T and D are exchanged")
def transpose_as_for_keys(x):
    B, H, T, D = x.shape
    return x.transpose(-2, -1).reshape(B, T, H * D)


@wrong("merge_heads", "all numbers of head 0 come first, then head 1")
def stack_in_the_last_axis(x):
    return torch.stack([x[:, h] for h in range(x.shape[1])], dim=-1).flatten(2)


@wrong("merge_heads")
def sum_of_heads(x):
    return x.sum(dim=1)


@wrong("merge_heads")
def mean_of_heads(x):
    return x.mean(dim=1)


@wrong("merge_heads")
def forgets_to_flatten(x):
    return x.permute(0, 2, 1, 3)


@wrong("merge_heads", "which head comes first")
def last_head_first(x):
    return torch.cat([x[:, h] for h in reversed(range(x.shape[1]))], dim=-1)


@wrong("merge_heads", "RuntimeError")
def view_after_transpose(x):
    B, H, T, D = x.shape
    return x.transpose(1, 2).view(B, T, H * D)


@wrong("merge_heads", "is there a `return`?")
def forgets_to_return(x):
    B, H, T, D = x.shape
    x.transpose(1, 2).reshape(B, T, H * D)


@wrong("merge_heads", "float32")
def copied_into_zeros_of_another_type(x):
    B, H, T, D = x.shape
    out = torch.zeros(B, T, H * D)
    for h in range(H):
        out[:, :, h * D : (h + 1) * D] = x[:, h]
    return out


@wrong("merge_heads")
def squeezes_a_batch_of_one(x):
    return torch.cat([x[:, h] for h in range(x.shape[1])], dim=-1).squeeze(0)


# ---------------------------------------------------------------- multi_head_weights


@right("multi_head_weights")
def head_after_head(q, k, n_head):
    B, T, C = q.shape
    heads = []
    for q_h, k_h in zip(q.chunk(n_head, -1), k.chunk(n_head, -1)):
        scores = torch.einsum("btd,bsd->bts", q_h, k_h) / math.sqrt(q_h.shape[-1])
        heads.append(
            torch.softmax(scores + torch.full((T, T), -torch.inf, dtype=q.dtype).triu(1), dim=-1)
        )
    return torch.stack(heads, dim=1)


@right("multi_head_weights")
def exponentials_by_hand(q, k, n_head):
    B, T, C = q.shape
    D = C // n_head
    q, k = q.view(B, T, n_head, D) * D**-0.25, k.view(B, T, n_head, D) * D**-0.25
    weights = torch.einsum("bthd,bshd->bhts", q, k).exp().tril()
    return weights / weights.sum(-1, keepdim=True)


@right("multi_head_weights")
def attention_to_unit_vectors(q, k, n_head):
    B, T, C = q.shape
    q, k = (part.view(B, T, n_head, -1).transpose(1, 2) for part in (q, k))
    units = torch.eye(T, dtype=q.dtype).expand(B, n_head, T, T)
    return F.scaled_dot_product_attention(q, k, units, is_causal=True)


def weights(q, k, n_head, divisor, dim=-1):
    B, T, C = q.shape
    q, k = (part.view(B, T, n_head, C // n_head).transpose(1, 2) for part in (q, k))
    scores = q @ k.transpose(-2, -1) / divisor
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    return scores.masked_fill(~seen, float("-inf")).softmax(dim)


@wrong("multi_head_weights", "how many terms has the dot product in one head?")
def as_it_was(q, k, n_head):
    return weights(q, k, n_head, q.shape[-1] ** 0.5)


@wrong("multi_head_weights", "the weights of large heads get too sharp")
def no_scale(q, k, n_head):
    return weights(q, k, n_head, 1)


@wrong("multi_head_weights", "the scores are divided by the head size")
def no_root(q, k, n_head):
    return weights(q, k, n_head, q.shape[-1] // n_head)


@wrong("multi_head_weights")
def root_of_the_number_of_heads(q, k, n_head):
    return weights(q, k, n_head, n_head**0.5)


@wrong("multi_head_weights")
def times_instead_of_divided(q, k, n_head):
    return weights(q, k, n_head, (q.shape[-1] // n_head) ** -0.5)


@wrong("multi_head_weights")
def root_of_the_last_axis_of_the_scores(q, k, n_head):
    return weights(q, k, n_head, q.shape[1] ** 0.5)


@wrong("multi_head_weights", "the weights do not sum to 1")
def softmax_over_queries(q, k, n_head):
    return weights(q, k, n_head, (q.shape[-1] // n_head) ** 0.5, dim=-2)


@wrong("multi_head_weights", "the mask was right before")
def forgets_the_mask(q, k, n_head):
    B, T, C = q.shape
    q, k = (part.view(B, T, n_head, C // n_head).transpose(1, 2) for part in (q, k))
    return (q @ k.transpose(-2, -1) / (C // n_head) ** 0.5).softmax(-1)


@wrong("multi_head_weights", "do not sum to 1")
def masks_after_the_softmax(q, k, n_head):
    B, T, C = q.shape
    q, k = (part.view(B, T, n_head, C // n_head).transpose(1, 2) for part in (q, k))
    return (q @ k.transpose(-2, -1) / (C // n_head) ** 0.5).softmax(-1).tril()


@wrong("multi_head_weights", "without an exchange of axes")
def view_only(q, k, n_head):
    B, T, C = q.shape
    q, k = (part.view(B, n_head, T, C // n_head) for part in (q, k))
    scores = q @ k.transpose(-2, -1) / (C // n_head) ** 0.5
    return scores.masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf")).softmax(-1)


@wrong("multi_head_weights")
def root_of_the_width_divided_by_the_heads(q, k, n_head):
    return weights(q, k, n_head, q.shape[-1] ** 0.5 / n_head)


@wrong("multi_head_weights")
def width_divided_by_the_root_of_the_heads(q, k, n_head):
    return weights(q, k, n_head, q.shape[-1] / n_head**0.5)


# ---------------------------------------------------------------- longest_text


@right("longest_text")
def one_more_while_it_fits(memory, batch_size, n_head, number_bytes):
    T = 0
    while batch_size * n_head * (T + 1) * (T + 1) * number_bytes <= memory:
        T += 1
    return T


@right("longest_text")
def bisection(memory, batch_size, n_head, number_bytes):
    fits, too_long = 0, memory + 1
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (
            (middle, too_long)
            if (number_bytes * batch_size * n_head * middle**2 <= memory)
            else (fits, middle)
        )
    return fits


@right("longest_text")
def root_cut_off(memory, batch_size, n_head, number_bytes):
    return int((memory / number_bytes / batch_size / n_head + 1e-9) ** 0.5)


@wrong("longest_text", "not with T")
def linear(memory, batch_size, n_head, number_bytes):
    return memory // (batch_size * n_head * number_bytes)


@wrong("longest_text", "heads are missing")
def forgets_heads(memory, batch_size, n_head, number_bytes):
    return int(math.sqrt(memory // (batch_size * number_bytes)))


@wrong("longest_text", "each text has its own weights")
def forgets_batch(memory, batch_size, n_head, number_bytes):
    return int(math.sqrt(memory // (n_head * number_bytes)))


@wrong("longest_text", "numbers are counted, not bytes")
def forgets_bytes(memory, batch_size, n_head, number_bytes):
    return int(math.sqrt(memory // (batch_size * n_head)))


@wrong("longest_text")
def always_float32(memory, batch_size, n_head, number_bytes):
    return int(math.sqrt(memory // (4 * batch_size * n_head)))


@wrong("longest_text")
def counts_bits(memory, batch_size, n_head, number_bytes):
    return int(math.sqrt(memory // (8 * number_bytes * batch_size * n_head)))


@wrong("longest_text", "its weights need more than `memory` bytes, so round down")
def only_the_triangle(memory, batch_size, n_head, number_bytes):
    T = 0
    while batch_size * n_head * number_bytes * (T + 1) * (T + 2) // 2 <= memory:
        T += 1
    return T


@wrong("longest_text", "its weights need more than `memory` bytes, so round down")
def first_that_is_too_long(memory, batch_size, n_head, number_bytes):
    T = 0
    while batch_size * n_head * number_bytes * T * T < memory:
        T += 1
    return T


@wrong("longest_text", "its weights need more than `memory` bytes, so round down")
def rounded(memory, batch_size, n_head, number_bytes):
    return round((memory / (batch_size * n_head * number_bytes)) ** 0.5)


@wrong("longest_text", "weights that need exactly `memory` bytes fit too")
def strictly_less(memory, batch_size, n_head, number_bytes):
    T = 0
    while batch_size * n_head * number_bytes * (T + 1) ** 2 < memory:
        T += 1
    return T


@wrong("longest_text")
def not_cut_off(memory, batch_size, n_head, number_bytes):
    return (memory / (batch_size * n_head * number_bytes)) ** 0.5


@wrong("longest_text", "its weights need more than `memory` bytes, so round down")
def at_least_one(memory, batch_size, n_head, number_bytes):
    return max(1, math.isqrt(memory // (batch_size * n_head * number_bytes)))


@wrong("longest_text", "its weights need more than `memory` bytes, so round down")
def first_that_does_not_fit(memory, batch_size, n_head, number_bytes):
    t = 0
    while batch_size * n_head * t**2 * number_bytes <= memory:
        t += 1
    return t


@wrong("longest_text")
def root_of_the_memory_alone(memory, batch_size, n_head, number_bytes):
    return int(math.sqrt(memory) / (batch_size * n_head * number_bytes))


@wrong("longest_text", "its weights need more than `memory` bytes, so round down")
def root_of_a_tensor(memory, batch_size, n_head, number_bytes):
    return int(torch.tensor(memory / (batch_size * n_head * number_bytes)).sqrt())


@wrong("longest_text", "its weights need more than `memory` bytes, so round down")
def root_of_a_tensor_of_the_whole_quotient(memory, batch_size, n_head, number_bytes):
    return int(torch.tensor(memory // (batch_size * n_head * number_bytes)).sqrt().floor().item())


@wrong("longest_text", "its weights need more than `memory` bytes, so round down")
def root_of_a_tensor_of_the_memory(memory, batch_size, n_head, number_bytes):
    return int(torch.sqrt(torch.tensor(float(memory)) / (batch_size * n_head * number_bytes)))


# ---------------------------------------------------------------- head_contributions


@right("head_contributions")
def one_head_at_a_time(heads, W_o):
    D = heads.shape[-1]
    return torch.stack(
        [heads[:, h] @ W_o[:, h * D : (h + 1) * D].T for h in range(heads.shape[1])], dim=1
    )


@right("head_contributions")
def others_silenced(heads, W_o):
    B, H, T, D = heads.shape
    out = []
    for h in range(H):
        alone = torch.zeros_like(heads)
        alone[:, h] = heads[:, h]
        out.append(F.linear(alone.transpose(1, 2).reshape(B, T, H * D), W_o))
    return torch.stack(out, dim=1)


@right("head_contributions")
def einstein(heads, W_o):
    return torch.einsum("bhtd,chd->bhtc", heads, W_o.unflatten(1, heads.shape[1::2]))


@wrong("head_contributions", "cut by rows")
def rows_of_the_weight(heads, W_o):
    D = heads.shape[-1]
    return torch.stack(
        [heads[:, h] @ W_o[h * D : (h + 1) * D] for h in range(heads.shape[1])], dim=1
    )


@wrong("head_contributions", "every H-th column")
def strided_columns(heads, W_o):
    H = heads.shape[1]
    return torch.stack([heads[:, h] @ W_o[:, h::H].T for h in range(H)], dim=1)


@wrong("head_contributions")
def the_result(heads, W_o):
    return heads.transpose(1, 2).flatten(2) @ W_o.T


@wrong("head_contributions", "equal share")
def equal_shares(heads, W_o):
    H = heads.shape[1]
    return torch.stack([heads.transpose(1, 2).flatten(2) @ W_o.T / H] * H, dim=1)


@wrong("head_contributions", "for every head")
def first_columns_for_all(heads, W_o):
    return heads @ W_o[:, : heads.shape[-1]].T


@wrong("head_contributions", "do not add up to `concat @ W_o.T`")
def forgets_the_projection(heads, W_o):
    D = heads.shape[-1]
    out = torch.zeros(*heads.shape[:3], len(W_o), dtype=heads.dtype)
    for h in range(heads.shape[1]):
        out[:, h, :, h * D : (h + 1) * D] = heads[:, h]
    return out


@wrong("head_contributions", "do not add up to `concat @ W_o.T`")
def result_without_the_head(heads, W_o):
    out = []
    for h in range(heads.shape[1]):
        others = heads.clone()
        others[:, h] = 0
        out.append(others.transpose(1, 2).flatten(2) @ W_o.T)
    return torch.stack(out, dim=1)


@wrong("head_contributions")
def heads_in_axis_two(heads, W_o):
    return torch.einsum("bhtd,chd->bthc", heads, W_o.view(len(W_o), heads.shape[1], -1))


@wrong("head_contributions", "in place")
def silences_heads_in_place(heads, W_o):
    out = []
    whole = heads.transpose(1, 2).flatten(2) @ W_o.T
    for h in range(heads.shape[1]):
        heads[:, h] = 0
        rest = heads.transpose(1, 2).flatten(2) @ W_o.T
        out.append(whole - rest)
        whole = rest
    return torch.stack(out, dim=1)


@wrong("head_contributions", "do not add up")
def scaled_by_the_head_size(heads, W_o):
    return one_head_at_a_time(heads, W_o) / heads.shape[-1] ** 0.5


@wrong("head_contributions", "RuntimeError")
def rows_of_the_weight_transposed(heads, W_o):
    D = heads.shape[-1]
    return torch.stack(
        [heads[:, h] @ W_o[h * D : (h + 1) * D].T for h in range(heads.shape[1])], dim=1
    )


@wrong("head_contributions", "RuntimeError")
def columns_of_the_transposed_weight(heads, W_o):
    D = heads.shape[-1]
    return torch.stack(
        [heads[:, h] @ W_o.T[:, h * D : (h + 1) * D] for h in range(heads.shape[1])], dim=1
    )


@wrong("head_contributions", "do not add up to `concat @ W_o.T`")
def columns_not_transposed(heads, W_o):
    D = heads.shape[-1]
    return torch.stack(
        [heads[:, h] @ W_o[:, h * D : (h + 1) * D] for h in range(heads.shape[1])], dim=1
    )


@wrong("head_contributions", "RuntimeError: view size is not compatible")
def view_after_transpose_for_each_head(heads, W_o):
    B, H, T, D = heads.shape
    out = []
    for h in range(H):
        alone = torch.zeros_like(heads)
        alone[:, h] = heads[:, h]
        out.append(alone.transpose(1, 2).view(B, T, H * D) @ W_o.T)
    return torch.stack(out, dim=1)


# ---------------------------------------------------------------- grouped_query_attention


@right("grouped_query_attention")
def loop_over_heads(x, W_q, W_k, W_v, W_o, n_head):
    B, T, C = x.shape
    D = C // n_head
    share = n_head // (len(W_k) // D)
    out = []
    for h in range(n_head):
        g = h // share
        q, k, v = x @ W_q[h * D :][:D].T, x @ W_k[g * D :][:D].T, x @ W_v[g * D :][:D].T
        scores = q @ k.mT / math.sqrt(D) + torch.full((T, T), -torch.inf, dtype=x.dtype).triu(1)
        out.append(scores.softmax(-1) @ v)
    return torch.cat(out, dim=-1) @ W_o.T


@right("grouped_query_attention")
def groups_as_an_axis(x, W_q, W_k, W_v, W_o, n_head):
    B, T, C = x.shape
    D = C // n_head
    G = len(W_k) // D
    q = F.linear(x, W_q).view(B, T, G, n_head // G, D)
    k, v = F.linear(x, W_k).view(B, T, G, D), F.linear(x, W_v).view(B, T, G, D)
    weights = torch.einsum("btgnd,bsgd->bgnts", q, k).mul(D**-0.5).exp().tril()
    weights = weights / weights.sum(-1, keepdim=True)
    return F.linear(torch.einsum("bgnts,bsgd->btgnd", weights, v).flatten(2), W_o)


@right("grouped_query_attention")
def matrices_repeated(x, W_q, W_k, W_v, W_o, n_head):
    B, T, C = x.shape
    D = C // n_head
    W_k, W_v = (
        torch.stack([W.view(-1, D, C)] * (C // len(W)), 1).reshape(C, C) for W in (W_k, W_v)
    )
    q, k, v = (torch.stack((x @ W.T).split(D, -1), 1) for W in (W_q, W_k, W_v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return sum(out[:, h] @ W_o[:, h * D :][:, :D].T for h in range(n_head))


def attention(
    x, W_q, W_k, W_v, W_o, n_head, share=lambda part, n: part.repeat_interleave(n, 1), **how
):
    B, T, C = x.shape
    q, k, v = ((x @ W.T).view(B, T, -1, C // n_head).transpose(1, 2) for W in (W_q, W_k, W_v))
    k, v = (share(part, n_head // part.shape[1]) for part in (k, v))
    out = F.scaled_dot_product_attention(q, k, v, **{"is_causal": True, **how})
    return out.transpose(1, 2).reshape(B, T, C) @ W_o.T


@wrong("grouped_query_attention", "h % G")
def repeat_in_turns(x, W_q, W_k, W_v, W_o, n_head):
    return attention(x, W_q, W_k, W_v, W_o, n_head, share=lambda part, n: part.repeat(1, n, 1, 1))


@wrong("grouped_query_attention", "position 0 is wrong")
def one_for_all(x, W_q, W_k, W_v, W_o, n_head):
    return attention(
        x, W_q, W_k, W_v, W_o, n_head, share=lambda part, n: part[:, :1].expand(-1, n_head, -1, -1)
    )


@wrong("grouped_query_attention", "divide them by the root of the head size")
def scale_of_the_width(x, W_q, W_k, W_v, W_o, n_head):
    return attention(x, W_q, W_k, W_v, W_o, n_head, scale=x.shape[-1] ** -0.5)


@wrong("grouped_query_attention", "are scores, scale and mask right?")
def forgets_the_scale(x, W_q, W_k, W_v, W_o, n_head):
    return attention(x, W_q, W_k, W_v, W_o, n_head, scale=1.0)


@wrong("grouped_query_attention", "each position attends to the future")
def forgets_the_mask_in_groups(x, W_q, W_k, W_v, W_o, n_head):
    return attention(x, W_q, W_k, W_v, W_o, n_head, is_causal=False)


@wrong("grouped_query_attention", "position 0 is wrong")
def hides_the_past(x, W_q, W_k, W_v, W_o, n_head):
    seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu()
    return attention(x, W_q, W_k, W_v, W_o, n_head, is_causal=False, attn_mask=seen)


@wrong("grouped_query_attention", "position 0 is wrong")
def view_only_on_the_way_back(x, W_q, W_k, W_v, W_o, n_head):
    B, T, C = x.shape
    q, k, v = ((x @ W.T).view(B, T, -1, C // n_head).transpose(1, 2) for W in (W_q, W_k, W_v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return out.reshape(B, T, C) @ W_o.T


@wrong("grouped_query_attention", "position 0 is wrong")
def view_only_on_the_way_in(x, W_q, W_k, W_v, W_o, n_head):
    B, T, C = x.shape
    q, k, v = ((x @ W.T).view(B, -1, T, C // n_head) for W in (W_q, W_k, W_v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return out.transpose(1, 2).reshape(B, T, C) @ W_o.T


@wrong("grouped_query_attention", "position 0 is wrong")
def forgets_to_project(x, W_q, W_k, W_v, W_o, n_head):
    return attention(x, W_q, W_k, W_v, torch.eye(x.shape[-1], dtype=x.dtype), n_head)


@wrong("grouped_query_attention", "position 0 is wrong")
def output_matrix_from_the_wrong_side(x, W_q, W_k, W_v, W_o, n_head):
    return attention(x, W_q, W_k, W_v, W_o.T, n_head)


@wrong("grouped_query_attention", "are scores, scale and mask right?")
def query_matrix_from_the_wrong_side(x, W_q, W_k, W_v, W_o, n_head):
    return attention(x, W_q.T, W_k, W_v, W_o, n_head)


@wrong("grouped_query_attention", "RuntimeError")
def keys_not_shared(x, W_q, W_k, W_v, W_o, n_head):
    return attention(x, W_q, W_k, W_v, W_o, n_head, share=lambda part, n: part)


@wrong("grouped_query_attention", "position 0 is wrong")
def residual_added(x, W_q, W_k, W_v, W_o, n_head):
    return x + attention(x, W_q, W_k, W_v, W_o, n_head)


def each_head_with_its_own(x, W_q, W_k, W_v, W_o, n_head, group):
    D, out = x.shape[-1] // n_head, []
    for h in range(n_head):
        g = group(h)
        q, k, v = (
            x @ W_q[h * D : (h + 1) * D].T,
            x @ W_k[g * D : (g + 1) * D].T,
            x @ W_v[g * D : (g + 1) * D].T,
        )
        out.append(F.scaled_dot_product_attention(q, k, v, is_causal=True))
    return torch.cat(out, dim=-1) @ W_o.T


@right("grouped_query_attention")
def each_head_with_that_of_its_group(x, W_q, W_k, W_v, W_o, n_head):
    return each_head_with_its_own(x, W_q, W_k, W_v, W_o, n_head, lambda h: h * len(W_k) // len(W_q))


@wrong("grouped_query_attention", "not G")
def h_divided_by_the_groups(x, W_q, W_k, W_v, W_o, n_head):
    B, T, C = x.shape
    D = C // n_head
    q, k, v = ((x @ W.T).view(B, T, -1, D).transpose(1, 2) for W in (W_q, W_k, W_v))
    G, out = k.shape[1], []
    for h in range(n_head):
        out.append(
            F.scaled_dot_product_attention(q[:, h], k[:, h // G], v[:, h // G], is_causal=True)
        )
    return torch.cat(out, dim=-1) @ W_o.T


@wrong("grouped_query_attention", "position 0 is wrong")
def h_divided_by_the_groups_in_slices(x, W_q, W_k, W_v, W_o, n_head):
    B, T, C = x.shape
    D = C // n_head
    G, out = len(W_k) // D, []
    for h in range(n_head):
        rows = slice(h // G * D, (h // G + 1) * D)
        q, k, v = x @ W_q[h * D : (h + 1) * D].T, x @ W_k[rows].T, x @ W_v[rows].T
        scores = (q @ k.mT / D**0.5).masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
        out.append(scores.softmax(-1) @ v)
    return torch.cat(out, dim=-1) @ W_o.T


@wrong("grouped_query_attention", "RuntimeError")
def repeated_g_times(x, W_q, W_k, W_v, W_o, n_head):
    B, T, C = x.shape
    q, k, v = ((x @ W.T).view(B, T, -1, C // n_head).transpose(1, 2) for W in (W_q, W_k, W_v))
    k, v = (part.repeat_interleave(part.shape[1], dim=1) for part in (k, v))
    scores = (q @ k.mT / (C // n_head) ** 0.5).masked_fill(
        torch.ones(T, T).triu(1).bool(), float("-inf")
    )
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C) @ W_o.T


@wrong("grouped_query_attention", "position 0 is wrong")
def matrices_repeated_row_by_row(x, W_q, W_k, W_v, W_o, n_head):
    W_k, W_v = (W.repeat_interleave(len(W_q) // len(W), dim=0) for W in (W_k, W_v))
    return attention(x, W_q, W_k, W_v, W_o, n_head)


@wrong("grouped_query_attention", "position 0 is wrong")
def view_only_of_keys_and_values(x, W_q, W_k, W_v, W_o, n_head):
    B, T, C = x.shape
    q = (x @ W_q.T).view(B, T, n_head, C // n_head).transpose(1, 2)
    k, v = ((x @ W.T).view(B, -1, T, C // n_head) for W in (W_k, W_v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return out.transpose(1, 2).reshape(B, T, C) @ W_o.T
