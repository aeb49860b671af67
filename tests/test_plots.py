"""Figures: colours that can be told apart by everyone and on both backgrounds, labels that do not touch."""

from itertools import combinations, pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from funcdiff.checks.registry import REGISTRY
from funcdiff.measure import Comparison, Sweep, Timing, environment
from funcdiff.plots import COLOURS, MARKS, PALETTE, colour, colours, plot, plot_comparison, plot_sweep

DARK = "#131416"

# How the colour-blind see, by Machado, Oliveira and Fernandes (2009), full severity; on linear RGB.
SIGHT = {
    "typical": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def linear(hue):
    rgb = np.array(to_rgb(hue))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    lighter, darker = sorted((linear(hue) @ [0.2126, 0.7152, 0.0722] for hue in (a, b)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def lab(hue, sight):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ np.clip(SIGHT[sight] @ linear(hue), 0, 1) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def timing(median):
    return Timing((0.9 * median,) * 3 + (median,) * 2 + (1.1 * median,) * 3, 1, median)


def comparison_of(**medians):
    return Comparison({name: timing(median) for name, median in medians.items()}, 1, (), environment())


@pytest.mark.parametrize("hue", PALETTE)
def test_each_colour_reads_on_white_and_on_the_dark_page(hue):
    assert contrast(hue, "#ffffff") >= 3
    assert contrast(hue, DARK) >= 3


@pytest.mark.parametrize("sight", SIGHT)
def test_any_two_colours_stay_apart(sight):
    for one, other in combinations(PALETTE, 2):
        assert np.linalg.norm(lab(one, sight) - lab(other, sight)) >= 24, (one, other)


def names_of(*kinds):
    return [entry.name for entry in REGISTRY if entry.kind in kinds]


FAMILIES = {
    "Jacobians": names_of("jacobian"),
    "Hessians": names_of("hessian"),
    "products": names_of("product", "operator"),
    "diagonals": ["hessian", *names_of("diagonal", "laplacian")],
    "batch Jacobians": names_of("batch_jacobian"),
    "batch Hessians": names_of("batch_hessian"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_methods_that_meet_in_a_figure_differ_in_colour(family):
    names = FAMILIES[family]
    assert len({COLOURS[name] for name in names}) == len(names)


def test_every_colour_has_a_mark_of_its_own():
    assert len(set(MARKS)) == len(set(PALETTE)) == len(MARKS) == len(PALETTE)
    assert set(COLOURS.values()) <= set(PALETTE)


def test_a_method_keeps_its_colour_and_others_take_what_is_free():
    assert colours(["jacrev of mine", "jacobian_reverse"])["jacobian_reverse"] == COLOURS["jacobian_reverse"]
    names = ["jacobian_reverse", *(f"mine {i}" for i in range(6))]
    assert len(set(colours(names).values())) == 7
    assert colours(["mine"]) == {"mine": colour("mine")}
    assert set(colours([f"mine {i}" for i in range(20)]).values()) == set(PALETTE)


def test_two_methods_of_one_colour_differ_where_they_meet():
    assert COLOURS["hessian_taylor"] == COLOURS["laplacian"]
    found = colours(["hessian_taylor", "laplacian", "mine"])
    assert found["hessian_taylor"] == COLOURS["hessian_taylor"]
    assert len(set(found.values())) == 3


def test_letters_are_large_enough_on_a_phone():
    ax = plot_comparison(comparison_of(fast=0.001, slow=0.02))
    ax.figure.canvas.draw()
    texts = [*ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label]
    width = ax.figure.get_size_inches()[0]
    pixels = [text.get_fontsize() / 72 * 358 / width for text in texts]  # 358: a phone's 390 without the margins
    assert min(pixels) >= 9.5


def test_a_long_name_stands_on_two_lines():
    names = ["hessian_forward_over_reverse", "hessian_reverse_over_reverse", "hessian_taylor"]
    sizes = {n: comparison_of(**{name: n * 1e-5 * (1 + i / 100) for i, name in enumerate(names)}) for n in (1, 10)}
    ax = plot(Sweep("n", sizes), title="Three alike")
    ax.figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))
    assert {text.get_text().count("\n") for text in ax.texts} == {0, 1}


def test_a_comparison_shows_the_slowest_at_the_bottom():
    ax = plot_comparison(comparison_of(fast=0.001, slow=0.02))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["slow", "fast"]
    assert [text.get_text() for text in ax.texts] == ["20.0 ms", "1.00 ms"]
    points = [line for line in ax.lines if line.get_marker() != "None"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in points] == [(0.02, 0), (0.001, 1)]
    assert ax.get_xscale() == "log"
    assert ax.figure.get_suptitle() == "fast is 20× faster than slow"
    assert plot(comparison_of(a=1.0), title="Mine").figure.get_suptitle() == "Mine"


def test_a_figure_is_as_wide_as_a_page_and_its_other_ink_is_grey():
    ax = plot_comparison(comparison_of(fast=0.001, slow=0.02))
    ax.figure.canvas.draw()
    width, _ = ax.figure.get_size_inches() * ax.figure.dpi
    assert width == pytest.approx(560)
    ink = [*ax.spines.values(), ax.title, ax.xaxis.label, *ax.texts, *ax.get_xticklabels()]
    hues = {to_hex(item.get_edgecolor() if hasattr(item, "get_edgecolor") else item.get_color()) for item in ink}
    hues |= {to_hex(line.get_color()) for line in ax.get_xgridlines()}
    assert all(len(set(to_rgb(hue))) == 1 for hue in hues)


def test_a_sweep_shows_spread_and_labels_its_lines():
    sizes = {n: comparison_of(jacobian_reverse=n * 1e-5, jacobian_forward=1.02 * n * 1e-5) for n in (1, 10, 100)}
    sizes[1000] = comparison_of(jacobian_forward=1e-2)
    ax = plot_sweep(Sweep("outputs m", sizes))
    assert (ax.get_xscale(), ax.get_yscale(), ax.get_xlabel()) == ("log", "log", "outputs m")
    curves, marks = ax.lines[:2], ax.lines[2:]
    assert [list(line.get_xdata()) for line in curves] == [[1, 10, 100], [1, 10, 100, 1000]]
    assert len(ax.collections) == 2
    assert ax.get_legend() is None
    beside = {line.get_ydata()[0]: line.get_color() for line in marks}
    assert {text.get_text(): beside[text.xyann[1]] for text in ax.texts} == {
        name: COLOURS[name] for name in ("jacobian_reverse", "jacobian_forward")
    }
    assert {text.get_color() for text in ax.texts} == {"black"}  # which a dark page makes light
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "10", "100", "1000"]


def test_labels_do_not_touch_and_stay_in_the_figure():
    names = [f"method {i}" for i in range(8)]
    sizes = {n: comparison_of(**{name: n * 1e-5 * (1 + i / 100) for i, name in enumerate(names)}) for n in (1, 10)}
    ax = plot(Sweep("n", sizes), title="Eight alike")
    ax.figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))
    assert all(box.y0 >= 0 and box.x1 <= 560 for box in boxes)
    assert [text.get_text() for text in ax.texts] == names


def test_axes_of_ones_own_are_drawn_on():
    _, (left, right) = plt.subplots(1, 2)
    assert plot_comparison(comparison_of(a=1.0), left) is left
    assert plot(Sweep("n", {1: comparison_of(a=1.0)}), right) is right
    assert len(plt.get_fignums()) == 1
