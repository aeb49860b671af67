"""A Jacobian or Hessian for every row of a batch, of a function of the whole batch, by what is right for it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import vmap

from funcdiff._automatic import lookup
from funcdiff._automatic.candidates import RECIPES, recipe_of
from funcdiff._automatic.choice import VERIFY
from funcdiff._automatic.lookup import Choice, Found
from funcdiff._automatic.planning import Plan
from funcdiff._automatic.trying import and_beyond, first_doubtful, first_working
from funcdiff._calling.arguments import apart, refuse_keywords
from funcdiff._calling.documented import documented
from funcdiff._calling.options import Options
from funcdiff._calling.transform import copied
from funcdiff._calling.types import Function
from funcdiff._safety.accusing import Check
from funcdiff._safety.guard import Recipe, with_safe_forms
from funcdiff._safety.lines import Func
from funcdiff._safety.verification import check
from funcdiff._torch.compiler import named_after
from funcdiff._torch.messages import cannot, reason
from funcdiff._torch.transforms import outside
from funcdiff._torch.trees import Tree, flatten
from funcdiff.recipes import summed
from funcdiff.recipes.jacobians import IN_BACKWARD, ROWS

Order = Literal["jacobian", "hessian"]

_MIXED = {
    "ValueError": "A row of the output depends on other rows of the input (the message says how much), the output "
    "does not have one row for each row of the input, or an option has a value that is not allowed.",
    "RuntimeError": "`func` writes into a captured tensor, or every method is wrong on it.",
}


def _one_by_one(recipe: Recipe) -> Recipe:
    return lambda func, *args, **options: recipe(func, *args, **{**options, "chunk_size": 1})


_ROWS = recipe_of(summed.jacobians_by_rows, 1)
_RECIPES: Mapping[Order, Mapping[str, Recipe]] = {
    "jacobian": {
        "jacobian_batched_grad, summed": _ROWS,
        "jacobian_forward, summed": recipe_of(summed.derivatives_by_columns, 1),
        "jacobian_loop, summed": _one_by_one(_ROWS),
    },
    "hessian": {
        "hessian_forward_over_reverse, summed": with_safe_forms(summed.hessian_by_columns),
        "hessian_double_backward, summed": with_safe_forms(summed.hessian_by_rows),
        "hessian_double_backward, summed, row by row": with_safe_forms(_one_by_one(summed.hessian_by_rows)),
    },
}


@documented("Jacobians", chunk_size=ROWS, randomness=IN_BACKWARD, verify=VERIFY, raises=_MIXED)
def batch_jacobian_summed(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
    verify: bool = True,
) -> Function:
    """Compute one Jacobian for each row of a batch, from a function of the whole batch.

    Use it if `func` accepts only a whole batch, for example because it reshapes to a fixed number of rows. For a
    batch of shape (100, 3) and an output of shape (100, 2), the result has the shape (100, 2, 3).

    Each row of the output must depend on its own row of the input alone. This is checked, and other functions raise an
    error: batch norm in training mode, attention or a mean over the batch.

    Example:
        The derivative of x^2 is 2 x, for each of two rows.

        >>> import torch
        >>> from funcdiff import batch_jacobian_summed
        >>> batch_jacobian_summed(torch.square)(torch.tensor([[1.0], [3.0]]))
        tensor([[[2.]],
        <BLANKLINE>
                [[6.]]])

        One Jacobian for each of 4 sequences, of a layer that vmap does not support.

        >>> layer = torch.nn.GRU(3, 2, batch_first=True)
        >>> batch_jacobian_summed(lambda sequences: layer(sequences)[0][:, -1])(torch.ones(4, 5, 3)).shape
        torch.Size([4, 2, 5, 3])

    Method:
        The outputs are summed over the batch, and the sum is differentiated. With respect to one row, the derivatives
        of the outputs of all other rows are zero. So m backward passes give the Jacobians of all rows, without vmap.
        Two more backward passes check that the rows are independent. If reverse mode is wrong on `func`, forward mode
        is used.

    Cost:
        One forward pass and m + 2 backward passes of the batch, for m outputs in a row.

    See Also:
        `check_batch_independence` for the check alone.

    Notes:
        The batch is axis 0 of each differentiated argument and of the output. Under torch.compile, the result of the
        check cannot be read. There, all Jacobians of a function that mixes rows are NaN.
    """
    return _chosen("jacobian", func, Options(argnums, has_aux, chunk_size, randomness), verify)


@documented(
    "Hessians",
    chunk_size="How many rows, and then columns, of each matrix to compute at once for the whole batch. By default, "
    "all of them.",
    verify=VERIFY,
    raises={
        **_MIXED,
        "RuntimeError": "`func` writes into its argument or into a captured tensor, or every method is wrong on it.",
    },
)
def batch_hessian_summed(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
    verify: bool = True,
) -> Function:
    """Compute one Hessian for each row of a batch, from a function of the whole batch.

    Use it if `func` accepts only a whole batch, for example because it reshapes to a fixed number of rows. For a
    batch of shape (100, 3) and an output of shape (100,), the result has the shape (100, 3, 3).

    Each row of the output must depend on its own row of the input alone. This is checked for the first and the second
    derivatives, and other functions raise an error. The batch is axis 0 of each differentiated argument and of the
    output.

    Example:
        The Hessian of the sum of cubes has 6 x on its diagonal, for each of two rows.

        >>> import torch
        >>> from funcdiff import batch_hessian_summed
        >>> batch_hessian_summed(lambda x: x.pow(3).sum(1))(torch.tensor([[1.0], [2.0]]))
        tensor([[[ 6.]],
        <BLANKLINE>
                [[12.]]])

    Method:
        The Jacobians of `batch_jacobian_summed` are differentiated in n forward passes. Each of them moves all rows
        along the same direction. If forward mode over reverse mode is wrong on `func` or not supported, reverse mode
        over reverse mode is used.

    Cost:
        Two to three times that of `hessian_forward_over_reverse` for the batch, with the checks of independence.
    """
    return _chosen("hessian", func, Options(argnums, has_aux, chunk_size, randomness), verify)


def _chosen(kind: Order, func: Function, options: Options, verify: bool) -> Function:
    recipes = _RECIPES[kind]
    choice = Choice(kind, tuple(recipes), options, verify)

    def found(args: Sequence[Tree]) -> Found:
        return lookup.for_transform(func, choice, args, proven=functools.partial(_proven, recipes, kind))

    def run(name: str, args: Sequence[Tree]) -> Tree:
        return recipes[name](func, **options)(*args)

    def first_result(args: Sequence[Tree], plan: Plan, name: str, result: Tree, doubtful: int | None) -> Check:
        if plan.sketch.draws:
            return Check("undecided", reason="func draws random numbers")
        flat, point = lookup.value_of(func, copied(tuple(args)), options)
        verdict = _check(flat, point, flatten(_derivative(options, result))[0], kind, plan, doubtful)
        recipe = RECIPES[kind][name.partition(",")[0]]  # which differentiates once more as this one does
        return and_beyond(verdict, result, recipe, flat, point, kind, plan, under_vmap=False)

    @named_after(func)
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)
        if torch.compiler.is_compiling():
            return run(choice.names[0], args)
        first = functools.partial(first_result, args) if verify else None
        derivative = functools.partial(_derivative, options)
        return first_working(found(args), lambda name, _: run(name, args), first, rows=True, numbers=derivative)

    wrapper.found = found  # type: ignore[attr-defined]  # for `explain`
    return wrapper


def _derivative(options: Options, result: Tree) -> Tree:
    return apart(result, options.has_aux)[0]


def _check(
    flat: Func, point: Sequence[Tensor], derivative: Sequence[Tensor], kind: Order, plan: Plan, doubtful: int | None
) -> Check:
    """Hold the derivative of one row, a doubtful one or else the second, against differences of that row."""
    size = len(point[0])
    if not size:
        return Check("agrees", 0.0)
    k = min(1, size - 1) if doubtful is None else doubtful

    def row(*moved: Tensor) -> Tree:
        batch = [torch.cat([x[:k], one[None], x[k + 1 :]]) for x, one in zip(point, moved, strict=True)]
        return [y[k] for y in flatten(flat(*batch))[0]]

    return check(row, [x[k] for x in point], [block[k] for block in derivative], kind, plan.sketch)


def _proven(recipes: Mapping[str, Recipe], kind: Order, plan: Plan, flat: Func, primals: Sequence[Tensor]) -> Plan:
    """The plan without the recipes that are wrong under vmap, on the second of two batches."""
    batches = [torch.stack([0.9 * x, x]) for x in primals]
    every = tuple(range(len(primals)))

    def second(recipe: Recipe) -> Sequence[Tensor]:
        blocks = [block[1] for block in flatten(vmap(recipe(flat, every), randomness="same")(*batches))[0]]
        if any(block.isnan().any() for block in blocks):
            recipe(flat, every)(*primals)  # which can say so where rows mix
        return blocks

    for name in plan.usable:
        with outside():
            try:
                blocks = second(recipes[name])
                doubtful = first_doubtful(plan, blocks)
                found = _check(flat, [x[1] for x in batches], blocks, kind, plan, doubtful)
            except Exception as error:  # raised again unless torch cannot do it in this way
                if not cannot(error):
                    raise
                found = Check("undecided", reason=f"it raises: {reason(error)}", raised=True)
        plan = plan.checked(name, found, inside=True)
        if not plan[name].obstacle:
            return plan
    raise plan.refusal()
