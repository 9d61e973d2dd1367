"""Lesson 02."""

import math

import torch
from torch.nn import functional as F

from tests.mistakes import right, wrong


@right("sharpened_probabilities")
def powers(p, a):
    powers = p**a
    return powers / powers.sum(-1, keepdim=True)


@right("sharpened_probabilities")
def through_logits_relative_to_the_likeliest(p, a):
    z = p.log() - p.log().max(-1, keepdim=True).values
    e = torch.exp(z * a)
    return e / e.sum(dim=-1).unsqueeze(-1)


@right("sharpened_probabilities")
def row_by_row(p, a):
    rows = [torch.stack([x**a for x in row]) for row in p.reshape(-1, p.shape[-1])]
    return torch.stack([row / sum(row) for row in rows]).reshape(p.shape)


@wrong("sharpened_probabilities", "taken for logits")
def probabilities_as_logits(p, a):
    return F.softmax(p * a, dim=-1)


@wrong("sharpened_probabilities", "the probabilities do not sum to 1")
def powers_alone(p, a):
    return p**a


@wrong("sharpened_probabilities", "the logits are divided by a, and should be multiplied")
def divides_by_a(p, a):
    return F.softmax(p.log() / a, dim=-1)


@wrong("sharpened_probabilities", "adding to all logits, or scaling all p, does nothing")
def multiplies_and_divides(p, a):
    return a * p / (a * p).sum(-1, keepdim=True)


@wrong("sharpened_probabilities", "adding to all logits")
def adds_to_the_logits(p, a):
    return F.softmax(p.log() + a, dim=-1)


@wrong("sharpened_probabilities", "first axis")
def over_the_first_axis(p, a):
    return F.softmax(a * p.log(), dim=0)


@wrong("sharpened_probabilities", "the probabilities do not sum to 1")
def stops_at_the_logits(p, a):
    return a * p.log()


@wrong("sharpened_probabilities", "do not sum to 1")
def sums_over_everything(p, a):
    return p**a / (p**a).sum()


@wrong("sharpened_probabilities", "in place")
def powers_in_place(p, a):
    p.pow_(a)
    return p / p.sum(-1, keepdim=True)


@wrong("sharpened_probabilities", "is there a `return`?")
def no_return(p, a):
    F.softmax(a * p.log(), dim=-1)


@wrong("sharpened_probabilities", "a p of 0 has the logit -∞, and keeps the probability 0")
def log_odds(p, a):
    return (a * (p / (1 - p)).log()).softmax(-1)


@wrong("sharpened_probabilities", "a p of 0 has the logit -∞, and keeps the probability 0")
def terms_of_the_entropy(p, a):
    return (a * p.log() * p).softmax(-1)


@wrong("sharpened_probabilities", "a p of 0 has the logit -∞, and keeps the probability 0")
def relative_to_the_unlikeliest(p, a):
    z = p.log() - p.log().min(-1, keepdim=True).values
    return (a * z).softmax(-1)


@right("loss_of_any")
def largest_taken_out_by_hand(z, right):
    losses = []
    for row, good in zip(z, right):
        top, best = row.max(), row[good].max()
        losses.append(
            top + (row - top).exp().sum().log() - best - (row[good] - best).exp().sum().log()
        )
    return torch.stack(losses)


@right("loss_of_any")
def pair_by_pair(z, right):
    total = torch.full_like(z[:, 0], -math.inf)
    for c in range(z.shape[1]):
        total = torch.where(right[:, c], torch.logaddexp(total, z.log_softmax(1)[:, c]), total)
    return -total


@right("loss_of_any")
def against_the_wrong_ones(z, right):
    good = torch.logsumexp(z.where(right, torch.tensor(-math.inf, dtype=z.dtype)), 1)
    bad = torch.logsumexp(z.where(~right, torch.tensor(-math.inf, dtype=z.dtype)), 1)
    return F.softplus(bad - good)  # -ln(1 / (1 + e^(bad - good)))


@wrong("loss_of_any", "is nan: the exponentials overflow")
def by_definition(z, right):
    p = z.exp() / z.exp().sum(-1, keepdim=True)
    return -(p * right).sum(-1).log()


