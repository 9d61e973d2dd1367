"""Lesson 01."""

import math
from bisect import bisect
from collections import Counter, defaultdict
from itertools import accumulate

import torch
from torch.nn import functional as F

from tests.mistakes import right, wrong


def count(first, second, vocab_size):
    return torch.bincount(first * vocab_size + second, minlength=vocab_size**2).view(
        vocab_size, vocab_size
    )


# ---------------------------------------------------------------- count_skip_pairs


@right("count_skip_pairs")
def loop(ids, vocab_size, gap):
    table = torch.zeros(vocab_size, vocab_size, dtype=torch.int64)
    for t in range(gap, len(ids)):
        table[ids[t - gap], ids[t]] += 1
    return table


@right("count_skip_pairs")
def product_of_one_hots(ids, vocab_size, gap):
    chars = F.one_hot(ids, vocab_size)
    return torch.einsum("ta,tb->ab", chars[: max(len(ids) - gap, 0)], chars[gap:])


@right("count_skip_pairs")
def accumulated(ids, vocab_size, gap):
    table = torch.zeros(vocab_size, vocab_size, dtype=torch.int64)
    ones = torch.ones(max(len(ids) - gap, 0), dtype=torch.int64)
    return table.index_put((ids[:-gap], ids[gap:]), ones, accumulate=True)


@wrong("count_skip_pairs", "rows and columns")
def second_in_the_row(ids, vocab_size, gap):
    return count(ids[gap:], ids[:-gap], vocab_size)


@wrong("count_skip_pairs", "a gap of 1 means neighbours")
def gap_between_them(ids, vocab_size, gap):
    table = torch.zeros(vocab_size, vocab_size, dtype=torch.int64)
    for a, b in zip(ids, ids[gap + 1 :]):
        table[a, b] += 1
    return table


@wrong("count_skip_pairs")
def neighbours(ids, vocab_size, gap):
    return count(ids[:-1], ids[1:], vocab_size)


@wrong("count_skip_pairs")
def strided(ids, vocab_size, gap):
    ids = ids[::gap]
    return count(ids[:-1], ids[1:], vocab_size)


@wrong("count_skip_pairs", "the end of the text is paired with its beginning")
def rolled(ids, vocab_size, gap):
    return count(ids, ids.roll(-gap), vocab_size)


@wrong("count_skip_pairs")
def up_to_the_gap(ids, vocab_size, gap):
    return sum(count(ids[:-g], ids[g:], vocab_size) for g in range(1, gap + 1))


@wrong("count_skip_pairs", "with tensors a and b, `table[a, b] += 1` counts a repeated pair once")
def plus_one_at_an_index(ids, vocab_size, gap):
    table = torch.zeros(vocab_size, vocab_size, dtype=torch.int64)
    table[ids[:-gap], ids[gap:]] += 1
    return table


@wrong("count_skip_pairs")
def symmetric(ids, vocab_size, gap):
    table = count(ids[:-gap], ids[gap:], vocab_size)
    return table + table.T


@wrong("count_skip_pairs", "in place")
def numbers_written_over_the_text(ids, vocab_size, gap):
    pairs = ids[:-gap]
    second = ids[gap:].clone()
    pairs *= vocab_size
    pairs += second
    return torch.bincount(pairs, minlength=vocab_size**2).view(vocab_size, vocab_size)


@wrong("count_skip_pairs", "RuntimeError")
def fails_for_short_texts(ids, vocab_size, gap):
    windows = ids.unfold(0, gap + 1, 1)
    return count(windows[:, 0], windows[:, -1], vocab_size)


@wrong("count_skip_pairs", "the last pair is missing")
def stops_too_early(ids, vocab_size, gap):
    table = torch.zeros(vocab_size, vocab_size, dtype=torch.int64)
    for t in range(len(ids) - gap - 1):
        table[ids[t], ids[t + gap]] += 1
    return table


@wrong("count_skip_pairs")
def begins_too_early(ids, vocab_size, gap):
    table = torch.zeros(vocab_size, vocab_size, dtype=torch.int64)
    for t in range(len(ids)):
        table[ids[t - gap], ids[t]] += 1
    return table


