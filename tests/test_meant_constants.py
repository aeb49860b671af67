"""What func takes out of the graph: meant as a constant, or cut by NumPy and by gradients without a graph."""

import numpy as np
import pytest
import torch
from torch.autograd import functional
from torch.testing import assert_close

import funcdiff as fd

X = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)


def by_numpy(f, x):
    return torch.from_numpy(f(x.detach().numpy()))


class Exp(torch.autograd.Function):
    """Its backward loses the graph, as NumPy makes it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return by_numpy(np.exp, x)

    @staticmethod
    def backward(ctx, u):
        return u * by_numpy(np.exp, ctx.saved_tensors[0])


class Detaching(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx, u):
        return u * ctx.saved_tensors[0].detach().exp()


def force(x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(x.pow(4).sum(), x)[0]


CUT = {
    "NumPy": lambda x: by_numpy(np.sinc, x),
    "NumPy, a factor": lambda x: x * by_numpy(np.sinc, x),
    "NumPy, a term": lambda x: x.sin() + by_numpy(np.exp, x),
    "NumPy without gradients": lambda x: x * torch.no_grad()(lambda x: by_numpy(np.exp, x))(x),
    "torch.autograd.functional": lambda x: functional.jacobian(torch.sin, x).diagonal(),
    "torch.autograd.functional, a factor": lambda x: x * functional.jacobian(torch.sin, x).diagonal(),
    "a gradient": force,
    "a gradient, a factor": lambda x: x * force(x),
    "the whole result": lambda x: x.exp().detach(),
}
SECOND = {**CUT, "a custom function": Exp.apply, "a custom function that detaches": Detaching.apply}
TWICE = {
    "hessian": lambda f: fd.hessian(f)(X),
    "hvp": lambda f: fd.hvp(f, (X,), (X,)),
    "laplacian": lambda f: fd.laplacian(f)(X),
    "hessian_diagonal": lambda f: fd.hessian_diagonal(f)(X),
    "batch_hessian": lambda f: fd.batch_hessian(f)(torch.stack([X, 2 * X])),
}


@pytest.mark.parametrize("name", CUT)
def test_a_jacobian_that_was_cut_is_refused(name):
    with pytest.raises(RuntimeError, match=r"contradicts differences of func.*cuts it off.*verify=False"):
        fd.jacobian(CUT[name])(X)


@pytest.mark.parametrize("kind", TWICE)
@pytest.mark.parametrize("name", SECOND)
def test_a_second_derivative_that_was_cut_is_refused(name, kind):
    with pytest.raises(RuntimeError, match=r"contradicts differences of func.*verify=False|torch.no_grad"):
        TWICE[kind](lambda x: SECOND[name](x).sum())


def test_what_a_custom_function_says_is_its_first_derivative():
    assert_close(fd.jacobian(Exp.apply)(X), X.exp().diag())
    assert_close(fd.batch_jacobian(Exp.apply)(X[None]), X.exp().diag()[None])


def test_numpy_that_changes_nothing_nearby_is_no_cut():
    def sorted_by_numpy(x):
        return x[torch.from_numpy(np.argsort(x.detach().numpy()))] ** 2

    order = X.argsort()
    assert_close(fd.jacobian(sorted_by_numpy)(X), (2 * X).diag()[order])
    assert_close(
        fd.hessian(lambda x: sorted_by_numpy(x)[0])(X),
        2 * torch.eye(3).double()[order[:1]].mT @ torch.eye(3).double()[order[:1]],
    )


MEANT = {
    "detach": (lambda x: x * x.norm().detach(), X.norm() * torch.eye(3).double()),
    "a number": (lambda x: x * x.detach().norm().item(), X.norm() * torch.eye(3).double()),
    "data": (lambda x: x * x.data, X.diag()),
    "a list": (lambda x: x * torch.tensor(x.detach().tolist()).double(), X.diag()),
    "half of it": (
        lambda x: torch.stack([x.exp(), x.exp().detach()]),
        torch.stack([X.exp().diag(), torch.zeros(3, 3)]),
    ),
}


@pytest.mark.parametrize("name", MEANT)
def test_a_constant_that_was_meant_stays_one(name):
    func, jacobian = MEANT[name]
    assert_close(fd.jacobian(func)(X), jacobian.double(), rtol=1e-6, atol=1e-6)
    if name != "half of it":
        assert_close(fd.hessian(lambda x: func(x).sum())(X), torch.zeros(3, 3).double())


def test_without_the_check_plain_autograd_is_taken_at_its_word():
    assert not fd.hessian(lambda x: Exp.apply(x).sum(), verify=False)(X).any()
    assert not fd.jacobian(CUT["NumPy"], verify=False)(X).any()


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, u):
        return u


@pytest.mark.parametrize("func", [Rounded.apply, lambda x: Rounded.apply(x)])
def test_a_compiled_derivative_of_a_custom_function_is_its_own(func):
    torch.compiler.reset()
    compiled = torch.compile(fd.jacobian(func), backend="eager")
    for x in (X, 2 * X):
        assert_close(compiled(x), torch.eye(3).double())


def test_what_is_refused_is_refused_in_our_words_when_it_is_compiled():
    with pytest.raises(RuntimeError, match="contradicts differences") as refusal:
        torch.compile(fd.hessian(lambda x: Exp.apply(x).sum()), backend="eager")(X)
    assert "Dynamo" not in type(refusal.value).__name__
