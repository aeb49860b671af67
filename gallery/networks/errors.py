r"""
How wrong are the derivatives of my network?
============================================

A fit oscillates about the function that it approximates. If its error is a wave :math:`a \sin(kx)`, the error of the
slope is :math:`a k \cos(kx)`, and that of the second derivative is :math:`-a k^2 \sin(kx)`. With :math:`a = 0.01` and
:math:`k = 10` the three errors have the sizes 0.01, 0.1 and 1. So one number for "the error" is not enough.

The place matters as well. Near the edge of the domain there are samples on one side only, so the fit is free to bend.

**Answer:** Compute the derivatives with ``batch_jacobian(network)(X)`` and ``batch_hessian(network)(X)``, on points
that were not fitted. State an error for each order, inside the domain and near its edge, with
:func:`funcdiff.errors.error_table`. The error grows with the order and is largest near the edge.

.. code-block:: python

    from funcdiff.errors import error_table, near_edge

    edge = near_edge(X, low, high)  # booleans, one for each point
    error_table({"slopes": (batch_jacobian(network)(X), exact)}, {"edge": edge})
"""

# %%
# Use it
# ------
# The function is, on :math:`(-2, 2) \times (-1, 1)`,
#
# .. math::
#
#     F(x_1, x_2) = \left(\sin(2 x_1) \cos(\pi x_2), \; e^{-x_1^2 - x_2^2}, \; x_1^2 x_2 + \frac{1}{3} x_2^3\right).
#
# We train a network 2 -> 100 -> 100 -> 3 with GELU on 500 samples of it. The samples and the start of the training are
# random, with fixed seeds.

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
# We compute values and derivatives on a grid of 100 by 100 points, and pair them with the exact ones. A point counts as
# near the edge if its distance from it is less than a tenth of the width of the domain.

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
# Read the last column from top to bottom: relative to the size of what is approximated, the error grows with the order,
# and it is larger near the edge. Both statements are asserted for this run.

for region in (~edge, edge):
    sizes = []
    for found, exact in pairs.values():
        sizes.append(rms((found - exact)[region]) / rms(exact[region]))
    assert sizes == sorted(sizes)
for found, exact in pairs.values():
    assert rms((found - exact)[edge]) > rms((found - exact)[~edge])

# %%
# The errors grow with the order, as those of the wave at the head of this page do. They grow towards the edge, because
# there samples fix the wave on one side only.
#
# Check it by hand
# ----------------
# The error of the first derivatives is a difference. In torch alone, we compute it with ``vmap`` and ``jacfwd``.

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
# A profile shows one output along one input, while the other input is fixed. You can change these settings. Relative
# errors are :math:`(f - F) / (|F| + \epsilon)`. With :math:`\epsilon = 0.01` they stay finite where the function is
# zero.

output = 0
along = 0
fixed_at = 0.75
relative = True

profile = torch.full((100, 2), fixed_at, dtype=double)
profile[:, along] = axes[along]

# %%
# The limits of each panel are symmetric, so zero lies in the middle.

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
# A relative error is large where the exact derivative passes zero, even if the line of the network is close. The second
# derivatives show more of these peaks.

show_profiles(2, second(profile), surface_hessian(profile))

# %%
# Maps of the errors
# ------------------
# A map shows the error over the whole domain. First we draw relative errors. The colours end at 1, where the error is
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
# Strong colours follow the lines where the exact derivative is zero. They say little about the network.

show_relative(2)

# %%
# Absolute errors do not have this problem. The titles compare the edge with the inside of the domain.


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
# What do the derivatives cost, compared with the values? We count both on the whole grid, in FLOPs.

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
# Compare the ratios with those of the FLOPs: activations and copies of large tensors take time as well.
#
# What goes wrong
# ---------------
# *A relative error without* :math:`\epsilon` is infinite or undefined where the exact value is zero, however good the
# fit is. At :math:`x_2 = 1`, the first output does not change with :math:`x_2`, up to rounding.

at_edge = profile.clone()
at_edge[:, 1] = 1.0
exact_slope = surface_jacobian(at_edge)[:, 0, 1]
print(f"largest exact slope there: {exact_slope.abs().max():.1e}")
without = relative_error(first(at_edge)[:, 0, 1], exact_slope, eps=0.0)
print(f"largest relative error without eps: {without.abs().max():.1e}")
assert without.abs().max() > 1e10, "this error stays finite: update this section"

# %%
# With :math:`\epsilon` it is large but finite, and its size depends on :math:`\epsilon`:

within = relative_error(first(at_edge)[:, 0, 1], exact_slope, eps=1e-2)
print(f"largest relative error with eps = 0.01: {within.abs().max():.1e}")

# %%
# Takeaway
# --------
# Quote one error for each order of derivative, and quote it separately for the edge of the domain.
#
# * If you need derivatives near an edge, sample beyond the edge.
# * If you can also sample derivatives of the function, fit them too (:doc:`/tutorials/networks/lessons`).
