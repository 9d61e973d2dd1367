"""In a real JupyterLab: lesson 07's viewer, driven by keys, in both themes, opened again untrusted; lessons run to the end."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from chargpt_lib.gpt import load_pretrained
from chargpt_lib.playground import playground
from tests.browser.pieces import attention_html
from tests.browser.test_viewer import PLAY, random_maps, same_tint, shown

ROOT = Path(__file__).resolve().parents[2]
LESSON = ROOT / "notebooks" / "07_attention_maps.ipynb"
TOKEN = "goose"
SILENT = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
EXCUSED = []  # beginnings of errors that JupyterLab logs by itself, with any notebook: none so far


@pytest.fixture
def lab(watched, tmp_path):
    """lab(folder, theme) -> open(notebook), which shows it in a JupyterLab of its own; ended when the test is over."""
    servers = []

    def start(folder, theme="JupyterLab Light"):
        home = tmp_path / f"home{len(servers)}"
        for name, values in {"notification": SILENT, "themes": {"theme": theme}}.items():
            path = (
                home
                / "settings"
                / "@jupyterlab"
                / "apputils-extension"
                / f"{name}.jupyterlab-settings"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        places = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        command = [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--port=0",
            "--ip=127.0.0.1",
            "--allow-root",
            f"--ServerApp.token={TOKEN}",
            f"--ServerApp.root_dir={folder}",
        ]
        with (tmp_path / "server.log").open("w") as log:
            environment = {
                **os.environ,
                **{name: str(home / place) for name, place in places.items()},
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
            }
            servers.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        note = home / "runtime" / f"jpserver-{servers[-1].pid}.json"
        wait_for(
            lambda: (
                servers[-1].poll() is not None or note.exists() and note.read_text().endswith("}")
            )
        )
        address = json.loads(note.read_text())["url"]
        watched.log.excused = EXCUSED

        def open_notebook(name):
            page = watched(
                lambda url: url.startswith((address, "data:", "blob:" + address)),
                viewport={"width": 1280, "height": 900},
            )
            page.goto(f"{address}lab/tree/{name}?token={TOKEN}")
            page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for(timeout=60_000)
            return page

        return open_notebook

    yield start
    watched.close_pages()
    for server in servers:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for(condition, page=None):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        page.wait_for_timeout(100) if page else time.sleep(
            0.1
        )  # a page needs its requests judged while we wait


def write_notebook(folder):
    """A notebook of viewers: two in a row, the first one again, and a cell between them."""
    for name, seed in (("one", 0), ("other", 1)):
        (folder / f"{name}.html").write_text(
            attention_html(random_maps(6, 6, 128)[:, :: -1 if seed else 1], PLAY[:128])
        )
    show = "HTML(open('{}.html', encoding='utf-8').read())"
    first = "from IPython.display import HTML\n" + show.format("one")
    cells = map(
        nbformat.v4.new_code_cell, [first, "2 + 2", show.format("other"), show.format("one")]
    )
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=[*cells], metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "viewers.ipynb")
    return "viewers.ipynb"


def run_all(page, timeout=120_000):
    """By the menu, as a learner would; waits until nothing is waiting and the kernel is idle.

    The setup cell is folded, and has no prompt.
    """
    idle = page.get_by_text("| Idle")
    idle.wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(
        """() => {
        const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)')].map(one => one.textContent);
        return prompts.length && prompts.every(prompt => /\\[\\d+\\]/.test(prompt));
    }""",
        timeout=timeout,
    )
    idle.wait_for()


def active_cell(page):
    [cell] = page.evaluate("""[...document.querySelectorAll('.jp-Notebook .jp-Cell')].flatMap(
        (cell, i) => cell.classList.contains('jp-mod-active') ? [i] : [])""")
    return cell


def drive(page, viewer):
    """Hover, then keys: they act in the viewer, and the notebook stays as it is."""
    text, heads, readout = (viewer.locator(part) for part in (".text", ".heads", ".readout"))
    viewer.scroll_into_view_if_needed()

    def hovered():
        # JupyterLab lays out the cells above late: the text may slip away from under the pointer
        page.mouse.move(0, 0)
        viewer.locator("#t7").hover()
        return "position 7) looks" in readout.inner_text()

    wait_for(hovered, page)
    viewer.locator("#t7").click()
    before, cells = active_cell(page), page.locator(".jp-Cell").count()

    def press(key, part, to=None):
        page.keyboard.press(key)
        if to:
            assert part.get_attribute("aria-activedescendant") == to, key
        assert active_cell(page) == before and page.locator(".jp-Cell").count() == cells, (
            f"{key} reached the notebook"
        )

    for key, to in [
        ("ArrowRight", "t8"),
        ("ArrowLeft", "t7"),
        ("ArrowDown", None),
        ("Control+Home", "t0"),
        ("ArrowUp", "t0"),
        ("ArrowRight", "t1"),
    ]:
        press(key, text, to)
    page.keyboard.press("Shift+Tab")
    for key, to in [
        ("Control+Home", "h0"),
        ("ArrowRight", "h1"),
        ("ArrowDown", None),
        ("Control+Home", "h0"),
    ]:
        press(key, heads, to)
    for key in "abxjk":  # in a notebook: a new cell above, below, cut this one, go down, go up
        press(key, heads, "h0")


def assert_no_error(page, said=0):
    """said: so often the saved notebook writes to stderr, on purpose."""
    assert page.locator("[data-mime-type*='vnd.jupyter.error']").count() == 0
    assert page.locator("[data-mime-type*='stderr']").count() == said


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "notebooks"
    path.mkdir()
    return path


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_run_hover_and_drive(lab, folder, tmp_path, theme):
    page = lab(folder, theme)(write_notebook(folder))
    run_all(page)
    assert_no_error(page)
    viewers = page.locator(".chargpt-attention .viewer")
    wait_for(lambda: viewers.count() == 3, page)
    ground = page.evaluate(
        "getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor"
    )
    ink = viewers.first.evaluate("one => getComputedStyle(one).color")
    assert (ground, ink) in [
        ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0.87)"),
        ("rgb(17, 17, 17)", "rgb(255, 255, 255)"),
    ]
    for number in (0, 1, 2, 0):  # the first one again, after it was out of sight
        drive(page, viewers.nth(number))
        page.screenshot(path=tmp_path / f"viewer{number}.png")
    viewers.first.locator("#t40").hover()
    assert same_tint(shown(page)[:128], random_maps(6, 6, 128)[0, 0, 40])


def test_saved_and_opened_again(lab, folder, tmp_path):
    """Where the notebook was run it is trusted, and alive at once; elsewhere there is the picture, and the table."""
    name, here = write_notebook(folder), lab(folder)
    page = here(name)
    run_all(page)
    page.keyboard.press("Control+s")
    wait_for(
        lambda: (folder / name).read_text(encoding="utf-8").count("function attend") == 3, page
    )
    page.close()

    page = here(name)
    page.locator(".viewer").first.wait_for()
    drive(page, page.locator(".viewer").first)

    page = lab(folder)(name)
    place = page.locator(".chargpt-attention").first
    place.wait_for()
    assert place.locator("img").is_visible() and page.locator(".viewer").count() == 0
    place.locator("summary").click()
    assert place.locator("table").is_visible()
    wait_for(
        lambda: page.locator(".chargpt-attention").count() == 3, page
    )  # JupyterLab shows what is far down later
    assert page.locator(".jp-Notebook script").count() == 0
    page.screenshot(path=tmp_path / "untrusted.png")


def test_typing_into_the_live_page(lab, folder):
    """Letters that are commands of the notebook go into the text, and nowhere else."""
    model, tokenizer, _ = load_pretrained("playhouse")
    (folder / "live.html").write_text(
        playground(model, tokenizer, "A barn.").html, encoding="utf-8"
    )
    show = "from IPython.display import HTML\nHTML(open('live.html', encoding='utf-8').read())"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(show), nbformat.v4.new_code_cell("2 + 2")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "live.ipynb")
    page = lab(folder)("live.ipynb")
    run_all(page)
    page.get_by_text("6 characters predicted").wait_for()
    editor = page.get_by_role("textbox", name="the text that the model reads")
    editor.click()
    page.keyboard.press("Control+End")
    page.keyboard.type("ddxbm")
    page.keyboard.press("Enter")
    page.get_by_text("12 characters predicted").wait_for()
    assert editor.input_value() == "A barn.ddxbm\n"
    assert page.locator(".jp-Cell").count() == 2


ALL = sorted((ROOT / "notebooks").glob("*.ipynb"))
TRAINS = ROOT / "notebooks" / "02_training_loop.ipynb"  # each time it is run, so its bar is there
SOME = [path for path in ALL if os.environ.get("CHARGPT_EVERY_LESSON") or path in (LESSON, TRAINS)]


@pytest.mark.parametrize("lesson", SOME, ids=lambda path: path.stem)
def test_a_lesson_in_the_browser(lesson, lab, folder, tmp_path, monkeypatch):
    """Run all: no error, each picture there, progress bars in one line, the viewer alive. CHARGPT_EVERY_LESSON=1: all pages."""
    monkeypatch.delenv("CHARGPT_CACHE")  # what was trained on this machine before
    shutil.copy(lesson, folder)
    page = lab(folder)(lesson.name)
    before = nbformat.read(lesson, as_version=4)
    run_all(page, timeout=900_000)
    outputs = [output for cell in before.cells for output in cell.get("outputs", ())]
    assert_no_error(page, said=sum(output.get("name") == "stderr" for output in outputs))
    page.keyboard.press("Control+s")
    wait_for(
        lambda: pictures(before) == pictures(nbformat.read(folder / lesson.name, as_version=4)),
        page,
    )
    bars = page.locator(".jp-OutputArea-output pre", has_text="step/s")
    assert bars.count() or lesson != TRAINS, "no progress bar was seen"
    for bar in bars.all_inner_texts():
        assert all(line.count("%|") <= 1 for line in bar.splitlines()), bar[:300]
    if bars.count():
        bars.first.scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / "bar.png")
    if any("chargpt-attention" in str(cell.get("outputs")) for cell in before.cells):
        page.locator(".viewer").first.wait_for()
    for viewer in page.locator(".viewer").all():
        drive(page, viewer)
    page.screenshot(path=tmp_path / "lesson.png")


def pictures(notebook):
    """How many pictures each cell shows."""
    return [
        sum("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))
        for cell in notebook.cells
    ]
