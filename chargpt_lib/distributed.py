# Made from notebooks/source/13_many_devices.py by notebooks/tools/build.py. Edit that text, not this file.
"""Training on several devices: DDP and FSDP."""

import atexit
import gc
import os
from contextlib import contextmanager
from copy import deepcopy

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from chargpt_lib.checkpoints import load_checkpoint
from chargpt_lib.devices import pick_device, world_size
from chargpt_lib.trainer import SingleProcessStrategy, Trainer, train
from chargpt_lib.training import per_token_loss

__all__ = [
    "init_distributed",
    "DDPStrategy",
    "evaluate_distributed",
    "GATHER_OPTIONS",
    "BROADCAST_OPTIONS",
    "FSDPStrategy",
    "train_distributed",
]


def init_distributed(device=None):
    """Connects this process with the others that torchrun has started -> the device of this process.

    Raises: ValueError if this computer has fewer graphics cards than processes.
    """
    kind = pick_device().type if device is None else torch.device(device).type
    if kind == "cuda":
        processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
        if processes_here > torch.cuda.device_count():
            raise ValueError(
                f"{processes_here} processes on this machine, but {torch.cuda.device_count()} "
                f"GPU(s): start at most one per GPU, or pass device='cpu'"
            )
        # LOCAL_RANK numbers the processes of this computer from 0, as CUDA numbers its cards.
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
        # CPU tensors travel by gloo, tensors on a card by NCCL.
        backend = "cpu:gloo,cuda:nccl"
    else:
        device = torch.device("cpu")
        backend = "gloo"
    if not dist.is_initialized():
        dist.init_process_group(backend)
        # So that no script has to leave the group itself.
        atexit.register(_leave_distributed)
    return device


def _leave_distributed():
    """Takes this process out of the group of processes."""
    # Models wrapped by DDP or FSDP keep the group alive by reference cycles. A group that is alive when Python ends
    # can abort the process.
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


class DDPStrategy(SingleProcessStrategy):
    """Several processes with the whole model each; backward averages their gradients (DDP, Li et al., 2020)."""

    def __init__(self, device):
        self.device = device
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def wrap(self, model):
        # DDP also sends the weights of process 0 to the others, so that all start from the same ones.
        device_ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=device_ids)

    def no_sync(self, model):
        return model.no_sync()

    def all_reduce_mean(self, tensor):
        dist.all_reduce(tensor)  # in place: now it is the sum
        return tensor / self.world_size

    def all_reduce_max(self, *numbers):
        # On the CPU, even if the model is on a card. float64, because a float32 would round the times.
        numbers = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return numbers.tolist()

    def all_gather(self, value):
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def on_rank_zero(self, function):
        result = None
        error = None
        if self.rank == 0:
            try:
                result = function()
            # Of any kind: the others must learn of it, or they wait for ever.
            except Exception as raised:
                error = raised
        message = [result, error]
        dist.broadcast_object_list(message, src=0)
        result, error = message
        if error is not None:
            raise error
        return result

    def evaluate(self, model, ids):
        return evaluate_distributed(model, ids, self.rank, self.world_size)


