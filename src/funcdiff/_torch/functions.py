"""torch's own functions: where they are found by name, and what is behind their gates."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn import _reduction

weight_norm = torch._weight_norm  # beneath torch.nn.utils.weight_norm
packs_rows = torch._nested_tensor_from_mask_left_aligned  # asked by a transformer about its padding mask
mse_loss_by_number = torch._C._nn.mse_loss  # beneath those of torch.nn.functional, with the reduction as a number
soft_margin_loss_by_number = torch._C._nn.soft_margin_loss
multi_margin_loss_by_number = torch._C._nn.multi_margin_loss
unpooled = torch._C._nn.max_unpool2d, torch._C._nn.max_unpool3d  # beneath those of torch.nn.functional
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
