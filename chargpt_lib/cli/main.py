"""The command `chargpt`: finds the command, reads its options, runs it, and turns errors into messages and exit codes."""

import os
import sys
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import chargpt_lib
from chargpt_lib.cli.output import (
    discard_output,
    prepare_streams,
    print_error,
    print_how_to_see_letters,
)

# tyro's own list of commands would be longer than this one and without examples. Nor could it have `train`, whose
# options are the fields of GPTConfig or ModernConfig and TrainConfig: importing them imports torch, and that takes seconds.
COMMANDS = {
    "train": "train a model on a text, fine-tune one, or resume a run",
    "eval": "exact loss, bits per character and per byte, perplexity",
    "sample": "generate text",
    "attend": "write a page with attention maps, to click through",
    "page": "write a page in which the model lives: it reads, writes, and shows what surprises it",
    "info": "parameters and FLOPs of a model or preset, what a training costs; this machine's device",
    "import": "open a model of nanoGPT or transformers, or a published GPT-2",
    "export": "write a model for transformers, nanoGPT or ONNX",
    "check": "grade your own notebook (Linux, macOS, WSL)",
    "grade": "grade a class (Linux, macOS, WSL)",
}
COMMAND_LINES = "\n".join(f"  {name:8}{summary}" for name, summary in COMMANDS.items())
USAGE = f"""usage: chargpt COMMAND ...    (chargpt COMMAND --help lists its options)

{COMMAND_LINES}

  chargpt train --preset cpu --corpus playhouse     train from scratch and sample, about two minutes
  chargpt sample runs/playhouse-cpu --prompt "O damp goose!"
""".rstrip()


# ---------------------------------------------------------------- options, as tyro reads them


@dataclass
class _ModelArgs:
    folder: Path  # folder of a run, a checkpoint or a saved model


@dataclass
class _EvalArgs(_ModelArgs):
    """Computes the exact loss over a text, in which each token is predicted once."""

    # corpus name, path, URL, folder of shards, or - for stdin; by default the run's own
    corpus: str | None = None
    split: Literal["val", "train"] = "val"  # which part of the corpus
    estimate: int | None = None  # also estimate the loss from so many random batches (nanoGPT: 200)
    device: str | None = None  # cpu, cuda or mps; by default the best one that works


@dataclass
class _SampleArgs(_ModelArgs):
    """Generates text. Nothing else goes to the standard output."""

    prompt: str = ""  # the text to continue, or FILE:prompt.txt; by default a newline
    # tokens to generate, at most: characters, unless the model was trained with another tokenizer
    max_new_tokens: int = 500
    temperature: float = 1.0  # divides the logits; 0: greedy decoding
    top_k: int | None = None  # sample from the k likeliest tokens only
    # nucleus sampling: keep the smallest set with total probability >= top_p
    top_p: float | None = None
    min_p: float | None = None  # drop tokens below min_p times the largest probability
    repetition_penalty: float | None = None  # above 1: tokens already written become rarer
    # stop string, \n for a newline (in --prompt, too); may be repeated
    stop: tuple[str, ...] = ()
    seed: int | None = None  # random seed; sample i uses seed + i
    num_samples: int = 1  # number of samples, separated by a line of dashes
    device: str | None = None  # cpu, cuda or mps; by default the best one that works


@dataclass
class _AttendArgs(_ModelArgs):
    """Writes a page with the attention maps of a text: one file, for any browser, without a network."""

    # text the model reads, at most block_size tokens, or FILE:prompt.txt
    prompt: str = "O damp goose!"
    out: Path = Path("attention.html")  # the page; a file of this name is replaced
    device: str | None = None  # cpu, cuda or mps; by default the best one that works


@dataclass
class _PageArgs(_ModelArgs):
    """Writes a page in which the model computes in the browser: one file, without a network.

    Its reader types a text and sees what surprises the model, lets it write, and switches heads off. The weights are
    in 8 bits.
    """

    # the text that the page shows at first, or FILE:prompt.txt; by default the model writes one
    prompt: str = ""
    out: Path = Path("page.html")  # the page; a file of this name is replaced


