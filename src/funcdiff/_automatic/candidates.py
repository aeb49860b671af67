"""Among which recipes the automatic ones choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from funcdiff._automatic import fallback
from funcdiff._automatic.taylor import hessian_taylor, jacobian_taylor
from funcdiff._safety.guard import Recipe, with_safe_norms, with_safe_norms_inside
from funcdiff.recipes import products

JACOBIANS: Mapping[str, Recipe] = {"jacobian_taylor": jacobian_taylor, **fallback.JACOBIANS}
HESSIANS: Mapping[str, Recipe] = {"hessian_taylor": hessian_taylor, **fallback.HESSIANS}
PRODUCTS: Mapping[str, Callable[..., Any]] = {
    "hvp_double_backward": with_safe_norms_inside(products.hvp_double_backward),
    "hvp_forward_over_reverse": with_safe_norms(products.hvp_forward_over_reverse),
}
