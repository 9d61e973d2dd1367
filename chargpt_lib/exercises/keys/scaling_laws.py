"""How the exercises of lesson 15 are judged: cases, mistakes, symptoms."""

import math

from chargpt_lib.exercises.answers.scaling_laws import (
    effective_characters,
    flops_per_character,
    huber_objective,
    optimal_size,
    power_law,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- flops_per_character


def flops_per_character_cases(draw):
    return [
        # A model of the sweep, and GPT-2's sizes.
        [draw.integer(3, 4), 192, 24 * draw.integer(1, 4), draw.integer(60, 70)],
        [draw.choice([12, 24, 36, 48]), 1024, draw.choice([768, 1024, 1280, 1600]), 50_257],
        # A window so long that attention is most of it.
        [draw.integer(3, 8), draw.integer(20_000, 40_000), draw.integer(100, 200), 300],
        # An alphabet so large that lm_head is most of it.
        [draw.integer(3, 5), draw.integer(30, 60), draw.integer(10, 20), 128_256],
        # GPT-3.
        [96, 2048, 12_288, 50_257],
        # One block.
        [1, draw.integer(8, 16), draw.integer(3, 7), draw.integer(20, 40)],
        [1, 1, 1, 1],
    ]


FLOPS_PER_CHARACTER = exercise(
    flops_per_character, stars=2, minutes=9, cases=flops_per_character_cases
)


@FLOPS_PER_CHARACTER.symptom(
    "backward takes twice as many FLOPs as forward; both together are three times the forward pass"
)
def flops_per_character_backward(got, want, L, T, C, V):
    return 3 * got in (want, 2 * want)


@FLOPS_PER_CHARACTER.symptom(
    "each number of a matrix takes a multiplication and an addition: 2 FLOPs, not 1"
)
def flops_per_character_one_operation(got, want, L, T, C, V):
    return want in (2 * got, 6 * got)


@FLOPS_PER_CHARACTER.symptom(
    "a table of tokens or positions is looked up, which costs nothing; of all tables count `lm_head` "
    "alone"
)
def flops_per_character_tables(got, want, L, T, C, V):
    # In the smallest case too many numbers are the same.
    return C > 1 and got - want in (6 * T * C, 6 * V * C, 6 * (T + V) * C)


### BEGIN SOLUTION
@FLOPS_PER_CHARACTER.mistake(
    "attention is left out: scores and weighted sums take no parameters, but they do take FLOPs"
)
def flops_per_character_without_attention(L, T, C, V):
    return 6 * (12 * L * C**2 + V * C)


@FLOPS_PER_CHARACTER.mistake(
    "attention takes two products in each block, 2TC FLOPs each with the masked half: queries times "
    "keys, weights times values"
)
def flops_per_character_scores_alone(L, T, C, V):
    forward = 2 * (12 * L * C**2 + V * C)
    forward += L * 2 * T * C
    return 3 * forward


@FLOPS_PER_CHARACTER.mistake(
    "`lm_head` is left out: its VC numbers are multiplied for each character, too"
)
def flops_per_character_without_lm_head(L, T, C, V):
    return 6 * 12 * L * C**2 + 12 * L * T * C


@FLOPS_PER_CHARACTER.mistake(
    "attention is counted for one block; each of the L blocks looks at T characters"
)
def flops_per_character_attention_once(L, T, C, V):
    return 6 * (12 * L * C**2 + V * C) + 12 * T * C


### END SOLUTION

# ---------------------------------------------------------------- power_law


def power_law_case(draw, x, a, b, spread=0.05):
    """Points near a power law; spread: of ln y around the line."""
    y = []
    for value in x:
        noise = math.exp(draw.number(-spread, spread))
        y.append(a * value**-b * noise)
    return [x, y]


def power_law_cases(draw):
    parameters = [draw.number(0.8, 1.2) * 4**i for i in range(6, 13)]
    budgets = [draw.number(0.5, 2) * 10.0**i for i in range(17, 25)]
    characters = [draw.integer(200_000, 300_000) * 2**i for i in range(6)]
    steps = [draw.integer(100, 200) * 3**i for i in range(5)]
    sizes = [draw.number(0.5, 2) * 10.0**i for i in range(-4, 3)]
    two = [draw.number(10, 20), draw.number(200, 300)]
    draw.random.shuffle(parameters)
    return [
        power_law_case(draw, budgets, draw.number(20, 40), draw.number(0.04, 0.06)),
        # In no order.
        power_law_case(draw, parameters, draw.number(8, 12), draw.number(0.1, 0.2)),
        # Whole numbers, the largest first.
        power_law_case(draw, characters[::-1], draw.number(30, 50), draw.number(0.2, 0.3)),
        # Below and above 1, where logarithms change their sign.
        power_law_case(draw, sizes, draw.number(0.3, 0.6), draw.number(0.3, 0.5)),
        # Growing: the best size for a budget. And the same loss everywhere.
        power_law_case(draw, budgets[::2], draw.number(0.1, 0.2), draw.number(-0.55, -0.45)),
        power_law_case(draw, steps, draw.number(2, 3), 0.0, spread=0.0),
        # Two points.
        power_law_case(draw, two, draw.number(2, 5), draw.number(0.1, 0.9)),
    ]


# Tolerances: torch.tensor(x).log() is float32, and such an answer is right, too.
POWER_LAW = exercise(power_law, stars=2, minutes=8, cases=power_law_cases, atol=1e-6, rtol=1e-4)


### BEGIN SOLUTION
@POWER_LAW.mistake("that is the slope of the line; it is -b, so change its sign")
def power_law_slope(x, y):
    a, b = power_law(x, y)
    return a, -b


@POWER_LAW.mistake("that is ln a, the height of the line where ln x = 0; take exp of it")
def power_law_ln_a(x, y):
    a, b = power_law(x, y)
    return math.log(a), b


@POWER_LAW.mistake("a comes first: return (a, b), not (b, a)")
def power_law_exchanged(x, y):
    a, b = power_law(x, y)
    return b, a


@POWER_LAW.mistake("the line is fitted to x and y themselves; take the logarithms of both first")
def power_law_without_logarithms(x, y):
    mean_x = sum(x) / len(x)
    mean_y = sum(y) / len(y)
    products = 0.0
    squares = 0.0
    for i in range(len(x)):
        products += (x[i] - mean_x) * (y[i] - mean_y)
        squares += (x[i] - mean_x) ** 2
    slope = products / squares
    return mean_y - slope * mean_x, -slope


@POWER_LAW.mistake(
    "the logarithms have base 10, but exp has base e; take `math.log`, or 10** in place of exp"
)
def power_law_two_bases(x, y):
    a, b = power_law(x, y)
    return math.exp(math.log10(a)), b


@POWER_LAW.mistake(
    "the line is drawn through the first and the last point; a least-squares line takes all of them"
)
def power_law_two_points(x, y):
    return power_law([x[0], x[-1]], [y[0], y[-1]])


@POWER_LAW.mistake("the means are not subtracted: this slope is that of a line through the origin")
def power_law_through_the_origin(x, y):
    u = [math.log(value) for value in x]
    v = [math.log(value) for value in y]
    products = 0.0
    squares = 0.0
    for i in range(len(u)):
        products += u[i] * v[i]
        squares += u[i] ** 2
    slope = products / squares
    mean_u = sum(u) / len(u)
    mean_v = sum(v) / len(v)
    return math.exp(mean_v - slope * mean_u), -slope


### END SOLUTION

# ---------------------------------------------------------------- huber_objective


def huber_objective_case(draw, delta, inside, outside):
    """Runs with these signs of residuals, none of them near the border; 0: predicted exactly."""
    residuals = []
    for sign in inside:
        residuals.append(sign * delta * draw.number(0.4, 0.8))
    for sign in outside:
        residuals.append(sign * delta * draw.number(2, 8))
    draw.random.shuffle(residuals)
    measured = []
    predicted = []
    for residual in residuals:
        loss = draw.number(1.2, 4.5)
        measured.append(loss)
        predicted.append(loss * math.exp(residual))
    return [predicted, measured, delta]


def huber_objective_cases(draw):
    delta = draw.number(0.02, 0.05)
    loss = draw.number(1.2, 4.5)
    return [
        huber_objective_case(draw, delta, inside=[1, -1, 1], outside=[-1, 1]),
        # As Hoffmann et al. chose it.
        huber_objective_case(draw, 1e-3, inside=[-1, 1], outside=[1, -1, -1, 1]),
        # All inside, and all outside.
        huber_objective_case(draw, 0.2, inside=[-1, 1, 0, 1, -1], outside=[]),
        huber_objective_case(draw, delta, inside=[], outside=[1, 1, -1]),
        # A run that went wrong: below what the law says, and above it.
        huber_objective_case(draw, 0.1, inside=[], outside=[1]),
        huber_objective_case(draw, 0.1, inside=[], outside=[-1]),
        huber_objective_case(draw, delta, inside=[-1], outside=[]),
        # A border above 1, and losses that are whole numbers.
        [[9, 2, 3], [1, 2, 4], draw.number(1.2, 1.8)],
        [[loss], [loss], 1e-3],
    ]


# Tolerances: F.huber_loss of float32 tensors is right, too.
HUBER_OBJECTIVE = exercise(
    huber_objective, stars=2, minutes=6, cases=huber_objective_cases, atol=1e-12, rtol=1e-3
)


@HUBER_OBJECTIVE.symptom(
    "beyond delta the line has the slope delta, not 1 (`smooth_l1_loss`, too, leaves that factor out)"
)
def huber_objective_slope_1(got, want, predicted, measured, delta):
    return math.isclose(got * delta, want, rel_tol=1e-4)


### BEGIN SOLUTION
def huber_objective_of(residuals, delta):
    """The sum of the Huber losses."""
    total = 0.0
    for residual in residuals:
        distance = abs(residual)
        if distance <= delta:
            total += distance**2 / 2
        else:
            total += delta * (distance - delta / 2)
    return total


@HUBER_OBJECTIVE.mistake(
    "a residual far below 0 counts as a small one: compare its absolute value with delta"
)
def huber_objective_without_abs(predicted, measured, delta):
    total = 0.0
    for guess, loss in zip(predicted, measured):
        residual = math.log(guess / loss)
        if residual <= delta:
            total += residual**2 / 2
        else:
            total += delta * (residual - delta / 2)
    return total


@HUBER_OBJECTIVE.mistake(
    "the residuals are differences of the losses; take the differences of their logarithms"
)
def huber_objective_without_logarithms(predicted, measured, delta):
    residuals = [guess - loss for guess, loss in zip(predicted, measured)]
    return huber_objective_of(residuals, delta)


@HUBER_OBJECTIVE.mistake(
    "all residuals are squared; beyond delta the Huber loss is a straight line"
)
def huber_objective_all_squared(predicted, measured, delta):
    total = 0.0
    for guess, loss in zip(predicted, measured):
        total += math.log(guess / loss) ** 2 / 2
    return total


@HUBER_OBJECTIVE.mistake(
    "the loss jumps at delta: the straight line is delta (|r| - delta / 2), not delta |r|"
)
def huber_objective_jumps(predicted, measured, delta):
    total = 0.0
    for guess, loss in zip(predicted, measured):
        distance = abs(math.log(guess / loss))
        if distance <= delta:
            total += distance**2 / 2
        else:
            total += delta * distance
    return total


@HUBER_OBJECTIVE.mistake(
    "that is the mean over the runs; return their sum (`F.huber_loss` has `reduction='sum'`)"
)
def huber_objective_mean(predicted, measured, delta):
    return huber_objective(predicted, measured, delta) / len(predicted)


@HUBER_OBJECTIVE.mistake(
    "the parabola is r² / 2; r² alone does not meet the straight line at delta"
)
def huber_objective_without_half(predicted, measured, delta):
    total = 0.0
    for guess, loss in zip(predicted, measured):
        distance = abs(math.log(guess / loss))
        if distance <= delta:
            total += distance**2
        else:
            total += delta * (distance - delta / 2)
    return total


### END SOLUTION

# ---------------------------------------------------------------- optimal_size


def optimal_size_case(draw, alpha_factor, beta_factor, flops):
    """A law whose exponents differ by a quarter at least; its terms are 1 at the N and the D that are drawn here."""
    alpha = draw.number(0.25, 0.35) * alpha_factor
    beta = draw.number(0.25, 0.35) * beta_factor
    A = draw.number(1000, 2000) ** alpha
    B = draw.number(10_000, 30_000) ** beta
    return [A, alpha, B, beta, flops]


def optimal_size_cases(draw):
    return [
        # Budgets of this course's models, and of large ones.
        optimal_size_case(draw, 1.8, 1.0, draw.number(1, 9) * 1e12),
        optimal_size_case(draw, 1.0, 1.8, draw.number(1, 9) * 1e14),
        optimal_size_case(draw, 1.8, 1.0, draw.number(1, 9) * 1e18),
        optimal_size_case(draw, 1.0, 1.8, draw.number(1, 9) * 1e22),
        # The law of Hoffmann et al., with the budget of their Chinchilla.
        [406.4, 0.34, 410.7, 0.28, 5.76e23],
        # Exponents as small as those of Kaplan et al.
        [6.8, 0.076, 12.0, 0.103, draw.number(1, 9) * 1e20],
        # Steep, and a small budget.
        [draw.number(80, 120), 1.0, draw.number(300, 400), 0.5, draw.number(1, 9) * 1e6],
        [2.0, 0.5, 3.0, 1.0, 900.0],
    ]


# Tolerances: a little more than the part in a thousand that the text allows; nothing for numbers near 0.
OPTIMAL_SIZE = exercise(
    optimal_size, stars=3, minutes=12, cases=optimal_size_cases, atol=0.0, rtol=1.2e-3
)


@OPTIMAL_SIZE.symptom(
    "the square root of the budget alone fits one law; here the best N depends on A, alpha, B and "
    "beta, too"
)
def optimal_size_root_of_the_budget(got, want, A, alpha, B, beta, flops):
    # 6 N^2 is a budget with as many tokens as parameters, 120 N^2 one with 20 times as many.
    return any(math.isclose(factor * got**2, flops, rel_tol=1e-6) for factor in (1, 6, 20, 120))


@OPTIMAL_SIZE.symptom(
    "that is near the best N, but not to one part in a thousand: search in finer steps, in float64"
)
def optimal_size_nearly(got, want, A, alpha, B, beta, flops):
    return math.isclose(got, want, rel_tol=0.02)


### BEGIN SOLUTION
@OPTIMAL_SIZE.mistake(
    "at this N the two terms are equal; the loss is least where the sum of their derivatives is 0"
)
def optimal_size_equal_terms(A, alpha, B, beta, flops):
    return (A / B * (flops / 6) ** beta) ** (1 / (alpha + beta))


@OPTIMAL_SIZE.mistake(
    "the 6 is left out: with N parameters, C FLOPs last for D = C / (6N) characters"
)
def optimal_size_without_6(A, alpha, B, beta, flops):
    return optimal_size(A, alpha, B, beta, 6 * flops)


@OPTIMAL_SIZE.mistake(
    "alpha and beta are exchanged as factors: the derivative brings down alpha beside A, and beta "
    "beside B"
)
def optimal_size_factors_exchanged(A, alpha, B, beta, flops):
    ratio = beta * A / (alpha * B)
    return (ratio * (flops / 6) ** beta) ** (1 / (alpha + beta))


@OPTIMAL_SIZE.mistake("that is D, how long to train; return N = C / (6D), how large the model is")
def optimal_size_length(A, alpha, B, beta, flops):
    return flops / 6 / optimal_size(A, alpha, B, beta, flops)


@OPTIMAL_SIZE.mistake(
    "that is N to the power alpha + beta: the exponent 1 / (alpha + beta) is missing"
)
def optimal_size_without_root(A, alpha, B, beta, flops):
    return alpha * A / (beta * B) * (flops / 6) ** beta


### END SOLUTION

# ---------------------------------------------------------------- effective_characters


def effective_characters_cases(draw):
    U = draw.integer(900_000, 1_200_000)
    few = draw.integer(20, 90)
    R_star = draw.number(14, 16)
    return [
        # Tiny Shakespeare: four times, many times, so often that nothing is gained any more.
        [draw.integer(38, 42) * U // 10, U, R_star],
        [draw.integer(20, 40) * U, U, R_star],
        [draw.integer(500, 900) * U, U, draw.number(14, 16)],
        # Most of the text is read a second time.
        [draw.number(1.7, 1.9) * U, float(U), draw.number(4, 6)],
        # A large text, as floats, and less than once.
        [draw.number(2, 3) * 1e12, 1.5e11, R_star],
        [draw.number(0.2, 0.5) * U, float(U), R_star],
        [U // draw.integer(3, 9), U, draw.number(0.5, 2)],
        # Just once, just twice.
        [U, U, R_star],
        [2 * few, few, 1.0],
        [1, draw.integer(2, 9), draw.number(2, 5)],
        [1, 1, 0.5],
    ]


# Tolerances: torch.exp is float32. Nothing for numbers near 0: the smallest text has one character.
EFFECTIVE_CHARACTERS = exercise(
    effective_characters,
    stars=2,
    minutes=6,
    cases=effective_characters_cases,
    atol=0.0,
    rtol=1e-5,
)


@EFFECTIVE_CHARACTERS.symptom(
    "only D characters are read here, fewer than U: then U_D is D, the smaller of the two"
)
def effective_characters_all_of_the_text(got, want, D, U, R_star):
    return D < U and math.isclose(got, U, rel_tol=1e-5)


@EFFECTIVE_CHARACTERS.symptom(
    "D is below U, so nothing is read twice: R is 0, not D/U - 1, and D' is D"
)
def effective_characters_negative_repetitions(got, want, D, U, R_star):
    return D < U


@EFFECTIVE_CHARACTERS.symptom(
    "a repetition is worth less than new text, so D' must be below D, the characters read"
)
def effective_characters_as_good_as_new(got, want, D, U, R_star):
    return got >= D > U


### BEGIN SOLUTION
def effective_characters_of(D, U, R_star, repetitions):
    """D' for a number of repetitions."""
    different = min(D, U)
    return different + different * R_star * (1 - math.exp(-repetitions / R_star))


@EFFECTIVE_CHARACTERS.mistake(
    "the first pass is counted as a repetition; it is none, so R is one less than D/U"
)
def effective_characters_first_pass(D, U, R_star):
    return effective_characters_of(D, U, R_star, D / U)


@EFFECTIVE_CHARACTERS.mistake(
    "the exponent has the wrong sign: e^(R/R*) grows for ever, e^(-R/R*) decays"
)
def effective_characters_grows(D, U, R_star):
    different = min(D, U)
    repetitions = max(D / U - 1, 0)
    return different + different * R_star * (1 - math.exp(repetitions / R_star))


@EFFECTIVE_CHARACTERS.mistake(
    "R* stands twice in the formula: in the exponent, and as a factor, which is missing here"
)
def effective_characters_without_factor(D, U, R_star):
    different = min(D, U)
    repetitions = max(D / U - 1, 0)
    return different + different * (1 - math.exp(-repetitions / R_star))


@EFFECTIVE_CHARACTERS.mistake(
    "R* stands twice in the formula: as a factor, and in the exponent -R/R*, where it is missing here"
)
def effective_characters_without_decay(D, U, R_star):
    different = min(D, U)
    repetitions = max(D / U - 1, 0)
    return different + different * R_star * (1 - math.exp(-repetitions))


### END SOLUTION
