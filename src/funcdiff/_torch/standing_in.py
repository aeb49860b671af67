"""Plain tensors in place of those that belong to a transform, for a function that is run outside of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from funcdiff._torch.transforms import graph_beneath, outside, values
from funcdiff._torch.trees import Tree, tree_map_only


def outside_of(func: Callable[..., Tree], captured: Sequence[Tensor]) -> Callable[..., Tree]:
    """`func` with what its `captured` tensors hold beneath all transforms, of a batch the second row.

    A closure may name a variable of vmap's or grad's. To plan, the function runs outside of both, where such a tensor
    means nothing.
    """
    wrapped = [x for x in captured if torch._C._functorch.is_functorch_wrapped_tensor(x)]
    held = {id(x): found for x in wrapped if (found := values(x)) is not None}
    with outside():
        for x in wrapped:
            if id(x) in held and held[id(x)].is_floating_point():
                held[id(x)].requires_grad_(graph_beneath(x))  # whether it is trained
    if not held:
        return func

    def with_stand_ins(*args: Tree) -> Tree:
        with _StandIns(wrapped, held):
            return func(*args)

    return with_stand_ins


class _StandIns(TorchFunctionMode):
    def __init__(self, wrapped: Sequence[Tensor], held: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.wrapped, self.held = wrapped, held  # both, as the ids of dead tensors are given away

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(Tensor, lambda x: self.held.get(id(x), x), (args, kwargs or {}))
        return func(*args, **kwargs)
