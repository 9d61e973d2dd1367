import os
import secrets
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import chargpt_lib

WORDS = {
    "train": "train a model on a text, and keep it in a folder; or go on training it",
    "eval": "its exact loss, bits per character, perplexity",
    "sample": "let it write",
    "attend": "a page with its attention maps, to click through",
    "info": "sizes and FLOPs of a model or preset; this machine's device",
    "check": "grade your own notebook (Linux, macOS, WSL)",
    "grade": "grade a class (the same systems)",
}
USAGE = f"""usage: chargpt WORD ...    (chargpt WORD --help tells its options)

{chr(10).join(f"  {word:8}{what}" for word, what in WORDS.items())}

  chargpt train --preset cpu --corpus playhouse     from nothing to a play, in three minutes
  chargpt sample runs/playhouse-cpu --prompt "O damp goose!"
""".rstrip()


@dataclass
class Trained:
    folder: Path  # of a run, a checkpoint in it, or a saved model


@dataclass
class Eval(Trained):
    """The exact loss over a text, each character asked for once."""

    corpus: str | None = None  # as for train; without, the run's own
    split: Literal["val", "train"] = "val"  # which part of the corpus
    estimate: int | None = (
        None  # so many batches of random windows besides, as nanoGPT does it; 200 there
    )
    device: str | None = None  # cpu, cuda, mps; without, the best one that works


@dataclass
class Sample(Trained):
    """Lets a model write. Nothing but its text goes to the standard output."""

    prompt: str = ""  # what it goes on from; without, the beginning of a line
    max_new_tokens: int = 500  # characters, at most
    temperature: float = 1.0  # below 1 safer, above 1 wilder; 0: always the likeliest character
    top_k: int | None = None  # only the k likeliest
    top_p: float | None = None  # only the fewest that hold this share
    min_p: float | None = None  # only those with this share of the likeliest one's probability
    repetition_penalty: float | None = None  # above 1: what was written becomes rarer
    stop: tuple[str, ...] = ()  # a text that ends it
    seed: int | None = None  # the same again; sample i has seed + i
    num_samples: int = 1  # one after the other, with a line of dashes between them
    device: str | None = None  # cpu, cuda, mps; without, the best one that works


@dataclass
class Attend(Trained):
    """Writes a page with the attention maps of a text: one file, for any browser, without a network."""

    prompt: str = "O damp goose!"  # the text that the model reads, at most a block
    out: Path = Path("attention.html")  # the page; one of this name is replaced
    device: str | None = None  # cpu, cuda, mps; without, the best one that works


@dataclass
class Info:
    """Sizes and FLOPs of runs or of a preset; the device, and what is installed."""

    folders: tuple[Path, ...]  # of runs, checkpoints, saved models; none: only this machine
    preset: str | None = None  # cpu, lecture, baby, oz, gpt2
    corpus: str = "playhouse"  # whose alphabet the preset gets
    device: str | None = None  # cpu, cuda, mps; without, the best one that works


@dataclass
class Check:
    """Grades one notebook, your own, as a teacher's grader would."""

    notebook: Path  # a lesson with your answers
    lesson: str | None = None  # 03, single_head or 03_single_head; without, what the notebook is


@dataclass
class Grade:
    """Grades a class."""

    submissions: tuple[Path, ...]  # notebooks, or folders of them
    out: Path | None = (
        None  # folder for grades.csv, grades.json and the feedback; it has to be given
    )
    lesson: str | None = (
        None  # 03, single_head or 03_single_head; without, what most of the notebooks are
    )
    weights: Path | None = None  # a TOML file with lines like `window_mask = 2`
    seed: int | None = None  # repeat the grading that had this seed (see grades.json)
    jobs: int | None = None  # so many at a time; without, one for each core, at most 8


