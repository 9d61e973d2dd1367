"""`--init-from`: a new run begins with the weights of another one, and what does not fit is said before time is spent."""

import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from chargpt_lib import trainer
from chargpt_lib.bpe import BPETokenizer
from chargpt_lib.checkpoints import build_model, load_model, save_checkpoint, save_model
from chargpt_lib.cli.main import main
from chargpt_lib.cli.options import _read_settings, read_train_args
from chargpt_lib.data import CharTokenizer
from chargpt_lib.modern import ModernGPT
from chargpt_lib.playhouse import write
from chargpt_lib.trainer import read_log
from chargpt_lib.training import evaluate
from tests.test_command_line import ENV, STEPS, TINY, exact, same_run, tree
from tests.test_distributed import BY_TORCHRUN
from tests.tiny import tiny_gpt

TEXT = write(min_chars=6000).text
OTHER = TEXT[::-1]  # the same characters, and another language
CUT = int(0.9 * len(OTHER))
HARD = ["--batch-size", "4", "--device", "cpu", "--time-budget", "None"]
TWENTY = ["--steps", "20", "--eval-interval", "10", "--learning-rate", "0.01"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    Path("play.txt").write_text(TEXT, encoding="utf-8")
    Path("other.txt").write_text(OTHER, encoding="utf-8")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """The folder of two tiny runs, gpt and modern; nobody writes into them."""
    home = tmp_path_factory.mktemp("bases")
    text = home / "play.txt"
    text.write_text(TEXT, encoding="utf-8")
    learn = ["--steps", "60", "--learning-rate", "0.01", "--time-budget", "None"]
    words = ["train", "--corpus", str(text), *TINY, *learn]
    assert main([*words, "--out", str(home / "gpt")]) == 0
    assert main([*words, "--preset", "modern", "--out", str(home / "modern")]) == 0
    return home


@pytest.fixture
def base(bases):
    return bases / "gpt"


def fine_tune(folder, *options, out="new", corpus="other.txt", steps=TWENTY):
    words = ["train", "--init-from", str(folder), "--corpus", corpus, *HARD, *steps]
    return main([*words, "--out", str(out), *options])


def begin(monkeypatch, folder, *options, out="new", **more):
    """A run that is interrupted in its first step -> the model as it was before that."""

    def press(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "get_lr", press)
        assert fine_tune(folder, *options, out=out, **more) == 130
    assert json.loads(Path(out, "checkpoints.json").read_text()) == {"last": "step-00000000"}
    return load_model(out)[0]


def same_weights(model, other):
    one, two = model.state_dict(), other.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def loss_before(printed):
    return re.search(r"^validation loss before the first step: (\d\.\d{4}) nats", printed, re.M)[1]


# ---------------------------------------------------------------- what a run begins with


@pytest.mark.parametrize("name", ["gpt", "modern"])
def test_the_loss_before_the_first_step_is_that_of_the_initial_model(
    name, bases, monkeypatch, capsys
):
    model = begin(monkeypatch, bases / name)
    printed = capsys.readouterr().out
    initial, tokenizer = load_model(bases / name)
    assert same_weights(model, initial)
    ids = tokenizer.encode(OTHER[CUT:])
    loss = evaluate(model, ids)
    assert loss == pytest.approx(evaluate(initial, ids), abs=1e-6)
    torch.manual_seed(1337)
    assert abs(loss - evaluate(build_model(initial.config), ids)) > 0.1
    assert float(loss_before(printed)) == pytest.approx(exact(initial, ids), abs=6e-5)
    assert main(["eval", str(bases / name), "--corpus", "other.txt", "--device", "cpu"]) == 0
    assert f"\n{loss_before(printed)} nats per character" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["gpt", "modern"])
def test_twenty_steps_lower_the_loss(name, bases, capsys):
    assert fine_tune(bases / name) == 0
    before = float(loss_before(capsys.readouterr().out))
    losses = [row["val_loss"] for row in read_log("new")]
    assert before - 0.1 > losses[0] > losses[1]


