"""Time several ways of computing one thing against each other."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.utils import _pytree as pytree

from funcdiff.measure.agreement import check_agreement
from funcdiff.measure.claims import Claim, claim_on_time
from funcdiff.measure.counting import Cost, count_each
from funcdiff.measure.provenance import Environment, environment
from funcdiff.measure.ratios import CONFIDENCE, FEWEST_ROUNDS, Ratio, paired_ratio
from funcdiff.measure.recording import recorded
from funcdiff.measure.tables import Shown, Table, seconds
from funcdiff.measure.timing import Call, calls_a_sample, interleaved, quiet, timed

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Timing:
    """The times of one candidate, in seconds a call.

    Attributes:
        times: One a round, each the average over ``calls`` calls.
        calls: Calls in a sample, so many that the clock resolves it.
        first: The very first call, which may trace or compile.
        cut_off: Whether a single call exceeded the budget, so that one sample is all there is.
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
        columns = ("candidate", "median", "IQR", "ratio", f"{CONFIDENCE:.0%} interval", "n", "first call")
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
        label, interval = (f"{name} *" if timing.cut_off else name), f"{ratio.low:.3g} to {ratio.high:.3g}"
        if name == self.fastest:
            interval = ""
        times = (seconds(timing.median), seconds(timing.iqr), f"{ratio.median:.3g}")
        row = (label, *times, interval, str(timing.n), seconds(timing.first))
        return row + self.costs[name].cells if self.costs else row

    def plot(self, ax: "Axes | None" = None, *, title: str | None = None) -> "Axes":
        """Draw the median of each candidate with its quartiles."""
        from funcdiff.plots import plot_comparison  # drawing is optional: measuring must not need matplotlib

        return plot_comparison(self, ax, title=title)

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


def compare(
    candidates: Mapping[str, Callable[..., Any]],
    *args: Any,
    rounds: int = 25,
    threads: int = 1,
    budget: float | None = None,
    seed: int = 0,
    equal: bool = True,
    costs: bool = False,
) -> Comparison:
    """Time candidates against each other on the same arguments.

    The candidates are interleaved, in a random order each round, so that a slow phase of the machine meets them all,
    and their ratio is taken round by round. A sample repeats the call until it lasts about two milliseconds. Garbage
    collection is off, the device is waited for, and the first call, which may compile, is kept apart.

    Args:
        candidates: Name to function; each is called as ``candidate(*args)``.
        *args: The arguments.
        rounds: Samples of each candidate; at least 8, which the interval needs.
        threads: Threads torch computes with meanwhile.
        budget: Seconds; a candidate whose single call (the first apart) takes longer is cut off after that one sample.
        seed: Of the order within the rounds.
        equal: Whether the results must agree before anything is timed; within the square root of the dtype's precision.
        costs: Whether to add exact counts of each candidate, as `count` takes them.

    Returns:
        The comparison. It shows itself as a table.

    Raises:
        ValueError: There is no candidate, an option is out of range, or two results differ.

    >>> x = torch.linspace(0, 1, 8)
    >>> comparison = compare({"square": torch.square, "product": lambda x: x * x}, x, rounds=8)
    >>> sorted(comparison), comparison["square"].n
    (['product', 'square'], 8)
    """
    return recorded(
        measure(candidates, *args, rounds=rounds, threads=threads, budget=budget, seed=seed, equal=equal, costs=costs)
    )


def measure(
    candidates: Mapping[str, Callable[..., Any]],
    *args: Any,
    rounds: int,
    threads: int,
    budget: float | None,
    seed: int,
    equal: bool,
    costs: bool,
) -> Comparison:
    """Do what `compare` says, without recording it."""
    check_options(candidates, rounds=rounds, threads=threads, budget=budget)
    names = list(candidates)
    calls = [partial(candidates[name], *args) for name in names]
    shuffle = random.Random(seed)
    with quiet(threads):
        where = environment()
        firsts = first_calls(names, calls, equal=equal)
        counts, alone = zip(*(calls_a_sample(call, budget) for call in calls), strict=True)
        running = [i for i, over in enumerate(alone) if over is None]
        orders = [shuffle.sample(running, len(running)) for _ in range(rounds)]
        times = interleaved(calls, counts, orders)
    timings = {
        name: Timing(tuple(times[i]) if alone[i] is None else (alone[i],), counts[i], firsts[i], alone[i] is not None)
        for i, name in enumerate(names)
    }
    counted = count_each(candidates, *args) if costs else None
    return Comparison(timings, threads, describe(args), where, counted)


def first_calls(names: Sequence[str], calls: Sequence[Call], *, equal: bool) -> list[float]:
    """Time each candidate's first call, and raise if its result differs from the first candidate's."""
    firsts = []
    for name, call in zip(names, calls, strict=True):
        duration, result = timed(call)
        firsts.append(duration)
        if name == names[0]:
            expected = result
        elif equal:
            check_agreement(names[0], expected, name, result)
    return firsts


def check_options(
    candidates: Mapping[str, Callable[..., Any]], *, rounds: int, threads: int, budget: float | None
) -> None:
    """Raise if there is nothing to compare or an option is out of range."""
    if not candidates:
        raise ValueError("expected at least one candidate, as {'name': function}; got none")
    if rounds < FEWEST_ROUNDS:
        raise ValueError(
            f"expected rounds >= {FEWEST_ROUNDS}, which an interval of {CONFIDENCE:.0%} needs; got {rounds}; "
            "for slow candidates set a budget instead"
        )
    if threads < 1:
        raise ValueError(f"expected threads >= 1, got {threads}")
    if budget is not None and budget <= 0:
        raise ValueError(f"expected a budget above 0 seconds, or None for no limit; got {budget}")


def describe(args: tuple[Any, ...]) -> tuple[str, ...]:
    """Name the dtype and shape of each tensor among the arguments."""
    return tuple(
        f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}"
        for leaf in pytree.tree_leaves(args)
        if isinstance(leaf, torch.Tensor)
    )
