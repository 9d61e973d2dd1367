"""How the exercises of lesson 01 are judged: cases, mistakes, symptoms."""

import math

import torch

from chargpt_lib.exercises.answers.bigram import (
    additive_smoothing,
    count_skip_pairs,
    kneser_ney,
    sample_chain,
    unseen_pair_nats,
)
from chargpt_lib.exercises.judge import exercise


### BEGIN SOLUTION
def count_skip_pairs_of(first, second, vocab_size):
    return torch.bincount(first * vocab_size + second, minlength=vocab_size**2).view(
        vocab_size, vocab_size
    )


### END SOLUTION


exercise(
    count_skip_pairs,
    stars=1,
    minutes=4,
    cases=lambda draw: (
        [
            [draw.ids(V, N), V, gap]
            for N, V, gap in (
                (draw.integer(40, 90), draw.integer(3, 6), 2),
                (draw.integer(40, 90), draw.integer(7, 9), draw.integer(3, 5)),
                (draw.integer(20, 40), 5, 1),
                (1, 3, 1),
                (3, 4, draw.integer(4, 7)),
            )
        ]
        + [[draw.ids(3, 6), 4, 5]]
    ),
    wrong={
        ### BEGIN SOLUTION
        "rows and columns are exchanged: the row is the character that comes first": lambda ids, V, gap: (
            count_skip_pairs_of(ids[gap:], ids[:-gap], V)
        ),
        "the pairs stand one place too far apart: a gap of 1 means neighbours": lambda ids, V, gap: (
            count_skip_pairs_of(ids[: -gap - 1], ids[gap + 1 :], V)
        ),
        "`gap` is not used: these are the neighbours": lambda ids, V, gap: count_skip_pairs_of(
            ids[:-1], ids[1:], V
        ),
        "only every gap-th character is read; every character has a partner gap places further on": lambda ids, V, gap: (
            count_skip_pairs_of(ids[::gap][:-1], ids[::gap][1:], V)
        ),
        "the end of the text is paired with its beginning: roll goes round in a circle": lambda ids, V, gap: (
            count_skip_pairs_of(ids, ids.roll(-gap), V)
        ),
        "all distances up to the gap are counted, and only the gap itself is wanted": lambda ids, V, gap: (
            sum(count_skip_pairs_of(ids[:-g], ids[g:], V) for g in range(1, gap + 1))
        ),
        "the last pair is missing: the text of N ids has N - gap pairs": lambda ids, V, gap: (
            count_skip_pairs_of(ids[: -gap - 1], ids[gap:-1], V)
        ),
        "the end of the text is paired with its beginning: ids[t - gap] needs a t of at least gap": lambda ids, V, gap: (
            count_skip_pairs_of(ids[torch.arange(len(ids)) - gap], ids, V)
        ),
        "bincount stops at the largest number that occurs: say `minlength`, so that there are V² counts": lambda ids, V, gap: (
            torch.bincount(ids[:-gap] * V + ids[gap:]).view(V, V)
        ),
        "every pair is counted in both directions": lambda ids, V, gap: (
            count_skip_pairs_of(ids[gap:], ids[:-gap], V)
            + count_skip_pairs_of(ids[:-gap], ids[gap:], V)
        ),
        ### END SOLUTION
    },
    signs={
        "at [{0}, {1}] stands 1 for a pair that occurs more often: with an index, `+= 1` counts a pair only once": lambda got, want, *args: (
            (got != want) & (got.max() == 1) & torch.equal(got, want.clamp_max(1))
        ),
    },
)


