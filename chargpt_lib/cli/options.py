"""The options of `chargpt train`: presets, a file of settings, the command line."""

import json
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields, make_dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, NamedTuple, get_args, get_type_hints

from chargpt_lib.cli.inputs import (
    DEFAULT_TOKENIZER,
    SHARDS_TOKENIZER,
    STDIN,
    check_own_model,
    default_tokenizer,
    is_corpus_name,
    is_tokenizer_name,
    load_initial,
)
from chargpt_lib.files import atomic_write_text
from chargpt_lib.gpt import GPTConfig
from chargpt_lib.modern import ModernConfig
from chargpt_lib.recipe import TrainConfig
from chargpt_lib.trainer import is_in_use


class _Preset(NamedTuple):
    """A model and how it is trained, under one name."""

    model: Callable  # vocab_size -> GPTConfig or ModernConfig
    training: dict  # the fields of TrainConfig that differ from its defaults


# torch.optim.AdamW with its own defaults, at a constant learning rate.
PLAIN_ADAMW = {
    "learning_rate": 3e-4,
    "warmup": 0.0,
    "schedule": "wsd",
    "decay": 0.0,
    "weight_decay": 0.01,
    "betas": (0.9, 0.999),
    "grad_clip": 0.0,
}

# Two minutes on a laptop.
TWO_MINUTES = {
    "time_budget": 120.0,
    "batch_size": 12,
    "schedule": "wsd",
    "decay": 0.6,
    "eval_interval": 1000,
}

PRESETS = {
    "cpu": _Preset(
        lambda vocab_size: replace(GPTConfig.cpu(vocab_size), activation="relu"),
        {
            **TWO_MINUTES,
            "learning_rate": 3e-3,
        },
    ),
    "modern": _Preset(
        lambda vocab_size: ModernConfig(
            vocab_size, block_size=128, n_layer=4, n_head=4, n_kv_head=2, n_embd=128
        ),
        {
            **TWO_MINUTES,
            "optimizer": "muon",
            "learning_rate": 2e-3,
        },
    ),
    "lecture": _Preset(
        GPTConfig.lecture,
        {
            "steps": 5000,
            "batch_size": 64,
            "eval_interval": 500,
            **PLAIN_ADAMW,
        },
    ),
    "baby": _Preset(
        GPTConfig.baby,
        {
            "steps": 5000,
            "batch_size": 64,
            "learning_rate": 1e-3,
            "min_lr": 1e-4,
            "warmup": 0.02,
            "betas": (0.9, 0.99),
            "weight_decay": 0.1,
            "grad_clip": 1.0,
            "eval_interval": 250,
        },
    ),
    "oz": _Preset(
        lambda vocab_size: replace(GPTConfig.oz(vocab_size), scaled_init=True),
        {
            "steps": 500,
            "batch_size": 32,
            "eval_interval": 100,
            **PLAIN_ADAMW,
        },
    ),
    "gpt2": _Preset(
        # With --tokenizer gpt2, GPT-2's own vocabulary.
        lambda vocab_size: replace(GPTConfig.gpt2(), vocab_size=vocab_size),
        {
            "steps": 600_000,
            "batch_size": 12,
            "grad_accum": 40,
            "learning_rate": 6e-4,
            "min_lr": 6e-5,
            "warmup": 2000 / 600_000,
            "betas": (0.9, 0.95),
            "eval_interval": 1000,
        },
    ),
}
DEFAULT_PRESET = "cpu"
DEFAULT_CORPUS = "playhouse"

# The tokenizer decides the size of the vocabulary. Until it is there, a model's config has this one.
UNKNOWN_VOCAB_SIZE = 1

# The class of the model's config, by preset. Its fields are the model's settings.
CONFIG_CLASSES = {name: type(preset.model(UNKNOWN_VOCAB_SIZE)) for name, preset in PRESETS.items()}
TRAINING_SETTINGS = [field.name for field in fields(TrainConfig) if field.name != "out"]


def _model_settings(config_class):
    """The names of the settings of models of this class."""
    return [field.name for field in fields(config_class) if field.name != "vocab_size"]


def setting_names(config_class):
    """What a file of settings may hold: all that makes a run repeatable, whatever its folder and its device are."""
    return [
        "preset",
        "corpus",
        "tokenizer",
        "init_from",
        *_model_settings(config_class),
        *TRAINING_SETTINGS,
    ]


