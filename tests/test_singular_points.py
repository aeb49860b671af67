"""Points without a second derivative: no name returns a finite number there that is not true, in any order of calls."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import vmap
from torch.testing import assert_close

import funcdiff as fd

ZERO = torch.zeros(2, dtype=torch.float64)
ONES = ZERO + 1
EYE = torch.eye(2, dtype=torch.float64)
REGULAR = torch.tensor([[0.7, -0.4], [0.3, 0.9]], dtype=torch.float64)
WAY = torch.tensor([1.0, 0.3], dtype=torch.float64)
CROSS = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)


def complex_of(x):
    return torch.complex(x[0], x[1])


def hydrogen(x):
    return torch.exp(-x.norm())


NONE = {  # no second derivative at the point
    "norm": (torch.linalg.vector_norm, ZERO),
    "a cusp": (hydrogen, ZERO),
    "norm as a method": (lambda x: x.norm(dim=0, keepdim=True)[0], ZERO),
    "linalg.norm": (lambda x: torch.linalg.norm(x[None]), ZERO),
    "matrix_norm": (lambda x: torch.linalg.matrix_norm(torch.outer(x, ONES)), ZERO),
    "norm of a shape": (lambda x: (x - ONES).norm() + x.square().sum(), ONES),
    "norm, p=3": (lambda x: torch.linalg.vector_norm(x, 3), ZERO),
    "norm, p=1.5": (lambda x: torch.linalg.vector_norm(x, 1.5), ZERO),
    "norm, p=1.5, one zero": (lambda x: torch.linalg.vector_norm(x, 1.5), torch.tensor([0.0, 1.0]).double()),
    "norm, p=-1": (lambda x: torch.linalg.vector_norm(x, -1), torch.tensor([0.0, 1.0]).double()),
    "cdist": (lambda x: torch.cdist(x[None], ZERO[None]).sum(), ZERO),
    "cdist, p=3": (lambda x: torch.cdist(x[None], ZERO[None], p=3).sum(), ZERO),
    "coinciding points": (lambda x: torch.cdist(x[:, None], x[:, None]).exp().sum(), ONES),
    "pdist": (lambda x: F.pdist(torch.stack([x, ZERO])).sum(), ZERO),
    "pairwise_distance": (lambda x: F.pairwise_distance(x, ONES, eps=0.0), ONES),
    "dist": (lambda x: torch.dist(x, ONES), ONES),
    "triplet_margin_loss": (
        lambda x: F.triplet_margin_loss(x[None], ZERO[None], 1 + ZERO[None], eps=0.0, margin=3.0),
        ZERO,
    ),
    "std": (lambda x: x.std() + x.square().sum(), ONES),
    "std of rows": (lambda x: torch.stack([x, x.sin()]).std(1).sum(), ONES),
    "std_mean": (lambda x: torch.std_mean(x, 0, correction=0)[0] + x.square().sum(), ZERO),
    "a root": (lambda x: x.square().sum().sqrt(), ZERO),
    "hypot": (lambda x: torch.hypot(x[0], x[1]), ZERO),
    "a power": (lambda x: x.pow(1.5).sum(), ZERO),
    "x to the x": (lambda x: x.pow(x + 1).sum(), ZERO),
    "xlogy": (lambda x: torch.xlogy(x, x).sum(), ZERO),
    "entr": (lambda x: torch.special.entr(x).sum(), ZERO),
    "atan2": (lambda x: torch.atan2(x[0], x[1]), ZERO),
    "abs of complex": (lambda x: complex_of(x).abs(), ZERO),
    "angle of complex": (lambda x: complex_of(x).angle(), ZERO),
    "sgn of complex": (lambda x: complex_of(x).sgn().real, ZERO),
    "eigenvalue": (lambda x: torch.linalg.eigvalsh(torch.diag(x) + x[0] * CROSS)[0], ZERO),
}
TRUE = {  # a second derivative that the formula may hide
    "norm squared": (lambda x: x.norm() ** 2, ZERO, 2 * EYE),
    "norm squared by a method": (lambda x: x.norm().square(), ZERO, 2 * EYE),
    "norm times itself": (lambda x: (r := x.norm()) * r, ZERO, 2 * EYE),
    "norm cubed": (lambda x: x.norm() ** 3, ZERO, 0 * EYE),
    "norm, p=4, to the fourth": (lambda x: torch.linalg.vector_norm(x, 4) ** 4, ZERO, 0 * EYE),
    "distance cubed": (lambda x: torch.cdist(x[None], ONES[None]).pow(3).sum(), ONES, 0 * EYE),
    "Gauss": (lambda x: torch.exp(-torch.cdist(x[None], ZERO[None]).square()).sum(), ZERO, -2 * EYE),
    "a clamped norm": (lambda x: x.norm().clamp(min=0.1) + x.square().sum(), ZERO, 2 * EYE),
    "normalize": (lambda x: F.normalize(x, dim=0, eps=1.0).sum() + x.square().sum(), ZERO, 2 * EYE),
    "self-distances": (
        lambda x: torch.cdist(x[:, None], x[:, None]).square().sum(),
        REGULAR[0],
        4 * (EYE - CROSS),
    ),
    "self-distances by norms": (
        lambda x: torch.stack([x, x.flip(0)]).sub(x).norm(dim=-1).pow(2).sum(),
        REGULAR[0],
        4 * (EYE - CROSS),
    ),
    "norm, p=2.5, one zero": (lambda x: torch.linalg.vector_norm(x, 2.5), torch.tensor([0.0, 1.0]).double(), 0 * EYE),
    "prod": (lambda x: x.prod(), ZERO, CROSS),
    "var": (lambda x: x.var(), ONES, EYE - CROSS),
    "x to the x": (lambda x: x.pow(x + 2).sum(), ZERO, 2 * EYE),
    "sinc": (lambda x: x.sinc().sum(), ZERO, -(math.pi**2) / 3 * EYE),
    "det": (lambda x: torch.linalg.det(torch.diag(x)), ZERO, CROSS),
    "eigenvalues": (lambda x: torch.linalg.eigvalsh(torch.diag(x)).square().sum(), ZERO, 2 * EYE),
}
KINKS = {  # with the second derivative 0 by torch's convention
    "relu": (lambda x: x.relu().sum(), ZERO),
    "abs": (lambda x: x.abs().sum(), ZERO),
    "max": (lambda x: x.max(), ZERO),
    "norm, p=1": (lambda x: torch.linalg.vector_norm(x, 1), ZERO),
    "norm, p=inf": (lambda x: torch.linalg.vector_norm(x, math.inf), torch.tensor([2.0, -2.0]).double()),
    "elu": (lambda x: F.elu(x).sum(), ZERO),
    "huber_loss": (lambda x: F.huber_loss(x, ONES), ZERO),
    "hardswish": (lambda x: F.hardswish(x).sum(), ZERO + 3),
}
CASES = {
    **{f"{name}: none": (func, x, None) for name, (func, x) in NONE.items()},
    **{f"{name}: true": case for name, case in TRUE.items()},
    **{f"{name}: kink": (func, x, 0 * EYE) for name, (func, x) in KINKS.items()},
}


def every_row(func):
    return lambda rows: torch.stack([func(row) for row in rows])


def in_rows(transform):
    return lambda func: vmap(transform(func), randomness="same")


def hvp(func):
    return lambda x: fd.hvp(func, (x,), (WAY,))


def operator(func):
    return lambda x: fd.hvp_operator(func, x)(WAY)


def whole(hessian):
    return hessian


def product(hessian):
    return hessian @ WAY


ALONE = {  # how, and what it is of the Hessian
    "hessian": (fd.hessian, whole),
    "hessian_taylor": (fd.hessian_taylor, whole),
    "hessian_diagonal": (fd.hessian_diagonal, torch.diagonal),
    "laplacian": (fd.laplacian, torch.trace),
    "hvp": (hvp, product),
    "hvp_operator": (operator, product),
}
BATCHES = {
    "batch_hessian": (fd.batch_hessian, whole),
    "batch_hessian_summed": (lambda func: fd.batch_hessian_summed(every_row(func)), whole),
    **{f"{name}, vmap": (in_rows(how), of) for name, (how, of) in ALONE.items()},
}


def result_of(derivative, x):
    """What it returns, or None if it refuses."""
    try:
        return derivative(x)
    except RuntimeError as refusal:
        if "no recipe is known" not in str(refusal):
            raise


def outcome(how, func, before, at):
    """The result of a call after one `before`."""
    fd.clear_plans()
    derivative = how(func)
    for x in before:
        result_of(derivative, x)
    return result_of(derivative, at)


def judge(results, of, hessian, *, seen=True):
    """Each is the truth where it is finite; and where the values can be `seen`, all are finite or none is."""
    for result in results:
        if hessian is None:
            assert result is None or not result.isfinite().all(), result
        elif result is not None:
            expected = of(hessian)
            finite = result.isfinite()
            assert_close(result[finite], expected[finite], rtol=1e-9, atol=1e-12)
    assert not seen or len({result is not None and bool(result.isfinite().all()) for result in results}) == 1, results


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("case", CASES)
def test_alone(case, name):
    func, x, hessian = CASES[case]
    how, of = ALONE[name]
    judge([outcome(how, func, before, x) for before in ([], [REGULAR[0]])], of, hessian)


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("case", CASES)
def test_in_a_batch(case, name):
    func, x, hessian = CASES[case]
    how, of = BATCHES[name]
    rows = torch.stack([REGULAR[0], x, REGULAR[1]])
    results = [outcome(how, func, before, rows) for before in ([], [REGULAR[[0, 1, 0]]])]
    results = [None if result is None else result[1] for result in results]
    judge(results, of, hessian, seen="vmap" not in name)


@pytest.mark.parametrize("name", ["norm", "cdist", "std", "atan2", "abs of complex"])
def test_first_derivatives_keep_torchs_convention(name):
    func, x = NONE[name]
    slope = torch.autograd.grad(func(x := x.clone().requires_grad_()), x)[0]
    x = x.detach()
    if name != "atan2":  # of which torch's two modes differ
        assert_close(fd.jacobian_operator(lambda x: func(x)[None], x)(WAY), (slope @ WAY)[None])
    assert_close(fd.jacobian(func)(x), slope)
    assert_close(fd.jacobian_operator(lambda x: func(x)[None], x).T(torch.ones(1).double()), slope)


@pytest.mark.parametrize("power", [torch.pow, torch.float_power, lambda a, b: a**b, lambda a, b: b.__rpow__(a)])
def test_a_power_of_exponent_zero_has_its_mixed_derivatives(power):
    def func(x):
        return power(x[0], x[1])

    x = torch.tensor([0.4, 0.0], dtype=torch.float64)
    expected = torch.tensor([[0.0, 2.5], [2.5, math.log(0.4) ** 2]], dtype=torch.float64)
    rows = torch.stack([x, torch.tensor([0.4, 1.0], dtype=torch.float64)])
    torch.testing.assert_close(fd.hessian_taylor(func)(x), expected)
    torch.testing.assert_close(fd.batch_hessian(func)(rows)[0], expected)
    for point in (rows[1], x):  # a plan of another point serves
        found = fd.hessian(func)(point), fd.hvp(func, (point,), (torch.ones_like(point),))
    torch.testing.assert_close(found, (expected, expected.sum(1)))


@pytest.mark.parametrize("of", ["norm squared", "norm cubed", "norm, p=4, to the fourth", "distance cubed"])
@pytest.mark.parametrize("name", ["hessian", "hessian_taylor", "hessian_diagonal", "laplacian"])
def test_powers_of_norms_have_their_second_derivatives(of, name):
    (func, x, hessian), (how, part) = TRUE[of], ALONE[name]
    for before in ([], [REGULAR[0]]):
        assert_close(outcome(how, func, before, x), part(hessian))


def test_a_norm_that_was_changed_in_place_is_no_norm():
    def func(x):
        length = x.norm()
        length += 1
        return length**2

    assert_close(fd.hessian_taylor(func)(REGULAR[0]), fd.hessian(lambda x: (x.norm() + 1) ** 2)(REGULAR[0]))


VANISHING = {  # norms that do not move at the point, where torch finds a second derivative of zero
    "norm of squares": lambda x: x.square().norm(),
    "distance of squares": lambda x: torch.cdist(x.square()[None], ZERO[None]).sum(),
}


@pytest.mark.parametrize("name", [*ALONE, "batch_hessian", "batch_hessian_summed", "laplacian, vmap"])
@pytest.mark.parametrize("of", VANISHING)
def test_a_norm_that_does_not_move_has_no_finite_answer(of, name):
    how, _ = (ALONE | BATCHES)[name]
    alone = name in ALONE
    at = ZERO if alone else torch.stack([REGULAR[0], ZERO, REGULAR[1]])
    for before in ([], [REGULAR[0] if alone else REGULAR[[0, 1, 0]]]):
        result = outcome(how, VANISHING[of], before, at)
        assert result is None or not (result if alone else result[1]).isfinite().all()


def test_true_zeros_of_norms_are_not_refused():
    def func(x):  # linear along a ray, and constant in a row of its own
        return x[:1].norm()

    for x in REGULAR:
        assert_close(fd.hessian(func)(x), 0 * EYE)
    assert_close(fd.batch_hessian(func)(REGULAR), torch.zeros(2, 2, 2, dtype=torch.float64))
