# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # B · Checks: what is wrong with my answer?
#
# You will build: the thing that reads your answers, tells right from wrong, and names the mistake if it knows it.
# You need [B · Answers](B_answers.ipynb). The page runs in a few seconds.
#
# Somebody writes a function, and asks: is this right? "No" is an answer, but nobody learns from it. And "yes" is easily said of a function that is right by accident. This page does better on both.

# %%
#| default_exp checks

# %% [markdown]
# ## One input is not enough
#
# The exercise: a running mean. Of $x_1, \dots, x_T$ return the means of the first one, the first two, and so on. Here are three answers.

# %%
import torch

def right(x):
    return x.cumsum(0) / torch.arange(1, len(x) + 1)

def wrong(x):
    return x.cumsum(0) / len(x)

def lazy(x):
    return torch.tensor([2.0, 3.0, 4.0])

# %%
x = torch.tensor([2.0, 4.0, 6.0])
for answer in (right, wrong, lazy):
    print(f"{answer.__name__:5}", answer(x))

# %% [markdown]
# On this input the lazy answer is right. So no input may be known beforehand: each check throws dice for its inputs. They have to be of several sizes, too, down to the smallest, where most mistakes hide. **Predict:** for which length of `x` is `wrong` right?

# %%
print(wrong(x[:1]) == right(x[:1]))

# %%
#| export
import gzip
import importlib
import inspect
import json
import linecache
import os
import random
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, NamedTuple

import torch

from chargpt_lib.answers import NotAttempted, Outcome, call, copies, decode, define, first_difference, kind

# %%
#| export
class Draw:
    """Dice for inputs. Shapes are given as in torch.randn; a seed repeats the throws."""

    def __init__(self, seed):
        self.random, self.generator = random.Random(seed), torch.Generator().manual_seed(seed)

    def integer(self, low, high):
        """A whole number, both ends included."""
        return self.random.randint(low, high)

    def number(self, low=0.0, high=1.0):
        return self.random.uniform(low, high)

    def choice(self, things):
        return self.random.choice(things)

    def text(self, length, alphabet="abcdefgh \n"):
        return "".join(self.random.choices(alphabet, k=length))

    def ids(self, vocab_size, *shape):
        """int64, from 0 to vocab_size - 1."""
        return torch.randint(vocab_size, shape, generator=self.generator)

    def normal(self, *shape, dtype=torch.float32):
        return torch.randn(shape, generator=self.generator, dtype=dtype)

    def uniform(self, *shape, dtype=torch.float32):
        """From 0 to 1."""
        return torch.rand(shape, generator=self.generator, dtype=dtype)

# %%
draw = Draw(seed=1)
for answer in (wrong, lazy):
    xs = [draw.normal(T) for T in (1, 2, draw.integer(3, 9))]
    results = [(answer(x), right(x)) for x in xs]
    print(f"{answer.__name__:5}", [a.shape == b.shape and torch.allclose(a, b) for a, b in results])

# %% [markdown]
# ## An exercise
#
# Now we can say what an exercise is: the right answer, a way to draw inputs, and the mistakes that we have seen people make. A mistake is known in one of two ways:
#
# - as a **wrong** answer of our own: whoever returns what it returns has made it too;
# - as a **sign** in the value, such as a number above the diagonal. The first place where the sign shows can be named in the hint.

# %%
#| export
@dataclass
class Exercise:
    """How answers to an exercise are judged.

    answer: the right one, whose name is the exercise's; cases(draw) -> a list of argument lists; wrong: {hint: a
    function that makes this mistake}; signs: {hint: function (got, want, *args) -> bool, or a tensor of bools}, where
    {0}, {1} ... in the hint are the indices of the first place that shows it.
    """

    answer: Callable
    cases: Callable
    stars: int
    minutes: int
    wrong: dict = field(default_factory=dict)
    signs: dict = field(default_factory=dict)
    atol: float = 1e-5
    rtol: float = 1e-4
    seconds: float = 5.0

    @property
    def name(self):
        return self.answer.__name__

    @property
    def lesson(self):
        return self.answer.__module__.rsplit(".", 1)[-1]


EXERCISES = {}


def exercise(answer, **how):
    """Declares an exercise: in a lesson's key, once for each."""
    EXERCISES[answer.__name__] = Exercise(answer, **how)

# %%
def running_mean(x):
    """x (T,) -> (T,): the mean of the numbers up to each."""
    return x.cumsum(0) / torch.arange(1, len(x) + 1)

exercise(
    running_mean, stars=1, minutes=3,
    cases=lambda draw: [[draw.normal(T)] for T in (1, 2, draw.integer(3, 9))],
    wrong={"it divides by the length of the whole, not by how many came so far": lambda x: x.cumsum(0) / len(x)},
    signs={"at place {0} stands a sum: divide it": lambda got, want, x: (got == x.cumsum(0)) & (got != want)},
)

