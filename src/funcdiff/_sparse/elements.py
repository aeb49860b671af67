"""Rules: from which elements of its operands each element of an operation's result is computed.

A rule is given what is known so far, the operation and the tensors that it wrote, and returns the sets of their
elements. It may return more than there is, never less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from funcdiff._sparse import sets
from funcdiff._sparse.sets import Sets
from funcdiff._torch.intercept import Operation
from funcdiff._torch.trees import tree_leaves, tree_map


class Known(Protocol):
    """What rules ask for; see `tracer.Trace`."""

    n: int

    def of(self, x: Any) -> Sets | None:
        """The sets of a tensor's elements; None if they are constants."""

    def values(self, x: Tensor, name: str) -> bool:
        """Whether the values of a tensor may be used."""


Found = Sequence[Sets | None]
Rule = Callable[[Known, Operation, Sequence[Tensor]], Found]


def constant(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """New tensors that have only their shape from the operand."""
    return [None] * len(targets)


def everything(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each element of the results may depend on all inputs that the operands depend on."""
    whole = union(known, [all_of(known, x) for x in operation.tensors], ())
    return [whole and whole.broadcast(x.shape) for x in targets]


def pointwise(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each element from one element of each operand, which broadcast."""
    parts = [known.of(x) for x in operation.tensors]
    return [union(known, parts, x.shape) for x in targets]


def same(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """The elements of one operand in their order; of those written to, the other."""
    found = known.of(operation.tensors[-1 if operation.written else 0])
    if found is not None and found.ids.size == targets[0].numel():
        found = found.reshape(targets[0].shape)
    return [found and found.broadcast(targets[0].shape)]


def moved(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each element from one element of one operand: the operation moves the ids of the sets as it moves numbers."""
    given = operation.given
    indices = [x for x in operation.tensors if not x.is_floating_point() and not x.is_complex()]
    if not all(known.values(x, operation.name) for x in indices):
        return everything(known, operation, targets)
    floating = [x for x in tree_leaves(given) if isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())]
    parts = [known.of(x) or Sets(np.zeros(tuple(x.shape), np.int64), sets.Table.singletons(0)) for x in floating]
    ids, table = sets.joined(parts)
    stand_ins = {
        id(x): torch.tensor(i, dtype=torch.float64, device=x.device) for x, i in zip(floating, ids, strict=True)
    }
    changed = tree_map(lambda leaf: stand_ins.get(id(leaf), leaf), given)
    changed |= {name: 0 for name in ("value", "fill_value") if isinstance(given.get(name), (int, float))}
    results = [x for x in tree_leaves(operation.run(changed)) if x.is_floating_point()]
    return [Sets(x.cpu().numpy().astype(np.int64), table) for x in results]


def over(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """One element from all along some axes."""
    given = operation.given
    found = known.of(given["self"])
    if found is None:
        return everything(known, operation, targets)
    whole = sets.reduced(found, _axes(given.get("dim"), found.ids.ndim), known.n)
    return [whole.reshape(x.shape) for x in targets]


def along(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each element from all along some axes, which stay or have another length."""
    given = operation.given
    shape = np.broadcast_shapes(*(tuple(x.shape) for x in operation.tensors))
    found = union(known, [known.of(x) for x in operation.tensors], shape)
    if found is None:
        return [None] * len(targets)
    whole = sets.reduced(found, _axes(given.get("dim", -1), len(shape)), known.n)
    return [whole.reshape(x.shape) if whole.ids.size == x.numel() else whole.broadcast(x.shape) for x in targets]


def so_far(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each element from those up to its place along an axis."""
    given = operation.given
    found = known.of(given["self"])
    if found is None or not found.ids.ndim:
        return [found] * len(targets)
    axis = given["dim"]
    length = found.ids.shape[axis]
    if found.ids.size * (length + 1) // 2 > sets.LIMIT:
        raise sets.TooManyError(f"{found.ids.size * (length + 1) // 2:,}")
    later, earlier = np.tril_indices(length)
    places = np.moveaxis(np.arange(found.ids.size).reshape(found.ids.shape), axis, -1)
    ids = np.moveaxis(found.ids, axis, -1)
    whole = sets.united([places[..., later]], [Sets(ids[..., earlier], found.table)], found.ids.shape, known.n)
    return [whole] * len(targets)


def sent(
    places: Callable[[Tensor, dict[str, Any]], Tensor], source: str, target: str = "self", *, replace: bool = False
) -> Rule:
    """A rule for elements that an index sends to places: `places` moves the numbers of the places.

    What is sent to one place is united, as autograd sends the gradient back to all of it, also where only one stays.
    With `replace`, what was there before is gone.
    """

    def rule(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
        given = operation.given
        indices = [x for x in operation.tensors if not x.is_floating_point()]
        if not all(known.values(x, operation.name) for x in indices):
            return everything(known, operation, targets)
        (y,) = targets
        own, here = known.of(given.get(target)), torch.arange(y.numel(), device=y.device).reshape(y.shape)
        parts, numbers = [], []
        to = places(here, given).cpu().numpy()
        if own is not None and replace:
            own = Sets(own.ids.copy(), own.table)
            own.ids.flat[to.ravel()] = 0
        if (new := known.of(given.get(source))) is not None:
            if operation.name.startswith("scatter"):
                new = Sets(new.ids[tuple(map(slice, to.shape))], new.table)
            parts.append(new.broadcast(to.shape))
            numbers.append(to)
        if own is not None:
            parts.append(own)
            numbers.append(here.cpu().numpy())
        return [sets.united(numbers, parts, y.shape, known.n)] if parts else [None]

    return rule


def put(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Elements set, or added, at an index."""
    replace = not operation.given["accumulate"]
    return sent(lambda here, given: here[tuple(_indices(given))], "values", replace=replace)(known, operation, targets)


def scattered(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Elements set at an index along an axis."""
    if operation.given.get("reduce"):
        return everything(known, operation, targets)
    rule = sent(lambda here, given: here.gather(given["dim"], given["index"]), "src", replace=True)
    return rule(known, operation, targets)


def all_of(known: Known, x: Tensor) -> Sets | None:
    found = known.of(x)
    return found and sets.reduced(found, range(found.ids.ndim), known.n).reshape(())


def union(known: Known, parts: Sequence[Sets | None], shape: Sequence[int]) -> Sets | None:
    present = [part for part in parts if part is not None]
    return sets.elementwise(present, tuple(shape), known.n) if present else None


def _axes(dim: Any, count: int) -> tuple[int, ...]:
    """Axes from 0; all where none is named."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return tuple(range(count))
    many = dim if isinstance(dim, (list, tuple)) else [dim]
    return tuple(axis % count for axis in many) if count else ()


def _indices(given: dict[str, Any]) -> list[Any]:
    return [slice(None) if index is None else index for index in given["indices"]]
