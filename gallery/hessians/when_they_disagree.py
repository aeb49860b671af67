r"""
Why do two ways to compute one Hessian disagree?
================================================

Take :math:`f(a) = \log a` at :math:`a = 2`. Its first derivative is :math:`1/a = 0.5`. Its second derivative is
:math:`-1/a^2 = -0.25`. Suppose a program stores the number 0.5 in the evaluation and uses it as the first derivative.
This is right. But if you differentiate again, the program treats 0.5 as a constant, and the second derivative is 0.

Some derivative formulas in torch have this fault. One of them belongs to the log-determinant of a matrix. With
``jacrev`` you get the right Hessian, with ``jacfwd`` you get zeros, and torch raises no error.

**Answer:** One of the two ways uses a derivative formula that is wrong when it is differentiated again. Call
:func:`funcdiff.hessian`, which avoids such formulas and compares its first result with finite differences. To test
every method on your own function, call :func:`funcdiff.check_derivatives`.

.. code-block:: python

    import funcdiff, torch
    from torch.func import jacfwd, jacrev

    A = torch.eye(2)
    jacrev(jacrev(torch.logdet))(A)  # right
    jacfwd(jacfwd(torch.logdet))(A)  # all zeros, and no error
    funcdiff.hessian(torch.logdet)(A)  # right, and checked once
    funcdiff.check_derivatives(torch.logdet, A)  # a table: which methods are right
"""

# %%
# Use it
# ------
# Our function is the logarithm of a determinant, which is part of every Gaussian likelihood. We compute its Hessian at
# a matrix of 3 by 3 numbers. :func:`funcdiff.explain` says which method (:term:`recipe`) was used and what the check
# found.

import torch

from funcdiff import check_derivatives, explain, hessian, hessian_taylor

torch.manual_seed(0)
A = torch.randn(3, 3, dtype=torch.float64) + 3 * torch.eye(3, dtype=torch.float64)

H = hessian(torch.logdet)(A)
explain(hessian(torch.logdet), A)

# %%
# The recipe in the first line was used. The last column says how far its result is from the finite differences. Most
# recipes apply one mode of differentiation to the result of another. Their names say :term:`outer over inner`.
#
# Check it by hand
# ----------------
# The gradient of :math:`\log \det A` is :math:`A^{-T}`. From
# :math:`\mathrm{d}(A^{-1}) = -A^{-1}\, \mathrm{d}A\, A^{-1}` we obtain the Hessian:
#
# .. math::
#
#     \frac{\partial^2 \log \det A}{\partial A_{ij}\, \partial A_{kl}} = -(A^{-1})_{jk}\, (A^{-1})_{li}.

inverse = torch.linalg.inv(A)
by_formula = -torch.einsum("jk,li->ijkl", inverse, inverse)
torch.testing.assert_close(H, by_formula)

# %%
# If you have no formula, compare with finite differences of the gradient. They have fewer correct digits than a
# derivative, but enough to show a wrong one.


def hessian_by_differences(func, x, step=1e-5):
    """Compute each column from the gradients at two points near x."""
    gradient = torch.func.grad(func)
    units = step * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
    columns = [(gradient(x + u) - gradient(x - u)) / (2 * step) for u in units]
    return torch.stack(columns, dim=-1).view(x.shape + x.shape)


differences = hessian_by_differences(torch.logdet, A)
torch.testing.assert_close(differences, by_formula, rtol=1e-6, atol=1e-8)

# %%
# Time
# ----
# Layer norm is another operation with this fault. Forward over forward is right if you write the norm in simpler
# operations. We time this repair beside ``hessian`` and two recipes that need none.

from torch.nn.functional import layer_norm

from funcdiff import (
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
    hessian_reverse_over_forward,
    hessian_reverse_over_reverse,
)
from funcdiff.measure import compare


