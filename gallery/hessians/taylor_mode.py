r"""
Taylor mode: a Hessian for the price of a few forward passes?
=============================================================

A Hessian is usually a Jacobian of a Jacobian: it takes every pair of inputs twice, although both give the same number,
and it pays for all passes of one derivative in each pass of the other.

**Answer:** yes, for few inputs: :func:`funcdiff.hessian_taylor` evaluates the function once and carries each distinct
second derivative along, :math:`1 + n + n(n+1)/2` passes for any number of outputs. A Laplacian takes :math:`2 + n`.
"""

# %%
# The function
# ------------
# A network 5 -> 1000 -> 1000 -> 25 with tanh, on a few rows; the Hessian of each row has shape (25, 5, 5).

import torch
from torch.func import vmap

from funcdiff.problems import study_network

torch.manual_seed(0)
network = study_network(activation=torch.nn.Tanh).requires_grad_(False)
batch = torch.randn(20, 5)

# %%
# By hand
# -------
# Let every value :math:`z` bring its derivatives along: the first ones :math:`z_i`, in the direction of each input, and
# the second ones :math:`z_{ij}`. A linear layer is its own derivative, so its weight acts on all of them alike. Where a
# scalar function :math:`g` acts on each entry,
#
# .. math::
#
#     g(z)_i = g'(z)\, z_i, \qquad g(z)_{ij} = g'(z)\, z_{ij} + g''(z)\, z_i z_j.
#
# For tanh, :math:`g' = 1 - g^2` and :math:`g'' = -2 g g'`. Since :math:`z_{ij} = z_{ji}`, only :math:`i \le j` travel.


def through_layer(layer, value, first, second, left, right):
    if isinstance(layer, torch.nn.Linear):
        return layer(value), first @ layer.weight.T, second @ layer.weight.T
    value = torch.tanh(value)
    slope = 1 - value**2
    bend = -2 * value * slope
    return value, slope * first, slope * second + bend * first[left] * first[right]


def by_hand(x):
    n = x.shape[-1]
    left, right = torch.triu_indices(n, n)
    value, first = x, torch.eye(n)[:, None].expand(n, *x.shape)
    second = torch.zeros(len(left), *x.shape)
    for layer in network:
        value, first, second = through_layer(layer, value, first, second, left, right)
    hessian = value.new_empty(n, n, *value.shape)
    hessian[left, right] = hessian[right, left] = second
    return hessian.movedim((0, 1), (-2, -1))


torch.testing.assert_close(by_hand(batch), vmap(torch.func.hessian(network))(batch))

# %%
# The recipes
# -----------
# :func:`funcdiff.hessian_taylor` does this for any function of torch operations. A Laplacian needs the sum of the
# :math:`z_{ii}` alone, and a sum obeys the same rule: one second-order coefficient instead of :math:`n(n+1)/2`. This is
# :func:`funcdiff.laplacian`.

from funcdiff import (
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
    hessian_reverse_over_reverse,
    hessian_taylor,
    laplacian,
)

recipes = {
    "hessian_taylor": hessian_taylor,
    "hessian_forward_over_forward": hessian_forward_over_forward,
    "hessian_forward_over_reverse": hessian_forward_over_reverse,
}
hessians = {"by hand": by_hand} | {name: vmap(recipe(network)) for name, recipe in recipes.items()}
trace = {
    f"trace of {name}": lambda x, h=h: h(x).diagonal(0, -2, -1).sum(-1)
    for name, h in hessians.items()
    if name != "by hand"
}
torch.testing.assert_close(hessians["hessian_taylor"](batch), by_hand(batch))
torch.testing.assert_close(vmap(laplacian(network))(batch), trace["trace of hessian_taylor"](batch))

# %%
# Prediction
# ----------
# In forward passes :math:`F`: one for the value, one for each of the 5 first derivatives, one for each of the 15 second
# ones; 25 outputs cost no more than one. Forward over reverse takes about :math:`(1 + n)(1 + m)`.

from funcdiff.measure import compare, count
from funcdiff.plots import plot

one_pass = count(network, batch).flops
costs = count(hessians | {"laplacian": vmap(laplacian(network))}, batch)
for name, cost in costs.items():
    print(f"{name:30} {cost.flops / one_pass:6.1f} F")

