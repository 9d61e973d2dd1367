"""Lesson 00."""

import math
from collections import Counter

import torch

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- train_val_split


@right("train_val_split")
def by_lists(text, percent):
    n = math.ceil(len(text) * percent / 100)
    train, val = list(text), []
    for _ in range(n):
        val.insert(0, train.pop())
    return ["".join(train), "".join(val)]


@right("train_val_split")
def partition_by_position(text, percent):
    train = [char for i, char in enumerate(text, 1) if 100 * i <= (100 - percent) * len(text)]
    return "".join(train), text[len(train) :]


@right("train_val_split")
def divided_last(text, percent):
    cut = int(len(text) * (100 - percent) / 100)
    return [text[:cut], text[cut:]]


@wrong("train_val_split", "the first part is kept")
def first_part(text, percent):
    n = math.ceil(len(text) * percent / 100)
    return [text[n:], text[:n]]


@wrong("train_val_split")
def first_part_rounded_down(text, percent):
    n = len(text) * percent // 100
    return [text[n:], text[:n]]


@wrong("train_val_split", "the order is wrong")
def exchanged(text, percent):
    cut = len(text) * (100 - percent) // 100
    return [text[cut:], text[:cut]]


@wrong("train_val_split", "the training text is rounded up")
def validation_rounded_down(text, percent):
    cut = len(text) - int(len(text) * percent / 100)
    return [text[:cut], text[cut:]]


@wrong("train_val_split")
def ceil_of_a_share(text, percent):
    cut = math.ceil(len(text) * (1 - percent / 100))
    return [text[:cut], text[cut:]]


@wrong("train_val_split")
def rounded(text, percent):
    n = round(percent * len(text) / 100)
    return [text[: len(text) - n], text[len(text) - n :]]


@wrong("train_val_split")
def training_rounded_to_the_nearest(text, percent):
    cut = round((100 - percent) * len(text) / 100)
    return [text[:cut], text[cut:]]


@wrong("train_val_split", "text[-0:] is the whole text")
def negative_slice(text, percent):
    n = int(len(text) * percent / 100)
    return [text[:-n], text[-n:]]


@wrong("train_val_split")
def overlapping(text, percent):
    cut = len(text) * (100 - percent) // 100
    return [text[:cut], text[max(0, cut - 1) :]]


@wrong("train_val_split")
def drops_one(text, percent):
    cut = len(text) * (100 - percent) // 100
    return [text[:cut], text[cut + 1 :]]


@wrong("train_val_split")
def percent_as_a_number(text, percent):
    return [text[:-percent], text[-percent:]]


@wrong("train_val_split", "`percent` per cent are used for training")
def percent_for_training(text, percent):
    cut = int(len(text) * percent / 100)
    return [text[:cut], text[cut:]]


@wrong("train_val_split")
def percent_as_a_share(text, percent):
    cut = int((1 - percent) * len(text))
    return [text[:cut], text[cut:]]


@wrong("train_val_split")
def percent_as_a_share_of_the_training(text, percent):
    cut = int(percent * len(text))
    return [text[:cut], text[cut:]]


@wrong("train_val_split", "1 - percent / 100 is not exact")
def share_of_one(text, percent):
    cut = int((1 - percent / 100) * len(text))
    return [text[:cut], text[cut:]]


@wrong("train_val_split")
def share_of_the_training(text, percent):
    share = (100 - percent) / 100
    return [text[: int(share * len(text))], text[int(share * len(text)) :]]


@wrong("train_val_split")
def share_of_the_validation(text, percent):
    n = math.ceil(percent / 100 * len(text))
    return [text[: len(text) - n], text[len(text) - n :]]


@wrong("train_val_split", "1 - percent / 100 is not exact in floating point")
def hundredths(text, percent):
    cut = int((1 - 0.01 * percent) * len(text))
    return [text[:cut], text[cut:]]


@wrong("train_val_split", "is there a `return`?")
def split_without_return(text, percent):
    cut = len(text) * (100 - percent) // 100
    [text[:cut], text[cut:]]


