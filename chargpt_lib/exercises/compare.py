"""Comparing values, and calling an answer within a time limit: what both the judge and the isolated worker need.

An answer may return a number where a tensor is wanted, raise an error, run for ever, forget its `return`, or change its
arguments in place. `call` turns all of that into an `Outcome`; `first_difference` says in one line what is wrong with a
value, and where.
"""

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

from chargpt_lib.exercises.cells import NotPython, python_source

HUGE = 2**1000  # a larger int cannot be compared with floats: their range ends at about 2**1024
SHOWN_DTYPES = (torch.float32, torch.float64, torch.int64, torch.bool)
MAX_SHOWN_ELEMENTS = 8  # of a tensor
MAX_SHOWN_ITEMS = 12  # of a list
MAX_SHOWN_CHARACTERS = 60  # of a text


# ---------------------------------------------------------------- values in words


def _format_short(value):
    """A number with four digits, a list or a tuple of such numbers, or the repr of anything else."""
    if isinstance(value, (list, tuple)):
        items = ", ".join(_format_short(item) for item in value)
        if isinstance(value, tuple):
            return f"({items})"
        return f"[{items}]"
    if isinstance(value, int) and abs(value) >= HUGE:
        return "a huge number"
    if isinstance(value, float):
        return f"{value:.4g}"
    return repr(value)


def _format_distinct(a, b):
    """Two different numbers with as few digits, from four to nine, as show that they differ."""
    for digits in range(4, 9):
        if f"{a:.{digits}g}" != f"{b:.{digits}g}":
            return f"{a:.{digits}g}", f"{b:.{digits}g}"
    return f"{a:.9g}", f"{b:.9g}"


def describe(value):
    """What a value is, in words; a small one is shown whole."""
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor):
        return _describe_tensor(value)
    if isinstance(value, (list, tuple)):
        return _describe_list(value)
    if isinstance(value, (int, float)):
        return _format_short(value)
    if isinstance(value, str):
        if len(value) <= MAX_SHOWN_CHARACTERS:
            return f"the text {value!r}"
        return f"a text of {len(value)}, {value[:50]!r}..."
    return f"something of the type {type(value).__name__}"


def _describe_tensor(value):
    dtype = str(value.dtype).removeprefix("torch.")
    text = f"a tensor {tuple(value.shape)} of {dtype}"
    if value.numel() <= MAX_SHOWN_ELEMENTS and value.dtype in SHOWN_DTYPES:
        text += f" {_format_short(value.tolist())}"
    return text


def _describe_list(value):
    name = type(value).__name__
    items = []  # those in tuples, such as pairs, one by one
    for item in value:
        if type(item) is tuple:
            items.extend(item)
        else:
            items.append(item)
    plain = all(type(item) in (bool, int, float, str) for item in items)
    if plain and max(len(value), len(items)) <= MAX_SHOWN_ITEMS:
        return f"a {name} {_format_short(value)}"
    return f"a {name} of {len(value)}"


def one_line(text, max_characters):
    """A text without line breaks, cut to a length, and without characters that UTF-8 cannot write."""
    line = " ".join(str(text).split())[:max_characters]
    return line.encode("utf-8", "replace").decode()


# ---------------------------------------------------------------- the first difference


class _Difference(NamedTuple):
    text: str
    place: tuple = ()  # indices into the value
    numbers: bool = False  # type and shape are right, and only numbers differ


def first_difference(got, want, atol=1e-5, rtol=1e-4):
    """The first Difference between two values, or None where they are the same; floats up to rounding."""
    # What is asked is the type of `want`, which is ours: `got` may be of a class whose == says yes to everything.
    if isinstance(want, (list, tuple)):
        return _list_difference(got, want, atol, rtol)
    if isinstance(want, torch.Tensor):
        return _tensor_difference(got, want, atol, rtol)
    return _scalar_difference(got, want, atol, rtol)


def _list_difference(got, want, atol, rtol):
    if not isinstance(got, (list, tuple)) or len(got) != len(want):
        return _Difference(f"it returns {describe(got)}, but {describe(want)} was expected")
    for i in range(len(want)):
        difference = first_difference(got[i], want[i], atol, rtol)
        if difference is not None:
            return difference._replace(text=f"item {i}: {difference.text}")
    return None