@wrong("count_skip_pairs", "`minlength`")
def without_minlength(ids, vocab_size, gap):
    pairs = vocab_size * ids[:-gap] + ids[gap:]
    return pairs.bincount().reshape(vocab_size, vocab_size)


# ---------------------------------------------------------------- additive_smoothing


@right("additive_smoothing")
def row_by_row(counts, amount):
    rows = [[n + amount for n in row] for row in counts.tolist()]
    return torch.tensor([[n / sum(row) for n in row] for row in rows])


@right("additive_smoothing")
def normalized(counts, amount):
    return F.normalize(counts.float() + amount, p=1, dim=1)


@right("additive_smoothing")
def mixture_with_the_uniform(counts, amount):
    """The smoothed row is a weighted mean of the raw shares and 1/V."""
    V, total = len(counts), counts.sum(1, keepdim=True).float()
    weight = total / (total + V * amount)
    return weight * counts / total.clamp_min(1) + (1 - weight) / V


@right("additive_smoothing")
def transposed_twice(counts, amount):
    raised = (counts + amount).T
    return (raised / raised.sum(0)).T


@wrong("additive_smoothing", "the bug is still there")
def no_keepdim(counts, amount):
    p = counts.float() + amount
    return p / p.sum(dim=-1)


@wrong("additive_smoothing", "the rows should, since row a holds what follows a")
def divides_columns(counts, amount):
    p = counts + amount
    return p / p.sum(0, keepdim=True)


@wrong("additive_smoothing")
def column_sums_laid_along_rows(counts, amount):
    p = counts + amount
    return p / p.sum(0).view(-1, 1)


@wrong("additive_smoothing")
def joint(counts, amount):
    p = counts + amount
    return p / p.sum()


@wrong("additive_smoothing", "added to the probabilities")
def amount_added_afterwards(counts, amount):
    return counts / counts.sum(1, keepdim=True) + amount


@wrong("additive_smoothing", "sums of the old counts")
def old_sums(counts, amount):
    return (counts + amount) / counts.sum(1)[:, None]


@wrong("additive_smoothing", "each of the V counts of a row got it")
def amount_once_below(counts, amount):
    return (counts + amount) / (counts.sum(1, keepdim=True) + amount)


@wrong("additive_smoothing", "is 0 for a pair that never occurred")
def forgets_the_amount(counts, amount):
    return counts / counts.sum(1, keepdim=True)


@wrong("additive_smoothing")
def softmax_of_counts(counts, amount):
    return F.softmax(counts.float() + amount, dim=1)


@wrong("additive_smoothing")
def adds_one(counts, amount):
    return (counts + 1) / (counts + 1).sum(1, keepdim=True)


@wrong("additive_smoothing", "would be infinite")
def amount_only_below(counts, amount):
    return counts / (counts + amount).sum(1, keepdim=True)


@wrong("additive_smoothing", "RuntimeError")
def adds_a_fraction_in_place(counts, amount):
    counts += amount
    return counts / counts.sum(1, keepdim=True)


@wrong("additive_smoothing")
def amount_for_zeros_only(counts, amount):
    p = counts.float()
    p[counts == 0] = amount
    return p / p.sum(1, keepdim=True)


@wrong("additive_smoothing")
def adds_a_hundredth(counts, amount):
    p = counts + 0.01
    return p / p.sum(1, keepdim=True)


@wrong("additive_smoothing")
def left_transposed(counts, amount):
    p = (counts + amount).T
    return p / p.sum(0)


# ---------------------------------------------------------------- unseen_pair_nats


@right("unseen_pair_nats")
def price_of_the_new_minus_the_share(seen, vocab_size, amount):
    """ln V for the uniform one, and what the weight of the uniform one costs."""
    return math.log(vocab_size) - math.log(amount * vocab_size / (seen + amount * vocab_size))


@right("unseen_pair_nats")
def by_making_the_row(seen, vocab_size, amount):
    row = torch.zeros(vocab_size, dtype=torch.float64)
    row[0] = seen
    return F.cross_entropy((row + amount).log()[None], torch.tensor([vocab_size - 1])).item()


@right("unseen_pair_nats")
def log1p(seen, vocab_size, amount):
    return math.log(vocab_size) + math.log1p(seen / (amount * vocab_size))


