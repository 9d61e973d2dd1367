"""Answers to the exercises of lesson 15: right ones, and wrong ones with a piece of their hint."""

import math
import statistics

import numpy
import torch
import torch.nn.functional as F

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- flops_per_character


@right("flops_per_character")
def six_for_each_number(L, T, C, V):
    multiplied = 12 * L * C * C + V * C
    return 6 * multiplied + 12 * L * T * C


@right("flops_per_character")
def matrix_by_matrix(L, T, C, V):
    flops = 0.0
    for _ in range(L):
        for rows, columns in [(3 * C, C), (C, C), (4 * C, C), (C, 4 * C), (T, C), (C, T)]:
            flops += 2 * rows * columns
    flops += 2 * V * C
    return flops * (1 + 2)


@right("flops_per_character")
def a_whole_window_divided(L, T, C, V):
    matrices = 24 * L * T * C**2
    squares = 2 * L * 2 * T**2 * C
    head = 2 * T * V * C
    return 3 * (matrices + squares + head) // T


@wrong("flops_per_character", "three times the forward pass")
def forward_alone(L, T, C, V):
    return 24 * L * C**2 + 4 * L * T * C + 2 * V * C


@wrong("flops_per_character", "backward takes twice as many")
def backward_like_forward(L, T, C, V):
    forward = L * (24 * C**2 + 4 * T * C) + 2 * V * C
    backward = forward
    return forward + backward


@wrong("flops_per_character", "backward takes twice as many")
def backward_alone(L, T, C, V):
    return 2 * (L * (24 * C**2 + 4 * T * C) + 2 * V * C)


@wrong("flops_per_character", "2 FLOPs, not 1")
def multiplications_alone(L, T, C, V):
    numbers = L * (12 * C**2 + 2 * T * C) + V * C
    return 3 * numbers


@wrong("flops_per_character", "2 FLOPs, not 1")
def numbers_counted(L, T, C, V):
    return L * (12 * C**2 + 2 * T * C) + V * C


@wrong("flops_per_character", "attention is left out")
def six_n(L, T, C, V):
    N = 12 * L * C**2 + V * C
    return 6 * N


@wrong("flops_per_character", "2TC FLOPs each")
def queries_times_keys_alone(L, T, C, V):
    block = 2 * 12 * C**2 + 2 * T * C
    return 3 * (L * block + 2 * V * C)


@wrong("flops_per_character", "2TC FLOPs each")
def half_of_the_square(L, T, C, V):
    seen = T / 2
    return 6 * (12 * L * C**2 + V * C) + 3 * L * 4 * seen * C


@wrong("flops_per_character", "is looked up")
def all_parameters(L, T, C, V):
    N = 12 * L * C**2 + V * C + T * C + V * C
    return 6 * N + 12 * L * T * C


@wrong("flops_per_character", "is looked up")
def all_parameters_of_a_tied_model(L, T, C, V):
    return 6 * (12 * L * C**2 + V * C + T * C) + 12 * L * T * C


@wrong("flops_per_character", "is looked up")
def tokens_looked_up_by_a_product(L, T, C, V):
    one_hot = 2 * V * C
    return 3 * (one_hot + 24 * L * C**2 + 4 * L * T * C + 2 * V * C)


@wrong("flops_per_character", "`lm_head` is left out")
def blocks_alone(L, T, C, V):
    return 3 * L * (24 * C**2 + 4 * T * C)


@wrong("flops_per_character", "for one block")
def one_attention(L, T, C, V):
    blocks = 2 * L * 12 * C**2
    attention = 4 * T * C
    return 3 * (blocks + attention + 2 * V * C)


@wrong("flops_per_character", "for L = ")
def for_the_whole_window(L, T, C, V):
    return T * (6 * (12 * L * C**2 + V * C) + 12 * L * T * C)


@wrong("flops_per_character", "for L = ")
def a_square_for_each_character(L, T, C, V):
    return 6 * (12 * L * C**2 + V * C) + 12 * L * T**2 * C


