"""Who computes what: equal parts of an axis, and tensors that lie in such parts on the processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from funcdiff._torch.trees import Tree, map_leaves
from funcdiff.distributed.processes import Processes


def part_of(length: int, processes: Processes) -> slice:
    """This process's part of an axis, as DTensor cuts it: equal parts, the last ones shorter or empty."""
    step = -(-length // processes.size)
    return slice(min(processes.rank * step, length), min((processes.rank + 1) * step, length))


def gathered(leaves: Sequence[Any]) -> tuple[Any, ...]:
    """The leaves, sharded ones whole: one all-gather each."""
    return tuple(x.full_tensor().detach() if isinstance(x, DTensor) else x for x in leaves)


def like(whole: Tensor, x: Tensor) -> Tensor:
    """A tensor that all processes have, in the dtype of `x` and sharded as it is; nothing is sent."""
    whole = whole.to(x.dtype)
    if not isinstance(x, DTensor):
        return whole
    replicated = DTensor.from_local(whole, x.device_mesh, [Replicate()] * x.device_mesh.ndim, run_check=False)
    return replicated.redistribute(placements=x.placements)


def joined(part: Tensor, axis: int | None, length: int, processes: Processes) -> DTensor:
    """The parts of an axis as one tensor; nothing is sent. Without an axis all have the same."""
    mesh = DeviceMesh.from_group(processes.group, part.device.type)
    if axis is None:
        return DTensor.from_local(part, mesh, [Replicate()], run_check=False)
    shape = torch.Size((*part.shape[:axis], length, *part.shape[axis + 1 :]))
    strides = part.new_empty(shape, device="meta").stride()
    return DTensor.from_local(part.contiguous(), mesh, [Shard(axis)], run_check=False, shape=shape, stride=strides)


def handed_over(result: Tree, gather: bool, processes: Processes) -> Tree:
    """The result as it is, or whole on every process: one all-gather for each of its tensors."""
    if not gather:
        return result
    return processes.gather(lambda: map_leaves(lambda x: x.full_tensor(), result))
