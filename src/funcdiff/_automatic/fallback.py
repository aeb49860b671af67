"""torch's own modes for functions that jets cannot pass, guarded where torch is silently wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from funcdiff._automatic import planning
from funcdiff._calling.arguments import apart
from funcdiff._calling.directions import columns, contracted, rows
from funcdiff._calling.options import Options
from funcdiff._calling.types import Derivative, Flat, Primals
from funcdiff._safety.guard import Recipe, corrected, with_safe_norms
from funcdiff._safety.obstacles import stand_ins
from funcdiff._torch.transforms import jvp, vjp
from funcdiff._torch.trees import Tree, flatten
from funcdiff.recipes.hessians import (
    hessian_double_backward,
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
)
from funcdiff.recipes.jacobians import jacobian_batched_grad, jacobian_forward, jacobian_loop

JACOBIANS: Mapping[str, Recipe] = {
    "jacobian_forward": jacobian_forward,
    "jacobian_batched_grad": jacobian_batched_grad,
    "jacobian_loop": jacobian_loop,
}
HESSIANS: Mapping[str, Recipe] = {
    "hessian_forward_over_reverse": with_safe_norms(hessian_forward_over_reverse),
    "hessian_double_backward": with_safe_norms(hessian_double_backward),
    "hessian_forward_over_forward": with_safe_norms(hessian_forward_over_forward),
}


def hessians(flat: Flat, primals: Primals, options: Options) -> Derivative:
    """The Hessian of each output of `flat`."""
    return _by(HESSIANS, flat, primals, options)


def jacobians(flat: Flat, primals: Primals, options: Options) -> Derivative:
    """The Jacobian of each output of `flat`, a block for each primal."""
    return _by(JACOBIANS, flat, primals, options)


def diagonals(flat: Flat, primals: Primals, options: Options) -> Derivative:
    """The diagonal of the Hessian of each output: each column is reduced to one number at once."""
    if "hessian_forward_over_reverse" not in _right_ones(HESSIANS, flat, primals, options):
        whole, *aux = hessians(flat, primals, options)
        return [[_diagonal(blocks[i][i], x) for i, x in enumerate(primals)] for blocks in whole], *aux
    safe = corrected(flat)

    def push(*tangents: Tensor) -> tuple[Tree, ...]:
        def slope(*leaves: Tensor) -> Tree:
            output, pull, *aux = vjp(safe, *leaves, has_aux=options.has_aux)
            slopes = [contracted(row, tangents) for row in rows(pull, output, leaves, options)]
            return (slopes, *aux) if aux else slopes

        return jvp(slope, primals, tangents, has_aux=options.has_aux)[1:]  # the curvature and the aux

    return columns(push, primals, options)


def laplacians(flat: Flat, primals: Primals, options: Options) -> Derivative:
    """The sum of each of these diagonals."""
    results, *aux = diagonals(flat, primals, options)

    def total(blocks: Sequence[Tensor]) -> Tensor:
        flattened = [
            block.reshape(*block.shape[: block.dim() - x.dim()], -1) for block, x in zip(blocks, primals, strict=True)
        ]
        return torch.cat(flattened, -1).sum(-1)

    return [total(blocks) for blocks in results], *aux


def _by(recipes: Mapping[str, Recipe], flat: Flat, primals: Primals, options: Options) -> Derivative:
    def leaves(*primals: Tensor) -> Tree:
        output, *aux = apart(flat(*primals), options.has_aux)
        outputs = tuple(flatten(output)[0])
        return (outputs, *aux) if aux else outputs

    recipe = recipes[_right_ones(recipes, flat, primals, options)[0]]
    every = replace(options, argnums=tuple(range(len(primals))))
    return apart(recipe(leaves, **every)(*primals), options.has_aux)


def _right_ones(names: Iterable[str], flat: Flat, primals: Primals, options: Options) -> list[str]:
    """Those that torch is not known to get wrong here, the fastest first; the compiler cannot look, and takes all."""
    if torch.compiler.is_compiling():
        return list(names)

    def output(*primals: Tensor) -> Tree:
        return apart(flat(*primals), options.has_aux)[0]

    return planning.make(tuple(names), output, stand_ins(primals), randomness=options.randomness).usable


def _diagonal(block: Tensor, primal: Tensor) -> Tensor:
    """The entries (*out, *in) on the diagonal of a block (*out, *in, *in)."""
    output_shape, n = block.shape[: block.dim() - 2 * primal.dim()], primal.numel()
    return block.reshape(*output_shape, n, n).diagonal(0, -2, -1).reshape(*output_shape, *primal.shape)
