"""What paired samples tell: the median ratio and an interval for it that outliers do not move."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb, inf
from statistics import median
from typing import Any

from funcdiff._tables import multiple

CONFIDENCE = 0.99
MEANING = "A ratio is the median over rounds of the ratio within a round, so it is not the quotient of the medians."
FEWEST_ROUNDS = 8  # below these, even the whole range of the samples covers the median with less confidence


@dataclass(frozen=True)
class Ratio:
    """How many times longer one candidate takes than another.

    Attributes:
        median: The median over the rounds of one time divided by the other of the same round.
        low: The lower end of the 99 % interval of the true median.
        high: The upper end of this interval.
        n: The number of rounds in which both were timed. It is 1 if a candidate was timed only once. The interval is
            then the range of the samples of the other, and has no bounds if both were timed once.
    """

    median: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Write the ratio with its interval."""
        return f"{multiple(self.median)} ({multiple(self.low)} to {multiple(self.high)})"

    @property
    def inverse(self) -> "Ratio":
        """The ratio with the two candidates exchanged."""
        return Ratio(1 / self.median, 1 / self.high, 1 / self.low if self.low else inf, self.n)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values. None is an upper end that does not exist."""
        return {**asdict(self), "high": self.high if self.high < inf else None}


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Bound the true median by two of the sorted values.

    The number of values below the true median is binomial, whatever their distribution; hence no normality is
    assumed and a few outliers, however large, move nothing.

    Args:
        values: At least `FEWEST_ROUNDS` independent samples.

    Returns:
        The innermost pair of sorted values, equally far from both ends, that covers the median with `CONFIDENCE`.

    >>> median_interval(range(1, 26))
    (6, 20)
    """
    ordered = sorted(values)
    n = len(ordered)
    tail = (1 - CONFIDENCE) / 2 * 2**n
    outside = below = 0
    while (below := below + comb(n, outside)) <= tail:
        outside += 1
    outside = max(outside - 1, 0)
    return ordered[outside], ordered[n - 1 - outside]


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Compare two candidates' times, round by round.

    A candidate that was cut off has one time only. It is set against each of the other's, and the interval is
    their whole range.
    """
    if len(numerator) == len(denominator) > 1:
        ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
        return Ratio(median(ratios), *median_interval(ratios), n=len(ratios))
    ratios = [a / b for a in numerator for b in denominator]
    if len(ratios) == 1:
        return Ratio(ratios[0], 0.0, inf, n=1)
    return Ratio(median(ratios), min(ratios), max(ratios), n=1)
