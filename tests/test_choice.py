"""The automatic recipes: right, or refused; planned once; and what the plan counts."""

import functools
import re
from collections import UserDict

import pytest
import reading
import torch
import torch.nn.functional as F
from custom_functions import OldSine
from torch import nn
from torch.func import vmap
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._automatic import cache, planning
from funcdiff._automatic.costs import FORMULAS
from funcdiff._automatic.passes import passes
from funcdiff._safety import obstacles
from funcdiff._torch.tape import Sketch, sketch
from funcdiff.measure import count

STATISTICS = torch.ones(3, dtype=torch.float64)

close = functools.partial(assert_close, rtol=1e-10, atol=1e-12)


def numbers(*shape):
    return torch.linspace(-1, 1.3, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


def network(n, m, width=16, layers=2, activation=nn.Tanh, norm=False, dtype=torch.float64):
    torch.manual_seed(0)
    parts = []
    for i in range(layers):
        parts += [nn.Linear(width if i else n, width), *([nn.LayerNorm(width)] if norm else []), activation()]
    return nn.Sequential(*parts, nn.Linear(width, m)).to(dtype).requires_grad_(False)


@pytest.fixture(autouse=True)
def forgetful():
    cache._plans.clear()


def operations():
    """Operations that one mode or another of torch 2.13 gets wrong, without an error."""
    square = numbers(3, 3) + 2 * torch.eye(3, dtype=torch.float64)
    yield "cdist", lambda x: torch.cdist(x.reshape(3, 2), numbers(4, 2) + 3), numbers(6)
    yield "det", lambda x: torch.linalg.det(x + square), numbers(3, 3)
    yield "slogdet", lambda x: torch.linalg.slogdet(x + square)[1], numbers(3, 3)
    yield "solve", lambda x: torch.linalg.solve(x + square, numbers(3)), numbers(3, 3)
    yield "cholesky_inverse", lambda x: torch.cholesky_inverse((x + 3 * square).tril()), numbers(3, 3)
    yield "logcumsumexp", lambda x: torch.logcumsumexp(x, 0), numbers(4)
    yield "cumprod", lambda x: torch.cumprod(x, 0), numbers(4)
    yield "prod", lambda x: torch.scatter_reduce(x, 0, torch.tensor([0, 0, 1]), x, "prod"), numbers(3) + 2
    yield "embedding", lambda x: F.embedding(torch.tensor([0, 2, 2]), x).sin(), numbers(3, 2)
    yield "layer_norm", lambda x: F.layer_norm(x, (4,)) ** 3, numbers(4)


OPERATIONS = {name: (func, x) for name, func, x in operations()}


def differences(func, x):
    sides = [func(x + e.reshape(x.shape)) - func(x - e.reshape(x.shape)) for e in 1e-5 * torch.eye(x.numel()).double()]
    return torch.stack(sides, -1) / 2e-5


@pytest.mark.parametrize("name", OPERATIONS)
def test_jacobians_that_one_mode_gets_wrong(name):
    func, x = OPERATIONS[name]
    expected = differences(func, x)
    assert_close(fd.jacobian(func)(x).reshape(expected.shape), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", OPERATIONS)
def test_hessians_that_one_mode_gets_wrong(name):
    func, x = OPERATIONS[name]
    expected = differences(fd.jacobian(func), x)
    assert_close(fd.hessian(func)(x).reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("func", "text"),
    [
        (lambda x: x * x.sum().item(), "Python number"),
        (lambda x: F.dropout(x), "random numbers"),
        (nn.BatchNorm1d(3).double(), "writes in place"),
        (lambda x: F.batch_norm(x, STATISTICS, STATISTICS, training=True), "writes in place"),
    ],
)
@pytest.mark.parametrize("recipe", [fd.jacobian, fd.hessian])
def test_refusals(recipe, func, text):
    x = numbers(4, 3)
    before = [buffer.clone() for buffer in func.buffers()] if isinstance(func, nn.Module) else []
    with pytest.raises(RuntimeError, match=text):
        recipe(func)(x)
    assert all(torch.equal(a, b) for a, b in zip(before, getattr(func, "buffers", list)(), strict=True))
    assert torch.equal(STATISTICS, torch.ones(3, dtype=torch.float64))


def test_a_branch_on_values_is_followed():
    close(fd.jacobian(lambda x: x**2 if x.sum() > 0 else x)(numbers(3)), torch.diag(2 * numbers(3)))


def test_one_draw_where_it_is_allowed_and_the_generator_moves_once():
    torch.manual_seed(0)
    slope = fd.jacobian(lambda x: F.dropout(x, 0.5), randomness="same")(torch.ones(50))
    torch.manual_seed(0)
    assert torch.equal(slope, torch.diag(F.dropout(torch.ones(50), 0.5)))


def test_planned_once(monkeypatch):
    plans, make = [], planning.make
    monkeypatch.setattr(planning, "make", lambda *args, **options: plans.append(make(*args, **options)) or plans[-1])

    def func(x):
        return x.sin()

    for _ in range(3):
        fd.jacobian(func)(numbers(3))
    assert len(plans) == len(cache._plans) == 1
    fd.jacobian(func)(numbers(4))
    assert len(plans) == len(cache._plans) == 2


def test_a_lambda_in_a_loop_is_planned_once_for_tensors_of_a_kind():
    for scale in (numbers(3), numbers(3) + 1):
        fd.hessian(lambda x: (scale * x.sin()).sum())(numbers(3))  # noqa: B023  # called in its own turn
    assert len(cache._plans) == 1
    for power in (2, 3):
        close(fd.jacobian(lambda x: x**power)(numbers(2)), torch.diag(power * numbers(2) ** (power - 1)))  # noqa: B023  # called in the same turn
    assert len(cache._plans) == 3


def test_the_mode_of_a_module_belongs_to_the_plan():
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).double().eval()
    fd.jacobian(net)(numbers(3))
    with pytest.raises(RuntimeError, match="random numbers"):
        fd.jacobian(net.train())(numbers(3))


def test_many_plans_do_not_pile_up():
    for i in range(600):
        cache.keep(i, None)
    assert len(cache._plans) == 512


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [fd.jacobian, fd.hessian])
@pytest.mark.parametrize(("n", "m"), [(2, 30), (30, 2), (12, 1)])
@pytest.mark.parametrize("norm", [False, True])
def test_the_same_choice_inside_vmap_and_compile(recipe, n, m, norm):
    net, x = network(n, m, norm=norm), numbers(n)
    outside = fd.explain(recipe(net), x).recipe
    chosen = []

    def watched(x):
        chosen.append(fd.explain(recipe(net), x).recipe)
        return recipe(net)(x)

    close(vmap(watched)(x[None])[0], recipe(net)(x))
    assert chosen == [outside]
    close(torch.compile(recipe(net), backend="eager", fullgraph=True)(x), recipe(net)(x))
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize(
    "func", [lambda x: x.tanh() * x.sum(), lambda x: {"a": x.sin() * x.sum()}], ids=["tensor", "tree"]
)
def test_compiled_for_several_shapes_in_one_graph(func):
    compiled = torch.compile(fd.jacobian(func), backend="eager", fullgraph=True)
    for size in (3, 4, 6):
        x = torch.linspace(0.1, 1, size, dtype=torch.float64)
        assert_close(compiled(x), fd.jacobian(func)(x))
    torch.compiler.reset()


