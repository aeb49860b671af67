"""Figures of two costs at once: what time buys in memory."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from funcdiff._tables import amount_of_bytes
from funcdiff.measure import Comparison
from funcdiff.plots.behind import keep
from funcdiff.plots.labels import label_points
from funcdiff.plots.style import BLUE, STYLE, colours, mark, set_title, time_axis


def plot_trade(
    comparison: Comparison, ax: Axes | None = None, *, path: Sequence[str] = (), title: str | None = None
) -> Axes:
    """Draw the median time of each candidate against its peak of memory, on logarithmic axes.

    Args:
        comparison: What `funcdiff.measure.compare` returned, with ``costs=True``.
        ax: The axes to draw on. By default, new ones.
        path: The names of candidates that differ in one setting only. They are connected in this order, in one colour.
        title: The title. By default, it says which candidate is fastest and which has the lowest peak.

    Returns:
        The axes.

    Raises:
        ValueError: The comparison has no counts.
    """
    if comparison.costs is None:
        raise ValueError("expected a comparison with counts. Make it with compare(..., costs=True)")
    points = {name: (comparison.costs[name].peak_bytes, comparison[name].median) for name in comparison}
    hues = colours([name for name in points if name not in path]) | dict.fromkeys(path, BLUE)
    with plt.rc_context(STYLE):
        ax = ax or plt.subplots()[1]
        if path:
            ax.plot(*zip(*(points[name] for name in path), strict=True), color=BLUE)
        for name, (peak, median) in points.items():
            ax.plot([peak, peak], comparison[name].quartiles, color=hues[name], linewidth=7, alpha=0.35)
            ax.plot([peak], [median], marker=mark(hues[name]), color=hues[name], linestyle="none")
        ax.set_xscale("log", base=2)
        time_axis(ax, "y")
        ax.xaxis.set_major_locator(LogLocator(base=2, numticks=6))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _whole(int(value))))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.margins(x=0.16, y=0.12)
        ax.set_xlabel("peak memory of a call, counted")
        ax.set_ylabel("time of a call: median, quartiles")
        set_title(ax, title or _finding(comparison, points))
        label_points(ax, points, hues)
    keep(ax, comparison.table())
    return ax


def _finding(comparison: Comparison, points: Mapping[str, tuple[int, float]]) -> str:
    leanest = min(points, key=lambda name: points[name][0])
    if leanest == comparison.fastest:
        return f"{leanest} is the fastest and has the lowest peak"
    return f"{comparison.fastest} is the fastest, {leanest} has the lowest peak"


def _whole(peak: int) -> str:
    number, unit = amount_of_bytes(peak).split()
    return f"{float(number):g} {unit}"
