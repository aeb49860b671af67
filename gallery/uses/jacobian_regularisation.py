r"""
Does a penalty on the Jacobian make my network robust?
======================================================

A network whose outputs change fast with its inputs is at the mercy of noise. The squared norm of its input Jacobian
says how fast, but to train with it, each step takes :math:`m` backward passes and a pass back through them.

**Answer:** yes, here on every seed: add the mean square of :func:`funcdiff.batch_jacobian` to the loss. Try first what
costs less: one random projection of the Jacobian, or noise in the training inputs.
"""

# %%
# The function
# ------------
# A classifier of handwritten digits with one hidden layer. It learns from 300 images, in float64, on a GPU where there
# is one.

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

device = "cuda" if torch.cuda.is_available() else "cpu"
images, digits = load_digits(return_X_y=True)
shuffled = np.random.default_rng(0).permutation(len(digits))
pixels = torch.tensor(images[shuffled] / 16, device=device)
labels = torch.tensor(digits[shuffled], device=device)
x, y = pixels[:300], labels[:300]
x_test, y_test = pixels[300:], labels[300:]


def classifier(seed):
    torch.manual_seed(seed)
    layers = torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10)
    return torch.nn.Sequential(*layers).to(device, torch.float64)


# %%
# By hand
# -------
# For an input :math:`x` with small noise :math:`\varepsilon` of variance :math:`\sigma^2` in each entry, the outputs
# move by :math:`J \varepsilon`, whose mean square is :math:`\sigma^2 \|J\|_F^2`. We keep that small. For this network,
# with :math:`t = \tanh(Wx + b)`, the Jacobian is :math:`J = V\, \mathrm{diag}(1 - t^2)\, W`.


def jacobian_by_hand(network, x):
    hidden, _, last = network
    t = torch.tanh(hidden(x))
    return torch.einsum("mh,bh,hn->bmn", last.weight, 1 - t**2, hidden.weight)


# %%
# The recipe
# ----------
# ``batch_jacobian`` takes a function of one row. The network's parameters require gradients, so the Jacobian carries
# a graph, and the penalty can be differentiated like any loss. We compare it and its gradient with the formula.

from funcdiff import batch_jacobian


def penalty(network, x):
    """The squared norm of the Jacobian, mean over the batch."""
    return batch_jacobian(network)(x).square().sum((1, 2)).mean()


network = classifier(seed=0)
expected = jacobian_by_hand(network, x).square().sum((1, 2)).mean()
torch.testing.assert_close(penalty(network, x), expected)

weights = network[0].weight, network[2].weight
got = torch.autograd.grad(penalty(network, x), weights)
torch.testing.assert_close(got, torch.autograd.grad(expected, weights))

# %%
# One projection
# --------------
# For random :math:`u` of unit variance, the mean of :math:`\|u^T J\|^2` is :math:`\|J\|_F^2`. So one backward pass
# with a random cotangent estimates the penalty, in place of :math:`m` passes. With all unit vectors in turn it is
# exact:


def projected(network, x, u):
    """The squared norm of one random combination of the Jacobian's rows, mean over the batch."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(network(x), x, u, create_graph=True)
    return slope.square().sum(1).mean()


unit = torch.eye(10, dtype=x.dtype, device=device)
rows = [projected(network, x, u.expand(len(x), 10)) for u in unit]
torch.testing.assert_close(sum(rows), expected)

# %%
# Prediction
# ----------
# The four ways to train that we compare, as the loss of one step. The last needs no Jacobian, only noise in the inputs.


def noise(like, scale=1.0):
    return scale * torch.randn_like(like)


losses = {
    "plain": lambda f: cross_entropy(f(x), y),
    "Jacobian penalty": lambda f: cross_entropy(f(x), y) + 0.01 * penalty(f, x),
    "one projection": lambda f: cross_entropy(f(x), y) + 0.01 * projected(f, x, torch.randn(len(x), 10).to(x)),
    "noise in training": lambda f: cross_entropy(f(x + noise(x, 0.3)), y),
}

# %%
# What a step costs, counted: the loss and its gradient with respect to all parameters.

from functools import partial

from funcdiff.measure import compare, count


def slopes(loss, network):
    return torch.autograd.grad(loss(network), list(network.parameters()))


steps = {name: partial(slopes, loss) for name, loss in losses.items()}
costs = count(steps, classifier(seed=0))
costs

# %%
costs.claim("plain", fewer_flops_than="Jacobian penalty", by=5)

# %%
costs.claim("one projection", fewer_flops_than="Jacobian penalty", by=2)

# %%
# Measurement
# -----------
# The gradients are those of different losses, so they are not meant to agree.

times = compare(steps, classifier(seed=0), rounds=15, equal=False)
times

# %%
times.claim("one projection", faster_than="Jacobian penalty")

# %%
times.claim("noise in training", faster_than="one projection")

# %%
# What it buys
# ------------
# We train with five seeds each way, and test on images with noise of growing strength, where a pixel lies between 0
# and 1. The noise of the test is the same for all.

LEVELS, SEEDS = np.linspace(0, 0.6, 7), range(5)


def accuracies(loss, seed):
    """Share of test images recognised, at each level of noise, after training."""
    network = classifier(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(120):
        optimiser.zero_grad()
        loss(network).backward()
        optimiser.step()
    torch.manual_seed(1000)
    with torch.no_grad():
        return [(network(x_test + noise(x_test, s)).argmax(1) == y_test).double().mean().item() for s in LEVELS]


results = {name: np.array([accuracies(loss, seed) for seed in SEEDS]) for name, loss in losses.items()}

# %%
# The gain over plain training at the strongest noise, in points, seed by seed:

for name, result in results.items():
    gain = 100 * (result - results["plain"])[:, -1]
    print(f"{name:18} clean {result[:, 0].mean():.3f}  noisy {result[:, -1].mean():.3f}  gain", gain.round(1))
assert (results["Jacobian penalty"] > results["plain"])[:, -1].all(), "the penalty no longer helps: mend the answer"

# %%
from funcdiff.plots import plot_curves

plot_curves(
    {name: (LEVELS, result) for name, result in results.items()},
    xlabel="standard deviation of the noise",
    ylabel="share recognised, over 5 seeds",
    title="Trained with a small Jacobian, the network stands more noise",
)

# %%
# What breaks
# -----------
# A penalty without a graph is a constant. ``torch.autograd.functional.jacobian`` returns one unless it is told
# ``create_graph=True``: the loss grows by the penalty, its gradient does not, and nothing is raised. The Jacobian
# trained with is the plain one.

network = classifier(seed=0)
jacobian = torch.autograd.functional.jacobian(lambda x: network(x).sum(0), x)
constant = jacobian.square().sum((0, 2)).mean()
torch.testing.assert_close(constant, penalty(network, x).detach())

with_constant = slopes(lambda f: cross_entropy(f(x), y) + 0.01 * constant, network)
torch.testing.assert_close(with_constant, slopes(losses["plain"], network))
assert not constant.requires_grad, "torch keeps this graph now: update the section 'What breaks'"

# %%
# Takeaway
# --------
# ``batch_jacobian`` under a loss is all it takes, and ``penalty.requires_grad`` is worth an assertion. For many
# outputs take one projection a step. The exception is noise of a known kind: then train with that noise, which needs
# no derivative in the inputs at all; the penalty earns its cost where there is no such noise to draw.
