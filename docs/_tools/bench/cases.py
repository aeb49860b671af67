"""The benchmark's cases, the shapes of the published studies: here the Jacobians, Hessians and Laplacians."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import functional
from torch.func import hessian, jacfwd, jacrev, vmap

import funcdiff as fd
from _tools.bench import jax_peer
from _tools.bench.case import PRODUCTS, Case, Goal, Ways, at_least, compiled
from _tools.bench.products import input_product, parameter_product, sine_product
from _tools.bench.sparse import chain_hessian, stencil_jacobian
from funcdiff.problems import study_network

COMPOSITIONS = ("hessian_forward_over_forward", "torch.func.hessian")


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
    yield stencil_jacobian(torch.rand(2 * 64**2, generator=generator, dtype=torch.float64))
    yield chain_hessian(torch.rand(3000, generator=generator, dtype=torch.float64))


def study_hessian(network: Any, on_meta: Any, batch: Tensor) -> Case:
    """Five inputs, 25 outputs, 100 rows: the Hessian of each row."""

    def ways(network: Any) -> Ways:
        names = ("taylor", "forward_over_forward")
        ours = {f"hessian_{name}": vmap(getattr(fd, f"hessian_{name}")(network)) for name in names}
        return ours | {
            "hessian, automatic": fd.batch_hessian(network, hessian=fd.hessian),
            "torch.func.hessian": vmap(hessian(network)),
        }

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
        timed | peers | jax_peer.hessian(network, batch),
        (batch,),
        "hessian_taylor",
        ways(on_meta) | counted,
        (
            *at_least(8, ("torch.func.hessian",), "hessian_taylor", "hessian, automatic"),
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
        timed | compiled(timed, "laplacian") | jax_peer.laplacian(network, batch),
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
            "jacobian, automatic": fd.batch_jacobian(network, jacobian=fd.jacobian),
            "batch_jacobian_summed": fd.batch_jacobian_summed(network),
            "vmap of torch.func.jacfwd": vmap(jacfwd(network)),
            "vmap of torch.func.jacrev": vmap(jacrev(network)),
            "torch.autograd.functional.jacobian of the sum": functional_jacobian,
        }

    timed = ways(network)
    ours = "batch_jacobian(jacobian=jacobian_taylor)"
    return Case(
        "Jacobian of study C",
        timed | compiled(timed, ours, "vmap of torch.func.jacfwd") | jax_peer.jacobian(network, batch),
        (batch,),
        ours,
        ways(on_meta),
        at_least(1.2, ("vmap of torch.func.jacfwd",), ours, "jacobian, automatic"),
    )


def small_jacobian(generator: torch.Generator) -> Case:
    """A layer of 16 inputs and outputs, where time is the overhead of calls."""
    weight, bias, x = (torch.randn(shape, generator=generator) for shape in ((16, 16), (16,), (16,)))

    def predict(x: Tensor) -> Tensor:
        return torch.tanh(torch.nn.functional.linear(x, weight, bias))

    def by_hand(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(predict(x), x, torch.eye(16), is_grads_batched=True)[0]

    names = ("batched_grad", "reverse", "forward", "loop")
    timed: Ways = {f"jacobian_{name}": getattr(fd, f"jacobian_{name}")(predict) for name in names}
    timed["jacobian, automatic"] = fd.jacobian(predict)
    bare = "one call of torch.autograd.grad, is_grads_batched=True, nothing checked"
    timed |= {
        bare: by_hand,
        "torch.func.jacrev": jacrev(predict),
        "torch.func.jacfwd": jacfwd(predict),
        "torch.autograd.functional.jacobian": lambda x: functional.jacobian(predict, x),
        "torch.autograd.functional.jacobian, vectorize=True": lambda x: functional.jacobian(predict, x, vectorize=True),
    }
    return Case(
        "Jacobian of a layer, 16 inputs and outputs",
        timed | compiled(timed, "torch.func.jacrev") | jax_peer.layer_jacobian(weight, bias, x),
        (x,),
        "jacobian_batched_grad",
        goals=at_least(2, ("torch.func.jacrev",), "jacobian_batched_grad", "jacobian, automatic"),
        bare=bare,
    )
