# Made from notebooks/source/10_recipe.py by notebooks/tools/build.py. Edit that text, not this file.
"""What goes into a training step: schedule, clipping, precision, accumulation, compile."""

import signal
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from math import cos, inf, pi
from threading import current_thread, main_thread
from typing import Literal

import torch
from torch.utils.checkpoint import checkpoint

from chargpt_lib.checks import (
    check_data_tokenizer,
    check_ids,
    check_needs,
    check_train_config,
    check_trainable,
)
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


SCHEDULES = ("cosine", "wsd")  # each with its formula in get_lr


@dataclass
class TrainConfig:
    """The settings of a training run; `chargpt train --help` explains each field.

    The first limit that is reached ends the run: steps, epochs, time_budget (seconds) or patience. Without any of the
    first three the limit is 2000 steps. A resumed run counts from its beginning.
    """

    # The length of the run: "Epochs" and "Learning-rate schedules" here, lesson 11 for the time budget and patience.
    steps: int | None = None  # optimizer steps
    epochs: float | None = None  # passes over the training text
    time_budget: float | None = None  # seconds, evaluations included; the schedule is fitted to it
    patience: int | None = None  # evaluations in a row without a new best loss that end the run

    # The batch of a step, batch_size * grad_accum windows: "Gradient accumulation".
    batch_size: int = 32  # windows per micro-batch
    grad_accum: int = 1  # micro-batches per optimizer step

    # The learning rate, and what wsd is: "Learning-rate schedules".
    learning_rate: float = 1e-3  # the peak
    min_lr: float = 0.0  # where the schedule ends
    warmup: float = 0.05  # fraction of the run with rising learning rate
    schedule: Literal[*SCHEDULES] = "cosine"  # wsd: warmup, stable, decay
    decay: float = 0.2  # fraction of the run in which wsd decays, at the end; 0: no decay

    # The optimizer: "Gradient clipping" and "Weight decay". Muon is lesson 16's.
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: AdamW, but for the matrices of the blocks
    weight_decay: float = 0.1  # for parameters with >= 2 dimensions, embeddings included
    betas: tuple[float, float] = (0.9, 0.99)  # AdamW betas
    grad_clip: float = 1.0  # largest norm of the gradient; 0: no clipping
    seed: int = 1337  # random seed for window order and dropout

    # The device: "Mixed precision" (fp16, bf16), "torch.compile" and "Gradient checkpointing".
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"  # auto: the device's fastest
    compile: bool = False  # use torch.compile, where it works
    gradient_checkpointing: bool = False  # recompute activations in backward, to save memory

    # Measuring and saving: lesson 11.
    eval_interval: int = 250  # steps between two evaluations, and rows of the log
    eval_batches: int = 0  # random batches per evaluation; 0: exact loss on the whole text
    out: str | None = None  # folder for checkpoints and log.jsonl
    checkpoint_interval: int = 1000  # steps between two checkpoints
    tensorboard: bool = False  # write a log for TensorBoard, too, into out

    def __post_init__(self):
        check_train_config(self, SCHEDULES)
        if self.out is not None:
            self.out = str(self.out)
        if self.steps is None and self.epochs is None and self.time_budget is None:
            self.steps = 2000


