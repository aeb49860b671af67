"""torch's own modes, corrected where torch is silently wrong: for functions that jets cannot pass, or not as fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from funcdiff._calling.arguments import apart
from funcdiff._calling.directions import columns, contracted, rows
from funcdiff._calling.options import Options
from funcdiff._calling.types import Derivative, Flat, Formula, Primals
from funcdiff._safety.guard import Recipe, corrected, with_safe_forms
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
    "hessian_forward_over_reverse": with_safe_forms(hessian_forward_over_reverse),
    "hessian_double_backward": with_safe_forms(hessian_double_backward),
    "hessian_forward_over_forward": with_safe_forms(hessian_forward_over_forward),
}


def diagonals(flat: Flat, primals: Primals, options: Options) -> Derivative:
    """The diagonal of the Hessian of each output, forward over reverse: each column is reduced to a number at once."""
    safe = corrected(flat)

    def push(*tangents: Tensor) -> tuple[Tree, ...]:
        def slope(*leaves: Tensor) -> Tree:
            output, pull, *aux = vjp(safe, *leaves, has_aux=options.has_aux)
            slopes = [contracted(row, tangents) for row in rows(pull, output, leaves, options)]
            return (slopes, *aux) if aux else slopes

        return jvp(slope, primals, tangents, has_aux=options.has_aux)[1:]  # the curvature and the aux

    return columns(push, primals, options)


def diagonals_of(recipe: Recipe) -> Formula:
    """The diagonal of the Hessian of each output, out of the whole Hessian."""

    def diagonal(block: Tensor, primal: Tensor) -> Tensor:
        """The entries (*out, *in) on the diagonal of a block (*out, *in, *in)."""
        output_shape, n = block.shape[: block.dim() - 2 * primal.dim()], primal.numel()
        return block.reshape(*output_shape, n, n).diagonal(0, -2, -1).reshape(*output_shape, *primal.shape)

    def formula(flat: Flat, primals: Primals, options: Options) -> Derivative:
        def leaves(*primals: Tensor) -> Tree:
            output, *aux = apart(flat(*primals), options.has_aux)
            outputs = tuple(flatten(output)[0])
            return (outputs, *aux) if aux else outputs

        every = replace(options, argnums=tuple(range(len(primals))))
        whole, *aux = apart(recipe(leaves, **every)(*primals), options.has_aux)
        return [[diagonal(blocks[i][i], x) for i, x in enumerate(primals)] for blocks in whole], *aux

    return formula


def sums(diagonal: Formula) -> Formula:
    """The sum of each of these diagonals: a Laplacian."""

    def total(diagonals: Sequence[Tensor], primals: Primals) -> Tensor:
        parts = [d.reshape(*d.shape[: d.dim() - x.dim()], -1) for d, x in zip(diagonals, primals, strict=True)]
        return torch.cat(parts, -1).sum(-1)

    def formula(flat: Flat, primals: Primals, options: Options) -> Derivative:
        results, *aux = diagonal(flat, primals, options)
        return [total(some, primals) for some in results], *aux

    return formula
