"""From the lessons' text: the library's modules and answer keys, then the notebooks and solutions.

    python notebooks/build.py                 builds what changed, and what depends on it
    python notebooks/build.py 01 gpt          only these lessons' notebooks (modules are always all written)
    python notebooks/build.py --no-execute    only modules and keys: a second
    python notebooks/build.py --force         every notebook, changed or not
    python notebooks/build.py --check         is everything in step? Runs nothing; exits 1 where it is not
"""

import argparse
import ast
import hashlib
import json
import os
import re
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError

LIBRARY, BRANCH = "chargpt_lib", "main"
EXPORTED_LINES, EXPLORING_LINES, LINE = 45, 15, 120
OUTPUT_BYTES = 1_000_000
CELL_SECONDS = 1800  # a cell that takes longer hangs
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
DIRECTIVE = re.compile(r"#\| (?:(export|key)|(default_exp) (\w+))$")
LIKE_A_DIRECTIVE = re.compile(r"\s*#\s*\|\s*(export|key|default_exp)")
IMPORT = re.compile(rf"^\s*(?:from|import)\s+{LIBRARY}(?:\.(\w+)|\s+import\s+(\([^)]*|[\w, ]+))", re.M)
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class BuildError(Exception):
    """What is wrong, where, and the way out; one line for each fault."""


@dataclass(frozen=True)
class House:
    """Where things are."""

    root: Path

    @property
    def source(self):
        return self.root / "notebooks" / "source"

    @property
    def library(self):
        return self.root / LIBRARY

    def notebooks(self, solved):
        return self.root / "notebooks" / ("solutions" if solved else "")

    def name(self, path):
        return path.relative_to(self.root).as_posix()


HERE = House(Path(__file__).resolve().parents[1])


# ---------------------------------------------------------------- the lessons, as text


@dataclass
class Lesson:
    name: str  # 01_bigram
    text: str
    cells: list  # all of them, each with its id

    @property
    def source(self):
        return f"notebooks/source/{self.name}.py"

    @property
    def module(self):
        """The name of its module; None for a page that makes none."""
        return next((directive(cell)[1] for cell in self.cells if directive(cell)[0] == "default_exp"), None)

    @property
    def floor(self):
        """Import order: A_ and B_ on the ground, the ladder of numbers, the other letters on the roof."""
        return (0 if self.name[0] in "AB" else 1 if self.name[0].isdigit() else 2, self.name)

    def exported(self, word="export"):
        return [cell for cell in self.cells if directive(cell)[0] == word]


def directive(cell):
    """("export", None), ("key", None), ("default_exp", "bigram"), or (None, None)."""
    found = cell.cell_type == "code" and DIRECTIVE.match(cell.source.split("\n")[0].rstrip())
    return (found[1] or found[2], found[3]) if found else (None, None)


def imports(*cells):
    """The modules of the library that the code cells import."""
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    found = [one or several for one, several in IMPORT.findall(code)]
    return {name.split(" as ")[0].strip("( \n") for names in found for name in names.split(",") if name.strip("( \n")}


def answered(source, solved):
    """The source with its answers: kept without their markers, or replaced by `raise NotAttempted`."""
    lines, inside = [], False
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


def read_cells(text):
    """Cells with nothing of jupytext's, and ids that survive a rebuild."""
    cells, seen = [], {}
    for cell in jupytext.reads(text, fmt="py:percent").cells:
        cell.metadata = {key: cell.metadata[key] for key in ("tags", "exercise") if key in cell.metadata}
        name = hashlib.sha256(f"{cell.cell_type} {cell.source}".encode()).hexdigest()[:8]
        name = cell.metadata.get("exercise", name)
        seen[name] = seen.get(name, 0) + 1
        cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"
        cells.append(cell)
    return cells


def read_lessons(house):
    """Every lesson, in import order; raises one BuildError that lists all faults."""
    lessons = []
    for path in sorted(house.source.glob("[!_]*.py")):
        text = path.read_text(encoding="utf-8")
        lessons.append(Lesson(path.stem, text, read_cells(text)))
    lessons.sort(key=lambda lesson: lesson.floor)
    faults = [fault for lesson in lessons for fault in lesson_faults(lesson)]
    faults = faults or list(order_faults(lessons))
    if faults:
        raise BuildError("\n".join(faults))
    return lessons


def setup_cell(house):
    """What finds or installs the library; it knows the address of the published course, where there is one."""
    (cell,) = read_cells((house.source / "_setup.py").read_text(encoding="utf-8"))
    address = published(house)
    cell.source = cell.source.replace("PUBLISHED + ", f'["{address}/archive/{BRANCH}.zip"] + ' if address else "")
    cell.id = "setup"
    return cell


