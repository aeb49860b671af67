"""What decides a function's results and stands outside of it: a prepared derivative refuses once it has changed."""

import functools
import os
import sys
import types
from array import array
from contextvars import ContextVar

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import funcdiff as fd
from funcdiff import prepare

X = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
SCALE = ContextVar("SCALE", default=2.0)
NUMBERS = array("d", [2.0])
WEIGHT = torch.ones(3, dtype=torch.float64)
STATE = {"scale": 2.0}
PARTIAL = functools.partial(lambda x, scale: scale * x.sin(), scale=2.0)


class Scaled:
    @property
    def scale(self):
        return STATE["scale"]


SCALED = Scaled()


def by_its_own(x):
    return by_its_own.scale * x.sin()


def by_an_import(x):
    import funcdiff_settings

    return funcdiff_settings.inner.scale * x.sin()


def by_the_environment(x):
    return float(os.environ.get("FUNCDIFF_SCALE", "2")) * x.sin()


PLACES = {
    "an attribute of the function": (by_its_own, lambda: setattr(by_its_own, "scale", 3.0)),
    "an attribute of a tensor": (lambda x: WEIGHT.scale * x.sin(), lambda: setattr(WEIGHT, "scale", 3.0)),
    "a module in a module, imported inside": (
        by_an_import,
        lambda: setattr(sys.modules["funcdiff_settings"].inner, "scale", 3.0),
    ),
    "a global that a property reads": (lambda x: SCALED.scale * x.sin(), lambda: STATE.update(scale=3.0)),
    "an environment variable": (by_the_environment, lambda: os.environ.update(FUNCDIFF_SCALE="3")),
    "a context variable": (lambda x: SCALE.get() * x.sin(), lambda: SCALE.set(3.0)),
    "an array of Python's": (lambda x: NUMBERS[0] * x.sin(), lambda: NUMBERS.__setitem__(0, 3.0)),
    "a keyword of a partial": (lambda x: PARTIAL(x), lambda: PARTIAL.keywords.update(scale=3.0)),
}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    by_its_own.scale = WEIGHT.scale = STATE["scale"] = NUMBERS[0] = PARTIAL.keywords["scale"] = 2.0
    settings, settings.inner = types.ModuleType("funcdiff_settings"), types.ModuleType("funcdiff_settings.inner")
    settings.inner.scale = 2.0
    monkeypatch.setitem(sys.modules, "funcdiff_settings", settings)
    monkeypatch.setenv("FUNCDIFF_SCALE", "2")
    token = SCALE.set(2.0)
    yield
    SCALE.reset(token)


@pytest.mark.parametrize("place", PLACES)
def test_a_change_is_refused(place):
    func, change = PLACES[place]
    prepared = prepare(fd.jacobian(func), X)
    assert_close(prepared(X), 2 * X.cos().diag())
    change()
    assert_close(fd.jacobian(func)(X), 3 * X.cos().diag())
    with pytest.raises(fd.RefusedError, match="has been replaced"):
        prepared(X)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def test_weights_that_were_frozen_may_not_be_trained_later():
    net = network().requires_grad_(False)
    prepared = prepare(fd.jacobian(net), X)
    net.requires_grad_(True)
    with pytest.raises(fd.RefusedError, match="requires grad"):
        prepared(X)
    with torch.no_grad():  # where nobody asks for gradients
        assert_close(prepared(X), fd.jacobian(net)(X))


def test_what_was_prepared_without_gradients_has_none_later():
    net = network()
    with torch.no_grad():
        prepared = prepare(fd.jacobian(net), X)
        assert_close(prepared(X), fd.jacobian(net)(X))
    with pytest.raises(fd.RefusedError, match="requires grad"):
        prepared(X)


def test_autocast_is_of_the_kind_of_the_arguments():
    net, x = network().float().requires_grad_(False), X.float()
    prepared = prepare(fd.jacobian(net), x)
    with torch.autocast("cpu"), pytest.raises(fd.RefusedError, match=r"under autocast to torch\.bfloat16 on cpu"):
        prepared(x)
    again = prepare(fd.jacobian(net), x, again=True)
    with torch.autocast("cpu"):
        assert_close(again(x), fd.jacobian(net)(x))
    assert_close(again(x), fd.jacobian(net)(x))


def test_true_is_not_one():
    prepared = prepare(fd.jacobian(lambda x, n: (2 if n is True else 1) * x.sin()), X, 1)
    with pytest.raises(fd.RefusedError, match=r", 1, got .*, True,"):
        prepared(X, True)


def with_defaults(x, scale=2.0, *, shift=0.0):
    return scale * x.sin() + shift * x


REDEFINED = {
    "defaults": {"__defaults__": (3.0,)},
    "keywords": {"__kwdefaults__": {"shift": 1.0}},
    "code": {"__code__": (lambda x, scale=2.0, *, shift=0.0: scale * x.cos()).__code__},
}


@pytest.mark.parametrize("name", REDEFINED)
def test_a_function_that_is_redefined_is_seen(name, monkeypatch):
    prepared = prepare(fd.jacobian(with_defaults), X)
    assert_close(prepared(X), (2 * X.cos()).diag())
    for attribute, value in REDEFINED[name].items():
        monkeypatch.setattr(with_defaults, attribute, value)
    with pytest.raises(fd.RefusedError, match="with_defaults has been replaced"):
        prepared(X)


def test_a_default_that_is_changed_is_seen(monkeypatch):
    prepared = prepare(fd.jacobian(with_defaults), X)
    monkeypatch.setitem(with_defaults.__kwdefaults__, "shift", 1.0)
    with pytest.raises(fd.RefusedError, match="shift has been replaced"):
        prepared(X)
