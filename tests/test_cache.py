"""The plans kept: none serves a function that has become another, under threads either."""

import copy
import dataclasses
import enum
import functools
import logging
import os
import random
import re
import sys
import threading
import types
import weakref
from collections import deque
from contextvars import ContextVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._automatic import cache, lookup
from funcdiff._torch.tape import sketch

X = torch.linspace(-1, 1.3, 6, dtype=torch.float64).reshape(3, 2)


@pytest.fixture(autouse=True)
def forgetful():
    cache._plans.clear()


def sine(x):
    return torch.sin(x)


def distance(x):  # its Jacobian by a batch of rows is wrong: the plan for the sine must not serve it
    return torch.cdist(x, x + 1)


def either(first):
    return sine if first else distance


class Mode(enum.Enum):
    SINE = "sine"
    DISTANCE = "distance"


@dataclasses.dataclass(eq=False)
class Options:
    first: bool = True


@dataclasses.dataclass(eq=False, slots=True, weakref_slot=True)
class Slotted:
    first: bool = True


class Holder(types.SimpleNamespace):
    __hash__ = object.__hash__


class Thing:
    shared = True

    def __init__(self):
        self.first = True

    def method(self, x):
        return either(self.first)(x)

    def __call__(self, x):
        return either(self.first)(x)

    def by_class(self, x):
        return either(self.shared)(x)

    @property
    def chosen(self):
        return either(self.first)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.activation = sine

    def forward(self, x):
        return self.activation(x)


HELPER = sine
SETTINGS = types.ModuleType("settings_of_a_user")
SETTINGS.mode = "sine"
VARIABLE = ContextVar("variable", default=True)


def through_helper(x):
    return HELPER(x)


def through_helper_of_helper(x):
    return through_helper(x)


BECOMES_ANOTHER = {}


def becomes_another(make):
    """Collect `make`, which returns a function and what turns it from the sine into the distance."""
    BECOMES_ANOTHER[make.__name__] = make
    return make


@becomes_another
def value_of_a_tensor():
    gate = torch.ones(())
    return lambda x: either(gate > 0)(x), gate.neg_


@becomes_another
def value_in_a_list():
    gate = torch.ones(1)
    return lambda x: either(gate.tolist()[0] > 0)(x), gate.neg_


@becomes_another
def value_in_an_array():
    gate = torch.ones(1)
    return lambda x: either(gate.numpy()[0] > 0)(x), gate.neg_


@becomes_another
def value_as_an_array():
    gate = torch.ones(1)
    return lambda x: either(np.asarray(gate)[0] > 0)(x), gate.neg_


@becomes_another
def shape_by_a_mask():
    gate = torch.ones(1)
    return lambda x: either(len(gate[gate > 0]))(x), gate.neg_


@becomes_another
def shape_by_nonzero():
    gate = torch.ones(1)
    return lambda x: either(len(gate.nonzero()))(x), gate.zero_


@becomes_another
def equality_of_tensors():
    gate = torch.ones(1)
    return lambda x: either(torch.equal(gate, torch.ones(1)))(x), gate.neg_


@becomes_another
def list_of_strings():
    names = ["sine"]
    return lambda x: either("distance" not in names)(x), lambda: names.append("distance")


@becomes_another
def list_of_numbers():
    numbers = [1]
    return lambda x: either(sum(numbers) == 1)(x), lambda: numbers.append(1)


@becomes_another
def item_of_a_list():
    names = ["sine"]
    return lambda x: either(names[0] == "sine")(x), lambda: names.__setitem__(0, "distance")


@becomes_another
def set_of_strings():
    names = {"sine"}
    return lambda x: either("sine" in names)(x), names.clear


@becomes_another
def queue_of_numbers():
    numbers = deque([1, 0])
    return lambda x: either(numbers[0])(x), numbers.rotate


@becomes_another
def small_array():
    numbers = np.ones(2)
    return lambda x: either(numbers[0])(x), lambda: numbers.fill(0)


@becomes_another
def large_array():
    numbers = np.ones(100_000)
    return lambda x: either(numbers[-1])(x), lambda: numbers.fill(0)


@becomes_another
def options_in_an_object():
    holder = Holder(options={"first": True})
    return lambda x: either(holder.options["first"])(x), lambda: holder.options.update(first=False)


@becomes_another
def attribute_of_an_object():
    thing = Thing()
    return lambda x: either(thing.first)(x), lambda: setattr(thing, "first", False)