def published(house):
    """The address that `make publish-links` wrote into pyproject.toml, https://github.com/owner/name; or None."""
    pyproject = house.root / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"] if pyproject.exists() else {}
    return project.get("urls", {}).get("Repository")


def badges(address, path):
    """Links that open a notebook of the published course, in Markdown; "" where it is not published."""
    name = (address or "").removeprefix("https://github.com/")
    hosts = {"Colab": ("https://colab.research.google.com/assets/colab-badge.svg",
                       f"https://colab.research.google.com/github/{name}/blob/{BRANCH}/{path}"),
             "Kaggle": ("https://kaggle.com/static/images/open-in-kaggle.svg",
                        f"https://kaggle.com/kernels/welcome?src={address}/blob/{BRANCH}/{path}"),
             "Binder": ("https://mybinder.org/badge_logo.svg",
                        f"https://mybinder.org/v2/gh/{name}/{BRANCH}?labpath={quote(path, safe='')}")}
    return " ".join(f"[![Open in {host}]({image})]({link})" for host, (image, link) in hosts.items()) if address else ""


# ---------------------------------------------------------------- the rules of the house


def place(lesson, cell):
    lines = [line for line in cell.source.split("\n") if not DIRECTIVE.match(line)] or [cell.source]
    return f"{lesson.source}, cell {lesson.cells.index(cell) + 1} (`{lines[0].strip()[:50]}`)"


def lesson_faults(lesson):
    if not re.match(r"((\d\d|[A-Z])_[a-z]\w*|start_here)$", lesson.name):
        yield f"{lesson.source}: call it NN_name.py, or A_name.py for an appendix"
    homes = lesson.exported("default_exp")
    if len(homes) > 1 or not homes and lesson.exported() + lesson.exported("key"):
        yield f"{lesson.source}: has {len(homes)} `#| default_exp NAME` cells; exactly one names its module"
    title = next((cell for cell in lesson.cells if cell not in homes), None)
    if not title or title.cell_type != "markdown" or not title.source.startswith("# "):
        yield f"{lesson.source}: the first cell must be Markdown and begin with the title, `# ...`"
    names = [cell.metadata["exercise"] for cell in lesson.cells if "exercise" in cell.metadata]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{lesson.source}: two exercises are called {name!r}; rename one"
    for cell in lesson.cells:
        if cell.cell_type == "code":
            yield from (f"{place(lesson, cell)}: {fault}" for fault in cell_faults(cell))


def cell_faults(cell):
    word, _ = directive(cell)
    lines = cell.source.split("\n")
    body = lines[1:] if word else lines
    if any(LIKE_A_DIRECTIVE.match(line) for line in body):
        yield "`#| export`, `#| key` or `#| default_exp NAME` must be the cell's first line, spelled so"
    if word == "default_exp" and body:
        yield "`#| default_exp` stands alone in its cell; move the rest to another"
    limit = {None: EXPLORING_LINES, "export": EXPORTED_LINES}.get(word, len(body))
    if len(body) > limit:
        yield f"{len(body)} lines; at most {limit} in {'an exported' if word else 'an exploring'} cell: split it"
    yield from (f"line {number} has {len(line)} characters; at most {LINE}: wrap it"
                for number, line in enumerate(lines, 1) if len(line) > LINE)
    if body and body[-1].rstrip().endswith(";"):
        yield "nbval does not honour a last `;` and prints an address: end with `plt.show()`"
    if word in ("export", "key"):
        yield from export_faults("\n".join(body))
    yield from exercise_faults(cell, word)


def export_faults(code):
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        magic = re.search(r"^\s*[%!].*", code, re.M)
        yield f"a magic (`{magic[0].strip()}`) breaks the module" if magic else f"no Python: {error}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(name.name.startswith(f"{LIBRARY}.") for name in node.names):
            yield f"`{ast.unparse(node)}` stays absolute in the module; write `from {LIBRARY}.x import name`"
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"`{ast.unparse(node)}` fails in a notebook; write `from {LIBRARY}.x import name`"


def exercise_faults(cell, word):
    exercise = "exercise" in cell.metadata.get("tags", [])
    if exercise and word:
        yield "an exported cell is never an exercise: put the exercise before it, or ask for a variant"
    if exercise != bool(re.fullmatch(r"\w+", cell.metadata.get("exercise", ""))):
        yield 'an exercise has both tags=["exercise"] and exercise="its_name"'
    if word != "key" and exercise != (BEGIN in cell.source or END in cell.source):
        yield f"exercises and keys, and only they, hold answers between `{BEGIN}` and `{END}`"
    try:
        answered(cell.source, solved=True)
    except BuildError as error:
        yield str(error)


