"""Laplacians with weights, factors and random directions, and the bilaplacian, against derivatives by hand."""

import pytest
import torch
from torch.func import vmap
from torch.testing import assert_close

import funcdiff as fd
from funcdiff.measure import count

X = torch.tensor([0.4, -1.1, 0.7], dtype=torch.float64)
ROWS = torch.stack([X, X.cos(), -X])
W = torch.tensor([[1.0, 0.5, -2.0], [0.3, -1.0, 0.2], [0.1, 0.4, 0.7]], dtype=torch.float64)
L = torch.tensor([[1.0, 0.5], [0.0, 2.0], [-1.0, 0.3]], dtype=torch.float64)


def func(x):
    return torch.stack([x[0] ** 4 + x[0] ** 2 * x[1] ** 2, torch.sin(x[0] + 2 * x[1] - x[2])])


def hessian(x):
    a = torch.tensor([1.0, 2.0, -1.0], dtype=x.dtype)
    first = torch.zeros(3, 3, dtype=x.dtype)
    first[0, 0], first[1, 1] = 12 * x[0] ** 2 + 2 * x[1] ** 2, 2 * x[0] ** 2
    first[0, 1] = first[1, 0] = 4 * x[0] * x[1]
    return torch.stack([first, -torch.sin(x @ a) * torch.outer(a, a)])


def weighted(x, weights):
    return torch.einsum("kij,ij->k", hessian(x), weights)


@pytest.mark.parametrize("weights", [W, W + W.T, L @ L.T, -L @ L.T, torch.diag(X), 0 * W], ids=str)
def test_weights_by_hand(weights):
    assert_close(fd.laplacian(func, weights=weights)(X), weighted(X, weights))
    rows = vmap(fd.laplacian(func, weights=weights))(ROWS)
    assert_close(rows, torch.stack([weighted(x, weights) for x in ROWS]))


def test_a_factor_by_hand():
    assert_close(fd.laplacian(func, factor=L)(X), weighted(X, L @ L.T))
    assert_close(fd.laplacian(lambda s, x: s * func(x), 1, factor=L, chunk_size=1)(2.0, X), 2 * weighted(X, L @ L.T))
    rows = vmap(lambda x: fd.laplacian(func, factor=L * x[0])(x))(ROWS)
    assert_close(rows, torch.stack([weighted(x, L @ L.T) * x[0] ** 2 for x in ROWS]))


def test_several_arguments_and_aux():
    def split(a, b):
        return func(torch.cat([a, b])), a

    value, aux = fd.laplacian(split, (0, 1), weights=W, has_aux=True)(X[:1], X[1:])
    assert_close(value, weighted(X, W))
    assert_close(aux, X[:1])


def test_weights_and_factors_can_be_trained():
    for name, given, expected in (("weights", W, hessian(X)[1]), ("factor", L, 2 * hessian(X)[1] @ L)):
        leaf = given.clone().requires_grad_()
        fd.laplacian(func, **{name: leaf})(X)[1].backward()
        assert_close(leaf.grad, expected)


def test_the_cost_is_that_of_the_directions():
    net = torch.nn.Sequential(torch.nn.Linear(50, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)).requires_grad_(False)
    x, factor = torch.ones(50), torch.ones(50, 3)
    costs = count(
        {
            "plain": fd.laplacian(net),
            "factor": fd.laplacian(net, factor=factor),
            "samples": fd.laplacian(net, samples=3),
        },
        x,
    )
    for name in ("factor", "samples"):
        assert costs[name].flops < costs["plain"].flops / 8


def test_samples_are_right_on_average_and_repeated():
    def sampled(seed, **options):
        return fd.laplacian(func, samples=4, generator=torch.Generator().manual_seed(seed), **options)(X)

    assert torch.equal(sampled(3), sampled(3))
    for options, weights in (({}, torch.eye(3, dtype=X.dtype)), ({"factor": L}, L @ L.T), ({"weights": W}, W)):
        draws = torch.stack([sampled(seed, **options) for seed in range(400)])
        error = draws.std(0) / 20
        assert ((draws.mean(0) - weighted(X, weights)).abs() <= 4 * error + 1e-9).all()


def test_the_bilaplacian_by_hand():
    # 24 + 8 for the polynomial; for the sine of a.x it is |a|^4 times the sine.
    expected = torch.stack([torch.tensor(32.0).double(), 36 * torch.sin(X[0] + 2 * X[1] - X[2])])
    assert_close(fd.bilaplacian(func)(X), expected)
    assert_close(vmap(fd.bilaplacian(func))(ROWS)[0], expected)
    value, aux = fd.bilaplacian(lambda x: (func(x), x), has_aux=True)(X)
    assert_close(value, expected)
    assert_close(aux, X)


def test_the_sampled_bilaplacian_is_right_on_average_and_repeated():
    def sampled(seed, samples):
        return fd.bilaplacian(func, samples=samples, generator=torch.Generator().manual_seed(seed))(X)

    assert torch.equal(sampled(1, 5), sampled(1, 5))
    draws = torch.stack([sampled(seed, 400) for seed in range(100)])
    assert ((draws.mean(0) - fd.bilaplacian(func)(X)).abs() <= 4 * draws.std(0) / 10).all()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"weights": W, "factor": L}, ValueError, "got both"),
        ({"weights": L}, ValueError, r"shape \(3, 3\)"),
        ({"factor": L.T}, ValueError, r"shape \(3, r\)"),
        ({"factor": L.float()}, TypeError, "dtype"),
        ({"weights": 2.0}, TypeError, "got a float"),
        ({"samples": 0}, ValueError, "samples"),
    ],
)
def test_bad_options_are_refused(options, error, text):
    with pytest.raises(error, match=text):
        fd.laplacian(func, **options)(X)