@wrong("loss_of_any", "is nan: the exponentials overflow")
def difference_of_logarithms_of_sums(z, right):
    return z.exp().sum(-1).log() - (z.exp() * right).sum(-1).log()


@wrong("loss_of_any", "subtract the largest right logit before exp")
def logarithm_after_softmax(z, right):
    return -(z.softmax(-1) * right).sum(-1).log()


@wrong("loss_of_any", "subtract the largest right logit before exp")
def largest_of_all_taken_out_of_both(z, right):
    e = (z - z.max(-1, keepdim=True).values).exp()
    return e.sum(-1).log() - (e * right).sum(-1).log()


@wrong("loss_of_any")
def mean_probability(z, right):
    log_p = z.log_softmax(-1).masked_fill(~right, -math.inf)
    return -(log_p.logsumexp(-1) - right.sum(-1).log())


@wrong("loss_of_any", "the logarithms are summed, which asks for all the right ones at once")
def sum_of_losses(z, right):
    return -(z.log_softmax(-1) * right).sum(-1)


@wrong("loss_of_any")
def mean_of_losses(z, right):
    return -(z.log_softmax(-1) * right).sum(-1) / right.sum(-1)


@wrong("loss_of_any", "only the likeliest")
def best_only(z, right):
    return torch.stack([-row.log_softmax(0)[good].max() for row, good in zip(z, right)])


@wrong("loss_of_any")
def no_minus(z, right):
    return z.masked_fill(~right, -math.inf).logsumexp(-1) - z.logsumexp(-1)


@wrong("loss_of_any")
def in_bits(z, right):
    return (z.logsumexp(-1) - z.masked_fill(~right, -math.inf).logsumexp(-1)) / math.log(2)


@wrong("loss_of_any")
def normalised_over_the_rows(z, right):
    return -z.log_softmax(0).masked_fill(~right, -math.inf).logsumexp(-1)


@wrong("loss_of_any")
def one_number(z, right):
    return (z.logsumexp(-1) - z.masked_fill(~right, -math.inf).logsumexp(-1)).mean()


@wrong("loss_of_any", "in place")
def masks_in_place(z, right):
    total = z.logsumexp(-1)
    z[~right] = -math.inf
    return total - z.logsumexp(-1)


@wrong("loss_of_any", "subtract the row's largest logit before exp")
def leaves_wrong_ones_out_after_exp(z, right):
    best = z.masked_fill(~right, -math.inf).amax(-1, keepdim=True)
    return z.logsumexp(-1) - best[:, 0] - ((z - best).exp() * right).sum(-1).log()


@wrong("loss_of_any", "wrong characters have the logit 0 and count as e^0 = 1")
def wrong_logits_become_zero(z, right):
    return z.logsumexp(-1) - (z * right).logsumexp(-1)


@wrong("loss_of_any")
def sums_the_right_logits(z, right):
    return z.logsumexp(-1) - (z * right).sum(-1)


@wrong("loss_of_any", "a lower bound of the probability (clamp, + 1e-9) hides how small it was")
def clamps_the_probability(z, right):
    return -(z.softmax(-1) * right).sum(-1).clamp_min(1e-9).log()


@wrong("loss_of_any", "a lower bound of the probability (clamp, + 1e-9) hides how small it was")
def adds_a_small_number(z, right):
    return -((z.softmax(-1) * right).sum(-1) + 1e-30).log()


@wrong("loss_of_any")
def puts_no_maximum_back(z, right):
    good = z.masked_fill(~right, -math.inf)
    total = (z - z.amax(-1, keepdim=True)).exp().sum(-1).log()
    return total - (good - good.amax(-1, keepdim=True)).exp().sum(-1).log()


@wrong("loss_of_any")
def puts_the_second_maximum_back_only(z, right):
    total = (z - z.amax(-1, keepdim=True)).exp().sum(-1).log()
    return total - z.masked_fill(~right, -math.inf).logsumexp(-1)


@wrong("loss_of_any")
def puts_the_first_maximum_back_only(z, right):
    good = z.masked_fill(~right, -math.inf)
    return z.logsumexp(-1) - (good - good.amax(-1, keepdim=True)).exp().sum(-1).log()


