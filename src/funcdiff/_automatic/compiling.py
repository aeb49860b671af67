"""The choice under torch.compile, which runs these functions when it compiles, and does not look inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from funcdiff._automatic import lookup
from funcdiff._automatic.costs import FORMULAS
from funcdiff._automatic.lookup import Choice
from funcdiff._calling.arguments import select_args
from funcdiff._calling.types import Function
from funcdiff._safety.obstacles import numbers_like
from funcdiff._torch.compiler import compiled, run_while_compiling, settled
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.tape import Sketch
from funcdiff._torch.trees import Tree, flatten

EAGERLY = "not compiled"
ROWS = 100  # supposed of every batch: with a number of its own, each would be compiled anew
Spec = tuple[tuple[int, ...], torch.dtype, str]


def name(func: Function, choice: Choice, args: Sequence[Tree], planned: Callable[..., str] | None) -> str:
    """The recipe for these arguments; without `planned` func, or the transform of it, is the compiler's own."""
    if planned is None or not all(isinstance(arg, Tensor) for arg in args):
        trees = select_args(args, choice.options.argnums), compiled(func, args)
        return typical(choice.names, *(settled(sum(x.numel() for x in flatten(tree)[0])) for tree in trees))
    return planned(*((tuple(map(settled, x.shape)), x.dtype, str(x.device)) for x in args))


def planned(func: Function, choice: Choice) -> Callable[..., str]:
    """What tells the recipe that is planned for arguments like these; not every func can be an argument of it."""

    @run_while_compiling
    def recipe(*specs: Spec) -> str:
        args = [numbers_like(torch.empty(shape, dtype=dtype, device=device)) for shape, dtype, device in specs]
        try:
            plan = lookup.for_transform(func, choice, args, inside=True).plan
        except RefusedError:  # it may be possible outside; else it is refused there, in our own words
            return EAGERLY
        if plan.sketch.foreign:  # torch.compile differentiates what their forward does, whatever their backward says
            return EAGERLY
        return plan.usable[0]

    return recipe


@run_while_compiling
def typical(names: tuple[str, ...], n: int, m: int) -> str:
    """The recipe that would be planned for a common network of n inputs and m outputs; without formulas the first."""
    network = Sketch(n, m, *(10**6,) * 5, elements=10**3, curved_elements=10**3, calls=9)
    known = [name for name in names if name in FORMULAS]
    return min(known, key=lambda name: FORMULAS[name].cost(network).seconds) if names[0] in FORMULAS else names[0]
