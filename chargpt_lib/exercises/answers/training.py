# Made from the exercises of notebooks/source/02_training_loop.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 02 · The training loop: nobody counts."""

import torch
from torch.nn import functional as F


def sharpened_probabilities(p, a):
    """p (..., V), the last axis sums to 1, and a > 0 -> (..., V): the probabilities if all logits are multiplied by a."""
    return (a * p.log()).softmax(-1)


def loss_of_any(z, right):
    """z (N, V) logits, right (N, V) bool, in each row at least one True -> (N,): what each row pays, in nats."""
    return z.logsumexp(-1) - z.masked_fill(~right, float("-inf")).logsumexp(-1)


def smoothed_gradient(z, y, epsilon):
    """z (B, T, V) logits, y (B, T) ids -> (B, T, V): the gradient of the mean label-smoothed loss with respect to z."""
    t = (1 - epsilon) * F.one_hot(y, z.shape[-1]) + epsilon / z.shape[-1]
    return (z.softmax(-1) - t) / y.numel()


def descend_on_table(table, x, y, steps, lr):
    """table (V, V) logits, pairs x, y (N,) ids -> (V, V): the table after `steps` steps of SGD; steps may be 0.

    Each step uses all N pairs: the loss is their mean cross-entropy, where row x[n] of the table predicts y[n].
    """
    table = table.clone().requires_grad_()
    for step in range(steps):
        table.grad = None
        F.cross_entropy(table[x], y).backward()
        with torch.no_grad():
            table -= lr * table.grad
    return table.detach()


def adamw_steps(w, gradients, rates, beta1, beta2, eps, decay):
    """w (C,), gradients (n, C) with a row for each step, rates a list of n numbers -> (C,): w after the n steps."""
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, (g, rate) in enumerate(zip(gradients, rates), 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        w = w - rate * (m_hat / (v_hat.sqrt() + eps) + decay * w)
    return w
