"""How the exercises of lesson 02 are judged: cases, mistakes, symptoms."""

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

exercise(
    sharpened_probabilities,
    stars=1,
    minutes=5,
    cases=lambda draw: [
        [torch.tensor([1.0]), 2.0],
        [draw.normal(draw.integer(3, 7)).softmax(-1), draw.number(1.5, 3)],
        [
            draw.normal(draw.integer(2, 4), draw.integer(5, 7), dtype=torch.float64).softmax(-1),
            draw.number(0.2, 0.7),
        ],
        [(2 * draw.normal(2, 3, 4)).softmax(-1), draw.number(1.5, 3)],
        [torch.tensor([0.0, 0.25, 0.75]), draw.number(1.5, 3)],
    ],
    wrong={
        ### BEGIN SOLUTION
        "probabilities were taken for logits: softmax of a p. Which logits give p?": lambda p, a: (
            a * p
        ).softmax(-1),
        "the powers of p do not sum to 1 yet": lambda p, a: p**a,
        "1 / a in the place of a: it flattens where it should sharpen": lambda p, a: (
            p.log() / a
        ).softmax(-1),
        "p comes out as it went in: adding to all logits, or scaling all p, changes nothing. a multiplies the logits": lambda p, a: (
            p * 1.0
        ),
        "ln(p / (1 - p)) is the logit of one against the rest, where V = 2; for any V, ln p will do": lambda p, a: (
            (a * (p / (1 - p)).log()).softmax(-1)
        ),
        "each logit is multiplied by its own p: a ln p is enough": lambda p, a: (
            a * p.log() * p
        ).softmax(-1),
        "the softmax runs over the first axis; each row of the last one has to sum to 1": lambda p, a: (
            (a * p.log()).softmax(0)
        ),
        "these are the new logits: they are no probabilities yet": lambda p, a: a * p.log(),
        ### END SOLUTION
    },
    signs={
        "nan, for a p of 0 or 1: a p of 0 has the logit -∞, and keeps the probability 0": lambda got, want, p, a: (
            bool(got.isnan().any())
        ),
        "they do not sum to 1": lambda got, want, p, a: (
            not torch.allclose(got.sum(-1), want.sum(-1), atol=1e-3)
        ),
    },
)


def loss_of_any_right(draw, N, V):
    """Two or more of V in each row, and not all."""
    order = draw.uniform(N, V).argsort(-1)
    return order < torch.tensor([[draw.integer(2, V - 1)] for _ in range(N)])


def loss_of_any_case(draw, N, scale=1.0, offset=0.0, dtype=torch.float32):
    V = draw.integer(4, 8)
    return [scale * draw.normal(N, V, dtype=dtype) + offset, loss_of_any_right(draw, N, V)]


def loss_of_any_far(draw, N, V=5):
    right = loss_of_any_right(draw, N, V)
    return [
        draw.normal(N, V, dtype=torch.float64) + torch.where(right, -draw.number(1200, 2000), 0.0),
        right,
    ]


def loss_of_any_tops(z, right):
    """The largest logit of all, and of the right ones, in each row."""
    return z.amax(-1), torch.where(right, z, -math.inf).amax(-1)


def loss_of_any_lacks(got, want, added, taken):
    """Is it wrong by just these numbers? (Of one row alone that may be chance.)"""
    return len(got) > 1 and torch.allclose(got, want - added + taken, atol=2e-3)


