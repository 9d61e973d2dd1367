"""For every test: one thread, the same seed, no windows, a cache of its own, Ctrl-C. And a web site to download from."""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    monkeypatch.setenv("CHARGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CHARGPT_DEVICE", raising=False)
    torch.manual_seed(1337)
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs ignore Ctrl-C
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def site(monkeypatch):
    """A site with `address`, `pages` {path: bytes} and a log of what was `asked`; `missing` bytes are promised too many."""
    this = SimpleNamespace(pages={}, asked=[], missing=0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            this.asked.append(self.path)
            page = this.pages.get(self.path, b"there is no such page")
            self.send_response(200 if self.path in this.pages else 404)
            self.send_header("Content-Length", str(len(page) + this.missing))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        this.address = f"http://127.0.0.1:{server.server_port}"
        yield this
        server.shutdown()
        thread.join()
