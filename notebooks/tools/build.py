"""From the lessons' text: the library's modules and right answers, then the notebooks and solutions.

python notebooks/tools/build.py                 builds what changed, and what depends on it
python notebooks/tools/build.py 01 gpt          only these pages' notebooks (modules are always all written)
python notebooks/tools/build.py --no-execute    only modules and answers: a second
python notebooks/tools/build.py --force         every notebook, changed or not
python notebooks/tools/build.py --check         does everything agree? Runs nothing; exits 1 where it does not
"""

import argparse
import ast
import hashlib
import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError

from project import (
    DIRECTIVE,
    HERE,
    LIBRARY,
    BuildError,
    Page,
    Project,
    import_order,
    is_exported,
    read_cells,
)
from style import checked_pages, formatted_code

BRANCH = "main"
EXPLORING_LINES = 24  # of a cell that explores: more lines are more than one idea
OUTPUT_BYTES = 1_000_000
CELL_SECONDS = 1800  # a cell that takes longer hangs
BEGIN = "### BEGIN SOLUTION"
END = "### END SOLUTION"
# the first line of a cell that goes on with the class of an earlier cell
CONTINUED_CLASS = re.compile(r"class (?P<name>\w+)\((?P=name)\):.*\n")
LIKE_A_DIRECTIVE = re.compile(r"\s*#\s*\|\s*(export|key|default_exp)")
IMPORT = re.compile(
    rf"^\s*from\s+{LIBRARY}\.([\w.]+)\s+import\b|^\s*import\s+{LIBRARY}\.([\w.]+)", re.M
)
IMPORT_FROM_LIBRARY = re.compile(rf"^\s*from\s+{LIBRARY}\s+import\s+(\([^)]*|[\w, ]+)", re.M)
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# What an exercise cell may use without importing it, because the judge gives it to every answer.
GIVEN_IMPORTS = {
    "math": "import math",
    "torch": "import torch",
    "nn": "from torch import nn",
    "F": "from torch.nn import functional as F",
}


# ---------------------------------------------------------------- the lessons, as text


@dataclass
class Lesson:
    """A page with its text."""

    page: Page
    text: str
    cells: list  # all of them, each with its id

    @property
    def name(self):
        return self.page.name

    @property
    def module(self):
        return self.page.module

    @property
    def source(self):
        return f"notebooks/source/{self.name}.py"

    @property
    def exported(self):
        return [cell for cell in self.cells if is_exported(cell)]

    @property
    def exercises(self):
        """The exercise cells, in their order."""
        return [cell for cell in self.cells if "exercise" in cell.metadata]


def imported_modules(text):
    """The modules of the library that Python text imports: {"data", "exercises.judge"}."""
    found = {one or other for one, other in IMPORT.findall(text)}
    for names in IMPORT_FROM_LIBRARY.findall(text):
        found |= {
            name.split(" as ")[0].strip("( \n") for name in names.split(",") if name.strip("( \n")
        }
    return found


def code_of(cells):
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def answered(source, solved):
    """The source with its answers: without their markers, or with `raise NotAttempted` in their place."""
    lines = []
    inside = False
    for line in source.split("\n"):
        if line.strip() in (BEGIN, END):
            if inside == (line.strip() == BEGIN):
                raise BuildError(f"`{line.strip()}` without its partner")
            inside = not inside
            if inside and not solved:
                lines.append(line.replace(BEGIN, "raise NotAttempted"))
        elif solved or not inside:
            lines.append(line)
    if inside:
        raise BuildError(f"`{BEGIN}` is never closed by `{END}`")
    return "\n".join(lines)


def read_lessons(project):
    """Every page with its text, in reading order. Raises: BuildError that lists all faults."""
    lessons = []
    faults = []
    for page in project.pages():
        path = project.source / f"{page.name}.py"
        if not path.exists():
            faults.append(
                f"{project.name(path)}: course.toml has this page, and the text is not there"
            )
            continue
        text = path.read_text(encoding="utf-8")
        lessons.append(Lesson(page, text, read_cells(text)))
    known = {lesson.name for lesson in lessons}
    for path in sorted(project.source.rglob("[!_]*.py")):
        name = path.relative_to(project.source).with_suffix("").as_posix()
        if name not in known:
            faults.append(f"{project.name(path)}: no page of course.toml; add it there")
    for lesson in lessons:
        faults += lesson_faults(lesson)
    faults = faults or list(order_faults(project, lessons))
    if faults:
        raise BuildError("\n".join(faults))
    return lessons