@wrong("flops_per_character")
def narrow_feed_forward(L, T, C, V):
    return 6 * (6 * L * C**2 + V * C) + 12 * L * T * C


@wrong("flops_per_character")
def one_block(L, T, C, V):
    return 6 * (12 * C**2 + V * C) + 12 * T * C


@wrong("flops_per_character")
def lm_head_in_each_block(L, T, C, V):
    return 3 * L * (24 * C**2 + 4 * T * C + 2 * V * C)


@wrong("flops_per_character", "it returns the text")
def flops_in_words(L, T, C, V):
    return f"{6 * (12 * L * C**2 + V * C) + 12 * L * T * C:,} FLOPs"


@wrong("flops_per_character", "is there a `return`?")
def flops_printed(L, T, C, V):
    print(6 * (12 * L * C**2 + V * C) + 12 * L * T * C)


# ---------------------------------------------------------------- power_law


@right("power_law")
def by_statistics(x, y):
    line = statistics.linear_regression(list(map(math.log, x)), list(map(math.log, y)))
    return math.exp(line.intercept), -line.slope


@right("power_law")
def by_polyfit(x, y):
    slope, height = numpy.polyfit(numpy.log(x), numpy.log(y), 1)
    return [float(numpy.exp(height)), float(-slope)]


@right("power_law")
def with_tensors(x, y):
    u = torch.tensor(x).log()
    v = torch.tensor(y).log()
    slope = ((u - u.mean()) * (v - v.mean())).sum() / (u - u.mean()).square().sum()
    return (v.mean() - slope * u.mean()).exp(), -slope


@right("power_law")
def base_ten_throughout(x, y):
    u = [math.log10(value) for value in x]
    v = [math.log10(value) for value in y]
    n = len(x)
    up = n * sum(p * q for p, q in zip(u, v)) - sum(u) * sum(v)
    along = n * sum(p * p for p in u) - sum(u) ** 2
    b = -up / along
    return 10 ** ((sum(v) + b * sum(u)) / n), b


@right("power_law")
def normal_equations(x, y):
    u = torch.tensor(x, dtype=torch.float64).log()
    matrix = torch.stack([torch.ones_like(u), -u], dim=1)
    v = torch.tensor(y, dtype=torch.float64).log()
    height, b = torch.linalg.lstsq(matrix, v[:, None]).solution.flatten().tolist()
    return math.exp(height), b


@wrong("power_law", "change its sign")
def slope_for_b(x, y):
    slope, height = numpy.polyfit(numpy.log(x), numpy.log(y), 1).tolist()
    return math.exp(height), slope


@wrong("power_law", "take exp of it")
def height_for_a(x, y):
    line = statistics.linear_regression([math.log(p) for p in x], [math.log(q) for q in y])
    return line.intercept, -line.slope


@wrong("power_law", "a comes first")
def as_polyfit_orders_them(x, y):
    slope, height = numpy.polyfit(numpy.log(x), numpy.log(y), 1).tolist()
    return -slope, math.exp(height)


@wrong("power_law", "take the logarithms of both first")
def straight_through_the_numbers(x, y):
    line = statistics.linear_regression(x, y)
    return line.intercept, -line.slope


@wrong("power_law", "but exp has base e")
def base_ten_and_exp(x, y):
    slope, height = numpy.polyfit(numpy.log10(x), numpy.log10(y), 1).tolist()
    return math.exp(height), -slope


@wrong("power_law", "the first and the last point")
def rise_over_run(x, y):
    b = -(math.log(y[-1]) - math.log(y[0])) / (math.log(x[-1]) - math.log(x[0]))
    return y[0] * x[0] ** b, b


@wrong("power_law", "the means are not subtracted")
def without_means(x, y):
    u = torch.tensor(x, dtype=torch.float64).log()
    v = torch.tensor(y, dtype=torch.float64).log()
    b = -(u @ v / (u @ u)).item()
    return math.exp(v.mean().item() + b * u.mean().item()), b


@wrong("power_law", "item 0")
def through_the_origin_altogether(x, y):
    u = numpy.log(x)
    v = numpy.log(y)
    return 1.0, float(-(u * v).sum() / (u * u).sum())


