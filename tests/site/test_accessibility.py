"""Every page as served, in both modes: nothing missing, and WCAG 2.2 AA as far as axe can tell."""

import pytest
from axe_playwright_python.base import AXE_SCRIPT, AxeResults
from conftest import PAGES, SITE

RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    "resultTypes": ["violations"],  # what passed is examined alike, and not described node by node
}


@pytest.fixture(scope="module", params=["light", "dark"])
def context(request, browser):
    context = browser.new_context(color_scheme=request.param)
    context.add_init_script(AXE_SCRIPT)
    yield context
    context.close()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(SITE).as_posix())
def test_axe_finds_no_violation(context, address, path):
    page = context.new_page()
    answers, errors = [], []
    page.on("response", lambda response: answers.append((response.url, response.status)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(f"{address}/{path.relative_to(SITE).as_posix()}")
    results = AxeResults(page.evaluate("rules => axe.run(rules)", RULES))
    page.close()
    assert results.violations_count == 0, results.generate_report()
    assert errors == []
    assert [url for url, status in answers if status >= 400 or not url.startswith(address)] == []
