"""torch's control flow operators: differentiated as the Python that they stand for, and compiled again afterwards."""

import subprocess
import sys

import pytest
import torch
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as mapped
from torch._higher_order_ops.scan import scan
from torch.testing import assert_close
from versions import since

import funcdiff as fd

pytestmark = since("2.13", "control flow operators are left to torch, which has no second derivative of them")

X = torch.tensor([0.5, 0.2], dtype=torch.float64)
WEIGHT = torch.tensor([[0.3, 0.1], [-0.2, 0.5]], dtype=torch.float64)


def stack(x):
    return torch.stack([x, 2 * x, x**2])


def cond(x):
    return torch.cond(x.sum() > 0, lambda x: x.sin() * x, lambda x: x.cos(), (x,))


def cond_in_cond(x):
    return torch.cond(x.sum() > 0, lambda x: torch.cond(x[0] > 5, torch.exp, lambda x: x**3, (x,)), torch.cos, (x,))


def while_loop(x):
    return torch.while_loop(
        lambda i, y: i < 3, lambda i, y: (i + 1, {"y": torch.tanh(WEIGHT @ y["y"])}), (torch.tensor(0), {"y": x})
    )[1]["y"]


def while_loop_by_hand(x):
    for _ in range(3):
        x = torch.tanh(WEIGHT @ x)
    return x


def while_loop_that_never_runs(x):
    return torch.while_loop(
        lambda i, y: i < 0, lambda i, y: (i + 1, {"y": 2 * y["y"]}), (torch.tensor(0), {"y": x.sin()})
    )[1]["y"]


def backwards_scan(x):
    carry, rows = scan(lambda c, y: (c * y["y"], (c + y["y"]).sin()), x, {"y": stack(x)}, reverse=True)
    return torch.cat([carry, rows.flatten()])


def backwards_scan_by_hand(x):
    carry, rows = x, []
    for y in stack(x).flip(0):
        rows.append((carry + y).sin())
        carry = carry * y
    return torch.cat([carry, *rows[::-1]])


def running_product(x):
    return associative_scan(torch.mul, stack(x), 0, combine_mode="generic").flatten()


FUNCTIONS = {
    "cond": (cond, lambda x: x.sin() * x),
    "cond in cond": (cond_in_cond, lambda x: x**3),
    "while_loop": (while_loop, while_loop_by_hand),
    "while_loop that never runs": (while_loop_that_never_runs, torch.sin),
    "scan": (backwards_scan, backwards_scan_by_hand),
    "associative_scan": (running_product, lambda x: torch.cat([x, 2 * x**2, 2 * x**4])),
    "map": (
        lambda x: mapped(lambda y, w: (y * w).sin(), x, WEIGHT).flatten(),
        lambda x: (x[:, None, None] * WEIGHT).sin().flatten(),
    ),
}
TRANSFORMS = fd.jacobian, fd.hessian, fd.laplacian, fd.hessian_diagonal, fd.hessian_taylor, fd.jacobian_taylor


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_those_of_the_python(name):
    func, by_hand = FUNCTIONS[name]
    for transform in TRANSFORMS:
        assert_close(transform(func)(X), transform(by_hand)(X))
    product = fd.hvp(lambda x: func(x).sum(), (X,), (X,))
    assert_close(product, fd.hvp(lambda x: by_hand(x).sum(), (X,), (X,)))


def test_the_branch_that_is_taken_is_that_of_each_call():
    for x in (X, -X, X):
        assert_close(fd.jacobian(cond)(x), torch.diag(x.cos() * x + x.sin() if x.sum() > 0 else -x.sin()))


def test_torch_compiles_it_afterwards():
    """In a process of its own: what the compiler of torch once saw in a mode it would refuse ever after."""
    script = """
import torch, funcdiff as fd
f = lambda x: torch.cond(x.sum() > 0, lambda x: x.sin() * x, lambda x: x.cos(), (x,))
x = torch.tensor([0.5, 0.2])
fd.jacobian(f)(x), fd.hessian(f)(x)
torch.testing.assert_close(torch.compile(f, backend="eager", fullgraph=True)(x), x.sin() * x)
torch.testing.assert_close(fd.jacobian_loop(f)(x), fd.jacobian(f)(x))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
