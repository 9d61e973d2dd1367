"""Lesson 03."""

import math

import torch
from torch.nn import functional as F

from tests.mistakes import right, wrong


@right("window_mask")
def loops(T, w):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for t in range(T):
        for s in range(max(0, t - w + 1), t + 1):
            mask[t, s] = True
    return mask


@right("window_mask")
def difference_of_triangles(T, w):
    ones = torch.ones(T, T, dtype=torch.bool)
    return ones.tril() & ~ones.tril(-w)


@wrong("window_mask", "one position too wide")
def off_by_one(T, w):
    t, s = torch.arange(T)[:, None], torch.arange(T)
    return (s <= t) & (s >= t - w)


@wrong("window_mask", "whole past")
def plain_causal(T, w):
    return torch.ones(T, T, dtype=torch.bool).tril()


@wrong("window_mask", "lets the future in")
def window_on_both_sides(T, w):
    t, s = torch.arange(T)[:, None], torch.arange(T)
    return (t - s).abs() < w


@wrong("window_mask", "does not look at itself")
def strictly_before(T, w):
    t, s = torch.arange(T)[:, None], torch.arange(T)
    return (s < t) & (s >= t - w)


@wrong("window_mask", "float32")
def floats(T, w):
    return torch.ones(T, T).tril().triu(1 - w)


@wrong("window_mask", "rows and columns")
def transposed(T, w):
    t, s = torch.arange(T)[:, None], torch.arange(T)
    return ((s <= t) & (s > t - w)).T


@wrong("window_mask", "is there a `return`?")
def forgets_to_return(T, w):
    torch.ones(T, T).tril().triu(1 - w).bool()


@wrong("window_mask", "too narrow")
def one_too_narrow(T, w):
    return torch.ones(T, T, dtype=torch.bool).tril().triu(2 - w)


@wrong("window_mask", "does not look at itself")
def triu_the_wrong_way(T, w):
    return torch.ones(T, T, dtype=torch.bool).tril().triu(w)


@wrong("window_mask", "does not look at itself")
def last_columns_of_the_past(T, w):
    mask = torch.ones(T, T, dtype=torch.bool).tril()
    mask[:, : T - w] = False
    return mask


@wrong("window_mask", "lets the future in")
def last_columns(T, w):
    mask = torch.zeros(T, T, dtype=torch.bool)
    mask[:, -w:] = True
    return mask


@wrong("window_mask")
def negative_start(T, w):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for i in range(T):
        mask[i, i - w + 1 : i + 1] = True
    return mask


@wrong("window_mask", "True stands where one may not look")
def forbidden_positions(T, w):
    t = torch.arange(T)[:, None]
    s = torch.arange(T)
    return (s > t) | (s <= t - w)


@right("score_gradient")
def by_autograd(s, g, d):
    s = s.clone().requires_grad_()
    (g * F.softmax(s / math.sqrt(d), dim=-1)).sum().backward()
    return s.grad


@right("score_gradient")
def with_the_whole_jacobian(s, g, d):
    p = F.softmax(s / d**0.5, dim=-1)
    jacobian = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)  # (..., i, j)
    return torch.einsum("...i,...ij->...j", g, jacobian) / d**0.5


@right("score_gradient")
def sum_over_pairs(s, g, d):
    p = (s / d**0.5).softmax(-1)
    result = torch.zeros_like(s)
    for i in range(s.shape[-1]):
        for j in range(s.shape[-1]):
            result[..., j] += g[..., i] * p[..., i] * (float(i == j) - p[..., j]) / d**0.5
    return result


@wrong("score_gradient", "one more factor leads to r")
def forgets_the_inner_root(s, g, d):
    p = (s / d**0.5).softmax(-1)
    return p * (g - (p * g).sum(-1, keepdim=True))


@wrong("score_gradient", "√d is missing, inside and outside")
def no_root_at_all(s, g, d):
    p = s.softmax(-1)
    return p * (g - (p * g).sum(-1, keepdim=True))


@wrong("score_gradient")
def multiplies_by_the_root(s, g, d):
    p = (s / d**0.5).softmax(-1)
    return p * (g - (p * g).sum(-1, keepdim=True)) * d**0.5


