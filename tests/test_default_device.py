"""Whatever the default device is, a derivative is computed where its arguments are."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from custom_functions import Cubed, WrongForward
from torch import nn
from torch.testing import assert_close

import funcdiff as fd
from funcdiff import arrays, measure, surrogates
from funcdiff.checks.registry import REGISTRY

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's, of fused attention under vmap

X = torch.linspace(-0.7, 1.2, 4, dtype=torch.float64)
ROWS = torch.linspace(-1, 1.3, 12, dtype=torch.float64).sin().reshape(3, 4)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 2)).double().requires_grad_(False)


def attention(x):
    tokens = x.reshape(1, 1, 2, 2)
    return F.scaled_dot_product_attention(tokens, tokens.sin(), tokens.cos(), is_causal=True).flatten()


def matrix(x):
    return x.new_ones(2).diag() + x.reshape(2, 2) / 4


FUNCTIONS = {
    "network": network(),
    "norm": lambda x: x.norm()[None] * x[:2],
    "norm at zero": lambda x: (x - X).norm()[None],
    "determinant": lambda x: torch.linalg.slogdet(matrix(x))[1][None],
    "inverse": lambda x: torch.linalg.inv(matrix(x)).flatten(),
    "attention": attention,
    "power": lambda x: x.abs() ** x.new_tensor(2.5),
    "custom function": Cubed.apply,
    "wrong forward mode": WrongForward.apply,
    "on values": lambda x: x.sin() if x.sum() > 0 else x.cos(),
    "in place": lambda x: x.clone().mul_(x).add_(1),
    "detached": lambda x: x * x.detach().norm(),
    "written rows": lambda x: torch.stack([x[0] * x[1], x[2] ** 3]),
    "linear": lambda x: 3 * x[:2],
    "convolution": lambda x: F.conv1d(x[None, None], x.new_tensor([[[1.0, -2.0]]])).flatten().tanh(),
}
NAMES = (
    *("jacobian", "hessian", "hessian_taylor", "jacobian_taylor", "batch_jacobian", "batch_hessian"),
    *("batch_jacobian_summed", "jacobian_sparse", "gram_matrix"),
)
SCALAR = "hessian_diagonal", "laplacian", "bilaplacian", "hessian_sparse"


@contextlib.contextmanager
def elsewhere():
    """A default device that has no numbers, so that what is made there is noticed."""
    fd.clear_plans()
    with torch.device("meta"):
        yield
    fd.clear_plans()


def outcome(call):
    """The numbers, or the refusal."""
    try:
        result = call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return torch.utils._pytree.tree_map(lambda y: y.to_dense() if isinstance(y, torch.Tensor) else y, result)


def same(call):
    """The same with a default device elsewhere."""
    torch.manual_seed(1)
    fd.clear_plans()
    here = outcome(call)
    torch.manual_seed(1)
    with elsewhere():
        there = outcome(call)
    if isinstance(here, str) or isinstance(there, str):
        assert here == there
    else:
        assert_close(there, here, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_automatic_recipe(function, name):
    x = ROWS if name.startswith("batch") else X
    same(lambda: getattr(fd, name)(FUNCTIONS[function])(x))


@pytest.mark.parametrize("name", [*SCALAR, "hvp", "hvp_operator"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_one_of_a_number(function, name):
    total = lambda x: FUNCTIONS[function](x).square().sum()  # noqa: E731  (three calls differentiate it)
    if name == "hvp":
        same(lambda: fd.hvp(total, (X,), (X.cos(),)))
    elif name == "hvp_operator":
        same(lambda: fd.hvp_operator(total, X)(X.cos()))
    else:
        same(lambda: getattr(fd, name)(total)(X))


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.name)
def test_every_recipe(entry):
    model = network()
    scalar = lambda x: model(x).square().sum()  # noqa: E731
    func = scalar if entry.of_scalars or entry.kind in ("laplacian", "diagonal", "bilaplacian") else model
    x = ROWS if entry.kind.startswith("batch") else X
    same(lambda: entry(func, x, X.cos()) if entry.takes_vector else entry(func, x))


OTHERS = {
    "chunks": lambda: fd.jacobian(torch.sin, chunk_size=2)(X),
    "budget": lambda: fd.jacobian(torch.sin, chunk_size="auto", budget=10_000)(X),
    "prepared": lambda: fd.prepare(fd.hessian(FUNCTIONS["network"]), X)(X / 2),
    "prepared and trained": lambda: fd.prepare(fd.jacobian(torch.sin), X.clone().requires_grad_())(X / 2),
    "pattern": lambda: fd.jacobian_pattern(lambda x: x[1:] * x[:-1], X).nnz,
    "explained": lambda: str(fd.explain(fd.hessian(FUNCTIONS["network"]), X)),
    "parameters": lambda: fd.jacobian(fd.module_function(FUNCTIONS["network"])[0])(
        fd.module_function(FUNCTIONS["network"])[1], X
    ),
    "checked": lambda: "wrong" in str(fd.check_derivatives(FUNCTIONS["network"], X)),
    "independent": lambda: fd.check_batch_independence(FUNCTIONS["network"], ROWS),
    "counted": lambda: measure.count(fd.hessian(FUNCTIONS["network"]), X).peak_bytes,
    "compared": lambda: measure.compare({"a": torch.sin, "b": torch.sin}, X, rounds=3).fastest,
    "arrays": lambda: torch.from_numpy(arrays.numpy_function(fd.jacobian(torch.sin))(X.numpy())),
    "loaders": lambda: fd.over_batches(lambda x: fd.hvp_operator(lambda x: (x**4).sum(), x), [X, X])(X),
    "matrix": lambda: fd.trace_estimate(X.diag()).value,
    "matrix of NumPy": lambda: fd.trace_estimate(X.diag().numpy(), products=20).value,
    "points": lambda: surrogates.uniform(3, [0.0, 1.0], [1.0, 2.0]).shape,
    "trace": lambda: fd.trace_estimate(fd.hvp_operator(lambda x: (x**4).sum(), X)).value,
    "diagonal": lambda: fd.diagonal_estimate(fd.hvp_operator(lambda x: (x**4).sum(), X)).value,
    "spectrum": lambda: fd.spectral_density(fd.hvp_operator(lambda x: (x**4).sum(), X)).points,
    "fisher": lambda: fd.fisher_operator(FUNCTIONS["network"], X, samples=5)(X),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_else_there_is(other):
    same(OTHERS[other])