# The names of all settings that there are, whatever the preset; and their types.
SETTINGS = list(
    dict.fromkeys(name for kind in CONFIG_CLASSES.values() for name in setting_names(kind))
)
TYPES = {
    "preset": Literal[*PRESETS],
    "corpus": str,
    "tokenizer": str,
    "init_from": str | None,
    **get_type_hints(GPTConfig),
    **get_type_hints(ModernConfig),
    **get_type_hints(TrainConfig),
}

# What may change when a run is resumed; with any other setting changed it would be another run.
CHANGEABLE = {
    "steps",
    "epochs",
    "time_budget",
    "patience",
    "precision",
    "compile",
    "gradient_checkpointing",
    "eval_interval",
    "eval_batches",
    "checkpoint_interval",
    "tensorboard",
}

# Options that a file cannot set.
COMMAND_LINE_ONLY = ("out", "device", "resume", "corpus_changed", "config")

# nanoGPT's names -> ours, for those that are too different for a guess by spelling.
NANOGPT_NAMES = {
    "max_iters": "steps",
    "dtype": "precision",
    "dataset": "corpus",
    "beta1": "betas",
    "beta2": "betas",
    "gradient_accumulation_steps": "grad_accum",
    "eval_iters": "eval_batches",
    "warmup_iters": "warmup",
}


def _option_name(setting):
    """n_layer -> --n-layer."""
    return "--" + setting.replace("_", "-")


# ---------------------------------------------------------------- settings, and the files that hold them


def _with_preset(settings):
    """All settings, as a dict: the given ones, and for the rest those of their preset."""
    preset_name = settings.get("preset", DEFAULT_PRESET)
    preset = PRESETS[preset_name]
    defaults = {
        "preset": preset_name,
        "corpus": DEFAULT_CORPUS,
        "tokenizer": default_tokenizer(settings.get("corpus", DEFAULT_CORPUS)),
        "init_from": None,
    }
    defaults.update(vars(preset.model(UNKNOWN_VOCAB_SIZE)))
    defaults.update(vars(TrainConfig(**preset.training)))
    names = setting_names(CONFIG_CLASSES[preset_name])
    return {name: settings.get(name, defaults[name]) for name in names}


def _check_names(names, preset, where=""):
    """Raises: ValueError for the first of some settings that models of the preset do not have.

    where: the file that has them, and a colon; "" for the command line.
    """
    known = setting_names(CONFIG_CLASSES[preset])
    for name in names:
        if name in known:
            continue
        shown = f"{where}{name}" if where else _option_name(name)
        having = [other for other, kind in CONFIG_CLASSES.items() if name in setting_names(kind)]
        if len(having) == 1:
            whose = f"the preset {having[0]}"
            way_out = f"--preset {having[0]}"
        else:
            whose = f"the presets {', '.join(having)}"
            way_out = "one of those"
        raise ValueError(
            f"{shown} is a setting of {whose}, and the preset is {preset}: omit it, or train with {way_out}"
        )


def _explain_unknown(name, value):
    """What to do about a name in a file that is no setting."""
    if name in COMMAND_LINE_ONLY:
        return "it belongs on the command line"
    if isinstance(value, dict):
        return "a file of settings has no tables"
    if name in NANOGPT_NAMES:
        return f"the nearest is {NANOGPT_NAMES[name]}"
    near = get_close_matches(name, SETTINGS, 1)
    if near:
        return f"the nearest is {near[0]}"
    return "chargpt train --help lists them all"


def _from_toml(value, kind):
    """A value of a TOML file as Python has it, for a setting of this type."""
    if isinstance(value, list):
        return tuple(value)
    # TOML has no None: false stands for it, and in files of earlier versions the text "None".
    if NoneType in get_args(kind) and (value is False or value == "None"):
        return None
    return value


def _is_of_type(value, spec, kind):
    """Whether a value is of a setting's type; spec: what tyro knows of the type."""
    # To Python, and so to tyro, True is the number 1.
    if isinstance(value, bool) and kind is not bool:
        return False
    return bool(spec.is_instance(value))


def _read_settings(path):
    """The settings in a TOML file, as a dict.

    Raises: FileNotFoundError; ValueError for a name that is no setting, and for a value of the wrong type.
    """
    from tyro.constructors import ConstructorRegistry, PrimitiveTypeInfo

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not a file: --config takes a TOML file of settings, "
            "such as a run's settings.toml"
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also where the bytes are not UTF-8
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    settings = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in SETTINGS:
            advice = _explain_unknown(name, value)
            raise ValueError(f"{path}: unknown setting {key!r}: {advice}")
        kind = TYPES[name]
        settings[name] = _from_toml(value, kind)
        # tyro's own description of the type, with which it reads the option of this name.
        spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, set()))
        if not _is_of_type(settings[name], spec, kind):
            expected = spec.metavar.replace("{None}", "false").replace("{True,False}", "true|false")
            raise ValueError(f"{path} sets {key} to {value!r}; it takes {expected}")
    return settings


