"""Reverse mode by plain autograd: torch.func's transforms cost more than a small problem does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcdiff._calling.arguments import apart
from funcdiff._calling.types import Flat
from funcdiff._torch.graph import NOTHING, End, pulled_back, survey
from funcdiff._torch.transforms import plain_allowed, vjp
from funcdiff._torch.trees import Tree, flatten, map_leaves


def plain_vjp(flat: Flat, *primals: Tensor, has_aux: bool) -> tuple[Any, ...]:
    """What `torch.func.vjp` returns, for primals that are the recipe's own copies."""
    if not plain_allowed():
        return vjp(flat, *primals, has_aux=has_aux)
    output, *aux = apart(tracked(flat, primals), has_aux)
    outputs = flatten(output)[0]
    graph = survey(primals, outputs) if torch.is_grad_enabled() else NOTHING
    if graph.callers and graph.compiled:
        return vjp(flat, *primals, has_aux=has_aux)

    def pull(cotangents: Tree) -> Sequence[Tensor]:
        return backward(outputs, primals, flatten(cotangents)[0], create_graph=graph.callers)

    return output, pull, *(aux if graph.callers else [map_leaves(Tensor.detach, tree) for tree in aux])


def tracked(func: Callable[..., Tree], primals: Sequence[Tensor]) -> Tree:
    """`func(*primals)` with a graph that starts at the primals, whatever the caller's grad mode."""
    for primal in primals:
        if not primal.requires_grad:
            primal.requires_grad_()
    if torch.is_grad_enabled():
        return func(*primals)  # to switch costs as much as a small operation
    with torch.enable_grad():
        return func(*primals)


def backward(
    outputs: Sequence[End], inputs: Sequence[Tensor], cotangents: Sequence[Tensor] | None, *, create_graph: bool
) -> tuple[Tensor, ...]:
    """`torch.autograd.grad`, with zeros where an output depends on no input, and its graph kept for the next call.

    A scalar output needs no cotangent: it is 1.
    """
    given = cotangents or [torch.ones_like(output) for output in outputs]  # type: ignore[arg-type]
    if [y for y in outputs if isinstance(y, Tensor) and not y.requires_grad]:
        pairs = [
            (output, u)
            for output, u in zip(outputs, given, strict=True)
            if not isinstance(output, Tensor) or output.requires_grad
        ]
        if not pairs:
            return tuple(torch.zeros_like(x) for x in inputs)
        outputs, given = zip(*pairs, strict=True)
    gradients = pulled_back(outputs, inputs, given, create_graph=create_graph)
    return tuple([torch.zeros_like(x) if g is None else g for g, x in zip(gradients, inputs, strict=True)])
