"""The `derivative-atlas` directive: the findings kept in JSON as a summary, reproductions and a table to search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from _ext.shown.atlas_tables import avoid_table, base, full_table
from _tools.atlas.blame import known_wrong
from _tools.atlas.data import Atlas, mode_names, read, wrong


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
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """The page's nodes; the large table is HTML only."""
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        atlas = load(Path(path))
        self.env.metadata[self.env.docname]["derivative-atlas"] = True
        return [
            *self.parse_text_to_nodes(summary(atlas)),
            nodes.rubric(text="What to avoid"),
            nodes.raw("", avoid_table(atlas, known_wrong(atlas)["modes"]), format="html"),
            nodes.rubric(text="Every operation"),
            nodes.raw("", full_table(atlas), format="html"),
            nodes.rubric(text="Reproductions"),
            *reproductions(atlas),
        ]


def summary(atlas: Atlas) -> str:
    """A paragraph: what was looked at, by which torch, and how often each mode was wrong."""
    judged = [entry for entry in atlas["entries"] if entry.get("modes")]
    operators = sum(entry["kind"] == "operator" for entry in judged)
    recipes = [mode for mode in mode_names(atlas) if mode == base(mode)]
    never = [mode for mode in recipes if not any(mode in wrong(entry) for entry in judged)]
    bad = sum(bool(wrong(entry)) for entry in judged)
    verdict = f"Never wrong: {', '.join(f'``{mode}``' for mode in never)}." if never else "No recipe is right on all."
    return (
        f"On torch {atlas['torch']}: {operators} operators and {len(judged) - operators} layers judged, by "
        f"{len(recipes)} recipes; {len(atlas['entries']) - len(judged)} more have no real derivative to judge. "
        f"Some recipe is wrong on {bad}. {verdict}"
    )


def reproductions(atlas: Atlas) -> Iterator[nodes.Node]:
    """Each script with what it prints."""
    for repro in atlas["reproductions"]:
        yield nodes.paragraph("", f"{repro['operation']} ({repro['operator']}): {', '.join(repro['modes'])}")
        yield nodes.literal_block(repro["script"], repro["script"], language="python")
        yield nodes.paragraph("", f"Expected {repro['expected']}, obtained {repro['obtained']}.")


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
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
