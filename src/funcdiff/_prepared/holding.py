"""What a function holds, place by place: to see later whether the same still stands there."""

from __future__ import annotations

import functools
import os
import sys
import types
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import numpy as np
from torch import Tensor, nn

from funcdiff._automatic.describing import KIND, Memory
from funcdiff._automatic.naming import analysed, installed
from funcdiff._prepared.unread import reads
from funcdiff._torch.compiler import ORIGINAL
from funcdiff._torch.messages import RefusedError

_MANY = 100_000
_GONE = object()
_PLAIN = int, float, complex, str, bytes, type(None), Memory  # these have no parts that decide a result
# A recurrent layer makes these of its parameters, again in each functional_call.
_WRITTEN_ANEW = {"_flat_weight_refs", "_flat_weights"}
_USUAL = frozenset(vars(nn.Module())) - {"training"} | _WRITTEN_ANEW  # what every module has, and we look at by itself
_OF_MODULES = "_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"

# Compared as a whole: they may change inside.
_CONTENTS = set, frozenset, deque, bytearray, np.ndarray, array, ContextVar

Place = tuple[str, Any]  # a name for it, and what stands there


@dataclass
class Holding:
    """The places where a function keeps what decides its results, and what stood there.

    Attributes:
        cells: Variables of closures: the cell, what it held, the variable's name.
        items: Items of dicts, lists, tuples and attributes: the container, the key, what it held, a name.
        sizes: Containers with the number of their items.
        contents: Sets and arrays, with all that they held.
        functions: The user's functions, with their code and their defaults, which may be replaced.
        names: A name for each held tensor, by its identity.
        attributes: Those of objects of the user's classes, as items, until it is known which are read.
        read: The names of attributes that code reads, or None if it may read any.
        used: The held tensors whose numbers the recorded operations use, by their identities.
    """

    cells: list[tuple[types.CellType, Any, str]] = field(default_factory=list)
    items: list[tuple[Any, Any, Any, str]] = field(default_factory=list)
    sizes: list[tuple[Any, int, str]] = field(default_factory=list)
    contents: list[tuple[Any, Any, str]] = field(default_factory=list)
    functions: list[tuple[types.FunctionType, types.CodeType, Any, Any]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    attributes: list[tuple[Any, Any, Any, str]] = field(default_factory=list)
    read: set[str] | None = field(default_factory=set)
    used: frozenset[int] = frozenset()

    def changed(self) -> str:
        """The name of a place where something else stands now, or nothing."""
        for container, size, name in self.sizes:
            if len(container) != size:
                return name
        for cell, was, name in self.cells:
            if cell.cell_contents is not was:
                return name
        for container, key, was, name in self.items:
            now = container[key] if isinstance(container, list | tuple) else container.get(key, _GONE)
            if now is not was and not self._unused(was, now):
                return name
        for container, key, _, name in self.attributes:
            if key not in container:
                return name
        for function, code, defaults, keywords in self.functions:
            others = function.__defaults__ is not defaults or function.__kwdefaults__ is not keywords
            if others or function.__code__ is not code:
                return function.__name__
        for thing, was, name in self.contents:
            now = _inside(thing)
            if len(now) != len(was) or not all(map(is_, now, was)) if isinstance(now, list) else now != was:
                return name
        return ""

    def _unused(self, was: Any, now: Any) -> bool:
        """Whether a tensor took the place of another one of its kind, whose numbers no operation used."""
        both = isinstance(was, Tensor) and isinstance(now, Tensor)
        return both and id(was) not in self.used and KIND(was) == KIND(now)

    def see(self, function: types.FunctionType) -> None:
        """Note which attributes a function reads."""
        if self.read is not None:
            names = reads(function.__code__)
            self.read = None if names is None else self.read | names


def _inside(thing: Any) -> Any:
    """All that stands in a set, a variable of the context or the environment; of arrays, the numbers byte by byte."""
    if isinstance(thing, ContextVar):
        return [thing.get(_GONE)]
    if thing is os.environ:
        return dict(thing)
    if isinstance(thing, np.ndarray):
        return thing.shape, thing.dtype, thing.tobytes()
    return bytes(thing) if isinstance(thing, bytearray | array) else list(thing)


def holding(function: Callable[..., Any]) -> Holding:
    """Walk through closures, globals that code names, modules, objects, classes and containers of the user's.

    Raises:
        RefusedError: `function` holds too much to look at again at each call.
    """
    found = Holding()
    seen: dict[int, Any] = {}  # with the things, as the ids of dead ones are given away
    queue: list[Place] = [("", function)]
    while queue:
        name, thing = queue.pop()
        if id(thing) in seen or isinstance(thing, _PLAIN):
            continue
        if len(seen) > _MANY:
            raise RefusedError(
                "cannot prepare a function that uses so many objects: a change in one would go unnoticed"
            )
        seen[id(thing)] = thing
        if isinstance(thing, Tensor):
            found.names.setdefault(id(thing), name)
            queue += _marks(found, name, thing)
        else:
            queue += _parts(found, name, thing)
    read, attributes = found.read, found.attributes
    found.attributes = [] if read is None else [item for item in attributes if item[1] not in read]
    found.items += [item for item in attributes if read is None or item[1] in read]
    return found


def _parts(found: Holding, name: str, thing: Any) -> Iterator[Place]:
    """What a thing holds, each place noted."""
    if original := getattr(thing, "__dict__", {}).get(ORIGINAL):  # of what torch.compile made
        yield name, original
    elif isinstance(thing, types.FunctionType):
        yield from _of_function(found, thing)
    elif isinstance(thing, types.MethodType):
        yield name, thing.__func__
        yield name, thing.__self__
    elif isinstance(thing, property):
        yield name, thing.fget
    elif isinstance(thing, functools.partial):
        yield from ((name, part) for part in (thing.func, *thing.args))
        yield from _of_container(found, name, thing.keywords, thing.keywords)
    elif isinstance(thing, nn.Module):
        yield name, type(thing)
        for kept in _OF_MODULES:
            yield from _of_container(found, name, vars(thing)[kept], vars(thing)[kept])
        own = [key for key in vars(thing) if key not in _USUAL]
        yield from _of_object(found, name, thing, vars(thing), own)
    elif isinstance(thing, dict):
        yield from _of_container(found, name, thing, thing)
    elif isinstance(thing, list | tuple):
        yield from _of_container(found, name, thing, range(len(thing)))
    elif isinstance(thing, _CONTENTS):
        found.contents.append((thing, _inside(thing), name))
        yield from ((name, part) for part in (thing if isinstance(thing, set | frozenset | deque) else ()))
    elif isinstance(thing, type):
        if not installed(thing.__module__):
            yield from ((name, base) for base in thing.__bases__)
            own = [key for key in vars(thing) if not key.startswith("__") or key == "__call__"]
            yield from _of_container(found, name, vars(thing), own)
    elif not isinstance(thing, types.ModuleType):
        for attributes in _attributes(thing):
            yield name, type(thing)
            yield from _of_object(found, name, thing, attributes, attributes)


def _attributes(thing: Any) -> Iterator[Mapping[str, Any]]:
    if hasattr(thing, "__dict__"):
        yield vars(thing)
    if not installed(type(thing).__module__) and any("__slots__" in vars(cls) for cls in type(thing).__mro__):
        yield _Slots(thing)


class _Slots(Mapping[str, Any]):
    """What stands in the slots of an object."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing
        members = {key: member for cls in type(thing).__mro__[::-1] for key, member in vars(cls).items()}
        self.slots = {key: slot for key, slot in members.items() if isinstance(slot, types.MemberDescriptorType)}

    def __getitem__(self, key: str) -> Any:
        try:
            return self.slots[key].__get__(self.thing)
        except AttributeError:  # empty
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        return (key for key in self.slots if key in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _of_object(
    found: Holding, name: str, thing: Any, attributes: Mapping[str, Any], keys: Iterable[str]
) -> Iterator[Place]:
    """What stands in an object's attributes. If the class is the user's, all code that reads them is known."""
    if installed(type(thing).__module__):
        yield from _of_container(found, name, attributes, keys)
        return
    for cls in type(thing).__mro__:
        for member in vars(cls).values():
            for function in (member, getattr(member, "__func__", None), getattr(member, "fget", None)):
                if isinstance(function, types.FunctionType) and cls not in (nn.Module, object):
                    found.see(function)
    yield from _of_container(found, name, attributes, keys, found.attributes)


def _marks(found: Holding, name: str, thing: Any) -> Iterator[Place]:
    """Attributes that somebody has put on a function or a tensor. Others may come: torch.compile puts its own there."""
    for key, held in vars(thing).items():
        found.attributes.append((vars(thing), key, held, f"{name}.{key}"))
        yield f"{name}.{key}", held


def _of_function(found: Holding, function: types.FunctionType) -> Iterator[Place]:
    if not installed(function.__globals__.get("__name__")):
        found.see(function)
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            held = cell.cell_contents
        except ValueError:  # not bound yet: a call would fail
            continue
        found.cells.append((cell, held, variable))
        yield variable, held
    yield from (("", default) for default in function.__defaults__ or ())
    keywords = function.__kwdefaults__ or {}
    if installed(function.__globals__.get("__name__")):
        yield from (("", default) for default in keywords.values())
        return
    found.functions.append((function, function.__code__, function.__defaults__, function.__kwdefaults__))
    yield from _of_container(found, function.__name__, keywords, keywords)
    yield from _marks(found, function.__name__, function)
    code = analysed(function.__code__)
    if code.environment:
        found.contents.append((os.environ, _inside(os.environ), "an environment variable"))
    for imported in code.imports:
        for module in {imported, imported.partition(".")[0]} & sys.modules.keys():
            yield from _of_module(found, module, sys.modules[module], code.attributes)
    for variable in code.variables:
        if variable in function.__globals__:
            held = function.__globals__[variable]
            found.items.append((function.__globals__, variable, held, variable))
            yield variable, held
            if isinstance(held, types.ModuleType):
                yield from _of_module(found, variable, held, code.attributes)


def _of_module(found: Holding, name: str, module: types.ModuleType, attributes: Iterable[str]) -> Iterator[Place]:
    """What code that names these attributes reads in a module of the user's, and in modules that stand there."""
    if installed(module.__name__):
        return
    named = [attribute for attribute in attributes if attribute in vars(module)]
    yield from _of_container(found, name, vars(module), named)
    for attribute in named:
        if isinstance(inner := vars(module)[attribute], types.ModuleType) and inner is not module:
            yield from _of_module(found, f"{name}.{attribute}", inner, attributes)


def _of_container(
    found: Holding, name: str, container: Any, keys: Iterable[Any], items: list[Any] | None = None
) -> Iterator[Place]:
    if not isinstance(container, types.MappingProxyType):
        found.sizes.append((container, len(container), name))
    for key in keys:
        label = f"{name}[{key}]" if not isinstance(key, str) else f"{name}.{key}" if name else key
        (found.items if items is None else items).append((container, key, container[key], label))
        yield label, container[key]
