"""Lesson 08."""

import math

import torch
from torch.nn import functional as F

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- odds_temperature


@right("odds_temperature")
def difference_of_logits(p, r):
    logits = p.double().log().sort().values
    return float((logits[-1] - logits[-2]) / torch.tensor(r).double().log())


@right("odds_temperature")
def root_by_halving(p, r):
    """The ratio falls as the temperature rises."""
    first, second = sorted(p.tolist())[-1], sorted(p.tolist())[-2]
    low, high = 1e-3, 1e3
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (first / second) ** (1 / middle) > r else (low, middle)
    return middle


@right("odds_temperature")
def logarithm_to_the_base_r(p, r):
    p = p.tolist()
    first = max(p)
    p.remove(first)
    return math.log2(first / max(p)) / math.log2(r)


@wrong("odds_temperature", "that is 1 / τ")
def the_factor_of_lesson_2(p, r):
    first, second = p.topk(2).values.tolist()
    return math.log(r) / math.log(first / second)


@wrong("odds_temperature", "is not divided by τ")
def quotient_of_ratios(p, r):
    first, second = p.topk(2).values.tolist()
    return first / second / r


@wrong("odds_temperature")
def r_over_the_ratio(p, r):
    first, second = p.topk(2).values.tolist()
    return r * second / first


@wrong("odds_temperature", "ln r, not r")
def difference_divided_by_r(p, r):
    first, second = p.log().topk(2).values.tolist()
    return (first - second) / r


@wrong("odds_temperature")
def probabilities_as_logits(p, r):
    first, second = p.topk(2).values.tolist()
    return (first - second) / math.log(r)


@wrong("odds_temperature", "the first two of p")
def trusts_the_order(p, r):
    return math.log(p[0] / p[1]) / math.log(r)


@wrong("odds_temperature")
def second_over_first(p, r):
    ordered = p.sort().values
    return math.log(ordered[-2] / ordered[-1]) / math.log(r)


@wrong("odds_temperature")
def odds_against_the_rest(p, r):
    first = p.max().item()
    return math.log(first / (1 - first)) / math.log(r)


@wrong("odds_temperature")
def largest_over_smallest(p, r):
    return math.log(p.max() / p.min()) / math.log(r)


@wrong("odds_temperature")
def second_is_left_out(p, r):
    return -math.log(p.max()) / math.log(r)


@wrong("odds_temperature")
def mixes_logarithms(p, r):
    first, second = p.topk(2).values
    return (torch.log2(first / second) / math.log(r)).item()


@wrong("odds_temperature", "quotient of two logarithms")
def quotient_of_logarithms(p, r):
    first, second = p.topk(2).values.log().tolist()
    return first / second / math.log(r)


@wrong("odds_temperature", "the ratio e")
def forgets_r(p, r):
    first, second = p.log().topk(2).values
    return float(first - second)


@wrong("odds_temperature", "in place")
def logarithm_in_place(p, r):
    first, second = p.log_().topk(2).values.tolist()
    return (first - second) / math.log(r)


@wrong("odds_temperature", "is there a `return`?")
def temperature_without_return(p, r):
    first, second = p.topk(2).values.tolist()
    math.log(first / second) / math.log(r)


# ---------------------------------------------------------------- typical_probabilities


@right("typical_probabilities")
def character_by_character(p, share):
    numbers = p.tolist()
    H = -sum(x * math.log(x) for x in numbers if x)
    order = sorted(
        (c for c, x in enumerate(numbers) if x),
        key=lambda c: (round(abs(math.log(numbers[c]) + H), 5), c),
    )
    held, out = 0.0, torch.zeros_like(p)
    for c in order:
        if held >= share:
            break
        held += numbers[c]
        out[c] = p[c]
    return out / held


@right("typical_probabilities")
def in_bits_throughout(p, share):
    bits = torch.where(p > 0, -p.log2(), torch.inf)
    H = (p * bits)[p > 0].sum()
    ordered, order = (bits - H).abs().sort(stable=True)
    n = int((p[order].cumsum(0) < share).sum()) + 1
    out = torch.zeros_like(p).scatter(0, order[:n], p[order[:n]])
    return out / out.sum()


