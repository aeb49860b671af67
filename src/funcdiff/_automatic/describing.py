"""What a thing is, as far as it decides what a function does: equal for things that do the same, and for no others."""

from __future__ import annotations

import functools
import io
import logging
import os
import re
import sys
import threading
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextvars import ContextVar
from enum import Enum
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from funcdiff._automatic.naming import Code, analysed, installed
from funcdiff._torch.compiler import ORIGINAL
from funcdiff._torch.functions import OPERATORS
from funcdiff._torch.messages import LAZY, RefusedError
from funcdiff._torch.transforms import graph_beneath

_MANY = 10_000  # things that a function holds, and all that they hold
_LONG = 1_000  # items of a list
UNBOUND = object()
BARE = frozenset(  # equal only to what is the same
    {
        *(int, str, bytes, type(None), type(...), type(NotImplemented), object, range, re.Pattern),
        *(torch.dtype, torch.device, torch.layout, torch.memory_format),
        *(types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType),
        *(types.GetSetDescriptorType, types.MemberDescriptorType, types.GenericAlias, np.ufunc),
    }
)
PLAIN = Tensor, nn.Parameter
KIND = attrgetter("__class__", "shape", "dtype", "device", "layout", "requires_grad")  # of a tensor
EMPTY = {kind: (kind,) for kind in (dict, OrderedDict, list, set, tuple)}
_SCALARS = int, float, complex, str, bytes, bytearray
_MEMBERS = functools.partial, property, classmethod, staticmethod, slice, types.MethodType
_ALONE = logging.Logger, io.IOBase, torch.Generator, type(threading.Lock()), type(threading.RLock())


class Memory:
    """What a transform remembers between its calls: it decides nothing, and tells no function from another."""


class UndescribableError(Exception):
    """A thing holds what cannot be told apart from another, or too much of it."""


def described(*things: Any) -> tuple[Hashable, ...]:
    """Tensors by their kind, functions by their code and what they hold, other objects by their class and attributes.

    So a lambda written anew in each turn of a loop is the same. What is installed counts as it was installed.

    Raises:
        UndescribableError: One of them holds a generator, an open file, a large array, too much.
    """
    return tuple(map(Walk(), things))


def kind_of_tensor(x: Tensor) -> Hashable:
    """All but its numbers, with the attributes that it was given."""
    in_rows = x.layout is torch.strided and x.is_contiguous()  # on which functions branch
    kind = *KIND(x), in_rows, graph_beneath(x)
    return (*kind, described(x.__dict__)) if x.__dict__ and type(x) in PLAIN else kind


