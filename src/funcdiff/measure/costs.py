"""Exact costs of functions, and claims that they must bear out."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from funcdiff._tables import Shown, Table, amount_of_bytes, amount_of_flops, multiple
from funcdiff.measure.claims import Claim, check_factor
from funcdiff.measure.recording import recorded


@dataclass(frozen=True, repr=False)
class Cost(Shown):
    """What one call computes and what memory it needs. The counts are exact and the same at every call.

    Attributes:
        flops: The floating-point operations of matrix products and convolutions. A multiply-add counts as 2.
        operations: The number of operations that write memory. Views are not counted.
        bytes_written: The bytes that these operations write. An operation in place counts all bytes of its tensor.
        peak_bytes: The largest number of bytes in use at once by tensors that the call made, including its result.
            Arguments, captured tensors and memory inside an operation are not counted.
        uncounted: Operations that multiply matrices but have no formula. If there are any, `flops` is a lower bound.
        collectives: The number of calls of torch.distributed that send something.
        bytes_sent: What this process sends in these calls over a ring. For a sum of N bytes on P processes, it is 2 N
            (P - 1) / P.
    """

    kind: ClassVar[str] = "cost"
    columns: ClassVar[tuple[str, ...]] = ("matrix FLOPs", "operations", "written", "peak")
    flops: int
    operations: int
    bytes_written: int
    peak_bytes: int
    uncounted: tuple[str, ...] = ()
    collectives: int = 0
    bytes_sent: int = 0

    @property
    def cells(self) -> tuple[str, ...]:
        """The counts as texts, in the order of ``columns``."""
        bound = "≥ " if self.uncounted else ""
        sizes = amount_of_bytes(self.bytes_written), amount_of_bytes(self.peak_bytes)
        return f"{bound}{amount_of_flops(self.flops)}", str(self.operations), *sizes

    @property
    def sent(self) -> str:
        """What is sent to other processes, as a text."""
        return f"{amount_of_bytes(self.bytes_sent)} in {self.collectives}" if self.collectives else "–"

    def table(self) -> Table:
        """Return the counts as a table, one in each row."""
        rows = tuple(zip(self.columns, self.cells, strict=True))
        return Table(("cost", ""), (*rows, ("sent", self.sent)) if self.collectives else rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON values."""
        return {"kind": self.kind, **asdict(self), "uncounted": list(self.uncounted)}


# What a claim may be about: how its sentence compares, and how its amount is written.
_QUANTITIES: Mapping[str, tuple[str, Callable[[int], str]]] = {
    "flops": ("needs {}fewer FLOPs", amount_of_flops),
    "operations": ("runs {}fewer operations", str),
    "peak_bytes": ("has a {}lower peak", amount_of_bytes),
}


@dataclass(frozen=True, repr=False)
class Costs(Shown, Mapping[str, Cost]):
    """The counts of several functions: a mapping from each name to its `Cost`. Print it to see a table."""

    kind: ClassVar[str] = "costs"
    costs: Mapping[str, Cost]

    def __getitem__(self, name: str) -> Cost:
        """Return the counts of the function of that name."""
        return self.costs[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.costs)

    def __len__(self) -> int:
        """Return the number of functions."""
        return len(self.costs)

    def claim(
        self,
        name: str,
        *,
        fewer_flops_than: str | None = None,
        fewer_operations_than: str | None = None,
        smaller_peak_than: str | None = None,
        by: float | None = None,
    ) -> Claim:
        """Check that a function costs less than another. Pass exactly one of the three options with "than".

        Args:
            name: The function that you expect to cost less.
            fewer_flops_than: The function that needs more FLOPs.
            fewer_operations_than: The function that runs more operations.
            smaller_peak_than: The function with the higher peak of memory.
            by: How many times less it should cost, at least. None accepts any difference.

        Returns:
            A claim. Print it to see the counts, as a sentence. Its `finding` is the same as the title of a figure.

        Raises:
            AssertionError: The function does not cost less.
            ValueError: Not exactly one of the three options is given, or one of the FLOPs is only a lower bound.
        """
        check_factor(by)
        others = {"flops": fewer_flops_than, "operations": fewer_operations_than, "peak_bytes": smaller_peak_than}
        given = [(what, other) for what, other in others.items() if other is not None]
        if len(given) != 1:
            raise ValueError(
                "expected exactly one of fewer_flops_than, fewer_operations_than and smaller_peak_than; "
                f"got {len(given)}"
            )
        ((what, other),) = given
        return recorded(self._claim(name, other, what, by))

    def _claim(self, name: str, other: str, what: str, by: float | None) -> Claim:
        if what == "flops" and (uncounted := self[name].uncounted + self[other].uncounted):
            raise ValueError(
                f"expected FLOPs that are exact, but {', '.join(uncounted)} have no FLOP formula. "
                "Compare operations or peaks"
            )
        compared, amount = _QUANTITIES[what]
        less, more = getattr(self[name], what), getattr(self[other], what)
        expectation = f"{name} {compared.format(f'at least {multiple(by)}× ' if by is not None else '')} than {other}"
        counted = f"{amount(less)} against {amount(more)}"
        if not (less < more if by is None else less * by <= more):
            raise AssertionError(f"expected: {expectation}; counted: {counted} ({less} and {more})")
        finding = f"{name} {compared.format(f'{multiple(more / less)}× ' if less else '')} than {other}"
        return Claim(expectation, "holds", f"{finding}: {counted}.", finding)

    def table(self) -> Table:
        """Return the counts as a table, one function in each row."""
        sends = any(cost.collectives for cost in self.values())
        columns = ("function", *Cost.columns, *(["sent"] if sends else []))
        rows = tuple((name, *cost.cells, *([cost.sent] if sends else [])) for name, cost in self.items())
        told = " Sent is what one process sends, in so many calls." if sends else ""
        return Table(columns, rows, f"Exact counts of one call. A multiply-add counts as 2 FLOPs.{told}")

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON values."""
        return {"kind": self.kind, "candidates": {name: cost.to_dict() for name, cost in self.items()}}
