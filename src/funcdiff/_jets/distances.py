"""Distances, whose second derivative torch 2.13 does not have; zero, like their first, where two points coincide."""

import math
from typing import Any

import torch
import torch.nn.functional as F

from funcdiff._jets.jet import on
from funcdiff._jets.operations import form, named, unaltered


def _length(difference: Any, p: float) -> Any:
    """The p-norm along the last axis."""
    size = on(torch.abs, difference)
    if p == 0:
        return on(torch.ne, size, 0).to(size.dtype).sum(-1)
    if p == 1:
        return on(torch.sum, size, -1)
    if p == math.inf:
        return on(torch.amax, size, -1)
    if p == 2:
        return _power(on(torch.sum, on(torch.square, difference), -1), 0.5)
    return _power(on(torch.sum, size.pow(p) if p > 2 else _power(size, p), -1), 1 / p)


def _power(x: Any, exponent: float) -> Any:
    """Powers of numbers that are not negative, with all derivatives zero at zero."""
    zero = on(torch.eq, x, 0)
    powers = on(torch.pow, on(torch.masked_fill, x, zero, 1.0), exponent)
    return on(torch.masked_fill, powers, zero, 0.0)


@form(torch.cdist)
def _cdist(func: Any, args: Any, kwargs: Any) -> Any:
    def cdist(x1: Any, x2: Any, p: float = 2.0, compute_mode: str | None = None) -> Any:
        return _length(on(torch.sub, x1.unsqueeze(-2), x2.unsqueeze(-3)), p)

    return cdist(*args, **kwargs)


@form(*named("pdist"))
def _pdist(func: Any, args: Any, kwargs: Any) -> Any:
    def pdist(input: Any, p: float = 2.0) -> Any:
        first, second = torch.triu_indices(input.shape[0], input.shape[0], 1, device=input.device)
        return _length(input[first] - input[second], p)

    return pdist(*args, **kwargs)


@form(F.pairwise_distance)
def _pairwise_distance(func: Any, args: Any, kwargs: Any) -> Any:
    def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
        if p < 0:
            return unaltered(func, args, kwargs)
        distance = _length(on(torch.add, on(torch.sub, x1, x2), eps), p)
        return distance.unsqueeze(-1) if keepdim else distance

    return pairwise_distance(*args, **kwargs)
