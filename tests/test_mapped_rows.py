"""Linear algebra and transforms under vmap: each row has the derivative that it has alone."""

import pytest
import torch
from torch import linalg, vmap
from torch.testing import assert_close

import funcdiff as fd

ROWS = torch.tensor([[0.3, -1.1, 0.6], [0.7, -0.4, 1.3], [-0.5, 0.9, 0.2]], dtype=torch.float64)
SHIFT = torch.tensor([[2.0, 3.0, 1.0], [-3.0, 3.0, 2.0], [-1.0, -2.0, 4.5]], dtype=torch.float64)


def matrix(x):
    return torch.outer(x, x**2) + torch.diag(x**2) + SHIFT


def symmetric(x):
    return matrix(x) + matrix(x).mT


FUNCS = {
    "eigvals": lambda x: linalg.eigvals(matrix(x)).abs().square().sum(),
    "eig": lambda x: linalg.eig(matrix(x))[1].abs().square().mul(SHIFT).sum(),
    "eigvalsh": lambda x: linalg.eigvalsh(symmetric(x)).pow(3).sum(),
    "eigh": lambda x: linalg.eigh(symmetric(x))[1].square().mul(SHIFT).sum(),
    "svdvals": lambda x: linalg.svdvals(matrix(x)).sum(),
    "svd": lambda x: linalg.svd(matrix(x))[0].square().mul(SHIFT).sum(),
    "qr": lambda x: linalg.qr(matrix(x))[0].square().mul(SHIFT).sum(),
    "lu": lambda x: linalg.lu(matrix(x))[2].square().sum(),
    "cholesky": lambda x: linalg.cholesky(matrix(x) @ matrix(x).mT).sum(),
    "pinv": lambda x: linalg.pinv(matrix(x)).square().sum(),
    "inv": lambda x: linalg.inv(matrix(x)).square().sum(),
    "slogdet": lambda x: linalg.slogdet(matrix(x)).logabsdet,
    "matrix_exp": lambda x: linalg.matrix_exp(matrix(x) / 5).sum(),
    "fft": lambda x: torch.fft.rfft(x**2).abs().square().sum(),
}
RECIPES = {
    "jacobian": fd.jacobian,
    "hessian": fd.hessian,
    "hessian_diagonal": fd.hessian_diagonal,
    "laplacian": fd.laplacian,
    "hvp": lambda func: lambda x: fd.hvp(func, (x,), (ROWS[0],)),
    "hvp_operator": lambda func: lambda x: fd.hvp_operator(func, x)(ROWS[0]),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch has no batching rule for lu
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("func", FUNCS)
def test_every_row_has_the_derivative_that_it_has_alone(func, recipe):
    derivative = RECIPES[recipe](FUNCS[func])
    fd.clear_plans()
    alone = torch.stack([derivative(x) for x in ROWS])
    assert_close(vmap(derivative)(ROWS), alone, rtol=1e-6, atol=1e-8)
