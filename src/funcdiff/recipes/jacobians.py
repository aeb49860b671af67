"""Jacobians: four methods for the same matrix, each a few lines over one mode of differentiation."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from funcdiff._calling.directions import columns, rows
from funcdiff._calling.documented import documented
from funcdiff._calling.options import Options
from funcdiff._calling.plain import plain_vjp
from funcdiff._calling.transform import transform
from funcdiff._calling.types import Derivative, Flat, Function, Primals
from funcdiff._torch.transforms import jvp, vjp
from funcdiff._torch.trees import Tree

ROWS = "The number of rows to compute at once, by default all. With 1, the rows are computed in a loop without vmap."
IN_BACKWARD = (
    "What random operations in a backward pass do, as in `torch.func.vmap`. Random operations in `func` itself run "
    "once."
)


@documented("Jacobian", chunk_size=ROWS, randomness=IN_BACKWARD)
def jacobian_reverse(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Jacobian by rows in one batched backward pass: vmap over vjp (`torch.func.jacrev`).

    Cost: One forward pass and m backward passes, computed together. The memory is that of `chunk_size` backward passes.

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


@documented(
    "Jacobian",
    chunk_size="The number of columns to compute at once, by default all.",
    randomness='What random operations in `func` do, as in `torch.func.vmap`: "error" refuses them, "same" uses one '
    'draw for all columns, and "different" mixes draws across columns.',
    raises={"NotImplementedError": "An operation in `func` has no forward derivative. Use `jacobian_reverse`."},
)
def jacobian_forward(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Jacobian by columns in one batched forward pass: vmap over jvp (`torch.func.jacfwd`, with chunks).

    Forward mode keeps no graph, and `torch.no_grad()` inside `func` does not stop it.

    Cost: n forward passes with a tangent each, which is (2 + n) F in matrix products, including torch's primal pass.
    The memory is that of `chunk_size` such passes.

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


@documented("Jacobian", chunk_size=ROWS, randomness=IN_BACKWARD)
def jacobian_batched_grad(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Jacobian by rows in one batched call of plain autograd, as `is_grads_batched=True` does.

    `func` runs on plain tensors without a transform, so this method has less overhead than `jacobian_reverse`. Inside
    vmap, grad and torch.compile, where plain autograd is not available, this function is `jacobian_reverse`.

    Cost: One forward pass and m backward passes, computed together. The memory is that of `chunk_size` backward passes.

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


@documented(
    "Jacobian",
    chunk_size="This option exists for a common signature and changes nothing: each call computes one row.",
    randomness="This option exists for a common signature and changes nothing: nothing is batched.",
)
def jacobian_loop(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Jacobian by rows with one call of plain autograd for each: slow, and right wherever autograd is.

    Nothing is batched, so this method supports what vmap refuses: `.item()`, branches on values, checkpointing and
    custom autograd functions in the old style.

    Cost: One forward pass and m backward passes, one after the other. The memory is that of one backward pass.

    Example:
        The products of neighbours have two entries in each row. The Python branch is one that vmap would refuse.

        >>> import torch
        >>> jacobian_loop(lambda x: x[:-1] * x[1:] if x.sum() > 0 else x)(torch.tensor([1.0, 2.0, 3.0]))
        tensor([[2., 1., 0.],
                [0., 3., 2.]])
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_batched_grad(func, **replace(options, chunk_size=1))
