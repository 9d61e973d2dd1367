import json
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from chargpt_lib.data import BOOKS
from chargpt_lib.files import atomic_write_text
from chargpt_lib.gpt import GPTConfig
from chargpt_lib.recipe import TrainConfig
from chargpt_lib.trainer import is_in_use

PLAIN = {
    "learning_rate": 3e-4,
    "warmup": 0.0,
    "schedule": "wsd",
    "decay": 0.0,
    "weight_decay": 0.01,
    "betas": (0.9, 0.999),
    "grad_clip": 0.0,
}  # torch.optim.AdamW as it comes, and a rate that stays
PRESETS = {  # name: (vocab_size -> GPTConfig, what TrainConfig is given)
    "cpu": (
        lambda V: replace(GPTConfig.cpu(V), activation="relu"),
        {
            "time_budget": 120.0,
            "batch_size": 12,
            "learning_rate": 3e-3,
            "schedule": "wsd",
            "decay": 0.6,
            "eval_interval": 1000,
        },
    ),
    "lecture": (
        GPTConfig.lecture,
        {"steps": 5000, "batch_size": 64, "eval_interval": 500, **PLAIN},
    ),
    "baby": (
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
    "oz": (
        lambda V: replace(GPTConfig.oz(V), scaled_init=True),
        {"steps": 500, "batch_size": 32, "eval_interval": 100, **PLAIN},
    ),
    "gpt2": (
        lambda V: replace(
            GPTConfig.gpt2(), vocab_size=V
        ),  # an alphabet in the place of its subwords
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


@dataclass
class Sizes(GPTConfig):
    """Which GPT.

    Args:
        block_size: characters that it sees at once
        n_layer: blocks, one after the other
        n_head: heads of attention in a block
        n_embd: the width, a multiple of n_head
        dropout: share of activations that training switches off
        qkv_bias: of queries, keys and values
        activation: relu, gelu or gelu_tanh
        scaled_init: smaller first weights, the deeper the model
    """

    vocab_size: int = field(init=False, repr=False, compare=False)  # no option: the corpus decides

    def __post_init__(self):
        """Checked in `settled`, when all sources are read."""


@dataclass
class Training(TrainConfig):
    """How to train. Whichever comes first ends it: steps, epochs, time_budget, patience."""

    def __post_init__(self):
        """Checked in `settled`, when all sources are read."""


@dataclass
class Sources:
    preset: Literal[*PRESETS] | None = None  # a published recipe; cpu, where none is named
    corpus: str = "playhouse"  # or shakespeare, oz, the path of a text, its address
    config: Path | None = None  # a TOML file with options, such as a run's settings.toml
    resume: bool = False  # go on with the run in --out, with the settings saved there
    device: str | None = None  # cpu, cuda, mps; without, the best one that works


@dataclass
class FirstReading(Sources):
    out: str | None = None


@dataclass
class TrainOptions(Sources):
    """Trains a GPT on a text, and keeps it in a folder.

    An option wins over the file --config, and that over --preset. Without --out the folder is runs/CORPUS-PRESET.
    """

    model: Sizes = field(default_factory=Sizes)
    training: Training = field(default_factory=Training)


NAMES = {
    kind: [field.name for field in fields(kind) if field.name not in ("vocab_size", "out")]
    for kind in (Sizes, Training)
}
SETTINGS = ["preset", "corpus", *NAMES[Sizes], *NAMES[Training]]  # what a file may hold
NANOGPT = {
    "max_iters": "steps",
    "dtype": "precision",
    "dataset": "corpus",
    "beta1": "betas",
    "beta2": "betas",
    "gradient_accumulation_steps": "grad_accum",
    "eval_iters": "eval_batches",
    "warmup_iters": "warmup",
}


def with_preset(settings):
    """Flat settings, laid over those of their preset: all settings, flat."""
    preset = settings.get("preset") or "cpu"
    sizes, training = PRESETS[preset]
    given = {
        **vars(sizes(1)),
        **vars(Training(**training)),
        "corpus": "playhouse",
        **settings,
        "preset": preset,
    }
    return {name: given[name] for name in SETTINGS}


def as_options(settings):
    """All settings, flat -> TrainOptions."""
    model, training = (
        kind(**{name: settings[name] for name in NAMES[kind]}) for kind in (Sizes, Training)
    )
    return TrainOptions(
        preset=settings["preset"], corpus=settings["corpus"], model=model, training=training
    )


def flat(options):
    """TrainOptions -> all settings, flat; the path of a text is made whole, and so right from any folder."""
    settings = vars(options) | vars(options.model) | vars(options.training)
    if options.corpus not in ("playhouse", *BOOKS) and Path(options.corpus).is_file():
        settings["corpus"] = str(Path(options.corpus).resolve())
    return {name: settings[name] for name in SETTINGS}


def configs(options, vocab_size):
    """The GPTConfig and the TrainConfig of a run. ValueError for what neither can have."""
    settings = flat(options)
    sizes, training = ({name: settings[name] for name in NAMES[kind]} for kind in (Sizes, Training))
    return GPTConfig(vocab_size, **sizes), TrainConfig(**training, out=options.training.out)


def fits(value, kind):
    """Whether a value from a file is of a field's type."""
    kinds = get_args(kind) or (kind,)
    if get_origin(kind) is tuple:
        return (
            isinstance(value, tuple) and len(value) == len(kinds) and all(map(fits, value, kinds))
        )
    if get_origin(kind) is Literal:
        return value in kinds
    return any(
        fits(value, one)
        if get_args(one)
        else type(value) in ((int, float) if one is float else (one,))
        for one in kinds
    )


def in_words(kind):
    """What a file may set a field of this type to, in TOML's words."""
    kinds = get_args(kind) or (kind,)
    if get_origin(kind) is tuple:
        return f"{len(kinds)} numbers, [0.9, 0.95]"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, kinds))
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        type(None): '"None"',
    }
    return " or ".join(names.get(one) or in_words(one) for one in kinds)


