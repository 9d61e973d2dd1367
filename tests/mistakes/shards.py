"""Answers to the exercises of lesson 12: right ones, and wrong ones with a piece of their hint."""

import math
from bisect import bisect_right
from itertools import accumulate

import torch

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- bytes_on_disk


@right("bytes_on_disk")
def by_the_bits_of_the_largest(n, vocab_size):
    bits = (vocab_size - 1).bit_length()
    return n * (1 if bits <= 8 else 2 if bits <= 16 else 4 if bits <= 32 else 8)


@right("bytes_on_disk")
def doubles_until_it_fits(n, vocab_size):
    width = 1
    while 2 ** (8 * width) < vocab_size:
        width = width * 2
    return width * n


@right("bytes_on_disk")
def of_a_hexadecimal_number(n, vocab_size):
    digits = len(f"{vocab_size - 1:x}")
    return n * min(width for width in (1, 2, 4, 8) if 2 * width >= digits)


@wrong("bytes_on_disk", "`<=`, not `<`")
def below_256(n, vocab_size):
    if vocab_size < 256:
        return n
    if vocab_size < 65536:
        return 2 * n
    return 4 * n if vocab_size < 2**32 else 8 * n


@wrong("bytes_on_disk", "the ids end at vocab_size - 1")
def one_too_many(n, vocab_size):
    for width in (1, 2, 4, 8):
        if vocab_size - 1 <= 2 ** (8 * width):
            return width * n


@wrong("bytes_on_disk", "unsigned")
def signed(n, vocab_size):
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        if vocab_size - 1 <= torch.iinfo(dtype).max:
            return n * dtype.itemsize


@wrong("bytes_on_disk", "there is no type of 3 bytes")
def three_bytes(n, vocab_size):
    width = 1
    while 256**width < vocab_size:
        width += 1
    return n * width


@wrong("bytes_on_disk")
def packed(n, vocab_size):
    return math.ceil(n * max(1, (vocab_size - 1).bit_length()) / 8)


@wrong("bytes_on_disk", "the number of bits")
def in_bits(n, vocab_size):
    bits = next(bits for bits in (8, 16, 32, 64) if vocab_size <= 2**bits)
    return n * bits


@wrong("bytes_on_disk")
def always_int64(n, vocab_size):
    return n * torch.zeros(1, dtype=torch.int64).element_size()


@wrong("bytes_on_disk")
def always_uint16(n, vocab_size):
    return n * 2


@wrong("bytes_on_disk", "it returns 1, but")
def one_id(n, vocab_size):
    for width in (1, 2, 4, 8):
        if vocab_size <= 256**width:
            return width


@wrong("bytes_on_disk", "the largest one has eight")
def no_eight(n, vocab_size):
    return n * (1 if vocab_size <= 256 else 2 if vocab_size <= 65536 else 4)


@wrong("bytes_on_disk", "is there a `return`?")
def bytes_without_return(n, vocab_size):
    for width in (1, 2, 4, 8):
        if vocab_size <= 256**width:
            n * width
            break


@wrong("bytes_on_disk", "ValueError")
def by_a_logarithm(n, vocab_size):
    return n * 2 ** math.ceil(math.log2(math.log(vocab_size, 256)))


# ---------------------------------------------------------------- locate_id


@right("locate_id")
def by_bisection(lengths, n):
    starts = [0, *accumulate(lengths)]
    shard = bisect_right(starts, n) - 1
    return [shard, n - starts[shard]]


@right("locate_id")
def written_out(lengths, n):
    where = [[shard, offset] for shard, length in enumerate(lengths) for offset in range(length)]
    return where[n]


@right("locate_id")
def with_searchsorted(lengths, n):
    ends = torch.tensor(lengths).cumsum(0)
    shard = torch.searchsorted(ends, n, right=True).item()
    return [shard, n - sum(lengths[:shard])]


@wrong("locate_id", "at a border")
def border_to_the_left(lengths, n):
    shard = 0
    while shard < len(lengths) - 1 and n > lengths[shard]:
        n -= lengths[shard]
        shard += 1
    return [shard, n]


