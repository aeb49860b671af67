r"""
Does scipy's Newton method need my Hessian?
===========================================

To minimize a function, Newton's method replaces it by a parabola at the current point and steps to the minimum of this
parabola. With the gradient :math:`g` and the Hessian :math:`H`, the step :math:`d` is the solution of :math:`H d = -g`.
For 192 parameters, :math:`H` is a matrix of 192 by 192 numbers.

You can solve this equation without the matrix. The conjugate gradient method only needs products of :math:`H` with
vectors. If the gradient at the point is already known, a product costs about as much as a second gradient. So SciPy
asks you for a function that computes products. For the number of products, see :ref:`newton-step`.

**Answer:** No. SciPy's methods ``trust-ncg`` and ``Newton-CG`` need only Hessian-vector products: pass a ``hessp`` that
keeps one :func:`funcdiff.hvp_operator` for each point. A single step is ``cg(hvp_operator(f, x), -g)``.

.. code-block:: python

    import functools, torch
    from funcdiff import hvp_operator
    from scipy.optimize import minimize

    operator_at = functools.lru_cache(1)(lambda x: hvp_operator(f, torch.tensor(x)))
    hessp = lambda x, v: operator_at(tuple(x)) @ v  # torch: jvp(grad(f), (x,), (v,))[1]
    minimize(fun, x0, jac=True, hessp=hessp, method="trust-ncg")
"""

# %%
# Use it
# ------
# We tell the handwritten digits 3, 8 and 9 apart. The model is a logistic regression with 3 x 64 = 192 weights. A
# penalty on the weights makes the optimum unique. SciPy computes in float64, so we use float64 too.

from functools import lru_cache, partial

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from torch.func import grad, grad_and_value
from torch.nn.functional import cross_entropy

from funcdiff import hessian, hvp, hvp_operator

images, digits = load_digits(return_X_y=True)
kept = np.isin(digits, [3, 8, 9])
pixels = torch.tensor(images[kept] / 16)
labels = torch.tensor(np.searchsorted([3, 8, 9], digits[kept]))


def loss(weights):
    logits = pixels @ weights.view(3, 64).T
    return cross_entropy(logits, labels) + 5e-5 * weights.square().sum()


# %%
# SciPy calls two functions. The first one returns the value and the gradient, the second one, ``hessp(x, v)``, a
# product. SciPy calls it for many vectors at the same point ``x``. :func:`funcdiff.hvp_operator` computes the gradient
# once, then multiplies all these vectors, also as arrays. ``lru_cache(1)`` keeps the operator until ``x`` changes.

from collections import Counter

calls = Counter()
operator_at = lru_cache(1)(lambda x: hvp_operator(loss, torch.tensor(x)))


def loss_and_gradient(x):
    calls["gradients"] += 1
    gradient, value = grad_and_value(loss)(torch.tensor(x))
    return value.item(), gradient.numpy()


def hessp(x, v):
    calls["products"] += 1
    return operator_at(tuple(x)) @ v  # an array, because v is one


start = np.zeros(192)
found = minimize(loss_and_gradient, start, jac=True, hessp=hessp, method="trust-ncg")
print(f"loss {found.fun:.4f} after {found.nit} steps, {dict(calls)}")

# %%
# On a GPU, move the data and SciPy's vectors there, and return the results with ``.cpu()``.
#
# Check it by hand
# ----------------
# The product has a formula. Let :math:`X` be the matrix of the pixels with :math:`N` rows, :math:`P` the probabilities
# of the classes, and :math:`A = X V^T`. Then the product with a direction :math:`V` is
# :math:`\tfrac{1}{N} D^T X + 10^{-4} V`, where row :math:`i` of :math:`D` is :math:`P_i \circ (A_i - P_i \cdot A_i)`.


def product_by_hand(weights, v):
    p = (pixels @ weights.view(3, 64).T).softmax(1)
    a = pixels @ v.view(3, 64).T
    d = p * (a - (p * a).sum(1, keepdim=True))
    return (d.T @ pixels / len(pixels)).flatten() + 1e-4 * v


torch.manual_seed(0)
weights, v = torch.randn(2, 192, dtype=torch.float64)
expected = product_by_hand(weights, v)
torch.testing.assert_close(hvp_operator(loss, weights)(v), expected)
torch.testing.assert_close(hvp(loss, (weights,), (v,)), expected)

# %%
# Count
# -----
# What does one product cost, compared with a gradient and with the whole Hessian? We count the product in three
# versions: with an operator that is ready, with a new operator, and with ``hvp``.

from funcdiff.measure import compare, count

ready = hvp_operator(loss, weights)
single = {
    "gradient": lambda: grad(loss)(weights),
    "product, operator ready": lambda: ready(v),
    "product, new operator": lambda: hvp_operator(loss, weights)(v),
    "product, hvp": lambda: hvp(loss, (weights,), (v,)),
    "hessian": lambda: hessian(loss)(weights),
}
costs = count(single)
costs

# %%
# Once the operator is ready, a product needs about the FLOPs of a gradient. ``hvp`` needs about twice as many: it
# computes the gradient again. So the operator is better from the second product at a point on, and SciPy asks for
# several. The Hessian of 192 parameters costs as much as 192 products:

costs.claim("product, operator ready", fewer_flops_than="hessian", by=100)

# %%
# Time
# ----
# First we time these single calls.

compare(single, equal=False, rounds=9)

# %%
# Now we compare whole optimizations. BFGS and L-BFGS-B use gradients only. Newton-CG and trust-ncg use ``hessp``.
# ``trust-exact`` uses the whole Hessian. Each method has its own rule when to stop. We chose the settings so that all
# come close to the optimum. In the first section ``trust-ncg`` stopped at SciPy's default, a gradient of 1e-4. Here
# it stops at 1e-7, so it needs more steps and products. Steps near the optimum need the most products.


