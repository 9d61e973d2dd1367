"""Trained models on disk: the key that identifies one, its files, and trainings that were interrupted."""

import hashlib
import inspect
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

import chargpt_lib
from chargpt_lib.files import atomic_write, cache_dir, read_json, write_json

# ---------------------------------------------------------------- the key


def digest(text):
    """16 hexadecimal digits that identify a text (or bytes): another text has other digits."""
    data = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:16]


def _source_of(cls):
    """The source of a class's methods, whether a notebook defines it or the library."""
    # Method by method: inspect.getsource does not find a whole class that a notebook defines.
    sources = []
    for member in vars(cls).values():
        function = getattr(member, "fget", getattr(member, "__func__", member))  # a property's
        if inspect.isfunction(function):
            sources.append(inspect.getsource(function))
    return "".join(sources)


def cache_key(name, model, corpus, settings):
    """All that a trained model depends on, as a dict to read; call it before training, for the initial weights.

    It does not look into functions that a method calls: after a change in one, give `load_or_fit` another name.
    """
    # The initial weights depend on the seed, and on how the model is initialised.
    weights = [weight.cpu().numpy().tobytes() for weight in model.state_dict().values()]
    config = asdict(model.config) if hasattr(model, "config") else {}
    classes = {}
    for path, layer in model.named_modules():
        for attribute, value in vars(layer).items():
            if isinstance(value, (int, float, str)) and attribute != "training":
                config[f"{path}.{attribute}".strip(".")] = value
        for cls in type(layer).__mro__:
            if cls.__module__.split(".")[0] in ("__main__", "chargpt_lib"):
                classes[cls.__name__] = digest(_source_of(cls))
    return {
        "name": name,
        "library": chargpt_lib.__version__,
        "corpus": f"{corpus.name} {digest(corpus.train + chr(0) + corpus.val)}",
        "settings": settings,
        "config": config,
        "classes": classes,
        "initial weights": digest(b"".join(weights)),
    }


def cache_file_name(key):
    """The name of the files that belong to a cache key."""
    return digest(json.dumps(key, sort_keys=True))


# ---------------------------------------------------------------- a trained model


class TrainedFiles:
    """The files of one trained model: its weights, its report, and an unfinished training (`unfinished`, a path)."""

    def __init__(self, name, folder=None):
        """name: of the files, see `cache_file_name`; folder: by default, the cache. Raises: FileNotFoundError where the folder above it does not exist."""
        folder = Path(folder or cache_dir())
        # A drive that is not mounted: a folder made in its place would vanish with the session.
        if not folder.parent.is_dir():
            raise FileNotFoundError(
                f"{folder} cannot be made, because there is no {folder.parent}: create it first "
                f"(on Colab: mount Google Drive)"
            )
        folder.mkdir(exist_ok=True)
        self.weights = folder / f"{name}.safetensors"
        self.report = folder / f"{name}.json"
        self.unfinished = folder / f"{name}.pt"

    def load(self, model):
        """Loads the weights into the model -> the report; {} where one of the two is missing or damaged."""
        report = read_json(self.report)
        if report:
            try:
                load_model(model, self.weights)
            except (OSError, SafetensorError):
                return {}
            model.eval()
        return report

    def save(self, model, report):
        """Writes the weights, then the report: where there is a report, there are the weights, too. Raises: OSError."""
        atomic_write(self.weights, lambda path: save_model(model, str(path)))
        write_json(self.report, report)

    def remove_unfinished(self):
        """Deletes what an interrupted training left behind, if it left anything."""
        self.unfinished.unlink(missing_ok=True)


# ---------------------------------------------------------------- a training that is interrupted


def save_state(path, model, optimizer, generator, losses):
    """Writes everything that `fit` needs to continue, whole or not at all. Raises: OSError."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "losses": losses,
        "generator": generator.get_state(),  # for the batches
        "torch": torch.get_rng_state(),  # for dropout
    }
    atomic_write(path, lambda temporary: torch.save(state, temporary))


def load_state(path, model, optimizer, generator):
    """Restores what `save_state` wrote -> the losses so far; without such a file, none, and nothing changes."""
    try:
        # weights_only: numbers and texts, and nothing that would run. To the CPU: load_state_dict moves it on.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # not there, or damaged, for which torch has many names
        return []
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    generator.set_state(state["generator"])
    torch.set_rng_state(state["torch"])
    return state["losses"]


# ---------------------------------------------------------------- the ladder


def own_rungs():
    """{corpus: {rung: result}}: the results of the models that were trained on this computer."""
    return read_json(cache_dir() / "ladder.json")


def record_rung(corpus, rung, result):
    """Enters a result into the ladder of a corpus, in place of an older one. Raises: OSError."""
    rungs = own_rungs()
    row = {part: value for part, value in result.items() if part not in ("losses", "key")}
    rungs.setdefault(corpus, {})[rung] = row
    write_json(cache_dir() / "ladder.json", rungs)
