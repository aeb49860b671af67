"""Costs without noise: what a function computes and holds, counted rather than timed."""

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, overload

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from funcdiff.measure.claims import Claim
from funcdiff.measure.flops import FORMULAS, UNCOUNTED
from funcdiff.measure.recording import recorded
from funcdiff.measure.tables import Shown, Table, amount_of_bytes, amount_of_flops


@dataclass(frozen=True, repr=False)
class Cost(Shown):
    """What one call computes and holds; exact, and the same at every call.

    Attributes:
        flops: Floating-point operations of matrix products and convolutions, 2 for each multiply-add.
        operations: Kernels that write memory; views are free.
        bytes_written: Bytes of what they write; an operation in place counts as a whole.
        peak_bytes: Most bytes alive at once of the tensors made by the call, its result included; what the arguments
            and captured tensors hold is not, nor are workspaces inside a kernel.
        uncounted: Operations met that multiply matrices but have no formula: with one of these, `flops` is a lower
            bound.
    """

    kind: ClassVar[str] = "cost"
    columns: ClassVar[tuple[str, ...]] = ("matrix FLOPs", "operations", "written", "peak")
    flops: int
    operations: int
    bytes_written: int
    peak_bytes: int
    uncounted: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[str, ...]:
        """The counts as they stand in a table, under `columns`."""
        bound = "≥ " if self.uncounted else ""
        sizes = amount_of_bytes(self.bytes_written), amount_of_bytes(self.peak_bytes)
        return f"{bound}{amount_of_flops(self.flops)}", str(self.operations), *sizes

    def table(self) -> Table:
        """Return the counts, one a row."""
        return Table(("cost", ""), tuple(zip(self.columns, self.cells, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Return the counts in plain JSON values."""
        return {"kind": self.kind, **asdict(self), "uncounted": list(self.uncounted)}


@dataclass(frozen=True, repr=False)
class Costs(Shown, Mapping[str, Cost]):
    """Counts of several functions; a mapping from name to `Cost`."""

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
        smaller_peak_than: str | None = None,
        by: float | None = None,
    ) -> Claim:
        """State that a function computes or holds less than another.

        Args:
            name: The function expected to be cheaper.
            fewer_flops_than: The function whose FLOPs it is held against, or
            smaller_peak_than: the function whose peak memory it is held against.
            by: At least so many times; None expects any difference.

        Raises:
            AssertionError: The counts, which have no noise, say otherwise.
            ValueError: Not exactly one of the two is given, or the FLOPs of one are only a lower bound.
        """
        if (fewer_flops_than is None) == (smaller_peak_than is None):
            raise ValueError("expected exactly one of fewer_flops_than and smaller_peak_than")
        if fewer_flops_than is not None:
            return recorded(self._claim(name, fewer_flops_than, "flops", by))
        assert smaller_peak_than is not None
        return recorded(self._claim(name, smaller_peak_than, "peak_bytes", by))

    def _claim(self, name: str, other: str, what: Literal["flops", "peak_bytes"], by: float | None) -> Claim:
        if what == "flops" and (uncounted := self[name].uncounted + self[other].uncounted):
            raise ValueError(f"expected counts that can be compared, but {', '.join(uncounted)} have no FLOP formula")
        less, more = getattr(self[name], what), getattr(self[other], what)
        amount, thing = (amount_of_flops, "computes") if what == "flops" else (amount_of_bytes, "holds at its peak")
        factor = f" at least {by:g} times" if by is not None else ""
        expectation = f"{name} {thing}{factor} less than {other}"
        measured = f"{amount(less)} against {amount(more)}"
        if not (less < more if by is None else less * by <= more):
            raise AssertionError(f"expected: {expectation}; counted: {measured} ({less} and {more})")
        times = f"{more / less:.3g} times less" if less else "nothing"
        return Claim(expectation, "holds", f"{name} {thing} {times} than {other}: {measured}.")

    def table(self) -> Table:
        """Return the counts, one function a row."""
        rows = tuple((name, *cost.cells) for name, cost in self.items())
        return Table(("function", *Cost.columns), rows, "exact counts of one call; 2 FLOPs a multiply-add")

    def to_dict(self) -> dict[str, Any]:
        """Return the counts in plain JSON values."""
        return {"kind": self.kind, "candidates": {name: cost.to_dict() for name, cost in self.items()}}


@overload
def count(func: Callable[..., Any], /, *args: Any) -> Cost: ...


@overload
def count(func: Mapping[str, Callable[..., Any]], /, *args: Any) -> Costs: ...


def count(func: Callable[..., Any] | Mapping[str, Callable[..., Any]], /, *args: Any) -> Cost | Costs:
    """Count what a call computes and holds, under any transform, with modules, on any device.

    On tensors of ``device="meta"`` nothing is computed and nothing held, so a call that would take minutes or not fit
    in memory can be counted.

    Args:
        func: A function, or a mapping of name to function; called as ``func(*args)``.
        *args: The arguments.

    Returns:
        The cost of the function, or of each.

    Raises:
        ValueError: The function is compiled, and so hides its operations.

    >>> x, weight = torch.ones(100, 5, device="meta"), torch.ones(7, 5, device="meta")
    >>> cost = count(torch.nn.functional.linear, x, weight)
    >>> cost.flops == 2 * 100 * 5 * 7, cost.peak_bytes == 4 * 100 * 7
    (True, True)
    """
    return recorded(Costs(count_each(func, *args))) if isinstance(func, Mapping) else recorded(_count(func, *args))


def count_each(functions: Mapping[str, Callable[..., Any]], *args: Any) -> dict[str, Cost]:
    """Count each of several functions, without recording it."""
    return {name: _count(func, *args) for name, func in functions.items()}


def _count(func: Callable[..., Any], *args: Any) -> Cost:
    if hasattr(func, "_torchdynamo_orig_callable") or hasattr(func, "_orig_mod"):
        raise ValueError("expected a function whose operations can be seen; count it before torch.compile")
    collecting = gc.isenabled()
    gc.disable()  # so that what a reference cycle holds is held at every call alike
    try:
        with _Counter() as counter:
            func(*args)
    finally:
        if collecting:
            gc.enable()
    uncounted = tuple(sorted(counter.uncounted))
    return Cost(counter.flops, counter.operations, counter.bytes_written, counter.peak, uncounted)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves its hooks untyped
    """Sees each operation below autograd and vmap, where a batch is one operation on plain tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch leaves it untyped
        self.flops = self.operations = self.bytes_written = self.alive = self.peak = 0
        self.uncounted: set[str] = set()
        self._sizes: dict[int, int] = {}  # of the storages alive that were made inside

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = FORMULAS.get(func.overloadpacket)
        if formula is None:
            with self:  # in inference mode composite operations arrive whole
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        elif UNCOUNTED.match(name):
            self.uncounted.add(name)
        self._see_memory(func, name, args, kwargs, result)
        return result

    def _see_memory(self, func: Any, name: str, args: Any, kwargs: Any, result: Any) -> None:
        held = set() if name == "lift_fresh" else {_key(tensor) for tensor in _tensors((args, kwargs))}
        made = [tensor for tensor in _tensors(result) if _key(tensor) not in held]
        changed = _tensors(_changed(func, args, kwargs))
        for tensor in made:
            self._hold(tensor)
        for tensor in changed:  # it may have been resized
            if _key(tensor) in self._sizes:
                self._hold(tensor)
        if (made or changed) and not name.startswith(("empty", "new_empty")):
            self.operations += 1
            self.bytes_written += sum(tensor.numel() * tensor.element_size() for tensor in [*made, *changed])

    def _hold(self, tensor: torch.Tensor) -> None:
        storage, key = tensor.untyped_storage(), _key(tensor)
        if key not in self._sizes:
            weakref.finalize(storage, self._release, key).atexit = False
        self.alive += storage.nbytes() - self._sizes.get(key, 0)
        self._sizes[key] = storage.nbytes()
        self.peak = max(self.peak, self.alive)

    def _release(self, key: int) -> None:
        self.alive -= self._sizes.pop(key)


def _tensors(tree: Any) -> list[torch.Tensor]:
    # A zero tensor of forward mode has no memory.
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor) and not leaf._is_zerotensor()]


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _changed(func: Any, args: Any, kwargs: Any) -> list[Any]:
    arguments = func._schema.arguments
    given = {argument.name: value for argument, value in zip(arguments, args, strict=False)} | kwargs
    return [given.get(a.name) for a in arguments if a.alias_info is not None and a.alias_info.is_write]
