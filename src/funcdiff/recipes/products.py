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

SCALAR = (
    "The function to differentiate. It returns a scalar, a tensor of shape (). Its arguments are tensors, or "
    "dicts, lists and tuples of tensors (pytrees)."
)
VECTOR = "a tuple like `primals`, with tensors of the same shapes, dtypes and devices."
ERRORS = {
    "TypeError": "A tensor in the arguments, or the output, is not a dense tensor of real floating-point "
    "numbers. Or the vector v has another structure than `primals`.",
    "ValueError": "`func` does not return a scalar, or a tensor in v has another shape than in `primals`.",
}
product = partial(
    documented,
    "product",
    returns="Hv, with the shape of the argument. For several arguments, it is a tuple with one product for each, in "
    "which all blocks of the Hessian take part.",
    func=SCALAR,
    primals="The point at which to differentiate: a tuple with the arguments of `func`, such as `(x,)`.",
    tangents=f"The vector v: {VECTOR}",
)
NEEDS_FORWARD = {
    **ERRORS,
    "NotImplementedError": "An operation in `func` has no forward derivative. Use `hvp`.",
}


@product(raises=NEEDS_FORWARD)
def hvp_forward_over_reverse(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Compute Hv as the derivative of the gradient along v: `jvp` of `grad`.

    The result has the shape of the argument. Reverse mode computes the gradient, and forward mode differentiates it in
    the direction v. `hvp` takes the same arguments and chooses the method itself.

    Example:
        The product with the Hessian of the sum of cubes is 6 x v.

        >>> import torch
        >>> from funcdiff import hvp_forward_over_reverse
        >>> def func(x):
        ...     return x.pow(3).sum()
        >>> x, v = torch.tensor([1.0, 2.0]), torch.ones(2)
        >>> hvp_forward_over_reverse(func, (x,), (v,))
        tensor([ 6., 12.])

        The same in plain torch: `jvp` returns the gradient and its derivative.

        >>> from torch.func import grad, jvp
        >>> jvp(grad(func), (x,), (v,))[1]
        tensor([ 6., 12.])

    Cost:
        As much arithmetic as 6 evaluations of `func` for the input of a network, and up to 9 for its parameters. In
        theory 4 are enough for the input, but torch also multiplies by the zero tangents of constant weights.
    """
    return at_point(lambda flat, x, v: jvp(gradient(flat), x, v)[1], func, primals, tangents)


@product(
    returns="The product, with the shape of the argument. For several arguments, it is a tuple with one for each.",
    cotangents=f"The vector v: {VECTOR}",
    raises=ERRORS,
)
def vhp(func: Function, primals: tuple[Tree, ...], cotangents: tuple[Tree, ...]) -> Tree:
    """Compute :math:`v^T H`, the product of a vector with the Hessian of `func`, by reverse mode over reverse mode.

    The vector has the shape of the argument, and so has the result. The Hessian is symmetric if the second derivatives
    are continuous, so the result is then that of `hvp`.

    Example:
        The first row of the Hessian of :math:`x^2 y` at (1, 3) is (2 y, 2 x).

        >>> import torch
        >>> from funcdiff import vhp
        >>> def func(x):
        ...     return x[0] ** 2 * x[1]
        >>> vhp(func, (torch.tensor([1.0, 3.0]),), (torch.tensor([1.0, 0.0]),))
        tensor([6., 2.])

    Cost:
        As much arithmetic as 4 evaluations of `func` for the input of a network, and up to 9 for its parameters. The
        graph of two passes is in memory.
    """
    return at_point(lambda flat, x, u: vjp(gradient(flat), *x)[1](u), func, primals, cotangents)


@product(raises=ERRORS)
def hvp_reverse_over_reverse(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Compute Hv by reverse mode over reverse mode: the VJP of the gradient.

    The result has the shape of the argument. Reverse mode computes the gradient, and reverse mode multiplies v by the
    derivatives of the gradient. Use this method if an operation in `func` does not support forward mode. `hvp` takes
    the same arguments and chooses the method itself.

    Example:
        The product with the Hessian of :math:`x^T A x` is :math:`(A + A^T) v`.

        >>> import torch
        >>> from funcdiff import hvp_reverse_over_reverse
        >>> matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> def func(x):
        ...     return x @ matrix @ x
        >>> x, v = torch.zeros(2), torch.ones(2)
        >>> hvp_reverse_over_reverse(func, (x,), (v,))
        tensor([4., 8.])

        The same in plain torch:

        >>> from torch.func import grad, vjp
        >>> gradient, pull = vjp(grad(func), x)
        >>> pull(v)
        (tensor([4., 8.]),)

    Cost:
        As much arithmetic as 4 evaluations of `func` for the input of a network, and up to 9 for its parameters. The
        graph of two passes is in memory.
    """
    return vhp(func, primals, tangents)


@product(raises=NEEDS_FORWARD)
def hvp_reverse_over_forward(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Compute Hv as the gradient of the derivative along v: `grad` of `jvp`.

    The result has the shape of the argument. Forward mode computes the slope of `func` in the direction v, one number.
    Reverse mode computes the gradient of this number. `hvp` takes the same arguments and chooses the method itself.

    Example:
        The product with the Hessian of the sum of cubes is 6 x v.

        >>> import torch
        >>> from funcdiff import hvp_reverse_over_forward
        >>> def func(x):
        ...     return x.pow(3).sum()
        >>> x, v = torch.tensor([1.0, 2.0]), torch.ones(2)
        >>> hvp_reverse_over_forward(func, (x,), (v,))
        tensor([ 6., 12.])

        The same in plain torch:

        >>> from torch.func import grad, jvp
        >>> grad(lambda x: jvp(func, (x,), (v,))[1])(x)
        tensor([ 6., 12.])

    Cost:
        As much arithmetic as about 6 evaluations of `func` for the input of a network, and up to 9 for its parameters.
        The graph of one forward pass with its tangent is in memory.

    Caution:
        torch 2.13 differentiates the forward derivatives of some operations wrongly, without an error: `layer_norm`,
        `batch_norm`, `det`, `solve` and others. `check_derivatives` finds such operations in your function.
    """

    def product(flat: Scalar, x: Primals, v: Primals) -> Sequence[Tensor]:
        return gradient(lambda *leaves: jvp(flat, leaves, v)[1])(*x)

    return at_point(product, func, primals, tangents)


@product(raises=ERRORS)
def hvp_double_backward(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Compute Hv with two calls of `torch.autograd.grad`, without a transform of torch.func.

    The result has the shape of the argument. The first call computes the gradient and records how it was computed. The
    second one multiplies v by the derivatives of the gradient. This is usually the fastest method. It also supports
    checkpointing, hooks and custom autograd functions without `setup_context`. `hvp` takes the same arguments and
    chooses the method itself.

    Example:
        The product with the Hessian of the sum of cubes is 6 x v.

        >>> import torch
        >>> from funcdiff import hvp_double_backward
        >>> def func(x):
        ...     return x.pow(3).sum()
        >>> x, v = torch.tensor([1.0, 2.0]), torch.ones(2)
        >>> hvp_double_backward(func, (x,), (v,))
        tensor([ 6., 12.])

        The same in plain torch:

        >>> x = x.requires_grad_()
        >>> (gradient,) = torch.autograd.grad(func(x), x, create_graph=True)
        >>> torch.autograd.grad(gradient, x, v)
        (tensor([ 6., 12.]),)

    Cost:
        As much arithmetic as 4 evaluations of `func` for the input of a network, and up to 9 for its parameters. The
        graph of two passes is in memory.

    Notes:
        Plain autograd is not available inside vmap, grad and torch.compile. There, this function calls
        `hvp_reverse_over_reverse`.
    """
    return at_point(lambda flat, x, v: curvature(flat, x)(v), func, primals, tangents)


def operator_double_backward(func: Function, *primals: Tree) -> Operator:
    """The map from v to Hv by plain autograd: the graph of the gradient is built once."""
    space = Space.of(primals)
    return symmetric(at_point(curvature, func, primals, depth=0), space)


def operator_of(product: Callable[..., Tree], func: Function, *primals: Tree) -> Operator:
    """The map from v to Hv as a product at a point computes it, anew for each v."""
    x, spec = check_primals(primals)
    at = unflatten([leaf.clone() for leaf in x], spec)

    def apply(v: Leaves) -> Leaves:
        return flatten(product(func, at, unflatten(v, spec)))[0]

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
