"""Is the first result of a plan right: along one random direction, held against differences of the function.

NOTE [accusing]. A derivative is called wrong only if differences of the function in two pairs of steps agree with each
other and not with it. The slopes on either side of the point must agree too: otherwise the function has a kink there.
A function that detaches part of itself means a constant: there the derivative may be what plain autograd computes. It
is not believed where NumPy read the numbers, where nothing depends on the input any more, or of second derivatives of
custom functions (see NOTE [constants]). There the gradient is held against differences as well.
One direction shows gross faults (zeros, missing terms, wrong rows). A few wrong entries of a large matrix may hide.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.func import vmap

from funcdiff._calling.plain import backward, tracked
from funcdiff._safety.guard import corrected
from funcdiff._torch.constants import constants, holding
from funcdiff._torch.messages import cannot, reason
from funcdiff._torch.processes import beside
from funcdiff._torch.tape import Sketch
from funcdiff._torch.transforms import undrawn
from funcdiff._torch.trees import Tree, flatten

_FAR = 0.1  # of the largest entry: nearer than this nothing is accused of torch's own operators
_CLOSE = 1e-3  # what agrees is nearer than this, or than _SURE times the error; other operators are accused from here
_CLOSEST = 1e-5  # ... and agree only up to here
_SURE = 8.0  # times the error of the differences
_VAGUE = 0.05  # of the largest entry: an error of the differences above this decides nothing
_COARSE = 1e-4  # an epsilon above which the rounding of func may hide a whole derivative
_ROUNDED = 32.0  # roundings of func's numbers that may be left of a derivative that is zero
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
_OUTSIDE = (ArithmeticError, AssertionError, RuntimeError, ValueError)  # what func may raise beyond its domain

Kind = Literal["jacobian", "hessian", "diagonal", "laplacian"]
Point = Sequence[Tensor]
Func = Callable[..., Tree]  # of the differentiated leaves, without aux
Map = Callable[[Point], Point]
Curve = Callable[[float], Tensor]  # along the direction, everything that func returns as one vector
Kept = dict[float, Tensor]  # values of func on a line
Judge = Callable[[Func, Tensor], "Check"]  # what differences of a function say of an answer


@dataclass(frozen=True)
class Check:
    """What a check found: `gap` is the largest difference, relative to the largest entry.

    `raised` says that the recipe could not be checked because it fails.
    """

    outcome: Literal["agrees", "wrong", "undecided"]
    gap: float = float("nan")
    reason: str = ""
    raised: bool = False

    def __str__(self) -> str:
        """As a plan tells it."""
        if self.outcome == "undecided":
            return f"not checked: {self.reason}"
        if self.reason:
            return self.reason
        verb = "agrees with" if self.outcome == "agrees" else "contradicts"
        return f"{verb} differences of func, {self.gap:.1g} apart"


_SAID = Check("agrees", 0.0, "agrees with differences in which what func holds constant stays as it is")
_DEFINED = Check("agrees", 0.0, "agrees with plain autograd, by which a custom function defines its derivative")
_OTHERWISE = Check(
    "wrong", float("nan"), "contradicts plain autograd, by which a custom function defines its derivative"
)
_NO_VALUES = Check("undecided", reason="meta tensors have no values")


def check(flat: Func, point: Point, derivative: Point, kind: Kind, seen: Sketch) -> Check:
    """Hold a Jacobian or a Hessian, its blocks in a row, against differences of `flat`."""
    if not derivative or not any(block.numel() for block in derivative):
        return Check("agrees", 0.0)
    if point[0].is_meta:
        return _NO_VALUES
    along, count = direction(point), len(point)
    if kind == "jacobian":
        answer = [_contracted(derivative[i : i + count], along) for i in range(0, len(derivative), count)]
        return _check_slope(flat, point, along, answer, seen)
    outputs = [derivative[i : i + count**2] for i in range(0, len(derivative), count**2)]
    shapes = [blocks[0].shape[: blocks[0].dim() - 2 * point[0].dim()] for blocks in outputs]
    weights = direction([derivative[0].new_zeros(shape) for shape in shapes], seed=1)
    answer = [torch.zeros_like(x, dtype=torch.float64) for x in point]
    for blocks, weight in zip(outputs, weights, strict=True):
        for i in range(count):
            slope = _contracted(blocks[i * count : (i + 1) * count], along)
            answer[i] = answer[i] + torch.tensordot(weight.double(), slope, weight.dim())
    return check_product(flat, point, along, weights, answer, seen)


def check_linear(flat: Func, point: Point, outputs: Point, push: Map, pull: Map, seen: Sketch) -> Check:
    """Hold Jv against differences of `flat`, and J^T u against Jv: u pairs with Jv as J^T u does with v."""
    if not any(x.numel() for x in point):
        return Check("agrees", 0.0)
    if point[0].is_meta:
        return _NO_VALUES
    along, cotangents = direction(point), direction(outputs, seed=6)
    answer = push(along)
    found = _check_slope(flat, point, along, answer, seen)
    if found.outcome == "wrong":
        return found
    own, theirs = joined(answer) * joined(cotangents), joined(pull(cotangents)) * joined(along)
    gap = (own.double().sum() - theirs.double().sum()).abs()
    scale = torch.maximum(own.abs().double().sum(), theirs.abs().double().sum())
    if bool(gap > max(_CLOSE, 16 * seen.epsilon) * scale) or not bool(gap.isfinite()):
        return Check("wrong", float(gap / scale), "its products with J and with J^T contradict each other")
    return found


def check_product(flat: Func, point: Point, along: Point, weights: Point, answer: Point, seen: Sketch) -> Check:
    """Hold the product of the weighted outputs' Hessian and `along` against differences of their gradient."""
    if point[0].is_meta:
        return _NO_VALUES

    def judge(func: Func, answer: Tensor) -> Check:
        own = kept if func is flat else None
        return compared(answer, gradients(func, point, along, weights, own), seen, size)

    def own() -> Tensor:
        return joined(_plainly(flat, point, along, weights))

    kept: Kept = {}
    size = functools.partial(_largest, flat, point, weights)
    return _second(judge, joined(answer), own, flat, point, along, seen, weights, kept)


