# Made from notebooks/source/09_checkpoints.py by notebooks/tools/build.py. Edit that text, not this file.
"""Checkpoints: safe, atomic, and resumed exactly."""

import os
import random
import re
import shutil
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import numpy
import torch
from safetensors.torch import load_file
from safetensors.torch import save_model as save_weights

from chargpt_lib.checks import (
    ADVICE,
    check_is_folder,
    check_loadable,
    check_no_weight_is_missing,
    check_same_model,
    check_saved_model,
    check_weights,
    corrupt_file,
    missing_checkpoint,
    read_config,
    read_pointers,
    unreadable_state,
)
from chargpt_lib.data import load_tokenizer
from chargpt_lib.devices import meta_device
from chargpt_lib.files import atomic_write, sync_folder, write_json

__all__ = [
    "get_rng_states",
    "set_rng_states",
    "POINTER_FILE",
    "WRAPPERS",
    "MODEL_TYPES",
    "model_classes",
    "build_model",
    "build_meta_model",
    "unwrap",
    "model_spec",
    "save_model",
    "read_config_and_tokenizer",
    "without_wrappers",
    "load_weights",
    "CHECKPOINT_NAME",
    "checkpoint_step",
    "find_checkpoint",
    "load_model",
    "save_checkpoint",
    "read_state",
    "load_checkpoint",
]


def get_rng_states(*generators):
    """The states of all random generators as a dict: torch's on each device, Python's, numpy's, and the given ones."""
    name, numbers, *rest = numpy.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [name, numbers.tolist(), *rest],  # a list, because loading an array runs code
        "generators": [generator.get_state() for generator in generators],
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_rng_states(states, *generators):
    """Puts every random generator back into its saved state, except those of devices that this computer lacks.

    generators: those that were passed to `get_rng_states`, in the same order. Raises: ValueError for another number of
    them.
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

# torch.compile and DistributedDataParallel keep the model that they wrap in these attributes. The names of the weights
# then begin with them: _orig_mod.lm_head.weight.
WRAPPERS = ("_orig_mod", "module")

# The kinds of models that can be saved: "model_type" in config.json -> the module, the class of the config, the class
# of the model. A later lesson's module is imported when one of its models is saved or loaded.
MODEL_TYPES = {
    "gpt": ("chargpt_lib.gpt", "GPTConfig", "GPT"),
    "modern": ("chargpt_lib.modern", "ModernConfig", "ModernGPT"),
}


def model_classes(model_type):
    """The classes of the config and of the model that belong to one of MODEL_TYPES."""
    module_name, config_name, model_name = MODEL_TYPES[model_type]
    module = import_module(module_name)
    return getattr(module, config_name), getattr(module, model_name)


def build_model(config):
    """The model that a config describes, with its initial weights."""
    _, model_class = model_classes(config.model_type)
    return model_class(config)


def build_meta_model(config):
    """The model that a config describes, on the device meta: its weights have names and shapes, and no numbers."""
    with meta_device():
        return build_model(config)


def unwrap(model):
    """The model inside the wrappers of torch.compile and of several processes; an unwrapped model itself."""
    for wrapper in (*WRAPPERS, *WRAPPERS):
        model = getattr(model, wrapper, model)
    return model


def model_spec(model, tokenizer):
    """All that is needed to build both again -> the settings of the model and those of the tokenizer: dicts.

    Raises: ValueError for a model of none of the MODEL_TYPES or with a weight missing, and for a tokenizer with another
    vocabulary than the model.
    """
    check_saved_model(model, tokenizer, MODEL_TYPES)
    check_no_weight_is_missing(model, build_meta_model(model.config).state_dict().keys())
    return {"model_type": model.config.model_type, **asdict(model.config)}, tokenizer.to_dict()


def save_model(model, tokenizer, folder):
    """Writes the files that sampling needs: config.json, tokenizer.json, model.safetensors.

    An older model in the same folder is replaced.

    Raises: ValueError for a model that could not be built again, FileExistsError for the folder of a run, OSError where
    a file cannot be written.
    """
    folder = Path(folder)
    if (folder / POINTER_FILE).exists():
        raise FileExistsError(
            f"{folder} has the checkpoints of a run, which load_model would no longer find: choose "
            f"another folder"
        )
    model = unwrap(model)
    config, _ = model_spec(model, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    tokenizer.save(folder / "tokenizer.json")
    atomic_write(folder / "model.safetensors", lambda path: save_weights(model, str(path)))


def read_config_and_tokenizer(folder):
    """The config and the tokenizer of a saved model. Raises: ValueError where one is missing or they do not fit."""
    path = folder / "config.json"
    config = read_config(path, MODEL_TYPES, lambda model_type: model_classes(model_type)[0])
    try:
        tokenizer = load_tokenizer(folder)
    except (OSError, ValueError) as error:  # both name the file
        raise ValueError(f"{error}. {ADVICE}") from None
    if tokenizer.vocab_size != config.vocab_size:
        why = f"vocab_size is {config.vocab_size}, but the tokenizer's is {tokenizer.vocab_size}"
        raise corrupt_file(path, why)
    return config, tokenizer


def without_wrappers(name):
    """The name of a weight in the unwrapped model."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def load_weights(model, path):
    """Loads a safetensors file into the model; the file may come from a compiled or DDP-wrapped model.

    Raises: ValueError where a name, a shape or a dtype does not fit; the model is then unchanged.
    """
    try:
        saved = load_file(path)
    except Exception as error:  # a hostile header has many ways to fail
        raise corrupt_file(path, error) from None
    saved = {without_wrappers(name): weight for name, weight in saved.items()}
    check_weights(path, saved, model.state_dict())
    # strict=False, because the second name of a tied matrix is not in the file; check_weights has compared all else.
    model.load_state_dict(saved, strict=False)


