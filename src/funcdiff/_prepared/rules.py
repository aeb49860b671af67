"""How an operation of a line is made shorter, by what it is given.

A rule returns a value that is there already, a shorter operation, or None where there is nothing to gain.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from funcdiff._prepared.values import Value
from funcdiff._torch.tracing import CONVERTED, COPIES, DETACHES, VIEWS_OF_SHAPE

aten = torch.ops.aten


class Line(Protocol):
    """The line that a rule adds steps to."""

    keep_detach: bool

    def step(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value of an operation."""


Rule = Callable[[Line, tuple[Any, ...], dict[str, Any]], Any]
RULES: dict[Any, Rule] = {}


def _rule(*targets: Any) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, rule))
        return rule

    return register


@_rule(aten.alias.default, aten.lift_fresh.default, aten.lift_fresh_copy.default, aten.positive.default)
def _itself(line: Line, args: Any, kwargs: Any) -> Any:
    return args[0]


@_rule(*DETACHES)
def _detach(line: Line, args: Any, kwargs: Any) -> Any:
    return (aten.detach.default, args, kwargs) if line.keep_detach else args[0]


@_rule(*COPIES)
def _copy(line: Line, args: Any, kwargs: Any) -> Any:
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
def _written(line: Line, args: Any, kwargs: Any) -> Any:
    """Numbers written over all of another tensor of their kind are these numbers."""
    over, numbers = args[0].example, args[1]
    if over.device != numbers.example.device:
        return None
    if over.dtype != numbers.example.dtype:
        numbers = line.step(CONVERTED, (numbers,), {"dtype": over.dtype})
    if over.shape != numbers.example.shape:
        numbers = line.step(aten.expand.default, (numbers, list(over.shape)), {})
    if over.stride() == numbers.example.stride():
        return numbers
    if not over.is_contiguous():  # a part of another tensor, into which the numbers are written next
        return numbers
    return aten.clone.default, (numbers,), {"memory_format": torch.contiguous_format}


@_rule(*VIEWS_OF_SHAPE)
def _view(line: Line, args: Any, kwargs: Any) -> Any:
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
    # A shorter line may have other strides here than the one that was traced.
    return aten.view.default if _viewable(x.example, wanted) else aten.reshape.default, (x, wanted), {}


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

    def rule(line: Line, args: Any, kwargs: Any) -> Any:
        x, *rest = args
        shape = list(target(x.example, *rest).shape)
        return _view(line, (x, shape), {}) if x.target in _RESHAPES or shape == list(x.example.shape) else None

    return rule


RULES.update({target: _resized(target) for target in _SHAPES})


def _filled(number: float | None, shaped: bool) -> Rule:
    """Write as a constant what takes from its argument only the kind and, unless `shaped`, the shape."""

    def rule(line: Line, args: Any, kwargs: Any) -> Any:
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
def _transposed(line: Line, args: Any, kwargs: Any) -> Any:
    (x,) = args
    return x.args[0] if x.target is aten.t.default else None


@_rule(aten.permute.default)
def _permuted(line: Line, args: Any, kwargs: Any) -> Any:
    x, dims = args
    if list(dims) == list(range(len(dims))):
        return x
    if x.target is aten.permute.default:
        return aten.permute.default, (x.args[0], [x.args[1][d] for d in dims]), {}
    return None


@_rule(aten.expand.default)
def _expanded(line: Line, args: Any, kwargs: Any) -> Any:
    x, shape = args
    return x if list(x.example.shape) == list(shape) else None


@_rule(aten.slice.Tensor)
def _sliced(line: Line, args: Any, kwargs: Any) -> Any:
    x = args[0]
    given: tuple[Any, ...] = (*args[1:], *(0, None, None, 1)[len(args) - 1 :])
    dim, start, end, step = given
    length = x.example.shape[dim]
    whole = start in (None, 0) and (end is None or end >= length) and step in (None, 1)
    return x if whole else None


@_rule(aten.select.int)
def _selected(line: Line, args: Any, kwargs: Any) -> Any:
    x, dim, _ = args
    if x.example.shape[dim] != 1:
        return None
    shape = list(x.example.shape)
    del shape[dim]
    return line.step(aten.view.default, (x, shape), {}) if _viewable(x.example, shape) else None


@_rule(operator.getitem)
def _part(line: Line, args: Any, kwargs: Any) -> Any:
    """The only part of what was split into one."""
    parts, index = args
    if parts.target is aten.split_with_sizes.default and len(parts.example) == 1:
        return parts.args[0]
    if parts.target is aten.unbind.int and len(parts.example) == 1:
        return line.step(aten.select.int, (parts.args[0], *(parts.args[1:] or (0,)), index), {})
    return None


@_rule(aten.mul.Tensor, aten.mul.Scalar)
def _product(line: Line, args: Any, kwargs: Any) -> Any:
    return _neutral(args, 1) or _neutral(args[::-1], 1)


@_rule(aten.div.Tensor, aten.div.Scalar)
def _quotient(line: Line, args: Any, kwargs: Any) -> Any:
    return _neutral(args, 1)


@_rule(aten.add.Tensor, aten.add.Scalar)
def _sum(line: Line, args: Any, kwargs: Any) -> Any:
    if kwargs or len(args) > 2:  # with a factor
        return None
    return _neutral(args, 0) or _neutral(args[::-1], 0) or _constants_first(line, *args)


def _constants_first(line: Line, total: Any, constant: Any) -> Any:
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
def _difference(line: Line, args: Any, kwargs: Any) -> Any:
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