def _check_slope(flat: Func, point: Point, along: Point, answer: Point, seen: Sketch) -> Check:
    """Hold the derivative of `flat` along a direction against differences."""
    if seen.foreign - _TRANSPARENT and (defined := _as_defined(flat, point, along, answer, seen)):
        return defined

    def judge(func: Func, answer: Tensor) -> Check:
        return compared(answer, values(func, point, along), seen)

    return _as_meant(judge, joined(answer), flat, point, along, seen)


def check_on_plane(
    recipe: Callable[[Func], Func], flat: Func, point: Point, kind: Kind, seen: Sketch, *, under_vmap: bool
) -> Check:
    """Hold a recipe against differences on a plane; under vmap, of two different rows, the second one.

    `recipe(func)(t)` is the derivative of func at a vector. It is given `flat` on a plane through the point, seen
    through two combinations of its outputs: a few passes, whatever the size of the problem.
    """
    if not any(x.numel() for x in point):
        return Check("agrees", 0.0)
    if point[0].is_meta:
        return _NO_VALUES
    found = _on_plane(recipe, flat, point, kind, seen, under_vmap)
    if not (under_vmap and seen.foreign) or found.outcome != "undecided" or found.raised:
        return found
    for seed in (9, 10):  # where the point shows nothing of a custom function, another may
        try:
            elsewhere = [x + v for x, v in zip(point, direction(point, seed), strict=True)]
            again = _on_plane(recipe, flat, elsewhere, kind, seen, under_vmap)
        except _OUTSIDE:
            continue
        if again.outcome != "undecided":
            return again
    return found


