"""Results belong to the caller, who may write into a part of them: each entry has a place of its own."""

import pytest
import torch
from torch.testing import assert_close

import funcdiff as fd

X = torch.tensor([[0.5, -1.0, 2.0], [1.0, 3.0, -0.5]], dtype=torch.float64)
MATRIX = torch.tensor([[1.0, 2.0, 0.5], [0.0, 1.0, -1.0], [3.0, 1.0, 1.0]], dtype=torch.float64)
FUNCS = {  # whose derivatives are expanded zeros, a row for all, or a number for all
    "linear": lambda x: MATRIX[0] @ x,
    "affine": lambda x: MATRIX @ x + 1,
    "quadratic": lambda x: x @ MATRIX @ x,
    "square of a sum": lambda x: x.sum() ** 2,
    "cube of a sum": lambda x: x.sum() ** 3,
    "two results": lambda x: (x.sum().expand(2), MATRIX @ x),
    "constant": lambda x: torch.ones_like(x) + 0 * x,
}
DERIVATIVES = {
    "jacobian": lambda f: fd.jacobian(f)(X[0]),
    "hessian": lambda f: fd.hessian(f)(X[0]),
    "hessian_diagonal": lambda f: fd.hessian_diagonal(f)(X[0]),
    "laplacian": lambda f: fd.laplacian(f)(X[0]),
    "batch_jacobian": lambda f: fd.batch_jacobian(f)(X),
    "batch_hessian": lambda f: fd.batch_hessian(f)(X),
    "batch_jacobian_summed": lambda f: fd.batch_jacobian_summed(torch.vmap(f))(X),
    "batch_hessian_summed": lambda f: fd.batch_hessian_summed(torch.vmap(f))(X),
    "prepare": lambda f: fd.prepare(fd.hessian(f), X[0])(X[0]),
    "hvp": lambda f: fd.hvp(lambda x: torch.utils._pytree.tree_leaves(f(x))[0].sum(), (X[0],), (X[1],)),
}


@pytest.mark.parametrize("func", FUNCS)
@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_write_into_one_entry_changes_no_other(name, func):
    results = torch.utils._pytree.tree_leaves(DERIVATIVES[name](FUNCS[func]))
    kept = [result.clone() for result in results]
    for result, numbers in zip(results, kept, strict=True):
        first = (0,) * result.dim()
        result[first] += 1
        numbers[first] += 1
        assert_close(results, kept)
