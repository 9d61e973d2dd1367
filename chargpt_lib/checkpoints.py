# Made from notebooks/source/09_checkpoints.py by notebooks/tools/build.py. Edit that text, not this file.
"""Checkpoints: safe, atomic, and resumed exactly."""

import json
import os
import random
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path

import numpy
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save_model as write_weights
from torch.serialization import get_unsafe_globals_in_checkpoint

from chargpt_lib.data import CharTokenizer
from chargpt_lib.gpt import GPT, GPTConfig

__all__ = [
    "random_states",
    "restore_random_states",
    "flush",
    "put",
    "put_json",
    "described",
    "save_model",
    "damaged",
    "load_json",
    "read_description",
    "fill",
    "POINTER",
    "NAME",
    "pointers",
    "find",
    "load_model",
    "save_checkpoint",
    "load_checkpoint",
]


def random_states(*generators):
    """How the dice lie: torch's on each device, Python's, numpy's, and those of these generators -> dict."""
    name, numbers, *rest = numpy.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [name, numbers.tolist(), *rest],
        "generators": [generator.get_state() for generator in generators],
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states, *generators):
    """Lays the dice as they lay; generators: all that `random_states` was given. Dice of absent devices stay out."""
    if len(generators) != len(states["generators"]):
        raise ValueError(
            f"{len(states['generators'])} generators were saved, and {len(generators)} are given: give "
            f"all that random_states was given, in the same order"
        )
    for generator, state in zip(generators, states["generators"]):
        generator.set_state(state)
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    numpy.random.set_state(states["numpy"])
    for device, state in enumerate(states.get("cuda", [])[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])


def flush(folder):
    """Waits until the names in a folder are on the disk, where the system can do that (Windows cannot)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def put(path, write):
    """Calls write(a temporary path), waits for the disk, gives the file its name: never half a file. OSError."""
    temporary = Path(f"{path}.part")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush(temporary.parent)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise OSError(
            f"{path} could not be written ({error}): is the disk full? What was saved before is still there"
        )
    finally:
        temporary.unlink(missing_ok=True)


def put_json(path, value):
    put(path, lambda temporary: temporary.write_text(json.dumps(value, indent=1), encoding="utf-8"))


def described(model, tokenizer):
    """What must be known to build them again -> the settings of the model's GPTConfig, and the alphabet."""
    if not isinstance(getattr(model, "config", None), GPTConfig):
        raise ValueError(
            f"a {type(model).__name__} has no GPTConfig to build it from again: give a GPT"
        )
    if model.config.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} symbols, not {model.vocab_size}: give its own"
        )
    return asdict(model.config), tokenizer.alphabet