def write_settings(path, settings):
    """Writes the TOML file that `read_settings` reads."""
    lines = []
    for name, value in settings.items():
        if value is None:
            value = False
        # Texts, numbers, booleans and lists look the same in JSON and in TOML, and Python has no writer of TOML.
        # (All but the control character DEL, which TOML wants escaped.)
        value = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        lines.append(f"{name} = {value}\n")
    atomic_write_text(path, "".join(lines))


def saved_settings(out):
    """All settings of the run in a folder, as a dict. Raises: FileNotFoundError where there is no run."""
    path = Path(out) / "settings.toml"
    if not path.is_file():
        check_own_model(out)
        raise FileNotFoundError(f"{path} is not there: is {out} the folder of a run?")
    settings = _read_settings(path)
    _check_names(settings, settings.get("preset", DEFAULT_PRESET), where=f"{path}: ")
    return _with_preset(settings)


# ---------------------------------------------------------------- the command line


@dataclass
class _FirstPassArgs:
    """The options that decide which defaults all others have."""

    preset: Literal[*PRESETS] | None = None
    corpus: str | None = None
    tokenizer: str | None = None
    init_from: Path | None = None
    config: Path | None = None
    resume: bool = False
    out: str | None = None


def _train_args_class(settings, out):
    """A dataclass for tyro, whose fields are the options of `chargpt train` with these settings as defaults.

    tyro's own choice between default configs, `overridable_config_cli`, makes each a subcommand, and knows no files.
    """
    import tyro

    # As partial calls, the configs are made, and checked, once all sources are read. A file with n_head = 5 alone is
    # right where --n-embd 100 comes with it. vocab_size, given here, is no option.
    config_class = CONFIG_CLASSES[settings["preset"]]
    model_settings = {name: settings[name] for name in _model_settings(config_class)}
    training_settings = {name: settings[name] for name in TRAINING_SETTINGS}
    make_model = partial(config_class, UNKNOWN_VOCAB_SIZE, **model_settings)
    make_training = partial(TrainConfig, out=out, **training_settings)

    @dataclass
    class TrainArgs:
        """Trains a GPT on a text and saves it in a folder.

        An option wins over the file --config, and that over --preset. The model's options are those of the preset:
        --preset modern --help shows others. With --init-from, model and tokenizer are those in that folder, and only
        --dropout may differ. The default of --out is runs/CORPUS-PRESET, with the tokenizer at its end where it is
        neither char nor that of shards or of --init-from.
        """

        # The model and the tokenizer in --init-from. Without an annotation, it is no option.
        initial = None

        model: Annotated[config_class, tyro.conf.arg(constructor=make_model)]
        training: Annotated[TrainConfig, tyro.conf.arg(constructor=make_training)]
        # model and training settings: cpu (small, 120 s on a laptop), modern (RoPE, SwiGLU, Muon and
        # more, 120 s), lecture (Karpathy's lecture), baby (nanoGPT's), oz (small, for The Wizard of
        # Oz), gpt2 (the smallest)
        preset: Literal[*PRESETS] = settings["preset"]
        # playhouse, shakespeare, oz, a text's path or address, or a folder of shards (lesson 12);
        # -: the standard input
        corpus: str = settings["corpus"]
        # char, bpe:512 (or another size: learned from the training text), gpt2, or the path of one;
        # shards: the one that the folder of shards was written with
        tokenizer: str = settings["tokenizer"]
        # start from the weights of this run, checkpoint, saved model or export (fine-tuning)
        init_from: Path | None = _as_path(settings["init_from"])
        config: Path | None = None  # a TOML file of settings, such as a run's settings.toml
        resume: bool = False  # resume the run in --out, with the settings saved there
        # with --resume: what to do where the text is not the one of the run
        corpus_changed: Literal["refuse", "accept"] = "refuse"
        device: str | None = None  # cpu, cuda or mps; by default the best one that works

    return TrainArgs


def _as_path(name):
    """The Path of a name; None for None."""
    return None if name is None else Path(name)


