"""Lesson 05."""

import math
import random

import torch
from torch.nn import functional as F

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- dead_units


@right("dead_units")
def largest_of_each_unit(z):
    return (z.amax(dim=(0, 1)) <= 0).float().mean().item()


@right("dead_units")
def loop_over_units(z):
    dead = 0
    for f in range(z.shape[-1]):
        dead += F.relu(z[:, :, f]).sum().item() == 0
    return dead / z.shape[-1]


@right("dead_units")
def no_gradient_comes_through(z):
    z = z.clone().requires_grad_()
    F.relu(z).sum().backward()
    return 1 - z.grad.sum((0, 1)).count_nonzero().item() / z.shape[-1]


@wrong("dead_units", "share of zeros")
def share_of_zeros(z):
    return (F.relu(z) == 0).float().mean().item()


@wrong("dead_units", "for some character")
def silent_somewhere(z):
    return (z.amin(dim=(0, 1)) <= 0).float().mean().item()


@wrong("dead_units", "share of the characters")
def wrong_axis(z):
    return (F.relu(z).sum(dim=-1) == 0).float().mean().item()


@wrong("dead_units", "not their share")
def number_of_dead(z):
    return (F.relu(z).sum(dim=(0, 1)) == 0).sum().item()


@wrong("dead_units")
def share_of_the_living(z):
    return (F.relu(z).sum(dim=(0, 1)) > 0).float().mean().item()


@wrong("dead_units", "text by text")
def text_by_text(z):
    return torch.stack([(text <= 0).all(0).float().mean() for text in z]).mean().item()


@wrong("dead_units")
def over_the_batch_only(z):
    return (F.relu(z).sum(dim=0) == 0).float().mean().item()


@wrong("dead_units")
def first_text(z):
    return (F.relu(z[0]).sum(dim=0) == 0).float().mean().item()


@wrong("dead_units", "exactly 0 stays 0")
def strictly_negative(z):
    return (z < 0).flatten(0, 1).all(0).float().mean().item()


@wrong("dead_units")
def zeros_before_the_relu(z):
    return (z.abs().sum(dim=(0, 1)) == 0).float().mean().item()


@wrong("dead_units")
def mean_below_zero(z):
    return (z.mean(dim=(0, 1)) <= 0).float().mean().item()


@wrong("dead_units", "in place")
def relu_in_place(z):
    return (F.relu_(z).sum(dim=(0, 1)) == 0).float().mean().item()


@wrong("dead_units")
def axis_of_the_units_after_that_of_the_characters(z):
    return (z <= 0).all(dim=1).all(dim=1).float().mean().item()


@wrong("dead_units")
def silent_texts(z):
    return sum(F.relu(text).sum().item() == 0 for text in z) / len(z)


# ---------------------------------------------------------------- stream_deviation


@right("stream_deviation")
def layer_after_layer(n_layer, start, added, scaled):
    variance = start * start
    for layer in range(n_layer):
        for part in ("attention", "feed-forward"):
            variance += (added * (1 / math.sqrt(2 * n_layer) if scaled else 1)) ** 2
    return variance**0.5


@right("stream_deviation")
def hypotenuse(n_layer, start, added, scaled):
    return math.hypot(start, added if scaled else added * math.sqrt(2 * n_layer))


@right("stream_deviation")
def length_of_orthogonal_steps(n_layer, start, added, scaled):
    steps = torch.full(
        (2 * n_layer + 1,), added * ((2 * n_layer) ** -0.5 if scaled else 1.0), dtype=torch.float64
    )
    steps[0] = start
    return steps.norm().item()


@wrong("stream_deviation", "standard deviations are added")
def deviations_added(n_layer, start, added, scaled):
    return start + 2 * n_layer * added / (math.sqrt(2 * n_layer) if scaled else 1)


@wrong("stream_deviation", "not N")
def once_for_each_block(n_layer, start, added, scaled):
    if scaled:
        return math.sqrt(start**2 + added**2)
    return math.sqrt(start**2 + n_layer * added**2)