exercise(
    additive_smoothing,
    stars=2,
    minutes=6,
    cases=lambda draw: [
        [draw.ids(9, V, V) * draw.ids(3, V, V), draw.choice(amounts)]
        for V, amounts in (
            (draw.integer(3, 5), [0.01, 0.5]),
            (draw.integer(6, 9), [0.1, 2.0]),
            (2, [0.3]),
            (1, [0.01, 1.0]),
        )
    ],
    wrong={
        ### BEGIN SOLUTION
        "the bug is still there: column b is divided by the sum of row b. Sums of shape (V, 1) would be right": lambda counts, amount: (
            (counts + amount) / (counts + amount).sum(1)
        ),
        "columns sum to 1, not rows: that answers what came before": lambda counts, amount: (
            (counts + amount) / (counts + amount).sum(0)
        ),
        "each row is divided by the sum of a column": lambda counts, amount: (
            (counts + amount) / (counts + amount).sum(0)[:, None]
        ),
        "the whole table sums to 1, and each row should": lambda counts, amount: (
            (counts + amount) / (counts + amount).sum()
        ),
        "the amount is added to the probabilities, and should be added to the counts": lambda counts, amount: (
            counts / counts.sum(1, keepdim=True) + amount
        ),
        "the rows are divided by the sums of the old counts: what is added counts below the line too": lambda counts, amount: (
            (counts + amount) / counts.sum(1, keepdim=True)
        ),
        "below the line the amount is added once, but each of the V counts of a row got it": lambda counts, amount: (
            (counts + amount) / (counts.sum(1, keepdim=True) + amount)
        ),
        "the amount is not added anywhere": lambda counts, amount: (
            counts / counts.sum(1, keepdim=True)
        ),
        "that is the softmax of the counts: divide by the row's sum, without exponentials": lambda counts, amount: (
            (counts + amount).softmax(1)
        ),
        "1 is added to each count, not `amount`": lambda counts, amount: (
            (counts + 1) / (counts + 1).sum(1, keepdim=True)
        ),
        "0.01 is added to each count, not `amount`": lambda counts, amount: (
            (counts + 0.01) / (counts + 0.01).sum(1, keepdim=True)
        ),
        "the amount is added only where the count is 0; it is added to every count": lambda counts, amount: (
            torch.where(counts == 0, amount, counts)
            / torch.where(counts == 0, amount, counts).sum(1, keepdim=True)
        ),
        "the result is transposed: P(b | a) stands in row a, column b": lambda counts, amount: (
            ((counts + amount) / (counts + amount).sum(1, keepdim=True)).T
        ),
        ### END SOLUTION
    },
    signs={
        "at [{0}, {1}] a pair that never occurred got 0: its price would be infinite": lambda got, want, counts, amount: (
            got == 0
        ),
    },
)


exercise(
    unseen_pair_nats,
    stars=2,
    minutes=5,
    cases=lambda draw: [
        [draw.integer(200, 90_000), draw.integer(20, 100), draw.number(0.01, 0.05)],
        [draw.integer(1, 20), draw.integer(20, 100), draw.number(0.2, 0.8)],
        [draw.integer(20, 90), draw.integer(2, 9), draw.number(1.5, 3)],
        [0, draw.integer(20, 100), draw.number(0.01, 0.5)],
    ],
    wrong={
        ### BEGIN SOLUTION
        "below the line the amount is added once; all V counts got it": lambda seen, V, amount: (
            math.log((seen + amount) / amount)
        ),
        "that is the probability; the price is minus its logarithm": lambda seen, V, amount: (
            amount / (seen + amount * V)
        ),
        "1 is added to each count there, not `amount`": lambda seen, V, amount: math.log(seen + V),
        "below the line `amount` is missing: each of the V counts got the amount, not 1": lambda seen, V, amount: (
            math.log((seen + V) / amount)
        ),
        "that is ln V, as if nothing had been counted": lambda seen, V, amount: math.log(V),
        "the amount is shared out (or seen is multiplied by V): each of the V counts gets it whole, beside seen": lambda seen, V, amount: (
            math.log((seen + amount) / (amount / V))
        ),
        "that is the price of the new row's sum; the amount stands above the line, not 1": lambda seen, V, amount: (
            math.log(seen + amount * V)
        ),
        "b's own count, a 0, got the amount too: below the line are V amounts, not V - 1": lambda seen, V, amount: (
            math.log((seen + amount * (V - 1)) / amount)
        ),
        "above the line stands b's own count, a 0, and the amount; `seen` counts the others": lambda seen, V, amount: (
            math.log((seen + amount * V) / (seen + amount))
        ),
        ### END SOLUTION
    },
    signs={
        "the sign is wrong: the logarithm of a probability is below 0, its price above": lambda got, want, *args: (
            math.isclose(got, -want, rel_tol=1e-4)
        ),
        "these are bits: nats use the natural logarithm": lambda got, want, *args: math.isclose(
            got * math.log(2), want, rel_tol=1e-4
        ),
        "that is the logarithm to the base 10: nats use the natural one": lambda got, want, *args: (
            math.isclose(got * math.log(10), want, rel_tol=1e-4)
        ),
        "the row's sum is the old one: the V added amounts belong to it": lambda got, want, seen, V, amount: (
            math.isclose(got, math.log(seen / amount), rel_tol=1e-4)
        ),
        "seen never, a row has V equal amounts, and each costs ln V: yours does not": lambda got, want, seen, *args: (
            seen == 0
        ),
    },
)


