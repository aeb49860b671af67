"""Linear algebra, running products and sums: right in every recipe, in a batch, and differentiated once more."""

import logging
from functools import partial
from itertools import permutations

import pytest
import torch
from second_order import TRACES, check
from torch import linalg
from torch.distributions import MultivariateNormal
from torch.func import vmap
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._automatic import fallback
from funcdiff._safety.guard import corrected

N = 3
GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=GENERATOR)


EYE = torch.eye(N, dtype=torch.float64)
ROWS = normal(2, 3)
MIDDLE, WAYS = normal(N, N) + 3 * EYE, normal(3, N, N) / 3
PIVOTS = torch.tensor([2, 3, 3], dtype=torch.int32)
B, C, STACK, VECTOR = normal(N, 2), normal(N, N), normal(2, N, N), normal(N)


def of_a_matrix(func):
    """As a function of three numbers, of which the matrix is a quadratic one."""
    return lambda t: func(MIDDLE + torch.tensordot(t + t.square() / 2, WAYS, 1))


def positive(x):
    return x @ x.mT / 3 + EYE


def weighted(y):
    return (C * y).sin().sum()


def larger(x):
    return torch.nn.functional.pad(x, (0, 1, 0, 1)) + torch.eye(4) + 0.1


def eigenvectors(x):
    values, vectors = linalg.eigh(positive(x))
    return weighted(vectors.square() * values.unsqueeze(-1))


FUNCTIONS = {
    "inv": lambda x: weighted(linalg.inv(x)),
    "inverse of a stack": lambda x: (x + 0.3 * STACK).inverse().sin().sum(),
    "solve": lambda x: linalg.solve(x, B).sin().sum(),
    "solve, both sides": lambda x: linalg.solve(x, x.sin()[:, :2]).sin().sum(),
    "solve, a fixed matrix": lambda x: weighted(linalg.solve(C, x.sin())),
    "solve, a vector": lambda x: linalg.solve(x, x[0].cos()).sin().sum(),
    "solve from the right": lambda x: linalg.solve(x, B.mT.sin(), left=False).sin().sum(),
    "solve, a stack of right sides": lambda x: linalg.solve(x, STACK).sin().sum(),
    "solve, a stack of matrices": lambda x: linalg.solve(x + 0.3 * STACK, x[:, :2]).sin().sum(),
    "solve, stacks of vectors": lambda x: linalg.solve(x + 0.3 * STACK, torch.stack([x[0], VECTOR])).sin().sum(),
    "solve_triangular": lambda x: linalg.solve_triangular(x, B * x[0, 0], upper=False).sin().sum(),
    "solve_triangular, ones": lambda x: (
        (
            linalg.solve_triangular(x / 3, B, upper=True, unitriangular=True)
            - linalg.solve_triangular(x.mT / 3, B, upper=False, unitriangular=True)
        )
        .sin()
        .sum()
    ),
    "solve_triangular from the right": lambda x: (
        linalg.solve_triangular(x / 3, B.mT, upper=True, left=False).sin().sum()
    ),
    "det": lambda x: (x.det() / 10).sin(),
    "det, two rows": lambda x: linalg.det(x[:2, 1:]).sin(),
    "det, four rows": lambda x: (torch.det(larger(x)) / 10).sin(),
    "slogdet": lambda x: linalg.slogdet(x)[1].sin(),
    "slogdet, negative": lambda x: (s := torch.slogdet(x - 7 * EYE)).logabsdet.sin() * s.sign,
    "logdet": lambda x: torch.logdet(x + 0.3 * STACK).sin().sum(),
    "cholesky": lambda x: weighted(linalg.cholesky(positive(x))),
    "cholesky, upper": lambda x: linalg.cholesky(positive(x) + positive(STACK), upper=True).sin().sum(),
    "cholesky_inverse": lambda x: weighted(torch.cholesky_inverse(linalg.cholesky(positive(x)))),
    "cholesky_inverse, upper": lambda x: weighted(torch.cholesky_inverse(linalg.cholesky(positive(x)).mT, upper=True)),
    "cholesky_solve": lambda x: torch.cholesky_solve(B, linalg.cholesky(positive(x))).sin().sum(),
    "cholesky_solve, upper": lambda x: torch.cholesky_solve(x.sin(), x.mT.triu(), upper=True).sin().sum(),
    "lu_solve": lambda x: linalg.lu_solve(x.triu() + B[0, 0] * x.tril(-1), PIVOTS, x.sin()[:, :2]).sin().sum(),
    "lu_solve from the right": lambda x: (
        (linalg.lu_solve(x, PIVOTS, B.mT, left=False) + linalg.lu_solve(x, PIVOTS, B, adjoint=True).mT).sin().sum()
    ),
    "a Gaussian likelihood": lambda x: MultivariateNormal(x[0], positive(x), validate_args=False).log_prob(VECTOR),
    "cumprod": lambda x: weighted(x.cumprod(0)),
    "logcumsumexp": lambda x: weighted(torch.logcumsumexp(x, -1)),
    "logaddexp": lambda x: weighted(torch.logaddexp(x, x.mT)),
    "logaddexp2": lambda x: weighted(torch.logaddexp2(x, x[0] * 2)),
}
EIGEN = {"eigvalsh": lambda x: linalg.eigvalsh(positive(x)).sin().sum(), "eigh": eigenvectors}


