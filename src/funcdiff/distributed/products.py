"""Products with the Hessian of a loss over data that lie on several processes: a local product, and one sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcdiff._automatic import products
from funcdiff._calling.point import check_primals, check_tangents, whole
from funcdiff._calling.types import Function
from funcdiff._torch.trees import Tree, flatten, unflatten
from funcdiff.distributed.digests import facts_of, no_facts, values
from funcdiff.distributed.processes import TAIL, Processes, refuse_inside
from funcdiff.distributed.sharing import gathered, like
from funcdiff.distributed.together import attempted


def hvp_operator(
    loss: Function, *primals: Tree, samples: int | None = None, group: Any = None, verify: bool = True
) -> Callable[..., Tree]:
    """Make a function that multiplies vectors by the Hessian of a loss whose data are divided among processes.

    Each process passes the loss of its own share of the data, and how many samples the share has. Then
    ``hessian(v)`` is Hv for the loss of all data, with the shape of the argument. It is the same on all processes, also
    if the shares differ in size.

    Example:
        The mean of w^3 over two samples has the Hessian diag(3 w). Here, the group has one process.

        >>> import torch
        >>> import torch.distributed as dist
        >>> from funcdiff.distributed import hvp_operator
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> hessian = hvp_operator(lambda w: w.pow(3).mean(), torch.tensor([1.0, 2.0]), samples=2)
        >>> hessian(torch.ones(2))
        tensor([3., 6.])
        >>> dist.destroy_process_group()

    Args:
        loss: The loss of this process's share of the data. It takes tensors or pytrees of tensors, and returns a
            scalar, a tensor of shape (). It must not communicate.
        *primals: The point, the same on all processes. `loss` receives a sharded tensor (a DTensor) whole.
        samples: The number of samples in this process's share, if `loss` is a mean over them. A process without samples
            passes 0. By default, the losses of all processes are added.
        group: The process group. By default, all processes.
        verify: Whether to check the first local product by finite differences of the local gradient.

    Returns:
        A function that takes one vector for each argument of `loss` and returns Hv, sharded as the arguments are. You
        cannot backpropagate through the result.

    Raises:
        TypeError: An argument, a vector or the loss is not a dense tensor of real floating-point numbers, or the
            vectors have another structure than the arguments.
        ValueError: `loss` does not return a scalar, `samples` is negative, or something differs between processes that
            must not: shapes, dtypes, values, the code of `loss`, or vectors. The message names the ranks.
        RuntimeError: There is no process group, a process failed, ended or does not answer within the timeout of the
            group, or `funcdiff.hvp_operator` refuses `loss`. Every process raises.

    Method:
        The graph of the gradient is built once. For each product, every process multiplies by its own Hessian, and the
        results are added in one all-reduce. All processes get the same bits, so each can run the same solver, such as
        `scipy.sparse.linalg.eigsh` with a ``LinearOperator`` that calls the function. All must call the function
        equally often, with the same vectors; a difference is refused. Half precision is added in float32.

    Cost:
        That of `funcdiff.hvp_operator` for the data of this process. For n numbers in the arguments, n + 33 numbers are
        reduced for each product. Sharded arguments are gathered once, and sharded vectors for each product.
    """
    processes = Processes(group, "hvp_operator")
    refuse_inside("hvp_operator")
    facts, error = attempted(lambda: _facts(loss, primals, samples))
    counts = processes.agree(facts or no_facts(), error, 0 if error else samples or 0)
    share = 1.0 if samples is None else _share(samples, counts)
    x, spec = check_primals(primals)
    at = unflatten(processes.gather(lambda: gathered(x)), spec)
    local, error = attempted(lambda: products.hvp_operator(loss, *at, verify=verify) if share else None)
    processes.agree({}, error)
    dtype = _wide(x)
    sizes = [leaf.numel() for leaf in x]

    def operator(*tangents: Tree) -> Tree:
        refuse_inside("hvp_operator")
        total = torch.zeros(sum(sizes) + TAIL, dtype=dtype, device=x[0].device)

        def write() -> int:
            v = gathered(check_tangents(tangents, x, spec))
            if local is not None:
                parts = flatten(local(*unflatten(v, spec)))[0]
                torch.cat([share * part.detach().reshape(-1).to(dtype) for part in parts], out=total[:-TAIL])
            return values(v)

        digest, error = attempted(write)
        summed = torch.split(processes.sum(total, digest or 0, error), sizes)
        return whole([like(part.view(leaf.shape), leaf) for part, leaf in zip(summed, x, strict=True)], spec)

    return operator


def _facts(loss: Function, primals: tuple[Tree, ...], samples: Any) -> dict[str, str]:
    check_primals(primals)
    if samples is not None:
        _check_samples(samples)
    return facts_of(loss, primals, samples="none" if samples is None else "given")


def _check_samples(samples: Any) -> None:
    if not isinstance(samples, int) or isinstance(samples, bool):
        raise TypeError(f"expected samples to be the number of samples in this process's share, got {samples!r}")
    if samples < 0:
        raise ValueError(f"expected samples to be 0 or more, got {samples}")


def _share(samples: int, counts: Sequence[int]) -> float:
    if not any(counts):
        raise ValueError("expected a sample on one process at least, got samples=0 on all")
    return samples / sum(counts)


def _wide(x: Sequence[Tensor]) -> torch.dtype:
    """The dtype to add up in: half precision would lose the small parts."""
    return torch.float64 if any(leaf.dtype == torch.float64 for leaf in x) else torch.float32
