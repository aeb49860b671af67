"""The code of the reference studies runs unchanged after one change of import, with torch.func's own results."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import jvp, vjp, vmap
from torch.testing import assert_close

from funcdiff import hessian_forward_over_reverse as hessian
from funcdiff import jacobian_forward as jacfwd
from funcdiff import jacobian_reverse as jacrev
from funcdiff.problems import study_network

OURS = {"jacrev": jacrev, "jacfwd": jacfwd, "hessian": hessian}
THEIRS = {name: getattr(torch.func, name) for name in OURS}


def composing_transforms(jacrev, jacfwd, hessian):
    """Study A."""
    torch.manual_seed(0)

    def predict(weight, bias, x):
        return F.linear(x, weight, bias).tanh()

    weight, bias, x = torch.randn(16, 16), torch.randn(16), torch.randn(16)
    yield jacrev(predict, argnums=2)(weight, bias, x)
    yield jacrev(predict, argnums=(0, 1))(weight, bias, x)
    for n, m in ((32, 256), (256, 32)):
        weight, bias, x = torch.randn(m, n), torch.randn(m), torch.randn(n)
        yield jacfwd(predict, argnums=2)(weight, bias, x)
        yield jacrev(predict, argnums=2)(weight, bias, x)
    weight, bias, x = torch.randn(8, 64), torch.randn(8), torch.randn(64)
    yield hessian(predict, argnums=2)(weight, bias, x)
    yield jacfwd(jacfwd(predict, argnums=2), argnums=2)(weight, bias, x)
    yield jacrev(jacrev(predict, argnums=2), argnums=2)(weight, bias, x)
    weight, bias, x = torch.randn(33, 31), torch.randn(33), torch.randn(64, 31)
    yield vmap(jacrev(predict, argnums=2), in_dims=(None, None, 0))(weight, bias, x)
    yield jacrev(lambda w, b, x: predict(w, b, x).sum(0), argnums=2)(weight, bias, x).movedim(1, 0)
    yield vmap(hessian(predict, argnums=2), in_dims=(None, None, 0))(weight, bias, x[:4])


def six_interfaces(jacrev, jacfwd, hessian):
    """Study B."""
    torch.manual_seed(0)

    def predict(weight, bias, x):
        return F.linear(x, weight, bias)

    for n, m in ((16, 128), (128, 16)):
        weight, bias, x = torch.randn(m, n), torch.randn(m), torch.randn(4, n)
        for transform in (jacrev, jacfwd):
            yield transform(predict, argnums=2)(weight, bias, x[0])
            yield transform(predict, argnums=(0, 1))(weight[:8, :8], bias[:8], x[0, :8])
            yield vmap(transform(predict, argnums=2), in_dims=(None, None, 0))(weight, bias, x)


def network_derivatives(jacrev, jacfwd, hessian):
    """Study C, on a narrower network."""
    network = study_network((5, 40, 40, 25))
    torch.manual_seed(0)
    x = torch.randn(10, 5)
    for transform in (
        jacrev(network),
        jacfwd(network),
        hessian(network),
        jacrev(jacrev(network)),
        jacrev(jacfwd(network)),
        jacfwd(jacrev(network)),
        jacfwd(jacfwd(network)),
    ):
        yield vmap(transform)(x)


@pytest.mark.parametrize("study", [composing_transforms, six_interfaces, network_derivatives])
def test_a_study_gives_what_torch_func_gives(study):
    for ours, theirs in zip(list(study(**OURS)), list(study(**THEIRS)), strict=True):
        assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_products_of_study_a():
    from funcdiff import hvp_double_backward, hvp_forward_over_reverse, vhp

    def f(x):
        return x.sin().sum()

    torch.manual_seed(0)
    x, v = torch.randn(2048), torch.randn(2048)
    assert_close(hvp_forward_over_reverse(f, (x,), (v,)), jvp(torch.func.grad(f), (x,), (v,))[1])
    assert_close(vhp(f, (x,), (v,)), vjp(torch.func.grad(f), x)[1](v)[0])
    assert_close(hvp_double_backward(f, (x,), (v,)), -x.sin() * v)
