"""Taylor mode on networks, inside transforms, and differentiated again."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from taylor import central_differences, close, mlp, point, traces
from torch import nn
from torch.func import functional_call, grad, jacfwd, vmap

from funcdiff import hessian_reverse_over_reverse, hessian_taylor, laplacian

# Networks


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x)[0]


class Causal(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x.sin(), x * x, is_causal=True)


ACTIVATIONS = (
    nn.ReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.LeakyReLU,
    nn.Hardswish, nn.Hardsigmoid, nn.Tanhshrink, nn.Softshrink, nn.Softsign, nn.CELU, nn.SELU, nn.PReLU,
    nn.Hardtanh, nn.ReLU6,
)  # fmt: skip
NETWORKS = {
    **{kind.__name__: (lambda kind=kind: mlp(kind()), (4,)) for kind in ACTIVATIONS},
    "ReLU in place": (lambda: mlp(nn.ReLU(inplace=True)), (4,)),
    "ELU in place": (lambda: mlp(nn.ELU(inplace=True)), (4,)),
    "layer norm": (lambda: mlp(nn.GELU(), nn.LayerNorm(6)), (4,)),
    "RMS norm": (lambda: mlp(nn.GELU(), nn.RMSNorm(6)), (4,)),
    "residual": (lambda: nn.Sequential(nn.Linear(4, 4), Residual(nn.Sequential(nn.Tanh(), nn.Linear(4, 4)))), (4,)),
    "softmax": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), (4,)),
    "log softmax": (lambda: nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(-1)), (4,)),
    "GLU": (lambda: nn.Sequential(nn.Linear(4, 6), nn.GLU()), (4,)),
    "dropout, evaluated": (lambda: mlp(nn.Tanh(), nn.Dropout(0.5)).eval(), (4,)),
    "batch norm, evaluated": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.BatchNorm1d(3)).eval(), (2, 4)),
    "batch norm of this batch": (
        lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.BatchNorm1d(3, track_running_stats=False)),
        (3, 2),
    ),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.GELU(), nn.AvgPool1d(2), nn.ConvTranspose1d(2, 1, 2)),
        (1, 1, 6),
    ),
    "max pooling": (lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten()), (1, 1, 3, 3)),
    "group norm": (lambda: nn.Sequential(nn.Conv1d(1, 4, 2), nn.GroupNorm(2, 4), nn.Tanh()), (1, 1, 5)),
    "instance norm": (
        lambda: nn.Sequential(nn.Conv1d(1, 2, 2), nn.InstanceNorm1d(2, affine=True), nn.SiLU()),
        (1, 1, 5),
    ),
    "upsampling": (lambda: nn.Sequential(nn.Conv2d(1, 1, 2), nn.Tanh(), nn.Upsample(scale_factor=2)), (1, 1, 3, 3)),
    "attention": (Attention, (1, 3, 4)),
    "causal attention": (Causal, (3, 2)),
    "transformer layer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), (1, 2, 4)),
    "bilinear": (lambda: Twice(nn.Bilinear(4, 4, 2)), (4,)),
}


class Twice(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x, x.sin())


def network(name):
    build, shape = NETWORKS[name]
    torch.manual_seed(1)
    return build().double(), shape


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_in_their_input(name, composed):
    net, shape = network(name)
    x = point(math.prod(shape))

    def flat(x):
        return net(x.reshape(shape)).flatten() ** 3

    expected = central_differences(flat, x)
    torch.testing.assert_close(hessian_taylor(flat)(x), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(laplacian(flat)(x), traces(expected), rtol=1e-5, atol=1e-5)
    assert not composed()


@pytest.mark.parametrize("name", ["Tanh", "layer norm", "batch norm of this batch", "convolutions", "group norm"])
def test_networks_in_their_parameters(name, composed):
    net, shape = network(name)
    parameters = {key: parameter.detach() for key, parameter in net.named_parameters()}
    vector, sizes = torch.cat([p.flatten() for p in parameters.values()]), [p.numel() for p in parameters.values()]
    x = point(*shape)

    def loss(vector):
        parts = zip(parameters.items(), vector.split(sizes), strict=True)
        return functional_call(net, {key: part.view_as(like) for (key, like), part in parts}, (x,)).pow(3).sum()[None]

    expected = central_differences(loss, vector)
    torch.testing.assert_close(hessian_taylor(loss)(vector), expected, rtol=1e-5, atol=1e-5)
    assert not composed()


def test_parameters_as_a_pytree(composed):
    net = nn.Linear(2, 1).double()
    parameters, x = dict(net.named_parameters()), point(2)
    hessian = hessian_taylor(lambda parameters: functional_call(net, parameters, (x,)).square().sum())(parameters)
    close(hessian["weight"]["weight"][0, :, 0, :].detach(), 2 * torch.outer(x, x))
    close(hessian["weight"]["bias"][0, :, 0].detach(), 2 * x)
    assert not composed()


# Composition with the transforms


def matrix_products(func, *args):
    """How many matrix products torch really executes."""

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        products = 0

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            self.products += op.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm)
            return op(*args, **(kwargs or {}))

    with Count() as count:
        func(*args)
    return count.products


def test_vmap_keeps_the_batch_in_one_product():
    net, x = mlp(nn.ELU()), point(9, 4)
    hessians = vmap(hessian_taylor(net))(x)
    close(hessians, torch.stack([hessian_taylor(net)(row) for row in x]))
    close(vmap(laplacian(net))(x), traces(hessians))
    # Per layer: the value, the first derivatives, and from the first activation on the second ones.
    assert matrix_products(vmap(hessian_taylor(net)), x) == 3 * 3 - 1
    assert matrix_products(vmap(laplacian(net)), x) == 3 * 3 - 1


def test_training_through_a_laplacian():
    x, a, w = (torch.tensor(value, dtype=torch.float64) for value in (0.3, 1.5, 0.7))
    t = (w * x).tanh()
    second, third = -2 * t * (1 - t**2), (1 - t**2) * (6 * t**2 - 2)

    def lap(a, w):
        return laplacian(lambda x: a * torch.tanh(w * x))(x)

    close(lap(a, w), a * w**2 * second)
    close(grad(lap, (0, 1))(a, w), (w**2 * second, 2 * a * w * second + a * w**2 * x * third))
    a.requires_grad_(), w.requires_grad_()
    lap(a, w).backward()
    close((a.grad, w.grad), tuple(p.detach() for p in (w**2 * second, 2 * a * w * second + a * w**2 * x * third)))


def test_a_training_step_on_a_network():
    net, x = mlp(nn.Tanh()), point(5, 4)
    parameters = {key: p.detach() for key, p in net.named_parameters()}

    def loss(second_derivatives, parameters):
        return vmap(second_derivatives(lambda x: functional_call(net, parameters, (x,)).sum()))(x).square().mean()

    def by_reverse(func):
        return lambda x: traces(hessian_reverse_over_reverse(func)(x))

    close(grad(partial(loss, laplacian))(parameters), grad(partial(loss, by_reverse))(parameters))


def test_third_derivatives_through_the_hessian():
    x = point(3)
    third = torch.zeros(3, 3, 3, dtype=x.dtype)
    third[range(3), range(3), range(3)] = -x.cos()
    close(jacfwd(hessian_taylor(lambda x: x.sin().sum()))(x), third)
    close(hessian_taylor(lambda x: x.sin().sum())(x), torch.diag(-x.sin()))


def test_under_no_grad():
    x = point(3)
    with torch.no_grad():
        close(laplacian(lambda x: x.pow(3).sum())(x), 6 * x.sum())


@pytest.mark.filterwarnings("ignore")  # the compiler's own deprecations
@pytest.mark.parametrize("transform", [hessian_taylor, laplacian])
def test_compiles_to_one_graph(transform):
    net = mlp(nn.ELU())
    net.requires_grad_(False)

    def func(x):
        return net(x) * x[1:].square().sum() + x.softmax(0)[:3] / (1 + x[0] ** 2)

    compiled = torch.compile(vmap(transform(func)), fullgraph=True, backend="aot_eager")
    x = point(5, 4)
    close(compiled(x), vmap(transform(func))(x))
