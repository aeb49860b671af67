"""Sparse derivatives as straight lines, beside compiled code, and within a budget."""

import functools

import pytest
import sparse_practice
import torch
from sparse_practice import JACOBIANS as PRACTICE
from sparse_problems import (
    HESSIANS,
    JACOBIANS,
    brusselator,
    by_compressed_rows,
    by_coordinates,
    chain,
    messages,
    random_point,
    rosenbrock,
)
from torch.testing import assert_close

import funcdiff as fd
from funcdiff import prepare
from funcdiff._automatic import sparse_plan

X = random_point(8)
LAYOUTS = [torch.sparse_csr, torch.sparse_coo, torch.strided, None]


def dense(matrix):
    return matrix if matrix.layout is torch.strided else matrix.to_dense()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("func", [brusselator, chain, rosenbrock], ids=lambda f: f.__name__)
def test_a_line_gives_what_the_transform_gives(func, layout):
    kind = fd.hessian_sparse if func in HESSIANS else fd.jacobian_sparse
    transform, (x, _) = kind(func, layout=layout), {**JACOBIANS, **HESSIANS}[func]
    line = prepare(transform, x)
    y = 0.7 * x - 0.1
    assert line(y).layout is transform(y).layout
    assert_close(dense(line(y)), dense(transform(y)), rtol=1e-12, atol=1e-12)
    assert line.operations[1] < line.operations[0]


def test_a_line_has_constants_added_up_and_no_seeds():
    line = prepare(fd.jacobian_sparse(brusselator), random_point(2, 6, 6))
    assert "roll" not in line.code.partition("\n")[2]
    assert line.operations[1] < 25


def test_the_line_stays_good_while_the_transform_is_used_elsewhere():
    transform = fd.jacobian_sparse(chain)
    line = prepare(transform, X)
    for x in (X[:5], X.float(), X):
        transform(x)
    assert_close(line(X).to_dense(), transform(X).to_dense())
    with pytest.raises(RuntimeError, match="prepared, float64"):
        line(X[:5])


def test_captured_weights_are_followed_and_trained_through():
    weight = random_point(8, seed=3).requires_grad_()
    transform = fd.jacobian_sparse(lambda x: (weight * x).sin() * x.roll(1))
    line = prepare(transform, X)
    with torch.no_grad():
        weight.mul_(2)
    slopes = [torch.autograd.grad(f(X).to_dense().square().sum(), weight)[0] for f in (line, transform)]
    assert_close(*slopes)


def test_aux_and_several_arguments():
    transform = fd.jacobian_sparse(lambda x, y: (x * y.roll(1), x.sum()), (0, 1), has_aux=True)
    matrix, aux = prepare(transform, X, X + 1)(2 * X, X)
    want, total = transform(2 * X, X)
    assert_close(matrix.to_dense(), want.to_dense())
    assert_close(aux, total)


def test_a_line_whose_pattern_no_longer_holds_gives_no_number():
    to = torch.tensor([1, 2, 3, 4, 5, 6, 7, 0])
    line = prepare(fd.jacobian_sparse(lambda x: torch.zeros_like(x).index_add(0, to, x.sin())), X)
    assert line(X).values().isfinite().all()
    to.copy_(to.flip(0))
    assert line(X).values().isnan().all()
    with pytest.raises(RuntimeError, match="lacks entries"):
        prepare(fd.jacobian_sparse(chain, pattern=torch.eye(7, 8)), X)


def test_a_branch_on_values_is_not_prepared():
    with pytest.raises(RuntimeError, match="reads the values"):
        prepare(fd.jacobian_sparse(lambda x: x * x.roll(1) if x[0] > 0 else x), X)


def test_a_sparse_matrix_inside_a_prepared_function_is_refused_and_its_entries_are_not():
    with pytest.raises(RuntimeError, match="layout=None"):
        prepare(lambda x: fd.jacobian_sparse(chain)(x) @ x, X)
    entries = fd.jacobian_sparse(chain, layout=None)
    line = prepare(lambda x: entries(x).square().sum(), X)
    assert_close(line(2 * X), entries(2 * X).square().sum())


def test_constant_sparse_matrices():
    x = random_point(6)
    transform = fd.jacobian_sparse(by_coordinates)
    assert_close(prepare(transform, x)(2 * x).to_dense(), transform(2 * x).to_dense())
    with pytest.raises(RuntimeError, match=r"sparse tensor.*to_sparse\(\)"):
        prepare(fd.jacobian_sparse(by_compressed_rows), x)


