"""A Jacobian of a gradient that func takes itself: what the loss detaches is a constant there, as in its Hessian."""

import pytest
import torch
from test_meant_constants import RIGHT_ONCE, detached_steps, without_gradients
from torch import nn
from torch.autograd import forward_ad
from torch.testing import assert_close

import funcdiff as fd

X = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
torch.manual_seed(0)
NET = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4)).double()
OTHER = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4)).double()


def focal(x):
    p = x.sigmoid()
    return -((1 - p).detach() ** 2 * p.log()).sum()


def clipped(x):
    """Of proximal policy optimisation: the old policy is a constant."""
    logits = NET(x).log_softmax(0)
    ratio = (logits - logits.detach()).exp()
    return torch.minimum(ratio, ratio.clamp(0.8, 1.2)).sum() + (ratio * X[0]).square().sum()


def without(x):
    with torch.no_grad():
        target = OTHER(x).softmax(0)
    return nn.functional.cross_entropy(NET(x)[None], target[None])


LOSSES = {
    "a weight": focal,
    "a teacher": lambda x: nn.functional.kl_div(NET(x).log_softmax(0), OTHER(x).softmax(0).detach(), reduction="sum"),
    "a teacher in no_grad": without,
    "a bootstrapped target": lambda x: (NET(x) - (X[0] + 0.9 * NET(x / 2).max().detach())).square().mean(),
    "a norm of its own": lambda x: (NET(x) / NET(x).norm().detach()).sin().sum(),
    "a scale": lambda x: (NET(x).square() / (NET(x).square().mean().detach() + 1e-3)).log1p().sum(),
    "an advantage": lambda x: -(NET(x).log_softmax(0)[0] * (OTHER(x)[0] - OTHER(x)[1]).detach()),
    "a mean": lambda x: (NET(x) - NET(x).mean().detach()).pow(3).sum(),
    "a stopped branch": lambda x: -nn.functional.cosine_similarity(NET(x), OTHER(x).detach(), dim=0),
    "an old policy": clipped,
    "a straight-through step": lambda x: (x + (x.round() - x).detach()).sin().sum() + NET(x).sum(),
    "a number": lambda x: NET(x).sum() * float(NET(x).detach().norm()),
}
GRADIENTS = {
    "torch.func.grad": torch.func.grad,
    "autograd": lambda f: lambda x: torch.autograd.grad(f(x), x, create_graph=True)[0],
    "a part of it": lambda f: lambda x: torch.autograd.grad(f(x), x, create_graph=True)[0][:2],
}


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("name", LOSSES)
def test_what_a_loss_detaches_is_constant_in_its_gradient_too(name, gradient):
    loss = LOSSES[name]
    if name == "a number" and "func" in gradient:
        pytest.skip("a transform reads no numbers")
    found = fd.jacobian(GRADIENTS[gradient](loss))(X)
    assert_close(found, fd.hessian(loss)(X)[: len(found)])


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize(
    "func",
    [RIGHT_ONCE["the last step beside a constant"], detached_steps],
    ids=["beside a constant", "many steps"],
)
def test_a_solver_hides_behind_no_gradient(func, gradient):
    with pytest.raises(fd.RefusedError, match="contradicts differences of func"):
        fd.jacobian(GRADIENTS[gradient](lambda x: func(x).sum()))(X)


def test_a_solver_without_gradients_hides_behind_no_gradient():
    with pytest.raises(fd.RefusedError, match="contradicts differences of func"):
        fd.jacobian(GRADIENTS["autograd"](lambda x: without_gradients(x).sum()))(X)


def by_dual_numbers(f):
    def slope(x):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(f(forward_ad.make_dual(x, torch.ones_like(x)))).tangent

    return slope


FORWARD = {
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
    "jacfwd": torch.func.jacfwd,
    "dual numbers": by_dual_numbers,
    "jacobian": fd.jacobian,
    "laplacian": fd.laplacian,
}


@pytest.mark.parametrize("derivative", FORWARD)
def test_a_solver_hides_behind_no_derivative_by_forward_mode(derivative):
    """Beside another term, so that what is left is no zero."""
    with pytest.raises(fd.RefusedError, match="contradicts differences of func"):
        fd.jacobian(FORWARD[derivative](lambda x: (x.pow(3) + RIGHT_ONCE["the last step of a solver"](x)).sum()))(X)


@pytest.mark.parametrize("gradient", [torch.func.grad, GRADIENTS["autograd"]], ids=["torch.func", "autograd"])
def test_a_solver_hides_behind_no_gradient_of_a_gradient(gradient):
    def slope(x):
        return gradient(lambda x: RIGHT_ONCE["the last step of a solver"](x).sum())(x).sum()

    with pytest.raises(fd.RefusedError, match="contradicts differences of func"):
        fd.hessian(slope)(X)


def test_a_constant_beside_a_gradient_that_it_does_not_enter_is_one():
    def func(x):
        return torch.func.grad(lambda y: y.pow(3).sum())(x) * x.detach().norm()

    assert_close(fd.jacobian(func)(X), (6 * X * X.norm()).diag())
    assert_close(fd.hessian(lambda x: func(x).sum())(X), torch.eye(3, dtype=X.dtype) * 6 * X.norm())


def test_what_moves_with_a_batch_is_held_inside_vmap():
    rows = torch.stack([X, -X, X / 2])

    def slopes(rows):
        return torch.vmap(torch.func.grad(LOSSES["a teacher"]))(rows)

    found = fd.jacobian(slopes)(rows)
    for i, x in enumerate(rows):
        assert_close(found[i, :, i], fd.hessian(LOSSES["a teacher"])(x))