def settings_of(args):
    """All settings of a parsed command line, as a dict; paths are absolute, and so right from any folder."""
    settings = {
        "preset": args.preset,
        "corpus": args.corpus,
        "tokenizer": args.tokenizer,
        "init_from": None,
        **vars(args.model),
        **vars(args.training),
    }
    if args.init_from is not None:
        settings["init_from"] = str(args.init_from)
    if not is_corpus_name(args.corpus) and Path(args.corpus).exists():
        settings["corpus"] = str(Path(args.corpus).resolve())
    # The tokenizer of --init-from keeps the name of that folder, by which it is known again.
    is_path = args.tokenizer != settings["init_from"] and not is_tokenizer_name(args.tokenizer)
    if is_path and Path(args.tokenizer).exists():
        settings["tokenizer"] = str(Path(args.tokenizer).resolve())
    return {name: settings[name] for name in setting_names(type(args.model))}


def _as_file_name(path):
    """The name of a file or folder without its ending, of letters that a file's name may have anywhere."""
    return re.sub(r"[^\w.-]+", "_", Path(path).stem)


def _default_out(settings):
    """runs/playhouse-cpu: the name of the corpus, or of its file, and that of the preset; runs/playhouse-cpu-bpe512."""
    name = _as_file_name(settings["corpus"])
    if settings["corpus"] == STDIN:
        name = "stdin"
    elif not name:
        name = "text"
    name = f"{name}-{settings['preset']}"
    tokenizer = settings["tokenizer"]
    if tokenizer not in (DEFAULT_TOKENIZER, SHARDS_TOKENIZER, settings["init_from"]):
        name = f"{name}-{_as_file_name(tokenizer.replace(':', ''))}"
    return str(Path("runs") / name)


def _check_resumed(args, saved):
    """Raises: ValueError where a resumed run would become another one."""
    settings = settings_of(args)
    for name, before in saved.items():
        # These two are compared later, by what is in them: files may have been moved.
        if name in ("corpus", "tokenizer"):
            continue
        if settings[name] != before and name not in CHANGEABLE:
            raise ValueError(
                f"{_option_name(name)} {settings[name]} conflicts with the run in "
                f"{args.training.out}, which has {before}: omit it, or begin a new run in "
                "another --out"
            )


def _check_storable(args):
    """Raises: ValueError for paths that are not UTF-8, and so cannot be written down or read again."""
    out = args.training.out
    try:
        out.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(
            f"--out {out} is not UTF-8, and safetensors could not read the weights from it again: "
            "pass another folder"
        ) from None
    settings = settings_of(args)
    ways_out = {
        "corpus": "rename the file, or pass its text by --corpus - < FILE",
        "tokenizer": "rename the file",
        "init_from": "rename the folder",
    }
    for name, way_out in ways_out.items():
        try:
            str(settings[name]).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(
                f"the path {settings[name]} is not UTF-8, and settings.toml can hold nothing else: {way_out}"
            ) from None


def _check_new(out):
    """Raises: FileExistsError where a new run would get into the way of what is in its folder."""
    if Path(out).is_file() or is_in_use(out):
        raise FileExistsError(
            f"{out} is not an empty folder: resume the run in it by --resume, or give another --out"
        )


def _absolute(folder):
    """The absolute path of a folder, with the home folder in the place of ~."""
    return os.path.abspath(os.path.expanduser(folder))


def _check_apart(folder, out):
    """Raises: ValueError where a new run would be saved over the weights that it begins with."""
    folder = Path(folder).resolve()
    # A run deletes checkpoints in its folder that are not its own.
    if Path(out).resolve() in (folder, *folder.parents):
        raise ValueError(
            f"--out {out} holds the weights that --init-from names, {folder}: give the new run a "
            "folder of its own by --out"
        )


def _use_initial(settings, initial):
    """Completes settings with those of the model in settings["init_from"].

    Raises: ValueError for a preset with models of another kind.
    """
    model, _ = initial
    fitting = [name for name, kind in CONFIG_CLASSES.items() if kind is type(model.config)]
    preset = settings.setdefault("preset", fitting[0])
    if preset not in fitting:
        raise ValueError(
            f"--preset {preset} has another kind of model than {settings['init_from']}, which has a "
            f"{type(model).__name__}: omit it, or take one of {', '.join(fitting)}"
        )
    # The model's own tokenizer is named by the folder, as --tokenizer may name one, too.
    settings.setdefault("tokenizer", settings["init_from"])
    for name in _model_settings(type(model.config)):
        settings.setdefault(name, getattr(model.config, name))


