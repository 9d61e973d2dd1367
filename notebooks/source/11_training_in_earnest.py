# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 11 · Training in earnest: the loop, and the clinic
#
# > The trainer: the loop that evaluates, logs, saves and resumes.
#
# You will build: a `Trainer`, the loop for real runs. It logs, keeps its best weights, stops cleanly, and resumes as if it had never stopped. Then a clinic: is my loss normal? And if not, what is broken?
# You need lesson 09 and [lesson 10](10_recipe.ipynb). On two CPU cores the page takes about a minute. Its models are small and stay on the CPU, where two equal runs agree in every bit; your own models train where you put them: `train(model.to(device), …)`.

# %%
import math
import signal
import tempfile
from itertools import count
from pathlib import Path
from unittest import mock

# %%
import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from chargpt_lib.data import CharTokenizer, get_batch, load_corpus
from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.files import bundled_dir
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.plots import show
from chargpt_lib.recipe import ShuffledWindows, TrainConfig
from chargpt_lib.training import evaluate

# %% [markdown]
# The corpus is lesson 00's. For short runs a short validation text will do. `new_model` makes a small GPT, with the same first weights at each call.

# %%
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus = load_corpus(CORPUS)
tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
corpus = corpus._replace(val=corpus.val[:8000], val_spans=())
train_ids, val_ids, V = (
    tokenizer.encode(corpus.train),
    tokenizer.encode(corpus.val),
    tokenizer.vocab_size,
)


def new_model(kind=GPT, **changes):
    torch.manual_seed(1337)
    return kind(
        GPTConfig(V, **{"block_size": 32, "n_layer": 2, "n_head": 4, "n_embd": 64, **changes})
    )

# %% [markdown]
# ## One step
#
# A training step is still lesson 02's five lines: a batch, the loss, `zero_grad`, `backward`, the step. Between them stand the parts of lesson 10: the learning rate of this step, several micro-batches for one step, mixed precision with its loss scaling, the clipped gradient.
#
# One thing is new, and it is easy to overlook. A graphics card works through a queue of orders; Python writes the orders, and runs ahead of the card. `loss.item()` would make Python wait until the card has computed the loss, and then the card would wait for Python's next order, at every step. So the loss and the norm of the gradient stay on the device, as tensors, and are fetched twice a second.

# %%
#| export
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

# %% [markdown]
# In lesson 13 several processes share one run. A few things are then done differently. These stand together in one class, the **strategy**, so that the loop is written only once. With a single process each of them is trivial:

# %%
#| export
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

# %% [markdown]
# Now the class. First, what a training run consists of:

# %%
#| export
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

# %% [markdown]
# Then the first half of a step, up to the gradients. (The class goes on from cell to cell: `class Trainer(Trainer)` adds methods to the one above. In `chargpt_lib/trainer.py` it is one class.)

# %%
#| export
class Trainer(Trainer):  # continued
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

# %% [markdown]
# `forward_backward` divides the loss of each micro-batch by the number of micro-batches. Is that right? Here it is, because all windows have the same number of characters. Other data come in unequal lengths.
#
# ### Exercise: a mean of means
# ★★ · 7 minutes · The library `transformers` did this until October 2024. Losses fell all the same; it showed only when runs with and without parts were compared ([*Fixing Gradient Accumulation*](https://huggingface.co/blog/gradient_accumulation)).
#
# Texts of different lengths fit into one batch if the short ones are padded. A position with nothing to predict gets the target −100, and `F.cross_entropy` leaves it out of its mean. Now take one text of four characters, first whole, then in two parts of three and one:

# %%
def loss_in_parts(logits, targets):
    loss = 0.0
    for part, wanted in zip(logits, targets):
        loss = loss + F.cross_entropy(part.flatten(0, 1), wanted.flatten()) / len(targets)
    return loss


logits = torch.tensor([[[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 0.0]]])
filled = torch.tensor([[0, -100, -100]])  # one character, and two places of padding
parts = loss_in_parts(
    [logits[:, :3], logits[:, [3, 3, 3]]], [torch.zeros(1, 3, dtype=torch.int64), filled]
)
print(
    f"whole: {loss_in_parts([logits], [torch.zeros(1, 4, dtype=torch.int64)]):.2f}   in parts: {parts:.2f}"
)

# %% [markdown]
# The four predictions are the same, but the loss is not: the character that is alone in its part weighs as much as the other three together. Repair the function: the loss must be the mean over all characters of all parts. A part may have no character at all; at least one part has some.

# %% tags=["exercise"] exercise="accumulated_loss"
def accumulated_loss(logits, targets):
    """logits: a list of floats (B, T, V), targets: a list of int64 (B, T) -> (), in the dtype of the logits."""
    ### BEGIN SOLUTION
    total = sum(
        F.cross_entropy(part.flatten(0, 1), wanted.flatten(), reduction="sum")
        for part, wanted in zip(logits, targets)
    )
    return total / sum((wanted != -100).sum() for wanted in targets)
    ### END SOLUTION

# %%
check("accumulated_loss", accumulated_loss)

# %% [markdown]
# ## Measuring
#
# `sync_metrics` fetches the numbers from the device. It also looks for a `nan`, and raises an error that names the step. The loop calls it before anything is saved, so a run that has gone wrong does not save itself over a good one. (With float16 an infinite gradient is not an error: the scaler has left that step out.)

# %%
#| export
class Trainer(Trainer):  # continued
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