def read_settings(path):
    """The settings in a TOML file, flat. ValueError for a name that is no setting, or a value it cannot have."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path} is no file: --config takes a TOML file with settings, such as a run's "
            f"settings.toml"
        )
    try:
        lines = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # also of bytes that are no text
        raise ValueError(f"{path} is no TOML: {error}") from None
    kinds, settings = get_type_hints(Sources) | get_type_hints(Sizes) | get_type_hints(Training), {}
    for key, value in lines.items():
        name = key.replace("-", "_")
        if name not in SETTINGS:
            near = NANOGPT.get(name) or "".join(get_close_matches(name, SETTINGS, 1))
            way = (
                "it belongs on the command line"
                if name in ("out", "device", "resume", "config")
                else "a file of settings has no tables"
                if isinstance(value, dict)
                else f"the nearest is {near}"
                if near
                else "chargpt train --help tells them all"
            )
            raise ValueError(f"{path} sets {key}, and there is no such setting: {way}")
        value = None if value == "None" else tuple(value) if isinstance(value, list) else value
        if not fits(value, kinds[name]):
            raise ValueError(
                f"{path} sets {key} to {lines[key]!r}; it has to be {in_words(kinds[name])}"
            )
        settings[name] = value
    return settings


def write_settings(path, settings):
    """Writes what `read_settings` reads."""
    plain = {name: "None" if value is None else value for name, value in settings.items()}
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in plain.items()]
    atomic_write_text(path, "".join(lines))


FREE = {
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
}  # what may change when a run goes on


def default_out(corpus, preset):
    """runs/playhouse-cpu: the corpus' name, or that of its file, and the preset's."""
    name = re.sub(r"[^\w.-]+", "_", Path(corpus).stem) or "text"
    return str(Path("runs") / f"{name}-{preset}")


def saved_settings(out):
    """All settings of the run in a folder, flat. FileNotFoundError where it has none."""
    if not (path := Path(out) / "settings.toml").is_file():
        raise FileNotFoundError(f"{path} is not there: is {out} the folder of a run?")
    return with_preset(read_settings(path))


def check_against(options, before):
    """ValueError where a run that goes on would become another one, FileExistsError where a new one has no room."""
    out, settings = Path(options.training.out), flat(options)
    for name, old in (before or {}).items():
        if settings[name] != old and name not in FREE:
            raise ValueError(
                f"--{name.replace('_', '-')} {settings[name]} contradicts the run in {out}, which has "
                f"{old}: leave it out, or begin a new run in another --out"
            )
    if before is None and (out.is_file() or is_in_use(out)):
        raise FileExistsError(
            f"{out} is not an empty folder: go on with the run in it by --resume, or give another "
            f"--out"
        )


def read_train_options(arguments):
    """The words after `chargpt train` -> TrainOptions. ValueError, OSError; SystemExit for options there are not."""
    import tyro

    sources = [word for word in arguments if word not in ("-h", "--help")]
    first, _ = tyro.cli(
        FirstReading, prog="chargpt train", args=sources, return_unknown_args=True, add_help=False
    )
    out, before = first.out or default_out(first.corpus, first.preset or "cpu"), None
    if first.out == "":
        raise ValueError("--out is empty: name a folder, or leave it out")
    if first.resume and not first.out and not Path(out).is_dir():
        raise FileNotFoundError(
            f"--resume goes on with the run in a folder, and {out}, the usual one, is not there: "
            f"name it, --out"
        )
    if first.resume and first.config:
        raise ValueError(f"--resume takes the settings saved in {out}: leave --config out")
    if first.resume:
        base = before = saved_settings(out)
    else:
        file = read_settings(first.config) if first.config else {}
        base = with_preset(file | ({"preset": first.preset} if first.preset else {}))
    options = tyro.cli(
        TrainOptions,
        prog="chargpt train",
        args=arguments,
        default=as_options(base),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    options.training.out = (
        out if first.resume else first.out or default_out(options.corpus, options.preset)
    )
    configs(options, vocab_size=1)  # checks them
    check_against(options, before)
    return options
