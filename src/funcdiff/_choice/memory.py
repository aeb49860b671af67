"""Plans are kept, by what tells a function from others and by the shapes of its arguments."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache, partial
from types import CodeType, FunctionType, MethodType
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

_KEPT = 512
_DEEP = 4
_plans: dict[Hashable, Any] = {}


def find(key: Hashable) -> Any:
    """The plan, or the chunk, kept under `key`."""
    return _plans.get(key)


def key_of(func: Any, *rest: Hashable, graph: bool = False) -> Hashable:
    """What a plan for `func` is kept under; equal to no other where `func` holds what cannot be told apart.

    With `graph` also by what requires grad, as graphs take memory.
    """
    try:
        key = described(func, graph=graph and torch.is_grad_enabled()), *rest
        hash(key)
    except (TypeError, ValueError):  # an object without a hash, a name not bound yet
        return object()
    return key


def keep(key: Hashable, plan: Any) -> None:
    """Keep a plan; where there are too many the oldest goes."""
    while len(_plans) >= _KEPT:
        del _plans[next(iter(_plans))]
    _plans[key] = plan


def described(thing: Any, depth: int = 0, graph: bool = False) -> Hashable:
    """Tensors by their kind, functions by their code and what they hold, modules with their mode, others by identity.

    So a lambda written anew in each turn of a loop is planned once.
    """
    part = partial(described, depth=depth + 1, graph=graph)
    if isinstance(thing, Tensor):
        return thing.shape, thing.dtype, thing.device, graph and thing.requires_grad
    if depth < _DEEP:
        if isinstance(thing, FunctionType):
            held = [cell.cell_contents for cell in thing.__closure__ or ()]
            preset = (thing.__defaults__, thing.__kwdefaults__)
            return thing.__code__, *map(part, (*held, *preset, *_globals(thing)))
        if isinstance(thing, MethodType):
            return thing.__func__, part(thing.__self__)
        if isinstance(thing, partial):
            return tuple(map(part, (thing.func, thing.args, thing.keywords)))
        if isinstance(thing, list) and all(isinstance(item, (int, float, str)) for item in thing):
            return list  # a log that grows, not what func computes with
        if isinstance(thing, (tuple, list)):
            return type(thing), *map(part, thing)
        if isinstance(thing, Mapping):
            return tuple((key, part(item)) for key, item in thing.items())
    if isinstance(thing, nn.Module):
        trainable = tuple(p.requires_grad for p in thing.parameters()) if graph else ()
        return ref(thing), trainable, *((type(layer), layer.training) for layer in thing.modules())
    if isinstance(thing, (int, float, str, type(None))):
        return type(thing), thing
    try:
        return ref(thing)
    except TypeError:
        return object()  # equal to nothing: planned at each call


def _globals(func: FunctionType) -> list[Any]:
    """What the names in a function written by a user stand for just now: a script's loop rebinds them."""
    if (func.__module__ or "").startswith(("funcdiff.", "torch.")):
        return []
    return [func.__globals__[name] for name in _names(func.__code__) if name in func.__globals__]


@lru_cache(maxsize=_KEPT)
def _names(code: CodeType) -> tuple[str, ...]:
    inner = (part for part in code.co_consts if isinstance(part, CodeType))
    return tuple(dict.fromkeys((*code.co_names, *(name for part in inner for name in _names(part)))))
