"""Measurements a reader can trust: times compared side by side, costs counted exactly, claims that answer to them."""

from funcdiff.measure.claims import Claim
from funcdiff.measure.comparing import compare
from funcdiff.measure.comparison import Comparison, Timing
from funcdiff.measure.costs import Cost, Costs
from funcdiff.measure.counting import count
from funcdiff.measure.documents import document, schema
from funcdiff.measure.predicting import Prediction, predict
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
    "Prediction",
    "Ratio",
    "Sweep",
    "Timing",
    "compare",
    "count",
    "document",
    "environment",
    "predict",
    "recording",
    "schema",
    "sweep",
]
