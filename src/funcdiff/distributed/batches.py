"""A Jacobian or Hessian for every row of a batch, with the rows divided among the processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch.distributed.tensor import DTensor, Shard

from funcdiff._automatic import batches
from funcdiff._automatic.rows import Batch
from funcdiff._calling.documented import documented
from funcdiff._calling.types import Function
from funcdiff._torch.trees import Tree, map_leaves, unflatten
from funcdiff.distributed.documented import TEXTS
from funcdiff.distributed.processes import Processes
from funcdiff.distributed.sharing import gathered, joined, part_of
from funcdiff.distributed.together import together

_OF_ROWS: Mapping[str, Any] = dict(
    TEXTS,
    func="The function of one row, without the batch axis. Its arguments and its output are tensors, or dicts, lists "
    "and tuples of tensors (pytrees).",
    in_dims="Which axis of each argument is the batch, as in `torch.func.vmap`: one int for all arguments, or a "
    "tuple with an entry for each. None means that all rows share the argument. An argument that is sharded over "
    "this axis is not moved.",
    chunk_size='How many of its own rows a process computes at once. By default, all of them. "auto" chooses as many '
    "as fit into `budget`.",
)


@documented("Jacobians", **_OF_ROWS)
def batch_jacobian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    in_dims: Any = 0,
    *,
    gather: bool = False,
    group: Any = None,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    verify: bool = True,
) -> Function:
    """Compute one Jacobian for each row of a batch, with the rows divided among the processes.

    Call it on all processes of the group, with the same arguments. `func` takes one row. For 100 rows of shape (3,) and
    outputs of shape (2,), the result has the shape (100, 2, 3). By default, each process keeps its rows. The result is
    then a `DTensor`, a tensor whose parts are on different processes. With `gather=True`, every process gets all of it
    as an ordinary tensor.

    Example:
        The Jacobian of x^2 is 2 x. Here, the group has one process.

        >>> import torch
        >>> import torch.distributed as dist
        >>> from funcdiff.distributed import batch_jacobian
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> batch_jacobian(torch.square, gather=True)(torch.tensor([[1.0], [2.0]]))
        tensor([[[2.]],
        <BLANKLINE>
                [[4.]]])
        >>> dist.destroy_process_group()

    Cost:
        On each process, that of `funcdiff.batch_jacobian` for its share of the rows.
    """
    recipe = batches.batch_jacobian(func, argnums, in_dims, chunk_size=chunk_size, budget=budget, verify=verify)
    local = _own_rows(recipe, in_dims)
    return together("batch_jacobian", func, local, group=group, gather=gather, argnums=argnums, in_dims=in_dims)


@documented("Hessians", **_OF_ROWS)
def batch_hessian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    in_dims: Any = 0,
    *,
    gather: bool = False,
    group: Any = None,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    verify: bool = True,
) -> Function:
    """Compute one Hessian for each row of a batch, with the rows divided among the processes.

    Call it on all processes of the group, with the same arguments. `func` takes one row. For 100 rows of shape (3,) and
    scalar outputs, the result has the shape (100, 3, 3). By default, each process keeps its rows. The result is then a
    `DTensor`, a tensor whose parts are on different processes. With `gather=True`, every process gets all of it as an
    ordinary tensor.

    Example:
        The Hessian of the sum of cubes is 6 x. Here, the group has one process.

        >>> import torch
        >>> import torch.distributed as dist
        >>> from funcdiff.distributed import batch_hessian
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> batch_hessian(lambda x: x.pow(3).sum(), gather=True)(torch.tensor([[1.0], [2.0]]))
        tensor([[[ 6.]],
        <BLANKLINE>
                [[12.]]])
        >>> dist.destroy_process_group()

    Cost:
        On each process, that of `funcdiff.batch_hessian` for its share of the rows.
    """
    recipe = batches.batch_hessian(func, argnums, in_dims, chunk_size=chunk_size, budget=budget, verify=verify)
    local = _own_rows(recipe, in_dims)
    return together("batch_hessian", func, local, group=group, gather=gather, argnums=argnums, in_dims=in_dims)


def _own_rows(recipe: Function, in_dims: Any) -> Callable[[Processes, Sequence[Tree]], Tree]:
    def local(processes: Processes, args: Sequence[Tree]) -> Tree:
        batch = Batch(args, in_dims)
        if batch.size is None:
            return recipe(*args)  # where in_dims does not fit args, vmap says so
        span = part_of(batch.size, processes)

        def rows(x: Any, dim: int | None) -> Any:
            if isinstance(x, DTensor) and dim is not None and _holds_rows(x, dim, processes):
                return x.to_local()
            (whole,) = gathered([x])
            return whole if dim is None else whole.narrow(dim, span.start, span.stop - span.start)

        own = [rows(x, dim) for x, dim in zip(batch.leaves, batch.dims, strict=True)]
        size, empty = batch.size, batch.size > 0 and span.start == span.stop
        if empty:  # a row of ones gives the shapes: func need not support a batch without rows
            own = [x if dim is None else _one(x, dim) for x, dim in zip(own, batch.dims, strict=True)]
        results = recipe(*unflatten(own, batch.spec))
        return map_leaves(lambda x: joined(x[:0] if empty else x, 0, size, processes), results)

    return local


def _one(x: Any, dim: int) -> Any:
    shape = list(x.shape)
    shape[dim] = 1
    return x.new_ones(shape)


def _holds_rows(x: DTensor, dim: int, processes: Processes) -> bool:
    """Whether each process already has the rows that it computes."""
    mesh: Any = x.device_mesh
    return x.placements == (Shard(dim % x.dim()),) and mesh.get_group() is processes.group
