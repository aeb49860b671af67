"""Writes into parts: in place where nobody sees it, and nowhere else."""

import pytest
import torch
from torch.testing import assert_close

import funcdiff as fd

X = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
HELD = torch.tensor([3.0, 1.0, -2.0], dtype=torch.float64)


def into(base, numbers):
    return torch.slice_scatter(base, numbers, 0, 1, 3)


UNSEEN = {
    "a tensor of its own": lambda x: into(x * 2, x[1:]),
    "twice": lambda x: into(into(x * 2, x[1:]), x[:2]).sin(),
    "one of its rows": lambda x: torch.select_scatter(x * 2, x[0], 0, 1),
    "by a view": lambda x: _added(x * 2, x),
}
SEEN = {
    "the old numbers are used later": lambda x: (a := x * 2) + into(a, x[1:]),
    "a view of them is used later": lambda x: _with_view(x * 2, x),
    "the numbers are a part of it": lambda x: into(a := x * 2, a[:2]),
    "both are results": lambda x: ((a := x * 2), into(a, x[1:])),
    "an argument": lambda x: into(x, x[:2]),
    "a view of an argument": lambda x: into(x.view(3, 1).view(3), x[:2] * 2),
    "a held tensor": lambda x: into(HELD, x[1:]),
    "a constant": lambda x: into(torch.arange(3, dtype=x.dtype), x[1:]),
    "all of it is constant": lambda x: x * into(torch.zeros(3, dtype=x.dtype), torch.ones(2, dtype=x.dtype)),
    "spread over the same memory": lambda x: into((x.sum() * 2).expand(3), x[1:]),
}


def _added(a, x):
    a[1:].add_(x[1:])
    return a.cos()


def _with_view(a, x):
    part = a[1:]
    return into(a, x[1:])[1:] + part


def kept_numbers(function, prepared):
    """Results of several calls, which leave arguments and what is held as they were."""
    for scale in (1.0, 2.0, -0.5):
        point = X * scale
        before = point.clone(), HELD.clone()
        assert_close(prepared(point), function(X * scale))
        assert_close((point, HELD), before)


@pytest.mark.parametrize("name", UNSEEN)
def test_a_write_that_nobody_sees_is_in_place(name):
    prepared = fd.prepare(UNSEEN[name], X)
    assert "copy_" in prepared.code
    assert "scatter" not in prepared.code
    kept_numbers(UNSEEN[name], prepared)


@pytest.mark.parametrize("name", SEEN)
def test_a_write_that_somebody_sees_is_not(name):
    prepared = fd.prepare(SEEN[name], X)
    assert "copy_" not in prepared.code
    kept_numbers(SEEN[name], prepared)


def test_a_line_that_carries_a_graph_writes_nothing_in_place():
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    function = lambda x: into((x * weight).sin(), x[1:]).square()  # noqa: E731  # read as the others
    prepared = fd.prepare(function, X)
    assert "copy_" not in prepared.code
    for made in (function, prepared):
        (gradient,) = torch.autograd.grad(made(X).sum(), weight)
        assert_close(gradient[1:], torch.zeros(2, dtype=torch.float64))


def test_the_hessian_of_a_network_with_many_outputs_copies_no_coefficient():
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.SiLU(), torch.nn.Linear(8, 8), torch.nn.SiLU())
    net = net.double().requires_grad_(False)
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)
    prepared = fd.prepare(fd.hessian_taylor(net), x)
    assert "slice_scatter" not in prepared.code
    assert "split" not in prepared.code
    assert_close(prepared(x + 1), fd.hessian_taylor(net)(x + 1))
