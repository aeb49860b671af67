"""A map of the winner of two methods over two sizes."""

from collections.abc import Collection, Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from funcdiff._tables import Table
from funcdiff.measure import Comparison, Ratio
from funcdiff.measure.ratios import CONFIDENCE, MEANING
from funcdiff.plots.behind import keep
from funcdiff.plots.style import STYLE, WIDTH, colour, set_title

INK = "#14142c"  # not grey: a dark page mirrors greys, and the cells stay light there


def plot_winners(
    grid: Mapping[tuple[int, int], Comparison],
    name: str,
    other: str,
    *,
    labels: tuple[str, str],
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw which of two methods is faster at each pair of sizes, and how many times.

    Args:
        grid: A dictionary from a pair of sizes, (horizontal, vertical), to the comparison there. Both axes have the
            same sizes.
        name: The first method.
        other: The second method.
        labels: What the horizontal and the vertical sizes are.
        title: The title. By default, it says in how many cells each method is faster.
        ax: The axes to draw on. By default, new ones.

    Returns:
        The axes. The colour of a cell is that of the faster method, and its number says how many times faster it is.
        "=" means that the run shows no difference. A line marks equal sizes.
    """
    sizes = sorted({size for pair in grid for size in pair})
    places = np.arange(len(sizes))
    ratios = {pair: comparison.ratio(other, name) for pair, comparison in grid.items()}
    shades = np.array([[1.0 if _undecided(ratios[x, y]) else ratios[x, y].median for x in sizes] for y in sizes])
    most = max(2.0, (1 / shades).max(), shades.max())
    hues = LinearSegmentedColormap.from_list("winner", [colour(other), "#f4f4f4", colour(name)])
    with plt.rc_context(STYLE):
        ax = ax or plt.subplots(figsize=(WIDTH, 4.6))[1]
        image = ax.imshow(shades, cmap=hues, norm=LogNorm(1 / most, most), origin="lower")
        for (x, y), ratio in ratios.items():
            factor = max(ratio.median, 1 / ratio.median)
            text = "=" if _undecided(ratio) else f"{factor:.{1 if factor < 10 else 0}f}"
            ax.text(sizes.index(x), sizes.index(y), text, ha="center", va="center", color=INK)
        ax.plot([-0.5, len(sizes) - 0.5], [-0.5, len(sizes) - 0.5], color=INK, linewidth=1, alpha=0.4)
        ax.set_xticks(places, map(str, sizes))
        ax.set_yticks(places, map(str, sizes))
        ax.set_xlabel(labels[0])
        ax.set_ylabel(labels[1])
        set_title(ax, title or _finding(ratios.values(), name, other))
        bar = ax.figure.colorbar(image, ax=ax, label=f"time of {other}\nover time of {name}")
        bar.ax.yaxis.set_major_locator(LogLocator(base=2))
        bar.ax.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}")
        )
        bar.ax.yaxis.set_minor_locator(NullLocator())
        bar.outline.set_visible(False)
    columns = (f"{labels[1]} \\ {labels[0]}", *map(str, sizes))
    rows = tuple((str(y), *(str(ratios[x, y]) for x in sizes)) for y in reversed(sizes))
    shown = f"Time of {other} over time of {name}: median, {CONFIDENCE:.0%} interval."
    keep(ax, Table(columns, rows, f"{shown} {MEANING}"))
    return ax


def _finding(ratios: Collection[Ratio], name: str, other: str) -> str:
    wins = sum(ratio.low > 1 for ratio in ratios)
    losses = sum(ratio.high < 1 for ratio in ratios)
    open_cells = len(ratios) - wins - losses
    doubt = f", {open_cells} undecided" if open_cells else ""
    return f"{name} is faster in {wins} of {len(ratios)} cells, {other} in {losses}{doubt}"


def _undecided(ratio: Ratio) -> bool:
    return ratio.low <= 1 <= ratio.high
