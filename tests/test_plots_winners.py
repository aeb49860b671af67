"""The map of the winner: which cell is which, and what it says."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgb

from funcdiff.measure import Comparison, Timing, environment
from funcdiff.plots import colour, plot_winners

ROUNDS = 9


def comparison(forward, reverse):
    timings = {
        "jacobian_forward": Timing((forward,) * ROUNDS, 1, forward),
        "jacobian_reverse": Timing((reverse,) * (ROUNDS - 1) + (forward / 2,), 1, reverse),
    }
    return Comparison(timings, 1, (), environment())


@pytest.fixture
def axes():
    grid = {(2, 2): comparison(1, 1), (2, 8): comparison(1, 4), (8, 2): comparison(5, 1), (8, 8): comparison(1, 1)}
    axes = plot_winners(
        grid, "jacobian_forward", "jacobian_reverse", labels=("inputs n", "outputs m"), title="Forward above"
    )
    yield axes
    plt.close(axes.figure)


def test_each_cell_says_how_many_times_faster_its_colour_is_or_that_there_is_no_telling(axes):
    # With nine rounds the interval is the whole range, and one outlier in each pair reaches 1/2.
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "=", (1, 1): "=", (0, 1): "=", (1, 0): "5.0"}


def test_the_cell_of_many_inputs_and_few_outputs_lies_at_the_lower_right_in_the_winners_colour(axes):
    (image,) = axes.images
    shown = image.to_rgba(image.get_array())
    assert image.origin == "lower"
    assert tuple(shown[0, 1, :3]) == pytest.approx(to_rgb(colour("jacobian_reverse")), abs=0.01)
    assert shown[0, 0, :3] == pytest.approx(to_rgb("#f4f4f4"), abs=0.01)
    assert axes.get_xlabel() == "inputs n"
    assert axes.figure.get_suptitle() == "Forward above"
