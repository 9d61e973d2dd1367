# Made from notebooks/source/10_recipe.py by notebooks/tools/build.py. Edit that text, not this file.
"""What goes into a training step: schedule, clipping, precision, accumulation, compile."""

import signal
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from math import cos, inf, pi
from numbers import Integral, Real
from pathlib import Path
from threading import current_thread, main_thread
from typing import Literal

import torch
from torch.utils.checkpoint import checkpoint

from chargpt_lib.data import CharTokenizer, Corpus
from chargpt_lib.training import param_groups

__all__ = [
    "SCHEDULES",
    "TrainConfig",
    "count_windows",
    "epoch_generator",
    "ShuffledWindows",
    "prepare_data",
    "get_lr",
    "OPTIMIZERS",
    "make_adamw",
    "make_optimizer",
    "gradient_checkpointing",
    "compile_model",
    "catch_sigint",
]


def _is_number(value, low=0, high=inf, whole=False):
    """Whether a value is a finite number from low to high, and a whole one if that is asked for."""
    kind = Integral if whole else Real
    # To Python True is the number 1; as a setting it is a mistake.
    if not isinstance(value, kind) or isinstance(value, bool):
        return False
    return low <= value <= high and value != inf


SCHEDULES = ("cosine", "wsd")  # each with its formula in get_lr


