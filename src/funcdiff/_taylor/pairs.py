"""Which second derivatives a jet carries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

Form = Callable[[list[Any], list[Any]], Any]  # bilinear: two lists of stacks, one for each argument, to stacks


class Pairs:
    """Which second derivatives travel: along the pairs of directions (i, j), j in ``start .. stop`` of each run.

    Slices of the first derivatives serve a run without copying them, as gathering by index would.
    """

    curved = True  # whether second derivatives travel at all

    def __init__(self, runs: Sequence[tuple[int, int, int]]) -> None:
        self.runs = runs
        self.grad_enabled = torch.is_grad_enabled()

    def count(self, first: torch.Tensor) -> int:
        """How many second derivatives travel with the first ones (n, ...)."""
        return sum(stop - start for _, start, stop in self.runs)

    def bend(self, form: Form, firsts: list[torch.Tensor]) -> list[torch.Tensor]:
        """The stacked bilinear ``form`` along all pairs: first derivatives (n, ...) -> (q, ...) for each output."""
        left = [
            torch.cat([x[i : i + 1].expand(stop - start, *x.shape[1:]) for i, start, stop in self.runs]) for x in firsts
        ]
        right = [torch.cat([x[start:stop] for _, start, stop in self.runs]) for x in firsts]
        return tree_leaves(form(left, right))

    def multiply(self, x: torch.Tensor, y: torch.Tensor, base: torch.Tensor | None) -> torch.Tensor:
        """``base``, which may be overwritten, plus the entrywise products along all pairs."""
        products = (x[i] * y[start:stop] for i, start, stop in self.runs)
        if base is None:
            return torch.cat(list(products))
        if not _writable(base, x, y):
            return base + torch.cat(list(products))
        for part, product in zip(torch.split(base, [j - i for _, i, j in self.runs]), products, strict=True):
            part.add_(product)
        return base


def _writable(base: torch.Tensor, *factors: torch.Tensor) -> bool:
    """Whether a product can be added in place: no graph wants the old values, no transform wraps the product alone."""
    if torch.compiler.is_compiling():
        return False
    (levels, graph), *others = map(_wrappers, (base, *factors))
    return not graph and all(inside <= levels and not graph for inside, graph in others)


def _wrappers(x: torch.Tensor) -> tuple[set[int], bool]:
    """The levels of the transforms around a tensor, and whether a graph is kept at any of them."""
    levels, graph = set(), x.requires_grad
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        levels.add(torch._C._functorch.maybe_get_level(x))
        x = torch._C._functorch.get_unwrapped(x)
        graph = graph or x.requires_grad
    return levels, graph


class Slopes(Pairs):
    """No pair travels: first derivatives alone, for a Jacobian."""

    curved = False

    def __init__(self) -> None:
        super().__init__(())

    def count(self, first: torch.Tensor) -> int:
        return len(first)


class Diagonal(Pairs):
    """Only the pairs (i, i) travel."""

    def __init__(self) -> None:
        super().__init__(())

    def count(self, first: torch.Tensor) -> int:
        return len(first)

    def bend(self, form: Form, firsts: list[torch.Tensor]) -> list[torch.Tensor]:
        return tree_leaves(form(firsts, firsts))

    def multiply(self, x: torch.Tensor, y: torch.Tensor, base: torch.Tensor | None) -> torch.Tensor:
        return x * y if base is None else torch.addcmul(base, x, y)


class Sum(Pairs):
    """Only the sum over the pairs (i, i) travels: enough for a Laplacian."""

    def __init__(self) -> None:
        super().__init__(())

    def count(self, first: torch.Tensor) -> int:
        return 1

    def bend(self, form: Form, firsts: list[torch.Tensor]) -> list[torch.Tensor]:
        return [stack.sum(0, keepdim=True) for stack in tree_leaves(form(firsts, firsts))]

    def multiply(self, x: torch.Tensor, y: torch.Tensor, base: torch.Tensor | None) -> torch.Tensor:
        total = (x * y).sum(0, keepdim=True)
        return total if base is None else base + total
