"""A sparse derivative that is not finite, as behind a mask: computed in other ways, or refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from funcdiff._automatic.choice import chosen
from funcdiff._calling.options import Options
from funcdiff._calling.types import Function
from funcdiff._safety.accusing import Check
from funcdiff._safety.verification import Kind
from funcdiff._sparse.colouring import Groups, by_columns
from funcdiff._sparse.pattern import Pattern
from funcdiff._torch.messages import cannot
from funcdiff._torch.tensors import all_finite
from funcdiff._torch.trees import flatten

_MOST = 2**24  # entries of a whole matrix, zeros among them, that is computed in place of a sparse one


def finite(
    values: Tensor,
    kind: Kind,
    pattern: Pattern,
    function: Function,
    primals: Sequence[Tensor],
    by: Callable[[str, Groups], Tensor],
    judge: Callable[[Tensor], Check],
    refuse: Callable[[Check], None],
) -> Tensor:
    """The entries in the first way in which they are finite, and differences of the function agree; else as they are.

    `by` computes them in a mode by groups, `judge` says what differences find, and `refuse` raises where that is wrong.
    """
    if kind == "jacobian":
        for name, groups in (("jacobian_forward", by_columns(pattern)), ("jacobian_batched_grad", pattern.by_rows)):
            try:
                others = by(name, groups)
            except Exception as error:  # raised again unless torch cannot do it in this way
                if not cannot(error):
                    raise
                continue
            if all_finite(others) and judge(others).outcome == "agrees":
                return others
    rows, columns = pattern.shape
    if rows * columns > _MOST:
        refuse(judge(values))
        return values
    every = Options(tuple(range(len(primals))))
    blocks, sizes = flatten(chosen(kind, function, every)(*primals))[0], [x.numel() for x in primals]
    parts = [block.reshape(-1, n) for block, n in zip(blocks, itertools.cycle(sizes), strict=False)]
    strips = [torch.cat(parts[i : i + len(sizes)], 1) for i in range(0, len(parts), len(sizes))]
    places = [torch.from_numpy(x).to(values.device) for x in (pattern.rows, pattern.columns)]
    return torch.cat(strips)[tuple(places)]
