r"""
How do I put a Laplacian into a loss?
=====================================

The Laplacian is the sum of the second derivatives. For :math:`u(x) = x_1^2 + x_2^2` it is :math:`2 + 2 = 4`. Many
equations of physics contain it, such as :math:`\Delta u + f = 0`, where :math:`f` is known and :math:`u` is unknown.

A physics-informed network solves such an equation by training. The network is :math:`u`. The loss is the mean square of
:math:`\Delta u + f`, the residual, at many points. If the residual is zero, the network solves the equation. So each
training step needs the Laplacian at every point, and its gradient with respect to the parameters. With 2 inputs, a
Laplacian costs about 4 evaluations: one for the value, 2 for the first derivatives and one for the sum of the second
ones. The activation must be smooth: with ReLU, all second derivatives are zero.

**Answer:** Call ``vmap(laplacian(u))(X)`` with :func:`funcdiff.laplacian`, which gives one number for each point. Call
``backward()`` as on any other loss. The parameters must require gradients, as they do by default.

.. code-block:: python

    from torch.func import vmap
    from funcdiff import laplacian

    u = lambda x: network(x).squeeze(-1)  # one point to one number, of shape ()
    residual = vmap(laplacian(u))(points) + f(points)  # one number for each point
    residual.square().mean().backward()
    # laplacian(u)(x) is torch.func.hessian(u)(x).trace(), without the whole matrix
"""

# %%
# Use it
# ------
# We solve the equation on the unit square, with :math:`u = 0` on its edge. To be able to check the result, we choose a
# solution first: :math:`u = \sin(\pi x_1) \sin(2 \pi x_2)`. Its Laplacian is :math:`-5 \pi^2 u`. So we set
# :math:`f = 5 \pi^2 \sin(\pi x_1) \sin(2 \pi x_2)`, and the network does not know :math:`u`.
#
# On the edge, one of :math:`x_1, 1 - x_1, x_2, 1 - x_2` is zero. We multiply the network by all four. So it is zero on
# the edge, whatever its parameters are.

import torch
from torch import nn
from torch.func import vmap

from funcdiff import laplacian

