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

    If `x` has the shape (3,) and `func(x)` the shape (2,), the result has the shape (2, 3). A backward pass computes
    one row of it. So use reverse mode if `func` has fewer outputs than inputs. `jacobian` takes the same arguments and
    chooses the mode itself.

    Example:
        The Jacobian of a linear map is its matrix.

        >>> import torch
        >>> from funcdiff import jacobian_reverse
        >>> weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        >>> jacobian_reverse(lambda x: weight @ x)(torch.ones(3))
        tensor([[1., 2., 3.],
                [4., 5., 6.]])

        The same in plain torch: `pull` multiplies by the matrix from the left, and the unit vectors give its rows.

        >>> from torch.func import vjp, vmap
        >>> output, pull = vjp(lambda x: weight @ x, torch.ones(3))
        >>> vmap(pull)(torch.eye(2))
        (tensor([[1., 2., 3.],
                [4., 5., 6.]]),)

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
    randomness='What random operations in `func` do, as in `torch.func.vmap`. "error" raises an error, "same" draws '
    'the same numbers for all columns, and "different" draws other numbers for each column, which then differ.',
    raises={"NotImplementedError": "An operation in `func` has no forward derivative. Use `jacobian`."},
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

    If `x` has the shape (3,) and `func(x)` the shape (2,), the result has the shape (2, 3). A forward pass computes one
    column of it. So use forward mode if `func` has fewer inputs than outputs. `jacobian` takes the same arguments and
    chooses the mode itself.

    Example:
        The sine of each entry has a diagonal Jacobian of cosines.

        >>> import torch
        >>> from funcdiff import jacobian_forward
        >>> jacobian_forward(torch.sin)(torch.zeros(3))
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])

        The same in plain torch: the product with each unit vector is a column.

        >>> from torch.func import jvp, vmap
        >>> x = torch.zeros(3)
        >>> vmap(lambda v: jvp(torch.sin, (x,), (v,))[1], out_dims=1)(torch.eye(3))
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])

    Cost:
        As much arithmetic as 2 + n evaluations of `func` for n inputs. The passes are computed together, in chunks of
        `chunk_size`, so the memory is that of one chunk. Nothing is stored for a way back.

    Caution:
        Forward mode also differentiates what `func` computes under `torch.no_grad()`. Reverse mode does not.

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

    If `x` has the shape (3,) and `func(x)` the shape (2,), the result has the shape (2, 3). A backward pass computes
    one row of it, as in `jacobian_reverse`. But `func` itself runs on ordinary tensors, outside torch.func, so a call
    takes less time for a small function. `jacobian` takes the same arguments and chooses the method itself.

    Example:
        The squares have the derivatives 2 x.

        >>> import torch
        >>> from funcdiff import jacobian_batched_grad
        >>> jacobian_batched_grad(torch.square)(torch.tensor([3.0, 4.0]))
        tensor([[6., 0.],
                [0., 8.]])

        The same in plain torch: the rows of the identity matrix go backward together.

        >>> x = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> torch.autograd.grad(x.square(), x, torch.eye(2), is_grads_batched=True)
        (tensor([[6., 0.],
                [0., 8.]]),)

    Cost:
        One forward pass and m backward passes for m outputs. The backward passes are computed together, in chunks of
        `chunk_size`, so the memory is that of one chunk.

    Notes:
        Plain autograd is not available inside vmap, grad and torch.compile. There, this function calls
        `jacobian_reverse`.
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

    If `x` has the shape (3,) and `func(x)` the shape (2,), the result has the shape (2, 3). Use this method if vmap
    raises an error: it supports `.detach().item()`, branches on values, checkpointing and custom autograd functions
    without `setup_context`. For the rows of a batch, call `batch_jacobian` instead, which loops over them where vmap
    does not work. `jacobian` takes the same arguments as this function and chooses the method itself.

    Example:
        The products of neighbours have two entries in each row.

        >>> import torch
        >>> from funcdiff import jacobian_loop
        >>> jacobian_loop(lambda x: x[:-1] * x[1:])(torch.tensor([1.0, 2.0, 3.0]))
        tensor([[2., 1., 0.],
                [0., 3., 2.]])

        The same in plain torch:

        >>> x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> y = x[:-1] * x[1:]
        >>> torch.stack([torch.autograd.grad(output, x, retain_graph=True)[0] for output in y])
        tensor([[2., 1., 0.],
                [0., 3., 2.]])

    Cost:
        One forward pass and m backward passes for m outputs, one after the other. The memory is that of one backward
        pass.

    Notes:
        `func` runs as in plain torch: batch norm in training mode updates its running statistics, where `jacobian`
        raises an error.
    """
    options = Options(argnums, has_aux, chunk_size, randomness)
    return jacobian_batched_grad(func, **replace(options, chunk_size=1))
