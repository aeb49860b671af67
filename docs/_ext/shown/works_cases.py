"""What may stand inside a function: the rows of the matrix of what works, each a function of a vector at the origin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

Function = Callable[[Tensor], Tensor]
POINT = torch.tensor([0.6, -0.9, 1.3, 0.4, -0.7, 1.1], dtype=torch.float64)


class Case(NamedTuple):
    """`func` as it is written; `meant` is what its author means, where that is not its own derivative."""

    kind: str
    name: str
    func: Function
    meant: Function | None = None


def curved(inside: Function) -> Function:
    """`inside` at POINT plus the vector, its result cubed, so that slopes and curvatures vary."""
    return lambda x: inside(POINT + x).pow(3)


def double(module: nn.Module, *, training: bool = False) -> nn.Module:
    """The module in float64, its parameters frozen, in evaluation mode unless told otherwise."""
    return module.double().requires_grad_(False).train(training)


def layer_norm_weight(x: Tensor) -> Tensor:
    """With respect to its weight, the first half, and its input, the second."""
    return F.layer_norm(x[3:], (3,), weight=x[:3])


def overwrite(x: Tensor) -> Tensor:
    """Writes into what it is differentiated by."""
    x += POINT
    return x.pow(3)


def multiply_copy(x: Tensor) -> Tensor:
    """Writes into a tensor that depends on the input."""
    y = x.clone()
    y *= x.sin()
    return y


def fill(x: Tensor) -> Tensor:
    """Writes into a fresh tensor of no row of a batch."""
    y = torch.zeros(2, dtype=x.dtype)
    y[0], y[1] = x[0] * x[1], x[2] * x[3]
    return y


def fill_like(x: Tensor) -> Tensor:
    """Writes into a fresh tensor made from the input."""
    y = x.new_zeros(2)
    y[0], y[1] = x[0] * x[1], x[2] * x[3]
    return y


def branch(x: Tensor) -> Tensor:
    """Decides by a value."""
    return x.sin() if x.sum() > 0 else x.cos()


def repeat(x: Tensor) -> Tensor:
    """A loop whose length does not depend on values."""
    for _ in range(3):
        x = x + 0.3 * x.sin()
    return x


def half_constant(x: Tensor) -> Tensor:
    """A factor that is to be a constant, by no_grad."""
    with torch.no_grad():
        size = x.norm()
    return x * size


def math_attention(x: Tensor) -> Tensor:
    """Attention by the kernel that has every derivative."""
    with sdpa_kernel(SDPBackend.MATH):
        return attention(x)


def attention(x: Tensor) -> Tensor:
    """Three tokens of two entries, by the kernel that torch chooses."""
    q = x.view(1, 1, 3, 2)
    return F.scaled_dot_product_attention(q, q, q).flatten()


def inner_grad(x: Tensor) -> Tensor:
    """A derivative inside, by torch.func."""
    return torch.func.grad(lambda z: z.sin().prod())(x)


def inner_autograd(x: Tensor) -> Tensor:
    """A derivative inside, by plain autograd."""
    z = x if x.requires_grad else x.detach().requires_grad_()
    return torch.autograd.grad(z.sin().prod(), z, create_graph=True)[0]


class OldSine(torch.autograd.Function):
    """A custom function of the old style."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The sine."""
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Tensor:
        """Its VJP."""
        (x,) = ctx.saved_tensors
        return u * x.cos()


class Sine(torch.autograd.Function):
    """The same with a setup_context."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """The sine."""
        return x.sin()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keeps the input."""
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Tensor:
        """Its VJP."""
        (x,) = ctx.saved_tensors
        return u * x.cos()


class BothWays(Sine):
    """... and with a jvp."""

    @staticmethod
    def jvp(ctx: Any, v: Tensor) -> Tensor:
        """Its JVP."""
        (x,) = ctx.saved_tensors
        return v * x.cos()


