"""What a sparse derivative does at arguments of a kind: its pattern, the passes, and how their result is checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from funcdiff._automatic import planning
from funcdiff._automatic.costs import FORMULAS
from funcdiff._automatic.planning import Plan
from funcdiff._calling.arguments import apart
from funcdiff._calling.options import Options
from funcdiff._calling.plain import plain_vjp
from funcdiff._calling.point import scalar
from funcdiff._calling.types import Derivative, Flat, Primals
from funcdiff._safety.guard import corrected
from funcdiff._sparse.colouring import Groups
from funcdiff._sparse.pattern import Pattern
from funcdiff._sparse.tracer import Traced, trace
from funcdiff._torch.messages import RefusedError, cannot
from funcdiff._torch.reading import reading
from funcdiff._torch.transforms import jvp, outside, plain_allowed, undrawn
from funcdiff._torch.trees import flatten, unflatten
from funcdiff.recipes import sparse
from funcdiff.recipes.products import curvature, gradient

Kind = Literal["jacobian", "hessian"]
NAMES = {
    "jacobian": ("jacobian_batched_grad", "jacobian_forward"),
    "hessian": ("hessian_double_backward", "hessian_forward_over_reverse"),
}


class ContradictedError(RefusedError):
    """A product with the whole function is not that with the matrix."""


@dataclass
class SparsePlan:
    """A pattern and how to compute its entries.

    Attributes:
        kind: Of the derivative.
        modes: The modes of differentiation that are right for the function, and what they cost; sketched once.
        pattern: The places of the entries.
        ways: The groups of columns and rows by which to compute them, the fastest first, with the mode of each.
        reads: Whether the function reads values, so that the pattern is that of the branch taken.
        doubt: Why every result is compared with a product, or nothing.
        unknown: Operations without a rule.
        item: The bytes of an entry.
        checked: How many results were compared.
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

    def values(self, flat: Flat, primals: Primals, options: Options, check: bool | None) -> Derivative:
        """The entries; and the aux, if there is one."""
        values, *aux = self._computed(flat, primals, options)
        if check or (check is None and (self.doubt or not self.checked or not plain_allowed())):
            values = self._agreeing(values, _value_of(flat, options), primals)
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
        if name == "one by one":
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
        while self.ways:
            name, groups = self.ways[0]
            try:
                return self._by(name, groups, flat, primals, options)
            except Exception as error:  # raised again unless torch cannot do it in this way
                if not cannot(error):
                    raise
                stopped = stopped or error
                del self.ways[0]
            if not self.ways and name in self.modes.usable and plain_allowed():
                self.ways = [("one by one", self.pattern.by_rows)]
        raise stopped or self.modes.refusal()

    def _by(self, name: str, groups: Groups, flat: Flat, primals: Primals, options: Options) -> Derivative:
        if name == "one by one":  # passes that vmap refuses
            options = dataclasses.replace(options, chunk_size=1)
        if self.kind == "jacobian":
            return sparse.jacobian_values(flat, primals, groups, options)
        function = corrected(_number(_value_of(flat, options), primals))
        aux = apart(flat(*primals), options.has_aux)[1:]
        values = sparse.hessian_values_forward if name == "hessian_forward_over_reverse" else sparse.hessian_values
        return values(function, primals, groups, options), *aux

    def _agreeing(self, values: Tensor, flat: Flat, primals: Primals) -> Tensor:
        """The entries, compared with one product along a random direction; inside a transform NaN where it differs."""
        wrong, where = self._contradiction(values, flat, primals)
        if not plain_allowed():
            return torch.where(wrong.any(), torch.full_like(values, float("nan")), values)
        if bool(wrong.any()):
            place = int(wrong.nonzero()[0])
            raise ContradictedError(
                f"the pattern lacks entries: in {where} {place}, {int(wrong.sum())} in all, a product with the whole "
                f"function differs from that with the matrix. {self._reason()}"
            )
        self.checked += 1
        return values

    def _reason(self) -> str:
        if self.doubt.startswith("pattern"):
            return f"Add them to pattern, or leave it out, so that {self.kind}_sparse finds it"
        return (
            "func may read values where torch does not see it (.tolist(), .numpy()), or have a derivative of its own "
            f"(a torch.autograd.Function). Pass pattern=..., or use funcdiff.{self.kind}"
        )

    def _contradiction(self, values: Tensor, flat: Flat, primals: Primals) -> tuple[Tensor, str]:
        """For each row, or column, whether the product differs by more than rounding."""
        name, groups = self.ways[0]
        along_rows = self.kind == "jacobian" and not groups.forward and groups.reverse > 0
        device = values.device
        rows, columns = (torch.from_numpy(x).to(device) for x in (self.pattern.rows, self.pattern.columns))
        if along_rows:
            output, pull = plain_vjp(flat, *primals, has_aux=False)
            along = _direction(flatten(output)[0], self.checked)
            product = pull(unflatten(along, flatten(output)[1]))
            rows, columns = columns, rows
        elif self.kind == "jacobian":
            along = _direction(primals, self.checked)
            product = flatten(jvp(flat, primals, tuple(along))[1])[0]
        else:
            along = _direction(primals, self.checked)
            function = corrected(_number(flat, primals))
            product = (
                curvature(function, primals)(tuple(along))
                if name != "hessian_forward_over_reverse"
                else jvp(gradient(function), primals, tuple(along))[1]
            )
        v, whole = (torch.cat([x.detach().reshape(-1) for x in parts]) for parts in (along, product))
        terms = values.detach() * v.to(values.dtype)[columns]
        zeros = torch.zeros_like(whole, dtype=values.dtype)
        ours, size = zeros.index_add(0, rows, terms), zeros.index_add(0, rows, terms.abs()) + whole.abs()
        # NOTE [rounding]. In a row, entries below the root of the precision may hide; in all, those far below it.
        epsilon = max(torch.finfo(values.dtype).eps, self.modes.sketch.epsilon)
        largest = size.nan_to_num(posinf=0.0).amax() if size.numel() else size.sum()
        wrong = (ours - whole).abs() > epsilon**0.5 * size + 1e3 * epsilon * largest
        wrong = wrong | (ours.isfinite() & ~whole.isfinite())
        return wrong, "column" if along_rows else "row"


def make(kind: Kind, flat: Flat, primals: Sequence[Tensor], options: Options, given: Pattern | None) -> SparsePlan:
    """Find the pattern, unless it is given, and the fewest passes."""
    function = _value_of(flat, options)
    if kind == "hessian":
        function = _number(function, primals)
    modes = planning.make(NAMES[kind], function, primals, randomness="error")
    sketch, reads = modes.sketch, modes.sketch.reads_values
    shape = (sketch.outputs if kind == "jacobian" else sketch.inputs), sketch.inputs
    if given is None:
        with reading() as read:
            found = _traced(kind, function, primals)
        reads = reads or read.seen
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
    if kind == "hessian":
        plan.ways = [(name, groups) for name in NAMES[kind] if name in usable for groups in pattern.ways]
        return plan
    ways = [(name, groups) for groups in pattern.ways if (name := _mode(groups)) and _needs(groups) <= usable]
    plan.ways = sorted(ways, key=lambda way: plan.seconds(*way))
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


def _value_of(flat: Flat, options: Options) -> Flat:
    return lambda *leaves: apart(flat(*leaves), options.has_aux)[0]


def _number(function: Flat, primals: Sequence[Tensor]) -> Any:
    return scalar(function, flatten(tuple(primals))[1])
