"""Jacobians and Hessians whose rows or columns are divided among processes: none of them has more than its part."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from funcdiff._automatic import choice
from funcdiff._calling.arguments import check_range, replace_args, select_args
from funcdiff._calling.documented import documented
from funcdiff._calling.types import Function
from funcdiff._safety.guard import corrected
from funcdiff._torch.trees import Tree, TreeSpec, flatten, unflatten
from funcdiff.distributed.documented import TEXTS
from funcdiff.distributed.processes import Processes
from funcdiff.distributed.sharing import gathered, joined, part_of
from funcdiff.distributed.together import together
from funcdiff.recipes.jacobians import jacobian_batched_grad

Split = Literal["outputs", "inputs"]
_SPLITS = "outputs", "inputs", None


@documented(
    "Jacobian",
    **TEXTS,
    split='What to divide among the processes: "outputs", the first axis of each output, or "inputs", the first axis '
    "of each differentiated tensor. By default, the outputs, unless there are more outputs than inputs.",
)
def jacobian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    split: Split | None = None,
    gather: bool = False,
    group: Any = None,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    verify: bool = True,
) -> Function:
    """Compute the Jacobian, divided among the processes: each computes a part of the rows or columns.

    Call it on all processes of the group, with the same arguments. The result has the shape of that of
    `funcdiff.jacobian`: (m, n) for n inputs and m outputs. By default, each process keeps the part that it computed.
    The result is then a `DTensor`, a tensor whose parts are on different processes. With `gather=True`, every process
    gets all of it as an ordinary tensor.

    Example:
        The Jacobian of a linear map is its matrix. Here, the group has one process.

        >>> import torch
        >>> import torch.distributed as dist
        >>> from funcdiff.distributed import jacobian
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> J = jacobian(lambda x: weight @ x)(torch.ones(2))
        >>> J.to_local()
        tensor([[1., 2.],
                [3., 4.]])
        >>> J.placements
        (Shard(dim=0),)
        >>> dist.destroy_process_group()

    Cost:
        For n inputs, m outputs and P processes, about 1 + m / P or 1 + n / P evaluations of `func` on each process.

    Notes:
        The `DTensor` is sharded over the first axis of the output or, with `split="inputs"`, of the input. The block of
        a scalar has no such axis and is the same on all processes.
    """
    _check_split(split)
    recipe = partial(choice.jacobian, chunk_size=chunk_size, budget=budget, verify=verify)
    recipe(func, argnums)  # what is wrong with its options is said at once
    splits: dict[Hashable, Split] = {}

    def local(processes: Processes, args: Sequence[Tree]) -> Tree:
        args = _whole(args, argnums)
        key = tuple(x.shape for x in flatten(tuple(args))[0] if isinstance(x, Tensor))
        if key not in splits:
            splits[key] = split or _split(func, argnums, args)
        by = splits[key]
        share = _by_outputs if by == "outputs" else _by_inputs
        return share(recipe, func, argnums, args, processes)

    return together("jacobian", func, local, group=group, gather=gather, argnums=argnums, split=split)


@documented("Hessian", **TEXTS)
def hessian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    gather: bool = False,
    group: Any = None,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    verify: bool = True,
) -> Function:
    """Compute the Hessian, divided among the processes: each computes a part of the outputs or of the rows.

    Call it on all processes of the group, with the same arguments. The result has the shape of that of
    `funcdiff.hessian`: (n, n) for a function from n inputs to a scalar. By default, each process keeps the part that it
    computed. The result is then a `DTensor`, a tensor whose parts are on different processes. With `gather=True`, every
    process gets all of it as an ordinary tensor.

    Example:
        The Hessian of :math:`x^T A x` is :math:`A + A^T`. Here, the group has one process.

        >>> import torch
        >>> import torch.distributed as dist
        >>> from funcdiff.distributed import hessian
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> hessian(lambda x: x @ matrix @ x, gather=True)(torch.ones(2))
        tensor([[2., 2.],
                [2., 6.]])
        >>> dist.destroy_process_group()

    Method:
        If the first axis of each output has at least as many entries as there are processes, the outputs are divided,
        and each process uses the method that `funcdiff.hessian` chooses. Otherwise, as for a loss, the rows of the
        Hessian are divided: each process differentiates its part of the gradient.

    Cost:
        On each of P processes, that of the Hessian of m / P outputs. For a loss with n inputs, about 2 (1 + n / P)
        evaluations of `func`, and n^2 / P numbers of memory.

    Notes:
        The `DTensor` is sharded over the first axis of the output. If the output has fewer entries than there are
        processes, it is sharded over the rows of the Hessian.
    """
    options: dict[str, Any] = {"chunk_size": chunk_size, "budget": budget, "verify": verify}
    recipe: Callable[..., Function] = partial(choice.hessian, **options)
    slopes: Callable[..., Function] = partial(choice.jacobian, **options)
    recipe(func, argnums)  # what is wrong with its options is said at once

    def local(processes: Processes, args: Sequence[Tree]) -> Tree:
        args = _whole(args, argnums)
        outputs = _outputs(func, args)
        if all(y.dim() and len(y) >= processes.size for y in outputs):
            return _by_outputs(recipe, func, argnums, args, processes)
        return _by_rows(slopes, func, argnums, args, processes)

    return together("hessian", func, local, group=group, gather=gather, argnums=argnums)


def _by_outputs(
    recipe: Callable[..., Function],
    func: Function,
    argnums: int | tuple[int, ...],
    args: Sequence[Tree],
    processes: Processes,
) -> Tree:
    """The derivative of this process's part of each output."""
    shapes: list[torch.Size] = []

    def part(*args: Tree) -> Tree:
        outputs, spec = flatten(func(*args))
        shapes[:] = [y.shape for y in outputs]
        return unflatten([y[part_of(len(y), processes)] if y.dim() else y for y in outputs], spec)

    blocks, spec = flatten(recipe(part, argnums)(*args))
    whole = [shapes[i * len(shapes) // len(blocks)] for i in range(len(blocks))]
    pairs = zip(blocks, whole, strict=True)
    return unflatten([joined(x, 0 if y else None, y[0] if y else 0, processes) for x, y in pairs], spec)


def _by_inputs(
    recipe: Callable[..., Function],
    func: Function,
    argnums: int | tuple[int, ...],
    args: Sequence[Tree],
    processes: Processes,
) -> Tree:
    """The derivative with respect to this process's part of each differentiated leaf."""
    leaves, spec = flatten(select_args(args, argnums))
    spans = [part_of(len(x), processes) if x.dim() else slice(0) for x in leaves]
    axes: list[int] = []
    specs: list[TreeSpec] = []

    def part(*pieces: Tensor) -> Tree:
        moved = [
            torch.cat([x[: span.start], piece, x[span.stop :]]) if x.dim() else piece
            for x, span, piece in zip(leaves, spans, pieces, strict=True)
        ]
        result = func(*replace_args(args, argnums, unflatten(moved, spec)))
        outputs, out_spec = flatten(result)
        axes[:], specs[:] = [y.dim() for y in outputs], [out_spec]
        return result

    pieces = [x[span] if x.dim() else x for x, span in zip(leaves, spans, strict=True)]
    blocks = flatten(recipe(part, tuple(range(len(leaves))))(*pieces))[0]
    rows = []
    for i, axis in enumerate(axes):
        row = blocks[i * len(leaves) : (i + 1) * len(leaves)]
        pairs = zip(row, leaves, strict=True)
        rows.append([joined(x, axis if y.dim() else None, len(y) if y.dim() else 0, processes) for x, y in pairs])
    return unflatten([unflatten(row, spec) for row in rows], specs[0])


def _by_rows(
    recipe: Callable[..., Function],
    func: Function,
    argnums: int | tuple[int, ...],
    args: Sequence[Tree],
    processes: Processes,
) -> Tree:
    """The derivative of this process's part of each gradient."""
    gradients = jacobian_batched_grad(corrected(func), argnums)
    inner = [x.dim() for x in flatten(select_args(args, argnums))[0]]
    cuts: list[tuple[int | None, int]] = []  # of each gradient the axis, and its length

    def part(*args: Tree) -> Tree:
        slopes, spec = flatten(gradients(*args))
        dims = [inner[i % len(inner)] for i in range(len(slopes))]
        cuts[:] = [(y.dim() - d, y.shape[y.dim() - d]) if d else (None, 0) for y, d in zip(slopes, dims, strict=True)]
        return unflatten([_cut(y, axis, processes) for y, (axis, _) in zip(slopes, cuts, strict=True)], spec)

    blocks, spec = flatten(recipe(part, argnums)(*args))
    placed = [joined(x, *cuts[i // len(inner)], processes) for i, x in enumerate(blocks)]
    return unflatten(placed, spec)


def _cut(x: Tensor, axis: int | None, processes: Processes) -> Tensor:
    if axis is None:
        return x
    span = part_of(x.shape[axis], processes)
    return x.narrow(axis, span.start, span.stop - span.start)


def _whole(args: Sequence[Tree], argnums: int | tuple[int, ...]) -> Sequence[Tree]:
    """The arguments without shards."""
    check_range(argnums, len(args))
    leaves, spec = flatten(tuple(args))
    whole: Sequence[Tree] = unflatten(gathered(leaves), spec)
    return whole


def _outputs(func: Function, args: Sequence[Tree]) -> Sequence[Tensor]:
    with torch.no_grad():
        outputs: Sequence[Tensor] = flatten(func(*args))[0]
    return outputs


def _split(func: Function, argnums: int | tuple[int, ...], args: Sequence[Tree]) -> Split:
    inputs = sum(x.numel() for x in flatten(select_args(args, argnums))[0])
    return "outputs" if sum(y.numel() for y in _outputs(func, args)) <= inputs else "inputs"


def _check_split(split: Any) -> None:
    if split not in _SPLITS:
        raise ValueError(f'expected split to be "outputs", "inputs" or None, got {split!r}')