CHECKPOINT_NAME = r"step-(\d{8,})(-again)*"  # eight digits so that names sort by step; a run of 10^8 steps has more


def checkpoint_step(folder):
    """The number of steps in the name of a checkpoint's folder. Raises: ValueError for another name."""
    match = re.fullmatch(CHECKPOINT_NAME, Path(folder).name)
    if match is None:
        raise ValueError(
            f"{folder} is not a checkpoint folder (expected a name like step-00000100)"
        )
    return int(match[1])


def _read_pointers(out):
    """The names of a run's checkpoints, {"last": ..., "best": ...}; {} for a run without a checkpoint."""
    return read_pointers(out / POINTER_FILE, CHECKPOINT_NAME)


def find_checkpoint(out, which=None):
    """The folder of a run's "last" or "best" checkpoint; which=None: the best if there is one, else the last.

    Raises: FileNotFoundError where there is none.
    """
    out = Path(out)
    check_is_folder(out)
    if (out / "state.pt").is_file():
        return out  # the folder is a checkpoint itself, whatever its name is
    names = _read_pointers(out)
    if which is None:
        which = "best" if "best" in names else "last"
    if which not in names or not (out / names[which]).is_dir():
        raise missing_checkpoint(out, which)
    return out / names[which]


def load_model(folder, device="cpu"):
    """Loads a saved model, a checkpoint, or a run (its best checkpoint, else its last) -> model, ready to sample, tokenizer.

    No random generator changes. Raises: ValueError for files that do not fit, FileNotFoundError where there is no model.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        folder = find_checkpoint(folder)
    config, tokenizer = read_config_and_tokenizer(folder)
    path = folder / "model.safetensors"
    # A weight has at least one byte. This comes before the model is built, because a false config may ask for a huge one.
    least = config.min_parameters()
    if path.is_file() and path.stat().st_size < least:
        raise corrupt_file(
            path, f"it is too short for the {least:,} parameters that config.json asks for"
        )
    with torch.random.fork_rng(devices=[]):  # the model's initial weights are drawn and thrown away
        model = build_model(config)
    load_weights(model, path)
    return model.to(device).eval(), tokenizer


def save_checkpoint(out, model, tokenizer, state, step, best=False):
    """Saves a run after `step` steps as its last checkpoint, with best=True as its best one, too -> its folder.

    out: the run's own folder, in which all checkpoints except the last and the best are deleted. state: a dict of plain
    values, tensors and state_dicts.

    Raises: ValueError for a state that load_checkpoint would refuse, OSError where the disk refuses; older checkpoints
    then stay as they were.
    """
    if step < 0:
        raise ValueError(f"step is {step}; it counts the steps done, from 0")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    names = _read_pointers(out)
    for left in out.glob("step-*.part"):  # left by a run that was killed while it saved
        shutil.rmtree(left, ignore_errors=True)
    name = f"step-{step:08d}"
    while (
        out / name
    ).exists():  # a second save of this step, or a run was killed before the pointer
        name += "-again"
    temporary = out / f"{name}.part"
    try:
        save_model(model, tokenizer, temporary)
        atomic_write(temporary / "state.pt", lambda path: torch.save({**state, "step": step}, path))
        # torch.save writes any object, and torch.load refuses some of them. Find out now, not after the accident.
        check_loadable(temporary / "state.pt")
        os.rename(temporary, out / name)
        sync_folder(out)
        # The folder is whole, but nothing points to it yet. The next file makes it the last checkpoint.
        names["last"] = name
        if best:
            names["best"] = name
        write_json(out / POINTER_FILE, names)
    finally:
        # After a failure the pointer still names the old checkpoint; remove the new folder.
        shutil.rmtree(temporary, ignore_errors=True)
        if name not in _read_pointers(out).values():
            shutil.rmtree(out / name, ignore_errors=True)
    # Delete old checkpoints last, and only folders with exactly such a name: others are not ours.
    for old in out.glob("step-*"):
        if re.fullmatch(CHECKPOINT_NAME, old.name) and old.name not in names.values():
            shutil.rmtree(old, ignore_errors=True)
    return out / name


def read_state(folder, mmap=False):
    """Reads state.pt in a checkpoint's folder -> the saved dict, with "step". mmap: tensors stay on the disk until used.

    Raises: ValueError where the file is missing or damaged, or where only unpickling could read it.
    """
    path = Path(folder) / "state.pt"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a hostile or broken file has many ways to fail
        raise unreadable_state(path, error) from None
    if not isinstance(state, dict) or "step" not in state:
        raise corrupt_file(path, "it does not contain a training state")
    return state


def load_checkpoint(out, model, tokenizer, which="last"):
    """Loads the weights of a run's last or best checkpoint into the model -> the saved state, with "step".

    out: the folder of the run, or of one checkpoint. Raises: ValueError where model, tokenizer or files do not fit, and
    the model stays as it was; FileNotFoundError where there is no checkpoint.
    """
    folder = find_checkpoint(Path(out), which)
    model = unwrap(model)
    saved_config, saved_tokenizer = read_config_and_tokenizer(folder)
    config, _ = model_spec(model, tokenizer)
    saved_settings = {"model_type": saved_config.model_type, **asdict(saved_config)}
    check_same_model(folder, saved_settings, saved_tokenizer, config, tokenizer)
    # The state comes before the weights, because every failure must come before the model changes.
    state = read_state(folder)
    load_weights(model, folder / "model.safetensors")
    return state
