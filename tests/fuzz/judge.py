"""Plain autograd by loops in float64, differences of it, and what the two say of a result."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Function = Callable[[Tensor], Tensor]
_STEPS = 2.0**-10, 2.0**-11, 2.0**-12


class Exact(NamedTuple):
    """A derivative, its error, and in what units: the largest entry of the whole, or a small part of the function's."""

    value: Tensor
    error: float
    scale: float


@dataclass(eq=False)
class Reference:
    """The derivatives of `func` at a point, and how sure they are."""

    func: Function
    x: Tensor
    defined: bool = False  # whether the first derivative is a definition
    found: dict[int, Tensor | None] = field(default_factory=dict)  # differences of values and of gradients

    def gradients(self, x: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """The Jacobian by a loop over the outputs, and the input that it depends on."""
        x = x.detach().requires_grad_()
        y = self.func(x)
        rows = [_grad(entry, x, create_graph=create_graph) for entry in y.reshape(-1)]
        return torch.stack(rows).reshape(*y.shape, *x.shape), x

    @cached_property
    def jacobian(self) -> Tensor | None:
        """By plain reverse mode, nothing where torch has none."""
        try:
            return self.gradients(self.x)[0].detach()
        except RuntimeError:
            return None

    @cached_property
    def hessian(self) -> Tensor | None:
        """By plain double backward, nothing where torch has none."""
        try:
            slopes, x = self.gradients(self.x, create_graph=True)
            return torch.stack([_grad(slope, x) for slope in slopes.reshape(-1)]).reshape(*slopes.shape, *x.shape)
        except RuntimeError:
            return None

    def _differences(self, order: int) -> Tensor | None:
        """Those of values or of gradients, where they settle."""
        if order not in self.found:
            self.found[order] = self._settled(order)
        return self.found[order]

    def _settled(self, order: int) -> Tensor | None:

        kept: list[Tensor] = []
        with _Constants(kept):
            self.func(self.x.clone().requires_grad_())
        still = Reference(_with(kept, self.func), self.x)

        def curve(point: Tensor) -> Tensor:
            return still.func(point).detach() if order == 1 else still.gradients(point)[0].detach()

        columns, errors = [], []
        try:
            for axis in torch.eye(len(self.x), dtype=self.x.dtype):
                wide, middle, narrow = ((curve(self.x + h * axis) - curve(self.x - h * axis)) / (2 * h) for h in _STEPS)
                columns.append((4 * narrow - middle) / 3)
                errors.append((columns[-1] - (4 * middle - wide) / 3).abs().max())
        except RuntimeError:  # without a first derivative
            return None
        value = torch.stack(columns, -1)
        return value if bool(max(errors) <= 1e-5 * (1e-3 + value.abs().max())) else None

    def exact(self, kind: str) -> Exact | None:
        """Plain autograd's where differences do not contradict it, else these; nothing where neither can tell."""
        order = 1 if kind == "jacobian" else 2
        plain = self.jacobian if order == 1 else self.hessian
        if plain is not None and not plain.isfinite().all():
            plain = None
        if not (self.defined and order == 1):
            value = self._differences(order)
            if self.defined and value is None:  # of its second derivative nothing else is known
                return None
            if value is not None and (plain is None or gap(plain, value) > 1e-3):
                return None if self.defined else Exact(of_kind(kind, value), 1e-3, self._size(value))
        return None if plain is None else Exact(of_kind(kind, plain), 1e-6, self._size(plain))

    def _size(self, matrix: Tensor) -> float:
        return float(torch.maximum(matrix.abs().max(), 1e-3 * self.func(self.x).detach().abs().max()))

    def by_plain_autograd(self, kind: str) -> Tensor | None:
        """What plain autograd gives, if it is finite."""
        matrix = self.jacobian if kind == "jacobian" else self.hessian
        return of_kind(kind, matrix) if matrix is not None and matrix.isfinite().all() else None


class _Constants(TorchFunctionMode):
    """Keeps what a function takes out of the graph, or puts what was kept in its place."""

    def __init__(self, kept: list[Tensor], *, replay: bool = False) -> None:
        super().__init__()
        self.kept, self.replay, self.position, self.off = kept, replay, itertools.count(), False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch._C._set_grad_enabled:
            self.off = not args[0]
        result = func(*args, **(kwargs or {}))
        inside = not torch.is_grad_enabled() and not self.off  # the forward of a custom function
        if inside or not isinstance(result, Tensor) or not (self.off or func is Tensor.detach):
            return result
        if self.replay:
            return self.kept[next(self.position)].clone()
        self.kept.append(result.detach().clone())
        return result


def _with(kept: list[Tensor], func: Function) -> Function:
    """`func` with what it takes out of the graph as it was when that was kept."""

    def still(x: Tensor) -> Tensor:
        with _Constants(kept, replay=True):
            return func(x)

    return still


def _grad(y: Tensor, x: Tensor, *, create_graph: bool = False) -> Tensor:
    if not y.requires_grad:
        return torch.zeros_like(x)
    (grad,) = torch.autograd.grad(y, x, retain_graph=True, create_graph=create_graph, allow_unused=True)
    return torch.zeros_like(x) if grad is None else grad


def of_kind(kind: str, matrix: Tensor) -> Tensor:
    """What is asked for, out of a Jacobian or a Hessian; of products, those with all axes."""
    if kind == "diagonal":
        return matrix.diagonal(0, -2, -1)
    return matrix.diagonal(0, -2, -1).sum(-1) if kind == "laplacian" else matrix


def gap(got: Tensor, want: Tensor, scale: float = 0.0) -> float:
    """The largest difference in units of the largest entry, or of a scale above it."""
    scale = max(scale, 1e-6, float(want.abs().max()))
    return float((got.double() - want).abs().nan_to_num(float("inf")).max()) / scale
