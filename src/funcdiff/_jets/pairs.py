"""Which second derivatives a jet carries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from funcdiff._torch.transforms import unwrapped
from funcdiff._torch.trees import tree_leaves

_SMALL = 6000  # numbers of a first derivative, times the runs, below which starting operations takes the time
Form = Callable[[list[Any], list[Any]], Any]  # bilinear: two lists of stacks, one for each argument, to stacks


class Pairs:
    """No pair travels: first derivatives alone, for a Jacobian."""

    curved = False  # whether second derivatives travel at all

    def __init__(self) -> None:
        self.grad_enabled = torch.is_grad_enabled()

    def count(self, first: torch.Tensor) -> int:
        """How many derivatives are asked for, with the first ones (n, ...) at hand."""
        return len(first)

    def bend(self, form: Form, firsts: list[torch.Tensor]) -> list[torch.Tensor]:
        """The stacked bilinear ``form`` along all pairs: first derivatives (n, ...) -> (q, ...) for each output."""
        raise NotImplementedError

    def add_bend(self, base: torch.Tensor | None, bend: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """``base``, which may be overwritten, plus ``bend`` times the products of first derivatives along all pairs."""
        raise NotImplementedError


class Mixed(Pairs):
    """The pairs (i, j) travel, j in ``start .. stop`` of each run; ``left`` and ``right`` are all i and all j."""

    curved = True

    def __init__(self, runs: Sequence[tuple[int, int, int]], left: torch.Tensor, right: torch.Tensor) -> None:
        super().__init__()
        self.runs, self.left, self.right = runs, left, right

    def count(self, first: torch.Tensor) -> int:
        return len(self.left)

    def bend(self, form: Form, firsts: list[torch.Tensor]) -> list[torch.Tensor]:
        return tree_leaves(form([x[self.left] for x in firsts], [x[self.right] for x in firsts]))

    def add_bend(self, base: torch.Tensor | None, bend: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        compiling = torch.compiler.is_compiling()
        if compiling or len(self.runs) * _numel(first) <= _SMALL * len(first) or _numel(first) < _numel(bend):
            products = first[self.left] * first[self.right]
            return bend * products if base is None else torch.addcmul(base, bend, products)
        # Slices of large first derivatives serve a run without copying them, for an operation each.
        scaled = bend * first
        pieces = (scaled[i] * first[start:stop] for i, start, stop in self.runs)
        if base is None:
            return torch.cat(list(pieces))
        if not _writable(base, scaled, first):
            return base + torch.cat(list(pieces))
        for part, piece in zip(torch.split(base, [j - i for _, i, j in self.runs]), pieces, strict=True):
            part.add_(piece)
        return base


class Diagonal(Pairs):
    """Only the pairs (i, i) travel."""

    curved = True

    def bend(self, form: Form, firsts: list[torch.Tensor]) -> list[torch.Tensor]:
        return tree_leaves(form(firsts, firsts))

    def add_bend(self, base: torch.Tensor | None, bend: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        return bend * first * first if base is None else torch.addcmul(base, bend * first, first)


class Sum(Pairs):
    """Only the sum over the pairs (i, i) travels: enough for a Laplacian."""

    curved = True

    def count(self, first: torch.Tensor) -> int:
        return 1

    def bend(self, form: Form, firsts: list[torch.Tensor]) -> list[torch.Tensor]:
        return [stack.sum(0, keepdim=True) for stack in tree_leaves(form(firsts, firsts))]

    def add_bend(self, base: torch.Tensor | None, bend: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        total = (bend * first * first).sum(0, keepdim=True)
        return total if base is None else base + total


def _numel(x: torch.Tensor) -> int:
    return unwrapped(x)[0].numel()


def _writable(base: torch.Tensor, *factors: torch.Tensor) -> bool:
    """Whether a product can be added in place: no graph wants the old values, no transform wraps the product alone."""
    (_, levels, graph), *others = map(unwrapped, (base, *factors))
    return not graph and all(inside <= levels and not graph for _, inside, graph in others)