# ---------------------------------------------------------------- uniform_loss


@right("uniform_loss")
def minus_log_of_a_share(vocab_size, ruled_out):
    p = 1 / (vocab_size - ruled_out)
    return -torch.tensor(p, dtype=torch.float64).log()


@right("uniform_loss")
def cross_entropy_of_logits(vocab_size, ruled_out):
    logits = torch.zeros(1, vocab_size)
    logits[:, :ruled_out] = float("-inf")
    return torch.nn.functional.cross_entropy(logits, torch.tensor([vocab_size - 1])).item()


@right("uniform_loss")
def average_price(vocab_size, ruled_out):
    left = vocab_size - ruled_out
    return -sum(1 / left * math.log(1 / left) for _ in range(left))


@wrong("uniform_loss", "bits")
def bits(vocab_size, ruled_out):
    return math.log2(vocab_size - ruled_out)


@wrong("uniform_loss")
def base_ten(vocab_size, ruled_out):
    return math.log10(vocab_size - ruled_out)


@wrong("uniform_loss", "probability of each symbol")
def probability(vocab_size, ruled_out):
    return 1 / (vocab_size - ruled_out)


@wrong("uniform_loss", "the sign is wrong")
def no_minus(vocab_size, ruled_out):
    return math.log(1 / (vocab_size - ruled_out))


@wrong("uniform_loss", "not used")
def knows_nothing(vocab_size, ruled_out):
    return math.log(vocab_size)


@wrong("uniform_loss", "the loss is minus the logarithm of the probability of one")
def choices_left(vocab_size, ruled_out):
    return vocab_size - ruled_out


@wrong("uniform_loss")
def price_of_not_being_ruled_out(vocab_size, ruled_out):
    return -math.log(1 - ruled_out / vocab_size)


@wrong("uniform_loss", "quotient")
def difference_of_logarithms(vocab_size, ruled_out):
    return math.log(vocab_size) - math.log(ruled_out)


@wrong("uniform_loss", "quotient")
def difference_of_logarithms_with_care(vocab_size, ruled_out):
    return math.log(vocab_size) - (math.log(ruled_out) if ruled_out else 0.0)


# ---------------------------------------------------------------- batch_windows


@right("batch_windows")
def slices(ids, starts, block_size):
    x = torch.stack([ids[s : s + block_size] for s in starts.tolist()])
    y = torch.stack([ids[s + 1 : s + block_size + 1] for s in starts.tolist()])
    return x, y


@right("batch_windows")
def unfolded(ids, starts, block_size):
    windows = ids.unfold(0, block_size + 1, 1)[starts]
    return [windows[:, :block_size], windows[:, 1:]]


@right("batch_windows")
def one_at_a_time(ids, starts, block_size):
    x = torch.zeros(len(starts), block_size, dtype=torch.int64)
    y = torch.zeros_like(x)
    for b, start in enumerate(starts):
        for t in range(block_size):
            x[b, t], y[b, t] = ids[start + t], ids[start + t + 1]
    return [x, y]


@right("batch_windows")
def the_last_target_repaired(ids, starts, block_size):
    x = torch.stack([ids[s : s + block_size] for s in starts.tolist()])
    y = x.roll(-1, dims=1)
    y[:, -1] = ids[starts + block_size]
    return [x, y]


@wrong("batch_windows", "inputs themselves")
def copies_the_input(ids, starts, block_size):
    x = ids[starts[:, None] + torch.arange(block_size)]
    return [x, x.clone()]


@wrong("batch_windows", "the bug is still there")
def wraps_around(ids, starts, block_size):
    x = ids[starts[:, None] + torch.arange(block_size)]
    return [x, torch.cat([x[:, 1:], x[:, :1]], dim=1)]


@wrong("batch_windows", "only the last target of each window is wrong")
def rolls_over_all(ids, starts, block_size):
    x = ids[starts[:, None] + torch.arange(block_size)]
    return [x, x.roll(-1)]


