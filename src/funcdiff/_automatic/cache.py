"""The plans made, kept by what tells a function, its arguments and torch's settings from others."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import suppress
from threading import RLock
from typing import Any

from funcdiff._automatic.describing import described
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.settings import overriding, settings

_KEPT = 512
_plans: dict[Hashable, Any] = {}
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


def keep(key: Hashable, plan: Any) -> None:
    """Keep a plan; where there are too many the oldest goes."""
    with _changing, suppress(TypeError):  # as in `find`
        while len(_plans) >= _KEPT and key not in _plans:
            del _plans[next(iter(_plans))]
        _plans[key] = plan


def clear_plans() -> None:
    """Forget every plan that `jacobian`, `hessian` and `hvp` have made.

    These functions make a plan at the first call and use it again for the same function. A function that has changed
    gets a new plan, so you do not have to clear the plans yourself. Clear them to free memory, or to measure the first
    call again.

    Example:
        The second call makes a new plan.

        >>> import torch
        >>> from funcdiff import jacobian
        >>> jacobian(torch.square)(torch.tensor([3.0]))
        tensor([[6.]])
        >>> clear_plans()
        >>> jacobian(torch.square)(torch.tensor([3.0]))
        tensor([[6.]])
    """
    with _changing:
        _plans.clear()
