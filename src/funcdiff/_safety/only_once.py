"""Detaching that is right once: the last step of a solver has the right gradient, and the wrong second derivative.

What func detaches is no constant that anyone means where the gradient is as if nothing were detached. It may be one
part of what func detaches, beside constants that are meant; and the gradient may be one that func takes itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from funcdiff._calling.plain import tracked
from funcdiff._safety.accusing import Check, compared
from funcdiff._safety.lines import Curve, Func, Kept, Point, direction, gradients, joined, shifted, values
from funcdiff._torch.constants import holding, parts
from funcdiff._torch.tape import Sketch
from funcdiff._torch.transforms import values as beneath_transforms

_CONVERGED = 0.01  # of its second derivative, below which a first derivative is what a solver's tolerance leaves
_APART = 0.01  # of a second derivative: with the gradient that agrees enough to say that a part of it is missing
_ALL = None  # of the parts that are detached
Line = tuple[Point, Point]  # a point and a direction
Judge = Callable[[Func, Tensor], Check]  # what differences of a function say of an answer


def only_once(judge: Judge, answer: Tensor, flat: Func, line: Line, weights: Point | None, seen: Sketch) -> bool:
    """Whether something that func detaches changes a second derivative of it and not the first.

    The first one is a gradient that func takes itself or, with `weights`, that of its outputs.
    """
    several = parts(flat, shifted(*line, 0.0))
    for free in (_ALL, *(several if len(several) > 1 else ())):
        func = _freed(flat, line, free)
        slopes = _slopes(func, line, weights)
        right = [which for which, slope in enumerate(slopes) if _is_right(slope, seen)]
        if not right or (free is not _ALL and not judge(func, answer).gap > _APART):
            continue
        if not all(_matters(flat, line, which, weights, seen, free) for which in right):
            return True
    return False


class Slope(NamedTuple):
    """The derivative by a gradient along a line, and the numbers on it of whose sum it is the derivative."""

    value: Tensor
    curve: Curve

    def check(self, seen: Sketch, scale: float = 1.0) -> Check:
        """Hold it against differences."""
        return compared(scale * self.value, lambda t: self.curve(t).sum()[None], seen)


def outer_slope(
    flat: Func, line: Line, weights: Point, kept: Kept | None = None, gradient: Tensor | None = None
) -> Slope:
    """That of the weighted outputs' sum by plain autograd."""
    if gradient is None:
        gradient = gradients(flat, *line, weights)(0.0)
    curve = values(flat, *line, kept)
    return Slope((gradient * joined(line[1])).sum()[None], lambda t: curve(t) * joined(weights))


def _slopes(flat: Func, line: Line, weights: Point | None) -> list[Slope]:
    """Those by the gradients that func takes itself, and that of its weighted outputs."""
    number = len(_taken(flat, line, 0.0))
    inner = [_inner_slope(flat, line, which) for which in range(number)]
    return inner if weights is None else [*inner, outer_slope(flat, line, weights)]


def _inner_slope(flat: Func, line: Line, which: int) -> Slope:
    """That by a gradient that func takes itself, of something that moves along the line."""
    here, ahead, behind = (_taken(flat, line, t)[which] for t in (0.0, 0.5, -0.5))
    slope = (here.gradient * (ahead.inputs - behind.inputs)).sum()[None]
    return Slope(slope, lambda t: _taken(flat, line, t)[which].outputs)


def _is_right(slope: Slope, seen: Sketch) -> bool:
    """Whether differences bear it out; one that is zero agrees with anything."""
    return [slope.check(seen, scale).outcome for scale in (0.0, 1.0)] == ["wrong", "agrees"]


def _freed(flat: Func, line: Line, free: int | None) -> Func:
    """`flat` itself, or with all but one part of its constants kept as they are at the beginning of a line."""
    return flat if free is _ALL else holding(flat, shifted(*line, 0.0), free)


def _matters(flat: Func, line: Line, which: int, weights: Point | None, seen: Sketch, free: int | None) -> bool:
    """Whether what func detaches has a first derivative of its own, or does not enter what the gradient is of.

    What a solver's iterations return enters in second order alone.
    """
    point, _ = line
    others = [(shifted(point, direction(point, seed), 0.1 * seed), direction(point, seed + 1)) for seed in (3, 9)]
    orders = [_order(flat, line, which, weights, seen, free) for line in (line, *others)]
    return 1 in orders or 2 not in orders


def _order(flat: Func, line: Line, which: int, weights: Point | None, seen: Sketch, free: int | None) -> int:
    """In which order what func detaches changes its results along this line; 0 if it does not."""
    funcs = _freed(flat, line, free), holding(flat, shifted(*line, 0.0))
    loose, held = (_slopes(func, line, weights)[which].curve for func in funcs)
    step = seen.epsilon**0.25
    ahead, behind = (float((loose(t) - held(t)).sum()) for t in (step, -step))
    slope, bend = (ahead - behind) / (2 * step), (ahead + behind) / step**2
    noise = 8 * seen.epsilon * float(loose(0.0).abs().amax()) / step
    if abs(slope) > max(noise, _CONVERGED * abs(bend)):
        return 1
    return 2 if abs(bend) > noise / step else 0


class _Taken(NamedTuple):
    """A gradient that a function takes: what of, with cotangents, with respect to what, and itself."""

    outputs: Tensor
    inputs: Tensor
    gradient: Tensor


class _Gradients(TorchFunctionMode):
    """Sees the gradients that a function takes: torch.func's transforms, too, take them by autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[_Taken] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.autograd.grad and any(g is not None for g in _several(result)):
            self.taken.append(_numbers(result, *args, **kwargs))
        return result


def _numbers(gradient: Any, outputs: Any, inputs: Any, grad_outputs: Any = None, *_: Any, **__: Any) -> _Taken:
    pairs = [(x, g) for x, g in zip(_several(inputs), _several(gradient), strict=True) if g is not None]
    ys = _several(outputs)
    us = [None] * len(ys) if grad_outputs is None else _several(grad_outputs)
    return _Taken(
        joined([_read(y) if u is None else _read(u) * _read(y) for u, y in zip(us, ys, strict=True)]),
        *(joined([_read(x) for x in some]) for some in zip(*pairs, strict=True)),
    )


def _several(tensors: Any) -> list[Any]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _read(x: Any) -> Tensor:
    found = beneath_transforms(x) if isinstance(x, Tensor) else None
    if found is None:
        raise RuntimeError(f"no numbers can be read from {type(x).__name__}")
    return found


def _taken(flat: Func, line: Line, t: float) -> list[_Taken]:
    seen = _Gradients()
    with seen:
        tracked(flat, shifted(*line, t))
    return seen.taken
