"""Attributes that a module writes when it is called: a prepared derivative minds those that were read."""

import operator

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import funcdiff as fd
from funcdiff import prepare

X = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 2).double().requires_grad_(False)
        self.calls, self.scale, self.last = 0, 2.0, None
        self.register_buffer("count", torch.tensor(0.0, dtype=torch.float64))

    def forward(self, x):
        return self.linear(x).sin()


class CountsCalls(Layer):
    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class AddsOne(Layer):
    def forward(self, x):
        self.calls = self.calls + 1
        return super().forward(x)


class KeepsTheLast(Layer):
    def forward(self, x):
        self.last = x.detach()
        return super().forward(x)


class CountsInABuffer(Layer):
    def forward(self, x):
        self.count = self.count + 1
        return super().forward(x)


@pytest.mark.parametrize("kind", [CountsCalls, AddsOne, KeepsTheLast, CountsInABuffer])
@pytest.mark.parametrize("make", [fd.jacobian, fd.jacobian_reverse])
def test_what_is_written_and_not_read_may_change(kind, make):
    module = kind()
    prepared = prepare(make(module), X)
    for x in (X, torch.stack([X, X])):
        module(x)
        assert_close(prepared(2 * X), make(module)(2 * X))


class Reads(Layer):
    def forward(self, x):
        return self.scale * super().forward(x)


class ReadsByName(Layer):
    def forward(self, x):
        return getattr(self, "scale") * super().forward(x)  # noqa: B009  # it is what is tested


class ReadsByAPart(Layer):
    def forward(self, x):
        return getattr(self, "".join(("sca", "le"))) * super().forward(x)


class ReadsAll(Layer):
    def forward(self, x):
        return vars(self)["scale"] * super().forward(x)


class ReadsByAFunction(Layer):
    def forward(self, x):
        return operator.attrgetter("scale")(self) * super().forward(x)


class ReadsInAProperty(Layer):
    @property
    def factor(self):
        return self.scale

    def forward(self, x):
        return self.factor * super().forward(x)


def scale_of(module):
    return module.scale


class ReadsElsewhere(Layer):
    def forward(self, x):
        return scale_of(self) * super().forward(x)


class ReadsWhatItCounts(Layer):
    def forward(self, x):
        self.scale += 1.0
        return super().forward(x) * (2 if self.scale > 1000 else 1)


class ReadsWhatItWrites(Layer):
    def forward(self, x):
        scale, self.scale = self.scale, 3.0
        return super().forward(x) * scale


@pytest.mark.parametrize(
    "kind",
    [
        Reads,
        ReadsByName,
        ReadsByAPart,
        ReadsAll,
        ReadsByAFunction,
        ReadsInAProperty,
        ReadsElsewhere,
        ReadsWhatItCounts,
        ReadsWhatItWrites,
    ],
)
def test_what_is_read_must_not_change(kind):
    module = kind()
    prepared = prepare(fd.jacobian(module), X)
    module.scale = 1001.0
    with pytest.raises(RuntimeError, match=r"scale has been replaced .* Prepare it again"):
        prepared(X)


class UsesABuffer(Layer):
    def forward(self, x):
        return super().forward(x) * (self.count + 1).cos().sum()


def test_a_tensor_whose_numbers_are_used_must_not_be_replaced():
    module = UsesABuffer()
    prepared = prepare(fd.jacobian(module), X)
    module.count = torch.tensor(1.0, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="count has been replaced"):
        prepared(X)


class LooksAtTheKind(Layer):
    def forward(self, x):
        return super().forward(x) * (2 if self.count.dtype is torch.float64 else 3)


def test_a_tensor_may_be_replaced_by_one_of_its_kind_alone():
    module = LooksAtTheKind()
    prepared = prepare(fd.jacobian(module), X)
    module.count = torch.tensor(1.0, dtype=torch.float64)
    assert_close(prepared(X), fd.jacobian(module)(X))
    module.count = torch.tensor(1.0)
    with pytest.raises(RuntimeError, match="count has been replaced"):
        prepared(X)
