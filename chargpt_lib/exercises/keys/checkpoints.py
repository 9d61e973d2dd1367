"""How the exercises of lesson 09 are judged: cases, mistakes, symptoms."""

import json

import torch
from safetensors.torch import save

from chargpt_lib.exercises.answers.checkpoints import (
    checkpoint_bytes,
    resumed_windows,
    safetensors_tensor,
    surviving_files,
)
from chargpt_lib.exercises.judge import exercise

# ---------------------------------------------------------------- resumed_windows


def resumed_windows_case(draw, epochs, n, batch_size, step):
    orders = [torch.randperm(n, generator=draw.generator) for _ in range(epochs)]
    return [torch.stack(orders), batch_size, step]


def resumed_windows_cases(draw):
    batch_size = draw.integer(3, 5)
    uneven = 5 * batch_size + draw.integer(1, batch_size - 1)
    whole_epoch = draw.integer(5, 8)
    return [
        # In the second of three epochs, which have batches of 4, 4 and 3 windows.
        resumed_windows_case(draw, 3, 11, 4, draw.integer(4, 5)),
        # In the third of four epochs of six batches, the last one smaller.
        resumed_windows_case(draw, 4, uneven, batch_size, 13),
        # No smaller batch: 12 windows are three batches of 4.
        resumed_windows_case(draw, 3, 12, 4, draw.integer(4, 5)),
        # At the start of the second epoch.
        resumed_windows_case(draw, 2, draw.integer(7, 9), 5, 2),
        # At the end of the last epoch: nothing is left.
        resumed_windows_case(draw, 2, 7, 3, 6),
        resumed_windows_case(draw, 1, 1, 1, 0),
        # One batch is the whole epoch.
        resumed_windows_case(draw, 2, whole_epoch, whole_epoch, 1),
        # Before the first batch.
        resumed_windows_case(draw, 2, 9, 4, 0),
    ]


RESUMED_WINDOWS = exercise(resumed_windows, stars=2, minutes=8, cases=resumed_windows_cases)


### BEGIN SOLUTION
@RESUMED_WINDOWS.mistake(
    "nothing is mended yet: each batch is counted as a full one, but the last of an epoch may be "
    "smaller"
)
def resumed_windows_all_batches_full(orders, batch_size, step):
    n = orders.shape[1]
    epoch = step * batch_size // n
    place = step * batch_size % n
    return orders.flatten()[epoch * n + place :]


@RESUMED_WINDOWS.mistake(
    "the smaller batch at the end of an epoch is not counted: n // batch_size is rounded down"
)
def resumed_windows_rounded_down(orders, batch_size, step):
    n = orders.shape[1]
    batches = n // batch_size
    epoch = step // batches
    batch = step % batches
    return orders.flatten()[epoch * n + batch * batch_size :]


@RESUMED_WINDOWS.mistake(
    "n // batch_size + 1 is one too many where batch_size divides n: there is no smaller batch then"
)
def resumed_windows_one_batch_too_many(orders, batch_size, step):
    n = orders.shape[1]
    batches = n // batch_size + 1
    epoch = step // batches
    batch = step % batches
    rest = orders[epoch:].flatten()
    return rest[batch * batch_size :]


