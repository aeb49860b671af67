"""Verdicts on derivatives: each mode's answer against differences, each accusation confirmed a second way."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from funcdiff._safety.differences import Estimate, curvature_across, nan_outside, slope_along, stacked
from funcdiff._safety.modes import Function, Modes
from funcdiff._safety.verdicts import Gap, Outcome, Verdict, contradicts

_WITNESSES = 3  # attempts to confirm a wrong: a witness may stumble over a kink
_CONTESTED = "one set of differences contradicts it, another decides nothing"
_SIMPLEST = ("hessian_reverse_over_reverse", "hessian_double_backward", "hessian", "hessian_forward_over_reverse")
_FASTEST = ("jacobian_reverse", "jacobian_forward", "jacobian_batched_grad", "jacobian_loop")


@dataclass(frozen=True)
class _Question:
    """What a mode is asked, what differences say, and other differences with the part of an answer that they see."""

    answer: Callable[[], Tensor]
    reference: Estimate
    witness: Callable[[], tuple[Estimate, Callable[[Tensor], Tensor]]]
    terms: float = 1.0  # how many derivatives an entry adds up

    def confirms(self, answer: Tensor, floor: float) -> bool:
        """Whether the witness contradicts the answer and sides with the reference."""
        estimate, seen = self.witness()
        return contradicts(estimate, seen(answer), seen(self.reference.value), floor)


class Examination:
    """`func`, from float64 vectors of `size` to vectors, at the origin: which modes find its derivatives there.

    The Jacobian is judged by differences of the values; the Hessian by differences of a Jacobian that was right, or of
    the values where none was. An answer that disagrees is called wrong only if differences of the values along other
    directions, with other steps, contradict it and agree with the reference, or another mode agrees with the reference.
    The directions drawn depend on the mode alone: what is found does not depend on which other modes are judged.
    """

    def __init__(
        self,
        func: Function,
        size: int,
        device: torch.device | str = "cpu",
        *,
        modes: Modes,
        seed: int = 0,
    ) -> None:
        """Evaluate `func` twice at the origin; its own errors pass through."""
        self.func = func
        self.modes = modes
        self.seed = seed
        self.axes = torch.eye(size, dtype=torch.float64, device=device)
        self.centre = func(self._origin()).detach()
        self.repeats = torch.equal(self.centre, func(self._origin()).detach())
        self._first_verdicts: dict[str, Verdict] = {}

    def verdicts(self, only: Collection[str] | None = None) -> list[Verdict]:
        """Judge all modes, or `only` those."""
        return [
            self._verdict(kind, name)
            for kind, group in self.modes._asdict().items()
            for name in group
            if only is None or name in only
        ]

    def _verdict(self, kind: str, name: str) -> Verdict:
        """Where differences alone cannot confirm a wrong, another mode that is right does."""
        if not self.repeats:
            reason = "two calls at the same point differ: randomness, or a state that func keeps"
            return Verdict(name, kind, "undecided", detail=reason)
        verdict = self._by_differences(kind, name)
        if verdict.detail == _CONTESTED:
            for other in getattr(self.modes, kind):
                if self._by_differences(kind, other).outcome == "right":
                    return replace(verdict, outcome="wrong", detail=f"confirmed by {other}")
        return verdict

    @cached_property
    def floor(self) -> float:
        """What rounding of values and slopes can leave: a smaller derivative is zero."""
        return 1e-10 * float(max(x.nan_to_num().abs().max() for x in (self.centre, self.jacobian.value)))

    @cached_property
    def jacobian(self) -> Estimate:
        """Differences of the values."""
        return stacked([slope_along(self._value, axis) for axis in self.axes])

    @cached_property
    def hessian(self) -> Estimate:
        """Differences of a right Jacobian; without one, of the values, for each pair of axes."""
        for name in _FASTEST:
            if self._by_differences("jacobians", name).outcome == "right":
                gradient = nan_outside(partial(self.modes.jacobians[name], self.func), self.jacobian.value)
                return stacked([slope_along(gradient, axis) for axis in self.axes])
        return stacked([stacked([curvature_across(self._value, u, v) for u in self.axes]) for v in self.axes])

    def _jacobians(self, name: str) -> _Question:
        generator = self._generator(name)

        def witness() -> tuple[Estimate, Callable[[Tensor], Tensor]]:
            along = self._random(len(self.axes), generator)
            return slope_along(self._value, along, start=0.1, ratio=3.0), lambda jacobian: jacobian @ along

        return _Question(partial(self.modes.jacobians[name], self.func, self._origin()), self.jacobian, witness)

    def _hessians(self, name: str) -> _Question:
        generator = self._generator(name)

        def witness() -> tuple[Estimate, Callable[[Tensor], Tensor]]:
            u, v = (self._random(len(self.axes), generator) for _ in range(2))
            return curvature_across(self._value, u, v), lambda hessian: hessian @ v @ u

        return _Question(partial(self.modes.hessians[name], self.func, self._origin()), self.hessian, witness)

    def _products(self, name: str) -> _Question:
        generator = self._generator(name)
        weight, along = self._random(len(self.centre), generator), self._random(len(self.axes), generator)
        value, error, kink = self.hessian
        reference = Estimate(
            torch.einsum("m,mij,j->i", weight, value, along),
            torch.einsum("m,mij,j->i", weight.abs(), error, along.abs()),
            kink.any(2).any(0),
        )

        def witness() -> tuple[Estimate, Callable[[Tensor], Tensor]]:
            across = self._random(len(self.axes), generator)
            estimate = curvature_across(lambda x: self._value(x) @ weight, along, across)
            return estimate, lambda product: product @ across

        def answer() -> Tensor:
            return self.modes.products[name](lambda x: self.func(x) @ weight, self._origin(), along)

        return _Question(answer, reference, witness, float(weight.abs().sum() * along.abs().sum()))

    def _diagonals(self, name: str) -> _Question:
        generator = self._generator(name)

        def witness() -> tuple[Estimate, Callable[[Tensor], Tensor]]:
            weights = self._random(len(self.axes), generator)
            return self._curvatures(weights), lambda diagonal: diagonal @ weights

        reference = Estimate(*(x.diagonal(dim1=-2, dim2=-1) for x in self.hessian))
        return _Question(partial(self.modes.diagonals[name], self.func, self._origin()), reference, witness)

    def _laplacians(self, name: str) -> _Question:
        value, error, kink = (x.diagonal(dim1=-2, dim2=-1) for x in self.hessian)
        reference = Estimate(value.sum(-1), error.sum(-1), kink.any(-1))
        answer = partial(self.modes.laplacians[name], self.func, self._origin())
        return _Question(
            answer,
            reference,
            lambda: (self._curvatures(torch.ones_like(self._origin())), lambda laplacian: laplacian),
            float(len(self.axes)),
        )

    def _once_more(self, name: str) -> _Question:
        weight, generator = self._weight, self._generator(name)

        def witness() -> tuple[Estimate, Callable[[Tensor], Tensor]]:
            along = self._random(len(self.axes), generator)
            return slope_along(self._trace, along, start=0.1, ratio=3.0), lambda gradient: gradient @ along

        def answer() -> Tensor:
            return self.modes.once_more[name](lambda x: self.func(x) @ weight, self._origin())

        return _Question(answer, self.slope_of_trace, witness, float(weight.abs().sum() * len(self.axes)))

    @cached_property
    def slope_of_trace(self) -> Estimate:
        """Differences of the Laplacian of the outputs' sum, weighted."""
        return stacked([slope_along(self._trace, axis) for axis in self.axes])

    @cached_property
    def _weight(self) -> Tensor:
        return self._random(len(self.centre), self._generator("once more"))

    def _trace(self, point: Tensor) -> Tensor:
        """That Laplacian, by a Hessian that is right at the origin."""
        if (hessian := self._sound) is None:
            return point.new_full((), math.nan)

        def trace(x: Tensor) -> Tensor:
            return self._weight @ hessian(self.func, x).diagonal(0, -2, -1).sum(-1)

        return nan_outside(trace, point[0])(point)

    @cached_property
    def _sound(self) -> Callable[..., Tensor] | None:
        names = dict.fromkeys((*(name for name in _SIMPLEST if name in self.modes.hessians), *self.modes.hessians))
        right = (name for name in names if self._by_differences("hessians", name).outcome == "right")
        return next((self.modes.hessians[name] for name in right), None)

    def _curvatures(self, weights: Tensor) -> Estimate:
        """The second derivatives along every axis, weighted and summed."""
        value, error, kink = stacked([curvature_across(self._value, axis, axis) for axis in self.axes])
        return Estimate(value @ weights, error @ weights.abs(), kink.any(-1))

    def _by_differences(self, kind: str, name: str) -> Verdict:
        if name not in self._first_verdicts:
            self._first_verdicts[name] = self._judge(kind, name, getattr(self, f"_{kind}")(name))
        return self._first_verdicts[name]

    def _judge(self, kind: str, name: str, question: _Question) -> Verdict:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a mode may warn that it is slow: here it is asked for the truth
                answer = question.answer().detach()
        except Exception as refusal:  # any refusal is a finding
            return Verdict(name, kind, "refuses", detail=f"{type(refusal).__name__}: {refusal}")
        floor = self.floor * question.terms
        gap = Gap(answer, question.reference, floor)
        outcome: Outcome = "undecided"
        if gap.far and any(question.confirms(answer, floor) for _ in range(_WITNESSES)):
            outcome, detail = "wrong", "confirmed by differences along other directions"
        elif gap.far:
            detail = _CONTESTED
        elif gap.off:
            detail = "the disagreement is within the reach of rounding"
        elif gap.settled:
            outcome, detail = "right", ""
        else:
            detail = "the derivative jumps at this point (a kink)" if gap.kink else "the differences do not settle"
        largest = gap.largest
        unit = (
            largest if largest > floor else max(float(self.centre.abs().max()), floor, torch.finfo(torch.float64).tiny)
        )
        asymmetry = float((answer - answer.mT).abs().max() / unit) if kind == "hessians" else None
        return Verdict(name, kind, outcome, float(gap.gaps.max() / unit), detail, asymmetry)

    def _value(self, point: Tensor) -> Tensor:
        return nan_outside(self.func, self.centre)(point)

    def _origin(self) -> Tensor:
        return self.axes.new_zeros(len(self.axes))

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed + zlib.crc32(name.encode()))

    def _random(self, size: int, generator: torch.Generator) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64, device="cpu").div(size**0.5).to(self.axes)
