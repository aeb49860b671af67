"""torch.compile: what it leaves on functions, and what it reads there."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any, TypeVar

import torch
from torch._C._dynamo.eval_frame import (
    _FrameAction,
    _FrameExecStrategy,
    get_eval_frame_callback,
    set_code_exec_strategy,
)

from funcdiff._torch import control_flow

_EVAL_FRAME = "torch._dynamo.eval_frame"
_changing = Lock()
_inside = 0  # calls that run eagerly just now
_before: Any = None  # the stance that the first of them found
F = TypeVar("F", bound=Callable[..., Any])


class _Eagerly:
    """What `eagerly` returns: one object for all, as the state is one of the process; a generator takes longer."""

    def __enter__(self) -> None:
        global _inside, _before
        if torch.compiler.is_compiling():
            return
        with _changing:
            _inside += 1
            if _inside == 1:
                control_flow.as_python(True)
            if _before is None and (eval_frame := sys.modules.get(_EVAL_FRAME)):
                _before = _eager_stance(eval_frame)

    def __exit__(self, *_: object) -> None:
        global _inside, _before
        if torch.compiler.is_compiling():
            return
        with _changing:
            _inside -= 1
            if not _inside:
                control_flow.as_python(False)
                if _before is not None:
                    sys.modules[_EVAL_FRAME]._stance = _before  # type: ignore[attr-defined]  # as torch's own does it
                    _before = None


_EAGERLY = _Eagerly()


def eagerly() -> AbstractContextManager[None]:
    """Run what torch.compile made, and torch's control flow operators, as they were written.

    In a mode, what is compiled answers with graphs of another call. The stance is set as
    `torch.compiler.set_stance("force_eager")` does it, in a fraction of the time. It is one for the process: the first
    thread that comes in sets it, and the last one that goes out puts back what was.
    """
    return _EAGERLY


def _eager_stance(eval_frame: Any) -> Any:
    """Set the stance, unless this is between two graphs of a compiled function; what it was before."""
    if get_eval_frame_callback() in (None, False):
        before, eval_frame._stance = eval_frame._stance, _stance(eval_frame)
        return before
    return None


@functools.cache
def _stance(eval_frame: Any) -> Any:
    return eval_frame.DynamoStance("force_eager")


def is_compiled(func: Callable[..., Any]) -> bool:
    """Whether torch.compile made the function, or the module."""
    return hasattr(func, "_torchdynamo_orig_callable") or hasattr(func, "_orig_mod")


def run_while_compiling(func: F) -> F:
    """Have the compiler run `func` when it compiles, and take the result for a constant.

    As torch.compiler.assume_constant_result does it, which would import the whole compiler.
    """
    func._dynamo_marked_constant = True  # type: ignore[attr-defined]  # a mark that torch looks for
    return func


def left_alone(func: F) -> F:
    """Have the compiler call `func` as it is, between two graphs, and compile nothing that it calls.

    As torch.compiler.disable does it, which would import the whole compiler.
    """
    if torch.compiler.is_compiling():
        return func
    set_code_exec_strategy(func.__code__, _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP))
    func._torchdynamo_disable = True  # type: ignore[attr-defined]  # a mark that torch looks for
    return func
