"""What func takes out of the graph: meant as a constant, or cut by NumPy and by gradients without a graph."""

import numpy as np
import pytest
import torch
from custom_functions import Forgetful, OldRounded, OldSine, Rounded
from torch import nn
from torch.autograd import functional
from torch.nn.utils import vector_to_parameters
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._safety.verification import check
from funcdiff._torch.tape import sketch

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


WRITTEN = nn.Linear(2, 1).double()


def by_writing_into_a_module(x):
    vector_to_parameters(x, WRITTEN.parameters())
    return WRITTEN(X[:2]).square().sum()


@pytest.mark.parametrize("kind", [*TWICE, "jacobian", "batch_jacobian"])
def test_a_vector_that_is_written_into_a_module_is_refused(kind):
    before = [p.clone() for p in WRITTEN.parameters()]
    derivative = (TWICE | EVERY)[kind]
    with pytest.raises(fd.RefusedError, match="module_function and ravel"):
        derivative(by_writing_into_a_module)
    assert all(map(torch.equal, before, WRITTEN.parameters()))


SMALL = {
    "NumPy": lambda x: (10 * x**2 + 0.3 * x * by_numpy(np.sin, x)).sum(),
    "a gradient": lambda x: (10 * x**2 + 0.1 * x * force(x)).sum(),
    "the last step of a solver": lambda x: (2 * x**2).sum() + 0.1 * one_step(x).sum(),
}


@pytest.mark.parametrize("kind", TWICE)
@pytest.mark.parametrize("name", SMALL)
def test_a_small_term_that_is_cut_is_refused_as_well(name, kind):
    with pytest.raises(fd.RefusedError, match=r"contradicts differences of func"):
        TWICE[kind](SMALL[name])


@pytest.mark.parametrize("name", ["NumPy", "a gradient"])
def test_a_gradient_that_lacks_a_small_term_is_refused(name):
    with pytest.raises(fd.RefusedError, match="cuts it off"):
        fd.jacobian(SMALL[name])(X)


@pytest.mark.parametrize("kind", TWICE)
def test_a_gradient_of_zeros_is_no_constant_that_was_meant(kind):
    weight = torch.ones(3, dtype=X.dtype, requires_grad=True)  # so that the result has a graph, of others
    with pytest.raises(fd.RefusedError, match="cuts it off"):
        TWICE[kind](lambda x: (weight * x.detach().exp()).sum())


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


@pytest.mark.parametrize("func", [OldRounded.apply, lambda x: OldRounded.apply(x)])
def test_a_compiled_derivative_of_a_custom_function_is_its_own(func):
    torch.compiler.reset()
    compiled = torch.compile(fd.jacobian(func), backend="eager")
    for x in (X, 2 * X):
        assert_close(compiled(x), torch.eye(3).double())


class Doubled(Rounded):
    @staticmethod
    def backward(ctx, u):
        return 2 * u


INSIDE = {
    "jacobian": lambda x: fd.jacobian(Doubled.apply)(x),
    "batch_jacobian": lambda x: fd.batch_jacobian(Doubled.apply)(x[None])[0],
    "batch_jacobian_summed": lambda x: fd.batch_jacobian_summed(Doubled.apply)(x[None])[0],
    "under vmap": lambda x: torch.func.vmap(fd.jacobian(Doubled.apply))(x[None])[0],
}


@pytest.mark.filterwarnings("ignore:.*Dynamo detected a call to a:UserWarning")  # of what it leaves to eager code
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # which the compiler does
@pytest.mark.parametrize("name", INSIDE)
def test_the_compiler_does_not_ignore_a_custom_function_inside_a_derivative(name):
    torch.compiler.reset()
    assert_close(torch.compile(INSIDE[name], backend="eager")(X), 2 * torch.eye(3).double())
    torch.compiler.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"whose backward torch.compile ignores"):
        torch.compile(INSIDE[name], backend="eager", fullgraph=True)(X)
    torch.compiler.reset()
    compiled = torch.compile(lambda x: fd.jacobian(torch.sin)(Doubled.apply(x)), backend="eager", fullgraph=True)
    assert_close(compiled(X), X.round().cos().diag())  # outside of the derivative it may stand


def test_what_is_refused_is_refused_in_our_words_when_it_is_compiled():
    with pytest.raises(RuntimeError, match="contradicts differences") as refusal:
        torch.compile(fd.hessian(lambda x: Exp.apply(x).sum()), backend="eager")(X)
    assert "Dynamo" not in type(refusal.value).__name__


def hooked(x):
    y = x.exp()
    if y.requires_grad:
        y.register_hook(lambda u: 0.5 * u)
    return y.sin()


def one_step(x):
    """The last step of a solver of y^3 + y = x after detach(): its gradient is right, its second derivative is not."""
    y = torch.ones_like(x)
    for _ in range(30):
        y = y - (y**3 + y - x) / (3 * y**2 + 1)
    y = y.detach()
    return y - (y**3 + y - x) / (3 * y**2 + 1)


