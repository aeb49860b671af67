"""The automatic recipes against derivatives by hand."""

import functools

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.testing import assert_close

import funcdiff as fd

close = functools.partial(assert_close, rtol=1e-10, atol=1e-12)


def numbers(*shape):
    return torch.linspace(-1, 1.3, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 9), (9, 2), (6, 6), (40, 1)])
def test_by_hand(n, m):
    weight = numbers(m, n)
    x = numbers(n)
    slope = torch.cos(weight @ x)[:, None] * weight
    bend = -torch.sin(weight @ x)[:, None, None] * weight[:, :, None] * weight[:, None, :]
    close(fd.jacobian(lambda x: torch.sin(weight @ x))(x), slope)
    close(fd.hessian(lambda x: torch.sin(weight @ x))(x), bend)
    v = numbers(n).flip(0)
    close(fd.hvp(lambda x: torch.sin(weight @ x).sum(), (x,), (v,)), bend.sum(0) @ v)


def test_trees_options_and_aux():
    def func(p, scale):
        return {"y": scale * p["a"] ** 3 * p["b"]}, p["a"] + 1

    p = {"a": numbers(2), "b": numbers(2) + 2}
    slope, aux = fd.jacobian(func, has_aux=True)(p, 2.0)
    close(slope["y"]["a"], torch.diag(6 * p["a"] ** 2 * p["b"]))
    close(aux, p["a"] + 1)
    bend, _ = fd.hessian(func, has_aux=True, chunk_size=1)(p, 2.0)
    expected = torch.zeros(2, 2, 2, dtype=torch.float64)
    expected[0, 0, 0], expected[1, 1, 1] = 6 * p["a"] ** 2
    close(bend["y"]["a"]["b"], expected)


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.GroupNorm(2, 6), nn.BatchNorm1d(6, track_running_stats=False)])
def test_by_all_parameters_of_a_norm(norm):
    # All four compositions of torch.func get the block of weight and input wrong; differences of gradients do not.
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 6), norm, nn.Tanh(), nn.Linear(6, 1)).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    vector, unravel = fd.ravel({name: p.detach() for name, p in net.named_parameters()})

    def loss(vector):
        return functional_call(net, unravel(vector), (x,)).pow(3).sum()

    def gradient(vector):
        return fd.jacobian_loop(loss)(vector)

    step = 1e-5 * torch.eye(len(vector), dtype=torch.float64)
    expected = torch.stack([(gradient(vector + e) - gradient(vector - e)) / 2e-5 for e in step])
    v = numbers(len(vector))
    for got in (fd.hessian(loss)(vector), vmap(fd.hessian(loss))(vector[None])[0]):
        assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert_close(fd.hvp(loss, (vector,), (v,)), expected @ v, rtol=1e-5, atol=1e-6)


def test_a_function_without_a_second_derivative_is_refused():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * x.cos()

    def func(x):
        return Once.apply(x).sum()

    x = numbers(3)
    close(fd.jacobian(func)(x), x.cos())
    for second in (fd.hessian(func), fd.hessian_taylor(func), lambda x: fd.hvp(func, (x,), (x,))):
        with pytest.raises(RuntimeError, match="no second derivative"):
            second(x)
