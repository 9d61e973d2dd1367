# Made from notebooks/source/15_scaling_laws.py by notebooks/tools/build.py. Edit that text, not this file.
"""Scaling laws: what a run costs, the law of its loss, and the sweep of models that the law is fitted to."""

import math
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.data import CharTokenizer
from chargpt_lib.files import read_json, write_json
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.recipe import TrainConfig
from chargpt_lib.trainer import train
from chargpt_lib.training import cache_file_name, cache_key, evaluate

__all__ = [
    "non_embedding_params",
    "CHARACTERS_PER_STEP",
    "SweepPoint",
    "point_config",
    "flops_per_token",
    "ScalingLaw",
    "peak_lr",
    "point_training",
    "point_row",
    "columns",
    "run_sweep",
    "STARTS",
    "DELTA",
    "fit_law",
    "bootstrap_laws",
    "cheaper_runs",
    "predict_loss",
    "compute_optimal",
    "effective_data",
]


def non_embedding_params(model):
    """N as Kaplan et al. (2020) count it: without the tables of tokens and positions, and without lm_head."""
    # A set, because a tied lm_head is the table of tokens.
    tables = {model.lm_head.weight}
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            tables.add(module.weight)
    return model.num_params() - sum(table.numel() for table in tables)


CHARACTERS_PER_STEP = 384


class SweepPoint(NamedTuple):
    """One run of a sweep: the shape of its model, and how long it lasts."""

    n_layer: int
    n_embd: int
    steps: int
    block_size: int = 128
    seed: int = 1337

    @property
    def characters(self):
        """The number of characters that the run reads."""
        return self.steps * CHARACTERS_PER_STEP