@wrong("unseen_pair_nats", "the denominator has the amount once")
def one_amount_in_the_row(seen, vocab_size, amount):
    return -math.log(amount / (seen + amount))


@wrong("unseen_pair_nats", "minus its logarithm")
def probability_of_the_unseen(seen, vocab_size, amount):
    return amount / (seen + amount * vocab_size)


@wrong("unseen_pair_nats", "the sign is wrong")
def log_without_minus(seen, vocab_size, amount):
    return math.log(amount / (seen + amount * vocab_size))


@wrong("unseen_pair_nats", "bits")
def unseen_in_bits(seen, vocab_size, amount):
    return -math.log2(amount / (seen + amount * vocab_size))


@wrong("unseen_pair_nats")
def unseen_to_the_base_ten(seen, vocab_size, amount):
    return -math.log10(amount / (seen + amount * vocab_size))


@wrong("unseen_pair_nats")
def add_one(seen, vocab_size, amount):
    return -math.log(1 / (seen + vocab_size))


@wrong("unseen_pair_nats", "each of the V counts got it, not 1")
def forgets_to_multiply(seen, vocab_size, amount):
    return -math.log(amount / (seen + vocab_size))


@wrong("unseen_pair_nats")
def always_ln_v(seen, vocab_size, amount):
    return math.log(vocab_size)


@wrong("unseen_pair_nats")
def amount_shared_out(seen, vocab_size, amount):
    return -math.log(amount / vocab_size / (seen + amount))


@wrong("unseen_pair_nats")
def one_above_the_line(seen, vocab_size, amount):
    return -math.log(1 / (seen + amount * vocab_size))


@wrong("unseen_pair_nats", "the V added amounts belong to it")
def old_sum(seen, vocab_size, amount):
    return -math.log(amount / seen) if seen else math.inf


@wrong("unseen_pair_nats", "the V added amounts belong to it")
def old_sum_without_care(seen, vocab_size, amount):
    return -math.log(amount / seen)


@wrong("unseen_pair_nats")
def seen_times_v(seen, vocab_size, amount):
    return -math.log(amount / (seen * vocab_size + amount * vocab_size))


@wrong("unseen_pair_nats")
def amounts_for_the_others(seen, vocab_size, amount):
    return -math.log(amount / (seen + (vocab_size - 1) * amount))


@wrong("unseen_pair_nats")
def price_of_the_only_successor(seen, vocab_size, amount):
    return -math.log((seen + amount) / (seen + vocab_size * amount))


# ---------------------------------------------------------------- sample_chain


@right("sample_chain")
def searched(probabilities, start, uniforms):
    ruler, ids = probabilities.cumsum(1), []
    for u in uniforms:
        start = torch.searchsorted(ruler[start].contiguous(), u, right=True).item()
        ids += [start]
    return torch.tensor(ids)


@right("sample_chain")
def plain_python(probabilities, start, uniforms):
    rulers = [list(accumulate(row)) for row in probabilities.tolist()]
    written = torch.empty(len(uniforms), dtype=torch.int64)
    for t, u in enumerate(uniforms.tolist()):
        start = written[t] = bisect(rulers[start], u)
    return written


@right("sample_chain")
def subtracting(probabilities, start, uniforms):
    written = []
    for u in uniforms.tolist():
        row, i = probabilities[start].tolist(), 0
        while u >= row[i]:
            u -= row[i]
            i += 1
        start = i
        written.append(i)
    return torch.tensor(written)


def walk(probabilities, start, uniforms, choose):
    written = []
    for u in uniforms:
        start = int(choose(probabilities[start], u))
        written.append(start)
    return torch.tensor(written)


@wrong("sample_chain", "the most probable id is taken each time")
def greedy(probabilities, start, uniforms):
    return walk(probabilities, start, uniforms, lambda row, u: row.max(0).indices)


@wrong("sample_chain", "draw the next one from the row of the new id")
def never_moves_on(probabilities, start, uniforms):
    ruler = probabilities[start].cumsum(0)
    return torch.searchsorted(ruler, uniforms)


