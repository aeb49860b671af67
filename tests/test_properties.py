"""What must hold for every function and point, on random two-layer networks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import HESSIANS, PRODUCTS, TRANSFORMS
from torch.testing import assert_close

import funcdiff as fd
from funcdiff.problems import two_layers

few = settings(max_examples=10, deadline=None, derandomize=True)
sizes = st.integers(1, 4)
seeds = st.integers(0, 2**16)


def network(n, m, seed):
    torch.manual_seed(seed)
    x, *parts = (torch.randn(s, dtype=torch.float64) for s in ((n,), (3, n), (3,), (m, 3)))
    return two_layers(*parts).func, x


def scalar(n, seed):
    func, x = network(n, 2, seed)
    return (lambda x: func(x).square().sum()), x


@few
@given(sizes, sizes, seeds)
def test_forward_and_reverse_mode_are_adjoint(n, m, seed):
    func, x = network(n, m, seed)
    u, v = torch.randn(m, dtype=x.dtype), torch.randn(n, dtype=x.dtype)
    assert_close(u @ (fd.jacobian_forward(func)(x) @ v), (fd.jacobian_reverse(func)(x).T @ u) @ v)


@few
@given(sizes, sizes, seeds, st.integers(1, 6))
def test_chunked_is_unchunked(n, m, seed, chunk_size):
    func, x = network(n, m, seed)
    for recipe in TRANSFORMS:
        assert_close(recipe(func, chunk_size=chunk_size)(x), recipe(func)(x), rtol=1e-12, atol=1e-12)


@few
@given(sizes, seeds)
def test_hessians_are_symmetric(n, seed):
    func, x = scalar(n, seed)
    for recipe in HESSIANS:
        hessian = recipe(func)(x)
        assert_close(hessian, hessian.T, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("recipe", PRODUCTS)
@few
@given(n=sizes, seed=seeds, a=st.floats(-3, 3))
def test_products_are_linear_and_equal_the_hessian_times_the_vector(recipe, n, seed, a):
    func, x = scalar(n, seed)
    u, v = torch.randn(2, n, dtype=x.dtype)
    product = lambda v: recipe(func, (x,), (v,))  # noqa: E731  # read where it stands
    assert_close(product(v), fd.hessian_forward_over_reverse(func)(x) @ v, rtol=1e-10, atol=1e-10)
    assert_close(product(a * u + v), a * product(u) + product(v), rtol=1e-10, atol=1e-10)


@few
@given(sizes, sizes, seeds, st.integers(1, 4))
def test_batched_is_a_loop_over_rows(n, m, seed, count):
    func, _ = network(n, m, seed)
    rows = torch.randn(count, n, dtype=torch.float64)
    for batched, single in (
        (fd.batch_jacobian, fd.jacobian_reverse),
        (fd.batch_hessian, fd.hessian_forward_over_reverse),
    ):
        assert_close(batched(func)(rows), torch.stack([single(func)(x) for x in rows]), rtol=1e-10, atol=1e-10)


@few
@given(sizes, sizes, seeds)
def test_double_precision_agrees_with_central_differences(n, m, seed):
    func, x = network(n, m, seed)
    steps = 1e-5 * torch.eye(n, dtype=x.dtype)
    differences = torch.stack([(func(x + e) - func(x - e)) / 2e-5 for e in steps], -1)
    assert_close(fd.jacobian_reverse(func)(x), differences, rtol=1e-6, atol=1e-6)
