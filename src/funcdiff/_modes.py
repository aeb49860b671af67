"""The recipes under examination, each as a function of (func, point) or (func, point, direction)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, jacfwd, jacrev, jvp, vjp

Function = Callable[[Tensor], Tensor]


def _loop(f: Function, x: Tensor) -> Tensor:
    x = x.requires_grad_()
    y = f(x)
    if not y.requires_grad:
        return x.new_zeros(len(y), len(x))
    return torch.stack([torch.autograd.grad(yi, x, retain_graph=True, materialize_grads=True)[0] for yi in y])


def _batched(f: Function, x: Tensor) -> Tensor:
    x = x.requires_grad_()
    y = f(x)
    return torch.autograd.grad(y, x, torch.eye(len(y), dtype=x.dtype), is_grads_batched=True)[0]


def _double_backward(f: Function, x: Tensor, v: Tensor) -> Tensor:
    x = x.requires_grad_()
    (g,) = torch.autograd.grad(f(x), x, create_graph=True)
    return torch.autograd.grad(g, x, v, materialize_grads=True)[0]


class Modes(NamedTuple):
    """Recipes by name: (func, x) -> Jacobian or Hessian, (func, x, v) -> product."""

    jacobians: dict[str, Callable[[Function, Tensor], Tensor]]
    hessians: dict[str, Callable[[Function, Tensor], Tensor]]
    products: dict[str, Callable[[Function, Tensor, Tensor], Tensor]]


RECIPES = Modes(
    {
        "jacobian_loop": _loop,
        "jacobian_batched_grad": _batched,
        "jacobian_reverse": lambda f, x: jacrev(f)(x),
        "jacobian_forward": lambda f, x: jacfwd(f)(x),
    },
    {
        "hessian_forward_over_reverse": lambda f, x: jacfwd(jacrev(f))(x),
        "hessian_reverse_over_reverse": lambda f, x: jacrev(jacrev(f))(x),
        "hessian_reverse_over_forward": lambda f, x: jacrev(jacfwd(f))(x),
        "hessian_forward_over_forward": lambda f, x: jacfwd(jacfwd(f))(x),
    },
    {
        "hvp_forward_over_reverse": lambda f, x, v: jvp(grad(f), (x,), (v,))[1],
        "hvp_reverse_over_reverse": lambda f, x, v: vjp(grad(f), x)[1](v)[0],
        "hvp_reverse_over_forward": lambda f, x, v: grad(lambda z: jvp(f, (z,), (v,))[1])(x),
        "hvp_double_backward": _double_backward,
    },
)
