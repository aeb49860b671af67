"""What torch.compile makes of the automatic choice: the recipe of the plan, and the operators that it turns around."""

import copy
import itertools
import operator

import pytest
import torch
from custom_functions import WrongForward
from torch import nn
from torch.testing import assert_close

import funcdiff as fd
from funcdiff.measure import count

A, C = torch.rand(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def flops(func, *args):
    """Those of the graphs that the compiler makes."""
    found = []

    def backend(module, inputs):
        def run(*tensors):
            found.append(count(module, *tensors).flops)
            return module(*tensors)

        return run

    torch.compile(func, backend=backend)(*args)
    return sum(found)


@pytest.mark.parametrize("recipe", [fd.batch_jacobian, fd.batch_hessian])
@pytest.mark.parametrize("sizes", [(5, 60, 60, 25), (40, 30, 2)], ids=str)
def test_a_compiled_batch_takes_the_recipe_of_its_plan(recipe, sizes):
    torch.manual_seed(0)
    layers = [[nn.Linear(a, b), nn.Tanh()] for a, b in itertools.pairwise(sizes)]
    network = nn.Sequential(*(module for pair in layers for module in pair)).requires_grad_(False)
    rows = torch.randn(100, sizes[0])
    assert flops(recipe(network), rows) <= 1.01 * count(recipe(network), rows).flops


@pytest.mark.parametrize("recipe", [fd.jacobian_taylor, fd.hessian_taylor, fd.jacobian, fd.hessian])
@pytest.mark.parametrize("name", ["matmul", "lt", "ge", "add", "mul"])
@pytest.mark.parametrize("order", ["input first", "constant first"])
def test_operators_on_the_input_and_a_constant(name, order, recipe):
    """Of `input @ constant` the compiler calls the method of the constant."""
    op, point, constant = getattr(operator, name), A[:2, :2], C[:2, :2]

    def func(x):
        y = op(x, constant) if order == "input first" else op(constant, x)
        return torch.where(y, x, x.square()).flatten() if y.dtype == torch.bool else (y * x).sin().flatten()

    assert_close(torch.compile(recipe(func), backend="eager")(point), recipe(func)(point))


@pytest.mark.parametrize("in_dims", [(None, 0), (0, None)], ids=str)
def test_a_batch_of_products_with_rows(in_dims):
    w, x = (C, A) if in_dims == (None, 0) else (A[:, None] * C, A[0])
    result = torch.compile(fd.batch_jacobian(lambda w, x: (w @ x).tanh(), 0, in_dims), backend="eager")(w, x)
    assert_close(result, fd.batch_jacobian(lambda w, x: (w @ x).tanh(), 0, in_dims)(w, x))


FUNCTIONS = {
    "branches on values": lambda x: x.sin() if x.sum() > 0 else x.cos(),
    "wrong forward mode": WrongForward.apply,
    "right in no mode under vmap": lambda x: torch.cdist(x.reshape(2, 2), x.reshape(2, 2).flip(0) ** 2).flatten(),
    "determinant": lambda x: torch.det(x.reshape(2, 2))[None],
    "product": lambda x: x.prod()[None],
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_compiled_batch_is_as_right_as_it_is(function):
    batch = fd.batch_jacobian(FUNCTIONS[function])
    assert_close(torch.compile(batch, backend="eager")(A), batch(A))


ROWS = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
CENTRES = ROWS[:2] + 0.1


def distances(x):
    return torch.cdist(x, CENTRES)


def stops(x):
    y = x.sin()
    torch._dynamo.graph_break()
    return distances(y)


# Of torch's distances vmap repeats the first row: which recipes are right is known where func is looked at.
WITH_TREES = {
    "jacobian": (lambda: fd.jacobian(distances), ROWS),
    "jacobian of a dict": (lambda: fd.jacobian(lambda tree: distances(tree["x"])), {"x": ROWS}),
    "jacobian by the second of two": (
        lambda: lambda x: fd.jacobian(lambda y, x: distances(x) * y, 1)(x[0, 0], x),
        ROWS,
    ),
    "jacobian with aux": (lambda: fd.jacobian(lambda x: (distances(x), x.sin()), has_aux=True), ROWS),
    "hessian of a list": (lambda: fd.hessian(lambda tree: distances(tree[0]).pow(3).sum()), [ROWS]),
    "batch_jacobian": (lambda: fd.batch_jacobian(lambda x: distances(x[None])[0]), ROWS),
    "batch_jacobian of a dict": (lambda: fd.batch_jacobian(lambda tree: distances(tree["x"][None])[0]), {"x": ROWS}),
    "batch_hessian of a dict": (lambda: fd.batch_hessian(lambda t: distances(t["x"][None]).pow(3).sum()), {"x": ROWS}),
    "where the compiler stops": (lambda: lambda x: fd.jacobian(stops)(x), ROWS),
    "of what was computed before": (
        lambda: lambda x: fd.jacobian(lambda y: torch.cdist(y, x[:2].sin() + x.shape[0]))(x),
        ROWS,
    ),
}


@pytest.mark.filterwarnings("ignore:.*Dynamo detected a call to a:UserWarning")  # of what it leaves to eager code
@pytest.mark.parametrize(
    ("name", "dynamic"), [*((name, None) for name in WITH_TREES), ("jacobian of a dict", True), ("jacobian", True)]
)
def test_a_derivative_made_inside_or_of_a_tree_is_the_eager_one(name, dynamic):
    make, args = WITH_TREES[name]
    expected = make()(args)
    assert_close(torch.compile(make(), backend="eager", dynamic=dynamic)(args), expected)
    torch.compiler.reset()
    assert_close(torch.compile(lambda args: make()(args), backend="eager", dynamic=dynamic)(args), expected)


NETWORK = nn.Sequential(nn.Linear(5, 30), nn.Tanh(), nn.Linear(30, 3)).double().requires_grad_(False)
PARAMETERS = dict(NETWORK.named_parameters())
TRAINED = copy.deepcopy(NETWORK).requires_grad_(True)
BATCH = torch.rand(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def called(parameters, x):
    return torch.func.functional_call(NETWORK, parameters, (x,))


ONE_GRAPH = {
    "jacobian by parameters": lambda: fd.jacobian(called),
    "batch_jacobian": lambda: lambda _, x: fd.batch_jacobian(NETWORK)(x),
    "batch_jacobian of parameters": lambda: fd.batch_jacobian(called, 1, in_dims=(None, 0)),
    "batch_hessian of parameters": lambda: fd.batch_hessian(called, 1, in_dims=(None, 0)),
    "under vmap": lambda: lambda _, x: torch.func.vmap(fd.jacobian(NETWORK))(x),
    "trained, under vmap": lambda: lambda _, x: torch.func.vmap(fd.jacobian(TRAINED))(x),
}


@pytest.mark.parametrize("name", ONE_GRAPH)
def test_a_network_stays_one_graph(name):
    make = ONE_GRAPH[name]
    compiled = torch.compile(lambda *args: make()(*args), backend="eager", fullgraph=True)
    assert_close(compiled(PARAMETERS, BATCH), make()(PARAMETERS, BATCH))


def test_what_is_differentiated_twice_inside_is_the_eager_one():
    expected = fd.jacobian(fd.jacobian(distances))(ROWS)
    assert_close(torch.compile(lambda x: fd.jacobian(fd.jacobian(distances))(x), backend="eager")(ROWS), expected)
