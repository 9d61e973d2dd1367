# Made from notebooks/source/09_checkpoints.py by notebooks/tools/build.py. Edit that text, not this file.
"""Checkpoints: safe, atomic, and resumed exactly."""

import json
import os
import random
import re
import shutil
from dataclasses import asdict, fields
from pathlib import Path

import numpy
import torch
from safetensors.torch import load_file
from safetensors.torch import save_model as save_weights
from torch.serialization import get_unsafe_globals_in_checkpoint

from chargpt_lib.data import load_tokenizer
from chargpt_lib.files import atomic_write, sync_folder, write_json
from chargpt_lib.gpt import GPT, GPTConfig

__all__ = [
    "get_rng_states",
    "set_rng_states",
    "POINTER_FILE",
    "WRAPPERS",
    "save_model",
    "ADVICE",
    "read_config_and_tokenizer",
    "load_weights",
    "CHECKPOINT_NAME",
    "checkpoint_step",
    "find_checkpoint",
    "min_parameters",
    "load_model",
    "save_checkpoint",
    "read_state",
    "load_checkpoint",
]


def get_rng_states(*generators):
    """The states of all random generators, as a dict: torch's on each device, Python's, numpy's, and of these ones."""
    name, numbers, *rest = numpy.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [name, numbers.tolist(), *rest],  # plain values: no array, whose loading runs code
        "generators": [generator.get_state() for generator in generators],
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_rng_states(states, *generators):
    """Puts every random generator back into its saved state; those of devices that are absent here are left out.

    generators: all that `get_rng_states` was given, in the same order. Raises: ValueError where it was given more or
    fewer.
    """
    if len(generators) != len(states["generators"]):
        raise ValueError(
            f"{len(states['generators'])} generators were saved, and {len(generators)} are given: give "
            f"all that get_rng_states was given, in the same order"
        )
    for generator, state in zip(generators, states["generators"]):
        generator.set_state(state)
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    numpy.random.set_state(states["numpy"])
    # A run may resume on a computer with fewer cards, or with none.
    for device, state in enumerate(states.get("cuda", [])[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])


POINTER_FILE = "checkpoints.json"  # in the folder of a run: see below

# The attributes in which torch.compile and DistributedDataParallel keep the model they wrap. The names of its weights
# begin with them, too: _orig_mod.lm_head.weight.
WRAPPERS = ("_orig_mod", "module")


def _unwrap(model):
    """The model itself, where it is compiled, or wrapped for several processes, or both."""
    for wrapper in (*WRAPPERS, *WRAPPERS):
        model = getattr(model, wrapper, model)
    return model


def _model_spec(model, tokenizer):
    """What must be known to build both again -> the settings of the model's GPTConfig, and of the tokenizer: dicts.

    Raises: ValueError for a model without a GPTConfig or without some of its weights, and for a tokenizer with
    another vocabulary than the model.
    """
    if not isinstance(getattr(model, "config", None), GPTConfig):
        raise ValueError(
            f"{type(model).__name__} has no GPTConfig as .config, so it cannot be saved: only GPT "
            f"models can"
        )
    if model.config.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            f"the tokenizer has vocab_size {tokenizer.vocab_size}, the model {model.vocab_size}: "
            f"pass the tokenizer the model was trained with"
        )
    with torch.device("meta"):  # names and shapes, no numbers
        expected = GPT(model.config).state_dict()
    missing = expected.keys() - model.state_dict().keys()
    if missing:
        raise ValueError(
            f"the model has no {min(missing)}: a copy prepared for int8 cannot be saved, save the "
            f"model it was made from"
        )
    return asdict(model.config), tokenizer.to_dict()


