"""One look for every figure: a colour and a mark for each method, labels on the lines, titles with room."""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
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
    "jacobian_sparse": GREEN,
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
    "hessian_sparse": GREEN,
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
    "bilaplacian": GREEN,
    "jacobian_operator": GREEN,
    "gauss_newton_product": VIOLET,
    "gauss_newton_operator": GREEN,
    "fisher_operator": OLIVE,
    "gram_matrix": PINK,
    "trace_estimate": MAGENTA,
    "diagonal_estimate": MAGENTA,
    "spectral_density": MAGENTA,
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

# NOTE [size]. A page shows a figure 100 pixels an inch wide, a phone of 390 pixels about 64: the smallest letters are
# 15 pixels high on the one and 10 on the other.
WIDTH = 5.6  # inches
LABEL = 11  # points
STYLE: Any = {  # matplotlib types each of its settings by name
    "figure.figsize": (WIDTH, 3.8),
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 12,
    "axes.titlesize": 13,
    "xtick.labelsize": LABEL,
    "ytick.labelsize": LABEL,
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
    """Return the colour of a method. It is the same in every figure.

    Example:
        >>> from funcdiff.plots import colour
        >>> colour("jacobian_reverse") == colour("hessian_reverse_over_reverse")
        True

    Args:
        name: The name of the method. Any other name also has a colour.

    Returns:
        The colour as ``#rrggbb``.
    """
    return COLOURS.get(name) or PALETTE[zlib.crc32(name.encode()) % len(PALETTE)]


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each name in one figure, all different for up to seven names.

    A method has its own colour, as in `colour`, unless an earlier name in the figure already uses it.
    """
    taken: dict[str, str] = {}
    for name in (name for name in names if name in COLOURS):
        if COLOURS[name] not in taken.values():
            taken[name] = COLOURS[name]
    for name in names:
        if name not in taken:
            free = [candidate for candidate in PALETTE if candidate not in taken.values()]
            taken[name] = colour(name) if colour(name) in free or not free else free[0]
    return {name: taken[name] for name in names}


def broken(name: str, longest: int = 18) -> str:
    r"""Return the name on two lines, if it is longer than that and has a place to break.

    >>> broken("hessian_forward_over_reverse")
    'hessian_forward_\nover_reverse'
    """
    places = [i + 1 for i, character in enumerate(name) if character in "_ .,"]
    if len(name) <= longest or not places:
        return name
    place = min(places, key=lambda place: abs(place - len(name) / 2))
    return f"{name[:place].rstrip()}\n{name[place:]}"


def label_lines(ax: Axes, ends: Mapping[str, tuple[float, float]], hues: Mapping[str, str]) -> None:
    """Write the name of each line next to its end, to the right of the axes. Names that would touch are moved apart.

    Args:
        ax: The axes. Set their limits first.
        ends: A dictionary from the name of each line to its last point, in data coordinates.
        hues: A dictionary from the name of each line to its colour.
    """
    line = 0.07  # a line of text, in heights of the axes
    ax.get_ylim()  # matplotlib fits the limits only when they are read, and transLimits does not read them
    heights: dict[str, float] = {}
    top = -math.inf
    for name in sorted(ends, key=lambda name: ends[name][1]):
        half = line * (1 + broken(name).count("\n")) / 2
        heights[name] = max(float((ax.transScale + ax.transLimits).transform(ends[name])[1]), top + half)
        top = heights[name] + half
    overshoot = max(top - 1 - line / 2, 0)
    for name, height in heights.items():
        place = height - overshoot
        # The mark has the colour. Text needs more contrast than the palette's colours have on both backgrounds.
        ax.add_artist(
            Line2D([1.035], [place], marker=mark(hues[name]), color=hues[name], transform=ax.transAxes, clip_on=False)
        )
        ax.annotate(
            broken(name),
            ends[name],
            xytext=(1.065, place),
            textcoords="axes fraction",
            va="center",
            fontsize=LABEL,
            annotation_clip=False,
        )


def set_title(ax: Axes, text: str) -> None:
    """Set the title flush with the labels at the figure's left, where a long one has room."""
    figure = ax.get_figure(root=True)
    assert figure is not None  # these axes were drawn on
    if len(figure.axes) > 1:
        ax.set_title(text, loc="left")
    else:
        set_figure_title(figure, text)


def set_figure_title(figure: Figure, text: str) -> None:
    """Set the title of a whole figure at its left, in as many lines as it needs to stay inside."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=plt.rcParams["axes.titlesize"], wrap=True)


def mark(hue: str) -> str:
    """Return the mark that goes with a colour of the palette, and a disc for any other."""
    return MARKS[PALETTE.index(hue)] if hue in PALETTE else MARKS[0]


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
