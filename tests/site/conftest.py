import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from funcdiff._tables import Table

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
PAGES = sorted(SITE.rglob("*.html"))
LISTS = ("index", "sg_execution_times")  # of the tutorials of a folder
TUTORIALS = [page for page in sorted((SITE / "tutorials").glob("*/*.html")) if page.stem not in LISTS]

MEASURES = ("page", "kB", "pictures", "requests", "first paint, ms", "layout shift", "blocking scripts")


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "no Chromium on this machine: install the system's package `chromium`"
    with sync_playwright() as playwright:
        # Root in a container has no sandbox to offer; the pages opened are our own.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def address():
    """The site served from this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def pytest_terminal_summary(terminalreporter):
    """What was measured of each page: bytes as sent, first contentful paint, layout shift."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    found = {
        tuple(value) for report in reports for key, value in getattr(report, "user_properties", []) if key == "measures"
    }
    if found:
        terminalreporter.section("pages as loaded from this machine")
        terminalreporter.write_line(repr(Table(MEASURES, tuple(sorted(found)))))
