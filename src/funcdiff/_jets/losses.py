"""Losses of which torch 2.13's second derivatives fail in one mode or another."""

from typing import Any

import torch
import torch.nn.functional as F

from funcdiff._jets.distances import pairwise_distance
from funcdiff._jets.jet import on, plain
from funcdiff._jets.operations import form
from funcdiff._torch.functions import (
    mse_loss_by_number,
    multi_margin_loss_by_number,
    reduction_of_old,
    soft_margin_loss_by_number,
)

_BY_NUMBER = ("none", "mean", "sum")  # as torch's own operators are told


def _reduced(terms: Any, reduction: str | int) -> Any:
    name = reduction if isinstance(reduction, str) else _BY_NUMBER[reduction]
    return terms if name == "none" else on(getattr(torch, name), terms)


@form(F.mse_loss, twice=True)
def _mean_squares(func: Any, args: Any, kwargs: Any) -> Any:
    def mse_loss(
        input: Any,
        target: Any,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        weight: Any = None,
    ) -> Any:
        if size_average is not None or reduce is not None:
            reduction = reduction_of_old(size_average, reduce)
        terms = on(torch.square, on(torch.sub, input, target))
        if weight is None:
            return _reduced(terms, reduction)
        terms = on(torch.mul, terms, weight)
        return on(torch.sum, terms) / on(torch.sum, weight) if reduction == "mean" else _reduced(terms, reduction)

    return mse_loss(*args, **kwargs)


@form(mse_loss_by_number, twice=True)
def _mean_squares_by_number(func: Any, args: Any, kwargs: Any) -> Any:
    def mse_loss(input: Any, target: Any, reduction: int = 1) -> Any:
        return _reduced(on(torch.square, on(torch.sub, input, target)), reduction)

    return mse_loss(*args, **kwargs)


@form(soft_margin_loss_by_number)
def _soft_margin(func: Any, args: Any, kwargs: Any) -> Any:
    def soft_margin_loss(input: Any, target: Any, reduction: int = 1) -> Any:
        return _reduced(on(F.softplus, -on(torch.mul, input, target)), reduction)

    return soft_margin_loss(*args, **kwargs)


@form(multi_margin_loss_by_number)
def _multi_margin(func: Any, args: Any, kwargs: Any) -> Any:
    def multi_margin_loss(
        input: Any, target: Any, p: float = 1, margin: float = 1, weight: Any = None, reduction: int = 1
    ) -> Any:
        if input.dim() == 0:  # one class alone has no other to keep a margin from
            input, target = on(torch.reshape, input, (1,)), target.reshape(())
        labels = target.unsqueeze(-1)
        gaps = on(torch.sub, input, on(torch.gather, input, -1, labels)) + margin
        own = torch.arange(input.shape[-1], device=target.device) == labels
        terms = on(torch.masked_fill, on(torch.relu, gaps), own, 0.0)
        terms = on(torch.square, terms) if p == 2 else terms
        terms = (
            terms
            if weight is None
            else on(torch.mul, terms, on(torch.index_select, weight, 0, target.reshape(-1)).reshape(labels.shape))
        )
        return _reduced(on(torch.mean, terms, -1), reduction)

    return multi_margin_loss(*args, **kwargs)


@form(F.huber_loss, twice=True)
def _huber(func: Any, args: Any, kwargs: Any) -> Any:
    """Linear from `delta` on, as in plain autograd; torch 2.13 has no forward mode of its gradient's derivative."""

    def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Any:
        difference = on(torch.sub, input, target)
        size = on(torch.abs, difference)
        terms = on(torch.where, plain(size) < delta, on(torch.square, difference) / 2, delta * (size - delta / 2))
        return _reduced(terms if weight is None else on(torch.mul, terms, weight), reduction)

    return huber_loss(*args, **kwargs)


@form(F.triplet_margin_loss)
def _triplet_margin(func: Any, args: Any, kwargs: Any) -> Any:
    def triplet_margin_loss(
        anchor: Any,
        positive: Any,
        negative: Any,
        margin: float = 1.0,
        p: float = 2,
        eps: float = 1e-6,
        swap: bool = False,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> Any:
        if size_average is not None or reduce is not None:
            reduction = reduction_of_old(size_average, reduce)
        near, far = (pairwise_distance(anchor, other, p, eps) for other in (positive, negative))
        if swap:
            far = on(torch.minimum, far, pairwise_distance(positive, negative, p, eps))
        return _reduced(on(torch.clamp_min, on(torch.add, on(torch.sub, near, far), margin), 0), reduction)

    return triplet_margin_loss(*args, **kwargs)