def test_inside_a_compiled_function():
    net, x = network(4, 1), numbers(4)

    def product(x, v):
        return fd.hvp(lambda x: net(x).sin().sum(), (x,), (v,))

    def slopes(x, v):
        return fd.jacobian(lambda x: net(x).sin())(x), fd.hessian(lambda x: net(x).sin())(x)

    of_tree = fd.jacobian(lambda p: net(p["x"]).sin() * p["v"].sum())

    def of_trees(x, v):
        return of_tree({"x": x, "v": v})

    for func in (product, slopes, of_trees):
        assert_close(torch.compile(func, backend="eager", fullgraph=True)(x, x), func(x, x))
    torch.compiler.reset()


def test_rows_are_planned_for_their_number():
    net = network(3, 4)
    rows = numbers(7, 3)
    for recipe, batch, option in (
        (fd.jacobian, fd.batch_jacobian, "jacobian"),
        (fd.hessian, fd.batch_hessian, "hessian"),
    ):
        expected = torch.stack([recipe(net)(row) for row in rows])
        for chunk_size in (None, 2):
            close(batch(net, chunk_size=chunk_size, **{option: recipe})(rows), expected)


@pytest.mark.parametrize(("n", "m"), [(3, 40), (40, 3), (5, 5), (32, 32)])
@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_formulas_count_the_matrix_products(name, n, m):
    net, x = network(n, m, width=32, layers=3), numbers(n)
    predicted = FORMULAS[name].flops(sketch(net, (x.clone(),)))
    counted = count(getattr(fd, name)(net), x).flops
    if name.startswith("jacobian") or name == "hessian_taylor":
        assert predicted == counted
    else:  # a composition skips some of the second pass through the outer layers, double backward m n times
        most = 1.6 if name == "hessian_double_backward" else 1.5
        assert 0.8 * counted <= predicted <= most * counted


