"""What can come of a call, and what is the same."""

import json
import math
import os
import re
import signal
import threading
import time

import numpy as np
import pytest
import torch

from chargpt_lib.exercises import compare
from chargpt_lib.exercises.compare import (
    NotAttempted,
    _error_text,
    call,
    decode,
    define,
    describe,
    encode,
    first_difference,
)

same = [
    (1.0, 1.0 + 1e-7),
    (np.float64(1.0), 1.0),
    ([np.float64(1.0), 2], [1.0, 2]),
    (2, 2),
    (2.0, 2),
    (torch.tensor(2.0), 2.0),
    ("goose", "goose"),
    (None, None),
    (True, True),
    (float("nan"), float("nan")),
    (float("inf"), float("inf")),
    ([1, (2.0, "x")], (1, [2.0, "x"])),
    (torch.ones(2, 3), torch.ones(2, 3) + 1e-7),
    (torch.tensor([float("nan")]), torch.tensor([float("nan")])),
    (torch.zeros(0, 3), torch.zeros(0, 3)),
    (torch.ones(2, requires_grad=True), torch.ones(2)),
]
different = [
    (1.0, 1.1),
    (2.5, 2),
    (3, 2),
    ("2", 2),
    (True, 1),
    (1, True),
    (None, 0),
    (0, None),
    (float("nan"), 1.0),
    (100_001, 100_000),
    ([1, 2], [1, 2, 3]),
    (2, [2]),
    ([1, 3], [1, 2]),
    (torch.ones(2), [1.0, 1.0]),
    ([1.0, 1.0], torch.ones(2)),
    (torch.ones(2), torch.ones(2, 1)),
    (torch.ones(2), torch.ones(2).double()),
    (torch.ones(2).long(), torch.ones(2).bool()),
    (10**400, 1.0),
    (10**400, 3),
    (torch.ones(3), 1.0),
    (torch.ones(0), 1.0),
    (torch.ones(2), True),
    (torch.ones(2), "x"),
    (-(10**400), float("nan")),
    (1e400, 5),
    ([10**400], [1.0]),
    (torch.tensor([1 + 1j]), 1.0),
    (torch.tensor(1j), 1.0),
    (torch.tensor([1, 2]), torch.tensor([1, 3])),
    (torch.tensor([float("nan")]), torch.tensor([0.0])),
    (object(), 1.0),
]


@pytest.mark.parametrize("got, want", same)
def test_the_same(got, want):
    assert first_difference(got, want) is None


@pytest.mark.parametrize("got, want", different)
def test_not_the_same(got, want):
    difference = first_difference(got, want)
    assert difference.text and "\n" not in difference.text


def test_a_difference_names_its_place():
    want = torch.arange(6.0).view(2, 3)
    got = want.clone()
    got[1, 2] = 9
    difference = first_difference(got, want)
    assert (
        difference.place == (1, 2)
        and difference.numbers
        and "9" in difference.text
        and "5" in difference.text
    )
    assert not first_difference(got.double(), want).numbers


def test_numbers_that_differ_look_different():
    for a, b in ((3.37912, 3.37861), (1.0, 1.00002 * 1.0005), (-0.77877, -0.77861)):
        for got, want in ((a, b), (torch.tensor([a]), torch.tensor([b]))):
            found = re.search(
                r"(?:has|returns) (\S+), but (\S+) was expected",
                first_difference(got, want, 1e-7, 1e-7).text,
            )
            assert found and found[1] != found[2]


@pytest.mark.parametrize(
    "value, text",
    [
        (torch.tensor([0.12344, 2.0]), "a tensor (2,) of float32 [0.1234, 2]"),
        (torch.ones(3, 3), "a tensor (3, 3) of float32"),
        ([1, 2], "a list [1, 2]"),
        ([0] * 20, "a list of 20"),
        ([torch.ones(1)], "a list of 1"),
        (0.3455657787, "0.3456"),
        (["a", "b"], "a list ['a', 'b']"),
        (("x" * 99, None), "a tuple of 2"),
        ((1, 2.5), "a tuple (1, 2.5)"),
        ([("a", "b"), ("ab", "c")], "a list [('a', 'b'), ('ab', 'c')]"),
        ([("a", "b")] * 7, "a list of 7"),
        ([10**400], "a list [a huge number]"),
        ("goose", "the text 'goose'"),
        ("x" * 100, "a text of 100, '" + "x" * 50 + "'..."),
        (None, "None"),
        (True, "True"),
    ],
)
def test_values_in_words(value, text):
    assert describe(value) == text


