"""The benchmark's prepared derivatives: small ones, where a call is mostly machinery."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, hessian, jacrev, jvp, vmap

import funcdiff as fd
from _tools.bench import jax_peer
from _tools.bench.case import Case, Goal, Ways
from funcdiff.problems import study_network

ALONE = "the operations that are left, alone"


def cases() -> Iterator[Case]:
    """A Jacobian, a product and the Hessians of some rows."""
    generator = torch.Generator().manual_seed(0)
    yield layer_jacobian(*(torch.randn(shape, generator=generator) for shape in ((16, 16), (16,), (16,))))
    yield sine_product(*torch.randn(2, 2048, generator=generator))
    yield network_hessian(torch.randn(10, 5, generator=generator))


def layer_jacobian(weight: Tensor, bias: Tensor, x: Tensor) -> Case:
    """A layer of 16 inputs and outputs."""

    def predict(x: Tensor) -> Tensor:
        return torch.tanh(torch.nn.functional.linear(x, weight, bias))

    theirs: Ways = {"torch.func.jacrev": jacrev(predict)}
    peers = jax_peer.layer_jacobian(weight, bias, x)
    return _case("Jacobian of a layer, 16 inputs and outputs", 6, "jacobian", fd.jacobian(predict), theirs, peers, x)


def sine_product(x: Tensor, v: Tensor) -> Case:
    """A product where there is hardly any arithmetic."""

    def func(x: Tensor) -> Tensor:
        return x.sin().sum()

    def product(x: Tensor, v: Tensor) -> Any:
        return fd.hvp(func, (x,), (v,))

    theirs: Ways = {"jvp of torch.func.grad": lambda x, v: jvp(grad(func), (x,), (v,))[1]}
    peers = jax_peer.sine_product(x, v)
    return _case("HVP of the sine sum, 2048 inputs", 15, "hvp", product, theirs, peers, x, v)


def network_hessian(rows: Tensor) -> Case:
    """A network 5 -> 32 -> 32 -> 3: the Hessian of each row."""
    network = study_network((5, 32, 32, 3)).requires_grad_(False)
    theirs: Ways = {"vmap of torch.func.hessian": vmap(hessian(network))}
    peers = jax_peer.hessian(network, rows)
    name = "Hessian of a network 5 -> 32 -> 32 -> 3, 10 rows"
    return _case(name, 7, "batch_hessian", fd.batch_hessian(network), theirs, peers, rows)


def _case(
    name: str, times: float, recipe: str, function: Callable[..., Any], theirs: Ways, peers: Ways, *args: Tensor
) -> Case:
    """As it comes, prepared, compiled and both; held against torch's own and the compiler."""
    line = fd.prepare(function, *args)
    ours, compiled = f"prepare of {recipe}", f"torch.compile of {recipe}"
    ways: Ways = {
        ours: _at_the_first_call(function),
        f"{recipe}, automatic": function,
        compiled: torch.compile(function),
        f"torch.compile of prepare of {recipe}": torch.compile(line),
        ALONE: _operations(line),
    }
    (other,) = theirs
    goals = (
        Goal(f"against {other}", ours, (other,), at_least=times),
        Goal("against torch.compile, compiling left out", ours, (compiled,), at_most=1.5),
    )
    return Case(f"Prepared: {name}", ways | theirs | peers, args, ours, goals=goals, bare=ALONE, products=False)


def _at_the_first_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """Prepared at the first call, whose time is then that of preparing."""
    lines: list[fd.Prepared] = []

    def call(*args: Tensor) -> Any:
        if not lines:
            lines.append(fd.prepare(function, *args))
        return lines[0](*args)

    return call


def _operations(line: fd.Prepared) -> Callable[..., Any]:
    """The printed code, without a look at arguments or at what the function holds."""
    space: dict[str, Any] = {"torch": torch, "aten": torch.ops.aten, "device": torch.device}
    exec(line.code, space)
    run, held = space[line.code.removeprefix("def ").partition("(")[0]], dict(line.held)
    return lambda *args: run(*args, **held)[0]
