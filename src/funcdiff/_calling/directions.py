"""The moves all recipes are made of: bases, rows and columns, a chunk at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from torch import Tensor

from funcdiff._calling.options import Options
from funcdiff._calling.types import Blocks, Derivative
from funcdiff._torch.counter import Counter
from funcdiff._torch.processes import beside
from funcdiff._torch.transforms import batched, plain_allowed, undrawn
from funcdiff._torch.trees import Tree, TreeSpec, flatten, unflatten

T = TypeVar("T")


def rows(pull: Callable[[Tree], Sequence[Tensor]], output: Tree, primals: Sequence[Tensor], options: Options) -> Blocks:
    """Every row of the Jacobian: the basis of the output, pulled back; one vector at a time without vmap."""
    leaves = flatten(output)[0]
    sizes = [leaf.numel() for leaf in leaves]
    stacked = pulled(pull, output, functools.partial(basis, leaves), sum(sizes), options)
    if len(leaves) == 1:
        shape = leaves[0].shape
        if len(shape) == 1:
            return [stacked]  # as it is
        return [[g.view(shape + primal.shape) for g, primal in zip(stacked, primals, strict=True)]]
    split = [torch.split(g, sizes) for g in stacked]
    return [
        [part[i].view(leaf.shape + primal.shape) for part, primal in zip(split, primals, strict=True)]
        for i, leaf in enumerate(leaves)
    ]


def columns(push: Callable[..., tuple[Tree, ...]], primals: Sequence[Tensor], options: Options) -> Derivative:
    """Every column of the Jacobian: the basis of the primals, pushed forward; and the aux that came along."""
    sizes = [primal.numel() for primal in primals]
    stacked, *aux = pushed(push, functools.partial(basis, primals), sum(sizes), options)
    blocks = [
        [
            part.view(leaf.shape[1:] + primal.shape)
            for part, primal in zip(torch.split(leaf.movedim(0, -1), sizes, -1), primals, strict=True)
        ]
        for leaf in stacked
    ]
    return blocks, *aux


Seeds = Callable[[int, int], Sequence[Tensor]]  # vectors `start` to `stop`, stacked along axis 0, for each leaf


def pulled(
    pull: Callable[[Tree], Sequence[Tensor]], output: Tree, seeds: Seeds, total: int, options: Options
) -> list[Tensor]:
    """What `pull` makes of each of the cotangents, stacked along axis 0, for each primal."""
    spec = flatten(output)[1]

    def pull_leaves(*vectors: Tensor) -> Sequence[Tensor]:
        return pull(unflatten(vectors, spec))

    def pull_one(*vectors: Tensor) -> Sequence[Tensor]:
        return [gradient[None] for gradient in pull_leaves(*(u[0] for u in vectors))]

    single = total == 1 and plain_allowed()  # inside a transform vmap keeps the dtypes that torch expects
    run = pull_one if options.chunk_size == 1 or single else batched(pull_leaves, options.randomness)
    return gathered(lambda *span: run(*seeds(*span)), total, options)


def pushed(push: Callable[..., tuple[Tree, ...]], seeds: Seeds, total: int, options: Options) -> Derivative:
    """What `push` makes of each of the tangents, stacked along axis 0, for each output; and the aux that came along."""
    counts: list[int] = []
    specs: list[TreeSpec] = []
    first_aux: list[Tensor] = []

    def push_leaves(*tangents: Tensor) -> Sequence[Tensor]:
        slope, *aux = push(*tangents)
        leaves, (extra, spec) = flatten(slope)[0], flatten(aux)
        counts.append(len(leaves))
        specs.append(spec)
        return [*leaves, *extra]

    several = batched(push_leaves, options.randomness)

    def run(start: int, stop: int) -> Sequence[Tensor]:
        results = several(*seeds(start, stop))
        if not start:
            first_aux.extend(leaf[0] for leaf in results[counts[0] :])
        return results[: counts[0]]

    return gathered(run, total, options), *unflatten(first_aux, specs[0])


def basis(like: Sequence[Tensor], start: int, stop: int) -> list[Tensor]:
    """Vectors `start` to `stop` of the standard basis of the space of `like`, stacked along axis 0."""
    sizes = [leaf.numel() for leaf in like]
    first = like[0]
    vectors = torch.eye(stop - start, sum(sizes), dtype=first.dtype, device=first.device)
    if start:
        vectors = vectors.roll(start, 1)
    if len(like) == 1:
        return [beside(vectors if first.dim() == 1 else vectors.view(stop - start, *first.shape), first)]
    parts = torch.split(vectors, sizes, 1)
    return [
        beside(part.to(leaf.dtype).view(stop - start, *leaf.shape), leaf)
        for part, leaf in zip(parts, like, strict=True)
    ]


def gathered(run: Callable[[int, int], Sequence[Tensor]], total: int, options: Options) -> list[Tensor]:
    """What `run(start, stop)` returns for every chunk of `range(total)`: tensors stacked along axis 0, `total` long.

    NOTE [one place]. Each chunk is written to its place and dropped, so that the result is held once; and its parts do
    not lie among what the next chunks allocate, where they would keep the allocator from using that memory again.
    Tensors that carry a graph, or belong to a transform, are joined at the end.
    """
    if (options.chunk_size or total) >= total > 0:
        return list(run(0, total))
    whole: list[Tensor] = []

    def take(start: int, stop: int) -> Sequence[Tensor]:
        part = run(start, stop)
        if start == 0 and stop < total and plain_allowed() and not any(x.requires_grad for x in part):
            # Most chunks that are only counted are never written, and what lay there before may be NaN.
            counted = isinstance(options.chunk_size, CountedChunk)
            whole.extend((x.new_zeros if counted else x.new_empty)((total, *x.shape[1:])) for x in part)
        if not whole:
            return part
        for place, x in zip(whole, part, strict=True):
            place[start:stop] = x
        return ()

    parts = in_turn(take, total, options)
    if whole:
        return whole
    joined = [torch.cat(some) for some in zip(*parts, strict=True)]
    return joined if total else [stacked[:0] for stacked in joined]


class CountedChunk(int):
    """A chunk size at which of the chunks between first and last one is run: a counter takes the others as alike."""

    counter: Counter


def in_turn(run: Callable[[int, int], T], total: int, options: Options) -> list[T]:
    """`run(start, stop)` for every chunk of `range(total)`, each with the same random draws where asked.

    Nothing to run is run once, on one zero vector, for the shapes of its results; `gathered` drops the vector.
    """
    chunk_size = options.chunk_size
    step = chunk_size or total or 1
    *early, last = ((start, min(start + step, total or 1)) for start in range(0, total or 1, step))
    results = []
    for i, span in enumerate(early):
        with undrawn() if options.randomness == "same" else nullcontext():
            if i and isinstance(chunk_size, CountedChunk):
                results += chunk_size.counter.as_if_repeated(functools.partial(run, *span), len(early) - 1)
                break
            results.append(run(*span))
    return [*results, run(*last)]


def contracted(row: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
    """The blocks of one output's Jacobian times the tangents."""
    terms = [torch.tensordot(block, tangent, tangent.dim()) for block, tangent in zip(row, tangents, strict=True)]
    return torch.stack(terms).sum(0)
