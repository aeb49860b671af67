"""The columns of the derivative atlas: every recipe, and what chunks and vmap make of some."""

from __future__ import annotations

from typing import Any

import torch
from torch.func import vmap

import funcdiff
from funcdiff._safety.modes import Derivative, Modes
from funcdiff.checks.registry import RECIPES, REGISTRY


def _under_vmap(recipe: Any) -> Derivative:
    """The derivative at the second of two points: what vmap makes of the recipe."""
    return lambda func, x: vmap(recipe(func))(torch.stack([x + 0.1, x]))[1]


def _one_by_one(recipe: Any) -> Derivative:
    return lambda func, x: recipe(func, chunk_size=1)(x)


def _modes() -> Modes:
    """The recipes; Jacobians also one direction at a time and under vmap, and two Hessians one direction at a time."""
    one_by_one = (*RECIPES.jacobians, "hessian_forward_over_reverse", "hessian_reverse_over_reverse")
    chunked = {f"{name}, chunk_size=1": _one_by_one(getattr(funcdiff, name)) for name in one_by_one}
    batched = {f"{name}, vmap": _under_vmap(getattr(funcdiff, name)) for name in RECIPES.jacobians}
    hessians = {name: recipe for name, recipe in chunked.items() if name.startswith("hessian")}
    first = {name: recipe for name, recipe in chunked.items() if name.startswith("jacobian")}
    return RECIPES._replace(jacobians=RECIPES.jacobians | first | batched, hessians=RECIPES.hessians | hessians)


MODES = _modes()
NAMES = [name for group in MODES for name in group]
_AUTOMATIC = {entry.name for entry in REGISTRY if entry.automatic}
PLANNED = [name for name in NAMES if name.partition(",")[0] in _AUTOMATIC]  # these read what is known to be wrong