def _check_train_config(config):
    """Looks at each setting of a TrainConfig.

    Raises: ValueError for the first that no training can use, with its name, its value and what it may be.
    """

    def require(name, allowed, meaning):
        if not allowed:
            raise ValueError(f"{name} is {getattr(config, name)!r}; it has to be {meaning}")

    for name in ("batch_size", "grad_accum", "eval_interval", "checkpoint_interval"):
        value = getattr(config, name)
        require(name, _is_number(value, 1, whole=True), "an integer >= 1")
    for name in ("steps", "patience"):
        value = getattr(config, name)
        allowed = value is None or _is_number(value, 1, whole=True)
        require(name, allowed, "an integer >= 1, or None")
    for name in ("epochs", "time_budget"):
        value = getattr(config, name)
        require(name, value is None or _is_number(value, 1e-9), "a number above 0, or None")
    for name in ("weight_decay", "grad_clip"):
        require(name, _is_number(getattr(config, name)), "a number >= 0 (0: off)")
    for name in ("compile", "gradient_checkpointing"):
        require(name, isinstance(getattr(config, name), bool), "True or False")

    allowed = _is_number(config.eval_batches, whole=True)
    require("eval_batches", allowed, "an integer >= 0 (0: exact loss)")
    # The seed of the windows' order is mixed from 32 bits.
    allowed = _is_number(config.seed, 0, 2**32 - 1, whole=True)
    require("seed", allowed, "an integer from 0 to 2^32 - 1")

    require("learning_rate", _is_number(config.learning_rate, 1e-12), "a number above 0")
    allowed = _is_number(config.min_lr, 0, config.learning_rate)
    require("min_lr", allowed, f"from 0 to the learning rate, {config.learning_rate}")
    require("warmup", _is_number(config.warmup, 0, 0.99), "a fraction of the run from 0 to 0.99")
    require("schedule", config.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
    longest = 1
    meaning = "a fraction of the run from 0 to 1"
    if config.schedule == "wsd":
        # In a WSD schedule the decay begins after the warmup. (The millionth is for rounding.)
        longest = 1.000001 - config.warmup
        meaning = f"a fraction of the run from 0 to {1 - config.warmup:g}, 1 - warmup"
    require("decay", _is_number(config.decay, 0, longest), meaning)
    require("optimizer", config.optimizer in ("adamw", "muon"), "'adamw' or 'muon'")

    is_pair = isinstance(config.betas, (tuple, list)) and len(config.betas) == 2
    allowed = is_pair and all(_is_number(beta, 0, 0.999999) for beta in config.betas)
    require("betas", allowed, "two numbers from 0 to 0.999999")
    allowed = config.precision in ("auto", "fp32", "fp16", "bf16")
    require("precision", allowed, "'auto', 'fp32', 'fp16' or 'bf16'")

    is_path = isinstance(config.out, (str, Path)) and str(config.out) != ""
    require("out", config.out is None or is_path, "a folder, or None")
    if config.tensorboard is not False:
        allowed = config.tensorboard is True and config.out is not None
        require("tensorboard", allowed, "False, or True with a folder, out")


@dataclass
class TrainConfig:
    """How to train; `chargpt train --help` explains each field.

    Whichever comes first ends the run: steps, epochs, time_budget (seconds) or patience. Without the first three it has
    2000 steps. A resumed run counts all of them from its beginning.
    """

    # How long. Where neither steps nor epochs nor a time budget are given, it is 2000 steps.
    steps: int | None = None  # optimizer steps
    epochs: float | None = None  # passes over the training text
    time_budget: float | None = None  # seconds, evaluations included; the schedule is fitted to it
    patience: int | None = None  # evaluations in a row without a new best loss that end the run

    # The batch of a step: batch_size * grad_accum windows.
    batch_size: int = 32  # windows per micro-batch
    grad_accum: int = 1  # micro-batches per optimizer step

    # The learning rate.
    learning_rate: float = 1e-3  # the peak
    min_lr: float = 0.0  # where the schedule ends
    warmup: float = 0.05  # fraction of the run with rising learning rate
    schedule: Literal[*SCHEDULES] = "cosine"  # wsd: warmup, stable, decay
    decay: float = 0.2  # fraction of the run in which wsd decays, at the end; 0: no decay

    # The optimizer.
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: AdamW, but for the matrices of the blocks
    weight_decay: float = 0.1  # for parameters with >= 2 dimensions, embeddings included
    betas: tuple[float, float] = (0.9, 0.99)  # AdamW betas
    grad_clip: float = 1.0  # largest norm of the gradient; 0: no clipping
    seed: int = 1337  # random seed for window order and dropout

    # The device.
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"  # auto: the device's fastest
    compile: bool = False  # use torch.compile, where it works
    gradient_checkpointing: bool = False  # recompute activations in backward, to save memory

    # Measuring and saving.
    eval_interval: int = 250  # steps between two evaluations, and rows of the log
    eval_batches: int = 0  # random batches per evaluation; 0: exact loss on the whole text
    out: str | None = None  # folder for checkpoints and log.jsonl
    checkpoint_interval: int = 1000  # steps between two checkpoints
    tensorboard: bool = False  # write a log for TensorBoard, too, into out

    def __post_init__(self):
        _check_train_config(self)
        if self.out is not None:
            self.out = str(self.out)
        if self.steps is None and self.epochs is None and self.time_budget is None:
            self.steps = 2000


def count_windows(size, block_size):
    """How many windows of block_size + 1 ids an epoch takes from a text of `size` ids.

    Raises: ValueError where the text is too short for one.
    """
    if size <= block_size:
        raise ValueError(
            f"the text has {size} ids, but a window needs block_size + 1 = {block_size + 1}: use a "
            f"longer text, or block_size <= {max(size - 1, 0)}"
        )
    # One window fewer than there is room for: the epochs begin at different places.
    return max(size // block_size - 1, 1)


def epoch_generator(seed, epoch):
    """The random generator of an epoch: the same for the same seed and epoch, on any machine."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**32)


class ShuffledWindows:
    """The windows of a text in a shuffled order, each once an epoch; every epoch cuts the text at other places."""

    def __init__(self, ids, block_size, seed):
        self.count = count_windows(len(ids), block_size)
        self.ids = ids
        self.block_size = block_size
        self.seed = seed
        # All windows that the text has, with the target of the last character: a view, nothing is copied.
        self.all = ids.unfold(0, block_size + 1, 1)  # (N - T, T + 1)
        self.epoch = None  # of which `starts` is the order
        self.starts = None

    def order(self, epoch):
        """Where the windows of an epoch start, in the order in which they are read: (count,)."""
        if epoch != self.epoch:
            generator = epoch_generator(self.seed, epoch)
            room = len(self.ids) - self.count * self.block_size
            first = torch.randint(room, (), generator=generator)
            shuffled = torch.randperm(self.count, generator=generator)
            self.starts = first + self.block_size * shuffled
            self.epoch = epoch
        return self.starts

    def batch(self, seen, size):
        """The windows that follow the first `seen` ones -> x, y, both (size, T), on the device of the ids."""
        epoch, at = divmod(seen, self.count)
        starts = self.order(epoch)[at : at + size]
        # At the end of an epoch the batch is filled up from the next one.
        while len(starts) < size:
            epoch += 1
            starts = torch.cat([starts, self.order(epoch)[: size - len(starts)]])
        windows = self.all[starts.to(self.ids.device, non_blocking=True)]  # (size, T + 1)
        return windows[:, :-1], windows[:, 1:]


def prepare_data(model, corpus_or_ids, config, tokenizer):
    """-> windows, validation ids (N,) or None, tokenizer or None.

    corpus_or_ids: a Corpus, ids (N,) int64, or an object with windows(block_size, seed), val_ids and tokenizer.

    Raises: ValueError where model, text and config do not go together.
    """
    if not isinstance(config, TrainConfig):
        raise ValueError(
            f"config is a {type(config).__name__}, expected a TrainConfig: "
            f"train(model, corpus, config, tokenizer)"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "no parameter of the model has requires_grad: a copy prepared for sampling cannot be "
            "trained, train the model it was made from"
        )
    if hasattr(corpus_or_ids, "windows"):
        shards = corpus_or_ids
        windows = shards.windows(model.block_size, config.seed)
        val_ids = shards.val_ids
        if tokenizer is None:
            tokenizer = shards.tokenizer
        if tokenizer.vocab_size != model.vocab_size:
            raise ValueError(
                f"the data's tokenizer has vocab_size {tokenizer.vocab_size}, the model "
                f"{model.vocab_size}: build the model with vocab_size={tokenizer.vocab_size}"
            )
    else:
        ids = corpus_or_ids
        val_ids = None
        if isinstance(corpus_or_ids, Corpus):
            corpus = corpus_or_ids
            if tokenizer is None:
                tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
            ids = tokenizer.encode(corpus.train)
            val_ids = tokenizer.encode(corpus.val)
        if not isinstance(ids, torch.Tensor):
            raise ValueError(
                f"the data is a {type(ids).__name__}: give a Corpus, as from load_corpus(path), or "
                f"ids (N,)"
            )
        if ids.dim() != 1 or ids.dtype != torch.int64:
            raise ValueError(
                f"ids must be a 1-D int64 tensor, got {ids.dtype} of shape {tuple(ids.shape)}"
            )
        model.check(ids[:, None])
        device = next(model.parameters()).device
        windows = ShuffledWindows(ids.to(device), model.block_size, config.seed)
    if config.patience is not None and val_ids is None:
        raise ValueError(
            f"patience={config.patience} needs validation text: train on a Corpus, or set "
            f"patience=None"
        )
    if config.out is not None and tokenizer is None:
        raise ValueError(
            "checkpoints include the tokenizer: pass tokenizer= when training on ids with out set"
        )
    return windows, val_ids, tokenizer


def get_lr(step, config, elapsed=0.0):
    """The learning rate of a step, counted from 0. elapsed: the share of the time budget that is used up.

    A linear warmup; then half a cosine down to min_lr (Loshchilov and Hutter, 2017), or the peak and a linear decay
    (Hu et al., 2024).
    """
    # Steps and time both drive the schedule: whichever is further. Without a number of steps, time alone does.
    steps = inf if config.steps is None else config.steps
    progress = min(max(step / steps, elapsed), 1.0)
    if config.schedule == "cosine":
        angle = pi * max(progress - config.warmup, 0) / (1 - config.warmup)  # from 0 to pi
        height = (1 + cos(angle)) / 2  # from 1 to 0
    elif config.schedule == "wsd":
        height = 1.0
        if config.decay > 0:
            height = min((1 - progress) / config.decay, 1.0)
    else:
        raise ValueError(f"the schedule {config.schedule!r} has no formula in get_lr")
    rate = config.min_lr + (config.learning_rate - config.min_lr) * height
    if config.warmup > 0:
        # step + 1, so that the first step already moves
        warmed_up = max((step + 1) / steps, elapsed) / config.warmup
        rate = min(rate, config.learning_rate * warmed_up)
    return rate


# Who makes the optimizer that a config names; a later lesson's module is imported when it is needed.
OPTIMIZERS = {"adamw": "chargpt_lib.recipe:make_adamw", "muon": "chargpt_lib.modern:make_muon"}


def make_adamw(model, config):
    """AdamW (Loshchilov and Hutter, 2019), with weight decay for parameters of two dimensions or more."""
    device = next(model.parameters()).device
    return torch.optim.AdamW(
        param_groups(model, config.weight_decay),
        lr=config.learning_rate,
        betas=tuple(config.betas),
        fused=device.type in ("cpu", "cuda"),
    )


def make_optimizer(model, config):
    """The optimizer that a TrainConfig names, over all parameters of the model."""
    module, name = OPTIMIZERS[config.optimizer].split(":")
    return getattr(import_module(module), name)(model, config)


@contextmanager
def gradient_checkpointing(model):
    """Inside, each block of the model keeps only its input, and runs again in backward (Chen et al., 2016).

    Raises: ValueError where the model has no blocks.
    """
    blocks = list(getattr(model, "blocks", ()))
    if not blocks:
        raise ValueError(
            f"{type(model).__name__} has no .blocks to checkpoint: set gradient_checkpointing=False"
        )
    for block in blocks:
        # An attribute of the block itself hides the method of its class, until it is deleted.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def compile_model(model, x):
    """The model as torch.compile makes it; or the model itself, with a warning, where a trial step on x (B, T) fails."""
    try:
        # The trial draws numbers for dropout; the run shall not notice.
        with torch.random.fork_rng():
            compiled = torch.compile(model)
            compiled(x, x)[1].backward()
        return compiled
    except Exception as error:  # of many kinds: no compiler, an unknown operation, an old card
        reason = _compile_failure(str(error))
        warnings.warn(
            f"torch.compile fails, so the training goes on without it: {type(error).__name__}: {reason}"
        )
        return model
    finally:
        model.zero_grad()


def _compile_failure(message):
    """The line of torch.compile's long message that says what went wrong; and the way out, where we know one."""
    lines = message.strip().splitlines()
    if not lines:
        return ""
    reason = next((line for line in lines if "error: " in line), lines[0])
    if "C++ compile error" in lines[0] and " " in torch.__file__:
        reason += (
            f"; PyTorch passes its own path, {torch.__file__}, unquoted to the linker: make the environment "
            "in a folder without a space (on a GPU it does not matter)"
        )
    return reason


@contextmanager
def catch_sigint():
    """Inside, the first Ctrl-C only adds its signal to the list that this yields; the second one interrupts as usual."""
    received = []
    # Python gives signals to the main thread alone, and lets no other thread handle them.
    if current_thread() is not main_thread():
        yield received
        return
    usual_handler = signal.getsignal(signal.SIGINT)

    def handler(signal_number, frame):
        received.append(signal_number)
        signal.signal(signal.SIGINT, usual_handler)

    signal.signal(signal.SIGINT, handler)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, usual_handler)
