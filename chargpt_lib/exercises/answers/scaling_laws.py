# Made from the exercises of notebooks/source/15_scaling_laws.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 15 · Scaling laws: how large, and how long?."""

import math


def flops_per_character(L, T, C, V):
    """L blocks, windows of T characters, width C, V symbols, all ints -> int: the FLOPs of training per character."""
    in_matrices = 2 * (12 * L * C**2 + V * C)
    in_attention = L * (2 * T * C + 2 * T * C)
    forward = in_matrices + in_attention
    return 3 * forward


def power_law(x, y):
    """x, y: lists of numbers above 0, with at least two different x -> (a, b) of y = a x^-b, floats."""
    u = [math.log(value) for value in x]
    v = [math.log(value) for value in y]
    mean_u = sum(u) / len(u)
    mean_v = sum(v) / len(v)
    products = 0.0
    squares = 0.0
    for i in range(len(u)):
        products += (u[i] - mean_u) * (v[i] - mean_v)
        squares += (u[i] - mean_u) ** 2
    slope = products / squares
    return math.exp(mean_v - slope * mean_u), -slope


def huber_objective(predicted, measured, delta):
    """predicted, measured: lists of losses, delta: float > 0 -> float: the sum of the Huber losses of their logarithms."""
    total = 0.0
    for guess, loss in zip(predicted, measured):
        distance = abs(math.log(guess) - math.log(loss))
        if distance <= delta:
            total += distance**2 / 2
        else:
            total += delta * (distance - delta / 2)
    return total


def optimal_size(A, alpha, B, beta, flops):
    """The law's A, alpha, B, beta, and the budget in FLOPs: floats > 0 -> float: the number of parameters N."""
    # A N^-alpha + B (6 N / flops)^beta. Its derivative, times N: -alpha A N^-alpha + beta B (6 / flops)^beta N^beta = 0.
    ratio = alpha * A / (beta * B)
    return (ratio * (flops / 6) ** beta) ** (1 / (alpha + beta))


def effective_characters(D, U, R_star):
    """D: characters read, U: length of the text, R_star: the decay, all numbers -> D', in characters, a float."""
    different = min(D, U)
    repetitions = max(D / U - 1, 0)
    return different + different * R_star * (1 - math.exp(-repetitions / R_star))
