"""Around every tutorial: downloads at head and foot, neighbours and relatives, numbers of figures, keyboard, paper."""

import pytest
from conftest import SITE, TUTORIALS

NAMED = """all => all.filter(e => e.offsetParent && e.tabIndex >= 0 && !e.matches(".headerlink"))
  .map((e, i) => e.id = e.id || "control-" + i)"""


@pytest.fixture
def page(browser, request):
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=getattr(request, "param", "light"))
    yield page
    page.close()


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_head_and_foot(page, path):
    page.goto(path.as_uri())

    def suffixes(selector):
        links = page.eval_on_selector_all(f"{selector} a.download", "links => links.map(a => a.getAttribute('href'))")
        return {link.rpartition(".")[2] for link in links}

    assert suffixes(".downloads") == {"py", "ipynb"}
    assert suffixes(".sphx-glr-footer") == {"py", "ipynb", "zip"}
    assert page.locator(".related-pages a").count() == 2
    relatives = page.locator("article .sphx-glr-thumbcontainer a").all()
    assert 1 <= len(relatives) <= 3
    assert page.title().split(" - ")[0] not in [relative.inner_text() for relative in relatives]
    for name in ("meta[name=description]", "meta[property='og:description']"):
        description = page.get_attribute(name, "content")
        assert len(description) > 40
        assert "Python script" not in description  # the buttons, which stand first


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_each_figure_has_its_numbers_one_click_away(page, path):
    page.goto(path.as_uri())
    figures = page.locator("img.sphx-glr-single-img.only-light").count()
    folded = page.locator("details.numbers")
    assert folded.count() == figures
    for numbers in folded.all():
        table = numbers.locator("table").first
        assert not table.is_visible()
        numbers.locator("summary").focus()
        page.keyboard.press("Enter")
        assert table.is_visible()
        assert table.locator("tbody tr").count() >= 1


def test_every_control_is_reached_by_tab_and_shows_it(page):
    page.goto((SITE / "tutorials" / "products" / "hvp_four_ways.html").as_uri())
    wanted = set(page.eval_on_selector_all("article :is(a[href], button, summary)", NAMED))
    outlined = "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
    reached, hidden = set(), set()
    for _ in range(600):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id")
        if name in wanted and not page.evaluate(outlined):
            hidden.add(name)
        reached.add(name)
        if wanted <= reached:
            break
    assert wanted <= reached
    assert hidden == set()


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_paper_is_white_with_the_light_figures_and_no_controls(page):
    page.goto((SITE / "tutorials" / "products" / "hvp_four_ways.html").as_uri())
    page.emulate_media(media="print")
    for shown in ("h1", "img.only-light", "table.funcdiff-table"):
        assert page.locator(f"article {shown}").first.is_visible()
    for hidden in ("img.only-dark", ".downloads", ".sphx-glr-footer", ".copybtn", ".sidebar-drawer", ".toc-drawer"):
        for control in page.locator(hidden).all():
            assert not control.is_visible(), hidden
    channels = page.evaluate("getComputedStyle(document.querySelector('article p')).color.match(/\\d+/g).map(Number)")
    assert max(channels[:3]) < 100  # dark ink, also where the screen is dark