exercise(
    loss_of_any,
    stars=3,
    minutes=15,
    atol=2e-3,
    cases=lambda draw: [
        loss_of_any_case(draw, 1),
        loss_of_any_case(draw, draw.integer(2, 5), 2.0, dtype=torch.float64),
        loss_of_any_case(draw, 3, offset=1000.0),
        loss_of_any_far(draw, draw.integer(2, 5)),
        [draw.normal(2, 3), torch.ones(2, 3).bool()],
        [draw.normal(3, 6), F.one_hot(draw.ids(6, 3), 6).bool()],
    ],
    wrong={
        ### BEGIN SOLUTION
        "it takes the mean of the right probabilities; any of them will do, so sum them": lambda z, right: (
            -(z.log_softmax(-1).masked_fill(~right, -math.inf).logsumexp(-1) - right.sum(-1).log())
        ),
        "it sums the logarithms: that asks for all of them at once, and any one is enough": lambda z, right: (
            -z.log_softmax(-1).masked_fill(~right, 0.0).sum(-1)
        ),
        "it takes the mean of the logarithms; the sum stands inside the logarithm": lambda z, right: (
            -z.log_softmax(-1).masked_fill(~right, 0.0).sum(-1) / right.sum(-1)
        ),
        "only the likeliest of the right characters counts; the others count too": lambda z, right: (
            -z.log_softmax(-1).masked_fill(~right, -math.inf).max(-1).values
        ),
        "it is the mean of the rows; each row's own loss is wanted": lambda z, right: (
            z.logsumexp(-1) - z.masked_fill(~right, -math.inf).logsumexp(-1)
        ).mean(),
        "the softmax runs over the rows (axis 0); a row's probabilities sum to 1 over the characters": lambda z, right: (
            -z.log_softmax(0).masked_fill(~right, -math.inf).logsumexp(-1)
        ),
        "wrong characters were given the logit 0, and e^0 = 1 still counts; e^-∞ does not": lambda z, right: (
            z.logsumexp(-1) - (z * right).logsumexp(-1)
        ),
        "the right logits themselves are summed; sum their exponentials, then take the logarithm": lambda z, right: (
            z.logsumexp(-1) - (z * right).sum(-1)
        ),
        ### END SOLUTION
    },
    signs={
        "row {0} is nan: a wrong character's exponential is infinite, and ∞ · 0 is nan. Leave it out before exp": lambda got, want, z, right: (
            got.isnan() & (z.amax(-1) < 500)
        ),
        "row {0} is nan: the exponentials overflow. Only differences of logits count: subtract the largest": lambda got, want, z, right: (
            got.isnan()
        ),
        "row {0} pays infinitely: the right e^z became 0 before the logarithm. Take the largest right logit out": lambda got, want, z, right: (
            got.isinf()
        ),
        "row {0} pays too little: a floor under the probability (clamp, + 1e-9) hides how small it was": lambda got, want, z, right: (
            (want > 1000) & (got > 5) & (got < 120)
        ),
        "the sign is wrong: a loss is never negative": lambda got, want, z, right: torch.allclose(
            -got, want, atol=1e-3
        ),
        "it is in bits, and nats are wanted: the natural logarithm": lambda got, want, z, right: (
            torch.allclose(got * math.log(2), want, atol=1e-3)
        ),
        "the logarithm to base 10 was taken, and nats are wanted": lambda got, want, z, right: (
            torch.allclose(got * math.log(10), want, atol=1e-3)
        ),
        "the two largest logits were taken out, and are not put back after the logarithms": lambda got, want, z, right: (
            loss_of_any_lacks(got, want, *loss_of_any_tops(z, right))
        ),
        "the largest of all logits was taken out, and is not put back after the logarithm": lambda got, want, z, right: (
            loss_of_any_lacks(got, want, loss_of_any_tops(z, right)[0], 0.0)
        ),
        "the largest of the right logits was taken out, and is not put back after the logarithm": lambda got, want, z, right: (
            loss_of_any_lacks(got, want, 0.0, loss_of_any_tops(z, right)[1])
        ),
    },
)


def smoothed_gradient_case(draw, B, T, dtype=torch.float32):
    V = draw.integer(3, 7)
    return [2 * draw.normal(B, T, V, dtype=dtype), draw.ids(V, B, T), draw.number(0.1, 0.5)]


### BEGIN SOLUTION
def smoothed_gradient_by(z, y, p=None, t=None, e=0.0):
    one_hot = F.one_hot(y, z.shape[-1])
    return (
        (z.softmax(-1) if p is None else p)
        - ((1 - e) * one_hot + e / z.shape[-1] if t is None else t)
    ) / y.numel()


