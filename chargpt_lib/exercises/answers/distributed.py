# Made from the exercises of notebooks/source/13_many_devices.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 13 · Many devices: one run, several processes."""


def loss_factors(targets):
    """targets (R, A) int64, from 1 on, R devices with A parts each -> (R, A) float32: the factor for each loss."""
    return len(targets) * targets / targets.sum()


def recursive_doubling(held, rounds):
    """held (n, N) floats, row r: device r's vector; n = 2^m, 0 <= rounds <= m -> (n, N): held after them."""
    for k in range(rounds):
        # The k-th binary digit is turned over.
        partners = [device ^ 2**k for device in range(len(held))]
        held = held + held[partners]
    return held


def cards_needed(parameters, memory, stage):
    """Whole numbers: parameters and memory (bytes a card) from 1 on, stage 0 to 3 -> int: cards, or 0 for never."""
    whole = (16, 4, 2, 0)[stage] * parameters  # bytes that are on every card
    cut, left = 16 * parameters - whole, memory - whole
    if stage == 0:
        return 1 if left >= 0 else 0
    return -(-cut // left) if left > 0 else 0


def split_step(windows, ranks, fits):
    """Three whole numbers from 1 on -> [batch_size, grad_accum], two ints; or [] where no split is even."""
    own, rest = divmod(windows, ranks)
    if rest:
        return []
    batch_size = max(size for size in range(1, fits + 1) if own % size == 0)
    return [batch_size, own // batch_size]