class Walk:
    """One description; a thing met again is named by its place, so that cycles end."""

    def __init__(self) -> None:
        self.seen: dict[Hashable, tuple[int, Any]] = {}  # with the thing, as the ids of dead ones are given away

    def __call__(self, thing: Any) -> Hashable:
        kind: Any = type(thing)
        if kind in BARE:
            return thing  # type: ignore[no-any-return]  # all of these have a hash
        if kind in SHORT:
            return SHORT[kind](thing)
        seen, place = self.seen, id(thing)
        if place in seen:
            return Walk, seen[place][0]
        if len(seen) > _MANY:
            raise UndescribableError
        seen[place] = len(seen), thing
        return _way(kind)(self, thing)

    def all(self, things: Iterable[Any]) -> list[Hashable]:
        """Many at once, the commonest without a call."""
        return [x if (kind := type(x)) in BARE else EMPTY[kind] if kind in EMPTY and not x else self(x) for x in things]

    def function(self, func: types.FunctionType) -> Hashable:
        variables = func.__globals__
        fixed = installed(variables.get("__name__"))
        if fixed and func.__closure__ is None:
            return func
        code = analysed(func.__code__)
        held: list[Any] = [cell.cell_contents for cell in func.__closure__ or ()]
        if not fixed:
            held += [variables.get(name, UNBOUND) for name in code.variables]
            held += [sys.modules.get(name, UNBOUND) for name in code.imports]
            if code.open_ended:
                raise UndescribableError
            if code.environment:
                held.append(tuple(os.environ.items()))
        parts = [self.namespace(x, code) if type(x) is types.ModuleType else self(x) for x in held]
        if not (func.__defaults__ or func.__kwdefaults__ or func.__dict__):
            return code, *parts
        if original := func.__dict__.get(ORIGINAL):
            return ORIGINAL, self(original)
        return code, *parts, *self.all((func.__defaults__, func.__kwdefaults__, func.__dict__))

    def namespace(self, module: types.ModuleType, code: Code) -> Hashable:
        """A module that a function names, by those of its attributes that the function may name."""
        place = id(module), id(code)
        if place in self.seen:
            return Walk, self.seen[place][0]
        self.seen[place] = len(self.seen), (module, code)
        fixed = installed(module.__name__)
        if code.by_name and not fixed:
            raise UndescribableError
        held = vars(module)
        return module.__name__, *[(n, self.member(held[n], code, fixed)) for n in code.attributes if n in held]

    def member(self, thing: Any, code: Code, fixed: bool) -> Hashable:
        """An attribute of a module; of an installed one functions and settings, as others may be put in their place."""
        kind: Any = type(thing)
        if kind is types.BuiltinFunctionType or kind in BARE:
            return thing  # type: ignore[no-any-return]  # these have a hash
        if kind is types.ModuleType:
            return self.namespace(thing, code)
        return self(thing) if not fixed or kind in (types.FunctionType, bool, float) else kind

    def kind(self, cls: type) -> Hashable:
        """A class, with what it holds, which may be changed; of one installed only how a layer computes."""
        if installed(cls.__module__):
            if not issubclass(cls, nn.Module):
                return (cls,)
            forward = cls.forward
            return cls, self.function(forward) if type(forward) is types.FunctionType else self(forward)
        held = [(name, self(value)) for name, value in vars(cls).items() if _told(name, value)]
        return weakref.ref(cls), self(type(cls)), *held, *self.all(cls.__bases__)

    def instance(self, thing: Any) -> Hashable:
        kind: Any = type(thing)
        inside = [getattr(thing, name, UNBOUND) for name in slots(kind)]
        held = vars(thing) if kind.__dictoffset__ else {}
        return self(kind), tuple(held), *self.all((*held.values(), *inside))

    def layer(self, layer: nn.Module) -> Hashable:
        attributes = vars(layer)
        if ORIGINAL in attributes:
            return ORIGINAL, self(attributes[ORIGINAL])
        held = {name: x for name, x in attributes.items() if name not in _USUAL or x}
        training, tensors = held.pop("training", False), held.pop("_parameters", {})
        if any(type(x) in _LAZY for x in tensors.values()):
            raise RefusedError(LAZY)
        kinds = [x if x is None else kind_of_tensor(x) for x in tensors.values()] if tensors else ()
        layers = held.pop("_modules", {})
        rest = self.all((*held.values(), *layers.values())) if held or layers else ()
        return self(type(layer)), training, (*tensors,), *kinds, (*held, None, *layers), *rest

    def cached(self, func: Any) -> Hashable:
        return func.cache_info().currsize, self.instance(func)

    def items(self, items: Any) -> Hashable:
        if len(items) > _LONG:
            raise UndescribableError
        return self.base(items), *self.all(items)

    def mapping(self, mapping: Any) -> Hashable:
        if len(mapping) > _LONG:
            raise UndescribableError
        return self.base(mapping), *self.all(mapping), *self.all(mapping.values())

    def base(self, thing: Any) -> Hashable:
        """The class of what holds items, and the attributes that it may have besides."""
        kind = type(thing)
        return kind if kind in EMPTY else self.instance(thing)

    def scalar(self, thing: Any) -> Hashable:
        kind: Any = next(kind for kind in _SCALARS if isinstance(thing, kind))
        return self.instance(thing), kind.__repr__(thing)

    def builtin(self, func: Any) -> Hashable:
        owner = func.__self__
        if owner is None or type(owner).__name__.startswith(("module", "PyCapsule", "pybind11_detail")):
            return func  # type: ignore[no-any-return]  # a function of C has a hash
        return func.__name__, self(owner)

    def array(self, array: Any) -> Hashable:
        if array.size > _LONG or array.dtype.hasobject:
            raise UndescribableError
        return self.instance(array), array.dtype.str, array.shape, array.tobytes()

    def module(self, module: types.ModuleType) -> Hashable:
        """One that no function names, so that it is not known which of its attributes count."""
        if not installed(module.__name__):
            raise UndescribableError
        return module

    def variable(self, variable: ContextVar[Any]) -> Hashable:
        return variable, self(variable.get(UNBOUND))


