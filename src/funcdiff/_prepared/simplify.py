"""A shorter line of operations with the same results: what copies, views or multiplies by one for nothing is left out.

The line is rewritten node by node. Every node has its example value, so that shapes, strides and constants are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from funcdiff._prepared.rules import RULES
from funcdiff._prepared.values import Value, parts_of, ready
from funcdiff._torch.intercept import storage_of
from funcdiff._torch.tracing import checks, fresh, held_tensors, is_view

aten = torch.ops.aten


def simplified(module: GraphModule, examples: Sequence[Tensor], *, keep_detach: bool) -> tuple[list[Value], Any]:
    """The steps that are left, in order, and the results, values among them."""
    line = _Line(keep_detach)
    held = held_tensors(module)
    values: dict[Node, Any] = {}
    arguments = iter(examples)
    for node in module.graph.nodes:
        if node.op == "placeholder":
            values[node] = line.there(next(arguments), argument=len(values))
        elif node.op == "get_attr":
            values[node] = line.there(held[node], constant=True) if fresh(node) else line.held(held[node])
        elif node.op == "output":
            results = torch.fx.node.map_arg(node.args[0], values.__getitem__)
        else:
            args, kwargs = (torch.fx.node.map_arg(part, values.__getitem__) for part in (node.args, node.kwargs))
            values[node] = line.step(node.target, tuple(args), dict(kwargs))
    return line.needed_for(results), results


class _Line:
    def __init__(self, keep_detach: bool) -> None:
        self.known: dict[Any, Value] = {}
        self.order: list[Value] = []
        self.keep_detach = keep_detach
        self.tensors: dict[int, Value] = {}

    def there(self, example: Tensor, argument: int | None = None, **kind: bool) -> Value:
        value = Value(None, (), {}, example, argument=argument, **kind)
        self.order.append(value)
        return value

    def held(self, tensor: Tensor) -> Value:
        """One value for a tensor, however often the function uses it."""
        if id(tensor) not in self.tensors:
            self.tensors[id(tensor)] = self.there(tensor, fixed=not tensor.requires_grad)
        return self.tensors[id(tensor)]

    def step(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value of an operation: one that is there already, or a new step."""
        if rule := RULES.get(target):
            shorter = rule(self, args, kwargs)
            if isinstance(shorter, Value):
                return shorter
            if shorter is not None:
                target, args, kwargs = shorter
        key = target, _hashable(args), _hashable(kwargs)
        if key not in self.known:
            self.known[key] = self.new(target, args, kwargs)
        return self.known[key]

    def new(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
        parts = list(parts_of((args, kwargs)))
        constant = all(part.constant for part in parts)
        example = target(*_examples(args), **_examples(kwargs))
        # A view of a held tensor shares its memory, and so follows what is written there.
        fixed = bool(parts) and all(part.fixed for part in parts) and isinstance(example, Tensor) and is_view(target)
        value = Value(target, args, kwargs, example, constant, fixed)
        self.order.append(value)
        return value

    def needed_for(self, results: Any) -> list[Value]:
        needed: set[int] = set()
        queue = [*parts_of(results), *(value for value in self.order if checks(value.target))]
        while queue:
            value = queue.pop()
            if id(value) not in needed:
                needed.add(id(value))
                if not ready(value):
                    queue += parts_of((value.args, value.kwargs))
        return [value for value in self.order if id(value) in needed]


def owned(steps: list[Value], result: Value) -> Value:
    """The result; or a copy, where a caller who writes into it would write into what is given, held or kept."""
    memory = storage_of(result.example)
    kept = [
        value
        for value in steps
        if isinstance(value.example, Tensor)
        and value.example.layout is torch.strided  # a sparse one shares no memory with a result
        and (value.target is None or ready(value))
    ]
    if all(storage_of(v.example) != memory for v in kept):
        return result
    copy = Value(aten.clone.default, (result,), {}, result.example.clone())
    steps.append(copy)
    return copy


def _examples(tree: Any) -> Any:
    if isinstance(tree, Value):
        return tree.example
    if isinstance(tree, list | tuple):
        return type(tree)(map(_examples, tree))
    return {name: _examples(part) for name, part in tree.items()} if isinstance(tree, dict) else tree


def _hashable(tree: Any) -> Any:
    if isinstance(tree, Value):
        return Value, id(tree)
    if isinstance(tree, list | tuple):
        return tuple(map(_hashable, tree))
    if isinstance(tree, dict):
        return tuple((name, _hashable(part)) for name, part in sorted(tree.items()))
    return type(tree), tree
