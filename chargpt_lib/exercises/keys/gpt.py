"""How the exercises of lesson 06 are judged: cases, mistakes, symptoms."""

import math

import torch
from torch.nn import functional as F

from chargpt_lib.exercises.answers.gpt import (
    bits_per_byte,
    gpt_parameters,
    logit_contributions,
    sample_continuation,
    tied_gradient,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- gpt_parameters


def gpt_parameters_case(draw, family, H, N):
    """Sizes for which no two mistakes make the same difference."""
    V = draw.choice([53, 59, 61, 71, 79, 83])
    T = draw.choice([101, 103, 107, 109, 113, 127, 131])
    C = H * draw.integer(4, 20)
    return [V, T, C, H, N, family]


def gpt_parameters_cases(draw):
    return [
        gpt_parameters_case(draw, "nanoGPT", draw.integer(2, 8), draw.integer(3, 12)),
        gpt_parameters_case(draw, "lecture", draw.integer(2, 8), draw.integer(3, 12)),
        gpt_parameters_case(draw, "GPT-2", draw.integer(2, 8), draw.integer(3, 12)),
        gpt_parameters_case(draw, draw.choice(["nanoGPT", "GPT-2", "lecture"]), 1, 1),
    ]


GPT_PARAMETERS = exercise(gpt_parameters, stars=3, minutes=13, cases=gpt_parameters_cases)


@GPT_PARAMETERS.symptom("the position table is missing")
def gpt_parameters_without_positions(got, want, V, T, C, H, N, family):
    return want - got == T * C


@GPT_PARAMETERS.symptom("a tied matrix is counted twice: the token table is the last matrix")
def gpt_parameters_tied_twice(got, want, V, T, C, H, N, family):
    return family != "lecture" and got - want in (V * C, V * C + V)


@GPT_PARAMETERS.symptom("the lecture's last matrix is not tied: it counts, and so does its bias")
def gpt_parameters_lecture_tied(got, want, V, T, C, H, N, family):
    return family == "lecture" and want - got in (V, V * C, V * C + V)


@GPT_PARAMETERS.symptom("the last norm, after all blocks, is missing")
def gpt_parameters_without_last_norm(got, want, V, T, C, H, N, family):
    norm = C if family == "nanoGPT" else 2 * C
    return N > 1 and want - got == norm  # for N = 1 a norm of the block is as large


@GPT_PARAMETERS.symptom(
    "a bias is missing, or one too many: of the projection C, of the feed-forward layer 4C and C"
)
def gpt_parameters_bias(got, want, V, T, C, H, N, family):
    if N == 1 or (family == "nanoGPT" and got < want):
        return False  # what is missing may be a norm
    biases = abs(got - want)
    return biases in (N * C, 4 * N * C, 5 * N * C, 6 * N * C)


### BEGIN SOLUTION
@GPT_PARAMETERS.mistake("one block is counted, not N")
def gpt_parameters_one_block(V, T, C, H, N, family):
    return gpt_parameters(V, T, C, H, 1, family)


@GPT_PARAMETERS.mistake(
    "queries, keys and values have biases in GPT-2: three times C in each block"
)
def gpt_parameters_without_qkv_bias(V, T, C, H, N, family):
    count = gpt_parameters(V, T, C, H, N, family)
    if family == "GPT-2":
        count -= 3 * C * N
    return count


### END SOLUTION

# ---------------------------------------------------------------- logit_contributions


def logit_contributions_case(draw, L, C, dtype, scale=1):
    parts = draw.normal(L, C, dtype=dtype) + draw.normal(L, 1, dtype=dtype) + 1
    gamma = draw.uniform(C, dtype=dtype) + 0.5
    w = draw.normal(C, dtype=dtype) + 0.5
    return [scale * parts, gamma, w]


def logit_contributions_cases(draw):
    return [
        logit_contributions_case(draw, 1, 4, torch.float64),
        logit_contributions_case(draw, 2, 8, torch.float32),
        logit_contributions_case(draw, draw.integer(3, 9), 16, torch.float32),
        logit_contributions_case(draw, 4, 8, torch.float64, scale=0.01),  # here epsilon counts
        logit_contributions_case(draw, draw.integer(3, 9), draw.integer(5, 30), torch.float64),
    ]


LOGIT_CONTRIBUTIONS = exercise(
    logit_contributions, stars=3, minutes=22, cases=logit_contributions_cases
)


@LOGIT_CONTRIBUTIONS.symptom("these are fractions: they must add up to the logit, not to 1")
def logit_contributions_fractions(got, want, parts, gamma, w):
    sums_to_one = abs(got.sum() - 1) < 1e-4
    logit_is_one = abs(want.sum() - 1) <= 1e-4
    return sums_to_one and not logit_is_one


@LOGIT_CONTRIBUTIONS.symptom(
    "they add up to the logit, but each share is wrong: which steps of the norm work on each part "
    "alone?"
)
def logit_contributions_right_sum(got, want, parts, gamma, w):
    return abs(got.sum() - want.sum()) < 1e-4 * (1 + abs(want.sum()))


### BEGIN SOLUTION
@LOGIT_CONTRIBUTIONS.mistake(
    "each part is normed by itself: they share one divisor, that of the whole x"
)
def logit_contributions_normed_parts(parts, gamma, w):
    return F.layer_norm(parts, gamma.shape, gamma) @ w


@LOGIT_CONTRIBUTIONS.mistake(
    "these are the steps of the logit lens, where each sum has another divisor; keep that of the "
    "whole x"
)
def logit_contributions_lens_steps(parts, gamma, w):
    lens = F.layer_norm(parts.cumsum(0), gamma.shape, gamma) @ w
    return lens.diff(prepend=lens.new_zeros(1))


@LOGIT_CONTRIBUTIONS.mistake("the means are missing: the norm first subtracts the mean")
def logit_contributions_without_mean(parts, gamma, w):
    spread = (parts.sum(0).var(unbiased=False) + 1e-5).sqrt()
    return (parts / spread * gamma) @ w


@LOGIT_CONTRIBUTIONS.mistake("gamma is missing")
def logit_contributions_without_gamma(parts, gamma, w):
    spread = (parts.sum(0).var(unbiased=False) + 1e-5).sqrt()
    centred = parts - parts.mean(-1, keepdim=True)
    return (centred / spread) @ w


@LOGIT_CONTRIBUTIONS.mistake(
    "the variance is divided by C - 1; a layer norm divides by C (unbiased=False)"
)
def logit_contributions_unbiased(parts, gamma, w):
    spread = (parts.sum(0).var() + 1e-5).sqrt()
    centred = parts - parts.mean(-1, keepdim=True)
    return (centred / spread * gamma) @ w


### END SOLUTION

# ---------------------------------------------------------------- bits_per_byte


def bits_per_byte_cases(draw):
    return [
        [draw.number(0.3, 4.5), draw.text(draw.integer(3, 30), "aboe \nßéö") + "é"],
        [draw.number(0.3, 4.5), draw.text(draw.integer(3, 30), "oaé鵞鳥\U0001fabf") + "鵞"],
        [draw.number(0.3, 4.5), "\U0001fabf"],
        [draw.number(0.3, 4.5), draw.text(draw.integer(2, 40))],
        [draw.number(0.3, 4.5), draw.choice("oag")],
    ]


BITS_PER_BYTE = exercise(bits_per_byte, stars=1, minutes=4, cases=bits_per_byte_cases)


### BEGIN SOLUTION
@BITS_PER_BYTE.mistake("these are nats per byte: divide by ln 2")
def bits_per_byte_nats(loss, text):
    return loss * len(text) / len(text.encode("utf-8"))


@BITS_PER_BYTE.mistake("these are bits per character: spread them over the bytes")
def bits_per_byte_per_character(loss, text):
    return loss / math.log(2)


@BITS_PER_BYTE.mistake("the loss is multiplied by ln 2; a nat is more than a bit: divide")
def bits_per_byte_multiplied(loss, text):
    return loss * math.log(2) * len(text) / len(text.encode("utf-8"))


@BITS_PER_BYTE.mistake(
    "bytes over characters is upside down: the more bytes there are, the less each one costs"
)
def bits_per_byte_upside_down(loss, text):
    return loss / math.log(2) * len(text.encode("utf-8")) / len(text)


@BITS_PER_BYTE.mistake(
    "the loss is divided by the bytes, but not multiplied by the characters: it is a mean, not a "
    "sum"
)
def bits_per_byte_mean_for_sum(loss, text):
    return loss / math.log(2) / len(text.encode("utf-8"))


@BITS_PER_BYTE.mistake("these are the bits of the whole text: divide by its bytes")
def bits_per_byte_whole_text(loss, text):
    return loss / math.log(2) * len(text)


### END SOLUTION

# ---------------------------------------------------------------- sample_continuation


def sample_continuation_case(draw, V, block_size, B, T, n):
    """float64, so that no random number lies within rounding of an edge."""
    table = 1.5 * draw.normal(V, V, dtype=torch.float64)
    positions = 1.5 * draw.normal(block_size, V, dtype=torch.float64)
    idx = draw.ids(V, B, T)
    u = draw.uniform(B, n, dtype=torch.float64)
    return [table, positions, idx, u]


def sample_continuation_repeated(draw):
    """The same text with the same random numbers, six times; no character is very likely."""
    table = draw.uniform(8, 8, dtype=torch.float64)
    positions = draw.uniform(4, 8, dtype=torch.float64)
    idx = draw.ids(8, 1, 2)
    u = draw.uniform(1, 10, dtype=torch.float64)
    return [table, positions, idx.repeat(6, 1), u.repeat(6, 1)]


def sample_continuation_cases(draw):
    return [
        sample_continuation_case(draw, V=6, block_size=3, B=4, T=2, n=12),
        sample_continuation_case(draw, V=5, block_size=4, B=1, T=1, n=20),
        sample_continuation_case(draw, V=draw.integer(4, 8), block_size=4, B=3, T=7, n=10),
        sample_continuation_case(draw, V=3, block_size=1, B=2, T=1, n=9),
        sample_continuation_case(draw, V=4, block_size=5, B=1, T=1, n=1),
        sample_continuation_repeated(draw),
    ]


SAMPLE_CONTINUATION = exercise(
    sample_continuation, stars=2, minutes=8, cases=sample_continuation_cases
)


@SAMPLE_CONTINUATION.symptom(
    "two texts with the same u must be continued alike: use u, and draw no random numbers of your "
    "own"
)
def sample_continuation_ignores_u(got, want, table, positions, idx, u):
    same_input = bool((idx == idx[0]).all() and (u == u[0]).all())
    same_output = bool((got == got[0]).all())
    return same_input and not same_output


### BEGIN SOLUTION
def sample_continuation_next(probabilities, u):
    """probabilities (B, V), u (B,) -> (B, 1): a character for each text."""
    ends = probabilities.cumsum(-1)
    return (ends[:, :-1] < u[:, None]).sum(-1, keepdim=True)


@SAMPLE_CONTINUATION.mistake(
    "the window is cut from the beginning: it no longer sees what has just been written"
)
def sample_continuation_first_window(table, positions, idx, u):
    for n in range(u.shape[1]):
        window = idx[:, : len(positions)]
        logits = table[window] + positions[: window.shape[1]]
        new = sample_continuation_next(logits[:, -1].softmax(-1), u[:, n])
        idx = torch.cat([idx, new], dim=1)
    return idx


@SAMPLE_CONTINUATION.mistake(
    "the softmax runs over the batch: the probabilities of one text's next character sum to 1"
)
def sample_continuation_softmax_over_batch(table, positions, idx, u):
    for n in range(u.shape[1]):
        window = idx[:, -len(positions) :]
        logits = table[window] + positions[: window.shape[1]]
        new = sample_continuation_next(logits[:, -1].softmax(0), u[:, n])
        idx = torch.cat([idx, new], dim=1)
    return idx


@SAMPLE_CONTINUATION.mistake(
    "both bugs are still there: over which axis is the softmax, and from which end is the window "
    "cut?"
)
def sample_continuation_as_it_was(table, positions, idx, u):
    for n in range(u.shape[1]):
        window = idx[:, : len(positions)]
        logits = table[window] + positions[: window.shape[1]]
        new = sample_continuation_next(logits[:, -1].softmax(0), u[:, n])
        idx = torch.cat([idx, new], dim=1)
    return idx


@SAMPLE_CONTINUATION.mistake(
    "the window is longer than `positions`: a long text has to be cut to its last block_size "
    "characters"
)
def sample_continuation_without_window(table, positions, idx, u):
    for n in range(u.shape[1]):
        logits = table[idx] + positions[: idx.shape[1]]
        new = sample_continuation_next(logits[:, -1].softmax(-1), u[:, n])
        idx = torch.cat([idx, new], dim=1)
    return idx


@SAMPLE_CONTINUATION.mistake("the text itself is cut, not only the window that the model sees")
def sample_continuation_cuts_text(table, positions, idx, u):
    for n in range(u.shape[1]):
        idx = idx[:, -len(positions) :]
        logits = table[idx] + positions[: idx.shape[1]]
        new = sample_continuation_next(logits[:, -1].softmax(-1), u[:, n])
        idx = torch.cat([idx, new], dim=1)
    return idx


### END SOLUTION

# ---------------------------------------------------------------- tied_gradient


def tied_gradient_case(draw, V, C, M, dtype):
    """For M > 1 an id occurs twice in idx, with another target each time."""
    idx = draw.ids(V, M)
    targets = draw.ids(V, M)
    idx[-1] = idx[0]
    targets[-1] = (targets[0] + 1) % V
    return [draw.normal(V, C, dtype=dtype), idx, targets]


def tied_gradient_cases(draw):
    return [
        tied_gradient_case(draw, 2, 1, 1, torch.float64),
        tied_gradient_case(draw, 5, 3, 8, torch.float32),
        tied_gradient_case(draw, draw.integer(4, 9), 4, 12, torch.float64),
        tied_gradient_case(draw, draw.integer(10, 20), draw.integer(2, 6), 6, torch.float32),
    ]


TIED_GRADIENT = exercise(tied_gradient, stars=3, minutes=20, cases=tied_gradient_cases)


### BEGIN SOLUTION
def tied_gradient_error(E, idx, targets):
    """(M, V): the gradient of the summed loss with respect to the logits."""
    logits = E[idx] @ E.T
    return logits.softmax(-1) - F.one_hot(targets, len(E)).to(E.dtype)


@TIED_GRADIENT.mistake("this is the gradient of the last matrix alone: the table is also looked up")
def tied_gradient_last_matrix(E, idx, targets):
    error = tied_gradient_error(E, idx, targets)
    return error.T @ E[idx] / len(idx)


@TIED_GRADIENT.mistake(
    "this is the gradient of the looked-up rows alone: the table is also the last matrix"
)
def tied_gradient_lookup(E, idx, targets):
    error = tied_gradient_error(E, idx, targets)
    return torch.zeros_like(E).index_add_(0, idx, error @ E) / len(idx)


@TIED_GRADIENT.mistake(
    "an id that occurs twice in idx keeps only one of its gradients: add them up (`+=` with an "
    "index does not)"
)
def tied_gradient_overwrites(E, idx, targets):
    error = tied_gradient_error(E, idx, targets)
    as_table = torch.zeros_like(E)
    as_table[idx] += error @ E
    return (error.T @ E[idx] + as_table) / len(idx)


@TIED_GRADIENT.mistake(
    "this is the gradient of the sum: the loss is the mean over the M characters"
)
def tied_gradient_of_sum(E, idx, targets):
    error = tied_gradient_error(E, idx, targets)
    as_table = torch.zeros_like(E).index_add_(0, idx, error @ E)
    return error.T @ E[idx] + as_table


@TIED_GRADIENT.mistake("the sign is reversed: p - y, not y - p")
def tied_gradient_sign(E, idx, targets):
    error = -tied_gradient_error(E, idx, targets)
    as_table = torch.zeros_like(E).index_add_(0, idx, error @ E)
    return (error.T @ E[idx] + as_table) / len(idx)


@TIED_GRADIENT.mistake("the targets are missing: p - y, not p alone")
def tied_gradient_without_targets(E, idx, targets):
    error = (E[idx] @ E.T).softmax(-1)
    as_table = torch.zeros_like(E).index_add_(0, idx, error @ E)
    return (error.T @ E[idx] + as_table) / len(idx)


### END SOLUTION
