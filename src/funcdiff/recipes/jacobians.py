"""Jacobians: four ways to the same matrix, each a few lines over one mode of differentiation."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from funcdiff._calling.directions import columns, rows
from funcdiff._calling.options import Options
from funcdiff._calling.plain import plain_vjp
from funcdiff._calling.transform import transform
from funcdiff._calling.types import Derivative, Flat, Function, Primals
from funcdiff._torch.transforms import jvp, vjp
from funcdiff._torch.trees import Tree


def jacobian_reverse(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """The Jacobian by rows, all in one batched pass: vmap over vjp (`torch.func.jacrev`).

    Shapes: the output's shape, then the input's, for every output leaf and every leaf of the differentiated arguments;
    of R^n -> R^m an (m, n) matrix. Pytrees nest the output outermost.
    Cost: one forward pass and m backward passes, together; memory for `chunk_size` backward passes at once.

    Args:
        func: From tensors (or pytrees of them) to a tensor (or a pytree of them).
        argnums: The argument to differentiate by, or a tuple of them for a tuple of Jacobians.
        has_aux: `func` returns `(output, aux)`, and the result is `(jacobian, aux)`.
        chunk_size: How many rows to take at once; all by default. With 1 the rows are taken in a loop, without vmap.
        randomness: What random operations in a backward pass do, as in `torch.func.vmap`.

    Returns:
        The function that takes `func`'s own arguments and returns the Jacobian. It carries a graph if a tensor that
        `func` used requires grad, and none otherwise.

    Raises:
        TypeError: An argument or an output is no real floating-point dense tensor, or an option is of the wrong type.
        ValueError: `argnums` or `chunk_size` is out of range.
        RuntimeError: `func` writes into its argument, or does what torch cannot differentiate; the remedy is named.

    Example:
        The Jacobian of a linear map is its matrix.

        >>> import torch
        >>> weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        >>> jacobian_reverse(lambda x: weight @ x)(torch.ones(3))
        tensor([[1., 2., 3.],
                [4., 5., 6.]])
    """

    def jacobian(flat: Flat, primals: Primals, options: Options) -> Derivative:
        output, pull, *aux = vjp(flat, *primals, has_aux=options.has_aux)
        return rows(pull, output, primals, options), *aux

    return transform(jacobian, func, Options(argnums, has_aux, chunk_size, randomness))


def jacobian_forward(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """The Jacobian by columns, all in one batched pass: vmap over jvp (`torch.func.jacfwd`, with chunks).

    Shapes, arguments, errors: those of `jacobian_reverse`, where not said otherwise.
    Cost: n forward passes with a tangent each, (2 + n) F in matrix products (torch's primal pass included); memory for
    `chunk_size` of them at once, and no graph. `torch.no_grad()` inside `func` does not stop forward mode.

    Args:
        func: From tensors (or pytrees of them) to a tensor (or a pytree of them).
        argnums: The argument to differentiate by, or a tuple of them for a tuple of Jacobians.
        has_aux: `func` returns `(output, aux)`, and the result is `(jacobian, aux)`.
        chunk_size: How many columns to take at once; all by default.
        randomness: What random operations in `func` do, as in `torch.func.vmap`: with "same" all columns share a draw;
            "different" mixes draws across columns.

    Returns:
        The function that takes `func`'s own arguments and returns the Jacobian.

    Raises:
        NotImplementedError: An operation in `func` has no forward derivative: use `jacobian_reverse`.

    Example:
        The sine of each entry has a diagonal Jacobian of cosines.

        >>> import torch
        >>> jacobian_forward(torch.sin, chunk_size=2)(torch.zeros(3))
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """

    def jacobian(flat: Flat, primals: Primals, options: Options) -> Derivative:
        def push(*tangents: Tensor) -> tuple[Tree, ...]:
            return jvp(flat, primals, tangents, has_aux=options.has_aux)[1:]  # the slope and the aux

        return columns(push, primals, options)

    return transform(jacobian, func, Options(argnums, has_aux, chunk_size, randomness))


def jacobian_batched_grad(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """The Jacobian by rows, in one batched call of plain autograd (what `is_grads_batched=True` does).

    Shapes, arguments, errors, cost: those of `jacobian_reverse`, with less overhead: `func` runs on plain tensors,
    under no transform. Inside vmap, grad or torch.compile, where there is no plain autograd, it is
    `jacobian_reverse`.

    Example:
        The gradient of half the squared norm is the point itself.

        >>> import torch
        >>> jacobian_batched_grad(lambda x: x.square().sum() / 2)(torch.tensor([3.0, 4.0]))
        tensor([3., 4.])
    """

    def jacobian(flat: Flat, primals: Primals, options: Options) -> Derivative:
        output, pull, *aux = plain_vjp(flat, *primals, has_aux=options.has_aux)
        return rows(pull, output, primals, options), *aux

    return transform(jacobian, func, Options(argnums, has_aux, chunk_size, randomness))


def jacobian_loop(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """The Jacobian by rows, one plain autograd call each: slow, and right wherever autograd is.

    Shapes, arguments, errors: those of `jacobian_reverse`. Nothing is batched, so that `chunk_size` and `randomness`,
    taken for the sake of a common signature, change nothing: what vmap refuses (`.item()`, branches on values,
    checkpointing, old custom functions) works.
    Cost: one forward pass and m backward passes, one after the other; memory for one.

    Example:
        The products of neighbours, by a Python branch that vmap would refuse.

        >>> import torch
        >>> jacobian_loop(lambda x: x[:-1] * x[1:] if x.sum() > 0 else x)(torch.tensor([1.0, 2.0, 3.0]))
        tensor([[2., 1., 0.],
                [0., 3., 2.]])
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_batched_grad(func, **replace(options, chunk_size=1))
