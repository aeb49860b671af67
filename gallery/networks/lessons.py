r"""
What makes the derivatives of a network better?
===============================================

Training compares the network with the samples, and only with them: the loss is :math:`\sum_i |f(x_i) - y_i|^2`. Between
the samples the network may wiggle. A wiggle of :math:`0.01 \sin(100 x)` hardly changes the loss. But it changes the
slopes by up to 1, and the second derivatives by up to 100. So two networks with nearly the same loss can have very
different derivatives.

To leave less room for wiggles, use more samples, or a smooth activation. If you know the slopes :math:`J_i` at the
samples, you can also fit these: add :math:`\sum_i |\partial f(x_i) / \partial x_i - J_i|^2` to the loss. This is called
Sobolev training. Each step then costs several times as much, because it also differentiates the network.

**Answer:** Use a smooth activation and more samples, and penalize large weights only as much as the noise requires. If
you can sample derivatives, fit them too: ``train(network, x, y, slopes=J)``. Compare the networks by
``batch_jacobian(network)(X)`` and ``batch_hessian(network)(X)``, not by the loss.

.. code-block:: python

    import torch
    from funcdiff.surrogates import train

    train(network, x, y, slopes=J)  # J: (samples, outputs, inputs)
    # Its loss in torch alone:
    slopes = torch.func.vmap(torch.func.jacfwd(network))(x)
    loss = (network(x) - y).square().mean() + (slopes - J).square().mean()
"""

# %%
# Use it
# ------
# The function to fit has three outputs. Its two inputs lie in :math:`(-2, 2)` and :math:`(-1, 1)`:
#
# .. math::
#
#     F(x_1, x_2) = \left(\sin(2 x_1) \cos(\pi x_2), \; e^{-x_1^2 - x_2^2}, \; x_1^2 x_2 + \frac{1}{3} x_2^3\right).
#
# We train two networks with two hidden layers of 100 units on 500 samples. The first one fits the values. The second
# one also fits the slopes.

import torch
from torch import nn

from funcdiff import batch_hessian, batch_jacobian
from funcdiff.errors import rms, variant_table
from funcdiff.problems import study_network, surface, surface_hessian, surface_jacobian
from funcdiff.surrogates import jacobians, train, uniform

low, high = [-2.0, -1.0], [2.0, 1.0]
x, points = uniform(500, low, high, seed=1), uniform(1000, low, high, seed=2)


def fresh(activation=nn.GELU, dtype=torch.float32):
    return study_network((2, 100, 100, 3), activation=activation, dtype=dtype)


plain_network, sobolev_network = fresh(), fresh()
train(plain_network, x, surface(x), iterations=300)
train(sobolev_network, x, surface(x), slopes=surface_jacobian(x), iterations=300)

for name, network in {"plain": plain_network, "Sobolev": sobolev_network}.items():
    error = rms(batch_hessian(network)(points) - surface_hessian(points))
    print(f"{name} training: RMS error of the second derivatives {error:.3g}")

# %%
# In the rest of this page we change one thing at a time. The arguments of ``trained`` are what we change.


def trained(
    samples=500,
    noise=0.0,
    iterations=300,
    activation=nn.GELU,
    dtype=torch.float32,
    **options,
):
    x = uniform(samples, low, high, seed=1).to(dtype)
    draws = torch.Generator().manual_seed(3)
    y = surface(x) + noise * torch.randn(samples, 3, generator=draws).to(dtype)
    network = fresh(activation, dtype)
    train(network, x, y, iterations=iterations, **options)
    return network


# %%
# ``assess`` puts the values and derivatives of a network on a grid beside the exact ones. We assess both networks.

double = torch.float64
axes = torch.linspace(-2, 2, 50, dtype=double), torch.linspace(-1, 1, 50, dtype=double)
grid = torch.cartesian_prod(*axes)
exact = {
    "values": surface(grid),
    "first": surface_jacobian(grid),
    "second": surface_hessian(grid),
}


def derivatives(network, points=grid):
    first, second = batch_jacobian(network), batch_hessian(network)
    return {
        "values": network(points),
        "first": first(points),
        "second": second(points),
    }


def assess(network):
    found = derivatives(network.double().eval().requires_grad_(False))
    return {order: (found[order], exact[order]) for order in exact}


base, sobolev = assess(plain_network), assess(sobolev_network)
variant_table({"plain training": base, "Sobolev training": sobolev})

# %%
# Each number is the RMS error, divided by the RMS of the exact values or derivatives. If we fit the slopes, all three
# columns improve. But Sobolev training also costs more. Further down we compare at equal FLOPs.
#
# Check it by hand
# ----------------
# All these comparisons depend on the second derivatives of a network. We check these against differences of the first
# derivatives at two nearby points.

smooth, h = fresh(dtype=double).requires_grad_(False), 1e-5
step = torch.tensor([h, 0.0], dtype=double)
right, left = derivatives(smooth, grid + step), derivatives(smooth, grid - step)
difference = (right["first"] - left["first"]) / (2 * h)
second = derivatives(smooth)["second"][..., 0]
torch.testing.assert_close(second, difference, rtol=1e-5, atol=1e-7)

# %%
# Number of samples
# -----------------
# We train on 50, 150 and 500 samples.

variants = {f"{n} samples": assess(trained(n)) for n in (50, 150)}
variants["500 samples"] = base
variant_table(variants)

# %%
# More samples improve every column. With 50 samples instead of 500, the errors grow by these factors:


def ratio(worse, better, order):
    """RMS error of one variant over that of another."""
    return rms(torch.sub(*worse[order])) / rms(torch.sub(*better[order]))


