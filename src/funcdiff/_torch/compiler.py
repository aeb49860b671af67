"""torch.compile: what it leaves on functions, and what it reads there."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, TypeVar

import torch
from torch._C._dynamo.eval_frame import (
    _FrameAction,
    _FrameExecStrategy,
    get_eval_frame_callback,
    set_code_exec_strategy,
)
from torch._guards import TracingContext

from funcdiff._torch import control_flow
from funcdiff._torch.messages import CUSTOM, RefusedError
from funcdiff._torch.versions import RUNNING

ORIGINAL = "_torchdynamo_orig_callable"  # where torch.compile keeps what it was given
_EVAL_FRAME = "torch._dynamo.eval_frame"
# torch 2.12 says so, once in a process, also where the stance is eager; 2.13 no longer does.
_NOTHING_COMPILED = (
    "torch.compile with fullgraph=True found no compiled frames. The frame was likely skipped (e.g., a non-infra torch "
    "dispatch mode was active, dynamo was disabled, or the frame was skipped. This may become an error in the future."
)
_changing = Lock()
_inside = 0  # calls that run eagerly just now
_before: Any = None  # the stance that the first of them found
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class _Eagerly:
    """What `eagerly` returns: one object for all, as the state is one of the process; a generator takes longer."""

    def __enter__(self) -> None:
        global _inside, _before
        with _changing:
            _inside += 1
            if _inside == 1:
                control_flow.as_python(True)
            if _before is None and (eval_frame := sys.modules.get(_EVAL_FRAME)):
                _before = _eager_stance(eval_frame)

    def __exit__(self, *_: object) -> None:
        global _inside, _before
        with _changing:
            _inside -= 1
            if not _inside:
                control_flow.as_python(False)
                if _before is not None:
                    sys.modules[_EVAL_FRAME]._stance = _before  # type: ignore[attr-defined]  # as torch's own does it
                    _before = None
                    if RUNNING.startswith("2.12"):
                        torch._dynamo.utils.warn_once_cache.discard(_NOTHING_COMPILED)


EAGERLY = _Eagerly()  # for what the compiler never traces


def named_after(func: Callable[..., Any]) -> Callable[[F], F]:
    """As `functools.wraps`, without annotations: a derivative returns something else.

    The compilers of torch 2.11 and 2.14 look up those of a builtin, which has none, and raise.
    """
    names = ("__module__", "__name__", "__qualname__", "__doc__")
    return functools.wraps(func, assigned=names, updated=())  # type: ignore[return-value]  # what it wraps it returns


def eagerly() -> AbstractContextManager[None]:
    """Run what torch.compile made, and torch's control flow operators, as they were written.

    In a mode, what is compiled answers with graphs of another call. The stance is set as
    `torch.compiler.set_stance("force_eager")` does it, in a fraction of the time. It is one for the process: the first
    thread that comes in sets it, and the last one that goes out puts back what was.
    """
    return nullcontext() if torch.compiler.is_compiling() else EAGERLY


def _eager_stance(eval_frame: Any) -> Any:
    """Set the stance, unless this is between two graphs of a compiled function; what it was before."""
    if get_eval_frame_callback() in (None, False):
        before, eval_frame._stance = eval_frame._stance, _stance(eval_frame)
        if RUNNING.startswith("2.12"):
            torch._dynamo.utils.warn_once_cache.add(_NOTHING_COMPILED)
        return before
    return None


@functools.cache
def _stance(eval_frame: Any) -> Any:
    return eval_frame.DynamoStance("force_eager")


def inlined() -> AbstractContextManager[Any]:
    """Have torch's tracer see what torch.compile made as it was written; by default, it raises there."""
    config: Any = sys.modules.get("torch._dynamo.config")
    return config.patch(error_on_nested_fx_trace=False) if config else nullcontext()


def is_compiled(func: Callable[..., Any]) -> bool:
    """Whether torch.compile made the function, or the module."""
    return hasattr(func, ORIGINAL) or hasattr(func, "_orig_mod")


def settled(size: int) -> int:
    """A size as a number, also where torch.compile has a symbol for it: it compiles again for another."""
    return range(size).stop  # a range holds no symbols


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


def whole(func: F) -> F:
    """Have the compiler trace `func` as a part of what calls it, or leave it alone.

    Where a graph breaks inside it, the compiler would go on with the functions that it calls, each by itself. What it
    keeps of one derivative it would then take for the next one as well.
    """
    set_code_exec_strategy(func.__code__, _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP))
    return func


@left_alone
def alone(run: Callable[..., T], args: Sequence[Any]) -> T:
    """`run(*args)`, of which the compiler compiles nothing: between two graphs, it would each function that is called.

    There it no longer sees that they are part of a derivative, and ignores the backward of a custom function again.
    """
    return run(*args)


def compiled(run: Callable[..., T], args: Sequence[Any]) -> T:
    """`run(*args)` as the compiler traces it, which leaves what is refused here to `alone`, unless fullgraph=True.

    Raises:
        RefusedError: A custom autograd function was traced. Inside a transform, the compiler ignores its backward.
    """
    start = _traced()
    result = run(*args)
    if _custom_function_since(start):
        raise RefusedError(CUSTOM)
    return result


@run_while_compiling
def _traced() -> int:
    """How many functions the compiler has traced so far."""
    return len(TracingContext.get_traced_code() or ())


@run_while_compiling
def _custom_function_since(start: int) -> bool:
    forwards = {function.forward.__code__ for function in _subclasses(torch.autograd.Function)}
    return any(code in forwards for code in (TracingContext.get_traced_code() or ())[start:])


def _subclasses(of: Any) -> Iterator[Any]:
    for one in type.__subclasses__(of):
        yield one
        yield from _subclasses(one)