# %% [markdown]
# The validation loss decides two things: which weights are the best, and whether the run is worth continuing.
#
# ### Exercise: patience
# ★ · 5 minutes · A validation loss goes up and down while it falls. If you stop at its first rise, you stop too early ([Prechelt 1998](https://doi.org/10.1007/3-540-49430-8_3), *Early Stopping – But When?*), and the weights of the last step are not the best ones.
#
# `losses[i]` is the validation loss that evaluation number i + 1 finds, if the run gets that far. A loss below all earlier ones is a new best; an equal one is not. The run ends after `patience` evaluations in a row without a new best, or else at the end of the list. How many evaluations are made, and which of them found the best loss? Both count from 1.
#
# With `patience` 2, `[3.0, 2.6, 2.7, 2.5, 2.5, 2.6, 2.1]` gives `[6, 4]`: the third evaluation brings no new best, the fourth does, the fifth and the sixth do not. Nobody ever sees the 2.1.

# %% tags=["exercise"] exercise="early_stopping"
def early_stopping(losses, patience):
    """losses: at least one float, patience: int from 1 on -> [evaluations made, number of the best of them]: ints."""
    ### BEGIN SOLUTION
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        elif i - best >= patience:
            break
    return [i + 1, best + 1]
    ### END SOLUTION

# %%
check("early_stopping", early_stopping)

# %% [markdown]
# Every `eval_interval` steps the log gets a row: the mean of the training losses since the last row, the validation loss, the learning rate, the norm of the gradient (the median, so that one strange batch does not hide the others), the speed. Each row is one line of JSON in `out/log.jsonl`. So a crash costs at most one line, and any program can read the file. The trainer also keeps the best weights so far.

# %%
#| export
class Trainer(Trainer):  # continued
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

# %%
#| export
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

# %% [markdown]
# ## Saving and resuming
#
# Whatever can be checked in advance is checked before the first step: the text and the model, the folder, the checkpoint. A new run does not touch a folder that is not empty. The untrained model is saved at once: if saving fails, it should fail now, and not after a night.
#
# A checkpoint does not hold the text, but it should know which text the run had. So it keeps a **fingerprint**: the length of the text, and a hash of each of 64 pieces. When a run resumes, the hashes are compared. The first one that differs shows roughly where the text was changed.

# %%
#| export
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

# %%
#| export
def is_in_use(out):
    """Whether a folder holds anything besides settings and the remains of a run that was killed at its first save."""
    # Settings are written before the run begins. A first save that was killed left no pointer.
    ignored = re.compile(
        rf"{CHECKPOINT_NAME}(\.part)?|{POINTER_FILE}\.part|settings\.toml(\.part)?"
    )
    out = Path(out)
    return out.is_dir() and not all(ignored.fullmatch(path.name) for path in out.iterdir())

# %%
#| export
class Trainer(Trainer):  # continued
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

# %% [markdown]
# ## The loop
#
# Now that all parts have names, the loop itself fits on a screen. Read it from top to bottom.

# %%
#| export
class Trainer(Trainer):  # continued
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

# %% [markdown]
# The other methods that the loop calls say when to stop, what the progress bar shows, and what happens at the end.

# %%
#| export
class Trainer(Trainer):  # continued
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

# %%
#| export
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

# %%
#| export
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

# %% [markdown]
# ## A run

# %% tags=["nbval-ignore-output"]
folder = Path(tempfile.mkdtemp())
config = TrainConfig(
    steps=300, learning_rate=5e-3, schedule="wsd", eval_interval=25, out=str(folder / "first")
)
model = new_model()
first = train(model, corpus, config)
print(
    f"best loss {first['best_val_loss']:.3f} at step {first['best_step']}, ended by {first['stop_reason']}"
)

# %%
now = evaluate(model, val_ids)
far = abs(now - first["best_val_loss"])
print(
    f"best evaluation ≈ {first['best_val_loss']:.3f}, the model now ≈ {now:.3f} nats per character"
)
print(f"difference ≈ {far:.0e}: the model has its best weights")
above = first["best_val_loss"] - (corpus.val_entropy or 0)
assert first["best_val_loss"] < 1.5 or corpus.name != "playhouse"
assert above > 0.3 or corpus.name != "playhouse"
assert far < 1e-6
assert first["stop_reason"] == "steps"

# %%
show(
    plot_run(folder / "first", corpus.val_entropy),
    "Three charts. Training and validation loss fall together and are still far from the floor at the end. The "
    "learning rate stays at its peak and falls at the end. The third chart is the gradient's norm before clipping.",
)

# %% [markdown]
# (The chart on the right shows the norm of the gradient before clipping, as a median. Where it is above `grad_clip`, most gradients were clipped.)

# %% tags=["nbval-ignore-output"]
print(*sorted(path.name for path in (folder / "first").iterdir()), sep="\n")
print((folder / "first" / "log.jsonl").read_text().splitlines()[-1])

# %%
rows = read_log(folder / "first")
lead = sum(row["train_loss"] - row["val_loss"] for row in rows) / len(rows)
print(
    f"{len(rows)} rows; the training loss is ≈ {lead:.2f} nats above the validation loss on average"
)
assert [row["step"] for row in rows] == list(range(25, 301, 25))
assert lead > 0.05 or corpus.name != "playhouse"