@right("typical_probabilities")
def who_stands_before_whom(p, share):
    """A character is kept if those before it hold less than `share`."""
    log = p.clamp_min(1e-30).log()
    distance = (-log + (p * log).sum()).abs()
    places = torch.arange(len(p))
    first = (distance[None] < distance[:, None]) | (distance[None] == distance[:, None]) & (
        places < places[:, None]
    )
    kept = (first.to(p.dtype) @ p < share) & (p > 0)
    return torch.where(kept, p, 0) / p[kept].sum()


@wrong("typical_probabilities", "as in top-p")
def nucleus(p, share):
    order = p.argsort(descending=True, stable=True)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    return kept * p / (kept * p).sum()


@wrong("typical_probabilities", "as in top-p")
def without_the_absolute_value(p, share):
    order = (-p.log() - torch.special.entr(p).sum()).argsort(stable=True)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    return kept * p / (kept * p).sum()


@wrong("typical_probabilities", "as in top-p")
def loses_the_minus_of_the_surprise(p, share):
    order = (p.log() - torch.special.entr(p).sum()).abs().argsort(stable=True)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    return kept * p / (kept * p).sum()


@wrong("typical_probabilities", "p itself is compared")
def compares_p_with_the_entropy(p, share):
    order = (p - torch.special.entr(p).sum()).abs().argsort(stable=True)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    return kept * p / (kept * p).sum()


@wrong("typical_probabilities")
def compares_parts_of_the_entropy(p, share):
    parts = torch.special.entr(p)
    order = (parts - parts.sum()).abs().argsort(stable=True)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    return kept * p / (kept * p).sum()


@wrong("typical_probabilities")
def entropy_in_bits(p, share):
    H = torch.special.entr(p).sum() / math.log(2)
    order = (-p.log() - H).abs().argsort(stable=True)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    return kept * p / (kept * p).sum()


@wrong("typical_probabilities")
def surprise_in_bits(p, share):
    order = (-p.log2() - torch.special.entr(p).sum()).abs().argsort(stable=True)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    return kept * p / (kept * p).sum()


@wrong("typical_probabilities")
def nearest_probability(p, share):
    order = (p - math.exp(-torch.special.entr(p).sum())).abs().argsort(stable=True)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    return kept * p / (kept * p).sum()


@wrong("typical_probabilities", "which is nan")
def entropy_as_it_is_written(p, share):
    order = (-p.log() + (p * p.log()).sum()).abs().argsort(stable=True)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    return kept * p / (kept * p).sum()


@wrong("typical_probabilities")
def farthest_first(p, share):
    distance = (p.log() + torch.special.entr(p).sum()).abs().where(p > 0, -math.inf)
    order = distance.argsort(descending=True, stable=True)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    return kept * p / (kept * p).sum()


@wrong("typical_probabilities")
def one_too_many(p, share):
    order = (p.log() + torch.special.entr(p).sum()).abs().argsort(stable=True)
    n = int((p[order].cumsum(0) < share).sum()) + 2
    out = torch.zeros_like(p)
    out[order[:n]] = p[order[:n]]
    return out / out.sum()


@wrong("typical_probabilities", "crosses `share` is left out")
def one_too_few(p, share):
    order = (p.log() + torch.special.entr(p).sum()).abs().argsort(stable=True)
    out, ordered = torch.zeros_like(p), p[order]
    out[order[ordered.cumsum(0) < share]] = 1
    return out * p / (out * p).sum()


@wrong("typical_probabilities", "divide it by its sum")
def forgets_to_stretch(p, share):
    order = (p.log() + torch.special.entr(p).sum()).abs().argsort(stable=True)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    return kept * p


@wrong("typical_probabilities")
def softmax_of_the_kept(p, share):
    order = (p.log() + torch.special.entr(p).sum()).abs().argsort(stable=True)
    kept, ordered = torch.zeros_like(p).bool(), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = True
    return p.masked_fill(~kept, -math.inf).softmax(0)


@wrong("typical_probabilities", "in the order of their distances")
def stays_sorted(p, share):
    ordered = p[(p.log() + torch.special.entr(p).sum()).abs().argsort(stable=True)]
    kept = ordered * (ordered.cumsum(0) - ordered < share)
    return kept / kept.sum()


@wrong("typical_probabilities")
def gathers_where_it_should_scatter(p, share):
    order = (p.log() + torch.special.entr(p).sum()).abs().argsort(stable=True)
    marks = p[order].cumsum(0) - p[order] < share
    kept = p * marks.gather(0, order)
    return kept / kept.sum()


