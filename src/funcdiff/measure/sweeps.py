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
    """The size from which another candidate is the faster.

    Attributes:
        below: The candidate that is faster at small sizes; None where no difference was found at any size.
        above: The candidate that is faster at large sizes; the same as ``below`` where none overtakes the other.
        size: Where the median ratio crosses 1, interpolated between the sizes measured; None without a crossing.
        low: Least size at which the crossing may be: up to it ``below`` is the faster beyond doubt.
        high: Largest size at which it may be: from it on ``above`` is the faster beyond doubt.
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
        """Return the fields in plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, repr=False)
class Sweep(Shown, Mapping[int, Comparison]):
    """Comparisons over sizes; a mapping from size to `Comparison`."""

    kind: ClassVar[str] = "sweep"
    label: str
    comparisons: Mapping[int, Comparison]

    def __getitem__(self, size: int) -> Comparison:
        """Return the comparison made at that size."""
        return self.comparisons[size]

    def __iter__(self) -> Iterator[int]:
        """Iterate over the sizes, from small to large."""
        return iter(self.comparisons)

    def __len__(self) -> int:
        """Return the number of sizes."""
        return len(self.comparisons)

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates' names, those of the first size first."""
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
        """Find where one of two candidates overtakes the other.

        The interval reaches from where the bounds of the ratio leave 1 on one side to where they leave it on the
        other; between sizes it is interpolated on logarithmic axes.
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
        """Return the median time of each candidate at each size, the fastest marked."""

        def cell(comparison: Comparison, name: str) -> str:
            if name not in comparison:
                return "over budget"
            timing = comparison[name]
            return ("< " if name == comparison.fastest else "") + seconds(timing.median) + timing.note

        rows = tuple((str(size), *(cell(self[size], name) for name in self.names)) for size in self)
        conditions = next(iter(self.values())).conditions
        return Table((self.label, *self.names), rows, f"Median time of a call; < marks the fastest. {conditions}")

    def to_dict(self) -> dict[str, Any]:
        """Return all comparisons in plain JSON values."""
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
    """Compare candidates at each of several sizes.

    Args:
        make: From a size to the candidates and the arguments they are called with.
        sizes: From small to large.
        label: What the size is, as the axis and the table name it.
        rounds: As in `compare`.
        threads: As in `compare`.
        budget: As in `compare`; a candidate that is cut off is left out at all larger sizes.
        seed: As in `compare`.
        equal: As in `compare`.

    Returns:
        The comparisons. They show themselves as a table.

    Raises:
        ValueError: The sizes do not increase, or as in `compare`.

    >>> import torch
    >>> def make(size):
    ...     return {"sum": torch.sum, "mean": lambda x: x.mean() * size}, (torch.ones(size),)
    >>> study = sweep(make, [2, 4], label="inputs n", rounds=8)
    >>> list(study), study.names
    ([2, 4], ('sum', 'mean'))
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
