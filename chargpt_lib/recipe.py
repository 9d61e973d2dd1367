# Made from notebooks/source/10_recipe.py by notebooks/tools/build.py. Edit that text, not this file.
"""What goes into a training step: schedule, clipping, precision, accumulation, compile."""

import signal
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from math import cos, inf, pi
from numbers import Integral, Real
from pathlib import Path
from threading import current_thread, main_thread
from typing import Literal

import torch
from torch.utils.checkpoint import checkpoint

from chargpt_lib.checkpoints import load_checkpoint
from chargpt_lib.data import CharTokenizer, Corpus
from chargpt_lib.training import evaluate

__all__ = [
    "check_train_config",
    "TrainConfig",
    "count_windows",
    "epoch_dice",
    "Windows",
    "read_data",
    "learning_rate",
    "make_optimizer",
    "checkpointed",
    "compiled",
    "interruptible",
    "Alone",
]


def check_train_config(config):
    """ValueError for what no training can use: the field, its value, the way out."""

    def number(low, kind=Real, most=inf):
        return lambda x: (
            isinstance(x, kind) and not isinstance(x, bool) and low <= x <= most and x != inf
        )

    for names, right, meaning in (
        (
            "batch_size grad_accum eval_interval checkpoint_interval",
            number(1, Integral),
            "a whole number from 1 on",
        ),
        (
            "steps patience",
            lambda x: x is None or number(1, Integral)(x),
            "a whole number from 1 on, or None",
        ),
        ("eval_batches", number(0, Integral), "a whole number; 0 for the exact loss"),
        ("seed", number(0, Integral, 2**32 - 1), "a whole number from 0 to 2^32 - 1"),
        ("epochs time_budget", lambda x: x is None or number(1e-9)(x), "a number above 0, or None"),
        ("learning_rate", number(1e-12), "a number above 0"),
        (
            "min_lr",
            lambda x: number(0, Real, config.learning_rate)(x),
            f"from 0 to the rate, {config.learning_rate}",
        ),
        ("weight_decay grad_clip", number(0), "a number, 0 for none"),
        ("warmup", number(0, Real, 0.99), "a share of the run, from 0 to 0.99"),
        (
            "betas",
            lambda x: (
                isinstance(x, (tuple, list))
                and len(x) == 2
                and all(map(number(0, Real, 0.999999), x))
            ),
            "two numbers from 0 to 0.999999",
        ),
        ("schedule", ("cosine", "wsd").__contains__, "'cosine' or 'wsd'"),
        (
            "decay",
            lambda x: number(
                0, Real, 1 if config.schedule == "cosine" else 1.000001 - config.warmup
            )(x),
            f"a share of the run, and not more than the warmup, {config.warmup}, leaves of it",
        ),
        (
            "precision",
            ("auto", "fp32", "fp16", "bf16").__contains__,
            "'auto', 'fp32', 'fp16' or 'bf16'",
        ),
        ("compile gradient_checkpointing", lambda x: isinstance(x, bool), "True or False"),
        ("out", lambda x: x is None or isinstance(x, (str, Path)) and str(x), "a folder, or None"),
        (
            "tensorboard",
            lambda x: x is False or x is True and config.out,
            "False, or True with a folder, out",
        ),
    ):
        for name in names.split():
            if not right(getattr(config, name)):
                raise ValueError(f"{name} is {getattr(config, name)!r}; it has to be {meaning}")


