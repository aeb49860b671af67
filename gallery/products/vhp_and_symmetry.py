r"""
Is a vector-Hessian product the same as a Hessian-vector product?
=================================================================

:math:`v^T H` costs two reverse passes and needs no forward formulas; :math:`Hv` is what an optimiser asks for. Where
:math:`H` is symmetric they are one, and the cheaper stands in for the other. Where it is not, one of them is wrong,
and a single product cannot tell.

**Answer:** yes, for every function with continuous second derivatives whose derivatives torch takes rightly.
:func:`funcdiff.vhp` and :func:`funcdiff.hvp_forward_over_reverse` on the same vector: if they differ, trust neither.
"""

# %%
# The function
# ------------
# A quadratic and a cubic, :math:`f(x) = x^T A x + \sum_i c_i x_i^3`, with an :math:`A` that is not symmetric. Its
# Hessian is nevertheless: :math:`H = A + A^T + 6 \operatorname{diag}(c x)`.

import torch
from torch.func import grad, vjp

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
n = 512
A = torch.randn(n, n, dtype=torch.float64, device=device)
c, x, v, w = torch.randn(4, n, dtype=torch.float64, device=device)


def function(x):
    return x @ A @ x + (c * x**3).sum()


def by_formula(v):
    return A @ v + A.T @ v + 6 * c * x * v


# %%
# By hand
# -------
# The gradient is a function from :math:`R^n` to :math:`R^n`, and :math:`H` is its Jacobian. A pull-back through it
# gives :math:`v^T H`, and by Schwarz's theorem, :math:`\partial_i \partial_j f = \partial_j \partial_i f`, that is
# :math:`Hv`.

_, pull_back = vjp(grad(function), x)
(by_hand,) = pull_back(v)
torch.testing.assert_close(by_hand, by_formula(v))

# %%
# The recipes
# -----------
# They have the same arguments and the same shapes, of any number of axes: with a point of shape (2, 256) the product
# has that shape too, where :math:`v^T` and :math:`v` would mean two different things.

from funcdiff import hvp_forward_over_reverse, hvp_reverse_over_forward, vhp

torch.testing.assert_close(vhp(function, (x,), (v,)), by_formula(v))
torch.testing.assert_close(hvp_forward_over_reverse(function, (x,), (v,)), by_formula(v))


def of_matrix(x):
    return function(x.reshape(-1))


folded = vhp(of_matrix, (x.view(2, 256),), (v.view(2, 256),))
torch.testing.assert_close(folded, by_formula(v).view(2, 256))

# %%
# Of two arguments the products are a tuple, all blocks taken: the first is :math:`H_{aa} v_a + H_{ab} v_b`. Here
# :math:`f(a, b) = (a \cdot b)^2 / 2`, whose second derivatives are :math:`b b^T` and :math:`a b^T + (a \cdot b) I`.

a, b, va, vb = torch.randn(4, 3, dtype=torch.float64)
by_a, by_b = vhp(lambda a, b: (a @ b) ** 2 / 2, (a, b), (va, vb))
torch.testing.assert_close(by_a, b * (b @ va) + b * (a @ vb) + (a @ b) * vb)
torch.testing.assert_close(by_b, a * (b @ va) + a * (a @ vb) + (a @ b) * va)

# %%
# Prediction
# ----------
# The forward product multiplies by the tangent of the constant :math:`A` as well, which is zero; the reverse product
# does not.

from funcdiff.measure import compare, count
from funcdiff.plots import plot

ways = {
    "vhp": lambda x, v: vhp(function, (x,), (v,)),
    "hvp_forward_over_reverse": lambda x, v: hvp_forward_over_reverse(function, (x,), (v,)),
}
costs = count(ways, x, v)
costs

# %%
costs.claim("vhp", fewer_flops_than="hvp_forward_over_reverse")

# %%
# Measurement
# -----------
# ``compare`` sees to it that the two agree before it times them.

times = compare(ways, x, v, rounds=15)
times

# %%
times.claim("vhp", faster_than="hvp_forward_over_reverse")

# %%
plot(times, title="The same product from the left and from the right")

# %%
# A test for symmetry that needs no matrix
# ----------------------------------------
# Two random vectors: :math:`w^T (H v) = v^T (H w)`. Symmetric functions pass to rounding.


