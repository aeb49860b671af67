"""curvlinops, where it is installed: products with the Hessian of a loss by the parameters, which are its subject."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn


def hessian_operator(network: nn.Module, inputs: Tensor, target: Tensor) -> dict[str, Callable[..., Any]]:
    """The product of its linear operator with a vector, for the mean squared error of one batch."""
    if find_spec("curvlinops") is None:
        return {}
    from curvlinops import HessianLinearOperator

    data = [(inputs, target)]
    operator = HessianLinearOperator(network, nn.MSELoss(), list(network.parameters()), data, check_deterministic=False)
    return {f"curvlinops {version('curvlinops-for-pytorch')}, HessianLinearOperator": lambda _, v: operator @ v}
