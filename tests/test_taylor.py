"""Taylor mode: closed forms, torch.func's calling convention, and what goes by composition."""

import math

import pytest
import torch
import torch.nn.functional as F
from taylor import central_differences, close, mlp, point, traces
from torch import nn
from torch.func import grad, vmap

from funcdiff import hessian_taylor, laplacian

# Closed forms


def test_quadratic_form_has_the_symmetrised_matrix():
    matrix = point(4, 4)
    close(hessian_taylor(lambda x: x @ matrix @ x)(point(4)), matrix + matrix.T)
    close(laplacian(lambda x: x @ matrix @ x)(point(4)), 2 * matrix.trace())


def test_elementwise_functions_have_diagonal_hessians():
    x = point(5).abs() + 0.5
    for func, second in [
        (torch.sin, -x.sin()),
        (torch.exp, x.exp()),
        (torch.log, -1 / x**2),
        (torch.tanh, -2 * x.tanh() * (1 - x.tanh() ** 2)),
        (torch.sqrt, -(x**-1.5) / 4),
        (lambda x: x**3, 6 * x),
        (lambda x: 2**x, math.log(2) ** 2 * 2**x),
        (lambda x: 1 / x, 2 / x**3),
        (lambda x: 3 - x * x, torch.full_like(x, -2)),
        (torch.relu, torch.zeros_like(x)),
    ]:
        expected = torch.diag_embed(torch.diag(second))
        close(hessian_taylor(func)(x), expected)
        close(laplacian(func)(x), second)


def test_product_of_all_entries():
    x = point(4)
    hessian = torch.prod(x) / (x[:, None] * x)
    hessian.fill_diagonal_(0)
    close(hessian_taylor(torch.prod)(x), hessian)
    close(laplacian(torch.prod)(x), torch.tensor(0.0, dtype=x.dtype))


def test_radial_function():
    x = point(3)
    radius = x.norm()
    close(hessian_taylor(torch.norm)(x), torch.eye(3, dtype=x.dtype) / radius - torch.outer(x, x) / radius**3)
    close(laplacian(lambda x: 1 / x.norm())(x), torch.tensor(0.0, dtype=x.dtype))  # harmonic in three dimensions


def test_softmax_and_logsumexp():
    x = point(4)
    p = x.softmax(0)
    close(hessian_taylor(lambda x: x.logsumexp(0))(x), torch.diag(p) - torch.outer(p, p))


def test_trace_of_the_inverse():
    a = point(3, 3) + 4 * torch.eye(3, dtype=torch.float64)
    b = a.inverse()
    hessian = torch.einsum("mi,jk->ijkm", b @ b, b) + torch.einsum("jk,mi->ijkm", b @ b, b)
    close(hessian_taylor(lambda a: torch.linalg.inv(a).trace())(a), hessian)


# torch.func's calling convention


def test_pytrees_nest_the_output_outermost():
    def func(x, scale, y):
        return {"bilinear": x["a"] @ y * scale, "cubic": (x["b"] ** 3,)}

    x, y = {"a": point(2), "b": point(2, seed=1)}, point(2, seed=2)
    hessian = hessian_taylor(func, (0, -1))(x, 3.0, y)
    close(hessian["bilinear"][0]["a"][1], 3 * torch.eye(2, dtype=y.dtype))
    close(hessian["bilinear"][1][0]["a"], 3 * torch.eye(2, dtype=y.dtype))
    close(hessian["bilinear"][0]["a"][0]["a"], torch.zeros(2, 2, dtype=y.dtype))
    close(hessian["cubic"][0][0]["b"][0]["b"], torch.diag_embed(torch.diag(6 * x["b"])))
    sums = laplacian(func, (0, -1))(x, 3.0, y)
    close(sums, {"bilinear": torch.zeros((), dtype=y.dtype), "cubic": (6 * x["b"],)})


def test_matrix_and_scalar_inputs_keep_their_shapes():
    x = point(2, 3)
    hessian = hessian_taylor(lambda x: (x**2).sum(1))(x)
    assert hessian.shape == (2, 2, 3, 2, 3)
    eye = torch.eye(2, dtype=x.dtype)
    close(hessian, 2 * torch.einsum("oi,ok,jl->oijkl", eye, eye, torch.eye(3, dtype=x.dtype)))
    close(hessian_taylor(torch.sin)(point()), -point().sin())


