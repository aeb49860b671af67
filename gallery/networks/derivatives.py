r"""
Does a network that fits a function have its derivatives?
=========================================================

A network is trained on values and then asked for slopes and curvatures, which it never saw. One figure of the values
would look perfect while the second derivatives are off by a large part of their size.

**Answer:** mostly, and less with each order: look at profiles and maps of the derivatives before you trust them. All
of them come from :func:`funcdiff.batch_jacobian` and :func:`funcdiff.batch_hessian`, over a grid in one call.
"""

# %%
# What to look at
# ---------------
# Any output, and any pair of inputs: change these. A profile varies one input and holds the others at 0.75.

output = 0
pair = (0, 1)
held_at = 0.75

# %%
# The function has two inputs in :math:`(-2, 2)` and :math:`(-1, 1)` and three outputs:
#
# .. math::
#
#     F(x_1, x_2) = \left(\sin(2 x_1) \cos(\pi x_2), \; e^{-x_1^2 - x_2^2}, \; x_1^2 x_2 + \frac{1}{3} x_2^3\right)
#
# The network in its place is 2 -> 100 -> 100 -> 3 with GELU, trained on 500 samples of it, in seconds, and then
# converted to float64.

# sphinx_gallery_thumbnail_number = 8
import torch

from funcdiff.problems import study_network, surface, surface_hessian, surface_jacobian
from funcdiff.surrogates import train, uniform

low, high = [-2.0, -1.0], [2.0, 1.0]
x = uniform(500, low, high, seed=1)
network = study_network((2, 100, 100, 3), activation=torch.nn.GELU)
train(network, x, surface(x), iterations=600)
network = network.double().eval().requires_grad_(False)  # we differentiate in the inputs alone

# %%
# By hand
# -------
# A Jacobian over a batch of points is ``vmap`` over the Jacobian at one; a Hessian is that of a Jacobian. We take
# forward mode twice, since there are fewer inputs than outputs.

from torch.func import jacfwd, vmap

jacobian_by_hand, hessian_by_hand = vmap(jacfwd(network)), vmap(jacfwd(jacfwd(network)))

# %%
# The recipes
# -----------
# The same, checked. On the function they give what its derivatives written out give; on the network, what ``vmap``
# gives.

from funcdiff import batch_hessian, batch_jacobian, hessian_forward_over_forward, jacobian_forward


def first(func):
    return batch_jacobian(func, jacobian=jacobian_forward)


def second(func):
    return batch_hessian(func, hessian=hessian_forward_over_forward)


points = x.double()
torch.testing.assert_close(first(surface)(points), surface_jacobian(points))
torch.testing.assert_close(second(surface)(points), surface_hessian(points))
torch.testing.assert_close(first(network)(points), jacobian_by_hand(points))
torch.testing.assert_close(second(network)(points), hessian_by_hand(points))

# %%
# Prediction
# ----------
# 100 points along a profile, 100 by 100 over a map. Forward over forward computes :math:`1 + n` columns of
# :math:`1 + n` passes, so for :math:`n = 2` a map of Hessians is about nine evaluations of it and what torch wastes:

from funcdiff.measure import compare, count

along = [torch.linspace(a, b, 100, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
grid = torch.full((100, 100, 2), held_at, dtype=torch.float64)
grid[..., pair[0]], grid[..., pair[1]] = torch.meshgrid(along[pair[0]], along[pair[1]], indexing="ij")
rows = grid.reshape(-1, 2)
costs = count({"values": network, "first": first(network), "second": second(network)}, rows)
costs

# %%
costs.claim("values", fewer_flops_than="second", by=9)

# %%
# Measurement
# -----------
# A thousand rows of it:

compare({"values": network, "first": first(network), "second": second(network)}, rows[:1000], equal=False, rounds=8)

# %%
# Profiles
# --------
# The function's first and second derivatives along the first input of the pair, by hand, and the network's.

profile = torch.full((100, 2), held_at, dtype=torch.float64)
profile[:, pair[0]] = along[pair[0]]
exact_first, exact_second = surface_jacobian(profile), surface_hessian(profile)
network_first, network_second = first(network)(profile), second(network)(profile)
print("first:", tuple(network_first.shape), " second:", tuple(network_second.shape))
assert network_first.shape == (100, 3, 2)
assert network_second.shape == (100, 3, 2, 2)

# %%

from funcdiff.plots import derivative_names, plot_maps, plot_profiles

names = {order: derivative_names(output, order) for order in (1, 2)}
labels = tuple(f"x{'₁₂'[i]}" for i in pair)


def show_profiles(values, order, title, reference=None):
    reference = None if reference is None else reference[:, output]
    plot_profiles(along[pair[0]], values[:, output], reference, panels=names[order], xlabel=labels[0], title=title)


show_profiles(exact_first, 1, "First derivatives of the function, along one input")

# %%

show_profiles(exact_second, 2, "Second derivatives of the function, along one input")

# %%
# The network's, over those of the function, which are dashed and grey:

show_profiles(network_first, 1, "First derivatives: the network over the function, dashed", exact_first)

# %%

show_profiles(network_second, 2, "Second derivatives: the network over the function, dashed", exact_second)

# %%
# Maps
# ----
# Over the whole domain. The first input runs to the right and the second upwards; red is above zero, blue below.

exact_first, exact_second = surface_jacobian(grid), surface_hessian(grid)
network_first = first(network)(rows).unflatten(0, (100, 100))
network_second = second(network)(rows).unflatten(0, (100, 100))
print("first:", tuple(network_first.shape), " second:", tuple(network_second.shape))
assert network_first.shape == (100, 100, 3, 2)
assert network_second.shape == (100, 100, 3, 2, 2)

# %%


def show_maps(values, order, title, reference=None):
    reference = None if reference is None else reference[:, :, output]
    axes = (along[pair[0]], along[pair[1]])
    plot_maps(axes, values[:, :, output], reference, panels=names[order], labels=labels, title=title)


show_maps(exact_first, 1, "First derivatives of the function")

# %%

show_maps(exact_second, 2, "Second derivatives of the function")

# %%
# The network's, with the level lines of the function's, dashed and grey:

show_maps(network_first, 1, "First derivatives of the network, level lines of the function", exact_first)

# %%

show_maps(network_second, 2, "Second derivatives of the network, level lines of the function", exact_second)

# %%
# The mixed derivatives of a smooth function do not depend on the order, and the two panels of a Hessian that hold them
# are equal. That is a check that needs no exact answer:

torch.testing.assert_close(network_second, network_second.mT)

# %%
# What breaks
# -----------
# A picture of a matrix has its first axis downwards. Drawn without a thought, a map is transposed and upside down, and
# on a function with symmetries one does not see it. A function of the second input alone shows it: in the picture of
# the raw array its values change from left to right.

of_second_input = grid[..., 1]
assert (of_second_input.diff(dim=0) == 0).all(), "raw rows: the first input, running downwards"
assert (of_second_input.diff(dim=1) > 0).all(), "raw columns: the second input, running to the right"

plot_maps(
    (along[0], along[1]),
    grid,
    panels=["the value is x₁", "the value is x₂"],
    labels=("x₁", "x₂"),
    title="The right way up: each input grows along its own axis",
)

# %%
# Takeaway
# --------
# A network that was fitted to values has derivatives of its own, and profiles and maps show at a glance where they are
# the function's. The exception is an activation that is not smooth: with ReLU there is no second derivative to look
# at. How large the errors are, in one number each, is the next question.