def evaluate_distributed(model, ids, rank, world_size):
    """The exact loss over a text; each process evaluates a part of the windows.

    All processes call the model equally often, because with FSDP every one must take part in every call.
    """
    T = model.block_size
    targets = len(ids) - 1
    windows = targets // T
    per_process = -(-windows // world_size)  # rounded up
    # The last parts would run over the end. They begin earlier, and skip the windows that others count.
    first = min(rank * per_process, windows - per_process)
    skipped = rank * per_process - first
    total = torch.zeros(1, dtype=torch.float64)
    if windows > 0:
        nats = per_token_loss(model, ids[first * T : (first + per_process) * T + 1])
        total += nats[skipped * T :].double().sum()
    # All processes compute the rest after the last whole window, and process 0 counts it.
    if targets % T > 0 or windows == 0:
        rest = per_token_loss(model, ids[windows * T :]).double().sum()
        if rank == 0:
            total += rest
    dist.all_reduce(total)
    return total.item() / targets


# Collected on the CPU in process 0; the others get an empty dict.
GATHER_OPTIONS = StateDictOptions(full_state_dict=True, cpu_offload=True)
# Process 0 has the whole, and sends each process its parts.
BROADCAST_OPTIONS = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


class FSDPStrategy(DDPStrategy):
    """Several processes with a part of each parameter, gradient and moment (FSDP, Zhao et al., 2023)."""

    def __init__(self, model, device):
        super().__init__(device)
        # Checkpoints are read into this copy, and written from it.
        self.full_model = deepcopy(model).cpu()
        mesh = init_device_mesh(device.type, (self.world_size,))
        # Each block is gathered and dropped by itself. The other parameters go with the model.
        for block in getattr(model, "blocks", ()):
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        # All processes start from the weights of process 0.
        set_model_state_dict(model, self.full_model.state_dict(), options=BROADCAST_OPTIONS)

    def wrap(self, model):
        return model  # fully_shard has changed the model itself

    @contextmanager
    def no_sync(self, model):
        # FSDP has a switch where DDP has a context manager.
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)

    def clip_grad_norm(self, parameters, max_norm):
        # The norm is a DTensor: each process holds a part of it.
        return super().clip_grad_norm(parameters, max_norm).full_tensor()

    def full_state(self, model, optimizer):
        # All processes take part in collecting; only process 0 gets the result.
        weights = get_model_state_dict(model, options=GATHER_OPTIONS)
        if self.rank == 0:
            self.full_model.load_state_dict(weights)
        numbered = optimizer.state_dict()
        # Before the first step there are no moments; PyTorch would take a step with the optimizer to create some.
        if optimizer.state:
            moments = get_optimizer_state_dict(model, optimizer, options=GATHER_OPTIONS)
            names = _parameter_names(model, optimizer) if self.rank == 0 else []
            numbered["state"] = {
                number: moments["state"][name] for number, name in enumerate(names)
            }
        return self.full_model, numbered

    def load_model(self, out, model, tokenizer, which="last"):
        # Every process reads the file, because each needs the state that is saved with the weights.
        state = load_checkpoint(out, self.full_model, tokenizer, which)
        set_model_state_dict(model, self.full_model.state_dict(), options=BROADCAST_OPTIONS)
        return state

    def load_optimizer(self, model, optimizer, saved):
        if not saved["state"]:
            return
        names = _parameter_names(model, optimizer)
        groups = optimizer.state_dict()["param_groups"]
        named = {
            "state": {names[number]: moments for number, moments in saved["state"].items()},
            "param_groups": [
                {**group, "params": [names[number] for number in group["params"]]}
                for group in groups
            ],
        }
        set_optimizer_state_dict(model, optimizer, named, options=BROADCAST_OPTIONS)
        # PyTorch has turned tuples into lists; the settings go back to those of the config.
        for group, before in zip(optimizer.param_groups, groups):
            group["betas"] = before["betas"]


def _parameter_names(model, optimizer):
    """The names of the parameters, in the order in which the optimizer numbers them."""
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    return [name_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def train_distributed(
    model,
    corpus_or_ids,
    config,
    tokenizer=None,
    resume=False,
    fsdp=False,
    device=None,
    corpus_changed="refuse",
):
    """`train` in all processes that a launcher has started, one for each device; without a launcher, it is `train`.

    Every process calls it with the same arguments, and gets the same dict. config.batch_size is what one process reads
    at a time. fsdp: cut weights, gradients and moments into as many parts as there are processes (FSDP); the model
    then stays cut, and only the checkpoints in out hold all of it. device: "cpu", "cuda"; None: the best one.

    Raises: what `train` raises; ValueError if there are fewer graphics cards than processes, and for fsdp=True without
    out or with Muon.
    """
    if world_size() == 1:
        device = pick_device() if device is None else device
        return train(model.to(device), corpus_or_ids, config, tokenizer, resume, corpus_changed)
    if fsdp and config.out is None:
        raise ValueError(
            "fsdp=True leaves the model sharded, and only a checkpoint holds all of it: set "
            "TrainConfig(out=...)"
        )
    if fsdp and config.optimizer == "muon":
        raise ValueError(
            "optimizer='muon' needs whole matrices, and fsdp=True leaves each process a part of them: take fsdp=False "
            "(DDP), or optimizer='adamw'"
        )
    device = init_distributed(device)
    if fsdp:
        strategy = FSDPStrategy(model, device)
    else:
        model = model.to(device)
        strategy = DDPStrategy(device)
    trainer = Trainer(model, corpus_or_ids, config, tokenizer, strategy)
    return trainer.train(resume, corpus_changed)
