"""A Jacobian or Hessian for every row of a batch: row by row under vmap, or all at once by sums over the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap
from torch.utils._pytree import TreeSpec, _broadcast_to_and_flatten

from funcdiff._boundary import (
    Blocks,
    Derivative,
    Flat,
    Function,
    Primals,
    check_chunk_size,
    differentiate,
    guarded,
    refuse_keywords,
)
from funcdiff._passes import columns, contracted, in_turn, rows
from funcdiff._trees import Tree, flatten, map_leaves, unflatten
from funcdiff.hessians import hessian_forward_over_reverse
from funcdiff.independence import first_order_leak, irregular, leak, only_independent, weighted
from funcdiff.jacobians import jacobian_reverse


def batch_jacobian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    in_dims: Any = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
    jacobian: Callable[..., Function] = jacobian_reverse,
) -> Function:
    """A Jacobian for every row of a batch, without the zero blocks between rows: vmap over a Jacobian.

    Shapes: (B, output, input), of B rows; `func` sees one row, without the batch axis.
    Cost: the Jacobian's, for a batch; `chunk_size` rows at once in memory.

    Args:
        func: The function of one row.
        argnums: The argument to differentiate by, or a tuple of them.
        in_dims: Which axis of each argument is the batch, as in `torch.func.vmap`: an int for all, or a tuple with an
            entry for each argument, None for one that all rows share.
        has_aux: `func` returns `(output, aux)`, and the result is `(jacobian, aux)`, both by rows.
        chunk_size: How many rows of the batch to take at once; all by default.
        randomness: What random operations in `func` do, as in `torch.func.vmap`.
        jacobian: The recipe to map: `jacobian_forward` where a row has fewer inputs than outputs.

    Returns:
        The function that takes `func`'s own arguments, batched, and returns the Jacobians.

    Raises:
        TypeError, ValueError, RuntimeError: As in `jacobian_reverse`.

    Example:
        Of x -> x^2, 2 x on the diagonal, for each of two rows.

        >>> import torch
        >>> batch_jacobian(torch.square)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([[[2., 0.],
                 [0., 4.]],
        <BLANKLINE>
                [[6., 0.],
                 [0., 8.]]])
    """
    return over_rows(jacobian(func, argnums, has_aux=has_aux, randomness=randomness), in_dims, chunk_size, randomness)


def batch_hessian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    in_dims: Any = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
    hessian: Callable[..., Function] = hessian_forward_over_reverse,
) -> Function:
    """A Hessian for every row of a batch: vmap over a Hessian.

    Shapes: (B, output, input, input), of B rows; `func` sees one row, without the batch axis.
    Arguments, errors: those of `batch_jacobian`; `hessian` is the recipe to map, `hessian_forward_over_forward` where a
    row has more outputs than inputs. Cost: the Hessian's, for a batch; `chunk_size` rows at once in memory.

    Example:
        Of the sum of cubes, 6 x on the diagonal, for each of two rows.

        >>> import torch
        >>> batch_hessian(lambda x: x.pow(3).sum())(torch.tensor([[1.0], [2.0]]))
        tensor([[[ 6.]],
        <BLANKLINE>
                [[12.]]])
    """
    return over_rows(hessian(func, argnums, has_aux=has_aux, randomness=randomness), in_dims, chunk_size, randomness)


def over_rows(row: Function, in_dims: Any, chunk_size: int | None, randomness: str) -> Function:
    """`torch.func.vmap(row, in_dims, chunk_size=...)`, also for an empty batch and under torch.compile."""
    check_chunk_size(chunk_size)
    mapped = vmap(row, in_dims=in_dims, randomness=randomness)

    def run(*args: Tree) -> Tree:
        leaves, spec = flatten(args)
        dims = _broadcast_to_and_flatten(in_dims, spec) or []
        try:
            sizes = {leaf.shape[dim] for leaf, dim in zip(leaves, dims, strict=False) if dim is not None}
        except (AttributeError, IndexError):
            sizes = set()
        if chunk_size is None or len(sizes) != 1 or max(sizes) <= chunk_size:
            return mapped(*args)  # where in_dims does not fit args, vmap says so

        def some(start: int, stop: int) -> Tree:
            part = [
                leaf if dim is None else leaf.narrow(dim, start, stop - start)
                for leaf, dim in zip(leaves, dims, strict=True)
            ]
            return mapped(*unflatten(part, spec))

        parts = in_turn(some, max(sizes), chunk_size, randomness)
        return map_leaves(lambda *parts: torch.cat(parts), *parts)

    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)
        return guarded(run, args)

    return wrapper


def batch_jacobian_summed(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """A Jacobian for every row of a batch, from a function of the whole batch: the rows of its sum over the batch.

    Where each output row depends on its own input row alone, the other rows contribute zeros to the sum: m backward
    passes over the batch give all B Jacobians, and `func` needs no vmap. A function that mixes rows (batch norm in
    training mode, attention or a mean over the batch) would give wrong numbers this way, and is refused, by two more
    backward passes: see NOTE [rows that mix] in `funcdiff.independence`. Where the check cannot be read,
    inside vmap, grad or torch.compile, the result of such a function is all NaN.

    Shapes: (B, output, input); `func` and the differentiated arguments have the batch as axis 0.
    Cost: one forward pass and m + 2 backward passes of the batch.
    Arguments, errors: those of `jacobian_reverse`, which see the whole batch; and

    Raises:
        ValueError: The rows mix, by the size that is given; or the output has no row for each row of the input.

    Example:
        Of x -> x^2, 2 x, for each of two rows.

        >>> import torch
        >>> batch_jacobian_summed(torch.square)(torch.tensor([[1.0], [3.0]]))
        tensor([[[2.]],
        <BLANKLINE>
                [[6.]]])
    """

    def jacobian(flat: Flat, primals: Primals) -> Derivative:
        output, pull, *aux = vjp(flat, *primals, has_aux=has_aux)
        found = first_order_leak(pull, output, primals)
        blocks, spec = summed_rows(pull, output, primals, chunk_size, randomness)
        return only_independent(blocks, found), spec, aux

    return differentiate(jacobian, func, argnums, has_aux, chunk_size)


def batch_hessian_summed(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """A Hessian for every row of a batch, from a function of the whole batch: columns of `batch_jacobian_summed`.

    Every row is pushed along the same direction at once, n forward passes over the m backward ones. Refuses a function
    that mixes rows, in its first derivatives or in its second.

    Shapes: (B, output, input, input); `func` and the differentiated arguments have the batch as axis 0.
    Cost: that of `hessian_forward_over_reverse` for a batch, and one more direction.
    Arguments, errors: those of `batch_jacobian_summed`.

    Example:
        Of the sum of cubes, 6 x on the diagonal, for each of two rows.

        >>> import torch
        >>> batch_hessian_summed(lambda x: x.pow(3).sum(1))(torch.tensor([[1.0], [2.0]]))
        tensor([[[ 6.]],
        <BLANKLINE>
                [[12.]]])
    """
    options: Any = {"has_aux": has_aux, "chunk_size": chunk_size, "randomness": randomness}

    def hessian(flat: Flat, primals: Primals) -> Derivative:
        flat(*primals)  # refuses a function that mixes rows, which under vmap it could not

        def push(*tangents: Tensor) -> tuple[Tree, list[Tree]]:
            every_row = tuple(v.expand_as(x) for v, x in zip(tangents, primals, strict=True))
            _, slope, *aux = jvp(flat, primals, every_row, has_aux=has_aux)
            return slope, aux

        one_row = [x.sum(0) for x in primals]
        blocks, spec, aux = columns(push, one_row, chunk_size, randomness)
        direction = [irregular(x) for x in one_row]
        probe = tuple(weighted(d[None], len(x)) for d, x in zip(direction, primals, strict=True))
        got = flatten(jvp(flat, primals, probe, has_aux=has_aux)[1])[0]
        return only_independent(blocks, leak(got, [contracted(row, direction) for row in blocks])), spec, aux

    inner = batch_jacobian_summed(func, argnums, **options)
    return differentiate(hessian, inner, argnums, has_aux, chunk_size)


def summed_rows(
    pull: Callable[[Tree], Sequence[Tensor]],
    output: Tree,
    primals: Primals,
    chunk_size: int | None,
    randomness: str,
) -> tuple[Blocks, TreeSpec]:
    """The rows of the sum of `output` over the batch, as blocks (B, output, input)."""

    def pull_every_row(cotangents: Tree) -> Sequence[Tensor]:
        return pull(map_leaves(lambda u, y: u.expand_as(y), cotangents, output))

    sums = map_leaves(lambda y: y.sum(0), output)
    blocks, spec = rows(pull_every_row, sums, primals, chunk_size, randomness)
    return [[block.movedim(y.dim(), 0) for block in row] for row, y in zip(blocks, flatten(sums)[0], strict=True)], spec
