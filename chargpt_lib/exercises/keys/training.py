"""How the exercises of lesson 02 are judged: cases, symptoms, mistakes."""

import math

import torch
from torch.nn import functional as F

from chargpt_lib.exercises.answers.training import (
    adamw_steps,
    descend_on_table,
    loss_of_any,
    sharpened_probabilities,
    smoothed_gradient,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- sharpened_probabilities


def sharpened_probabilities_cases(draw):
    row = draw.normal(draw.integer(3, 7))
    table = draw.normal(draw.integer(2, 4), draw.integer(5, 7), dtype=torch.float64)
    batch = 2 * draw.normal(2, 3, 4)
    return [
        [torch.tensor([1.0]), 2.0],
        [row.softmax(-1), draw.number(1.5, 3)],
        [table.softmax(-1), draw.number(0.2, 0.7)],
        [batch.softmax(-1), draw.number(1.5, 3)],
        [torch.tensor([0.0, 0.25, 0.75]), draw.number(1.5, 3)],
    ]


SHARPENED_PROBABILITIES = exercise(
    sharpened_probabilities, stars=1, minutes=5, cases=sharpened_probabilities_cases
)


@SHARPENED_PROBABILITIES.symptom(
    "nan where p is 0 or 1: a p of 0 has the logit -∞, and keeps the probability 0"
)
def sharpened_probabilities_nan(got, want, p, a):
    return got.isnan().any()


@SHARPENED_PROBABILITIES.symptom("the probabilities do not sum to 1")
def sharpened_probabilities_sum(got, want, p, a):
    return not torch.allclose(got.sum(-1), want.sum(-1), atol=1e-3)


### BEGIN SOLUTION
@SHARPENED_PROBABILITIES.mistake(
    "probabilities are taken for logits, softmax(a p): which logits give p?"
)
def sharpened_probabilities_as_logits(p, a):
    return (a * p).softmax(-1)


@SHARPENED_PROBABILITIES.mistake(
    "the logits are divided by a, and should be multiplied: it flattens where it should sharpen"
)
def sharpened_probabilities_divided(p, a):
    return (p.log() / a).softmax(-1)


@SHARPENED_PROBABILITIES.mistake(
    "p comes back unchanged: adding to all logits, or scaling all p, does nothing; "
    "multiply the logits by a"
)
def sharpened_probabilities_unchanged(p, a):
    scaled = a * p
    return scaled / scaled.sum(-1, keepdim=True)


@SHARPENED_PROBABILITIES.mistake(
    "the softmax runs over the first axis: it belongs on the last, where p sums to 1"
)
def sharpened_probabilities_first_axis(p, a):
    return (a * p.log()).softmax(0)


### END SOLUTION


# ---------------------------------------------------------------- loss_of_any


def loss_of_any_right(draw, N, V):
    """(N, V) bool: two or more of V in each row, and not all."""
    order = draw.uniform(N, V).argsort(-1)
    how_many = [[draw.integer(2, V - 1)] for _ in range(N)]
    return order < torch.tensor(how_many)


def loss_of_any_case(draw, N, scale=1.0, offset=0.0, dtype=torch.float32):
    V = draw.integer(4, 8)
    z = scale * draw.normal(N, V, dtype=dtype) + offset
    return [z, loss_of_any_right(draw, N, V)]


def loss_of_any_far(draw, N, V=5):
    """The right logits are so far below the others that their probabilities are 0 as floats."""
    right = loss_of_any_right(draw, N, V)
    z = draw.normal(N, V, dtype=torch.float64)
    return [z - draw.number(1200, 2000) * right, right]


def loss_of_any_cases(draw):
    return [
        loss_of_any_case(draw, 1),
        loss_of_any_case(draw, draw.integer(2, 5), 2.0, dtype=torch.float64),
        loss_of_any_case(draw, 3, offset=1000.0),
        loss_of_any_far(draw, draw.integer(2, 5)),
        [draw.normal(2, 3), torch.ones(2, 3).bool()],
        [draw.normal(3, 6), F.one_hot(draw.ids(6, 3), 6).bool()],
    ]


# logits near 1000 have few digits left as float32
LOSS_OF_ANY = exercise(loss_of_any, stars=3, minutes=15, atol=2e-3, cases=loss_of_any_cases)


@LOSS_OF_ANY.symptom(
    "row {0} is nan: the exponentials overflow; subtract the row's largest logit before exp"
)
def loss_of_any_nan(got, want, z, right):
    return got.isnan()


@LOSS_OF_ANY.symptom(
    "row {0} is infinite: exp makes the right ones 0; subtract the largest right logit before exp"
)
def loss_of_any_infinite(got, want, z, right):
    return got.isinf()


@LOSS_OF_ANY.symptom(
    "row {0} is too small: a lower bound of the probability (clamp, + 1e-9) hides how small it was"
)
def loss_of_any_bounded(got, want, z, right):
    return (want > 1000) & (got > 5) & (got < 120)


### BEGIN SOLUTION
@LOSS_OF_ANY.mistake(
    "the logarithms are summed, which asks for all the right ones at once: any one is enough"
)
def loss_of_any_all_at_once(z, right):
    log_p = z.log_softmax(-1)
    return -log_p.masked_fill(~right, 0.0).sum(-1)


@LOSS_OF_ANY.mistake("only the likeliest of the right characters counts: sum over all of them")
def loss_of_any_likeliest(z, right):
    log_p = z.log_softmax(-1)
    return -log_p.masked_fill(~right, -math.inf).amax(-1)


@LOSS_OF_ANY.mistake("wrong characters have the logit 0 and count as e^0 = 1: they need -∞")
def loss_of_any_zero_logits(z, right):
    return z.logsumexp(-1) - (z * right).logsumexp(-1)


### END SOLUTION


# ---------------------------------------------------------------- smoothed_gradient


def smoothed_gradient_case(draw, B, T, dtype=torch.float32):
    V = draw.integer(3, 7)
    return [2 * draw.normal(B, T, V, dtype=dtype), draw.ids(V, B, T), draw.number(0.1, 0.5)]


def smoothed_gradient_cases(draw):
    return [
        smoothed_gradient_case(draw, 1, 1),
        smoothed_gradient_case(draw, 1, draw.integer(2, 5)),
        smoothed_gradient_case(draw, 2, 3),
        smoothed_gradient_case(draw, 4, 2, torch.float64),
    ]


SMOOTHED_GRADIENT = exercise(
    smoothed_gradient, stars=2, minutes=10, atol=1e-6, cases=smoothed_gradient_cases
)


@SMOOTHED_GRADIENT.symptom("the sign is reversed: the gradient is p minus the target")
def smoothed_gradient_sign(got, want, z, y, epsilon):
    return torch.allclose(got, -want, atol=1e-6)


### BEGIN SOLUTION
@SMOOTHED_GRADIENT.mistake(
    "that is the gradient of the sum: the loss is the mean over B · T positions"
)
def smoothed_gradient_of_the_sum(z, y, epsilon):
    V = z.shape[-1]
    target = (1 - epsilon) * F.one_hot(y, V) + epsilon / V
    return z.softmax(-1) - target


@SMOOTHED_GRADIENT.mistake("it is divided by B: the loss is the mean over all B · T positions")
def smoothed_gradient_over_the_batch(z, y, epsilon):
    V = z.shape[-1]
    target = (1 - epsilon) * F.one_hot(y, V) + epsilon / V
    return (z.softmax(-1) - target) / len(y)


@SMOOTHED_GRADIENT.mistake("that is the gradient without smoothing: ε is not used")
def smoothed_gradient_without_smoothing(z, y, epsilon):
    target = F.one_hot(y, z.shape[-1])
    return (z.softmax(-1) - target) / y.numel()


@SMOOTHED_GRADIENT.mistake("ε goes to the wrong characters only: the right one gets ε / V too")
def smoothed_gradient_to_the_others(z, y, epsilon):
    V = z.shape[-1]
    right = F.one_hot(y, V)
    target = (1 - epsilon) * right + epsilon / (V - 1) * (1 - right)
    return (z.softmax(-1) - target) / y.numel()


@SMOOTHED_GRADIENT.mistake(
    "the target sums to more than 1: the right character gives up ε, (1 - ε) y"
)
def smoothed_gradient_target_too_large(z, y, epsilon):
    V = z.shape[-1]
    target = F.one_hot(y, V) + epsilon / V
    return (z.softmax(-1) - target) / y.numel()


### END SOLUTION


# ---------------------------------------------------------------- descend_on_table


def descend_on_table_case(draw, V, N, steps, dtype=torch.float32):
    table = draw.normal(V, V, dtype=dtype)
    return [table, draw.ids(V, N), draw.ids(V, N), steps, draw.number(0.5, 2)]


def descend_on_table_cases(draw):
    V = draw.integer(2, 5)
    N = draw.integer(5, 9)
    return [
        descend_on_table_case(draw, 3, 1, 3),
        descend_on_table_case(draw, 4, 6, 1),
        descend_on_table_case(draw, 4, 6, 0),
        descend_on_table_case(draw, V, N, draw.integer(3, 6), torch.float64),
        descend_on_table_case(draw, 3, 8, 5),
    ]


DESCEND_ON_TABLE = exercise(descend_on_table, stars=2, minutes=10, cases=descend_on_table_cases)


### BEGIN SOLUTION
@DESCEND_ON_TABLE.mistake("one bug is left: gradients add up from step to step")
def descend_on_table_gradients_add_up(table, x, y, steps, lr):
    table = table.clone().requires_grad_()
    for step in range(steps):
        F.cross_entropy(table[x], y).backward()
        with torch.no_grad():
            table -= lr * table.grad
    return table.detach()


@DESCEND_ON_TABLE.mistake(
    "one bug is left: softmax twice; F.cross_entropy takes logits, and gets probabilities"
)
def descend_on_table_softmax_twice(table, x, y, steps, lr):
    for step in range(steps):
        table = table.detach().requires_grad_()
        F.cross_entropy(table[x].softmax(-1), y).backward()
        table = table - lr * table.grad
    return table.detach()


@DESCEND_ON_TABLE.mistake("both bugs are still there: in what the loss gets, and in the gradients")
def descend_on_table_both_bugs(table, x, y, steps, lr):
    table = table.clone().requires_grad_()
    for step in range(steps):
        F.cross_entropy(table[x].softmax(-1), y).backward()
        with torch.no_grad():
            table -= lr * table.grad
    return table.detach()


@DESCEND_ON_TABLE.mistake("the loss goes up: step against the gradient")
def descend_on_table_ascends(table, x, y, steps, lr):
    for step in range(steps):
        table = table.detach().requires_grad_()
        F.cross_entropy(table[x], y).backward()
        table = table + lr * table.grad
    return table.detach()


@DESCEND_ON_TABLE.mistake("the losses of the pairs are summed: take their mean")
def descend_on_table_sum_of_losses(table, x, y, steps, lr):
    for step in range(steps):
        table = table.detach().requires_grad_()
        F.cross_entropy(table[x], y, reduction="sum").backward()
        table = table - lr * table.grad
    return table.detach()


@DESCEND_ON_TABLE.mistake(
    "`table[x] -= ...` changes a row once, however often x repeats it: add its gradients up"
)
def descend_on_table_repeated_rows(table, x, y, steps, lr):
    table = table.clone()
    for step in range(steps):
        gradients = (table[x].softmax(-1) - F.one_hot(y, len(table))) / len(x)
        table[x] -= lr * gradients
    return table


### END SOLUTION


# ---------------------------------------------------------------- adamw_steps


def adamw_steps_case(draw, n, C, dtype=torch.float32):
    rates = [draw.number(0.1, 0.5) for _ in range(n)]
    w = 1 + draw.uniform(C, dtype=dtype)
    gradients = draw.normal(n, C, dtype=dtype) + 0.5
    beta1 = draw.number(0.6, 0.8)
    beta2 = draw.number(0.85, 0.95)
    eps = draw.number(0.05, 0.2)  # so large that its place shows
    decay = draw.number(0.2, 0.5)
    return [w, gradients, rates, beta1, beta2, eps, decay]


def adamw_steps_cases(draw):
    return [
        adamw_steps_case(draw, 1, 1),
        adamw_steps_case(draw, 2, draw.integer(2, 5)),
        adamw_steps_case(draw, draw.integer(3, 6), 4, torch.float64),
        adamw_steps_case(draw, draw.integer(3, 6), 3),
    ]


ADAMW_STEPS = exercise(adamw_steps, stars=3, minutes=18, cases=adamw_steps_cases)


### BEGIN SOLUTION
@ADAMW_STEPS.mistake("the bias correction is missing: m and v are too small at first")
def adamw_steps_uncorrected(w, gradients, rates, beta1, beta2, eps, decay):
    m = torch.zeros_like(w)
    v = torch.zeros_like(w)
    for g, rate in zip(gradients, rates):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        w = w - rate * (m / (v.sqrt() + eps) + decay * w)
    return w


@ADAMW_STEPS.mistake("the bias correction counts from 0: the first step is t = 1")
def adamw_steps_from_zero(w, gradients, rates, beta1, beta2, eps, decay):
    m = torch.zeros_like(w)
    v = torch.zeros_like(w)
    for t, (g, rate) in enumerate(zip(gradients, rates)):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        w = w - rate * (m_hat / (v_hat.sqrt() + eps) + decay * w)
    return w


@ADAMW_STEPS.mistake("the bias correction is written back into m and v: keep m and m̂ apart")
def adamw_steps_written_back(w, gradients, rates, beta1, beta2, eps, decay):
    m = torch.zeros_like(w)
    v = torch.zeros_like(w)
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m = m / (1 - beta1**t)
        v = v / (1 - beta2**t)
        w = w - rate * (m / (v.sqrt() + eps) + decay * w)
    return w


@ADAMW_STEPS.mistake("ε is added inside the root: add it to the root")
def adamw_steps_eps_inside(w, gradients, rates, beta1, beta2, eps, decay):
    m = torch.zeros_like(w)
    v = torch.zeros_like(w)
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        w = w - rate * (m_hat / (v_hat + eps).sqrt() + decay * w)
    return w


@ADAMW_STEPS.mistake(
    "the decay is added to the gradient (Adam with L2): AdamW keeps it out of m and v"
)
def adamw_steps_l2(w, gradients, rates, beta1, beta2, eps, decay):
    m = torch.zeros_like(w)
    v = torch.zeros_like(w)
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        g = g + decay * w
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        w = w - rate * m_hat / (v_hat.sqrt() + eps)
    return w


@ADAMW_STEPS.mistake("the decay is not multiplied by the learning rate")
def adamw_steps_decay_without_rate(w, gradients, rates, beta1, beta2, eps, decay):
    m = torch.zeros_like(w)
    v = torch.zeros_like(w)
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        w = w - rate * m_hat / (v_hat.sqrt() + eps) - decay * w
    return w


### END SOLUTION
