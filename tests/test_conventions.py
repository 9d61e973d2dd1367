"""The project's conventions, on the course itself: everything agrees, in order, verified, and fit to publish."""

import ast
import functools
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree

import nbformat
import pytest

import build
import publish
import style
from chargpt_lib.course import import_order, read_course

ROOT = build.HERE.root
LESSONS = build.read_lessons(build.HERE)
SAVED = {build.HERE.name(path): path for path in build.HERE.saved_notebooks()}
each_notebook = pytest.mark.parametrize("name", SAVED)


@functools.cache
def cells(name, kind):
    return [
        cell for cell in nbformat.read(SAVED[name], as_version=4).cells if cell.cell_type == kind
    ]


def ignored(cell):
    return "nbval-ignore-output" in cell.metadata.get("tags", [])


def files():
    """What git knows, or would know after `git add`; the files of a copy without git are not judged."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_text_modules_and_notebooks_agree():
    problems = build.check()
    assert not problems, "\n".join(problems)


def test_everything_written_by_hand_or_made_is_formatted():
    faults = style.checked_files()
    assert not faults, "\n".join(faults)


PLUMBING = {"caching", "course", "devices", "drawings", "files", "plots"}
ON_TOP = {"playground"}  # stands on the lessons' modules; none of them may stand on it
MADE = [lesson for lesson in LESSONS if lesson.module]


def library_imports(path):
    """{module of the library: line} of the imports in a Python file, read from its syntax tree."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("chargpt_lib."):
            found[node.module.removeprefix("chargpt_lib.")] = node.lineno
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: a relative import"
    return found


@pytest.mark.parametrize("lesson", MADE, ids=lambda lesson: lesson.name)
def test_modules_import_only_earlier_ones(lesson):
    """Read from the modules themselves, apart from the build's own reading of the sources."""
    modules = [page.module for page in import_order(read_course()) if page.module]
    earlier = set(modules[: modules.index(lesson.module)])
    imports = library_imports(build.HERE.library / f"{lesson.module}.py")
    for path in (build.HERE.library / "formats").glob("*.py"):
        # What a lesson takes from a module of `formats`, it might as well import itself.
        if f"formats.{path.stem}" in imports:
            del imports[f"formats.{path.stem}"]
            imports.update(library_imports(path))
    for name, line in imports.items():
        assert name in earlier | PLUMBING, f"{lesson.module}.py, line {line} imports {name}"


def test_plumbing_stands_on_nothing_but_the_corpus():
    for name in PLUMBING:
        for other in library_imports(build.HERE.library / f"{name}.py"):
            assert other in PLUMBING | {"playhouse"}, f"{name}.py imports {other}"
    by_hand = {path.stem for path in build.HERE.library.glob("[!_]*.py")}
    assert by_hand == PLUMBING | ON_TOP | {lesson.module for lesson in MADE}


def test_importing_the_library_does_not_import_torch():
    code = "import chargpt_lib, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_importing_the_library_adds_little_to_torch():
    code = (
        "import time, torch; began = time.process_time(); import chargpt_lib, chargpt_lib.gpt, chargpt_lib.trainer; "
        "print(time.process_time() - began)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
        )
        for _ in range(3)
    ]
    assert min(float(run.stdout) for run in runs) <= 0.3


def test_importing_the_library_itself_costs_nothing():
    code = "import time; began = time.process_time(); import chargpt_lib; print(time.process_time() - began)"
    command = [sys.executable, "-c", code]
    runs = [
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        for _ in range(3)
    ]
    assert min(float(run.stdout) for run in runs) <= 0.05


# ---------------------------------------------------------------- what nbval really verifies


@each_notebook
def test_every_code_cell_ran(name):
    unrun = [cell.source[:60] for cell in cells(name, "code") if cell.execution_count is None]
    assert not unrun, f"nbval compares nothing there: {unrun}"


def test_most_saved_outputs_are_compared():
    """nbval compares neither pictures nor ignored cells; at least 60% of the cells with outputs must remain."""

    def compared(cell):
        return not ignored(cell) and any(
            "image/png" not in output.get("data", {}) for output in cell.outputs
        )

    shown = {
        name: [cell for cell in cells(name, "code") if cell.outputs and cell.id != "setup"]
        for name in SAVED
    }
    counts = {name: (sum(map(compared, some)), len(some)) for name, some in shown.items() if some}
    for name, (some, total) in counts.items():
        print(f"{name}: {some} of {total} outputs compared")
    some, total = (sum(column) for column in zip((0, 0), *counts.values()))
    print(f"in all: {some} of {total} ({some / max(total, 1):.0%})")
    assert some >= 0.6 * total


@each_notebook
def test_what_is_ignored_is_asserted(name):
    code = cells(name, "code")
    for number, cell in enumerate(code):
        if ignored(cell) and cell.id != "setup":
            after = code[number + 1 : number + 3]
            found = any(re.search(r"^\s*assert\b", other.source, re.M) for other in after)
            assert found, f"no `assert` within two cells after {cell.source[:80]!r}"


@each_notebook
def test_no_function_takes_a_variables_name(name):
    """Else a cell above it fails when it is run again."""
    functions, variables = set(), set()
    for cell in cells(name, "code"):
        for node in ast.parse(re.sub(r"^( *)[%!].*", r"\1pass", cell.source, flags=re.M)).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                functions.add(node.name)
            else:
                variables |= {
                    part.id
                    for part in ast.walk(node)
                    if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
                }
    assert not functions & variables


@each_notebook
def test_each_picture_says_in_words_what_it_shows(name):
    for cell in cells(name, "code"):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert output.metadata.get("image/png", {}).get("alt"), (
                    f"no alt text: {cell.source[:80]!r}"
                )


