"""The summed batches and the operator of products: right where the single mode that they would take is wrong."""

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from custom_functions import Forgetful, OldCubed, WrongForward
from reading import told
from torch import nn
from torch.func import grad, vmap
from torch.testing import assert_close

import funcdiff as fd

ROWS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = ROWS[0]


torch.manual_seed(0)
NORM = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)).double().requires_grad_(False)


def matrices(rows):
    return rows[:, :, None] * rows[:, None, :] + 2 * torch.eye(3, dtype=rows.dtype)


FUNCTIONS = {
    "a custom function in the old style": OldCubed.apply,
    "a custom function with a forward rule": WrongForward.apply,
    "a norm": NORM,
    "a log-determinant": lambda rows: torch.linalg.slogdet(matrices(rows))[1][:, None],
    "a solve": lambda rows: torch.linalg.solve(matrices(rows), torch.ones(3, dtype=rows.dtype)),
    "in place": lambda rows: torch.zeros_like(rows).copy_(rows).pow(2) * rows,
    "a distance": lambda rows: torch.cdist(rows[:, None], torch.ones(4, 2, 3, dtype=rows.dtype))[:, 0],
    "attention": lambda rows: F.scaled_dot_product_attention(*(rows[:, None, :, None] * torch.ones(4),) * 3)[
        :, 0, :, 0
    ],
    "checkpoints": lambda rows: torch.utils.checkpoint.checkpoint(lambda r: r.sin() * r, rows, use_reentrant=False),
}


def by_hand(func, order):
    """By plain autograd, row by row and output by output."""

    def row(x):
        def one(x):
            return func(torch.stack([x] * 4))[0]

        jacobian = torch.autograd.functional.jacobian(one, x)
        if order == 1:
            return jacobian
        return torch.stack(
            [torch.autograd.functional.hessian(lambda x, k=k: one(x)[k], x) for k in range(len(jacobian))]
        )

    return torch.stack([row(x) for x in ROWS])


def distance_by_hand(rows):
    return (rows[:, None] - torch.ones(4, 2, 3, dtype=rows.dtype)).square().sum(-1).sqrt()


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_summed_batches_are_right(name, chunk_size):
    func = FUNCTIONS[name]
    reference = distance_by_hand if name == "a distance" else func
    if name == "attention":
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            first, second = by_hand(reference, 1), by_hand(reference, 2)
    else:
        first, second = by_hand(reference, 1), by_hand(reference, 2)
    for _ in range(2):
        assert_close(fd.batch_jacobian_summed(func, chunk_size=chunk_size)(ROWS), first)
        assert_close(fd.batch_hessian_summed(func, chunk_size=chunk_size)(ROWS), second)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_operator_is_right(name):
    func, v = FUNCTIONS[name], torch.ones_like(ROWS)
    reference = distance_by_hand if name == "a distance" else func
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = torch.autograd.functional.hvp(lambda rows: reference(rows).sum(), ROWS, v)[1]
    operator = fd.hvp_operator(lambda rows: func(rows).sum(), ROWS)
    assert_close(operator(v), expected)
    assert_close(fd.hvp(lambda rows: func(rows).sum(), (ROWS,), (v,)), expected)


def test_what_no_recipe_has_right_is_refused():
    assert_close(fd.batch_jacobian_summed(Forgetful.apply)(ROWS), torch.diag_embed(3 * ROWS**2))
    with pytest.raises(RuntimeError, match="func calls Forgetful"):
        fd.batch_hessian_summed(Forgetful.apply)(ROWS)
    with pytest.raises(RuntimeError, match="func calls Forgetful"):
        fd.hvp_operator(lambda x: Forgetful.apply(x).sum(), X)
    fd.hvp_operator(lambda x: Forgetful.apply(x).sum(), X, verify=False)(X)


def test_explain():
    transform = fd.batch_hessian_summed(lambda rows: WrongForward.apply(rows).sin())
    assert fd.explain(transform, ROWS).recipe == "hessian_double_backward, summed"
    transform(ROWS)
    assert fd.explain(transform, ROWS).recipe == "hessian_double_backward, summed"
    assert "agrees with differences" in told(fd.explain(transform, ROWS))
    wrong = fd.jacobian(lambda x: WrongForward.apply(x.sum()) * torch.arange(4000.0, dtype=x.dtype))
    assert fd.explain(wrong, X).recipe == "jacobian_forward"
    wrong(X)
    assert "contradicts" in told(fd.explain(wrong, X))
    assert fd.explain(fd.hvp_operator, lambda x: x.sin().sum(), X).recipe == "hvp_double_backward"


def test_operators_can_be_trained_through():
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=X.dtype, requires_grad=True)
    product = fd.hvp_operator(lambda x: F.layer_norm(x * weight, (3,)).pow(3).sum(), X)(torch.ones_like(X))

    def by_hand(w):
        def norm(x):
            y = x * w
            y = y - y.mean()
            return (y / (y.square().mean() + 1e-5).sqrt()).pow(3).sum()

        return torch.autograd.functional.hvp(norm, X, torch.ones_like(X), create_graph=True)[1]

    assert_close(product, by_hand(weight))
    assert_close(torch.autograd.grad(product.sum(), weight), torch.autograd.grad(by_hand(weight).sum(), weight))


def test_inside_transforms():
    batches = torch.stack([ROWS, ROWS + 1])
    for transform in (fd.batch_jacobian_summed, fd.batch_hessian_summed):
        for func in (FUNCTIONS["a log-determinant"], FUNCTIONS["a norm"]):
            assert_close(vmap(transform(func))(batches), torch.stack([transform(func)(rows) for rows in batches]))
    assert_close(grad(lambda rows: fd.batch_jacobian_summed(torch.sin)(rows).sum())(ROWS), -ROWS.sin())
    assert_close(vmap(lambda x: fd.hvp_operator(lambda x: x.pow(3).sum(), x)(x))(ROWS), 6 * ROWS**2)
