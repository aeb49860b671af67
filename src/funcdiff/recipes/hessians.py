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
NEEDS_FORWARD = {"NotImplementedError": "An operation in `func` has no forward derivative. Use `hessian`."}


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

    If `x` has the shape (3,) and `func(x)` is a scalar, the result has the shape (3, 3). Reverse mode computes the
    gradient, and forward mode differentiates it with respect to each input. `hessian` takes the same arguments and
    chooses the method itself.

    Example:
        The Hessian of :math:`x^T A x` is :math:`A + A^T`.

        >>> import torch
        >>> from funcdiff import hessian_forward_over_reverse
        >>> matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> hessian_forward_over_reverse(lambda x: x @ matrix @ x)(torch.ones(2))
        tensor([[2., 2.],
                [2., 6.]])

        The same in plain torch:

        >>> from torch.func import jacfwd, jacrev
        >>> jacfwd(jacrev(lambda x: x @ matrix @ x))(torch.ones(2))
        tensor([[2., 2.],
                [2., 6.]])

    Cost:
        About (1 + n)(1 + m) evaluations of `func`, for n inputs and m outputs. If there are a few outputs and many
        inputs, try this composition first. For one output, `hessian_double_backward` needs no more FLOPs and starts
        fewer operations.

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

    If `x` has the shape (3,) and `func(x)` is a scalar, the result has the shape (3, 3). Reverse mode computes the
    gradient, and then the derivatives of each of its entries. Use this method if an operation in `func` does not
    support forward mode. `hessian` takes the same arguments and chooses the method itself.

    Example:
        The Hessian of the sum of exponentials is diagonal.

        >>> import torch
        >>> from funcdiff import hessian_reverse_over_reverse
        >>> hessian_reverse_over_reverse(lambda x: x.exp().sum())(torch.zeros(2))
        tensor([[1., 0.],
                [0., 1.]])

        The same in plain torch:

        >>> from torch.func import jacrev
        >>> jacrev(jacrev(lambda x: x.exp().sum()))(torch.zeros(2))
        tensor([[1., 0.],
                [0., 1.]])

    Cost:
        Reverse mode computes the rows of the Jacobian, and then goes back from each of its entries. For n inputs and m
        outputs, these are m n backward passes through a forward and a backward pass. Their graphs all stay in memory.

    Caution:
        With respect to the weight and the input of a normalization layer together, all four compositions of forward and
        reverse mode are wrong in torch 2.13. Use `hessian_taylor` there.
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

    If `x` has the shape (3,) and `func(x)` is a scalar, the result has the shape (3, 3). It is that of
    `jacrev(jacfwd(func))` in torch.func. Use it to compare the four compositions of the two modes. For any other
    purpose, `hessian` takes the same arguments and chooses a better method.

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

    If `x` has the shape (2,) and `func(x)` the shape (100,), the result has the shape (100, 2, 2). Forward mode
    computes the columns of the Jacobian, and then differentiates them with respect to each input. It stores nothing for
    a way back. `hessian` takes the same arguments and chooses the method itself.

    Example:
        The second derivatives of the cubes are 6 x.

        >>> import torch
        >>> from funcdiff import hessian_forward_over_forward
        >>> hessian_forward_over_forward(lambda x: x**3)(torch.tensor(2.0))
        tensor(12.)

        The same in plain torch:

        >>> from torch.func import jacfwd
        >>> jacfwd(jacfwd(lambda x: x**3))(torch.tensor(2.0))
        tensor(12.)

    Cost:
        About (1 + n)^2 evaluations of `func` for n inputs and any number of outputs. If `func` has many outputs and few
        inputs, try this composition first.

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

    If `x` has the shape (3,) and `func(x)` is a scalar, the result has the shape (3, 3). The first call computes the
    gradient and records how it was computed. The second one differentiates the gradient. For a small function with one
    output, this is usually the fastest method. `hessian` takes the same arguments and chooses the method itself.

    Example:
        The Hessian of :math:`x^2 y` at (1, 3) has the entries 2 y, 2 x and 0.

        >>> import torch
        >>> from funcdiff import hessian_double_backward
        >>> hessian_double_backward(lambda x: x[0] ** 2 * x[1])(torch.tensor([1.0, 3.0]))
        tensor([[6., 2.],
                [2., 0.]])

        The same in plain torch:

        >>> x = torch.tensor([1.0, 3.0], requires_grad=True)
        >>> (gradient,) = torch.autograd.grad(x[0] ** 2 * x[1], x, create_graph=True)
        >>> torch.autograd.grad(gradient, x, torch.eye(2), is_grads_batched=True)
        (tensor([[6., 2.],
                [2., 0.]]),)

    Cost:
        For one output and n inputs, 2 (1 + n) evaluations of `func`, and the graph of two passes in memory. For m
        outputs, (1 + m)(1 + m n) evaluations. So use this method for one output, or for few outputs of a small network.

    Caution:
        If `func` has several outputs and a normalization layer, do not differentiate with respect to the weight and the
        input of the layer together: torch 2.13 gets it wrong, without an error. Use `hessian_taylor` there.

    Notes:
        With `chunk_size=1`, this method runs without vmap, so it also supports functions that vmap does not support.
        Plain autograd is not available inside vmap, grad and torch.compile. There, this function calls
        `hessian_reverse_over_reverse`.
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_batched_grad(jacobian_batched_grad(func, **options), **options)
