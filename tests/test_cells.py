"""The text of a cell as both judges read it, and what a judgement leaves behind in a notebook."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from chargpt_lib.exercises.cells import (
    NotPython,
    defines,
    python_source,
    with_definitions_above,
)
from chargpt_lib.exercises.compare import call, define_answer
from chargpt_lib.exercises.judge import find, judge
from chargpt_lib.grading.submission import _collect_answers

ROOT = Path(__file__).parents[1]
NAME = "window_mask"
NAMED = {"exercise": NAME}
BODY = """    t = torch.arange(T)[:, None]
    s = torch.arange(T)
    return (s <= t) & (s > t - w)
"""
RIGHT = f"def window_mask(T, w):\n{BODY}"
WRONG = RIGHT.replace("s > t - w", "s >= t - w")
BLANK = "def window_mask(T, w):\n    raise NotAttempted\n"
HELPER = "def band(T):\n    return torch.arange(T)[:, None], torch.arange(T)\n"
USES_HELPER = """def window_mask(T, w):
    t, s = band(T)
    return (s <= t) & (s > t - w)
"""


def indented(text, by="    "):
    return "".join(f"{by}{line}\n" for line in text.splitlines())


def prompted(text, first, later):
    lines = text.splitlines()
    return "\n".join([first + lines[0]] + [later + line for line in lines[1:]]) + "\n"


# 64 ways of writing one right answer, as people write in notebooks.
WAYS = {
    "plain": RIGHT,
    "no_line_at_the_end": RIGHT.rstrip(),
    "windows_lines": RIGHT.replace("\n", "\r\n"),
    "blank_lines_first": "\n\n" + RIGHT,
    "a_comment_first": "# my answer\n" + RIGHT,
    "indented": indented(RIGHT),
    "indented_by_a_tab": indented(RIGHT, "\t"),
    "indented_below_blank_lines": "\n\n" + indented(RIGHT, "  "),
    "python_prompts": prompted(RIGHT, ">>> ", "... "),
    "indented_python_prompts": prompted(RIGHT, "  >>> ", "  ... "),
    "python_prompts_below_a_comment": "# pasted\n" + prompted(RIGHT, ">>> ", "... "),
    "ipython_prompts": prompted(RIGHT, "In [3]: ", "   ...: "),
    "ipython_prompts_of_two_digits": prompted(RIGHT, "In [12]: ", "    ...: "),
    "time": "%%time\n" + RIGHT,
    "time_and_a_blank_line": "%%time\n\n" + RIGHT,
    "blank_line_and_time": "\n%%time\n" + RIGHT,
    "time_of_an_indented_cell": indented("%%time\n" + RIGHT),
    "capture": "%%capture\n" + RIGHT,
    "capture_into_a_name": "%%capture output\n" + RIGHT + "print(1)\n",
    "capture_with_an_option": "%%capture --no-stderr\n" + RIGHT,
    "prun": "%%prun -q\n" + RIGHT,
    "capture_and_time": "%%capture\n%%time\n" + RIGHT,
    "time_and_a_magic": "%%time\n%matplotlib inline\n" + RIGHT,
    "capture_and_a_magic": "%%capture\n" + RIGHT + "%time window_mask(3, 2)\n",
    "matplotlib": "%matplotlib inline\n" + RIGHT,
    "autoreload": "%load_ext autoreload\n%autoreload 0\n" + RIGHT,
    "config": "%config InteractiveShell.ast_node_interactivity = 'last_expr'\n" + RIGHT,
    "shell_first": "!true\n" + RIGHT,
    "shell_last": RIGHT + "!echo done",
    "shell_with_spaces": RIGHT + "! echo done\n",
    "shell_twice": RIGHT + "!!echo done\n",
    "shell_on_two_lines": RIGHT + "!echo one \\\n  two\n",
    "shell_with_an_apostrophe": RIGHT + '!echo "it\'s (done"\nx = 1\n',
    "shell_in_a_loop": RIGHT + "for _ in range(2):\n    !true\n",
    "shell_into_a_name": "lines = !echo done\n" + RIGHT,
    "timeit_last": RIGHT + "%timeit -n1 -r1 window_mask(3, 2)",
    "time_last": RIGHT + "%time window_mask(3, 2)\n",
    "time_into_a_name": RIGHT + "mask = %time window_mask(3, 2)\n",
    "timeit_in_an_if": RIGHT + "if True:\n    %timeit -n1 -r1 window_mask(3, 2)\n",
    "question_last": RIGHT + "window_mask?",
    "two_questions": RIGHT + "window_mask??\n",
    "question_before": "?torch\n" + RIGHT,
    "question_about_a_method": RIGHT + "torch.Tensor.triu?\n",
    "pinfo": RIGHT + "%pinfo window_mask\n",
    "who": RIGHT + "%who\n",
    "a_call_last": RIGHT + "window_mask(3, 2)\n",
    "prints": RIGHT + "print(window_mask(3, 2))\n",
    "displays": RIGHT + "display(window_mask(3, 2))\n",
    "displays_before": "display('hello')\n" + RIGHT,
    "asks_for_the_session": "get_ipython().run_line_magic('who', '')\n" + RIGHT,
    "plots": RIGHT + "import matplotlib.pyplot as plt\nplt.imshow(window_mask(5, 2))\nplt.show()\n",
    "checks_itself": RIGHT + "check('window_mask', window_mask)\nprogress()\n",
    "lambda": "window_mask = lambda T, w: torch.ones(T, T).tril().triu(1 - w).bool()\n",
    "annotated_lambda": "window_mask: object = lambda T, w: torch.ones(T, T).tril().triu(1 - w).bool()",
    "another_name_first": RIGHT.replace("window_mask", "mask") + "window_mask = mask\n",
    "a_helper_in_the_cell": HELPER + USES_HELPER,
    "a_decorator": "@torch.no_grad()\n" + RIGHT,
    "a_decorator_of_hers": "import functools\ndef loud(f):\n    @functools.wraps(f)\n"
    "    def g(*args):\n        return f(*args)\n    return g\n@loud\n" + RIGHT,
    "a_constant": "ONE = 1\n" + RIGHT.replace("t - w", "t - w * ONE"),
    "defined_in_a_with": "with torch.no_grad():\n" + indented(RIGHT),
    "an_example_in_the_docstring": RIGHT.replace(
        BODY,
        '    """A band.\n\n    >>> window_mask(1, 1)\n    %time is no magic here\n    """\n' + BODY,
    ),
    "signs_in_a_string": 'NOTE = """\n%time\n!ls\nwindow_mask?\n"""\n' + RIGHT,
    "a_remainder_on_its_own_line": RIGHT.replace("    t =", "    w = (w\n% 1000)\n    t ="),
    "a_remainder_after_a_backslash": RIGHT.replace("    t =", "    w = w \\\n% 1000\n    t ="),
}
assert len(WAYS) >= 60


# ---------------------------------------------------------------- the judge in the notebook, and the grader's reader

# Runs notebooks in an IPython session, one after the other, each with a check at its end.
SESSION = """
import gc, json, sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
from ipykernel.compiler import XCachingCompiler
from traitlets.config import Config
from chargpt_lib.exercises import judge as judge_module

