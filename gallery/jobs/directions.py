r"""
Which directions does my network care about?
============================================

A classifier has thousands of parameters. In most directions you can move them a little, and the predictions hardly
change. In a few directions they change a lot. You want to find these few.

They are eigenvectors with large eigenvalues, but of which matrix? The Hessian of the loss also contains the second
derivatives of the network itself, and these make some of its eigenvalues negative. The Gauss-Newton matrix leaves them
out. It is :math:`G = J^T H J`, with the Jacobian :math:`J` of the network and the Hessian :math:`H` of the loss with
respect to the network's output.

**Answer:** The eigenvectors of the Gauss-Newton matrix (GGN) with the largest eigenvalues. SciPy's ``eigsh`` finds them
from products, and :func:`funcdiff.gauss_newton_operator` multiplies by this matrix without computing it.

.. code-block:: python

    from funcdiff import gauss_newton_operator, module_function, ravel

    predict, parameters = module_function(network)  # predict(parameters, x)
    w, unravel = ravel(parameters)  # all parameters as one vector
    G = gauss_newton_operator(lambda w: predict(unravel(w), x), loss_of_output, w)
    values, directions = scipy.sparse.linalg.eigsh(G, k=10)
"""

# %%
# Use it
# ------
# We train a small classifier of handwritten digits with Adam, in float64. We stop while it still learns.

from functools import partial

import numpy as np
import torch
from scipy.sparse.linalg import cg, eigsh
from sklearn.datasets import load_digits
from torch.func import grad, grad_and_value
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from funcdiff import gauss_newton_operator, hvp_operator, module_function, ravel

torch.set_default_dtype(torch.float64)
images, digits = load_digits(return_X_y=True)
pixels, labels = torch.tensor(images / 16).split(1200), torch.tensor(digits).split(1200)
x, y = pixels[0], labels[0]

torch.manual_seed(0)
layers = torch.nn.Linear(64, 6), torch.nn.Tanh(), torch.nn.Linear(6, 10)
predict, parameters = module_function(torch.nn.Sequential(*layers))
start, unravel = ravel(parameters)


# %%
# The loss takes one vector that contains all parameters.


def loss(w, x=x, y=y):
    return cross_entropy(predict(unravel(w), x), y)


def adam(steps, rate):
    w, losses = start.clone().requires_grad_(), []
    optimizer = torch.optim.Adam([w], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        losses.append(loss(w))
        losses[-1].backward()
        optimizer.step()
    return w.detach(), [value.item() for value in losses]


def accuracy(w):
    return (predict(unravel(w), pixels[1]).argmax(1) == labels[1]).double().mean()


w, n = adam(60, rate=0.02)[0], len(start)
print(f"{n} parameters, loss {loss(w):.3f}, accuracy {accuracy(w):.1%} on other images")

# %%
# We make an operator for each matrix, and compute its five largest eigenvalues from products alone.


def ggn(w, x=x, y=y):
    loss_of_output = partial(cross_entropy, target=y)
    return gauss_newton_operator(lambda w: predict(unravel(w), x), loss_of_output, w)


G, H = ggn(w), hvp_operator(loss, w)
print("GGN:    ", eigsh(G, k=5)[0].round(3))
print("Hessian:", eigsh(H, k=5, which="LA")[0].round(3))

# %%
# This network is small, so we can compute all eigenvalues of both matrices and draw them.

from funcdiff.plots import plot, plot_curves

matrices = {"GGN": G @ torch.eye(n), "Hessian": H @ torch.eye(n)}
spectra = {name: torch.linalg.eigvalsh(matrix) for name, matrix in matrices.items()}
rounding = 1e-12 * spectra["GGN"][-1]
negative = (spectra["Hessian"] < -rounding).sum()
assert spectra["GGN"][0] > -rounding
axes = plot_curves(
    {name: (np.arange(1, n + 1), spectrum) for name, spectrum in spectra.items()},
    xlabel="rank",
    ylabel="eigenvalue",
    title=f"{negative} of {n} eigenvalues of the Hessian are negative, none of the GGN",
)
axes.set_yscale("symlog", linthresh=1e-3)

shares = spectra["GGN"].flip(0).cumsum(0) / spectra["GGN"].sum()
print(f"{(shares < 0.9).sum() + 1} of {n} directions have 90% of the trace")

# %%
# On the right the curves are close. On the left, the Hessian has negative eigenvalues, and those of the GGN are zero.
#
# For a large network, estimate the trace, the sum of all eigenvalues, from products with random vectors. The error bar
# contains the exact value with a probability of at least 95%.

from funcdiff import over_batches, trace_estimate

estimate = trace_estimate(G, tolerance=0.05, generator=torch.Generator().manual_seed(0))
exact = matrices["GGN"].trace()
bar = f"{estimate.value:.2f} ± {estimate.error:.2f}"
print(f"trace {bar} from {estimate.products} products, exact {exact:.2f} from {n}")

# %%
# If your data do not fit in memory, :func:`funcdiff.over_batches` makes the same operator from a data loader.

loader = DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True)
batches = over_batches(lambda x, y: ggn(w, x, y), loader)
v = torch.randn(n)
torch.testing.assert_close(batches @ v, G @ v)

