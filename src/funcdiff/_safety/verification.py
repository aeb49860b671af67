"""Is the first result of a plan right: along one random direction, held against differences of the function.

One direction shows gross faults (zeros, missing terms, wrong rows). A few wrong entries of a large matrix may hide.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from funcdiff._safety.accusing import CLOSE, Check, compared, compared_by_values
from funcdiff._safety.guard import with_right_gradient
from funcdiff._safety.halves import in_single, or_in_single
from funcdiff._safety.lines import Func, Kept, Point, direction, gradients, joined, largest, slopes
from funcdiff._safety.meaning import check_second, check_slope, plain_product
from funcdiff._torch.tape import Sketch

Kind = Literal["jacobian", "hessian", "diagonal", "laplacian"]
Map = Callable[[Point], Point]
NO_VALUES = Check("undecided", reason="meta tensors have no values")


def check(flat: Func, point: Point, derivative: Point, kind: Kind, seen: Sketch) -> Check:
    """Hold a Jacobian or a Hessian, its blocks in a row, against differences of `flat`."""
    if not derivative or not any(block.numel() for block in derivative):
        return Check("agrees", 0.0)
    if point[0].is_meta:
        return NO_VALUES
    along, count = direction(point), len(point)
    if kind == "jacobian":
        answer = [_contracted(derivative[i : i + count], along) for i in range(0, len(derivative), count)]
        found = check_slope(flat, point, along, answer, seen)

        def again(single: Point, seen: Sketch) -> Check:
            return check_slope(flat, single, in_single(along), in_single(answer), seen)

        return or_in_single(found, answer, flat, point, seen, again)
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
        return NO_VALUES
    along, cotangents = direction(point), direction(outputs, seed=6)
    answer = push(along)
    found = check_slope(flat, point, along, answer, seen)
    if found.outcome == "wrong":
        return found
    own, theirs = joined(answer) * joined(cotangents), joined(pull(cotangents)) * joined(along)
    gap = (own.double().sum() - theirs.double().sum()).abs()
    scale = torch.maximum(own.abs().double().sum(), theirs.abs().double().sum())
    if bool(gap > max(CLOSE, 16 * seen.epsilon) * scale) or not bool(gap.isfinite()):
        return Check("wrong", float(gap / scale), "its products with J and with J^T contradict each other")
    return found


def check_product(flat: Func, point: Point, along: Point, weights: Point, answer: Point, seen: Sketch) -> Check:
    """Hold the product of the weighted outputs' Hessian and `along` against differences of their gradient."""
    if point[0].is_meta:
        return NO_VALUES
    flat = with_right_gradient(flat, seen.operators)

    def judge(func: Func, answer: Tensor) -> Check:
        own = kept if func is flat else None
        found = compared(answer, gradients(func, point, along, weights, own), seen, size)
        return replace(found, of="the gradient") if found.outcome == "agrees" else found

    def own() -> Tensor:
        return joined(plain_product(flat, point, along, weights))

    def by_values(func: Func, answer: Tensor, accusing: bool = True) -> Check:
        axes = [direction(point, seed) for seed in (2, 3)]
        projected = torch.stack([(joined(axis).double() * answer).sum() for axis in axes])
        curve = functools.partial(slopes, func, point, along, weights, axes)
        return compared_by_values(projected, curve, seen, size, accusing=accusing)

    kept: Kept = {}
    size = functools.partial(largest, flat, point, weights)
    found = check_second(judge, joined(answer), own, flat, point, along, seen, weights, kept, by_values, size)

    def again(single: Point, seen: Sketch) -> Check:
        return check_product(flat, single, in_single(along), in_single(weights), in_single(answer), seen)

    return or_in_single(found, answer, flat, point, seen, again)


def _contracted(row: Point, along: Point) -> Tensor:
    pairs = zip(row, along, strict=True)
    return torch.stack([_product(block.detach(), v.to(block.dtype)).double() for block, v in pairs]).sum(0)


def _product(block: Tensor, v: Tensor) -> Tensor:
    """The sum over the last axes; a matrix product would copy a block whose rows lie apart, far slower."""
    if block.is_contiguous() or not v.dim():
        product: Tensor = torch.tensordot(block, v, v.dim())
        return product
    return (block * v).sum([*range(-v.dim(), 0)])
