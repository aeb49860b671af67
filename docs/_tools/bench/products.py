"""The benchmark's Hessian-vector products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import functional
from torch.func import grad, jvp, vjp

import funcdiff as fd
from _tools.bench import jax_peer
from _tools.bench.case import Case, Goal, Ways, at_least, compiled
from _tools.bench.curvlinops_peer import hessian_operator
from funcdiff.problems import study_network


def products(func: Callable[[Tensor], Tensor]) -> Ways:
    """Every way to a Hessian-vector product in one tensor."""
    return {
        "hvp, automatic": lambda x, v: fd.hvp(func, (x,), (v,)),
        "hvp_double_backward": lambda x, v: fd.hvp_double_backward(func, (x,), (v,)),
        "hvp_reverse_over_reverse": lambda x, v: fd.hvp_reverse_over_reverse(func, (x,), (v,)),
        "hvp_forward_over_reverse": lambda x, v: fd.hvp_forward_over_reverse(func, (x,), (v,)),
        "jvp of torch.func.grad": lambda x, v: jvp(grad(func), (x,), (v,))[1],
        "vjp of torch.func.grad": lambda x, v: vjp(grad(func), x)[1](v)[0],
        "torch.autograd.functional.vhp": lambda x, v: functional.vhp(func, x, v)[1],
        "torch.autograd.functional.hvp": lambda x, v: functional.hvp(func, x, v)[1],
    }


def mean_square(network: Any) -> Callable[[Tensor], Tensor]:
    """A loss of the network as a function of its input."""
    return lambda x: network(x).square().mean()


def input_product(network: Any, on_meta: Any, batch: Tensor, direction: Tensor) -> Case:
    """A product with the Hessian of a loss by the network's input."""
    timed, counted = products(mean_square(network)), products(mean_square(on_meta))
    counted["a forward pass"] = lambda x, _: mean_square(on_meta)(x)
    peers = compiled(timed, "jvp of torch.func.grad", "vjp of torch.func.grad")
    ours = "hvp_double_backward"
    return Case(
        "HVP in the input of study C's network",
        timed | peers | jax_peer.product(network, batch, direction),
        (batch, direction),
        ours,
        counted,
        (
            *at_least(1.4, ("jvp of torch.func.grad",), ours, "hvp, automatic"),
            Goal("multiply-adds in forward passes", ours, ("a forward pass",), at_most=4, quantity="flops"),
        ),
    )


def parameter_product(batch: Tensor, generator: torch.Generator) -> Case:
    """A product with the Hessian of a loss by the network's parameters, as one vector."""
    network = study_network()
    func, parameters = fd.module_function(network)
    flat, unravel = fd.ravel(parameters)
    target = torch.randn(100, 25, generator=generator)
    v = torch.randn(flat.shape, generator=generator)

    def loss(flat: Tensor) -> Tensor:
        return torch.nn.functional.mse_loss(func(unravel(flat), batch), target)

    operator = fd.hvp_operator(loss, flat)
    # Forward mode is left out: torch 2.13 cannot take the slope of the gradient by one flat vector of parameters.
    names = (
        "hvp_double_backward",
        "hvp_reverse_over_reverse",
        "vjp of torch.func.grad",
        "torch.autograd.functional.vhp",
    )
    timed = {name: products(loss)[name] for name in names}
    timed["hvp_operator, its graph built before"] = lambda _, v: operator(v)
    timed |= hessian_operator(study_network(), batch, target)
    return Case("HVP in the parameters of study C's network", timed, (flat, v), "hvp_double_backward")


def sine_product(x: Tensor, v: Tensor) -> Case:
    """A product where there is hardly any arithmetic."""

    def func(x: Tensor) -> Tensor:
        return x.sin().sum()

    def by_hand(x: Tensor, v: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(func(x), x, create_graph=True)
        return torch.autograd.grad(slope, x, v)[0]

    timed, bare = products(func), "two calls of torch.autograd.grad, nothing checked"
    peers = {bare: by_hand} | compiled(timed, "jvp of torch.func.grad", "hvp_double_backward")
    return Case(
        "HVP of the sine sum, 2048 inputs",
        timed | peers | jax_peer.sine_product(x, v),
        (x, v),
        "hvp_double_backward",
        products(func),
        at_least(6, ("jvp of torch.func.grad",), "hvp_double_backward", "hvp, automatic"),
        bare,
    )
