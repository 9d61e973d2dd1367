"""The built website in a browser: whole, quick, readable in both themes and on a phone, and asking nobody for anything."""

import functools
import http.server
import re
import subprocess
import sys
import threading

import pytest

from build import HERE
from chargpt_lib.course import read_course
from linkcheck import page_weights, site_faults

PAGES = [page.name for page in read_course()]
PROSE = ["index", "teaching", "running_elsewhere", "corpora", "command", "results", "search"]
REFERENCE = ["reference/index", "reference/gpt", "reference/modern", "reference/recipe"]
LESSON_BYTES = 2_500_000
BUILD_SECONDS = 600  # a machine that is busy; alone it takes half a minute


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the whole site, built once, by a process of its own: the browser's needs asyncio for itself."""
    for package in ("sphinx", "myst_nb", "sphinx_book_theme", "math_core", "ziamath"):
        pytest.importorskip(package, reason="the extra `site` is not installed")
    out = tmp_path_factory.mktemp("website") / "site"
    command = [sys.executable, str(HERE.root / "notebooks" / "tools" / "website.py")]
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, timeout=BUILD_SECONDS
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.fixture(scope="module")
def address(built):
    """Where the site is served."""
    handler = functools.partial(_QuietHandler, directory=built)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def open_page(watched, address):
    """open_page(name, width=1280, dark=False) -> a page of the site, which may ask only the site for anything."""

    def go(name, width=1280, dark=False):
        page = watched(
            lambda asked: asked.startswith((f"{address}/", "data:", "blob:")),
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
        )
        page.goto(f"{address}/{name}.html")
        page.wait_for_load_state("networkidle")
        return page

    return go


