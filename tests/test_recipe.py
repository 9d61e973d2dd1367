"""Lesson 10, the parts: a rate as published, windows that come once, less memory for the same gradient, a stop that waits."""

import inspect
import math
import re
import signal
import threading
from dataclasses import fields
from typing import get_args, get_type_hints
from unittest import mock

import pytest
import torch

from chargpt_lib import modern, recipe, trainer
from chargpt_lib.bigram import BigramLanguageModel
from chargpt_lib.devices import pick_precision
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.recipe import (
    OPTIMIZERS,
    ShuffledWindows,
    TrainConfig,
    catch_sigint,
    compile_model,
    get_lr,
    gradient_checkpointing,
    make_optimizer,
)


def tiny_gpt(**changes):
    torch.manual_seed(0)
    return GPT(
        GPTConfig(
            **{"vocab_size": 7, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 8} | changes
        )
    )


# ---------------------------------------------------------------- the config

BAD = [
    ("steps", 0),
    ("steps", 2.5),
    ("steps", True),
    ("steps", "9"),
    ("epochs", 0),
    ("epochs", -1.0),
    ("epochs", math.inf),
    ("time_budget", 0),
    ("time_budget", math.nan),
    ("batch_size", 0),
    ("batch_size", None),
    ("grad_accum", 0),
    ("grad_accum", 1.0),
    ("learning_rate", 0),
    ("learning_rate", -1e-3),
    ("learning_rate", math.nan),
    ("learning_rate", math.inf),
    ("learning_rate", "1e-3"),
    ("min_lr", -1),
    ("min_lr", 2e-3),
    ("warmup", -0.1),
    ("warmup", 1.0),
    ("warmup", 100),
    ("schedule", "linear"),
    ("schedule", None),
    ("decay", -0.1),
    ("decay", 1.1),
    ("optimizer", "sgd"),
    ("optimizer", None),
    ("optimizer", ["muon"]),
    ("weight_decay", -0.1),
    ("betas", (0.9, 1.0)),
    ("betas", 0.9),
    ("betas", (0.9,)),
    ("betas", ("a", "b")),
    ("grad_clip", -1),
    ("grad_clip", None),
    ("seed", -1),
    ("seed", 2**32),
    ("seed", 1.5),
    ("precision", "fp8"),
    ("precision", torch.float16),
    ("compile", 1),
    ("gradient_checkpointing", "yes"),
    ("eval_interval", 0),
    ("eval_batches", -1),
    ("patience", 0),
    ("out", 7),
    ("checkpoint_interval", 0),
    ("tensorboard", True),
    ("tensorboard", "yes"),
    ("schedule", ["wsd"]),
    ("warmup", "a"),
    ("learning_rate", None),
]


@pytest.mark.parametrize("name, value", BAD)
def test_what_no_training_can_use_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} is {re.escape(repr(value))}; it has to be ."):
        TrainConfig(**{name: value})


def test_every_field_is_among_the_bad_ones():
    assert {name for name, _ in BAD} == {field.name for field in fields(TrainConfig)}


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 1},
        {"epochs": 0.5, "steps": 3},
        {"time_budget": 1},
        {"learning_rate": 1, "min_lr": 1},
        {"warmup": 0},
        {"grad_clip": 0, "weight_decay": 0},
        {"schedule": "wsd", "warmup": 0.25, "decay": 0.75},
        {"betas": [0, 0.5]},
        {"seed": 0},
        {"out": "folder", "tensorboard": True},
        {"patience": 1, "eval_batches": 1},
    ],
)
def test_the_edges_are_allowed(values):
    config = TrainConfig(**values)
    assert all(getattr(config, name) == value for name, value in values.items())


def test_warmup_and_decay_do_not_overlap():
    with pytest.raises(ValueError, match="^decay is 0.96; .* from 0 to 0.95, 1 - warmup"):
        TrainConfig(schedule="wsd", decay=0.96)
    assert TrainConfig(schedule="cosine", decay=0.96) and TrainConfig(schedule="wsd", decay=0.95)


