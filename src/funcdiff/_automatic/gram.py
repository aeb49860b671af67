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
    of='"outputs" for J J^T, with one entry for each pair of outputs, or "inputs" for J^T J, with one entry for each '
    "pair of inputs.",
    in_dims="Pass it if `func` takes one row of a batch. It says which axis of each argument is the batch, as in "
    "`batch_jacobian`: (None, 0) for parameters, which all rows share, and inputs. By default, `func` takes its "
    "arguments whole.",
    chunk_size="How many rows to compute at once: rows of the batch with `in_dims`, and rows of the matrix "
    "otherwise. By default, the whole Jacobian is computed.",
    budget="The number of bytes that the call may allocate in addition to its arguments, including the result. The "
    "call first runs a few blocks to count their memory, and then uses the largest blocks that fit.",
    verify=VERIFY,
    raises={
        "ValueError": "`argnums`, `of` or `chunk_size` has a value that is not allowed, both `budget` and "
        "`chunk_size` are given, or `in_dims` gives a differentiated argument a batch axis.",
        "MemoryError": "The matrix does not fit into the budget, alone or together with a block of one row.",
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
    """Compute :math:`J J^T` or :math:`J^T J` from the Jacobian J of `func`.

    With `chunk_size` or `budget`, J is never stored whole. J J^T has the shape (m, m), for m numbers in the output, and
    J^T J the shape (n, n), for n numbers in the input. For the parameters of a network, J J^T is its neural tangent
    kernel: it says how similar two rows of data look to it.

    Example:
        For a linear map, :math:`J J^T` is :math:`A A^T`.

        >>> import torch
        >>> from funcdiff import gram_matrix
        >>> matrix = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]])
        >>> gram_matrix(lambda x: matrix @ x)(torch.zeros(3))
        tensor([[5., 2.],
                [2., 2.]])

        The tangent kernel of a linear layer with a bias at three rows is :math:`x^T x' + 1`.

        >>> from funcdiff import module_function
        >>> network, parameters = module_function(torch.nn.Linear(2, 1))
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
        >>> gram_matrix(network, in_dims=(None, 0))(parameters, rows)
        tensor([[2., 1., 2.],
                [1., 5., 3.],
                [2., 3., 3.]])

    Method:
        Entries are in the order of `ravel`. With `in_dims`, the outputs of the first row come first. By default, J is
        computed and multiplied. In blocks, a few columns of the matrix are computed at a time as J (J^T E), where E are
        columns of the identity. With `in_dims`, a block is the product of the Jacobians of two groups of rows.

    Cost:
        That of the Jacobian and one matrix product. In blocks, as much arithmetic as 4 evaluations of `func` for each
        row of the matrix. In blocks with `in_dims`, the Jacobian of each group of rows once, and for J J^T once more
        for each later group.

    Source:
        Jacot, Gabriel and Hongler, "Neural tangent kernel" (2018). Novak, Sohl-Dickstein and Schoenholz, "Fast finite
        width neural tangent kernel" (2022).
    """
    check_argnums(argnums)
    check_chunk_size(chunk_size)
    if of not in ("outputs", "inputs"):
        raise ValueError(f'expected of to be "outputs" or "inputs", got {of!r}')
    if budget is not None and (chunk_size is not None or not budget > 0):
        raise ValueError(
            f"expected a positive budget and no chunk_size, got budget={budget} and chunk_size={chunk_size}"
        )

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
        raise MemoryError(f"the matrix needs {whole:,} bytes, and the budget is {budget:,.0f} bytes")
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
