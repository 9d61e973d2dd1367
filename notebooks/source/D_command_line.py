# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # D · The command line
#
# You will build: the command `chargpt`, with seven words: `train`, `eval`, `sample`, `attend`, `info`, `check`, `grade`.
# You need [C · Runs](C_runs.ipynb), and the library tyro: `%pip install tyro` where it is missing, as on Colab and Kaggle. For the two words of teachers, the page C · Grading. On two CPU cores the page takes a quarter of a minute.
#
# A notebook is for understanding. Whoever wants five models by tomorrow wants a line that can be repeated:
#
#     chargpt train --preset cpu --corpus shakespeare --n-layer 6 --out runs/deeper

# %%
#| default_exp command_line

# %%
#| export
import os
import secrets
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import chargpt_lib

WORDS = {"train": "train a model on a text, and keep it in a folder; or go on training it",
         "eval": "its exact loss, bits per character, perplexity",
         "sample": "let it write",
         "attend": "a page with its attention maps, to click through",
         "info": "sizes and FLOPs of a model or preset; this machine's device",
         "check": "grade your own notebook (Linux, macOS, WSL)",
         "grade": "grade a class (the same systems)"}
USAGE = f"""usage: chargpt WORD ...    (chargpt WORD --help tells its options)

{chr(10).join(f"  {word:8}{what}" for word, what in WORDS.items())}

  chargpt train --preset cpu --corpus playhouse     from nothing to a play, in three minutes
  chargpt sample runs/playhouse-cpu --prompt "O damp goose!"
""".rstrip()

# %%
print(USAGE)

# %% [markdown]
# ## Options
#
# A word's options are a dataclass. A field without a default is given by its place, any other by its name: `folder` and `--top-k`. The comments are the help. Those of `train` are made of the configs' own fields ([C · Presets](C_presets.ipynb)).

# %%
#| export
@dataclass
class Trained:
    folder: Path  # of a run, a checkpoint in it, or a saved model


@dataclass
class Eval(Trained):
    """The exact loss over a text, each character asked for once."""

    corpus: str | None = None  # as for train; without, the run's own
    split: Literal["val", "train"] = "val"  # which part of the corpus
    estimate: int | None = None  # so many batches of random windows besides, as nanoGPT does it; 200 there
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

# %%
#| export
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
    out: Path | None = None  # folder for grades.csv, grades.json and the feedback; it has to be given
    lesson: str | None = None  # 03, single_head or 03_single_head; without, what most of the notebooks are
    weights: Path | None = None  # a TOML file with lines like `window_mask = 2`
    seed: int | None = None  # repeat the grading that had this seed (see grades.json)
    jobs: int | None = None  # so many at a time; without, one for each core, at most 8

# %% [markdown]
# ## Grading
#
# `chargpt grade` is for teachers. `chargpt check` is for a learner who wants to know what a grader would say to her notebook: the same examination, of one file. (On Windows both need WSL. The function `check` in a notebook needs nothing.)

# %%
#| export
def grade_command(options):
    """Grades, prints the class at a glance -> the exit code."""
    from chargpt_lib.checks import load_keys
    from chargpt_lib.grading import chosen_lesson, grade_batch
    from chargpt_lib.sandbox import lesson_names

    load_keys()
    lesson = chosen_lesson(options.lesson) if options.lesson else None
    if options.out is None:
        raise ValueError("--out is missing: name a folder for the grades")
    if options.jobs is not None and options.jobs < 1:
        raise ValueError(f"--jobs is {options.jobs}: it is a whole number from 1 on")
    batch = grade_batch(options.submissions, options.out, lesson, options.weights, options.seed, options.jobs)
    for name, record in batch["submissions"].items():
        print(f"{record['score']:>5.0f}%  {' '.join(record['marks'].values())}  {name}")
        for problem in record["problems"]:
            print(f"        {problem}")
    if batch["older"]:
        print(f"\n{options.out} keeps {batch['older']} older record(s) besides; a table without them needs a new --out")
    locks = [record["locked"] for record in batch["submissions"].values() if record["locked"]]
    if open_doors := sorted({what for lock in locks for what, shut in lock.items() if not shut}):
        print(f"\nnot locked by the system on this machine, only guarded by Python: {', '.join(open_doors)}")
    called = f"lesson {lesson_names()[batch['lesson']]}, seed {batch['seed']}"
    print(f"\n{options.out / 'grades.csv'}, grades.json, feedback/   ({called})")
    return 0 if all(record["ran"] for record in batch["submissions"].values()) else 1

# %%
#| export
def check_command(options):
    """Grades one notebook, prints its verdicts -> the exit code."""
    from chargpt_lib.checks import load_keys
    from chargpt_lib.examination import grade
    from chargpt_lib.grading import chosen_lesson, find_submissions, likely_lesson

    load_keys()
    path, *others = find_submissions([options.notebook])
    if others:
        raise ValueError(f"check takes one notebook, and {options.notebook} holds {1 + len(others)}")
    lesson = chosen_lesson(options.lesson) if options.lesson else likely_lesson([path])
    record = grade(path, lesson, secrets.randbits(31))
    for name, mark in record["marks"].items():
        print(f"{mark} {name}" + f": {record['hints'][name]}" * (mark != "✓"))
    for problem in record["problems"]:
        print(problem)
    return 0 if set(record["marks"].values()) == {"✓"} else 1

