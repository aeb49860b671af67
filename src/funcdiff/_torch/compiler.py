"""torch.compile: what it leaves on functions, and what it reads there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def is_compiled(func: Callable[..., Any]) -> bool:
    """Whether torch.compile made the function, or the module."""
    return hasattr(func, "_torchdynamo_orig_callable") or hasattr(func, "_orig_mod")


def run_while_compiling(func: F) -> F:
    """Have the compiler run `func` when it compiles, and take the result for a constant.

    As torch.compiler.assume_constant_result does it, which would import the whole compiler.
    """
    func._dynamo_marked_constant = True  # type: ignore[attr-defined]  # a mark that torch looks for
    return func
