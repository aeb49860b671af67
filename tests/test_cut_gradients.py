"""Functions that take gradients of their own: right where a graph is kept, refused where it is cut."""

import pytest
import torch
from torch.autograd import functional
from torch.testing import assert_close

import funcdiff as fd

ROWS = torch.tensor([[1.0, 2.0], [3.0, -1.5]], dtype=torch.float64)
X = ROWS[1]
ONES = torch.ones_like(X)


def energy(x):
    return (x**4).sum()


def own_input(x):
    return torch.autograd.grad(energy(x), x)[0]


def copied_if_it_has_a_graph(x):
    with torch.enable_grad():
        y = x.clone() if x.requires_grad else x.clone().requires_grad_()
        return torch.autograd.grad(energy(y), y)[0]


def watched(x):
    x.requires_grad_()
    return torch.autograd.grad(energy(x), x)[0]


def kept_for_another_pass(x):
    y = x.clone()
    return torch.autograd.grad(energy(y), y, retain_graph=True)[0]


CUT = {
    "own input": own_input,
    "a copy, if it has a graph": copied_if_it_has_a_graph,
    "requires_grad_": watched,
    "retain_graph": kept_for_another_pass,
    "functional.jacobian": lambda x: functional.jacobian(energy, x),
    "functional.vjp": lambda x: functional.vjp(energy, x)[1],
}
KEPT = {
    "create_graph": lambda x: torch.autograd.grad(energy(x), x, create_graph=True)[0],
    "functional.jacobian with create_graph": lambda x: functional.jacobian(energy, x, create_graph=True),
    "torch.func.grad": torch.func.grad(energy),
    "an automatic recipe": fd.jacobian(energy),
}
FIRST = {
    "jacobian": lambda f: fd.jacobian(f)(X).diagonal(),
    "batch_jacobian": lambda f: fd.batch_jacobian(f)(ROWS)[1].diagonal(),
    "batch_jacobian_summed": lambda f: fd.batch_jacobian_summed(f)(ROWS)[1].diagonal(),
    "vmap of jacobian": lambda f: torch.vmap(fd.jacobian(f))(ROWS)[1].diagonal(),
    "jacobian_operator": lambda f: fd.jacobian_operator(f, X)(ONES),
    "its transpose": lambda f: fd.jacobian_operator(f, X).T(ONES),
    "prepare": lambda f: fd.prepare(fd.jacobian(f), X)(X).diagonal(),
}
SECOND = {
    "hessian": lambda f: fd.hessian(f)(X).diagonal(),
    "batch_hessian": lambda f: fd.batch_hessian(f)(ROWS)[1].diagonal(),
    "batch_hessian_summed": lambda f: fd.batch_hessian_summed(lambda x: f(x)[None])(X[None])[0].diagonal(),
    "vmap of hessian": lambda f: torch.vmap(fd.hessian(f))(ROWS)[1].diagonal(),
    "hvp": lambda f: fd.hvp(f, (X,), (ONES,)),
    "vmap of hvp": lambda f: torch.vmap(lambda x: fd.hvp(f, (x,), (ONES,)))(ROWS)[1],
    "hvp_operator": lambda f: fd.hvp_operator(f, X)(ONES),
    "hessian_diagonal": lambda f: fd.hessian_diagonal(f)(X),
    "laplacian": lambda f: fd.laplacian(f)(X).expand(2) / 2,
    "vmap of hessian_diagonal": lambda f: torch.vmap(fd.hessian_diagonal(f))(ROWS)[1],
}


def derivatives(slope, name):
    """What a recipe says of a function with the force `slope`, and what is right."""
    if name in FIRST:
        return FIRST[name](lambda x: slope(x) * x), 16 * X**3
    return SECOND[name](lambda x: (slope(x) / x).sum()), 8 * ONES  # of 4 x^2


@pytest.mark.parametrize("name", [*FIRST, *SECOND])
@pytest.mark.parametrize("force", CUT)
def test_a_gradient_without_a_graph_is_never_taken_for_a_constant(force, name):
    with pytest.raises(RuntimeError):
        derivatives(CUT[force], name)


@pytest.mark.parametrize("name", ["jacobian", "jacobian_operator", "prepare", "hessian", "hvp", "hvp_operator"])
@pytest.mark.parametrize("force", KEPT)
def test_a_gradient_with_a_graph_is_differentiated(force, name):
    assert_close(*derivatives(KEPT[force], name))
