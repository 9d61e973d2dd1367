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
# You will build: `train`, the loop for real runs. It watches itself, keeps its best weights, stops cleanly and goes on to the last bit. Then a clinic: is my loss normal? And if not, what is broken?
# You need lesson 09 and [lesson 10](10_recipe.ipynb). On two CPU cores the page takes about a minute. Its models are small, and stay on the CPU, where equal runs have equal bits; yours go where you put them: `train(model.to(device), …)`.

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
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.plots import show
from chargpt_lib.recipe import Windows
from chargpt_lib.training import evaluate

# %% [markdown]
# The corpus is lesson 00's, but for short runs a short validation text will do. And a small GPT, the same at each call.

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
# Still lesson 02's five lines: a batch, the loss, `zero_grad`, `backward`, the step. Between them stand the parts of the first page: the rate of this step, several batches for one step, 16 bits with their scale, the clipped gradient. (`team` is the first page's `Alone`: wherever it is asked, read over it for now.)
#
# One thing is new, and one cannot see it. A graphics card works through a list of orders; Python writes orders, and runs ahead. `loss.item()` would make Python wait until the card has computed the loss, and the card would then wait for Python's next order, at every step. So the loss and the gradient's length stay where they are, as tensors, and those that have gathered are fetched twice a second.

# %%
#| export
import json
import re
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from math import ceil, inf, isfinite, nan
from pathlib import Path
from statistics import fmean, median

import torch
from tqdm import tqdm

from chargpt_lib.checkpoints import (
    NAME,
    POINTER,
    random_states,
    restore_random_states,
    save_checkpoint,
)
from chargpt_lib.devices import pick_precision
from chargpt_lib.recipe import (
    Alone,
    TrainConfig,
    checkpointed,
    compiled,
    interruptible,
    learning_rate,
    make_optimizer,
    read_data,
)
from chargpt_lib.training import estimate_loss