def test_sketch_of_a_network():
    s = sketch(network(4, 2, width=8, layers=2), (numbers(4),))
    assert (s.inputs, s.outputs) == (4, 2)
    assert s.flops == s.jvp_flops == s.second_flops == 2 * (4 * 8 + 8 * 8 + 8 * 2)
    assert s.curved == 2 * (8 * 8 + 8 * 2)  # the first layer's operand has no second derivative
    assert {"addmm", "tanh"} <= s.operators or {"mv", "tanh"} <= s.operators


def test_sketch_of_a_product_of_two():
    a = numbers(3, 3)
    s = sketch(lambda x: x @ x, (a.clone(),))
    assert s.jvp_flops == 2 * s.flops
    assert s.second_flops == 4 * s.flops
    assert sketch(lambda x: torch.relu(a @ x), (numbers(3),)).curved_elements == 0


@pytest.mark.parametrize(
    "reduce",
    [
        lambda y: y.logsumexp(0),
        torch.linalg.vector_norm,
        torch.var,
        torch.std,
        lambda y: F.mse_loss(y, torch.ones_like(y)),
        lambda y: F.smooth_l1_loss(y, torch.ones_like(y)),
        lambda y: F.huber_loss(y, torch.ones_like(y)),
        lambda y: F.binary_cross_entropy_with_logits(y, torch.ones_like(y)),
        lambda y: F.soft_margin_loss(y, torch.ones_like(y)),
        lambda y: F.poisson_nll_loss(y, torch.ones_like(y)),
    ],
)
def test_a_loss_that_reduces_costs_what_enters_it(reduce):
    weight, x = numbers(400, 100), numbers(100)
    transform = fd.hessian(lambda x: reduce(weight @ x))
    taylor = next(c for c in fd.explain(transform, x).plan.candidates if c.name == "hessian_taylor")
    pairs = 100 * 101 // 2
    assert taylor.cost.elements >= 400 * pairs
    transform(x)
    assert count(transform, x).peak_bytes < 8 * 400 * pairs / 2


def test_explanation():
    told = fd.explain(fd.jacobian(lambda x: torch.cdist(x, x + 1)), numbers(3, 2))
    assert told.recipe == "jacobian_forward"
    assert "torch gets _cdist_forward wrong" in repr(told)
    assert "<table" in told._repr_html_()
    assert fd.explain(fd.hvp, lambda x: x.sin().sum(), (numbers(3),), (numbers(3),)).recipe == "hvp_double_backward"
    with pytest.raises(TypeError, match="expected what an automatic function returned"):
        fd.explain(fd.jacobian_reverse(torch.sin), numbers(3))


def test_every_recipe_wrong_is_a_refusal(monkeypatch):
    wrong = dict.fromkeys((*obstacles.WRONG, "jacobian_taylor", "jacobian_loop"), frozenset({"sin"}))
    monkeypatch.setattr(obstacles, "WRONG", wrong)
    with pytest.raises(RuntimeError, match="no recipe is known to be right"):
        fd.jacobian(torch.sin)(numbers(3))
    close(fd.jacobian(torch.cos)(numbers(3)), torch.diag(-numbers(3).sin()))


def test_what_torch_cannot_differentiate_one_way_is_taken_another():
    close(fd.hessian(lambda x: OldSine.apply(x).sum())(numbers(3)), torch.diag(-numbers(3).sin()))
    assert len(cache._plans) == 1


def distance(x):
    return torch.cdist(x, x + 1)


OPERATION = torch.sin


@pytest.mark.parametrize("held", ["global", "list", "mapping", "keyword", "default"])
def test_a_plan_is_not_kept_for_another_operation(held, monkeypatch):
    # cdist's Jacobian by a batch of rows is wrong: the plan for the sine must not serve it.
    x = numbers(3, 2)
    kept = UserDict()

    def written_anew(operation):
        monkeypatch.setitem(globals(), "OPERATION", operation)
        operations, kept["operation"] = [operation], operation
        return {
            "global": lambda x: OPERATION(x),
            "list": lambda x: operations[0](x),
            "mapping": lambda x: kept["operation"](x),
            "keyword": lambda x, *, op=operation: op(x),
            "default": lambda x, op=operation: op(x),
        }[held]

    fd.jacobian(written_anew(torch.sin))(x)
    assert fd.explain(fd.jacobian(written_anew(torch.sin)), x).recipe != "jacobian_forward"
    assert fd.explain(fd.jacobian(written_anew(distance)), x).recipe == "jacobian_forward"


