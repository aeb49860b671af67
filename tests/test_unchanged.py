"""Evidence that a function is unchanged: it falls with each change in a description, and keeps nothing alive."""

import functools
import gc
import types
import weakref

import numpy as np
import pytest
import torch
from becoming import BECOMES_ANOTHER
from becoming.two import UNDESCRIBED, X, sine
from drawn import HELD, changed
from hypothesis import assume, given
from hypothesis import strategies as st
from reading import told
from torch import nn
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._automatic import cache, lookup, products
from funcdiff._automatic.describing import described
from funcdiff._automatic.unchanged import Evidence

pytestmark = pytest.mark.usefixtures("forgetful")


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("name", BECOMES_ANOTHER)
def test_a_transform_that_is_called_again_sees_that_its_function_became_another(name):
    func, change = BECOMES_ANOTHER[name]()
    transform = fd.jacobian(func)
    for _ in range(5):
        transform(X)
    change()
    assert "torch gets _cdist_forward wrong" in told(fd.explain(transform, X))
    assert_close(transform(X), torch.autograd.functional.jacobian(func, X, vectorize=False))


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("name", sorted(set(BECOMES_ANOTHER) - UNDESCRIBED))
def test_evidence_falls_with_the_description(name):
    func, change = BECOMES_ANOTHER[name]()
    before, evidence = described(func), Evidence(func)
    assert evidence.holds(func) or not evidence.complete
    change()
    if evidence.complete and evidence.holds(func):  # what reads values has no plan, and hooks of all are state
        assert described(func) == before


PLACES = {
    "list": lambda held: [held],
    "dict": lambda held: {"": held},
    "attribute": lambda held: types.SimpleNamespace(value=held),
    "partial": lambda held: functools.partial(sine, [held]),
}


def put(place, box, held):
    """Another thing in the same container."""
    if place == "attribute":
        box.value = held
    elif place == "dict":
        box[""] = held
    else:
        (box if place == "list" else box.args[0])[0] = held


@given(held=HELD, place=st.sampled_from(sorted(PLACES)), data=st.data())
def test_any_change_in_place_is_seen(held, place, data):
    other = changed(held, data)
    assume(repr(held) != repr(other))
    box = PLACES[place](held)

    def func(x):
        return box, x

    before, evidence = lookup._key(func, (X,), ()), Evidence(func)
    assert evidence.complete
    assert evidence.holds(func)
    put(place, box, other)
    assert not evidence.holds(func)
    assert lookup._key(func, (X,), ()) != before
    put(place, box, held)
    assert evidence.holds(func)


CHANGES = {
    "a parameter requires no gradient": lambda net: net[0].requires_grad_(False),
    "another shape": lambda net: setattr(net[0].weight, "data", torch.ones(3, 2, dtype=torch.float64)),
    "another parameter": lambda net: setattr(net[0], "weight", nn.Parameter(torch.ones(2, 2, dtype=torch.float64))),
    "training": lambda net: net[1].eval(),
    "a layer more": lambda net: net.append(nn.Tanh()),
    "another layer": lambda net: net.__setitem__(1, nn.Tanh()),
    "a layer of another class": lambda net: setattr(net[1], "__class__", nn.Tanh),
    "a hook": lambda net: net[1].register_forward_hook(lambda *_: None),
    "a buffer": lambda net: net[1].register_buffer("extra", torch.ones(2)),
    "an attribute": lambda net: setattr(net[1], "p", 1),
    "an attribute that is equal": lambda net: setattr(net[1], "inplace", 0),
}


@pytest.mark.parametrize("called", [lambda net: net, lambda net: lambda x: net(x)], ids=["network", "lambda"])
@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_a_network_are_seen(change, called):
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).double()
    func = called(net)
    evidence = Evidence(func)
    assert evidence.complete
    assert evidence.holds(func)
    CHANGES[change](net)
    assert not evidence.holds(func)


def test_numbers_of_parameters_are_no_change():
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh()).double()
    evidence = Evidence(net)
    with torch.no_grad():
        net[0].weight.add_(1)
    assert evidence.holds(net)


