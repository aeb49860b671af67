"""The recipes under examination, by name: a new one is a name in a list here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from funcdiff._automatic import choice, taylor
from funcdiff._safety.modes import Derivative, Function, Modes, Product
from funcdiff.recipes import hessians, jacobians, products


def _transforms(*recipes: Callable[[Function], Function]) -> dict[str, Derivative]:
    def derivative(recipe: Callable[[Function], Function], func: Function, x: Tensor) -> Tensor:
        return recipe(func)(x)

    return {recipe.__name__: partial(derivative, recipe) for recipe in recipes}


def _products(*recipes: Callable[..., Tensor]) -> dict[str, Product]:
    def product(recipe: Callable[..., Tensor], func: Function, x: Tensor, v: Tensor) -> Tensor:
        return recipe(func, (x,), (v,))

    return {recipe.__name__: partial(product, recipe) for recipe in recipes}


RECIPES = Modes(
    _transforms(
        jacobians.jacobian_loop,
        jacobians.jacobian_batched_grad,
        jacobians.jacobian_reverse,
        jacobians.jacobian_forward,
        taylor.jacobian_taylor,
        choice.jacobian,
    ),
    _transforms(
        hessians.hessian_forward_over_reverse,
        hessians.hessian_reverse_over_reverse,
        hessians.hessian_reverse_over_forward,
        hessians.hessian_forward_over_forward,
        hessians.hessian_double_backward,
        taylor.hessian_taylor,
        choice.hessian,
    ),
    _products(
        products.hvp_forward_over_reverse,
        products.hvp_reverse_over_reverse,
        products.hvp_reverse_over_forward,
        products.hvp_double_backward,
        products.vhp,
        choice.hvp,
    )
    | {"hvp_operator": lambda func, x, v: products.hvp_operator(func, x)(v)},
    _transforms(taylor.hessian_diagonal),
    _transforms(taylor.laplacian),
)
