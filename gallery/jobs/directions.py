r"""
Which directions does my network care about?
============================================

A classifier has thousands of parameters. In most directions you can move them a little, and the predictions hardly
change. In a few directions they change a lot. You want to find these few.

Take the network :math:`3 w_1 + 4 w_2`, with two parameters and one output. A step along :math:`(3, 4)` changes the
output fastest, and a step along :math:`(4, -3)` does not change it. These are the eigenvectors of :math:`J^T J`, where
:math:`J = (3 \;\; 4)` is the Jacobian. Their eigenvalues are 25 and 0. In general the matrix is :math:`G = J^T B J`,
the Gauss-Newton matrix (GGN), where :math:`B` contains the second derivatives of the loss with respect to the outputs.

**Answer:** Compute the eigenvectors of the Gauss-Newton matrix with the largest eigenvalues. SciPy's ``eigsh`` needs
only products of this matrix with vectors. :func:`funcdiff.gauss_newton_operator` computes them without the matrix.

.. code-block:: python

    from scipy.sparse.linalg import eigsh
    from funcdiff import gauss_newton_operator, module_function, ravel

    predict, parameters = module_function(network)  # predict(parameters, x)
    w, unravel = ravel(parameters)  # all parameters in one vector
    G = gauss_newton_operator(lambda w: predict(unravel(w), x), loss_of_output, w)
    values, directions = eigsh(G, k=10)
"""

# %%
# Use it
# ------
# We train a small classifier of handwritten digits, with 64 pixels as inputs and one output for each digit.

import torch
from sklearn.datasets import load_digits
from torch.nn import Linear, Sequential, Tanh
from torch.nn.functional import cross_entropy

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
images, digits = map(torch.tensor, load_digits(return_X_y=True))
x, y = images[:1200] / 16, digits[:1200]

network = Sequential(Linear(64, 6), Tanh(), Linear(6, 10))
optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
for _ in range(60):  # we stop while it still learns
    optimizer.zero_grad()
    cross_entropy(network(x), y).backward()
    optimizer.step()

# %%
# A direction needs all parameters in one vector ``w``. The operator needs two functions: the outputs of the network as
# a function of ``w``, and the loss as a function of the outputs.

from scipy.sparse.linalg import eigsh

from funcdiff import gauss_newton_operator, module_function, ravel

predict, parameters = module_function(network)
w, unravel = ravel(parameters)


def ggn(w, x=x, y=y):
    def outputs(w):
        return predict(unravel(w), x)

    return gauss_newton_operator(outputs, lambda output: cross_entropy(output, y), w)


G, n = ggn(w), len(w)
values, directions = eigsh(G, k=5)  # ascending values; directions in the columns
print(n, "parameters, five largest eigenvalues:", values.round(3))

# %%
# Does the network care about these directions? We step along the one with the largest eigenvalue, and as far along a
# random one. We print how much the probabilities of the digits change on average.


def probabilities(w):
    return predict(unravel(w), x).softmax(1)


v, first = torch.randn(n), torch.tensor(directions[:, -1])
for name, direction in {"first": first, "random": v / v.norm()}.items():
    change = (probabilities(w + 0.5 * direction) - probabilities(w)).abs().mean()
    print(f"{name} direction: {change:.4f}")

# %%
# The change along the first direction is much larger. ``unravel(first)`` shows it by parameter, as a dictionary.
#
# Why not the Hessian?
# --------------------
# The Hessian :math:`H` of the loss also contains the second derivatives of the network itself. They can make its
# eigenvalues negative. :func:`funcdiff.hvp_operator` multiplies by it. This network is small, so we can compute all
# eigenvalues of both matrices and draw them.

import numpy as np

from funcdiff import hvp_operator
from funcdiff.plots import plot, plot_curves


def loss(w):
    return cross_entropy(predict(unravel(w), x), y)


