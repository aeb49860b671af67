"""torch's own modes, corrected where torch is silently wrong: for functions that jets cannot pass, or not as fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from funcdiff._calling.arguments import apart
from funcdiff._calling.directions import columns, contracted, rows
from funcdiff._calling.options import Options
from funcdiff._calling.plain import plain_vjp
from funcdiff._calling.point import at_point
from funcdiff._calling.types import Derivative, Flat, Formula, Function, Primals
from funcdiff._safety.guard import Recipe, corrected, with_safe_forms
from funcdiff._torch.transforms import jvp, vjp
from funcdiff._torch.trees import Tree, flatten, unflatten
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

_MOST = 10_000  # numbers of a product, each a pass of forward mode
_AT_ONCE = 256  # such passes


def _row_by_row(func: Function, *args: Any, **options: Any) -> Function:
    """With nothing batched, for what vmap refuses in a backward pass."""
    return hessian_double_backward(func, *args, **{**options, "chunk_size": 1})


HESSIANS: Mapping[str, Recipe] = {
    "hessian_forward_over_reverse": with_safe_forms(hessian_forward_over_reverse),
    "hessian_double_backward": with_safe_forms(hessian_double_backward),
    "hessian_forward_over_forward": with_safe_forms(hessian_forward_over_forward),
    "hessian_double_backward, row by row": with_safe_forms(_row_by_row),
}


def product_by_forward_mode(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
    """Hv by forward mode alone, the last resort: each number is a second derivative along v and an axis."""

    def product(flat: Flat, x: Primals, v: Primals) -> Sequence[Tensor]:
        if (size := sum(leaf.numel() for leaf in x)) > _MOST:
            raise RuntimeError(f"forward mode alone needs a pass for each of {size} numbers")

        def slope(*leaves: Tensor) -> Tree:
            return jvp(flat, leaves, v)[1]

        def push(*axes: Tensor) -> tuple[Tree, ...]:
            return jvp(slope, x, axes)[1:]

        blocks: list[list[Tensor]] = columns(push, x, Options(chunk_size=_AT_ONCE))[0]
        return blocks[0]

    return at_point(product, func, primals, tangents)


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


def diagonals_one_by_one(flat: Flat, primals: Primals, options: Options) -> Derivative:
    """The diagonal of the Hessian of each output, an entry of a row of each at a time, with nothing batched."""
    every = replace(options, argnums=tuple(range(len(primals))))
    slopes = jacobian_loop(_as_tuple(corrected(flat), options.has_aux), **every)
    first, pull, *aux = plain_vjp(slopes, *primals, has_aux=options.has_aux)
    blocks, spec = flatten(first)

    def diagonal(k: int) -> Tensor:
        """Of block k, whose last axes are those of a primal, each entry's derivative with respect to its own input."""
        primal, block = primals[k % len(primals)], blocks[k]
        entries = []
        for i in range(block.numel()):
            cotangents = [torch.zeros_like(other) for other in blocks]
            cotangents[k].view(-1)[i] = 1
            row = pull(unflatten(cotangents, spec))[k % len(primals)]
            entries.append(row.reshape(-1)[i % primal.numel()])
        return torch.stack(entries).view(block.shape) if entries else torch.zeros_like(block)

    diagonals = [diagonal(k) for k in range(len(blocks))]
    return [diagonals[i : i + len(primals)] for i in range(0, len(blocks), len(primals))], *aux


def _as_tuple(flat: Flat, has_aux: bool) -> Flat:
    """`flat` with its outputs in a tuple, however they were nested."""

    def leaves(*primals: Tensor) -> Tree:
        output, *aux = apart(flat(*primals), has_aux)
        outputs = tuple(flatten(output)[0])
        return (outputs, *aux) if aux else outputs

    return leaves


def diagonals_of(recipe: Recipe) -> Formula:
    """The diagonal of the Hessian of each output, out of the whole Hessian."""

    def diagonal(block: Tensor, primal: Tensor) -> Tensor:
        """The entries (*out, *in) on the diagonal of a block (*out, *in, *in)."""
        output_shape, n = block.shape[: block.dim() - 2 * primal.dim()], primal.numel()
        return block.reshape(*output_shape, n, n).diagonal(0, -2, -1).reshape((*output_shape, *primal.shape))

    def formula(flat: Flat, primals: Primals, options: Options) -> Derivative:
        every = replace(options, argnums=tuple(range(len(primals))))
        whole, *aux = apart(recipe(_as_tuple(flat, options.has_aux), **every)(*primals), options.has_aux)
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
