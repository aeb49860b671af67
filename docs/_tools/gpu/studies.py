"""The rows of the published studies, on any device: the ways to each derivative, and their arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.nn.functional import linear

import funcdiff as fd
from funcdiff.problems import study_network


class Row(NamedTuple):
    """One derivative of a study: the ways to compute it, and the arguments that they all take."""

    study: str
    name: str
    ways: dict[str, Callable[..., Any]]
    args: tuple[Tensor, ...]


def rows(device: str) -> Iterator[Row]:
    """Every row, with the same numbers on each device."""
    yield from composing(device)
    yield from interfaces(device)
    yield from networks(device)


def numbers(device: str, *shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Standard normal numbers, drawn on the processor."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator).to(device) for shape in shapes)


def predict(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """The layer of studies A and B."""
    return torch.tanh(linear(x, weight, bias))


def composing(device: str) -> Iterator[Row]:
    """Study A: one layer, its Jacobians and Hessian, and a Hessian-vector product."""
    jacobians: dict[str, Callable[..., Any]] = {
        "jacobian": fd.jacobian,
        "jacobian_forward": fd.jacobian_forward,
        "jacobian_reverse": fd.jacobian_reverse,
        "torch.func.jacfwd": jacfwd,
        "torch.func.jacrev": jacrev,
    }
    for outputs, inputs in ((16, 16), (2048, 32), (32, 2048)):
        args = numbers(device, (outputs, inputs), (outputs,), (inputs,))
        ways = {name: recipe(predict, argnums=2) for name, recipe in jacobians.items()}
        yield Row("A", f"Jacobian, {inputs} inputs, {outputs} outputs", ways, args)

    args = numbers(device, (32, 512), (32,), (512,))
    hessians: dict[str, Callable[..., Any]] = {
        "hessian": fd.hessian,
        "hessian_taylor": fd.hessian_taylor,
        "hessian_forward_over_forward": fd.hessian_forward_over_forward,
        "torch.func.hessian": hessian,
    }
    ways = {name: recipe(predict, argnums=2) for name, recipe in hessians.items()}
    yield Row("A", "Hessian, 512 inputs, 32 outputs", ways, args)

    def sine_sum(x: Tensor) -> Tensor:
        return torch.sin(x).sum()

    products: dict[str, Callable[..., Any]] = {
        "hvp": lambda x, v: fd.hvp(sine_sum, (x,), (v,)),
        "hvp_double_backward": lambda x, v: fd.hvp_double_backward(sine_sum, (x,), (v,)),
        "jvp of torch.func.grad": lambda x, v: jvp(grad(sine_sum), (x,), (v,))[1],
    }
    yield Row("A", "HVP of the sine sum, 2048 inputs", products, numbers(device, (2048,), (2048,)))


def interfaces(device: str) -> Iterator[Row]:
    """Study B: an affine map, with respect to its input, alone and in a batch of 4, and to its weight."""
    modes: dict[str, Callable[..., Any]] = {
        "jacobian": fd.jacobian,
        "jacobian_forward": fd.jacobian_forward,
        "jacobian_reverse": fd.jacobian_reverse,
    }
    for outputs, inputs in ((10240, 16), (16, 10240)):
        weight, bias, x, batch = numbers(device, (outputs, inputs), (outputs,), (inputs,), (4, inputs))
        alone = {name: recipe(linear, argnums=0) for name, recipe in modes.items()}
        yield Row("B", f"Jacobian, {inputs} inputs, {outputs} outputs", alone, (x, weight, bias))
        dims = (0, None, None)
        of_rows = {name: fd.batch_jacobian(linear, in_dims=dims, jacobian=recipe) for name, recipe in modes.items()}
        yield Row("B", f"the same for a batch of 4, {inputs} inputs", of_rows, (batch, weight, bias))
    for outputs in (1024, 16):
        weight, bias, x = numbers(device, (outputs, 16384 // outputs), (outputs,), (16384 // outputs,))
        ways = {name: recipe(linear, argnums=1) for name, recipe in modes.items()}
        yield Row("B", f"Jacobian of the 16384 weights, {outputs} outputs", ways, (x, weight, bias))


def networks(device: str) -> Iterator[Row]:
    """Study C: a network 5 -> 1000 -> 1000 -> 25 on 100 rows; on 10 for the two Hessians that need gigabytes."""
    network = study_network().to(device).requires_grad_(False)
    (batch,) = numbers(device, (100, 5))
    recipes = ("jacobian_forward", "jacobian_reverse", "hessian_taylor", "hessian_forward_over_forward")
    named = {name: vmap(getattr(fd, name)(network)) for name in recipes}
    firsts = {"batch_jacobian": fd.batch_jacobian(network)} | {n: w for n, w in named.items() if "jacobian" in n}
    yield Row("C", "Jacobian of each of 100 rows", firsts, (batch,))
    seconds = {"batch_hessian": fd.batch_hessian(network)} | {n: w for n, w in named.items() if "hessian" in n}
    yield Row("C", "Hessian of each of 100 rows", seconds | {"torch.func.hessian": vmap(hessian(network))}, (batch,))
    slow = ("hessian_forward_over_reverse", "hessian_reverse_over_forward", "hessian_reverse_over_reverse")
    every = {n: w for n, w in named.items() if "hessian" in n} | {n: vmap(getattr(fd, n)(network)) for n in slow}
    yield Row("C", "Hessian of each of 10 rows", every, (batch[:10],))
    traces = {"laplacian": vmap(fd.laplacian(network)), "trace of torch.func.hessian": trace(network)}
    yield Row("C", "Laplacian of each of 100 rows", traces, (batch,))


def trace(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The Laplacian of each row by way of its Hessian."""
    return lambda batch: vmap(hessian(network))(batch).diagonal(0, -2, -1).sum(-1)
