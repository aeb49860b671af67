"""What search engines say of a page: a tutorial's answer, a docstring's first line, a line for what Sphinx makes."""

import re
from html import escape

from docutils import nodes

from _ext.gallery.cards import answer
from _ext.gallery.tutorials import GALLERY

_HEAD = ":og:description: {text}\n\n.. meta::\n   :description: {text}\n\n"
_MADE = {
    "genindex": "Every name of funcdiff, in alphabetical order.",
    "search": "Search the guide to derivatives in PyTorch.",
    "404": "This page does not exist; the tutorials and the reference are linked beside it.",
}


def plain(text):
    """A sentence of reST without its marks."""
    text = re.sub(r":[\w:]+:`~?([^`<]+?)(?:\s*<[^`]*>)?`", r"\1", text)
    return re.sub(r"\*(\w+)\*", r"\1", text.replace("`", ""))


def _describe(app, docname, content):
    del app
    source = GALLERY / f"{docname.removeprefix('tutorials/')}.py"
    if docname.startswith("tutorials/") and source.exists():
        content[0] = _HEAD.format(text=plain(answer(source))) + content[0]


def _describe_made(app, pagename, templatename, context, doctree):
    del templatename
    told = context.get("metatags", "")
    if not app.config.html_baseurl:  # then a page has no address of its own to say
        told = context["metatags"] = re.sub(r'<meta property="og:url"[^>]*>\s*', "", told)
    if 'name="description"' in told:
        return
    text = _MADE.get(pagename, "")
    if doctree is not None:  # of a name in the reference, what its docstring begins with
        text = next((node.astext() for node in doctree.findall(nodes.paragraph)), text)
    if text:
        content = escape(" ".join(text.split()), quote=True)
        context["metatags"] = f'{told}<meta name="description" content="{content}" />\n'


def setup(app):
    """Rewrite the head of each tutorial as it is read, and of other pages without a description as they are written."""
    app.connect("source-read", _describe)
    app.connect("html-page-context", _describe_made, priority=900)  # after sphinxext-opengraph
    return {"parallel_read_safe": True}
