"""The build, on a toy course of three lessons: what it makes, what it refuses, what `check` finds."""

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

PLAY = """# %% [markdown]
# # Play
#
# > A very small corpus.

# %%
#| default_exp playhouse

# %%
#| export
def write():
    return "to be"

# %%
print(write())
"""

COUNT = """# %% [markdown]
# # Count
#
# > Counting.

# %%
#| default_exp count

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

# %%
#| key
from chargpt_lib.count import count

def double_key():
    return 2 * count()

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
# # Alone

# %%
#| default_exp alone

# %%
#| export
answer = 42

# %%
print(answer)
"""

REPORT = "from chargpt_lib.hosts import report; report()"
README = f"""# A toy

{publish.NOWHERE}

| lesson | minutes |
|---|---|
| [01_count](notebooks/01_count.ipynb) | 0.1 |
| [A_play](notebooks/A_play.ipynb), [02_alone](notebooks/02_alone.ipynb) | 0.1 each |

[01_count](notebooks/01_count.ipynb) is the first.
"""
LESSONS = {"A_play": PLAY, "01_count": COUNT, "02_alone": ALONE}


def source(house, name):
    return house.source / f"{name}.py"


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def read(house, name, solved=False):
    return nbformat.read(house.notebooks(solved) / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The toy course, built once for all tests, in a folder with a space in its name."""
    house = build.Project(tmp_path_factory.mktemp("toy") / "a course")
    house.source.mkdir(parents=True)
    house.library.mkdir()
    for name, text in LESSONS.items():
        source(house, name).write_text(text, encoding="utf-8")
    setup = (build.HERE.source / "_setup.py").read_text(encoding="utf-8")
    assert REPORT in setup
    (house.source / "_setup.py").write_text(
        setup.replace(REPORT, ""), encoding="utf-8"
    )  # this course has no such page
    (house.root / "pyproject.toml").write_text(
        f'[project]\nname = "toy"\n\n{publish.UNSET}\n', encoding="utf-8"
    )
    (house.root / "README.md").write_text(README, encoding="utf-8")
    shutil.copy(build.HERE.library / "__init__.py", house.library)
    (house.root / "constraints.txt").write_text("torch==2\n")
    build.build(house)
    return house


@pytest.fixture
def house(built, tmp_path):
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


def test_modules_name_their_source_and_import_relatively(built):
    module = (built.library / "count.py").read_text()
    assert module.startswith('"""Counting."""')
    assert "File to edit: notebooks/source/01_count.py" in module
    assert (
        "from .playhouse import (" in module and "from .playhouse import write as again" in module
    )
    assert "double" not in module
    assert str(built.root) not in module and "tmp" not in module
    code = "import chargpt_lib.count as c, sys; assert c.count() == 10; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=built.root, check=True)


def test_keys_go_to_their_own_file(built):
    key = (built.library / "keys" / "count.py").read_text()
    assert "def double_key" in key and "from ..count import count" in key
    assert not (built.library / "keys" / "alone.py").exists()
    for solved in (False, True):
        assert not any(
            "double_key" in cell.source for cell in read(built, "01_count", solved).cells
        )


def test_exercises_are_blank_for_learners_and_answered_in_the_solution(built):
    blank, answer = (read(built, "01_count", solved).cells[4] for solved in (False, True))
    assert blank.source == "def double(x):\n    if x:\n        raise NotAttempted"
    assert answer.source == "def double(x):\n    if x:\n        return 2 * x"
    assert blank.id == answer.id == "double"
    assert blank.metadata == {"tags": ["exercise"], "exercise": "double"}


def test_the_setup_cell_follows_the_title_and_default_exp_is_gone(built):
    cells = read(built, "02_alone").cells
    assert [cell.id for cell in cells[:2]] == [cells[0].id, "setup"]
    assert not any("default_exp" in cell.source for cell in cells)
    assert cells[2].source.startswith("#| export\n")


def test_notebooks_hold_nothing_that_changes_by_itself(built):
    notebook = read(built, "01_count")
    assert set(notebook.metadata) == {"kernelspec", "language_info", "chargpt"}
    assert all(set(cell.metadata) <= {"tags", "exercise"} for cell in notebook.cells)
    bar = next(cell for cell in notebook.cells if "step" in cell.source)
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
    "no default_exp": ("# %%\n#| default_exp count\n", "", "has 0 `#| default_exp"),
    "two default_exp": ("#| default_exp count\n", "#| default_exp count\n\n# %%\n#| default_exp b\n", "has 2 `#| default_exp"),
    "default_exp not alone": ("#| default_exp count\n", "#| default_exp count\nimport re\n", "stands alone"),
    "module made twice": ("#| default_exp count\n", "#| default_exp playhouse\n", "so does notebooks/source/A_play.py"),
    "exported exercise": ("def double(x):", "#| export\ndef double(x):", "never an exercise"),
    "exercise without a name": (' exercise="double"', "", "has both"),
    "exercise without an answer": ("        ### BEGIN SOLUTION\n        return 2 * x\n        ### END SOLUTION", "        pass", "hold answers"),
    "answer without an end": ("        ### END SOLUTION\n", "", "never closed"),
    "answer without a beginning": ("        ### BEGIN SOLUTION\n", "", "without its partner"),
    "long exported cell": ("#| export\n", f"#| export\n{LONG}\n", "at most 45 in an exported cell"),
    "long exploring cell": ("class NotAttempted", f"{LONG[:200]}\nclass NotAttempted", "at most 15 in an exploring cell"),
    "silent last line": ("    pass\n", "    pass\nprint();\n", "end with `plt.show()`"),
    "module of a later lesson": ("#| export\n", "#| export\nfrom chargpt_lib.alone import answer\n", "02_alone.py makes, not an earlier"),
    "module of no lesson": ("#| export\n", "#| export\nfrom chargpt_lib.nowhere import x\n", "which no lesson makes"),
    "no title": ("# # Count", "# Count", "begin with the title"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place(house, fault):
    old, new, message = FAULTS[fault]
    edit(source(house, "01_count"), old, new)
    with pytest.raises(build.BuildError) as error:
        build.build(house, run=False)
    assert "notebooks/source/01_count.py" in str(error.value) and message in str(error.value)
    assert build.check(house) == str(error.value).split("\n")


def test_two_exercises_of_one_name_are_refused(house):
    path = source(house, "01_count")
    exercise = re.search(r"# %% tags=\[\"exercise\"\].*?END SOLUTION\n", path.read_text(), re.S)[0]
    edit(path, exercise, exercise + "\n" + exercise)
    with pytest.raises(build.BuildError, match="two exercises are called 'double'"):
        build.build(house, run=False)


def test_the_order_of_the_house():
    names = ["C_grading", "15_real", "B_checks", "00_data", "A_play", "D_command", "01_bigram"]
    ordered = sorted(names, key=lambda name: build.Lesson(name, "", []).floor)
    assert ordered == [
        "A_play",
        "B_checks",
        "00_data",
        "01_bigram",
        "15_real",
        "C_grading",
        "D_command",
    ]


def test_imports_are_read_in_every_form():
    code = """%matplotlib inline
from chargpt_lib.data import load_corpus
from chargpt_lib import bigram, training as t
from chargpt_lib import (
    gpt,
    blocks,
)
import chargpt_lib.sampling as s
x = 1, 2
    from chargpt_lib.multi_head import Head
"""
    found = build.imports(nbformat.v4.new_code_cell(code))
    assert found == {"data", "bigram", "training", "gpt", "blocks", "sampling", "multi_head"}


def test_an_unknown_lesson_is_refused(house):
    with pytest.raises(build.BuildError, match="no lesson is called 'poems'.*01_count"):
        build.build(house, ["poems"])


def test_a_failing_cell_is_shown_and_the_old_notebook_kept(house):
    before = (house.notebooks(False) / "02_alone.ipynb").read_text()
    edit(source(house, "02_alone"), "print(answer)", "print(answer / 0)")
    with pytest.raises(build.BuildError) as error:
        build.build(house, ["alone"])
    message = str(error.value)
    assert (
        "02_alone: cell 4 fails" in message
        and "print(answer / 0)" in message
        and "ZeroDivisionError" in message
    )
    assert "\x1b" not in message
    assert (house.notebooks(False) / "02_alone.ipynb").read_text() == before


# ---------------------------------------------------------------- what is built again


def test_nothing_changed_nothing_runs(house, runs):
    build.build(house)
    assert runs == []


SOURCE_CHANGES = {
    "an imported module": (
        ("A_play", "to be", "not to be"),
        ["A_play", "01_count", "solutions/01_count"],
    ),
    "only the prose of an imported lesson": (
        ("A_play", "# %%\nprint", "# %% [markdown]\n# Hm.\n\n# %%\nprint"),
        ["A_play"],
    ),
    "a lesson that no other imports": (("02_alone", "42", "43"), ["02_alone"]),
    "the setup cell": (
        ("_setup", "# setup", "# set up"),
        ["A_play", "01_count", "solutions/01_count", "02_alone"],
    ),
}


@pytest.mark.parametrize("what", SOURCE_CHANGES)
def test_what_changed_and_what_depends_on_it_runs(house, runs, what):
    (name, old, new), expected = SOURCE_CHANGES[what]
    edit(source(house, name), old, new)
    build.build(house)
    assert runs == expected
    assert build.check(house) == []


def test_new_pins_force_and_names(house, runs):
    build.build(house, ["02"], force=True)
    assert runs == ["02_alone"]
    (house.root / "constraints.txt").write_text("torch==3\n")
    build.build(house, ["count", "A_play"])
    assert runs[1:] == ["A_play", "01_count", "solutions/01_count"]


def test_stale_modules_go_and_hand_written_ones_are_not_touched(house):
    assets = house.library / "assets" / "viewer.py"
    assets.parent.mkdir()
    assets.write_text("by_hand = True\n")
    source(house, "02_alone").unlink()
    build.build(house, run=False)
    assert not (house.library / "alone.py").exists()
    assert assets.exists() and (house.library / "__init__.py").exists()
    (house.library / "helper.py").write_text("by_hand = True\n")
    with pytest.raises(build.BuildError, match="written by hand"):
        build.build(house, run=False)
    assert (house.library / "helper.py").exists()


# ---------------------------------------------------------------- what check finds


def change_notebook(house, change):
    path = house.notebooks(False) / "02_alone.ipynb"
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
        lambda notebook, cell: notebook.metadata.chargpt.update(digest="0"),
        "older than its lesson",
    ),
}


@pytest.mark.parametrize("kind", NOTEBOOK_CHANGES)
def test_check_finds_a_changed_notebook_and_build_mends_it(house, runs, kind):
    change, message = NOTEBOOK_CHANGES[kind]
    change_notebook(house, change)
    (problem,) = build.check(house)
    assert (
        problem.startswith("notebooks/02_alone.ipynb: ")
        and message in problem
        and "make build" in problem
    )
    build.build(house)
    assert runs == ["02_alone"] and build.check(house) == []


def test_check_finds_changed_missing_and_stray_files(house):
    edit(house.library / "count.py", "len(write())", "0")
    (house.library / "keys" / "count.py").unlink()
    (house.library / "poems.py").write_text("# AUTOGENERATED\n")
    shutil.copy(house.notebooks(False) / "02_alone.ipynb", house.notebooks(True) / "03_copy.ipynb")
    (house.notebooks(False) / "A_play.ipynb").write_text("{")
    problems = build.check(house)
    assert [problem.split(":")[0] for problem in problems] == [
        "chargpt_lib/count.py",
        "chargpt_lib/exercises/keys/count.py",
        "chargpt_lib/poems.py",
        "notebooks/A_play.ipynb",
        "notebooks/solutions/03_copy.ipynb",
    ]


def test_the_command_exits_1_where_something_is_out_of_step(house):
    def run(*options):
        command = [sys.executable, build.__file__, "--root", str(house.root), *options]
        return subprocess.run(command, capture_output=True, text=True)

    assert run("--check").returncode == 0
    edit(source(house, "02_alone"), "42", "43")
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
    code = setup.replace('%pip install -q --no-deps "{wheels[-1]}"', "raise SystemExit(3)")
    code = f"{code}\n{code}\nimport chargpt_lib; print(chargpt_lib.__file__)"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=folder, capture_output=True, text=True
    )


def test_setup_finds_the_library_from_both_folders(built):
    for solved in (False, True):
        run = run_setup(built.notebooks(solved), build.setup_cell(built).source)
        assert Path(run.stdout.strip()) == (built.library / "__init__.py").resolve(), run.stderr


# ---------------------------------------------------------------- where it is published


def everything(house):
    return {
        path.relative_to(house.root): path.read_bytes()
        for path in house.root.rglob("*")
        if path.is_file()
    }


def test_published_and_taken_back(house):
    before = everything(house)
    assert publish.publish("some-one/a.course", house) == 6 and build.check(house) == []
    assert build.published(house) == "https://github.com/some-one/a.course"
    for solved, folder in ((False, "notebooks"), (True, "notebooks/solutions")):
        cells, old = (
            read(house, "01_count", solved).cells,
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
        assert '["https://github.com/some-one/a.course/archive/main.zip"] + ' in cells[1].source
        assert cells[2:] == old[2:] and cells[1].outputs == old[1].outputs
    readme = (house.root / "README.md").read_text(encoding="utf-8").split("\n")
    assert [line.count("Open in Colab") for line in readme if "ipynb" in line] == [1, 2, 0]
    assert publish.SOMEWHERE in readme and publish.NOWHERE not in readme

    publish.publish("other/course", house)
    assert build.check(house) == [] and not any(
        b"some-one" in content for content in everything(house).values()
    )
    publish.publish("", house)
    assert everything(house) == before


def test_an_address_by_hand_is_found(house):
    edit(
        house.root / "pyproject.toml",
        publish.UNSET,
        publish.SET.format("https://github.com/owner/name"),
    )
    assert any("cell 1 is not what the lesson says" in fault for fault in build.check(house))


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
def test_a_name_that_is_none(name, house):
    before = everything(house)
    with pytest.raises(build.BuildError, match="has to be owner/name"):
        publish.publish(name, house)
    assert everything(house) == before


def test_addresses_of_somebody_else_stay(house):
    edit(
        house.root / "pyproject.toml",
        publish.UNSET,
        '[project.urls]\nHomepage = "https://example.org"',
    )
    before = everything(house)
    with pytest.raises(build.BuildError, match="a \\[project.urls\\] of its own"):
        publish.publish("owner/name", house)
    assert everything(house) == before


def test_nothing_is_published_that_is_out_of_step(house):
    edit(source(house, "02_alone"), "42", "43")
    before = everything(house)
    with pytest.raises(build.BuildError, match="02_alone.ipynb: .*\n.*run `make build` first"):
        publish.publish("owner/name", house)
    assert everything(house) == before


# ---------------------------------------------------------------- the course


def test_the_table_of_the_ladder_is_aligned():
    rung = {"loss": 2.5, "floor": 0.5, "seconds": 1.0, "sample": None, "recorded": False}
    table = course.ladder_table({"bigram": rung, "gpt": {**rung, "floor": None, "recorded": True}})
    assert table.splitlines() == [
        "rung                        loss   above the floor   seconds",
        "bigram                     2.500             2.000       1.0",
        "gpt                        2.500           unknown       1.0  (recorded, not measured here)",
    ]
