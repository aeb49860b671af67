"""A Jacobian or Hessian for every row of a batch, of a function of the whole batch: by sums over the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from funcdiff._calling.directions import columns, contracted, rows
from funcdiff._calling.documented import documented
from funcdiff._calling.options import Options
from funcdiff._calling.transform import transform
from funcdiff._calling.types import Blocks, Derivative, Flat, Function, Primals
from funcdiff._torch.transforms import jvp, vjp
from funcdiff._torch.trees import Tree, flatten, map_leaves
from funcdiff.recipes.independence import first_order_leak, irregular, leak, only_independent, weighted
from funcdiff.recipes.jacobians import IN_BACKWARD, ROWS

MIXED = {
    "ValueError": "The rows mix (the message says how much), the output does not have a row for each row of the input, "
    "or an option is out of range."
}


@documented("Jacobians", chunk_size=ROWS, randomness=IN_BACKWARD, raises=MIXED)
def batch_jacobian_summed(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute a Jacobian for every row of a batch from a function of the whole batch: by rows of its sum.

    If each output row depends on its own input row alone, the other rows contribute zeros to the sum. Then m backward
    passes over the batch give all B Jacobians, and `func` needs no vmap.

    A function that mixes rows (batch norm in training mode, attention or a mean over the batch) would get wrong numbers
    this way. Two more backward passes find such a function, and it is refused; NOTE [rows that mix] in
    `funcdiff/recipes/independence.py` explains how. Inside vmap, grad and torch.compile, where the result of the check
    cannot be read, the Jacobians of such a function are all NaN.

    Shapes: (B, output, input). `func` and the differentiated arguments have the batch as axis 0.

    Cost: One forward pass and m + 2 backward passes of the batch.

    Example:
        The derivative of x^2 is 2 x, for each of two rows.

        >>> import torch
        >>> batch_jacobian_summed(torch.square)(torch.tensor([[1.0], [3.0]]))
        tensor([[[2.]],
        <BLANKLINE>
                [[6.]]])
    """

    def jacobian(flat: Flat, primals: Primals, options: Options) -> Derivative:
        output, pull, *aux = vjp(flat, *primals, has_aux=options.has_aux)
        found = first_order_leak(pull, output, primals)
        return only_independent(summed_rows(pull, output, primals, options), found), *aux

    return transform(jacobian, func, Options(argnums, has_aux, chunk_size, randomness))


@documented(
    "Hessians",
    chunk_size="The number of rows, and then of columns, to compute at once for the whole batch, by default all.",
    raises={**MIXED, "NotImplementedError": "An operation in `func` has no forward derivative."},
)
def batch_hessian_summed(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute a Hessian for every row of a batch from a function of the whole batch: by columns.

    The columns are those of `batch_jacobian_summed`. All rows of the batch are pushed along the same direction at once,
    in n forward passes over the m backward ones. A
    function that mixes rows, in its first derivatives or in its second ones, is refused.

    Shapes: (B, output, input, input). `func` and the differentiated arguments have the batch as axis 0.

    Cost: That of `hessian_forward_over_reverse` for a batch, and one more direction.

    Example:
        The Hessian of the sum of cubes has 6 x on its diagonal, for each of two rows.

        >>> import torch
        >>> batch_hessian_summed(lambda x: x.pow(3).sum(1))(torch.tensor([[1.0], [2.0]]))
        tensor([[[ 6.]],
        <BLANKLINE>
                [[12.]]])
    """

    def hessian(flat: Flat, primals: Primals, options: Options) -> Derivative:
        flat(*primals)  # refuses a function that mixes rows, which under vmap it could not

        def push(*tangents: Tensor) -> tuple[Tree, ...]:
            every_row = tuple(v.expand_as(x) for v, x in zip(tangents, primals, strict=True))
            return jvp(flat, primals, every_row, has_aux=options.has_aux)[1:]  # the slope and the aux

        blocks, *aux = columns(push, [x.sum(0) for x in primals], options)
        return only_independent(blocks, second_order_leak(flat, primals, blocks, options)), *aux

    options = Options(argnums, has_aux, chunk_size, randomness)
    return transform(hessian, batch_jacobian_summed(func, **options), options)


def summed_rows(pull: Callable[[Tree], Sequence[Tensor]], output: Tree, primals: Primals, options: Options) -> Blocks:
    """The rows of the sum of the output over the batch, as blocks (B, output, input)."""

    def pull_every_row(cotangents: Tree) -> Sequence[Tensor]:
        return pull(map_leaves(lambda u, y: u.expand_as(y), cotangents, output))

    sums = map_leaves(lambda y: y.sum(0), output)
    blocks = rows(pull_every_row, sums, primals, options)
    return [[block.movedim(y.dim(), 0) for block in row] for row, y in zip(blocks, flatten(sums)[0], strict=True)]


def second_order_leak(flat: Flat, primals: Primals, blocks: Blocks, options: Options) -> Tensor:
    """The leak between rows in `blocks`, the derivative of `flat` for each row, by one push."""
    direction = [irregular(x.sum(0)) for x in primals]
    probe = tuple(weighted(d[None], len(x)) for d, x in zip(direction, primals, strict=True))
    slope = jvp(flat, primals, probe, has_aux=options.has_aux)[1]
    return leak(flatten(slope)[0], [contracted(row, direction) for row in blocks])
