"""Give each tutorial its short title in the sidebar; its page keeps the question that is its title."""

import re

from sphinx.errors import ExtensionError

from _ext.gallery.order import ORDER

_ENTRY = re.compile(r"^   /tutorials/(\w+)/(\w+)$", re.MULTILINE)


def shorten(app, docname, content):
    """Write the short titles into the table of contents of a folder of the gallery."""
    del app
    if not re.fullmatch(r"tutorials/\w+/index", docname):
        return
    content[0], entries = _ENTRY.subn(lambda m: f"   {ORDER[m[1]][m[2]]} <{m[0].strip()}>", content[0])
    if not entries:
        raise ExtensionError(f"{docname}: expected a table of contents of tutorials, found none")


def setup(app):
    """Rewrite the index of each folder as it is read."""
    app.connect("source-read", shorten)
    return {"parallel_read_safe": True}
