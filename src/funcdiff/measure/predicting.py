"""Times predicted from counts alone, set beside the measured ones."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from funcdiff._tables import Shown, Table, amount_of_bytes, amount_of_flops, multiple, seconds, significant
from funcdiff.measure.claims import Claim, Verdict
from funcdiff.measure.comparison import Comparison
from funcdiff.measure.costs import Cost
from funcdiff.measure.recording import recorded


@dataclass(frozen=True, repr=False)
class Prediction(Shown):
    """The time that each candidate would take if all FLOPs were computed at the same rate. `predict` returns it.

    Attributes:
        comparison: The measured times.
        costs: The counts.
        rate: The FLOPs in a second: the geometric mean over the candidates.
        times: The predicted time of each candidate in seconds, in the order of their FLOPs.
    """

    comparison: Comparison
    costs: Mapping[str, Cost]
    rate: float
    times: Mapping[str, float]

    def ratio(self, name: str) -> float:
        """Return the measured time of a candidate, its median, divided by the predicted one."""
        return self.comparison[name].median / self.times[name]

    @property
    def largest(self) -> str:
        """The candidate whose measured time differs most from the predicted one, as a sentence."""
        name, factor = self._farthest()
        compared = "slower" if self.ratio(name) > 1 else "faster"
        return f"{name} is farthest from its prediction: it is {multiple(factor)}× {compared} than predicted."

    @property
    def finding(self) -> str:
        """How well the counts predict the times, as the title of a figure."""
        return f"The count of FLOPs predicts each time within a factor of {multiple(self._farthest()[1])}"

    def _farthest(self) -> tuple[str, float]:
        factors = {name: max(self.ratio(name), 1 / self.ratio(name)) for name in self.times}
        name = max(factors, key=factors.__getitem__)
        return name, factors[name]

    def rank_order(self) -> Claim:
        """Check whether the one with fewer FLOPs is faster, for each pair of candidates.

        Returns:
            A claim that holds if it is for all pairs. It names the pairs that contradict it, or for which this run
            shows no difference.
        """
        pairs = list(combinations(self.times, 2))  # the fewer FLOPs first
        open_pairs: list[str] = []
        wrong_pairs: list[str] = []
        for less, more in pairs:
            ratio = self.comparison.ratio(more, less)
            if ratio.low <= 1:
                (open_pairs if ratio.high >= 1 else wrong_pairs).append(f"{less} and {more}")
        expectation = "Of two methods, the one with fewer matrix FLOPs is faster"
        right = len(pairs) - len(open_pairs) - len(wrong_pairs)
        told = f"{expectation}, in {'all' if right == len(pairs) else f'{right} of'} {len(pairs)} pairs"
        sentence = f"{told}."
        if wrong_pairs:
            sentence += f" The one with more FLOPs is faster: {'; '.join(wrong_pairs)}."
        if open_pairs:
            sentence += f" This run cannot tell these apart: {'; '.join(open_pairs)}."
        verdict: Verdict = "contradicted" if wrong_pairs else "undecided" if open_pairs else "holds"
        return recorded(Claim(expectation, verdict, sentence, told))

    def table(self) -> Table:
        """Return the counts, the predicted and the measured times and their ratios."""
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
        rate = f"{amount_of_flops(round(self.rate))}/s"
        return Table(columns, rows, f"Predicted at one rate for all candidates, {rate}. Measured is a median.")


def predict(comparison: Comparison, costs: Mapping[str, Cost] | None = None) -> Prediction:
    """Predict the time of each candidate from its FLOPs, and compare it with the measured time.

    Example:
        Three products of matrices are predicted to take three times as long as one.

        >>> import torch
        >>> from funcdiff.measure import compare, predict
        >>> x = torch.ones(64, 64)
        >>> comparison = compare({"once": x.mm, "thrice": lambda y: x @ (x @ (x @ y)) / 64**2}, x, rounds=8, costs=True)
        >>> prediction = predict(comparison)
        >>> round(prediction.times["thrice"] / prediction.times["once"], 9)
        3.0

    Args:
        comparison: The measured times, from `compare`.
        costs: The counts of the same candidates, from `count`. By default, those of `compare(..., costs=True)`.

    Returns:
        A `Prediction`, with one rate of FLOPs for all candidates. Print it to see a table.

    Raises:
        ValueError: The comparison has no counts, or a candidate has no FLOPs or only a lower bound.
    """
    costs = comparison.costs if costs is None else costs
    if costs is None or costs.keys() != comparison.keys():
        raise ValueError("expected the counts of all candidates. Call compare(..., costs=True), or pass count(...)")
    flops = {name: cost.flops for name, cost in costs.items()}
    lacking = sorted(name for name, cost in costs.items() if cost.uncounted or not cost.flops)
    if lacking:
        raise ValueError(f"expected FLOPs that are known and above 0 for every candidate, got others for {lacking}")
    rate = math.exp(fmean(math.log(flops[name] / timing.median) for name, timing in comparison.items()))
    return Prediction(
        comparison, costs, rate, {name: flops[name] / rate for name in sorted(flops, key=flops.__getitem__)}
    )
