"""One submission: from a file that somebody handed in to marks that can be trusted.

A submitted notebook proves nothing. Its outputs are text that anybody can type, its check cell may have been replaced,
its `check` redefined, its torch patched. So only one thing is taken from it: the text of the
exercise cells, and of helper functions directly above them.

- The texts go into a grading notebook of ours, which runs none of them: each stands in a cell that is not run, for
  people to read, and once more as a Python string, which is sent to an isolated worker.
- The judge sends the worker inputs that nobody could know, compares what comes out, and prints the mark.
- pytest with nbval runs the notebook and compares each output with the saved one, which is what right answers give: a ✓.
  So a teacher may open the notebook, read it and run it again.

Trusted are the grading notebook, the judge and the keys, which never meet a student's code; the seed, which no worker
sees; and the kernel of the operating system, which keeps the worker isolated (grading/isolation.py says from what).
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import NamedTuple
from xml.etree import ElementTree

from chargpt_lib.course import page_of_module
from chargpt_lib.exercises.cells import defines, with_definitions_above
from chargpt_lib.exercises.compare import one_line
from chargpt_lib.exercises.judge import EXERCISES, Verdict, exercises_of, judge
from chargpt_lib.files import library_dir
from chargpt_lib.grading.archives import ZipMember, read_source
from chargpt_lib.grading.worker import ANSWER_SECONDS, STARTUP_SECONDS, WorkerPool

MAX_ANSWER_CHARACTERS = 100_000
# Of all code cells, in which the helper functions of an answer are looked for.
MAX_CODE_CHARACTERS = 5_000_000
# What an exercise's cell holds at first.
BLANK = re.compile(r"^[^#\n]*\braise[ \t]+NotAttempted\b", re.M)
MAX_LOG_CHARACTERS = 200  # of pytest's last line, where the grading fails


# ---------------------------------------------------------------- from a file to the texts of its answers


class _Submission(NamedTuple):
    path: Path | ZipMember
    answers: dict  # {exercise: the text of its cell}
    problems: list  # what is wrong with the file, in words


class _Cell(NamedTuple):
    number: int  # in the notebook, from 1
    kind: str  # code, markdown, raw
    names: list  # that it may be known by
    text: str


def read_code_cells(path):
    """The code cells of a notebook of any format: [(names it may be known by, text)].

    path: of a file, or a ZipMember.

    Raises: ValueError where the file is no notebook, or too large; OSError where it cannot be read.
    """
    return [(cell.names, cell.text) for cell in _read_cells(path) if cell.kind == "code"]


def _read_cells(path):
    """All cells of a notebook file, of any format.

    Raises: ValueError where the file is no notebook, or too large; OSError where it cannot be read.
    """
    data = read_source(path)
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
        if "worksheets" in notebook:  # format 3, of 2013
            sheets = notebook["worksheets"]
        else:
            sheets = [notebook]
        found = []
        for sheet in sheets:
            for cell in sheet["cells"]:
                kind = str(cell.get("cell_type"))
                found.append(_Cell(len(found) + 1, kind, _cell_names(cell), _cell_text(cell)))
        return found
    except Exception as error:  # a stranger's JSON may have any shape
        reason = f"{type(error).__name__}: {str(error)[:100]}"
        raise ValueError(f"not a notebook, or a damaged one ({reason})") from None


def _cell_names(cell):
    """The names of exercises that a cell may belong to: its exercise's, or its id, which Colab keeps in the metadata."""
    metadata = cell.get("metadata")
    if not isinstance(metadata, dict):  # null, from tools that write what is empty so
        metadata = {}
    names = (metadata.get("exercise"), cell.get("id"), metadata.get("id"))
    return [name for name in names if isinstance(name, str)]


def _cell_text(cell):
    """The text of a cell; in format 3 it is called input. Characters that UTF-8 cannot write are replaced."""
    text = cell.get("source", cell.get("input", ""))
    if text is None:
        text = ""
    if not isinstance(text, str):
        # the usual form in a file: a list of lines
        text = "".join(line for line in text if line is not None)
    return text.encode("utf-8", "replace").decode()