def _check_initial_model(settings, arguments, model):
    """Raises: ValueError for the first setting or option of the model that differs from the model in --init-from."""
    import tyro

    # The values of the options alone, before a config is made of them: what that says of n_head = 5 would not help.
    names = _model_settings(type(model.config))
    options = [(name, TYPES[name], settings[name]) for name in names]
    given, _ = tyro.cli(
        make_dataclass("ModelOptions", options),
        prog="chargpt train",
        args=arguments,
        return_unknown_args=True,
        add_help=False,
    )
    for name in names:
        value = getattr(given, name)
        there = getattr(model.config, name)
        # Dropout is no part of the weights.
        if value != there and name != "dropout":
            raise ValueError(
                f"{_option_name(name)} {value} conflicts with the model in {settings['init_from']}, "
                f"which has {there}: omit it, or train from scratch without --init-from"
            )


def _find_defaults(first, given):
    """The settings that are the defaults of all options, the folder of the run, and what `load_initial` returns.

    given: the names of the settings on the command line. Without --init-from, the last is None.

    Raises: ValueError, FileNotFoundError for a file or a run that is not there, or that is not right.
    """
    if first.out == "":
        raise ValueError("--out is empty: pass a folder, or omit --out")
    # A shell puts the home folder in the place of ~ in `--out ~/run`, but not in `--out=~/run`.
    if first.out is not None:
        first.out = os.path.expanduser(first.out)
    if first.config is not None:
        first.config = Path(os.path.expanduser(first.config))
    if first.corpus is not None:
        first.corpus = os.path.expanduser(first.corpus)
    settings = {}
    if first.config is not None and not first.resume:
        settings = _read_settings(first.config)
    if first.preset is not None:
        settings["preset"] = first.preset
    if first.corpus is not None:
        settings["corpus"] = first.corpus
    if first.tokenizer is not None:
        settings["tokenizer"] = first.tokenizer
    if "init_from" in given:  # by --init-from None, too
        settings["init_from"] = first.init_from
    initial = None
    if settings.get("init_from") is not None and not first.resume:
        initial = load_initial(os.path.expanduser(settings["init_from"]))
        settings["init_from"] = _absolute(settings["init_from"])
        _use_initial(settings, initial)
    # Only now: the preset on the command line wins over that of the file.
    preset = settings.get("preset", DEFAULT_PRESET)
    _check_names(settings, preset, where=f"{first.config}: ")
    settings = _with_preset(settings)
    out = first.out
    if out is None:
        out = _default_out(settings)
    if not first.resume:
        return settings, out, initial

    if first.out is None and not Path(out).is_dir():
        raise FileNotFoundError(
            f"--resume: the default folder {out} does not exist; pass the run's folder with --out"
        )
    if first.config is not None:
        raise ValueError(f"--resume takes the settings saved in {out}: omit --config")
    return saved_settings(out), out, None


def _given_settings(arguments):
    """The settings whose options are among the words of a command line, in any spelling, as names."""
    names = []
    for word in arguments:
        if not word.startswith("--"):
            continue
        name = word.removeprefix("--").split("=")[0].replace("-", "_")
        # --no-tied and --tied are one setting.
        for setting in (name, name.removeprefix("no_")):
            if setting in SETTINGS and setting not in names:
                names.append(setting)
    return names


def read_train_args(arguments):
    """The words after `chargpt train` -> a TrainArgs.

    Raises: ValueError, OSError for what cannot be; SystemExit, by tyro, for options that are wrong, and for --help.
    """
    import tyro

    # Two passes: the first finds out where the defaults come from, so that --help and the second can have them.
    first, _ = tyro.cli(
        _FirstPassArgs,
        prog="chargpt train",
        args=arguments,
        return_unknown_args=True,
        add_help=False,
    )
    given = _given_settings(arguments)
    settings, out, initial = _find_defaults(first, given)
    # To tyro an option of another preset's models is one that it does not know.
    _check_names(given, settings["preset"])
    if initial is not None:
        initial_model, _ = initial
        _check_initial_model(settings, arguments, initial_model)
    args = tyro.cli(
        _train_args_class(settings, out),
        prog="chargpt train",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    args.training.out = out  # where it is --out None, too
    args.corpus = os.path.expanduser(args.corpus)
    args.tokenizer = os.path.expanduser(args.tokenizer)
    if args.init_from is not None:
        args.init_from = Path(_absolute(args.init_from))
    args.initial = initial
    _check_storable(args)
    if args.resume:
        _check_resumed(args, settings)
    else:
        if args.init_from is not None:
            _check_apart(args.init_from, out)
        _check_new(out)
    return args
