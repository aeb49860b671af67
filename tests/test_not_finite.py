"""Functions of which a formula divides by zero: a derivative is finite and right, or refused, in any order of points.

Each function has a twin that computes the same from what is left of it once the zeros are gone.
"""

import math
import random
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch.func import vmap
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._safety.lines import direction

LOWER, UPPER = torch.tril_indices(3, 3, -1)
DIAGONAL = torch.eye(3, dtype=torch.bool)
CAUSAL = torch.ones(3, 3, dtype=torch.bool).tril()


def drawn(seed, *shape):
    """As a user draws a point, from torch's own generator."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.randn(shape, dtype=torch.float64)


def apart(p):
    return p[:, None] - p[None]


def pairs(of_square):
    """What a function of the squared distance adds up to, each pair counted twice."""
    return lambda p: 2 * of_square((p[LOWER] - p[UPPER]).square().sum(-1)).sum()


def attention(x):
    return (x.masked_fill(~CAUSAL, -torch.inf).softmax(-1) @ x).square().sum()


def attention_by_rows(x):
    return torch.stack([x[i, : i + 1].softmax(-1) @ x[: i + 1] for i in range(3)]).square().sum()


def sinc(x):
    """As many write it, the formula at 0 beside the other."""
    return torch.where(x.abs() < 1e-6, 1 - x.square() / 6, x.sin() / x).sum()


def sinc_by_series(x):
    return sum((-1) ** k * x.pow(2 * k) / float(math.factorial(2 * k + 1)) for k in range(16)).sum()


POINTS = [drawn(seed, 3, 2) for seed in (0, 1, 2)]
NUMBERS = [*(drawn(seed, 4) for seed in (0, 1)), drawn(2, 4).abs() + 0.1, -drawn(3, 4).abs() - 0.1]
FAMILY = {
    "norms": (lambda p: apart(p).norm(dim=-1).sum(), pairs(torch.sqrt), POINTS),
    "roots": (lambda p: apart(p).square().sum(-1).sqrt().sum(), pairs(torch.sqrt), POINTS),
    "distances": (lambda p: torch.cdist(p, p).sum(), pairs(torch.sqrt), POINTS),
    "Gauss": (lambda p: (-torch.cdist(p, p).square()).exp().sum(), pairs(lambda d: (-d).exp()), POINTS),
    "Matern": (
        lambda p: ((1 + torch.cdist(p, p)) * (-torch.cdist(p, p)).exp()).sum(),
        pairs(lambda d: (1 + d.sqrt()) * (-d.sqrt()).exp()),
        POINTS,
    ),
    "hypot": (lambda p: torch.hypot(*apart(p).unbind(-1)).sum(), pairs(torch.sqrt), POINTS),
    "a power": (
        lambda p: apart(p).abs().pow(1.5).sum(),
        lambda p: 2 * (p[LOWER] - p[UPPER]).abs().pow(1.5).sum(),
        POINTS,
    ),
    "Coulomb, masked": (
        lambda p: (1 / apart(p).norm(dim=-1)).masked_fill(DIAGONAL, 0.0).sum(),
        pairs(torch.rsqrt),
        POINTS,
    ),
    "Lennard-Jones, far from itself": (
        lambda p: apart(p).norm(dim=-1).masked_fill(DIAGONAL, torch.inf).pow(-6).sum(),
        pairs(lambda d: d.pow(-3)),
        POINTS,
    ),
    "Lennard-Jones, with ones": (
        lambda p: (apart(p).norm(dim=-1) + DIAGONAL).pow(-6).sum(),
        pairs(lambda d: d.pow(-3)),
        POINTS,
    ),
    "cosines": (
        lambda p: F.cosine_similarity(p[:, None], p[None], dim=-1).sum(),
        lambda p: (p / p.square().sum(-1, keepdim=True).sqrt()).sum(0).square().sum(),
        POINTS,
    ),
    "attention": (attention, attention_by_rows, [drawn(seed, 3, 3) for seed in (0, 1)]),
    "a masked root": (lambda x: torch.where(x > 0, x.sqrt(), 0).sum(), lambda x: x[x > 0].sqrt().sum(), NUMBERS),
    "a clamped logarithm": (
        lambda x: (x.relu().log().clamp(min=-9) * x).sum(),
        lambda x: (x[x > 0].log() * x[x > 0]).sum() - 9 * x[x <= 0].sum(),
        NUMBERS,
    ),
    "an overflow": (
        lambda x: torch.where(x > 0, x, (1000 * x).exp() - 1).square().sum(),
        lambda x: torch.cat([x[x > 0], (1000 * x[x <= 0]).exp() - 1]).square().sum(),
        NUMBERS,
    ),
    "a dead row": (
        lambda x: torch.stack([x.square(), x.relu()]).norm(dim=-1).sum(),
        lambda x: x.pow(4).sum().sqrt() + (x[x > 0].square().sum().sqrt() if (x > 0).any() else 0.0),
        NUMBERS,
    ),
    "a normalized dead row": (
        lambda x: (F.normalize(torch.stack([x.square(), x.relu()]), dim=-1) * x).sum(),
        lambda x: sum((r @ x) / r.square().sum().sqrt() for r in (x.square(), x.relu()) if (r > 0).any()),
        NUMBERS,
    ),
    "a deviation": (lambda x: torch.stack([x, x.mean().expand(4)]).std(-1).sum(), torch.std, NUMBERS),
    "sinc": (
        sinc,
        sinc_by_series,
        [torch.tensor([0.0, 1.0], dtype=torch.float64), NUMBERS[0]],
    ),
}


def along(x):
    return torch.arange(1, x.numel() + 1, dtype=x.dtype).cos().reshape(x.shape)


def second(x, twin):
    return fd.hessian_double_backward(twin)(x).reshape(x.numel(), x.numel())


ASKED = {  # how, and what it is of the twin
    "jacobian": (lambda f, x: fd.jacobian(f)(x), lambda f, x: fd.jacobian_loop(f)(x)),
    "hessian": (lambda f, x: fd.hessian(f)(x), lambda f, x: second(x, f).reshape(*x.shape, *x.shape)),
    "diagonal": (lambda f, x: fd.hessian_diagonal(f)(x), lambda f, x: second(x, f).diagonal().reshape(x.shape)),
    "laplacian": (lambda f, x: fd.laplacian(f)(x), lambda f, x: second(x, f).trace()),
    "hvp": (
        lambda f, x: fd.hvp(f, (x,), (along(x),)),
        lambda f, x: (second(x, f) @ along(x).flatten()).reshape(x.shape),
    ),
    "operator": (
        lambda f, x: fd.hvp_operator(f, x)(along(x)),
        lambda f, x: (second(x, f) @ along(x).flatten()).reshape(x.shape),
    ),
    "batch": (
        lambda f, x: fd.batch_hessian(f)(torch.stack([x + 1, x, x]))[2],
        lambda f, x: second(x, f).reshape(*x.shape, *x.shape),
    ),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("name", FAMILY)
def test_a_derivative_is_right_or_refused(name, asked):
    func, twin, points = FAMILY[name]
    derivative, expected = ASKED[asked]
    fd.clear_plans()
    order = random.Random(f"{name} {asked}").choices(points, k=4)
    for x in order:
        result = None
        with suppress_refusal():
            result = derivative(func, x)
        if result is not None:
            assert_close(result, expected(twin, x), rtol=1e-4, atol=1e-6)


@contextmanager
def suppress_refusal():
    """Let a refusal pass that says why."""
    try:
        yield
    except RuntimeError as refusal:
        if "is not finite" not in str(refusal):
            raise


FOUND = ["norms", "distances", "Gauss", "Coulomb, masked", "Lennard-Jones, with ones", "cosines", "attention", "sinc"]


@pytest.mark.parametrize("name", FOUND)
def test_a_finite_hessian_is_found(name):
    func, twin, points = FAMILY[name]
    for x in points:
        fd.clear_plans()
        assert_close(fd.hessian(func)(x), ASKED["hessian"][1](twin, x), rtol=1e-8, atol=1e-9)


def test_a_plan_that_was_right_does_not_return_nan_later():
    fd.clear_plans()
    func, twin, _ = FAMILY["a masked root"]
    derivative = fd.jacobian(func)
    for x in (NUMBERS[2], NUMBERS[2], NUMBERS[2], NUMBERS[0], NUMBERS[2]):  # from the third on found by evidence
        assert_close(derivative(x), fd.jacobian_loop(twin)(x))
    obstacles = [candidate.obstacle for candidate in fd.explain(derivative, NUMBERS[0]).plan.candidates]
    assert any("is not finite, though differences of func are" in obstacle for obstacle in obstacles)


def test_only_what_may_fail_is_watched():
    def watched(func):
        return fd.jacobian(func).found((NUMBERS[0],)).plan.watched

    assert not watched(lambda x: x.tanh() * x**2 / 3 + F.gelu(x).softmax(0))
    assert watched(lambda x: x.norm())
    assert watched(lambda x: x**1.5)
    assert watched(lambda x: 1 / x)


@pytest.mark.parametrize("size", [2, 3])
def test_where_there_is_no_derivative_nothing_is_made_up(size):
    x = torch.zeros(size, dtype=torch.float64)
    assert fd.hessian(torch.linalg.vector_norm)(x).isnan().all()
    report = fd.check_derivatives(torch.linalg.vector_norm, x)
    assert not report.wrong
    assert report["hessian"].outcome == "undecided"
    assert "detach" not in report.advice


def test_a_function_that_is_not_finite_itself_is_differentiated_once():
    calls = 0

    def func(x):
        nonlocal calls
        calls += 1
        return x.sqrt().sum()

    derivative = fd.jacobian(func)
    for x in (NUMBERS[2], NUMBERS[2], NUMBERS[2]):
        derivative(x)
    calls = 0
    assert derivative(NUMBERS[3]).isnan().all()
    assert calls < 10  # the result, and the evaluations of one check


@pytest.mark.parametrize("seed", range(3))
def test_no_direction_is_a_point_that_users_draw(seed):
    x = drawn(seed, 4, 3)
    for other in range(11):
        cosine = F.cosine_similarity(x.flatten(), direction([x], other)[0].flatten(), dim=0)
        assert abs(cosine) < 0.99


def test_under_vmap_the_plan_is_made_of_a_finite_recipe():
    func, twin, points = FAMILY["norms"]
    result = vmap(fd.hessian(func))(torch.stack(points))
    assert_close(result[1], ASKED["hessian"][1](twin, points[1]))


@pytest.mark.parametrize("name", ["jacobian", "hessian", "hessian_diagonal", "laplacian", "hvp"])
def test_what_is_nan_only_once_more_is_refused_to_nobody(name):
    net = torch.nn.Linear(4, 1).double()  # of which the result could be trained through

    def func(x, filled=False):
        logarithm = (torch.where(x > 0, x, 1.0) if filled else x).log()
        return torch.where(x > 0, x * logarithm, x.exp()).sum() * net(x).sum()

    def by_name(func):
        if name == "hvp":
            return fd.hvp(func, (x,), (torch.ones_like(x),))
        return getattr(fd, name)(func)(x)

    x = torch.tensor([0.3, -0.7, 1.1, 0.4], dtype=torch.float64)
    assert_close(by_name(func), by_name(lambda x: func(x, filled=True)))
    (slope,) = torch.autograd.grad(by_name(func).sum(), net.weight)
    assert slope.isfinite().all()


def masked_root(x):
    return 0.1 * torch.where(x > 0, x.sqrt(), torch.zeros_like(x)).sum() + x.pow(3).sum()


@pytest.mark.parametrize("n", [3, 20, 40])
def test_a_batch_that_cannot_be_checked_and_is_not_finite_is_computed_another_way(n):
    """In float32 torch cannot run the check of one of the recipes, whose own result is NaN."""
    x = drawn(11, n).float()
    x = torch.where(x.abs() < 0.3, x.sign() * 0.3, x)  # not near the root's end, where nothing can be told
    rows = torch.stack([0.9 * x, x])
    fd.clear_plans()
    expected = torch.stack([fd.hessian(masked_root)(row.double()) for row in rows])
    assert_close(fd.batch_hessian(masked_root)(rows).double(), expected, rtol=1e-4, atol=1e-4)