def test_a_plan_is_not_kept_for_another_layer():
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Dropout(0.5)).double().eval()
    fd.jacobian(net)(numbers(3))
    net[2].train()  # the root's mode stays
    with pytest.raises(RuntimeError, match="random numbers"):
        fd.jacobian(net)(numbers(3))


def test_a_plan_that_is_not_kept_is_said_to_be_checked_at_each_call():
    transform = fd.jacobian(lambda x: x.sin() * float(x.detach().sign().sum()))
    x = torch.ones(3)
    transform(x)
    assert "checked at each call" in repr(fd.explain(transform, x))


@pytest.mark.parametrize(
    ("transform", "outputs", "told"),
    [
        (fd.jacobian, 2, ": 2 passes in reverse mode."),
        (fd.jacobian, 2000, ": 3 passes in forward mode."),
        (fd.hessian, 1, ": 1 pass in reverse mode, differentiated by 3 passes in reverse mode."),
        (fd.hessian, 100, ": one pass in Taylor mode for 3 first and 6 second derivatives."),
        (fd.laplacian, 1, "1 output. "),
    ],
)
def test_an_explanation_says_how_many_passes_are_made(transform, outputs, told):
    weight = numbers(outputs, 3)
    assert told in reading.told(fd.explain(transform(lambda x: (weight @ x).sin()), numbers(3)))


@pytest.mark.parametrize("name", sorted(FORMULAS.keys() - {"hessian_taylor"}))
def test_the_passes_are_those_that_the_cost_counts(name):
    # Of a pass through func alone they cost one each. Forward over forward counts the inner ones as second passes.
    n, m = 5, 3
    alone = Sketch(n, m, jvp_flops=1, second_flops=name == "hessian_forward_over_forward")
    counted = FORMULAS[name].flops(alone)
    first, *second = map(int, re.findall(r"\d+", passes(name, alone)))
    assert counted == (first + first * second[0] if name == "hessian_forward_over_forward" else first + sum(second))


def test_an_explanation_says_when_preparing_saves_time():
    small = reading.told(fd.explain(fd.jacobian(lambda x: x.sin().sum()), torch.ones(3)))
    assert "3 inputs, 1 output: 1 pass in reverse mode." in small
    told = r"saves time from about ([\d,]+) calls on, or ([\d,]+) if .* \(torch.compile: from about ([\d,]+)\)"
    calls, first, compiled = (float(number.replace(",", "")) for number in re.search(told, small).groups())
    assert calls < first
    assert compiled / first == pytest.approx(7.0 / 2.5, rel=0.15)  # seconds that each takes once; rounded to a digit
    weight = torch.ones(2048, 2048)
    assert "prepare" not in repr(fd.explain(fd.jacobian(lambda x: weight @ x), torch.ones(2048)))


def norm_loss(parameters):
    weight, x = parameters.split([4, 12])
    return torch.nn.functional.layer_norm(x.reshape(3, 4), (4,), weight).pow(3).sum()


def test_what_explain_lists_without_a_mark_is_right_by_its_own_name():
    x = torch.linspace(-1, 2, 16, dtype=torch.float64).cos()
    right = torch.autograd.functional.jacobian(plain_gradient, x)
    plan = fd.explain(fd.hessian(norm_loss), x).plan
    wrong = {name for name in plan.usable if "," not in name and not _close(getattr(fd, name)(norm_loss)(x), right)}
    assert wrong  # which the plan may take, as it writes the norm with simpler operations
    assert wrong <= {candidate.name for candidate in plan.candidates if candidate.rewritten}
    assert not plan["hessian_double_backward"].rewritten  # of one output
    told = "can be wrong if called by name: native_layer_norm"
    assert told in " ".join(str(fd.explain(fd.hessian(norm_loss), x)).split())
    rows = fd.explain(fd.hessian(norm_loss, chunk_size="auto", budget=10**7), x).table().rows  # one is slower even then
    assert {row[0] for row in rows if told in row[-1]} == {c.name for c in plan.candidates if c.rewritten}


def plain_gradient(x):
    """By hand: plain autograd through the norm, written out."""
    with torch.enable_grad():
        x = x if x.requires_grad else x.clone().requires_grad_()
        weight, rows = x[:4], x[4:].reshape(3, 4)
        mean, variance = rows.mean(1, keepdim=True), rows.var(1, correction=0, keepdim=True)
        loss = ((rows - mean) / (variance + 1e-5).sqrt() * weight).pow(3).sum()
        return torch.autograd.grad(loss, x, create_graph=True)[0]


def _close(a, b):
    return bool((a - b).abs().max() <= 1e-8 * b.abs().max())