_USUAL = frozenset(vars(nn.Module()))  # of these only what is not empty, or false
_LAZY = nn.UninitializedParameter, nn.UninitializedBuffer
SHORT: dict[type, Callable[[Any], Hashable]] = {
    bool: lambda x: (bool, x),  # as True is equal to 1
    float: lambda x: (float, x if x and x == x else repr(x)),  # as 0.0 is equal to -0.0, and nan not to itself
    Tensor: kind_of_tensor,
    nn.Parameter: kind_of_tensor,
}


def _never(_: Walk, thing: Any) -> Hashable:
    """A scripted function is compiled at its third call, and then differentiated otherwise: look at each."""
    raise UndescribableError(thing)


_WAYS: Sequence[tuple[Any, Callable[[Walk, Any], Hashable]]] = (
    ((torch.jit.ScriptModule, torch.jit.ScriptFunction), _never),
    (Memory, lambda _, x: Memory),
    (Tensor, lambda walk, x: (kind_of_tensor(x), walk.instance(x))),
    (nn.Module, Walk.layer),
    (type, Walk.kind),
    (types.FunctionType, Walk.function),
    (types.BuiltinFunctionType, Walk.builtin),
    (types.MethodWrapperType, Walk.builtin),
    (types.ModuleType, Walk.module),
    (types.CodeType, lambda _, x: analysed(x)),
    (OPERATORS, lambda _, x: x),
    (Enum, Walk.instance),
    ((list, tuple, set, frozenset, deque), Walk.items),
    ((dict, types.MappingProxyType), Walk.mapping),
    ((np.ndarray, np.generic), Walk.array),
    (_SCALARS, Walk.scalar),
    (type(functools.lru_cache(len)), Walk.cached),
    (ContextVar, Walk.variable),
    (weakref.ReferenceType, lambda walk, x: (type(x), walk(x()))),
    (_ALONE, lambda _, x: weakref.ref(x)),
    (_MEMBERS, Walk.instance),
)


@functools.lru_cache(maxsize=4096)
def _way(kind: type) -> Callable[[Walk, Any], Hashable]:
    """How things of a class are described."""
    for kinds, way in _WAYS:
        if issubclass(kind, kinds):
            return way
    # Nothing hidden in C beside the attributes, the slots and the weak references.
    pointers = len(slots(kind)) + (kind.__dictoffset__ != 0) + (kind.__weakrefoffset__ != 0)
    if kind.__basicsize__ <= object.__basicsize__ + pointers * tuple.__itemsize__ and not kind.__itemsize__:
        return Walk.instance
    if hasattr(kind, "__get__"):
        return lambda _, x: x
    raise UndescribableError


@functools.lru_cache(maxsize=4096)
def slots(kind: type) -> Sequence[str]:
    held = [name for c in kind.__mro__ for name, x in vars(c).items() if type(x) is types.MemberDescriptorType]
    return [name for name in held if not name.endswith("offset__")]  # which are numbers of the class


def _told(name: str, value: Any) -> bool:
    """Whether an attribute of a class may decide what its objects do: of containers not those that Python made."""
    made = name.startswith("__") or (name.startswith("_") and name.endswith("_")) or name == "_abc_impl"
    plain = type(value) in BARE or type(value) in SHORT
    return not made or plain or isinstance(value, (types.FunctionType, property, classmethod, staticmethod))