### END SOLUTION


exercise(
    smoothed_gradient,
    stars=2,
    minutes=10,
    atol=1e-6,
    cases=lambda draw: [
        smoothed_gradient_case(draw, 1, 1),
        smoothed_gradient_case(draw, 1, draw.integer(2, 5)),
        smoothed_gradient_case(draw, 2, 3),
        smoothed_gradient_case(draw, 4, 2, torch.float64),
    ],
    wrong={
        ### BEGIN SOLUTION
        "the loss is a mean over B · T positions, and its gradient is that many times smaller": lambda z, y, e: (
            smoothed_gradient_by(z, y, e=e) * y.numel()
        ),
        "it divides by B; the mean is over all B · T positions": lambda z, y, e: (
            smoothed_gradient_by(z, y, e=e) * y.shape[1]
        ),
        "it divides by T; the mean is over all B · T positions": lambda z, y, e: (
            smoothed_gradient_by(z, y, e=e) * len(y)
        ),
        "it divides by V too; the mean is over the positions, not over the characters": lambda z, y, e: (
            smoothed_gradient_by(z, y, e=e) / z.shape[-1]
        ),
        "that is the gradient without smoothing: ε does nothing": lambda z, y, e: (
            smoothed_gradient_by(z, y)
        ),
        "ε goes to the wrong characters only; the right one gets its ε / V too": lambda z, y, e: (
            smoothed_gradient_by(
                z,
                y,
                t=F.one_hot(y, z.shape[-1]) * (1 - e - e / (z.shape[-1] - 1))
                + e / (z.shape[-1] - 1),
            )
        ),
        "t sums to more than 1: what ε gives to all is first taken from the right one, (1 - ε) y": lambda z, y, e: (
            smoothed_gradient_by(z, y, t=F.one_hot(y, z.shape[-1]) + e / z.shape[-1])
        ),
        "ε itself goes to every character; it is shared among them, ε / V": lambda z, y, e: (
            smoothed_gradient_by(z, y, t=F.one_hot(y, z.shape[-1]) * (1 - e) + e)
        ),
        "t sums to less than 1: the right character has 1 - ε, and gets its ε / V on top": lambda z, y, e: (
            smoothed_gradient_by(
                z, y, t=F.one_hot(y, z.shape[-1]) * (1 - e - e / z.shape[-1]) + e / z.shape[-1]
            )
        ),
        "(1 - ε)(p - y) is the first part only; the ε / V of every character adds ε (p - 1 / V)": lambda z, y, e: (
            smoothed_gradient_by(z, y) * (1 - e)
        ),
        "every character's ε / V is missing from t": lambda z, y, e: smoothed_gradient_by(
            z, y, t=F.one_hot(y, z.shape[-1]) * (1 - e)
        ),
        "each term of the sum was differentiated by its own logit only; each logit moves all p": lambda z, y, e: (
            ((1 - e) * F.one_hot(y, z.shape[-1]) + e / z.shape[-1])
            * (z.softmax(-1) - 1)
            / y.numel()
        ),
        "the softmax runs over the positions; it belongs on the last axis, over the characters": lambda z, y, e: (
            smoothed_gradient_by(z, y, z.softmax(1), e=e)
        ),
        "p is missing: the logits themselves were taken": lambda z, y, e: smoothed_gradient_by(
            z, y, z, e=e
        ),
        ### END SOLUTION
    },
    signs={
        "the sign is reversed: it is what was believed minus what was wanted": lambda got, want, z, y, e: (
            torch.allclose(got, -want, atol=1e-6)
        ),
    },
)


def descend_on_table_case(draw, V, N, steps, dtype=torch.float32):
    return [
        draw.normal(V, V, dtype=dtype),
        draw.ids(V, N),
        draw.ids(V, N),
        steps,
        draw.number(0.5, 2),
    ]


