"""How wrong an approximation and its derivatives are: relative errors, and one table by order and region."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from funcdiff._tables import Table, significant


def relative_error(approximation: Tensor, exact: Tensor, *, eps: float = 1e-2) -> Tensor:
    """Compute the relative error of each entry, `(approximation - exact) / (|exact| + eps)`.

    The error has a sign, and it is finite if the exact value is zero. It is relative to the exact value if that is much
    larger than `eps`, and to `eps` if it is smaller.

    Example:
        >>> import torch
        >>> from funcdiff.errors import relative_error
        >>> relative_error(torch.tensor([1.5, 0.5]), torch.tensor([1.0, 0.0]), eps=0.25)
        tensor([0.4000, 2.0000])
    """
    return (approximation - exact) / (exact.abs() + eps)


def near_edge(x: Tensor, low: Tensor, high: Tensor, *, margin: float = 0.1) -> Tensor:
    """Find the points near the edge of a box.

    Example:
        >>> import torch
        >>> from funcdiff.errors import near_edge
        >>> near_edge(torch.tensor([[0.5], [0.95]]), torch.tensor([0.0]), torch.tensor([1.0]))
        tensor([False,  True])

    Args:
        x: The points, of shape (..., inputs).
        low: The lower corner of the box.
        high: The upper corner of the box.
        margin: What counts as near, as a part of the width of the box.

    Returns:
        A boolean for each point, of shape (...).
    """
    depth = torch.minimum(x - low, high - x) / (high - low)
    return (depth < margin).any(-1)


def rms(error: Tensor) -> float:
    """Compute the root mean square over all entries.

    Example:
        >>> import torch
        >>> from funcdiff.errors import rms
        >>> rms(torch.tensor([1.0, -7.0]))
        5.0
    """
    return error.square().mean().sqrt().item()


def error_table(pairs: Mapping[str, tuple[Tensor, Tensor]], regions: Mapping[str, Tensor]) -> Table:
    """Show the errors of several quantities in several regions: the root mean square and the 99th percentile.

    Example:
        >>> import torch
        >>> from funcdiff.errors import error_table
        >>> exact = torch.tensor([1.0, 2.0])
        >>> error_table({"value": (exact + 0.5, exact)}, {"all": exact > 0})
        quantity  region  points  RMS error  99th percentile  RMS of exact  RMS error / RMS of exact
        --------  ------  ------  ---------  ---------------  ------------  ------------------------
        value        all       2      0.500            0.500          1.58                     0.316

    Args:
        pairs: A dictionary from the name of a quantity to its approximation and its exact values, of shape `(*points,
            ...)`.
        regions: A dictionary from the name of a region to a boolean for each point, of shape `(*points,)`.

    Returns:
        A table of the absolute errors, the root mean square of the exact values, and the quotient of both.
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
    """Compare the errors of several approximations, each divided by the root mean square of the exact values.

    Example:
        >>> import torch
        >>> from funcdiff.errors import variant_table
        >>> exact = torch.tensor([3.0, 4.0])
        >>> variant_table({"close": {"value": (1.125 * exact, exact)}, "zero": {"value": (0 * exact, exact)}})
        RMS error / RMS of exact  value
        ------------------------  -----
        close                     0.125
        zero                       1.00

    Args:
        variants: A dictionary from the name of an approximation to its quantities, as `error_table` takes them. All
            approximations have the same quantities.

    Returns:
        A table with one row for each approximation.
    """
    columns = ("RMS error / RMS of exact", *next(iter(variants.values())))
    rows = (
        (name, *(significant(rms(found - exact) / rms(exact)) for found, exact in pairs.values()))
        for name, pairs in variants.items()
    )
    return Table(columns, tuple(rows))
