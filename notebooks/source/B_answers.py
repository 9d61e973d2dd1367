# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # B · Answers: what can come of a call
#
# You will build: a way to call a function that somebody else wrote, which may be wrong in every way, and to say in one line what came of it.
# You need Python. The page runs in a few seconds.
#
# A learner's function is a stranger. It may return a number where a tensor is wanted, raise an error, run for ever, forget its `return`, or change the inputs under our hands. [B · Checks](B_checks.ipynb) judges what it returns; this page gets it to return anything at all.

# %%
#| default_exp answers

# %%
#| export
import base64
import inspect
import io
import math
import signal
import threading
from _thread import interrupt_main
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import torch

# %% [markdown]
# ## The same?
#
# A tensor is right if its shape, its type and its numbers are right, the numbers up to rounding. If it is not, we want to say what is wrong, and where. One function does both: it gives `None` for the same, else a sentence and a place.

# %%
#| export
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
        name, plain = type(value).__name__, all(type(part) in (bool, int, float, str) for part in value)
        return f"a {name} {shorter(value)}" if plain and len(value) <= 12 else f"a {name} of {len(value)}"
    if isinstance(value, (int, float)):
        return shorter(value)
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else f"a text of {len(value)}, {value[:50]!r}..."
    return "None" if value is None else f"something of the type {type(value).__name__}"

# %%
#| export
def first_difference(got, want, atol=1e-5, rtol=1e-4):
    """None where two values are the same (numbers up to rounding), else their first Difference."""
    if isinstance(want, (list, tuple)):
        if not isinstance(got, (list, tuple)) or len(got) != len(want):
            return Difference(f"it returns {kind(got)}, and {kind(want)} is wanted")
        found = [first_difference(*pair, atol, rtol) for pair in zip(got, want)]
        first = next((i for i, difference in enumerate(found) if difference), None)
        return first if first is None else found[first]._replace(text=f"item {first}: {found[first].text}")
    if isinstance(want, torch.Tensor):
        if not isinstance(got, torch.Tensor) or (got.shape, got.dtype) != (want.shape, want.dtype):
            return Difference(f"it returns {kind(got)}, and {kind(want)} is wanted")
        same = torch.isclose(got, want, rtol, atol, equal_nan=True) if want.is_floating_point() else got == want
        if same.all():
            return None
        place = tuple((~same).nonzero()[0].tolist())
        has, right = apart(got[place].item(), want[place].item())
        return Difference(f"at {list(place)} it has {has}, and {right} is right", place, numbers=True)
    got = got.item() if isinstance(got, torch.Tensor) and got.dim() == 0 else got
    numbers = {type(got), type(want)} <= {int, float} and not (isinstance(got, int) and abs(got) > HUGE)
    same = (numbers or type(got) is type(want)) and got == want
    if numbers and isinstance(want, float):
        same = math.isclose(got, want, rel_tol=rtol, abs_tol=atol) or (got != got and want != want)
    texts = apart(got, want) if numbers else (kind(got), kind(want))
    return None if same else Difference(f"it returns {texts[0]}, and {texts[1]} is right", numbers=numbers)

# %%
for got in (torch.tensor([1.0, 2.5]), torch.tensor([[1.0, 2.0]]), [1.0, 2.0], torch.tensor([1.0, 2.0])):
    print(first_difference(got, torch.tensor([1.0, 2.0])))

# %% [markdown]
# ## A call that goes wrong
#
# So an answer is called with care: on copies, with a time limit, and with its printing switched off. What comes of it is an **outcome**.
#
# The time limit is a timer that does what Ctrl-C does. An answer that catches everything, Ctrl-C too, or that sits in one long operation of torch, goes on all the same; in a notebook, restart the kernel. Only the sandbox can stop that.

# %%
#| export
class NotAttempted(Exception):
    """Raised by an exercise that nobody has answered yet."""


class Outcome(NamedTuple):
    """What came of a call: a "value", or nothing of use ("blank", "error", "late", "changed",
    "unusable": not even defined), with the details."""

    sort: str
    value: object = None
    detail: str = ""


def copies(values):
    return [value.clone() if isinstance(value, torch.Tensor) else copies(value) if isinstance(value, list) else value
            for value in values]

# %%
#| export
def error_text(error, file):
    """The error in one line, with the line of the answer's cell where it arose."""
    lines, trace = [], error.__traceback__
    while trace:
        lines += [trace.tb_lineno] if trace.tb_frame.f_code.co_filename == file else []
        trace = trace.tb_next
    where = f" (line {lines[-1]} of the cell)" if lines else ""
    text = " ".join(str(error).split())[:200].encode("utf-8", "replace").decode()
    return f"{type(error).__name__}: {text}{where}"

