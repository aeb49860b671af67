"""Taylor mode where func writes, branches or draws, and what it refuses."""

import math

import pytest
import torch
import torch.nn.functional as F
from taylor import close, point

from funcdiff import hessian_taylor, laplacian

# In place, by value, at random


def test_in_place_operations_on_what_nobody_else_sees(composed):
    def func(x):
        y = x.sin()
        y += x
        y.mul_(x).add_(1)
        y[0] = x[1] ** 2
        return y

    x = point(2)
    expected = torch.zeros(2, 2, 2, dtype=x.dtype)
    expected[0, 1, 1] = 2
    expected[1, 1, 1] = 2 * x[1].cos() - x[1] * x[1].sin() + 2
    close(hessian_taylor(func)(x), expected)
    assert not composed()


def test_a_branch_is_taken_by_value(composed):
    def func(x):
        return (x**3).sum() if x.sum() > 0 else (x**2).sum()

    x = point(3).abs()
    close(hessian_taylor(func)(x), torch.diag(6 * x))
    close(hessian_taylor(func)(-x), 2 * torch.eye(3, dtype=x.dtype))
    assert not composed()


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_one_dropout_mask_for_all_derivatives(chunk_size, composed):
    x = point(8)
    torch.manual_seed(3)
    kept = F.dropout(torch.ones_like(x), 0.5)
    torch.manual_seed(3)
    hessian = hessian_taylor(lambda x: F.dropout(x, 0.5).pow(3).sum(), chunk_size=chunk_size, randomness="same")(x)
    close(hessian, torch.diag(6 * x * kept**3))
    assert not composed()


# Refusals


def under_no_grad(x):
    with torch.no_grad():
        scale = x.sum()
    return scale * x.square().sum()


def test_what_forward_mode_gets_wrong_is_taken_by_plain_autograd():
    x = point(4).abs()
    groups = torch.tensor([0, 0, 1, 1])
    hessian = hessian_taylor(lambda x: torch.scatter_reduce(x, 0, groups, x, "prod")[:2])(x)
    expected = torch.zeros(2, 4, 4, dtype=x.dtype)  # of x0^2 x1 and x1 x2 x3
    expected[0, 0, 0], expected[0, 0, 1], expected[0, 1, 0] = 2 * x[1], 2 * x[0], 2 * x[0]
    for i, j, k in ((1, 2, 3), (2, 3, 1), (3, 1, 2)):
        expected[1, i, j] = expected[1, j, i] = x[k]
    close(hessian, expected)
    with pytest.raises(RuntimeError, match="native_layer_norm"):  # not that one: by its weights all are wrong
        hessian_taylor(lambda x: torch.native_layer_norm(x, (4,), None, None, 1e-5)[0])(x)


RUNNING = torch.zeros(2), torch.ones(2)  # statistics that outlive the call


@pytest.mark.parametrize("transform", [hessian_taylor, laplacian])
@pytest.mark.parametrize(
    ("func", "error", "text"),
    [
        (lambda x: x[0].item() * x, RuntimeError, "call .detach"),
        (lambda x: float(x[0]) * x, RuntimeError, "call .detach"),
        (lambda x: math.sqrt(x[0]) * x, RuntimeError, "call .detach"),
        (lambda x: torch.tensor(x.tolist()), RuntimeError, "call .detach"),
        (lambda x: F.batch_norm(x.view(2, 2), *RUNNING, training=True), RuntimeError, "eval()"),
        (lambda x: F.dropout(x), RuntimeError, "random"),
        (lambda x: x.argmax(), TypeError, "floating-point output"),
        (lambda x: 1.0, TypeError, "to contain only tensors"),
    ],
)
def test_refusals(transform, func, error, text):
    with pytest.raises(error, match=text):
        transform(func)(point(4).abs())


def test_what_is_computed_under_no_grad_is_refused_by_taylor_mode_alone():
    x = point(4).abs()
    with pytest.raises(RuntimeError, match="remove no_grad"):
        hessian_taylor(under_no_grad)(x)
    close(laplacian(under_no_grad)(x), 8 * x.sum())  # 2 n s, of a constant s


@pytest.mark.parametrize("transform", [hessian_taylor, laplacian])
def test_bad_options_and_arguments(transform):
    with pytest.raises(ValueError, match="belong to no function"):
        transform(torch.sin, randomness="different")
    with pytest.raises(ValueError, match="chunk_size"):
        transform(torch.sin, chunk_size=0)
    with pytest.raises(TypeError, match="argnums"):
        transform(torch.sin, argnums="x")
    with pytest.raises(TypeError, match="floating-point"):
        transform(torch.sin)(torch.arange(3))
    with pytest.raises(TypeError, match="partial"):
        transform(torch.sin)(x=point(3))


def seen_through_a_view(x):
    y = x * 1
    view = y.view(-1)
    y.mul_(2)
    return view.square().sum()


def seen_detached(x):
    y = x * 1
    constant = y.detach()
    y.mul_(3)
    return (constant * y.square()).sum()


def kept_in_single_precision(x):
    y = x.float()
    y += x.square()
    return y.sum() if y.dtype == torch.float32 else 5 * y.sum()


ALIASES = {
    "by a view": (seen_through_a_view, lambda x: torch.full_like(x, 8)),
    "detached": (seen_detached, lambda x: 54 * x),
    "by another precision": (kept_in_single_precision, lambda x: torch.full_like(x, 2)),
}


@pytest.mark.parametrize("name", ALIASES)
def test_in_place_operations_that_others_see(name):
    func, diagonal = ALIASES[name]
    x = point(3)
    close(hessian_taylor(func)(x), torch.diag(diagonal(x)))


@pytest.mark.parametrize("func", [lambda x: (x * 1).add_(torch.ones(2, 3)), lambda x: torch.mul(x, x, out=x * 1)])
def test_what_torch_refuses_in_place_is_refused(func):
    with pytest.raises(RuntimeError):
        hessian_taylor(func)(point(3))


def test_complex_numbers_are_no_constants():
    close(hessian_taylor(lambda x: (x * (1 + 2j)).abs().square().sum())(point(3)), 10 * torch.eye(3).double())


def test_rounded_quotients_are_constants():
    x = point(3)
    hessian = hessian_taylor(lambda x: (torch.div(x, 0.3, rounding_mode="floor") * x.square()).sum())(x)
    close(hessian, torch.diag(2 * (x / 0.3).floor()))


def test_expanded_values_have_a_forward_derivative(composed):
    x = point(3)
    hessian = hessian_taylor(lambda x: x[:1].expand(3).logsumexp(0) + x.expand(2, 3).exp2().sum())(x)
    close(hessian, torch.diag(2 * math.log(2) ** 2 * x.exp2()))
    assert not composed()
