"""Writes what a teacher hands out: notebooks and library in a zip, without sources, solutions, answers or mistakes.

    python notebooks/tools/release.py [ZIP]     (make release; by default dist/chargpt-course.zip)

In the place of the answers the keys hold sealed cases: inputs with the results that right and wrong answers give.
Beside the notebooks lies the library as one file, a wheel, for Colab and Kaggle.
"""

import gzip
import json
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

from build import (
    BEGIN,
    END,
    HERE,
    LIBRARY,
    BuildError,
    check,
    made_modules,
    read_lessons,
)

CHECKS = 12  # sets of cases that are sealed for each exercise; a check takes one of them
FILES = (
    "LICENSE",
    "pyproject.toml",
    "constraints.txt",
    "environment.yml",
    "data/README.md",
    "notebooks/conftest.py",
    "notebooks/sanitize.cfg",
    "notebooks/RUNNING_ELSEWHERE.md",
    "notebooks/source/course.toml",
)
START = """# chargpt, as your teacher hands it out

Notebooks that build a GPT, character by character, and the library they grow into.
You need Python 3.11, 3.12, 3.13 or 3.14. In this folder:

    python3 -m venv .venv
    .venv/bin/python -m pip install -c constraints.txt -e ".[lab]"
    .venv/bin/python -m jupyterlab --notebook-dir=notebooks

(On Windows `py -m venv .venv`, and `.venv\\Scripts\\python` in the place of `.venv/bin/python`.) Begin with `start_here.ipynb`, or at the beginning, `00_data.ipynb`.

Exercises say ✓, ✗ with a hint, or ○. To grade a whole notebook, as your teacher will:

    .venv/bin/chargpt check notebooks/03_single_head.ipynb

(Linux and macOS; on Windows inside WSL.) What you hand in is the notebook. Only the exercise cells count, each by itself: what an answer needs, imports and
helpers too, must stand in its own cell.

On Colab and Kaggle: a notebook, and beside it the library as one file, which lies in this folder (`chargpt-*.whl`).
`notebooks/RUNNING_ELSEWHERE.md` has the steps.
"""


def sealed(exercises):
    """The cases of many checks, gzipped JSON: {exercise: [[arguments, wanted, [[hint, outcome...]]]]}."""
    from chargpt_lib.exercises.compare import encode
    from chargpt_lib.exercises.judge import draw_cases

    packed = {}
    for exercise in exercises:
        checks = []
        for seed in range(CHECKS):
            cases = []
            for case in draw_cases(exercise, seed):
                mistakes = [[hint, *mistake()] for hint, mistake in case.mistakes.items()]
                cases.append([case.args, case.want, mistakes])
            checks.append(cases)
        packed[exercise.name] = encode(checks)
    return gzip.compress(json.dumps(packed).encode(), mtime=0)


def without_mistakes(text):
    """The text of a key without what stands between the markers: what gives the answers away."""
    lines = []
    inside = False
    for line in text.splitlines(keepends=True):
        if line.strip() == BEGIN:
            inside = True
        elif line.strip() == END:
            inside = False
        elif not inside:
            lines.append(line)
    return "".join(lines)


def library_files(project, lessons):
    """{name in the zip: bytes} of the library: answers blank, keys without mistakes, sealed cases in their place."""
    from chargpt_lib.exercises.judge import exercises_of

    files = {}
    for path in sorted(project.library.rglob("*")):
        if path.suffix in (".py", ".js", ".css"):
            files[project.name(path)] = path.read_bytes()
    for name, text in made_modules(project, lessons, solved=False).items():
        files[f"{LIBRARY}/{name}"] = text.encode()
    for path in sorted((project.library / "exercises" / "keys").glob("[!_]*.py")):
        files[project.name(path)] = without_mistakes(path.read_text(encoding="utf-8")).encode()
    for lesson in lessons:
        exercises = exercises_of(lesson.module)
        if exercises:
            files[f"{LIBRARY}/exercises/answers/{lesson.module}.json.gz"] = sealed(exercises)
    return files


def data_files(project):
    """The paths of the data that lessons read: those that pyproject.toml puts into the wheel, too."""
    described = tomllib.loads((project.root / "pyproject.toml").read_text(encoding="utf-8"))
    paths = []
    for name in described["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]:
        path = project.root / name
        if path.is_relative_to(project.root / "data"):
            paths.extend(sorted(path.glob("*")) if path.is_dir() else [path])
    return paths


def contents(project=HERE):
    """{name in the zip: bytes}, without the wheel."""
    lessons = read_lessons(project)
    files = {"README.md": START.encode()}
    for name in FILES:
        files[name] = (project.root / name).read_bytes()
    for lesson in lessons:
        path = project.notebook(lesson.name)
        files[project.name(path)] = path.read_bytes()
    for path in data_files(project):
        files[project.name(path)] = path.read_bytes()
    return files | library_files(project, lessons)


def build_wheel(root, out):
    """Builds the project in the folder root as a wheel in the folder out, without a network -> its path."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--disable-pip-version-check",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
    ]
    subprocess.run([*pip, "--wheel-dir", out, root], check=True)
    [wheel] = Path(out).glob("chargpt-*.whl")
    return wheel


def wheel_of(files):
    """The library among {name: bytes} as a wheel: (its name, bytes)."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        wheel = build_wheel(folder, folder)
        return wheel.name, wheel.read_bytes()


def write_release(path, project=HERE):
    files = contents(project)
    name, wheel = wheel_of(files)
    files[name] = wheel
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(f"chargpt-course/{name}"), data, zipfile.ZIP_DEFLATED)


def main():
    sys.path.insert(0, str(HERE.root))
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.root / "dist" / "chargpt-course.zip"
    if problems := check():
        print("\n".join(problems), file=sys.stderr)
        return 1
    try:
        write_release(path)
    except (BuildError, OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