@each_notebook
def test_prose_is_clean(name):
    for cell in cells(name, "markdown"):
        assert "\x1b" not in cell.source, "terminal colours in prose"
        assert not re.search(r"^\s*%%", cell.source, re.M), (
            f"py:percent breaks on {cell.source[:80]!r}"
        )


# ---------------------------------------------------------------- what holds on any machine


PRINTED = {
    "better by ≈ 0.54 nats": True,
    "better by ≈ 12 nats": True,
    "better by ≈ -1.2e-07 nats": True,
    "worse by ≈ 0.53 nats": False,
    "better by 0.54 nats": False,
    "better by ≈ 0.53 nats, more": False,
}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """{what a cell prints: does nbval pass it?}, where the saved notebook says "better by ≈ 0.53 nats"."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("conftest.py", "sanitize.cfg"):
        shutil.copy(ROOT / "notebooks" / name, folder)
    code = [
        nbformat.v4.new_code_cell(f"print({printed!r})", execution_count=1) for printed in PRINTED
    ]
    for cell in code:
        cell.outputs = [nbformat.v4.new_output("stream", text="better by ≈ 0.53 nats\n")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(
        nbformat.v4.new_notebook(cells=code, metadata={"kernelspec": kernel}), folder / "page.ipynb"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--nbval",
        "--nbval-current-env",
        "-p",
        "no:cacheprovider",
        "--junitxml=report.xml",
        "page.ipynb",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    cases = list(ElementTree.parse(folder / "report.xml").iter("testcase"))
    assert len(cases) == len(PRINTED) and not list(
        ElementTree.parse(folder / "report.xml").iter("error")
    ), done.stdout[-2000:]
    return {printed: case.find("failure") is None for printed, case in zip(PRINTED, cases)}


@pytest.mark.parametrize("printed, passes", PRINTED.items())
def test_nbval_forgives_the_digits_behind_the_sign_and_nothing_else(printed, passes, verdicts):
    assert verdicts[printed] is passes


# ---------------------------------------------------------------- what is published


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "data/README.md",
        "data/results/README.md",
        "chargpt_lib/cli/README.md",
        "notebooks/TEACHING.md",
        "notebooks/RUNNING_ELSEWHERE.md",
    ],
)
def test_links_lead_somewhere(page):
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)|(?:src|href)=\"([^\"]+)\"", text)
    for link in (one or other for one, other in links):
        if not re.match(r"https?://|#", link):
            assert (path.parent / link.split("#")[0]).exists(), (
                f"{page} links to {link}, which is not there"
            )


def test_the_licence_is_there():
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_the_readme_and_the_address_agree():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert publish.readme_with_badges(readme, build.HERE.published()) == readme, (
        "run make publish-links again"
    )


def test_no_page_points_to_another_repository():
    """Unset, there are no badges at all: whoever registers the name could own what they open."""
    address = build.HERE.published()
    hosts = r"colab\.research\.google\.com/github/|mybinder\.org/v2/gh/|kernels/welcome\?src=https://github\.com/"
    for path in files():
        if path.parts[-2] == "tests":  # they publish tiny courses
            continue
        for found in re.findall(
            rf"(?:{hosts})([\w.-]+/[\w.-]+)", path.read_text(encoding="utf-8", errors="ignore")
        ):
            assert address and address.endswith(f"/{found}"), f"{path} points to {found}"


def test_binder_gets_what_conda_gets_on_a_cpu():
    conda, binder = (
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("environment.yml", "binder/environment.yml")
    )
    lists = [re.findall(r"^ +- (\S+)$", text, re.M) for text in (conda, binder)]
    for_binder = [
        package.replace("pytorch>", "pytorch-cpu>").replace("python>=3.11", "python=3.12")
        for package in lists[0]
    ]
    assert for_binder == lists[1]


def test_conda_and_pip_install_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pip = {
        *project["dependencies"],
        *project["optional-dependencies"]["lab"],
        f"python{project['requires-python']}",
    }
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    channels, conda = (
        re.findall(r"^  - (\S+)$", part, re.M) for part in text.split("dependencies:\n")
    )
    assert channels == ["conda-forge", "nodefaults"] and "pip:" not in text
    assert {re.sub("^pytorch", "torch", package) for package in conda} == pip
    assert len(conda) == len(pip)


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    for_the_site = (ROOT / "site" / "constraints.txt").read_text(encoding="utf-8").split()
    pinned = [pin.split("==")[0].lower() for pin in (*pins, *for_the_site)]
    assert len(pinned) == len(set(pinned)), "each package is pinned once"
    pins += for_the_site
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), (
        "a pin is name==version, without a build's tag"
    )
    wanted = {*project["dependencies"], *sum(project["optional-dependencies"].values(), [])}
    names = {re.match(r"[\w.-]+", package)[0] for package in wanted}
    assert names <= {pin.split("==")[0] for pin in pins}


def test_no_large_or_foreign_file_is_committed():
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        assert path.stat().st_size <= 5_000_000, f"{name}: over 5 MB"
        assert not re.search(r"tiny_?shakespeare|wizard_of_oz", path.name, re.I), (
            f"{name}: fetched, never committed"
        )
        assert not path.read_bytes().startswith(b"First Citizen:"), (
            f"{name}: Tiny Shakespeare is fetched, never committed"
        )


def test_no_file_knows_a_developers_machine():
    machine = re.compile(r"(?<![\w.~/-])/(?:work|root|home|Users|tmp/ipykernel\w*)/")
    for path in files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found = machine.search(text)
        assert not found, (
            f"{path.relative_to(ROOT)}: {text[found.start() - 20 : found.end() + 20]!r}"
        )
