"""Is a function still what it was at its last call: by a look where its description was read, and nowhere else."""

from __future__ import annotations

import functools
import types
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from itertools import chain
from operator import attrgetter, call, is_, itemgetter
from typing import Any

import numpy as np
from torch import Tensor, nn, strided

from funcdiff._automatic.describing import BARE, EMPTY, KIND, PLAIN, SHORT, UNBOUND, Memory, Walk, slots
from funcdiff._automatic.naming import analysed, installed
from funcdiff._torch.transforms import transforms_active

_PARTS = attrgetter("__code__", "__defaults__", "__kwdefaults__", "__dict__")  # of a function: each may be replaced
_CONTENTS = attrgetter("cell_contents")
_OF_C = types.BuiltinFunctionType, types.MethodWrapperType
_ALWAYS = {*BARE, *SHORT, types.FunctionType, *_OF_C, types.ModuleType, type}  # whose objects cannot change their class
# What these hold changes where nobody sees it who looks for the same objects.
_HIDDEN = np.ndarray, np.generic, bytearray, ContextVar, weakref.ReferenceType, type(functools.lru_cache(len))


class Evidence:
    """The places that the description of a function was read from, and what stood there.

    NOTE [evidence]. A description takes tens of microseconds; a look at its places takes a few, in one pass that asks
    for the same objects. To ask for equal ones would not do, as 1 is equal to True. The same object may have changed
    inside, so that each object that can is a place itself, and of a tensor the kind is compared. A function that holds
    what changes unseen (the numbers of an array, a context variable) leaves no evidence, and is described at each call.

    The function itself is not kept, and so may be freed.

    Attributes:
        description: What `described` says.
        complete: Whether the places are all that the description depends on.
        tensors: Those that the function holds.
    """

    def __init__(self, func: Any) -> None:
        walk = Walk()
        self.description = walk(func)
        self.complete = True
        self._cells: list[types.CellType] = []
        self._names: list[tuple[Mapping[str, Any], Sequence[str]]] = []
        self._absent: list[Callable[[set[str]], bool]] = []  # whether of a module's names none is among these
        self._missing: list[set[str]] = []
        self._attributes: list[tuple[Any, str]] = []
        self._functions: list[types.FunctionType] = []
        self._objects: list[Any] = []
        self._containers: list[Collection[Any]] = []
        self._mappings: list[Mapping[Any, Any]] = []
        tensors: list[Tensor] = []
        for place, (_, thing) in walk.seen.items():
            if isinstance(place, tuple):
                module, code = thing
                self._variables(vars(module), code.attributes)
            elif isinstance(thing, Tensor):  # of a class of its own
                tensors.append(thing)
                self._object(thing, thing is func)
            else:
                self._note(thing, thing is func)
        empty: list[Any] = [x for x in (*self._containers, *self._mappings) if _is_empty(x)]
        self._containers = [x for x in self._containers if not _is_empty(x)]
        self._mappings = [x for x in self._mappings if not _is_empty(x)]
        self._readers = [read for read, places in self._all() if places]
        self._own = _own(func)
        self._held = list(self._now())
        values = [*self._held, *self._own]
        plain = [x for x in values if type(x) in PLAIN]
        self.tensors = [*tensors, *plain]
        attributes = [x.__dict__ for x in plain]
        self.complete &= not any(attributes)
        self._empty = [*filter(_is_empty, values), *attributes, *empty]
        dense = [x for x in self.tensors if x.layout is strided]
        measures: Any = (
            (len, [*self._containers, *self._mappings]),
            (KIND, self.tensors),
            (Tensor.is_contiguous, dense),
            (call, self._absent, self._missing),
        )
        self._measured = [(look, list(map(*look))) for look in measures if look[1]]

    def holds(self, func: Any) -> bool:
        """Whether the description of `func` would be the same now."""
        try:
            if any(self._empty) or not all(map(is_, _own(func), self._own)):
                return False
            for look, before in self._measured:
                if list(map(*look)) != before:
                    return False
            return all(map(is_, self._now(), self._held))
        except Exception:  # gone, or changed meanwhile by another thread
            return False

    def _now(self) -> Iterator[Any]:
        """What stands in all places."""
        return chain.from_iterable(map(call, self._readers))

    def _all(self) -> Iterator[tuple[Callable[[], Iterable[Any]], Sequence[Any]]]:
        """How what stands in the places of a kind is read, and these places."""
        cells, attributes = self._cells, self._attributes
        functions, objects, containers, mappings = self._functions, self._objects, self._containers, self._mappings
        for variables, names in self._names:
            typed = [name for name in names if type(variables[name]) not in _ALWAYS]
            yield partial(itemgetter(*names, names[0]), variables), names  # of one name it would be no tuple
            yield partial(_types, variables, typed), typed
        yield partial(map, _CONTENTS, cells), cells
        yield lambda: [getattr(thing, name, UNBOUND) for thing, name in attributes], attributes
        yield lambda: chain.from_iterable(map(_PARTS, functions)), functions
        yield partial(map, type, objects), objects
        yield partial(chain.from_iterable, containers), containers
        yield partial(chain.from_iterable, mappings), mappings
        yield lambda: chain.from_iterable([mapping.values() for mapping in mappings]), mappings

    def _note(self, thing: Any, root: bool) -> None:
        if isinstance(thing, types.FunctionType):
            self._function(thing, root)
        elif isinstance(thing, type):
            self._class(thing)
        elif isinstance(thing, _HIDDEN):
            self.complete = False
        elif not isinstance(thing, (*_OF_C, Memory, types.ModuleType, types.CodeType)):  # these are told by themselves
            self._object(thing, root)

    def _function(self, func: types.FunctionType, root: bool) -> None:
        variables = func.__globals__
        fixed = installed(variables.get("__name__"))
        if fixed and func.__closure__ is None:
            return
        self._cells += func.__closure__ or ()
        self._mappings.append(func.__dict__)
        if not root:
            self._functions.append(func)
        if not fixed:
            code = analysed(func.__code__)
            self.complete &= not (code.environment or code.imports)
            self._variables(variables, ("__name__", *code.variables))

    def _variables(self, variables: Mapping[str, Any], names: Sequence[str]) -> None:
        """Those that are there, to be looked up all at once, and those that are not."""
        if missing := {name for name in names if name not in variables}:
            self._absent.append(variables.keys().isdisjoint)
            self._missing.append(missing)
        if held := [name for name in names if name in variables]:
            self._names.append((variables, held))

    def _class(self, cls: Any) -> None:
        if not installed(cls.__module__):
            self._objects.append(cls)
            self._mappings.append(vars(cls))
            self._attributes.append((cls, "__bases__"))
        elif issubclass(cls, nn.Module):
            self._attributes.append((cls, "forward"))

    def _object(self, thing: Any, root: bool) -> None:
        kind: Any = type(thing)
        if not root:
            self._objects.append(thing)
            self._attributes += [(thing, name) for name in slots(kind)]
        if kind.__dictoffset__:
            own = vars(thing)
            self._mappings.append(own)
            if not root:
                self._attributes.append((thing, "__dict__"))
            if isinstance(thing, nn.Module):
                self._mappings += [own["_parameters"], own["_modules"]]
        if isinstance(thing, (dict, types.MappingProxyType)):
            self._mappings.append(thing)
        elif isinstance(thing, (list, tuple, set, frozenset, deque)):
            self._containers.append(thing)


def captured(func: Any) -> Sequence[Tensor]:
    """The tensors that a function holds, which may belong to a transform: none outside of all."""
    if not transforms_active():
        return ()
    try:
        return Evidence(func).tensors
    except Exception:  # as in `key_of`
        return ()


def _types(variables: Mapping[str, Any], names: Sequence[str]) -> list[type]:
    return [type(variables[name]) for name in names]


def _is_empty(x: Any) -> bool:
    """Whether it is one of Python's own containers, with nothing in it."""
    return type(x) in EMPTY and not x


def _own(func: Any) -> tuple[Any, ...]:
    """What is compared of the function itself."""
    kind: Any = type(func)
    if kind is types.FunctionType:
        return _PARTS(func)
    return kind, kind.__dictoffset__ and func.__dict__, *[getattr(func, name, UNBOUND) for name in slots(kind)]
