"""What a training would cost: FLOPs, hours, memory of a card. No card is needed to compute it."""

import math
import re
import shlex
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from chargpt_lib.checkpoints import build_meta_model, build_model
from chargpt_lib.cli.options import DEFAULT_CORPUS
from chargpt_lib.devices import MIN_CAPABILITY
from chargpt_lib.modern import muon_param_groups
from chargpt_lib.recipe import gradient_checkpointing
from chargpt_lib.scaling_laws import flops_per_token

# ---------------------------------------------------------------- graphics cards


class _Card(NamedTuple):
    """A graphics card, as its maker describes it."""

    flops: float  # FLOP/s of the tensor cores in bf16, in fp16 where they lack bf16; dense, sums in fp32
    memory: float  # bytes
    capability: tuple  # NVIDIA's compute capability


# Data sheets of newer cards give FLOP/s with sparsity: twice what dense matrices reach.
DEVICES = {
    "V100": _Card(125e12, 16e9, (7, 0)),  # NVIDIA V100 data sheet, SXM2, fp16
    "V100-32GB": _Card(125e12, 32e9, (7, 0)),
    "T4": _Card(65e12, 16e9, (7, 5)),  # NVIDIA T4 data sheet, fp16
    "A100": _Card(312e12, 40e9, (8, 0)),  # NVIDIA A100 data sheet
    "A100-80GB": _Card(312e12, 80e9, (8, 0)),
    "RTX3090": _Card(71e12, 24e9, (8, 6)),  # NVIDIA Ampere GA102 whitepaper
    "RTX4090": _Card(165.2e12, 24e9, (8, 9)),  # NVIDIA Ada whitepaper
    "L4": _Card(121e12, 24e9, (8, 9)),  # NVIDIA L4 data sheet: 242 with sparsity
    "H100": _Card(989.5e12, 80e9, (9, 0)),  # NVIDIA H100 data sheet, SXM: 1,979 with sparsity
    "H200": _Card(989.5e12, 141e9, (9, 0)),  # NVIDIA H200 data sheet, SXM: 1,979 with sparsity
}

# Cards that one computer has, as a rule. Beyond that, torchrun has to be told where the other computers are.
MOST_CARDS = 8


def parse_devices(text):
    """8xA100 -> (8, "A100"). Raises: ValueError for another form, and for a card that is not in DEVICES."""
    form = re.fullmatch(r"(?:([0-9]+)[xX])?([A-Za-z][\w-]*)", text)
    if form is None or form[1] is not None and int(form[1]) < 1:
        raise ValueError(f"--devices is {text!r}; it is a number, x, and a card, such as 8xA100")
    name = form[2].upper()
    if name not in DEVICES:
        raise ValueError(
            f"--devices {text}: the card {form[2]!r} is not known: take one of {', '.join(DEVICES)}"
        )
    number = 1 if form[1] is None else int(form[1])
    return number, name


# ---------------------------------------------------------------- FLOPs and hours


def training_hours(flops, number, name, mfu):
    """The hours that a training of so many FLOPs takes on some cards that reach the share mfu of their peak."""
    return flops / (number * DEVICES[name].flops * mfu) / 3600


# ---------------------------------------------------------------- memory

# Bytes per parameter in training, in float32: the weight, its gradient, and what the optimizer keeps. AdamW keeps two
# moments; Muon keeps one, at least for the matrices of the blocks.
TRAINING_BYTES = {"adamw": 16, "muon": 12}

# Bytes per logit at the peak, at the beginning of backward, beside the logits themselves, which the training step holds
# on to: in fp32 their log-softmax, its gradient, and what becomes of that, the gradient of the logits.
LOSS_BYTES = 4 + 4 + 4

# The share of a card's memory that a training may need. The rest is for CUDA itself, the kernels' workspaces, and gaps
# between the tensors.
USABLE = 0.9


