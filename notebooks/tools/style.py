"""How the code looks: ruff's format and checks, over hand-written files and over the code cells of the lessons' text.

python notebooks/tools/style.py             says what differs; changes nothing; exits 1 where something does
python notebooks/tools/style.py --fix       formats
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from project import DIRECTIVE, HERE, code_cells, source_paths


def ruff(*arguments, cwd):
    """Runs ruff in a folder -> the finished process."""
    command = [sys.executable, "-m", "ruff", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def config_of(project):
    """ruff's option that names the project's settings; they stand in pyproject.toml."""
    return ["--config", str(project.root / "pyproject.toml")]


def sort_and_format(*paths, cwd):
    """Sorts the imports in files and folders, and formats them. paths may begin with `config_of`."""
    ruff("check", "--quiet", "--select", "I", "--fix", *paths, cwd=cwd)
    ruff("format", "--quiet", *paths, cwd=cwd)


def formatted_code(texts, project=HERE):
    """{file name: Python text} -> the same, formatted, with sorted imports. ruff runs once for all of them."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        sort_and_format(*config_of(project), ".", cwd=folder)
        return {name: Path(folder, name).read_text(encoding="utf-8") for name in texts}


def split_directive(source):
    """A cell's text -> (its `#| ...` line with the line end, or "", and the rest)."""
    first, newline, rest = source.partition("\n")
    if DIRECTIVE.match(first):
        return first + newline, rest
    return "", source


def as_notebook(cells):
    """Code cells as a notebook, which ruff reads cell by cell, magics included; directives are left out."""
    sources = [split_directive(cell.source)[1] for cell in cells]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def checked_pages(project=HERE, fix=False):
    """The faults of the lessons' code cells; with fix, their text is formatted in place."""
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        pages = {}
        for path in source_paths(project):
            cells = code_cells(path.read_text(encoding="utf-8"))
            copy = Path(folder, path.relative_to(project.source).with_suffix(".ipynb"))
            copy.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(as_notebook(cells), copy)
            pages[path] = (cells, copy)
        sort_and_format(*config_of(project), ".", cwd=folder)
        for path, (cells, copy) in pages.items():
            after = nbformat.read(copy, as_version=4).cells
            text = path.read_text(encoding="utf-8")
            new = replaced(text, cells, [cell.source for cell in after])
            if new == text:
                continue
            if fix:
                path.write_text(new, encoding="utf-8", newline="\n")
            else:
                faults.append(f"{project.name(path)}: not formatted; run `make format`")
        output = ruff(
            "check", "--output-format", "json", *config_of(project), ".", cwd=folder
        ).stdout
        for found in json.loads(output or "[]"):
            if found["code"] == "F401" and "NotAttempted" in found["message"]:
                continue  # used where the answers are left out: in the learner's notebook
            where = Path(found["filename"]).relative_to(Path(folder).resolve()).with_suffix(".py")
            place = f"notebooks/source/{where}, code cell {found['cell']}, line {found['location']['row']}"
            faults.append(f"{place}: {found['code']} {found['message']}")
    return faults


def replaced(text, cells, after):
    """The page's text with new sources for its code cells, one after the other."""
    done = 0
    for cell, new in zip(cells, after):
        directive, old = split_directive(cell.source)
        if not old or old.lstrip().startswith(("%", "!")):
            continue
        start = text.index(directive + old, done)
        text = text[:start] + directive + new + text[start + len(directive + old) :]
        done = start + len(directive + new)
    return text


def checked_files(project=HERE, fix=False):
    """The faults of all hand-written and generated Python files."""
    folders = [
        name
        for name in ("chargpt_lib", "notebooks/tools", "site", "tests")
        if (project.root / name).is_dir()
    ]
    if fix:
        sort_and_format(*folders, cwd=project.root)
    faults = []
    for line in ruff("format", "--check", *folders, cwd=project.root).stdout.splitlines():
        if line.startswith("Would reformat: "):
            faults.append(
                f"{line.removeprefix('Would reformat: ')}: not formatted; run `make format`"
            )
    faults += ruff(
        "check", "--quiet", "--output-format", "concise", *folders, cwd=project.root
    ).stdout.splitlines()
    return faults


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fix", action="store_true", help="format what is not formatted")
    options = parser.parse_args()
    faults = checked_pages(fix=options.fix) + checked_files(fix=options.fix)
    print("\n".join(faults) or "all formatted")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
