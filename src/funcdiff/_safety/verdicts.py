"""What an examination finds about a mode, and what speaks for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from funcdiff._safety.differences import Estimate

Outcome = Literal["right", "wrong", "refuses", "undecided"]

_AGREES = 1e-8  # disagreement up to which a mode is right, relative to the largest entry
_WRONG = 1e-6  # ... from which it is wrong; rounding alone may reach between
_SETTLED = 1e-4  # differences less certain than this decide nothing


@dataclass(frozen=True)
class Verdict:
    """What was found about one mode.

    Attributes:
        mode: the recipe's name.
        kind: what it computes: jacobians, hessians, products, diagonals or laplacians.
        outcome: right, wrong, refuses or undecided.
        error: the largest disagreement with the differences, relative to the largest entry, or to the value where the
            derivative is zero; NaN without an answer.
        detail: what confirmed a wrong, the text of a refusal, the reason for undecided.
        asymmetry: For a Hessian, the largest entry of H - H^T relative to the largest of H.
    """

    mode: str
    kind: str
    outcome: Outcome
    error: float = math.nan
    detail: str = ""
    asymmetry: float | None = None


class Gap:
    """How far an answer is from a reference; below `floor` a derivative is zero."""

    def __init__(self, answer: Tensor, reference: Estimate, floor: float) -> None:
        """Compare entry by entry: NaN is infinitely far."""
        self.largest = float(reference.value.nan_to_num().abs().max())
        self.gaps = (answer - reference.value).abs().nan_to_num(math.inf)
        settled = reference.error <= _SETTLED * self.largest + floor
        self.settled = bool(settled.all())
        self.kink = bool(reference.kink.any())
        off = settled & (self.gaps > _AGREES * self.largest + 10 * reference.error + floor)
        self.off = bool(off.any())
        self.far = bool((off & (self.gaps > _WRONG * self.largest + 100 * reference.error + floor)).any())


def contradicts(witness: Estimate, answer: Tensor, reference: Tensor, floor: float) -> bool:
    """Whether, in some entry, the witness sides with the reference: ten times nearer to it than to the answer.

    NaN is far from everything, so that the witness must have settled, too.
    """
    gap = torch.where(answer.isfinite(), (answer - reference).abs(), math.inf)
    doubt = torch.maximum((witness.value - reference).abs(), witness.error)
    settled = doubt <= _SETTLED * reference.abs().amax() + floor
    return bool(((10 * doubt < gap) & (answer.isfinite() | settled)).any())