### BEGIN SOLUTION
def descend_on_table_with(table, x, y, steps, lr, softmax=1, keep=False, stale=False, own=False):
    start, total = table.clone(), 0.0
    for _ in range(steps):
        leaf = (start if stale else table).clone().requires_grad_()
        F.cross_entropy(leaf[x].softmax(-1) if softmax == 2 else leaf[x], y).backward()
        total = leaf.grad + (total if keep else 0.0)
        if own:
            total = total * len(x) / x.bincount(minlength=len(table)).clamp_min(1)[:, None]
        table = table - lr * total
    return table


def descend_on_table_rows(table, x, y, steps, lr):
    for _ in range(steps):
        rows = (table[x].softmax(-1) - F.one_hot(y, len(table))) / len(x)
        table = table.index_put((x,), table[x] - lr * rows)
    return table


### END SOLUTION


exercise(
    descend_on_table,
    stars=2,
    minutes=10,
    cases=lambda draw: [
        descend_on_table_case(draw, 3, 1, 3),
        descend_on_table_case(draw, 4, 6, 1),
        descend_on_table_case(draw, 4, 6, 0),
        descend_on_table_case(
            draw, draw.integer(2, 5), draw.integer(5, 9), draw.integer(3, 6), torch.float64
        ),
        descend_on_table_case(draw, 3, 8, 5),
    ],
    wrong={
        ### BEGIN SOLUTION
        "one bug is left: gradients add up from step to step": lambda *args: descend_on_table_with(
            *args, keep=True
        ),
        "one bug is left: softmax twice. F.cross_entropy takes logits, and gets probabilities": lambda *args: (
            descend_on_table_with(*args, softmax=2)
        ),
        "both bugs are still in it": lambda *args: descend_on_table_with(
            *args, softmax=2, keep=True
        ),
        "it goes up: the step is against the gradient": lambda *args: descend_on_table_with(
            *args[:4], -args[4]
        ),
        "it takes the sum over the pairs; the loss is their mean": lambda *args: (
            descend_on_table_with(*args[:4], args[4] * len(args[1]))
        ),
        "the gradient is that of the first table at every step: work it out anew": lambda *args: (
            descend_on_table_with(*args, stale=True)
        ),
        "it takes one step too many": lambda *args: descend_on_table_with(
            *args[:3], args[3] + 1, args[4]
        ),
        "it takes one step, whatever `steps` says": lambda *args: descend_on_table_with(
            *args[:3], min(args[3], 1), args[4]
        ),
        "it takes one step too few": lambda *args: descend_on_table_with(
            *args[:3], args[3] - 1, args[4]
        ),
        "these are the probabilities; the table of logits is wanted": lambda *args: (
            descend_on_table_with(*args).softmax(-1)
        ),
        "`table[x] -= ...` moves a row once, however often x repeats it; its steps have to add up": descend_on_table_rows,
        "each row's mean is taken over its own pairs; the loss is the mean over all N": lambda *args: (
            descend_on_table_with(*args, own=True)
        ),
        "the table comes back as it went in": lambda *args: args[0].clone(),
        "x and y are exchanged: the row of x predicts y": lambda table, x, y, steps, lr: (
            descend_on_table_with(table, y, x, steps, lr)
        ),
        ### END SOLUTION
    },
)


def adamw_steps_case(draw, n, C, dtype=torch.float32):
    rates = [draw.number(0.1, 0.5) for _ in range(n)]
    return [
        1 + draw.uniform(C, dtype=dtype),
        draw.normal(n, C, dtype=dtype) + 0.5,
        rates,
        draw.number(0.6, 0.8),
        draw.number(0.85, 0.95),
        draw.number(0.05, 0.2),
        draw.number(0.2, 0.5),
    ]