def _on_plane(
    recipe: Callable[[Func], Func], flat: Func, point: Point, kind: Kind, seen: Sketch, under_vmap: bool
) -> Check:
    plane = [direction(point, seed) for seed in (2, 3)]
    rows = [torch.stack([x, x * (0.9 + 0.1 * torch.linspace(0, 1, x.numel()).to(x).reshape(x.shape))]) for x in point]
    if not under_vmap:
        rows = [torch.stack([x, x]) for x in point]
    outputs = flatten(flat(*(x[1] for x in rows)))[0]
    # A number is not batched: some functions do not support a batch of outputs.
    count = 2 if under_vmap or sum(y.numel() for y in outputs) > 1 else 1
    mixture = [direction(outputs, seed) for seed in (4, 5)][:count]

    def seen_through(t: Tensor, *xs: Tensor) -> Tensor:
        moved = [x + t[0] * u + t[1] * v for x, u, v in zip(xs, *plane, strict=True)]
        ys = flatten(flat(*moved))[0]
        sums = [torch.stack([(w * y).sum() for w, y in zip(some, ys, strict=True)]).sum() for some in mixture]
        return torch.stack(sums)

    def row(t: Tensor, *xs: Tensor) -> Tensor:
        result: Tensor = recipe(lambda t: seen_through(t, *xs))(t)
        return result

    origin = point[0].new_zeros(2, 2)
    second = [x[1] for x in rows]
    try:
        found = vmap(row, randomness="same")(origin, *rows)[1] if under_vmap else row(origin[1], *second)
    except Exception as error:  # raised again unless torch cannot do it in this way
        if not cannot(error):
            raise
        return Check("undecided", reason=f"it raises: {reason(error)}", raised=True)

    def restricted(t: Tensor) -> Tensor:
        return seen_through(t, *second)

    if kind in ("jacobian", "hessian"):
        return check(restricted, [origin[1]], [found.detach()], kind, seen)
    weights, axes = found.new_tensor([0.8, 0.6])[:count], torch.eye(2).to(origin)
    answer = (weights @ found.detach()).reshape(-1)
    size = functools.partial(_largest, restricted, [origin[1]], [weights])

    def asked(columns: Callable[[int], Tensor]) -> Tensor:
        """The diagonal, or its sum, out of the columns of a Hessian."""
        entries = torch.stack([columns(k)[k] for k in (0, 1)])
        return entries if kind == "diagonal" else entries.sum()[None]

    def judge(func: Func, answer: Tensor) -> Check:
        lines = [kept if func is restricted else None, None]
        curves = [gradients(func, [origin[1]], [axes[k]], [weights], lines[k]) for k in (0, 1)]
        return compared(answer, lambda t: asked(lambda k: curves[k](t)), seen, size)

    def own() -> Tensor:
        return asked(lambda k: joined(_plainly(restricted, [origin[1]], [axes[k]], [weights])))

    kept: Kept = {}
    return _second(judge, answer, own, restricted, [origin[1]], [axes[0]], seen, [weights], kept)


def direction(like: Point, seed: int = 0) -> list[Tensor]:
    """A random direction of length 1 in units of the point's own size; the caller's generators stay as they are."""
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in like]
    length = float(torch.stack([part.square().sum() for part in parts]).sum().sqrt()) or 1.0
    scales = [max(1.0, _size(x)) / length for x in like]
    moves = [(part * s).to(dtype=x.dtype, device=x.device) for part, s, x in zip(parts, scales, like, strict=True)]
    return [beside(move, x) for move, x in zip(moves, like, strict=True)]


def values(flat: Func, point: Point, along: Point, kept: Kept | None = None) -> Curve:
    """The values of `flat` on the line through the point, those that are kept not computed again."""

    def curve(t: float) -> Tensor:
        if kept and t in kept:
            return kept[t]
        # func may take gradients of its own, also with respect to its argument itself
        return joined(flatten(tracked(flat, _moved(point, along, t)))[0])

    return curve


def gradients(flat: Func, point: Point, along: Point, cotangents: Point, kept: Kept | None = None) -> Curve:
    """The gradients of the outputs' sum, weighted by the cotangents, by plain autograd, on the line.

    The values come with them, and are kept where that is asked for.
    """

    def curve(t: float) -> Tensor:
        moved = _moved(point, along, t)
        outputs = flatten(tracked(flat, moved))[0]
        if kept is not None:
            kept[t] = joined(outputs)
        return joined(backward(outputs, moved, list(cotangents), create_graph=False))

    return curve


