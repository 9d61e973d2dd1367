"""Scaling laws: what is counted, the fit against laws that are known, the sweep, and what was recorded."""

import math
import random
import signal

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from chargpt_lib import scaling_laws
from chargpt_lib.exercises.answers.scaling_laws import (
    effective_characters,
    flops_per_character,
    huber_objective,
    optimal_size,
)
from chargpt_lib.files import read_json
from chargpt_lib.gpt import GPT
from chargpt_lib.recipe import get_lr
from chargpt_lib.scaling_laws import (
    DELTA,
    ScalingLaw,
    SweepPoint,
    bootstrap_laws,
    cheaper_runs,
    compute_optimal,
    effective_data,
    fit_law,
    flops_per_token,
    non_embedding_params,
    peak_lr,
    point_config,
    point_training,
    predict_loss,
    run_sweep,
)
from chargpt_lib.training import evaluate
from tests.benchmarks.scaling import backtest, is_row_of, share_of_props
from tests.tiny import CORPUS, IDS, TOKENIZER, VAL, tiny_gpt

LAWS = {
    "exponents of Hoffmann et al.": ScalingLaw(E=1.69, A=20.0, alpha=0.34, B=30.0, beta=0.28),
    "middling exponents": ScalingLaw(E=0.3, A=50.0, alpha=0.5, B=3000.0, beta=0.6),
    "text matters most": ScalingLaw(E=0.3, A=20.0, alpha=0.4, B=3e6, beta=1.1),
    "the other form": ScalingLaw(E=0.3, A=700.0, alpha=0.8, B=2e6, beta=1.2, form="kaplan"),
}
SIZES = (5_700, 18_312, 64_272, 200_232, 460_704, 1_022_832)
LENGTHS = tuple(240_000 * 2**k for k in range(7))


def grid(sizes=SIZES, lengths=LENGTHS, repeats=1):
    """N and D of a sweep of all sizes with all lengths, two lists."""
    N = []
    D = []
    for size in sizes:
        for length in lengths:
            N += [size] * repeats
            D += [length] * repeats
    return N, D


def losses_of(law, N, D, noise=0.0, seed=0):
    """Losses by a law, with relative errors of this standard deviation."""
    rng = random.Random(seed)
    return [law.loss(n, d) * (1 + noise * rng.gauss(0, 1)) for n, d in zip(N, D)]


# ---------------------------------------------------------------- what is counted


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"bias": True, "qkv_bias": True}])
def test_parameters_without_tables(changes):
    model = tiny_gpt(**changes)
    V, T, C = TOKENIZER.vocab_size, 16, 16
    tables = V * C + T * C
    if not changes.get("tied", True):
        tables += V * C  # lm_head; its bias is no table
    assert non_embedding_params(model) == model.num_params() - tables
    in_blocks = sum(p.numel() for p in model.blocks.parameters())
    outside = sum(p.numel() for p in model.norm.parameters())
    if not changes.get("tied", True):
        outside += V
    assert non_embedding_params(model) == in_blocks + outside


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"n_layer": 1, "n_embd": 32}])
def test_flops_are_those_that_pytorch_counts(changes):
    model = tiny_gpt(**changes)
    idx = torch.zeros(3, model.block_size, dtype=torch.int64)
    # Of the fused kernels PyTorch knows less.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(idx, idx)[1].backward()
    counted = counter.get_total_flops() / idx.numel()
    # PyTorch does not count the norms' gains and the biases, which the formula takes for matrices.
    vectors = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    assert flops_per_token(model) - counted == 6 * vectors


def test_flops_are_those_of_the_exercise():
    model = tiny_gpt()
    vectors = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    assert flops_per_token(model) - 6 * vectors == flops_per_character(
        2, 16, 16, TOKENIZER.vocab_size
    )


# ---------------------------------------------------------------- the fit


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("E_is_known", [True, False])
def test_the_fit_finds_the_exponents(name, seed, E_is_known):
    law = LAWS[name]
    N, D = grid(repeats=4)
    losses = losses_of(law, N, D, noise=0.01, seed=seed)
    found = fit_law(N, D, losses, law.E if E_is_known else None, law.form)
    assert found.alpha == pytest.approx(law.alpha, abs=0.03)
    assert found.beta == pytest.approx(law.beta, abs=0.03)
    if E_is_known:
        assert found.E == law.E


