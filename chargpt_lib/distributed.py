# Made from notebooks/source/13_many_devices.py by notebooks/tools/build.py. Edit that text, not this file.
"""Training on several devices: DDP and FSDP."""

import atexit
import os
from contextlib import contextmanager
from copy import deepcopy

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from chargpt_lib.checkpoints import load_checkpoint
from chargpt_lib.devices import pick_device
from chargpt_lib.recipe import Alone
from chargpt_lib.trainer import Run, follow, train
from chargpt_lib.training import nats_per_character

__all__ = [
    "hang_up",
    "Together",
    "evaluate_in_shares",
    "shard",
    "joined",
    "Sharded",
    "train_distributed",
]


def hang_up(group):
    if dist.is_initialized():
        dist.destroy_process_group(group)


class Together(Alone):
    """Several processes with a whole model each; in `backward` gradients become means (DDP, Li et al., 2020)."""

    def __init__(self, accelerator):
        self.accelerator = accelerator
        self.rank, self.size = accelerator.process_index, accelerator.num_processes
        self.line = dist.new_group(
            backend="gloo"
        )  # for Python's own words: no graphics card has to wait for them
        atexit.register(hang_up, None if accelerator.device.type == "cpu" else self.line)

    def most(self, *numbers):
        numbers = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self.line)
        return numbers.tolist()

    def mean(self, numbers):
        dist.all_reduce(numbers)
        return numbers / self.size

    def gather(self, value):
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self.line)
        return values

    def once(self, do):
        said = [None, None]  # what came out, and what went wrong
        if self.rank == 0:
            try:
                said[0] = do()
            except Exception as error:
                said[1] = error
        dist.broadcast_object_list(said, src=0, group=self.line)
        if said[1] is not None:
            raise said[1]
        return said[0]

    def share(self, model):
        return self.accelerator.prepare_model(model)

    def apart(self, model):
        return self.accelerator.no_sync(model)

    def evaluate(self, model, ids):
        return evaluate_in_shares(model, ids, self)


def evaluate_in_shares(model, ids, team):
    """`evaluate`, each process its share of the windows. All make as many calls of the model: shards need that."""
    T, targets = model.block_size, len(ids) - 1
    windows = targets // T
    most = -(-windows // team.size)
    first = min(
        team.rank * most, windows - most
    )  # the last ones begin early, and skip what others count
    skipped, total = team.rank * most - first, torch.zeros(1, dtype=torch.float64)
    if windows:
        nats = nats_per_character(model, ids[first * T : (first + most) * T + 1])
        total += nats[skipped * T :].double().sum()
    if targets % T or not windows:
        rest = nats_per_character(model, ids[windows * T :]).double().sum()
        total += rest if team.rank == 0 else 0
    dist.all_reduce(total, group=team.line)
    return total.item() / targets


def shard(whole, like):
    """A tensor that the first process has whole, cut as the other one is."""
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)


def joined(value, keep):
    """What the processes have parts of, whole; only those keep it that will write it."""
    value = value.full_tensor() if isinstance(value, DTensor) else value
    return value.cpu() if keep else None


class Sharded(Together):
    """Several processes with a part of each parameter, gradient and moment (FSDP, Zhao et al., 2023)."""

    def __init__(self, accelerator, model):
        super().__init__(accelerator)
        self.whole = deepcopy(model).cpu()  # whole weights come and go through this one
        mesh = init_device_mesh(accelerator.device.type, (self.size,))
        for part in [*getattr(model, "blocks", ()), model]:
            fully_shard(part, mesh=mesh)
        self.fill(model)

    @torch.no_grad()
    def fill(self, model):
        model.reshard()  # after an evaluation the outermost part is still whole
        for own, whole in zip(model.parameters(), self.whole.parameters()):
            own.copy_(shard(whole, own))

    def share(self, model):
        return model

    @contextmanager
    def apart(self, model):
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)

    def clip(self, parameters, most):
        return super().clip(parameters, most).full_tensor()

    @torch.no_grad()
    def gathered(self, run):
        run.model.reshard()
        for own, whole in zip(run.model.parameters(), self.whole.parameters()):
            whole.copy_(own.full_tensor())
        state, first = run.optimizer.state_dict(), self.rank == 0
        moments = {
            i: {name: joined(x, first) for name, x in kept.items()}
            for i, kept in state["state"].items()
        }
        return self.whole, {**state, "state": moments}

    def load(self, run, which="last"):
        state = load_checkpoint(run.config.out, self.whole, run.tokenizer, which)
        self.fill(run.model)
        parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
        for i, kept in state["optimizer"]["state"].items():
            kept.update(
                {name: shard(value, parameters[i]) for name, value in kept.items() if value.dim()}
            )
        return state


def train_distributed(model, corpus_or_ids, config, tokenizer=None, resume=False, fsdp=False):
    """`train` in all processes that a launcher has started, one for each device; started plainly, it is `train`.

    Every process calls it with the same arguments, and gets the same dict. config.batch_size is what one process reads
    at a time. fsdp: cut weights, gradients and moments into as many parts as there are processes (FSDP); the model is
    then left in parts, and whole only in the checkpoints in out. ImportError without Accelerate.
    """
    try:
        from accelerate import Accelerator
    except ImportError:
        raise ImportError(
            "several devices need Hugging Face Accelerate: pip install accelerate"
        ) from None
    device, size = pick_device(), int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return train(model.to(device), corpus_or_ids, config, tokenizer, resume)
    if fsdp and not config.out:
        raise ValueError(
            "with fsdp the model is left in parts, and only a checkpoint has it whole: give a folder, out"
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if device.type == "cuda" and here > torch.cuda.device_count():
        raise ValueError(
            f"{here} processes, and {torch.cuda.device_count()} graphics card(s): start one for each card"
        )
    accelerator = Accelerator(
        cpu=device.type != "cuda", mixed_precision="no"
    )  # the run has a precision of its own
    team = Sharded(accelerator, model) if fsdp else Together(accelerator)
    run = Run(
        model if fsdp else model.to(accelerator.device), corpus_or_ids, config, tokenizer, team
    )
    return follow(run, resume) | {"floor": getattr(corpus_or_ids, "val_floor", None)}