for order in exact:
    factor = ratio(variants["50 samples"], base, order)
    print(f"{order}: with 50 samples the error is {factor:.3g} times as large")
    assert factor > 1

# %%
# Regularization
# --------------
# A penalty on the size of the weights makes the network smoother. Now the samples have noise, and we fit 100 of them.
# Without a penalty, the network follows the noise, which has steep slopes. With a large penalty, it does not follow the
# function either.

penalties = {"no penalty": 0.0, "penalty 3": 3.0, "penalty 100": 100.0}
noisy = {"samples": 100, "noise": 0.2}
regularized = {}
for name, decay in penalties.items():
    regularized[name] = assess(trained(**noisy, decay=decay))
variant_table(regularized)

# %%
# The error of the second derivatives is smallest for the middle penalty. With the others it is larger by these factors:

for name in ("no penalty", "penalty 100"):
    factor = ratio(regularized[name], regularized["penalty 3"], "second")
    print(f"{name}: {factor:.3g}")
    assert factor > 1

# %%
# Activation
# ----------
# We train with other activations. The first derivative of ReLU jumps from 0 to 1, and its second derivative is zero.

others = {kind.__name__: kind for kind in (nn.SiLU, nn.Tanh, nn.ReLU)}
others = {name: assess(trained(activation=kind)) for name, kind in others.items()}
variant_table({"GELU": base, **others})

# %%
# Look at the last row. The values of the ReLU network are about as close as those of the others. But its second
# derivatives are all zero, so their error is as large as the derivatives themselves.
#
# Precision
# ---------
# A float32 number has about seven digits. Is this enough for derivatives? We evaluate the same network in float32 and
# in float64. Then we compare the difference with the error of the fit.

network = trained(iterations=100).requires_grad_(False)
single = derivatives(network, grid.float())
precise = derivatives(network.double())
rounding = {order: (single[order].double(), precise[order]) for order in exact}
for order in exact:
    assert ratio(rounding, base, order) < 0.01, "rounding matters: update this section"
variant_table({"float32 against float64": rounding})

# %%
# The rounding error is far below the error of the fit. It is also enough to train in float32:

variant_table({"float32": base, "float64": assess(trained(dtype=double))})

# %%
# Count
# -----
# What does Sobolev training cost? Its loss contains the Jacobian. So each iteration also computes the derivatives with
# respect to both inputs, and the backward pass goes through these as well.

from funcdiff.measure import compare, count

network = fresh()
weights = list(network.parameters())


def misfit(found, true):
    return (found - true).square().mean()


def plain_step():
    return torch.autograd.grad(misfit(network(x), surface(x)), weights)


def sobolev_step():
    slopes = misfit(jacobians(network, x), surface_jacobian(x))
    return torch.autograd.grad(misfit(network(x), surface(x)) + slopes, weights)


steps = {"plain": plain_step, "Sobolev": sobolev_step}
costs = count(steps)
costs

# %%
# This is how many times fewer FLOPs (floating-point operations) plain training needs:

costs.claim("plain", fewer_flops_than="Sobolev")

# %%
# Time
# ----
# What does fitting the slopes cost in time? We time one iteration of each training.

times = compare(steps, equal=False, rounds=9)
times

# %%
# The factor in time also contains the overhead of the additional operations:

times.claim("plain", faster_than="Sobolev")

# %%
# Is Sobolev training better only because it computes more? We give plain training more iterations, until it needs as
# many FLOPs. (Its time can still differ.) The figure shows the errors that remain.

from funcdiff.plots import plot_dots

factor = costs["Sobolev"].flops / costs["plain"].flops
longer = assess(trained(iterations=round(300 * factor)))
fits = {"plain": base, "plain, as many FLOPs": longer, "Sobolev": sobolev}
sizes = {}
for name, fit in fits.items():
    sizes[name] = {order: rms(f - true) / rms(true) for order, (f, true) in fit.items()}
gain = ratio(longer, sobolev, "second")
title = f"Second derivatives: {gain:.3g}× the error of Sobolev training, equal FLOPs"
plot_dots(sizes, label="RMS error / RMS of exact", title=title)

# %%
# A dot further to the left is a smaller error. These factors are errors of plain training divided by those of Sobolev
# training. A factor above 1 in the second line says that Sobolev training is better for as many FLOPs:

for rival in ("plain", "plain, as many FLOPs"):
    gains = [f"{order} {ratio(fits[rival], sobolev, order):.3g}" for order in exact]
    print(f"{rival}: {', '.join(gains)}")
better = [order for order in exact if ratio(longer, sobolev, order) > 1]
print("At equal FLOPs, Sobolev training is better for:", ", ".join(better) or "none")
assert ratio(base, sobolev, "first") > 2

# %%
# What goes wrong
# ---------------
# *You use ReLU and need second derivatives.* They are zero wherever they exist, so the Hessians of the fitted network
# are zero. No error is raised.

relu_second, exact_second = others["ReLU"]["second"]
assert not relu_second.any(), "ReLU now has second derivatives: update this section"
print("largest second derivative of the network:", relu_second.abs().max().item())
print(f"largest second derivative of the function: {exact_second.abs().max():.3g}")

# %%
# Takeaway
# --------
# Choose a smooth activation, and as many samples as you can. Compare the derivatives of the networks that you train,
# not only their losses.
#
# * If the simulation can return derivatives, fit them, above all if samples are expensive.
# * If you need only values, ReLU is good enough. float32 is good enough in all cases here.
