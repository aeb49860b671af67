"""Numbers of several subjects as dots on one logarithmic axis."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from funcdiff._tables import Table
from funcdiff.plots.behind import keep
from funcdiff.plots.style import MARKS, PALETTE, STYLE, WIDTH, broken, set_title


def plot_dots(
    rows: Mapping[str, Mapping[str, float]],
    *,
    label: str,
    title: str,
    floor: float = 1e-16,
    ax: Axes | None = None,
) -> Axes:
    """Draw numbers as dots on a logarithmic axis, with one row for each subject.

    Args:
        rows: A dictionary from each subject to its numbers, a dictionary by name. All subjects have the same names.
        label: What the numbers are.
        title: What the figure shows.
        floor: The smallest number on the axis. Zero and smaller numbers are drawn there.
        ax: The axes to draw on. By default, new ones.

    Returns:
        The axes.
    """
    names = list(next(iter(rows.values())))
    with plt.rc_context(STYLE):
        ax = ax or plt.subplots(figsize=(WIDTH, 1.6 + 0.32 * len(rows)))[1]
        for name, hue, mark in zip(names, PALETTE, MARKS, strict=False):
            values = [max(numbers[name], floor) for numbers in rows.values()]
            ax.plot(values, range(len(rows)), mark, color=hue, label=name, fillstyle="none", markeredgewidth=1.8)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(numticks=5))  # more exponents would touch each other
        ax.set_yticks(range(len(rows)), map(broken, rows))
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.grid(True)
        ax.set_xlabel(label)
        set_title(ax, title)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, frameon=False, ncols=len(names))
    cells = tuple((subject, *(f"{values[name]:.1e}" for name in names)) for subject, values in rows.items())
    keep(ax, Table((label, *names), cells))
    return ax