def compared(answer: Tensor, curve: Curve, seen: Sketch, size: Callable[[], float] = lambda: 0.0) -> Check:
    """Hold `answer` against the derivative of `curve` at 0.

    `size` is that of func's own numbers, whose rounding is no derivative; it is asked for before anything is accused.
    """
    step = seen.epsilon**0.25
    try:
        with undrawn():
            first, value = _judged(answer, curve, step, seen)
            if first.outcome != "wrong":
                return first
            floor = _ROUNDED * seen.epsilon * size()
            found = [_judged(answer, curve, h, seen, floor) for h in (step, step / 5)]
            if found[0][0].outcome == "agrees":
                return found[0][0]
            accused = all(check.outcome == "wrong" for check, _ in found)
            # What a custom function does between the steps is no excuse for it.
            rough = not seen.foreign and _rough(answer, curve, value, step, seen)
            if not accused or rough or _kink(curve, step) or _kink(curve, step / 5):
                return Check("undecided", first.gap, "differences of func do not converge here")
    except _OUTSIDE as error:
        return Check("undecided", reason=f"func raises near the point ({type(error).__name__})")
    return first


def joined(parts: Point) -> Tensor:
    """All entries as one vector, of at least float32."""
    parts = [part.detach().reshape(-1) for part in parts]
    return torch.cat([part if part.dtype == torch.float64 else part.float() for part in parts])


def _judged(answer: Tensor, curve: Curve, step: float, seen: Sketch, floor: float = 0.0) -> tuple[Check, Tensor]:
    """What differences with one step and with half of it say, and these differences."""
    ahead, behind = curve(step), curve(-step)
    near_ahead, near_behind = curve(step / 2), curve(-step / 2)
    wide, narrow = (ahead - behind) / (2 * step), (near_ahead - near_behind) / step
    value = (4 * narrow - wide) / 3
    noise = 8 * seen.epsilon * torch.maximum(ahead.abs(), near_ahead.abs()).amax() / step
    if not value.isfinite().all():
        return Check("undecided", reason="func is not finite near the point"), value
    error = (narrow - wide).abs() + noise + floor
    gap = (answer - value).abs()
    scale = torch.maximum(value.abs().amax(), answer.nan_to_num().abs().amax())
    vague = error > _VAGUE * scale
    if seen.foreign and bool(scale <= error.amax()):
        return Check("undecided", reason="its derivative is zero here, which shows nothing"), value
    if bool((gap <= error).all()) and not (seen.epsilon > _COARSE and vague.any()):  # all zero, or nearly
        return Check("agrees", float(gap.amax() / scale) if scale > error.amax() else 0.0), value
    far = (gap > (_CLOSE if seen.foreign else _FAR) * scale) & (gap > _SURE * error) | ~answer.isfinite()
    if bool((far & ~vague).any()):
        return Check("wrong", float(gap.nan_to_num(float("inf")).amax() / scale)), value
    if bool(vague.any()):
        return Check("undecided", reason="differences of func do not converge here"), value
    apart = float(gap.amax() / scale)
    close = _CLOSEST if seen.foreign else _CLOSE
    if bool((gap > torch.maximum(_SURE * error, close * scale)).any()):  # a term may be missing
        return Check("undecided", apart, f"{apart:.1g} from differences of func, too little to say"), value
    return Check("agrees", apart), value


def _rough(answer: Tensor, curve: Curve, value: Tensor, step: float, seen: Sketch) -> bool:
    """Whether shorter steps, down to where rounding hides everything, say otherwise than these differences do.

    A gradient near a minimum is small because terms cancel: its size does not tell their rounding.
    """
    scale = torch.maximum(value.abs().amax(), answer.nan_to_num().abs().amax())
    while True:
        ahead, behind = curve(step), curve(-step)
        noise = 8 * seen.epsilon * ahead.abs().amax() / step
        cancelled = step < seen.epsilon**0.8 and ahead.abs().amax() < _FAR * scale
        if not noise < _FAR / 10 * scale or cancelled:  # rounding is more than its least
            return False
        if bool(((ahead - behind) / (2 * step) - value).abs().amax() > noise + _VAGUE * scale):
            return True
        step /= 7.3  # of no whole number, so that no oscillation looks the same at every step