@pytest.mark.parametrize("name", LAWS)
def test_without_noise_the_law_itself_is_found(name):
    law = LAWS[name]
    N, D = grid(sizes=SIZES[:4], lengths=LENGTHS[:4])
    found = fit_law(N, D, losses_of(law, N, D), form=law.form)
    for n, d in ((SIZES[5], LENGTHS[6]), (SIZES[0], LENGTHS[6]), (SIZES[5], LENGTHS[0])):
        assert found.loss(n, d) == pytest.approx(law.loss(n, d), rel=0.005)


def test_no_law_nearby_is_better():
    law = LAWS["middling exponents"]
    N, D = grid()
    losses = losses_of(law, N, D, noise=0.02, seed=5)
    found = fit_law(N, D, losses)

    def objective(law):
        return huber_objective([law.loss(n, d) for n, d in zip(N, D)], losses, DELTA)

    least = objective(found)
    rng = random.Random(0)
    for _ in range(300):
        nearby = ScalingLaw(*[value * math.exp(rng.gauss(0, 0.01)) for value in found[:5]])
        assert objective(nearby) > least - 1e-9


def test_outliers_hardly_matter():
    law = LAWS["middling exponents"]
    N, D = grid()
    losses = losses_of(law, N, D, noise=0.005)
    for i in (3, 17, 30):
        losses[i] *= 1.5
    found = fit_law(N, D, losses)
    assert found.alpha == pytest.approx(law.alpha, abs=0.03)
    assert found.beta == pytest.approx(law.beta, abs=0.03)


def test_units_and_order_change_nothing_else():
    law = LAWS["middling exponents"]
    N, D = grid()
    losses = losses_of(law, N, D, noise=0.01)
    found = fit_law(N, D, losses)
    in_bits = fit_law(N, D, [loss / math.log(2) for loss in losses])
    assert in_bits.alpha == pytest.approx(found.alpha, abs=2e-3)
    assert in_bits.E * math.log(2) == pytest.approx(found.E, rel=5e-3)
    in_thousands = fit_law([n / 1000 for n in N], D, losses)
    assert in_thousands.loss(200, 1e6) == pytest.approx(found.loss(200_000, 1e6), rel=1e-3)
    backwards = fit_law(N[::-1], D[::-1], losses[::-1])
    assert backwards.beta == pytest.approx(found.beta, abs=2e-3)


