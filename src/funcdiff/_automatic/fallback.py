"""torch's own modes for functions that jets cannot pass, guarded where torch is silently wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp

from funcdiff._automatic import planning
from funcdiff._calling.directions import columns, contracted, rows
from funcdiff._calling.types import Flat
from funcdiff._safety.guard import Recipe, corrected, with_safe_forms
from funcdiff._safety.obstacles import stand_ins
from funcdiff._torch.trees import Tree
from funcdiff.recipes.hessians import (
    hessian_double_backward,
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
)
from funcdiff.recipes.jacobians import jacobian_batched_grad, jacobian_forward, jacobian_loop
from funcdiff.recipes.taylor import Blocks

JACOBIANS: Mapping[str, Recipe] = {
    "jacobian_forward": jacobian_forward,
    "jacobian_batched_grad": jacobian_batched_grad,
    "jacobian_loop": jacobian_loop,
}
HESSIANS: Mapping[str, Recipe] = {
    "hessian_forward_over_reverse": with_safe_forms(hessian_forward_over_reverse),
    "hessian_double_backward": with_safe_forms(hessian_double_backward),
    "hessian_forward_over_forward": with_safe_forms(hessian_forward_over_forward),
}


def hessians(
    flat: Flat, primals: Sequence[Tensor], chunk_size: int | None, randomness: str
) -> tuple[list[Blocks], Tree]:
    """The Hessian of each output of ``flat``, and its aux."""
    return _by(HESSIANS, flat, primals, chunk_size, randomness)


def jacobians(
    flat: Flat, primals: Sequence[Tensor], chunk_size: int | None, randomness: str
) -> tuple[list[list[Tensor]], Tree]:
    """The Jacobian of each output of ``flat``, a block for each primal, and its aux."""
    return _by(JACOBIANS, flat, primals, chunk_size, randomness)


def diagonals(
    flat: Flat, primals: Sequence[Tensor], chunk_size: int | None, randomness: str
) -> tuple[list[list[Tensor]], Tree]:
    """The diagonal of the Hessian of each output: each column is reduced to one number at once."""
    if "hessian_forward_over_reverse" not in _right_ones(HESSIANS, flat, primals, randomness):
        whole, aux = hessians(flat, primals, chunk_size, randomness)
        return [[_diagonal(blocks[i][i], x) for i, x in enumerate(primals)] for blocks in whole], aux
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


def laplacians(
    flat: Flat, primals: Sequence[Tensor], chunk_size: int | None, randomness: str
) -> tuple[list[Tensor], Tree]:
    """The sum of each of these diagonals."""
    results, aux = diagonals(flat, primals, chunk_size, randomness)

    def total(blocks: Sequence[Tensor]) -> Tensor:
        flattened = [
            block.reshape(*block.shape[: block.dim() - x.dim()], -1) for block, x in zip(blocks, primals, strict=True)
        ]
        return torch.cat(flattened, -1).sum(-1)

    return [total(blocks) for blocks in results], aux


def _by(
    recipes: Mapping[str, Recipe], flat: Flat, primals: Sequence[Tensor], chunk_size: int | None, randomness: str
) -> tuple[list[Any], Tree]:
    recipe = recipes[_right_ones(recipes, flat, primals, randomness)[0]]
    every = tuple(range(len(primals)))
    options: Any = {"has_aux": True, "chunk_size": chunk_size, "randomness": randomness}
    blocks, aux = recipe(_tupled(flat), every, **options)(*primals)
    return list(blocks), aux


def _right_ones(names: Iterable[str], flat: Flat, primals: Sequence[Tensor], randomness: str) -> list[str]:
    """Those that torch is not known to get wrong here, the fastest first; the compiler cannot look, and takes all."""
    if torch.compiler.is_compiling():
        return list(names)
    copies = stand_ins(primals)
    return planning.make(tuple(names), lambda *xs: flat(*xs)[0], copies, randomness=randomness).usable


def _tupled(flat: Flat) -> Flat:
    def run(*leaves: Tensor) -> tuple[tuple[Tensor, ...], Tree]:
        outputs, aux = flat(*leaves)
        return tuple(outputs), aux

    return run


def _diagonal(block: Tensor, primal: Tensor) -> Tensor:
    """The entries (*out, *in) on the diagonal of a block (*out, *in, *in)."""
    output_shape, n = block.shape[: block.dim() - 2 * primal.dim()], primal.numel()
    return block.reshape(*output_shape, n, n).diagonal(0, -2, -1).reshape(*output_shape, *primal.shape)
