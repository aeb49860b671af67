"""Whether a prepared line's gradients are compared where a difference shows, and are there where they are zero."""

import pytest
import torch
from torch.func import hessian, jacfwd, vmap
from torch.utils._pytree import tree_leaves

import funcdiff as fd
from funcdiff._prepared.checking import other_gradients


def no_slope(x):
    """The square of what is positive, without one of its two terms."""
    return [x.relu() * x.relu().detach()]


def small_entry(x):
    """The second entry of the gradient is half of what it should be, and tiny beside the first."""
    return [1e5 * x[0] ** 2 + x[1] * x[1].detach()]


def far_piece(x):
    return [torch.where(x > 0.7, x * x.detach(), x**2)]


CASES = {
    "zero at the example": (lambda x: [x.relu() ** 2], no_slope, [-0.5, -1.0]),
    "a small entry": (lambda x: [1e5 * x[0] ** 2 + x[1] ** 2], small_entry, [0.5, 0.5]),
    "another piece": (lambda x: [x**2], far_piece, [-0.1, 0.2]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_a_gradient_that_lacks_a_term_is_seen(case, dtype):
    func, lacking, point = CASES[case]
    example = torch.tensor(point, dtype=dtype, requires_grad=True)
    assert not other_gradients(func, func, [example], [])
    assert other_gradients(func, lacking, [example], [])


def test_a_line_that_fails_where_the_function_does_not_is_seen():
    def fails(x):
        if float(x.detach().abs().max()) > 0.9:
            raise ValueError("a piece that was not recorded")
        return [x**2]

    with pytest.raises(ValueError, match="not recorded"):
        other_gradients(lambda x: [x**2], fails, [torch.tensor([0.5], requires_grad=True)], [])


def test_where_the_function_is_not_defined_nothing_is_asked():
    def picky(x):
        if float(x.detach().abs().max()) > 0.9:
            raise ValueError("out of range")
        return [x**2]

    assert not other_gradients(picky, picky, [torch.tensor([0.5], requires_grad=True)], [])


A = torch.rand(3, 3, dtype=torch.float64)
CONSTANT = {
    "Jacobian": jacfwd(lambda x: x @ A),
    "Hessian": hessian(lambda x: (x @ A @ x).sum()),
    "of several rows": lambda x: vmap(jacfwd(lambda y: y @ A))(x[None]),
    "one of two results": lambda x: (jacfwd(lambda y: y @ A)(x), x.sin()),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_a_gradient_that_is_zero_is_zero_rather_than_an_error(name):
    x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    expected, found = (tree_leaves(f(x)) for f in (CONSTANT[name], fd.prepare(CONSTANT[name], x)))
    assert [one.requires_grad for one in expected] == [one.requires_grad for one in found]
    for pair in zip(expected, found, strict=True):
        torch.testing.assert_close(*(torch.autograd.grad(one.sum(), x)[0] for one in pair if one.requires_grad))


def test_what_the_function_is_not_connected_to_stays_unconnected():
    layer, x = torch.nn.Linear(3, 2), torch.rand(3, requires_grad=True)
    found = fd.prepare(fd.jacobian(layer), x)(x)
    assert torch.autograd.grad(found.sum(), [x, layer.bias], allow_unused=True) == (None, None)