# %%
#| export
class Run:
    """A training on its way."""

    kept = "step", "seen", "seconds", "best", "best_step", "waited", "pending"

    def __init__(self, model, corpus_or_ids, config, tokenizer, team):
        self.windows, self.val_ids, self.tokenizer = read_data(
            model, corpus_or_ids, config, tokenizer
        )
        self.model, self.compute, self.team, self.batch = (
            model,
            model,
            team,
            config.batch_size * team.size,
        )
        self.device = device = next(model.parameters()).device
        passes = config.epochs and ceil(
            config.epochs * self.windows.count / self.batch / config.grad_accum
        )
        self.config = replace(config, steps=min(filter(None, (config.steps, passes)), default=None))
        self.precision = pick_precision(device) if config.precision == "auto" else config.precision
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.precision)
        self.autocast = torch.autocast(device.type, dtype) if dtype else nullcontext()
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.parameters, self.optimizer = list(model.parameters()), make_optimizer(model, config)
        self.step = self.seen = self.waited = self.seconds = self.fetched = 0
        self.pending, self.fresh = [], []
        self.best = self.best_step = self.saved = self.board = None

    def advance(self):
        """One step of the optimizer. Nothing is fetched from the device."""
        config, loss = self.config, 0.0
        self.rate = learning_rate(self.step, config, self.seconds / (config.time_budget or inf))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        for left in reversed(range(config.grad_accum)):
            own = self.windows.batch(
                self.seen + self.team.rank * config.batch_size, config.batch_size
            )
            x, y = (ids.to(self.device, non_blocking=True) for ids in own)
            with self.team.apart(self.compute) if left else nullcontext():
                with self.autocast:
                    part = self.compute(x, y)[1] / config.grad_accum
                self.scaler.scale(part).backward()
            loss, self.seen = loss + part.detach(), self.seen + self.batch
        self.scaler.unscale_(self.optimizer)
        norm = self.team.clip(self.parameters, config.grad_clip or inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.fresh.append(torch.stack([loss.float(), norm.float()]))
        self.step += 1

# %% [markdown]
# `advance` divides the loss of each part by the number of parts. Is that right? Here it is: all windows have the same number of characters. Elsewhere they do not.
#
# ### Exercise: a mean of means
# ★★ · 7 minutes · The library `transformers` did this until October 2024. Losses fell all the same; it showed only when runs with and without parts were compared ([*Fixing Gradient Accumulation*](https://huggingface.co/blog/gradient_accumulation)).
#
# Texts of different lengths make one batch if the short ones are filled up. Where there is nothing to predict, the target is −100, and `F.cross_entropy` leaves that position out of its mean. Now take one text of four characters, whole, and then in two parts of three and one:

# %%
def loss_in_parts(logits, targets):
    loss = 0.0
    for part, wanted in zip(logits, targets):
        loss = loss + F.cross_entropy(part.flatten(0, 1), wanted.flatten()) / len(targets)
    return loss


logits = torch.tensor([[[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 0.0]]])
filled = torch.tensor([[0, -100, -100]])  # one character, and two places of nothing
parts = loss_in_parts(
    [logits[:, :3], logits[:, [3, 3, 3]]], [torch.zeros(1, 3, dtype=torch.int64), filled]
)
print(
    f"whole: {loss_in_parts([logits], [torch.zeros(1, 4, dtype=torch.int64)]):.2f}   in parts: {parts:.2f}"
)

# %% [markdown]
# The same four predictions, and another loss: the character that is alone in its part weighs as much as three. Mend it, so that the loss is the mean over all characters of all parts. A part may have no character at all; at least one part has some.

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
# ## What is looked at
#
# `collect` fetches the numbers, and is the place where a `nan` is noticed. It names the step, and it comes before anything is saved, so a run that has gone wrong does not save itself over a good one. (With float16 an infinite gradient is no accident: the scaler has left that step out.)

# %%
#| export
def collect(run):
    """Fetches the losses and gradients of the last steps; FloatingPointError for the first that is no number."""
    pairs = run.team.mean(torch.stack(run.fresh)).tolist() if run.fresh else []
    for step, pair in enumerate(pairs, run.step - len(pairs) + 1):
        if not all(
            map(isfinite, pair[:1] if run.scaler.is_enabled() else pair)
        ):  # the scaler skips such gradients
            kept = (
                f"checkpoints in {run.config.out} are from before"
                if run.config.out
                else "no out, so no checkpoint"
            )
            raise FloatingPointError(
                f"step {step}: the loss is {pair[0]}, the gradient's length {pair[1]}; {kept}. "
                f"The rate is {run.rate:.2g}: try a third of it, or a longer warmup"
            )
    run.pending, run.fresh, run.fetched = run.pending + pairs, [], run.seconds


def save(run, best=False):
    """A checkpoint from which the run can go on as if nothing had happened; one a step is enough."""
    if run.step == run.saved:
        return
    (model, optimizer), (dice, *others) = run.team.gathered(run), run.team.gather(random_states())
    state = {
        "optimizer": optimizer,
        "scaler": run.scaler.state_dict(),
        "random": dice,
        "others": others,
        "config": asdict(run.config),
        **{name: getattr(run, name) for name in run.kept},
    }
    run.team.once(
        lambda: save_checkpoint(run.config.out, model, run.tokenizer, state, run.step, best)
    )
    run.saved = run.step

# %% [markdown]
# What is measured decides, too: which weights are the best, and whether the run is worth going on with.
#
# ### Exercise: patience
# ★ · 5 minutes · A validation loss trembles on its way down. Whoever stops at its first rise stops too early ([Prechelt 1998](https://doi.org/10.1007/3-540-49430-8_3), *Early Stopping – But When?*), and the weights of the last step are not the best ones.
#
# `losses[i]` is the validation loss that evaluation number i + 1 finds, if the run gets that far. The run ends after the evaluation that is the `patience`-th in a row without a new least loss; an equal one is not new. If that never happens, it ends with the list. How many evaluations are made, and at which of them were the weights that one keeps? Both count from 1.
#
# With `patience` 2, `[3.0, 2.6, 2.7, 2.5, 2.5, 2.6, 2.1]` gives `[6, 4]`: the third brings nothing new, the fourth does, the fifth and the sixth do not. Nobody ever sees the 2.1.

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
# Every `eval_interval` steps one row: the mean of the losses since the last row, the validation loss, the rate, the length of the gradient (the median: one strange batch shall not hide the others), the pace. It goes into `out/log.jsonl`, one line of JSON each, so that a crash costs at most one line, and any program can read it. The best weights so far are kept.

# %%
#| export
def add_row(run):
    """Measures, keeps the best weights, and writes a row of the log: into run.rows, log.jsonl and TensorBoard."""
    config, (losses, norms), val_loss = run.config, zip(*run.pending), None
    pace, run.pending = (run.seen - run.mark[0]) / max(run.seconds - run.mark[1], 1e-9), []
    if run.val_ids is not None:
        dice = torch.Generator().manual_seed(config.seed)
        with run.autocast:
            val_loss = (
                run.team.evaluate(run.model, run.val_ids)
                if not config.eval_batches
                else estimate_loss(run.model, run.val_ids, config.eval_batches, run.batch, dice)
            )
        run.model.train()
    row = {
        "step": run.step,
        "train_loss": fmean(losses),
        "val_loss": val_loss,
        "lr": run.rate,
        "grad_norm": median(norms),
        "chars_per_second": pace * run.model.block_size,
        "seconds": run.seconds,
    }
    run.rows.append(row)
    if config.out:
        run.team.once(lambda: write_log(config.out, [row], "a"))
    for name in [name for name in row if run.board and row[name] is not None]:
        run.board.add_scalar(name, row[name], run.step)
    if run.board:
        run.board.flush()
    if val_loss is not None and (run.best is None or val_loss < run.best):
        run.best, run.best_step, run.waited = val_loss, run.step, 0
        if config.out:
            save(run, best=True)
        else:
            run.best_weights = {
                name: weight.clone() for name, weight in run.model.state_dict().items()
            }
    else:
        run.waited += 1

# %% [markdown]
# ## Before the first step
#
# Everything that can be known to go wrong is looked at first: the text and the model, the folder, the checkpoint. A folder that is not empty is not touched. The untrained model is saved at once: if that fails, it should fail now, and not after the night.

# %%
#| export
def read_log(path):
    """The rows of a log.jsonl, or of the one in a folder; a last line that a crash cut short is left out."""
    path = Path(path, "log.jsonl") if Path(path).is_dir() else Path(path)
    return [
        json.loads(line)
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.endswith("}")
    ]


def write_log(out, rows, mode="w"):
    with Path(out, "log.jsonl").open(mode, encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def occupied(out):
    """Whether something is in a folder, other than settings and what a kill in a run's very first save leaves."""
    nothing = re.compile(rf"{NAME}(\.part)?|{POINTER}\.part|settings\.toml(\.part)?")
    return out.is_dir() and not all(nothing.fullmatch(path.name) for path in out.iterdir())

# %%
#| export
def begin(run, resume):
    """Opens the folder of a new run, or goes back to the last checkpoint of an old one."""
    out, team, run.rows = run.config.out and Path(run.config.out), run.team, []
    if resume and not out:
        raise ValueError("resume=True goes on from a folder: give its name, out")
    if run.config.tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError(
                "tensorboard=True needs TensorBoard: pip install tensorboard"
            ) from None
    if resume:
        state = team.load(run)
        if len(dice := [state["random"], *state.get("others", [])]) != team.size:
            raise ValueError(
                f"{out} was saved by {len(dice)} process(es), and {team.size} would go on. Each has dice "
                f"of its own: start {len(dice)}, or begin a new run in another folder"
            )
        groups = run.optimizer.state_dict()["param_groups"]  # as the config has it now
        run.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        if state["scaler"]:
            run.scaler.load_state_dict(state["scaler"])
        restore_random_states(dice[team.rank])
        for name in run.kept:
            setattr(run, name, state[name])
        run.saved, rows = run.step, team.once(lambda: read_log(out))
        run.rows = [row for row in rows if row["step"] <= run.step]
    else:
        if team.once(lambda: out and occupied(out)):
            raise FileExistsError(
                f"{out} is not empty: go on with the run in it by resume=True, or give a new folder"
            )
        torch.manual_seed(run.config.seed + team.rank)  # for dropout
    if out:
        save(run)  # also to find out, before time is spent, whether that works
        team.once(lambda: write_log(out, run.rows))
    if run.config.tensorboard and team.rank == 0:
        run.board = SummaryWriter(out, purge_step=run.step + 1)

# %% [markdown]
# ## The loop

# %%
#| export
def ended(run, pressed):
    """Why the run is over, or None."""
    most = {name: getattr(run.config, name) or inf for name in ("steps", "time_budget", "patience")}
    reasons = {
        "interrupted": pressed,
        "steps": run.step >= most["steps"],
        "time_budget": run.seconds >= most["time_budget"],
        "patience": run.waited >= most["patience"],
    }
    return next((reason for reason, true in reasons.items() if true), None)


def tell(run):
    """What the bar says beside the time that is left."""
    pace = (run.seen - run.mark[0]) * run.model.block_size / max(run.seconds - run.mark[1], 1e-9)
    told = {
        "loss": f"{run.pending[-1][0]:.3f}",
        "rate": f"{run.rate:.1e}",
        "characters/s": f"{pace:,.0f}",
    }
    return told | (
        {"left": f"{run.config.time_budget - run.seconds:.0f} s"} if run.config.time_budget else {}
    )


def finish(run, stopped):
    """The last checkpoint; then the model gets its best weights -> what `train` returns, but for the floor."""
    if out := run.config.out:
        save(run)
    if stopped == "interrupted" and run.team.rank == 0:
        way = (
            f"saved in {out}; a resumed run goes on from there"
            if out
            else "not saved, for there is no out"
        )
        print(f"interrupted after step {run.step}: {way}")
    if run.best_step not in (None, run.step):
        run.team.load(run, "best") if out else run.model.load_state_dict(run.best_weights)
    run.model.eval()
    told = {
        "loss": run.best,
        "step": run.best_step,
        "steps": run.step,
        "stopped": stopped,
        "seconds": run.seconds,
        "precision": run.precision,
        "compiled": run.compiled,
        "log": run.rows,
    }
    return run.team.once(lambda: told)

# %% [markdown]
# Now that all parts have names, the loop itself is short. `follow` is the loop, `train` begins it, with one process.

# %%
#| export
def follow(run, resume=False):
    """The run, from its first step to its end -> what `train` returns, but for the floor."""
    begin(run, resume)
    config, model, team = run.config, run.model, run.team
    held = checkpointed(model) if config.gradient_checkpointing else nullcontext()
    with (
        held,
        interruptible() as pressed,
        tqdm(
            total=config.steps,
            initial=run.step,
            unit="step",
            mininterval=0.5,
            file=sys.stdout,
            disable=team.rank > 0,
        ) as bar,
    ):
        model.train()
        if config.compile:
            with run.autocast:
                run.compute = compiled(
                    model, run.windows.batch(0, config.batch_size)[0].to(run.device)
                )
        run.compiled, run.compute, stop = run.compute is not model, team.share(run.compute), False
        began, run.mark = time.perf_counter() - run.seconds, (run.seen, run.seconds)
        while not (stopped := ended(run, stop)):
            run.advance()
            run.seconds, stop = team.most(time.perf_counter() - began, bool(pressed))
            due = run.step % config.eval_interval == 0 or ended(run, False)
            saving = config.out and run.step % config.checkpoint_interval == 0
            if due or saving or run.seconds - run.fetched >= 0.5:
                collect(run)
                bar.update(run.step - bar.n)
                bar.set_postfix(tell(run), refresh=False)
            if due:
                add_row(run)
                run.mark = run.seen, time.perf_counter() - began
            if saving:
                save(run)
        collect(run)
    return finish(run, stopped)


def train(model, corpus_or_ids, config, tokenizer=None, resume=False):
    """Trains the model on a Corpus, or on ids (N,) without a validation; it ends up with its best evaluation's weights.

    -> {"loss": the least validation loss, "step": where it was, "steps": made, "stopped": by what, "seconds", "floor",
    "precision", "compiled", "log": rows}. resume: goes on from out's last checkpoint. Ctrl-C saves, and returns.
    FloatingPointError where a loss or gradient is no number.
    """
    run = Run(model, corpus_or_ids, config, tokenizer, Alone())
    return follow(run, resume) | {"floor": getattr(corpus_or_ids, "val_floor", None)}

# %%
#| export
def plot_run(log, floor=None):
    """Losses, rate and gradients of a run, from its rows or its folder -> matplotlib figure. floor: of the corpus."""
    from matplotlib.pyplot import subplots

    rows = log if isinstance(log, list) else read_log(log)
    fig, axes = subplots(1, 3, figsize=(10, 2.8), layout="constrained", width_ratios=(2, 1, 1))
    for ax, title, names in zip(
        axes,
        ("loss", "learning rate", "length of the gradient"),
        (("train_loss", "val_loss"), ("lr",), ("grad_norm",)),
    ):
        for name, colour in zip(names, ("#56B4E9", "#0072B2")):
            values = [nan if row[name] is None else row[name] for row in rows]
            ax.plot(
                [row["step"] for row in rows], values, "o-", markersize=3, color=colour, label=name
            )
        ax.set(xlabel="step", title=title, ylim=(0, None))
    if floor is not None:
        axes[0].axhline(floor, color="#D55E00", linestyle="--", label="the floor")
    axes[0].set_ylabel("nats per character")
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
print(f"best loss {first['loss']:.3f} at step {first['step']}, ended by {first['stopped']}")

# %%
now = evaluate(model, val_ids)
far = abs(now - first["loss"])
print(
    f"best evaluation ≈ {first['loss']:.3f}, the model as it is now ≈ {now:.3f} nats per character"
)
print(f"difference ≈ {far:.0e} (below 1e-6, so it has its best weights: {far < 1e-6})")
above = first["loss"] - (corpus.val_floor or 0)
assert first["loss"] < 1.5 or corpus.name != "playhouse"
assert above > 0.3 or corpus.name != "playhouse"
assert far < 1e-6
assert first["stopped"] == "steps"

# %%
show(
    plot_run(folder / "first", corpus.val_floor),
    "Three charts: training and validation loss fall together towards "
    "the floor and are still far from it; the rate stays, and falls at the end; the gradient's length, before it is "
    "cut.",
)

# %% [markdown]
# (The gradient's length is that before the cut. Where it is above `grad_clip`, most steps were shortened.)

# %% tags=["nbval-ignore-output"]
print(*sorted(path.name for path in (folder / "first").iterdir()), sep="\n")
print((folder / "first" / "log.jsonl").read_text().splitlines()[-1])

# %%
rows = read_log(folder / "first")
lead = sum(row["train_loss"] - row["val_loss"] for row in rows) / len(rows)
print(
    f"{len(rows)} rows; the training loss stands above the validation loss by ≈ {lead:.2f} nats on average"
)
assert [row["step"] for row in rows] == list(range(25, 301, 25))
assert lead > 0.05 or corpus.name != "playhouse"

# %% [markdown]
# While it runs, the bar shows the loss of the last step, the rate, the pace and the time that is left. The training loss of a row is the mean over the last 25 steps, so while the loss falls it lags behind the validation loss, which is measured at the end of the 25. That the validation loss is mostly the lower one is no mistake here.
#
# (`tensorboard=True` writes the same rows for [TensorBoard](https://www.tensorflow.org/tensorboard), if that is installed: `tensorboard --logdir` with the folder that holds your runs.)
#
# ## By the clock
#
# The machine is yours for three seconds. How many steps that makes, nobody knows; the schedule comes to its end all the same.

# %% tags=["nbval-ignore-output"]
hurried = train(
    new_model(), train_ids, TrainConfig(time_budget=3, learning_rate=5e-3, eval_interval=10)
)
print(f"{hurried['steps']} steps in {hurried['seconds']:.2f} s")

# %%
rates = [row["lr"] for row in hurried["log"]]
end = rates[-1] / 5e-3  # as a share of the peak
print("ended by:", hurried["stopped"])
print(f"the last rate is ≈ {end:.1%} of the peak (less than a fifth: {end < 0.2})")
assert hurried["stopped"] == "time_budget"
assert end < 0.2

# %% [markdown]
# ## Ctrl-C, and on
#
# Two runs of 60 steps. The second is interrupted in the middle of step 25 (a hook presses Ctrl-C for us), and goes on with a new model, as after a restart of the computer. There is dropout, so the dice matter too. **Predict:** will the last losses differ? From which digit on?

# %%
def settings(name):
    return TrainConfig(
        steps=60, batch_size=8, eval_interval=10, eval_batches=5, out=str(folder / name)
    )


def press_at(model, step):
    """Presses Ctrl-C in that step's forward pass, counted from 1."""
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
print("stopped by:", part["stopped"], "after step", part["steps"])
other = sum((a != b).sum().item() for a, b in zip(whole.parameters(), again.parameters()))
losses = [[row["val_loss"] for row in run["log"]] for run in (uninterrupted, rest)]
print(f"weights that differ, in the last bit or more: {other} of {whole.num_params():,}")
print("validation losses that differ:", sum(a != b for a, b in zip(*losses)), "of", len(losses[0]))
assert other == 0 and losses[0] == losses[1]

# %% [markdown]
# From no digit on. (On the CPU. On a graphics card some sums are computed in the order in which they happen to be ready.)
#
# ## `nan`
#
# Let us break a weight in step 12, and see what is left.

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
    said = str(error)

# %%
print(said.split(";")[0])
print("there is a checkpoint:", *sorted(path.name for path in (folder / "broken").glob("step-*")))
assert said.startswith("step 12: the loss is nan")

# %% [markdown]
# Ten good steps are kept, and `resume=True` with a smaller rate goes on from there. After a `nan` of its own, look at the log first: mostly the gradient had been growing for a while.
#
# ## With and without
#
# What are warmup, clipping and the decay at the end good for? Ask the model. The runs of a chart differ in one number. For clipping there has to be something to clip: at step 60, once, a batch has a thousand times its loss. (The two runs part earlier, because the first gradients are long as well.) A point of a curve is the mean of ten losses, and the one at step 60 holds that thousandfold loss itself. So *both* lines leave the chart there, with clipping and without. Look at what is left of the leap at step 70 and later.

# %%
def startled():
    model, steps = new_model(), count(1)

    def hook(module, inputs, out):
        return (out[0], 1000 * out[1]) if module.training and next(steps) == 60 else out

    model.register_forward_hook(hook)
    return model


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
        trial = startled() if pair == "clipping" else new_model()
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
axes[0].set_ylabel("training loss, nats per character")
show(
    fig,
    "Three charts. Without warmup the loss stays far higher. In the second, both lines leave the chart at step "
    "60; with clipping the line comes back to where it was, without it stays far above that. In the third, three "
    "lines lie close together; at the end wsd is the lowest.",
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
    print(f"{what} saves ≈ {gain[name]:.2f} nats per character")
left = curves["clipping", "with"][6]["train_loss"] - curves["clipping", "with"][4]["train_loss"]
assert gain["warmup"] > 0.1 or corpus.name != "playhouse"
assert gain["clipping"] > 0.3 or corpus.name != "playhouse"
assert gain["constant"] > 0.03 or corpus.name != "playhouse"
assert gain["cosine"] > 0.05 or corpus.name != "playhouse"
assert left < 0.2 or corpus.name != "playhouse"

# %% [markdown]
# **Warmup.** A rate that is fine later is too high for a model that knows nothing, and what it breaks in the first steps it mends slowly.
#
# **Clipping.** AdamW divides by the root of $v$, and $v$ has seen how long the strange gradient is; so that step is no longer than others. But both memories keep it. $m$ took up 0.1 times a thousand times the usual gradient, and fades by 0.9 a step: for some forty steps the model walks on in the strange direction. $v$ took up 0.01 times a million times the usual square; its root is a hundred times what it should be, and forgets a two-hundredth part a step. So after the walk all steps are far too small, for about $\ln 100 / 0.005 = 900$ steps, if the run were that long.
#
# **The decay.** While the rate is high, the noise of the batches keeps the loss up; where wsd lets the rate go down, the loss drops at once. The cosine, which comes down all the time, does not win here: in so short a run its small rates come too early. Do not conclude anything for longer runs: run them.
#
# None of these is a law. What does warmup save at a third of the rate? Try it: `pairs` is yours.
#
# ## The clinic
#
# A training that is broken does not stop. It prints losses that go down, and writes a worse play than it could. So how do you know? Two tests belong at the beginning of every new model.
#
# **The loss at birth.** A model that knows nothing should give each of the $V$ characters about $1/V$, and pay $\ln V$.

# %%
x, y = get_batch(train_ids, 32, 64, torch.Generator().manual_seed(1337))
with torch.no_grad():
    birth = new_model()(x, y)[1].item()
print(
    f"ln V is {math.log(V):.3f}, the loss at birth {birth:.3f} (within 0.1: {abs(birth - math.log(V)) < 0.1})"
)
assert abs(birth - math.log(V)) < 0.1

# %% [markdown]
# Why is it not exactly the same?
#
# ### Exercise: born too sure
# ★★ · 8 minutes · A number in the first weights decides whether a model begins by knowing nothing, or by believing nonsense. Its price can be computed before anything runs.
#
# At birth logits are noise. Take a vector $h$ of C numbers whose squares have the mean 1 (the last norm sees to that), and a last table of V rows, whose numbers are all drawn independently: normal, with mean 0 and standard deviation `std`. Logit $z_v$ is the dot product of $h$ with row $v$. It is normal, too; with which standard deviation $s$?
#
# The loss is $\ln \sum_v e^{z_v} - z_y$, where $y$ is the right character. On average $z_y$ is 0. For the sum take its expected value, V times that of one $e^z$, which is $e^{s^2/2}$ for a normal $z$ with mean 0. (With many characters, and $s$ no larger than about 1, that is very nearly right.) What is the loss?

# %% tags=["exercise"] exercise="birth_loss"
def birth_loss(V, C, std):
    """V, C: ints, std: float, of the table's numbers -> float: the loss at birth, in nats per character."""
    ### BEGIN SOLUTION
    return math.log(V) + C * std**2 / 2
    ### END SOLUTION

# %%
check("birth_loss", birth_loss)

# %% [markdown]
# And drawn, with C = 64 and `std` 0.125:

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
# Ours begins with a `std` of 0.02, and 64 numbers: the formula says 0.013 above $\ln V$, on average over the weights that may be drawn. (What one draw gives, you saw above. And our table is also the first one, so that the vectors and the rows are not quite independent.) A table as `nn.Embedding` makes it has a `std` of 1.

# %% [markdown]
# **Learn one batch by heart.** Four windows, again and again. Any model with more parameters than these have characters must get close to 0. If it does not, do not look at the rate or the size; something is miswired.

# %%
student, losses = new_model(), []
optimizer = make_optimizer(student, TrainConfig(learning_rate=3e-3))
for step in range(200):
    _, loss = student(x[:4], y[:4])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(
    f"by heart: from ≈ {losses[0]:.2f} down to ≈ {losses[-1]:.3f} nats per character (below 0.1: {losses[-1] < 0.1})"
)
assert losses[-1] < 0.1

# %% [markdown]
# (Not quite 0: where two of the windows have the same beginning and go on differently, nobody can know.)
#
# Now six patients. Each has one fault. The next two cells break them, in their targets, their mask, their first weights, their evaluation: run them, and if you like riddles, do not read them. (`evaluate` gives the model no targets; it compares the logits with the true text itself. So the validation losses are honest, unless the model cheats.)

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


def all_seeing(q, k, v, is_causal, dropout_p):
    return attention(q, k, v, is_causal=False, dropout_p=dropout_p)

# %%
def large(model):
    with torch.no_grad():
        model.token_embedding.weight.mul_(
            50
        )  # the spread is then 1, what nn.Embedding gives if nobody asks
    return model


def never_evaluating(model):
    model.eval = lambda: model  # somebody has forgotten model.eval()
    return model


patients = {
    "A": (new_model(Echo, block_size=16), {}),
    "B": (new_model(block_size=16), {"learning_rate": 0.3}),
    "C": (never_evaluating(new_model(block_size=16, dropout=0.4)), {}),
    "D": (new_model(block_size=16), {}),
    "E": (large(new_model(block_size=16)), {}),
    "F": (new_model(TooFar, block_size=16), {}),
    "healthy": (new_model(block_size=16), {}),
}

# %% tags=["nbval-ignore-output"]
charts = {}
for name, (patient, changes) in patients.items():
    config = TrainConfig(
        steps=300, batch_size=16, eval_interval=10, **{"learning_rate": 5e-3, **changes}
    )
    with mock.patch.object(
        F, "scaled_dot_product_attention", all_seeing if name == "D" else attention
    ):
        charts[name] = train(patient, corpus, config)["log"]

# %%
fig, axes = plt.subplots(2, 3, figsize=(10, 5), layout="constrained", sharex=True, sharey=True)
for ax, name in zip(axes.flat, "ABCDEF"):
    steps = [row["step"] for row in charts[name]]
    ax.plot(
        steps,
        [row["val_loss"] for row in charts["healthy"]],
        color="#999999",
        linewidth=3,
        label="healthy",
    )
    ax.plot(steps, [row["train_loss"] for row in charts[name]], color="#56B4E9", label="training")
    ax.plot(
        steps, [row["val_loss"] for row in charts[name]], "--", color="#0072B2", label="validation"
    )
    ax.axhline(corpus.val_floor or 0, color="#D55E00", linestyle=":", label="the floor")
    ax.set(title=name, ylim=(0, 7))
axes[0, 0].legend(frameon=False, fontsize=8)
fig.supxlabel("step")
fig.supylabel("nats per character")
show(
    fig,
    "Six charts with the healthy curve in grey. A: training falls to 0, validation rises out of sight. B: flat. "
    "C: training and validation together, above the healthy curve. D: both fall below the floor. E: begins out "
    "of sight and falls slowly. F: training above the healthy curve, validation rises.",
)

# %%
train_end, val_end = (
    {name: rows[-1][key] for name, rows in charts.items()} for key in ("train_loss", "val_loss")
)
for name in charts:
    print(
        f"{name:8} at the end: training ≈ {train_end[name]:.2f}, validation ≈ {val_end[name]:.2f} nats per character"
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
# | C | validation no better than training, above a healthy one, and another number at each measurement | dropout is on in evaluation | measure twice: the two must be equal |
# | D | below the floor; too good to be true | it sees the future: the mask is missing | change the last character: the logits before it must not move |
# | E | far above $\ln V$ at birth, and slow to come down | first weights too large | the loss at birth |
# | F | learns, slowly, and writes nonsense; the true loss rises | the targets are two ahead | as A |
#
# If the mistake in the targets is made where batches are made, the validation batches have it, too: then A and F look wonderful, or merely slow, on *both* curves. Only the eye helps, or the text that the model writes.
#
# Or a function that looks at all windows, each time, and does not get tired.
#
# ### Exercise: how far ahead?
# ★ · 5 minutes · Targets that are off by one make a loss that looks wonderful, or merely slow. Two tensors of numbers tell in no time.
#
# `x` and `y` are a batch: B windows of T characters, and their targets. In each window, $y_i$ should be the character that stands $k$ places after $x_i$, with $k = 1$. Find out which $k$ it is: the least one from 0 to T − 1 for which $y_i = x_{i+k}$ holds in all windows and for all $i$ where both of them exist. If it is none, return −1.
#
# `x = [[5, 2, 7, 4]]` and `y = [[7, 4, 3, 3]]` give 2: the 7 and the 4 of `y` stand two places further on in `x`, and for its last two numbers `x` has ended.

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
# The tests, one after the other. **A and F:** three lines that everybody should run once for every new source of data.

# %%
window_x, window_y = Windows(train_ids, 24, seed=1337).batch(0, 1)
print("x", repr(tokenizer.decode(window_x[0])))
print("y", repr(tokenizer.decode(window_y[0])))
print("one ahead:", torch.equal(window_x[0, 1:], window_y[0, :-1]))

# %%
shares = torch.bincount(train_ids).double() / len(train_ids)  # how often each character occurs
letters = -(shares * shares.log()).sum().item()
print(
    f"who knows only how frequent each letter is pays {letters:.2f}; at the end A pays ≈ {val_end['A']:.2f}, "
    f"F ≈ {val_end['F']:.2f}, the healthy one ≈ {val_end['healthy']:.2f}"
)
late = [row["val_loss"] for row in charts["F"][10:]]
worse = sum(loss > letters for loss in late) / len(late)
risen = sum(loss > charts["F"][0]["val_loss"] for loss in late) / len(late)
print(
    f"of the last {len(late)} evaluations of F ≈ {worse:.0%} are above that, ≈ {risen:.0%} above its own first one"
)
assert charts["A"][9]["train_loss"] < 0.2
assert letters - val_end["healthy"] > 1 or corpus.name != "playhouse"
assert worse > 0.6 or corpus.name != "playhouse"
assert risen > 0.6 or corpus.name != "playhouse"
assert train_end["F"] - train_end["healthy"] > 0.1 or corpus.name != "playhouse"

# %% [markdown]
# **B:** how high is "the height of single letters"? It is the entropy of how often each occurs (lesson 00). A model that is stuck there has learned the frequencies and nothing else. Many things can keep it there: a rate too high, a dead layer, an input that does not arrive.

# %%
stuck = train_end["B"]
fall = charts["B"][4]["val_loss"] - val_end["B"]  # in the last 250 steps
print(
    f"entropy of single letters: {letters:.2f}; B ends at ≈ {stuck:.2f} (within 0.4: {abs(stuck - letters) < 0.4})"
)
print(f"from step 50 to 300 B falls by ≈ {fall:.2f}")
assert abs(stuck - letters) < 0.4 or corpus.name != "playhouse"
assert fall < 0.5 or corpus.name != "playhouse"

# %% [markdown]
# **C:** measure twice.

# %%
twice = [evaluate(patients["C"][0], val_ids) for _ in range(2)]
del patients["C"][0].eval  # the real one is back
mended = [evaluate(patients["C"][0], val_ids) for _ in range(2)]
print(f"two measurements: ≈ {twice[0]:.4f} and ≈ {twice[1]:.4f} (the same: {twice[0] == twice[1]})")
print(f"mended: ≈ {mended[0]:.4f} and ≈ {mended[1]:.4f} (the same: {mended[0] == mended[1]})")
better = min(twice) - mended[0]
print(
    f"the model is better than it looked by ≈ {better:.2f} nats (more than 0.05: {better > 0.05})"
)
assert twice[0] != twice[1] and mended[0] == mended[1]
assert better > 0.05 or corpus.name != "playhouse"
assert val_end["C"] - val_end["healthy"] > 0.3 or corpus.name != "playhouse"
assert abs(val_end["C"] - train_end["C"]) < 0.2

# %% [markdown]
# (C has dropout 0.4 and the grey line none: that is the rest of the distance between them.)
#
# **D:** does it see the future? Lesson 03 asked the derivatives. A trained model can be asked more simply: a character changes; who notices?

# %%
def who_notices(model):
    changed = x[:1, :16].clone()
    changed[0, 10] = (changed[0, 10] + 1) % V
    with torch.no_grad():
        difference = (model(changed)[0] - model(x[:1, :16])[0]).abs().amax(-1)[0]
    return (difference > 1e-4).nonzero().flatten().tolist()


print("healthy:", who_notices(patients["healthy"][0]))
with mock.patch.object(F, "scaled_dot_product_attention", all_seeing):
    print("D      :", who_notices(patients["D"][0]))

# %% [markdown]
# All of them, those before it too. On Playhouse there is a second proof, without looking inside: nobody can be below the floor on unseen text. And a third, which works everywhere: let it write. There is no future to look at then.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(1337)
with mock.patch.object(F, "scaled_dot_product_attention", all_seeing):
    print("D:", repr(tokenizer.decode(patients["D"][0].generate(val_ids[:16][None], 60)[0])))
print(
    "healthy:", repr(tokenizer.decode(patients["healthy"][0].generate(val_ids[:16][None], 60)[0]))
)

# %%
below = (corpus.val_floor or math.nan) - val_end["D"]  # some texts have no floor that is known
print(f"D ends at ≈ {val_end['D']:.2f}, below the floor by ≈ {below:.2f}")
assert below > 0.05 or corpus.name != "playhouse"
assert val_end["healthy"] - val_end["D"] > 0.5 or corpus.name != "playhouse"

# %% [markdown]
# **E:** the loss at birth.

# %%
with torch.no_grad():
    births = {
        name: large(new_model())(x, y)[1].item() if name == "E" else birth
        for name in ("E", "healthy")
    }
times = births["E"] / math.log(V)
pairs_of_rows = list(zip(charts["E"], charts["healthy"]))
behind = sum(late["val_loss"] > healthy["val_loss"] for late, healthy in pairs_of_rows) / len(
    pairs_of_rows
)
print(
    f"ln V is {math.log(V):.2f}; E begins at ≈ {births['E']:.0f} (more than ten times that: {times > 10})"
)
print(
    f"in ≈ {behind:.0%} of the evaluations E is above the healthy one, at the end still by "
    f"≈ {val_end['E'] - val_end['healthy']:.2f} nats"
)
assert times > 10
assert charts["E"][0]["val_loss"] > 7
assert behind > 0.6 or corpus.name != "playhouse"

# %% [markdown]
# Its loss at birth is more than the formula of *Born too sure* gives: at $s = 8$ it is no longer nearly right, and the tied table believes above all in the character that it has just read.
#
# ## Mistakes people make
#
# - **Watching the training loss only.** A had the best of all.
# - **Believing a loss because it is good.** D was below the floor on both.
# - **Changing five things at once.** One number, one run, one line in your notes. The log keeps the rest.
# - **Comparing runs of different length by their middle.** With a schedule that comes down at the end, only ends can be compared.
# - **No look at the text.** Print a batch before the first step and a sample after the last.
# - **Starting the long run first.** Loss at birth, one batch by heart, a hundred steps; then the night.
#
# How far you are:

# %%
progress()

# %% [markdown]
# ## What you have
#
# `train` and `plot_run`, in `chargpt_lib/trainer.py`; with lesson 09's checkpoints and `sampling.generate` you can train, stop, go on, and write.
