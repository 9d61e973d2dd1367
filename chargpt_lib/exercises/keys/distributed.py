"""How the exercises of lesson 13 are judged: cases, mistakes, symptoms."""

import torch

from chargpt_lib.exercises.answers.distributed import (
    cards_needed,
    loss_factors,
    recursive_doubling,
    split_step,
)
from chargpt_lib.exercises.judge import exercise

exercise(
    loss_factors,
    stars=2,
    minutes=6,
    atol=1e-7,
    cases=lambda draw: [
        [draw.ids(40, 2, 1) + 1],
        [draw.ids(40, 3, 2) + 1],
        [draw.ids(90, draw.integer(4, 6), 3) + 1],
        [draw.ids(40, 1, draw.integer(2, 5)) + 1],
        [draw.ids(90, 2, 2) + 1],
        [torch.full((draw.integer(2, 4), 2), draw.integer(2, 9))],
        [draw.ids(9, 1, 1) + 1],
    ],
    wrong={
        ### BEGIN SOLUTION
        "the sum over the devices would be right; but DDP divides it by their number": lambda t: (
            t / t.sum()
        ),
        "each device counts its own targets only: all targets of all devices make the mean": lambda t: (
            t / t.sum(1, keepdim=True)
        ),
        "each part gets the same say, however many targets it has": lambda t: torch.full(
            t.shape, 1 / t.shape[1]
        ),
        "nothing is multiplied: gradients of parts are added up, and each part counts the same": lambda t: (
            torch.ones(t.shape)
        ),
        "only parts that are read at the same moment are compared: a step has all parts of all devices": lambda t: (
            len(t) * t / t.sum(0) / t.shape[1]
        ),
        "only parts that are read at the same moment are compared, and each such moment counts as a whole step": lambda t: (
            len(t) * t / t.sum(0)
        ),
        "`backward` adds up a device's parts, nothing divides by their number: only DDP divides": lambda t: (
            t.numel() * t / t.sum()
        ),
        "it divides by the number of parts as well: all targets are in the sum already": lambda t: (
            len(t) * t / t.sum() / t.shape[1]
        ),
        "DDP divides by the number of devices; here it is divided by it once more, not multiplied": lambda t: (
            t / t.sum() / len(t)
        ),
        "upside down: a part with many targets must count more": lambda t: t.sum() / (len(t) * t),
        "a mean times its targets is a sum; it is never divided by the number of all targets": lambda t: (
            t.float()
        ),
        "a sum over the targets, times the devices: it is never divided by the number of all targets": lambda t: (
            len(t) * t.float()
        ),
        "the devices have the right weight; but in a device each part counts the same": lambda t: (
            len(t) * t.sum(1, keepdim=True) / t.sum() / t.shape[1]
        ).expand(t.shape),
        "the parts of a device have the right weight; but each device counts the same": lambda t: (
            t / t.sum(1, keepdim=True) / len(t)
        ),
        "it multiplies by the number of parts; DDP divides by the number of devices": lambda t: (
            t.shape[1] * t / t.sum()
        ),
        ### END SOLUTION
    },
)


### BEGIN SOLUTION
def recursive_doubling_as(
    partner=lambda r, k, n: r ^ 2**k, to=lambda own, other, r, k: own + other, more=0
):
    """partner(r, k, n): whom device r hears in round k; to(own, other, r, k): what r has then."""

    def hold(held, rounds):
        for k in range(max(rounds + more, 0)):
            held = torch.stack(
                [to(own, held[partner(r, k, len(held))], r, k) for r, own in enumerate(held)]
            )
        return held

    return hold


def recursive_doubling_in_turn(held, rounds):
    held = held.clone()
    for k in range(rounds):
        for r in range(len(held)):
            held[r] = held[r] + held[r ^ 2**k]
    return held


### END SOLUTION


