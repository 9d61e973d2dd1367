"""The race: who trains the best character model of a text from nothing in 180 seconds on two cores?

    python -m tests.benchmarks.race                  all five entrants, three seeds each: an hour; goes on where it
                                                     was interrupted
    python -m tests.benchmarks.race --entrants everything --seeds 1337
    python -m tests.benchmarks.race --budget 60 --corpus playhouse --out races.json
    python -m tests.benchmarks.race --quick          tiny models, seconds; says nothing but that everything works
    python -m tests.benchmarks.race --card           the entrants for a graphics card, where there is one
    python -m tests.benchmarks.race search           the settings that were tried; an hour and a half
    python -m tests.benchmarks.race plot             draws the curves again

The entrants:

- everything: a transformer on top of counts. See `CountingGPT`.
- transformer: no counts. The modern GPT of lesson 16, trained with Muon. See `LocalGPT`.
- nanoGPT: the settings that its README gives for a CPU. They end after 2,000 steps, which may be before the time is over.
- nanoGPT, longer: the same, but its schedule is fitted to the time.
- nanoGPT, tuned: the same sizes with ReLU, and a learning rate and a schedule that were chosen for the time.

The rules. Each run is a process of its own. Its clock starts before the process does: imports, reading the text,
counting and building the model count. Training ends before the time is over. Only then the validation text is encoded and
read. The loss is exact: disjoint windows of the model's block_size over all of the validation text, each character but
the first predicted once, and nothing seen that stands before its window. Copies of the weights are put aside at up to
twelve moments; their losses, computed after the end, too, are the curve. What long windows bring is told apart: the final
weights are also validated in windows of at most 256. No setting was chosen by the validation text: `search`
trains on the first nine tenths of the training text and validates on its last tenth, and is recorded with the rest in
data/results/race.json.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.files import read_json, write_json
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.modern import GroupedAttention, ModernConfig, ModernGPT, apply_rope, rope_cos_sin
from chargpt_lib.recipe import TrainConfig, get_lr, make_optimizer
from chargpt_lib.training import per_token_loss
from tests.benchmarks.machine import measured_on, processor_name
from tests.benchmarks.race_counts import (
    NGramCounts,
    confidence,
    log_increments,
    recent_counts,
)

ROOT = Path(__file__).parents[2]
OUT = ROOT / "data" / "results" / "race.json"
BUDGET = 180.0  # seconds
SEEDS = (1337, 1338, 1339)
SHORT_WINDOW = 256  # in which every model is read besides
IN_SHORT_WINDOWS = f"loss in windows of at most {SHORT_WINDOW}"
SNAPSHOTS = 12  # moments of a run that are on its curve


# ---------------------------------------------------------------- the models


class LocalAttention(GroupedAttention):
    """Attention to the recent past only: (B, T, C) -> (B, T, C). So a window may be long, and a step is still fast.

    The text is cut into chunks of `reach` positions. A position sees its own chunk, up to itself, and the chunk before
    it: from `reach` to 2 `reach` positions. What is farther back reaches it through the layers below.
    """

    def __init__(self, config, reach):
        super().__init__(config)
        self.reach = reach

    def forward(self, x, rotation=None, cache=None):
        if cache is not None:
            raise NotImplementedError("the race's models have no cache: they are not sampled from")
        B, T, C = x.shape
        D = self.head_size
        q = self.q(x).view(B, T, self.n_head, D)
        k = self.k(x).view(B, T, self.n_kv_head, D)
        v = self.v(x).view(B, T, self.n_kv_head, D)
        q = F.rms_norm(q, (D,))
        k = F.rms_norm(k, (D,))
        cos, sin = rotation
        q = self.chunks(apply_rope(q, cos, sin))  # (B, H, N, reach, D)
        k = self.with_previous(self.chunks(apply_rope(k, cos, sin)))  # (B, H, N, 2 reach, D)
        v = self.with_previous(self.chunks(v))
        scores = q @ k.mT * D**-0.5  # (B, H, N, reach, 2 reach)
        weights = scores.masked_fill(self.hidden(scores), float("-inf")).softmax(-1)
        out = weights.to(v.dtype) @ v  # (B, H, N, reach, D)
        out = out.flatten(2, 3)[:, :, :T].transpose(1, 2).reshape(B, T, C)
        return F.dropout(self.proj(out), self.dropout, self.training)

    def chunks(self, x):
        """(B, T, H, D) -> (B, H, N, reach, D), the last of the N chunks filled up with zeros."""
        B, T, H, D = x.shape
        x = F.pad(x, (0, 0, 0, 0, 0, -T % self.reach))
        return x.view(B, -1, self.reach, H, D).permute(0, 3, 1, 2, 4)

    def with_previous(self, x):
        """(B, H, N, reach, D) -> each chunk behind the one before it, (B, H, N, 2 reach, D)."""
        previous = F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1]
        return torch.cat([previous, x], dim=3)

    def hidden(self, scores):
        """What a position may not see: True where it is the future, or stands before the text, (N, reach, 2 reach)."""
        n_chunks, reach, _ = scores.shape[2:]
        rows = torch.arange(reach, device=scores.device)[:, None] + reach
        columns = torch.arange(2 * reach, device=scores.device)
        hidden = (columns > rows).repeat(n_chunks, 1, 1)
        hidden[0, :, :reach] = True  # nothing stands before the first chunk
        return hidden


class LocalGPT(ModernGPT):
    """Lesson 16's GPT with local attention: long windows at the price of short ones.

    On a processor with fast instructions for bf16 its blocks compute in bf16; see `has_fast_bf16`.
    """

    def __init__(self, config, reach, in_bf16=False):
        if config.positions != "rope" or not config.qk_norm or config.kv_heads != config.n_head:
            raise ValueError("local attention is written for RoPE, QK-norm and no grouped heads")
        if config.softcap > 0 or config.n_gram > 0:
            raise ValueError("the race's models have no soft-capping and no embeddings of n-grams")
        super().__init__(config)
        for block in self.blocks:
            attention = LocalAttention(config, reach)
            attention.load_state_dict(block.attention.state_dict())
            block.attention = attention
        self.in_bf16 = in_bf16

    def compute_logits(self, idx):
        """idx (B, T) -> logits (B, T, V)."""
        return self.lm_head(self.hidden_states(self.token_embedding(idx)))

    def hidden_states(self, x):
        """What the blocks make of embeddings: (B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        x = F.rms_norm(x, (C,))
        x = F.dropout(x, self.config.dropout, self.training)
        positions = torch.arange(T, device=x.device)
        rotation = rope_cos_sin(positions[:, None], C // self.config.n_head)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.in_bf16):
            for block in self.blocks:
                x = block(x, rotation)
        return self.norm(x.float())


class CountingGPT(LocalGPT):
    """A transformer on top of counts: it says how far each count is to be trusted, and what all of them miss.

    The counts are those of the training text, for contexts of 0 to 8 characters, and those of the window itself. Each
    order changes the log-probabilities of the one below it. The logits are the transformer's own, plus all these
    changes, each weighted by a gate that the transformer computes anew at each position:

        logits = lm_head(h) + sum over k of gate_k(h) * (log p_k - log p_{k-1})

    With all gates at 1 and no transformer this is the count model. What the counts say of the next character, and how
    sure they are, is added to the embeddings, so that the transformer knows it, too.
    """

    def __init__(self, config, reach, counts, recent_orders, recent_gate, in_bf16=False):
        super().__init__(config, reach, in_bf16)
        self.counts = counts
        self.recent_orders = recent_orders
        self.n_chain = len(counts.orders)
        n_experts = self.n_chain + len(recent_orders)
        self.read_counts = nn.Linear(config.vocab_size + 3 * n_experts, config.n_embd)
        self.gate = nn.Linear(config.n_embd, n_experts)
        nn.init.normal_(self.read_counts.weight, std=0.02)
        # In the beginning the counts alone decide.
        nn.init.zeros_(self.lm_head.weight)
        nn.init.zeros_(self.gate.weight)
        nn.init.ones_(self.gate.bias)
        with torch.no_grad():
            self.gate.bias[self.n_chain :] = recent_gate

    def compute_logits(self, idx, counts=None):
        """idx (B, T) -> logits (B, T, V). counts (K, B, T, V): those of the training text, where they are known."""
        if counts is None:
            counts = self.counts.in_windows(idx)
        experts = list(counts)
        for order in self.recent_orders:
            experts.append(recent_counts(idx, order, self.vocab_size))
        counts = torch.stack(experts)
        changes, p = log_increments(counts, self.n_chain)
        said = torch.cat([p, confidence(counts)], dim=-1)
        h = self.hidden_states(self.token_embedding(idx) + self.read_counts(said))
        gates = self.gate(h)  # (B, T, K)
        return self.lm_head(h) + torch.einsum("btk,kbtv->btv", gates, changes)


# ---------------------------------------------------------------- the entrants


@dataclass(frozen=True)
class Entrant:
    """A model and its training, with all settings."""

    build: str  # the name of the function that builds its model
    model: dict  # the settings of the model's config
    training: dict  # those of TrainConfig
    extras: dict = field(default_factory=dict)  # what the function wants besides
    compile: bool = False
    budget: float | None = None  # seconds, where it is another than the race's


def build_nanogpt(ids, config, in_bf16):
    return GPT(GPTConfig(**config))


def build_transformer(ids, config, in_bf16, reach):
    return LocalGPT(ModernConfig(**config), reach, in_bf16)


def build_everything(ids, config, in_bf16, reach, orders, recent_orders, recent_gate, n_folds):
    counts = NGramCounts(ids, config["vocab_size"], tuple(orders), n_folds)
    config = ModernConfig(**config)
    return CountingGPT(config, reach, counts, tuple(recent_orders), recent_gate, in_bf16)


BUILDERS = {
    "nanogpt": build_nanogpt,
    "transformer": build_transformer,
    "everything": build_everything,
}

NANOGPT = {"block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 128}
NANOGPT_TRAINING = {
    "batch_size": 12,
    "learning_rate": 1e-3,
    "min_lr": 1e-4,
    "warmup": 0.05,  # 100 steps of 2,000
}
MODERN_PARTS = {"activation": "relu2", "softcap": 0.0, "tied": False}
MODERN = MODERN_PARTS | {"n_layer": 4, "n_head": 2, "n_embd": 128}
MUON_TRAINING = {
    "optimizer": "muon",
    "learning_rate": 4e-3,
    "schedule": "wsd",
    "warmup": 0.02,
    "decay": 0.5,
    "weight_decay": 0.0,
}
ENTRANTS = {
    "everything": Entrant(
        build="everything",
        model=MODERN | {"block_size": 1024, "dropout": 0.15},
        training=MUON_TRAINING | {"batch_size": 2},
        extras={
            "reach": 64,
            "orders": [0, 1, 2, 3, 4, 5, 6, 7, 8],
            "recent_orders": [3, 5],
            "recent_gate": 0.3,
            "n_folds": 10,
        },
    ),
    "transformer": Entrant(
        build="transformer",
        model=MODERN | {"block_size": 512, "dropout": 0.05},
        training=MUON_TRAINING | {"batch_size": 4},
        extras={"reach": 64},
    ),
    "nanoGPT, tuned": Entrant(
        build="nanogpt",
        model=NANOGPT | {"activation": "relu"},
        training={
            "batch_size": 12,
            "learning_rate": 3e-3,
            "schedule": "wsd",
            "decay": 0.6,
        },
    ),
    "nanoGPT, longer": Entrant(build="nanogpt", model=NANOGPT, training=NANOGPT_TRAINING),
    "nanoGPT": Entrant(
        build="nanogpt",
        model=NANOGPT,
        training=NANOGPT_TRAINING | {"steps": 2000},
    ),
}

# 10.7 million parameters, as nanoGPT's baby GPT. Not measured yet: there was no card.
BABY = MODERN_PARTS | {"n_layer": 6, "n_head": 6, "n_embd": 384}
CARD_TRAINING = MUON_TRAINING | {"batch_size": 64, "weight_decay": 0.1}
CARD_ENTRANTS = {
    "10.7M on a card": Entrant(
        build="transformer",
        model=BABY | {"block_size": 256, "dropout": 0.15},
        training=CARD_TRAINING,
        extras={"reach": 128},
        compile=True,
    ),
    "10.7M on a card, quickly": Entrant(
        build="transformer",
        model=BABY | {"block_size": 256, "dropout": 0.0},
        training=CARD_TRAINING,
        extras={"reach": 128},
        compile=True,
        budget=20.0,
    ),
    "10.7M and counts on a card": Entrant(
        build="everything",
        model=BABY | {"block_size": 1024, "dropout": 0.15},
        training=CARD_TRAINING | {"batch_size": 16},
        extras=ENTRANTS["everything"].extras | {"reach": 128},
        compile=True,
    ),
}
BABY_README = 1.4697  # what nanoGPT's README says of its baby GPT

# Okabe and Ito's colours, which can be told apart by everybody, on light and on dark.
COLOURS = {
    "nanoGPT": "#D55E00",
    "nanoGPT, longer": "#CC79A7",
    "nanoGPT, tuned": "#E69F00",
    "transformer": "#009E73",
    "everything": "#0072B2",
}

# What else was tried, each a change of one entrant: {entrant: {what: {part: {setting: value}}}}.
SEARCH = {
    "everything": {
        "as it is": {},
        "counts up to order 6": {"extras": {"orders": [0, 1, 2, 3, 4, 5, 6]}},
        "no counts of the window": {"extras": {"recent_orders": []}},
        "counts of the window of orders 2, 3, 4 and 6": {
            "extras": {"recent_orders": [2, 3, 4, 6], "recent_gate": 0.2}
        },
        "40 folds": {"extras": {"n_folds": 40}},
        "windows of 256": {"model": {"block_size": 256}, "training": {"batch_size": 8}},
        "windows of 2,048": {"model": {"block_size": 2048}, "training": {"batch_size": 1}},
        "one window a step": {"training": {"batch_size": 1}},
        "decay over 80% of the time": {"training": {"decay": 0.8}},
        "twice the rate": {"training": {"learning_rate": 8e-3}},
        "half the rate": {"training": {"learning_rate": 2e-3}},
        "dropout 0": {"model": {"dropout": 0.0}},
        "dropout 0.05": {"model": {"dropout": 0.05}},
        "2 layers": {"model": {"n_layer": 2}},
        "192 wide": {"model": {"n_embd": 192, "n_head": 3}},
    },
    "transformer": {
        "as it is": {},
        "windows of 256": {"model": {"block_size": 256}, "training": {"batch_size": 8}},
        "windows of 1,024": {"model": {"block_size": 1024}, "training": {"batch_size": 2}},
        "twice the rate": {"training": {"learning_rate": 8e-3}},
        "half the rate": {"training": {"learning_rate": 2e-3}},
        "dropout 0": {"model": {"dropout": 0.0}},
        "4 heads": {"model": {"n_head": 4}},
        "AdamW": {"training": {"optimizer": "adamw"}},
    },
    "nanoGPT, tuned": {
        "as it is": {},
        "twice the rate": {"training": {"learning_rate": 6e-3}},
        "half the rate": {"training": {"learning_rate": 1.5e-3}},
        "GELU": {"model": {"activation": "gelu"}},
    },
}

# Small enough for a test: they show that everything works, and nothing else.
QUICK_SIZES = {"block_size": 32, "n_layer": 1, "n_head": 2, "n_embd": 16}


# ---------------------------------------------------------------- one run


def has_fast_bf16():
    """True where the processor multiplies matrices in bf16 faster than in fp32; others take many times as long."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(256, 256).to(dtype)
        a @ a  # the first product chooses its kernel
        start = time.perf_counter()
        for _ in range(5):
            a @ a
        seconds[dtype] = time.perf_counter() - start
    return seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]


def random_starts(n_ids, block_size, generator):
    """Where windows begin: anywhere, as nanoGPT draws them."""
    while True:
        yield torch.randint(n_ids - block_size, (1,), generator=generator).item()


def shuffled_starts(n_ids, block_size, generator):
    """Where windows begin: in each epoch all of the text once, cut at other places than before, in a new order."""
    while True:
        offset = torch.randint(min(block_size, n_ids - block_size), (1,), generator=generator)
        n_windows = (n_ids - 1 - offset.item()) // block_size
        for i in torch.randperm(n_windows, generator=generator):
            yield offset.item() + i.item() * block_size


class Clock:
    """Seconds since a run began. cpu: of the processor, for a run with one thread on a machine that is not quiet."""

    def __init__(self, started, cpu):
        self.started = started
        self.cpu = cpu

    def __call__(self):
        if self.cpu:
            return time.process_time()
        return time.time() - self.started


def train_config(entrant, seed, budget):
    """How an entrant is trained: until the time is over, or until its number of steps is made, where it has one."""
    return TrainConfig(**entrant.training, time_budget=budget, seed=seed)


def train(entrant, ids, seed, budget, clock, device, n_snapshots=SNAPSHOTS):
    """Trains an entrant from nothing until the budget is spent, or its steps are made.

    Returns the model; [(seconds, steps, weights)] of up to n_snapshots moments, the last at the end; and what there is
    to say of the run, a dict.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    in_bf16 = device.type == "cuda" or has_fast_bf16()
    model = BUILDERS[entrant.build](ids, entrant.model, in_bf16, **entrant.extras)
    model.to(device).train()
    config = train_config(entrant, seed, budget)
    optimizer = make_optimizer(model, config)
    # nanoGPT draws its windows; the others read all of the text before they read it again.
    draw_starts = random_starts if entrant.build == "nanogpt" else shuffled_starts
    starts = draw_starts(len(ids), model.block_size, generator)
    ids = ids.to(device)
    offsets = torch.arange(model.block_size, device=device)
    compute_logits = model.compute_logits
    if entrant.compile:
        compute_logits = torch.compile(compute_logits)
    snapshots = []
    step = 0
    seconds_per_step = 0.0
    prepared = clock()
    after_first_step = None
    # The schedule is fitted to the time that is left after the preparation.
    time_left = max(budget - prepared, 1e-3)
    # No step begins that would not end in time.
    while step == 0 or (step != config.steps and clock() + seconds_per_step < budget):
        elapsed = (clock() - prepared) / time_left
        rate = get_lr(step, config, min(elapsed, 1.0))
        for group in optimizer.param_groups:
            group["lr"] = rate

        begins = torch.tensor([next(starts) for _ in range(config.batch_size)], device=device)
        places = begins[:, None] + offsets  # (B, T)
        x = ids[places]
        y = ids[places + 1]
        if entrant.build == "everything":
            # Where a window stands in the text is known: so its own fold can be left out of the counts.
            logits = compute_logits(x, model.counts.in_training_windows(places))
        else:
            logits = compute_logits(x)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        # Muon's step is products of matrices, for which bf16 is exact enough.
        with torch.autocast(device.type, torch.bfloat16, enabled=in_bf16):
            optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()  # a card works on what it was given while the clock is read

        step += 1
        if after_first_step is None:
            after_first_step = clock()
        seconds_per_step = (clock() - prepared) / step
        next_moment = budget * (len(snapshots) + 1) / n_snapshots
        if len(snapshots) < n_snapshots - 1 and clock() >= next_moment:
            snapshots.append((clock(), step, copy.deepcopy(model.state_dict())))
    seconds = clock()
    snapshots.append((seconds, step, copy.deepcopy(model.state_dict())))
    about = {
        "seconds": seconds,
        "seconds of preparation": prepared,
        "seconds of the first step": after_first_step - prepared,
        "steps": step,
        "characters a second": step * x.numel() / (seconds - prepared),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "blocks in bf16": in_bf16 and entrant.build != "nanogpt",
        "last training loss": loss.item(),
    }
    return model, snapshots, about


def exact_loss(model, ids):
    """The loss of `chargpt_lib.training.evaluate`, with as many windows at a time as need little memory."""
    batch_size = max(8192 // model.block_size, 1)
    return per_token_loss(model, ids, batch_size=batch_size).double().mean().item()


def first_below(curve, loss):
    """Seconds until the loss was at most this; None if it never was."""
    for point in curve:
        if point["loss"] <= loss:
            return point["seconds"]
    return None


def split_corpus(name, validate):
    """What is trained on and what is validated on, two texts.

    validate: "validation", or "tenth": then both are of the training text, whose last tenth takes the part of the
    validation text. All settings are chosen by it.
    """
    corpus = load_corpus(name)
    if validate == "validation":
        return corpus.train, corpus.val
    cut = 9 * len(corpus.train) // 10
    return corpus.train[:cut], corpus.train[cut:]


def one_run(options):
    """One entrant with one seed, in this process -> its record."""
    clock = Clock(options.started, options.clock == "cpu")
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    entrant = find_entrant(options.entrants[0], options.quick, options.changes)
    train_text, val_text = split_corpus(options.corpus, options.validate)
    # The alphabet is the training text's: nothing of the other text is looked at before the end.
    tokenizer = CharTokenizer.from_text(train_text)
    entrant.model["vocab_size"] = tokenizer.vocab_size
    ids = tokenizer.encode(train_text)
    seed = options.seeds[0]
    n_snapshots = SNAPSHOTS
    if options.device == "cuda":
        n_snapshots = 10 * SNAPSHOTS  # how soon it gets there is a question of single seconds
    if options.validate == "tenth":
        n_snapshots = 1  # a search wants the end only
    model, snapshots, about = train(entrant, ids, seed, options.budget, clock, device, n_snapshots)

    start = time.perf_counter()
    val_ids = tokenizer.encode(val_text)
    curve = []
    for seconds, steps, weights in snapshots:
        model.load_state_dict(weights)
        loss = exact_loss(model, val_ids)
        curve.append({"seconds": seconds, "steps": steps, "loss": loss})
    # What long windows bring: the same weights, read in windows as short as many others'.
    model.block_size = min(model.block_size, SHORT_WINDOW)
    in_short_windows = exact_loss(model, val_ids)
    return {
        "seed": seed,
        "loss": loss,
        IN_SHORT_WINDOWS: in_short_windows,
        **about,
        "seconds of evaluation": time.perf_counter() - start,
        "curve": curve,
        f"seconds to {BABY_README}": first_below(curve, BABY_README),
        "budget": options.budget,
        "clock": options.clock,
        "block_size": entrant.model["block_size"],
        **measured_on(device),
        "processor": processor_name(),
    }


# ---------------------------------------------------------------- the race


def find_entrant(name, quick=False, changes=None):
    """A copy of an entrant. changes: {"model", "training" or "extras": {setting: another value}}."""
    entrant = copy.deepcopy({**ENTRANTS, **CARD_ENTRANTS}[name])
    if quick:
        entrant.model.update(QUICK_SIZES)
        entrant.training["batch_size"] = 2
        entrant = replace(entrant, compile=False)
    for part, values in (changes or {}).items():
        getattr(entrant, part).update(values)
    return entrant


def start_run(options, name, seed, budget, changes=None):
    """Makes one run in a process of its own, whose clock starts here -> its record."""
    command = [sys.executable, "-m", "tests.benchmarks.race", "one-run"]
    command += ["--entrants", name, "--seeds", str(seed)]
    command += ["--budget", str(budget)]
    for option in ("corpus", "clock", "threads", "device", "validate"):
        command += [f"--{option}", str(getattr(options, option))]
    if options.quick:
        command.append("--quick")
    if changes:
        command += ["--changes", json.dumps(changes)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    command += ["--started", str(time.time())]
    process = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if process.returncode != 0:
        raise RuntimeError(f"the run of {name} with seed {seed} failed; what it said stands above")
    return json.loads(process.stdout.splitlines()[-1])


def is_same_run(row, options, entrant, seed, budget):
    """True for the record of a run with these very settings."""
    return (
        row["seed"] == seed
        and row["settings"] == asdict(entrant)
        and row["corpus"] == options.corpus
        and row["budget"] == budget
        and row["clock"] == options.clock
        and row["threads"] == options.threads
    )


def race(options, record):
    """Makes the runs that the record lacks; yields after each."""
    for seed in options.seeds:
        for name in options.entrants:
            entrant = find_entrant(name, options.quick)
            rows = record.setdefault("runs", {}).setdefault(name, [])
            budget = options.budget
            if entrant.budget is not None and not options.quick:
                budget = entrant.budget
            if any(is_same_run(row, options, entrant, seed, budget) for row in rows):
                continue
            row = start_run(options, name, seed, budget)
            row |= {"settings": asdict(entrant), "corpus": options.corpus}
            # A run with other settings, of an earlier day, makes room.
            rows[:] = [other for other in rows if other["seed"] != seed]
            rows.append(row)
            rows.sort(key=lambda other: other["seed"])
            print(
                f"{name}, seed {seed}: {row['loss']:.4f} after {row['seconds']:.1f} s", flush=True
            )
            yield


def mean_loss(record, name):
    return fmean(row["loss"] for row in record["runs"][name])


def table(record):
    """The entrants and their losses, as a table in Markdown."""
    lines = [
        "| entrant | loss, mean of the seeds | from ... to ... | window | in windows of 256 | steps | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in (*ENTRANTS, *CARD_ENTRANTS):
        rows = record.get("runs", {}).get(name, [])
        if not rows:
            lines.append(f"| {name} | not measured yet | | | | | |")
            continue
        losses = [row["loss"] for row in rows]
        steps = fmean(row["steps"] for row in rows)
        seconds = fmean(row["seconds"] for row in rows)
        short = fmean(row[IN_SHORT_WINDOWS] for row in rows)
        block_size = rows[0]["block_size"]
        in_short_windows = f"{short:.3f}" if block_size >= SHORT_WINDOW else ""
        lines.append(
            f"| {name} | {fmean(losses):.3f} | {min(losses):.3f} to {max(losses):.3f} "
            f"| {block_size} | {in_short_windows} | {steps:,.0f} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def leads(record):
    """How far below its rivals the first entrant is, in a sentence."""
    best = mean_loss(record, "everything")
    own, longer, tuned = [
        mean_loss(record, name) - best for name in ("nanoGPT", "nanoGPT, longer", "nanoGPT, tuned")
    ]
    return (
        f"everything is {own:.2f} below nanoGPT with its own settings, {longer:.2f} below the same with a schedule that "
        f"fills the time, and {tuned:.2f} below the tuned one"
    )


# ---------------------------------------------------------------- the search


def search(options, record):
    """Tries the variations of SEARCH that the record lacks, on the last tenth of the training text; yields after each."""
    options = copy.copy(options)
    options.validate = "tenth"
    tried = record.setdefault("search", {})
    for name in options.entrants:
        for variation, changes in SEARCH.get(name, {}).items():
            rows = tried.setdefault(name, {})
            if variation in rows:
                continue
            row = start_run(options, name, SEEDS[0], options.budget, changes)
            rows[variation] = {
                "changes": changes,
                "loss": row["loss"],
                "steps": row["steps"],
                "seconds": row["seconds"],
                "clock": row["clock"],
                "threads": row["threads"],
            }
            print(f"{name}, {variation}: {row['loss']:.4f}", flush=True)
            yield


# ---------------------------------------------------------------- the picture


def draw(record):
    """The losses of all entrants against time, a curve for each seed -> matplotlib figure."""
    from matplotlib.pyplot import subplots

    fig, ax = subplots(figsize=(8, 4.5), layout="constrained")
    for name, colour in COLOURS.items():
        rows = record["runs"].get(name, [])
        if not rows:
            continue
        for row in rows:
            seconds = [point["seconds"] for point in row["curve"]]
            losses = [point["loss"] for point in row["curve"]]
            ax.plot(seconds, losses, color=colour, linewidth=1.2, marker="o", markersize=2.5)
        end = max(row["seconds"] for row in rows)
        loss = mean_loss(record, name)
        # Beside the end of the curve; above it, where other curves go on.
        offset = (8, 0) if end > 0.9 * rows[0]["budget"] else (4, 20)
        ax.annotate(
            f"{name}: {loss:.2f}",
            (end, loss),
            xytext=offset,
            textcoords="offset points",
            color=colour,
            va="center",
        )
    ax.set(xlabel="seconds since the start", ylabel="validation loss, nats per character")
    ax.set_xlim(0, None)
    ax.set_ylim(None, 2.6)
    ax.spines[["top", "right"]].set_visible(False)
    return fig


def save_picture(fig, path):
    """Saves a figure that can be read on a light page and on a dark one."""
    # In grey, and without a background, all that is no curve is legible on both.
    grey = "#808080"
    for ax in fig.axes:
        ax.tick_params(colors=grey)
        ax.xaxis.label.set_color(grey)
        ax.yaxis.label.set_color(grey)
        for spine in ax.spines.values():
            spine.set_color(grey)
    fig.savefig(path, transparent=True, metadata={"Date": None})


# ---------------------------------------------------------------- the command


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.race",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "action", nargs="?", default="race", choices=["race", "search", "plot", "one-run"]
    )
    parser.add_argument("--budget", type=float, default=None, help="seconds; by default 180")
    parser.add_argument("--corpus", default="shakespeare")
    parser.add_argument("--entrants", nargs="+", default=None, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="by default data/results/race.json")
    parser.add_argument("--quick", action="store_true", help="tiny models, 2 seconds, one seed")
    parser.add_argument("--card", action="store_true", help="the entrants for a graphics card")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: seconds of the processor, for a search with one thread on a busy machine",
    )
    parser.add_argument("--device", default="cpu")
    # What the command says to the processes that it starts.
    for hidden in ("--started", "--changes", "--validate"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    known = CARD_ENTRANTS if options.card else ENTRANTS
    if options.entrants is None:
        options.entrants = list(known)
    for name in options.entrants:
        if name not in ENTRANTS and name not in CARD_ENTRANTS:
            parser.error(f"there is no entrant {name!r}: take some of {', '.join(ENTRANTS)}")
    if options.budget is None:
        options.budget = 2.0 if options.quick else BUDGET
    if options.quick:
        options.seeds = options.seeds[:1]
    if options.card and options.device == "cpu" and not options.quick:
        options.device = "cuda"
    if options.validate is None:
        options.validate = "validation"
    options.changes = json.loads(options.changes or "{}")
    options.started = float(options.started or time.time())
    return options


def record_path(options):
    """Where the record is; None for a race that is not kept, because it is another one."""
    if options.out is not None:
        return options.out
    if options.action != "race":
        return OUT
    is_usual = options.budget == BUDGET and options.corpus == "shakespeare"
    if is_usual and options.clock == "wall" and not options.quick:
        return OUT
    return None


def main(arguments=None):
    options = parse(arguments)
    if options.action == "one-run":
        print(json.dumps(one_run(options)))
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no graphics card here: its rows stay 'not measured yet'.")
        return
    out = record_path(options)
    record = {}
    if out is not None:
        record = read_json(out)
    if options.action == "plot":
        save_picture(draw(record), out.with_suffix(".svg"))
        return
    steps = race
    if options.action == "search":
        steps = search
    for _ in steps(options, record):
        if out is not None:
            write_json(out, record)
    if options.action == "race":
        print(table(record))
        if all(name in record.get("runs", {}) for name in ENTRANTS):
            print(leads(record))


if __name__ == "__main__":
    main()
