r"""
How do I put a Laplacian into a loss?
=====================================

The Laplacian is the sum of the second derivatives, :math:`\Delta u = \sum_i \partial^2 u / \partial x_i^2`. For
:math:`u(x) = x_1^2 + x_2^2` it is 4 everywhere. Many equations of physics contain it, such as :math:`-\Delta u = f`.

A physics-informed network is trained until :math:`\Delta u + f`, the residual of the equation, is small at many points.
Every training step then needs the Laplacian at each point, and differentiates it with respect to the parameters.

**Answer:** Call ``vmap(laplacian(u))(X)`` with :func:`funcdiff.laplacian`, which gives one number for each point. Then
train through it like through any other loss.

.. code-block:: python

    from torch.func import vmap
    from funcdiff import laplacian

    residual = vmap(laplacian(u))(points) + f(points)  # u maps one point to one number
    residual.square().mean().backward()
"""

# %%
# Use it
# ------
# Our equation is :math:`-\Delta u = f` on the unit square, with :math:`u = 0` on its edge. We choose :math:`f = 5 \pi^2
# u`, so that :math:`u = \sin(\pi x_1) \sin(2 \pi x_2)` is the solution. We multiply the network by :math:`x_1 (1 -
# x_1)\, x_2 (1 - x_2)`, so that it is zero on the edge for all parameters.

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
    return lambda x: (x * (1 - x)).prod(-1) * network(x).squeeze(-1)


network = layers(2)
solution = zero_on_the_edge(network)
points = torch.rand(256, 2, **like)
print("Laplacian at each point:", tuple(vmap(laplacian(solution))(points).shape))

# %%
# We train on these 256 points with L-BFGS. The loss is the mean square of the residual.

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
# The residual is small where we trained. We compare the network with the exact solution on a grid that it never saw.

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
# The two panels have different colour scales: the errors on the right are far smaller than the values on the left.
#
# Check it by hand
# ----------------
# Plain autograd needs one gradient, and then one more derivative for each input. It may sum over the points, because no
# point's value depends on another point.


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
# We compare ``laplacian`` with three other methods: plain autograd, the trace of the Hessian, and the sum of
# :func:`funcdiff.hessian_diagonal`. For one hidden layer :math:`v \cdot t` with :math:`t = \tanh(Wx + b)`, the
# Laplacian is :math:`\sum_h -2 v_h t_h (1 - t_h^2) |W_h|^2`; for our exact solution it is :math:`-5 \pi^2 u`.

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
# A training step differentiates the mean square of the Laplacian with respect to all parameters. ``laplacian`` carries
# the sum of the second derivatives through the network (Taylor mode), and computes no Hessian. We count a step with two
# inputs.

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
# With two inputs the methods differ little in FLOPs. With sixteen inputs they differ more:

many = torch.rand(256, 16, **like)
costs = count(steps(layers(16)), many)
costs

# %%
# The Hessian contains 256 second derivatives for each point, of which the Laplacian needs 16.

costs.claim("laplacian", fewer_flops_than="trace of the Hessian", by=2)

# %%
# Plain autograd starts its operations again for each input:

costs.claim("laplacian", fewer_operations_than="by_autograd", by=10)

# %%
# It also keeps the graph of each derivative:

costs.claim("laplacian", smaller_peak_than="by_autograd", by=2)

# %%
# Time
# ----
# Do fewer FLOPs mean less time? We time a training step with two inputs.

times = compare(steps(network), points, rounds=15)
times

# %%
# There is so little arithmetic here that overhead decides. Plain autograd has little of it, so we expect it to win:

times.claim("by_autograd", faster_than="laplacian")

# %%
# Next we increase the number of inputs.


def with_inputs(n):
    return steps(layers(n)), (torch.rand(256, n, **like),)


study = sweep(with_inputs, [2, 4, 8, 16], label="inputs n", rounds=9)
plot(study)

# %%
# Compare the slopes: plain autograd repeats its operations for each input. The crossover is where ``laplacian`` becomes
# the faster of the two:

study.crossover("by_autograd", "laplacian")

# %%
# With sixteen inputs we expect ``laplacian`` to be faster:

study[16].claim("laplacian", faster_than="by_autograd")

# %%
# We expect the same against the trace of the Hessian:

study[16].claim("laplacian", faster_than="trace of the Hessian")

# %%
# What goes wrong
# ---------------
# *An activation that is not smooth.* ReLU consists of straight pieces, so its second derivative is zero wherever it
# exists. The Laplacian of a ReLU network is zero for all parameters, the loss has nothing to learn from, and no error
# is raised.

straight = layers(2, nn.ReLU)
for name, method in methods(lambda x: straight(x).squeeze(-1)).items():
    largest = method(points).abs().max().item()
    print(f"{name:22} largest Laplacian: {largest}")
    assert largest == 0, "ReLU has curvature now: update this section"

# %%
# Takeaway
# --------
# Write the function for one point, call ``vmap(laplacian(u))(X)``, and train through it with a smooth activation.
#
# * If there are few inputs and the network is small, plain autograd may be faster: compare both, as above.
# * If the points influence each other, as with batch norm in training mode, do not sum over the points as plain
#   autograd does above: its result is then wrong.
