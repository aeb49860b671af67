"""The graph that plain autograd keeps, and what its nodes tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, _engine_run_backward, get_gradient_edge
from torch.overrides import has_torch_function

_LEAF: type[Any] = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]  # torch leaves it untyped


class Survey(NamedTuple):
    """What stands in a graph besides the recipe's own operations."""

    callers: bool  # a leaf of the caller's, of which the results then keep a graph
    compiled: bool  # a part that torch.compile wrote, which has no second derivative and passes for a constant


NOTHING = Survey(callers=False, compiled=False)


End = Tensor | GradientEdge  # where a backward pass starts


_LARGE = 4096  # numbers, whose memory is worth the 4 microseconds


def ends(outputs: Sequence[Tensor]) -> Sequence[End]:
    """Where the outputs stand in their graph, without their numbers."""
    return [get_gradient_edge(y) if y.numel() > _LARGE and _heavy(y) else y for y in outputs]


def _heavy(y: Tensor) -> bool:
    return y.requires_grad and not has_torch_function((y,))


def pulled_back(
    outputs: Sequence[End], inputs: Sequence[Tensor], cotangents: Sequence[Tensor], *, create_graph: bool
) -> Sequence[Tensor | None]:
    """What `torch.autograd.grad` returns, keeping the graph, for cotangents of the outputs' shapes, which it checks.

    Its checks take as long as the backward pass of a small function.
    """
    if has_torch_function((*outputs, *inputs)):  # a subclass, or a mode, that has a gradient of its own
        return torch.autograd.grad(
            list(outputs),  # type: ignore[arg-type]  # torch's types know no list of both kinds
            inputs,
            cotangents,
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
        )
    return _engine_run_backward(
        tuple(outputs), tuple(cotangents), True, create_graph, tuple(inputs), True, accumulate_grad=False
    )


def survey(primals: Sequence[Tensor], outputs: Sequence[Tensor]) -> Survey:
    """Look at every node between the outputs and the primals."""
    own = set(map(id, primals))
    callers = compiled = False
    for node in graph(outputs):
        kind = type(node)
        if kind is _LEAF:
            callers = callers or id(node.variable) not in own  # type: ignore[attr-defined]  # only these have one
        elif kind.__name__ == "CompiledFunctionBackward":
            compiled = True
    return Survey(callers, compiled) if callers or compiled else NOTHING


def custom_functions(outputs: Sequence[Tensor]) -> frozenset[str]:
    """The custom autograd functions in the graph, by name: what they call a derivative is their author's affair."""
    return frozenset(function.__name__ for function in _custom(outputs))


def once_differentiable(outputs: Sequence[Tensor]) -> bool:
    """Is one of the custom functions in the graph marked so: its gradient, too, passes for a constant."""
    # The decorator's wrapper has the name of what it wraps, but torch's globals, as has what no class overrides.
    inherited = torch.autograd.Function.backward, torch.autograd.Function.vjp
    own = [rule for f in _custom(outputs) for rule in (f.backward, f.vjp) if rule not in inherited]
    return any(getattr(rule, "__globals__", {}).get("__name__") == "torch.autograd.function" for rule in own)


def _custom(outputs: Sequence[Tensor]) -> list[Any]:
    """The classes of the custom autograd functions in the graph."""
    functions = (getattr(type(node), "_forward_cls", None) for node in graph(outputs))
    return [function for function in functions if function is not None]


def graph(outputs: Sequence[Tensor]) -> Sequence[Node]:
    """Every node of the graph once."""
    nodes: list[Node] = []
    seen: set[Any] = {None}
    for output in outputs:
        if (last := output.grad_fn) not in seen:
            seen.add(last)
            nodes.append(last)  # type: ignore[arg-type]  # None is seen
    for node in nodes:  # which grows meanwhile
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                nodes.append(following)  # type: ignore[arg-type]  # the same
    return nodes
