"""Every page, opened from its file with the network off: wide and light, narrow and dark."""

from itertools import pairwise

import pytest
from conftest import PAGES, SITE

WIDTHS = {"desktop": 1280, "phone": 390}
LEAST = 10.5  # pixels of a letter's font
# Texts in smaller letters, as drawn: a picture shrinks with the page.
SMALL = f"""[...document.querySelectorAll("article :is(p, li, td, th, code, pre, tspan, text, dt, dd)")]
  .filter(e => e.offsetParent !== null || e instanceof SVGElement)
  .map(e => [e, parseFloat(getComputedStyle(e).fontSize) * (e.getScreenCTM ? e.getScreenCTM().a : 1)])
  .filter(([e, size]) => e.textContent.trim() && size < {LEAST})
  .map(([e, size]) => `${{size.toFixed(1)}} px: ${{e.textContent}}`)"""

LEVELS = "headings => headings.filter(h => h.offsetParent !== null).map(h => Number(h.tagName[1]))"


@pytest.fixture(scope="module", params=[("desktop", "light"), ("phone", "dark")], ids="-".join)
def context(request, browser):
    width, scheme = request.param
    context = browser.new_context(viewport={"width": WIDTHS[width], "height": 900}, color_scheme=scheme, offline=True)
    yield context
    context.close()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(SITE).as_posix())
def test_page_opens_offline_and_complete(context, path):
    page = context.new_page()
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    # Lazy pictures load when they come into view; ask for all of them now.
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    page.wait_for_function("[...document.images].every(image => image.complete || image.offsetParent === null)")
    if path.name != "404.html":  # its addresses start at the root of a server
        assert errors == []
        assert [url for url in requests if not url.startswith((SITE.as_uri(), "data:"))] == []
        shown = "image => image.offsetParent !== null && !(image.complete && image.naturalWidth > 0)"
        assert page.evaluate(f"[...document.images].filter({shown}).map(image => image.src)") == []
    # On a phone Furo hides what leaves the page and lets the content scroll.
    overflow = page.evaluate(
        "Math.max(...['html', '.content'].map(s => document.querySelector(s)).map(e => e.scrollWidth - e.clientWidth))"
    )
    assert overflow <= 0, f"the page scrolls sideways by {overflow} px"
    cut = "pre => pre.scrollWidth > pre.clientWidth"
    messages = ":is(.error-text, .sphx-glr-script-out.long-lines) pre"
    assert page.evaluate(f"[...document.querySelectorAll('{messages}')].filter({cut}).length") == 0, "a message is cut"
    assert page.evaluate(SMALL) == []
    # A letter without an ascender is half as high as its font.
    shown = "math => math.getBoundingClientRect().height < 0.4 * parseFloat(getComputedStyle(math).fontSize)"
    unset = page.evaluate(f"[...document.querySelectorAll('math')].filter({shown}).length")
    assert unset == 0, "mathematics is not drawn"
    cut = "math => !math.closest('div.math, table') && math.getBoundingClientRect().right > innerWidth"
    assert page.evaluate(f"[...document.querySelectorAll('article math')].filter({cut}).length") == 0
    levels = page.eval_on_selector_all("article :is(h1, h2, h3, h4, h5, h6)", LEVELS)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    (described,) = page.eval_on_selector_all("meta[name=description]", "metas => metas.map(meta => meta.content)")
    assert described
    page.close()
