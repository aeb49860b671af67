"""Is a derivative right when it is differentiated once more, as training through a Hessian or a Laplacian does it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.func import vmap

from funcdiff._safety.accusing import ENDLESS, Check, compared
from funcdiff._safety.lines import Func, Point, direction, outputs_at
from funcdiff._torch.constants import constants
from funcdiff._torch.messages import cannot
from funcdiff._torch.tape import Sketch
from funcdiff._torch.trees import flatten

_NOT_ASKED = Check("agrees", 0.0)


def check_training(
    recipe: Callable[[Func], Func], flat: Func, point: Point, seen: Sketch, *, under_vmap: bool
) -> Check:
    """Hold the gradient of a recipe's result against differences of that result, on a plane through the point.

    The plane keeps the cost to that of derivatives by two inputs. Where the recipe, or autograd after it, raises, the
    caller will hear of it: that is no fault.
    """
    if not any(x.numel() for x in point) or point[0].is_meta:
        return _NOT_ASKED
    point = [x.detach() for x in point]
    plane = [direction(point, seed) for seed in (2, 3)]
    mixture = [_spread(y) for y in outputs_at(flat, point)]

    def restricted(t: Tensor) -> Tensor:
        moved = [x + t[0] * u + t[1] * v for x, u, v in zip(point, *plane, strict=True)]
        ys = flatten(flat(*moved))[0]
        return torch.stack([(w * y).sum() for w, y in zip(mixture, ys, strict=True)]).sum()

    def derivative(t: Tensor) -> Tensor:
        if not under_vmap:
            result = recipe(restricted)(t)
        else:
            result = vmap(recipe(restricted), randomness="same")(torch.stack([0.9 * t, t]))[1]
        weighted: Tensor = (_spread(result) * result).sum()
        return weighted

    def curve(along: Tensor, h: float) -> Tensor:
        return derivative(h * along).detach()[None]

    origin = point[0].new_zeros(2)
    start = origin.clone().requires_grad_()
    try:
        with torch.enable_grad():
            result = derivative(start)
        if not result.requires_grad:
            return _NOT_ASKED
        (slope,) = torch.autograd.grad(result, start, allow_unused=True)
        for seed in (6, 7, 8):  # an error may be small along one direction
            (along,) = direction([origin], seed)
            answer = result.new_zeros(1) if slope is None else (slope * along).sum()[None]
            found = compared(answer, partial(curve, along), seen)
            if not found.unsure:
                break
        if found.outcome == "wrong" and not constants(lambda: restricted(origin)).meant:
            if math.isinf(found.gap):
                return replace(found, outcome="undecided", reason=ENDLESS)
            return replace(found, reason=f"differentiated once more, it contradicts differences, {found.gap:.1g} apart")
    except Exception as error:  # raised again unless torch cannot do it in this way
        if not cannot(error):
            raise
    return _NOT_ASKED


def _spread(like: Tensor) -> Tensor:
    """Weights in no order."""
    return torch.arange(1.0, like.numel() + 1, device=like.device).cos().to(like.dtype).reshape(like.shape)