def _collect_answers(path, lesson):
    """The Submission in a file: the texts of its answers to a lesson's exercises."""
    try:
        cells = _read_cells(path)
    except (OSError, ValueError) as error:
        return _Submission(path, {}, [str(error)])
    code = []
    for cell in cells:
        if cell.kind == "code" and len(cell.text) <= MAX_ANSWER_CHARACTERS:
            code.append(cell)
    if sum(len(cell.text) for cell in code) > MAX_CODE_CHARACTERS:
        code = []  # no learner's notebook, so no time is spent on it
    code_texts = [cell.text for cell in code]
    answers = {}
    problems = []
    for exercise in exercises_of(lesson):
        name = exercise.name
        chosen, problem = _choose_cell(name, cells)
        if problem:
            problems.append(problem)
        if chosen is None:
            continue
        text = chosen.text
        if len(text) <= MAX_ANSWER_CHARACTERS:
            text, joined = with_definitions_above(text, name, code_texts)
            if joined:
                others = _list_cells([code[index] for index in joined])
                problems.append(
                    f"{name}: cell {chosen.number} uses what is defined above it, in {others}: "
                    "they were judged together"
                )
        if len(text) > MAX_ANSWER_CHARACTERS:
            problems.append(
                f"the cell for {name} has {len(text):,} characters; the limit is "
                f"{MAX_ANSWER_CHARACTERS:,}"
            )
        else:
            answers[name] = text
    if not answers:
        others = _other_lessons(cells, lesson)
        if others:
            pages = sorted(page_of_module(other).name for other in others)
            problems = [f"this is lesson {', '.join(pages)}, not {page_of_module(lesson).name}"]
    return _Submission(path, answers, problems)


def _choose_cell(exercise, cells):
    """(the cell that answers an exercise or None, what a teacher should know about the choice or None).

    Splitting a cell in Jupyter copies its metadata, so several cells may have the exercise's name; and other tools lose
    names, so that only the function's name is left. The last cell counts, and of these the first kind that there is:
    attempts with the exercise's name, attempts without, blank functions with the name, those without, cells that have
    the name and do not define the function.
    """
    named = []
    unnamed = []
    named_attempts = []
    unnamed_attempts = []
    named_blanks = []
    not_code = []
    for cell in cells:
        has_definition = len(cell.text) <= MAX_ANSWER_CHARACTERS and defines(cell.text, exercise)
        is_attempt = has_definition and not BLANK.search(cell.text)
        is_named = exercise in cell.names
        if cell.kind != "code":
            if is_named or has_definition or _quotes_definition(cell, exercise):
                not_code.append(cell)
        elif is_named:
            named.append(cell)
            if is_attempt:
                named_attempts.append(cell)
            elif has_definition:
                named_blanks.append(cell)
        elif has_definition:
            unnamed.append(cell)
            if is_attempt:
                unnamed_attempts.append(cell)
    kinds = (
        (named_attempts, "the last attempt with the exercise's name"),
        (unnamed_attempts, "the last attempt"),
        (named_blanks, "the last blank one with the exercise's name; none holds an attempt"),
        (unnamed, "the last one that defines it; none holds an attempt"),
        (named, "the last one with the exercise's name; none defines the function"),
    )
    chosen = None
    why = ""
    for kind, reason in kinds:
        if kind:
            chosen = kind[-1]
            why = reason
            break
    if not_code and not named_attempts and not unnamed_attempts:
        cell = not_code[-1]
        kind = {"markdown": "Markdown", "raw": "raw"}.get(cell.kind, "not code")
        return chosen, (
            f"no code cell holds an attempt at {exercise}, but cell {cell.number} names it: "
            f"the cell is {kind}: turn it back into code"
        )
    if chosen is None:
        return None, f"no cell for {exercise}"
    candidates = sorted(named + unnamed)
    if len(candidates) > 1:
        return chosen, (
            f"{len(candidates)} cells for {exercise} ({_list_cells(candidates)}): "
            f"cell {chosen.number} was judged, {why}"
        )
    return chosen, None


def _quotes_definition(cell, exercise):
    """Does a Markdown or raw cell hold the exercise's `def` somewhere, for instance between prose?"""
    return re.search(rf"^[ \t>]*def[ \t]+{re.escape(exercise)}\b", cell.text, re.M) is not None


def _list_cells(cells):
    """cell 3; cells 3 and 4; cells 3, 4 and 9."""
    numbers = [str(cell.number) for cell in cells]
    if len(numbers) == 1:
        return f"cell {numbers[0]}"
    return f"cells {', '.join(numbers[:-1])} and {numbers[-1]}"


