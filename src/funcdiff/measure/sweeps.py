"""Compare candidates over a range of sizes, and find where one overtakes another."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from typing import Any, ClassVar

from tqdm import tqdm  # type: ignore[import-untyped] # tqdm ships no types

from funcdiff._tables import Shown, Table, seconds
from funcdiff.measure.comparing import measure
from funcdiff.measure.comparison import Comparison
from funcdiff.measure.recording import recorded

Candidates = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True, repr=False)
class Crossover:
    """The size from which another candidate is the faster one.

    Attributes:
        below: The candidate that is faster at small sizes. None if no size shows a difference.
        above: The candidate that is faster at large sizes. The same as ``below`` if neither overtakes the other.
        size: The size at which the median ratio is 1, interpolated between the sizes measured. None if there is none.
        low: The lower end of the interval of this size. At smaller sizes ``below`` is certainly faster.
        high: The upper end of the interval of this size. At larger sizes ``above`` is certainly faster.
    """

    below: str | None
    above: str | None
    size: float | None = None
    low: float | None = None
    high: float | None = None

    def __repr__(self) -> str:
        """Return what was found, as a sentence."""
        if self.below is None:
            return "This run shows no difference at any size."
        if self.below == self.above:
            return f"{self.below} is faster at every size where this run shows a difference."
        if self.size is None:
            return f"{self.below} and {self.above} overtake each other more than once."
        return f"{self.above} overtakes {self.below} at {self.size:.3g} (interval {self.low:.3g} to {self.high:.3g})."

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, repr=False)
class Sweep(Shown, Mapping[int, Comparison]):
    """Comparisons at several sizes: a mapping from each size to its `Comparison`. Print it to see a table."""

    kind: ClassVar[str] = "sweep"
    label: str
    comparisons: Mapping[int, Comparison]

    def __getitem__(self, size: int) -> Comparison:
        """Return the comparison at that size."""
        return self.comparisons[size]

    def __iter__(self) -> Iterator[int]:
        """Iterate over the sizes, from small to large."""
        return iter(self.comparisons)

    def __len__(self) -> int:
        """Return the number of sizes."""
        return len(self.comparisons)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the candidates, in the order of the first size."""
        return tuple(dict.fromkeys(name for comparison in self.values() for name in comparison))

    @property
    def finding(self) -> str:
        """Which candidate is the fastest at which sizes, as the title of a figure."""
        leaders = {size: comparison.leaders for size, comparison in self.items()}
        alone = {size: names[0] for size, names in leaders.items() if len(names) == 1}
        order = [name for name, _ in groupby(alone.values())]
        if not order:
            return "This run shows no difference between the fastest methods"
        if len(order) == 1:
            where = "every size" if len(alone) == len(self) else f"{len(alone)} of {len(self)} sizes"
            return f"{order[0]} is the fastest at {where}"
        if len(order) == 2:
            small, large = order
            last = max(size for size, name in alone.items() if name == small)
            first = min(size for size, name in alone.items() if name == large)
            return f"{small} is the fastest up to {self.label} = {last}, {large} from {first}"
        return f"The fastest method changes with {self.label}: {', '.join(order)}"

    def crossover(self, name: str, other: str) -> Crossover:
        """Find the size from which one of two candidates is faster than the other.

        The result has an interval. It begins at the last size at which the first candidate is certainly faster, and
        ends at the first size at which the second is. Between sizes, it is interpolated on logarithmic axes.
        """
        sizes = [size for size, comparison in self.items() if name in comparison and other in comparison]
        ratios = [self[size].ratio(name, other) for size in sizes]
        sides = [1 if ratio.low > 1 else -1 if ratio.high < 1 else 0 for ratio in ratios]
        decided = [side for side in sides if side]
        if not decided:
            return Crossover(None, None)
        winner = {-1: name, 1: other}
        below, above = winner[decided[0]], winner[decided[-1]]
        changes = sum(a != b for a, b in pairwise(decided))
        if changes != 1:
            return Crossover(below, above if changes == 0 else winner[-decided[0]])
        rising = decided[0] < 0
        # The bracket: the last size decided for one, and the first decided for the other.
        start = max(i for i, side in enumerate(sides) if side == decided[0])
        stop = min(i for i, side in enumerate(sides) if side == decided[-1])
        bracket = slice(start, stop + 1)
        early = [ratio.high if rising else ratio.low for ratio in ratios[bracket]]
        late = [ratio.low if rising else ratio.high for ratio in ratios[bracket]]
        middle = [ratio.median for ratio in ratios[bracket]]
        size, low, high = (_crossing_of_one(sizes[bracket], curve) for curve in (middle, early, late))
        return Crossover(below, above, size, low, high)

    def table(self) -> Table:
        """Return the median time of each candidate at each size, with the fastest marked."""

        def cell(comparison: Comparison, name: str) -> str:
            if name not in comparison:
                return "over budget"
            timing = comparison[name]
            return ("* " if name == comparison.fastest else "") + seconds(timing.median) + timing.note

        rows = tuple((str(size), *(cell(self[size], name) for name in self.names)) for size in self)
        conditions = next(iter(self.values())).conditions
        return Table((self.label, *self.names), rows, f"Median time of a call; * marks the fastest. {conditions}")

    def to_dict(self) -> dict[str, Any]:
        """Return all comparisons as plain JSON values."""
        points = [{"size": size, **comparison.to_dict()} for size, comparison in self.items()]
        return {"kind": self.kind, "label": self.label, "points": points}


