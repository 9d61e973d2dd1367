"""Checks of settings, of a run's data, and of files that others may have written. A message names what is wrong."""

import json
import re
from dataclasses import fields
from math import inf
from numbers import Integral, Real
from pathlib import Path

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

# ---------------------------------------------------------------- the settings of a training run


def _is_number(value, low=0, high=inf, whole=False):
    """Whether a value is a finite number from low to high; whole: whether it is an integer, too."""
    kind = Integral if whole else Real
    # To Python True is the number 1; as a setting it is a mistake.
    if not isinstance(value, kind) or isinstance(value, bool):
        return False
    return low <= value <= high and value != inf


def check_train_config(config, schedules):
    """Checks each setting of a TrainConfig. schedules: the names of the schedules that exist.

    Raises: ValueError for the first setting that no training can use, with its name, its value and what it may be.
    """

    def require(name, allowed, meaning):
        if not allowed:
            raise ValueError(f"{name} is {getattr(config, name)!r}; it has to be {meaning}")

    for name in ("batch_size", "grad_accum", "eval_interval", "checkpoint_interval"):
        value = getattr(config, name)
        require(name, _is_number(value, 1, whole=True), "an integer >= 1")
    for name in ("steps", "patience"):
        value = getattr(config, name)
        allowed = value is None or _is_number(value, 1, whole=True)
        require(name, allowed, "an integer >= 1, or None")
    for name in ("epochs", "time_budget"):
        value = getattr(config, name)
        require(name, value is None or _is_number(value, 1e-9), "a number above 0, or None")
    for name in ("weight_decay", "grad_clip"):
        require(name, _is_number(getattr(config, name)), "a number >= 0 (0: off)")
    for name in ("compile", "gradient_checkpointing"):
        require(name, isinstance(getattr(config, name), bool), "True or False")

    allowed = _is_number(config.eval_batches, whole=True)
    require("eval_batches", allowed, "an integer >= 0 (0: exact loss)")
    # The seed of the windows' order is mixed from 32 bits.
    allowed = _is_number(config.seed, 0, 2**32 - 1, whole=True)
    require("seed", allowed, "an integer from 0 to 2^32 - 1")

    require("learning_rate", _is_number(config.learning_rate, 1e-12), "a number above 0")
    allowed = _is_number(config.min_lr, 0, config.learning_rate)
    require("min_lr", allowed, f"from 0 to the learning rate, {config.learning_rate}")
    require("warmup", _is_number(config.warmup, 0, 0.99), "a fraction of the run from 0 to 0.99")
    require("schedule", config.schedule in schedules, f"one of {', '.join(schedules)}")
    longest = 1
    meaning = "a fraction of the run from 0 to 1"
    if config.schedule == "wsd":
        # In a WSD schedule the decay begins after the warmup. (The millionth is for rounding.)
        longest = 1.000001 - config.warmup
        meaning = f"a fraction of the run from 0 to {1 - config.warmup:g}, 1 - warmup"
    require("decay", _is_number(config.decay, 0, longest), meaning)
    require("optimizer", config.optimizer in ("adamw", "muon"), "'adamw' or 'muon'")

    is_pair = isinstance(config.betas, (tuple, list)) and len(config.betas) == 2
    allowed = is_pair and all(_is_number(beta, 0, 0.999999) for beta in config.betas)
    require("betas", allowed, "two numbers from 0 to 0.999999")
    allowed = config.precision in ("auto", "fp32", "fp16", "bf16")
    require("precision", allowed, "'auto', 'fp32', 'fp16' or 'bf16'")

    is_path = isinstance(config.out, (str, Path)) and str(config.out) != ""
    require("out", config.out is None or is_path, "a folder, or None")
    if config.tensorboard is not False:
        allowed = config.tensorboard is True and config.out is not None
        require("tensorboard", allowed, "False, or True with a folder, out")


# ---------------------------------------------------------------- the data of a training run


def check_trainable(model):
    """Raises: ValueError for a model without a parameter that can be trained."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "no parameter of the model has requires_grad: a copy prepared for sampling cannot be "
            "trained, train the model it was made from"
        )


def check_data_tokenizer(tokenizer, model):
    """Raises: ValueError where the tokenizer of the data has another vocabulary than the model."""
    if tokenizer.vocab_size != model.vocab_size:
        raise ValueError(
            f"the data's tokenizer has vocab_size {tokenizer.vocab_size}, the model "
            f"{model.vocab_size}: build the model with vocab_size={tokenizer.vocab_size}"
        )


def check_ids(ids):
    """Raises: ValueError for anything but a tensor (N,) int64."""
    if not isinstance(ids, torch.Tensor):
        raise ValueError(
            f"the data is a {type(ids).__name__}: give a Corpus, as from load_corpus(path), or "
            f"ids (N,)"
        )
    if ids.dim() != 1 or ids.dtype != torch.int64:
        raise ValueError(
            f"ids must be a 1-D int64 tensor, got {ids.dtype} of shape {tuple(ids.shape)}"
        )


def check_needs(config, val_ids, tokenizer):
    """Raises: ValueError where a TrainConfig requires a validation text or a tokenizer, and there is none."""
    if config.patience is not None and val_ids is None:
        raise ValueError(
            f"patience={config.patience} needs validation text: train on a Corpus, or set "
            f"patience=None"
        )
    if config.out is not None and tokenizer is None:
        raise ValueError(
            "checkpoints include the tokenizer: pass tokenizer= when training on ids with out set"
        )


# ---------------------------------------------------------------- files of a saved model

ADVICE = "Copy the file again from where it came from, or take another checkpoint"


def corrupt_file(path, why):
    """The ValueError for a file that is not what it should be."""
    return ValueError(f"{path}: {why}. {ADVICE}")


def read_valid_json(path):
    """The value in a JSON file. Raises: ValueError for anything else, and where there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise corrupt_file(path, error) from None


