"""Figures of measurements: times side by side, over sizes, and against what was predicted."""

import math
from collections.abc import Sequence
from functools import singledispatch

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from funcdiff._tables import seconds
from funcdiff.measure import Comparison, Prediction, Sweep
from funcdiff.plots.behind import keep
from funcdiff.plots.labels import label_points
from funcdiff.plots.style import GRID, LABEL, STYLE, WIDTH, broken, colours, label_lines, mark, set_title, time_axis

LETTER = 0.035  # the width of a letter, in those of the narrowest axis


@singledispatch
def plot(result: object, ax: Axes | None = None, *, title: str | None = None) -> Axes:
    """Draw a measurement. The figure depends on its type: a comparison, a sweep or a prediction.

    Example:
        >>> import torch
        >>> from funcdiff.measure import compare
        >>> from funcdiff.plots import plot
        >>> times = compare({"square": torch.square, "product": lambda x: x * x}, torch.ones(8), rounds=8)
        >>> plot(times, title="Two methods to square a tensor").get_xlabel()
        'time of a call: median, quartiles'

    Args:
        result: What `funcdiff.measure.compare`, `funcdiff.measure.sweep` or `funcdiff.measure.predict` returned.
        ax: The axes to draw on. By default, new ones.
        title: The title. By default, the finding of the measurement.

    Returns:
        The axes.

    Raises:
        TypeError: `result` is something else.
    """
    drawn = ", ".join(kind.__name__ for kind in plot.registry if kind is not object)
    raise TypeError(f"expected one of {drawn}; got {type(result).__name__}")


@plot.register
def plot_comparison(comparison: Comparison, ax: Axes | None = None, *, title: str | None = None) -> Axes:
    """Draw the median time of each candidate, with a bar from the first to the third quartile.

    Args:
        comparison: What `funcdiff.measure.compare` returned.
        ax: The axes to draw on. By default, new ones.
        title: The title. By default, the finding of the measurement.

    Returns:
        The axes.
    """
    names = sorted(comparison, key=lambda name: comparison[name].median, reverse=True)
    hues = colours(names)
    with plt.rc_context(STYLE):
        ax = ax or plt.subplots(figsize=(WIDTH, 1.5 + 0.46 * len(names)))[1]
        for row, name in enumerate(names):
            timing = comparison[name]
            ax.plot(timing.quartiles, [row, row], color=hues[name], linewidth=7, alpha=0.35, solid_capstyle="butt")
            ax.plot([timing.median], [row], marker=mark(hues[name]), color=hues[name], linestyle="none")
            ax.annotate(
                f"{seconds(timing.median)}{timing.note}",
                (timing.quartiles[1], row),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=LABEL,
            )
        ax.set_yticks(range(len(names)), map(broken, names))
        ax.set_ylim(-0.6, len(names) - 0.4)
        ax.margins(x=0.15)
        time_axis(ax, "x")
        ax.set_xlabel("time of a call: median, quartiles")
        set_title(ax, title or comparison.finding)
    keep(ax, comparison.table())
    return ax


@plot.register
def plot_sweep(study: Sweep, ax: Axes | None = None, *, title: str | None = None) -> Axes:
    """Draw the median times against the size on logarithmic axes, with a band between the quartiles.

    Args:
        study: What `funcdiff.measure.sweep` returned.
        ax: The axes to draw on. By default, new ones.
        title: The title. By default, the finding of the measurement.

    Returns:
        The axes.
    """
    hues = colours(study.names)
    with plt.rc_context(STYLE):
        ax = ax or plt.subplots()[1]
        ends = {}
        for name in study.names:
            sizes = [size for size, comparison in study.items() if name in comparison]
            timings = [study[size][name] for size in sizes]
            low, high = zip(*(timing.quartiles for timing in timings), strict=True)
            ax.fill_between(sizes, low, high, color=hues[name], alpha=0.25, linewidth=0)
            ax.plot(sizes, [timing.median for timing in timings], color=hues[name], marker=mark(hues[name]))
            ends[name] = (sizes[-1], timings[-1].median)
        ax.set_xscale("log")
        time_axis(ax, "y")
        ax.set_xticks(list(study), size_labels(list(study)))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(study.label)
        ax.set_ylabel("time of a call")
        set_title(ax, title or study.finding)
        label_lines(ax, ends, hues)
    keep(ax, study.table())
    return ax


def size_labels(sizes: Sequence[int]) -> list[str]:
    """Label the ticks of a logarithmic axis, the largest size first. One that would touch the next has no label.

    >>> size_labels([16, 64, 256, 512])
    ['16', '64', '256', '512']
    >>> size_labels([1, 2, 128, 256, 512])
    ['1', '2', '128', '', '512']
    """
    labels: list[str] = []
    whole = math.log(sizes[-1] / sizes[0]) or 1.0  # of a single size
    end, letters = math.inf, 0  # where the next label stands, and how long it is
    for text, size in ((str(size), size) for size in reversed(sizes)):
        place = math.log(size) / whole
        if place + LETTER * ((len(text) + letters) / 2 + 1) < end:
            labels.append(text)
            end, letters = place, len(text)
        else:
            labels.append("")
    return labels[::-1]


@plot.register
def plot_prediction(prediction: Prediction, ax: Axes | None = None, *, title: str | None = None) -> Axes:
    """Draw the measured time of each candidate against the predicted one, and the line where both are equal.

    Args:
        prediction: What `funcdiff.measure.predict` returned.
        ax: The axes to draw on. By default, new ones.
        title: The title. By default, the finding of the measurement.

    Returns:
        The axes.
    """
    hues = colours(list(prediction.times))
    with plt.rc_context(STYLE):
        ax = ax or plt.subplots(figsize=(WIDTH, 4.6))[1]
        points = {name: (predicted, prediction.comparison[name].median) for name, predicted in prediction.times.items()}
        for name, point in points.items():
            ax.plot(*point, marker=mark(hues[name]), color=hues[name], linestyle="none")
        ends = [min(prediction.times.values()) / 2, max(prediction.times.values()) * 2]
        ax.plot(ends, ends, color=GRID, linestyle="--", linewidth=1.2, zorder=0)
        time_axis(ax, "y")
        time_axis(ax, "x")
        ax.set_xlabel("predicted time: matrix FLOPs at one rate")
        ax.set_ylabel("measured time of a call")
        set_title(ax, title or prediction.finding)
        label_points(ax, points, hues)
    keep(ax, prediction.table())
    return ax
