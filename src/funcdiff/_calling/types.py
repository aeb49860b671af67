"""The types that every recipe is written in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from funcdiff._calling.options import Options
from funcdiff._torch.trees import Tree

Function = Callable[..., Tree]
Primals = tuple[Tensor, ...]
Flat = Function  # func as a function of the differentiated leaves alone
Blocks = list[list[Tensor]]  # for each output leaf, a block for each primal
Derivative = tuple[Any, ...]  # for each output leaf its derivative, in lists over the primals; and aux, if there is one
Formula = Callable[[Flat, Primals, Options], Derivative]
