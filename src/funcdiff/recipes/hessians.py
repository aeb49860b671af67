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
    chunk_size="The number of directions that each of the two Jacobians computes at once, by default all.",
)
NEEDS_FORWARD = {"NotImplementedError": "An operation in `func` has no forward derivative. Use a reverse mode recipe."}


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

    Reverse mode computes the Jacobian row by row. Forward mode then differentiates all rows with respect to each input.

    Cost: About (1 + n)(1 + m) F. Try this composition first if m is small.

    Caution: With respect to the weight and the input of a normalization layer together, all four compositions are wrong
    under torch 2.13. Use `hessian_taylor` there. With respect to the input alone, this composition was right on every
    normalization and factorization tested; the compositions with forward mode inside were not.

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

    Reverse mode computes the Jacobian row by row, and then goes back once more from each of its entries.

    Cost: m n backward passes through a forward and a backward pass, whose graphs all stay in memory. This composition
    needs no forward derivative, so use it if an operation has none.

    Example:
        The Hessian of the sum of exponentials is diagonal.

        >>> import torch
        >>> hessian_reverse_over_reverse(lambda x: x.exp().sum())(torch.zeros(2))
        tensor([[1., 0.],
                [0., 1.]])
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
    """Compute the Hessian by reverse mode over forward mode.

    Forward mode computes the Jacobian column by column. Reverse mode then goes back from each of its entries.

    Cost: m n backward passes through n forward passes, whose graphs all stay in memory. This is seldom the right
    choice.

    Caution: torch differentiates the forward derivatives of some operations (`layer_norm`, `batch_norm` in training
    mode, `det`, `solve`) wrongly and without an error. `check_derivatives` finds such operations.

    Example:
        The Hessian of the product of two numbers has ones off its diagonal.

        >>> import torch
        >>> hessian_reverse_over_forward(torch.prod)(torch.tensor([3.0, 4.0]))
        tensor([[0., 1.],
                [1., 0.]])
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

    Forward mode computes the Jacobian column by column, and then differentiates all columns with respect to each input.

    Cost: About (1 + n)^2 F for every m, and no graph. Try this composition first if m is not small.

    Caution: torch differentiates the forward derivatives of some operations (`layer_norm`, `batch_norm` in training
    mode, `det`, `solve`) wrongly and without an error. `check_derivatives` finds such operations.

    Example:
        The second derivative of a cube is 6 x.

        >>> import torch
        >>> hessian_forward_over_forward(lambda x: x**3)(torch.tensor(2.0))
        tensor(12.)
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
    """Compute the Hessian by plain autograd applied twice: reverse over reverse with the least overhead.

    With `chunk_size=1`, this method supports functions that vmap refuses. Inside vmap, grad and torch.compile, where
    plain autograd is not available, this function is `hessian_reverse_over_reverse`.

    Cost: For one output, 2 (1 + n) F and the graph of two passes in memory. m outputs have m times as many rows, and
    each row goes back through all m outputs, so use this method if m is 1.

    Caution: With several outputs and a normalization layer in `func`, do not use this method with respect to the weight
    and the input of the layer together: torch 2.13 gets it wrong, without an error. Use `hessian_taylor` there.

    Example:
        The Hessian of x^2 y at (1, 3) has the entries 2 y, 2 x and 0.

        >>> import torch
        >>> hessian_double_backward(lambda x: x[0] ** 2 * x[1])(torch.tensor([1.0, 3.0]))
        tensor([[6., 2.],
                [2., 0.]])
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_batched_grad(jacobian_batched_grad(func, **options), **options)
