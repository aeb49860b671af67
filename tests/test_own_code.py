"""Code of a user's own, custom operators and autograd functions: differentiated right, or refused."""

import pytest
import torch
from custom_functions import Cubed, Forgetful, OldCubed, OldRounded
from torch import nn
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._safety import planes
from funcdiff._safety.accusing import Check
from funcdiff._torch.tape import sketch

WEIGHT = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
X = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)


@torch.library.custom_op("funcdiff_tests::cube", mutates_args=())
def cube(x: torch.Tensor) -> torch.Tensor:
    return x**3


cube.register_autograd(
    lambda ctx, g: 3 * ctx.saved_tensors[0] ** 2 * g,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)

CUBES = {
    "a custom operator": cube,
    "a custom function with a forward rule": Cubed.apply,
    "a custom function in the old style": OldCubed.apply,
    "a compiled function": torch.compile(lambda x: x**3, backend="eager"),
    "a compiled function, in one graph": torch.compile(lambda x: x**3, backend="eager", fullgraph=True),
}


@pytest.mark.parametrize("name", CUBES)
@pytest.mark.parametrize("outputs", [2, 40])
def test_code_of_the_users_own_is_differentiated_right(name, outputs):
    weight = torch.linspace(-1, 1, 3 * outputs, dtype=torch.float64).reshape(outputs, 3)
    y = weight @ X

    def func(x):
        return CUBES[name](weight @ x)

    hessian = 6 * y[:, None, None] * weight[:, :, None] * weight[:, None, :]
    assert_close(fd.jacobian(func)(X), 3 * (y**2)[:, None] * weight)
    assert_close(fd.hessian(func)(X), hessian)
    assert_close(fd.hvp(lambda x: func(x).sum(), (X,), (X,)), hessian.sum(0) @ X)
    assert_close(fd.laplacian(func)(X), hessian.diagonal(dim1=1, dim2=2).sum(1))
    assert_close(fd.hessian_diagonal(func)(X), hessian.diagonal(dim1=1, dim2=2))


def test_a_straight_through_function_defines_its_derivative():
    assert_close(fd.jacobian(OldRounded.apply)(X), torch.eye(3).double())


def test_an_adjoint_that_forgets_its_input_is_refused():
    def func(x):
        return Forgetful.apply(x).sum()

    assert_close(fd.jacobian(func)(X), 3 * X**2)
    for wrong in (lambda: fd.hessian(func)(X), lambda: fd.hvp(func, (X,), (X,)), lambda: fd.laplacian(func)(X)):
        with pytest.raises(RuntimeError, match="Forgetful"):
            wrong()


class Kernel(torch.autograd.Function):
    """The sum of exp(x) - x, whose minimum is 0, with a slope that its backward holds constant."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.exp() - 1)
        return (x.exp() - x).sum()

    @staticmethod
    def backward(ctx, u):
        return u * ctx.saved_tensors[0]


@pytest.mark.parametrize("distance", [0.0, 1e-12, 1e-9, 1e-6, 1e-3])
def test_a_lost_second_derivative_is_refused_at_a_minimum(distance):
    x = torch.full((3,), distance, dtype=torch.float64)
    assert not torch.autograd.functional.hessian(Kernel.apply, x).any()
    with pytest.raises(RuntimeError, match="contradicts differences of func"):
        fd.hessian(Kernel.apply)(x)


class DetachesInForward(torch.autograd.Function):
    """An adjoint that forgets its input; what its forward detaches is no constant that the caller means."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        with torch.no_grad():
            return x.detach() ** 3

    @staticmethod
    def backward(ctx, gradient):
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            return torch.autograd.grad(x**3, x, gradient)[0]


def test_what_a_custom_function_detaches_is_no_constant_by_intent():
    with pytest.raises(RuntimeError, match="DetachesInForward"):
        fd.hessian(lambda x: DetachesInForward.apply(x).sum())(X)
    with torch.no_grad():  # where a constant by intent is one still
        got = fd.hessian(lambda x: (x.detach() * x.sin()).sum())(X)
    assert_close(got, torch.diag(-X * X.sin()))


def test_without_the_check_a_custom_function_is_differentiated_by_plain_reverse_mode_alone():
    transform = fd.jacobian(lambda x: Cubed.apply(WEIGHT @ x), verify=False)
    assert fd.explain(transform, X).recipe in ("jacobian_batched_grad", "jacobian_loop")
    assert_close(transform(X), 3 * ((WEIGHT @ X) ** 2)[:, None] * WEIGHT)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")  # what is tested, by intent
@pytest.mark.parametrize("outputs", [2, 40])
def test_scripted_functions_stay_right_when_torch_optimises_them(outputs):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, outputs), nn.Tanh()).double()
    scripted = torch.jit.script(net)
    for _ in range(5):
        assert_close(fd.jacobian(scripted)(X), fd.jacobian_loop(net)(X))


@torch.library.custom_op("funcdiff_tests::without_backward", mutates_args=())
def without_backward(x: torch.Tensor) -> torch.Tensor:
    return x.sin()


@without_backward.register_fake
def _(x):
    return torch.empty_like(x)


@pytest.mark.parametrize("n", [3, 40])
def test_an_operator_without_a_derivative_is_refused_with_what_to_register(n):
    with pytest.raises(RuntimeError, match="register_autograd"):
        fd.batch_jacobian(lambda x: without_backward(x).sum())(torch.randn(2, n))


def test_other_points_are_not_zero(monkeypatch):
    """Of one input, a move by its own size would lead there, where `maximum` has two slopes."""
    points, here, func = [], Check("agrees", 0.0), Cubed.apply
    monkeypatch.setattr(planes, "_on_plane", lambda _, flat, point, *rest: points.append(point[0]) or here)
    for x in (torch.tensor([-1.2578]), torch.tensor([0.3]), torch.tensor([2.0])):
        known = sketch(func, [x])
        assert planes.and_elsewhere(here, fd.hessian, func, [x], "hessian", known, under_vmap=False) == here
    assert points
    assert all(point.abs().min() > 1e-3 for point in points)
