"""Laplacians along other directions than the axes: with weights, or random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcdiff._calling.arguments import differentiated, kind, replace_args, select_args
from funcdiff._calling.draws import check_samples, random_vectors
from funcdiff._calling.options import Options
from funcdiff._calling.types import Function
from funcdiff._torch.compiler import named_after
from funcdiff._torch.transforms import plain_allowed
from funcdiff._torch.trees import Tree, flatten, map_leaves, unflatten


def on_directions(func: Function, options: Options) -> Function:
    """`func` as a function `(t, directions, *args)` of the steps t along the directions (n, r), from t = 0."""

    def moved(t: Tensor, directions: Tensor, *args: Tree) -> Tree:
        leaves, spec = flatten(select_args(args, options.argnums))
        parts = torch.split(directions @ t, [leaf.numel() for leaf in leaves])
        steps = [x + part.reshape(x.shape).to(x.dtype) for x, part in zip(leaves, parts, strict=True)]
        return func(*replace_args(args, options.argnums, unflatten(steps, spec)))

    return moved


def directed(
    laplacian: Callable[[Function, Options], Function],
    func: Function,
    options: Options,
    weights: Tensor | None,
    factor: Tensor | None,
    samples: int | None,
    generator: torch.Generator | None,
) -> Function:
    """The sum of `func`'s second derivatives along the columns of L, where L L^T are the weights.

    It is the plain Laplacian with respect to steps t along these columns, so all that is known of Laplacians applies.
    """
    if weights is not None and factor is not None:
        raise ValueError("expected weights or factor, got both: the weights of a factor L are L L^T")
    check_samples(samples)
    steps = Options(0, options.has_aux, options.chunk_size, options.randomness)
    by_steps = laplacian(on_directions(func, options), steps)

    @named_after(func)
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        leaves = differentiated(args, options.argnums, kwargs)
        n, like = sum(leaf.numel() for leaf in leaves), leaves[0]

        def along(directions: Tensor | None) -> Tree:
            """By default those of the axes, which are then drawn from."""
            if samples is not None:
                signs = random_vectors(n if directions is None else directions.shape[1], samples, like, generator)
                directions = (signs if directions is None else directions @ signs) / samples**0.5
            assert directions is not None  # without samples there is a factor
            return by_steps(like.new_zeros(directions.shape[1]), directions, *args)

        if weights is None:
            return along(factor if factor is None else _checked("factor", factor, n, like))
        positive, negative = _halves(_checked("weights", weights, n, like))
        result = along(positive)
        if negative is None:
            return result
        other = along(negative)
        if options.has_aux:
            return map_leaves(torch.sub, result[0], other[0]), result[1]
        return map_leaves(torch.sub, result, other)

    return wrapper


def _halves(weights: Tensor) -> tuple[Tensor, Tensor | None]:
    """Factors L and M with L L^T - M M^T = W; no M where W is known to have no negative part.

    NOTE [without eigenvectors]. Those of equal eigenvalues have no derivative, and inside a transform signs cannot be
    read: there L = (I + W) / 2 and M = (I - W) / 2, whose squares differ by W.
    """
    if not plain_allowed() or weights.requires_grad:
        axes = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
        return (axes + weights) / 2, (axes - weights) / 2
    values, vectors = torch.linalg.eigh((weights + weights.mT) / 2)
    least = len(values) * torch.finfo(values.dtype).eps * values.abs().amax()
    positive = vectors[:, values > least] * values[values > least].sqrt()
    negative = vectors[:, values < -least] * (-values[values < -least]).sqrt()
    return positive, negative if negative.shape[1] else None


def _checked(name: str, given: Tensor, n: int, like: Tensor) -> Tensor:
    expected = f"({n}, {n})" if name == "weights" else f"({n}, r)"
    if not isinstance(given, Tensor):
        raise TypeError(f"expected {name} to be a tensor of shape {expected}, got {kind(given)}")
    if given.dim() != 2 or given.shape[0] != n or (name == "weights" and given.shape[1] != n):
        raise ValueError(f"expected {name} of shape {expected} for {n} inputs, got {tuple(given.shape)}")
    if given.dtype != like.dtype:
        raise TypeError(f"expected {name} of the dtype of the argument, {like.dtype}, got {given.dtype}")
    return given
