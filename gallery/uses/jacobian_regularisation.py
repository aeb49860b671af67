r"""
Does a penalty on the Jacobian make my network robust?
======================================================

A network is robust if noise in its input hardly changes its output. Small noise :math:`\varepsilon` changes the output
by about :math:`J \varepsilon`, where :math:`J` is the Jacobian. If the entries of :math:`J` are half as large, the
output changes half as much. So you can make a network more robust by making its Jacobian small.

To do so, add a penalty to the loss: the sum of the squares of all entries of the Jacobian, averaged over the batch.
This costs time. With 10 outputs, each training step goes backward through the network 10 times to compute the Jacobian,
and then once through all of this. A cheaper penalty needs only one row, :math:`u^T J`, with a random number in
:math:`u` for each output. One backward pass computes it, and its sum of squares is on average that of :math:`J`.

**Answer:** Yes, a penalty helps on this page for every random seed: add the squares of ``batch_jacobian(network)(X)``
to the loss. Two cheaper methods help nearly as much: one random projection :math:`u^T J`, or noise in the training
inputs.

.. code-block:: python

    import torch
    from funcdiff import batch_jacobian

    penalty = batch_jacobian(network)(X).square().sum((1, 2)).mean()
    (loss + 0.01 * penalty).backward()

    y = network(X.requires_grad_())  # the cheaper penalty, in torch alone
    (uJ,) = torch.autograd.grad(y, X, torch.randn_like(y), create_graph=True)
    penalty = uJ.square().sum(1).mean()
"""

# %%
# Use it
# ------
# We train a classifier of handwritten digits on 300 images, once without the penalty and once with it.

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from funcdiff import batch_jacobian

device = "cuda" if torch.cuda.is_available() else "cpu"
images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(digits))
pixels = torch.tensor(images[order] / 16, device=device)
labels = torch.tensor(digits[order], device=device)
x, y, x_test, y_test = pixels[:300], labels[:300], pixels[300:], labels[300:]


def classifier(seed):
    torch.manual_seed(seed)
    layers = torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10)
    return torch.nn.Sequential(*layers).to(device, torch.float64)


def penalty(network, x):
    """The squared norm of the Jacobian of one row, averaged over the batch."""
    return batch_jacobian(network)(x).square().sum((1, 2)).mean()


def plain(network):
    return cross_entropy(network(x), y)


def with_penalty(network):
    return plain(network) + 0.01 * penalty(network, x)


# %%
# We train each network with Adam, and test it on images with noise. The pixels lie between 0 and 1, and the standard
# deviation of the noise is 0.6.


def noise(like, scale=1.0):
    return scale * torch.randn_like(like)