@RESUMED_WINDOWS.mistake("the epoch is read again from its start: some windows come twice")
def resumed_windows_epoch_restarted(orders, batch_size, step):
    n = orders.shape[1]
    batches = -(-n // batch_size)
    epoch = step // batches
    return orders[epoch:].flatten()


@RESUMED_WINDOWS.mistake(
    "one batch is left out: `step` batches have been read, so the next is batch number `step`, "
    "counted from 0"
)
def resumed_windows_skips_a_batch(orders, batch_size, step):
    n = orders.shape[1]
    batches = -(-n // batch_size)
    epoch = (step + 1) // batches
    batch = (step + 1) % batches
    return orders.flatten()[epoch * n + batch * batch_size :]


@RESUMED_WINDOWS.mistake(
    "only the rest of this epoch is returned: the epochs after it are still to be read, too"
)
def resumed_windows_this_epoch_only(orders, batch_size, step):
    n = orders.shape[1]
    batches = -(-n // batch_size)
    epoch = step // batches
    batch = step % batches
    if epoch == len(orders):
        return orders[0, :0]
    return orders[epoch, batch * batch_size :]


### END SOLUTION


# ---------------------------------------------------------------- safetensors_tensor


def safetensors_tensor_case(draw, name, metadata=False):
    """Seven tensors, several of the same size; float64 and int64 come first in the file."""
    tensors = {
        "a.weight": draw.normal(3, 4),
        "b.weight": draw.normal(4, 3),
        "c.bias": draw.normal(4),
        "d.table": draw.normal(2, 3, dtype=torch.float64),
        "e.ids": draw.ids(90, 5) + 5,
        "f.scale": draw.normal(1, 1, 2),
        "g.step": draw.normal(1)[0],
    }
    notes = None
    if metadata:
        notes = {"made by": draw.text(draw.integer(3, 40), "abc")}
    file = save(tensors, notes)
    return [torch.tensor(list(file), dtype=torch.uint8), name]


def safetensors_tensor_cases(draw):
    return [
        safetensors_tensor_case(draw, draw.choice(["a.weight", "b.weight"])),
        safetensors_tensor_case(draw, "d.table", metadata=True),
        safetensors_tensor_case(draw, "e.ids"),
        safetensors_tensor_case(draw, draw.choice(["c.bias", "f.scale"]), metadata=True),
        safetensors_tensor_case(draw, "g.step"),
    ]


SAFETENSORS_TENSOR = exercise(
    safetensors_tensor, stars=2, minutes=9, cases=safetensors_tensor_cases
)


### BEGIN SOLUTION
SAFETENSORS_DTYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}


def safetensors_header(data):
    """The file as bytes, the length of its header, and the header."""
    file = bytes(data.tolist())
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    return file, length, header


def safetensors_numbers(piece, entry):
    """The numbers that lie in a piece of the file, in the shape and dtype of their entry."""
    dtype = SAFETENSORS_DTYPES[entry["dtype"]]
    return torch.frombuffer(bytearray(piece), dtype=dtype).view(entry["shape"])


@SAFETENSORS_TENSOR.mistake(
    "the offsets are taken from the start of the file; they count from the end of the header"
)
def safetensors_tensor_from_the_start_of_the_file(data, name):
    file, length, header = safetensors_header(data)
    begin, end = header[name]["data_offsets"]
    return safetensors_numbers(file[begin:end], header[name])


@SAFETENSORS_TENSOR.mistake(
    "the eight bytes before the header are forgotten: the numbers begin at 8 + its length"
)
def safetensors_tensor_without_the_eight_bytes(data, name):
    file, length, header = safetensors_header(data)
    begin, end = header[name]["data_offsets"]
    return safetensors_numbers(file[length + begin : length + end], header[name])


@SAFETENSORS_TENSOR.mistake(
    "the offsets are taken from byte 8, where the header starts; they count from its end"
)
def safetensors_tensor_from_the_start_of_the_header(data, name):
    file, length, header = safetensors_header(data)
    begin, end = header[name]["data_offsets"]
    return safetensors_numbers(file[8 + begin : 8 + end], header[name])


@SAFETENSORS_TENSOR.mistake(
    "the shape is missing: the numbers come in one row; give them the `shape` of the header"
)
def safetensors_tensor_without_shape(data, name):
    file, length, header = safetensors_header(data)
    begin, end = header[name]["data_offsets"]
    piece = file[8 + length + begin : 8 + length + end]
    dtype = SAFETENSORS_DTYPES[header[name]["dtype"]]
    return torch.frombuffer(bytearray(piece), dtype=dtype)


@SAFETENSORS_TENSOR.mistake(
    "all numbers are read as float32: the header says which dtype they have"
)
def safetensors_tensor_always_float32(data, name):
    file, length, header = safetensors_header(data)
    begin, end = header[name]["data_offsets"]
    piece = file[8 + length + begin : 8 + length + end]
    numbers = torch.frombuffer(bytearray(piece), dtype=torch.float32)
    return numbers.view(header[name]["shape"])


@SAFETENSORS_TENSOR.mistake("these are the bytes themselves; each number is made of several")
def safetensors_tensor_as_bytes(data, name):
    file, length, header = safetensors_header(data)
    begin, end = header[name]["data_offsets"]
    return data[8 + length + begin : 8 + length + end]


### END SOLUTION


# ---------------------------------------------------------------- checkpoint_bytes


def checkpoint_bytes_cases(draw):
    all_frozen = draw.integer(5, 90)
    return [
        [draw.integer(500, 900), draw.integer(100, 400), 2, 4, True],
        [draw.integer(10**6, 10**8), 0, 4, 4, False],
        [draw.integer(500, 900), draw.integer(100, 400), draw.choice([1, 3]), 3, True],
        [all_frozen, all_frozen, 2, 4, True],
        [draw.integer(600, 900), draw.integer(100, 400), 4, 1, False],
    ]


CHECKPOINT_BYTES = exercise(checkpoint_bytes, stars=1, minutes=5, cases=checkpoint_bytes_cases)


### BEGIN SOLUTION
@CHECKPOINT_BYTES.mistake("AdamW keeps two moments for each parameter that it trains, not one")
def checkpoint_bytes_one_moment(parameters, frozen, weight_bytes, moment_bytes, master):
    trained = parameters - frozen
    total = parameters * weight_bytes + trained * moment_bytes
    if master:
        total += trained * 4
    return total


@CHECKPOINT_BYTES.mistake(
    "gradients are counted, too: they are used up when a step is done, and nothing needs them later"
)
def checkpoint_bytes_with_gradients(parameters, frozen, weight_bytes, moment_bytes, master):
    trained = parameters - frozen
    weights = parameters * weight_bytes
    gradients = trained * weight_bytes
    moments = trained * 2 * moment_bytes
    total = weights + gradients + moments
    if master:
        total += trained * 4
    return total


@CHECKPOINT_BYTES.mistake(
    "frozen parameters have neither moments nor a master copy: AdamW never trains them"
)
def checkpoint_bytes_nothing_frozen(parameters, frozen, weight_bytes, moment_bytes, master):
    total = parameters * (weight_bytes + 2 * moment_bytes)
    if master:
        total += parameters * 4
    return total


@CHECKPOINT_BYTES.mistake(
    "the weights of frozen parameters are missing: they are not trained, but the model needs them"
)
def checkpoint_bytes_without_frozen(parameters, frozen, weight_bytes, moment_bytes, master):
    trained = parameters - frozen
    total = trained * (weight_bytes + 2 * moment_bytes)
    if master:
        total += trained * 4
    return total


@CHECKPOINT_BYTES.mistake(
    "master copies are counted where `master` is False; they are kept only if it is True"
)
def checkpoint_bytes_copies_always(parameters, frozen, weight_bytes, moment_bytes, master):
    trained = parameters - frozen
    return parameters * weight_bytes + trained * (2 * moment_bytes + 4)


@CHECKPOINT_BYTES.mistake(
    "the master copies replace the weights here; a checkpoint holds both of them"
)
def checkpoint_bytes_copies_instead(parameters, frozen, weight_bytes, moment_bytes, master):
    trained = parameters - frozen
    if master:
        weights = frozen * weight_bytes + trained * 4
    else:
        weights = parameters * weight_bytes
    return weights + trained * 2 * moment_bytes


### END SOLUTION


# ---------------------------------------------------------------- surviving_files


def surviving_files_random_events(draw, names, texts):
    """Events of all kinds in any order; what is flushed or renamed exists."""
    events = [["write", names[0], texts[0]]]
    existing = {names[0]}
    for text in texts[1:]:
        name = draw.choice(sorted(existing))
        other = draw.choice(names)
        kind = draw.choice(["write", "write", "flush", "rename", "power", "kill"])
        if kind == "write":
            events.append(["write", other, text])
            existing.add(other)
        elif kind == "flush":
            events.append(["flush", name])
        elif kind == "rename":
            if other != name:
                events.append(["rename", name, other])
                existing.remove(name)
                existing.add(other)
        else:
            events.append([kind])
    return events


def surviving_files_cases(draw):
    words = ["last", "best", "log", "weights", "config", "x.part", "notes", "a", "z"]
    names = draw.random.sample(words, 4)
    a, b, c, d = names
    low, middle, high = sorted([b, c, d])
    texts = [f"text {number}" for number in draw.random.sample(range(10, 99), 9)]
    v, w, x, y = texts[:4]
    careful = [["write", a, v], ["flush", a], ["write", b, w], ["flush", b], ["rename", b, a]]
    careless = [["write", a, v], ["flush", a], ["write", b, w], ["rename", b, a]]
    overwritten = [["write", a, v], ["flush", a], ["write", a, w]]
    killed = [["write", a, v], ["kill"], ["write", b, w], ["flush", b], ["kill"], ["rename", a, c]]
    # The name that is first in the alphabet is the last one to come up.
    unsorted = [
        ["write", a, v],
        ["flush", a],
        ["write", middle, w],
        ["power"],
        ["write", high, x],
        ["rename", a, low],
    ]
    flush_of_another = [["write", a, v], ["write", b, w], ["flush", a]]
    killed_after_rename = [
        ["write", a, v],
        ["flush", a],
        ["write", a, w],
        ["write", c, y],
        ["rename", a, b],
        ["kill"],
    ]
    old_name_again = [
        ["write", a, v],
        ["rename", a, b],
        ["write", c, x],
        ["flush", c],
        ["write", a, y],
        ["flush", b],
    ]
    return [
        [[*careful, ["power"]]],
        [[*careless, ["power"]]],
        [[*overwritten, ["power"]]],
        [killed],
        [unsorted],
        [[*flush_of_another, ["power"]]],
        [killed_after_rename],
        [[*old_name_again, ["power"]]],
        [[]],
        [surviving_files_random_events(draw, names, [v, *texts[4:], *texts[:4]])],
    ]


SURVIVING_FILES = exercise(surviving_files, stars=3, minutes=15, cases=surviving_files_cases)


### BEGIN SOLUTION
def surviving_files_seen(memory):
    """What programs see at the end: a list of [name, content], sorted."""
    return [[name, memory[name]] for name in sorted(memory)]


@SURVIVING_FILES.mistake(
    "a kill empties the memory here; the system goes on, and only a power cut loses what is there"
)
def surviving_files_lost_in_a_kill(events):
    memory = {}
    disk = {}
    for kind, *names in events:
        if kind == "write":
            memory[names[0]] = names[1]
            disk[names[0]] = ""
        elif kind == "flush":
            disk[names[0]] = memory[names[0]]
        elif kind == "rename":
            memory[names[1]] = memory.pop(names[0])
            disk[names[1]] = disk.pop(names[0])
        elif kind in ("kill", "power"):
            memory = dict(disk)
    return surviving_files_seen(memory)


@SURVIVING_FILES.mistake(
    "a power cut loses nothing here; a write is only in memory until its flush, and memory is lost"
)
def surviving_files_nothing_lost(events):
    memory = {}
    for kind, *names in events:
        if kind == "write":
            memory[names[0]] = names[1]
        elif kind == "rename":
            memory[names[1]] = memory.pop(names[0])
    return surviving_files_seen(memory)


@SURVIVING_FILES.mistake(
    "the old content survives a write that is not flushed; a write empties the file on the disk"
)
def surviving_files_old_content_survives(events):
    memory = {}
    disk = {}
    for kind, *names in events:
        if kind == "write":
            memory[names[0]] = names[1]
            disk.setdefault(names[0], "")
        elif kind == "flush":
            disk[names[0]] = memory[names[0]]
        elif kind == "rename":
            memory[names[1]] = memory.pop(names[0])
            disk[names[1]] = disk.pop(names[0])
        elif kind == "power":
            memory = dict(disk)
    return surviving_files_seen(memory)


@SURVIVING_FILES.mistake(
    "a rename leaves the file under its old name as well: it moves the file, and makes no copy"
)
def surviving_files_rename_copies(events):
    memory = {}
    disk = {}
    for kind, *names in events:
        if kind == "write":
            memory[names[0]] = names[1]
            disk[names[0]] = ""
        elif kind == "flush":
            disk[names[0]] = memory[names[0]]
        elif kind == "rename":
            memory[names[1]] = memory[names[0]]
            disk[names[1]] = disk[names[0]]
        elif kind == "power":
            memory = dict(disk)
    return surviving_files_seen(memory)


@SURVIVING_FILES.mistake("a rename flushes the file here; it changes the name and nothing else")
def surviving_files_rename_flushes(events):
    memory = {}
    disk = {}
    for kind, *names in events:
        if kind == "write":
            memory[names[0]] = names[1]
            disk[names[0]] = ""
        elif kind == "flush":
            disk[names[0]] = memory[names[0]]
        elif kind == "rename":
            memory[names[1]] = memory.pop(names[0])
            disk.pop(names[0])
            disk[names[1]] = memory[names[1]]
        elif kind == "power":
            memory = dict(disk)
    return surviving_files_seen(memory)


@SURVIVING_FILES.mistake(
    "a file that was never flushed is gone after a power cut; its name stays, with empty content"
)
def surviving_files_empty_ones_vanish(events):
    memory = {}
    disk = {}
    for kind, *names in events:
        if kind == "write":
            memory[names[0]] = names[1]
            disk[names[0]] = ""
        elif kind == "flush":
            disk[names[0]] = memory[names[0]]
        elif kind == "rename":
            memory[names[1]] = memory.pop(names[0])
            disk[names[1]] = disk.pop(names[0])
        elif kind == "power":
            disk = {name: content for name, content in disk.items() if content}
            memory = dict(disk)
    return surviving_files_seen(memory)


### END SOLUTION