def setup_cell(project):
    """What finds or installs the library; it knows the address of the published course, where there is one."""
    (cell,) = read_cells(project.setup.read_text(encoding="utf-8"))
    address = project.published()
    archive = f'"{address}/archive/{BRANCH}.zip"' if address else "None"
    cell.source = cell.source.replace("PUBLISHED_ADDRESS", archive)
    cell.id = "setup"
    # Folded where the host can fold it: Colab by the first, JupyterLab by the second.
    cell.metadata.update(cellView="form", jupyter={"source_hidden": True})
    return cell


def launch_links(address, path):
    """{host: (address of its badge, address that opens the notebook there)}; empty where nothing is published."""
    if not address:
        return {}
    name = address.removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{name}/blob/{BRANCH}/{path}"
    kaggle = f"https://kaggle.com/kernels/welcome?src={address}/blob/{BRANCH}/{path}"
    binder = f"https://mybinder.org/v2/gh/{name}/{BRANCH}?labpath={quote(path, safe='')}"
    return {
        "Colab": ("https://colab.research.google.com/assets/colab-badge.svg", colab),
        "Kaggle": ("https://kaggle.com/static/images/open-in-kaggle.svg", kaggle),
        "Binder": ("https://mybinder.org/badge_logo.svg", binder),
    }


def badges(address, path):
    """Links that open a notebook of the published course, in Markdown; "" where it is not published."""
    return " ".join(
        f"[![Open in {host}]({image})]({link})"
        for host, (image, link) in launch_links(address, path).items()
    )


# ---------------------------------------------------------------- the rules


def place(lesson, cell):
    lines = [line for line in cell.source.split("\n") if not DIRECTIVE.match(line)] or [cell.source]
    return f"{lesson.source}, cell {lesson.cells.index(cell) + 1} (`{lines[0].strip()[:50]}`)"


def lesson_faults(lesson):
    """What is wrong with a page's text, one sentence each."""
    if lesson.exported and not lesson.module:
        yield f"{lesson.source}: exports cells, and course.toml names no module for it"
    if lesson.module and not lesson.exported:
        yield f"{lesson.source}: course.toml says that it makes the module {lesson.module}, and no cell is exported"
    first = lesson.cells[0] if lesson.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield f"{lesson.source}: the first cell must be Markdown and begin with the title, `# ...`"
    elif first.source.split("\n")[0] != f"# {lesson.page.title}":
        yield f"{lesson.source}: its title is not the one in course.toml, {lesson.page.title!r}"
    elif lesson.module and not module_docstring(lesson):
        yield f"{lesson.source}: the first cell needs a line `> ...`: the docstring of the module {lesson.module}"
    names = [cell.metadata["exercise"] for cell in lesson.exercises]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{lesson.source}: two exercises are called {name!r}; rename one"
    for cell in lesson.cells:
        if cell.cell_type == "code":
            yield from (f"{place(lesson, cell)}: {fault}" for fault in cell_faults(cell))


def cell_faults(cell):
    """What is wrong with a code cell."""
    exported = is_exported(cell)
    lines = cell.source.split("\n")
    body = lines[1:] if exported else lines
    if any(LIKE_A_DIRECTIVE.match(line) for line in body):
        yield "`#| export` must be the cell's first line, spelled so; there is no other directive"
    explores = not exported and "exercise" not in cell.metadata and not only_imports(cell.source)
    if explores and len(body) > EXPLORING_LINES:
        yield f"{len(body)} lines; at most {EXPLORING_LINES} in an exploring cell: split it"
    if body and body[-1].rstrip().endswith(";"):
        yield "nbval does not honour a last `;` and prints an address: end with `plt.show()`"
    if exported:
        yield from export_faults("\n".join(body))
    yield from exercise_faults(cell)


def only_imports(code):
    """Whether code does nothing but import."""
    try:
        nodes = ast.parse(code).body
    except SyntaxError:  # a magic
        return False
    return all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in nodes)