@pytest.fixture
def composed(caplog):
    """Whether Taylor mode was left, with the reasons."""
    caplog.set_level(logging.INFO, "funcdiff.taylor")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "funcdiff.taylor"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_differences(name, composed):
    check(of_a_matrix(FUNCTIONS[name]), ROWS)
    assert not composed()


@pytest.mark.parametrize("name", EIGEN)
def test_eigenvalues_against_differences(name, composed):
    # torch's own derivatives of forward mode's are NaN
    check(of_a_matrix(EIGEN[name]), ROWS, once_more=("hessian_taylor", *TRACES))
    assert not composed()


def test_by_hand():
    rows = MIDDLE + STACK / 2
    inverse = linalg.inv(rows)
    assert_close(vmap(fd.hessian_diagonal(torch.logdet))(rows), -inverse.mT.square())
    x = rows.clone().requires_grad_()
    total = vmap(fd.laplacian(torch.logdet))(x)
    assert_close(total, -inverse.square().sum((1, 2)))
    assert_close(torch.autograd.grad(total.sum(), x)[0], 2 * inverse.mT @ inverse @ inverse.mT)
    spectrum = lambda x: linalg.eigvalsh(x).square().sum()  # noqa: E731  # the squared norm
    assert_close(
        fd.hessian_taylor(lambda x: spectrum(x + x.mT))(rows[0]).reshape(9, 9).diagonal().reshape(3, 3), 4 + 4 * EYE
    )


def test_a_singular_matrix():
    x = torch.ones(2, 2, dtype=torch.float64)
    expected = torch.tensor([[[[0.0, 0], [0, 1]], [[0, 0], [-1, 0]]], [[[0, -1], [0, 0]], [[1, 0], [0, 0]]]]).double()
    for recipe in (fd.hessian, fd.hessian_taylor, fallback.HESSIANS["hessian_forward_over_reverse"]):
        assert_close(recipe(linalg.det)(x), expected)
    singular = torch.diag(torch.tensor([1.0, 2, 3, 0]).double())
    diagonal = torch.eye(4).double()
    expected = torch.diag(torch.tensor([6.0, 3, 2, 11]).double())  # of the product of four, along all of them at once
    assert_close(fd.hvp(linalg.det, (singular,), (diagonal,)), expected)
    product = torch.tensordot(fd.hessian_taylor(linalg.det)(singular), diagonal, 2)
    assert_close(product, expected)


ZEROS = torch.tensor([[0.0, 0.0, 2.0, -1.0], [0.0, 1.0, 1.0, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize(
    "product",
    [
        torch.prod,
        lambda x: x.cumprod(0),
        lambda x: torch.stack([x, x + 1, x * x]).prod(0),
        lambda x: torch.stack([x, x, x + 1], -1).prod(-1, keepdim=True),
        lambda x: torch.cat([x, x.sin(), x[:1]]).prod(),
        lambda x: x[:1].prod(0) * x[2:].prod(-1) + x[0].prod(),
        lambda x: x.prod(0, dtype=torch.float64),
    ],
)
def test_products_where_numbers_are_zero(product, composed):
    check(lambda x: (product(x / 2 + x.square() / 4) * 0.7).sin().sum(), ZEROS, precision=1e-6)
    assert not composed()


@pytest.mark.parametrize("name", {**FUNCTIONS, **EIGEN})
def test_values(name):
    func = of_a_matrix({**FUNCTIONS, **EIGEN}[name])
    assert_close(corrected(func)(ROWS[0]), func(ROWS[0]))


def by_minors(a):
    """The Hessian of a determinant: in two entries of other rows and columns what is left of it without these."""
    size = len(a)
    hessian = a.new_zeros(size, size, size, size)
    for i, k in permutations(range(size), 2):
        for j, m in permutations(range(size), 2):
            rows, columns = ([n for n in range(size) if n not in pair] for pair in ((i, k), (j, m)))
            sign = (-1) ** (i + j + k + m) * (1 if (i < k) == (j < m) else -1)
            hessian[i, j, k, m] = sign * torch.det(a[rows][:, columns])
    return hessian


@pytest.mark.parametrize(("size", "rank"), [(4, 3), (4, 2), (5, 4), (5, 2), (6, 5)])
def test_determinants_of_singular_matrices(size, rank):
    generator = torch.Generator().manual_seed(size)
    left, right = torch.randn(2, 2, size, rank, generator=generator, dtype=torch.float64)
    matrices = left @ right.mT
    expected = torch.stack([by_minors(a) for a in matrices])
    close = partial(assert_close, rtol=1e-9, atol=1e-9 * float(1 + expected.abs().max()))
    for hessian in (fd.hessian, fd.hessian_taylor, *fallback.HESSIANS.values()):
        close(torch.stack([hessian(linalg.det)(a) for a in matrices]), expected)
        close(vmap(hessian(linalg.det))(matrices), expected)
    close(vmap(fd.laplacian(linalg.det))(matrices), torch.zeros(2).double())  # linear in each entry
    for a, h in zip(matrices, expected, strict=True):
        close(fd.hvp(linalg.det, (a,), (a.cos(),)), torch.tensordot(h, a.cos(), 2))
        close(fd.hvp_operator(linalg.det, a)(a.cos()), torch.tensordot(h, a.cos(), 2))
