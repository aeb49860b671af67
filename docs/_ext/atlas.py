"""The `derivative-atlas` directive: the findings kept in JSON as a summary, reproductions and a table to search."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import torch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

Entry = dict[str, Any]


def load(path: Path) -> dict[str, Any]:
    """The atlas at `path`, a verdict written as one word spelt out; one made by another torch fails the build."""
    atlas: dict[str, Any] = json.loads(path.read_text())
    if torch.__version__.partition("+")[0] != atlas["torch"].partition("+")[0]:
        message = (
            f"{path.name} was made by torch {atlas['torch']}, the site is built with {torch.__version__}: "
            "run `nox -s atlas` to make it anew"
        )
        raise ExtensionError(message)
    for entry in atlas["entries"]:
        found = entry.get("modes", {}).items()
        entry["modes"] = {mode: {"outcome": v} if isinstance(v, str) else v for mode, v in found}
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
            nodes.raw("", avoid_table(atlas), format="html"),
            nodes.rubric(text="Every operation"),
            nodes.raw("", full_table(atlas), format="html"),
            nodes.rubric(text="Reproductions"),
            *reproductions(atlas),
        ]


def wrong(entry: Entry) -> dict[str, float]:
    """The modes that are wrong on `entry`, each with its error."""
    return {mode: found["error"] for mode, found in entry["modes"].items() if found["outcome"] == "wrong"}


def summary(atlas: dict[str, Any]) -> str:
    """A paragraph: what was looked at, by which torch, and how often each mode was wrong."""
    judged = [entry for entry in atlas["entries"] if entry["modes"]]
    operators = sum(entry["kind"] == "operator" for entry in judged)
    never = [mode for mode in atlas["modes"] if mode == base(mode) and not any(mode in wrong(e) for e in judged)]
    bad = sum(bool(wrong(entry)) for entry in judged)
    return (
        f"On torch {atlas['torch']}: {operators} operators and {len(judged) - operators} layers judged, "
        f"{len(atlas['entries']) - len(judged)} more have no real derivative to judge. Some mode is wrong on {bad}. "
        f"Never wrong: {', '.join(f'``{mode}``' for mode in never) or 'no mode'}."
    )


def avoid_table(atlas: dict[str, Any]) -> str:
    """Operation, wrong modes with their errors, and what to use in place of each kind that has a wrong one."""
    rows = []
    for entry in atlas["entries"]:
        if off := wrong(entry):
            errors = ", ".join(f"{mode} ({error:.2g})" for mode, error in off.items())
            kinds = dict.fromkeys(mode.partition("_")[0] for mode in off)
            rows.append([entry["name"], errors, ", ".join(_instead(entry, kind) for kind in kinds)])
    return _table("derivative-atlas-avoid", ["operation", "wrong (relative error)", "right"], rows)


def _instead(entry: Entry, kind: str) -> str:
    found = entry["modes"].items()
    right = [mode for mode, verdict in found if mode.startswith(kind) and verdict["outcome"] == "right"]
    return next((mode for mode in right if "vmap" not in mode), f"no {kind}")


def full_table(atlas: dict[str, Any]) -> str:
    """Operation by recipe, chunked and batched only where they differ.

    A refusal links to its text below, so that the keyboard and a page without script reach it.
    """
    columns = [mode for mode in atlas["modes"] if mode == base(mode)]
    rows = []
    for entry in atlas["entries"]:
        modes = entry["modes"]
        cells = [_cell(modes, column) if modes else "" for column in columns]
        if not modes:
            cells[0] = f"not judged: {escape(entry['reason'])}"
        rows.append([escape(entry["name"]), entry["kind"], *cells])
    notes = "".join(f"<li id='atlas-note-{i}'>{escape(text)}</li>" for i, text in enumerate(atlas["texts"]))
    table = _table("derivative-atlas", ["operation", "kind", *columns], rows, escaped=True)
    return f"{table}<details open><summary>Texts of the refusals and reasons</summary><ol>{notes}</ol></details>"


def reproductions(atlas: dict[str, Any]) -> Iterator[nodes.Node]:
    """Each script with what it prints."""
    for repro in atlas["reproductions"]:
        yield nodes.paragraph("", f"{repro['operation']}: {', '.join(repro['modes'])}")
        yield nodes.literal_block(repro["script"], repro["script"], language="python")
        yield nodes.paragraph("", f"Expected {repro['expected']}, obtained {repro['obtained']}.")


def base(mode: str) -> str:
    """The recipe alone: "jacobian_reverse" of "jacobian_reverse, vmap"."""
    return mode.partition(",")[0]


def _cell(modes: dict[str, dict[str, Any]], column: str) -> str:
    others = [
        f"{mode.partition(', ')[2]}: {_verdict(found)}"
        for mode, found in modes.items()
        if base(mode) == column != mode and found["outcome"] != modes[column]["outcome"]
    ]
    return "<br>".join([_verdict(modes[column]), *others])


def _verdict(found: dict[str, Any]) -> str:
    outcome = found["outcome"]
    word = f"wrong {found['error']:.1g}" if outcome == "wrong" else outcome
    if "counts" in found:
        word += f" ({found['counts'][outcome]} of {sum(found['counts'].values())})"
    if outcome in ("refuses", "undecided"):
        word = f"<a href='#atlas-note-{found['text']}'>{word}</a>"
    return f"<span class='atlas-{outcome}'>{word}</span>"


def _table(name: str, headers: list[str], rows: list[list[str]], escaped: bool = False) -> str:
    head = "".join(f"<th scope='col'>{escape(header).replace('_', '_<wbr>')}</th>" for header in headers)
    body = []
    for first, *rest in rows:
        cells = "".join(f"<td>{cell if escaped else escape(cell)}</td>" for cell in rest)
        body.append(f"<tr><th scope='row'>{first if escaped else escape(first)}</th>{cells}</tr>")
    return (
        f"<div class='{name} table-wrapper' tabindex='0' role='region' aria-label='{name}'>"
        f"<table class='docutils'><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


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
