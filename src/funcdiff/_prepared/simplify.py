"""A shorter line of operations with the same results: what copies, views or multiplies by one for nothing is left out.

The line is rewritten node by node. Every node has its example value, so that shapes, strides and constants are known.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from funcdiff._torch.tracing import COPIES, DETACHES, VIEWS_OF_SHAPE, fresh, held_tensors, is_view

aten = torch.ops.aten
LARGEST_CONSTANT = 2**20  # numbers: one that is larger is made anew in each call


@dataclass(eq=False)  # a node of the line is itself alone
class Value:
    """A step of the line: an operation on others, an argument, or a tensor that is there before.

    Attributes:
        target: The operation; None of what is there before.
        args: Its arguments, of which some are values.
        kwargs: Its keyword arguments.
        example: Its result on the example arguments.
        constant: Whether it depends on nothing that a caller can change.
        fixed: Whether only its numbers can change, as of a view of a held tensor.
        argument: The number of the argument that it is.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    example: Any
    constant: bool = False
    fixed: bool = False
    argument: int | None = None


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
        queue = list(parts_of(results))
        while queue:
            value = queue.pop()
            if id(value) not in needed:
                needed.add(id(value))
                if not ready(value):
                    queue += parts_of((value.args, value.kwargs))
        return [value for value in self.order if id(value) in needed]


def owned(steps: list[Value], result: Value) -> Value:
    """The result; or a copy, where a caller who writes into it would write into what is given, held or kept."""
    memory = result.example.untyped_storage().data_ptr()
    kept = [
        value
        for value in steps
        if isinstance(value.example, Tensor)
        and value.example.layout is torch.strided  # a sparse one shares no memory with a result
        and (value.target is None or ready(value))
    ]
    if all(v.example.untyped_storage().data_ptr() != memory for v in kept):
        return result
    copy = Value(aten.clone.default, (result,), {}, result.example.clone())
    steps.append(copy)
    return copy


def ready(value: Value) -> bool:
    """Whether the value can be made once, when the function is prepared."""
    small = isinstance(value.example, Tensor) and value.example.numel() <= LARGEST_CONSTANT
    return value.fixed or (value.constant and value.target is not None and small)


def parts_of(tree: Any) -> Iterable[Value]:
    """The values in a tree of arguments."""
    if isinstance(tree, Value):
        yield tree
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from parts_of(part)
    elif isinstance(tree, dict):
        yield from parts_of(list(tree.values()))


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


# A rule gives a value that is there, a shorter operation, or None where there is nothing to gain.
Rule = Callable[[_Line, tuple[Any, ...], dict[str, Any]], Any]
RULES: dict[Any, Rule] = {}


def _rule(*targets: Any) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, rule))
        return rule

    return register


def _same_layout(x: Tensor, y: Tensor) -> bool:
    return x.shape == y.shape and x.stride() == y.stride() and x.dtype == y.dtype and x.device == y.device


@_rule(aten.alias.default, aten.lift_fresh.default, aten.lift_fresh_copy.default, aten.positive.default)
def _itself(line: _Line, args: Any, kwargs: Any) -> Any:
    return args[0]


@_rule(*DETACHES)
def _detach(line: _Line, args: Any, kwargs: Any) -> Any:
    return (aten.detach.default, args, kwargs) if line.keep_detach else args[0]


@_rule(*COPIES)
def _copy(line: _Line, args: Any, kwargs: Any) -> Any:
    """Nothing is written to in the line, so that a copy with the same layout copies nothing."""
    if not isinstance(args[0], Value):  # a number that becomes a tensor
        return None
    wanted = {name: kwargs.get(name) for name in ("dtype", "device", "layout")}
    x = args[0].example
    same = all(value is None or value == getattr(x, name) for name, value in wanted.items())
    plain = kwargs.get("memory_format") in (None, torch.preserve_format) or (
        kwargs["memory_format"] is torch.contiguous_format and x.is_contiguous()
    )
    return args[0] if same and plain and not x.is_conj() and not x.is_neg() else None


@_rule(aten.copy.default)
def _written(line: _Line, args: Any, kwargs: Any) -> Any:
    """Numbers written over all of another tensor of their kind are these numbers."""
    over, numbers = args[:2]
    same = over.example.shape == numbers.example.shape and over.example.dtype == numbers.example.dtype
    return numbers if same and over.example.stride() == numbers.example.stride() else None


@_rule(*VIEWS_OF_SHAPE)
def _view(line: _Line, args: Any, kwargs: Any) -> Any:
    x, shape = args
    wanted = _numbers_of(shape, x.example.numel())
    if list(x.example.shape) == wanted:
        return x
    base = x
    while base.target in _RESHAPES and not _is_list(base.example):
        base = base.args[0]
    if list(base.example.shape) == wanted and base is not x:
        return base
    if base is not x and _viewable(base.example, wanted):
        return aten.view.default, (base, wanted), {}
    return aten.view.default, (x, wanted), {}


# These leave the numbers in their order, and are one view at most, whatever they follow.
_SHAPES = aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims
_RESHAPES = {*VIEWS_OF_SHAPE, *_SHAPES}


def _is_list(example: Any) -> bool:
    return not isinstance(example, Tensor)


