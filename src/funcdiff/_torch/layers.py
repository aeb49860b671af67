"""torch's layers by what they do in training mode: their common classes have private names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Dropout = nn.modules.dropout._DropoutNd
BatchNorm = nn.modules.batchnorm._BatchNorm


def for_one_call(buffer: Tensor) -> Tensor:
    """A copy that a layer may write into: nobody sees it after the call."""
    copy = buffer.clone()
    if not torch.compiler.is_compiling():
        copy.for_one_call = True  # type: ignore[attr-defined]  # a mark of ours, for the next function
    return copy


def is_for_one_call(buffer: Tensor) -> bool:
    return getattr(buffer, "for_one_call", False)
