"""What search engines and link previews say of a page: a tutorial's answer; a line for the pages that Sphinx makes."""

import re

from cards import answer
from tutorials import GALLERY

_HEAD = ":og:description: {text}\n\n.. meta::\n   :description: {text}\n\n"
_MADE = {
    "genindex": "Every name of funcdiff, in alphabetical order.",
    "search": "Search the guide to derivatives in PyTorch.",
    "404": "This page does not exist; the tutorials and the reference are linked beside it.",
}


def plain(text):
    """A sentence of reST without its marks."""
    for mark in (":func:", ":class:", ":math:", "`"):
        text = text.replace(mark, "")
    return re.sub(r"\*(\w+)\*", r"\1", text)


def _describe(app, docname, content):
    del app
    source = GALLERY / f"{docname.removeprefix('tutorials/')}.py"
    if docname.startswith("tutorials/") and source.exists():
        content[0] = _HEAD.format(text=plain(answer(source))) + content[0]


def _describe_made(app, pagename, templatename, context, doctree):
    del app, templatename, doctree
    if pagename in _MADE:
        described = f'<meta name="description" content="{_MADE[pagename]}" />\n'
        context["metatags"] = context.get("metatags", "") + described


def setup(app):
    """Rewrite the head of each tutorial as it is read, and of each made page as it is written."""
    app.connect("source-read", _describe)
    app.connect("html-page-context", _describe_made)
    return {"parallel_read_safe": True}