@right("smoothed_gradient")
def by_autograd(z, y, epsilon):
    z = z.clone().requires_grad_()
    loss = F.cross_entropy(z.flatten(0, 1), y.flatten(), label_smoothing=epsilon)
    return torch.autograd.grad(loss, z)[0]


@right("smoothed_gradient")
def position_by_position(z, y, epsilon):
    B, T, V = z.shape
    gradient = torch.zeros_like(z)
    for b in range(B):
        for t in range(T):
            wanted = torch.full((V,), epsilon / V, dtype=z.dtype)
            wanted[y[b, t]] += 1 - epsilon
            e = (z[b, t] - z[b, t].max()).exp()
            gradient[b, t] = (e / e.sum() - wanted) / (B * T)
    return gradient


@right("smoothed_gradient")
def mixture_of_two_gradients(z, y, epsilon):
    plain = z.softmax(2) - torch.eye(z.shape[2])[y]
    uniform = z.softmax(2) - 1 / z.shape[2]
    return ((1 - epsilon) * plain + epsilon * uniform) / (y.shape[0] * y.shape[1])


@wrong("smoothed_gradient", "the loss is the mean over B · T positions")
def gradient_of_the_sum(z, y, epsilon):
    return z.softmax(-1) - (1 - epsilon) * F.one_hot(y, z.shape[-1]) - epsilon / z.shape[-1]


@wrong("smoothed_gradient", "the loss is the mean over all B · T positions")
def mean_over_the_batch_only(z, y, epsilon):
    return (
        z.softmax(-1) - (1 - epsilon) * F.one_hot(y, z.shape[-1]) - epsilon / z.shape[-1]
    ) / len(y)


@wrong("smoothed_gradient")
def mean_over_everything(z, y, epsilon):
    t = (1 - epsilon) * F.one_hot(y, z.shape[-1]) + epsilon / z.shape[-1]
    return (z.softmax(-1) - t) / z.numel()


@wrong("smoothed_gradient", "sign is reversed")
def what_came_minus_what_was_believed(z, y, epsilon):
    t = (1 - epsilon) * F.one_hot(y, z.shape[-1]) + epsilon / z.shape[-1]
    return (t - z.softmax(-1)) / y.numel()


@wrong("smoothed_gradient", "without smoothing")
def plain_cross_entropy(z, y, epsilon):
    return (z.softmax(-1) - F.one_hot(y, z.shape[-1])) / y.numel()


@wrong("smoothed_gradient", "wrong characters only")
def shared_among_the_others(z, y, epsilon):
    V = z.shape[-1]
    t = torch.full_like(z, epsilon / (V - 1)).scatter(-1, y[..., None], 1 - epsilon)
    return (z.softmax(-1) - t) / y.numel()


@wrong("smoothed_gradient", "sums to more than 1")
def adds_without_taking(z, y, epsilon):
    t = F.one_hot(y, z.shape[-1]) + epsilon / z.shape[-1]
    return (z.softmax(-1) - t) / y.numel()


@wrong("smoothed_gradient")
def softmax_over_time(z, y, epsilon):
    t = (1 - epsilon) * F.one_hot(y, z.shape[-1]) + epsilon / z.shape[-1]
    return (z.softmax(1) - t) / y.numel()


@wrong("smoothed_gradient")
def returns_the_loss(z, y, epsilon):
    return F.cross_entropy(z.flatten(0, 1), y.flatten(), label_smoothing=epsilon)


@wrong("smoothed_gradient", "(1, 1, ")
def squeezes_the_batch_away(z, y, epsilon):
    z, y = z.squeeze(0), y.squeeze(0)  # fails at B = 1
    t = (1 - epsilon) * F.one_hot(y, z.shape[-1]) + epsilon / z.shape[-1]
    return (z.softmax(-1) - t) / y.numel()


@wrong("smoothed_gradient")
def right_one_excluded(z, y, epsilon):
    t = torch.full_like(z, epsilon / z.shape[-1]).scatter(-1, y[..., None], 1 - epsilon)
    return (z.softmax(-1) - t) / y.numel()


@wrong("smoothed_gradient")
def first_gradient_scaled(z, y, epsilon):
    return (1 - epsilon) * (z.softmax(-1) - F.one_hot(y, z.shape[-1])) / y.numel()


