"""One look for every figure: a colour and a mark for each method, labels on the lines, titles with room."""

import math
import textwrap
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from funcdiff._tables import seconds

# Chosen by search: each reads on white and on near-black (contrast 3:1), and any two stay apart (24 units of CIELAB)
# for typical sight and the three kinds of colour blindness. `tests/test_plots.py` checks both.
BLUE, ORANGE, GREEN, VIOLET, MAGENTA, PINK, OLIVE = PALETTE = (
    "#1e96ff",
    "#d2780f",
    "#00785a",
    "#783cff",
    "#b41eb4",
    "#c378b4",
    "#96965a",
)
MARKS = ("o", "s", "^", "D", "v", "P", "X")
GRID = "#9a9a9a"

# The hue follows the mode: reverse blue, forward orange, forward over reverse violet, reverse over forward olive,
# Taylor and linearised green, plain autograd calls magenta, the automatic choice pink.
COLOURS: Mapping[str, str] = {
    "jacobian": PINK,
    "jacobian_batched_grad": OLIVE,
    "jacobian_forward": ORANGE,
    "jacobian_loop": MAGENTA,
    "jacobian_reverse": BLUE,
    "jacobian_taylor": GREEN,
    "jacrev": BLUE,
    "vmap_over_vjp": OLIVE,
    "grad_loop": MAGENTA,
    "jacfwd": ORANGE,
    "dual_loop": GREEN,
    "jvp_loop": PINK,
    "hessian": PINK,
    "hessian_double_backward": MAGENTA,
    "hessian_forward_over_forward": ORANGE,
    "hessian_forward_over_reverse": VIOLET,
    "hessian_reverse_over_forward": OLIVE,
    "hessian_reverse_over_reverse": BLUE,
    "hessian_taylor": GREEN,
    "hvp": PINK,
    "hvp_double_backward": MAGENTA,
    "hvp_forward_over_reverse": VIOLET,
    "hvp_operator": GREEN,
    "hvp_reverse_over_forward": OLIVE,
    "hvp_reverse_over_reverse": BLUE,
    "vhp": ORANGE,
    "hessian_diagonal": OLIVE,
    "laplacian": GREEN,
    "batch_jacobian": PINK,
    "batch_jacobian_summed": MAGENTA,
    "batch_hessian": PINK,
    "batch_hessian_summed": MAGENTA,
    "BFGS": BLUE,
    "L-BFGS-B": MAGENTA,
    "Newton-CG": ORANGE,
    "trust-ncg": GREEN,
    "trust-exact": OLIVE,
}

STYLE: Any = {  # matplotlib types each of its settings by name
    "figure.figsize": (6.4, 4.0),
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
}


def colour(name: str) -> str:
    """Return the colour of a method, the same on every figure.

    Args:
        name: A method's name; any other name gets a colour by its spelling.

    Returns:
        A colour as ``#rrggbb``.

    >>> colour("jacobian_reverse") == colour("hessian_reverse_over_reverse")
    True
    """
    return COLOURS.get(name) or PALETTE[zlib.crc32(name.encode()) % len(PALETTE)]


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return the colours of the methods in one figure; a name without one of its own takes a colour still free."""
    taken = {name: COLOURS[name] for name in names if name in COLOURS}
    for name in names:
        if name not in taken:
            free = [candidate for candidate in PALETTE if candidate not in taken.values()]
            taken[name] = colour(name) if colour(name) in free or not free else free[0]
    return taken


def label_lines(ax: Axes, ends: Mapping[str, tuple[float, float]], hues: Mapping[str, str]) -> None:
    """Write each line's name beside its end, to the right of the axes, pushed apart where they would touch.

    Args:
        ax: Axes whose limits are final but for the room that the labels need.
        ends: Name of each line to its last point, in the axes' data.
        hues: Name of each line to its colour.
    """
    spacing = 0.062
    heights: list[float] = []
    for end in sorted(ends.values(), key=lambda end: end[1]):
        wanted = float((ax.transScale + ax.transLimits).transform(end)[1])
        heights.append(max(wanted, heights[-1] + spacing) if heights else wanted)
    overshoot = max(heights[-1] - 1, 0)
    for name, height in zip(sorted(ends, key=lambda name: ends[name][1]), heights, strict=True):
        ax.annotate(
            name,
            ends[name],
            xytext=(1.02, height - overshoot),
            textcoords="axes fraction",
            color=hues[name],
            va="center",
            fontsize=10,
            annotation_clip=False,
        )


def set_title(ax: Axes, text: str) -> None:
    """Set the title flush with the labels at the figure's left, where a long one has room."""
    figure = ax.get_figure(root=True)
    assert figure is not None  # these axes were drawn on
    if len(figure.axes) > 1:
        ax.set_title(text, loc="left")
    else:
        figure.suptitle(textwrap.fill(text, 74), x=0.01, ha="left", fontsize=plt.rcParams["axes.titlesize"])


def mark(hue: str) -> str:
    """Return the mark that goes with a colour of the palette."""
    return MARKS[PALETTE.index(hue)]


def time_axis(ax: Axes, which: str) -> None:
    """Make the axis `which` ("x" or "y") logarithmic, with its ticks in units of time."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    if which == "y" or decades < 1.5:
        subs: tuple[float, ...] = (1.0, 2.0, 5.0)
    else:  # tick labels stand side by side there
        subs = (1.0, 3.0) if decades < 2.2 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value).replace(".00", "").replace(".0 ", " ")))
    axis.set_minor_formatter(NullFormatter())
    ax.grid(True, axis="both" if which == "y" else "x")
