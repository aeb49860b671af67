r"""
Is a vector-Hessian product the same as a Hessian-vector product?
=================================================================

A matrix can be multiplied from the right, :math:`Hv`, or from the left, :math:`v^T H`. For a symmetric matrix both give
the same numbers. A Hessian is symmetric, because the order of two derivatives does not matter:
:math:`\partial_i \partial_j f = \partial_j \partial_i f`.

Take :math:`f(x) = x_0^2 x_1` at :math:`(3, 2)`. Its Hessian has the rows :math:`(4, 6)` and :math:`(6, 0)`, and for
:math:`v = (1, 0)` both products are :math:`(4, 6)`. If torch gets a derivative wrong, the two can differ. So comparing
them is a test.

**Answer:** Yes, if the function has continuous second derivatives and torch's derivatives are right. So call
:func:`funcdiff.hvp`, which uses the cheaper of the two, and checks its first result.

.. code-block:: python

    from funcdiff import hvp, vhp

    Hv = hvp(func, (x,), (v,))  # the shape of x
    left = vhp(func, (x,), (v,))  # equal to Hv
"""

# %%
# Use it
# ------
# Our function is :math:`f(x) = x^T A x + \sum_i c_i x_i^3`, with a matrix :math:`A` that is not symmetric. We compute
# both products. They have the shape of ``x`` and must agree.

import torch

from funcdiff import explain, hvp, vhp

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
n = 512
A = torch.randn(n, n, dtype=torch.float64, device=device)
c, x, v, w = torch.randn(4, n, dtype=torch.float64, device=device)


def function(x):
    return x @ A @ x + (c * x**3).sum()


Hv = hvp(function, (x,), (v,))
left = vhp(function, (x,), (v,))
torch.testing.assert_close(Hv, left)
print(tuple(Hv.shape), explain(hvp, function, (x,), (v,)).recipe)

# %%
# The arguments are tuples, as for :func:`torch.func.jvp`: the point (:term:`primal`) and the vectors (:term:`tangent`).
# The last word is the :term:`recipe` that ``hvp`` chose.
#
# Check it by hand
# ----------------
# The Hessian is :math:`H = A + A^T + 6 \operatorname{diag}(c x)`. It is symmetric, although :math:`A` is not, because
# :math:`\partial_i \partial_j f = \partial_j \partial_i f` (Schwarz's theorem).


def by_formula(v):
    return A @ v + A.T @ v + 6 * c * x * v


torch.testing.assert_close(Hv, by_formula(v))

# %%
# The gradient is a function from :math:`R^n` to :math:`R^n`, and :math:`H` is its Jacobian. A :term:`VJP` of the
# gradient is therefore :math:`v^T H`.

from torch.func import grad, vjp

_, pull_back = vjp(grad(function), x)
(by_hand,) = pull_back(v)
torch.testing.assert_close(by_hand, by_formula(v))

# %%
# A point may have several axes. The product has the same shape, here (2, 256).


def of_matrix(x):
    return function(x.reshape(-1))


folded = hvp(of_matrix, (x.view(2, 256),), (v.view(2, 256),))
torch.testing.assert_close(folded, by_formula(v).view(2, 256))

# %%
# If the function has two arguments, the product is a tuple. It uses all blocks of the Hessian: the first entry is
# :math:`H_{aa} v_a + H_{ab} v_b`. We check this for :math:`f(a, b) = (a \cdot b)^2 / 2`, whose second derivatives are
# :math:`b b^T` and :math:`a b^T + (a \cdot b) I`.


def half_square(a, b):
    return (a @ b) ** 2 / 2


a, b, va, vb = torch.randn(4, 3, dtype=torch.float64)
expected = (
    b * (b @ va) + b * (a @ vb) + (a @ b) * vb,
    a * (b @ va) + a * (a @ vb) + (a @ b) * va,
)
torch.testing.assert_close(hvp(half_square, (a, b), (va, vb)), expected)
torch.testing.assert_close(vhp(half_square, (a, b), (va, vb)), expected)

# %%
# Count
# -----
# All these products are the same vector. Their costs differ: :term:`forward mode`, as in ``hvp_forward_over_reverse``,
# also multiplies by the tangent of the constant :math:`A`, which is zero. :term:`Reverse mode <reverse mode>` does not.

from funcdiff import hvp_double_backward, hvp_forward_over_reverse
from funcdiff.measure import compare, count
from funcdiff.plots import plot

recipes = {
    "hvp": hvp,
    "hvp_double_backward": hvp_double_backward,
    "vhp": vhp,
    "hvp_forward_over_reverse": hvp_forward_over_reverse,
}
methods = {
    name: lambda x, v, recipe=recipe: recipe(function, (x,), (v,))
    for name, recipe in recipes.items()
}
costs = count(methods, x, v)
costs

# %%
# Compare the FLOPs (floating-point operations): forward over reverse needs more than the other three.

costs.claim("vhp", fewer_flops_than="hvp_forward_over_reverse")

# %%
# Time
# ----
# The times should follow the FLOPs. ``compare`` first checks that all results agree, and then times them.

