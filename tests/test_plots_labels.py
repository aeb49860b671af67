"""Names beside points: none on a mark, on a line, on another name, or out of the axes."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from funcdiff.plots.labels import label_points
from funcdiff.plots.style import STYLE, set_title


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def labelled(points, line=()):
    with plt.rc_context(STYLE):
        ax = plt.subplots()[1]
        for point in points.values():
            ax.plot(*point, "o")
        if line:
            ax.plot(*line)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.margins(0.15)
        set_title(ax, "Points")
        label_points(ax, points, dict.fromkeys(points, "#404040"))
    ax.figure.canvas.draw()
    return ax, {text.get_text().replace("\n", " "): text.get_window_extent() for text in ax.texts}


CROWDED = {f"method number {i}": (2.0 ** (i % 2), 1.1**i) for i in range(5)} | {"far away": (4096.0, 50.0)}
ON_A_LINE = {f"method number {i}": (10.0**i, 10.0**i) for i in range(5)}


@pytest.mark.parametrize("points", [CROWDED, ON_A_LINE], ids=["crowded", "on a line"])
def test_names_touch_neither_marks_nor_each_other_and_stay_inside(points):
    ax, boxes = labelled(points)
    assert boxes.keys() == points.keys()
    for one, other in combinations(boxes.values(), 2):
        assert not one.overlaps(other)
    for box in boxes.values():
        for mark in points.values():
            x, y = ax.transData.transform(mark)
            assert not (box.x0 - 4 < x < box.x1 + 4 and box.y0 - 4 < y < box.y1 + 4)
        assert ax.bbox.x0 <= box.x0
        assert box.x1 <= ax.bbox.x1


def test_names_lie_beside_a_line_through_the_points():
    ax, boxes = labelled(ON_A_LINE, ([1.0, 1e4], [1.0, 1e4]))
    along = ax.transData.transform(np.geomspace(1, 1e4, 400)[:, None].repeat(2, 1))
    for box in boxes.values():
        assert not any(box.contains(x, y) for x, y in along)


def test_a_name_is_near_its_own_point():
    ax, boxes = labelled(ON_A_LINE)
    for name, point in ON_A_LINE.items():
        x, y = ax.transData.transform(point)
        gap = np.hypot(max(boxes[name].x0 - x, x - boxes[name].x1, 0), max(boxes[name].y0 - y, y - boxes[name].y1, 0))
        assert gap < 20
