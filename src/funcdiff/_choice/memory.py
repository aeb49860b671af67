"""Plans are kept, by what tells a function from others and by the shapes of its arguments."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache, partial
from types import CodeType, FunctionType, MethodType
from typing import Any
from weakref import ref

from torch import Tensor, nn

_KEPT = 512
_DEEP = 4
_plans: dict[Hashable, Any] = {}


def find(key: Hashable) -> Any:
    """The plan, or the chunk, kept under `key`."""
    return _plans.get(key)


def key_of(func: Any, *rest: Hashable) -> Hashable:
    """What a plan for `func` is kept under; equal to no other where `func` holds what cannot be told apart."""
    try:
        key = described(func), *rest
        hash(key)
    except (TypeError, ValueError):  # an object without a hash, a name not bound yet
        return object()
    return key


def keep(key: Hashable, plan: Any) -> None:
    """Keep a plan; where there are too many the oldest goes."""
    while len(_plans) >= _KEPT:
        del _plans[next(iter(_plans))]
    _plans[key] = plan


def described(thing: Any, depth: int = 0) -> Hashable:
    """Tensors by their kind, functions by their code and what they hold, modules with their mode, others by identity.

    So a lambda written anew in each turn of a loop is planned once.
    """
    if isinstance(thing, Tensor):
        return thing.shape, thing.dtype, thing.device
    if depth < _DEEP:
        if isinstance(thing, FunctionType):
            held = [cell.cell_contents for cell in thing.__closure__ or ()]
            preset = (thing.__defaults__, thing.__kwdefaults__)
            return thing.__code__, *(described(part, depth + 1) for part in (*held, *preset, *_globals(thing)))
        if isinstance(thing, MethodType):
            return thing.__func__, described(thing.__self__, depth + 1)
        if isinstance(thing, partial):
            return tuple(described(part, depth + 1) for part in (thing.func, thing.args, thing.keywords))
        if isinstance(thing, list) and all(isinstance(part, (int, float, str)) for part in thing):
            return list  # a log that grows, not what func computes with
        if isinstance(thing, (tuple, list)):
            return type(thing), *(described(part, depth + 1) for part in thing)
        if isinstance(thing, Mapping):
            return tuple((key, described(part, depth + 1)) for key, part in thing.items())
    if isinstance(thing, nn.Module):
        return ref(thing), *((type(part), part.training) for part in thing.modules())
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