H = hvp_operator(loss, w)
matrices = {"GGN": G @ torch.eye(n), "Hessian": H @ torch.eye(n)}
spectra = {name: torch.linalg.eigvalsh(matrix) for name, matrix in matrices.items()}
rounding = 1e-12 * spectra["GGN"][-1]
negative = (spectra["Hessian"] < -rounding).sum()
assert spectra["GGN"][0] > -rounding
title = f"{negative} of {n} eigenvalues of the Hessian are negative, none of the GGN"
curves = {name: (np.arange(1, n + 1), spectrum) for name, spectrum in spectra.items()}
axes = plot_curves(curves, xlabel="rank", ylabel="eigenvalue", title=title)
axes.set_yscale("symlog", linthresh=1e-3)
shares = spectra["GGN"].flip(0).cumsum(0) / spectra["GGN"].sum()
print((shares < 0.9).sum().item() + 1, "of", n, "directions have 90% of the sum")

# %%
# On the right, each matrix has a few large eigenvalues. On the left, the Hessian has negative ones, and the GGN zeros.
#
# For a large network, estimate the trace, the sum of all eigenvalues, from products with random vectors. The error bar
# contains the exact value in at least about 95 of 100 cases.

from funcdiff import over_batches, trace_estimate

estimate = trace_estimate(G, tolerance=0.05, generator=torch.Generator().manual_seed(0))
exact = matrices["GGN"].trace()
found = f"{estimate.value:.2f} ± {estimate.error:.2f}"
print(f"trace {found} from {estimate.products} products, exact {exact:.2f} from {n}")

# %%
# If your data do not fit in memory, :func:`funcdiff.over_batches` makes the same operator from a data loader.

from torch.utils.data import DataLoader, TensorDataset

loader = DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True)
batches = over_batches(lambda x, y: ggn(w, x, y), loader)
torch.testing.assert_close(batches @ v, G @ v)

# %%
# Check it by hand
# ----------------
# For the cross-entropy, the matrix :math:`B` of an image is :math:`\mathrm{diag}(p) - p p^T`, where :math:`p` contains
# the probabilities of the digits. We compute the Jacobian :math:`J` for 50 images and multiply the three matrices.

from funcdiff import fisher_operator, jacobian

few = x[:50]
J = jacobian(lambda w: predict(unravel(w), few))(w)  # image, digit, parameter
p = predict(unravel(w), few).softmax(1)
B = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
by_hand = (J.mT @ B @ J).mean(0)
torch.testing.assert_close(ggn(w, few, y[:50]) @ torch.eye(n), by_hand)

# %%
# For the cross-entropy, the GGN is also the Fisher matrix, of the mean over rows: for a step :math:`s`, the
# Kullback-Leibler divergence, a distance of the old and the new probabilities, is about :math:`s^T G s / 2`.

fisher = fisher_operator(lambda w: predict(unravel(w), x), w, likelihood="categorical")
torch.testing.assert_close(fisher @ v / len(x), G @ v)
s, p = 0.03 * first, probabilities(w)
divergence = (p * (p / probabilities(w + s)).log()).sum(1).mean()
predicted = s @ (G @ s) / 2
print(f"divergence {divergence:.2e}, predicted {predicted:.2e}")
torch.testing.assert_close(divergence, predicted, rtol=0.1, atol=0)

# %%
# Count
# -----
# We count a gradient, one product of each kind, and the whole GGN. A *new operator* is made for one product.

from torch.func import grad, grad_and_value

from funcdiff.measure import compare, count

single = {
    "gradient": lambda: grad(loss)(w),
    "GGN product": lambda: G @ v,
    "GGN, new operator": lambda: ggn(w) @ v,
    "GGN, over batches": lambda: batches @ v,
    "Hessian product": lambda: H @ v,
    "whole GGN": lambda: G @ torch.eye(n),
}
costs = count(single)
costs

# %%
# The whole matrix needs one product for each parameter. The :term:`peak` is the largest amount of memory in use. With
# ``over_batches`` it contains one batch at a time:

costs.claim("GGN, over batches", smaller_peak_than="GGN, new operator")

# %%
# Time
# ----
# We time the same calls.

times = compare(single, equal=False, rounds=8, budget=1)
plot(times, title=times.claim("GGN product", faster_than="whole GGN").finding)

# %%
# The first product of a new operator takes longer, because the operator evaluates the network when it is made. Compare
# the products of the two operators that already exist:

times.claim("GGN product", faster_than="Hessian product")

# %%
# Steps by Gauss-Newton
# ---------------------
# You can also train with the GGN. A step :math:`s` solves :math:`(G + \delta I) s = -g`, where :math:`g` is the
# gradient. The damping :math:`\delta` keeps the steps short. It decreases if the loss falls as much as :math:`G`
# predicts, and increases otherwise. SciPy's ``cg`` solves the equation from products with ``G.damped(delta)``.

