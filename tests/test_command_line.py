"""The command: each subcommand, where settings come from, resumed runs, and what cannot be done said before time is spent."""

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import chargpt_lib
from chargpt_lib import trainer
from chargpt_lib.checkpoints import (
    build_model,
    find_checkpoint,
    load_checkpoint,
    load_model,
    save_model,
)
from chargpt_lib.cli.commands import (
    COMMAND_FUNCTIONS,
    _last_step,
    parameters_by_part,
)
from chargpt_lib.cli.main import COMMANDS, SUBCOMMANDS, USAGE, main
from chargpt_lib.cli.options import (
    CHANGEABLE,
    CONFIG_CLASSES,
    PRESETS,
    SETTINGS,
    TYPES,
    _default_out,
    _read_settings,
    _with_preset,
    read_train_args,
    setting_names,
    settings_of,
    write_settings,
)
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.modern import ModernConfig, ModernGPT
from chargpt_lib.playhouse import write
from chargpt_lib.recipe import SCHEDULES, TrainConfig, get_lr
from chargpt_lib.sampling import generate
from chargpt_lib.scaling_laws import flops_per_token
from chargpt_lib.trainer import read_log

TEXT = write(min_chars=6000).text
TINY = [
    "--n-layer",
    "2",
    "--n-head",
    "2",
    "--n-embd",
    "16",
    "--block-size",
    "16",
    "--batch-size",
    "4",
    "--device",
    "cpu",
]
STEPS = ["--steps", "12", "--eval-interval", "5", "--time-budget", "None"]
ENV = {
    **os.environ,
    "PYTHONPATH": str(Path(chargpt_lib.__file__).parents[1]),
    "OMP_NUM_THREADS": "1",
}
CHARGPT = [sys.executable, "-m", "chargpt_lib.cli"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "play.txt").write_text(TEXT, encoding="utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny run, made once; nobody writes into it."""
    home = tmp_path_factory.mktemp("trained")
    (home / "play.txt").write_text(TEXT, encoding="utf-8")
    assert (
        main(
            ["train", "--corpus", str(home / "play.txt"), *TINY, *STEPS, "--out", str(home / "run")]
        )
        == 0
    )
    return home / "run"


def train(*options, out="run", steps=STEPS):
    return main(["train", "--corpus", "play.txt", *TINY, *steps, "--out", str(out), *options])


def weights(out):
    return load_file(find_checkpoint(Path(out), "last") / "model.safetensors")


def same_run(a, b):
    """The same weights to the last bit, and the same log but for the clock."""
    clock = {"seconds", "tokens_per_second"}
    rows = [
        [{name: value for name, value in row.items() if name not in clock} for row in read_log(out)]
        for out in (a, b)
    ]
    one, other = weights(a), weights(b)
    return (
        rows[0] == rows[1]
        and one.keys() == other.keys()
        and all(torch.equal(one[name], other[name]) for name in one)
    )


def tree(folder):
    """All that lies in a folder, with its bytes, but for the downloads' cache."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "cache" not in path.parts
    }


def wait_for_row(out, process):
    began = time.monotonic()
    while not (Path(out) / "log.jsonl").is_file() or not read_log(out):
        assert process.poll() is None and time.monotonic() - began < 300, process.communicate()
        time.sleep(0.02)


# ---------------------------------------------------------------- subcommands and their help


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_alone_it_lists_its_commands_on_half_a_screen(arguments, capsys):
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert (
        all(re.search(rf"^  {word} ", said, re.M) for word in COMMANDS)
        and len(said.splitlines()) <= 16
    )
    assert max(map(len, said.splitlines())) <= 100 and set(COMMANDS) == {
        "train",
        *SUBCOMMANDS,
    } == set(COMMAND_FUNCTIONS)


def test_version(capsys):
    assert (
        main(["--version"]) == 0
        and capsys.readouterr().out == f"chargpt {chargpt_lib.__version__}\n"
    )


def test_a_misspelt_command_gets_the_nearest(capsys):
    assert main(["trian"]) == 2 and "did you mean train?" in capsys.readouterr().err
    assert main(["xyzzy"]) == 2 and "chargpt --help" in capsys.readouterr().err


def test_nobody_waits_for_torch_who_mistyped():
    """All in one process that must not have loaded it at the end; with a right word it has."""
    code = """if True:
        import sys
        from chargpt_lib.cli.main import main
        for arguments in ([], ["--version"], ["trian"], ["eval"], ["sample", "x", "--top-k", "many"], ["info", "--bogus"]):
            code = main(arguments)
            assert code == (0 if arguments in ([], ["--version"]) else 2), (arguments, code)
        for word in ("eval", "sample", "attend", "page", "info", "check", "grade"):
            assert main([word, "--help"]) == 0
        assert "torch" not in sys.modules
        assert main(["eval", "nowhere"]) == 2 and "torch" in sys.modules"""
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_tyro_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tyro", None)
    for word in COMMANDS:
        assert main([word, "x"]) == 2 and "pip install tyro" in capsys.readouterr().err


@pytest.mark.parametrize("word", COMMANDS)
def test_each_command_has_help_with_a_line_for_each_option(word, capsys):
    assert main([word, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"usage: chargpt {word}" in said
    names = [field.name for field in fields(SUBCOMMANDS[word])] if word in SUBCOMMANDS else []
    for name in names:
        if f"--{name.replace('_', '-')}" not in said:  # then it is given by its place
            assert name in ("folder", "folders", "notebook", "submissions", "source"), name
            assert name.upper() in said
    plain = re.sub(r"[\s│]+", " ", said)
    metavar = r"(?:\{[^}]*\}(?:\|[A-Z]+)?|[A-Z]+)"
    bare = re.findall(rf"--[\w-]+(?:, --no-[\w-]+)?(?: {metavar})* \(default", plain)
    assert plain.count("(default") >= len(names) - 2 and not bare, (
        "options without a word about them"
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_the_configs_fields_are_trains_options_with_their_comments(preset, capsys):
    """No list of options is kept by hand: whatever the two dataclasses have is there, but for the size of the vocabulary.

    And what only the models of other presets have is not there.
    """
    assert main(["train", "--preset", preset, "--help"]) == 0
    said = capsys.readouterr().out
    model, training = said.index("model options"), said.index("training options")
    config_class = CONFIG_CLASSES[preset]
    own = {field.name for field in fields(config_class)} - {"vocab_size"}
    for other in CONFIG_CLASSES.values():
        for field in fields(other):
            name = field.name.replace("_", "-")
            found = re.search(rf"--{name}(?![\w-])", said[model:training])
            assert bool(found) == (field.name in own), field.name
    for field in fields(TrainConfig):
        assert re.search(rf"--{field.name.replace('_', '-')}\b", said[training:]), field.name
    plain = re.sub(r"[\s│]+", " ", said)
    comments = [
        "tie lm_head to the token embedding",
        "fraction of the run with rising learning rate",
        "micro-batches per optimizer step",
        "attention heads in a block",
    ]
    if config_class is ModernConfig:
        comments += ["heads of keys and values", "norm queries and keys", "rms or layer"]
    for comment in comments:
        assert comment in plain


def test_the_settings_are_those_of_both_kinds_of_models():
    assert set(CONFIG_CLASSES.values()) == {GPTConfig, ModernConfig}
    names = [set(setting_names(kind)) for kind in (GPTConfig, ModernConfig)]
    assert set(SETTINGS) == names[0] | names[1] and len(SETTINGS) == len(set(SETTINGS))
    assert names[0] - names[1] == {"bias", "qkv_bias", "scaled_init"} and names[1] - names[0]
    assert not ({"out", "vocab_size", "model_type"} & set(SETTINGS))
    # What both have is of one type, and may be of one only.
    for kind in (GPTConfig, ModernConfig):
        for field in fields(kind):
            assert TYPES[field.name] is field.type, field.name


def test_help_shows_the_numbers_of_the_preset_that_is_named(capsys):
    for preset, rate in (("cpu", "0.003"), ("baby", "0.001"), ("lecture", "0.0003")):
        assert main(["train", "--preset", preset, "--help"]) == 0
        assert f"(default: {rate})" in re.search(r"the peak[^│]*", capsys.readouterr().out)[0]


def test_help_shows_the_numbers_of_the_file_too(capsys):
    Path("mine.toml").write_text("n_layer = 7\nn_head = 5\ntime_budget = false\n", encoding="utf-8")
    assert main(["train", "--config", "mine.toml", "--corpus", "play.txt", "--help"]) == 0
    said = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    for option in ("n-layer INT blocks (default: 7)", "n_head (default: 128)", "runs/play-cpu"):
        assert option in said
    assert re.search(r"--time-budget [^(]*\(default: None\)", said)


def test_infos_help_names_every_preset(capsys):
    """By hand, because the list of presets would import torch."""
    assert main(["info", "--help"]) == 0
    assert ", ".join(list(PRESETS)[:-1]) + f" or {list(PRESETS)[-1]}" in capsys.readouterr().out


# ---------------------------------------------------------------- presets


def test_presets_are_the_published_models():
    """Karpathy's lecture prints 10.788929 M parameters, nanoGPT 10.65 M for the baby without its positions, GPT-2 124 M."""
    models = {
        name: build_model(preset.model(65)) for name, preset in PRESETS.items() if name != "gpt2"
    }
    assert models["lecture"].num_params() == 10_788_929
    assert (
        models["baby"].num_params() - models["baby"].position_embedding.weight.numel() == 10_646_784
    )
    assert (
        vars(PRESETS["oz"].model(65)).items()
        >= {"block_size": 64, "n_embd": 128, "n_head": 4, "n_layer": 3, "dropout": 0.2}.items()
    )
    cpu = {"block_size": 64, "n_embd": 128, "n_head": 4, "n_layer": 4, "dropout": 0.0}
    assert vars(PRESETS["cpu"].model(65)).items() >= cpu.items()
    modern = {"block_size": 128, "n_embd": 128, "n_head": 4, "n_kv_head": 2, "n_layer": 4}
    assert vars(PRESETS["modern"].model(65)).items() >= modern.items()
    assert TrainConfig(**PRESETS["modern"].training).optimizer == "muon"
    with torch.device("meta"):
        assert GPT(PRESETS["gpt2"].model(50257)).num_params() == 124_439_808
    for name, preset in PRESETS.items():
        assert TrainConfig(**preset.training) and preset.model(80).vocab_size == 80


def test_babys_rate_is_nanogpts():
    config = TrainConfig(**PRESETS["baby"].training)
    for step in (0, 50, 99, 150, 1000, 2500, 4000, 4999):
        cosine = 0.5 * (1 + math.cos(math.pi * (step - 100) / (5000 - 100)))
        wanted = 1e-3 * (step + 1) / 101 if step < 100 else 1e-4 + cosine * (1e-3 - 1e-4)
        assert get_lr(step, config) == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("preset", ["lecture", "oz"])
def test_the_lectures_rate_never_changes(preset):
    config = TrainConfig(**PRESETS[preset].training)
    assert {get_lr(step, config) for step in (0, 1, config.steps // 2, config.steps - 1)} == {3e-4}


# ---------------------------------------------------------------- where settings come from


@pytest.mark.parametrize(
    "file, options, wanted",
    [
        ("", [], {"n_layer": 4, "dropout": 0.0, "learning_rate": 3e-3}),
        ("", ["--preset", "baby"], {"n_layer": 6, "dropout": 0.2, "learning_rate": 1e-3}),
        ("n_layer = 3", [], {"n_layer": 3, "dropout": 0.0, "learning_rate": 3e-3}),
        (
            "n_layer = 3",
            ["--preset", "baby"],
            {"n_layer": 3, "dropout": 0.2, "learning_rate": 1e-3},
        ),
        ("n_layer = 3\ndropout = 0.1", ["--n-layer", "2"], {"n_layer": 2, "dropout": 0.1}),
        ("n_layer = 3", ["--n_layer=2", "--preset", "baby"], {"n_layer": 2, "dropout": 0.2}),
        ('preset = "baby"', [], {"preset": "baby", "n_layer": 6, "learning_rate": 1e-3}),
        (
            'preset = "baby"\ncorpus = "oz"',
            ["--preset", "lecture"],
            {"preset": "lecture", "corpus": "oz", "bias": True},
        ),
        ("time_budget = false\nsteps = 7", [], {"time_budget": None, "steps": 7}),
        ('time_budget = "None"\nsteps = 7', [], {"time_budget": None, "steps": 7}),
        ("time_budget = 9", ["--time-budget", "None"], {"time_budget": None}),
        (
            "tied = false\nn-embd = 32\nbetas = [0, 0.5]",
            ["--tied"],
            {"tied": True, "n_embd": 32, "betas": (0, 0.5)},
        ),
        ("", ["--out", "None", "--seed", "3"], {"out": "runs/playhouse-cpu", "seed": 3}),
        (
            "compile = true",
            ["--no-compile", "--betas", "0.8", "0.9"],
            {"compile": False, "betas": (0.8, 0.9)},
        ),
        ("n_head = 12\nn_embd = 96", ["--n-head", "3"], {"n_head": 3, "n_embd": 96}),
        ("n_head = 5", ["--n-embd", "100"], {"n_head": 5, "n_embd": 100}),
        (
            'preset = "modern"\nnorm = "layer"\nn_gram = 3',
            ["--n-kv-head", "1", "--no-qk-norm"],
            {"n_kv_head": 1, "norm": "layer", "n_gram": 3, "qk_norm": False, "optimizer": "muon"},
        ),
        ("n_gram = 2", ["--preset=modern", "--n_gram=4"], {"n_gram": 4, "positions": "rope"}),
        ('optimizer = "muon"', [], {"optimizer": "muon", "preset": "cpu"}),
    ],
)
def test_options_win_over_the_file_and_that_over_the_preset(file, options, wanted):
    Path("mine.toml").write_text(file, encoding="utf-8")
    read = read_train_args([*(["--config", "mine.toml"] if file else []), *options])
    settings = vars(read) | vars(read.model) | vars(read.training)
    assert {name: settings[name] for name in wanted} == wanted
    assert replace(read.model, vocab_size=50).vocab_size == 50
    assert read.training.out == settings["out"] == _default_out(settings_of(read))


@pytest.mark.parametrize(
    "text, words",
    [
        ("n_layers = 3", ["mine.toml", "n_layers", "nearest is n_layer"]),
        ("lr = 1e-3", ["unknown setting 'lr'"]),
        ("max_iters = 9", ["max_iters", "nearest is steps"]),
        ('out = "x"', ["out", "command line"]),
        ("vocab_size = 3", ["vocab_size", "unknown setting"]),
        ("resume = true", ["resume", "unknown setting", "command line"]),
        ('n_layer = "three"', ["mine.toml", "n_layer", "'three'", "takes INT"]),
        ("n_layer = 3.0", ["n_layer", "takes INT"]),
        ("bias = 1", ["bias", "takes true|false"]),
        ("betas = [0.9]", ["betas", "[0.9]", "takes FLOAT FLOAT"]),
        ('betas = [0.9, "a"]', ["betas"]),
        ('schedule = "linear"', ["schedule", "'linear'", f"takes {{{','.join(SCHEDULES)}}}"]),
        ('n_layer = "None"', ["n_layer", "takes INT"]),
        ("[model]\nn_layer = 3", ["model", "unknown setting", "no tables"]),
        ("n_layer 3", ["not valid TOML"]),
        ('preset = "huge"', ["preset", "'huge'"]),
        ("batch_size = true", ["batch_size", "takes INT"]),
        ("n_layer = false", ["n_layer", "takes INT"]),
        ('steps = "many"', ["mine.toml", "steps", "takes false|INT"]),
        ("epochs = true", ["epochs", "takes false|FLOAT"]),
        ("steps = 0", ["steps is 0"]),
        (
            'norm = "rms"',
            [
                "mine.toml: norm is",
                "of the preset modern, and the preset is cpu",
                "--preset modern",
            ],
        ),
        (
            'preset = "modern"\nbias = true',
            ["mine.toml: bias is", "of the presets cpu, lecture,", "and the preset is modern"],
        ),
        ('preset = "modern"\nnorm = "batch"', ["norm is 'batch'", "rms, layer"]),
        ('preset = "modern"\nsoftcap = "no"', ["softcap", "takes FLOAT"]),
        ("n_kv_heads = 2", ["n_kv_heads", "nearest is n_kv_head"]),
        ('optimizer = "sgd"', ["optimizer", "'sgd'", "takes {adamw,muon}"]),
        ("init_from = 3", ["init_from", "takes false|STR"]),
        ('init_from = "nowhere"', ["nowhere does not exist"]),
    ],
)
def test_a_wrong_file_is_told_with_name_and_key(text, words, capsys):
    Path("mine.toml").write_text(text, encoding="utf-8")
    assert main(["train", "--config", "mine.toml", "--corpus", "play.txt"]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said


def test_a_file_that_is_no_text(capsys):
    Path("mine.toml").write_bytes(b"\xff\xfe\x00")
    assert (
        main(["train", "--config", "mine.toml"]) == 2
        and "mine.toml is not valid TOML" in capsys.readouterr().err
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_survive_writing_and_reading(preset):
    settings = _with_preset(
        {
            "preset": preset,
            "corpus": 'a "b" \\ ü.txt',
            "init_from": "/runs/a b",
            "learning_rate": 1e-05,
            "patience": 3,
        }
    )
    write_settings(Path("s.toml"), settings)
    assert _read_settings("s.toml") == settings
    assert list(settings) == setting_names(CONFIG_CLASSES[preset])


def test_what_is_none_is_false_in_the_file():
    settings = _with_preset({"time_budget": None, "steps": 7})
    write_settings("s.toml", settings)
    table = tomllib.loads(Path("s.toml").read_text(encoding="utf-8"))
    assert "None" not in table.values()
    assert table["time_budget"] is table["patience"] is table["init_from"] is False
    assert table["steps"] == 7
    assert _read_settings("s.toml") == settings


@pytest.mark.parametrize(
    "corpus, tokenizer, name",
    [
        ("playhouse", "char", "playhouse-cpu"),
        ("texts/My Life.txt", "char", "My_Life-cpu"),
        ("https://a.b/c/input.txt?raw=1", "char", "input-cpu"),
        ("https://a.b/c/", "char", "c-cpu"),
        ("../..", "char", "..-cpu"),
        ("playhouse", "bpe:512", "playhouse-cpu-bpe512"),
        ("playhouse", "gpt2", "playhouse-cpu-gpt2"),
        ("playhouse", "runs/My Life/tokenizer.json", "playhouse-cpu-tokenizer"),
    ],
)
def test_a_run_has_a_folder_of_its_own(corpus, tokenizer, name):
    settings = _with_preset({"corpus": corpus, "tokenizer": tokenizer})
    assert Path(_default_out(settings)) == Path("runs") / name


# ---------------------------------------------------------------- train


def test_from_a_text_to_a_sample(capsys):
    assert main(["train", "--corpus", "play.txt", *TINY, *STEPS]) == 0
    said, run = capsys.readouterr().out, Path("runs/play-cpu")
    assert {path.name for path in run.iterdir()} >= {
        "settings.toml",
        "log.jsonl",
        "checkpoints.json",
    }
    assert [row["step"] for row in read_log(run)] == [5, 10, 12]
    best = min(row["val_loss"] for row in read_log(run))
    assert f"validation loss {best:.4f} nats per character; step" in said and "floor" not in said
    assert _read_settings(run / "settings.toml")["corpus"] == str(Path("play.txt").resolve())
    model, tokenizer = load_model(run)
    assert generate(model, "", 300, seed=1337, tokenizer=tokenizer) in said
    for command in re.findall(r"^  chargpt (.*)$", said, re.M):  # what it advises works
        assert main(shlex.split(command.replace("TEXT", "O"))) == 0, command


def test_the_settings_in_the_folder_repeat_the_run():
    assert train("--dropout", "0.1", "--seed", "7", "--betas", "0.8", "0.9") == 0
    assert (
        main(["train", "--config", "run/settings.toml", "--out", "again", "--device", "cpu"]) == 0
    )
    assert same_run("run", "again")
    assert (Path("run") / "settings.toml").read_text() == (
        Path("again") / "settings.toml"
    ).read_text()


def test_another_seed_is_another_run():
    assert train("--seed", "1", out="one") == train("--seed", "2", out="two") == 0
    assert not same_run("one", "two")


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(monkeypatch, capsys):
    assert train("--dropout", "0.1", out="whole") == 0
    real = trainer.get_lr

    def press(step, *rest):
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return real(step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "get_lr", press)
        assert train("--dropout", "0.1") == 130
    said = capsys.readouterr().out
    command = re.search(r"^resume with: chargpt (.*)$", said, re.M)[1]
    assert "--resume" in command and [row["step"] for row in read_log("run")] == [5]
    assert main(shlex.split(command)) == 0
    assert same_run("whole", "run")


def test_more_steps_are_the_same_run():
    flat = [*STEPS, "--schedule", "wsd", "--decay", "0", "--warmup", "0", "--eval-interval", "4"]
    assert train("--steps", "8", out="short", steps=flat) == train(out="long", steps=flat) == 0
    assert main(["train", "--resume", "--out", "short", "--steps", "12", "--device", "cpu"]) == 0
    assert same_run("short", "long") and _read_settings("short/settings.toml")["steps"] == 12
    before = tree(Path("short"))
    assert (
        main(["train", "--resume", "--out", "short", "--device", "cpu"]) == 0
    )  # nothing is left to do
    assert main(["train", "--resume", "--out", "short", "--steps", "5", "--device", "cpu"]) == 0
    assert tree(Path("short")) == before


def test_the_settings_of_earlier_versions_are_resumed(capsys):
    """They had the text "None" for None."""
    assert train() == 0
    path = Path("run/settings.toml")
    lines = path.read_text().splitlines()
    optional = {"steps", "epochs", "time_budget", "patience"}
    old = [
        f'{line.split(" = ")[0]} = "None"'
        if line.split(" = ")[0] in optional and line.endswith(" = false")
        else line
        for line in lines
    ]
    assert sum('"None"' in line for line in old) == 3 and old != lines
    path.write_text("\n".join(old) + "\n")
    assert main(["train", "--resume", "--out", "run", "--steps", "14", "--device", "cpu"]) == 0
    assert [row["step"] for row in read_log("run")][-1] == 14
    assert '"None"' not in path.read_text()


@pytest.mark.parametrize("name", ["step-123456789", "step-100000000-again"])
def test_a_step_of_nine_digits_is_read_whole(name, capsys):
    assert train() == 0
    last = find_checkpoint(Path("run"), "last")
    last.rename(last.with_name(name))
    Path("run/checkpoints.json").write_text(json.dumps({"last": name}))
    capsys.readouterr()
    step = int(name.split("-")[1])
    assert _last_step("run") == step  # otherwise the run would go on, for days
    steps = ["--steps", "100000000"]
    assert main(["train", "--resume", "--out", "run", "--device", "cpu", *steps]) == 0
    assert f"it has made {step:,} steps, and --steps is 100,000,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, words",
    [
        (["--n-embd", "32"], ["--n-embd 32", "16", "new run"]),
        (["--seed", "1"], ["--seed 1", "1337"]),
        (["--corpus", "playhouse"], ["playhouse is not the text", "--corpus-changed accept"]),
        (["--preset", "baby"], ["--preset baby", "cpu"]),
        (["--learning-rate", "1"], ["--learning-rate 1"]),
        (["--config", "run/settings.toml"], ["omit --config"]),
        (["--steps", "0"], ["steps is 0"]),
        (["--no-tied"], ["--tied False", "True"]),
        (["--init-from", "elsewhere"], ["elsewhere conflicts", "which has None"]),
    ],
)
def test_what_contradicts_a_run_is_an_error(trained, options, words, capsys):
    before = tree(trained)
    assert main(["train", "--resume", "--out", str(trained), *options]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert tree(trained) == before


@pytest.mark.parametrize(
    "options, words",
    [
        (["--norm", "rms"], ["--norm is a setting of the preset modern, and the preset is cpu"]),
        (["--norm=rms"], ["--norm is", "omit it, or train with --preset modern"]),
        (["--n_kv_head", "2"], ["--n-kv-head is"]),
        (["--no-qk-norm", "--preset", "baby"], ["--qk-norm is", "the preset is baby"]),
        (["--preset", "modern", "--bias"], ["--bias is a setting of the presets cpu, lecture"]),
        (
            ["--preset", "modern", "--no-scaled-init"],
            ["--scaled-init is", "train with one of those"],
        ),
        (["--resume", "--out", "RUN", "--n-gram", "3"], ["--n-gram is", "the preset is cpu"]),
        (["--resume", "--out", "RUN", "--preset", "modern"], ["--preset modern", "which has cpu"]),
        (["--resume", "--out", "RUN", "--optimizer", "muon"], ["--optimizer muon", "adamw"]),
        (["--config", "RUN/settings.toml", "--preset", "modern"], ["settings.toml: bias is"]),
        (["--optimizer", "sgd"], ["--optimizer", "sgd"]),
    ],
)
def test_an_option_of_another_presets_models_is_named_with_its_preset(
    options, words, trained, capsys
):
    options = [option.replace("RUN", str(trained)) for option in options]
    before = tree(trained)
    assert main(["train", "--corpus", str(trained.parent / "play.txt"), *options]) == 2
    said = re.sub(r"[\s│]+", " ", capsys.readouterr().err)
    assert all(word in said for word in words), said
    assert tree(trained) == before and not Path("runs").exists()


@pytest.mark.parametrize("n_gram", ["0", "3"])
def test_a_modern_gpt_from_a_text_to_its_attention(n_gram, capsys):
    """Each command on a run of the preset modern; and a run in two parts is the run in one."""
    options = ["--preset", "modern", "--n-gram", n_gram, "--n-gram-rows", "50"]
    options += ["--eval-interval", "3", "--dropout", "0.1", "--time-budget", "None"]
    # A rate that does not depend on the number of steps.
    options += ["--warmup", "0", "--decay", "0"]
    assert train(*options, out="whole", steps=["--steps", "6"]) == 0
    capsys.readouterr()
    assert train(*options, out="run", steps=["--steps", "3"]) == 0
    model, tokenizer = load_model("run")
    said = capsys.readouterr().out
    assert type(model) is ModernGPT and model.config.n_kv_head == 2
    assert f"a GPT of {model.num_params():,} parameters" in said and "step 3 of 3" in said
    saved = _read_settings("run/settings.toml")
    assert list(saved) == setting_names(ModernConfig) and saved["optimizer"] == "muon"

    assert main(["sample", "run", "--max-new-tokens", "40", "--seed", "1", "--device", "cpu"]) == 0
    # More than a block, which the cache slides over.
    assert capsys.readouterr().out.rstrip("\n") == generate(
        model, "", max_new_tokens=40, tokenizer=tokenizer, seed=1
    ).rstrip("\n")
    assert main(["eval", "run", "--device", "cpu"]) == 0
    best = min(row["val_loss"] for row in read_log("run"))
    assert f"{best:.4f} nats per character" in capsys.readouterr().out
    assert main(["attend", "run", "--prompt", "O damp", "--out", "a.html", "--device", "cpu"]) == 0
    assert Path("a.html").stat().st_size > 10_000
    capsys.readouterr()
    assert main(["info", "run", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert f"{flops_per_token(model):,} FLOPs" in said and "3 steps" in said
    assert ("n-gram embedding" in said) == (n_gram == "3") and "position embedding" not in said

    assert main(["train", "--resume", "--out", "run", "--steps", "6", "--device", "cpu"]) == 0
    assert same_run("run", "whole")
    state = load_checkpoint("run", load_model("run")[0], tokenizer)["optimizer"]["state"]
    assert any("momentum_buffer" in moments for moments in state.values())
    assert any("exp_avg" in moments for moments in state.values())


def test_what_agrees_with_the_run_may_be_said_again(trained):
    agreeing = read_train_args(
        ["--resume", "--out", str(trained), "--corpus", str(trained.parent / "play.txt"), *TINY]
    )
    assert agreeing.training.steps == 12 and CHANGEABLE < set(SETTINGS)
    os.chdir(trained.parent)
    assert (
        read_train_args(["--resume", "--out", str(trained), "--corpus", "play.txt"]).model.n_embd
        == 16
    )


def test_the_best_and_the_floor_are_told(capsys, monkeypatch):
    assert (
        main(
            [
                "train",
                "--corpus",
                "playhouse",
                *TINY,
                "--steps",
                "2",
                "--eval-batches",
                "2",
                "--out",
                "run",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert re.search(
        r"estimated validation loss \d\.\d{4} nats per character, \d\.\d{4} above the floor of 0\.30\d\d; step 2 of 2",
        said,
    )


def test_a_loss_that_is_no_number_ends_the_run_with_1(capsys):
    assert train("--learning-rate", "1e30", "--grad-clip", "0", "--warmup", "0") == 1
    assert "the loss is nan" in capsys.readouterr().err
    assert Path("run/settings.toml").exists() and load_model("run")


@pytest.mark.parametrize(
    "options, words",
    [
        (["--corpus", "nowhere.txt"], ["nowhere.txt", "path of a text file"]),
        (["--corpus", "empty.txt"], ["empty.txt", "0 characters"]),
        (["--corpus", "short.txt"], ["block_size + 1 = 65", "longer text"]),
        (["--corpus", "picture.png"], ["picture.png", "UTF-8"]),
        (["--corpus", "."], ["'.' is a folder"]),
        (["--corpus", "{site}/gone.txt"], ["gone.txt", "404", "Nothing was saved"]),
        (["--n-head", "3"], ["128", "3"]),
        (["--n-layer", "0"], ["n_layer is 0"]),
        (["--batch-size", "0"], ["batch_size is 0"]),
        (["--activation", "swish"], ["swish", "gelu"]),
        (["--config", "nowhere.toml"], ["nowhere.toml"]),
        (["--n-layers", "3"], ["--n-layer"]),
        (["--n-layer", "three"], ["--n-layer", "three"]),
        (["--preset", "huge"], ["huge"]),
        (["--device", "toaster"], ["toaster", "--device"]),
        (["--device", "meta"], ["meta"]),
        (["--out", "full"], ["full", "--resume"]),
        (["--out", "play.txt"], ["play.txt", "--out"]),
        (["--resume"], ["settings.toml", "is not there"]),
        (["--dropout", "1.5"], ["dropout must be >= 0 and < 1, got 1.5"]),
        (["--resume", "--out", "full"], ["settings.toml", "is not there"]),
        (["stray"], ["stray"]),
        (["--corpus", "middling.txt", "--eval-batches", "3"], ["--eval-batches 0"]),
    ],
)
def test_what_cannot_be_trained_is_told_at_once_and_leaves_nothing(
    tmp_path, site, capsys, options, words
):
    (
        Path("empty.txt").write_text(""),
        Path("short.txt").write_text("a text of some thirty letters.\n"),
    )
    (
        Path("picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xd8" * 20),
        Path("middling.txt").write_text("0123456789" * 50),
    )
    Path("full").mkdir(), Path("full/treasure").write_text("gold")
    before, began = tree(tmp_path), time.process_time()
    options = [option.replace("{site}", site.address) for option in options]
    corpus = [] if "--corpus" in options else ["--corpus", "play.txt"]
    assert (
        main(
            [
                "train",
                *corpus,
                *(["--out", "some/where"] if "--out" not in options else []),
                *options,
            ]
        )
        == 2
    )
    said = re.sub(r"[\s│]+", " ", capsys.readouterr().err)
    assert all(word in said for word in words), said
    assert tree(tmp_path) == before and time.process_time() - began < 10


def test_without_tensorboard_nothing_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    before = tree(tmp_path)
    assert (
        train("--tensorboard", out="a/b/run") == 2
        and "pip install tensorboard" in capsys.readouterr().err
    )
    assert tree(tmp_path) == before


def test_a_text_from_the_net(site):
    site.pages["/texts/play.txt"] = TEXT.encode()
    address = f"{site.address}/texts/play.txt"
    assert main(["train", "--corpus", address, *TINY, *STEPS]) == 0 and train(out="run") == 0
    assert (
        same_run("runs/play-cpu", "run")
        and _read_settings("runs/play-cpu/settings.toml")["corpus"] == address
    )


@pytest.mark.parametrize("sizes", [["--n-embd", "1000000"], ["--n-layer", "1000000000"]])
def test_a_model_larger_than_the_memory_is_not_begun(sizes, capsys):
    assert main(["train", "--device", "cpu", "--out", "vast", *sizes]) == 2
    assert re.search(
        r"takes [\d,]+ GiB to train, and cpu has \d+ GiB: take a smaller --n-embd",
        capsys.readouterr().err,
    )
    assert not Path("vast").exists()


def test_memory_that_runs_out_is_told_with_the_way_out(monkeypatch, capsys):
    def explode(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("chargpt_lib.cli.commands.train", explode)
    assert (
        train() == 2
        and "halve --batch-size" in capsys.readouterr().err
        and not Path("run").exists()
    )


# ---------------------------------------------------------------- eval


def exact(model, ids):
    """The mean over windows one after the other, in float64, one window at a time."""
    total, T = 0.0, model.block_size
    model = model.double()
    for start in range(0, len(ids) - 1, T):
        x, y = ids[start : start + T][: len(ids) - 1 - start], ids[start + 1 : start + T + 1]
        with torch.no_grad():
            logits = model(x[None])[0][0]
        total -= sum(math.log(F.softmax(row, -1)[target]) for row, target in zip(logits, y))
    return total / (len(ids) - 1)


@pytest.mark.parametrize("split", ["val", "train"])
def test_eval_is_exact(trained, split, capsys):
    assert main(["eval", str(trained), "--split", split]) == 0
    said = capsys.readouterr().out
    part = TEXT[: int(0.9 * len(TEXT))] if split == "train" else TEXT[int(0.9 * len(TEXT)) :]
    model, tokenizer = load_model(trained)
    nats = exact(model, tokenizer.encode(part))
    found = [float(number) for number in re.findall(r"^(\d+\.\d{4}) ", said, re.M)]
    assert found == pytest.approx(
        [nats, nats / math.log(2), nats / math.log(2), math.exp(nats)],
        abs=6e-5 * math.exp(nats),
    )
    assert f"{split}: {len(part):,} characters" in said and "estimated" not in said


def test_eval_knows_the_runs_corpus_the_floor_and_nanogpts_estimate(trained, capsys):
    assert main(["eval", str(trained), "--estimate", "400"]) == 0
    said = capsys.readouterr().out
    exact_loss, guess = (
        float(re.search(rf"([\d.]+) nats per character{more}", said)[1])
        for more in ("\n", ", estimated from 400")
    )
    assert abs(exact_loss - guess) < 0.1
    assert main(
        ["eval", str(find_checkpoint(trained))]
    ) == 0 and capsys.readouterr().out.startswith(said.split("\n")[0])
    tokenizer = CharTokenizer(TEXT)
    save_model(GPT(GPTConfig.cpu(tokenizer.vocab_size, n_layer=1, n_embd=16)), tokenizer, "model")
    assert main(["eval", "model"]) == 2 and "settings.toml" in capsys.readouterr().err
    assert main(["eval", "model", "--corpus", "play.txt"]) == 0


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["eval", "nowhere"], ["nowhere", "right folder"]),
        (["eval", "{run}", "--corpus", "snow.txt"], ["'☃'", "not in the alphabet"]),
        (["eval", "{run}", "--split", "test"], ["test"]),
        (["eval", "{run}", "--device", "toaster"], ["toaster"]),
        (["sample", "nowhere"], ["nowhere"]),
        (["sample", "{run}", "--prompt", "☃"], ["'☃'"]),
        (["sample", "{run}", "--temperature", "-1"], ["temperature is -1"]),
        (["sample", "{run}", "--top-k", "0"], ["top_k is 0"]),
        (["sample", "{run}", "--num-samples", "0"], ["--num-samples"]),
        (["sample", "{run}", "--stop", "☃"], ["'☃'"]),
        (["sample"], ["FOLDER", "required"]),
        (["attend", "{run}", "--out", "play.txt"], [".html"]),
        (["page", "{run}", "--out", "play.txt"], [".html"]),
        (["page", "{run}", "--out", "play.txt/place.html"], ["play.txt"]),
        (["page", "{run}", "--prompt", "O damp goose ☃"], ["☃"]),
        (["page", "nowhere"], ["nowhere"]),
        (
            ["attend", "{run}", "--prompt", "O damp goose! O damp goose!"],
            ["27 characters", "from 1 to 16"],
        ),
        (["attend", "{run}", "--out", "play.txt/place.html", "--prompt", "O"], ["play.txt"]),
        (["info", "nowhere"], ["nowhere"]),
        (["info", "--preset", "huge"], ["huge", "baby"]),
        (["grade"], ["--out"]),
    ],
)
def test_what_else_cannot_be_done(trained, arguments, words, capsys):
    Path("snow.txt").write_text("☃" * 30, encoding="utf-8")
    before = tree(Path.cwd())
    assert main([argument.replace("{run}", str(trained)) for argument in arguments]) == 2
    output = capsys.readouterr()
    said = re.sub(r"[\s│]+", " ", output.err).replace("PATH", "FOLDER")
    assert all(word in said for word in words), said
    assert tree(Path.cwd()) == before


# ---------------------------------------------------------------- sample, attend


@pytest.mark.parametrize(
    "options, parameters",
    [
        ([], {}),
        (["--temperature", "0"], {"temperature": 0.0}),
        (["--top-k", "3"], {"top_k": 3}),
        (["--top-p", "0.5"], {"top_p": 0.5}),
        (["--min-p", "0.2"], {"min_p": 0.2}),
        (["--repetition-penalty", "2"], {"repetition_penalty": 2.0}),
        (["--stop", "e", "--stop", " "], {"stop": ["e", " "]}),
        (["--prompt", "O damp"], {"prompt": "O damp"}),
    ],
)
def test_every_sampling_parameter_reaches_the_sampler(trained, options, parameters, capsys):
    assert main(["sample", str(trained), "--max-new-tokens", "50", "--seed", "5", *options]) == 0
    model, tokenizer = load_model(trained)
    wanted = generate(
        model,
        **{"prompt": "", "max_new_tokens": 50, "seed": 5, "tokenizer": tokenizer} | parameters,
    )
    output = capsys.readouterr()
    assert output.out == wanted + "\n" and output.err == ""


def test_the_sampling_parameters_change_something(trained, capsys):
    """Otherwise the test above would pass with a sampler that is deaf."""
    texts = set()
    for options in (
        [],
        ["--temperature", "0"],
        ["--top-k", "2"],
        ["--top-p", "0.3"],
        ["--repetition-penalty", "9"],
        ["--seed", "6"],
    ):
        assert (
            main(["sample", str(trained), "--max-new-tokens", "50", "--seed", "5", *options]) == 0
        )
        texts.add(capsys.readouterr().out)
    assert len(texts) == 6


def test_several_samples_and_a_seed_to_have_them_again(trained, capsys):
    assert main(["sample", str(trained), "--num-samples", "3", "--max-new-tokens", "30"]) == 0
    output = capsys.readouterr()
    texts = output.out.removesuffix("\n").split("\n---------------\n")
    assert len(set(texts)) == 3 and all(len(text) == 30 for text in texts)
    seed = re.search(r"--seed (\d+)", output.err)[1]
    assert (
        main(["sample", str(trained), "--max-new-tokens", "30", "--seed", str(int(seed) + 1)]) == 0
    )
    assert capsys.readouterr().out == texts[1] + "\n"
    assert main(["sample", str(trained), "--max-new-tokens", "30"]) == 0
    assert capsys.readouterr().out.rstrip("\n") not in texts, "without a seed, each time another"


def test_an_alphabet_without_line_ends(capsys):
    tokenizer = CharTokenizer("abc")
    save_model(GPT(GPTConfig.cpu(3, n_layer=1, n_embd=16)), tokenizer, "model")
    assert main(["sample", "model", "--max-new-tokens", "20"]) == 0
    assert re.fullmatch(r"a[abc]{20}\n", capsys.readouterr().out)


def test_a_sample_streams_and_ends_where_nobody_reads_on(trained):
    """Ten million characters: what arrives arrives while they are written, and `| head` is no traceback."""
    process = subprocess.Popen(
        [*CHARGPT, "sample", str(trained), "--max-new-tokens", "10000000"],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert len(process.stdout.read(20)) == 20 and process.poll() is None
    process.stdout.close()
    assert process.wait(timeout=300) == 0 and process.stderr.read() == ""
    process.stderr.close()


def test_a_sample_interrupted(trained):
    process = subprocess.Popen(
        [*CHARGPT, "sample", str(trained), "--max-new-tokens", "10000000"],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130 and said.strip() == "interrupted"


def test_attend_writes_a_page_that_needs_nothing_else(trained, capsys):
    assert main(["attend", str(trained), "--prompt", "O damp goose!", "--out", "maps.html"]) == 0
    page = Path("maps.html").read_text(encoding="utf-8")
    assert (
        page.startswith("<!DOCTYPE html>")
        and '"O damp goose!"' in page
        and not re.search(r'(src|href)="http', page)
    )
    assert "maps.html" in capsys.readouterr().out


@pytest.mark.parametrize("prompt", [[], ["--prompt", "O damp goose!"]])
def test_page_writes_the_model_into_a_page(trained, prompt, capsys):
    assert main(["page", str(trained), "--out", "new/model.html", *prompt]) == 0
    page = Path("new/model.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and not re.search(r'(src|href)="http', page)
    data = json.loads(re.search(r"\}\)\((\{.*\})\);\n\}\)\(\);</script>", page, re.S)[1])
    assert data["text"] == "O damp goose!" or prompt == []
    assert len(data["text"]) > 10
    assert data["floor"] is None, "nobody knows the entropy of a text of one's own"
    assert "new/model.html" in capsys.readouterr().out


def test_a_page_of_the_plays_knows_the_floor(trained):
    settings = (trained / "settings.toml").read_text(encoding="utf-8")
    settings = re.sub(r"^corpus = .*$", 'corpus = "playhouse"', settings, flags=re.M)
    shutil.copytree(trained, "plays")
    Path("plays/settings.toml").write_text(settings, encoding="utf-8")
    assert main(["page", "plays"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert f'"floor": {load_corpus("playhouse").val_entropy}' in page


# ---------------------------------------------------------------- info


SIZES = {"vocab_size": 60, "block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 128}


def assert_flops_are_torchs(model):
    """FLOPs within 5%: nobody counts norms, softmax and the loss. A forward and backward pass at a full block."""
    idx = torch.zeros(2, model.block_size, dtype=torch.int64)
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        model(idx, idx)[1].backward()
    assert flops_per_token(model) == pytest.approx(
        counter.get_total_flops() / idx.numel(), rel=0.05
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tied": False},
        {"bias": True, "qkv_bias": True, "n_layer": 3},
        {"block_size": 128, "n_head": 8},
    ],
)
def test_parts_and_flops_are_what_torch_counts(changes):
    model = GPT(GPTConfig(**SIZES | changes))
    parts, C, L = parameters_by_part(model), 128, model.config.n_layer
    assert sum(parts.values()) == sum(p.numel() for p in model.parameters())
    assert parts["token embedding"] == 60 * C
    assert parts["position embedding"] == model.block_size * C
    if not model.config.bias:
        assert (
            parts["attention"] == 4 * C * C * L
            and parts["feed-forward"] == 8 * C * C * L
            and parts["norms"] == (2 * L + 1) * C
        )
    assert_flops_are_torchs(model)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_kv_head": 1},
        {"n_kv_head": 2, "n_gram": 3, "n_gram_rows": 500},
        {"tied": False, "positions": "learned", "norm": "layer"},
        {"activation": "relu2", "block_size": 128},
    ],
)
def test_parts_and_flops_of_a_modern_gpt(changes):
    model = ModernGPT(ModernConfig(**SIZES | changes))
    config, parts, C, L = model.config, parameters_by_part(model), 128, 4
    assert sum(parts.values()) == sum(p.numel() for p in model.parameters())
    assert parts["token embedding"] == 60 * C
    assert parts["n-gram embedding"] == (2 * 500 * C if config.n_gram else 0)
    learned = config.positions == "learned"
    assert parts["position embedding"] == (config.block_size * C if learned else 0)
    assert parts["attention"] == L * (2 * C * C + 2 * C * C * config.kv_heads // 4)
    assert parts["norms"] == (2 * L + 1) * C
    assert_flops_are_torchs(model)


def test_info_on_a_run_a_preset_and_the_machine(trained, capsys):
    assert main(["info", str(trained), "--device", "cpu"]) == 0
    said, (model, _) = capsys.readouterr().out, load_model(trained)
    numbers = [
        int(number.replace(",", ""))
        for number in re.findall(
            r"^(?:token embedding|position embedding|attention|feed-forward|norms|lm_head) +([\d,]+)",
            said,
            re.M,
        )
    ]
    assert len(numbers) == 6 and sum(numbers) == model.num_params() == int(
        re.search(r"^total +([\d,]+)", said, re.M)[1].replace(",", "")
    )
    assert f"{flops_per_token(model):,} FLOPs per character" in said and "12 steps" in said
    assert "device cpu (--device says so), precision fp32" in said and torch.__version__ in said
    assert (
        main(["info"]) == 0
        and "parameters" not in (said := capsys.readouterr().out)
        and "chargpt " in said
    )
    assert main(["info", "--preset", "lecture", "--corpus", "play.txt"]) == 0
    lecture = GPT(PRESETS["lecture"].model(len(set(TEXT))))
    assert f"{lecture.num_params():,}" in capsys.readouterr().out
    assert main(["info", "--preset", "modern", "--corpus", "play.txt"]) == 0
    modern = ModernGPT(PRESETS["modern"].model(len(set(TEXT))))
    said = capsys.readouterr().out
    assert f"{modern.num_params():,}" in said and f"{flops_per_token(modern):,} FLOPs" in said


def test_the_environment_names_the_device(trained, monkeypatch, capsys):
    monkeypatch.setenv("CHARGPT_DEVICE", "cpu")
    assert main(["info"]) == 0 and "CHARGPT_DEVICE says so" in capsys.readouterr().out
    monkeypatch.setenv("CHARGPT_DEVICE", "toaster")
    assert main(["info"]) == 2 and "'toaster'" in capsys.readouterr().err
    assert main(["info", "--device", "cpu"]) == 0


# ---------------------------------------------------------------- real processes

LONG = [
    "train",
    "--corpus",
    "play.txt",
    *TINY,
    "--time-budget",
    "None",
    "--steps",
    "600",
    "--eval-interval",
    "50",
]


def test_ctrl_c_and_the_command_it_prints():
    process = subprocess.Popen(
        [*CHARGPT, *LONG, "--out", "a run"],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_row("a run", process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130, said
    steps = int(re.search(r"interrupted after step (\d+)", said)[1])
    command = shlex.split(re.search(r"^resume with: (.*)$", said, re.M)[1])
    assert 50 <= steps < 600 and command[:2] == ["chargpt", "train"] and "a run" in command
    installed = Path(sys.executable).parent / "chargpt"
    if installed.exists():
        command = [str(installed), *command[1:]]
    else:
        command = [*CHARGPT, *command[1:]]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [row["step"] for row in read_log("a run")]
    assert rows == list(range(50, 601, 50))


def test_a_killed_run_keeps_its_settings():
    process = subprocess.Popen(
        [*CHARGPT, *LONG, "--checkpoint-interval", "20", "--out", "run"],
        env=ENV,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_row("run", process)
    process.kill()
    process.wait()
    assert Path("run/settings.toml").exists() and not Path("run/settings.toml.part").exists()
    last = json.loads(Path("run/checkpoints.json").read_text())["last"]
    assert (
        main(["train", "--resume", "--out", "run", "--steps", str(int(last.split("-")[1]) + 30)])
        == 0
    )


def test_the_printed_usage_runs():
    done = subprocess.run(CHARGPT, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == USAGE + "\n" and done.stderr == ""
    done = subprocess.run([*CHARGPT, "evil"], env=ENV, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and "did you mean eval?" in done.stderr


def test_a_run_that_has_had_its_time_says_so(capsys):
    timed = ["--steps", "None", "--time-budget", "0.2", "--warmup", "0", "--eval-interval", "1000"]
    assert train(out="timed", steps=timed) == 0
    before = tree(Path("timed"))
    capsys.readouterr()
    assert main(["train", "--resume", "--out", "timed", "--steps", "9000", "--device", "cpu"]) == 0
    assert (
        "nothing is left to do" in (said := capsys.readouterr().out)
        and "--time-budget of 0.2 s is used up" in said
    )
    assert tree(Path("timed")) == before


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train", "--resume"], ["runs/playhouse-cpu", "--out"]),
        (["train", "--out", ""], ["--out is empty"]),
        (["eval", "RUN", "--estimate", "0"], ["--estimate is 0"]),
        (
            ["sample", "RUN", "--max-new-tokens", "99999999999999999999"],
            ["--max-new-tokens is", "100,000,000"],
        ),
    ],
)
def test_what_a_new_user_tried(arguments, words, trained, capsys):
    assert main([str(trained) if word == "RUN" else word for word in arguments]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said


def test_a_run_that_exploded_has_an_infinite_perplexity(trained, tmp_path, capsys):
    model, tokenizer = load_model(trained)
    with torch.no_grad():
        model.norm.weight.mul_(1e6)
    save_model(model, tokenizer, tmp_path / "exploded")
    assert (
        main(["eval", "exploded", "--corpus", str(trained.parent / "play.txt"), "--device", "cpu"])
        == 0
    )
    assert "inf perplexity" in capsys.readouterr().out


def test_two_processes_train_as_one_with_the_doubled_batch():
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "127.0.0.1:0",
        "-m",
        "chargpt_lib.cli",
    ]
    words = ["train", "--corpus", "play.txt", *TINY, *STEPS]
    done = subprocess.run(
        [*launcher, *words, "--out", "two"],
        capture_output=True,
        text=True,
        env={**ENV, "GLOO_SOCKET_IFNAME": "lo", "CHARGPT_DEVICE": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("saving to two") == 1 and done.stdout.count("chargpt sample two") == 1
    assert main([*words, "--batch-size", "8", "--out", "one"]) == 0
    for row, other in zip(read_log("two"), read_log("one"), strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)
        assert row["val_loss"] == pytest.approx(other["val_loss"], abs=1e-5)
    assert _read_settings("two/settings.toml")["batch_size"] == 4


def test_the_environment_is_left_as_it_was(monkeypatch):
    """With several processes the device was handed on by changing it."""
    asked = []

    def stand_in(model, corpus, config, tokenizer, resume, device, corpus_changed):
        asked.append(str(device))
        return {"stop_reason": "interrupted"}

    monkeypatch.setattr("chargpt_lib.distributed.train_distributed", stand_in)
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = dict(os.environ)
    assert train("--device", "cpu") == 130
    assert asked == ["cpu"] and dict(os.environ) == before