@wrong("stream_deviation")
def once_for_each_block_but_scaled_for_two(n_layer, start, added, scaled):
    added = added / math.sqrt(2 * n_layer) if scaled else added
    return math.sqrt(start**2 + n_layer * added**2)


@wrong("stream_deviation", "this is the variance")
def forgets_the_root(n_layer, start, added, scaled):
    return start**2 + added**2 * (1 if scaled else 2 * n_layer)


@wrong("stream_deviation", "smaller than the start")
def forgets_the_squares(n_layer, start, added, scaled):
    return math.sqrt(start + added * (1 if scaled else 2 * n_layer))


@wrong("stream_deviation")
def variance_scaled_like_the_weights(n_layer, start, added, scaled):
    variance = added**2 / math.sqrt(2 * n_layer) if scaled else added**2
    return math.sqrt(start**2 + 2 * n_layer * variance)


@wrong("stream_deviation", "not 1/(2N)")
def scaled_without_the_root(n_layer, start, added, scaled):
    added = added / (2 * n_layer) if scaled else added
    return math.sqrt(start**2 + 2 * n_layer * added**2)


@wrong("stream_deviation")
def scaled_by_the_root_of_n(n_layer, start, added, scaled):
    added = added / math.sqrt(n_layer) if scaled else added
    return math.sqrt(start**2 + 2 * n_layer * added**2)


@wrong("stream_deviation")
def ignores_scaled(n_layer, start, added, scaled):
    return math.sqrt(start**2 + 2 * n_layer * added**2)


@wrong("stream_deviation", "smaller than the start")
def ignores_start(n_layer, start, added, scaled):
    return added if scaled else math.sqrt(2 * n_layer) * added


@wrong("stream_deviation", "start is scaled, too")
def everything_scaled(n_layer, start, added, scaled):
    total = start**2 + 2 * n_layer * added**2
    return math.sqrt(total / (2 * n_layer) if scaled else total)


@wrong("stream_deviation")
def measured_on_random_numbers(n_layer, start, added, scaled):
    rng, scale = random.Random(7), (2 * n_layer) ** -0.5 if scaled else 1
    ends = [
        start * rng.gauss(0, 1) + sum(scale * added * rng.gauss(0, 1) for _ in range(2 * n_layer))
        for _ in range(50)
    ]
    return math.sqrt(sum(end**2 for end in ends) / 50)


@wrong("stream_deviation")
def both_of_a_block_in_one(n_layer, start, added, scaled):
    variance = start**2
    for block in range(n_layer):
        variance += (2 * added / (math.sqrt(2 * n_layer) if scaled else 1)) ** 2
    return math.sqrt(variance)


@wrong("stream_deviation")
def squares_the_sum(n_layer, start, added, scaled):
    total = 2 * n_layer * added / (math.sqrt(2 * n_layer) if scaled else 1)
    return math.sqrt(start**2 + total**2)


@wrong("stream_deviation", "smaller than the start")
def start_as_a_variance(n_layer, start, added, scaled):
    return math.sqrt(start + added**2 * (1 if scaled else 2 * n_layer))


@wrong("stream_deviation")
def start_beside_the_root(n_layer, start, added, scaled):
    return start + (added if scaled else math.sqrt(2 * n_layer) * added)


# ---------------------------------------------------------------- mended_dropout


@right("mended_dropout")
def where(x, u, p, training):
    return torch.where(u < p, torch.zeros_like(x), x / (1 - p)) if training else x.clone()


@right("mended_dropout")
def number_after_number(x, u, p, training):
    out = [
        a / (1 - p) * (b >= p) if training else a
        for a, b in zip(x.flatten().tolist(), u.flatten().tolist())
    ]
    return torch.tensor(out, dtype=x.dtype).view(x.shape)


@right("mended_dropout")
def masked_fill_of_a_copy(x, u, p, training):
    p = p if training else 0.0
    return x.masked_fill(u < p, 0.0).div(1 - p)


