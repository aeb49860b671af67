"""Derivatives by central differences, each entry with an estimate of its own error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

EPSILON = torch.finfo(torch.float64).eps
_KINK = 1e-5  # a jump of the slope above this share of the largest slope is a kink


class Estimate(NamedTuple):
    """A derivative and, entry by entry, how far it may be off; `kink` where the slope jumps at the point."""

    value: Tensor
    error: Tensor
    kink: Tensor


def slope_along(func: Callable[[Tensor], Tensor], axis: Tensor, start: float = 2**-3, ratio: float = 4.0) -> Estimate:
    """The slope of `func` at the origin along `axis`."""
    return slope(lambda t: func(t * axis), start, ratio)


def curvature_across(func: Callable[[Tensor], Tensor], u: Tensor, v: Tensor) -> Estimate:
    """The second derivative of `func` at the origin along `u` and `v`."""
    return mixed(lambda s, t: func(s * u + t * v))


def stacked(estimates: Sequence[Estimate]) -> Estimate:
    """Many as one, on a last axis of their own."""
    return Estimate(*(torch.stack(parts, -1) for parts in zip(*estimates, strict=True)))


def nan_outside(func: Callable[[Tensor], Tensor], like: Tensor) -> Callable[[Tensor], Tensor]:
    """`func`, with NaN in place of whatever it raises outside its domain."""

    def guarded(point: Tensor) -> Tensor:
        try:
            return func(point).detach()
        except Exception:
            return torch.full_like(like, math.nan)

    return guarded


def slope(curve: Callable[[float], Tensor], start: float = 2**-3, ratio: float = 4.0, steps: int = 10) -> Estimate:
    """The derivative of `curve` at 0, in at most `2 * steps + 1` evaluations; smooth curves need about half.

    NOTE kinks. Central differences of |t| at 0 agree on 0 with no error at all, so the two one-sided slopes are
    compared too: extrapolated, their gap falls like h cubed where the curve is smooth, and stays where it has a kink.
    """
    centre = curve(0.0)
    gaps: list[Tensor] = []

    def quotient(h: float) -> tuple[Tensor, Tensor]:
        ahead, behind = curve(h), curve(-h)
        gaps.append((ahead - 2 * centre + behind) / h)
        return (ahead - behind) / (2 * h), EPSILON * (ahead.abs() + behind.abs()) / h

    value, error = _extrapolate(quotient, start, ratio, steps)
    earlier, jump = (((ratio * narrow - wide) / (ratio - 1)).abs() for wide, narrow in (gaps[-3:-1], gaps[-2:]))
    noise = EPSILON * centre.abs() * ratio ** len(gaps) / start
    kink = (jump > _KINK * value.nan_to_num().abs().max() + 10 * (error + noise)) & (jump > earlier / 4)
    return Estimate(value, torch.where(kink, error + jump, error), kink)


def mixed(
    surface: Callable[[float, float], Tensor], start: float = 0.1, ratio: float = 2.0, steps: int = 14
) -> Estimate:
    """The derivative of `surface(s, t)` in s and in t at 0, from values alone, in at most `4 * steps` evaluations."""

    def quotient(h: float) -> tuple[Tensor, Tensor]:
        corners = torch.stack([surface(h, h), -surface(h, -h), -surface(-h, h), surface(-h, -h)])
        return corners.sum(0) / (4 * h * h), EPSILON * corners.abs().sum(0) / (h * h)

    value, error = _extrapolate(quotient, start, ratio, steps)
    return Estimate(value, error, torch.zeros_like(value, dtype=torch.bool))


def _extrapolate(
    quotient: Callable[[float], tuple[Tensor, Tensor]], start: float, ratio: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Richardson's limit of a quotient even in h; each entry keeps its estimate of the smallest error (Ridders)."""
    previous: list[Tensor] = []
    value = error = torch.empty(0)
    for step in range(steps):
        h = start / ratio**step
        first, noise = quotient(h)
        row = [first]
        for order, coarse in enumerate(previous, start=1):
            row.append(row[-1] + (row[-1] - coarse) / (ratio ** (2 * order) - 1))
        if not previous:
            value, error = first, torch.full_like(first, math.inf)
        for order in range(1, len(row)):
            spread = (
                torch.maximum((row[order] - row[order - 1]).abs(), (row[order] - previous[order - 1]).abs()) + noise
            )
            better = spread < error  # False for NaN: a step that leaves the domain counts for nothing
            value, error = torch.where(better, row[order], value), torch.where(better, spread, error)
        if step >= 3 and (error <= torch.maximum(1e-10 * value.abs().max(), 2 * noise)).all():
            break
        previous = row
    return value, error
