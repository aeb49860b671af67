"""Figures of fields: axes the right way up, limits about zero, the reference beneath."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from funcdiff.plots import derivative_names, plot_learning, plot_maps, plot_profiles
from funcdiff.plots.fields import REFERENCE, SIGNED, UNSIGNED
from funcdiff.surrogates import LearningCurve

X1, X2 = torch.linspace(-2, 2, 5), torch.linspace(-1, 1, 3)
GRID = torch.stack(torch.meshgrid(X1, X2, indexing="ij"), dim=-1)


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def maps(values, reference=None, **options):
    names = [str(i) for i in range(values[0, 0].numel())]
    plot_maps((X1, X2), values, reference, panels=names, labels=("x₁", "x₂"), title="a field", **options)
    return [ax for ax in plt.gcf().axes if ax.images]


def shown_at(ax, x1, x2):
    """What the panel shows at a place given in its own coordinates."""
    image = ax.images[0]
    left, right, bottom, top = image.get_extent()
    pixels = np.asarray(image.get_array())
    assert image.origin == "lower"
    column = int((x1 - left) / (right - left) * pixels.shape[1])
    row = int((x2 - bottom) / (top - bottom) * pixels.shape[0])
    return pixels[row, column]


def test_maps_are_the_right_way_up():
    first, second = maps(GRID)  # functions of one variable each: x1, and x2
    for x1, x2 in [(-2.0, -1.0), (-2.0, 1.0), (2.0, -1.0), (1.0, 0.0)]:
        assert shown_at(first, x1, x2) == x1
        assert shown_at(second, x1, x2) == x2
    for ax in (first, second):
        assert ax.get_xlim()[0] < ax.get_xlim()[1]
        assert ax.get_ylim()[0] < ax.get_ylim()[1]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("x₁", "x₂")


def test_pixels_are_centred_on_their_points():
    (ax, _) = maps(GRID)
    assert ax.images[0].get_extent() == [-2.5, 2.5, -1.5, 1.5]


def test_what_is_drawn_rises_to_the_right_and_upwards():
    right, up = maps(GRID)
    figure = plt.gcf()
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba()).astype(int)
    height = pixels.shape[0]

    def redness(ax, x1, x2):
        x, y = ax.transData.transform((x1, x2))
        red, _, blue, _ = pixels[height - 1 - int(y), int(x)]
        return red - blue

    assert redness(right, 1.9, 0) > 0 > redness(right, -1.9, 0)
    assert redness(up, 0, 0.9) > 0 > redness(up, 0, -0.9)


def test_signed_maps_have_zero_in_the_middle():
    ax, _ = maps(GRID + 1.0)
    assert ax.images[0].get_clim() == (-3.0, 3.0)
    assert ax.images[0].get_cmap().name == SIGNED


def test_unsigned_maps_show_their_range():
    ax, _ = maps(GRID + 1.0, signed=False)
    assert ax.images[0].get_clim() == (-1.0, 3.0)
    assert ax.images[0].get_cmap().name == UNSIGNED


def test_a_limit_holds_for_all_panels():
    assert [ax.images[0].get_clim() for ax in maps(GRID, limit=0.5)] == [(-0.5, 0.5)] * 2


@pytest.mark.parametrize("signed", [True, False])
def test_a_constant_field_can_be_drawn(signed):
    low, high = maps(torch.zeros(5, 3, 1), signed=signed)[0].images[0].get_clim()
    assert low < 0 < high


def test_a_square_of_panels_in_the_order_of_a_hessian():
    hessian = torch.arange(4.0).reshape(2, 2).expand(5, 3, 2, 2)
    panels = maps(hessian)
    assert [ax.get_title("left") for ax in panels] == ["0", "1", "2", "3"]
    assert [float(ax.images[0].get_array()[0, 0]) for ax in panels] == [0.0, 1.0, 2.0, 3.0]


def test_reference_contours_lie_where_the_reference_does():
    (ax, _) = maps(GRID, GRID)
    (contours,) = ax.collections
    for level, paths in zip(contours.levels, contours.get_paths(), strict=True):
        np.testing.assert_allclose(paths.vertices[:, 0], level, atol=1e-6)


def test_profiles_draw_the_values_over_a_dashed_grey_reference():
    values = torch.stack([X1, X1**2], dim=-1).requires_grad_()
    plot_profiles(X1, values, 2 * values, panels=["a", "b"], xlabel="x₁", title="profiles")
    left, right = plt.gcf().axes
    beneath, above = right.lines
    assert (beneath.get_color(), beneath.get_linestyle()) == (REFERENCE, "--")
    assert beneath.get_zorder() <= above.get_zorder()
    np.testing.assert_allclose(above.get_ydata(), X1**2)
    np.testing.assert_allclose(beneath.get_ydata(), 2 * X1**2)
    assert left.get_xlabel() == "x₁"
    assert plt.gcf().get_suptitle() == "profiles"


def test_symmetric_profiles_have_zero_in_the_middle():
    plot_profiles(X1, X1[:, None] + 1, panels=["a"], xlabel="x₁", title="errors", symmetric=True)
    low, high = plt.gcf().axes[0].get_ylim()
    assert low == -high
    assert high > 3


def test_learning_curve_shows_both_errors():
    plot_learning(LearningCurve((10, 20), (1.0, 0.1), (2.0, 0.5)), title="learning")
    fitted, held_out = plt.gcf().axes[0].lines
    assert list(fitted.get_ydata()) == [1.0, 0.1]
    assert list(held_out.get_ydata()) == [2.0, 0.5]


def test_names_stand_in_the_order_of_the_entries():
    assert derivative_names(1, order=0) == ["F₂"]
    assert derivative_names(0, order=2) == ["∂²F₁/∂x₁²", "∂²F₁/∂x₁∂x₂", "∂²F₁/∂x₂∂x₁", "∂²F₁/∂x₂²"]


def test_a_long_title_stays_inside_the_figure():
    title = "A title of many words, which is wider than the figure if it stands on a single line of it"
    plot_learning(LearningCurve((10, 20), (1.0, 0.1)), title=title)
    figure = plt.gcf()
    figure.draw_without_rendering()
    assert figure._suptitle.get_window_extent().x1 <= figure.bbox.x1
