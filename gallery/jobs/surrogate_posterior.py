r"""
How precise are the parameters that I infer with a surrogate?
=============================================================

A simulation computes what you would measure for given parameters, say an oscillation for a frequency and a damping. It
is slow, so you replace it by a network (a surrogate). Then you measure an oscillation, with noise. Which frequency and
damping fit the measurement, and how precisely do you know them, for example 2.0 ± 0.1?

The misfit says how far the network is from the measurement. Its minimum is at the most likely parameters. If it rises
steeply there, you know them precisely. For one parameter with the second derivative 100, the error bar is
:math:`1 / \sqrt{100} = 0.1`. This is right if the misfit is nearly a parabola over the length of the error bar.

**Answer:** Find the most likely parameters, and compute the :func:`funcdiff.hessian` of the misfit there. The inverse
of this matrix is the covariance of the parameters. The error bars are the square roots of its diagonal.

.. code-block:: python

    import torch
    from funcdiff import hessian

    # misfit: half the sum of the squared residuals, each divided by the noise
    covariance = torch.linalg.inv(hessian(misfit)(most_likely))
    error_bars = covariance.diag().sqrt()
"""

# %%
# Use it
# ------
# We train a network on 200 samples of an oscillation at eight times, of frequency :math:`x_1` and damping :math:`x_2`.

# sphinx_gallery_thumbnail_number = 4
import numpy as np
import torch
from torch.func import grad, vmap

from funcdiff import batch_hessian, batch_jacobian, fisher_operator, hessian
from funcdiff.errors import near_edge, rms
from funcdiff.problems import study_network
from funcdiff.surrogates import train, uniform

torch.set_default_dtype(torch.float64)


def simulation(x):
    t = torch.linspace(0.5, 4, 8)
    return torch.exp(-x[..., 1:] * t) * torch.cos(x[..., :1] * t)


box = [1.0, 0.1], [3.0, 1.5]
low, high = torch.tensor(box)
samples = uniform(200, *box, seed=1)
network = study_network((2, 50, 50, 8), activation=torch.nn.GELU)
train(network, samples, simulation(samples), iterations=600)
network.eval().requires_grad_(False)
others = uniform(2000, *box, seed=2)
error = rms(network(others) - simulation(others))
print(f"RMS error of the network on other samples: {error:.3f}")

# %%
# The measurement has noise with the standard deviation :math:`\sigma = 0.1`. We divide each residual by :math:`\sigma`,
# and the misfit is half the sum of their squares. The parameters with the smallest misfit are the most likely ones.

sigma, truth = 0.1, torch.tensor([2.0, 0.8])
generator = torch.Generator().manual_seed(0)
measured = simulation(truth) + sigma * torch.randn(8, generator=generator)


def misfit(x):
    return ((network(x) - measured) / sigma).square().sum(-1) / 2


# %%
# We start at the best of many random parameters, and make Newton steps to the minimum.

most_likely = others[misfit(others).argmin()]
for _ in range(10):
    curvature = hessian(misfit)(most_likely)
    most_likely = most_likely - torch.linalg.solve(curvature, grad(misfit)(most_likely))

covariance = torch.linalg.inv(curvature)
bars = covariance.diag().sqrt()
print(f"frequency {most_likely[0]:.2f} ± {bars[0]:.2f}, true {truth[0]}")
print(f"damping   {most_likely[1]:.2f} ± {bars[1]:.2f}, true {truth[1]}")

# %%
# The error bars come from a parabola at the minimum of the misfit. This is called the Laplace approximation.
# How precise can a measurement be at other parameters? This follows from the Jacobian :math:`J` of the network alone.
# The matrix :math:`J^T J / \sigma^2`, the Fisher information, takes the place of the Hessian. We draw these error bars.

from funcdiff.plots import plot_curves, plot_maps

LABELS = ("frequency x₁", "damping x₂")


def grid_between(low, high, number):
    axes = torch.linspace(0, 1, number)[:, None] * (high - low) + low
    return axes.T, torch.stack(torch.meshgrid(*axes.T, indexing="ij"), dim=-1)