@wrong("typical_probabilities")
def by_the_distance_at_the_edge(p, share):
    distance, order = (p.log() + torch.special.entr(p).sum()).abs().sort(stable=True)
    edge = distance[(p[order].cumsum(0) < share).sum()]
    kept = p * ((p.log() + torch.special.entr(p).sum()).abs() <= edge)
    return kept / kept.sum()


@wrong("typical_probabilities")
def turned_round_twice(p, share):
    order = (-(p.log() + torch.special.entr(p).sum()).abs()).argsort(stable=True).flip(0)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    return kept * p / (kept * p).sum()


@wrong("typical_probabilities")
def returns_the_mask(p, share):
    order = (p.log() + torch.special.entr(p).sum()).abs().argsort(stable=True)
    kept, ordered = torch.zeros_like(p).bool(), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = True
    return kept


@wrong("typical_probabilities", "is nan: 0 · ln 0")
def infinity_times_zero(p, share):
    surprise = -p.log()
    order = (surprise - torch.special.entr(p).sum()).abs().argsort(stable=True)
    ordered, kept = p[order], torch.zeros_like(p)
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    logits = -surprise * kept
    return logits.exp() * kept / (logits.exp() * kept).sum()


@wrong("typical_probabilities", "in place")
def writes_into_p(p, share):
    order = (p.log() + torch.special.entr(p).sum()).abs().argsort(stable=True)
    p[order[p[order].cumsum(0) - p[order] >= share]] = 0
    return p / p.sum()


@wrong("typical_probabilities")
def at_least_two(p, share):
    order = (p.log() + torch.special.entr(p).sum()).abs().argsort(stable=True)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1
    kept[order[1]] = 1  # fails at V = 1
    return kept * p / (kept * p).sum()


@wrong("typical_probabilities", "is there a `return`?")
def typical_without_return(p, share):
    order = (p.log() + torch.special.entr(p).sum()).abs().argsort(stable=True)
    kept, ordered = torch.zeros_like(p), p[order]
    kept[order[ordered.cumsum(0) - ordered < share]] = 1


# ---------------------------------------------------------------- cache_outgrows_weights


