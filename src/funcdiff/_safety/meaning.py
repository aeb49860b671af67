"""Which derivative a function means: before an answer is called wrong, what is constant by intent or defined by hand.

A function that detaches part of itself means a constant: there the derivative may be what plain autograd computes. It
is not believed where NumPy read the numbers, where nothing depends on the input any more, or of second derivatives of
custom functions (see NOTE [constants]). There the gradient is held against differences as well.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from funcdiff._calling.plain import backward, tracked
from funcdiff._safety.accusing import (
    CLOSEST,
    DIVERGENT,
    NOT_FINITE,
    OUTSIDE,
    ROUNDED,
    ROUNDED_OFF,
    Check,
    compared,
    near,
    nothing,
)
from funcdiff._safety.guard import REWRITTEN, corrected
from funcdiff._safety.lines import Func, Kept, Point, direction, gradients, joined, outputs_at, shifted, values
from funcdiff._safety.only_once import Judge, Line, Slope, only_once, outer_slope
from funcdiff._torch.constants import Constants, constants, holding
from funcdiff._torch.tape import Sketch
from funcdiff._torch.trees import flatten

_BY_DESIGN = frozenset(  # operators whose gradient is not their derivative: a padding row has none, rounding has one
    (
        "embedding",
        "fake_quantize_per_tensor_affine_cachemask",
        "fake_quantize_per_channel_affine_cachemask",
        "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    )
)
_elsewhere = random.Random(0)  # not the caller's
_TRANSPARENT = frozenset(("BackwardHookFunction", "CheckpointFunction"))  # torch's own, which define no derivative
_SAID = Check("agrees", 0.0, "agrees with differences in which what func holds constant stays as it is")
_STRAIGHT = Check("agrees", 0.0, "is zero, as func is linear piece by piece")
_DEFINED = Check("agrees", 0.0, "agrees with plain autograd, by which a custom function defines its derivative")
_OTHERWISE = Check(
    "wrong", float("nan"), "contradicts plain autograd, by which a custom function defines its derivative"
)


def by_hand(seen: Sketch) -> frozenset[str]:
    """What computes with the input by code of the user's: at some points it may be wrong, at others right."""
    return seen.foreign - _TRANSPARENT


def check_slope(flat: Func, point: Point, along: Point, answer: Point, seen: Sketch) -> Check:
    """Hold the derivative of `flat` along a direction against differences."""
    by_definition = by_hand(seen) or seen.operators & _BY_DESIGN
    if by_definition and (defined := _as_defined(flat, point, along, answer, seen)):
        return defined

    def judge(func: Func, answer: Tensor) -> Check:
        return compared(answer, values(func, point, along), seen)

    return _as_meant(judge, joined(answer), flat, point, along, seen)


def check_second(
    judge: Judge,
    answer: Tensor,
    own: Callable[[], Tensor],
    flat: Func,
    point: Point,
    along: Point,
    seen: Sketch,
    weights: Point,
    kept: Kept,
    by_values: Callable[..., Check],  # a judge, which is told whether it may accuse
    size: Callable[[], float],
) -> Check:
    """What is found of a second derivative, `own` being that by plain autograd, `size` that of func's numbers.

    It is held against differences of the gradient by plain autograd; where these say nothing, against those of values.
    """
    if seen.straight and not answer.any():  # differences would stumble over the kinks
        return _unless_cut(_STRAIGHT, flat, point, along, weights, seen, kept)
    found = _as_meant(judge, answer, flat, point, along, seen, weights)
    if found.reason == NOT_FINITE:
        return _as_meant(by_values, answer, flat, point, along, seen, weights)
    # A gradient may be lost in its own rounding where values are not; where it has kinks, they have them too.
    lost = found.reason == ROUNDED_OFF or (found.reason == DIVERGENT and not math.isnan(found.gap))
    if lost and not seen.foreign:
        other = by_values(flat, answer, accusing=not answer.isfinite().all())
        if other.outcome == "agrees" or (other.outcome == "wrong" and not answer.isfinite().all()):
            return other
    if found.outcome != "wrong":
        found = _unless_cut(found, flat, point, along, weights, seen, kept)
    too_little = found.unsure and not seen.foreign and not seen.cuts
    if found.outcome == "wrong" or not found.gap > 0 or not (by_hand(seen) or too_little):
        return found
    try:
        plain = own()
        floor = nothing(seen) * size()  # which two ways of rounding may differ by
        if near(answer, plain, seen, floor, scale=max(CLOSEST, seen.epsilon**0.5)):
            return replace(found, plain=too_little)
        if too_little:
            return found
        other = judge(flat, plain)
    except OUTSIDE:
        return found
    if other.gap < found.gap / 2:  # a term that forward mode misses may be smaller than the error of differences
        return replace(_OTHERWISE, gap=found.gap)
    return found if found.gap < other.gap / 2 else Check("undecided", found.gap, "plain autograd says otherwise")


def _as_meant(
    judge: Judge, answer: Tensor, flat: Func, point: Point, along: Point, seen: Sketch, weights: Point | None = None
) -> Check:
    """What `judge` finds of `flat`; where that is wrong, of `flat` with all that it holds constant kept as it is here.

    Where something is cut off, a difference that is too little to accuse torch of is enough to look. Without `weights`
    it is about a first derivative.
    """
    found = judge(flat, answer)
    small = found.unsure and seen.cuts
    if found.outcome != "wrong" and not small:
        return found
    accused = Check("wrong", found.gap) if small else found
    here = shifted(point, along, 0.0)
    try:
        held = constants(lambda: tracked(flat, here))
        if held.lost or (held.found and weights is None and not answer.any()):
            return _lost(accused)
        if not held.meant:
            return found
        kept = judge(holding(flat, here), answer)
        if kept.outcome == "undecided":
            return found if small else kept
        if kept.outcome == "wrong":
            return found
        return _believed(judge, answer, accused, flat, (point, along), weights, seen)
    except OUTSIDE:
        return found