def luminance(colour):
    values = [float(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


# ---------------------------------------------------------------- whole and light


def test_all_links_lead_somewhere(built):
    assert site_faults(built) == []


def test_every_lesson_is_there_and_light(built):
    weights, _ = page_weights(built)
    for name in PAGES:
        assert weights[f"{name}.html"] <= LESSON_BYTES


def test_what_all_pages_share_is_light(built):
    _, shared = page_weights(built)
    assert shared <= 1_000_000


def test_nothing_is_left_of_the_markup(built):
    for name in ["index", "teaching", "results", *PAGES]:
        text = (built / f"{name}.html").read_text(encoding="utf-8")
        for rest in ("{dropdown}", ":::{", "{{ ", "<merror", "system-message"):
            assert rest not in text, name


@pytest.mark.parametrize("name", [*PROSE, *REFERENCE, *PAGES])
def test_pages_open_without_a_fault_and_fit_a_phone(name, open_page):
    page = open_page(name, width=360)
    widths = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
    assert max(widths) <= 360
    assert page.locator("h1:visible").count() == 1


def test_a_lesson_is_interactive_within_two_seconds(open_page, address):
    """The heaviest: 07. Seconds of the page's own thread until it is idle, not of a clock: the machine may be busy."""
    page = open_page("command")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds_of_work():
        metrics = session.send("Performance.getMetrics")["metrics"]
        return {metric["name"]: metric["value"] for metric in metrics}["TaskDuration"]

    before = seconds_of_work()
    page.goto(f"{address}/07_attention_maps.html")
    page.evaluate("() => new Promise(done => requestIdleCallback(done))")
    seconds = seconds_of_work() - before
    print(f"\ninteractive after {seconds:.2f} s")
    assert 0 < seconds < 2


# ---------------------------------------------------------------- formulas, solutions, the viewer


def test_formulas_are_drawn_with_the_font_of_the_site(open_page):
    page = open_page("03_single_head")
    assert page.evaluate("document.fonts.check('16px \"STIX Two Math Web\"')")
    loaded = page.evaluate(
        "[...document.fonts].filter(f => f.status == 'loaded').map(f => f.family)"
    )
    assert any("STIX Two Math Web" in family for family in loaded)
    # Numerator above denominator: a browser that knows no MathML writes them in a row.
    fraction = page.locator(".formula mfrac").first
    above, below = (fraction.locator(f"> :nth-child({n})").bounding_box() for n in (1, 2))
    assert above["y"] + above["height"] <= below["y"] + 1
    assert page.locator("math").count() > 50 and page.locator("merror").count() == 0
    # What is right of a low root is not far away.
    root = page.locator("msqrt.low").first
    gap = root.evaluate(
        "one => (one.getBoundingClientRect().right - one.lastElementChild.getBoundingClientRect().right)"
        " / parseFloat(getComputedStyle(one).fontSize)"
    )
    assert gap < 0.1


def test_solutions_are_closed_and_open_on_a_click(open_page):
    page = open_page("03_single_head")
    boxes = page.locator("details.solution")
    assert boxes.count() == 5
    code = boxes.first.locator("pre")
    assert not code.is_visible()
    boxes.first.locator("summary").click()
    assert code.is_visible() and "def window_mask" in code.inner_text()
    assert "raise NotAttempted" not in code.inner_text()


def test_the_setup_is_closed(open_page):
    page = open_page("03_single_head")
    setup = page.locator("details", has_text="Setup, for running this page").first
    assert setup.get_attribute("open") is None


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["07_attention_maps", "start_here"])
def test_the_viewer_lives(name, dark, open_page):
    page = open_page(name, dark=dark)
    viewer = page.locator(".chargpt-attention").first
    viewer.scroll_into_view_if_needed()
    readout = viewer.locator(".readout")
    before = readout.inner_text()
    viewer.locator(".text [role=gridcell]").nth(12).click()
    assert readout.inner_text() != before and "position 12" in readout.inner_text()
    ground = page.locator("body").evaluate("one => getComputedStyle(one).backgroundColor")
    ink = readout.evaluate("one => getComputedStyle(one).color")
    assert contrast(ink, ground) >= 4.5


def test_the_live_pages_are_framed(open_page, built):
    page = open_page("index")
    frames = page.locator("iframe")
    assert frames.count() == len(list((built / "live").glob("*.html"))) >= 1
    for frame in frames.all():
        frame.scroll_into_view_if_needed()
        assert frame.get_attribute("title") and frame.get_attribute("loading") == "lazy"
        inside = frame.element_handle().content_frame()
        inside.wait_for_load_state()
        inside.get_by_text(re.compile("characters predicted: ")).wait_for()


def test_a_live_page_is_as_dark_as_the_site(open_page):
    page = open_page("index")
    frame = page.locator("iframe").first
    frame.scroll_into_view_if_needed()
    inside = frame.element_handle().content_frame()
    inside.get_by_text(re.compile("characters predicted: ")).wait_for()
    ink = "getComputedStyle(document.body).color"
    page.evaluate("window.scrollTo(0, 0)")
    for theme, is_light in (("dark", True), ("light", False)):
        choose_theme(page, theme)
        assert (luminance(inside.evaluate(ink)) > 0.5) == is_light


# ---------------------------------------------------------------- search, themes, everybody's eyes


def test_search_finds(open_page):
    page = open_page("index")
    page.locator(".search-button-field:visible").first.click()
    page.keyboard.type("residual")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=residual")
    links = page.locator("#search-results li a")
    links.first.wait_for()
    found = " ".join(links.all_inner_texts())
    assert "05 · Blocks" in found
    links.first.click()
    page.wait_for_load_state("networkidle")
    assert "residual" in page.locator("main").inner_text().lower()


@pytest.mark.parametrize("name", ["index", "05_blocks", "results", "reference/gpt"])
def test_text_can_be_read_in_the_dark(name, open_page):
    page = open_page(name, dark=True)
    assert page.locator("html").get_attribute("data-theme") == "dark"
    ground = page.locator("body").evaluate("one => getComputedStyle(one).backgroundColor")
    assert luminance(ground) < 0.05
    for text in page.locator("main p:visible, main h1, main math").all()[:40]:
        ink = text.evaluate("one => getComputedStyle(one).color")
        assert contrast(ink, ground) >= 4.5


def test_icons_are_drawn(open_page):
    page = open_page("03_single_head")
    icons = page.locator("svg.svg-inline--fa")
    assert icons.count() >= 6 and page.locator("i[class*=fa-]").count() == 0
    for icon in icons.all():
        # What is missing is drawn as a sign that moves.
        assert icon.locator("path").count() and not icon.locator("animate").count()


def choose_theme(page, mode):
    page.locator(".theme-switch-button:visible").first.click()
    page.locator(f".theme-change-button[data-mode={mode}]:visible").first.click()


def test_the_theme_is_chosen_and_the_viewer_follows(open_page):
    page = open_page("07_attention_maps")
    viewer = page.locator(".chargpt-attention").first
    viewer.scroll_into_view_if_needed()
    choose_theme(page, "dark")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    ground = page.locator("body").evaluate("one => getComputedStyle(one).backgroundColor")
    letters = viewer.locator(".text [role=gridcell]")
    letters.nth(12).click()
    for part in (letters.nth(12), viewer.locator(".readout")):
        assert contrast(part.evaluate("one => getComputedStyle(one).color"), ground) >= 4.5
    choose_theme(page, "light")
    assert page.locator("html").get_attribute("data-theme") == "light"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("name", ["index", "03_single_head", "reference/training"])
def test_axe_finds_no_serious_fault(name, width, dark, open_page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    page = open_page(name, width=width, dark=dark)
    # Without preload: axe looks for what a style imports in the wrong folder.
    found = axe.Axe().run(page, options={"preload": False}).response["violations"]
    serious = {
        fault["id"]: [node["target"] for node in fault["nodes"]][:5]
        for fault in found
        if fault["impact"] in {"serious", "critical"}
    }
    assert serious == {}
