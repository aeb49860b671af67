"""What a function takes out of the graph: which of it is a constant by intent, and a function that keeps it fixed.

NOTE [constants]. Who writes detach(), .data, no_grad() or a number of what was detached means a constant, also where
NumPy made that number. Who sends an array through NumPy cannot do without detach(), and torch.autograd.grad() cuts its
result unless create_graph=True: there it says nothing of what is meant. The forward of a custom autograd function runs
without gradients: what it detaches is not cut by it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from funcdiff._torch.functions import set_grad_enabled
from funcdiff._torch.transforms import above, beneath, outside
from funcdiff._torch.trees import Tree, map_leaves

_TORCH = str(Path(torch.__file__).parent)
_READ_OUTSIDE = torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.__dlpack__
_GRADIENTS = torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward
_PROPERTY = vars(torch._C.TensorBase)["data"]
DATA, SET_DATA = _PROPERTY.__get__, _PROPERTY.__set__  # each access makes another one, which is equal
_CONSTANTS = (
    torch.detach,
    torch.Tensor.detach,
    torch.Tensor.detach_,
    DATA,
    torch.Tensor.item,
    torch.Tensor.__float__,
    torch.Tensor.numpy,
    torch.Tensor.tolist,
)


class Switches(TorchFunctionMode):
    """Sees whether a function switches gradients off itself: in the forward of a custom function they are off as well.

    Attributes:
        off: Whether it has, and not on again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.off = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.off &= not torch.is_grad_enabled()
        counts = torch.is_grad_enabled() or self.off
        if func is set_grad_enabled and torch.is_grad_enabled() != args[0]:
            self.off = not args[0]
        return self.seen(func, args, kwargs) if counts else func(*args, **kwargs)

    def seen(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a call that is not one of a custom function's forward."""
        return func(*args, **kwargs)


class Constants(Switches):
    """What a function takes out of the graph; see NOTE [constants].

    Attributes:
        found: Whether anything is taken out.
        hooked: Whether a hook, which may change a gradient, is put on a tensor.
        opaque: Whether ``.data`` is read, or NumPy reads. One of two transforms around does not see that ``.data`` is a
            constant, and the compiler follows both.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = False
        self.hooked = False
        self.opaque = False
        self._reads = 0  # by NumPy
        self._numbers = 0  # of NumPy's, used by torch
        self._without_graph = False

    @property
    def lost(self) -> bool:
        """Whether NumPy read what did not come back as a number, or a gradient was taken without a graph of its own."""
        return self._without_graph or self._reads > self._numbers

    @property
    def meant(self) -> bool:
        """Whether all of it can be taken for constants by intent."""
        return self.found and not self.lost

    @property
    def any(self) -> bool:
        """Whether there is anything to see."""
        return self.found or self.lost or self.hooked

    def seen(self, func: Any, args: Any, kwargs: Any) -> Any:
        self.found |= func in _CONSTANTS or (func is set_grad_enabled and not args[0])
        self.opaque |= func == DATA or func in _READ_OUTSIDE
        self.hooked |= func is torch.Tensor.register_hook
        self._reads += func in _READ_OUTSIDE
        self._numbers += any(isinstance(arg, np.generic) for arg in args)
        self._without_graph |= func in _GRADIENTS and not kwargs.get("create_graph")
        return func(*args, **kwargs)


def constants(run: Callable[[], Any]) -> Constants:
    """What `run` takes out of the graph."""
    with torch.enable_grad():
        seen = Constants()
        with seen:
            run()
    return seen


class _Keeper(Switches):
    """Keeps what is taken out of the graph or, given `kept`, puts that in its place, but for the part `free`.

    A part is what one call takes out, or all that is computed from where gradients are switched off until they are on.
    """

    def __init__(self, kept: list[tuple[Any, Any, int]] | None = None, free: int | None = None) -> None:
        super().__init__()
        self.replays = kept is not None
        self.kept = kept or []
        self.free = free
        self.parts = 0
        self.lines: dict[int, Any] = {}  # of code, in which each part begins
        self._position = 0

    def seen(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        if func is set_grad_enabled and args[0]:
            self.parts += 1
        taken_out = func in _CONSTANTS or not torch.is_grad_enabled()
        if not taken_out or func is set_grad_enabled or any(result is arg for arg in args):
            return result  # what is written in place is made of what was put there
        if forward_ad._current_level >= 0 or any(map(_carries, args)):
            return result  # of a derivative by forward mode nobody knows whether it is right once only
        if not self.replays:
            self.kept.append((func, _beneath(result), self.parts))
            self.lines.setdefault(self.parts, _line_of_code())
            self.parts += torch.is_grad_enabled()
            return result
        expected, value, part = self.kept[self._position] if self._position < len(self.kept) else (None, None, None)
        if expected != func:  # of a property, each access makes a getter anew
            raise RuntimeError("func runs other operations near the point")
        self._position += 1
        return result if part == self.free else _in_place_of(result, _copied(value))


def holding(func: Callable[..., Tree], args: list[Tensor], free: int | None = None) -> Callable[..., Tree]:
    """`func` with all that it takes out of the graph as it is at these arguments, but for the part `free`."""
    keeper = _kept(func, args)
    kept = [(func, _copied(result), part) for func, result, part in keeper.kept]  # as writes in place have left it

    def held(*moved: Tensor) -> Tree:
        with _Keeper(kept, free):
            return func(*moved)

    return held


def parts(func: Callable[..., Tree], args: list[Tensor]) -> list[int]:
    """The parts that `func` takes out of the graph, each of which can be left `free`.

    Of what a loop takes out in the same line of code these are the first and the last.
    """
    by_line: dict[Any, list[int]] = {}
    for part, line in _kept(func, args).lines.items():
        by_line.setdefault(line, []).append(part)
    return sorted({part for found in by_line.values() for part in (found[0], found[-1])})


def _kept(func: Callable[..., Tree], args: list[Tensor]) -> _Keeper:
    keeper = _Keeper()
    with torch.enable_grad():
        copies = [x.detach().requires_grad_().clone() for x in args]  # func may take a gradient, or write into them
        with keeper:
            func(*copies)
    return keeper


def _line_of_code() -> Any:
    """Where the caller's code is, outside of torch and of this file."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith((_TORCH, __file__)):
        frame = frame.f_back
    return frame.f_code, frame.f_lineno


def _carries(arg: Any) -> bool:
    """Whether an argument stands for a tensor and carries derivatives itself, as a jet does."""
    return not isinstance(arg, Tensor) and hasattr(type(arg), "__torch_function__")


def _copied(result: Any) -> Any:
    with outside():
        return map_leaves(lambda x: x.detach().clone() if isinstance(x, Tensor) else copy.copy(x), result)


def _beneath(result: Any) -> Any:
    return map_leaves(lambda x: beneath(x)[0] if isinstance(x, Tensor) else x, result)


def _in_place_of(result: Any, value: Any) -> Any:
    """What was kept, where a transform makes tensors of its own."""
    return map_leaves(lambda x, new: above(new, beneath(x)[1]) if isinstance(x, Tensor) else new, result, value)
