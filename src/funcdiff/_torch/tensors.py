"""What a tensor keeps to itself."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

T = TypeVar("T", bound=Tensor)


def times_written(x: Tensor) -> int:
    """How often a tensor was written to in place."""
    return x._version


def without_data(kind: type[T], like: Tensor) -> T:
    """A tensor of a subclass, with the shape, dtype and device of another, that owns no memory."""
    return Tensor._make_wrapper_subclass(kind, like.shape, dtype=like.dtype, device=like.device)
