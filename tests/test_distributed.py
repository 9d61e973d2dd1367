"""Lesson 13: two processes are one with twice the batch, stop and go on as one, and none is left waiting for the other."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
import torch
import two_processes
from two_processes import CASES, case, corpus

from chargpt_lib import distributed
from chargpt_lib.checkpoints import load_checkpoint, load_model
from chargpt_lib.distributed import train_distributed
from chargpt_lib.trainer import SingleProcessStrategy, Trainer, read_log, train
from chargpt_lib.training import evaluate
from tests.tiny import CORPUS, IDS, TOKENIZER, VAL, settings, tiny_gpt, wait_for

CLOCK = {"seconds", "tokens_per_second"}
BY_TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--rdzv-backend",
    "c10d",
    "--rdzv-endpoint",
    "127.0.0.1:0",
]


def start(what, folder, launcher=BY_TORCHRUN, **variables):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CHARGPT_DEVICE": "cpu",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(sys.path),
        **variables,
    }
    folder.mkdir(exist_ok=True)
    with (folder / "printed").open("w") as file:
        return subprocess.Popen(
            [*launcher, two_processes.__file__, what, str(folder)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def printed(folder):
    return (folder / "printed").read_text()


def end(process, folder, seconds=300):
    try:
        return process.wait(seconds)
    finally:
        process.kill()
        print(printed(folder)[-4000:])


def timeless(rows):
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in rows]


def column(result, name):
    return [row[name] for row in result["log"]]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def far(a, b):
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def seen(folder):
    """What each of two processes saw, in one launch."""
    train(tiny_gpt(), CORPUS, settings(out=str(folder / "alone")))
    assert end(start("everything", folder), folder, 120) == 0, printed(folder)[-4000:]
    return [torch.load(folder / f"seen {rank}.pt", weights_only=False) for rank in (0, 1)]


# ---------------------------------------------------------------- two are one with twice the batch


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one_with_twice_the_batch(name, seen):
    model = case(name)
    expected = train(model, corpus(name), settings(batch_size=8, **CASES[name]))
    precise = 1e-5 if name == "plain" else 1e-6
    result, weights = seen[0][name]
    assert result["steps"] == expected["steps"] and column(result, "step") == column(
        expected, "step"
    )
    for what in ("train_loss", "val_loss", "grad_norm", "lr"):
        assert column(result, what) == pytest.approx(column(expected, what), abs=precise), what
    assert (
        result["best_val_loss"] == pytest.approx(expected["best_val_loss"], abs=precise)
        and result["floor"] == 0.3
    )
    assert (
        far(weights, model.state_dict())
        < 3 * precise
        < 1e-2
        < far(weights, case(name).state_dict())
    )


@pytest.mark.parametrize("name", CASES)
def test_both_have_the_same_weights_and_return_the_same(name, seen):
    assert same(seen[0][name][1], seen[1][name][1]) and seen[0][name][0] == seen[1][name][0]


@pytest.mark.parametrize("name", ["whole", "accumulated"])
def test_shards_give_the_same_as_copies(name, seen, folder):
    ddp, fsdp = (seen[0][kind, name] for kind in ("ddp", "fsdp"))
    for what in ("train_loss", "val_loss", "grad_norm"):
        assert column(fsdp, what) == pytest.approx(column(ddp, what), abs=1e-5), what
    assert seen[0]["fsdp", name] == seen[1]["fsdp", name]
    (a, _), (b, _) = (load_model(folder / f"{kind} {name}") for kind in ("ddp", "fsdp"))
    assert far(a.state_dict(), b.state_dict()) < 2e-5
    states = [
        load_checkpoint(folder / f"{kind} {name}", a, TOKENIZER)["optimizer"]
        for kind in ("ddp", "fsdp")
    ]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    for i, moments in states[0]["state"].items():
        assert far(moments, states[1]["state"][i]) < 1e-5


def test_half_precision_patience_and_the_clock_are_agreed_upon(seen):
    for name in ("fp16", "patience", "budget"):
        assert seen[0][name] == seen[1][name]
    assert seen[0]["fp16"]["precision"] == "fp16" and seen[0]["fp16"]["best_val_loss"] < 4
    assert (
        seen[0]["patience"]["stop_reason"] == "patience"
        and seen[0]["budget"]["stop_reason"] == "time_budget"
    )


def test_the_alphabet_is_odd():
    assert TOKENIZER.vocab_size % 2 == 1


def test_shards_in_half_precision_too(seen):
    assert column(seen[0]["fsdp", "fp16"], "train_loss") == pytest.approx(
        column(seen[0]["fp16"], "train_loss"), abs=1e-2
    )


def test_data_may_cut_its_own_windows(seen):
    assert timeless(seen[0]["cut"]["log"]) == timeless(seen[0]["plain"][0]["log"])
    with pytest.raises(ValueError, match="tokenizer has vocab_size 53, the model 60"):
        train(tiny_gpt(vocab_size=60), two_processes.Cut(), settings())


def test_gradients_are_exchanged_once_a_step():
    class Watched(SingleProcessStrategy):
        entered = 0

        @contextlib.contextmanager
        def no_sync(self, model):
            self.entered += 1
            yield

    strategy = Watched()
    trainer = Trainer(tiny_gpt(), CORPUS, settings(grad_accum=3), strategy=strategy)
    assert trainer.train()["steps"] == 12
    assert strategy.entered == 12 * 2  # all but the last of three


# ---------------------------------------------------------------- stopping and going on


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_an_interrupt_in_one_process_stops_both_and_they_go_on_to_the_last_bit(kind, seen, folder):
    for rank in (0, 1):
        assert (
            seen[rank][kind, "stopped"]["stop_reason"] == "interrupted"
            and seen[rank][kind, "stopped"]["steps"] == 7
        )
        assert timeless(seen[rank][kind, "parts"]["log"]) == timeless(
            seen[rank][kind, "whole"]["log"]
        )
        assert same(seen[rank][kind, "parts", "weights"], seen[rank][kind, "whole", "weights"])
    whole, parts = (
        load_model(folder / f"{kind} {name}")[0].state_dict() for name in ("whole", "parts")
    )
    assert same(whole, parts)
    states = [
        load_checkpoint(folder / f"{kind} {name}", tiny_gpt(dropout=0.1), TOKENIZER)
        for name in ("whole", "parts")
    ]
    assert str(states[0]["optimizer"]) == str(states[1]["optimizer"])
    assert torch.equal(states[0]["others"][0]["torch"], states[1]["others"][0]["torch"])
    assert not torch.equal(
        states[0]["random"]["torch"], states[0]["others"][0]["torch"]
    )  # each has its own dropout


def test_a_run_in_parts_can_go_on_from_its_untrained_model(seen):
    """Then the optimizer has no moments yet, and must not be made to invent some."""
    expected = timeless(seen[0]["fsdp", "whole"]["log"])
    assert timeless(seen[0]["fsdp", "from step 0"]["log"]) == expected


def test_the_best_weights_come_back_in_parts(seen):
    for rank in (0, 1):
        result, loss = seen[rank]["fsdp", "best"]
        assert result["stop_reason"] == "patience" and result["best_step"] < result["steps"]
        assert loss == pytest.approx(result["best_val_loss"], abs=1e-6)


def test_one_process_writes_and_what_is_saved_can_write(seen, folder):
    printed_once = printed(folder)
    assert (
        printed_once.count("interrupted after step 7: saved in") == 2
    )  # one each for ddp and fsdp
    for kind in ("ddp", "fsdp"):
        rows = read_log(folder / f"{kind} whole")
        assert rows == seen[0][kind, "whole"]["log"] and [row["step"] for row in rows] == [
            5,
            10,
            12,
        ]
        model, tokenizer = load_model(folder / f"{kind} whole")
        assert tokenizer.alphabet == TOKENIZER.alphabet
        assert evaluate(model, VAL) == pytest.approx(
            seen[0][kind, "whole"]["best_val_loss"], abs=1e-6
        )
        assert not list((folder / f"{kind} whole").glob("*.part"))


def test_another_number_of_processes_is_refused(seen, folder):
    assert (
        "was saved by a run of 1 process(es), but this one has 2"
        in seen[0]["errors"]["alone"]
        == seen[1]["errors"]["alone"]
    )
    with pytest.raises(ValueError, match=r"by a run of 2 process\(es\), but this one has 1"):
        train(tiny_gpt(dropout=0.1), CORPUS, settings(out=str(folder / "ddp whole")), resume=True)


def test_an_interrupted_launcher_leaves_a_run_that_can_go_on(tmp_path):
    process = start("interrupted", tmp_path)
    wait_for(lambda: all((tmp_path / f"on its way {rank}").exists() for rank in (0, 1)))
    process.send_signal(signal.SIGINT)
    end(process, tmp_path)
    results = [json.loads((tmp_path / f"result {rank}").read_text()) for rank in (0, 1)]
    assert results[0] == results[1] and results[0]["stop_reason"] == "interrupted"
    assert load_checkpoint(tmp_path / "run", tiny_gpt(), TOKENIZER)["step"] == results[0]["steps"]


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    "name, said",
    [
        ("occupied", "FileExistsError: .*is not empty"),
        ("sick", "FloatingPointError: step 8: the loss is nan"),
        ("full", "ZeroDivisionError"),
        ("nowhere", r"ValueError: fsdp=True .*set TrainConfig\(out"),
        (
            "muon in parts",
            r"ValueError: optimizer='muon' needs whole matrices.* or optimizer='adamw'",
        ),
    ],
)
def test_both_have_the_error_of_one(name, said, seen):
    for rank in (0, 1):
        assert re.match(said, seen[rank]["errors"][name])


def test_a_process_that_dies_takes_the_other_with_it(tmp_path):
    assert end(start("broken", tmp_path), tmp_path) != 0  # the other would wait for half an hour
    assert "MemoryError: only here" in printed(tmp_path)


def test_more_processes_than_cards_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "pick_device", lambda: torch.device("cuda"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"2 processes on this machine, but 1 GPU\(s\)"):
        train_distributed(tiny_gpt(), CORPUS, settings())


# ---------------------------------------------------------------- how it is started


def test_started_plainly_it_is_train():
    models = tiny_gpt(dropout=0.1), tiny_gpt(dropout=0.1)
    results = [
        run(model, CORPUS, settings()) for run, model in zip((train, train_distributed), models)
    ]
    assert timeless(results[0]["log"]) == timeless(results[1]["log"])
    assert same(*(model.state_dict() for model in models))


@pytest.mark.parametrize("launcher", ["standalone", "by hand"])
def test_other_launchers_start_the_same_run(launcher, tmp_path, seen):
    if launcher == "standalone":
        # As in a cell of a notebook: !torchrun --nproc-per-node 2 job.py
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        processes = [start("short", tmp_path, [*command, "--standalone"])]
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        processes = [
            start(
                "short", tmp_path, [sys.executable], RANK=str(rank), LOCAL_RANK=str(rank), **where
            )
            for rank in (0, 1)
        ]
    assert [end(process, tmp_path) for process in processes] == [0] * len(processes)
    for rank in (0, 1):
        result, weights = torch.load(tmp_path / f"short {rank}.pt", weights_only=False)
        assert timeless(result["log"]) == timeless(seen[0]["plain"][0]["log"]) and same(
            weights, seen[0]["plain"][1]
        )


# ---------------------------------------------------------------- parts of an evaluation


@pytest.mark.parametrize("characters", [2, 16, 17, 18, 33, 100, 333])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_parts_of_an_evaluation_are_the_whole(characters, size, monkeypatch):
    """The processes one after the other: each adds its sum to the same total."""
    model, sums = tiny_gpt().eval(), []
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda total: sums.append(total.item()))
    calls = []
    model.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0].shape))
    made = []
    for rank in range(size):
        calls.clear()
        distributed.evaluate_distributed(model, IDS[:characters], rank, size)
        made.append(len(calls))
    assert sum(sums) / (characters - 1) == pytest.approx(
        evaluate(model, IDS[:characters]), abs=1e-6
    )
    assert len(set(made)) == 1  # shards wait for each other in every call
