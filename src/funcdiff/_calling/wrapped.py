"""Modules wrapped for several processes: torch differentiates them without an error, and not as their users mean."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from funcdiff._calling.closures import captured
from funcdiff._torch.messages import DDP, FSDP, FSDP2, RefusedError
from funcdiff._torch.processes import running, wrapper_of

_REMEDIES = {"DDP": DDP, "FSDP": FSDP, "FSDP2": FSDP2}
_MANY = 10_000  # things that a function holds, and all that they hold


def refuse_wrapped(func: Callable[..., Any], *, hooks: bool = True) -> None:
    """Stop where `func` holds a wrapped module, however deep; one with the `hooks` of `fully_shard` if asked.

    Without a process group there is none, and nothing is looked at.
    """
    if not running() or torch.compiler.is_compiling():
        return
    seen: set[int] = set()
    waiting: list[Any] = [func]
    while waiting and len(seen) < _MANY:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, (Tensor, type, types.ModuleType)):
            continue
        seen.add(id(thing))
        if isinstance(thing, Module) and (remedy := _REMEDIES.get(wrapper_of(thing))) and (hooks or remedy != FSDP2):
            raise RefusedError(remedy)
        waiting += _held(thing)


def _held(thing: Any) -> Iterable[Any]:
    if isinstance(thing, types.FunctionType):
        named = () if thing.__module__.startswith("torch.") else thing.__code__.co_names
        return [
            *captured(thing),
            *(thing.__globals__.get(name) for name in named),
            *(thing.__defaults__ or ()),
            getattr(thing, "__wrapped__", None),
        ]
    if isinstance(thing, types.MethodType):
        return thing.__self__, thing.__func__
    if isinstance(thing, functools.partial):
        return thing.func, *thing.args, *thing.keywords.values()
    if isinstance(thing, Module):
        return thing.children()
    if isinstance(thing, Mapping):
        return thing.values()
    if isinstance(thing, (list, tuple, set)):
        return thing
    return vars(thing).values() if hasattr(thing, "__dict__") else ()
