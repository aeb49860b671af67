"""Sparse Jacobians and Hessians: equal to dense ones, in few passes, and never wrong without an error."""

import numpy as np
import pytest
import scipy.sparse
import torch
from custom_functions import Identity
from sparse_problems import (
    HESSIANS,
    JACOBIANS,
    RECEIVERS,
    SENDERS,
    arrow,
    both_full,
    brusselator,
    chain,
    first_column_full,
    last_row_full,
    messages,
    random_point,
    rosenbrock,
    written_in_place,
)
from torch.func import grad, jacrev, vmap
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._automatic import sparse_plan
from funcdiff._sparse import sets

X = random_point(8)
SINGLE = {brusselator, chain, messages, last_row_full, first_column_full, both_full, written_in_place, torch.sin}


def dense_jacobian(func, x):
    return fd.jacobian_loop(func)(x).reshape(-1, x.numel())  # without vmap, which some of the functions refuse


def dense_hessian(func, x):
    return torch.func.hessian(func)(x).reshape(x.numel(), x.numel())


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo, torch.strided])
@pytest.mark.parametrize("func", JACOBIANS)
def test_a_jacobian_equals_the_dense_one_in_few_passes(func, layout):
    x, passes = JACOBIANS[func]
    transform = fd.jacobian_sparse(func, layout=layout)
    for _ in range(2):
        got = transform(x)
        assert got.layout is layout
        assert_close(got.to_dense() if layout is not torch.strided else got, dense_jacobian(func, x))
    assert fd.jacobian_pattern(func, x).passes <= passes


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
@pytest.mark.parametrize("func", HESSIANS)
def test_a_hessian_equals_the_dense_one_in_few_passes(func, chunk_size):
    x, passes = HESSIANS[func]
    assert_close(fd.hessian_sparse(func, chunk_size=chunk_size)(x).to_dense(), dense_hessian(func, x))
    assert fd.hessian_pattern(func, x).passes <= passes


@pytest.mark.parametrize("chunk_size", [1, 2, 5])
@pytest.mark.parametrize("func", JACOBIANS)
def test_chunks_and_float32(func, chunk_size):
    x = JACOBIANS[func][0]
    got = fd.jacobian_sparse(func, chunk_size=chunk_size)(x)
    assert_close(got.to_dense(), dense_jacobian(func, x))
    if func in SINGLE:
        single = fd.jacobian_sparse(func)(x.float())
        assert single.dtype == torch.float32
        assert_close(single.to_dense(), dense_jacobian(func, x).float())


