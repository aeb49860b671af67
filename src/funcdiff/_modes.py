"""The recipes under examination, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from funcdiff import hessians, jacobians, products

Function = Callable[[Tensor], Tensor]


class Modes(NamedTuple):
    """(func, x) -> Jacobian or Hessian, (func, x, v) -> product."""

    jacobians: dict[str, Callable[[Function, Tensor], Tensor]]
    hessians: dict[str, Callable[[Function, Tensor], Tensor]]
    products: dict[str, Callable[[Function, Tensor, Tensor], Tensor]]


def _transform(recipe: Callable[[Function], Function]) -> Callable[[Function, Tensor], Tensor]:
    return lambda func, x: recipe(func)(x)


def _product(recipe: Callable[..., Tensor]) -> Callable[[Function, Tensor, Tensor], Tensor]:
    return lambda func, x, v: recipe(func, (x,), (v,))


_JACOBIANS = (
    jacobians.jacobian_loop,
    jacobians.jacobian_batched_grad,
    jacobians.jacobian_reverse,
    jacobians.jacobian_forward,
)
_HESSIANS = (
    hessians.hessian_forward_over_reverse,
    hessians.hessian_reverse_over_reverse,
    hessians.hessian_reverse_over_forward,
    hessians.hessian_forward_over_forward,
)
_PRODUCTS = (
    products.hvp_forward_over_reverse,
    products.hvp_reverse_over_reverse,
    products.hvp_reverse_over_forward,
    products.hvp_double_backward,
)

RECIPES = Modes(
    {recipe.__name__: _transform(recipe) for recipe in _JACOBIANS},
    {recipe.__name__: _transform(recipe) for recipe in _HESSIANS},
    {recipe.__name__: _product(recipe) for recipe in _PRODUCTS}
    | {"hvp_operator": lambda func, x, v: products.hvp_operator(func, x)(v)},
)
