# Made from notebooks/source/11_training_in_earnest.py by notebooks/tools/build.py. Edit that text, not this file.
"""The trainer: the loop that evaluates, logs, saves and resumes."""

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

__all__ = [
    "Run",
    "collect",
    "save",
    "add_row",
    "read_log",
    "write_log",
    "occupied",
    "begin",
    "ended",
    "tell",
    "finish",
    "follow",
    "train",
    "plot_run",
]


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