class Shell(InteractiveShell):
    compiler_class = XCachingCompiler  # as in Jupyter

    def enable_gui(self, gui=None):
        pass

    def showtraceback(self, *args, **kwargs):
        pass  # which takes most of the time

    def showsyntaxerror(self, *args, **kwargs):
        pass

    def _format_exception_for_storage(self, *args, **kwargs):
        return ""

config = Config()
config.HistoryManager.hist_file = ":memory:"  # writing each cell to the disk would take minutes
shell = Shell.instance(config=config)
SETUP = "import torch\\nfrom torch import nn\\nfrom torch.nn import functional as F\\nfrom chargpt_lib.exercises import *"
texts = []
define_answer = judge_module.define_answer

def recording(text, *args):
    texts.append(text)
    return define_answer(text, *args)

judge_module.define_answer = recording
gc.freeze()  # a reset collects all garbage; torch need not be looked through each time
results = []
for cells in json.loads(Path(sys.argv[1]).read_text()):
    shell.reset(new_session=True)
    judge_module.MARKS.clear()
    texts.clear()
    shell.run_cell(SETUP, store_history=True)
    for cell in cells:
        shell.run_cell(cell, store_history=True)
    if "window_mask" in shell.user_ns:
        shell.run_cell("check('window_mask', window_mask)", store_history=True)
    text = texts[-1] if texts else None
    results.append([judge_module.MARKS.get("window_mask"), text])