@wrong("power_law", "item 0")
def slope_of_the_ends_at_the_means(x, y):
    b = math.log(y[0] / y[-1]) / math.log(x[-1] / x[0])
    return math.exp(statistics.mean(map(math.log, y)) + b * statistics.mean(map(math.log, x))), b


@wrong("power_law", "item 0")
def x_as_it_is(x, y):
    line = statistics.linear_regression(x, [math.log(q) for q in y])
    return math.exp(line.intercept), -line.slope


@wrong("power_law", "item 0")
def y_as_it_is(x, y):
    line = statistics.linear_regression([math.log(p) for p in x], y)
    return line.intercept, -line.slope


@wrong("power_law", "item 0")
def sign_lost_in_a(x, y):
    u = [math.log(p) for p in x]
    v = [math.log(q) for q in y]
    b = -statistics.linear_regression(u, v).slope
    return math.exp(statistics.mean(v) - b * statistics.mean(u)), b


@wrong("power_law")
def x_over_y(x, y):
    u = [math.log(p) for p in x]
    v = [math.log(q) for q in y]
    b = -statistics.linear_regression(v, u).slope
    return math.exp(statistics.mean(v) + b * statistics.mean(u)), b


@wrong("power_law")
def correlation_for_slope(x, y):
    u = numpy.log(x)
    v = numpy.log(y)
    b = -float(((u - u.mean()) * (v - v.mean())).sum() / (u.std() * v.std() * len(u) + 1e-12))
    return float(numpy.exp(v.mean() + b * u.mean())), b


@wrong("power_law", "it returns")
def b_alone(x, y):
    return -statistics.linear_regression(list(map(math.log, x)), list(map(math.log, y))).slope


@wrong("power_law", "is there a `return`?")
def line_without_return(x, y):
    slope, height = numpy.polyfit(numpy.log(x), numpy.log(y), 1)
    math.exp(height), -slope


@wrong("power_law", "in place")
def logarithms_in_the_lists(x, y):
    for i in range(len(x)):
        x[i] = math.log(x[i])
        y[i] = math.log(y[i])
    line = statistics.linear_regression(x, y)
    return math.exp(line.intercept), -line.slope


# ---------------------------------------------------------------- huber_objective


@right("huber_objective")
def by_the_library(predicted, measured, delta):
    a = torch.tensor(predicted).log()
    b = torch.tensor(measured).log()
    return F.huber_loss(a, b, reduction="sum", delta=delta)


@right("huber_objective")
def clipped_times_the_rest(predicted, measured, delta):
    total = 0
    for a, b in zip(predicted, measured):
        distance = abs(math.log(a / b))
        short = min(distance, delta)
        total += short * (distance - short / 2)
    return total


@right("huber_objective")
def with_where(predicted, measured, delta):
    r = numpy.log(predicted) - numpy.log(measured)
    inside = abs(r) <= delta
    return float(numpy.where(inside, r * r / 2, delta * (abs(r) - delta / 2)).sum())


@right("huber_objective")
def three_pieces(predicted, measured, delta):
    pieces = [0.0]
    for i in range(len(measured)):
        r = math.log(measured[i]) - math.log(predicted[i])
        if r > delta:
            pieces.append(delta * r - delta**2 / 2)
        elif r < -delta:
            pieces.append(-delta * r - delta**2 / 2)
        else:
            pieces.append(0.5 * r**2)
    return math.fsum(pieces)


@wrong("huber_objective", "compare its absolute value")
def signed_comparison(predicted, measured, delta):
    total = 0
    for a, b in zip(predicted, measured):
        r = math.log(a) - math.log(b)
        total += r * r / 2 if r < delta else delta * (abs(r) - delta / 2)
    return total


@wrong("huber_objective", "differences of their logarithms")
def losses_themselves(predicted, measured, delta):
    a = torch.tensor(predicted, dtype=torch.float64)
    b = torch.tensor(measured, dtype=torch.float64)
    return F.huber_loss(a, b, delta=delta, reduction="sum").item()


