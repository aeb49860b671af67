"""The rows of a batch: one of them, some of them, chunks of them, or one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from funcdiff._calling.directions import CountedChunk, gathered
from funcdiff._calling.options import Options
from funcdiff._calling.types import Function
from funcdiff._torch.trees import Tree, TreeSpec, broadcast, flatten, unflatten


class Batch:
    """Arguments of which some have rows.

    Attributes:
        leaves: The leaves of all of them.
        dims: Which axis of each is the batch, or None.
        size: The number of rows; None where the leaves do not agree on it, or do not fit `in_dims`.
    """

    def __init__(self, args: Sequence[Tree], in_dims: Any) -> None:
        self.args = args
        self.leaves, self.spec = flatten(tuple(args))
        self.dims: Sequence[int | None] = broadcast(in_dims, self.spec) or []
        pairs = zip(self.leaves, self.dims, strict=False)
        try:
            sizes = {x.shape[dim] for x, dim in pairs if dim is not None}
        except (AttributeError, IndexError):
            sizes = set()
        self.size: int | None = sizes.pop() if len(sizes) == 1 else None

    def at_once(self, chunk: int | None) -> int:
        """The rows of a chunk."""
        size = self.size or 1
        return min(size, chunk or size)

    def row(self, i: int = 1) -> Sequence[Tree]:
        """The arguments of a row, by default the second: on the first vmap is often right by luck."""
        size = self.size or 0

        def leaf(x: Any, dim: int | None) -> Any:
            if dim is None:
                return x
            return x.select(dim, min(i, size - 1)) if size else torch.ones_like(x.sum(dim), dtype=x.dtype)

        row: Sequence[Tree] = unflatten(
            [leaf(x, dim) for x, dim in zip(self.leaves, self.dims, strict=True)], self.spec
        )
        return row

    def some(self, chunk: int | None) -> list[int]:
        """A few rows: the first two, the last, and some between, which are not computed where chunks are counted."""
        last = (self.size or 1) - 1
        between = () if isinstance(chunk, CountedChunk) else (last // 3, last // 2)
        return sorted({0, min(1, last), *between, last})

    @property
    def varied(self) -> bool:
        """Whether the first two rows differ in all numbers but zeros, so that none is taken for the other."""
        if (self.size or 0) < 2:
            return self.size == 1
        rows = [x.movedim(dim, 0) for x, dim in zip(self.leaves, self.dims, strict=True) if dim is not None]
        floating = [x for x in rows if x.is_floating_point()]
        return all(not x.is_meta and bool(((x[0] != x[1]) | (x[1] == 0)).all()) for x in floating)

    def in_parts(self, whole: Function, chunk: int | None, options: Options) -> Tree:
        """What `whole` returns of these arguments, computed for `chunk` rows at a time."""
        if chunk is None or self.size is None or self.size <= chunk:
            return whole(*self.args)
        structure: list[TreeSpec] = []

        def some(start: int, stop: int) -> Sequence[Tensor]:
            part = [
                leaf if dim is None else leaf.narrow(dim, start, stop - start)
                for leaf, dim in zip(self.leaves, self.dims, strict=True)
            ]
            results, out_spec = flatten(whole(*unflatten(part, self.spec)))
            structure.append(out_spec)
            return results

        return unflatten(gathered(some, self.size, replace(options, chunk_size=chunk)), structure[0])


def looped(transform: Function, in_dims: Any, options: Options) -> Function:
    """What vmap of the transform would return, by a call for each row."""

    def every_row(*args: Tree) -> Tree:
        batch = Batch(args, in_dims)
        structure: list[TreeSpec] = []
        shapes: list[Sequence[tuple[int, ...]]] = []

        def one(i: int, _: int) -> Sequence[Tensor]:
            results, out_spec = flatten(transform(*batch.row(i)))
            structure.append(out_spec)
            shapes.append([tuple(result.shape) for result in results])
            if shapes[0] != shapes[-1]:
                raise ValueError(
                    f"expected derivatives of the same shape for every row, got {shapes[0]} for row 0 and {shapes[-1]} "
                    f"for row {i}. If func selects by a mask, use torch.where or masked_fill in place of it, or "
                    "differentiate each row alone."
                )
            return [result[None] for result in results]

        return unflatten(gathered(one, batch.size or 0, replace(options, chunk_size=1)), structure[0])

    return every_row
