"""Writes everywhere where the course is published: the address, badges, and what the setup cells install.

    make publish-links REPO=owner/name        that repository on GitHub
    make publish-links REPO=                  nowhere: badges and addresses are taken out

The address itself stands in one place, `[project.urls]` in pyproject.toml. Nothing is executed.
"""

import re
import sys

import nbformat

from build import (
    BRANCH,
    HERE,
    BuildError,
    badges,
    export_modules,
    notebook_faults,
    published,
    read_lessons,
    save,
    variants,
)

UNSET = "# [project.urls] is left out on purpose: whoever publishes the repository sets its address here, once."
SET = '[project.urls]\nRepository = "{}"'
NOWHERE = (
    "The course is not published at an address yet, so there are no links to open it in Colab, Kaggle or Binder; "
    "`make publish-links REPO=owner/name` writes them, once it is."
)
SOMEWHERE = (
    "Without an installation: the badges in the table open a lesson in Colab, Kaggle or Binder."
)
ROW = re.compile(r"\[(\w+)\]\((notebooks/\w+\.ipynb)\)(?: ?\[!\[Open in .*?\]\(.*?\)\]\(.*?\))*")


def readme_with_badges(text, address):
    """The README of a course that is published there, or nowhere: its sentence, and the badges in its table."""
    text = text.replace(*((NOWHERE, SOMEWHERE) if address else (SOMEWHERE, NOWHERE)))
    table = re.compile(r"^\|.*$", re.M)
    return table.sub(
        lambda row: ROW.sub(
            lambda link: f"[{link[1]}]({link[2]}) {badges(address, link[2])}".rstrip(), row[0]
        ),
        text,
    )


def publish(name, house=HERE):
    """Sets the address, or takes it out where the name is empty. BuildError where notebooks and sources are not in step."""
    if name and not re.fullmatch(r"[A-Za-z0-9-]+/(?!\.+$)[\w.-]+(?<!\.git)", name):
        raise BuildError(
            f"REPO is {name!r}; it has to be owner/name, as in the address https://github.com/owner/name"
        )
    lessons = read_lessons(house)
    modules = export_modules(lessons)
    pages = [pair for lesson in lessons for pair in variants(house, lesson, lessons, modules)]
    if faults := [
        f"{house.name(path)}: {fault}"
        for path, wanted in pages
        for fault in notebook_faults(path, wanted)
    ]:
        raise BuildError("\n".join([*faults, "run `make build` first"]))

    pyproject, readme = house.root / "pyproject.toml", house.root / "README.md"
    before, after = (
        SET.format(address) if address else UNSET
        for address in (published(house), name and f"https://github.com/{name}")
    )
    text = pyproject.read_text(encoding="utf-8")
    if before not in text:
        raise BuildError(
            f"pyproject.toml has a [project.urls] of its own: put this into its place first:\n{UNSET}"
        )
    pyproject.write_text(text.replace(before, after), encoding="utf-8")
    readme.write_text(
        readme_with_badges(readme.read_text(encoding="utf-8"), published(house)), encoding="utf-8"
    )
    for path, wanted in [
        pair for lesson in lessons for pair in variants(house, lesson, lessons, modules)
    ]:
        notebook = nbformat.read(path, as_version=4)
        for cell, new in zip(notebook.cells[:2], wanted.cells):
            cell.source = new.source
        save(notebook, path)
    return len(pages)


def main():
    try:
        count = publish(sys.argv[1] if len(sys.argv) > 1 else "")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    address = published(HERE)
    where = f"{address}, branch {BRANCH}" if address else "not published"
    print(f"{count} notebooks and the README now say: {where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
