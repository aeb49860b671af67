"""Hessians: outer over inner, each literally a Jacobian of a Jacobian.

Costs count forward passes F of a function R^n -> R^m, by matrix products.
"""

from __future__ import annotations

from funcdiff._calling.options import Options
from funcdiff._calling.types import Function
from funcdiff.recipes.jacobians import jacobian_batched_grad, jacobian_forward, jacobian_reverse


def hessian_forward_over_reverse(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """The Hessian as columns of the rows: forward mode over reverse mode (`torch.func.hessian`, with all options).

    Shapes: the output's shape, then the input's twice; of R^n -> R an (n, n) matrix. Pytrees nest the output outermost,
    then the input, then the input again.
    Cost: about (1 + n)(1 + m) F; the composition to begin with where m is small. By a function's input it
    was right on every normalisation and factorisation tested, where forward inside is not. By the weight and the input
    of a norm together all four compositions are wrong under torch 2.13: `hessian_taylor` is right.

    Args:
        func: From tensors (or pytrees of them) to a tensor (or a pytree of them).
        argnums: The argument to differentiate by, or a tuple of them for a tuple of tuples of Hessians.
        has_aux: `func` returns `(output, aux)`, and the result is `(hessian, aux)`.
        chunk_size: How many directions each of the two Jacobians takes at once; all by default.
        randomness: What random operations in `func` do, as in `torch.func.vmap`.

    Returns:
        The function that takes `func`'s own arguments and returns the Hessian.

    Raises:
        TypeError: An argument or an output is no real floating-point dense tensor, or an option is of the wrong type.
        ValueError: `argnums` or `chunk_size` is out of range.
        RuntimeError: `func` writes into its argument, or does what torch cannot differentiate; the remedy is named.

    Example:
        The Hessian of x^T A x is A + A^T.

        >>> import torch
        >>> matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> hessian_forward_over_reverse(lambda x: x @ matrix @ x)(torch.ones(2))
        tensor([[2., 2.],
                [2., 6.]])
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_forward(jacobian_reverse(func, **options), **options)


def hessian_reverse_over_reverse(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """The Hessian as rows of the rows: reverse mode over reverse mode.

    Shapes, arguments, errors: those of `hessian_forward_over_reverse`.
    Cost: each of the m n second rows is a pass back through two passes, which all stay in memory. Needs no forward
    derivative: the way out where an operation has none.

    Example:
        The Hessian of the sum of exponentials is diagonal.

        >>> import torch
        >>> hessian_reverse_over_reverse(lambda x: x.exp().sum())(torch.zeros(2))
        tensor([[1., 0.],
                [0., 1.]])
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_reverse(jacobian_reverse(func, **options), **options)


def hessian_reverse_over_forward(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """The Hessian as rows of the columns: reverse mode over forward mode.

    Shapes, arguments, errors: those of `hessian_forward_over_reverse`.
    Cost: m n passes back through n forward passes, which all stay in memory; seldom the right choice. Caution: the
    forward derivatives of some operations (`layer_norm`, `batch_norm` in training mode, `det`, `solve`) are themselves
    differentiated wrongly by torch, with no error: see `check_derivatives`.

    Example:
        The Hessian of the product of two numbers.

        >>> import torch
        >>> hessian_reverse_over_forward(torch.prod)(torch.tensor([3.0, 4.0]))
        tensor([[0., 1.],
                [1., 0.]])
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_reverse(jacobian_forward(func, **options), **options)


def hessian_forward_over_forward(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """The Hessian as columns of the columns: forward mode over forward mode.

    Shapes, arguments, errors: those of `hessian_forward_over_reverse`.
    Cost: about (1 + n)^2 F, whatever m, and no graph: the composition to begin with where m is not small. Caution: the
    forward derivatives of some operations (`layer_norm`, `batch_norm` in training mode, `det`, `solve`) are themselves
    differentiated wrongly by torch, with no error: see `check_derivatives`.

    Example:
        The second derivative of a cube.

        >>> import torch
        >>> hessian_forward_over_forward(lambda x: x**3)(torch.tensor(2.0))
        tensor(12.)
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_forward(jacobian_forward(func, **options), **options)


def hessian_double_backward(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """The Hessian as rows of the rows by plain autograd: reverse over reverse with the least overhead.

    Shapes, arguments, errors: those of `hessian_forward_over_reverse`.
    Cost: for one output 2 (1 + n) F, and the graph of two passes in memory; of m outputs m times the rows, each back
    through all m: take it where m is 1. With `chunk_size=1` what vmap refuses works too. Inside vmap, grad or
    torch.compile, where there is no plain autograd, it is `hessian_reverse_over_reverse`.

    Example:
        The Hessian of x^2 y at (1, 3).

        >>> import torch
        >>> hessian_double_backward(lambda x: x[0] ** 2 * x[1])(torch.tensor([1.0, 3.0]))
        tensor([[6., 2.],
                [2., 0.]])
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_batched_grad(jacobian_batched_grad(func, **options), **options)