class _CardKernels(TorchFunctionMode):
    """Inside, dropout saves what it saves on a card, where the CPU's kernels save more.

    RMSNorm counts as on the CPU, in separate steps; where a card has one kernel for it, it saves less.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = {} if kwargs is None else kwargs
        if function is F.scaled_dot_product_attention:
            # The fused kernels of card and CPU save the same: q, k, v, the result, a number per row. But that of the
            # card can drop weights, without saving a mask (it draws it again), and that of the CPU cannot.
            kwargs = {**kwargs, "dropout_p": 0.0}
        elif function is F.dropout and kwargs["training"] and kwargs["p"] > 0:
            # The mask has a byte per number; that of the CPU is as large as the numbers.
            dropped, _ = torch.native_dropout(args[0], kwargs["p"], True)
            return dropped
        return function(*args, **kwargs)


def _count_saved(config, windows, half, checkpointing):
    """The bytes that autograd saves in a forward pass of so many windows, up to the logits; parameters do not count.

    The model runs on tensors that have shapes and no values, and each storage that is saved for backward counts once.
    """
    saved = set()

    def save(tensor):
        saved.add(tensor.untyped_storage())
        return tensor

    def load(tensor):
        return tensor

    with FakeTensorMode(), _CardKernels():
        model = build_model(config)
        idx = torch.zeros(windows, config.block_size, dtype=torch.int64)
        with (
            gradient_checkpointing(model) if checkpointing else nullcontext(),
            torch.autograd.graph.saved_tensors_hooks(save, load),
            torch.autocast("cpu", torch.bfloat16, enabled=half),
        ):
            model.compute_logits(idx)
        for parameter in model.parameters():
            saved.discard(parameter.untyped_storage())
    return sum(storage.nbytes() for storage in saved)


class SavedBytes(NamedTuple):
    """The bytes that autograd saves for backward."""

    fixed: int  # however many windows there are: under autocast the weights in 16 bits
    per_window: int


def saved_bytes(config, half=True, checkpointing=False):
    """The bytes that autograd saves in a forward pass up to the logits, counted -> SavedBytes.

    half: under autocast to 16 bits, else in fp32. Then a block of the GPT saves 36 C + 4 H + 16 bytes a token, and with
    dropout 2 C more. Korthikanti et al. (2022) have 34 C, with dropout: in their models the stream between the blocks
    has 16 bits, and under autocast it has 32.
    """
    one = _count_saved(config, 1, half, checkpointing)
    two = _count_saved(config, 2, half, checkpointing)
    return SavedBytes(fixed=2 * one - two, per_window=two - one)


def _moment_bytes(model, optimizer):
    """The bytes that an optimizer keeps in fp32: two moments of a parameter; Muon one, of the blocks' matrices."""
    if optimizer == "adamw":
        return 8 * model.num_params()
    size = 0
    for group in muon_param_groups(model, weight_decay=0.0):
        moments = 1 if group["muon"] else 2
        size += sum(4 * moments * parameter.numel() for parameter in group["params"])
    return size