@dataclass
class _InfoArgs:
    """Prints parameters and FLOPs of runs or of a preset; the device, and what is installed.

    With --tokens and --devices: what training the preset would cost in FLOPs, hours and memory.
    """

    # runs, checkpoints or saved models; without any, this machine only
    folders: tuple[Path, ...]
    preset: str | None = None  # a preset's model: cpu, modern, lecture, baby, oz or gpt2
    corpus: str = "playhouse"  # the text of the preset's tokenizer, which sets its vocab_size
    # char, bpe:512 (or another size), gpt2, or the path of one; by default char, or that of a folder
    # of shards
    tokenizer: str | None = None
    tokens: float | None = None  # with --preset: what training on so many tokens costs, e.g. 9e9
    # with --preset: on which cards, e.g. 8xA100; prints the memory of each, too
    devices: str | None = None
    # model FLOPs utilisation, the share of the cards' peak that training reaches; about 0.3 in
    # nanoGPT's run of GPT-2: 600,000 steps of 491,520 tokens in about 4 days on 8 A100 (40 GB);
    # models of a few million parameters reach less
    mfu: float = 0.3
    device: str | None = None  # cpu, cuda or mps; by default the best one that works


@dataclass
class _ImportArgs:
    """Makes a model of chargpt of another program's, for `sample`, `eval`, `train --init-from` and all else."""

    # nanoGPT's ckpt.pt, or one of Karpathy's lecture; a folder of transformers (GPT-2, Llama); or gpt2, gpt2-medium,
    # gpt2-large, gpt2-xl, which are downloaded
    source: str
    out: Path | None = None  # a new folder for the model; required
    # nanoGPT's meta.pkl, with the alphabet; by default the one beside the ckpt.pt
    meta: Path | None = None
    # instead of meta: the text that the model was trained on, whose characters are the alphabet
    text: str | None = None
    # of nanoGPT's feed-forward layer, which its file does not say: gelu_tanh in its early versions
    activation: Literal["gelu", "gelu_tanh"] = "gelu"
    # by whose root the lecture's code divides scores, which its file does not say: n_embd where that is
    # C**-0.5
    scaled_by: Literal["head_size", "n_embd"] = "head_size"


@dataclass
class _ExportArgs(_ModelArgs):
    """Writes a model in the files that other programs open. Its logits stay the same."""

    out: Path | None = None  # a new folder for the files; required
    # what transformers opens, with a model card; what nanoGPT's sample.py reads; or a graph for onnxruntime
    format: Literal["transformers", "nanogpt", "onnx"] = "transformers"
    license: str | None = None  # for the model card, such as mit


@dataclass
class _CheckArgs:
    """Grades your own notebook with the teacher's grader."""

    notebook: Path  # a lesson with your answers
    lesson: str | None = None  # 03, single_head or 03_single_head; by default the notebook's own


@dataclass
class _GradeArgs:
    """Grades a class."""

    submissions: tuple[Path, ...]  # notebooks, zips, or folders of them
    out: Path | None = None  # folder for grades.csv, grades.json and the feedback; required
    lesson: str | None = None  # as for check; by default that of most notebooks
    # TOML file with points per exercise, e.g. window_mask = 2; 1 for those it leaves out
    weights: Path | None = None
    seed: int | None = None  # seed of the test inputs (an earlier one is in grades.json)
    jobs: int | None = None  # notebooks graded at a time; by default one per core, at most 8
    # other than csv: also write the file that this platform imports, e.g. canvas.csv
    format: Literal["csv", "canvas", "moodle", "gradescope"] = "csv"


SUBCOMMANDS = {
    "eval": _EvalArgs,
    "sample": _SampleArgs,
    "attend": _AttendArgs,
    "page": _PageArgs,
    "info": _InfoArgs,
    "import": _ImportArgs,
    "export": _ExportArgs,
    "check": _CheckArgs,
    "grade": _GradeArgs,
}


# Options whose value is a text, which may begin with a dash.
TEXT_OPTIONS = ("--prompt", "--stop")


def _join_texts(command, arguments):
    """--prompt "--x" becomes --prompt=--x, or the parser would take the text for an option.

    Not where the text is an option of the command: then the text was forgotten.
    """
    options = {"-h", "--help"}
    for field in fields(SUBCOMMANDS[command]):
        options.add(f"--{field.name}")
        options.add("--" + field.name.replace("_", "-"))
    joined = []
    for word in arguments:
        follows_text_option = bool(joined) and joined[-1] in TEXT_OPTIONS
        if follows_text_option and word.startswith("-") and word.split("=")[0] not in options:
            joined[-1] = f"{joined[-1]}={word}"
        else:
            joined.append(word)
    return joined


