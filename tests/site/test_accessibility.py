"""WCAG 2.2 AA, as far as axe can tell, on every page in both modes."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import PAGES, SITE

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}


@pytest.fixture(scope="module", params=["light", "dark"])
def context(request, browser):
    context = browser.new_context(color_scheme=request.param, offline=True)
    yield context
    context.close()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(SITE).as_posix())
def test_axe_finds_no_violation(context, path):
    page = context.new_page()
    page.goto(path.as_uri())
    results = Axe().run(page, options=RULES)
    page.close()
    assert results.violations_count == 0, results.generate_report()
