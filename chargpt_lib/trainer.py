# Made from notebooks/source/11_training_in_earnest.py by notebooks/tools/build.py. Edit that text, not this file.
"""The trainer: the loop that evaluates, logs, saves and resumes."""

import hashlib
import json
import re
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import groupby, takewhile
from math import ceil, inf, isfinite, nan
from pathlib import Path
from statistics import fmean, median

import torch
from tqdm import tqdm

from chargpt_lib.checkpoints import (
    CHECKPOINT_NAME,
    POINTER_FILE,
    find_checkpoint,
    get_rng_states,
    load_checkpoint,
    read_state,
    save_checkpoint,
    set_rng_states,
)
from chargpt_lib.data import Corpus
from chargpt_lib.devices import pick_precision
from chargpt_lib.recipe import (
    catch_sigint,
    compile_model,
    get_lr,
    gradient_checkpointing,
    make_optimizer,
    prepare_data,
)
from chargpt_lib.training import estimate_loss, evaluate

__all__ = [
    "SingleProcessStrategy",
    "FETCH_SECONDS",
    "Trainer",
    "read_log",
    "write_log",
    "PIECES",
    "fingerprint_data",
    "describe_data_change",
    "is_in_use",
    "train",
    "plot_run",
]


class SingleProcessStrategy:
    """The strategy for training in one process; lesson 13 has strategies for several processes that share a run."""

    rank = 0  # the number of this process
    world_size = 1  # the number of processes

    def wrap(self, model):
        """The module that the training step calls."""
        return model

    def no_sync(self, model):
        """A context in which backward leaves the gradients in this process."""
        return nullcontext()

    def all_reduce_mean(self, tensor):
        """The mean of a tensor over the processes."""
        return tensor

    def all_reduce_max(self, *numbers):
        """The maximum of each number over the processes."""
        return numbers

    def all_gather(self, value):
        """A list of the values of all processes, in the order of their ranks."""
        return [value]

    def on_rank_zero(self, function):
        """Calls the function in process 0; every process gets what it returns or raises."""
        return function()

    def clip_grad_norm(self, parameters, max_norm):
        """Clips the gradients in place -> their norm before that, a tensor ()."""
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)

    def evaluate(self, model, ids):
        """The exact loss over a text."""
        return evaluate(model, ids)

    def full_state(self, model, optimizer):
        """The model with all its weights, and the optimizer's whole state, for a checkpoint."""
        return model, optimizer.state_dict()

    def load_model(self, out, model, tokenizer, which="last"):
        """Loads the weights of a checkpoint into the model -> the state that was saved with them."""
        return load_checkpoint(out, model, tokenizer, which)

    def load_optimizer(self, model, optimizer, saved):
        """Loads the saved moments into the optimizer; rate, decay and betas stay those of the config."""
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({**saved, "param_groups": groups})


# Fetching a number from a graphics card makes Python wait for the card: twice a second is enough for a progress bar.
FETCH_SECONDS = 0.5


