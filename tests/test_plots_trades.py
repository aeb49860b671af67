"""Figures of time against memory."""

import matplotlib.pyplot as plt
import pytest

from funcdiff.measure import Comparison, Cost, Timing, environment
from funcdiff.plots import plot_trade


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def comparison():
    timings = {name: Timing((median,) * 8, 1, median) for name, median in (("many", 1e-3), ("few", 4e-3))}
    costs = {name: Cost(0, 1, peak, peak) for name, peak in (("many", 2**22), ("few", 2**16))}
    return Comparison(timings, 1, (), environment(), costs)


def test_each_candidate_stands_at_its_peak_and_its_median(comparison):
    ax = plot_trade(comparison, title="Memory for time")
    marked = {tuple(line.get_xydata()[0]) for line in ax.lines if line.get_linestyle() == "None"}
    assert marked == {(2.0**22, 1e-3), (2.0**16, 4e-3)}
    assert ax.xaxis.get_major_formatter()(2.0**20) == "1 MiB"
    assert {text.get_text() for text in ax.texts} == {"many", "few"}
    assert ax.figure.get_suptitle() == "Memory for time"


def test_steps_of_one_setting_are_joined_in_their_order(comparison):
    joined = plot_trade(comparison, path=["few", "many"]).lines[0]
    assert joined.get_xydata().tolist() == [[2.0**16, 4e-3], [2.0**22, 1e-3]]


def test_without_counts_there_is_nothing_to_draw(comparison):
    bare = Comparison(comparison.timings, 1, (), environment())
    with pytest.raises(ValueError, match="costs=True"):
        plot_trade(bare)