# %% [markdown]
# During a run the bar shows the loss of the last step, the learning rate, the speed and the time that is left. The training loss of a row is the mean over the last 25 steps. The validation loss is measured at their end. So while the loss falls, the validation loss is usually the lower of the two, and that is no mistake.
#
# (`tensorboard=True` writes the same rows for [TensorBoard](https://www.tensorflow.org/tensorboard), if that is installed: `tensorboard --logdir` with the folder that holds your runs.)
#
# ## A time budget
#
# The machine is yours for three seconds. Nobody knows in advance how many steps that makes, but the schedule comes to its end all the same.

# %% tags=["nbval-ignore-output"]
hurried = train(
    new_model(), train_ids, TrainConfig(time_budget=3, learning_rate=5e-3, eval_interval=10)
)
print(f"{hurried['steps']} steps in {hurried['seconds']:.2f} s")

# %%
rates = [row["lr"] for row in hurried["log"]]
end = rates[-1] / 5e-3  # as a share of the peak
print("ended by:", hurried["stop_reason"])
print(f"the last rate is ≈ {end:.1%} of the peak")
assert hurried["stop_reason"] == "time_budget"
assert end < 0.2

# %% [markdown]
# ## Interrupting and resuming
#
# Two runs of 60 steps: the second is interrupted in the middle of step 25 (a hook presses Ctrl-C for us), and resumes with a new model, as after a restart of the computer. There is dropout, so the random state matters too. **Predict:** will the last losses differ? If so, from which digit on?

# %%
def settings(name):
    return TrainConfig(
        steps=60, batch_size=8, eval_interval=10, eval_batches=5, out=str(folder / name)
    )


def press_at(model, step):
    """Presses Ctrl-C in the forward pass of a step; steps count from 1."""
    steps = count(1)

    def hook(module, inputs):
        if module.training and next(steps) == step:
            signal.raise_signal(signal.SIGINT)

    model.register_forward_pre_hook(hook)

# %% tags=["nbval-ignore-output"]
whole = new_model(dropout=0.1)
uninterrupted = train(whole, corpus, settings("whole"))
stopped = new_model(dropout=0.1)
press_at(stopped, 25)
part = train(stopped, corpus, settings("parts"))
again = new_model(dropout=0.1)
rest = train(again, corpus, settings("parts"), resume=True)

# %%
print("stopped by:", part["stop_reason"], "after step", part["steps"])
other = sum((a != b).sum().item() for a, b in zip(whole.parameters(), again.parameters()))
losses = [[row["val_loss"] for row in run["log"]] for run in (uninterrupted, rest)]
print(f"weights that differ in any bit: {other} of {whole.num_params():,}")
print("validation losses that differ:", sum(a != b for a, b in zip(*losses)), "of", len(losses[0]))
assert other == 0 and losses[0] == losses[1]

# %% [markdown]
# They do not differ in any digit. (That is so on the CPU. A graphics card adds up some sums in whatever order their parts are ready.)
#
# A resumed run needs the same text. Suppose that somebody has edited the file in the meantime and moved its second half to the front. The letters are the same, so the tokenizer fits, and no error would appear. But the model was trained on what is now the validation text, so its loss would look better than it is. The fingerprint in the checkpoint notices:

# %%
text = corpus.train + corpus.val
half = len(text) // 2
exchanged = text[half:] + text[:half]
cut = len(corpus.train)
edited = corpus._replace(train=exchanged[:cut], val=exchanged[cut:])
try:
    train(new_model(dropout=0.1), edited, settings("parts"), resume=True)
except ValueError as error:
    print(str(error).replace(str(folder), "").split(". ")[0])

# %% [markdown]
# If you changed the text on purpose (a diary grows), pass `corpus_changed="accept"`: the run goes on, and the search for the best validation loss starts anew.
#
# ## `nan`
#
# Let us set the last norm's weights to `nan` in step 12, and see what is left of the run.

# %% tags=["nbval-ignore-output"]
broken, steps = new_model(), count(1)


def spoil(module, inputs):
    if module.training and next(steps) == 12:
        module.norm.weight.data.fill_(float("nan"))


broken.register_forward_pre_hook(spoil)
config = TrainConfig(
    steps=60, batch_size=8, checkpoint_interval=5, eval_interval=50, out=str(folder / "broken")
)
try:
    train(broken, corpus, config)
except FloatingPointError as error:
    message = str(error)

# %%
print(message.split(";")[0])
print(
    "checkpoints in the folder:", *sorted(path.name for path in (folder / "broken").glob("step-*"))
)
assert message.startswith("step 12: the loss is nan")

# %% [markdown]
# Ten good steps are saved, and `resume=True` with a smaller learning rate goes on from there. When a run of yours ends with a `nan`, look at the log first: usually the norm of the gradient had been growing for a while.
#
# ## Ablating warmup, clipping and decay
#
# What are warmup, clipping and the decay at the end good for? Ask the model. The runs of a chart differ in one setting. Clipping needs something to clip, so at step 60 the loss of one batch is multiplied by a thousand. (The two runs already differ before that, because the first gradients are long, too.) Each point of a curve is the mean of ten losses, and the point at step 60 includes the thousandfold loss itself. So *both* lines leave the chart there, with clipping and without. Look at what is left of the jump at step 70 and later.

# %%
def with_a_strange_batch():
    """A model whose loss is multiplied by a thousand in step 60."""
    model, steps = new_model(), count(1)

    def hook(module, inputs, out):
        return (out[0], 1000 * out[1]) if module.training and next(steps) == 60 else out

    model.register_forward_hook(hook)
    return model

