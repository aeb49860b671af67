"""The numbers behind a figure, as tables: what a plotting function drew, it leaves here."""

from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike

from funcdiff._tables import Table

MOST_ROWS = 24  # of a long curve so many points are listed, evenly spread

_tables: WeakKeyDictionary[Figure | SubFigure, list[Table]] = WeakKeyDictionary()


def numbers(figure: Figure) -> tuple[Table, ...]:
    """Return the numbers that a figure shows, as a list of tables.

    Example:
        >>> from funcdiff.plots import numbers, plot_dots
        >>> axes = plot_dots({"sine": {"error": 1e-16}}, label="error", title="Exact to rounding")
        >>> numbers(axes.figure)[0]
        error    error
        -----  -------
        sine   1.0e-16

    Args:
        figure: A figure that a function of ``funcdiff.plots`` has drawn.

    Returns:
        One table for each drawing, in order. For a function over many points, the table summarizes each panel.
    """
    return tuple(_tables.get(figure, ()))


def keep(drawn: Axes | Figure, table: Table) -> None:
    """Leave the numbers that were drawn beside their figure."""
    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    assert figure is not None  # it was drawn on
    _tables.setdefault(figure, []).append(table)


def table_of_curves(x_name: str, curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Table:
    """List curves at their points: a column each, a row for each x; of each long one, some rows."""
    columns = {name: dict(zip(_list(x), _list(y), strict=True)) for name, (x, y) in curves.items()}
    points = {x for column in columns.values() for x in column}
    listed = sorted({list(column)[i] for column in columns.values() for i in spread(len(column))})
    rows = tuple((f"{x:.4g}", *(_cell(column.get(x)) for column in columns.values())) for x in listed)
    return Table((x_name, *columns), rows, caption(len(listed), len(points), "points"))


def caption(listed: int, total: int, noun: str) -> str:
    """Say how many are listed, where that is not all."""
    return f"{listed} of {total} {noun}" if listed < total else ""


def spread(n: int) -> list[int]:
    """Of n indices so many as a table lists, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, n - 1, min(n, MOST_ROWS))})


def table_of_panels(values: np.ndarray, reference: np.ndarray | None, panels: Sequence[str]) -> Table:
    """Sum up each panel of a field, whose last axes count the panels."""
    columns: tuple[str, ...] = ("panel", "least", "greatest", "RMS")
    fields = values.reshape(-1, len(panels)).T
    facts: list[tuple[float, ...]] = [(field.min(), field.max(), _rms(field)) for field in fields]
    if reference is not None:
        columns += ("RMS distance from the reference",)
        gaps = (values - reference).reshape(-1, len(panels)).T
        facts = [(*fact, _rms(gap)) for fact, gap in zip(facts, gaps, strict=True)]
    rows = ((name, *(f"{number:.3g}" for number in fact)) for name, fact in zip(panels, facts, strict=True))
    return Table(columns, tuple(rows))


def _list(values: ArrayLike) -> list[float]:
    return [float(value) for value in np.asarray(values)]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))
