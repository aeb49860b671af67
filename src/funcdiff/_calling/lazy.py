"""Lazy modules: their first call makes parameters, which inside a transform of torch 2.13 ends the process."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import Module
from torch.nn.modules.lazy import LazyModuleMixin

from funcdiff._torch.messages import LAZY, RefusedError


def refuse_lazy(func: Callable[..., Any]) -> None:
    """Stop before `func` calls a lazy module for the first time: itself, or one that its code names."""
    if not torch.compiler.is_compiling() and any(isinstance(x, Module) and _lazy(x) for x in _held(func)):
        raise RefusedError(LAZY)


def _lazy(module: Module) -> bool:
    return isinstance(module, LazyModuleMixin) or any(_lazy(part) for part in module.children())


def _held(func: Any) -> Iterator[Any]:
    yield func
    yield getattr(func, "__self__", None)
    if isinstance(func, functools.partial):
        yield from func.args
        yield from func.keywords.values()
        yield from _held(func.func)
    if (code := getattr(func, "__code__", None)) is not None:
        yield from (func.__globals__.get(name) for name in code.co_names)
        yield from func.__defaults__ or ()
        for cell in func.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # func is not yet, or no longer, given this name
                continue
