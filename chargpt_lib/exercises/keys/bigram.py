"""How the exercises of lesson 01 are judged: cases, symptoms, mistakes."""

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

# ---------------------------------------------------------------- count_skip_pairs


def count_skip_pairs_cases(draw):
    cases = []
    for N, V, gap in (
        (draw.integer(40, 90), draw.integer(3, 6), 2),
        (draw.integer(40, 90), draw.integer(7, 9), draw.integer(3, 5)),
        (draw.integer(20, 40), 5, 1),
        (1, 3, 1),  # as long as the gap, and shorter: no pair
        (3, 4, draw.integer(4, 7)),
    ):
        cases.append([draw.ids(V, N), V, gap])
    cases.append([draw.ids(3, 6), 4, 5])  # one pair, and the id 3 never occurs
    return cases


COUNT_SKIP_PAIRS = exercise(count_skip_pairs, stars=1, minutes=4, cases=count_skip_pairs_cases)


@COUNT_SKIP_PAIRS.symptom(
    "at [{0}, {1}] is 1, but the pair occurs more often: "
    "with tensors a and b, `table[a, b] += 1` counts a repeated pair once"
)
def count_skip_pairs_only_ones(got, want, ids, vocab_size, gap):
    only_ones = torch.equal(got, want.clamp_max(1))
    return (got != want) & (got.max() == 1) & only_ones


### BEGIN SOLUTION
def count_skip_pairs_of(first, second, vocab_size):
    """(N,) and (N,) ids -> (V, V): how often first[n] and second[n] are this pair."""
    pairs = first * vocab_size + second
    return torch.bincount(pairs, minlength=vocab_size**2).view(vocab_size, vocab_size)


@COUNT_SKIP_PAIRS.mistake(
    "rows and columns are exchanged: the row is the character that comes first"
)
def count_skip_pairs_transposed(ids, vocab_size, gap):
    return count_skip_pairs_of(ids[gap:], ids[:-gap], vocab_size)


@COUNT_SKIP_PAIRS.mistake("the gap is one too large: a gap of 1 means neighbours")
def count_skip_pairs_gap_too_large(ids, vocab_size, gap):
    return count_skip_pairs_of(ids[: -gap - 1], ids[gap + 1 :], vocab_size)


@COUNT_SKIP_PAIRS.mistake("the last pair is missing: N ids have N - gap pairs")
def count_skip_pairs_without_the_last(ids, vocab_size, gap):
    return count_skip_pairs_of(ids[: -gap - 1], ids[gap:-1], vocab_size)


@COUNT_SKIP_PAIRS.mistake("the end of the text is paired with its beginning: roll wraps around")
def count_skip_pairs_rolled(ids, vocab_size, gap):
    return count_skip_pairs_of(ids, ids.roll(-gap), vocab_size)


@COUNT_SKIP_PAIRS.mistake(
    "bincount stops at the largest number that occurs: `minlength` makes it V² counts"
)
def count_skip_pairs_without_minlength(ids, vocab_size, gap):
    pairs = ids[:-gap] * vocab_size + ids[gap:]
    return torch.bincount(pairs).view(vocab_size, vocab_size)


### END SOLUTION


# ---------------------------------------------------------------- additive_smoothing


def additive_smoothing_cases(draw):
    cases = []
    for V, amounts in (
        (draw.integer(3, 5), [0.01, 0.5]),
        (draw.integer(6, 9), [0.1, 2.0]),
        (2, [0.3]),
        (1, [0.01, 1.0]),
    ):
        counts = draw.ids(9, V, V) * draw.ids(3, V, V)  # a third of them are 0
        cases.append([counts, draw.choice(amounts)])
    return cases


ADDITIVE_SMOOTHING = exercise(
    additive_smoothing, stars=2, minutes=6, cases=additive_smoothing_cases
)


@ADDITIVE_SMOOTHING.symptom(
    "at [{0}, {1}] is 0 for a pair that never occurred: its loss would be infinite"
)
def additive_smoothing_zero(got, want, counts, amount):
    return got == 0


### BEGIN SOLUTION
@ADDITIVE_SMOOTHING.mistake(
    "the bug is still there: column b is divided by the sum of row b; "
    "the sums need the shape (V, 1)"
)
def additive_smoothing_without_keepdim(counts, amount):
    raised = counts + amount
    return raised / raised.sum(1)


@ADDITIVE_SMOOTHING.mistake(
    "the columns sum to 1: the rows should, since row a holds what follows a"
)
def additive_smoothing_columns(counts, amount):
    raised = counts + amount
    return raised / raised.sum(0)


@ADDITIVE_SMOOTHING.mistake("the amount is added to the probabilities: add it to the counts")
def additive_smoothing_afterwards(counts, amount):
    return counts / counts.sum(1, keepdim=True) + amount


@ADDITIVE_SMOOTHING.mistake(
    "the rows are divided by the sums of the old counts: the added amounts belong to the sums too"
)
def additive_smoothing_old_sums(counts, amount):
    return (counts + amount) / counts.sum(1, keepdim=True)


