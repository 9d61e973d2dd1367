"""Comparing values, and calling an answer within its time: what both the judge and the isolated worker need."""

import base64
import inspect
import io
import math
import signal
import threading
import time
from _thread import interrupt_main
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import torch

HUGE = 2**1000  # what is larger has no place among floats
SHOWN = (torch.float32, torch.float64, torch.int64, torch.bool)


def shorter(value):
    """Numbers with four digits, in lists too."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(shorter, value))}]"
    if isinstance(value, int) and abs(value) >= HUGE:
        return "a huge number"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def apart(a, b):
    """Two numbers with as many digits as it takes to tell them apart."""
    digits = next((n for n in range(4, 9) if f"{a:.{n}g}" != f"{b:.{n}g}"), 9)
    return f"{a:.{digits}g}", f"{b:.{digits}g}"


class Difference(NamedTuple):
    text: str
    place: tuple = ()  # where in the value
    numbers: bool = False  # the right type and shape, other numbers


def kind(value):
    """What a value is, in words; a small one is shown whole."""
    if isinstance(value, torch.Tensor):
        numbers = value.tolist() if value.numel() <= 8 and value.dtype in SHOWN else None
        shown = f" {shorter(numbers)}" if numbers is not None else ""
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}{shown}"
    if isinstance(value, (list, tuple)):
        name, plain = (
            type(value).__name__,
            all(type(part) in (bool, int, float, str) for part in value),
        )
        return (
            f"a {name} {shorter(value)}"
            if plain and len(value) <= 12
            else f"a {name} of {len(value)}"
        )
    if isinstance(value, (int, float)):
        return shorter(value)
    if isinstance(value, str):
        return (
            f"the text {value!r}"
            if len(value) <= 60
            else f"a text of {len(value)}, {value[:50]!r}..."
        )
    return "None" if value is None else f"something of the type {type(value).__name__}"


def first_difference(got, want, atol=1e-5, rtol=1e-4):
    """None where two values are the same (numbers up to rounding), else their first Difference."""
    if isinstance(want, (list, tuple)):
        if not isinstance(got, (list, tuple)) or len(got) != len(want):
            return Difference(f"it returns {kind(got)}, and {kind(want)} is wanted")
        found = [first_difference(*pair, atol, rtol) for pair in zip(got, want)]
        first = next((i for i, difference in enumerate(found) if difference), None)
        return (
            first
            if first is None
            else found[first]._replace(text=f"item {first}: {found[first].text}")
        )
    if isinstance(want, torch.Tensor):
        if not isinstance(got, torch.Tensor) or (got.shape, got.dtype) != (want.shape, want.dtype):
            return Difference(f"it returns {kind(got)}, and {kind(want)} is wanted")
        same = (
            torch.isclose(got, want, rtol, atol, equal_nan=True)
            if want.is_floating_point()
            else got == want
        )
        if same.all():
            return None
        place = tuple((~same).nonzero()[0].tolist())
        has, right = apart(got[place].item(), want[place].item())
        return Difference(
            f"at {list(place)} it has {has}, and {right} is right", place, numbers=True
        )
    got = got.item() if isinstance(got, torch.Tensor) and got.dim() == 0 else got
    numbers = {type(got), type(want)} <= {int, float} and not (
        isinstance(got, int) and abs(got) > HUGE
    )
    same = (numbers or type(got) is type(want)) and got == want
    if numbers and isinstance(want, float):
        same = math.isclose(got, want, rel_tol=rtol, abs_tol=atol) or (got != got and want != want)
    texts = apart(got, want) if numbers else (kind(got), kind(want))
    return (
        None
        if same
        else Difference(f"it returns {texts[0]}, and {texts[1]} is right", numbers=numbers)
    )


class NotAttempted(Exception):
    """Raised by an exercise that nobody has answered yet."""


class Outcome(NamedTuple):
    """What came of a call: a "value", or nothing of use ("blank", "error", "late", "changed",
    "unusable": not even defined), with the details."""

    status: str
    value: object = None
    detail: str = ""


def copies(values):
    return [
        value.clone()
        if isinstance(value, torch.Tensor)
        else copies(value)
        if isinstance(value, list)
        else value
        for value in values
    ]


def error_text(error, file):
    """The error in one line, with the line of the answer's cell where it arose."""
    lines, trace = [], error.__traceback__
    while trace:
        lines += [trace.tb_lineno] if trace.tb_frame.f_code.co_filename == file else []
        trace = trace.tb_next
    where = f" (line {lines[-1]} of the cell)" if lines else ""
    text = " ".join(str(error).split())[:200].encode("utf-8", "replace").decode()
    return f"{type(error).__name__}: {text}{where}"


def wall_clock(seconds):
    """How long that much processor time may take by the clock on the wall: others compute, too, or an answer sleeps."""
    return 10 * seconds + 5