@wrong("huber_objective", "a straight line")
def least_squares(predicted, measured, delta):
    return sum((math.log(a) - math.log(b)) ** 2 for a, b in zip(predicted, measured)) / 2


@wrong("huber_objective", "jumps at delta")
def line_through_the_origin(predicted, measured, delta):
    r = numpy.abs(numpy.log(predicted) - numpy.log(measured))
    return float((0.5 * r[r <= delta] ** 2).sum() + (delta * r[r > delta]).sum())


@wrong("huber_objective", "the mean over the runs")
def reduced_to_the_mean(predicted, measured, delta):
    a = torch.tensor(predicted, dtype=torch.float64).log()
    return F.huber_loss(a, torch.tensor(measured, dtype=torch.float64).log(), delta=delta)


@wrong("huber_objective", "r² alone")
def whole_square(predicted, measured, delta):
    r = [abs(math.log(a / b)) for a, b in zip(predicted, measured)]
    return sum(d * d if d <= delta else delta * (d - 0.5 * delta) for d in r)


@wrong("huber_objective", "the slope delta, not 1")
def line_of_slope_1(predicted, measured, delta):
    total = 0.0
    for a, b in zip(predicted, measured):
        r = abs(math.log(a / b))
        total += r * r / 2 if r <= delta else r - delta / 2
    return total


@wrong("huber_objective", "`smooth_l1_loss`")
def smooth_l1(predicted, measured, delta):
    a = torch.tensor(predicted, dtype=torch.float64).log()
    b = torch.tensor(measured, dtype=torch.float64).log()
    return F.smooth_l1_loss(a, b, beta=delta, reduction="sum")


@wrong("huber_objective", "it returns")
def sign_kept_in_the_line(predicted, measured, delta):
    total = 0.0
    for a, b in zip(predicted, measured):
        r = math.log(a / b)
        total += r * r / 2 if abs(r) <= delta else delta * (r - delta / 2)
    return total


@wrong("huber_objective", "it returns")
def relative_errors(predicted, measured, delta):
    total = 0.0
    for a, b in zip(predicted, measured):
        r = abs(a - b) / b
        total += r * r / 2 if r <= delta else delta * (r - delta / 2)
    return total


@wrong("huber_objective", "it returns")
def absolute_errors(predicted, measured, delta):
    return sum(delta * abs(math.log(a / b)) for a, b in zip(predicted, measured))


@wrong("huber_objective", "it returns")
def clipped_at_the_border(predicted, measured, delta):
    r = torch.tensor(predicted).log() - torch.tensor(measured).log()
    return (r.clamp(-delta, delta) ** 2 / 2).sum().item()


@wrong("huber_objective", "it returns")
def pseudo_huber(predicted, measured, delta):
    r = numpy.log(predicted) - numpy.log(measured)
    return float((delta**2 * (numpy.sqrt(1 + (r / delta) ** 2) - 1)).sum())


@wrong("huber_objective", "it returns")
def branches_exchanged(predicted, measured, delta):
    r = [abs(math.log(a / b)) for a, b in zip(predicted, measured)]
    return sum(delta * (d - delta / 2) if d <= delta else d * d / 2 for d in r)


@wrong("huber_objective", "it returns")
def base_ten(predicted, measured, delta):
    r = [abs(math.log10(a / b)) for a, b in zip(predicted, measured)]
    return sum(d * d / 2 if d <= delta else delta * (d - delta / 2) for d in r)


@wrong("huber_objective", "a tensor")
def one_for_each_run(predicted, measured, delta):
    a = torch.tensor(predicted).log()
    return F.huber_loss(a, torch.tensor(measured).log(), delta=delta, reduction="none")


@wrong("huber_objective", "TypeError")
def logarithm_of_a_list(predicted, measured, delta):
    return abs(math.log(predicted) - math.log(measured))


@wrong("huber_objective", "it returns")
def returns_in_the_loop(predicted, measured, delta):
    total = 0.0
    for a, b in zip(predicted, measured):
        r = abs(math.log(a / b))
        total += r * r / 2 if r <= delta else delta * (r - delta / 2)
        return total