@wrong("mended_dropout", "both bugs")
def as_it_was(x, u, p, training):
    kept = (u >= p).to(x.dtype)
    if training:
        kept = kept / p
    return x * kept


@wrong("mended_dropout", "divides by p")
def only_evaluation_mended(x, u, p, training):
    return x * (u >= p).to(x.dtype) / p if training else x


@wrong("mended_dropout", "still drops numbers in evaluation")
def only_the_division_mended(x, u, p, training):
    kept = (u >= p).to(x.dtype)
    if training:
        kept = kept / (1 - p)
    return x * kept


@wrong("mended_dropout", "every number has to stay as it is")
def no_training_flag(x, u, p, training):
    return x * (u >= p) / (1 - p)


@wrong("mended_dropout", "are not divided")
def forgets_to_divide(x, u, p, training):
    return torch.where(u < p, 0.0, x) if training else x


@wrong("mended_dropout")
def multiplies(x, u, p, training):
    return x * (u >= p) * (1 - p) if training else x


@wrong("mended_dropout", "every number has to stay as it is")
def both_cures_at_once(x, u, p, training):
    return x * (u >= p) / (1 - p) if training else x * (1 - p)


@wrong("mended_dropout", "every number has to stay as it is")
def as_in_the_paper_of_2014(x, u, p, training):
    return x * (u >= p) if training else x * (1 - p)


@wrong("mended_dropout")
def keeps_a_share_of_p(x, u, p, training):
    return x * (u < p) / (1 - p) if training else x


@wrong("mended_dropout", "every number has to stay as it is")
def flag_reversed(x, u, p, training):
    return x if training else x * (u >= p) / (1 - p)


@wrong("mended_dropout", "in place")
def drops_in_place(x, u, p, training):
    if training:
        x[u < p] = 0
        x /= 1 - p
    return x


@wrong("mended_dropout")
def keeps_those_below_one_minus_p(x, u, p, training):
    return x * (u < 1 - p) / (1 - p) if training else x


@wrong("mended_dropout", "float32")
def mask_of_another_type(x, u, p, training):
    return (x * (u >= p) / (1 - p)).float() if training else x


@wrong("mended_dropout", "is there a `return`?")
def returns_only_in_training(x, u, p, training):
    if training:
        return x * (u >= p) / (1 - p)


@wrong("mended_dropout", "u decides which numbers are dropped")
def the_one_of_torch(x, u, p, training):
    return F.dropout(x, p, training)


@wrong("mended_dropout", "u decides which numbers are dropped")
def draws_again(x, u, p, training):
    return x * (torch.rand_like(x) >= p) / (1 - p) if training else x


@wrong("mended_dropout")
def divides_by_the_observed_share(x, u, p, training):
    kept = (u >= p).to(x.dtype)
    return x * kept / kept.mean() if training else x


# ---------------------------------------------------------------- layer_norm_gradient


@right("layer_norm_gradient")
def autograd(x, g, eps):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(F.layer_norm(x, x.shape[-1:], eps=eps), x, g)[0]


@right("layer_norm_gradient")
def jacobian_of_each_position(x, g, eps):
    C, out = x.shape[-1], torch.empty_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            d = x[b, t] - x[b, t].sum() / C
            r = math.sqrt((d @ d).item() / C + eps)
            jacobian = (torch.eye(C, dtype=x.dtype) - 1 / C) / r - torch.outer(d, d) / (
                C * r**3
            )  # dy_i / dx_j
            out[b, t] = g[b, t] @ jacobian
    return out


@right("layer_norm_gradient")
def node_by_node(x, g, eps):
    C = x.shape[-1]
    d = x - x.mean(-1, keepdim=True)
    variance = d.square().mean(-1, keepdim=True)
    dvariance = (g * d).sum(-1, keepdim=True) * -0.5 * (variance + eps) ** -1.5
    dd = g * (variance + eps) ** -0.5 + dvariance * 2 * d / C
    return dd - dd.sum(-1, keepdim=True) / C


