"""How the exercises of lesson 16 are judged: cases, mistakes, symptoms."""

import torch

from chargpt_lib.exercises.answers.modern import (
    divide_by_rms,
    equal_stretch,
    kv_cache_bytes,
    rotate_neighbours,
    share_heads,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- divide_by_rms


def divide_by_rms_case(draw, *shape, dtype=torch.float32):
    """The rows have a mean other than 0, and each has its own size."""
    x = draw.normal(*shape, dtype=dtype) + 0.7
    sizes = 0.5 + 2 * draw.uniform(*shape[:-1], 1, dtype=dtype)
    gain = 0.5 + draw.uniform(shape[-1], dtype=dtype)
    return [x * sizes, gain]


def divide_by_rms_tiny(draw):
    """Numbers so small that 1e-5 counts, and a row of zeros."""
    x, gain = divide_by_rms_case(draw, 3, draw.integer(4, 6))
    x = 0.002 * x
    x[1] = 0
    return [x, gain]


def divide_by_rms_cases(draw):
    B = draw.integer(2, 3)
    T = draw.integer(3, 4)
    C = draw.integer(6, 8)
    x, _ = divide_by_rms_case(draw, C, T)
    return [
        divide_by_rms_case(draw, B, T, C),
        # As many rows as numbers in a row: a mean without `keepdim` fits, too.
        divide_by_rms_case(draw, 5, 5, dtype=torch.float64),
        [*divide_by_rms_case(draw, T, C), draw.number(0.2, 0.9)],
        divide_by_rms_tiny(draw),
        # Not contiguous, one row, a single vector, four dimensions.
        [x.T, 0.5 + draw.uniform(C)],
        divide_by_rms_case(draw, 1, C),
        divide_by_rms_case(draw, C, dtype=torch.float64),
        [*divide_by_rms_case(draw, B, 2, T, 4), draw.number(0.01, 0.1)],
    ]


DIVIDE_BY_RMS = exercise(divide_by_rms, stars=1, minutes=4, cases=divide_by_rms_cases)


def divide_by_rms_alike(got, other):
    """Are two values the same, but for eps and the like?"""
    return torch.isclose(got, other, rtol=1e-2, atol=1e-3).all()


@DIVIDE_BY_RMS.symptom(
    "the mean is subtracted, as layer norm and `std` do; RMSNorm takes the mean of x² itself"
)
def divide_by_rms_mean_subtracted(got, want, x, gain, eps=1e-5):
    sums_to_0 = divide_by_rms_alike((got / gain).sum(-1), torch.zeros(1, dtype=x.dtype))
    C = x.shape[-1]
    with_n = x / x.std(-1, keepdim=True, correction=0) * gain
    with_n_minus_1 = with_n * ((C - 1) / C) ** 0.5
    return sums_to_0 or divide_by_rms_alike(got, with_n) or divide_by_rms_alike(got, with_n_minus_1)


@DIVIDE_BY_RMS.symptom(
    "each row is divided by its length, the root of the sum of x²; divide by the root of the mean"
)
def divide_by_rms_sum_for_mean(got, want, x, gain, eps=1e-5):
    return divide_by_rms_alike(got * x.shape[-1] ** 0.5, want)


@DIVIDE_BY_RMS.symptom("the gain is missing: number i of each row is multiplied by g_i at the end")
def divide_by_rms_gain_missing(got, want, x, gain, eps=1e-5):
    return divide_by_rms_alike(got * gain, want)


@DIVIDE_BY_RMS.symptom(
    "the numbers of one row are divided by different amounts: does the mean go over the last "
    "dimension, with `keepdim`?"
)
def divide_by_rms_uneven(got, want, x, gain, eps=1e-5):
    ratio = got / (x * gain)
    return (ratio / ratio[..., :1] - 1).abs() > 0.01


### BEGIN SOLUTION
@DIVIDE_BY_RMS.mistake("the root is missing: this divides by the mean square")
def divide_by_rms_without_root(x, gain, eps=1e-5):
    mean_square = x.square().mean(-1, keepdim=True)
    return x / (mean_square + eps) * gain


@DIVIDE_BY_RMS.mistake("ε is added to the root; it belongs inside, to the mean square")
def divide_by_rms_eps_outside(x, gain, eps=1e-5):
    mean_square = x.square().mean(-1, keepdim=True)
    return x / (mean_square.sqrt() + eps) * gain


@DIVIDE_BY_RMS.mistake("one mean is taken over the whole tensor; each row has its own")
def divide_by_rms_over_everything(x, gain, eps=1e-5):
    return x / (x.square().mean() + eps).sqrt() * gain


### END SOLUTION

# ---------------------------------------------------------------- rotate_neighbours


def rotate_neighbours_case(draw, *shape, dtype=torch.float32):
    """Each pair has a speed of its own, the fastest first."""
    x = draw.normal(*shape, dtype=dtype)
    pairs = shape[-1] // 2
    speeds = [draw.number(0.7, 1.3) / 2**i for i in range(pairs)]
    return [x, torch.tensor(speeds, dtype=dtype)]


def rotate_neighbours_cases(draw):
    T = draw.integer(3, 4)
    d = draw.choice([6, 8])
    x, speeds = rotate_neighbours_case(draw, 1, T, 2, d)
    return [
        rotate_neighbours_case(draw, T, d),
        # (B, H, T, d): T is not the second dimension, and here H is as large.
        rotate_neighbours_case(draw, 2, T, T, d, dtype=torch.float64),
        [x.transpose(1, 2), speeds],
        rotate_neighbours_case(draw, 2, T, 4),
        # As in the lesson, one speed is 1 and the last one is small.
        [draw.normal(5, 8), 10_000.0 ** (-torch.arange(4) / 4)],
        # One pair, and one position, where nothing turns.
        rotate_neighbours_case(draw, draw.integer(2, 3), 5, 2, dtype=torch.float64),
        rotate_neighbours_case(draw, 2, 1, d),
    ]


ROTATE_NEIGHBOURS = exercise(rotate_neighbours, stars=2, minutes=8, cases=rotate_neighbours_cases)


@ROTATE_NEIGHBOURS.symptom(
    "position 0 turns by the angle 0 and stays as it is; positions are those of the last dimension "
    "but one, from 0 on"
)
def rotate_neighbours_at_0(got, want, x, speeds):
    return ~torch.isclose(got[..., 0, :], x[..., 0, :], 1e-3, 1e-3)


@ROTATE_NEIGHBOURS.symptom(
    "turning changes no length, but the arrow (x[2i], x[2i + 1]) comes out longer or shorter"
)
def rotate_neighbours_length(got, want, x, speeds):
    before = x.unflatten(-1, (-1, 2)).norm(dim=-1)
    after = got.unflatten(-1, (-1, 2)).norm(dim=-1)
    return ~torch.isclose(after, before, 1e-3, 1e-3)


### BEGIN SOLUTION
def rotate_neighbours_angles(x, speeds):
    return torch.arange(x.shape[-2])[:, None] * speeds


@ROTATE_NEIGHBOURS.mistake(
    "number i of the first half is paired with number i of the second; pair neighbours, 2i and "
    "2i + 1"
)
def rotate_neighbours_halves(x, speeds):
    angles = rotate_neighbours_angles(x, speeds)
    first, second = x.chunk(2, dim=-1)
    turned_first = first * angles.cos() - second * angles.sin()
    turned_second = first * angles.sin() + second * angles.cos()
    return torch.cat([turned_first, turned_second], dim=-1)


@ROTATE_NEIGHBOURS.mistake("it turns the other way: the minus belongs to the first of the formulas")
def rotate_neighbours_other_way(x, speeds):
    return rotate_neighbours(x, -speeds)


@ROTATE_NEIGHBOURS.mistake(
    "all first numbers come before all second ones: put the two of a pair side by side again"
)
def rotate_neighbours_not_interleaved(x, speeds):
    turned = rotate_neighbours(x, speeds)
    return torch.cat([turned[..., 0::2], turned[..., 1::2]], dim=-1)


@ROTATE_NEIGHBOURS.mistake(
    "the two numbers of a pair turn by different angles: `cat` repeats angles for halves, not for "
    "neighbours"
)
def rotate_neighbours_angles_for_halves(x, speeds):
    angles = rotate_neighbours_angles(x, speeds)
    angles = torch.cat([angles, angles], dim=-1)
    other = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
    return x * angles.cos() + other * angles.sin()


@ROTATE_NEIGHBOURS.mistake(
    "the second number is computed from the first one after it was turned: a slice is a view, not "
    "a copy"
)
def rotate_neighbours_overwritten(x, speeds):
    angles = rotate_neighbours_angles(x, speeds)
    even = x[..., 0::2] * angles.cos() - x[..., 1::2] * angles.sin()
    odd = even * angles.sin() + x[..., 1::2] * angles.cos()
    return torch.stack([even, odd], dim=-1).flatten(-2)


### END SOLUTION

# ---------------------------------------------------------------- kv_cache_bytes


def kv_cache_bytes_case(draw, n_kv_head, group, *bytes_per_number):
    """n_layer, n_head, n_kv_head, n_embd, length, and perhaps the bytes; group: heads of queries for one of keys."""
    n_head = n_kv_head * group
    n_embd = n_head * draw.choice([16, 24, 64, 128])
    return [
        draw.integer(3, 90),
        n_head,
        n_kv_head,
        n_embd,
        draw.integer(100, 9000),
        *bytes_per_number,
    ]


def kv_cache_bytes_cases(draw):
    return [
        kv_cache_bytes_case(draw, draw.choice([2, 4, 8]), draw.integer(3, 6)),
        kv_cache_bytes_case(draw, draw.integer(3, 5), 2, 4),
        # One head of keys for all, and one for each.
        kv_cache_bytes_case(draw, 1, draw.integer(3, 9), 1),
        kv_cache_bytes_case(draw, draw.integer(3, 9), 1, draw.choice([4, 8])),
        [80, 64, 8, 8192, 128_000],
        [1, 1, 1, draw.integer(5, 99), 1, 1],
        [draw.integer(2, 9), 6, 3, 96, 0, 4],
    ]


KV_CACHE_BYTES = exercise(kv_cache_bytes, stars=1, minutes=4, cases=kv_cache_bytes_cases)


### BEGIN SOLUTION
@KV_CACHE_BYTES.mistake("these are the keys alone; the cache holds as many values, too")
def kv_cache_bytes_keys_alone(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return n_layer * n_kv_head * (n_embd // n_head) * length * bytes_per_number


@KV_CACHE_BYTES.mistake(
    "that many for n_head heads; heads that share keys and values keep them once, n_kv_head in all"
)
def kv_cache_bytes_all_heads(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return 2 * n_layer * n_embd * length * bytes_per_number


@KV_CACHE_BYTES.mistake(
    "a key has n_embd / n_head numbers, not n_embd: the width is divided among the heads"
)
def kv_cache_bytes_wide_keys(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return 2 * n_layer * n_kv_head * n_embd * length * bytes_per_number


@KV_CACHE_BYTES.mistake("this counts numbers; each of them takes bytes_per_number bytes")
def kv_cache_bytes_numbers(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return 2 * n_layer * n_kv_head * (n_embd // n_head) * length


@KV_CACHE_BYTES.mistake("2 bytes a number are only the default: multiply by bytes_per_number")
def kv_cache_bytes_two_each(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return 2 * 2 * n_layer * n_kv_head * (n_embd // n_head) * length


@KV_CACHE_BYTES.mistake("this is one layer's cache; every layer has its own")
def kv_cache_bytes_one_layer(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return 2 * n_kv_head * (n_embd // n_head) * length * bytes_per_number


### END SOLUTION

# ---------------------------------------------------------------- share_heads


def share_heads_case(draw, n_kv_head, group, dtype=torch.float32):
    """k for two texts of three positions, and n_head; group: heads of queries for one of keys."""
    k = draw.normal(2, n_kv_head, 3, 5, dtype=dtype)
    return [k, n_kv_head * group]


def share_heads_cases(draw):
    k = draw.normal(2, 5, 3, 4)
    return [
        share_heads_case(draw, 2, 2),
        share_heads_case(draw, 2, draw.integer(3, 4), torch.float64),
        share_heads_case(draw, 4, 2),
        # Not contiguous: as the layer makes it, (B, T, H, d) with two dimensions exchanged.
        [k.transpose(1, 2), 6],
        # One for all, one for each, one position of one text, and ids.
        share_heads_case(draw, 1, draw.integer(3, 5)),
        share_heads_case(draw, draw.integer(3, 4), 1),
        [draw.normal(1, 2, 1, 4), 6],
        [draw.ids(99, 2, 2, 3, 1), 4],
    ]


SHARE_HEADS = exercise(share_heads, stars=2, minutes=5, cases=share_heads_cases)


@SHARE_HEADS.symptom(
    "head {1} of the result is one of k's heads, but another group's: heads of queries side by "
    "side share one"
)
def share_heads_other_group(got, want, k, n_head):
    wrong = (got != want).flatten(2).any(2)  # (B, n_head)
    copies = (got[:, :, None] == k[:, None]).flatten(3).all(3).any(2)
    return wrong & copies


@SHARE_HEADS.symptom(
    "head {1} of the result is none of k's heads: its positions or numbers come from several places"
)
def share_heads_mixed(got, want, k, n_head):
    copies = (got[:, :, None] == k[:, None]).flatten(3).all(3).any(2)
    return ~copies


### BEGIN SOLUTION
@SHARE_HEADS.mistake(
    "this is the order 0, 1, 0, 1; neighbours are to share, 0, 0, 1, 1: repeat each head, not all "
    "of them"
)
def share_heads_tiled(k, n_head):
    return k.repeat(1, n_head // k.shape[1], 1, 1)


@SHARE_HEADS.mistake("positions are repeated, not heads: the heads are dimension 1")
def share_heads_longer(k, n_head):
    return k.repeat_interleave(n_head // k.shape[1], dim=2)


@SHARE_HEADS.mistake("each head is repeated n_head times; n_head is how many there are in the end")
def share_heads_too_often(k, n_head):
    return k.repeat_interleave(n_head, dim=1)


@SHARE_HEADS.mistake(
    "there are five dimensions: groups and the heads in a group are to become one dimension"
)
def share_heads_five_dimensions(k, n_head):
    return torch.stack([k] * (n_head // k.shape[1]), dim=2)


### END SOLUTION

# ---------------------------------------------------------------- equal_stretch


def equal_stretch_case(draw, M, N, size=1.0, dtype=torch.float32):
    """Singular values from 1 to about 5, times `size`: those near 0 would leave their directions to rounding."""
    K = min(M, N)
    u = torch.linalg.qr(draw.normal(M, K, dtype=torch.float64)).Q
    v = torch.linalg.qr(draw.normal(N, K, dtype=torch.float64)).Q
    s = torch.linspace(1, 4, K, dtype=torch.float64) + draw.uniform(K, dtype=torch.float64) / 2
    return [(size * u @ s.diag() @ v.T).to(dtype)]


def equal_stretch_cases(draw):
    M = draw.integer(5, 6)
    [matrix] = equal_stretch_case(draw, 7, 4)
    return [
        equal_stretch_case(draw, M, M + draw.integer(2, 3)),
        equal_stretch_case(draw, M + draw.integer(1, 3), M, dtype=torch.float64),
        equal_stretch_case(draw, 4, 4, draw.number(0.1, 0.2)),
        # As small as a gradient; large; not contiguous.
        equal_stretch_case(draw, 9, 3, 0.001, torch.float64),
        equal_stretch_case(draw, M, M, 40),
        [matrix.T],
        # One row, one column, one number.
        equal_stretch_case(draw, 1, draw.integer(3, 5)),
        equal_stretch_case(draw, draw.integer(3, 5), 1, 0.01),
        [-equal_stretch_case(draw, 1, 1, dtype=torch.float64)[0].abs()],
    ]


EQUAL_STRETCH = exercise(equal_stretch, stars=2, minutes=6, cases=equal_stretch_cases, atol=1e-4)


@EQUAL_STRETCH.symptom(
    "the whole matrix is divided by one number, so its singular values keep their ratios"
)
def equal_stretch_proportional(got, want, matrix):
    scaled = got * (matrix.norm() / got.norm())
    return torch.isclose(scaled, matrix, 1e-3, 1e-5).all()


@EQUAL_STRETCH.symptom(
    "all singular values are 1, but the singular vectors are not the matrix's: they are U's columns "
    "and V's"
)
def equal_stretch_other_directions(got, want, matrix):
    return ((torch.linalg.svdvals(got) - 1).abs() < 1e-3).all()


@EQUAL_STRETCH.symptom(
    "the singular vectors are right, but the singular values only near 1: with `svd` they are 1"
)
def equal_stretch_near_1(got, want, matrix):
    left = got @ want.T  # U D Uᵀ and V D Vᵀ for a result U D Vᵀ
    right = want.T @ got
    symmetric = torch.allclose(left, left.T, 1e-3, 1e-3) & torch.allclose(
        right, right.T, 1e-3, 1e-3
    )
    return symmetric & ((torch.linalg.svdvals(got) - 1).abs() < 0.4).all()


@EQUAL_STRETCH.symptom("the singular values of the result are not all 1")
def equal_stretch_not_1(got, want, matrix):
    return ((torch.linalg.svdvals(got) - 1).abs() > 1e-3).any()


### BEGIN SOLUTION
@EQUAL_STRETCH.mistake(
    "with `full_matrices=True`, the default, U and Vᵀ fit each other only if the matrix is square"
)
def equal_stretch_full_matrices(matrix):
    u, _, vt = torch.linalg.svd(matrix)
    return u @ vt


@EQUAL_STRETCH.mistake("`svd` returns Vᵀ already; transposing it once more gives U V")
def equal_stretch_transposed_again(matrix):
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vt.T


@EQUAL_STRETCH.mistake(
    "that is the sign of each number by itself; the singular values belong to the whole matrix"
)
def equal_stretch_signs(matrix):
    return matrix.sign()


### END SOLUTION