@right("cache_outgrows_weights")
def counts_a_real_cache(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    one = torch.empty(N, 2, B, G, 1, C // H, device="meta").numel() * cache_bytes
    T = 1
    while T * one <= parameters * weight_bytes:
        T += 1
    return T


@right("cache_outgrows_weights")
def rounds_up_one_byte_more(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    width_of_keys = C * G // H
    return -(
        -(parameters * weight_bytes + 1) // (N * B * (width_of_keys + width_of_keys) * cache_bytes)
    )


@right("cache_outgrows_weights")
def by_halving(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    cache = lambda T: sum(
        B * (C // H) * T * cache_bytes for _ in range(N) for _ in range(G) for _ in ("key", "value")
    )
    low, high = 0, 1
    while cache(high) <= parameters * weight_bytes:
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cache(middle) <= parameters * weight_bytes else (low, middle)
    return high


@wrong("cache_outgrows_weights", "two tensors, not one")
def keys_alone(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return parameters * weight_bytes // (B * N * G * (C // H) * cache_bytes) + 1


@wrong("cache_outgrows_weights")
def three_of_everything(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return parameters * weight_bytes // (3 * B * N * G * (C // H) * cache_bytes) + 1


@wrong("cache_outgrows_weights")
def queries_too(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return parameters * weight_bytes // (B * N * (C + 2 * G * (C // H)) * cache_bytes) + 1


@wrong("cache_outgrows_weights", "of its own; there are only G")
def forgets_the_groups(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return parameters * weight_bytes // (2 * B * N * C * cache_bytes) + 1


@wrong("cache_outgrows_weights")
def heads_as_wide_as_the_model(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return parameters * weight_bytes // (2 * B * N * G * C * cache_bytes) + 1


@wrong("cache_outgrows_weights")
def a_single_head(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return parameters * weight_bytes // (2 * B * N * (C // H) * cache_bytes) + 1


@wrong("cache_outgrows_weights", "a cache of its own")
def one_text_only(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return parameters * weight_bytes // (2 * N * G * (C // H) * cache_bytes) + 1


@wrong("cache_outgrows_weights")
def one_block_only(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return parameters * weight_bytes // (2 * B * G * (C // H) * cache_bytes) + 1


@wrong("cache_outgrows_weights")
def numbers_of_the_cache(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return parameters * weight_bytes // (2 * B * N * G * (C // H)) + 1


@wrong("cache_outgrows_weights")
def numbers_of_the_weights(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return parameters // (2 * B * N * G * (C // H) * cache_bytes) + 1


@wrong("cache_outgrows_weights", "numbers are compared")
def numbers_on_both_sides(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return parameters // (2 * B * N * G * (C // H)) + 1


@wrong("cache_outgrows_weights", "not yet larger than the weights")
def the_last_that_is_smaller(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return parameters * weight_bytes // (2 * B * N * G * (C // H) * cache_bytes)


@wrong("cache_outgrows_weights", "where both are equal")
def rounds_up(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return math.ceil(parameters * weight_bytes / (2 * B * N * G * (C // H) * cache_bytes))


@wrong("cache_outgrows_weights")
def keeps_the_weights_of_attention(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return math.isqrt(parameters * weight_bytes // (B * N * H * cache_bytes)) + 1


@wrong("cache_outgrows_weights")
def not_whole(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    return parameters * weight_bytes / (2 * B * N * G * (C // H) * cache_bytes)


@wrong("cache_outgrows_weights", "is there a `return`?")
def cache_without_return(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    parameters * weight_bytes // (2 * B * N * G * (C // H) * cache_bytes) + 1


# ---------------------------------------------------------------- mended_pads


@right("mended_pads")
def one_prompt_after_the_other(E, P, prompts):
    out = []
    for prompt in prompts:
        x = E[prompt] + P[: len(prompt)]
        out.append((x @ x[-1] / E.shape[1] ** 0.5).softmax(0) @ x)
    return torch.stack(out)


@right("mended_pads")
def empty_places_behind(E, P, prompts):
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    idx = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
    x = E[idx] + P[: idx.shape[1]]
    q = x[torch.arange(len(idx)), lengths - 1]
    scores = torch.einsum("bc,btc->bt", q, x) / E.shape[1] ** 0.5
    there = torch.arange(idx.shape[1]) < lengths[:, None]
    return torch.einsum("bt,btc->bc", scores.where(there, -torch.inf).softmax(1), x)


@right("mended_pads")
def a_mark_that_is_no_character(E, P, prompts):
    N = max(map(len, prompts))
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0), value=-1) for prompt in prompts])
    there = idx >= 0
    x = E[idx] + P[there.cumsum(1) - 1]  # -1 finds the last row of a table; it is hidden
    return F.scaled_dot_product_attention(x[:, -1:], x, x, attn_mask=there[:, None])[:, 0]


@wrong("mended_pads", "both bugs are still there")
def as_it_was(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    x = E[idx] + P[:N]
    scores = (x[:, -1:] @ x.mT / E.shape[1] ** 0.5).masked_fill((idx == 0)[:, None], float("-inf"))
    return (scores.softmax(-1) @ x)[:, 0]


@wrong("mended_pads", "character 0 is masked inside the prompts")
def places_alone(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    pads = torch.tensor([N - len(prompt) for prompt in prompts])
    x = E[idx] + P[(torch.arange(N) - pads[:, None]).clamp(min=0)]
    scores = (x[:, -1:] @ x.mT / E.shape[1] ** 0.5).masked_fill((idx == 0)[:, None], float("-inf"))
    return (scores.softmax(-1) @ x)[:, 0]


@wrong("mended_pads", "the mask is right now")
def mask_alone(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    pads = torch.tensor([N - len(prompt) for prompt in prompts])
    x = E[idx] + P[:N]
    hidden = torch.arange(N) < pads[:, None]
    scores = (x[:, -1:] @ x.mT / E.shape[1] ** 0.5).masked_fill(hidden[:, None], float("-inf"))
    return (scores.softmax(-1) @ x)[:, 0]


@wrong("mended_pads", "nothing is masked")
def hides_nothing(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    pads = torch.tensor([N - len(prompt) for prompt in prompts])
    x = E[idx] + P[(torch.arange(N) - pads[:, None]).clamp(min=0)]
    return ((x[:, -1:] @ x.mT / E.shape[1] ** 0.5).softmax(-1) @ x)[:, 0]


@wrong("mended_pads")
def only_drops_the_mask(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    x = E[idx] + P[:N]
    return ((x[:, -1:] @ x.mT / E.shape[1] ** 0.5).softmax(-1) @ x)[:, 0]


@wrong("mended_pads")
def scores_of_zero(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    places = torch.arange(N) - torch.tensor([[N - len(prompt)] for prompt in prompts])
    x = E[idx] + P[places.clamp(min=0)]
    scores = (x[:, -1:] @ x.mT / E.shape[1] ** 0.5) * (places >= 0)[:, None]
    return (scores.softmax(-1) @ x)[:, 0]


@wrong("mended_pads", "sum to less than 1")
def hides_after_the_softmax(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    places = torch.arange(N) - torch.tensor([[N - len(prompt)] for prompt in prompts])
    x = E[idx] + P[places.clamp(min=0)]
    weights = (x[:, -1:] @ x.mT / E.shape[1] ** 0.5).softmax(-1) * (places >= 0)[:, None]
    return (weights @ x)[:, 0]


@wrong("mended_pads", "is nan: every position is masked")
def hides_one_too_many(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    places = torch.arange(N) - torch.tensor([[N - len(prompt)] for prompt in prompts])
    x = E[idx] + P[places.clamp(min=0)]
    scores = (x[:, -1:] @ x.mT / E.shape[1] ** 0.5).masked_fill(
        (places <= 0)[:, None], float("-inf")
    )
    return (scores.softmax(-1) @ x)[:, 0]


@wrong("mended_pads")
def hides_one_too_few(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    places = torch.arange(N) - torch.tensor([[N - len(prompt)] for prompt in prompts])
    x = E[idx] + P[places.clamp(min=0)]
    scores = (x[:, -1:] @ x.mT / E.shape[1] ** 0.5).masked_fill(
        (places < -1)[:, None], float("-inf")
    )
    return (scores.softmax(-1) @ x)[:, 0]


@wrong("mended_pads")
def hides_the_ends(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    lengths = torch.tensor([[len(prompt)] for prompt in prompts])
    x = E[idx] + P[(torch.arange(N) - N + lengths).clamp(min=0)]
    hidden = torch.arange(N) >= lengths
    scores = (x[:, -1:] @ x.mT / E.shape[1] ** 0.5).masked_fill(hidden[:, None], float("-inf"))
    return (scores.softmax(-1) @ x)[:, 0]


@wrong("mended_pads")
def adds_the_empty_places(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    pads = torch.tensor([[N - len(prompt)] for prompt in prompts])
    x = E[idx] + P[(torch.arange(N) + pads).clamp(max=len(P) - 1)]
    hidden = torch.arange(N) < pads
    scores = (x[:, -1:] @ x.mT / E.shape[1] ** 0.5).masked_fill(hidden[:, None], float("-inf"))
    return (scores.softmax(-1) @ x)[:, 0]


@wrong("mended_pads")
def counts_from_one(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    there = torch.arange(N) >= torch.tensor([[N - len(prompt)] for prompt in prompts])
    x = E[idx] + P[there.cumsum(1).clamp(max=len(P) - 1)]
    scores = (x[:, -1:] @ x.mT / E.shape[1] ** 0.5).masked_fill(~there[:, None], float("-inf"))
    return (scores.softmax(-1) @ x)[:, 0]


@wrong("mended_pads")
def counts_back_from_the_end(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    hidden = torch.arange(N) < torch.tensor([[N - len(prompt)] for prompt in prompts])
    x = E[idx] + P[:N].flip(0)
    scores = (x[:, -1:] @ x.mT / E.shape[1] ** 0.5).masked_fill(hidden[:, None], float("-inf"))
    return (scores.softmax(-1) @ x)[:, 0]


@wrong("mended_pads", "in place")
def wipes_a_row_of_the_table(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    E[0] = 0
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    places = torch.arange(N) - torch.tensor([[N - len(prompt)] for prompt in prompts])
    x = E[idx] + P[places.clamp(min=0)]
    return ((x[:, -1:] @ x.mT / E.shape[1] ** 0.5).softmax(-1) @ x)[:, 0]


@wrong("mended_pads", "the vector of prompt 0 is nan")
def nobody_sees_itself(E, P, prompts):
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    places = torch.arange(N) - torch.tensor([[N - len(prompt)] for prompt in prompts])
    x = E[idx] + P[places.clamp(min=0)]
    hidden = (places < 0) | (torch.arange(N) == N - 1)
    scores = (x[:, -1:] @ x.mT / E.shape[1] ** 0.5).masked_fill(hidden[:, None], float("-inf"))
    return (scores.softmax(-1) @ x)[:, 0]


@wrong("mended_pads", "is there a `return`?")
def vectors_without_return(E, P, prompts):
    for prompt in prompts:
        x = E[prompt] + P[: len(prompt)]
        (x @ x[-1] / E.shape[1] ** 0.5).softmax(0) @ x


# ---------------------------------------------------------------- speculative_write


@right("speculative_write")
def ruler_and_lists(p, q, draft, u, w):
    ids = []
    for k in range(len(draft)):
        c = int(draft[k])
        if float(u[k]) < min(1.0, float(p[k, c]) / float(q[k, c])):
            ids.append(c)
            continue
        missing = [max(0.0, float(a) - float(b)) for a, b in zip(p[k], q[k])]
        last = [m / sum(missing) for m in missing]
        break
    else:
        last = p[len(draft)].tolist()
    end = 0.0
    for c, m in enumerate(last):
        end += m
        if w < end:
            return [torch.tensor([*ids, c]), torch.tensor(last, dtype=p.dtype)]


@right("speculative_write")
def all_at_once(p, q, draft, u, w):
    """The number of accepted drafts is the length of the first run of True; behind the last place q is 0."""
    places = torch.arange(len(draft))
    n = int((u * q[places, draft] < p[places, draft]).long().cumprod(0).sum())
    last = F.relu(p[n] - torch.cat([q, torch.zeros_like(p[:1])])[n])
    last = last / last.sum()
    new = torch.searchsorted(last.cumsum(0), torch.tensor([w], dtype=p.dtype), right=True)
    return [torch.cat([draft[:n], new]), last]


@right("speculative_write")
def solves_for_the_rest(p, q, draft, u, w):
    """m from the condition itself: accepted(c) + P(refused) m(c) = p(c), for each c."""
    ids, last = draft, p[-1]
    for k in range(len(draft)):
        accepts = torch.clamp(p[k] / q[k], max=1)
        if not u[k] < accepts[draft[k]]:
            refused = (q[k] * (1 - accepts)).sum()
            ids, last = draft[:k], (p[k] - q[k] * accepts) / refused
            break
    new = (last.cumsum(0) > w).long().argmax()
    return [F.pad(ids, (0, 1), value=int(new)), last]


@wrong("speculative_write", "draws from p again")
def draws_from_p_again(p, q, draft, u, w):
    n = 0
    while n < len(draft) and u[n] < p[n, draft[n]] / q[n, draft[n]]:
        n += 1
    return [torch.cat([draft[:n], (p[n].cumsum(0) <= w).sum()[None]]), p[n]]


@wrong("speculative_write")
def strikes_out_the_draft(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            n, last = k, p[k].clone()
            last[d] = 0
            last = last / last.sum()
            break
    return [torch.cat([draft[:n], (last.cumsum(0) <= w).sum()[None]]), last]


@wrong("speculative_write")
def what_came_too_often(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            n, last = k, (q[k] - p[k]).clamp(min=0)
            last = last / last.sum()
            break
    return [torch.cat([draft[:n], (last.cumsum(0) <= w).sum()[None]]), last]


@wrong("speculative_write")
def absolute_difference(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            n, last = k, (p[k] - q[k]).abs()
            last = last / last.sum()
            break
    return [torch.cat([draft[:n], (last.cumsum(0) <= w).sum()[None]]), last]


@wrong("speculative_write", "`last` does not sum to 1")
def forgets_to_divide(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            n, last = k, (p[k] - q[k]).clamp(min=0)
            break
    return [torch.cat([draft[:n], (last.cumsum(0) <= w).sum()[None]]), last]


@wrong("speculative_write", "negative number")
def difference_as_it_is(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            n, last = k, p[k] - q[k]
            break
    return [torch.cat([draft[:n], (last.cumsum(0) <= w).sum()[None]]), last]


@wrong("speculative_write")
def softmax_of_the_difference(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            n, last = k, (p[k] - q[k]).softmax(0)
            break
    return [torch.cat([draft[:n], (last.cumsum(0) <= w).sum()[None]]), last]


@wrong("speculative_write", "accepts with the probability p;")
def accepts_with_p(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d]:
            n, last = k, (p[k] - q[k]).clamp(min=0)
            last = last / last.sum()
            break
    return [torch.cat([draft[:n], (last.cumsum(0) <= w).sum()[None]]), last]


@wrong("speculative_write")
def quotient_upside_down(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if u[k] >= q[k, d] / p[k, d]:
            n, last = k, (p[k] - q[k]).clamp(min=0)
            last = last / last.sum()
            break
    return [torch.cat([draft[:n], (last.cumsum(0) <= w).sum()[None]]), last]


@wrong("speculative_write", "without u")
def accepts_without_u(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if p[k, d] < q[k, d]:
            n, last = k, (p[k] - q[k]).clamp(min=0)
            last = last / last.sum()
            break
    return [torch.cat([draft[:n], (last.cumsum(0) <= w).sum()[None]]), last]


@wrong("speculative_write", "it goes on after a refusal")
def goes_on(p, q, draft, u, w):
    ids, last = [], p[-1]
    for k, d in enumerate(draft.tolist()):
        if u[k] < p[k, d] / q[k, d]:
            ids.append(d)
        else:
            rest = (p[k] - q[k]).clamp(min=0)
            ids.append(int(((rest / rest.sum()).cumsum(0) <= w).sum()))
    ids.append(int((p[-1].cumsum(0) <= w).sum()))
    return [torch.tensor(ids), last]


@wrong("speculative_write")
def appends_to_the_refused(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            n, last = k + 1, (p[k] - q[k]).clamp(min=0)
            last = last / last.sum()
            break
    return [torch.cat([draft[:n], (last.cumsum(0) <= w).sum()[None]]), last]


@wrong("speculative_write", "knows one position more")
def last_p_of_a_draft(p, q, draft, u, w):
    n, last = len(draft), p[max(len(draft) - 1, 0)]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            n, last = k, (p[k] - q[k]).clamp(min=0)
            last = last / last.sum()
            break
    return [torch.cat([draft[:n], (last.cumsum(0) <= w).sum()[None]]), last]


@wrong("speculative_write")
def takes_the_likeliest(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            n, last = k, (p[k] - q[k]).clamp(min=0)
            last = last / last.sum()
            break
    return [torch.cat([draft[:n], last.argmax()[None]]), last]


@wrong("speculative_write")
def same_random_number_again(p, q, draft, u, w):
    n, last, number = len(draft), p[-1], w
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            n, last, number = k, (p[k] - q[k]).clamp(min=0), u[k]
            last = last / last.sum()
            break
    return [
        torch.cat([draft[:n], (last.cumsum(0) <= number).sum().clamp(max=len(last) - 1)[None]]),
        last,
    ]


@wrong("speculative_write")
def only_the_new_one(p, q, draft, u, w):
    last = p[-1]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            last = (p[k] - q[k]).clamp(min=0)
            last = last / last.sum()
            break
    return [(last.cumsum(0) <= w).sum()[None], last]


@wrong("speculative_write")
def returns_p(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            n, last = k, (p[k] - q[k]).clamp(min=0)
            last = last / last.sum()
            break
    return [torch.cat([draft[:n], (last.cumsum(0) <= w).sum()[None]]), p[n]]


@wrong("speculative_write", "UnboundLocalError")
def nothing_drafted(p, q, draft, u, w):
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            last = (p[k] - q[k]).clamp(min=0)
            last = last / last.sum()
            return [torch.cat([draft[:k], (last.cumsum(0) <= w).sum()[None]]), last]
    return [torch.cat([draft[: k + 1], (p[k + 1].cumsum(0) <= w).sum()[None]]), p[k + 1]]


@wrong("speculative_write", "in place")
def subtracts_in_place(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            n, last = k, p[k].sub_(q[k]).clamp(min=0)
            last = last / last.sum()
            break
    return [torch.cat([draft[:n], (last.cumsum(0) <= w).sum()[None]]), last]


@wrong("speculative_write", "is there a `return`?")
def writes_without_return(p, q, draft, u, w):
    n, last = len(draft), p[-1]
    for k, d in enumerate(draft):
        if u[k] >= p[k, d] / q[k, d]:
            n, last = k, (p[k] - q[k]).clamp(min=0)
            break