@becomes_another
def property_of_an_object():
    thing = Thing()
    return lambda x: thing.chosen(x), lambda: setattr(thing, "first", False)


@becomes_another
def object_in_objects():
    inner = Thing()
    outer = Holder(parts=[(Holder(inner={"it": [inner]}),)])
    return lambda x: either(outer.parts[0][0].inner["it"][0].first)(x), lambda: setattr(inner, "first", False)


@becomes_another
def object_that_holds_itself():
    thing = Thing()
    thing.self = thing
    return lambda x: either(thing.self.self.first)(x), lambda: setattr(thing, "first", False)


@becomes_another
def weakly_held_object():
    thing = Thing()
    reference = weakref.ref(thing)
    return lambda x: either(reference().first)(x), lambda: setattr(thing, "first", False)


@becomes_another
def field_of_a_dataclass():
    options = Options()
    return lambda x: either(options.first)(x), lambda: setattr(options, "first", False)


@becomes_another
def slot_of_an_object():
    options = Slotted()
    return lambda x: either(options.first)(x), lambda: setattr(options, "first", False)


@becomes_another
def enum_in_an_object():
    holder = Holder(mode=Mode.SINE)
    return lambda x: either(holder.mode is Mode.SINE)(x), lambda: setattr(holder, "mode", Mode.DISTANCE)


@becomes_another
def attribute_of_an_enum():
    class Kind(enum.Enum):
        ONE = 1

    Kind.ONE.first = True
    return lambda x: either(Kind.ONE.first)(x), lambda: setattr(Kind.ONE, "first", False)


@becomes_another
def power_in_an_object():
    holder = Holder(power=2)
    return lambda x: either(holder.power == 2)(x), lambda: setattr(holder, "power", 3)


@becomes_another
def method():
    thing = Thing()
    return thing.method, lambda: setattr(thing, "first", False)


@becomes_another
def callable_object():
    thing = Thing()
    return thing, lambda: setattr(thing, "first", False)


@becomes_another
def attribute_of_a_class():
    class Own(Thing):
        pass

    return lambda x: either(Own.shared)(x), lambda: setattr(Own, "shared", False)


@becomes_another
def attribute_of_an_objects_class():
    class Own(Thing):
        pass

    return Own().by_class, lambda: setattr(Own, "shared", False)


@becomes_another
def method_of_a_class():
    class Own:
        def compute(self, x):
            return sine(x)

    own = Own()
    return lambda x: own.compute(x), lambda: setattr(Own, "compute", lambda self, x: distance(x))


@becomes_another
def default_argument():
    thing = Thing()
    return lambda x, thing=thing: either(thing.first)(x), lambda: setattr(thing, "first", False)


@becomes_another
def keywords_of_a_partial():
    thing = Thing()
    func = functools.partial(lambda x, thing: either(thing.first)(x), thing=thing)
    return func, lambda: setattr(thing, "first", False)


@becomes_another
def attribute_of_a_function():
    def func(x):
        return either(func.first)(x)

    func.first = True
    return func, lambda: setattr(func, "first", False)


@becomes_another
def nested_functions():
    def inner(x):
        return middle(x)

    def middle(x):
        return either(first)(x)

    def change():
        nonlocal first
        first = False

    first = True
    return lambda x: (lambda y: inner(y))(x), change


@becomes_another
def list_of_callables():
    calls = [[lambda x: x.cos(), [sine]]]
    return lambda x: calls[0][1][0](x), lambda: calls[0][1].__setitem__(0, distance)


@becomes_another
def global_of_a_helper():
    return through_helper_of_helper, lambda: globals().update(HELPER=distance)


@becomes_another
def attribute_of_a_python_module():
    return lambda x: either(SETTINGS.mode == "sine")(x), lambda: setattr(SETTINGS, "mode", "distance")


@becomes_another
def attribute_of_a_python_module_by_its_name():
    return lambda x: either(getattr(SETTINGS, "mode") == "sine")(x), lambda: setattr(SETTINGS, "mode", "distance")  # noqa: B009  # it is what the test is about


@becomes_another
def attribute_of_a_python_module_imported_within():
    def func(x):
        import settings_of_a_user

        return either(settings_of_a_user.mode == "sine")(x)

    return func, lambda: setattr(SETTINGS, "mode", "distance")


@becomes_another
def global_by_its_name():
    return lambda x: globals()["HELPER"](x), lambda: globals().update(HELPER=distance)


@becomes_another
def function_of_torch_replaced():
    return lambda x: F.celu(x), lambda: setattr(F, "celu", distance)


