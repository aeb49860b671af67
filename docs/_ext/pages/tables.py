"""A table for directives that compute what they show."""

from __future__ import annotations

import re
from collections.abc import Sequence

from docutils import nodes

Cell = str | nodes.Node
# A number with its unit, and what stands after it in brackets.
_NUMBER = re.compile(r"[≤≥]?\s?[\d.,]+(e[-+]?\d+)?\s?[^\s\d]{0,6}(\s\(.*\))?")


def table(
    header: Sequence[str], body: Sequence[Sequence[Cell]], widths: Sequence[int] = (), name: str = ""
) -> nodes.table:
    """The table, with the CSS class `name`, a header row, and columns of the given relative widths, else all equal.

    A row of one cell is a heading of those below it. A column of numbers has the class `number`.
    """
    widths = widths or [1] * len(header)
    rows = [cells for cells in body if len(cells) == len(header)]
    numbers = [all(_is_number(row[i]) for row in rows) and any(row[i] for row in rows) for i in range(len(header))]
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
    group += nodes.thead("", _row(header, numbers))
    group += nodes.tbody("", *(_row(cells, numbers) for cells in body))
    return nodes.table("", group, classes=[name] if name else [])


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, str) and (not cell or _NUMBER.fullmatch(cell) is not None)


def _row(cells: Sequence[Cell], numbers: Sequence[bool]) -> nodes.row:
    entries = [nodes.entry("", nodes.paragraph("", "", _node(cell))) for cell in cells]
    if len(cells) < len(numbers):
        entries[-1]["morecols"] = len(numbers) - len(cells)
        return nodes.row("", *entries)
    for entry, number in zip(entries, numbers, strict=True):
        if number:
            entry["classes"].append("number")
    return nodes.row("", *entries)


def _node(cell: Cell) -> nodes.Node:
    return nodes.Text(cell) if isinstance(cell, str) else cell
