"""What the operators of torch.distributed send: the bytes that each process sends over a ring, by formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from funcdiff._torch.processes import group_size

Formula = Callable[[int, int], float]  # of the bytes that a process passes, and of P processes


def _parts(passed: int, p: int) -> float:
    return passed * (p - 1) / p


# A ring cuts what is summed into P parts; each process sends every part but one, once to add up and once to pass on.
_FORMULAS: Mapping[str, Formula] = {
    "all_reduce": lambda passed, p: 2 * _parts(passed, p),
    "all_gather": lambda passed, p: passed * (p - 1),
    "reduce_scatter": _parts,
    "all_to_all": _parts,
    "broadcast": _parts,  # on average: every process but one receives it
}
# Of c10d the start of the name, what it is, and which argument is passed; the functional ones are named as above.
_IN_PLACE = {
    "allreduce": ("all_reduce", 0),
    "_allgather_base": ("all_gather", 1),
    "allgather": ("all_gather", 1),
    "_reduce_scatter_base": ("reduce_scatter", 1),
    "reduce_scatter": ("reduce_scatter", 1),
    "alltoall": ("all_to_all", 1),
    "broadcast": ("broadcast", 0),
}


def bytes_sent(func: Any, args: Any) -> float | None:
    """What a process sends for a collective; None for an operator that is none. Waiting and barriers send nothing."""
    if func.namespace not in ("c10d", "_c10d_functional"):
        return None
    own = func.overloadpacket.__name__
    starts = _IN_PLACE if func.namespace == "c10d" else {name: (name, 0) for name in _FORMULAS}
    name, place = next((told for start, told in starts.items() if own.startswith(start)), ("", 0))
    if not name:
        return 0.0
    tensors = [x for x in pytree.tree_leaves(args[place]) if isinstance(x, Tensor)]
    return _FORMULAS[name](sum(x.numel() * x.element_size() for x in tensors), group_size(func, args))