def sweep(
    make: Callable[[int], tuple[Candidates, Sequence[Any]]],
    sizes: Iterable[int],
    *,
    label: str = "size",
    rounds: int = 25,
    threads: int = 1,
    budget: float | None = None,
    seed: int = 0,
    equal: bool = True,
) -> Sweep:
    """Compare candidates at several sizes, to see which is faster at which size.

    Print the result to see a table with one line for each size. `study.crossover(a, b)` says from which size on one of
    two candidates is the faster one.

    Example:
        >>> import torch
        >>> from funcdiff.measure import sweep
        >>> def make(size):
        ...     return {"sum": torch.sum, "mean": lambda x: x.mean() * size}, (torch.ones(size),)
        >>> study = sweep(make, [2, 4], label="inputs n", rounds=8)
        >>> list(study), study.names
        ([2, 4], ('sum', 'mean'))

    Args:
        make: A function that takes a size and returns the candidates and their arguments, as `compare` takes them.
        sizes: The sizes, from small to large.
        label: What the size is, for the axis and the table.
        rounds: As in `compare`.
        threads: As in `compare`.
        budget: As in `compare`. A candidate that takes longer is left out at all larger sizes.
        seed: As in `compare`.
        equal: As in `compare`.

    Returns:
        A `Sweep`. Print it to see a table.

    Raises:
        ValueError: The sizes do not increase, or as in `compare`.
    """
    sizes = list(sizes)
    if not sizes or any(a >= b for a, b in pairwise(sizes)):
        raise ValueError(f"expected one or more sizes, from small to large; got {sizes}")
    comparisons: dict[int, Comparison] = {}
    dropped: set[str] = set()
    for size in tqdm(sizes, desc=label, disable=None, leave=False):
        candidates, args = make(size)
        candidates = {name: candidate for name, candidate in candidates.items() if name not in dropped}
        if not candidates:
            break
        comparison = measure(
            candidates, *args, rounds=rounds, threads=threads, budget=budget, seed=seed, equal=equal, costs=False
        )
        dropped |= {name for name, timing in comparison.items() if timing.cut_off}
        comparisons[size] = comparison
    return recorded(Sweep(label, comparisons))


def _crossing_of_one(sizes: Sequence[int], ratios: Sequence[float]) -> float:
    """Interpolate, on logarithmic axes, where a curve whose ends lie on both sides of 1 last crosses it."""
    logs = [(math.log(size), math.log(ratio)) for size, ratio in zip(sizes, ratios, strict=True)]
    (x, y), (x_next, y_next) = next(
        (a, b) for a, b in reversed(list(pairwise(logs))) if a[1] * b[1] <= 0 and a[1] != b[1]
    )
    return math.exp(x - y * (x_next - x) / (y_next - y))