@pytest.mark.parametrize(
    "N, D, losses, E, words",
    [
        ([1e4] * 4, [1e6] * 4, [1.0] * 4, None, "to fit 5 numbers takes at least 5 runs"),
        ([1e4] * 3, [1e6] * 3, [1.0] * 3, 0.3, "to fit 4 numbers takes at least 4 runs"),
        ([1e4] * 6, [1e6] * 5, [1.0] * 6, None, "got 6 N, 5 D and 6 losses"),
        (
            [1e4] * 6,
            [1e6] * 6,
            [1.0] * 5 + [0.29],
            0.3,
            "run 5: its loss, 0.29, is not above the irreducible loss, 0.3",
        ),
        ([1e4] * 6, [1e6] * 6, [1.0] * 5 + [0.0], None, "run 5: loss is 0.0"),
        ([1e4] * 6, [1e6] * 6, [1.0] * 5 + [math.nan], None, "run 5: loss is nan"),
        ([1e4] * 6, range(1, 7), [1.0] * 6, None, "1 different values of N"),
        (range(1, 7), [1e6] * 6, [1.0] * 6, None, "1 different values of D"),
        (range(1, 7), range(1, 7), [1.0] * 6, -1.0, "the irreducible loss, E, is -1.0"),
        (range(1, 7), range(1, 7), [1.0] * 6, math.nan, "the irreducible loss, E, is nan"),
        (range(1, 7), range(20, 140, 20), [1.0] * 6, None, "D is a power of N in these runs"),
        ([1e4, 2e4, 4e4] * 2, [9e6, 4.5e6, 2.25e6] * 2, [1.0] * 6, None, "D is a power of N"),
        ([1e4] * 5 + [0], [1e6] * 6, [1.0] * 6, None, "run 5: N is 0"),
        ([1e4] * 6, [1e6] * 5 + [-1], [1.0] * 6, None, "run 5: D is -1"),
    ],
)
def test_bad_runs_are_named(N, D, losses, E, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        fit_law(N, D, losses, E)


def test_the_form_of_kaplan_as_the_paper_writes_it():
    """Formula 1.5: [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D. (Theirs has no E.)"""
    N_c, alpha_N, D_c, alpha_D = 8.8e13, 0.076, 5.4e13, 0.095
    law = ScalingLaw(0.0, N_c**alpha_N, alpha_N, D_c**alpha_D, alpha_D, form="kaplan")
    for N, D in ((1e6, 1e8), (1e9, 1e8), (1e6, 1e11)):
        by_paper = ((N_c / N) ** (alpha_N / alpha_D) + D_c / D) ** alpha_D
        assert law.loss(N, D) == pytest.approx(by_paper)


def test_an_unknown_form():
    with pytest.raises(ValueError, match="form is 'sum'; it must be 'hoffmann' or 'kaplan'"):
        ScalingLaw(0.3, 1.0, 1.0, 1.0, 1.0, "sum").loss(1e6, 1e6)
    with pytest.raises(ValueError, match="form is 'sum'; it must be 'hoffmann' or 'kaplan'"):
        fit_law([1e4] * 6, [1e6] * 6, [1.0] * 6, form="sum")


# ---------------------------------------------------------------- the best size


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("flops", [1e11, 1e15])
def test_the_best_size_is_the_best(name, flops):
    law = LAWS[name]
    N, D = compute_optimal(law, flops)
    assert 6 * N * D == pytest.approx(flops)
    if law.form == "hoffmann":
        assert N == pytest.approx(optimal_size(law.A, law.alpha, law.B, law.beta, flops))
    least = law.loss(N, D)
    for factor in (0.5, 0.9, 1.1, 2):
        assert law.loss(N * factor, D / factor) > least


@pytest.mark.parametrize("flops", [0, -1e9, math.nan, math.inf])
def test_a_budget_that_is_none(flops):
    with pytest.raises(ValueError, match="flops is .*; it must be a number above 0"):
        compute_optimal(LAWS["middling exponents"], flops)


# ---------------------------------------------------------------- how sure it is


def errors_by_hand(law, N, D, losses, fitted):
    """ln of loss / predicted loss of each run, enlarged as the law was fitted with so many numbers."""
    enlarged = math.sqrt(len(losses) / (len(losses) - fitted))
    return [enlarged * math.log(loss / law.loss(n, d)) for n, d, loss in zip(N, D, losses)]


@pytest.fixture
def made_up(monkeypatch):
    """The logarithms of the losses of made-up sweeps, a tensor (sweeps, runs) for each bootstrap."""
    seen = []
    descend = scaling_laws._Runs.descend

    def descend_and_keep(runs, parameters, log_loss, steps):
        if log_loss.dim() == 2:
            seen.append(log_loss)
        return descend(runs, parameters, log_loss, steps)

    monkeypatch.setattr(scaling_laws._Runs, "descend", descend_and_keep)
    return seen


@pytest.mark.parametrize("form", ["hoffmann", "kaplan"])
@pytest.mark.parametrize("E", [0.3, None])
def test_a_made_up_sweep_has_the_errors_of_the_real_one_up_or_down(form, E, made_up):
    law = LAWS["the other form"]
    N, D = grid(sizes=SIZES[:4], lengths=LENGTHS[:3])
    losses = losses_of(law, N, D, noise=0.02)
    found = fit_law(N, D, losses, E, form)
    others = bootstrap_laws(N, D, losses, E, form, resamples=20)
    assert all(other.form == form for other in others)
    by_law = torch.tensor([math.log(found.loss(n, d)) for n, d in zip(N, D)])
    errors = torch.tensor(errors_by_hand(found, N, D, losses, 4 if E is not None else 5))
    (sweeps,) = made_up
    assert sweeps.shape == (20, 12)
    torch.testing.assert_close((sweeps - by_law).abs(), errors.abs().expand(20, 12).double())
    up = sweeps > by_law
    # Of 20 signs all are equal once in half a million times; of 240 fewer than 80 are never up.
    assert up.any(0).all() and not up.all(0).any() and 80 < up.sum() < 160

    # Each law is fitted to its own sweep.
    def objective(law, sweep):
        return huber_objective([law.loss(n, d) for n, d in zip(N, D)], sweep, DELTA)

    for other, sweep in zip(others, sweeps.exp().tolist()):
        least = objective(other, sweep)
        assert least < objective(found, sweep)
        for A, alpha, B, beta in (
            (1.01, 1, 1, 1),
            (1, 1.003, 1, 1),
            (1, 1, 0.99, 1),
            (1, 1, 1, 0.997),
        ):
            nearby = other._replace(
                A=other.A * A, alpha=other.alpha * alpha, B=other.B * B, beta=other.beta * beta
            )
            assert least <= objective(nearby, sweep) + 1e-9


def test_no_made_up_loss_is_below_the_irreducible_one(made_up):
    law = LAWS["text matters most"]
    N, D = grid(sizes=SIZES[3:], lengths=LENGTHS[4:])
    losses = losses_of(law, N, D)
    # A run that is far above the law, so that its mirror image is below E.
    losses[-1] *= 1.5
    bootstrap_laws(N, D, losses, law.E, resamples=20)
    assert made_up[0].min() == pytest.approx(math.log(1.0001 * law.E))


def test_an_interval_is_of_laws_and_of_the_errors_of_the_best_runs(monkeypatch):
    law = LAWS["middling exponents"]
    N, D = grid(sizes=SIZES[:3], lengths=LENGTHS[:4])
    losses = losses_of(law, N, D, noise=0.02)
    found = fit_law(N, D, losses, law.E)
    monkeypatch.setattr(scaling_laws, "_bootstrap", lambda *_: [found] * 200)
    errors = errors_by_hand(found, N, D, losses, 4)
    order = sorted(range(12), key=losses.__getitem__)
    at_target = found.loss(1e6, 1e7)
    possible = []
    for run in order[:3]:
        possible += [at_target * math.exp(errors[run]), at_target * math.exp(-errors[run])]
    guess, low, high = predict_loss(N, D, losses, 1e6, 1e7, law.E, level=0.998)
    assert guess == pytest.approx(at_target)
    # All laws are the same: what is left is the error of a run, one of six.
    assert low == pytest.approx(min(possible), rel=1e-3)
    assert high == pytest.approx(max(possible), rel=1e-3)
    _, low, high = predict_loss(N, D, losses, 1e6, 1e7, law.E, level=0.6)
    assert low == pytest.approx(sorted(possible)[1], rel=1e-3)
    assert high == pytest.approx(sorted(possible)[4], rel=1e-3)


def test_no_end_of_an_interval_is_below_the_irreducible_loss():
    law = LAWS["text matters most"]
    N, D = grid(sizes=SIZES[3:], lengths=LENGTHS[4:])
    losses = losses_of(law, N, D, noise=0.02)
    E = 0.999 * min(losses)
    guess, low, high = predict_loss(N, D, losses, 1e12, 1e15, E)
    assert E == low <= guess <= high


def test_a_law_without_an_irreducible_loss():
    law = ScalingLaw(E=0.0, A=5.0, alpha=0.2, B=9.0, beta=0.25)
    N, D = grid(sizes=SIZES[:4], lengths=LENGTHS[:4])
    losses = losses_of(law, N, D, noise=0.005)
    guess, low, high = predict_loss(N, D, losses, 2e6, 3e7, E=0.0)
    assert low < guess < high
    assert guess == pytest.approx(law.loss(2e6, 3e7), rel=0.02)


@pytest.mark.parametrize("level", [0, 1, 90, -0.1, math.nan])
def test_a_level_that_is_no_probability(level):
    N, D = grid(sizes=SIZES[:3], lengths=LENGTHS[:3])
    with pytest.raises(ValueError, match="level is .*; it must be between 0 and 1"):
        predict_loss(N, D, losses_of(LAWS["middling exponents"], N, D), 1e6, 1e7, level=level)


def test_runs_that_leave_no_error():
    N = [1e4, 2e4, 4e4, 1e4, 2e4]
    D = [1e6, 2e6, 1e6, 4e6, 4e6]
    losses = losses_of(LAWS["middling exponents"], N, D)
    with pytest.raises(ValueError, match="5 runs leave no error when 5 numbers are fitted"):
        predict_loss(N, D, losses, 1e6, 1e7)
    with pytest.raises(ValueError, match="resamples is 0"):
        bootstrap_laws(N, D, losses, resamples=0)


def test_a_higher_level_and_another_seed():
    law = LAWS["middling exponents"]
    N, D = grid(sizes=SIZES[:4], lengths=LENGTHS[:4])
    losses = losses_of(law, N, D, noise=0.02)
    ends = {}
    for level, seed in ((0.5, 0), (0.9, 0), (0.9, 1), (0.99, 0)):
        guess, low, high = predict_loss(N, D, losses, 2e6, 3e7, law.E, level=level, seed=seed)
        assert low < guess < high
        ends[level, seed] = (low, high)
    assert ends[0.99, 0][0] < ends[0.9, 0][0] < ends[0.5, 0][0]
    assert ends[0.99, 0][1] > ends[0.9, 0][1] > ends[0.5, 0][1]
    assert ends[0.9, 1] != ends[0.9, 0]
    assert ends[0.9, 0] == predict_loss(N, D, losses, 2e6, 3e7, law.E, seed=0)[1:]


def test_cheaper_runs():
    rows = [{"flops": 1.0}, {"flops": 2.0}, {"flops": 2.1}, {"flops": 16.0}]
    assert cheaper_runs(rows, rows[3]) == rows[:2]
    assert cheaper_runs(rows, rows[3], factor=4) == rows[:3]


def test_without_errors_there_is_nothing_to_be_unsure_of():
    law = LAWS["middling exponents"]
    N, D = grid(sizes=SIZES[:4], lengths=LENGTHS[:4])
    guess, low, high = predict_loss(N, D, losses_of(law, N, D), 2e6, 3e7, E=law.E)
    assert guess == pytest.approx(law.loss(2e6, 3e7), rel=1e-3)
    assert high - low < 1e-2 * guess


def test_more_noise_more_doubt():
    law = LAWS["middling exponents"]
    N, D = grid(sizes=SIZES[:4], lengths=LENGTHS[:4])
    widths = []
    for noise in (0.003, 0.03):
        losses = losses_of(law, N, D, noise)
        _, low, high = predict_loss(N, D, losses, 2e6, 3e7, E=law.E)
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]