# %%
pairs = {
    "warmup": {
        "with": {"learning_rate": 1e-2, "warmup": 0.1},
        "without": {"learning_rate": 1e-2, "warmup": 0.0},
    },
    "clipping": {"with": {}, "without": {"grad_clip": 0.0}},
    "schedule": {
        "cosine": {"steps": 300},
        "wsd": {"steps": 300, "schedule": "wsd"},
        "constant": {"steps": 300, "schedule": "wsd", "decay": 0.0},
    },
}

# %% tags=["nbval-ignore-output"]
curves, ends = {}, {}
usual = {"steps": 150, "batch_size": 16, "learning_rate": 5e-3, "eval_interval": 10}
for pair, variants in pairs.items():
    for name, changes in variants.items():
        trial = with_a_strange_batch() if pair == "clipping" else new_model()
        curves[pair, name] = train(trial, train_ids, TrainConfig(**{**usual, **changes}))["log"]
        ends[pair, name] = evaluate(trial, val_ids)

# %%
fig, axes = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained", sharey=True)
for ax, (pair, variants) in zip(axes, pairs.items()):
    for name, colour, style in zip(variants, ("#0072B2", "#D55E00", "#009E73"), ("-", "--", ":")):
        rows = curves[pair, name]
        label = f"{name}: {ends[pair, name]:.2f}"
        ax.plot(
            [row["step"] for row in rows],
            [row["train_loss"] for row in rows],
            style,
            color=colour,
            label=label,
        )
    ax.set(xlabel="step", title=pair, ylim=(1, 4))
    ax.legend(frameon=False, fontsize=8, title="exact validation loss at the end")
axes[1].axvline(60, color="#999999", linewidth=1, linestyle=":")
axes[1].text(75, 3.8, "dotted: the strange batch", color="#777777", fontsize=8)
axes[0].set_ylabel("training loss, nats per character")
show(
    fig,
    "Three charts of the training loss. Warmup: the line without it stays far higher. Clipping: both lines leave the "
    "chart at step 60, because this point includes the thousandfold loss; from step 70 on the line with clipping "
    "is back where it was, and the line without it stays far above. Schedule: three lines lie close together; at "
    "the end wsd is the lowest.",
)

# %%
gain = {pair: ends[pair, "without"] - ends[pair, "with"] for pair in ("warmup", "clipping")}
gain |= {name: ends["schedule", name] - ends["schedule", "wsd"] for name in ("constant", "cosine")}
for what, name in (
    ("warmup", "warmup"),
    ("clipping", "clipping"),
    ("wsd instead of constant", "constant"),
    ("wsd instead of a cosine", "cosine"),
):
    print(f"{what} lowers the loss by ≈ {gain[name]:.2f} nats per character")
for name in ("with", "without"):
    at_50, _, at_70 = [row["train_loss"] for row in curves["clipping", name][4:7]]
    print(f"{name} clipping: training loss ≈ {at_50:.2f} at step 50, ≈ {at_70:.2f} at step 70")
left = curves["clipping", "with"][6]["train_loss"] - curves["clipping", "with"][4]["train_loss"]
assert gain["warmup"] > 0.1 or corpus.name != "playhouse"
assert gain["clipping"] > 0.3 or corpus.name != "playhouse"
assert gain["constant"] > 0.03 or corpus.name != "playhouse"
assert gain["cosine"] > 0.05 or corpus.name != "playhouse"
assert left < 0.2 or corpus.name != "playhouse"

# %% [markdown]
# **Warmup.** A learning rate that is fine later is too high for a model that knows nothing. Damage done in the first steps takes long to repair.
#
# **Clipping.** AdamW divides by the root of $v$. The strange gradient has entered $v$, too, so the step itself is no longer than others. But both running means, $m$ and $v$, remember the gradient. $m$ took up 0.1 times a thousand times the usual gradient, and fades by a factor of 0.9 a step: for about forty steps the model goes on in the strange direction. $v$ took up 0.01 times a million times the usual square. So its root is a hundred times what it should be, and shrinks by only a two-hundredth a step. After the walk all steps would be far too small for about $\ln 100 / 0.005 = 900$ steps; this run ends before that.
#
# **The decay.** While the learning rate is high, the noise of the batches keeps the loss up. Where WSD lets the rate go down, the loss drops at once. The cosine, which comes down all the time, does not win here: in so short a run its small rates come too early. That says nothing about longer runs: try them.
#
# None of these is a law. What does warmup save at a third of the learning rate? Try it: change `pairs`.
#
# ## Debugging: is this loss normal?
#
# Now the clinic. A broken training run does not stop. It prints losses that go down, and its model writes worse plays than it could. So how do you know? Two tests belong at the beginning of every new model.
#
# **The loss at init**, before the first step. A model that knows nothing should give each of the $V$ characters a probability of about $1/V$, so its loss should be about $\ln V$.

# %%
x, y = get_batch(train_ids, 32, 64, torch.Generator().manual_seed(1337))
with torch.no_grad():
    at_init = new_model()(x, y)[1].item()
print(f"ln V is {math.log(V):.3f}, the loss at init ≈ {at_init:.3f}")
assert abs(at_init - math.log(V)) < 0.1

