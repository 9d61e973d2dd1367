# Made from notebooks/source/09_checkpoints.py by notebooks/tools/build.py. Edit that text, not this file.
"""Checkpoints: safe, atomic, and resumed exactly."""

import json
import os
import random
import re
import shutil
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path

import numpy
import torch
from safetensors.torch import load_file
from safetensors.torch import save_model as save_weights
from torch.overrides import TorchFunctionMode
from torch.serialization import get_unsafe_globals_in_checkpoint

from chargpt_lib.data import load_tokenizer
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
    "ADVICE",
    "corrupt_file",
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

# The kinds of models that can be saved: the "model_type" in a config.json -> the module, the class of the config, and
# that of the model. A later lesson's module is imported when one of its models is saved or loaded.
MODEL_TYPES = {
    "gpt": ("chargpt_lib.gpt", "GPTConfig", "GPT"),
    "modern": ("chargpt_lib.modern", "ModernConfig", "ModernGPT"),
}


def model_classes(model_type):
    """The class of the config, and that of the model, of one of MODEL_TYPES."""
    module_name, config_name, model_name = MODEL_TYPES[model_type]
    module = import_module(module_name)
    return getattr(module, config_name), getattr(module, model_name)


def build_model(config):
    """The model that a config describes, with its initial weights."""
    _, model_class = model_classes(config.model_type)
    return model_class(config)


class _SkipNormal(TorchFunctionMode):
    """Within it, `nn.init.normal_` draws nothing. On the device meta nothing can be drawn, and trying takes a second."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.init.normal_:
            return kwargs["tensor"]
        return func(*args, **({} if kwargs is None else kwargs))


def build_meta_model(config):
    """The model that a config describes on the device meta: names and shapes, and no numbers."""
    with torch.device("meta"), _SkipNormal():
        return build_model(config)


def unwrap(model):
    """The model itself, where it is compiled, or wrapped for several processes, or both."""
    for wrapper in (*WRAPPERS, *WRAPPERS):
        model = getattr(model, wrapper, model)
    return model


def model_spec(model, tokenizer):
    """What must be known to build both again -> the settings of the model's config, and of the tokenizer: dicts.

    Raises: ValueError for a model whose config is of none of the MODEL_TYPES or that lacks some of its weights, and for
    a tokenizer with another vocabulary than the model.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type not in MODEL_TYPES:
        raise ValueError(
            f"{type(model).__name__} has no GPTConfig or ModernConfig as .config, so it cannot be "
            f"saved: only their models can"
        )
    if model.config.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            f"the tokenizer has vocab_size {tokenizer.vocab_size}, the model {model.vocab_size}: "
            f"pass the tokenizer the model was trained with"
        )
    expected = build_meta_model(model.config).state_dict()
    missing = expected.keys() - model.state_dict().keys()
    if missing:
        raise ValueError(
            f"the model has no {min(missing)}: a copy prepared for int8 cannot be saved, save the "
            f"model it was made from"
        )
    return {"model_type": model_type, **asdict(model.config)}, tokenizer.to_dict()


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
    model = unwrap(model)
    config, _ = model_spec(model, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    tokenizer.save(folder / "tokenizer.json")
    atomic_write(folder / "model.safetensors", lambda path: save_weights(model, str(path)))


ADVICE = "Copy the file again from where it came from, or take another checkpoint"


def corrupt_file(path, why):
    """The ValueError for a file that is not what it should be."""
    return ValueError(f"{path}: {why}. {ADVICE}")


def _load_json(path):
    """The value in a JSON file. Raises: ValueError for anything else, and where there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise corrupt_file(path, error) from None


def _read_config(path):
    """The config in a config.json. Raises: ValueError for anything else."""
    settings = _load_json(path)
    if not isinstance(settings, dict):
        raise corrupt_file(
            path, f"expected a JSON object of GPTConfig fields, got {repr(settings)[:60]}"
        )
    # Files of the time when there was one kind of model do not say which it is.
    model_type = settings.pop("model_type", "gpt")
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        known = ", ".join(MODEL_TYPES)
        raise corrupt_file(path, f"model_type is {repr(model_type)[:60]}; it is one of {known}")
    config_class, _ = model_classes(model_type)
    kinds = {field.name: field.type for field in fields(config_class)}
    for name, value in settings.items():
        if name not in kinds:
            raise corrupt_file(path, f"{name[:60]!r} is not a {config_class.__name__} field")
        kind = kinds[name]
        allowed = (float, int) if kind is float else (kind,)
        if type(value) not in allowed:  # not isinstance, for which True is a number
            raise corrupt_file(
                path, f"{name} is {repr(value)[:60]}, but must be of type {kind.__name__}"
            )
    try:
        return config_class(**settings)
    except (TypeError, ValueError) as error:
        raise corrupt_file(path, error) from None


def read_config_and_tokenizer(folder):
    """The config and the tokenizer of a saved model. Raises: ValueError where one is missing or they do not fit."""
    config = _read_config(folder / "config.json")
    try:
        tokenizer = load_tokenizer(folder)
    except (OSError, ValueError) as error:  # both name the file
        raise ValueError(f"{error}. {ADVICE}") from None
    if tokenizer.vocab_size != config.vocab_size:
        raise corrupt_file(
            folder / "config.json",
            f"vocab_size is {config.vocab_size}, but the tokenizer's is {tokenizer.vocab_size}",
        )
    return config, tokenizer


def without_wrappers(name):
    """The name of a weight as the model itself has it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def load_weights(model, path):
    """Loads a safetensors file into the model. It may have been saved from a compiled or DDP-wrapped model.

    Raises: ValueError where a name, a shape or a dtype does not fit; the model is then unchanged.
    """
    try:
        saved = load_file(path)
    except Exception as error:  # a hostile header has many ways to fail
        raise corrupt_file(path, error) from None
    saved = {without_wrappers(name): weight for name, weight in saved.items()}
    own = model.state_dict()
    for name in sorted(saved.keys() - own.keys()):
        raise corrupt_file(path, f"unexpected weight {name}")
    # A tied matrix has two names and one place in memory; only one of the names is in the file.
    loaded = {own[name].data_ptr() for name in saved}
    for name, here in own.items():
        if name not in saved:
            if here.data_ptr() not in loaded:
                raise corrupt_file(path, f"missing weight {name}")
            continue
        there = saved[name]
        # Fewer digits are read into more, never more into fewer: that would lose some in silence.
        fits = torch.promote_types(there.dtype, here.dtype) == here.dtype
        if there.shape != here.shape or not fits:
            raise corrupt_file(
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
    # A weight has at least one byte. Asked before a model of that size is built.
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
        raise corrupt_file(path, f"{type(error).__name__}, {why[:200]}") from None
    if not isinstance(state, dict) or "step" not in state:
        raise corrupt_file(path, "it does not contain a training state")
    return state


def load_checkpoint(out, model, tokenizer, which="last"):
    """Fills the model from a run's last or best checkpoint (or out, if it is one) -> the saved state, with "step".

    Raises: ValueError where model, tokenizer or files do not fit, with the model unchanged; FileNotFoundError where
    there is no checkpoint.
    """
    folder = find_checkpoint(Path(out), which)
    model = unwrap(model)
    saved_config, saved_tokenizer = read_config_and_tokenizer(folder)
    config, _ = model_spec(model, tokenizer)
    differences = []
    if saved_config.model_type != config["model_type"]:
        differences.append(
            f"model_type is {saved_config.model_type} there, {config['model_type']} here"
        )
    else:
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