@wrong("sample_chain", "the ids are drawn from columns")
def walks_the_columns(probabilities, start, uniforms):
    written = []
    for u in uniforms:
        start = int((probabilities[:, start].cumsum(0) < u).sum())
        written.append(start)
    return torch.tensor(written)


@wrong("sample_chain")
def sorted_first(probabilities, start, uniforms):
    def choose(row, u):
        order = sorted(range(len(row)), key=lambda i: -row[i])
        return order[bisect(list(accumulate(row[order].tolist())), u)]

    return walk(probabilities, start, uniforms, choose)


@wrong("sample_chain", "is it the wrong row, or an id that is too high or too low?")
def ignores_the_probabilities(probabilities, start, uniforms):
    return (uniforms * len(probabilities)).long()


@wrong("sample_chain", "only the ids after it are wanted")
def start_included(probabilities, start, uniforms):
    written = [start]
    for u in uniforms:
        written.append(int((probabilities[written[-1]].cumsum(0) < u).sum()))
    return torch.tensor(written)


@wrong("sample_chain", "is it the wrong row, or an id that is too high or too low?")
def appends_too_early(probabilities, start, uniforms):
    written = []
    for u in uniforms:
        written.append(start)
        start = int((probabilities[start].cumsum(0) < u).sum())
    return torch.tensor(written)


@wrong("sample_chain")
def wrong_comparison(probabilities, start, uniforms):
    return walk(probabilities, start, uniforms, lambda row, u: (row.cumsum(0) > u).sum())


@wrong("sample_chain", "is it the wrong row, or an id that is too high or too low?")
def one_too_low(probabilities, start, uniforms):
    return walk(
        probabilities,
        start,
        uniforms,
        lambda row, u: max(torch.searchsorted(row.cumsum(0), u) - 1, 0),
    )


@wrong("sample_chain", "the first id whose own probability is above u is taken")
def no_cumulative_sum(probabilities, start, uniforms):
    def choose(row, u):
        return next((i for i, p in enumerate(row) if p > u), 0)

    return walk(probabilities, start, uniforms, choose)


@wrong("sample_chain", "is it the wrong row, or an id that is too high or too low?")
def one_too_high_round_the_end(probabilities, start, uniforms):
    V = len(probabilities)
    return walk(probabilities, start, uniforms, lambda row, u: ((row.cumsum(0) < u).sum() + 1) % V)


@wrong("sample_chain", "is there a `return`?")
def prints_instead(probabilities, start, uniforms):
    print(walk(probabilities, start, uniforms, lambda row, u: (row.cumsum(0) < u).sum()))


@wrong("sample_chain", "in place")
def cumsum_in_place(probabilities, start, uniforms):
    probabilities.cumsum_(1)
    return walk(probabilities, start, uniforms, lambda row, u: (row < u).sum())


@wrong("sample_chain")
def fails_for_a_single_throw(probabilities, start, uniforms):
    return walk(probabilities, start, uniforms, lambda row, u: (row.cumsum(0) < u).sum()).squeeze()


@wrong("sample_chain", "is it the wrong row, or an id that is too high or too low?")
def one_too_high(probabilities, start, uniforms):
    return walk(
        probabilities, start, uniforms, lambda row, u: torch.searchsorted(row.cumsum(0), u) + 1
    )


@wrong("sample_chain", "is it the wrong row, or an id that is too high or too low?")
def one_too_high_up_to_the_last(probabilities, start, uniforms):
    last = len(probabilities) - 1
    return walk(
        probabilities,
        start,
        uniforms,
        lambda row, u: min(torch.searchsorted(row.cumsum(0), u) + 1, last),
    )


@wrong("sample_chain")
def adds_up_the_columns(probabilities, start, uniforms):
    return walk(probabilities.cumsum(0), start, uniforms, lambda row, u: (row < u).sum())


@wrong("sample_chain")
def from_the_end(probabilities, start, uniforms):
    return walk(
        probabilities, start, uniforms, lambda row, u: bisect(list(accumulate(row.tolist())), 1 - u)
    )


@wrong("sample_chain")
def reversed_row(probabilities, start, uniforms):
    V = len(probabilities)
    return walk(
        probabilities,
        start,
        uniforms,
        lambda row, u: V - 1 - bisect(list(accumulate(row.tolist()[::-1])), u),
    )


