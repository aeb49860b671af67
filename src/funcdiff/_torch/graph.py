"""The graph that plain autograd keeps, and what its nodes tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor
from torch.autograd.graph import Node


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
