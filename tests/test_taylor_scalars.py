"""Activations with closed forms, with every option that changes them, and where their results are added in place."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import grad, vmap

from funcdiff import hessian_taylor, laplacian
from funcdiff._automatic import taylor
from funcdiff._jets import pairs
from funcdiff.measure import count

X = torch.tensor([-1.7, -0.4, 0.3, 1.9], dtype=torch.float64)


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


def gelu_tanh_bend(x):
    c = math.sqrt(2 / math.pi)
    inner, slope, bend = c * (x + 0.044715 * x**3), c * (1 + 3 * 0.044715 * x**2), c * 6 * 0.044715 * x
    sech2 = 1 - inner.tanh() ** 2
    return sech2 * slope + x / 2 * (sech2 * bend - 2 * inner.tanh() * sech2 * slope**2)


@pytest.mark.parametrize(
    ("func", "bend"),
    [
        (F.elu, lambda x: torch.where(x > 0, 0.0, x.exp())),
        (lambda x: F.elu(x, 0.3), lambda x: torch.where(x > 0, 0.0, 0.3 * x.exp())),
        (lambda x: F.elu(x, alpha=0.0), lambda x: 0 * x),
        (lambda x: F.elu(x * 1, inplace=True), lambda x: torch.where(x > 0, 0.0, x.exp())),
        (nn.ELU(alpha=2.0), lambda x: torch.where(x > 0, 0.0, 2 * x.exp())),
        (F.gelu, lambda x: torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * (2 - x**2)),
        (nn.GELU(approximate="tanh"), gelu_tanh_bend),
        (F.silu, lambda x: (lambda s: s * (1 - s) * (2 + x * (1 - 2 * s)))(torch.sigmoid(x))),
        (F.softplus, lambda x: torch.sigmoid(x) * torch.sigmoid(-x)),
        (nn.Softplus(), lambda x: torch.sigmoid(x) * torch.sigmoid(-x)),
        (nn.Softplus(2.0), lambda x: 2 * torch.sigmoid(2 * x) * torch.sigmoid(-2 * x)),
        (lambda x: F.softplus(x, threshold=1.0), lambda x: torch.sigmoid(x) * torch.sigmoid(-x) * (x <= 1)),
        (
            lambda x: F.softplus(20 * x + 1),
            lambda x: (lambda s: 400 * s * (1 - s) * (x < 0.9))(torch.sigmoid(20 * x + 1)),
        ),
        (torch.cos, lambda x: -torch.cos(x)),
        (torch.square, lambda x: 2 + 0 * x),
        (lambda x: x**2, lambda x: 2 + 0 * x),
        (lambda x: x.pow(3.0), lambda x: 6 * x),
        (lambda x: torch.pow(x, 5), lambda x: 20 * x**3),
        (lambda x: x**1, lambda x: 0 * x),
        (lambda x: (x * 1).pow_(4), lambda x: 12 * x**2),
        (lambda x: 2 ** (x), lambda x: math.log(2) ** 2 * 2**x),
        (lambda x: 3.0 ** (x), lambda x: math.log(3) ** 2 * 3**x),
        (lambda x: torch.float_power(x, 3), lambda x: 6 * x),
        (lambda x: torch.pow(input=x, exponent=3), lambda x: 6 * x),
        (lambda x: torch.mul(x, other=x), lambda x: 2 + 0 * x),
        (lambda x: torch.square(input=x), lambda x: 2 + 0 * x),
        (lambda x: torch.tanh(input=x), lambda x: -2 * x.tanh() * (1 - x.tanh() ** 2)),
        (lambda x: torch.where(x > 0, input=x**3, other=x**2), lambda x: torch.where(x > 0, 6 * x, 2)),
        (lambda x: torch.where(condition=x > 0, input=x**3, other=x**2), lambda x: torch.where(x > 0, 6 * x, 2)),
        (lambda x: torch.polygamma(n=1, input=x + 3), lambda x: torch.polygamma(3, x + 3)),
        (lambda x: torch.nan_to_num(input=x**3), lambda x: 6 * x),
        (lambda x: (x / 2) ** 2000, lambda x: 0 * x + (x.abs() > 1.89) * 2000 * 1999 / 4 * (x / 2) ** 1998),
        (lambda x: (x + 2) ** 2.5, lambda x: 3.75 * (x + 2).sqrt()),
        (lambda x: torch.log(x + 2), lambda x: -((x + 2) ** -2.0)),
        (lambda x: (x + 2).log_(), lambda x: -((x + 2) ** -2.0)),
        (lambda x: 1 / x, lambda x: 2 / x**3),
        (lambda x: x.reciprocal(), lambda x: 2 / x**3),
        (lambda x: torch.rsqrt(x + 2), lambda x: 0.75 * (x + 2) ** -2.5),
        (lambda x: F.silu(x * 1, inplace=True), lambda x: (lambda s: s * (1 - s) * (2 + x * (1 - 2 * s)))(x.sigmoid())),
    ],
)
def test_options(func, bend):
    close(hessian_taylor(func)(X), torch.diag(bend(X)).unsqueeze(0).expand(4, 4, 4) * torch.eye(4)[:, :, None])


@pytest.mark.parametrize("k", [2, 3, 2.0, 2.5, 2**33, 1e20])
def test_powers_are_in_the_precision_of_torch_and_do_not_overflow(k):
    x = torch.tensor([0.5, 0.25])
    for power in (torch.pow, torch.float_power):
        hessian, expected = hessian_taylor(lambda x: power(x, k))(x), torch.func.hessian(lambda x: power(x, k))(x)  # noqa: B023  # called at once
        assert hessian.dtype == power(x, k).dtype
        torch.testing.assert_close(hessian, expected, check_dtype=False)
    one = torch.ones(2)
    with pytest.raises(RuntimeError, match="no recipe is known to be right"):
        laplacian(lambda x: torch.float_power((x - 1).abs(), 2).sum())(one)


def test_an_error_of_a_rule_is_none_that_the_function_waits_for():
    def func(x):
        try:
            return torch.mm(x.reshape(2, 2), mat2=torch.eye(2, dtype=x.dtype)).square()
        except (TypeError, ValueError, IndexError):
            return x**3

    torch.testing.assert_close(hessian_taylor(func)(X), torch.func.hessian(func)(X))


def test_a_layer_takes_the_closed_form():
    """With another alpha it goes the general way, nested forward mode, which starts more."""
    assert count(hessian_taylor(nn.ELU()), X).operations < count(hessian_taylor(nn.ELU(1.5)), X).operations


def chain(w, x):
    """Second derivatives go through the second tanh, and are added there to those of its own: in place if they may."""
    return torch.tanh(w * torch.tanh(w * x))


def chain_bend(w, x):
    inner, outer = torch.tanh(w * x), torch.tanh(w * torch.tanh(w * x))
    slope = w * (1 - inner**2)
    bend = -2 * w * inner * slope
    return (1 - outer**2) * (w * bend - 2 * outer * (w * slope) ** 2)


W = torch.tensor([0.7, 1.1, -0.6, 0.9], dtype=torch.float64)


@pytest.fixture(params=["gathered", "by runs"])
def added(request, monkeypatch):
    """Both ways to add; torch's errors of a forbidden one must not be hidden by a fallback."""

    def no_fallback(*_):
        raise AssertionError("Taylor mode was left")

    monkeypatch.setattr(taylor, "chosen", lambda *_, **__: no_fallback)
    monkeypatch.setattr(pairs, "_SMALL", 0 if request.param == "by runs" else math.inf)