def test_without_an_end_there_are_2000_steps():
    assert TrainConfig().steps == 2000
    assert TrainConfig(epochs=1).steps is None and TrainConfig(time_budget=1).steps is None


def test_every_field_is_plain_explained_and_used():
    source = inspect.getsource(TrainConfig)
    optimizers = recipe.make_optimizer, recipe.make_adamw, modern.make_muon
    parts = recipe.get_lr, *optimizers, recipe.prepare_data, trainer
    code = "".join(map(inspect.getsource, parts))
    for field in fields(TrainConfig):
        assert re.search(rf"^    {field.name}: .+ = .+  # .+", source, re.M), (
            f"{field.name} has no line that explains it"
        )
        assert f"config.{field.name}" in code, f"nobody uses {field.name}"


# ---------------------------------------------------------------- the rate


def torchs(schedulers, milestones, steps, peak):
    """The rates that torch's own schedulers give, one after the other."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    chain = torch.optim.lr_scheduler.SequentialLR(
        optimizer, [make(optimizer) for make in schedulers], milestones
    )
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        chain.step()
    return rates


@pytest.mark.parametrize("steps, rising, lowest", [(100, 10, 0.0), (200, 50, 1e-4), (40, 2, 1e-3)])
@pytest.mark.filterwarnings("ignore")  # torch's own schedulers warn of their own chaining
def test_cosine_is_torchs(steps, rising, lowest):
    schedule = torch.optim.lr_scheduler
    expected = torchs(
        [
            lambda o: schedule.LinearLR(o, 1 / rising, 1, rising - 1),
            lambda o: schedule.CosineAnnealingLR(o, steps - rising, lowest),
        ],
        [rising],
        steps,
        3e-3,
    )
    config = TrainConfig(steps=steps, warmup=rising / steps, learning_rate=3e-3, min_lr=lowest)
    assert [get_lr(step, config) for step in range(steps)] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("steps, rising, falling", [(100, 10, 20), (80, 4, 40)])
@pytest.mark.filterwarnings("ignore")
def test_wsd_is_torchs(steps, rising, falling):
    schedule = torch.optim.lr_scheduler
    expected = torchs(
        [
            lambda o: schedule.LinearLR(o, 1 / rising, 1, rising - 1),
            lambda o: schedule.ConstantLR(o, 1),
            lambda o: schedule.LinearLR(o, 1, 0, falling),
        ],
        [rising, steps - falling],
        steps,
        0.1,
    )
    config = TrainConfig(
        steps=steps, warmup=rising / steps, learning_rate=0.1, schedule="wsd", decay=falling / steps
    )
    assert [get_lr(step, config) for step in range(steps)] == pytest.approx(expected, rel=1e-6)


def test_without_decay_the_rate_stays():
    config = TrainConfig(steps=50, warmup=0.0, schedule="wsd", decay=0.0, learning_rate=0.1)
    assert [get_lr(step, config) for step in range(60)] == [0.1] * 60


def test_the_least_rate_is_where_it_ends():
    for schedule in ("cosine", "wsd"):
        config = TrainConfig(steps=50, schedule=schedule, min_lr=2e-4)
        assert get_lr(50, config) == get_lr(70, config) == pytest.approx(2e-4)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_time_drives_the_schedule_as_steps_do(schedule):
    by_time = TrainConfig(time_budget=60, schedule=schedule, warmup=0.1)
    by_steps = TrainConfig(steps=1000, schedule=schedule, warmup=0.1)
    for share in (0.101, 0.3, 0.5, 0.85, 0.95, 1.0):
        assert get_lr(7, by_time, share) == pytest.approx(
            get_lr(round(1000 * share), by_steps), rel=1e-6
        )
    assert get_lr(0, by_time, 0.05) == pytest.approx(0.5e-3) and get_lr(
        9, by_time, 2.0
    ) == pytest.approx(0)
    both = TrainConfig(steps=1000, time_budget=60, schedule=schedule, warmup=0.1)
    assert get_lr(900, both, 0.2) == get_lr(900, by_steps)  # whichever is further
    assert get_lr(200, both, 0.9) == pytest.approx(get_lr(900, by_steps))


# ---------------------------------------------------------------- the windows


@pytest.mark.parametrize("length, T", [(9, 8), (16, 8), (17, 8), (100, 8), (103, 7), (50, 1)])
def test_an_epoch_has_each_window_once(length, T):
    windows = ShuffledWindows(torch.arange(length), T, seed=3)
    firsts = []
    for epoch in range(4):
        x, y = windows.batch(epoch * windows.count, windows.count)
        assert x.shape == y.shape == (windows.count, T) and torch.equal(y, x + 1)
        assert torch.equal(x, x[:, :1] + torch.arange(T)) and len(x.unique()) == x.numel()
        assert windows.count * T > length - 2 * T - 1 and y.max() < length
        firsts.append(x[:, 0].tolist())
    assert (
        length < 3 * T
        or (T == 1 or len({min(starts) for starts in firsts}) > 1)
        and firsts[0] != sorted(firsts[0])
    )


def test_every_character_is_seen_in_the_end():
    windows = ShuffledWindows(torch.arange(45), 8, seed=0)
    x, y = windows.batch(0, 40 * windows.count)
    assert set(x.flatten().tolist()) == set(range(44)) and set(y.flatten().tolist()) == set(
        range(1, 45)
    )


def test_every_seed_and_every_epoch_has_another_order():
    """torch takes 32 bits of a seed: with too simple a mixture, all odd seeds were the same."""
    ids = torch.arange(4001)
    orders = {
        tuple(ShuffledWindows(ids, 8, seed).order(epoch).tolist())
        for seed in (0, 1, 2, 3, 1337, 1338, 2**31, 2**32 - 1)
        for epoch in range(5)
    }
    assert len(orders) == 8 * 5


def test_batches_go_on_over_the_ends_of_epochs():
    windows = ShuffledWindows(torch.arange(60), 8, seed=1)
    whole, _ = windows.batch(0, 31)
    for sizes in ([31], [1] * 31, [4, 20, 7]):
        parts, seen = [], 0
        for size in sizes:
            parts.append(windows.batch(seen, size)[0])
            seen += size
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(
        ShuffledWindows(torch.arange(60), 8, seed=1).batch(17, 9)[0], whole[17:26]
    )  # needs no memory of the way
    assert not torch.equal(ShuffledWindows(torch.arange(60), 8, seed=2).batch(0, 31)[0], whole)


def test_the_dice_of_others_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    ShuffledWindows(torch.arange(60), 8, seed=1).batch(0, 20)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("length", [0, 1, 8])
def test_a_text_without_a_window(length):
    with pytest.raises(
        ValueError, match=rf"text has {length} ids, .* = 9: .* block_size <= {max(length - 1, 0)}"
    ):
        ShuffledWindows(torch.arange(length), 8, 0)


# ---------------------------------------------------------------- optimizer and precision


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_is_for_matrices(name):
    model = tiny_gpt(bias=True)
    config = TrainConfig(optimizer=name, weight_decay=0.3, betas=(0.8, 0.95), learning_rate=0.01)
    optimizer = make_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.01 * 0.3 if parameter.dim() > 1 else 1
        assert torch.allclose(parameter, factor * before[name]), name
    assert {(group["betas"], group["fused"]) for group in optimizer.param_groups} == {
        ((0.8, 0.95), True)
    }


def test_the_config_names_every_optimizer():
    assert get_args(get_type_hints(TrainConfig)["optimizer"]) == tuple(OPTIMIZERS)


def test_muon_has_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = tiny_gpt(bias=True, tied=False)
    optimizer = make_optimizer(model, TrainConfig(optimizer="muon"))
    names = {parameter: name for name, parameter in model.named_parameters()}
    by_muon = set()
    by_adamw = set()
    for group in optimizer.param_groups:
        found = {names[parameter] for parameter in group["params"]}
        assert not found & (by_muon | by_adamw), "a parameter has one group"
        if group["muon"]:
            by_muon |= found
        else:
            by_adamw |= found
    assert by_muon | by_adamw == set(names.values())
    for parameter, name in names.items():
        is_matrix_of_a_block = name.startswith("blocks.") and parameter.dim() == 2
        assert (name in by_muon) == is_matrix_of_a_block, name


def test_muon_asks_for_blocks():
    with pytest.raises(
        ValueError, match=r"\.blocks, and BigramLanguageModel has none: take optimizer='adamw'"
    ):
        make_optimizer(BigramLanguageModel(7), TrainConfig(optimizer="muon"))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("spoilt", ["norm.weight", "blocks.1.feed_forward.proj.weight"])
def test_a_step_that_overflowed_is_left_out_for_all_parameters(name, spoilt):
    """Whichever parameter's gradient is infinite; so that no moment remembers it either."""
    model = tiny_gpt()
    parameters = dict(model.named_parameters())
    optimizer = make_optimizer(model, TrainConfig(optimizer=name))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    ids = torch.arange(7)[None]

    def step(overflows):
        scaler.scale(model(ids, ids.roll(-1))[1]).backward()
        if overflows:
            parameters[spoilt].grad[0] = math.inf
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    def snapshot():
        weights = [parameter.detach().clone() for parameter in parameters.values()]
        moments = [value.clone() for state in optimizer.state.values() for value in state.values()]
        return weights + moments

    step(overflows=False)
    before = snapshot()
    step(overflows=True)
    after = snapshot()
    assert len(after) == len(before) and scaler.get_scale() == 2.0
    assert all(torch.equal(one, other) for one, other in zip(before, after))
    step(overflows=False)
    assert not any(torch.equal(one, other) for one, other in zip(before, snapshot()))