def detached_steps(x, number=8):
    y = torch.ones_like(x)
    for _ in range(number):
        y = (y - (y**3 + y - x) / (3 * y**2 + 1)).detach()
    return y - (y**3 + y - x) / (3 * y**2 + 1)


def without_gradients(x):
    with torch.no_grad():
        y = torch.ones(x.shape, dtype=x.dtype, device=x.device)
        for _ in range(30):
            y = y - (y**3 + y - x) / (3 * y**2 + 1)
    return y - (y**3 + y - x) / (3 * y**2 + 1)


RIGHT_ONCE = {
    "a hook": hooked,
    "the last step of a solver": one_step,
    "the last step beside a constant": lambda x: one_step(x) + x.detach() * x.sin(),
    "the last of many beside a small constant": lambda x: 0.01 * x.detach().exp() * x + detached_steps(x),
}


@pytest.mark.parametrize("kind", TWICE)
@pytest.mark.parametrize("name", RIGHT_ONCE)
def test_what_is_right_once_is_refused_twice(name, kind):
    with pytest.raises(RuntimeError, match=r"contradicts differences of func"):
        TWICE[kind](lambda x: RIGHT_ONCE[name](x).sum())


@pytest.mark.parametrize("kind", ["hessian", "laplacian"])
@pytest.mark.parametrize(
    "func", [lambda x: detached_steps(x, 33) + x**2 / x.norm().detach(), without_gradients], ids=["33 steps", "no_grad"]
)
def test_neither_many_steps_nor_properties_hide_the_last_one(func, kind):
    with pytest.raises(RuntimeError, match=r"contradicts differences of func"):
        TWICE[kind](lambda x: func(x).sum())


DATA_UNDER = {
    "a batch": lambda f: fd.batch_hessian(f)(X[None])[0],
    "vmap": lambda f: torch.vmap(fd.hessian(f))(X[None])[0],
    "vmap of a product": lambda f: torch.vmap(lambda x: fd.hvp(f, (x,), (X,)))(X[None])[0],
    "the compiler": lambda f: torch.compile(fd.hessian(f), backend="eager")(X),
    "the sum over rows": lambda f: fd.batch_hessian_summed(lambda rows: torch.stack([f(x) for x in rows]))(X[None])[0],
}


@pytest.mark.parametrize("place", DATA_UNDER)
def test_data_is_a_constant_under_two_transforms_as_well(place):
    torch.compiler.reset()
    found = DATA_UNDER[place](lambda x: (x.data**2 * x**2).sum())
    assert_close(found, 2 * X**3 if place == "vmap of a product" else (2 * X**2).diag())


@pytest.mark.parametrize("transform", [fd.jacobian, fd.hessian])
def test_the_compiler_does_not_follow_numpy(transform):
    torch.compiler.reset()
    with pytest.raises(RuntimeError, match=r"NumPy|numpy"):
        torch.compile(transform(lambda x: x * torch.from_numpy(x.detach().numpy()).sum()), backend="eager")(X)


def test_the_gradient_of_a_solver_that_ends_with_one_step_is_right():
    func = RIGHT_ONCE["the last step of a solver"]
    assert_close(fd.jacobian(func)(X), (1 / (3 * func(X) ** 2 + 1)).diag())


def test_the_fisher_matrix_by_a_divergence_from_itself_stays_what_is_meant():
    def divergence(x):
        old, new = x.detach().log_softmax(0), x.log_softmax(0)
        return (old.exp() * (old - new)).sum()

    p = X.softmax(0)
    fisher = p.diag() - torch.outer(p, p)
    assert_close(fd.hessian(divergence)(X), fisher)
    assert_close(fd.hvp(divergence, (X,), (X,)), fisher @ X)


BESIDE = {  # func, and whether plain autograd has its second derivative right
    "a custom function": (lambda x: OldSine.apply(x * x.detach().norm()).square().sum(), True),
    "a custom function, and a branch": (
        lambda x: OldSine.apply(x * (2 if x.detach().sum() > 0 else 1)).exp().sum(),
        True,
    ),
    "a custom function, and no_grad": (lambda x: OldSine.apply(x * torch.no_grad()(torch.norm)(x)).exp().sum(), True),
    "an adjoint that forgets its input": (lambda x: Forgetful.apply(x.exp() * x.detach().norm()).sum(), False),
    "an operator of torch's that is wrong twice": (
        lambda x: torch._weight_norm(torch.outer(x * x.detach().norm(), X.cos()), x[:, None].sin() + 2, 0).sin().sum(),
        False,
    ),
}


@pytest.mark.parametrize("name", BESIDE)
def test_differences_judge_what_stands_beside_a_constant(name):
    func, right = BESIDE[name]
    plain = functional.hessian(func, X)
    assert (check(func, [X], [plain], "hessian", sketch(func, [X])).outcome == "agrees") == right
    if right:
        assert_close(fd.hessian(func)(X), plain)


