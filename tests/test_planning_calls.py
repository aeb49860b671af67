"""How often a plan, with its check, calls the function: once, and never again."""

import sys

import pytest
import torch
from torch import nn

import funcdiff as fd

X = torch.linspace(-1, 1, 8)
ROWS = torch.stack([X, X.flip(0), X.cos()])
NETWORKS = {
    "tanh": nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)),
    "kinks": nn.Sequential(nn.Linear(8, 400), nn.LayerNorm(400), nn.ReLU(), nn.Linear(400, 1)),
    "norm": nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.SiLU(), nn.Linear(16, 3)),
}
CALLS = {  # a first call, and at most so many calls of func for the plan and its check
    "jacobian": (lambda func: fd.jacobian(func)(X), 6),
    "hessian": (lambda func: fd.hessian(func)(X), 8),
    "laplacian": (lambda func: fd.laplacian(func)(X), 15),
    "hessian_diagonal": (lambda func: fd.hessian_diagonal(func)(X), 15),
    "hvp": (lambda func: fd.hvp(func, (X,), (X,)), 9),
    "batch_jacobian": (lambda func: fd.batch_jacobian(func)(ROWS), 8),
    "batch_hessian": (lambda func: fd.batch_hessian(func)(ROWS), 10),
    "batch_jacobian_summed": (lambda func: fd.batch_jacobian_summed(func)(ROWS), 5),
}


def calls(func, run):
    """How often `run` calls `func`, which a counter of its own would change for the plan."""
    number = 0

    def count(frame, event, _):
        nonlocal number
        number += event == "call" and frame.f_code is func.__code__

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        run(func)
    finally:
        sys.setprofile(before)
    return number


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_plan_calls_the_function_a_few_times_and_later_calls_do_not(name, network, trained):
    net = NETWORKS[network].requires_grad_(trained)
    numbers = net if "jacobian" in name else lambda x: net(x).sum()
    func = lambda x: numbers(x)  # noqa: E731  # with code of its own, whose calls are counted
    run, most = CALLS[name]
    fd.clear_plans()
    first, second = calls(func, run), calls(func, run)
    assert second == 1
    assert first - second <= most + (11 if trained else 0)  # the derivative by the parameters is checked as well
