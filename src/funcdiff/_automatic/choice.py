"""The automatic recipes: of those that are right on the function, the one that its counts say is fastest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from funcdiff._automatic import compiling, fallback, lookup
from funcdiff._automatic.budget import NO_COUNTING_INSIDE, check_budget
from funcdiff._automatic.explaining import Explanation
from funcdiff._automatic.taylor import hessian_taylor, jacobian_taylor
from funcdiff._calling.arguments import refuse_keywords, select_args
from funcdiff._calling.documented import documented
from funcdiff._calling.options import Options
from funcdiff._calling.types import Function
from funcdiff._safety.guard import Recipe, with_safe_norms, with_safe_norms_inside
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.transforms import plain_allowed
from funcdiff._torch.trees import Tree, flatten
from funcdiff.recipes import products

AUTOMATIC = {
    "budget": 'The bytes that the call may hold in addition to its arguments, with `chunk_size="auto"`. Memory that '
    "the allocator keeps after it was freed comes on top.",
    "chunk_size": "The number of rows or columns, depending on the recipe, to compute at once, by default all. With "
    '"auto", the recipe is the fastest one that the budget allows, in the largest even chunks whose counted peak of '
    "memory stays within the budget. For this, the first call runs a few chunks to count them. Inside vmap, grad and "
    'torch.compile, "auto" is refused.',
}
ERRORS = {
    "RuntimeError": "`func` converts a tensor that depends on its input to a Python number, draws random numbers "
    'although `randomness` is "error", or writes into its argument or a captured tensor; or every recipe is known to '
    "be wrong on it.",
    "MemoryError": "The result alone exceeds the budget, or every recipe does, with any chunk size.",
}


@documented("Jacobian", **AUTOMATIC, raises=ERRORS)
def jacobian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Jacobian by the recipe that is right for `func` and, by its counted operations, fastest.

    At the first call with arguments of these shapes, `func` runs once more and its operations are counted. Recipes that
    the derivative atlas found wrong on one of these operations are left out. The plan is kept: later calls look it up,
    also inside vmap and under torch.compile. `explain` shows the plan.

    There is one exception. If `jacobian` itself is called inside a compiled function, or takes pytrees there, `func`
    cannot run beforehand. The recipe is then the one for a common network of these sizes, and operations are not looked
    at.

    Cost: That of the cheapest of `jacobian_batched_grad`, `jacobian_taylor` and `jacobian_forward`: about
    (1 + min(n, m)) F.

    Example:
        The Jacobian of a linear map is its matrix.

        >>> import torch
        >>> weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        >>> jacobian(lambda x: weight @ x)(torch.ones(3))
        tensor([[1., 2., 3.],
                [4., 5., 6.]])
    """
    check_budget(chunk_size, budget)
    options = Options(argnums, has_aux, None if chunk_size == "auto" else chunk_size, randomness)
    return chosen(JACOBIANS, func, options, budget)


@documented("Hessian", **AUTOMATIC, raises=ERRORS)
def hessian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Hessian by the recipe that is right for `func` and, by its counted operations, fastest.

    `hessian` makes and keeps a plan as `jacobian` does. If the recipe is a composition, normalization layers in `func`
    are differentiated as the simpler operations that they consist of, because torch 2.13's own second derivatives of
    them are wrong.

    Cost: That of the cheapest of `hessian_taylor`, `hessian_double_backward`, `hessian_forward_over_reverse` and
    `hessian_forward_over_forward`: about (1 + n + min(2 m n, n (n + 1) / 2)) F.

    Example:
        The Hessian of x^T A x is A + A^T.

        >>> import torch
        >>> matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> hessian(lambda x: x @ matrix @ x)(torch.ones(2))
        tensor([[2., 2.],
                [2., 6.]])
    """
    check_budget(chunk_size, budget)
    options = Options(argnums, has_aux, None if chunk_size == "auto" else chunk_size, randomness)
    return chosen(HESSIANS, func, options, budget)


@products.product(
    raises={
        **products.ERRORS,
        "RuntimeError": "`func` converts a tensor that depends on its input to a Python number, draws random "
        "numbers, or writes into its argument or a captured tensor; or every recipe is known to be wrong on it.",
    }
)
def hvp(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Compute Hv at a point by the recipe that is right for `func`: two backward passes wherever torch has them right.

    `hvp` makes and keeps a plan as `jacobian` does. Under torch.compile, it is always two backward passes:
    normalization layers are then differentiated as the simpler operations that they consist of, and other operations
    are not looked at.

    Cost: 4 F.

    Example:
        The product with the Hessian of the sum of cubes is 6 x v.

        >>> import torch
        >>> hvp(lambda x: x.pow(3).sum(), (torch.tensor([1.0, 2.0]),), (torch.ones(2),))
        tensor([ 6., 12.])
    """
    if torch.compiler.is_compiling():
        return next(iter(PRODUCTS.values()))(func, primals, tangents)
    found = lookup.for_product(tuple(PRODUCTS), func, primals)
    return first_working(found, lambda name, _: PRODUCTS[name](func, primals, tangents))