def _tensor_difference(got, want, atol, rtol):
    if not isinstance(got, torch.Tensor) or (got.shape, got.dtype) != (want.shape, want.dtype):
        return _Difference(f"it returns {describe(got)}, but {describe(want)} was expected")
    if want.is_floating_point():
        same = torch.isclose(got, want, rtol, atol, equal_nan=True)
    else:
        same = got == want
    if same.all():
        return None
    place = tuple((~same).nonzero()[0].tolist())
    got_text, want_text = _format_distinct(got[place].item(), want[place].item())
    text = f"at index {list(place)} it has {got_text}, but {want_text} was expected"
    return _Difference(text, place, numbers=True)


def _scalar_difference(got, want, atol, rtol):
    if isinstance(got, torch.Tensor) and got.dim() == 0:
        got = got.item()
    if isinstance(got, float):
        got = float(got)  # numpy's float64 is one, too
    numbers = {type(got), type(want)} <= {int, float}  # so a bool is no number here
    if isinstance(got, int) and abs(got) > HUGE:
        numbers = False  # math.isclose would raise an OverflowError
    if numbers and isinstance(want, float):
        both_nan = math.isnan(got) and math.isnan(want)
        same = both_nan or math.isclose(got, want, rel_tol=rtol, abs_tol=atol)
    elif numbers or type(got) is type(want):
        same = got == want
    else:
        same = False
    if same:
        return None
    if numbers:
        got_text, want_text = _format_distinct(got, want)
    else:
        got_text, want_text = describe(got), describe(want)
    text = f"it returns {got_text}, but {want_text} was expected"
    return _Difference(text, numbers=numbers)


# ---------------------------------------------------------------- calling an answer


class NotAttempted(Exception):
    """Raised by an exercise that nobody has answered yet."""


# What a learner is told, before the reason, where a cell cannot be run alone.
CELL_FAILS = "its cell fails when run on its own (it cannot use names from other cells)"

STATUSES = ("value", "blank", "error", "late", "changed", "unusable")


class Outcome(NamedTuple):
    """What came of a call.

    status: "value"; or "blank" (it raised NotAttempted), "error" (it raised something else, whose type is the value),
    "late" (it took too long), "changed" (it changed its arguments in place), "unusable" (it could not even be defined).
    """

    status: str
    value: object = None
    detail: str = ""  # what a learner is told


def copy_args(values):
    """A list of arguments in which tensors and lists are copied."""
    copies = []
    for value in values:
        if isinstance(value, torch.Tensor):
            copies.append(value.clone())
        elif isinstance(value, list):
            copies.append(copy_args(value))
        else:
            copies.append(value)
    return copies


