"""The times of several candidates, taken side by side, and what they say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import median, quantiles
from typing import Any, ClassVar

from funcdiff._tables import Shown, Table, multiple, seconds
from funcdiff.measure.claims import Claim, claim_on_time
from funcdiff.measure.costs import Cost
from funcdiff.measure.documents import best_match, load
from funcdiff.measure.provenance import Environment
from funcdiff.measure.ratios import CONFIDENCE, Ratio, paired_ratio
from funcdiff.measure.recording import recorded


@dataclass(frozen=True)
class Timing:
    """The times of one candidate, in seconds a call.

    Attributes:
        times: One a round, each the average over ``calls`` calls.
        calls: Calls in a sample, so many that the clock resolves it.
        first: The very first call, which may trace or compile.
        cut_off: Whether both its first calls exceeded the budget, so that one sample is all there is.
    """

    times: tuple[float, ...]
    calls: int
    first: float
    cut_off: bool = False

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.times)

    @property
    def median(self) -> float:
        """Median time of a call, in seconds."""
        return median(self.times)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile, in seconds."""
        if self.n == 1:
            return self.median, self.median
        low, _, high = quantiles(self.times, n=4, method="inclusive")
        return low, high

    @property
    def iqr(self) -> float:
        """Interquartile range, in seconds."""
        low, high = self.quartiles
        return high - low

    def to_dict(self) -> dict[str, Any]:
        """Return the samples and what they come to, in plain JSON values."""
        summary = {"median": self.median, "iqr": self.iqr, "n": self.n, "first": self.first}
        return {**summary, "calls": self.calls, "cut_off": self.cut_off, "times": list(self.times)}


@dataclass(frozen=True, repr=False)
class Comparison(Shown, Mapping[str, Timing]):
    """Times of several candidates, taken side by side; a mapping from name to `Timing`.

    Shows itself as a table, the fastest candidate first.
    """

    kind: ClassVar[str] = "comparison"
    timings: Mapping[str, Timing]
    threads: int
    arguments: tuple[str, ...]
    environment: Environment
    costs: Mapping[str, Cost] | None = None

    def __getitem__(self, name: str) -> Timing:
        """Return the times of the candidate of that name."""
        return self.timings[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the candidates' names."""
        return iter(self.timings)

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.timings)

    @property
    def fastest(self) -> str:
        """Name of the candidate of the least median."""
        return min(self, key=lambda name: self[name].median)

    def ratio(self, name: str, other: str) -> Ratio:
        """Return how many times the other's time a candidate takes: the median over rounds, with its interval."""
        return paired_ratio(self[name].times, self[other].times)

    def claim(self, name: str, *, faster_than: str, by: float | None = None) -> Claim:
        """State that a candidate is faster than another, and let the measurement answer.

        Args:
            name: The candidate expected to be faster.
            faster_than: The candidate it is held against.
            by: At least so many times; None expects any difference.

        Returns:
            A claim that prints as what was measured. A contradiction is told, not raised.
        """
        return recorded(claim_on_time(name, faster_than, self.ratio(faster_than, name), by))

    def table(self) -> Table:
        """Return the table: median and spread, ratio to the fastest with its interval, samples, first call."""
        columns = ("candidate", "median", "IQR", "ratio to fastest", f"{CONFIDENCE:.0%} interval", "n", "first call")
        rows = tuple(self._row(name) for name in sorted(self, key=lambda name: self[name].median))
        threads = f"{self.threads} thread" + ("s" if self.threads > 1 else "")
        place = self.environment.accelerator or self.environment.processor
        cut = (
            "; * cut off after one sample, a call being over the budget"
            if any(t.cut_off for t in self.values())
            else ""
        )
        caption = f"{threads}, torch {self.environment.torch}, {place}{cut}"
        if self.costs is None:
            return Table(columns, rows, caption)
        return Table(columns + Cost.columns, rows, caption)

    def _row(self, name: str) -> tuple[str, ...]:
        timing, ratio = self[name], self.ratio(name, self.fastest)
        label = f"{name} *" if timing.cut_off else name
        known = name != self.fastest and ratio.high < inf
        interval = f"{multiple(ratio.low)} to {multiple(ratio.high)}" if known else ""
        times = (seconds(timing.median), seconds(timing.iqr), multiple(ratio.median))
        row = (label, *times, interval, str(timing.n), seconds(timing.first))
        return row + self.costs[name].cells if self.costs else row

    def beside(self, published: str | Path | Mapping[str, Any]) -> Table:
        """Set this comparison beside the published one of the same candidates.

        Args:
            published: The JSON file linked from a page, by its path, or its content.

        Returns:
            A table of both medians and both ratios to the fastest. If several published comparisons have these
            candidates, it shows the one whose arguments have the same shapes, or else the first.

        Raises:
            ValueError: It is of another version, or compares no two of these candidates.
        """
        content = load(published)
        theirs = best_match(content, self, self.arguments)
        medians = {name: theirs["candidates"][name]["median"] for name in self if name in theirs["candidates"]}
        names = sorted(medians, key=lambda name: self[name].median)

        def row(name: str) -> tuple[str, ...]:
            ratios = medians[name] / min(medians.values()), self.ratio(name, names[0]).median
            return name, seconds(medians[name]), seconds(self[name].median), *(f"{ratio:.3g}" for ratio in ratios)

        place = f"{content['environment']['processor']}, torch {content['environment']['torch']}"
        shapes = "" if tuple(theirs["arguments"]) == self.arguments else "; the arguments' shapes differ"
        return Table(
            ("candidate", "published", "here", "ratio, published", "ratio, here"),
            tuple(map(row, names)),
            f"published: {place}, {theirs['threads']} thread(s); here: {self.table().caption}{shapes}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all samples, ratios to the fastest and conditions, in plain JSON values."""
        return {
            "kind": self.kind,
            "threads": self.threads,
            "arguments": list(self.arguments),
            "fastest": self.fastest,
            "candidates": {
                name: {
                    **timing.to_dict(),
                    "ratio": self.ratio(name, self.fastest).to_dict(),
                    "cost": self.costs[name].to_dict() if self.costs else None,
                }
                for name, timing in self.items()
            },
        }