@pytest.mark.parametrize("name", ["finite volumes", "elements by scatter", "convolution, dilated", "two arguments"])
def test_lines_of_functions_from_practice(name):
    kind, cases = (fd.hessian_sparse, sparse_practice.HESSIANS) if "two" in name else (fd.jacobian_sparse, PRACTICE)
    func, args = cases[name]
    transform = kind(func, tuple(range(len(args))))
    line, others = prepare(transform, *args), [0.9 * x + 0.01 for x in args]
    assert_close(line(*others).to_dense(), transform(*others).to_dense(), rtol=1e-12, atol=1e-12)


def test_what_only_looks_like_the_transform_is_prepared_itself():
    transform = fd.jacobian_sparse(chain, layout=None)

    @functools.wraps(transform)
    def doubled(x):
        return 2 * transform(x)

    assert_close(prepare(doubled, X)(X), 2 * transform(X))


@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")  # torch 2.11 loads constants so
def test_a_sparse_matrix_is_not_saved_and_its_entries_are(tmp_path):
    with pytest.raises(RuntimeError, match="layout=None"):
        prepare(fd.jacobian_sparse(chain), X).save(tmp_path / "line.pt2")
    line = prepare(fd.jacobian_sparse(chain, layout=None), X)
    line.save(tmp_path / "line.pt2")
    assert_close(fd.Prepared.load(tmp_path / "line.pt2")(2 * X), line(2 * X))


def test_compiled_code_calls_it_between_graphs():
    transform = fd.jacobian_sparse(chain, layout=None)
    step = torch.compile(lambda x: transform(x.sin()).square().sum() + 1, backend="eager")
    assert_close(step(X), transform(X.sin()).square().sum() + 1)
    matrix = fd.jacobian_sparse(chain)
    assert_close(torch.compile(lambda x: matrix(x) @ x.sin(), backend="eager")(X), matrix(X) @ X.sin())
    line = prepare(matrix, X)
    assert_close(torch.compile(line, backend="eager")(X).to_dense(), line(X).to_dense())


def chunks(monkeypatch, transform, x):
    sizes = []
    original = sparse_plan.sparse.jacobian_values

    def counted(flat, primals, groups, options):
        sizes.append(options.chunk_size)
        return original(flat, primals, groups, options)

    monkeypatch.setattr(sparse_plan.sparse, "jacobian_values", counted)
    transform(x)
    return sizes[-1]


def test_vectors_beyond_the_cache_come_in_chunks(monkeypatch):
    x = random_point(2, 6, 6)
    assert chunks(monkeypatch, fd.jacobian_sparse(brusselator), x) > 12
    monkeypatch.setattr(sparse_plan, "_CACHE", 8 * 72 * 5)
    assert chunks(monkeypatch, fd.jacobian_sparse(brusselator), x) == 5
    assert chunks(monkeypatch, fd.jacobian_sparse(brusselator, chunk_size=7), x) == 7
    monkeypatch.setattr(sparse_plan, "_CACHE", 1)
    transform = fd.jacobian_sparse(brusselator)
    assert chunks(monkeypatch, transform, x) == 1  # reverse passes, which compute the function once
    assert chunks(monkeypatch, fd.jacobian_sparse(lambda x: chain(x).repeat(40)), X) == 4
    assert_close(transform(x).to_dense(), fd.jacobian(brusselator)(x).reshape(72, 72))
    hessian = fd.hessian_sparse(rosenbrock)
    assert_close(hessian(X).to_dense(), fd.hessian(rosenbrock)(X))


def test_a_budget_decides_the_chunk(monkeypatch):
    x = random_point(2, 12, 12)
    wide = fd.jacobian_sparse(brusselator, chunk_size="auto", budget=2**26)
    assert chunks(monkeypatch, wide, x) == fd.jacobian_pattern(brusselator, x).passes
    few = fd.jacobian_sparse(brusselator, chunk_size="auto", budget=150_000)
    assert 1 <= chunks(monkeypatch, few, x) < 12
    assert_close(few(x).to_dense(), wide(x).to_dense())
    with pytest.raises(MemoryError, match="one at a time"):
        fd.jacobian_sparse(brusselator, chunk_size="auto", budget=1000)(x)
    with pytest.raises(ValueError, match="budget"):
        fd.hessian_sparse(rosenbrock, chunk_size="auto")
    with pytest.raises(RuntimeError, match="not possible inside vmap"):
        torch.vmap(fd.hessian_sparse(rosenbrock, chunk_size="auto", budget=2**20, layout=None))(X[None])


def test_entries_of_each_row_of_a_batch():
    rows = torch.stack([random_point(6), random_point(6, seed=1)])
    for func in (chain, messages):
        values = torch.vmap(fd.jacobian_sparse(func, layout=None))(rows)
        pattern = fd.jacobian_pattern(func, rows[0])
        for row, x in zip(values, rows, strict=True):
            assert_close(pattern.to_csr(row).to_dense(), torch.func.jacrev(func)(x))