def export_faults(code):
    """What would break the module."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        magic = re.search(r"^\s*[%!].*", code, re.M)
        yield (
            f"a magic (`{magic[0].strip()}`) breaks the module" if magic else f"no Python: {error}"
        )
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(
            name.name.startswith(f"{LIBRARY}.") for name in node.names
        ):
            yield f"`{ast.unparse(node)}`: write `from {LIBRARY}.x import name`"
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"`{ast.unparse(node)}` fails in a notebook; write `from {LIBRARY}.x import name`"


def exercise_faults(cell):
    """What is wrong with a cell as an exercise."""
    tagged = "exercise" in cell.metadata.get("tags", [])
    if tagged and is_exported(cell):
        yield "an exported cell is never an exercise: put the exercise before it, or ask for a variant"
    if tagged != bool(re.fullmatch(r"\w+", cell.metadata.get("exercise", ""))):
        yield 'an exercise has both tags=["exercise"] and exercise="its_name"'
    if tagged != (BEGIN in cell.source or END in cell.source):
        yield f"exercises, and only they, hold answers between `{BEGIN}` and `{END}`"
    try:
        answered(cell.source, solved=True)
    except BuildError as error:
        yield str(error)


def written_by_hand(project, modules):
    """The modules of the library's own folder that no page makes: plumbing, on which every lesson may stand."""
    return {path.stem for path in project.library.glob("[!_]*.py")} - modules


# The package of the library on whose modules a lesson may stand, if they import only what it may import itself. Its
# other packages, such as the exercises and the command, stand on the lessons.
FORMATS = "formats."


def missing_imports(project, code, known):
    """The modules of the library that some code, or the modules of FORMATS that it imports, take from later lessons."""
    missing = set()
    for name in imported_modules(code) - known:
        path = project.library / f"{name.replace('.', '/')}.py"
        if name.startswith(FORMATS) and path.is_file():
            missing |= missing_imports(project, path.read_text(encoding="utf-8"), known)
        else:
            missing.add(name)
    return missing


def order_faults(project, lessons):
    """A module imports only plumbing and the modules of earlier pages."""
    home = {lesson.module: lesson for lesson in lessons if lesson.module}
    plumbing = written_by_hand(project, home.keys())
    earlier = set()
    for page in import_order([lesson.page for lesson in lessons if lesson.module]):
        lesson = home[page.module]
        for cell in lesson.exported:
            for name in sorted(missing_imports(project, cell.source, earlier | plumbing)):
                maker = home.get(name)
                whose = (
                    f"{maker.source} makes, not an earlier lesson" if maker else "no lesson makes"
                )
                yield f"{place(lesson, cell)}: imports {LIBRARY}.{name}, which {whose}"
        earlier.add(page.module)


# ---------------------------------------------------------------- modules and answers


def module_docstring(lesson):
    """The lines of the page's first cell that begin with `> `."""
    lines = lesson.cells[0].source.split("\n")
    return "\n".join(line[2:] for line in lines if line.startswith("> "))


def without_imports(code):
    """Code -> (its top-level import statements, the rest)."""
    lines = code.split("\n")
    imports = []
    for node in ast.parse(code).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for number in range(node.lineno - 1, node.end_lineno):
                imports.append(lines[number])
                lines[number] = None
    return imports, "\n".join(line for line in lines if line is not None).strip("\n")


def public_names(code):
    """The names that code defines at its top level, without those that begin with an underscore, in their order."""
    names = []
    for node in ast.parse(code).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [
                part.id
                for target in targets
                for part in ast.walk(target)
                if isinstance(part, ast.Name)
            ]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


def with_whole_classes(bodies):
    """Exported cells -> the same, where a cell `class Name(Name):` goes to the end of the cell that begins the class.

    A page can so show a long class in several cells, each with its text before it, and the module has one class.

    Raises: BuildError where no earlier cell ends with that class.
    """
    whole = []
    for body in bodies:
        first = CONTINUED_CLASS.match(body)
        if first is None:
            whole.append(body)
            continue
        for index, earlier in enumerate(whole):
            last = ast.parse(earlier).body[-1]
            if isinstance(last, ast.ClassDef) and last.name == first["name"]:
                whole[index] = f"{earlier}\n\n{body[first.end() :]}"
                break
        else:
            raise BuildError(
                f"a cell goes on with the class {first['name']}, and no exported cell above ends with that class"
            )
    return whole


