r"""
Why do two ways to one Hessian disagree?
========================================

Four compositions should give one matrix. For layer norm, determinants and linear solves two of them give another one,
and nothing is raised: a Newton step, a curvature or a Laplacian goes wrong by its own size.

**Answer:** forward mode on the *inside* is wrong there. Take :func:`funcdiff.hessian_forward_over_reverse`, compare
with differences of the gradient on each new operation, and do not trust symmetry alone.
"""

# %%
# The function
# ------------
# The logarithm of a determinant, as it stands in a Gaussian likelihood, :math:`f(A) = \log \det A`.

import torch

torch.manual_seed(0)
A = torch.randn(3, 3, dtype=torch.float64) + 3 * torch.eye(3, dtype=torch.float64)

# %%
# By hand
# -------
# The gradient is :math:`A^{-T}`. From :math:`\mathrm{d}(A^{-1}) = -A^{-1}\, \mathrm{d}A\, A^{-1}` follows the Hessian,
#
# .. math::
#
#     \frac{\partial^2 \log \det A}{\partial A_{ij}\, \partial A_{kl}} = -(A^{-1})_{jk}\, (A^{-1})_{li}.

inverse = torch.linalg.inv(A)
by_formula = -torch.einsum("jk,li->ijkl", inverse, inverse)

# %%
# A function without a formula has differences: a central difference of the gradient in each direction, a column of the
# Hessian each. They are good to a few digits less than a derivative, enough to tell right from wrong.


def hessian_by_differences(func, x, step=1e-5):
    """Columns from the gradient on both sides of x; the shape of x, twice."""
    gradient = torch.func.grad(func)
    units = step * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
    columns = [(gradient(x + unit) - gradient(x - unit)) / (2 * step) for unit in units]
    return torch.stack(columns, dim=-1).view(x.shape + x.shape)


torch.testing.assert_close(hessian_by_differences(torch.logdet, A), by_formula, rtol=1e-6, atol=1e-8)

# %%
# The recipes
# -----------
# With reverse mode inside they equal the formula.

from funcdiff import (
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
    hessian_reverse_over_forward,
    hessian_reverse_over_reverse,
)

right = {
    "hessian_forward_over_reverse": hessian_forward_over_reverse,
    "hessian_reverse_over_reverse": hessian_reverse_over_reverse,
}
forward_inside = {
    "hessian_forward_over_forward": hessian_forward_over_forward,
    "hessian_reverse_over_forward": hessian_reverse_over_forward,
}
for hessian in right.values():
    torch.testing.assert_close(hessian(torch.logdet)(A), by_formula)

# %%
# Prediction
# ----------
# torch's forward formula of the determinant is right: :math:`\mathrm{tr}(A^{-1} V)` in direction :math:`V`. But it
# takes :math:`A^{-1}` from a factorisation that the operation saved, and to the outer mode that is a constant. What is
# left then has no derivative, and the Hessian must come out as zero.

from funcdiff import jacobian_forward

torch.testing.assert_close(jacobian_forward(torch.logdet)(A), inverse.T)

# %%
# What breaks
# -----------
# It does, in both ways with forward mode inside. Nothing is raised, and the two agree with each other.

for name, hessian in forward_inside.items():
    wrong = hessian(torch.logdet)(A)
    print(f"{name}: largest entry {wrong.abs().max():.1e}, should be {by_formula.abs().max():.1e}")
    assert not torch.allclose(wrong, by_formula), "torch has mended logdet: update What breaks of when_they_disagree"
    torch.testing.assert_close(wrong, torch.zeros_like(wrong))

# %%
# Products inherit it: the Hessian-vector product with forward mode inside is wrong as well.

from funcdiff import check_derivatives, hvp_forward_over_reverse, hvp_reverse_over_forward

V = torch.ones_like(A)
product = torch.einsum("ijkl,kl->ij", by_formula, V)
torch.testing.assert_close(hvp_forward_over_reverse(torch.logdet, (A,), (V,)), product)
wrong = hvp_reverse_over_forward(torch.logdet, (A,), (V,))
assert not torch.allclose(wrong, product), "torch has mended logdet: update What breaks of when_they_disagree"

# %%
# Measurement
# -----------
# Other operations save something too: a solve its factors, a normalisation its mean and variance. We ask the same of
# them, and of five ways around them.

from torch.nn.functional import batch_norm, instance_norm, layer_norm, rms_norm