@ADDITIVE_SMOOTHING.mistake(
    "the denominator has the amount once: each of the V counts of a row got it"
)
def additive_smoothing_one_amount(counts, amount):
    return (counts + amount) / (counts.sum(1, keepdim=True) + amount)


### END SOLUTION


# ---------------------------------------------------------------- unseen_pair_nats


def unseen_pair_nats_cases(draw):
    return [
        [draw.integer(200, 90_000), draw.integer(20, 100), draw.number(0.01, 0.05)],
        [draw.integer(1, 20), draw.integer(20, 100), draw.number(0.2, 0.8)],
        [draw.integer(20, 90), draw.integer(2, 9), draw.number(1.5, 3)],
        [0, draw.integer(20, 100), draw.number(0.01, 0.5)],
    ]


UNSEEN_PAIR_NATS = exercise(unseen_pair_nats, stars=2, minutes=5, cases=unseen_pair_nats_cases)


@UNSEEN_PAIR_NATS.symptom(
    "the sign is wrong: the logarithm of a probability is below 0, a loss above"
)
def unseen_pair_nats_sign(got, want, seen, vocab_size, amount):
    return math.isclose(got, -want, rel_tol=1e-4)


@UNSEEN_PAIR_NATS.symptom("that is in bits: nats use the natural logarithm")
def unseen_pair_nats_bits(got, want, seen, vocab_size, amount):
    return math.isclose(got * math.log(2), want, rel_tol=1e-4)


@UNSEEN_PAIR_NATS.symptom("the row's sum is the old one: the V added amounts belong to it")
def unseen_pair_nats_old_sum(got, want, seen, vocab_size, amount):
    return math.isclose(got, math.log(seen / amount), rel_tol=1e-4)


### BEGIN SOLUTION
@UNSEEN_PAIR_NATS.mistake("the denominator has the amount once: each of the V counts got it")
def unseen_pair_nats_one_amount(seen, vocab_size, amount):
    return -math.log(amount / (seen + amount))


@UNSEEN_PAIR_NATS.mistake("that is the probability: the loss is minus its logarithm")
def unseen_pair_nats_probability(seen, vocab_size, amount):
    return amount / (seen + amount * vocab_size)


@UNSEEN_PAIR_NATS.mistake("the denominator lacks the amount: each of the V counts got it, not 1")
def unseen_pair_nats_one_each(seen, vocab_size, amount):
    return -math.log(amount / (seen + vocab_size))


### END SOLUTION


# ---------------------------------------------------------------- sample_chain


def sample_chain_case(draw, V, T, dtype):
    """Probabilities in 64ths and numbers halfway between 64ths: exact, and never on a border.

    Each row has at most three ids, and the columns sum to 1 too.
    """
    most = draw.integer(30, 36)
    more = draw.integer(16, 22)
    table = torch.zeros(V, V, dtype=dtype)
    for n in (most, more, 64 - most - more):
        permutation = draw.random.sample(range(V), V)
        table += n * torch.eye(V, dtype=dtype)[permutation]
    start = draw.integer(0, V - 1)
    uniforms = (draw.ids(64, T) + 0.5) / 64
    return [table / 64, start, uniforms.to(dtype)]


def sample_chain_cases(draw):
    return [
        sample_chain_case(draw, draw.integer(5, 8), draw.integer(20, 30), torch.float32),
        sample_chain_case(draw, draw.integer(9, 12), draw.integer(20, 30), torch.float64),
        sample_chain_case(draw, draw.integer(5, 8), draw.integer(20, 30), torch.float32),
        sample_chain_case(draw, draw.integer(4, 6), 1, torch.float32),
        sample_chain_case(draw, 7, 1, torch.float32),
        sample_chain_case(draw, draw.integer(8, 9), 1, torch.float32),
    ]


SAMPLE_CHAIN = exercise(sample_chain, stars=2, minutes=10, cases=sample_chain_cases)


@SAMPLE_CHAIN.symptom(
    "the id at index {0} has probability 0 in its row: "
    "is it the wrong row, or an id that is too high or too low?"
)
def sample_chain_impossible(got, want, probabilities, start, uniforms):
    rows = torch.cat([torch.tensor([start]), got[:-1]])
    # an id outside the alphabet, as one too high can be, has probability 0 too
    inside = (rows >= 0) & (rows < len(probabilities)) & (got >= 0) & (got < len(probabilities))
    last = len(probabilities) - 1
    return ~inside | (probabilities[rows.clamp(0, last), got.clamp(0, last)] == 0)


### BEGIN SOLUTION
@SAMPLE_CHAIN.mistake("the most probable id is taken each time: the numbers are not used")
def sample_chain_greedy(probabilities, start, uniforms):
    written = []
    for u in uniforms:
        start = int(probabilities[start].argmax())
        written.append(start)
    return torch.tensor(written)


@SAMPLE_CHAIN.mistake(
    "every id is drawn from the row of `start`: draw the next one from the row of the new id"
)
def sample_chain_one_row(probabilities, start, uniforms):
    written = []
    for u in uniforms:
        written.append(int((probabilities[start].cumsum(0) < u).sum()))
    return torch.tensor(written)


