r"""
How do I train a network whose derivatives I need?
==================================================

A surrogate is a small network that replaces a slow simulation. You run the simulation for some inputs :math:`x_i`, get
outputs :math:`y_i`, and train the network :math:`f` until :math:`\sum_i |f(x_i) - y_i|^2` is small. If you also need
derivatives of the network, two things matter more than usual:

* The activation must be smooth. A ReLU network consists of straight pieces, so its second derivatives are zero.
* Training must give the same weights each time. Otherwise you cannot tell a bad fit from a mistake in the derivatives.

L-BFGS satisfies the second condition. It estimates the curvature of the loss from its last gradients and makes steps
like Newton's method, without random draws. Each step uses all samples, so it suits small networks and few samples. For
many samples, use minibatches and Adam.

**Answer:** Choose a smooth activation and call :func:`funcdiff.surrogates.train`. It uses L-BFGS on all samples at
once, ends at the same weights every time, and reports the error on samples that are not fitted (``held_out``). Then
differentiate with ``batch_jacobian(network)(X)`` and ``batch_hessian(network)(X)``.

.. code-block:: python

    import torch
    from funcdiff import batch_jacobian
    from funcdiff.surrogates import train

    curve = train(network, x, y, held_out=(x_new, y_new), iterations=1000)
    jacobians = batch_jacobian(network)(x)  # (samples, outputs, inputs)
    # What train uses in torch; closure() calls backward() and returns the loss:
    torch.optim.LBFGS(network.parameters(), line_search_fn="strong_wolfe").step(closure)
"""

# %%
# Use it
# ------
# We replace a function with three outputs. Its two inputs lie in :math:`(-2, 2)` and :math:`(-1, 1)`:
#
# .. math::
#
#     F(x_1, x_2) = \left(\sin(2 x_1) \cos(\pi x_2), \; e^{-x_1^2 - x_2^2}, \; x_1^2 x_2 + \frac{1}{3} x_2^3\right).
#
# The network has two hidden layers of 100 units with GELU, which is smooth. A real simulation is slow, so we use few
# samples: 500 to fit, and 500 new ones to watch the error.

import torch

from funcdiff import batch_hessian, batch_jacobian
from funcdiff.problems import study_network, surface, surface_hessian, surface_jacobian
from funcdiff.surrogates import train, uniform

low, high = [-2.0, -1.0], [2.0, 1.0]
x, x_new = uniform(500, low, high, seed=1), uniform(500, low, high, seed=2)


def fresh():
    return study_network((2, 100, 100, 3), activation=torch.nn.GELU, seed=0)


network = fresh()
new = (x_new, surface(x_new))
curve = train(network, x, surface(x), held_out=new, iterations=1000)
print(f"mean squared error, samples fitted: {curve.training[-1]:.2e}")
print(f"mean squared error, new samples:    {curve.held_out[-1]:.2e}")

# %%
# The learning curve shows both errors during the training.

from funcdiff.plots import plot_learning

ratio = curve.held_out[-1] / curve.training[-1]
title = f"At the end, the error on new samples is {ratio:.3g} times that on fitted ones"
plot_learning(curve, title=title)
assert curve.held_out[-1] < 1e-3

# %%
# As long as both lines fall, continue to train. If the dash-dotted line, the error on the new samples, rises, stop
# earlier or use more samples.
#
# Now we can differentiate the network. How close its derivatives are to those of the function is the subject of
# :doc:`/tutorials/networks/derivatives` and :doc:`/tutorials/networks/errors`.

print("Jacobians:", tuple(batch_jacobian(network)(x).shape))
print("Hessians:", tuple(batch_hessian(network)(x).shape))

# %%
# Check it by hand
# ----------------
# What does ``train`` do? It calls torch's L-BFGS optimizer. L-BFGS may compute the loss and its gradient several times
# in one step, so it takes a function that does so. We write this loop ourselves, with ten iterations in each step.

from torch.nn.functional import mse_loss


def fit(network, x, y, steps):
    optimizer = torch.optim.LBFGS(
        network.parameters(),
        max_iter=10,
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_change=0,
    )

    def loss():
        optimizer.zero_grad()
        misfit = mse_loss(network(x), y)
        misfit.backward()
        return misfit

    for _ in range(steps):
        optimizer.step(loss)


