import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import NamedTuple
from xml.etree import ElementTree

from chargpt_lib.course import page_of_module
from chargpt_lib.exercises.judge import EXERCISES, Verdict, exercises_of, judge
from chargpt_lib.files import library_dir
from chargpt_lib.grading.worker import OPENING, VISIT, Sandbox

ANSWER_LENGTH = 100_000


class Submission(NamedTuple):
    path: Path
    answers: dict  # {exercise: the text of its cell}
    problems: list  # what was wrong with the file


def read_code(path):
    """The code cells of any notebook file -> [(names it may be known by, text)]. ValueError where it is none."""
    if path.is_symlink() or not path.is_file():
        raise ValueError("not a file: links and folders are not followed")
    if path.stat().st_size > 2**26:
        raise ValueError(
            f"the file has {path.stat().st_size >> 20} MB; a notebook of this course has less than 64"
        )
    try:
        notebook = json.loads(path.read_text(encoding="utf-8-sig"))
        sheets = notebook["worksheets"] if "worksheets" in notebook else [notebook]
        cells = [
            cell for sheet in sheets for cell in sheet["cells"] if cell.get("cell_type") == "code"
        ]
        found = []
        for cell in cells:
            data, text = cell.get("metadata", {}), cell.get("source", cell.get("input", ""))
            text = text if isinstance(text, str) else "".join(text or [])
            names = [
                name
                for name in (data.get("exercise"), cell.get("id"), data.get("id"))
                if isinstance(name, str)
            ]
            found.append((names, text.encode("utf-8", "replace").decode()))
        return found
    except Exception as error:
        raise ValueError(
            f"not a notebook, or a damaged one ({type(error).__name__}: {str(error)[:100]})"
        ) from None


def collect(path, lesson):
    """The texts of the answers to a lesson's exercises in a submitted file -> Submission."""
    path, wanted = Path(path), [exercise.name for exercise in exercises_of(lesson)]
    try:
        cells = read_code(path)
    except (OSError, ValueError) as error:
        return Submission(path, {}, [str(error)])
    answers, problems = {}, []
    for name in wanted:
        defines = re.compile(rf"^def {name}\b", re.M)
        named = [text for names, text in cells if name in names]
        others = [text for names, text in cells if name not in names and defines.search(text)]
        tries = [
            text
            for text in named + others
            if defines.search(text) and "raise NotAttempted" not in text
        ]
        good = [text for text in tries if text in named] or tries or named or others
        if good and len(good[-1]) > ANSWER_LENGTH:
            problems.append(
                f"the cell for {name} has {len(good[-1]):,} characters, of at most {ANSWER_LENGTH:,}"
            )
        elif good:
            answers[name] = good[-1]
        problems += (
            [f"{len(named)} cells for {name}; one of them was taken"] if len(named) > 1 else []
        )
        problems += [] if good else [f"no cell for {name}"]
    others = {
        exercise.lesson for names, _ in cells for exercise in map(EXERCISES.get, names) if exercise
    } - {lesson}
    if others and not answers:
        those = ", ".join(sorted(page_of_module(other).name for other in others))
        problems = [f"this is lesson {those}, not {page_of_module(lesson).name}"]
    return Submission(path, answers, problems)


def trusted_notebook(submission, lesson, seed):
    """Setup, exercises and checks, with the outputs that right answers would have -> notebook."""
    import nbformat  # takes a second, and the trusted notebook itself has no use for it

    setup = f"from chargpt_lib.examination import Examination\n\nexamination = Examination({lesson!r}, {seed})"
    cells = [nbformat.v4.new_code_cell(setup, execution_count=1)]
    for name, text in submission.answers.items():
        said = nbformat.v4.new_output("stream", name="stdout", text=f"✓ {name}\n")
        check = f"examination.judge({name!r}, {text!a})"
        cells += [
            nbformat.v4.new_raw_cell(text),
            nbformat.v4.new_code_cell(check, execution_count=1, outputs=[said]),
        ]
    cells.append(nbformat.v4.new_code_cell("examination.close()", execution_count=1))
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec})