def counting(monkeypatch, owner, name):
    """The calls of a function from now on."""
    calls, original = [], getattr(owner, name)

    def counted(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls


def test_the_transform_keeps_its_plan(monkeypatch):
    plans = counting(monkeypatch, sparse_plan, "make")
    transform = fd.jacobian_sparse(chain)
    for x in (X, X + 1, X[:5], X.float(), X):
        transform(x)
    assert len(plans) == 3


def test_arguments_trees_and_aux():
    def func(t, tree, y):
        return {"a": t * tree["u"] * y, "b": (tree["v"] ** 2).sum(1)}, tree["u"].sum()

    tree = {"u": random_point(3), "v": random_point(3, 2, seed=1)}
    y = random_point(3, seed=2)
    got, aux = fd.jacobian_sparse(func, (1, 2), has_aux=True)(2.0, tree, y)
    assert_close(aux, tree["u"].sum())
    assert got.shape == (6, 12)
    vector, unravel = fd.ravel((tree, y))
    flat = lambda v: fd.ravel(func(2.0, *unravel(v))[0])[0]  # noqa: E731  # shorter than its test
    assert_close(got.to_dense(), jacrev(flat)(vector))

    value, aux = fd.hessian_sparse(lambda x: (rosenbrock(x), x**2), has_aux=True)(X)
    assert_close(value.to_dense(), dense_hessian(rosenbrock, X))
    assert_close(aux, X**2)


def test_functions_of_nothing_and_constants():
    assert fd.jacobian_sparse(lambda x: x**2)(X[:0]).shape == (0, 0)
    assert fd.jacobian_sparse(lambda x: torch.ones(3) + 0 * x[:0].sum())(X)._nnz() == 0
    assert fd.hessian_sparse(lambda x: x.sum())(X)._nnz() == 0
    assert_close(fd.jacobian_sparse(lambda x: x.sum())(X).to_dense(), torch.ones(1, 8, dtype=X.dtype))


def test_under_vmap_and_grad():
    rows = torch.stack([X, 2 * X, X - 1])
    want = torch.stack([dense_jacobian(chain, x) for x in rows])
    assert_close(vmap(fd.jacobian_sparse(chain, layout=torch.strided))(rows), want)
    pattern = fd.jacobian_pattern(chain, X)
    values = vmap(fd.jacobian_sparse(chain, layout=None))(rows)
    assert values.shape == (3, pattern.nnz)
    assert_close(pattern.to_csr(values[1]).to_dense(), want[1])
    with pytest.raises(RuntimeError, match="layout=None"):
        vmap(fd.jacobian_sparse(chain))(rows)

    energy = lambda x: fd.hessian_sparse(rosenbrock, layout=None)(x).square().sum()  # noqa: E731  # shorter than a def
    assert_close(grad(energy)(X), grad(lambda x: torch.func.hessian(rosenbrock)(x).square().sum())(X))


def test_training_through_a_sparse_jacobian():
    weight = random_point(8, seed=3).requires_grad_()
    for transform in (fd.jacobian_sparse, fd.jacobian):
        matrix = transform(lambda x: (weight * x).sin() * x.roll(1))(X)
        matrix.to_dense().square().sum().backward()
    assert_close(weight.grad / 2, torch.autograd.grad(jacrev_norm(weight), weight)[0])
    assert not fd.jacobian_sparse(chain)(X).requires_grad


def jacrev_norm(weight):
    return jacrev(lambda x: (weight * x).sin() * x.roll(1))(X).square().sum()


def test_a_pattern_that_the_user_gives():
    eye = np.eye(8)
    band = scipy.sparse.csr_array(eye[:7] + eye[1:])
    want = dense_jacobian(chain, X)
    for pattern in (band, band.tocoo(), torch.from_numpy(band.toarray()), fd.jacobian_pattern(chain, X)):
        assert_close(fd.jacobian_sparse(chain, pattern=pattern)(X).to_dense(), want)
    full = torch.ones(7, 8).to_sparse_csr()
    assert_close(fd.jacobian_sparse(chain, pattern=full)(X).to_dense(), want)


WRONG_PATTERNS = {
    "an entry less": torch.eye(8)[:7]
    + torch.eye(8)[1:]
    - torch.eye(8)[[7, 7, 2, 7, 7, 7, 7]] * torch.eye(7)[2][:, None],
    "the diagonal alone": torch.eye(7, 8),
    "nothing": torch.zeros(7, 8),
}


@pytest.mark.parametrize("name", WRONG_PATTERNS)
def test_a_wrong_pattern_yields_no_number(name):
    transform = fd.jacobian_sparse(chain, pattern=WRONG_PATTERNS[name])
    for _ in range(2):  # also at later calls
        with pytest.raises(RuntimeError, match=r"lacks entries in [0-9]+ (row|column)\(s\), first in"):
            transform(X)
    with pytest.raises(RuntimeError, match="lacks entries"):
        fd.hessian_sparse(rosenbrock, pattern=torch.eye(8))(X)
    assert vmap(fd.jacobian_sparse(chain, pattern=WRONG_PATTERNS[name], layout=None))(X[None]).isnan().all()


def test_patterns_of_another_shape_or_kind_are_refused():
    with pytest.raises(ValueError, match=r"shape \(7, 8\), got \(8, 7\)"):
        fd.jacobian_sparse(chain, pattern=torch.ones(8, 7))(X)
    with pytest.raises(TypeError, match="got list"):
        fd.jacobian_sparse(chain, pattern=[[0, 1]])
    with pytest.raises(ValueError, match="matrix"):
        fd.jacobian_sparse(chain, pattern=torch.ones(3))
    with pytest.raises(ValueError, match="layout"):
        fd.jacobian_sparse(chain, layout=torch.sparse_bsr)


BRANCHES = {
    "if": lambda x: x * x.roll(1) if x[0] > 0 else x * x.roll(2),
    "a boolean mask": lambda x: torch.cat([x[x > 0.5] ** 2, x[x <= 0.5]]),
    "tolist": lambda x: x * x.roll(1 if x.tolist()[0] > 0 else 2),
    "numpy": lambda x: x * x.roll(1 if x.detach().numpy()[0] > 0 else 2),
    "detached item": lambda x: x * x.roll(1 if x.detach()[0].item() > 0 else 2),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_a_branch_on_values_is_followed_at_each_call(name):
    transform = fd.jacobian_sparse(BRANCHES[name])
    for x in (X, X - 0.7, X.flip(0), -X):
        assert_close(transform(x).to_dense(), fd.jacobian_loop(BRANCHES[name])(x))


def test_a_pattern_says_what_it_holds_for():
    assert "branch taken" in repr(fd.jacobian_pattern(BRANCHES["if"], X))
    assert "values used by index, scatter_add" in repr(fd.jacobian_pattern(messages, random_point(6)))
    assert not fd.jacobian_pattern(chain, X).note


def test_indices_of_a_batch_are_refused_and_shared_ones_used():
    func = lambda x, index: x[index].sin()  # noqa: E731  # shorter than its test
    index = torch.tensor([[1, 2], [0, 1]])
    rows = torch.stack([X, X + 1])
    transform = fd.jacobian_sparse(func, layout=torch.strided)
    with pytest.raises(RuntimeError, match=r"cannot be read.*jacobian_pattern"):
        vmap(transform)(rows, index)
    got = vmap(lambda x: transform(x, index[0]))(rows)
    assert_close(got, torch.stack([dense_jacobian(lambda x: func(x, index[0]), x) for x in rows]))


class OnlyBackward(torch.autograd.Function):
    """Squares of numbers and of their neighbours, without a forward derivative or a rule for vmap."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square() + x.roll(1).square()

    @staticmethod
    def backward(ctx, u):
        (x,) = ctx.saved_tensors
        return 2 * x * (u + u.roll(-1))


def test_what_vmap_and_forward_mode_refuse_is_computed_one_by_one():
    for func in (OnlyBackward.apply, lambda x: torch.cat([OnlyBackward.apply(x), x[:1].expand(30)])):
        transform = fd.jacobian_sparse(func)
        for _ in range(2):
            assert_close(transform(X).to_dense(), dense_jacobian(func, X))


class Hidden(Identity):
    """The derivative is of another function than what runs."""

    @staticmethod
    def backward(ctx, u):
        return u.roll(1)


def test_a_derivative_that_the_function_does_not_show_is_no_number():
    with pytest.raises(RuntimeError, match=r"autograd\.Function"):
        fd.jacobian_sparse(Hidden.apply)(X)


def test_values_of_captured_tensors_may_change():
    to = RECEIVERS.clone()
    func = lambda h: torch.zeros_like(h).index_add(0, to, h[SENDERS].sin())  # noqa: E731  # shorter than a def
    transform, x = fd.jacobian_sparse(func), random_point(6)
    assert_close(transform(x).to_dense(), dense_jacobian(func, x))
    to.copy_(RECEIVERS.flip(0))
    assert_close(transform(x).to_dense(), dense_jacobian(func, x))

    kernel = torch.zeros(1, 1, 3, dtype=torch.float64)
    blur = lambda x: torch.conv1d(x[None, None], kernel, padding=1)[0, 0]  # noqa: E731  # shorter than a def
    transform = fd.jacobian_sparse(blur)
    assert transform(X)._nnz() == 0
    kernel.fill_(1.0)
    assert_close(transform(X).to_dense(), dense_jacobian(blur, X))


def test_a_gradient_that_is_cut_off_is_refused_at_every_call():
    def cut(x):
        (slope,) = torch.autograd.grad((x**4).sum(), x)
        return slope * x

    transform = fd.jacobian_sparse(cut)
    x = random_point(3)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"jacobian_sparse is wrong on func .*differences"):
            transform(x)
    assert_close(fd.jacobian_sparse(cut, check=False)(x).to_dense(), torch.diag(4 * x**3))


def test_check_says_otherwise(monkeypatch):
    lies = WRONG_PATTERNS["the diagonal alone"]
    assert fd.jacobian_sparse(chain, pattern=lies, check=False)(X)._nnz() == 7
    compared = counting(monkeypatch, sparse_plan.SparsePlan, "_agreeing")
    for func, check, often in (
        (chain, None, 1),
        (chain, True, 3),
        (chain, False, 0),
        (messages, None, 3),
        (messages, False, 0),
    ):
        compared.clear()
        transform = fd.jacobian_sparse(func, check=check)
        for _ in range(3):
            transform(random_point(6))
        assert len(compared) == often


def test_a_dense_term_is_refused_with_the_name_of_the_operation(monkeypatch):
    monkeypatch.setattr(sets, "LIMIT", 1000)
    with pytest.raises(RuntimeError, match=r"not sparse: after the operation (sub|mul)"):
        fd.jacobian_sparse(lambda x: x - x.mean())(random_point(100))


BAD = {
    "no scalar": (lambda: fd.hessian_sparse(chain)(X), ValueError, "scalar"),
    "complex": (lambda: fd.jacobian_sparse(chain)(X * 1j), TypeError, "real"),
    "complex output": (lambda: fd.jacobian_sparse(lambda x: x * 1j)(X), TypeError, "real"),
    "integers": (lambda: fd.jacobian_sparse(chain)(X.long()), TypeError, "floating-point"),
    "item": (lambda: fd.jacobian_sparse(lambda x: x * x[0].item())(X), RuntimeError, "Python number"),
    "random": (lambda: fd.jacobian_sparse(lambda x: x * torch.rand_like(x))(X), RuntimeError, "random"),
    "argument written": (lambda: fd.jacobian_sparse(lambda x: x.mul_(2))(X), RuntimeError, "place"),
    "keywords": (lambda: fd.jacobian_sparse(chain)(x=X), TypeError, "positional"),
    "argnums": (lambda: fd.jacobian_sparse(chain, 1)(X), ValueError, "argnums"),
    "compiled": (
        lambda: torch.compile(lambda x: fd.jacobian_sparse(chain)(x), backend="eager", fullgraph=True)(X),
        RuntimeError,
        "outside of the function that torch.compile compiles",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    provoke, error, text = BAD[name]
    before = X.clone()
    with pytest.raises(error, match=text):
        provoke()
    assert X.equal(before)


def test_a_function_that_writes_to_its_captures_is_refused():
    total = torch.zeros(8, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="captured tensor"):
        fd.jacobian_sparse(lambda x: total.add_(x))(X)


def test_scipy_shares_the_memory():
    matrix = fd.jacobian_sparse(chain)(X)
    array = fd.jacobian_pattern(chain, X).scipy()
    assert array.shape == (7, 8)
    assert array.nnz == matrix._nnz()
    as_scipy = scipy.sparse.csr_array(
        (matrix.values().numpy(), matrix.col_indices().numpy(), matrix.crow_indices().numpy()), shape=matrix.shape
    )
    assert np.shares_memory(as_scipy.data, matrix.values().numpy())
    assert np.shares_memory(as_scipy.indices, matrix.col_indices().numpy())


def test_a_pattern_shows_itself():
    pattern = fd.jacobian_pattern(chain, X)
    assert repr(pattern).splitlines() == ["7 x 8, 14 entries, 2 passes", "⠙⢦⡀⠀", "⠀⠀⠙⠦"]
    assert "<pre" in pattern._repr_html_()
    assert repr(fd.hessian_pattern(lambda x: x.sum(), X)) == "8 x 8, 0 entries, 0 passes"


def test_explain_shows_passes_and_says_when_dense_is_better():
    told = fd.explain(fd.jacobian_sparse(brusselator), random_point(2, 32, 32))
    assert told.recipe == "jacobian_sparse"
    assert "12 " in repr(told)
    assert "12288" in repr(told)
    dense = fd.explain(fd.jacobian_sparse(lambda x: x.sum() * x), random_point(30))
    assert dense.recipe == "jacobian"
    assert "use jacobian" in repr(dense)
    assert "branch taken" in repr(fd.explain(fd.jacobian_sparse(BRANCHES["if"]), X))
    inverse = fd.jacobian_sparse(lambda x: torch.linalg.pinv(x.reshape(4, 2)))
    assert "no rule for linalg_pinv" in repr(fd.explain(inverse, X))
    assert fd.explain(fd.hessian_sparse(arrow), random_point(200)).recipe == "hessian_sparse"
