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
    made_modules,
    notebook_faults,
    read_lessons,
    save,
    variants,
)

UNSET = "# [project.urls] is left out on purpose: whoever publishes the repository sets its address here, once."
SET = '[project.urls]\nRepository = "{}"'
UNPUBLISHED = (
    "The course is not published at an address yet, so there are no links to open it in Colab, Kaggle or Binder; "
    "`make publish-links REPO=owner/name` writes them, once it is."
)
PUBLISHED = (
    "Without an installation: the badges in the table open a lesson in Colab, Kaggle or Binder."
)
REPOSITORY = re.compile(r"[A-Za-z0-9-]+/(?!\.+$)[\w.-]+(?<!\.git)")
TABLE_ROW = re.compile(r"^\|.*$", re.M)
# A link to a notebook in the README's table, with the badges that may follow it.
NOTEBOOK_LINK = re.compile(
    r"\[([^\[\]]+)\]\((notebooks/[\w/]+\.ipynb)\)(?: ?\[!\[Open in .*?\]\(.*?\)\]\(.*?\))*"
)


def readme_with_badges(text, address):
    """The README of a course that is published there, or nowhere: its sentence, and the badges in its table."""
    old, new = (UNPUBLISHED, PUBLISHED) if address else (PUBLISHED, UNPUBLISHED)
    text = text.replace(old, new)

    def with_badges(link):
        return f"[{link[1]}]({link[2]}) {badges(address, link[2])}".rstrip()

    return TABLE_ROW.sub(lambda row: NOTEBOOK_LINK.sub(with_badges, row[0]), text)


def all_notebooks(project):
    """[(path, notebook as it must be)] of the whole course."""
    lessons = read_lessons(project)
    modules = made_modules(project, lessons)
    return [pair for lesson in lessons for pair in variants(project, lesson, modules)]


def publish(name, project=HERE):
    """Sets the address, or takes it out where the name is empty -> the number of notebooks.

    Raises: BuildError where the name is none, or where notebooks and sources do not agree; nothing is then changed.
    """
    if name and not REPOSITORY.fullmatch(name):
        raise BuildError(
            f"REPO is {name!r}; it has to be owner/name, as in the address https://github.com/owner/name"
        )
    faults = [
        f"{project.name(path)}: {fault}"
        for path, wanted in all_notebooks(project)
        for fault in notebook_faults(path, wanted)
    ]
    if faults:
        raise BuildError("\n".join([*faults, "run `make build` first"]))

    old_address = project.published()
    new_address = f"https://github.com/{name}" if name else None
    before = SET.format(old_address) if old_address else UNSET
    after = SET.format(new_address) if new_address else UNSET
    pyproject = project.root / "pyproject.toml"
    text = pyproject.read_text(encoding="utf-8")
    if before not in text:
        raise BuildError(
            f"pyproject.toml has a [project.urls] of its own: put this into its place first:\n{UNSET}"
        )
    pyproject.write_text(text.replace(before, after), encoding="utf-8")

    readme = project.root / "README.md"
    described = readme_with_badges(readme.read_text(encoding="utf-8"), new_address)
    readme.write_text(described, encoding="utf-8")

    # Only the title with its badges and the setup cell change; outputs stay as they are.
    notebooks = all_notebooks(project)
    for path, wanted in notebooks:
        notebook = nbformat.read(path, as_version=4)
        for cell, new in zip(notebook.cells[:2], wanted.cells):
            cell.source = new.source
        save(notebook, path)
    return len(notebooks)


def main():
    try:
        count = publish(sys.argv[1] if len(sys.argv) > 1 else "")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    address = HERE.published()
    where = f"{address}, branch {BRANCH}" if address else "not published"
    print(f"{count} notebooks and the README now say: {where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
