"""Arguments that torch does not differentiate by: reverse mode stops, and forward mode takes them for constants."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from torch.testing import assert_close

import funcdiff as fd

W = torch.tensor([0.6, 1.3, 2.1, 0.7], dtype=torch.float64)
C = torch.tensor([0.2, 0.3, 0.6, 0.8], dtype=torch.float64)
TARGETS = torch.tensor([0, 2, 3])
LOGS = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4).log_softmax(-1)
BLOCKED = {
    "nll_loss": lambda w: F.nll_loss(LOGS, TARGETS, weight=w),
    "cross_entropy": lambda w: F.cross_entropy(LOGS * w, TARGETS, weight=w),
    "binary_cross_entropy": lambda w: F.binary_cross_entropy(C, C.flip(0), weight=w),
}
CALLS = {
    **{name: getattr(fd, name) for name in ("jacobian", "hessian", "laplacian", "hessian_diagonal")},
    "hvp": lambda func: lambda x: fd.hvp(func, (x,), (x,)),
    "jacobian without a check": lambda func: fd.jacobian(func, verify=False),
    "batch_jacobian": lambda func: lambda x: fd.batch_jacobian(func)(torch.stack([x, x + 1])),
    "batch_hessian": lambda func: lambda x: fd.batch_hessian(func)(torch.stack([x, x + 1])),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", BLOCKED)
def test_they_are_refused(name, call):
    with pytest.raises(fd.RefusedError, match=r"not differentiable with respect to argument 'weight'.*detach the arg"):
        CALLS[call](BLOCKED[name])(W)


def test_a_detached_one_is_a_constant():
    func = lambda w: F.cross_entropy(LOGS * w, TARGETS, weight=w.detach())  # noqa: E731  # as those above
    assert_close(fd.jacobian(func)(W), torch.autograd.functional.jacobian(func, W))


def test_statistics_of_a_batch_norm_may_move_where_it_is_written_out():
    def func(x, norm=F.batch_norm):
        return norm(x.new_ones(3, 2) * x[0], x[:2], x[2:] ** 2).sin().sum()

    def by_hand(rows, mean, variance):
        return (rows - mean) / (variance + 1e-5).sqrt()

    for name in ("jacobian", "hessian"):
        exact = getattr(torch.autograd.functional, name)(functools.partial(func, norm=by_hand), W)
        assert_close(getattr(fd, name)(func)(W), exact)


def cubes(**rules):
    """The cube, with these rules for its derivatives."""
    given = {name: staticmethod(rule) for name, rule in rules.items()}
    forward, save = staticmethod(lambda x: x**3), staticmethod(lambda ctx, i, _: ctx.save_for_backward(*i))
    return type("Cubes", (torch.autograd.Function,), {"forward": forward, "setup_context": save, **given}).apply


def rule(ctx, gradient):
    return 3 * ctx.saved_tensors[0] ** 2 * gradient


@pytest.mark.parametrize("name", ["backward", "vjp"])
def test_one_that_is_marked_once_differentiable_is_refused_under_either_name(name):
    func = cubes(**{name: once_differentiable(rule)})
    assert_close(fd.jacobian(lambda x: func(x).sum())(W), 3 * W**2)
    with pytest.raises(fd.RefusedError, match="marked once_differentiable"):
        fd.hessian(lambda x: func(x).sum())(W)


@pytest.mark.parametrize("given", [{"vjp": rule}, {"backward": functools.partial(rule)}], ids=["vjp", "partial"])
def test_a_rule_may_have_its_other_name_and_be_any_callable(given):
    func = cubes(**given)
    assert_close(fd.hessian(lambda x: func(x).sum())(W), torch.diag(6 * W))