@pytest.mark.parametrize("E_is_known", [True, False])
def test_most_intervals_hold_the_loss(E_is_known):
    law = LAWS["middling exponents"]
    N, D = grid(sizes=SIZES[:4], lengths=LENGTHS[:4])
    E = law.E if E_is_known else None
    held = 0
    for seed in range(20):
        losses = losses_of(law, N, D, 0.01, seed)
        run = losses_of(law, [1e6], [1e7], 0.01, seed + 100)[0]
        _, low, high = predict_loss(N, D, losses, 1e6, 1e7, E, seed=seed)
        held += low <= run <= high
    # About three of four, as the docstring says.
    assert 12 <= held


def test_made_up_sweeps_are_repeatable():
    law = LAWS["middling exponents"]
    N, D = grid(sizes=SIZES[:3], lengths=LENGTHS[:3])
    losses = losses_of(law, N, D, 0.02)
    first = bootstrap_laws(N, D, losses, law.E, resamples=5, seed=7)
    assert first == bootstrap_laws(N, D, losses, law.E, resamples=5, seed=7)
    assert first != bootstrap_laws(N, D, losses, law.E, resamples=5, seed=8)
    assert all(other.E == law.E for other in first)


# ---------------------------------------------------------------- repeated text


def test_repeated_text_is_worth_what_the_answer_of_the_exercise_says():
    for D, unique in ((1e5, 1e6), (1e6, 1e6), (1.5e6, 1e6), (4e6, 1e6), (1e9, 1e6)):
        by_answer = effective_characters(D, unique, 15)
        assert effective_data(D, unique) == pytest.approx(by_answer)
    assert effective_data(3e5, 1e6) == 3e5
    # Each repetition is worth less than the one before, and all together less than R_star of them.
    worth = [effective_data(k * 1e6, 1e6) for k in range(1, 200)]
    gains = [b - a for a, b in zip(worth, worth[1:])]
    assert all(b < a < 1e6 for a, b in zip(gains, gains[1:]))
    assert worth[-1] < 16e6
    assert effective_data(4e6, 1e6, R_star=1) < effective_data(4e6, 1e6)


