"""Answers to the exercises of lesson 09: right ones, and wrong ones with a piece of their hint."""

import json
import math
import struct

import torch
from safetensors.torch import load

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- resumed_windows


@right("resumed_windows")
def batch_by_batch(orders, batch_size, step):
    batches = [batch for order in orders for batch in order.split(batch_size)]
    return torch.cat([*batches[step:], orders[0, :0]])


@right("resumed_windows")
def counts_what_was_read(orders, batch_size, step):
    """Reads along, and leaves out as many windows as were read."""
    n, read, place = orders.shape[1], 0, 0
    for _ in range(step):
        size = min(batch_size, n - place)
        read, place = read + size, (place + size) % n
    return orders.reshape(-1)[read:].clone()


@wrong("resumed_windows", "nothing is mended yet")
def all_batches_full(orders, batch_size, step):
    n = orders.shape[1]
    epoch, place = step * batch_size // n, step * batch_size % n
    return orders.flatten()[epoch * n + place :]


@wrong("resumed_windows", "rounded down")
def floor_of_batches(orders, batch_size, step):
    n = orders.shape[1]
    epoch, batch = divmod(step, max(n // batch_size, 1))
    return orders.flatten()[epoch * n + batch * batch_size :]


@wrong("resumed_windows", "one too many")
def always_one_more_batch(orders, batch_size, step):
    n = orders.shape[1]
    epoch, batch = divmod(step, n // batch_size + 1)
    rest = orders[epoch:].flatten()
    return rest[batch * batch_size :]


@wrong("resumed_windows", "read again from its start")
def epoch_from_the_start(orders, batch_size, step):
    epoch = step // math.ceil(orders.shape[1] / batch_size)
    return orders[epoch:].flatten()


@wrong("resumed_windows", "one batch is left out")
def skips_the_next(orders, batch_size, step):
    batches = [batch for order in orders for batch in order.split(batch_size)]
    return torch.cat([*batches[step + 1 :], orders[0, :0]])


@wrong("resumed_windows")
def repeats_the_last(orders, batch_size, step):
    batches = [batch for order in orders for batch in order.split(batch_size)]
    return torch.cat([*batches[max(step - 1, 0) :], orders[0, :0]])


@wrong("resumed_windows", "only the rest of this epoch")
def this_epoch_only(orders, batch_size, step):
    epoch, batch = divmod(step, math.ceil(orders.shape[1] / batch_size))
    return orders[epoch, batch * batch_size :] if epoch < len(orders) else orders[0, :0]


@wrong("resumed_windows", "it has")
def shuffled_once(orders, batch_size, step):
    batches = [batch for _ in orders for batch in orders[0].split(batch_size)]
    return torch.cat([*batches[step:], orders[0, :0]])


@wrong("resumed_windows")
def next_batch(orders, batch_size, step):
    batches = [batch for order in orders for batch in order.split(batch_size)]
    return batches[step] if step < len(batches) else orders[0, :0]


@wrong("resumed_windows")
def what_was_read(orders, batch_size, step):
    batches = [batch for order in orders for batch in order.split(batch_size)]
    return torch.cat([orders[0, :0], *batches[:step]])


@wrong("resumed_windows")
def batches_taken_for_windows(orders, batch_size, step):
    n = orders.shape[1]
    epoch, batch = divmod(step, -(-n // batch_size))
    return orders.flatten()[epoch * n + batch :]


@wrong("resumed_windows", "at index [0] it has")
def places_not_windows(orders, batch_size, step):
    n = orders.shape[1]
    epoch, batch = divmod(step, -(-n // batch_size))
    return torch.arange(epoch * n + batch * batch_size, orders.numel())


@wrong("resumed_windows", "a tensor")
def list_of_windows(orders, batch_size, step):
    return [
        window for order in orders for batch in order.split(batch_size) for window in batch.tolist()
    ][step:]


@wrong("resumed_windows", "non-empty list")
def nothing_left_fails(orders, batch_size, step):
    batches = [batch for order in orders for batch in order.split(batch_size)]
    return torch.cat(batches[step:])


@wrong("resumed_windows", "in place")
def marks_what_was_read(orders, batch_size, step):
    n, rows = orders.shape[1], orders.view(-1)
    epoch, batch = divmod(step, -(-n // batch_size))
    rows[: epoch * n + batch * batch_size] = -1
    return rows[rows >= 0]


@wrong("resumed_windows", "is there a `return`?")
def windows_without_return(orders, batch_size, step):
    n = orders.shape[1]
    epoch, batch = divmod(step, -(-n // batch_size))
    orders.flatten()[epoch * n + batch * batch_size :]


# ---------------------------------------------------------------- safetensors_tensor


@right("safetensors_tensor")
def the_real_reader(data, name):
    from safetensors.torch import load

    return load(bytes(data.tolist()))[name]


@right("safetensors_tensor")
def number_by_number(data, name):
    import json
    import struct

    length = sum(byte * 256**place for place, byte in enumerate(data[:8].tolist()))
    header = json.loads("".join(map(chr, data[8 : 8 + length].tolist())))
    letter, dtype = {
        "F32": ("f", torch.float32),
        "F64": ("d", torch.float64),
        "I64": ("q", torch.int64),
    }[header[name]["dtype"]]
    start, end = header[name]["data_offsets"]
    numbers = struct.iter_unpack(
        "<" + letter, bytes(data.tolist())[8 + length + start : 8 + length + end]
    )
    return torch.tensor([number for (number,) in numbers], dtype=dtype).reshape(
        header[name]["shape"]
    )


@right("safetensors_tensor")
def views_of_the_tensor(data, name):
    import json

    length = data[:8].clone().view(torch.int64).item()
    entry = json.loads(bytes(data[8 : 8 + length].tolist()))[name]
    kinds = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}
    a, b = entry["data_offsets"]
    return data[8 + length :][a:b].clone().view(kinds[entry["dtype"]]).view(entry["shape"])


def read(data, name, order="little"):
    """What the wrong ones share: the header's length, the entry, and the bytes."""
    file = bytes(data.tolist())
    length = int.from_bytes(file[:8], order)
    return file, length, json.loads(file[8 : 8 + length])


KINDS = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}


def numbers_of(piece, entry):
    return torch.frombuffer(bytearray(piece), dtype=KINDS[entry["dtype"]])


@wrong("safetensors_tensor", "all numbers are read as float32")
def believes_in_float32(data, name):
    length = int(data[:8].view(torch.int64))
    entry = json.loads(bytes(data[8 : 8 + length].tolist()))[name]
    first, last = entry["data_offsets"]
    numbers = data[8 + length :][first:last].clone().view(torch.float32)
    return numbers.reshape(entry["shape"])


@wrong("safetensors_tensor", "from the start of the file")
def offsets_from_the_start(data, name):
    file, _, header = read(data, name)
    a, b = header[name]["data_offsets"]
    return numbers_of(file[a:b], header[name]).view(header[name]["shape"])


@wrong("safetensors_tensor", "eight bytes before the header")
def forgets_the_eight(data, name):
    file, length, header = read(data, name)
    a, b = header[name]["data_offsets"]
    return numbers_of(file[length + a : length + b], header[name]).view(header[name]["shape"])


@wrong("safetensors_tensor", "from byte 8")
def offsets_from_the_header(data, name):
    file, _, header = read(data, name)
    a, b = header[name]["data_offsets"]
    return numbers_of(file[8 + a : 8 + b], header[name]).view(header[name]["shape"])


@wrong("safetensors_tensor", "the shape is missing")
def flat_numbers(data, name):
    file, length, header = read(data, name)
    a, b = header[name]["data_offsets"]
    return numbers_of(file[8 + length + a : 8 + length + b], header[name])


@wrong("safetensors_tensor")
def shape_backwards(data, name):
    file, length, header = read(data, name)
    a, b = header[name]["data_offsets"]
    return numbers_of(file[8 + length + a : 8 + length + b], header[name]).view(
        header[name]["shape"][::-1]
    )


@wrong("safetensors_tensor", "it returns a tensor (5,) of int64")
def first_of_the_file(data, name):
    file, length, header = read(data, name)
    first = next(entry for key, entry in header.items() if key != "__metadata__")
    a, b = first["data_offsets"]
    return numbers_of(file[8 + length + a : 8 + length + b], first).view(first["shape"])


@wrong("safetensors_tensor", "but a tensor (2, 3) of float64")
def everything_as_float(data, name):
    return load(bytes(data.tolist()))[name].float()


@wrong("safetensors_tensor", "the bytes themselves")
def bytes_not_numbers(data, name):
    _, length, header = read(data, name)
    a, b = header[name]["data_offsets"]
    return data[8 + length + a : 8 + length + b]


@wrong("safetensors_tensor", "it returns a list [")
def only_the_offsets(data, name):
    return read(data, name)[2][name]["data_offsets"]


@wrong("safetensors_tensor", "at index [0, 0] it has")
def big_end_first(data, name):
    file, length, header = read(data, name)
    a, b = header[name]["data_offsets"]
    letter = {"F32": "f", "F64": "d", "I64": "q"}[header[name]["dtype"]]
    numbers = [
        number
        for (number,) in struct.iter_unpack(">" + letter, file[8 + length + a : 8 + length + b])
    ]
    return torch.tensor(numbers, dtype=KINDS[header[name]["dtype"]]).view(header[name]["shape"])


@wrong("safetensors_tensor", "JSONDecodeError")
def header_too_short(data, name):
    file = bytes(data.tolist())
    return json.loads(file[8 : int.from_bytes(file[:8], "little")])[name]


@wrong("safetensors_tensor", "in place")
def scribbles_on_the_file(data, name):
    file, length, header = read(data, name)
    data[:8] = 0
    a, b = header[name]["data_offsets"]
    return numbers_of(file[8 + length + a : 8 + length + b], header[name]).view(
        header[name]["shape"]
    )


@wrong("safetensors_tensor", "is there a `return`?")
def tensor_without_return(data, name):
    file, length, header = read(data, name)
    a, b = header[name]["data_offsets"]
    numbers_of(file[8 + length + a : 8 + length + b], header[name]).view(header[name]["shape"])


# ---------------------------------------------------------------- checkpoint_bytes


@right("checkpoint_bytes")
def parameter_by_group(parameters, frozen, weight_bytes, moment_bytes, master):
    each_trained = weight_bytes + moment_bytes + moment_bytes + (4 if master else 0)
    return frozen * weight_bytes + (parameters - frozen) * each_trained


@right("checkpoint_bytes")
def adds_them_up(parameters, frozen, weight_bytes, moment_bytes, master):
    weights, first, second, copies = parameters * weight_bytes, 0, 0, 0
    if frozen < parameters:
        first = second = parameters * moment_bytes - frozen * moment_bytes
        copies = [0, 4][int(master)] * (parameters - frozen)
    return sum([weights, first, second, copies])


@wrong("checkpoint_bytes", "two moments")
def one_moment(parameters, frozen, weight_bytes, moment_bytes, master):
    return parameters * weight_bytes + (parameters - frozen) * (moment_bytes + 4 * master)


@wrong("checkpoint_bytes", "gradients are counted, too")
def gradients_too(parameters, frozen, weight_bytes, moment_bytes, master):
    trained = parameters - frozen
    return parameters * weight_bytes + trained * (weight_bytes + 2 * moment_bytes + 4 * master)


@wrong("checkpoint_bytes")
def moments_for_all(parameters, frozen, weight_bytes, moment_bytes, master):
    return parameters * (weight_bytes + 2 * moment_bytes) + 4 * (parameters - frozen) * master


@wrong("checkpoint_bytes")
def copies_of_all(parameters, frozen, weight_bytes, moment_bytes, master):
    return parameters * (weight_bytes + 4 * master) + (parameters - frozen) * 2 * moment_bytes


@wrong("checkpoint_bytes", "neither moments nor a master copy")
def nothing_is_frozen(parameters, frozen, weight_bytes, moment_bytes, master):
    return parameters * (weight_bytes + 2 * moment_bytes + 4 * master)


@wrong("checkpoint_bytes", "weights of frozen parameters are missing")
def frozen_not_saved(parameters, frozen, weight_bytes, moment_bytes, master):
    return (parameters - frozen) * (weight_bytes + 2 * moment_bytes + 4 * master)


@wrong("checkpoint_bytes")
def no_copies(parameters, frozen, weight_bytes, moment_bytes, master):
    return parameters * weight_bytes + (parameters - frozen) * 2 * moment_bytes


@wrong("checkpoint_bytes", "only if it is True")
def copies_always(parameters, frozen, weight_bytes, moment_bytes, master):
    return parameters * weight_bytes + (parameters - frozen) * (2 * moment_bytes + 4)


@wrong("checkpoint_bytes")
def copies_as_small_as_weights(parameters, frozen, weight_bytes, moment_bytes, master):
    return parameters * weight_bytes + (parameters - frozen) * (
        2 * moment_bytes + weight_bytes * master
    )


@wrong("checkpoint_bytes", "holds both of them")
def copies_replace_the_weights(parameters, frozen, weight_bytes, moment_bytes, master):
    trained = parameters - frozen
    return frozen * weight_bytes + trained * ((4 if master else weight_bytes) + 2 * moment_bytes)


@wrong("checkpoint_bytes")
def optimizer_alone(parameters, frozen, weight_bytes, moment_bytes, master):
    return (parameters - frozen) * (2 * moment_bytes + 4 * master)


@wrong("checkpoint_bytes")
def rule_of_thumb(parameters, frozen, weight_bytes, moment_bytes, master):
    return 3 * parameters * weight_bytes


@wrong("checkpoint_bytes")
def in_bits(parameters, frozen, weight_bytes, moment_bytes, master):
    return 8 * (parameters * weight_bytes + (parameters - frozen) * (2 * moment_bytes + 4 * master))


@wrong("checkpoint_bytes")
def numbers_not_bytes(parameters, frozen, weight_bytes, moment_bytes, master):
    return parameters + (parameters - frozen) * (2 + master)


@wrong("checkpoint_bytes", "is there a `return`?")
def bytes_without_return(parameters, frozen, weight_bytes, moment_bytes, master):
    parameters * weight_bytes + (parameters - frozen) * (2 * moment_bytes + 4 * master)


# ---------------------------------------------------------------- surviving_files


@right("surviving_files")
def two_disks(events):
    """Two dictionaries, one for the memory and one for the disk."""
    memory, disk = {}, {}
    for event in events:
        if event[0] == "write":
            memory[event[1]], disk[event[1]] = event[2], ""
        if event[0] == "flush":
            disk[event[1]] = memory[event[1]]
        if event[0] == "rename":
            memory[event[2]], disk[event[2]] = memory.pop(event[1]), disk.pop(event[1])
        if event[0] == "power":
            memory = dict(disk)
    return [[name, memory[name]] for name in sorted(memory)]


@right("surviving_files")
def numbered_files(events):
    """Names point to numbers of files, as a real file system has it."""
    names, contents, flushed = {}, [], []
    for what, *more in events:
        if what == "write":
            names[more[0]] = len(contents)
            contents.append(more[1])
            flushed.append("")
        elif what == "flush":
            flushed[names[more[0]]] = contents[names[more[0]]]
        elif what == "rename":
            names[more[1]] = names[more[0]]
            del names[more[0]]
        elif what == "power":
            contents = list(flushed)
    return sorted([name, contents[number]] for name, number in names.items())


def play(events, **change):
    """The simulation with one step replaced: what the wrong ones share."""
    files = {}
    for what, *names in events:
        if what in change:
            changed = change[what](files, *names)
            files = files if changed is None else changed
        elif what == "write":
            files[names[0]] = (names[1], "")
        elif what == "flush":
            files[names[0]] = (files[names[0]][0],) * 2
        elif what == "rename":
            files[names[1]] = files.pop(names[0])
        elif what == "power":
            files = {name: (disk, disk) for name, (_, disk) in files.items()}
    return [[name, memory] for name, (memory, _) in sorted(files.items())]


@wrong("surviving_files", "a kill empties the memory here")
def kill_is_a_power_cut(events):
    return play([["power"] if event == ["kill"] else event for event in events])


@wrong("surviving_files", "a power cut loses nothing here")
def power_is_a_kill(events):
    return play([event for event in events if event != ["power"]])


@wrong("surviving_files", "the old content survives")
def write_spares_the_disk(events):
    return play(
        events,
        write=lambda files, name, text: files.update({name: (text, files.get(name, ("", ""))[1])}),
    )


@wrong("surviving_files", "only in memory until its flush")
def writes_through(events):
    return play(events, write=lambda files, name, text: files.update({name: (text, text)}))


@wrong("surviving_files", "but the text '' was expected")
def flushes_everything(events):
    return play(
        events,
        flush=lambda files, name: {other: (memory, memory) for other, (memory, _) in files.items()},
    )


@wrong("surviving_files", "makes no copy")
def rename_copies(events):
    return play(events, rename=lambda files, a, b: files.update({b: files[a]}))


@wrong("surviving_files", "a rename flushes the file")
def rename_flushes(events):
    return play(events, rename=lambda files, a, b: files.update({b: (files.pop(a)[0],) * 2}))


@wrong("surviving_files", "it returns the text ''")
def rename_forgets_the_disk(events):
    return play(events, rename=lambda files, a, b: files.update({b: (files.pop(a)[0], "")}))


@wrong("surviving_files", "was never flushed is gone")
def empty_files_vanish(events):
    return play(
        events,
        power=lambda files: {name: (disk, disk) for name, (_, disk) in files.items() if disk},
    )


@wrong("surviving_files", "it returns the text ''")
def tells_of_the_disk(events):
    return play([*events, ["power"]])


@wrong("surviving_files")
def rename_does_not_replace(events):
    return play(
        events,
        rename=lambda files, a, b: {
            name: file for name, file in {b: files[a], **files}.items() if name != a
        },
    )


@wrong("surviving_files", "item 0: item 0: it returns the text")
def in_order_of_arrival(events):
    files = {}
    for what, *names in events:
        if what == "write":
            files[names[0]] = (names[1], "")
        elif what == "flush":
            files[names[0]] = (files[names[0]][0],) * 2
        elif what == "rename":
            files[names[1]] = files.pop(names[0])
        elif what == "power":
            files = {name: (disk, disk) for name, (_, disk) in files.items()}
    return [[name, memory] for name, (memory, _) in files.items()]


@wrong("surviving_files", "it returns a list []")
def forgets_all(events):
    return play(events, power=lambda files: files.clear())


@wrong("surviving_files", "is there a `return`?")
def files_without_return(events):
    play(events)


@wrong("surviving_files", "in place")
def eats_the_events(events):
    seen = []
    while events:
        seen.append(events.pop(0))
    return play(seen)
