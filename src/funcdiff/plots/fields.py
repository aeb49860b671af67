"""Figures of a function and of a network in its place: how it was fitted, profiles along an input, maps over two."""

from collections.abc import Iterator, Sequence
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from funcdiff.arrays import as_array
from funcdiff.plots.behind import keep, table_of_curves, table_of_panels
from funcdiff.plots.style import BLUE, ORANGE, STYLE, set_figure_title
from funcdiff.surrogates import LearningCurve

REFERENCE = "#808080"  # a neutral grey, which a dark page can mirror
SIGNED, UNSIGNED = "RdBu_r", "viridis"  # both keep their order for the colour-blind, and in print


def derivative_names(output: int, order: int, inputs: int = 2) -> list[str]:
    """Name all derivatives of one output, in the order of the entries of its Jacobian or Hessian.

    Example:
        >>> from funcdiff.plots import derivative_names
        >>> derivative_names(0, order=1)
        ['∂F₁/∂x₁', '∂F₁/∂x₂']
        >>> derivative_names(2, order=2)[2:]
        ['∂²F₃/∂x₂∂x₁', '∂²F₃/∂x₂²']
    """
    if order == 0:
        return [f"F{_subscript(output)}"]
    names = []
    for index in product(range(inputs), repeat=order):
        once = "".join(f"∂x{_subscript(i)}" for i in index)
        below = f"∂x{_subscript(index[0])}²" if order == 2 and index[0] == index[1] else once
        names.append(f"∂{'²' if order == 2 else ''}F{_subscript(output)}/{below}")
    return names


def plot_profiles(
    x: Tensor,
    values: Tensor,
    reference: Tensor | None = None,
    *,
    panels: Sequence[str],
    xlabel: str,
    title: str,
    symmetric: bool = False,
) -> None:
    """Draw each entry of a function against one input, on a new figure with one panel for each entry.

    Args:
        x: The values of the input, of shape (N,).
        values: The values of the function, of shape (N, n) for a row of n panels, or (N, n, n) for a square of them.
        reference: Other values of the same shape to compare with, drawn as a dashed grey line.
        panels: The title of each panel, row by row.
        xlabel: The name of the input.
        title: What the figure shows.
        symmetric: Whether zero is in the middle of the y axis, as is useful for errors.
    """
    x, lines, beneath = map(as_array, (x, values, reference))
    with plt.rc_context(STYLE):
        figure = _figure(lines[0], title)
        for ax, index in _panels(figure, lines[0], panels):
            if beneath is not None:
                ax.plot(x, beneath[:, *index], color=REFERENCE, linestyle="--", linewidth=3.2)
            ax.plot(x, lines[:, *index], color=BLUE)
            if symmetric:
                limit = max(map(abs, ax.get_ylim()))
                ax.set_ylim(-limit, limit)
                ax.axhline(0, color=REFERENCE, linewidth=0.8)
            ax.set_xlabel(xlabel)
            ax.grid(True)
    keep(figure, table_of_panels(lines, beneath, panels))


def plot_maps(
    axes: tuple[Tensor, Tensor],
    values: Tensor,
    reference: Tensor | None = None,
    *,
    panels: Sequence[str],
    labels: tuple[str, str],
    title: str,
    signed: bool = True,
    limit: float | None = None,
) -> None:
    """Draw each entry of a function of two inputs as a map, on a new figure with one panel for each entry.

    The first input is the horizontal axis, and the second the vertical one.

    Args:
        axes: The values of both inputs, of shapes (N,) and (M,), evenly spaced.
        values: The values of the function, of shape (N, M, n) for a row of n panels, or (N, M, n, n) for a square of
            them. `values[i, j]` belongs to `axes[0][i], axes[1][j]`.
        reference: Other values of the same shape to compare with, drawn as dashed grey contours.
        panels: The title of each panel, row by row.
        labels: The names of both inputs.
        title: What the figure shows.
        signed: Whether the sign matters. The colours then diverge from zero.
        limit: The largest absolute value that the colours of signed values show, in all panels. By default, that of
            each panel.
    """
    across, up, fields, above = map(as_array, (*axes, values, reference))
    half = (across[1] - across[0]) / 2, (up[1] - up[0]) / 2  # an image's extent ends half a pixel beyond its points
    extent = (across[0] - half[0], across[-1] + half[0], up[0] - half[1], up[-1] + half[1])
    with plt.rc_context(STYLE):
        figure = _figure(fields[0, 0], title)
        for ax, index in _panels(figure, fields[0, 0], panels):
            field = fields[:, :, *index].T  # an image's rows are the second axis
            limits = _limits(field, signed, limit)
            image = ax.imshow(
                field,
                origin="lower",
                extent=extent,
                aspect="auto",
                cmap=SIGNED if signed else UNSIGNED,
                vmin=limits[0],
                vmax=limits[1],
            )
            figure.colorbar(image, ax=ax)
            if above is not None:
                levels = np.linspace(*limits, 9)[1:-1]
                ax.contour(
                    across, up, above[:, :, *index].T, levels=levels, colors=REFERENCE, linestyles="--", linewidths=1.0
                )
            ax.set_xlabel(labels[0])
            ax.set_ylabel(labels[1])
    keep(figure, table_of_panels(fields, above, panels))


def plot_learning(curve: LearningCurve, *, title: str) -> None:
    """Draw how the errors fell during training, on a new figure.

    Args:
        curve: What `funcdiff.surrogates.train` returned.
        title: What the figure shows.
    """
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots()
        set_figure_title(figure, title)
        ax.semilogy(curve.iterations, curve.training, color=BLUE, label="samples fitted")
        if curve.held_out:
            ax.semilogy(curve.iterations, curve.held_out, color=ORANGE, linestyle="-.", label="samples held out")
        ax.set_xlabel("iterations")
        ax.set_ylabel("mean squared error of the values")
        ax.grid(True)
        ax.legend(frameon=False)
    errors = {"samples fitted": curve.training, "samples held out": curve.held_out}
    iterations = list(curve.iterations)
    keep(figure, table_of_curves("iterations", {name: (iterations, error) for name, error in errors.items() if error}))


def _limits(field: np.ndarray, signed: bool, limit: float | None) -> tuple[float, float]:
    """The whole range; about zero if the sign matters, and never empty."""
    if signed:
        largest = limit or float(np.abs(field).max()) or 1.0
        return -largest, largest
    low, high = float(field.min()), float(field.max())
    return (low, high) if low < high else (low - 1, high + 1)


def _figure(entry: np.ndarray, title: str) -> Figure:
    rows = entry.shape[0] if entry.ndim == 2 else 1
    figure = plt.figure(figsize=(6.4, 0.4 + 2.3 * rows))
    set_figure_title(figure, title)
    return figure


def _panels(figure: Figure, entry: np.ndarray, names: Sequence[str]) -> Iterator[tuple[Axes, tuple[int, ...]]]:
    """Each panel with the index of the entry that it shows."""
    rows, columns = entry.shape if entry.ndim == 2 else (1, len(entry))
    grid = figure.subplots(rows, columns, squeeze=False)
    indices = product(*map(range, entry.shape))
    for ax, index, name in zip(grid.flat, indices, names, strict=True):
        ax.set_title(name, loc="left", fontsize=11)
        yield ax, index


def _subscript(index: int) -> str:
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(index + 1))
