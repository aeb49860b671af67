"""The choice under torch.compile, which runs these functions when it compiles, and does not look inside."""

from __future__ import annotations

import torch
from torch import Tensor

from funcdiff._automatic import lookup
from funcdiff._automatic.costs import FORMULAS
from funcdiff._calling.types import Function
from funcdiff._torch.tape import Sketch

Kind = tuple[tuple[int, ...], torch.dtype, str]


def kind_of(x: Tensor) -> Kind:
    """What a plan is made from."""
    return tuple(x.shape), x.dtype, str(x.device)


def planned(
    func: Function,
    names: tuple[str, ...],
    argnums: int | tuple[int, ...],
    has_aux: bool,
    randomness: str,
    batch: int,
    verify: bool,
    *kinds: Kind,
) -> str:
    """The recipe that is planned for arguments of these kinds."""
    args = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype, device in kinds]
    found = lookup.for_transform(names, func, argnums, has_aux, randomness, batch, verify, args, inside=True)
    return found.plan.usable[0]


def typical(names: tuple[str, ...], n: int, m: int) -> str:
    """The recipe that would be planned for a common network of n inputs and m outputs."""
    network = Sketch(n, m, *(10**6,) * 5, elements=10**3, curved_elements=10**3, calls=9)
    return min((name for name in names if name in FORMULAS), key=lambda name: FORMULAS[name].cost(network).seconds)


# As torch.compiler.assume_constant_result does it, which would import the whole compiler.
planned._dynamo_marked_constant = True  # type: ignore[attr-defined]  # a mark that torch looks for
typical._dynamo_marked_constant = True  # type: ignore[attr-defined]  # the same
