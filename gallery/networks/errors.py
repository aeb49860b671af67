r"""
How wrong are the derivatives of my network?
============================================

The error of a network is usually a small wave around the function. Suppose this wave is :math:`0.01 \sin(10 x)`. Then
the values are wrong by up to 0.01. The slope of the wave is :math:`0.1 \cos(10 x)`, so the first derivatives are wrong
by up to 0.1. The second derivatives are wrong by up to 1. So one number for "the error" is not enough: each order of
derivatives needs its own.

The place matters as well. Near the edge of the domain there are samples on one side only, so the network is less
constrained there. We state an error as one number, the root mean square (RMS) of the differences from the exact
derivatives, divided by the RMS of the exact derivatives. So 0.1 means an error of a tenth. You need exact derivatives
for this, or at least better ones, for example finite differences of the simulation.

**Answer:** Compute the derivatives with ``batch_jacobian(network)(X)`` and ``batch_hessian(network)(X)``, at points
that were not fitted. Call :func:`funcdiff.errors.error_table`, which states an error for each order, inside the domain
and near its edge. The error grows with the order and is largest near the edge.

.. code-block:: python

    from funcdiff import batch_jacobian
    from funcdiff.errors import error_table, near_edge
    from torch.func import jacfwd, vmap

    edge = near_edge(X, low, high)  # booleans, one for each point
    slopes = batch_jacobian(network)(X), exact  # computed, exact
    error_table({"slopes": slopes}, {"inside": ~edge, "edge": edge})

    wrong = vmap(jacfwd(network))(X) - exact  # in torch alone
    print(wrong.square().mean().sqrt() / exact.square().mean().sqrt())
"""

# %%
# Use it
# ------
# Our function has three outputs. Its two inputs lie in :math:`(-2, 2)` and :math:`(-1, 1)`:
#
# .. math::
#
#     F(x_1, x_2) = \left(\sin(2 x_1) \cos(\pi x_2), \; e^{-x_1^2 - x_2^2}, \; x_1^2 x_2 + \frac{1}{3} x_2^3\right).
#
# The network has two hidden layers of 100 units with GELU. We train it on 500 samples. The samples and the initial
# weights are random, but the seeds are fixed.

# sphinx_gallery_thumbnail_number = 6
import torch

from funcdiff import batch_hessian, batch_jacobian
from funcdiff.errors import error_table, near_edge, relative_error, rms
from funcdiff.problems import study_network, surface, surface_hessian, surface_jacobian
from funcdiff.surrogates import train, uniform

low, high = torch.tensor([-2.0, -1.0]), torch.tensor([2.0, 1.0])


def trained():
    x = uniform(500, low.tolist(), high.tolist(), seed=1)
    network = study_network((2, 100, 100, 3), activation=torch.nn.GELU)
    train(network, x, surface(x), iterations=600)
    return network.double().eval().requires_grad_(False)


network = trained()
first, second = batch_jacobian(network), batch_hessian(network)

# %%
# We compute values and derivatives on a grid of 100 by 100 points, and put them beside the exact ones. ``near_edge``
# marks the points whose distance from the edge is less than a tenth of the width of the domain.

double = torch.float64
axes = [
    torch.linspace(-2, 2, 100, dtype=double),
    torch.linspace(-1, 1, 100, dtype=double),
]
grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
rows = grid.reshape(-1, 2)


def on_grid(derivative):
    return derivative(rows).unflatten(0, (100, 100))


pairs = {
    "values": (network(grid), surface(grid)),
    "first derivatives": (on_grid(first), surface_jacobian(grid)),
    "second derivatives": (on_grid(second), surface_hessian(grid)),
}
edge = near_edge(grid, low, high)
error_table(pairs, {"inside": ~edge, "near the edge": edge})

# %%
# Read the last column from top to bottom. It shows the error relative to the size of the exact values or derivatives.
# It grows with the order, and it is larger near the edge. We assert both for this run.

for region in (~edge, edge):
    sizes = []
    for found, exact in pairs.values():
        sizes.append(rms((found - exact)[region]) / rms(exact[region]))
    assert sizes == sorted(sizes)
for found, exact in pairs.values():
    assert rms((found - exact)[edge]) > rms((found - exact)[~edge])

# %%
# The errors grow with the order for the reason at the head of this page: the derivative of a wave is a larger wave.
#
# Check it by hand
# ----------------
# In torch alone, ``vmap`` of ``jacfwd`` gives the first derivatives. We subtract the exact ones and get the same
# errors.

from torch.func import jacfwd, vmap

by_hand = vmap(jacfwd(network))(rows) - surface_jacobian(rows)
torch.testing.assert_close(first(rows) - surface_jacobian(rows), by_hand)
print(f"RMS error of the first derivatives: {rms(by_hand):.3g}")

# %%
# Another training from the same seeds gives the same numbers.

