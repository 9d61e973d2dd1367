"""A class: many submissions, graded into one folder.

grades.json holds all that belongs to a class: the lesson, the weights, the seed, and a record for each submission with
the sha256 of its file. It is written after each submission. So an interrupted batch goes on where it stopped, a
submission that was handed in again is graded again, alone, and no record is lost because today's command names other
files. grades.csv and the feedback pages are made from it. A folder of grades belongs to one lesson.

Two students may both send 03.ipynb; a submission is therefore called by its path. And the seed of a submission depends
on its contents: whoever hands in a second time meets new inputs, and the hints of the first time are no answers.
"""

import csv
import hashlib
import html
import io
import json
import os
import re
import secrets
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from chargpt_lib.course import page_of_module, read_course
from chargpt_lib.exercises.judge import EXERCISES, exercises_of, load_answer_keys
from chargpt_lib.files import atomic_write_text, library_dir
from chargpt_lib.grading.submission import (
    MAX_NOTEBOOK_BYTES,
    RUNNING_PROCESSES,
    STOP_REQUESTED,
    grade_submission,
    read_code_cells,
    stop_process,
)

DEFAULT_JOBS = min(os.cpu_count() or 1, 8)  # submissions at a time


# ---------------------------------------------------------------- which files, which lesson


def find_submissions(paths):
    """All notebooks among files and folders, in order, each once.

    Raises: FileNotFoundError for a path that does not exist, or where there is no notebook.
    """
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there: give notebooks, or folders of notebooks")
        files = sorted(path.rglob("*.ipynb")) if path.is_dir() else [path]
        for file in files:
            # what Jupyter and macOS put beside notebooks
            is_copy = ".ipynb_checkpoints" in file.parts or "__MACOSX" in file.parts
            if not is_copy and not file.name.startswith("._") and file not in found:
                found.append(file)
    if not found:
        raise FileNotFoundError(f"there is no notebook (.ipynb) in {', '.join(map(str, paths))}")
    return found


def _submission_name(path):
    """The path as a submission is called: on one line, whatever the file's name, and no formula for a spreadsheet."""
    # A file's name is bytes, which need not be UTF-8.
    name = os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
    name = "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)
    if name.startswith(("=", "+", "-", "@")):
        return f"./{name}"
    return name


def _short_name(name):
    """The last two parts of a path: enough for a student to know her file."""
    return "/".join(name.split("/")[-2:])


def resolve_lesson(name):
    """The module of the lesson that is called so: 03, 3, single_head or 03_single_head.

    Raises: ValueError where no lesson with exercises has this name.
    """
    load_answer_keys()
    modules = {exercise.lesson for exercise in EXERCISES.values()}
    pages = [page for page in read_course() if page.module in modules]
    for page in pages:
        if name in page.words:
            return page.module
    known = ", ".join(page.name for page in pages)
    raise ValueError(f"no lesson with exercises is called {name!r}; there are {known}")


def _most_common(values):
    """The value that occurs most often; of several, the first."""
    return max(values, key=values.count)


def guess_lesson(paths):
    """The lesson that most of the notebooks belong to.

    Raises: ValueError where none holds an exercise.
    """
    votes = []
    problem = f"{paths[0]} holds no exercise of this course"
    for path in paths:
        try:
            cells = read_code_cells(path)
        except (OSError, ValueError) as error:
            problem = f"{path}: {error}"
            continue
        exercises = {name for names, _ in cells for name in names if name in EXERCISES}
        if exercises:
            votes.append(_most_common([EXERCISES[name].lesson for name in sorted(exercises)]))
    if not votes:
        raise ValueError(f"cannot tell the lesson ({problem}): pass --lesson, e.g. --lesson 03")
    return _most_common(votes)


# ---------------------------------------------------------------- scores


def _load_weights(path, lesson):
    """{exercise: weight} from a TOML file with lines like `window_mask = 2`; 1 for those that it leaves out.

    path: None where every exercise weighs the same.

    Raises: ValueError where the file cannot be read, or says something impossible.
    """
    weights = {exercise.name: 1 for exercise in exercises_of(lesson)}
    if path is None:
        return weights
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        example = f"{next(iter(weights))} = 2"
        raise ValueError(
            f"--weights {path} cannot be read: {error}. A line of it is `{example}`"
        ) from None
    for name, weight in given.items():
        if name not in weights:
            raise ValueError(
                f"{path}: lesson {lesson} has no exercise {name!r}; it has {', '.join(weights)}"
            )
        is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not is_number or not 0 <= weight < float("inf"):
            raise ValueError(
                f"{path}: the weight of {name} is {weight!r}; it must be a number >= 0"
            )
        weights[name] = weight
    if not any(weights.values()):
        raise ValueError(f"{path}: all weights are 0, so nobody could score")
    return weights