def asymmetry(product, func, x, v, w):
    """The difference of w . Hv and v . Hw, relative to the two."""
    left, right = w.flatten() @ product(func, (x,), (v,)).flatten(), v.flatten() @ product(func, (x,), (w,)).flatten()
    return float((left - right).abs() / (left.abs() + right.abs()))


for product in (vhp, hvp_forward_over_reverse, hvp_reverse_over_forward):
    assert asymmetry(product, function, x, v, w) < 1e-8

# %%
# Where symmetry fails: no_grad
# -----------------------------
# A factor computed under ``no_grad`` is meant as a constant. Reverse mode takes it so; forward mode ignores
# ``no_grad``. Products that mix the modes are then of no symmetric matrix, and of nobody's function.


def half_constant(x):
    with torch.no_grad():
        scale = x.square().sum()
    return x.sin().sum() * scale


point, p, q = torch.randn(3, 4, dtype=torch.float64)
constant = -point.sin() * point.square().sum() * p
torch.testing.assert_close(vhp(half_constant, (point,), (p,)), constant)
mixed = hvp_forward_over_reverse(half_constant, (point,), (p,))
print("vhp:", constant, "\nhvp:", mixed)
assert not torch.allclose(mixed, constant), "forward mode now respects no_grad: update this section"
print("asymmetry:", asymmetry(hvp_forward_over_reverse, half_constant, point, p, q))
assert asymmetry(hvp_forward_over_reverse, half_constant, point, p, q) > 1e-3

# %%
# A symmetric matrix is no proof either. Both modes unmixed give one, each of another function:

from funcdiff import hessian_forward_over_forward, hessian_reverse_over_reverse

forward, reverse = (h(half_constant)(point) for h in (hessian_forward_over_forward, hessian_reverse_over_reverse))
torch.testing.assert_close(forward, forward.T)
torch.testing.assert_close(reverse, reverse.T)
assert not torch.allclose(forward, reverse)

# %%
# ``detach`` is respected by both modes, and says the same.


def detached(x):
    return x.sin().sum() * x.square().sum().detach()


for product in (vhp, hvp_forward_over_reverse, hvp_reverse_over_forward):
    torch.testing.assert_close(product(detached, (point,), (p,)), constant)

# %%
# Where symmetry fails: layer norm
# --------------------------------
# torch differentiates the forward derivative of layer norm wrongly, so reverse over forward is off. The test for
# symmetry gives it away; the two compositions with reverse mode inside agree.

norm = torch.nn.LayerNorm(4, dtype=torch.float64).requires_grad_(False)


def cubic(x):
    return (norm(x) ** 3).sum()


torch.testing.assert_close(vhp(cubic, (point,), (p,)), hvp_forward_over_reverse(cubic, (point,), (p,)))
for product in (vhp, hvp_forward_over_reverse, hvp_reverse_over_forward):
    print(f"{product.__name__:26} asymmetry {asymmetry(product, cubic, point, p, q):.1e}")
assert asymmetry(hvp_reverse_over_forward, cubic, point, p, q) > 1e-3, "torch has mended layer norm: update this page"

# %%
# What breaks
# -----------
# A product written with two calls of ``autograd.grad`` contracts gradient and vector by ``(g * v).sum()``. A vector of
# shape (n, 1), as a column comes out of NumPy, broadcasts there: the result has the right shape and is wrong.


def naive(func, x, v):
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(func(x), x, create_graph=True)
    return torch.autograd.grad((g * v).sum(), x)[0]


torch.testing.assert_close(naive(detached, point, p), constant)
broadcast = naive(detached, point, p[:, None])
assert broadcast.shape == constant.shape
assert not torch.allclose(broadcast, constant)
try:
    vhp(detached, (point,), (p[:, None],))
except ValueError as error:
    print("ValueError --", error)

# %%
# Takeaway
# --------
# Use either, and prefer the one that costs less on your function. Test symmetry once, with two random vectors, on a
# new function. The exception: symmetry is necessary, not sufficient. The two unmixed Hessians of the function with
# ``no_grad`` show it, so where it matters hold a product against differences of the gradient too.