def module_text(lesson):
    """The module that a page's exported cells make, not yet formatted."""
    imports = []
    bodies = []
    for cell in lesson.exported:
        found, body = without_imports(cell.source.split("\n", 1)[1] if "\n" in cell.source else "")
        imports += found
        if body:
            bodies.append(body)
    code = "\n\n\n".join(with_whole_classes(bodies))
    names = "".join(f"    {name!r},\n" for name in public_names(code))
    return (
        f"# Made from {lesson.source} by notebooks/tools/build.py. Edit that text, not this file.\n"
        f'"""{module_docstring(lesson)}"""\n\n'
        + "\n".join(imports)
        + f"\n\n__all__ = [\n{names}]\n\n\n{code}\n"
    )


def answers_text(lesson, solved):
    """The module of a lesson's right answers, from its exercise cells; unsolved, each raises NotAttempted."""
    cells = [answered(cell.source, solved) for cell in lesson.exercises]
    code = "\n\n\n".join(cells)
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    imports = [line for name, line in GIVEN_IMPORTS.items() if name in used]
    if not solved:
        imports.append(f"from {LIBRARY}.exercises.compare import NotAttempted")
    return (
        f"# Made from the exercises of {lesson.source} by notebooks/tools/build.py. Edit that text, not this file.\n"
        f'"""The right answers to the exercises of {lesson.page.title}."""\n\n'
        + "\n".join(imports)
        + f"\n\n\n{code}\n"
    )


def made_modules(project, lessons, solved=True):
    """What the library must hold: {"bigram.py": its text, "exercises/answers/bigram.py": ...}."""
    texts = {}
    for lesson in lessons:
        if lesson.module:
            texts[f"{lesson.module}.py"] = module_text(lesson)
        if lesson.exercises:
            texts[f"exercises/answers/{lesson.module}.py"] = answers_text(lesson, solved)
    return formatted_code(texts, project)


def is_made(path):
    return path.read_text(encoding="utf-8").startswith("# Made from ")


def changed_modules(project, modules):
    """{name: the text it must have, or None where no lesson makes it}."""
    files = [*project.library.glob("*.py"), *project.library.glob("exercises/answers/*.py")]
    saved = {}
    for path in files:
        if is_made(path) or project.name(path).removeprefix(f"{LIBRARY}/") in modules:
            saved[path.relative_to(project.library).as_posix()] = path.read_text(encoding="utf-8")
    names = sorted({**saved, **modules})
    return {name: modules.get(name) for name in names if saved.get(name) != modules.get(name)}


def write_modules(project, modules):
    changed = changed_modules(project, modules)
    for name, text in changed.items():
        path = project.library / name
        if text is None:
            path.unlink()
        elif path.exists() and not is_made(path):
            raise BuildError(
                f"{path}: written by hand, and a page makes a module of this name: rename one of them"
            )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    print(f"{len(modules)} modules and answers: {', '.join(changed) or 'none'} changed", flush=True)


# ---------------------------------------------------------------- notebooks and solutions


def digest(project, lesson, modules, page_text):
    """Of all that a notebook's outputs depend on: its text, the setup, the modules it imports, the pins.

    The exercises, the grader and the command are left out: what they print is compared by nbval.
    """
    reached = {}
    ahead = imported_modules(code_of(lesson.cells))
    while ahead:
        name = ahead.pop()
        path = project.library / f"{name.replace('.', '/')}.py"
        if "." in name and not name.startswith(FORMATS):
            continue
        if name in reached or not (f"{name}.py" in modules or path.is_file()):
            continue
        text = (
            modules[f"{name}.py"] if f"{name}.py" in modules else path.read_text(encoding="utf-8")
        )
        reached[name] = text
        ahead |= imported_modules(text)
    texts = [page_text, *(reached[name] for name in sorted(reached))]
    files = [project.setup, project.root / "constraints.txt"]
    if any("interactive_page" in text for text in texts):
        files += sorted((project.library / "assets").glob("*.*"))
    texts += [path.read_text(encoding="utf-8") for path in files]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def code_text(lesson):
    """What is executed of a page: its code cells with their tags and exercises, as JSON."""
    cells = [
        [cell.source, cell.metadata.get("tags", []), cell.metadata.get("exercise")]
        for cell in lesson.cells
        if cell.cell_type == "code"
    ]
    return json.dumps(cells)


