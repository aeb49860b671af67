"""What torch.compile makes of the automatic choice: the recipe of the plan, and the operators that it turns around."""

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
    op = getattr(operator, name)

    def func(x):
        y = op(x, C) if order == "input first" else op(C, x)
        return torch.where(y, x, x.square()).flatten() if y.dtype == torch.bool else (y * x).sin().flatten()

    assert_close(torch.compile(recipe(func), backend="eager")(A), recipe(func)(A))


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
