"""torch's own functions: where they are found by name, and what is behind their gates."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F

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