exercise(
    recursive_doubling,
    stars=2,
    minutes=8,
    cases=lambda draw: [
        [draw.normal(8, draw.integer(2, 4)), 3],
        [draw.normal(8, 2, dtype=torch.float64), 2],
        [draw.normal(16, draw.integer(1, 3)), 3],
        [draw.normal(4, 3), 1],
        [draw.normal(2, 1), 1],
        [draw.normal(4, 2), 0],
        [draw.normal(1, draw.integer(1, 3)), 0],
    ],
    wrong={
        ### BEGIN SOLUTION
        "the second of a pair gets what the first has already added up: both send what they held before the round": recursive_doubling_in_turn,
        "that is a ring of jumps, not pairs: who hears from r + 2^k does not send to it": recursive_doubling_as(
            lambda r, k, n: (r + 2**k) % n
        ),
        "that is a ring of jumps, not pairs: who hears from r - 2^k does not send to it": recursive_doubling_as(
            lambda r, k, n: r - 2**k
        ),
        "everybody hears its neighbour in the ring in each round: here the pairs are 2^k apart": recursive_doubling_as(
            lambda r, k, n: (r + 1) % n
        ),
        "the pairs of round 0 meet in each round: the distance doubles": recursive_doubling_as(
            lambda r, k, n: r ^ 1
        ),
        "the distances are 1, 2, 4: they double, here they grow by one": recursive_doubling_as(
            lambda r, k, n: r ^ (k + 1)
        ),
        "the widest pairs come first; they come last": recursive_doubling_as(
            lambda r, k, n: r ^ (n >> (k + 1))
        ),
        "in the first round the pairs are 1 apart, 2 to the power of 0": recursive_doubling_as(
            lambda r, k, n: r ^ 2 ** (k + 1)
        ),
        "one round too few": recursive_doubling_as(more=-1),
        "what comes replaces what was there: it is added": recursive_doubling_as(
            to=lambda own, other, r, k: other
        ),
        "only the first of a pair gets the sum: both do": recursive_doubling_as(
            to=lambda own, other, r, k: own if r >> k & 1 else own + other
        ),
        "that is a mean: nothing is divided": recursive_doubling_as(
            to=lambda own, other, r, k: (own + other) / 2
        ),
        "that is what they hold in the end; after fewer rounds each has a part of the sum": lambda held, rounds: (
            held.sum(0).expand(held.shape)
        ),
        "even devices look up and odd ones down: that holds in round 0; in round k it is r // 2^k that is even or odd": recursive_doubling_as(
            lambda r, k, n: (r - 2**k if r % 2 else r + 2**k) % n
        ),
        ### END SOLUTION
    },
)


