"""Runs lessons 00 to 06 top to bottom, and shows how far down the ladder of losses they came.

The executed notebooks and their pictures go to `course/`; nothing that git knows is changed.
"""

import base64
import sys
import time

import nbformat

from build import HERE, BuildError, run_notebook

COURSE = HERE.root / "course"


def run_lesson(path):
    notebook = nbformat.read(path, as_version=4)
    run_notebook(notebook, path.stem, path.parent, HERE.root)
    nbformat.write(notebook, COURSE / path.name)
    shown = [
        output.data
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    pictures = [data["image/png"] for data in shown if "image/png" in data]
    for number, picture in enumerate(pictures, 1):
        (COURSE / "pictures" / f"{path.stem}-{number}.png").write_bytes(base64.b64decode(picture))


def ladder_table(rungs):
    """The exact validation losses, one rung a line, aligned."""
    lines = [f"{'rung':<24}{'loss':>8}{'above the floor':>18}{'seconds':>10}"]
    for name, rung in rungs.items():
        above = f"{rung['loss'] - rung['floor']:.3f}" if rung["floor"] is not None else "unknown"
        recorded = "  (recorded, not measured here)" if rung["recorded"] else ""
        lines.append(f"{name:<24}{rung['loss']:>8.3f}{above:>18}{rung['seconds']:>10.1f}{recorded}")
    return "\n".join(lines)


def main():
    start = time.monotonic()
    lessons = sorted((HERE.root / "notebooks").glob("0[0-6]_*.ipynb"))
    (COURSE / "pictures").mkdir(parents=True, exist_ok=True)
    print(f"{len(lessons)} lessons, each run from top to bottom", flush=True)
    try:
        for path in lessons:
            run_lesson(path)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\ninterrupted; trained models are kept, so the next run goes faster", file=sys.stderr
        )
        return 130

    from chargpt_lib.training import ladder

    rungs = ladder()
    samples = [(name, rung["sample"]) for name, rung in rungs.items() if rung["sample"]]
    print(f"\nThe ladder: exact validation loss, nats per character\n\n{ladder_table(rungs)}")
    if samples:
        print("\nA play by the rung `{}`\n\n{}".format(*samples[-1]))
    print(
        f"\n{time.monotonic() - start:.0f} s in all. Notebooks: course/   Pictures: course/pictures/   On: make lab"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
