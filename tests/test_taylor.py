import logging
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, jacfwd, vmap

from funcdiff import hessian_reverse_over_reverse, hessian_taylor, laplacian

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)


def point(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def central_differences(func, x, step=1e-5):
    """The Hessian (m, n, n) of func: (n,) -> (m,) from differences of reverse-mode gradients."""
    rows = []
    for direction in torch.eye(x.numel(), dtype=x.dtype):
        slopes = []
        for sign in (1, -1):
            moved = (x + sign * step * direction).requires_grad_()
            outputs = func(moved)
            slopes.append(torch.stack([torch.autograd.grad(y, moved, retain_graph=True)[0] for y in outputs]))
        rows.append((slopes[0] - slopes[1]) / (2 * step))
    return torch.stack(rows, -1)


def traces(hessian):
    return hessian.diagonal(dim1=-2, dim2=-1).sum(-1)


@pytest.fixture
def composed(caplog):
    """Whether Taylor mode was left, with the reasons."""
    caplog.set_level(logging.INFO, "funcdiff.taylor")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "funcdiff.taylor"]


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
    for func in (lambda x: 2 * x, lambda x: x.detach() ** 2, lambda x: torch.ones(3, dtype=x.dtype)):
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


# Networks


def mlp(activation, *middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), activation, *middle, nn.Linear(6, 6), activation, nn.Linear(6, 3)).double()


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


def doubled_by_a_view(x):
    y = x * 1
    y.view(-1).mul_(2)
    return y.square().sum()


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


@pytest.mark.parametrize("transform", [hessian_taylor, laplacian])
@pytest.mark.parametrize(
    ("func", "error", "text"),
    [
        (lambda x: x[0].item() * x, RuntimeError, "use .detach"),
        (lambda x: float(x[0]) * x, RuntimeError, "use .detach"),
        (lambda x: math.sqrt(x[0]) * x, RuntimeError, "use .detach"),
        (lambda x: torch.tensor(x.tolist()), RuntimeError, "use .detach"),
        (under_no_grad, RuntimeError, "remove no_grad"),
        (lambda x: F.batch_norm(x.view(2, 2), torch.zeros(2), torch.ones(2), training=True), RuntimeError, "eval()"),
        (lambda x: F.dropout(x), RuntimeError, "random"),
        (lambda x: x.argmax(), TypeError, "floating-point output"),
        (lambda x: 1.0, TypeError, "to be a tensor"),
    ],
)
def test_refusals(transform, func, error, text):
    with pytest.raises(error, match=text):
        transform(func)(point(4).abs())


@pytest.mark.parametrize("transform", [hessian_taylor, laplacian])
def test_bad_options_and_arguments(transform):
    with pytest.raises(ValueError, match="second derivatives of different draws"):
        transform(torch.sin, randomness="different")
    with pytest.raises(ValueError, match="chunk_size"):
        transform(torch.sin, chunk_size=0)
    with pytest.raises(TypeError, match="argnums"):
        transform(torch.sin, argnums="x")
    with pytest.raises(TypeError, match="floating-point"):
        transform(torch.sin)(torch.arange(3))
    with pytest.raises(TypeError, match="partial"):
        transform(torch.sin)(x=point(3))