def read_config(path, model_types, config_class_of):
    """The config of a model in a config.json.

    model_types: the known values of "model_type"; config_class_of: a function from one of them to the class of its
    config. Raises: ValueError where the file holds anything else.
    """
    settings = read_valid_json(path)
    if not isinstance(settings, dict):
        raise corrupt_file(
            path, f"expected a JSON object of GPTConfig fields, got {repr(settings)[:60]}"
        )
    # Files of the time when there was one kind of model do not say which it is.
    model_type = settings.pop("model_type", "gpt")
    if not isinstance(model_type, str) or model_type not in model_types:
        known = ", ".join(model_types)
        raise corrupt_file(path, f"model_type is {repr(model_type)[:60]}; it is one of {known}")
    config_class = config_class_of(model_type)
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


def check_saved_model(model, tokenizer, model_types):
    """Raises: ValueError for a model whose config is of none of the model_types, or whose vocabulary is another one."""
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type not in model_types:
        raise ValueError(
            f"{type(model).__name__} has no GPTConfig or ModernConfig as .config, so it cannot be "
            f"saved: only their models can"
        )
    if model.config.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            f"the tokenizer has vocab_size {tokenizer.vocab_size}, the model {model.vocab_size}: "
            f"pass the tokenizer the model was trained with"
        )


def check_no_weight_is_missing(model, expected):
    """Raises: ValueError where the model lacks one of the expected names of weights."""
    missing = expected - model.state_dict().keys()
    if missing:
        raise ValueError(
            f"the model has no {min(missing)}: a copy prepared for int8 cannot be saved, save the "
            f"model it was made from"
        )


def check_weights(path, saved, own):
    """Compares the weights of a file with those of a model: every name, shape and dtype.

    saved, own: {name: tensor}. Raises: ValueError for the first that does not fit.
    """
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


# ---------------------------------------------------------------- files of a run


def read_pointers(path, checkpoint_name):
    """{"last": a checkpoint's name, "best": another or the same} from a run's checkpoints.json; {} without the file.

    checkpoint_name: the pattern of such a name. Raises: ValueError where the file says anything else.
    """
    if not path.exists():
        return {}
    names = read_valid_json(path)
    right = isinstance(names, dict) and names.keys() <= {"last", "best"}
    # The names become paths: a whole match of the pattern keeps "../.." out.
    if not right or not all(re.fullmatch(checkpoint_name, str(name)) for name in names.values()):
        raise ValueError(
            f'{path} is damaged: write into it which one is the last, as in {{"last": "step-00000100"}}'
        )
    return names


def check_is_folder(out):
    """Raises: FileNotFoundError where there is no folder of this name."""
    if not out.is_dir():
        problem = "does not exist: is it the right folder?"
        if out.exists():
            problem = "is a file: give the folder it is in"
        raise FileNotFoundError(f"{out} {problem}")


def missing_checkpoint(out, which):
    """The FileNotFoundError for a folder without a "last" or a "best" checkpoint."""
    # What is there often tells the mistake; nine names, because it may be a folder of thousands.
    found = sorted(path.name for path in out.glob("*"))[:9]
    inside = ", ".join(found) if found else "nothing: is it the right folder?"
    return FileNotFoundError(f"there is no {which!r} checkpoint in {out}, which holds {inside}")


def check_loadable(path):
    """Raises: ValueError for a file of torch.save that torch.load(weights_only=True) would refuse."""
    unsafe = get_unsafe_globals_in_checkpoint(path)
    if unsafe:
        raise ValueError(
            f"the state contains {', '.join(unsafe)}, which torch.load(weights_only=True) "
            f"refuses: store only numbers, strings, tensors, lists and dicts (NumPy numbers as "
            f"float(x))"
        )


def unreadable_state(path, error):
    """The ValueError for a state.pt that torch.load refuses with this error."""
    # PyTorch's message goes on with the advice to unpickle all the same: only its first sentence.
    why = str(error).split("WeightsUnpickler error: ")[-1]
    why = re.split(r"\. |\n", why)[0]
    return corrupt_file(path, f"{type(error).__name__}, {why[:200]}")


def _tokenizer_difference(saved, tokenizer):
    """The first difference of two tokenizers in words, None where they are the same."""
    if saved.to_dict() == tokenizer.to_dict():
        return None
    for i in range(min(saved.vocab_size, tokenizer.vocab_size)):
        there, here = saved.decode([i]), tokenizer.decode([i])
        if there != here:
            return f"the tokenizer's id {i} is {there!r} there, {here!r} here"
    return "the tokenizer is another one"


def check_same_model(folder, saved_config, saved_tokenizer, config, tokenizer):
    """Compares a checkpoint's model with one that shall be filled from it.

    saved_config, config: the settings of the two configs, with "model_type": dicts. Raises: ValueError that names every
    difference.
    """
    differences = []
    if saved_config["model_type"] != config["model_type"]:
        differences.append(
            f"model_type is {saved_config['model_type']} there, {config['model_type']} here"
        )
    else:
        for name, value in saved_config.items():
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
