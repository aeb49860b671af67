"""Plans are kept, by what tells a function from others and by the shapes of its arguments."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from types import CodeType, FunctionType, MethodType
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

_KEPT = 512
_DEEP = 4
_NUMBERS = (int, float, str, type(None))
_plans: dict[Hashable, Any] = {}


def find(key: Hashable) -> Any:
    """The plan, or the chunk, kept under `key`."""
    try:
        return _plans.get(key)
    except TypeError:  # func holds an object without a hash
        return None


def key_of(func: Any, *rest: Hashable, graph: bool = False) -> Hashable:
    """What a plan for `func` is kept under; equal to no other where `func` holds what cannot be told apart.

    With `graph` also by what requires grad, as graphs take memory.
    """
    try:
        return described(func, 0, graph and torch.is_grad_enabled()), *rest
    except ValueError:  # a name not bound yet
        return object()


def keep(key: Hashable, plan: Any) -> None:
    """Keep a plan; where there are too many the oldest goes. None is kept for a function that has no hash."""
    while len(_plans) >= _KEPT:
        del _plans[next(iter(_plans))]
    with suppress(TypeError):
        _plans[key] = plan


def described(thing: Any, depth: int, graph: bool) -> Hashable:
    """Tensors by their kind, functions by their code and what they hold, modules with their mode, others by identity.

    So a lambda written anew in each turn of a loop is planned once.
    """
    if isinstance(thing, Tensor):
        return thing.shape, thing.dtype, thing.device, graph and thing.requires_grad
    if isinstance(thing, _NUMBERS):
        return type(thing), thing
    if depth < _DEEP and (parts := _parts(thing)) is not None:
        kind, held = parts
        return kind, *[described(part, depth + 1, graph) for part in held]
    if isinstance(thing, nn.Module):
        trainable = tuple(p.requires_grad for p in thing.parameters()) if graph else ()
        return ref(thing), trainable, *((type(layer), layer.training) for layer in thing.modules())
    try:
        return ref(thing)
    except TypeError:
        return object()  # equal to nothing: planned at each call


def _parts(thing: Any) -> tuple[Hashable, Sequence[Any]] | None:
    """What a thing is, apart from what it holds, and that."""
    if isinstance(thing, FunctionType):
        held = [cell.cell_contents for cell in thing.__closure__ or ()]
        return thing.__code__, (*held, thing.__defaults__, thing.__kwdefaults__, *_globals(thing))
    if isinstance(thing, MethodType):
        return thing.__func__, (thing.__self__,)
    if isinstance(thing, partial):
        return partial, (thing.func, thing.args, thing.keywords)
    if isinstance(thing, list) and all(isinstance(item, (int, float, str)) for item in thing):
        return list, ()  # a log that grows, not what func computes with
    if isinstance(thing, (tuple, list)):
        return type(thing), thing
    if isinstance(thing, Mapping):
        return (type(thing), *thing), list(thing.values())
    return None


def _globals(func: FunctionType) -> list[Any]:
    """What the names in a function written by a user stand for just now: a script's loop rebinds them."""
    if (func.__module__ or "").startswith(("funcdiff.", "torch.")):
        return []
    return [func.__globals__[name] for name in _names(func.__code__) if name in func.__globals__]


@lru_cache(maxsize=_KEPT)
def _names(code: CodeType) -> tuple[str, ...]:
    inner = (part for part in code.co_consts if isinstance(part, CodeType))
    return tuple(dict.fromkeys((*code.co_names, *(name for part in inner for name in _names(part)))))