@wrong("score_gradient", "only the effect on its own weight is there, p (1 - p)")
def diagonal_only(s, g, d):
    p = (s / d**0.5).softmax(-1)
    return g * p * (1 - p) / d**0.5


@wrong("score_gradient", "the sum over all weights is missing")
def weights_times_gradients(s, g, d):
    return (s / d**0.5).softmax(-1) * g / d**0.5


@wrong("score_gradient")
def subtracts_the_mean(s, g, d):
    p = (s / d**0.5).softmax(-1)
    return p * (g - g.mean(-1, keepdim=True)) / d**0.5


@wrong("score_gradient")
def subtracts_the_sum(s, g, d):
    p = (s / d**0.5).softmax(-1)
    return p * (g - g.sum(-1, keepdim=True)) / d**0.5


@wrong("score_gradient")
def one_sum_for_all(s, g, d):
    p = (s / d**0.5).softmax(-1)
    return p * (g - torch.sum(p * g)) / d**0.5


@wrong("score_gradient", "rule for cross-entropy")
def like_cross_entropy(s, g, d):
    return ((s / d**0.5).softmax(-1) - g) / d**0.5


@wrong("score_gradient", "sign is reversed")
def reversed_sign(s, g, d):
    p = (s / d**0.5).softmax(-1)
    return p * ((p * g).sum(-1, keepdim=True) - g) / d**0.5


@wrong("score_gradient", "RuntimeError")
def forgets_keepdim(s, g, d):
    p = (s / d**0.5).softmax(-1)
    return p * (g - (p * g).sum(-1)) / d**0.5


@wrong("score_gradient")
def root_outside_only(s, g, d):
    p = s.softmax(-1)
    return p * (g - (p * g).sum(-1, keepdim=True)) / d**0.5


@wrong("score_gradient")
def its_own_weight_in_the_sum(s, g, d):
    p = (s / d**0.5).softmax(-1)
    return p * (g - p * g.sum(-1, keepdim=True)) / d**0.5


@wrong("score_gradient")
def others_only(s, g, d):
    p = (s / d**0.5).softmax(-1)
    jacobian = p.unsqueeze(-1) * p.unsqueeze(-2) * (1 - torch.eye(s.shape[-1], dtype=s.dtype))
    return -(g.unsqueeze(-1) * jacobian).sum(-2) / d**0.5


@wrong("score_gradient")
def delta_or_product(s, g, d):
    p = (s / d**0.5).softmax(-1)
    jacobian = torch.where(
        torch.eye(s.shape[-1]).bool(), p.unsqueeze(-1), -p.unsqueeze(-1) * p.unsqueeze(-2)
    )
    return (g.unsqueeze(-1) * jacobian).sum(-2) / d**0.5


@wrong("score_gradient")
def believed_minus_given(s, g, d):
    return (s / d**0.5).softmax(-1) - g


@wrong("score_gradient", "TypeError")
def root_of_a_number(s, g, d):
    p = (s / torch.sqrt(d)).softmax(-1)
    return p * (g - (p * g).sum(-1, keepdim=True)) / torch.sqrt(d)


@right("left_padded_weights")
def query_by_query(scores, starts):
    weights = torch.zeros_like(scores)
    for b, start in enumerate(starts.tolist()):
        for t in range(start, scores.shape[1]):
            weights[b, t, start : t + 1] = scores[b, t, start : t + 1].softmax(0)
    return weights


@right("left_padded_weights")
def exponentials_and_a_safe_division(scores, starts):
    places = torch.arange(scores.shape[-1])
    after_start = places >= starts[:, None]  # (B, T)
    seen = torch.ones_like(scores).tril() * after_start[:, None, :]
    e = (scores - scores.amax(-1, keepdim=True)).exp() * seen
    return e / e.sum(-1, keepdim=True).clamp_min(1e-30)


@right("left_padded_weights")
def finite_number_and_zeroed_rows(scores, starts):
    T = scores.shape[-1]
    hidden = torch.triu(torch.ones(T, T), 1).bool() | (
        torch.arange(T)[None, None] < starts.view(-1, 1, 1)
    )
    weights = F.softmax(torch.where(hidden, torch.full_like(scores, -1e30), scores), dim=-1)
    return weights * (torch.arange(T)[None] >= starts[:, None]).unsqueeze(-1)


