"""The config.json of `transformers`: reading it, and refusing settings that our models do not compute."""

import json


def read_hf_config(folder, kinds):
    """The config.json of a folder, as a dict. kinds: the values of model_type that can be opened.

    Raises: FileNotFoundError if there is none; ValueError if it is damaged, or of another kind.
    """
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} has no config.json: is it the folder of a model?"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not JSON ({error}): copy it again from where it came from"
        ) from None
    kind = settings.get("model_type") if isinstance(settings, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(
            f"{path}: model_type is {str(kind)[:60]!r}; only models of the kinds {' and '.join(kinds)} can be opened"
        )
    return settings


def require_size(settings, name, default):
    """A size in a config.json. Raises: ValueError if it is no integer >= 1."""
    size = settings.get(name, default)
    if type(size) is not int or size < 1:  # not isinstance, for which True is a number
        raise ValueError(f"{name} is {str(size)[:60]!r}; it must be an integer >= 1")
    return size


def require_values(settings, allowed):
    """Raises: ValueError for the first setting with a value that is not allowed. allowed: {name: (default, values)}."""
    for name, (default, values) in allowed.items():
        value = settings.get(name, default)
        if value not in values:
            raise ValueError(
                f"{name} is {str(value)[:60]!r}, and our model computes only {' or '.join(repr(v) for v in values)}"
            )
