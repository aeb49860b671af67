r"""
Does a network that fits a function have its derivatives?
=========================================================

A small error in the values can be a large error in the derivatives. Suppose the network misses the function by
:math:`0.01 \sin(100 x)`. The values are wrong by at most 0.01, and a plot looks perfect. But the slopes are wrong by up
to 1, and the second derivatives by up to 100.

So look at the derivatives themselves before you use them: along lines through the domain (profiles), and over the whole
domain (maps).

**Answer:** Mostly, and less with each order. Compute all derivatives over a grid with ``batch_jacobian(network)(X)``
and ``batch_hessian(network)(X)``, and draw them beside values that you trust.

.. code-block:: python

    from funcdiff import batch_hessian, batch_jacobian

    first = batch_jacobian(network)(grid.reshape(-1, 2))  # (points, outputs, 2)
    second = batch_hessian(network)(grid.reshape(-1, 2))  # (points, outputs, 2, 2)
"""

# %%
# Use it
# ------
# The function has two inputs in :math:`(-2, 2)` and :math:`(-1, 1)`, and three outputs:
#
# .. math::
#
#     F(x_1, x_2) = \left(\sin(2 x_1) \cos(\pi x_2), \; e^{-x_1^2 - x_2^2}, \; x_1^2 x_2 + \frac{1}{3} x_2^3\right)
#
# The network that replaces it, the :term:`surrogate`, is 2 -> 100 -> 100 -> 3 with GELU. We train it on 500 samples,
# which takes seconds, convert it to float64, and compute its derivatives at the samples.

# sphinx_gallery_thumbnail_number = 6
import torch

from funcdiff import batch_hessian, batch_jacobian
from funcdiff.problems import study_network, surface, surface_hessian, surface_jacobian
from funcdiff.surrogates import train, uniform

low, high = [-2.0, -1.0], [2.0, 1.0]
x = uniform(500, low, high, seed=1)
network = study_network((2, 100, 100, 3), activation=torch.nn.GELU)
train(network, x, surface(x), iterations=600)
network = network.double().eval().requires_grad_(False)

points = x.double()
first, second = batch_jacobian(network), batch_hessian(network)
print("first derivatives: ", tuple(first(points).shape))
print("second derivatives:", tuple(second(points).shape))

# %%
# Check it by hand
# ----------------
# In torch alone, the Jacobians of a batch are ``vmap`` of ``jacfwd``, and the Hessians apply ``jacfwd`` twice. Both
# recipes must agree with them. Applied to the function itself, they must agree with its derivatives by hand.

from torch.func import jacfwd, vmap

close = torch.testing.assert_close
close(first(points), vmap(jacfwd(network))(points))
close(second(points), vmap(jacfwd(jacfwd(network)))(points))
close(batch_jacobian(surface)(points), surface_jacobian(points))
close(batch_hessian(surface)(points), surface_hessian(points))

# %%
# Profiles
# --------
# A profile shows the derivatives of one output along one input, while the other input is fixed. You can change these
# three settings.

output = 0
along = 0
fixed_at = 0.75

double = torch.float64
span = [
    torch.linspace(-2, 2, 100, dtype=double),
    torch.linspace(-1, 1, 100, dtype=double),
]
profile = torch.full((100, 2), fixed_at, dtype=double)
profile[:, along] = span[along]
assert first(profile).shape == (100, 3, 2)
assert second(profile).shape == (100, 3, 2, 2)

# %%
# ``off`` is the error of the network relative to the size of the exact derivatives: one root mean square over the
# other. The titles of the figures state it.

from funcdiff.errors import rms
from funcdiff.plots import derivative_names, plot_maps, plot_profiles

labels = ("x₁", "x₂")
ORDER = {1: "First derivatives", 2: "Second derivatives"}


def off(values, exact):
    return f"{rms(values - exact) / rms(exact):.1%}"


def show_profiles(order, values, exact):
    values, exact = values[:, output], exact[:, output]
    plot_profiles(
        span[along],
        values,
        exact,
        panels=derivative_names(output, order),
        xlabel=labels[along],
        title=f"{ORDER[order]} along {labels[along]}: off by {off(values, exact)}",
    )


show_profiles(1, first(profile), surface_jacobian(profile))

# %%
# The line of the network is blue; that of the function is dashed and grey beneath it. The next figure shows the second
# derivatives in the same way.

show_profiles(2, second(profile), surface_hessian(profile))