def point_config(point, vocab_size):
    """The GPTConfig of a point: a head for each 24 channels, and at least two."""
    return GPTConfig(
        vocab_size,
        block_size=point.block_size,
        n_layer=point.n_layer,
        n_head=max(2, point.n_embd // 24),
        n_embd=point.n_embd,
    )


def flops_per_token(model):
    """FLOPs of training, per token of a full block: 6 N + 12 L T C, with N without the tables that are looked up.

    Chowdhery et al. (2022), appendix B.
    """
    config = model.config
    multiplied = model.num_params()
    for module in model.modules():
        # A row of a table is looked up, not multiplied; but a tied table is the lm_head, too.
        if isinstance(module, nn.Embedding) and module.weight is not model.lm_head.weight:
            multiplied -= module.weight.numel()
    return 6 * multiplied + 12 * config.n_layer * config.block_size * config.n_embd


def _check_form(form):
    if form not in ("hoffmann", "kaplan"):
        raise ValueError(f"form is {form!r}; it must be 'hoffmann' or 'kaplan'")


class ScalingLaw(NamedTuple):
    """The loss of a model of N parameters that has read D characters (or tokens), in nats.

    form "hoffmann": E + A / N^alpha + B / D^beta (Hoffmann et al., 2022);
    form "kaplan": E + ((A / N^alpha)^(1 / beta) + (B / D^beta)^(1 / beta))^beta (Kaplan et al., 2020, who have no E).
    """

    E: float  # the irreducible loss
    A: float
    alpha: float
    B: float
    beta: float
    form: str = "hoffmann"

    @property
    def power(self):
        """The power of the two terms that is added: (first^power + second^power)^(1 / power)."""
        _check_form(self.form)
        return 1 if self.form == "hoffmann" else 1 / self.beta

    def loss(self, N, D):
        """The loss for N and D, numbers or tensors."""
        N_term = self.A / N**self.alpha
        D_term = self.B / D**self.beta
        return self.E + (N_term**self.power + D_term**self.power) ** (1 / self.power)


def peak_lr(n_embd):
    """The peak learning rate for a width: the rule of this lesson."""
    return min(0.02, 0.5 / n_embd)


def point_training(point, learning_rate):
    """The TrainConfig of a point, with a peak learning rate. The schedule ends where the run ends.

    Raises: ValueError if a step is not a whole number of windows.
    """
    if point.block_size < 2 or CHARACTERS_PER_STEP % point.block_size != 0:
        raise ValueError(
            f"block_size is {point.block_size}; it must be at least 2 and divide the {CHARACTERS_PER_STEP} characters "
            f"of a step"
        )
    return TrainConfig(
        steps=point.steps,
        batch_size=CHARACTERS_PER_STEP // point.block_size,
        learning_rate=learning_rate,
        seed=point.seed,
        eval_interval=point.steps,
    )


def point_row(point, model, loss):
    """The row of a finished run: its point, the sizes of its model, its cost and its loss, as a dict of plain values."""
    return {
        **point._asdict(),
        "N": model.num_params(),
        "N_non_embedding": non_embedding_params(model),
        "D": point.characters,
        "flops": flops_per_token(model) * point.characters,
        "loss": loss,
    }


def columns(rows):
    """N, D and the loss of rows, three lists, as `fit_law` takes them."""
    N = [row["N"] for row in rows]
    D = [row["D"] for row in rows]
    losses = [row["loss"] for row in rows]
    return N, D, losses


def run_sweep(points, corpus, path):
    """Trains a model for each point and measures it on the validation text -> a list of `point_row`s.

    The rows are saved in a JSON file, path, so an interrupted sweep continues where it stopped.

    Raises: ValueError for a point that cannot be trained, FileNotFoundError if the folder of path does not exist; both
    before anything is trained. KeyboardInterrupt if a run is interrupted, which then has no row.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} for the rows of the sweep")
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    ids = tokenizer.encode(corpus.train)
    val_ids = tokenizer.encode(corpus.val)
    configs = []
    for point in points:
        model_config = point_config(point, tokenizer.vocab_size)
        configs.append((model_config, point_training(point, peak_lr(point.n_embd))))
    known = read_json(path)
    rows = []
    for point, (model_config, config) in zip(points, configs):
        torch.manual_seed(point.seed)
        model = GPT(model_config)
        key = cache_file_name(cache_key("sweep", model, corpus, asdict(config)))
        if key not in known:
            again = "" if point.characters <= len(ids) else f", {len(ids):,} of them different"
            print(f"{model.num_params():,} parameters, {point.characters:,} characters{again}")
            result = train(model, ids, config)
            # On Ctrl-C the trainer stops cleanly and returns. An unfinished run gets no row.
            if result["stop_reason"] != "steps":
                raise KeyboardInterrupt
            loss = evaluate(model, val_ids, stride=point.block_size // 2)
            known[key] = point_row(point, model, loss)
            write_json(path, known)
        rows.append(known[key])
    return rows


# Pairs of exponents, alpha and beta, at which the descents begin.
STARTS = tuple(product((0.3, 0.7, 1.2), repeat=2))
DELTA = 0.01  # the threshold of the Huber loss: about the scatter of our runs from seed to seed


class _Runs:
    """The runs of a sweep, and what fits a law to them.

    The parameters of a law, (5,) or (4,), are the logarithms of A, alpha, B, beta and, unless E is given, E. A and B are
    measured at the middle of the runs.
    """

    def __init__(self, N, D, losses, E, form):
        _check_runs(N, D, losses, E, form)
        log_N = torch.tensor(N, dtype=torch.float64).log()
        log_D = torch.tensor(D, dtype=torch.float64).log()
        # Measured from the middle of the runs, ln A hardly depends on alpha, and ln B hardly on beta: L-BFGS needs fewer steps.
        self.middle_N = log_N.mean()
        self.middle_D = log_D.mean()
        self.x = log_N - self.middle_N
        self.y = log_D - self.middle_D
        if abs(F.cosine_similarity(self.x, self.y, dim=0)) > 0.999:
            raise ValueError(
                "D is a power of N in these runs, so nothing tells the two apart: train at least one size on several "
                "lengths of text"
            )
        self.log_loss = torch.tensor(losses, dtype=torch.float64).log()
        self.E = E
        self.form = form
        self.log_E = None if E is None else torch.tensor([[E]], dtype=torch.float64).log()

    def law(self, parameters):
        """The ScalingLaw with these parameters, (5,) or (4,)."""
        alpha = parameters[1].exp()
        beta = parameters[3].exp()
        A = (parameters[0] + alpha * self.middle_N).exp()
        B = (parameters[2] + beta * self.middle_D).exp()
        E = self.E if self.E is not None else parameters[4].exp().item()
        return ScalingLaw(E, A.item(), alpha.item(), B.item(), beta.item(), self.form)

    def fit(self):
        """The parameters of the best law, (5,) or (4,)."""
        # Each of the three terms begins as a third of the median loss.
        third = self.log_loss.median().item() - math.log(3)
        starts = []
        for alpha, beta in STARTS:
            start = [third, math.log(alpha), third, math.log(beta)]
            starts.append(start if self.E is not None else [*start, third])
        starts = torch.tensor(starts, dtype=torch.float64)
        objectives, ends = self.descend(starts, self.log_loss, steps=300)
        # Then once more from the best of these ends alone, to the last digit.
        best = ends[objectives.nan_to_num(nan=math.inf).argmin()]
        _, ends = self.descend(best[None], self.log_loss, steps=300)
        return ends[0]

    def predict_log(self, parameters):
        """ln of the losses of the R runs by S laws, from their parameters (S, 5 or 4) -> (S, R)."""
        log_A, log_alpha, log_B, log_beta = parameters[:, :4].T.unsqueeze(-1)  # (S, 1) each
        log_N_term = log_A - log_alpha.exp() * self.x  # (S, R)
        log_D_term = log_B - log_beta.exp() * self.y
        power = 1 if self.form == "hoffmann" else (-log_beta).exp()
        above = torch.logaddexp(power * log_N_term, power * log_D_term) / power
        log_E = parameters[:, 4:] if self.log_E is None else self.log_E
        return torch.logaddexp(above, log_E.expand_as(above))

    def descend(self, parameters, log_loss, steps):
        """Descents of S laws at once, from parameters (S, 5 or 4) -> the objectives (S,) and parameters at their ends.

        log_loss (S, R) or (R,). The objectives are added up. None of them depends on the parameters of another law, so
        each law reaches a minimum of its own.
        """
        parameters = parameters.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [parameters],
            max_iter=steps,
            max_eval=2 * steps,
            history_size=20,
            tolerance_grad=1e-9,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def objectives():
            residuals = self.predict_log(parameters) - log_loss
            return F.huber_loss(residuals, torch.zeros_like(residuals), "none", DELTA).sum(-1)

        def closure():
            optimizer.zero_grad()
            total = objectives().sum()
            total.backward()
            return total

        optimizer.step(closure)
        with torch.no_grad():
            return objectives(), parameters.detach()


def _check_runs(N, D, losses, E, form):
    """Raises: ValueError for lists of runs that no law can be fitted to."""
    _check_form(form)
    fitted = 5 if E is None else 4  # numbers
    if not len(N) == len(D) == len(losses) >= fitted:
        raise ValueError(
            f"to fit {fitted} numbers takes at least {fitted} runs, each with N, D and a loss; got {len(N)} N, "
            f"{len(D)} D and {len(losses)} losses"
        )
    for name, values in (("N", N), ("D", D), ("loss", losses)):
        for run, value in enumerate(values):
            if not 0 < value < math.inf:
                raise ValueError(f"run {run}: {name} is {value}; it must be a number above 0")
    if E is not None and not 0 <= E < math.inf:
        raise ValueError(f"the irreducible loss, E, is {E}; it must be a number from 0 up")
    if E is not None and E >= min(losses):
        raise ValueError(
            f"run {losses.index(min(losses))}: its loss, {min(losses):.4g}, is not above the irreducible loss, "
            f"{E:.4g}: are both in nats per character, and of the same text?"
        )
    for name, values in (("N", N), ("D", D)):
        if len(set(values)) < 3:
            raise ValueError(
                f"the runs have {len(set(values))} different values of {name}: an exponent needs at least 3"
            )


def fit_law(N, D, losses, E=None, form="hoffmann"):
    """The law with the least Huber loss of the logarithms -> ScalingLaw. Hoffmann et al. (2022), who take delta = 0.001.

    N, D, losses: lists of the runs' parameters, characters and losses. E: the irreducible loss, if it is known; otherwise
    E is fitted, too.

    Raises: ValueError for another form, for lists of unequal lengths, for fewer runs than numbers to fit, for values that
    are not above 0, for losses that are not above E, for fewer than three different N or D, and where D is a power of N.
    """
    runs = _Runs(N, D, losses, E, form)
    return runs.law(runs.fit())


def _log_errors(runs, parameters):
    """ln of loss / predicted loss of each run (R,), with the correction HC1 (MacKinnon and White, 1985).

    The correction enlarges the errors, because a law is nearer to the runs it was fitted to than to other runs.
    """
    predicted = runs.predict_log(parameters[None])[0]
    free = len(predicted) - len(parameters)
    if free < 1:
        raise ValueError(
            f"{len(predicted)} runs leave no error when {len(parameters)} numbers are fitted: an interval takes more runs"
        )
    return math.sqrt(len(predicted) / free) * (runs.log_loss - predicted)


def _bootstrap(runs, parameters, resamples, seed):
    """Laws of made-up sweeps around the law of the runs, which has these parameters -> a list of ScalingLaws."""
    errors = _log_errors(runs, parameters)
    generator = torch.Generator().manual_seed(seed)
    signs = 2 * torch.randint(2, (resamples, len(errors)), generator=generator) - 1
    predicted = runs.predict_log(parameters[None])
    made_up = predicted + signs * errors
    if runs.E is not None and runs.E > 0:
        # No loss is below the irreducible one.
        made_up = made_up.clamp(min=math.log(1.0001 * runs.E))
    # The descents begin at the law of the real runs, which is near.
    starts = parameters.repeat(resamples, 1)
    _, ends = runs.descend(starts, made_up, steps=1000)
    return [runs.law(end) for end in ends]


def bootstrap_laws(N, D, losses, E=None, form="hoffmann", resamples=200, seed=1337):
    """Laws of made-up sweeps, in which each run keeps the size of its error, with a random sign -> a list of ScalingLaws.

    A wild bootstrap (Wu, 1986; with signs at random, Liu, 1988).

    Raises: ValueError as `fit_law` does, and where there are not more runs than numbers to fit.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; it must be at least 1")
    runs = _Runs(N, D, losses, E, form)
    return _bootstrap(runs, runs.fit(), resamples, seed)


def cheaper_runs(rows, target, factor=8):
    """The rows of runs that cost at most 1 / factor of the FLOPs of the run in the row `target`."""
    return [row for row in rows if factor * row["flops"] <= target["flops"]]


def predict_loss(N, D, losses, target_N, target_D, E=None, form="hoffmann", level=0.9, seed=1337):
    """The loss that a law fitted to some runs predicts for another -> loss, lower and upper end of an interval.

    level: the share of such intervals that should contain the loss. The interval has room for the error of the law, by
    `bootstrap_laws`, and for the error of a single run, which is taken from the quarter of the runs with the least losses.
    With few runs it is too narrow: where the law is true, 16 runs are known and E is fitted, intervals of level 0.9
    contain the loss in about three of four cases.

    Raises: ValueError as `bootstrap_laws` does, and for a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must be between 0 and 1")
    runs = _Runs(N, D, losses, E, form)
    parameters = runs.fit()
    errors = _log_errors(runs, parameters)
    best = errors[torch.tensor(losses).argsort()[: len(losses) // 4]]
    others = _bootstrap(runs, parameters, 200, seed)
    by_law = torch.tensor([other.loss(target_N, target_D) for other in others], dtype=torch.float64)
    # Each law with each of these errors, up and down.
    guesses = by_law[:, None] * torch.cat([best, -best]).exp()  # (200, 2 * best)
    if E is not None:
        guesses = guesses.clamp(min=E)
    outside = (1 - level) / 2
    ends = torch.tensor([outside, 1 - outside], dtype=torch.float64)
    low, high = guesses.flatten().quantile(ends).tolist()
    return runs.law(parameters).loss(target_N, target_D), low, high


def compute_optimal(law, flops):
    """The N and D with the least loss by a law, among all runs with 6 N D = flops -> N, D.

    Raises: ValueError if flops is not above 0.
    """
    if not 0 < flops < math.inf:
        raise ValueError(f"flops is {flops}; it must be a number above 0")
    # At the best N the derivative of the loss along 6 N D = flops is 0:
    # alpha * N_term ** power = beta * D_term ** power.
    ratio = (law.alpha / law.beta) ** (1 / law.power) * law.A / law.B
    N = (ratio * (flops / 6) ** law.beta) ** (1 / (law.alpha + law.beta))
    return N, flops / 6 / N


def effective_data(D, unique, R_star=15):
    """The length of new text that is worth D characters (or tokens) read from a text of `unique` (Muennighoff et al., 2023)."""
    repetitions = max(D / unique - 1, 0)
    return min(D, unique) * (1 + R_star * (1 - math.exp(-repetitions / R_star)))
