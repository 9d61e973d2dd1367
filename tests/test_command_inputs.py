"""What the command is given and where it prints: encodings, pipes, odd files and prompts, models of other programs."""

import errno
import gzip
import io
import json
import os
import random
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import chargpt_lib
from chargpt_lib.checkpoints import load_model, save_model
from chargpt_lib.cli import commands
from chargpt_lib.cli.inputs import explain_not_text
from chargpt_lib.cli.main import COMMANDS, SUBCOMMANDS, main
from chargpt_lib.cli.options import SETTINGS, _default_out, _read_settings, _with_preset
from chargpt_lib.data import CharTokenizer
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.grading.intake import HandedIn, Intake
from chargpt_lib.playhouse import write
from chargpt_lib.trainer import read_log

# Letters that ASCII lacks, one that Windows-1252 lacks, a dash; no backslash.
TEXT = write(min_chars=4000).text + "é☃-" * 40
SIZES = "--n-layer 1 --n-head 2 --n-embd 16 --block-size 16 --batch-size 4 --device cpu".split()
STEPS = "--steps 3 --eval-interval 2 --time-budget None".split()
CHARGPT = [sys.executable, "-m", "chargpt_lib.cli"]
ENV = {
    **os.environ,
    "PYTHONPATH": str(Path(chargpt_lib.__file__).parents[1]),
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    Path("play.txt").write_text(TEXT, encoding="utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny run, made once; nobody writes into it."""
    home = tmp_path_factory.mktemp("trained")
    text = home / "play.txt"
    text.write_text(TEXT, encoding="utf-8")
    run = home / "run"
    assert main(["train", "--corpus", str(text), *SIZES, *STEPS, "--out", str(run)]) == 0
    return run


def train(*options, corpus="play.txt"):
    return main(["train", "--corpus", str(corpus), *SIZES, *STEPS, "--out", "run", *options])


def sample(run, *options):
    return main(["sample", str(run), "--max-new-tokens", "5", "--seed", "1", *options])


def run_process(*arguments, **options):
    """The command in a process of its own -> the finished process, with bytes."""
    environment = {**ENV, **options.pop("env", {})}
    return subprocess.run(
        [*CHARGPT, *map(os.fsdecode, arguments)], env=environment, capture_output=True, **options
    )


def give_stdin(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


class FullDisk(io.StringIO):
    """An output that takes some writes, and then none."""

    def __init__(self, writes):
        super().__init__()
        self.left = writes

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


# ---------------------------------------------------------------- encodings of the output


@pytest.mark.parametrize(
    "encoding, shown", [("ascii", b"\\xe9\\u2603"), ("cp1252", b"\xe9\\u2603"), ("utf-8", None)]
)
def test_letters_that_the_output_lacks_are_escaped_and_the_way_out_is_named_once(
    trained, encoding, shown
):
    arguments = ["sample", trained, "--prompt", "é☃☃", "--max-new-tokens", "5", "--seed", "1"]
    done = run_process(*arguments, env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    if shown is None:
        assert done.stdout.startswith("é☃".encode()) and done.stderr == b""
    else:
        assert done.stdout.startswith(shown)
        assert done.stderr.count(b"set PYTHONIOENCODING=utf-8") == 1
        assert done.stderr.count(b"\n") == 1


def test_a_training_into_an_ascii_console_succeeds():
    arguments = ["train", "--corpus", "play.txt", *SIZES, *STEPS, "--out", "run"]
    done = run_process(*arguments, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert b"chargpt sample run" in done.stdout and b"PYTHONIOENCODING=utf-8" in done.stderr


def test_the_users_own_error_handler_stays(trained):
    arguments = ["sample", trained, "--prompt", "é☃", "--max-new-tokens", "5", "--seed", "1"]
    done = run_process(*arguments, env={"PYTHONIOENCODING": "ascii:replace"})
    assert done.returncode == 0 and done.stdout.startswith(b"??") and done.stderr == b""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are Unicode")
def test_file_names_that_are_not_utf8(trained):
    name = b"na\xffme"
    Path(os.fsdecode(name + b".txt")).write_text(TEXT, encoding="utf-8")
    done = run_process("eval", trained, "--corpus", name + b".txt")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"na\\xffme.txt, val") and done.stderr == b""
    done = run_process("eval", name)
    assert done.returncode == 2 and b"na\\xffme does not exist" in done.stderr
    # Before any folder is made.
    for option in (["--corpus", name + b".txt"], ["--out", name]):
        done = run_process("train", "--corpus", "play.txt", *SIZES, *STEPS, *option)
        assert done.returncode == 2 and b"na\\xffme" in done.stderr, done.stderr
        assert b"is not UTF-8" in done.stderr and b"codec" not in done.stderr
    assert {path.name for path in Path.cwd().iterdir()} == {"play.txt", "na\udcffme.txt"}


# ---------------------------------------------------------------- errors after the work


def test_an_output_that_is_full_does_not_end_a_training(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", FullDisk(4))
    assert train() == 0
    said = capsys.readouterr().err
    assert said.count("training goes on without it") == 1 and "No space left" in said
    assert read_log("run")[-1]["step"] == 3


def test_a_closed_pipe_does_not_end_a_training():
    arguments = ["train", "--corpus", "play.txt", *SIZES, *STEPS, "--out", "run"]
    process = subprocess.Popen(
        [*CHARGPT, *arguments], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=300) == 0, said
    assert read_log("run")[-1]["step"] == 3 and b"Traceback" not in said


def test_a_sample_that_fails_at_the_end_is_no_failure_of_the_training(monkeypatch, capsys):
    def explode(*_, **__):
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(commands, "generate", explode)
    assert train() == 0
    said = capsys.readouterr().err
    assert "the run is done, and saved in run; only showing the result failed" in said
    assert "CUDA error" in said and load_model("run")


def test_a_page_is_written_though_nobody_reads_where(trained, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", FullDisk(0))
    assert main(["attend", str(trained), "--prompt", "O", "--out", "maps.html"]) == 0
    assert Path("maps.html").is_file() and "maps.html is written" in capsys.readouterr().err


def test_the_verdict_on_a_notebook_does_not_depend_on_a_reader(monkeypatch, capsys):
    record = {"marks": {"a": "✓", "b": "✗"}, "hints": {"b": "no"}, "problems": []}
    notebook = HandedIn(Path("x.ipynb"), "x.ipynb", None, None)
    found = Intake([notebook], [])
    monkeypatch.setattr("chargpt_lib.grading.batch.guess_lesson", lambda paths: "single_head")
    monkeypatch.setattr("chargpt_lib.grading.submission.grade_submission", lambda *_: record)
    # Last: the modules above take the function from there when they are first imported, and would keep the stand-in.
    monkeypatch.setattr("chargpt_lib.grading.intake.collect_submissions", lambda paths: found)
    assert main(["check", "x.ipynb"]) == 1
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdout", FullDisk(1))
    assert main(["check", "x.ipynb"]) == 1
    assert "No space left" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_error_and_no_complaint_at_the_exit(trained):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*CHARGPT, "eval", str(trained)], env=ENV, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"No space" in done.stderr


def test_without_any_output_it_still_works(trained, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["eval", str(trained)]) == 0
    assert main(["eval", "nowhere"]) == 2


# ---------------------------------------------------------------- what is no text

CYRILLIC = "Мой дядя самых честных правил,\nКогда не в шутку занемог,\n" * 20


@pytest.mark.parametrize(
    "content, words",
    [
        (TEXT.encode("utf-16"), ["UTF-16", "iconv -f UTF-16 -t UTF-8"]),
        (TEXT.encode("utf-16-le"), ["UTF-16LE", "iconv -f UTF-16LE"]),
        (TEXT.encode("utf-16-be"), ["UTF-16BE"]),
        (TEXT.encode("utf-32"), ["UTF-32"]),
        (CYRILLIC.encode("utf-16-le"), ["UTF-16LE"]),
        (CYRILLIC.encode("utf-16-be"), ["UTF-16BE"]),
        (f"\n<!DOCTYPE html>\n<p>{TEXT}".encode(), ["a web page", "Raw"]),
        (f"\ufeff<html>{TEXT}".encode(), ["a web page"]),
        (f'<?xml version="1.0"?><html>{TEXT}'.encode(), ["a web page"]),
        (gzip.compress(TEXT.encode()), ["gzip", "unpack it"]),
        (b"PK\x03\x04" + b"a" * 99, ["zip", ".docx"]),
        (b"\x89PNG\r\n\x1a\n" + b"a" * 99, ["a picture (PNG)"]),
        (b"\xff\xd8\xff\xe0" + b"a" * 99, ["a picture (JPEG)"]),
        (b"%PDF-1.7\n" + b"a" * 99, ["a PDF", "pdftotext"]),
        (b"a\0b\0\0\0c\0\0d" * 99, ["zero bytes"]),
    ],
)
def test_what_is_no_text_is_said_before_training(content, words, monkeypatch, capsys):
    Path("odd.txt").write_bytes(content)
    before = sorted(Path.cwd().iterdir())
    assert train(corpus="odd.txt") == 2
    output = capsys.readouterr()
    assert "odd.txt cannot be read as a text" in output.err and output.out == ""
    assert all(word in output.err for word in words), output.err
    assert sorted(Path.cwd().iterdir()) == before
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert train(corpus="-") == 2
    said = capsys.readouterr().err
    assert "the standard input" in said and all(word in said for word in words), said


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a",
        TEXT.encode(),
        f"\ufeff{TEXT}".encode(),
        CYRILLIC.encode(),
        "吾輩は猫である。名前はまだ無い。".encode() * 20,
        b"the tag <html> and a stray \0 within a text " * 9,
        b"BM and GIF are letters, too",
    ],
)
def test_texts_are_texts(content):
    assert explain_not_text(content) is None


def test_a_web_page_at_an_address(site, capsys):
    site.pages["/blob/play.txt"] = f"<!DOCTYPE html><pre>{TEXT}</pre>".encode()
    assert train(corpus=f"{site.address}/blob/play.txt") == 2
    assert "it is a web page (HTML)" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["http://", "https:///", "http://["])
def test_half_an_address(address, capsys):
    assert train(corpus=address) == 2
    assert capsys.readouterr().err.startswith("chargpt train: ")


# ---------------------------------------------------------------- pipes, and ~


def test_a_text_from_the_standard_input_can_be_resumed_and_evaluated(monkeypatch, capsys):
    give_stdin(monkeypatch, TEXT)
    assert main(["train", "--corpus", "-", *SIZES, *STEPS]) == 0
    run = Path("runs/stdin-cpu")
    assert Path(_default_out(_with_preset({"corpus": "-"}))) == run
    copy = Path(_read_settings(run / "settings.toml")["corpus"])
    assert copy.is_absolute() and copy.read_text(encoding="utf-8") == TEXT
    assert main(["train", "--resume", "--out", str(run), "--steps", "5", "--device", "cpu"]) == 0
    assert main(["eval", str(run)]) == 0
    assert train() == 0
    capsys.readouterr()
    give_stdin(monkeypatch, TEXT)
    assert main(["eval", "run", "--corpus", "-"]) == 0
    assert "the standard input, val" in capsys.readouterr().out
    give_stdin(monkeypatch, "")
    assert train("--out", "other", corpus="-") == 2
    assert "the standard input is empty" in capsys.readouterr().err


def test_several_processes_cannot_share_the_standard_input(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train(corpus="-") == 2
    assert "one process only: save the text in a file" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_text_from_a_named_pipe():
    os.mkfifo("pipe")
    with subprocess.Popen(["sh", "-c", "cat play.txt > pipe"]) as writer:
        assert train(corpus="pipe") == 0
        assert writer.wait(timeout=60) == 0
    assert Path(_read_settings("run/settings.toml")["corpus"]).read_text(encoding="utf-8") == TEXT


def test_the_home_folder_where_the_shell_leaves_its_sign(monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.setenv("USERPROFILE", str(Path.cwd()))
    Path("mine.toml").write_text("seed = 7", encoding="utf-8")
    Path("prompt.txt").write_text("O", encoding="utf-8")
    assert train("--corpus=~/play.txt", "--out=~/run", "--config=~/mine.toml") == 0
    settings = _read_settings("run/settings.toml")
    assert settings["seed"] == 7 and settings["corpus"] == str(Path("play.txt").resolve())
    assert main(["eval", "~/run", "--corpus=~/play.txt"]) == 0
    assert main(["info", "~/run"]) == 0
    capsys.readouterr()
    assert sample("~/run", "--prompt=FILE:~/prompt.txt") == 0
    assert capsys.readouterr().out.startswith("O")
    assert main(["attend", "~/run", "--prompt", "O", "--out=~/maps.html"]) == 0
    assert Path("maps.html").is_file() and not Path("~").exists()


# ---------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    "options, beginning",
    [
        (["--prompt", "O\\nO"], "O\nO"),
        (["--prompt", "- a"], "- a"),
        (["--prompt", "--O"], "--O"),
        (["--prompt=--O"], "--O"),
        (["--prompt", "--help me"], "--help me"),
        (["--prompt", "-"], "-"),
        (["--prompt", "--", "--prompt", "-O"], "-O"),
        (["--prompt", "FILE:prompt.txt"], "O damp\ngoose☃"),
        (["--prompt", ""], "\n"),
    ],
)
def test_prompts_as_people_type_them(trained, options, beginning, capsys):
    Path("prompt.txt").write_bytes("\ufeffO damp\r\ngoose☃".encode())
    assert sample(trained, *options) == 0
    written = capsys.readouterr().out
    if beginning != "\n":  # an empty prompt is not printed
        assert written.startswith(beginning)
    assert main(["attend", str(trained), *options]) == (2 if beginning == "\n" else 0)


def test_a_stop_string_as_people_type_it(trained, capsys):
    assert main(["sample", str(trained), "--seed", "1", "--stop", "\\n"]) == 0
    assert capsys.readouterr().out.strip("\n").count("\n") == 0
    assert sample(trained, "--stop", "-O") == 0


def test_where_the_alphabet_has_a_backslash_it_is_one(capsys):
    tokenizer = CharTokenizer("abn\\\n")
    save_model(GPT(GPTConfig.cpu(5, n_layer=1, n_embd=16)), tokenizer, "model")
    assert sample("model", "--prompt", "a\\n") == 0
    assert capsys.readouterr().out.startswith("a\\n")


@pytest.mark.parametrize(
    "prompt, words",
    [
        ("FILE:gone.txt", ["no file is called 'gone.txt'"]),
        ("FILE:", ["no file is called '.'"]),
        ("FILE:latin.txt", ["FILE:latin.txt", "not UTF-8"]),
    ],
)
def test_a_prompts_file_that_cannot_be_read(trained, prompt, words, capsys):
    Path("latin.txt").write_bytes(b"caf\xe9")
    for command in ("sample", "attend", "page"):
        assert main([command, str(trained), "--prompt", prompt]) == 2
        said = capsys.readouterr().err
        assert all(word in said for word in words), said


def test_a_forgotten_prompt_is_not_the_next_option(trained, capsys):
    assert main(["sample", str(trained), "--prompt", "--seed", "3"]) == 2
    assert "Missing value for argument '--prompt'" in capsys.readouterr().err
    assert main(["sample", str(trained), "--prompt", "--help"]) in (0, 2)


# ---------------------------------------------------------------- devices, and models of other programs


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="a Mac")
def test_a_device_that_is_not_here_is_told_shortly(trained, monkeypatch, capsys):
    for command in (["eval", str(trained)], ["info"], ["train", "--corpus", "play.txt"]):
        assert main([*command, "--device", "mps"]) == 2
        said = capsys.readouterr().err
        assert "--device is 'mps'" in said and "give cpu" in said and len(said) < 300
    monkeypatch.setenv("CHARGPT_DEVICE", "mps")
    assert main(["info"]) == 2 and "CHARGPT_DEVICE is 'mps'" in capsys.readouterr().err


def foreign_models():
    Path("nano").mkdir()
    Path("nano/ckpt.pt").write_bytes(b"PK\x03\x04")
    Path("hub").mkdir()
    Path("hub/config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 12}))
    Path("bert").mkdir()
    Path("bert/config.json").write_text(json.dumps({"model_type": "modernbert"}))
    Path("weights").mkdir()
    save_file({"transformer.h.0.ln_1.weight": torch.ones(3)}, "weights/model.safetensors")


@pytest.mark.parametrize(
    "folder, words",
    [
        ("nano", "the folder of nanoGPT's checkpoint, ckpt.pt"),
        ("nano/ckpt.pt", "nanoGPT's checkpoint"),
        ("hub", "a model of transformers (its model_type is 'gpt2')"),
        ("bert", "a model of transformers (its model_type is 'modernbert')"),
        ("weights", "a model of transformers (its weights are called transformer.h...)"),
    ],
)
def test_models_of_other_programs_are_named(folder, words, capsys):
    foreign_models()
    for command in (
        ["sample"],
        ["eval"],
        ["attend"],
        ["page"],
        ["info"],
        ["train", "--resume", "--out"],
    ):
        assert main([*command, folder]) == 2
        said = capsys.readouterr().err
        assert f"{folder} is {words}: chargpt import {folder} --out FOLDER" in said, said


def test_what_is_only_damaged_is_not_called_foreign(capsys):
    Path("broken").mkdir()
    Path("broken/config.json").write_text("[" * 100_000)
    Path("broken/model.safetensors").write_bytes(b"\xff" * 30)
    assert main(["sample", "broken"]) == 2
    assert "not supported" not in capsys.readouterr().err


# ---------------------------------------------------------------- messages that said None


def test_a_resumed_run_names_the_reason_for_its_device(capsys):
    assert train() == 0
    capsys.readouterr()
    assert main(["train", "--resume", "--out", "run", "--steps", "5", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "on cpu (--device says so)" in said and "None" not in said


def test_a_missing_module_without_a_name(monkeypatch, capsys):
    def explode(args):
        raise ModuleNotFoundError("the plug is out")

    monkeypatch.setitem(commands.COMMAND_FUNCTIONS, "info", explode)
    assert main(["info"]) == 2
    assert capsys.readouterr().err == "chargpt info: the plug is out\n"


def test_an_error_without_a_text_has_its_type(monkeypatch, capsys):
    def explode(args):
        raise ValueError

    monkeypatch.setitem(commands.COMMAND_FUNCTIONS, "info", explode)
    assert main(["info"]) == 2 and capsys.readouterr().err == "chargpt info: ValueError\n"


def test_a_run_without_any_evaluation_has_no_loss_to_show(monkeypatch, capsys):
    result = {"best_val_loss": None, "best_step": None, "steps": 3, "floor": None}
    monkeypatch.setattr(commands, "train", lambda *_: {**result, "stop_reason": "steps"})
    assert train() == 0
    output = capsys.readouterr()
    assert "no validation loss was measured in 3 steps" in output.out
    assert "None" not in output.out and output.err == ""


# ---------------------------------------------------------------- any words at all

WORDS = [
    "",
    "-",
    "--",
    "0",
    "1",
    "-1",
    "2",
    "16",
    "0.5",
    "1e-3",
    "1e400",
    "nan",
    "inf",
    "99999999999999999999",
    "many",
    "None",
    "true",
    "é☃",
    "\\n",
    "a\0b",
    "na\udcffme",
    "x" * 300,
]
FOLDERS = [
    "RUN",
    "RUN/..",
    "nowhere",
    "nano",
    "hub",
    "play.txt",
    "",
    ".",
    "a\0b",
    "~",
    "na\udcffme",
]
PLACES = {
    "corpus": [
        "play.txt",
        "page.txt",
        "nowhere.txt",
        "-",
        "",
        ".",
        "a\0b",
        "na\udcffme",
        "http://",
    ],
    "preset": ["cpu", "modern", "modern", "baby", "huge", ""],
    "device": ["cpu", "mps", "toaster", "cuda:9", "", "meta"],
    "config": ["mine.toml", "play.txt", "nowhere.toml", "", ".", "a\0b"],
    "out": ["new", "play.txt", "maps.html", "RUN", "", "a\0b", "na\udcffme", "None"],
    "init_from": FOLDERS,
    "prompt": ["O", "", "-", "--O", "O\\n", "FILE:play.txt", "FILE:", "FILE:a\0b", "☃", "\udcff"],
    "stop": ["\\n", "", "-O", "O", "\udcff"],
    "lesson": ["03", "single_head", "99", ""],
    "weights": ["mine.toml", "nowhere.toml"],
    "split": ["val", "train", "test"],
    "schedule": ["wsd", "cosine", "linear"],
    "activation": ["gelu", "relu", "swish"],
    "optimizer": ["muon", "adamw", "sgd"],
    "norm": ["rms", "layer", "batch"],
    "positions": ["rope", "learned", "sin"],
    "n_kv_head": ["0", "1", "3", "-1"],
    "n_gram": ["0", "1", "2", "9"],
    "n_gram_rows": ["50", "0", "99999999999999999999"],
    # Never as large as a model that fits into the memory, and takes long to make.
    "n_embd": ["16", "7", "0", "many", "99999999999999999999"],
    "n_layer": ["1", "2", "0", "-1", "99999999999999999999"],
    "n_head": ["1", "2", "3", "0"],
    "block_size": ["8", "16", "0", "99999999999999999999"],
}
TRAIN_OPTIONS = ["preset", "corpus", "config", "resume", "device"]
TRAIN_OPTIONS += [name for name in SETTINGS if name not in ("preset", "corpus", "tokenizer")]
TRAIN_OPTIONS += ["out"]
FLAGS = {"resume", "bias", "qkv_bias", "tied", "scaled_init", "compile", "tensorboard", "qk_norm"}
FLAGS |= {"gradient_checkpointing"}
POSITIONAL = {
    "folder": FOLDERS,
    "folders": FOLDERS,
    # No notebook: to run one takes seconds.
    "notebook": ["nowhere.ipynb", "nano", ""],
    "submissions": ["nowhere.ipynb", "nano", ""],
}


def random_option(rng, name):
    """An option with a value that is right, wrong or missing, in one of its spellings."""
    option = "--" + rng.choice([name, name.replace("_", "-")])
    if name in FLAGS:
        return rng.choice([[option], [option.replace("--", "--no-")], [f"{option}=true"]])
    values = PLACES.get(name, WORDS)
    if rng.random() < 0.1 and name in PLACES and not name.startswith(("n_", "block", "corpus")):
        values = WORDS
    value = rng.choice(values)
    if name == "betas":
        return [option, value, rng.choice(WORDS)]
    return rng.choice([[option, value], [option, value], [f"{option}={value}"], [option]])


def random_arguments(rng):
    """A command with some of its options, in any order, and now and then a word too many."""
    command = rng.choice([*COMMANDS, "train", "train", "sample", "sample", "eval"])
    pieces = []
    if command == "train":
        names = TRAIN_OPTIONS
        pieces.append(SIZES)
        if rng.random() < 0.8:
            pieces.append(["--corpus", "play.txt"])
    else:
        names = [field.name for field in fields(SUBCOMMANDS[command])]
        for name in set(names) & set(POSITIONAL):
            values = POSITIONAL[name]
            pieces.append([rng.choice([values[0], rng.choice(values)])])
        names = [name for name in names if name not in POSITIONAL]
    for name in rng.choices(names, k=rng.choice([0, 1, 1, 1, 2, 3])):
        pieces.append(random_option(rng, name))
    if rng.random() < 0.1:
        pieces.append([rng.choice([*WORDS, "--help", "-h", "--bogus", "stray"])])
    rng.shuffle(pieces)
    return [command, *(word for piece in pieces for word in piece)]


def test_two_hundred_random_command_lines(trained, monkeypatch, capsys):
    """No traceback, the documented exit codes, a reason for each failure. What takes time is left out."""
    monkeypatch.setenv("HOME", str(Path.cwd()))
    result = {
        "best_val_loss": 1.0,
        "best_step": 1,
        "steps": 1,
        "floor": None,
        "stop_reason": "steps",
    }
    real_generate = commands.generate

    def generate(*arguments, max_new_tokens, **options):
        return real_generate(*arguments, max_new_tokens=min(max_new_tokens, 3), **options)

    monkeypatch.setattr(commands, "train", lambda *_: result)
    monkeypatch.setattr(commands, "generate", generate)
    monkeypatch.setattr(commands, "evaluate", lambda *_: 1.0)
    monkeypatch.setattr(commands, "estimate_loss", lambda *_, **__: 1.0)
    Path("page.txt").write_text("<!DOCTYPE html>", encoding="utf-8")
    Path("mine.toml").write_text("n_layer = 1\nsteps = 2\n", encoding="utf-8")
    foreign_models()
    rng = random.Random(1)
    codes = []
    for number in range(200):
        give_stdin(monkeypatch, TEXT)
        arguments = [word.replace("RUN", str(trained)) for word in random_arguments(rng)]
        try:
            code = main(arguments)
        except BaseException as error:
            raise AssertionError(f"line {number}: {arguments}") from error
        output = capsys.readouterr()
        assert code in (0, 2), (number, arguments, output)
        assert "Traceback" not in output.err and "(None)" not in output.out + output.err
        if code == 2:
            assert output.err.strip() != "" and len(output.err) < 5000, (number, arguments)
        codes.append(code)
    # Both happen often enough for the test to mean something.
    assert codes.count(0) > 25 and codes.count(2) > 25, codes
    assert read_log(trained)[-1]["step"] == 3
