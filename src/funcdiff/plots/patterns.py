"""A sparse matrix as squares, in the colours of the passes that compute them."""

from collections import Counter
from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from funcdiff._tables import Table
from funcdiff.plots.behind import keep
from funcdiff.plots.style import PALETTE, STYLE, set_title

_NUMBERED = 16  # up to so many columns the number of the pass stands in each square


def plot_pattern(
    rows: Sequence[int],
    columns: Sequence[int],
    passes: ArrayLike,
    *,
    shape: tuple[int, int],
    title: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw the entries of a sparse matrix as squares. Entries of one colour are computed in the same pass.

    Args:
        rows: The row of each entry.
        columns: The column of each entry.
        passes: The number of the pass that computes each entry, from 0.
        shape: The numbers of rows and columns of the matrix.
        title: What the figure shows.
        ax: The axes to draw on. By default, new ones.

    Returns:
        The axes.
    """
    which = [int(p) for p in passes]  # type: ignore[union-attr,arg-type]  # a sequence of numbers
    count = max(which, default=0) + 1
    hues = PALETTE if count <= len(PALETTE) else [mpl.colormaps["viridis"](k / (count - 1)) for k in range(count)]
    with plt.rc_context(STYLE):
        ax = ax or plt.subplots(figsize=(4.8, 4.8 * shape[0] / shape[1] + 0.6))[1]
        squares = [Rectangle((j - 0.46, i - 0.46), 0.92, 0.92) for i, j in zip(rows, columns, strict=True)]
        ax.add_collection(PatchCollection(squares, facecolors=[hues[p] for p in which]))
        if max(shape) <= _NUMBERED:
            for i, j, p in zip(rows, columns, which, strict=True):
                ax.text(j, i, str(p + 1), ha="center", va="center", color="white", fontweight="bold")
        ax.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5), aspect="equal")
        ax.set_xlabel("input")
        ax.set_ylabel("output")
        set_title(ax, title)
    entries = sorted(Counter(which).items())
    keep(ax, Table(("pass", "entries that it computes"), tuple((str(p + 1), str(n)) for p, n in entries)))
    return ax
