"""The moves all recipes are made of: bases, rows and columns, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import TreeSpec

from funcdiff._autograd import plain_allowed
from funcdiff._boundary import Blocks, Derivative
from funcdiff._trees import Tree, flatten, map_leaves, unflatten

T = TypeVar("T")


def rows(
    pull: Callable[[Tree], Sequence[Tensor]],
    output: Tree,
    primals: Sequence[Tensor],
    chunk_size: int | None,
    randomness: str,
) -> tuple[Blocks, TreeSpec]:
    """Every row of the Jacobian: the basis of the output, pulled back; one vector at a time without vmap."""
    leaves, spec = flatten(output)

    def pull_leaves(*vectors: Tensor) -> tuple[Tensor, ...]:
        return tuple(pull(unflatten(vectors, spec)))

    def pull_one(*vectors: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient[None] for gradient in pull_leaves(*(u[0] for u in vectors)))

    sizes = [leaf.numel() for leaf in leaves]
    single = sum(sizes) == 1 and plain_allowed()  # inside a transform vmap keeps the dtypes that torch expects
    pulled = pull_one if chunk_size == 1 or single else vmap(pull_leaves, randomness=randomness)

    parts = in_turn(lambda *span: pulled(*basis(leaves, *span)), sum(sizes), chunk_size, randomness)
    stacked = joined(parts, sum(sizes))
    split = [torch.split(g, sizes) for g in stacked] if len(sizes) > 1 else [(g,) for g in stacked]
    blocks = [
        [part[i].view(leaf.shape + primal.shape) for part, primal in zip(split, primals, strict=True)]
        for i, leaf in enumerate(leaves)
    ]
    return blocks, spec


def columns(
    push: Callable[..., tuple[Tree, list[Tree]]], primals: Sequence[Tensor], chunk_size: int | None, randomness: str
) -> Derivative:
    """Every column of the Jacobian: the basis of the primals, pushed forward; and the aux that came along."""
    pushed = vmap(push, randomness=randomness)
    sizes = [primal.numel() for primal in primals]
    parts = in_turn(lambda *span: pushed(*basis(primals, *span)), sum(sizes), chunk_size, randomness)
    slope, stacked_aux = parts[0]
    stacked = joined([tuple(flatten(slope)[0]) for slope, _ in parts], sum(sizes))
    blocks = [
        [
            part.view(leaf.shape[1:] + primal.shape)
            for part, primal in zip(torch.split(leaf.movedim(0, -1), sizes, -1), primals, strict=True)
        ]
        for leaf in stacked
    ]
    return blocks, flatten(slope)[1], [map_leaves(lambda leaf: leaf[0], aux) for aux in stacked_aux]


def basis(like: Sequence[Tensor], start: int, stop: int) -> list[Tensor]:
    """Vectors `start` to `stop` of the standard basis of the space of `like`, stacked along axis 0."""
    sizes = [leaf.numel() for leaf in like]
    vectors = torch.eye(stop - start, sum(sizes), dtype=like[0].dtype, device=like[0].device)
    if start:
        vectors = vectors.roll(start, 1)
    parts = torch.split(vectors, sizes, 1) if len(sizes) > 1 else [vectors]
    return [part.to(leaf.dtype).view(stop - start, *leaf.shape) for part, leaf in zip(parts, like, strict=True)]


def in_turn(run: Callable[[int, int], T], total: int, chunk_size: int | None, randomness: str) -> list[T]:
    """`run(start, stop)` for every chunk of `range(total)`, each with the same random draws where asked.

    Nothing to run is run once, on one zero vector, for the shapes of its results; `joined` drops the vector.
    """
    step = chunk_size or total or 1
    *early, last = ((start, min(start + step, total or 1)) for start in range(0, total or 1, step))
    results = []
    for span in early:
        with undrawn() if randomness == "same" else nullcontext():
            results.append(run(*span))
    return [*results, run(*last)]


def undrawn() -> AbstractContextManager[None]:
    """Leave the random generators as they were before."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    return torch.random.fork_rng(devices=devices)


def joined(parts: Sequence[Sequence[Tensor]], total: int) -> list[Tensor]:
    """The results of `in_turn`, one tensor for each position, `total` long along axis 0."""
    whole = list(parts[0]) if len(parts) == 1 else [torch.cat(some) for some in zip(*parts, strict=True)]
    return whole if total else [stacked[:0] for stacked in whole]


def contracted(row: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
    """The blocks of one output's Jacobian times the tangents."""
    terms = [torch.tensordot(block, tangent, tangent.dim()) for block, tangent in zip(row, tangents, strict=True)]
    return torch.stack(terms).sum(0)
