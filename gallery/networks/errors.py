r"""
How wrong are the derivatives of my network?
============================================

A network is fitted to values, its error is quoted for values, and its derivatives are then used as if the same number
held for them. It does not: each derivative enlarges what was missed.

**Answer:** state the error for each order, inside and near the edge of the domain, on points that were not fitted:
:func:`funcdiff.errors.error_table`. It grows with the order, and is worst at the edge, where samples lie on one side.
"""

# %%
# What to look at
# ---------------
# Any output and any input for the profile; relative errors, or absolute ones by a switch.

output = 0
along = 0
held_at = 0.75
relative = True

# %%
# The function and the network
# ----------------------------
# On :math:`(-2, 2) \times (-1, 1)`,
#
# .. math::
#
#     F(x_1, x_2) = \left(\sin(2 x_1) \cos(\pi x_2), \; e^{-x_1^2 - x_2^2}, \; x_1^2 x_2 + \frac{1}{3} x_2^3\right),
#
# and a network 2 -> 100 -> 100 -> 3 with GELU, trained on 500 samples of it. Nothing is drawn but the samples and the
# start, both from fixed seeds.

# sphinx_gallery_thumbnail_number = 6
import torch

from funcdiff.problems import study_network, surface, surface_hessian, surface_jacobian
from funcdiff.surrogates import train, uniform

low, high = torch.tensor([-2.0, -1.0]), torch.tensor([2.0, 1.0])


def trained():
    x = uniform(500, low.tolist(), high.tolist(), seed=1)
    network = study_network((2, 100, 100, 3), activation=torch.nn.GELU)
    train(network, x, surface(x), iterations=600)
    return network.double().eval().requires_grad_(False)


network = trained()

# %%
# By hand
# -------
# The derivatives of the function are written out in ``funcdiff.problems``. Against them, on a grid of 100 by 100
# points, the errors are differences:

from torch.func import jacfwd, vmap

axes = [torch.linspace(a, b, 100, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
rows = grid.reshape(-1, 2)
first_by_hand = vmap(jacfwd(network))(rows) - surface_jacobian(rows)
print("RMS error of the first derivatives:", first_by_hand.square().mean().sqrt().item())

# %%
# The recipes
# -----------
# Batched derivatives, equal to those by hand, and relative errors, :math:`(f - F) / (|F| + \epsilon)` with
# :math:`\epsilon = 0.01`, which keeps them finite where the function passes zero.

from funcdiff import batch_hessian, batch_jacobian, hessian_forward_over_forward, jacobian_forward
from funcdiff.errors import error_table, near_edge, relative_error, rms

first = batch_jacobian(network, jacobian=jacobian_forward)
second = batch_hessian(network, hessian=hessian_forward_over_forward)
torch.testing.assert_close(first(rows) - surface_jacobian(rows), first_by_hand)


def error(approximation, exact):
    return relative_error(approximation, exact, eps=1e-2) if relative else approximation - exact


# %%
# Prediction
# ----------
# Errors of a fit wave about zero. A wave of amplitude :math:`a` and wave number :math:`k` has slopes of size
# :math:`a k` and curvatures of size :math:`a k^2`: whatever waves faster than the function itself loses more with each
# order. And at the edge a wave is held by samples on one side only. What the derivatives cost is counted:

from funcdiff.measure import count

costs = count({"values": network, "first": first, "second": second}, rows)
costs

# %%
# Measurement
# -----------
# All entries of each order. Near the edge is what lies within a tenth of the domain's width from it.

pairs = {
    "value": (network(grid), surface(grid)),
    "first derivatives": (first(rows).unflatten(0, (100, 100)), surface_jacobian(grid)),
    "second derivatives": (second(rows).unflatten(0, (100, 100)), surface_hessian(grid)),
}
edge = near_edge(grid, low, high)
error_table(pairs, {"inside": ~edge, "near the edge": edge})

# %%
# Read along the last column: the error in units of the size of what is approximated grows with the order, inside and
# near the edge. Both are asserted of this run.

for region in (~edge, edge):
    errors = [rms((net - exact)[region]) / rms(exact[region]) for net, exact in pairs.values()]
    assert errors[0] < errors[1] < errors[2]
for net, exact in pairs.values():
    assert rms((net - exact)[edge]) > rms((net - exact)[~edge])

# %%
# The table repeats: another training from the same seeds gives the same numbers.

torch.testing.assert_close(trained()(rows), network(rows), rtol=1e-3, atol=1e-6)

# %%
# Profiles of the errors
# ----------------------
# Along one input, the other held at 1, which for the first input is the edge of the domain. Limits are symmetric, so
# that zero lies in the middle.

from funcdiff.plots import derivative_names, plot_maps, plot_profiles

profile = torch.full((100, 2), held_at, dtype=torch.float64)
profile[:, along] = axes[along]
names = {order: derivative_names(output, order) for order in (1, 2)}
kind = "Relative" if relative else "Absolute"


def show_profiles(approximation, exact, order, title):
    errors = error(approximation, exact)[:, output]
    label = f"x{'₁₂'[along]}"
    plot_profiles(axes[along], errors, panels=names[order], xlabel=label, title=title, symmetric=True)


show_profiles(first(profile), surface_jacobian(profile), 1, f"{kind} errors of the first derivatives")

# %%

show_profiles(second(profile), surface_hessian(profile), 2, f"{kind} errors of the second derivatives")

# %%
# Maps of the errors
# ------------------
# First the relative ones, whose colours end at 1: an error as large as the derivative itself. They stand out where the
# function's derivative passes zero, which says little about the network.


def show_maps(quantity, title, error, limit=None):
    errors = error(*pairs[quantity])[:, :, output]
    plot_maps(axes, errors, panels=names[errors.ndim - 2], labels=("x₁", "x₂"), title=title, limit=limit)


show_maps("first derivatives", "Relative errors of the first derivatives", relative_error, limit=1.0)

# %%

show_maps("second derivatives", "Relative errors of the second derivatives", relative_error, limit=1.0)

# %%
# And the absolute ones. The colours grow towards the edges and the corners.

show_maps("first derivatives", "Absolute errors of the first derivatives", torch.sub)

# %%

show_maps("second derivatives", "Absolute errors of the second derivatives", torch.sub)

# %%
# What breaks
# -----------
# A relative error without :math:`\epsilon` is no measure: where the exact value is zero, it is infinite or undefined,
# however good the fit. Here the first output does not change with the second input along its edge, up to rounding.

edge = profile.clone()
edge[:, 1] = 1.0
edge_slope = surface_jacobian(edge)[:, 0, 1]
print("exact slopes there are at most", edge_slope.abs().max().item())
without = relative_error(first(edge)[:, 0, 1], edge_slope, eps=0.0)
assert without.abs().max() > 1e10, "a relative error with eps = 0 stays finite: update this section, What breaks"
print("relative error without eps, at its largest:", without.abs().max().item())

# %%
# Takeaway
# --------
# One number for the values says little about the derivatives: give one for each order, apart for the edge. To use a
# network near an edge, sample beyond it. The exception is a function that one can also differentiate when sampling: fit
# the derivatives too, and measure what that buys.
