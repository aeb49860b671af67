"""Fail the build on a link or a picture that leads nowhere within the site, whatever wrote it."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.errors import ExtensionError

from _ext.pages.inventories import ADDRESSES


class _Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = {""}, set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.update(attrs[key] for key in ("id", "name") if attrs.get(key))
        self.links.update(attrs[key] for key in ("href", "src") if attrs.get(key) is not None)


def _dead(site, pages, page):
    for link in sorted(pages[page].links):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        path = unquote(parts.path)
        target = page if not path else site / path[1:] if path.startswith("/") else (page.parent / path).resolve()
        if target.is_dir():
            target /= "index.html"
        if not target.exists() or (target in pages and unquote(parts.fragment) not in pages[target].anchors):
            yield link


def check(app, exception):
    """Follow every internal link of every page; require that tutorials link to torch's documentation."""
    if exception or app.builder.name != "html":
        return
    site = Path(app.outdir).resolve()
    pages = {path: _Page(path) for path in sorted(site.rglob("*.html"))}
    faults = [
        f"{page.relative_to(site)}: dead link {link}"
        for page in pages
        for link in _dead(site, pages, page)
        if page.name != "404.html"  # its links start at the address the site is served from
    ]
    for page in (site / "tutorials").glob("*/*.html"):
        linked = any(link.startswith(ADDRESSES["torch"]) for link in pages[page].links)
        if page.name != "index.html" and page.stem != "sg_execution_times" and not linked:
            faults.append(f"{page.relative_to(site)}: no link to torch's documentation; is its inventory missing?")
    if faults:
        raise ExtensionError("\n".join(faults))


def setup(app):
    """Check when all is written."""
    app.connect("build-finished", check, priority=950)