@wrong("sample_chain")
def forgets_to_break(probabilities, start, uniforms):
    written = []
    for u in uniforms:
        total = 0
        for i, p in enumerate(probabilities[start]):
            total += p
            if total > u:
                written.append(i)
                start = i
    return torch.tensor(written)


@wrong("sample_chain", "is it the wrong row, or an id that is too high or too low?")
def the_row_before(probabilities, start, uniforms):
    written, before = [], start
    for u in uniforms:
        i = int((probabilities[before].cumsum(0) < u).sum())
        before = written[-1] if written else start
        written.append(i)
    return torch.tensor(written)


@wrong("sample_chain", "is it the wrong row, or an id that is too high or too low?")
def the_row_of_the_first_throw(probabilities, start, uniforms):
    written = []
    for u in uniforms:
        row = probabilities[written[0] if written else start]
        written.append(int((row.cumsum(0) < u).sum()))
    return torch.tensor(written)


# ---------------------------------------------------------------- kneser_ney


@right("kneser_ney")
def dictionaries(ids, vocab_size, discount):
    ids = ids.tolist()
    pairs = Counter(zip(ids, ids[1:]))
    after, before = defaultdict(set), defaultdict(set)
    for a, b in pairs:
        after[a].add(b)
        before[b].add(a)
    firsts = Counter(ids[:-1])
    table = torch.zeros(vocab_size, vocab_size, dtype=torch.float64)
    for a in range(vocab_size):
        for b in range(vocab_size):
            p = len(before[b]) / len(pairs)
            if firsts[a]:
                p *= discount * len(after[a]) / firsts[a]
                p += max(pairs[a, b] - discount, 0) / firsts[a]
            table[a, b] = p
    return table


@right("kneser_ney")
def what_is_left_over(ids, vocab_size, discount):
    """The weight of the shorter table is whatever the discounted row lacks to 1."""
    onehot = F.one_hot(ids, vocab_size).double()
    counts = onehot[:-1].T @ onehot[1:]
    before = counts.sign().sum(0)
    kept = F.relu(counts - discount) / counts.sum(1, keepdim=True).clamp_min(1)
    return kept + torch.outer(1 - kept.sum(1), before / before.sum())


@right("kneser_ney")
def unique_pairs(ids, vocab_size, discount):
    pairs, n = torch.stack([ids[:-1], ids[1:]]).unique(dim=1, return_counts=True)
    a, b = pairs
    e = torch.bincount(b, minlength=vocab_size).double() / pairs.shape[1]
    total = torch.bincount(ids[:-1], minlength=vocab_size).double()
    table = e.repeat(vocab_size, 1)
    rows = total > 0
    table[rows] *= (discount * torch.bincount(a, minlength=vocab_size) / total)[rows, None]
    table[a, b] += (n - discount) / total[a]
    return table


def interpolated(ids, vocab_size, discount, shorter, main=None):
    counts = count(ids[:-1], ids[1:], vocab_size).double()
    table = []
    for row in counts:
        if row.sum() == 0:
            table.append(shorter)
            continue
        first = (row - discount).clamp(min=0) if main is None else main(row)
        table.append((first + discount * (row > 0).sum() * shorter) / row.sum())
    return torch.stack(table)


@wrong("kneser_ney", "how often b occurs")
def absolute_discounting(ids, vocab_size, discount):
    frequencies = torch.bincount(ids[1:], minlength=vocab_size).double()
    return interpolated(ids, vocab_size, discount, frequencies / frequencies.sum())


@wrong("kneser_ney")
def frequencies_in_the_text(ids, vocab_size, discount):
    return interpolated(
        ids, vocab_size, discount, torch.bincount(ids, minlength=vocab_size).double() / len(ids)
    )


@wrong("kneser_ney", "symbols after b")
def counts_what_follows(ids, vocab_size, discount):
    kinds = (count(ids[:-1], ids[1:], vocab_size) > 0).sum(1).double()
    return interpolated(ids, vocab_size, discount, kinds / kinds.sum())


@wrong("kneser_ney")
def backs_off_to_uniform(ids, vocab_size, discount):
    return interpolated(
        ids, vocab_size, discount, torch.full((vocab_size,), 1 / vocab_size, dtype=torch.float64)
    )


