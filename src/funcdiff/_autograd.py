"""Reverse mode by plain autograd: torch.func's transforms cost more than a small problem does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from funcdiff._boundary import Flat
from funcdiff._trees import Tree, flatten, map_leaves


def plain_allowed() -> bool:
    """Not inside vmap, grad, jvp, torch.compile or inference mode, where only torch.func differentiates."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch.is_inference_mode_enabled()
    )


def plain_vjp(flat: Flat, *primals: Tensor, has_aux: bool) -> tuple[Any, ...]:
    """What `torch.func.vjp` returns, for primals that are the recipe's own copies."""
    if not plain_allowed():
        return torch.func.vjp(flat, *primals, has_aux=has_aux)
    returned = tracked(flat, primals)
    output, aux = returned if has_aux else (returned, None)
    outputs = flatten(output)[0]
    keep, compiled = survey(primals, outputs) if torch.is_grad_enabled() else (False, False)
    if keep and compiled:
        return torch.func.vjp(flat, *primals, has_aux=has_aux)

    def pull(cotangents: Tree) -> Sequence[Tensor]:
        return backward(outputs, primals, flatten(cotangents)[0], create_graph=keep)

    if not has_aux:
        return output, pull
    return output, pull, aux if keep else map_leaves(Tensor.detach, aux)


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
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor] | None, *, create_graph: bool
) -> tuple[Tensor, ...]:
    """`torch.autograd.grad`, with zeros where an output depends on no input, and its graph kept for the next call.

    A scalar output needs no cotangent: it is 1.
    """
    if not all(output.requires_grad for output in outputs):
        given = cotangents or [torch.ones_like(output) for output in outputs]
        pairs = [(output, u) for output, u in zip(outputs, given, strict=True) if output.requires_grad]
        if not pairs:
            return tuple(torch.zeros_like(x) for x in inputs)
        outputs, cotangents = zip(*pairs, strict=True)
    gradients = torch.autograd.grad(
        outputs, inputs, cotangents, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return tuple(torch.zeros_like(x) if g is None else g for g, x in zip(gradients, inputs, strict=True))


def survey(primals: Sequence[Tensor], outputs: Sequence[Tensor]) -> tuple[bool, bool]:
    """Does the graph end in a leaf of the caller's, whose results then keep theirs; is a part of it torch.compile's?

    A compiled part has no second derivative, and passes for a constant.
    """
    own = {id(primal) for primal in primals}
    beyond = compiled = False
    for node in graph(outputs):
        name = type(node).__name__
        beyond = beyond or (name == "AccumulateGrad" and id(node.variable) not in own)  # type: ignore[attr-defined]  # only these nodes have one
        compiled = compiled or name == "CompiledFunctionBackward"
    return beyond, compiled


def once_differentiable(outputs: Sequence[Tensor]) -> bool:
    """Is one of the custom functions in the graph marked so: its gradient, too, passes for a constant."""
    functions = (getattr(type(node), "_forward_cls", None) for node in graph(outputs))
    # The decorator's wrapper has the name of what it wraps, but torch's globals.
    return any(f.backward.__globals__["__name__"] == "torch.autograd.function" for f in functions if f is not None)


def graph(outputs: Sequence[Tensor]) -> Iterator[Node]:
    """Every node of the graph once."""
    seen = {output.grad_fn for output in outputs} | {None}
    waiting = [node for node in seen if node is not None]
    while waiting:
        node = waiting.pop()
        yield node
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                waiting.append(following)  # type: ignore[arg-type]  # None is seen