def _kink(curve: Curve, step: float) -> bool:
    """Whether the slopes on either side of the point differ, however small the step."""
    centre = curve(0.0)

    def jump(h: float) -> Tensor:
        return (curve(h) - 2 * centre + curve(-h)).abs().amax() / h

    wide, narrow = jump(step), jump(step / 4)
    slope = (curve(step) - curve(-step)).abs().amax() / (2 * step)
    return bool((narrow > wide / 2) & (narrow > _VAGUE * slope))


def _second(
    judge: Judge,
    answer: Tensor,
    own: Callable[[], Tensor],
    flat: Func,
    point: Point,
    along: Point,
    seen: Sketch,
    weights: Point,
    kept: Kept,
) -> Check:
    """What is found of a second derivative, `own` being that by plain autograd."""
    found = _as_meant(judge, answer, flat, point, along, seen, weights)
    if found.outcome != "wrong":
        found = _unless_cut(found, flat, point, along, weights, seen, kept)
    if found.outcome == "wrong" or not found.gap > 0 or not seen.foreign - _TRANSPARENT:
        return found
    try:
        plain = own()
        if _near(answer, plain, seen, scale=max(_CLOSEST, seen.epsilon**0.5)):
            return found
        other = judge(flat, plain)
    except _OUTSIDE:
        return found
    if other.gap < found.gap / 2:  # a term that forward mode misses may be smaller than the error of differences
        return replace(_OTHERWISE, gap=found.gap)
    return found if found.gap < other.gap / 2 else Check("undecided", found.gap, "plain autograd says otherwise")


def _as_meant(
    judge: Judge, answer: Tensor, flat: Func, point: Point, along: Point, seen: Sketch, weights: Point | None = None
) -> Check:
    """What `judge` finds of `flat`; where that is wrong, of `flat` with all that it holds constant kept as it is here.

    Without `weights` it is about a first derivative.
    """
    found = judge(flat, answer)
    if found.outcome != "wrong":
        return found
    here = _moved(point, along, 0.0)
    try:
        held = constants(lambda: tracked(flat, here))
        if held.lost or (held.found and weights is None and not answer.any()):
            return _lost(found)
        if not held.meant:
            return found
        kept = judge(holding(flat, here), answer)
        return kept if kept.outcome == "undecided" else _believed(kept, found, flat, point, along, weights, seen)
    except _OUTSIDE:
        return found


def _believed(
    kept: Check, found: Check, flat: Func, point: Point, along: Point, weights: Point | None, seen: Sketch
) -> Check:
    """What is found of constants that are meant, unless func contradicts itself.

    The last step of a solver after detach() has the right gradient, and the wrong second derivative.
    """
    if kept.outcome == "wrong":
        return found
    cotangents = direction(flatten(flat(*_moved(point, along, 0.0)))[0], seed=8)
    fresh = _moved(point, along, _elsewhere.uniform(0.3, 0.4) * seen.epsilon**0.25)  # where func has never been
    once, again = (gradients(flat, fresh, along, cotangents)(0.0) for _ in range(2))
    if not _near(again, once, seen):
        return replace(found, reason=f"{found}: func returns tensors that it made in another call")
    if weights is not None:
        outcomes = [_first(flat, point, along, weights, seen, scale=scale).outcome for scale in (0.0, 1.0)]
        if outcomes == ["wrong", "agrees"]:  # a gradient that is zero agrees with anything
            return replace(found, reason=f"{found}, though the gradient agrees: detaching is right only once")
    return _SAID


def _first(
    flat: Func,
    point: Point,
    along: Point,
    weights: Point,
    seen: Sketch,
    *,
    scale: float = 1.0,
    kept: Kept | None = None,
) -> Check:
    """The gradient of the weighted outputs' sum by plain autograd, times `scale`, held against differences of func."""
    slope = scale * (gradients(flat, point, along, weights)(0.0) * joined(along)).sum()[None]
    curve = values(flat, point, along, kept)
    return compared(slope, lambda t: (curve(t) * joined(weights)).sum()[None], seen)


