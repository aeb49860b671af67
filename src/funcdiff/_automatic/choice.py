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
from funcdiff._calling.arguments import check_argnums, refuse_keywords, select_args
from funcdiff._calling.types import Function
from funcdiff._safety.guard import Recipe, with_safe_forms, with_safe_forms_where_needed
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.transforms import plain_allowed
from funcdiff._torch.trees import Tree, flatten
from funcdiff.recipes import products


def jacobian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    randomness: str = "error",
) -> Function:
    """The Jacobian, by the recipe that is right for `func` and, by its counts, fastest.

    At the first call with arguments of these shapes `func` runs once more and its operations are counted; recipes that
    the derivative atlas found wrong on one of them are left out. The plan is kept: later calls look it up, and so do
    calls inside vmap and under torch.compile. Only where `jacobian` stands inside the function that is compiled, or
    takes pytrees there, `func` cannot be run beforehand: the recipe is then that of a common network of these sizes,
    and operators are not looked at. `explain` shows the plan.

    Shapes: those of `jacobian_reverse`. Cost: that of the cheapest of `jacobian_batched_grad`, `jacobian_taylor` and
    `jacobian_forward`: about (1 + min(n, m)) F.

    Args:
        func: From tensors (or pytrees of them) to a tensor (or a pytree of them).
        argnums: The argument to differentiate by, or a tuple of them for a tuple of Jacobians.
        has_aux: `func` returns `(output, aux)`, and the result is `(jacobian, aux)`.
        chunk_size: How many rows or columns, as the recipe takes them, to take at once; all by default. With "auto"
            the recipe is the fastest that the budget allows, with the largest even chunk whose counted peak stays
            within it: at the first call a few chunks are run to count them. Not inside vmap, grad or torch.compile.
        budget: The bytes that the call may hold besides what it is given, with `chunk_size="auto"`; what the allocator
            keeps of freed memory comes on top.
        randomness: What random operations in `func` do, as in `torch.func.vmap`.

    Returns:
        The function that takes `func`'s own arguments and returns the Jacobian.

    Raises:
        RuntimeError: `func` makes a Python number of a tensor that depends on its input, draws random numbers where
            `randomness` is "error", changes a tensor it captured, or every recipe is known to be wrong on it.
        MemoryError: The result alone is over the budget, or every recipe is, however small the chunk.
        TypeError, ValueError: As in `jacobian_reverse`.

    Example:
        The Jacobian of a linear map is its matrix.

        >>> import torch
        >>> weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        >>> jacobian(lambda x: weight @ x)(torch.ones(3))
        tensor([[1., 2., 3.],
                [4., 5., 6.]])
    """
    options: Any = {"has_aux": has_aux, "chunk_size": chunk_size, "randomness": randomness}
    return chosen(JACOBIANS, func, argnums, budget=budget, **options)


def hessian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    randomness: str = "error",
) -> Function:
    """The Hessian, by the recipe that is right for `func` and, by its counts, fastest.

    Planned as in `jacobian`. Where the candidates are compositions, norms in `func` are differentiated as the simpler
    operations they consist of: torch 2.13's own second derivatives of them are wrong.

    Arguments: those of `jacobian`. Shapes: those of `hessian_forward_over_reverse`. Cost: that of the cheapest of
    `hessian_taylor`, `hessian_double_backward`, `hessian_forward_over_reverse` and `hessian_forward_over_forward`:
    about (1 + n + min(2 m n, n (n + 1) / 2)) F.

    Raises:
        RuntimeError, MemoryError: As in `jacobian`.

    Example:
        The Hessian of x^T A x is A + A^T.

        >>> import torch
        >>> matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> hessian(lambda x: x @ matrix @ x)(torch.ones(2))
        tensor([[2., 2.],
                [2., 6.]])
    """
    options: Any = {"has_aux": has_aux, "chunk_size": chunk_size, "randomness": randomness}
    return chosen(HESSIANS, func, argnums, budget=budget, **options)


def hvp(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Hv at a point, by the recipe that is right for `func`: two passes back wherever torch has them right.

    Shapes, arguments: those of `hvp_forward_over_reverse`. Cost: 4 F. Planned as in `jacobian`; under torch.compile it
    is always two passes back, with norms put right and other operators not looked at.

    Raises:
        RuntimeError: As in `jacobian`.

    Example:
        Of the sum of cubes: 6 x v.

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
    recipes: Mapping[str, Recipe],
    func: Function,
    argnums: int | tuple[int, ...],
    *,
    batch: int = 1,
    chunk_size: int | Literal["auto"] | None,
    budget: float | None = None,
    **options: Any,
) -> Function:
    """A transform that takes one of `recipes` at each call; `batch` says how many such functions vmap runs at once."""
    check_argnums(argnums)
    check_budget(chunk_size, budget)
    given: Any = chunk_size if budget is None else None
    settings = argnums, options["has_aux"], options["randomness"], batch
    names = tuple(recipes)
    traced = torch.compiler.is_compiling()

    def name_for_compiler(args: Sequence[Tree]) -> str:
        if traced or not all(isinstance(arg, Tensor) for arg in args):  # func, or args, are the compiler's own
            sizes = [sum(x.numel() for x in flatten(tree)[0]) for tree in (select_args(args, argnums), func(*args))]
            return compiling.typical(names, *sizes)
        return compiling.planned(func, names, *settings, *map(compiling.kind_of, args))

    def plan(args: Sequence[Tree]) -> lookup.Found:
        return lookup.for_transform(names, func, *settings, args, budget, lambda name, chunk: run(name, chunk, args))

    def run(name: str, chunk: int | None, args: Sequence[Tree]) -> Tree:
        return recipes[name](func, argnums, chunk_size=chunk, **options)(*args)

    @functools.wraps(func, updated=())
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)
        if budget is not None and not plain_allowed():
            raise RefusedError(NO_COUNTING_INSIDE)
        if torch.compiler.is_compiling():
            return run(name_for_compiler(args), given, args)
        return first_working(plan(args), lambda name, chunk: run(name, chunk or given, args))

    wrapper.plan = plan  # type: ignore[attr-defined]  # for `explain`
    return wrapper


def for_rows(recipe: Recipe, rows: int) -> Recipe:
    """`recipe` as it is, but an automatic one for so many rows at once."""
    recipes = {jacobian: JACOBIANS, hessian: HESSIANS}.get(recipe)
    return recipe if recipes is None else functools.partial(chosen, recipes, batch=rows, chunk_size=None)


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
    "hvp_double_backward": with_safe_forms_where_needed(products.hvp_double_backward),
    "hvp_forward_over_reverse": with_safe_forms(products.hvp_forward_over_reverse),
}
