"""J J^T, the tangent kernel, and J^T J, by blocks: the Jacobian is never held as a whole."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from funcdiff._automatic.batches import batch_jacobian
from funcdiff._automatic.budget import largest_chunk
from funcdiff._automatic.choice import VERIFY, jacobian
from funcdiff._automatic.linear import jacobian_operator
from funcdiff._calling.arguments import differentiated, replace_args, select_args
from funcdiff._calling.directions import basis, gathered
from funcdiff._calling.documented import documented
from funcdiff._calling.options import Options, check_argnums, check_chunk_size
from funcdiff._calling.types import Function
from funcdiff._torch.compiler import named_after
from funcdiff._torch.counter import Counter
from funcdiff._torch.trees import Tree, broadcast, flatten, unflatten

Of = Literal["outputs", "inputs"]


@documented(
    "Gram matrix",
    of='"outputs" for J J^T, whose entries belong to pairs of outputs, or "inputs" for J^T J, whose entries belong to '
    "pairs of inputs.",
    in_dims="If `func` takes one row, the axis of each argument that is the batch, as in `batch_jacobian`: (None, 0) "
    "for parameters, which all rows share, and rows of inputs. By default, `func` takes whole arguments.",
    chunk_size="The number of rows of a block: rows of the batch with `in_dims`, and otherwise of the matrix. By "
    "default, the whole Jacobian is held.",
    budget="The bytes that the call may hold in addition to its arguments, including the matrix. The call first runs a "
    "few blocks to count their memory, and then uses the largest blocks that fit.",
    verify=VERIFY,
    raises={
        "ValueError": "`argnums`, `of` or `chunk_size` is out of range, `budget` comes with `chunk_size`, or `in_dims` "
        "makes a differentiated argument a batch.",
        "MemoryError": "The matrix exceeds the budget, alone or together with a block of one row.",
    },
)
def gram_matrix(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    of: Of = "outputs",
    in_dims: Any = None,
    chunk_size: int | None = None,
    budget: float | None = None,
    verify: bool = True,
) -> Function:
    """Compute J J^T or J^T J without holding the Jacobian J: for parameters, J J^T is the empirical tangent kernel.

    Each block is J (J^T E), for some columns E of the identity. For rows of a batch that share their parameters, pass
    `in_dims`: the block of two groups of rows is then the product of their Jacobians, which costs much less than
    passes through the whole batch.

    Source: Jacot, Gabriel and Hongler, "Neural tangent kernel" (2018); Novak, Sohl-Dickstein and Schoenholz, "Fast
    finite width neural tangent kernel" (2022).

    Shapes: (m, m) for m output numbers in all, or (n, n) for n input numbers, in the order of `ravel`. With `in_dims`,
    the outputs of the first row come first.

    Cost: That of the Jacobian and one matrix product. In blocks, 4 F for each row of the matrix. In blocks with
    `in_dims`, the Jacobian of each group of rows is computed once, and for J J^T again for each later group.

    Example:
        For a linear map, J J^T is A A^T.

        >>> import torch
        >>> matrix = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]])
        >>> gram_matrix(lambda x: matrix @ x)(torch.zeros(3))
        tensor([[5., 2.],
                [2., 2.]])
    """
    check_argnums(argnums)
    check_chunk_size(chunk_size)
    if of not in ("outputs", "inputs"):
        raise ValueError(f'expected of to be "outputs" or "inputs", got {of!r}')
    if budget is not None and (chunk_size is not None or not budget > 0):
        raise ValueError(f"expected a positive budget in bytes without chunk_size, got {budget} and {chunk_size}")

    @named_after(func)
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        leaves = differentiated(args, argnums, kwargs)
        if in_dims is not None:
            return _of_rows(_Rows(func, argnums, in_dims, verify, args), of, chunk_size, budget)
        if chunk_size is None and budget is None:
            matrix = _matrix(jacobian(func, argnums, verify=verify)(*args), leaves, 0)
            return matrix @ matrix.mT if of == "outputs" else matrix.mT @ matrix
        return _by_products(func, argnums, of, chunk_size, budget, verify, args)

    return wrapper


def _by_products(
    func: Function,
    argnums: int | tuple[int, ...],
    of: Of,
    chunk_size: int | None,
    budget: float | None,
    verify: bool,
    args: Sequence[Tree],
) -> Tensor:
    """Columns of J (J^T E), or of J^T (J E), a chunk of the identity E at a time."""
    selected = select_args(args, argnums)
    point = (selected,) if isinstance(argnums, int) else selected
    like = flatten(selected)[0][0]

    def of_selected(*moved: Tree) -> Tree:
        return func(*replace_args(args, argnums, moved[0] if isinstance(argnums, int) else moved))

    with Counter() if budget is not None else nullcontext() as counter:
        jacobian = jacobian_operator(of_selected, *point, verify=verify)
        half = jacobian if of == "outputs" else jacobian.T
        size = half.shape[0]

        def block(start: int, stop: int) -> Tensor:
            axes = half.outputs.split(basis([like.new_empty(size)], start, stop)[0])
            return half.outputs.join(half.maps.apply_many(half.maps.adjoint_many(axes)))

        if counter is not None:
            block(0, 1)  # makes what stays in memory for all products
    if budget is not None and counter is not None:
        left = _left(budget, size, like) - counter.alive
        chunk_size, _ = largest_chunk(size, left, 1, lambda count: block(0, count))
    return gathered(lambda *span: [block(*span)], size, Options(chunk_size=chunk_size))[0]


class _Rows:
    """The Jacobians of some rows of a batch, as a matrix."""

    def __init__(
        self, func: Function, argnums: int | tuple[int, ...], in_dims: Any, verify: bool, args: Sequence[Tree]
    ) -> None:
        self.leaves, self.spec = flatten(tuple(args))
        axes = broadcast(in_dims if isinstance(in_dims, int) else tuple(in_dims), self.spec)
        if axes is None:
            raise ValueError(f"expected in_dims that fit the {len(args)} arguments, got {in_dims!r}")
        self.axes = axes
        if any(axis is not None for axis in flatten(select_args(unflatten(axes, self.spec), argnums))[0]):
            raise ValueError(
                "expected the differentiated argument to be shared by all rows, None in in_dims, got an axis: products "
                "of Jacobians with respect to different inputs mean nothing. Use batch_jacobian for those of each row."
            )
        self.count = next((x.shape[axis] for x, axis in zip(self.leaves, axes, strict=True) if axis is not None), 0)
        if not self.count:
            raise ValueError(f"expected in_dims to name the axis of a batch with rows, got {in_dims!r}")
        self.primals = flatten(select_args(args, argnums))[0]
        self.jacobian = batch_jacobian(func, argnums, in_dims, verify=verify)

    def __call__(self, start: int, stop: int) -> Tensor:
        pairs = zip(self.leaves, self.axes, strict=True)
        some = [x if axis is None else x.narrow(axis, start, stop - start) for x, axis in pairs]
        return _matrix(self.jacobian(*unflatten(some, self.spec)), self.primals, 1)


def _of_rows(rows: _Rows, of: Of, chunk_size: int | None, budget: float | None) -> Tensor:
    """The product of the Jacobians of each pair of groups of rows, or the sum over groups."""
    chunk = chunk_size or rows.count
    if budget is not None:
        height, width = rows(0, 1).shape

        def pair(count: int) -> Tensor:
            last = rows(rows.count - count, rows.count)
            return last.mT @ last if of == "inputs" else rows(0, count) @ last.mT

        size = width if of == "inputs" else height * rows.count
        chunk, _ = largest_chunk(rows.count, _left(budget, size, rows.primals[0]), 1, pair)
    spans = [(start, min(start + chunk, rows.count)) for start in range(0, rows.count, chunk)]
    if of == "inputs":
        return functools.reduce(torch.add, (part.mT @ part for part in (rows(*span) for span in spans)))
    width, gram = 0, torch.empty(0)
    for i, (start, stop) in enumerate(spans):
        mine = rows(start, stop)
        if not i:
            width = len(mine) // stop
            gram = mine.new_empty(width * rows.count, width * rows.count)
        here = slice(width * start, width * stop)
        gram[here, here] = mine @ mine.mT
        for other in spans[:i]:
            there = slice(width * other[0], width * other[1])
            gram[here, there] = mine @ rows(*other).mT
            gram[there, here] = gram[here, there].mT
    return gram


def _left(budget: float, size: int, like: Tensor) -> float:
    """The bytes that remain beside the matrix."""
    whole = size**2 * like.element_size()
    if whole > budget:
        raise MemoryError(f"expected a matrix within the budget of {budget:,.0f} bytes, got {whole:,} bytes")
    return budget - whole


def _matrix(derivative: Tree, primals: Sequence[Tensor], batch: int) -> Tensor:
    """The blocks of a Jacobian, or of that of each row of a batch, as one matrix."""
    blocks = flatten(derivative)[0]
    pairs = zip(blocks, itertools.cycle(primals), strict=False)
    flat = [block.flatten(block.dim() - x.dim()) if x.dim() else block[..., None] for block, x in pairs]
    flat = [block.reshape(*block.shape[:batch], math.prod(block.shape[batch:-1]), block.shape[-1]) for block in flat]
    count = len(primals)
    rows = [torch.cat(flat[i : i + count], -1) for i in range(0, len(flat), count)]
    whole = torch.cat(rows, -2)
    return whole.flatten(0, 1) if batch else whole
