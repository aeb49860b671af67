"""The bad inputs that the recipes refuse, and the words in which they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.func import vmap
from torch.utils.checkpoint import checkpoint

import funcdiff as fd


class BadInput(NamedTuple):
    """One way to go wrong: calling `provoke` raises `error`, whose message matches `text`."""

    name: str
    provoke: Callable[[], Any]
    error: type[Exception]
    text: str


X = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
ROWS = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)


def cube_sum(x: torch.Tensor) -> torch.Tensor:
    """A number, as products need it."""
    return x.pow(3).sum()


ENCODER = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1).eval()


def masked_encoder(x: torch.Tensor) -> torch.Tensor:
    """Packs the rows of its padding mask, as a transformer does."""
    encoded: torch.Tensor = ENCODER(x, src_key_padding_mask=torch.tensor([[False, False, True]]))
    return encoded


LSTM = nn.LSTM(3, 2).double()


def last_state(x: torch.Tensor) -> torch.Tensor:
    """Begins with a state that the layer makes."""
    states: torch.Tensor = LSTM(x)[0]
    return states[-1]


def freed(x: torch.Tensor) -> torch.Tensor:
    """Take a gradient whose graph is freed, and use that graph again."""
    cubes = x.pow(3).sum()
    return cubes * torch.autograd.grad(cubes, x)[0]


def mutate(x: torch.Tensor) -> torch.Tensor:
    """Writes into what it is differentiated by."""
    return x.mul_(2).sin()


def mutate_other(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Writes into another argument."""
    return x * scale.add_(1)


def branch(x: torch.Tensor) -> torch.Tensor:
    """Depends on a value in its control flow."""
    return x.sin() if x.sum() > 0 else x.cos()


def fill(x: torch.Tensor) -> torch.Tensor:
    """Writes into a tensor of its own that knows no batch."""
    y = torch.zeros(2, dtype=x.dtype)
    y[0] = x[0] ** 2
    return y


