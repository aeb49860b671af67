"""The benchmark's cases: one derivative each, by every way to it, and the goals that ours are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import bench_jax
import torch
from bench_curvlinops import hessian_operator
from torch import Tensor
from torch.autograd import functional
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import funcdiff as fd
from funcdiff.problems import study_network

Ways = dict[str, Callable[..., Any]]
PRODUCTS = "its matrix products alone"  # of the recipe that a case names: no goal beyond it can be reached
COMPOSITIONS = ("hessian_forward_over_forward", "torch.func.hessian")


@dataclass(frozen=True)
class Goal:
    """How many times less than the best of the others one of our recipes is to take; at_most: how many times theirs."""

    what: str
    ours: str
    others: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None
    quantity: Literal["time", "peak_bytes", "flops"] = "time"


@dataclass(frozen=True)
class Case:
    """Ways to one derivative: `ways` are timed on `args`; `counted`, on meta tensors, is every way that can be counted.

    Of `floor` the matrix products are timed beside it. What takes longer than the budget is cut off.
    """

    name: str
    ways: Ways
    args: tuple[Any, ...]
    floor: str
    counted: Ways = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()

    @property
    def meta(self) -> tuple[Any, ...]:
        """The arguments without their numbers."""
        return tuple(arg.to("meta") for arg in self.args)


def cases() -> Iterator[Case]:
    """Every row of the table, the shapes of the published studies."""
    generator = torch.Generator().manual_seed(0)
    network, on_meta = (study_network().requires_grad_(False).to(device) for device in ("cpu", "meta"))
    batch = torch.randn(100, 5, generator=generator)
    yield study_hessian(network, on_meta, batch)
    yield study_laplacian(network, on_meta, batch)
    yield study_jacobian(network, on_meta, batch)
    yield input_product(network, on_meta, batch, torch.randn(100, 5, generator=generator))
    yield parameter_product(batch, generator)
    yield sine_product(*torch.randn(2, 2048, generator=generator))
    yield small_jacobian(generator)


def compiled(ways: Mapping[str, Callable[..., Any]], *names: str) -> Ways:
    """The named ways under torch.compile."""
    return {f"torch.compile of {name}": torch.compile(ways[name]) for name in names}


def study_hessian(network: Any, on_meta: Any, batch: Tensor) -> Case:
    """Five inputs, 25 outputs, 100 rows: the Hessian of each row."""

    def ways(network: Any) -> Ways:
        names = ("taylor", "forward_over_forward")
        ours = {f"hessian_{name}": vmap(getattr(fd, f"hessian_{name}")(network)) for name in names}
        return ours | {"torch.func.hessian": vmap(hessian(network))}

    def one_output(row: Tensor, k: int) -> Tensor:
        return functional.hessian(lambda x: network(x)[k], row, vectorize=True)

    def functional_hessian(batch: Tensor) -> Tensor:
        return torch.stack([torch.stack([one_output(row, k) for k in range(25)]) for row in batch])

    timed = ways(network)
    peers = compiled(timed, "hessian_taylor", "hessian_forward_over_forward", "torch.func.hessian")
    peers["torch.autograd.functional.hessian, a row and an output at a time"] = functional_hessian
    slow = ("forward_over_reverse", "reverse_over_forward", "reverse_over_reverse")
    counted = {f"hessian_{name}": vmap(getattr(fd, f"hessian_{name}")(on_meta)) for name in slow}
    return Case(
        "Hessian of study C",
        timed | peers | bench_jax.hessian(network, batch),
        (batch,),
        "hessian_taylor",
        ways(on_meta) | counted,
        (
            Goal("against torch.func.hessian", "hessian_taylor", ("torch.func.hessian",), at_least=8),
            Goal("against the best composition", "hessian_taylor", COMPOSITIONS, at_least=2.2),
            Goal("peak bytes", "hessian_taylor", ("torch.func.hessian",), at_least=6, quantity="peak_bytes"),
            Goal("against its matrix products", "hessian_taylor", (PRODUCTS,), at_most=1.7),
        ),
    )


def trace(hessians: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    """The Laplacian by way of the whole Hessian."""
    return lambda x: hessians(x).diagonal(0, -2, -1).sum(-1)


def study_laplacian(network: Any, on_meta: Any, batch: Tensor) -> Case:
    """The same network's Laplacian."""

    def ways(network: Any) -> Ways:
        return {
            "laplacian": vmap(fd.laplacian(network)),
            "trace of hessian_taylor": trace(vmap(fd.hessian_taylor(network))),
            "trace of hessian_forward_over_forward": trace(vmap(fd.hessian_forward_over_forward(network))),
            "trace of torch.func.hessian": trace(vmap(hessian(network))),
        }

    timed = ways(network)
    return Case(
        "Laplacian of study C",
        timed | compiled(timed, "laplacian") | bench_jax.laplacian(network, batch),
        (batch,),
        "laplacian",
        ways(on_meta),
        (Goal("against the trace of the Hessian", "laplacian", ("trace of torch.func.hessian",), at_least=15),),
    )