# ---------------------------------------------------------------- the sweep

POINTS = [
    SweepPoint(1, 12, 3, block_size=16),
    SweepPoint(1, 24, 3, block_size=16),
    SweepPoint(1, 12, 5, block_size=16),
]


def test_a_point():
    point = SweepPoint(3, 72, 10, block_size=64)
    assert point.characters == 3840
    config = point_config(point, 65)
    assert (config.n_layer, config.n_embd, config.n_head, config.block_size) == (3, 72, 3, 64)
    assert point_config(SweepPoint(2, 12, 1), 65).n_head == 2
    training = point_training(point, 0.005)
    assert training.batch_size * config.block_size * training.steps == point.characters
    assert training.min_lr == 0 and training.learning_rate == 0.005
    # Measured once, at the end, and the rate falls until then.
    assert training.eval_interval == training.steps == 10 and training.seed == 1337
    assert get_lr(9, training) < 0.1 * get_lr(1, training)
    with pytest.raises(
        ValueError, match="block_size is 100; it must be at least 2 and divide the 384"
    ):
        point_training(point._replace(block_size=100), 0.005)
    assert peak_lr(144) < peak_lr(48) < peak_lr(24) == peak_lr(12)


@pytest.fixture
def trained(monkeypatch):
    """Which points have been trained: (width, steps)."""
    seen = []
    train = scaling_laws.train

    def counting(model, ids, config):
        seen.append((model.config.n_embd, config.steps))
        return train(model, ids, config)

    monkeypatch.setattr(scaling_laws, "train", counting)
    return seen


