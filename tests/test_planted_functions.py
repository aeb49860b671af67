"""Custom functions with a planted fault: no name lets it through, where the plan was made at points that hide it."""

import pytest
import torch
from planted_functions import FAULTY, RIGHT
from torch.func import vmap

import funcdiff as fd

WEIGHT = torch.tensor([[0.5, -0.3, 0.2], [0.1, 0.4, -0.6], [0.3, 0.2, 0.7], [-0.2, 0.9, 0.1]], dtype=torch.float64)
WAY = torch.tensor([0.4, -1.0, 0.3], dtype=torch.float64)
ROWS = torch.tensor([[0.3, -0.7, 1.1], [0.9, 0.2, -0.4], [1.3, 1.1, 0.8], [-0.5, 0.6, 1.2]], dtype=torch.float64)
HIDING = ROWS * torch.tensor([1e-6, 0.3, 0.3], dtype=torch.float64)  # the factor of what is planted is almost zero
ORDERS = [ROWS, ROWS.flip(0)]


def around(cube):
    """A function with one output; what is planted is a factor away."""
    return lambda x: x[0] ** 2 * cube(WEIGHT @ x).sum() + cube(WEIGHT @ x).sin().sum() * x[0] + x.sin().sum()


def several(cube):
    """The same with outputs."""
    return lambda x: torch.stack([around(cube)(x), x[0] * cube(x).sum()])


def jacobian(func):
    return lambda x: torch.autograd.functional.jacobian(func, x)


def hessian(func):
    return lambda x: torch.autograd.functional.hessian(func, x)


def diagonal(func):
    return lambda x: hessian(func)(x).diagonal()


def laplacian(func):
    return lambda x: hessian(func)(x).trace()


def product(func):
    return lambda x: hessian(func)(x) @ WAY


def each(func):
    return lambda rows: torch.stack([func(row) for row in rows])


def dense(transform):
    return lambda func: transform(func, layout=torch.strided)


ALONE = {  # how, and what it is
    "jacobian": (fd.jacobian, jacobian),
    "jacobian_sparse": (dense(fd.jacobian_sparse), jacobian),
    "hessian": (fd.hessian, hessian),
    "hessian_sparse": (dense(fd.hessian_sparse), hessian),
    "hessian_diagonal": (fd.hessian_diagonal, diagonal),
    "laplacian": (fd.laplacian, laplacian),
    "hvp": (lambda func: lambda x: fd.hvp(func, (x,), (WAY,)), product),
    "hvp_operator": (lambda func: lambda x: fd.hvp_operator(func, x)(WAY), product),
}
BATCHES = {
    "batch_jacobian": (fd.batch_jacobian, jacobian),
    "batch_hessian": (fd.batch_hessian, hessian),
    "batch_hessian_summed": (lambda func: fd.batch_hessian_summed(each(func)), hessian),
    **{f"{name}, vmap": (lambda func, how=how: vmap(how(func)), of) for name, (how, of) in ALONE.items()},
}
del BATCHES["jacobian_sparse, vmap"], BATCHES["hessian_sparse, vmap"]  # as `jacobian` and `hessian`


def judge(name, names, planted, before, at):
    """The result of a call after one `before` is the truth, or a refusal, which is returned."""
    how, of = names[name]
    form = several if of is jacobian else around
    fd.clear_plans()
    derivative = how(form(planted))
    truth = of(form(lambda x: x**3))
    expected = truth(at) if names is ALONE else each(truth)(at)
    try:
        derivative(before)
        result = derivative(at)
    except RuntimeError as refusal:
        return refusal
    torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-8)
    return None


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("fault", FAULTY)
def test_alone(fault, name):
    judge(name, ALONE, FAULTY[fault], HIDING[0], ROWS[2])


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("fault", FAULTY)
def test_in_a_batch(fault, name):
    for rows in ORDERS:
        judge(name, BATCHES, FAULTY[fault], HIDING, rows)


@pytest.mark.parametrize("name", [*ALONE, *BATCHES])
@pytest.mark.parametrize("function", RIGHT)
def test_what_is_right_is_not_refused(function, name):
    names = ALONE if name in ALONE else BATCHES
    before, at = (HIDING[0], ROWS[2]) if names is ALONE else (HIDING, ROWS)
    assert judge(name, names, RIGHT[function], before, at) is None


def test_a_forward_rule_that_is_wrong_at_later_points_is_not_used():
    def func(x):
        return torch.cat([FAULTY["forward mode in a branch"](x) * k for k in range(1, 40)])

    derivative = fd.jacobian(func)
    low, high = torch.full((3,), 0.3).double(), torch.full((3,), 1.3).double()
    for x in (low, high, low):
        torch.testing.assert_close(derivative(x), jacobian(func)(x))


def test_a_prepared_derivative_has_no_forward_rule_of_the_users():
    rows = fd.prepare(vmap(fd.laplacian(around(FAULTY["forward mode"]))), HIDING)
    torch.testing.assert_close(rows(ROWS), each(laplacian(around(lambda x: x**3)))(ROWS))
