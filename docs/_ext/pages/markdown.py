"""Write each page as Markdown beside it, `page.html.md`, for readers that are programs (https://llmstxt.org)."""

import re
from pathlib import Path

from bs4 import BeautifulSoup
from markdownify import MarkdownConverter

# What a page has for browsers alone: controls, links of headings, figures for dark pages, bars.
_LEFT_OUT = (
    "script, style, noscript, form, button, a.headerlink, .only-dark, .downloads, .sphx-glr-footer, .finder, .measure"
)


class _Converter(MarkdownConverter):
    """Mathematics is written as TeX, which is its alternative text on the page."""

    def convert_math(self, element, text, parent_tags):
        return f"${element['alttext']}$"


def _language(pre):
    block = pre.find_parent(class_=re.compile(r"^highlight-"))
    names = (name for name in (block["class"] if block else []) if name.startswith("highlight-"))
    language = next(names, "").removeprefix("highlight-").lower()
    return "" if language in ("default", "none", "text") else language


def page_as_markdown(html):
    """The article of a page, as Markdown."""
    article = BeautifulSoup(html, "html.parser").find("article")
    for part in article.select(_LEFT_OUT):
        part.decompose()
    for link in article.select("a[title]"):
        del link["title"]
    converter = _Converter(heading_style="ATX", bullets="-", escape_underscores=False, code_language_callback=_language)
    return re.sub(r"\n\s*\n", "\n\n", converter.convert_soup(article)).strip() + "\n"


def _write(app, exception):
    if exception or app.builder.name != "html":
        return
    for name in sorted(app.env.found_docs):
        page = Path(app.builder.get_outfilename(name))
        text = page_as_markdown(page.read_text(encoding="utf-8"))
        page.with_name(f"{page.name}.md").write_text(text, encoding="utf-8")


def _link(app, pagename, templatename, context, doctree):
    del app, templatename
    if doctree is not None:
        name = f"{pagename.rpartition('/')[2]}.html.md"
        link = f'<link rel="alternate" type="text/markdown" href="{name}" />\n'
        context["metatags"] = context.get("metatags", "") + link


def setup(app):
    """Write them once the pages are there, and say in each page's head where its own is."""
    app.connect("html-page-context", _link, priority=910)  # after the descriptions
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True}