@becomes_another
def context_variable():
    return lambda x: either(VARIABLE.get())(x), lambda: VARIABLE.set(False)


@becomes_another
def environment_variable():
    return lambda x: either("FUNCDIFF_TEST" not in os.environ)(x), lambda: os.environ.update(FUNCDIFF_TEST="1")


@becomes_another
def activation_of_a_module():
    net = nn.Sequential(Layer())
    return net, lambda: setattr(net[0], "activation", distance)


@becomes_another
def layer_of_a_module():
    class Distance(nn.Module):
        def forward(self, x):
            return distance(x)

    net = nn.Sequential(nn.Sequential(nn.Tanh()))
    return net, lambda: net[0].__setitem__(0, Distance())


@becomes_another
def hook_of_a_module():
    net = nn.Sequential(nn.Tanh())
    return net, lambda: net[0].register_forward_hook(lambda module, args, output: distance(output))


@becomes_another
def hook_before_a_module():
    net = nn.Sequential(nn.Tanh())
    return net, lambda: net[0].register_forward_pre_hook(lambda module, args: distance(*args))


@becomes_another
def hook_of_all_modules():
    net = nn.Sequential(nn.Tanh())

    def hook(module, args, output):
        return distance(output) if module is net else output

    return net, lambda: nn.modules.module.register_module_forward_hook(hook)


@becomes_another
def forward_of_a_module():
    net = nn.Sequential(nn.Tanh())
    return net, lambda: setattr(net[0], "forward", distance)


@becomes_another
def forward_of_a_class():
    return nn.Sequential(nn.Tanhshrink()), lambda: setattr(nn.Tanhshrink, "forward", lambda self, x: distance(x))


@becomes_another
def parametrization():
    class Distance(nn.Module):
        def forward(self, weight):
            return torch.cdist(weight, weight)

    net = nn.Linear(2, 2, bias=False).double()

    def func(x):  # by the weight that the module makes of x
        return torch.func.functional_call(net, {name: x[:2] for name, _ in net.named_parameters()}, (x,))

    return func, lambda: parametrize.register_parametrization(net, "weight", Distance())


@becomes_another
def attribute_of_a_tensor():
    weight = torch.ones(2, dtype=torch.float64)
    return lambda x: either(not hasattr(weight, "far"))(weight * x), lambda: setattr(weight, "far", True)


@becomes_another
def attribute_of_a_parameter():
    net = nn.Linear(2, 2).double()
    net.weight.first = True
    return lambda x: either(net.weight.first)(x), lambda: setattr(net.weight, "first", False)


@becomes_another
def order_in_memory():
    weight = torch.ones(2, 2, dtype=torch.float64)
    return lambda x: either(weight.is_contiguous())(x @ weight), weight.t_


@becomes_another
def order_of_parameters_in_memory():
    net = nn.Linear(2, 2).double()
    return lambda x: either(net.weight.is_contiguous())(x), lambda: setattr(net.weight, "data", net.weight.data.t())


@becomes_another
def class_attribute_named_as_pythons_own():
    class Marked(Thing):
        _first_ = True

    return lambda x: either(Marked._first_)(x), lambda: setattr(Marked, "_first_", False)


@becomes_another
def class_attribute_with_two_underscores():
    class Marked(Thing):
        __first__ = True

    thing = Marked()
    return lambda x: either(thing.__first__)(x), lambda: setattr(Marked, "__first__", False)


UNDESCRIBED = {"large_array", "attribute_of_a_python_module_by_its_name", "global_by_its_name"}


@pytest.fixture
def restored(monkeypatch):
    monkeypatch.setitem(globals(), "HELPER", sine)
    monkeypatch.setattr(SETTINGS, "mode", "sine")
    monkeypatch.setitem(sys.modules, "settings_of_a_user", SETTINGS)
    monkeypatch.setattr(F, "celu", F.celu)
    monkeypatch.setattr(nn.Tanhshrink, "forward", nn.Tanhshrink.forward)
    monkeypatch.setenv("FUNCDIFF_TEST", "")
    monkeypatch.delenv("FUNCDIFF_TEST")
    token = VARIABLE.set(True)
    yield
    VARIABLE.reset(token)
    nn.modules.module._global_forward_hooks.clear()


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("name", BECOMES_ANOTHER)
def test_a_function_that_becomes_another_has_another_plan(name):
    func, change = BECOMES_ANOTHER[name]()
    fd.jacobian(func)(X)
    assert (lookup._key(func, (X,), ()) == lookup._key(func, (X,), ())) == (name not in UNDESCRIBED)
    first = fd.explain(fd.jacobian(func), X)
    change()
    second = fd.explain(fd.jacobian(func), X)
    assert "_cdist_forward" not in repr(first)
    assert "torch gets _cdist_forward wrong" in repr(second)
    assert second.recipe == "jacobian_forward"
    expected = torch.autograd.functional.jacobian(func, X, vectorize=False)
    assert_close(fd.jacobian(func)(X), expected)


