"""Scalar functions whose two derivatives are cheap by hand: nested forward mode starts some twenty kernels for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from funcdiff._jets import layers as layers  # what has no short way keeps the general rule
from funcdiff._jets.jet import RULES, Jet, Rule, carry, check_grad_mode
from funcdiff._jets.operations import named
from funcdiff._jets.rules import aligned

Scalar = Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None]]  # x -> g(x), g'(x), g''(x) unless it is zero


def _tanh(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.tanh(x)
    slope = 1 - y * y
    return y, slope, -2 * y * slope


def _sigmoid(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.sigmoid(x)
    slope = y * (1 - y)
    return y, slope, slope * (1 - 2 * y)


def _silu(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    s, slope, bend = _sigmoid(x)
    return F.silu(x), s + x * slope, 2 * slope + x * bend


def _gelu(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    density = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return F.gelu(x), torch.special.ndtr(x) + x * density, density * (2 - x * x)


def _elu(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    slope = x.clamp(max=0).exp()
    return F.elu(x), slope, slope - (x >= 0).to(x.dtype)  # torch.where with a number takes ten times as long


def _softplus(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    s, linear = torch.sigmoid(x), (x - _LINEAR_FROM).sign().clamp(min=0)
    return F.softplus(x), s + (1 - s) * linear, s * (1 - s) * (1 - linear)


def _sin(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = x.sin()
    return y, x.cos(), -y


def _cos(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = x.cos()
    return y, -x.sin(), -y


def _exp(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = x.exp()
    return y, y, y


def _log(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    slope = x.reciprocal()
    return x.log(), slope, -slope * slope


def _reciprocal(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = x.reciprocal()
    slope = -y * y
    return y, slope, -2 * y * slope


def _rsqrt(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = x.rsqrt()
    slope = -0.5 * y * y * y
    return y, slope, -1.5 * y * y * slope


def _square(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.square(), 2 * x, torch.full_like(x, 2.0)


def _relu(x: Tensor) -> tuple[Tensor, Tensor, None]:
    return x.relu(), (x > 0).to(x.dtype), None


def _whole_power(k: float) -> Scalar:
    return lambda x: (x**k, k * x ** (k - 1), k * (k - 1) * x ** (k - 2))


_POWERS = (*named("pow"), torch.Tensor.__pow__)
_LARGEST = 1000  # of the powers: beyond, k squared times what has vanished may be infinity times zero


_LINEAR_FROM = 20.0  # torch's softplus of a larger number is that number
_DEFAULTS = {"alpha": 1.0, "inplace": False, "approximate": "none", "beta": 1.0, "threshold": _LINEAR_FROM}
_POSITIONAL = {F.softplus: (1.0, _LINEAR_FROM)}  # as its layer passes them


def _by_hand(scalar: Scalar, general: Rule) -> Rule:
    def rule(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x, *given = args
        usual = given == [*_POSITIONAL.get(func, ())][: len(given)]
        if not isinstance(x, Jet) or not usual or any(kwargs[name] != _DEFAULTS.get(name) for name in kwargs):
            return general(func, args, kwargs)
        check_grad_mode(x.pairs.grad_enabled)
        value, slope, bend = scalar(x.value)
        jet = carry([x], value, lambda t: slope * aligned(t, value))
        if x.pairs.curved and bend is not None:
            jet.second = jet.pairs.add_bend(jet.second, bend, aligned(x.first, value))
        return jet

    return rule


def _power(general: Rule) -> Rule:
    def rule(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        k = args[1] if len(args) == 2 else None
        # `general` is also the rule of other powers, as 2**x, whose rule comes through here.
        if func not in _POWERS or kwargs or not isinstance(k, (int, float)) or not 2 <= k <= _LARGEST or k % 1:
            return general(func, args, kwargs)
        return _by_hand(_whole_power(k), general)(func, args[:1], {})

    return rule


for _scalar, _funcs in (
    (_tanh, named("tanh")),
    (_sigmoid, named("sigmoid")),
    (_silu, (F.silu,)),
    (_gelu, (F.gelu,)),
    (_elu, (F.elu,)),
    (_softplus, (F.softplus,)),
    (_sin, named("sin")),
    (_cos, named("cos")),
    (_exp, named("exp")),
    (_log, named("log")),
    (_reciprocal, named("reciprocal")),
    (_rsqrt, named("rsqrt")),
    (_square, named("square")),
    (_relu, named("relu")),
):
    for _func in _funcs:
        RULES[_func] = _by_hand(_scalar, RULES[_func])
for _func in _POWERS:
    RULES[_func] = _power(RULES[_func])
