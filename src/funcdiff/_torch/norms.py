"""What a layer norm counts more where it is written as the simpler operations that it consists of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

LAYER_NORM = "native_layer_norm"
LAYER_NORMS = frozenset((functional.layer_norm, torch.layer_norm))  # those that the recipes know to write so
PARTS = frozenset(("mean", "sub", "pow", "add", "rsqrt", "mul"))  # the operations


class Extra(NamedTuple):
    """Counts of a sketch, to be added."""

    elements: int = 0
    curved_elements: int = 0
    calls: int = 0
    general: int = 0
    nested: int = 0

    def plus(self, other: Extra) -> Extra:
        return Extra(*map(sum, zip(self, other, strict=True)))


def written_out(args: Sequence[Any], live: Sequence[Tensor], *, curved: bool) -> Extra | None:
    """What one layer norm counts more, of these arguments, those `live` that depend on the input.

    `curved` says that its input has second derivatives already. None if its parameters depend on the input as well, or
    if it converts half precision. In these cases, the operations must be counted.
    """
    x, shape, weight, bias, _ = args
    if len(live) > 1 or live[0] is not x or x.dtype in (torch.float16, torch.bfloat16):
        return None
    rows = math.prod(x.shape[: x.dim() - len(shape)])
    wide = 3 + (weight is not None) + (bias is not None)  # centred, its square, the quotient; scaled, shifted
    narrow = 4  # mean, variance, with eps added, one over its root
    elements = wide * x.numel() + narrow * rows
    straight = 0 if curved else x.numel() + rows  # mean and centred
    own = x.numel() + 2 * rows  # of the operator itself
    return Extra(elements - own, elements - straight - own, wide + narrow - 1, 2, 0)
