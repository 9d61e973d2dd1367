# Made from the exercises of notebooks/source/12_data_on_disk.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 12 · Data on disk."""


def bytes_on_disk(n, vocab_size):
    """Two whole numbers, n from 0 on, vocab_size from 1 to 2**64 -> int: the bytes of the file."""
    for width in (1, 2, 4, 8):
        if vocab_size <= 256**width:
            return n * width


def locate_id(lengths, n):
    """lengths: a list of whole numbers from 0 on, 0 <= n < sum(lengths) -> [shard, offset in it]: ints from 0 on."""
    for shard, length in enumerate(lengths):
        if n < length:
            return [shard, n]
        n -= length


def shuffle_buffer(items, size, draws):
    """items: a list; size: int from 1 on; draws: a list of ints below size -> a list, the items as they come out."""
    buffer, out = items[:size], []
    for item, place in zip(items[size:], draws):
        out.append(buffer[place])
        buffer[place] = item
    return out + buffer


def rank_windows(count, size, ranks, rank):
    """Whole numbers; 0 <= rank < ranks -> the numbers of the rank's windows, a list of ints in their order."""
    return [window for window in range(count) if window // size % ranks == rank]
