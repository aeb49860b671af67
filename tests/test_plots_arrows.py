"""Arrows in space: a panel for each set of displacements, with its numbers beside it."""

import matplotlib.pyplot as plt
import numpy as np
from mpl_toolkits.mplot3d import Axes3D

from funcdiff.plots import numbers, plot_arrows

CORNERS = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])


def test_each_panel_has_its_arrows_and_its_numbers():
    plot_arrows(CORNERS, {"growth": 2 * CORNERS, "shift": np.ones((4, 3))}, title="All outwards")
    figure = plt.gcf()
    assert figure.get_suptitle() == "All outwards"
    assert [ax.get_title() for ax in figure.axes] == ["growth", "shift"]
    (table,) = numbers(figure)
    assert table.rows == (("growth", "2", "2", "4", "0"), ("shift", "1.73", "1.73", "2", "2"))
    plt.close(figure)


def test_the_longest_arrow_is_a_third_of_the_radius_wherever_the_points_are(monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes3D, "quiver", lambda self, *parts, **style: drawn.append(np.array(parts).T))
    plot_arrows(CORNERS + 5, {"growth": 2 * CORNERS}, title="Scaled")
    np.testing.assert_allclose(drawn, [np.hstack([CORNERS, CORNERS / 3])])
    plt.close("all")
