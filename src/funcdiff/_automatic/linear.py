"""The Jacobian as an operator, by the recipe that is right for the function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from funcdiff._automatic import lookup
from funcdiff._automatic.choice import VERIFY
from funcdiff._automatic.planning import Plan
from funcdiff._automatic.trying import first_working
from funcdiff._calling.documented import documented
from funcdiff._calling.operator import Leaves, Operator
from funcdiff._calling.options import Options
from funcdiff._calling.point import check_tuple
from funcdiff._calling.transform import copied
from funcdiff._calling.types import Function
from funcdiff._jets.singular import once
from funcdiff._safety.accusing import Check
from funcdiff._safety.guard import corrected, has_graph, with_safe_forms_where_needed
from funcdiff._safety.lines import direction
from funcdiff._safety.verification import check_linear
from funcdiff._torch.transforms import plain_allowed
from funcdiff._torch.trees import Tree, flatten
from funcdiff.recipes.linear import Formula, Linearized, Middle, by_double_backward, by_forward
from funcdiff.recipes.linear import linearized as linearized_by
from funcdiff.recipes.linear import product_through as product_by

FUNC = (
    "The function to differentiate. Its arguments and its output are tensors, or dicts, lists and tuples of "
    "tensors (pytrees)."
)
POINT = (
    "The point at which to differentiate: the arguments of the function. They are copied, so later changes to "
    "them do not change the operator."
)
_FORMULAS: Mapping[str, Formula] = {
    "jacobian_batched_grad, products": by_double_backward,
    "jacobian_forward, products": by_forward,
}
_WHILE_COMPILING = "jacobian_forward, products"


@documented(
    "operator",
    returns="The operator. ``operator(v)`` takes one vector for each argument of `func` and returns Jv, with the "
    "shape of the output. ``operator.T(u)`` takes a vector with the shape of the output and returns J^T u, with "
    "the shape of the argument, or a tuple for several arguments.",
    func=FUNC,
    primals=POINT,
    verify=VERIFY,
    raises={
        "TypeError": "An argument or the output is not a dense tensor of real floating-point numbers.",
        "ValueError": "A vector has the wrong shape.",
        "RuntimeError": "`func` converts a tensor that depends on its input to a Python number, draws random "
        "numbers, or writes into its argument or a captured tensor. Or every method is known to be wrong on it.",
    },
)
def jacobian_operator(func: Function, *primals: Tree, verify: bool = True) -> Operator:
    """Make an operator that multiplies by the Jacobian of `func` at one point, and by its transpose.

    Many solvers do not need the Jacobian J itself, only its products with vectors. ``operator(v)`` is Jv, with the
    shape of the output. ``operator.T(u)`` is J^T u, with the shape of the argument. J is not computed.

    The operator also acts like a matrix of shape (m, n), for n inputs and m outputs: ``operator @ V`` multiplies a flat
    vector of shape (n,), or the k columns of a matrix of shape (n, k). SciPy accepts it in `scipy.sparse.linalg.lsqr`
    and `lsmr` for least squares, and in `svds` for singular values.

    Example:
        The Jacobian of (x z, y z) at (3, 5, 7) is [[7, 0, 3], [0, 7, 5]].

        >>> import torch
        >>> from funcdiff import jacobian_operator
        >>> operator = jacobian_operator(lambda x: x[:2] * x[2], torch.tensor([3.0, 5.0, 7.0]))
        >>> operator(torch.tensor([0.0, 0.0, 1.0]))  # the third column
        tensor([3., 5.])
        >>> operator.T(torch.tensor([1.0, 0.0]))  # the first row
        tensor([7., 0., 3.])

        SciPy solves a least-squares problem with it: which step changes the output by (10, 12)?

        >>> from scipy.sparse.linalg import lsqr
        >>> step = torch.from_numpy(lsqr(operator, [10.0, 12.0])[0]).float()
        >>> operator(step)
        tensor([10., 12.])

    Cost:
        `func` runs once. Each product needs as much arithmetic as 2 evaluations of `func`, and the first Jv as much as
        4. The graph stays in memory as long as the operator.

    See Also:
        `Operator` for what an operator can do, `hvp_operator` for the Hessian, and `jacobian` for the matrix.
    """
    return linearized(func, primals, verify=verify).jacobian


def linearized(func: Function, primals: tuple[Tree, ...], *, verify: bool = True) -> Linearized:
    """`func` and its Jacobian at a point, by the first formula that is right."""
    check_tuple(primals)

    def run(name: str) -> Linearized:
        """Leave operations alone that plain autograd differentiates correctly, unless products are trained through."""
        if plain_allowed() and not has_graph(primals):
            spared: list[object] = []
            made = linearized_by(_FORMULAS[name], corrected(once(func), spared), primals)
            if not spared or not has_graph(made.value()):  # else func captured what is being trained
                return made
        return linearized_by(_FORMULAS[name], corrected(once(func), once_more=True), primals)

    if torch.compiler.is_compiling():
        return run(_WHILE_COMPILING)  # func cannot run beforehand, to be planned for
    found = lookup.for_product(tuple(_FORMULAS), func, verify, primals, "jacobian")
    first = partial(_checked, func, primals) if verify else None

    def product(made: Linearized) -> Sequence[Tensor]:
        return made.push(direction(flatten(primals)[0])) if found.plan.watched else ()

    made: Linearized = first_working(found, lambda name, _: run(name), first, numbers=product)
    return made


def product_through(
    middle: Middle, func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...], *, verify: bool = True
) -> Leaves:
    """J^T M J v for one v, in forward mode first: without a forward pass and the graph of a backward pass."""

    def run(name: str) -> Leaves:
        by = with_safe_forms_where_needed(partial(product_by, _FORMULAS[name], middle))
        product: Leaves = by(once(func), primals, tangents)
        return product

    def first(plan: Plan, name: str, _: Leaves) -> Check:
        return _checked(func, primals, plan, name, linearized_by(_FORMULAS[name], corrected(once(func), []), primals))

    if torch.compiler.is_compiling():
        return product_by(by_forward, middle, corrected(func, once_more=True), primals, tangents)
    found = lookup.for_product(tuple(_FORMULAS)[::-1], func, verify, primals, "jacobian")
    product: Leaves = first_working(found, lambda name, _: run(name), first if verify else None)
    return product


def _checked(func: Function, primals: tuple[Tree, ...], plan: Plan, name: str, made: Linearized) -> Check:
    """Hold Jv against differences of the function, and J^T u against Jv."""
    flat, point = lookup.value_of(func, copied(primals), Options(tuple(range(len(primals)))))
    return check_linear(flat, point, flatten(made.value())[0], made.push, made.pull, plan.sketch)
