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
from chargpt_lib.exercises.judge import EXERCISES, exercises_of, load_keys
from chargpt_lib.files import library_dir
from chargpt_lib.grading.submission import RUNNING, STOPPED, grade, read_code, stop


def find_submissions(paths):
    """All notebooks among files and folders, in order. FileNotFoundError for what is not there."""
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there: give notebooks, or folders of notebooks")
        inside = sorted(path.rglob("*.ipynb")) if path.is_dir() else [path]
        inside = [
            file for file in inside if not {".ipynb_checkpoints", "__MACOSX"} & set(file.parts)
        ]
        found += [file for file in inside if not file.name.startswith("._") and file not in found]
    if not found:
        raise FileNotFoundError(f"there is no notebook (.ipynb) in {', '.join(map(str, paths))}")
    return found


def name_of(path):
    """The path as a submission is called: on one line, whatever the file's name, and no formula for a spreadsheet."""
    name = os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
    name = "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)
    return f"./{name}" if name.startswith(("=", "+", "-", "@")) else name


def likely_lesson(paths):
    """The lesson that most of the notebooks belong to. ValueError where none holds an exercise."""
    votes, problem = [], f"{paths[0]} holds no exercise of this course"
    for path in paths:
        try:
            names = {name for names, _ in read_code(path) for name in names if name in EXERCISES}
        except (OSError, ValueError) as error:
            problem = f"{path}: {error}"
            continue
        lessons = [EXERCISES[name].lesson for name in names]
        votes += [max(lessons, key=lessons.count)] if lessons else []
    if not votes:
        raise ValueError(
            f"no notebook tells which lesson this is ({problem}): say it, as in --lesson 03"
        )
    return max(votes, key=votes.count)


def load_weights(path, lesson):
    """{exercise: weight} from a TOML file with lines like `window_mask = 2`; 1 for those that it leaves out."""
    weights = {exercise.name: 1 for exercise in exercises_of(lesson)}
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8")) if path else {}
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
        if (
            isinstance(weight, bool)
            or not isinstance(weight, (int, float))
            or not 0 <= weight < float("inf")
        ):
            raise ValueError(
                f"{path}: the weight of {name} is {weight!r}; it must be a number from 0 on"
            )
    if not any({**weights, **given}.values()):
        raise ValueError(f"{path}: all weights are 0, so nobody could score")
    return {**weights, **given}


def score(marks, weights):
    """The percentage that ✓ marks make of all weights."""
    return (
        100
        * sum(weights[name] for name, mark in marks.items() if mark == "✓")
        / sum(weights.values())
    )


STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
section { border-top: 1px solid #8886; padding: .6rem 0 } p { margin: .3rem 0 } .mark { font-weight: bold }
pre { overflow-x: auto; padding: .6rem; background: #8882 } .minutes { opacity: .7; float: right }
"""


def short(name):
    """The last two parts of a path: enough for a student to know her file."""
    return "/".join(name.split("/")[-2:])


def feedback_page(name, record, lesson, weights):
    """The page for one student, as HTML."""
    parts = []
    for exercise in exercises_of(lesson):
        mark, hint = record["marks"][exercise.name], record["hints"][exercise.name]
        word = {"✓": "right", "✗": "not right yet", "○": "not attempted"}[mark]
        code = record["answers"].get(exercise.name)
        taken = (
            f"<details><summary>your answer</summary><pre>{html.escape(code)}</pre></details>"
            if code
            else ""
        )
        points = f"{weights[exercise.name] if mark == '✓' else 0:g} of {weights[exercise.name]:g}"
        said = f"<p>{html.escape(hint)}</p>" if mark == "✗" else ""
        parts.append(
            f'<section><span class="minutes">{"★" * exercise.stars} {exercise.minutes} min</span>'
            f'<span class="mark">{mark} {exercise.name}</span>: {word}, {points}{said}{taken}</section>'
        )
    problems = "".join(f"<p>Note: {html.escape(problem)}.</p>" for problem in record["problems"])
    title = f"{page_of_module(lesson).name}: {score(record['marks'], weights):.0f}%"
    if not record["answers"]:
        title, parts = (
            f"{page_of_module(lesson).name}: could not be graded",
            ["<p>Please send the notebook again.</p>"],
        )
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1><p>{html.escape(short(name))}</p>{problems}{''.join(parts)}</html>\n"
    )


def write_whole(path, text):
    """Writes a file under another name first, so that there is never half of it."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    os.replace(part, path)


def write_results(out, batch, weights):
    """grades.json, and from it grades.csv and the feedback pages."""
    rows = []
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    for name, record in sorted(batch["submissions"].items()):
        record["score"] = round(score(record["marks"], weights), 2)
        readable = re.sub(
            r"[^\w.-]+", "_", short(name).removesuffix(".ipynb"), flags=re.ASCII
        ).strip("._")[-60:]
        record["feedback"] = (
            f"feedback/{readable}-{hashlib.sha256(name.encode()).hexdigest()[:20]}.html"
        )
        page = feedback_page(name, record, batch["lesson"], weights)
        write_whole(out / record["feedback"], page)
        points = {exercise: 1 if mark == "✓" else 0 for exercise, mark in record["marks"].items()}
        rows.append({"submission": name, "score": f"{record['score']:g}", **points})
    batch["weights"] = weights
    write_whole(out / "grades.json", json.dumps(batch, indent=1, ensure_ascii=False))
    table = io.StringIO()
    writer = csv.DictWriter(table, ["submission", "score", *weights])
    writer.writeheader()
    writer.writerows(rows)
    write_whole(out / "grades.csv", table.getvalue())


def fingerprint(*paths):
    """sha256 of the contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def open_batch(out, lesson, seed=None):
    """What an earlier grading saved, or a new batch. ValueError where the folder is of no use for this grading."""
    saved, called = out / "grades.json", page_of_module(lesson).name
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"--out {out} cannot be a folder for the marks: {error.strerror}"
        ) from None
    if seed is not None and seed < 0:
        raise ValueError(f"--seed is {seed}: it is a whole number from 0 on")
    try:
        new = {"lesson": lesson, "submissions": {}}
        batch = json.loads(saved.read_text(encoding="utf-8")) if saved.exists() else new
        its = batch.get("seed", secrets.randbits(31) if seed is None else seed)
        version, other = (
            fingerprint(*sorted(library_dir().rglob("*.py"))),
            page_of_module(batch["lesson"]).name,
        )
        batch["submissions"].items()
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ValueError(f"{saved} is damaged: move it away, or give another --out") from None
    if batch["lesson"] != lesson:
        raise ValueError(
            f"{out} holds the marks of lesson {other}: give another --out for {called}"
        )
    if seed not in (None, its):
        raise ValueError(
            f"{out} was graded with the seed {its}: give another --out for the seed {seed}"
        )
    return {**batch, "seed": its, "version": version}


JOBS = min(os.cpu_count() or 1, 8)


def renewed(path, batch):
    """The record of a submission: the one that the batch holds, if nothing has changed since, or a new one."""
    record = batch["submissions"].get(name_of(path), {})
    sound = path.is_file() and not path.is_symlink() and path.stat().st_size < 2**26
    now = {
        "sha256": fingerprint(path) if sound else "",
        "version": batch["version"],
        "seed": batch["seed"],
    }
    if record.get("ran") and all(record[key] == value for key, value in now.items()):
        return record
    seed = int(hashlib.sha256(f"{now['seed']} {now['sha256']}".encode()).hexdigest()[:8], 16)
    return {**grade(path, batch["lesson"], seed), **now, "path": name_of(path.absolute())}


def grade_batch(paths, out, lesson=None, weights=None, seed=None, jobs=None):
    """Grades submissions into the folder out, `jobs` at a time -> the batch, with the records of these files."""
    out, files = Path(out), find_submissions(paths)
    load_keys()
    lesson = lesson or likely_lesson(files)
    batch = open_batch(out, lesson, seed)
    weights = (
        load_weights(weights, lesson)
        if weights
        else {**load_weights(None, lesson), **batch.get("weights", {})}
    )
    known = {record.get("path"): name for name, record in batch["submissions"].items()}
    for path in files:  # the same file, called otherwise today
        if (old := known.get(name_of(path.absolute()))) and old != name_of(path):
            batch["submissions"][name_of(path)] = batch["submissions"].pop(old)
    write_results(out, batch, weights)
    STOPPED.clear()
    with ThreadPoolExecutor(JOBS if jobs is None else jobs) as pool:
        records = {pool.submit(renewed, path, batch): path for path in files}
        try:
            for record in tqdm(
                as_completed(records), total=len(files), unit="submission", file=sys.stdout
            ):
                batch["submissions"][name_of(records[record])] = record.result()
                write_results(out, batch, weights)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            STOPPED.set()  # a thread may just be about to start one
            for process in list(RUNNING):
                stop(process)
            raise
    names = list(map(name_of, files))
    return {
        **batch,
        "submissions": {name: batch["submissions"][name] for name in names},
        "older": len(batch["submissions"]) - len(names),
    }


def chosen_lesson(name):
    """The module of the lesson that is called so: 03, 3, single_head or 03_single_head.

    Raises: ValueError where no lesson with exercises has this name.
    """
    load_keys()
    modules = {exercise.lesson for exercise in EXERCISES.values()}
    pages = [page for page in read_course() if page.module in modules]
    for page in pages:
        if name in page.words:
            return page.module
    known = ", ".join(page.name for page in pages)
    raise ValueError(f"no lesson with exercises is called {name!r}; there are {known}")