CARDS = {"cuda:0": (9, 0), "cuda:1": (8, 0), "cuda:2": (7, 5), "cuda:3": (7, 0), "cuda:4": (6, 1)}


@pytest.mark.parametrize(
    "device, expected",
    [
        ("cuda:0", "bf16"),
        ("cuda:1", "bf16"),
        ("cuda:2", "fp16"),
        ("cuda:3", "fp32"),
        ("cuda:4", "fp32"),
        ("cpu", "fp32"),
        ("mps", "fp32"),
    ],
)
def test_precision_by_card(device, expected, monkeypatch):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: True
    )  # as torch says of a T4
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: CARDS[str(device)])
    assert pick_precision(device) == pick_precision(torch.device(device)) == expected


# ---------------------------------------------------------------- memory and speed


def gradient_and_bytes(model, x, y):
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.zero_grad()
    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(x, y)[1]
    loss.backward()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return [p.grad.clone() for p in model.parameters()], sum(
        size for at, size in kept.items() if at not in weights
    )


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_keeps_less_and_changes_nothing(dropout):
    model, ids = tiny_gpt(n_layer=4, dropout=dropout).train(), torch.randint(7, (4, 9))
    plain, many = gradient_and_bytes(model, ids[:, :-1], ids[:, 1:])
    with gradient_checkpointing(model):
        sparing, few = gradient_and_bytes(model, ids[:, :-1], ids[:, 1:])
    again, as_before = gradient_and_bytes(model, ids[:, :-1], ids[:, 1:])
    assert all(map(torch.equal, plain, sparing)) and all(map(torch.equal, plain, again))
    assert few < many / 2 and as_before == many


