"""Preparing derivatives of what people have: attention, checkpoints, compiled functions."""

import pytest
import torch
from torch import nn
from torch.func import vmap
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint
from versions import since

import funcdiff as fd
from funcdiff import prepare

X = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
ROWS = torch.stack([X, 2 * X, X - 1])
TOKENS = torch.linspace(-1, 1.3, 8, dtype=torch.float64).reshape(1, 2, 4)
# torch says once that vmap loops over fused attention.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")


def attention(x):
    x = x[:, None]  # heads, with which torch fuses it
    return scaled_dot_product_attention(x, x.sin(), x.cos())


def multihead():
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(4, 2, batch_first=True).double()
    return lambda x: layer(x, x, x, need_weights=False)[0]


def encoder(dropout, **options):
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(4, 2, 5, dropout, "gelu", batch_first=True, **options).double()


ATTENTION = {
    "function": attention,
    "multihead": multihead(),
    "no dropout": encoder(0.0),
    "norm first": encoder(0.0, norm_first=True),
    "evaluation": encoder(0.1).eval(),
}


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("func", ATTENTION.values(), ids=ATTENTION)
def test_attention_without_dropout_draws_nothing(func, trained):
    with torch.set_grad_enabled(trained):
        for derivative in (func, fd.jacobian_loop(func), fd.batch_jacobian(lambda x: func(x[None])[0])):
            assert_close(prepare(derivative, TOKENS)(2 * TOKENS), derivative(2 * TOKENS))


def test_attention_with_dropout_draws():
    with pytest.raises(RuntimeError, match="draws random numbers"):
        prepare(lambda x: scaled_dot_product_attention(x, x, x, dropout_p=0.1), TOKENS)


def test_where_the_function_cannot_be_differentiated_again_neither_can_the_prepared_one():
    weight = torch.eye(4, dtype=torch.float64, requires_grad=True)
    derivative = fd.jacobian_loop(lambda x: attention(x @ weight))
    for jacobian in (derivative, prepare(derivative, TOKENS)):
        with pytest.raises(RuntimeError, match="is not implemented"):
            jacobian(TOKENS).sum().backward()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("make", [fd.jacobian, fd.jacobian_taylor, fd.batch_jacobian, fd.batch_hessian])
def test_what_was_compiled_is_prepared_as_it_was_written(make, trained):
    model = network().requires_grad_(trained)
    in_place = network().requires_grad_(trained)
    in_place.compile(backend="eager")
    x = ROWS if "batch" in make.__name__ else X
    expected = make(model)(2 * x)
    for func in (
        torch.compile(model, backend="eager"),
        torch.compile(lambda x: model(x), backend="eager"),
        in_place,
    ):
        prepared = prepare(make(func), x)
        make(func)(x)  # what the compiler notes on the function is no change of it
        assert_close(prepared(2 * x), expected)


def test_what_a_compiled_function_holds_is_looked_at():
    scales = [2.0]
    prepared = prepare(fd.jacobian(torch.compile(lambda x: scales[0] * x, backend="eager")), X)
    assert_close(prepared(X), 2 * torch.eye(3, dtype=torch.float64))
    scales[0] = 3.0
    with pytest.raises(RuntimeError, match="has been replaced"):
        prepared(X)


UNDER_VMAP = pytest.param(
    lambda f: vmap(fd.laplacian(f)), marks=since("2.12", "a checkpoint has no rule for vmap"), id="vmap of a Laplacian"
)


@pytest.mark.parametrize("make", [fd.jacobian, fd.batch_hessian, UNDER_VMAP])
def test_a_checkpoint_is_left_out(make):
    frozen = network().requires_grad_(False)
    x = X if make is fd.jacobian else ROWS
    prepared = prepare(make(lambda x: checkpoint(frozen, x, use_reentrant=False)), x)
    assert_close(prepared(2 * x), make(frozen)(2 * x))


@since("2.12", "torch itself differentiates the rows through a checkpoint one by one")
def test_a_checkpoint_that_torch_cannot_train_through_is_refused_with_what_it_says():
    model = network()
    derivative = fd.batch_jacobian(lambda x: checkpoint(model, x, use_reentrant=False))
    with pytest.raises(RuntimeError, match=r"cannot differentiate the result of the function itself \(.+\)\. Prepare"):
        prepare(derivative, ROWS)
    with torch.no_grad():
        assert_close(prepare(derivative, ROWS)(2 * ROWS), fd.batch_jacobian(model)(2 * ROWS))


def test_a_reentrant_checkpoint_is_refused_with_the_remedy():
    model = network()
    for differentiate in (lambda d: d(X), lambda d: prepare(d, X)):
        with pytest.raises(RuntimeError, match="Pass use_reentrant=False"):
            differentiate(fd.jacobian(lambda x: checkpoint(model, x, use_reentrant=True)))
