r"""
Does scipy's Newton method need my Hessian?
===========================================

BFGS learns the curvature from gradients, one a step, and so takes many steps. Newton's method uses the curvature
itself and takes few, but :math:`n` parameters have a Hessian of :math:`n^2` entries.

**Answer:** no. ``Newton-CG`` and ``trust-ncg`` solve for their step from products alone: give them ``hessp`` from
:func:`funcdiff.hvp_operator`, built once for each point.
"""

# %%
# The function
# ------------
# Logistic regression that tells the handwritten digits 3, 8 and 9 apart, from 64 pixels each: 192 weights. The
# penalty makes the optimum unique. SciPy computes in float64, so our data are float64 too. For a GPU, move them
# there, and each vector that scipy hands over; ``.cpu()`` takes the answers back.

from collections import Counter
from functools import lru_cache, partial

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from torch.func import grad, grad_and_value
from torch.nn.functional import cross_entropy

images, digits = load_digits(return_X_y=True)
kept = np.isin(digits, [3, 8, 9])
pixels = torch.tensor(images[kept] / 16)
labels = torch.tensor(np.searchsorted([3, 8, 9], digits[kept]))


def loss(weights):
    """Mean cross-entropy and a penalty, of a vector of weights."""
    return cross_entropy(pixels @ weights.view(3, 64).T, labels) + 5e-5 * weights.square().sum()


# %%
# By hand
# -------
# Newton's step :math:`p` solves :math:`H p = -g`. The method of conjugate gradients solves it from products
# :math:`H v` alone. With pixels :math:`X` of :math:`N` rows and probabilities :math:`P` of the classes, the product
# along a direction :math:`V` is :math:`\tfrac{1}{N} D^T X + 10^{-4} V`, where :math:`A = X V^T` and row :math:`i` of
# :math:`D` is :math:`P_i \circ (A_i - P_i \cdot A_i)`.


def product_by_hand(weights, v):
    p = (pixels @ weights.view(3, 64).T).softmax(1)
    a = pixels @ v.view(3, 64).T
    d = p * (a - (p * a).sum(1, keepdim=True))
    return (d.T @ pixels / len(pixels)).flatten() + 1e-4 * v


# %%
# The recipe
# ----------
# ``hvp_operator`` builds the graph of the gradient once, for all products at one point.

from funcdiff import hessian_forward_over_reverse, hvp_operator

torch.manual_seed(0)
weights, v = torch.randn(2, 192, dtype=torch.float64)
torch.testing.assert_close(hvp_operator(loss, weights)(v), product_by_hand(weights, v))

# %%
# SciPy passes the point with each product. Many products share a point, so we keep the last operator. ``calls``
# counts what is asked of torch.

calls = Counter()


def loss_and_gradient(x):
    calls["gradients"] += 1
    slope, value = grad_and_value(loss)(torch.tensor(x))
    return value.item(), slope.numpy()


@lru_cache(maxsize=1)
def operator_at(point):
    return hvp_operator(loss, torch.frombuffer(bytearray(point), dtype=torch.float64))


def product(x, v):
    calls["products"] += 1
    return operator_at(x.tobytes())(torch.tensor(v)).numpy()


# %%
# Four methods without the Hessian, and one with all of it. SciPy's own tests for the end differ from method to
# method; these settings bring each within the distance that we check below.


def full_hessian(x):
    calls["products"] += len(x)
    return hessian_forward_over_reverse(loss)(torch.tensor(x)).numpy()


def solve(method, callback=None, options=None, **curvature):
    start = np.zeros(192)
    return minimize(loss_and_gradient, start, method=method, jac=True, callback=callback, options=options, **curvature)


solvers = {
    "BFGS": partial(solve, "BFGS", options={"gtol": 1e-6, "maxiter": 2000}),
    "L-BFGS-B": partial(solve, "L-BFGS-B", options={"gtol": 1e-6, "ftol": 0, "maxiter": 2000}),
    "Newton-CG": partial(solve, "Newton-CG", hessp=product, options={"xtol": 1e-8}),
    "trust-ncg": partial(solve, "trust-ncg", hessp=product, options={"gtol": 1e-7}),
    "trust-exact": partial(solve, "trust-exact", hess=full_hessian, options={"gtol": 1e-7}),
}

# %%
# Prediction
# ----------
# A product costs about a gradient; the Hessian is 192 products. Counted at one point:

from funcdiff.measure import compare, count

