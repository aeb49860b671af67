"""Times predicted from counts alone, set beside the measured ones."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from funcdiff._tables import Shown, Table, amount_of_bytes, amount_of_flops, seconds, significant
from funcdiff.measure.claims import Claim
from funcdiff.measure.comparison import Comparison
from funcdiff.measure.costs import Cost
from funcdiff.measure.recording import recorded


@dataclass(frozen=True, repr=False)
class Prediction(Shown):
    """What each candidate would take if its matrix FLOPs ran at one rate, the same for all.

    Attributes:
        comparison: The measured times.
        costs: The counts.
        rate: FLOPs a second: the geometric mean of what the candidates reach.
        times: Name to predicted time, in seconds, the fewest FLOPs first.
    """

    comparison: Comparison
    costs: Mapping[str, Cost]
    rate: float
    times: Mapping[str, float]

    def ratio(self, name: str) -> float:
        """Return the measured time of a candidate, its median, over the predicted one."""
        return self.comparison[name].median / self.times[name]

    @property
    def largest(self) -> str:
        """The candidate whose measured time is the farthest from the predicted, as a sentence."""
        name = max(self.times, key=lambda name: abs(math.log(self.ratio(name))))
        return f"The farthest from its prediction is {name}: measured over predicted time is {self.ratio(name):.3g}."

    def rank_order(self) -> Claim:
        """State that fewer FLOPs take less time, for every two candidates, and let the measurement answer.

        Returns:
            A claim that holds where each pair's interval does. Pairs that the run cannot tell apart, and pairs that
            contradict it, are named.
        """
        pairs = list(combinations(self.times, 2))  # the fewer FLOPs first
        open_pairs: list[str] = []
        wrong_pairs: list[str] = []
        for less, more in pairs:
            ratio = self.comparison.ratio(more, less)
            if ratio.low <= 1:
                (open_pairs if ratio.high >= 1 else wrong_pairs).append(f"{less} and {more}")
        expectation = "fewer matrix FLOPs take less time"
        if wrong_pairs:
            sentence = f"Contradicted by this run: {expectation}. The other way round: {'; '.join(wrong_pairs)}."
            return recorded(Claim(expectation, "contradicted", sentence))
        told = expectation[0].upper() + expectation[1:]
        if open_pairs:
            some = f"in {len(pairs) - len(open_pairs)} of {len(pairs)} pairs"
            sentence = f"{told}, {some}; this run cannot tell apart: {'; '.join(open_pairs)}."
            return recorded(Claim(expectation, "undecided", sentence))
        return recorded(Claim(expectation, "holds", f"{told}, in all {len(pairs)} pairs."))

    def table(self) -> Table:
        """Return counts, predicted and measured times and their ratios."""
        columns = ("candidate", "peak", "matrix FLOPs", "predicted", "measured", "measured / predicted")
        rows = tuple(
            (
                name,
                amount_of_bytes(self.costs[name].peak_bytes),
                amount_of_flops(self.costs[name].flops),
                seconds(time),
                seconds(self.comparison[name].median),
                significant(self.ratio(name)),
            )
            for name, time in self.times.items()
        )
        return Table(columns, rows, f"one rate for all: {amount_of_flops(round(self.rate))}/s")


def predict(comparison: Comparison, costs: Mapping[str, Cost] | None = None) -> Prediction:
    """Predict every candidate's time from its matrix FLOPs, at one rate for all.

    Args:
        comparison: Times of the candidates.
        costs: Their counts, from `count`; by default those of `compare(..., costs=True)`.

    Returns:
        The prediction. It shows itself as a table.

    Raises:
        ValueError: The comparison has no counts, or one of them has no FLOPs or only a lower bound.

    >>> from funcdiff.measure import compare
    >>> import torch
    >>> x = torch.ones(64, 64)
    >>> comparison = compare({"once": x.mm, "thrice": lambda y: x @ (x @ (x @ y)) / 64**2}, x, rounds=8, costs=True)
    >>> prediction = predict(comparison)
    >>> round(prediction.times["thrice"] / prediction.times["once"], 9)
    3.0
    """
    costs = comparison.costs if costs is None else costs
    if costs is None or costs.keys() != comparison.keys():
        raise ValueError("expected the counts of all candidates; call compare(..., costs=True), or pass count(...)")
    flops = {name: cost.flops for name, cost in costs.items()}
    lacking = sorted(name for name, cost in costs.items() if cost.uncounted or not cost.flops)
    if lacking:
        raise ValueError(f"expected every candidate's matrix FLOPs to be known and above 0; not so: {lacking}")
    rate = math.exp(fmean(math.log(flops[name] / timing.median) for name, timing in comparison.items()))
    return Prediction(
        comparison, costs, rate, {name: flops[name] / rate for name in sorted(flops, key=flops.__getitem__)}
    )