def grade_command(options):
    """Grades, prints the class at a glance -> the exit code."""
    from chargpt_lib.course import page_of_module
    from chargpt_lib.exercises.judge import load_keys
    from chargpt_lib.grading.batch import grade_batch, resolve_lesson

    load_keys()
    lesson = resolve_lesson(options.lesson) if options.lesson else None
    if options.out is None:
        raise ValueError("--out is missing: name a folder for the grades")
    if options.jobs is not None and options.jobs < 1:
        raise ValueError(f"--jobs is {options.jobs}: it is a whole number from 1 on")
    batch = grade_batch(
        options.submissions, options.out, lesson, options.weights, options.seed, options.jobs
    )
    for name, record in batch["submissions"].items():
        print(f"{record['score']:>5.0f}%  {' '.join(record['marks'].values())}  {name}")
        for problem in record["problems"]:
            print(f"        {problem}")
    if batch["older"]:
        print(
            f"\n{options.out} keeps {batch['older']} older record(s) besides; a table without them needs a new --out"
        )
    not_isolated = set()
    for record in batch["submissions"].values():
        if record["isolation"] is not None:
            not_isolated.update(what for what, done in record["isolation"].items() if not done)
    if not_isolated:
        print(
            "\nnot isolated by the system on this machine, only by Python's audit hook: "
            f"{', '.join(sorted(not_isolated))}"
        )
    called = f"lesson {page_of_module(batch['lesson']).name}, seed {batch['seed']}"
    print(f"\n{options.out / 'grades.csv'}, grades.json, feedback/   ({called})")
    return 0 if all(record["ran"] for record in batch["submissions"].values()) else 1


def check_command(options):
    """Grades one notebook, prints its verdicts -> the exit code."""
    from chargpt_lib.exercises.judge import load_keys
    from chargpt_lib.grading.batch import find_submissions, guess_lesson, resolve_lesson
    from chargpt_lib.grading.submission import grade_submission

    load_keys()
    path, *others = find_submissions([options.notebook])
    if others:
        raise ValueError(
            f"check takes one notebook, and {options.notebook} holds {1 + len(others)}"
        )
    lesson = resolve_lesson(options.lesson) if options.lesson else guess_lesson([path])
    record = grade_submission(path, lesson, secrets.randbits(31))
    for name, mark in record["marks"].items():
        print(f"{mark} {name}" + f": {record['hints'][name]}" * (mark != "✓"))
    for problem in record["problems"]:
        print(problem)
    return 0 if set(record["marks"].values()) == {"✓"} else 1


OPTIONS = {
    "eval": Eval,
    "sample": Sample,
    "attend": Attend,
    "info": Info,
    "check": Check,
    "grade": Grade,
}


def obey(word, arguments):
    """Reads the options of a word, does it -> the exit code."""
    import tyro

    if word == "train":
        from chargpt_lib.cli.options import read_train_options

        options = read_train_options(arguments)
    else:
        options = tyro.cli(
            OPTIONS[word],
            prog=f"chargpt {word}",
            args=arguments,
            config=(tyro.conf.PositionalRequiredArgs, tyro.conf.UseAppendAction),
        )
    if word in ("check", "grade"):
        return {"check": check_command, "grade": grade_command}[word](options)
    from chargpt_lib.cli.commands import (
        attend_command,
        eval_command,
        info_command,
        sample_command,
        train_command,
    )

    return {
        "train": train_command,
        "eval": eval_command,
        "sample": sample_command,
        "attend": attend_command,
        "info": info_command,
    }[word](options)


def complain(word, problem):
    print(f"chargpt{word and ' ' + word}: {problem}", file=sys.stderr)
    return 2


def main(arguments=None):
    """The command `chargpt` -> its exit code."""
    word, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if word in ("-h", "--help", "--version"):
        print(f"chargpt {chargpt_lib.__version__}" if word == "--version" else USAGE)
        return 0
    if word not in WORDS:
        near = get_close_matches(word, WORDS, 1)
        return complain(
            "",
            f"there is no {word!r}; " + (f"did you mean {near[0]}?" if near else "chargpt --help"),
        )
    try:
        code = obey(word, rest)
        sys.stdout.flush()
        return code
    except SystemExit as said:  # by tyro, with the reason
        return said.code
    except (
        BrokenPipeError
    ):  # whoever reads our output has enough, as in `chargpt sample ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1 if word == "train" else 0
    except ModuleNotFoundError as error:
        return complain(word, f"{error.name} is missing: pip install {error.name}")
    except (OSError, ValueError, ImportError) as error:
        return complain(word, error)
    except FloatingPointError as error:
        complain(word, error)
        return 1
    except KeyboardInterrupt:
        kept = "; what was graded is kept, and the same command goes on from there" * (
            word == "grade"
        )
        print(f"\ninterrupted{kept}", file=sys.stderr)
        return 130
