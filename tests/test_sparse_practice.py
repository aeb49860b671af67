"""Sparse derivatives of functions from practice, against dense ones."""

import pytest
import torch
from sparse_practice import HESSIANS, JACOBIANS
from torch.testing import assert_close

import funcdiff as fd

WITHOUT_RULE = {"embedding bag"}
NOT_SPARSE = {"fft", "thomas", "cumsum", "searchsorted of a table"}  # all outputs depend on all, or most, inputs
ONCE = {"embedding bag"}  # torch has no second derivative
PASSES = {
    "finite volumes": 8,
    "elements by index_add": 5,
    "collocation": 4,
    "batched network": 2,
    "algebraic equations": 3,
    "bundle adjustment": 6,
    "convolution, dilated": 9,
    "average pooling": 4,
    "patches": 2,
    "groups": 3,
    "solve of blocks": 2,
}


def flattened(func, args):
    vector, unravel = fd.ravel(args)
    return lambda v: fd.ravel(func(*unravel(v)))[0], vector


@pytest.mark.parametrize("name", JACOBIANS)
def test_jacobians(name):
    func, args = JACOBIANS[name]
    want = torch.autograd.functional.jacobian(*flattened(func, args))
    transform = fd.jacobian_sparse(func, tuple(range(len(args))))
    assert_close(transform(*args).to_dense(), want)
    assert bool(fd.explain(transform, *args).sparse.unknown) == (name in WITHOUT_RULE)
    pattern = fd.jacobian_pattern(func, *args, argnums=tuple(range(len(args))))
    assert pattern.passes <= PASSES.get(name, pattern.passes)
    assert (pattern.passes == min(pattern.shape)) <= (name in NOT_SPARSE or min(pattern.shape) < 13)


def energy(func):
    return lambda *args: (fd.ravel(func(*args))[0].sin() + 2).square().sum()


@pytest.mark.parametrize("name", [*HESSIANS, *(name for name in JACOBIANS if name not in ONCE)])
def test_hessians(name):
    func, args = HESSIANS[name] if name in HESSIANS else (energy(JACOBIANS[name][0]), JACOBIANS[name][1])
    flat, vector = flattened(func, args)
    want = torch.autograd.functional.hessian(lambda v: flat(v).sum(), vector)
    transform = fd.hessian_sparse(func, tuple(range(len(args))))
    assert_close(transform(*args).to_dense(), want)
    assert not fd.explain(transform, *args).sparse.unknown
