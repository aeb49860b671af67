"""The columns of the derivative atlas: every recipe, and what chunks, vmap and one more derivative make of some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from funcdiff._safety.modes import Derivative, Function, Modes, Product
from funcdiff.checks.registry import RECIPES, REGISTRY

ENTRIES = {entry.name: entry for entry in REGISTRY}


def _rows(x: Tensor) -> Tensor:
    """Two different points, the second of which is looked at."""
    return torch.stack([x + 0.1, x])


def _under_vmap(name: str) -> Derivative:
    """What vmap makes of a recipe at the second of two points."""
    return lambda func, x: vmap(lambda row: ENTRIES[name](func, row))(_rows(x))[1]


def _product_under_vmap(name: str) -> Product:
    return lambda func, x, v: vmap(lambda row: ENTRIES[name](func, row, v))(_rows(x))[1]


def _one_by_one(name: str) -> Derivative:
    return lambda func, x: ENTRIES[name].recipe(func, chunk_size=1)(x)


def _trace(name: str, func: Function, x: Tensor) -> Tensor:
    """The Laplacian of a function with one output, by a recipe of any second derivative."""
    entry = ENTRIES[name]
    if entry.takes_vector:
        return torch.stack([entry(func, x, axis) @ axis for axis in torch.eye(len(x)).to(x)]).sum()
    found = entry(func, x)
    return found.trace() if entry.kind == "hessian" else found.sum()


def _trained(name: str) -> Derivative:
    def gradient(func: Function, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(_trace(name, func, x), x)[0]

    return gradient


def _trained_under_vmap(name: str) -> Derivative:
    def gradient(func: Function, x: Tensor) -> Tensor:
        rows = _rows(x.detach()).requires_grad_()
        return torch.autograd.grad(vmap(lambda row: _trace(name, func, row))(rows).sum(), rows)[0][1]

    return gradient


def _modes() -> Modes:
    """The recipes; Jacobians and two Hessians also one direction at a time.

    All under vmap too; those of second order also differentiated once more, alone and under vmap.
    """
    chunked = {f"{name}, chunk_size=1": _one_by_one(name) for name in (*RECIPES.jacobians, *_CHUNKED)}
    hessians = {name: recipe for name, recipe in chunked.items() if name.startswith("hessian")}
    jacobians = {name: recipe for name, recipe in chunked.items() if name.startswith("jacobian")}
    second = (*RECIPES.hessians, *RECIPES.products, *RECIPES.diagonals, *RECIPES.laplacians)

    def batched(names: Mapping[str, Any]) -> dict[str, Derivative]:
        return {f"{name}, vmap": _under_vmap(name) for name in names}

    return Modes(
        RECIPES.jacobians | jacobians | batched(RECIPES.jacobians),
        RECIPES.hessians | hessians | batched(RECIPES.hessians),
        RECIPES.products | {f"{name}, vmap": _product_under_vmap(name) for name in RECIPES.products},
        RECIPES.diagonals | batched(RECIPES.diagonals),
        RECIPES.laplacians | batched(RECIPES.laplacians),
        {f"{name}, once more": _trained(name) for name in second}
        | {f"{name}, vmap, once more": _trained_under_vmap(name) for name in second},
    )


_CHUNKED = ("hessian_forward_over_reverse", "hessian_reverse_over_reverse")
MODES = _modes()
NAMES = [name for group in MODES for name in group]
_AUTOMATIC = {entry.name for entry in REGISTRY if entry.automatic}
PLANNED = [name for name in NAMES if name.partition(",")[0] in _AUTOMATIC]  # these read what is known to be wrong