class Examination:
    """In the trusted notebook: takes the texts of answers, and judges them in locked rooms."""

    def __init__(self, lesson, seed):
        self.names = [exercise.name for exercise in exercises_of(lesson)]
        self.sandbox, self.seed, self.said = Sandbox(lesson, len(self.names)), seed, {}

    def judge(self, name, text):
        """Prints the verdict on the text of an answer, and notes it for the grader."""
        room, exercise = self.sandbox.rooms[self.names.index(name)], EXERCISES[name]
        promises = room.enter(name, text, exercise.seconds)
        if promises is None:
            raise OSError("the room did not open, and no answer is to blame")
        try:
            verdict = judge(exercise, room, self.seed + self.names.index(name))
        except Exception as error:
            verdict = Verdict(
                name, "✗", f"what it returns makes the judge stumble ({type(error).__name__})"
            )
        self.said[name] = {"mark": verdict.mark, "hint": verdict.hint}
        said = {"verdicts": self.said, "locked": promises}
        Path("verdicts.json").write_text(json.dumps(said), encoding="utf-8")
        print(f"{verdict.mark} {name}")

    def close(self):
        self.sandbox.__exit__()


CELL_SECONDS = OPENING + 2 * VISIT  # more than an answer and its judge may take
RUNNING = set()  # the processes of run_trusted, for whoever has to stop them
STOPPED = Event()  # set: whatever starts from now on is stopped, too
# jsonschema, which nbformat imports, would spend a second on a grammar of web addresses that no notebook asks for
PYTEST = f"""
import sys
sys.modules["rfc3987_syntax"] = None
import pytest
from nbval.plugin import IPyNbCell
IPyNbCell.output_timeout = property(lambda cell: {OPENING}, lambda cell, seconds: None)
sys.exit(pytest.main())
"""


def stop(process):
    """Ends a run of the trusted notebook, with all that belongs to it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def run_trusted(submission, lesson, seed, folder):
    """Runs the trusted notebook under nbval -> (what the judge said, the check cells that nbval passed)."""
    notebook = trusted_notebook(submission, lesson, seed)
    (folder / "grading.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [
        sys.executable,
        "-c",
        PYTEST,
        "-p",
        "nbval.plugin",
        "--nbval",
        "--nbval-current-env",
        f"--nbval-cell-timeout={CELL_SECONDS}",
        f"--nbval-kernel-startup-timeout={OPENING}",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "pytest.ini",
        "--junitxml=report.xml",
        "grading.ipynb",
    ]
    paths = os.pathsep.join(
        [str(library_dir().parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "JUPYTER_PREFER_ENV_PATH": "1",
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(folder),  # no history of it is kept
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }  # what else pytest has here has no say in the marks
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        RUNNING.add(process)
        if STOPPED.is_set():
            stop(process)
        try:
            process.wait(CELL_SECONDS * len(notebook.cells))
        except subprocess.TimeoutExpired:
            return {}, []
        finally:
            RUNNING.discard(process)
            if process.poll() is None:
                stop(process)
                process.wait()
    try:
        said = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
        cases = list(ElementTree.parse(folder / "report.xml").iter("testcase"))
    except (OSError, ValueError, ElementTree.ParseError):
        return {}, []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    passed = [cell for cell, case in zip(code, cases) if len(case) == 0]
    return said, [re.findall(r"'(\w+)'", cell.source)[0] for cell in passed if cell.outputs]


def grade(path, lesson, seed):
    """Grades one file -> {"marks": {exercise: ✓ ✗ ○}, "hints", "problems", "locked", "seconds", "ran"}."""
    began, submission = time.perf_counter(), collect(path, lesson)
    said, passed = {"verdicts": {}}, []
    if submission.answers:
        with tempfile.TemporaryDirectory(prefix="chargpt-") as folder:
            said, passed = run_trusted(submission, lesson, seed, Path(folder).resolve())
    ran = bool(submission.answers) and set(submission.answers) == set(said.get("verdicts", {}))
    if submission.answers and not ran:
        submission.problems.append(
            "the grading itself failed or took too long: grade this file again"
        )
    marks, hints = {}, {}
    for exercise in exercises_of(lesson):
        attempted = (
            "not judged: grade this file again"
            if exercise.name in submission.answers
            else "not attempted"
        )
        verdict = said.get("verdicts", {}).get(exercise.name, {"mark": "○", "hint": attempted})
        sound = verdict["mark"] != "✓" or exercise.name in passed
        marks[exercise.name], hints[exercise.name] = (
            verdict["mark"] if sound else "✗",
            verdict["hint"],
        )
    return {
        "marks": marks,
        "hints": hints,
        "problems": submission.problems,
        "answers": submission.answers,
        "locked": said.get("locked"),
        "seconds": round(time.perf_counter() - began, 2),
        "ran": ran,
    }
