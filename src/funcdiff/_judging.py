"""Verdicts on derivatives: each mode's answer against differences, each accusation confirmed a second way."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import torch
from torch import Tensor

from funcdiff._differences import Estimate, curvature_across, nan_outside, slope_along, stacked
from funcdiff._modes import RECIPES, Function, Modes

_AGREES = 1e-8  # disagreement up to which a mode is right, relative to the largest entry
_WRONG = 1e-6  # ... from which it is wrong; rounding alone may reach between
_SETTLED = 1e-4  # differences less certain than this decide nothing
_WITNESSES = 3  # attempts to confirm a wrong: a witness may stumble over a kink
_CONTESTED = "one set of differences contradicts it, another decides nothing"
_FASTEST = ("jacobian_reverse", "jacobian_forward", "jacobian_batched_grad", "jacobian_loop")


Outcome = Literal["right", "wrong", "refuses", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """What was found about one mode.

    Attributes:
        mode: the recipe's name.
        outcome: right, wrong, refuses or undecided.
        error: the largest disagreement with the differences, relative to the largest entry, or to the value where the
            derivative is zero; NaN without an answer.
        detail: what confirmed a wrong, the text of a refusal, the reason for undecided.
        asymmetry: of a Hessian, the largest entry of H - H^T relative to the largest of H.
    """

    mode: str
    outcome: Outcome
    error: float = math.nan
    detail: str = ""
    asymmetry: float | None = None


class Examination:
    """`func`, from float64 vectors of `size` to vectors, at the origin: which modes find its derivatives there.

    The Jacobian is judged by differences of the values; the Hessian by differences of a Jacobian that was right, or of
    the values where none was. An answer that disagrees is called wrong only if differences of the values along other
    directions, with other steps, contradict it and agree with the reference, or another mode agrees with the reference.
    """

    def __init__(
        self,
        func: Function,
        size: int,
        device: torch.device | str = "cpu",
        *,
        modes: Modes = RECIPES,
        seed: int = 0,
    ) -> None:
        """Evaluate `func` twice at the origin; its own errors pass through."""
        self.func = func
        self.modes = modes
        self.axes = torch.eye(size, dtype=torch.float64, device=device)
        self.centre = func(self.axes.new_zeros(size)).detach()
        self.repeats = torch.equal(self.centre, func(self.axes.new_zeros(size)).detach())
        self.generator = torch.Generator().manual_seed(seed)

    def verdicts(self, only: Collection[str] | None = None) -> list[Verdict]:
        """Judge all modes, or `only` those: by the others of their order too, which may have to bear witness."""
        groups = [group for group in self.modes if only is None or any(name in group for name in only)]
        if not self.repeats:
            reason = "two calls at the same point differ: randomness, or a state that func keeps"
            found = [Verdict(name, "undecided", detail=reason) for group in groups for name in group]
        else:
            found = _settled([self._verdict(name) for group in groups for name in group])
        return [verdict for verdict in found if only is None or verdict.mode in only]

    def _verdict(self, name: str) -> Verdict:
        if name in self.modes.products:
            return self._judge_product(name)
        return self._judge_hessian(name) if name in self.modes.hessians else self._first[name]

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
        right = [name for name in _FASTEST if self._first[name].outcome == "right"]
        if right:
            mode = partial(self.modes.jacobians[right[0]], self.func)
            gradient = nan_outside(mode, self.jacobian.value)
            return stacked([slope_along(gradient, axis) for axis in self.axes])
        return stacked([stacked([curvature_across(self._value, u, v) for u in self.axes]) for v in self.axes])

    @cached_property
    def _first(self) -> dict[str, Verdict]:
        return {name: self._judge_jacobian(name) for name in self.modes.jacobians}

    def _judge_jacobian(self, name: str) -> Verdict:
        def confirm(answer: Tensor) -> bool:
            along = self._random(len(self.axes))
            witness = slope_along(self._value, along, start=0.1, ratio=3.0)
            return _contradicts(witness, answer @ along, self.jacobian.value @ along)

        return self._judge(name, lambda: self.modes.jacobians[name](self.func, self._origin()), self.jacobian, confirm)

    def _judge_hessian(self, name: str) -> Verdict:
        def confirm(answer: Tensor) -> bool:
            u, v = self._random(len(self.axes)), self._random(len(self.axes))
            witness = curvature_across(self._value, u, v)
            return _contradicts(witness, answer @ v @ u, self.hessian.value @ v @ u)

        return self._judge(name, lambda: self.modes.hessians[name](self.func, self._origin()), self.hessian, confirm)

    def _judge_product(self, name: str) -> Verdict:
        weight, along = self._random(len(self.centre)), self._random(len(self.axes))
        value, error, kink = self.hessian
        reference = Estimate(
            torch.einsum("m,mij,j->i", weight, value, along),
            torch.einsum("m,mij,j->i", weight.abs(), error, along.abs()),
            kink.any(2).any(0),
        )

        def confirm(answer: Tensor) -> bool:
            across = self._random(len(self.axes))
            witness = curvature_across(lambda x: self._value(x) @ weight, along, across)
            return _contradicts(witness, answer @ across, reference.value @ across)

        def product() -> Tensor:
            return self.modes.products[name](lambda x: self.func(x) @ weight, self._origin(), along)

        return self._judge(name, product, reference, confirm, float(weight.abs().sum() * along.abs().sum()))

    def _judge(
        self,
        name: str,
        mode: Callable[[], Tensor],
        reference: Estimate,
        confirm: Callable[[Tensor], bool],
        summed: float = 1.0,
    ) -> Verdict:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a mode may warn that it is slow: here it is asked for the truth
                answer = mode().detach()
        except Exception as refusal:  # any refusal is a finding
            return Verdict(name, "refuses", detail=f"{type(refusal).__name__}: {refusal}")
        scale, floor = float(reference.value.nan_to_num().abs().max()), self.floor * summed
        gap = (answer - reference.value).abs().nan_to_num(math.inf)
        settled = reference.error <= _SETTLED * scale + floor
        off = settled & (gap > _AGREES * scale + 10 * reference.error + floor)
        far = off & (gap > _WRONG * scale + 100 * reference.error + floor)
        outcome: Outcome = "undecided"
        if far.any() and any(confirm(answer) for _ in range(_WITNESSES)):
            outcome, detail = "wrong", "confirmed by differences along other directions"
        elif far.any():
            detail = _CONTESTED
        elif off.any():
            detail = "the disagreement is within the reach of rounding"
        elif settled.all():
            outcome, detail = "right", ""
        else:
            kink = "the derivative jumps at this point (a kink)"
            detail = kink if reference.kink.any() else "the differences do not settle"
        unit = scale if scale > floor else max(float(self.centre.abs().max()), floor, torch.finfo(torch.float64).tiny)
        asymmetry = float((answer - answer.mT).abs().max() / unit) if name in self.modes.hessians else None
        return Verdict(name, outcome, float(gap.max() / unit), detail, asymmetry)

    def _value(self, point: Tensor) -> Tensor:
        return nan_outside(self.func, self.centre)(point)

    def _origin(self) -> Tensor:
        return self.axes.new_zeros(len(self.axes))

    def _random(self, size: int) -> Tensor:
        return torch.randn(size, generator=self.generator, dtype=torch.float64).div(size**0.5).to(self.axes)


def _settled(verdicts: list[Verdict]) -> list[Verdict]:
    """Where differences alone could not confirm a wrong, another mode that is right does."""
    right = {verdict.mode.split("_")[0]: verdict.mode for verdict in verdicts if verdict.outcome == "right"}

    def settle(verdict: Verdict) -> Verdict:
        witness = right.get(verdict.mode.split("_")[0])
        if verdict.detail != _CONTESTED or witness is None:
            return verdict
        return replace(verdict, outcome="wrong", detail=f"confirmed by {witness}")

    return [settle(verdict) for verdict in verdicts]


def _contradicts(witness: Estimate, answer: Tensor, reference: Tensor) -> bool:
    """Whether, in some entry, the witness sides with the reference: ten times nearer to it than to the answer."""
    gap = (answer - reference).abs().nan_to_num(math.inf)
    doubt = torch.maximum((witness.value - reference).abs(), witness.error)
    return bool((10 * doubt < gap).any())