@wrong("kneser_ney", "is N_a the sum of row a, and all that the discount took handed out?")
def divides_by_the_alphabet(ids, vocab_size, discount):
    kinds = (count(ids[:-1], ids[1:], vocab_size) > 0).sum(0).double()
    return interpolated(ids, vocab_size, discount, kinds / vocab_size)


@wrong("kneser_ney", "is N_a the sum of row a, and all that the discount took handed out?")
def divides_by_all_pairs(ids, vocab_size, discount):
    kinds = (count(ids[:-1], ids[1:], vocab_size) > 0).sum(0).double()
    return interpolated(ids, vocab_size, discount, kinds / (len(ids) - 1))


@wrong("kneser_ney", "the maximum with 0")
def negative_counts(ids, vocab_size, discount):
    kinds = (count(ids[:-1], ids[1:], vocab_size) > 0).sum(0).double()
    return interpolated(ids, vocab_size, discount, kinds / kinds.sum(), lambda row: row - discount)


@wrong("kneser_ney", "is N_a the sum of row a, and all that the discount took handed out?")
def no_discount(ids, vocab_size, discount):
    kinds = (count(ids[:-1], ids[1:], vocab_size) > 0).sum(0).double()
    return interpolated(ids, vocab_size, discount, kinds / kinds.sum(), lambda row: row)


@wrong("kneser_ney", "nothing follows this symbol, so the row is that of the shorter table")
def divides_by_zero(ids, vocab_size, discount):
    counts = count(ids[:-1], ids[1:], vocab_size).double()
    seen, total = counts > 0, counts.sum(1, keepdim=True)
    e = seen.sum(0) / seen.sum()
    return (counts - discount).clamp(min=0) / total + discount * seen.sum(
        1, keepdim=True
    ) / total * e


@wrong("kneser_ney", "is N_a the sum of row a, and all that the discount took handed out?")
def empty_rows(ids, vocab_size, discount):
    counts = count(ids[:-1], ids[1:], vocab_size).double()
    seen, total = counts > 0, counts.sum(1, keepdim=True).clamp_min(1)
    e = seen.sum(0) / seen.sum()
    return (counts - discount).clamp(min=0) / total + discount * seen.sum(
        1, keepdim=True
    ) / total * e


@wrong("kneser_ney", "is N_a the sum of row a, and all that the discount took handed out?")
def one_discount_for_a_row(ids, vocab_size, discount):
    counts = count(ids[:-1], ids[1:], vocab_size).double()
    kinds, total = (counts > 0).sum(0).double(), counts.sum(1, keepdim=True)
    rows = (counts - discount).clamp(min=0) / total + discount / total * kinds / kinds.sum()
    return torch.where(total > 0, rows, kinds / kinds.sum())


@wrong("kneser_ney", "handed out")
def backs_off_only_for_the_unseen(ids, vocab_size, discount):
    counts = count(ids[:-1], ids[1:], vocab_size).double()
    seen, total = counts > 0, counts.sum(1, keepdim=True)
    e = seen.sum(0) / seen.sum()
    rows = torch.where(seen, counts - discount, discount * seen.sum(1, keepdim=True) * e) / total
    return torch.where(total > 0, rows, e)


@wrong("kneser_ney", "is N_a the sum of row a, and all that the discount took handed out?")
def what_came_before(ids, vocab_size, discount):
    return dictionaries(ids, vocab_size, discount).T


@wrong("kneser_ney", "float32")
def single_precision(ids, vocab_size, discount):
    return dictionaries(ids, vocab_size, discount).float()


@wrong("kneser_ney", "column b is divided by N_b")
def totals_without_keepdim(ids, vocab_size, discount):
    counts = count(ids[:-1], ids[1:], vocab_size).double()
    seen, total = counts > 0, counts.sum(1)
    e = seen.sum(0) / seen.sum()
    rows = ((counts - discount).clamp(min=0) + discount * seen.sum(1, keepdim=True) * e) / total
    return torch.where(total > 0, rows, e)


