"""Functions from practice on a GPU: names without a mode give the processor's numbers, or refuse with a reason."""

import copy
import functools
import re
import textwrap
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import vmap
from torch.testing import assert_close
from versions import since

import funcdiff as fd
from _tools.gpu.effects import replayed

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore"),  # torch's own, of kernels that the first call chooses among
]


GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "howto" / "cost.rst"
SHOWN = [
    code
    for block in re.findall(r"^\.\. runs::\n\n((?:   .*\n|\n)+)", GUIDE.read_text(), re.MULTILINE)
    if "cuda" in (code := textwrap.dedent(block))
]


class Shaped(nn.Module):
    """Layers on eight numbers, in the shape that they ask for."""

    def __init__(self, shape, *layers):
        super().__init__()
        self.shape, self.layers = shape, nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x.reshape(*x.shape[:-1], *self.shape))


class Function(nn.Module):
    """A function of a vector, and the tensors that it captured."""

    def __init__(self, func, *shapes):
        super().__init__()
        self.func = func
        self.held = nn.ParameterList([torch.randn(shape) for shape in shapes])

    def forward(self, x):
        return self.func(x, *self.held)


class Edges(nn.Module):
    """Sums over the edges of a graph, in whatever order the kernel adds."""

    def __init__(self):
        super().__init__()
        self.register_buffer("source", torch.tensor([0, 1, 2, 3, 3, 0]))
        self.register_buffer("target", torch.tensor([1, 0, 1, 2, 0, 0]))

    def forward(self, x):
        nodes = x.reshape(4, 2)
        sums = torch.zeros_like(nodes).index_add(0, self.target, nodes[self.source].tanh() * nodes[self.target])
        return sums.square().sum(-1)


def attention(x, query):
    tokens = x.reshape(1, 1, 2, 4)
    return F.scaled_dot_product_attention(tokens * query, tokens.sin(), tokens.cos(), is_causal=True).flatten()[:3]


def matrix(x):
    return torch.eye(3).to(x) + 0.1 * torch.outer(x[:3], x[1:4])


def block():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    return Shaped((1, 2, 4), layer, nn.Flatten(0), nn.Linear(8, 3))


FUNCTIONS = {
    "network": lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)),
    "normalized": lambda: nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3)),
    "convolutions": lambda: Shaped(
        (1, 2, 2, 2),
        *(nn.Conv2d(2, 4, 2, padding=1), nn.BatchNorm2d(4), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(0), nn.Linear(4, 3)),
    ),
    "pooled": lambda: Shaped((1, 1, 8), nn.Conv1d(1, 3, 3), nn.GroupNorm(1, 3), nn.MaxPool1d(2), nn.Flatten(0)),
    "transposed": lambda: Shaped((1, 2, 2, 2), nn.ConvTranspose2d(2, 1, 2), nn.Softplus(), nn.Flatten(0)),
    "upsampled": lambda: Shaped((1, 2, 2, 2), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Tanh(), nn.Flatten(0)),
    "transformer": block,
    "attention": lambda: Function(attention, (4,)),
    "classifier": lambda: Function(lambda x, w: F.cross_entropy(w @ x, torch.ones_like(x[0]).long())[None], (3, 8)),
    "determinant": lambda: Function(lambda x: torch.linalg.slogdet(matrix(x))[1][None]),
    "solved": lambda: Function(lambda x, b: torch.linalg.solve(matrix(x), b), (3,)),
    "cholesky": lambda: Function(lambda x: torch.linalg.cholesky(matrix(x) @ matrix(x).mT).diagonal().log()),
    "eigenvalues": lambda: Function(lambda x: torch.linalg.eigvalsh(matrix(x) @ matrix(x).mT + x[:3].exp().diag())),
    "distances": lambda: Function(lambda x, y: torch.cdist(x.reshape(2, 4), y).flatten(), (2, 4)),
    "graph": Edges,
    "sampled": lambda: Function(
        lambda x, image: F.grid_sample(image, x.reshape(1, 2, 2, 2).tanh() / 2, align_corners=True).flatten(),
        (1, 1, 4, 4),
    ),
    "embedded": lambda: Function(lambda x: F.embedding(torch.ones_like(x[:3]).long(), x.reshape(4, 2)).sin().sum(-1)),
    "sorted": lambda: Function(lambda x: x.sort().values[:3].square() + x.logsumexp(0)),
    "transformed": lambda: Function(lambda x: torch.fft.rfft(x).abs().square()[:3]),
    "cells": lambda: Function(
        lambda x, w, u: torch.gru_cell(x[None, :4], x[None, 4:6], w, u, None, None)[0], (6, 4), (6, 2)
    ),
    "compiled": lambda: torch.compile(nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 3)), backend="aot_eager"),
}
MARKED = {"sampled": since("2.12", "grid_sample has no second derivative")}
CASES = [pytest.param(name, marks=MARKED.get(name, ())) for name in FUNCTIONS]
SCALAR = "hessian_diagonal", "laplacian", "hvp"