def test_tensors_kept_from_another_call_are_no_constants():
    kept = {}

    def func(x):
        key = tuple(x.detach().tolist())
        if key not in kept:
            kept[key] = x.exp()
        return kept[key] * x

    with pytest.raises(RuntimeError, match="made in another call"):
        fd.jacobian(func)(X)


def test_a_hook_is_asked_for_only_where_there_is_one():
    with pytest.raises(RuntimeError, match="does a hook change it"):
        fd.hessian(hooked)(X)
    with pytest.raises(RuntimeError, match="the gradient contradicts") as refusal:
        fd.hessian(lambda x: torch.nn.functional.normalize(x, dim=0))(torch.zeros(3))
    assert "hook" not in str(refusal.value)


def test_a_backward_hook_of_a_module_defines_no_derivative():
    layer = torch.nn.Linear(3, 2).double()
    layer.register_full_backward_hook(lambda module, inputs, outputs: (2 * inputs[0],))
    expected = (1 - layer(X).tanh() ** 2)[:, None] * layer.weight
    assert_close(fd.jacobian(lambda x: layer(x).tanh())(X), expected)


class Refusing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sin()

    @staticmethod
    def backward(ctx, u):
        raise RuntimeError("not derived")


@pytest.mark.parametrize("transform", [fd.jacobian, fd.laplacian, fd.hessian])
def test_what_a_custom_function_refuses_is_said_in_its_words(transform):
    with pytest.raises(RuntimeError, match=r"^not derived"):
        transform(lambda x: Refusing.apply(x).sum())(X)


def test_a_custom_function_inside_vmap_is_referred_to_the_loop():
    with pytest.raises(RuntimeError, match=r"use batch_jacobian .* loop over the rows") as refusal:
        torch.func.vmap(fd.jacobian(Exp.apply))(torch.stack([X, X]))
    assert "verify=False" not in str(refusal.value)


# Gradients switched off inside func

FEW = torch.randn(600, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MANY = torch.randn(2000, 600, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def scaled(switch):
    """A function for which forward mode is fastest and has no Taylor rule, with a norm that is computed otherwise."""

    def func(x):
        y = torch.linalg.svdvals(torch.outer(x, x.cos()) + torch.eye(3))
        with switch():
            size = x.norm()
        return MANY @ torch.sin(FEW @ y * size.clone())

    return func


@pytest.mark.parametrize("transform", [fd.jacobian, fd.batch_jacobian, lambda f: torch.func.vmap(fd.jacobian(f))])
def test_what_is_computed_without_gradients_is_constant_whatever_is_fastest(transform):
    func = scaled(torch.no_grad)
    x = X if transform is fd.jacobian else torch.stack([X, X + 0.1])
    found = transform(func)(x)
    assert_close(found if transform is fd.jacobian else found[1], functional.jacobian(func, x.reshape(-1, 3)[-1]))
    alone = fd.explain(fd.jacobian(func), X)
    assert "ignores torch.no_grad()" in repr(alone)
    assert "jacobian_forward" in repr(fd.explain(fd.jacobian(scaled(torch.enable_grad)), X)).splitlines()[2]


INFERENCE = {
    "a term": lambda x: 20 * x.sin() + torch.inference_mode()(torch.square)(x),
    "a factor": lambda x: x * torch.inference_mode()(torch.norm)(x).clone(),
    "the whole": torch.inference_mode()(torch.sin),
    "where forward mode is fastest": scaled(torch.inference_mode),
}
EVERY = {
    **TWICE,
    "jacobian": lambda f: fd.jacobian(f)(X),
    "batch_jacobian": lambda f: fd.batch_jacobian(f)(torch.stack([X, 2 * X])),
    "hvp_operator": lambda f: fd.hvp_operator(lambda x: f(x).sum(), X)(X),
    "under vmap": lambda f: torch.func.vmap(fd.jacobian(f))(torch.stack([X, 2 * X])),
    "of a gradient": lambda f: torch.func.grad(lambda x: fd.jacobian(f)(x).sum())(X),
    "compiled": lambda f: torch.compile(fd.jacobian(f), backend="eager")(X),
}


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("name", INFERENCE)
def test_computing_in_inference_mode_is_refused(name, kind):
    with pytest.raises(RuntimeError, match=r"computes in torch.inference_mode"):
        EVERY[kind](lambda x: INFERENCE[name](x) if kind not in TWICE else INFERENCE[name](x).sum())


def test_inference_mode_on_what_is_detached_and_around_a_call_changes_nothing():
    detached = lambda x: x.sin() + torch.inference_mode()(torch.square)(x.detach())  # noqa: E731  # as the others
    assert_close(fd.jacobian(detached)(X), X.cos().diag())
    with torch.inference_mode():
        assert_close(fd.jacobian(torch.sin)(X), X.cos().diag())
        assert_close(fd.hessian(lambda x: x.sin().sum())(X), -X.sin().diag())