@right("layer_norm_gradient")
def small_steps(x, g, eps):
    wide, out, h = x.double(), [], 1e-5
    for step in torch.eye(x.shape[-1], dtype=torch.float64) * h:
        y = [F.layer_norm(wide + sign * step, x.shape[-1:], eps=eps) for sign in (1, -1)]
        out.append((g * (y[0] - y[1])).sum(-1) / (2 * h))
    return torch.stack(out, -1).to(x.dtype)


def gradient(x, g, eps, unbiased=False):
    r = torch.sqrt(x.var(-1, keepdim=True, unbiased=unbiased) + eps)
    y = (x - x.mean(-1, keepdim=True)) / r
    return (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True)) / r


@wrong("layer_norm_gradient", "treated as constants")
def straight_through(x, g, eps):
    return g / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + eps)


@wrong("layer_norm_gradient", "path through s² is missing")
def forgets_the_variance(x, g, eps):
    return (g - g.mean(-1, keepdim=True)) / torch.sqrt(
        x.var(-1, keepdim=True, unbiased=False) + eps
    )


@wrong("layer_norm_gradient", "path through μ is missing")
def forgets_the_mean(x, g, eps):
    r = torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + eps)
    y = (x - x.mean(-1, keepdim=True)) / r
    return (g - y * (g * y).mean(-1, keepdim=True)) / r


@wrong("layer_norm_gradient", "does not sum to 0")
def forgets_a_factor(x, g, eps):
    r = torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + eps)
    y = (x - x.mean(-1, keepdim=True)) / r
    return (g - g.mean(-1, keepdim=True) - (g * y).mean(-1, keepdim=True)) / r


@wrong("layer_norm_gradient")
def root_differentiated_without_its_half(x, g, eps):
    C = x.shape[-1]
    d = x - x.mean(-1, keepdim=True)
    variance = d.square().mean(-1, keepdim=True)
    dvariance = -(g * d).sum(-1, keepdim=True) * (variance + eps) ** -1.5
    dd = g * (variance + eps) ** -0.5 + dvariance * 2 * d / C
    return dd - dd.mean(-1, keepdim=True)


@wrong("layer_norm_gradient")
def square_differentiated_without_its_2(x, g, eps):
    C = x.shape[-1]
    d = x - x.mean(-1, keepdim=True)
    variance = d.square().mean(-1, keepdim=True)
    dvariance = -0.5 * (g * d).sum(-1, keepdim=True) * (variance + eps) ** -1.5
    dd = g * (variance + eps) ** -0.5 + dvariance * d / C
    return dd - dd.mean(-1, keepdim=True)


@wrong("layer_norm_gradient", "wrong sign")
def sign_of_the_variance(x, g, eps):
    r = torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + eps)
    y = (x - x.mean(-1, keepdim=True)) / r
    return (g - g.mean(-1, keepdim=True) + y * (g * y).mean(-1, keepdim=True)) / r


@wrong("layer_norm_gradient", "does not sum to 0")
def sums_for_means(x, g, eps):
    r = torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + eps)
    y = (x - x.mean(-1, keepdim=True)) / r
    return (g - g.sum(-1, keepdim=True) - y * (g * y).sum(-1, keepdim=True)) / r


@wrong("layer_norm_gradient")
def forgets_to_divide_by_r(x, g, eps):
    return gradient(x, g, eps) * torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + eps)


@wrong("layer_norm_gradient", "C - 1")
def unbiased_variance(x, g, eps):
    return gradient(x, g, eps, unbiased=True)


@wrong("layer_norm_gradient")
def epsilon_outside(x, g, eps):
    r = x.std(-1, keepdim=True, unbiased=False) + eps
    y = (x - x.mean(-1, keepdim=True)) / r
    return (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True)) / r


@wrong("layer_norm_gradient")
def no_epsilon(x, g, eps):
    return gradient(x, g, 0.0)


@wrong("layer_norm_gradient")
def epsilon_as_usual(x, g, eps):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(F.layer_norm(x, x.shape[-1:]), x, g)[0]