def test_checkpointing_ends_with_its_block_and_needs_blocks():
    model = tiny_gpt()
    with pytest.raises(RuntimeError, match="in the middle"), gradient_checkpointing(model):
        assert all("forward" in vars(block) for block in model.blocks)
        raise RuntimeError("in the middle")
    assert not any("forward" in vars(block) for block in model.blocks)
    with pytest.raises(
        ValueError, match=r"BigramLanguageModel has no \.blocks.*gradient_checkpointing=False"
    ):
        with gradient_checkpointing(BigramLanguageModel(3)):
            pass


def test_a_compiled_model_says_the_same(monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend="eager"))
    model, ids = tiny_gpt(dropout=0.2), torch.randint(7, (2, 8))
    before = torch.get_rng_state()
    fast = compile_model(model, ids)
    assert fast is not model and torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in model.parameters())
    model.eval()
    assert torch.allclose(fast(ids)[0], model(ids)[0], atol=1e-6)


@pytest.mark.parametrize("when", ["at once", "at the first call"])
@pytest.mark.parametrize(
    "trace, reason",
    [
        ("no C++ compiler\nand a long trace", "no C++ compiler"),
        (
            "C++ compile error\nCommand: g++\nm.cpp:31:10: fatal error: no Python.h\n 31 |",
            "m.cpp:31:10: fatal error: no Python.h",
        ),
        ("", ""),
    ],
)
def test_where_compile_fails_the_model_stays(when, trace, reason, monkeypatch):
    def broken(model):
        def call(*args):
            model.token_embedding.weight.grad = torch.ones_like(
                model.token_embedding.weight
            )  # a half-done trial
            raise RuntimeError(trace)

        return call() if when == "at once" else call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(
        torch, "__file__", "/env/torch/__init__.py"
    )  # wherever it lies: a space would be named, too
    model = tiny_gpt()
    with pytest.warns(
        UserWarning, match=re.escape(f"goes on without it: RuntimeError: {reason}") + "$"
    ):
        assert compile_model(model, torch.zeros(1, 8, dtype=torch.int64)) is model
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    "path, trace, told",
    [
        (
            "/two words/env/torch/__init__.py",
            "CppCompileError: C++ compile error\ncollect2: error: ld returned 1 exit status",
            True,
        ),
        (
            "/two words/env/torch/__init__.py",
            "CppCompileError: C++ compile error\nm.cpp:3:10: fatal error: no Python.h",
            True,
        ),
        ("/two words/env/torch/__init__.py", "no C++ compiler", False),
        (
            "/one/env/torch/__init__.py",
            "CppCompileError: C++ compile error\ncollect2: error: ld returned 1 exit status",
            False,
        ),
    ],
)
def test_a_space_in_torchs_path_is_named(path, trace, told, monkeypatch):
    """PyTorch gives -L/two words/env/torch/lib to the linker, unquoted."""
    monkeypatch.setattr(torch, "__file__", path)
    monkeypatch.setattr(torch, "compile", mock.Mock(side_effect=RuntimeError(trace)))
    with pytest.warns(UserWarning) as warned:
        compile_model(tiny_gpt(), torch.zeros(1, 8, dtype=torch.int64))
    said = str(warned[0].message)
    assert (
        "unquoted to the linker: make the environment in a folder without a space" in said
    ) == told
    assert (path in said and "GPU" in said) == told


# ---------------------------------------------------------------- Ctrl-C


def test_the_first_interrupt_waits_and_the_second_does_not():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        with catch_sigint() as pressed:
            assert not pressed
            signal.raise_signal(signal.SIGINT)
            assert pressed
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it should not have come here")
    assert signal.getsignal(signal.SIGINT) is before
    with catch_sigint() as pressed:
        signal.raise_signal(signal.SIGINT)
    assert pressed and signal.getsignal(signal.SIGINT) is before


def test_a_thread_can_train_too():
    found = []

    def work():
        with catch_sigint() as pressed:
            found.append(pressed)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[]]