def save_model(model, tokenizer, folder):
    """Writes what is needed to sample: config.json, tokenizer.json, model.safetensors.

    A model that was saved in the folder before is replaced.

    Raises: ValueError for what could not be built again, FileExistsError for the folder of a run, OSError where a file
    cannot be written.
    """
    folder = Path(folder)
    if (folder / POINTER_FILE).exists():
        raise FileExistsError(
            f"{folder} has the checkpoints of a run, which load_model would no longer find: choose "
            f"another folder"
        )
    model = _unwrap(model)
    config, _ = _model_spec(model, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    tokenizer.save(folder / "tokenizer.json")
    atomic_write(folder / "model.safetensors", lambda path: save_weights(model, str(path)))


ADVICE = "Copy the file again from where it came from, or take another checkpoint"


def _corrupt(path, why):
    """The ValueError for a file that is not what it should be."""
    return ValueError(f"{path}: {why}. {ADVICE}")


def _load_json(path):
    """The value in a JSON file. Raises: ValueError for anything else, and where there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _corrupt(path, error) from None


def _read_config(path):
    """The GPTConfig in a config.json. Raises: ValueError for anything else."""
    settings = _load_json(path)
    if not isinstance(settings, dict):
        raise _corrupt(
            path, f"expected a JSON object of GPTConfig fields, got {repr(settings)[:60]}"
        )
    kinds = {field.name: field.type for field in fields(GPTConfig)}
    for name, value in settings.items():
        if name not in kinds:
            raise _corrupt(path, f"{name[:60]!r} is not a GPTConfig field")
        kind = kinds[name]
        allowed = (float, int) if kind is float else (kind,)
        if type(value) not in allowed:  # not isinstance, for which True is a number
            raise _corrupt(
                path, f"{name} is {repr(value)[:60]}, but must be of type {kind.__name__}"
            )
    try:
        return GPTConfig(**settings)
    except (TypeError, ValueError) as error:
        raise _corrupt(path, error) from None


def read_config_and_tokenizer(folder):
    """The GPTConfig and the tokenizer of a saved model. Raises: ValueError where one is missing or they do not fit."""
    config = _read_config(folder / "config.json")
    try:
        tokenizer = load_tokenizer(folder)
    except (OSError, ValueError) as error:  # both name the file
        raise ValueError(f"{error}. {ADVICE}") from None
    if tokenizer.vocab_size != config.vocab_size:
        raise _corrupt(
            folder / "config.json",
            f"vocab_size is {config.vocab_size}, but the tokenizer's is {tokenizer.vocab_size}",
        )
    return config, tokenizer


def _without_wrappers(name):
    """The name of a weight as the model itself has it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def load_weights(model, path):
    """Loads a safetensors file into the model. It may have been saved from a compiled or DDP-wrapped model.

    Raises: ValueError where a name, a shape or a dtype does not fit; the model is then unchanged.
    """
    try:
        saved = load_file(path)
    except Exception as error:  # a hostile header has many ways to fail
        raise _corrupt(path, error) from None
    saved = {_without_wrappers(name): weight for name, weight in saved.items()}
    own = model.state_dict()
    for name in sorted(saved.keys() - own.keys()):
        raise _corrupt(path, f"unexpected weight {name}")
    # A tied matrix has two names and one place in memory; only one of the names is in the file.
    loaded = {own[name].data_ptr() for name in saved}
    for name, here in own.items():
        if name not in saved:
            if here.data_ptr() not in loaded:
                raise _corrupt(path, f"missing weight {name}")
            continue
        there = saved[name]
        # Fewer digits are read into more, never more into fewer: that would lose some in silence.
        fits = torch.promote_types(there.dtype, here.dtype) == here.dtype
        if there.shape != here.shape or not fits:
            raise _corrupt(
                path,
                f"{name} has shape {[*there.shape]} ({there.dtype}), expected {[*here.shape]} "
                f"({here.dtype})",
            )
    # strict=False, because the second name of a tied matrix is not in the file; all else was compared above.
    model.load_state_dict(saved, strict=False)


CHECKPOINT_NAME = r"step-(\d{8,})(-again)*"  # eight digits so that names sort by step; a run of 10^8 steps has more


def checkpoint_step(folder):
    """After how many steps a checkpoint was saved, by its folder's name. Raises: ValueError for another name."""
    match = re.fullmatch(CHECKPOINT_NAME, Path(folder).name)
    if match is None:
        raise ValueError(
            f"{folder} is not a checkpoint folder (expected a name like step-00000100)"
        )
    return int(match[1])


def _read_pointers(out):
    """{"last": a checkpoint's name, "best": another or the same} of a run; {} where none was saved.

    Raises: ValueError where checkpoints.json says anything else.
    """
    path = out / POINTER_FILE
    if not path.exists():
        return {}
    names = _load_json(path)
    right = isinstance(names, dict) and names.keys() <= {"last", "best"}
    # The names become paths: a whole match of the pattern keeps "../.." out.
    if not right or not all(re.fullmatch(CHECKPOINT_NAME, str(name)) for name in names.values()):
        raise ValueError(
            f'{path} is damaged: write into it which one is the last, as in {{"last": "step-00000100"}}'
        )
    return names


def find_checkpoint(out, which=None):
    """The folder of a run's "last" or "best" checkpoint; which=None: the best if there is one, else the last.

    Raises: FileNotFoundError where there is none.
    """
    out = Path(out)
    if not out.is_dir():
        problem = "does not exist: is it the right folder?"
        if out.exists():
            problem = "is a file: give the folder it is in"
        raise FileNotFoundError(f"{out} {problem}")
    if (out / "state.pt").is_file():
        return out  # a checkpoint itself, whatever its name
    names = _read_pointers(out)
    if which is None:
        which = "best" if "best" in names else "last"
    if which not in names or not (out / names[which]).is_dir():
        # What is there often tells the mistake; nine names, because it may be a folder of thousands.
        found = sorted(path.name for path in out.glob("*"))[:9]
        inside = ", ".join(found) if found else "nothing: is it the right folder?"
        raise FileNotFoundError(f"there is no {which!r} checkpoint in {out}, which holds {inside}")
    return out / names[which]


def min_parameters(config):
    """The parameters in a GPT's large matrices and tables: the model has these and a few more."""
    blocks = 12 * config.n_layer * config.n_embd**2
    return blocks + (config.vocab_size + config.block_size) * config.n_embd


def load_model(folder, device="cpu"):
    """A GPT ready to sample, and its tokenizer, from a saved model, a checkpoint, or a run (its best, else its last).

    No random generator is touched. Raises: ValueError for files that do not fit, FileNotFoundError where nothing is
    found.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        folder = find_checkpoint(folder)
    config, tokenizer = read_config_and_tokenizer(folder)
    path = folder / "model.safetensors"
    # A weight has at least one byte. Asked before a GPT of that size is built.
    least = min_parameters(config)
    if path.is_file() and path.stat().st_size < least:
        raise _corrupt(
            path, f"it is too short for the {least:,} parameters that config.json asks for"
        )
    with torch.random.fork_rng(devices=[]):  # the model's initial weights are drawn and thrown away
        model = GPT(config)
    load_weights(model, path)
    return model.to(device).eval(), tokenizer


def save_checkpoint(out, model, tokenizer, state, step, best=False):
    """Saves a run after `step` steps as its last checkpoint, and as its best one if best=True -> its folder.

    out: the run's own folder; every checkpoint in it but the last and the best is deleted. state: a dict of plain
    values, tensors and state_dicts.

    Raises: ValueError for a state that load_checkpoint would refuse, OSError where it cannot be written; the
    checkpoints before it are then untouched.
    """
    if step < 0:
        raise ValueError(f"step is {step}; it counts the steps done, from 0")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    names = _read_pointers(out)
    for left in out.glob("step-*.part"):  # of a run that was killed while saving
        shutil.rmtree(left, ignore_errors=True)
    name = f"step-{step:08d}"
    while (out / name).exists():  # saved twice, or left by a run that was killed before the pointer
        name += "-again"
    temporary = out / f"{name}.part"
    try:
        save_model(model, tokenizer, temporary)
        atomic_write(temporary / "state.pt", lambda path: torch.save({**state, "step": step}, path))
        # torch.save takes anything. That loading refuses it would come to light after the accident.
        unsafe = get_unsafe_globals_in_checkpoint(temporary / "state.pt")
        if unsafe:
            raise ValueError(
                f"the state contains {', '.join(unsafe)}, which torch.load(weights_only=True) "
                f"refuses: store only numbers, strings, tensors, lists and dicts (NumPy numbers as "
                f"float(x))"
            )
        os.rename(temporary, out / name)
        sync_folder(out)
        # The folder is whole, and nothing points to it yet. With this file it counts.
        names["last"] = name
        if best:
            names["best"] = name
        write_json(out / POINTER_FILE, names)
    finally:
        # After a failure the pointer is the old one, and nothing new is left.
        shutil.rmtree(temporary, ignore_errors=True)
        if name not in _read_pointers(out).values():
            shutil.rmtree(out / name, ignore_errors=True)
    # Only now, and only what has exactly our names: other folders are not ours to delete.
    for old in out.glob("step-*"):
        if re.fullmatch(CHECKPOINT_NAME, old.name) and old.name not in names.values():
            shutil.rmtree(old, ignore_errors=True)
    return out / name


def _tokenizer_difference(saved, tokenizer):
    """The first difference of two tokenizers in words, None where they are the same."""
    if saved.to_dict() == tokenizer.to_dict():
        return None
    for i in range(min(saved.vocab_size, tokenizer.vocab_size)):
        there, here = saved.decode([i]), tokenizer.decode([i])
        if there != here:
            return f"the tokenizer's id {i} is {there!r} there, {here!r} here"
    return "the tokenizer is another one"


def read_state(folder, mmap=False):
    """The state that was saved in a checkpoint's folder, with "step". mmap: its tensors stay on the disk until used.

    Raises: ValueError where the file is missing, damaged, or would have to be unpickled.
    """
    path = Path(folder) / "state.pt"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a hostile or broken file has many ways to fail
        # PyTorch's message goes on with the advice to unpickle all the same: only its first sentence.
        why = str(error).split("WeightsUnpickler error: ")[-1]
        why = re.split(r"\. |\n", why)[0]
        raise _corrupt(path, f"{type(error).__name__}, {why[:200]}") from None
    if not isinstance(state, dict) or "step" not in state:
        raise _corrupt(path, "it does not contain a training state")
    return state


def load_checkpoint(out, model, tokenizer, which="last"):
    """Fills the model from a run's last or best checkpoint (or out, if it is one) -> the saved state, with "step".

    Raises: ValueError where model, tokenizer or files do not fit, with the model unchanged; FileNotFoundError where
    there is no checkpoint.
    """
    folder = find_checkpoint(Path(out), which)
    model = _unwrap(model)
    saved_config, saved_tokenizer = read_config_and_tokenizer(folder)
    config, _ = _model_spec(model, tokenizer)
    differences = []
    for name, value in asdict(saved_config).items():
        if value != config[name]:
            differences.append(f"{name} is {value} there, {config[name]} here")
    other_tokenizer = _tokenizer_difference(saved_tokenizer, tokenizer)
    if other_tokenizer:
        differences.append(other_tokenizer)
    if differences:
        raise ValueError(
            f"{folder} is of another model: {', '.join(differences)}. Build the model with its settings "
            f"and its tokenizer, or begin a new run in another folder"
        )
    # The state before the weights: whatever fails must fail before the model is changed.
    state = read_state(folder)
    load_weights(model, folder / "model.safetensors")
    return state