def _error_text(error, file):
    """An error in one line, with the last line of `file`, the answer's cell, that was running."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    text = f"{type(error).__name__}: {one_line(error, 200)}"
    if line is not None:
        text += f" (line {line} of the cell)"
    return text


def wall_seconds(cpu_seconds):
    """How long that much processor time may take by the clock on the wall.

    Processor time is what counts, since other programs may keep the machine busy. But an answer that sleeps takes no
    processor time, and only the wall clock can end it.
    """
    return 10 * cpu_seconds + 5


INTERRUPT_PAUSE = 0.1  # seconds between two interrupts, in which the answer may clean up
MAX_CAUGHT = 3  # interrupts that an answer may catch before they come without a pause


class _TimeLimit:
    """How long one call may take, and the handler of SIGINT that ends it. Made in the thread of the call."""

    def __init__(self, seconds):
        now = time.monotonic()
        self.cpu_deadline = time.thread_time() + seconds
        self.wall_deadline = now + wall_seconds(seconds)
        # No thread can have had more processor time than has passed, so the watchdog need not look any earlier.
        self.next_interrupt = now + seconds
        self.interrupts = 0  # how often the call was interrupted for being late
        self.by_watchdog = False  # is a SIGINT of the watchdog on its way?
        self.finished = False
        self.cpu_clock = None  # of this thread, for the watchdog, where the system has such clocks
        if hasattr(time, "pthread_getcpuclockid"):
            self.cpu_clock = time.pthread_getcpuclockid(threading.get_ident())

    def may_be_late(self):
        """Asked by the watchdog: is the time over, as far as another thread can know?

        It must not interrupt without need: a Ctrl-C at the same moment would be taken for its own signal, and be lost.
        """
        if time.monotonic() < self.next_interrupt:
            return False
        if self.cpu_clock is None:
            return True
        try:
            cpu_seconds = time.clock_gettime(self.cpu_clock)
        except OSError:  # the answer has forked, and this is a copy of a thread that the copy lacks
            return True
        return cpu_seconds >= self.cpu_deadline or time.monotonic() >= self.wall_deadline

    def handle_interrupt(self, signal_number, frame):
        """The handler of SIGINT.

        Raises: KeyboardInterrupt for Ctrl-C, and where the signal is the watchdog's and the call is late.
        """
        if not self.by_watchdog:
            raise KeyboardInterrupt
        self.by_watchdog = False
        in_time = time.thread_time() < self.cpu_deadline and time.monotonic() < self.wall_deadline
        if self.finished or in_time:
            return
        self.interrupts += 1
        self.cpu_deadline = time.thread_time() + INTERRUPT_PAUSE
        self.wall_deadline = time.monotonic() + 1
        if self.interrupts > MAX_CAUGHT:
            # The answer catches every interrupt, as a bare `except:` in a loop does. The next one must therefore come
            # in the line after the `except`, where nothing catches it. Python runs a pending signal handler when a
            # call returns; after a plain `interrupt_main()` it would run this handler again at once, in here. A list
            # that is filled from a map calls without that check, so the signal is pending until the raise below.
            self.cpu_deadline = 0
            self.by_watchdog = True
            [*map(interrupt_main, [signal.SIGINT])]
        raise KeyboardInterrupt


# One thread watches all calls: a thread for each would cost more than most answers do.
WATCHED_LIMITS = []  # of the calls that run now, the innermost last
WATCH_LOCK = threading.Lock()
watchdog_thread = None


def _run_watchdog():
    """Interrupts the main thread, as Ctrl-C does, while the innermost call takes longer than it should."""
    while True:
        time.sleep(0.05 if WATCHED_LIMITS else 0.5)
        with WATCH_LOCK:  # so that no call is interrupted after its end
            if not WATCHED_LIMITS or not WATCHED_LIMITS[-1].may_be_late():
                continue
            limit = WATCHED_LIMITS[-1]
            limit.next_interrupt = time.monotonic() + INTERRUPT_PAUSE
            limit.by_watchdog = True
            try:
                # Unlike interrupt_main, a signal also wakes a thread that sleeps.
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            except (AttributeError, PermissionError):
                # Windows has no pthread_kill; in an isolated worker the audit hook refuses it.
                interrupt_main()


def _start_watching(limit):
    """Makes the watchdog look at this limit, and starts the watchdog where there is none."""
    global watchdog_thread
    # A process that was just forked has a copy of this variable, but none of the threads.
    if watchdog_thread is None or not watchdog_thread.is_alive():
        watchdog_thread = threading.Thread(target=_run_watchdog, daemon=True)
        watchdog_thread.start()
    WATCHED_LIMITS.append(limit)


class _DiscardOutput(io.TextIOBase):
    """A stream that forgets what an answer prints, so that printing for ever takes no memory."""

    def write(self, text):
        return len(text)


def call(function, args, seconds=5.0, file=None):
    """Calls an answer with copies of its arguments, and returns the Outcome.

    seconds: of processor time. file: the name under which the answer's cell was compiled, for the lines of errors.

    An answer that catches the interrupt is late all the same. One long operation inside torch cannot be interrupted;
    only the grader, which runs answers in other processes, can end it.

    Raises: KeyboardInterrupt where somebody presses Ctrl-C.
    """
    inputs = copy_args(args)
    limit = _TimeLimit(seconds)
    previous_handler = signal.signal(signal.SIGINT, limit.handle_interrupt)
    _start_watching(limit)
    try:
        with redirect_stdout(_DiscardOutput()), redirect_stderr(_DiscardOutput()):
            try:
                outcome = Outcome("value", function(*inputs))
            finally:
                limit.finished = True
    except NotAttempted:
        outcome = Outcome("blank", detail="not attempted")
    except BaseException as error:  # also SystemExit: an answer may call exit()
        if isinstance(error, KeyboardInterrupt) and limit.interrupts == 0:
            raise  # Ctrl-C
        text = _error_text(error, file or function.__code__.co_filename)
        outcome = Outcome("error", type(error).__name__, f"it raises {text}")
    finally:
        with WATCH_LOCK:
            WATCHED_LIMITS.remove(limit)
        if limit.by_watchdog:
            # Lets a signal on its way arrive here, and not in the learner's next cell.
            time.sleep(0)
        if previous_handler is None:
            previous_handler = signal.SIG_DFL
        signal.signal(signal.SIGINT, previous_handler)
    if limit.interrupts > 0:  # whatever the answer made of the interrupt
        return Outcome("late", detail=f"it takes longer than {seconds:g} s: does a loop never end?")
    if outcome.status == "value":
        for name, before, after in zip(inspect.signature(function).parameters, args, inputs):
            if first_difference(after, before):
                detail = f"it changes its input {name} in place: work on a copy"
                return Outcome("changed", outcome.value, detail)
    return outcome


# ---------------------------------------------------------------- values as JSON

# pickle could send any object, but whoever unpickles an object runs its code. So only plain values travel between the
# grader and its workers: numbers, texts, tensors and lists of them; of anything else only the name of its type.

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
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
MAX_DIMENSIONS = 16


def encode(value):
    """A plain value (numbers, texts, tensors, lists and tuples of them) as JSON; else only its type's name."""
    if value is None:
        return None
    for plain_type in (bool, int, float, str):
        if isinstance(value, plain_type):
            return plain_type(value)  # of a subclass, nothing but the plain value
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous()
        raw_bytes = data.flatten().view(torch.uint8).numpy().tobytes()
        return {
            "tensor": str(data.dtype).removeprefix("torch."),
            "shape": list(data.shape),
            "data": base64.b64encode(raw_bytes).decode(),
        }
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, tuple):
        # As a list, a pair would not be equal to the pairs of an answer, nor could it be the key of a dictionary.
        return {"tuple": [encode(item) for item in value]}
    return {"type": type(value).__name__}