@dataclass
class TrainConfig:
    """How to train. Whichever comes first ends it: steps, epochs, time_budget or patience."""

    steps: int | None = (
        None  # of the optimizer; 2000, where neither epochs nor a time budget is given
    )
    epochs: float | None = None  # passes over the training text
    time_budget: float | None = None  # seconds, evaluations included; the schedule ends with them
    batch_size: int = 32  # windows at a time
    grad_accum: int = 1  # so many batches, one after the other, make one step
    learning_rate: float = 1e-3  # the peak
    min_lr: float = 0.0  # where the schedule ends
    warmup: float = 0.05  # share of the run in which the rate rises
    schedule: Literal["cosine", "wsd"] = "cosine"  # wsd: warmup, stable, decay
    decay: float = 0.2  # share of the run, at its end, in which wsd decays; 0: the rate stays
    weight_decay: float = 0.1  # of matrices and tables; the other parameters have none
    betas: tuple[float, float] = (0.9, 0.99)  # of AdamW
    grad_clip: float = 1.0  # a longer gradient is cut to this length; 0: none is
    seed: int = 1337  # of the order of the windows, and of dropout
    precision: Literal["auto", "fp32", "fp16", "bf16"] = (
        "auto"  # auto: the best that the device computes in
    )
    compile: bool = False  # try torch.compile
    gradient_checkpointing: bool = False  # compute each block twice, and keep less of it
    eval_interval: int = 250  # steps from one evaluation, and row of the log, to the next
    eval_batches: int = (
        0  # estimate the validation loss from so many batches; 0: exactly, from the whole text
    )
    patience: int | None = None  # so many evaluations without a new best end the run
    out: str | None = None  # folder for checkpoints and log.jsonl
    checkpoint_interval: int = 1000  # steps
    tensorboard: bool = False  # a log for TensorBoard, too, in out

    def __post_init__(self):
        check_train_config(self)
        self.out = self.out and str(self.out)
        if self.steps is None and self.epochs is None and self.time_budget is None:
            self.steps = 2000


def count_windows(size, block_size):
    """How many windows an epoch has, in a text of so many ids. ValueError where there is none."""
    if size <= block_size:
        raise ValueError(
            f"a text of {size} ids has no window of block_size {block_size} and one target more: "
            f"take a longer text, or a model with a block_size of at most {max(size - 1, 0)}"
        )
    return max(size // block_size - 1, 1)


def epoch_dice(seed, epoch):
    """A generator that seed and epoch settle."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**32)


class Windows:
    """The windows of a text, shuffled, each once an epoch; every epoch cuts the text at other places."""

    def __init__(self, ids, block_size, seed):
        self.count = count_windows(len(ids), block_size)
        self.ids, self.block_size, self.seed, self.starts = ids, block_size, seed, {}
        self.all = ids.unfold(0, block_size + 1, 1)  # a view: nothing is copied

    def order(self, epoch):
        """Where the windows of an epoch start: (count,). Seed and epoch alone settle it."""
        if epoch not in self.starts:
            dice = epoch_dice(self.seed, epoch)
            first = torch.randint(len(self.ids) - self.count * self.block_size, (), generator=dice)
            self.starts = {
                epoch: first + self.block_size * torch.randperm(self.count, generator=dice)
            }
        return self.starts[epoch]

    def batch(self, seen, size):
        """The windows that follow the first `seen` ones -> x, y, both (size, T), where the ids are."""
        epoch, at = divmod(seen, self.count)
        starts = self.order(epoch)[at : at + size]
        while len(starts) < size:
            epoch += 1
            starts = torch.cat([starts, self.order(epoch)[: size - len(starts)]])
        windows = self.all[starts.to(self.ids.device, non_blocking=True)]  # (size, T + 1)
        return windows[:, :-1], windows[:, 1:]


def read_data(model, corpus_or_ids, config, tokenizer):
    """-> windows, validation ids or None, tokenizer or None. ValueError where model and text do not match.

    corpus_or_ids: a Corpus, ids (N,), or what has windows(block_size, seed), val_ids and tokenizer.
    """
    data = ids = corpus_or_ids
    val_ids, tokenizer = (
        getattr(data, "val_ids", None),
        tokenizer or getattr(data, "tokenizer", None),
    )
    if isinstance(data, Corpus):
        tokenizer = tokenizer or CharTokenizer.from_text(data.train + data.val)
        ids, val_ids = tokenizer.encode(data.train), tokenizer.encode(data.val)
    if hasattr(data, "windows"):
        windows = data.windows(model.block_size, config.seed)
        if tokenizer.vocab_size != model.vocab_size:
            raise ValueError(
                f"the data has {tokenizer.vocab_size} symbols, and the model knows {model.vocab_size}"
            )
    elif ids.dim() != 1 or ids.dtype != torch.int64:
        raise ValueError(
            f"ids are {ids.dtype} of the shape {tuple(ids.shape)}; a text is int64, (N,)"
        )
    else:
        model.check(ids[:, None])
        windows = Windows(ids.to(next(model.parameters()).device), model.block_size, config.seed)
    if config.patience and val_ids is None:
        raise ValueError(
            f"patience is {config.patience}, and ids have no validation text: give a Corpus, or None"
        )
    if config.out and tokenizer is None:
        raise ValueError("a checkpoint holds the tokenizer, too: with ids and out, give tokenizer=")
    return windows, val_ids, tokenizer


def learning_rate(step, config, elapsed=0.0):
    """The rate of a step, counted from 0; elapsed: the share of the time budget that is used up.

    A warmup, then half a cosine to min_lr (Loshchilov and Hutter, 2017), or the peak and a decay (Hu et al., 2024).
    """
    steps = config.steps or inf
    rise = max((step + 1) / steps, elapsed) / config.warmup if config.warmup else 1.0
    done = min(max(step / steps, elapsed), 1.0)
    if config.schedule == "cosine":
        left = (1 + cos(pi * max(done - config.warmup, 0) / (1 - config.warmup))) / 2
    else:
        left = min((1 - done) / config.decay, 1.0) if config.decay else 1.0
    return min(
        config.learning_rate * rise, config.min_lr + (config.learning_rate - config.min_lr) * left
    )


def make_optimizer(model, config):
    """AdamW in one kernel, where there is one; weight decay for what has two dimensions or more."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = parameters[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=tuple(config.betas), fused=fused
    )


