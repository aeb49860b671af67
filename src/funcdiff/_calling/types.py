"""The types that every recipe is written in."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from funcdiff._torch.trees import Tree, TreeSpec

Function = Callable[..., Tree]
Flat = Function  # func as a function of the differentiated leaves alone
Primals = tuple[Tensor, ...]
Blocks = list[list[Tensor]]  # for each output leaf, a block for each primal
Derivative = tuple[Blocks, TreeSpec, list[Tree]]  # the blocks, the structure of the output, and [aux] if there is one