def norm_by_hand(a):
    centred = a - a.mean(-1, keepdim=True)
    return centred / (a.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()


W, x = torch.randn(32, 32, dtype=torch.float64), torch.randn(32, dtype=torch.float64)


def normed(x):
    return layer_norm(W @ x, (32,)).pow(3).sum()


def normed_by_hand(x):
    return norm_by_hand(W @ x).pow(3).sum()


by_hand = hessian_forward_over_forward(normed_by_hand)
methods = {
    "hessian": hessian(normed),
    "hessian_reverse_over_reverse": hessian_reverse_over_reverse(normed),
    "hessian_forward_over_reverse": hessian_forward_over_reverse(normed),
    "norm by hand": by_hand,
}
times = compare(methods, x, rounds=9)
times

# %%
# The function has 32 inputs and one output. So its first derivative needs 32 :term:`passes <pass>` in forward mode, and
# only one in reverse mode:

times.claim("hessian", faster_than="norm by hand")

# %%
# What goes wrong
# ---------------
# The forward derivative of the log-determinant uses a factorization from the evaluation. A second derivative treats it
# as a constant. So if the first derivative uses forward mode, we expect zeros, which are wrong. We try all four cases.

reverse_inside = hessian_forward_over_reverse, hessian_reverse_over_reverse
right = {recipe.__name__: recipe for recipe in reverse_inside}
zeros = hessian_forward_over_forward, hessian_reverse_over_forward
forward_inside = {recipe.__name__: recipe for recipe in zeros}
for name, recipe in {**right, **forward_inside}.items():
    error = (recipe(torch.logdet)(A) - by_formula).abs().max() / by_formula.abs().max()
    print(f"{name:30} relative error {error:.1e}")
for recipe in forward_inside.values():
    zero = recipe(torch.logdet)(A)
    assert not zero.any(), "torch has fixed logdet: update this page"

# %%
# Both combinations with forward mode inside return zeros. So if two results agree, they can still be wrong. A
# Hessian-vector product with forward mode inside is wrong as well.

from funcdiff import hvp, hvp_reverse_over_forward

V = torch.ones_like(A)
product = torch.einsum("ijkl,kl->ij", by_formula, V)
torch.testing.assert_close(hvp(torch.logdet, (A,), (V,)), product)
wrong = hvp_reverse_over_forward(torch.logdet, (A,), (V,))
assert not torch.allclose(wrong, product), "torch has fixed logdet: update this page"

# %%
# Which operations?
# -----------------
# Other operations also store something: a normalization stores its mean and variance, a linear solve its factorization.
# We test nine functions. At the end of each we take a sum of cubes or squares, so that its Hessian is one matrix.

from torch.nn.functional import batch_norm, instance_norm, rms_norm

norms = {
    "layer_norm": lambda a: layer_norm(a, (3,)),
    "instance_norm": lambda a: instance_norm(a[None]),
    "batch_norm, training": lambda a: batch_norm(a, None, None, training=True),
    "rms_norm": lambda a: rms_norm(a, (3,)),
    "layer norm by hand": norm_by_hand,
}
b = torch.ones(3, dtype=torch.float64)
functions = {name: lambda a, f=f: f(a).pow(3).sum() for name, f in norms.items()} | {
    "det": torch.det,
    "logdet": torch.logdet,
    "linalg.solve": lambda a: torch.linalg.solve(a, b).square().sum(),
    "solve by linalg.inv": lambda a: (torch.linalg.inv(a) @ b).square().sum(),
}

# %%
# For each function we compute the Hessian by forward over forward. We print two numbers, relative to its largest entry.
# The error is the difference from finite differences. The asymmetry is :math:`|H - H^T|`, which you can compute without
# knowing the right result.


def judge(recipe, func):
    """Return the relative error and the relative asymmetry at A."""
    trusted = hessian_by_differences(func, A).flatten(2).flatten(0, 1)
    matrix = recipe(func)(A).flatten(2).flatten(0, 1)
    scale = trusted.abs().max()
    error, asymmetry = ((matrix - m).abs().max() / scale for m in (trusted, matrix.T))
    return {"error": float(error), "asymmetry": float(asymmetry)}


findings = {
    name: judge(hessian_forward_over_forward, func) for name, func in functions.items()
}

# %%
# In the figure, a circle far to the right is a wrong Hessian. A square far to the right is one that is not symmetric.

from funcdiff.plots import plot_dots

wrong = [name for name, found in findings.items() if found["error"] > 1e-3]
hidden = [name for name in wrong if findings[name]["asymmetry"] < 1e-6]
title = f"Forward over forward: {len(wrong)} are wrong, {len(hidden)} of them symmetric"
plot_dots(findings, label="relative to the largest entry", title=title)

# %%
# A Hessian that is not symmetric is wrong. But a symmetric one can be wrong, too:

assert {"det", "logdet"} <= set(hidden), (
    "torch has fixed determinants: update this page"
)
print("wrong and symmetric:", ", ".join(hidden))

# %%
# The combinations with reverse mode inside are right for all of these functions, and so is ``hessian``.

for func in functions.values():
    for recipe in (hessian, *right.values()):
        assert judge(recipe, func)["error"] < 1e-6

# %%
# For your own function, ``check_derivatives`` tests every recipe and names the operation at fault.

check_derivatives(functions["layer_norm"], A)

# %%
# The table gives a verdict for each recipe. In the next two sections, even reverse mode inside can be wrong.
#
# Under vmap
# ----------
# :term:`vmap` computes the Hessians of many matrices at once. Here ``torch.func.hessian`` (forward over reverse) is
# right for the first matrix and wrong for the others. We print the relative error of each.

from torch.func import vmap

from funcdiff import batch_hessian

batch = A + 0.3 * torch.randn(4, 3, 3, dtype=torch.float64)
inverses = torch.linalg.inv(batch)
expected = -torch.einsum("bjk,bli->bijkl", inverses, inverses)


def errors(of_batch):
    """Return the relative error of the Hessian of each matrix."""
    difference = (of_batch(batch) - expected).abs().amax((1, 2, 3, 4))
    return difference / expected.abs().amax((1, 2, 3, 4))


under_vmap = {
    "torch.func.hessian": vmap(torch.func.hessian(torch.logdet)),
    "hessian_reverse_over_reverse": vmap(hessian_reverse_over_reverse(torch.logdet)),
    "batch_hessian": batch_hessian(torch.logdet),
}
for name, of_batch in under_vmap.items():
    print(f"{name:30}", *(f"{error:.1e}" for error in errors(of_batch)))
assert errors(under_vmap["torch.func.hessian"])[1:].min() > 1e-3, "update this page"
assert errors(under_vmap["batch_hessian"]).max() < 1e-10

# %%
# The first line shows the fault. :func:`funcdiff.batch_hessian` is right.
#
# With respect to the weight of a norm
# ------------------------------------
# Suppose you differentiate with respect to the weight :math:`w` of a norm and its input :math:`x` together. The Hessian
# then has a mixed block, :math:`\partial^2 f / \partial w\, \partial x`. All four combinations are wrong in this block.
# Plain autograd without ``torch.func`` is right, so we compare with it.

point = torch.rand(3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)


def weighted(w, x):
    return layer_norm(x, (3,), w).pow(3).sum()


(_, mixed), _ = torch.autograd.functional.hessian(weighted, point)
everything = {**right, **forward_inside, "hessian_taylor": hessian_taylor}
for name, recipe in {**everything, "hessian": hessian}.items():
    block = recipe(weighted, argnums=(0, 1))(*point)[0][1]
    error = (block - mixed).abs().max() / mixed.abs().max()
    print(f"{name:30} relative error {error:.1e}")
    faulty = name in right or name in forward_inside
    assert (error > 0.1) == faulty, "torch has fixed layer norm: update this page"

# %%
# Taylor mode is right, because it writes the norm in simpler operations. ``hessian`` is right as well.
#
# Takeaway
# --------
# Call ``hessian``, ``hvp`` or ``batch_hessian``. They avoid what is known to be wrong, and check their first result. An
# asymmetric Hessian is wrong, but a symmetric one is not always right. If you are not sure about an operation, call
# :func:`funcdiff.check_derivatives` once. If you call a recipe by its name, choose:
#
# * for a determinant or a solve: :func:`funcdiff.hessian_reverse_over_reverse`. Forward over reverse is wrong for them
#   under ``vmap``.
# * for a normalization layer, also with respect to its weight and input together: :func:`funcdiff.hessian_taylor` or,
#   for one output, :func:`funcdiff.hessian_double_backward`.
# * to differentiate the Hessian once more: :func:`funcdiff.hessian_taylor`. The gradients of others can be wrong.
