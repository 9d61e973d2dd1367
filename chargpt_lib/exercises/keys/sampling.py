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


def odds_temperature_case(draw, V, ratio, dtype=torch.float32):
    """The likeliest is `ratio` times the second, and stands after it; the last one, V > 2, stands before both."""
    rest = [0.2 + 0.5 * draw.number() for _ in range(V - 2)]
    numbers = torch.tensor([1.0, ratio, *rest], dtype=dtype).roll(int(V > 2))
    return numbers / numbers.sum()


exercise(
    odds_temperature,
    stars=1,
    minutes=5,
    cases=lambda draw: [
        [odds_temperature_case(draw, 2, draw.number(1.5, 3)), draw.number(4, 8)],
        [odds_temperature_case(draw, 5, draw.number(2.5, 4)), draw.number(1.3, 2)],
        [
            odds_temperature_case(draw, draw.integer(4, 9), draw.number(1.3, 2), torch.float64),
            draw.number(3, 9),
        ],
        [odds_temperature_case(draw, draw.integer(3, 6), draw.number(3, 6)), draw.number(1.2, 2.5)],
        [torch.tensor([0.25, 0.5, 0.25]), draw.number(1.2, 1.8)],
    ],
    wrong={
        ### BEGIN SOLUTION
        "that is 1 / τ: logits are divided by the temperature, so a high one makes the ratio smaller": lambda p, r: (
            1 / odds_temperature(p, r)
        ),
        "the ratio of two probabilities is not divided by τ: their logits are, and logits are logarithms": lambda p, r: (
            math.exp(odds_temperature(p, r) * math.log(r)) / r
        ),
        "that is r over the ratio: probabilities are not multiplied by a temperature, their logits are divided by it": lambda p, r: (
            r / math.exp(odds_temperature(p, r) * math.log(r))
        ),
        "the difference of the two logits has to become ln r, not r": lambda p, r: (
            odds_temperature(p, r) * math.log(r) / r
        ),
        "probabilities were taken for logits: which logits give p?": lambda p, r: (
            (p.topk(2).values[0] - p.topk(2).values[1]).item() / math.log(r)
        ),
        "the first two of p are compared; the likeliest two may stand anywhere": lambda p, r: (
            (p[0] / p[1]).log().item() / math.log(r)
        ),
        "the second and the likeliest are exchanged: no temperature is negative": lambda p, r: (
            -odds_temperature(p, r)
        ),
        "the likeliest is compared with all others together; the second likeliest alone is meant": lambda p, r: (
            (p.amax() / (1 - p.amax())).log().item() / math.log(r)
        ),
        "the likeliest is compared with the least likely; the second likeliest is meant": lambda p, r: (
            (p.amax() / p.amin()).log().item() / math.log(r)
        ),
        "the likeliest is compared with certainty, 1: with the second likeliest": lambda p, r: (
            -p.amax().log().item() / math.log(r)
        ),
        "two kinds of logarithm, to the base 2 and to the base e: one kind, above and below the line": lambda p, r: (
            odds_temperature(p, r) / math.log(2)
        ),
        "two kinds of logarithm, to the base e and to the base 2: one kind, above and below the line": lambda p, r: (
            odds_temperature(p, r) * math.log(2)
        ),
        "the quotient of two logarithms, ln p₁ / ln p₂, is not the logarithm of the quotient": lambda p, r: (
            (p.topk(2).values[0].log() / p.topk(2).values[1].log() / math.log(r)).item()
        ),
        "`ln r` is missing: that is the temperature for the ratio e": lambda p, r: (
            odds_temperature(p, r) * math.log(r)
        ),
        ### END SOLUTION
    },
)


def typical_probabilities_mixed(draw, *p):
    return torch.tensor(p, dtype=torch.float64)[draw.uniform(len(p)).argsort()]