# %%
#| export
class Silence(io.TextIOBase):
    """Where the printing of answers goes."""

    def write(self, text):
        return len(text)


def call(function, args, seconds=5.0, file=None):
    """Calls an answer with copies of its arguments -> Outcome. file: the cell's, where it is not the function's."""
    inputs, late = copies(args), threading.Event()
    timer = threading.Timer(seconds, lambda: (late.set(), interrupt_main()))
    timer.daemon = True
    on_interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
    try:
        with redirect_stdout(Silence()), redirect_stderr(Silence()):
            timer.start()
            try:
                value = function(*inputs)
            finally:
                timer.cancel()
                timer.join()  # an interrupt that is on its way arrives here
    except NotAttempted:
        return Outcome("blank", detail="not attempted")
    except KeyboardInterrupt:
        if not late.is_set():
            raise
        return Outcome("late", detail=f"it takes longer than {seconds:g} s: does a loop never end?")
    except BaseException as error:
        text = error_text(error, file or function.__code__.co_filename)
        return Outcome("error", type(error).__name__, f"it raises {text}")
    finally:
        signal.signal(signal.SIGINT, on_interrupt or signal.SIG_DFL)
    for name, before, after in zip(inspect.signature(function).parameters, args, inputs):
        if first_difference(after, before):
            return Outcome("changed", value, f"it changes its input {name} in place: work on a copy")
    return Outcome("value", value)

# %%
def endless(x):
    while True:
        pass

def in_place(x):
    return x.mul_(2)

x = torch.arange(3)
for answer in (endless, in_place, lambda x: x[9]):
    print(call(answer, [x], seconds=0.2).detail)

# %% [markdown]
# ## In writing
#
# When a class is graded, the answer runs in another process, locked up ([B · Sandbox](B_sandbox.ipynb)). Inputs and values then travel as text. Python could send any object (pickle), but whoever unpickles an object runs its code. So only plain values travel: numbers, texts, tensors, and lists of them. Of anything else goes only the name of its type.

# %%
#| export
DTYPES = {str(dtype)[6:]: dtype for dtype in (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.complex128)}


def encode(value):
    """A plain value (numbers, texts, tensors, lists of them) as JSON; anything else only as its type's name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return next((sort(value) for sort in (bool, int, float, str) if isinstance(value, sort)), None)
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous()
        return {"tensor": str(data.dtype)[6:], "shape": list(data.shape),
                "data": base64.b64encode(data.flatten().view(torch.uint8).numpy().tobytes()).decode()}
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
    return torch.frombuffer(data, dtype=dtype).view(shape) if data else torch.empty(shape, dtype=dtype)

# %%
for value in (2.5, [1, "two"], torch.tensor([1.0, 2.0]), object()):
    print(encode(value))
print(decode(encode([torch.tensor([[1, 2]]), "goose"])))

# %% [markdown]
# ## A cell, alone in the world
#
# An answer has to stand in one cell, because a grader takes only that cell. So its text is run in a namespace of its own, with `math`, `torch`, `nn` and `F` in it. A function that borrows a variable from another cell fails here, and not on the day of the grading.
#
# Below the function people try it out, draw it, or check it. If that fails, the function is there all the same.

# %%
#| export
def define(source, name, file="the cell"):
    """Runs the text of a cell -> the function that it defines under this name. Whatever the cell raises before that."""
    names = {"__name__": "__main__", "math": math, "torch": torch, "nn": torch.nn, "F": torch.nn.functional,
             "NotAttempted": NotAttempted, **dict.fromkeys(("check", "progress"), lambda *args: None)}
    try:
        exec(compile(source, file, "exec"), names)
    except Exception:
        if name not in names:
            raise
    if not inspect.isfunction(names.get(name)):
        raise NameError(f"the cell defines no function {name}")
    return names[name]

# %%
double = define("def double(x):\n    return 2 * x\n\ndouble(goose)", "double")
print(double(21))
borrowing = define("def greet():\n    return EXAMPLE", "greet")
EXAMPLE = "O damp goose!"
print(call(borrowing, []).detail)

# %% [markdown]
# ## What you have
#
# `first_difference`, `call` and its `Outcome`, `encode` and `decode`, `define`, in `chargpt_lib/answers.py`.
#
# Next: [B · Checks](B_checks.ipynb), which judges.
