"""The build, on a tiny course of three pages: what it makes, what it refuses, what `check` finds."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import course
import nbformat
import pytest

import build
import publish
import style

PLAY = """# %% [markdown]
# # Play
#
# > A very small corpus.

# %%
#| export
def write():
    return "to be"

# %%
print(write())
"""

COUNT = """# %% [markdown]
# # 01 · Count
#
# > Counting.

# %%
#| export
from chargpt_lib.playhouse import write


def count():
    from chargpt_lib.playhouse import write as again

    return len(write()) + len(again())

# %%
class NotAttempted(Exception):
    pass

# %% tags=["exercise"] exercise="double"
def double(x):
    if x:
        ### BEGIN SOLUTION
        return 2 * x
        ### END SOLUTION

# %% tags=["nbval-ignore-output"]
import sys

for step in range(3):
    print(f"\\r{step}", end="", file=sys.stderr)

# %%
print(count())

# %%
print(count())
"""

ALONE = """# %% [markdown]
# # 02 · Alone
#
# > The answer.

# %%
#| export
answer = 42

# %%
print(answer)
"""

COURSE = """
[[page]]
name = "01_count"
title = "01 · Count"
builds = "little"
minutes = 1
audience = "learner"
module = "count"

[[page]]
name = "02_alone"
title = "02 · Alone"
builds = "little"
minutes = 1
audience = "learner"
module = "alone"

[[page]]
name = "appendix/play"
title = "Play"
builds = "little"
minutes = 1
audience = "learner"
module = "playhouse"
layer = "base"
"""
PYPROJECT = f"""[project]
name = "tiny"

{publish.UNSET}

[tool.ruff]
line-length = 100
"""
REPORT = "from chargpt_lib.devices import print_environment\n\nprint_environment()\n"
README = f"""# A tiny course

{publish.UNPUBLISHED}

| lesson | minutes |
|---|---|
| [01_count](notebooks/01_count.ipynb) | 0.1 |
| [play](notebooks/appendix/play.ipynb), [02_alone](notebooks/02_alone.ipynb) | 0.1 each |

