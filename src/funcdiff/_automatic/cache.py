"""The plans made, kept by what tells a function, its arguments and torch's settings from others."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from threading import RLock
from typing import Any

from funcdiff._automatic.describing import Memory, described
from funcdiff._automatic.unchanged import Evidence
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.settings import overridden, overriding, settings

_KEPT = 512
_DOUBT = 3
_plans: dict[Hashable, Any] = {}
_edition = 0  # another one as soon as a plan that was kept may not be the one to take
_changing = RLock()  # not Lock: a plan let go may free objects of the user's, whose code may come back here


def find(key: Hashable) -> Any:
    """The plan, or the chunk, kept under `key`."""
    try:
        return _plans.get(key)  # one step for other threads
    except TypeError:  # in_dims may be a list, which has no hash
        return None


def key_of(things: Sequence[Any], *rest: Hashable) -> Hashable:
    """What a plan for a function and its arguments is kept under; equal to no other where one cannot be described."""
    try:
        return described(*things, *overriding()), settings(), *rest
    except RefusedError:
        raise
    except Exception:  # not described, or by code of the user's, or changed meanwhile by another thread
        return object()


class Last(Memory):
    """What was found at the last call of a transform, found again without a description of its function.

    Evidence is gathered at a second call alike, and after each time that it was of no use, at twice as many.

    Attributes:
        recipes: Those that were made of the function.
    """

    def __init__(self) -> None:
        self.recipes: dict[Hashable, Callable[..., Any]] = {}
        self._last: tuple[Any, ...] | None = None
        self._once: Hashable = None
        self._alike = 0  # calls in a row, after the first of them
        self._useless = 0

    def find(self, func: Any, call: Hashable) -> Any:
        """What was found then, if the function, the rest of the `call` and the state of torch are the same."""
        if (last := self._last) is None:
            return None
        function, before, edition, evidence, found = last
        if function() is not func or edition != _edition or overridden() or before != (call, settings()):
            return None
        if not evidence.holds(func):
            return None
        self._useless = 0
        return found

    def remember(self, func: Any, call: Hashable, key: Any, found: Any) -> None:
        """Gather the evidence for what was found under `key`."""
        if overridden():
            return
        if self._once != (id(func), call):  # its evidence may be better than that of the calls before
            self._once, self._alike, self._useless = (id(func), call), 0, min(self._useless, _DOUBT)
            return
        self._alike += 1
        if self._alike < 2**self._useless:
            return
        self._useless += 1
        edition, state = _edition, settings()
        try:
            evidence = Evidence(func)
            if evidence.complete and evidence.description == key[0][0] and evidence.holds(func):
                self._last = weakref.ref(func, self._forget), (call, state), edition, evidence, found
        except Exception:  # has no weak reference; or as in `key_of`
            self._last = None

    def _forget(self, function: Any) -> None:
        if (last := self._last) and last[0] is function:
            self._last = None


def keep(key: Hashable, plan: Any) -> None:
    """Keep a plan; where there are too many the oldest goes."""
    global _edition
    with _changing, suppress(TypeError):  # as in `find`
        _edition += key in _plans
        while len(_plans) >= _KEPT and key not in _plans:
            del _plans[next(iter(_plans))]
        _plans[key] = plan


def clear_plans() -> None:
    """Forget which methods `jacobian`, `hessian`, `hvp` and the other automatic functions have chosen.

    These functions choose a method at the first call and use it again for the same function and shapes. A function that
    has changed gets a new choice, so you rarely need `clear_plans`. Call it to free memory, or to measure a first call
    again.

    Example:
        The second call chooses again.

        >>> import torch
        >>> from funcdiff import clear_plans, jacobian
        >>> jacobian(torch.square)(torch.tensor([3.0]))
        tensor([[6.]])
        >>> clear_plans()
        >>> jacobian(torch.square)(torch.tensor([3.0]))
        tensor([[6.]])
    """
    global _edition
    with _changing:
        _plans.clear()
        _edition += 1
