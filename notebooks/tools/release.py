"""Writes what a teacher hands out: notebooks and library in a zip, without sources, solutions, answers or mistakes.

    python notebooks/release.py [ZIP]     (make release; by default dist/chargpt-course.zip)

In the place of the answers the keys hold sealed cases: inputs with the results that right and wrong answers give.
Beside the notebooks lies the library as one file, a wheel, for Colab and Kaggle.
"""

import gzip
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from build import HERE, LIBRARY, BuildError, check, export_modules, read_lessons

LEARNERS = (
    "quality",
    "hosts",
    "presets",
    "runs",
    "command_line",
)  # pages on the roof that are for everybody
CHECKS = 12  # so many sets of cases are sealed for each exercise; a check takes one of them
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
`notebooks/C_hosts.ipynb` has the steps.
"""


def sealed(exercises):
    """The cases of many checks, as text: {exercise: [[arguments, wanted, [[hint, outcome...]]]]}."""
    from chargpt_lib.exercises.compare import encode
    from chargpt_lib.exercises.judge import draw_cases

    packed = {}
    for exercise in exercises:
        checks = [draw_cases(exercise, seed) for seed in range(CHECKS)]
        packed[exercise.name] = encode(
            [
                [
                    [
                        case.args,
                        case.want,
                        [[hint, *mistake()] for hint, mistake in case.mistakes.items()],
                    ]
                    for case in cases
                ]
                for cases in checks
            ]
        )
    return gzip.compress(json.dumps(packed).encode(), mtime=0)


def contents(house=HERE):
    """{name in the zip: bytes}"""
    from chargpt_lib.exercises.judge import exercises_of

    lessons = read_lessons(house)
    files = {"README.md": START.encode()}
    for name in (
        "LICENSE",
        "pyproject.toml",
        "constraints.txt",
        "environment.yml",
        "data/README.md",
        "data/playhouse.txt",
        "data/results/ladder.json",
        "notebooks/conftest.py",
        "notebooks/sanitize.cfg",
        f"{LIBRARY}/__init__.py",
    ):
        files[name] = (house.root / name).read_bytes()
    for lesson in lessons:
        if (
            lesson.name[0] not in "BCD" or lesson.module in LEARNERS
        ):  # not how checks and grading work
            files[f"notebooks/{lesson.name}.ipynb"] = (
                house.root / "notebooks" / f"{lesson.name}.ipynb"
            ).read_bytes()
        if exercises := exercises_of(lesson.module):
            files[f"{LIBRARY}/keys/{lesson.module}.json.gz"] = sealed(exercises)
    for path in (
        *(house.library / "assets").glob("*.*"),
        *(house.root / "data" / "models").glob("*/*"),
    ):
        files[house.name(path)] = path.read_bytes()
    for name, text in export_modules(lessons, solved=False).items():
        files[f"{LIBRARY}/{name}"] = text.encode()
    return files


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


def write_release(path, house=HERE):
    files = contents(house)
    files.update([wheel_of(files)])
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