@wrong("smoothed_gradient")
def small_parts_forgotten(z, y, epsilon):
    return (z.softmax(-1) - (1 - epsilon) * F.one_hot(y, z.shape[-1])) / y.numel()


@wrong("smoothed_gradient")
def each_term_by_its_own_logit(z, y, epsilon):
    t = (1 - epsilon) * F.one_hot(y, z.shape[-1]) + epsilon / z.shape[-1]
    return t * (z.softmax(-1) - 1) / y.numel()


@right("descend_on_table")
def by_hand(table, x, y, steps, lr):
    table = table.clone()
    for _ in range(steps):
        gradient = torch.zeros_like(table)
        for a, b in zip(x.tolist(), y.tolist()):
            gradient[a] += table[a].softmax(0) / len(x)
            gradient[a, b] -= 1 / len(x)
        table -= lr * gradient
    return table


@right("descend_on_table")
def with_an_optimizer(table, x, y, steps, lr):
    table = torch.nn.Parameter(table.clone())
    optimizer = torch.optim.SGD([table], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(table[x], y).backward()
        optimizer.step()
    return table.data


@right("descend_on_table")
def by_counts(table, x, y, steps, lr):
    counts = torch.zeros_like(table).index_put(
        (x, y), torch.ones(len(x), dtype=table.dtype), accumulate=True
    )
    for _ in range(steps):
        table = table - lr * (counts.sum(1, keepdim=True) * table.softmax(1) - counts) / len(x)
    return table


@wrong("descend_on_table", "gradients add up")
def mends_only_the_softmax(table, x, y, steps, lr):
    table = table.clone().requires_grad_()
    for _ in range(steps):
        F.cross_entropy(table[x], y).backward()
        with torch.no_grad():
            table -= lr * table.grad
    return table.detach()


@wrong("descend_on_table", "softmax twice")
def mends_only_the_gradients(table, x, y, steps, lr):
    table = table.clone().requires_grad_()
    for _ in range(steps):
        table.grad = None
        F.cross_entropy(table[x].softmax(-1), y).backward()
        with torch.no_grad():
            table -= lr * table.grad
    return table.detach()


@wrong("descend_on_table", "both bugs")
def renames_it(table, x, y, steps, lr):
    table = table.clone().requires_grad_()
    for step in range(steps):
        p = table[x].softmax(-1)
        loss = F.cross_entropy(p, y)
        loss.backward()
        with torch.no_grad():
            table -= lr * table.grad
    return table.detach()


@wrong("descend_on_table", "the losses of the pairs are summed")
def sum_of_the_losses(table, x, y, steps, lr):
    for _ in range(steps):
        leaf = table.clone().requires_grad_()
        F.cross_entropy(leaf[x], y, reduction="sum").backward()
        table = table - lr * leaf.grad
    return table


@wrong("descend_on_table", "goes up")
def ascends(table, x, y, steps, lr):
    for _ in range(steps):
        leaf = table.clone().requires_grad_()
        F.cross_entropy(leaf[x], y).backward()
        table = table + lr * leaf.grad
    return table


@wrong("descend_on_table")
def counts_both_ends(table, x, y, steps, lr):
    for _ in range(steps + 1):
        leaf = table.clone().requires_grad_()
        F.cross_entropy(leaf[x], y).backward()
        table = table - lr * leaf.grad
    return table


@wrong("descend_on_table")
def steps_on_a_copy(table, x, y, steps, lr):
    for _ in range(steps):
        leaf = table.clone().requires_grad_()
        F.cross_entropy(leaf[x], y).backward()
        with torch.no_grad():
            leaf -= lr * leaf.grad
    return table


@wrong("descend_on_table")
def gradient_before_the_loop(table, x, y, steps, lr):
    leaf = table.clone().requires_grad_()
    F.cross_entropy(leaf[x], y).backward()
    for _ in range(steps):
        table = table - lr * leaf.grad
    return table


@wrong("descend_on_table", "in place")
def works_on_the_input(table, x, y, steps, lr):
    for _ in range(steps):
        leaf = table.clone().requires_grad_()
        F.cross_entropy(leaf[x], y).backward()
        table -= lr * leaf.grad
    return table


@wrong("descend_on_table")
def mean_of_each_row(table, x, y, steps, lr):
    counts = torch.zeros_like(table).index_put(
        (x, y), torch.ones(len(x), dtype=table.dtype), accumulate=True
    )
    seen = counts.sum(1, keepdim=True)
    for _ in range(steps):
        table = torch.where(seen > 0, table - lr * (table.softmax(1) - counts / seen), table)
    return table


@wrong("descend_on_table", "is there a `return`?")
def returns_nothing(table, x, y, steps, lr):
    table = table.clone().requires_grad_()
    for _ in range(steps):
        table.grad = None
        F.cross_entropy(table[x], y).backward()
        with torch.no_grad():
            table -= lr * table.grad


@wrong("descend_on_table")
def returns_probabilities(table, x, y, steps, lr):
    table = table.clone().requires_grad_()
    for _ in range(steps):
        table.grad = None
        F.cross_entropy(table[x], y).backward()
        with torch.no_grad():
            table -= lr * table.grad
    return table.detach().softmax(-1)


@wrong("descend_on_table")
def starts_counting_at_1(table, x, y, steps, lr):
    for _ in range(1, steps):
        leaf = table.clone().requires_grad_()
        F.cross_entropy(leaf[x], y).backward()
        table = table - lr * leaf.grad
    return table


@wrong("descend_on_table", "`table[x] -= ...` changes a row once, however often x repeats it")
def repeated_rows_overwrite(table, x, y, steps, lr):
    table = table.clone()
    for _ in range(steps):
        table[x] -= lr * (table[x].softmax(-1) - F.one_hot(y, len(table))) / len(x)
    return table


@wrong("descend_on_table", "AttributeError")
def zero_grad_of_a_tensor(table, x, y, steps, lr):
    table = table.clone().requires_grad_()
    for _ in range(steps):
        table.zero_grad()
        F.cross_entropy(table[x], y).backward()
        with torch.no_grad():
            table -= lr * table.grad
    return table.detach()


@wrong("descend_on_table", "'NoneType'")
def zeroes_a_gradient_that_is_not_there(table, x, y, steps, lr):
    table = table.clone().requires_grad_()
    for _ in range(steps):
        table.grad.zero_()
        F.cross_entropy(table[x], y).backward()
        with torch.no_grad():
            table -= lr * table.grad
    return table.detach()


@right("adamw_steps")
def pytorchs(w, gradients, rates, beta1, beta2, eps, decay):
    w = torch.nn.Parameter(w.clone())
    optimizer = torch.optim.AdamW([w], betas=(beta1, beta2), eps=eps, weight_decay=decay)
    for g, rate in zip(gradients, rates):
        optimizer.param_groups[0]["lr"], w.grad = rate, g.clone()
        optimizer.step()
    return w.data


@right("adamw_steps")
def means_with_weights(w, gradients, rates, beta1, beta2, eps, decay):
    for t in range(1, len(rates) + 1):
        age = torch.arange(t - 1, -1, -1, dtype=w.dtype)
        first, second = beta1**age, beta2**age
        m = (first / first.sum()) @ gradients[:t]
        v = (second / second.sum()) @ gradients[:t] ** 2
        w = w * (1 - rates[t - 1] * decay) - rates[t - 1] * m / (v**0.5 + eps)
    return w


@right("adamw_steps")
def number_by_number(w, gradients, rates, beta1, beta2, eps, decay):
    result = []
    for i in range(len(w)):
        x, m, v, one, two = w[i].item(), 0.0, 0.0, 0.0, 0.0
        for g, rate in zip(gradients[:, i].tolist(), rates):
            m, one = beta1 * m + (1 - beta1) * g, beta1 * one + (1 - beta1)
            v, two = beta2 * v + (1 - beta2) * g * g, beta2 * two + (1 - beta2)
            x -= rate * (m / one / (math.sqrt(v / two) + eps) + decay * x)
        result.append(x)
    return torch.tensor(result, dtype=w.dtype)


@wrong("adamw_steps", "the bias correction is missing")
def uncorrected(w, gradients, rates, beta1, beta2, eps, decay):
    m, v = 0, 0
    for g, rate in zip(gradients, rates):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        w = w - rate * (m / (v.sqrt() + eps) + decay * w)
    return w


@wrong("adamw_steps", "counts from 0")
def enumerates_from_0(w, gradients, rates, beta1, beta2, eps, decay):
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, g in enumerate(gradients):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        w = w - rates[t] * (m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps) + decay * w)
    return w


