"""Answers to the exercises of lesson 13: right ones, and wrong ones with a piece of their hint."""

import math

import torch

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- loss_factors


@right("loss_factors")
def one_after_the_other(targets):
    counts = targets.tolist()
    everything = sum(map(sum, counts))
    return torch.tensor([[n * len(counts) / everything for n in row] for row in counts])


@right("loss_factors")
def by_backward(targets):
    """The derivative of the mean over all targets by each part's mean, times what DDP divides by."""
    means = torch.zeros(targets.shape, requires_grad=True)
    ((means * targets).sum() / targets.sum()).backward()
    return means.grad * targets.shape[0]


@right("loss_factors")
def by_equations(targets):
    """Each of all targets must weigh the same, and with losses that are all 1 the mean over the devices must be 1."""
    share = targets.double() / targets[0, 0]  # factors in relation to the first one
    return (share / share.sum(1).mean()).float()


@wrong("loss_factors", "right for a sum over the devices")
def weighted_mean(targets):
    return targets / targets.sum()


@wrong("loss_factors", "its own targets only")
def own_targets(targets):
    return torch.stack([row / row.sum() for row in targets])


@wrong("loss_factors", "however many targets it has")
def mean_of_parts(targets):
    return torch.ones(targets.shape) / targets.shape[1]


@wrong("loss_factors", "each factor is 1")
def no_factor(targets):
    return torch.ones_like(targets).float()


@wrong("loss_factors")
def moment_by_moment(targets):
    devices, parts = targets.shape
    return devices / parts * targets / targets.sum(dim=0)


@wrong("loss_factors")
def moments_added(targets):
    return targets / targets.float().mean(0)


@wrong("loss_factors", "the number of all parts is too much")
def divided_by_mean(targets):
    return targets / targets.float().mean()


@wrong("loss_factors")
def divided_by_parts(targets):
    devices, parts = targets.shape
    return targets * devices / targets.sum() / parts


@wrong("loss_factors", "divides the factor once more")
def divided_by_devices(targets):
    return targets / (targets.sum() * len(targets))


@wrong("loss_factors", "at index [0, 0] it has")
def inverse(targets):
    return targets.sum() / targets / targets.shape[0]


@wrong("loss_factors", "at index [0, 0] it has")
def only_sums(targets):
    return targets.to(torch.float32)


@wrong("loss_factors")
def devices_weighted(targets):
    devices, parts = targets.shape
    weight = devices * targets.sum(1) / targets.sum()
    return (weight / parts)[:, None].repeat(1, parts)


@wrong("loss_factors", "at index [0, 0] it has")
def parts_for_devices(targets):
    return targets * targets.size(1) / targets.sum()


@wrong("loss_factors", "float64")
def in_double(targets):
    return targets.double() * len(targets) / targets.sum()


@wrong("loss_factors", "in place")
def counts_overwritten(targets):
    total = targets.sum()
    targets *= len(targets)
    return targets / total


@wrong("loss_factors", "is there a `return`?")
def factors_without_return(targets):
    len(targets) * targets / targets.sum()