def order_faults(lessons):
    """A module is made once, and imports only modules of earlier lessons; keys also their own lesson's."""
    home = {}
    for lesson in lessons:
        if lesson.module and lesson.module in home:
            yield f"{lesson.source}: makes the module `{lesson.module}`, and so does {home[lesson.module].source}"
        home.setdefault(lesson.module, lesson)
    for lesson in lessons:
        earlier = {name for name, other in home.items() if other.floor < lesson.floor}
        for cell in lesson.exported() + lesson.exported("key"):
            own = {lesson.module} if directive(cell)[0] == "key" else set()
            for name in sorted(imports(cell) - earlier - own):
                whose = f"{home[name].source} makes, not an earlier lesson" if name in home else "no lesson makes"
                yield f"{place(lesson, cell)}: imports {LIBRARY}.{name}, which {whose}"


# ---------------------------------------------------------------- modules and keys


def key_source(cell, solved):
    """A cell of the keys: the answer to an exercise, or how it is judged; unsolved, neither tells the answer."""
    if "exercise" in cell.metadata:
        return "#| export\n" + answered(cell.source, solved)
    lines = answered(cell.source, solved).replace("#| key", "#| export", 1).split("\n")
    return "\n".join(line for line in lines if line.strip() != "raise NotAttempted")


def export_modules(lessons, solved=True):
    """What the library must hold: {"bigram.py": its text, "keys/bigram.py": ...}; unsolved, keys without answers."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / LIBRARY
        for lesson in filter(lambda lesson: lesson.module, lessons):
            nbdev_export(lesson, lesson.cells, library)
            keys = [nbformat.v4.new_code_cell(f"#| default_exp keys.{lesson.module}")]
            keys += [nbformat.v4.new_code_cell(key_source(cell, solved), id=cell.id) for cell in lesson.cells
                     if directive(cell)[0] == "key" or "exercise" in cell.metadata]
            nbdev_export(lesson, keys, library)
        paths = sorted(library.rglob("*.py"))
        return {path.relative_to(library).as_posix(): relative_imports(path, library) for path in paths}


def nbdev_export(lesson, cells, library):
    from nbdev.export import nb_export  # here, because learners have no nbdev
    from nbdev.maker import ModuleMaker

    class NamesItsSource(ModuleMaker):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.dest2nb, self.hdr, self.nb_path = lesson.source, f"# %% {lesson.source}", None

    library.mkdir(exist_ok=True)
    notebook = library.parent / "lesson.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
    nb_export(notebook, lib_path=library, mod_maker=NamesItsSource)


def relative_imports(path, library):
    """The module's text; nbdev leaves imports absolute that span lines or stand in functions."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    dots = "." * len(path.relative_to(library).parts)
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == LIBRARY:
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = re.sub(rf"from\s+{LIBRARY}\.?", f"from {dots}", line, count=1)
    return "".join(lines)


def changed_modules(house, modules):
    """{name: the text it must have, or None where no lesson makes it}."""
    files = [path for path in house.library.glob("**/*.py") if path.parent.name in (LIBRARY, "keys")]
    saved = {path.relative_to(house.library).as_posix(): path.read_text(encoding="utf-8") for path in files}
    names = sorted(name for name in {**saved, **modules} if not name.endswith("__init__.py"))
    return {name: modules.get(name) for name in names if saved.get(name) != modules.get(name)}


def write_modules(house, modules):
    changed = changed_modules(house, modules)
    for name, text in changed.items():
        path = house.library / name
        if text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        elif "AUTOGENERATED" in path.read_text(encoding="utf-8"):
            path.unlink()
        else:
            raise BuildError(f"{path}: written by hand; its place is in a lesson, or in {LIBRARY}/assets/")
    print(f"{len(modules)} modules and keys: {', '.join(changed) or 'none'} changed", flush=True)


# ---------------------------------------------------------------- notebooks and solutions


def digest(house, lesson, lessons, modules):
    """Of all that a notebook's outputs hang on: its text, the setup, the modules it imports, the pins."""
    home = {other.module: other for other in lessons}
    reached, ahead = set(), imports(*lesson.cells)
    while ahead := (ahead & home.keys()) - reached:
        reached |= ahead
        ahead = imports(*(cell for name in ahead for cell in home[name].exported()))
    texts = [lesson.text, *(modules.get(f"{name}.py", "") for name in sorted(reached))]
    texts += [modules.get(f"keys/{lesson.module}.py", "")]
    files = [house.source / "_setup.py", house.root / "constraints.txt"]
    if any("live_page" in text for text in texts):
        files += sorted((house.library / "assets").glob("*.*"))
    texts += [path.read_text(encoding="utf-8") for path in files]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def make_notebook(house, lesson, solved, digest):
    """The notebook, not yet executed: title, badges, setup, and the lesson without what learners do not see."""
    cells = [cell for cell in lesson.cells if directive(cell)[0] not in ("key", "default_exp")]
    cells = [nbformat.from_dict({**cell, "source": answered(cell.source, solved)}) for cell in cells]
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "chargpt": {"source": lesson.source, "digest": digest},
    }
    if links := badges(published(house), house.name(house.notebooks(solved) / f"{lesson.name}.ipynb")):
        title, _, rest = cells[0].source.partition("\n")
        cells[0].source = f"{title}\n\n{links}\n{rest}"
    return nbformat.v4.new_notebook(cells=[cells[0], setup_cell(house), *cells[1:]], metadata=metadata)