Path(sys.argv[2]).write_text(json.dumps(results))
"""


def run_session(code, folder, *arguments):
    """Runs Python that uses IPython in a process of its own. Returns what it prints."""
    environment = {
        **os.environ,
        "IPYTHONDIR": str(folder),
        "PYTHONPATH": str(ROOT),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "TERM": "dumb",
        "CHARGPT_STRICT": "",
    }
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return run.stdout


def judged_in_notebook(notebooks, folder):
    """[(mark or None, the text that was judged or None)] of the code cells of each notebook."""
    (folder / "notebooks.json").write_text(json.dumps(notebooks))
    run_session(SESSION, folder, folder / "notebooks.json", folder / "results.json")
    return json.loads((folder / "results.json").read_text())


def write(path, cells):
    """Writes a notebook of (kind, text, metadata)."""
    written = []
    for kind, text, metadata in cells:
        cell = {"cell_type": kind, "source": text, "metadata": metadata}
        if kind == "code":
            cell = {**cell, "outputs": [], "execution_count": None}
        written.append(cell)
    notebook = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": written}
    path.write_text(json.dumps(notebook))
    return path


def judged_by_reader(path):
    """(mark or None, text or None, problems): what the grader reads in a file, judged in this process."""
    submission = _collect_answers(path, "single_head")
    text = submission.answers.get(NAME)
    if text is None:
        return None, None, submission.problems
    exercise = find(NAME)
    defined = define_answer(text, NAME, exercise.seconds)

    def run(args):
        if defined.status != "value":
            return defined
        return call(defined.value, args, exercise.seconds)

    return judge(exercise, run, 5).mark, text, submission.problems


@pytest.fixture(scope="module")
def ways_in_notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ways")
    results = judged_in_notebook([[text] for text in WAYS.values()], folder)
    return dict(zip(WAYS, results, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_a_right_answer_is_right_in_both(way, ways_in_notebook, tmp_path):
    notebook_mark, notebook_text = ways_in_notebook[way]
    for metadata in (NAMED, {}):
        path = write(tmp_path / "03.ipynb", [("code", WAYS[way], metadata)])
        mark, text, _ = judged_by_reader(path)
        assert text == WAYS[way]
        assert mark == "✓"
    assert notebook_mark == "✓"
    assert python_source(notebook_text).strip() == python_source(text).strip()


# ---------------------------------------------------------------- random notebooks


def random_notebook(rng):
    """The cells of a notebook in which somebody has worked: [(kind, text, metadata)]."""
    answers = [RIGHT, WRONG, USES_HELPER, WAYS["lambda"], WAYS["a_helper_in_the_cell"]]
    metadata = rng.choice([NAMED, {}])  # some tools lose all of it
    cells = [
        ("markdown", "### Exercise: a window on the past", {}),
        ("code", "q = torch.randn(3)\nprint(q.shape)", {}),
        ("code", "check('window_mask', window_mask)", {}),
        ("code", "other = 3", {}),
    ]
    rng.shuffle(cells)
    if rng.random() < 0.1:
        answers = [BLANK]
    for _ in range(rng.randint(1, 3)):
        answer = rng.choice(answers)
        new = [answer]
        if answer == USES_HELPER:
            new = [HELPER, answer] if rng.random() < 0.8 else [HELPER, "print(1)", answer]
        if rng.random() < 0.3:
            new.append("print(window_mask(3, 2))\n")
        place = rng.randint(0, len(cells))
        cells[place:place] = [("code", dressed(text, rng), metadata) for text in new]
    if rng.random() < 0.3:
        cells.insert(rng.randint(0, len(cells)), rng.choice(cells))
    if rng.random() < 0.2:
        rng.shuffle(cells)
    if rng.random() < 0.3:
        place = rng.randrange(len(cells))
        kind, text, metadata = cells[place]
        cells[place] = (rng.choice(["markdown", "raw"]), text, metadata)
    return cells


def dressed(text, rng):
    """A text with what people put around Python in a notebook."""
    dress = rng.choice(
        [
            lambda text: text,
            lambda text: text,
            indented,
            lambda text: "%%time\n" + text,
            lambda text: "%%capture\n" + text,
            lambda text: "%%html\n" + text,
            lambda text: text + "%time 1\n",
            lambda text: "%who\n" + text,
            lambda text: prompted(text, ">>> ", "... "),
            lambda text: prompted(text, "In [3]: ", "   ...: "),
            lambda text: "\n" + text.replace("\n", "\r\n"),
        ]
    )
    return dress(text)


def test_500_random_notebooks_get_the_same_marks_in_both(tmp_path):
    rng = random.Random(1337)
    notebooks = [random_notebook(rng) for _ in range(500)]
    code = [[text for kind, text, _ in cells if kind == "code"] for cells in notebooks]
    results = judged_in_notebook(code, tmp_path)
    marks = []
    for cells, (notebook_mark, notebook_text) in zip(notebooks, results, strict=True):
        path = write(tmp_path / "03.ipynb", cells)
        mark, text, problems = judged_by_reader(path)
        again = _collect_answers(path, "single_head")
        assert (again.answers.get(NAME), again.problems) == (text, problems)
        marks.append(mark)
        if notebook_mark is None:  # the notebook defines no such function
            assert mark in (None, "✗")
            assert text is not None or any(NAME in problem for problem in problems), cells
        else:
            assert mark == notebook_mark, cells
            assert python_source(notebook_text).strip() == python_source(text).strip(), cells
    assert {"✓", "✗", "○", None} == set(marks)
    assert marks.count("✓") > 100 and marks.count("✗") > 100


# ---------------------------------------------------------------- single rules


@pytest.mark.parametrize(
    "text, source",
    [
        ("x = (a\n% b)\n", "x = (a\n% b)\n"),
        ("x = a \\\n% b", "x = a \\\n% b"),
        ("%time x\ny", "pass\ny"),
        ("!ls \\\n -l\ny", "pass\n\ny"),
        ("if x:\n    !ls\n", "if x:\n    pass\n"),
        ("files = !ls", "files = None"),
        ("best = %timeit -o f()", "best = None"),
        ("s = 'a = %d' % 3", "s = 'a = %d' % 3"),
        ("a != b", "a != b"),
        ("x %= 3", "x %= 3"),
        ("x = 1  # why?", "x = 1  # why?"),
        ("s = 'why?'", "s = 'why?'"),
        ("f?\n?f\nf.g??", "pass\npass\npass"),
        ("%%time?\nx", "pass\nx"),
        ("%%time\nx", "\nx"),
        ("x\n%%time\ny", "x\npass\ny"),
        ("  x\n    y", "x\n  y"),
        ("'''\n>>> x\n'''", "'''\n>>> x\n'''"),
        ("", ""),
        (" \n\n", " \n\n"),
        ("s = '''it\"s\n!ls\n'''\n!ls", "s = '''it\"s\n!ls\n'''\npass"),
        ("s = 'open\n!ls", "s = 'open\npass"),
    ],
)
def test_what_is_python_and_what_is_not(text, source):
    assert python_source(text) == source
    assert python_source(source) == source


@pytest.mark.parametrize(
    "magic", ["%%writefile a.py", "%%bash", "%%html", "%%javascript", "%%answer x", "%% cell"]
)
def test_a_cell_of_another_language_is_named(magic, tmp_path):
    text = f"{magic}\n{RIGHT}"
    with pytest.raises(NotPython, match=f"begins with {magic.split(' ')[0]}"):
        python_source(text)
    with pytest.raises(NotPython, match="line 2 of the cell is %%"):
        python_source(f"x = 1\n{text}")
    outcome = define_answer(text, NAME, 1)
    assert outcome.status == "unusable"
    assert "in a cell without that line" in outcome.detail
    assert not defines(text, NAME)


def test_a_thousand_magics_cost_no_time():
    with pytest.raises(NotPython, match="more than 10"):
        python_source("%%time\n" * 10_000)


def test_an_answer_takes_along_what_is_defined_directly_above():
    joined, taken = with_definitions_above(USES_HELPER, NAME, ["x = f()", HELPER, USES_HELPER])
    assert taken == [1]
    assert joined == f"{HELPER}\n\n{USES_HELPER}"
    for between in ("print(1)", "x = f()", "#| export\ndef f():\n    pass"):
        cells = [HELPER, between, USES_HELPER]
        assert with_definitions_above(USES_HELPER, NAME, cells) == (USES_HELPER, [])
    # of the lesson, or not needed
    assert with_definitions_above(USES_HELPER, NAME, ["#| export\n" + HELPER, USES_HELPER])[1] == []
    assert with_definitions_above(RIGHT, NAME, [HELPER, RIGHT])[1] == []
    # mended later, and run alone
    mended = "N = 1\n" + HELPER
    cells = [HELPER, USES_HELPER, "check()", mended, USES_HELPER]
    assert with_definitions_above(USES_HELPER, NAME, cells)[1] == [3]


# ---------------------------------------------------------------- what a judgement leaves behind

# The beginning of the sessions below: `run` runs a cell, and calls that are late are so after 0.3 s.
BEGIN = """
from IPython.core.interactiveshell import InteractiveShell
from chargpt_lib.exercises.judge import find
shell = InteractiveShell.instance()
find("window_mask").seconds = 0.3