def sample_chain_case(draw, V, T, dtype):
    """Probabilities in 64ths, numbers halfway between 64ths: exact, and never on a border. Columns sum to 1 too."""
    most, more = draw.integer(30, 36), draw.integer(16, 22)
    table = sum(
        n * torch.eye(V, dtype=dtype)[draw.random.sample(range(V), V)]
        for n in (most, more, 64 - most - more)
    )
    return [table / 64, draw.integer(0, V - 1), ((draw.ids(64, T) + 0.5) / 64).to(dtype)]


### BEGIN SOLUTION
def sample_chain_variant(probabilities, start, uniforms, choose=None, again=True, back=1):
    """The same, with another choice from the row, or from an earlier row: a mistake for each."""
    written = [start]
    for u in uniforms:
        row = probabilities[written[-min(back, len(written))] if again else start]
        written.append(int(choose(row, u) if choose else (row.cumsum(0) < u).sum()))
    return torch.tensor(written[1:])


def sample_chain_unbroken(probabilities, start, uniforms):
    """Writes every id whose stretch ends beyond the number."""
    written = []
    for u in uniforms:
        beyond = (probabilities[start].cumsum(0) > u).nonzero().flatten().tolist()
        written, start = written + beyond, beyond[-1]
    return torch.tensor(written)


### END SOLUTION


exercise(
    sample_chain,
    stars=2,
    minutes=10,
    cases=lambda draw: [
        sample_chain_case(draw, draw.integer(5, 8), draw.integer(20, 30), torch.float32),
        sample_chain_case(draw, draw.integer(9, 12), draw.integer(20, 30), torch.float64),
        sample_chain_case(draw, draw.integer(5, 8), draw.integer(20, 30), torch.float32),
        *(
            sample_chain_case(draw, V, 1, torch.float32)
            for V in (draw.integer(4, 6), 7, draw.integer(8, 9))
        ),
    ],
    wrong={
        ### BEGIN SOLUTION
        "the most probable id is taken each time: the numbers are not used": lambda p, start, us: (
            sample_chain_variant(p, start, us, lambda row, u: row.argmax())
        ),
        "every id is thrown by the row of `start`: after a throw, the row is that of the new id": lambda p, start, us: (
            sample_chain_variant(p, start, us, again=False)
        ),
        "columns are laid end to end, not rows: what follows a stands in row a": lambda p, start, us: (
            sample_chain_variant(p.T, start, us)
        ),
        "the ids are laid out from the most probable to the least; their own order is wanted": lambda p, start, us: (
            sample_chain_variant(
                p,
                start,
                us,
                lambda row, u: row.argsort(descending=True, stable=True)[
                    (row.sort(descending=True, stable=True).values.cumsum(0) < u).sum()
                ],
            )
        ),
        "that is an id with equal chances for all: the probabilities are not used": lambda p, start, us: (
            sample_chain_variant(p, start, us, lambda row, u: u * len(row))
        ),
        "`start` is in the answer, and only what comes after it is wanted": lambda p, start, us: (
            torch.cat([torch.tensor([start]), sample_chain_variant(p, start, us)])
        ),
        "`start` is in the answer, and the last id is missing": lambda p, start, us: torch.cat(
            [torch.tensor([start]), sample_chain_variant(p, start, us)]
        )[:-1],
        "the ends of stretches that lie beyond u are counted, not those before it": lambda p, start, us: (
            sample_chain_variant(p, start, us, lambda row, u: (row.cumsum(0) > u).sum())
        ),
        "one id too low: the last stretch that ends before u is taken, not the one after it": lambda p, start, us: (
            sample_chain_variant(
                p, start, us, lambda row, u: ((row.cumsum(0) < u).sum() - 1).clamp(0)
            )
        ),
        "the first id that is alone more probable than u is taken: add up the probabilities": lambda p, start, us: (
            sample_chain_variant(p, start, us, lambda row, u: (row > u).int().argmax())
        ),
        "one id too high: the stretch after the one that u points at is taken": lambda p, start, us: (
            sample_chain_variant(p, start, us, lambda row, u: (row.cumsum(0) < u).sum() + 1)
        ),
        "the probabilities are added up down the columns of the table: add up along a row": lambda p, start, us: (
            sample_chain_variant(p.cumsum(0), start, us, lambda row, u: (row < u).sum())
        ),
        "the ruler is filled from its end: id 0 owns the first stretch, not the last": lambda p, start, us: (
            sample_chain_variant(p, start, us, lambda row, u: (row.cumsum(0) < 1 - u).sum())
        ),
        "the ruler is laid from the last id to the first; id 0 owns the first stretch": lambda p, start, us: (
            sample_chain_variant(
                p, start, us, lambda row, u: len(row) - 1 - (row.flip(0).cumsum(0) < u).sum()
            )
        ),
        "several ids are written for one number: stop at the first stretch that ends beyond u": sample_chain_unbroken,
        "the row is one throw late: the id after this one is thrown by the row of this one": lambda p, start, us: (
            sample_chain_variant(p, start, us, back=2)
        ),
        ### END SOLUTION
    },
    signs={
        "one id too high: at index {0} it takes the stretch after the one that u points at": lambda got, want, p, start, us: (
            len(us) > 1
            and (got != want)
            & torch.isin(
                got
                - (p[torch.cat([torch.tensor([start]), got[:-1]])].cumsum(1) < us[:, None]).sum(1),
                torch.tensor([1, 0, 1 - len(p)]),
            ).all()
        ),
        "the id written at index {0} has the probability 0 there: is it the right row, and the right stretch?": lambda got, want, p, start, us: (
            p[torch.cat([torch.tensor([start]), got[:-1]]), got] == 0
        ),
    },
)