def derivative(name, func, rows):
    """What the name gives; a function of one number is the sum of squares."""
    if name.startswith("batch"):
        return getattr(fd, name)(func)(rows)
    x = rows[0]
    if name in SCALAR:
        total = lambda x: func(x).square().sum()  # noqa: E731  (three names differentiate it)
        return fd.hvp(total, (x,), (x.cos(),)) if name == "hvp" else getattr(fd, name)(total)(x)
    return getattr(fd, name)(func)(x)


NAMES = ("jacobian", "hessian", "batch_jacobian", "batch_hessian", *SCALAR)


@functools.cache
def expected(function, name):
    """The processor's numbers in float64."""
    func, rows = subject(function)
    return derivative(name, func, rows)


def subject(function):
    torch.manual_seed(0)
    func = FUNCTIONS[function]().double().eval().requires_grad_(False)
    return func, torch.linspace(-0.9, 1.1, 16, dtype=torch.float64).sin().reshape(2, 8) * 1.3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("function", CASES)
def test_a_function_from_practice_has_the_numbers_of_the_processor(function, name, dtype):
    func, rows = subject(function)
    want = expected(function, name)
    with torch.backends.cudnn.flags(allow_tf32=False):
        got = derivative(name, func.to("cuda", dtype), rows.to("cuda", dtype))
    assert got.is_cuda
    assert got.dtype == dtype
    rounding = 1e-8 if dtype == torch.float64 else 2e-3
    assert_close(got.double().cpu(), want, rtol=rounding, atol=rounding * (1e-6 + float(want.abs().max())))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("function", [case for case in CASES if case.values != ("compiled",)])
