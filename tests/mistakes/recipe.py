"""Answers to the exercises of lesson 10: right ones, and wrong ones with a piece of their hint."""

import math

import torch
import torch.nn.functional as F

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- share_read_twice


@right("share_read_twice")
def sum_of_all_counts(n, batch_size, steps):
    p, share = batch_size / n, 0.0
    for k in range(2, steps + 1):
        share += math.comb(steps, k) * p**k * (1 - p) ** (steps - k)
    return share


@right("share_read_twice")
def step_by_step(n, batch_size, steps):
    """Carries along the shares never read, read once, read more often."""
    never, once, more = 1.0, 0.0, 0.0
    for _ in range(steps):
        more += once * batch_size / n
        once = once * (n - batch_size) / n + never * batch_size / n
        never *= (n - batch_size) / n
    return more


@wrong("share_read_twice", "share read at least once")
def at_least_once(n, batch_size, steps):
    return 1 - (1 - batch_size / n) ** steps


@wrong("share_read_twice", "exactly twice")
def exactly_twice(n, batch_size, steps):
    p = batch_size / n
    return steps * (steps - 1) / 2 * p * p * (1 - p) ** (steps - 2) if steps > 1 else 0.0


@wrong("share_read_twice")
def just_once(n, batch_size, steps):
    p = batch_size / n
    return steps * p * (1 - p) ** (steps - 1)


@wrong("share_read_twice")
def never_read(n, batch_size, steps):
    return math.prod([1 - batch_size / n] * steps)


@wrong("share_read_twice", "drawn one by one")
def draws_one_by_one(n, batch_size, steps):
    draws = steps * batch_size
    return 1 - (1 - 1 / n) ** draws - draws / n * (1 - 1 / n) ** (draws - 1)


@wrong("share_read_twice", "powers of e")
def poisson(n, batch_size, steps):
    rate = steps * batch_size / n
    return 1 - math.exp(-rate) - rate * math.exp(-rate)


@wrong("share_read_twice", "`steps` ways")
def one_way_only(n, batch_size, steps):
    p = batch_size / n
    return 1 - (1 - p) ** steps - p * (1 - p) ** (steps - 1)


@wrong("share_read_twice", "steps - 1 others")
def one_power_too_many(n, batch_size, steps):
    p = batch_size / n
    return 1 - (1 - p) ** steps * (1 + steps * p)


@wrong("share_read_twice")
def as_if_shuffled(n, batch_size, steps):
    return min(1.0, max(0.0, (steps * batch_size - n) / n))


@wrong("share_read_twice")
def windows_not_share(n, batch_size, steps):
    p = batch_size / n
    return n * (1 - (1 - p) ** steps - steps * p * (1 - p) ** (steps - 1))


@wrong("share_read_twice")
def in_percent(n, batch_size, steps):
    p = batch_size / n
    return 100 * (1 - (1 - p) ** steps - steps * p * (1 - p) ** (steps - 1))


@wrong("share_read_twice")
def once_squared(n, batch_size, steps):
    return (1 - (1 - batch_size / n) ** steps) ** 2


@wrong("share_read_twice", "is there a `return`?")
def share_without_return(n, batch_size, steps):
    p = batch_size / n
    1 - (1 - p) ** steps - steps * p * (1 - p) ** (steps - 1)


# ---------------------------------------------------------------- inverse_root_rate


@right("inverse_root_rate")
def two_branches(step, peak, warmup):
    if step < warmup:
        return peak / warmup * (step + 1)
    return peak * math.sqrt(warmup) / math.sqrt(step + 1)


@right("inverse_root_rate")
def by_logarithms(step, peak, warmup):
    distance = math.log(step + 1) - math.log(warmup)
    return peak * math.exp(distance if distance < 0 else -distance / 2)


@wrong("inverse_root_rate", "one step late")
def counts_from_zero(step, peak, warmup):
    if step <= warmup:
        return peak * step / warmup
    return peak * math.sqrt(warmup / step)


@wrong("inverse_root_rate", "ZeroDivisionError")
def divides_by_step(step, peak, warmup):
    return min(peak * step / warmup, peak * (warmup / step) ** 0.5)


@wrong("inverse_root_rate", "a jump after the warmup")
def root_alone(step, peak, warmup):
    return peak * (step + 1) / warmup if step + 1 <= warmup else peak / math.sqrt(step + 1)