@wrong("layer_norm_gradient", "does not sum to 0")
def wrong_axis_of_the_norm(x, g, eps):
    return gradient(x.transpose(1, 2), g.transpose(1, 2), eps).transpose(1, 2)


@wrong("layer_norm_gradient", "is there a `return`?")
def forgets_to_return(x, g, eps):
    gradient(x, g, eps)


def parts(x, eps):
    d = x - x.mean(-1, keepdim=True)
    variance = d.square().mean(-1, keepdim=True)
    return d, variance.sqrt(), (variance + eps).sqrt()


@wrong("layer_norm_gradient", "a sum over j is missing")
def only_the_own_y(x, g, eps):
    C, (d, s, r) = x.shape[-1], parts(x, eps)
    return g * (1 / r - 1 / (C * r) - d**2 / (C * r**3))


@wrong("layer_norm_gradient", "the mean of y alone is 0")
def mean_of_y_alone(x, g, eps):
    d, s, r = parts(x, eps)
    y = d / r
    return (g - g.mean(-1, keepdim=True) - (y * g) * y.mean(-1, keepdim=True)) / r


@wrong("layer_norm_gradient")
def deviation_for_y(x, g, eps):
    d, s, r = parts(x, eps)
    return (g - g.mean(-1, keepdim=True) - d / r * (g * d).mean(-1, keepdim=True)) / r


@wrong("layer_norm_gradient")
def deviation_for_y_twice(x, g, eps):
    d, s, r = parts(x, eps)
    return (g - g.mean(-1, keepdim=True) - d * (g * d).mean(-1, keepdim=True)) / r


@wrong("layer_norm_gradient")
def stops_at_the_variance(x, g, eps):
    C, (d, s, r) = x.shape[-1], parts(x, eps)
    through_s2 = (g * d).sum(-1, keepdim=True) * 2 * d / C
    return g / r - (g / r).sum(-1, keepdim=True) / C + through_s2


@wrong("layer_norm_gradient")
def derivative_of_r_for_that_of_its_inverse(x, g, eps):
    C, (d, s, r) = x.shape[-1], parts(x, eps)
    return (g - g.mean(-1, keepdim=True)) / r + (g * d).sum(-1, keepdim=True) * d / (C * r)


@wrong("layer_norm_gradient")
def divides_by_the_variance(x, g, eps):
    d, s, r = parts(x, eps)
    y = d / r
    return (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True)) / r**2


@wrong("layer_norm_gradient")
def y_without_epsilon(x, g, eps):
    d, s, r = parts(x, eps)
    y = d / s
    return (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True)) / r


@wrong("layer_norm_gradient")
def epsilon_outside_derived_rightly(x, g, eps):
    d, s, r = parts(x, eps)
    r = s + eps
    return (g - g.mean(-1, keepdim=True) - d * (g * d).mean(-1, keepdim=True) / (s * r)) / r


@wrong("layer_norm_gradient", "does not sum to 0")
def weighted_by_the_gradient_once_more(x, g, eps):
    d, s, r = parts(x, eps)
    return g * gradient(x, g, eps)


# ---------------------------------------------------------------- parallel_block


@right("parallel_block")
def head_by_head(x, W_qkv, W_o, W_1, W_2, n_head):
    B, T, C = x.shape
    D = C // n_head
    y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    W_q, W_k, W_v = W_qkv.split(C)
    out = x.clone()
    for h in range(n_head):
        q, k, v = (F.linear(y, W[h * D : (h + 1) * D]) for W in (W_q, W_k, W_v))
        scores = q @ k.mT / math.sqrt(D) + torch.full((T, T), -torch.inf, dtype=x.dtype).triu(1)
        out += scores.softmax(-1) @ v @ W_o[:, h * D : (h + 1) * D].T
    hidden = F.linear(y, W_1)
    return out + F.linear(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))), W_2)