def test_aux_is_returned_as_plain_tensors():
    x = point(3)
    hessian, aux = hessian_taylor(lambda x: (x.square().sum(), {"sine": x.sin()}), has_aux=True)(x)
    close(hessian, 2 * torch.eye(3, dtype=x.dtype))
    assert type(aux["sine"]) is torch.Tensor
    close(aux["sine"], x.sin())


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 7, 100])
def test_chunks_change_nothing(chunk_size):
    net = mlp(nn.Tanh())
    x = point(4)
    close(hessian_taylor(net, chunk_size=chunk_size)(x), hessian_taylor(net)(x))
    close(laplacian(net, chunk_size=chunk_size)(x), laplacian(net)(x))


def test_linear_and_constant_functions_have_zero_hessians():
    x = point(3)
    for func in (lambda x: 2 * x, lambda x: x * x.detach(), lambda x: torch.ones(3, dtype=x.dtype)):
        close(hessian_taylor(func)(x), torch.zeros(3, 3, 3, dtype=x.dtype))
        close(laplacian(func)(x), torch.zeros(3, dtype=x.dtype))


def test_empty_input(composed):
    assert hessian_taylor(torch.sin)(point(0)).shape == (0, 0, 0)


def test_expanded_and_strided_inputs():
    x = point(1).expand(3)
    close(hessian_taylor(lambda x: (x**3).sum())(x), torch.diag(6 * x))
    y = point(3, 4).T[::2]
    close(laplacian(lambda y: (y[1:] ** 2).tanh().sum())(y), laplacian(lambda y: (y[1:] ** 2).tanh().sum())(y.clone()))


def test_the_callers_tensors_stay_as_they_are():
    x = point(3)
    kept = x.clone()
    close(hessian_taylor(lambda x: x.mul_(2).square().sum())(x), 8 * torch.eye(3, dtype=x.dtype))
    assert torch.equal(x, kept)


# What jets cannot pass goes by composition


class StraightThrough(torch.autograd.Function):
    """Rounds, with the derivative of the sine."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.round()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, u):
        return ctx.saved_tensors[0].cos() * u

    @staticmethod
    def jvp(ctx, v):
        return ctx.saved_tensors[0].cos() * v


FALLBACKS = {
    "a transform inside": (
        lambda x: grad(lambda x: (x**3).sum())(x),
        lambda x: torch.diag_embed(torch.diag(x * 0 + 6)),
    ),
    "vmap inside": (lambda x: vmap(lambda x: x**3)(x), lambda x: torch.diag_embed(torch.diag(6 * x))),
    "complex numbers": (
        lambda x: torch.fft.fft(x).abs().square().sum(),  # Parseval: n |x|²
        lambda x: 2 * len(x) * torch.eye(len(x), dtype=x.dtype),
    ),
    "a custom function": (StraightThrough.apply, lambda x: torch.diag_embed(torch.diag(-x.sin()))),
    "a QR factorisation": (
        lambda x: torch.linalg.qr(torch.diag(x.exp() + 1))[1].diagonal().abs().log().sum(),
        lambda x: torch.diag(x.sigmoid() * (1 - x.sigmoid())),
    ),
    "in place, seen by a view": (
        doubled_view := lambda x: double_in_place(x),
        lambda x: 8 * torch.eye(len(x), dtype=x.dtype),
    ),
}


def double_in_place(x):
    y = x * 1
    y.view(-1).mul_(2)
    return y.square().sum()


@pytest.mark.parametrize("name", FALLBACKS)
def test_what_has_no_rule_is_composed(name, composed):
    func, hessian = FALLBACKS[name]
    x = point(3)
    close(hessian_taylor(func)(x), hessian(x))
    assert len(composed()) == 1
    close(laplacian(func)(x), traces(hessian(x)))


def test_recurrent_networks_are_composed(composed):
    net = nn.GRU(2, 3).double()
    x = point(4)

    def flat(x):
        return net(x.view(2, 2), x.new_zeros(1, 3))[0].flatten()

    torch.testing.assert_close(hessian_taylor(flat)(x), central_differences(flat, x), rtol=1e-5, atol=1e-6)
    assert composed()


def test_norms_are_right_in_the_composition_too(composed):
    def func(v):
        q, r = torch.linalg.qr(v[:4].view(2, 2))  # no rule
        return (F.layer_norm(q @ r, (2,), v[4:6], v[6:]) ** 3).sum()[None]

    v = point(8)
    torch.testing.assert_close(hessian_taylor(func)(v), central_differences(func, v), rtol=1e-4, atol=1e-4)
    assert composed()


def test_errors_of_func_are_its_own():
    with pytest.raises(ZeroDivisionError):
        hessian_taylor(lambda x: x / 0 if False else 1 / 0)(point(2))
