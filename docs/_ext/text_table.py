"""A table of plain text, for directives that compute what they show."""

from __future__ import annotations

from collections.abc import Sequence

from docutils import nodes


def text_table(header: Sequence[str], body: Sequence[Sequence[str]], widths: Sequence[int], name: str) -> nodes.table:
    """The table, with the CSS class `name`, a header row, and columns of the given relative widths."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
    group += nodes.thead("", _row(header))
    group += nodes.tbody("", *(_row(cells) for cells in body))
    return nodes.table("", group, classes=[name])


def _row(cells: Sequence[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", cell)) for cell in cells))
