"""How the exercises of lesson 12 are judged: cases, mistakes, symptoms."""

from chargpt_lib.exercises.answers.shards import (
    bytes_on_disk,
    locate_id,
    rank_windows,
    shuffle_buffer,
)
from chargpt_lib.exercises.judge import exercise


### BEGIN SOLUTION
def bytes_on_disk_as(n, vocab_size, fits=lambda V, width: V <= 256**width, widths=(1, 2, 4, 8)):
    return n * next((width for width in widths if fits(vocab_size, width)), widths[-1])


### END SOLUTION


exercise(
    bytes_on_disk,
    stars=1,
    minutes=3,
    cases=lambda draw: [
        [draw.integer(100, 900), draw.integer(40, 128)],
        [draw.integer(100, 900), draw.integer(129, 255)],
        [draw.integer(100, 900), 256],
        [draw.integer(100, 900), 257],
        [draw.integer(100, 900), draw.integer(40_000, 60_000)],
        [draw.integer(100, 900), 65_536],
        [draw.integer(100, 900), draw.integer(65_537, 300_000)],
        [draw.integer(1, 9), draw.integer(2**33, 2**34)],
        [0, draw.integer(1, 9)],
        [draw.integer(10, 99), 1],
        [1, 2**32],
    ],
    wrong={
        ### BEGIN SOLUTION
        "256 ids go from 0 to 255, and that fits into one byte: `<=`, not `<`": lambda n, V: (
            bytes_on_disk_as(n, V, lambda V, width: V < 256**width)
        ),
        "the ids end at vocab_size - 1: one more than 256^k does not fit into k bytes": lambda n, V: (
            bytes_on_disk_as(n, V, lambda V, width: V - 1 <= 256**width)
        ),
        "the types are unsigned: no bit is lost to a sign": lambda n, V: bytes_on_disk_as(
            n, V, lambda V, width: V <= 256**width // 2
        ),
        "these are bits: a byte has 8 of them": lambda n, V: 8 * bytes_on_disk_as(n, V),
        "there is no type of 3 bytes, nor of 5, 6 or 7": lambda n, V: bytes_on_disk_as(
            n, V, widths=range(1, 9)
        ),
        "that packs bits: each id has a type of whole bytes": lambda n, V: (
            (n * max((V - 1).bit_length(), 1) + 7) // 8
        ),
        "that is int64, eight bytes for each id: take the smallest type that holds them": lambda n, V: (
            8 * n
        ),
        "always two bytes: some vocabularies need only one, others more": lambda n, V: 2 * n,
        "two bytes at least: 256 different ids fit into one": lambda n, V: bytes_on_disk_as(
            n, V, widths=(2, 4, 8)
        ),
        "it goes no further than four bytes": lambda n, V: bytes_on_disk_as(n, V, widths=(1, 2, 4)),
        "it goes no further than two bytes": lambda n, V: bytes_on_disk_as(n, V, widths=(1, 2)),
        "that is the width of one id: the file has n of them": lambda n, V: bytes_on_disk_as(1, V),
        ### END SOLUTION
    },
)


def locate_id_case(draw, at, *lengths):
    """The place is `at` of shard k: (k, "first"), (k, "last") or (k, "inside")."""
    shard, where = at
    offset = {
        "first": 0,
        "last": lengths[shard] - 1,
        "inside": draw.integer(1, max(lengths[shard] - 2, 1)),
    }[where]
    return [list(lengths), sum(lengths[:shard]) + offset]


### BEGIN SOLUTION
def locate_id_as(lengths, n, before=lambda n, length: n < length, less=0, strict=False):
    for shard, length in enumerate(lengths):
        if before(n, length) or shard == len(lengths) - 1:
            return [shard, n]
        n -= length - less


### END SOLUTION