### BEGIN SOLUTION
def adamw_steps_with(mistake):
    def steps(w, gradients, rates, beta1, beta2, eps, decay):
        m, v, after = torch.zeros_like(w), torch.zeros_like(w), mistake == "after"
        if mistake == "betas":
            beta1, beta2 = beta2, beta1
        for i, (g, rate) in enumerate(zip(gradients, rates)):
            t = {"zero": i, "late": i + 2, "first": 1, "all": len(rates)}.get(mistake, i + 1)
            rate = rates[0] if mistake == "rate" else rate
            g = g + decay * w if mistake == "l2" else g
            square = {"square": g, "norm": g @ g}.get(mistake, g * g)
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * square
            if mistake == "forgets":
                m, v = (1 - beta1) * g, (1 - beta2) * g * g
            m_hat = m if mistake == "uncorrected" else m / (1 - beta1**t)
            v_hat = v if mistake in ("uncorrected", "v") else v / (1 - beta2**t)
            if mistake == "power":
                m_hat, v_hat = m / beta1**t, v / beta2**t
            root = {
                "inside": (v_hat + eps).sqrt(),
                "rootless": v_hat + eps,
                "early": v_hat.sqrt() + eps / (1 - beta2 ** (i + 1)) ** 0.5,
            }.get(mistake, v_hat.sqrt() + eps)
            step = rate * m_hat / root
            step = step + rate * decay * w / root if mistake == "inner" else step
            pull = {"l2": 0.0, "inner": 0.0, "no decay": 0.0, "unpaced": decay}.get(
                mistake, rate * decay
            )
            w = (
                (w - step) * (1 - pull)
                if after
                else w + step - pull * w
                if mistake == "up"
                else w - step - pull * w
            )
            if mistake == "compound":
                m, v = m_hat, v_hat
        return w

    return steps


### END SOLUTION


exercise(
    adamw_steps,
    stars=3,
    minutes=18,
    cases=lambda draw: [
        adamw_steps_case(draw, 1, 1),
        adamw_steps_case(draw, 2, draw.integer(2, 5)),
        adamw_steps_case(draw, draw.integer(3, 6), 4, torch.float64),
        adamw_steps_case(draw, draw.integer(3, 6), 3),
    ],
    wrong={
        ### BEGIN SOLUTION
        "no bias correction: m and v are used as they are, too small at first": adamw_steps_with(
            "uncorrected"
        ),
        "the bias correction counts from 0; the first step is t = 1": adamw_steps_with("zero"),
        "the bias correction is one step ahead: at the first step t is 1": adamw_steps_with("late"),
        "the bias correction stays that of the first step; by now t steps have passed": adamw_steps_with(
            "first"
        ),
        "the bias correction divides by β^t; if all gradients were 1, m would be 1 - β^t": adamw_steps_with(
            "power"
        ),
        "the bias correction takes the number of all steps; t is how many have passed": adamw_steps_with(
            "all"
        ),
        "λ w is divided by the root of v too; it stands outside the fraction": adamw_steps_with(
            "inner"
        ),
        "v takes up the squared length of g; it takes the square of each number": adamw_steps_with(
            "norm"
        ),
        "the bias correction is written back into m and v: keep m and m̂ apart": adamw_steps_with(
            "compound"
        ),
        "only m is corrected; v starts from 0 too": adamw_steps_with("v"),
        "ε stands inside the root; it is added to the root": adamw_steps_with("inside"),
        "ε is added before the bias correction, and is corrected with it": adamw_steps_with(
            "early"
        ),
        "the root of v is missing": adamw_steps_with("rootless"),
        "the decay is added to the gradient (Adam with L2); AdamW keeps it out of m and v": adamw_steps_with(
            "l2"
        ),
        "the decay is not multiplied by the learning rate": adamw_steps_with("unpaced"),
        "the decay pulls at the w after the step; it is the w from before it": adamw_steps_with(
            "after"
        ),
        "there is no weight decay": adamw_steps_with("no decay"),
        "β1 and β2 are exchanged: β1 belongs to m": adamw_steps_with("betas"),
        "every step has the first learning rate": adamw_steps_with("rate"),
        "v takes up the gradient; it takes its square": adamw_steps_with("square"),
        "it forgets m and v at every step: they have to last": adamw_steps_with("forgets"),
        "it goes up: the step is against the gradient": adamw_steps_with("up"),
        ### END SOLUTION
    },
)