def notebook_faults(path, wanted):
    """What keeps the saved notebook from being the wanted one, executed."""
    try:
        saved = nbformat.read(path, as_version=4)
    except Exception as error:
        yield f"not there or not readable ({type(error).__name__})"
        return
    differing = [i for i, pair in enumerate(zip(saved.cells, wanted.cells), 1) if content(pair[0]) != content(pair[1])]
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
                    print(f"\r{label:<28} cell {number + 1}/{len(notebook.cells)}", end="", flush=True)
                client.execute_cell(cell, number, execution_count=client.code_cells_executed + 1)
    except (CellControlSignal, DeadKernelError) as error:
        source = "\n    ".join(notebook.cells[number].source.split("\n")[:6])
        message = ANSI.sub("", getattr(error, "traceback", None) or str(error)).strip()
        raise BuildError(f"\n{label}: cell {number + 1} fails:\n    {source}\n\n{message}") from None
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = tidy(cell.outputs)
    print(f"\r{label:<28} {time.monotonic() - start:6.1f} s   {time.strftime('%H:%M:%S')}", flush=True)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    part.replace(path)


# ---------------------------------------------------------------- build and check


def variants(house, lesson, lessons, modules):
    """[(path, notebook)] of the learner's notebook and the solution."""
    current = digest(house, lesson, lessons, modules)
    return [
        (house.notebooks(solved) / f"{lesson.name}.ipynb", make_notebook(house, lesson, solved, current))
        for solved in (False, True)
    ]


def build(house=HERE, names=(), force=False, run=True):
    lessons = read_lessons(house)
    modules = export_modules(lessons)
    write_modules(house, modules)
    for lesson in chosen(lessons, names) if run else []:
        pair = variants(house, lesson, lessons, modules)
        same = pair[0][1].cells == pair[1][1].cells  # no exercises: one execution serves both
        for together in [pair] if same else [[one] for one in pair]:
            if force or any(list(notebook_faults(*one)) for one in together):
                path, notebook = together[0]
                label = house.name(path.with_suffix("")).removeprefix("notebooks/")
                run_notebook(notebook, label, path.parent, house.root)
                for path, _ in together:
                    save(notebook, path)


def chosen(lessons, names):
    """The lessons called by number, module or name; all of them where none is."""
    called = {name: lesson for lesson in lessons for name in (lesson.name, lesson.module, lesson.name.split("_")[0])}
    for name in set(names) - called.keys():
        raise BuildError(f"no lesson is called {name!r}; there are {', '.join(lesson.name for lesson in lessons)}")
    return [lesson for lesson in lessons if not names or lesson in [called[name] for name in names]]


def check(house=HERE):
    """Every problem, with its way out; empty where sources, modules and notebooks are in step."""
    try:
        lessons = read_lessons(house)
    except BuildError as error:
        return str(error).split("\n")
    modules = export_modules(lessons)
    problems = [f"{LIBRARY}/{name}: not what the lessons say" for name in changed_modules(house, modules)]
    known = [pair for lesson in lessons for pair in variants(house, lesson, lessons, modules)]
    for path, wanted in known:
        problems += [f"{house.name(path)}: {fault}" for fault in notebook_faults(path, wanted)]
    problems = [f"{problem}; edit only notebooks/source, and run `make build`" for problem in problems]
    saved = {path for solved in (False, True) for path in house.notebooks(solved).glob("*.ipynb")}
    strays = sorted(saved - {path for path, _ in known})
    return problems + [f"{house.name(path)}: no lesson makes it; move or delete it" for path in strays]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="LESSON", help="01, bigram or 01_bigram; all without")
    parser.add_argument("--check", action="store_true", help="only tell what is out of step")
    parser.add_argument("--force", action="store_true", help="execute also what has not changed")
    parser.add_argument("--no-execute", action="store_true", help="only write modules and keys")
    parser.add_argument("--root", type=Path, default=HERE.root, help="another course's folder")
    options = parser.parse_args()
    house = House(options.root.resolve())
    if options.check:
        problems = check(house)
        print("\n".join(problems) or "everything in step")
        return 1 if problems else 0
    try:
        build(house, options.names, options.force, run=not options.no_execute)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the notebooks that were finished are saved", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
