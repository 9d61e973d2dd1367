# Made from the exercises of notebooks/source/09_checkpoints.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 09 · Checkpoints: as if nothing had happened."""

import torch


def resumed_windows(orders, batch_size, step):
    """orders (E, n) int64, step: batches that have been read -> (M,) int64: all that is still to be read, in order."""
    n = orders.shape[1]
    epoch, batch = divmod(step, -(-n // batch_size))
    return orders.flatten()[epoch * n + batch * batch_size :]


import json


def safetensors_tensor(data, name):
    """data (n,) uint8: the bytes of a safetensors file -> the tensor of this name, in its shape and dtype."""
    file = bytes(data.tolist())
    start = 8 + int.from_bytes(file[:8], "little")
    entry = json.loads(file[8:start])[name]
    dtype = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}[entry["dtype"]]
    a, b = entry["data_offsets"]
    return torch.frombuffer(bytearray(file[start + a : start + b]), dtype=dtype).view(
        entry["shape"]
    )


def checkpoint_bytes(parameters, frozen, weight_bytes, moment_bytes, master):
    """Four whole numbers, and master: bool -> int: the bytes of weights, moments and master copies together."""
    trained = parameters - frozen
    return parameters * weight_bytes + trained * (2 * moment_bytes + 4 * master)


def surviving_files(events):
    """events: a list of lists of texts, as above -> [[name, content as programs see it], ...], sorted by name."""
    files = {}  # name: [in memory, on the disk]
    for what, *names in events:
        if what == "write":
            files[names[0]] = [names[1], ""]
        elif what == "flush":
            files[names[0]][1] = files[names[0]][0]
        elif what == "rename":
            files[names[1]] = files.pop(names[0])
        elif what == "power":
            files = {name: [disk, disk] for name, (_, disk) in files.items()}
    return [[name, memory] for name, (memory, _) in sorted(files.items())]
