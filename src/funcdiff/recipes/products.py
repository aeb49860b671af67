"""Hessian-vector products at a point, without the Hessian.

`func` returns one number. Costs count forward passes F of `func`, by matrix products, for the input of a network; for
one primal the result is the product itself, for several a tuple like `primals`, all blocks of the Hessian taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from funcdiff._calling.plain import backward, tracked
from funcdiff._calling.point import Scalar, at_point, check_primals, check_tangents, whole
from funcdiff._calling.types import Function, Primals
from funcdiff._torch.graph import survey
from funcdiff._torch.transforms import jvp, plain_allowed, vjp
from funcdiff._torch.trees import Tree


def hvp_forward_over_reverse(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Hv as the slope of the gradient along v: jvp of grad.

    Shapes: those of the primals. Cost: 6 F in torch, which multiplies by the zero tangents of constant weights too.

    Args:
        func: From tensors (or pytrees of them) to a scalar, of shape ().
        primals: The point: a tuple of `func`'s arguments.
        tangents: v, a tuple like `primals`, in structure, shapes, dtypes and devices.

    Returns:
        Hv; a tuple of products where there are several primals.

    Raises:
        TypeError: A primal, a tangent or the output is no real floating-point dense tensor, or of another structure.
        ValueError: `func` returns no scalar, or a tangent has another shape than its primal.
        RuntimeError: `func` writes into its argument, or does what torch cannot differentiate; the remedy is named.

    Example:
        Of the sum of cubes: 6 x v.

        >>> import torch
        >>> hvp_forward_over_reverse(lambda x: x.pow(3).sum(), (torch.tensor([1.0, 2.0]),), (torch.ones(2),))
        tensor([ 6., 12.])
    """
    return at_point(lambda flat, x, v: jvp(gradient(flat), x, v)[1], func, primals, tangents)


def vhp(func: Function, primals: tuple[Tree, ...], cotangents: tuple[Tree, ...]) -> Tree:
    """v^T H: the gradient's own VJP. The Hessian is symmetric, so this is Hv, the other way round.

    Shapes, arguments, errors: those of `hvp_forward_over_reverse`. Cost: 4 F, and the graph of two passes in memory.

    Example:
        Of x^2 y at (1, 3), along x: 2 y and 2 x.

        >>> import torch
        >>> vhp(lambda x: x[0] ** 2 * x[1], (torch.tensor([1.0, 3.0]),), (torch.tensor([1.0, 0.0]),))
        tensor([6., 2.])
    """
    return at_point(lambda flat, x, u: vjp(gradient(flat), *x)[1](u), func, primals, cotangents)


def hvp_reverse_over_reverse(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Hv as the gradient's VJP: `vhp`, of which the symmetry of the Hessian makes a product from the right.

    Shapes, arguments, errors: those of `hvp_forward_over_reverse`. Cost: 4 F, and the graph of two passes in memory.
    Needs no forward derivative: the way out where an operation has none.

    Example:
        Of a quadratic form: (A + A^T) v.

        >>> import torch
        >>> matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> hvp_reverse_over_reverse(lambda x: x @ matrix @ x, (torch.zeros(2),), (torch.ones(2),))
        tensor([4., 8.])
    """
    return vhp(func, primals, tangents)


def hvp_reverse_over_forward(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Hv as the gradient of the slope along v: grad of jvp.

    Shapes, arguments, errors: those of `hvp_forward_over_reverse`. Cost: about 6 F, and the graph of one forward pass
    with its tangent in memory. Caution: the forward derivatives of some operations (`layer_norm`, `det`,
    `solve`) are themselves differentiated wrongly by torch, with no error: see `check_derivatives`.

    Example:
        Of the sum of cubes: 6 x v.

        >>> import torch
        >>> hvp_reverse_over_forward(lambda x: x.pow(3).sum(), (torch.tensor([1.0, 2.0]),), (torch.ones(2),))
        tensor([ 6., 12.])
    """

    def product(flat: Scalar, x: Primals, v: Primals) -> Sequence[Tensor]:
        return gradient(lambda *leaves: jvp(flat, leaves, v)[1])(*x)

    return at_point(product, func, primals, tangents)


def hvp_double_backward(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Hv by two calls of plain `torch.autograd.grad`: the least overhead.

    Shapes, arguments, errors: those of `hvp_forward_over_reverse`. Cost: 4 F, and the graph of two passes in memory.
    Old custom functions, checkpointing and hooks work. Inside vmap, grad or torch.compile, where there is no plain
    autograd, it is `hvp_reverse_over_reverse`.

    Example:
        Of the sum of sines: -sin(x) v.

        >>> import torch
        >>> hvp_double_backward(lambda x: x.sin().sum(), (torch.tensor([torch.pi / 2, 0.0]),), (torch.ones(2),))
        tensor([-1., -0.])
    """
    return at_point(lambda flat, x, v: curvature(flat, x)(v), func, primals, tangents)


def hvp_operator(func: Function, *primals: Tree) -> Callable[..., Tree]:
    """The map v -> Hv at one point: the gradient's graph is built once, for many products.

    Shapes, errors: those of `hvp_forward_over_reverse`. Cost: 2 F once, then 2 F a product; the graph of two passes
    stays in memory as long as the operator. Composes with vmap, for the products with many vectors at once.

    SciPy takes it as it is, for float64 and with `x0` of shape (n,)::

        hessian = hvp_operator(func, torch.tensor(x0))
        LinearOperator((n, n), matvec=lambda v: hessian(torch.tensor(v).reshape(n)).numpy(), dtype=x0.dtype)
        hessp = lambda x, v: hvp_operator(func, torch.tensor(x))(torch.tensor(v)).numpy()

    Args:
        func: From tensors (or pytrees of them) to a scalar, of shape ().
        *primals: The point, copied: later changes to it do not change the operator.

    Returns:
        The function of the tangents, one for each primal, that returns Hv, or a tuple of products for several primals.

    Example:
        The Hessian of x^2 y at (1, 3), column by column.

        >>> import torch
        >>> hessian = hvp_operator(lambda x: x[0] ** 2 * x[1], torch.tensor([1.0, 3.0]))
        >>> [hessian(v) for v in torch.eye(2)]
        [tensor([6., 2.]), tensor([2., 0.])]
    """
    x, spec = check_primals(primals)
    apply = at_point(curvature, func, primals, depth=0)

    def operator(*tangents: Tree) -> Tree:
        return whole(apply(check_tangents(tangents, x, spec)), spec)

    return operator


def gradient(flat: Scalar) -> Callable[..., tuple[Tensor, ...]]:
    """The gradient by every leaf, as `torch.func.grad` takes it, with less overhead."""

    def slope(*leaves: Tensor) -> tuple[Tensor, ...]:
        output, pull = vjp(flat, *leaves)
        return pull(torch.ones_like(output))  # type: ignore[no-any-return]  # torch's is untyped

    return slope


def curvature(flat: Scalar, x: Primals) -> Callable[[Primals], Sequence[Tensor]]:
    """The map v -> Hv: plain autograd twice, the gradient once for all v; the same by torch.func inside a transform."""
    if not plain_allowed():
        return vjp(gradient(flat), *x)[1]  # type: ignore[no-any-return]  # torch's is untyped
    output = tracked(flat, x)
    graph = survey(x, [output])
    if graph.compiled:
        return vjp(gradient(flat), *x)[1]  # type: ignore[no-any-return]  # torch's is untyped
    keep = graph.callers and torch.is_grad_enabled()
    slope = backward([output], x, None, create_graph=True)
    return lambda v: backward(slope, x, v, create_graph=keep)
