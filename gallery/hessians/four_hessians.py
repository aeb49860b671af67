r"""
Which of the four ways to write a Hessian?
==========================================

A Hessian is a Jacobian of a Jacobian. Each of the two may be taken in forward or reverse mode, so there are four
ways to write one; on a small network the best and the worst differ by more than an order of magnitude.

**Answer:** of the four, forward over forward for few inputs and several outputs, and otherwise
:func:`funcdiff.hessian_forward_over_reverse`. With several outputs, never reverse on the outside. For few inputs a
fifth way, :func:`funcdiff.hessian_taylor`, does better than any composition.
"""

# %%
# The function
# ------------
# A layer :math:`f(x) = \tanh(Wx + b)`. We name a composition outer over inner: forward over reverse is the forward
# mode Jacobian of the reverse mode Jacobian.

import torch
from torch.func import jacfwd, jacrev
from torch.nn.functional import linear


def predict(weight, bias, x):
    return torch.tanh(linear(x, weight, bias))


weight, bias, x = torch.randn(32, 512) / 512**0.5, torch.randn(32), torch.randn(512)

# %%
# By hand
# -------
# With :math:`y = f(x)`, :math:`\tanh'' = -2 \tanh (1 - \tanh^2)`, so
# :math:`H_{ijk} = -2 y_i (1 - y_i^2) W_{ij} W_{ik}`: 32 matrices of 512 by 512. And any two of torch's Jacobians
# compose.

y = predict(weight, bias, x)
expected = torch.einsum("i,ij,ik->ijk", -2 * y * (1 - y**2), weight, weight)

torch.testing.assert_close(jacfwd(jacrev(predict, argnums=2), argnums=2)(weight, bias, x), expected)

# %%
# The recipes
# -----------
# One name for each composition. All four are compared with the formula; ``compare`` below will compare them again.

from funcdiff import (
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
    hessian_reverse_over_forward,
    hessian_reverse_over_reverse,
)

compositions = {
    "hessian_forward_over_reverse": hessian_forward_over_reverse,
    "hessian_forward_over_forward": hessian_forward_over_forward,
    "hessian_reverse_over_reverse": hessian_reverse_over_reverse,
    "hessian_reverse_over_forward": hessian_reverse_over_forward,
}
wide = {name: hessian(predict, argnums=2) for name, hessian in compositions.items()}

# %%
# Many inputs, few outputs: prediction and measurement
# ----------------------------------------------------
# The inner Jacobian costs 32 reverse passes or 512 forward ones; the outer one repeats that 512 times in forward
# mode, and in reverse mode once for each of the 32 x 512 entries of the inner. Counts are exact, and taken on torch's
# *meta* device, which knows shapes and no numbers: no arithmetic is done for them.

from funcdiff.measure import compare, count
from funcdiff.plots import plot

costs = count(wide, *(tensor.to("meta") for tensor in (weight, bias, x)))
costs

# %%
# A candidate that takes longer than the budget of a second is called once and marked, so that the page stays quick.

times = compare(wide, weight, bias, x, rounds=9, budget=1.0)
times

# %%
times.claim("hessian_forward_over_reverse", faster_than="hessian_forward_over_forward")

# %%
# The FLOPs alone would have said otherwise: of a single layer, forward over forward computes less. Here it is writing
# the many entries that takes the time; see the column *written*, and the peak:

costs.claim("hessian_forward_over_reverse", smaller_peak_than="hessian_forward_over_forward")

# %%
times.claim("hessian_forward_over_reverse", faster_than="hessian_reverse_over_reverse")

# %%
# Few inputs, several outputs
# ---------------------------
# A network 5 -> 1000 -> 1000 -> 25 with ELU, over a batch: what surrogate models of simulations look like. The
# Hessian is taken per row, with ``vmap``. First the counts at the full batch of 100, again on the meta device.

from funcdiff.problems import study_network

network = study_network().requires_grad_(False)  # we differentiate by the inputs alone
per_row = {name: torch.func.vmap(hessian(network)) for name, hessian in compositions.items()}
on_meta = study_network().requires_grad_(False).to("meta")
meta = {name: torch.func.vmap(hessian(on_meta)) for name, hessian in compositions.items()}

full = count(meta, torch.empty(100, 5, device="meta"))
full

# %%
# The order is another one: forward over forward needs the least arithmetic and the least memory, and the two with
# reverse mode outside need gigabytes.

full.claim("hessian_forward_over_forward", fewer_flops_than="hessian_forward_over_reverse", by=3)

# %%
full.claim("hessian_forward_over_forward", fewer_flops_than="hessian_reverse_over_reverse", by=50)

# %%
# For the clock we take 4 rows, so that the worst of the four takes part as well.

batch = torch.randn(4, 5)
times = compare(per_row, batch, rounds=9, budget=0.5)
times

# %%
times.claim("hessian_forward_over_forward", faster_than="hessian_reverse_over_reverse", by=10)

# %%
plot(times, title="One Hessian, four ways to write it: 5 inputs, 25 outputs, 4 rows")

# %%
# What breaks
# -----------
# Not all four are always right. With layer norm inside, both ways with forward mode on the *inside* return wrong
# numbers, and nothing is raised. A Hessian must be symmetric; here that alone gives them away or not, so we compare
# with the mode that is right.

normed = torch.nn.LayerNorm(4, dtype=torch.float64)


def cubic(x):
    return (normed(x) ** 3).sum()


point = torch.randn(4, dtype=torch.float64)
trusted = hessian_reverse_over_reverse(cubic)(point)
for name, hessian in compositions.items():
    error = (hessian(cubic)(point) - trusted).abs().max() / trusted.abs().max()
    print(f"{name:30} relative error {error:.1e}")

wrong = hessian_reverse_over_forward(cubic)(point)
assert not torch.allclose(wrong, trusted), "torch has mended layer norm: update this section"

# %%
# Takeaway
# --------
# Put forward mode outside. Inside, take the mode that suits the shape, as for a Jacobian; with a normalisation layer,
# a determinant or a linear solve inside the function take reverse mode, whatever the shape. The exceptions: an
# operation without a forward formula, where reverse over reverse is all there is; and few inputs, where no composition
# is needed, for :func:`funcdiff.hessian_taylor` computes each second derivative once; and a function with one output,
# where reverse over reverse makes as few passes as forward over reverse: measure.