exercise(
    locate_id,
    stars=2,
    minutes=6,
    cases=lambda draw: [
        locate_id_case(draw, (0, "inside"), draw.integer(5, 9), draw.integer(5, 9)),
        locate_id_case(draw, (1, "first"), draw.integer(5, 9), draw.integer(5, 9), 4),
        locate_id_case(
            draw, (2, "last"), draw.integer(3, 4), draw.integer(5, 7), draw.integer(8, 9)
        ),
        locate_id_case(
            draw, (3, "first"), size := draw.integer(5, 9), size, size, draw.integer(3, 4)
        ),
        locate_id_case(
            draw, (2, "inside"), draw.integer(12, 20), draw.integer(3, 6), draw.integer(7, 9), 5
        ),
        locate_id_case(draw, (3, "first"), draw.integer(3, 6), 0, 0, draw.integer(3, 6), 2),
        locate_id_case(
            draw, (3, "inside"), draw.integer(3, 6), 0, draw.integer(3, 6), draw.integer(4, 6)
        ),
        locate_id_case(draw, (1, "last"), 0, draw.integer(3, 6), 0),
        [[1], 0],
    ],
    wrong={
        ### BEGIN SOLUTION
        "at a border: the place `length` is already the first of the next shard": lambda lengths, n: (
            locate_id_as(lengths, n, lambda n, length: n <= length)
        ),
        "all shards are taken to be as long as the first: each has its own length": lambda lengths, n: [
            n // lengths[0],
            n % lengths[0],
        ],
        "the place in the whole text is returned; the offset counts from the beginning of its shard": lambda lengths, n: [
            locate_id(lengths, n)[0],
            n,
        ],
        "the offset counts from the end of the shard; it counts from its beginning": lambda lengths, n: [
            locate_id(lengths, n)[0],
            lengths[locate_id(lengths, n)[0]] - 1 - locate_id(lengths, n)[1],
        ],
        "shards count from 0": lambda lengths, n: [
            locate_id(lengths, n)[0] + 1,
            locate_id(lengths, n)[1],
        ],
        "offsets count from 0": lambda lengths, n: [
            locate_id(lengths, n)[0],
            locate_id(lengths, n)[1] + 1,
        ],
        "first the shard, then the offset": lambda lengths, n: locate_id(lengths, n)[::-1],
        "an empty shard is not counted, but the shards after it keep their numbers": lambda lengths, n: (
            locate_id([length for length in lengths if length], n)
        ),
        "the place is in no empty shard: go on to the next one": lambda lengths, n: (
            lambda starts: [
                starts.index(max(s for s in starts if s <= n)),
                n - max(s for s in starts if s <= n),
            ]
        )([sum(lengths[:k]) for k in range(len(lengths))]),
        "each shard takes one place too few away": lambda lengths, n: locate_id_as(
            lengths, n, less=1
        ),
        "only the length of the shard just before is taken away: all shards before it count": lambda lengths, n: [
            shard := locate_id(lengths, n)[0],
            n - (lengths[shard - 1] if shard else 0),
        ],
        ### END SOLUTION
    },
)


def shuffle_buffer_case(draw, n, size):
    """Different items; no place is drawn twice in a row, where there is another one."""
    draws, places = [], list(range(size))
    for _ in range(max(n - size, 0)):
        draws.append(draw.choice([place for place in places if [place] != draws[-1:]] or places))
    return [draw.random.sample(range(10, 100), n), size, draws]


### BEGIN SOLUTION
def shuffle_buffer_as(items, size, draws, move=None, end=lambda buffer: buffer):
    buffer, out = items[:size], []
    for item, place in zip(items[size:], draws):
        if move:
            out.append(move(buffer, place, item))
        else:
            out.append(buffer[place])
            buffer[place] = item
    return out + end(buffer)


def shuffle_buffer_pops(buffer, place, item):
    buffer.append(item)
    return buffer.pop(place)


def shuffle_buffer_inserts(buffer, place, item):
    buffer.insert(place, item)
    return buffer.pop()


def shuffle_buffer_replaces(buffer, place, item):
    buffer[place] = item
    return item


### END SOLUTION


exercise(
    shuffle_buffer,
    stars=2,
    minutes=8,
    cases=lambda draw: [
        shuffle_buffer_case(draw, draw.integer(9, 12), 3),
        shuffle_buffer_case(draw, draw.integer(12, 15), 4),
        shuffle_buffer_case(draw, draw.integer(4, 6), 1),
        shuffle_buffer_case(draw, 8, 7),
        shuffle_buffer_case(draw, draw.integer(2, 4), 5),
        shuffle_buffer_case(draw, 5, 5),
        [[], 3, []],
    ],
    wrong={
        ### BEGIN SOLUTION
        "what is in the buffer at the end is lost": lambda items, size, draws: shuffle_buffer_as(
            items, size, draws, end=lambda buffer: []
        ),
        "what is left at the end comes out in the order of the places, from the first on": lambda items, size, draws: (
            shuffle_buffer_as(items, size, draws, end=lambda buffer: buffer[::-1])
        ),
        "what is left at the end is sorted; it comes out in the order of the places": lambda items, size, draws: (
            shuffle_buffer_as(items, size, draws, end=sorted)
        ),
        "the new item takes the place of the one that comes out; here the others move up, and it stands last": lambda items, size, draws: (
            shuffle_buffer_as(items, size, draws, shuffle_buffer_pops)
        ),
        "the new item pushes out the one in its place; here the others move, and the last one falls out": lambda items, size, draws: (
            shuffle_buffer_as(items, size, draws, shuffle_buffer_inserts)
        ),
        "the new item itself comes out: take the old one out before its place is filled": lambda items, size, draws: (
            shuffle_buffer_as(items, size, draws, shuffle_buffer_replaces)
        ),
        "the item comes out, but its place is not filled with the new one": lambda items, size, draws: (
            shuffle_buffer_as(items, size, draws, lambda buffer, place, item: buffer[place])
        ),
        "the stream comes out as it went in": lambda items, size, draws: list(items),
        "nothing comes out before the stream has ended: each item that is pushed out comes at once": lambda items, size, draws: (
            (
                lambda out: (
                    out[len(items) - len(items[:size]) :] + out[: len(items) - len(items[:size])]
                )
            )(shuffle_buffer(items, size, draws))
        ),
        "`size` is no index into a stream that is shorter: then all of it is in the buffer, and comes out at the end": lambda items, size, draws: (
            shuffle_buffer([items[k] for k in range(size)] + items[size:], size, draws)
        ),
        ### END SOLUTION
    },
)