def test_the_kind_of_model_decides_the_default_preset(bases, capsys):
    for name, preset, optimizer in (("gpt", "cpu", "adamw"), ("modern", "modern", "muon")):
        assert fine_tune(bases / name, out=name, steps=STEPS) == 0
        saved = _read_settings(Path(name) / "settings.toml")
        assert (saved["preset"], saved["optimizer"]) == (preset, optimizer)
        assert load_model(name)[0].config == load_model(bases / name)[0].config
    assert type(load_model("modern")[0]) is ModernGPT
    capsys.readouterr()

    # How it is trained is the preset's; what is trained is not, dropout included.
    args = read_train_args(["--init-from", str(bases / "gpt"), "--preset", "baby"])
    assert args.training.steps == 5000 and args.training.batch_size == 64
    assert args.model.n_layer == 2 and args.model.dropout == 0.0
    # The folder is that of any run; its name says nothing of the tokenizer.
    assert args.training.out == str(Path("runs/playhouse-baby"))


def test_the_first_lines_say_where_it_begins(base, monkeypatch, capsys):
    Path("link").symlink_to(base)
    assert fine_tune("link", "--learning-rate", "0.002", steps=STEPS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"starting from the weights of {Path.cwd() / 'link'}"
    assert lines[1] == "learning rate 0.002; the preset cpu has 0.003, for training from scratch"
    saved = _read_settings("new/settings.toml")
    assert saved["init_from"] == saved["tokenizer"] == str(Path.cwd() / "link")
    args = read_train_args(["--config", "new/settings.toml"])
    assert args.training.out == str(Path("runs/other-cpu"))
    assert main(["info", "new", "--device", "cpu"]) == 0
    assert f"started from the weights of {Path.cwd() / 'link'}" in capsys.readouterr().out
    assert main(["info", str(base), "--device", "cpu"]) == 0
    assert "started from" not in capsys.readouterr().out

    monkeypatch.setenv("HOME", str(base.parent))
    monkeypatch.setenv("USERPROFILE", str(base.parent))
    words = ["train", f"--init-from=~/{base.name}", "--corpus", "other.txt", *HARD, *STEPS]
    assert main([*words, "--eval-batches", "3", "--out", "second"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"starting from the weights of {base}\n")
    assert "\nestimated validation loss before the first step: " in printed


def test_help_shows_the_model_in_the_folder(base, capsys):
    assert main(["train", "--init-from", str(base), "--help"]) == 0
    printed = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert "n-layer INT blocks (default: 2)" in printed
    assert (
        "start from the weights of this run, checkpoint, saved model or export (fine-tuning)"
        in printed
    )


def test_every_kind_of_folder(monkeypatch):
    """A run: its best checkpoint, else its last; a checkpoint by itself; a saved model."""
    tokenizer = CharTokenizer.from_text(TEXT)
    models = [tiny_gpt(seed, vocab_size=tokenizer.vocab_size) for seed in range(4)]
    save_checkpoint("run", models[0], tokenizer, {}, 1, best=True)
    last = save_checkpoint("run", models[1], tokenizer, {}, 2)
    save_checkpoint("begun", models[2], tokenizer, {}, 0)
    save_model(models[3], tokenizer, "model")
    for folder, model in zip(("run", last, "begun", "model"), models):
        assert same_weights(begin(monkeypatch, folder, out=f"from-{folder}"), model), folder


def test_dropout_may_differ(base, monkeypatch):
    model = begin(monkeypatch, base, "--dropout", "0.3")
    initial, _ = load_model(base)
    assert same_weights(model, initial)
    assert model.config == replace(initial.config, dropout=0.3)
    assert _read_settings("new/settings.toml")["dropout"] == 0.3
    assert fine_tune(base, "--dropout", "0.3", out="with") == 0
    assert fine_tune(base, out="without") == 0
    losses = [read_log(out)[0]["train_loss"] for out in ("with", "without")]
    assert losses[0] > losses[1] + 0.01  # dropout is really there


# ---------------------------------------------------------------- the tokenizer, and the text


def test_a_byte_level_tokenizer_lacks_nothing(monkeypatch, capsys):
    words = ["train", "--corpus", "play.txt", *TINY, *STEPS, "--tokenizer", "bpe:300"]
    assert main([*words, "--out", "pieces"]) == 0
    Path("snow.txt").write_text(OTHER + "é☃" * 300, encoding="utf-8")
    capsys.readouterr()
    assert fine_tune("pieces", corpus="snow.txt") == 0
    assert "nats per token" in capsys.readouterr().out
    model, tokenizer = load_model("new")
    assert model.vocab_size == 300
    assert tokenizer.to_dict() == BPETokenizer.train(TEXT[: int(0.9 * len(TEXT))], 300).to_dict()
    # The same tokenizer under another name is the same; learned from another text, it is another.
    assert fine_tune("pieces", "--tokenizer", "pieces", out="same", steps=STEPS) == 0
    assert fine_tune("pieces", "--tokenizer", "bpe:300", out="learned", corpus="play.txt") == 0
    capsys.readouterr()
    assert fine_tune("pieces", "--tokenizer", "bpe:300", out="wrong") == 2
    assert "--tokenizer bpe:300 is another one than that of the model" in capsys.readouterr().err
    assert not Path("wrong").exists()


def test_characters_that_the_tokenizer_lacks_are_counted_before_anything_begins(base, capsys):
    lines = ["a goose", "a gööse", "", "snow: ☃☃"]
    text = "\n".join(lines) + "\n" + OTHER
    Path("snow.txt").write_text(text, encoding="utf-8")
    before = tree(Path.cwd())
    known = set(TEXT)
    missing = Counter(char for char in text if char not in known)
    assert fine_tune(base, corpus="snow.txt") == 2
    output = capsys.readouterr()
    first = 1 + next(i for i, line in enumerate(lines) if set(line) - known)
    counted = f"(different ones: {len(missing)}; in all: {missing.total()}; the first in line"
    assert f"{', '.join(map(repr, missing))} {counted} {first})" in output.err
    assert "snow.txt" in output.err and "omit --init-from" in output.err and output.out == ""
    assert tree(Path.cwd()) == before

    many = "".join(map(chr, range(0x3B1, 0x3B1 + 20)))
    Path("greek.txt").write_text(OTHER + many, encoding="utf-8")
    assert fine_tune(base, corpus="greek.txt") == 2
    error = capsys.readouterr().err
    assert "different ones: 20; in all: 20" in error and f"{many[7]!r}, ... (" in error
    # Fewer characters are no obstacle: the ids are those of the model.
    Path("few.txt").write_text(OTHER.replace("e", ""), encoding="utf-8")
    assert fine_tune(base, corpus="few.txt") == 0
    assert load_model("new")[1].alphabet == load_model(base)[1].alphabet


# ---------------------------------------------------------------- what cannot be done


@pytest.mark.parametrize(
    "options, words",
    [
        (["--n-layer", "3"], ["--n-layer 3 conflicts", "gpt, which has 2: omit it"]),
        (["--n_head=5"], ["--n-head 5 conflicts", "which has 2"]),
        (["--n-embd", "32"], ["--n-embd 32", "which has 16"]),
        (["--block-size", "8"], ["--block-size 8", "which has 16"]),
        (["--no-tied"], ["--tied False", "which has True"]),
        (["--activation", "gelu"], ["--activation gelu", "which has relu"]),
        (["--norm", "rms"], ["--norm is a setting of the preset modern"]),
        (["--config", "mine.toml"], ["--n-layer 7", "which has 2"]),
        (["--dropout", "1.5"], ["dropout must be >= 0 and < 1, got 1.5"]),
        (["--preset", "modern"], ["--preset modern", "a GPT", "cpu, lecture, baby, oz, gpt2"]),
        (["--init-from", "MODERN", "--preset", "oz"], ["a ModernGPT", "one of modern"]),
        (["--init-from", "MODERN", "--n-kv-head", "1"], ["--n-kv-head 1", "which has 2"]),
        (["--tokenizer", "bpe:300"], ["--tokenizer bpe:300", "omit it, or pass --tokenizer /"]),
        (["--tokenizer", "abc.json"], ["--tokenizer abc.json is another one"]),
        (["--tokenizer", "words"], ["no tokenizer and no file is called 'words'"]),
        (["--init-from", "model", "--corpus", "short.txt"], ["block_size + 1 = 33", "longer text"]),
        (["--corpus", "short.txt", "--eval-batches", "3"], ["--eval-batches 0 reads it whole"]),
        (["--corpus", "nowhere.txt"], ["nowhere.txt", "path of a text file"]),
        (["--init-from", "nowhere"], ["nowhere does not exist: is it the right folder?"]),
        (["--init-from", "play.txt"], ["play.txt is a file: give the folder it is in"]),
        (["--init-from", "damaged"], ["model.safetensors", "Copy the file again"]),
        (["--init-from", "hub"], ["hub has no tokenizer"]),
        (["--init-from", ""], ["there is no 'last' checkpoint"]),
        (["--init-from", "copies/step-00000001", "--out", "copies"], ["--out copies holds the w"]),
        (["--init-from", "model", "--out", "model"], ["model: give the new run a folder of its"]),
        (["--out", "full"], ["full is not an empty folder"]),
    ],
)
def test_what_does_not_fit_is_said_at_once_and_leaves_nothing(options, words, bases, capsys):
    tokenizer = CharTokenizer.from_text(TEXT)
    model = tiny_gpt(vocab_size=tokenizer.vocab_size, block_size=32)
    save_model(model, tokenizer, "model")
    # A checkpoint that was copied out of its run: a new run would take it for what a killed one has left.
    checkpoint = save_checkpoint("run", model, tokenizer, {}, 1)
    shutil.copytree(checkpoint, Path("copies", checkpoint.name))
    shutil.copytree("model", "damaged")
    Path("damaged/model.safetensors").write_bytes(b"x" * 100_000)
    Path("hub").mkdir()
    Path("hub/config.json").write_text('{"model_type": "gpt2"}')
    Path("full").mkdir()
    Path("full/treasure").write_text("gold")
    Path("mine.toml").write_text("n_layer = 7")
    Path("short.txt").write_text(OTHER[:30])
    CharTokenizer.from_text(TEXT + "☃").save("abc.json")
    before = tree(Path.cwd())
    options = [option.replace("MODERN", str(bases / "modern")) for option in options]
    assert fine_tune(bases / "gpt", *options) == 2
    error = re.sub(r"[\s│]+", " ", capsys.readouterr().err)
    assert all(word in error for word in words), error
    assert tree(Path.cwd()) == before


def test_what_agrees_with_the_model_may_be_given(base):
    sizes = ["--n-layer", "2", "--block-size", "16", "--tied", "--activation", "relu"]
    assert fine_tune(base, *sizes, steps=STEPS) == 0
    assert fine_tune(base, out="plain", steps=STEPS) == 0
    assert same_run("new", "plain")


# ---------------------------------------------------------------- settings, and resumed runs


def test_the_settings_repeat_the_run(base, capsys):
    shutil.copytree(base, "base")
    assert fine_tune("base", "--dropout", "0.1") == 0
    saved = _read_settings("new/settings.toml")
    assert saved["init_from"] == saved["tokenizer"] == str(Path("base").resolve())
    assert main(["train", "--config", "new/settings.toml", "--out", "again", *HARD[2:4]]) == 0
    assert same_run("new", "again")
    assert Path("new/settings.toml").read_text() == Path("again/settings.toml").read_text()

    # An option wins over the file: from scratch, with the same tokenizer.
    scratch = ["--config", "new/settings.toml", "--init-from", "None", *HARD[2:4]]
    assert main(["train", *scratch, "--out", "scratch"]) == 0
    assert _read_settings("scratch/settings.toml")["init_from"] is None
    assert load_model("scratch")[1].to_dict() == load_model("new")[1].to_dict()
    assert not same_run("new", "scratch")

    # A file may name the folder, and another option the other.
    Path("mine.toml").write_text('init_from = "nowhere"')
    assert fine_tune("base", "--dropout", "0.1", "--config", "mine.toml", out="third") == 0
    assert same_run("new", "third")
    capsys.readouterr()
    shutil.rmtree("base")
    assert main(["train", "--config", "new/settings.toml", "--out", "fourth"]) == 2
    assert "base does not exist" in capsys.readouterr().err and not Path("fourth").exists()


@pytest.mark.parametrize("name", ["gpt", "modern"])
def test_a_resumed_run_needs_the_folder_no_more(name, bases, capsys):
    shutil.copytree(bases / name, "base")
    flat = ["--schedule", "wsd", "--warmup", "0", "--decay", "0", "--dropout", "0.1"]
    flat += ["--eval-interval", "5"]
    assert fine_tune("base", *flat, out="whole") == 0
    assert fine_tune("base", *flat, "--steps", "10", out="part") == 0
    more = ["train", "--resume", "--out", "part", "--device", "cpu", "--steps"]
    before = tree(Path("part"))
    capsys.readouterr()
    assert main([*more, "20", "--init-from", "elsewhere"]) == 2
    error = capsys.readouterr().err
    assert f"--init-from {Path.cwd() / 'elsewhere'} conflicts with the run in part" in error
    assert f"which has {Path.cwd() / 'base'}" in error and tree(Path("part")) == before
    assert main([*more, "20", "--tokenizer", "bpe:300"]) == 2
    assert "--tokenizer bpe:300 conflicts with the run" in capsys.readouterr().err

    assert main([*more, "15", "--init-from", "base"]) == 0
    shutil.rmtree("base")
    capsys.readouterr()
    assert main([*more, "20"]) == 0
    assert "starting from" not in capsys.readouterr().out
    assert same_run("whole", "part")
    assert _read_settings("part/settings.toml") == _read_settings("whole/settings.toml")
    assert main(["eval", "part", "--device", "cpu"]) == 0


def test_a_folder_that_has_become_a_link_is_the_same_for_a_resumed_run(base):
    shutil.copytree(base, "base")
    assert fine_tune("base", "--steps", "10") == 0
    Path("base").rename("moved")
    Path("base").symlink_to("moved")
    assert main(["train", "--resume", "--out", "new", "--device", "cpu", "--steps", "20"]) == 0
    assert _read_settings("new/settings.toml")["init_from"] == str(Path.cwd() / "base")


def test_runs_of_earlier_versions_have_no_such_setting(capsys):
    assert main(["train", "--corpus", "play.txt", *TINY, *STEPS, "--out", "run"]) == 0
    path = Path("run/settings.toml")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    older = [line for line in lines if not line.startswith("init_from")]
    assert len(older) == len(lines) - 1
    path.write_text("".join(older), encoding="utf-8")
    words = ["train", "--config", "run/settings.toml", "--device", "cpu", "--out", "again"]
    assert main(words) == 0 and same_run("run", "again")
    capsys.readouterr()
    resume = ["train", "--resume", "--out", "run", "--device", "cpu", "--steps", "14"]
    assert main([*resume, "--init-from", "again"]) == 2
    assert "which has None: omit it" in capsys.readouterr().err
    assert main(resume) == 0 and main(["info", "run", "--device", "cpu"]) == 0


# ---------------------------------------------------------------- several processes


def test_two_processes_begin_with_the_same_weights(base):
    words = ["train", "--init-from", str(base), "--corpus", "other.txt", *HARD, *STEPS]
    done = subprocess.run(
        [*BY_TORCHRUN, "-m", "chargpt_lib.cli", *words, "--out", "two"],
        capture_output=True,
        text=True,
        env={**ENV, "GLOO_SOCKET_IFNAME": "lo", "CHARGPT_DEVICE": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("starting from the weights of") == 1
    assert done.stdout.count("loss before the first step") == 1
    initial, tokenizer = load_model(base)
    loss = evaluate(initial, tokenizer.encode(OTHER[CUT:]))
    assert loss_before(done.stdout) == f"{loss:.4f}"
    assert main([*words, "--batch-size", "8", "--out", "one"]) == 0
    for row, other in zip(read_log("two"), read_log("one"), strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)
        assert row["val_loss"] == pytest.approx(other["val_loss"], abs=1e-5)