from scipy.sparse.linalg import cg


def gauss_newton(w, steps, damping=1.0):
    points, work = [], 0
    for _ in range(steps):
        gradient, value = grad_and_value(loss)(w)
        product, rounds = ggn(w), []  # cg calls rounds.append once a product
        options = {"rtol": 0.01, "maxiter": 15, "callback": rounds.append}
        s = torch.tensor(cg(product.damped(damping), -gradient.numpy(), **options)[0])
        predicted = -(gradient @ s + s @ (product @ s) / 2)
        gain = (value - loss(w + s)) / predicted
        w = w + s if gain > 0 else w
        damping *= 0.5 if gain > 0.75 else 2 if gain < 0.25 else 1
        points.append((work := work + 1 + len(rounds), loss(w).item()))
    return np.array(points).T


# %%
# We take 25 of these steps from new random parameters, and count gradients and products. Adam gets as many gradients,
# with three learning rates.

for layer in network[::2]:
    layer.reset_parameters()
start, _ = ravel(module_function(network)[1])
curve = gauss_newton(start, 25)
work, curves = int(curve[0, -1]), {"Gauss-Newton": curve}
for rate in (0.01, 0.03, 0.1):
    point, losses = start.clone().requires_grad_(), []
    optimizer = torch.optim.Adam([point], lr=rate)
    for _ in range(work):
        optimizer.zero_grad()
        losses.append(loss(point))
        losses[-1].backward()
        optimizer.step()
    curves[f"Adam, {rate}"] = np.arange(1, work + 1), [value.item() for value in losses]
best = min(curves, key=lambda name: curves[name][1][-1])
title = f"{best} has the lowest loss after equal work: {curves[best][1][-1]:.1e}"
work_done = "gradients and products so far"
axes = plot_curves(curves, xlabel=work_done, ylabel="loss", title=title, log=True)
assert best == "Gauss-Newton"
early = work // 5
adam, newton = curves["Adam, 0.1"][1][early], np.interp(early, *curve)
print(f"after {early}: Adam, 0.1 has {adam:.1e}, Gauss-Newton {newton:.1e}")
assert adam < newton

# %%
# Adam is ahead at first. In the end, Gauss-Newton has the lowest loss, and it has no learning rate to choose.
#
# What goes wrong
# ---------------
# *You take a Newton step with the Hessian.* It solves :math:`H s = -g`. Along an eigenvector with a negative
# eigenvalue, this step goes uphill, and no error is raised.

(lowest,), vector = eigsh(H, k=1, which="SA")
gradient, u = grad(loss)(w), torch.tensor(vector[:, 0])
part = -(gradient @ u) / lowest * u
print(f"loss before this part: {loss(w):.6f}, after it: {loss(w + part):.6f}")
assert lowest < 0 < gradient @ part

# %%
# *You use the "empirical Fisher",* the mean of :math:`g g^T` with the gradients :math:`g` at the true labels. It
# becomes zero if the network fits the data. The Fisher matrix averages over labels that the network predicts.

rows = jacobian(lambda w: cross_entropy(predict(unravel(w), x), y, reduction="none"))
squares = rows(w).T @ rows(w) / len(x)
gap = (squares - matrices["GGN"]).norm() / matrices["GGN"].norm()
print(f"trace {squares.trace():.2f}, not {exact:.2f}; relative difference {gap:.0%}")
assert gap > 0.3

# %%
# *You average over batches of different sizes.* The plain mean gives the last, smaller batch too much weight.

plain = sum(ggn(w, *batch) @ v for batch in loader) / len(loader)
wrong = (plain - G @ v).norm() / (G @ v).norm()
print(f"relative error of the plain mean: {wrong:.1%}")
assert wrong > 1e-3

# %%
# Takeaway
# --------
# The predictions depend on the GGN's eigenvectors with large eigenvalues. For a precise minimum, train with the GGN.
#
# * If you ask whether the loss has reached a minimum, use :func:`funcdiff.hvp_operator`: the GGN curves only upwards.
# * If a rough fit is enough, use Adam.
# * If your loss is not convex in the output, the GGN can have negative eigenvalues too.