def full_hessian(x):
    calls["products"] += len(x)
    return hessian(loss)(torch.tensor(x)).numpy()


def solve(method, callback=None, **options):
    known = {name: options.pop(name) for name in ("hess", "hessp") if name in options}
    settings = {"callback": callback, "options": options, **known}
    return minimize(loss_and_gradient, start, jac=True, method=method, **settings)


solvers = {
    "BFGS": partial(solve, "BFGS", gtol=1e-6, maxiter=2000),
    "L-BFGS-B": partial(solve, "L-BFGS-B", gtol=1e-6, ftol=0, maxiter=2000),
    "Newton-CG": partial(solve, "Newton-CG", hessp=hessp, xtol=1e-8),
    "trust-ncg": partial(solve, "trust-ncg", hessp=hessp, gtol=1e-7),
    "trust-exact": partial(solve, "trust-exact", hess=full_hessian, gtol=1e-7),
}

# %%
# All five must reach the same optimum, which we compute first with a tighter tolerance. After each step we note how
# many gradients and products SciPy has asked for. A full Hessian counts as 192 products.

best = solve("trust-exact", hess=full_hessian, gtol=1e-11)


def descent(run):
    calls.clear()
    steps = []

    def note(intermediate_result):
        steps.append((calls.total(), intermediate_result.fun - best.fun))

    found = run(callback=note)
    work, gap = np.array(steps).T
    return found, (work[gap > 1e-12], gap[gap > 1e-12])


curves, total = {}, {}
print(f"{'':12}{'steps':>6}{'gradients':>11}{'products':>10}{'distance':>12}")
for name, run in solvers.items():
    found, curves[name] = descent(run)
    total[name] = calls.total()
    distance = np.linalg.norm(found.x - best.x) / np.linalg.norm(best.x)
    work = f"{found.nit:6}{calls['gradients']:11}{calls['products']:10}"
    print(f"{name:12}{work}{distance:12.1e}")
    assert found.success
    assert distance < 2e-3

# %%
# The last column is the relative distance to the optimum. The figure shows how the loss falls with the work. The table
# under it lists only some of all points.

from funcdiff.plots import plot, plot_curves

least = min(total, key=total.get)
axes = plot_curves(
    curves,
    xlabel="gradients and products so far",
    ylabel="loss above the optimum",
    title=f"{least} needs the fewest gradients and products: {total[least]}",
    log=True,
)
axes.set_xscale("log")

# %%
# The curves of Newton's methods fall steeply at the end. Near the optimum the parabola is a good approximation, so each
# step gains more digits, until rounding stops it. We also count the FLOPs (floating-point operations) of whole runs:

runs = count(solvers)
runs

# %%
# ``trust-ncg`` needs fewer FLOPs than BFGS:

runs.claim("trust-ncg", fewer_flops_than="BFGS")

# %%
# It also needs fewer than ``trust-exact``, which computes whole Hessians:

runs.claim("trust-ncg", fewer_flops_than="trust-exact", by=5)

# %%
# FLOPs in torch are not all of the work, so we also time the whole runs.

times = compare(solvers, rounds=9, budget=0.25, equal=False)
plot(times)

# %%
# The time includes SciPy's own work, such as updating the 192 by 192 matrix of BFGS. Compare ``trust-ncg`` with BFGS:

times.claim("trust-ncg", faster_than="BFGS")

# %%
# With ``trust-exact``:

times.claim("trust-ncg", faster_than="trust-exact")

# %%
# With L-BFGS-B, which stores only a few vectors:

times.claim("trust-ncg", faster_than="L-BFGS-B")

# %%
# Finally, compare the two methods that use products:

times.claim("Newton-CG", faster_than="trust-ncg")

# %%
# What goes wrong
# ---------------
# *You take plain Newton steps.* They lead to any point where the gradient is zero, also to a saddle point. We minimize
# Rosenbrock's function from its usual start. The steps end at a point that is not a minimum, and no error is raised.


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


x = usual = torch.tensor([-1.2, 1.0, -1.2, 1.0], dtype=torch.float64)
for _ in range(30):
    x = x - torch.linalg.solve(hessian(rosenbrock)(x), grad(rosenbrock)(x))

eigenvalues = torch.linalg.eigvalsh(hessian(rosenbrock)(x))
print(f"value {rosenbrock(x):.3f}, gradient {grad(rosenbrock)(x).norm():.1e}")
print("eigenvalues of the Hessian:", *(f"{value:.2f}" for value in eigenvalues))
assert eigenvalues[0] < 0, "Newton's step avoids this saddle: update this section"

# %%
# ``trust-ncg`` notices from its products that the function curves downwards in some direction, and moves along this
# direction. It finds the minimum 0, where all entries are 1.


def product(x, v):
    return hvp(rosenbrock, (torch.tensor(x),), (torch.tensor(v),)).numpy()


found = minimize(
    lambda x: rosenbrock(torch.tensor(x)).item(),
    usual.numpy(),
    jac=lambda x: grad(rosenbrock)(torch.tensor(x)).numpy(),
    hessp=product,
    method="trust-ncg",
    options={"gtol": 1e-8},
)
np.testing.assert_allclose(found.x, 1, rtol=1e-5)
print("minimum at", found.x.round(6))

# %%
# Takeaway
# --------
# Pass ``hessp`` to ``trust-ncg``, and do not compute the Hessian. Keep one operator for each point.
#
# * If the function is convex, as here, compare with ``Newton-CG``, and with L-BFGS-B, which needs no ``hessp``.
# * If you have only a handful of parameters, use ``trust-exact``: the Hessian costs only a handful of products.
# * If your gradients are noisy, as with minibatches, do not use any of these methods.
