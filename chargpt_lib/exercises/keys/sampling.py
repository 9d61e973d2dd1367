"""How the exercises of lesson 08 are judged: cases, mistakes, symptoms."""

import math

import torch
from torch.nn import functional as F

from chargpt_lib.exercises.answers.sampling import (
    cache_outgrows_weights,
    mended_pads,
    odds_temperature,
    speculative_write,
    typical_probabilities,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- odds_temperature


def odds_temperature_case(draw, V, ratio, r, dtype=torch.float32):
    """The likeliest has `ratio` times the probability of the second, and stands after it.

    For V > 2 another character stands before both.
    """
    others = [0.2 + 0.5 * draw.number() for _ in range(V - 2)]
    numbers = torch.tensor([1.0, ratio, *others], dtype=dtype)
    if V > 2:
        numbers = numbers.roll(1)
    return [numbers / numbers.sum(), r]


def odds_temperature_cases(draw):
    V = draw.integer(4, 9)
    return [
        odds_temperature_case(draw, 2, draw.number(1.5, 3), draw.number(4, 8)),
        odds_temperature_case(draw, 5, draw.number(2.5, 4), draw.number(1.3, 2)),
        odds_temperature_case(draw, V, draw.number(1.3, 2), draw.number(3, 9), torch.float64),
        odds_temperature_case(draw, draw.integer(3, 6), draw.number(3, 6), draw.number(1.2, 2.5)),
        [torch.tensor([0.25, 0.5, 0.25]), draw.number(1.2, 1.8)],
    ]


ODDS_TEMPERATURE = exercise(odds_temperature, stars=1, minutes=5, cases=odds_temperature_cases)


### BEGIN SOLUTION
@ODDS_TEMPERATURE.mistake(
    "that is 1 / τ: logits are divided by the temperature, so a high one makes the ratio smaller"
)
def odds_temperature_inverse(p, r):
    first, second = p.topk(2).values.tolist()
    return math.log(r) / math.log(first / second)


@ODDS_TEMPERATURE.mistake(
    "the ratio of two probabilities is not divided by τ: their logits are, and logits are "
    "logarithms"
)
def odds_temperature_without_logarithms(p, r):
    first, second = p.topk(2).values.tolist()
    return first / second / r


@ODDS_TEMPERATURE.mistake("the difference of the two logits has to become ln r, not r")
def odds_temperature_r_for_its_logarithm(p, r):
    first, second = p.topk(2).values.tolist()
    return math.log(first / second) / r


@ODDS_TEMPERATURE.mistake("`ln r` is missing: that is the temperature for the ratio e")
def odds_temperature_without_r(p, r):
    first, second = p.topk(2).values.tolist()
    return math.log(first / second)


@ODDS_TEMPERATURE.mistake("the first two of p are compared; the likeliest two may stand anywhere")
def odds_temperature_unsorted(p, r):
    first, second = p[:2].tolist()
    return math.log(first / second) / math.log(r)


@ODDS_TEMPERATURE.mistake(
    "the quotient of two logarithms, ln p₁ / ln p₂, is not the logarithm of the quotient"
)
def odds_temperature_quotient_of_logarithms(p, r):
    first, second = p.topk(2).values.tolist()
    return math.log(first) / math.log(second) / math.log(r)


### END SOLUTION

# ---------------------------------------------------------------- typical_probabilities


### BEGIN SOLUTION
def typical_probabilities_kept(p, order, share):
    """The set of ids at the beginning of the order that together hold at least `share`."""
    before = p[order].cumsum(0) - p[order]
    return set(order[before < share].tolist())


def typical_probabilities_case(draw, V, n):
    """The n most typical are kept; orders that one may take for the typical one keep others."""
    while True:
        p = (1.3 * draw.normal(V, dtype=torch.float64)).softmax(-1)
        H = -(p * p.log()).sum()
        distance = (p.log() + H).abs()
        gaps = distance.sort().values.diff()
        if gaps.min() < 0.01 or p.min() < 0.01:
            continue  # rounding must not decide the order
        order = distance.argsort()
        share = (p[order[:n]].sum() - p[order[n - 1]] / 2).item()
        wrong_orders = [
            p.argsort(descending=True),  # top-p
            p.argsort(),
            (p - H).abs().argsort(),
            (p.log() + H / math.log(2)).abs().argsort(),  # nats and bits
            (p - (-H).exp()).abs().argsort(),
            (p.log() - p.log().mean()).abs().argsort(),
        ]
        kept = typical_probabilities_kept(p, order, share)
        if all(typical_probabilities_kept(p, wrong, share) != kept for wrong in wrong_orders):
            return [p.float(), share]


### END SOLUTION


def typical_probabilities_shuffled(draw, p):
    order = draw.uniform(len(p)).argsort()
    return torch.tensor(p, dtype=torch.float64)[order]


def typical_probabilities_cases(draw):
    of_the_text = [0.6, 0.2, 0.1, 0.1]
    one_in_the_tail = [0.45, 0.3] + 10 * [0.025]
    equals = [0.3] + 7 * [0.1]
    with_zero = draw.choice([[0, 0.06, 0.04, 0.9], [0, 0.04, 0.06, 0.9]])
    return [
        typical_probabilities_case(draw, draw.integer(7, 9), draw.integer(1, 3)),
        [typical_probabilities_shuffled(draw, of_the_text), draw.number(0.82, 0.88)],
        [typical_probabilities_shuffled(draw, of_the_text), draw.number(0.05, 0.15)],
        [typical_probabilities_shuffled(draw, one_in_the_tail), draw.number(0.1, 0.25)],
        [typical_probabilities_shuffled(draw, equals), draw.integer(2, 5) / 10 + 0.05],
        [torch.tensor(with_zero), draw.number(0.4, 0.8)],
        [torch.ones(1), draw.number(0.2, 0.8)],
    ]


TYPICAL_PROBABILITIES = exercise(
    typical_probabilities, stars=2, minutes=8, cases=typical_probabilities_cases
)


@TYPICAL_PROBABILITIES.symptom(
    "number {0} is nan: 0 · ln 0 is nan in floating point, and adds nothing to an entropy"
)
def typical_probabilities_nan(got, want, p, share):
    return got.isnan()


### BEGIN SOLUTION
def typical_probabilities_first(p, order, share):
    """The fewest from the beginning of the order that hold `share`, divided by their sum."""
    before = p[order].cumsum(0) - p[order]
    kept = torch.zeros_like(p)
    kept[order[before < share]] = 1
    return kept * p / (kept * p).sum()


@TYPICAL_PROBABILITIES.mistake(
    "the likeliest come first, as in top-p; here it is those whose surprise is nearest to H, above "
    "or below"
)
def typical_probabilities_top_p(p, share):
    order = p.argsort(descending=True, stable=True)
    return typical_probabilities_first(p, order, share)


@TYPICAL_PROBABILITIES.mistake("p itself is compared with H; compare its surprise, -ln p")
def typical_probabilities_without_logarithm(p, share):
    H = torch.special.entr(p).sum()
    order = (p - H).abs().argsort(stable=True)
    return typical_probabilities_first(p, order, share)


@TYPICAL_PROBABILITIES.mistake(
    "the entropy holds 0 ln 0, which is nan: a probability of 0 adds nothing"
)
def typical_probabilities_nan_entropy(p, share):
    H = -(p * p.log()).sum()
    order = (-p.log() - H).abs().argsort(stable=True)
    return typical_probabilities_first(p, order, share)


@TYPICAL_PROBABILITIES.mistake(
    "the one that crosses `share` is left out: together they have to hold at least `share`"
)
def typical_probabilities_too_few(p, share):
    surprise = -p.log()
    order = (surprise - torch.special.entr(p).sum()).abs().argsort(stable=True)
    kept = torch.zeros_like(p)
    kept[order[p[order].cumsum(0) <= share]] = 1
    return kept * p / (kept * p).sum()


@TYPICAL_PROBABILITIES.mistake("what is kept sums to less than 1: divide it by its sum")
def typical_probabilities_unnormalised(p, share):
    surprise = -p.log()
    order = (surprise - torch.special.entr(p).sum()).abs().argsort(stable=True)
    before = p[order].cumsum(0) - p[order]
    kept = torch.zeros_like(p)
    kept[order[before < share]] = 1
    return kept * p


@TYPICAL_PROBABILITIES.mistake(
    "the numbers stand in the order of their distances: put them back in the order of the alphabet"
)
def typical_probabilities_sorted(p, share):
    surprise = -p.log()
    order = (surprise - torch.special.entr(p).sum()).abs().argsort(stable=True)
    ordered = p[order]
    kept = ordered * (ordered.cumsum(0) - ordered < share)
    return kept / kept.sum()


### END SOLUTION

# ---------------------------------------------------------------- cache_outgrows_weights


### BEGIN SOLUTION
def cache_outgrows_weights_case(
    draw, B, N, G, queries, D, weight_bytes, cache_bytes, T, equal=False
):
    """The cache outgrows the weights right after T characters. equal: at T both are equally large.

    queries: heads of queries for each head of keys and values. D: the size of a head.
    """
    one_character = 2 * B * N * G * D * cache_bytes
    bytes_of_weights = T * one_character
    if not equal:
        bytes_of_weights += draw.integer(one_character // 5, one_character // 2)
    parameters = bytes_of_weights // weight_bytes
    H = G * queries
    return [parameters, weight_bytes, B, N, H * D, H, G, cache_bytes]


### END SOLUTION


def cache_outgrows_weights_cases(draw):
    """Several of everything; equal at some T; one of each; one character is enough; G = H."""
    return [
        cache_outgrows_weights_case(
            draw,
            B=draw.integer(3, 7),
            N=draw.integer(5, 9),
            G=3,
            queries=4,
            D=draw.choice([16, 24, 40]),
            weight_bytes=1,
            cache_bytes=2,
            T=draw.integer(500, 900),
        ),
        cache_outgrows_weights_case(
            draw,
            B=draw.integer(2, 5),
            N=draw.integer(3, 6),
            G=2,
            queries=draw.integer(2, 5),
            D=8,
            weight_bytes=2,
            cache_bytes=4,
            T=draw.integer(40, 300),
            equal=True,
        ),
        cache_outgrows_weights_case(
            draw,
            B=1,
            N=1,
            G=1,
            queries=1,
            D=draw.integer(3, 20),
            weight_bytes=4,
            cache_bytes=2,
            T=draw.integer(500, 3000),
        ),
        [draw.integer(1, 5), 1, draw.integer(8, 30), 3, 64, 4, 2, 2],
        cache_outgrows_weights_case(
            draw,
            B=draw.integer(2, 9),
            N=draw.integer(2, 12),
            G=4,
            queries=1,
            D=32,
            weight_bytes=4,
            cache_bytes=draw.choice([1, 2]),
            T=draw.integer(100, 999),
        ),
    ]


CACHE_OUTGROWS_WEIGHTS = exercise(
    cache_outgrows_weights, stars=2, minutes=7, cases=cache_outgrows_weights_cases
)


### BEGIN SOLUTION
@CACHE_OUTGROWS_WEIGHTS.mistake("keys and values are cached: two tensors, not one")
def cache_outgrows_weights_keys_alone(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    one_character = B * N * G * (C // H) * cache_bytes
    return parameters * weight_bytes // one_character + 1


@CACHE_OUTGROWS_WEIGHTS.mistake(
    "every head of queries is given keys and values of its own; there are only G heads of those"
)
def cache_outgrows_weights_without_groups(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    one_character = 2 * B * N * C * cache_bytes
    return parameters * weight_bytes // one_character + 1


@CACHE_OUTGROWS_WEIGHTS.mistake(
    "the texts share the weights, but each has a cache of its own: the cache is B times as large"
)
def cache_outgrows_weights_one_text(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    one_character = 2 * N * G * (C // H) * cache_bytes
    return parameters * weight_bytes // one_character + 1


@CACHE_OUTGROWS_WEIGHTS.mistake(
    "numbers are compared, not bytes: a weight may take more or fewer bytes than a number of the "
    "cache"
)
def cache_outgrows_weights_without_bytes(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    one_character = 2 * B * N * G * (C // H)
    return parameters // one_character + 1


@CACHE_OUTGROWS_WEIGHTS.mistake("at this length the cache is not yet larger than the weights")
def cache_outgrows_weights_rounded_down(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    one_character = 2 * B * N * G * (C // H) * cache_bytes
    return parameters * weight_bytes // one_character


@CACHE_OUTGROWS_WEIGHTS.mistake("where both are equal, the cache is not yet larger")
def cache_outgrows_weights_rounded_up(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
    one_character = 2 * B * N * G * (C // H) * cache_bytes
    return math.ceil(parameters * weight_bytes / one_character)


### END SOLUTION

# ---------------------------------------------------------------- mended_pads


def mended_pads_tables(draw, V=6, C=4, dtype=torch.float32):
    """E (V, C) and P (8, C)."""
    E = 1.2 * draw.normal(V, C, dtype=dtype)
    P = 1.2 * draw.normal(8, C, dtype=dtype)
    return [E, P]


def mended_pads_prompts(draw, lengths, V=6, zero=True):
    """zero: in each prompt of two or more, character 0 stands somewhere before the end."""
    prompts = [1 + draw.ids(V - 1, T) for T in lengths]
    for prompt in prompts:
        if zero and len(prompt) > 1:
            prompt[draw.integer(0, len(prompt) - 2)] = 0
    return prompts


def mended_pads_cases(draw):
    decreasing = [draw.integer(5, 8), draw.integer(2, 4), 3]
    mixed = [1, draw.integer(4, 8), 2]
    full_block = [draw.integer(2, 3), 1, 8, draw.integer(4, 6)]
    zeros_at_the_ends = [
        torch.tensor([0]),
        torch.tensor([draw.integer(1, 5), 0, 0]),
        torch.tensor([0, draw.integer(1, 5)]),
    ]
    return [
        [*mended_pads_tables(draw), mended_pads_prompts(draw, decreasing)],
        [*mended_pads_tables(draw, dtype=torch.float64), mended_pads_prompts(draw, [1])],
        [*mended_pads_tables(draw, dtype=torch.float64), mended_pads_prompts(draw, [4, 4])],
        [*mended_pads_tables(draw), mended_pads_prompts(draw, mixed, zero=False)],
        [*mended_pads_tables(draw, V=4, C=3), mended_pads_prompts(draw, full_block, V=4)],
        [*mended_pads_tables(draw), zeros_at_the_ends],
    ]


MENDED_PADS = exercise(mended_pads, stars=2, minutes=8, cases=mended_pads_cases, atol=5e-5)


@MENDED_PADS.symptom(
    "the vector of prompt {0} is nan: every position is masked there, even its own last one"
)
def mended_pads_nan(got, want, E, P, prompts):
    return got.isnan().any(-1)


### BEGIN SOLUTION
def mended_pads_batch(prompts):
    """-> idx (B, N), with zeros in front, and pads (B, 1), how many."""
    N = max(len(prompt) for prompt in prompts)
    idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
    pads = torch.tensor([[N - len(prompt)] for prompt in prompts])
    return idx, pads


@MENDED_PADS.mistake(
    "both bugs are still there: where does a short prompt's position 0 stand, and which places are "
    "padding?"
)
def mended_pads_as_it_was(E, P, prompts):
    idx, pads = mended_pads_batch(prompts)
    x = E[idx] + P[: idx.shape[1]]
    scores = x[:, -1:] @ x.mT / E.shape[1] ** 0.5
    scores = scores.masked_fill((idx == 0)[:, None], -math.inf)
    return (scores.softmax(-1) @ x)[:, 0]


@MENDED_PADS.mistake(
    "the positions are right now; but character 0 is masked inside the prompts, too: no character "
    "marks padding"
)
def mended_pads_old_mask(E, P, prompts):
    idx, pads = mended_pads_batch(prompts)
    positions = torch.arange(idx.shape[1]) - pads
    x = E[idx] + P[positions.clamp(min=0)]
    scores = x[:, -1:] @ x.mT / E.shape[1] ** 0.5
    scores = scores.masked_fill((idx == 0)[:, None], -math.inf)
    return (scores.softmax(-1) @ x)[:, 0]


@MENDED_PADS.mistake(
    "the mask is right now, but a short prompt still does not count its positions from its own "
    "start"
)
def mended_pads_old_positions(E, P, prompts):
    idx, pads = mended_pads_batch(prompts)
    x = E[idx] + P[: idx.shape[1]]
    is_padding = torch.arange(idx.shape[1]) < pads
    scores = x[:, -1:] @ x.mT / E.shape[1] ** 0.5
    scores = scores.masked_fill(is_padding[:, None], -math.inf)
    return (scores.softmax(-1) @ x)[:, 0]


@MENDED_PADS.mistake("the positions are right; nothing is masked, so the padding is attended to")
def mended_pads_without_mask(E, P, prompts):
    idx, pads = mended_pads_batch(prompts)
    positions = torch.arange(idx.shape[1]) - pads
    x = E[idx] + P[positions.clamp(min=0)]
    scores = x[:, -1:] @ x.mT / E.shape[1] ** 0.5
    return (scores.softmax(-1) @ x)[:, 0]


@MENDED_PADS.mistake(
    "the padding is removed after the softmax: the other weights then sum to less than 1"
)
def mended_pads_masked_after_softmax(E, P, prompts):
    idx, pads = mended_pads_batch(prompts)
    positions = torch.arange(idx.shape[1]) - pads
    x = E[idx] + P[positions.clamp(min=0)]
    scores = x[:, -1:] @ x.mT / E.shape[1] ** 0.5
    weights = scores.softmax(-1).masked_fill((positions < 0)[:, None], 0)
    return (weights @ x)[:, 0]


### END SOLUTION

# ---------------------------------------------------------------- speculative_write


### BEGIN SOLUTION
def speculative_write_draft(draw, p, q, stop, low):
    """Ids (K,) whose p/q is low at `stop` and above 1 elsewhere, or None where no id fits.

    low: every other accepted id has a p/q a bit below 1.
    """
    draft = []
    for k in range(len(q)):
        if k == stop:
            lowest, highest = 0.3, 0.8
        elif low and k % 2 == 0:
            lowest, highest = 0.5, 0.9
        else:
            lowest, highest = 1.1, math.inf
        ratio = p[k] / q[k]
        fit = ((ratio > lowest) & (ratio < highest)).nonzero().flatten().tolist()
        if not fit:
            return None
        draft.append(draw.choice(fit))
    return torch.tensor(draft, dtype=torch.int64)


def speculative_write_case(draw, K, V, stop, low, dtype=torch.float32):
    """Draft `stop` is the first that is refused; stop = K: none is.

    The new character is not the likeliest, and neither u nor p would draw it.
    """
    while True:
        p = (1.3 * draw.normal(K + 1, V, dtype=torch.float64)).softmax(-1)
        q = (1.3 * draw.normal(K, V, dtype=torch.float64)).softmax(-1)
        draft = speculative_write_draft(draw, p, q, stop, low)
        if draft is None or p.min() < 0.01:
            continue
        chosen = p[torch.arange(K), draft]
        ratio = chosen / q[torch.arange(K), draft]
        u = ratio.clamp(max=0.95) * draw.uniform(K).clamp(0.85, 0.97)
        if not low and K > 0:
            u[0] = chosen[0] / 2
        last = p[stop]
        refused_by = None
        if stop < K:
            u[stop] = (0.15 + ratio[stop]) / 1.15
            refused_by = u[stop]
            last = (p[stop] - q[stop]).clamp(min=0)
            last = last / last.sum()
        ends = last.cumsum(0)
        middles = ends - last / 2
        free = []
        for c in range(V):
            if last[c] <= 0.04 or c == last.argmax():
                continue
            if refused_by is not None and c == (ends <= refused_by).sum():
                continue
            if stop < K and c == (p[stop].cumsum(0) <= middles[c]).sum():
                continue
            free.append(c)
        if free:
            w = middles[draw.choice(free)].item()
            return [p.to(dtype), q.to(dtype), draft, u.to(dtype), w]


### END SOLUTION


def speculative_write_cases(draw):
    K = draw.integer(2, 4)
    V = draw.integer(4, 6)
    return [
        speculative_write_case(draw, 4, 5, draw.integer(1, 2), True),
        speculative_write_case(draw, 1, 4, 0, True),
        speculative_write_case(draw, K, V, K, True, torch.float64),
        speculative_write_case(draw, K, V, K, False),
        speculative_write_case(draw, 0, draw.integer(3, 6), 0, False),
        speculative_write_case(draw, 3, draw.integer(5, 8), 2, True, torch.float64),
        speculative_write_case(draw, 5, 5, draw.integer(0, 3), True),
    ]


SPECULATIVE_WRITE = exercise(speculative_write, stars=3, minutes=18, cases=speculative_write_cases)


@SPECULATIVE_WRITE.symptom(
    "`last` has a negative number, {0}: where the small model drafts too often, nothing is missing"
)
def speculative_write_negative(got, want, p, q, draft, u, w):
    return got[1] < -1e-6


@SPECULATIVE_WRITE.symptom("`last` does not sum to 1")
def speculative_write_sum(got, want, p, q, draft, u, w):
    return abs(got[1].sum() - 1) > 1e-3


### BEGIN SOLUTION
def speculative_write_rest(p, q):
    """What is missing where the drafts come too rarely, as a distribution."""
    missing = (p - q).clamp(min=0)
    return missing / missing.sum()


def speculative_write_new(last, w):
    return (last.cumsum(0) <= w).sum()


@SPECULATIVE_WRITE.mistake(
    "after a refusal it draws from p again: what is often accepted then comes too often"
)
def speculative_write_from_p(p, q, draft, u, w):
    n = len(draft)
    for k, d in enumerate(draft.tolist()):
        if u[k] >= p[k, d] / q[k, d]:
            n = k
            break
    last = p[n]
    new = speculative_write_new(last, w)
    return [torch.cat([draft[:n], new[None]]), last]


@SPECULATIVE_WRITE.mistake(
    "it accepts with the probability p; but drafts are drawn with q already: accept with p / q"
)
def speculative_write_accepts_p(p, q, draft, u, w):
    n = len(draft)
    last = p[-1]
    for k, d in enumerate(draft.tolist()):
        if u[k] >= p[k, d]:
            n = k
            last = speculative_write_rest(p[k], q[k])
            break
    new = speculative_write_new(last, w)
    return [torch.cat([draft[:n], new[None]]), last]


@SPECULATIVE_WRITE.mistake(
    "it accepts where p is at least q, without u; elsewhere accept with the probability p / q"
)
def speculative_write_without_u(p, q, draft, u, w):
    n = len(draft)
    last = p[-1]
    for k, d in enumerate(draft.tolist()):
        if p[k, d] < q[k, d]:
            n = k
            last = speculative_write_rest(p[k], q[k])
            break
    new = speculative_write_new(last, w)
    return [torch.cat([draft[:n], new[None]]), last]


@SPECULATIVE_WRITE.mistake(
    "it goes on after a refusal; the drafts that follow were written after another character"
)
def speculative_write_goes_on(p, q, draft, u, w):
    ids = []
    for k, d in enumerate(draft.tolist()):
        if u[k] < p[k, d] / q[k, d]:
            ids.append(d)
        else:
            last = speculative_write_rest(p[k], q[k])
            ids.append(speculative_write_new(last, w).item())
    ids.append(speculative_write_new(p[-1], w).item())
    return [torch.tensor(ids), p[-1]]


@SPECULATIVE_WRITE.mistake(
    "the last character is drawn from the p of the last draft; the large model knows one position "
    "more"
)
def speculative_write_last_p(p, q, draft, u, w):
    n = len(draft)
    last = p[max(n - 1, 0)]
    for k, d in enumerate(draft.tolist()):
        if u[k] >= p[k, d] / q[k, d]:
            n = k
            last = speculative_write_rest(p[k], q[k])
            break
    new = speculative_write_new(last, w)
    return [torch.cat([draft[:n], new[None]]), last]


### END SOLUTION
