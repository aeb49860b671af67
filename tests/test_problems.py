"""The derivatives written by hand are themselves right: against central differences of the level below."""

import pytest
import torch
from torch.testing import assert_close

from _ext.shown import accuracy
from funcdiff import problems

CASES = accuracy.cases()


def central_differences(func, x, step=1e-5):
    columns = []
    for k in range(x.numel()):
        e = torch.zeros(x.numel(), dtype=x.dtype)
        e[k] = step
        columns.append((func(x + e.reshape(x.shape)) - func(x - e.reshape(x.shape))) / (2 * step))
    return torch.stack(columns, -1).reshape(columns[0].shape + x.shape)


@pytest.mark.parametrize("case", [case for case in CASES if case.point.numel()], ids=lambda case: case.name)
def test_derivatives_by_hand_match_central_differences(case):
    problem, x = case.problem, case.point
    assert_close(problem.jacobian(x), central_differences(problem.func, x), rtol=1e-7, atol=1e-7)
    assert_close(problem.hessian(x), central_differences(problem.jacobian, x), rtol=1e-7, atol=1e-7)


def test_the_surface_takes_a_grid_at_once():
    grid = torch.cartesian_prod(torch.linspace(-2, 2, 4), torch.linspace(-1, 1, 3)).double().reshape(4, 3, 2)
    assert problems.surface(grid).shape == (4, 3, 3)
    assert_close(problems.surface_jacobian(grid)[2, 1], problems.surface_jacobian(grid[2, 1]))
    assert_close(problems.surface_hessian(grid)[2, 1], problems.surface_hessian(grid[2, 1]))