def error_bars(model, x):
    slopes = batch_jacobian(model)(x) / sigma
    return torch.linalg.inv(slopes.mT @ slopes).diagonal(dim1=1, dim2=2).sqrt()


axes, grid = grid_between(low, high, 80)
rows = grid.reshape(-1, 2)
spread = error_bars(network, rows).reshape(80, 80, 2)
ratio = spread[:, 60:].mean((0, 1)) / spread[:, :20].mean((0, 1))
plot_maps(
    axes,
    spread,
    panels=["error bar of x₁", "error bar of x₂"],
    labels=LABELS,
    title=f"Error bars grow with the damping: {ratio[0]:.2g}× and {ratio[1]:.2g}×",
    signed=False,
)

# %%
# Both grow upwards: with strong damping the oscillation soon ends, and there is little to see.
#
# Sample the posterior
# --------------------
# Is the true distribution of the parameters (the posterior) symmetric, as Laplace assumes? We draw samples of it with
# the algorithm MALA. Each step goes along the gradient, adds noise, and is accepted or rejected.

gradients = grad(lambda x: misfit(x).sum())  # of all rows at once


def state(x):
    inside = ((x > low) & (x < high)).all(-1)
    return misfit(x).where(inside, torch.inf), x - 0.4 * gradients(x) @ covariance


def mala(x, steps):
    root, kept = torch.linalg.cholesky(0.8 * covariance), []

    def distance(to, mean):
        return torch.linalg.solve_triangular(root, (to - mean).T, upper=False).square()

    value, mean = state(x)
    for _ in range(steps):
        new = mean + torch.randn(x.shape, generator=generator) @ root.T
        new_value, new_mean = state(new)
        gain = (distance(new, mean) - distance(x, new_mean)).sum(0) / 2
        chance = (value - new_value + gain).exp()
        accept = torch.rand(len(x), generator=generator) < chance
        x, mean = new.where(accept[:, None], x), new_mean.where(accept[:, None], mean)
        value = new_value.where(accept, value)
        kept.append(x)
    return torch.stack(kept)


chains = mala(most_likely.expand(500, 2), steps=200)
accepted = (chains[1:] != chains[:-1]).any(-1).double().mean()
drawn = chains[50:].reshape(-1, 2)  # without the steps away from the start
print(f"{len(drawn)} samples, {accepted:.0%} of the proposals accepted")

# %%
# The figure shows the posterior on a grid and the samples. The dashed contours are the Laplace approximation.


def laplace_distance(x):  # squared: 95% are below 5.99 if Laplace is right
    return ((x - most_likely) @ curvature * (x - most_likely)).sum(-1)


around, near = grid_between(most_likely - 4 * bars, most_likely + 4 * bars, 41)
reach = (4.1 * torch.stack([-bars, bars], dim=1) + most_likely[:, None]).numpy()
found = torch.tensor(np.histogram2d(*drawn.T.numpy(), bins=41, range=reach)[0])
exact, laplace = (-misfit(near)).exp(), (-laplace_distance(near) / 2).exp()
share = (laplace_distance(drawn) < 5.99).double().mean()
assert share < 0.94
plot_maps(
    around,
    torch.stack([exact / exact.max(), found / found.max()], dim=-1),
    torch.stack([laplace, laplace], dim=-1),
    panels=["posterior on a grid", "samples by MALA"],
    labels=LABELS,
    title=f"Laplace's 95% region has {share:.1%} of the samples",
    signed=False,
)

# %%
# The posterior reaches further up than the symmetric contours. So their region contains fewer than 95% of the samples.
#
# Check it by hand
# ----------------
# The Hessian of the misfit has two parts, :math:`(J^T J + \sum_k r_k H_k) / \sigma^2`. Here :math:`r` is the residual,
# and :math:`H_k` is the Hessian of output :math:`k` of the network. The first part is the Fisher information.

one = most_likely[None]
J, residual = batch_jacobian(network)(one)[0], network(most_likely) - measured
bending = torch.einsum("k,kij->ij", residual, batch_hessian(network)(one)[0])
torch.testing.assert_close(curvature, (J.T @ J + bending) / sigma**2)
fisher = fisher_operator(lambda x: network(x) / sigma, most_likely) @ torch.eye(2)
torch.testing.assert_close(fisher, J.T @ J / sigma**2)

