"""A class: many submissions, graded into one folder.

grades.json holds all that belongs to a class: the lesson, the weights, the seed, and a record for each submission with
the sha256 of its file. It is written after each submission. So an interrupted batch goes on where it stopped, a
submission that was handed in again is graded again, alone, and no record is lost because today's command names other
files. grades.csv and the feedback pages are made from it. A folder of grades belongs to one lesson.

Two students may both send 03.ipynb; a submission is therefore called by its path. And the seed of a submission depends
on its contents: whoever hands in a second time meets new inputs, and the hints of the first time are no answers.
"""

import hashlib
import html
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
from chargpt_lib.grading.archives import read_source
from chargpt_lib.grading.intake import (
    absolute_name,
    collect_submissions,
    passed_over,
    submission_name,
)
from chargpt_lib.grading.submission import (
    RUNNING_PROCESSES,
    STOP_REQUESTED,
    grade_submission,
    read_code_cells,
    stop_process,
)
from chargpt_lib.grading.tables import export_csv, grades_csv

DEFAULT_JOBS = min(os.cpu_count() or 1, 8)  # submissions at a time


# ---------------------------------------------------------------- which lesson


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
    """The lesson that most of the notebooks belong to. paths: of files, or ZipMembers.

    Raises: ValueError where none holds an exercise.
    """
    votes = []
    problem = f"{submission_name(paths[0])} holds no exercise of this course"
    for path in paths:
        try:
            cells = read_code_cells(path)
        except (OSError, ValueError) as error:
            problem = f"{submission_name(path)}: {error}"
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
    _write_text(out_dir / "grades.csv", grades_csv(batch))


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


def _rename_moved(batch, submissions):
    """Gives the record of a file that has another path in today's command, but is the same file, today's name."""
    name_of_path = {record.get("path"): name for name, record in batch["submissions"].items()}
    moved = {}
    for submission in submissions:
        old_name = name_of_path.get(absolute_name(submission.source))
        if old_name is not None and old_name != submission.name:
            # A zip may list one path twice; the second one has no record yet, or one of its own.
            record = batch["submissions"].pop(old_name, None)
            if record is not None:
                moved[submission.name] = record
    batch["submissions"].update(moved)


def _ungraded_record(lesson, problem):
    """The record of what cannot be graded, in `grade_submission`'s form: only the reason."""
    names = [exercise.name for exercise in exercises_of(lesson)]
    return {
        "marks": dict.fromkeys(names, "○"),
        "hints": dict.fromkeys(names, "not graded"),
        "problems": [problem],
        "answers": {},
        "isolation": None,
        "seconds": 0.0,
        "ran": False,
    }


def _grade_if_changed(submission, batch):
    """The record of a submission: the batch's own, if nothing has changed since and it could be graded, or a new one."""
    try:
        digest = hashlib.sha256(read_source(submission.source)).hexdigest()
    except (OSError, ValueError):
        digest = ""  # no file, or none that is read
    graded_from = {"sha256": digest, "version": batch["version"], "seed": batch["seed"]}
    learner = submission.learner._asdict() if submission.learner is not None else None
    record = batch["submissions"].get(submission.name, {})
    unchanged = all(record.get(key) == value for key, value in graded_from.items())
    if record.get("ran") and unchanged:
        return {**record, "learner": learner}
    if submission.problem is not None:
        record = _ungraded_record(batch["lesson"], submission.problem)
    else:
        seed_text = f"{batch['seed']} {digest}"
        seed = int(hashlib.sha256(seed_text.encode()).hexdigest()[:8], 16)
        record = grade_submission(submission.source, batch["lesson"], seed)
    path = absolute_name(submission.source)
    return {**record, **graded_from, "path": path, "learner": learner}


def _guess_lesson_of(submissions):
    """The lesson that most of the submissions belong to.

    Raises: ValueError where none holds an exercise.
    """
    notebooks = [submission.source for submission in submissions if submission.problem is None]
    if not notebooks:
        first = submissions[0]
        raise ValueError(
            f"cannot tell the lesson ({first.name}: {first.problem}): "
            "pass --lesson, e.g. --lesson 03"
        )
    return guess_lesson(notebooks)


def grade_batch(
    paths, out_dir, lesson=None, weights=None, seed=None, jobs=None, export_format="csv"
):
    """Grades submissions into the folder out_dir, and returns the batch with the records of these files alone.

    paths: notebooks, zips, or folders of them. lesson: a module; None: what most of the notebooks
    are. weights: a TOML file; None: what the folder had before. jobs: how many submissions at a
    time; None: one for each core, at most 8. export_format: csv, or a platform of tables.EXPORTS,
    whose import file is then written, too.

    Raises: FileNotFoundError and ValueError for what cannot be graded so, before any grading.
    """
    out_dir = Path(out_dir)
    load_answer_keys()
    ours = [out_dir]
    if weights is not None:
        ours.append(weights)
    intake = collect_submissions(paths, ours)
    if lesson is None:
        lesson = _guess_lesson_of(intake.submissions)
    if jobs is None:
        jobs = DEFAULT_JOBS
    batch = _load_batch(out_dir, lesson, seed)
    if weights is not None:
        batch["weights"] = _load_weights(weights, lesson)
    else:
        batch["weights"] = {**_load_weights(None, lesson), **batch.get("weights", {})}
    _rename_moved(batch, intake.submissions)
    _write_results(out_dir, batch)

    STOP_REQUESTED.clear()
    total = len(intake.submissions)
    with ThreadPoolExecutor(jobs) as pool:
        name_of_future = {}
        for submission in intake.submissions:
            future = pool.submit(_grade_if_changed, submission, batch)
            name_of_future[future] = submission.name
        done = as_completed(name_of_future)
        try:
            for future in tqdm(done, total=total, unit="submission", file=sys.stdout):
                name = name_of_future[future]
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
    left_out = 0
    if export_format != "csv":
        text, left_out = export_csv(batch, export_format)
        _write_text(out_dir / f"{export_format}.csv", text)
    names = [submission.name for submission in intake.submissions]
    return {
        **batch,
        "submissions": {name: batch["submissions"][name] for name in names},
        "older": len(batch["submissions"]) - len(names),  # records of files not named today
        "passed_over": passed_over(intake.set_aside),
        "left_out": left_out,  # submissions that the import file does not have
    }
