"""Products with a Hessian by the recipe that is right for the function, and the operator of many at one point."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch

from funcdiff._automatic import lookup
from funcdiff._automatic.cache import Last
from funcdiff._automatic.candidates import PRODUCTS, UNCORRECTED
from funcdiff._automatic.choice import VERIFY
from funcdiff._automatic.planning import Plan
from funcdiff._automatic.trying import and_trained, first_working
from funcdiff._calling.operator import Operator
from funcdiff._calling.options import Options
from funcdiff._calling.point import check_tuple
from funcdiff._calling.transform import copied
from funcdiff._calling.types import Function
from funcdiff._safety.accusing import Check
from funcdiff._safety.guard import corrected, has_graph
from funcdiff._safety.lines import direction
from funcdiff._safety.planes import and_elsewhere
from funcdiff._safety.verification import check_product
from funcdiff._torch.processes import any_spread
from funcdiff._torch.transforms import plain_allowed
from funcdiff._torch.trees import Tree, flatten, map_leaves, unflatten
from funcdiff.recipes import products

_NAMES = tuple(PRODUCTS)
_LAST = Last()  # products with one function are computed in a row


@products.product(
    verify=VERIFY,
    raises={
        **products.ERRORS,
        "RuntimeError": "`func` converts a tensor that depends on its input to a Python number, draws random "
        "numbers, or writes into its argument or a captured tensor. Or every method is known to be wrong on it.",
    },
)
def hvp(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...], *, verify: bool = True) -> Tree:
    """Compute Hv, the product of the Hessian of `func` with a vector, without computing the Hessian.

    `hvp(func, (x,), (v,))` has the shape of `x`. It says how the gradient of `func` at `x` changes if `x` moves in the
    direction `v`. It costs about as much as two or three gradients, for any number of inputs.

    `func` must return a scalar. For a network whose output has the shape (1,), pass `lambda x: network(x).squeeze()`.

    Example:
        The Hessian of the sum of cubes is diagonal, so the product is 6 x v.

        >>> import torch
        >>> from funcdiff import hvp
        >>> x, v = torch.tensor([1.0, 2.0]), torch.ones(2)
        >>> hvp(lambda x: x.pow(3).sum(), (x,), (v,))
        tensor([ 6., 12.])

        The same in plain torch, without the choice of a method and the check:

        >>> from torch.func import grad, jvp
        >>> jvp(grad(lambda x: x.pow(3).sum()), (x,), (v,))[1]
        tensor([ 6., 12.])

        For several arguments, pass one vector for each.

        >>> def func(x, y):
        ...     return x**2 * y
        >>> point = torch.tensor(3.0), torch.tensor(5.0)
        >>> vector = torch.tensor(1.0), torch.tensor(0.0)
        >>> hvp(func, point, vector)
        (tensor(10.), tensor(6.))

        For the parameters of a network, the vector is a dictionary like them.

        >>> from funcdiff import module_function
        >>> network, parameters = module_function(torch.nn.Linear(2, 1))
        >>> vectors = {name: torch.ones_like(tensor) for name, tensor in parameters.items()}
        >>> hvp(lambda p: network(p, x).square().sum(), (parameters,), (vectors,))
        {'weight': tensor([[ 8., 16.]]), 'bias': tensor([8.])}

    Method:
        `hvp` differentiates backward twice: through `func`, and then through its gradient. If torch gets this wrong for
        an operation in `func`, another method is used.

    Cost:
        As much arithmetic as 4 evaluations of `func` for the input of a network, and up to 9 for its parameters,
        however many there are.

    See Also:
        `hvp_operator` for many vectors at the same point, and `hessian` for the whole matrix.

    Notes:
        If reverse mode gives NaN, as behind a mask, forward mode computes the product number by number, for up to
        10,000 inputs. Under torch.compile, normalization layers that torch gets wrong are replaced, and other
        operations are not looked at.
    """
    check_tuple(primals)
    if _unplanned(primals):
        return next(iter(PRODUCTS.values()))(func, primals, tangents)
    found = lookup.for_product(_NAMES, func, verify, primals, last=_LAST)

    def product(name: str, at: tuple[Tree, ...], along: tuple[Tree, ...]) -> Tree:
        recipe = UNCORRECTED[name] if name in UNCORRECTED and found.plan.bare and found.plain else PRODUCTS[name]
        return recipe(func, at, along)

    def first_product(plan: Plan, name: str, _: Tree) -> Check:
        return _checked(func, primals, plan, name, lambda *along: product(name, primals, along))

    return first_working(found, lambda name, _: product(name, primals, tangents), first_product if verify else None)


@products.product(
    returns="The operator. Call it with one vector for each argument of `func`; it returns Hv as `hvp` does.",
    primals="The point: the arguments of `func`. They are copied, so later changes to them do not change the operator.",
    verify=VERIFY,
    raises=products.ERRORS,
)
def hvp_operator(func: Function, *primals: Tree, verify: bool = True) -> Operator:
    """Make an operator that multiplies vectors by the Hessian of `func` at one point.

    Use it for many vectors. ``operator = hvp_operator(func, x)`` computes the gradient once. Then ``operator(v)`` is
    Hv, has the shape of `x`, and costs half to two thirds as much as a call of `hvp`.

    The operator also acts like a matrix of shape (n, n), for n numbers in `x`: ``operator @ V`` multiplies a flat
    vector of shape (n,), or the k columns of a matrix of shape (n, k). SciPy accepts it, so
    ``scipy.sparse.linalg.eigsh(operator)`` computes eigenvalues.

    Example:
        The columns of the Hessian of :math:`x^2 y` at (1, 3) are (2 y, 2 x) and (2 x, 0).

        >>> import torch
        >>> from funcdiff import hvp_operator
        >>> operator = hvp_operator(lambda x: x[0] ** 2 * x[1], torch.tensor([1.0, 3.0]))
        >>> operator(torch.tensor([1.0, 0.0]))
        tensor([6., 2.])
        >>> operator @ torch.eye(2)
        tensor([[6., 2.],
                [2., 0.]])

        SciPy computes its largest eigenvalue, 3 + sqrt(13).

        >>> from scipy.sparse.linalg import eigsh
        >>> eigsh(operator, k=1, which="LA", return_eigenvectors=False).round(3)
        array([6.606], dtype=float32)

    Cost:
        As much arithmetic as 2 evaluations of `func` once, and 2 more for each product. For the parameters of a
        network, 3 evaluations, and up to 6 for each product. The graph of the gradient stays in memory as long as the
        operator.

    See Also:
        `Operator` for what an operator can do, and `over_batches` for the Hessian of a loss over a data set.
    """
    if _unplanned(primals):
        return _OPERATORS["hvp_double_backward"](func, *primals)

    def first_product(plan: Plan, name: str, operator: Operator) -> Check:
        return _checked(func, primals, plan, name, operator)

    found = lookup.for_product(tuple(_OPERATORS), func, verify, primals)

    def product(operator: Operator) -> Tree:
        leaves, spec = flatten(primals)
        return operator(*unflatten(direction(leaves), spec)) if found.plan.watched else ()

    first = first_product if verify else None
    operator: Operator = first_working(found, lambda name, _: _OPERATORS[name](func, *primals), first, numbers=product)
    return operator


def _unplanned(primals: tuple[Tree, ...]) -> bool:
    """Where func cannot run beforehand, or where to run it communicates."""
    return torch.compiler.is_compiling() or any_spread(primals)


def _by_double_backward(func: Function, *primals: Tree) -> Operator:
    """Leave operations alone that plain autograd differentiates correctly, unless the products are trained through."""
    if not plain_allowed() or has_graph(primals):
        return products.operator_double_backward(corrected(func, once_more=True), *primals)
    spared: list[object] = []
    operator = products.operator_double_backward(corrected(func, spared), *primals)
    if spared and has_graph(operator(*map_leaves(torch.zeros_like, primals))):
        return products.operator_double_backward(corrected(func, once_more=True), *primals)
    return operator


_OPERATORS: Mapping[str, Callable[..., Operator]] = {
    "hvp_double_backward": _by_double_backward,
    **{
        name: functools.partial(products.operator_of, product)
        for name, product in PRODUCTS.items()
        if name != "hvp_double_backward"
    },
}


def _checked(func: Function, primals: tuple[Tree, ...], plan: Plan, name: str, operator: Callable[..., Tree]) -> Check:
    """Hold a product along a random direction against differences of the gradient."""
    flat, point = lookup.value_of(func, copied(primals), Options(tuple(range(len(primals)))))
    along = direction(point)
    product = flatten(operator(*unflatten(along, flatten(primals)[1])))[0]
    verdict = check_product(flat, point, along, [point[0].new_ones(())], product, plan.sketch)
    whole, one = (lookup.hessian_by_products(name, outputs) for outputs in (1, None))
    verdict = and_elsewhere(verdict, whole, flat, point, "hessian", plan.sketch, under_vmap=False)
    return and_trained(verdict, tuple(product), one, flat, point, plan, under_vmap=False)