@wrong("locate_id", "as long as the first")
def equal_lengths(lengths, n):
    return [n // lengths[0], n % lengths[0]]


@wrong("locate_id", "the place in the whole text")
def place_itself(lengths, n):
    ends = list(accumulate(lengths))
    return [next(shard for shard, end in enumerate(ends) if n < end), n]


@wrong("locate_id", "item 1: it returns")
def from_the_end(lengths, n):
    for shard, length in enumerate(lengths):
        if n < length:
            return [shard, length - n - 1]
        n -= length


@wrong("locate_id", "item 0: it returns 1, but 0 was expected")
def shards_from_one(lengths, n):
    for shard, length in enumerate(lengths, 1):
        if n < length:
            return [shard, n]
        n -= length


@wrong("locate_id", "item 1: it returns")
def offsets_from_one(lengths, n):
    for shard, length in enumerate(lengths):
        if n < length:
            return [shard, n + 1]
        n -= length


@wrong("locate_id", "item 0: it returns")
def exchanged(lengths, n):
    for shard, length in enumerate(lengths):
        if n < length:
            return [n, shard]
        n -= length


@wrong("locate_id", "empty shards are not counted")
def skips_empty_ones(lengths, n):
    for shard, length in enumerate([length for length in lengths if length > 0]):
        if n < length:
            return [shard, n]
        n -= length


@wrong("locate_id", "an empty shard is returned")
def stops_in_the_empty_one(lengths, n):
    starts = [sum(lengths[:shard]) for shard in range(len(lengths))]
    start = max(start for start in starts if start <= n)
    return [starts.index(start), n - start]


@wrong("locate_id", "of all the shards before")
def only_the_one_before(lengths, n):
    ends = list(accumulate(lengths))
    shard = next(shard for shard, end in enumerate(ends) if n < end)
    return [shard, n - lengths[shard - 1] if shard > 0 else n]


@wrong("locate_id", "in place")
def eats_the_lengths(lengths, n):
    shard = 0
    while n >= lengths[0]:
        n -= lengths.pop(0)
        shard += 1
    return [shard, n]


@wrong("locate_id", "is there a `return`?")
def locate_without_return(lengths, n):
    for shard, length in enumerate(lengths):
        if n < length:
            [shard, n]
            break
        n -= length


# ---------------------------------------------------------------- shuffle_buffer


@right("shuffle_buffer")
def with_enumerate(items, size, draws):
    buffer, out = [], []
    for k, item in enumerate(items):
        if len(buffer) < size:
            buffer.append(item)
            continue
        place = draws[k - size]
        out, buffer = out + [buffer[place]], buffer[:place] + [item] + buffer[place + 1 :]
    out.extend(buffer)
    return out


@right("shuffle_buffer")
def with_a_dict_of_places(items, size, draws):
    places = dict(enumerate(items[:size]))
    out = []
    for k in range(size, len(items)):
        out.append(places.pop(draws[k - size]))
        places[draws[k - size]] = items[k]
    return out + [places[place] for place in sorted(places)]


@right("shuffle_buffer")
def each_item_finds_its_way_out(items, size, draws):
    """An item leaves when its place is drawn next; those never drawn again leave at the end, by their places."""
    place = [*range(size), *draws][: len(items)]
    leaving = []
    for k, slot in enumerate(place):
        later = [j for j in range(max(k + 1, size), len(items)) if place[j] == slot]
        leaving.append((0, later[0]) if later else (1, slot))
    return [items[k] for k in sorted(range(len(items)), key=leaving.__getitem__)]


@wrong("shuffle_buffer", "at the end is lost")
def forgets_the_rest(items, size, draws):
    buffer, out = list(items[:size]), []
    for item, place in zip(items[size:], draws):
        out.append(buffer[place])
        buffer[place] = item
    return out


@wrong("shuffle_buffer", "put at the end of the buffer")
def pops_and_appends(items, size, draws):
    buffer, out = items[:size], []
    for item, place in zip(items[size:], draws):
        out.append(buffer.pop(place))
        buffer.append(item)
    return out + buffer


@wrong("shuffle_buffer")
def inserts(items, size, draws):
    buffer, out = items[:size], []
    for item, place in zip(items[size:], draws):
        buffer.insert(place, item)
        out.append(buffer.pop(-1))
    return out + buffer


@wrong("shuffle_buffer", "the new item itself")
def fills_first(items, size, draws):
    buffer, out = items[:size], []
    for item, place in zip(items[size:], draws):
        buffer[place] = item
        out.append(buffer[place])
    return out + buffer


@wrong("shuffle_buffer", "not filled with the new one")
def never_fills(items, size, draws):
    buffer = items[:size]
    return [buffer[place] for place in draws] + buffer


@wrong("shuffle_buffer", "from place 0 on")
def empties_from_the_end(items, size, draws):
    buffer, out = items[:size], []
    for item, place in zip(items[size:], draws):
        out.append(buffer[place])
        buffer[place] = item
    while buffer:
        out.append(buffer.pop())
    return out


@wrong("shuffle_buffer", "shorter")
def counts_to_size(items, size, draws):
    buffer, out = [items[k] for k in range(size)], []
    for item, place in zip(items[size:], draws):
        out.append(buffer[place])
        buffer[place] = item
    return out + buffer


@wrong("shuffle_buffer", "in place")
def takes_from_the_stream(items, size, draws):
    buffer, out = [], []
    while items and len(buffer) < size:
        buffer.append(items.pop(0))
    for item, place in zip(items, draws):
        out.append(buffer[place])
        buffer[place] = item
    return out + buffer


@wrong("shuffle_buffer", "is there a `return`?")
def buffer_without_return(items, size, draws):
    buffer, out = items[:size], []
    for item, place in zip(items[size:], draws):
        out.append(buffer[place])
        buffer[place] = item
    out.extend(buffer)


@wrong("shuffle_buffer", "IndexError")
def draws_of_all_items(items, size, draws):
    buffer, out = items[:size], []
    for k in range(size, len(items)):
        out.append(buffer[draws[k]])
        buffer[draws[k]] = items[k]
    return out + buffer


# ---------------------------------------------------------------- rank_windows


@right("rank_windows")
def walks_through(count, size, ranks, rank):
    mine, start = [], rank * size
    while start < count:
        mine += range(start, min(start + size, count))
        start += ranks * size
    return mine


@right("rank_windows")
def as_a_table(count, size, ranks, rank):
    steps = -(-count // (ranks * size))
    table = torch.arange(steps * ranks * size).view(steps, ranks, size)[:, rank].flatten()
    return table[table < count].tolist()


@right("rank_windows")
def dealt_one_after_the_other(count, size, ranks, rank):
    hands, whose = [[] for _ in range(ranks)], 0
    for start in range(0, count, size):
        hands[whose] += [window for window in range(start, start + size) if window < count]
        whose = (whose + 1) % ranks
    return hands[rank]


@wrong("rank_windows", "like cards")
def strided(count, size, ranks, rank):
    return [window for window in range(count) if window % ranks == rank]


@wrong("rank_windows", "one long piece for each rank")
def long_pieces(count, size, ranks, rank):
    start, end = count * rank // ranks, count * (rank + 1) // ranks
    return list(range(start, end))


@wrong("rank_windows", "it returns a list")
def equal_pieces(count, size, ranks, rank):
    share = count // ranks
    return list(range(rank * share, rank * share + share))


@wrong("rank_windows", "the last step is left out")
def drop_last(count, size, ranks, rank):
    mine = []
    for start in range(0, count - ranks * size + 1, ranks * size):
        mine += range(start + rank * size, start + rank * size + size)
    return mine


@wrong("rank_windows", "a part that is not full is left out")
def drop_small_parts(count, size, ranks, rank):
    mine = []
    for start in range(rank * size, count - size + 1, ranks * size):
        mine += range(start, start + size)
    return mine


@wrong("rank_windows", "no such windows")
def beyond_the_end(count, size, ranks, rank):
    mine = []
    for start in range(0, count, ranks * size):
        mine += range(start + rank * size, start + (rank + 1) * size)
    return mine


@wrong("rank_windows", "the first windows of the epoch")
def fills_up(count, size, ranks, rank):
    mine = []
    for start in range(0, count, ranks * size):
        mine += [window % count for window in range(start + rank * size, start + (rank + 1) * size)]
    return mine


@wrong("rank_windows", "it returns a list [0, 1, 2]")
def one_step(count, size, ranks, rank):
    return list(range(count))[rank * size : (rank + 1) * size]


@wrong("rank_windows", "it returns a list of")
def everything_for_all(count, size, ranks, rank):
    return [
        window for step in range(0, count, size) for window in range(step, min(step + size, count))
    ]


@wrong("rank_windows", "it returns a list [0, 12, 24]")
def only_the_starts(count, size, ranks, rank):
    return [start for start in range(rank * size, count, ranks * size)]


@wrong("rank_windows", "is there a `return`?")
def rank_without_return(count, size, ranks, rank):
    mine = []
    for start in range(rank * size, count, ranks * size):
        mine.extend(range(start, min(start + size, count)))


@wrong("rank_windows", "it returns a tensor (9,) of int64")
def a_tensor(count, size, ranks, rank):
    windows = torch.arange(count)
    return windows[windows // size % ranks == rank]
