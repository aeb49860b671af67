"""Writing in place: where the tensor that is written over is used for the last time, nothing of it needs a copy."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from funcdiff._prepared.values import Value, parts_of, ready
from funcdiff._torch.intercept import storage_of

aten = torch.ops.aten
# What writes into a part of a copy, and the view of that part.
_PARTS = {aten.slice_scatter.default: aten.slice.Tensor, aten.select_scatter.default: aten.select.int}


def in_place(steps: list[Value], results: list[Any]) -> tuple[list[Value], list[Any]]:
    """The line without the copies that tracing made of writes into parts of tensors.

    NOTE [reuse]. A write into a part is traced as a copy of the whole with the part replaced. Taylor mode does so once
    for each run of pairs. It becomes a write again where the line itself made the memory, so that no caller and no
    other thread has it, and where nothing that lies in that memory is used later. Which tensors share memory is read
    from the examples. For a line that carries a graph this is left out: autograd may have saved what is written over.
    """
    last = {id(part): i for i, value in enumerate(steps) for part in parts_of((value.args, value.kwargs))}
    last |= dict.fromkeys(map(id, parts_of(results)), len(steps))
    sharing: dict[int, list[Value]] = {}
    for value in steps:
        for storage in _storages(value):
            sharing.setdefault(storage, []).append(value)
    replaced: dict[int, Value] = {}
    line: list[Value] = []
    for i, value in enumerate(steps):
        value.args, value.kwargs = (_with(replaced, tree) for tree in (value.args, value.kwargs))
        if value.target not in _PARTS or ready(value) or not _reusable(value, i, last, sharing):
            line.append(value)
            continue
        base, numbers, *place = value.args
        view = Value(_PARTS[value.target], (base, *place), {}, _PARTS[value.target](base.example, *place))
        line += [view, Value(aten.copy_.default, (view, numbers), {}, view.example)]
        replaced[id(value)] = base
        last[id(base)] = last.get(id(value), i)
        together = sharing[storage_of(base.example)]
        together += [other for other in sharing[storage_of(value.example)] if other is not value]
        sharing[storage_of(value.example)] = together
    return line, _with(replaced, results)


def without_lone_parts(steps: list[Value]) -> list[Value]:
    """The line with a slice for the only part that is used of what is split into many."""
    many = aten.split_with_sizes.default
    parts = [v for v in steps if v.target is operator.getitem and v.args[0].target is many]
    uses = Counter(id(v.args[0]) for v in parts)
    for value in parts:
        (tensor, sizes, *dim), i = value.args[0].args, value.args[1]
        if uses[id(value.args[0])] == 1 and not value.args[0].kwargs:
            start = sum(sizes[:i])
            value.target, value.args = aten.slice.Tensor, (tensor, *(dim or [0]), start, start + sizes[i])
    used = {id(part) for value in steps for part in parts_of((value.args, value.kwargs))}
    return [value for value in steps if value.target is not many or id(value) in used]


def _reusable(value: Value, i: int, last: dict[int, int], sharing: dict[int, list[Value]]) -> bool:
    """Whether the first argument of a write into a part may itself be written to."""
    base, numbers = value.args[:2]
    if value.kwargs or not base.example.is_contiguous() or not value.example.is_contiguous():
        return False
    together = sharing[storage_of(base.example)]
    own = all(other.target is not None and not ready(other) for other in together)
    done = all(last.get(id(other), -1) <= i for other in together)
    return own and done and not any(other is numbers for other in together)


def _storages(value: Value) -> Iterator[int]:
    examples = value.example if isinstance(value.example, list | tuple) else [value.example]
    yield from {storage_of(example) for example in examples if isinstance(example, Tensor)}


def _with(replaced: dict[int, Value], tree: Any) -> Any:
    """The tree with others in the place of some values."""
    if isinstance(tree, Value):
        return replaced.get(id(tree), tree)
    if isinstance(tree, list | tuple):
        return type(tree)(_with(replaced, part) for part in tree)
    return {name: _with(replaced, part) for name, part in tree.items()} if isinstance(tree, dict) else tree
