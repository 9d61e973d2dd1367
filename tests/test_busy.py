"""With eight other processes at work: right answers stay right, and what never ends is late, in the notebook and in a worker."""

import signal
import subprocess
import sys

import pytest

from chargpt_lib.exercises.compare import call, define
from chargpt_lib.exercises.judge import Exercise, judge
from chargpt_lib.grading.worker import WorkerPool
from tests.hostile.answers import CHEATS, SOLUTION
from tests.hostile.answers import answer as cell

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "alarm"), reason="Windows has no alarm, and isolates no answer"
)
BUSY = """
import signal
import sys
signal.alarm(int(sys.argv[1]))  # whatever becomes of the test
while True:
    pass
"""
LOAD = 8  # processes
MOST = 300  # seconds, after which they end by themselves
SECONDS = 0.4  # of processor time for each answer, half of which the slow one takes


SLOW = cell(f"""
import time
end = time.thread_time() + {SECONDS / 2}
while time.thread_time() < end:
    pass
t, s = torch.arange(T)[:, None], torch.arange(T)
return (s <= t) & (s > t - w)
""")
IGNORES_INTERRUPTS = cell("""
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True:
    pass
""")
RIGHT = {"quick": SOLUTION, "slow": SLOW}
WRONG = {name: CHEATS[name] for name in ("endless_when_called", "endless_and_stubborn", "sleeps")}
# Only the grader can stop what ignores interrupts.
ONLY_IN_A_WORKER = WRONG | {
    "ignores_interrupts": IGNORES_INTERRUPTS,
    "patches_json": CHEATS["patches_json"],
}
EXERCISE = Exercise(
    define(SOLUTION, "window_mask"),
    cases=lambda draw: [[2, 1], [draw.integer(5, 9), 3]],
    stars=1,
    minutes=1,
    seconds=SECONDS,
)


@pytest.fixture(scope="module", autouse=True)
def load():
    """Eight processes that do nothing, as fast as they can."""
    busy = []
    try:
        for _ in range(LOAD):
            busy.append(subprocess.Popen([sys.executable, "-S", "-c", BUSY, str(MOST)]))
        yield busy
        assert all(process.poll() is None for process in busy), "they ended before the test did"
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.parametrize("name", RIGHT | WRONG)
def test_in_the_notebook(name):
    answer = define((RIGHT | WRONG)[name], "window_mask")
    verdict = judge(EXERCISE, lambda args: call(answer, args, SECONDS), seed=1)
    assert verdict.mark == ("✓" if name in RIGHT else "✗"), verdict


@pytest.fixture(scope="module")
def verdicts(load):
    """The verdicts on answers in the workers of one pool, one after the other."""
    answers = RIGHT | ONLY_IN_A_WORKER
    found = {}
    with WorkerPool("single_head", len(answers)) as workers:
        for worker, (name, text) in zip(workers, answers.items()):
            worker.start("window_mask", text, SECONDS)
            found[name] = judge(EXERCISE, worker, seed=1)
    return found


@pytest.mark.parametrize("name", RIGHT | ONLY_IN_A_WORKER)
def test_in_a_worker(verdicts, name):
    assert verdicts[name].mark == ("✓" if name in RIGHT else "✗"), verdicts[name]
    if name in WRONG or name == "ignores_interrupts":
        assert "it takes longer than" in verdicts[name].hint
