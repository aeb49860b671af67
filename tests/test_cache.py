"""The plans kept: none serves a function that has become another, under threads either."""

import random
import sys
import threading

import pytest
import torch
import torch.nn.functional as F
from becoming import BECOMES_ANOTHER
from becoming.two import UNDESCRIBED, X, distance, sine
from torch import nn
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._automatic import cache, lookup
from funcdiff._torch.tape import sketch

pytestmark = pytest.mark.usefixtures("forgetful")


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


def test_a_function_that_changes_itself_leaves_no_plans():
    calls = []

    def func(x):
        calls.append(len(x))
        return x.sin()

    for _ in range(3):
        fd.jacobian(func)(X[0])
    assert not cache._plans


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