def relinked(source, path, project):
    """Prose whose links lead from where the notebook lies; in the text all start in notebooks/.

    A solution of a lesson links to the solutions of others.
    """
    top = project.root / "notebooks"

    def link(match):
        target = top / match[1]
        if path.parent.name == "solutions" and re.match(r"\d\d_", match[1]):
            target = top / "solutions" / match[1]
        return f"]({os.path.relpath(target, path.parent).replace(os.sep, '/')})"

    return re.sub(r"\]\(([\w./]+\.(?:ipynb|md))\)", link, source)


def make_notebook(project, lesson, solved, digests):
    """The notebook, not yet executed: title, badges, setup, and the lesson's cells."""
    cells = []
    path = project.notebook(lesson.name, solved)
    for cell in lesson.cells:
        source = answered(cell.source, solved)
        if cell.cell_type == "markdown":
            source = relinked(source, path, project)
        cells.append(nbformat.from_dict({**cell, "source": source}))
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "chargpt": {"source": lesson.source, **digests},
    }
    links = badges(project.published(), project.name(path))
    if links:
        title, _, rest = cells[0].source.partition("\n")
        cells[0].source = f"{title}\n\n{links}\n{rest}"
    return nbformat.v4.new_notebook(
        cells=[cells[0], setup_cell(project), *cells[1:]], metadata=metadata
    )


def notebook_faults(path, wanted):
    """What keeps the saved notebook from being the wanted one, executed."""
    try:
        saved = nbformat.read(path, as_version=4)
    except Exception as error:
        yield f"not there or not readable ({type(error).__name__})"
        return
    differing = [
        i
        for i, pair in enumerate(zip(saved.cells, wanted.cells), 1)
        if content(pair[0]) != content(pair[1])
    ]
    if differing or len(saved.cells) != len(wanted.cells):
        yield f"{f'cell {differing[0]}' if differing else 'the number of cells'} is not what the lesson says"
    if saved.metadata.get("chargpt") != wanted.metadata.chargpt:
        yield "older than its lesson, a module it imports, _setup.py or constraints.txt"
    if "widgets" in saved.metadata:
        yield "holds widget state, which GitHub refuses to show"
    for number, cell in enumerate(saved.cells, 1):
        if cell.cell_type == "code":
            yield from (f"cell {number} {fault}" for fault in output_faults(cell))


def content(cell):
    return cell.cell_type, cell.source, cell.metadata.get("tags", []), cell.metadata.get("exercise")


def output_faults(cell):
    if cell.execution_count is None:
        yield "was never run, so nbval would compare nothing"
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"ends in an error ({output.ename})"
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
            yield "shows a widget, which no saved page can (use tqdm, not tqdm.notebook)"
        if len(json.dumps(output)) > OUTPUT_BYTES:
            yield "has an output over 1 MB (draw or print less)"


def run_notebook(notebook, label, folder, root):
    """Executes in place, prints a line when done, and says which cell failed where one does."""
    start = time.monotonic()
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    env.pop("MPLBACKEND", None)  # pictures must come back to the notebook
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's kernel, not the user's
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_SECONDS,
        record_timing=False,
        shutdown_kernel="immediate",
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    number = 0
    try:
        with client.setup_kernel(env=env, cwd=str(folder)):
            for number, cell in enumerate(notebook.cells):
                if sys.stdout.isatty():
                    print(
                        f"\r{label:<28} cell {number + 1}/{len(notebook.cells)}", end="", flush=True
                    )
                client.execute_cell(cell, number, execution_count=client.code_cells_executed + 1)
    except (CellControlSignal, DeadKernelError) as error:
        source = "\n    ".join(notebook.cells[number].source.split("\n")[:6])
        message = ANSI.sub("", getattr(error, "traceback", None) or str(error)).strip()
        raise BuildError(
            f"\n{label}: cell {number + 1} fails:\n    {source}\n\n{message}"
        ) from None
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = tidy(cell.outputs)
    print(
        f"\r{label:<28} {time.monotonic() - start:6.1f} s   {time.strftime('%H:%M:%S')}", flush=True
    )


def tidy(outputs):
    """Neighbouring chunks of one stream joined; of a progress bar, only its last state."""
    joined = []
    for output in outputs:
        if joined and output.get("name") and output.get("name") == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            output.text = re.sub(r".*\r(?=[^\n])", "", output.text)
    return joined


def save(notebook, path):
    """The executed notebook, at once or not at all."""
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    part.replace(path)


# ---------------------------------------------------------------- build and check