def _as_defined(flat: Func, point: Point, along: Point, answer: Point, seen: Sketch) -> Check | None:
    """What plain autograd says of a Jacobian, if it has one: a custom function defines its first derivative by it.

    So does a straight-through estimator, whose differences are zero. A second derivative is only known from differences
    of the first.
    """
    try:
        same = _pulled_back(flat, point, along, answer, seen)
    except _OUTSIDE:
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
    here = _moved(point, along, 0.0)
    outputs: list[Tensor] = []
    try:
        held = constants(lambda: outputs.extend(flatten(tracked(flat, here))[0]))
        cut = held.lost or not any(y.requires_grad for y in outputs)
        designed = seen.operators & _BY_DESIGN or seen.foreign - _TRANSPARENT
        if not cut and (held.found or designed):
            return found
        first = _first(corrected(flat), point, along, weights, seen, kept=kept)
    except _OUTSIDE:  # as the differences of the gradient, which are then undecided
        return found
    if first.outcome != "wrong":
        return found
    return _lost(first) if cut else replace(first, reason=f"the gradient {first}: does a hook change it?")


def _lost(found: Check) -> Check:
    """That a derivative is wrong since func leaves torch, or a graph, on its way."""
    return replace(
        found,
        reason=f"contradicts differences of func, {found.gap:.1g} apart: NumPy on a detached "
        "tensor, a gradient without create_graph=True, or detaching the whole result cuts it off",
    )


def _pulled_back(flat: Func, point: Point, along: Point, answer: Point, seen: Sketch) -> bool:
    """Whether J v pairs with two cotangents u as it does by plain autograd, as (u J) v: one derivative suffices."""
    moved = _moved(point, along, 0.0)
    outputs = flatten(tracked(flat, moved))[0]
    pairings = []
    for seed in (6, 7):
        cotangents = direction(outputs, seed)
        pulled = backward(outputs, moved, cotangents, create_graph=False)
        pairings.append([(joined(u) * joined(v)).sum() for u, v in ((cotangents, answer), (pulled, along))])
    answers, own = torch.tensor(pairings, dtype=torch.float64).T
    floor = _ROUNDED * seen.epsilon * max((float(y.detach().abs().amax()) for y in outputs if y.numel()), default=0.0)
    return _near(answers, own, seen, floor)


def _plainly(flat: Func, point: Point, along: Point, weights: Point) -> Point:
    """The product of the weighted outputs' Hessian and the direction by plain reverse mode alone."""
    moved = _moved(point, along, 0.0)
    slope = backward(flatten(tracked(flat, moved))[0], moved, list(weights), create_graph=True)
    return backward(slope, moved, list(along), create_graph=False)


def _near(answer: Tensor, own: Tensor, seen: Sketch, floor: float = 0.0, scale: float = _CLOSE) -> bool:
    """The same but for rounding; never where one of them is not a number."""
    return bool((answer - own).abs().amax() <= max(scale, 16 * seen.epsilon) * own.abs().amax() + floor)


def _contracted(row: Point, along: Point) -> Tensor:
    pairs = zip(row, along, strict=True)
    terms = [torch.tensordot(block.detach(), v.to(block.dtype), v.dim()).double() for block, v in pairs]
    return torch.stack(terms).sum(0)


def _moved(point: Point, along: Point, t: float) -> list[Tensor]:
    return [(x.detach() + t * v).detach() for x, v in zip(point, along, strict=True)]


def _largest(flat: Func, point: Point, weights: Point) -> float:
    """The largest of the numbers that `flat` returns, weighted."""
    outputs = flatten(flat(*_moved(point, point, 0.0)))[0]
    return max(float((w * y.detach()).abs().amax()) for w, y in zip(weights, outputs, strict=True) if y.numel())


def _size(x: Tensor) -> float:
    return float(x.detach().double().square().mean().sqrt()) if x.numel() and not x.is_meta else 0.0
