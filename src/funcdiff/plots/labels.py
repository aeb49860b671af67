"""Names beside the points of a figure, where they touch no mark, no line and no other name."""

from collections.abc import Iterator, Mapping
from itertools import pairwise, product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from funcdiff.plots.style import LABEL, broken

DIRECTIONS = ((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1))
REACHES = (9, 15, 22, 30, 40, 52, 66, 82)  # pixels between a point and its name
CLEARANCE = 5  # pixels around a line's middle: half the widest mark


def label_points(ax: Axes, points: Mapping[str, tuple[float, float]], hues: Mapping[str, str]) -> None:
    """Write each point's name at the nearest free place around it.

    Args:
        ax: Axes on which all else is drawn, the title too: the names change the layout no more.
        points: Name to position, in the axes' data.
        hues: Name to colour.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None  # it was drawn on
    figure.draw_without_rendering()
    ink = np.concatenate([_ink(line) for line in ax.lines])
    taken: list[Bbox] = []
    for name, point in points.items():
        text = ax.text(*point, broken(name), color=hues[name], ha="center", va="center", fontsize=LABEL)
        text.set_in_layout(False)
        box = text.get_window_extent()
        places = _around(ax.transData.transform(point), box.width, box.height)
        taken.append(min(places, key=lambda place: _faults(place, ax.bbox, ink, taken)))
        x, y = ax.transData.inverted().transform(taken[-1].get_points().mean(0))
        text.set_position((x, y))


def _around(point: np.ndarray, width: float, height: float) -> Iterator[Bbox]:
    """The places for a name, the nearest first."""
    for reach, (across, up) in product(REACHES, DIRECTIONS):
        x, y = point + np.array([across * (width / 2 + reach), up * (height / 2 + reach * (0.5 if across else 1))])
        yield Bbox.from_bounds(x - width / 2, y - height / 2, width, height)


def _faults(place: Bbox, inside: Bbox, ink: np.ndarray, taken: list[Bbox]) -> int:
    """How much a name touches there; leaving the axes and lying on another name count most."""
    padded = place.padded(CLEARANCE)
    covered = int(((ink > padded.min) & (ink < padded.max)).all(1).sum())
    outside = place.x0 < inside.x0 or place.x1 > inside.x1 or place.y0 < inside.y0 or place.y1 > inside.y1
    strays = int(outside) + sum(bool(place.overlaps(other)) for other in taken)
    return covered + 1000 * strays


def _ink(line: Line2D) -> np.ndarray:
    """Pixels along a line, near enough to each other that no name falls between two."""
    ends = line.get_transform().transform(np.asarray(line.get_xydata()))
    steps = [np.linspace(a, b, 2 + int(np.abs(b - a).max() / 4)) for a, b in pairwise(ends)]
    return np.concatenate([ends, *steps])