# %% [markdown]
# Why are the two not exactly equal?
#
# ### Exercise: born too sure
# ★★ · 8 minutes · The spread of the first weights decides whether a model begins by knowing nothing, or by believing nonsense. What that costs can be computed before anything runs.
#
# At initialisation logits are noise. Take a vector $h$ of C numbers whose squares have the mean 1 (the last norm sees to that), and the last table, V rows of numbers, all drawn independently from a normal distribution with mean 0 and standard deviation `std`. Logit $z_v$ is the dot product of $h$ with row $v$. It is normally distributed, too; what is its standard deviation $s$?
#
# The loss is $\ln \sum_v e^{z_v} - z_y$, where $y$ is the right character. On average $z_y$ is 0. For the sum take its expected value. It is V times the expected value of one $e^z$, which is $e^{s^2/2}$ for a normal $z$ with mean 0. (With many characters, and $s$ no larger than about 1, that is very nearly right.) What is the loss?

# %% tags=["exercise"] exercise="loss_at_init"
def loss_at_init(V, C, std):
    """V, C: ints, std: float, of the table's numbers -> float: the loss at init, in nats per character."""
    ### BEGIN SOLUTION
    return math.log(V) + C * std**2 / 2
    ### END SOLUTION

# %%
check("loss_at_init", loss_at_init)

# %% [markdown]
# Now draw such numbers, with C = 64 and `std` 0.125:

# %%
generator = torch.Generator().manual_seed(1337)
h = F.layer_norm(torch.randn(5000, 64, generator=generator), (64,))
z = h @ (0.125 * torch.randn(1000, 64, generator=generator)).T
drawn = F.cross_entropy(z, torch.randint(1000, (5000,), generator=generator)).item()
s, above = z.std().item(), drawn - math.log(1000)
print(f"s is {s:.2f} (the formula: 1)")
print(f"the loss is above ln V by {above:.2f} (the formula: 0.50)")
assert abs(s - 1) < 0.05
assert abs(above - 0.5) < 0.1

# %% [markdown]
# Our model begins with a `std` of 0.02, and C = 64: the formula says 0.013 above $\ln V$, on average over the weights that may be drawn. (You saw above what one draw gives. Besides, our last table is also the first one, so the vectors and the rows are not quite independent.) `nn.Embedding` itself draws its table with a `std` of 1.

# %% [markdown]
# **Overfit one batch.** Train on the same four windows again and again. A model that has more parameters than these windows have characters must reach a loss close to 0. If it does not, the learning rate and the size are not to blame: the program has a mistake.

# %%
student, losses = new_model(), []
optimizer = make_optimizer(student, TrainConfig(learning_rate=3e-3))
for step in range(200):
    _, loss = student(x[:4], y[:4])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"the loss falls from ≈ {losses[0]:.2f} to ≈ {losses[-1]:.3f} nats per character")
assert losses[-1] < 0.1

# %% [markdown]
# (The loss is not quite 0: where two of the windows begin alike and go on differently, no model can know which one it is reading.)
#
# Now seven patients, each with one fault. The next cells break them, for example in their targets, mask, first weights, evaluation or text. If you like riddles, run these cells without reading them. (`evaluate` gives the model no targets; it compares the logits with the true text on its own. So the validation losses are honest, unless the model cheats.)

# %%
class Echo(GPT):
    def forward(self, idx, targets=None):
        return super().forward(idx, targets if targets is None else idx)


class TooFar(GPT):
    def forward(self, idx, targets=None):
        return (
            super().forward(idx)
            if targets is None
            else super().forward(idx[:, :-1], targets[:, 1:])
        )


attention = F.scaled_dot_product_attention


def all_seeing(q, k, v, is_causal, **settings):
    return attention(q, k, v, is_causal=False, **settings)

# %%
def large(model):
    with torch.no_grad():
        # The spread is then 1, as nn.Embedding makes it.
        model.token_embedding.weight.mul_(50)
    return model


def never_evaluating(model):
    model.eval = lambda: model  # somebody has forgotten model.eval()
    return model

# %%
patients = {
    "A": (new_model(Echo, block_size=16), {}),
    "B": (new_model(block_size=16), {"learning_rate": 0.3}),
    "C": (never_evaluating(new_model(block_size=16, dropout=0.4)), {}),
    "D": (new_model(block_size=16), {}),
    "E": (large(new_model(block_size=16)), {}),
    "F": (new_model(TooFar, block_size=16), {}),
    "G": (new_model(block_size=16), {}),
    "healthy": (new_model(block_size=16), {}),
}

# %% tags=["nbval-ignore-output"]
def treatment(**changes):
    """How every patient is trained, with some changes."""
    usual = {"steps": 300, "batch_size": 16, "learning_rate": 5e-3, "eval_interval": 10}
    return TrainConfig(**{**usual, **changes})


scrap = corpus._replace(train=corpus.train[:1000])
charts = {}
for name, (patient, changes) in patients.items():
    attend = all_seeing if name == "D" else attention
    text = scrap if name == "G" else corpus
    with mock.patch.object(F, "scaled_dot_product_attention", attend):
        charts[name] = train(patient, text, treatment(**changes), tokenizer)["log"]

# %%
def curve(name, column):
    return [row[column] for row in charts[name]]


fig, axes = plt.subplots(2, 4, figsize=(10, 5), layout="constrained", sharex=True, sharey=True)
for ax, name in zip(axes.flat, "ABCDEFG"):
    steps = curve(name, "step")
    ax.plot(steps, curve("healthy", "val_loss"), color="#999999", linewidth=3, label="healthy")
    ax.plot(steps, curve(name, "train_loss"), color="#E69F00", label="training")
    ax.plot(steps, curve(name, "val_loss"), "--", color="#0072B2", label="validation")
    ax.axhline(corpus.val_entropy or 0, color="#D55E00", linestyle=":", label="the floor")
    ax.set(title=name, ylim=(0, 7))