def run(cell):
    return shell.run_cell(cell, store_history=True)

run("import time, torch, chargpt_lib.exercises as ours; from chargpt_lib.exercises import check, progress")
"""
SPIN = "end = time.thread_time() + 1.5\nwhile time.thread_time() < end:\n    pass\n"


def in_session(code, folder):
    return run_session(BEGIN + code, folder).splitlines()


def test_a_slow_magic_leaves_check_alive(tmp_path):
    lines = in_session(
        f"""
run({SPIN!r}.join(["def spin():\\n    ", ""]).replace("\\n", "\\n    ").rstrip())
run({RIGHT!r} + "%timeit -n1 -r1 spin()\\n")
for _ in range(2):
    run("check('window_mask', window_mask)")
run("print(check is ours.check, progress is ours.progress)")
""",
        tmp_path,
    )
    assert lines[-3:] == ["✓ window_mask", "✓ window_mask", "True True"], lines


def test_a_magic_runs_once_and_only_for_the_learner(tmp_path):
    lines = in_session(
        f"""
shell.register_magic_function(lambda line: shell.user_ns["counts"].append(line), "line", "count")
run("counts = []")
run({RIGHT!r} + "%count a\\nget_ipython().run_line_magic('count', 'b')\\n!echo shell >> log.txt")
run("check('window_mask', window_mask)")
run("print(counts, open('log.txt').read().split())")
""",
        tmp_path,
    )
    assert lines[-2:] == ["✓ window_mask", "['a', 'b'] ['shell']"], lines


@pytest.mark.parametrize("ending", ["raise KeyboardInterrupt", "raise ValueError", SPIN, "pass"])
def test_nothing_that_a_judgement_names_outlives_it(ending, tmp_path):
    """`check` itself is replaced by what the cell does under the judge, and nowhere else."""
    pollutes = (
        "import __main__\nimport IPython, os, time\nif os.environ.get('JUDGED'):\n"
        "    __main__.check = None\n    IPython.get_ipython().push({'progress': None, 'more': 1})\n"
        f"{indented(ending)}{RIGHT}"
    )
    lines = in_session(
        f"""
