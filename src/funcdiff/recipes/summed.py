"""A Jacobian or Hessian for every row of a batch, of a function of the whole batch: by sums over the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from funcdiff._calling.directions import columns, contracted, rows
from funcdiff._calling.options import Options
from funcdiff._calling.plain import plain_vjp
from funcdiff._calling.transform import copied, transform
from funcdiff._calling.types import Blocks, Derivative, Flat, Function, Primals
from funcdiff._torch.transforms import jvp
from funcdiff._torch.trees import Tree, flatten, map_leaves
from funcdiff.recipes.independence import first_order_leak, irregular, leak, only_independent, weighted


def jacobians_by_rows(flat: Flat, primals: Primals, options: Options) -> Derivative:
    """The rows of the sum of the output over the batch, in reverse mode."""
    output, pull, *aux = plain_vjp(flat, *primals, has_aux=options.has_aux)
    found = first_order_leak(pull, output, primals)
    return only_independent(summed_rows(pull, output, primals, options), found), *aux


def derivatives_by_columns(flat: Flat, primals: Primals, options: Options) -> Derivative:
    """The columns of every row at once, in forward mode: all rows of the batch are pushed along the same direction.

    Each pass has a copy of the point, as `flat` may write into its argument.
    """

    def push(*tangents: Tensor) -> tuple[Tree, ...]:
        every_row = tuple(v.expand_as(x) for v, x in zip(tangents, primals, strict=True))
        return jvp(flat, copied(primals), every_row, has_aux=options.has_aux)[1:]  # the slope and the aux

    blocks, *aux = columns(push, [x.sum(0) for x in primals], options)
    return only_independent(blocks, leak_of_columns(flat, primals, blocks, options)), *aux


def hessian_by_columns(func: Function, *args: Any, **options: Any) -> Function:
    """The columns of `jacobians_by_rows`: forward mode over reverse mode."""
    inner = transform(jacobians_by_rows, func, Options(*args, **options))

    def hessian(flat: Flat, primals: Primals, options: Options) -> Derivative:
        flat(*primals)  # refuses a function that mixes rows, which under vmap it could not
        return derivatives_by_columns(flat, primals, options)

    return transform(hessian, inner, Options(*args, **options))


def hessian_by_rows(func: Function, *args: Any, **options: Any) -> Function:
    """The rows of `jacobians_by_rows`: reverse mode over reverse mode."""
    inner = transform(jacobians_by_rows, func, Options(*args, **options))
    return transform(jacobians_by_rows, inner, Options(*args, **options))


def summed_rows(pull: Callable[[Tree], Sequence[Tensor]], output: Tree, primals: Primals, options: Options) -> Blocks:
    """The rows of the sum of the output over the batch, as blocks (B, output, input)."""

    def pull_every_row(cotangents: Tree) -> Sequence[Tensor]:
        return pull(map_leaves(lambda u, y: u.expand_as(y), cotangents, output))

    sums = map_leaves(lambda y: y.sum(0), output)
    blocks = rows(pull_every_row, sums, primals, options)
    return [[block.movedim(y.dim(), 0) for block in row] for row, y in zip(blocks, flatten(sums)[0], strict=True)]


def leak_of_columns(flat: Flat, primals: Primals, blocks: Blocks, options: Options) -> Tensor:
    """The leak between rows in `blocks`, the derivative of `flat` for each row, by one push."""
    direction = [irregular(x.sum(0)) for x in primals]
    probe = tuple(weighted(d[None], len(x)) for d, x in zip(direction, primals, strict=True))
    slope = jvp(flat, copied(primals), probe, has_aux=options.has_aux)[1]
    return leak(flatten(slope)[0], [contracted(row, direction) for row in blocks])