def _believed(
    judge: Judge, answer: Tensor, found: Check, flat: Func, line: Line, weights: Point | None, seen: Sketch
) -> Check:
    """What is found of constants that are meant, unless func contradicts itself."""
    point, along = line
    cotangents = direction(outputs_at(flat, point), seed=8)
    fresh = shifted(point, along, _elsewhere.uniform(0.3, 0.4) * seen.epsilon**0.25)  # where func has never been
    once, again = (gradients(flat, fresh, along, cotangents)(0.0) for _ in range(2))
    if not near(again, once, seen):
        return replace(found, reason=f"{found}: func returns tensors that it made in another call")
    if only_once(judge, answer, flat, line, weights, seen):
        return replace(found, reason=f"{found}, though the gradient agrees: detaching is right only once")
    return _SAID


def _as_defined(flat: Func, point: Point, along: Point, answer: Point, seen: Sketch) -> Check | None:
    """What plain autograd says of a Jacobian, if it has one: a custom function defines its first derivative by it.

    So does a straight-through estimator, whose differences are zero. A second derivative is only known from differences
    of the first.
    """
    try:
        same = _pulled_back(flat, point, along, answer, seen)
    except OUTSIDE:
        return None
    if same and not joined(answer).any():  # a zero shows nothing
        return None
    return _DEFINED if same else _OTHERWISE


def _unless_cut(
    found: Check, flat: Func, point: Point, along: Point, weights: Point, seen: Sketch, kept: Kept
) -> Check:
    """`found` of a second derivative, unless the gradient that it was held against is wrong itself.

    A constant that is meant, or a custom function, may make another gradient on purpose.
    """
    here = shifted(point, along, 0.0)
    outputs: list[Tensor] = []
    try:
        slope = None if seen.cuts else _along(kept, flat, (point, along), weights)
        if slope and slope.check(seen).outcome == "agrees":
            return found
        held = Constants()
        if seen.cuts:
            held = constants(lambda: outputs.extend(flatten(tracked(flat, here))[0]))
        else:
            outputs.extend(flatten(tracked(flat, here))[0])
        cut = held.lost or not any(y.requires_grad for y in outputs)
        designed = seen.operators & _BY_DESIGN or by_hand(seen)
        if not cut and designed:
            return found
        gradient = None
        if not cut and (held.found or seen.operators.isdisjoint(REWRITTEN)):  # of func itself, which has run already
            gradient = joined(backward(outputs, here, list(weights), create_graph=False))
        if held.found and gradient is not None:
            if gradient.any():
                return found
            cut = True  # what is computed with others' graphs may still have left that of the input
        first = outer_slope(corrected(flat), (point, along), weights, kept, gradient).check(seen)
    except OUTSIDE:  # as the differences of the gradient, which are then undecided
        return found
    if cut and first.unsure:  # little, but something is cut off
        first = Check("wrong", first.gap)
    if first.outcome != "wrong" or math.isinf(first.gap):  # a gradient may be NaN here, and right near here
        return found
    if cut:
        return _lost(first)
    hooked = held.hooked or "BackwardHookFunction" in seen.foreign  # as a module's hooks show
    return replace(first, reason=f"the gradient {first}{': does a hook change it?' if hooked else ''}")


def _along(kept: Kept, flat: Func, line: Line, weights: Point) -> Slope | None:
    """The derivative by the gradients that are kept on either side of the point, if func has them on both."""
    step = max(kept, default=0.0)
    if step <= 0 or -step not in kept:
        return None
    return outer_slope(flat, line, weights, kept, (kept[step][1] + kept[-step][1]) / 2)


def _lost(found: Check) -> Check:
    """That a derivative is wrong since func leaves torch, or a graph, on its way."""
    return replace(
        found,
        reason=f"contradicts differences of func, {found.gap:.1g} apart: NumPy on a detached "
        "tensor, a gradient without create_graph=True, or detaching the whole result cuts it off",
    )


def _pulled_back(flat: Func, point: Point, along: Point, answer: Point, seen: Sketch) -> bool:
    """Whether J v pairs with two cotangents u as it does by plain autograd, as (u J) v: one derivative suffices."""
    moved = shifted(point, along, 0.0)
    outputs = flatten(tracked(flat, moved))[0]
    pairings = []
    for seed in (6, 7):
        cotangents = direction(outputs, seed)
        pulled = backward(outputs, moved, cotangents, create_graph=False)
        pairings.append([(joined(u) * joined(v)).sum() for u, v in ((cotangents, answer), (pulled, along))])
    answers, own = torch.tensor(pairings, dtype=torch.float64, device="cpu").T
    floor = ROUNDED * seen.epsilon * max((float(y.detach().abs().amax()) for y in outputs if y.numel()), default=0.0)
    return near(answers, own, seen, floor, scale=max(CLOSEST, seen.epsilon**0.5))


def plain_product(flat: Func, point: Point, along: Point, weights: Point) -> Point:
    """The product of the weighted outputs' Hessian and the direction by plain reverse mode alone."""
    moved = shifted(point, along, 0.0)
    slope = backward(flatten(tracked(flat, moved))[0], moved, list(weights), create_graph=True)
    return backward(slope, moved, list(along), create_graph=False)
