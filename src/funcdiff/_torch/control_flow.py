"""torch's control flow operators (cond, while_loop, scan, map) as the Python that their documentation says they are.

torch compiles each of them where it is called. Under a dispatch mode the compiler of torch 2.13 fails, then and at
every later call in the process; and of their derivatives it has the first alone, in reverse mode. The Python that they
stand for has all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops import utils
from torch._higher_order_ops.cond import cond_op
from torch._higher_order_ops.map import map_impl
from torch._higher_order_ops.scan import scan_op
from torch._higher_order_ops.while_loop import while_loop_op
from torch.overrides import TorchFunctionMode

from funcdiff._torch.trees import Tree, flatten, map_leaves, unflatten

Some = Sequence[Any]  # tensors, for the most part

# Of torch 2.13 and later; before, nothing stands in its place, and these operators are left to torch.
_compiled: Any = getattr(utils, "_hop_compile_and_call", None)


def as_python(active: bool) -> None:
    """Run control flow operators as Python from now on, or no longer. The values are equal."""
    if _compiled is not None:
        utils._hop_compile_and_call = _run if active else _compiled


def _run(func: Callable[..., Any], args: Some, kwargs: Mapping[str, Any] | None = None) -> Any:
    """What torch calls, instead of what compiles a higher-order operator and runs it."""
    with _Meaning() as meaning:
        result = func(*args, **(kwargs or {}))
    return result if meaning.met else _compiled(func, tuple(args), dict(kwargs or {}))


class _Meaning(TorchFunctionMode):
    met = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _MEANINGS:
            return func(*args, **(kwargs or {}))
        self.met = True
        return _MEANINGS[func](*args, **(kwargs or {}))


def _cond(predicate: Any, true: Callable[..., Any], false: Callable[..., Any], operands: Some) -> Any:
    return true(*operands) if predicate else false(*operands)


def _while_loop(goes_on: Callable[..., Any], body: Callable[..., Tree], carried: Some, additional: Some = ()) -> Tree:
    leaves, spec = carried, None
    while goes_on(*leaves, *additional):
        leaves, spec = flatten(body(*leaves, *additional))
    if spec is None:  # what never ran says the structure
        spec = flatten(body(*carried, *additional))[1]
    return unflatten(leaves, spec)


def _scan(combine: Callable[..., Any], init: Some, xs: Sequence[Tensor], additional_inputs: Some = ()) -> Any:
    carry: Tree = init
    rows: list[Tree] = []
    for x in zip(*xs, strict=True):
        carry, row = combine(*flatten(carry)[0], *x, *additional_inputs)
        rows.append(row)
    return carry, map_leaves(_stacked, *rows)


def _map(func: Callable[..., Tree], xs: Sequence[Tensor], fixed: Some, *, mutated_arg_indices: str = "") -> Tree:
    # Since torch 2.15 the compiler is told into which arguments `func` writes; Python just lets it.
    return map_leaves(_stacked, *(func(*x, *fixed) for x in zip(*xs, strict=True)))


def _stacked(*rows: Tensor) -> Tensor:
    return torch.stack(rows)


_MEANINGS: Mapping[Any, Callable[..., Any]] = {
    cond_op: _cond,
    while_loop_op: _while_loop,
    scan_op: _scan,
    map_impl: _map,
}
