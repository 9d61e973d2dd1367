"""Lesson 11: the loop is the plain one, stops and goes on to the last bit, and no failure costs more than it has to."""

import contextlib
import dataclasses
import json
import math
import shutil
import signal
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from chargpt_lib import trainer
from chargpt_lib.bigram import BigramLanguageModel
from chargpt_lib.checkpoints import load_checkpoint, load_model
from chargpt_lib.data import CharTokenizer
from chargpt_lib.recipe import OPTIMIZERS, ShuffledWindows, get_lr
from chargpt_lib.sampling import prepare_for_sampling
from chargpt_lib.trainer import Trainer, plot_run, read_log, train
from chargpt_lib.training import estimate_loss, evaluate
from tests.tiny import CORPUS, IDS, TEXT, TOKENIZER, VAL, settings, tiny_gpt

CLOCK = {"seconds", "tokens_per_second"}


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def far(a, b):
    """The largest difference between two models' weights."""
    return max(
        (p - q).abs().max().item() for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )


def timeless(rows):
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in rows]


@contextlib.contextmanager
def at_step(model, step, act, calls=1):
    """Calls act() in the forward pass of a training step, counted from 1."""
    count = 0

    def hook(module, inputs):
        nonlocal count
        count += module.training
        if module.training and count == (step - 1) * calls + 1:
            act()

    handle = model.register_forward_pre_hook(hook)
    yield
    handle.remove()


def press():
    signal.raise_signal(signal.SIGINT)


# ---------------------------------------------------------------- the loop


def plain(model, config):
    """The same training written down plainly: no fused kernel, no scaler, no log. -> losses, lengths of the gradients"""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        betas=config.betas,
        foreach=False,
    )
    windows, size = (
        ShuffledWindows(IDS, model.block_size, config.seed),
        config.batch_size * config.grad_accum,
    )
    model.train()
    losses, norms = [], []
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = get_lr(step, config)
        loss = model(*windows.batch(step * size, size))[1]
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item())
        if config.grad_clip and norms[-1] > config.grad_clip:
            for p in model.parameters():
                p.grad *= config.grad_clip / norms[-1]
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"grad_clip": 0.1},
        {"grad_clip": 0.0},
        {"weight_decay": 1.0, "betas": (0.5, 0.9)},
        {"schedule": "wsd", "min_lr": 1e-3},
        {"grad_accum": 4, "batch_size": 2},
        {"grad_accum": 3, "grad_clip": 0.1},
        {"seed": 5},
        {"warmup": 0.0},
    ],
)
def test_the_loop_is_the_plain_one(changes):
    config = settings(eval_interval=1, **changes)
    expected, model = tiny_gpt(), tiny_gpt()
    losses, norms = plain(expected, config)
    result = train(model, IDS, config)
    assert far(model, expected) < 2e-5 and far(model, tiny_gpt()) > 1e-2
    assert [row["train_loss"] for row in result["log"]] == pytest.approx(losses, abs=1e-5)
    assert [row["grad_norm"] for row in result["log"]] == pytest.approx(norms, rel=1e-3)
    assert [row["lr"] for row in result["log"]] == [get_lr(step, config) for step in range(12)]


@pytest.mark.parametrize("batch_size, grad_accum", [(4, 2), (2, 4), (1, 8)])
def test_accumulation_is_the_large_batch(batch_size, grad_accum):
    whole, parts = tiny_gpt().double(), tiny_gpt().double()
    logs = [
        train(model, IDS, settings(batch_size=size, grad_accum=count, eval_interval=1))["log"]
        for model, size, count in ((whole, 8, 1), (parts, batch_size, grad_accum))
    ]
    assert far(whole, parts) < 1e-6
    assert [row["train_loss"] for row in logs[0]] == pytest.approx(
        [row["train_loss"] for row in logs[1]], abs=1e-6
    )


