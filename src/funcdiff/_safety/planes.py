"""Is a recipe right that would need too many passes here: tried on a plane through the point."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import vmap

from funcdiff._safety.accusing import OUTSIDE, Check, Outcome, compared, compared_by_values
from funcdiff._safety.guard import with_right_gradient
from funcdiff._safety.halves import or_in_single
from funcdiff._safety.lines import (
    Curve,
    Func,
    Kept,
    Point,
    across,
    as_rows,
    direction,
    gradients,
    joined,
    largest,
    outputs_at,
    slopes,
)
from funcdiff._safety.meaning import by_hand, check_second, plain_product
from funcdiff._safety.verification import NO_VALUES, Kind, check
from funcdiff._torch.messages import cannot, reason
from funcdiff._torch.tape import Sketch

_FACTORS = (
    1.0,
    0.9,
    1.0,
    0.8,
)  # of the point, the rows under vmap: of torch's own operators two show what it gets wrong
_SIZES = (0.51, 1.03, 1.97)  # of moves to other points; 1 would lead from a single input to zero, where ties are common


def check_on_plane(
    recipe: Callable[[Func], Func], flat: Func, point: Point, kind: Kind, seen: Sketch, *, under_vmap: bool
) -> Check:
    """Hold a recipe against differences on a plane; under vmap, of different rows, those after the first.

    `recipe(func)(t)` is the derivative of func at a vector. It is given `flat` on a plane through the point, seen
    through two combinations of its outputs: a few passes, whatever the size of the problem.
    """
    if not any(x.numel() for x in point):
        return Check("agrees", 0.0)
    if point[0].is_meta:
        return NO_VALUES
    return _on_plane(recipe, flat, point, kind, seen, under_vmap)


def and_elsewhere(
    found: Check,
    recipe: Callable[[Func], Func],
    flat: Func,
    point: Point,
    kind: Kind,
    seen: Sketch,
    *,
    under_vmap: bool,
) -> Check:
    """`found` at the point, and what differences say at others of a recipe on code of the user's.

    A point may hide it: a factor is zero there, or the code takes a branch that has no fault.
    """
    if not by_hand(seen) or found.outcome == "wrong" or found.raised or point[0].is_meta:
        return found
    for seed, size in enumerate(_SIZES, 9):
        try:
            moves = [size * x.numel() ** 0.5 * v for x, v in zip(point, direction(point, seed), strict=True)]
            elsewhere = [x + v for x, v in zip(point, moves, strict=True)]
            again = _on_plane(recipe, flat, elsewhere, kind, seen, under_vmap)
        except OUTSIDE:
            continue
        if again.outcome == "wrong":
            return replace(again, reason=f"{again}, at another point")
        if found.outcome == "undecided" and again.outcome == "agrees":
            found = again
    return found


def _on_plane(
    recipe: Callable[[Func], Func], flat: Func, point: Point, kind: Kind, seen: Sketch, under_vmap: bool
) -> Check:
    plane = as_rows(direction(point, 2), direction(point, 3))
    factors = (1.0,) if not under_vmap else _FACTORS if by_hand(seen) else _FACTORS[:2]
    rows = [torch.stack([_beside(x, factor) for factor in factors]) for x in point]
    outputs = outputs_at(flat, [x[-1] for x in rows])
    # As many at once as func has: what torch gets wrong of one under vmap, it may get right of two, or not support.
    count = min(2, max(1, sum(y.numel() for y in outputs)))
    seen_through = across(flat, plane, as_rows(*[direction(outputs, seed) for seed in (4, 5)][:count]))

    def row(t: Tensor, *xs: Tensor) -> Tensor:
        result: Tensor = recipe(lambda t: seen_through(t, *xs))(t)
        return result

    origin = point[0].new_zeros(len(factors), 2)
    try:
        if under_vmap:
            results = list(vmap(row, randomness="same")(origin, *rows))
        else:
            results = [row(origin[0], *(x[0] for x in rows))]
    except Exception as error:  # raised again unless torch cannot do it in this way
        if not cannot(error):
            raise
        return Check("undecided", reason=f"it raises: {reason(error)}", raised=True)

    def judged(found: Tensor, *point: Tensor) -> Check:
        def restricted(t: Tensor) -> Tensor:
            return seen_through(t, *point)

        if kind in ("jacobian", "hessian"):
            verdict = check(restricted, [origin[0]], [found.detach()], kind, seen)
        else:
            verdict = _of_diagonal(found.detach(), restricted, origin[0], kind, seen)

        def again(single: Point, seen: Sketch) -> Check:
            return _on_plane(lambda _: lambda _: found.float(), flat, single, kind, seen, False)

        return or_in_single(verdict, [found], flat, point, seen, again)

    verdicts = map(judged, results[under_vmap:], *(x[under_vmap:] for x in rows))
    return together(list(verdicts))


def together(rows: Sequence[Check]) -> Check:
    """Of rows the first that is wrong, or else one that agrees: where a row shows nothing, another may."""
    order: list[Outcome] = ["wrong", "agrees", "undecided"]
    return min(rows, key=lambda check: order.index(check.outcome))


def first_not_agreeing(verdicts: Iterable[Check]) -> Check:
    """The first that is wrong, or else the first that is undecided, or else the last."""
    found = None
    for verdict in verdicts:
        if verdict.outcome == "wrong":
            return verdict
        if found is None or found.outcome == "agrees":
            found = verdict
    assert found is not None
    return found


def _beside(x: Tensor, factor: float) -> Tensor:
    """The tensor, or one near to it, each entry at another distance."""
    return (
        x
        if factor == 1
        else x * (factor + (1 - factor) * torch.linspace(0, 1, x.numel(), device="cpu").to(x).reshape(x.shape))
    )


def _of_diagonal(found: Tensor, restricted: Func, origin: Tensor, kind: Kind, seen: Sketch) -> Check:
    """Hold the diagonal of the Hessian of each output, or its sum, against differences of the gradient."""
    weights, axes = found.new_tensor([0.8, 0.6])[: len(found)], torch.eye(2, device="cpu").to(origin)
    line = with_right_gradient(restricted, seen.operators)
    answer = (weights @ found).reshape(-1)
    size = functools.partial(largest, line, [origin], [weights])

    def asked(columns: Callable[[int], Tensor]) -> Tensor:
        """The diagonal, or its sum, out of the columns of a Hessian."""
        entries = torch.stack([columns(k)[k] for k in (0, 1)])
        return entries if kind == "diagonal" else entries.sum()[None]

    def judge(func: Func, answer: Tensor) -> Check:
        lines = [kept if func is line else None, None]
        curves = [gradients(func, [origin], [axes[k]], [weights], lines[k]) for k in (0, 1)]
        return compared(answer, lambda t: asked(lambda k: curves[k](t)), seen, size)

    def own() -> Tensor:
        return asked(lambda k: joined(plain_product(line, [origin], [axes[k]], [weights])))

    def by_values(func: Func, answer: Tensor, accusing: bool = True) -> Check:
        def curve(h: float) -> Curve:
            lines = [slopes(func, [origin], [axes[k]], [weights], [[axis] for axis in axes], h) for k in (0, 1)]
            return lambda t: asked(lambda k: lines[k](t))

        return compared_by_values(answer, curve, seen, size, accusing=accusing)

    kept: Kept = {}
    return check_second(judge, answer, own, line, [origin], [axes[0]], seen, [weights], kept, by_values, size)
