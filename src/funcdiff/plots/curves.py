"""Figures of results: how something falls along a run, where a spectrum ends."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from funcdiff._tables import Table
from funcdiff.plots.behind import caption, keep, spread, table_of_curves
from funcdiff.plots.style import BLUE, GRID, ORANGE, STYLE, colours, label_lines, mark, set_title


def plot_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    log: bool = False,
) -> Axes:
    """Draw curves with their names at their ends. For several runs, draw the mean and a band around all of them.

    Args:
        curves: A dictionary from the name of a curve to x, of shape (points,), and y, of shape (points,) or (runs,
            points).
        xlabel: What x is.
        ylabel: What y is.
        title: What the figure shows.
        log: Whether the y axis is logarithmic.

    Returns:
        The axes.
    """
    hues = colours(list(curves))
    with plt.rc_context(STYLE):
        ax = plt.subplots()[1]
        ends = {}
        for name, (x, y) in curves.items():
            runs = np.atleast_2d(y)
            mean = runs.mean(0)
            ax.plot(x, mean, color=hues[name])
            if len(runs) > 1:
                ax.fill_between(x, runs.min(0), runs.max(0), color=hues[name], alpha=0.2, linewidth=0)
            ends[name] = (float(np.asarray(x)[-1]), float(mean[-1]))
            ax.plot(*ends[name], mark(hues[name]), color=hues[name])
        if log:
            ax.set_yscale("log")
        ax.grid(True)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        set_title(ax, title)
        label_lines(ax, ends, hues)
    keep(ax, table_of_curves(xlabel, {name: (x, np.atleast_2d(y).mean(0)) for name, (x, y) in curves.items()}))
    return ax


def plot_spectrum(eigenvalues: ArrayLike, found: ArrayLike, *, names: Sequence[str], title: str) -> Axes:
    """Draw the eigenvalues of a matrix in order, and a ring around those that were found by another method.

    The axis is linear near zero and logarithmic elsewhere, so that both signs and all sizes can be seen.

    Args:
        eigenvalues: All eigenvalues, of shape (n,).
        found: Some of them, of shape (k,). Each ring is drawn around the nearest eigenvalue.
        names: The names of both in the legend.
        title: What the figure shows.

    Returns:
        The axes.
    """
    values, some = np.sort(np.asarray(eigenvalues)), np.asarray(found)
    ranks = np.abs(values[None] - some[:, None]).argmin(1)
    with plt.rc_context(STYLE):
        ax = plt.subplots()[1]
        ax.axhline(0, color=GRID, linewidth=1)
        ax.plot(np.arange(len(values)), values, ".", color=BLUE, markersize=4, label=names[0])
        ax.plot(ranks, some, "o", color=ORANGE, markerfacecolor="none", markersize=9, label=names[1])
        ax.set_yscale("symlog", linthresh=float(np.abs(values).max()) * 1e-4)
        ax.grid(True)
        ax.set_xlabel("rank")
        ax.set_ylabel("eigenvalue")
        set_title(ax, title)
        ax.legend(frameon=False)
    ringed = dict(zip(ranks.tolist(), some, strict=True))
    listed = sorted({*spread(len(values)), *ringed})
    rows = tuple((str(i), f"{values[i]:.4g}", f"{ringed[i]:.4g}" if i in ringed else "") for i in listed)
    keep(ax, Table(("rank", *names), rows, caption(len(listed), len(values), "eigenvalues")))
    return ax