### BEGIN SOLUTION
def rank_windows_steps(count, size, ranks, rank, more=0, cut=lambda window, count: window < count):
    """Step by step; more: steps beyond the last whole one."""
    steps = count // (size * ranks) + more
    windows = [step * size * ranks + rank * size + i for step in range(steps) for i in range(size)]
    return [window for window in windows if cut(window, count)]


### END SOLUTION


exercise(
    rank_windows,
    stars=1,
    minutes=5,
    cases=lambda draw: [
        [27 + draw.integer(0, 1), 3, 4, 0],
        [size * 5 * 2 + size + draw.integer(1, size - 1), size, 5, 1]
        if (size := draw.integer(3, 4))
        else [],
        [6 * draw.integer(3, 4) + 5, 2, 3, 2],
        [draw.integer(20, 30), draw.integer(2, 4), 1, 0],
        [draw.integer(12, 19), 1, 3, draw.integer(0, 2)],
        [draw.integer(2, 3), 4, 3, 0],
        [draw.integer(2, 3), 4, 3, 1],
        [0, 2, 2, 0],
    ],
    wrong={
        ### BEGIN SOLUTION
        "that deals windows out one by one, like cards: `size` of them in a row go to one rank": lambda count, size, ranks, rank: (
            list(range(rank, count, ranks))
        ),
        "that cuts the epoch into one long piece a rank: the ranks take turns, `size` windows each": lambda count, size, ranks, rank: (
            list(range(count * rank // ranks, count * (rank + 1) // ranks))
        ),
        "that cuts the epoch into one piece a rank, and loses what does not come out even: the ranks take turns": lambda count, size, ranks, rank: (
            list(range(count // ranks * rank, count // ranks * (rank + 1)))
        ),
        "the last step is lost where there are too few windows for all: what is there is read": lambda count, size, ranks, rank: (
            rank_windows_steps(count, size, ranks, rank)
        ),
        "a part that is not full is lost: what is there is read": lambda count, size, ranks, rank: [
            window
            for window in rank_windows(count, size, ranks, rank)
            if window // size < count // size
        ],
        "there are no windows from `count` on: the last part ends with them": lambda count, size, ranks, rank: (
            rank_windows_steps(
                count,
                size,
                ranks,
                rank,
                -(-count // (size * ranks)) - count // (size * ranks),
                lambda window, count: True,
            )
        ),
        "ranks count from 0": lambda count, size, ranks, rank: rank_windows(
            count, size, ranks, (rank - 1) % ranks
        ),
        "that is one step: the epoch goes on until its windows have been read": lambda count, size, ranks, rank: (
            list(range(rank * size, min((rank + 1) * size, count)))
        ),
        "that is what all ranks read: each has its own part": lambda count, size, ranks, rank: list(
            range(count)
        ),
        "the parts are counted modulo `size`; there are `ranks` of them": lambda count, size, ranks, rank: [
            window for window in range(count) if window // ranks % size == rank
        ],
        "these are the first windows of its parts only: each part has `size`": lambda count, size, ranks, rank: (
            list(range(rank * size, count, ranks * size))
        ),
        "at the end it begins again with the first windows to fill the part up: those were read before": lambda count, size, ranks, rank: [
            window % max(count, 1)
            for window in rank_windows_steps(
                count,
                size,
                ranks,
                rank,
                -(-count // (size * ranks)) - count // (size * ranks),
                lambda window, count: True,
            )
        ],
        ### END SOLUTION
    },
)
