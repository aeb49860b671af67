"""Whether an answer is wrong: held against differences of a function on a line.

NOTE [accusing]. A derivative is called wrong only if differences of the function in two pairs of steps agree with each
other and not with it. The slopes on either side of the point must agree too: otherwise the function has a kink there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from funcdiff._safety.lines import Curve
from funcdiff._torch.tape import Sketch
from funcdiff._torch.transforms import undrawn

_FAR = 0.1  # of the largest entry: nearer than this nothing is accused of torch's own operators
CLOSE = 1e-3  # what agrees is nearer than this, or than _SURE times the error
_NEARER = 1e-4  # custom operators are accused from here: what one forgets may be a small term
CLOSEST = 1e-5  # ... and agree only up to here
_SURE = 8.0  # times the error of the differences
_VAGUE = 0.05  # of the largest entry: an error of the differences above this decides nothing
_PROOF = 0.01  # ... and above this proves nothing of custom operators
_NEARING = 0.75  # of a distance that is left by half of a step, if the differences go to the answer
_REMEMBERED = 16  # points of a curve: the same are asked for again before anything is accused
COARSE = 1e-4  # an epsilon above which the rounding of func may hide a whole derivative
ROUNDED = 32.0  # roundings of func's numbers that may be left of a derivative that is zero
_NOTHING = 1e-12  # of func's numbers: less shows no fault, even if float64 could tell it from zero
DIVERGENT = "differences of func do not converge here"
KINKED = "func has a kink near the point"
ROUNDED_OFF = "rounding hides differences of func here"
INFINITE = "is not finite, though differences of func are"
NOT_FINITE = "func is not finite near the point"
_TOO_LITTLE = "too little to say"
ENDLESS = "is not finite, differentiated once more"  # which is loud: where nothing else is left, it is taken
OUTSIDE = (ArithmeticError, AssertionError, RuntimeError, ValueError)  # what func may raise beyond its domain
Outcome = Literal["agrees", "wrong", "undecided"]


@dataclass(frozen=True)
class Check:
    """What a check found: `gap` is the largest difference, relative to the largest entry.

    `raised` says that the recipe could not be checked because it fails; `plain`, where differences say too little, that
    plain autograd gives the same along the direction; `of`, what the differences are of.
    """

    outcome: Outcome
    gap: float = float("nan")
    reason: str = ""
    raised: bool = False
    plain: bool = False
    of: str = "func"

    @property
    def unsure(self) -> bool:
        """Whether another recipe may be better: it is neither wrong nor right by differences, or NaN once more."""
        return self.reason.endswith((_TOO_LITTLE, ENDLESS))

    @property
    def by_plain(self) -> Check:
        """The check of a recipe that has nothing in common with plain autograd: that it gives the same settles it."""
        if not (self.plain and self.unsure):
            return self
        return replace(self, reason=f"{self.gap:.1g} from differences of func, and as plain autograd has it")

    def __str__(self) -> str:
        """As a plan tells it."""
        if self.outcome == "undecided" and not self.plain:
            return f"not checked: {self.reason}"
        if self.reason:
            return self.reason
        if not math.isfinite(self.gap):
            return INFINITE
        verb = "agrees with" if self.outcome == "agrees" else "contradicts"
        return f"{verb} differences of {self.of}, {self.gap:.1g} apart"


def compared(
    answer: Tensor, curve: Curve, seen: Sketch, size: Callable[[], float] = lambda: 0.0, *, accusing: bool = True
) -> Check:
    """Hold `answer` against the derivative of `curve` at 0.

    `size` is that of func's own numbers, whose rounding is no derivative; it is asked for before anything is accused.
    Without `accusing`, what does not agree is undecided, and nothing more is evaluated.
    """
    step = seen.epsilon**0.25
    curve = functools.lru_cache(_REMEMBERED)(curve)
    try:
        with undrawn():
            if plainly := _plainly(answer, curve, step, seen):
                return plainly
            first, value = _judged(answer, curve, step, seen)
            if first.outcome != "wrong":
                return (first.unsure and _nearer_by(answer, curve, step, seen)) or first
            floor = nothing(seen) * size()
            found, _ = _judged(answer, curve, step, seen, floor)
            if found.outcome == "agrees":
                return found
            kinked = accusing and found.outcome == "wrong" and _kink(curve, step, seen)
            if (
                not accusing
                or found.outcome != "wrong"
                or kinked
                or _judged(answer, curve, step / 5, seen, floor)[0].outcome != "wrong"
                or _kink(curve, step / 5, seen)
                # What a custom function does between the steps is no excuse for it.
                or (not seen.foreign and _rough(answer, curve, value, step, seen))
            ):
                return Check("undecided", first.gap, KINKED if kinked and math.isfinite(first.gap) else DIVERGENT)
    except OUTSIDE as error:
        return Check("undecided", reason=f"func raises near the point ({type(error).__name__})")
    return first


def compared_by_values(
    answer: Tensor, slopes: Callable[[float], Curve], seen: Sketch, size: Callable[[], float], *, accusing: bool
) -> Check:
    """Hold second derivatives against differences of slopes that are differences themselves, with the step given."""
    if seen.epsilon > COARSE:
        return Check("undecided", reason=NOT_FINITE)
    known = replace(seen, epsilon=seen.epsilon**0.75)  # to this the best differences know a slope
    return compared(answer, slopes(seen.epsilon**0.25), known, lambda: size() / known.epsilon**0.25, accusing=accusing)


def _plainly(answer: Tensor, curve: Curve, step: float, seen: Sketch) -> Check | None:
    """That one pair of steps bears the answer out, as it nearly always does: of torch's own operators that will do."""
    if seen.foreign or seen.epsilon > COARSE:
        return None
    ahead, behind = curve(step), curve(-step)
    value = (ahead - behind) / (2 * step)
    gap, scale = float((answer - value).abs().amax()), float(_scale(answer, value))
    noise = float(_noise(ahead, step, seen))
    return Check("agrees", gap / scale) if gap <= CLOSE * scale and noise <= _PROOF * scale and scale > 0 else None