@wrong("batch_windows")
def shifted_by_two(ids, starts, block_size):
    ids = torch.cat([ids, ids[:1]])
    positions = starts[:, None] + torch.arange(block_size)
    return [ids[positions], ids[positions + 2]]


@wrong("batch_windows", "wrong way")
def shifted_back(ids, starts, block_size):
    positions = starts[:, None] + torch.arange(block_size)
    return [ids[positions], ids[positions - 1]]


@wrong("batch_windows", "T + 1 ids long")
def one_id_too_few(ids, starts, block_size):
    windows = ids[starts[:, None] + torch.arange(block_size)]
    return [windows[:, :-1], windows[:, 1:]]


@wrong("batch_windows", "only the last target of each window is wrong")
def last_target_is_padding(ids, starts, block_size):
    x = ids[starts[:, None] + torch.arange(block_size)]
    y = torch.zeros_like(x)
    y[:, :-1] = x[:, 1:]
    return [x, y]


@wrong("batch_windows")
def targets_first(ids, starts, block_size):
    windows = ids[starts[:, None] + torch.arange(block_size + 1)]
    return [windows[:, 1:], windows[:, :-1]]


@wrong("batch_windows")
def ignores_the_starts(ids, starts, block_size):
    n = len(starts) * block_size
    ids = ids.repeat(9)
    return [ids[:n].view(-1, block_size), ids[1 : n + 1].view(-1, block_size)]


@wrong("batch_windows", "starts[:, None] is a column, and a column plus a row is a table")
def row_plus_row(ids, starts, block_size):
    positions = starts + torch.arange(block_size)
    return [ids[positions], ids[positions + 1]]


@wrong("batch_windows")
def row_plus_longer_row(ids, starts, block_size):
    windows = ids[starts + torch.arange(block_size + 1)]
    return [windows[:, :-1], windows[:, 1:]]


@wrong("batch_windows")
def target_slice_too_short(ids, starts, block_size):
    x = torch.stack([ids[s : s + block_size] for s in starts.tolist()])
    y = torch.stack([ids[s + 1 : s + block_size] for s in starts.tolist()])
    return [x, y]


@wrong("batch_windows")
def squeezes_a_single_window(ids, starts, block_size):
    windows = ids[starts[:, None] + torch.arange(block_size + 1)].squeeze()
    return [windows[..., :-1], windows[..., 1:]]


@wrong("batch_windows", "in place")
def moves_the_starts(ids, starts, block_size):
    x = ids[starts[:, None] + torch.arange(block_size)]
    starts += 1
    return [x, ids[starts[:, None] + torch.arange(block_size)]]


# ---------------------------------------------------------------- character_entropy


@right("character_entropy")
def counter(text):
    return sum(-n / len(text) * math.log(n / len(text)) for n in Counter(text).values())


@right("character_entropy")
def mean_price_along_the_text(text):
    counts = Counter(text)
    return sum(math.log(len(text)) - math.log(counts[char]) for char in text) / len(text)


@right("character_entropy")
def tensors(text):
    _, counts = torch.tensor([ord(char) for char in text]).unique(return_counts=True)
    return torch.distributions.Categorical(probs=counts / counts.sum()).entropy()


@wrong("character_entropy", "bits")
def entropy_in_bits(text):
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


@wrong("character_entropy", "sign")
def entropy_without_minus(text):
    return sum(n / len(text) * math.log(n / len(text)) for n in Counter(text).values())


@wrong("character_entropy")
def entropy_to_the_base_ten(text):
    q = torch.tensor(list(Counter(text).values())) / len(text)
    return -(q * q.log10()).sum()


@wrong("character_entropy", "counts, not shares")
def counts_not_shares(text):
    return -sum(n * math.log(n) for n in Counter(text).values())


@wrong("character_entropy")
def mean_over_the_alphabet(text):
    q = torch.tensor([n / len(text) for n in Counter(text).values()])
    return -q.log().mean().item()


