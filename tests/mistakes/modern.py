"""Answers to the exercises of lesson 16: right ones, and wrong ones with a piece of their hint."""

import torch
from torch.nn import functional as F

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- divide_by_rms


@right("divide_by_rms")
def functional_rms_norm(x, gain, eps=1e-5):
    return F.rms_norm(x, (x.shape[-1],), gain, eps)


@right("divide_by_rms")
def rsqrt_of_an_einsum(x, gain, eps=1e-5):
    squares = torch.einsum("...c,...c->...", x, x) / x.shape[-1]
    return torch.einsum("...c,...,c->...c", x, torch.rsqrt(squares + eps), gain)


@right("divide_by_rms")
def eps_in_every_square(x, gain, eps=1e-5):
    return gain * x / (x**2 + eps).mean(dim=-1)[..., None] ** 0.5


@right("divide_by_rms")
def from_the_length(x, gain, eps=1e-5):
    C = x.size(-1)
    length = x.norm(dim=-1, keepdim=True)
    return x * gain * C**0.5 / torch.sqrt(length**2 + C * eps)


@wrong("divide_by_rms", "the mean is subtracted")
def functional_layer_norm(x, gain, eps=1e-5):
    return F.layer_norm(x, (x.shape[-1],), gain, eps=eps)


@wrong("divide_by_rms", "the mean is subtracted")
def centred_by_hand(x, gain, eps=1e-5):
    x = x - x.mean(-1, keepdim=True)
    return gain * x / (x.std(-1, keepdim=True) + eps)


@wrong("divide_by_rms", "as layer norm and `std` do")
def over_std(x, gain, eps=1e-5):
    return x / (x.std(dim=-1, keepdim=True) + eps) * gain


@wrong("divide_by_rms", "as layer norm and `std` do")
def over_the_root_of_var(x, gain, eps=1e-5):
    return x / torch.sqrt(x.var(-1, correction=0, keepdim=True) + eps) * gain


@wrong("divide_by_rms", "one mean is taken over the whole tensor")
def mean_of_everything(x, gain, eps=1e-5):
    return x * torch.rsqrt((x**2).mean() + eps) * gain


@wrong("divide_by_rms", "with `keepdim`")
def keepdim_forgotten(x, gain, eps=1e-5):
    return x / torch.sqrt(x.square().mean(-1) + eps) * gain


@wrong("divide_by_rms", "does the mean go over the last dimension")
def mean_over_the_rows(x, gain, eps=1e-5):
    return x / torch.sqrt((x * x).mean(0, keepdim=True) + eps) * gain


@wrong("divide_by_rms", "the root is missing")
def root_forgotten(x, gain, eps=1e-5):
    return gain * x / ((x**2).mean(-1, keepdim=True) + eps)


@wrong("divide_by_rms", "it belongs inside")
def eps_beside_the_root(x, gain, eps=1e-5):
    rms = torch.sqrt(torch.mean(x * x, dim=-1, keepdim=True))
    return gain * (x / (rms + eps))


@wrong("divide_by_rms", "divide by the root of the mean")
def sum_of_squares(x, gain, eps=1e-5):
    return x / ((x**2).sum(-1, keepdim=True) + eps) ** 0.5 * gain


@wrong("divide_by_rms", "divide by the root of the mean")
def functional_normalize(x, gain, eps=1e-5):
    return F.normalize(x, dim=-1, eps=eps) * gain


@wrong("divide_by_rms", "the gain is missing")
def gain_forgotten(x, gain, eps=1e-5):
    return x / ((x**2).mean(-1, keepdim=True) + eps).sqrt()


@wrong("divide_by_rms")
def eps_forgotten(x, gain, eps=1e-5):
    return x / (x**2).mean(-1, keepdim=True).sqrt() * gain


@wrong("divide_by_rms")
def eps_always_the_default(x, gain, eps=1e-5):
    return F.rms_norm(x, (len(gain),), gain, 1e-5)


@wrong("divide_by_rms")
def mean_of_the_sizes(x, gain, eps=1e-5):
    return x / (x.abs().mean(-1, keepdim=True) + eps) * gain


@wrong("divide_by_rms", "in place")
def divides_in_place(x, gain, eps=1e-5):
    x /= (x.square().mean(-1, keepdim=True) + eps).sqrt()
    return x * gain


@wrong("divide_by_rms")
def three_dimensions_alone(x, gain, eps=1e-5):
    B, T, C = x.shape
    return x / ((x**2).sum(2, keepdim=True) / C + eps).sqrt() * gain


