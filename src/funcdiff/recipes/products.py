"""Hessian-vector products at a point, without the Hessian.

`func` returns one number. Costs count forward passes F of `func`, by matrix products, for the input of a network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from funcdiff._calling.documented import documented
from funcdiff._calling.operator import Leaves, Operator, Space, symmetric
from funcdiff._calling.plain import backward, tracked
from funcdiff._calling.point import Scalar, at_point, check_primals
from funcdiff._calling.types import Function, Primals
from funcdiff._torch.graph import ends, survey
from funcdiff._torch.transforms import jvp, plain_allowed, vjp
from funcdiff._torch.trees import Tree, flatten, unflatten

SCALAR = "The function. It takes tensors or pytrees of tensors, and returns a scalar, a tensor of shape ()."
VECTOR = "a tuple like `primals`, with the same structure, shapes, dtypes and devices."
ERRORS = {
    "TypeError": "A primal, a tangent or the output is not a real, dense, floating-point tensor, or the tangents have "
    "another structure than the primals.",
    "ValueError": "`func` does not return a scalar, or a tangent has another shape than its primal.",
}
product = partial(
    documented,
    "product",
    returns="Hv, with all blocks of the Hessian. For several primals, it is a tuple with a product for each.",
    func=SCALAR,
    primals="The point: a tuple with the arguments of `func`.",
    tangents=f"The vector v: {VECTOR}",
)
NEEDS_FORWARD = {
    **ERRORS,
    "NotImplementedError": "An operation in `func` has no forward derivative. Use `hvp_reverse_over_reverse`.",
}


@product(raises=NEEDS_FORWARD)
def hvp_forward_over_reverse(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Compute Hv as the derivative of the gradient along v: jvp of grad.

    Cost: 6 F in torch, which multiplies by the zero tangents of constant weights too.

    Example:
        The product with the Hessian of the sum of cubes is 6 x v.

        >>> import torch
        >>> hvp_forward_over_reverse(lambda x: x.pow(3).sum(), (torch.tensor([1.0, 2.0]),), (torch.ones(2),))
        tensor([ 6., 12.])
    """
    return at_point(lambda flat, x, v: jvp(gradient(flat), x, v)[1], func, primals, tangents)


@product(
    returns="v^T H, with all blocks of the Hessian. For several primals, it is a tuple with a product for each.",
    cotangents=f"The vector v: {VECTOR}",
    raises=ERRORS,
)
def vhp(func: Function, primals: tuple[Tree, ...], cotangents: tuple[Tree, ...]) -> Tree:
    """Compute v^T H as the VJP of the gradient. The Hessian is symmetric, so this equals Hv.

    Cost: 4 F, and the graph of two passes in memory.

    Example:
        The first row of the Hessian of x^2 y at (1, 3) is (2 y, 2 x).

        >>> import torch
        >>> vhp(lambda x: x[0] ** 2 * x[1], (torch.tensor([1.0, 3.0]),), (torch.tensor([1.0, 0.0]),))
        tensor([6., 2.])
    """
    return at_point(lambda flat, x, u: vjp(gradient(flat), *x)[1](u), func, primals, cotangents)


@product(raises=ERRORS)
def hvp_reverse_over_reverse(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Compute Hv as the VJP of the gradient: `vhp`, which equals Hv because the Hessian is symmetric.

    This method needs no forward derivative, so use it if an operation has none.

    Cost: 4 F, and the graph of two passes in memory.

    Example:
        The product with the Hessian of a quadratic form is (A + A^T) v.

        >>> import torch
        >>> matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> hvp_reverse_over_reverse(lambda x: x @ matrix @ x, (torch.zeros(2),), (torch.ones(2),))
        tensor([4., 8.])
    """
    return vhp(func, primals, tangents)


@product(raises=NEEDS_FORWARD)
def hvp_reverse_over_forward(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Compute Hv as the gradient of the derivative along v: grad of jvp.

    Cost: About 6 F, and the graph of one forward pass with its tangent in memory.

    Caution: torch differentiates the forward derivatives of some operations (`layer_norm`, `det`, `solve`) wrongly and
    without an error. `check_derivatives` finds such operations.

    Example:
        The product with the Hessian of the sum of cubes is 6 x v.

        >>> import torch
        >>> hvp_reverse_over_forward(lambda x: x.pow(3).sum(), (torch.tensor([1.0, 2.0]),), (torch.ones(2),))
        tensor([ 6., 12.])
    """

    def product(flat: Scalar, x: Primals, v: Primals) -> Sequence[Tensor]:
        return gradient(lambda *leaves: jvp(flat, leaves, v)[1])(*x)

    return at_point(product, func, primals, tangents)


@product(raises=ERRORS)
def hvp_double_backward(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Compute Hv with two calls of plain `torch.autograd.grad`: the least overhead.

    This method supports custom autograd functions in the old style, checkpointing and hooks. Inside vmap, grad and
    torch.compile, where plain autograd is not available, this function is `hvp_reverse_over_reverse`.

    Cost: 4 F, and the graph of two passes in memory.

    Example:
        The product with the Hessian of the sum of sines is -sin(x) v.

        >>> import torch
        >>> hvp_double_backward(lambda x: x.sin().sum(), (torch.tensor([torch.pi / 2, 0.0]),), (torch.ones(2),))
        tensor([-1., -0.])
    """
    return at_point(lambda flat, x, v: curvature(flat, x)(v), func, primals, tangents)


def operator_double_backward(func: Function, *primals: Tree) -> Operator:
    """The map from v to Hv by plain autograd: the graph of the gradient is built once."""
    space = Space.of(primals)
    return symmetric(at_point(curvature, func, primals, depth=0), space)


def operator_forward_over_reverse(func: Function, *primals: Tree) -> Operator:
    """The map from v to Hv as `hvp_forward_over_reverse` computes it, with a graph for each product."""
    x, spec = check_primals(primals)
    at = unflatten([leaf.clone() for leaf in x], spec)

    def apply(v: Leaves) -> Leaves:
        return flatten(hvp_forward_over_reverse(func, at, unflatten(v, spec)))[0]

    return symmetric(apply, Space.of(primals))


def gradient(flat: Scalar) -> Callable[..., tuple[Tensor, ...]]:
    """The gradient with respect to every leaf, as `torch.func.grad` computes it, with less overhead."""

    def slope(*leaves: Tensor) -> tuple[Tensor, ...]:
        output, pull = vjp(flat, *leaves)
        return pull(torch.ones_like(output))  # type: ignore[no-any-return]  # torch's is untyped

    return slope


def curvature(flat: Scalar, x: Primals) -> Callable[[Primals], Sequence[Tensor]]:
    """The map v -> Hv by plain autograd, with one gradient for all v; in a transform it is torch.func's."""
    if not plain_allowed():
        return vjp(gradient(flat), *x)[1]  # type: ignore[no-any-return]  # torch's is untyped
    return plain_curvature(flat, x)


def plain_curvature(flat: Scalar, x: Primals) -> Callable[[Primals], Sequence[Tensor]]:
    """The same where plain autograd is known to be available."""
    output = tracked(flat, x)
    graph = survey(x, [output])
    if graph.compiled:
        return vjp(gradient(flat), *x)[1]  # type: ignore[no-any-return]  # torch's is untyped
    keep = graph.callers and torch.is_grad_enabled()
    slope = ends(backward([output], x, None, create_graph=True))
    return lambda v: backward(slope, x, v, create_graph=keep)
