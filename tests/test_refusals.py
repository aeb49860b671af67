"""Refusals say what was found, why, and a remedy that works."""

import re

import pytest
import torch
from torch import nn
from torch.func import grad, vmap
from torch.nn import functional as F
from torch.testing import assert_close

import funcdiff as fd
from funcdiff import prepare
from funcdiff._torch.messages import reason

X = torch.linspace(-1, 1.3, 12, dtype=torch.float64).reshape(4, 3)
ROWS = torch.stack([X, X.sin()])
OTHER = torch.eye(3, dtype=torch.float64)


class Old(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sin()

    @staticmethod
    def backward(ctx, u):
        raise NotImplementedError


def ctc(x):
    lengths = torch.tensor([4])
    return F.ctc_loss(x[:, None].log_softmax(-1), torch.tensor([[1, 2]]), lengths, torch.tensor([2]))


def complains(x):
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError
    return x.sin()


FUNCTIONS = {
    "cdist": lambda x: torch.cdist(x, OTHER),
    "ctc": ctc,
    "old": Old.apply,
    "complains": complains,
    "number": lambda x: x * float(x.sum()),
    "branch": lambda x: x.sin() if x.sum() > 0 else x.cos(),
    "dropout": lambda x: F.dropout(x, 0.5),
    "mask": lambda x: x[x > 0].sum(),
    "layer norm": lambda x: F.layer_norm(x, (3,)).sin(),
    "lstm": nn.LSTM(3, 2).double(),
    "root": lambda x: (0 * x).sqrt(),
    "cut": lambda x: torch.special.zeta(x + 3, x + 3),
}
DERIVATIVES = {
    "jacobian": lambda f: fd.jacobian(f)(X),
    "hessian": lambda f: fd.hessian(f)(X),
    "sparse": lambda f: fd.jacobian_sparse(f)(X),
    "sparse hessian": lambda f: fd.hessian_sparse(lambda x: f(x).sum())(X),
    "laplacian": lambda f: fd.laplacian(f)(X),
    "hvp": lambda f: fd.hvp(lambda x: f(x).sum(), (X,), (X,)),
    "rows": lambda f: fd.batch_hessian(f)(ROWS),
    "vmap": lambda f: vmap(fd.jacobian(f))(ROWS),
    "vmap laplacian": lambda f: vmap(fd.laplacian(f))(ROWS),
    "grad": lambda f: grad(lambda x: fd.jacobian(f)(x).sum())(X),
    "prepared": lambda f: prepare(fd.jacobian(f), X),
    "without a check": lambda f: fd.jacobian(f, verify=False)(X),
}


def only(func):
    """The output alone."""

    def first(x):
        found = func(x)
        return found[0] if isinstance(found, tuple) else found

    return first


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("derivative", DERIVATIVES.values(), ids=DERIVATIVES)
def test_no_reason_is_empty(derivative):
    """Of all that refuse, twice, as a plan that is kept says the same. A bare error of func's own stays one."""
    caught = []
    for func in map(only, FUNCTIONS.values()):
        for _ in range(2):
            try:
                derivative(func)
            except Exception as error:
                caught.append(error)
    told = [str(error) for error in caught if type(error) is not NotImplementedError or str(error)]
    assert len(told) > 2
    for text in told:
        assert re.search(r"\w{3}", text)
        assert not re.search(r": *[;)]|(^|\s)\( *\)", text), text


def test_a_bare_error_is_named():
    assert reason(NotImplementedError()) == "NotImplementedError"
    assert reason(ValueError("\n  first\nsecond")) == "first"


def test_a_sparse_jacobian_without_a_mode_is_refused_alike_each_time():
    transform = fd.jacobian_sparse(FUNCTIONS["cdist"])
    told = set()
    for _ in range(2):
        with pytest.raises(
            RuntimeError, match=r"torch gets _cdist_forward wrong; .* Use funcdiff.jacobian, "
        ) as caught:
            transform(X)
        told.add(str(caught.value))
    assert len(told) == 1
    assert "15 forward" in repr(fd.explain(transform, torch.ones(5, 3, dtype=torch.float64)))
    assert fd.jacobian(FUNCTIONS["cdist"])(X).shape == (4, 3, 4, 3)


def test_what_torch_gets_wrong_at_some_arguments_can_be_had_by_name():
    """The loss takes logarithms of probabilities, of which torch's derivative is right, and of no other numbers."""
    with pytest.raises(RuntimeError, match="torch is right at your arguments, call jacobian_batched_grad itself"):
        fd.jacobian(ctc, verify=False)(X)
    step = 1e-6 * torch.eye(12, dtype=torch.float64).reshape(12, 4, 3)
    differences = torch.stack([(ctc(X + h) - ctc(X - h)) / 2e-6 for h in step]).reshape(4, 3)
    assert_close(fd.jacobian_batched_grad(ctc)(X), differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"batch_first": True}])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_under_vmap_needs_a_state(kind, options):
    layer = kind(3, 2, **options).double()
    count = layer.num_layers * (1 + layer.bidirectional)

    def func(x):
        return layer(x)[0].sin().sum()

    def with_state(x):
        state = x.new_zeros(count, 2)
        return layer(x, (state, state) if kind is nn.LSTM else state)[0].sin().sum()

    with pytest.raises(RuntimeError, match=r"pass one of your own, such as x.new_zeros\(layers, size\)"):
        vmap(fd.laplacian(func))(ROWS)
    assert_close(vmap(fd.laplacian(with_state))(ROWS), torch.stack([fd.laplacian(func)(x) for x in ROWS]))


def test_a_generator_made_inside_is_told_what_to_do():
    def func(x):
        return x * torch.randn(3, generator=torch.Generator().manual_seed(0), dtype=x.dtype)

    with pytest.raises(RuntimeError, match='draw the numbers before and let func use them, or pass randomness="same"'):
        fd.jacobian(func)(X)
    assert_close(fd.jacobian(func, randomness="same")(X[0]), func(torch.ones(3, dtype=torch.float64)).diag())
