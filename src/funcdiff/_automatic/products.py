"""Products with a Hessian by the recipe that is right for the function, and the operator of many at one point."""

from __future__ import annotations

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
        "numbers, or writes into its argument or a captured tensor; or every recipe is known to be wrong on it.",
    },
)
def hvp(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...], *, verify: bool = True) -> Tree:
    """Compute the Hessian-vector product Hv at a point: how the gradient changes in the direction v.

    The product has the shape of the primals, and the Hessian is not computed. `func` must return a scalar: for a
    network whose output has the shape (1,), pass `lambda x: net(x).squeeze()`. `hvp` goes back through the function and
    then through its gradient, unless torch gets this wrong for an operation in `func`.

    Under torch.compile, it is always two backward passes, and only normalization layers are replaced where torch gets
    them wrong: other operations are not looked at.

    Cost: 4 F, where F is the arithmetic of one evaluation of `func`.

    Example:
        The product with the Hessian of the sum of cubes is 6 x v.

        >>> import torch
        >>> hvp(lambda x: x.pow(3).sum(), (torch.tensor([1.0, 2.0]),), (torch.ones(2),))
        tensor([ 6., 12.])
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
    returns="The operator. It takes the tangents, one for each primal, and returns Hv as the other products do.",
    primals="The point, which is copied: later changes to it do not change the operator.",
    verify=VERIFY,
    raises=products.ERRORS,
)
def hvp_operator(func: Function, *primals: Tree, verify: bool = True) -> Operator:
    """Make a function that takes v and returns Hv, for many vectors at one point.

    The gradient is computed once and kept. Each product then differentiates it in one direction, and the Hessian is
    never computed.

    The operator composes with vmap, and ``operator @ V`` computes the products with the columns of V at once. SciPy's
    solvers accept it as it is: ``scipy.sparse.linalg.eigsh(operator)``.

    Cost: 2 F once, then 2 F for each product. The graph of two passes stays in memory as long as the operator.

    Example:
        The columns of the Hessian of x^2 y at (1, 3) are (2 y, 2 x) and (2 x, 0).

        >>> import torch
        >>> hessian = hvp_operator(lambda x: x[0] ** 2 * x[1], torch.tensor([1.0, 3.0]))
        >>> [hessian(v) for v in torch.eye(2)]
        [tensor([6., 2.]), tensor([2., 0.])]
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
        return products.operator_double_backward(corrected(func), *primals)
    spared: list[object] = []
    operator = products.operator_double_backward(corrected(func, spared), *primals)
    if spared and has_graph(operator(*map_leaves(torch.zeros_like, primals))):
        return products.operator_double_backward(corrected(func), *primals)
    return operator


_OPERATORS: Mapping[str, Callable[..., Operator]] = {
    "hvp_double_backward": _by_double_backward,
    "hvp_forward_over_reverse": lambda func, *primals: products.operator_forward_over_reverse(
        corrected(func), *primals
    ),
}


def _checked(func: Function, primals: tuple[Tree, ...], plan: Plan, name: str, operator: Callable[..., Tree]) -> Check:
    """Hold a product along a random direction against differences of the gradient."""
    flat, point = lookup.value_of(func, copied(primals), Options(tuple(range(len(primals)))))
    along = direction(point)
    product = flatten(operator(*unflatten(along, flatten(primals)[1])))[0]
    verdict = check_product(flat, point, along, [point[0].new_ones(())], product, plan.sketch)
    recipe = lookup.hessian_by_products(name, outputs=None)
    return and_trained(verdict, tuple(product), recipe, flat, point, plan, under_vmap=False)
