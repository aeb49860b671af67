r"""
Does a network that fits a function have its derivatives?
=========================================================

A network can match a function closely and still have wrong derivatives. Suppose its error is :math:`0.01 \sin(100 x)`.
The values are wrong by at most 0.01, and a plot looks perfect. But the derivative of this error is :math:`\cos(100 x)`,
so the slopes are wrong by up to 1. The second derivatives are wrong by up to 100.

So look at the derivatives before you use them. A profile shows them along a line through the domain. A map shows them
over the whole domain. In torch alone, ``vmap`` of ``jacfwd`` computes the first derivatives at every point of a grid,
and ``jacfwd`` of ``jacfwd`` the second ones. With 2 inputs, this needs up to :math:`(2 + 2)^2 = 16` evaluations at each
point. With :term:`Taylor mode`, which ``batch_hessian`` uses, a point needs about 1 + 2 + 3 = 6: one for the value, 2
for the first derivatives and 3 for the second ones.

**Answer:** A network that fits a function usually has similar derivatives, but the second ones are less accurate than
the first. Compute all derivatives over a grid with ``batch_jacobian(network)(X)`` and ``batch_hessian(network)(X)``,
and draw them beside values that you trust.

.. code-block:: python

    from funcdiff import batch_hessian, batch_jacobian
    from torch.func import jacfwd, vmap

    X = grid.reshape(-1, 2)  # all points of a grid, one in each row
    first = batch_jacobian(network)(X)  # (points, outputs, 2)
    second = batch_hessian(network)(X)  # (points, outputs, 2, 2)
    first = vmap(jacfwd(network))(X)  # in torch alone: the same first derivatives
    second = vmap(jacfwd(jacfwd(network)))(X)  # and the second, at a higher cost
"""

# %%
# Use it
# ------
# Our function has three outputs. Its two inputs lie in :math:`(-2, 2)` and :math:`(-1, 1)`:
#
# .. math::
#
#     F(x_1, x_2) = \left(\sin(2 x_1) \cos(\pi x_2), \; e^{-x_1^2 - x_2^2}, \; x_1^2 x_2 + \frac{1}{3} x_2^3\right)
#
# A network that is trained to replace a function is called a :term:`surrogate`. Ours has two hidden layers of 100 units
# with GELU. We train it on 500 samples, convert it to float64, and compute its derivatives at the samples.

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
# In torch alone, ``vmap`` of ``jacfwd`` gives the Jacobians of a batch, and ``jacfwd`` applied twice the Hessians. Both
# recipes agree with them. We can also differentiate the function itself, whose derivatives are known in closed form.

from torch.func import jacfwd, vmap

close = torch.testing.assert_close
close(first(points), vmap(jacfwd(network))(points))
close(second(points), vmap(jacfwd(jacfwd(network)))(points))
close(batch_jacobian(surface)(points), surface_jacobian(points))
close(batch_hessian(surface)(points), surface_hessian(points))

# %%
# Profiles
# --------
# We choose one output, here output 0, and move one input, here input 0. The other input is fixed at 0.75. You can
# change these three settings.

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
# In the titles of the figures, ``off`` is the relative error of the derivatives: the root mean square of the error,
# divided by the root mean square of the exact derivatives.

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
# The blue line is the network. The dashed grey line is the function. The next figure shows the second derivatives.

show_profiles(2, second(profile), surface_hessian(profile))

# %%
# The blue lines leave the dashed ones mainly at both ends, where the network has samples on one side only.
#
# Maps
# ----
# In a map, the first input grows to the right and the second one upwards. Red is positive and blue is negative. We
# start with the function itself.

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
# The next map shows the network. The dashed grey lines are level lines of the function. Where the network is right, the
# colours follow these lines.

map_first = first(rows).unflatten(0, (100, 100))
map_second = second(rows).unflatten(0, (100, 100))
assert map_first.shape == (100, 100, 3, 2)
assert map_second.shape == (100, 100, 3, 2, 2)

near = off(map_first[:, :, output], exact_first[:, :, output])
title = f"{ORDER[1]} of the network: off by {near}"
show_maps(1, map_first, title, exact_first[:, :, output])

# %%
# In the middle of the domain, the colours follow the lines. Near the edges they do not. The second derivatives differ
# more:

far = off(map_second[:, :, output], exact_second[:, :, output])
title = f"{ORDER[2]} of the network: off by {far}"
show_maps(2, map_second, title, exact_second[:, :, output])

# %%
# These are the relative errors for all three outputs:

print("first derivatives off by", off(map_first, exact_first))
print("second derivatives off by", off(map_second, exact_second))
first_error = rms(map_first - exact_first) / rms(exact_first)
assert first_error < rms(map_second - exact_second) / rms(exact_second)

# %%
# You can check one thing without knowing the exact derivatives. Every Hessian of a smooth function is symmetric,
# because mixed derivatives do not depend on the order.

close(map_second, map_second.mT)

# %%
# Count
# -----
# A map needs the derivatives at many points. What do they cost? We compare ``batch_hessian`` with ``jacfwd`` of
# ``jacfwd``, which is called forward over forward.

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
# ``batch_hessian`` uses Taylor mode. With 2 inputs, it computes 2 first and 3 second derivatives together with
# each value. Forward over forward computes some of them more than once:

costs.claim("batch_hessian", fewer_flops_than="forward over forward", by=2)

# %%
# Time
# ----
# Is the saving visible in time? We time a thousand of the points.

times = compare(candidates, rows[:1000], equal=False, rounds=8)
times

# %%
# Compare the two Hessians:

times.claim("batch_hessian", faster_than="forward over forward")

# %%
# What goes wrong
# ---------------
# *You draw a map the wrong way round.* A picture of a matrix has its first axis downwards. If you draw an array
# ``values[i, j]`` as it is, the map is transposed and upside down. If the function has symmetries, you may not notice.
# Here is the array of the second input. Its values change along the second axis, so a picture would show them growing
# to the right and not upwards:

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
# Before you use the derivatives of a fitted network, draw profiles and maps of them beside values that you trust.
#
# * If the activation is not smooth, such as ReLU, the network has no useful second derivatives.
# * If you need one number for each order, use :func:`funcdiff.errors.error_table` (:doc:`/tutorials/networks/errors`).
