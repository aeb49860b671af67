"""The steps of a line of operations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

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