torch.manual_seed(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
like = {"dtype": torch.float64, "device": device}


def exact(x):
    return torch.sin(torch.pi * x[..., 0]) * torch.sin(2 * torch.pi * x[..., 1])


def layers(n, activation=nn.Tanh):
    hidden = [nn.Linear(n, 20), activation(), nn.Linear(20, 20), activation()]
    return nn.Sequential(*hidden, nn.Linear(20, 1)).to(**like)


def zero_on_the_edge(network):
    def u(x):
        factor = (x * (1 - x)).prod(-1)  # zero if any entry of x is 0 or 1
        return factor * network(x).squeeze(-1)

    return u


network = layers(2)
solution = zero_on_the_edge(network)
points = torch.rand(256, 2, **like)
print("Laplacian at each point:", tuple(vmap(laplacian(solution))(points).shape))

# %%
# We train on these 256 points with L-BFGS. Its ``step`` takes a function, here ``closure``, which computes the loss and
# its gradient.

optimizer = torch.optim.LBFGS(
    network.parameters(),
    max_iter=200,
    history_size=50,
    tolerance_change=0,
    line_search_fn="strong_wolfe",
)


def mean_square_residual():
    residual = vmap(laplacian(solution))(points) + 5 * torch.pi**2 * exact(points)
    return residual.square().mean()


def closure():
    optimizer.zero_grad()
    loss = mean_square_residual()
    loss.backward()
    return loss


print(f"mean square residual before: {mean_square_residual().item():.2g}")
optimizer.step(closure)
print(f"mean square residual after:  {mean_square_residual().item():.2g}")

# %%
# The residual is now small at the points of the training. Is the network close to the solution elsewhere, too? We
# compare them on a grid.

from funcdiff.plots import plot_maps

axis = torch.linspace(0, 1, 65, **like)
grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
with torch.no_grad():
    values = solution(grid)
error = values - exact(grid)
largest = error.abs().max().item()
assert largest < 0.02

plot_maps(
    (axis.cpu(), axis.cpu()),
    torch.stack([values, error], -1).cpu(),
    panels=["network", "network minus exact solution"],
    labels=("x₁", "x₂"),
    title=f"The network solves the equation, with errors up to {largest:.2g}",
)

# %%
# The two panels have different colour scales. The errors on the right are far smaller than the values on the left.
#
# Check it by hand
# ----------------
# In plain autograd you compute one gradient, and then differentiate each of its entries once more. You can sum over the
# points first, because the value at one point does not depend on the other points.


def by_autograd(u):
    def at_each_point(x):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(u(x).sum(), x, create_graph=True)
        total = 0
        for i, slope in enumerate(gradient.unbind(1)):
            (row,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
            total = total + row[:, i]
        return total

    return at_each_point


# %%
# We compare four methods: ``laplacian``, plain autograd, the trace of the Hessian, and the sum of
# :func:`funcdiff.hessian_diagonal`. Two functions have a Laplacian with a formula. For a network with one hidden layer
# :math:`t = \tanh(Wx + b)` and output weights :math:`v`, it is :math:`\sum_h -2 v_h t_h (1 - t_h^2) |W_h|^2`. For our
# exact solution it is :math:`-5 \pi^2 u`.

from funcdiff import hessian_diagonal, hessian_forward_over_reverse


def methods(u):
    whole = hessian_forward_over_reverse(u)
    return {
        "laplacian": vmap(laplacian(u)),
        "hessian_diagonal": vmap(lambda x: hessian_diagonal(u)(x).sum()),
        "trace of the Hessian": vmap(lambda x: whole(x).trace()),
        "by_autograd": by_autograd(u),
    }


first, last = nn.Linear(2, 20).to(**like), nn.Linear(20, 1, bias=False).to(**like)
t = torch.tanh(first(points))
expected = (-2 * t * (1 - t**2)) @ (last.weight[0] * first.weight.square().sum(1))

for method in methods(lambda x: last(torch.tanh(first(x))).squeeze(-1)).values():
    torch.testing.assert_close(method(points), expected)
for method in methods(exact).values():
    torch.testing.assert_close(method(points), -5 * torch.pi**2 * exact(points))

# %%
# Count
# -----
# A training step computes the mean square of the Laplacian and its gradient with respect to all parameters.
# ``laplacian`` uses :term:`Taylor mode`: it carries the sum of the second derivatives through the network, and computes
# no Hessian. We count a step with two inputs.

from functools import partial

from funcdiff.measure import compare, count, sweep
from funcdiff.plots import plot


def steps(network):
    def step(method, x):
        loss = method(x).square().mean()
        return torch.autograd.grad(loss, list(network.parameters()))

    u = zero_on_the_edge(network)
    return {name: partial(step, method) for name, method in methods(u).items()}


count(steps(network), points)

# %%
# With two inputs, the FLOPs (floating-point operations) differ by less than a factor of two. With sixteen inputs they
# differ more:

many = torch.rand(256, 16, **like)
costs = count(steps(layers(16)), many)
costs

# %%
# At each point, the Hessian contains 16 x 16 = 256 second derivatives. The Laplacian needs only 16 of them.

costs.claim("laplacian", fewer_flops_than="trace of the Hessian", by=2)

# %%
# Plain autograd starts its operations again for each input:

costs.claim("laplacian", fewer_operations_than="by_autograd", by=10)

# %%
# It also keeps the intermediate results of each derivative in memory:

costs.claim("laplacian", smaller_peak_than="by_autograd", by=2)

# %%
# Time
# ----
# Do fewer FLOPs mean less time? We time a training step with two inputs.

times = compare(steps(network), points, rounds=15)
times

# %%
# This step needs little arithmetic, so most of the time is overhead. Plain autograd starts more operations, but each
# one starts sooner than inside ``vmap``. So we expect plain autograd to be faster here:

times.claim("by_autograd", faster_than="laplacian")

# %%
# Next we increase the number of inputs.


def with_inputs(n):
    return steps(layers(n)), (torch.rand(256, n, **like),)


study = sweep(with_inputs, [2, 4, 8, 16], label="inputs n", rounds=9)
plot(study)

# %%
# Compare the slopes. The time of plain autograd grows faster, because it repeats its operations for each input. In
# the table under the figure, a star marks the smallest median. The title names a method only for sizes at which it is
# faster than all others beyond the noise, so a star can stand where the title says nothing. From this number of inputs
# on (between two sizes, it is interpolated), ``laplacian`` is the faster of the two:

study.crossover("by_autograd", "laplacian")

# %%
# With sixteen inputs we expect ``laplacian`` to be faster:

study[16].claim("laplacian", faster_than="by_autograd")

# %%
# We expect it to be faster than the trace of the Hessian, too:

study[16].claim("laplacian", faster_than="trace of the Hessian")

# %%
# What goes wrong
# ---------------
# *The activation is not smooth.* A ReLU network consists of straight pieces, so its own second derivatives are zero,
# for all parameters. Training cannot bend it to reduce the residual, and no error is raised. We take the network alone,
# without the factor that is zero on the edge:

straight = layers(2, nn.ReLU)
for name, method in methods(lambda x: straight(x).squeeze(-1)).items():
    largest = method(points).abs().max().item()
    print(f"{name:22} largest Laplacian: {largest}")
    assert largest == 0, "ReLU has curvature now: update this section"

# %%
# Takeaway
# --------
# Write the function for one point, use a smooth activation, and train through ``vmap(laplacian(u))(X)``.
#
# * If there are few inputs and the network is small, plain autograd may be faster: compare both, as above.
# * If the value at one point depends on other points, as with batch norm in training mode, do not sum over the points
#   as plain autograd does above: the result is then wrong.
