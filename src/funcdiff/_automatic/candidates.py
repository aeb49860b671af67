"""Among which recipes the automatic ones choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from funcdiff._automatic import fallback
from funcdiff._calling.options import Options
from funcdiff._calling.point import at_known_point
from funcdiff._calling.transform import transform
from funcdiff._calling.types import Formula, Function
from funcdiff._safety.guard import Recipe, with_safe_forms, with_safe_forms_where_needed
from funcdiff._safety.verification import Kind
from funcdiff.recipes import products, taylor
from funcdiff.recipes.hessians import hessian_double_backward


def recipe_of(formula: Formula, depth: int) -> Recipe:
    """A formula as a recipe."""

    def recipe(func: Function, *args: Any, **options: Any) -> Function:
        return transform(formula, func, Options(*args, **options), depth=depth)

    return recipe


_WHOLE = fallback.diagonals_of(fallback.HESSIANS["hessian_double_backward"])

JACOBIANS: Mapping[str, Recipe] = {"jacobian_taylor": recipe_of(taylor.jacobians, 1), **fallback.JACOBIANS}
HESSIANS: Mapping[str, Recipe] = {"hessian_taylor": recipe_of(taylor.hessians, 2), **fallback.HESSIANS}
DIAGONALS: Mapping[str, Recipe] = {
    "hessian_diagonal": recipe_of(taylor.diagonals, 1),
    "hessian_forward_over_reverse, diagonal": recipe_of(fallback.diagonals, 1),
    "hessian_double_backward, diagonal": recipe_of(_WHOLE, 1),
    "hessian_double_backward, one entry at a time": recipe_of(fallback.diagonals_one_by_one, 1),
}
LAPLACIANS: Mapping[str, Recipe] = {
    "laplacian": recipe_of(taylor.laplacians, 0),
    "hessian_forward_over_reverse, trace": recipe_of(fallback.sums(fallback.diagonals), 0),
    "hessian_double_backward, trace": recipe_of(fallback.sums(_WHOLE), 0),
    "hessian_double_backward, one entry at a time": recipe_of(fallback.sums(fallback.diagonals_one_by_one), 0),
}
PRODUCTS: Mapping[str, Callable[..., Any]] = {
    "hvp_double_backward": with_safe_forms_where_needed(products.hvp_double_backward),
    "hvp_forward_over_reverse": with_safe_forms(products.hvp_forward_over_reverse),
    "hessian_forward_over_forward, product": with_safe_forms(fallback.product_by_forward_mode),
}
# Where plain autograd is available, and func has no operation in whose place a corrected one has others, these are
# right of func itself: the mode that puts them there takes longer than the rest of a small function. Of func, `lookup`
# has refused what recipes refuse.
UNCORRECTED: Mapping[str, Callable[..., Any]] = {
    "hvp_double_backward": partial(at_known_point, lambda flat, x, v: products.plain_curvature(flat, x)(v)),
    "hessian_double_backward": hessian_double_backward,
}
RECIPES: Mapping[Kind, Mapping[str, Recipe]] = {
    "jacobian": JACOBIANS,
    "hessian": HESSIANS,
    "diagonal": DIAGONALS,
    "laplacian": LAPLACIANS,
}
