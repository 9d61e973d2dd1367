"""How the exercises of lesson 12 are judged: cases, mistakes, symptoms."""

from chargpt_lib.exercises.answers.shards import (
    bytes_on_disk,
    locate_id,
    rank_windows,
    shuffle_buffer,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- bytes_on_disk


def bytes_on_disk_cases(draw):
    vocab_sizes = [
        draw.integer(40, 128),
        draw.integer(129, 255),
        256,
        257,
        draw.integer(40_000, 60_000),
        65_536,
        draw.integer(65_537, 300_000),
    ]
    cases = [[draw.integer(100, 900), vocab_size] for vocab_size in vocab_sizes]
    return [
        *cases,
        [draw.integer(1, 9), draw.integer(2**33, 2**34)],
        [0, draw.integer(1, 9)],
        [draw.integer(10, 99), 1],
        [1, 2**32],
    ]


BYTES_ON_DISK = exercise(bytes_on_disk, stars=1, minutes=3, cases=bytes_on_disk_cases)


### BEGIN SOLUTION
@BYTES_ON_DISK.mistake("256 ids go from 0 to 255, and one byte holds them: `<=`, not `<`")
def bytes_on_disk_strictly_less(n, vocab_size):
    for width in (1, 2, 4):
        if vocab_size < 256**width:
            return n * width
    return n * 8


@BYTES_ON_DISK.mistake(
    "the ids end at vocab_size - 1: with 256^k + 1 of them, the last does not fit into k bytes"
)
def bytes_on_disk_one_id_too_many(n, vocab_size):
    largest = vocab_size - 1
    for width in (1, 2, 4):
        if largest <= 256**width:
            return n * width
    return n * 8


@BYTES_ON_DISK.mistake("the types are unsigned: no bit is lost to a sign")
def bytes_on_disk_signed(n, vocab_size):
    for width in (1, 2, 4):
        if vocab_size <= 256**width // 2:
            return n * width
    return n * 8


@BYTES_ON_DISK.mistake("that is the number of bits; a byte has 8 of them")
def bytes_on_disk_in_bits(n, vocab_size):
    for bits in (8, 16, 32):
        if vocab_size <= 2**bits:
            return n * bits
    return n * 64


@BYTES_ON_DISK.mistake("there is no type of 3 bytes, nor of 5, 6 or 7")
def bytes_on_disk_any_width(n, vocab_size):
    width = 1
    while vocab_size > 256**width:
        width += 1
    return n * width


@BYTES_ON_DISK.mistake("the types end at four bytes here; the largest one has eight")
def bytes_on_disk_four_at_most(n, vocab_size):
    for width in (1, 2):
        if vocab_size <= 256**width:
            return n * width
    return n * 4


### END SOLUTION


# ---------------------------------------------------------------- locate_id


def locate_id_case(lengths, shard, offset):
    return [lengths, sum(lengths[:shard]) + offset]


def locate_id_inside(draw, lengths, shard):
    """Neither the first nor the last place of the shard, if it has others."""
    return locate_id_case(lengths, shard, draw.integer(1, max(lengths[shard] - 2, 1)))


def locate_id_cases(draw):
    two = [draw.integer(5, 9), draw.integer(5, 9)]
    three = [draw.integer(5, 9), draw.integer(5, 9), 4]
    growing = [draw.integer(3, 4), draw.integer(5, 7), draw.integer(8, 9)]
    size = draw.integer(5, 9)
    equal_but_the_last = [size, size, size, draw.integer(3, 4)]
    four = [draw.integer(12, 20), draw.integer(3, 6), draw.integer(7, 9), 5]
    two_empty = [draw.integer(3, 6), 0, 0, draw.integer(3, 6), 2]
    one_empty = [draw.integer(3, 6), 0, draw.integer(3, 6), draw.integer(4, 6)]
    empty_ends = [0, draw.integer(3, 6), 0]
    return [
        locate_id_inside(draw, two, 0),
        locate_id_case(three, 1, 0),
        locate_id_case(growing, 2, growing[2] - 1),
        locate_id_case(equal_but_the_last, 3, 0),
        locate_id_inside(draw, four, 2),
        locate_id_case(two_empty, 3, 0),
        locate_id_inside(draw, one_empty, 3),
        locate_id_case(empty_ends, 1, empty_ends[1] - 1),
        [[1], 0],
    ]


LOCATE_ID = exercise(locate_id, stars=2, minutes=6, cases=locate_id_cases)


### BEGIN SOLUTION
@LOCATE_ID.mistake("at a border: the place `length` is already the first of the next shard")
def locate_id_border(lengths, n):
    shard = 0
    while n > lengths[shard] and shard < len(lengths) - 1:
        n -= lengths[shard]
        shard += 1
    return [shard, n]


@LOCATE_ID.mistake("all shards are taken to be as long as the first; each has its own length")
def locate_id_equal_lengths(lengths, n):
    return [n // lengths[0], n % lengths[0]]


@LOCATE_ID.mistake(
    "the place in the whole text is returned; the offset counts from the start of its shard"
)
def locate_id_place_in_the_text(lengths, n):
    end = 0
    for shard, length in enumerate(lengths):
        end += length
        if n < end:
            return [shard, n]


@LOCATE_ID.mistake("empty shards are not counted; the shards after them keep their numbers")
def locate_id_empty_not_counted(lengths, n):
    shard = 0
    for length in lengths:
        if n < length:
            return [shard, n]
        n -= length
        if length > 0:
            shard += 1


@LOCATE_ID.mistake("an empty shard is returned; no place is in it, so go on to the next one")
def locate_id_in_an_empty_shard(lengths, n):
    starts = [0]
    for length in lengths[:-1]:
        starts.append(starts[-1] + length)
    start = max(start for start in starts if start <= n)
    return [starts.index(start), n - start]


@LOCATE_ID.mistake(
    "only the length of the shard before is subtracted; subtract those of all the shards before"
)
def locate_id_only_the_one_before(lengths, n):
    shard = locate_id(lengths, n)[0]
    if shard == 0:
        return [0, n]
    return [shard, n - lengths[shard - 1]]


### END SOLUTION


# ---------------------------------------------------------------- shuffle_buffer


def shuffle_buffer_case(draw, n, size):
    """Different items; no place is drawn twice in a row, where there is another one."""
    draws = []
    for _ in range(n - size):
        places = list(range(size))
        if draws and size > 1:
            places.remove(draws[-1])
        draws.append(draw.choice(places))
    return [draw.random.sample(range(10, 100), n), size, draws]


def shuffle_buffer_cases(draw):
    return [
        shuffle_buffer_case(draw, draw.integer(9, 12), 3),
        shuffle_buffer_case(draw, draw.integer(12, 15), 4),
        shuffle_buffer_case(draw, draw.integer(4, 6), 1),
        shuffle_buffer_case(draw, 8, 7),
        # The stream is shorter than the buffer, as long as it, or empty.
        shuffle_buffer_case(draw, draw.integer(2, 4), 5),
        shuffle_buffer_case(draw, 5, 5),
        [[], 3, []],
    ]


SHUFFLE_BUFFER = exercise(shuffle_buffer, stars=2, minutes=8, cases=shuffle_buffer_cases)


### BEGIN SOLUTION
@SHUFFLE_BUFFER.mistake("what is in the buffer at the end is lost")
def shuffle_buffer_loses_the_rest(items, size, draws):
    buffer = items[:size]
    out = []
    for item, place in zip(items[size:], draws):
        out.append(buffer[place])
        buffer[place] = item
    return out


@SHUFFLE_BUFFER.mistake(
    "what is left at the end comes out from the last place on; it should come out from place 0 on"
)
def shuffle_buffer_rest_backwards(items, size, draws):
    buffer = items[:size]
    out = []
    for item, place in zip(items[size:], draws):
        out.append(buffer[place])
        buffer[place] = item
    while buffer:
        out.append(buffer.pop())
    return out


@SHUFFLE_BUFFER.mistake(
    "the new item is put at the end of the buffer; it goes into the place of the one that comes out"
)
def shuffle_buffer_pops_and_appends(items, size, draws):
    buffer = items[:size]
    out = []
    for item, place in zip(items[size:], draws):
        out.append(buffer.pop(place))
        buffer.append(item)
    return out + buffer


@SHUFFLE_BUFFER.mistake(
    "the new item itself comes out: take the old one out before its place is filled"
)
def shuffle_buffer_fills_first(items, size, draws):
    buffer = items[:size]
    out = []
    for item, place in zip(items[size:], draws):
        buffer[place] = item
        out.append(buffer[place])
    return out + buffer


@SHUFFLE_BUFFER.mistake("an item comes out, but its place is not filled with the new one")
def shuffle_buffer_never_fills(items, size, draws):
    buffer = items[:size]
    out = []
    for place in draws:
        out.append(buffer[place])
    return out + buffer


@SHUFFLE_BUFFER.mistake(
    "a stream that is shorter than the buffer has no item number `size` - 1; all of it fits in"
)
def shuffle_buffer_fills_all_places(items, size, draws):
    buffer = [items[place] for place in range(size)]
    out = []
    for item, place in zip(items[size:], draws):
        out.append(buffer[place])
        buffer[place] = item
    return out + buffer


### END SOLUTION


# ---------------------------------------------------------------- rank_windows


def rank_windows_cases(draw):
    size = draw.integer(3, 4)
    two_steps = 2 * 5 * size
    started_part = size + draw.integer(1, size - 1)
    return [
        # Two whole steps, and three or four windows more.
        [27 + draw.integer(0, 1), 3, 4, 0],
        # The part of rank 1 is not full in the last step.
        [two_steps + started_part, size, 5, 1],
        [6 * draw.integer(3, 4) + 5, 2, 3, 2],
        [draw.integer(20, 30), draw.integer(2, 4), 1, 0],
        [draw.integer(12, 19), 1, 3, draw.integer(0, 2)],
        # Fewer windows than one part: rank 0 has all of them, the others none.
        [draw.integer(2, 3), 4, 3, 0],
        [draw.integer(2, 3), 4, 3, 1],
        [0, 2, 2, 0],
    ]


RANK_WINDOWS = exercise(rank_windows, stars=1, minutes=5, cases=rank_windows_cases)


### BEGIN SOLUTION
@RANK_WINDOWS.mistake(
    "the windows are dealt out one by one, like cards; `size` of them in a row go to one rank"
)
def rank_windows_one_by_one(count, size, ranks, rank):
    return list(range(rank, count, ranks))


@RANK_WINDOWS.mistake(
    "the epoch is cut into one long piece for each rank; the ranks take turns, `size` windows each"
)
def rank_windows_long_pieces(count, size, ranks, rank):
    start = count * rank // ranks
    end = count * (rank + 1) // ranks
    return list(range(start, end))


@RANK_WINDOWS.mistake(
    "the last step is left out if it is not full; its windows are to be read, too"
)
def rank_windows_drops_the_last_step(count, size, ranks, rank):
    windows = []
    for step in range(count // (size * ranks)):
        start = step * size * ranks + rank * size
        windows += range(start, start + size)
    return windows


@RANK_WINDOWS.mistake("a part that is not full is left out; its windows are to be read, too")
def rank_windows_drops_a_small_part(count, size, ranks, rank):
    windows = []
    for start in range(rank * size, count, size * ranks):
        if start + size <= count:
            windows += range(start, start + size)
    return windows


@RANK_WINDOWS.mistake("the last part has windows from number `count` on; there are no such windows")
def rank_windows_beyond_the_end(count, size, ranks, rank):
    windows = []
    for first in range(0, count, size * ranks):
        start = first + rank * size
        windows += range(start, start + size)
    return windows


@RANK_WINDOWS.mistake(
    "the last part is filled up with the first windows of the epoch; those were read before"
)
def rank_windows_begins_again(count, size, ranks, rank):
    windows = []
    for first in range(0, count, size * ranks):
        start = first + rank * size
        for window in range(start, start + size):
            windows.append(window % count)
    return windows


### END SOLUTION