def test_a_prepared_derivative_has_them_too(function, name):
    func, rows = subject(function)
    func, rows = func.cuda(), rows.cuda()
    with torch.backends.cudnn.flags(allow_tf32=False):
        try:
            prepared = fd.prepare(lambda rows: derivative(name, func, rows), rows)
        except fd.RefusedError as refusal:
            pytest.skip(str(refusal))
        other = rows.flip(0) * 0.9
        assert_close(prepared(other), derivative(name, func, other), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("training", [True, False], ids=["in training", "in evaluation"])
@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("name", NAMES)
def test_a_recurrent_layer_of_cudnn_is_right_or_its_refusal_says_what_to_do(layer, name, training):
    torch.manual_seed(0)
    here = layer(2, 3).double().requires_grad_(False).train(training)
    there = copy.deepcopy(here).cuda()
    rows = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(2, 8)
    last = lambda layer, x: layer(x.reshape(4, 2))[0][-1]  # noqa: E731
    want = derivative(name, functools.partial(last, here), rows)
    derived = functools.partial(derivative, name, functools.partial(last, there), rows.cuda())
    refused = name.endswith("jacobian") and not training
    if refused:
        with pytest.raises(RuntimeError, match=r"cudnn\.flags\(enabled=False\)"):
            derived()
    with torch.backends.cudnn.flags(enabled=not refused):
        got = derived()
    assert_close(got.cpu(), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_fused_attention_in_half_precision_has_a_second_derivative(dtype):
    torch.manual_seed(0)
    tokens = torch.randn(1, 2, 16, 32, device="cuda", dtype=dtype)
    energy = lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True).square().mean()  # noqa: E731
    got = fd.hvp(energy, (tokens,), (tokens.cos(),))
    exact = tokens.double().cpu()
    want = fd.hvp(energy, (exact,), (exact.cos(),))
    assert float((got.double().cpu() - want).norm() / want.norm()) < 0.05


def test_memory_that_cannot_be_had_names_chunks():
    weight = torch.randn(20_000, 100, device="cuda")
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        with pytest.raises(torch.OutOfMemoryError, match="chunk_size"):
            fd.jacobian_reverse(lambda x: torch.tanh(weight @ x[:100]))(torch.ones(100_000, device="cuda"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def curvature(device):
    """What products with matrices of a classifier's parameters give."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double().to(device)
    inputs, labels = torch.randn(12, 4, dtype=torch.float64).to(device), (torch.arange(12) % 3).to(device)
    func, parameters = fd.module_function(network)
    flat, unravel = fd.ravel(parameters)
    flat = flat.detach()
    model = lambda p: func(unravel(p), inputs)  # noqa: E731
    entropy = lambda y: F.cross_entropy(y, labels)  # noqa: E731
    identity = torch.eye(len(flat), dtype=torch.float64, device=device)
    hessian = fd.hvp_operator(lambda p: entropy(model(p)), flat)
    draws = torch.Generator(device).manual_seed(0)
    yield "Hessian", hessian @ identity
    yield "Gauss-Newton", fd.gauss_newton_operator(model, entropy, flat) @ identity
    yield "Fisher", fd.fisher_operator(model, flat, likelihood="categorical") @ identity
    yield "Gram", fd.gram_matrix(model)(flat)
    yield "trace", fd.trace_estimate(hessian, products=300, generator=draws).value  # more products than inputs: exact
    yield "largest", torch.as_tensor(fd.spectral_density(hessian, generator=draws).points.max()).to(device)


def test_products_with_the_matrices_of_a_loss_stay_on_the_gpu():
    for (name, here), (_, there) in zip(curvature("cpu"), curvature("cuda"), strict=True):
        assert there.is_cuda, name
        drawn = name in ("trace", "largest")  # by other numbers than the processor's
        assert_close(
            there.cpu(), here, rtol=1e-2 if drawn else 1e-8, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_a_sparse_jacobian_stays_on_the_gpu():
    func = lambda x: x.square() + torch.sin(x.roll(1)) * x.roll(-1)  # noqa: E731
    x = torch.linspace(-1, 2, 40, dtype=torch.float64)
    pattern = fd.jacobian_pattern(func, x.cuda())
    assert pattern.nnz == fd.jacobian_pattern(func, x).nnz
    got = fd.jacobian_sparse(func)(x.cuda())
    assert got.is_cuda
    assert_close(got.to_dense().cpu(), fd.jacobian(func)(x))


def test_a_prepared_derivative_is_replayed_as_a_graph():
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double().cuda().requires_grad_(False)
    rows = torch.randn(5, 3, dtype=torch.float64, device="cuda")
    prepared = fd.prepare(fd.batch_hessian(network), rows)
    replay = replayed(prepared, rows)
    other = rows.flip(0) * 0.5
    assert_close(replay(other), fd.batch_hessian(network)(other))


@pytest.mark.parametrize("code", SHOWN, ids=range(len(SHOWN)))
def test_what_the_guide_shows_runs_there(code):
    space = {}
    exec(code, space)
    assert space["device"] == "cuda"
    if "hessians" in space:
        assert_close(space["hessians"], fd.batch_hessian(space["network"])(space["rows"]))


def test_training_through_a_laplacian_follows_the_processor():
    curves = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1)).double().to(device)
        points = torch.rand(20, 2, dtype=torch.float64).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        bent = vmap(fd.laplacian(network))
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = (bent(points)[:, 0] - points.prod(-1)).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        curves.append(losses)
    assert curves[0][-1] < curves[0][0]
    assert_close(torch.tensor(curves[1]), torch.tensor(curves[0]), rtol=1e-5, atol=0.0)
