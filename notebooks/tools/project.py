"""Where things lie in the project, and the lessons' text as cells."""

import hashlib
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import jupytext

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the library of this checkout

# Page and import_order are for the other tools, which find the library through this module.
from chargpt_lib.course import Page, import_order, read_course  # noqa: F401

LIBRARY = "chargpt_lib"
DIRECTIVE = re.compile(r"#\| export$")


class BuildError(Exception):
    """What is wrong, where, and the way out; one line for each fault."""


@dataclass(frozen=True)
class Project:
    """Where things lie."""

    root: Path

    @property
    def source(self):
        return self.root / "notebooks" / "source"

    @property
    def library(self):
        return self.root / LIBRARY

    @property
    def setup(self):
        return self.source / "_setup.py"

    def notebook(self, name, solved=False):
        """The path of a page's notebook, or of its solution."""
        folder = self.root / "notebooks" / "solutions" if solved else self.root / "notebooks"
        return folder / f"{name}.ipynb"

    def saved_notebooks(self):
        """All notebooks that lie in the project."""
        folders = ("", "appendix", "solutions")
        return sorted(
            path
            for folder in folders
            for path in (self.root / "notebooks" / folder).glob("*.ipynb")
        )

    def pages(self):
        """The pages that course.toml describes. Raises: BuildError where it cannot be read."""
        try:
            return read_course(self.source / "course.toml")
        except (OSError, ValueError, KeyError) as error:
            raise BuildError(f"{self.name(self.source / 'course.toml')}: {error}") from None

    def published(self):
        """The address that `make publish-links` wrote into pyproject.toml, https://github.com/owner/name; or None."""
        pyproject = self.root / "pyproject.toml"
        if not pyproject.exists():
            return None
        described = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        return described.get("urls", {}).get("Repository")

    def name(self, path):
        """The path as it is called in messages: from the project's root on."""
        return path.relative_to(self.root).as_posix()


HERE = Project(Path(__file__).resolve().parents[2])


def source_paths(project):
    """The texts of all pages that lie in the project, without the setup cell."""
    paths = project.source.rglob("*.py")
    return sorted(path for path in paths if not path.name.startswith("_"))


def read_cells(text):
    """Cells with nothing of jupytext's, and ids that survive a rebuild: the exercise's name or a hash of the cell."""
    cells = []
    seen = {}
    for cell in jupytext.reads(text, fmt="py:percent").cells:
        cell.metadata = {
            key: cell.metadata[key] for key in ("tags", "exercise") if key in cell.metadata
        }
        content = f"{cell.cell_type} {cell.source}"
        name = cell.metadata.get("exercise", hashlib.sha256(content.encode()).hexdigest()[:8])
        seen[name] = seen.get(name, 0) + 1
        cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"
        cells.append(cell)
    return cells


def code_cells(text):
    """The code cells of a page's text."""
    return [cell for cell in read_cells(text) if cell.cell_type == "code"]


def is_exported(cell):
    """Whether the cell goes into the page's module: its first line is `#| export`."""
    if cell.cell_type != "code":
        return False
    return DIRECTIVE.match(cell.source.split("\n")[0].rstrip()) is not None
