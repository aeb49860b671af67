"""Drawing: the only part of the package that imports Matplotlib."""

from funcdiff.plots.arrows import plot_arrows
from funcdiff.plots.behind import numbers
from funcdiff.plots.curves import plot_curves, plot_spectrum
from funcdiff.plots.dots import plot_dots
from funcdiff.plots.fields import derivative_names, plot_learning, plot_maps, plot_profiles
from funcdiff.plots.patterns import plot_pattern
from funcdiff.plots.style import COLOURS, MARKS, PALETTE, STYLE, colour, colours, label_lines
from funcdiff.plots.timings import plot, plot_comparison, plot_prediction, plot_sweep
from funcdiff.plots.trades import plot_trade
from funcdiff.plots.winners import plot_winners

__all__ = [
    "COLOURS",
    "MARKS",
    "PALETTE",
    "STYLE",
    "colour",
    "colours",
    "derivative_names",
    "label_lines",
    "numbers",
    "plot",
    "plot_arrows",
    "plot_comparison",
    "plot_curves",
    "plot_dots",
    "plot_learning",
    "plot_maps",
    "plot_pattern",
    "plot_prediction",
    "plot_profiles",
    "plot_spectrum",
    "plot_sweep",
    "plot_trade",
    "plot_winners",
]
