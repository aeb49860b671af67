"""What a tensor keeps to itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, TypeVar

import torch
from torch import Tensor

from funcdiff._torch.trees import flatten

T = TypeVar("T", bound=Tensor)
_WRITES: Any = attrgetter("_version")


def times_written(tensors: Sequence[Tensor]) -> list[int]:
    """How often each tensor was written to in place."""
    return list(map(_WRITES, tensors))


def place_of(x: Tensor) -> tuple[int, torch.Size, tuple[int, ...]]:
    """Where the numbers of a tensor lie and how they are read, those of a sparse one as well."""
    numbers = x if x.layout is torch.strided else x._values()
    return numbers.data_ptr(), x.shape, numbers.stride()


def spread_out(x: Any) -> Any:
    """A tensor with a place in memory for each entry: an expanded one, such as zeros for all rows, is copied.

    The caller may write into a part of it, and would write into others as well; or read zeros without memory.
    """
    x = materialised(x)
    return x.contiguous() if isinstance(x, Tensor) and x.layout is torch.strided and 0 in x.stride() else x


def all_finite(numbers: Any) -> bool:
    """Whether no NaN and no infinity is among the numbers in a tree; a sum tells the most in the least time."""
    leaves = (numbers,) if isinstance(numbers, Tensor) else flatten(numbers)[0]
    tensors = [x.detach() if x.requires_grad else x for x in leaves if isinstance(x, Tensor) and not x.is_meta]
    return all(math.isfinite(x.sum().item()) or bool(x.isfinite().all()) for x in tensors)


def without_data(kind: type[T], like: Tensor) -> T:
    """A tensor of a subclass, with the shape, dtype and device of another, that owns no memory."""
    return Tensor._make_wrapper_subclass(kind, like.shape, dtype=like.dtype, device=like.device)


def materialised(result: Any) -> Any:
    """Zeros with memory in place of forward mode's without: torch 2.13 ends the process on some of them in a mode."""
    if isinstance(result, Tensor) and result._is_zerotensor():
        return torch.zeros(result.shape, dtype=result.dtype, device=result.device)
    return result


def with_number(func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
    """`func`, an operator, in a mode, where torch 2.13 ends the process when it is given such zeros and a number."""
    if func not in _WITH_NUMBER or not args[0]._is_zerotensor():
        return func(*args, **kwargs)
    zeros: Tensor = args[0]
    if func is torch.ops.aten.mul.Scalar:
        return torch._efficientzerotensor(zeros.shape, dtype=zeros.dtype, device=zeros.device)
    return func(materialised(zeros), *args[1:], **kwargs)


_WITH_NUMBER = frozenset((torch.ops.aten.mul.Scalar, torch.ops.aten.add.Scalar))