@wrong("divide_by_rms", "expected")
def float32_whatever_comes(x, gain, eps=1e-5):
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain.float()


# ---------------------------------------------------------------- rotate_neighbours


@right("rotate_neighbours")
def complex_numbers(x, speeds):
    angles = torch.arange(x.shape[-2]).to(speeds.dtype).outer(speeds)
    arrows = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    turned = arrows * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2)


@right("rotate_neighbours")
def matrices_of_two_by_two(x, speeds):
    angles = torch.arange(x.shape[-2])[:, None] * speeds
    cos, sin = angles.cos(), angles.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    return torch.einsum("tiab,...tib->...tia", turn, pairs).reshape(x.shape)


@right("rotate_neighbours")
def position_after_position(x, speeds):
    out = torch.empty_like(x)
    for t in range(x.shape[-2]):
        for i, speed in enumerate(speeds):
            a, b = x[..., t, 2 * i], x[..., t, 2 * i + 1]
            cos, sin = torch.cos(t * speed), torch.sin(t * speed)
            out[..., t, 2 * i] = a * cos - b * sin
            out[..., t, 2 * i + 1] = b * cos + a * sin
    return out


@right("rotate_neighbours")
def repeated_angles(x, speeds):
    angles = torch.arange(x.size(-2)).unsqueeze(1) * speeds.repeat_interleave(2)
    other = x.clone()
    other[..., 0::2] = -x[..., 1::2]
    other[..., 1::2] = x[..., 0::2]
    return x * torch.cos(angles) + other * torch.sin(angles)


@wrong("rotate_neighbours", "pair neighbours")
def in_halves(x, speeds):
    angles = torch.arange(x.shape[-2])[:, None] * torch.cat([speeds, speeds])
    a, b = x.chunk(2, -1)
    return x * angles.cos() + torch.cat([-b, a], -1) * angles.sin()


@wrong("rotate_neighbours", "it turns the other way")
def minus_in_the_second_formula(x, speeds):
    angles = torch.arange(x.shape[-2])[:, None] * speeds
    a, b = x[..., ::2], x[..., 1::2]
    turned = (a * angles.cos() + b * angles.sin(), b * angles.cos() - a * angles.sin())
    return torch.stack(turned, -1).flatten(-2)


@wrong("rotate_neighbours", "from 0 on")
def positions_from_1(x, speeds):
    angles = torch.arange(1, x.shape[-2] + 1)[:, None] * speeds
    a, b = x[..., ::2], x[..., 1::2]
    turned = (a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin())
    return torch.stack(turned, -1).flatten(-2)


@wrong("rotate_neighbours", "those of the last dimension but one")
def heads_for_positions(x, speeds):
    x = x.transpose(-3, -2) if x.dim() > 3 else x
    angles = torch.arange(x.shape[-2])[:, None] * speeds
    a, b = x[..., ::2], x[..., 1::2]
    turned = (a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin())
    out = torch.stack(turned, -1).flatten(-2)
    return out.transpose(-3, -2) if x.dim() > 3 else out


@wrong("rotate_neighbours", "stays as it is")
def mirrored(x, speeds):
    angles = torch.arange(x.shape[-2])[:, None] * speeds
    a, b = x[..., ::2], x[..., 1::2]
    turned = (a * angles.cos() - b * angles.sin(), a * angles.sin() - b * angles.cos())
    return torch.stack(turned, -1).flatten(-2)


@wrong("rotate_neighbours", "side by side again")
def cat_for_stack(x, speeds):
    angles = torch.arange(x.shape[-2])[:, None] * speeds
    a, b = x[..., ::2], x[..., 1::2]
    cos, sin = torch.cos(angles), torch.sin(angles)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


@wrong("rotate_neighbours", "for halves, not for neighbours")
def angles_in_halves(x, speeds):
    angles = torch.arange(x.shape[-2])[:, None] * speeds.repeat(2)
    pairs = x.unflatten(-1, (-1, 2))
    other = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return x * angles.cos() + other * angles.sin()


@wrong("rotate_neighbours", "a slice is a view")
def written_over(x, speeds):
    angles = torch.arange(x.shape[-2])[:, None] * speeds
    out = x.clone()
    a, b = out[..., 0::2], out[..., 1::2]
    out[..., 0::2] = a * angles.cos() - b * angles.sin()
    out[..., 1::2] = a * angles.sin() + b * angles.cos()
    return out


