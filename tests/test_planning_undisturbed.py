"""The planner disturbs nothing: what func holds, raises, compiles or counts is as without it."""

import threading

import pytest
import torch
from torch.testing import assert_close

import funcdiff as fd
from funcdiff.measure import count

WEIGHT = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
X = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)


def test_a_gradient_inside_the_function():
    def force(x):
        x = x if x.requires_grad else x.requires_grad_()
        return -torch.autograd.grad((x**4).sum(), x, create_graph=True)[0]

    assert_close(fd.jacobian(force)(X), torch.diag(-12 * X**2))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")  # torch says so of each
@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo])
def test_constant_sparse_matrices(layout):
    sparse = WEIGHT.to_sparse_csr() if layout is torch.sparse_csr else WEIGHT.to_sparse()
    y = WEIGHT @ X
    assert_close(fd.jacobian(lambda x: torch.sin(sparse @ x))(X), y.cos()[:, None] * WEIGHT)
    laplacian = fd.laplacian(lambda x: torch.sin(sparse @ x).sum())(X)
    assert_close(laplacian, -(y.sin() * WEIGHT.square().sum(1)).sum())


@pytest.mark.parametrize("write", [lambda kept, x: torch.mul(x, 2, out=kept), lambda kept, x: kept.copy_(x)])
def test_writes_into_what_was_captured_are_refused_before_they_happen(write):
    kept = torch.zeros(3, dtype=torch.float64)

    def func(x):
        write(kept, x.detach())
        return x * kept.sum()

    with pytest.raises(RuntimeError, match="captured"):
        fd.jacobian(func)(X)
    assert kept.eq(0).all()


def test_a_bug_in_the_function_is_raised_once_as_it_is():
    calls = []

    def func(x):
        calls.append(1)
        return {}["missing"] * x

    for transform in (fd.jacobian, fd.hessian, fd.laplacian):
        calls.clear()
        with pytest.raises(KeyError, match="missing"):
            transform(func)(X)
        assert len(calls) == 1


def test_planning_and_checking_are_not_counted():
    first, second = (count(fd.hessian(lambda x: torch.tanh(WEIGHT @ x).sum()), X) for _ in range(2))
    assert first.operations == second.operations


def test_what_is_compiled_is_run_eagerly_by_all_threads_and_compiled_again_afterwards():
    from torch._dynamo import eval_frame

    compiled, before = torch.compile(lambda x: x**3, backend="eager"), eval_frame._stance
    transform = fd.jacobian(lambda x: compiled(WEIGHT @ x).sum())  # in reverse: forward mode has no threads
    results = []
    transform(X)
    threads = [threading.Thread(target=lambda: results.append(transform(X))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert eval_frame._stance == before
    assert len(results) == 8