def test_a_row_is_the_mean_since_the_last_one():
    each, some = (train(tiny_gpt(), IDS, settings(eval_interval=n))["log"] for n in (1, 5))
    losses = [row["train_loss"] for row in each]
    assert [row["step"] for row in some] == [5, 10, 12]
    means = [sum(losses[a:b]) / (b - a) for a, b in ((0, 5), (5, 10), (10, 12))]
    assert [row["train_loss"] for row in some] == pytest.approx(means)
    assert all(row["val_loss"] is None and row["tokens_per_second"] > 0 for row in some)
    assert some[0]["seconds"] < some[1]["seconds"] < some[2]["seconds"]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_seed_settles_everything(dropout):
    models = [tiny_gpt(dropout=dropout) for _ in range(3)]
    for model, seed, noise in zip(models, (1, 1, 2), (7, 8, 9)):
        torch.manual_seed(noise)  # whatever happened before
        train(model, IDS, settings(seed=seed))
    assert same_weights(*models[:2]) and not same_weights(*models[1:])


@pytest.mark.parametrize("epochs, batch_size, grad_accum", [(1, 4, 1), (2.5, 8, 2), (0.1, 1, 1)])
def test_epochs_are_passes_over_the_text(epochs, batch_size, grad_accum):
    config = settings(
        steps=None, epochs=epochs, batch_size=batch_size, grad_accum=grad_accum, eval_interval=1000
    )
    result = train(BigramLanguageModel(TOKENIZER.vocab_size, 16), IDS, config)
    windows = len(IDS) // 16 - 1
    assert (
        0 <= result["steps"] * batch_size * grad_accum - epochs * windows < batch_size * grad_accum
    )
    assert (
        train(BigramLanguageModel(TOKENIZER.vocab_size), IDS, settings(epochs=9, steps=3))["steps"]
        == 3
    )


def test_the_trainer_is_one_class():
    """The lesson shows it in several cells."""
    assert Trainer.__mro__ == (Trainer, object)


# ---------------------------------------------------------------- measuring


@pytest.mark.parametrize("eval_batches", [0, 3])
def test_evaluation_is_exact_or_estimated_and_leaves_no_trace(eval_batches):
    watched, blind = tiny_gpt(dropout=0.2), tiny_gpt(dropout=0.2)
    result = train(watched, CORPUS, settings(eval_interval=12, eval_batches=eval_batches))
    train(blind, IDS, settings())
    assert same_weights(watched, blind) and not watched.training
    dice = torch.Generator().manual_seed(1337)
    expected = estimate_loss(watched, VAL, 3, 4, dice) if eval_batches else evaluate(watched, VAL)
    assert (
        result["best_val_loss"] == result["log"][-1]["val_loss"] == expected
        and result["floor"] == 0.3
    )


def test_training_goes_on_in_training_mode():
    model, modes = tiny_gpt(), []
    model.register_forward_pre_hook(
        lambda module, inputs: modes.append((module.training, torch.is_grad_enabled()))
    )
    train(model, CORPUS, settings(eval_interval=3))
    assert (
        modes.count((True, True)) == 12
        and modes.count((True, False)) == modes.count((False, True)) == 0
    )
    assert (False, False) in modes


@pytest.mark.parametrize("out", [False, True])
def test_patience_ends_a_run_that_learns_by_heart(out, tmp_path):
    few = CORPUS._replace(train=TEXT[:120])
    tokenizer = CharTokenizer.from_text(TEXT + "€")
    model = tiny_gpt(vocab_size=tokenizer.vocab_size, n_embd=32)
    config = settings(
        steps=600, eval_interval=10, patience=3, out=str(tmp_path / "run") if out else None
    )
    result = train(model, few, config, tokenizer)
    curve = [row["val_loss"] for row in result["log"]]
    least = min(range(len(curve)), key=curve.__getitem__)
    assert result["stop_reason"] == "patience" and len(curve) == least + 4 and result["steps"] < 600
    assert result["best_val_loss"] == curve[least] and result["best_step"] == 10 * (least + 1)
    assert evaluate(model, tokenizer.encode(few.val)) == pytest.approx(
        curve[least], abs=1e-9
    )  # the best weights are back


