"""The first result of a plan, held against differences: faults are found, and what is right is never accused."""

import pytest
import torch
import torch.nn.functional as F
from custom_functions import Cubed
from reading import told
from torch import nn
from torch.func import vmap
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._safety.lines import direction
from funcdiff._safety.verification import check, check_product
from funcdiff._torch.tape import sketch

WEIGHT = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
X = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)


def found(func, derivative, kind, x=X):
    return check(func, [x], [derivative], kind, sketch(func, [x])).outcome


SMOOTH = {
    "tanh layer": lambda x: torch.tanh(WEIGHT.to(x) @ x),
    "softmax": lambda x: torch.softmax(WEIGHT.to(x) @ x, 0),
    "product": lambda x: x.prod() * x.exp(),
    "constant": lambda x: x.detach() * 0 + 1,
    "linear": lambda x: 3 * x,
    "large numbers": lambda x: 1e8 + x.square(),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_right_is_not_accused(name, dtype):
    func, x = SMOOTH[name], X.to(dtype)
    assert found(func, fd.jacobian_loop(func)(x), "jacobian", x) != "wrong"
    if dtype != torch.bfloat16:
        assert found(func, fd.hessian_double_backward(func)(x), "hessian", x) != "wrong"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("fault", [torch.zeros_like, lambda block: 1.3 * block, torch.neg, lambda block: block.flip(0)])
@pytest.mark.parametrize("name", ["tanh layer", "softmax", "product"])
def test_what_is_wrong_is_accused(name, fault, dtype):
    func, x = SMOOTH[name], X.to(dtype)
    assert found(func, fault(fd.jacobian_loop(func)(x)), "jacobian", x) == "wrong"
    assert found(func, fault(fd.hessian_double_backward(func)(x)), "hessian", x) == "wrong"


MEANT = {
    "a kink at the point": (lambda x: (x - X).abs() + (x - X).relu(), X),
    "a detached factor": (lambda x: x * x.norm().detach(), X),
    "a number taken out": (lambda x: x * float(x.detach().norm()), X),
    "a straight-through estimator": (lambda x: x + (x.round() - x).detach(), X),
    "rounding": (lambda x: x.round() * x, X),
    "a root at zero": (lambda x: x.abs().sqrt(), torch.zeros(3)),
}


@pytest.mark.parametrize("name", MEANT)
def test_kinks_and_meant_constants_are_not_accused(name):
    func, x = MEANT[name]
    assert found(func, fd.jacobian_loop(func)(x), "jacobian", x) != "wrong"


def test_a_plan_does_not_claim_differences_that_it_overruled():
    transform = fd.jacobian(lambda x: x * x.norm().detach())
    transform(X)
    assert "what func holds constant stays as it is" in told(fd.explain(transform, X))
    assert "agrees with differences of func" not in told(fd.explain(transform, X))


def test_a_product_on_the_meta_device_has_a_shape_and_no_check():
    x = torch.empty(3, device="meta")
    product = fd.hvp(lambda x: x.pow(3).sum(), (x,), (x,))
    assert product.is_meta
    assert product.shape == (3,)


# Rows of a batch

ROWS = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3 * torch.eye(3)
DETERMINANTS = {
    "slogdet": lambda a: torch.linalg.slogdet(a)[1],
    "logdet": lambda a: torch.logdet(a @ a.mT),
    "det": torch.linalg.det,
    "solve": lambda a: torch.linalg.solve(a, torch.ones(3, dtype=a.dtype)).sum(),
    "inverse": lambda a: torch.linalg.inv(a).square().sum(),
}


@pytest.mark.parametrize("name", DETERMINANTS)
def test_every_row_of_a_batch_is_right(name):
    func = DETERMINANTS[name]
    expected = torch.stack([torch.autograd.functional.hessian(func, a) for a in ROWS])
    assert_close(fd.batch_hessian(func)(ROWS), expected)
    assert_close(vmap(fd.hessian(func))(ROWS), expected)
    diagonal = expected.reshape(4, 9, 9).diagonal(dim1=1, dim2=2)
    assert_close(vmap(fd.laplacian(func))(ROWS), diagonal.sum(1))
    assert_close(vmap(fd.hessian_diagonal(func))(ROWS).reshape(4, 9), diagonal)


@pytest.mark.parametrize("name", DETERMINANTS)
def test_training_through_a_laplacian(name):
    a = ROWS[1].clone().requires_grad_()

    def traced(a):
        return torch.autograd.functional.hessian(DETERMINANTS[name], a, create_graph=True).reshape(9, 9).trace()

    (got,) = torch.autograd.grad(fd.laplacian(DETERMINANTS[name])(a), a)
    assert_close(got, torch.autograd.grad(traced(a), a)[0])


def test_rows_under_autocast_do_not_mix():
    torch.manual_seed(0)
    net, rows = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = fd.batch_jacobian_summed(net)(rows)
    assert_close(got, fd.batch_jacobian(net)(rows), rtol=0, atol=0.05)


def test_attention_has_a_product():
    q = torch.randn(1, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def written(q):
        return (torch.softmax(q @ q.mT / 2, -1) @ q).square().sum()

    got = fd.hvp(lambda q: F.scaled_dot_product_attention(q, q, q).square().sum(), (q,), (q,))
    assert_close(got, torch.autograd.functional.hvp(written, q, q)[1])


@pytest.mark.parametrize("share", [1.01, 1.03])
def test_what_func_rounds_is_not_held_against_a_derivative_of_a_custom_function(share):
    def func(x):
        return 1 + 2**-17 * Cubed.apply(x).sum()

    point = [torch.tensor([0.5, -0.8, 1.1])]
    along, weights = direction(point), [torch.ones(())]
    product = [share * 6 * 2**-17 * point[0] * along[0]]
    found = check_product(func, point, along, weights, product, sketch(func, point))
    assert found.outcome == "undecided"