@wrong("adamw_steps")
def correction_without_the_power(w, gradients, rates, beta1, beta2, eps, decay):
    m, v = 0, 0
    for g, rate in zip(gradients, rates):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        w = w - rate * (m / (1 - beta1) / ((v / (1 - beta2)).sqrt() + eps) + decay * w)
    return w


@wrong("adamw_steps", "written back into m and v")
def overwrites_the_means(w, gradients, rates, beta1, beta2, eps, decay):
    m, v = 0, 0
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m = (beta1 * m + (1 - beta1) * g) / (1 - beta1**t)
        v = (beta2 * v + (1 - beta2) * g**2) / (1 - beta2**t)
        w = w - rate * (m / (v.sqrt() + eps) + decay * w)
    return w


@wrong("adamw_steps", "inside the root")
def epsilon_inside(w, gradients, rates, beta1, beta2, eps, decay):
    m, v = 0, 0
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        w = w - rate * (m / (1 - beta1**t) / (v / (1 - beta2**t) + eps).sqrt() + decay * w)
    return w


@wrong("adamw_steps", "Adam with L2")
def adam_with_l2(w, gradients, rates, beta1, beta2, eps, decay):
    w = torch.nn.Parameter(w.clone())
    optimizer = torch.optim.Adam([w], betas=(beta1, beta2), eps=eps, weight_decay=decay)
    for g, rate in zip(gradients, rates):
        optimizer.param_groups[0]["lr"], w.grad = rate, g.clone()
        optimizer.step()
    return w.data