# %% [markdown]
# For each case the right answer is asked too, and, if need be, the wrong ones. A case then holds all that is needed to judge: the arguments, what is wanted, and what the known mistakes give. That is also how exercises travel without their answers: a release of the course (`make release`) holds, in the place of the answers, a dozen sets of cases for each exercise, drawn beforehand (**sealed**), and a check takes one of them.

# %%
#| export
class Case(NamedTuple):
    args: list
    want: object
    wrong: dict  # {hint: a function that gives the Outcome of this mistake}


def draw_cases(exercise, seed):
    """The cases of one check -> [Case]."""
    sealed = Path(inspect.getfile(exercise.answer)).with_suffix(".json.gz")
    if sealed.is_file():
        packed = json.loads(gzip.decompress(sealed.read_bytes()))[exercise.name]
        return [Case(args, want, {hint: partial(Outcome, *outcome) for hint, *outcome in wrong})
                for args, want, wrong in decode(random.Random(seed).choice(packed))]
    return [Case(args, exercise.answer(*copies(args)),
                 {hint: partial(call, wrong, args) for hint, wrong in exercise.wrong.items()})
            for args in exercise.cases(Draw(seed))]

# %% [markdown]
# ## The judge
#
# Run the answer on all cases. A call that went wrong says so itself. If all values are right, ✓. If they are what a known mistake gives in *every* case, it is that mistake. Then the signs; and if nobody recognises it, at least the first place that is wrong.

# %%
#| export
class Verdict(NamedTuple):
    name: str
    mark: str  # ✓ ✗ ○
    hint: str = ""

    def __str__(self):
        return f"{self.mark} {self.name}{': ' * bool(self.hint)}{self.hint}"


def same_outcome(a, b, exercise):
    if a.sort != b.sort or a.sort == "error":
        return a[:2] == b[:2]
    return first_difference(a.value, b.value, exercise.atol, exercise.rtol) is None


def shown(args, function):
    """The arguments of a call, in words."""
    names = inspect.signature(function).parameters
    return ", ".join(f"{name} = {kind(value)}" for name, value in zip(names, args))

# %%
#| export
def known_mistake(exercise, cases, outcomes, differences):
    """The hint for a mistake that the key knows, else None."""
    for hint in cases[0].wrong:
        if all(same_outcome(outcome, case.wrong[hint](), exercise) for case, outcome in zip(cases, outcomes)):
            return hint.format(*next((difference.place for difference in differences if difference), ()))
    for case, outcome, difference in zip(cases, outcomes, differences):
        for hint, sign in exercise.signs.items() if difference and difference.numbers else ():
            with suppress(Exception):  # a sign may stumble over a value that nobody foresaw
                found = sign(outcome.value, case.want, *case.args)
                if torch.as_tensor(found).any():
                    place = found.nonzero()[0].tolist() if torch.is_tensor(found) else difference.place
                    plain = all(isinstance(value, (int, float)) for value in case.args)
                    return f"for {shown(case.args, exercise.answer)}: " * plain + hint.format(*place)


def judge(exercise, run, seed):
    """run(args) -> Outcome, for each case of the seed -> Verdict."""
    cases, outcomes = draw_cases(exercise, seed), []
    for case in cases:
        outcomes.append(run(case.args))
        if outcomes[-1].sort in ("blank", "late", "unusable"):
            break
    if outcomes[-1].sort in ("blank", "unusable"):
        return Verdict(exercise.name, "○" if outcomes[-1].sort == "blank" else "✗", outcomes[-1].detail)
    differences = [first_difference(outcome.value, case.want, exercise.atol, exercise.rtol)
                   for case, outcome in zip(cases, outcomes)]
    bad = [i for i, outcome in enumerate(outcomes) if outcome.sort != "value" or differences[i]]
    if not bad:
        return Verdict(exercise.name, "✓")
    hint = known_mistake(exercise, cases, outcomes, differences) if len(outcomes) == len(cases) else None
    if not hint:
        args, outcome, difference = cases[bad[0]].args, outcomes[bad[0]], differences[bad[0]]
        nothing = "it returns nothing: is there a `return`?" if outcome.value is None else ""
        hint = f"for {shown(args, exercise.answer)}: {outcome.detail or nothing or difference.text}"
    return Verdict(exercise.name, "✗", hint)

# %%
for answer in (running_mean, wrong, lazy, lambda x: x.cumsum(0), lambda x: None):
    print(judge(EXERCISES["running_mean"], lambda args: call(answer, args), seed=1))

# %% [markdown]
# ## In the notebook
#
# `check(name, answer)` is what a learner calls. It finds the key, draws new inputs, prints one line, and remembers the mark.
#
# An answer is judged as if its cell were alone in the world ([B · Answers](B_answers.ipynb)).

