"""Predictions from counts, on times made up so that the answer is known."""

import matplotlib.pyplot as plt
import pytest
import torch

from funcdiff.measure import Comparison, Cost, Timing, compare, environment, predict
from funcdiff.plots import plot


def made_up(flops, times, n=9, uncounted=()):
    costs = {name: Cost(count, 1, 1, 1, uncounted) for name, count in flops.items()}
    timings = {name: Timing((time,) * n, 1, time) for name, time in times.items()}
    return Comparison(timings, 1, (), environment(), costs)


def test_one_rate_for_all():
    # Rates 100 and 400 FLOP/s, of which the geometric mean is 200.
    prediction = predict(made_up({"a": 100, "b": 800}, {"a": 1.0, "b": 2.0}))
    assert prediction.rate == pytest.approx(200)
    assert prediction.times == pytest.approx({"a": 0.5, "b": 4.0})
    assert prediction.ratio("a") == pytest.approx(2.0)
    assert prediction.ratio("b") == pytest.approx(0.5)


def test_largest_names_the_farthest_either_way():
    times = {"a": 1.0, "b": 1.0, "c": 0.1}
    prediction = predict(made_up(dict.fromkeys("abc", 10), times))
    assert prediction.largest == "c is farthest from its prediction: it is 4.64× faster than predicted."
    assert prediction.finding == "The count of FLOPs predicts each time within a factor of 4.64"


@pytest.mark.parametrize(
    ("times", "verdict", "sentence"),
    [
        ({"a": 1.0, "b": 2.0, "c": 3.0}, "holds", "in all 3 pairs"),
        ({"a": 1.0, "b": 1.0, "c": 3.0}, "undecided", "2 of 3 pairs. This run cannot tell these apart: a and b."),
        (
            {"a": 2.0, "b": 1.0, "c": 3.0},
            "contradicted",
            "2 of 3 pairs. The one with more FLOPs is faster: a and b.",
        ),
    ],
)
def test_rank_order_answers_to_the_times(times, verdict, sentence):
    claim = predict(made_up({"c": 30, "a": 10, "b": 20}, times)).rank_order()
    assert claim.verdict == verdict
    assert sentence in claim.sentence


def test_table_stands_in_the_order_of_the_counts():
    prediction = predict(made_up({"b": 800, "a": 100}, {"a": 1.0, "b": 2.0}))
    assert prediction.table().rows == (
        ("a", "1 B", "100 FLOP", "500 ms", "1.00 s", "2.00"),
        ("b", "1 B", "800 FLOP", "4.00 s", "2.00 s", "0.500"),
    )
    assert prediction.table().caption == "Predicted at one rate for all candidates, 200 FLOP/s. Measured is a median."


def test_counts_may_come_apart():
    x = torch.ones(8, 8)
    times = compare({"product": x.mm}, x, rounds=8)
    with pytest.raises(ValueError, match="expected the counts of all candidates"):
        predict(times)
    prediction = predict(times, {"product": Cost(1024, 1, 256, 256)})
    assert prediction.ratio("product") == pytest.approx(1.0)


@pytest.mark.parametrize("lacking", [{"flops": {"a": 0}}, {"flops": {"a": 5}, "uncounted": ("mystery",)}])
def test_counts_without_flops_are_refused(lacking):
    with pytest.raises(ValueError, match=r"got others for \['a'\]"):
        predict(made_up(times={"a": 1.0}, **lacking))


def test_plot_puts_the_equal_on_the_line():
    ax = plot(predict(made_up({"a": 100, "b": 200}, {"a": 1.0, "b": 2.0})), title="on one line")
    *marks, line = ax.lines
    for mark in marks:
        assert mark.get_xdata()[0] == pytest.approx(mark.get_ydata()[0])
    assert list(line.get_xdata()) == list(line.get_ydata())
    plt.close("all")
