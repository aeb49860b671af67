"""The matrix products of a call, alone: what no way of organising the rest can do without."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from funcdiff._torch.flops import FORMULAS


def products_of(func: Callable[..., Any], *args: Any) -> Callable[..., Any] | None:
    """A function that does the matrix products and convolutions of `func(*args)`, each call as it was, nothing else.

    None if there are none.

    It returns what `func` returned, so that it can be compared with it.
    """
    with _Recorder() as recorder:
        result = func(*args)

    def products(*_: Any) -> Any:
        for call in recorder.calls:
            call()
        return result

    return products if recorder.calls else None


class _Recorder(TorchDispatchMode):
    """Sees each operation below autograd and vmap, on the very tensors that it computes with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = partial(func, *args, **(kwargs or {}))
        if func.overloadpacket in FORMULAS:
            self.calls.append(call)
        return call()
