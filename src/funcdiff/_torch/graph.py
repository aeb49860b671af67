"""The graph that plain autograd keeps, and what its nodes tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.autograd.graph import Node


class Survey(NamedTuple):
    """What stands in a graph besides the recipe's own operations."""

    callers: bool  # a leaf of the caller's, of which the results then keep a graph
    compiled: bool  # a part that torch.compile wrote, which has no second derivative and passes for a constant


NOTHING = Survey(callers=False, compiled=False)


def survey(primals: Sequence[Tensor], outputs: Sequence[Tensor]) -> Survey:
    """Look at every node between the outputs and the primals."""
    own = {id(primal) for primal in primals}
    callers = compiled = False
    for node in graph(outputs):
        name = type(node).__name__
        callers = callers or (name == "AccumulateGrad" and id(node.variable) not in own)  # type: ignore[attr-defined]  # only these nodes have one
        compiled = compiled or name == "CompiledFunctionBackward"
    return Survey(callers, compiled) if callers or compiled else NOTHING


def custom_functions(outputs: Sequence[Tensor]) -> frozenset[str]:
    """The custom autograd functions in the graph, by name: what they call a derivative is their author's affair."""
    functions = (getattr(type(node), "_forward_cls", None) for node in graph(outputs))
    return frozenset(function.__name__ for function in functions if function is not None)


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