# %% [markdown]
# ## The command
#
# PyTorch takes seconds to load. Who only mistyped a word shall not wait for it, so it is loaded when a word has been understood: every command imports what it needs. (`train` is the exception. Its options are the fields of the configs, and these live beside PyTorch.)
#
# The exit code is for scripts. 0: all went well (for `check`: all right). 1: some submissions could not be graded (for `check`: not all right; for `train`: the loss is no number any more). 2: what was asked for cannot be done. 130: interrupted.

# %%
#| export
OPTIONS = {"eval": Eval, "sample": Sample, "attend": Attend, "info": Info, "check": Check, "grade": Grade}


def obey(word, arguments):
    """Reads the options of a word, does it -> the exit code."""
    import tyro

    if word == "train":
        from chargpt_lib.presets import read_train_options
        options = read_train_options(arguments)
    else:
        options = tyro.cli(OPTIONS[word], prog=f"chargpt {word}", args=arguments,
                           config=(tyro.conf.PositionalRequiredArgs, tyro.conf.UseAppendAction))
    if word in ("check", "grade"):
        return {"check": check_command, "grade": grade_command}[word](options)
    from chargpt_lib.runs import attend_command, eval_command, info_command, sample_command, train_command
    return {"train": train_command, "eval": eval_command, "sample": sample_command, "attend": attend_command,
            "info": info_command}[word](options)


def complain(word, problem):
    print(f"chargpt{word and ' ' + word}: {problem}", file=sys.stderr)
    return 2

# %%
#| export
def main(arguments=None):
    """The command `chargpt` -> its exit code."""
    word, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if word in ("-h", "--help", "--version"):
        print(f"chargpt {chargpt_lib.__version__}" if word == "--version" else USAGE)
        return 0
    if word not in WORDS:
        near = get_close_matches(word, WORDS, 1)
        return complain("", f"there is no {word!r}; " + (f"did you mean {near[0]}?" if near else "chargpt --help"))
    try:
        code = obey(word, rest)
        sys.stdout.flush()
        return code
    except SystemExit as said:  # by tyro, with the reason
        return said.code
    except BrokenPipeError:  # whoever reads our output has enough, as in `chargpt sample ... | head`
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
        kept = "; what was graded is kept, and the same command goes on from there" * (word == "grade")
        print(f"\ninterrupted{kept}", file=sys.stderr)
        return 130


if __name__ == "__main__" and __spec__:  # python -m chargpt_lib.command_line; a notebook is "__main__", too
    sys.exit(main())

# %% [markdown]
# ## A day with it
#
# What can be asked for, and what cannot. (The complaints themselves go to the error output, as complaints should.)

# %%
print(main(["--version"]), main(["trian"]), main(["sample", "nowhere"]), main(["grade", "nowhere", "--out", "marks"]))

# %% [markdown]
# A tiny run of 40 steps, in a folder of our own. What it prints is loss and speed of this machine.

# %%
import json
import tempfile

tiny = ["--n-layer", "1", "--n-head", "2", "--n-embd", "32", "--block-size", "32"]

# %% tags=["nbval-ignore-output"]
home = Path(tempfile.mkdtemp())
run = str(home / "tiny")
code = main(["train", *tiny, "--steps", "40", "--eval-batches", "5", "--device", "cpu", "--out", run])

# %%
assert code == 0
print((home / "tiny" / "settings.toml").read_text()[:160])

# %% [markdown]
# All that is needed to repeat it is in that file: `chargpt train --config .../settings.toml --out another`. And to go on with it, the folder is enough. Another 20 steps; then, because more steps are the same run and another width is another one, a contradiction.

# %% tags=["nbval-ignore-output"]
resume = ["train", "--resume", "--out", run, "--device", "cpu"]
codes = main([*resume, "--steps", "60"]), main([*resume, "--n-embd", "64"])

# %%
assert codes == (0, 2)
rows = [json.loads(line) for line in (home / "tiny" / "log.jsonl").read_text().splitlines()]
print("evaluated after steps", [row["step"] for row in rows])

# %% [markdown]
# What does the likeliest character lead to, always taken? **Predict**, for a model that has seen 60 batches.

# %% tags=["nbval-ignore-output"]
codes = [main(["sample", run, "--prompt", "O damp ", "--temperature", "0", "--max-new-tokens", "40"]),
         main(["attend", run, "--out", str(home / "maps.html")]), main(["info", run])]

# %%
assert codes == [0, 0, 0]
print("the page ends with", (home / "maps.html").read_text(encoding="utf-8").strip()[-7:])

# %% [markdown]
# ## Mistakes people make
#
# - *`--prompt "ROMEO:\n"`, and an error about a backslash.* The shell hands over a backslash and an n. In bash, `$'ROMEO:\n'` is a real line end.
# - *A prompt that begins with a dash is taken for an option.* `--prompt="--"`.
# - *Ctrl-C pressed twice.* Once is enough: the step is finished, the checkpoint written, and the line printed that goes on. The second press does not wait for that, and what is kept is the checkpoint before.
# - *The text of a run was moved, and the run does not go on.* Its path stands in `settings.toml`; change it there.
# - *Two runs into one folder.* Refused. Nothing that has been trained is ever written over.
#
# ## What you have
#
# `main`, in `chargpt_lib/command_line.py`; installed with the library it is called `chargpt`.