def _expand_home(args):
    """Puts the home folder in the place of ~ in all paths, which shells do not in `--out=~/marks`."""
    for field in fields(args):
        value = getattr(args, field.name)
        if isinstance(value, Path):
            value = Path(os.path.expanduser(value))
        elif isinstance(value, tuple) and value and isinstance(value[0], Path):
            value = tuple(Path(os.path.expanduser(path)) for path in value)
        elif field.name == "corpus" and value is not None:
            value = os.path.expanduser(value)
        setattr(args, field.name, value)


def _parse_args(command, arguments):
    """The options of a command, as a dataclass. Raises: SystemExit, by tyro, for wrong ones and for --help."""
    import tyro

    if command == "train":
        from chargpt_lib.cli.options import read_train_args

        return read_train_args(arguments)
    args = tyro.extras.subcommand_cli_from_dict(
        SUBCOMMANDS,
        prog="chargpt",
        args=[command, *_join_texts(command, arguments)],
        config=(
            tyro.conf.PositionalRequiredArgs,
            tyro.conf.PositionalMetavarFromFieldName,
            tyro.conf.UseAppendAction,
        ),
    )
    _expand_home(args)
    return args


# ---------------------------------------------------------------- from the words to the exit code


def _dispatch(command, arguments):
    """Runs a command. Returns its exit code."""
    args = _parse_args(command, arguments)
    # Only now, when the options are right: this imports torch.
    from chargpt_lib.cli import commands

    return commands.COMMAND_FUNCTIONS[command](args)


def _fail(command, problem, code=2):
    """Prints what is wrong. Returns the exit code."""
    message = str(problem)
    if message == "":  # an exception without a text
        message = type(problem).__name__
    print_error(f"chargpt {command}: {message}")
    # Where it was the output that could not be written, Python must not try again at its exit.
    try:
        sys.stdout.flush()
    except OSError:
        discard_output()
    return code


def _unknown_command(word):
    """Prints the nearest command, which tyro does only for options. Returns the exit code."""
    near = get_close_matches(word, COMMANDS, 1)
    advice = f"did you mean {near[0]}?" if near else "see chargpt --help"
    print_error(f"chargpt: there is no command {word!r}; {advice}")
    return 2


def _explain_missing(command, error):
    """What to do about a Python module that is not installed; its package may have another name."""
    module = error.name
    if module is None:  # whoever raised the error has said it in words only
        return str(error)
    problem = (
        f"the Python module {module} is not installed: pip install {module}, "
        "if its package has the same name"
    )
    if command in ("check", "grade"):
        problem += "; check and grade need: pip install nbformat nbval pytest"
    return problem


def main(arguments=None):
    """The command `chargpt`. Returns its exit code: 0, 1 for a run that failed, 2 for what cannot be done, 130 for Ctrl-C."""
    if arguments is None:
        arguments = sys.argv[1:]
    prepare_streams()
    try:
        return _run(arguments)
    finally:
        print_how_to_see_letters()


def _run(arguments):
    """Finds the command and runs it. Returns its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    command = arguments[0]
    if command == "--version":
        print(f"chargpt {chargpt_lib.__version__}")
        return 0
    if command not in COMMANDS:
        return _unknown_command(command)
    try:
        code = _dispatch(command, arguments[1:])
        sys.stdout.flush()  # here, where a pipe that nobody reads any more can still be handled
        return code
    except SystemExit as ended:  # by tyro, which has printed why
        return ended.code
    except BrokenPipeError:
        # Whoever reads our output has enough, as in `chargpt sample ... | head`. No training comes
        # here: it goes on without a reader.
        discard_output()
        return 0
    except ModuleNotFoundError as error:
        return _fail(command, _explain_missing(command, error))
    except (OSError, ValueError, ImportError) as error:
        return _fail(command, error)
    except FloatingPointError as error:
        return _fail(command, error, code=1)
    except KeyboardInterrupt:
        message = "\ninterrupted"
        if command == "grade":
            message += "; what was graded is kept, and the same command goes on from there"
        print_error(message)
        return 130