@wrong("character_entropy", "without weights")
def sum_without_weights(text):
    return -sum(math.log(n / len(text)) for n in Counter(text).values())


@wrong("character_entropy")
def log_of_the_alphabet(text):
    return math.log(len(set(text)))


@wrong("character_entropy", "once for each time it occurs")
def sum_over_the_text(text):
    shares = [text.count(char) / len(text) for char in text]
    return -sum(share * math.log(share) for share in shares)


@wrong("character_entropy")
def entropy_of_the_whole(text):
    return -sum(n * math.log(n / len(text)) for n in Counter(text).values())


@wrong("character_entropy")
def divided_by_the_alphabet(text):
    counts = Counter(text)
    shares = [n / len(counts) for n in counts.values()]
    return -sum(share * math.log(share) for share in shares)


@wrong("character_entropy")
def small_letters(text):
    text = text.lower()
    return -sum(n / len(text) * math.log(n / len(text)) for n in Counter(text).values())


@wrong("character_entropy")
def capital_letters(text):
    text = text.upper()
    return sum(math.log(len(text) / text.count(char)) for char in text) / len(text)


@wrong("character_entropy")
def stripped(text):
    text = text.strip()
    return -sum(
        text.count(char) / len(text) * math.log(text.count(char) / len(text)) for char in set(text)
    )


@wrong("character_entropy")
def without_spaces(text):
    text = text.replace(" ", "")
    return -sum(
        text.count(char) / len(text) * math.log(text.count(char) / len(text)) for char in set(text)
    )


@wrong("character_entropy", "0 · ln 0 is not a number, so sum only over characters that occur")
def zero_times_minus_infinity(text):
    q = torch.bincount(torch.tensor([ord(char) for char in text])) / len(text)
    return -(q * q.log()).sum()


@wrong("character_entropy", "0 · ln 0 is not a number, so sum only over characters that occur")
def zero_times_minus_infinity_as_a_number(text):
    q = torch.bincount(torch.tensor([ord(char) for char in text]), minlength=256) / len(text)
    return -(q * q.log()).sum().item()


# ---------------------------------------------------------------- merge_pairs


@right("merge_pairs")
def with_an_index(ids, vocab_size, merges):
    ids = list(ids)
    for step in range(merges):
        counts = {}
        for i in range(len(ids) - 1):
            counts[ids[i], ids[i + 1]] = counts.get((ids[i], ids[i + 1]), 0) + 1
        if not counts:
            return ids
        pair = sorted(counts, key=lambda pair: (-counts[pair], pair[0], pair[1]))[0]
        i, out = 0, []
        while i < len(ids):
            if i + 1 < len(ids) and ids[i] == pair[0] and ids[i + 1] == pair[1]:
                out.append(vocab_size + step)
                i += 2
            else:
                out.append(ids[i])
                i += 1
        ids = out
    return ids


@right("merge_pairs")
def as_a_text(ids, vocab_size, merges):
    """Each id a character: str.replace goes from left to right and uses each character up."""
    text = "".join(map(chr, ids))
    for new in range(vocab_size, vocab_size + merges):
        counts = Counter(map("".join, zip(text, text[1:]))).most_common()
        if counts:
            text = text.replace(min(pair for pair, n in counts if n == counts[0][1]), chr(new))
    return [ord(char) for char in text]


@right("merge_pairs")
def recursive(ids, vocab_size, merges):
    if not merges or len(ids) < 2:
        return list(ids)
    base = vocab_size + 1
    numbers = torch.tensor(ids[:-1]) * base + torch.tensor(ids[1:])
    best = torch.bincount(numbers).argmax().item()
    out = list(ids)
    for i in range(len(ids) - 1):
        if out[i] is not None and out[i] * base + out[i + 1] == best:
            out[i], out[i + 1] = vocab_size, None
    return recursive([i for i in out if i is not None], vocab_size + 1, merges - 1)