def decode(value):
    """The value that `encode` wrote.

    Raises: ValueError, KeyError, TypeError or RuntimeError for what `encode` cannot have written.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"type"}:
        # An empty class of this name: describe() can say its name, and it equals nothing that is wanted.
        return type(str(value["type"])[:40], (), {})()
    if set(value) == {"tuple"}:
        return tuple(decode(item) for item in value["tuple"])
    dtype = DTYPES[value["tensor"]]
    shape = value["shape"]
    if len(shape) > MAX_DIMENSIONS or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"{shape!r} is not the shape of a tensor")
    data = bytearray(base64.b64decode(value["data"], validate=True))
    if not data:  # torch.frombuffer refuses an empty buffer
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).view(shape)


# ---------------------------------------------------------------- the text of a cell

# The cell itself may take so many times the seconds of a call: it may import something large.
DEFINE_FACTOR = 3


class _NoSession:
    """Stands for the IPython session: whatever is asked of it, it does nothing. So no magic runs in a judgement."""

    def __getattr__(self, name):
        return _do_nothing


def _do_nothing(*args, **kwargs):
    return None


def define(text, name, file="the cell"):
    """Runs the Python in the text of a cell, alone, and returns the function of this name that it defines.

    The cell finds math, torch, nn and F, as in a lesson, and nothing that another cell has defined. What belongs to the
    notebook, `check` and `display` among it, does nothing.

    Raises: NotPython where its text is something else; NameError where it defines no such function; whatever the cell
    itself raises before it has defined one.
    """
    source = python_source(text)
    namespace = {
        "__name__": "__main__",
        "math": math,
        "torch": torch,
        "nn": torch.nn,
        "F": torch.nn.functional,
        "NotAttempted": NotAttempted,
        "check": _do_nothing,
        "progress": _do_nothing,
        "passed": _do_nothing,
        "display": _do_nothing,
        "get_ipython": _NoSession,
    }
    try:
        exec(compile(source, file, "exec"), namespace)
    except Exception:
        # Below the function people try it out, draw it or check it. Where only that fails, the function counts.
        if name not in namespace:
            raise
    if not inspect.isfunction(namespace.get(name)):
        raise NameError(f"the cell defines no function {name}")
    return namespace[name]


def define_answer(text, name, seconds, file="the cell"):
    """The Outcome of defining an answer: the function as its value, or "unusable" and what a learner is told.

    seconds: of processor time that one call of the answer may take.
    """
    try:
        source = python_source(text)
    except NotPython as error:
        return Outcome("unusable", detail=str(error))
    defined = call(lambda: define(source, name, file), [], DEFINE_FACTOR * seconds, file=file)
    if defined.status != "value":
        return Outcome("unusable", detail=f"{CELL_FAILS}: {defined.detail}")
    return defined
