"""Recipes by what they compute, for an examination."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

Function = Callable[[Tensor], Tensor]
Derivative = Callable[[Function, Tensor], Tensor]  # (func, x) -> Jacobian, Hessian, its diagonal, its trace
Product = Callable[[Function, Tensor, Tensor], Tensor]  # (func, x, v) -> Hessian times v


class Modes(NamedTuple):
    """Recipes by what they compute."""

    jacobians: dict[str, Derivative]
    hessians: dict[str, Derivative]
    products: dict[str, Product]
    diagonals: dict[str, Derivative]
    laplacians: dict[str, Derivative]
    once_more: Mapping[str, Derivative] = MappingProxyType({})
    """The gradient of the Laplacian of a function with one output: second derivatives, differentiated once more."""