def merge(ids, pair, new):
    i, out = 0, []
    while i < len(ids):
        hit = tuple(ids[i : i + 2]) == pair
        out.append(new if hit else ids[i])
        i += 2 if hit else 1
    return out


@wrong("merge_pairs", "still there")
def keeps_the_second_id(ids, vocab_size, merges):
    for new in range(vocab_size, vocab_size + merges):
        counts = Counter(zip(ids, ids[1:]))
        if counts:
            best = min(counts, key=lambda pair: (-counts[pair], pair))
            ids = [new if pair == best else pair[0] for pair in zip(ids, ids[1:])] + ids[-1:]
    return ids


@wrong("merge_pairs", "counted only once")
def counts_once(ids, vocab_size, merges):
    counts = Counter(zip(ids, ids[1:]))
    for step, pair in enumerate(sorted(counts, key=lambda pair: (-counts[pair], pair))[:merges]):
        ids = merge(ids, pair, vocab_size + step)
    return ids


@wrong("merge_pairs", "the first in the list is taken")
def most_common(ids, vocab_size, merges):
    for new in range(vocab_size, vocab_size + merges):
        for pair, _ in Counter(zip(ids, ids[1:])).most_common(1):
            ids = merge(ids, pair, new)
    return ids


@wrong("merge_pairs")
def largest_of_equals(ids, vocab_size, merges):
    for new in range(vocab_size, vocab_size + merges):
        counts = Counter(zip(ids, ids[1:]))
        if counts:
            ids = merge(ids, max(counts, key=lambda pair: (counts[pair], pair)), new)
    return ids


@wrong("merge_pairs")
def one_new_id(ids, vocab_size, merges):
    for _ in range(merges):
        counts = Counter(zip(ids, ids[1:]))
        if counts:
            ids = merge(ids, min(counts, key=lambda pair: (-counts[pair], pair)), vocab_size)
    return ids


@wrong("merge_pairs", "vocab_size is free")
def ids_from_one(ids, vocab_size, merges):
    for step in range(1, merges + 1):
        counts = Counter(zip(ids, ids[1:]))
        if counts:
            ids = merge(ids, min(counts, key=lambda pair: (-counts[pair], pair)), vocab_size + step)
    return ids


@wrong("merge_pairs")
def next_after_the_largest(ids, vocab_size, merges):
    for new in range(max(ids) + 1, max(ids) + 1 + merges):
        counts = Counter(zip(ids, ids[1:]))
        if counts:
            ids = merge(ids, min(counts, key=lambda pair: (-counts[pair], pair)), new)
    return ids


@wrong("merge_pairs")
def from_the_right(ids, vocab_size, merges):
    ids = list(ids)
    for new in range(vocab_size, vocab_size + merges):
        counts = Counter(zip(ids, ids[1:]))
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        i = len(ids) - 2
        while i >= 0:
            if (ids[i], ids[i + 1]) == best:
                ids[i : i + 2] = [new]
                i -= 1
            i -= 1
    return ids


@wrong("merge_pairs")
def stops_at_single_pairs(ids, vocab_size, merges):
    for new in range(vocab_size, vocab_size + merges):
        counts = Counter(zip(ids, ids[1:]))
        if counts and max(counts.values()) > 1:
            ids = merge(ids, min(counts, key=lambda pair: (-counts[pair], pair)), new)
    return ids


@wrong("merge_pairs", "in place")
def deletes_in_place(ids, vocab_size, merges):
    for new in range(vocab_size, vocab_size + merges):
        counts = Counter(zip(ids, ids[1:]))
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        i = 0
        while i < len(ids) - 1:
            if (ids[i], ids[i + 1]) == best:
                ids[i] = new
                del ids[i + 1]
            i += 1
    return ids


@wrong("merge_pairs", "max and min of nothing raise a ValueError")
def fails_without_a_pair(ids, vocab_size, merges):
    for new in range(vocab_size, vocab_size + merges):
        counts = Counter(zip(ids, ids[1:]))
        ids = merge(ids, min(counts, key=lambda pair: (-counts[pair], pair)), new)
    return ids


