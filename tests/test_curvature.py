"""Gauss-Newton, Fisher and Jacobian operators against matrices derived by hand, in float64."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._automatic import linear
from funcdiff.recipes.linear import by_double_backward

T = torch.linspace(0, 1, 6, dtype=torch.float64)
X = torch.tensor([1.2, 0.7], dtype=torch.float64)
ROWS = torch.tensor([[0.3, -1.0, 0.5], [1.1, 0.2, -0.7], [-0.4, 0.9, 0.6], [0.8, -0.3, 0.1]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 0])
W = torch.tensor([[0.2, -0.5, 1.0], [0.7, 0.1, -0.3], [-0.6, 0.4, 0.2]], dtype=torch.float64)


def decay(x):
    return x[0] * torch.exp(-x[1] * T)


def decay_jacobian(x):
    e = torch.exp(-x[1] * T)
    return torch.stack([e, -x[0] * T * e], 1)


def half_squares(y):
    return (y - 0.5).square().sum() / 2


def logits(w):
    return ROWS @ w.T


def cross_entropy(y):
    return F.cross_entropy(y, LABELS, reduction="sum")


def softmax_hessian():
    """Of the cross entropy of a linear model in its weight: the sum over rows of (diag(p) - p p^T) x x^T."""
    p = (ROWS @ W.T).softmax(1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("bij,bk,bl->ikjl", inner, ROWS, ROWS).reshape(9, 9)


def eye(operator):
    return operator @ torch.eye(operator.shape[1], dtype=torch.float64)


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3)).double()
    return fd.module_function(net)


def test_the_jacobian_operator_is_the_jacobian_by_hand():
    operator = fd.jacobian_operator(decay, X)
    assert operator.shape == (6, 2)
    assert_close(eye(operator), decay_jacobian(X))
    assert_close(eye(operator.T), decay_jacobian(X).T)
    assert_close(operator(X), decay_jacobian(X) @ X)
    assert_close(operator.T(T), decay_jacobian(X).T @ T)


@pytest.mark.parametrize("verify", [True, False])
def test_the_jacobian_operator_of_a_tree(verify):
    def func(p, s):
        return {"a": s * p["w"] @ p["b"], "b": p["b"].sin()}

    p = {"w": W, "b": ROWS[0]}
    s = torch.tensor(0.7, dtype=torch.float64)
    operator = fd.jacobian_operator(func, p, s, verify=verify)
    tangent = {"w": W.cos(), "b": ROWS[1]}
    out = operator(tangent, torch.ones_like(s))
    assert_close(out["a"], s * (W.cos() @ ROWS[0] + W @ ROWS[1]) + W @ ROWS[0])
    assert_close(out["b"], ROWS[0].cos() * ROWS[1])
    u = {"a": ROWS[2], "b": ROWS[3]}
    back, slope = operator.T(u)
    assert_close(back["w"], s * torch.outer(ROWS[2], ROWS[0]))
    assert_close(slope, ROWS[2] @ W @ ROWS[0])


def test_func_runs_once_for_all_products():
    calls = []

    def counted(x):
        calls.append(1)
        return decay(x)

    operator = fd.jacobian_operator(counted, X)
    made = len(calls)
    eye(operator), eye(operator.T), operator(X)
    assert len(calls) == made


def test_scipy_takes_an_operator_as_it_is():
    linalg = pytest.importorskip("scipy.sparse.linalg")
    operator, matrix, b = fd.jacobian_operator(decay, X), decay_jacobian(X).numpy(), np.linspace(-1, 1, 6)
    expected = np.linalg.lstsq(matrix, b, rcond=None)[0]
    np.testing.assert_allclose(linalg.lsqr(operator, b, atol=1e-14, btol=1e-14)[0], expected, rtol=1e-8)
    np.testing.assert_allclose(linalg.lsmr(operator, b, atol=1e-14, btol=1e-14)[0], expected, rtol=1e-8)
    largest = linalg.svds(operator, k=1, return_singular_vectors=False)
    np.testing.assert_allclose(largest, np.linalg.svd(matrix, compute_uv=False)[:1])
    hessian = fd.hvp_operator(lambda w: cross_entropy(logits(w)), W)
    found = linalg.eigsh(hessian, k=2, return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(found), np.linalg.eigvalsh(softmax_hessian().numpy())[-2:], rtol=1e-9)
    solution, failed = linalg.cg(hessian.damped(0.1), np.ones(9), rtol=1e-12)
    assert not failed
    np.testing.assert_allclose((softmax_hessian().numpy() + 0.1 * np.eye(9)) @ solution, np.ones(9), atol=1e-9)


def test_a_damped_operator_adds_to_the_diagonal():
    hessian = fd.hvp_operator(lambda w: cross_entropy(logits(w)), W)
    expected = softmax_hessian() + 0.3 * torch.eye(9, dtype=torch.float64)
    damped = hessian.damped(0.3)
    assert_close(eye(damped), expected)
    assert_close(eye(damped.T), expected)
    assert_close(damped @ torch.ones(9, dtype=torch.float64), expected.sum(1))
    assert_close(damped(W).flatten(), expected @ W.flatten())
    with pytest.raises(ValueError, match="whose inputs and outputs have the same shapes"):
        fd.jacobian_operator(decay, X).damped(0.3)


def test_gauss_newton_of_squares_is_the_squared_jacobian():
    jacobian = decay_jacobian(X)
    assert_close(eye(fd.gauss_newton_operator(decay, half_squares, X)), jacobian.T @ jacobian)
    product = fd.gauss_newton_product(decay, half_squares, (X,), (X.cos(),))
    assert_close(product, jacobian.T @ jacobian @ X.cos())


def test_gauss_newton_of_a_linear_model_is_the_hessian():
    expected = softmax_hessian()
    assert_close(eye(fd.gauss_newton_operator(logits, cross_entropy, W)), expected)
    assert_close(eye(fd.hvp_operator(lambda w: cross_entropy(logits(w)), W)), expected)
    hessian = fd.hessian(lambda w: cross_entropy(logits(w)))(W).reshape(9, 9)
    assert_close(hessian, expected)


def test_gauss_newton_differs_from_the_hessian_by_the_curvature_of_the_model():
    residual = decay(X) - 0.5
    curvature = torch.einsum("k,kij->ij", residual, fd.hessian(decay)(X))
    hessian = fd.hessian(lambda x: half_squares(decay(x)))(X)
    assert_close(eye(fd.gauss_newton_operator(decay, half_squares, X)), hessian - curvature)


@pytest.mark.parametrize(("likelihood", "loss"), [("categorical", cross_entropy), ("gaussian", half_squares)])
def test_fisher_is_gauss_newton_of_the_negative_log_likelihood(likelihood, loss):
    func, parameters = network()

    def model(p):
        return func(p, ROWS)

    fisher = fd.fisher_operator(model, parameters, likelihood=likelihood)
    assert_close(eye(fisher), eye(fd.gauss_newton_operator(model, loss, parameters)))


def test_fisher_of_a_linear_model_by_hand():
    assert_close(eye(fd.fisher_operator(logits, W, likelihood="categorical")), softmax_hessian())
    gaussian = torch.kron(torch.eye(3, dtype=torch.float64), ROWS.T @ ROWS)
    assert_close(eye(fd.fisher_operator(logits, W)), gaussian)


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_sampled_fisher_is_right_on_average_and_repeated_by_a_generator(likelihood):
    exact = eye(fd.fisher_operator(logits, W, likelihood=likelihood))

    def sampled(seed, samples):
        generator = torch.Generator().manual_seed(seed)
        operator = fd.fisher_operator(logits, W, likelihood=likelihood, samples=samples, generator=generator)
        return eye(operator)

    before = torch.get_rng_state()
    assert torch.equal(sampled(1, 3), sampled(1, 3))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(sampled(1, 3), sampled(2, 3))
    draws = torch.stack([sampled(seed, 50) for seed in range(200)])
    error = draws.std(0) / 200**0.5
    assert ((draws.mean(0) - exact).abs() <= 4.5 * error + 1e-12).all()  # 81 entries


@pytest.mark.parametrize("which", ["push", "pull"])
def test_a_formula_that_is_wrong_is_found_and_not_used(which, monkeypatch):
    name = "jacobian_batched_grad, products"

    def wrong(flat, x):
        value, along, pull = by_double_backward(flat, x)
        if which == "pull":
            return value, along, lambda u: [1.5 * leaf for leaf in pull(u)]
        return value, lambda v: (along(v)[0], [1.5 * leaf for leaf in along(v)[1]]), pull

    monkeypatch.setitem(linear._FORMULAS, name, wrong)
    fd.clear_plans()
    assert_close(eye(fd.fisher_operator(decay, X)), decay_jacobian(X).T @ decay_jacobian(X))
    fd.clear_plans()
    unchecked = eye(fd.fisher_operator(decay, X, verify=False))  # the fault is there
    assert_close(unchecked, 1.5 * decay_jacobian(X).T @ decay_jacobian(X))
    fd.clear_plans()


def test_numbers_read_out_of_the_graph_are_refused():
    with pytest.raises(RuntimeError, match=r"differences|NumPy"):
        fd.jacobian_operator(lambda x: torch.from_numpy(np.sin(x.detach().numpy())) + 0 * x, X)
    with pytest.raises(RuntimeError, match="draws random numbers"):
        fd.jacobian_operator(lambda x: x * torch.rand_like(x), X)
    with pytest.raises(RuntimeError, match="writes into"):
        fd.jacobian_operator(lambda x: x.mul_(2), X)


def test_dropout_and_batch_norm_in_training_mode_are_refused():
    for layer in (nn.Dropout(0.5), nn.BatchNorm1d(3)):
        with pytest.raises(ValueError, match="evaluation mode"):
            fd.module_function(nn.Sequential(nn.Linear(3, 3), layer).double())
    with pytest.raises(RuntimeError, match="random"):
        fd.fisher_operator(lambda w: F.dropout(logits(w), 0.5), W)


def test_no_grad_around_the_call_changes_nothing_and_within_it_is_refused():
    with torch.no_grad():
        operator = fd.gauss_newton_operator(decay, half_squares, X)
        assert_close(eye(operator), decay_jacobian(X).T @ decay_jacobian(X))

    def cut(x):
        with torch.no_grad():
            y = decay(x)
        return y + 0 * x.sum()

    with pytest.raises(RuntimeError, match=r"ignores torch\.no_grad"):
        fd.jacobian_operator(cut, X)


def test_a_product_can_be_trained_through():
    x = X.clone().requires_grad_()
    fd.gauss_newton_product(decay, half_squares, (x,), (X,)).sum().backward()
    expected = torch.func.grad(lambda x: (decay_jacobian(x).T @ decay_jacobian(x) @ X).sum())(X)
    assert_close(x.grad, expected)


def test_operators_multiply_transpose_and_scale():
    jacobian = fd.jacobian_operator(decay, X)
    assert_close(eye(jacobian.T @ jacobian), decay_jacobian(X).T @ decay_jacobian(X))
    assert_close(eye(2 * jacobian / 4), decay_jacobian(X) / 2)
    with pytest.raises(ValueError, match="expected 2 rows"):
        jacobian @ jacobian
    with pytest.raises(ValueError, match=r"expected vectors of shape \(2,\)"):
        jacobian @ T
    assert repr(jacobian) == "Operator(shape=(6, 2), dtype=float64)"
    assert "bfloat16" in repr(fd.jacobian_operator(torch.sin, X.bfloat16()))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: fd.gauss_newton_product(decay, half_squares, X, X), TypeError, r"Write \(x,\)"),
        (lambda: fd.gauss_newton_product(decay, half_squares, (X,), (X[:1],)), ValueError, "do not broadcast"),
        (lambda: fd.gauss_newton_product(decay, decay, (X,), (X,)), (ValueError, IndexError), "scalar|index"),
        (lambda: fd.gauss_newton_operator(decay, lambda y: y, X), ValueError, "scalar"),
        (lambda: fd.jacobian_operator(decay, X)(X.float()), TypeError, "dtype of its primal"),
        (lambda: fd.fisher_operator(decay, X, likelihood="poisson"), ValueError, "gaussian"),
        (lambda: fd.fisher_operator(decay, X, samples=0), ValueError, "samples"),
        (lambda: fd.fisher_operator(lambda x: x.sum(), X, likelihood="categorical"), ValueError, "axis of categories"),
        (lambda: fd.fisher_operator(lambda x: (x, x), X, likelihood="categorical"), TypeError, "one tensor"),
        (lambda: fd.jacobian_operator(lambda x: x.long(), X), TypeError, "floating-point"),
    ],
)
def test_bad_input_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("captured", [False, True])
def test_attention_and_norms_have_right_products_also_when_trained_through(captured):
    torch.manual_seed(0)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=captured)

    def model(x):
        x = F.layer_norm(scale * x, (3,))
        return F.scaled_dot_product_attention(x, x.sin(), x[:, :, :2])

    x, v = torch.randn(1, 4, 3, dtype=torch.float64), torch.randn(1, 4, 3, dtype=torch.float64)
    jacobian = fd.jacobian(model)(x).reshape(8, 12)
    operator = fd.jacobian_operator(model, x)
    assert_close(operator @ v.reshape(12), jacobian @ v.reshape(12))
    assert_close(operator.T @ jacobian[:, 0], jacobian.T @ jacobian[:, 0])
    if captured:
        found = torch.autograd.grad(operator(v).square().sum(), scale)[0]
        step = 1e-5
        ends = []
        for shift in (step, -step):
            with torch.no_grad():
                scale += shift
            ends.append(fd.jacobian_operator(model, x)(v).square().sum().detach())
            with torch.no_grad():
                scale -= shift
        assert_close(found, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [lambda x: F.layer_norm(x, (3,), W[0]), lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None])],
    ids=["norm", "attention"],
)
def test_a_compiled_product_can_be_trained_through_a_norm_and_attention(model):
    def squared(x):
        return fd.jacobian_operator(model, x)(W).square().sum()

    torch.compiler.reset()
    compiled = torch.compile(squared, backend="aot_eager", fullgraph=True)
    slopes = []
    for func in (squared, compiled):
        x = ROWS[:3].clone().requires_grad_()
        slopes += torch.autograd.grad(func(x), x)
    assert_close(slopes[1], slopes[0])


def test_the_first_many_products_of_an_unchecked_operator_are_made_at_once(monkeypatch):
    monkeypatch.setattr("funcdiff._calling.operator.cannot", lambda error: pytest.fail(str(error)))
    operator = fd.jacobian_operator(torch.sin, torch.zeros(3), verify=False)
    assert_close(operator @ torch.eye(3), torch.eye(3))