@right("parallel_block")
def position_by_position(x, W_qkv, W_o, W_1, W_2, n_head):
    B, T, C = x.shape
    y, D = F.layer_norm(x, (C,)), C // n_head
    q, k, v = torch.einsum("btc,phdc->pbthd", y, W_qkv.view(3, n_head, D, C))
    rows = []
    for t in range(T):
        weights = torch.einsum("bhd,bshd->bhs", q[:, t], k[:, : t + 1]).div(D**0.5).softmax(-1)
        attended = torch.einsum("bhs,bshd->bhd", weights, v[:, : t + 1]).flatten(1)
        rows.append(x[:, t] + attended @ W_o.T + F.gelu(y[:, t] @ W_1.T) @ W_2.T)
    return torch.stack(rows, dim=1)


def attend(y, W_qkv, W_o, n_head, **how):
    B, T, C = y.shape
    q, k, v = (part.view(B, T, n_head, -1).transpose(1, 2) for part in (y @ W_qkv.T).chunk(3, -1))
    out = F.scaled_dot_product_attention(q, k, v, **{"is_causal": True, **how})
    return out.transpose(1, 2).flatten(2) @ W_o.T


def feed_forward(y, W_1, W_2, activation=F.gelu):
    return activation(y @ W_1.T) @ W_2.T


def norm(x):
    return F.layer_norm(x, x.shape[-1:])


@wrong("parallel_block", "waits for the attention")
def one_after_the_other(x, W_qkv, W_o, W_1, W_2, n_head):
    x = x + attend(norm(x), W_qkv, W_o, n_head)
    return x + feed_forward(norm(x), W_1, W_2)


@wrong("parallel_block", "position 0 is wrong")
def chained(x, W_qkv, W_o, W_1, W_2, n_head):
    attended = attend(norm(x), W_qkv, W_o, n_head)
    return x + attended + feed_forward(norm(attended), W_1, W_2)


@wrong("parallel_block", "residual connection is missing")
def no_residual(x, W_qkv, W_o, W_1, W_2, n_head):
    y = norm(x)
    return attend(y, W_qkv, W_o, n_head) + feed_forward(y, W_1, W_2)


@wrong("parallel_block", "position 0 is wrong")
def two_residuals(x, W_qkv, W_o, W_1, W_2, n_head):
    y = norm(x)
    return (x + attend(y, W_qkv, W_o, n_head)) + (x + feed_forward(y, W_1, W_2))


@wrong("parallel_block", "position 0 is wrong")
def normed_residual(x, W_qkv, W_o, W_1, W_2, n_head):
    x = norm(x)
    return x + attend(x, W_qkv, W_o, n_head) + feed_forward(x, W_1, W_2)


@wrong("parallel_block", "the norm is missing")
def no_norm(x, W_qkv, W_o, W_1, W_2, n_head):
    return x + attend(x, W_qkv, W_o, n_head) + feed_forward(x, W_1, W_2)


@wrong("parallel_block", "position 0 is wrong")
def only_attention_normed(x, W_qkv, W_o, W_1, W_2, n_head):
    return x + attend(norm(x), W_qkv, W_o, n_head) + feed_forward(x, W_1, W_2)


@wrong("parallel_block", "position 0 is wrong")
def norm_after_the_sum(x, W_qkv, W_o, W_1, W_2, n_head):
    return norm(x + attend(x, W_qkv, W_o, n_head) + feed_forward(x, W_1, W_2))


@wrong("parallel_block", "sees the future")
def not_causal(x, W_qkv, W_o, W_1, W_2, n_head):
    y = norm(x)
    return x + attend(y, W_qkv, W_o, n_head, is_causal=False) + feed_forward(y, W_1, W_2)


