"""Figures of results show what they are given."""

import matplotlib

matplotlib.use("agg")

import numpy as np
import pytest
from matplotlib import pyplot as plt

from funcdiff.plots import COLOURS, label_lines, plot_curves, plot_spectrum


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_curve_of_several_runs_is_their_mean_in_a_band():
    ax = plot_curves({"f": ([0, 1], [[1.0, 2.0], [3.0, 6.0]])}, xlabel="x", ylabel="y", title="t")
    assert ax.lines[0].get_ydata().tolist() == [2.0, 4.0]
    (band,) = ax.collections
    assert band.get_paths()[0].get_extents().bounds == (0, 1, 1, 5)  # from the least, over to the largest


def test_a_single_curve_has_no_band_and_keeps_its_colour():
    ax = plot_curves({"BFGS": ([1, 2], [1e-1, 1e-3])}, xlabel="x", ylabel="y", title="t", log=True)
    assert not ax.collections
    assert ax.get_yscale() == "log"
    assert ax.lines[0].get_color() == COLOURS["BFGS"]


@pytest.mark.parametrize(("scale", "limits", "middle"), [("linear", (0, 10), 5), ("log", (1, 100), 10)])
def test_a_label_stands_at_the_height_of_its_line(scale, limits, middle):
    ax = plt.subplots()[1]
    ax.set_yscale(scale)
    ax.set_ylim(limits)
    label_lines(ax, {"f": (0.5, middle)}, {"f": "#000000"})
    np.testing.assert_allclose(ax.texts[0].xyann, (1.065, 0.5))


def test_the_labels_of_curves_stand_at_their_ends():
    ax = plot_curves({"f": ([0, 1], [0.0, 10.0]), "g": ([0, 1], [0.0, 5.0])}, xlabel="x", ylabel="y", title="t")
    low, high = ax.get_ylim()
    heights = {text.get_text(): text.xyann[1] for text in ax.texts}
    np.testing.assert_allclose([heights["f"], heights["g"]], [(10 - low) / (high - low), (5 - low) / (high - low)])


def test_found_eigenvalues_are_ringed_at_their_place():
    ax = plot_spectrum([3.0, -1.0, 0.5, 0.0], [3.0, -1.0], names=["all", "found"], title="t")
    points, rings = ax.lines[1], ax.lines[2]
    assert points.get_ydata().tolist() == [-1.0, 0.0, 0.5, 3.0]
    assert rings.get_xdata().tolist() == [3, 0]
    assert rings.get_ydata().tolist() == [3.0, -1.0]