def explain(transform: Function, *primals: Tree) -> Explanation:
    """Which recipe an automatic one takes at these arguments, why, and what each candidate would cost.

    Args:
        transform: What `jacobian(func)` or `hessian(func)` returned; or `hvp` itself, followed by its own arguments.
        *primals: The arguments it would be called with. Nothing is differentiated; `func` runs once or twice.

    Returns:
        A table that shows itself in a terminal, in a notebook and on a page; its `recipe` is the name of the first.

    Example:
        Of two numbers a thousand: by columns.

        >>> import torch
        >>> explain(jacobian(lambda x: x.sum() * torch.ones(1000)), torch.ones(2)).recipe
        'jacobian_taylor'
    """
    if transform is hvp:
        plan, _ = lookup.for_product(tuple(PRODUCTS), *primals[:2])
    elif (made := getattr(transform, "plan", None)) is not None:
        plan, _ = made(primals)
    else:
        raise TypeError(
            f"expected what funcdiff.jacobian or funcdiff.hessian returned, or funcdiff.hvp, got {transform!r}; "
            "the other recipes leave nothing to explain"
        )
    return Explanation(plan)


def chosen(
    recipes: Mapping[str, Recipe], func: Function, options: Options, budget: float | None = None, batch: int = 1
) -> Function:
    """A transform that takes one of `recipes` at each call; `batch` says how many such functions vmap runs at once."""
    names = tuple(recipes)
    traced = torch.compiler.is_compiling()

    def name_for_compiler(args: Sequence[Tree]) -> str:
        if traced or not all(isinstance(arg, Tensor) for arg in args):  # func, or args, are the compiler's own
            trees = select_args(args, options.argnums), func(*args)
            return compiling.typical(names, *(sum(x.numel() for x in flatten(tree)[0]) for tree in trees))
        return compiling.planned(func, names, options, batch, *map(compiling.kind_of, args))

    def plan(args: Sequence[Tree]) -> lookup.Found:
        return lookup.for_transform(names, func, options, batch, args, budget, lambda name, n: run(name, n, args))

    def run(name: str, chunk: int | None, args: Sequence[Tree]) -> Tree:
        return recipes[name](func, **{**options, "chunk_size": chunk})(*args)

    @functools.wraps(func, updated=())
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)
        if budget is not None and not plain_allowed():
            raise RefusedError(NO_COUNTING_INSIDE)
        if torch.compiler.is_compiling():
            return run(name_for_compiler(args), options.chunk_size, args)
        return first_working(plan(args), lambda name, chunk: run(name, chunk or options.chunk_size, args))

    wrapper.plan = plan  # type: ignore[attr-defined]  # for `explain`
    return wrapper


def for_rows(recipe: Recipe, rows: int) -> Recipe:
    """`recipe` as it is, but an automatic one for so many rows at once."""
    recipes = {jacobian: JACOBIANS, hessian: HESSIANS}.get(recipe)
    if recipes is None:
        return recipe
    return lambda func, *args, **options: chosen(recipes, func, Options(*args, **options), batch=rows)


def first_working(found: lookup.Found, run: Callable[[str, int | None], Tree]) -> Tree:
    """The result of the best recipe; where torch cannot differentiate that way, of the next, from then on.

    `run` is given the name of the recipe and the chunk planned for it.
    """
    plan, keep = found
    stopped: RuntimeError | None = None
    for name in plan.usable:
        try:
            result = run(name, plan.chunk(name))
        except (RefusedError, torch.OutOfMemoryError):
            raise
        except RuntimeError as error:
            stopped = stopped or error
            plan = plan.without(name, str(error).partition("\n")[0])
            continue
        if stopped:
            keep(plan)
        return result
    assert stopped is not None  # a plan has at least one recipe
    raise stopped


JACOBIANS: Mapping[str, Recipe] = {"jacobian_taylor": jacobian_taylor, **fallback.JACOBIANS}
HESSIANS: Mapping[str, Recipe] = {"hessian_taylor": hessian_taylor, **fallback.HESSIANS}
PRODUCTS: Mapping[str, Callable[..., Any]] = {
    "hvp_double_backward": with_safe_norms_inside(products.hvp_double_backward),
    "hvp_forward_over_reverse": with_safe_norms(products.hvp_forward_over_reverse),
}
