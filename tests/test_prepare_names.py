"""What a prepared derivative's text calls its tensors: names that Python has, and each for one thing."""

import keyword

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import funcdiff as fd
from funcdiff import prepare

X = torch.linspace(-1, 1, 5, dtype=torch.float64)
NAMES = "0", "weight_2", "class", "None", "torch", "aten", "device", "x", "func", "mul", "mul_2", "Größe", "_", "a b"
MEANT = {"torch": torch, "aten": torch.ops.aten, "device": torch.device}


class Holder(nn.Module):
    """Holds factors under the names that it is given."""

    def __init__(self, names):
        super().__init__()
        for k, name in enumerate(names):
            self.register_buffer(name, torch.full((5,), 1.0 + k, dtype=torch.float64))

    def forward(self, x):
        for factor in self.buffers():
            x = (x * factor).sin()
        return x


def run_again(prepared, *args):
    """What the shown text gives with what it holds."""
    space = dict(MEANT)
    exec(prepared.code, space)
    (function,) = [space[name] for name in space.keys() - MEANT.keys() - {"__builtins__"}]
    return function(*args, **prepared.held)[0]


UNICODE = "µ", "μ", "ﬁ", "fi", "σ²", "x₁", "x_1", "_₁", "²", "℘", "·", "λ", "名前"  # Python reads the first two as one


@pytest.mark.parametrize(
    "names", [NAMES, ("w", "w_2", "w_3"), ("w_2", "w"), ("mul_2", "mul", "sin_2", "cos"), UNICODE], ids=str
)
def test_held_tensors_of_any_name(names):
    jacobian = fd.jacobian(Holder(names))
    prepared = prepare(jacobian, X)
    assert_close(prepared(X / 2), jacobian(X / 2))
    assert_close(run_again(prepared, X / 2), jacobian(X / 2))
    assert all(name.isidentifier() and not keyword.iskeyword(name) for name in prepared.held)


@pytest.mark.parametrize(
    "held",
    [
        lambda tensors: nn.ParameterList(tensors),
        lambda tensors: nn.ParameterDict({"class": tensors[0], "0": tensors[1], "weight": tensors[2]}),
        lambda tensors: list(tensors),
        lambda tensors: {0: tensors[0], ("a", 1): tensors[1], "lambda": tensors[2]},
        lambda tensors: [{"w": tensor} for tensor in tensors],
    ],
    ids=["ParameterList", "ParameterDict", "list", "dict", "nested"],
)
def test_tensors_in_containers(held):
    tensors = [torch.full((5,), 1.0 + k, dtype=torch.float64) for k in range(3)]
    container = held(tensors)

    def leaves(thing):
        return [thing] if isinstance(thing, Tensor) else [t for part in values(thing) for t in leaves(part)]

    def values(thing):
        return thing.values() if isinstance(thing, dict | nn.ParameterDict) else thing

    def func(x):
        for factor in leaves(container):
            x = (x * factor).sin()
        return x

    prepared = prepare(fd.jacobian(func), X)
    assert_close(prepared(X / 2), fd.jacobian(func)(X / 2))


def test_a_function_and_its_arguments_of_any_name():
    weight = torch.full((5,), 3.0, dtype=torch.float64)

    def aten(torch, device):
        return (torch * device * weight).sin()

    def weight_too(x):
        return (weight * x).cos()

    weight_too.__name__ = "weight"
    prepared = prepare(aten, X, X)
    assert_close(prepared(X / 2, X), aten(X / 2, X))
    assert_close(run_again(prepared, X / 2, X), aten(X / 2, X))
    prepared = prepare(weight_too, X)
    assert_close(prepared(X / 2), weight_too(X / 2))
