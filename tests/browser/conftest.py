"""One browser for all tests of pages; they skip where no Chromium is installed."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium, find_chromium, start_chromium
from tests.contract import ROOT

MODULES = ROOT / "playground/node_modules"


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Chromium]:
    if not find_chromium():
        pytest.skip("needs a Chromium on the path or in $CHROMIUM")
    with start_chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, which finds what shuts readers out."""
    path = MODULES / "axe-core/axe.min.js"
    if not path.exists():
        pytest.skip("needs axe-core: npm ci --prefix playground")
    return path.read_text()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Path], str]]:
    """serve(folder): the address of a plain server of its files."""
    servers = []

    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def violations(browser: Chromium, axe: str) -> list[str]:
    """List the rules that a page breaks, with the elements that do."""
    browser.evaluate(f"{axe}; 0")
    code = "axe.run().then(r => r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.target.join(' ')).join(', ')))"
    return browser.evaluate(code)