import os
run({pollutes!r})
os.environ["JUDGED"] = "1"
publisher = shell.display_pub
run("check('window_mask', window_mask)")
run("print(check is ours.check, progress is ours.progress, 'more' in globals())")
print(shell.display_pub is publisher)
""",
        tmp_path,
    )
    assert lines[-2:] == ["True True False", "True"], lines


def test_plots_and_displays_do_not_come_again(tmp_path):
    lines = in_session(
        f"""
shell.display_pub.publish = lambda data, **rest: print("shown", data["text/plain"][:6])
run("import matplotlib.pyplot as plt")
run("fig, ax = plt.subplots()")
run({RIGHT!r} + "from IPython.display import display as again\\nagain('once')\\ndisplay('once')\\nplt.figure()\\nplt.show()\\nplt.figure()")
run("plt.close('all')")
run("hers = plt.figure()\\ncheck('window_mask', window_mask)\\nprint(plt.get_fignums() == [hers.number])")
""",
        tmp_path,
    )
    # Her own figure is shown by Jupyter at the end of its cell, and nothing else.
    assert lines[-3:] == ["✓ window_mask", "True", "shown <Figur"], lines
    assert sum("'once'" in line for line in lines) == 2


def test_another_function_under_the_exercises_name_is_told(tmp_path):
    lines = in_session(
        f"""
run({RIGHT.replace("window_mask", "mask")!r})
run("check('window_mask', mask)")
""",
        tmp_path,
    )
    assert "defines no function window_mask" in lines[-1], lines