def test_the_last_weights_stay_where_they_are_the_best():
    model = tiny_gpt()
    result = train(model, CORPUS, settings())
    assert result["best_step"] == result["steps"] == 12 and result["stop_reason"] == "steps"
    blind = tiny_gpt()
    train(blind, IDS, settings())
    assert same_weights(model, blind)


def test_the_time_budget_ends_the_run_and_the_schedule(monkeypatch):
    now = iter(range(10**6))
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: next(now) / 10)
    config = settings(steps=None, time_budget=5.0, eval_interval=10)
    result = train(tiny_gpt(), CORPUS, config)
    rates = [row["lr"] for row in result["log"]]
    assert result["stop_reason"] == "time_budget" and result["seconds"] == pytest.approx(5.0)
    assert (
        40 < result["steps"] <= 50
        and rates == sorted(rates, reverse=True)
        and rates[-1] < 1e-4 < rates[0]
    )
    assert result["log"][-1]["step"] == result["steps"]  # the last weights are measured, too


# ---------------------------------------------------------------- stopping and going on

RUNS = {
    "plain": {},
    "by heart": {"patience": 2, "eval_batches": 2},
    "accumulated": {"grad_accum": 3},
    "sparing": {"gradient_checkpointing": True},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "compiled": {"compile": True},
    "muon": {"optimizer": "muon"},
    "muon, fp16": {"optimizer": "muon", "precision": "fp16"},
}


@pytest.fixture
def quick_compile(monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend="eager"))


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("step", [1, 7, 10])
def test_an_interrupted_run_goes_on_to_the_last_bit(name, step, tmp_path, capsys, quick_compile):
    changes, calls, trial = RUNS[name], RUNS[name].get("grad_accum", 1), int(name == "compiled")
    whole, parts = tiny_gpt(dropout=0.1), tiny_gpt(dropout=0.1)
    expected = train(whole, CORPUS, settings(out=str(tmp_path / "whole"), **changes))
    config = settings(out=str(tmp_path / "parts"), **changes)
    with at_step(parts, step + trial, press, calls):
        first = train(parts, CORPUS, config)
    assert first["stop_reason"] == "interrupted" and first["steps"] == step
    assert (
        f"interrupted after step {step}: saved in {config.out}; a resumed run goes on from there"
        in capsys.readouterr().out
    )
    fresh = tiny_gpt(seed=9, dropout=0.1)
    torch.manual_seed(99)
    second = train(fresh, CORPUS, config, resume=True)
    assert timeless(second["log"]) == timeless(expected["log"]) == timeless(read_log(config.out))
    assert same_weights(fresh, whole) and {**second, "seconds": 0, "log": 0} == {
        **expected,
        "seconds": 0,
        "log": 0,
    }
    states = [
        load_checkpoint(tmp_path / folder, tiny_gpt(dropout=0.1), TOKENIZER)
        for folder in ("whole", "parts")
    ]
    assert (
        str(states[0]["optimizer"]) == str(states[1]["optimizer"])
        and states[0]["scaler"] == states[1]["scaler"]
    )
    assert torch.equal(states[0]["random"]["torch"], states[1]["random"]["torch"])


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path):
    whole, killed = tiny_gpt(dropout=0.1), tiny_gpt(dropout=0.1)
    expected = train(whole, IDS, settings(), TOKENIZER)
    config = settings(out=str(tmp_path / "run"), checkpoint_interval=4, eval_interval=5)

    def die():
        raise MemoryError("the machine is gone")

    with at_step(killed, 12, die), pytest.raises(MemoryError):
        train(killed, IDS, config, TOKENIZER)
    with open(tmp_path / "run" / "log.jsonl", "a") as file:
        file.write('{"step": 11, "train_l')  # the last line is cut short
    assert [row["step"] for row in read_log(config.out)] == [5, 10]
    result = train(
        killed, IDS, config, TOKENIZER, resume=True
    )  # from step 8: the row of step 10 is written again
    assert timeless(read_log(config.out)) == timeless(expected["log"]) and result["steps"] == 12
    assert same_weights(killed, whole)