def typical_probabilities_case(draw, V, n):
    """n are kept. Several orders that one may take for the typical one keep others."""
    while True:
        p = (1.3 * draw.normal(V, dtype=torch.float64)).softmax(-1)
        H = -(p * p.log()).sum()
        distance = (p.log() + H).abs()
        order = distance.argsort()
        others = (
            -p,
            (p - H).abs(),
            (p.log() + H / math.log(2)).abs(),
            p.log() + H,
            (p - (-H).exp()).abs(),
            (p.log() - p.log().mean()).abs(),
        )
        apart = distance.sort().values.diff().min() > 0.01 and p.min() > 0.01
        share = p[order[:n]].sum().item() - p[order[n - 1]].item() / 2
        kinds = [
            set(ids[p[ids].cumsum(0) - p[ids] < share].tolist())
            for ids in (x.argsort() for x in others)
        ]
        if apart and set(order[:n].tolist()) not in kinds and kinds[2] != kinds[4]:
            return [p.float(), share]


### BEGIN SOLUTION
def typical_probabilities_H(p):
    return torch.special.entr(p).sum()


def typical_probabilities_order(p):
    return (p.log() + typical_probabilities_H(p)).abs().argsort(stable=True)


def typical_probabilities_by(
    p,
    share,
    distance=None,
    keep=lambda held, own, share: held - own < share,
    more=0,
    back=None,
    equals=False,
):
    distance = (p.log() + typical_probabilities_H(p)).abs() if distance is None else distance
    order = distance.argsort(stable=True)
    marks = keep(p[order].cumsum(0), p[order], share)
    marks[: int(marks.sum()) + more] |= more > 0
    kept = (
        torch.zeros_like(marks).index_put((order,), marks) if back is None else back(marks, order)
    )
    kept = distance <= distance[kept].max() if equals else kept
    return p * kept / (p * kept).sum()


### END SOLUTION


exercise(
    typical_probabilities,
    stars=2,
    minutes=8,
    cases=lambda draw: [
        typical_probabilities_case(draw, draw.integer(7, 9), draw.integer(1, 3)),
        [typical_probabilities_mixed(draw, 0.6, 0.2, 0.1, 0.1), draw.number(0.82, 0.88)],
        [typical_probabilities_mixed(draw, 0.6, 0.2, 0.1, 0.1), draw.number(0.05, 0.15)],
        [typical_probabilities_mixed(draw, 0.45, 0.3, *[0.025] * 10), draw.number(0.1, 0.25)],
        [typical_probabilities_mixed(draw, 0.3, *[0.1] * 7), draw.integer(2, 5) / 10 + 0.05],
        [
            torch.tensor(draw.choice([[0, 0.06, 0.04, 0.9], [0, 0.04, 0.06, 0.9]])),
            draw.number(0.4, 0.8),
        ],
        [torch.ones(1), draw.number(0.2, 0.8)],
    ],
    wrong={
        ### BEGIN SOLUTION
        "the likeliest come first, as in top-p; here those whose surprise is nearest to H, above or below": lambda p, share: (
            typical_probabilities_by(p, share, -p)
        ),
        "the least typical come first": lambda p, share: typical_probabilities_by(
            p, share, -(p.log() + typical_probabilities_H(p)).abs().where(p > 0, -math.inf)
        ),
        "the least likely come first: that is the surprise minus H, without its absolute value, turned round": lambda p, share: (
            typical_probabilities_by(p, share, p)
        ),
        "p itself is compared with H; its surprise, -ln p, is to be compared": lambda p, share: (
            typical_probabilities_by(p, share, (p - typical_probabilities_H(p)).abs())
        ),
        "the surprise is in nats and the entropy in bits: one unit for both": lambda p, share: (
            typical_probabilities_by(
                p, share, (p.log() + typical_probabilities_H(p) / math.log(2)).abs()
            )
        ),
        "the surprise is in bits and the entropy in nats: one unit for both": lambda p, share: (
            typical_probabilities_by(p, share, (p.log2() + typical_probabilities_H(p)).abs())
        ),
        "p is compared with e to the power of -H: near in probability is not near in surprise": lambda p, share: (
            typical_probabilities_by(p, share, (p - (-typical_probabilities_H(p)).exp()).abs())
        ),
        "each p ln p is compared with H: the surprise of one character is -ln p, without the p": lambda p, share: (
            typical_probabilities_by(
                p, share, (torch.special.entr(p) - typical_probabilities_H(p)).abs()
            )
        ),
        "the entropy is taken as 0 ln 0 = nan: a probability of 0 adds nothing": lambda p, share: (
            typical_probabilities_by(p, share, (p.log() - (p * p.log()).sum()).abs())
        ),
        "the one that crosses `share` is left out: together they have to hold at least `share`": lambda p, share: (
            typical_probabilities_by(p, share, keep=lambda held, own, share: held <= share)
        ),
        "one too many is kept: the fewest that hold `share`": lambda p, share: (
            typical_probabilities_by(p, share, more=1)
        ),
        "`share` is compared with each probability, not with what they hold together": lambda p, share: (
            typical_probabilities_by(p, share, keep=lambda held, own, share: own >= share)
        ),
        "what is kept sums to less than 1: stretch it": lambda p, share: (
            p * (typical_probabilities(p, share) > 0)
        ),
        "the kept ones are right, but not their probabilities: a softmax takes p for logits": lambda p, share: (
            p.masked_fill(typical_probabilities(p, share) == 0, -math.inf).softmax(-1)
        ),
        "the numbers stand in the order of their distances: back to the places of the alphabet": lambda p, share: (
            typical_probabilities(p, share)[typical_probabilities_order(p)]
        ),
        "the marks went to the wrong places: mark i of the order belongs to the character order[i]": lambda p, share: (
            typical_probabilities_by(p, share, back=lambda marks, order: marks[order])
        ),
        "of equals at the edge all are kept: only the first that are needed": lambda p, share: (
            typical_probabilities_by(p, share, equals=True)
        ),
        "of equals the last come first: they go in the order of the alphabet": lambda p, share: (
            typical_probabilities(p.flip(0), share).flip(0)
        ),
        "True and False for what is kept; wanted are its probabilities": lambda p, share: (
            typical_probabilities(p, share) > 0
        ),
        ### END SOLUTION
    },
    signs={
        "number {0} is nan: 0 · ln 0 is nan for a computer, and adds nothing to an entropy": lambda got, want, p, share: (
            got.isnan()
        ),
        "they do not sum to 1": lambda got, want, p, share: abs(got.sum() - 1) > 1e-3,
    },
)