times = compare(methods, x, v, rounds=15)
times

# %%
# The ratio says how many times as long as the fastest method each one takes. The times should follow the FLOPs:

times.claim("hvp", faster_than="hvp_forward_over_reverse")

# %%
# The same times as a figure:

ratio = times.ratio("hvp_forward_over_reverse", "hvp").median
title = f"The same product: forward over reverse takes {ratio:.1f}× as long as hvp"
plot(times, title=title)

# %%
# The bars are the quartiles: where two of them overlap, the difference is small.
#
# Test symmetry without the matrix
# --------------------------------
# How can you test symmetry without the Hessian? Take two random vectors. If :math:`H` is symmetric, then :math:`w^T (H
# v) = v^T (H w)`. The function below returns the relative difference of the two sides.


def asymmetry(product, func, x, v, w):
    one = w.flatten() @ product(func, (x,), (v,)).flatten()
    other = v.flatten() @ product(func, (x,), (w,)).flatten()
    return float((one - other).abs() / (one.abs() + other.abs()))


for product in recipes.values():
    assert asymmetry(product, function, x, v, w) < 1e-8

# %%
# All products of our function pass the test, up to rounding.
#
# What goes wrong
# ---------------
# A factor that is computed under ``no_grad`` is meant to be constant. Reverse mode treats it as a constant, but forward
# mode ignores ``no_grad``. A product that mixes the modes then belongs to a matrix that is not symmetric, and torch
# raises no error.


def half_constant(x):
    with torch.no_grad():
        scale = x.square().sum()
    return x.sin().sum() * scale


point, p, q = torch.randn(3, 4, dtype=torch.float64)
constant = -point.sin() * point.square().sum() * p
torch.testing.assert_close(vhp(half_constant, (point,), (p,)), constant)
torch.testing.assert_close(hvp(half_constant, (point,), (p,)), constant)

mixed = hvp_forward_over_reverse(half_constant, (point,), (p,))
assert not torch.allclose(mixed, constant), (
    "forward mode respects no_grad: update this page"
)
difference = asymmetry(hvp_forward_over_reverse, half_constant, point, p, q)
print(f"asymmetry of forward over reverse: {difference:.2f}")
assert difference > 1e-3

# %%
# Symmetry is no proof, however. Forward over forward and reverse over reverse both give a symmetric matrix here, and
# the two matrices differ.

from funcdiff import hessian_forward_over_forward, hessian_reverse_over_reverse

forward = hessian_forward_over_forward(half_constant)(point)
reverse = hessian_reverse_over_reverse(half_constant)(point)
torch.testing.assert_close(forward, forward.T)
torch.testing.assert_close(reverse, reverse.T)
assert not torch.allclose(forward, reverse)

# %%
# Use ``detach`` to keep a factor constant. Both modes respect it.


def detached(x):
    return x.sin().sum() * x.square().sum().detach()


for product in recipes.values():
    torch.testing.assert_close(product(detached, (point,), (p,)), constant)

# %%
# Layer norm
# ----------
# torch's forward derivative of layer norm is wrong when it is differentiated again, so reverse over forward returns
# wrong products. Here the test of symmetry finds the fault.

from funcdiff import hvp_reverse_over_forward

norm = torch.nn.LayerNorm(4, dtype=torch.float64).requires_grad_(False)


def cubic(x):
    return (norm(x) ** 3).sum()


torch.testing.assert_close(hvp(cubic, (point,), (p,)), vhp(cubic, (point,), (p,)))
faulty = {**recipes, "hvp_reverse_over_forward": hvp_reverse_over_forward}
for name, product in faulty.items():
    print(f"{name:26} asymmetry {asymmetry(product, cubic, point, p, q):.1e}")
assert asymmetry(hvp_reverse_over_forward, cubic, point, p, q) > 1e-3, (
    "torch has fixed layer norm: update this page"
)

# %%
# A vector of the wrong shape
# ---------------------------
# If you write the product with two calls of ``autograd.grad``, you multiply the gradient by the vector in between. A
# vector of shape (n, 1), such as a column from NumPy, is broadcast there. The result has the right shape and is wrong.


def naive(func, x, v):
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(func(x), x, create_graph=True)
    return torch.autograd.grad((g * v).sum(), x)[0]


torch.testing.assert_close(naive(detached, point, p), constant)
broadcast = naive(detached, point, p[:, None])
assert broadcast.shape == constant.shape
assert not torch.allclose(broadcast, constant)

# %%
# The recipes check the shape and raise an error.

from textwrap import fill

try:
    hvp(detached, (point,), (p[:, None],))
except ValueError as error:
    print(fill(str(error), 84))

# %%
# Takeaway
# --------
# Call ``hvp``. Test symmetry once for a new function, with two random vectors. The exceptions are:
#
# * If the test fails, some derivative is wrong: :func:`funcdiff.check_derivatives` names the operation.
# * If the test passes, the derivative can still be wrong, as with ``no_grad``. Compare with finite differences of the
#   gradient where it matters. ``hvp`` does this for its first result.
