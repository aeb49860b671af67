"""What people bring to the automatic recipes: of each kind some members, held to plain autograd of a plain form."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap
from torch.testing import assert_close
from versions import since

import funcdiff as fd

X = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
ROWS = torch.stack([X, X.flip(0) + 0.2])
WEIGHT = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
MANY = torch.linspace(-1, 1, 600, dtype=torch.float64).reshape(200, 3)


def jacobians(func, x):
    return torch.autograd.functional.jacobian(func, x)


def hessians(func, x):
    """By plain autograd, output by output."""
    outputs = func(x).numel()
    each = [torch.autograd.functional.hessian(lambda x, i=i: func(x).reshape(-1)[i], x) for i in range(outputs)]
    return torch.stack(each).reshape(*func(x).shape, *x.shape, *x.shape)


def same(func, plain, x=X, *, rows=None):
    """Every unqualified name on `func` at x, and of batches, against plain autograd of `plain`."""
    hessian = hessians(plain, x)
    diagonal = hessian.reshape(*plain(x).shape, x.numel(), x.numel()).diagonal(dim1=-2, dim2=-1)
    assert_close(fd.jacobian(func)(x), jacobians(plain, x))
    assert_close(fd.hessian(func)(x), hessian)
    assert_close(fd.hessian_diagonal(func)(x).reshape(diagonal.shape), diagonal)
    assert_close(fd.laplacian(func)(x), diagonal.sum(-1))
    product = fd.hvp(lambda x: func(x).sin().sum(), (x,), (x.cos(),))
    assert_close(product, torch.autograd.functional.hvp(lambda x: plain(x).sin().sum(), x, x.cos())[1])
    if rows is not None:
        assert_close(fd.batch_jacobian(func)(rows), torch.stack([jacobians(plain, row) for row in rows]))
        assert_close(fd.batch_hessian(func)(rows), torch.stack([hessians(plain, row) for row in rows]))


# Operators of the user's own

OWN = {}


def operator(name, plain, backward=None, batched=False):
    """A custom operator of one tensor, with the derivative given, and a rule for vmap if asked for."""

    def body(x: torch.Tensor) -> torch.Tensor:
        return plain(x)

    made = torch.library.custom_op(f"funcdiff_kinds::{name}", body, mutates_args=())
    if backward:
        made.register_autograd(
            lambda ctx, g: backward(ctx.saved_tensors[0], g),
            setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
        )
    if batched:
        torch.library.register_vmap(made, lambda info, in_dims, x: (made(x.movedim(in_dims[0], 0)), 0))
    OWN[name] = made, plain
    return made


operator("sine", torch.sin, lambda x, g: g * x.cos())
operator("square", torch.square, lambda x, g: 2 * g * x, batched=True)
operator("logistic", torch.sigmoid, lambda x, g: g * torch.sigmoid(x) * torch.sigmoid(-x))
operator("ramp", F.softplus, lambda x, g: g * torch.sigmoid(x), batched=True)
operator("bell", lambda x: torch.exp(-x.square()), lambda x, g: -2 * g * x * torch.exp(-x.square()))
OPAQUE = operator("opaque", torch.sin)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("around", ["alone", "after", "before", "many outputs", "to a number"])
@pytest.mark.parametrize("name", [name for name in OWN if name != "opaque"])
def test_custom_operators(name, around):
    made, plain = OWN[name]
    wrapped = {
        "alone": lambda own: own,
        "after": lambda own: lambda x: own(WEIGHT @ x),
        "before": lambda own: lambda x: torch.tanh(WEIGHT @ own(x)) + 30,
        "many outputs": lambda own: lambda x: own(MANY @ x),
        "to a number": lambda own: lambda x: own(x).prod() * own(2 * x).sum(),
    }[around]
    same(wrapped(made), wrapped(plain), rows=None if around == "many outputs" else ROWS)


@pytest.mark.parametrize("recipe", [fd.jacobian, fd.hessian, fd.laplacian, fd.hessian_diagonal, fd.batch_jacobian])
def test_custom_operators_without_a_derivative_are_refused(recipe):
    with pytest.raises(RuntimeError, match=r"opaque|autograd"):
        recipe(lambda x: OPAQUE(x) + x)(ROWS if recipe is fd.batch_jacobian else X)


def function(plain, slope, push=None, *, old=False):
    """A custom autograd function of one tensor; `push` is its slope in forward mode."""

    class New(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return plain(x)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, g):
            return slope(ctx.saved_tensors[0]) * g

        @staticmethod
        def jvp(ctx, t):
            return push(ctx.saved_tensors[0]) * t

    class Old(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return plain(x)

        @staticmethod
        def backward(ctx, g):
            return slope(ctx.saved_tensors[0]) * g

    return (Old if old else New).apply


FUNCTIONS = {
    "a forward rule": (function(torch.sin, torch.cos, torch.cos), torch.sin),
    "a forward rule of exp": (function(torch.exp, torch.exp, torch.exp), torch.exp),
    "a wrong forward rule": (function(torch.sin, torch.cos, torch.sin), torch.sin),
    "a forward rule of zeros": (function(torch.exp, torch.exp, torch.zeros_like), torch.exp),
    "the old style": (function(torch.sin, torch.cos, old=True), torch.sin),
    "the old style, of a square": (function(torch.square, lambda x: 2 * x, old=True), torch.square),
}


@pytest.mark.parametrize("wrapped", [lambda own: own, lambda own: lambda x: own(MANY @ x)], ids=["few", "many"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_custom_functions(name, wrapped):
    own, plain = FUNCTIONS[name]
    same(wrapped(own), wrapped(plain), rows=ROWS if wrapped(plain)(X).numel() < 9 else None)


def forgetful(plain):
    """An adjoint that starts a graph of its own: right once, without its second derivative."""

    class Forgetful(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return plain(x)

        @staticmethod
        def backward(ctx, g):
            with torch.enable_grad():
                x = ctx.saved_tensors[0].detach().requires_grad_()
                return torch.autograd.grad(plain(x), x, g)[0]

    return Forgetful.apply


ADJOINTS = {
    "a cube": lambda x: forgetful(lambda x: x**3)(x).sum(),
    "an exponential": lambda x: forgetful(torch.exp)(x).sum(),
    "beside what is right": lambda x: forgetful(torch.exp)(x).sum() / 20 + x.pow(4).sum(),
    "before what is right": lambda x: forgetful(torch.sin)(x).square().sum(),
    "after what is right": lambda x: forgetful(torch.exp)(WEIGHT @ x).sum(),
}


@pytest.mark.parametrize("name", ADJOINTS)
def test_adjoints_that_forget_their_input_are_refused(name):
    func = ADJOINTS[name]
    assert_close(fd.jacobian(func)(X), jacobians(func, X))
    for second in (fd.hessian(func), fd.laplacian(func), fd.hessian_diagonal(func), lambda x: fd.hvp(func, (x,), (x,))):
        with pytest.raises(RuntimeError, match="Forgetful"):
            second(X)


# Compiled and scripted functions

torch.manual_seed(0)
NET = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def inner(x):
    return x.square().exp()


COMPILED = {
    "eager": (lambda: torch.compile(inner, backend="eager"), inner),
    "eager, one graph": (lambda: torch.compile(inner, backend="eager", fullgraph=True), inner),
    "aot_eager": (lambda: torch.compile(inner, backend="aot_eager"), inner),
    "a module": (lambda: torch.compile(NET, backend="eager"), NET),
    "inside": (lambda: (lambda f: lambda x: f(WEIGHT @ x).sum(0))(torch.compile(inner, backend="eager")), None),
}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_functions(name):
    make, plain = COMPILED[name]
    same(make(), plain or (lambda x: inner(WEIGHT @ x).sum(0)))


SCRIPTED = {
    "a module": lambda: torch.jit.script(NET),
    "a frozen module": lambda: torch.jit.freeze(torch.jit.script(NET.eval())),
    "a traced module": lambda: torch.jit.trace(NET, X),
    "inside": lambda: (lambda net: lambda x: net(x.sin()))(torch.jit.script(NET)),
    "twice": lambda: (lambda net: lambda x: net(torch.cat([net(x), x[:1]])))(torch.jit.script(NET)),
}
PLAIN = {"inside": lambda x: NET(x.sin()), "twice": lambda x: NET(torch.cat([NET(x), x[:1]]))}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")  # what is tested, by intent
@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:FutureWarning")  # as torch 2.15 says it
@pytest.mark.parametrize("name", SCRIPTED)
def test_scripted_functions_called_again_and_again(name):
    scripted, plain = SCRIPTED[name](), PLAIN.get(name, NET)
    for _ in range(4):
        assert_close(fd.jacobian(scripted)(X), jacobians(plain, X))
    for _ in range(2):
        same(scripted, plain)


# Derivatives of derivatives

INNER = {
    "mse_loss": (lambda x: F.mse_loss(x.tanh(), X), lambda x: (x.tanh() - X).square().mean()),
    "a norm": (lambda x: (x - 3).norm(), lambda x: ((x - 3) ** 2).sum() ** 0.5),
    "a norm of cubes": (lambda x: torch.linalg.vector_norm(x - 3, 3), lambda x: ((3 - x) ** 3).sum() ** (1 / 3)),
    "a Frobenius norm": (
        lambda x: torch.linalg.matrix_norm(x.outer(x.cos()) + 1),
        lambda x: ((x[:, None] * x.cos() + 1) ** 2).sum() ** 0.5,
    ),
    "norms along an axis": (
        lambda x: torch.linalg.norm(x.outer(x) + 2, dim=1).prod(),
        lambda x: (((x[:, None] * x + 2) ** 2).sum(1) ** 0.5).prod(),
    ),
    "a determinant": (
        lambda x: torch.diag(x + 2).add(x.outer(x) / 9).logdet(),
        lambda x: (x + 2).log().sum() + (1 + (x**2 / (x + 2)).sum() / 9).log(),
    ),
    "a softmax": (lambda x: F.softmax(WEIGHT @ x, 0)[0], lambda x: (y := (WEIGHT @ x).exp())[0] / y.sum()),
    "a product": (
        lambda x: (x - X[0]).prod() * x.exp().sum(),
        lambda x: (y := x - X[0])[0] * y[1] * y[2] * x.exp().sum(),
    ),
}


@pytest.mark.parametrize("name", INNER)
def test_derivatives_of_laplacians(name):
    func, plain = INNER[name]

    def traced(x):
        return torch.autograd.functional.hessian(plain, x, create_graph=True).trace()

    for inside in (
        fd.laplacian(func),
        lambda x: fd.hessian(func)(x).trace(),
        lambda x: fd.hessian_diagonal(func)(x).sum(),
    ):
        assert_close(fd.jacobian(inside)(X), jacobians(traced, X))
        assert_close(fd.laplacian(inside)(X), hessians(traced, X).trace())
        x = ROWS.clone().requires_grad_()
        (through,) = torch.autograd.grad(vmap(inside)(x).sum(), x)
        assert_close(through, torch.stack([jacobians(traced, row) for row in ROWS]))


# Refused for no reason

IMAGE = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
VOLUME = IMAGE[:, :, None].expand(1, 1, 3, 5, 5) * torch.tensor([1.0, 0.5, -0.3]).double().reshape(3, 1, 1)


def sampled(x, **options):
    return F.grid_sample(IMAGE, x[:2].tanh().reshape(1, 1, 1, 2), **{"align_corners": True, **options}).sum()


FORWARDLESS = {
    "grid_sample": sampled,
    "grid_sample, other corners": lambda x: sampled(x, align_corners=False) * x[2],
    "grid_sample, bicubic": lambda x: sampled(x, mode="bicubic"),
    "grid_sample of the image": lambda x: F.grid_sample(
        IMAGE * x.sum().sin(), x[:2].tanh().reshape(1, 1, 1, 2), align_corners=True
    ).sum(),
    "grid_sample of a volume": lambda x: F.grid_sample(
        VOLUME, x.tanh().reshape(1, 1, 1, 1, 3), align_corners=True
    ).sum(),
    "checkpointed": lambda x: torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False).prod(),
}


SAMPLED_TWICE = since("2.13", "grid_sample has no second derivative")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SAMPLED_TWICE) if "grid_sample" in name else name for name in FORWARDLESS]
)
def test_functions_without_a_forward_formula(name):
    same(FORWARDLESS[name], FORWARDLESS[name], rows=ROWS)


SPARSE = {
    "csr": lambda: WEIGHT.to_sparse_csr(),
    "coo": lambda: WEIGHT.to_sparse(),
    "csc": lambda: WEIGHT.to_sparse_csc(),
    "empty rows": lambda: (WEIGHT * torch.tensor([1.0, 0, 1, 0]).double()[:, None]).to_sparse_csr(),
    "not coalesced": lambda: torch.sparse_coo_tensor(
        [[0, 0, 1], [1, 1, 2]], [1.0, 2.0, 3.0], (4, 3), check_invariants=True
    ).double(),
}


@pytest.mark.filterwarnings("ignore:Sparse C.* tensor support is in beta state:UserWarning")  # torch says so of each
@pytest.mark.parametrize("name", SPARSE)
def test_constant_sparse_matrices(name):
    sparse = SPARSE[name]()
    dense = sparse.to_dense()
    same(lambda x: torch.sin(sparse @ x), lambda x: torch.sin(dense @ x))


def plain_gradient(x, create_graph=True):
    x = x if x.requires_grad else x.requires_grad_()
    return torch.autograd.grad((x**4).sum(), x, create_graph=create_graph)[0]


INSIDE = {
    "torch.autograd.grad": (plain_gradient, lambda x: 4 * x**3),
    "torch.func.grad": (torch.func.grad(lambda x: (x**4).sum()), lambda x: 4 * x**3),
    "torch.func.vjp": (lambda x: torch.func.vjp(torch.exp, x)[1](x)[0], lambda x: x.exp() * x),
    "torch.func.jvp": (lambda x: torch.func.jvp(torch.exp, (x,), (x,))[1], lambda x: x.exp() * x),
    "torch.func.hessian": (lambda x: torch.func.hessian(lambda x: (x**4).sum())(x).sum(0), lambda x: 12 * x**2),
    "ours": (lambda x: fd.jacobian(lambda x: (x**4).sum())(x), lambda x: 4 * x**3),
}


@pytest.mark.parametrize("name", INSIDE)
def test_derivatives_inside_the_function(name):
    func, plain = INSIDE[name]
    assert_close(fd.jacobian(func)(X), jacobians(plain, X))
    if name != "torch.autograd.grad":  # which no transform differentiates: alone it is
        assert_close(fd.batch_jacobian(func)(ROWS), torch.stack([jacobians(plain, row) for row in ROWS]))


NUMBERS = {
    "float()": lambda x: x.sin() * float(x.detach().norm()),
    "item()": lambda x: x.exp() / x.detach().abs().max().item(),
    "tolist": lambda x: x.cos() * sum(x.detach().tolist()),
    "data": lambda x: x.square() * x.data.sum(),
    "a branch": lambda x: x.sin() if float(x.detach().sum()) > 0 else x.cos(),
    "a step": lambda x: x - 0.1 * x.detach().sin() * x,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_from_what_is_detached_are_constants(name):
    func = NUMBERS[name]
    assert_close(fd.jacobian(func)(X), jacobians(func, X))
    assert_close(fd.hessian(func)(X), hessians(func, X))


RANDOM = {
    "RReLU": lambda x: nn.RReLU(0.2, 0.4).eval()(x),
    "Dropout": lambda x: nn.Dropout(0.5).eval()(x).sin(),
    "AlphaDropout": lambda x: nn.AlphaDropout(0.5).eval()(x).sin(),
    "FeatureAlphaDropout": lambda x: nn.FeatureAlphaDropout(0.5).eval()(x[None]).sin(),
    "dropout of nothing": lambda x: F.dropout(x, 0.0, training=True).square(),
    "GumbelSoftmax without noise": lambda x: F.softmax(x / 0.7, -1),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_layers_in_evaluation(name):
    same(RANDOM[name], RANDOM[name], rows=ROWS)


LOOKUP = nn.Embedding(3, 3)
TABLE = WEIGHT[:3] + 0.1
EMBEDDED = {
    "indices": lambda w: F.embedding(torch.tensor([0, 2, 2]), w).sin().sum(),
    "a matrix of indices": lambda w: F.embedding(torch.tensor([[0, 2], [1, 1]]), w).prod(),
    "the layer": lambda w: functional_call(LOOKUP, {"weight": w}, (torch.tensor([1, 2]),)).exp().sum(),
    "one index": lambda w: F.embedding(torch.tensor(1), w).square().sum(),
    "with a linear layer": lambda w: torch.tanh(F.embedding(torch.tensor([0, 0, 1]), w) @ w).sum(),
}


@pytest.mark.parametrize("name", EMBEDDED)
def test_embeddings_without_padding(name):
    func = EMBEDDED[name]
    assert_close(fd.jacobian(func)(TABLE), jacobians(func, TABLE))
    assert_close(fd.hessian(func)(TABLE), hessians(func, TABLE))
    direction = TABLE.cos()
    assert_close(fd.hvp(func, (TABLE,), (direction,)), torch.autograd.functional.hvp(func, TABLE, direction)[1])
    assert_close(vmap(fd.laplacian(func))(TABLE.expand(2, 3, 3)), hessians(func, TABLE).reshape(9, 9).trace().expand(2))


NETWORKS = {
    "tanh": lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)),
    "norm": lambda: nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.SiLU(), nn.Linear(8, 1)),
    "deep": lambda: nn.Sequential(*[m for _ in range(3) for m in (nn.Linear(3, 3), nn.Tanh())]),
    "softmax": lambda: nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1), nn.Linear(4, 2)),
    "gelu": lambda: nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_under_autocast_do_not_mix(name):
    torch.manual_seed(0)
    net, rows = NETWORKS[name](), torch.randn(5, 3)
    want = torch.stack([jacobians(net, row) for row in rows])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for got in (fd.batch_jacobian_summed(net)(rows), fd.batch_jacobian(net)(rows), vmap(fd.jacobian(net))(rows)):
            assert_close(got, want, rtol=0, atol=0.05 * want.abs().max().item() + 0.02)


# Errors that teach


@dataclass
class Result:
    value: torch.Tensor


OUTPUTS = {
    "None": lambda x: (x**2, None),
    "a number": lambda x: 1.0,
    "a number beside": lambda x: (x**2, 3.0),
    "a dataclass": lambda x: Result(x**2),
    "text": lambda x: {"loss": x.sum(), "name": "x"},
    "integers": lambda x: x.argmax(),
    "sparse": lambda x: (x**2).to_sparse(),
}


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("recipe", [fd.jacobian, fd.hessian, fd.laplacian])
def test_outputs_that_are_no_dense_tensors_of_floats_are_named(name, recipe):
    with pytest.raises((TypeError, ValueError), match="expected"):
        recipe(OUTPUTS[name])(X)


def writes(kept):
    net = nn.BatchNorm1d(3).double()
    net.running_mean = kept
    return {
        "out=": lambda x: torch.mul(x.detach(), 2, out=kept),
        "copy_": lambda x: kept.copy_(x.detach()),
        "add_": lambda x: kept.add_(x.detach()),
        "an index": lambda x: kept.__setitem__(0, x.detach()[0]),
        "fill_": lambda x: kept[1:].fill_(2.0),
        "a norm's statistics": lambda x: net(x.detach().expand(2, 3)),
    }


@pytest.mark.parametrize("name", writes(X))
@pytest.mark.parametrize("recipe", [fd.jacobian, fd.hessian, fd.laplacian])
def test_writes_into_what_was_captured_are_refused_before_they_happen(name, recipe):
    kept = torch.zeros(3, dtype=torch.float64)
    write = writes(kept)[name]

    def func(x):
        write(x)
        return x * kept.sum()

    with pytest.raises(RuntimeError, match="captured"):
        recipe(func)(X)
    assert kept.eq(0).all()


# Rows of a batch: right in the first, wrong in the others

MATRICES = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 3 + torch.eye(3)
OF_MATRICES = {
    "det times a network": lambda a: torch.linalg.det(a) * torch.tanh(MANY[::20] @ a[0]),
    "solve": lambda a: torch.linalg.solve(a, X),
    "solve with both": lambda a: torch.linalg.solve(a, a.sin()).sum(0),
    "inverse quadratic form": lambda a: X @ torch.linalg.inv(a @ a.mT) @ X,
    "Gaussian": lambda a: torch.distributions.MultivariateNormal(
        a[0], a @ a.mT + torch.eye(3), validate_args=False
    ).log_prob(X),
    "lu_solve": lambda a: torch.linalg.lu_solve(*torch.linalg.lu_factor(a), X[:, None])[:, 0],
}


@pytest.mark.parametrize("name", OF_MATRICES)
def test_every_row_of_a_batch(name):
    func = OF_MATRICES[name]
    hessian = torch.stack([hessians(func, a) for a in MATRICES])
    assert_close(fd.batch_jacobian(func)(MATRICES), torch.stack([jacobians(func, a) for a in MATRICES]))
    assert_close(fd.batch_hessian(func)(MATRICES), hessian)
    assert_close(vmap(fd.hessian(func))(MATRICES), hessian)
    diagonal = hessian.flatten(-4, -3).flatten(-2).diagonal(dim1=-2, dim2=-1)
    assert_close(vmap(fd.laplacian(func))(MATRICES), diagonal.sum(-1))
