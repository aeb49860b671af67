"""Gram matrices against J J^T and J^T J of a Jacobian by hand, by blocks and within a budget."""

import pytest
import torch
from torch.testing import assert_close

import funcdiff as fd
from funcdiff.measure import count

ROWS = torch.linspace(-1, 1, 39, dtype=torch.float64).cos().mul(9).sin().view(13, 3)
P = {
    "w": torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3),
    "b": torch.tensor([0.3, -0.2], dtype=torch.float64),
}
CHUNKS = [{}, {"chunk_size": 1}, {"chunk_size": 4}, {"chunk_size": 100}, {"budget": 1e5}]


def row(p, x):
    return torch.tanh(p["w"] @ x + p["b"])


def batch(p, rows):
    return torch.tanh(rows @ p["w"].T + p["b"])


def by_hand():
    """The Jacobian (13 x 2, 8) in the order of ravel: w before b."""
    slope = 1 - batch(P, ROWS) ** 2
    w = torch.einsum("bi,ij,bk->bijk", slope, torch.eye(2, dtype=torch.float64), ROWS).reshape(26, 6)
    return torch.cat([w, torch.diag_embed(slope).reshape(26, 2)], 1)


@pytest.mark.parametrize("options", CHUNKS, ids=str)
def test_the_tangent_kernel_by_hand(options):
    expected = by_hand() @ by_hand().T
    assert_close(fd.gram_matrix(batch, **options)(P, ROWS), expected)
    assert_close(fd.gram_matrix(row, in_dims=(None, 0), **options)(P, ROWS), expected)


@pytest.mark.parametrize("options", CHUNKS, ids=str)
def test_the_squared_jacobian_by_hand(options):
    expected = by_hand().T @ by_hand()
    assert_close(fd.gram_matrix(batch, of="inputs", **options)(P, ROWS), expected)
    assert_close(fd.gram_matrix(row, of="inputs", in_dims=(None, 0), **options)(P, ROWS), expected)


def test_several_arguments_and_outputs():
    def func(a, s):
        return {"x": s * a, "y": a.sum()}

    a, s = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    jacobian = torch.tensor([[3.0, 0, 1], [0, 3, 2], [1, 1, 0]], dtype=torch.float64)
    assert_close(fd.gram_matrix(func, (0, 1))(a, s), jacobian @ jacobian.T)
    assert_close(fd.gram_matrix(func, (0, 1), chunk_size=2)(a, s), jacobian @ jacobian.T)


@pytest.mark.parametrize("of_rows", [False, True])
def test_the_counted_peak_stays_within_the_budget(of_rows):
    func, parameters = fd.module_function(
        torch.nn.Sequential(
            torch.nn.Linear(3, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Linear(64, 1)
        ).double()
    )
    rows = torch.cat([ROWS, -ROWS])
    options = {"in_dims": (None, 0)} if of_rows else {}
    one = (lambda p, x: func(p, x[None])[0]) if of_rows else func
    whole = fd.gram_matrix(one, **options)
    held = count(whole, parameters, rows).peak_bytes
    kernel = fd.gram_matrix(one, budget=held / 3, **options)
    assert_close(kernel(parameters, rows), whole(parameters, rows))
    assert count(kernel, parameters, rows).peak_bytes <= held / 3
    with pytest.raises(MemoryError, match="the budget is 4,000 bytes"):
        fd.gram_matrix(one, budget=4000, **options)(parameters, rows)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"of": "rows"}, ValueError, "outputs"),
        ({"chunk_size": 2, "budget": 1e6}, ValueError, "no chunk_size"),
        ({"in_dims": (0, None)}, ValueError, "shared by all rows"),
        ({"in_dims": (None, None)}, ValueError, "axis of a batch"),
        ({"chunk_size": 0}, ValueError, "chunk_size"),
        ({"argnums": 3}, ValueError, "argnums"),
    ],
)
def test_bad_options_are_refused(options, error, text):
    with pytest.raises(error, match=text):
        fd.gram_matrix(batch, **options)(P["w"] if options.get("in_dims") == (0, None) else P, ROWS)
