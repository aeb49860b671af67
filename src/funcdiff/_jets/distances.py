"""Distances, norms and standard deviations, with first derivatives zero where they are zero.

torch 2.13 has no second derivative of distances. It has no reverse derivative of a norm's forward one, which training
through Taylor mode needs.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F

from funcdiff._jets.jet import RULES, Jet, carry, check_grad_mode, jet_of, on, plain
from funcdiff._jets.operations import form, in_single, named, rule
from funcdiff._jets.singular import without_second


def _length(difference: Any, p: float) -> Any:
    """The p-norm along the last axis."""
    length = jet_of(_in_last_axis(difference, p))
    if isinstance(length, Jet) and 1 <= p < math.inf:
        length.vector = jet_of(difference), p
    return length


@in_single
def _in_last_axis(difference: Any, p: float) -> Any:
    difference = jet_of(difference)
    size: Any = on(torch.abs, difference) if p != 2 else None
    if p == 0:
        return on(torch.ne, size, 0).to(size.dtype).sum(-1)
    if p == 1:
        return on(torch.sum, size, -1)
    if abs(p) == math.inf:
        return on(torch.amax if p > 0 else torch.amin, size, -1)
    if p < 0:
        length = _general(torch.linalg.vector_norm, (difference, p, -1), {})
        return without_second(length, difference, plain(length) == 0)
    if p == 2 and isinstance(difference, Jet):
        return _euclidean(difference)
    if p == 2:
        return _power(difference.square().sum(-1), 0.5, difference)
    powers = size.pow(p) if p > 2 else _power(size, p, on(torch.unsqueeze, difference, -1))
    return _power(on(torch.sum, powers, -1), 1 / p, difference)


def _power(x: Any, exponent: float, moved: Any) -> Any:
    """Powers of numbers that are not negative, and zero with their first derivatives where `moved` is zero."""
    zero = plain(x) == 0
    powers = on(torch.pow, on(torch.masked_fill, x, zero, 1.0), exponent)
    return without_second(on(torch.masked_fill, powers, zero, 0.0), moved, zero)


def _euclidean(difference: Jet) -> Any:
    """With the unit vector u = d / |d|: |d|_i = u d_i, and |d|_ij = u d_ij + (d_i d_j - |d|_i |d|_j) / |d|."""
    check_grad_mode(difference.pairs.grad_enabled)
    square = difference.value.square().sum(-1)
    zero = square == 0
    apart = square.masked_fill(zero, 1.0).sqrt()
    unit = difference.value / apart.unsqueeze(-1)
    length = carry([difference], apart.masked_fill(zero, 0.0), lambda t: (unit * t).sum(-1))
    pairs = difference.pairs
    if pairs.curved:
        (bend,) = pairs.bend(
            lambda a, b: ((a[0] * b[0]).sum(-1) - a[1] * b[1]) / apart, [difference.first, length.first]
        )
        length.second = bend if length.second is None else length.second + bend
    return without_second(length, difference, zero)


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


def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    """As in `torch.nn.functional`, of jets or tensors."""
    distance = _length(on(torch.add, on(torch.sub, x1, x2), eps), p)
    return distance.unsqueeze(-1) if keepdim else distance


@form(F.pairwise_distance)
def _pairwise_distance(func: Any, args: Any, kwargs: Any) -> Any:
    return pairwise_distance(*args, **kwargs)


_GENERAL = RULES[torch.linalg.vector_norm]


def _general(func: Any, args: Any, kwargs: Any) -> Any:
    """The norm by the general rule, or by torch itself."""
    return _GENERAL(func, args, kwargs) if isinstance(jet_of(args[0]), Jet) else func(*args, **kwargs)


def _norm(func: Any, args: Any, kwargs: Any, x: Any, p: Any, dim: Any, keepdim: bool, dtype: torch.dtype | None) -> Any:
    """The length of the entries along some axes; norms of matrices keep the general rule."""
    axes = range(x.dim()) if dim is None else (dim,) if isinstance(dim, int) else dim
    covered = isinstance(p, (int, float)) and (p == 2 or not x.is_complex()) and x.layout is torch.strided
    if not covered or (dim is not None and not (axes and x.dim())):
        return _general(func, args, kwargs)
    x = x if dtype is None else x.to(dtype)
    axes = sorted(axis % x.dim() for axis in axes)
    length = _length(_together(x, axes), p)
    for axis in axes if keepdim else ():
        length = length.unsqueeze(axis)
    return length


def _together(x: Any, axes: Any) -> Any:
    """`x` with these axes as one, the last; of complex numbers both parts are in it."""
    x = on(torch.movedim, x, axes, [*range(-len(axes), 0)]).flatten(-len(axes)) if axes else x.unsqueeze(-1)
    return torch.view_as_real(x).flatten(-2) if x.is_complex() else x


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


form(torch.norm, torch.Tensor.norm)(_old_norm)
form(torch.linalg.vector_norm)(_vector_norm)
form(torch.linalg.norm)(_linalg_norm)
form(torch.linalg.matrix_norm)(_matrix_norm)


@form(*named("dist"))
def _dist(func: Any, args: Any, kwargs: Any) -> Any:
    def dist(input: Any, other: Any, p: float = 2) -> Any:
        difference = on(torch.sub, input, other)
        return _norm(torch.linalg.vector_norm, (difference, p), {}, difference, p, None, False, None)

    return dist(*args, **kwargs)


@rule("normalize")
def _normalize(func: Any, args: Any, kwargs: Any) -> Any:
    def normalize(input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: None = None) -> Any:
        return _over_length(input, p, dim, eps)

    return normalize(*args, **kwargs)


@rule("cosine_similarity")
def _cosine_similarity(func: Any, args: Any, kwargs: Any) -> Any:
    def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
        x1, x2 = on(torch.broadcast_tensors, x1, x2)
        return on(torch.mul, _over_length(x1, 2, dim, eps), _over_length(x2, 2, dim, eps)).sum(dim)

    return cosine_similarity(*args, **kwargs)


def _over_length(x: Any, p: float, dim: Any, eps: float) -> Any:
    """Written out, as autograd cannot go backward through the forward derivatives of torch's own form."""
    length = _norm(torch.linalg.vector_norm, (x, p, dim, True), {}, x, p, dim, True, None)
    return on(torch.div, x, on(torch.clamp_min, length, eps))


@form(*named("std_mean"))
def _std_mean(func: Any, args: Any, kwargs: Any) -> Any:
    """The length of what is left of the mean: torch's own second derivative is 0, in every mode, where that is 0."""

    def std_mean(
        input: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: float | None = None
    ) -> Any:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        given = () if input.dim() == 0 else [dim] if isinstance(dim, int) else dim or range(input.dim())
        axes = sorted(axis % input.dim() for axis in given)
        mean = on(torch.mean, input, axes, keepdim=True)
        count = math.prod(input.shape[axis] for axis in axes) - (int(unbiased) if correction is None else correction)
        deviation = _length(_together(on(torch.sub, input, mean), axes), 2) / max(count, 0) ** 0.5
        if not keepdim:
            return deviation, mean.reshape(deviation.shape)
        for axis in axes:
            deviation = deviation.unsqueeze(axis)
        return deviation, mean

    return std_mean(*args, **kwargs)


@form(*named("std"))
def _std(func: Any, args: Any, kwargs: Any) -> Any:
    return _std_mean(func, args, kwargs)[0]
