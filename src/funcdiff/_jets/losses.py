"""Losses of which torch 2.13's second derivatives fail in one mode or another."""

from typing import Any

import torch
import torch.nn.functional as F

from funcdiff._jets.jet import on
from funcdiff._jets.operations import form
from funcdiff._torch.functions import mse_loss_by_number, reduction_of_old, soft_margin_loss_by_number

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
