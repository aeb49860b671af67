"""Whether a function reads the values of tensors: then its operations may be others at the next call."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from funcdiff._torch.tensors import with_number

# These read memory where the dispatcher does not see it.
UNSEEN = frozenset(
    (
        *(Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.__repr__),
        *(torch.tensor_split, Tensor.tensor_split),
    )
)
_TAGS = torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape
_MASKS = torch.bool, torch.uint8


class Reading(TorchFunctionMode):
    """What `reading` fills in.

    Attributes:
        seen: Whether a value was read, or made a shape.
    """

    seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= func in UNSEEN
        return func(*args, **(kwargs or {}))


@functools.cache
def may_show(func: Any) -> bool:
    return any(tag in getattr(func, "tags", ()) for tag in _TAGS)


def shows(func: Any, args: Sequence[Any]) -> bool:
    """Whether an operator makes a number of a tensor, or a shape that depends on values."""
    if not may_show(func):
        return False
    return func is not torch.ops.aten.index.Tensor or any(i is not None and i.dtype in _MASKS for i in args[1])


class _Below(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its hooks untyped
    """Sees what the dispatcher does: numbers made of tensors, and shapes that depend on values."""

    supports_higher_order_operators = True  # cond and its like, which branch by themselves

    def __init__(self, reading: Reading) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.reading = reading

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reading.seen |= shows(func, args)
        return with_number(func, args, kwargs or {})


@contextmanager
def reading() -> Iterator[Reading]:
    """Watch for reads of values, in this thread."""
    with Reading() as seen, _Below(seen):
        yield seen
