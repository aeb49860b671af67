"""A table for directives that compute what they show."""

from __future__ import annotations

from collections.abc import Sequence

from docutils import nodes

Cell = str | nodes.Node


def table(
    header: Sequence[str], body: Sequence[Sequence[Cell]], widths: Sequence[int] = (), name: str = ""
) -> nodes.table:
    """The table, with the CSS class `name`, a header row, and columns of the given relative widths, else all equal."""
    widths = widths or [1] * len(header)
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
    group += nodes.thead("", _row(header))
    group += nodes.tbody("", *(_row(cells) for cells in body))
    return nodes.table("", group, classes=[name] if name else [])


def _row(cells: Sequence[Cell]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", _node(cell))) for cell in cells))


def _node(cell: Cell) -> nodes.Node:
    return nodes.Text(cell) if isinstance(cell, str) else cell