[01_count](notebooks/01_count.ipynb) is the first.
"""
LESSONS = {"appendix/play": PLAY, "01_count": COUNT, "02_alone": ALONE}


def source(project, name):
    return project.source / f"{name}.py"


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def read(project, name, solved=False):
    return nbformat.read(project.notebook(name, solved), as_version=4)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The tiny course, built once for all tests, in a folder with a space in its name."""
    project = build.Project(tmp_path_factory.mktemp("tiny") / "a course")
    (project.source / "appendix").mkdir(parents=True)
    project.library.mkdir()
    (project.source / "course.toml").write_text(COURSE, encoding="utf-8")
    for name, text in LESSONS.items():
        source(project, name).write_text(text, encoding="utf-8")
    setup = build.HERE.setup.read_text(encoding="utf-8")
    assert REPORT in setup  # the tiny course's library has nothing to report with
    project.setup.write_text(setup.replace(REPORT, ""), encoding="utf-8")
    (project.root / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (project.root / "README.md").write_text(README, encoding="utf-8")
    shutil.copy(build.HERE.library / "__init__.py", project.library)
    (project.root / "constraints.txt").write_text("torch==2\n")
    build.build(project)
    return project


@pytest.fixture
def project(built, tmp_path):
    shutil.copytree(built.root, tmp_path / "course")
    return build.Project(tmp_path / "course")


@pytest.fixture
def runs(monkeypatch):
    """Labels of the notebooks that the build would execute; they count as executed."""
    labels = []

    def run(notebook, label, folder, root):
        labels.append(label)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.execution_count = 1

    monkeypatch.setattr(build, "run_notebook", run)
    return labels


# ---------------------------------------------------------------- what is made


def test_a_fresh_build_is_in_step(built):
    assert build.check(built) == []


def test_a_module_is_its_exported_cells(built):
    module = (built.library / "count.py").read_text()
    assert (
        module
        == """# Made from notebooks/source/01_count.py by notebooks/tools/build.py. Edit that text, not this file.
\"\"\"Counting.\"\"\"

from chargpt_lib.playhouse import write

__all__ = [
    "count",
]


def count():
    from chargpt_lib.playhouse import write as again

    return len(write()) + len(again())
"""
    )
    code = "import chargpt_lib.count as c, sys; assert c.count() == 10; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=built.root, check=True)


def test_right_answers_go_to_their_own_file(built):
    answers = built.library / "exercises" / "answers"
    text = (answers / "count.py").read_text()
    assert "    if x:\n        return 2 * x\n" in text and "NotAttempted" not in text
    assert [path.name for path in answers.iterdir()] == ["count.py"]
    modules = build.made_modules(built, build.read_lessons(built), solved=False)
    assert "        raise NotAttempted\n" in modules["exercises/answers/count.py"]
    assert "2 * x" not in modules["exercises/answers/count.py"]


def test_a_page_without_exercises_has_no_solution(built):
    assert built.notebook("01_count", solved=True).exists()
    assert not built.notebook("02_alone", solved=True).exists()


def test_links_lead_from_where_a_notebook_lies(built):
    prose = "[a](02_alone.ipynb) [b](appendix/play.ipynb) [c](start_here.ipynb) [d](TEACHING.md) [e](https://x.org/y.ipynb)"

    def links(name, solved=False):
        found = build.relinked(prose, built.notebook(name, solved), built)
        return re.findall(r"\]\((.*?)\)", found)

    last = "https://x.org/y.ipynb"
    assert links("01_count") == [
        "02_alone.ipynb",
        "appendix/play.ipynb",
        "start_here.ipynb",
        "TEACHING.md",
        last,
    ]
    assert links("01_count", True) == [
        "02_alone.ipynb",
        "../appendix/play.ipynb",
        "../start_here.ipynb",
        "../TEACHING.md",
        last,
    ]
    assert links("appendix/play") == [
        "../02_alone.ipynb",
        "play.ipynb",
        "../start_here.ipynb",
        "../TEACHING.md",
        last,
    ]


def test_exercises_are_blank_for_learners_and_answered_in_the_solution(built):
    blank, answer = (read(built, "01_count", solved).cells[4] for solved in (False, True))
    assert blank.source == "def double(x):\n    if x:\n        raise NotAttempted"
    assert answer.source == "def double(x):\n    if x:\n        return 2 * x"
    assert blank.id == answer.id == "double"
    assert blank.metadata == {"tags": ["exercise"], "exercise": "double"}


def test_the_setup_cell_follows_the_title_and_is_folded(built):
    cells = read(built, "02_alone").cells
    assert [cell.id for cell in cells[:2]] == [cells[0].id, "setup"]
    assert cells[1].source.startswith("# @title ")
    assert cells[1].metadata.cellView == "form" and cells[1].metadata.jupyter.source_hidden
    assert cells[2].source.startswith("#| export\n")


def test_notebooks_hold_nothing_that_changes_by_itself(built):
    notebook = read(built, "01_count")
    assert set(notebook.metadata) == {"kernelspec", "language_info", "chargpt"}
    assert all(
        set(cell.metadata) <= {"tags", "exercise"} for cell in notebook.cells if cell.id != "setup"
    )
    bar = next(cell for cell in notebook.cells if "range(3)" in cell.source)
    assert [output.text for output in bar.outputs] == ["2"]
    first, second = (cell for cell in notebook.cells if cell.source == "print(count())")
    assert second.id == f"{first.id}-2" and first.outputs[0].text == "10\n"


def test_chunks_of_a_stream_are_joined_where_they_are_neighbours():
    def stream(name, text):
        return nbformat.v4.new_output("stream", name=name, text=text)

    picture = nbformat.v4.new_output(
        "display_data", {"image/png": "x"}, metadata={"image/png": {"alt": "a hill"}}
    )
    outputs = [
        stream("stdout", "a"),
        stream("stdout", "b\n"),
        picture,
        stream("stdout", "c\n"),
        stream("stderr", "d"),
    ]
    tidied = build.tidy(outputs)
    assert [output.get("text") for output in tidied] == ["ab\n", None, "c\n", "d"]
    assert tidied[1].metadata["image/png"]["alt"] == "a hill"


def test_ids_survive_an_insertion():
    before = {cell.source: cell.id for cell in build.read_cells(COUNT)}
    after = {
        cell.source: cell.id
        for cell in build.read_cells(COUNT.replace("# %%\nclass", "# %%\n1 + 1\n\n# %%\nclass"))
    }
    assert after.pop("1 + 1") and after == before


# ---------------------------------------------------------------- what is refused

LONG = "\n".join(f"a{i} = {i}" for i in range(46))
FAULTS = {
    "export below another line": ("#| export\n", "import re\n#| export\n", "first line"),
    "export misspelt": ("#| export\n", "#|export\n", "first line"),
    "import as": ("#| export\n", "#| export\nimport chargpt_lib.playhouse as p\n", "import chargpt_lib.playhouse as p"),
    "relative import": ("#| export\n", "#| export\nfrom .playhouse import write\n", "fails in a notebook"),
    "magic": ("#| export\n", "#| export\n%time 1\n", "magic (`%time 1`)"),
    "shell": ("#| export\n", "#| export\n!ls\n", "magic (`!ls`)"),
    "another directive": ("#| export\n", "#| key\n", "there is no other directive"),
    "exports without a module": ("course.toml", 'module = "count"\n', "", "names no module for it"),
    "a module without exports": ("#| export\n", "", "no cell is exported"),
    "no docstring": ("# > Counting.\n", "", "needs a line `> ...`"),
    "another title": ("# # 01 · Count", "# # 01 · Counts", "not the one in course.toml"),
    "exported exercise": ("def double(x):", "#| export\ndef double(x):", "never an exercise"),
    "exercise without a name": (' exercise="double"', "", "has both"),
    "exercise without an answer": ("        ### BEGIN SOLUTION\n        return 2 * x\n        ### END SOLUTION", "        pass", "hold answers"),
    "answer without an end": ("        ### END SOLUTION\n", "", "never closed"),
    "answer without a beginning": ("        ### BEGIN SOLUTION\n", "", "without its partner"),
    "long exploring cell": ("class NotAttempted", f"{LONG}\nclass NotAttempted", "in an exploring cell: split it"),
    "silent last line": ("    pass\n", "    pass\nprint();\n", "end with `plt.show()`"),
    "module of a later lesson": ("#| export\n", "#| export\nfrom chargpt_lib.alone import answer\n", "02_alone.py makes, not an earlier"),
    "module of no lesson": ("#| export\n", "#| export\nfrom chargpt_lib.nowhere import x\n", "which no lesson makes"),
    "no title": ("# # 01 · Count", "# 01 · Count", "begin with the title"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place(project, fault):
    *file, old, new, message = FAULTS[fault]
    edit(project.source / file[0] if file else source(project, "01_count"), old, new)
    with pytest.raises(build.BuildError) as error:
        build.build(project, run=False)
    assert "notebooks/source/01_count.py" in str(error.value) and message in str(error.value)
    assert build.check(project) == str(error.value).split("\n")


def test_two_exercises_of_one_name_are_refused(project):
    path = source(project, "01_count")
    exercise = re.search(r"# %% tags=\[\"exercise\"\].*?END SOLUTION\n", path.read_text(), re.S)[0]
    edit(path, exercise, exercise + "\n" + exercise)
    with pytest.raises(build.BuildError, match="two exercises are called 'double'"):
        build.build(project, run=False)


COURSE_FAULTS = {
    "one module, two pages": ('module = "alone"', 'module = "count"', "two pages have the module 'count'"),
    "one number, two pages": ('name = "02_alone"', 'name = "01_alone"', "two pages have the number '01'"),
    "one name, two pages": ('name = "02_alone"', 'name = "01_count"', "two pages have the name '01_count'"),
    "an unknown layer": ('layer = "base"', 'layer = "cellar"', "one of base, lesson, appendix"),
    "an unknown word": ('layer = "base"', 'level = "base"', "'level'"),
    "no title": ('title = "Play"\n', "", "'title'"),
    "no TOML": ('title = "Play"', "title = Play", "course.toml: "),
    "a text that is not there": ('name = "02_alone"', 'name = "02_other"', "02_other.py: course.toml has this page"),
}  # fmt: skip


@pytest.mark.parametrize("fault", COURSE_FAULTS)
def test_a_fault_of_the_description_is_named(project, fault):
    old, new, message = COURSE_FAULTS[fault]
    edit(project.source / "course.toml", old, new)
    with pytest.raises(build.BuildError) as error:
        build.build(project, run=False)
    assert "course.toml" in str(error.value) and message in str(error.value)


def test_a_text_without_a_page_is_refused(project):
    shutil.copy(source(project, "02_alone"), source(project, "03_more"))
    with pytest.raises(build.BuildError, match="03_more.py: no page of course.toml"):
        build.build(project, run=False)


def test_plumbing_may_be_imported_by_every_page(project):
    (project.library / "plots.py").write_text("def draw():\n    pass\n")
    edit(
        source(project, "01_count"),
        "#| export\n",
        "#| export\nfrom chargpt_lib.plots import draw\n",
    )
    build.build(project, run=False)
    assert "from chargpt_lib.plots import draw" in (project.library / "count.py").read_text()


def test_imports_are_read_in_every_form():
    code = """%matplotlib inline
from chargpt_lib.data import load_corpus
from chargpt_lib import bigram, training as t
from chargpt_lib import (
    gpt,
    blocks,
)
import chargpt_lib.sampling as s
from chargpt_lib.exercises.judge import find
x = 1, 2
    from chargpt_lib.multi_head import Head
"""
    assert build.imported_modules(code) == {
        "data",
        "bigram",
        "training",
        "gpt",
        "blocks",
        "sampling",
        "multi_head",
        "exercises.judge",
    }


@pytest.mark.parametrize("word", ["poems", "3", "0", "A", "_count", ""])
def test_an_unknown_page_is_refused(project, runs, word):
    with pytest.raises(build.BuildError, match=f"no page is called '{word}'.*01_count"):
        build.build(project, ["01", word])
    assert runs == []


@pytest.mark.parametrize("word", ["1", "01", "count", "01_count"])
def test_a_page_is_called_by_number_module_or_name(project, word):
    lessons = build.read_lessons(project)
    assert [lesson.name for lesson in build.chosen(lessons, [word])] == ["01_count"]


@pytest.mark.parametrize("number", range(14))
def test_a_number_is_one_page_of_the_course(number):
    lessons = build.read_lessons(build.HERE)
    for word in (str(number), f"{number:02}"):
        [lesson] = build.chosen(lessons, [word])
        assert lesson.name.startswith(f"{number:02}_")


def test_a_failing_cell_is_shown_and_the_old_notebook_kept(project):
    before = project.notebook("02_alone").read_text()
    edit(source(project, "02_alone"), "print(answer)", "print(answer / 0)")
    with pytest.raises(build.BuildError) as error:
        build.build(project, ["alone"])
    message = str(error.value)
    assert (
        "02_alone: cell 4 fails" in message
        and "print(answer / 0)" in message
        and "ZeroDivisionError" in message
    )
    assert "\x1b" not in message
    assert project.notebook("02_alone").read_text() == before


# ---------------------------------------------------------------- what is built again


def test_nothing_changed_nothing_runs(project, runs):
    build.build(project)
    assert runs == []


SOURCE_CHANGES = {
    "an imported module": (
        ("appendix/play", "to be", "not to be"),
        ["01_count", "solutions/01_count", "appendix/play"],
    ),
    "only the prose of an imported lesson": (
        ("appendix/play", "# %%\nprint", "# %% [markdown]\n# Hm.\n\n# %%\nprint"),
        [],
    ),
    "a lesson that no other imports": (("02_alone", "42", "43"), ["02_alone"]),
    "the setup cell": (
        ("_setup", "# @title Setup", "# @title Set up"),
        ["01_count", "solutions/01_count", "02_alone", "appendix/play"],
    ),
}


@pytest.mark.parametrize("what", SOURCE_CHANGES)
def test_what_changed_and_what_depends_on_it_runs(project, runs, what):
    (name, old, new), expected = SOURCE_CHANGES[what]
    edit(source(project, name), old, new)
    build.build(project)
    assert runs == expected
    assert build.check(project) == []


def test_where_only_prose_has_changed_nothing_runs(project, runs):
    path = project.notebook("02_alone")
    [before] = [cell.outputs for cell in nbformat.read(path, 4).cells if "print" in cell.source]
    edit(source(project, "02_alone"), "# > The answer.", "# > The answer.\n#\n# To all questions.")
    build.build(project)
    assert runs == []
    assert build.check(project) == []
    saved = nbformat.read(path, 4)
    assert "To all questions." in saved.cells[0].source
    [after] = [cell.outputs for cell in saved.cells if "print" in cell.source]
    assert after == before and after[0].text == "42\n"
    # With the code, it runs.
    edit(source(project, "02_alone"), "To all questions.", "To most questions.")
    edit(source(project, "02_alone"), "print(answer)", "print(-answer)")
    build.build(project)
    assert runs == ["02_alone"]


def test_new_pins_force_and_names(project, runs, capsys):
    build.build(project, ["02"], force=True)
    assert runs == ["02_alone"]
    (project.root / "constraints.txt").write_text("torch==3\n")
    build.build(project, ["count", "appendix/play"])
    assert runs[1:] == ["01_count", "solutions/01_count", "appendix/play"]
    assert "still out of date: notebooks/02_alone.ipynb\n" in capsys.readouterr().out
    build.build(project)
    assert runs[4:] == ["02_alone"] and "out of date" not in capsys.readouterr().out


def test_stale_modules_go_and_hand_written_ones_are_not_touched(project):
    by_hand = project.library / "exercises" / "keys" / "count.py"
    by_hand.parent.mkdir()
    by_hand.write_text("by_hand = True\n")
    (project.library / "helper.py").write_text("by_hand = True\n")
    source(project, "02_alone").unlink()
    text = (project.source / "course.toml").read_text()
    entries = text.split("[[page]]")
    (project.source / "course.toml").write_text("[[page]]".join(entries[:2] + entries[3:]))
    build.build(project, run=False)
    assert not (project.library / "alone.py").exists()
    for path in (by_hand, project.library / "helper.py", project.library / "__init__.py"):
        assert path.exists()


def test_a_hand_written_module_is_not_overwritten(project):
    (project.library / "alone.py").write_text("by_hand = True\n")
    with pytest.raises(build.BuildError, match="written by hand"):
        build.build(project, run=False)
    assert (project.library / "alone.py").read_text() == "by_hand = True\n"


# ---------------------------------------------------------------- what check finds


def change_notebook(project, change):
    path = project.notebook("02_alone")
    notebook = nbformat.read(path, as_version=4)
    change(notebook, notebook.cells[3])
    nbformat.write(notebook, path)


NOTEBOOK_CHANGES = {
    "edited": (
        lambda notebook, cell: cell.update(source="print(answer + 1)"),
        "cell 4 is not what the lesson says",
    ),
    "tagged": (
        lambda notebook, cell: cell.metadata.update(tags=["nbval-skip"]),
        "cell 4 is not what",
    ),
    "shortened": (lambda notebook, cell: notebook.cells.remove(cell), "the number of cells"),
    "stripped": (
        lambda notebook, cell: cell.update(execution_count=None, outputs=[]),
        "cell 4 was never run",
    ),
    "failed": (
        lambda notebook, cell: cell.outputs.append(
            nbformat.v4.new_output("error", ename="KeyError", evalue="", traceback=[])
        ),
        "cell 4 ends in an error (KeyError)",
    ),
    "too large": (lambda notebook, cell: cell.outputs[0].update(text="x" * 1_000_001), "over 1 MB"),
    "widgets": (lambda notebook, cell: notebook.metadata.update(widgets={}), "widget state"),
    "stale": (
        lambda notebook, cell: notebook.metadata.chargpt.update(digest="0", executed="0"),
        "older than its lesson",
    ),
}


@pytest.mark.parametrize("kind", NOTEBOOK_CHANGES)
def test_check_finds_a_changed_notebook_and_build_mends_it(project, runs, kind):
    change, message = NOTEBOOK_CHANGES[kind]
    change_notebook(project, change)
    (problem,) = build.check(project)
    assert (
        problem.startswith("notebooks/02_alone.ipynb: ")
        and message in problem
        and "make build" in problem
    )
    build.build(project)
    assert runs == ["02_alone"] and build.check(project) == []


def test_check_finds_changed_missing_and_stray_files(project):
    edit(project.library / "count.py", "len(write())", "0")
    (project.library / "exercises" / "answers" / "count.py").unlink()
    (project.library / "poems.py").write_text("# Made from nothing\n")
    shutil.copy(project.notebook("02_alone"), project.notebook("03_copy", solved=True))
    project.notebook("appendix/play").write_text("{")
    problems = build.check(project)
    assert [problem.split(":")[0] for problem in problems] == [
        "chargpt_lib/count.py",
        "chargpt_lib/exercises/answers/count.py",
        "chargpt_lib/poems.py",
        "notebooks/appendix/play.ipynb",
        "notebooks/solutions/03_copy.ipynb",
    ]


def test_check_finds_what_is_not_formatted(project):
    edit(source(project, "02_alone"), "answer = 42", "answer=42")
    assert any(
        "02_alone.py: not formatted; run `make format`" in fault for fault in build.check(project)
    )
    edit(source(project, "02_alone"), "print(answer)", "print(anser)")
    assert any(
        "02_alone.py, code cell 2" in fault and "F821" in fault for fault in build.check(project)
    )


def test_formatting_changes_nothing_but_code(project):
    edit(source(project, "01_count"), "return 2 * x", "return 2*x")
    edit(
        source(project, "01_count"),
        "# %%\nprint(count())",
        "# %%\n%time  x=1\n\n# %%\nprint( count() )",
    )
    assert style.checked_pages(project, fix=True) == []
    text = source(project, "01_count").read_text()
    assert text == COUNT.replace(
        "# %%\nprint(count())", "# %%\n%time  x=1\n\n# %%\nprint(count())", 1
    )


def test_the_command_exits_1_where_something_is_out_of_step(project):
    def run(*options):
        command = [sys.executable, build.__file__, "--root", str(project.root), *options]
        return subprocess.run(command, capture_output=True, text=True)

    assert run("--check").returncode == 0
    edit(source(project, "02_alone"), "42", "43")
    found = run("--check")
    assert (
        found.returncode == 1
        and "chargpt_lib/alone.py" in found.stdout
        and "notebooks/02_alone.ipynb" in found.stdout
    )
    assert run("--no-execute").returncode == 0
    assert "chargpt_lib/alone.py" not in run("--check").stdout


# ---------------------------------------------------------------- setup and course


def run_setup(folder, setup):
    """Twice, in an interpreter that has nothing installed, and no magics."""
    code = setup.replace('%pip install -q --no-deps "{source}"', "raise SystemExit(3)")
    assert "raise SystemExit" in code
    code = f"{code}\n{code}\nimport chargpt_lib; print(chargpt_lib.__file__)"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "name, solved", [("01_count", False), ("01_count", True), ("appendix/play", False)]
)
def test_setup_finds_the_library_from_every_folder(built, name, solved):
    run = run_setup(built.notebook(name, solved).parent, build.setup_cell(built).source)
    assert Path(run.stdout.strip()) == (built.library / "__init__.py").resolve(), run.stderr


# ---------------------------------------------------------------- where it is published


def everything(project):
    return {
        path.relative_to(project.root): path.read_bytes()
        for path in project.root.rglob("*")
        if path.is_file()
    }


def test_published_and_taken_back(project):
    before = everything(project)
    assert publish.publish("some-one/a.course", project) == 4 and build.check(project) == []
    assert project.published() == "https://github.com/some-one/a.course"
    for solved, folder in ((False, "notebooks"), (True, "notebooks/solutions")):
        cells, old = (
            read(project, "01_count", solved).cells,
            nbformat.reads(before[Path(folder) / "01_count.ipynb"].decode(), as_version=4).cells,
        )
        title, badges = cells[0].source.split("\n")[0:3:2]
        path = f"{folder}/01_count.ipynb"
        assert re.findall(r"\]\((http[^)]*)\)(?: |$)", badges) == [
            f"https://colab.research.google.com/github/some-one/a.course/blob/main/{path}",
            f"https://kaggle.com/kernels/welcome?src=https://github.com/some-one/a.course/blob/main/{path}",
            f"https://mybinder.org/v2/gh/some-one/a.course/main?labpath={path.replace('/', '%2F')}",
        ]
        assert cells[0].source.replace(f"\n\n{badges}", "", 1) == old[0].source and old[
            0
        ].source.startswith(title)
        assert (
            'PUBLISHED = "https://github.com/some-one/a.course/archive/main.zip"' in cells[1].source
        )
        assert cells[2:] == old[2:] and cells[1].outputs == old[1].outputs
    readme = (project.root / "README.md").read_text(encoding="utf-8").split("\n")
    assert [line.count("Open in Colab") for line in readme if "ipynb" in line] == [1, 2, 0]
    assert publish.PUBLISHED in readme and publish.UNPUBLISHED not in readme

    publish.publish("other/course", project)
    assert build.check(project) == [] and not any(
        b"some-one" in content for content in everything(project).values()
    )
    publish.publish("", project)
    assert everything(project) == before


def test_an_address_by_hand_is_found(project):
    edit(
        project.root / "pyproject.toml",
        publish.UNSET,
        publish.SET.format("https://github.com/owner/name"),
    )
    assert any("cell 1 is not what the lesson says" in fault for fault in build.check(project))


@pytest.mark.parametrize(
    "name",
    [
        "chargpt",
        "owner/name/more",
        "https://github.com/owner/name",
        "owner/na me",
        'o/"',
        "/",
        "owner/name.git",
        "owner/..",
    ],
)
def test_a_name_that_is_none(name, project):
    before = everything(project)
    with pytest.raises(build.BuildError, match="has to be owner/name"):
        publish.publish(name, project)
    assert everything(project) == before


def test_addresses_of_somebody_else_stay(project):
    edit(
        project.root / "pyproject.toml",
        publish.UNSET,
        '[project.urls]\nHomepage = "https://example.org"',
    )
    before = everything(project)
    with pytest.raises(build.BuildError, match="a \\[project.urls\\] of its own"):
        publish.publish("owner/name", project)
    assert everything(project) == before


def test_nothing_is_published_that_is_out_of_step(project):
    edit(source(project, "02_alone"), "42", "43")
    before = everything(project)
    with pytest.raises(build.BuildError, match="02_alone.ipynb: .*\n.*run `make build` first"):
        publish.publish("owner/name", project)
    assert everything(project) == before


# ---------------------------------------------------------------- the course


def test_the_table_of_the_ladder_is_aligned():
    rung = {"loss": 2.5, "floor": 0.5, "seconds": 1.0, "sample": None, "recorded": False}
    table = course.ladder_table({"bigram": rung, "gpt": {**rung, "floor": None, "recorded": True}})
    assert table.splitlines() == [
        "rung                        loss   above the floor   seconds",
        "bigram                     2.500             2.000       1.0",
        "gpt                        2.500           unknown       1.0  (recorded, not measured here)",
    ]