class Once(Sine):
    """... and with a derivative that says it has none of its own."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor) -> Tensor:
        """Its VJP."""
        (x,) = ctx.saved_tensors
        return u * x.cos()


def cases() -> Iterator[Case]:
    """Every row, in the order of the page."""
    size = float(POINT.norm())
    rnn = {name: double(getattr(nn, name)(2, 2)) for name in ("LSTM", "GRU", "RNN")}
    yield Case("Modules", "dropout in training mode", curved(lambda x: F.dropout(x, 0.5)))
    yield Case("Modules", "dropout in evaluation mode", curved(double(nn.Dropout(0.5))))
    for name, norm in {
        "batch norm in training mode": double(nn.BatchNorm1d(2), training=True),
        "batch norm in training mode, no running statistics": double(
            nn.BatchNorm1d(2, track_running_stats=False), training=True
        ),
        "batch norm in evaluation mode": double(nn.BatchNorm1d(2)),
    }.items():
        yield Case("Modules", name, curved(lambda x, norm=norm: norm(x.view(3, 2)).flatten()))
    yield Case("Modules", "layer norm, with respect to its input", curved(lambda x: F.layer_norm(x, (6,))))
    yield Case("Modules", "layer norm, with respect to weight and input", curved(layer_norm_weight))
    for name, module in rnn.items():
        yield Case("Modules", name, curved(lambda x, module=module: module(x.view(3, 2))[0].flatten()))
    cell = double(nn.LSTMCell(6, 2))
    yield Case("Modules", "LSTM cell", curved(lambda x: cell(x)[0]))
    yield Case("Modules", "attention, default kernel", curved(attention))
    yield Case("Modules", "attention, MATH kernel", curved(math_attention))
    yield Case("Writing in place", "writes into its input", overwrite)
    yield Case("Writing in place", "writes into a copy of it", curved(multiply_copy))
    yield Case("Writing in place", "fills torch.zeros(...)", curved(fill))
    yield Case("Writing in place", "fills x.new_zeros(...)", curved(fill_like))
    yield Case("Values", "x.sum().item()", curved(lambda x: x * x.sum().item()))
    yield Case(
        "Values",
        "torch.tensor([x[0] ** 2, ...])",
        curved(lambda x: torch.tensor([z**2 for z in x.tolist()], dtype=x.dtype)),
    )
    yield Case("Values", "if on a value", curved(branch))
    yield Case("Values", "torch.where", curved(lambda x: torch.where(x > 0, x.sin(), x.cos())))
    yield Case(
        "Values", "torch.where with a NaN in the other branch", curved(lambda x: torch.where(x > 0, x.sqrt(), 0))
    )
    yield Case("Values", "boolean mask x[x > 0]", curved(lambda x: x[x > 0].sin()))
    yield Case("Values", "for loop", curved(repeat))
    yield Case("Values", "integer index", curved(lambda x: x[torch.tensor([2, 0])]))
    yield Case("Constants", "no_grad", curved(half_constant), curved(lambda x: x * size))
    yield Case("Constants", "detach", curved(lambda x: x * x.norm().detach()), curved(lambda x: x * size))
    yield Case("Constants", "NumPy", curved(lambda x: torch.from_numpy(np.sin(x.detach().numpy())) * x))
    yield Case("Custom functions", "Function with ctx in forward", curved(OldSine.apply))
    yield Case("Custom functions", "Function with setup_context", curved(Sine.apply))
    yield Case("Custom functions", "Function with setup_context and jvp", curved(BothWays.apply))
    yield Case("Custom functions", "Function, once_differentiable", curved(Once.apply))
    yield Case("Other transforms", "torch.func.grad inside", curved(inner_grad))
    yield Case("Other transforms", "torch.autograd.grad inside", curved(inner_autograd))
    yield Case("Other transforms", "checkpoint", curved(lambda x: checkpoint(torch.sin, x, use_reentrant=False)))
    compiled = torch.compile(lambda x: x.sin() * x, backend="aot_eager")
    yield Case("Other transforms", "torch.compile inside", curved(compiled))
    yield Case("Operations", "complex numbers, torch.fft", curved(lambda x: torch.fft.rfft(x).abs()))
    yield Case(
        "Operations", "logdet", curved(lambda x: torch.logdet(x[:4].view(2, 2) + 3 * torch.eye(2).double())[None])
    )
    yield Case("Operations", "linalg.solve", curved(lambda x: torch.linalg.solve(x[:4].view(2, 2), x[4:])))
    yield Case("Operations", "cdist", curved(lambda x: torch.cdist(x.view(3, 2), POINT.sin().view(3, 2)).flatten()))