def trained(loss, seed):
    network = classifier(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        loss(network).backward()
        optimizer.step()
    return network


def accuracy(network, scale):
    torch.manual_seed(1000)  # the same noise for every network
    with torch.no_grad():
        found = network(x_test + noise(x_test, scale)).argmax(1)
    return (found == y_test).double().mean().item()


for name, loss in {"plain": plain, "with penalty": with_penalty}.items():
    print(f"{name:13} recognizes {accuracy(trained(loss, seed=0), 0.6):.1%}")

# %%
# Further below, we repeat this comparison with five seeds and several levels of noise.
#
# Check it by hand
# ----------------
# The Jacobian of our network has a formula: :math:`J = V\, \mathrm{diag}(1 - t^2)\, W` with :math:`t = \tanh(Wx + b)`.
# We compare the penalty with this formula. We also compare its gradient with respect to the parameters, because
# training needs it.


def jacobian_by_hand(network, x):
    hidden, _, last = network
    t = torch.tanh(hidden(x))
    return torch.einsum("mh,bh,hn->bmn", last.weight, 1 - t**2, hidden.weight)


network = classifier(seed=0)
expected = jacobian_by_hand(network, x).square().sum((1, 2)).mean()
torch.testing.assert_close(penalty(network, x), expected)

weights = network[0].weight, network[2].weight
gradient = torch.autograd.grad(penalty(network, x), weights)
torch.testing.assert_close(gradient, torch.autograd.grad(expected, weights))

# %%
# Cheaper methods
# ---------------
# The first one is a random projection. Choose a random weight for each output, with mean 0 and variance 1. The vector
# of these weights, :math:`u`, is a :term:`cotangent`. One backward pass computes :math:`u^T J`. Its squared length is
# on average the sum of the squares of :math:`J`. So one pass estimates the penalty. If we use all 10 unit vectors
# instead and add the results, we get it exactly:


def projected(network, x, u):
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(network(x), x, u, create_graph=True)
    return slope.square().sum(1).mean()


units = torch.eye(10, dtype=x.dtype, device=device)
parts = [projected(network, x, u.expand(len(x), 10)) for u in units]
torch.testing.assert_close(sum(parts), expected)

# %%
# The second one adds noise to the training inputs and needs no Jacobian. These are the four losses that we compare:


def one_projection(network):
    u = torch.randn(len(x), 10).to(x)
    return plain(network) + 0.01 * projected(network, x, u)


def noisy(network):
    return cross_entropy(network(x + noise(x, 0.3)), y)


losses = {
    "plain": plain,
    "Jacobian penalty": with_penalty,
    "one projection": one_projection,
    "noise in training": noisy,
}

# %%
# Count
# -----
# We count one training step, which computes the loss and its gradient with respect to all parameters. The network has
# 64 inputs and 10 outputs, so ``batch_jacobian`` chooses reverse mode, with one backward pass for each output.

from functools import partial

from funcdiff.measure import compare, count


def step(loss, network):
    return torch.autograd.grad(loss(network), list(network.parameters()))


steps = {name: partial(step, loss) for name, loss in losses.items()}
costs = count(steps, classifier(seed=0))
costs

# %%
# A step with the penalty needs several times the FLOPs (floating-point operations) of a plain step:

costs.claim("plain", fewer_flops_than="Jacobian penalty", by=5)

# %%
# A step with one projection needs fewer:

costs.claim("one projection", fewer_flops_than="Jacobian penalty", by=2)

# %%
# Time
# ----
# We time the same steps. ``equal=False`` says that their results differ, because the losses do.

times = compare(steps, classifier(seed=0), rounds=15, equal=False)
times

# %%
# Compare one projection with the whole penalty:

times.claim("one projection", faster_than="Jacobian penalty")

# %%
# Compare noise with one projection:

times.claim("noise in training", faster_than="one projection")

# %%
# What the penalty achieves
# -------------------------
# For each method we train with five seeds, and test with increasing noise. We print the difference from plain training
# at the strongest noise, in percentage points, for each seed.

LEVELS, SEEDS = np.linspace(0, 0.6, 7), range(5)

results = {}
for name, loss in losses.items():
    networks = [trained(loss, seed) for seed in SEEDS]
    results[name] = np.array([[accuracy(net, s) for s in LEVELS] for net in networks])

for name, result in results.items():
    clean, strongest = result[:, 0].mean(), result[:, -1].mean()
    gain = 100 * (result - results["plain"])[:, -1]
    print(f"{name:18} clean {clean:.3f}  noisy {strongest:.3f}  gain {gain.round(1)}")
gains = results["Jacobian penalty"] - results["plain"]
assert (gains[:, -1] > 0).all(), "the penalty no longer helps: correct the answer"

# %%
# The figure shows all levels of noise. Each band shows the range of the five seeds.

from funcdiff.plots import plot_curves

mean_gain = 100 * gains[:, -1].mean()
plot_curves(
    {name: (LEVELS, result) for name, result in results.items()},
    xlabel="standard deviation of the noise",
    ylabel="share recognized, over 5 seeds",
    title=f"The penalty gains {mean_gain:.0f} percentage points at the strongest noise",
)

# %%
# At the strongest noise, each network with the penalty is ahead of the one with plain training, which starts from the
# same seed. The printed gains say whether this holds for the two cheaper methods too.
#
# What goes wrong
# ---------------
# *The penalty is a constant.* ``torch.autograd.functional.jacobian`` returns numbers without a graph, unless you pass
# ``create_graph=True``. If you add them to the loss, its value grows, but its gradient does not change. The penalty has
# no effect, and no error is raised.

network = classifier(seed=0)
jacobian = torch.autograd.functional.jacobian(lambda x: network(x).sum(0), x)
constant = jacobian.square().sum((0, 2)).mean()
torch.testing.assert_close(constant, penalty(network, x).detach())

with_constant = step(lambda network: plain(network) + 0.01 * constant, network)
torch.testing.assert_close(with_constant, step(plain, network))
assert not constant.requires_grad, "torch keeps this graph now: update this section"
print("penalty(network, x).requires_grad:", penalty(network, x).requires_grad)
print("constant.requires_grad:", constant.requires_grad)

# %%
# Takeaway
# --------
# Add the squares of ``batch_jacobian(network)(X)`` to the loss. Assert once that ``penalty.requires_grad`` is true.
#
# * If the network has many outputs, use one projection in each step.
# * If you know the noise, train with it: this needs no derivative with respect to the input.
