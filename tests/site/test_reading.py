"""What a reader meets: pages that are light, quick and still while they load, and a search that finds."""

import gzip
import os
import re
from html import unescape
from urllib.parse import quote

import pytest
from conftest import PAGES, SITE, TUTORIALS

WEIGHT = 600_000  # bytes of a page with its pictures
SHIFT = 0.02  # the cumulative layout shift, where 0.1 counts as good

WATCH_SHIFTS = """
window.shift = 0;
new PerformanceObserver(list => {
  for (const entry of list.getEntries()) window.shift += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""
# By the document: the browser's own renderBlockingStatus of a script at the body's end depends on the machine's load.
BLOCKING = """[...document.querySelectorAll("script[src]:not([async], [defer], [type=module])")]
  .filter(script => script.compareDocumentPosition(document.querySelector("[role=main]")) & 4)  // before the text
  .map(script => script.src)"""
SHOWN = "[...document.images].filter(image => image.offsetParent !== null)"
LOAD_SHOWN = f"for (const image of {SHOWN}) image.loading = 'eager'"  # else it would load as it comes into view
ALL_LOADED = f"{SHOWN}.every(image => image.complete)"
UNSIZED = "[...document.images].filter(i => !(i.getAttribute('width') && i.getAttribute('height'))).map(i => i.src)"
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def transferred(response):
    """Bytes of a response as servers send it: pictures as they are, text compressed."""
    body = response.body()
    return len(body if response.headers["content-type"].startswith("image/png") else gzip.compress(body))


@pytest.mark.parametrize("path", [SITE / "index.html", SITE / "tutorials" / "index.html", *TUTORIALS], ids=str)
def test_page_is_light_quick_and_still(browser, address, path, record_property):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(WATCH_SHIFTS)
    sizes = {}
    page.on("response", lambda response: sizes.update({response.url: transferred(response)}))
    name = path.relative_to(SITE).as_posix()
    page.goto(f"{address}/{name}")
    page.evaluate(LOAD_SHOWN)
    page.wait_for_function(ALL_LOADED)
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")  # late on a busy machine
    shift, paint, blocking, unsized = map(page.evaluate, ("window.shift", PAINTED, BLOCKING, UNSIZED))
    page.close()
    pictures = sum(size for url, size in sizes.items() if url.endswith(".png"))
    total = sum(sizes.values())
    measures = [f"{total / 1e3:.0f}", f"{pictures / 1e3:.0f}", str(len(sizes)), f"{paint:.0f}", f"{shift:.4f}"]
    record_property("measures", [name, *measures, str(len(blocking))])
    assert shift < SHIFT
    assert total <= WEIGHT, sizes
    assert blocking == []
    assert unsized == []


@pytest.fixture(scope="module")
def found(browser, address):
    """From words to the addresses of the first page of results, as a reader sees them in order."""
    page = browser.new_page()

    def search(words):
        page.goto(f"{address}/search.html?q={quote(words)}")
        page.wait_for_function("/found|did not match/.test(document.querySelector('.search-summary')?.innerText)")
        return page.eval_on_selector_all(
            "#search-results ul.search > li > a", "links => links.slice(0, 10).map(a => a.href)"
        )

    yield search
    page.close()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("batch jacobian", "tutorials/batches/per_row.html"),
        ("hessian vector product", "tutorials/products/hvp_four_ways.html"),
        ("chunk_size", "tutorials/batches/chunk_size.html"),
        ("layer norm", "guides/silent_failures.html"),
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
def test_search_finds_the_answer_before_the_reference(found, words, expected):
    links = found(words)
    rank = next((rank for rank, link in enumerate(links) if expected in link), None)
    assert rank is not None, links
    assert not any("/reference/" in link for link in links[:rank]), links


PASTED = {
    "LayerNorm": "guides/silent_failures.html",
    "weight_norm": "guides/which_recipe.html",
    "torch.norm": "guides/silent_failures.html",
    "NaN": "guides/silent_failures.html",
    "batch norm": "guides/troubleshooting/in_place.html",
    "BatchNorm1d": "guides/troubleshooting/in_place.html",
    "dropout": "guides/troubleshooting/vmap.html",
    "LSTM": "guides/howto/functions.html",
    "transformer": "guides/howto/functions.html",
    "MultiheadAttention": "guides/howto/functions.html",
    "per-sample gradients": "guides/howto/results.html",
    "per-example gradients": "guides/howto/results.html",
    "vmap grad": "guides/howto/results.html",
    "out of memory": "guides/howto/cost.html",
    "CUDA out of memory": "guides/howto/cost.html",
    "Trying to use forward AD": "guides/troubleshooting/missing.html",
    "element 0 of tensors does not require grad": "guides/troubleshooting/graphs.html",
    "expected 2D or 3D input (got 1D input)": "guides/troubleshooting/vmap.html",
    "does a hook change it": "guides/silent_failures.html",
    "jacobian 1000 inputs 3 outputs": "guides/which_recipe.html",
    "number of passes": "guides/which_recipe.html",
    "hessian batch 1 GB memory": "tutorials/batches/chunk_size.html",
    "memory limit hessian each row": "tutorials/batches/chunk_size.html",
    "chunk_size budget": "tutorials/batches/chunk_size.html",
    "batchnorm training mode jacobian per row": "guides/troubleshooting/in_place.html",
    "argnums": "reference/api.html",
    "newton step": "guides/howto/curvature.html",
    "prepare or torch.compile": "guides/which_recipe.html",
    "expected func to return a scalar": "reference/bad_input.html",
    "func fails at float64 copies of the primals": "reference/bad_input.html",
}


@pytest.mark.parametrize("words", PASTED)
def test_search_leads_with_the_answer_to_what_readers_paste(found, words):
    first = found(words)[:3]
    assert any(PASTED[words] in link for link in first), first


@pytest.mark.parametrize("words", ["per-sample gradients", "MultiheadAttention", "batch norm", "out of memory"])
def test_search_shows_the_words_of_an_entry_of_the_index(browser, address, words):
    page, errors = browser.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{address}/search.html?q={quote(words)}")
    page.wait_for_selector("#search-results li.kind-index p.context")
    entry = page.locator("#search-results li.kind-index").first
    shown = entry.locator("a").first.inner_text(), entry.locator("p.context").inner_text()
    everything = page.eval_on_selector_all("#search-results ul.search > li > a", "links => links.map(a => a.href)")
    page.close()
    assert errors == []
    assert " > " in shown[0]
    assert len(shown[1]) > 40
    assert len(set(everything)) == len(everything)


def test_search_finds_a_name_at_its_own_page(found):
    assert "reference/generated/funcdiff.hessian_taylor.html" in found("hessian_taylor")[0]


def error_texts():
    """Titles of the troubleshooting pages' sections that are texts of errors: set in code."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (SITE / "guides" / "troubleshooting").glob("*.html"))
    headings = re.findall(r"<h[23]>(<code.*?</code>)<a class=\"headerlink\"", pages, flags=re.DOTALL)
    return [unescape(re.sub(r"<[^>]+>", "", heading)) for heading in headings]


