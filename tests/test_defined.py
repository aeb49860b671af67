"""What torch defines otherwise than differences, or miscounts: right in every mode, also once more."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import vmap
from torch.testing import assert_close

import funcdiff as fd

INDICES = torch.tensor([[1, 0], [2, 1]])
WEIGHT = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2)
COLLIDING = torch.tensor([[[0, 3, 3, 1]]])  # the third entry overwrites the second
X = torch.tensor([0.3, 0.5, 0.7, 0.9], dtype=torch.float64)


def embedded(w):
    """Without the row of padding."""
    return F.embedding(INDICES, w, padding_idx=1).sin().reshape(-1)


def embedded_by_hand(w):
    held = torch.where(torch.arange(3)[:, None] == 1, w.detach(), w)
    return held[INDICES].sin().reshape(-1)


def unpooled(x):
    return F.max_unpool1d((x**2).reshape(1, 1, 4), COLLIDING, 2).sin().reshape(-1)


def unpooled_by_hand(x):
    none = 0 * x[0]
    return torch.stack([x[0] ** 2, x[3] ** 2, none, x[2] ** 2, none, none, none, none]).sin()


FUNCTIONS = {"padding": (embedded, embedded_by_hand, WEIGHT), "unpooling": (unpooled, unpooled_by_hand, X)}


@pytest.fixture(params=FUNCTIONS)
def case(request):
    """A function, the same by simpler operations, and a point."""
    return FUNCTIONS[request.param]


@pytest.mark.parametrize("repeats", [1, 40])  # few outputs ask for reverse mode, many for forward mode
def test_jacobians(case, repeats):
    func, by_hand, x = case
    expected = torch.autograd.functional.jacobian(lambda x: by_hand(x).repeat(repeats), x)
    rows = torch.stack([x + 1, x])
    assert_close(fd.jacobian(lambda x: func(x).repeat(repeats))(x), expected)
    assert_close(fd.batch_jacobian(lambda x: func(x).repeat(repeats))(rows)[1], expected)
    assert_close(vmap(fd.jacobian(lambda x: func(x).repeat(repeats)))(rows)[1], expected)


@pytest.mark.parametrize("transform", [fd.hessian, fd.hessian_taylor, fd.hessian_diagonal, fd.laplacian])
def test_second_derivatives(case, transform):
    func, by_hand, x = case
    assert_close(transform(func)(x), transform(by_hand)(x))
    assert_close(vmap(transform(func))(torch.stack([x + 1, x]))[1], transform(by_hand)(x))


def test_products(case):
    func, by_hand, x = case
    expected = torch.autograd.functional.hvp(lambda x: by_hand(x).sum(), x, x + 1)[1]
    assert_close(fd.hvp(lambda x: func(x).sum(), (x,), (x + 1,)), expected)
    assert_close(fd.hvp_operator(lambda x: func(x).sum(), x)(x + 1), expected)


@pytest.mark.parametrize("transform", [fd.jacobian, fd.hessian, fd.hessian_diagonal, fd.laplacian])
@pytest.mark.parametrize("in_a_batch", [False, True])
def test_once_more(case, transform, in_a_batch):
    func, by_hand, x = case

    def slope(func):
        point = x.clone().requires_grad_()
        found = vmap(transform(func))(torch.stack([x + 1, point]))[1] if in_a_batch else transform(func)(point)
        return torch.autograd.grad(found.square().sum(), point)[0]

    assert_close(slope(func), slope(by_hand))


def test_sinc_near_zero():
    """By the integral of cos(y t) over t from 0 to 1, differentiated under the integral."""
    x = torch.tensor([0.0, 4.4e-9, -1e-5, 0.01, 0.31, 0.32, 2.0, -5.5], dtype=torch.float64)
    t = torch.linspace(0, 1, 20001, dtype=torch.float64)

    def derivative(order):
        values = t**order * (math.pi * x[:, None] * t + order * math.pi / 2).cos()
        simpson = 4 / 3 * torch.trapezoid(values, t) - 1 / 3 * torch.trapezoid(values[:, ::2], t[::2])
        return math.pi**order * simpson

    assert_close(fd.hessian(torch.sinc)(x).sum((0, 1)), derivative(2))
    assert_close(fd.hessian_diagonal(torch.special.sinc)(x).sum(0), derivative(2))
    assert_close(fd.hvp(lambda x: x.sinc().sum(), (x,), (torch.ones_like(x),)), derivative(2))
    point = x.clone().requires_grad_()
    assert_close(torch.autograd.grad(fd.laplacian(lambda x: x.sinc().sum())(point), point)[0], derivative(3))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("transform", [fd.hessian_diagonal, fd.laplacian])
def test_what_func_captured_is_trained_inside_vmap(transform):
    """Forward over reverse of a Householder product, the first choice here, is wrong once more."""
    weight = torch.tensor([[1.0, 0.2], [0.3, 1.0], [0.1, -0.4]], dtype=torch.float64, requires_grad=True)
    points = torch.tensor([0.1, 0.2], dtype=torch.float64)

    def func(x):
        return torch.linalg.householder_product(weight + x * x, torch.full_like(weight[0], 0.5)).sin().sum()

    expected = [torch.autograd.functional.hessian(func, x, create_graph=True) for x in points]
    found = vmap(transform(func))(points)
    assert_close(torch.autograd.grad(found[1], weight), torch.autograd.grad(expected[1], weight))


@pytest.mark.parametrize("transform", [fd.hessian, fd.hessian_diagonal, fd.laplacian])
def test_rounding_accuses_nothing(transform):
    """In bfloat16 the values of this function are all zero near the point, its derivatives are not."""
    x = torch.tensor([0.5, 1.0], dtype=torch.bfloat16)

    def func(x):
        return (1 + 1e-3 * x.square()).log().sum()

    assert_close(transform(func)(x), transform(func)(x.double()).bfloat16(), rtol=0.05, atol=1e-5)
