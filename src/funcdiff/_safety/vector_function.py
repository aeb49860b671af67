"""The function under examination, seen as a map from one float64 vector to another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcdiff._torch.trees import tree_flatten, tree_leaves, tree_unflatten


class VectorFunction:
    """`func` near `primals`: t -> mixture @ func(primals + span @ t), in float64; zero is the point itself.

    Inputs and outputs are taken one by one up to `directions` of them, beyond that in random combinations. The inputs
    are scaled by their size, so that one step suits all.
    """

    def __init__(self, func: Callable[..., Any], primals: tuple[Any, ...], directions: int | None, seed: int) -> None:
        """Copy `func`, where it is a module, and the floating-point tensors in `primals`."""
        self.name = getattr(func, "__name__", type(func).__name__)
        self.func = copy.deepcopy(func).double() if isinstance(func, torch.nn.Module) else func
        self.leaves, self.tree = tree_flatten(primals)
        self.moving = [i for i, x in enumerate(self.leaves) if isinstance(x, Tensor) and x.is_floating_point()]
        _expect_real(self.leaves, "primals")
        self.point = [self.leaves[i].detach().double() for i in self.moving]
        if not all(x.isfinite().all() for x in self.point):
            raise ValueError("the primals contain NaN or infinity. Choose another point.")
        self.device = self.point[0].device
        self.evaluations = 0
        self.mutates = False
        generator = torch.Generator().manual_seed(seed)
        scales = torch.cat([_scale(x).flatten() for x in self.point])
        self.span = scales[:, None] * _view(len(scales), directions, generator).to(self.device)
        value = self._first_value()
        self.mixture = _view(len(value), directions, generator).T.to(self.device)
        self.inputs, self.size = self.span.shape
        self.seen, self.outputs = self.mixture.shape

    def __call__(self, t: Tensor) -> Tensor:
        """Evaluate `func`."""
        shifts = torch.split(self.span @ t, [x.numel() for x in self.point])
        return self.mixture @ self._flat([x + shift.view_as(x) for x, shift in zip(self.point, shifts, strict=True)])

    def __str__(self) -> str:
        """What was looked at: `predict: R^272 -> R^16, along 8 random directions in, 8 out`."""
        along = []
        if self.size < self.inputs:
            along.append(f"along {self.size} random directions of the input")
        if self.seen < self.outputs:
            along.append(f"through {self.seen} random combinations of the output")
        return ", ".join([f"{self.name}: R^{self.inputs} -> R^{self.outputs}", *along])

    def _flat(self, tensors: list[Tensor]) -> Tensor:
        self.evaluations += 1
        leaves = list(self.leaves)
        for i, x in zip(self.moving, tensors, strict=True):
            leaves[i] = x
        outputs = tree_leaves(self.func(*tree_unflatten(leaves, self.tree)))
        _expect_real(outputs, "result")
        return torch.cat([y.flatten() for y in outputs if isinstance(y, Tensor) and y.is_floating_point()])

    def _first_value(self) -> Tensor:
        """The value at the point, with everything that may be wrong with it found out."""
        copies = [x.clone() for x in self.point]
        try:
            value = self._flat(copies).detach()
        except RuntimeError as error:
            if all(self.leaves[i].dtype == torch.float64 for i in self.moving):
                raise
            message = (
                f"func fails with float64 copies of the primals: {error}. If func is a module, pass the module itself: "
                "a float64 copy is checked. If func uses a module or data of its own, call .double() on each of them."
            )
            raise ValueError(message) from error
        self.mutates = not all(torch.equal(x, y) for x, y in zip(copies, self.point, strict=True))
        if value.dtype != torch.float64:
            message = (
                f"expected a float64 result from float64 primals, got {value.dtype}: func converts its input. Finite "
                "differences need float64. Remove the conversion, or pass the module itself."
            )
            raise TypeError(message)
        if not value.isfinite().all():
            raise ValueError("expected func to be finite at the primals, got NaN or infinity. Choose another point.")
        return value


def _scale(x: Tensor) -> Tensor:
    """Between each entry's own size and the largest: a small entry may be a length to respect, or a chance zero."""
    largest = x.abs().max() if x.any() else x.new_ones(())
    return torch.where(x == 0, largest, (x.abs() * largest).sqrt())


def _view(count: int, directions: int | None, generator: torch.Generator) -> Tensor:
    """(count, at most `directions`): the axes themselves, or random directions where they are too many."""
    if directions is None or count <= directions:
        return torch.eye(count, dtype=torch.float64, device="cpu")
    return torch.randn(count, directions, generator=generator, dtype=torch.float64, device="cpu")


def _expect_real(leaves: list[Any], place: str) -> None:
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    if any(x.is_complex() for x in tensors):
        raise TypeError(f"expected real tensors in the {place}, got a complex one: use torch.view_as_real inside func.")
    if not any(x.is_floating_point() for x in tensors):
        kinds = ", ".join(str(x.dtype if isinstance(x, Tensor) else type(x).__name__) for x in leaves) or "nothing"
        raise TypeError(f"expected a floating-point tensor in the {place}, got {kinds}. Convert it with .double().")
