"""Weights in safetensors files: one file, or several with an index. One tensor at a time, so that none is in memory twice."""

import json
import math
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open

from chargpt_lib.checkpoints import corrupt_file

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# Files of weights that are pickles. Whoever loads a pickle runs what its author wrote into it.
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")

# Numbers that float32 holds without loss.
DTYPES = ("F32", "F16", "BF16")


class StoredTensor(NamedTuple):
    """Where a tensor lies, and what it is; its numbers are read by `read_tensor`."""

    path: Path
    name: str
    shape: tuple
    dtype: str


def _shards(folder):
    """The paths of all files of weights of a folder."""
    index = folder / INDEX_FILE
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if not index.is_file():
        for name in PICKLES:
            if (folder / name).exists():
                raise ValueError(
                    f"{folder} has its weights in {name}, a pickle, which can run any code when it is loaded: save the "
                    f"model as {WEIGHTS_FILE} (transformers does so by save_pretrained), or get that file"
                )
        raise FileNotFoundError(f"{folder} has no {WEIGHTS_FILE}: is it the folder of a model?")
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise corrupt_file(index, f"it is no index of weights ({error!r})") from None
    shards = []
    for name in sorted(names, key=str):
        # A name, not a path: ../../x leads out of the folder.
        if not isinstance(name, str) or Path(name).name != name:
            raise corrupt_file(index, f"{str(name)[:60]!r} is not the name of a file beside it")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}, which {INDEX_FILE} names")
        shards.append(folder / name)
    return shards


def list_tensors(folder):
    """What the weights of a folder are, without reading them: {name: StoredTensor}.

    Raises: FileNotFoundError where there are none; ValueError for pickles, and for files that are damaged.
    """
    stored = {}
    for path in _shards(Path(folder)):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():
                    piece = file.get_slice(name)
                    shape = tuple(piece.get_shape())
                    stored[name] = StoredTensor(path, name, shape, piece.get_dtype())
        except Exception as error:  # a hostile header has many ways to fail
            raise corrupt_file(path, f"it is not in the format of safetensors ({error})") from None
    return stored


def read_tensor(stored):
    """The numbers of a StoredTensor, as a tensor that is mapped from the file, in the file's dtype.

    Raises: ValueError where they are of a kind that float32 would round.
    """
    if stored.dtype not in DTYPES:
        raise ValueError(
            f"{stored.path}: {stored.name} is of the dtype {stored.dtype}; expected one of {', '.join(DTYPES)}"
        )
    # Opened anew for each tensor: what is mapped from an open file counts as memory until it is closed.
    with safe_open(stored.path, framework="pt") as file:
        return file.get_tensor(stored.name)


def check_tensors(folder, stored, expected, optional=()):
    """Compares the names and shapes in {name: StoredTensor} with those that a model has.

    expected: {name: (our name, shape)}. optional: names that may be there as well.
    Raises: ValueError for a name that is unexpected or missing, and for another shape.
    """
    unexpected = sorted(stored.keys() - {*expected, *optional})
    if unexpected:
        raise ValueError(
            f"{folder}: unexpected weight {unexpected[0]}, for which our model has no place"
        )
    for name, (our_name, shape) in expected.items():
        if name not in stored:
            raise ValueError(f"{folder}: missing weight {name}, our {our_name}")
        if stored[name].shape != shape:
            raise ValueError(
                f"{folder}: {name} has shape {[*stored[name].shape]}, but config.json asks for {[*shape]}"
            )


def check_number_of_parameters(folder, stored, least):
    """Raises: ValueError if the tensors in {name: StoredTensor} hold fewer than `least` numbers."""
    if sum(math.prod(tensor.shape) for tensor in stored.values()) < least:
        raise ValueError(
            f"{folder}: the weights are too few for the {least:,} parameters that config.json asks for"
        )