def _nearer_by(answer: Tensor, curve: Curve, step: float, seen: Sketch) -> Check | None:
    """That shorter steps bear the answer out, which do not reach beyond a kink that the first ones have met."""
    if seen.foreign or seen.cuts:  # of which a small term may be missing
        return None
    for shorter in (step / 5, step / 25):
        found, value = _judged(answer, curve, shorter, seen)
        gap, scale = (answer - value).abs().amax(), _scale(answer, value)
        noise = _noise(curve(shorter), shorter, seen)
        if found.outcome == "agrees" and bool(gap <= torch.clamp(4 * noise, CLOSE * scale, _PROOF / 2 * scale)):
            return found
    return None


def _judged(answer: Tensor, curve: Curve, step: float, seen: Sketch, floor: float = 0.0) -> tuple[Check, Tensor]:
    """What differences with one step and with half of it say, and these differences."""
    ahead, behind = curve(step), curve(-step)
    near_ahead, near_behind = curve(step / 2), curve(-step / 2)
    wide, narrow = (ahead - behind) / (2 * step), (near_ahead - near_behind) / step
    value = (4 * narrow - wide) / 3
    noise = torch.maximum(_noise(ahead, step, seen), _noise(near_ahead, step, seen))
    if not value.isfinite().all():
        return Check("undecided", reason=NOT_FINITE), value
    hidden = answer.nan_to_num(float("inf")).abs().amax() * step < ROUNDED * seen.epsilon  # by what func rounds inside
    if seen.epsilon > COARSE and not value.any() and answer.any() and hidden:
        return Check("undecided", reason="rounding hides what func does near the point"), value
    spread = (narrow - wide).abs()
    error = spread + noise + floor
    gap = (answer - value).abs()
    scale = _scale(answer, value)
    vague = error > _VAGUE * scale
    if seen.foreign and bool(scale <= error.amax()):
        return Check("undecided", reason="its derivative is zero here, which shows nothing"), value
    unproven = error > _PROOF * scale if seen.foreign else vague & (seen.epsilon > COARSE)
    nearing = (answer - narrow).abs() < _NEARING * (answer - wide).abs()
    kinked = vague & (spread > 4 * noise + floor) & ~nearing  # of which no difference says anything
    if bool((gap <= error).all()) and not (unproven | kinked).any():  # all zero, or nearly
        return Check("agrees", float(gap.amax() / scale) if scale > error.amax() else 0.0), value
    if not answer.isfinite().all():  # wrong if the derivative is as small as what rounding leaves of it, too
        bounded = ~vague | (error <= floor + 4 * noise)
        outcome: Outcome = "wrong" if bool((bounded & ~answer.isfinite()).any()) else "undecided"
        return Check(outcome, math.inf, "" if outcome == "wrong" else DIVERGENT), value
    far = (gap > (_NEARER if seen.foreign else _FAR) * scale) & (gap > _SURE * error)
    if bool((far & ~vague).any()):
        return Check("wrong", float(gap.amax() / scale)), value
    if bool(vague.any()):
        rounding = bool(noise > _VAGUE / 2 * scale)  # of a gradient, where the values may be less coarse
        return Check("undecided", reason=ROUNDED_OFF if rounding else DIVERGENT), value
    apart = float(gap.amax() / scale)
    allowed = torch.maximum(error, CLOSEST * scale) if seen.foreign else torch.maximum(_SURE * error, CLOSE * scale)
    if bool((gap > allowed).any() or (seen.foreign and unproven.any())):  # a term may be missing
        return Check("undecided", apart, f"{apart:.1g} from differences of func, {_TOO_LITTLE}"), value
    return Check("agrees", apart), value