@wrong("inverse_root_rate", "the root is missing")
def inverse_alone(step, peak, warmup):
    return min((step + 1) / warmup, warmup / (step + 1)) * peak


@wrong("inverse_root_rate", "from the end of the warmup")
def root_since_warmup(step, peak, warmup):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak / math.sqrt(step - warmup + 2)


@wrong("inverse_root_rate", "for step = 0")
def larger_of_both(step, peak, warmup):
    return peak * max((step + 1) / warmup, math.sqrt(warmup / (step + 1)))


@wrong("inverse_root_rate", "a peak of its own")
def formula_of_the_paper(step, peak, warmup):
    k = step + 1
    return peak * min(1 / math.sqrt(k), k / warmup**1.5)


@wrong("inverse_root_rate", "one step too long")
def warmup_plus_one(step, peak, warmup):
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * (warmup / (step + 1)) ** 0.5


@wrong("inverse_root_rate", "for step = 0")
def share_alone(step, peak, warmup):
    return (step + 1) / warmup if step < warmup else math.sqrt(warmup / (step + 1))


@wrong("inverse_root_rate")
def no_fall(step, peak, warmup):
    return min(peak, peak * (step + 1) / warmup)


@wrong("inverse_root_rate", "for step = 0")
def no_rise(step, peak, warmup):
    return peak * math.sqrt(warmup) / math.sqrt(step + 1)


@wrong("inverse_root_rate", "is there a `return`?")
def rate_without_return(step, peak, warmup):
    peak * min((step + 1) / warmup, (warmup / (step + 1)) ** 0.5)


# ---------------------------------------------------------------- accumulated_gradient


@right("accumulated_gradient")
def guess_minus_truth(table, x, y, size):
    """p - y at each target, by hand."""
    gradient, count = torch.zeros_like(table), 0
    for now, following in zip(x.flatten().tolist(), y.flatten().tolist()):
        if following >= 0:
            gradient[now] += table[now].softmax(0)
            gradient[now, following] -= 1
            count += 1
    return gradient / count


@right("accumulated_gradient")
def sums_then_one_division(table, x, y, size):
    leaf = table.detach().clone()
    leaf.requires_grad = True
    for start in range(0, len(x), size):
        log_probs = leaf.log_softmax(1)[x[start : start + size]]
        b = y[start : start + size]
        picked = log_probs.gather(2, b.clamp(min=0)[..., None])[..., 0]
        (-picked * (b != -100)).sum().backward()
    return leaf.grad / (y != -100).sum()


@right("accumulated_gradient")
def all_at_once(table, x, y, size):
    leaf = table.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(leaf[x].transpose(1, 2), y), leaf)[0]


@wrong("accumulated_gradient", "nothing is mended")
def by_number_of_pieces(table, x, y, size):
    table = table.clone().requires_grad_()
    pieces = math.ceil(len(x) / size)
    for a, b in zip(x.split(size), y.split(size)):
        (F.cross_entropy(table[a].flatten(0, 1), b.flatten()) / pieces).backward()
    return table.grad


