"""Write `llms.txt`: the pages of the site, for readers that are programs (https://llmstxt.org)."""

import ast
from importlib.metadata import metadata
from pathlib import Path

from _ext.gallery.cards import answer
from _ext.gallery.descriptions import plain
from _ext.gallery.order import ORDER
from _ext.gallery.tutorials import GALLERY

_HEAD = """# {project}

> {summary}

This site is a guide and the documentation of the Python package funcdiff. Each tutorial asks one question, answers it,
and ran when the site was built. The times in it were measured by that run. Each address below is the text of a page as
Markdown; without its ending `.md` it is the page itself.
"""
_PARTS = ("start", "guides", "explanation", "reference", "about")


def _tutorials(address):
    """Every tutorial that is there, with its answer."""
    for folder, names in ORDER.items():
        for name in names:
            source = GALLERY / folder / f"{name}.py"
            if source.exists():
                title = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))).split("\n")[0]
                yield f"- [{title}]({address}tutorials/{folder}/{name}.html.md): {plain(answer(source))}"


def _pages(app, part):
    """Every other page of a part of the site, but those of single names, which the reference lists."""
    for name in sorted(app.env.found_docs):
        if name.startswith(f"{part}/") and "generated/" not in name:
            yield f"- [{app.env.titles[name].astext()}]({app.config.html_baseurl}{name}.html.md)"


def write(app, exception):
    """List every page, the tutorials with their answers."""
    if exception or app.builder.name != "html":
        return
    lines = [_HEAD.format(project=app.config.project, summary=metadata("funcdiff")["Summary"])]
    sections = {"Tutorials": _tutorials(app.config.html_baseurl)}
    sections |= {part.capitalize(): _pages(app, part) for part in _PARTS}
    for title, entries in sections.items():
        if listed := list(entries):
            lines += [f"## {title}\n", *listed, ""]
    Path(app.outdir, "llms.txt").write_text("\n".join(lines), encoding="utf-8")


def setup(app):
    """Write it once the pages are there."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}
