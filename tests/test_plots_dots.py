"""Dots: one row a subject from the top, one mark a number."""

import matplotlib.pyplot as plt

from funcdiff.plots import plot_dots


def test_rows_run_from_the_top_and_zeros_lie_on_the_floor():
    rows = {"first": {"error": 1.0, "asymmetry": 0.0}, "second": {"error": 1e-9, "asymmetry": 1e-3}}
    axes = plot_dots(rows, label="relative", title="Two of four are small", floor=1e-12)
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert drawn == {"error": ([1.0, 1e-9], [0, 1]), "asymmetry": ([1e-12, 1e-3], [0, 1])}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second"]
    assert axes.yaxis_inverted()
    assert axes.figure.get_suptitle() == "Two of four are small"
    plt.close(axes.figure)
