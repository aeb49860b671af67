"""torch's own modes for functions that jets cannot pass, guarded where torch is silently wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp
from torch.overrides import TorchFunctionMode

from funcdiff._boundary import Flat, Function
from funcdiff._passes import columns, contracted, rows
from funcdiff._taylor.evaluation import Blocks
from funcdiff._taylor.jets import RefusedError, check_grad_mode
from funcdiff._taylor.layers import NORMS
from funcdiff._trees import Tree
from funcdiff.hessians import hessian_forward_over_reverse
from funcdiff.jacobians import jacobian_forward


def hessians(
    flat: Flat, primals: Sequence[Tensor], chunk_size: int | None, randomness: str
) -> tuple[list[Blocks], Tree]:
    """The Hessian of each output of ``flat``, and its aux."""
    return _by(hessian_forward_over_reverse, flat, primals, chunk_size, randomness)


def jacobians(
    flat: Flat, primals: Sequence[Tensor], chunk_size: int | None, randomness: str
) -> tuple[list[list[Tensor]], Tree]:
    """The Jacobian of each output of ``flat``, a block for each primal, and its aux."""
    return _by(jacobian_forward, flat, primals, chunk_size, randomness)


def _by(
    recipe: Callable[..., Function], flat: Flat, primals: Sequence[Tensor], chunk_size: int | None, randomness: str
) -> tuple[list[Any], Tree]:
    every = tuple(range(len(primals)))
    blocks, aux = recipe(corrected(_tupled(flat)), every, has_aux=True, chunk_size=chunk_size, randomness=randomness)(
        *primals
    )
    return list(blocks), aux


def diagonals(
    flat: Flat, primals: Sequence[Tensor], chunk_size: int | None, randomness: str
) -> tuple[list[list[Tensor]], Tree]:
    """The diagonal of the Hessian of each output: each column is reduced to one number at once."""
    safe = corrected(_tupled(flat))

    def push(*tangents: Tensor) -> tuple[Tree, list[Tree]]:
        def slope(*leaves: Tensor) -> tuple[list[Tensor], Tree]:
            output, pull, *aux = vjp(safe, *leaves, has_aux=True)
            blocks, _ = rows(pull, output, leaves, chunk_size, randomness)
            return [contracted(row, tangents) for row in blocks], *aux

        _, curvature, *aux = jvp(slope, tuple(primals), tangents, has_aux=True)
        return curvature, aux

    blocks, _, (aux,) = columns(push, primals, chunk_size, randomness)
    return blocks, aux


def _tupled(flat: Flat) -> Flat:
    def run(*leaves: Tensor) -> tuple[tuple[Tensor, ...], Tree]:
        outputs, aux = flat(*leaves)
        return tuple(outputs), aux

    return run


def corrected(func: Function) -> Function:
    """`func` with what torch 2.13 differentiates twice wrong put right, or refused."""
    grad_enabled = torch.is_grad_enabled()

    @functools.wraps(func, updated=())
    def run(*args: Tree) -> Tree:
        with _Guard(grad_enabled):
            return func(*args)

    return run


def laplacians(
    flat: Flat, primals: Sequence[Tensor], chunk_size: int | None, randomness: str
) -> tuple[list[Tensor], Tree]:
    """The trace of each of these Hessians."""
    results, aux = hessians(flat, primals, chunk_size, randomness)

    def trace(blocks: Blocks) -> Tensor:
        parts = []
        for i, primal in enumerate(primals):
            n, output_shape = primal.numel(), blocks[i][i].shape[: blocks[i][i].dim() - 2 * primal.dim()]
            parts.append(blocks[i][i].reshape(*output_shape, n, n).diagonal(0, -2, -1).sum(-1))
        return functools.reduce(torch.add, parts)

    return [trace(blocks) for blocks in results], aux


class _Guard(TorchFunctionMode):
    """Put right, or refuse, what torch 2.13 differentiates twice wrong without an error.

    NOTE [norms]. All four compositions get the block d²/dweight dx of layer_norm and batch_norm wrong; written as a
    composition of simpler operations they are right.
    """

    def __init__(self, grad_enabled: bool) -> None:
        super().__init__()
        self.grad_enabled = grad_enabled

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        check_grad_mode(self.grad_enabled)
        if func in NORMS:
            return NORMS[func](func, args, kwargs)
        if func in _WRONG or (func in _SCATTER and "prod" in (*args[3:], kwargs.get("reduce"))):
            raise RefusedError(
                f"torch differentiates {func.__name__} twice wrong, without an error: use its form in "
                "torch.nn.functional, or write it with simpler operations"
            )
        return func(*args, **kwargs)


def _forms(names: str) -> frozenset[Any]:
    """The functions, the methods and the operators of these names."""
    forms: set[Any] = set()
    for name in names.split():
        operator = getattr(torch.ops.aten, name)
        forms.update((operator, *(getattr(operator, overload) for overload in operator.overloads())))
        forms.update(getattr(space, name) for space in (torch, torch.Tensor) if hasattr(space, name))
    return frozenset(forms)


_WRONG = _forms(
    """native_layer_norm native_batch_norm native_group_norm _native_batch_norm_legit _batch_norm_with_update batch_norm
    instance_norm"""
)
_SCATTER = _forms("scatter_reduce scatter_reduce_")