# %%
# ``train`` is this loop, with a progress bar, a learning curve and the error on new samples. Nothing in it is random,
# so both programs end at the same weights.

torch.set_num_threads(1)  # sums then keep their order
by_hand, short = fresh(), fresh()
fit(by_hand, x, surface(x), steps=20)
train(short, x, surface(x), iterations=200)
for ours, theirs in zip(short.parameters(), by_hand.parameters(), strict=True):
    torch.testing.assert_close(ours, theirs)

# %%
# Later pages compare networks with the exact derivatives of the function. ``funcdiff.problems`` contains these as
# formulas. We check the formulas in float64, each against two recipes: the automatic one and one in forward mode.

from funcdiff import hessian_forward_over_forward, jacobian_forward

points = x.double()
exact = {"rtol": 0, "atol": 1e-10}
for recipe in (
    batch_jacobian(surface),
    batch_jacobian(surface, jacobian=jacobian_forward),
):
    torch.testing.assert_close(recipe(points), surface_jacobian(points), **exact)
for recipe in (
    batch_hessian(surface),
    batch_hessian(surface, hessian=hessian_forward_over_forward),
):
    torch.testing.assert_close(recipe(points), surface_hessian(points), **exact)

# %%
# Count
# -----
# An iteration needs at least one forward and one backward pass over all samples. We count these two passes. So you know
# before you train how much training costs at least.

from funcdiff.measure import compare, count


def one_gradient(x):
    loss = mse_loss(network(x), surface(x))
    return torch.autograd.grad(loss, list(network.parameters()))


cost = count(one_gradient, x)
print(f"1000 iterations: at least {1000 * cost.flops / 1e9:.0f} GFLOP")
cost

# %%
# The first line is a lower bound for the whole training: the FLOPs of the two passes, times the number of iterations.
#
# Save and load
# -------------
# Save only the ``state_dict``, which contains the weights. Load it with ``weights_only=True``, so that the file cannot
# run code. After loading we convert the network to float64, for derivatives with more digits.

import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "surface.pt")
    torch.save(network.state_dict(), path)
    loaded = fresh()
    loaded.load_state_dict(torch.load(path, weights_only=True))
loaded = loaded.double().eval()
torch.testing.assert_close(loaded(points).float(), network(x))

# %%
# Time
# ----
# A float64 number takes twice the memory of a float32 number. How much more time does it take? We time the Jacobians
# and the Hessians of all samples in both.

times = compare(
    {
        "Jacobians, float32": lambda: batch_jacobian(network)(x),
        "Jacobians, float64": lambda: batch_jacobian(loaded)(points),
        "Hessians, float32": lambda: batch_hessian(network)(x),
        "Hessians, float64": lambda: batch_hessian(loaded)(points),
    },
    equal=False,
    rounds=9,
)
times

# %%
# For the Jacobians, float64 costs this much on this machine:

times.claim("Jacobians, float32", faster_than="Jacobians, float64")

# %%
# What goes wrong
# ---------------
# *You save the whole module* with ``torch.save(network)``. This writes a pickle, a file that can run any code when you
# read it. With ``weights_only=True``, the default, torch refuses to load it.

import io
import pickle

file = io.BytesIO()
torch.save(network, file)
file.seek(0)
try:
    torch.load(file, weights_only=True)
except pickle.UnpicklingError as error:
    print("refused:", type(error).__name__)
else:
    raise AssertionError("torch now loads a whole module: update this section")

# %%
# *You have too few samples.* The learning curve shows it. With 50 samples, the error on new samples stays far above the
# error on the fitted ones.

few = train(fresh(), x[:50], surface(x[:50]), held_out=new, iterations=300)
print(f"with 50 samples: {few.held_out[-1] / few.training[-1]:,.0f} times as large")
assert few.held_out[-1] > 10 * few.training[-1]

# %%
# Takeaway
# --------
# For a small network and a few hundred samples, use L-BFGS on all samples. It takes seconds and gives the same result
# every time.
#
# * If a pass over all samples is too expensive, use minibatches and Adam. The result then depends on random draws, so
#   fix the seeds.
# * If the derivatives are not close enough, :doc:`/tutorials/networks/lessons` shows what improves them.
