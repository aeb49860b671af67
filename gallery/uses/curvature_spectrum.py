r"""
Does my trained network's loss still curve downwards?
=====================================================

You have trained a network. Is it at a minimum of its loss, or does the loss still fall in some direction if you go a
bit further? If the gradient is not zero, the loss falls against the gradient. If it is nearly zero, the gradient does
not tell a minimum from a saddle point, and the Hessian does. Along an eigenvector with the eigenvalue 4, the loss
changes like the parabola :math:`\frac{4}{2}\, t^2 = 2 t^2`, upwards. With the eigenvalue -4 it bends downwards. So look
for the smallest eigenvalue.

You do not need the whole Hessian, with :math:`n^2` entries for :math:`n` parameters. Lanczos' method finds the smallest
and the largest eigenvalues from products of the Hessian with vectors. A product by :func:`funcdiff.hvp_operator` costs
about as much as two gradients, and Lanczos' method needs far fewer products than there are parameters. For a few
hundred parameters, you can also compute the whole matrix and call ``torch.linalg.eigvalsh``.

**Answer:** Compute the smallest eigenvalue of the Hessian: if it is negative, the loss curves downwards. SciPy's
``eigsh`` finds it from Hessian-vector products, and :func:`funcdiff.hvp_operator` computes these.

.. code-block:: python

    import torch
    from funcdiff import hvp_operator
    from scipy.sparse.linalg import eigsh

    H = hvp_operator(loss, w)  # w: all parameters in one vector, made by ravel
    values, vectors = eigsh(H, k=12, which="BE")  # the six smallest, the six largest
    # A product in torch alone:
    torch.func.jvp(torch.func.grad(loss), (w,), (v,))[1]
"""

# %%
# Use it
# ------
# We train a small classifier of handwritten digits, in float64. We stop after a few steps, so it is not at a minimum.

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from funcdiff import hessian, hvp, hvp_operator, module_function, ravel

device = "cuda" if torch.cuda.is_available() else "cpu"
images, digits = load_digits(return_X_y=True)
pixels = torch.tensor(images[:500] / 16, device=device)
labels = torch.tensor(digits[:500], device=device)


def classifier(hidden, steps=40):
    torch.manual_seed(0)
    layers = torch.nn.Linear(64, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 10)
    network = torch.nn.Sequential(*layers).to(device, torch.float64)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(network(pixels), labels).backward()
        optimizer.step()
    return network


# %%
# We need the loss as a function of one vector :math:`w`. :func:`funcdiff.module_function` turns the network into a
# function of its parameters, and :func:`funcdiff.ravel` puts these into one vector. ``objective`` returns the loss and
# the vector.


def objective(network, pixels, labels):
    predict, parameters = module_function(network)
    vector, unravel = ravel(parameters)

    def loss(w):
        return cross_entropy(predict(unravel(w), pixels), labels)

    return loss, vector


network = classifier(hidden=8)
loss, weights = objective(network, pixels, labels)
n = len(weights)
logits = network(pixels).detach()
accuracy = (logits.argmax(1) == labels).double().mean()
print(f"{n} parameters, loss {loss(weights):.3f}, accuracy {accuracy:.3f}")

# %%
# SciPy's ``eigsh`` takes an object that multiplies a matrix by a vector, such as ``hvp_operator(loss, w)``.
# ``which="BE"`` asks for both ends of the spectrum. The other options are the first vector ``v0``, the number of
# vectors to store ``ncv``, and the tolerance ``tol``. ``eigsh`` also works without them.

ENDS = 6


def both_ends(loss, w):
    """Six eigenvalues of each end, and their eigenvectors as columns."""
    options = {"v0": np.ones(len(w)), "ncv": 60, "tol": 1e-9}
    values, vectors = eigsh(hvp_operator(loss, w), k=2 * ENDS, which="BE", **options)
    order = values.argsort()
    return values[order], vectors[:, order]


found, directions = both_ends(loss, weights)
print("smallest:", found[:3].round(4))
print("largest: ", found[-3:].round(4))
assert found[0] < 0 < found[-1]

# %%
# The smallest eigenvalue is negative. So the loss still curves downwards, and the network is not at a minimum.
#
# Check it by hand
# ----------------
# One block of the Hessian has a known formula. Its rows and columns belong to the ten biases of the last layer. It is
# the mean of :math:`\mathrm{diag}(p) - p p^T` over the images, where :math:`p` is the softmax of the outputs. We
# multiply by the ten unit vectors of these biases and compare. We also check :func:`funcdiff.hvp`, which computes a
# single product.

p = logits.softmax(1)
block = torch.diag(p.mean(0)) - p.T @ p / len(p)
units = torch.eye(n, dtype=torch.float64, device=device)[-10:]
product = hvp_operator(loss, weights)
products = torch.stack([product(v)[-10:] for v in units])
torch.testing.assert_close(products, block)
torch.testing.assert_close(hvp(loss, (weights,), (units[0],))[-10:], block[0])

# %%
# This network is so small that the whole Hessian fits in memory. So we can compare the eigenvalues, too.


def ends_of_the_whole(w):
    """The same eigenvalues from the whole matrix, and all of them."""
    matrix = hessian(loss, chunk_size=64)(w)
    values = torch.linalg.eigvalsh(matrix).cpu().numpy()
    return np.r_[values[:ENDS], values[-ENDS:]], values


