"""Networks that nothing was tuned on: other widths, depths, activations, norms, convolutions, several inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

import funcdiff as fd

Argnums = int | tuple[int, ...]
COMPOSITIONS: dict[str, Callable[..., Any]] = {
    "hessian_forward_over_forward": fd.hessian_forward_over_forward,
    "hessian_forward_over_reverse": fd.hessian_forward_over_reverse,
    "hessian_reverse_over_reverse": fd.hessian_reverse_over_reverse,
}


@dataclass(frozen=True)
class Network:
    """A function of rows, differentiated row by row in the arguments `argnums`."""

    name: str
    func: Callable[..., Tensor]
    args: tuple[Tensor, ...]
    argnums: Argnums = 0

    def over_rows(self, recipe: Callable[..., Any]) -> Callable[..., Any]:
        """The recipe for every row."""
        return vmap(recipe(self.func, self.argnums))

    def traced(self, recipe: Callable[..., Any]) -> Callable[..., Any]:
        """The Laplacian as the trace of the recipe's Hessian."""
        hessians = self.over_rows(recipe)
        if isinstance(self.argnums, int):
            return lambda *args: _trace(hessians(*args))
        count = len(self.argnums)
        return lambda *args: sum(_trace(blocks[i][i]) for blocks in [hessians(*args)] for i in range(count))


def _trace(hessian: Tensor) -> Tensor:
    return hessian.diagonal(0, -2, -1).sum(-1)


class Residual(nn.Module):
    """Adds what the block computes to its input."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Add."""
        return x + self.block(x)  # type: ignore[no-any-return]  # torch's modules are untyped


class Rows(nn.Module):
    """Reshapes the vector of one row for the layers, which want a batch axis, and takes that axis away again."""

    def __init__(self, shape: tuple[int, ...], *layers: nn.Module) -> None:
        super().__init__()
        self.shape, self.layers = shape, nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers to the row."""
        return self.layers(x.reshape(1, *self.shape))[0]  # type: ignore[no-any-return]  # torch's modules are untyped


def dense(*sizes: int, activation: type[nn.Module], norm: type[nn.Module] | None = None) -> nn.Sequential:
    """Fully connected layers, with the activation, and the norm before it, between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), *([norm(outputs)] if norm else []), activation()]
    return nn.Sequential(*layers[: -2 if norm else -1])


def networks() -> Iterator[Network]:
    """Each with its batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield _of(
            "narrow and deep, 4 -> 32 (8 times) -> 4, softplus", 4, dense(4, *[32] * 8, 4, activation=nn.Softplus)
        )
        yield _of("one wide layer, 3 -> 1024 -> 10, SiLU", 3, dense(3, 1024, 10, activation=nn.SiLU))
        yield _of("physics-informed, 3 -> 64 (4 times) -> 1, tanh", 3, dense(3, *[64] * 4, 1, activation=nn.Tanh))
        yield _of("the surrogate, 2 -> 100 -> 100 -> 3, GELU", 2, dense(2, 100, 100, 3, activation=nn.GELU))
        sigmoid = dense(20, 128, 128, 20, activation=nn.Sigmoid)
        yield _of("more inputs, 20 -> 128 -> 128 -> 20, sigmoid", 20, sigmoid, rows=20)
        scalar = dense(50, 128, 128, 1, activation=nn.Tanh)
        yield _of("many inputs, one output, 50 -> 128 -> 128 -> 1, tanh", 50, scalar, rows=5)
        layer_norm = dense(6, 128, 128, 8, activation=nn.Tanh, norm=nn.LayerNorm)
        yield _of("layer norm, 6 -> 128 -> 128 -> 8, tanh", 6, layer_norm)
        rms_norm = dense(6, 128, 128, 8, activation=nn.SiLU, norm=nn.RMSNorm)
        yield _of("RMS norm, 6 -> 128 -> 128 -> 8, SiLU", 6, rms_norm)
        batch_norm = dense(6, 128, 128, 8, activation=nn.ELU, norm=nn.BatchNorm1d)
        yield _of("batch norm, 6 -> 128 -> 128 -> 8, ELU", 6, Rows((6,), *batch_norm))
        blocks = [Residual(dense(128, 128, 128, activation=nn.Tanh)) for _ in range(3)]
        residual = nn.Sequential(nn.Linear(6, 128), *blocks, nn.Linear(128, 8))
        yield _of("residual, 6 -> 128 (3 blocks) -> 8, tanh", 6, residual)
        convolutions = [nn.Conv1d(1, 16, 3, padding=1), nn.GELU(), nn.Conv1d(16, 16, 3, padding=1), nn.GELU()]
        network = Rows((1, 12), *convolutions, nn.Flatten(), nn.Linear(192, 10))
        yield _of("convolutions, 1 x 12 -> 16 x 12 (twice) -> 10, GELU", 12, network, rows=20)
        joint = dense(4, 64, 64, 2, activation=nn.Tanh).requires_grad_(False)
        args = torch.randn(100, 3), torch.randn(100, 1)
        name = "several inputs, (3, 1) -> 64 -> 64 -> 2, tanh"
        yield Network(name, lambda place, time: joint(torch.cat([place, time])), args, (0, 1))


def _of(name: str, inputs: int, network: nn.Module, rows: int = 100) -> Network:
    return Network(name, network.requires_grad_(False).eval(), (torch.randn(rows, inputs),))
