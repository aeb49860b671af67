"""Half precision, whose differences are too coarse to decide: asked again in float32, where the function allows it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from funcdiff._safety.accusing import COARSE, OUTSIDE, Check
from funcdiff._safety.lines import Func, Point
from funcdiff._torch.tape import Sketch, sketch


def or_in_single(
    found: Check, answer: Point, flat: Func, point: Point, seen: Sketch, again: Callable[[list[Tensor], Sketch], Check]
) -> Check:
    """`found`; of an answer that is not finite, also whether differences in float32 say that it should be.

    `again` is given the point in float32 and what `flat` does there.
    """
    if found.outcome != "undecided" or seen.epsilon <= COARSE or all(bool(x.isfinite().all()) for x in answer):
        return found
    single = in_single(point)
    try:
        seen = sketch(flat, [x.clone() for x in single], "same")
    except OUTSIDE:  # it has tensors of half precision of its own, say
        return found
    if seen.epsilon > COARSE:
        return found
    other = again(single, seen)
    return other if other.outcome == "wrong" else found


def in_single(parts: Point) -> list[Tensor]:
    """The same numbers in float32, those of float64 in float64."""
    return [x.detach() if x.dtype == torch.float64 else x.detach().float() for x in parts]
