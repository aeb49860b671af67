"""Write `llms.txt`: what the site answers, for readers that are programs (https://llmstxt.org)."""

import ast
from importlib.metadata import metadata
from pathlib import Path

from _ext.gallery.cards import answer
from _ext.gallery.order import ORDER
from _ext.gallery.tutorials import GALLERY

_HEAD = """# {project}

> {summary}

Every number on the site is measured when it is built, and every result is checked before it is timed.
"""


def _entry(folder, name, address):
    source = GALLERY / folder / f"{name}.py"
    title = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))).split("\n")[0]
    plain = answer(source).replace(":func:", "").replace("``", "`")
    return f"- [{title}]({address}tutorials/{folder}/{name}.html): {plain}"


def write(app, exception):
    """List every tutorial with its answer."""
    if exception or app.builder.name != "html":
        return
    lines = [_HEAD.format(project=app.config.project, summary=metadata("funcdiff")["Summary"])]
    for folder, names in ORDER.items():
        present = [name for name in names if (GALLERY / folder / f"{name}.py").exists()]
        if present:
            lines += [
                f"## {folder.capitalize()}\n",
                *(_entry(folder, name, app.config.html_baseurl) for name in present),
                "",
            ]
    Path(app.outdir, "llms.txt").write_text("\n".join(lines), encoding="utf-8")


def setup(app):
    """Write it once the pages are there."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}
