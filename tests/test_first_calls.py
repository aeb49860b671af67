"""What a plan leaves to the first call: whether jets pass through the function, and whether rows are mixed up."""

import numpy as np
import pytest
import torch
from custom_functions import Identity
from torch import nn
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._automatic import batches
from funcdiff._automatic.candidates import RECIPES

X = torch.linspace(-1, 2, 4, dtype=torch.float64)
FEW = torch.randn(600, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MANY = torch.randn(2000, 600, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
ROWS = torch.stack([X, X.flip(0), X.cos()])


class FirstRow(Identity):
    """The identity, which vmap takes for that of its first row."""

    @staticmethod
    def vmap(info, in_dims, x):
        return x.movedim(in_dims[0], 0)[:1].expand(info.batch_size, *x.shape[1:]).clone(), 0


def sine(x):
    return x.sin()


def mixed_up(recipe):
    return lambda func, *args, **options: lambda x: FirstRow.apply(recipe(func, *args, **options)(x))


@pytest.mark.parametrize("kind", ["jacobian", "hessian"])
@pytest.mark.parametrize("first", [ROWS, X.expand(3, 4), torch.stack([X, X, -X])], ids=["others", "alike", "twice"])
def test_a_recipe_that_mixes_up_rows_is_not_taken(kind, first, monkeypatch):
    fd.clear_plans()
    wrong = {name: mixed_up(recipe) for name, recipe in RECIPES[kind].items()}
    monkeypatch.setattr(batches, "RECIPES", {kind: wrong})  # alone they are right
    transform = getattr(fd, f"batch_{kind}")(sine)
    alone = getattr(fd, kind)(sine)
    for rows in (first, ROWS, ROWS + 1):
        assert_close(transform(rows), torch.stack([alone(row) for row in rows]))


def no_rule(x):
    """For which jets are fastest, if they passed."""
    return MANY @ torch.sin(FEW @ torch.linalg.svdvals(torch.outer(x, x.cos()) + torch.eye(4)))


@pytest.mark.parametrize("batch", [False, True])
def test_jets_that_do_not_pass_are_seen_by_the_first_call_and_by_explain(batch):
    point = ROWS if batch else X
    name = "batch_jacobian" if batch else "jacobian"
    expected = torch.func.vmap(torch.func.jacrev(no_rule))(ROWS) if batch else torch.func.jacrev(no_rule)(X)
    explained = fd.explain(getattr(fd, name)(no_rule), point)
    told = {c.name: c.obstacle for c in explained.plan.candidates}
    assert "no Taylor rule: linalg_svdvals" in told["jacobian_taylor"]
    fd.clear_plans()
    transform = getattr(fd, name)(no_rule)
    assert_close(transform(point), expected)
    again = fd.explain(transform, point)
    assert {c.name: c.obstacle for c in again.plan.candidates} == told
    assert again.recipe == explained.recipe


def test_a_plan_that_nobody_has_tried_is_made_again_for_who_only_looks():
    transform = fd.jacobian(no_rule)
    assert transform.found((X,), untried=True).plan.untried
    explained = fd.explain(transform, X)
    assert explained.recipe != "jacobian_taylor"
    assert transform.found((X,), untried=True).plan == explained.plan
    outcome = torch.func.vmap(lambda x: transform(x))(ROWS)  # where nothing can be tried
    assert_close(outcome, torch.func.vmap(torch.func.jacrev(no_rule))(ROWS))


def test_the_hessian_of_a_piecewise_linear_function_is_zero_and_says_why():
    net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.LeakyReLU(), nn.Linear(64, 1)).double()
    transform = fd.hessian(net)
    assert not transform(X).any()
    assert "linear piece by piece" in fd.explain(transform, X).plan.candidates[0].check


def test_what_is_linear_only_because_numpy_computes_the_rest_is_refused():
    def func(x):
        return (x * torch.from_numpy(np.sin(x.detach().numpy()))).relu().sum()

    with pytest.raises(RuntimeError, match="NumPy"):
        fd.hessian(func)(X + 2)