class Trainer:
    """A training run: model, data, settings, progress and measurements. `Trainer(...).train()` runs it."""

    def __init__(self, model, corpus_or_ids, config, tokenizer=None, strategy=None):
        self.strategy = SingleProcessStrategy() if strategy is None else strategy
        self.windows, self.val_ids, self.tokenizer = prepare_data(
            model, corpus_or_ids, config, tokenizer
        )
        self.data = corpus_or_ids
        self.fingerprint = None if config.out is None else fingerprint_data(corpus_or_ids)
        self.floor = self.find_floor()
        self.model = model
        # A step calls this: the model, or its compiled and wrapped form.
        self.forward_model = model
        self.device = next(model.parameters()).device
        self.parameters = list(model.parameters())
        self.optimizer = make_optimizer(model, config)

        # All processes share a micro-batch: each takes batch_size windows of it.
        self.micro_batch = config.batch_size * self.strategy.world_size
        self.config = replace(config, steps=self.count_steps(config))

        self.precision = config.precision
        if config.precision == "auto":
            self.precision = pick_precision(self.device)
        dtype = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}[self.precision]
        self.autocast = nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)
        # Only fp16 needs loss scaling. A scaler that is not enabled passes everything through.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

        # The progress. A checkpoint holds these numbers, the weights, the optimizer, the scaler and the random states.
        self.step = 0
        self.windows_seen = 0
        self.seconds = 0.0
        self.best_loss = None  # the lowest validation loss
        self.best_step = None
        self.evals_since_best = 0
        self.metrics = []  # [loss, norm of the gradient] of each step since the last row of the log
        self.data_since = 0  # the step at which a changed text was accepted

        # The rest is not saved.
        self.lr = None
        self.on_device = []  # losses and norms that are still on the device
        self.fetched_at = 0.0  # seconds
        self.row_start = (0, 0.0)  # windows and seconds when the current row of the log began
        self.rows = []
        self.best_weights = None  # in memory, for a run without the folder `out`
        self.saved_step = None
        # Without TensorBoard this fails here, and not only at the first evaluation.
        self.writer_class = _import_summary_writer() if config.tensorboard else None
        self.writer = None

    def find_floor(self):
        """The entropy of the validation text in nats per id; None where it is unknown."""
        entropy = getattr(self.data, "val_entropy", None)
        if entropy is None:
            return None
        # From nats per character to nats per id: an id may stand for several characters.
        return entropy * len(self.data.val) / len(self.val_ids)

    def count_steps(self, config):
        """The number of steps, from config.steps or config.epochs; None for a run that only the clock ends."""
        if config.epochs is None:
            return config.steps
        # Rounded up: the last step may read some windows of the epoch after it.
        steps = ceil(config.epochs * self.windows.count / self.micro_batch / config.grad_accum)
        return steps if config.steps is None else min(steps, config.steps)

    def forward_backward(self):
        """Adds up the gradients of one step's micro-batches -> their mean loss, a tensor on the device."""
        config = self.config
        loss = 0.0
        for micro_step in range(config.grad_accum):
            own = self.windows_seen + self.strategy.rank * config.batch_size
            x, y = self.windows.batch(own, config.batch_size)
            # non_blocking: Python does not wait until a copy to a graphics card is done.
            x = x.to(self.device, non_blocking=True)
            y = y.to(self.device, non_blocking=True)
            # Several processes exchange their gradients once a step: in the last backward.
            is_last = micro_step == config.grad_accum - 1
            with nullcontext() if is_last else self.strategy.no_sync(self.forward_model):
                with self.autocast:
                    _, micro_loss = self.forward_model(x, y)
                    # Gradients add up; the division makes their sum a mean.
                    micro_loss = micro_loss / config.grad_accum
                self.scaler.scale(micro_loss).backward()
            loss = loss + micro_loss.detach()
            self.windows_seen += self.micro_batch
        return loss

    def sync_metrics(self):
        """Fetches the losses and gradient norms of the last steps, as means over the processes.

        Raises: FloatingPointError for the first step whose loss or gradient is not a finite number.
        """
        if self.on_device:
            # One tensor for all steps: stacked on the device, fetched at once.
            fetched = self.strategy.all_reduce_mean(torch.stack(self.on_device)).tolist()
            self.on_device = []
            first_step = self.step - len(fetched) + 1
            for step, (loss, norm) in enumerate(fetched, first_step):
                # With fp16 the scaler leaves out a step whose gradients are infinite, and goes on.
                gradient_is_fine = isfinite(norm) or self.scaler.is_enabled()
                if not (isfinite(loss) and gradient_is_fine):
                    raise FloatingPointError(self.describe_failure(step, loss, norm))
            self.metrics += fetched
        self.fetched_at = self.seconds

    def describe_failure(self, step, loss, norm):
        """The error message for a step whose loss or gradient is not a finite number."""
        if self.config.out is None:
            saved = "no checkpoint was saved (out is None)"
        else:
            saved = f"checkpoints in {self.config.out} were saved before this step"
        return (
            f"step {step}: the loss is {loss}, the norm of the gradient {norm}; {saved}. "
            f"The learning rate is {self.lr:.2g}: try a tenth of it, or a longer warmup"
        )

    def evaluate(self):
        """The validation loss in nats per id, exact or estimated; None where there is no validation text."""
        if self.val_ids is None:
            return None
        config = self.config
        with self.autocast:
            if config.eval_batches == 0:
                loss = self.strategy.evaluate(self.model, self.val_ids)
            else:
                # The same windows every time: then two estimates can be compared.
                generator = torch.Generator().manual_seed(config.seed)
                loss = estimate_loss(
                    self.model, self.val_ids, config.eval_batches, self.micro_batch, generator
                )
        # evaluate has switched dropout off.
        self.model.train()
        return loss

    def tokens_per_second(self):
        """Ids read per second of training, since the last row of the log."""
        windows, seconds = self.row_start
        # Some clocks are coarse, and the difference may be 0.
        elapsed = max(self.seconds - seconds, 1e-9)
        return (self.windows_seen - windows) / elapsed * self.model.block_size

    def log(self, val_loss):
        """Writes a row: into self.rows, log.jsonl and TensorBoard."""
        row = {
            "step": self.step,
            "train_loss": fmean(loss for loss, norm in self.metrics),
            "val_loss": val_loss,
            "lr": self.lr,
            "grad_norm": median(norm for loss, norm in self.metrics),
            "tokens_per_second": self.tokens_per_second(),
            "seconds": self.seconds,
        }
        if self.data_since > 0:
            row["data_since"] = self.data_since
        self.metrics = []
        self.rows.append(row)
        if self.config.out is not None:
            self.strategy.on_rank_zero(lambda: write_log(self.config.out, [row], mode="a"))
        if self.writer is not None:
            for name, value in row.items():
                if value is not None:
                    self.writer.add_scalar(name, value, self.step)
            # The row must be on the disk now, because the run may crash.
            self.writer.flush()

    def update_best(self, val_loss):
        """Keeps the weights if the validation loss is the lowest so far; otherwise counts the evaluation."""
        # Not `>=`: a validation loss that is nan is no new best.
        if val_loss is None or (self.best_loss is not None and not val_loss < self.best_loss):
            self.evals_since_best += 1
            return
        self.best_loss = val_loss
        self.best_step = self.step
        self.evals_since_best = 0
        if self.config.out is not None:
            self.save(best=True)
        else:
            # Clones, because the optimizer changes the weights in place.
            weights = self.model.state_dict()
            self.best_weights = {name: weight.clone() for name, weight in weights.items()}

    def open(self, resume, corpus_changed):
        """Starts or resumes the run, and opens its log."""
        if resume:
            self.resume(corpus_changed)
        else:
            self.start()
        out = self.config.out
        if out is not None:
            # If saving fails, it fails here, before time is spent.
            self.save()
            # A killed run may have logged steps that this run will repeat.
            self.strategy.on_rank_zero(lambda: write_log(out, self.rows))
        if self.writer_class is not None and self.strategy.rank == 0:
            self.writer = self.writer_class(out, purge_step=self.step + 1)

    def start(self):
        """Prepares a new run. Raises: FileExistsError where its folder is not empty."""
        out = self.config.out
        if out is not None and self.strategy.on_rank_zero(lambda: is_in_use(out)):
            if Path(out, POINTER_FILE).exists():
                way_out = "pass resume=True to continue its run, or choose another folder"
            else:
                way_out = "choose another folder"
            raise FileExistsError(f"{out} is not empty: {way_out}")
        # Each process draws its own numbers for dropout.
        torch.manual_seed(self.config.seed + self.strategy.rank)

    def resume(self, corpus_changed):
        """Goes back to the last checkpoint of the run in config.out.

        Raises: ValueError where that run is another one or had another text; FileNotFoundError where there is none.
        """
        out = self.config.out
        if out is None:
            raise ValueError(
                "resume=True needs TrainConfig(out=...), the folder of the run to continue"
            )
        if corpus_changed not in ("refuse", "accept"):
            raise ValueError(f"corpus_changed is {corpus_changed!r}; it is 'refuse' or 'accept'")
        change = self.strategy.on_rank_zero(lambda: describe_data_change(out, self.data))
        if change is not None and corpus_changed == "refuse":
            raise ValueError(
                f"the text is not the one that the run in {out} was trained on: {change}. Restore it, begin a new run "
                f"in another folder, or go on with the new text by corpus_changed='accept'"
            )
        state = self.strategy.load_model(out, self.model, self.tokenizer)
        # Each process has its own random state, for dropout.
        random = [state["random"], *state.get("others", [])]
        if len(random) != self.strategy.world_size:
            raise ValueError(
                f"{out} was saved by a run of {len(random)} process(es), but this one has "
                f"{self.strategy.world_size}: start {len(random)} (torchrun --nproc-per-node "
                f"{len(random)}), or begin a new run in another folder"
            )
        # The states of two optimizers differ. (Older checkpoints do not name their optimizer.)
        optimizer = state["config"].get("optimizer", "adamw")
        if optimizer != self.config.optimizer:
            raise ValueError(
                f"{out} was saved by a run with optimizer={optimizer!r}, but this one has "
                f"{self.config.optimizer!r}: take the same, or begin a new run in another folder"
            )
        self.strategy.load_optimizer(self.model, self.optimizer, state["optimizer"])
        # A scaler that is not enabled has an empty state.
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.windows_seen = state["seen"]
        self.seconds = state["seconds"]
        self.best_loss = state["best"]
        self.best_step = state["best_step"]
        self.evals_since_best = state["waited"]
        self.metrics = state["pending"]
        self.data_since = state.get("data_since", 0)
        self.saved_step = self.step
        # A run that was killed right after its first checkpoint has no log yet.
        log = Path(out, "log.jsonl")
        rows = self.strategy.on_rank_zero(lambda: read_log(log) if log.exists() else [])
        self.rows = [row for row in rows if row["step"] <= self.step]
        # Last, because nothing may draw a random number between this and the next step.
        set_rng_states(random[self.strategy.rank])
        if change is not None:
            self.accept_data()

    def accept_data(self):
        """Begins to validate anew: losses on another text cannot be compared with those measured before."""
        self.data_since = self.step
        self.best_loss = None
        self.best_step = None
        self.evals_since_best = 0
        self.saved_step = None
        # The present weights are the best so far; their checkpoint has the fingerprint of the new text.
        if self.val_ids is not None:
            self.update_best(self.evaluate())

    def save(self, best=False):
        """Writes a checkpoint, from which the run can resume as if nothing had happened."""
        # An evaluation may just have saved this step as the best.
        if self.step == self.saved_step:
            return
        model, optimizer = self.strategy.full_state(self.model, self.optimizer)
        random, *others = self.strategy.all_gather(get_rng_states())
        # These keys are older than the attributes' names. They stay, so that older checkpoints can be read.
        state = {
            "optimizer": optimizer,
            "scaler": self.scaler.state_dict(),
            "random": random,
            "others": others,
            "config": asdict(self.config),
            "step": self.step,
            "seen": self.windows_seen,
            "seconds": self.seconds,
            "best": self.best_loss,
            "best_step": self.best_step,
            "waited": self.evals_since_best,
            "pending": self.metrics,
            "data": self.fingerprint,
            "data_since": self.data_since,
        }
        self.strategy.on_rank_zero(
            lambda: save_checkpoint(self.config.out, model, self.tokenizer, state, self.step, best)
        )
        self.saved_step = self.step

    def train(self, resume=False, corpus_changed="refuse"):
        """Trains until a limit is reached or Ctrl-C is pressed; the model is left with its best weights.

        -> the dict that the function `train` returns
        """
        config = self.config
        self.open(resume, corpus_changed)
        with self.checkpointing_context(), catch_sigint() as interrupts, self.progress_bar() as bar:
            self.prepare_model()
            # A resumed run goes on counting where it stopped; compiling does not count.
            started = time.perf_counter() - self.seconds
            self.row_start = (self.windows_seen, self.seconds)
            reason = self.stop_reason()
            if reason is not None and self.strategy.rank == 0:
                print(f"nothing is left to train: {reason} was reached at step {self.step}")
            while reason is None:
                # The learning rate of this step.
                self.lr = get_lr(self.step, config, self.budget_used())
                for group in self.optimizer.param_groups:
                    group["lr"] = self.lr

                # The gradients, without the factor of the loss scaling; then clipped; then the step.
                loss = self.forward_backward()
                self.scaler.unscale_(self.optimizer)
                max_norm = config.grad_clip if config.grad_clip > 0 else inf
                norm = self.strategy.clip_grad_norm(self.parameters, max_norm)
                self.scaler.step(self.optimizer)
                self.scaler.update()
                self.optimizer.zero_grad()
                self.step += 1
                self.on_device.append(torch.stack([loss.float(), norm.float()]))

                # An interrupt in any process is one for all; the slowest clock counts.
                self.seconds, interrupted = self.strategy.all_reduce_max(
                    time.perf_counter() - started, bool(interrupts)
                )

                # Log, evaluate, save. The last step is evaluated, too.
                is_last = self.stop_reason() is not None
                evaluate_now = is_last or self.step % config.eval_interval == 0
                save_now = config.out is not None and self.step % config.checkpoint_interval == 0
                fetch_now = self.seconds - self.fetched_at >= FETCH_SECONDS
                if evaluate_now or save_now or fetch_now:
                    self.sync_metrics()
                    bar.update(self.step - bar.n)
                    bar.set_postfix(self.progress(), refresh=False)
                if evaluate_now:
                    val_loss = self.evaluate()
                    self.log(val_loss)
                    self.update_best(val_loss)
                    # The speed in the next row is that of training, without this evaluation.
                    self.row_start = (self.windows_seen, time.perf_counter() - started)
                if save_now:
                    self.save()
                reason = "interrupted" if interrupted else self.stop_reason()
            self.sync_metrics()
        return self.close(reason)

    def stop_reason(self):
        """The name of the limit that the run has reached, or None."""
        config = self.config
        if config.steps is not None and self.step >= config.steps:
            return "steps"
        if config.time_budget is not None and self.seconds >= config.time_budget:
            return "time_budget"
        if config.patience is not None and self.evals_since_best >= config.patience:
            return "patience"
        return None

    def budget_used(self):
        """The share of the time budget that is used up; 0 without a budget."""
        if self.config.time_budget is None:
            return 0.0
        return self.seconds / self.config.time_budget

    def checkpointing_context(self):
        """The context in which the steps run."""
        if self.config.gradient_checkpointing:
            return gradient_checkpointing(self.model)
        return nullcontext()

    def prepare_model(self):
        """Sets the model to training, compiles it if the config says so, and wraps it for several processes."""
        self.model.train()
        self.forward_model = self.model
        if self.config.compile:
            # The trial step of compile_model needs a batch of the right size.
            x, _ = self.windows.batch(0, self.config.batch_size)
            with self.autocast:
                self.forward_model = compile_model(self.model, x.to(self.device))
        self.compiled = self.forward_model is not self.model
        self.forward_model = self.strategy.wrap(self.forward_model)

    def progress_bar(self):
        """A bar that counts steps, in process 0 only; on standard output, where notebooks show it in order."""
        return tqdm(
            total=self.config.steps,
            initial=self.step,
            unit="step",
            mininterval=0.5,
            file=sys.stdout,
            disable=self.strategy.rank > 0,
        )

    def progress(self):
        """The numbers that the bar shows beside the time that is left."""
        last_loss, _ = self.metrics[-1]
        shown = {
            "loss": f"{last_loss:.3f}",
            "lr": f"{self.lr:.1e}",
            "tok/s": f"{self.tokens_per_second():,.0f}",
        }
        if self.config.time_budget is not None:
            shown["left"] = f"{self.config.time_budget - self.seconds:.0f} s"
        return shown

    def close(self, reason):
        """Saves the last checkpoint, then loads the best weights -> the dict that the function `train` returns."""
        out = self.config.out
        if out is not None:
            self.save()
        if reason == "interrupted" and self.strategy.rank == 0:
            saved = "not saved (out is None)"
            if out is not None:
                saved = f"saved in {out}; a resumed run goes on from there"
            print(f"interrupted after step {self.step}: {saved}")
        if self.best_step is not None and self.best_step != self.step:
            if out is not None:
                self.strategy.load_model(out, self.model, self.tokenizer, "best")
            else:
                self.model.load_state_dict(self.best_weights)
        self.model.eval()
        result = {
            "best_val_loss": self.best_loss,
            "best_step": self.best_step,
            "steps": self.step,
            "stop_reason": reason,
            "seconds": self.seconds,
            "floor": self.floor,
            "precision": self.precision,
            "compiled": self.compiled,
            "log": self.rows,
        }
        # The clocks of several processes differ, and with them the rows.
        return self.strategy.on_rank_zero(lambda: result)