# %%
# Check it by hand
# ----------------
# For the cross-entropy, the Hessian with respect to the output of an image is :math:`\mathrm{diag}(p) - p p^T`, where
# :math:`p` is the softmax of the output. We compute the Jacobian :math:`J` for 50 images and multiply the three
# matrices.

from funcdiff import fisher_operator, jacobian

few = x[:50]
J = jacobian(lambda w: predict(unravel(w), few))(w)
p = predict(unravel(w), few).softmax(1)
M = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
by_hand = torch.einsum("bin,bij,bjm->nm", J, M, J) / 50
torch.testing.assert_close(ggn(w, few, y[:50]) @ torch.eye(n), by_hand)

# %%
# For the cross-entropy, the GGN is also the Fisher matrix, which measures how much the predictions change. After a step
# :math:`s`, the mean Kullback-Leibler divergence between the old and the new probabilities is about
# :math:`\frac12 s^T G s`. We step along three eigenvectors and compare.

fisher = fisher_operator(lambda w: predict(unravel(w), x), w, likelihood="categorical")
torch.testing.assert_close(fisher @ v / len(x), G @ v)

vectors = torch.linalg.eigh(matrices["GGN"])[1].flip(1)
before = predict(unravel(w), x).log_softmax(1)
for rank in (0, 9, 99):
    s = 0.03 * vectors[:, rank]
    after = predict(unravel(w + s), x).log_softmax(1)
    divergence = (before.exp() * (before - after)).sum(1).mean()
    predicted = (s @ (G @ s) / 2).item()
    print(f"direction {rank + 1:3}: {divergence:.2e}, predicted {predicted:.2e}")
    np.testing.assert_allclose(divergence, predicted, rtol=0.1)

# %%
# A step of the same length changes the predictions far less along the hundredth eigenvector.
#
# Count
# -----
# We count a gradient, one product of each kind, and the whole GGN.

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
# With ``over_batches``, only the operator of one batch is in memory at a time:

costs.claim("GGN, over batches", smaller_peak_than="GGN, new operator")

# %%
# Time
# ----
# We time the same calls.

times = compare(single, equal=False, rounds=8, budget=0.2)
plot(times, title=times.claim("GGN product", faster_than="whole GGN").finding)

# %%
# A product with a new operator takes longer, because the operator must be prepared first. Compare the products of the
# two operators that are ready:

times.claim("GGN product", faster_than="Hessian product")

# %%
# Steps by Gauss-Newton
# ---------------------
# You can also train with the GGN. A step :math:`s` solves :math:`(G + \delta I) s = -g`, where :math:`g` is the
# gradient. The damping :math:`\delta` keeps the steps short. It decreases if the loss falls as much as :math:`G`
# predicts, and increases otherwise. SciPy's ``cg`` solves the equation from products with ``G.damped(delta)``.


def step(w, gradient, damping):
    """The step, the decrease that the GGN predicts, and the products that it needed."""
    product, rounds = ggn(w), []
    options = {"rtol": 0.01, "maxiter": 15, "callback": rounds.append}
    s = torch.tensor(cg(product.damped(damping), -gradient.numpy(), **options)[0])
    return s, -(gradient @ s + s @ (product @ s) / 2), len(rounds)


def gauss_newton(steps, damping=1.0):
    w, points, work = start, [], 0
    for _ in range(steps):
        gradient, value = grad_and_value(loss)(w)
        s, predicted, products = step(w, gradient, damping)
        gain = (value - loss(w + s)) / predicted
        w = w + s if gain > 0 else w
        damping *= 0.5 if gain > 0.75 else 2 if gain < 0.25 else 1
        points.append((work := work + 1 + products, loss(w).item()))
    return w, np.array(points).T


# %%
# We take 25 of these steps, and count their gradients and products. Adam gets as many gradients, with three learning
# rates.

second, curve = gauss_newton(25)
work, curves, ends = int(curve[0, -1]), {"Gauss-Newton": curve}, []
for rate in (0.01, 0.03, 0.1):
    end, losses = adam(work, rate)
    ends.append(end)
    curves[f"Adam, {rate}"] = np.arange(1, work + 1), losses
least = {name: losses[-1] for name, (_, losses) in curves.items()}
best = min(least, key=least.get)
axes = plot_curves(
    curves,
    xlabel="gradients and products so far",
    ylabel="loss",
    title=f"{best} has the lowest loss after equal work: {least[best]:.1e}",
    log=True,
)
print("accuracy:", *(f"{accuracy(end):.1%}" for end in (second, *ends)))
assert best == "Gauss-Newton"
assert losses[work // 5] < np.interp(work // 5, *curve)  # Adam, 0.1, is ahead at first

# %%
# Adam is ahead at first. In the end, Gauss-Newton has the lowest loss, and it has no learning rate to choose. The
# accuracies on other images, printed in the same order, hardly differ.
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
# The predictions depend on the eigenvectors of the GGN with large eigenvalues. For a precise minimum, train with it.
#
# * If you ask whether the loss has reached a minimum, use :func:`funcdiff.hvp_operator`: the GGN curves only upwards.
# * If a rough fit is enough, as here for the accuracy, use Adam.
# * If your loss is not convex in the output, the GGN can have negative eigenvalues too.
