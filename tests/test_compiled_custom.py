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


def breaks(x):
    return x.sin().sum() if x.sum() > 0 else x.cos().sum()


TRANSFORMS = [
    *(fd.jacobian, fd.hessian, fd.laplacian, fd.hessian_diagonal, fd.batch_jacobian, fd.batch_hessian),
    *(fd.jacobian_taylor, fd.jacobian_reverse, fd.hessian_double_backward, fd.batch_jacobian_summed),
]


@pytest.mark.parametrize("inside", [False, True], ids=["made outside", "made inside"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_what_the_compiler_keeps_of_a_broken_graph_serves_no_other_function(transform, inside):
    rows = ROWS if transform.__name__.startswith("batch") else X
    torch.compiler.reset()
    for func in (breaks, lambda x: Cosine.apply(x).sum(), lambda x: OldDoubling.apply(x).sum()):
        derivative = (lambda x, func=func: transform(func)(x)) if inside else transform(func)
        eager, compiled = (attempt(make, rows) for make in (derivative, torch.compile(derivative, backend="eager")))
        assert isinstance(compiled, str) == isinstance(eager, str), (eager, compiled)
        if not isinstance(eager, str):
            assert_close(compiled, eager)
