"""What speaks against a recipe on a function: operators that it gets wrong, a derivative that is not there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcdiff._calling.transform import copied
from funcdiff._jets.jet import NoRuleError, TensorJet
from funcdiff._safety.guard import REWRITTEN, corrected
from funcdiff._safety.known_wrong import CORRECTED, DIFFERENTIATED, INSIDE_TRANSFORM, JETS, RIGHT_ON_ONE, WRONG
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.norms import LAYER_NORM
from funcdiff._torch.operators import BATCH_NORMS, IN_EVALUATION
from funcdiff._torch.tape import Sketch, sketch
from funcdiff._torch.transforms import outside, plain_allowed, values
from funcdiff._torch.trees import Tree

PLAIN = frozenset(("jacobian_batched_grad", "jacobian_loop", "hessian_double_backward", "hvp_double_backward"))
KNOWN_WRONG = "torch gets"  # how such an obstacle begins
_GOLDEN = (5**0.5 - 1) / 2  # of whose multiples the fractions are spread evenly


def stand_ins(leaves: Sequence[Any]) -> list[Any]:
    """Copies of the arguments; inside a transform of what lies beneath, so that func takes the branches that it will.

    Of the rows of a batch the second stands for all: a branch on its values is refused when the recipe runs.
    """
    if any(isinstance(leaf, TensorJet) for leaf in leaves):
        raise NoRuleError("an automatic recipe inside func")
    if plain_allowed():
        return [copied(leaf) for leaf in leaves]
    return [_stand_in(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]


def _stand_in(x: Tensor) -> Tensor:
    found = values(x)
    return numbers_like(x) if found is None else found


def numbers_like(x: Tensor) -> Tensor:
    """Numbers between 0 and 1, in no order, so that matrices have inverses; zeros in place of integers, as indices."""
    if not x.is_floating_point():
        return torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    numbers = 0.1 + 0.8 * (torch.arange(1, x.numel() + 1, dtype=torch.float64, device="cpu") * _GOLDEN % 1)
    return numbers.to(x.dtype).to(x.device).reshape(x.shape)


def trained_through(seen: Sketch) -> bool:
    """Whether what a derivative returns has a graph, of what the function captured."""
    return seen.trainable and torch.is_grad_enabled()


class Obstacles:
    """A function at a point, sketched as it is and, where a recipe asks, with what torch gets wrong put right.

    `inside` says that the recipes run under vmap or another transform, `once_more` that what they return is
    differentiated again.
    """

    def __init__(
        self,
        flat: Callable[..., Tree],
        primals: Sequence[Tensor],
        randomness: str,
        verify: bool = True,
        inside: bool | None = None,
        once_more: bool = False,
    ) -> None:
        self.flat, self.primals, self.randomness, self.verify = flat, primals, randomness, verify
        self.inside = not plain_allowed() if inside is None else inside
        self.once_more = once_more
        self._sketches: dict[bool, Sketch] = {}

    def sketch(self, with_safe_forms: bool) -> Sketch:
        if with_safe_forms:
            plain = self.sketch(False)
            rewritten = plain.operators & REWRITTEN
            if not rewritten:
                return plain
            if rewritten == {LAYER_NORM} and (written := plain.with_layer_norms_written_out):
                return written
        if with_safe_forms not in self._sketches:
            with torch.no_grad():  # else the guard takes the sketch's own no_grad() for func's
                func = corrected(self.flat) if with_safe_forms else self.flat
            with outside():  # a copy made inside grad would belong to it, and have no memory of its own
                copies = [x.detach().clone() for x in self.primals]
            self._sketches[with_safe_forms] = sketch(func, copies, self.randomness)
        return self._sketches[with_safe_forms]

    def obstacle(self, name: str) -> str:
        """The operators on which the recipe is wrong, or unproven and not to be checked, in words."""
        composition = name.partition(",")[0]  # of whose Hessian a diagonal or a trace is taken
        if not self.verify and composition not in PLAIN and (foreign := self.sketch(False).foreign):
            return f"not known to be right on {', '.join(sorted(foreign))}, and verify=False skips the check"
        if self.sketch(False).gradless and name.partition(",")[0] not in PLAIN:
            return "ignores torch.no_grad() in func"
        if "forward" in name and (own := [f for f in self.sketch(False).foreign if "." in f]):
            return f"forward mode treats {', '.join(sorted(own))} as a constant"  # torch has no rule to give it
        mode = self._mode(name)
        if self.sketch(False).blocked and (blocked := self.sketch(mode in CORRECTED | JETS).blocked):
            return blocked
        again = self.once_more or (self.inside and trained_through(self.sketch(False)))
        wrong = self._known_wrong(mode, again)
        if again and IN_EVALUATION in self.sketch(False).operators and not wrong.isdisjoint(BATCH_NORMS):
            wrong |= {IN_EVALUATION}
        if not (found := self.sketch(False).operators & wrong):
            return ""
        if mode in CORRECTED or name.endswith(", products"):  # of a linearized function, which is corrected as well
            try:
                found = self.sketch(True).operators & wrong
            except RefusedError as error:
                return str(error)
        return f"{KNOWN_WRONG} {', '.join(sorted(found))} wrong" if found else ""

    def wrong_by_name(self, name: str) -> frozenset[str]:
        """The operators of the function that torch may get wrong in a recipe by itself, with nothing put right."""
        mode, seen = self._mode(name), self.sketch(False)
        right = RIGHT_ON_ONE.get(mode, frozenset()) if seen.outputs == 1 else frozenset()
        return seen.operators & self._known_wrong(mode, False) - right

    def _mode(self, name: str) -> str:
        composition = name.partition(",")[0]
        return INSIDE_TRANSFORM.get(composition, composition) if self.inside else composition

    def _known_wrong(self, mode: str, again: bool) -> frozenset[str]:
        asked = {mode: True, f"{mode}, vmap": self.inside, f"{mode}, once more": again}
        if once_more := DIFFERENTIATED.get(mode):
            asked |= {once_more: again, f"{once_more}, vmap": again and self.inside}
        return frozenset().union(*(WRONG.get(name, ()) for name, applies in asked.items() if applies))

    def refuse_one_gradient_only(self) -> None:
        """Stop at a function without a second derivative, where its graph can be read."""
        if self.sketch(False).once:
            raise RefusedError(
                "func calls a torch.autograd.Function marked once_differentiable, which has no second derivative. "
                "Remove the mark, and write its backward with torch operations"
            )
