"""What a sparse derivative does at arguments of a kind: its pattern, the passes, and how their result is checked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from funcdiff._automatic import planning, sparse_masked
from funcdiff._automatic.candidates import HESSIANS
from funcdiff._automatic.costs import FORMULAS
from funcdiff._automatic.planning import Plan
from funcdiff._calling.arguments import apart
from funcdiff._calling.options import Options
from funcdiff._calling.plain import plain_vjp
from funcdiff._calling.point import scalar
from funcdiff._calling.types import Derivative, Flat, Primals
from funcdiff._safety.accusing import Check
from funcdiff._safety.guard import corrected
from funcdiff._safety.lines import direction
from funcdiff._safety.meaning import by_hand, check_slope
from funcdiff._safety.planes import and_elsewhere
from funcdiff._safety.verification import check_product
from funcdiff._sparse.colouring import Groups
from funcdiff._sparse.pattern import Pattern
from funcdiff._sparse.tracer import Traced, trace
from funcdiff._torch.messages import RefusedError, cannot, reason
from funcdiff._torch.reading import reading
from funcdiff._torch.tensors import all_finite
from funcdiff._torch.tracing import being_traced
from funcdiff._torch.transforms import jvp, outside, plain_allowed, undrawn
from funcdiff._torch.trees import flatten, unflatten
from funcdiff.recipes import sparse
from funcdiff.recipes.products import curvature, gradient

Kind = Literal["jacobian", "hessian"]
NAMES = {
    "jacobian": ("jacobian_batched_grad", "jacobian_forward"),
    "hessian": ("hessian_double_backward", "hessian_forward_over_reverse"),
}


_CACHE = 2**20  # bytes that a core keeps at hand
_PROBES = 12  # of rounding, in doubt
_REVERSE, _ALONE = "reverse passes", "reverse passes, one by one"


class ContradictedError(RefusedError):
    """A product with the whole function is not that with the matrix."""


@dataclass
class SparsePlan:
    """A pattern and how to compute its entries.

    Attributes:
        kind: "jacobian" or "hessian".
        modes: The modes of differentiation that are right for the function, and what they cost; sketched once.
        pattern: The places of the entries.
        ways: The groups of columns and rows by which to compute them, the fastest first, with the mode of each.
        reads: Whether the function reads values, so that the pattern is that of the branch taken.
        doubt: Why every result is compared with a product, or nothing.
        unknown: Operations without a rule.
        item: The bytes of an entry.
        checked: How many results were compared.
        chunk: How many passes a budget allows at once.
    """

    kind: Kind
    modes: Plan
    pattern: Pattern
    ways: list[tuple[str, Groups]]
    reads: bool = False
    doubt: str = ""
    unknown: frozenset[str] = frozenset()
    item: int = 8
    checked: int = 0
    chunk: int | None = None

    @property
    def together(self) -> int:
        """The most passes of one mode, which are computed at once unless in chunks."""
        return max(1, *(max(groups.forward, groups.reverse) for _, groups in self.ways))

    def values(self, flat: Flat, primals: Primals, options: Options, check: bool | None) -> Derivative:
        """The entries; and the aux, if there is one."""
        values, *aux = self._computed(flat, primals, options)
        readable = plain_allowed() and not being_traced()
        if check is not False and self.modes.watched and readable and not all_finite(values):
            return self._finite(values, flat, primals, options), *aux
        if check or (check is None and (self.doubt or not self.checked or not plain_allowed())):
            function, first = _value_of(flat, options), not self.checked
            values = self._agreeing(values, function, primals)
            if first and readable:
                self._refuse(self._judged(values, function, primals))
        return values, *aux

    def matrix(self, values: Tensor, layout: torch.layout | None) -> Tensor:
        """The entries in that layout."""
        if layout is None:
            return values
        if layout is torch.strided:
            return self.pattern.to_dense(values)
        matrix = self.pattern.to_csr(values)
        return matrix if layout is torch.sparse_csr else matrix.to_sparse()

    def seconds(self, name: str, groups: Groups) -> float:
        """The time predicted: that of the dense recipe for as many inputs, or outputs, as there are passes."""
        sketch, cost = self.modes.sketch, 0.0
        if name == _ALONE:
            single = dataclasses.replace(sketch, outputs=1)
            return groups.passes * FORMULAS["jacobian_batched_grad"].cost(single).seconds
        if self.kind == "hessian":
            return FORMULAS[name].cost(dataclasses.replace(sketch, inputs=groups.forward)).seconds
        if groups.forward:
            cost += FORMULAS["jacobian_forward"].cost(dataclasses.replace(sketch, inputs=groups.forward)).seconds
        if groups.reverse:
            cost += FORMULAS["jacobian_batched_grad"].cost(dataclasses.replace(sketch, outputs=groups.reverse)).seconds
        return cost

    def _computed(self, flat: Flat, primals: Primals, options: Options) -> Derivative:
        stopped: Exception | None = None
        modes, ways = self.modes, self.ways[:]
        while self.ways:
            name, groups = self.ways[0]
            try:
                return self._by(name, groups, flat, primals, options)
            except Exception as error:  # raised again unless torch cannot do it in this way
                if not cannot(error):
                    raise
                stopped = stopped or error
                modes = modes.without(name if name in NAMES[self.kind] else NAMES[self.kind][0], reason(error))
                del self.ways[0]
            if not self.ways and name != _ALONE and NAMES[self.kind][0] in self.modes.usable:
                # Reverse mode by itself, and then without vmap.
                last = self.kind == "hessian" or name == _REVERSE
                self.ways = [(_ALONE if last else _REVERSE, self.pattern.by_rows)]
        self.ways = ways  # to be refused alike at the next call
        if all(name in self.modes.usable for name in NAMES[self.kind]) and stopped:
            raise stopped
        raise RefusedError(
            f"{self.kind}_sparse differentiates func in no mode ({modes.obstacles}). Use funcdiff.{self.kind}, which "
            "has other methods"
        ) from stopped

    def _by(self, name: str, groups: Groups, flat: Flat, primals: Primals, options: Options) -> Derivative:
        chunk = 1 if name == _ALONE else options.chunk_size or self.chunk or self._cached(name, groups, primals)
        options = dataclasses.replace(options, chunk_size=chunk)
        if self.kind == "jacobian":
            return sparse.jacobian_values(flat, primals, groups, options)
        function = corrected(_number(_value_of(flat, options), primals))
        aux = apart(flat(*primals), options.has_aux)[1:]
        values = sparse.hessian_values_forward if name == "hessian_forward_over_reverse" else sparse.hessian_values
        return values(function, primals, groups, options), *aux

    def _finite(self, values: Tensor, flat: Flat, primals: Primals, options: Options) -> Tensor:
        """See `sparse_masked`."""
        function = _value_of(flat, options)

        def by(name: str, groups: Groups) -> Tensor:
            found: Tensor = self._by(name, groups, flat, primals, options)[0]
            return found

        judge = functools.partial(self._judged, function=function, primals=primals)
        asked = function if self.kind == "jacobian" else _number(function, primals)
        return sparse_masked.finite(values, self.kind, self.pattern, asked, primals, by, judge, self._refuse)

    def _cached(self, name: str, groups: Groups, primals: Primals) -> int | None:
        """How many passes to compute at once where all may be: on a CPU those whose vectors its cache holds.

        Each chunk in forward mode computes the function again, so it has at least four passes.
        """
        if primals[0].device.type != "cpu" or not plain_allowed() or being_traced():
            return None
        fewest = 4 if "forward" in name and groups.forward else 1
        return max(fewest, _CACHE // (max(1, *self.pattern.shape) * self.item))

    def _agreeing(self, values: Tensor, flat: Flat, primals: Primals) -> Tensor:
        """The entries, compared with one product along a random direction; NaN where no error can be raised."""
        product, like, by_columns = self._product(flat, primals)
        along = _direction(like, self.checked)
        whole, ours, size = product(along), *self._products(values.detach(), along, by_columns)
        # NOTE [rounding]. In a row, entries below the root of the precision may hide; in all, those far below it.
        epsilon = max(torch.finfo(values.dtype).eps, self.modes.sketch.epsilon)
        size = size + whole.abs()
        largest = size.nan_to_num(posinf=0.0).amax() if size.numel() else size.sum()
        wrong = (ours - whole).abs() > epsilon**0.5 * size + 1e3 * epsilon * largest
        wrong = wrong | (ours.isfinite() & ~whole.isfinite())
        if not plain_allowed() or being_traced():
            return torch.where(wrong.any(), torch.full_like(values, float("nan")), values)
        if bool(wrong.any()):
            # Where terms cancel, all may be rounding: a product with a sum is then not the sum of the products, but for
            # chance, so that several are tried.
            for probe in range(1, _PROBES + 1):
                other = _direction(like, self.checked + probe)
                both = product([v + w for v, w in zip(along, other, strict=True)])
                wrong = wrong & ~((ours - whole).abs() <= 100 * (both - whole - product(other)).abs())
                if not wrong.any():
                    break
        if bool(wrong.any()):
            where, place = "column" if by_columns else "row", int(wrong.nonzero()[0])
            raise ContradictedError(
                f"the pattern lacks entries in {int(wrong.sum())} {where}(s), first in {where} {place}: the matrix "
                f"times a random vector differs from the derivative of func along it. {self._reason()}"
            )
        self.checked += 1
        return values

    def _judged(self, values: Tensor, function: Flat, primals: Primals) -> Check:
        """Hold the matrix against differences of the function, as all that torch says of it may be wrong."""
        along = direction(primals)
        product = self._products(values.detach(), along, by_columns=False)[0]
        if self.kind == "jacobian":
            return check_slope(function, primals, along, [product], self.modes.sketch)
        weights = direction([primals[0].new_zeros(())], seed=1)
        number, seen = _number(function, primals), self.modes.sketch
        found = check_product(number, primals, along, weights, [weights[0] * product], seen)
        recipe = HESSIANS["hessian_double_backward"]
        return and_elsewhere(found, recipe, number, primals, "hessian", seen, under_vmap=False)

    def _refuse(self, found: Check) -> None:
        if found.outcome == "wrong":
            self.checked = 0
            raise RefusedError(
                f"{self.kind}_sparse is wrong on func ({found}). Use funcdiff.{self.kind}, which tries other methods, "
                "or pass check=False if you mean the derivative that torch gives"
            )

    def _reason(self) -> str:
        if self.doubt.startswith("pattern"):
            return f"Add them to pattern, or leave it out, so that {self.kind}_sparse finds it"
        return (
            "func may read values where torch does not see it (.tolist(), .numpy()), or have a derivative of its own "
            f"(a torch.autograd.Function). Pass pattern=..., or use funcdiff.{self.kind}"
        )

    def _product(self, flat: Flat, primals: Primals) -> tuple[Callable[..., Tensor], Sequence[Tensor], bool]:
        """The product with the whole function by the mode that is used, what it takes, and whether it is of columns."""
        name, groups = self.ways[0]
        if self.kind == "hessian":
            function = corrected(_number(flat, primals))
            if name == "hessian_forward_over_reverse":
                return lambda v: _vector(jvp(gradient(function), primals, tuple(v))[1]), primals, False
            apply = curvature(function, primals)
            return lambda v: _vector(apply(tuple(v))), primals, False
        if groups.forward or not groups.reverse:
            return lambda v: _vector(flatten(jvp(flat, primals, tuple(v))[1])[0]), primals, False
        output, pull = plain_vjp(flat, *primals, has_aux=False)
        outputs, spec = flatten(output)
        return lambda u: _vector(pull(unflatten(u, spec))), outputs, True

    def _products(self, values: Tensor, along: Sequence[Tensor], by_columns: bool) -> tuple[Tensor, Tensor]:
        """The product with the matrix, or the transposed one; and the same of absolute values."""
        rows, columns = (torch.from_numpy(x).to(values.device) for x in (self.pattern.rows, self.pattern.columns))
        to, from_ = (columns, rows) if by_columns else (rows, columns)
        terms = values * _vector(along).to(values.dtype)[from_]
        zeros = values.new_zeros(self.pattern.shape[1 if by_columns else 0])
        return zeros.index_add(0, to, terms), zeros.index_add(0, to, terms.abs())


def make(kind: Kind, flat: Flat, primals: Sequence[Tensor], options: Options, given: Pattern | None) -> SparsePlan:
    """Find the pattern, unless it is given, and the fewest passes."""
    function = _value_of(flat, options)
    if kind == "hessian":
        function = _number(function, primals)
    modes = planning.make(NAMES[kind], function, primals, randomness="error")
    sketch, reads = modes.sketch, modes.sketch.reads_values
    shape = (sketch.outputs if kind == "jacobian" else sketch.inputs), sketch.inputs
    if given is None:
        # A gradient may read what its function does not.
        with reading() if kind == "hessian" else nullcontext() as read:
            found = _traced(kind, function, primals)
        reads = reads or (read is not None and read.seen)
        pattern = found.pattern.only_mutual() if kind == "hessian" else found.pattern
        doubt = f"the pattern depends on values used by {', '.join(sorted(found.values))}" if found.values else ""
        doubt = "the pattern is that of the branch taken" if reads else doubt
        pattern.note = doubt
    else:
        if given.shape != shape:
            raise ValueError(f"expected a pattern of shape {shape}, got {given.shape}")
        pattern = given.only_mutual() if kind == "hessian" else given
        found, doubt = Traced(pattern), "pattern was given"
    plan = SparsePlan(kind, modes, pattern, [], reads, doubt, found.unknown, primals[0].element_size())
    usable = set(modes.usable)
    if by_hand(sketch) and NAMES[kind][0] in usable:
        usable = {NAMES[kind][0]}  # which is how code of the user's defines its derivative
    if kind == "hessian":
        plan.ways = [(name, groups) for name in NAMES[kind] if name in usable for groups in pattern.ways]
        return plan
    ways = [(name, groups) for groups in pattern.ways if (name := _mode(groups)) and _needs(groups) <= usable]
    plan.ways = sorted(ways, key=lambda way: plan.seconds(*way))
    if not plan.ways and NAMES[kind][0] in usable:
        plan.ways = [(_REVERSE, pattern.by_rows)]
    if not plan.ways:
        raise modes.refusal()
    return plan


def _mode(groups: Groups) -> str:
    return "jacobian_forward" if groups.forward else "jacobian_batched_grad"


def _needs(groups: Groups) -> set[str]:
    return {
        name
        for name, count in (("jacobian_forward", groups.forward), ("jacobian_batched_grad", groups.reverse))
        if count
    }


def _traced(kind: Kind, function: Flat, primals: Sequence[Tensor]) -> Traced:
    with outside(), undrawn():
        leaves = [x.detach().clone().requires_grad_() for x in primals]
        if kind == "jacobian":
            return trace(function, leaves)
        return trace(lambda *xs: _gradient(function, xs), leaves)


def _gradient(function: Flat, xs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    output = function(*xs)
    found = (
        torch.autograd.grad(output, xs, create_graph=True, allow_unused=True)
        if output.requires_grad
        else [None] * len(xs)
    )
    return tuple(torch.zeros_like(x) if slope is None else slope for slope, x in zip(found, xs, strict=True))


def _direction(like: Sequence[Tensor], seed: int) -> list[Tensor]:
    """A random vector, also inside a transform that refuses torch's random numbers."""
    numbers = np.random.default_rng(seed)
    return [torch.from_numpy(np.asarray(numbers.standard_normal(tuple(x.shape)))).to(x) for x in like]


def _vector(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([x.detach().reshape(-1) for x in parts])


def _value_of(flat: Flat, options: Options) -> Flat:
    return lambda *leaves: apart(flat(*leaves), options.has_aux)[0]


def _number(function: Flat, primals: Sequence[Tensor]) -> Any:
    return scalar(function, flatten(tuple(primals))[1])
