"""Taylor mode where a constant is the first argument of an operation, and what is differentiated another one."""

import pytest
import torch
from taylor import close, point

import funcdiff as fd

CONSTANT, NUMBER = point(3, seed=1), point(seed=2)
OPERATIONS = {
    "to": lambda x: CONSTANT.to(x),
    "to, from another dtype": lambda x: CONSTANT.float().to(x),
    "type_as": lambda x: CONSTANT.type_as(x),
    "view_as": lambda x: CONSTANT.view_as(x),
    "reshape_as": lambda x: CONSTANT.reshape_as(x),
    "expand_as": lambda x: NUMBER.expand_as(x),
    "to, both": lambda x: x.cos().to(x),
    "the name of a dtype": lambda x: CONSTANT.type(x.type()),
    "diff after a constant": lambda x: torch.diff(x, prepend=CONSTANT[:1]),
    "diff before a constant": lambda x: torch.diff(CONSTANT, append=x[:1]),
    "diff of a constant": lambda x: torch.diff(CONSTANT, prepend=x[:1]),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_a_constant_has_no_derivative(operation):
    def func(x):
        return (operation(x) * x.sin()).sum() + operation(x).pow(3).sum()

    x = point(3)
    close(fd.jacobian(func, verify=False)(x), fd.jacobian_loop(func)(x))
    close(fd.hessian_taylor(func)(x), fd.hessian_double_backward(func)(x))
    close(fd.laplacian(func, verify=False)(x), fd.hessian_double_backward(func)(x).trace())
