"""How many passes a recipe makes, in words: the counts that its predicted cost is made of."""

from __future__ import annotations

from funcdiff._automatic.costs import pairs
from funcdiff._torch.tape import Sketch

_MODES = {
    "jacobian_batched_grad": ("reverse",),
    "jacobian_reverse": ("reverse",),
    "jacobian_forward": ("forward",),
    "jacobian_taylor": ("forward",),
    "hessian_forward_over_reverse": ("reverse", "forward"),
    "hessian_forward_over_forward": ("forward", "forward"),
    "hessian_double_backward": ("reverse", "reverse"),
    "hessian_reverse_over_reverse": ("reverse", "reverse"),
}


def passes(recipe: str, s: Sketch) -> str:
    """The passes of a call after the first run of the function, or nothing for a recipe without a formula of its cost.

    Forward mode makes one for each input. Reverse mode makes one for each output, and of a gradient one for each of its
    entries.
    """
    if recipe == "hessian_taylor":
        return f"one pass in Taylor mode for {s.inputs} first and {pairs(s.inputs)} second derivatives"
    outputs, told = s.outputs, []
    for mode in _MODES.get(recipe, ()):
        count = s.inputs if mode == "forward" else outputs
        outputs *= s.inputs
        told.append(f"{count} {'pass' if count == 1 else 'passes'} in {mode} mode")
    return ", differentiated by ".join(told)