expected, everything = ends_of_the_whole(weights)
np.testing.assert_allclose(found, expected, rtol=1e-6)

# %%
# The values of the loss confirm the negative curvature. We take a small step :math:`t` in both directions along the
# eigenvector :math:`v`. The sum :math:`f(w + tv) + f(w - tv) - 2 f(w)` is nearly :math:`t^2 \lambda`.

v, t = torch.tensor(directions[:, 0], device=device), 1e-2
bend = loss(weights + t * v) + loss(weights - t * v) - 2 * loss(weights)
curvature = bend.item() / t**2
print(f"smallest eigenvalue {found[0]:.6f}, from values of the loss {curvature:.6f}")
np.testing.assert_allclose(curvature, found[0], rtol=1e-2)

# %%
# The figure shows all eigenvalues in order. The rings mark those that Lanczos' method found.

from funcdiff.plots import plot_spectrum

negative = (everything < -1e-6).sum()
plot_spectrum(
    everything,
    found,
    names=["whole Hessian", "both ends by Lanczos"],
    title=f"{negative} of {n} eigenvalues are negative; the largest is {found[-1]:.2g}",
)

# %%
# A few eigenvalues on the right are large, many are near zero, and those on the left are negative.
#
# Count
# -----
# The whole Hessian costs as much as one product for each parameter, and its eigenvalues cost extra. Lanczos' method
# makes fewer products. We count both.

from funcdiff.measure import compare, count

lanczos, whole = "both ends by Lanczos", "whole Hessian"
costs = count(
    {
        lanczos: lambda w: both_ends(loss, w)[0],
        whole: hessian(loss, chunk_size=64),
    },
    weights,
)
costs

# %%
# Even without its eigenvalues, the whole Hessian needs more FLOPs (floating-point operations):

costs.claim(lanczos, fewer_flops_than=whole)

# %%
# It also needs more memory:

costs.claim(lanczos, smaller_peak_than=whole)

# %%
# The difference grows with the network. We count one product and the whole Hessian for 128 hidden units instead of 8.
# On the :term:`meta device`, nothing is computed.

wide = classifier(hidden=128)
wide_loss, wide_weights = objective(wide, pixels, labels)
tensors = pixels.to("meta"), labels.to("meta")
meta_loss, meta_weights = objective(classifier(128, steps=0).to("meta"), *tensors)
memory = count(
    {
        "one product": lambda w: hvp_operator(meta_loss, w)(w),
        "whole Hessian": hessian(meta_loss, chunk_size=256),
    },
    meta_weights,
)
memory.claim("one product", smaller_peak_than="whole Hessian", by=100)

# %%
# Besides the product, Lanczos' method needs memory for 60 vectors. It finds both ends for this network, too:

ends, _ = both_ends(wide_loss, wide_weights)
print(f"{len(wide_weights)} parameters")
print("smallest:", ends[:3].round(4))
print("largest: ", ends[-3:].round(4))

# %%
# Time
# ----
# We time both methods for the small network. The time of the whole Hessian includes its eigenvalues.

methods = {
    lanczos: lambda w: both_ends(loss, w)[0],
    "whole Hessian and eigenvalues": lambda w: ends_of_the_whole(w)[0],
}
times = compare(methods, weights, rounds=9, budget=1.0)
times

# %%
# Lanczos' method makes far fewer products. This is the gain in this run:

times.claim(lanczos, faster_than="whole Hessian and eigenvalues")

# %%
# What goes wrong
# ---------------
# *Dropout is in training mode.* Lanczos' method requires a symmetric matrix. With dropout, each product drops other
# units, so each product belongs to another Hessian. For a symmetric matrix, :math:`u \cdot Hv` equals
# :math:`v \cdot Hu`. Here they differ, and no error is raised.

from funcdiff import hvp_reverse_over_reverse

layers = network[0], torch.nn.Tanh(), torch.nn.Dropout(0.2), network[2]
dropped = torch.nn.Sequential(*layers).train()
_, unravel = ravel({k: w.detach() for k, w in dropped.named_parameters()})


def noisy_loss(w):
    output = torch.func.functional_call(dropped, unravel(w), (pixels,))
    return cross_entropy(output, labels)


u, v = torch.randn(2, n, dtype=torch.float64, device=device)
one_order = u @ hvp_reverse_over_reverse(noisy_loss, (weights,), (v,))
other_order = v @ hvp_reverse_over_reverse(noisy_loss, (weights,), (u,))
print(f"u Hv = {one_order:.4f}, v Hu = {other_order:.4f}")
assert not torch.allclose(one_order, other_order), "masks repeat: update this section"

# %%
# ``hvp_operator`` and ``module_function`` raise an error for such a network. Call ``dropped.eval()`` first. If you
# compute one gradient with ``create_graph=True`` and use it for all products, the units to drop are drawn only once.
# The products then pass the comparison above, although dropout is still on.

try:
    module_function(dropped)
except ValueError as error:
    print("ValueError:", error)

symmetric = hvp_operator(objective(dropped.eval(), pixels, labels)[0], weights)
torch.testing.assert_close(u @ symmetric(v), v @ symmetric(u))

# %%
# Takeaway
# --------
# To find the largest eigenvalue and the most negative one, call ``eigsh`` with ``hvp_operator``. Use float64, and call
# ``network.eval()`` first.
#
# * If you need eigenvalues from the middle of the spectrum, or have only a few hundred parameters, compute the whole
#   matrix with ``hessian(loss)(w)``.