axes[1, 3].legend(*axes[0, 0].get_legend_handles_labels(), loc="center", frameon=False)
axes[1, 3].axis("off")
fig.supxlabel("step")
fig.supylabel("nats per character")
show(
    fig,
    "Seven charts with the healthy curve in grey. A: training falls to 0, validation rises out of sight. B: flat. "
    "C: training and validation together, above the healthy curve. D: both fall below the floor. E: begins out "
    "of sight and falls slowly. F: training above the healthy curve, validation rises from the start. G: training "
    "falls below the healthy curve; validation falls first, then rises.",
)

# %%
train_end, val_end = (
    {name: rows[-1][key] for name, rows in charts.items()} for key in ("train_loss", "val_loss")
)
for name in charts:
    print(
        f"{name:8} at the end: training ≈ {train_end[name]:.2f}, validation ≈ {val_end[name]:.2f}"
    )
assert train_end["A"] < 0.1
assert val_end["A"] > 7 or corpus.name != "playhouse"
assert val_end["healthy"] < 2.0 or corpus.name != "playhouse"

# %% [markdown]
# The grey line is a healthy model. For each patient, write down what you see, what you suspect, and how you would prove it. The answers are in the next cell.

# %% [markdown]
# The diagnoses:
#
# | | symptom | cause | the test that proves it |
# |---|---|---|---|
# | A | training near 0 within a hundred steps; the true loss terrible | the targets are the input: it learns to repeat | print `x[0]` and `y[0]` as text, one above the other: `y` must be one ahead |
# | B | nearly flat, at the height of single letters | the rate is too high | a tenth of it, from a new model |
# | C | validation no better than training, above a healthy model's, and different at each measurement | dropout is on in evaluation | measure twice: the two must be equal |
# | D | below the floor; too good to be true | it sees the future: the mask is missing | change the last character: the logits before it must not move |
# | E | far above $\ln V$ at init, and slow to come down | first weights too large | the loss at init |
# | F | learns, slowly, and writes nonsense; the true loss rises from the start | the targets are two ahead | as A |
# | G | training falls below the healthy model's; validation falls with it at first, then rises | **overfitting**: it learns a short text by heart | the same measurement on both texts: good on the training text, bad on the other |
#
# If the targets go wrong where batches are made, the validation batches are wrong, too: then A looks wonderful on *both* curves, and F looks merely slow on both. Only your eye helps in that case, or the text that the model writes, or a function that looks at all windows, every time, and does not get tired.
#
# ### Exercise: how far ahead?
# ★ · 5 minutes · Targets that are off by one make a loss that looks wonderful, or merely slow. Two tensors of numbers tell in no time.
#
# `x` and `y` are a batch: B windows of T characters, and their targets. In each window, $y_i$ should be the character that stands $k$ places after $x_i$, with $k = 1$. Find the $k$ that the batch really has: the least one from 0 to T − 1 for which $y_i = x_{i+k}$ holds in all windows and for all $i$ where both exist. If there is none, return −1.
#
# `x = [[5, 2, 7, 4]]` and `y = [[7, 4, 3, 3]]` give 2: the 7 and the 4 of `y` stand two places further on in `x`, and `x` ends before the last two numbers of `y` can be compared.

# %% tags=["exercise"] exercise="targets_ahead"
def targets_ahead(x, y):
    """x, y (B, T) int64 -> int: 1 where all is well, 0 where y is x, 2 ..., -1 where nothing fits."""
    ### BEGIN SOLUTION
    T = x.shape[1]
    for k in range(T):
        if torch.equal(y[:, : T - k], x[:, k:]):
            return k
    return -1
    ### END SOLUTION

# %%
check("targets_ahead", targets_ahead)

# %% [markdown]
# Now the tests, one after the other. **A and F:** look at these two lines once for every new source of data.

# %%
window_x, window_y = ShuffledWindows(train_ids, 24, seed=1337).batch(0, 1)
print("x", repr(tokenizer.decode(window_x[0])))
print("y", repr(tokenizer.decode(window_y[0])))
agree = (window_x[0, 1:] == window_y[0, :-1]).sum().item()
print(f"places where y is one ahead of x: {agree} of {len(window_x[0]) - 1}")

# %%
shares = torch.bincount(train_ids).double() / len(train_ids)  # how often each character occurs
letters = -(shares * shares.log()).sum().item()
print(
    f"a model that knows only the frequencies of the letters pays {letters:.2f}; at the end A pays "
    f"≈ {val_end['A']:.2f}, F ≈ {val_end['F']:.2f}, the healthy model ≈ {val_end['healthy']:.2f}"
)
late = [row["val_loss"] for row in charts["F"][10:]]
worse = sum(loss > letters for loss in late) / len(late)
risen = sum(loss > charts["F"][0]["val_loss"] for loss in late) / len(late)
print(
    f"last {len(late)} evaluations of F: ≈ {worse:.0%} are above {letters:.2f}, "
    f"≈ {risen:.0%} above its own first evaluation"
)
assert charts["A"][9]["train_loss"] < 0.2
assert letters - val_end["healthy"] > 1 or corpus.name != "playhouse"
assert worse > 0.6 or corpus.name != "playhouse"
assert risen > 0.6 or corpus.name != "playhouse"
assert train_end["F"] - train_end["healthy"] > 0.1 or corpus.name != "playhouse"

# %% [markdown]
# **B:** how high is "the height of single letters"? It is the entropy of the letters' frequencies (lesson 00). A model that is stuck there has learned the frequencies and nothing else. Many things can keep it there: too high a rate, a dead layer, an input that does not arrive.

