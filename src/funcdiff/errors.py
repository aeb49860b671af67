"""How wrong an approximation and its derivatives are: relative errors, and one table by order and region."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from funcdiff._tables import Table, significant


def relative_error(approximation: Tensor, exact: Tensor, *, eps: float = 1e-2) -> Tensor:
    """`(approximation - exact) / (|exact| + eps)`, by entries: signed, and finite where the exact value passes zero.

    Shapes: those of the arguments. In units of the exact value where that is large against `eps`, and of `eps` where
    it is small.

    Example:
        >>> relative_error(torch.tensor([1.5, 0.5]), torch.tensor([1.0, 0.0]), eps=0.25)
        tensor([0.4000, 2.0000])
    """
    return (approximation - exact) / (exact.abs() + eps)


def near_edge(x: Tensor, low: Tensor, high: Tensor, *, margin: float = 0.1) -> Tensor:
    """Which points lie within a part of a box's width from its edge: (..., inputs) -> (...), of booleans.

    Example:
        >>> near_edge(torch.tensor([[0.5], [0.95]]), torch.tensor([0.0]), torch.tensor([1.0]))
        tensor([False,  True])
    """
    depth = torch.minimum(x - low, high - x) / (high - low)
    return (depth < margin).any(-1)


def rms(error: Tensor) -> float:
    """Root of the mean square over all entries.

    >>> rms(torch.tensor([1.0, -7.0]))
    5.0
    """
    return error.square().mean().sqrt().item()


def error_table(pairs: Mapping[str, tuple[Tensor, Tensor]], regions: Mapping[str, Tensor]) -> Table:
    """The error of several quantities, in each region of the points: root mean square and 99th percentile.

    Args:
        pairs: Name of a quantity to its approximation and its exact values, each of shape `(*points, ...)`.
        regions: Name of a region to the points in it, booleans of shape `(*points,)`.

    Returns:
        A table. Absolute errors, the size of the exact values, and the first over the second; over all entries.

    Example:
        >>> exact = torch.tensor([1.0, 2.0])
        >>> error_table({"value": (exact + 0.5, exact)}, {"all": exact > 0})
        quantity  region  points  RMS error  99th percentile  RMS of exact  RMS error / RMS of exact
        --------  ------  ------  ---------  ---------------  ------------  ------------------------
        value        all       2      0.500            0.500          1.58                     0.316
    """
    rows = []
    for name, (approximation, exact) in pairs.items():
        for region, inside in regions.items():
            error, size = (approximation - exact)[inside], rms(exact[inside])
            tail = error.abs().flatten().quantile(0.99).item()
            numbers = (rms(error), tail, size, rms(error) / size)
            rows.append((name, region, str(int(inside.sum())), *map(significant, numbers)))
    columns = (
        "quantity",
        "region",
        "points",
        "RMS error",
        "99th percentile",
        "RMS of exact",
        "RMS error / RMS of exact",
    )
    return Table(columns, tuple(rows))


def variant_table(variants: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]) -> Table:
    """The errors of several approximations beside each other, each in units of the size of what it approximates.

    Args:
        variants: Name of an approximation to its quantities, as `error_table` takes them; the same for all.

    Returns:
        A table of the RMS error over the RMS of the exact values.

    Example:
        >>> exact = torch.tensor([3.0, 4.0])
        >>> variant_table({"close": {"value": (1.125 * exact, exact)}, "zero": {"value": (0 * exact, exact)}})
        RMS error / RMS of exact  value
        ------------------------  -----
        close                     0.125
        zero                       1.00
    """
    columns = ("RMS error / RMS of exact", *next(iter(variants.values())))
    rows = (
        (name, *(significant(rms(found - exact) / rms(exact)) for found, exact in pairs.values()))
        for name, pairs in variants.items()
    )
    return Table(columns, tuple(rows))
