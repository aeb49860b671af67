"""Functions with what torch 2.13 differentiates twice wrong, without an error, put right or refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from funcdiff._calling.types import Function
from funcdiff._jets.jet import check_grad_mode
from funcdiff._jets.layers import NORMS
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.transforms import plain_allowed
from funcdiff._torch.trees import Tree

Recipe = Callable[..., Function]


def with_safe_norms(recipe: Recipe) -> Recipe:
    """`recipe`, of functions corrected."""
    return lambda func, *args, **options: recipe(corrected(func), *args, **options)


def with_safe_norms_inside(recipe: Recipe) -> Recipe:
    """The same inside a transform only, for a recipe on plain autograd, which has norms right."""
    right = with_safe_norms(recipe)
    return lambda func, *args, **options: (recipe if plain_allowed() else right)(func, *args, **options)


def corrected(func: Function) -> Function:
    """`func` with what torch 2.13 differentiates twice wrong put right, or refused."""
    grad_enabled = torch.is_grad_enabled()

    @functools.wraps(func, updated=())
    def run(*args: Tree) -> Tree:
        with _Guard(grad_enabled):
            return func(*args)

    return run


class _Guard(TorchFunctionMode):
    """Put right, or refuse, what torch 2.13 differentiates twice wrong without an error.

    NOTE [norms]. All four compositions get the block d²/dweight dx of layer_norm and batch_norm wrong; written as a
    composition of simpler operations they are right.
    """

    def __init__(self, grad_enabled: bool) -> None:
        super().__init__()
        self.grad_enabled = grad_enabled

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in NORMS:
            return NORMS[func](func, args, kwargs)
        if plain_allowed():  # which has the others right, and runs custom functions under no_grad() itself
            return func(*args, **kwargs)
        check_grad_mode(self.grad_enabled)
        if func in _WRONG or (func in _SCATTER and "prod" in (*args[3:], kwargs.get("reduce"))):
            raise RefusedError(
                f"torch differentiates {func.__name__} twice wrong, without an error: use its form in "
                "torch.nn.functional, or write it with simpler operations"
            )
        return func(*args, **kwargs)


def _forms(names: str) -> frozenset[Any]:
    """The functions, the methods and the operators of these names."""
    forms: set[Any] = set()
    for name in names.split():
        operator = getattr(torch.ops.aten, name)
        forms.update((operator, *(getattr(operator, overload) for overload in operator.overloads())))
        forms.update(getattr(space, name) for space in (torch, torch.Tensor) if hasattr(space, name))
    return frozenset(forms)


_WRONG = _forms(
    """native_layer_norm native_batch_norm native_group_norm _native_batch_norm_legit _batch_norm_with_update batch_norm
    instance_norm"""
)
_SCATTER = _forms("scatter_reduce scatter_reduce_")