@wrong("accumulated_gradient", "by their lines")
def by_lines(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        (F.cross_entropy(table[a].flatten(0, 1), b.flatten()) * b.numel() / y.numel()).backward()
    return table.grad


@wrong("accumulated_gradient")
def size_by_lines(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        (F.cross_entropy(table[a].flatten(0, 1), b.flatten()) * min(1, size / len(x))).backward()
    return table.grad


@wrong("accumulated_gradient", "added up as they are")
def no_division(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        F.cross_entropy(table[a].flatten(0, 1), b.flatten()).backward()
    return table.grad


@wrong("accumulated_gradient", "not divided by the number of targets")
def sum_of_losses(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        F.cross_entropy(table[a].flatten(0, 1), b.flatten(), reduction="sum").backward()
    return table.grad


@wrong("accumulated_gradient", "by all places")
def sum_by_places(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        (
            F.cross_entropy(table[a].flatten(0, 1), b.flatten(), reduction="sum") / y.numel()
        ).backward()
    return table.grad


@wrong("accumulated_gradient")
def zero_grad_inside(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        table.grad = None
        loss = F.cross_entropy(table[a].flatten(0, 1), b.flatten(), reduction="sum")
        (loss / (y != -100).sum()).backward()
    return table.grad


@wrong("accumulated_gradient")
def mean_of_line_means(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x, y):
        (F.cross_entropy(table[a], b) / len(x)).backward()
    return table.grad


@wrong("accumulated_gradient")
def divides_twice(table, x, y, size):
    table, pieces = table.clone().requires_grad_(), len(x.split(size))
    for a, b in zip(x.split(size), y.split(size)):
        loss = F.cross_entropy(table[a].flatten(0, 1), b.flatten(), reduction="sum")
        (loss / (y != -100).sum() / pieces).backward()
    return table.grad


@wrong("accumulated_gradient", "a mean times its own targets")
def mean_by_targets(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        (F.cross_entropy(table[a].flatten(0, 1), b.flatten()) / (y != -100).sum()).backward()
    return table.grad


@wrong("accumulated_gradient")
def truth_minus_guess(table, x, y, size):
    at = y != -100
    p = table[x[at]].softmax(1)
    p = F.one_hot(y[at], len(table)) - p
    return torch.zeros_like(table).index_add(0, x[at], p.to(table.dtype)) / at.sum()


@wrong("accumulated_gradient", "in place")
def pads_overwritten(table, x, y, size):
    table = table.clone().requires_grad_()
    count = (y != -100).sum()
    y[y == -100] = 0
    for a, b in zip(x.split(size), y.split(size)):
        (F.cross_entropy(table[a].flatten(0, 1), b.flatten(), reduction="sum") / count).backward()
    return table.grad


@wrong("accumulated_gradient", "is there a `return`?")
def gradient_without_return(table, x, y, size):
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        loss = F.cross_entropy(table[a].flatten(0, 1), b.flatten(), reduction="sum")
        (loss / (y != -100).sum()).backward()


@wrong("accumulated_gradient")
def same_row_counts_once(table, x, y, size):
    gradient, at = torch.zeros_like(table), y != -100
    p = table[x[at]].softmax(1) - F.one_hot(y[at], len(table))
    gradient[x[at]] += p.to(table.dtype) / at.sum()
    return gradient


# ---------------------------------------------------------------- unscale_and_clip


@right("unscale_and_clip")
def one_long_vector(gradients, scale, most):
    flat = torch.cat([g.flatten().float() for g in gradients]) / scale
    if torch.isnan(flat).any() or torch.isinf(flat).any():
        return []
    if flat.norm() > most:
        flat = flat / flat.norm() * most
    pieces = flat.split([g.numel() for g in gradients])
    return [piece.view(g.shape) for piece, g in zip(pieces, gradients)]


@right("unscale_and_clip")
def number_after_number(gradients, scale, most):
    numbers = [x / scale for g in gradients for x in g.flatten().tolist()]
    if not all(map(math.isfinite, numbers)):
        return []
    length = math.hypot(*numbers)
    factor = most / length if length > most else 1.0
    return [
        torch.tensor([x / scale * factor for x in g.flatten().tolist()]).view(g.shape)
        for g in gradients
    ]


@right("unscale_and_clip")
def with_the_library(gradients, scale, most):
    weights = [torch.zeros(g.shape, requires_grad=True) for g in gradients]
    for weight, g in zip(weights, gradients):
        weight.grad = g.to(torch.float32) * (1 / scale)
    length = torch.nn.utils.clip_grad_norm_(weights, most)
    return [weight.grad for weight in weights] if length.isfinite() else []


@wrong("unscale_and_clip", "the scaled gradients are clipped")
def clips_first(gradients, scale, most):
    gradients = [g.float() for g in gradients]
    length = torch.cat([g.flatten() for g in gradients]).norm()
    if not torch.isfinite(length):
        return []
    if length > most:
        gradients = [g * most / length for g in gradients]
    return [g / scale for g in gradients]


@wrong("unscale_and_clip", "by its own length")
def each_alone(gradients, scale, most):
    if not all(g.isfinite().all() for g in gradients):
        return []
    gradients = [g.float() / scale for g in gradients]
    return [g * most / g.norm() if g.norm() > most else g for g in gradients]


@wrong("unscale_and_clip", "clipping by value")
def by_value(gradients, scale, most):
    if not all(g.isfinite().all() for g in gradients):
        return []
    return [(g.float() / scale).clamp(-most, most) for g in gradients]


@wrong("unscale_and_clip", "done in float16")
def divides_in_half(gradients, scale, most):
    if not all(g.isfinite().all() for g in gradients):
        return []
    gradients = [g.div(scale).float() for g in gradients]
    length = torch.cat([g.flatten() for g in gradients]).norm()
    return [g * most / length if length > most else g for g in gradients]


@wrong("unscale_and_clip", "item 0: at index [0, 0] it has")
def never_unscaled(gradients, scale, most):
    gradients = [g.float() for g in gradients]
    length = torch.cat([g.flatten() for g in gradients]).norm()
    if not length.isfinite():
        return []
    return [g * most / length if length > most else g for g in gradients]


@wrong("unscale_and_clip", "item 0: at index [0, 0] it has")
def only_unscaled(gradients, scale, most):
    return (
        [g.float() / scale for g in gradients] if all(g.isfinite().all() for g in gradients) else []
    )


@wrong("unscale_and_clip", "a short gradient is made longer")
def always_of_that_length(gradients, scale, most):
    if not all(g.isfinite().all() for g in gradients):
        return []
    gradients = [g.float() / scale for g in gradients]
    length = torch.cat([g.flatten() for g in gradients]).norm()
    return [g * most / length for g in gradients]


@wrong("unscale_and_clip")
def always_of_that_length_nearly(gradients, scale, most):
    if not all(g.isfinite().all() for g in gradients):
        return []
    gradients = [g.float() / scale for g in gradients]
    length = torch.cat([g.flatten() for g in gradients]).norm() + 1e-6
    return [g * most / length for g in gradients]


@wrong("unscale_and_clip", "are not looked for")
def trusts_all_numbers(gradients, scale, most):
    gradients = [g.float() / scale for g in gradients]
    length = torch.cat([g.flatten() for g in gradients]).norm()
    return [g * (most / length).clamp(max=1) for g in gradients]


@wrong("unscale_and_clip", "but a list [] was expected")
def only_infinite(gradients, scale, most):
    if any(g.isinf().any() for g in gradients):
        return []
    gradients = [g.float() / scale for g in gradients]
    length = torch.cat([g.flatten() for g in gradients]).norm()
    return [g * (most / length).clamp(max=1) for g in gradients]


@wrong("unscale_and_clip", "but a list [] was expected")
def leaves_the_bad_tensor_out(gradients, scale, most):
    gradients = [g.float() / scale for g in gradients if g.isfinite().all()]
    length = torch.cat([g.flatten() for g in gradients]).norm()
    return [g * (most / length).clamp(max=1) for g in gradients]


@wrong("unscale_and_clip", "item 0: at index [0, 0] it has")
def sum_of_lengths(gradients, scale, most):
    if not all(g.isfinite().all() for g in gradients):
        return []
    gradients = [g.float() / scale for g in gradients]
    length = sum(g.norm().item() for g in gradients)
    return [g * min(1, most / max(length, 1e-30)) for g in gradients]


@wrong("unscale_and_clip", "item 0: at index [0, 0] it has")
def squared_length(gradients, scale, most):
    if not all(g.isfinite().all() for g in gradients):
        return []
    gradients = [g.float() / scale for g in gradients]
    length = sum((g**2).sum() for g in gradients)
    return [g * most / length if length > most else g for g in gradients]


@wrong("unscale_and_clip", "of float16, but")
def back_to_half(gradients, scale, most):
    if not all(g.isfinite().all() for g in gradients):
        return []
    floats = [g.float() / scale for g in gradients]
    length = torch.cat([g.flatten() for g in floats]).norm()
    return [(g * (most / length).clamp(max=1)).to(old.dtype) for g, old in zip(floats, gradients)]


@wrong("unscale_and_clip", "ZeroDivisionError")
def divides_by_no_length(gradients, scale, most):
    if not all(g.isfinite().all() for g in gradients):
        return []
    gradients = [g.float() / scale for g in gradients]
    length = math.sqrt(sum(g.square().sum().item() for g in gradients))
    return [g * min(1, most / length) for g in gradients]


@wrong("unscale_and_clip", "in place")
def divides_the_inputs(gradients, scale, most):
    if not all(g.isfinite().all() for g in gradients):
        return []
    for g in gradients:
        g /= scale
    length = torch.cat([g.flatten().float() for g in gradients]).norm()
    return [g.float() * (most / length).clamp(max=1) for g in gradients]


@wrong("unscale_and_clip", "is there a `return`?")
def clip_without_return(gradients, scale, most):
    if not all(g.isfinite().all() for g in gradients):
        return []
    gradients = [g.float() / scale for g in gradients]
    length = torch.cat([g.flatten() for g in gradients]).norm()
    [g * (most / length).clamp(max=1) for g in gradients]
