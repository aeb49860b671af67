"""What all processes must have in common, as short texts and numbers: shapes, values, the code of a function."""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from funcdiff._automatic.naming import installed
from funcdiff._calling.closures import captured
from funcdiff._calling.types import Function
from funcdiff._torch.processes import spread
from funcdiff._torch.trees import Tree, flatten

_ODD = 65_521


def number(text: str) -> int:
    """63 bits that tell a text from others."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def facts_of(func: Function, args: Sequence[Tree], **options: Any) -> dict[str, str]:
    """What is compared between processes, the coarsest first."""
    leaves, spec = flatten(tuple(args))
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    whole = [x for x in tensors if not spread(x)]
    return {
        "options": str(options),
        "structure of the arguments": str(spec),
        "shapes": str([tuple(x.shape) for x in tensors]),
        "dtypes": str([str(x.dtype) for x in tensors]),
        "placements": str([str(getattr(x, "placements", "replicated")) for x in tensors]),
        "function": _code(func),
        "values of the arguments": f"numbers with the digest {values(whole):08x}",
    }


def no_facts() -> dict[str, str]:
    """As many facts, for a process that has none since it failed."""
    return dict.fromkeys(facts_of(no_facts, ()), "")


def values(tensors: Sequence[Tensor]) -> int:
    """A digest of 32 bits, which differs where values differ, from one pass over them.

    torch combines bits by xor, in which equal pairs vanish. So the parts have an odd length: the bits of a constant,
    and the signs of a vector's negative, are left over.
    """
    told = []
    for x in tensors:
        flat = x.detach().reshape(-1)
        whole = len(flat) // _ODD * _ODD
        odd = whole + max(len(flat) - whole - 1, 0) // 2 * 2 + 1
        parts = flat[:whole].view(-1, _ODD), flat[None, whole:odd], flat[None, odd:]
        told += [torch.hash_tensor(part, 1) for part in parts if part.numel()]
    return number(str(torch.cat(told).tolist())) % 2**32 if told else 0


def _code(func: Function) -> str:
    """The name of a function, and a digest of its code and of all functions and modules that it holds.

    Tensors and numbers are left out: they are a process's own data. So are functions of installed packages, but for
    their names. Buffers of modules count with their values.
    """
    told = "\n".join(_parts(func, set()))
    name = getattr(func, "__qualname__", type(func).__name__)
    return f"{name} with the digest {number(told) % 2**32:08x}"


def _parts(thing: Any, seen: set[int]) -> Iterator[str]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, functools.partial):
        held: Sequence[Any] = (thing.func, *thing.args, *thing.keywords.values())
    elif isinstance(thing, types.MethodType):
        held = thing.__func__, thing.__self__
    elif isinstance(thing, types.FunctionType):
        yield thing.__qualname__
        if installed(thing.__module__) and thing.__closure__ is None:
            return
        yield from _instructions(thing.__code__)
        held = [*captured(thing), *_named(thing), *(thing.__defaults__ or ())]
    elif isinstance(thing, nn.Module):
        yield from (f"{name} {type(part).__qualname__} {part.training}" for name, part in thing.named_modules())
        yield from (f"{name} {tuple(x.shape)} {x.dtype}" for name, x in thing.named_parameters())
        yield from (f"{name} {tuple(x.shape)} {values([x])}" for name, x in thing.named_buffers())
        return
    else:
        return
    for part in held:
        yield from _parts(part, seen)


def _named(func: types.FunctionType) -> list[Any]:
    """The globals that a function of the user's names."""
    return [] if installed(func.__module__) else list(map(func.__globals__.get, func.__code__.co_names))


def _instructions(code: types.CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield str(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _instructions(constant)
        else:
            yield repr(constant)