@wrong("left_padded_weights", "is nan")
def as_it_was(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    return scores.masked_fill(~may_look, float("-inf")).softmax(-1)


@wrong("left_padded_weights", "is the query of a filler")
def large_negative_number(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    return scores.masked_fill(~may_look, -1e9).softmax(-1)


@wrong("left_padded_weights", "hide scores with -∞, then softmax over the last axis")
def hides_the_weights(scores, starts):
    t = torch.arange(scores.shape[-1])
    return scores.softmax(-1) * ((t <= t[:, None]) & (t >= starts[:, None, None]))


@wrong("left_padded_weights", "is the query of a filler")
def fillers_see_themselves(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None]) | torch.eye(len(t)).bool()
    return scores.masked_fill(~may_look, float("-inf")).softmax(-1)


@wrong("left_padded_weights", "is the query of a filler")
def fillers_see_fillers(scores, starts):
    t = torch.arange(scores.shape[-1])
    filler = t < starts[:, None]
    may_look = (t <= t[:, None]) & (filler[:, :, None] == filler[:, None])
    return scores.masked_fill(~may_look, float("-inf")).softmax(-1)


@wrong("left_padded_weights", "hide scores with -∞, then softmax over the last axis")
def first_character_hidden(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t > starts[:, None, None])
    return scores.masked_fill(~may_look, float("-inf")).softmax(-1).nan_to_num(0.0)


@wrong("left_padded_weights", ", a filler")
def zeroes_the_filler_rows_only(scores, starts):
    t = torch.arange(scores.shape[-1])
    weights = scores.masked_fill(t > t[:, None], float("-inf")).softmax(-1)
    return weights * (t >= starts[:, None])[..., None]


@wrong("left_padded_weights", ", in the future")
def no_causal_mask(scores, starts):
    t = torch.arange(scores.shape[-1])
    weights = scores.masked_fill(t < starts[:, None, None], float("-inf")).softmax(-1)
    return weights * (t >= starts[:, None])[..., None]


@wrong("left_padded_weights", "hide scores with -∞, then softmax over the last axis")
def other_axis(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    return scores.masked_fill(~may_look, float("-inf")).softmax(1).nan_to_num(0.0)


@wrong("left_padded_weights", "in place")
def fills_in_place(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    return scores.masked_fill_(~may_look, float("-inf")).softmax(-1).nan_to_num(0.0)


@wrong("left_padded_weights", "is there a `return`?")
def no_return(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    scores.masked_fill(~may_look, float("-inf")).softmax(-1).nan_to_num(0.0)


@right("left_padded_weights")
def adds_minus_infinity(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    hidden = torch.zeros_like(scores).masked_fill(~may_look, float("-inf"))
    return (scores + hidden).softmax(-1).nan_to_num(0.0)  # right, though its gradient is nan


@wrong("left_padded_weights", "softmax subtracts the row's maximum first")
def exponentials_as_they_are(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    e = scores.exp() * may_look
    return e / (e.sum(-1, keepdim=True) + 1e-9)


@wrong("left_padded_weights", "hide scores with -∞, then softmax over the last axis")
def one_largest_for_both_texts(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    e = (scores - scores.max()).exp() * may_look
    return e / (e.sum(-1, keepdim=True) + 1e-9)


@wrong("left_padded_weights", "hide scores with -∞, then softmax over the last axis")
def one_largest_and_nan_to_num(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    e = (scores - scores.max()).exp() * may_look
    return (e / e.sum(-1, keepdim=True)).nan_to_num(0.0)


@wrong("left_padded_weights", "hide scores with -∞, then softmax over the last axis")
def minus_twenty(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    return scores.masked_fill(~may_look, -20.0).softmax(-1) * may_look


@wrong("left_padded_weights", "hide scores with -∞, then softmax over the last axis")
def minus_a_hundred(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    return scores.masked_fill(~may_look, -100.0).softmax(-1) * may_look


@wrong("left_padded_weights", "is the query of a filler")
def nan_becomes_an_equal_share(scores, starts):
    t = torch.arange(scores.shape[-1])
    may_look = (t <= t[:, None]) & (t >= starts[:, None, None])
    return scores.masked_fill(~may_look, float("-inf")).softmax(-1).nan_to_num(1 / len(t))


@right("characters_looked_at")
def powers(weights):
    return (1 / weights**weights).prod(-1)  # 0 to the power of 0 is 1


@right("characters_looked_at")
def logarithm_of_something_positive(weights):
    return torch.exp(-(weights * weights.clamp_min(1e-30).log()).sum(dim=-1))


@right("characters_looked_at")
def row_by_row(weights):
    rows = weights.reshape(-1, weights.shape[-1])
    entropies = [-sum(p * math.log(p) for p in row if p > 0) for row in rows.tolist()]
    return torch.tensor(entropies, dtype=weights.dtype).exp().view(weights.shape[:-1])


@wrong("characters_looked_at", "0 · ln 0")
def logarithm_of_zero(weights):
    return (-(weights * weights.log()).sum(-1)).exp()


@wrong("characters_looked_at", "entropy, in nats")
def stops_at_the_entropy(weights):
    return -(weights * weights.clamp_min(1e-9).log()).sum(-1)


@wrong("characters_looked_at", "minus of the entropy")
def forgets_the_minus(weights):
    return (weights * weights.clamp_min(1e-9).log()).sum(-1).exp()


@wrong("characters_looked_at", "columns")
def down_the_columns(weights):
    return (-(weights * weights.clamp_min(1e-9).log()).sum(-2)).exp()


@wrong("characters_looked_at", "a weight of 0.01 counts for much less than one")
def counts_what_is_seen(weights):
    return (weights > 0).to(weights.dtype).sum(-1)


@wrong("characters_looked_at")
def counts_in_whole_numbers(weights):
    return (weights > 0).sum(-1)


@wrong("characters_looked_at")
def inverse_of_the_squares(weights):
    return 1 / (weights**2).sum(-1)


@wrong("characters_looked_at", "base 2")
def two_bases(weights):
    return (-(weights * weights.clamp_min(1e-30).log2()).sum(-1)).exp()


@wrong("characters_looked_at")
def mean_of_all_rows(weights):
    return torch.special.entr(weights).sum(-1).exp().mean()


@wrong("characters_looked_at")
def mean_of_the_terms(weights):
    return torch.special.entr(weights).mean(-1).exp()


@wrong("characters_looked_at")
def axis_one(weights):
    return (-(weights * weights.clamp_min(1e-30).log()).sum(1)).exp()


@wrong("characters_looked_at")
def counts_as_float32(weights):
    return (weights > 0).sum(-1).float()


@right("merged_attention")
def query_by_query_with_the_largest_out(outs, logs):
    P, T, _ = outs.shape
    o, total = torch.zeros_like(outs[0]), torch.zeros_like(logs[0])
    for t in range(T):
        top = max(logs[p, t] for p in range(P))
        e = [(logs[p, t] - top).exp() for p in range(P)]
        o[t] = sum(e[p] * outs[p, t] for p in range(P)) / sum(e)
        total[t] = top + sum(e).log()
    return [o, total]


@right("merged_attention")
def one_piece_after_the_other(outs, logs):
    o, total = outs[0], logs[0]
    for out, log in zip(outs[1:], logs[1:]):
        both = torch.logaddexp(total, log)
        share = torch.where(both.isinf(), 0.0, (log - both).exp())[:, None]
        o, total = o + share * (out - o), both
    return o, total


@right("merged_attention")
def real_attention_over_one_place_for_each_piece(outs, logs):
    """Each piece is a place: its score is ℓ, its value is o."""
    query = torch.ones(logs.shape[1], 1, 1, dtype=logs.dtype)
    o = F.scaled_dot_product_attention(query, logs.T[..., None], outs.transpose(0, 1))
    return [o.squeeze(1), torch.logsumexp(logs, 0)]


@wrong("merged_attention", "e^ℓ is ∞ for ℓ = 1000, and 0 for -1000")
def exponentials_of_large_logarithms(outs, logs):
    e = logs.exp()
    return [(e[..., None] * outs).sum(0) / e.sum(0)[:, None], logs.logsumexp(0)]


@wrong("merged_attention", "the first pieces hold nothing for it, and -∞ minus -∞ is not a number")
def running_without_a_guard(outs, logs):
    o, total = outs[0], logs[0]
    for out, log in zip(outs[1:], logs[1:]):
        top = torch.maximum(total, log)
        a, b = (total - top).exp(), (log - top).exp()
        o, total = (a[:, None] * o + b[:, None] * out) / (a + b)[:, None], top + (a + b).log()
    return [o, total]


@wrong("merged_attention", "a piece counts by its share of the whole weight")
def mean_of_the_results(outs, logs):
    return [outs.mean(0), logs.logsumexp(0)]


@wrong("merged_attention")
def sum_of_the_results(outs, logs):
    return [outs.sum(0), logs.logsumexp(0)]


@wrong("merged_attention", "the first pieces hold nothing for it, and -∞ minus -∞ is not a number")
def logarithms_as_weights(outs, logs):
    return [(outs * (logs / logs.sum(0))[..., None]).sum(0), logs.logsumexp(0)]


@wrong("merged_attention", "e^ℓ is ∞ for ℓ = 1000, and 0 for -1000")
def undivided(outs, logs):
    return [(outs * logs.exp()[..., None]).sum(0), logs.logsumexp(0)]


@wrong("merged_attention")
def softmax_over_queries(outs, logs):
    return [(logs.softmax(-1)[..., None] * outs).sum(0), logs.logsumexp(0)]


@wrong("merged_attention", "ℓ is infinite")
def safe_for_the_result_only(outs, logs):
    return [(logs.softmax(0)[..., None] * outs).sum(0), logs.exp().sum(0).log()]


@wrong("merged_attention", "o is right, but ℓ is the whole weight")
def returns_the_weight(outs, logs):
    return [(logs.softmax(0)[..., None] * outs).sum(0), logs.exp().sum(0)]


@wrong("merged_attention", "add the weights e^ℓ of the pieces")
def adds_the_logarithms(outs, logs):
    return [(logs.softmax(0)[..., None] * outs).sum(0), logs.sum(0)]


@wrong("merged_attention")
def largest_logarithm(outs, logs):
    return [(logs.softmax(0)[..., None] * outs).sum(0), logs.amax(0)]


@wrong("merged_attention", "a list of 2")
def only_the_result(outs, logs):
    return (logs.softmax(0)[..., None] * outs).sum(0)


@wrong("merged_attention", "but a tensor (1, ")
def squeezes_a_single_query(outs, logs):
    return [
        (logs.softmax(0)[..., None] * outs).sum(0).squeeze(0),
        logs.logsumexp(0).squeeze(0),
    ]  # fails at T = 1


@wrong("merged_attention", "e^ℓ is ∞ for ℓ = 1000, and 0 for -1000")
def one_largest_for_all(outs, logs):
    e = (logs - logs.max()).exp()
    return [(e[..., None] * outs).sum(0) / e.sum(0)[:, None], logs.max() + e.sum(0).log()]


@wrong("merged_attention", "subtract the largest ℓ before exp, and add it after the logarithm")
def one_largest_for_the_logarithm(outs, logs):
    return [
        (logs.softmax(0)[..., None] * outs).sum(0),
        logs.max() + (logs - logs.max()).exp().sum(0).log(),
    ]


@wrong("merged_attention")
def one_largest_for_all_and_no_nan(outs, logs):
    e = (logs - logs.max()).exp()
    return [((e[..., None] * outs).sum(0) / e.sum(0)[:, None]).nan_to_num(0.0), logs.logsumexp(0)]


@wrong("merged_attention")
def empty_pieces_weigh_one(outs, logs):
    return [(logs.nan_to_num(neginf=0.0).softmax(0)[..., None] * outs).sum(0), logs.logsumexp(0)]


@wrong("merged_attention")
def empty_pieces_weigh_one_in_both(outs, logs):
    logs = logs.nan_to_num(neginf=0.0)
    return [(logs.softmax(0)[..., None] * outs).sum(0), logs.logsumexp(0)]


@wrong("merged_attention")
def largest_not_put_back(outs, logs):
    e = (logs - logs.amax(0)).exp()
    return [(e[..., None] * outs).sum(0) / e.sum(0)[:, None], e.sum(0).log()]
