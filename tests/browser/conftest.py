"""For the tests in a browser: Chromium, and pages where nothing may go wrong and nothing be asked of the network."""

import shutil
from types import SimpleNamespace

import pytest

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium():
    """The path of a browser, or None."""
    return next(
        filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
    )


@pytest.fixture(scope="module")
def chromium():
    """The browser. For one module only: while it lives, nothing else in this process can use asyncio."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not (path := find_chromium()):
        pytest.skip("neither Chromium nor Chrome is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def watched(chromium):
    """watched(allowed, **options) -> a page that reaches only addresses for which allowed(address).

    When the test is over, there was no fault on any of its pages, no console error, and nothing else was asked for.
    `log.excused` holds beginnings of console errors that are not ours.
    """
    log, contexts = SimpleNamespace(refused=[], faults=[], excused=()), []

    def new(allowed, **options):
        def judge(route):
            if allowed(route.request.url):
                return route.continue_()
            log.refused.append(route.request.url[:200])
            route.abort()

        def hear(message):
            if message.type == "error" and not message.text.startswith(tuple(log.excused)):
                log.faults.append(message.text)

        def close(dialog):
            log.faults.append(f"a dialog: {dialog.message}")
            dialog.dismiss()

        contexts.append(chromium.new_context(**options))
        contexts[-1].route("**/*", judge)
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: log.faults.append(str(error)))
        page.on("console", hear)
        page.on("dialog", close)
        page.on(
            "websocket",
            lambda socket: allowed("http" + socket.url[2:]) or log.refused.append(socket.url),
        )
        return page

    def close_pages():
        while contexts:
            contexts.pop().close()

    new.log, new.close_pages = log, close_pages
    yield new
    close_pages()
    assert not log.refused, "asked of the network"
    assert not log.faults


@pytest.fixture
def visit(watched, tmp_path):
    """visit(body, width=1280, dark=False, ...) -> a page with this body, opened as a file, with no network at all."""

    def open_file(body, width=1280, dark=False, init=None, **options):
        colours = "background: #111; color: #fff" if dark else "background: #fff; color: #000"
        path = tmp_path / "page.html"
        head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>a page</title><body style="{colours}">'
        path.write_text(head + body, encoding="utf-8")
        page = watched(
            lambda address: address == path.as_uri() or address.startswith("data:"),
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
            **options,
        )
        if init:
            page.add_init_script(init)
        page.goto(path.as_uri())
        return page

    return open_file