def test_equality_of_a_stranger_is_never_asked():
    class Yes:
        def __eq__(self, other):
            return True

    for want in (1, 1.0, "yes", True, None, [1], torch.ones(1)):
        assert first_difference(Yes(), want)


def test_calls():
    assert call(lambda x: x + 1, [1]).value == 2
    assert call(lambda: None, [])[:2] == ("value", None)
    with_line = call(define("def f(x):\n    y = 1\n    return x[5]", "f"), [[1]])
    assert (
        with_line.status == "error"
        and "IndexError" in with_line.detail
        and "line 3 of the cell" in with_line.detail
    )


def test_blank_exits_and_endless_loops():
    def blank():
        raise NotAttempted

    def endless():
        while True:
            pass

    assert call(blank, []).status == "blank"
    assert call(lambda: exit(), []).value == "SystemExit"
    assert call(lambda: (yield), []).status == "value"
    began = time.thread_time()
    assert call(endless, [], seconds=0.2).status == "late" and 0.2 <= time.thread_time() - began < 2


def test_processor_time_is_what_counts(monkeypatch):
    """The same second: computed it is too long, slept it is not, unless the clock on the wall has had enough, too."""

    def computes():
        end = time.thread_time() + 1
        while time.thread_time() < end:
            pass

    def sleeps():
        time.sleep(1)

    assert call(computes, [], seconds=0.3).status == "late"
    assert call(sleeps, [], seconds=0.3).status == "value"
    monkeypatch.setattr(compare, "wall_seconds", lambda seconds: seconds)
    began = time.monotonic()
    assert (
        call(lambda: time.sleep(600), [], seconds=0.3).status == "late"
    )  # one who sleeps is woken
    assert time.monotonic() - began < 300


def once():
    try:
        while True:
            pass
    except BaseException:
        return 1


def another():
    try:
        while True:
            pass
    except BaseException:
        raise NotAttempted


def stubborn():
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


def in_a_generator():
    def numbers():
        while True:
            try:
                yield 1
            except BaseException:
                pass

    while True:
        try:
            for number in numbers():
                pass
        except BaseException:
            pass


def one_in_the_other():
    try:
        stubborn()
    except BaseException:
        one_in_the_other()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # a generator may not be ended quietly
@pytest.mark.parametrize(
    "answer",
    [once, another, stubborn, in_a_generator, one_in_the_other],
    ids=lambda answer: answer.__name__,
)
def test_who_catches_the_interrupt_is_late_all_the_same(answer):
    before = signal.getsignal(signal.SIGINT)
    assert call(answer, [], seconds=0.2).status == "late"
    assert signal.getsignal(signal.SIGINT) is before
    for _ in range(100_000):  # no interrupt is left over for the next cell
        pass


def test_an_interrupted_answer_cleans_up():
    def endless():
        with torch.no_grad():
            while True:
                pass

    assert call(endless, [], seconds=0.2).status == "late" and torch.is_grad_enabled()


