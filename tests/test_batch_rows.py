"""Rows that vmap refuses are differentiated one after the other; functions are planned for the values that they see."""

import numpy as np
import pytest
import torch
from custom_functions import OldCubed
from torch import nn
from torch.func import grad, vmap
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint
from versions import since

import funcdiff as fd
from funcdiff._automatic import planning

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BATCHES = {"batch_jacobian": fd.batch_jacobian, "batch_hessian": fd.batch_hessian}


def in_place(x):
    y = torch.zeros(3, dtype=x.dtype)
    y[0], y[1:] = x[0] ** 2, x[1:].sin()
    return x * y


def branch(x):
    return x.sin() * x if x.sum() > 0 else x.cos()


def cond(x):
    return torch.cond(x.sum() > 0, lambda x: x.sin() * x, lambda x: x.cos(), (x,))


def constant(x):
    return x.sin() * float(x.detach().norm())


def array(x):
    return x.sin() * torch.from_numpy(np.sign(x.detach().numpy()))


GRU = nn.GRU(3, 3, batch_first=True).double().requires_grad_(False)
REFUSED = {
    "a custom function in the old style": OldCubed.apply,
    "in place into zeros": in_place,
    "a branch": branch,
    "cond": cond,
    "a mask": lambda x: x[x > 0] ** 3 if (x > 0).sum() == 3 else x.sin(),
    "indices of nonzeros": lambda x: x[torch.nonzero(x > -9)[:, 0]].sin(),
    "a number": constant,
    "an array": array,
    "an operator without a batching rule": lambda x: GRU(x[None, None])[0][0, 0],
}


def by_hand(kind, func):
    def row(x):
        jacobian = torch.autograd.functional.jacobian(func, x, create_graph=True)
        if kind == "batch_jacobian":
            return jacobian.detach()
        return torch.stack(
            [torch.autograd.functional.hessian(lambda x, k=k: func(x)[k], x) for k in range(len(jacobian))]
        )

    return torch.stack([row(x) for x in X])


COND = pytest.param("cond", marks=since("2.13", "control flow operators are left to torch"))


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", [COND if name == "cond" else name for name in REFUSED])
def test_what_vmap_refuses_is_taken_row_by_row(name, kind, chunk_size):
    transform = BATCHES[kind](REFUSED[name], chunk_size=chunk_size)
    for _ in range(2):
        assert_close(transform(X), by_hand(kind, branch if name == "cond" else REFUSED[name]))
    explained = fd.explain(transform, X)
    assert explained.recipe == planning.LOOP
    assert "it raises" in repr(explained) or "no Taylor rule" in repr(explained)


@pytest.mark.parametrize("kind", BATCHES)
def test_a_loop_over_rows_keeps_the_calling_convention(kind):
    def func(p, x):
        y = OldCubed.apply(x["x"] * p)
        return {"y": y}, y.sum()

    options = {"argnums": 1, "in_dims": (None, {"x": 1}), "has_aux": True}
    got, aux = BATCHES[kind](func, **options, chunk_size=2)(torch.tensor(2.0, dtype=X.dtype), {"x": X.T})
    x = 2 * X
    first, second = 3 * x**2 * 2, 6 * x * 4
    expected = torch.diag_embed(first) if kind == "batch_jacobian" else torch.diag_embed(torch.diag_embed(second))
    assert_close(got["y"]["x"] if kind == "batch_jacobian" else got["y"]["x"]["x"], expected)
    assert_close(aux, (x**3).sum(1))


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_a_loop_over_rows_draws_as_asked(randomness):
    rows = torch.ones(4, 3, dtype=X.dtype)
    got = fd.batch_jacobian(lambda x: OldCubed.apply(x * torch.rand(())), randomness=randomness)(rows)
    assert (got[0] == got[1]).all() == (randomness == "same")


def test_a_loop_over_rows_keeps_a_budget():
    rows = torch.rand(64, 30, dtype=X.dtype)
    result = rows.numel() * 30 * 8
    got = fd.batch_jacobian(OldCubed.apply, chunk_size="auto", budget=result + 200_000)(rows)
    assert_close(got, torch.diag_embed(3 * rows**2))


def test_a_loop_over_rows_can_be_trained_through():
    x = X.clone().requires_grad_()
    fd.batch_jacobian(OldCubed.apply)(x).sum().backward()
    assert_close(x.grad, 6 * X)