torch.testing.assert_close(trained()(rows), network(rows), rtol=1e-3, atol=1e-6)

# %%
# Profiles of the errors
# ----------------------
# A profile shows the errors along one input, while the other input is fixed at 0.75. You can change these settings. A
# relative error is :math:`(f - F) / |F|` and becomes infinite where :math:`F` is zero. So we divide by
# :math:`|F| + 0.01` instead.

output = 0
along = 0
fixed_at = 0.75
relative = True

profile = torch.full((100, 2), fixed_at, dtype=double)
profile[:, along] = axes[along]

# %%
# The vertical axis of each panel is symmetric, so zero is in the middle.

from funcdiff.plots import derivative_names, plot_maps, plot_profiles

ORDER = {1: "first derivatives", 2: "second derivatives"}
LABELS = ("x₁", "x₂")


def show_profiles(order, found, exact):
    absolute = found - exact
    errors = relative_error(found, exact, eps=1e-2) if relative else absolute
    errors = errors[:, output]
    kind = "relative" if relative else "absolute"
    plot_profiles(
        axes[along],
        errors,
        panels=derivative_names(output, order),
        xlabel=LABELS[along],
        title=f"Largest {kind} error of the {ORDER[order]}: {errors.abs().max():.3g}",
        symmetric=True,
    )


show_profiles(1, first(profile), surface_jacobian(profile))

# %%
# A relative error is large where the exact derivative is nearly zero, even if the network is close to it. The second
# derivatives show more of these peaks.

show_profiles(2, second(profile), surface_hessian(profile))

# %%
# Maps of the errors
# ------------------
# A map shows the errors over the whole domain. We start with relative errors. The colours end at 1, where the error is
# as large as the derivative itself.


def show_maps(order, errors, title, limit=None):
    plot_maps(
        axes,
        errors,
        panels=derivative_names(output, order),
        labels=LABELS,
        title=title,
        limit=limit,
    )


def show_relative(order):
    found, exact = pairs[ORDER[order]]
    errors = relative_error(found, exact, eps=1e-2)[:, :, output]
    share = (errors.abs() > 1).double().mean()
    title = f"Relative errors of the {ORDER[order]}: above 1 at {share:.1%} of points"
    show_maps(order, errors, title, limit=1.0)


show_relative(1)

# %%
# The strong colours follow the lines where the exact derivative is zero. So they say little about the network.

show_relative(2)

# %%
# Absolute errors do not have this problem. The titles say how many times as large they are near the edge as inside.


def show_absolute(order):
    found, exact = pairs[ORDER[order]]
    errors = (found - exact)[:, :, output]
    factor = rms(errors[edge]) / rms(errors[~edge])
    title = f"Errors of the {ORDER[order]}: {factor:.3g} times as large near the edge"
    show_maps(order, errors, title)


show_absolute(1)

# %%
# The colours are strongest at the edges and in the corners. The same is true of the second derivatives:

show_absolute(2)

# %%
# Count
# -----
# What do the derivatives cost, compared with the values? We count the FLOPs (floating-point operations) on the whole
# grid.

from funcdiff.measure import compare, count

candidates = {"values": network, "batch_jacobian": first, "batch_hessian": second}
count(candidates, rows)

# %%
# In FLOPs, all first and second derivatives cost only a few evaluations.
#
# Time
# ----
# Do the times follow the FLOPs? We time a thousand of the points.

compare(candidates, rows[:1000], equal=False, rounds=8)

# %%
# Compare the ratios in this table with those of the FLOPs. They differ, because activations and copies of large tensors
# take time as well.
#
# What goes wrong
# ---------------
# *You compute a relative error without* :math:`\epsilon`, the small number in the denominator. It is infinite or
# undefined where the exact value is zero, however good the network is. At :math:`x_2 = 1`, the derivative of the first
# output with respect to :math:`x_2` is zero, up to rounding.

at_edge = profile.clone()
at_edge[:, 1] = 1.0
exact_slope = surface_jacobian(at_edge)[:, 0, 1]
print(f"largest exact slope there: {exact_slope.abs().max():.1e}")
without = relative_error(first(at_edge)[:, 0, 1], exact_slope, eps=0.0)
print(f"largest relative error without eps: {without.abs().max():.1e}")
assert without.abs().max() > 1e10, "this error stays finite: update this section"

# %%
# With :math:`\epsilon = 0.01` the error is finite. It is still large, and its size depends on :math:`\epsilon`:

within = relative_error(first(at_edge)[:, 0, 1], exact_slope, eps=1e-2)
print(f"largest relative error with eps = 0.01: {within.abs().max():.1e}")

# %%
# Takeaway
# --------
# State one error for each order of derivatives, and separately for the edge of the domain.
#
# * If you need derivatives near an edge, sample beyond the edge.
# * If you can also sample derivatives of the function, fit them too (:doc:`/tutorials/networks/lessons`).
