"""Twenty trainings killed with SIGKILL at moments of the dice, each resumed: all end where nobody was killed."""

import json
import os
import subprocess
import sys

import pytest

from build import HERE
from chargpt_lib.trainer import is_in_use

# What is trained, where it stood when it was killed, and what came of it: by the trainer, and by a lesson's training cell.
TRAINER = """
from chargpt_lib.checkpoints import load_checkpoint
from chargpt_lib.trainer import read_log, train

def job(out, resume):
    config = settings(steps=60, grad_accum=2, eval_interval=7, checkpoint_interval=3, out=out)
    train(tiny_gpt(dropout=0.2), CORPUS, config, resume=resume)

def stood(out):
    return load_checkpoint(out, tiny_gpt(dropout=0.2), TOKENIZER)["step"] if (out / "checkpoints.json").exists() else None

def outcome(out):
    model = tiny_gpt(dropout=0.2)
    state = load_checkpoint(out, model, TOKENIZER)
    log = [(row["step"], row["train_loss"], row["val_loss"]) for row in read_log(out)]
    return [*model.state_dict().values(), state["random"]["torch"]], (state["step"], state["best"], log)
"""
LESSON = """
from chargpt_lib import training

training.SAVE_EVERY_SECONDS = 0

def job(out, resume):
    return training.load_or_fit("GPT", tiny_gpt(dropout=0.2), CORPUS, sample_chars=20, cache_dir=out, steps=40, batch_size=4)

def stood(out):
    return next((len(torch.load(path, weights_only=True)["losses"]) for path in out.glob("*.pt")), None)

def outcome(out):
    result = job(out, True)
    assert sorted(path.suffix for path in out.iterdir() if path.suffix != ".part") == [".json", ".safetensors"]
    [path] = out.glob("*.safetensors")
    return list(load_file(path).values()), (result["losses"], result["loss"], result["sample"])
"""
# One process imports PyTorch and never computes; each training is a copy of it.
TWENTY = """
import contextlib, json, os, random, signal, sys, time
from pathlib import Path
import torch
import torch._dynamo  # which every optimizer wants at its first step: seconds in which there would be nothing to kill
from safetensors.torch import load_file
from tests.tiny import CORPUS, TOKENIZER, settings, tiny_gpt

torch.set_num_threads(1)
{training}
def begin(out, resume):
    pid = os.fork()
    if pid:
        return pid
    try:
        with contextlib.redirect_stdout(open(os.devnull, "w")):
            job(out, resume)
        os._exit(0)
    except BaseException as error:
        print(type(error).__name__, error, file=sys.stderr)
        os._exit(1)

def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def same(a, b):
    return all(map(torch.equal, a[0], b[0])) and a[1] == b[1]

home = Path(sys.argv[1])
seconds = []
for name in ("whole", "again"):
    began = time.perf_counter()
    assert end(begin(home / name, False)) == 0
    seconds.append(time.perf_counter() - began)
whole, dice, verdicts = outcome(home / "whole"), random.Random(1), []
while len(verdicts) < 20:
    out, moment = home / f"run{{len(verdicts)}}-{{len(seconds)}}", dice.random() * min(seconds)
    pid = begin(out, False)
    time.sleep(moment)
    os.kill(pid, signal.SIGKILL)
    if end(pid) != -signal.SIGKILL:  # it was done before: the next ones are killed sooner
        seconds.append(moment)
        continue
    at, half = stood(out), any(path.name.endswith(".part") for path in out.rglob("*"))
    resumed = end(begin(out, at is not None))
    verdicts.append({{"step": at, "half a save": half, "resumed": resumed,
                     "same": resumed == 0 and same(outcome(out), whole)}})
print(json.dumps(verdicts))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has neither fork nor SIGKILL")
@pytest.mark.parametrize("training", [TRAINER, LESSON], ids=["trainer", "lesson"])
def test_twenty_killed_trainings(training, tmp_path):
    command = [sys.executable, "-c", TWENTY.format(training=training), tmp_path]
    ran = subprocess.run(command, cwd=HERE.root, capture_output=True, text=True, timeout=1800)
    assert ran.returncode == 0, ran.stderr
    verdicts = json.loads(ran.stdout)
    assert [verdict["same"] for verdict in verdicts] == [True] * 20, (verdicts, ran.stderr)
    assert any(verdict["half a save"] for verdict in verdicts), "no kill met a save"
    assert len({verdict["step"] for verdict in verdicts}) >= 5, "all were killed at the same place"


@pytest.mark.parametrize(
    "left",
    [
        ["step-00000000.part"],
        ["step-00000000"],
        ["step-00000000", "checkpoints.json.part"],
        ["settings.toml"],
        ["settings.toml.part"],
    ],
)
def test_what_the_very_first_save_leaves_does_not_count(left, tmp_path):
    for name in left:
        (tmp_path / name).mkdir() if name.startswith("step") else (tmp_path / name).touch()
    assert not is_in_use(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert is_in_use(tmp_path)
