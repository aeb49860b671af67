"""A Jacobian or Hessian for every row of a batch, of a function of one row: vmap over a recipe."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor
from torch.func import vmap

from funcdiff._automatic import choice, lookup
from funcdiff._automatic.budget import check_budget
from funcdiff._automatic.choice import for_rows
from funcdiff._calling.arguments import refuse_keywords
from funcdiff._calling.directions import gathered
from funcdiff._calling.options import Options
from funcdiff._calling.transform import guarded
from funcdiff._calling.types import Function
from funcdiff._torch.trees import Tree, TreeSpec, broadcast, flatten, unflatten


def batch_jacobian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    in_dims: Any = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    randomness: str = "error",
    jacobian: Callable[..., Function] = choice.jacobian,
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
        chunk_size: How many rows of the batch to take at once; all by default. With "auto" the largest even chunk whose
            counted peak stays within the budget: a few chunks are run beforehand, at the first call.
        budget: The bytes that the call may hold besides what it is given, with `chunk_size="auto"`; what the allocator
            keeps of freed memory comes on top.
        randomness: What random operations in `func` do, as in `torch.func.vmap`.
        jacobian: The recipe to map: `jacobian_forward` where a row has fewer inputs than outputs, or `jacobian`, which
            chooses for so many rows.

    Returns:
        The function that takes `func`'s own arguments, batched, and returns the Jacobians.

    Raises:
        TypeError, ValueError, RuntimeError: As in `jacobian_reverse`.
        MemoryError: Even a row at a time goes over the budget.

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

    def row(rows: int) -> Function:
        return for_rows(jacobian, rows)(func, argnums, has_aux=has_aux, randomness=randomness)

    return over_rows(row, in_dims, chunk_size, randomness, budget)


def batch_hessian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    in_dims: Any = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    randomness: str = "error",
    hessian: Callable[..., Function] = choice.hessian,
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

    def row(rows: int) -> Function:
        return for_rows(hessian, rows)(func, argnums, has_aux=has_aux, randomness=randomness)

    return over_rows(row, in_dims, chunk_size, randomness, budget)


def over_rows(
    row: Callable[[int], Function],
    in_dims: Any,
    chunk_size: int | Literal["auto"] | None,
    randomness: str,
    budget: float | None = None,
) -> Function:
    """`torch.func.vmap(row, in_dims, chunk_size=...)`, also for an empty batch, for a budget and under torch.compile.

    `row` is given the number of rows at once, as the best recipe may depend on it.
    """
    check_budget(chunk_size, budget)
    row(1)  # what is wrong with its options is said at once

    def run(chunk: int | None, *args: Tree) -> Tree:
        leaves, spec, dims, sizes = _batch(args, in_dims)
        rows = min(max(sizes, default=1), chunk or max(sizes, default=1))
        mapped = vmap(row(rows), in_dims=in_dims, randomness=randomness)
        if chunk is None or len(sizes) != 1 or max(sizes) <= chunk:
            return mapped(*args)  # where in_dims does not fit args, vmap says so

        structure: list[TreeSpec] = []

        def some(start: int, stop: int) -> Sequence[Tensor]:
            part = [
                leaf if dim is None else leaf.narrow(dim, start, stop - start)
                for leaf, dim in zip(leaves, dims, strict=True)
            ]
            results, out_spec = flatten(mapped(*unflatten(part, spec)))
            structure.append(out_spec)
            return results

        return unflatten(gathered(some, max(sizes), Options(chunk_size=chunk, randomness=randomness)), structure[0])

    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)

        def in_chunks(chunk: int | None) -> Tree:
            return guarded(functools.partial(run, chunk), args)

        if budget is None:
            return in_chunks(chunk_size)  # type: ignore[arg-type]  # "auto" has a budget
        leaves, _, _, sizes = _batch(args, in_dims)
        return in_chunks(lookup.chunk_of_rows(row, leaves, in_dims, max(sizes, default=1), budget, in_chunks))

    return wrapper


def _batch(args: Sequence[Tree], in_dims: Any) -> tuple[Sequence[Any], TreeSpec, Sequence[int | None], set[int]]:
    """The leaves, which axis of each is the batch, and the numbers of rows: one, where all agree."""
    leaves, spec = flatten(tuple(args))
    dims = broadcast(in_dims, spec) or []
    try:
        return leaves, spec, dims, {x.shape[dim] for x, dim in zip(leaves, dims, strict=False) if dim is not None}
    except (AttributeError, IndexError):
        return leaves, spec, dims, set()