def cards_needed_case(draw, stage, n, exactly=False):
    """So much memory that n cards are needed: exactly full, or somewhat more than that."""
    parameters = 64 * draw.integer(10**6, 10**8)
    whole = (16, 4, 2, 0)[stage] * parameters
    cut = 16 * parameters - whole
    return [
        parameters,
        whole + (cut // n if exactly else int(cut / (n - draw.number(0.6, 0.8)))),
        stage,
    ]


### BEGIN SOLUTION
def cards_needed_as(
    parameters,
    memory,
    stage,
    sizes=(2, 2, 12),
    cut_from=(3, 2, 1),
    only=False,
    up=True,
    full=True,
    ever=True,
):
    """sizes: bytes of weight, gradient, optimizer; cut_from: from which stage on each is cut; only: at no other."""
    cut = [
        size * (stage == first if only else stage >= first) for size, first in zip(sizes, cut_from)
    ]
    left = memory - (sum(sizes) - sum(cut)) * parameters
    if left < 0 or left == 0 and sum(cut):
        return 0 if ever else 1
    if not sum(cut):
        return 1
    n, rest = divmod(sum(cut) * parameters, left)
    return n + 1 if rest and up or not rest and not full else max(n, 1)


### END SOLUTION


exercise(
    cards_needed,
    stars=2,
    minutes=8,
    cases=lambda draw: [
        cards_needed_case(draw, 1, draw.integer(3, 9)),
        cards_needed_case(draw, 2, draw.integer(3, 9)),
        cards_needed_case(draw, 3, draw.integer(10, 40)),
        cards_needed_case(draw, 2, draw.integer(20, 60)),
        cards_needed_case(draw, 1, 2),
        cards_needed_case(draw, 2, 2),
        cards_needed_case(draw, draw.integer(1, 3), draw.choice([2, 4, 8]), exactly=True),
        [n := draw.integer(10**6, 10**9), 16 * n + draw.integer(0, n), 0],
        [n := draw.integer(10**6, 10**9), 15 * n + draw.integer(1, n - 1), 0],
        [n := draw.integer(10**6, 10**9), 3 * n + draw.integer(1, n - 1), 1],
        [n := draw.integer(10**6, 10**9), 20 * n, 3],
        [n := draw.integer(10**6, 10**9), 2 * n, 2],
    ],
    wrong={
        ### BEGIN SOLUTION
        "that is float32, with 4, 4 and 8 bytes: in mixed precision it is 2, 2 and 12": lambda P, memory, stage: (
            cards_needed_as(P, memory, stage, (4, 4, 8))
        ),
        "the optimizer keeps the weight in float32, too: 12 bytes, not 8": lambda P, memory, stage: (
            cards_needed_as(P, memory, stage, (2, 2, 8))
        ),
        "the optimizer's 12 bytes hold the weight in float32, but the one in 16 bits is there, too": lambda P, memory, stage: (
            cards_needed_as(P, memory, stage, (0, 2, 12))
        ),
        "16 bytes are cut in all stages: only stage 3 cuts all": lambda P, memory, stage: (
            -(-16 * P // memory)
        ),
        "weights are not cut first: stage 1 cuts the optimizer's 12 bytes, stage 3 the weight's 2": lambda P, memory, stage: (
            cards_needed_as(P, memory, stage, cut_from=(1, 2, 3))
        ),
        "stage 2 cuts what stage 1 cuts, and more: here each stage cuts one thing alone": lambda P, memory, stage: (
            cards_needed_as(P, memory, stage, only=True)
        ),
        "the gradient is cut from stage 2 on, not from stage 1 on": lambda P, memory, stage: (
            cards_needed_as(P, memory, stage, cut_from=(3, 1, 1))
        ),
        "the gradient is never cut: stages 2 and 3 cut it": lambda P, memory, stage: (
            cards_needed_as(P, memory, stage, cut_from=(3, 9, 1))
        ),
        "the weight is never cut: stage 3 cuts it": lambda P, memory, stage: cards_needed_as(
            P, memory, stage, cut_from=(9, 2, 1)
        ),
        "it is rounded down: with so few cards a part does not fit": lambda P, memory, stage: (
            cards_needed_as(P, memory, stage, up=False)
        ),
        "one card too many where the cards are exactly full": lambda P, memory, stage: (
            cards_needed_as(P, memory, stage, full=False)
        ),
        "1 card is not enough where none is: return 0": lambda P, memory, stage: cards_needed_as(
            P, memory, stage, ever=False
        ),
        "DDP cuts nothing: in stage 0 more cards do not help": lambda P, memory, stage: (
            -(-16 * P // memory) if stage == 0 else cards_needed(P, memory, stage)
        ),
        ### END SOLUTION
    },
    signs={
        "a negative number of cards: what every card holds whole does not fit": lambda got, want, *_: (
            got < 0
        ),
        "no number of cards is enough: what every card holds whole does not fit, or leaves no room": (
            lambda got, want, *_: want == 0
        ),
        "there is a number that is enough: it is the parts only that have to fit into what is left": (
            lambda got, want, *_: got == 0
        ),
    },
)


### BEGIN SOLUTION
def split_step_as(windows, ranks, fits, own=lambda windows, ranks: windows // ranks, even=True):
    if even and windows % ranks:
        return []
    own = max(own(windows, ranks), 1)
    size = max(size for size in range(1, max(fits, 1) + 1) if own % size == 0)
    return [size, own // size]


### END SOLUTION


exercise(
    split_step,
    stars=2,
    minutes=8,
    cases=lambda draw: [
        [77 * (n := draw.integer(3, 9)), n, draw.integer(8, 10)],
        [8 * (n := draw.integer(3, 6)), n, draw.integer(8, 11)],
        [65 * (n := draw.integer(2, 4)), n, draw.integer(6, 9)],
        [(size := draw.integer(5, 9)) * draw.integer(3, 5) * (n := draw.integer(2, 6)), n, size],
        [(own := draw.integer(5, 30)) * (n := draw.integer(2, 6)), n, own + draw.integer(0, 9)],
        [draw.choice([11, 13, 17, 19]) * 3, 3, draw.integer(4, 9)],
        [draw.integer(2, 9) * 12, 1, draw.integer(5, 9)],
        [
            (n := draw.integer(3, 6)) * draw.integer(20, 40) + draw.integer(1, n - 1),
            n,
            draw.integer(5, 9),
        ],
        [draw.integer(1, 3), draw.integer(4, 9), draw.integer(2, 9)],
        [1, 1, 1],
    ],
    wrong={
        ### BEGIN SOLUTION
        "first batch_size, then grad_accum": lambda windows, ranks, fits: split_step(
            windows, ranks, fits
        )[::-1],
        "each card reads all windows of the step: it has one part of `ranks`": lambda windows, ranks, fits: (
            split_step_as(windows, ranks, fits, lambda windows, ranks: windows)
        ),
        "each card reads all windows of the step, even or not: it has one part of `ranks`": lambda windows, ranks, fits: (
            split_step_as(windows, ranks, fits, lambda windows, ranks: windows, False)
        ),
        "the rest is lost where the windows cannot be dealt out evenly: return []": lambda windows, ranks, fits: (
            split_step_as(windows, ranks, fits, even=False)
        ),
        "batch_size is what one process reads: that is what all read together": lambda windows, ranks, fits: [
            number * factor for number, factor in zip(split_step(windows, ranks, fits), (ranks, 1))
        ],
        "the processes read at the same time: grad_accum counts the batches of one, not of all": lambda windows, ranks, fits: [
            number * factor for number, factor in zip(split_step(windows, ranks, fits), (1, ranks))
        ],
        "one window at a time always fits, but larger batches do, too": lambda windows, ranks, fits: (
            [1, windows // ranks] if windows % ranks == 0 else []
        ),
        "exactly `fits` windows fit, too: at most means <=": lambda windows, ranks, fits: (
            split_step_as(windows, ranks, fits - 1)
        ),
        "`fits` is what one card has room for, not all of them": lambda windows, ranks, fits: (
            split_step_as(windows, ranks, fits // ranks)
        ),
        ### END SOLUTION
    },
    signs={
        "the batches do not fit on a card": lambda got, want, windows, ranks, fits: got[0] > fits,
        "batch_size · grad_accum · ranks is not `windows`: it is another step": (
            lambda got, want, windows, ranks, fits: got[0] * got[1] * ranks != windows
        ),
        "it is the same step, and it fits; but larger batches would fit, too": (
            lambda got, want, windows, ranks, fits: got[0] < want[0]
        ),
    },
)
