"""The columns of the derivative atlas: every recipe, and what chunks, a batch and one more derivative make of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from funcdiff._automatic.candidates import PRODUCTS
from funcdiff._automatic.candidates import RECIPES as CHOICES
from funcdiff._safety.known_wrong import INSIDE_TRANSFORM
from funcdiff._safety.modes import Derivative, Function, Modes
from funcdiff.checks.registry import RECIPES, REGISTRY

ENTRIES = {entry.name: entry for entry in REGISTRY}
_AUTOMATIC = {entry.name for entry in REGISTRY if entry.automatic}


def _under_vmap(name: str) -> Any:
    """What vmap makes of a recipe at the second of two points."""
    return lambda func, x, *v: vmap(lambda row: ENTRIES[name](func, row, *v))(torch.stack([x + 0.1, x]))[1]


def _one_by_one(name: str) -> Derivative:
    return lambda func, x: ENTRIES[name].recipe(func, chunk_size=1)(x)


def _once_more(name: str) -> Derivative:
    """The gradient, by plain autograd, of the Laplacian that the recipe gives of a function with one output."""

    def gradient(func: Function, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(_trace(name, func, x), x)[0]

    return gradient


def _trace(name: str, func: Function, x: Tensor) -> Tensor:
    entry = ENTRIES[name]
    if entry.takes_vector:
        return torch.stack([entry(func, x, axis) @ axis for axis in torch.eye(len(x)).to(x)]).sum()
    found = entry(func, x)
    return found.trace() if entry.kind == "hessian" else found.sum()


def _modes() -> Modes:
    """The recipes; some one direction at a time; in a batch, and second derivatives differentiated once more.

    Of the automatic ones the second derivatives only alone: what they choose elsewhere is checked where it is used.
    """
    one_by_one = (*RECIPES.jacobians, "hessian_forward_over_reverse", "hessian_reverse_over_reverse")
    second = [name for group in (RECIPES.hessians, *RECIPES[2:5]) for name in group if name not in _AUTOMATIC]
    batched = (*RECIPES.jacobians, *second)

    def with_variants(group: Any) -> Any:
        chunked = {f"{name}, chunk_size=1": _one_by_one(name) for name in group if name in one_by_one}
        return group | chunked | {f"{name}, vmap": _under_vmap(name) for name in group if name in batched}

    return Modes(*map(with_variants, RECIPES[:5]), {f"{name}, once more": _once_more(name) for name in second})


MODES = _modes()
NAMES = [name for group in MODES for name in group]
PLANNED = [name for name in NAMES if name.partition(",")[0] in _AUTOMATIC]  # these read what is known to be wrong
FIXED = [name for name in NAMES if name not in PLANNED]
_CHOSEN = {name.partition(",")[0] for names in (*CHOICES.values(), PRODUCTS) for name in names}
_IN_A_BATCH = {f"{INSIDE_TRANSFORM.get(name, name)}, vmap" for name in _CHOSEN}
COMPARED = [  # with other versions of torch: the recipes, and in a batch those that the automatic ones choose among
    name
    for name in FIXED
    if name in _IN_A_BATCH or ("," not in name and name not in ("vhp", "hvp_reverse_over_forward"))
]
