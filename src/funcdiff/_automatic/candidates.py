"""Among which recipes the automatic ones choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from funcdiff._automatic import fallback
from funcdiff._calling.options import Options
from funcdiff._calling.transform import transform
from funcdiff._calling.types import Formula, Function
from funcdiff._safety.guard import Recipe, with_safe_forms, with_safe_forms_where_needed
from funcdiff._safety.verification import Kind
from funcdiff.recipes import products, taylor


def _recipe(formula: Formula, depth: int) -> Recipe:
    def recipe(func: Function, *args: Any, **options: Any) -> Function:
        return transform(formula, func, Options(*args, **options), depth=depth)

    return recipe


_WHOLE = fallback.diagonals_of(fallback.HESSIANS["hessian_double_backward"])

JACOBIANS: Mapping[str, Recipe] = {"jacobian_taylor": _recipe(taylor.jacobians, 1), **fallback.JACOBIANS}
HESSIANS: Mapping[str, Recipe] = {"hessian_taylor": _recipe(taylor.hessians, 2), **fallback.HESSIANS}
DIAGONALS: Mapping[str, Recipe] = {
    "hessian_diagonal": _recipe(taylor.diagonals, 1),
    "hessian_forward_over_reverse, diagonal": _recipe(fallback.diagonals, 1),
    "hessian_double_backward, diagonal": _recipe(_WHOLE, 1),
    "hessian_double_backward, one entry at a time": _recipe(fallback.diagonals_one_by_one, 1),
}
LAPLACIANS: Mapping[str, Recipe] = {
    "laplacian": _recipe(taylor.laplacians, 0),
    "hessian_forward_over_reverse, trace": _recipe(fallback.sums(fallback.diagonals), 0),
    "hessian_double_backward, trace": _recipe(fallback.sums(_WHOLE), 0),
    "hessian_double_backward, one entry at a time": _recipe(fallback.sums(fallback.diagonals_one_by_one), 0),
}
PRODUCTS: Mapping[str, Callable[..., Any]] = {
    "hvp_double_backward": with_safe_forms_where_needed(products.hvp_double_backward),
    "hvp_forward_over_reverse": with_safe_forms(products.hvp_forward_over_reverse),
}
RECIPES: Mapping[Kind, Mapping[str, Recipe]] = {
    "jacobian": JACOBIANS,
    "hessian": HESSIANS,
    "diagonal": DIAGONALS,
    "laplacian": LAPLACIANS,
}
