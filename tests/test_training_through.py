"""Derivatives that are differentiated once more: against differences of the derivative itself."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from versions import until

import funcdiff as fd
from funcdiff._automatic.candidates import HESSIANS, JACOBIANS
from funcdiff._safety.training import check_training
from funcdiff._torch.tape import sketch
from funcdiff._torch.versions import RUNNING

A = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
A = A @ A.T + 3 * torch.eye(3, dtype=A.dtype)
V = 1 + torch.arange(9.0, dtype=A.dtype).reshape(3, 3).sin()


def symmetric(a):
    return (a + a.mT) / 2


FUNCTIONS = {
    "eigh": lambda a: torch.linalg.eigh(symmetric(a))[0].pow(3).sum(),
    "eigenvectors": lambda a: torch.linalg.eigh(symmetric(a))[1].pow(4).sum(),
    "slogdet": lambda a: torch.linalg.slogdet(a)[1],
    "det": torch.linalg.det,
    "solve": lambda a: torch.linalg.solve(a, torch.ones(3, dtype=a.dtype)).sum(),
    "layer_norm": lambda a: F.layer_norm(a, (3,)).pow(3).sum(),
    "batch_norm": lambda a: F.batch_norm(a, None, None, training=True).pow(3).sum(),
    "attention": lambda a: F.scaled_dot_product_attention(a[None], a[None], a[None]).pow(2).sum(),
    "cdist": lambda a: torch.cdist(a, a + 1).sum(),
    "normalize": lambda a: F.normalize(a.sin(), dim=1).pow(3).sum(),
    "cosine_similarity": lambda a: F.cosine_similarity(a, a.sin() + 1, dim=1).pow(2).sum(),
    "a detached part": lambda a: (a.detach() * a.sin()).pow(2).sum(),
}
DERIVATIVES = {
    "jacobian": lambda func, a: fd.jacobian(func)(a),
    "hessian": lambda func, a: fd.hessian(func)(a),
    "hessian_diagonal": lambda func, a: fd.hessian_diagonal(func)(a),
    "laplacian": lambda func, a: fd.laplacian(func)(a),
    "hvp": lambda func, a: fd.hvp(func, (a,), (V,)),
    "hvp_operator": lambda func, a: fd.hvp_operator(func, a)(V),
    "batch_hessian": lambda func, a: fd.batch_hessian(func)(torch.stack([2 * a, a]))[1],
}


# One with a batch and several heads is fused in every version: the error of torch says that it has no derivative.
FUSED = until("2.14", "attention without a batch is fused too, and its gradient has no derivative")
TRAINED = [
    pytest.param(name, derivative, marks=FUSED if (name, derivative) == ("attention", "jacobian") else ())
    for name in FUNCTIONS
    if name != "a detached part"
    for derivative in DERIVATIVES
]


@pytest.mark.parametrize(("name", "derivative"), TRAINED)
def test_training_through(name, derivative):
    def trained(a):
        result = DERIVATIVES[derivative](FUNCTIONS[name], a)
        return (result * torch.arange(1.0, result.numel() + 1, dtype=a.dtype).sin().reshape(result.shape)).sum()

    a, h = A.clone().requires_grad_(), 1e-5
    got = (torch.autograd.grad(trained(a), a)[0] * V).sum()
    assert_close(got, (trained(A + h * V) - trained(A - h * V)) / (2 * h), rtol=1e-4, atol=1e-6)


def checked(recipe, name, *, under_vmap=False):
    func = FUNCTIONS[name]
    return check_training(recipe, func, [A], sketch(func, [A.clone()]), under_vmap=under_vmap)


@pytest.mark.parametrize("under_vmap", [False, True])
def test_what_is_wrong_is_found(under_vmap):
    for name in ("eigh", "eigenvectors"):
        assert checked(HESSIANS["hessian_forward_over_reverse"], name, under_vmap=under_vmap).unsure  # it is NaN
    mended = ("slogdet", "solve") if RUNNING >= "2.15" else ()
    for name in {"slogdet", "solve", "layer_norm", "batch_norm"} - {*mended}:
        assert checked(JACOBIANS["jacobian_forward"], name, under_vmap=under_vmap).outcome == "wrong"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_right_is_not_accused(name):
    for recipe in (HESSIANS["hessian_double_backward"], JACOBIANS["jacobian_loop"]):
        assert checked(recipe, name).outcome == "agrees"


@pytest.mark.parametrize("product", ["hvp", "hvp_operator"])
def test_a_product_through_what_is_wrong_once_more_is_refused_only_there(product):
    """By torch's own name a norm has no form of ours. Plain autograd has it right twice, and not three times."""
    shift = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    x, v = torch.rand(2, 2, 3, dtype=torch.float64).unbind()

    def multiply(shift):
        def func(x):
            return torch.native_layer_norm(x + shift, (3,), None, None, 1e-5)[0].pow(3).sum()

        return fd.hvp(func, (x,), (v,)) if product == "hvp" else fd.hvp_operator(func, x)(v)

    def by_name(x):
        return F.layer_norm(x, (3,)).pow(3).sum()

    assert_close(multiply(shift.detach()), fd.hvp(by_name, (x,), (v,)))
    with pytest.raises(fd.RefusedError, match="second derivative of native_layer_norm is wrong"):
        multiply(shift)