@wrong("merge_pairs", "IndexError")
def sorts_no_pairs(ids, vocab_size, merges):
    for new in range(vocab_size, vocab_size + merges):
        counts = Counter(zip(ids, ids[1:]))
        ids = merge(ids, sorted(counts, key=lambda pair: (-counts[pair], pair))[0], new)
    return ids


def with_counts(
    ids, vocab_size, merges, count, merge=merge, key=lambda counts, pair: (-counts[pair], pair)
):
    for new in range(vocab_size, vocab_size + merges):
        if len(ids) > 1:
            counts = count(ids)
            ids = merge(ids, min(counts, key=lambda pair: key(counts, pair)), new)
    return ids


def neighbours(ids):
    return Counter(zip(ids, ids[1:]))


@wrong("merge_pairs", "overlap")
def counts_without_overlap(ids, vocab_size, merges):
    def apart(ids):
        text, counts = "".join(map(chr, ids)), {}
        for a, b in zip(text, text[1:]):
            counts[ord(a), ord(b)] = text.count(a + b)
        return counts

    return with_counts(ids, vocab_size, merges, apart)


@wrong("merge_pairs", "overlap")
def skips_after_an_equal_pair(ids, vocab_size, merges):
    def apart(ids):
        counts, used = Counter(), {}
        for i, pair in enumerate(zip(ids, ids[1:])):
            if used.get(pair) != i - 1:
                counts[pair] += 1
                used[pair] = i
        return counts

    return with_counts(ids, vocab_size, merges, apart)


@wrong("merge_pairs")
def counts_blocks(ids, vocab_size, merges):
    return with_counts(ids, vocab_size, merges, lambda ids: Counter(zip(ids[::2], ids[1::2])))


@wrong("merge_pairs")
def rarest_first(ids, vocab_size, merges):
    return with_counts(
        ids, vocab_size, merges, neighbours, key=lambda counts, pair: (counts[pair], pair)
    )


@wrong("merge_pairs")
def ties_by_the_second(ids, vocab_size, merges):
    return with_counts(
        ids,
        vocab_size,
        merges,
        neighbours,
        key=lambda counts, pair: (-counts[pair], pair[1], pair[0]),
    )


@wrong("merge_pairs")
def drops_the_last(ids, vocab_size, merges):
    def merge(ids, pair, new):
        i, out = 0, []
        while i < len(ids) - 1:
            hit = (ids[i], ids[i + 1]) == pair
            out.append(new if hit else ids[i])
            i += 2 if hit else 1
        return out

    return with_counts(ids, vocab_size, merges, neighbours, merge)


@wrong("merge_pairs")
def replaces_once(ids, vocab_size, merges):
    def merge(ids, pair, new):
        place = next(i for i in range(len(ids)) if tuple(ids[i : i + 2]) == pair)
        return ids[:place] + [new] + ids[place + 2 :]

    return with_counts(ids, vocab_size, merges, neighbours, merge)


@wrong("merge_pairs")
def in_either_order(ids, vocab_size, merges):
    def merge(ids, pair, new):
        out = []
        for i in ids:
            if out and (min(out[-1], i), max(out[-1], i)) == pair:
                out[-1] = new
            else:
                out.append(i)
        return out

    return with_counts(
        ids,
        vocab_size,
        merges,
        lambda ids: Counter((min(p), max(p)) for p in zip(ids, ids[1:])),
        merge,
    )


@wrong("merge_pairs")
def half_a_pair_at_the_end(ids, vocab_size, merges):
    def merge(ids, pair, new):
        i, out = 0, []
        while i < len(ids):
            hit = ids[i] == pair[0] and (i == len(ids) - 1 or ids[i + 1] == pair[1])
            out.append(new if hit else ids[i])
            i += 2 if hit else 1
        return out

    return with_counts(ids, vocab_size, merges, neighbours, merge)
