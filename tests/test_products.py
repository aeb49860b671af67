"""The operator: one graph for many products, and SciPy's solvers on it."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import funcdiff as fd
from funcdiff.measure import count

X = torch.tensor([1.2, 0.7, -0.4, 1.1, 0.9], dtype=torch.float64)


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def rosenbrock_hessian(x):
    diagonal = torch.zeros_like(x)
    diagonal[:-1] += 1200 * x[:-1] ** 2 - 400 * x[1:] + 2
    diagonal[1:] += 200
    return torch.diag(diagonal) + torch.diag(-400 * x[:-1], 1) + torch.diag(-400 * x[:-1], -1)


def test_operator_calls_the_function_once_for_all_products():
    calls = []

    def counted(x):
        calls.append(1)
        return rosenbrock(x)

    hessian = fd.hvp_operator(counted, X)
    made = len(calls)
    assert_close(torch.stack([hessian(v) for v in torch.eye(5, dtype=X.dtype)]), rosenbrock_hessian(X))
    assert len(calls) == made


def test_operator_keeps_its_point():
    x = X.clone()
    hessian = fd.hvp_operator(rosenbrock, x)
    x.zero_()
    v = torch.ones_like(X)
    assert_close(hessian(v), rosenbrock_hessian(X) @ v)


@pytest.mark.parametrize("v", [torch.ones(1, dtype=X.dtype), torch.ones(5, 1, dtype=X.dtype)])
def test_operator_refuses_a_vector_that_would_broadcast(v):
    hessian = fd.hvp_operator(rosenbrock, X)
    with pytest.raises(ValueError, match="do not broadcast"):
        hessian(v)


def test_scipy_takes_the_operator():
    linalg = pytest.importorskip("scipy.sparse.linalg")
    hessian = fd.hvp_operator(rosenbrock, X)
    n = len(X)
    operator = linalg.LinearOperator((n, n), matvec=lambda v: hessian(torch.tensor(v).reshape(n)).numpy(), dtype=float)
    np.testing.assert_allclose(operator @ np.eye(n), rosenbrock_hessian(X).numpy(), rtol=1e-12, atol=1e-9)


def test_scipy_minimises_with_products():
    optimize = pytest.importorskip("scipy.optimize")
    found = optimize.minimize(
        lambda x: rosenbrock(torch.tensor(x)).item(),
        np.array([-1.2, 1.0, 0.5]),
        method="trust-ncg",
        jac=lambda x: fd.jacobian_batched_grad(rosenbrock)(torch.tensor(x)).numpy(),
        hessp=lambda x, v: fd.hvp_double_backward(rosenbrock, (torch.tensor(x),), (torch.tensor(v),)).numpy(),
    )
    assert found.success
    np.testing.assert_allclose(found.x, np.ones(3), atol=1e-6)


@pytest.mark.parametrize("product", [fd.hvp, fd.hvp_double_backward])
def test_primals_that_are_no_tuple(product):
    x = torch.ones(2)
    with pytest.raises(TypeError, match=r"expected primals to be a tuple .* Write \(x,\)"):
        product(lambda x: x.square().sum(), x, x)


def test_an_operator_keeps_a_graph_without_the_numbers_of_the_gradient():
    w = torch.ones(200, 200)
    rows = torch.ones(2, 200)

    def cosines(w):
        return (rows @ w).cos().sum()

    fd.hvp_operator(cosines, w)  # its plan is made
    peak = count(lambda v: fd.hvp_operator(cosines, w)(v), w).peak_bytes  # of the copy, and of the product
    assert peak < 2.2 * 4 * w.numel()
