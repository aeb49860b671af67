"""A line through a point along a random direction, with the values and the gradients of a function on it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from funcdiff._calling.plain import backward, tracked
from funcdiff._torch.processes import beside
from funcdiff._torch.trees import Tree, flatten

Point = Sequence[Tensor]
Func = Callable[..., Tree]  # of the differentiated leaves, without aux
Curve = Callable[[float], Tensor]  # along the direction, everything that func returns as one vector
Kept = dict[float, tuple[Tensor, Tensor]]  # what func returns on a line, and its gradient there
# A point is often the first draw after manual_seed(0). Along the point itself many a function has no second derivative.
_UNUSUAL = 0x66756E6364696666


def direction(like: Point, seed: int = 0) -> list[Tensor]:
    """A random direction of length 1 in units of the point's own size; the caller's generators stay as they are."""
    generator = torch.Generator().manual_seed(_UNUSUAL + seed)
    parts = [torch.randn(x.shape, generator=generator, dtype=torch.float64, device="cpu") for x in like]
    length = math.hypot(*(float(torch.linalg.vector_norm(part)) for part in parts)) or 1.0
    scales = [max(1.0, _size(x)) / length for x in like]
    moves = [(part * s).to(dtype=x.dtype, device=x.device) for part, s, x in zip(parts, scales, like, strict=True)]
    return [beside(move, x) for move, x in zip(moves, like, strict=True)]


def shifted(point: Point, along: Point, t: float) -> list[Tensor]:
    """The point after a step of t along the direction."""
    return [(x.detach() + t * v).detach() for x, v in zip(point, along, strict=True)]


def joined(parts: Point) -> Tensor:
    """All entries as one vector, of at least float32."""
    parts = [part.detach().reshape(-1) for part in parts]
    return torch.cat([part if part.dtype == torch.float64 else part.float() for part in parts])


def across(flat: Func, plane: Sequence[Tensor], mixture: Sequence[Tensor]) -> Callable[..., Tensor]:
    """`flat` of two numbers, on a plane through a point, seen through combinations of its outputs.

    A product with a matrix is the least that a mode can be asked to differentiate. Shapes: (2, n) for a tensor of n
    numbers in `plane`, (c, m) for an output of m numbers in `mixture`.
    """

    def seen_through(t: Tensor, *point: Tensor) -> Tensor:
        steps = [(t if t.dtype == pair.dtype else t.to(pair.dtype)) @ pair for pair in plane]
        moved = [x + step.reshape(x.shape) for x, step in zip(point, steps, strict=True)]
        parts = [some @ y.reshape(-1) for some, y in zip(mixture, flatten(flat(*moved))[0], strict=True)]
        total: Tensor = functools.reduce(torch.add, parts)
        return total

    return seen_through


def as_rows(*directions: Point) -> list[Tensor]:
    """Several directions, a matrix for each tensor."""
    return [torch.stack(some).reshape(len(some), -1) for some in zip(*directions, strict=True)]


def values(flat: Func, point: Point, along: Point, kept: Kept | None = None) -> Curve:
    """The values of `flat` on the line through the point, those that are kept not computed again."""

    def curve(t: float) -> Tensor:
        if kept and t in kept:
            return kept[t][0]
        # func may take gradients of its own, also with respect to its argument itself
        return joined(flatten(tracked(flat, shifted(point, along, t)))[0])

    return curve


def gradients(flat: Func, point: Point, along: Point, cotangents: Point, kept: Kept | None = None) -> Curve:
    """The gradients of the outputs' sum, weighted by the cotangents, by plain autograd, on the line.

    The values come with them, and both are kept where that is asked for.
    """

    def curve(t: float) -> Tensor:
        moved = shifted(point, along, t)
        outputs = flatten(tracked(flat, moved))[0]
        gradient = joined(backward(outputs, moved, list(cotangents), create_graph=False))
        if kept is not None:
            kept[t] = joined(outputs), gradient
        return gradient

    return curve


def outputs_at(flat: Func, point: Point) -> list[Tensor]:
    """What `flat` returns at a point, without a graph."""
    with torch.enable_grad():
        copies = [x.detach().requires_grad_().clone() for x in point]  # no leaves, into which func could not write
        return [y.detach() for y in flatten(flat(*copies))[0]]


def slopes(flat: Func, point: Point, along: Point, weights: Point, axes: Sequence[Point], step: float) -> Curve:
    """The slopes of the outputs' sum, weighted, along each of the axes, by differences of the values, on the line."""

    def curve(t: float) -> Tensor:
        here, pairing = shifted(point, along, t), joined(weights)
        pairs = [[values(flat, here, axis)(s) @ pairing for s in (step, -step)] for axis in axes]
        return torch.stack([(ahead - behind) / (2 * step) for ahead, behind in pairs])

    return curve


def largest(flat: Func, point: Point, weights: Point) -> float:
    """The largest of the numbers that `flat` returns, weighted."""
    pairs = zip(weights, outputs_at(flat, point), strict=True)
    return max(float((w * y).abs().amax()) for w, y in pairs if y.numel())


def _size(x: Tensor) -> float:
    if not x.numel() or x.is_meta:
        return 0.0
    return float(torch.linalg.vector_norm(x.detach(), dtype=torch.float64)) / math.sqrt(x.numel())