@wrong("huber_objective", "is there a `return`?")
def sum_without_return(predicted, measured, delta):
    r = [abs(math.log(a / b)) for a, b in zip(predicted, measured)]
    sum(d * d / 2 if d <= delta else delta * (d - delta / 2) for d in r)


# ---------------------------------------------------------------- optimal_size


@right("optimal_size")
def as_in_the_paper(A, alpha, B, beta, flops):
    a = beta / (alpha + beta)
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    return G * (flops / 6) ** a


@right("optimal_size")
def by_golden_section(A, alpha, B, beta, flops):
    low = 0.0
    high = math.log(flops / 6)

    def loss(log_n):
        return A / math.exp(log_n) ** alpha + B / (flops / 6 / math.exp(log_n)) ** beta

    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left = high - golden * (high - low)
        right_one = low + golden * (high - low)
        if loss(left) < loss(right_one):
            high = right_one
        else:
            low = left
    return math.exp(low)


@right("optimal_size")
def on_a_grid(A, alpha, B, beta, flops):
    n = torch.exp(torch.arange(0, math.log(flops / 6), 0.001, dtype=torch.float64))
    losses = A / n**alpha + B / (flops / (6 * n)) ** beta
    return n[losses.argmin()]


@right("optimal_size")
def steps_of_a_part_in_a_thousand(A, alpha, B, beta, flops):
    best = numpy.geomspace(1, flops / 6, 200)
    for _ in range(3):
        losses = A * best**-alpha + B * (flops / best / 6) ** -beta
        place = int(losses.argmin())
        best = numpy.geomspace(best[max(place - 1, 0)], best[min(place + 1, 199)], 200)
    return float(best[100])


@right("optimal_size")
def slope_by_bisection(A, alpha, B, beta, flops):
    low, high = 1.0, flops / 6
    while high / low > 1.0001:
        n = math.sqrt(low * high)
        if alpha * A * n**-alpha > beta * B * (6 * n / flops) ** beta:
            low = n
        else:
            high = n
    return low


@right("optimal_size")
def in_float32(A, alpha, B, beta, flops):
    alpha, beta = torch.tensor(alpha), torch.tensor(beta)
    log_n = (torch.log(alpha * A / beta / B) + beta * math.log(flops / 6)) / (alpha + beta)
    return log_n.exp()


@wrong("optimal_size", "the two terms are equal")
def terms_alike(A, alpha, B, beta, flops):
    low, high = 0.0, math.log(flops / 6)
    while high - low > 1e-9:
        middle = (low + high) / 2
        n = math.exp(middle)
        if A / n**alpha > B / (flops / 6 / n) ** beta:
            low = middle
        else:
            high = middle
    return math.exp(low)


@wrong("optimal_size", "the 6 is left out")
def budget_of_nd(A, alpha, B, beta, flops):
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    return G * flops ** (beta / (alpha + beta))


@wrong("optimal_size", "exchanged as factors")
def factors_upside_down(A, alpha, B, beta, flops):
    G = (beta * A / (alpha * B)) ** (1 / (alpha + beta))
    return G * (flops / 6) ** (beta / (alpha + beta))


@wrong("optimal_size", "that is D")
def length_of_the_training(A, alpha, B, beta, flops):
    G = (beta * B / (alpha * A)) ** (1 / (alpha + beta))
    return G * (flops / 6) ** (alpha / (alpha + beta))


@wrong("optimal_size", "the exponent 1 / (alpha + beta) is missing")
def root_not_taken(A, alpha, B, beta, flops):
    return A / B * alpha / beta * math.pow(flops / 6, beta)


@wrong("optimal_size", "the square root of the budget alone")
def twenty_tokens_a_parameter(A, alpha, B, beta, flops):
    return math.sqrt(flops / (6 * 20))


@wrong("optimal_size", "the square root of the budget alone")
def as_many_tokens_as_parameters(A, alpha, B, beta, flops):
    return (flops / 6) ** 0.5


