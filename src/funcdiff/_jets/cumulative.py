"""Products, and running products and logarithms of sums, each written as the whole one of every beginning.

torch 2.13 gets second derivatives of the running ones wrong where two numbers are equal, or one is zero or infinite,
and third ones of products where one is zero.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from funcdiff._jets.jet import on
from funcdiff._jets.operations import form, named, unaltered


def _over_beginnings(whole: Callable[..., Any], x: Any, dim: int, neutral: float) -> Any:
    """``whole`` along ``dim`` of every beginning of ``x``, filled up by its neutral element."""
    if x.dim() == 0:
        return x
    x = x.movedim(dim, -1)
    length = x.shape[-1]
    after = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
    beginnings = on(torch.masked_fill, x.unsqueeze(-2).expand(*x.shape[:-1], length, length), after, neutral)
    return whole(beginnings, -1).movedim(-1, dim)


@form(*named("prod"), twice=True)
def _prod(func: Any, args: Any, kwargs: Any) -> Any:
    """In pairs, then pairs of pairs: a polynomial, whose derivatives are right at zero too."""

    def prod(input: Any, dim: int | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
        x = input if dtype is None else input.to(dtype)
        if x.dim() == 0 or x.numel() == 0:
            return x if x.dim() == 0 else unaltered(func, args, kwargs)
        x = x.reshape(-1) if dim is None else x.movedim(dim, 0)
        while (count := len(x)) > 1:
            half = count // 2
            pairs = x[:half] * x[half : 2 * half]
            x = on(torch.cat, [pairs, x[2 * half :]]) if count % 2 else pairs
        return x[0].unsqueeze(dim) if keepdim and dim is not None else x[0]

    return prod(*args, **kwargs)


@form(*named("cumprod"))
def _cumprod(func: Any, args: Any, kwargs: Any) -> Any:
    def cumprod(input: Any, dim: int, *, dtype: torch.dtype | None = None) -> Any:
        x = input if dtype is None else input.to(dtype)
        return _over_beginnings(lambda x, dim: _prod(torch.prod, (x, dim), {}), x, dim, 1.0)

    return cumprod(*args, **kwargs)


@form(*named("logcumsumexp"))
def _logcumsumexp(func: Any, args: Any, kwargs: Any) -> Any:
    def logcumsumexp(input: Any, dim: int) -> Any:
        return _over_beginnings(lambda x, dim: on(torch.logsumexp, x, dim), input, dim, -math.inf)

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