# %%
#| export
MARKS = {}  # {exercise: the mark of its last check}


class CheckFailed(Exception):
    """Raised by `check` where CHARGPT_STRICT=1 is set and the mark is not ✓."""

    def _render_traceback_(self):
        return [str(self)]


def load_keys():
    """Reads the keys of all lessons into EXERCISES."""
    for path in sorted(Path(find_spec("chargpt_lib").origin).parent.glob("keys/[!_]*.py")):
        importlib.import_module(f"chargpt_lib.keys.{path.stem}")


def find(name):
    """The exercise of this name. KeyError where no lesson has it."""
    load_keys()
    if name not in EXERCISES:
        raise KeyError(f"no exercise is called {name!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[name]


def exercises_of(lesson):
    """The exercises of a lesson's module, in their order."""
    load_keys()
    return [exercise for exercise in EXERCISES.values() if exercise.lesson == lesson]


def alone(answer):
    """The answer as its cell alone would define it; the answer itself if it does not come from a cell."""
    file = answer.__code__.co_filename
    if answer.__module__ != "__main__" or os.path.exists(file) or not (lines := linecache.getlines(file)):
        return answer
    return define("".join(lines), answer.__name__, file)

# %%
#| export
def unfit(answer, name, parameters):
    """What is wrong with an answer that cannot even be called, else None."""
    if not inspect.isfunction(answer):
        return f"{kind(answer)} is no answer: write a function, `def {name}({', '.join(parameters)})`"
    if (answer.__module__ or "").startswith("chargpt_lib."):
        return "that is a function of the library: write your own"
    try:
        inspect.signature(answer).bind(*parameters)
    except TypeError:
        return f"it takes {list(inspect.signature(answer).parameters)}, and must take {parameters}"


def check(name, answer):
    """Checks an answer on inputs drawn now, and prints a line: ✓, ✗ with a hint, or ○ where nothing was attempted."""
    wanted, parameters = find(name), list(inspect.signature(find(name).answer).parameters)
    problem = unfit(answer, name, parameters)
    if not problem:
        outcome = call(lambda: alone(answer), [], wanted.seconds, file=answer.__code__.co_filename)
        problem = outcome.detail and f"run alone, its cell fails: {outcome.detail}"
    run = lambda args: call(outcome.value, args, wanted.seconds)
    verdict = Verdict(name, "✗", problem) if problem else judge(wanted, run, secrets.randbits(32))
    MARKS.pop(name, None)  # the last one checked stands last
    MARKS[name] = verdict.mark
    print(verdict)
    if verdict.mark != "✓" and os.environ.get("CHARGPT_STRICT") == "1":
        raise CheckFailed(str(verdict))


def passed(name):
    """Did the last check of this exercise say ✓?"""
    return MARKS.get(name) == "✓"


def progress():
    """Prints the learner's table for the lesson of the exercise that was checked last."""
    rows = exercises_of(EXERCISES[list(MARKS)[-1]].lesson) if MARKS else []
    for row in rows:
        print(f"{MARKS.get(row.name, '○')}  {row.name:<24} {'★' * row.stars:<4} {row.minutes:>3} min")
    done = [row for row in rows if passed(row.name)]
    minutes = f"{sum(row.minutes for row in done)} of {sum(row.minutes for row in rows)} minutes"
    print(f"{'█' * round(20 * len(done) / max(len(rows), 1)):░<20} {len(done)} of {len(rows)}, {minutes}")

# %% [markdown]
# Try it. (Here the key is our own, above.)

# %%
def running_mean(x):
    total, means = 0.0, []
    for n, number in enumerate(x, 1):
        total += number
        means.append(total / n)
    return torch.stack(means)

check("running_mean", running_mean)

# %%
def running_mean(x):
    return x.cumsum(0)

check("running_mean", running_mean)
progress()

# %% [markdown]
# ## Who checks the checks?
#
# A check that says ✓ to everything looks fine until the day of the exam. So for every exercise of the course there are at least five wrong answers, as people write them, and two right ones that are written differently from ours, in `tests/mistakes/`. There `make test` finds out whether every wrong one is rejected, most of them with the hint that names their mistake, and every right one passes two hundred times in a row.
#
# ## What a ✓ proves
#
# That your function gave the right values on a handful of inputs that were drawn when you asked. It does not prove that you wrote it: the key (in a release, the sealed cases) lies on your disk, and you may read it. A notebook with saved ✓ proves nothing to anybody else; [C · Grading](C_grading.ipynb) is for that.
#
# ## What you have
#
# `check`, `progress`, `passed`; for those who write exercises `exercise`, `Draw` and `judge`, in `chargpt_lib/checks.py`.
