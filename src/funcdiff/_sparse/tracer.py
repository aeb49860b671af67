"""Which inputs each output may depend on, by running the function once.

NOTE [by storage]. Sets of inputs are kept for the elements of each storage, not of each tensor. A view is then another
look at the same sets, and what is written in place into a view is seen by all of them.

NOTE [values]. What an operation moves may depend on values: an index, the zeros of a kernel. Those of tensors that the
function makes itself are the same at the next call. Those of other tensors may change, which is noted: such a pattern
must be checked against every result. Values that depend on the input are not used; a rule then takes all that may be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from funcdiff._sparse import sets
from funcdiff._sparse.elements import constant, everything, pointwise
from funcdiff._sparse.pattern import Pattern
from funcdiff._sparse.rules import RULES, STILL
from funcdiff._sparse.sets import Sets, Table, TooManyError
from funcdiff._torch.intercept import Intercept, Operation, storage_of, when_freed
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.trees import Tree, flatten, tree_leaves

_MADE, _OTHERS, _INPUT = range(3)  # where the values of a tensor come from


@dataclass(frozen=True)
class Traced:
    """A pattern, and what it rests on.

    Attributes:
        pattern: Which output may depend on which input.
        values: The operations that used values of tensors which the function did not make itself.
        unknown: The operations without a rule: all that they return was taken to depend on all that they are given.
    """

    pattern: Pattern
    values: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()


@dataclass
class _Memory:
    """The sets of the elements of one storage, `unit` bytes each."""

    ids: sets.Ints
    table: Table
    unit: int


@dataclass
class Trace:
    """What is known of each storage while the function runs; rules ask here."""

    n: int
    memory: dict[int, _Memory] = field(default_factory=dict)
    source: dict[int, int] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    open: set[Any] = field(default_factory=set)  # operations that are being taken apart, some into themselves

    def begin(self, primals: Sequence[Tensor]) -> None:
        """Give each element of the primals its own set."""
        table, start = Table.singletons(self.n), 1
        for x in primals:
            self.put(x, Sets(np.arange(start, start + x.numel()).reshape(x.shape), table))
            self.source[storage_of(x)] = _INPUT
            start += x.numel()

    def of(self, x: Any) -> Sets | None:
        """The sets of a tensor's elements; None if they are constants."""
        found = self.memory.get(storage_of(x)) if isinstance(x, Tensor) and x.layout is torch.strided else None
        if found is None:
            return None
        found = self._in_units(found, x.element_size())
        ids = _elements(found.ids, x)
        return Sets(ids, found.table) if ids.any() else None

    def put(self, x: Tensor, new: Sets | None) -> None:
        """Write the sets of a tensor's elements into its storage."""
        key = storage_of(x)
        size = x.untyped_storage().nbytes() // x.element_size()
        if x.numel() == size and x.is_contiguous():  # all of it
            self._keep(
                x,
                None
                if new is None
                else _Memory(np.ascontiguousarray(new.ids).reshape(-1), new.table, x.element_size()),
            )
            return
        old = self.memory.get(key)
        if old is None and new is None:
            return
        before = (
            self._in_units(old, x.element_size()) if old else _Memory(np.zeros(size, np.int64), Table.singletons(0), 0)
        )
        fresh = new or Sets(np.zeros(tuple(x.shape), np.int64), before.table)
        (ids, now), table = sets.joined([Sets(before.ids, before.table), fresh])
        ids = ids.copy()
        _elements(ids, x)[...] = now
        self._keep(x, _Memory(ids, table, x.element_size()))

    def values(self, x: Tensor, name: str) -> bool:
        """Whether an operation may use the values of a tensor to tell what it moves."""
        source = self.source_of(x)
        if source == _OTHERS:
            self.used.add(name)
        return source != _INPUT

    def source_of(self, x: Tensor) -> int:
        if x.layout is not torch.strided:
            return _OTHERS
        return self.source.get(storage_of(x), _OTHERS)

    def _keep(self, x: Tensor, found: _Memory | None) -> None:
        key = storage_of(x)
        if found is None:
            self.memory.pop(key, None)
            return
        self.memory[key] = found

    def watch(self, x: Tensor, source: int) -> None:
        """Note where the values of a new tensor come from, until its memory is freed."""
        key = storage_of(x)
        if key not in self.source:
            when_freed(x, self._forget)
        self.source[key] = source

    def _forget(self, key: int) -> None:
        self.memory.pop(key, None)
        self.source.pop(key, None)

    def _in_units(self, found: _Memory, unit: int) -> _Memory:
        """The same sets for elements of another size: complex numbers as pairs, and back."""
        if found.unit in (unit, 0):
            return found
        if found.unit > unit:
            return _Memory(np.repeat(found.ids, found.unit // unit), found.table, unit)
        groups = Sets(found.ids.reshape(-1, unit // found.unit), found.table)
        whole = sets.reduced(groups, (1,), self.n)
        return _Memory(whole.ids.reshape(-1), whole.table, unit)


def trace(func: Callable[..., Tree], primals: Sequence[Tensor]) -> Traced:
    """The pattern of the Jacobian of `func`, of tensors that are its own to write to.

    Raises:
        RefusedError: The sets grow beyond what memory is for; the message names the operation.
    """
    known = Trace(sum(x.numel() for x in primals))
    known.begin(primals)
    mode = Intercept(lambda operation: _see(known, operation, mode))
    with mode:
        outputs = flatten(func(*primals))[0]
    found = [known.of(y) or Sets(np.zeros(tuple(y.shape), np.int64), Table.singletons(0)) for y in outputs]
    pattern = Pattern.of_sets([part.reshape((-1,)) for part in found], known.n)
    return Traced(pattern, frozenset(known.used), frozenset(known.unknown))


def _see(known: Trace, operation: Operation, mode: Intercept) -> Any:
    """Run one operation, and note what its results depend on."""
    if operation.name in STILL:
        return operation.run()
    moving = any(known.of(x) is not None for x in operation.tensors)
    rule = None
    if moving and not operation.foreign:
        rule = RULES.get(operation.name) or (pointwise if operation.pointwise else None)
        parts = operation.parts if rule is None and operation.func not in known.open else None
        if parts is not None:
            known.open.add(operation.func)
            try:
                with mode:
                    result = parts(*operation.args, **operation.kwargs)
            finally:
                known.open.remove(operation.func)
            if result is not NotImplemented:
                return result
    given = {storage_of(x) for x in operation.tensors if x.layout is torch.strided}
    result, written = operation.run(), operation.written
    made = [x for x in tree_leaves(result) if isinstance(x, Tensor) and x.layout is torch.strided]
    targets = [*written, *(x for x in made if storage_of(x) not in given)]
    source = _MADE if rule is constant else max((known.source_of(x) for x in operation.tensors), default=_MADE)
    floating = [x for x in targets if x.is_floating_point() or x.is_complex()]
    found: Sequence[Sets | None] = [None] * len(floating)
    if moving and floating:
        if rule is None:
            known.unknown.add(operation.name)
        try:
            found = (rule or everything)(known, operation, floating)
        except TooManyError as error:
            raise RefusedError(
                f"the matrix is not sparse: after the operation {operation.name}, outputs depend on {error} inputs in "
                "all. Use jacobian or hessian, use products (hvp, jvp), or take this term out of func"
            ) from None
    for x in written:
        known.watch(x, max(source, known.source_of(x)))
    for x in targets[len(written) :]:
        known.watch(x, source)
    for x, new in zip(floating, found, strict=True):
        known.put(x, new)
    return result


def _elements(ids: sets.Ints, x: Tensor) -> sets.Ints:
    """The part of an array for a whole storage that a tensor looks at, in the tensor's shape."""
    unit = ids.itemsize if x.numel() else 0
    strides = [stride * unit for stride in x.stride()]
    return np.ndarray(x.shape, ids.dtype, ids, x.storage_offset() * unit, strides)  # a tenth of as_strided's time
