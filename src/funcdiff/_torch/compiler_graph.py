"""What torch.compile has traced so far as a function, to plan for one that exists only while it compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import CompileContext, TracingContext

from funcdiff._torch.compiler import run_while_compiling
from funcdiff._torch.messages import RefusedError

_OF_TRANSFORMS = "torch._C._functorch", "torch._functorch"


@run_while_compiling
def newest() -> str:
    """Where the compiler is: in which graph, and after which of its operations."""
    nodes = _nodes() if TracingContext.try_get() else []
    return f"{_graph()} {nodes[-1].name if nodes else ''}"


def traced_since(
    before: str, inputs: int, outputs: int, numbers: Callable[[Tensor], Tensor]
) -> tuple[Callable[..., list[Tensor]], list[Tensor]]:
    """What was traced since the compiler was at `before`, as a function, and arguments like those it was traced with.

    Its first operations are copies of the inputs, its last ones copies of the outputs. For what it captured stand
    copies of the tensors, where they are there already, or else `numbers` of their shape.

    Raises:
        RefusedError: A transform was traced, or something that is neither a tensor nor a size was captured. Or the
            compiler stopped on the way, and began another graph.
    """
    graph_before, last = before.split(" ")
    if graph_before != _graph():
        raise RefusedError("the compiler stopped on the way here")
    nodes = _nodes()
    nodes = nodes[[node.name for node in nodes].index(last) + 1 if last else 0 :]
    if any(str(getattr(node.target, "__module__", "")).startswith(_OF_TRANSFORMS) for node in nodes):
        raise RefusedError("func is differentiated, or called by vmap, inside")
    graph, captured = fx.Graph(), dict[fx.Node, Tensor]()
    own = {node: graph.placeholder(node.name) for node in nodes[:inputs]}

    def inner(node: fx.Node) -> Any:
        if node in own:
            return own[node]
        if isinstance(node.meta.get("example_value"), torch.SymInt):
            return _settled(node.meta["example_value"])
        captured[node] = _present(node, numbers)
        own[node] = graph.placeholder(node.name)
        return own[node]

    for node in nodes[inputs:]:
        own[node] = graph.node_copy(node, inner)
    graph.output([own[node] for node in nodes[-outputs:]])
    run = fx.GraphModule(_output().nn_modules, graph).forward
    held = [*captured.values()]
    return lambda *args: run(*args, *held), [_like(node, numbers) for node in nodes[:inputs]]


def _present(node: fx.Node, numbers: Callable[[Tensor], Tensor]) -> Tensor:
    """A copy of what the compiled function was given, as it may be written into, or numbers like what it computes."""
    given = getattr(node.meta.get("grapharg"), "example", None)
    if not isinstance(given, Tensor):
        return _like(node, numbers)
    copy = torch.empty_like(given, requires_grad=given.requires_grad)  # under vmap, requires_grad_() is refused
    with torch.no_grad():
        return copy.copy_(given)


def _like(node: fx.Node, numbers: Callable[[Tensor], Tensor]) -> Tensor:
    example = node.meta.get("example_value")
    if not isinstance(example, Tensor):
        raise RefusedError(f"func captured {type(example).__name__}")
    return numbers(torch.empty([*map(_settled, example.shape)], dtype=example.dtype, device=example.device))


def _settled(size: Any) -> int:
    """A size; of a symbol, what it stands for in this call, without a promise that it stays."""
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)


def _nodes() -> list[fx.Node]:
    return [node for node in _output().graph.nodes if node.op != "placeholder"]  # these are added where they are met


def _graph() -> str:
    return str(CompileContext.current_compile_id() if TracingContext.try_get() else None)


def _output() -> Any:
    from torch._dynamo.symbolic_convert import InstructionTranslator  # it imports the whole compiler

    if TracingContext.try_get() is None:
        raise RefusedError("nothing is compiled")
    return InstructionTranslator.current_tx().output