def _other_lessons(cells, lesson):
    """The lessons other than this one whose exercises have a cell here."""
    lessons = set()
    for cell in cells:
        for name in cell.names:
            if name in EXERCISES:
                lessons.add(EXERCISES[name].lesson)
    return lessons - {lesson}


# ---------------------------------------------------------------- the grading notebook


def _grading_notebook(submission, lesson, seed):
    """The notebook that grades a submission, with the outputs that right answers would have."""
    import nbformat  # takes a second, and the grading notebook itself has no use for it

    new_code_cell = nbformat.v4.new_code_cell
    setup = (
        f"from chargpt_lib.grading.submission import Grader\n\ngrader = Grader({lesson!r}, {seed})"
    )
    cells = [new_code_cell(setup, execution_count=1)]
    for name, text in submission.answers.items():
        right = nbformat.v4.new_output("stream", name="stdout", text=f"✓ {name}\n")
        # !a: the text as one line of ASCII, whatever it is
        check = f"grader.judge({name!r}, {text!a})"
        cells.append(nbformat.v4.new_raw_cell(text))
        cells.append(
            new_code_cell(check, execution_count=1, outputs=[right], metadata={"exercise": name})
        )
    cells.append(new_code_cell("grader.close()", execution_count=1))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


class Grader:
    """In the grading notebook: takes the texts of answers, and judges each in an isolated worker."""

    def __init__(self, lesson, seed):
        self.names = [exercise.name for exercise in exercises_of(lesson)]
        self.pool = WorkerPool(lesson, len(self.names))
        self.seed = seed
        self.verdicts = {}

    def judge(self, name, text):
        """Prints the mark of an answer's text, and writes it to verdicts.json for `grade_submission`.

        Raises: OSError where the worker does not start, which is no fault of the answer.
        """
        exercise = EXERCISES[name]
        number = self.names.index(name)
        worker = self.pool.workers[number]
        isolation = worker.start(name, text, exercise.seconds)
        if isolation is None:
            raise OSError("the isolated worker did not start (not the answer's fault): grade again")
        try:
            verdict = judge(exercise, worker, self.seed + number)
        except Exception as error:
            hint = f"its return value could not be compared ({type(error).__name__})"
            verdict = Verdict(name, "✗", hint)
        self.verdicts[name] = {"mark": verdict.mark, "hint": verdict.hint}
        report = {"verdicts": self.verdicts, "isolation": isolation}
        Path("verdicts.json").write_text(json.dumps(report), encoding="utf-8")
        print(f"{verdict.mark} {name}")

    def close(self):
        self.pool.close()


# ---------------------------------------------------------------- running it

# How long an answer may take is the worker's business, which counts processor time. The limits here are by the wall
# clock, and only for the case that something of ours hangs.
CELL_SECONDS = STARTUP_SECONDS + 2 * ANSWER_SECONDS  # more than an answer and its judge may take

RUNNING_PROCESSES = set()  # for whoever has to stop them
STOP_REQUESTED = Event()  # where it is set, whatever starts from now on is stopped, too

# jsonschema, which nbformat imports, would spend a second on a grammar of web addresses that no notebook asks for.
# nbval gives an output five seconds to arrive, which is too short for a machine that is busy, and has no option for it.
PYTEST_SCRIPT = f"""
import sys
sys.modules["rfc3987_syntax"] = None
import pytest
from nbval.plugin import IPyNbCell
IPyNbCell.output_timeout = property(lambda cell: {STARTUP_SECONDS}, lambda cell, seconds: None)
sys.exit(pytest.main())
"""


