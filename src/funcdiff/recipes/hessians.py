"""Hessians: outer over inner, each literally a Jacobian of a Jacobian.

Costs count forward passes F of a function R^n -> R^m, by matrix products.
"""

from __future__ import annotations

from functools import partial

from funcdiff._calling.documented import documented
from funcdiff._calling.options import Options
from funcdiff._calling.types import Function
from funcdiff.recipes.jacobians import jacobian_batched_grad, jacobian_forward, jacobian_reverse

composition = partial(
    documented,
    "Hessian",
    chunk_size="How many rows or columns each of the two Jacobians computes at once. By default, all of them.",
)
NEEDS_FORWARD = {
    "NotImplementedError": "An operation in `func` has no forward derivative. Use `hessian_reverse_over_reverse`."
}


@composition(raises=NEEDS_FORWARD)
def hessian_forward_over_reverse(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Hessian by forward mode over reverse mode, as `torch.func.hessian` does.

    The arguments and the result are those of `hessian`, which chooses the method itself. Reverse mode computes the rows
    of the Jacobian. Forward mode then differentiates all of them with respect to each input.

    Example:
        The Hessian of x^T A x is A + A^T.

        >>> import torch
        >>> from funcdiff import hessian_forward_over_reverse
        >>> matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> hessian_forward_over_reverse(lambda x: x @ matrix @ x)(torch.ones(2))
        tensor([[2., 2.],
                [2., 6.]])

    Cost:
        About (1 + n)(1 + m) evaluations of `func`, for n inputs and m outputs. If m is small, try this composition
        first.

    Caution:
        With respect to the weight and the input of a normalization layer together, all four compositions of forward and
        reverse mode are wrong in torch 2.13. Use `hessian_taylor` there. With respect to the input alone, this
        composition was right in all our tests, but the compositions with forward mode inside were not.
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_forward(jacobian_reverse(func, **options), **options)


@composition()
def hessian_reverse_over_reverse(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Hessian by reverse mode over reverse mode.

    The arguments and the result are those of `hessian`, which chooses the method itself. This composition needs no
    forward derivative. Use it if an operation in `func` has none.

    Example:
        The Hessian of the sum of exponentials is diagonal.

        >>> import torch
        >>> from funcdiff import hessian_reverse_over_reverse
        >>> hessian_reverse_over_reverse(lambda x: x.exp().sum())(torch.zeros(2))
        tensor([[1., 0.],
                [0., 1.]])

    Cost:
        Reverse mode computes the rows of the Jacobian, and then goes back from each of its entries. For n inputs and m
        outputs, these are m n backward passes through a forward and a backward pass. Their graphs all stay in memory.
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_reverse(jacobian_reverse(func, **options), **options)


@composition(raises=NEEDS_FORWARD)
def hessian_reverse_over_forward(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Hessian by reverse mode over forward mode. This is seldom the right choice.

    The arguments and the result are those of `hessian`, which chooses the method itself.

    Example:
        The Hessian of the product of two numbers has ones off its diagonal.

        >>> import torch
        >>> from funcdiff import hessian_reverse_over_forward
        >>> hessian_reverse_over_forward(torch.prod)(torch.tensor([3.0, 4.0]))
        tensor([[0., 1.],
                [1., 0.]])

    Cost:
        Forward mode computes the columns of the Jacobian, and reverse mode goes back from each of its entries. For n
        inputs and m outputs, these are m n backward passes through n forward passes. Their graphs all stay in memory.

    Caution:
        torch 2.13 differentiates the forward derivatives of some operations wrongly, without an error: `layer_norm`,
        `batch_norm` in training mode, `det`, `solve`. `check_derivatives` finds such operations in your function.
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_reverse(jacobian_forward(func, **options), **options)


@composition(raises=NEEDS_FORWARD)
def hessian_forward_over_forward(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Hessian by forward mode over forward mode.

    The arguments and the result are those of `hessian`, which chooses the method itself. Forward mode computes the
    columns of the Jacobian, and then differentiates all of them with respect to each input.

    Example:
        The second derivative of a cube is 6 x.

        >>> import torch
        >>> from funcdiff import hessian_forward_over_forward
        >>> hessian_forward_over_forward(lambda x: x**3)(torch.tensor(2.0))
        tensor(12.)

    Cost:
        About (1 + n)^2 evaluations of `func` for n inputs and any number of outputs, and no graph. If `func` has many
        outputs, try this composition first.

    Caution:
        torch 2.13 differentiates the forward derivatives of some operations wrongly, without an error: `layer_norm`,
        `batch_norm` in training mode, `det`, `solve`. `check_derivatives` finds such operations in your function.
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_forward(jacobian_forward(func, **options), **options)


@composition()
def hessian_double_backward(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Hessian with two calls of `torch.autograd.grad`, without a transform of torch.func.

    The arguments and the result are those of `hessian`, which chooses the method itself. For one output, this method
    has the least overhead. With `chunk_size=1`, it supports functions that vmap refuses.

    Example:
        The Hessian of x^2 y at (1, 3) has the entries 2 y, 2 x and 0.

        >>> import torch
        >>> from funcdiff import hessian_double_backward
        >>> hessian_double_backward(lambda x: x[0] ** 2 * x[1])(torch.tensor([1.0, 3.0]))
        tensor([[6., 2.],
                [2., 0.]])

    Cost:
        For one output and n inputs, 2 (1 + n) evaluations of `func`, and the graph of two passes in memory. m outputs
        have m times as many rows, and each row goes back through all m outputs. So use this method for one output.
        Inside vmap, grad and torch.compile, where plain autograd is not available, this function calls
        `hessian_reverse_over_reverse`.

    Caution:
        If `func` has several outputs and a normalization layer, do not differentiate with respect to the weight and the
        input of the layer together: torch 2.13 gets it wrong, without an error. Use `hessian_taylor` there.
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_batched_grad(jacobian_batched_grad(func, **options), **options)