# %%
# The blue lines leave the dashed ones mainly at both ends, where the network has samples on one side only.
#
# Maps
# ----
# A map shows a derivative over the whole domain. The first input runs to the right and the second one upwards; red is
# positive and blue is negative. We start with the function itself.

grid = torch.stack(torch.meshgrid(*span, indexing="ij"), dim=-1)
rows = grid.reshape(-1, 2)


def show_maps(order, values, title, exact=None):
    plot_maps(
        tuple(span),
        values[..., output, :] if order == 1 else values[..., output, :, :],
        exact,
        panels=derivative_names(output, order),
        labels=labels,
        title=title,
    )


exact_first, exact_second = surface_jacobian(grid), surface_hessian(grid)
largest = exact_first[:, :, output].abs().max()
show_maps(1, exact_first, f"{ORDER[1]} of the function, up to {largest:.2g}")

# %%
# These are its second derivatives. The two mixed ones are equal.

largest = exact_second[:, :, output].abs().max()
show_maps(2, exact_second, f"{ORDER[2]} of the function, up to {largest:.2g}")

# %%
# The next map shows the network. The dashed grey lines are level lines of the function, so colours and lines should
# follow each other.

map_first = first(rows).unflatten(0, (100, 100))
map_second = second(rows).unflatten(0, (100, 100))
assert map_first.shape == (100, 100, 3, 2)
assert map_second.shape == (100, 100, 3, 2, 2)

near = off(map_first[:, :, output], exact_first[:, :, output])
title = f"{ORDER[1]} of the network: off by {near}"
show_maps(1, map_first, title, exact_first[:, :, output])

# %%
# In the middle the colours follow the level lines, and near the edges they depart from them. The second derivatives
# depart more:

far = off(map_second[:, :, output], exact_second[:, :, output])
title = f"{ORDER[2]} of the network: off by {far}"
show_maps(2, map_second, title, exact_second[:, :, output])

# %%
# These are both numbers for all outputs:

print("first derivatives off by", off(map_first, exact_first))
print("second derivatives off by", off(map_second, exact_second))
first_error = rms(map_first - exact_first) / rms(exact_first)
assert first_error < rms(map_second - exact_second) / rms(exact_second)

# %%
# One check needs no exact answer: the mixed derivatives of a smooth function do not depend on the order, so that every
# Hessian is symmetric.

close(map_second, map_second.mT)

# %%
# Count
# -----
# A map needs the derivatives at many points. We count what they cost, and compare the automatic Hessian with forward
# over forward by name, which is ``jacfwd`` of ``jacfwd``.

from funcdiff import hessian_forward_over_forward
from funcdiff.measure import compare, count

by_name = batch_hessian(network, hessian=hessian_forward_over_forward)
candidates = {
    "values": network,
    "batch_jacobian": first,
    "batch_hessian": second,
    "forward over forward": by_name,
}
costs = count(candidates, rows)
costs

# %%
# With :math:`n = 2` inputs, Taylor mode computes :math:`n` first and :math:`n(n+1)/2 = 3` second derivatives together
# with each value. Forward over forward computes more than it needs:

costs.claim("batch_hessian", fewer_flops_than="forward over forward", by=2)

# %%
# Time
# ----
# Is the saving visible in time? We time a thousand of the points.

times = compare(candidates, rows[:1000], equal=False, rounds=8)
times

# %%
# This is the gain over forward over forward:

times.claim("batch_hessian", faster_than="forward over forward")

# %%
# What goes wrong
# ---------------
# *A map drawn the wrong way round.* A picture of a matrix has its first axis downwards. If you draw an array
# ``values[i, j]`` as it is, the map is transposed and upside down, and for a function with symmetries nobody notices.
# In the array of the second input, the values change along columns, so a picture would show them change to the right:

of_second_input = grid[..., 1]
assert (of_second_input.diff(dim=0) == 0).all(), "rows should not change it"
assert (of_second_input.diff(dim=1) > 0).all(), "columns should"

plot_maps(
    tuple(span),
    grid,
    panels=["the value is x₁", "the value is x₂"],
    labels=labels,
    title="Drawn correctly, each input grows along its own axis",
)

# %%
# ``plot_maps`` transposes the array and puts its origin at the bottom: x₁ grows to the right and x₂ upwards.
#
# Takeaway
# --------
# Before you use the derivatives of a fitted network, look at profiles and maps of them beside values that you trust.
#
# * If the activation is not smooth, as ReLU, there are no second derivatives to look at.
# * If you need one number for each order, use :func:`funcdiff.errors.error_table`
#   (:doc:`/tutorials/networks/errors`).