ready = hvp_operator(loss, weights)
costs = count(
    {
        "gradient": lambda: grad(loss)(weights),
        "product, operator built": lambda: ready(v),
        "product, operator built anew": lambda: hvp_operator(loss, weights)(v),
        "Hessian": lambda: hessian_forward_over_reverse(loss)(weights),
    }
)
costs

# %%
costs.claim("product, operator built", fewer_flops_than="Hessian", by=100)

# %%
# Measurement
# -----------
# All five must reach the same optimum. We take it from the full Hessian, at a tighter tolerance, and note after each
# step what was asked of torch so far. ``trust-exact`` takes the Hessian as 192 products.

best = solve("trust-exact", hess=full_hessian, options={"gtol": 1e-11})


def descent(run):
    """The result, and after each step the number of gradients and products and the loss above the optimum."""
    calls.clear()
    steps = []

    def note(intermediate_result):
        steps.append((calls.total(), intermediate_result.fun - best.fun))

    found = run(callback=note)
    work, gap = np.array(steps).T
    return found, (work[gap > 1e-12], gap[gap > 1e-12])


curves = {}
print(f"{'':12}{'steps':>6}{'gradients':>11}{'products':>10}{'distance to the optimum':>25}")
for name, run in solvers.items():
    found, curves[name] = descent(run)
    distance = np.linalg.norm(found.x - best.x) / np.linalg.norm(best.x)
    print(f"{name:12}{found.nit:6}{calls['gradients']:11}{calls['products']:10}{distance:25.1e}")
    assert found.success
    assert distance < 2e-3

# %%
from funcdiff.plots import plot, plot_curves

axes = plot_curves(
    curves,
    xlabel="gradients and products so far",
    ylabel="loss above the optimum",
    title="With products, the loss falls steeply at the end",
    log=True,
)
axes.set_xscale("log")

# %%
# The arithmetic in torch of each whole run, counted. What BFGS does in NumPy with its own :math:`n \times n` matrix
# comes on top, and so do the solves of ``trust-exact``.

runs = count(solvers)
runs

# %%
runs.claim("Newton-CG", fewer_flops_than="BFGS")

# %%
runs.claim("Newton-CG", fewer_flops_than="trust-exact")

# %%
# The clock sees all of it. The results agree within the distance checked above, not to the last digit, hence
# ``equal=False``.

times = compare(solvers, rounds=9, budget=0.25, equal=False)
times

# %%
times.claim("Newton-CG", faster_than="BFGS")

# %%
times.claim("Newton-CG", faster_than="trust-exact")

# %%
times.claim("Newton-CG", faster_than="L-BFGS-B")

# %%
plot(times, title="Time to the optimum of a logistic regression in 192 weights")

# %%
# What breaks
# -----------
# Newton's step leads to any point where the gradient is zero, also to a saddle. On Rosenbrock's function, from its
# customary start, the plain step stops at a point that is no minimum, and nothing is raised.


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


hessian = hessian_forward_over_reverse(rosenbrock)
start = torch.tensor([-1.2, 1.0, -1.2, 1.0], dtype=torch.float64)
x = start
for _ in range(30):
    x = x - torch.linalg.solve(hessian(x), grad(rosenbrock)(x))

print("value:", rosenbrock(x).item(), "gradient:", grad(rosenbrock)(x).norm().item())
print("curvatures:", torch.linalg.eigvalsh(hessian(x)).tolist())
assert torch.linalg.eigvalsh(hessian(x))[0] < 0, "Newton's step avoids this saddle: update the section 'What breaks'"

# %%
# ``trust-ncg`` notices negative curvature in its products and turns along it. The minimum is 0, where all entries
# are 1.

found = minimize(
    lambda x: rosenbrock(torch.tensor(x)).item(),
    start.numpy(),
    jac=lambda x: grad(rosenbrock)(torch.tensor(x)).numpy(),
    hessp=lambda x, v: hvp_operator(rosenbrock, torch.tensor(x))(torch.tensor(v)).numpy(),
    method="trust-ncg",
    options={"gtol": 1e-8},
)
np.testing.assert_allclose(found.x, 1, rtol=1e-5)

# %%
# Takeaway
# --------
# Hand scipy ``hessp``, with one operator a point, and never form the Hessian; take ``trust-ncg`` where curvature may
# be negative. The exceptions: with a handful of parameters the Hessian is a handful of products, and ``trust-exact``
# makes the most of it; with noisy gradients, as from mini-batches, no method of this page applies.