def _rough(answer: Tensor, curve: Curve, value: Tensor, step: float, seen: Sketch) -> bool:
    """Whether shorter steps, down to where rounding hides everything, say otherwise than these differences do.

    A gradient near a minimum is small because terms cancel: its size does not tell their rounding.
    """
    scale = _scale(answer, value)
    while True:
        ahead, behind = curve(step), curve(-step)
        noise = _noise(ahead, step, seen)
        cancelled = step < seen.epsilon**0.8 and ahead.abs().amax() < _FAR * scale
        if not noise < _FAR / 10 * scale or cancelled:  # rounding is more than its least
            return False
        if bool(((ahead - behind) / (2 * step) - value).abs().amax() > noise + _VAGUE * scale):
            return True
        step /= 7.3  # of no whole number, so that no oscillation looks the same at every step


def _noise(numbers: Tensor, step: float, seen: Sketch) -> Tensor:
    """What rounding of the numbers that a difference is of may make of it."""
    return 8 * seen.epsilon * numbers.abs().amax() / step


def _scale(answer: Tensor, value: Tensor) -> Tensor:
    """The largest of the numbers in either."""
    return torch.maximum(value.abs().amax(), answer.nan_to_num(0.0, 0.0, 0.0).abs().amax())


def _kink(curve: Curve, step: float, seen: Sketch) -> bool:
    """Whether the slopes on either side of the point differ, however small the step."""
    centre = curve(0.0)

    def jump(h: float) -> Tensor:
        return (curve(h) - 2 * centre + curve(-h)).abs().amax() / h

    wide, narrow = jump(step), jump(step / 4)
    slope = (curve(step) - curve(-step)).abs().amax() / (2 * step)
    rounding = ROUNDED * seen.epsilon * centre.abs().amax() / step if seen.epsilon < COARSE else 0.0
    return bool((narrow > wide / 2) & (narrow > _VAGUE * slope + rounding))


def nothing(seen: Sketch) -> float:
    """What a derivative that is zero may look like, in units of func's numbers."""
    return max(ROUNDED * seen.epsilon, _NOTHING)


def near(answer: Tensor, own: Tensor, seen: Sketch, floor: float = 0.0, scale: float = CLOSE) -> bool:
    """The same but for rounding; never where one of them is not a number."""
    return bool((answer - own).abs().amax() <= max(scale, 16 * seen.epsilon) * own.abs().amax() + floor)