# %%
stuck = train_end["B"]
fall = charts["B"][4]["val_loss"] - val_end["B"]  # in the last 250 steps
print(f"entropy of single letters: {letters:.2f}; B ends at ≈ {stuck:.2f}")
print(f"from step 50 to 300 B falls by ≈ {fall:.2f}")
assert abs(stuck - letters) < 0.4 or corpus.name != "playhouse"
assert fall < 0.5 or corpus.name != "playhouse"

# %% [markdown]
# **C:** measure twice. In evaluation mode two measurements are equal.

# %%
twice = [evaluate(patients["C"][0], val_ids) for _ in range(2)]
del patients["C"][0].eval  # the method of the class is back
repaired = [evaluate(patients["C"][0], val_ids) for _ in range(2)]
print(f"without model.eval(): ≈ {twice[0]:.4f} and ≈ {twice[1]:.4f}")
print(f"with model.eval():    ≈ {repaired[0]:.4f} and ≈ {repaired[1]:.4f}")
better = min(twice) - repaired[0]
print(f"the model is better than it looked by ≈ {better:.2f} nats")
assert twice[0] != twice[1] and repaired[0] == repaired[1]
assert better > 0.05 or corpus.name != "playhouse"
assert val_end["C"] - val_end["healthy"] > 0.3 or corpus.name != "playhouse"
assert abs(val_end["C"] - train_end["C"]) < 0.2

# %% [markdown]
# (The rest of the distance to the grey line comes from training with dropout: C has 0.4, the healthy model none.)
#
# **D:** does it see the future? Change a character, and see at which positions the logits change.

# %%
def changed_positions(model):
    """The positions whose logits change when the character at position 10 changes."""
    changed = x[:1, :16].clone()
    changed[0, 10] = (changed[0, 10] + 1) % V
    with torch.no_grad():
        difference = (model(changed)[0] - model(x[:1, :16])[0]).abs().amax(-1)[0]
    return (difference > 1e-4).nonzero().flatten().tolist()


print("healthy:", changed_positions(patients["healthy"][0]))
with mock.patch.object(F, "scaled_dot_product_attention", all_seeing):
    print("D      :", changed_positions(patients["D"][0]))

# %% [markdown]
# In D the logits change at all positions, even before the changed character. On Playhouse there is a second proof, which does not look inside the model: on unseen text no model can have a loss below the floor. A third proof works everywhere: let the model write. Then there is no future to look at.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(1337)
with mock.patch.object(F, "scaled_dot_product_attention", all_seeing):
    print("D:", repr(tokenizer.decode(patients["D"][0].generate(val_ids[:16][None], 60)[0])))
print(
    "healthy:", repr(tokenizer.decode(patients["healthy"][0].generate(val_ids[:16][None], 60)[0]))
)

# %%
below = (corpus.val_entropy or math.nan) - val_end["D"]  # the floor of some texts is unknown
print(f"D ends at ≈ {val_end['D']:.2f}, below the floor by ≈ {below:.2f}")
assert below > 0.05 or corpus.name != "playhouse"
assert val_end["healthy"] - val_end["D"] > 0.5 or corpus.name != "playhouse"

# %% [markdown]
# **E:** the loss at init.

# %%
with torch.no_grad():
    e_at_init = large(new_model())(x, y)[1].item()
times = e_at_init / math.log(V)
pairs_of_rows = list(zip(charts["E"], charts["healthy"]))
behind = sum(late["val_loss"] > healthy["val_loss"] for late, healthy in pairs_of_rows) / len(
    pairs_of_rows
)
print(f"ln V is {math.log(V):.2f}; E begins at ≈ {e_at_init:.0f}, ≈ {times:.0f} times as high")
print(
    f"E is above the healthy model in ≈ {behind:.0%} of the evaluations, at the end by "
    f"≈ {val_end['E'] - val_end['healthy']:.2f} nats"
)
assert times > 10
assert charts["E"][0]["val_loss"] > 7
assert behind > 0.6 or corpus.name != "playhouse"

# %% [markdown]
# E's loss at init is higher than the formula of *Born too sure* says. At $s = 8$ the formula is no longer nearly right, and with a tied table the model believes above all in the character that it has just read.
#
# **G:** is its training loss true? In F and in G, the two curves move apart, but for opposite reasons. F is trained on false targets. G is trained on true ones, and on little text. `evaluate` takes the targets from the text itself, so measure both models with it on their own training text, too. (`train` leaves a model with its best weights. Without a validation text it keeps the last ones, and those we want to see.) **Predict:** which of the two is good on its training text?

# %% tags=["nbval-ignore-output"]
own_texts = {"F": train_ids[:8000], "G": train_ids[:1000]}
last = {"F": new_model(TooFar, block_size=16), "G": new_model(block_size=16)}
for name, model in last.items():
    train(model, train_ids if name == "F" else own_texts["G"], treatment())

# %%
gaps = {}
for name, model in last.items():
    on_own = evaluate(model, own_texts[name])
    on_val = evaluate(model, val_ids)
    gaps[name] = on_val - on_own
    print(f"{name}: training text ≈ {on_own:.2f}, validation text ≈ {on_val:.2f}")
regret = val_end["G"] - min(curve("G", "val_loss"))
print(f"G's validation loss at the end is ≈ {regret:.2f} above its best")
assert gaps["G"] > 1 or corpus.name != "playhouse"
assert regret > 0.1 or corpus.name != "playhouse"

