"""torch's own functions: where they are found by name, and what is behind their gates."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn import _reduction
from torch.overrides import TorchFunctionMode

weight_norm = torch._weight_norm  # beneath torch.nn.utils.weight_norm
packs_rows = torch._nested_tensor_from_mask_left_aligned  # asked by a transformer about its padding mask
mse_loss_by_number = torch._C._nn.mse_loss  # beneath those of torch.nn.functional, with the reduction as a number
soft_margin_loss_by_number = torch._C._nn.soft_margin_loss
multi_margin_loss_by_number = torch._C._nn.multi_margin_loss
set_grad_enabled = torch._C._set_grad_enabled  # what no_grad() and enable_grad() call
OPERATORS = torch._ops.OpOverload, torch._ops.OpOverloadPacket, torch._ops.HigherOrderOperator
NAMESPACES: tuple[Any, ...] = (
    torch,
    torch.Tensor,
    F,
    torch._C._nn,
    torch._C._VariableFunctions,
    torch.linalg,
    torch.special,
)


def ungated(func: FunctionType) -> Any:
    """The body of one of torch's Python functions, which would hand jets back to us, as it runs on tensors."""
    gates = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    scope = {**func.__globals__, **dict.fromkeys(gates, lambda *_: False)}
    body = FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    body.__kwdefaults__ = func.__kwdefaults__
    return body


def reduction_of_old(size_average: bool | None, reduce: bool | None) -> str:
    """The reduction that a loss's old switches ask for."""
    return _reduction.legacy_get_string(size_average, reduce, emit_warning=False)


def constants(run: Callable[[], Any]) -> Constants:
    """What `run` takes out of the graph."""
    with torch.enable_grad():
        seen = Constants()
        with seen:
            run()
    return seen


class Constants(TorchFunctionMode):
    """What a function takes out of the graph.

    NOTE [constants]. Who writes detach(), .data, no_grad() or a number of what was detached means a constant, also
    where NumPy made that number. Who sends an array through NumPy cannot do without detach(), and
    torch.autograd.grad() cuts its result unless create_graph=True: there it says nothing of what is meant. The forward
    of a custom autograd function runs without gradients: what it detaches is not cut by it.

    Attributes:
        found: Whether anything is taken out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = False
        self._off = False  # by func itself
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

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._off &= not torch.is_grad_enabled()
        if torch.is_grad_enabled() or self._off:
            self.found |= func in _CONSTANTS and not (func is set_grad_enabled and args[0])
            self._reads += func in _READ_OUTSIDE
            self._numbers += any(isinstance(arg, np.generic) for arg in args)
            self._without_graph |= func in _GRADIENTS and not kwargs.get("create_graph")
        if func is set_grad_enabled and torch.is_grad_enabled() != args[0]:
            self._off = not args[0]
        return func(*args, **kwargs)


_CONSTANTS = (
    torch.detach,
    torch.Tensor.detach,
    torch.Tensor.detach_,
    vars(torch._C.TensorBase)["data"].__get__,
    torch.Tensor.item,
    torch.Tensor.__float__,
    torch.Tensor.numpy,
    torch.Tensor.tolist,
    set_grad_enabled,
)
_READ_OUTSIDE = torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.__dlpack__
_GRADIENTS = torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward
