"""A Jacobian or Hessian for every row of a batch, of a function of one row: vmap over a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor
from torch.func import vmap

from funcdiff._automatic import choice, lookup
from funcdiff._automatic.budget import check_budget
from funcdiff._automatic.choice import for_rows
from funcdiff._calling.arguments import refuse_keywords
from funcdiff._calling.directions import gathered
from funcdiff._calling.documented import documented
from funcdiff._calling.options import Options
from funcdiff._calling.transform import guarded
from funcdiff._calling.types import Function
from funcdiff._torch.trees import Tree, TreeSpec, broadcast, flatten, unflatten

of_rows = partial(
    documented,
    func="The function of one row. It takes tensors or pytrees of tensors, and returns a tensor or a pytree of "
    "tensors.",
    in_dims="The axis of each argument that is the batch, as in `torch.func.vmap`: one int for all arguments, or a "
    "tuple with an entry for each argument. The entry None marks an argument that all rows share.",
    chunk_size='The number of rows of the batch to compute at once, by default all. With "auto", it is the largest '
    "even chunk whose counted peak of memory stays within the budget. For this, the first call runs a few chunks "
    "beforehand.",
    budget='The bytes that the call may hold in addition to its arguments, with `chunk_size="auto"`. Memory that the '
    "allocator keeps after it was freed comes on top.",
    randomness='What random operations in `func` do, as in `torch.func.vmap`: "error" refuses them, "same" uses one '
    'draw for all rows, and "different" draws anew for each row.',
    returns="A function that takes the arguments of `func` as batches and returns the {result}.",
    raises={"MemoryError": "Even one row at a time exceeds the budget."},
)


@of_rows(
    "Jacobians",
    jacobian="The recipe to map over the rows. Use `jacobian_forward` if a row has fewer inputs than outputs, or "
    "`funcdiff.jacobian`, which chooses for this number of rows.",
)
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
    """Compute a Jacobian for every row of a batch, without the zero blocks between rows: vmap over a Jacobian.

    Shapes: (B, output, input) for B rows. `func` sees one row, without the batch axis.

    Cost: That of the Jacobian, for a batch. The memory is that of `chunk_size` rows.

    Example:
        The Jacobian of x^2 has 2 x on its diagonal, for each of two rows.

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


@of_rows(
    "Hessians",
    hessian="The recipe to map over the rows. Use `hessian_forward_over_forward` if a row has more outputs than "
    "inputs, or `funcdiff.hessian`, which chooses for this number of rows.",
)
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
    """Compute a Hessian for every row of a batch: vmap over a Hessian.

    Shapes: (B, output, input, input) for B rows. `func` sees one row, without the batch axis.

    Cost: That of the Hessian, for a batch. The memory is that of `chunk_size` rows.

    Example:
        The Hessian of the sum of cubes has 6 x on its diagonal, for each of two rows.

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
            return guarded(partial(run, chunk), args)

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
