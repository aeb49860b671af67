r"""
Is a vector-Hessian product the same as a Hessian-vector product?
=================================================================

You can multiply a Hessian by a vector from the right, :math:`Hv`, or from the left, :math:`v^T H`. Take
:math:`f(x) = x_0^2 x_1` at :math:`(3, 2)`, where

.. math::

    H = \begin{pmatrix} 4 & 6 \\ 6 & 0 \end{pmatrix}, \qquad v = (1, 0).

Both products are :math:`(4, 6)`, because the matrix is symmetric. Hessians are symmetric: the order of two derivatives
does not matter, :math:`\partial_i \partial_j f = \partial_j \partial_i f`.

torch can compute the two products differently, and neither of them needs the matrix. For :math:`Hv`, forward mode
follows how the gradient changes if :math:`x` moves in the direction :math:`v`. For :math:`v^T H`, torch goes backward
through the gradient. Each product costs about as much as two or three gradients. If one of torch's formulas is wrong,
the results can differ. So compare both ways to test torch: :func:`funcdiff.hvp_forward_over_reverse` and ``vhp``.

**Answer:** Yes, if the function has continuous second derivatives and torch's derivatives are right. So call
:func:`funcdiff.hvp`. It usually goes backward through the gradient, too, and it checks its first result.

.. code-block:: python

    import torch
    from funcdiff import hvp, vhp

    x, v = torch.tensor([3.0, 2.0]), torch.tensor([1.0, 0.0])
    f = lambda x: x[0] ** 2 * x[1]
    print(hvp(f, (x,), (v,)), vhp(f, (x,), (v,)))  # tensor([4., 6.]) twice
    Hv = torch.func.jvp(torch.func.grad(f), (x,), (v,))[1]  # in torch alone
    vH = torch.func.vjp(torch.func.grad(f), x)[1](v)[0]
"""

# %%
# Use it
# ------
# Our function is :math:`f(x) = x^T A x + \sum_i c_i x_i^3`. The matrix :math:`A` is not symmetric. We compute both
# products. They have the shape of ``x`` and must agree.

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
# The arguments are tuples, as for :func:`torch.func.jvp`: first the points (:term:`primals <primal>`), then the vectors
# (:term:`tangents <tangent>`). The printed word is the :term:`recipe` (the method) that ``hvp`` chose.
#
# Check it by hand
# ----------------
# The Hessian is :math:`H = A + A^T + 6 \operatorname{diag}(c x)`. It is symmetric, although :math:`A` is not.


def by_formula(v):
    return A @ v + A.T @ v + 6 * c * x * v


torch.testing.assert_close(Hv, by_formula(v))

# %%
# In torch alone you need two functions. The Hessian is the Jacobian of the gradient. ``jvp`` multiplies a Jacobian by a
# vector from the right (a :term:`JVP`), and ``vjp`` from the left (a :term:`VJP`).

from torch.func import grad, jvp, vjp

_, from_the_right = jvp(grad(function), (x,), (v,))
_, pull_back = vjp(grad(function), x)
(from_the_left,) = pull_back(v)
torch.testing.assert_close(from_the_right, by_formula(v))
torch.testing.assert_close(from_the_left, by_formula(v))

# %%
# The input can have several axes, here (2, 256). The product then has the same shape.


def of_matrix(x):
    return function(x.reshape(-1))


folded = hvp(of_matrix, (x.view(2, 256),), (v.view(2, 256),))
torch.testing.assert_close(folded, by_formula(v).view(2, 256))

# %%
# If the function has two arguments :math:`a` and :math:`b`, you pass a vector for each and get a product for each. The
# first product is :math:`H_{aa} v_a + H_{ab} v_b`. We check this for :math:`f(a, b) = (a \cdot b)^2 / 2`, with
# :math:`H_{aa} = b b^T` and :math:`H_{ab} = b a^T + (a \cdot b) I`.


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
# All these methods return the same vector, but their costs differ. :term:`Forward mode <forward mode>`, as in
# ``hvp_forward_over_reverse``, computes how each intermediate result changes. The matrix :math:`A` does not change, yet
# torch multiplies by its zero change. :term:`Reverse mode <reverse mode>` leaves this product out.

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
# ``compare`` first checks that all results agree, and then times the methods.

times = compare(methods, x, v, rounds=15)
times

# %%
# The ratio is the time divided by that of the fastest method. Forward over reverse needs more FLOPs, and starts more
# operations, so we expect it to take longer:

times.claim("hvp", faster_than="hvp_forward_over_reverse")

# %%
# The same times as a figure:

ratio = times.ratio("hvp_forward_over_reverse", "hvp").median
title = f"The same product: forward over reverse takes {ratio:.1f}× as long as hvp"
plot(times, title=title)

# %%
# The bars show the quartiles of the times. If two bars overlap, the difference is small.
#
# Test symmetry without the matrix
# --------------------------------
# A large Hessian does not fit in memory, but two products are enough for a test. Take two random vectors :math:`v` and
# :math:`w`. If :math:`H` is symmetric, :math:`w^T (H v)` and :math:`v^T (H w)` are equal. The function below returns
# the relative difference of these two numbers.


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
# *A factor is computed under* ``no_grad``. You mean it to be constant. Reverse mode treats it as a constant, but
# forward mode ignores ``no_grad`` and differentiates it. ``hvp_forward_over_reverse`` uses both modes. Its matrix is
# then not symmetric, and torch raises no error.


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
# The test does not find every fault. Here, forward over forward and reverse over reverse both give a symmetric matrix,
# but the two matrices differ.

from funcdiff import hessian_forward_over_forward, hessian_reverse_over_reverse

forward = hessian_forward_over_forward(half_constant)(point)
reverse = hessian_reverse_over_reverse(half_constant)(point)
torch.testing.assert_close(forward, forward.T)
torch.testing.assert_close(reverse, reverse.T)
assert not torch.allclose(forward, reverse)

# %%
# Use ``detach`` to make a factor constant. Both modes respect it.


def detached(x):
    return x.sin().sum() * x.square().sum().detach()


for product in recipes.values():
    torch.testing.assert_close(product(detached, (point,), (p,)), constant)

# %%
# Layer norm
# ----------
# torch's forward derivative of layer norm is wrong if you differentiate it again. So reverse over forward returns wrong
# products, and the test of symmetry finds it.

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
# You can also write the product yourself with two calls of ``autograd.grad``. Between them you multiply the gradient by
# the vector. Suppose the vector has the shape (n, 1), like a column from NumPy. Then torch broadcasts the product to
# (n, n). The final result has the right shape, but its numbers are wrong, and no error is raised.


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
# Call ``hvp``. For a new function, test the symmetry once with two random vectors. The exceptions are:
#
# * If the test fails, the two modes differ: by a wrong formula, or by a constant such as ``no_grad``.
#   :func:`funcdiff.check_derivatives` names what it is. It calls a constant an error, even if you intend it.
# * If the test passes, the derivative can still be wrong. ``hvp`` compares its first result with finite differences of
#   the gradient, in which what you detach or compute under ``no_grad`` stays constant.