def test_a_branch_on_the_input_is_taken_at_each_call():
    def func(x):
        return sine(x) if x.sum() > 0 else distance(x)

    recipes = [fd.explain(fd.jacobian(func), x).recipe for x in (X, -X, X)]
    assert recipes[0] == recipes[2] != recipes[1] == "jacobian_forward"
    for x in (X, -X):
        assert_close(fd.jacobian(func)(x), torch.autograd.functional.jacobian(func, x))
    assert not cache._plans
    assert sketch(func, (X,)).reads_values


@pytest.mark.parametrize(
    "func",
    [
        lambda x: x[torch.tensor([0])],
        lambda x: torch.linalg.solve(x.T @ x, x[0]),
        lambda x: F.embedding(torch.tensor([0, 1]), x),
        lambda x: torch.where(x > 0, x, -x),
        lambda x: x.masked_fill(x > 0, 0.0),
        lambda x: F.layer_norm(x, (2,)).reshape(2, 3).T.softmax(0),
    ],
)
def test_what_reads_no_values_is_kept(func):
    assert not sketch(func, (X.clone(),)).reads_values


def test_a_fast_path_that_no_derivative_takes_is_not_what_is_planned():
    net = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()  # fused into one operation under no_grad()
    assert sketch(net, (torch.ones(1, 3, 4),)).flops > 0


SETTINGS_OF_TORCH = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "grad": torch.no_grad,
    "attention": lambda: torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    "device": lambda: torch.device("cpu"),
}


@pytest.mark.parametrize("setting", SETTINGS_OF_TORCH)
def test_settings_of_torch_belong_to_the_plan(setting):
    net = nn.Linear(2, 2).double()
    before = lookup._key(net, (X,), ())
    with SETTINGS_OF_TORCH[setting]():
        assert lookup._key(net, (X,), ()) != before
        assert lookup._key(net, (X,), ()) == lookup._key(net, (X,), ())
    assert lookup._key(net, (X,), ()) == before


def test_the_default_dtype_belongs_to_the_plan():
    def func(x):
        return x * torch.ones(2)

    before = lookup._key(func, (X,), ())
    torch.set_default_dtype(torch.float64)
    try:
        assert lookup._key(func, (X,), ()) != before
    finally:
        torch.set_default_dtype(torch.float32)


def generator():
    yield True


class Closed:
    @property
    def __dict__(self):
        raise KeyError


@pytest.mark.parametrize(
    "held",
    [generator(), iter([1]), np.ones(10**5), [0] * 10**5, np.array([object()]), random.Random(0).random, Closed()],
)
def test_what_cannot_be_described_is_planned_at_each_call(held):
    def func(x):
        return x.sin() if held is not None else x

    for _ in range(2):
        assert_close(fd.jacobian(func)(X[0]), torch.diag(X[0].cos()))
    assert lookup._key(func, (X,), ()) != lookup._key(func, (X,), ())
    assert not cache._plans


def test_a_chain_too_long_is_planned_at_each_call():
    chain = None
    for _ in range(10**5):
        chain = [chain]
    func = lambda x: x.sin() if chain else x  # noqa: E731  # it is not the name that counts
    assert lookup._key(func, (X,), ()) != lookup._key(func, (X,), ())
    while chain:  # else freed by a recursion as deep
        chain = chain.pop()


def test_a_function_that_changes_itself_leaves_no_plans():
    calls = []

    def func(x):
        calls.append(len(x))
        return x.sin()

    for _ in range(3):
        fd.jacobian(func)(X[0])
    assert not cache._plans


def test_dead_objects_are_not_taken_for_new_ones():
    def of_a_class(first):
        class Own:
            def __call__(self, x):
                return either(first)(x)

        return Own()

    for turn in range(20):
        told = fd.explain(fd.jacobian(of_a_class(turn % 2)), X)
        assert (told.recipe == "jacobian_forward") == (turn % 2 == 0)