def study_jacobian(network: Any, on_meta: Any, batch: Tensor) -> Case:
    """The same network's Jacobian, row by row."""

    def ways(network: Any) -> Ways:
        def functional_jacobian(batch: Tensor) -> Tensor:
            return functional.jacobian(lambda x: network(x).sum(0), batch, vectorize=True).movedim(1, 0)

        return {
            "batch_jacobian(jacobian=jacobian_taylor)": fd.batch_jacobian(network, jacobian=fd.jacobian_taylor),
            "batch_jacobian(jacobian=jacobian_forward)": fd.batch_jacobian(network, jacobian=fd.jacobian_forward),
            "batch_jacobian_summed": fd.batch_jacobian_summed(network),
            "vmap of torch.func.jacfwd": vmap(jacfwd(network)),
            "vmap of torch.func.jacrev": vmap(jacrev(network)),
            "torch.autograd.functional.jacobian of the sum": functional_jacobian,
        }

    timed = ways(network)
    ours = "batch_jacobian(jacobian=jacobian_taylor)"
    return Case(
        "Jacobian of study C",
        timed | compiled(timed, ours, "vmap of torch.func.jacfwd") | bench_jax.jacobian(network, batch),
        (batch,),
        ours,
        ways(on_meta),
        (Goal("against vmap(jacfwd)", ours, ("vmap of torch.func.jacfwd",), at_least=1.2),),
    )


def products(func: Callable[[Tensor], Tensor]) -> Ways:
    """Every way to a Hessian-vector product in one tensor."""
    return {
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
        timed | peers | bench_jax.product(network, batch, direction),
        (batch, direction),
        ours,
        counted,
        (
            Goal("against jvp(grad)", ours, ("jvp of torch.func.grad",), at_least=1.4),
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
    timed = products(lambda x: x.sin().sum())
    peers = compiled(timed, "jvp of torch.func.grad", "hvp_double_backward")
    goal = Goal("against jvp(grad)", "hvp_double_backward", ("jvp of torch.func.grad",), at_least=6)
    return Case(
        "HVP of the sine sum, 2048 inputs",
        timed | peers | bench_jax.sine_product(x, v),
        (x, v),
        "hvp_double_backward",
        products(lambda x: x.sin().sum()),
        (goal,),
    )


def small_jacobian(generator: torch.Generator) -> Case:
    """A layer of 16 inputs and outputs, where time is the overhead of calls."""
    weight, bias, x = (torch.randn(shape, generator=generator) for shape in ((16, 16), (16,), (16,)))

    def predict(x: Tensor) -> Tensor:
        return torch.tanh(torch.nn.functional.linear(x, weight, bias))

    names = ("batched_grad", "reverse", "forward", "loop")
    timed: Ways = {f"jacobian_{name}": getattr(fd, f"jacobian_{name}")(predict) for name in names}
    timed |= {
        "torch.func.jacrev": jacrev(predict),
        "torch.func.jacfwd": jacfwd(predict),
        "torch.autograd.functional.jacobian": lambda x: functional.jacobian(predict, x),
        "torch.autograd.functional.jacobian, vectorize=True": lambda x: functional.jacobian(predict, x, vectorize=True),
    }
    goal = Goal("against jacrev", "jacobian_batched_grad", ("torch.func.jacrev",), at_least=2)
    return Case(
        "Jacobian of a layer, 16 inputs and outputs",
        timed | compiled(timed, "torch.func.jacrev") | bench_jax.layer_jacobian(weight, bias, x),
        (x,),
        "jacobian_batched_grad",
        goals=(goal,),
    )
