"""Running products and logarithms of sums, each written as the whole one of every beginning.

torch 2.13 gets second derivatives of these wrong where two numbers are equal, or one is zero or infinite.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from funcdiff._jets.jet import on
from funcdiff._jets.operations import form, named


def _over_beginnings(whole: Callable[..., Any], x: Any, dim: int, neutral: float) -> Any:
    """``whole`` along ``dim`` of every beginning of ``x``, filled up by its neutral element."""
    if x.dim() == 0:
        return x
    x = x.movedim(dim, -1)
    length = x.shape[-1]
    after = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
    beginnings = on(torch.masked_fill, x.unsqueeze(-2).expand(*x.shape[:-1], length, length), after, neutral)
    return on(whole, beginnings, -1).movedim(-1, dim)


@form(*named("cumprod"))
def _cumprod(func: Any, args: Any, kwargs: Any) -> Any:
    def cumprod(input: Any, dim: int, *, dtype: torch.dtype | None = None) -> Any:
        return _over_beginnings(torch.prod, input if dtype is None else input.to(dtype), dim, 1.0)

    return cumprod(*args, **kwargs)


@form(*named("logcumsumexp"))
def _logcumsumexp(func: Any, args: Any, kwargs: Any) -> Any:
    def logcumsumexp(input: Any, dim: int) -> Any:
        return _over_beginnings(torch.logsumexp, input, dim, -math.inf)

    return logcumsumexp(*args, **kwargs)


@form(*named("logaddexp"))
def _logaddexp(func: Any, args: Any, kwargs: Any) -> Any:
    def logaddexp(input: Any, other: Any) -> Any:
        return on(torch.logsumexp, on(torch.stack, on(torch.broadcast_tensors, input, other)), 0)

    return logaddexp(*args, **kwargs)


@form(*named("logaddexp2"))
def _logaddexp2(func: Any, args: Any, kwargs: Any) -> Any:
    def logaddexp2(input: Any, other: Any) -> Any:
        scale = math.log(2)
        return _logaddexp(func, (input * scale, other * scale), {}) / scale

    return logaddexp2(*args, **kwargs)