@SAMPLE_CHAIN.mistake("the ids are drawn from columns: what follows a stands in row a")
def sample_chain_columns(probabilities, start, uniforms):
    written = []
    for u in uniforms:
        start = int((probabilities[:, start].cumsum(0) < u).sum())
        written.append(start)
    return torch.tensor(written)


@SAMPLE_CHAIN.mistake("`start` is in the result: only the ids after it are wanted")
def sample_chain_with_start(probabilities, start, uniforms):
    written = [start]
    for u in uniforms:
        row = probabilities[written[-1]]
        written.append(int((row.cumsum(0) < u).sum()))
    return torch.tensor(written)


@SAMPLE_CHAIN.mistake(
    "the first id whose own probability is above u is taken: add the probabilities up first"
)
def sample_chain_without_cumsum(probabilities, start, uniforms):
    written = []
    for u in uniforms:
        above = probabilities[start] > u
        start = int(above.int().argmax())  # 0 where none is above u
        written.append(start)
    return torch.tensor(written)


### END SOLUTION


# ---------------------------------------------------------------- kneser_ney


def kneser_ney_case(draw, V, N):
    """Skewed ids: frequent symbols with few neighbours, and a last symbol that never occurs."""
    ids = draw.ids(V - 1, N) * draw.ids(2, N)
    repeated = torch.tensor([1, 2] * draw.integer(5, 9))
    return [torch.cat([ids, repeated]), V, draw.number(0.2, 0.9)]


def kneser_ney_cases(draw):
    return [
        kneser_ney_case(draw, draw.integer(5, 7), draw.integer(20, 40)),
        kneser_ney_case(draw, draw.integer(8, 10), draw.integer(20, 60)),
        [torch.tensor([1, 0]), 3, draw.number(0.2, 0.9)],
        [torch.tensor([0, 0]), 1, draw.number(0.2, 0.9)],
    ]


KNESER_NEY = exercise(kneser_ney, stars=3, minutes=25, cases=kneser_ney_cases)


@KNESER_NEY.symptom(
    "row {0} is nan: nothing follows this symbol, so the row is that of the shorter table"
)
def kneser_ney_nan(got, want, ids, vocab_size, discount):
    return got.isnan().all(1)


@KNESER_NEY.symptom(
    "row {0} does not sum to 1: is N_a the sum of row a, and all that the discount took handed out?"
)
def kneser_ney_sum(got, want, ids, vocab_size, discount):
    sums_to_one = (got.sum(1) - 1).abs() < 1e-6
    return ~sums_to_one  # nan does not sum to 1 either


### BEGIN SOLUTION
def kneser_ney_counts(ids, vocab_size):
    """(V, V) float64: how often b follows a, in row a, column b."""
    pairs = ids[:-1] * vocab_size + ids[1:]
    counts = torch.bincount(pairs, minlength=vocab_size**2)
    return counts.view(vocab_size, vocab_size).double()


def kneser_ney_with(counts, shorter, discount):
    """The discounted counts, interpolated with a shorter table (V,)."""
    total = counts.sum(1, keepdim=True)
    different = (counts > 0).sum(1, keepdim=True)
    longer = (counts - discount).clamp_min(0) / total
    return torch.where(total > 0, longer + discount * different / total * shorter, shorter)


@KNESER_NEY.mistake(
    "the shorter table uses how often b occurs: e_b is the number of different symbols before b"
)
def kneser_ney_frequencies(ids, vocab_size, discount):
    counts = kneser_ney_counts(ids, vocab_size)
    return kneser_ney_with(counts, counts.sum(0) / counts.sum(), discount)


@KNESER_NEY.mistake("e counts the symbols after b: it should count those before b, down a column")
def kneser_ney_symbols_after(ids, vocab_size, discount):
    counts = kneser_ney_counts(ids, vocab_size)
    different = (counts > 0).double()
    return kneser_ney_with(counts, different.sum(1) / different.sum(), discount)


@KNESER_NEY.mistake("the maximum with 0 is missing: a count of 0 stays 0")
def kneser_ney_negative(ids, vocab_size, discount):
    counts = kneser_ney_counts(ids, vocab_size)
    different = (counts > 0).double()
    shorter = different.sum(0) / different.sum()
    total = counts.sum(1, keepdim=True)
    handed_out = discount * different.sum(1, keepdim=True)
    return torch.where(total > 0, (counts - discount + handed_out * shorter) / total, shorter)


@KNESER_NEY.mistake(
    "N_a has the shape (V,), so column b is divided by N_b: it has to be a column, (V, 1)"
)
def kneser_ney_total_without_keepdim(ids, vocab_size, discount):
    counts = kneser_ney_counts(ids, vocab_size)
    different = (counts > 0).double()
    shorter = different.sum(0) / different.sum()
    total = counts.sum(1)
    longer = (counts - discount).clamp_min(0)
    handed_out = discount * different.sum(1, keepdim=True)
    return torch.where(total > 0, (longer + handed_out * shorter) / total, shorter)


### END SOLUTION
