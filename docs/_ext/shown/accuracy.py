"""Every recipe against the derivatives written by hand, in float64: the tests assert it, and the site shows it.

In a page, `.. accuracy::` becomes a table of recipes by cases with the relative errors of this build.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from docutils import nodes
from sphinx.application import Sphinx
from torch import Tensor
from torch.func import vmap

from _ext.pages.computed import Computed
from _ext.pages.tables import table
from funcdiff import problems
from funcdiff.checks.registry import EXACT
from funcdiff.problems import Problem


class Case(NamedTuple):
    """A problem at a point."""

    name: str
    problem: Problem
    point: Tensor


def cases() -> list[Case]:
    """The problems, over shapes that are awkward in one way each."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    surface = Problem("surface", problems.surface, problems.surface_jacobian, problems.surface_hessian)
    sine = problems.sine_sum()
    return [
        Case("linear map, n < m", problems.linear_map(normal(5, 3)), normal(3)),
        Case("linear map, m = 1", problems.linear_map(normal(1, 4)), normal(4)),
        Case("tanh layer, n > m", problems.tanh_layer(normal(2, 5), normal(2)), normal(5)),
        Case("tanh layer, n = 1", problems.tanh_layer(normal(4, 1), normal(4)), normal(1)),
        Case("quadratic form", problems.quadratic_form(normal(4, 4)), normal(4)),
        Case("quadratic plus cubic", problems.quadratic_plus_cubic(normal(3, 3), normal(3)), normal(3)),
        Case("softmax cross-entropy", problems.softmax_cross_entropy(2), normal(5)),
        Case("two-layer network", problems.two_layers(normal(6, 4), normal(6), normal(3, 6)), normal(4)),
        Case("surface", surface, normal(2)),
        Case("sine sum of a number, shape ()", sine, normal()),
        Case("sine sum over two axes", sine, normal(2, 3)),
        Case("sine sum of nothing, shape (0,)", sine, normal(0)),
        Case("sine sum, axes swapped in memory", sine, normal(3, 2).T),
        Case("sine sum of every second entry", sine, normal(8)[::2]),
        Case("sine sum of an expanded number", sine, normal(1).expand(3)),
    ]


def trials(case: Case) -> Iterator[tuple[str, Tensor, Tensor]]:
    """For every recipe that fits the case: its name, what it gives, and the answer by hand."""
    problem, x = case.problem, case.point
    first, second = problem.jacobian(x), problem.hessian(x)
    output, n = first.shape[: first.dim() - x.dim()], x.numel()
    diagonal = second.reshape(*output, n, n).diagonal(dim1=-2, dim2=-1)
    matrix = first.reshape(first.shape[: first.dim() - x.dim()].numel(), n)
    rows = torch.stack([x, 0.5 * x, -x])
    answers = {
        "jacobian": first,
        "sparse_jacobian": first,
        "hessian": second,
        "diagonal": diagonal.reshape(first.shape),
        "laplacian": diagonal.sum(-1),
        "bilaplacian": diagonal.sum(-1),
        "operator_jacobian": first,
        "gram": (matrix.mT @ matrix).reshape((*x.shape, *x.shape)),
        "batch_jacobian": vmap(problem.jacobian)(rows),
        "batch_hessian": vmap(problem.hessian)(rows),
    }
    v = torch.linspace(-1, 2, n, dtype=x.dtype).reshape(x.shape)
    if not output:
        answers["sparse_hessian"] = second
        answers["product"] = answers["operator"] = answers["curvature"] = (second.reshape(n, n) @ v.reshape(n)).reshape(
            x.shape
        )
    for entry in EXACT:
        if entry.kind in answers:
            arguments = (rows,) if entry.kind.startswith("batch") else (x, v) if entry.takes_vector else (x,)
            yield entry.name, entry(problem.func, *arguments), answers[entry.kind]


def relative_error(got: Tensor, want: Tensor) -> float:
    """The largest error in units of the largest entry (of 1 where all are smaller); infinite for another shape."""
    if got.shape != want.shape:
        return float("inf")
    if not want.numel():
        return 0.0
    return float((got - want).abs().max() / want.abs().max().clamp(min=1.0))  # NaN stays NaN


def errors() -> dict[str, dict[str, float]]:
    """The relative error of each recipe, by recipe and case."""
    table: dict[str, dict[str, float]] = {}
    for case in cases():
        for recipe, got, want in trials(case):
            table.setdefault(recipe, {})[case.name] = relative_error(got, want)
    return table


def shown(error: float) -> str:
    """An error as the table has it: its order of magnitude, or that there is none."""
    return f"{error:.0e}" if error else "0"


class AccuracyTable(Computed):
    """`.. accuracy::`."""

    def compute(self) -> list[nodes.Node]:
        """A row for each recipe, a column for each case."""
        columns = [case.name for case in cases()]
        body = [
            [recipe, *(shown(row[column]) if column in row else "" for column in columns)]
            for recipe, row in errors().items()
        ]
        return [table(["recipe", *columns], body, [30, *(10 for _ in columns)], "accuracy")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("accuracy", AccuracyTable)
    return {"parallel_read_safe": True}
