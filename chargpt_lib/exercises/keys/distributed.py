"""How the exercises of lesson 13 are judged: cases, mistakes, symptoms."""

import torch

from chargpt_lib.exercises.answers.distributed import (
    cards_needed,
    loss_factors,
    recursive_doubling,
    split_step,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- loss_factors


def loss_factors_case(draw, most, devices, parts):
    """Each part has from 1 to `most` targets."""
    return [draw.ids(most, devices, parts) + 1]


def loss_factors_cases(draw):
    equal_parts = torch.full((draw.integer(2, 4), 2), draw.integer(2, 9))
    return [
        loss_factors_case(draw, 40, 2, 1),
        loss_factors_case(draw, 40, 3, 2),
        loss_factors_case(draw, 90, draw.integer(4, 6), 3),
        loss_factors_case(draw, 40, 1, draw.integer(2, 5)),
        loss_factors_case(draw, 90, 2, 2),
        [equal_parts],
        loss_factors_case(draw, 9, 1, 1),
    ]


LOSS_FACTORS = exercise(loss_factors, stars=2, minutes=6, atol=1e-7, cases=loss_factors_cases)


### BEGIN SOLUTION
@LOSS_FACTORS.mistake(
    "these factors are right for a sum over the devices; DDP divides it by the number of devices"
)
def loss_factors_for_a_sum(targets):
    return targets / targets.sum()


@LOSS_FACTORS.mistake(
    "each device counts its own targets only; the mean is over the targets of all devices"
)
def loss_factors_own_targets(targets):
    return targets / targets.sum(1, keepdim=True)


@LOSS_FACTORS.mistake("each part weighs the same, however many targets it has")
def loss_factors_parts_alike(targets):
    parts = targets.shape[1]
    return torch.full(targets.shape, 1 / parts)


@LOSS_FACTORS.mistake("each factor is 1: the losses of the parts are added up, and weigh the same")
def loss_factors_all_1(targets):
    return torch.ones(targets.shape)


@LOSS_FACTORS.mistake(
    "the number of all parts is too much: `backward` adds up a device's parts, and DDP divides by "
    "the number of devices"
)
def loss_factors_times_all_parts(targets):
    return targets.numel() * targets / targets.sum()


@LOSS_FACTORS.mistake(
    "DDP divides by the number of devices, so multiply by it; here it divides the factor once more"
)
def loss_factors_divided_again(targets):
    devices = len(targets)
    return targets / targets.sum() / devices


### END SOLUTION


# ---------------------------------------------------------------- recursive_doubling


def recursive_doubling_cases(draw):
    return [
        [draw.normal(8, draw.integer(2, 4)), 3],
        # Not all of the rounds.
        [draw.normal(8, 2, dtype=torch.float64), 2],
        [draw.normal(16, draw.integer(1, 3)), 3],
        [draw.normal(4, 3), 1],
        [draw.normal(2, 1), 1],
        [draw.normal(4, 2), 0],
        [draw.normal(1, draw.integer(1, 3)), 0],
    ]


RECURSIVE_DOUBLING = exercise(
    recursive_doubling, stars=2, minutes=8, cases=recursive_doubling_cases
)


### BEGIN SOLUTION
@RECURSIVE_DOUBLING.mistake(
    "the second of a pair gets what the first has already added up; both send what they had before "
    "the round"
)
def recursive_doubling_in_turn(held, rounds):
    held = held.clone()
    for k in range(rounds):
        for device in range(len(held)):
            partner = device ^ 2**k
            held[device] += held[partner]
    return held


@RECURSIVE_DOUBLING.mistake(
    "these are no pairs: device r hears from device r + 2^k, but does not send to it"
)
def recursive_doubling_in_a_ring(held, rounds):
    n = len(held)
    for k in range(rounds):
        senders = [(device + 2**k) % n for device in range(n)]
        held = held + held[senders]
    return held


@RECURSIVE_DOUBLING.mistake("the pairs of round 0 meet in each round; the distance should double")
def recursive_doubling_same_pairs(held, rounds):
    for _ in range(rounds):
        partners = [device ^ 1 for device in range(len(held))]
        held = held + held[partners]
    return held


@RECURSIVE_DOUBLING.mistake("the widest pairs come first; they should come last")
def recursive_doubling_widest_first(held, rounds):
    distance = len(held) // 2
    for _ in range(rounds):
        partners = [device ^ distance for device in range(len(held))]
        held = held + held[partners]
        distance //= 2
    return held


@RECURSIVE_DOUBLING.mistake("round 0 has pairs that are 2 apart; they should be 2^0 = 1 apart")
def recursive_doubling_rounds_from_1(held, rounds):
    for k in range(1, rounds + 1):
        partners = [device ^ 2**k for device in range(len(held))]
        held = held + held[partners]
    return held


@RECURSIVE_DOUBLING.mistake("what comes in replaces what a device had; it should be added")
def recursive_doubling_replaces(held, rounds):
    for k in range(rounds):
        partners = [device ^ 2**k for device in range(len(held))]
        held = held[partners]
    return held


### END SOLUTION


# ---------------------------------------------------------------- cards_needed


### BEGIN SOLUTION
WHOLE_BYTES = (16, 4, 2, 0)  # bytes of a parameter that every card holds, by stage


def cards_needed_case(draw, stage, cards, exactly=False):
    """So much memory that this many cards are needed: exactly full, or somewhat more than that."""
    parameters = 64 * draw.integer(10**6, 10**8)
    whole = WHOLE_BYTES[stage] * parameters
    cut = 16 * parameters - whole
    if exactly:
        return [parameters, whole + cut // cards, stage]
    part = cut / (cards - draw.number(0.6, 0.8))
    return [parameters, whole + int(part), stage]


### END SOLUTION


def cards_needed_cases(draw):
    cases = [
        cards_needed_case(draw, 1, draw.integer(3, 9)),
        cards_needed_case(draw, 2, draw.integer(3, 9)),
        cards_needed_case(draw, 3, draw.integer(10, 40)),
        cards_needed_case(draw, 2, draw.integer(20, 60)),
        cards_needed_case(draw, 1, 2),
        cards_needed_case(draw, 2, 2),
        cards_needed_case(draw, draw.integer(1, 3), draw.choice([2, 4, 8]), exactly=True),
    ]
    parameters = draw.integer(10**6, 10**9)
    # Less than one byte for each parameter.
    little = draw.integer(1, parameters - 1)
    return [
        *cases,
        # One card is enough.
        [parameters, 16 * parameters + little, 0],
        [parameters, 20 * parameters, 3],
        # No number of cards is enough.
        [parameters, 15 * parameters + little, 0],
        [parameters, 3 * parameters + little, 1],
        # What every card holds fits exactly, and leaves no room for a part.
        [parameters, 2 * parameters, 2],
    ]


CARDS_NEEDED = exercise(cards_needed, stars=2, minutes=8, cases=cards_needed_cases)


@CARDS_NEEDED.symptom(
    "no number of cards is enough: what every card holds whole does not fit, or leaves no room"
)
def cards_needed_never_enough(got, want, parameters, memory, stage):
    return want == 0


### BEGIN SOLUTION
def cards_for_parts(cut, left):
    """How many cards have room for parts of `cut` bytes, if each has `left` bytes for its part."""
    if left <= 0:
        return 0
    return -(-cut // left)


@CARDS_NEEDED.mistake("the optimizer keeps the weight in float32, too: 12 bytes, not 8")
def cards_needed_without_float32_copy(parameters, memory, stage):
    whole = (12, 4, 2, 0)[stage] * parameters
    cut = 12 * parameters - whole
    left = memory - whole
    if stage == 0:
        return int(left >= 0)
    return cards_for_parts(cut, left)


@CARDS_NEEDED.mistake(
    "each stage cuts one thing alone here; stage 2 cuts what stage 1 cuts, and more, and so does "
    "stage 3"
)
def cards_needed_one_thing_a_stage(parameters, memory, stage):
    whole = (16, 4, 14, 14)[stage] * parameters
    cut = 16 * parameters - whole
    left = memory - whole
    if stage == 0:
        return int(left >= 0)
    return cards_for_parts(cut, left)


@CARDS_NEEDED.mistake("the number is rounded down: with so few cards a part does not fit")
def cards_needed_rounded_down(parameters, memory, stage):
    whole = WHOLE_BYTES[stage] * parameters
    cut = 16 * parameters - whole
    left = memory - whole
    if stage == 0:
        return int(left >= 0)
    if left <= 0:
        return 0
    return max(cut // left, 1)


@CARDS_NEEDED.mistake("this is one card too many where the cards are exactly full")
def cards_needed_one_too_many(parameters, memory, stage):
    whole = WHOLE_BYTES[stage] * parameters
    cut = 16 * parameters - whole
    left = memory - whole
    if stage == 0:
        return int(left >= 0)
    if left <= 0:
        return 0
    return cut // left + 1


@CARDS_NEEDED.mistake("DDP cuts nothing: in stage 0 more cards do not help")
def cards_needed_ddp_cuts_all(parameters, memory, stage):
    whole = (0, 4, 2, 0)[stage] * parameters
    cut = 16 * parameters - whole
    return cards_for_parts(cut, memory - whole)


### END SOLUTION


# ---------------------------------------------------------------- split_step


def split_step_case(draw, own, fits):
    """own: the windows of one card."""
    ranks = draw.integer(2, 6)
    return [own * ranks, ranks, fits]


def split_step_cases(draw):
    own = draw.integer(5, 30)
    size = draw.integer(5, 9)
    prime = draw.choice([11, 13, 17, 19])
    ranks = draw.integer(3, 6)
    uneven = ranks * draw.integer(20, 40) + draw.integer(1, ranks - 1)
    return [
        # The number that fits divides neither 77 nor 65.
        split_step_case(draw, 77, draw.integer(8, 10)),
        split_step_case(draw, 65, draw.integer(6, 9)),
        # All of a card's windows fit at once.
        split_step_case(draw, 8, draw.integer(8, 11)),
        split_step_case(draw, own, own + draw.integer(0, 9)),
        # As many as fit, several times.
        split_step_case(draw, size * draw.integer(3, 5), size),
        # One at a time.
        split_step_case(draw, prime, draw.integer(4, 9)),
        # One card.
        [draw.integer(2, 9) * 12, 1, draw.integer(5, 9)],
        [1, 1, 1],
        # No even split; with fewer windows than cards there is none, either.
        [uneven, ranks, draw.integer(5, 9)],
        [draw.integer(1, 3), draw.integer(4, 9), draw.integer(2, 9)],
    ]


SPLIT_STEP = exercise(split_step, stars=2, minutes=8, cases=split_step_cases)


@SPLIT_STEP.symptom("the batches do not fit on a card")
def split_step_does_not_fit(got, want, windows, ranks, fits):
    return got[0] > fits


@SPLIT_STEP.symptom("batch_size · grad_accum · ranks is not `windows`: it is another step")
def split_step_another_step(got, want, windows, ranks, fits):
    return got[0] * got[1] * ranks != windows


@SPLIT_STEP.symptom("it is the same step, and it fits; but larger batches would fit, too")
def split_step_small_batches(got, want, windows, ranks, fits):
    return got[0] < want[0]


### BEGIN SOLUTION
@SPLIT_STEP.mistake("the two numbers are exchanged: first batch_size, then grad_accum")
def split_step_exchanged(windows, ranks, fits):
    if windows % ranks != 0:
        return []
    own = windows // ranks
    batch_size = max(size for size in range(1, fits + 1) if own % size == 0)
    return [own // batch_size, batch_size]


@SPLIT_STEP.mistake(
    "windows are lost where they cannot be divided evenly among the cards; return [] there"
)
def split_step_loses_the_rest(windows, ranks, fits):
    own = windows // ranks
    batch_size = max(size for size in range(1, fits + 1) if own % size == 0)
    return [batch_size, own // batch_size]


@SPLIT_STEP.mistake(
    "batch_size is what one process reads at a time; that is what all read together"
)
def split_step_batch_of_all(windows, ranks, fits):
    if windows % ranks != 0:
        return []
    own = windows // ranks
    batch_size = max(size for size in range(1, fits + 1) if own % size == 0)
    return [batch_size * ranks, own // batch_size]


### END SOLUTION
