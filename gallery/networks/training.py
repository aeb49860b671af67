r"""
How do I train a network whose derivatives I need?
==================================================

A surrogate that is to be differentiated must be smooth and fitted closely: what it misses in its values it misses more
in its slopes. A training that ends elsewhere each time cannot be told from a mistake in the derivatives.

**Answer:** a smooth activation, enough samples, held-out samples to watch, and L-BFGS on all of them at once:
:func:`funcdiff.surrogates.train`. Save the ``state_dict``, and load it with ``weights_only=True``.
"""

# %%
# The function
# ------------
# A vector function of two variables, on :math:`(-2, 2) \times (-1, 1)`:
#
# .. math::
#
#     F(x_1, x_2) = \left(\sin(2 x_1) \cos(\pi x_2), \; e^{-x_1^2 - x_2^2}, \; x_1^2 x_2 + \frac{1}{3} x_2^3\right).
#
# Here the samples cost nothing; in earnest each is a run of a simulation, so we take few: 500, and 500 more to watch.

import torch

from funcdiff.problems import study_network, surface, surface_hessian, surface_jacobian
from funcdiff.surrogates import train, uniform

low, high = [-2.0, -1.0], [2.0, 1.0]
x, held_out = uniform(500, low, high, seed=1), uniform(500, low, high, seed=2)

# %%
# Its first and second derivatives are written out in ``funcdiff.problems``. Every later page measures a network
# against them, so we check them first, in float64, by two recipes each:

from funcdiff import batch_hessian, batch_jacobian, hessian_forward_over_forward, jacobian_forward

points = x.double()
for recipe in (batch_jacobian(surface), batch_jacobian(surface, jacobian=jacobian_forward)):
    torch.testing.assert_close(recipe(points), surface_jacobian(points), rtol=0, atol=1e-10)
for recipe in (batch_hessian(surface), batch_hessian(surface, hessian=hessian_forward_over_forward)):
    torch.testing.assert_close(recipe(points), surface_hessian(points), rtol=0, atol=1e-10)

# %%
# By hand
# -------
# The network is 2 -> 100 -> 100 -> 3 with GELU, which is smooth. L-BFGS takes all samples at once and wants a function
# that computes the loss and its gradient, because it may ask more than once a step.

from torch.nn.functional import mse_loss


def fit(network, x, y, steps):
    """Ten iterations of L-BFGS a step."""
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=10, history_size=20, line_search_fn="strong_wolfe", tolerance_change=0
    )

    def loss():
        optimizer.zero_grad()
        misfit = mse_loss(network(x), y)
        misfit.backward()
        return misfit

    for _ in range(steps):
        optimizer.step(loss)


def fresh():
    return study_network((2, 100, 100, 3), activation=torch.nn.GELU, seed=0)


torch.set_num_threads(1)  # a network as small as this gains nothing from more, and sums keep their order
by_hand = fresh()
fit(by_hand, x, surface(x), steps=20)

# %%
# The recipe
# ----------
# :func:`funcdiff.surrogates.train` is this loop with a progress bar, which shows on a terminal and stays silent
# elsewhere, a learning curve, and held-out samples. Nothing is drawn at random, so it takes the same path:

short = fresh()
train(short, x, surface(x), iterations=200)
for ours, theirs in zip(short.parameters(), by_hand.parameters(), strict=True):
    torch.testing.assert_close(ours, theirs)

# %%
# Prediction
# ----------
# An iteration is a little more than one forward and one backward pass through all samples. What one such pass costs
# can be counted, and so can the training, before it runs:

from funcdiff.measure import compare, count

network = fresh()


def one_gradient(x):
    return torch.autograd.grad(mse_loss(network(x), surface(x)), list(network.parameters()))


count(one_gradient, x)

# %%
# Measurement
# -----------
# The samples that were held out tell when more iterations stop to pay.

curve = train(network, x, surface(x), held_out=(held_out, surface(held_out)), iterations=1000)

# %%

from funcdiff.plots import plot_learning

plot_learning(curve, title="The error falls on the samples fitted, and on those held out")

# %%
# The fit is closer on the samples fitted; how much closer is a measure of whether the samples suffice.

print(f"mean squared error: {curve.training[-1]:.2e} fitted, {curve.held_out[-1]:.2e} held out")
assert curve.held_out[-1] < 1e-3

# %%
# Saved and loaded
# ----------------
# A file of weights only: a ``state_dict`` loaded with ``weights_only=True`` cannot run code of whoever wrote it. We
# convert to float64 after loading: derivatives are worth the digits, and the network is small.

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
# The price of the digits, for a Jacobian and on this machine:

times = compare(
    {"float64": lambda: batch_jacobian(loaded)(points), "float32": lambda: batch_jacobian(network)(x)},
    equal=False,
    rounds=9,
)
times

# %%
times.claim("float32", faster_than="float64")

# %%
# What breaks
# -----------
# A whole module saved with ``torch.save(network)`` is a pickle, which can run anything when it is read. Since the
# default became ``weights_only=True`` torch refuses it, and the refusal is right: save the ``state_dict``.

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
    raise AssertionError("torch now loads a whole module with weights_only=True: update this section, What breaks")

# %%
# Takeaway
# --------
# Small network, few samples: L-BFGS on all of them, seconds, and the same result at each run. The exception is a
# network or a set of samples so large that a pass over all of it is dear: then take minibatches and Adam, and fix the
# seeds, since the path depends on the draw.