def kneser_ney_case(draw, V, N):
    """Skewed ids: frequent symbols with few neighbours, and a last symbol that never occurs."""
    ids = draw.ids(V - 1, N) * draw.ids(2, N)
    return [torch.cat([ids, torch.tensor([1, 2] * draw.integer(5, 9))]), V, draw.number(0.2, 0.9)]


### BEGIN SOLUTION
def kneser_ney_variant(
    ids,
    V,
    D,
    shorter=lambda counts, seen: seen.sum(0) / seen.sum(),
    longer=None,
    kinds=None,
    total=None,
):
    """The same, with another shorter table, numerator, number of kinds or total: a mistake for each."""
    counts = torch.bincount(ids[:-1] * V + ids[1:], minlength=V**2).double().view(V, V)
    seen, total = (counts > 0).double(), total(counts) if total else counts.sum(1, keepdim=True)
    below = shorter(counts, seen)
    share = D * (kinds(seen) if kinds else seen.sum(1, keepdim=True)) / total
    main = (longer(counts) if longer else (counts - D).clamp_min(0)) / total
    return torch.where(total > 0, main + share * below, below)


### END SOLUTION


exercise(
    kneser_ney,
    stars=3,
    minutes=25,
    cases=lambda draw: (
        [
            kneser_ney_case(draw, V, N)
            for V, N in (
                (draw.integer(5, 7), draw.integer(20, 40)),
                (draw.integer(8, 10), draw.integer(20, 60)),
            )
        ]
        + [
            [torch.tensor([1, 0]), 3, draw.number(0.2, 0.9)],
            [torch.tensor([0, 0]), 1, draw.number(0.2, 0.9)],
        ]
    ),
    wrong={
        ### BEGIN SOLUTION
        "the shorter table is how often b occurs; wanted is after how many different symbols": lambda *args: (
            kneser_ney_variant(*args, lambda counts, seen: counts.sum(0) / counts.sum())
        ),
        "the shorter table is how often b occurs; wanted is the number of different symbols before it": lambda ids, V, D: (
            kneser_ney_variant(
                ids, V, D, lambda counts, seen: torch.bincount(ids, minlength=V).double() / len(ids)
            )
        ),
        "e counts the symbols after b, and those before it are wanted: columns, not rows": lambda *args: (
            kneser_ney_variant(*args, lambda counts, seen: seen.sum(1) / seen.sum())
        ),
        "the shorter table is 1 / V: wanted is e / E": lambda ids, V, D: kneser_ney_variant(
            ids, V, D, lambda counts, seen: torch.full((V,), 1 / V).double()
        ),
        "e is divided by V, and E is the number of different pairs": lambda ids, V, D: (
            kneser_ney_variant(ids, V, D, lambda counts, seen: seen.sum(0) / V)
        ),
        "e is divided by the number of all pairs: E is that of the different ones": lambda *args: (
            kneser_ney_variant(*args, lambda counts, seen: seen.sum(0) / counts.sum())
        ),
        "the discount is not taken off the counts, so rows sum to more than 1": lambda *args: (
            kneser_ney_variant(*args, longer=lambda counts: counts)
        ),
        "nothing is taken from a count of 0: the maximum with 0 is missing": lambda ids, V, D: (
            kneser_ney_variant(ids, V, D, longer=lambda counts: counts - D)
        ),
        "the discount is taken d_a times in each row, and handed out once: d_a is missing": lambda *args: (
            kneser_ney_variant(*args, kinds=lambda seen: 1)
        ),
        "d is taken down the columns: it is how many different symbols follow a, in row a": lambda *args: (
            kneser_ney_variant(*args, kinds=lambda seen: seen.sum(0)[:, None])
        ),
        "d_a is how many different symbols follow a, not V": lambda *args: kneser_ney_variant(
            *args, kinds=len
        ),
        "D is missing in the second part: what is handed out is D times d_a": lambda ids, V, D: (
            kneser_ney_variant(ids, V, D, kinds=lambda seen: seen.sum(1, keepdim=True) / D)
        ),
        "N_a counts the last id too, and it begins no pair: N_a is the sum of row a": lambda ids, V, D: (
            kneser_ney_variant(
                ids, V, D, total=lambda counts: torch.bincount(ids, minlength=V)[:, None]
            )
        ),
        "N_a has the shape (V,), and column b is divided by N_b: a column (V, 1) is needed": lambda *args: (
            kneser_ney_variant(*args, total=lambda counts: counts.sum(1))
        ),
        "N_a and d_a have the shape (V,), so they meet the columns: columns (V, 1) are needed": lambda *args: (
            kneser_ney_variant(
                *args, total=lambda counts: counts.sum(1), kinds=lambda seen: seen.sum(1)
            )
        ),
        "d_a has the shape (V,), so d_b stands in column b: a column (V, 1) is needed": lambda *args: (
            kneser_ney_variant(*args, kinds=lambda seen: seen.sum(1))
        ),
        "the counts are transposed: the first symbol of a pair is the row": lambda ids, V, D: (
            kneser_ney_variant(ids.flip(0), V, D)
        ),
        "e is divided by how many e are not 0; E is the sum of all e": lambda *args: (
            kneser_ney_variant(*args, lambda counts, seen: seen.sum(0) / (seen.sum(0) > 0).sum())
        ),
        "each row is only scaled up to 1 again: what was taken goes to the shorter table": lambda *args: (
            kneser_ney_variant(
                *args,
                kinds=lambda seen: 0,
                total=lambda counts: (counts - args[2]).clamp_min(0).sum(1, keepdim=True),
            )
        ),
        "rows and columns are exchanged: P(b | a) stands in row a": lambda *args: (
            kneser_ney_variant(*args).T
        ),
        ### END SOLUTION
    },
    signs={
        "at [{0}, {1}] stands no number, though something follows {0}: is N_a a column, (V, 1)?": lambda got, want, ids, *args: (
            got.isnan() & torch.isin(torch.arange(len(got)), ids[:-1])[:, None]
        ),
        "row {0} is not a number: nothing follows this symbol, so only the shorter table speaks": lambda got, want, *args: (
            got.isnan().any(1)
        ),
        "at [{0}, {1}] stands a negative probability": lambda got, want, *args: got < 0,
        "row {0} is all 0: nothing follows this symbol, so only the shorter table speaks": lambda got, want, *args: (
            (got == 0).all(1)
        ),
        "row {0} is wrong where nothing follows its symbol: there only the shorter table speaks": lambda got, want, ids, V, D: (
            (torch.bincount(ids[:-1], minlength=V) == 0)
            & ~torch.isclose(got, want).all(1)
            & torch.isclose(got, want)[ids[:-1]].all()
        ),
        "row {0} sums to less than 1: is all that the discount took handed out, and N_a the sum of row a?": lambda got, want, *args: (
            got.sum(1) < 1 - 1e-6
        ),
        "row {0} sums to more than 1: what is handed out must be what the discount took, D from each count not 0": lambda got, want, *args: (
            got.sum(1) > 1 + 1e-6
        ),
    },
)
