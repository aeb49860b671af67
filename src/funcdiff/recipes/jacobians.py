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

ROWS = (
    "How many rows of the matrix to compute at once. By default, all of them. With 1, the rows are computed in a "
    "loop, without vmap."
)
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
    """Compute the Jacobian by reverse mode, all rows at once: `vmap` over `vjp`, as `torch.func.jacrev` does.

    The arguments and the result are those of `jacobian`, which chooses the method itself. Use reverse mode if `func`
    has fewer outputs than inputs.

    Example:
        The Jacobian of a linear map is its matrix.

        >>> import torch
        >>> from funcdiff import jacobian_reverse
        >>> weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        >>> jacobian_reverse(lambda x: weight @ x)(torch.ones(3))
        tensor([[1., 2., 3.],
                [4., 5., 6.]])

    Cost:
        One forward pass and m backward passes for m outputs. The backward passes are computed together, in chunks of
        `chunk_size`, so the memory is that of one chunk.
    """

    def jacobian(flat: Flat, primals: Primals, options: Options) -> Derivative:
        output, pull, *aux = vjp(flat, *primals, has_aux=options.has_aux)
        return rows(pull, output, primals, options), *aux

    return transform(jacobian, func, Options(argnums, has_aux, chunk_size, randomness))


@documented(
    "Jacobian",
    chunk_size="How many columns of the matrix to compute at once. By default, all of them.",
    randomness='What random operations in `func` do, as in `torch.func.vmap`. "error" refuses them, "same" draws the '
    'same numbers for all columns, and "different" mixes draws of different columns.',
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
    """Compute the Jacobian by forward mode, all columns at once: `vmap` over `jvp`, as `torch.func.jacfwd` does.

    The arguments and the result are those of `jacobian`, which chooses the method itself. Use forward mode if `func`
    has fewer inputs than outputs. It keeps no graph, and it also differentiates what `func` computes under
    `torch.no_grad()`.

    Example:
        The sine of each entry has a diagonal Jacobian of cosines.

        >>> import torch
        >>> from funcdiff import jacobian_forward
        >>> jacobian_forward(torch.sin, chunk_size=2)(torch.zeros(3))
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])

    Cost:
        As much arithmetic as 2 + n evaluations of `func` for n inputs. The passes are computed together, in chunks of
        `chunk_size`, so the memory is that of one chunk.

    See Also:
        `jacobian_taylor` needs only 1 + n evaluations.
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
    """Compute the Jacobian by one batched call of `torch.autograd.grad`, as its `is_grads_batched=True` does.

    The arguments and the result are those of `jacobian`, which chooses the method itself. `func` runs on plain tensors,
    so this method has less overhead than `jacobian_reverse`.

    Example:
        The gradient of half the squared norm is the point itself.

        >>> import torch
        >>> from funcdiff import jacobian_batched_grad
        >>> jacobian_batched_grad(lambda x: x.square().sum() / 2)(torch.tensor([3.0, 4.0]))
        tensor([3., 4.])

    Cost:
        One forward pass and m backward passes for m outputs. The backward passes are computed together, in chunks of
        `chunk_size`, so the memory is that of one chunk. Inside vmap, grad and torch.compile, where plain autograd is
        not available, this function calls `jacobian_reverse`.
    """

    def jacobian(flat: Flat, primals: Primals, options: Options) -> Derivative:
        output, pull, *aux = plain_vjp(flat, *primals, has_aux=options.has_aux)
        return rows(pull, output, primals, options), *aux

    return transform(jacobian, func, Options(argnums, has_aux, chunk_size, randomness))


@documented(
    "Jacobian",
    chunk_size="Has no effect: one row at a time is computed.",
    randomness="Has no effect: `func` runs once.",
)
def jacobian_loop(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Jacobian with one call of `torch.autograd.grad` for each row: slow, but without vmap.

    The arguments and the result are those of `jacobian`, which chooses the method itself. Use this method if vmap
    refuses `func`. It supports `.item()`, branches on values, checkpointing and custom autograd functions without
    `setup_context`.

    Example:
        The products of neighbours have two entries in each row. vmap would refuse the branch.

        >>> import torch
        >>> from funcdiff import jacobian_loop
        >>> jacobian_loop(lambda x: x[:-1] * x[1:] if x.sum() > 0 else x)(torch.tensor([1.0, 2.0, 3.0]))
        tensor([[2., 1., 0.],
                [0., 3., 2.]])

    Cost:
        One forward pass and m backward passes for m outputs, one after the other. The memory is that of one backward
        pass.
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_batched_grad(func, **replace(options, chunk_size=1))
