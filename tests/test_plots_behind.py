"""Each figure keeps the numbers that it shows."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from funcdiff.measure import Comparison, Cost, Sweep, Timing, environment, predict
from funcdiff.plots import (
    numbers,
    plot,
    plot_comparison,
    plot_curves,
    plot_dots,
    plot_learning,
    plot_maps,
    plot_prediction,
    plot_profiles,
    plot_spectrum,
    plot_sweep,
    plot_trade,
    plot_winners,
)
from funcdiff.surrogates import LearningCurve


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def comparison():
    timings = {name: Timing((median,) * 8, 1, median) for name, median in {"loop": 1.0, "batched": 2.0}.items()}
    costs = {name: Cost(flops, 1, 8, 8, ()) for name, flops in {"loop": 10, "batched": 20}.items()}
    return Comparison(timings, 1, (), environment(), costs)


def rows(figure):
    (table,) = numbers(figure)
    return {row[0]: row[1:] for row in table.rows}


def test_measurements_keep_their_own_tables(comparison):
    for draw, shown in [
        (plot_comparison, comparison),
        (plot_trade, comparison),
        (plot_sweep, Sweep("inputs n", {2: comparison, 4: comparison})),
        (plot_prediction, predict(comparison)),
    ]:
        assert numbers(draw(shown).figure) == (shown.table(),)


def test_a_measurement_is_drawn_by_its_type(comparison):
    for draw, shown in [
        (plot_comparison, comparison),
        (plot_sweep, Sweep("inputs n", {2: comparison, 4: comparison})),
        (plot_prediction, predict(comparison)),
    ]:
        assert plot(shown, title="Mine").get_xlabel() == draw(shown).get_xlabel()
        assert not hasattr(shown, "plot")
    with pytest.raises(TypeError, match="expected one of Comparison, Sweep, Prediction; got dict"):
        plot({})


def test_two_drawn_on_one_figure_are_both_kept(comparison):
    figure, axes = plt.subplots(2)
    for ax in axes:
        plot(comparison, ax)
    assert numbers(figure) == (comparison.table(),) * 2
    assert numbers(plt.figure()) == ()


def test_winners_keep_each_ratio_where_it_was_drawn(comparison):
    axes = plot_winners(
        {(2, 2): comparison, (2, 4): comparison, (4, 2): comparison, (4, 4): comparison},
        "loop",
        "batched",
        labels=("inputs n", "outputs m"),
        title="The loop wins",
    )
    assert rows(axes.figure) == dict.fromkeys(["4", "2"], ("2 (2 to 2)",) * 2)


def test_dots_are_listed_as_they_are_not_at_the_floor():
    axes = plot_dots({"sine": {"error": 0.0, "asymmetry": 2e-3}}, label="relative", title="Exact")
    assert rows(axes.figure) == {"sine": ("0.0e+00", "2.0e-03")}


def test_curves_share_a_column_of_x_and_the_mean_of_several_runs_is_listed():
    curves = {"plain": ([0.0, 1.0], [[1.0, 3.0], [3.0, 5.0]]), "other": ([1.0, 2.0], [7.0, 8.0])}
    axes = plot_curves(curves, xlabel="noise", ylabel="share", title="It falls")
    assert rows(axes.figure) == {"0": ("2", ""), "1": ("4", "7"), "2": ("", "8")}


def test_of_a_long_curve_some_points_and_both_ends_are_listed():
    x = np.arange(1000.0)
    axes = plot_curves({"line": (x, 2 * x)}, xlabel="x", ylabel="y", title="Twice")
    (table,) = numbers(axes.figure)
    assert table.rows[0] == ("0", "0")
    assert table.rows[-1] == ("999", "1998")
    assert table.caption == "24 of 1000 points"


def test_each_ringed_eigenvalue_is_listed():
    axes = plot_spectrum(np.arange(500.0), [1.0, 321.0], names=["all", "found"], title="Two found")
    (table,) = numbers(axes.figure)
    assert [row for row in table.rows if row[2]] == [("1", "1", "1"), ("321", "321", "321")]


def test_a_learning_curve_lists_both_errors():
    plot_learning(LearningCurve((0, 10), (1.0, 0.5), (2.0, 1.5)), title="It falls")
    assert rows(plt.gcf()) == {"0": ("1", "2"), "10": ("0.5", "1.5")}


def test_panels_are_summed_up_with_their_distance_from_what_lies_beneath():
    x = torch.linspace(0, 1, 5)
    values = torch.stack([torch.full((5,), 3.0), torch.full((5,), -4.0)], dim=1)
    plot_profiles(x, values, values - 2, panels=["first", "second"], xlabel="x", title="Constants")
    assert rows(plt.gcf()) == {"first": ("3", "3", "3", "2"), "second": ("-4", "-4", "4", "2")}


def test_maps_are_summed_up_panel_by_panel_also_of_a_second_derivative():
    x = torch.linspace(0, 1, 3)
    values = torch.arange(4.0).reshape(2, 2).expand(3, 3, 2, 2)
    plot_maps((x, x), values, panels=["00", "01", "10", "11"], labels=("x", "y"), title="Constants")
    assert rows(plt.gcf()) == {"00": ("0",) * 3, "01": ("1",) * 3, "10": ("2",) * 3, "11": ("3",) * 3}
