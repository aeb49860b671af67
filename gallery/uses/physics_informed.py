r"""
How do I put a Laplacian into a loss?
=====================================

A physics-informed network solves a differential equation by making its residual small at many points. The residual
holds second derivatives in the inputs, and every training step differentiates them once more, in the parameters.

**Answer:** ``vmap`` over :func:`funcdiff.laplacian` gives one number for each point, and ``backward`` goes through it
as through any loss. It carries the sum of the second derivatives, never the Hessian.
"""

# %%
# The function
# ------------
# Poisson's equation :math:`-\Delta u = f` on the unit square, with :math:`u = 0` on its edge. We choose :math:`f` so
# that :math:`u = \sin(\pi x_1) \sin(2 \pi x_2)` solves it: :math:`f = 5 \pi^2 u`. The network is multiplied by
# :math:`x_1 (1 - x_1)\, x_2 (1 - x_2)`, so that it is zero on the edge whatever its parameters.

import torch
from torch import nn
from torch.func import vmap

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
like = {"dtype": torch.float64, "device": device}


def exact(x):
    return torch.sin(torch.pi * x[..., 0]) * torch.sin(2 * torch.pi * x[..., 1])


def layers(n, activation=nn.Tanh):
    """A network of n inputs and one output."""
    return nn.Sequential(nn.Linear(n, 20), activation(), nn.Linear(20, 20), activation(), nn.Linear(20, 1)).to(**like)


def zero_on_the_edge(network):
    return lambda x: (x * (1 - x)).prod(-1) * network(x).squeeze(-1)


# %%
# By hand
# -------
# For one hidden layer, :math:`v \cdot t` with :math:`t = \tanh(Wx + b)`, the Laplacian is
# :math:`\sum_h -2 v_h t_h (1 - t_h^2) |W_h|^2`. For any function, plain autograd does it with one more derivative for
# each input. The sum over the points is right because no point's value depends on another point.


def by_autograd(u, x):
    """The Laplacian at each row of x."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(u(x).sum(), x, create_graph=True)
    return sum(torch.autograd.grad(s.sum(), x, create_graph=True)[0][:, i] for i, s in enumerate(slope.unbind(1)))


shallow = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 1, bias=False)).to(**like)
points = torch.rand(256, 2, **like)
t = torch.tanh(shallow[0](points))
expected = (-2 * t * (1 - t**2)) @ (shallow[2].weight[0] * shallow[0].weight.square().sum(1))
torch.testing.assert_close(by_autograd(lambda x: shallow(x).squeeze(-1), points), expected)

# %%
# The recipes
# -----------
# Each takes the function of one point. ``laplacian`` pushes the value, :math:`n` first derivatives and the one sum of
# the second ones through the function. All agree with the formula, and, for a product that it does not cover, with
# the exact solution's :math:`-5 \pi^2 u`.

from functools import partial

from funcdiff import hessian_diagonal, hessian_forward_over_reverse, laplacian


def laplacians(u):
    """The ways to a Laplacian at each point of a batch."""
    return {
        "by_autograd": partial(by_autograd, u),
        "trace of the Hessian": vmap(lambda x: hessian_forward_over_reverse(u)(x).trace()),
        "hessian_diagonal": vmap(lambda x: hessian_diagonal(u)(x).sum()),
        "laplacian": vmap(laplacian(u)),
    }


for laplacian_of in laplacians(lambda x: shallow(x).squeeze(-1)).values():
    torch.testing.assert_close(laplacian_of(points), expected)
for laplacian_of in laplacians(exact).values():
    torch.testing.assert_close(laplacian_of(points), -5 * torch.pi**2 * exact(points))

# %%
# Prediction
# ----------
# A training step differentiates the mean square of the Laplacian in all parameters. Its cost with two inputs:

from funcdiff.measure import compare, count, sweep
from funcdiff.plots import plot

network = layers(2)


def steps(network):
    """One training step each way."""

    def step(laplacian_of, x):
        return torch.autograd.grad(laplacian_of(x).square().mean(), list(network.parameters()))

    return {name: partial(step, way) for name, way in laplacians(zero_on_the_edge(network)).items()}


count(steps(network), points)

# %%
# and with sixteen:

many = torch.rand(256, 16, **like)
costs = count(steps(layers(16)), many)
costs

# %%
costs.claim("laplacian", fewer_flops_than="trace of the Hessian", by=2)

# %%
costs.claim("laplacian", fewer_operations_than="by_autograd", by=10)

# %%
costs.claim("laplacian", smaller_peak_than="by_autograd", by=2)

# %%
# Measurement
# -----------
# A step with two inputs, and then with more.

times = compare(steps(network), points, rounds=15)
times

# %%
# The transforms start fewer operations, but each of them passes through more of torch's machinery. With so little
# arithmetic we expect plain autograd ahead.

times.claim("by_autograd", faster_than="laplacian")

# %%


def with_inputs(n):
    return steps(layers(n)), (torch.rand(256, n, **like),)


study = sweep(with_inputs, [2, 4, 8, 16], label="inputs n", rounds=9)
plot(study, title="Plain autograd pays for each input; the batched ways pay at the start")

# %%
study[16].claim("laplacian", faster_than="by_autograd")

# %%
study[16].claim("laplacian", faster_than="trace of the Hessian")

# %%
# The solution
# ------------
# We train on 256 random points with L-BFGS.

solution = zero_on_the_edge(network)
laplacian_of = laplacians(solution)["laplacian"]
optimiser = torch.optim.LBFGS(
    network.parameters(), max_iter=200, history_size=50, tolerance_change=0, line_search_fn="strong_wolfe"
)


def residual():
    return (laplacian_of(points) + 5 * torch.pi**2 * exact(points)).square().mean()


def closure():
    optimiser.zero_grad()
    loss = residual()
    loss.backward()
    return loss


print(f"mean square residual before: {residual().item():.2g}")
optimiser.step(closure)
print(f"mean square residual after:  {residual().item():.2g}")

# %%
# The residual is small where we trained. The exact solution says how wrong the network is elsewhere, on a grid that
# it never saw.

from funcdiff.plots import plot_maps

axis = torch.linspace(0, 1, 65, **like)
grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
with torch.no_grad():
    values = solution(grid)
error = values - exact(grid)
print(f"largest error: {error.abs().max().item():.1e}, of values up to {exact(grid).abs().max().item():.1f}")
assert error.abs().max() < 0.02

plot_maps(
    (axis.cpu(), axis.cpu()),
    torch.stack([values, error], -1).cpu(),
    panels=["network", "network minus exact solution"],
    labels=("x₁", "x₂"),
    title="The network solves the equation; its errors are far smaller than its values",
)

# %%
# What breaks
# -----------
# ReLU is linear in pieces. Its second derivative is zero wherever it has one, so the Laplacian of a ReLU network is
# zero, for all parameters. A residual made of it has nothing to learn from, and nothing is raised.

straight = layers(2, nn.ReLU)
for name, laplacian_of in laplacians(lambda x: straight(x).squeeze(-1)).items():
    flat = laplacian_of(points)
    print(f"{name:22} largest entry {flat.abs().max().item()}")
    assert not flat.any(), "ReLU has curvature now: update the section 'What breaks'"

# %%
# Takeaway
# --------
# Write the function for one point, take ``vmap`` over ``laplacian``, and train through it, with a smooth activation.
# The exceptions: where few inputs and a small network leave overhead as the whole cost, plain autograd may do as well
# (the claim above says), and where rows mix, as with batch norm, its sum over the points is wrong.
