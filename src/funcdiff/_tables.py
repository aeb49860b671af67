"""Tables that read well in a terminal, in a notebook and on a page, and the numbers in them."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import fill, wrap
from typing import Any, ClassVar, Protocol


def significant(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits, never in scientific notation.

    >>> significant(1234.5), significant(0.012345), significant(2.0)
    ('1230', '0.0123', '2.00')
    """
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = int(f"{rounded:e}".split("e")[1]) if rounded else 0
    return f"{rounded:.{max(digits - 1 - exponent, 0)}f}"


def multiple(value: float) -> str:
    """Write a ratio with three significant digits, and plainly below a million.

    >>> multiple(1464.1), multiple(2.0), multiple(0.5714)
    ('1460', '2', '0.571')
    """
    return f"{float(f'{value:.3g}'):g}"


def scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    """Write a quantity in the largest of the units, given largest first, that it reaches."""
    size, unit = next(((size, unit) for size, unit in units if abs(value) >= size), units[-1])
    if abs(value) < size / 1000:  # what rounding leaves of a difference
        return f"0 {unit}"
    number = str(value) if isinstance(value, int) and size == 1 else significant(value / size)
    return f"{number} {unit}"


def seconds(value: float) -> str:
    """Write a time in its natural unit.

    >>> seconds(0.0197), seconds(3.5e-6)
    ('19.7 ms', '3.50 µs')
    """
    return scaled(value, [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")])


def amount_of_bytes(value: int) -> str:
    """Write a memory size in binary units.

    >>> amount_of_bytes(1_048_576), amount_of_bytes(512)
    ('1.00 MiB', '512 B')
    """
    return scaled(value, [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")])


def amount_of_flops(value: int) -> str:
    """Write a count of floating-point operations in decimal units.

    >>> amount_of_flops(206_000_000), amount_of_flops(96)
    ('206 MFLOP', '96 FLOP')
    """
    return scaled(value, [(10**12, "TFLOP"), (10**9, "GFLOP"), (10**6, "MFLOP"), (10**3, "kFLOP"), (1, "FLOP")])


def number_of(count: int, noun: str) -> str:
    """Write a count with its noun.

    >>> number_of(1, "output"), number_of(16, "input")
    ('1 output', '16 inputs')
    """
    return f"{count} {noun}{'s' * (count != 1)}"


_QUANTITY = re.compile(r"[≥* 0-9.]*\d (?P<unit>[kKMGT]?(?:s|B|iB|FLOP)|[mµn]s)")


_RIGHT = ' style="text-align: right"'
_LEFT = ' class="remark" style="text-align: left"'
_REMARK = 30  # letters
_WIDTH = 100  # letters of code in a line of a page
_SENTENCE = 90  # where pages fold what is printed and is no table


@dataclass(frozen=True, repr=False)
class Table:
    """Rows under named columns, with a caption; the first column names the row."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def __repr__(self) -> str:
        """Lay the table out in plain text, its remarks and the caption in lines that fit a page."""
        rows = [line for row in self.rows for line in self._lines(row)]
        widths = [max(map(len, column)) for column in zip(self.columns, *rows, strict=True)]

        def line(cells: Sequence[str]) -> str:
            first, *others = (
                cell.ljust(width) if i in left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            return "  ".join([first, *others]).rstrip()

        left = {0} | ({len(widths) - 1} if any(map(self._remark, self.rows)) else set())
        rule = "  ".join("-" * width for width in widths)
        caption = fill(self.caption, _SENTENCE, break_on_hyphens=False)
        return "\n".join([line(self.columns), rule, *map(line, rows), *([caption] if caption else [])])

    def _lines(self, row: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The row, and below it what its remark has too many words for."""
        if not self._remark(row):
            return [row]
        others = [max(map(len, column)) for column in list(zip(self.columns, *self.rows, strict=True))[:-1]]
        first, *more = _lines_of(row[-1], max(_REMARK // 2, _WIDTH - sum(others) - 2 * len(others)))
        return [(*row[:-1], first), *((*[""] * len(others), text) for text in more)]

    @staticmethod
    def _remark(row: tuple[str, ...]) -> bool:
        return len(row) > 1 and len(row[-1]) > _REMARK

    def _repr_html_(self) -> str:
        """Lay the table out in HTML, its headers scoped for screen readers."""
        head = "".join(
            f'<th scope="col"{_RIGHT if i else ""}>{escape(name)}</th>' for i, name in enumerate(self.columns)
        )
        units = [max(map(len, map(_unit_of, column)), default=0) for column in list(zip(*self.rows, strict=True))[1:]]
        body = "\n".join(
            f'<tr><th scope="row">{escape(row[0])}</th>'
            + "".join(_cell(cell, widest) for cell, widest in zip(row[1:], units, strict=True))
            + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{escape(self.caption)}</caption>\n" if self.caption else ""
        head = f"<thead><tr>{head}</tr></thead>\n<tbody>"
        return f'<table class="funcdiff-table">\n{caption}{head}\n{body}\n</tbody>\n</table>'


def _lines_of(remark: str, width: int) -> list[str]:
    """Lines of so many letters; a word that is longer is broken after its dots and underscores only."""

    def apart(word: re.Match[str]) -> str:
        parts: list[str] = [""]
        for part in re.findall(r"[^._]*[._]*", word[0]):
            if parts[-1] and len(parts[-1] + part) > width:
                parts.append("")
            parts[-1] += part
        return " ".join(parts)

    broken = re.sub(rf"\S{{{width + 1},}}", apart, remark)
    return wrap(broken, width, break_long_words=False, break_on_hyphens=False)


def _cell(cell: str, widest: int) -> str:
    """A cell in HTML: a number on the right, and a remark, which may be long, on the left."""
    remark = len(cell) > _REMARK
    return f"<td{_LEFT if remark else _RIGHT}>{_aligned(cell, widest)}</td>"


def _unit_of(cell: str) -> str:
    found = _QUANTITY.fullmatch(cell)
    return found["unit"] if found else ""


def _aligned(cell: str, width: int) -> str:
    """A cell in HTML, its unit as wide as the widest in its column, so that the numbers end below each other."""
    if not (unit := _unit_of(cell)):
        return escape(cell)
    unit_style = f"display: inline-block; min-width: {width}ch; margin-left: 0.4ch; text-align: left"
    return f'{escape(cell.removesuffix(unit).rstrip())}<span style="{unit_style}">{escape(unit)}</span>'


class Shown(ABC):
    """Something that shows itself as its table: as text in a terminal, as HTML in a notebook and on a page."""

    @abstractmethod
    def table(self) -> Table:
        """Return the table that is shown."""

    def __repr__(self) -> str:
        """Return the table as text."""
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


class Record(Protocol):
    """A measurement that a page keeps: its kind, and itself in plain JSON values."""

    kind: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement in plain JSON values."""