@wrong("rotate_neighbours", "changes no length")
def twice_the_minus(x, speeds):
    angles = torch.arange(x.shape[-2])[:, None] * speeds
    a, b = x[..., ::2], x[..., 1::2]
    turned = (a * angles.cos() - b * angles.sin(), b * angles.cos() - a * angles.sin())
    return torch.stack(turned, -1).flatten(-2)


@wrong("rotate_neighbours")
def degrees(x, speeds):
    angles = torch.deg2rad(torch.arange(x.shape[-2])[:, None] * speeds)
    a, b = x[..., ::2], x[..., 1::2]
    turned = (a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin())
    return torch.stack(turned, -1).flatten(-2)


@wrong("rotate_neighbours")
def all_pairs_at_the_first_speed(x, speeds):
    angles = torch.arange(x.shape[-2])[:, None] * speeds[0]
    a, b = x[..., ::2], x[..., 1::2]
    turned = (a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin())
    return torch.stack(turned, -1).flatten(-2)


@wrong("rotate_neighbours")
def speeds_by_the_formula(x, speeds):
    d = x.shape[-1]
    speeds = (10_000.0 ** (-2 * torch.arange(d // 2) / d)).to(x.dtype)
    angles = torch.arange(x.shape[-2])[:, None] * speeds
    a, b = x[..., ::2], x[..., 1::2]
    turned = (a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin())
    return torch.stack(turned, -1).flatten(-2)


@wrong("rotate_neighbours")
def every_position_one_step(x, speeds):
    a, b = x[..., ::2], x[..., 1::2]
    turned = (a * speeds.cos() - b * speeds.sin(), b * speeds.cos() + a * speeds.sin())
    return torch.stack(turned, -1).flatten(-2)


@wrong("rotate_neighbours", "in place")
def turned_in_place(x, speeds):
    angles = torch.arange(x.shape[-2])[:, None] * speeds
    a, b = x[..., ::2].clone(), x[..., 1::2].clone()
    x[..., ::2] = a * angles.cos() - b * angles.sin()
    x[..., 1::2] = a * angles.sin() + b * angles.cos()
    return x


@wrong("rotate_neighbours", "expected")
def pairs_left_apart(x, speeds):
    angles = torch.arange(x.shape[-2])[:, None] * speeds
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack(
        (a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()), -1
    )


@wrong("rotate_neighbours", "ValueError")
def for_batches_alone(x, speeds):
    B, T, d = x.shape
    angles = torch.arange(T)[:, None] * speeds
    a, b = x[..., ::2], x[..., 1::2]
    turned = (a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin())
    return torch.stack(turned, -1).view(B, T, d)


# ---------------------------------------------------------------- kv_cache_bytes


@right("kv_cache_bytes")
def a_tensor_asked_for_its_size(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    shape = (n_layer, 2, n_kv_head, length, n_embd // n_head)
    return torch.empty(shape, device="meta").numel() * bytes_per_number


@right("kv_cache_bytes")
def share_of_the_full_cache(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    full = 2 * n_layer * n_embd * length * bytes_per_number
    return full * n_kv_head // n_head


@right("kv_cache_bytes")
def position_by_position(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    key = n_embd // n_head * bytes_per_number
    value = key
    of_a_position = 0
    for layer in range(n_layer):
        for head in range(n_kv_head):
            of_a_position += key + value
    return of_a_position * length


@right("kv_cache_bytes")
def true_division_made_int(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return int(bytes_per_number * 2 * length * n_layer * n_kv_head * (n_embd / n_head))


@wrong("kv_cache_bytes", "as many values, too")
def no_values(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    size = n_embd // n_head
    return length * n_layer * n_kv_head * size * bytes_per_number


@wrong("kv_cache_bytes", "keep them once")
def as_without_groups(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    size = n_embd // n_head
    return 2 * bytes_per_number * n_layer * n_head * size * length


@wrong("kv_cache_bytes", "keep them once")
def width_divided_among_heads_of_keys(
    n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2
):
    return 2 * n_layer * n_kv_head * (n_embd // n_kv_head) * length * bytes_per_number


@wrong("kv_cache_bytes", "not n_embd")
def heads_as_wide_as_the_model(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return n_layer * n_kv_head * (n_embd + n_embd) * length * bytes_per_number


@wrong("kv_cache_bytes", "this counts numbers")
def numbers_for_bytes(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    keys = n_layer * n_kv_head * n_embd // n_head * length
    return keys + keys


@wrong("kv_cache_bytes", "only the default")
def always_two_bytes(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return 4 * n_layer * length * n_kv_head * n_embd // n_head


@wrong("kv_cache_bytes", "every layer has its own")
def without_layers(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return 2 * (n_embd // n_head * n_kv_head) * length * bytes_per_number


@wrong("kv_cache_bytes")
def without_heads(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return 2 * n_layer * (n_embd // n_head) * length * bytes_per_number


@wrong("kv_cache_bytes")
def groups_for_heads(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    group = n_head // n_kv_head
    return 2 * n_layer * group * (n_embd // n_head) * length * bytes_per_number


@wrong("kv_cache_bytes")
def queries_are_cached_too(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return n_layer * (2 * n_kv_head + n_head) * (n_embd // n_head) * length * bytes_per_number


@wrong("kv_cache_bytes")
def bits_for_bytes(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return 8 * 2 * n_layer * n_kv_head * (n_embd // n_head) * length * bytes_per_number


@wrong("kv_cache_bytes")
def in_gigabytes(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    total = 2 * n_layer * n_kv_head * (n_embd // n_head) * length * bytes_per_number
    return total / 1e9


@wrong("kv_cache_bytes")
def a_score_for_each_pair(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    return n_layer * n_kv_head * length * length * bytes_per_number


@wrong("kv_cache_bytes", "is there a `return`?")
def computes_and_keeps_it(n_layer, n_head, n_kv_head, n_embd, length, bytes_per_number=2):
    total = 2 * n_layer * n_kv_head * (n_embd // n_head) * length * bytes_per_number


# ---------------------------------------------------------------- share_heads


@right("share_heads")
def expanded_and_reshaped(k, n_head):
    B, n_kv_head, T, d = k.shape
    return k[:, :, None].expand(B, n_kv_head, n_head // n_kv_head, T, d).reshape(B, n_head, T, d)


@right("share_heads")
def head_after_head(k, n_head):
    group = n_head // k.size(1)
    return torch.stack([k[:, h // group] for h in range(n_head)], dim=1)


@right("share_heads")
def looked_up(k, n_head):
    return k[:, torch.arange(n_head) * k.shape[1] // n_head]


@right("share_heads")
def time_repeated_and_cut(k, n_head):
    B, n_kv_head, T, d = k.shape
    return k.repeat(1, 1, n_head // n_kv_head, 1).view(B, n_head, T, d)


@wrong("share_heads", "0, 0, 1, 1")
def torch_tile(k, n_head):
    return torch.tile(k, (1, n_head // k.shape[1], 1, 1))


@wrong("share_heads", "0, 0, 1, 1")
def cat_of_copies(k, n_head):
    return torch.cat([k] * (n_head // k.shape[1]), dim=1)


@wrong("share_heads", "0, 0, 1, 1")
def expanded_before_the_heads(k, n_head):
    B, n_kv_head, T, d = k.shape
    return k[:, None].expand(B, n_head // n_kv_head, n_kv_head, T, d).reshape(B, n_head, T, d)


@wrong("share_heads", "positions are repeated")
def along_time(k, n_head):
    group = n_head // k.shape[1]
    return torch.stack([k] * group, dim=3).flatten(2, 3)


@wrong("share_heads", "how many there are in the end")
def n_head_copies_of_each(k, n_head):
    return k[:, :, None].expand(-1, -1, n_head, -1, -1).flatten(1, 2)


@wrong("share_heads", "become one dimension")
def not_flattened(k, n_head):
    B, n_kv_head, T, d = k.shape
    return k.unsqueeze(2).expand(B, n_kv_head, n_head // n_kv_head, T, d)


@wrong("share_heads", "another group's")
def divided_by_the_heads_of_keys(k, n_head):
    n_kv_head = k.shape[1]
    rows = [min(h // n_kv_head, n_kv_head - 1) for h in range(n_head)]
    return k[:, rows]


@wrong("share_heads", "another group's")
def groups_in_reverse(k, n_head):
    return k.flip(1).repeat_interleave(n_head // k.shape[1], 1)


@wrong("share_heads", "another group's")
def first_head_for_all(k, n_head):
    return k[:, :1].expand(-1, n_head, -1, -1)


@wrong("share_heads", "from several places")
def each_position_repeated_and_cut(k, n_head):
    B, n_kv_head, T, d = k.shape
    return k.repeat_interleave(n_head // n_kv_head, dim=2).view(B, n_head, T, d)


@wrong("share_heads", "from several places")
def numbers_repeated_and_cut(k, n_head):
    B, n_kv_head, T, d = k.shape
    return k.repeat(1, 1, 1, n_head // n_kv_head).reshape(B, n_head, T, d)


@wrong("share_heads", "from several places")
def mean_of_the_heads(k, n_head):
    return k.double().mean(1, keepdim=True).expand(-1, n_head, -1, -1).to(k.dtype)


@wrong("share_heads", "expected")
def as_many_copies_as_heads_of_keys(k, n_head):
    return k.repeat_interleave(k.shape[1], dim=1)


@wrong("share_heads", "expected")
def texts_repeated(k, n_head):
    return k.repeat_interleave(n_head // k.shape[1], dim=0)


@wrong("share_heads", "expected")
def as_it_came(k, n_head):
    return k


@wrong("share_heads", "RuntimeError")
def expanded_without_a_new_dimension(k, n_head):
    B, n_kv_head, T, d = k.shape
    return k.expand(B, n_head, T, d)


# ---------------------------------------------------------------- equal_stretch


@right("equal_stretch")
def one_direction_after_another(matrix):
    u, s, vh = torch.linalg.svd(matrix)
    out = torch.zeros_like(matrix)
    for i in range(len(s)):
        out += torch.outer(u[:, i], vh[i])
    return out


@right("equal_stretch")
def torch_svd_with_v(matrix):
    u, s, v = torch.svd(matrix)
    return torch.einsum("mk,nk->mn", u, v)


@right("equal_stretch")
def root_of_the_gram_matrix(matrix):
    M, N = matrix.shape
    wide = matrix if M <= N else matrix.T
    values, vectors = torch.linalg.eigh(wide @ wide.T)
    out = vectors @ values.rsqrt().diag() @ vectors.T @ wide
    return out if M <= N else out.T


@right("equal_stretch")
def newton_schulz_until_it_settles(matrix):
    x = matrix / matrix.norm()
    for _ in range(40):
        x = 1.5 * x - 0.5 * x @ x.T @ x
    return x


@wrong("equal_stretch", "divided by one number")
def over_the_largest(matrix):
    return matrix / torch.linalg.matrix_norm(matrix, ord=2)


@wrong("equal_stretch", "divided by one number")
def over_the_norm(matrix):
    return matrix / matrix.square().sum().sqrt()


@wrong("equal_stretch", "divided by one number")
def put_together_as_it_was(matrix):
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u @ torch.diag(s / s[0]) @ vt


@wrong("equal_stretch", "the default")
def whole_matrices(matrix):
    U, S, Vh = torch.linalg.svd(matrix)
    return torch.matmul(U, Vh)


@wrong("equal_stretch", "gives U V")
def v_for_its_transpose(matrix):
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return u @ v.mT


@wrong("equal_stretch", "the sign of each number")
def number_by_number(matrix):
    return matrix / matrix.abs()


@wrong("equal_stretch", "the singular vectors are not")
def gram_schmidt(matrix):
    if matrix.shape[0] < matrix.shape[1]:
        return torch.linalg.qr(matrix.T).Q.T
    return torch.linalg.qr(matrix).Q


@wrong("equal_stretch", "the singular vectors are not")
def ones_on_the_diagonal(matrix):
    return torch.eye(*matrix.shape, dtype=matrix.dtype)


@wrong("equal_stretch", "the singular vectors are not")
def one_direction_the_wrong_way(matrix):
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    u[:, -1] *= -1
    return u @ vt


@wrong("equal_stretch", "only near 1")
def muons_five_steps(matrix):
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        A = x @ x.T
        x = 3.4445 * x + (-4.7750 * A + 2.0315 * A @ A) @ x
    return x.T if tall else x


@wrong("equal_stretch", "are not all 1")
def rows_of_length_1(matrix):
    return matrix / matrix.norm(dim=1, keepdim=True)


@wrong("equal_stretch", "are not all 1")
def one_step_of_the_cubic(matrix):
    x = matrix / torch.linalg.svdvals(matrix)[0]
    return 1.5 * x - 0.5 * x @ x.T @ x


@wrong("equal_stretch", "are not all 1")
def roots_of_the_values(matrix):
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u * s.sqrt() @ vt


@wrong("equal_stretch", "the singular vectors are not")
def result_transposed(matrix):
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return vt.T @ u.T


@wrong("equal_stretch", "expected")
def vector_of_ones_in_between(matrix):
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u @ torch.ones_like(s) @ vt


@wrong("equal_stretch")
def root_of_the_gram_matrix_of_rows(matrix):
    values, vectors = torch.linalg.eigh(matrix @ matrix.T)
    return vectors @ values.rsqrt().diag() @ vectors.T @ matrix


@wrong("equal_stretch", "expected")
def the_values_themselves(matrix):
    return torch.ones_like(torch.linalg.svdvals(matrix))
