"""The automatic recipes: of those that are right on the function, the one that its counts say is fastest."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import torch

from funcdiff._automatic import compiling, lookup
from funcdiff._automatic.budget import NO_COUNTING_INSIDE, check_budget
from funcdiff._automatic.cache import Last
from funcdiff._automatic.candidates import RECIPES, UNCORRECTED
from funcdiff._automatic.lookup import Choice
from funcdiff._automatic.planning import Plan
from funcdiff._automatic.trying import and_trained, first_working
from funcdiff._calling.arguments import apart, refuse_keywords
from funcdiff._calling.documented import documented
from funcdiff._calling.options import Options
from funcdiff._calling.transform import copied
from funcdiff._calling.types import Function
from funcdiff._safety.accusing import Check
from funcdiff._safety.guard import Recipe
from funcdiff._safety.planes import check_on_plane
from funcdiff._safety.verification import Kind, check
from funcdiff._torch.compiler import left_alone, named_after
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.processes import any_spread
from funcdiff._torch.transforms import plain_allowed
from funcdiff._torch.trees import Tree, flatten

VERIFY = (
    "Whether to check the first result, and a later one that is not finite, with finite differences of `func` along "
    "one random direction. If they disagree, another recipe is used. The check evaluates `func`, or its gradient, four "
    "to twenty times, once for each function and kind of arguments. With `verify=False`, recipes that torch is known "
    "to get wrong are still left out."
)
AUTOMATIC = {
    "verify": VERIFY,
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
    verify: bool = True,
) -> Function:
    """Compute the Jacobian: the derivative of each output with respect to each input.

    Entry (i, j) is the derivative of output i with respect to input j. If `x` has 3 numbers and `func(x)` has 2, then
    `jacobian(func)(x)` has the shape (2, 3).

    Forward mode computes the columns of this matrix, and reverse mode its rows. `jacobian` chooses: it uses forward
    mode if there are many more outputs than inputs, and reverse mode otherwise.

    At the first call with arguments of these shapes, `func` runs once more to count its operations. Recipes that are
    known to be wrong on one of them are left out, and the one with the lowest predicted time is used. This plan is kept
    for later calls, also inside vmap and under torch.compile. `explain` shows it.

    There is one exception. If `jacobian` itself is called inside a compiled function, or takes pytrees there, `func`
    cannot run beforehand. The recipe is then chosen by the numbers of inputs and outputs alone.

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
    return chosen("jacobian", func, options, budget, verify=verify)


@documented("Hessian", **AUTOMATIC, raises=ERRORS)
def hessian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    randomness: str = "error",
    verify: bool = True,
) -> Function:
    """Compute the Hessian: the second derivatives of each output with respect to each pair of inputs.

    Entry (i, j, k) is the derivative of output i with respect to inputs j and k. If `x` has 3 numbers and `func(x)` has
    2, then `hessian(func)(x)` has the shape (2, 3, 3); for a scalar `func(x)` it has the shape (3, 3).

    `hessian` chooses a recipe: most often Taylor mode for few inputs and several outputs, and reverse mode twice for
    one output.

    The recipe is chosen as in `jacobian`. If it is a composition, normalization layers in `func` are differentiated as
    the simpler operations that they consist of, because torch 2.13's own second derivatives of them are wrong.

    Cost: That of the cheapest of `hessian_taylor`, `hessian_double_backward`, `hessian_forward_over_reverse` and
    `hessian_forward_over_forward`: about (1 + n + min(m (1 + n), n (n + 1) / 2)) F. A small function may get a recipe
    with more FLOPs and fewer operations.

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
    return chosen("hessian", func, options, budget, verify=verify)


def chosen(
    kind: Kind,
    func: Function,
    options: Options,
    budget: float | None = None,
    *,
    names: tuple[str, ...] = (),
    verify: bool = True,
    batch: int = 1,
) -> Function:
    """A transform that takes one of the recipes of a kind, or of those with `names`, at each call."""
    recipes = RECIPES[kind]
    choice = Choice(kind, names or tuple(recipes), options, verify, batch)
    traced = torch.compiler.is_compiling()
    last = Last()

    def found(args: Sequence[Tree]) -> lookup.Found:
        return lookup.for_transform(func, choice, args, budget, lambda name, chunk: run(name, chunk, args), last=last)

    def run(name: str, chunk: int | None, args: Sequence[Tree]) -> Tree:
        return recipes[name](func, **{**options, "chunk_size": chunk})(*args)

    planned = None if traced else compiling.planned(func, choice)

    def compiled(args: Sequence[Tree]) -> Tree:
        name = compiling.name(func, choice, args, planned)
        return eager(args) if name == compiling.EAGERLY else run(name, options.chunk_size, args)

    @named_after(func)
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)
        if budget is not None and not plain_allowed():
            raise RefusedError(NO_COUNTING_INSIDE)
        if torch.compiler.is_compiling():
            return compiled(args)
        return eager(args)

    @left_alone
    def eager(args: Sequence[Tree]) -> Tree:
        if any_spread(args):
            return run(next(filter(_plain_reverse, recipes)), options.chunk_size, args)
        now = found(args)

        def result(name: str, chunk: int | None) -> Tree:
            bare = name in UNCORRECTED and now.plan.bare and now.plain
            key = name, chunk, bare, torch.is_grad_enabled()  # a corrected function remembers the grad mode
            if key not in last.recipes:
                recipe = UNCORRECTED[name] if bare else recipes[name]
                made: Any = recipe(func, **{**options, "chunk_size": chunk or options.chunk_size})
                last.recipes[key] = made.known
            return last.recipes[key](*args)

        first = functools.partial(first_result, args) if verify else None
        return first_working(now, result, first, numbers=lambda result: apart(result, options.has_aux)[0])

    def first_result(args: Sequence[Tree], plan: Plan, name: str, result: Tree) -> Check:
        if plan.sketch.draws:
            return Check("undecided", reason="func draws random numbers")
        flat, point = lookup.value_of(func, [copied(arg) for arg in args], options)
        if kind in ("jacobian", "hessian"):
            verdict = check(flat, point, flatten(result[0] if options.has_aux else result)[0], kind, plan.sketch)
        else:
            verdict = check_on_plane(recipes[name], flat, point, kind, plan.sketch, under_vmap=False)
        return and_trained(verdict, result, recipes[name], flat, point, plan, under_vmap=False)

    wrapper.found = found  # type: ignore[attr-defined]  # for `explain`
    return wrapper


def _plain_reverse(name: str) -> bool:
    """Whether a recipe suits sharded tensors: torch 2.13 has no forward mode of them, and to plan would communicate."""
    return name.partition(",")[0] in ("jacobian_batched_grad", "hessian_double_backward")


def for_rows(kind: Kind, rows: int) -> Recipe:
    """The automatic recipe of a kind, planned for so many rows at once."""
    return lambda func, *args, **options: chosen(kind, func, Options(*args, **options), batch=rows)