def test_a_run_killed_at_its_first_step_can_go_on(tmp_path):
    model, config = tiny_gpt(), settings(out=str(tmp_path / "run"))
    with at_step(model, 1, lambda: 1 / 0), pytest.raises(ZeroDivisionError):
        train(model, CORPUS, config)
    assert train(model, CORPUS, config, resume=True)["steps"] == 12


def test_a_run_killed_between_its_first_checkpoint_and_its_log_can_go_on(tmp_path, monkeypatch):
    model, expected, config = tiny_gpt(), tiny_gpt(), settings(out=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_log", lambda *more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(model, CORPUS, config)
    assert not (tmp_path / "run" / "log.jsonl").exists()
    result = train(model, CORPUS, config, resume=True)
    assert timeless(read_log(config.out)) == timeless(train(expected, CORPUS, settings())["log"])
    assert result["steps"] == 12 and same_weights(model, expected)


def test_a_second_interrupt_does_not_wait(tmp_path):
    model, config = tiny_gpt(), settings(out=str(tmp_path / "run"), checkpoint_interval=2)
    before = signal.getsignal(signal.SIGINT)
    with at_step(model, 8, lambda: (press(), press())), pytest.raises(KeyboardInterrupt):
        train(model, CORPUS, config)
    assert signal.getsignal(signal.SIGINT) is before
    whole = tiny_gpt()
    train(whole, CORPUS, settings())
    assert train(model, CORPUS, config, resume=True)["steps"] == 12 and same_weights(model, whole)


def test_an_interrupt_without_a_folder_returns_what_there_is(capsys):
    model = tiny_gpt()
    with at_step(model, 3, press):
        result = train(model, IDS, settings())
    assert result["stop_reason"] == "interrupted" and result["steps"] == 3 and not model.training
    assert "interrupted after step 3: not saved" in capsys.readouterr().out


def test_a_finished_run_can_be_made_longer_and_with_another_rate(tmp_path):
    config = settings(out=str(tmp_path / "run"))
    assert train(tiny_gpt(), CORPUS, config)["steps"] == 12
    again = train(tiny_gpt(), CORPUS, config, resume=True)
    assert again["steps"] == 12 and again["stop_reason"] == "steps" and len(again["log"]) == 3
    result = train(
        tiny_gpt(),
        CORPUS,
        settings(out=config.out, steps=20, learning_rate=1e-9, weight_decay=0.7),
        resume=True,
    )
    assert result["steps"] == 20 and [row["step"] for row in result["log"]] == [5, 10, 12, 15, 20]
    assert result["log"][-1]["lr"] < 1e-9
    groups = load_checkpoint(config.out, tiny_gpt(), TOKENIZER)["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.7, 0.0]


def test_what_is_saved_can_write(tmp_path):
    model = tiny_gpt()
    result = train(model, CORPUS, settings(out=str(tmp_path / "run")))
    loaded, tokenizer = load_model(tmp_path / "run")
    assert tokenizer.alphabet == TOKENIZER.alphabet and same_weights(loaded, model)
    assert evaluate(loaded, VAL) == pytest.approx(result["best_val_loss"], abs=1e-9)


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("fetch_seconds", [0.0, math.inf])
def test_a_loss_or_gradient_that_is_no_number(spoilt, where, fetch_seconds, tmp_path, monkeypatch):
    """fetch_seconds: how often the losses are fetched: at each step, or only where a checkpoint needs them."""
    monkeypatch.setattr(trainer, "FETCH_SECONDS", fetch_seconds)
    model, config = (
        tiny_gpt(),
        settings(out=str(tmp_path / "run"), checkpoint_interval=2, eval_interval=100),
    )
    norm = model.norm.weight

    def spoil():
        if where == "loss":
            norm.data.fill_(spoilt)
        else:
            handle = norm.register_hook(lambda gradient: (handle.remove(), gradient * spoilt)[1])

    with at_step(model, 8, spoil), pytest.raises(FloatingPointError) as caught:
        train(model, CORPUS, config)
    assert "step 8: the loss is " in str(caught.value) and f"checkpoints in {config.out}" in str(
        caught.value
    )
    state = load_checkpoint(config.out, model, TOKENIZER)
    assert state["step"] == 6 and all(p.isfinite().all() for p in model.parameters())
    assert train(model, CORPUS, config, resume=True)["steps"] == 12


def test_no_checkpoint_is_promised_without_a_folder():
    model = tiny_gpt()
    with at_step(model, 2, lambda: model.norm.weight.data.fill_(float("nan"))):
        with pytest.raises(
            FloatingPointError, match="^step 2: the loss is nan.*no checkpoint was saved.*rate is"
        ):
            train(model, CORPUS, settings())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_half_precision_skips_a_gradient_that_overflows(optimizer, tmp_path):
    model = tiny_gpt()
    config = settings(precision="fp16", steps=6, out=str(tmp_path / "run"), optimizer=optimizer)
    weight = model.norm.weight

    def spoil():
        handle = weight.register_hook(
            lambda gradient: (handle.remove(), gradient * float("inf"))[1]
        )

    with at_step(model, 4, spoil):
        assert train(model, CORPUS, config)["steps"] == 6
    state = load_checkpoint(config.out, model, TOKENIZER)
    assert all(p.isfinite().all() for p in model.parameters()) and state["scaler"]["scale"] == 2**15
    assert {moments["step"].item() for moments in state["optimizer"]["state"].values()} == {
        5
    }  # one step was left out


def test_a_folder_in_use_is_not_written_over(tmp_path):
    (tmp_path / "thesis.txt").write_text("two years of work")
    for folder, way_out in (
        (tmp_path, "is not empty: choose another folder"),
        (tmp_path / "run", "is not empty: pass resume=True .* another folder"),
    ):
        if folder != tmp_path:
            train(tiny_gpt(), CORPUS, settings(out=str(folder)))
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(FileExistsError, match=way_out):
            train(tiny_gpt(), CORPUS, settings(out=str(folder)))
        assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SHORT = torch.zeros(16, dtype=torch.int64)
WRONG = {
    "a short text": (SHORT, {}, r"has 16 ids, .* block_size \+ 1 = 17"),
    "a foreign alphabet": (IDS + 50, {}, "own tokenizer"),
    "a batch for a text": (IDS.view(-1, 10), {}, "1-D int64 tensor"),
    "floats": (IDS.float(), {}, "1-D int64 tensor, got .*float32"),
    "patience without validation": (
        IDS,
        {"patience": 2},
        "patience=2 needs validation text",
    ),
    "a folder without a tokenizer": (IDS, {"out": "run"}, "pass tokenizer="),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_trained_is_said_before_the_first_step(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, changes, said = WRONG[name]
    model = tiny_gpt()
    with (
        at_step(model, 1, lambda: pytest.fail("it has begun")),
        pytest.raises(ValueError, match=said),
    ):
        train(model, data, settings(**changes))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_saved_is_said_before_the_first_step(tmp_path):
    model = BigramLanguageModel(TOKENIZER.vocab_size, 16)
    with (
        at_step(model, 1, lambda: pytest.fail("it has begun")),
        pytest.raises(ValueError, match="GPT"),
    ):
        train(model, CORPUS, settings(out=str(tmp_path / "run")))
    with pytest.raises(ValueError, match=r"has no \.blocks"):
        train(model, CORPUS, settings(gradient_checkpointing=True))
    with pytest.raises(ValueError, match=r"\.blocks, and BigramLanguageModel has none"):
        train(model, CORPUS, settings(optimizer="muon"))


@pytest.mark.parametrize(
    "data, config, named",
    [
        ("plays.txt", settings(), r"the data is a str: give a Corpus, as from load_corpus\(path\)"),
        (CORPUS, TOKENIZER, "config is a CharTokenizer, expected a TrainConfig"),
    ],
)
def test_arguments_of_another_kind_are_named(data, config, named):
    with pytest.raises(ValueError, match=named):
        train(tiny_gpt(), data, config)


def test_a_copy_for_sampling_is_not_trained():
    with pytest.raises(ValueError, match="requires_grad: a copy prepared for sampling"):
        train(prepare_for_sampling(tiny_gpt()), CORPUS, settings())


def test_a_finished_run_says_that_nothing_is_left(tmp_path, capsys):
    config = settings(out=str(tmp_path / "run"))
    train(tiny_gpt(), CORPUS, config)
    assert "nothing is left" not in capsys.readouterr().out
    train(tiny_gpt(), CORPUS, config, resume=True)
    assert "nothing is left to train: steps was reached at step 12" in capsys.readouterr().out


def test_nothing_to_go_on_from(tmp_path):
    with pytest.raises(ValueError, match=r"resume=True needs TrainConfig\(out"):
        train(tiny_gpt(), CORPUS, settings(), resume=True)
    with pytest.raises(FileNotFoundError):
        train(tiny_gpt(), CORPUS, settings(out=str(tmp_path / "nowhere")), resume=True)
    train(tiny_gpt(), CORPUS, settings(out=str(tmp_path / "run")))
    with pytest.raises(ValueError, match="n_embd is 16 there, 32 here"):
        train(tiny_gpt(n_embd=32), CORPUS, settings(out=str(tmp_path / "run")), resume=True)


@pytest.mark.parametrize("before, now", [("adamw", "muon"), ("muon", "adamw")])
def test_a_run_goes_on_with_its_own_optimizer_only(before, now, tmp_path):
    out = str(tmp_path / "run")
    train(tiny_gpt(), CORPUS, settings(out=out, optimizer=before))
    said = f"a run with optimizer='{before}', but this one has '{now}'"
    with pytest.raises(ValueError, match=said):
        train(tiny_gpt(), CORPUS, settings(out=out, optimizer=now, steps=20), resume=True)
    longer = settings(out=out, optimizer=before, steps=20)
    assert train(tiny_gpt(), CORPUS, longer, resume=True)["steps"] == 20


def test_where_compile_fails_the_run_goes_on(monkeypatch):
    def broken(model):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", broken)
    model, expected = tiny_gpt(dropout=0.1), tiny_gpt(dropout=0.1)
    with pytest.warns(UserWarning, match="goes on without it"):
        result = train(model, IDS, settings(compile=True))
    train(expected, IDS, settings())
    assert not result["compiled"] and same_weights(model, expected)


# ---------------------------------------------------------------- speed, memory, precision


@pytest.mark.skipif(
    not (shutil.which("g++") and Path(sysconfig.get_path("include"), "Python.h").exists()),
    reason="torch.compile wants a compiler and Python's headers; without them the run goes on",
)
@pytest.mark.skipif(
    " " in torch.__file__,
    reason="PyTorch passes its own path, which has a space, unquoted to the linker",
)
def test_what_the_compiler_writes_trains_as_well():
    """The real one, not only its trial."""
    results = [
        train(tiny_gpt(n_layer=1), CORPUS, settings(compile=compile)) for compile in (False, True)
    ]
    assert [result["compiled"] for result in results] == [False, True]
    for row, other in zip(*(result["log"] for result in results), strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
        assert row["val_loss"] == pytest.approx(other["val_loss"], abs=1e-4)


def test_a_compiled_run_is_the_same_run(quick_compile):
    model, expected = tiny_gpt(dropout=0.1), tiny_gpt(dropout=0.1)
    result = train(model, CORPUS, settings(compile=True))
    train(expected, CORPUS, settings())
    assert result["compiled"] and far(model, expected) < 1e-5


def test_checkpointing_changes_no_bit():
    model, expected = tiny_gpt(dropout=0.1), tiny_gpt(dropout=0.1)
    train(model, IDS, settings(gradient_checkpointing=True))
    train(expected, IDS, settings())
    assert same_weights(model, expected) and not any(
        "forward" in vars(block) for block in model.blocks
    )


@pytest.mark.parametrize(
    "precision, dtype", [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_precision_is_that_of_the_products(precision, dtype):
    model, seen = tiny_gpt(), set()
    model.blocks[0].feed_forward.fc.register_forward_hook(
        lambda part, inputs, out: seen.add(out.dtype)
    )
    result = train(model, CORPUS, settings(precision=precision, steps=60))
    expected = train(tiny_gpt(), CORPUS, settings(steps=60))
    assert seen == {dtype} and result["precision"] == precision and expected["precision"] == "fp32"
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert (
        result["best_val_loss"] == pytest.approx(expected["best_val_loss"], abs=0.05)
        and result["best_val_loss"] < 3.4
    )  # from ln 52 = 3.95


def test_nothing_is_fetched_from_the_device_at_each_step(monkeypatch):
    """On a graphics card every fetch makes Python wait: fetches are counted."""
    fetched = []
    for name in ("item", "tolist", "__float__", "__bool__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor,
            name,
            lambda tensor, original=original: (
                fetched.append(tensor.requires_grad) or original(tensor)
            ),
        )
    model = tiny_gpt()
    monkeypatch.setattr(model, "check", lambda idx: None)  # on a card it looks at no value
    train(model, IDS, settings(steps=40, eval_interval=40))
    assert len(fetched) < 4 * 4 + 40, (
        f"{len(fetched)} fetches in 40 steps"
    )  # Windows fetch their shift, once an epoch


# ---------------------------------------------------------------- watching


def test_the_log_is_there_while_the_run_goes_on(tmp_path):
    model, seen = tiny_gpt(), []
    config = settings(out=str(tmp_path / "run"))
    with at_step(model, 11, lambda: seen.extend(read_log(config.out))):
        result = train(model, CORPUS, config)
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert (
        [json.loads(line) for line in lines]
        == result["log"]
        == read_log(tmp_path / "run" / "log.jsonl")
    )
    assert seen == result["log"][:2] and set(seen[0]) == {
        "step",
        "train_loss",
        "val_loss",
        "lr",
        "grad_norm",
        *CLOCK,
    }


def test_tensorboard_is_asked_for_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if it were not installed
    config = settings(out=str(tmp_path / "run"), tensorboard=True)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        train(tiny_gpt(), CORPUS, config)
    assert not (tmp_path / "run").exists()


def test_tensorboard_can_read_the_log(tmp_path):
    """With TensorBoard's own reader: each number of each row, also after going on."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = settings(out=str(tmp_path / "run"), tensorboard=True)
    train(tiny_gpt(), CORPUS, config)
    result = train(tiny_gpt(), CORPUS, dataclasses.replace(config, steps=20), resume=True)
    events = EventAccumulator(config.out).Reload()
    assert (
        set(events.Tags()["scalars"]) == set(result["log"][0]) and result["log"][-1]["step"] == 20
    )
    for name in events.Tags()["scalars"]:
        assert [(event.step, event.value) for event in events.Scalars(name)] == [
            (row["step"], pytest.approx(row[name], rel=1e-6)) for row in result["log"]
        ]


@pytest.mark.parametrize("floor", [None, 0.3])
@pytest.mark.parametrize("data", [CORPUS, IDS], ids=["corpus", "ids"])
def test_a_run_can_be_drawn(floor, data, tmp_path):
    result = train(tiny_gpt(), data, settings(out=str(tmp_path / "run")), TOKENIZER)
    figures = [
        plot_run(log, floor)
        for log in (result["log"], tmp_path / "run", str(tmp_path / "run" / "log.jsonl"))
    ]
    lines = [[line.get_ydata() for line in ax.lines] for ax in figures[0].axes]
    assert list(lines[0][0]) == [row["train_loss"] for row in result["log"]]
    assert list(lines[1][0]) == [row["lr"] for row in result["log"]]
    assert (
        len(lines[0]) == 2 + (floor is not None)
        and len({len(figure.axes) for figure in figures}) == 1
    )
