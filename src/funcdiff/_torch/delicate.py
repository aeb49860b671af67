"""Operations that may have a derivative that is not finite, or NaN, where their values are finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

NORMS = frozenset(("norm", "linalg_vector_norm", "_cdist_forward", "_euclidean_dist", "_pdist_forward", "hypot"))
# Their derivatives, or values that a mask or another operation hides, are infinite somewhere: 0 times inf is NaN.
_SINGULAR = """
    sqrt rsqrt norm linalg_vector_norm _cdist_forward _euclidean_dist _pdist_forward hypot atan2 std std_mean renorm
    acos asin acosh atanh log log2 log10 log1p reciprocal div logit erfinv special_xlogy xlogy special_entr
    special_xlog1py special_ndtri angle"""
_SELECTING = "where masked_fill nan_to_num clamp clamp_min clamp_max maximum minimum fmax fmin"
_ALWAYS, _HIDING = (frozenset(names.split()) for names in (_SINGULAR, _SELECTING))


def delicate(name: str, args: Sequence[Any], live: Sequence[Any]) -> bool:
    """Whether the operator of this name is one of them, of these arguments, those `live` that depend on the input."""
    return name in _HIDING or singular(name, args, live)


def singular(name: str, args: Sequence[Any], live: Sequence[Any]) -> bool:
    """Whether it may give NaN or infinity itself, and does not only hide them."""
    if name == "pow":  # a whole power is smooth, and so is the quotient by a number
        exponent = args[1] if len(args) > 1 else None
        return not (isinstance(exponent, (int, float)) and exponent >= 0 and float(exponent).is_integer())
    if name == "div":
        return any(x is args[1] for x in live)
    return name in _ALWAYS


def finite_by_mistake(name: str, args: Sequence[Any]) -> str:
    """Of which of its uses plain autograd has a second derivative, 0, where there is none or another; or nothing."""
    if name in ("norm", "linalg_vector_norm") and len(args) > 1 and isinstance(args[1], (int, float)):
        return "norm with p > 2" if 2 < args[1] < math.inf else ""
    if name == "pow" and all(isinstance(x, Tensor) and x.is_floating_point() for x in args):
        return "pow of two tensors"
    return "abs of complex numbers" if name == "abs" and args[0].is_complex() else ""