class Limit:
    """How long a call may take, and what interrupts it. One for each call, made in its thread."""

    def __init__(self, seconds):
        self.processor = time.thread_time() + seconds
        self.wall = time.monotonic() + wall_clock(seconds)
        self.next_knock = (
            time.monotonic() + seconds
        )  # no thread has had more processor time than has passed
        self.late = 0  # how often it was interrupted for that
        self.knocked = self.over = False

    def interrupt(self, number, frame):
        """The handler of SIGINT: KeyboardInterrupt for Ctrl-C, and where the watchdog knocks and the call is late."""
        if not self.knocked:
            raise KeyboardInterrupt
        self.knocked = False
        if self.over or (time.thread_time() < self.processor and time.monotonic() < self.wall):
            return
        self.late += 1
        self.processor = time.thread_time() + 0.1  # to clean up
        self.wall = time.monotonic() + 1
        if self.late > 3:
            self.processor = 0
            self.knocked = True
            [
                *map(interrupt_main, [signal.SIGINT])
            ]  # after a call of its own, Python would come back at once, in here
        raise KeyboardInterrupt


WATCHED, WATCHDOGS, LOCK = (
    [],
    [],
    threading.Lock(),
)  # the limits of the calls that run, the innermost last


def watchdog():
    """A thread that knocks at the main thread, as Ctrl-C does, while the call that runs takes longer than it should."""
    while True:
        time.sleep(0.05 if WATCHED else 0.5)
        with LOCK:  # so that nobody knocks at a call that has ended
            if WATCHED and time.monotonic() >= WATCHED[-1].next_knock:
                WATCHED[-1].next_knock = time.monotonic() + 0.1
                WATCHED[-1].knocked = True
                try:
                    signal.pthread_kill(
                        threading.main_thread().ident, signal.SIGINT
                    )  # wakes one who sleeps, too
                except (
                    AttributeError,
                    PermissionError,
                ):  # Windows has no such call; behind the lock it is refused
                    interrupt_main()


def watch(limit):
    """From now on the watchdog looks at this limit."""
    if not WATCHDOGS or not WATCHDOGS[-1].is_alive():  # a copy of the process has no thread but one
        WATCHDOGS.append(threading.Thread(target=watchdog, daemon=True))
        WATCHDOGS[-1].start()
    WATCHED.append(limit)


class Silence(io.TextIOBase):
    """Where the printing of answers goes."""

    def write(self, text):
        return len(text)


def call(function, args, seconds=5.0, file=None):
    """Calls an answer with copies of its arguments, for so much processor time -> Outcome. file: its cell's."""
    inputs = copies(args)
    limit = Limit(seconds)
    outer = signal.signal(signal.SIGINT, limit.interrupt)
    watch(limit)
    try:
        with redirect_stdout(Silence()), redirect_stderr(Silence()):
            try:
                outcome = Outcome("value", function(*inputs))
            finally:
                limit.over = True
    except NotAttempted:
        outcome = Outcome("blank", detail="not attempted")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not limit.late:
            raise  # somebody pressed Ctrl-C
        text = error_text(error, file or function.__code__.co_filename)
        outcome = Outcome("error", type(error).__name__, f"it raises {text}")
    finally:
        with LOCK:
            WATCHED.remove(limit)
        if limit.knocked:
            time.sleep(
                0
            )  # a signal that is on its way arrives here, and not in the learner's next cell
        signal.signal(signal.SIGINT, signal.SIG_DFL if outer is None else outer)
    if limit.late:  # whatever it made of the interrupt
        return Outcome("late", detail=f"it takes longer than {seconds:g} s: does a loop never end?")
    if outcome.status == "value":
        for name, before, after in zip(inspect.signature(function).parameters, args, inputs):
            if first_difference(after, before):
                return Outcome(
                    "changed",
                    outcome.value,
                    f"it changes its input {name} in place: work on a copy",
                )
    return outcome


DTYPES = {
    str(dtype)[6:]: dtype
    for dtype in (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.complex64,
        torch.complex128,
    )
}


def encode(value):
    """A plain value (numbers, texts, tensors, lists of them) as JSON; anything else only as its type's name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return next(
            (sort(value) for sort in (bool, int, float, str) if isinstance(value, sort)), None
        )
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous()
        return {
            "tensor": str(data.dtype)[6:],
            "shape": list(data.shape),
            "data": base64.b64encode(data.flatten().view(torch.uint8).numpy().tobytes()).decode(),
        }
    if isinstance(value, (list, tuple)):
        return [encode(part) for part in value]
    return {"type": type(value).__name__}


def decode(value):
    """What `encode` wrote. ValueError for anything that it cannot have written."""
    if isinstance(value, list):
        return [decode(part) for part in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"type"}:
        return type(str(value["type"])[:40], (), {})()
    dtype, shape = DTYPES[value["tensor"]], value["shape"]
    if len(shape) > 16 or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("not a tensor")
    data = bytearray(base64.b64decode(value["data"], validate=True))
    return (
        torch.frombuffer(data, dtype=dtype).view(shape) if data else torch.empty(shape, dtype=dtype)
    )


def define(source, name, file="the cell"):
    """Runs the text of a cell -> the function that it defines under this name. Whatever the cell raises before that."""
    names = {
        "__name__": "__main__",
        "math": math,
        "torch": torch,
        "nn": torch.nn,
        "F": torch.nn.functional,
        "NotAttempted": NotAttempted,
        **dict.fromkeys(("check", "progress"), lambda *args: None),
    }
    try:
        exec(compile(source, file, "exec"), names)
    except Exception:
        if name not in names:
            raise
    if not inspect.isfunction(names.get(name)):
        raise NameError(f"the cell defines no function {name}")
    return names[name]
