"""The `derivative-atlas` directive: the findings kept in JSON as a summary, reproductions and a table to search."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import torch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from _ext.shown.atlas_tables import avoid_table
from _ext.shown.grid import base, by_verdict, grid
from _tools.atlas.blame import known_wrong
from _tools.atlas.data import Atlas, mode_names, read, wrong

AVOID = (
    "Each row is an operator on which some recipe is silently wrong. The number after a recipe is its largest error, "
    "relative to the largest entry of the derivative. Use a recipe that is listed as right instead."
)


REPRODUCTIONS = (
    "Each script below runs with torch alone and shows a wrong derivative. The tests run all of them, and fail as soon "
    "as torch computes one of them rightly."
)


def load(path: Path) -> Atlas:
    """The atlas at `path`; one made by another torch fails the build."""
    atlas = read(path)
    if torch.__version__.partition("+")[0] != atlas["torch"].partition("+")[0]:
        message = (
            f"{path.name} was made by torch {atlas['torch']}, the site is built with {torch.__version__}: "
            "run `nox -s atlas` to make it anew"
        )
        raise ExtensionError(message)
    return atlas


class DerivativeAtlas(SphinxDirective):
    """`.. derivative-atlas:: atlas.json`, the path relative to the page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The page's nodes; the large table is HTML only."""
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        atlas = load(Path(path))
        self.env.metadata[self.env.docname]["derivative-atlas"] = True
        return [
            *self.parse_text_to_nodes(summary(atlas)),
            nodes.raw("", grid(atlas, by_verdict), format="html"),
            nodes.rubric(text="What to avoid"),
            nodes.paragraph("", AVOID),
            nodes.raw("", avoid_table(atlas, known_wrong(atlas)["modes"]), format="html"),
            nodes.rubric(text="Reproductions"),
            nodes.paragraph("", REPRODUCTIONS),
            *reproductions(atlas),
        ]


def summary(atlas: Atlas) -> str:
    """A paragraph: what was looked at, by which torch, and how often each mode was wrong."""
    judged = [entry for entry in atlas["entries"] if entry.get("modes")]
    operators = sum(entry["kind"] == "operator" for entry in judged)
    recipes = [mode for mode in mode_names(atlas) if mode == base(mode)]
    never = [mode for mode in recipes if not any(mode in wrong(entry) for entry in judged)]
    bad = sum(bool(wrong(entry)) for entry in judged)
    verdict = f"Never wrong: {', '.join(f'``{mode}``' for mode in never)}." if never else "No recipe is always right."
    return (
        f"The atlas judges {len(recipes)} recipes on {operators} operators and {len(judged) - operators} layers of "
        f"torch {atlas['torch']}. At least one recipe is wrong on {bad} of them. {verdict} Another "
        f"{len(atlas['entries']) - len(judged)} operations are not judged: the grid gives the reason."
    )


def reproductions(atlas: Atlas) -> Iterator[nodes.Node]:
    """Each script with what it prints."""
    for repro in atlas["reproductions"]:
        title = escape(f"{repro['operation']} ({repro['operator']}): {', '.join(repro['modes'])}")
        yield nodes.raw("", f"<details class='atlas-reproduction'><summary>{title}</summary>", format="html")
        yield nodes.literal_block(repro["script"], repro["script"], language="python")
        yield nodes.paragraph("", f"Expected {repro['expected']}, got {repro['obtained']}.")
        yield nodes.raw("", "</details>", format="html")


def _load_script(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if app.env.metadata.get(page, {}).get("derivative-atlas"):
        app.add_js_file("atlas.js", loading_method="defer")
        app.add_css_file("atlas.css")


def _add_static(app: Sphinx) -> None:
    app.config.html_static_path.append(str(Path(__file__).parent / "atlas_static"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive, and its script and style on its page alone."""
    app.add_directive("derivative-atlas", DerivativeAtlas)
    app.connect("builder-inited", _add_static)
    app.connect("html-page-context", _load_script)
    return {"parallel_read_safe": True}