def stop_process(process):
    """Ends a run of pytest, with its kernel and all else in its process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def _start_pytest(folder):
    """Starts pytest with nbval on grading.ipynb in the folder."""
    command = [
        sys.executable,
        "-c",
        PYTEST_SCRIPT,
        "-p",
        "nbval.plugin",
        "--nbval",
        "--nbval-current-env",
        f"--nbval-cell-timeout={CELL_SECONDS}",
        f"--nbval-kernel-startup-timeout={STARTUP_SECONDS}",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "pytest.ini",
        "--junitxml=report.xml",
        "grading.ipynb",
    ]
    search_path = [str(library_dir().parent)]
    if os.environ.get("PYTHONPATH"):
        search_path.append(os.environ["PYTHONPATH"])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(search_path),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(folder),  # so that nothing of it enters the teacher's IPython history
        # What else pytest has installed here has no say in the marks.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    with open(folder / "log.txt", "w") as log:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def run_notebook(notebook, folder):
    """Runs a grading notebook in a folder of its own, and returns whether pytest ended in time."""
    (folder / "grading.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n")
    process = _start_pytest(folder)
    RUNNING_PROCESSES.add(process)
    if STOP_REQUESTED.is_set():  # while this thread was between the file and the process
        stop_process(process)
    try:
        process.wait(CELL_SECONDS * len(notebook.cells))
    except subprocess.TimeoutExpired:
        return False
    finally:
        RUNNING_PROCESSES.discard(process)
        if process.poll() is None:
            stop_process(process)
            process.wait()
    return True


def _read_report(notebook, folder):
    """What a run has left in its folder: (what Grader.judge wrote, the exercises whose check cell nbval passed)."""
    try:
        report = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
        test_cases = list(ElementTree.parse(folder / "report.xml").iter("testcase"))
    except (OSError, ValueError, ElementTree.ParseError):
        return {}, []
    # nbval has a test case for each code cell, in order; one that failed has a child that says so.
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    passed = []
    for cell, test_case in zip(code_cells, test_cases):
        if len(test_case) == 0 and "exercise" in cell.metadata:
            passed.append(cell.metadata["exercise"])
    return report, passed


def _check_installed():
    """Raises: ImportError where what runs the grading notebook is not installed."""
    if find_spec("nbval") is None or find_spec("pytest") is None:
        raise ImportError("grading needs nbval and pytest: pip install nbval pytest")


def _last_log_line(folder):
    """The last line that pytest has printed, cut to a length; empty where it has printed none."""
    log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    lines = [line for line in log.splitlines() if line.strip()]
    if not lines:
        return ""
    return one_line(lines[-1], MAX_LOG_CHARACTERS)


def grade_submission(path, lesson, seed):
    """Grades one file.

    Returns {"marks": {exercise: ✓ ✗ ○}, "hints": {exercise: text}, "problems": [text], "answers": {exercise: text of
    the cell}, "isolation": {what: does the system stop it?} or None, "seconds",
    "ran": was every answer judged, and every ✓ confirmed by nbval?}.

    Raises: ImportError where nbval or pytest is not installed.
    """
    start = time.perf_counter()
    _check_installed()
    submission = _collect_answers(path, lesson)
    report = {}
    passed = []
    log_line = ""
    if submission.answers:
        with tempfile.TemporaryDirectory(prefix="chargpt-") as name:
            folder = Path(name).resolve()
            notebook = _grading_notebook(submission, lesson, seed)
            if run_notebook(notebook, folder):
                report, passed = _read_report(notebook, folder)
            log_line = _last_log_line(folder)
    verdicts = report.get("verdicts", {})
    # A ✓ counts if the judge gave it and nbval found the cell's output to be what it must be.
    unconfirmed = {
        name for name, verdict in verdicts.items() if verdict["mark"] == "✓" and name not in passed
    }
    all_judged = set(submission.answers) == set(verdicts)
    ran = bool(submission.answers) and all_judged and not unconfirmed
    problems = list(submission.problems)
    if submission.answers and not ran:
        reason = f" ({log_line})" if log_line else ""
        problems.append(
            f"the grading itself failed or took too long{reason}: grade this file again"
        )
    marks = {}
    hints = {}
    for exercise in exercises_of(lesson):
        name = exercise.name
        if name in unconfirmed:
            marks[name] = "✗"
            hints[name] = (
                "the judge accepted it, but the check cell of the grading run failed: "
                "grade this file again"
            )
        elif name in verdicts:
            marks[name] = verdicts[name]["mark"]
            hints[name] = verdicts[name]["hint"]
        elif name in submission.answers:
            marks[name] = "○"
            hints[name] = "not judged: grade this file again"
        else:
            marks[name] = "○"
            hints[name] = "not attempted"
    return {
        "marks": marks,
        "hints": hints,
        "problems": problems,
        "answers": submission.answers,
        "isolation": report.get("isolation"),
        "seconds": round(time.perf_counter() - start, 2),
        "ran": ran,
    }