def count_windows(size, block_size):
    """The number of windows of block_size + 1 ids that an epoch takes from a text of `size` ids.

    Raises: ValueError where the text is too short for one window.
    """
    if size <= block_size:
        raise ValueError(
            f"the text has {size} ids, but a window needs block_size + 1 = {block_size + 1}: use a "
            f"longer text, or block_size <= {max(size - 1, 0)}"
        )
    # One window fewer than there is room for: the epochs begin at different places.
    return max(size // block_size - 1, 1)


def epoch_generator(seed, epoch):
    """The random generator of an epoch; the same seed and epoch give the same generator on any machine."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**32)


class ShuffledWindows:
    """The windows of a text in shuffled order, each once per epoch; every epoch cuts the text at other places."""

    def __init__(self, ids, block_size, seed):
        self.count = count_windows(len(ids), block_size)
        self.ids = ids
        self.block_size = block_size
        self.seed = seed
        # All windows of the text, each with the target of its last character: a view that copies nothing.
        self.all = ids.unfold(0, block_size + 1, 1)  # (N - T, T + 1)
        self.epoch = None  # the epoch whose order `starts` is
        self.starts = None

    def order(self, epoch):
        """The starts of an epoch's windows, in the order in which the run reads them: (count,)."""
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
        # A batch at the end of an epoch takes the windows that it lacks from the next epoch.
        while len(starts) < size:
            epoch += 1
            starts = torch.cat([starts, self.order(epoch)[: size - len(starts)]])
        windows = self.all[starts.to(self.ids.device, non_blocking=True)]  # (size, T + 1)
        return windows[:, :-1], windows[:, 1:]


def prepare_data(model, corpus_or_ids, config, tokenizer):
    """Prepares the data of a run -> windows, validation ids (N,) or None, tokenizer or None.

    corpus_or_ids: a Corpus, ids (N,) int64, or an object with windows(block_size, seed), val_ids and tokenizer.

    Raises: ValueError where model, text and config do not fit together.
    """
    if not isinstance(config, TrainConfig):
        raise ValueError(
            f"config is a {type(config).__name__}, expected a TrainConfig: "
            f"train(model, corpus, config, tokenizer)"
        )
    check_trainable(model)
    if hasattr(corpus_or_ids, "windows"):
        shards = corpus_or_ids
        windows = shards.windows(model.block_size, config.seed)
        val_ids = shards.val_ids
        if tokenizer is None:
            tokenizer = shards.tokenizer
        check_data_tokenizer(tokenizer, model)
    else:
        ids = corpus_or_ids
        val_ids = None
        if isinstance(corpus_or_ids, Corpus):
            corpus = corpus_or_ids
            if tokenizer is None:
                tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
            ids = tokenizer.encode(corpus.train)
            val_ids = tokenizer.encode(corpus.val)
        check_ids(ids)
        model.check(ids[:, None])
        device = next(model.parameters()).device
        windows = ShuffledWindows(ids.to(device), model.block_size, config.seed)
    check_needs(config, val_ids, tokenizer)
    return windows, val_ids, tokenizer


def get_lr(step, config, elapsed=0.0):
    """The learning rate of a step; steps count from 0. elapsed: the share of the time budget that is used up.

    A linear warmup; then half a cosine down to min_lr (Loshchilov and Hutter, 2017), or the peak and a linear decay
    (Hu et al., 2024).
    """
    # The schedule follows the steps or the time, whichever is further; without a number of steps, the time.
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


# The functions that make the optimizers; a later lesson's module is imported when its optimizer is used.
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
    """The optimizer that a TrainConfig names, for all parameters of the model."""
    module, name = OPTIMIZERS[config.optimizer].split(":")
    return getattr(import_module(module), name)(model, config)


@contextmanager
def gradient_checkpointing(model):
    """Within it, each block of the model keeps only its input, and runs again in backward (Chen et al., 2016).

    Raises: ValueError where the model has no blocks.
    """
    blocks = list(getattr(model, "blocks", ()))
    if not blocks:
        raise ValueError(
            f"{type(model).__name__} has no .blocks to checkpoint: set gradient_checkpointing=False"
        )
    for block in blocks:
        # An attribute of the block hides the method of its class until the attribute is deleted.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def compile_model(model, x):
    """Compiles the model by torch.compile; where a trial step on x (B, T) fails, warns and returns the model itself."""
    try:
        # The trial draws numbers for dropout; the run's generators must not change by it.
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
    """The line of torch.compile's long message that names the error, and the way out where one is known."""
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
    """Within it, the first Ctrl-C only adds its signal to the yielded list; the second Ctrl-C interrupts as usual."""
    received = []
    # Python delivers signals to the main thread only.
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
