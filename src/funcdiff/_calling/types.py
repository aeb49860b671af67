"""The types that every recipe is written in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from funcdiff._calling.options import Options
from funcdiff._torch.trees import Tree

Function = Callable[..., Tree]
Primals = tuple[Tensor, ...]
Flat = Callable[..., tuple[Primals, Tree]]  # func of the differentiated leaves, to the leaves of its output and the aux
Blocks = list[list[Tensor]]  # for each output leaf, a block for each primal
Derivative = tuple[Sequence[Any], Tree]  # for each output leaf its derivative, in lists over the primals; and the aux
Formula = Callable[[Flat, Primals, Options], Derivative]
