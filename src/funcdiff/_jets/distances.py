"""Distances and norms, with all derivatives zero where two points coincide.

torch 2.13 has no second derivative of distances. It has no reverse derivative of a norm's forward one, which training
through Taylor mode needs.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F

from funcdiff._jets.jet import RULES, on
from funcdiff._jets.operations import form, in_single, named, unaltered


@in_single
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


_GENERAL = RULES[torch.linalg.vector_norm]


def _norm(func: Any, args: Any, kwargs: Any, x: Any, p: Any, dim: Any, keepdim: bool, dtype: torch.dtype | None) -> Any:
    """The length of the entries along some axes; matrix norms and negative powers keep the general rule."""
    if not isinstance(p, (int, float)) or p < 0 or x.dim() == 0 or dtype is not None:
        return _GENERAL(func, args, kwargs)
    axes = range(x.dim()) if dim is None else (dim,) if isinstance(dim, int) else dim
    axes = sorted(axis % x.dim() for axis in axes)
    length = _length(on(torch.movedim, x, axes, [*range(-len(axes), 0)]).flatten(-len(axes)), p)
    for axis in axes if keepdim else ():
        length = length.unsqueeze(axis)
    return length


def _old_norm(func: Any, args: Any, kwargs: Any) -> Any:
    def norm(
        input: Any,
        p: Any = "fro",
        dim: Any = None,
        keepdim: bool = False,
        dtype: torch.dtype | None = None,
        out: None = None,
    ) -> Any:
        return _norm(func, args, kwargs, input, _square(p), dim, keepdim, dtype)

    return norm(*args, **kwargs)


def _vector_norm(func: Any, args: Any, kwargs: Any) -> Any:
    def vector_norm(
        x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
    ) -> Any:
        return _norm(func, args, kwargs, x, ord, dim, keepdim, dtype)

    return vector_norm(*args, **kwargs)


def _linalg_norm(func: Any, args: Any, kwargs: Any) -> Any:
    def norm(
        A: Any,  # noqa: N803  # as torch spells it
        ord: Any = None,
        dim: Any = None,
        keepdim: bool = False,
        *,
        dtype: torch.dtype | None = None,
    ) -> Any:
        axes = 1 if isinstance(dim, int) else len(dim) if dim is not None else A.dim()
        vector = axes == 1 or ord in (None, "fro")
        return _norm(func, args, kwargs, A, _square(ord) if vector else None, dim, keepdim, dtype)

    return norm(*args, **kwargs)


def _matrix_norm(func: Any, args: Any, kwargs: Any) -> Any:
    def matrix_norm(
        A: Any,  # noqa: N803  # as torch spells it
        ord: Any = "fro",
        dim: Any = (-2, -1),
        keepdim: bool = False,
        *,
        dtype: torch.dtype | None = None,
    ) -> Any:
        return _norm(func, args, kwargs, A, 2 if ord == "fro" else None, dim, keepdim, dtype)

    return matrix_norm(*args, **kwargs)


def _square(ord: Any) -> Any:
    return 2 if ord in (None, "fro") else ord


RULES.update({torch.norm: _old_norm, torch.Tensor.norm: _old_norm})
RULES.update({torch.linalg.vector_norm: _vector_norm, torch.linalg.norm: _linalg_norm})
RULES[torch.linalg.matrix_norm] = _matrix_norm