@wrong("parallel_block", "position 0 is wrong")
def heads_before_q_k_v(x, W_qkv, W_o, W_1, W_2, n_head):
    B, T, C = x.shape
    y = norm(x)
    q, k, v = (y @ W_qkv.T).view(B, T, n_head, 3 * C // n_head).transpose(1, 2).chunk(3, -1)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return x + out.transpose(1, 2).reshape(B, T, C) @ W_o.T + feed_forward(y, W_1, W_2)


@wrong("parallel_block", "heads are joined again")
def view_only_on_the_way_back(x, W_qkv, W_o, W_1, W_2, n_head):
    B, T, C = x.shape
    y = norm(x)
    q, k, v = (part.view(B, T, n_head, -1).transpose(1, 2) for part in (y @ W_qkv.T).chunk(3, -1))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return x + out.reshape(B, T, C) @ W_o.T + feed_forward(y, W_1, W_2)


@wrong("parallel_block", "position 0 is wrong")
def view_only_on_the_way_in(x, W_qkv, W_o, W_1, W_2, n_head):
    B, T, C = x.shape
    y = norm(x)
    q, k, v = (part.reshape(B, n_head, T, -1) for part in (y @ W_qkv.T).chunk(3, -1))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return x + out.transpose(1, 2).reshape(B, T, C) @ W_o.T + feed_forward(y, W_1, W_2)


@wrong("parallel_block", "position 0 is wrong")
def output_matrix_from_the_wrong_side(x, W_qkv, W_o, W_1, W_2, n_head):
    y = norm(x)
    return x + attend(y, W_qkv, W_o.T, n_head) + feed_forward(y, W_1, W_2)


@wrong("parallel_block", "position 0 is wrong")
def relu(x, W_qkv, W_o, W_1, W_2, n_head):
    y = norm(x)
    return x + attend(y, W_qkv, W_o, n_head) + feed_forward(y, W_1, W_2, F.relu)


@wrong("parallel_block", "in place")
def adds_in_place(x, W_qkv, W_o, W_1, W_2, n_head):
    y = norm(x)
    x += attend(y, W_qkv, W_o, n_head)
    x += feed_forward(y, W_1, W_2)
    return x


@wrong("parallel_block", "mat1 and mat2")
def matrices_from_the_left_as_they_are(x, W_qkv, W_o, W_1, W_2, n_head):
    y = norm(x)
    return x + attend(y, W_qkv, W_o, n_head) + F.gelu(y @ W_1) @ W_2


@wrong("parallel_block")
def loses_a_text_of_one_character(x, W_qkv, W_o, W_1, W_2, n_head):
    y = norm(x)
    return (x + attend(y, W_qkv, W_o, n_head) + feed_forward(y, W_1, W_2)).squeeze(1)


@wrong("parallel_block")
def gelu_as_gpt_2_computed_it(x, W_qkv, W_o, W_1, W_2, n_head):
    y = norm(x)
    return (
        x
        + attend(y, W_qkv, W_o, n_head)
        + feed_forward(y, W_1, W_2, lambda z: F.gelu(z, approximate="tanh"))
    )


@wrong("parallel_block", "position 0 is wrong")
def norm_by_hand_as_var_comes(x, W_qkv, W_o, W_1, W_2, n_head):
    y = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True) + 1e-5)
    return x + attend(y, W_qkv, W_o, n_head) + feed_forward(y, W_1, W_2)


@wrong("parallel_block", "a later one is wrong")
def keys_before_queries(x, W_qkv, W_o, W_1, W_2, n_head):
    W_k, W_q, W_v = W_qkv.chunk(3)
    y = norm(x)
    return x + attend(y, torch.cat([W_q, W_k, W_v]), W_o, n_head) + feed_forward(y, W_1, W_2)


@wrong("parallel_block", "position 0 is wrong")
def forgets_the_attention(x, W_qkv, W_o, W_1, W_2, n_head):
    return x + feed_forward(norm(x), W_1, W_2)


@wrong("parallel_block", "position 0 is wrong")
def forgets_the_feed_forward_layer(x, W_qkv, W_o, W_1, W_2, n_head):
    return x + attend(norm(x), W_qkv, W_o, n_head)


@wrong("parallel_block", "position 0 is wrong")
def attends_twice(x, W_qkv, W_o, W_1, W_2, n_head):
    y = norm(x)
    return x + 2 * attend(y, W_qkv, W_o, n_head) + feed_forward(y, W_1, W_2)