@contextmanager
def checkpointed(model):
    """Inside, each block keeps only what goes into it, and computes the rest again (Chen et al., 2016)."""
    if not (blocks := list(getattr(model, "blocks", ()))):
        raise ValueError(
            f"gradient_checkpointing is True, and a {type(model).__name__} has no blocks: leave it False"
        )
    for block in blocks:
        block.forward = partial(
            checkpoint, block.forward, use_reentrant=False
        )  # hides the method of its class
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def compiled(model, x):
    """torch.compile's model; or the model, with a warning, where a trial step on x (B, T) fails."""
    try:
        with torch.random.fork_rng():
            (fast := torch.compile(model))(x, x)[1].backward()
        return fast
    except Exception as error:  # of many kinds: no compiler, an unknown operation, an old card
        lines = str(error).strip().splitlines() or [""]
        reason = next((line for line in lines if "error: " in line), lines[0])
        if "C++ compile error" in lines[0] and " " in torch.__file__:
            reason += (
                f"; PyTorch passes its own path, {torch.__file__}, unquoted to the linker: make the environment "
                "in a folder without a space (on a graphics card it does not matter)"
            )
        warnings.warn(
            f"torch.compile fails, so the training goes on without it: {type(error).__name__}: {reason}"
        )
        return model
    finally:
        model.zero_grad()


@contextmanager
def interruptible():
    """Ctrl-C waits for the end of a step: it goes into the list that this yields. A second Ctrl-C does not wait."""
    pressed, before = [], signal.getsignal(signal.SIGINT)

    def note(number, frame):
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    if current_thread() is not main_thread():  # only that one gets signals
        yield pressed
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


class Alone:
    """What a run asks of the processes that share it. Here there is one; lesson 13 has several."""

    rank, size = 0, 1  # which process this is, of how many
    apart = nullcontext  # in this context gradients stay as they are; outside they become means over the processes
    clip, evaluate = staticmethod(torch.nn.utils.clip_grad_norm_), staticmethod(evaluate)

    def most(self, *numbers):  # of each one, the largest that any process has
        return numbers

    def mean(self, numbers):  # of a tensor, over the processes
        return numbers

    def gather(self, value):  # everybody's, in the order of the ranks
        return [value]

    def once(self, do):  # one process calls it; all have what it returns, or raises
        return do()

    def share(self, model):  # what computes the loss
        return model

    def gathered(self, run):  # what is saved
        return run.model, run.optimizer.state_dict()

    def load(self, run, which="last"):
        return load_checkpoint(run.config.out, run.model, run.tokenizer, which)
