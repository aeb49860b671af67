"""Rules for products and decompositions of matrices, and for attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from funcdiff._sparse import sets
from funcdiff._sparse.elements import Found, Known, Rule, everything, union
from funcdiff._sparse.sets import Sets
from funcdiff._torch.intercept import Operation


def multiplied(left: str, right: str, bias: str | None = None) -> Rule:
    """A rule for products of matrices, or of stacks of them."""

    def rule(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
        given = operation.given
        (y,) = targets
        a, b = given[left], given[right]
        rows, columns = known.of(a), known.of(b)
        parts = [known.of(given[bias]) if bias else None]
        shape = (*y.shape, *(1,) * (b.ndim == 1))  # of a vector one column
        if a.ndim == 1:
            shape = (1, *shape)
        if rows is not None:
            rows = rows.reshape((1, -1)) if a.ndim == 1 else rows
            parts.append((_through(known, operation, rows, b, columns is None, shape)).reshape(tuple(y.shape)))
        if columns is not None:
            columns = columns.reshape((-1, 1)) if b.ndim == 1 else columns
            turned = Sets(columns.ids.swapaxes(-1, -2), columns.table)
            back = (*shape[:-2], shape[-1], shape[-2])
            other = a.mT if a.ndim > 1 else a
            mixed = _through(known, operation, turned, other, rows is None, back)
            parts.append((Sets(mixed.ids.swapaxes(-1, -2), mixed.table)).reshape(tuple(y.shape)))
        return [union(known, parts, y.shape)]

    return rule


def _through(
    known: Known, operation: Operation, rows: Sets, matrix: Tensor, constant: bool, shape: Sequence[int]
) -> Sets:
    """The sets of `rows @ matrix`, as far as they come from the rows: where the matrix has zeros, none."""
    whole = sets.reduced(rows, (rows.ids.ndim - 1,), known.n)
    if not constant or not matrix.numel() or matrix.ndim == 1:
        return whole.broadcast(shape)
    if matrix.layout is not torch.strided:
        k, j = matrix.detach().to_sparse().coalesce().indices().cpu().numpy()
    elif matrix.ndim > 2 or bool((matrix != 0).all()):
        return whole.broadcast(shape)
    else:
        k, j = (matrix.detach() != 0).nonzero(as_tuple=True)
        k, j = k.cpu().numpy(), j.cpu().numpy()
    count = int(np.prod(shape[:-1], dtype=np.int64))
    if rows.ids.ndim > 2 or count * len(k) > sets.LIMIT or not known.values(matrix, operation.name):
        return whole.broadcast(shape)
    places = np.arange(count)[:, None] * shape[-1] + j
    return sets.united([places], [Sets(rows.ids.reshape(count, -1)[:, k], rows.table)], shape, known.n)


def by_matrix(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each matrix of a stack from the whole matrices at its place in the operands."""
    if operation.name == "_linalg_solve_ex" and operation.tensors[1].shape == operation.tensors[0].shape[:-1]:
        return _by_stack(known, operation.tensors, targets, operation.tensors[0].ndim - 2)
    stacks = [x.shape[:-2] for x in operation.tensors]
    if len(set(stacks)) > 1 or any(x.shape[: len(stacks[0])] != stacks[0] for x in targets):
        return everything(known, operation, targets)
    return _by_stack(known, operation.tensors, targets, len(stacks[0]))


def _by_stack(known: Known, operands: Sequence[Tensor], targets: Sequence[Tensor], depth: int) -> Found:
    """Each place of a stack, which has `depth` axes, from the same place of the operands."""
    parts = []
    for x in operands:
        if (found := known.of(x)) is not None:
            parts.append(sets.reduced(found, range(depth, x.ndim), known.n).reshape(x.shape[:depth]))
    whole = union(known, parts, operands[0].shape[:depth])
    return [whole and whole.reshape((*whole.ids.shape, *(1,) * (x.ndim - depth))).broadcast(x.shape) for x in targets]


def attention(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each query from itself and all keys and values of its head."""
    given = operation.given
    if (
        known.of(given.get("attn_mask"))
        or known.of(given.get("attn_bias"))
        or given["query"].shape[1] != given["key"].shape[1]
    ):
        return everything(known, operation, targets)
    parts = []
    for name in ("query", "key", "value"):
        found = known.of(given[name])
        axes = (3,) if name == "query" else (2, 3)
        parts.append(found and sets.reduced(found, axes, known.n))
    whole = union(known, parts, (*targets[0].shape[:3], 1))
    return [whole and whole.reshape(whole.ids.shape[: x.ndim]).broadcast(x.shape) for x in targets[:2]] + [None] * len(
        targets[2:]
    )
