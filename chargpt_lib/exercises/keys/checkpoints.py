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


def resumed_windows_case(draw, E, n, batch_size, step):
    return [
        torch.stack([torch.randperm(n, generator=draw.generator) for _ in range(E)]),
        batch_size,
        step,
    ]


### BEGIN SOLUTION
def resumed_windows_as(
    orders, batch_size, step, count=lambda n, size: -(-n // size), more=0, own=True, rest=True
):
    E, n = orders.shape
    epoch, batch = divmod(step + more, count(n, batch_size))
    rows = [orders[e] if own else orders[0] for e in range(epoch, E if rest else min(epoch + 1, E))]
    return torch.cat([*rows, orders[0, :0]])[batch * batch_size :]


### END SOLUTION


exercise(
    resumed_windows,
    stars=2,
    minutes=8,
    cases=lambda draw: [
        resumed_windows_case(
            draw, 3, 11, 4, draw.integer(4, 5)
        ),  # in the second of three epochs of 4, 4 and 3
        resumed_windows_case(
            draw, 4, 5 * (size := draw.integer(3, 5)) + draw.integer(1, size - 1), size, 13
        ),
        resumed_windows_case(draw, 3, 12, 4, draw.integer(4, 5)),
        resumed_windows_case(draw, 2, draw.integer(7, 9), 5, 2),
        resumed_windows_case(draw, 2, 7, 3, 6),
        resumed_windows_case(draw, 1, 1, 1, 0),
        resumed_windows_case(draw, 2, draw.integer(5, 8), 10, 1),
        resumed_windows_case(draw, 2, 9, 4, 0),
    ],
    wrong={
        ### BEGIN SOLUTION
        "nothing is mended yet: the last batch of an epoch may be smaller, and each step is counted as a full one": lambda orders, size, step: (
            orders.flatten()[step * size :]
        ),
        "the incomplete batch at the end of an epoch is not counted: n // batch_size is rounded down": lambda orders, size, step: (
            resumed_windows_as(orders, size, step, lambda n, size: max(n // size, 1))
        ),
        "where the windows come out even there is no extra batch: n // batch_size + 1 is one too many": lambda orders, size, step: (
            resumed_windows_as(orders, size, step, lambda n, size: n // size + 1)
        ),
        "the epoch is read again from its start: some windows come twice": lambda orders, size, step: (
            orders[step // -(-orders.shape[1] // size) :].flatten()
        ),
        "one batch is left out: `step` batches have been read, and batch number `step` has not": lambda orders, size, step: (
            resumed_windows_as(orders, size, step, more=1)
        ),
        "the last batch that was read is read again": lambda orders, size, step: resumed_windows_as(
            orders, size, max(step - 1, 0)
        ),
        "only the rest of this epoch is returned: the epochs after it are still to be read, too": lambda orders, size, step: (
            resumed_windows_as(orders, size, step, rest=False)
        ),
        "all epochs are read in the order of the first: each has its own row": lambda orders, size, step: (
            resumed_windows_as(orders, size, step, own=False)
        ),
        "that is what has been read; what is still to come is asked for": lambda orders, size, step: (
            orders.flatten()[: orders.numel() - len(resumed_windows(orders, size, step))]
        ),
        "it skips `batch` windows, not `batch` batches": lambda orders, size, step: (
            orders.flatten()[
                step // -(-orders.shape[1] // size) * orders.shape[1]
                + step % -(-orders.shape[1] // size) :
            ]
        ),
        "only the next batch is returned: all that is still to come": lambda orders, size, step: (
            resumed_windows_as(orders, size, step, rest=False)[:size]
        ),
        "these are the numbers of the places; the windows that stand there are asked for": lambda orders, size, step: (
            torch.arange(orders.numel() - len(resumed_windows(orders, size, step)), orders.numel())
        ),
        ### END SOLUTION
    },
)


def safetensors_tensor_case(draw, pick, notes=False):
    """Six tensors, of which several have the same size; float64 and int64 come first in the file."""
    tensors = {
        "a.weight": draw.normal(3, 4),
        "b.weight": draw.normal(4, 3),
        "c.bias": draw.normal(4),
        "d.table": draw.normal(2, 3, dtype=torch.float64),
        "e.ids": draw.ids(90, 5) + 5,
        "f.scale": draw.normal(1, 1, 2),
        "g.step": draw.normal(1)[0],
    }
    file = save(tensors, {"made by": draw.text(draw.integer(3, 40), "abc")} if notes else None)
    return [torch.tensor(list(file), dtype=torch.uint8), pick]


### BEGIN SOLUTION
def safetensors_tensor_as(
    data, name, order="little", skip=8, base=None, dtype=None, entry=None, shape=lambda s: s
):
    file = bytes(data.tolist())
    start = skip + int.from_bytes(file[:8], order)
    header = json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])
    wanted = header[name if entry is None else entry(header)]
    kind = (
        dtype or {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}[wanted["dtype"]]
    )
    a, b = (place + (start if base is None else base) for place in wanted["data_offsets"])
    return torch.frombuffer(bytearray(file[a:b]), dtype=kind).view(shape(wanted["shape"]))


### END SOLUTION


exercise(
    safetensors_tensor,
    stars=2,
    minutes=9,
    cases=lambda draw: [
        safetensors_tensor_case(draw, draw.choice(["a.weight", "b.weight"])),
        safetensors_tensor_case(draw, "d.table", True),
        safetensors_tensor_case(draw, "e.ids"),
        safetensors_tensor_case(draw, draw.choice(["c.bias", "f.scale"]), True),
        safetensors_tensor_case(draw, "g.step"),
    ],
    wrong={
        ### BEGIN SOLUTION
        "the offsets are counted from the end of the header, not from the start of the file": lambda data, name: (
            safetensors_tensor_as(data, name, base=0)
        ),
        "the eight bytes before the header are forgotten: the numbers begin at 8 + its length": lambda data, name: (
            safetensors_tensor_as(data, name, skip=0)
        ),
        "the offsets are counted from the end of the header, not from its start at byte 8": lambda data, name: (
            safetensors_tensor_as(data, name, base=8)
        ),
        "the shape is missing: the numbers lie in one row, and `shape` says how to fold them": lambda data, name: (
            safetensors_tensor_as(data, name, shape=lambda s: [-1])
        ),
        "the shape is turned round": lambda data, name: safetensors_tensor_as(
            data, name, shape=lambda s: s[::-1]
        ),
        "the numbers are folded right and then turned over: rows first, as they lie": lambda data, name: (
            safetensors_tensor_as(data, name).mT
            if safetensors_tensor_as(data, name).dim() > 1
            else safetensors_tensor_as(data, name)
        ),
        "the file's first tensor is returned, whatever `name` says": lambda data, name: (
            safetensors_tensor_as(
                data,
                name,
                entry=lambda header: next(key for key in header if key != "__metadata__"),
            )
        ),
        "all numbers are returned as float32: the header says which dtype they have": lambda data, name: (
            safetensors_tensor_as(data, name).float()
        ),
        "the bytes themselves are returned; each number is made of several": lambda data, name: (
            safetensors_tensor_as(data, name).flatten().view(torch.uint8)
        ),
        "the entry of the header is found; the numbers it points to are asked for": lambda data, name: (
            json.loads(
                bytes(data.tolist())[8 : 8 + int.from_bytes(bytes(data[:8].tolist()), "little")]
            )[name]["data_offsets"]
        ),
        ### END SOLUTION
    },
    signs={
        "the smallest byte stands first, here and in the length": lambda got, want, data, name: (
            torch.equal(
                want.flatten().view(torch.uint8).view(-1, want.element_size()).flip(1).flatten(),
                got.flatten().view(torch.uint8),
            )
        ),
    },
)


### BEGIN SOLUTION
def checkpoint_bytes_as(
    moments=2, gradients=0, master=4, all_move=False, all_copied=False, weights=1, instead=False
):
    def answer(parameters, frozen, weight_bytes, moment_bytes, copies):
        trained = parameters - frozen
        size = weights * (parameters - trained * (instead and copies)) * weight_bytes
        size += (
            gradients * trained * weight_bytes
            + (parameters if all_move else trained) * moments * moment_bytes
        )
        return size + (parameters if all_copied else trained) * copies * (
            weight_bytes if master is None else master
        )

    return answer


### END SOLUTION


exercise(
    checkpoint_bytes,
    stars=1,
    minutes=5,
    cases=lambda draw: [
        [draw.integer(500, 900), draw.integer(100, 400), 2, 4, True],
        [draw.integer(10**6, 10**8), 0, 4, 4, False],
        [draw.integer(500, 900), draw.integer(100, 400), draw.choice([1, 3]), 3, True],
        [(n := draw.integer(5, 90)), n, 2, 4, True],
        [draw.integer(600, 900), draw.integer(100, 400), 4, 1, False],
    ],
    wrong={
        ### BEGIN SOLUTION
        "AdamW keeps two moments for each parameter that it trains, not one": checkpoint_bytes_as(
            moments=1
        ),
        "gradients are used up when a step is done: nobody needs them afterwards": checkpoint_bytes_as(
            gradients=1
        ),
        "frozen parameters have no moments: AdamW never moves them": checkpoint_bytes_as(
            all_move=True
        ),
        "frozen parameters have no master copy": checkpoint_bytes_as(all_copied=True),
        "frozen parameters have neither moments nor a master copy": checkpoint_bytes_as(
            all_move=True, all_copied=True
        ),
        "the master copy has 4 bytes, whatever the weights have": checkpoint_bytes_as(master=None),
        "the master copies are missing": checkpoint_bytes_as(master=0),
        "the weights themselves are missing": checkpoint_bytes_as(weights=0),
        "the weights are kept beside their master copies: both are there": checkpoint_bytes_as(
            instead=True
        ),
        "frozen parameters are not trained, but the model needs them: their weights count": lambda n, frozen, *more: (
            checkpoint_bytes(n - frozen, 0, *more)
        ),
        "frozen ones are kept, the trained ones move: `frozen` and the others are exchanged": lambda n, frozen, *more: (
            checkpoint_bytes(n, n - frozen, *more)
        ),
        "these are bits: a byte is wanted": lambda *args: 8 * checkpoint_bytes(*args),
        "these are numbers, not bytes": lambda n, frozen, weight_bytes, moment_bytes, master: (
            n + (n - frozen) * (2 + master)
        ),
        "three times the weights: so it is only where nothing is frozen and all numbers have the same size": lambda n, frozen, weight_bytes, moment_bytes, master: (
            3 * n * weight_bytes
        ),
        "a master copy is kept only if `master` is True": lambda n, frozen, weight_bytes, moment_bytes, master: (
            checkpoint_bytes(n, frozen, weight_bytes, moment_bytes, 1)
        ),
        ### END SOLUTION
    },
)


def surviving_files_cases(draw):
    """Written with care, and not; killed and without power; a power cut in the middle; nothing at all; anything."""
    a, b, c, d = draw.random.sample(
        ["last", "best", "log", "weights", "config", "x.part", "notes", "a", "z"], 4
    )
    texts = draw.random.sample(range(10, 99), 9)
    v, w, x, y = (f"text {number}" for number in texts[:4])
    yield [
        ["write", a, v],
        ["flush", a],
        ["write", b, w],
        ["flush", b],
        ["rename", b, a],
        ["power"],
    ]
    yield [["write", a, v], ["flush", a], ["write", b, w], ["rename", b, a], ["power"]]
    yield [["write", a, v], ["flush", a], ["write", a, w], ["power"]]
    yield [["write", a, v], ["kill"], ["write", b, w], ["flush", b], ["kill"], ["rename", a, c]]
    low, mid, high = sorted([b, c, d])
    yield [
        ["write", a, v],
        ["flush", a],
        ["write", mid, w],
        ["power"],
        ["write", high, x],
        ["rename", a, low],
    ]
    yield [["write", a, v], ["write", b, w], ["flush", a], ["power"]]
    yield [
        ["write", a, v],
        ["flush", a],
        ["write", a, w],
        ["write", c, y],
        ["rename", a, b],
        ["kill"],
    ]
    yield [
        ["write", a, v],
        ["rename", a, b],
        ["write", c, x],
        ["flush", c],
        ["write", a, y],
        ["flush", b],
        ["power"],
    ]
    yield []
    events, there = [["write", a, v]], {a}
    for number in texts[4:] + texts[:4]:
        name, other = draw.choice(sorted(there)), draw.choice([a, b, c, d])
        what = draw.choice(["write", "write", "flush", "rename", "power", "kill"])
        if what == "rename" and other != name:
            there = there - {name} | {other}
            events.append([what, name, other])
        elif what in ("write", "flush"):
            events.append([what, other, f"text {number}"] if what == "write" else [what, name])
            there |= {other} if what == "write" else set()
        elif what != "rename":
            events.append([what])
    yield events


### BEGIN SOLUTION
def surviving_files_as(
    write=lambda old, text: [text, ""],
    moved=lambda file: file,
    stays=False,
    all_flushed=False,
    kill=False,
    power=lambda file: [file[1]] * 2,
    left=bool,
    yields=False,
    seen=0,
    order=sorted,
):
    def answer(events):
        files = {}
        for what, *names in events:
            if what == "write":
                files[names[0]] = write(files.get(names[0], ["", ""]), names[1])
            elif what == "flush":
                files.update(
                    {name: [files[name][0]] * 2 for name in (list(files) if all_flushed else names)}
                )
            elif what == "rename":
                file = files[names[0]] if stays else files.pop(names[0])
                files[names[1]] = (
                    files.get(names[1], moved(list(file))) if yields else moved(list(file))
                )
            elif what == "power" or kill:
                files = {name: power(file) for name, file in files.items() if left(file)}
        return [[name, file[seen]] for name, file in order(files.items())]

    return answer


### END SOLUTION


exercise(
    surviving_files,
    stars=3,
    minutes=15,
    cases=lambda draw: [[events] for events in surviving_files_cases(draw)],
    wrong={
        ### BEGIN SOLUTION
        "a killed program loses nothing that the system already has: only a power cut empties the memory": surviving_files_as(
            kill=True
        ),
        "nothing is ever lost here: a write reaches the disk only with a flush, and a power cut empties the memory": surviving_files_as(
            power=lambda file: file
        ),
        "the old content is still there after a write without a flush; a write empties the file on the disk": surviving_files_as(
            write=lambda old, text: [text, old[1]]
        ),
        "a flush flushes every file: it is meant for the one it names": surviving_files_as(
            all_flushed=True
        ),
        "a rename leaves the file under its old name as well: it moves, it does not copy": surviving_files_as(
            stays=True
        ),
        "a rename flushes, too: it touches the name alone": surviving_files_as(
            moved=lambda file: [file[0], file[0]]
        ),
        "after a rename the flushed content is forgotten: what is on the disk goes along": surviving_files_as(
            moved=lambda file: [file[0], ""]
        ),
        "after a rename the content in memory is forgotten: it goes along, too": surviving_files_as(
            moved=lambda file: [file[1], file[1]]
        ),
        "a file that was never flushed is gone after a power cut: its name is there, and it is empty": surviving_files_as(
            left=lambda file: file[1]
        ),
        "that is what is on the disk; programs see what is in memory": surviving_files_as(seen=1),
        "a rename does not replace a file that has the new name already: that one is gone": surviving_files_as(
            yields=True
        ),
        "the files stand in the order in which they came: sort them by name": surviving_files_as(
            order=list
        ),
        "after the power cut all files are empty: what was flushed comes back": surviving_files_as(
            power=lambda file: ["", file[1]]
        ),
        "after a power cut there are no files: what was flushed comes back, what was not is empty": surviving_files_as(
            left=lambda file: False
        ),
        ### END SOLUTION
    },
)
