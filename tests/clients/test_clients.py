"""Code that nobody here wrote: right, or refused."""

import curvlinops
import pytest
import torch
import torch.nn.functional as F
import torchdiffeq
from torch import nn
from torch.testing import assert_close

import funcdiff as fd

DOUBLE = torch.float64
X = torch.tensor([0.5, 0.2], dtype=DOUBLE)
TIMES = torch.linspace(0, 1, 3, dtype=DOUBLE)


class Field(nn.Module):
    """A vector field."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 2, dtype=DOUBLE)

    def forward(self, t, y):
        return torch.tanh(self.layer(y))


FIELD = Field()


def by_steps(x):
    """Runge and Kutta's method in 40 small steps of torch's own operations."""
    h = 1 / 40
    for _ in range(40):
        a = FIELD(0, x)
        b = FIELD(0, x + h / 2 * a)
        c = FIELD(0, x + h / 2 * b)
        x = x + h / 6 * (a + 2 * b + 2 * c + FIELD(0, x + h * c))
    return x


def solved(x, method="dopri5"):
    return torchdiffeq.odeint(FIELD, x, TIMES, method=method, rtol=1e-9, atol=1e-9)[-1]


def solved_by_adjoint(x):
    return torchdiffeq.odeint_adjoint(FIELD, x, TIMES, rtol=1e-9, atol=1e-9)[-1]


@pytest.mark.parametrize("transform", [fd.jacobian, fd.hessian, fd.laplacian, fd.hessian_diagonal])
def test_a_solver_of_differential_equations(transform):
    assert_close(transform(solved)(X), transform(by_steps)(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transform", [fd.batch_jacobian, fd.batch_hessian])
def test_a_solver_row_by_row(transform):
    rows = torch.stack([X, 2 * X])
    expected = torch.stack([transform(by_steps)(row[None])[0] for row in rows])
    assert_close(transform(solved)(rows), expected, rtol=1e-4, atol=1e-5)


def test_an_adjoint_has_a_first_derivative_and_no_second():
    assert_close(fd.jacobian(solved_by_adjoint)(X), fd.jacobian(by_steps)(X), rtol=1e-4, atol=1e-5)
    for second in (
        lambda: fd.hessian(solved_by_adjoint)(X),
        lambda: fd.laplacian(solved_by_adjoint)(X),
        lambda: fd.batch_hessian(solved_by_adjoint)(X[None]),
        lambda: fd.hvp(lambda x: solved_by_adjoint(x).sum(), (X,), (X,)),
        lambda: fd.hvp_operator(lambda x: solved_by_adjoint(x).sum(), X),
    ):
        with pytest.raises(RuntimeError, match="OdeintAdjointMethod"):
            second()


def test_curvlinops_has_the_same_hessian():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.rand(6, 3, dtype=DOUBLE), torch.rand(6, 2, dtype=DOUBLE)
    func, parameters = fd.module_function(net)
    vector, unravel = fd.ravel(parameters)
    operator = curvlinops.HessianLinearOperator(net, nn.MSELoss(), list(net.parameters()), [(x, y)])
    theirs = torch.stack([operator @ axis for axis in torch.eye(len(vector), dtype=DOUBLE)], 1)
    ours = fd.hvp_operator(lambda v: F.mse_loss(func(unravel(v), x), y), vector)
    assert_close(torch.stack([ours(axis) for axis in torch.eye(len(vector), dtype=DOUBLE)]), theirs)


class Attention(nn.Module):
    """A classifier with a transformer's layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.layer(x)).mean(1)


def convolutions():
    first = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
    second = nn.Conv2d(4, 4, 2), nn.GroupNorm(2, 4), nn.SiLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize(("make", "shape"), [(Attention, (2, 5, 8)), (convolutions, (2, 1, 8, 8))])
def test_products_with_the_hessian_of_a_networks_loss(make, shape):
    torch.manual_seed(0)
    net, x = make().double().eval(), torch.rand(shape, dtype=DOUBLE)
    func, parameters = fd.module_function(net)
    direction = {name: torch.randn_like(value) for name, value in parameters.items()}

    def loss(parameters):
        return F.cross_entropy(func(parameters, x), torch.tensor([0, 2]))

    def gradient(h):
        moved = {name: (p + h * direction[name]).detach().requires_grad_() for name, p in parameters.items()}
        return torch.autograd.grad(loss(moved), list(moved.values()))

    h = 1e-5
    expected = [(ahead - behind) / (2 * h) for ahead, behind in zip(gradient(h), gradient(-h), strict=True)]
    for product in (fd.hvp(loss, (parameters,), (direction,)), fd.hvp_operator(loss, parameters)(direction)):
        assert_close(list(product.values()), expected, rtol=1e-4, atol=1e-6)
    rows = fd.batch_jacobian(lambda row: net(row[None])[0])(x)
    assert_close(rows, torch.stack([fd.jacobian_loop(lambda row: net(row[None])[0])(row) for row in x]))
