"""Lazy modules: their first call makes parameters, which inside a transform of torch 2.13 ends the process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Module
from torch.nn.modules.lazy import LazyModuleMixin

from funcdiff._calling.closures import captured
from funcdiff._torch.messages import LAZY, RefusedError


def refuse_lazy(func: Callable[..., Any]) -> None:
    """Stop before `func` calls a lazy module for the first time: itself, or one that its code names."""
    if torch.compiler.is_compiling():
        return
    modules = [thing for thing in _held(func) if isinstance(thing, Module)]
    if modules and any(map(_lazy, modules)):
        raise RefusedError(LAZY)


def _lazy(module: Module) -> bool:
    return isinstance(module, LazyModuleMixin) or any(map(_lazy, module.children()))


def _held(func: Any) -> list[Any]:
    held = [func, getattr(func, "__self__", None)]
    if isinstance(func, functools.partial):
        held += [*func.args, *func.keywords.values(), *_held(func.func)]
    if (code := getattr(func, "__code__", None)) is not None:
        held += map(func.__globals__.get, code.co_names)
        held += func.__defaults__ or ()
        held += captured(func)
    return held