def cache_outgrows_weights_cases(draw):
    """Several texts, blocks and groups; exactly as large at some T; one of each; one character is enough; G = H."""

    def sizes(B, N, G, shared, D, weight_bytes, cache_bytes, T, more):
        one = 2 * B * N * G * D * cache_bytes
        parameters = (T * one + (draw.integer(one // 5, one // 2) if more else 0)) // weight_bytes
        return [parameters, weight_bytes, B, N, G * shared * D, G * shared, G, cache_bytes]

    D, T = draw.choice([16, 24, 40]), draw.integer(500, 900)
    yield sizes(draw.integer(3, 7), draw.integer(5, 9), 3, 4, D, 1, 2, T, True)
    yield sizes(
        draw.integer(2, 5),
        draw.integer(3, 6),
        2,
        draw.integer(2, 5),
        8,
        2,
        4,
        draw.integer(40, 300),
        False,
    )
    yield sizes(1, 1, 1, 1, draw.integer(3, 20), 4, 2, draw.integer(500, 3000), True)
    yield [draw.integer(1, 5), 1, draw.integer(8, 30), 3, 64, 4, 2, 2]
    yield sizes(
        draw.integer(2, 9),
        draw.integer(2, 12),
        4,
        1,
        32,
        4,
        draw.choice([1, 2]),
        draw.integer(100, 999),
        True,
    )


### BEGIN SOLUTION
def cache_outgrows_weights_as(
    change=lambda one, B, N, C, H, G, size: one,
    weights=lambda parameters, size, *more: parameters * size,
    length=lambda all, one: all // one + 1,
):
    def answer(parameters, weight_bytes, B, N, C, H, G, cache_bytes):
        one = change(2 * B * N * G * (C // H) * cache_bytes, B, N, C, H, G, cache_bytes)
        return length(weights(parameters, weight_bytes, cache_bytes, B), one)

    return answer


### END SOLUTION


exercise(
    cache_outgrows_weights,
    stars=2,
    minutes=7,
    cases=lambda draw: list(cache_outgrows_weights_cases(draw)),
    wrong={
        ### BEGIN SOLUTION
        "keys and values are kept, two numbers and not one": cache_outgrows_weights_as(
            lambda one, *_: one // 2
        ),
        "queries are not kept: nobody asks an old question again": cache_outgrows_weights_as(
            lambda one, B, N, C, H, G, size: one + B * N * C * size
        ),
        "queries are not kept, and of keys and values there are only G heads": cache_outgrows_weights_as(
            lambda one, B, N, C, H, G, size: 3 * B * N * C * size
        ),
        "three tensors of G heads: only keys and values are kept": cache_outgrows_weights_as(
            lambda one, *_: one // 2 * 3
        ),
        "every head of queries is given keys and values of its own; there are G of them": cache_outgrows_weights_as(
            lambda one, B, N, C, H, G, size: one // G * H
        ),
        "a head is C / H wide, not C": cache_outgrows_weights_as(
            lambda one, B, N, C, H, G, size: one // (C // H) * C
        ),
        "one head of keys and values is counted, not G": cache_outgrows_weights_as(
            lambda one, B, N, C, H, G, size: one // G
        ),
        "the texts share the weights, but each has a cache of its own: B counts for the cache, and for it alone": cache_outgrows_weights_as(
            lambda one, B, *_: one // B
        ),
        "each of the N blocks keeps keys and values": cache_outgrows_weights_as(
            lambda one, B, N, *_: one // N
        ),
        "the numbers of the cache are counted, not their bytes": cache_outgrows_weights_as(
            lambda one, B, N, C, H, G, size: one // size
        ),
        "the parameters are counted, not their bytes": cache_outgrows_weights_as(
            weights=lambda parameters, *_: parameters
        ),
        "numbers are compared, not bytes: one of the weights may take more or fewer than one of the cache": cache_outgrows_weights_as(
            weights=lambda parameters, size, other, B: parameters * other
        ),
        "there the cache is not yet larger than the weights": cache_outgrows_weights_as(
            length=lambda all, one: all // one
        ),
        "where both are equal, the cache is not yet larger": cache_outgrows_weights_as(
            length=lambda all, one: -(-all // one)
        ),
        "a cache grows with T; the weights of attention, T by T, are not kept": cache_outgrows_weights_as(
            lambda one, B, N, C, H, G, size: B * N * H * size,
            length=lambda all, one: math.isqrt(all // one) + 1,
        ),
        "a text has a whole number of characters": lambda parameters, weight_bytes, B, N, C, H, G, cache_bytes: (
            parameters * weight_bytes / (2 * B * N * G * (C // H) * cache_bytes)
        ),
        "a text has a whole number of characters, and `/` gives none": lambda parameters, weight_bytes, B, N, C, H, G, cache_bytes: (
            parameters * weight_bytes / (2 * B * N * G * (C // H) * cache_bytes) + 1
        ),
        ### END SOLUTION
    },
)


def mended_pads_case(draw, lengths, zero=True, V=6, C=4, dtype=torch.float32):
    """zero: in each prompt of two or more, character 0 stands somewhere before the end."""
    prompts = [1 + draw.ids(V - 1, T) for T in lengths]
    for prompt in prompts:
        if zero and len(prompt) > 1:
            prompt[draw.integer(0, len(prompt) - 2)] = 0
    return [1.2 * draw.normal(V, C, dtype=dtype), 1.2 * draw.normal(8, C, dtype=dtype), prompts]


### BEGIN SOLUTION
def mended_pads_as(
    where=lambda N, pads: (torch.arange(N) - pads).clamp(min=0),
    hide=lambda idx, N, pads: torch.arange(N) < pads,
    fill=-math.inf,
    after=False,
    root=lambda x: x.shape[-1] ** 0.5,
    last=-1,
):
    def answer(E, P, prompts):
        N = max(len(prompt) for prompt in prompts)
        pads = torch.tensor([N - len(prompt) for prompt in prompts])[:, None]
        idx = torch.stack([F.pad(prompt, (N - len(prompt), 0)) for prompt in prompts])
        x = E[idx] + P[where(N, pads)]
        hidden, scores = hide(idx, N, pads)[:, None], x[:, last][:, None] @ x.mT / root(x)
        weights = (scores if after else scores.masked_fill(hidden, fill)).softmax(-1)
        return ((weights.masked_fill(hidden, 0) if after else weights) @ x)[:, 0]

    return answer


def mended_pads_old_places(N, pads):
    return torch.arange(N).expand(len(pads), N)


def mended_pads_old_mask(idx, N, pads):
    return idx == 0


### END SOLUTION


exercise(
    mended_pads,
    stars=2,
    minutes=8,
    atol=5e-5,
    cases=lambda draw: [
        mended_pads_case(draw, [draw.integer(5, 8), draw.integer(2, 4), 3]),
        mended_pads_case(draw, [1], dtype=torch.float64),
        mended_pads_case(draw, [4, 4], dtype=torch.float64),
        mended_pads_case(draw, [1, draw.integer(4, 8), 2], zero=False),
        mended_pads_case(draw, [draw.integer(2, 3), 1, 8, draw.integer(4, 6)], V=4, C=3),
        [
            *mended_pads_case(draw, [])[:2],
            [
                torch.tensor([0]),
                torch.tensor([draw.integer(1, 5), 0, 0]),
                torch.tensor([0, draw.integer(1, 5)]),
            ],
        ],
    ],
    wrong={
        ### BEGIN SOLUTION
        "nothing is mended yet: from where does a short prompt count its places, and which places are empty?": mended_pads_as(
            mended_pads_old_places, mended_pads_old_mask
        ),
        "the places are right now; character 0 is hidden in the prompts, too: what is empty, no character can tell": mended_pads_as(
            hide=mended_pads_old_mask
        ),
        "the mask is right now, but a short prompt still does not count its places from its own first character": mended_pads_as(
            mended_pads_old_places
        ),
        "the places are right; nothing is hidden, so the empty places are looked at": mended_pads_as(
            hide=lambda idx, N, pads: torch.zeros_like(idx).bool()
        ),
        "the places are as they were, and now the empty places are looked at": mended_pads_as(
            mended_pads_old_places, lambda idx, N, pads: torch.zeros_like(idx).bool()
        ),
        "the hidden places get the score 0, and e^0 = 1 is a weight": mended_pads_as(fill=0),
        "what is hidden is taken out after the softmax: the other weights then sum to less than 1": mended_pads_as(
            after=True
        ),
        "the first character of each prompt is hidden with the empty places": mended_pads_as(
            hide=lambda idx, N, pads: torch.arange(N) <= pads
        ),
        "the last of the empty places is still seen": mended_pads_as(
            hide=lambda idx, N, pads: torch.arange(N) < pads - 1
        ),
        "the mask is for empty places behind the prompts: they stand in front": mended_pads_as(
            hide=lambda idx, N, pads: torch.arange(N) >= N - pads
        ),
        "as many places are hidden as the prompt has characters: as many as are empty": mended_pads_as(
            hide=lambda idx, N, pads: torch.arange(N) < N - pads
        ),
        "the places go the wrong way: the empty ones are subtracted, not added": mended_pads_as(
            lambda N, pads: (torch.arange(N) + pads).clamp(max=7)
        ),
        "the places are counted from the end: a prompt's first character has the place 0": mended_pads_as(
            lambda N, pads: (N - 1 - torch.arange(N)).expand(len(pads), N)
        ),
        "the first character of a prompt gets the place 1, and 0 is right": mended_pads_as(
            lambda N, pads: (torch.arange(N) - pads + 1).clamp(0, 7)
        ),
        "the first character of a padded prompt gets the place 1, and 0 is right; the empty ones were counted as one": mended_pads_as(
            lambda N, pads: (torch.arange(N) - pads + (pads > 0)).clamp(0, 7)
        ),
        "all characters get place 0": mended_pads_as(
            lambda N, pads: 0 * mended_pads_old_places(N, pads)
        ),
        "the empty places of the first prompt are used for all": lambda E, P, prompts: (
            mended_pads_as(
                lambda N, pads: (torch.arange(N) - pads[:1]).clamp(min=0).expand(len(pads), N),
                lambda idx, N, pads: (torch.arange(N) < pads[:1]).expand_as(idx),
            )(E, P, prompts)
        ),
        "the first place asks; the last one should": mended_pads_as(last=0),
        ### END SOLUTION
    },
    signs={
        "the vector of prompt {0} is nan: everything is hidden from it, even itself": lambda got, want, *args: (
            got.isnan().any(-1)
        ),
    },
)


def speculative_write_case(draw, K, V, stop, low, dtype=torch.float32):
    """Draft `stop` is the first refused, K: none. low: p/q of those accepted is mostly below 1, but above u.

    The new character is none that argmax gives, or the throw that refused, or a draw from p.
    """
    within = [
        (0.3, 0.8) if k == stop else (0.5, 0.9) if low and k % 2 == 0 else (1.1, math.inf)
        for k in range(K)
    ]
    while True:
        p = (1.3 * draw.normal(K + 1, V, dtype=torch.float64)).softmax(-1)
        q = (1.3 * draw.normal(K, V, dtype=torch.float64)).softmax(-1)
        fit = [
            ((row > low) & (row < high)).nonzero().flatten().tolist()
            for row, (low, high) in zip(p[:K] / q, within)
        ]
        if not all(fit) or p.min() < 0.01:
            continue
        draft = torch.tensor([draw.choice(some) for some in fit], dtype=torch.int64)
        chosen = p[torch.arange(K), draft]
        ratio = chosen / q[torch.arange(K), draft]
        u = ratio.clamp(max=0.95) * draw.uniform(K).clamp(0.85, 0.97)
        u[:1] = u[:1] if low else chosen[:1] / 2
        u[stop : stop + 1] = (0.15 + ratio[stop : stop + 1]) / 1.15
        last = (
            (p[stop] - q[stop]).clamp(min=0) / (p[stop] - q[stop]).clamp(min=0).sum()
            if stop < K
            else p[K]
        )
        ends = last.cumsum(0)
        middles, bad = ends - last / 2, {last.argmax().item()}
        if stop < K:
            bad |= {(ends <= u[stop]).sum().item()}
        free = [
            c
            for c in (last > 0.04).nonzero().flatten().tolist()
            if c not in bad and (stop == K or c != (p[stop].cumsum(0) <= middles[c]).sum())
        ]
        if free:
            return [p.to(dtype), q.to(dtype), draft, u.to(dtype), middles[draw.choice(free)].item()]


def speculative_write_cases(draw):
    K, V = draw.integer(2, 4), draw.integer(4, 6)
    yield speculative_write_case(draw, 4, 5, draw.integer(1, 2), True)
    yield speculative_write_case(draw, 1, 4, 0, True)
    yield speculative_write_case(draw, K, V, K, True, torch.float64)
    yield speculative_write_case(draw, K, V, K, False)
    yield speculative_write_case(draw, 0, draw.integer(3, 6), 0, False)
    yield speculative_write_case(draw, 3, draw.integer(5, 8), 2, True, torch.float64)
    yield speculative_write_case(draw, 5, 5, draw.integer(0, 3), True)


### BEGIN SOLUTION
def speculative_write_as(
    p,
    q,
    draft,
    u,
    w,
    accept=lambda u, p, q: u < p / q,
    rest=lambda p, q, d: (p - q).clamp(min=0),
    norm=lambda rest: rest / rest.sum(),
    go_on=False,
    keep=0,
    more=True,
    end=lambda p, q: p[-1],
    throw=lambda last, w, u: (last.cumsum(0) <= w).sum(),
):
    ids, last = [], None
    for k, d in enumerate(draft.tolist()):
        if accept(u[k], p[k, d], q[k, d]):
            ids.append(d)
            continue
        last = norm(rest(p[k], q[k], d))
        ids += [d] * keep + [int(throw(last, w, u[k]))]
        if not go_on:
            return [torch.tensor(ids), last]
    if more:
        last = end(p, q)
        ids.append(int(throw(last, w, None)))
    return [torch.tensor(ids, dtype=torch.int64), p[max(len(q) - 1, 0)] if last is None else last]


### END SOLUTION


exercise(
    speculative_write,
    stars=3,
    minutes=18,
    cases=lambda draw: list(speculative_write_cases(draw)),
    wrong={
        ### BEGIN SOLUTION
        "after a refusal it draws from p again: what was accepted before is then there too often": lambda *args: (
            speculative_write_as(*args, rest=lambda p, q, d: p)
        ),
        "after a refusal it draws from q: the small model has no say any more": lambda *args: (
            speculative_write_as(*args, rest=lambda p, q, d: q)
        ),
        "after a refusal it draws from p without the draft: others may have been drafted too often as well": lambda *args: (
            speculative_write_as(*args, rest=lambda p, q, d: p * (torch.arange(len(p)) != d))
        ),
        "p and q are exchanged in the rest: missing is where p is larger": lambda *args: (
            speculative_write_as(*args, rest=lambda p, q, d: (q - p).clamp(min=0))
        ),
        "|p - q| holds also what came too often: only what is missing, where p is larger": lambda *args: (
            speculative_write_as(*args, rest=lambda p, q, d: (p - q).abs())
        ),
        "p - q is below 0 where the small model drafts too often: there nothing is missing": lambda *args: (
            speculative_write_as(*args, rest=lambda p, q, d: p - q, norm=lambda rest: rest)
        ),
        "what is missing does not sum to 1 yet, and the throw w goes from 0 to 1": lambda *args: (
            speculative_write_as(*args, norm=lambda rest: rest)
        ),
        "what is missing is divided by its sum, not put through a softmax: that gives some to all": lambda *args: (
            speculative_write_as(*args, norm=lambda rest: rest.softmax(-1))
        ),
        "a softmax of p - q gives some to all; where nothing is missing, nothing may be drawn": lambda *args: (
            speculative_write_as(
                *args, rest=lambda p, q, d: p - q, norm=lambda rest: rest.softmax(-1)
            )
        ),
        "a quotient p / q is drawn from; what is missing is a difference": lambda *args: (
            speculative_write_as(*args, rest=lambda p, q, d: p / q)
        ),
        "it accepts with the probability p: drafts came with q already, so p / q": lambda *args: (
            speculative_write_as(*args, accept=lambda u, p, q: u < p)
        ),
        "it accepts with q / p: the other way round, p / q": lambda *args: speculative_write_as(
            *args, accept=lambda u, p, q: u < q / p
        ),
        "it accepts where p is at least q, and throws no dice; below, the share p / q has to be accepted": lambda *args: (
            speculative_write_as(*args, accept=lambda u, p, q: p >= q)
        ),
        "it accepts with 1 - p / q: u has to be smaller than the quotient, not larger": lambda *args: (
            speculative_write_as(*args, accept=lambda u, p, q: u >= p / q)
        ),
        "everything is accepted": lambda *args: speculative_write_as(
            *args, accept=lambda u, p, q: True
        ),
        "nothing is accepted": lambda *args: speculative_write_as(
            *args, accept=lambda u, p, q: False
        ),
        "it goes on after a refusal: the drafts that follow were written after another character": lambda *args: (
            speculative_write_as(*args, go_on=True)
        ),
        "the refused draft stays in the text: the new character takes its place": lambda *args: (
            speculative_write_as(*args, keep=1)
        ),
        "where all are accepted, one character more is drawn, from the last p": lambda *args: (
            speculative_write_as(*args, more=False)
        ),
        "the last character is drawn from the p of the last draft; the large model knows one place more": lambda *args: (
            speculative_write_as(*args, end=lambda p, q: p[max(len(q) - 1, 0)])
        ),
        "the new character is the likeliest; it has to be drawn, with w": lambda *args: (
            speculative_write_as(*args, throw=lambda last, w, u: last.argmax())
        ),
        "the throw that refused is used again; it is known to be large, so it is no fair throw: w": lambda *args: (
            speculative_write_as(
                *args,
                throw=lambda last, w, u: (
                    (last.cumsum(0) <= (w if u is None else u)).sum().clamp(max=len(last) - 1)
                ),
            )
        ),
        "only the new character is returned: the accepted drafts stand before it": lambda *args: [
            speculative_write(*args)[0][-1:],
            speculative_write(*args)[1],
        ],
        "the ids are right; `last` is the large model's distribution, which was not drawn from": lambda *args: [
            (ids := speculative_write(*args)[0]),
            args[0][len(ids) - 1],
        ],
        ### END SOLUTION
    },
    signs={
        "`last` has a negative number, {0}: where the small model drafts too often, nothing is missing": lambda got, want, *args: (
            got[1] < -1e-6
        ),
        "`last` does not sum to 1": lambda got, want, *args: abs(got[1].sum() - 1) > 1e-3,
    },
)
