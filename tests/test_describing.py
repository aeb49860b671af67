"""What tells a function from others: the same for what does the same, and another after each change."""

import copy
import functools
import logging
import random
import re
import sys
import threading
from collections import deque

import numpy as np
import pytest
import torch
from becoming.held import Holder, Mode, Options, Slotted, Thing
from becoming.layers import Layer
from becoming.two import X, either, sine
from drawn import HELD, changed
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._automatic import cache, lookup

pytestmark = pytest.mark.usefixtures("forgetful")

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


PLACES = {
    "closure": lambda held: lambda x: (held, x),
    "default": lambda held: lambda x, held=held: (held, x),
    "keyword": lambda held: lambda x, *, held=held: (held, x),
    "partial": lambda held: functools.partial(lambda held, x: (held, x), held),
    "nested": lambda held: (lambda inner: lambda x: inner())(lambda: held),
}


@given(held=HELD, place=st.sampled_from(sorted(PLACES)))
def test_functions_equal_by_what_they_hold_have_equal_keys(held, place):
    first, second = PLACES[place](held), PLACES[place](copy.deepcopy(held))
    assert lookup._key(first, (X,), ()) == lookup._key(second, (X,), ())


@given(held=HELD, place=st.sampled_from(sorted(PLACES)), data=st.data())
def test_any_change_of_what_a_function_holds_changes_its_key(held, place, data):
    other = changed(held, data)
    assume(repr(held) != repr(other))
    assert lookup._key(PLACES[place](held), (X,), ()) != lookup._key(PLACES[place](other), (X,), ())


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
