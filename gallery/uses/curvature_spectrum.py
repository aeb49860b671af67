r"""
Does my trained network's loss still curve downwards?
=====================================================

The eigenvalues of the Hessian say how sharp the loss is and where it curves down. For :math:`n` parameters the matrix
has :math:`n^2` entries, and its eigenvalues cost :math:`n^3`: out of reach for all but small networks.

**Answer:** look at the two ends of the spectrum alone. Lanczos' method finds them from products :math:`Hv`, and
:func:`funcdiff.hvp_operator` makes those without the matrix.
"""

# %%
# The function
# ------------
# A classifier of handwritten digits, trained for a short while, in float64; on a GPU where there is one.

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from funcdiff import module_function, ravel

device = "cuda" if torch.cuda.is_available() else "cpu"
images, digits = load_digits(return_X_y=True)
pixels, labels = torch.tensor(images[:500] / 16, device=device), torch.tensor(digits[:500], device=device)


def classifier(hidden, steps=40):
    """A network after some steps of training."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(64, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 10)
    network = torch.nn.Sequential(*layers).to(device, torch.float64)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        cross_entropy(network(pixels), labels).backward()
        optimiser.step()
    return network


# %%
# We want its loss as a function of one vector: :func:`funcdiff.module_function` makes the network a function of its
# parameters and :func:`funcdiff.ravel` makes those a vector.


def objective(network, pixels, labels):
    """The loss as a function of the vector of all parameters, and that vector."""
    predict, parameters = module_function(network)
    vector, unravel = ravel(parameters)
    return lambda w: cross_entropy(predict(unravel(w), pixels), labels), vector


network = classifier(hidden=8)
loss, weights = objective(network, pixels, labels)
n = len(weights)
logits = network(pixels).detach()
accuracy = (logits.argmax(1) == labels).double().mean()
print(f"{n} parameters, loss {loss(weights):.3f}, accuracy {accuracy:.3f}")

# %%
# By hand
# -------
# One block of the Hessian has a closed form. For the bias of the last layer it is the mean of
# :math:`\mathrm{diag}(p) - p p^T` over the images, with :math:`p` the softmax of the logits. The last ten products
# must agree with it.

from funcdiff import hessian_forward_over_reverse, hvp_operator

product = hvp_operator(loss, weights)
p = logits.softmax(1)
block = torch.diag(p.mean(0)) - p.T @ p / len(p)
unit = torch.eye(n, dtype=torch.float64, device=device)
torch.testing.assert_close(torch.stack([product(v)[-10:] for v in unit[-10:]]), block)

# %%
# The recipe
# ----------
# SciPy wants a ``LinearOperator``; ours passes vectors on. ``which="BE"`` asks for both ends, half of the eigenvalues
# from each.

ENDS = 6


def ends_by_lanczos(product, n):
    """The least and the largest eigenvalues, and their eigenvectors as columns."""
    operator = LinearOperator(
        (n, n),
        matvec=lambda v: product(torch.tensor(v, device=device).reshape(n)).cpu().numpy(),
        dtype=np.float64,
    )
    values, vectors = eigsh(operator, k=2 * ENDS, which="BE", ncv=60, v0=np.ones(n), tol=1e-9)
    order = values.argsort()
    return values[order], vectors[:, order]


found, directions = ends_by_lanczos(product, n)
print("least:", found[:3].round(4), "largest:", found[-3:].round(4))

# %%
# At this size the whole Hessian fits, so we can check each value.


def ends_of_the_whole(w):
    """The same, out of all eigenvalues of the matrix; and all of them."""
    values = torch.linalg.eigvalsh(hessian_forward_over_reverse(loss, chunk_size=64)(w)).cpu().numpy()
    return np.r_[values[:ENDS], values[-ENDS:]], values


expected, everything = ends_of_the_whole(weights)
np.testing.assert_allclose(found, expected, rtol=1e-6)

# %%
# Prediction
# ----------
# The whole Hessian is one product for each parameter, and its eigenvalues come on top. Lanczos' method makes as many
# products as it takes to converge. All that it made, counted:

from funcdiff.measure import compare, count

ways = {
    "both ends by Lanczos": lambda w: ends_by_lanczos(hvp_operator(loss, w), n)[0],
    "whole Hessian": lambda w: ends_of_the_whole(w)[0],
}
lanczos, whole = "both ends by Lanczos", "Hessian, no eigenvalues yet"
costs = count({lanczos: ways[lanczos], whole: hessian_forward_over_reverse(loss, chunk_size=64)}, weights)
costs

# %%
costs.claim(lanczos, fewer_flops_than=whole)

# %%
costs.claim(lanczos, smaller_peak_than=whole)

# %%
# Measurement
# -----------

times = compare(ways, weights, rounds=9, budget=1.0)
times

# %%
times.claim("both ends by Lanczos", faster_than="whole Hessian")

# %%
# The spectrum
# ------------
# A few large eigenvalues, many near zero, and some below it: after these steps the network lies at no minimum.

from funcdiff.plots import plot_spectrum

assert found[0] < 0 < found[-1]
plot_spectrum(
    everything,
    found,
    names=["whole Hessian", "both ends by Lanczos"],
    title="Lanczos finds both ends: some directions are sharp, some curve down",
)

# %%
# Negative curvature is a fact about the loss, not about rounding. Along the eigenvector :math:`v` of the least
# eigenvalue :math:`\lambda`, the loss on both sides lies below its tangent:
# :math:`f(w + tv) + f(w - tv) - 2 f(w) = t^2 \lambda + O(t^4)`.

v, t = torch.tensor(directions[:, 0], device=device), 1e-2
bend = (loss(weights + t * v) + loss(weights - t * v) - 2 * loss(weights)).item()
print(f"least eigenvalue {found[0]:.6f}, by differences {bend / t**2:.6f}")
np.testing.assert_allclose(bend / t**2, found[0], rtol=1e-2)

# %%
# A larger network
# ----------------
# With 128 hidden units in place of 8, one product and the Hessian are counted on the *meta* device, which knows
# shapes and holds nothing.

wider = classifier(hidden=128)
meta_loss, meta_weights = objective(wider.to("meta"), pixels.to("meta"), labels.to("meta"))
memory = count(
    {
        "one product": lambda w: hvp_operator(meta_loss, w)(w),
        "whole Hessian": hessian_forward_over_reverse(meta_loss, chunk_size=256),
    },
    meta_weights,
)
memory

# %%
memory.claim("one product", smaller_peak_than="whole Hessian", by=100)

# %%
# Lanczos' method holds 60 vectors beside the product, and finds the ends here too.

wide_loss, wide_weights = objective(classifier(hidden=128), pixels, labels)
wide_ends, _ = ends_by_lanczos(hvp_operator(wide_loss, wide_weights), len(wide_weights))
print(f"{len(wide_weights)} parameters; least: {wide_ends[:3].round(4)} largest: {wide_ends[-3:].round(4)}")

# %%
# What breaks
# -----------
# Lanczos' method relies on a symmetric operator. With dropout in training mode each product draws another mask, so it
# is a product with another matrix: :math:`u \cdot Hv` is no longer :math:`v \cdot Hu`, and nothing is raised.

from funcdiff import hvp_reverse_over_reverse

dropped = torch.nn.Sequential(network[0], torch.nn.Tanh(), torch.nn.Dropout(0.2), network[2]).train()
_, unravel = ravel({name: parameter.detach() for name, parameter in dropped.named_parameters()})


def noisy_loss(w):
    return cross_entropy(torch.func.functional_call(dropped, unravel(w), (pixels,)), labels)


u, v = torch.randn(2, n, dtype=torch.float64, device=device)
one_way = u @ hvp_reverse_over_reverse(noisy_loss, (weights,), (v,))
other_way = v @ hvp_reverse_over_reverse(noisy_loss, (weights,), (u,))
print("u H v:", one_way.item(), " v H u:", other_way.item())
assert not torch.allclose(one_way, other_way), "dropout repeats its mask: update the section 'What breaks'"

# %%
# The products of one ``hvp_operator`` share a mask, which hides the mistake. ``module_function`` refuses such a
# network instead; ``dropped.eval()`` is the way out.

try:
    module_function(dropped)
except ValueError as error:
    print(error)

symmetric = hvp_operator(objective(dropped.eval(), pixels, labels)[0], weights)
torch.testing.assert_close(u @ symmetric(v), v @ symmetric(u))

# %%
# Takeaway
# --------
# For the sharpest and the most negative curvature take Lanczos' method on ``hvp_operator``, with the network in
# evaluation mode and in float64. The exception is the inside of the spectrum, which Lanczos' method does not find;
# for that, and for a network of a few hundred parameters, form the Hessian.