@wrong("kneser_ney", "is N_a the sum of row a, and all that the discount took handed out?")
def nothing_with_keepdim(ids, vocab_size, discount):
    counts = count(ids[:-1], ids[1:], vocab_size).double()
    seen, total = counts > 0, counts.sum(1)
    e = seen.sum(0) / seen.sum()
    rows = (counts - discount).clamp(min=0) / total + discount * seen.sum(1) / total * e
    return torch.where(total > 0, rows, e)


@wrong("kneser_ney", "is N_a the sum of row a, and all that the discount took handed out?")
def kinds_without_keepdim(ids, vocab_size, discount):
    counts = count(ids[:-1], ids[1:], vocab_size).double()
    seen, total = counts > 0, counts.sum(1, keepdim=True)
    e = seen.sum(0) / seen.sum()
    rows = ((counts - discount).clamp(min=0) + discount * seen.sum(1) * e) / total
    return torch.where(total > 0, rows, e)


@wrong("kneser_ney", "is N_a the sum of row a, and all that the discount took handed out?")
def rows_kept_without_keepdim(ids, vocab_size, discount):
    counts = count(ids[:-1], ids[1:], vocab_size).double()
    seen, total = counts > 0, counts.sum(1)
    e = seen.sum(0).double() / seen.sum()
    rows = ((counts - discount).clamp(min=0) + discount * seen.sum(1, keepdim=True) * e) / total
    rows[total == 0] = e
    return rows


@wrong("kneser_ney")
def counts_transposed(ids, vocab_size, discount):
    counts = count(ids[1:], ids[:-1], vocab_size).double()
    kinds, total = (counts > 0).double(), counts.sum(1, keepdim=True)
    e = kinds.sum(0) / kinds.sum()
    rows = (F.relu(counts - discount) + discount * kinds.sum(1, keepdim=True) * e) / total
    return torch.where(total > 0, rows, e)


@wrong("kneser_ney", "is N_a the sum of row a, and all that the discount took handed out?")
def divides_by_the_kinds(ids, vocab_size, discount):
    kinds = (count(ids[:-1], ids[1:], vocab_size) > 0).sum(0).double()
    return interpolated(ids, vocab_size, discount, kinds / (kinds > 0).sum())


@wrong("kneser_ney", "is N_a the sum of row a, and all that the discount took handed out?")
def the_last_id_counted(ids, vocab_size, discount):
    counts, total = (
        count(ids[:-1], ids[1:], vocab_size),
        torch.bincount(ids, minlength=vocab_size)[:, None],
    )
    seen = (counts > 0).double()
    e = seen.sum(0) / seen.sum()
    rows = F.relu(counts - discount) / total + discount * seen.sum(1)[:, None] / total * e
    return torch.where(total > 0, rows, e)


@wrong("kneser_ney", "is N_a the sum of row a, and all that the discount took handed out?")
def the_alphabet_for_the_kinds(ids, vocab_size, discount):
    counts = count(ids[:-1], ids[1:], vocab_size).double()
    kinds, total = (counts > 0).sum(0), counts.sum(1, keepdim=True)
    rows = F.relu(counts - discount) / total + discount * vocab_size / total * kinds / kinds.sum()
    return torch.where(total > 0, rows, kinds / kinds.sum())


@wrong("kneser_ney", "is N_a the sum of row a, and all that the discount took handed out?")
def hands_out_without_the_discount(ids, vocab_size, discount):
    counts = count(ids[:-1], ids[1:], vocab_size).double()
    seen, total = (counts > 0).double(), counts.sum(1, keepdim=True)
    e = seen.sum(0) / seen.sum()
    rows = F.relu(counts - discount) / total + seen.sum(1, keepdim=True) / total * e
    return torch.where(total > 0, rows, e)


@wrong("kneser_ney")
def renormalised(ids, vocab_size, discount):
    counts = count(ids[:-1], ids[1:], vocab_size).double()
    kept, before = F.relu(counts - discount), (counts > 0).sum(0)
    kept[counts.sum(1) == 0] = (before / before.sum()).double()
    return F.normalize(kept, p=1, dim=1)


@wrong("kneser_ney")
def uniform_where_nothing_follows(ids, vocab_size, discount):
    table = dictionaries(ids, vocab_size, discount)
    table[torch.bincount(ids[:-1], minlength=vocab_size) == 0] = 1 / vocab_size
    return table
