"""Attributes that code writes and never reads: what stands there decides nothing."""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterator
from types import CodeType
from typing import Any

from funcdiff._automatic.naming import analysed, installed

_BY_NAME = "__getattribute__", "attrgetter", "__getstate__"  # which may read any


@functools.lru_cache(maxsize=4096)
def reads(code: CodeType) -> frozenset[str] | None:
    """The attributes that a function and those inside it may read by name; None if they may read any, or call others.

    A string may be the name of one. What is only counted up, as by `self.calls += 1`, is not read.
    """
    found: set[str] = set()
    codes = [code]
    for one in codes:
        codes += [part for part in one.co_consts if isinstance(part, CodeType)]
        found.update(_strings(one.co_consts))
        steps = [step for step in dis.get_instructions(one) if step.opname != "CACHE"]
        for i, step in enumerate(steps):
            named = "ATTR" in step.opname or "METHOD" in step.opname
            if named and step.opname != "STORE_ATTR" and not _counts_up(steps[i : i + 5]):
                found.add(step.argval)
    names = analysed(code)
    elsewhere = names.by_name or names.open_ended or not all(map(installed, names.imports))
    return None if elsewhere or not found.isdisjoint(_BY_NAME) else frozenset(found)


def _counts_up(steps: list[dis.Instruction]) -> bool:
    """Whether what is read is added to a constant, and written back."""
    if len(steps) < 5 or steps[0].opname != "LOAD_ATTR":
        return False
    number, add, target, store = steps[1:]
    constant = number.opname in ("LOAD_CONST", "LOAD_SMALL_INT")
    moved = target.opname in ("SWAP", "LOAD_FAST", "LOAD_FAST_BORROW")
    return (
        constant
        and add.opname == "BINARY_OP"
        and moved
        and (store.opname, store.argval) == ("STORE_ATTR", steps[0].argval)
    )


def _strings(constants: Any) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple | frozenset):
            yield from _strings(constant)