@pytest.mark.parametrize(
    "make",
    [
        *(nn.Tanh, Layer, Options, Slotted, Thing, lambda: Mode.SINE, lambda: functools.partial(sine)),
        *(lambda: np.ones(3), lambda: np.float32(2), lambda: {1, "a"}, lambda: deque([1.5]), lambda: Thing().method),
        *(lambda: float("nan"), lambda: slice(1, 2), lambda: [].append, lambda: torch.eye(2).to_sparse()),
        *(lambda: {Mode.SINE: Holder(a=1)}, lambda: torch.ops.aten.sin, lambda: np.sin, lambda: re.compile("a")),
        *(
            lambda: torch.compile(nn.Tanh(), backend="eager"),
            lambda: torch.vmap(sine),
            lambda: fd.jacobian(sine),
            lambda: logging.root,
        ),
        lambda: nn.MultiheadAttention(4, 2),
    ],
)
def test_equal_things_built_anew_share_a_plan(make):
    def written_anew():
        held = make()
        return lambda x: (held, sine(x))[1]

    assert lookup._key(written_anew(), (X,), ()) == lookup._key(written_anew(), (X,), ())


SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=3)
HELD = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=2), inner, max_size=4)
        | inner.map(lambda value: types.SimpleNamespace(value=value))
        | inner.map(lambda value: functools.partial(sine, value=value))
    ),
    max_leaves=12,
)
PLACES = {
    "closure": lambda held: lambda x: (held, x),
    "default": lambda held: lambda x, held=held: (held, x),
    "keyword": lambda held: lambda x, *, held=held: (held, x),
    "partial": lambda held: functools.partial(lambda held, x: (held, x), held),
    "nested": lambda held: (lambda inner: lambda x: inner())(lambda: held),
}


def changed(held, data):
    """The same with one part replaced."""
    if isinstance(held, (list, tuple)) and held and data.draw(st.booleans()):
        i = data.draw(st.integers(0, len(held) - 1))
        return type(held)([*held[:i], changed(held[i], data), *held[i + 1 :]])
    if isinstance(held, dict) and held and data.draw(st.booleans()):
        name = data.draw(st.sampled_from(list(held)))
        return {**held, name: changed(held[name], data)}
    if isinstance(held, types.SimpleNamespace) and data.draw(st.booleans()):
        return types.SimpleNamespace(value=changed(held.value, data))
    return data.draw(SCALARS)


@given(held=HELD, place=st.sampled_from(sorted(PLACES)))
def test_functions_equal_by_what_they_hold_have_equal_keys(held, place):
    first, second = PLACES[place](held), PLACES[place](copy.deepcopy(held))
    assert lookup._key(first, (X,), ()) == lookup._key(second, (X,), ())


@given(held=HELD, place=st.sampled_from(sorted(PLACES)), data=st.data())
def test_any_change_of_what_a_function_holds_changes_its_key(held, place, data):
    other = changed(held, data)
    assume(repr(held) != repr(other))
    assert lookup._key(PLACES[place](held), (X,), ()) != lookup._key(PLACES[place](other), (X,), ())


def test_plans_are_forgotten():
    fd.jacobian(torch.sin)(X)
    assert cache._plans
    fd.clear_plans()
    assert not cache._plans


def test_the_oldest_plan_goes():
    for i in range(cache._KEPT):
        cache.keep(i, i)
    cache.keep(0, "again")  # takes nobody's place
    assert len(cache._plans) == cache._KEPT
    cache.keep("new", "new")
    assert cache.find(0) is None
    assert cache.find(1) == 1


def test_threads_share_the_plans():
    stop, errors = threading.Event(), []

    def work(seed):
        choose = random.Random(seed)
        try:
            while not stop.is_set():
                key = choose.randrange(2000)
                assert cache.find(key) in (None, key)
                cache.keep(key, key)
                assert len(cache._plans) <= cache._KEPT
                if not choose.randrange(5000):
                    cache.clear_plans()
        except Exception as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        stop.wait(2)
        stop.set()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors


def test_threads_that_change_what_others_describe():
    options, errors = {}, []
    stop = threading.Event()

    def func(x):
        return x * len(options)

    def change():
        while not stop.is_set():
            options[len(options)] = object()
            if len(options) > 100:
                options.clear()

    def describe():
        try:
            for _ in range(300):
                lookup._key(func, (X,), ())
        except Exception as error:
            errors.append(error)

    changing = threading.Thread(target=change)
    describing = [threading.Thread(target=describe) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in (changing, *describing):
            thread.start()
        for thread in describing:
            thread.join()
    finally:
        stop.set()
        changing.join()
        sys.setswitchinterval(interval)
    assert not errors