def second(w, x):
    return hessian_taylor(lambda x: chain(w, x).sum())(x).diagonal()


@pytest.mark.usefixtures("added")
def test_added_in_place_or_not_the_sum_is_the_same():
    expected = chain_bend(W, X)
    close(second(W, X), expected)
    close(vmap(second)(W.expand(3, 4), X.expand(3, 4)), expected.expand(3, 4))
    close(vmap(second, (0, None))(W.expand(3, 4), X), expected.expand(3, 4))
    close(vmap(second, (None, 0))(W, X.expand(3, 4)), expected.expand(3, 4))
    close(vmap(vmap(second, (None, 0)), (0, None))(W.expand(2, 4), X.expand(3, 4)), expected.expand(2, 3, 4))


@pytest.mark.usefixtures("added")
def test_graphs_keep_their_values():
    expected = grad(lambda w: chain_bend(w, X).sin().sum())(W)
    close(grad(lambda w: second(w, X).sin().sum())(W), expected)
    w = W.clone().requires_grad_()
    close(torch.autograd.grad(second(w, X).sin().sum(), w)[0], expected)
    rows = vmap(second, (None, 0))(w, X.expand(3, 4))
    close(torch.autograd.grad(rows.sin().sum(), w)[0], 3 * expected)
    close(grad(lambda w: vmap(second, (None, 0))(w, X.expand(3, 4)).sin().sum())(W), 3 * expected)


@pytest.mark.usefixtures("added")
def test_only_some_of_it_depends_on_the_batch():
    """The value has a batch from a detached term; its derivatives have none, so far."""

    def func(shift, x):
        return torch.tanh(torch.tanh(x) + shift).sum()

    shifts = torch.stack([X, X.flip(0)])
    got = vmap(lambda shift: hessian_taylor(lambda x: func(shift, x))(X))(shifts)
    inner = X.tanh()
    slope = 1 - inner**2
    outer = torch.tanh(inner + shifts)
    close(got, torch.diag_embed((1 - outer**2) * (-2 * inner * slope - 2 * outer * slope**2)))