# %%
# We also check the samples. Their mean and deviation agree with those of the posterior on a fine grid of the whole box.

_, fine = grid_between(low, high, 400)
weights = (-misfit(fine)).exp()[..., None] / (-misfit(fine)).exp().sum()
mean = (weights * fine).sum((0, 1))
deviation = (weights * (fine - mean).square()).sum((0, 1)).sqrt()
assert ((drawn.mean(0) - mean).abs() < 0.1 * deviation).all()
torch.testing.assert_close(drawn.std(0), deviation, rtol=0.05, atol=0)

# %%
# Count
# -----
# What do the derivatives cost? We count them at 1000 points of the box.

from funcdiff.measure import compare, count

candidates = {
    "misfit": misfit,
    "gradient": gradients,
    "batch_jacobian": batch_jacobian(network),
    "batch_hessian": batch_hessian(misfit),
    "torch.func.hessian": vmap(torch.func.hessian(misfit)),
}
count(candidates, others[:1000])

# %%
# All Hessians together cost a few evaluations of the misfit.
#
# Time
# ----
# We time the same calls.

times = compare(candidates, others[:1000], equal=False, rounds=8)
times

# %%
# Compare the two Hessians:

times.claim("batch_hessian", faster_than="torch.func.hessian")

# %%
# What goes wrong
# ---------------
# *The derivatives of the network are wrong near the edge.* Here we know the simulation, so we can compute the right
# error bars. The map shows the relative error of the error bars from the network.

gap = error_bars(network, rows) / error_bars(simulation, rows) - 1
edge = near_edge(rows, low, high)
off = [(gap[region].abs() > 0.1).double().mean() for region in (edge, ~edge)]
plot_maps(
    axes,
    gap.reshape(80, 80, 2),
    panels=["relative error for x₁", "relative error for x₂"],
    labels=LABELS,
    title=f"Off by over 10%: {off[0]:.0%} of points near the edge, {off[1]:.1%} inside",
    limit=0.5,
)
assert off[0] > off[1]

# %%
# The blue error bars are too small. We make 1000 measurements and count how often the 95% region contains the true
# parameters. *The network's error is larger than the noise.* So one curve adds the network's error to the noise.

true = uniform(1000, [1.2, 0.24], [2.8, 1.36], seed=3)
unit = torch.randn(1000, 8, generator=generator)


def coverage(model, noise, assumed):
    data, x = simulation(true) + noise * unit, true
    for _ in range(10):
        residual = (model(x) - data)[..., None]
        step = torch.linalg.lstsq(batch_jacobian(model)(x), residual).solution[..., 0]
        x = x - step.clamp(-0.3, 0.3)
    moved = batch_jacobian(model)(x) @ (x - true)[..., None] / assumed
    return (moved.square().sum((1, 2)) < 5.99).double().mean()


sigmas = np.geomspace(0.001, 0.1, 7)
curves = {
    "simulation": [coverage(simulation, s, s) for s in sigmas],
    "network": [coverage(network, s, s) for s in sigmas],
    "with error": [coverage(network, s, np.hypot(s, error)) for s in sigmas],
}
worst = curves["network"][0]
plot_curves(
    {name: (sigmas, np.array(curve)) for name, curve in curves.items()},
    xlabel="standard deviation of the noise",
    ylabel="share of regions that are right",
    title=f"With little noise, the network's regions are right in {worst:.0%} of cases",
).set_xscale("log")
assert worst < 0.5 < 0.9 < curves["with error"][0]

# %%
# With little noise, the regions of the network are right only if the network's error is added.
#
# Takeaway
# --------
# The inverse Hessian of the misfit gives error bars. Add the network's error to the noise.
#
# * If the posterior is not Gaussian, sample it: MALA needs only gradients and one Hessian.
# * For error bars on weights, use the :doc:`Hessian of the loss </tutorials/hessians/loss_parameters>`.
# * If you have many parameters, use the products of :func:`funcdiff.fisher_operator` instead of matrices.