def test_calls_within_calls_keep_their_own_limits():
    def inner():
        return [call(stubborn, [], seconds=0.1).status, call(lambda: 3, []).value]

    assert call(inner, [], seconds=60).value == ["late", 3]
    assert call(lambda: [call(lambda: 3, []), stubborn()], [], seconds=0.2).status == "late"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_copy_of_the_process_has_a_watchdog_too():
    call(lambda: 3, [])
    pid = os.fork()
    if pid == 0:
        os._exit(7 if call(stubborn, [], seconds=0.1).status == "late" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_an_endless_loop_ends_in_the_background_too():
    """A shell starts background processes with SIGINT ignored; afterwards it is as it was."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        source = "def f():\n    while True:\n        pass"
        assert call(define(source, "f"), [], seconds=0.2).status == "late"
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_printing_takes_no_memory():
    def floods():
        for _ in range(300):
            print("x" * 10_000_000)

    resource = pytest.importorskip("resource")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert call(floods, []).status == "value"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 500_000


def test_the_users_own_ctrl_c_goes_through():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(interrupted, [])


@pytest.mark.skipif(
    not hasattr(time, "pthread_getcpuclockid"),
    reason="here no thread can ask for another one's processor time",
)
def test_the_watchdog_interrupts_only_what_is_late(monkeypatch):
    """Else a Ctrl-C that comes at the same moment as its signal would be taken for it, and be lost."""
    sent = []
    monkeypatch.setattr(compare, "wall_seconds", lambda seconds: 600)
    monkeypatch.setattr(compare.signal, "pthread_kill", lambda *args: sent.append(args))
    assert call(lambda: time.sleep(1), [], seconds=0.1).status == "value"
    assert sent == []


@pytest.mark.parametrize(
    "seconds", [0.1, 60], ids=["while the watchdog interrupts", "before it does"]
)
def test_a_ctrl_c_from_outside_goes_through(seconds, monkeypatch):
    """The signal itself; in the first case the answer sleeps, so that the watchdog interrupts in vain all the time."""
    monkeypatch.setattr(compare, "wall_seconds", lambda seconds: 600)
    timer = threading.Timer(1, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call(lambda: time.sleep(300), [], seconds=seconds)
    finally:
        timer.join()


def test_inputs_are_copies_and_changes_are_told():
    x, numbers = torch.ones(3), [1, 2]
    changed = call(lambda x: x.add_(1), [x])
    assert changed.status == "changed" and "x" in changed.detail and x.eq(1).all()
    assert call(lambda items: items.append(3), [numbers]).status == "changed" and numbers == [1, 2]
    assert call(lambda x: x.unsqueeze_(0), [x]).status == "changed"


def test_printing_is_switched_off(capsys):
    assert call(lambda: print("goose") or 1, []).value == 1
    assert capsys.readouterr().out == ""


def test_errors_are_one_short_line():
    _error_text(ValueError("\ud800"), "x").encode()
    text = _error_text(ValueError("a\nb" * 1000), "x")
    assert "\n" not in text and len(text) < 300


values = [
    None,
    True,
    3,
    -2.5,
    math.inf,
    "O damp goose! é ⏎",
    [1, [2.0, "x"]],
    [("a", "b"), ("ab", (1, 2.5))],
    (),
    torch.tensor(1.5),
    torch.ones(2, 0, 3),
    torch.arange(6).view(2, 3),
    torch.tensor([True, False]),
    torch.randn(3, 2, dtype=torch.float64).T,
    torch.ones(2, dtype=torch.bfloat16),
]


@pytest.mark.parametrize("value", values, ids=range(len(values)))
def test_plain_values_travel(value):
    back = decode(json.loads(json.dumps(encode(value))))
    assert first_difference(back, value) is None and type(back) is type(value)


def test_pairs_stay_pairs():
    """Pairs that came back as lists would not be in the dictionary that an answer makes of them."""
    pairs = [("a", "b"), ("ab", "c")]
    assert decode(json.loads(json.dumps(encode(pairs)))) == pairs


def test_of_other_things_only_the_type_travels():
    class Goose(int):
        def __reduce__(self):
            raise AssertionError("pickled")

    assert type(encode(Goose(3))) is int
    assert (
        encode(object()) == {"type": "object"}
        and type(decode({"type": "object"})).__name__ == "object"
    )
    assert encode(torch.nn.Parameter(torch.ones(1)))["tensor"] == "float32"


@pytest.mark.parametrize(
    "lie",
    [
        {"tensor": "float32", "shape": [3], "data": "AAAA"},
        {"tensor": "save", "shape": [1], "data": ""},
        {"tensor": "float32", "shape": [-1], "data": "AAAAAA=="},
        {"tensor": "float32", "shape": [10**12], "data": ""},
        {"tensor": "quint8", "shape": [1], "data": "AA=="},
        {"tensor": "bits8", "shape": [1], "data": "AA=="},
        {"tensor": "float32", "shape": [1] * 99, "data": "AAAAAA=="},
        {"tensor": ["x"], "shape": [1], "data": ""},
        {"tensor": "float32"},
        {"tensor": "float32", "shape": "x", "data": ""},
        {"tuple": 3},
        {"x": 1},
        {},
        {"tensor": "float32", "shape": [1], "data": "no base64!"},
    ],
)
def test_what_nobody_encoded_is_refused(lie):
    with pytest.raises((ValueError, KeyError, TypeError, RuntimeError)):
        decode(lie)


def test_a_cell_alone():
    assert define("import math\nK = 2\ndef f():\n    return K * math.pi", "f")() == 2 * math.pi
    assert define("def f():\n    return 1\nshow(goose)", "f")() == 1
    assert define("def f():\n    return 1\ncheck('f', f)\nprogress()", "f")() == 1
    for source, error in (
        ("x = 1", NameError),
        ("f = 1", NameError),
        ("def f(:", SyntaxError),
        ("goose", NameError),
    ):
        with pytest.raises(error):
            define(source, "f")
