"""The first result of a plan, held against differences: faults are found, and what is right is never accused."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import vmap
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._safety.verification import check
from funcdiff._torch.tape import sketch

WEIGHT = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
X = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)


def found(func, derivative, kind, x=X):
    return check(func, [x], [derivative], kind, sketch(func, [x])).outcome


SMOOTH = {
    "tanh layer": lambda x: torch.tanh(WEIGHT.to(x) @ x),
    "softmax": lambda x: torch.softmax(WEIGHT.to(x) @ x, 0),
    "product": lambda x: x.prod() * x.exp(),
    "constant": lambda x: x.detach() * 0 + 1,
    "linear": lambda x: 3 * x,
    "large numbers": lambda x: 1e8 + x.square(),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_right_is_not_accused(name, dtype):
    func, x = SMOOTH[name], X.to(dtype)
    assert found(func, fd.jacobian_loop(func)(x), "jacobian", x) != "wrong"
    if dtype != torch.bfloat16:
        assert found(func, fd.hessian_double_backward(func)(x), "hessian", x) != "wrong"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("fault", [torch.zeros_like, lambda block: 1.3 * block, torch.neg, lambda block: block.flip(0)])
@pytest.mark.parametrize("name", ["tanh layer", "softmax", "product"])
def test_what_is_wrong_is_accused(name, fault, dtype):
    func, x = SMOOTH[name], X.to(dtype)
    assert found(func, fault(fd.jacobian_loop(func)(x)), "jacobian", x) == "wrong"
    assert found(func, fault(fd.hessian_double_backward(func)(x)), "hessian", x) == "wrong"


MEANT = {
    "a kink at the point": (lambda x: (x - X).abs() + (x - X).relu(), X),
    "a detached factor": (lambda x: x * x.norm().detach(), X),
    "a number taken out": (lambda x: x * float(x.detach().norm()), X),
    "a straight-through estimator": (lambda x: x + (x.round() - x).detach(), X),
    "rounding": (lambda x: x.round() * x, X),
    "a root at zero": (lambda x: x.abs().sqrt(), torch.zeros(3)),
}


@pytest.mark.parametrize("name", MEANT)
def test_kinks_and_meant_constants_are_not_accused(name):
    func, x = MEANT[name]
    assert found(func, fd.jacobian_loop(func)(x), "jacobian", x) != "wrong"


def test_a_plan_does_not_claim_differences_that_it_overruled():
    transform = fd.jacobian(lambda x: x * x.norm().detach())
    transform(X)
    assert "what func holds constant stays as it is" in repr(fd.explain(transform, X))
    assert "agrees with differences of func" not in repr(fd.explain(transform, X))


def test_a_straight_through_function_defines_its_derivative():
    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()

        @staticmethod
        def backward(ctx, g):
            return g

    assert_close(fd.jacobian(Rounded.apply)(X), torch.eye(3).double())


# Operators of a user's own

CUBES = {}


@torch.library.custom_op("funcdiff_tests::cube", mutates_args=())
def cube(x: torch.Tensor) -> torch.Tensor:
    return x**3


cube.register_autograd(
    lambda ctx, g: 3 * ctx.saved_tensors[0] ** 2 * g,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)
CUBES["a custom operator"] = cube


class WithForwardRule(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g

    @staticmethod
    def jvp(ctx, t):
        return 3 * ctx.saved_tensors[0] ** 2 * t


CUBES["a custom function with a forward rule"] = WithForwardRule.apply


class OldStyle(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


CUBES["a custom function in the old style"] = OldStyle.apply
CUBES["a compiled function"] = torch.compile(lambda x: x**3, backend="eager")
CUBES["a compiled function, in one graph"] = torch.compile(lambda x: x**3, backend="eager", fullgraph=True)


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


def test_an_adjoint_that_forgets_its_input_is_refused():
    class Forgetful(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            with torch.enable_grad():
                x = ctx.saved_tensors[0].detach().requires_grad_()
                return torch.autograd.grad(x**3, x, g)[0]

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


def test_without_the_check_a_custom_function_is_differentiated_by_plain_reverse_mode_alone():
    transform = fd.jacobian(lambda x: WithForwardRule.apply(WEIGHT @ x), verify=False)
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


# The planner disturbs nothing


def test_a_gradient_inside_the_function():
    def force(x):
        x = x if x.requires_grad else x.requires_grad_()
        return -torch.autograd.grad((x**4).sum(), x, create_graph=True)[0]

    assert_close(fd.jacobian(force)(X), torch.diag(-12 * X**2))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")  # torch says so of each
@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo])
def test_constant_sparse_matrices(layout):
    sparse = WEIGHT.to_sparse_csr() if layout is torch.sparse_csr else WEIGHT.to_sparse()
    y = WEIGHT @ X
    assert_close(fd.jacobian(lambda x: torch.sin(sparse @ x))(X), y.cos()[:, None] * WEIGHT)
    laplacian = fd.laplacian(lambda x: torch.sin(sparse @ x).sum())(X)
    assert_close(laplacian, -(y.sin() * WEIGHT.square().sum(1)).sum())


@pytest.mark.parametrize("write", [lambda kept, x: torch.mul(x, 2, out=kept), lambda kept, x: kept.copy_(x)])
def test_writes_into_what_was_captured_are_refused_before_they_happen(write):
    kept = torch.zeros(3, dtype=torch.float64)

    def func(x):
        write(kept, x.detach())
        return x * kept.sum()

    with pytest.raises(RuntimeError, match="captured"):
        fd.jacobian(func)(X)
    assert kept.eq(0).all()


def test_a_bug_in_the_function_is_raised_once_as_it_is():
    calls = []

    def func(x):
        calls.append(1)
        return {}["missing"] * x

    for transform in (fd.jacobian, fd.hessian, fd.laplacian):
        calls.clear()
        with pytest.raises(KeyError, match="missing"):
            transform(func)(X)
        assert len(calls) == 1


def test_planning_and_checking_are_not_counted():
    from funcdiff.measure import count

    first, second = (count(fd.hessian(lambda x: torch.tanh(WEIGHT @ x).sum()), X) for _ in range(2))
    assert first.operations == second.operations


# Rows of a batch

ROWS = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3 * torch.eye(3)
DETERMINANTS = {
    "slogdet": lambda a: torch.linalg.slogdet(a)[1],
    "logdet": lambda a: torch.logdet(a @ a.mT),
    "det": torch.linalg.det,
    "solve": lambda a: torch.linalg.solve(a, torch.ones(3, dtype=a.dtype)).sum(),
    "inverse": lambda a: torch.linalg.inv(a).square().sum(),
}


@pytest.mark.parametrize("name", DETERMINANTS)
def test_every_row_of_a_batch_is_right(name):
    func = DETERMINANTS[name]
    expected = torch.stack([torch.autograd.functional.hessian(func, a) for a in ROWS])
    assert_close(fd.batch_hessian(func)(ROWS), expected)
    assert_close(vmap(fd.hessian(func))(ROWS), expected)
    diagonal = expected.reshape(4, 9, 9).diagonal(dim1=1, dim2=2)
    assert_close(vmap(fd.laplacian(func))(ROWS), diagonal.sum(1))
    assert_close(vmap(fd.hessian_diagonal(func))(ROWS).reshape(4, 9), diagonal)


@pytest.mark.parametrize("name", DETERMINANTS)
def test_training_through_a_laplacian(name):
    a = ROWS[1].clone().requires_grad_()

    def traced(a):
        return torch.autograd.functional.hessian(DETERMINANTS[name], a, create_graph=True).reshape(9, 9).trace()

    (got,) = torch.autograd.grad(fd.laplacian(DETERMINANTS[name])(a), a)
    assert_close(got, torch.autograd.grad(traced(a), a)[0])


def test_rows_under_autocast_do_not_mix():
    torch.manual_seed(0)
    net, rows = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = fd.batch_jacobian_summed(net)(rows)
    assert_close(got, fd.batch_jacobian(net)(rows), rtol=0, atol=0.05)


def test_attention_has_a_product():
    q = torch.randn(1, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def written(q):
        return (torch.softmax(q @ q.mT / 2, -1) @ q).square().sum()

    got = fd.hvp(lambda q: F.scaled_dot_product_attention(q, q, q).square().sum(), (q,), (q,))
    assert_close(got, torch.autograd.functional.hvp(written, q, q)[1])


def test_what_is_compiled_is_run_eagerly_by_all_threads_and_compiled_again_afterwards():
    from torch._dynamo import eval_frame

    compiled, before = torch.compile(lambda x: x**3, backend="eager"), eval_frame._stance
    transform, results = (
        fd.jacobian(lambda x: compiled(WEIGHT @ x).sum()),
        [],
    )  # in reverse: forward mode has no threads
    transform(X)
    threads = [threading.Thread(target=lambda: results.append(transform(X))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert eval_frame._stance == before
    assert len(results) == 8


def test_a_product_on_the_meta_device_has_a_shape_and_no_check():
    x = torch.empty(3, device="meta")
    product = fd.hvp(lambda x: x.pow(3).sum(), (x,), (x,))
    assert product.is_meta
    assert product.shape == (3,)


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
