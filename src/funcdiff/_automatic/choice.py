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
from funcdiff._automatic.trying import and_beyond, first_working
from funcdiff._calling.arguments import apart, refuse_keywords
from funcdiff._calling.documented import documented
from funcdiff._calling.options import Options
from funcdiff._calling.transform import copied
from funcdiff._calling.types import Function
from funcdiff._safety.accusing import Check
from funcdiff._safety.guard import Recipe
from funcdiff._safety.meaning import by_hand
from funcdiff._safety.planes import check_on_plane
from funcdiff._safety.verification import Kind, check
from funcdiff._torch.compiler import left_alone, named_after
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.processes import any_spread
from funcdiff._torch.transforms import plain_allowed
from funcdiff._torch.trees import Tree, flatten

VERIFY = (
    "Whether to compare the first result with finite differences, and to use another method if they disagree. This "
    "costs 2 to 20 evaluations of the function or its gradient, mostly fewer than 6, once for each function and set of "
    "shapes. A function that changes something in each call, such as a counter, is checked in each call. If the "
    "function contains an operation that can cause NaN or infinity, such as a root, later results that contain them "
    "are compared as well, on a CPU and outside of other transforms."
)
AUTOMATIC = {
    "verify": VERIFY,
    "budget": 'The number of bytes that the call may allocate in addition to its arguments, for `chunk_size="auto"`. '
    "The first call runs a few chunks to count their memory. The caching allocator of a GPU may reserve more.",
    "chunk_size": "How many rows or columns of the matrix to compute at once. By default, all of them. Smaller "
    'chunks need less memory and more time. "auto" chooses the fastest method and the largest chunks that fit into '
    '`budget`. "auto" cannot be used inside vmap, grad or torch.compile.',
}
ERRORS = {
    "RuntimeError": "`func` converts a tensor that depends on its input to a Python number, draws random numbers "
    'although `randomness` is "error", or writes into a captured tensor. Or every method is known to be wrong on it. '
    "The message says what to do.",
    "MemoryError": "The result alone is larger than the budget, or no method fits into it with any chunk size.",
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
    """Compute the Jacobian of `func`: the derivative of each output with respect to each input.

    `jacobian(func)` is a function. It takes the arguments of `func` and returns the Jacobian, whose entry (i, j) is the
    derivative of output i with respect to input j. If `x` has the shape (3,) and `func(x)` the shape (2,), the result
    has the shape (2, 3).

    `jacobian` chooses the method by its predicted time. As a rule, it uses forward mode if there are many more outputs
    than inputs, and reverse mode otherwise. Forward mode computes a column of the matrix in each pass through `func`,
    and reverse mode a row.

    Example:
        The Jacobian of a linear map is its matrix.

        >>> import torch
        >>> from funcdiff import jacobian
        >>> weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        >>> jacobian(lambda x: weight @ x)(torch.ones(3))
        tensor([[1., 2., 3.],
                [4., 5., 6.]])

        With a tuple of `argnums`, the result has one Jacobian for each argument.

        >>> def func(x, scale):
        ...     return scale * x**2
        >>> jacobian(func, argnums=(0, 1))(torch.tensor([1.0, 3.0]), torch.tensor(2.0))
        (tensor([[ 4.,  0.],
                [ 0., 12.]]), tensor([1., 9.]))

        With `has_aux=True`, `func` also returns something that is not differentiated.

        >>> jacobian(lambda x: (x**2, x.sum()), has_aux=True)(torch.tensor([1.0, 3.0]))
        (tensor([[2., 0.],
                [0., 6.]]), tensor(4.))

        To differentiate with respect to the parameters of a network, make them an argument with `module_function`.

        >>> from funcdiff import module_function
        >>> network, parameters = module_function(torch.nn.Linear(2, 1))
        >>> jacobian(network)(parameters, torch.tensor([3.0, 4.0]))
        {'weight': tensor([[[3., 4.]]]), 'bias': tensor([[1.]])}

    Method:
        At the first call, `func` runs a few times more: to count its operations, and to check the result. Methods that
        torch gets wrong for one of these operations are left out, also with `verify=False`. The remaining one
        with the lowest predicted time is used, also in later calls with the same shapes. `explain` shows the choice.

    Cost:
        `func` runs once, and then a pass computes each row or each column of the matrix. A pass costs about as much as
        an evaluation of `func`: in all, about 1 + n evaluations for n inputs, or 1 + m for m outputs.

    See Also:
        `batch_jacobian` for one Jacobian for each row of a batch, `jacobian_sparse` if most entries are zero, and
        `jacobian_operator` for products with the Jacobian. `jacobian_reverse` and `jacobian_forward` always use one
        mode.

    Notes:
        If `jacobian` itself is called inside a compiled function, `func` cannot run beforehand. The numbers of inputs
        and outputs alone then decide.
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
    """Compute the Hessian of `func`: the second derivatives of each output with respect to each pair of inputs.

    `hessian(func)` is a function. It takes the arguments of `func` and returns the second derivatives. If `x` has the
    shape (3,) and `func(x)` is a scalar, the result has the shape (3, 3). If `func(x)` has the shape (2,), the result
    has the shape (2, 3, 3).

    `hessian` chooses the method: usually reverse mode twice for one output, and Taylor mode for few inputs and several
    outputs.

    Example:
        The Hessian of :math:`x^T A x` is :math:`A + A^T`.

        >>> import torch
        >>> from funcdiff import hessian
        >>> matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> hessian(lambda x: x @ matrix @ x)(torch.ones(2))
        tensor([[2., 2.],
                [2., 6.]])

        For the Hessian of a loss with respect to all parameters of a network, `ravel` makes one vector of them. Here
        the squared error of a linear layer at x = (1, 2) has the Hessian :math:`2 z z^T` with z = (1, 2, 1).

        >>> from funcdiff import module_function, ravel
        >>> network, parameters = module_function(torch.nn.Linear(2, 1))
        >>> vector, unravel = ravel(parameters)
        >>> def loss(vector):
        ...     return network(unravel(vector), torch.tensor([1.0, 2.0])).square().sum()
        >>> hessian(loss)(vector)
        tensor([[2., 4., 2.],
                [4., 8., 4.],
                [2., 4., 2.]])

    Method:
        Reverse mode computes the gradient, and then goes back from each of its entries. Taylor mode computes all second
        derivatives in one run of `func`. The choice is made as in `jacobian`, and `explain` shows it.

        Some methods compute the second derivatives of normalization layers wrongly in torch 2.13. Where this matters,
        `hessian` replaces such a layer by the simpler operations that it consists of.

    Cost:
        For n inputs and one output, reverse mode twice needs as many FLOPs as :math:`2 (1 + n)` evaluations of `func`.
        For any number of outputs, Taylor mode needs at most :math:`1 + n + n (n + 1) / 2`. `hessian` uses the method
        with the shortest predicted time. For a small function, this can be one that needs more FLOPs and starts fewer
        operations.

    See Also:
        `hvp` for the product with a vector, `hessian_diagonal` and `laplacian` for parts of the Hessian,
        `batch_hessian` for one Hessian for each row of a batch, and `hessian_sparse` if most entries are zero.
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

    def found(args: Sequence[Tree], *, untried: bool = False) -> lookup.Found:
        call = functools.partial(run, args=args)
        return lookup.for_transform(func, choice, args, budget, call, last=last, untried=untried)

    def run(name: str, chunk: int | None, args: Sequence[Tree]) -> Tree:
        return recipes[name](func, **{**options, "chunk_size": chunk})(*args)

    planned = None if traced else compiling.planned(func, choice)

    @named_after(func)
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)
        if budget is not None and not plain_allowed():
            raise RefusedError(NO_COUNTING_INSIDE)
        if torch.compiler.is_compiling():
            return compiling.run(func, choice, args, planned, run, eager)
        return eager(args)

    @left_alone
    def eager(args: Sequence[Tree]) -> Tree:
        if any_spread(args):
            return run(next(filter(_plain_reverse, recipes)), options.chunk_size, args)
        now = found(args, untried=True)

        def result(name: str, chunk: int | None) -> Tree:
            bare = name in UNCORRECTED and now.plan.bare and now.plain
            key = name, chunk, bare, torch.is_grad_enabled()  # a corrected function remembers the grad mode
            if key not in last.recipes:
                recipe = UNCORRECTED[name] if bare else recipes[name]
                made: Any = recipe(func, **{**options, "chunk_size": chunk or options.chunk_size})
                last.recipes[key] = made.known
            return last.recipes[key](*args)

        first = functools.partial(first_result, args) if verify else None
        rule = functools.partial(lookup.no_taylor_rule, func, args, options)
        return first_working(now, result, first, numbers=lambda result: apart(result, options.has_aux)[0], rule=rule)

    def first_result(args: Sequence[Tree], plan: Plan, name: str, result: Tree) -> Check:
        if plan.sketch.draws:
            return Check("undecided", reason="func draws random numbers")
        flat, point = lookup.value_of(func, [copied(arg) for arg in args], options)
        if kind in ("jacobian", "hessian"):
            verdict = check(flat, point, flatten(result[0] if options.has_aux else result)[0], kind, plan.sketch)
        else:
            verdict = check_on_plane(recipes[name], flat, point, kind, plan.sketch, under_vmap=False)
        if plan[name].settled and by_hand(plan.sketch):  # checked at each call
            return verdict
        return and_beyond(verdict, result, recipes[name], flat, point, kind, plan, under_vmap=False)

    wrapper.found = found  # type: ignore[attr-defined]  # for `explain`
    return wrapper


def _plain_reverse(name: str) -> bool:
    """Whether a recipe suits sharded tensors: torch 2.13 has no forward mode of them, and to plan would communicate."""
    return name.partition(",")[0] in ("jacobian_batched_grad", "hessian_double_backward")


def for_rows(kind: Kind, rows: int) -> Recipe:
    """The automatic recipe of a kind, planned for so many rows at once."""
    return lambda func, *args, **options: chosen(kind, func, Options(*args, **options), batch=rows)
