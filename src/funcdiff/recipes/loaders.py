"""Operators of a loss over a data set: one pass through the batches for each product."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped] # tqdm ships no types

from funcdiff._calling.documented import documented
from funcdiff._calling.operator import ONCE, Leaves, Map, Maps, Operator
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.transforms import plain_allowed
from funcdiff._torch.trees import Tree, tree_leaves

_SAME = 1e-10  # of the sum of absolute values: above this difference of the sums, the data of two passes differ


@documented(
    "operator",
    returns="The operator. It has the same shape as those of the batches, and is used in the same way.",
    operator_factory="A function that takes a batch and returns its operator, made by `hvp_operator`, "
    "`gauss_newton_operator` or `fisher_operator`. If a batch is a tuple or a list, such as (inputs, targets), its "
    "items are the arguments.",
    loader="The batches: a ``DataLoader``, a list, or another object that can be looped over many times.",
    reduction='"mean" if the loss is a mean over the rows of a batch. The operators are then averaged, weighted by '
    'the numbers of rows. "sum" if the loss is a sum. The operators are then added.',
    progress="Whether to show a progress bar for each pass.",
    raises={
        "TypeError": "The loader is an iterator, which is empty after one pass, a batch contains no tensor with "
        "rows, or the factory does not return an operator.",
        "ValueError": 'The loader is empty, or `reduction` is not "mean" or "sum".',
        "RuntimeError": "The data of two passes differ, because they are augmented or drawn at random.",
    },
)
def over_batches(
    operator_factory: Callable[..., Operator],
    loader: Iterable[Any],
    *,
    reduction: Literal["mean", "sum"] = "mean",
    progress: bool = False,
) -> Operator:
    """Make the operator of a loss over a whole data set from the operators of its batches.

    Use it if the data do not fit in memory at once. You write a function that makes the operator of one batch, such as
    its Hessian. The result is the operator of the whole data set, of the same shape (n, n). Each product with it runs
    once through the data, with the memory of one batch.

    Example:
        The mean of x^2 t over t = 1, 2, 6 has the second derivative 6. Here the data come in batches of two.

        >>> import torch
        >>> from funcdiff import hvp_operator, over_batches
        >>> loader = torch.tensor([1.0, 2.0, 6.0]).split(2)
        >>> x = torch.tensor([5.0])
        >>> def factory(t):
        ...     return hvp_operator(lambda x: (x**2 * t).mean(), x)
        >>> over_batches(factory, loader)(torch.ones(1))
        tensor([6.])

        The Hessian of the loss of a network, with a `DataLoader` of inputs and targets:

        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from funcdiff import module_function
        >>> network, parameters = module_function(torch.nn.Linear(3, 1))
        >>> data = DataLoader(TensorDataset(torch.randn(20, 3), torch.randn(20, 1)), batch_size=8)
        >>> def of_batch(x, target):
        ...     return hvp_operator(lambda p: (network(p, x) - target).square().mean(), parameters)
        >>> hessian = over_batches(of_batch, data)
        >>> hessian.shape
        (4, 4)
        >>> (hessian @ torch.ones(4)).shape
        torch.Size([4])

    Method:
        The operator of each batch is made, multiplied and deleted. Each batch counts with its number of rows, so the
        result does not depend on the order of the data or on the size of the batches.

    Cost:
        For each pass through the data, making and multiplying the operator of each batch. ``operator @ V`` multiplies
        all columns of V in one pass. For a product with one vector, a batch needs as much arithmetic as 6 evaluations
        of the model for a Gauss-Newton or Fisher matrix.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f'expected reduction to be "mean" or "sum", got {reduction!r}')
    if isinstance(loader, Iterator):
        raise TypeError(
            f"expected a loader that can be looped over many times, got a {type(loader).__name__}, which is empty "
            "after one pass. Pass the DataLoader itself, or list(...) of the batches."
        )
    seen: list[Tensor] = []  # the rows and the sum of the data, in the first pass

    def made(batch: Any) -> Operator:
        once = ONCE.set(True)
        try:
            operator = operator_factory(*batch) if isinstance(batch, (tuple, list)) else operator_factory(batch)
        finally:
            ONCE.reset(once)
        if not isinstance(operator, Operator):
            raise TypeError(f"expected operator_factory to return an operator, got a {type(operator).__name__}")
        return operator

    def one_pass(map_of: Callable[[Operator], Map]) -> Map:
        def run(vectors: Leaves) -> Leaves:
            total: list[Tensor] = []
            rows, sums = 0, torch.zeros(2, dtype=torch.float64, device="cpu")
            for batch in tqdm(loader, desc="batches", leave=False, disable=not progress):
                size = _rows(batch)
                rows, sums = rows + size, sums + _checksum(batch)
                weight = size if reduction == "mean" else 1
                parts = map_of(made(batch))(vectors)
                if any(x.shape != t.shape for x, t in zip(parts, total, strict=False)):
                    raise ValueError("expected operator_factory to return operators of one shape, got two shapes")
                total = _added(total or [torch.zeros_like(x) for x in parts], parts, weight)
                del parts
            _compare(seen, rows, sums)
            return [x / rows for x in total] if reduction == "mean" else total

        return run

    first = next(iter(loader), None)
    if first is None:
        raise ValueError("expected at least one batch, got an empty loader")
    like = made(first)
    return Operator(
        Maps(
            one_pass(lambda operator: operator.maps.apply),
            one_pass(lambda operator: operator.maps.adjoint),
            one_pass(lambda operator: operator.maps.apply_many),
            one_pass(lambda operator: operator.maps.adjoint_many),
        ),
        like.inputs,
        like.outputs,
    )


def _added(total: list[Tensor], parts: Leaves, weight: int) -> list[Tensor]:
    """The total with a batch more, in its place unless a graph or a transform wants the old one."""
    if not plain_allowed() or any(x.requires_grad for x in (*total, *parts)):
        return [torch.add(t, x, alpha=weight) for t, x in zip(total, parts, strict=True)]
    return [t.add_(x, alpha=weight) for t, x in zip(total, parts, strict=True)]


def _rows(batch: Tree) -> int:
    """The number of rows of a batch: of its first tensor."""
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor) and leaf.dim():
            return len(leaf)
    raise TypeError(f"expected each batch to contain a tensor with a row for each sample, got a {type(batch).__name__}")


def _checksum(batch: Tree) -> Tensor:
    """Two sums: one that differs if the data do, in whatever order and batches the rows come, and its size."""
    sums = torch.zeros(2, dtype=torch.float64, device="cpu")
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor) and leaf.numel() and not leaf.is_complex():
            rows = leaf.detach().double().reshape(len(leaf) if leaf.dim() else 1, -1)
            weights = 1 + torch.arange(rows.shape[1], dtype=torch.float64, device=rows.device).cos() / 2  # of no order
            sums += torch.stack([(rows @ weights).sum(), (rows.abs() @ weights).sum()]).cpu()
    return sums


def _compare(seen: list[Tensor], rows: int, sums: Tensor) -> None:
    """Refuse data that are others than in the first pass."""
    now = torch.cat([torch.tensor([rows], dtype=torch.float64, device="cpu"), sums])
    if not seen:
        seen.append(now)
    elif now[0] != seen[0][0] or bool(((now - seen[0]).abs() > _SAME * now[-1]).any()):
        raise RefusedError(
            f"expected the same data in every pass, got {rows} rows instead of {int(seen[0][0])}, or other values. "
            "Switch off random augmentation, random sampling and drop_last."
        )