@wrong("loss_factors")
def rounded_to_whole(targets):
    return (len(targets) * targets // targets.sum()).float()


# ---------------------------------------------------------------- recursive_doubling


@right("recursive_doubling")
def groups_of_two_to_the_k(held, rounds):
    """After the rounds each has the sum of its group of 2^rounds that follow one another."""
    size = 2**rounds
    sums = [held[start : start + size].sum(0) for start in range(0, len(held), size)]
    return torch.stack([sums[r // size] for r in range(len(held))])


@right("recursive_doubling")
def as_a_matrix(held, rounds):
    """Each round is a matrix with two ones in each row."""
    n = len(held)
    for k in range(rounds):
        who = torch.eye(n, dtype=held.dtype)
        for r in range(n):
            who[r, r + 2**k if (r >> k) % 2 == 0 else r - 2**k] = 1
        held = who @ held
    return held


@right("recursive_doubling")
def by_reshaping(held, rounds):
    shape, distance = held.shape, 1
    for _ in range(rounds):
        pairs = held.reshape(-1, 2, distance, shape[1])
        held = (pairs + pairs.flip(1)).reshape(shape)
        distance *= 2
    return held


@wrong("recursive_doubling", "already added up")
def one_after_the_other_in_a_pair(held, rounds):
    held = held.clone()
    for k in range(rounds):
        for r in range(len(held)):
            held[r] += held[r ^ (1 << k)]
    return held


@wrong("recursive_doubling", "does not send to it")
def jumps_to_the_right(held, rounds):
    for k in range(rounds):
        held = held + held.roll(-(2**k), 0)
    return held


@wrong("recursive_doubling")
def jumps_to_the_left(held, rounds):
    for k in range(rounds):
        held = held + held.roll(2**k, 0)
    return held


@wrong("recursive_doubling")
def always_the_neighbour(held, rounds):
    n = len(held)
    for _ in range(rounds):
        held = torch.stack([held[r] + held[(r + 1) % n] for r in range(n)])
    return held


@wrong("recursive_doubling", "meet in each round")
def always_the_same_pairs(held, rounds):
    for _ in range(rounds):
        pairs = held.view(-1, 2, held.shape[1]) if len(held) > 1 else held[None]
        held = pairs.sum(1, keepdim=True).expand(pairs.shape).reshape(held.shape)
    return held


@wrong("recursive_doubling")
def distances_one_two_three(held, rounds):
    for distance in range(1, rounds + 1):
        held = held + held[[r ^ distance for r in range(len(held))]]
    return held


@wrong("recursive_doubling", "widest pairs come first")
def halving_distances(held, rounds):
    distance = len(held) // 2
    for _ in range(rounds):
        held = held + held[[r ^ distance for r in range(len(held))]]
        distance //= 2
    return held


@wrong("recursive_doubling", "2^0 = 1 apart")
def rounds_from_one(held, rounds):
    for k in range(1, rounds + 1):
        held = held + held[[r ^ 2**k for r in range(len(held))]]
    return held


@wrong("recursive_doubling")
def last_round_missing(held, rounds):
    for k in range(rounds - 1):
        held = held + held[torch.arange(len(held)) ^ 2**k]
    return held


@wrong("recursive_doubling", "what comes in replaces")
def swaps(held, rounds):
    for k in range(rounds):
        held = held[torch.arange(len(held)) ^ 2**k]
    return held


@wrong("recursive_doubling", "at index [1, 0] it has")
def reduces_to_the_first(held, rounds):
    held = held.clone()
    for k in range(rounds):
        for r in range(len(held)):
            if (r // 2**k) % 2 == 0:
                held[r] += held[r + 2**k]
    return held


@wrong("recursive_doubling")
def halves_each_time(held, rounds):
    for k in range(rounds):
        held = (held + held[torch.arange(len(held)) ^ 2**k]) / 2
    return held


@wrong("recursive_doubling", "rounds = 2")
def the_whole_sum(held, rounds):
    return held.sum(0, keepdim=True).repeat(len(held), 1)


@wrong("recursive_doubling", "rounds = 2")
def even_and_odd(held, rounds):
    n = len(held)
    for k in range(rounds):
        held = held + held[[(r + 2**k if r % 2 == 0 else r - 2**k) % n for r in range(n)]]
    return held


@wrong("recursive_doubling", "in place")
def adds_in_place(held, rounds):
    for k in range(rounds):
        held += held[torch.arange(len(held)) ^ 2**k]
    return held


@wrong("recursive_doubling", "is there a `return`?")
def doubling_without_return(held, rounds):
    for k in range(rounds):
        held = held + held[torch.arange(len(held)) ^ 2**k]


@wrong("recursive_doubling", "IndexError")
def partner_always_above(held, rounds):
    for k in range(rounds):
        held = torch.stack([held[r] + held[r + 2**k] for r in range(len(held))])
    return held


# ---------------------------------------------------------------- cards_needed


@right("cards_needed")
def tries_numbers(parameters, memory, stage):
    """The bytes on a card, times n, so that all is whole numbers."""
    for n in range(1, 500):
        weight, gradient, moments = (
            (1 if stage > 2 else n),
            (1 if stage > 1 else n),
            (1 if stage > 0 else n),
        )
        if parameters * (2 * weight + 2 * gradient + 12 * moments) <= memory * n:
            return n
    return 0


@right("cards_needed")
def stage_by_stage(parameters, memory, stage):
    if stage == 0:
        return int(16 * parameters <= memory)
    if stage == 3:
        return math.ceil(16 * parameters / memory)
    kept = 4 if stage == 1 else 2
    if memory <= kept * parameters:
        return 0
    return math.ceil((16 - kept) * parameters / (memory - kept * parameters))


@right("cards_needed")
def by_bisection(parameters, memory, stage):
    def fits(n):
        per = 2 / (n if stage == 3 else 1) + 2 / (n if stage >= 2 else 1) + 12 / (n if stage else 1)
        return per * parameters <= memory * (1 + 1e-12)

    low, high = 0, 100_000
    if not fits(high):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


@wrong("cards_needed")
def all_in_float32(parameters, memory, stage):
    for n in range(1, 1000):
        per = (
            4 / (n if stage >= 3 else 1)
            + 4 / (n if stage >= 2 else 1)
            + 8 / (n if stage >= 1 else 1)
        )
        if per * parameters <= memory:
            return n
    return 0


@wrong("cards_needed", "12 bytes, not 8")
def no_float32_copy(parameters, memory, stage):
    for n in range(1, 1000):
        per = (
            2 / (n if stage >= 3 else 1)
            + 2 / (n if stage >= 2 else 1)
            + 8 / (n if stage >= 1 else 1)
        )
        if per * parameters <= memory:
            return n
    return 0


@wrong("cards_needed", "no number of cards is enough")
def no_weight_in_16_bits(parameters, memory, stage):
    for n in range(1, 1000):
        per = 2 / (n if stage >= 2 else 1) + 12 / (n if stage >= 1 else 1)
        if per * parameters <= memory:
            return n
    return 0


@wrong("cards_needed", "stage = 0: no number of cards is enough")
def always_stage_three(parameters, memory, stage):
    return math.ceil(16 * parameters / memory)


@wrong("cards_needed")
def weights_first(parameters, memory, stage):
    for n in range(1, 1000):
        per = (
            2 / (n if stage >= 1 else 1)
            + 2 / (n if stage >= 2 else 1)
            + 12 / (n if stage >= 3 else 1)
        )
        if per * parameters <= memory:
            return n
    return 0


@wrong("cards_needed", "one thing alone")
def one_thing_a_stage(parameters, memory, stage):
    for n in range(1, 1000):
        per = (
            2 / (n if stage == 3 else 1)
            + 2 / (n if stage == 2 else 1)
            + 12 / (n if stage == 1 else 1)
        )
        if per * parameters <= memory:
            return n
    return 0


@wrong("cards_needed", "no number of cards is enough")
def gradients_in_stage_one(parameters, memory, stage):
    for n in range(1, 1000):
        per = 2 / (n if stage >= 3 else 1) + 14 / (n if stage >= 1 else 1)
        if per * parameters <= memory:
            return n
    return 0


@wrong("cards_needed", "stage = 3: it returns 0")
def weights_stay(parameters, memory, stage):
    whole = {0: 16, 1: 4}.get(stage, 2) * parameters
    if stage == 0:
        return int(memory >= whole)
    return math.ceil((16 * parameters - whole) / (memory - whole)) if memory > whole else 0


@wrong("cards_needed", "rounded down")
def floors(parameters, memory, stage):
    whole = [16, 4, 2, 0][stage] * parameters
    if stage == 0:
        return int(memory >= whole)
    return max((16 * parameters - whole) // (memory - whole), 1) if memory > whole else 0


@wrong("cards_needed", "exactly full")
def strictly_less(parameters, memory, stage):
    for n in range(1, 1000):
        weight, gradient, moments = (
            (1 if stage > 2 else n),
            (1 if stage > 1 else n),
            (1 if stage > 0 else n),
        )
        if parameters * (2 * weight + 2 * gradient + 12 * moments) < memory * n:
            return n
    return 0


@wrong("cards_needed", "more cards do not help")
def pools_the_memory_of_ddp(parameters, memory, stage):
    whole = (0, 4, 2, 0)[stage] * parameters
    return math.ceil((16 * parameters - whole) / (memory - whole)) if memory > whole else 0


@wrong("cards_needed", "no number of cards is enough")
def never_asks_whether(parameters, memory, stage):
    whole = (16, 4, 2, 0)[stage] * parameters
    if stage == 0:
        return int(memory >= whole)
    return math.ceil((16 * parameters - whole) / (memory - whole)) if memory != whole else 0


@wrong("cards_needed", "ZeroDivisionError")
def nothing_left_to_divide_by(parameters, memory, stage):
    whole = (16, 4, 2, 0)[stage] * parameters
    if memory < whole:
        return 0
    return math.ceil((16 * parameters - whole) / (memory - whole)) if stage else 1


@wrong("cards_needed", "no number of cards is enough")
def at_least_one(parameters, memory, stage):
    whole = (16, 4, 2, 0)[stage] * parameters
    return max(1, math.ceil((16 * parameters - whole) / (memory - whole))) if memory > whole else 1


@wrong("cards_needed", "it returns 0, but")
def all_of_it_or_never(parameters, memory, stage):
    if 16 * parameters > memory:
        return 0
    return 1


@wrong("cards_needed", "is there a `return`?")
def cards_without_return(parameters, memory, stage):
    whole = (16, 4, 2, 0)[stage] * parameters
    math.ceil((16 * parameters - whole) / (memory - whole)) if memory > whole else 0


# ---------------------------------------------------------------- split_step


@wrong("split_step", "windows are lost where they cannot be divided evenly")
def rounds_the_share_down(windows, ranks, fits):
    share = windows // ranks
    size = fits
    while share % size != 0:
        size -= 1
    return [size, share // size]


@right("split_step")
def fewest_parts(windows, ranks, fits):
    for parts in range(1, windows + 1):
        if windows % (ranks * parts) == 0 and windows // (ranks * parts) <= fits:
            return [windows // (ranks * parts), parts]
    return []


@right("split_step")
def all_pairs(windows, ranks, fits):
    pairs = [
        (size, parts)
        for size in range(1, fits + 1)
        for parts in range(1, windows + 1)
        if size * parts * ranks == windows
    ]
    return list(sorted(pairs)[-1]) if pairs else []


@right("split_step")
def counts_down(windows, ranks, fits):
    if windows / ranks != int(windows / ranks):
        return []
    own = int(windows / ranks)
    size = min(own, fits)
    while own % size:
        size -= 1
    return [size, own // size]


@wrong("split_step", "first batch_size, then grad_accum")
def the_other_way_round(windows, ranks, fits):
    if windows % ranks:
        return []
    own = windows // ranks
    size = max(s for s in range(1, fits + 1) if own % s == 0)
    return [own // size, size]


@wrong("split_step", "it is another step")
def all_of_it_on_each(windows, ranks, fits):
    size = max(s for s in range(1, fits + 1) if windows % s == 0)
    return [size, windows // size]


@wrong("split_step", "it is another step")
def rounds_up(windows, ranks, fits):
    if windows % ranks:
        return []
    parts = math.ceil(windows / ranks / fits)
    return [math.ceil(windows / ranks / parts), parts]


@wrong("split_step", "it is another step")
def fills_the_card(windows, ranks, fits):
    if windows % ranks:
        return []
    own = windows // ranks
    size = min(fits, own)
    return [size, own // size]


@wrong("split_step", "but a list [] was expected")
def rest_forgotten(windows, ranks, fits):
    own = max(windows // ranks, 1)
    size = max(s for s in range(1, fits + 1) if own % s == 0)
    return [size, own // size]


@wrong("split_step", "what one process reads")
def batch_of_all(windows, ranks, fits):
    if windows % ranks:
        return []
    size = max(s for s in range(1, fits + 1) if windows // ranks % s == 0)
    return [size * ranks, windows // ranks // size]


@wrong("split_step", "it is another step")
def batches_of_all(windows, ranks, fits):
    if windows % ranks:
        return []
    size = max(s for s in range(1, fits + 1) if windows // ranks % s == 0)
    return [size, windows // size]


@wrong("split_step", "larger batches would fit, too")
def one_at_a_time(windows, ranks, fits):
    return [] if windows % ranks else [1, windows // ranks]


@wrong("split_step", "larger batches would fit, too")
def fewer_than_fit(windows, ranks, fits):
    if windows % ranks:
        return []
    own, parts = windows // ranks, 1
    while own % parts or own // parts >= fits:
        parts += 1
        if parts > own:
            return [1, own]
    return [own // parts, parts]


@wrong("split_step", "larger batches would fit, too")
def room_shared(windows, ranks, fits):
    if windows % ranks:
        return []
    own = windows // ranks
    size = max(s for s in range(1, max(fits // ranks, 1) + 1) if own % s == 0)
    return [size, own // size]


@wrong("split_step", "the batches do not fit")
def no_parts(windows, ranks, fits):
    return [] if windows % ranks else [windows // ranks, 1]


@wrong("split_step", "larger batches would fit, too")
def powers_of_two(windows, ranks, fits):
    if windows % ranks:
        return []
    own, size = windows // ranks, 1
    while 2 * size <= fits and own % (2 * size) == 0:
        size *= 2
    return [size, own // size]


@wrong("split_step", "is there a `return`?")
def split_without_return(windows, ranks, fits):
    if windows % ranks:
        return []
    size = max(s for s in range(1, fits + 1) if windows // ranks % s == 0)
    [size, windows // ranks // size]