@wrong("optimal_size", "search in finer steps")
def steps_of_a_hundredth(A, alpha, B, beta, flops):
    n = numpy.exp(numpy.arange(0.003, math.log(flops / 6), 0.01))
    return float(n[(A / n**alpha + B / (flops / 6 / n) ** beta).argmin()])


@wrong("optimal_size", "to one part in a thousand")
def bisection_that_stops_early(A, alpha, B, beta, flops):
    low, high = 1.0, flops / 6
    while high > 1.02 * low:
        n = math.sqrt(low * high)
        if alpha * A * n**-alpha > beta * B * (6 * n / flops) ** beta:
            low = n
        else:
            high = n
    return low


@wrong("optimal_size", "for A = ")
def root_of_the_budget_with_a_factor(A, alpha, B, beta, flops):
    return (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * math.sqrt(flops / 6)


@wrong("optimal_size", "for A = ")
def exponents_of_the_budget_exchanged(A, alpha, B, beta, flops):
    return (alpha * A / (beta * B) * (flops / 6) ** alpha) ** (1 / (alpha + beta))


@wrong("optimal_size", "for A = ")
def as_large_as_can_be(A, alpha, B, beta, flops):
    best, least = 0.0, math.inf
    for n in numpy.geomspace(1, flops / 6, 1000).tolist():
        loss = A / n**alpha
        if loss < least:
            best, least = n, loss
    return best


@wrong("optimal_size", "for A = ")
def derivative_not_brought_down(A, alpha, B, beta, flops):
    # -alpha A N^-(alpha + 1) + beta B (6 / C)^beta N^beta, the second exponent not lowered
    ratio = alpha * A / (beta * B)
    return (ratio * (flops / 6) ** beta) ** (1 / (alpha + beta + 1))


@wrong("optimal_size", "for A = ")
def powers_of_ten_alone(A, alpha, B, beta, flops):
    sizes = [10.0**k for k in range(0, 25) if 10.0**k < flops]
    return min(sizes, key=lambda n: A / n**alpha + B / (flops / (6 * n)) ** beta)


@wrong("optimal_size", "it returns")
def the_least_loss(A, alpha, B, beta, flops):
    n = (alpha * A / (beta * B) * (flops / 6) ** beta) ** (1 / (alpha + beta))
    return A / n**alpha + B / (flops / (6 * n)) ** beta


@wrong("optimal_size", "it returns")
def size_and_length(A, alpha, B, beta, flops):
    n = (alpha * A / (beta * B) * (flops / 6) ** beta) ** (1 / (alpha + beta))
    return n, flops / (6 * n)


@wrong("optimal_size", "for A = ")
def from_a_thousand_to_a_billion(A, alpha, B, beta, flops):
    n = numpy.geomspace(1e3, 1e9, 50_000)
    return float(n[(A / n**alpha + B / (flops / 6 / n) ** beta).argmin()])


@wrong("optimal_size", "is there a `return`?")
def size_printed(A, alpha, B, beta, flops):
    print((alpha * A / (beta * B) * (flops / 6) ** beta) ** (1 / (alpha + beta)))


# ---------------------------------------------------------------- effective_characters


@right("effective_characters")
def in_two_branches(D, U, R_star):
    if D <= U:
        return D
    R = (D - U) / U
    return U * (1 + R_star - R_star * math.exp(-R / R_star))


@right("effective_characters")
def by_expm1(D, U, R_star):
    new = U if U < D else D
    return new - new * R_star * math.expm1(-max(0.0, D - U) / (U * R_star))


@right("effective_characters")
def with_a_float32_exponential(D, U, R_star):
    R = torch.tensor(D / U - 1).clamp(min=0)
    new = torch.tensor([D, U]).min()
    return (new + new * R_star * (1 - torch.exp(-R / R_star))).item()


@right("effective_characters")
def the_integral(D, U, R_star):
    passes = numpy.linspace(0, max(D / U - 1, 0), 20_001)
    worth = numpy.exp(-passes / R_star)
    middle = (worth[1:] + 4 * numpy.exp(-(passes[1:] + passes[:-1]) / 2 / R_star) + worth[:-1]) / 6
    return float(min(D, U) + min(D, U) * (middle * numpy.diff(passes)).sum())


@wrong("effective_characters", "one less than D/U")
def all_passes_are_repetitions(D, U, R_star):
    read = min(U, D)
    return read * (1 + R_star * (1 - math.e ** (-D / U / R_star)))


@wrong("effective_characters", "wrong sign")
def minus_forgotten(D, U, R_star):
    if D < U:
        return D
    R = D / U - 1
    return U + U * R_star * (1 - math.exp(R / R_star))


@wrong("effective_characters", "as a factor, which is missing here")
def no_r_star_before_the_bracket(D, U, R_star):
    if D < U:
        return D
    return U * (2 - math.exp(-(D / U - 1) / R_star))


@wrong("effective_characters", "where it is missing here")
def no_r_star_in_the_exponent(D, U, R_star):
    read = sorted([D, U])[0]
    return read * (1 + R_star - R_star * math.exp(-max(D / U, 1) + 1))


@wrong("effective_characters", "R is 0, not D/U - 1")
def below_zero(D, U, R_star):
    R = D / U - 1
    read = min(D, U)
    return read + read * R_star * (1 - math.exp(-R / R_star))


@wrong("effective_characters", "R is 0, not D/U - 1")
def formula_alone(D, U, R_star):
    R = D / U - 1
    return U + U * R_star * (1 - math.exp(-R / R_star))


@wrong("effective_characters", "the smaller of the two")
def always_u(D, U, R_star):
    R = max(0, D / U - 1)
    return U + R_star * U * (1 - math.exp(-R / R_star))


@wrong("effective_characters", "D' must be below D")
def as_good_as_new(D, U, R_star):
    return D


@wrong("effective_characters", "D' must be below D")
def minus_forgotten_twice(D, U, R_star):
    R = max(D / U - 1, 0)
    return min(D, U) * (1 + R_star * (math.exp(R / R_star) - 1))


@wrong("effective_characters", "D' must be below D")
def first_pass_in_both(D, U, R_star):
    return D + U * R_star * (1 - math.exp(-D / U / R_star))


@wrong("effective_characters", "for D = ")
def once_and_no_more(D, U, R_star):
    return min(D, U)


@wrong("effective_characters", "for D = ")
def half_after_r_star(D, U, R_star):
    R = max(D / U - 1, 0)
    return min(D, U) * (1 + R_star * (1 - 2 ** (-R / R_star)))


@wrong("effective_characters", "for D = ")
def repetitions_alone(D, U, R_star):
    R = max(D / U - 1, 0)
    return min(D, U) * R_star * (1 - math.exp(-R / R_star))


@wrong("effective_characters", "for D = ")
def as_a_multiple_of_the_text(D, U, R_star):
    R = max(D / U - 1, 0)
    return 1 + R_star * (1 - math.exp(-R / R_star))


@wrong("effective_characters", "for D = ")
def without_one_minus(D, U, R_star):
    R = max(D / U - 1, 0)
    return min(D, U) + min(D, U) * R_star * math.exp(-R / R_star)


@wrong("effective_characters", "for D = ")
def whole_passes(D, U, R_star):
    R = max(D // U - 1, 0)
    return min(D, U) + min(D, U) * R_star * (1 - math.exp(-R / R_star))


@wrong("effective_characters", "for D = ")
def each_pass_by_itself(D, U, R_star):
    worth, k = 0.0, 0
    while k * U < D:
        worth += min(U, D - k * U) * math.exp(-k / R_star)
        k += 1
    return worth


@wrong("effective_characters", "D' must be below D")
def fraction_upside_down(D, U, R_star):
    R = max(D / U - 1, 1e-9)
    return min(D, U) * (1 + R_star * (1 - math.exp(-R_star / R)))


@wrong("effective_characters", "is there a `return`?")
def worth_without_return(D, U, R_star):
    R = max(D / U - 1, 0)
    min(D, U) * (1 + R_star * (1 - math.exp(-R / R_star)))