def test_search_finds_every_error_text(found):
    texts = error_texts()
    assert texts
    lost = [text for text in texts if not any("guides/troubleshooting/" in link for link in found(text))]
    assert lost == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_search_page_can_be_asked(browser, address, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(f"{address}/search.html")
    page.locator("article input[type=search]").fill("hessian vector product")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results ul.search > li")
    assert page.locator("article input[type=search]").input_value() == "hessian vector product"
    page.close()


UNITS = """() => {
  const found = [], units = /\\d (?:[kKMGT]?i?B|[kMGT]?FLOPs?|[mµn]?s)\\b/g;
  const texts = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
  for (let text; text = texts.nextNode();)
    for (const match of text.data.matchAll(units)) {
      const range = document.createRange();
      range.setStart(text, match.index);
      range.setEnd(text, match.index + match[0].length);
      if (!text.parentElement.closest("pre, code") && new Set([...range.getClientRects()].map(r => r.top)).size > 1)
        found.push(match[0]);
    }
  return found;
}"""


@pytest.mark.parametrize("name", ["reference/benchmarks", "reference/gpu", "explanation/scaling"])
def test_no_number_is_split_from_its_unit(browser, address, name):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(f"{address}/{name}.html")
    page.eval_on_selector_all("details", "all => all.forEach(details => details.open = true)")
    split = page.evaluate(UNITS)
    page.close()
    assert split == []


def test_titles_differ():
    titles = {}
    for path in PAGES:
        if path.stem != "sg_execution_times":  # one a folder, all of one title
            title = re.search(r"<title>(.*?)</title>", path.read_text(encoding="utf-8"), re.DOTALL)[1]
            titles.setdefault(title, []).append(path.name)
    assert [names for names in titles.values() if len(names) > 1] == []


def test_every_page_is_there_as_markdown_and_the_list_for_programs_leads_to_it():
    listed = re.findall(r"\]\(([^)]+)\)", (SITE / "llms.txt").read_text(encoding="utf-8"))
    assert len(listed) > 40
    paths = [link.removeprefix(os.environ.get("SITE_URL", "").rstrip("/")).lstrip("/") for link in listed]
    assert [path for path in paths if not (SITE / path).exists()] == []
    for path in PAGES:
        html = path.read_text(encoding="utf-8")
        alternate = re.search(r'<link rel="alternate" type="text/markdown" href="([^"]+)"', html)
        if alternate is None:  # what Sphinx makes of its own: search, index, 404
            assert path.stem in ("search", "genindex", "404", "py-modindex"), path
        else:
            text = (path.parent / alternate[1]).read_text(encoding="utf-8")
            assert text.startswith("# "), path
            assert len(text) > 80, path
