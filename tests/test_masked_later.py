"""Points behind a mask, met after a plan or a line was made at others: sparse and prepared derivatives are right there.

A formula beside the one that is used is infinite, or NaN, at such a point. Reverse mode multiplies that by zero.
"""

import pytest
import torch
from torch.func import vmap
from torch.testing import assert_close

import funcdiff as fd
from funcdiff import prepare

GOOD = torch.linspace(0.5, 2, 6, dtype=torch.float64)
BEHIND = torch.tensor([0.7, -1.0, 0.5, -0.3, 2.0, -2.0], dtype=torch.float64)
KEPT = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
FUNCTIONS = {  # and the derivative and the second derivative of each entry
    "root": (
        lambda x: torch.where(x > 0, x.sqrt(), x**2),
        lambda x: torch.where(x > 0, 0.5 * x.abs() ** -0.5, 2 * x),
        lambda x: torch.where(x > 0, -0.25 * x.abs() ** -1.5, 2.0),
        BEHIND,
    ),
    "quotient": (
        lambda x: torch.where(x != 0, x**3 / x, x**2),
        lambda x: 2 * x,
        lambda x: 0 * x + 2,
        KEPT,
    ),
    "logarithm": (
        lambda x: torch.where(x > 0, x.log(), x - 1),
        lambda x: torch.where(x > 0, 1 / x, 1.0),
        lambda x: torch.where(x > 0, -1 / x**2, 0.0),
        BEHIND,
    ),
}
SPARSE = {"jacobian_sparse": fd.jacobian_sparse, "hessian_sparse": fd.hessian_sparse}
DENSE = {
    "jacobian": fd.jacobian,
    "hessian": fd.hessian,
    "hessian_diagonal": fd.hessian_diagonal,
    "torch.func.hessian": torch.func.hessian,
}


def asked(name, case):
    """The function whose derivative it is, and that derivative."""
    func, slope, bend, _ = FUNCTIONS[case]
    if "jacobian" in name:
        return func, lambda x: slope(x).diag()
    return lambda x: func(x).sum(), lambda x: bend(x) if "diagonal" in name else bend(x).diag()


@pytest.mark.parametrize("before", [[], [GOOD]])
@pytest.mark.parametrize("case", FUNCTIONS)
@pytest.mark.parametrize("name", SPARSE)
def test_sparse(name, case, before):
    func, truth = asked(name, case)
    derivative, at = SPARSE[name](func), FUNCTIONS[case][-1]
    for x in (*before, at, GOOD, at):
        assert_close(derivative(x).to_dense(), truth(x))


@pytest.mark.parametrize("case", FUNCTIONS)
@pytest.mark.parametrize("name", SPARSE)
def test_a_matrix_too_large_to_be_dense_is_refused_or_right(name, case, monkeypatch):
    monkeypatch.setattr("funcdiff._automatic.sparse_masked._MOST", 0)
    func, truth = asked(name, case)
    derivative, at = SPARSE[name](func), FUNCTIONS[case][-1]
    derivative(GOOD)
    if name == "hessian_sparse" and case != "logarithm":  # which is infinite nowhere
        with pytest.raises(RuntimeError, match="hessian_sparse is wrong on func"):
            derivative(at)
    else:
        assert_close(derivative(at).to_dense(), truth(at))


@pytest.mark.parametrize("case", FUNCTIONS)
@pytest.mark.parametrize("name", [*SPARSE, *DENSE])
def test_prepared(name, case):
    func, truth = asked(name, case)
    derivative = (SPARSE | DENSE)[name](func)
    prepared, at = prepare(derivative, GOOD), FUNCTIONS[case][-1]
    for x in (at, GOOD):
        if name == "torch.func.hessian":  # has no other recipe
            assert_close(prepared(x), derivative(x), equal_nan=True)
        else:
            assert_close(prepared(x).to_dense(), truth(x))


def test_prepared_rows():
    func, _, bend, at = FUNCTIONS["root"]
    rows = torch.stack([GOOD, GOOD + 1])
    prepared = prepare(vmap(fd.laplacian(lambda x: func(x).sum())), rows)
    assert_close(prepared(torch.stack([GOOD, at])), torch.stack([bend(GOOD).sum(), bend(at).sum()]))


def test_lines_that_divide_by_nothing_are_not_looked_at():
    assert not prepare(fd.jacobian(lambda x: torch.tanh(x) * x.exp()), GOOD)._line.watched
    assert prepare(fd.jacobian(torch.rsqrt), GOOD)._line.watched


def test_sparse_points_without_a_derivative_keep_their_nan():
    derivative = fd.jacobian_sparse(lambda x: torch.where(x == 0, 0, x * x.abs().log()))
    derivative(GOOD)
    assert derivative(KEPT).values().isnan().any()