b = torch.ones(3, dtype=torch.float64)
cubed = {
    "layer_norm": lambda a: layer_norm(a, (3,)),
    "instance_norm": lambda a: instance_norm(a[None]),
    "batch_norm, training": lambda a: batch_norm(a, None, None, training=True),
    "rms_norm": lambda a: rms_norm(a, (3,)),
    "layer norm by hand": lambda a: (
        (a - a.mean(-1, keepdim=True)) / (a.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    ),
}

# %%
# A normalisation is cubed and summed, a solution squared and summed, so that each has a Hessian.


def log_det_by_lu(a):
    return torch.linalg.lu_factor(a).LU.diagonal().abs().log().sum()


def solve_by_lu(a):
    return torch.linalg.lu_solve(*torch.linalg.lu_factor(a), b[:, None]).square().sum()


functions = {name: lambda a, normalise=normalise: normalise(a).pow(3).sum() for name, normalise in cubed.items()} | {
    "det": torch.det,
    "logdet": torch.logdet,
    "logdet by lu_factor": log_det_by_lu,
    "linalg.solve": lambda a: torch.linalg.solve(a, b).square().sum(),
    "solve by lu_factor": solve_by_lu,
    "solve by linalg.inv": lambda a: (torch.linalg.inv(a) @ b).square().sum(),
}

# %%
# Two numbers for each, relative to the largest entry: the error, against differences, and the asymmetry
# :math:`|H - H^T|`, which needs no reference.


def judge(hessian, func):
    """Relative error and relative asymmetry at A."""
    trusted = hessian_by_differences(func, A).flatten(2).flatten(0, 1)
    matrix = hessian(func)(A).flatten(2).flatten(0, 1)
    error, asymmetry = ((matrix - other).abs().max() / trusted.abs().max() for other in (trusted, matrix.T))
    return {"error": float(error), "asymmetry": float(asymmetry)}


findings = {name: judge(hessian_forward_over_forward, func) for name, func in functions.items()}
for name, finding in findings.items():
    print(f"{name:22} error {finding['error']:7.1e}   asymmetry {finding['asymmetry']:7.1e}")

# %%
# Circles on the right are wrong; squares on the right show it.

from funcdiff.plots import plot_dots

plot_dots(findings, label="relative to the largest entry", title="Forward inside: wrong need not mean asymmetric")

# %%
# A Hessian that is not symmetric is wrong: the normalisations and the solve give themselves away. The determinants do
# not: they come out wrong *and* symmetric.

for name in ("det", "logdet"):
    assert findings[name]["error"] > 0.1, f"torch has mended {name}: update Measurement of when_they_disagree"
    assert findings[name]["asymmetry"] < 1e-10

# %%
# Of a function of your own, one call asks every recipe, and names the operation at fault:

check_derivatives(functions["layer_norm"], A)

# %%
# With reverse mode inside, every one of them is right and symmetric in its input.

for func in functions.values():
    for hessian in right.values():
        finding = judge(hessian, func)
        assert finding["error"] < 1e-6
        assert finding["asymmetry"] < 1e-10

# %%
# By the weight of a norm, none of the four
# -----------------------------------------
# A norm's weight and its input together have a mixed block, :math:`\partial^2 f / \partial w\, \partial x`. There
# all four compositions are wrong, so a Hessian of a network's parameters may be. Taylor mode, which writes the norm
# out, is right; so is plain autograd, :func:`torch.autograd.functional.hessian`.

from funcdiff import hessian_taylor

point = torch.rand(3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)


def weighted(w, x):
    return layer_norm(x, (3,), w).pow(3).sum()


(_, mixed), (transposed, _) = torch.autograd.functional.hessian(weighted, point)
torch.testing.assert_close(mixed, transposed.T)
torch.testing.assert_close(hessian_taylor(weighted, argnums=(0, 1))(*point)[0][1], mixed)
for name, hessian in {**right, **forward_inside}.items():
    error = (hessian(weighted, argnums=(0, 1))(*point)[0][1] - mixed).abs().max() / mixed.abs().max()
    print(f"{name:30} relative error of the mixed block {error:.2f}")
    assert error > 0.1, "torch has mended layer_norm: update By the weight of a norm of when_they_disagree"

# %%
# The price of the right one
# --------------------------
# For a scalar function we expect none: reverse mode inside takes one pass where forward mode takes :math:`n`. Layer
# norm after a linear layer, 32 inputs:

from funcdiff.measure import compare, count

W = torch.randn(32, 32, dtype=torch.float64)
x = torch.randn(32, dtype=torch.float64)
ways = {name: hessian(lambda x: layer_norm(W @ x, (32,)).pow(3).sum()) for name, hessian in right.items()}
by_hand = hessian_forward_over_forward(lambda x: cubed["layer norm by hand"](W @ x).pow(3).sum())
ways["forward over forward, norm by hand"] = by_hand

costs = count(ways, x)
costs

# %%
costs.claim("hessian_forward_over_reverse", smaller_peak_than="forward over forward, norm by hand", by=10)

# %%
times = compare(ways, x, rounds=9)
times

# %%
times.claim("hessian_forward_over_reverse", faster_than="forward over forward, norm by hand")

# %%
# Takeaway
# --------
# Put reverse mode inside whenever a normalisation, a determinant or a solve may be, and by the weight of a norm take
# Taylor mode or plain autograd. Put a new operation before :func:`funcdiff.check_derivatives`; read asymmetry as
# proof of an error and symmetry as no proof. The exception is a function of few inputs and many outputs, where forward
# over forward is the cheap one: write the operation out, as the ways around do, and check again.
