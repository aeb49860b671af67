"""JAX's jit as a foreign reference, where JAX is installed: the same derivatives, of the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

Ways = dict[str, Callable[..., Any]]
INSTALLED = find_spec("jax") is not None
ASDEX = INSTALLED and find_spec("asdex") is not None  # sparse derivatives for JAX

if INSTALLED:
    import jax
    import jax.numpy as jnp


def _way(name: str, func: Callable[..., Any], *args: Tensor) -> Ways:
    """`func` of the arguments in JAX's hands, compiled; its result goes back to torch without a copy."""
    given = [jnp.asarray(arg.numpy()) for arg in args]
    call = jax.jit(func)
    return {f"JAX {jax.__version__}, jit of {name}": lambda *_: torch.from_dlpack(jax.block_until_ready(call(*given)))}


def _network(network: Any) -> Callable[[Any], Any]:
    layers = [
        (jnp.asarray(layer.weight.detach().numpy()), jnp.asarray(layer.bias.detach().numpy()))
        for layer in network
        if isinstance(layer, torch.nn.Linear)
    ]

    def run(x: Any) -> Any:
        for weight, bias in layers[:-1]:
            x = jax.nn.elu(x @ weight.T + bias)
        weight, bias = layers[-1]
        return x @ weight.T + bias

    return run


def hessian(network: Any, batch: Tensor) -> Ways:
    """Forward over reverse, and forward over forward, which is the better here."""
    if not INSTALLED:
        return {}
    func = _network(network)
    twice = jax.vmap(jax.jacfwd(jax.jacfwd(func)))
    return _way("hessian", jax.vmap(jax.hessian(func)), batch) | _way("jacfwd(jacfwd)", twice, batch)


def laplacian(network: Any, batch: Tensor) -> Ways:
    """The trace of forward over forward."""
    if not INSTALLED:
        return {}
    twice = jax.vmap(jax.jacfwd(jax.jacfwd(_network(network))))
    return _way("the trace of jacfwd(jacfwd)", lambda x: jnp.trace(twice(x), axis1=-2, axis2=-1), batch)


def jacobian(network: Any, batch: Tensor) -> Ways:
    """Forward mode, row by row."""
    return _way("jacfwd", jax.vmap(jax.jacfwd(_network(network))), batch) if INSTALLED else {}


def product(network: Any, batch: Tensor, direction: Tensor) -> Ways:
    """Forward over reverse, of the mean square."""
    if not INSTALLED:
        return {}
    func = _network(network)
    slope = jax.grad(lambda x: jnp.mean(func(x) ** 2))
    return _way("jvp(grad)", lambda x, v: jax.jvp(slope, (x,), (v,))[1], batch, direction)


def sine_product(x: Tensor, v: Tensor) -> Ways:
    """Forward over reverse."""
    if not INSTALLED:
        return {}
    slope = jax.grad(lambda x: jnp.sin(x).sum())
    return _way("jvp(grad)", lambda x, v: jax.jvp(slope, (x,), (v,))[1], x, v)


def layer_jacobian(weight: Tensor, bias: Tensor, x: Tensor) -> Ways:
    """Reverse mode."""
    if not INSTALLED:
        return {}
    jacobian = jax.jacrev(lambda weight, bias, x: jnp.tanh(weight @ x + bias), argnums=2)
    return _way("jacrev", jacobian, weight, bias, x)


def sparse_jacobian(y: Tensor, pattern: Any) -> Ways:
    """The Jacobian of the Brusselator, by asdex."""
    return _sparse("jacobian", brusselator, y, pattern) if ASDEX else {}


def brusselator(y: Any) -> Any:
    """That of `_tools.bench.sparse`, in JAX."""
    side = int((len(y) // 2) ** 0.5)

    def laplacian(u: Any) -> Any:
        return jnp.roll(u, 1, 0) + jnp.roll(u, -1, 0) + jnp.roll(u, 1, 1) + jnp.roll(u, -1, 1) - 4 * u

    u, v = y.reshape(2, side, side)
    du = 1 + u * u * v - 4.4 * u + 0.1 * laplacian(u)
    return jnp.stack([du, 3.4 * u - u * u * v + 0.1 * laplacian(v)]).reshape(-1)


def sparse_hessian(x: Tensor, pattern: Any) -> Ways:
    """The Hessian of the Rosenbrock chain, by asdex."""
    if not ASDEX:
        return {}
    return _sparse("hessian", lambda x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum(), x, pattern)


def _sparse(name: str, func: Callable[..., Any], x: Tensor, pattern: Any) -> Ways:
    """A derivative of asdex under jit, in double precision: its entries in the order of the pattern."""
    import asdex

    with jax.enable_x64(True):
        given = jnp.asarray(x.numpy())
        call = jax.jit(getattr(asdex, name)(func, given))
        rows, columns = call(given).indices.T
        places = torch.from_dlpack(rows).long() * pattern.shape[1] + torch.from_dlpack(columns).long()
        wanted = torch.from_numpy(pattern.rows * pattern.shape[1] + pattern.columns)
        ordered, order = places.sort()
        order = order[torch.searchsorted(ordered, wanted)]

    def entries(*_: Tensor) -> Tensor:
        with jax.enable_x64(True):
            return torch.from_dlpack(jax.block_until_ready(call(given)).data)[order]

    return {f"JAX {jax.__version__}, asdex {version('asdex')}, jit of {name}": entries}