def score(marks, weights):
    """The percentage of all weights that have a ✓."""
    reached = sum(weights[name] for name, mark in marks.items() if mark == "✓")
    return 100 * reached / sum(weights.values())


# ---------------------------------------------------------------- the files of a batch

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
section { border-top: 1px solid #8886; padding: .6rem 0 } p { margin: .3rem 0 } .mark { font-weight: bold }
pre { overflow-x: auto; padding: .6rem; background: #8882 } .minutes { opacity: .7; float: right }
"""
MARKS_IN_WORDS = {"✓": "right", "✗": "not right yet", "○": "not attempted"}


def _feedback_section(exercise, record, weight):
    """One exercise on a student's page, as HTML. All text in it comes from a stranger, so all of it is escaped."""
    name = exercise.name
    mark = record["marks"][name]
    points = weight if mark == "✓" else 0
    lines = [
        f'<span class="minutes">{"★" * exercise.stars} {exercise.minutes} min</span>',
        f'<span class="mark">{mark} {name}</span>: {MARKS_IN_WORDS[mark]}, {points:g} of {weight:g}',
    ]
    if mark == "✗":
        lines.append(f"<p>{html.escape(record['hints'][name])}</p>")
    if record["answers"].get(name):
        answer = html.escape(record["answers"][name])
        lines.append(f"<details><summary>your answer</summary><pre>{answer}</pre></details>")
    return f"<section>{''.join(lines)}</section>"


def _feedback_page(name, record, lesson, weights):
    """The page for one student, as HTML."""
    page_name = page_of_module(lesson).name
    if record["answers"]:
        title = f"{page_name}: {score(record['marks'], weights):.0f}%"
        sections = [
            _feedback_section(exercise, record, weights[exercise.name])
            for exercise in exercises_of(lesson)
        ]
    else:
        title = f"{page_name}: could not be graded"
        sections = ["<p>Please send the notebook again.</p>"]
    notes = [f"<p>Note: {html.escape(problem)}.</p>" for problem in record["problems"]]
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style><h1>{title}</h1><p>{html.escape(_short_name(name))}</p>"
        f"{''.join(notes)}{''.join(sections)}</html>\n"
    )


def _feedback_file(name):
    """The path of a submission's feedback page in the batch's folder: readable, and another one for each name."""
    readable = _short_name(name).removesuffix(".ipynb")
    readable = re.sub(r"[^\w.-]+", "_", readable, flags=re.ASCII).strip("._")[-60:]
    digest = hashlib.sha256(name.encode()).hexdigest()[:20]
    return f"feedback/{readable}-{digest}.html"


def _write_text(path, text):
    """Writes a text whole or not at all. What UTF-8 cannot write, half of a surrogate pair, is written as \\udc80.

    Raises: OSError.
    """
    atomic_write_text(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _write_record(out_dir, name, record, lesson, weights):
    """Enters score and feedback into a record, and writes its feedback page."""
    record["score"] = round(score(record["marks"], weights), 2)
    record["feedback"] = _feedback_file(name)
    _write_text(out_dir / record["feedback"], _feedback_page(name, record, lesson, weights))


def _write_grades(out_dir, batch):
    """Writes grades.json and, from it, grades.csv."""
    _write_text(out_dir / "grades.json", json.dumps(batch, indent=1, ensure_ascii=False))
    table = io.StringIO()
    writer = csv.DictWriter(table, ["submission", "score", *batch["weights"]])
    writer.writeheader()
    for name, record in sorted(batch["submissions"].items()):
        row = {"submission": name, "score": f"{record['score']:g}"}
        for exercise, mark in record["marks"].items():
            row[exercise] = 1 if mark == "✓" else 0
        writer.writerow(row)
    _write_text(out_dir / "grades.csv", table.getvalue())


def _write_results(out_dir, batch):
    """Writes grades.json, grades.csv and all feedback pages."""
    (out_dir / "feedback").mkdir(parents=True, exist_ok=True)
    for name, record in batch["submissions"].items():
        _write_record(out_dir, name, record, batch["lesson"], batch["weights"])
    _write_grades(out_dir, batch)


# ---------------------------------------------------------------- grading


def _sha256_of(*paths):
    """The sha256 of the contents of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _load_batch(out_dir, lesson, seed=None):
    """The batch that an earlier grading saved in a folder, or a new one, as {lesson, seed, version, submissions, ...}.

    Raises: ValueError where the folder is of no use for this grading.
    """
    if seed is not None and seed < 0:
        raise ValueError(f"--seed is {seed}; it must be an integer >= 0")
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"--out {out_dir} cannot be a folder for the marks: {error.strerror}"
        ) from None
    # Another version of library or keys may judge otherwise, so records of another one are made again.
    version = _sha256_of(*sorted(library_dir().rglob("*.py")))
    saved = out_dir / "grades.json"
    if not saved.exists():
        if seed is None:
            seed = secrets.randbits(31)
        return {"lesson": lesson, "submissions": {}, "seed": seed, "version": version}
    try:
        batch = json.loads(saved.read_text(encoding="utf-8"))
        saved_lesson = page_of_module(batch["lesson"])
        saved_seed = batch["seed"]
        batch["submissions"].items()
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ValueError(f"{saved} is damaged: move it away, or give another --out") from None
    if saved_lesson.module != lesson:
        raise ValueError(
            f"{out_dir} holds the marks of lesson {saved_lesson.name}: "
            f"give another --out for {page_of_module(lesson).name}"
        )
    if seed is not None and seed != saved_seed:
        raise ValueError(
            f"{out_dir} was graded with the seed {saved_seed}: "
            f"give another --out for the seed {seed}"
        )
    return {**batch, "version": version}


def _rename_moved(batch, files):
    """Gives the record of a file that has another path in today's command, but is the same file, today's name."""
    name_of_path = {record.get("path"): name for name, record in batch["submissions"].items()}
    for path in files:
        old_name = name_of_path.get(_submission_name(path.absolute()))
        if old_name is not None and old_name != _submission_name(path):
            batch["submissions"][_submission_name(path)] = batch["submissions"].pop(old_name)


def _grade_if_changed(path, batch):
    """The record of a submission: the batch's own, if nothing has changed since and it could be graded, or a new one."""
    is_readable = (
        path.is_file() and not path.is_symlink() and path.stat().st_size < MAX_NOTEBOOK_BYTES
    )
    graded_from = {
        "sha256": _sha256_of(path) if is_readable else "",
        "version": batch["version"],
        "seed": batch["seed"],
    }
    record = batch["submissions"].get(_submission_name(path), {})
    unchanged = all(record.get(key) == value for key, value in graded_from.items())
    if record.get("ran") and unchanged:
        return record
    seed_text = f"{batch['seed']} {graded_from['sha256']}"
    seed = int(hashlib.sha256(seed_text.encode()).hexdigest()[:8], 16)
    record = grade_submission(path, batch["lesson"], seed)
    return {**record, **graded_from, "path": _submission_name(path.absolute())}


def grade_batch(paths, out_dir, lesson=None, weights=None, seed=None, jobs=None):
    """Grades submissions into the folder out_dir, and returns the batch with the records of these files alone.

    paths: notebooks, or folders of them. lesson: a module; None: what most of the notebooks are. weights: a TOML file;
    None: what the folder had before. jobs: how many submissions at a time; None: one for each core, at most 8.

    Raises: FileNotFoundError and ValueError for what cannot be graded so, before any grading.
    """
    out_dir = Path(out_dir)
    files = find_submissions(paths)
    load_answer_keys()
    if lesson is None:
        lesson = guess_lesson(files)
    if jobs is None:
        jobs = DEFAULT_JOBS
    batch = _load_batch(out_dir, lesson, seed)
    if weights is not None:
        batch["weights"] = _load_weights(weights, lesson)
    else:
        batch["weights"] = {**_load_weights(None, lesson), **batch.get("weights", {})}
    _rename_moved(batch, files)
    _write_results(out_dir, batch)

    STOP_REQUESTED.clear()
    with ThreadPoolExecutor(jobs) as pool:
        path_of_future = {pool.submit(_grade_if_changed, path, batch): path for path in files}
        done = as_completed(path_of_future)
        try:
            for future in tqdm(done, total=len(files), unit="submission", file=sys.stdout):
                name = _submission_name(path_of_future[future])
                record = future.result()
                batch["submissions"][name] = record
                _write_record(out_dir, name, record, lesson, batch["weights"])
                _write_grades(out_dir, batch)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            STOP_REQUESTED.set()  # for a thread that is just about to start a process
            for process in list(RUNNING_PROCESSES):
                stop_process(process)
            raise
    names = [_submission_name(path) for path in files]
    return {
        **batch,
        "submissions": {name: batch["submissions"][name] for name in names},
        "older": len(batch["submissions"]) - len(names),  # records of files not named today
    }