@wrong("adamw_steps", "not multiplied by the learning rate")
def decay_at_full_pace(w, gradients, rates, beta1, beta2, eps, decay):
    m, v = 0, 0
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        w = w - rate * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps) - decay * w
    return w


@wrong("adamw_steps")
def decays_afterwards(w, gradients, rates, beta1, beta2, eps, decay):
    m, v = 0, 0
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        w = w - rate * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps)
        w = w - rate * decay * w
    return w


@wrong("adamw_steps")
def divides_by_v(w, gradients, rates, beta1, beta2, eps, decay):
    m, v = 0, 0
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        w = w - rate * (m / (1 - beta1**t) / (v / (1 - beta2**t) + eps) + decay * w)
    return w


@wrong("adamw_steps", "in place")
def in_place(w, gradients, rates, beta1, beta2, eps, decay):
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        w -= rate * (m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps) + decay * w)
    return w


@wrong("adamw_steps")
def epsilon_before_the_correction(w, gradients, rates, beta1, beta2, eps, decay):
    m, v = 0, 0
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        w = w - rate * (math.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (v.sqrt() + eps) + decay * w)
    return w


@wrong("adamw_steps")
def divides_by_the_power(w, gradients, rates, beta1, beta2, eps, decay):
    m, v = 0, 0
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        w = w - rate * (m / beta1**t / ((v / beta2**t).sqrt() + eps) + decay * w)
    return w


@wrong("adamw_steps")
def corrects_for_all_steps(w, gradients, rates, beta1, beta2, eps, decay):
    m, v, n = 0, 0, len(gradients)
    for g, rate in zip(gradients, rates):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        w = w - rate * (m / (1 - beta1**n) / ((v / (1 - beta2**n)).sqrt() + eps) + decay * w)
    return w


@wrong("adamw_steps")
def decay_in_the_fraction(w, gradients, rates, beta1, beta2, eps, decay):
    m, v = 0, 0
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        w = w - rate * (m / (1 - beta1**t) + decay * w) / ((v / (1 - beta2**t)).sqrt() + eps)
    return w


@wrong("adamw_steps")
def squared_length(w, gradients, rates, beta1, beta2, eps, decay):
    m, v = 0, 0
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g.norm() ** 2
        w = w - rate * (m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps) + decay * w)
    return w
