"""The atlas in a browser: its filters, what is said of a cell, and all of it without a script."""

import pytest
from conftest import SITE

ATLAS = (SITE / "reference" / "atlas.html").as_uri()
SHOWN = "rows => rows.filter(row => row.offsetParent).map(row => row.cells[0].textContent)"
ROWS = ".atlas-grid tbody:not(.atlas-totals) tr:not(.atlas-kind)"


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(ATLAS)
    yield page
    page.close()


def test_rows_are_found_by_name_recipe_and_verdict(page):
    every = page.eval_on_selector_all(ROWS, SHOWN)
    page.fill("#atlas-search", "layer_norm")
    named = page.eval_on_selector_all(ROWS, SHOWN)
    assert "nn.functional.layer_norm" in named
    assert len(named) < len(every)
    page.select_option("#atlas-found", "wrong")
    assert "nn.functional.layer_norm" in page.eval_on_selector_all(ROWS, SHOWN)
    page.select_option("#atlas-recipe", "hessian_taylor")
    assert page.eval_on_selector_all(ROWS, SHOWN) == []
    page.select_option("#atlas-found", "right")
    assert "nn.functional.layer_norm" in page.eval_on_selector_all(ROWS, SHOWN)


def test_a_cell_and_a_row_say_what_was_found(page):
    told = page.locator(".atlas-told")
    assert not told.is_visible()
    page.fill("#atlas-search", "nn.functional.layer_norm")
    page.locator(".atlas-grid td.atlas-wrong:visible").first.click()
    assert "hessian_forward_over_reverse" in told.inner_text()
    assert "wrong by up to" in told.inner_text()
    page.keyboard.press("Escape")
    assert not told.is_visible()
    page.locator(".atlas-grid th a:visible").first.focus()
    assert "hessian_reverse_over_forward" in told.inner_text()


def test_headers_and_names_stay_in_sight(page):
    page.set_viewport_size({"width": 390, "height": 900})
    page.evaluate("document.querySelector('.atlas-grid').scrollTo(300, 3000)")
    region = page.locator(".atlas-grid").bounding_box()
    head = page.locator(".atlas-grid thead").bounding_box()
    name = page.locator(f"{ROWS} th").nth(100).bounding_box()
    assert abs(head["y"] - region["y"]) < 3
    assert abs(name["x"] - region["x"]) < 3


def test_without_script_everything_is_there(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(ATLAS)
    assert page.locator(ROWS).first.is_visible()
    link = page.locator(".atlas-grid th a").first
    assert page.locator(link.get_attribute("href")).is_visible()
    context.close()