def save_model(folder, model, tokenizer):
    """Writes what is needed to sample: config.json, alphabet.json, model.safetensors. OSError where it cannot."""
    folder, model = (
        Path(folder),
        getattr(model, "_orig_mod", model),
    )  # torch.compile wraps the model
    settings, alphabet = described(model, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    put_json(folder / "config.json", settings)
    put_json(folder / "alphabet.json", alphabet)
    put(folder / "model.safetensors", lambda path: write_weights(model, str(path)))


def damaged(path, why):
    return ValueError(
        f"{path}: {why}. Copy the file again from where it came from, or take another checkpoint"
    )


def load_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from None


def read_description(folder):
    """The GPTConfig in config.json, and the text in alphabet.json. ValueError for anything else."""
    path, settings = folder / "config.json", load_json(folder / "config.json")
    kinds = {
        field.name: (float, int) if field.type is float else (field.type,)
        for field in fields(GPTConfig)
    }
    for name, value in settings.items() if isinstance(settings, dict) else [("it", settings)]:
        if type(value) not in kinds.get(name, ()):
            raise damaged(path, f"{name} is {str(value)[:60]!r}, and that is no setting of a GPT")
    try:
        config = GPTConfig(**settings)
    except (TypeError, ValueError) as error:
        raise damaged(path, error) from None
    path, alphabet = folder / "alphabet.json", load_json(folder / "alphabet.json")
    if (
        not isinstance(alphabet, str)
        or list(alphabet) != sorted(set(alphabet))
        or len(alphabet) != config.vocab_size
    ):
        raise damaged(
            path, f"this is no text of {config.vocab_size} different characters in their order"
        )
    return config, alphabet


def fill(model, path):
    """Puts the weights in a safetensors file into the model. ValueError where they do not fit; then none changes."""
    try:
        weights = load_file(path)
    except Exception as error:  # a hostile header has many ways to fail
        raise damaged(path, error) from None
    own = model.state_dict()
    filled = {
        own[name].data_ptr() for name in weights if name in own
    }  # a tied matrix has two names, and one is saved
    for name in sorted({*own, *weights}):
        if name not in own or name not in weights and own[name].data_ptr() not in filled:
            raise damaged(
                path, f"{name} is {'missing' if name in own else 'no weight of this model'}"
            )
        here, there = own[name], weights.get(name, own[name])
        if there.shape != here.shape or torch.promote_types(there.dtype, here.dtype) != here.dtype:
            raise damaged(
                path,
                f"{name} is {[*there.shape]} of {there.dtype}, not {[*here.shape]} of {here.dtype}",
            )
    model.load_state_dict(weights, strict=False)


POINTER, NAME = "checkpoints.json", r"step-\d{8,}(-again)*"


def pointers(out):
    """{"last": a checkpoint's name, "best": another or the same} of a run; {} where none was saved. ValueError."""
    path = out / POINTER
    names = load_json(path) if path.exists() else {}
    if (
        not isinstance(names, dict)
        or not set(names) <= {"last", "best"}
        or not all(re.fullmatch(NAME, str(name)) for name in names.values())
    ):
        raise ValueError(
            f'{path} is damaged: write into it which one is the last, as in {{"last": "step-00000100"}}'
        )
    return names


def find(out, which=None):
    """The folder of a run's "last" or "best" checkpoint; which=None: the best if there is one. FileNotFoundError."""
    if (out / "state.pt").is_file():
        return out  # a checkpoint itself
    names = pointers(out)
    which = which or ("best" if "best" in names else "last")
    if which not in names or not (out / names[which]).is_dir():
        inside = (
            ", ".join(sorted(path.name for path in out.glob("*"))[:9])
            or "nothing: is it the right folder?"
        )
        raise FileNotFoundError(f"there is no {which!r} checkpoint in {out}, which holds {inside}")
    return out / names[which]


def load_model(folder, device="cpu"):
    """A GPT ready to sample, and its tokenizer, from a saved model, a checkpoint, or a run (its best, else its last).

    ValueError for files that do not fit; FileNotFoundError where nothing is found. No dice are thrown.
    """
    folder = Path(folder) if Path(folder, "config.json").is_file() else find(Path(folder))
    (config, alphabet), path = read_description(folder), folder / "model.safetensors"
    least = (
        12 * config.n_layer * config.n_embd**2
        + (config.vocab_size + config.block_size) * config.n_embd
    )
    if path.is_file() and path.stat().st_size < least:
        raise damaged(
            path, f"it is too short for the {least:,} parameters that config.json asks for"
        )
    with torch.random.fork_rng(devices=[]):  # first weights are thrown, and nobody shall notice
        model = GPT(config)
    fill(model, path)
    return model.to(device).eval(), CharTokenizer(alphabet)


def save_checkpoint(out, model, tokenizer, state, step, best=False):
    """Saves a run after `step` steps as its last checkpoint, and its best one if so -> its folder.

    out: the run's own folder; every checkpoint in it but the last and the best is deleted. state: a dict of plain
    values, tensors and state_dicts. OSError where it cannot be written; the checkpoints before it are then untouched.
    """
    out, name = Path(out), f"step-{step:08d}"
    if step < 0:
        raise ValueError(f"step is {step}; it counts the steps done, from 0")
    out.mkdir(parents=True, exist_ok=True)
    names = pointers(out)
    for left in out.glob("step-*.part"):  # of a run that was killed while saving
        shutil.rmtree(left, ignore_errors=True)
    while (out / name).exists():
        name += "-again"
    temporary = out / f"{name}.part"
    try:
        save_model(temporary, model, tokenizer)
        put(temporary / "state.pt", lambda path: torch.save({**state, "step": step}, path))
        if unsafe := get_unsafe_globals_in_checkpoint(temporary / "state.pt"):
            raise ValueError(
                f"the state holds {', '.join(unsafe)}, and loading that would mean running what a file "
                f"says: give numbers, texts, tensors, lists and dicts (float(x) for numpy's numbers)"
            )
        os.rename(temporary, out / name)
        flush(out)
        names = {**names, "last": name, **({"best": name} if best else {})}
        put_json(out / POINTER, names)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if name not in pointers(out).values():
            shutil.rmtree(out / name, ignore_errors=True)
    for old in out.glob("step-*"):
        if re.fullmatch(NAME, old.name) and old.name not in names.values():
            shutil.rmtree(old, ignore_errors=True)
    return out / name


def load_checkpoint(out, model, tokenizer, which="last"):
    """Fills the model from a run's last or best checkpoint (or out, if it is one) -> the saved state, with "step".

    ValueError where model, alphabet or files do not fit, with the model unchanged; FileNotFoundError where none is.
    """
    folder, model = find(Path(out), which), getattr(model, "_orig_mod", model)
    (saved, there), (settings, alphabet) = read_description(folder), described(model, tokenizer)
    other = [
        f"{name} is {value} there, {settings[name]} here"
        for name, value in asdict(saved).items()
        if value != settings[name]
    ]
    if there != alphabet:
        only, new = (sorted(set(a) - set(b)) for a, b in ((there, alphabet), (alphabet, there)))
        other.append(f"the alphabet has {only} only there, {new} only here")
    if other:
        raise ValueError(
            f"{folder} is of another model: {', '.join(other)}. Build the model with its settings and its "
            f"alphabet, or begin a new run in another folder"
        )
    path = folder / "state.pt"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or broken file has many ways to fail
        why = re.split(r"\. |\n", str(error).split("WeightsUnpickler error: ")[-1])[
            0
        ]  # without its advice to unpickle
        raise damaged(path, f"{type(error).__name__}, {why[:200]}") from None
    if not isinstance(state, dict) or "step" not in state:
        raise damaged(path, "this is no state of a run")
    fill(model, folder / "model.safetensors")
    return state