n = batch.shape[1]
q = n * (n + 1) // 2
assert costs["by hand"].flops == (1 + n + q) * one_pass

# %%
# The recipe computes a little less than the count by hand: at the first layer all second derivatives are still zero,
# and it knows. It needs no graph either, so its memory is that of the coefficients.

assert costs["hessian_taylor"].flops < (1 + n + q) * one_pass
assert costs["laplacian"].flops < (2 + n) * one_pass
costs

# %%
costs.claim("hessian_taylor", smaller_peak_than="hessian_forward_over_reverse", by=4)

# %%
# Measurement
# -----------

times = compare(hessians, batch, rounds=9)
times

# %%
times.claim("hessian_taylor", faster_than="hessian_forward_over_forward", by=1.5)

# %%
plot(times, title="One Hessian per row: 5 inputs, 25 outputs")

# %%
# And the Laplacian, against the trace of each Hessian:

sums = compare({"laplacian": vmap(laplacian(network)), **trace}, batch, rounds=9)
sums

# %%
sums.claim("laplacian", faster_than="trace of hessian_taylor")

# %%
sums.claim("laplacian", faster_than="trace of hessian_forward_over_reverse", by=10)

# %%
# Reading
# -------
# What the clock adds to the FLOPs is memory traffic: between two layers each of the 21 coefficients is read and
# written, by the elementwise rule more than once. See the column *written* above.
#
# What breaks
# -----------
# The number of second derivatives grows with :math:`n^2`. With many inputs and one output the inner gradient of forward
# over reverse is one pass, and symmetry is no match for that. We count, on the *meta* device.

many = study_network((50, 200, 200, 1), activation=torch.nn.Tanh).requires_grad_(False).to("meta")
point = torch.empty(100, 50, device="meta")
scalar = count({name: vmap(recipe(many)) for name, recipe in recipes.items()}, point)
scalar.claim("hessian_forward_over_reverse", fewer_flops_than="hessian_taylor", by=10)

# %%
# With one output even three inputs are too many: reverse over reverse makes a pass there and back for each row of the
# Hessian, which is :math:`2 (1 + n)`.

few = study_network((3, 200, 200, 1), activation=torch.nn.Tanh).requires_grad_(False).to("meta")
rows = {"hessian_reverse_over_reverse": hessian_reverse_over_reverse, "hessian_taylor": hessian_taylor}
scalar = count({name: vmap(recipe(few)) for name, recipe in rows.items()}, torch.empty(100, 3, device="meta"))
scalar.claim("hessian_reverse_over_reverse", fewer_flops_than="hessian_taylor")

# %%
# An operation without a rule
# ---------------------------
# Each operation needs a rule of its own. Without one (an RNN, a custom autograd function, a determinant) the recipe
# takes the whole Hessian by torch's own modes: the right numbers, at their price. It says so to its logger.

import logging
import sys

logger = logging.getLogger("funcdiff.taylor")
logger.setLevel(logging.INFO)
logger.addHandler(handler := logging.StreamHandler(sys.stdout))


def volume(x):
    return torch.linalg.det(x.view(3, 3))


x = torch.randn(9, dtype=torch.float64)
slow = hessian_taylor(volume)(x)
logger.removeHandler(handler)

# %%
# Of a determinant the Hessian is known: moving two entries of one row, or of one column, changes it linearly.

expected = hessian_forward_over_reverse(volume)(x)
torch.testing.assert_close(slow, expected)
blocks = slow.view(3, 3, 3, 3)
assert blocks.diagonal(0, 0, 2).abs().max() < 1e-12, "one row"
assert blocks.diagonal(0, 1, 3).abs().max() < 1e-12, "one column"

# %%
# Takeaway
# --------
# Count the passes: :math:`1 + n + n(n+1)/2` for Taylor mode, :math:`(1 + n)(1 + m)` for forward over reverse. With few
# inputs and several outputs take :func:`funcdiff.hessian_taylor`, and for a Laplacian :func:`funcdiff.laplacian`. The
# exception: with one output and three inputs or more, reverse mode inside takes fewer passes.
