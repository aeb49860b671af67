"""Measurements a reader can trust: times compared side by side, costs counted exactly, claims that answer to them."""

from funcdiff.measure.claims import Claim
from funcdiff.measure.comparison import Comparison, Timing, compare
from funcdiff.measure.counting import Cost, Costs, count
from funcdiff.measure.provenance import Environment, environment
from funcdiff.measure.ratios import Ratio
from funcdiff.measure.recording import recording
from funcdiff.measure.sweeps import Crossover, Sweep, sweep

__all__ = [
    "Claim",
    "Comparison",
    "Cost",
    "Costs",
    "Crossover",
    "Environment",
    "Ratio",
    "Sweep",
    "Timing",
    "compare",
    "count",
    "environment",
    "recording",
    "sweep",
]