def read_log(path):
    """The rows of a log.jsonl, or of the log in a folder, without a last line that a crash cut short."""
    path = Path(path)
    if path.is_dir():
        path = path / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    # Each row is an object, and a whole one ends with its brace.
    return [json.loads(line) for line in lines if line.endswith("}")]


def write_log(out, rows, mode="w"):
    """Writes rows into out/log.jsonl; mode "a" appends them."""
    with Path(out, "log.jsonl").open(mode, encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def _import_summary_writer():
    """TensorBoard's class that writes a log. Raises: ImportError where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError("tensorboard=True needs TensorBoard: pip install tensorboard") from None
    return SummaryWriter


PIECES = 64  # of a text, each with a hash of its own


def _hash_pieces(text, size):
    """A hash of each piece of the first `size` characters of a text, or ids of a tensor."""
    hashes = []
    for i in range(PIECES):
        piece = text[size * i // PIECES : size * (i + 1) // PIECES]
        if isinstance(piece, str):
            content = piece.encode("utf-8", "surrogatepass")
        else:
            content = piece.numpy(force=True).tobytes()
        hashes.append(hashlib.sha256(content).hexdigest()[:16])
    return hashes


def _whole_text(corpus_or_ids):
    """Training and validation text in one, a str or ids (N,); None where the data are neither a Corpus nor ids."""
    if isinstance(corpus_or_ids, Corpus):
        return corpus_or_ids.train + corpus_or_ids.val
    if isinstance(corpus_or_ids, torch.Tensor):
        return corpus_or_ids
    return None


def fingerprint_data(corpus_or_ids):
    """Plain values that identify the data: {"size", "train_size", "hashes"}.

    For data that are neither a Corpus nor ids: their own attribute `fingerprint`, or None.
    """
    text = _whole_text(corpus_or_ids)
    if text is None:
        return getattr(corpus_or_ids, "fingerprint", None)
    train = getattr(corpus_or_ids, "train", text)
    return {
        "size": len(text),
        "train_size": len(train),
        "hashes": _hash_pieces(text, len(text)),
    }


def describe_data_change(out, corpus_or_ids):
    """The difference between the data and those of the last checkpoint in `out`, as a clause of a sentence.

    None for the same data, or where one of the two has no fingerprint.

    Raises: FileNotFoundError where there is no checkpoint, ValueError where it is damaged.
    """
    before = read_state(find_checkpoint(out, "last"), mmap=True).get("data")
    now = fingerprint_data(corpus_or_ids)
    if before is None or now is None or now == before:
        return None
    text = _whole_text(corpus_or_ids)
    if text is None or len(before["hashes"]) != PIECES:
        return "it is another one"
    # The pieces cut as they were before, up to the first that is not the same.
    size = before["size"]
    pairs = zip(_hash_pieces(text, size), before["hashes"])
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    unit = "character" if isinstance(text, str) else "id"
    if same < PIECES:
        length = "as before" if len(text) == size else f"not {size:,}"
        place = "the beginning"
        if same > 0:
            place = f"about {unit} {size * same // PIECES:,}"
        return f"it has {len(text):,} {unit}s, {length}, and differs from {place} on"
    if len(text) > size:
        return (
            f"{len(text) - size:,} {unit}s were added at its end, so that another part of it is for "
            f"validation"
        )
    return (
        f"its validation part begins after {now['train_size']:,} {unit}s, not after "
        f"{before['train_size']:,}"
    )


def is_in_use(out):
    """Whether a folder holds anything besides settings and the remains of a run that was killed at its first save."""
    # Settings are written before the run begins. A first save that was killed left no pointer.
    ignored = re.compile(
        rf"{CHECKPOINT_NAME}(\.part)?|{POINTER_FILE}\.part|settings\.toml(\.part)?"
    )
    out = Path(out)
    return out.is_dir() and not all(ignored.fullmatch(path.name) for path in out.iterdir())


def train(model, corpus_or_ids, config, tokenizer=None, resume=False, corpus_changed="refuse"):
    """Trains the model on a Corpus, or on ids (N,) without a validation text.

    Afterwards the model has its best weights and is in evaluation mode. -> {"best_val_loss": the lowest validation
    loss, "best_step": its step, "steps": the number of steps, "stop_reason", "seconds", "floor", "precision",
    "compiled", "log": rows}. resume: continues from the last checkpoint in config.out. corpus_changed: "accept"
    continues on a changed text, too, and the search for the best loss starts anew. Ctrl-C saves and returns.

    Raises: FloatingPointError where a loss or gradient is not a finite number; ValueError, FileExistsError or
    FileNotFoundError, before the first step, where data, model and folder do not go together.
    """
    return Trainer(model, corpus_or_ids, config, tokenizer).train(resume, corpus_changed)


def plot_run(log, floor=None):
    """Losses, learning rate and gradient norm of a run, from its rows or its folder -> matplotlib figure.

    floor: the entropy of the corpus, in the unit of the losses, nats per id.
    """
    from matplotlib.pyplot import subplots

    rows = log if isinstance(log, list) else read_log(log)
    fig, axes = subplots(1, 3, figsize=(10, 2.8), layout="constrained", width_ratios=(2, 1, 1))

    def draw(ax, name, colour):
        label = name
        # Where a changed text was accepted, another curve begins.
        for _, stretch in groupby(rows, key=lambda row: row.get("data_since", 0)):
            points = [(row["step"], row[name]) for row in stretch]
            steps = [step for step, value in points]
            # matplotlib leaves a gap where a value is nan.
            values = [nan if value is None else value for step, value in points]
            ax.plot(steps, values, "o-", markersize=3, color=colour, label=label)
            label = None

    draw(axes[0], "train_loss", "#56B4E9")
    draw(axes[0], "val_loss", "#0072B2")
    draw(axes[1], "lr", "#56B4E9")
    draw(axes[2], "grad_norm", "#56B4E9")
    for ax, title in zip(axes, ("loss", "learning rate", "norm of the gradient")):
        ax.set(xlabel="step", title=title, ylim=(0, None))
    if floor is not None:
        axes[0].axhline(floor, color="#D55E00", linestyle="--", label="the floor")
    axes[0].set_ylabel("nats per id")
    axes[0].legend(frameon=False)
    return fig