def recalls(transform):
    """Whether a call of the transform finds its plan without a description."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "described", lambda *things: seen.append(things) or described(*things))
        transform(X)
    return not seen


def test_a_call_like_the_last_is_not_described():
    transform = fd.jacobian(sine)
    assert [recalls(transform) for _ in range(6)] == [False] * 3 + [True] * 3


STATES = {
    "grad mode": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "a function mode": lambda: torch.device("cpu"),
}


@pytest.mark.parametrize("state", STATES)
def test_another_state_of_torch_is_described(state):
    transform = fd.jacobian(sine)
    for _ in range(4):
        transform(X)
    with STATES[state]():
        assert not recalls(transform)
    assert [recalls(transform) for _ in range(4)][-1]


def test_other_arguments_are_not_taken_for_the_last():
    transform = fd.jacobian(lambda x: x.sin())
    for _ in range(4):
        transform(X)
    for other in (X[0], X.float(), X.clone().requires_grad_()):
        assert fd.explain(transform, other).plan.sketch.inputs == other.numel()
        assert transform(other).requires_grad == other.requires_grad


def test_forgotten_plans_are_not_recalled():
    transform = fd.jacobian(sine)
    for _ in range(4):
        transform(X)
    fd.clear_plans()
    assert not recalls(transform)


def test_a_function_that_differs_at_each_call_is_not_looked_at_again_and_again(monkeypatch):
    gathered = []
    monkeypatch.setattr(cache, "Evidence", lambda func: gathered.append(func) or Evidence(func))
    factor = 0.0

    def func(x):
        return factor * x.sin()

    transform = fd.jacobian(func)
    for _ in range(20):
        factor = factor + 1
        transform(X)
        transform(X)
    assert 1 <= len(gathered) <= 6


def test_a_function_without_evidence_does_not_spoil_the_next():
    held = np.ones(1)
    for func in (lambda x: len(held) * x.sin().sum(), lambda x: x.cos().sum()):
        for _ in range(50):
            fd.hvp(func, (X,), (X,))
    assert products._LAST.find(func, products._LAST._once[1]) is not None


def test_a_function_of_a_product_is_freed():
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh()).double().requires_grad_(False)
    last = weakref.ref(net)

    def run(net):
        def func(x):
            return net(x).sum()

        for _ in range(12):  # whatever the tests before left
            fd.hvp(func, (X,), (X,))
        assert products._LAST._last is not None

    run(net)
    del net
    gc.collect()
    assert last() is None


def scaled(x, by=2.0):
    return by * x


REPLACED = {
    "code": lambda func: setattr(func, "__code__", (lambda x, by: x - by).__code__),
    "defaults": lambda func: setattr(func, "__defaults__", (3.0,)),
    "attributes": lambda func: setattr(func, "__dict__", {"by": 1}),
}


@pytest.mark.parametrize("holder", [lambda func: func, lambda func: lambda x: func(x)], ids=["itself", "held"])
@pytest.mark.parametrize("part", REPLACED)
def test_parts_of_a_function_that_are_replaced_are_seen(part, holder):
    func = types.FunctionType(scaled.__code__, globals(), "scaled", scaled.__defaults__)
    outer = holder(func)
    evidence = Evidence(outer)
    assert evidence.holds(outer)
    REPLACED[part](func)
    assert not evidence.holds(outer)


def test_the_same_under_another_key_is_seen():
    held = {"a": 1.5}

    def func(x):
        return held, x

    evidence = Evidence(func)
    held["b"] = held.pop("a")
    assert not evidence.holds(func)


def test_what_a_transform_remembers_tells_no_function_from_another():
    inner = fd.jacobian(sine)

    def func(x):
        return inner(x).sum()

    before = described(func)
    for _ in range(4):
        inner(X)
    assert described(func) == before
    assert Evidence(func).holds(func)


def test_a_prepared_derivative_may_be_called_unprepared_as_well():
    transform = fd.jacobian(sine)
    prepared = fd.prepare(transform, X)
    for _ in range(4):
        transform(X)
    with torch.no_grad():
        transform(X)
    assert_close(prepared(X), transform(X))