def test_the_sweep_goes_on_where_it_stopped(tmp_path, trained, monkeypatch):
    path = tmp_path / "sweep.json"
    rows = run_sweep(POINTS[:2], CORPUS, path)
    assert trained == [(12, 3), (24, 3)]
    # Something happens during the last one: what is there stays.
    with monkeypatch.context() as patch:
        patch.setattr(scaling_laws, "evaluate", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_sweep(POINTS, CORPUS, path)
    trained.clear()
    again = run_sweep(POINTS, CORPUS, path)
    assert trained == [(12, 5)] and again[:2] == rows
    trained.clear()
    assert run_sweep(POINTS, CORPUS, path) == again
    assert trained == []


def test_an_interrupted_run_leaves_no_row(tmp_path, monkeypatch):
    path = tmp_path / "sweep.json"
    train = scaling_laws.train

    def interrupted(model, ids, config):
        # The second run gets a Ctrl-C in its second step.
        if model.config.n_embd == 24:
            forward = model.forward

            def forward_and_press(*args, **kwargs):
                if len(seen) == 1:
                    signal.raise_signal(signal.SIGINT)
                seen.append(None)
                return forward(*args, **kwargs)

            monkeypatch.setattr(model, "forward", forward_and_press)
        return train(model, ids, config)

    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(scaling_laws, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(POINTS, CORPUS, path)
    assert 2 <= len(seen) < 30
    assert len(read_json(path)) == 1
    # The next time it is trained to its end.
    rows = run_sweep(POINTS, CORPUS, path)
    assert rows == run_sweep(POINTS, CORPUS, tmp_path / "other.json")


def test_what_cannot_be_trained_is_said_first(tmp_path, trained):
    with pytest.raises(ValueError, match="block_size is 100"):
        run_sweep([*POINTS, POINTS[0]._replace(block_size=100)], CORPUS, tmp_path / "sweep.json")
    with pytest.raises(ValueError, match="block_size is 1; it must be at least 2"):
        run_sweep([POINTS[0]._replace(block_size=1)], CORPUS, tmp_path / "sweep.json")
    with pytest.raises(FileNotFoundError, match="there is no folder .*missing"):
        run_sweep(POINTS, CORPUS, tmp_path / "missing" / "sweep.json")
    assert trained == []


def test_a_sweep_says_how_much_of_its_text_was_different(tmp_path, capsys):
    point = SweepPoint(1, 12, 1, block_size=16)
    run_sweep([point], CORPUS, tmp_path / "sweep.json")
    assert "different" not in capsys.readouterr().out
    short = CORPUS._replace(train=CORPUS.train[:100] + CORPUS.train[-100:])
    run_sweep([point], short, tmp_path / "sweep.json")
    assert "384 characters, 200 of them different" in capsys.readouterr().out


def test_a_row_says_what_was_measured(tmp_path):
    (row,) = run_sweep(POINTS[:1], CORPUS, tmp_path / "sweep.json")
    point = POINTS[0]
    torch.manual_seed(point.seed)
    model = GPT(point_config(point, TOKENIZER.vocab_size))
    assert row["N"] == model.num_params() and row["D"] == 3 * 384
    assert row["N_non_embedding"] == non_embedding_params(model)
    assert row["flops"] == 3 * 384 * flops_per_token(model)
    scaling_laws.train(model, IDS, point_training(point, peak_lr(12)))
    assert row["loss"] == pytest.approx(evaluate(model, VAL, stride=8), rel=1e-6)


def test_another_text_another_seed_or_another_length_is_another_row(tmp_path, trained):
    path = tmp_path / "sweep.json"
    point = POINTS[0]
    first = run_sweep([point], CORPUS, path)
    other_text = CORPUS._replace(train=CORPUS.train[:-1])
    second = run_sweep([point], other_text, path)
    third = run_sweep([point._replace(seed=1)], CORPUS, path)
    assert len(trained) == 3
    assert len({rows[0]["loss"] for rows in (first, second, third)}) == 3
    # All of them are still there.
    trained.clear()
    assert run_sweep([point], CORPUS, path) == first and trained == []


# ---------------------------------------------------------------- the benchmark


def test_a_prop_is_right_where_its_first_letter_got_more_than_half():
    text = "a cup'b pot'c hat'"
    spans = [
        (2, 5, "closing", None),
        (5, 6, "closing", None),
        (8, 11, "closing", None),
        (11, 12, "closing", None),
        (14, 17, "closing", None),
        (12, 13, "word", None),
    ]
    nats = [0.0] * len(text)
    assert share_of_props(nats, spans, text) == 1
    # Of the words only the first letters count, and neither quotation marks nor other kinds.
    for place in (3, 4, 5, 11, 12):
        nats[place] = 9.0
    assert share_of_props(nats, spans, text) == 1
    nats[8] = 0.70  # a probability of 0.497
    assert share_of_props(nats, spans, text) == pytest.approx(2 / 3)
    nats[8] = 0.69  # 0.502
    nats[2] = nats[14] = 3.0
    assert share_of_props(nats, spans, text) == pytest.approx(1 / 3)


def test_each_run_is_predicted_from_those_that_cost_an_eighth():
    law = LAWS["the other form"]
    N, D = grid(sizes=SIZES[:4], lengths=LENGTHS[:5])
    rows = []
    for n, d in zip(N, D):
        rows.append({"N": n, "D": d, "seed": 1, "loss": law.loss(n, d), "flops": 6 * n * d})
    tested = backtest(rows, law.E)
    wanted = []
    for row in rows:
        small = [other for other in rows if other["flops"] <= row["flops"] / 8]
        if len(small) >= 12 and len({other["N"] for other in small}) >= 3:
            wanted.append((row["N"], row["D"], len(small)))
    assert [(row["N"], row["D"], row["fitted"]) for row in tested] == wanted and len(wanted) >= 2
    for row in tested:
        assert row["predicted"] == pytest.approx(row["loss"], rel=1e-3)
        assert row["low"] <= row["predicted"] <= row["high"]


def test_a_row_belongs_to_its_point_and_its_settings():
    point = SweepPoint(2, 12, 625)
    row = {**point._asdict(), "learning_rate": 0.02, "unique": None, "loss": 1.0}
    assert is_row_of(row, point, learning_rate=0.02)
    assert not is_row_of(row, point._replace(seed=1), learning_rate=0.02)
    assert not is_row_of(row, point, learning_rate=0.01)
    assert not is_row_of(row, point, unique=60_000)
