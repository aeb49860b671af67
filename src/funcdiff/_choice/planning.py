"""Plans: which recipes are right for a function, the one that would be fastest first."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from funcdiff._autograd import once_differentiable, plain_allowed, tracked
from funcdiff._boundary import copied
from funcdiff._choice.costs import FORMULAS, Cost
from funcdiff._choice.sketch import Sketch, sketch
from funcdiff._passes import undrawn
from funcdiff._refusals import RefusedError
from funcdiff._taylor import evaluation
from funcdiff._taylor.guard import corrected
from funcdiff._trees import Tree, flatten

WRONG = {
    mode: frozenset(operators)
    for mode, operators in json.loads(resources.files("funcdiff").joinpath("_known_wrong.json").read_text())[
        "modes"
    ].items()
}
INSIDE = {  # what a recipe on plain autograd becomes inside a transform
    "jacobian_batched_grad": "jacobian_reverse",
    "hessian_double_backward": "hessian_reverse_over_reverse",
    "hvp_double_backward": "hvp_reverse_over_reverse",
}
CORRECTED = frozenset(  # these run func with its norms written as compositions of simpler operations
    (
        "hessian_double_backward",
        "hessian_forward_over_reverse",
        "hessian_reverse_over_reverse",
        "hessian_forward_over_forward",
        "hvp_forward_over_reverse",
        "hvp_reverse_over_reverse",
    )
)


@dataclass(frozen=True)
class Candidate:
    """A recipe, what it would cost where there are formulas for it, and why it must not be taken, or nothing.

    Where there is a budget also the chunk that keeps it, and the peak in bytes.
    """

    name: str
    cost: Cost | None = None
    obstacle: str = ""
    chunk: int | None = None
    peak: int | None = None


@dataclass(frozen=True)
class Plan:
    """The candidates: those that may be taken first, and of them the fastest."""

    sketch: Sketch
    candidates: tuple[Candidate, ...]

    @functools.cached_property
    def usable(self) -> list[str]:
        """The recipes that may be taken, the best first."""
        return [candidate.name for candidate in self.candidates if not candidate.obstacle]

    def chunk(self, name: str) -> int | None:
        """How many directions a recipe takes at once; None for all."""
        return next(candidate.chunk for candidate in self.candidates if candidate.name == name)

    def without(self, name: str, obstacle: str) -> Plan:
        """The plan for when a recipe has turned out not to work."""
        rest = [c for c in self.candidates if c.name != name]
        return Plan(self.sketch, (*rest, Candidate(name, None, obstacle)))


def make(
    names: Sequence[str],
    flat: Callable[..., Tree],
    primals: Sequence[Tensor],
    *,
    randomness: str,
    batch: int = 1,
) -> Plan:
    """Order the recipes `names` by predicted time, apart from those that torch gets wrong on an operator of `flat`.

    Recipes without formulas come last, in the order given.

    Raises:
        RefusedError: `flat` does what no recipe can differentiate, or every recipe is wrong on it.
    """
    subject = _Subject(flat, primals, randomness)
    plain = subject.sketch(False)
    if not names[0].startswith("jacobian"):
        subject.refuse_one_gradient_only()
    candidates = []
    for name in names:
        obstacle = subject.obstacle(name)
        # Taylor rules, too, write norms as compositions: their elements are those of the corrected function.
        seen = subject.sketch(True) if not obstacle and (name in CORRECTED or "taylor" in name) else plain
        cost = FORMULAS[name].cost(seen, batch) if name in FORMULAS else None
        candidates.append(Candidate(name, cost, obstacle))
    candidates.sort(key=order)
    while "taylor" in candidates[0].name and not candidates[0].obstacle and (why := subject.no_taylor_rule()):
        candidates[0] = Candidate(candidates[0].name, candidates[0].cost, why)
        candidates.sort(key=order)
    if candidates[0].obstacle:
        told = "; ".join(f"{candidate.name}: {candidate.obstacle}" for candidate in candidates)
        raise RefusedError(f"no recipe is known to be right on func ({told}); write the operation with simpler ones")
    return Plan(plain, tuple(candidates))


def stand_ins(leaves: Sequence[Any]) -> list[Any]:
    """Copies of the arguments; inside a transform, where values cannot be read, numbers in their place."""
    if plain_allowed():
        return [copied(leaf) for leaf in leaves]
    return [_stand_in(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]


def _stand_in(x: Tensor) -> Tensor:
    """Numbers between 0 and 1, all different; zeros where x has integers, as they may be indices."""
    if not x.is_floating_point():
        return torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    return torch.linspace(0.1, 0.9, x.numel(), dtype=x.dtype, device=x.device).reshape(x.shape)


def order(candidate: Candidate) -> tuple[bool, float]:
    """Those that may be taken first, and of them the fastest."""
    return bool(candidate.obstacle), candidate.cost.seconds if candidate.cost else float("inf")


class _Subject:
    """A function at a point, sketched as it is and, where a recipe asks, with what torch gets wrong put right."""

    def __init__(self, flat: Callable[..., Tree], primals: Sequence[Tensor], randomness: str) -> None:
        self.flat, self.primals, self.randomness, self.inside = flat, primals, randomness, not plain_allowed()
        self._sketches: dict[bool, Sketch] = {}

    def sketch(self, put_right: bool) -> Sketch:
        if put_right and not any("norm" in name for name in self.sketch(False).operators):
            return self.sketch(False)  # nothing to write otherwise
        if put_right not in self._sketches:
            with torch.no_grad():  # else the guard takes the sketch's own no_grad() for func's
                func = corrected(self.flat) if put_right else self.flat
            self._sketches[put_right] = sketch(func, [x.clone() for x in self.primals], self.randomness)
        return self._sketches[put_right]

    def obstacle(self, name: str) -> str:
        """The operators on which the atlas found the recipe wrong, in words."""
        mode = INSIDE.get(name, name) if self.inside else name
        wrong = WRONG.get(mode, frozenset()).union(WRONG.get(f"{mode}, vmap", ()) if self.inside else ())
        if not (found := self.sketch(False).operators & wrong):
            return ""
        if mode in CORRECTED:
            try:
                found = self.sketch(True).operators & wrong
            except RefusedError as error:
                return str(error)
        return f"torch gets {', '.join(sorted(found))} wrong" if found else ""

    def refuse_one_gradient_only(self) -> None:
        """Stop at a function without a second derivative, where its graph can be read."""
        if self.inside:
            return
        with undrawn():
            outputs = flatten(tracked(self.flat, [x.clone() for x in self.primals]))[0]
        if once_differentiable(outputs):
            raise RefusedError(
                "func calls a torch.autograd.Function marked once_differentiable, which has no second derivative: "
                "write its backward with torch operations, and without the mark"
            )

    def no_taylor_rule(self) -> str:
        """What stops jets on their way through the function, by sending one through."""
        try:
            evaluation.probe(lambda *jets: (flatten(self.flat(*jets))[0], ()), self.primals, self.randomness)
        except RefusedError:
            raise
        except Exception as error:
            return f"no Taylor rule: {error}"
        return ""