class MemoryNeed:
    """The memory of a card on which a model is trained, without torch.compile.

    processes: how many cards there are, each with the whole model (DDP). half: under autocast to 16 bits, else in fp32.
    """

    def __init__(self, config, optimizer, processes, checkpointing, half=True):
        model = build_meta_model(config)
        parameters = model.num_params()
        logits = config.block_size * config.vocab_size
        number = 2 if half else 4  # bytes
        saved = saved_bytes(config, half)
        copies = saved.fixed
        # Backward is at its peak when it begins, with the gradients of the logits, or in the last block, with the
        # gradients in it. There the widest, of the feed-forward layer, comes on top of what was saved.
        in_last_block = number * (logits + config.block_size * 4 * config.n_embd)
        if checkpointing:
            # Only the inputs of the blocks were saved. Backward computes the rest again, for one block at a time.
            whole = saved
            saved = saved_bytes(config, half, checkpointing=True)
            copies += (saved.fixed - whole.fixed) * (config.n_layer - 1) // config.n_layer
            in_last_block += (whole.per_window - saved.per_window) // config.n_layer
        self.fixed = {
            "weights": 4 * parameters,
            "gradients": 4 * parameters,
            f"moments ({optimizer})": _moment_bytes(model, optimizer),
            # DDP sends gradients in buckets, which are copies of them (gradient_as_bucket_view=False).
            "buckets of gradients": 4 * parameters if processes > 1 else 0,
            "weights in 16 bits": copies,
        }
        self.per_window = {
            "activations": saved.per_window,
            "logits and gradients": max((number + LOSS_BYTES) * logits, in_last_block),
        }

    def parts(self, windows):
        """{part: bytes} where a micro-batch has so many windows."""
        parts = dict(self.fixed)
        for part, size in self.per_window.items():
            parts[part] = windows * size
        return parts

    def total(self, windows):
        """The bytes where a micro-batch has so many windows."""
        return sum(self.parts(windows).values())

    def most_windows(self, memory):
        """How many windows a micro-batch may have in a card's memory, in bytes; 0 where not even one fits."""
        room = USABLE * memory - self.total(0)
        return max(int(room // sum(self.per_window.values())), 0)


# ---------------------------------------------------------------- what is printed


def _count(number, noun):
    """1 card, 2 cards."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _three_digits(number):
    """2.86, 1,230."""
    return f"{float(f'{number:.3g}'):,.12g}"


def _micro_batches(windows, most):
    """Divides windows into equal micro-batches of at most `most` >= 1 windows, as few as can be -> (windows in each, how many)."""
    size = min(windows, most)
    while windows % size != 0:
        size -= 1
    return size, windows // size


def check_cost_options(args):
    """Raises: ValueError for --tokens, --devices or --mfu that no training has, or that come without a preset."""
    if args.tokens is None and args.devices is None:
        return
    if args.preset is None:
        raise ValueError("--tokens and --devices are about a preset: add --preset gpt2, or another")
    if args.tokens is not None and not 0 < args.tokens < math.inf:
        raise ValueError(f"--tokens is {args.tokens:g}; it must be a number above 0, such as 9e9")
    if not 0 < args.mfu <= 1:
        raise ValueError(f"--mfu is {args.mfu:g}; it must be above 0 and at most 1, such as 0.3")
    if args.devices is not None:
        parse_devices(args.devices)


class TrainingCost:
    """What the training of a preset costs on some cards, and the command that does it.

    config: the model's; training: the preset's TrainConfig; the others are options that `check_cost_options` accepts.
    """

    def __init__(self, config, training, tokens, devices, mfu):
        self.config = config
        self.training = training
        self.tokens = tokens
        self.mfu = mfu
        self.cards = 1
        self.name = None
        if devices is not None:
            self.cards, self.name = parse_devices(devices)
        # Each process reads batch_size windows at a time, grad_accum times. The windows of the preset's step are divided
        # among them, so that its learning rate stays right.
        self.windows = max(round(training.batch_size * training.grad_accum / self.cards), 1)
        self.batch_size, self.grad_accum = _micro_batches(self.windows, training.batch_size)
        self.checkpointing = False

    @property
    def tokens_per_step(self):
        """The tokens that all cards read in a step of the optimizer."""
        return self.windows * self.cards * self.config.block_size

    @property
    def steps(self):
        """The steps in which the tokens are read; the last one may read a few more."""
        return math.ceil(self.tokens / self.tokens_per_step)

    def print_time(self, unit):
        """Prints the FLOPs, the steps and the hours. unit: what the tokenizer calls a token."""
        each = flops_per_token(build_meta_model(self.config))
        step = (
            f"{_count(self.tokens_per_step, unit)}: batch_size {self.batch_size} x "
            f"grad_accum {self.grad_accum} x block_size {self.config.block_size:,}"
        )
        if self.name is not None:
            step += f" x {_count(self.cards, 'card')}"
        if self.tokens is None:
            print(f"a step reads {step}")
            return
        flops = self.tokens * each
        print(f"{self.tokens:.3g} {unit}s x {each:,} FLOPs = {flops:.3g} FLOPs")
        print(f"{_count(self.steps, 'step')} of {step}")
        if self.name is None:
            return
        hours = training_hours(flops, self.cards, self.name, self.mfu)
        peak = DEVICES[self.name].flops / 1e12
        print(
            f"{_three_digits(hours)} hours ({_three_digits(hours / 24)} days) on {self.cards} x {self.name}, at "
            f"{self.mfu:g} of the peak of {peak:g} TFLOP/s each (--mfu)"
        )

    def print_memory(self):
        """Prints what a card's memory holds, and whether it is enough.

        Where it is not, batch_size and grad_accum become what fits; -> whether anything does.
        """
        whole = MemoryNeed(self.config, self.training.optimizer, self.cards, checkpointing=False)
        checkpointed = MemoryNeed(
            self.config, self.training.optimizer, self.cards, checkpointing=True
        )
        size = self.batch_size
        print(f"memory of a card in GB (10^9 bytes), with batch_size {size}:")
        print(f"{'without and with --gradient-checkpointing':>45}")
        columns = [whole.parts(size), checkpointed.parts(size)]
        for column in columns:
            column["total"] = sum(column.values())
        for part in columns[0]:
            left, right = (column[part] / 1e9 for column in columns)
            if left > 0:
                print(f"  {part:25}{left:8.3f}{right:10.3f}")

        memory = DEVICES[self.name].memory
        most = whole.most_windows(memory)
        most_checkpointed = checkpointed.most_windows(memory)
        room = f"the {memory / 1e9:g} GB of {self.name}, of which a tenth is left free"
        if most >= size:
            print(
                f"it fits into {room}; the largest --batch-size that does is {most:,}, with "
                f"--gradient-checkpointing {most_checkpointed:,}"
            )
            return True
        if most_checkpointed == 0:
            way_out = "take a card with more memory"
            if self.cards > 1:
                way_out += (
                    f", or cut weights, gradients and moments into {self.cards} parts (FSDP: lesson 13, "
                    "train_distributed(..., fsdp=True))"
                )
            print(f"it does not fit into {room}, not even with --batch-size 1: {way_out}")
            return False
        if most == 0:
            self.checkpointing = True
            most = most_checkpointed
        self.batch_size, self.grad_accum = _micro_batches(self.windows, most)
        way_out = f"--batch-size {self.batch_size} --grad-accum {self.grad_accum}"
        if self.checkpointing:
            way_out += " --gradient-checkpointing"
        elif most_checkpointed >= size:
            way_out += ", or --gradient-checkpointing"
        print(f"it does not fit into {room}; what does, with the same step: {way_out}")
        return True

    def why_no_command(self):
        """Why chargpt does not train on the cards, as a sentence; None where it does."""
        capability = DEVICES[self.name].capability
        if capability < MIN_CAPABILITY:
            has = ".".join(str(number) for number in capability)
            needed = ".".join(str(number) for number in MIN_CAPABILITY)
            return (
                f"chargpt does not compute on {self.name}: it has compute capability {has}, and PyTorch is built for "
                f"{needed} or more"
            )
        if self.cards > MOST_CARDS:
            return (
                f"no command is shown: more than {MOST_CARDS} cards are several computers, and torchrun has to be told "
                "which"
            )
        return None

    def command(self, preset, corpus, tokenizer):
        """The command line that trains the preset on the cards. corpus, tokenizer: what its options are given."""
        words = ["chargpt"]
        if self.cards > 1:
            words = ["torchrun", "--standalone", "--nproc-per-node", str(self.cards)]
            words += ["-m", "chargpt_lib.cli"]
        words += ["train", "--preset", preset, "--corpus", corpus]
        if tokenizer is not None:
            words += ["--tokenizer", tokenizer]
        if self.batch_size != self.training.batch_size:
            words += ["--batch-size", str(self.batch_size)]
        if self.grad_accum != self.training.grad_accum:
            words += ["--grad-accum", str(self.grad_accum)]
        words += ["--steps", str(self.steps)]
        if self.training.time_budget is not None:
            words += ["--time-budget", "None"]
        if self.checkpointing:
            words.append("--gradient-checkpointing")
        words.append("--compile")
        return shlex.join(words)


def print_cost(args, config, training, unit):
    """Prints what `chargpt info` says of --tokens and --devices. unit: what the tokenizer calls a token."""
    cost = TrainingCost(config, training, args.tokens, args.devices, args.mfu)
    cost.print_time(unit)
    if args.devices is None:
        return
    fits = cost.print_memory()
    problem = cost.why_no_command()
    if problem is not None:
        print(problem)
    elif fits and args.tokens is not None:
        corpus = args.corpus
        meaning = ""
        if corpus == DEFAULT_CORPUS:
            # The default is there for the sake of its tokenizer, and is no text of this size.
            corpus = "FOLDER"
            meaning = " (FOLDER: shards that chargpt_lib.shards.write_shards wrote)"
        print(f"to train{meaning}:")
        print(cost.command(args.preset, corpus, args.tokenizer))
