"""Under torch.compile, no derivative ignores the backward of a custom autograd function, here not its derivative."""

import pytest
import torch
from custom_functions import OldSine
from planted_faults import Cosine
from torch.testing import assert_close

import funcdiff as fd
from funcdiff.checks.registry import REGISTRY

X = torch.linspace(0.1, 1, 3).double()
ROWS = torch.linspace(0.1, 1, 6).reshape(2, 3).double()


class OldDoubling(OldSine):
    """The sine, with twice its gradient: whoever differentiates what forward does gets half."""

    @staticmethod
    def backward(ctx, u):
        return 2 * OldSine.backward(ctx, u)


def attempt(derivative, x):
    try:
        return derivative(x)
    except Exception as refusal:  # whatever is loud: of forward mode, torch asserts something of its own
        return str(refusal)


def compiled_as_eager(derivative, x):
    torch.compiler.reset()
    compiled = attempt(torch.compile(derivative, backend="eager"), x)
    eager = attempt(derivative, x)
    if isinstance(eager, str):
        assert isinstance(compiled, str)
    else:
        assert not isinstance(compiled, str), compiled
        assert_close(compiled, eager)


# What the compiler itself warns of when it leaves something to eager code, and when it looks at a tensor.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Dynamo detected a call to a:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.name)
def test_a_derivative_inside_a_compiled_function_is_the_eager_one(entry):
    def derivative(x):
        return entry(lambda x: Cosine.apply(x).sum(), *([x, x] if entry.takes_vector else [x]))

    compiled_as_eager(derivative, ROWS if entry.kind.startswith("batch") else X)


@pytest.mark.parametrize("recipe", [fd.jacobian_loop, fd.jacobian_taylor, fd.hessian_double_backward])
@pytest.mark.parametrize("function", [Cosine, OldDoubling])
def test_a_compiled_derivative_is_the_eager_one(recipe, function):
    compiled_as_eager(recipe(lambda x: function.apply(x).sum()), X)
