"""Figures of displacements: points in space, and where they move."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import ArrayLike

from funcdiff._tables import Table
from funcdiff.plots.behind import keep
from funcdiff.plots.style import BLUE, ORANGE, STYLE, set_figure_title


def plot_arrows(points: ArrayLike, displacements: Mapping[str, ArrayLike], *, title: str) -> None:
    """Draw points in space with an arrow at each, on a new figure with one panel for each set of arrows.

    In each panel, the longest arrow is a third as long as the distance of the farthest point from the centre. So
    compare lengths within a panel only.

    Args:
        points: The points, of shape (N, 3).
        displacements: A dictionary from the name of a panel to the arrow of each point, of shape (N, 3).
        title: What the figure shows.
    """
    places = np.asarray(points) - np.mean(np.asarray(points), axis=0)
    radius = float(np.linalg.norm(places, axis=1).max())
    rows = []
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(6.4, 3.6))
        set_figure_title(figure, title)
        for number, (name, moves) in enumerate(displacements.items(), start=1):
            vectors = np.asarray(moves)
            lengths = np.linalg.norm(vectors, axis=1)
            ax = figure.add_subplot(1, len(displacements), number, projection="3d")
            ax.scatter(*places.T, s=60, color=BLUE, depthshade=False, alpha=0.45)
            ax.quiver(*places.T, *(vectors * radius / 3 / lengths.max()).T, color=ORANGE, linewidth=1.6)
            ax.set_title(name, fontsize=11)
            ax.set_box_aspect((1, 1, 1), zoom=1.5)
            limits = (-1.2 * radius, 1.2 * radius)
            ax.set(xlim=limits, ylim=limits, zlim=limits)
            ax.set_axis_off()
            outward = (vectors * places).sum(1)
            outwards, inwards = int((outward > 0).sum()), int((outward < 0).sum())
            rows.append((name, f"{lengths.min():.3g}", f"{lengths.max():.3g}", str(outwards), str(inwards)))
    keep(figure, Table(("panel", "shortest", "longest", "arrows outwards", "arrows inwards"), tuple(rows)))