class OldStyle(torch.autograd.Function):
    """A custom function without setup_context."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        """Twice x."""
        return 2 * x

    @staticmethod
    def backward(ctx: Any, u: torch.Tensor) -> torch.Tensor:
        """Twice u."""
        return 2 * u


def attention(rows: torch.Tensor) -> torch.Tensor:
    """Each row looks at all rows."""
    return (rows @ rows.T).softmax(1) @ rows


def parameters_but(**changes: torch.Tensor | None) -> Callable[[], Any]:
    """The Jacobian of a layer by its parameters, some changed, or missing where None."""
    func, parameters = fd.module_function(nn.Linear(3, 1).double())
    changed = {name: value for name, value in {**parameters, **changes}.items() if value is not None}
    return lambda: fd.jacobian_reverse(func)(changed, X)


def product(tangent: Any) -> Callable[[], Any]:
    """A product with that tangent."""
    return lambda: fd.hvp_forward_over_reverse(cube_sum, (X,), (tangent,))


CASES = [
    BadInput("integer input", lambda: fd.jacobian_reverse(torch.sin)(torch.arange(3)), TypeError, "floating-point"),
    BadInput("boolean input", lambda: fd.jacobian_forward(torch.sin)(X > 2), TypeError, "floating-point .*torch.bool"),
    BadInput("complex input", lambda: fd.jacobian_reverse(torch.sin)(X * 1j), TypeError, "real .*view_as_real"),
    BadInput("complex output", lambda: fd.jacobian_reverse(torch.fft.fft)(X), TypeError, "real output"),
    BadInput("integer output", lambda: fd.jacobian_forward(lambda x: x.long())(X), TypeError, "floating-point output"),
    BadInput("a float returned", lambda: fd.jacobian_reverse(lambda x: 1.0)(X), TypeError, "got a float"),
    BadInput("nothing returned", lambda: fd.jacobian_loop(lambda x: None)(X), TypeError, "got None"),
    BadInput(
        "a NumPy array returned", lambda: fd.jacobian_loop(lambda x: x.detach().numpy())(X), TypeError, "got a ndarray"
    ),
    BadInput("an empty tree returned", lambda: fd.jacobian_loop(lambda x: ())(X), TypeError, "at least one tensor"),
    BadInput("a float among the inputs", lambda: fd.jacobian_reverse(torch.sin)(1.0), TypeError, "got a float"),
    BadInput(
        "a string in a tree", lambda: fd.jacobian_reverse(lambda p: p["x"])({"x": X, "y": "y"}), TypeError, "got a str"
    ),
    BadInput("argnums out of range", lambda: fd.jacobian_reverse(torch.sin, 1)(X), ValueError, "1 positional"),
    BadInput("argnums too negative", lambda: fd.jacobian_forward(torch.sin, -2)(X), ValueError, "1 positional"),
    BadInput("argnums repeated", lambda: fd.jacobian_reverse(torch.mul, (0, -2))(X, X), ValueError, "once"),
    BadInput("argnums empty", lambda: fd.jacobian_reverse(torch.sin, ()), ValueError, "at least one"),
    BadInput("argnums a list", lambda: fd.jacobian_reverse(torch.mul, [0, 1]), TypeError, "tuple of ints"),
    BadInput("argnums True", lambda: fd.hessian_forward_over_reverse(torch.sum, True), TypeError, "tuple of ints"),
    BadInput("chunk_size 0", lambda: fd.jacobian_forward(torch.sin, chunk_size=0), ValueError, "positive int"),
    BadInput("chunk_size -1", lambda: fd.jacobian_loop(torch.sin, chunk_size=-1), ValueError, "positive int"),
    BadInput("chunk_size 2.5", lambda: fd.jacobian_reverse(torch.sin, chunk_size=2.5), TypeError, "positive int"),
    BadInput("chunk_size True", lambda: fd.batch_jacobian(torch.sin, chunk_size=True), TypeError, "positive int"),
    BadInput("randomness unknown", lambda: fd.jacobian_reverse(torch.sin, randomness="on")(X), ValueError, '"same"'),
    BadInput(
        "has_aux without aux",
        lambda: fd.jacobian_reverse(torch.sin, has_aux=True)(X),
        TypeError,
        r"\(output, aux\), got a Tensor",
    ),
    BadInput(
        "has_aux with three results",
        lambda: fd.jacobian_forward(lambda x: (x, x, x), has_aux=True)(X),
        TypeError,
        r"\(output, aux\), got a tuple",
    ),
    BadInput(
        "aux that is no tensor",
        lambda: fd.jacobian_loop(lambda x: (x, 1.0), has_aux=True)(X),
        TypeError,
        "aux to contain only tensors, got a float",
    ),
    BadInput(
        "a keyword argument",
        lambda: fd.jacobian_reverse(torch.softmax)(X, dim=0),
        TypeError,
        r"functools.partial\(func, dim=...\)",
    ),
    BadInput(
        "a keyword argument of a batch",
        lambda: fd.batch_jacobian(torch.softmax)(ROWS, dim=0),
        TypeError,
        "positional arguments only, got dim=...",
    ),
    BadInput(
        "a vector where a product needs a scalar",
        lambda: fd.hvp_reverse_over_reverse(torch.sin, (X,), (X,)),
        ValueError,
        r"scalar, shape \(\), got shape \(3,\)",
    ),
    BadInput(
        "shape (1,) where a product needs a scalar",
        lambda: fd.hvp_operator(lambda x: cube_sum(x)[None], X),
        ValueError,
        r"got shape \(1,\)",
    ),
    BadInput("primals not in a tuple", lambda: fd.vhp(cube_sum, X, X), TypeError, r"got a Tensor. Write \(x,\)"),
    BadInput(
        "tangents of another structure",
        lambda: fd.hvp_double_backward(cube_sum, (X,), (X, X)),
        TypeError,
        "structured like primals",
    ),
    BadInput("a tangent of shape (1,)", product(X[:1]), ValueError, r"shape of its primal, \(3,\), got \(1,\)"),
    BadInput("a tangent of shape (n, 1)", product(X[:, None]), ValueError, "do not broadcast"),
    BadInput("a tangent of another dtype", product(X.float()), TypeError, "float64, got torch.float32"),
    BadInput("a tangent on another device", product(X.to("meta")), ValueError, "device of its primal, cpu, got meta"),
    BadInput("a float for a tangent", product(1.0), TypeError, "got a float"),
    BadInput(
        "inputs on two devices",
        lambda: fd.jacobian_reverse(torch.mul, (0, 1))(X, X.to("meta")),
        ValueError,
        "one device, got cpu and meta",
    ),
    BadInput("a sparse input", lambda: fd.jacobian_reverse(torch.sin)(X.to_sparse()), TypeError, "dense .*sparse_coo"),
    BadInput(
        "a nested input",
        lambda: fd.jacobian_forward(torch.sin)(torch.nested.nested_tensor([X, X], layout=torch.jagged)),
        TypeError,
        "dense differentiated argument, got a nested tensor",
    ),
    BadInput("a misspelt parameter", parameters_but(wait=X), KeyError, "unknown \\['wait'\\]"),
    BadInput("a missing parameter", parameters_but(bias=None), KeyError, "missing \\['bias'\\]"),
    BadInput("dropout not in eval()", lambda: fd.module_function(nn.Dropout(0.5)), ValueError, "Dropout .*eval"),
    BadInput("batch norm not in eval()", lambda: fd.module_function(nn.BatchNorm1d(3)), ValueError, "BatchNorm1d"),
    BadInput(
        "a product at a number",
        lambda: fd.hvp_operator(cube_sum, 1.0),
        TypeError,
        "each differentiated argument to contain only tensors, got a float. Pass tensors",
    ),
    BadInput(
        "a product with a function that returns a number",
        lambda: fd.vhp(lambda x: 1.0, (X,), (X,)),
        TypeError,
        "each output of func to contain only tensors, got a float. Return tensors",
    ),
    BadInput(
        "a batch check of a function that returns nothing",
        lambda: fd.check_batch_independence(lambda rows: None, ROWS),
        TypeError,
        "output of func to contain only tensors, got None. Return tensors",
    ),
    BadInput(
        "a number in ravel",
        lambda: fd.ravel({"x": X, "n": 3}),
        TypeError,
        "raveled tree to contain only tensors, got a int",
    ),
    BadInput("dtypes mixed in ravel", lambda: fd.ravel((X, X.float())), TypeError, "one dtype"),
    BadInput("a vector too long to unravel", lambda: fd.ravel(X)[1](torch.ones(4)), ValueError, r"shape \(3,\)"),
    BadInput("an input written to, forward mode", lambda: fd.jacobian_forward(mutate)(X), RuntimeError, "in place"),
    BadInput("an input written to, reverse mode", lambda: fd.jacobian_reverse(mutate)(X), RuntimeError, "in place"),
    BadInput(
        "another argument written to",
        lambda: fd.jacobian_reverse(mutate_other)(X, X),
        RuntimeError,
        "another argument",
    ),
    BadInput(
        "rows that mix: a mean over the batch",
        lambda: fd.batch_jacobian_summed(lambda rows: rows - rows.mean(0))(ROWS),
        ValueError,
        "rows that do not depend on each other",
    ),
    BadInput(
        "rows that mix: attention over the batch",
        lambda: fd.batch_hessian_summed(attention)(ROWS),
        ValueError,
        "times the largest derivative",
    ),
    BadInput(
        "rows that mix: batch norm in training mode",
        lambda: fd.batch_jacobian_summed(nn.BatchNorm1d(3, track_running_stats=False).double())(ROWS),
        ValueError,
        "Batch norm in training mode",
    ),
    BadInput(
        "rows summed away by the function itself",
        lambda: fd.batch_jacobian_summed(cube_sum)(ROWS),
        ValueError,
        "the batch as axis 0",
    ),
    BadInput(
        "running statistics of a batch norm in training mode",
        lambda: fd.jacobian_reverse(nn.BatchNorm1d(3).double())(ROWS),
        RuntimeError,
        r"module.eval\(\)",
    ),
    BadInput(
        "vmap refuses: .item()",
        lambda: fd.batch_jacobian(lambda x: x * x[0].item(), jacobian=fd.jacobian_reverse)(ROWS),
        RuntimeError,
        "torch.stack",
    ),
    BadInput(
        "vmap refuses: a branch on values",
        lambda: fd.batch_jacobian(branch, jacobian=fd.jacobian_reverse)(ROWS),
        RuntimeError,
        "torch.where",
    ),
    BadInput(
        "vmap refuses: a boolean mask",
        lambda: fd.batch_jacobian(lambda x: x[x > 0], jacobian=fd.jacobian_reverse)(ROWS),
        RuntimeError,
        "masked_fill",
    ),
    BadInput(
        "vmap refuses: writing in place",
        lambda: fd.batch_jacobian(fill, jacobian=fd.jacobian_reverse)(ROWS),
        RuntimeError,
        "Build the result with torch.stack",
    ),
    BadInput(
        "vmap refuses: the fast path of a transformer",
        lambda: fd.batch_jacobian(masked_encoder, jacobian=fd.jacobian_reverse)(torch.rand(2, 1, 3, 4)),
        RuntimeError,
        "enable_nested_tensor=False",
    ),
    BadInput(
        "vmap refuses: the initial state of an LSTM",
        lambda: vmap(fd.jacobian(last_state))(ROWS[:, None]),
        RuntimeError,
        "x.new_zeros",
    ),
    BadInput(
        "rows of different lengths",
        lambda: fd.batch_jacobian(lambda x: x[x > x.mean()])(torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])),
        ValueError,
        "the same shape",
    ),
    BadInput(
        "vmap refuses: random numbers",
        lambda: fd.jacobian_forward(lambda x: x * torch.rand_like(x))(X),
        RuntimeError,
        'randomness="same"',
    ),
    BadInput(
        "no forward derivative",
        lambda: fd.jacobian_forward(lambda x: torch.cdist(x[:, None], x[:, None]))(X),
        NotImplementedError,
        "By name, reverse mode works",
    ),
    BadInput(
        "data in float32, to be checked",
        lambda: fd.check_derivatives(lambda x: ROWS.float() @ x, X.float()),
        ValueError,
        r"call \.double\(\)",
    ),
    BadInput(
        "a reentrant checkpoint",
        lambda: fd.jacobian(lambda x: checkpoint(torch.sin, x, use_reentrant=True))(X),
        RuntimeError,
        "Pass use_reentrant=False",
    ),
    BadInput("a gradient without a graph", lambda: fd.jacobian(freed)(X), RuntimeError, "create_graph=True"),
    BadInput("an old custom function", lambda: fd.jacobian_reverse(OldStyle.apply)(X), RuntimeError, "jacobian_loop"),
]
