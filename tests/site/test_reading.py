"""What a reader meets: pages that are light and stay still while they load, and a search that finds."""

import gzip
from urllib.parse import quote_plus

import pytest
from conftest import PAGES, SITE

TUTORIALS = [page for page in PAGES if page.parent.parent.name == "tutorials" and page.stem != "sg_execution_times"]
WEIGHT = 600_000  # bytes of a page with its pictures
SHIFT = 0.02  # the cumulative layout shift, where 0.1 counts as good

WATCH_SHIFTS = """
window.shift = 0;
new PerformanceObserver(list => {
  for (const entry of list.getEntries()) window.shift += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""


def transferred(response):
    """Bytes of a response as servers send it: pictures as they are, text compressed."""
    body = response.body()
    return len(body if response.headers["content-type"].startswith("image/png") else gzip.compress(body))


@pytest.mark.parametrize("path", [SITE / "index.html", *TUTORIALS], ids=lambda path: path.stem)
def test_page_is_light_and_stays_still(browser, address, path):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(WATCH_SHIFTS)
    sizes = {}
    page.on("response", lambda response: sizes.update({response.url: transferred(response)}))
    page.goto(f"{address}/{path.relative_to(SITE).as_posix()}")
    page.evaluate("for (const image of document.images) image.scrollIntoView()")
    page.wait_for_load_state("networkidle")
    shift = page.evaluate("window.shift")
    page.close()
    assert shift < SHIFT
    assert sum(sizes.values()) <= WEIGHT, sizes


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("batch jacobian", "tutorials/batches/per_row.html"),
        ("hessian vector product", "tutorials/products/hvp_four_ways.html"),
        ("layer norm", "tutorials/hessians/when_they_disagree.html"),
        ("vmap: It looks like you're calling .item() on a Tensor", "guides/troubleshooting/vmap.html"),
        (
            "element 0 of tensors does not require grad and does not have a grad_fn",
            "guides/troubleshooting/graphs.html",
        ),
        ("You must implement the jvp function for custom autograd.Function", "guides/troubleshooting/systems.html"),
        ("hutchinson trace", "guides/howto/curvature.html"),
        ("complex functions", "guides/howto/functions.html"),
    ],
)
def test_search_finds_the_page(browser, address, words, expected):
    page = browser.new_page()
    page.goto(f"{address}/search.html?q={quote_plus(words)}")
    page.wait_for_selector("#search-results .search a")
    page.wait_for_function("document.querySelector('#search-progress')?.style.display !== 'block'")
    page.wait_for_timeout(1000)
    found = page.eval_on_selector_all("#search-results .search a", "links => links.slice(0, 10).map(a => a.href)")
    page.close()
    assert any(expected in link for link in found), found