def variants(project, lesson, modules):
    """[(path, notebook)] of the learner's notebook and, where there are exercises, the solution."""
    digests = {
        "digest": digest(project, lesson, modules, lesson.text),
        # Of the same without the page's prose.
        "executed": digest(project, lesson, modules, code_text(lesson)),
    }
    kinds = (False, True) if lesson.exercises else (False,)
    return [
        (project.notebook(lesson.name, solved), make_notebook(project, lesson, solved, digests))
        for solved in kinds
    ]


def take_saved_outputs(path, notebook):
    """Takes over the saved outputs if nothing but prose has changed since they were made -> whether it did."""
    try:
        saved = nbformat.read(path, as_version=4)
    except Exception:  # not there, or no notebook
        return False
    executed = saved.metadata.get("chargpt", {}).get("executed")
    if executed != notebook.metadata.chargpt.executed or "widgets" in saved.metadata:
        return False
    before = [cell for cell in saved.cells if cell.cell_type == "code"]
    now = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [content(cell) for cell in before] != [content(cell) for cell in now]:
        return False
    if any(list(output_faults(cell)) for cell in before):
        return False
    for old, new in zip(before, now):
        new.outputs = old.outputs
        new.execution_count = old.execution_count
    return True


def build(project=HERE, words=(), force=False, run=True):
    """Writes the modules, then executes the notebooks that are out of date. Raises: BuildError."""
    lessons = read_lessons(project)
    selected = chosen(lessons, words)
    modules = made_modules(project, lessons)
    write_modules(project, modules)
    if not run:
        return
    for lesson in selected:
        for path, notebook in variants(project, lesson, modules):
            if force or list(notebook_faults(path, notebook)):
                label = project.name(path.with_suffix("")).removeprefix("notebooks/")
                path.parent.mkdir(parents=True, exist_ok=True)
                if not force and take_saved_outputs(path, notebook):
                    print(f"{label:<28} only its prose has changed", flush=True)
                else:
                    run_notebook(notebook, label, path.parent, project.root)
                save(notebook, path)
    others = [lesson for lesson in lessons if lesson not in selected]
    stale = [
        project.name(path)
        for lesson in others
        for path, notebook in variants(project, lesson, modules)
        if list(notebook_faults(path, notebook))
    ]
    if stale:
        print(f"still out of date: {', '.join(stale)}")


def chosen(lessons, words):
    """The pages called by number, module or name, in reading order; all of them where no word is given.

    Raises: BuildError for a word that no page has.
    """
    if not words:
        return lessons
    named = {word: lesson for lesson in lessons for word in lesson.page.words}
    for word in words:
        if word not in named:
            names = ", ".join(lesson.name for lesson in lessons)
            raise BuildError(f"no page is called {word!r}; there are {names}")
    return [lesson for lesson in lessons if lesson in [named[word] for word in words]]


def check(project=HERE):
    """Every problem, with its way out; empty where sources, modules and notebooks agree."""
    try:
        lessons = read_lessons(project)
    except BuildError as error:
        return str(error).split("\n")
    modules = made_modules(project, lessons)
    stale = [
        f"{LIBRARY}/{name}: not what the lessons say" for name in changed_modules(project, modules)
    ]
    known = [pair for lesson in lessons for pair in variants(project, lesson, modules)]
    for path, wanted in known:
        stale += [f"{project.name(path)}: {fault}" for fault in notebook_faults(path, wanted)]
    problems = [f"{problem}; edit only notebooks/source, and run `make build`" for problem in stale]
    strays = sorted(set(project.saved_notebooks()) - {path for path, _ in known})
    problems += [f"{project.name(path)}: no page makes it; move or delete it" for path in strays]
    return problems + checked_pages(project)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="PAGE", help="01, bigram or 01_bigram; all without"
    )
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    parser.add_argument("--force", action="store_true", help="execute also what has not changed")
    parser.add_argument("--no-execute", action="store_true", help="only write modules and answers")
    parser.add_argument("--root", type=Path, default=HERE.root, help="another course's folder")
    options = parser.parse_args()
    project = Project(options.root.resolve())
    if options.check:
        problems = check(project)
        print("\n".join(problems) or "everything agrees")
        return 1 if problems else 0
    try:
        build(project, options.names, options.force, run=not options.no_execute)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the notebooks that were finished are saved", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