# %% [markdown]
# F is bad on both texts: it is broken. G is good on its own text and bad on the other: nothing is broken, it has learned the wrong thing, namely which character follows which in these 1,000 characters. The difference of the two losses is the **generalization gap**.
#
# ## Remedies for overfitting, and their prices
#
# More text is the best remedy, and often there is none. The others make it harder to learn by heart (dropout, weight decay, a smaller model), or stop in time (early stopping). What does each bring, and what does it cost? A recorded run answers, because it takes six minutes: a small GPT on 3,000 characters of Playhouse, then the same with one remedy at a time. Each has as many steps as fit into the same processor time. (`python -m tests.benchmarks.remedies` repeats it.) **Predict:** which remedy comes out best, more text aside? Which one makes a step slower, and which makes it faster?

# %%
record = json.loads((bundled_dir() / "results" / "remedies.json").read_text(encoding="utf-8"))
trials, seconds = record["runs"], record["settings"]["seconds"]


def mean_curve(name, kind):
    """The mean of the seeds' losses at each evaluation."""
    return [fmean(losses) for losses in zip(*(c[kind] for c in trials[name]["curves"].values()))]

# %%
colours = ("#000000", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
styles = ("-", "--", "-.", ":", (0, (6, 1)))
fig, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
for name, colour, style in zip(trials, colours, styles):
    losses = mean_curve(name, "val")
    times = [seconds * (i + 1) / len(losses) for i in range(len(losses))]
    label = "no remedy" if name == "none" else name
    ax.plot(times, losses, linestyle=style, color=colour, linewidth=2, label=label)
ax.plot(times, mean_curve("none", "train"), color="#AAAAAA", label="no remedy: training text")
best = min(range(len(times)), key=mean_curve("none", "val").__getitem__)
stop = times[best], mean_curve("none", "val")[best]
ax.plot(*stop, "o", color="#D55E00", markersize=9, label="early stopping keeps this")
ax.set(xlabel="seconds of training on one core", ylabel="validation loss, nats per character")
ax.set_ylim(0, 3)
fig.legend(loc="outside right center", frameon=False, fontsize=9)
show(
    fig,
    "Validation loss against seconds, six curves. Without a remedy it falls to 1.8 in two seconds, where a dot marks "
    "early stopping, and rises to 2.7; the training loss goes down to 0.2. The smaller model rises to 2.9, weight "
    "decay to 1.9. Dropout stays flat at 1.6. More text falls to 0.7.",
)

# %%
def at_end(name, kind):
    """The mean of the seeds' losses after the last step."""
    return fmean(curves[kind][-1] for curves in trials[name]["curves"].values())


def at_stop(kind):
    """The mean of the seeds' losses where early stopping found the best validation loss."""
    curves = trials["none"]["curves"]
    return fmean(
        curves[seed][kind][stop["best"]] for seed, stop in record["early stopping"].items()
    )


used = fmean(stop["seconds"] for stop in record["early stopping"].values()) / seconds

# %%
slow, fast = (
    trials[name]["seconds_per_step"] / trials["none"]["seconds_per_step"]
    for name in ("dropout", "a smaller model")
)
prices = {
    "dropout": f"a step takes {slow:.1f} times as long, and learning is slower",
    "weight decay": "one more number to choose",
    "a smaller model": f"less room; but a step takes only {fast:.1f} times as long",
    "more text": "ten times as much text",
}
print(f"{'remedy':16} validation   test   price")
print(f"{'none':16} {at_end('none', 'val'):10.2f} {at_end('none', 'test'):6.2f}")
price = f"a validation text; but it takes only {used:.0%} of the time"
print(f"{'early stopping':16} {at_stop('val'):10.2f} {at_stop('test'):6.2f}   {price}")
for name, price in prices.items():
    print(f"{name:16} {at_end(name, 'val'):10.2f} {at_end(name, 'test'):6.2f}   {price}")

# %% [markdown]
# More text wins by far. Of the others dropout is best here, although it makes the fewest steps. Early stopping costs no computing time, only a validation text to look at: it picks the best point of a bad curve, and the time after that point is saved. Weight decay slows the rise down.
#
# The smaller model is no remedy here. Its steps are quick, so it makes more of them, and it still has more parameters than the text has characters. "Smaller" would have to mean much smaller, and then it could not learn the plays' grammar either.
#
# Remedies combine, and the trainer always keeps the best weights; so early stopping is in every run of yours. How good the others are depends on the text, the model and the numbers chosen (dropout 0.2, weight decay 1): for your text, measure.
#
# ## Mistakes people make
#
# - **Watching the training loss only.** A had the best of all.
# - **Believing a loss because it is good.** D was below the floor on both curves.
# - **Changing five things at once.** One number, one run, one line in your notes. The log has the rest.
# - **Comparing runs of different length by their middle.** With a schedule that comes down at the end, only ends can be compared.
# - **Not looking at the text.** Print a batch before the first step and a sample after the last.
# - **Starting the long run first.** First the loss at init, one batch overfitted, a hundred steps; then the night.
#
# How far you are:

# %%
progress()

# %% [markdown]
# ## Summary
#
# You now have `Trainer`, `train` and `plot_run`, in `chargpt_lib/trainer.py`. With lesson 09's checkpoints and `sampling.generate` you can train, stop, resume, and write.
#
# Next: [12 · Data on disk](12_data_on_disk.ipynb), for texts that are larger than memory.