def test_a_bug_in_the_function_is_raised_as_it_is():
    def func(x):
        return torch.ones(4, dtype=x.dtype) @ x

    for transform in BATCHES.values():
        with pytest.raises(RuntimeError, match="inconsistent tensor size"):
            transform(func)(X)


def test_checkpoints_pass_through_vmap():
    transform = fd.batch_hessian(lambda x: checkpoint(lambda x: x.sin() * x, x, use_reentrant=False).sum())
    assert_close(transform(X), torch.diag_embed(2 * X.cos() - X * X.sin()))


DETERMINANT = torch.diag(torch.tensor([2.0, 3.0, 4.0], dtype=X.dtype))


def wrong_below_zero(x):
    """Polynomial on one side, and on the other a determinant, whose second derivatives torch has wrong under vmap."""
    return (x**3).sum() if x.sum() > 0 else torch.linalg.det(DETERMINANT + torch.outer(x, x.sin()))


@pytest.mark.parametrize("sign", [1, -1])
def test_inside_a_transform_the_branch_that_is_planned_is_the_one_that_is_taken(sign):
    x, factors = sign * X[0].abs(), torch.ones(2, dtype=X.dtype)
    expected = torch.autograd.functional.hessian(wrong_below_zero, x)
    assert_close(torch.func.vjp(fd.hessian(wrong_below_zero), x)[0], expected)
    assert_close(vmap(lambda factor: factor * fd.hessian(wrong_below_zero)(x))(factors)[1], expected)
    third = torch.autograd.functional.jacobian(
        lambda x: torch.autograd.functional.hessian(wrong_below_zero, x, create_graph=True).sum(), x
    )
    assert_close(grad(lambda x: fd.hessian(wrong_below_zero)(x).sum())(x), third)


def test_a_plan_inside_a_transform_is_made_for_the_values_beneath():
    """For a logarithm of what stand-ins between 0 and 1 would make negative."""
    plans = []

    def func(x):
        found = fd.jacobian(lambda x: (x - 5).log())
        plans.append(found.found((x,)).plan)
        return found(x)

    rows = 6 + X.abs()
    assert_close(vmap(func)(rows), torch.diag_embed(1 / (rows - 5)))
    assert "agrees" in plans[0].candidates[0].check
    vmap(vmap(func, in_dims=1), in_dims=0)(torch.stack([rows.T, rows.T + 1]))
    assert "agrees" in plans[1].candidates[0].check


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # torch says so of an LSTM under vmap
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
def test_recurrent_layers_in_double_precision_are_taken_row_by_row(layer, frozen):
    net = layer(3, 2, batch_first=True).double().requires_grad_(not frozen)
    rows = torch.linspace(-1, 1, 18, dtype=torch.float64).reshape(2, 3, 3)

    def func(x):
        return net(x[None])[0].square().sum()

    for recipe, plain in ((fd.batch_jacobian, "jacobian"), (fd.batch_hessian, "hessian")):
        expected = torch.stack([getattr(torch.autograd.functional, plain)(func, row) for row in rows])
        assert_close(recipe(func)(rows), expected)


def products_by_index(x):
    return torch.ones(2, dtype=x.dtype).scatter_reduce(0, torch.tensor([0, 1, 0]), x, "prod").sin().sum()


def without_gradients(x):
    with torch.no_grad():
        factor = x.exp()
    return (factor * x.sin()).sum()


@pytest.mark.parametrize("func", [products_by_index, without_gradients])
def test_what_only_vmap_gets_wrong_is_computed_row_by_row(func):
    rows = torch.tensor([[0.3, -0.7, 1.1], [0.5, 0.2, -0.4]], dtype=torch.float64)
    for _ in range(2):
        assert_close(fd.batch_hessian(func)(rows), torch.stack([fd.hessian(func)(row) for row in rows]))
    with pytest.raises(fd.RefusedError):
        vmap(fd.hessian(func))(rows)


def grown(x):
    x += 1
    return x.square()


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_a_function_that_writes_into_its_argument_has_the_same_point_in_each_pass(chunk_size):
    rows = X.clone()
    result = fd.batch_jacobian_summed(grown, chunk_size=chunk_size)(rows)
    assert_close(result, torch.stack([torch.diag(2 * (row + 1)) for row in X]))
    assert_close(rows, X)