def _numbers_of(shape: Sequence[int], numel: int) -> list[int]:
    known = 1
    for length in shape:
        known *= length if length != -1 else 1
    return [length if length != -1 else numel // max(known, 1) for length in shape]


def _viewable(x: Tensor, shape: Sequence[int]) -> bool:
    try:
        x.detach().view(shape)
    except RuntimeError:  # torch's own answer to whether the strides allow it
        return False
    return True


def _resized(target: Any) -> Rule:
    """After another view of the same numbers both are one view."""

    def rule(line: _Line, args: Any, kwargs: Any) -> Any:
        x, *rest = args
        shape = list(target(x.example, *rest).shape)
        return _view(line, (x, shape), {}) if x.target in _RESHAPES or shape == list(x.example.shape) else None

    return rule


RULES.update({target: _resized(target) for target in _SHAPES})


def _filled(number: float | None, shaped: bool) -> Rule:
    """Write as a constant what takes from its argument only the kind and, unless `shaped`, the shape."""

    def rule(line: _Line, args: Any, kwargs: Any) -> Any:
        x, *rest = args
        shape = list(rest.pop(0) if shaped else x.example.shape)
        if not shaped and not x.example.is_contiguous():  # the result has the strides of x
            return None
        like = {"dtype": x.example.dtype, "device": x.example.device}
        given = {name: kwargs[name] for name in like if kwargs.get(name) is not None}
        return aten.full.default, (shape, number if number is not None else rest[0]), like | given

    return rule


RULES.update(
    {
        aten.ones_like.default: _filled(1, False),
        aten.zeros_like.default: _filled(0, False),
        aten.full_like.default: _filled(None, False),
        aten.new_ones.default: _filled(1, True),
        aten.new_zeros.default: _filled(0, True),
        aten.new_full.default: _filled(None, True),
    }
)


@_rule(aten.t.default)
def _transposed(line: _Line, args: Any, kwargs: Any) -> Any:
    (x,) = args
    return x.args[0] if x.target is aten.t.default else None


@_rule(aten.permute.default)
def _permuted(line: _Line, args: Any, kwargs: Any) -> Any:
    x, dims = args
    if list(dims) == list(range(len(dims))):
        return x
    if x.target is aten.permute.default:
        return aten.permute.default, (x.args[0], [x.args[1][d] for d in dims]), {}
    return None


@_rule(aten.expand.default)
def _expanded(line: _Line, args: Any, kwargs: Any) -> Any:
    x, shape = args
    return x if list(x.example.shape) == list(shape) else None


@_rule(aten.slice.Tensor)
def _sliced(line: _Line, args: Any, kwargs: Any) -> Any:
    x = args[0]
    given: tuple[Any, ...] = (*args[1:], *(0, None, None, 1)[len(args) - 1 :])
    dim, start, end, step = given
    length = x.example.shape[dim]
    whole = start in (None, 0) and (end is None or end >= length) and step in (None, 1)
    return x if whole else None


@_rule(aten.select.int)
def _selected(line: _Line, args: Any, kwargs: Any) -> Any:
    x, dim, _ = args
    if x.example.shape[dim] != 1:
        return None
    shape = list(x.example.shape)
    del shape[dim]
    return line.step(aten.view.default, (x, shape), {}) if _viewable(x.example, shape) else None


@_rule(operator.getitem)
def _part(line: _Line, args: Any, kwargs: Any) -> Any:
    """The only part of what was split into one."""
    parts, index = args
    if parts.target is aten.split_with_sizes.default and len(parts.example) == 1:
        return parts.args[0]
    if parts.target is aten.unbind.int and len(parts.example) == 1:
        return line.step(aten.select.int, (parts.args[0], *(parts.args[1:] or (0,)), index), {})
    return None


@_rule(aten.mul.Tensor, aten.mul.Scalar)
def _product(line: _Line, args: Any, kwargs: Any) -> Any:
    return _neutral(args, 1) or _neutral(args[::-1], 1)


@_rule(aten.div.Tensor, aten.div.Scalar)
def _quotient(line: _Line, args: Any, kwargs: Any) -> Any:
    return _neutral(args, 1)


@_rule(aten.add.Tensor, aten.add.Scalar)
def _sum(line: _Line, args: Any, kwargs: Any) -> Any:
    if kwargs or len(args) > 2:  # with a factor
        return None
    return _neutral(args, 0) or _neutral(args[::-1], 0) or _constants_first(line, *args)


def _constants_first(line: _Line, total: Any, constant: Any) -> Any:
    """Add two constants as large as the sum once: x + a + b as x + (a + b)."""
    if not (_is_constant(constant) and isinstance(total, Value) and total.target is aten.add.Tensor):
        return None
    x, other = total.args[:2]
    if total.kwargs or len(total.args) > 2 or not _is_constant(other) or _is_constant(x):
        return None
    if not other.example.shape == constant.example.shape == total.example.shape:
        return None
    return aten.add.Tensor, (x, line.step(aten.add.Tensor, (other, constant), {})), {}


def _is_constant(x: Any) -> bool:
    return isinstance(x, Value) and x.constant and isinstance(x.example, Tensor) and x.example.numel() > 1


@_rule(aten.sub.Tensor, aten.sub.Scalar)
def _difference(line: _Line, args: Any, kwargs: Any) -> Any:
    return None if kwargs or len(args) > 2 else _neutral(args, 0)


def _neutral(args: Sequence[Any], number: int) -> Value | None:
    """The first of two arguments where the second is that constant all over and changes neither shape nor dtype."""
    x, other = args[:2]
    if not isinstance(x, Value) or not isinstance(x.example, Tensor):
        return None
    if isinstance(other, Value):
        neutral = other.constant and bool((other.example == number).all()) and fits(other.example, x.example)
    else:
        neutral = other == number
    second = other.example if isinstance(other, Value) else other
    return x if neutral and torch.result_type(x.example, second) == x.example.dtype else None


def fits(small: Tensor, large: Tensor) -> bool:
    """Whether the one is broadcast to the shape of the other."""
    lengths = zip(reversed(small.shape), reversed(large.shape), strict=False)
    return small.ndim <= large.ndim and all(a in (1, b) for a, b in lengths)
