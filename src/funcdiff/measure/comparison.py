"""The times of several candidates, taken side by side, and what they say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import median, quantiles
from typing import Any, ClassVar

from funcdiff._tables import Shown, Table, multiple, seconds
from funcdiff.measure.claims import Claim, claim_on_time, faster_by
from funcdiff.measure.costs import Cost
from funcdiff.measure.documents import best_match, load
from funcdiff.measure.provenance import Environment
from funcdiff.measure.ratios import CONFIDENCE, MEANING, Ratio, paired_ratio
from funcdiff.measure.recording import recorded

SPREAD = "The IQR is the spread: half of the n samples lie in an interval of this length."


@dataclass(frozen=True)
class Timing:
    """The times of one candidate, in seconds for each call.

    Attributes:
        times: One time for each round, each the mean over ``calls`` calls.
        calls: The number of calls in a sample, chosen so that the clock can measure it.
        first: The time of the first call in the comparison. It may compile or choose a method, if the candidate was not
            called before.
        cut_off: Whether the first two calls both took longer than the budget. There is then only one time.
    """

    times: tuple[float, ...]
    calls: int
    first: float
    cut_off: bool = False

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.times)

    @property
    def median(self) -> float:
        """The median time of a call, in seconds."""
        return median(self.times)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile, in seconds."""
        if self.n == 1:
            return self.median, self.median
        low, _, high = quantiles(self.times, n=4, method="inclusive")
        return low, high

    @property
    def iqr(self) -> float | None:
        """The interquartile range in seconds, or None for a single sample."""
        if self.n == 1:
            return None
        low, high = self.quartiles
        return high - low

    @property
    def note(self) -> str:
        """The words " (1 sample)" after a median of a single sample, otherwise nothing."""
        return " (1 sample)" if self.n == 1 else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the samples and their summary as plain JSON values."""
        summary = {"median": self.median, "iqr": self.iqr, "n": self.n, "first": self.first}
        return {**summary, "calls": self.calls, "cut_off": self.cut_off, "times": list(self.times)}


@dataclass(frozen=True, repr=False)
class Comparison(Shown, Mapping[str, Timing]):
    """The times of several candidates, measured side by side: a mapping from each name to its `Timing`.

    Print it to see a table, the fastest candidate first. `compare` returns it.
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
        """The name of the candidate with the lowest median."""
        return min(self, key=lambda name: self[name].median)

    @property
    def finding(self) -> str:
        """Which candidate is the fastest, and by how much, as the title of a figure."""
        best, *level = self.leaders
        if len(self) == 1:
            return f"{best} takes {seconds(self[best].median)}"
        if level:
            tied = f"{', '.join([best, *level[:-1]])} and {level[-1]}"
            return f"No difference between {tied}" + (", the fastest" if len(self) > 1 + len(level) else "")
        second = min(self.keys() - {best}, key=lambda name: self[name].median)
        lead = f"{best} is {faster_by(self.ratio(second, best))} than {second}"
        return lead if len(self) == 2 else f"{lead}, the second fastest"

    @property
    def leaders(self) -> tuple[str, ...]:
        """The fastest candidate, and those for which this run shows no difference from it."""
        best = self.fastest
        return best, *(name for name in self if name != best and self.ratio(name, best).low <= 1)

    def ratio(self, name: str, other: str) -> Ratio:
        """Return the time of `name` divided by that of `other`: the median over rounds, with its interval."""
        return paired_ratio(self[name].times, self[other].times)

    def claim(self, name: str, *, faster_than: str, by: float | None = None) -> Claim:
        """Compare the expectation that a candidate is faster than another with the measurement.

        Args:
            name: The candidate that you expect to be faster.
            faster_than: The candidate to compare it with.
            by: How many times faster it should be, at least. None accepts any difference.

        Returns:
            A claim. Print it to see what was measured, as a sentence. Its `finding` is the same as the title of a
            figure. A contradiction raises no error.
        """
        once = [each for each in (name, faster_than) if self[each].n == 1]
        return recorded(claim_on_time(name, faster_than, self.ratio(faster_than, name), by, once))

    def table(self) -> Table:
        """Return the table with medians, spreads, ratios to the fastest, samples and first calls."""
        columns = ("candidate", "median", "IQR", "ratio to fastest", f"{CONFIDENCE:.0%} interval", "n", "first call")
        rows = tuple(self._row(name) for name in sorted(self, key=lambda name: self[name].median))
        caption = f"{SPREAD} {self.conditions}"
        if len(self) > 1:
            caption = f"{MEANING} {caption}"
        if self.costs is None:
            return Table(columns, rows, caption)
        return Table(columns + Cost.columns, rows, caption)

    @property
    def conditions(self) -> str:
        """Where the times were measured, as a sentence."""
        threads = f"{self.threads} thread" + ("s" if self.threads > 1 else "")
        place = self.environment.accelerator or self.environment.processor
        return f"Measured with {threads}, torch {self.environment.torch}, {place}."

    def _row(self, name: str) -> tuple[str, ...]:
        timing, ratio = self[name], self.ratio(name, self.fastest)
        known = name != self.fastest and ratio.high < inf
        interval = f"{multiple(ratio.low)} to {multiple(ratio.high)}" if known else "–"
        spread = "–" if timing.iqr is None else seconds(timing.iqr)
        times = (seconds(timing.median) + timing.note, spread, multiple(ratio.median))
        row = (name, *times, interval, str(timing.n), seconds(timing.first))
        return row + self.costs[name].cells if self.costs else row

    def beside(self, published: str | Path | Mapping[str, Any]) -> Table:
        """Show this comparison next to a published one of the same candidates.

        Args:
            published: The JSON file that a tutorial links to, as a path or as its content.

        Returns:
            A table with both medians and both ratios to the fastest. If the file has several comparisons of these
            candidates, the one with arguments of the same shapes is used, or else the first.

        Raises:
            ValueError: The file has another version, or no comparison with two of these candidates.
        """
        content = load(published)
        theirs = best_match(content, self, self.arguments)
        medians = {name: theirs["candidates"][name]["median"] for name in self if name in theirs["candidates"]}
        names = sorted(medians, key=lambda name: self[name].median)

        def row(name: str) -> tuple[str, ...]:
            ratios = medians[name] / min(medians.values()), self.ratio(name, names[0]).median
            return name, seconds(medians[name]), seconds(self[name].median), *(f"{ratio:.3g}" for ratio in ratios)

        place = f"{content['environment']['processor']}, torch {content['environment']['torch']}"
        shapes = "" if tuple(theirs["arguments"]) == self.arguments else " The arguments' shapes differ."
        return Table(
            ("candidate", "published", "here", "ratio, published", "ratio, here"),
            tuple(map(row, names)),
            f"Published: {theirs['threads']} thread(s), {place}. Here: {self.conditions}{shapes} The published ratio "
            "is the quotient of the medians, the one here the median over rounds of the ratio within a round.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all samples, the ratios to the fastest and the conditions as plain JSON values."""
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
