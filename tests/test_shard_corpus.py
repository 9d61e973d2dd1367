"""`chargpt train --corpus FOLDER`: a folder of shards through the commands, alone and in two processes."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from chargpt_lib.bpe import BPETokenizer, bits_of_text
from chargpt_lib.checkpoints import build_model, find_checkpoint, load_model
from chargpt_lib.cli.main import main
from chargpt_lib.cli.options import _read_settings
from chargpt_lib.data import CharTokenizer
from chargpt_lib.playhouse import write
from chargpt_lib.recipe import TrainConfig
from chargpt_lib.shards import Shards, write_shards
from chargpt_lib.trainer import read_log
from chargpt_lib.trainer import train as train_model
from chargpt_lib.training import evaluate
from tests.test_command_line import ENV, TINY, tree
from tests.test_distributed import BY_TORCHRUN

TEXT = write(min_chars=6000).text
PIECES = BPETokenizer.train(TEXT, 300)
STEPS = ["--steps", "12", "--eval-interval", "5", "--time-budget", "None"]
RESUME = ["train", "--resume", "--device", "cpu", "--out", "run"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Entered: a folder with shards of two tokenizers, several files each, and their text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    Path("play.txt").write_text(TEXT, encoding="utf-8")
    write_shards([TEXT], "letters", shard_size=2000, val_size=500)
    write_shards([TEXT], "pieces", PIECES, shard_size=1000, val_size=300)


def train(*options, corpus="pieces", out="run", code=0):
    words = ["train", "--corpus", corpus, *TINY, *STEPS, "--out", out, *options]
    assert main(words) == code


def refused(capsys, words, *wanted):
    """The command fails with all these words, and leaves every file as it is."""
    before = tree(Path.cwd())
    assert main(words) == 2
    said = re.sub(r"[\s│]+", " ", capsys.readouterr().err)
    assert all(word in said for word in wanted), said
    assert tree(Path.cwd()) == before


def losses(folder):
    return [(row["train_loss"], row["val_loss"]) for row in read_log(folder)]


# ---------------------------------------------------------------- from shards to a sample


def test_a_run_on_shards_is_that_of_the_library(capsys):
    train("--learning-rate", "0.003")
    said = capsys.readouterr().out
    shards = Shards("pieces")
    assert f"pieces: {len(shards):,} tokens for training, 300 for validation" in said
    assert "a vocabulary of 300 tokens" in said
    model, tokenizer = load_model("run")
    assert tokenizer.to_dict() == PIECES.to_dict()

    # The same by the library: the model's initial weights and the config are those of the command.
    state = torch.load(find_checkpoint("run", "last") / "state.pt")
    config = TrainConfig(**{**state["config"], "out": None})
    torch.manual_seed(config.seed)
    twin = build_model(model.config)
    result = train_model(twin, shards, config)
    assert [row["train_loss"] for row in result["log"]] == [row[0] for row in losses("run")]

    per_character, _ = bits_of_text(result["best_val_loss"], shards.val_ids, PIECES)
    assert f"that is {per_character:.4f} bits per character" in said
    assert f"validation loss {evaluate(model, shards.val_ids):.4f} nats per token" in said


def test_settings_name_the_folder_and_its_tokenizer(capsys):
    train()
    settings = _read_settings("run/settings.toml")
    assert settings["corpus"] == str(Path("pieces").resolve())
    assert settings["tokenizer"] == "shards"
    # As defaults, too; and the folder of the run has no tokenizer in its name.
    words = ["train", "--corpus", "./pieces/", *TINY, "--help"]
    assert main(words) == 0
    said = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert "(default: shards)" in said and "runs/pieces-cpu" in said
    # In a file of settings a folder of shards is a corpus like any other.
    Path("mine.toml").write_text('corpus = "letters"\nsteps = 2\n', encoding="utf-8")
    words = ["train", "--config", "mine.toml", *TINY, "--time-budget", "None", "--out", "mine"]
    assert main(words) == 0
    assert isinstance(load_model("mine")[1], CharTokenizer)


def test_letters_sample_and_attend(capsys):
    train(corpus="letters")
    assert "characters for training, 500 for validation" in capsys.readouterr().out
    assert main(["sample", "run", "--seed", "1", "--max-new-tokens", "40"]) == 0
    assert len(capsys.readouterr().out) == 41
    assert main(["info", "run"]) == 0
    assert "12 steps" in capsys.readouterr().out


def test_a_tokenizer_that_is_the_shards_own_may_be_named(capsys):
    PIECES.save("own.json")
    train("--tokenizer", "own.json", out="one")
    train("--tokenizer", "shards", out="two")
    train("--tokenizer", "char", corpus="letters", out="three")
    assert losses("one") == losses("two")


def test_shards_without_validation(capsys):
    write_shards([TEXT], "whole", PIECES, val_size=0)
    train("--eval-batches", "2", corpus="whole")
    said = capsys.readouterr().out
    assert "0 for validation" in said and "no estimated validation loss was measured" in said
    assert [row["val_loss"] for row in read_log("run")] == [None] * 3
    refused(capsys, ["eval", "run"], "without validation ids", "--corpus")


# ---------------------------------------------------------------- eval


def test_eval_takes_the_validation_ids(capsys):
    train()
    capsys.readouterr()
    model, _ = load_model("run")
    val_ids = Shards("pieces").val_ids
    loss = evaluate(model, val_ids)
    bits = bits_of_text(loss, val_ids, PIECES)
    length = f"{len(PIECES.decode(val_ids)):,} characters, 300 tokens"
    for words in (["eval", "run"], ["eval", "run", "--corpus", "pieces"]):
        assert main(words) == 0
        said = capsys.readouterr().out
        assert f"pieces, val: {length}" in said and f"{loss:.4f} nats per token" in said
        assert f"{bits[0]:.4f} bits per character" in said and "floor" not in said
    refused(capsys, ["eval", "run", "--split", "train"], "--split train", "pieces", "--corpus")
    refused(capsys, ["eval", "run", "--corpus", "letters"], "letters", "another tokenizer")
    assert main(["eval", "run", "--corpus", "play.txt"]) == 0
    assert "play.txt, val" in capsys.readouterr().out


# ---------------------------------------------------------------- resume


def test_a_resumed_run_is_one_that_was_never_stopped(capsys):
    # A learning rate that does not depend on how many steps there will be.
    constant = ["--schedule", "wsd", "--decay", "0", "--warmup", "0", "--learning-rate", "0.003"]
    train(*constant, out="whole")
    train(*constant, "--steps", "5")
    assert main([*RESUME, "--steps", "12"]) == 0
    assert losses("run") == losses("whole") and len(losses("run")) == 3
    one = load_model("whole")[0].state_dict()
    two = load_model("run")[0].state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_moved_folder_is_found_beside_the_run(monkeypatch, capsys):
    train()
    there = Path.cwd().parent / "there"
    Path.cwd().rename(there)
    monkeypatch.chdir(there)
    assert main([*RESUME, "--steps", "14"]) == 0
    assert _read_settings("run/settings.toml")["corpus"] == str(there / "pieces")
    capsys.readouterr()
    assert main(["eval", "run"]) == 0 and "nats per token" in capsys.readouterr().out


def test_other_shards_are_refused_or_accepted(capsys):
    train()
    write_shards([TEXT[::-1]], "other", PIECES, shard_size=1000, val_size=300)
    command = [*RESUME, "--steps", "14", "--corpus", "other"]
    refused(capsys, command, "other is not the text", "--corpus-changed accept")
    changed = [*RESUME, "--steps", "14", "--corpus", "letters", "--corpus-changed", "accept"]
    refused(capsys, changed, "letters", "another tokenizer", "new run")
    assert main([*command, "--corpus-changed", "accept"]) == 0
    assert read_log("run")[-1]["data_since"] == 12
    # Rewritten in their place, they are other shards, too.
    shutil.rmtree("other")
    write_shards([TEXT], "other", PIECES, shard_size=1000, val_size=300)
    refused(capsys, [*RESUME, "--steps", "16"], "other is not the text")


def test_shards_in_place_of_the_text_and_the_other_way_round(capsys):
    """The ids are the same, but a fingerprint of shards is of the files."""
    train(corpus="play.txt")
    command = [*RESUME, "--steps", "14", "--corpus", "letters"]
    refused(capsys, command, "letters is not the text")
    assert main([*command, "--corpus-changed", "accept"]) == 0
    back = [*RESUME, "--steps", "16", "--corpus", "play.txt", "--corpus-changed", "accept"]
    assert main(back) == 0
    assert main([*RESUME, "--steps", "18"]) == 0


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    "options, words",
    [
        (["--tokenizer", "char"], ["--tokenizer char", "pieces", "omit --tokenizer"]),
        (["--tokenizer", "bpe:300"], ["--tokenizer bpe:300", "omit --tokenizer"]),
        (["--tokenizer", "letters.json"], ["--tokenizer letters.json", "omit --tokenizer"]),
        (["--tokenizer", "nowhere"], ["--tokenizer nowhere", "no file"]),
        (["--block-size", "5000"], ["block_size + 1 = 5001", "longer text"]),
        (["--eval-batches", "2", "--block-size", "300"], ["300 tokens", "--eval-batches 0"]),
    ],
)
def test_what_cannot_be_trained(options, words, capsys):
    CharTokenizer.from_text(TEXT).save("letters.json")
    refused(capsys, ["train", "--corpus", "pieces", *TINY, *STEPS, *options], *words)


def test_folders_that_are_no_shards_or_damaged_ones(capsys):
    command = ["train", *TINY, *STEPS, "--corpus"]
    Path("texts").mkdir()
    refused(capsys, [*command, "texts"], "'texts' is a folder without index.json", "write_shards")
    Path("pieces/train-00001.bin").unlink()
    refused(capsys, [*command, "pieces"], "train-00001.bin", "missing")
    Path("letters/index.json").write_text("{}", encoding="utf-8")
    refused(capsys, [*command, "letters"], "index.json", "not a valid shard index")


def test_a_text_has_no_shards_tokenizer(capsys):
    command = ["train", "--corpus", "play.txt", *TINY, *STEPS, "--tokenizer", "shards"]
    refused(capsys, command, "--tokenizer shards", "no tokenizer")


# ---------------------------------------------------------------- several processes


def by_torchrun(*words):
    """Two processes -> what they printed."""
    done = subprocess.run(
        [*BY_TORCHRUN, "-m", "chargpt_lib.cli", *words],
        env={**os.environ, **ENV, "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout


def test_two_processes_are_one_with_twice_the_batch(capsys):
    words = ["train", "--corpus", "pieces", *TINY, *STEPS]
    code, said = by_torchrun(*words, "--out", "two")
    assert code == 0, said
    assert said.count("tokens for training, 300 for validation") == 1
    train("--batch-size", "8", out="one")
    for two, one in zip(losses("two"), losses("one"), strict=True):
        assert two == pytest.approx(one, abs=1e-5)
    # Resumed in two, too.
    code, said = by_torchrun(
        "train", "--resume", "--out", "two", "--steps", "15", "--device", "cpu"
    )
    assert code == 0, said
    assert main(["train", "--resume", "--out", "one", "--steps", "15", "--device", "cpu"]) == 0
    for two, one in zip(losses("two"), losses("one"), strict=True):
        assert two == pytest.approx(one, abs=1e-5)
    assert main(["eval", "two"]) == 0
    assert "nats per token" in capsys.readouterr().out
